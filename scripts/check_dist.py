#!/usr/bin/env python
"""Look into the wheel and the sdist in a folder: what must be there, and what must not.

    python scripts/check_dist.py dist

Every file of the package that git holds must be in both, byte for byte; tests and scripts must not be in the wheel.
"""

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = 'landcover_plugin'

#: What people who build from the sdist need beside the package.
BESIDE = ('LICENSE', 'README.md', 'CHANGELOG.md', 'pyproject.toml', 'constraints.txt', 'Makefile', 'configs/unet.yaml')


def faults(wheel: Mapping[str, bytes], sdist: Mapping[str, bytes], tracked: Mapping[str, bytes]) -> list[str]:
    """What is wrong, in sentences.

    Args:
        wheel: Content of each file of the wheel.
        sdist: Content of each file of the sdist, without its top folder.
        tracked: Content of each file that git holds.
    """
    package = {name: data for name, data in tracked.items() if name.startswith(f'{PACKAGE}/')}
    found = [
        f'{where} lacks {name}, or holds another version of it'
        for where, files in (('the wheel', wheel), ('the sdist', sdist))
        for name, data in package.items()
        if files.get(name) != data
    ]
    found += [f'the sdist lacks {name}' for name in BESIDE if name not in sdist]
    allowed = tuple(package)
    strangers = [name for name in wheel if name not in allowed and '.dist-info/' not in name]
    found += [f'the wheel holds {name}, which is no file of the package' for name in strangers]
    return found


def read_wheel(path: Path) -> dict[str, bytes]:
    """Content of each file of a wheel."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith('/')}


def read_sdist(path: Path) -> dict[str, bytes]:
    """Content of each file of an sdist, by its path in the top folder."""
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        return {member.name.partition('/')[2]: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def read_tracked() -> dict[str, bytes]:
    """Content of each file that git holds, as it lies in the checkout."""
    names = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return {name: (ROOT / name).read_bytes() for name in names.split('\0') if name and (ROOT / name).is_file()}


def main(folder: str) -> int:
    """Check the one wheel and the one sdist in a folder; returns the exit code."""
    wheels, sdists = sorted(Path(folder).glob('*.whl')), sorted(Path(folder).glob('*.tar.gz'))
    if (len(wheels), len(sdists)) != (1, 1):
        print(
            f'{folder} must hold one wheel and one sdist, found {len(wheels)} and {len(sdists)}: make dist',
            file=sys.stderr,
        )
        return 1
    found = faults(read_wheel(wheels[0]), read_sdist(sdists[0]), read_tracked())
    print('\n'.join(found) or f'{wheels[0].name}, {sdists[0].name}: complete')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:2] or ['dist']))
