"""``landcover doctor``: will these rasters train well, and if not, what to do."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..errors import LandcoverError

_DESCRIPTION = """\
Look at mosaics and labels before training: files, grids, bands, scale and offset, nodata, clouds and snow, classes,
a shift between labels and images, pyramids, layout and speed, split, disk space. Reads a sample of the ground, never
all of a large raster, and changes nothing.
"""

_EPILOG = """\
exit codes:
  0  fine; there may be notes
  1  cannot train: at least one error (or the arguments cannot be used)
  2  trains, but warnings will cost quality or speed

examples:
  landcover doctor data
  landcover doctor data --patch-size 128 --reflectance-offset -1000
  landcover doctor data --json > doctor.json
  landcover doctor --env
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise: exit code 2 means something else here."""
        raise LandcoverError(f'{message}; see landcover doctor --help')


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If the arguments cannot be used.
    """
    args = vars(_parser().parse_args(argv))
    env, as_json, root = args.pop('env'), args.pop('json'), args.pop('data')
    if env:
        return _tell_environment(as_json)
    if root is None:
        raise LandcoverError('doctor needs the folder that holds the rasters: landcover doctor DATA')
    from ..inspection import screen  # rasterio and numba: not for --help
    from ..inspection.examination import Settings
    from ..inspection.findings import exit_code
    from ..inspection.rounds import examine

    found = examine(Settings(root=root, **args), progress=sys.stderr.isatty())
    if as_json:
        _write(screen.as_json(found) + '\n')
    else:
        width = min(shutil.get_terminal_size((80, 50)).columns, 110)
        colour = sys.stdout.isatty() and not os.environ.get('NO_COLOR')
        _write(screen.as_text(found, width=width, colour=colour))
    return exit_code(found.findings)


def _tell_environment(as_json: bool) -> int:
    import json

    from ..inspection.capabilities import capabilities
    from ..inspection.environment import environment

    found = environment() | capabilities()
    if as_json:
        _write(json.dumps(found, indent=1) + '\n')
    else:
        _write(''.join(f'{name:<28} {value}\n' for name, value in found.items()))
    return 0


def _write(text: str) -> None:
    """Write to stdout; what its encoding does not know, such as a file name in Latin-1, is escaped."""
    encoding = sys.stdout.encoding or 'utf-8'
    sys.stdout.write(text.encode(encoding, errors='backslashreplace').decode(encoding))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog='landcover doctor',
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('data', metavar='DATA', nargs='?', help='folder that holds the rasters, local or gs://')
    parser.add_argument('--json', action='store_true', help='print one JSON document and nothing else')
    parser.add_argument(
        '--env',
        action='store_true',
        help='print versions, engines, devices, memory, for reports of faults',
    )
    reading = parser.add_argument_group(
        'how training would read them', 'as the keys of the same name, --data.…, of fit'
    )
    reading.add_argument('--patch-size', type=int, default=256, metavar='N', help='edge of patches in pixels (256)')
    reading.add_argument('--bands', type=_names, metavar='B04,B08', help='bands by name (all)')
    reading.add_argument('--band-order', type=_names, metavar='B02,…', help='names of bands that the files do not name')
    reading.add_argument('--seasons', choices=('separate', 'stack'), default='separate', help='(separate)')
    reading.add_argument('--reflectance-scale', type=float, default=10_000, metavar='X', help='(10000)')
    reading.add_argument('--reflectance-offset', type=float, default=0, metavar='X', help='0 or negative (0)')
    reading.add_argument('--nodata', type=float, metavar='X', help='as the files declare, else 0')
    reading.add_argument(
        '--source-legend', choices=('auto', '12', '41'), default='auto', help='values of labels (auto)'
    )
    reading.add_argument(
        '--unknown-labels', choices=('error', 'ignore'), default='error', help='label values outside the legend (error)'
    )
    return parser


def _names(text: str) -> list[str]:
    """Band names from 'B04,B08' or '[B04, B08]'."""
    names = [name.strip() for name in text.strip('[] ').split(',') if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"expected names such as B04,B08, got '{text}'")
    return names
