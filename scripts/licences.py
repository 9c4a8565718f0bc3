#!/usr/bin/env python
"""The licences of the packages that this one names in pyproject.toml, from their own metadata, as a Markdown table.

    python scripts/licences.py > THIRD_PARTY.md

Ends with code 1 where a licence is unknown, or none that MIT software can be built on. What these packages need
in turn is in the SBOM (make sbom).
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]

#: SPDX identifiers of licences that ask users of this package for no more than attribution, or (MPL) changed files.
ALLOWED = frozenset(
    ('0BSD', 'Apache-2.0', 'BSD', 'BSD-2-Clause', 'BSD-3-Clause', 'BSL-1.0', 'CC0-1.0', 'HPND', 'ISC', 'MIT',
     'MIT-CMU', 'MPL-2.0',
     'PSF-2.0', 'Unlicense', 'Zlib')
)  # fmt: skip

#: How older metadata words a licence, and what it is.
WORDINGS = (
    (r'apache', 'Apache-2.0'),
    (r'\bmit\b', 'MIT'),
    (r'3-clause', 'BSD-3-Clause'),
    (r'2-clause', 'BSD-2-Clause'),
    (r'\bbsd\b', 'BSD'),
    (r'python software foundation', 'PSF-2.0'),
    (r'mozilla', 'MPL-2.0'),
)

#: What need not be installed for the table to be made.
ABSENT = {'google-cloud-aiplatform': 'Apache-2.0', 'google-cloud-storage': 'Apache-2.0'}


class Dependency(NamedTuple):
    """A package, its licence as SPDX expression ('' if unknown), and the extra that needs it ('' for all users)."""

    name: str
    licence: str
    extra: str


def dependencies(pyproject: Path = ROOT / 'pyproject.toml') -> Iterator[Dependency]:
    """The packages that a project names, with their licences; each once."""
    project = tomllib.loads(pyproject.read_text(encoding='utf-8'))['project']
    groups = {'': project['dependencies'], **project['optional-dependencies']}
    seen = {project['name']}
    for extra, requirements in groups.items():
        for name in sorted(Requirement(text).name for text in requirements):
            if name not in seen:
                seen.add(name)
                yield Dependency(name, licence_of(name), extra)


def licence_of(name: str) -> str:
    """The licence of a distribution as SPDX expression, '' where its metadata tell none that is known."""
    try:
        told = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ABSENT.get(name, '')
    classifiers = [text for text in told.get_all('Classifier') or [] if text.startswith('License ::')]
    first_line = (told.get('License') or '').strip().partition('\n')[0]
    return read_licence(told.get('License-Expression') or '', first_line, *classifiers)


def read_licence(*texts: str) -> str:
    """The first of some wordings that is an SPDX expression of known licences, or can be read as one.

    Examples:
        >>> read_licence('', 'MPL-2.0 AND MIT'), read_licence('see file', 'License :: OSI Approved :: MIT License')
        ('MPL-2.0 AND MIT', 'MIT')
        >>> read_licence('', 'Copyright 2018 Somebody')
        ''
    """
    for text in filter(None, texts):
        try:
            return str(canonicalize_license_expression(text))
        except InvalidLicenseExpression:
            found = [licence for pattern, licence in WORDINGS if re.search(pattern, text.lower())]
            if found:
                return found[0]
    return ''


def is_allowed(expression: str) -> bool:
    """Whether every part of an SPDX expression (of alternatives, one) is allowed.

    Examples:
        >>> is_allowed('Apache-2.0 WITH LLVM-exception AND MIT'), is_allowed('GPL-3.0-only OR MIT')
        (True, True)
        >>> is_allowed('MIT AND GPL-2.0-or-later'), is_allowed('AGPL-3.0-only'), is_allowed('')
        (False, False, False)
    """
    plain = re.sub(r'[()]| WITH LLVM-exception', '', expression)
    return all(any(one in ALLOWED for one in part.split(' OR ')) for part in plain.split(' AND '))


def table(found: Sequence[Dependency]) -> str:
    """The Markdown document."""
    lines = [
        '# Licences of other packages',
        '',
        'What this package names in `pyproject.toml`, by the metadata of these packages. Made by `make licences`.',
        'None of them is part of the wheel. `make sbom` lists all packages of an environment with their versions.',
        '',
        '| package | licence | needed for |',
        '|:--|:--|:--|',
        *(f'| {d.name} | {d.licence or "unknown"} | {f"extra `{d.extra}`" if d.extra else "all"} |' for d in found),
    ]
    return '\n'.join(lines) + '\n'


def main() -> int:
    """Print the table; returns 1 where a licence is unknown or not allowed."""
    found = list(dependencies())
    print(table(found), end='')
    wrong = [d for d in found if not is_allowed(d.licence)]
    for d in wrong:
        print(f'{d.name}: {d.licence or "unknown licence"} is not among those allowed', file=sys.stderr)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
