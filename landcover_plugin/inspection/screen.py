"""The examination on one screen, or as one JSON document."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from .._version import __version__
from .classes import ClassRow
from .environment import environment
from .examination import Examination
from .findings import LEVELS, Finding, Level, exit_code, plain
from .steps import next_steps

#: ANSI colours of the levels.
_COLOURS: dict[Level, str] = {'ok': '32', 'note': '36', 'warning': '33', 'error': '31'}

#: Columns of the level and of the check.
_LEVEL, _CHECK = 8, 9


def as_json(found: Examination) -> str:
    """Everything that was found, as one JSON document without NaN."""
    document = {
        'settings': asdict(found.settings),
        'exit_code': exit_code(found.findings),
        'findings': [asdict(f) for f in found.findings],
        'classes': [asdict(row) for row in found.table],
        'share_of_ground_read': found.share,
        'next': next_steps(found),
        'seconds': round(found.seconds, 2),
        'environment': environment(),
    }
    return json.dumps(plain(document), indent=1, allow_nan=False)


def as_text(found: Examination, *, width: int = 80, colour: bool = False) -> str:
    """Everything that was found, for people.

    Args:
        found: The examination.
        width: Columns.
        colour: Mark the levels by ANSI colours.
    """
    lines = [f'landcover {__version__}, doctor of {found.settings.root}', '', *_findings(found.findings, width, colour)]
    if found.table:
        lines += ['', *_table(found, width)]
    steps = next_steps(found)
    if steps:
        lines += ['', 'what to do next', *_steps(steps, width)]
    return '\n'.join([*lines, '', _verdict(found), ''])


def _findings(findings: Sequence[Finding], width: int, colour: bool) -> Iterator[str]:
    indent = ' ' * (_LEVEL + _CHECK)
    for finding in findings:
        head = f'{finding.level:<{_LEVEL}}'
        if colour:
            head = f'\x1b[{_COLOURS[finding.level]}m{head}\x1b[0m'
        first, *more = _wrap(finding.sentence, width - len(indent)) or ['']
        yield f'{head}{finding.check:<{_CHECK}}{first}'
        yield from (f'{indent}{line}' for line in more)
        if finding.way_out and finding.level != 'ok':
            first, *more = _wrap(finding.way_out, width - len(indent) - 3)
            yield f'{indent}-> {first}'
            yield from (f'{indent}   {line}' for line in more)


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)


def _table(found: Examination, width: int) -> Iterator[str]:
    """Code, name, share and weights of each class."""
    whole = found.share == 1
    source = 'all of the ground' if whole else f'a sample, {_percent(found.share)} % of the ground, spread evenly'
    yield from _wrap(f'labelled pixels of {source}, and the weights of --model.class_weights', width)
    strategies = list(found.table[0].weights)
    longest = min(max(len(row.name) for row in found.table), width - 9 - sum(len(name) + 1 for name in strategies))
    yield f'   {"":<{longest}}{"%":>6}' + ''.join(f'{name:>{len(name) + 1}}' for name in strategies)
    for row in found.table:
        yield _row(row, longest, strategies)


def _row(row: ClassRow, longest: int, strategies: Sequence[Any]) -> str:
    weights = (f'{row.weights[name]:.2f}' if row.pixels else '-' for name in strategies)
    cells = ''.join(f'{w:>{len(name) + 1}}' for name, w in zip(strategies, weights, strict=True))
    return f'{row.code:>2} {_cut(row.name, longest):<{longest}}{_percent(row.share):>6}{cells}'


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else f'{name[: length - 1]}…'


def _percent(share: float) -> str:
    """A share in percent, with the digits that tell small ones from nothing.

    Examples:
        >>> _percent(0), _percent(0.123456), _percent(0.00123), _percent(0.00001)
        ('0', '12.3', '0.12', '<0.01')
    """
    if 0 < share < 1e-4:
        return '<0.01'
    return '0' if not share else f'{100 * share:.1f}' if share >= 0.01 else f'{100 * share:.2f}'


def _steps(steps: Sequence[str], width: int) -> Iterator[str]:
    for number, step in enumerate(steps, start=1):
        is_command = step.startswith(('landcover ', 'gdal'))  # stays whole, to be copied
        first, *more = [step] if is_command else _wrap(step, width - 4)
        yield f'{number:>2}. {first}'
        yield from (f'    {line}' for line in more)


def _verdict(found: Examination) -> str:
    counts = {level: sum(f.level == level for f in found.findings) for level in LEVELS}
    told = ', '.join(f'{n} {level}{"s" * (n != 1)}' for level, n in reversed(counts.items()) if n and level != 'ok')
    meaning = {0: 'fit to train', 1: 'cannot train like this', 2: 'trains, at a cost in quality or speed'}
    code = exit_code(found.findings)
    return f'{meaning[code]}: {told or "nothing to complain of"} ({found.seconds:.0f} s; exit code {code})'
