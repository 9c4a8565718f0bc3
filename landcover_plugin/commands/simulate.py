"""``landcover simulate``: write a simulated scene to try everything on before real data arrives."""

import argparse
import sys
from collections.abc import Sequence

_DESCRIPTION = """\
Write a simulated scene: April and August images of Sentinel-2 (10 bands, 10 m) and a land-cover label,
named like the CatLC rasters, so that training, mapping and tests run without them.

Everything in the scene is invented: a score on it is never an accuracy on real land.
"""

_EXAMPLE = """\
example:
  landcover simulate demo --size 512x640 --seed 7

  writes, in a few seconds, a scene of 5.1 km from north to south and 6.4 km from west to east:
    demo/S2_CAT_201804_UTM_WGS84_31N_10m.tif
    demo/S2_CAT_201808_UTM_WGS84_31N_10m.tif
    demo/LC_2018_UTM_WGS84_31N_1m_12_Classes.tif
  The same size and seed give the same pixels on every run.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If an argument is out of range or files would be overwritten.
    """
    args = _parser().parse_args(argv)
    from landcover_plugin.datasets.simulated import write_scene  # numba and rasterio: not for --help

    scene = write_scene(
        args.dir,
        size=args.size,
        seed=args.seed,
        label_gsd=args.label_gsd,
        clouds=not args.no_clouds,
        overwrite=args.overwrite,
        progress=sys.stderr.isatty(),
    )
    for path in scene.paths:
        sys.stdout.write(f'{path}\n')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='landcover simulate',
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('dir', metavar='DIR', help='directory for the files; made if missing')
    parser.add_argument(
        '--size',
        type=_size,
        default=(1024, 1024),
        metavar='N|HxW',
        help='height and width in pixels of 10 m, e.g. 1024 or 1024x768 (default: 1024)',
    )
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='another seed, another land (default: 0)')
    parser.add_argument(
        '--label-gsd', type=int, default=1, choices=(1, 2, 5, 10), help='metres of a label pixel (default: 1)'
    )
    parser.add_argument('--no-clouds', action='store_true', help='leave out clouds and their shadows')
    parser.add_argument('--overwrite', action='store_true', help='replace an earlier scene in DIR')
    return parser


def _size(text: str) -> tuple[int, int]:
    """Parse '1024' or '1024x768' (height x width)."""
    try:
        sides = [int(side) for side in text.lower().split('x')]
        height, width = sides * 2 if len(sides) == 1 else sides
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected N or HEIGHTxWIDTH, e.g. 1024x768, got {text!r}') from None
    return height, width
