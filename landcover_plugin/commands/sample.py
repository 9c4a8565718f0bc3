"""``landcover sample``: draw points for an accuracy assessment."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import LandcoverError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..evaluation.drawing import DrawnPixels

_DESCRIPTION = """\
Draw a stratified random sample of the pixels of a map, one stratum for each class, as a GeoPackage that is ready to
be interpreted in QGIS: a form with the class names, the outline of each pixel, and points in random order.

The interpretation is blind: map class, stratum and inclusion probability are kept in tables of their own, apart from
the layer that one opens. Fill in reference_code, as far as you get, and run landcover areas MAP --reference
on the file.
"""

_EPILOG = """\
allocation of the points to the classes, beyond --min-per-class for each:
  neyman         as area times expected standard deviation: classes that are expected to be uncertain get more. Say what
                 you expect by --expected-accuracy, such as the user's accuracies of landcover test (default)
  proportional   as area
  equal          alike; best for the user's accuracies of rare classes

examples:
  landcover sample map.tif --n 800 --output sample.gpkg
  landcover sample map.tif --n 800 --output sample.gpkg --expected-accuracy '0.8,forest=0.95,11=0.6'
  landcover areas map.tif --reference sample.gpkg
"""


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If arguments or files do not fit, or the sample cannot be written.
    """
    args = _parser().parse_args(argv)
    from .._version import __version__
    from ..evaluation.allocation import allocate  # rasterio, numba and geopandas: not for --help
    from ..evaluation.class_map import ClassMap, count, grid_text
    from ..evaluation.drawing import draw
    from ..evaluation.sample_file import SampleInfo, write_sample
    from ..evaluation.zones import read_aoi
    from ..legend import NODATA
    from .files import free_output

    target = free_output(args.output, overwrite=args.overwrite, suffix='.gpkg')
    if args.seed < 0:
        raise LandcoverError(f'--seed must be at least 0, got {args.seed}')
    expected = _accuracies(args.expected_accuracy)
    source = ClassMap(args.map, source_legend=args.source_legend)
    aoi = read_aoi(args.aoi, source.grid) if args.aoi else None
    source = ClassMap(args.map, source_legend=args.source_legend, aoi=aoi)
    counts = count(source)
    strata = counts.pixels.copy()
    strata[NODATA] = 0
    points = allocate(
        strata, args.n, allocation=args.allocation, expected_accuracy=expected, minimum=args.min_per_class
    )
    drawn = draw(source, counts, points, seed=args.seed)
    info = SampleInfo(
        map_name=source.name,
        map_digest=counts.digest,
        grid=grid_text(source.grid),
        seed=args.seed,
        allocation=f'{args.allocation}, at least {args.min_per_class} per class, expected {args.expected_accuracy}',
        software=f'landcover {__version__}',
    )
    write_sample(
        target,
        drawn,
        source.grid,
        pixels=strata,
        areas=counts.areas,
        row_areas=source.row_areas,
        info=info,
        aoi=aoi,
    )
    sys.stdout.write(_report(drawn, strata) + f'{target}\n')
    return 0


def _report(drawn: 'DrawnPixels', pixels: 'NDArray[np.int64]') -> str:
    import numpy as np

    from ..legend import LEGEND

    points = np.bincount(drawn.codes, minlength=len(pixels))
    lines = [f'   {"class":<42}{"pixels":>14}{"%":>8}{"points":>8}']
    for code in (c for c in LEGEND.codes if pixels[c]):
        share = 100 * pixels[code] / pixels.sum()
        lines.append(f'{code:>2} {LEGEND[code].name:<42}{pixels[code]:>14,}{share:>8.2f}{points[code]:>8}')
    lines.append(f'   {"all":<42}{pixels.sum():>14,}{100:>8.2f}{points.sum():>8}')
    return '\n'.join(lines) + '\n'


def _accuracies(text: str) -> 'NDArray[np.float64]':
    """Expected accuracy of each code from '0.8' or '0.8,forest=0.95,11=0.6'."""
    import numpy as np

    from ..evaluation.class_words import class_code
    from ..legend import LEGEND

    found = np.full(LEGEND.num_classes, 0.8)
    for part in sorted(text.split(','), key=lambda p: '=' in p):  # the number for all comes first
        name, equals, number = part.rpartition('=')
        try:
            value = float(number)
        except ValueError:
            value = float('nan')
        if not 0 < value < 1:
            raise LandcoverError(
                f"--expected-accuracy takes shares between 0 and 1, such as '0.8' or '0.8,forest=0.95', got {text!r}"
            )
        found[class_code(name) if equals else slice(None)] = value
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='landcover sample',
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('map', metavar='MAP', help='class map: codes in the first band')
    parser.add_argument('--n', type=int, default=800, metavar='N', help='points in all (default: 800)')
    parser.add_argument('--output', required=True, metavar='FILE', help='the GeoPackage, .gpkg')
    parser.add_argument(
        '--allocation',
        default='neyman',
        choices=('neyman', 'proportional', 'equal'),
        help='see below (default: neyman)',
    )
    parser.add_argument(
        '--min-per-class', type=int, default=50, metavar='N', help='points of each class at least (default: 50)'
    )
    parser.add_argument(
        '--expected-accuracy',
        default='0.8',
        metavar='P,CLASS=P,…',
        help="user's accuracy that you expect, of all classes or by code or name (default: 0.8)",
    )
    parser.add_argument('--aoi', metavar='FILE', help='polygons, in any CRS: only this ground is sampled')
    parser.add_argument(
        '--source-legend', default='12', choices=('12', '41', 'auto'), help='values of the map (default: 12)'
    )
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='same map and seed, same points (default: 0)')
    parser.add_argument('--overwrite', action='store_true', help='replace an older file')
    return parser
