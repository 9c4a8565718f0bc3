"""``landcover polygonize``: a class map as polygons for a GIS."""

import argparse
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LandcoverError

if TYPE_CHECKING:
    from ..grid import PixelGrid
    from ..mapping.refinement import MinimumMappingUnit
    from ..mapping.tiled_map import Area, TiledMap

log = logging.getLogger(__name__)

#: Bytes of decoded blocks that GDAL keeps (by default a twentieth of the machine's memory): each is read once.
_CACHE = 2**25

_DESCRIPTION = """\
Turn a class map into polygons: a GeoPackage with one polygon for each connected region of a class.

  code, class, class_ca      class, with its English and its Catalan name
  area_ha, area_m2           area of the pixels; on the ellipsoid where the map is in degrees
  perimeter_m                length of the outline with that of holes; not in degrees
  pixels                     pixels of the map
  confidence                 mean confidence of the pixels, if there is a raster of it
  region                     number of the region: its first pixel, counted in rows from the upper left

Polygons share their borders vertex by vertex: there are no gaps and no overlaps, also after --simplify. Rasterised
again, they give the map bit for bit (without --simplify and --mmu). QGIS shows names and colours of the classes by
itself. The map is read tile by tile: memory does not grow with it. A region with more than a million vertices stays in
pieces that have one number.
"""

_EPILOG = """\
examples:
  landcover polygonize map.tif
  landcover polygonize map.tif --mmu 500 --simplify 10
  landcover polygonize map.tif --output girona.gpkg --aoi girona.gpkg
"""


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If arguments or rasters do not fit, or the polygons cannot be written.
    """
    args = _parser().parse_args(argv)
    import rasterio

    from ..mapping.geopackage import LAYER, check_geopackage, write_geopackage
    from ..mapping.polygonize import polygons_of

    started = time.monotonic()
    source = _source(args)
    output = check_geopackage(args.output or Path(args.map).with_suffix('.gpkg'), overwrite=args.overwrite)
    folder = next(parent for parent in output.parents if parent.exists())
    with rasterio.Env(GDAL_CACHEMAX=_CACHE):
        count = write_geopackage(
            output,
            polygons_of(source, folder, simplify=args.simplify),
            grid=source.grid,
            legend=source.legend,
            confidence=source.confidence is not None,
            tags=source.tags(),
        )
    size, seconds = output.stat().st_size / 1e6, time.monotonic() - started
    sys.stdout.write(f'{output}: layer {LAYER}, {count:,} polygons ({size:,.1f} MB, {seconds:,.0f} s)\n')
    return 0


def _source(args: argparse.Namespace) -> 'TiledMap':
    """The map with everything that was asked for."""
    from ..mapping.tiled_map import TiledMap, coloured_legend

    if '://' not in args.map and not Path(args.map).exists():
        raise LandcoverError(f'{args.map} does not exist: name the class map that predict wrote')
    confidence = args.confidence or _confidence_beside(args.map)
    source = TiledMap(args.map, confidence, coloured_legend(args.map))
    return TiledMap(
        args.map,
        confidence,
        source.legend,
        area=_area(args.aoi, source.grid) if args.aoi else None,
        refinement=_unit(args.mmu, source.grid) if args.mmu else None,
    )


def _confidence_beside(path: str) -> str | None:
    from ..rasters.remote import find, is_remote

    stem, dot, suffix = path.rpartition('.')
    beside = f'{stem}_confidence{dot}{suffix}'
    if not (find(beside) if is_remote(path) else Path(beside).exists()):
        return None
    log.info('mean confidence comes from %s', beside)
    return beside


def _area(aoi: str, grid: 'PixelGrid') -> 'Area':
    from ..sampling.regions import read_polygons, region_of

    return region_of(grid, grid.full, read_polygons(aoi, grid), what=aoi)


def _unit(square_metres: float, grid: 'PixelGrid') -> 'MinimumMappingUnit':
    from ..mapping.refinement import MinimumMappingUnit, pixels_of_area

    return MinimumMappingUnit(pixels_of_area(square_metres, grid))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='landcover polygonize',
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('map', metavar='MAP', help='class map, a raster of codes such as predict writes')
    parser.add_argument('--output', metavar='FILE.gpkg', help='where the polygons go (default: beside the map)')
    parser.add_argument(
        '--mmu', type=_positive, metavar='M2', help='minimum mapping unit: regions smaller than so many square metres '
        'join the class with which they share the longest border, as in predict (500 in the ICGC specification)'
    )  # fmt: skip
    parser.add_argument(
        '--simplify', type=_positive, metavar='M', help='simplify outlines: cut off triangles smaller than the square '
        'of so many metres (Visvalingam and Whyatt), common borders once; areas remain those of the pixels. Steps of '
        'pixels go from their size on (10)'
    )  # fmt: skip
    parser.add_argument(
        '--confidence', metavar='FILE', help='raster of confidence on the grid of the map (default: '
        'MAP_confidence.tif where it is beside the map)'
    )  # fmt: skip
    parser.add_argument('--aoi', metavar='FILE', help='vector file of polygons: pixels with their centres in them')
    parser.add_argument('--overwrite', action='store_true', help='replace an older file')
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f'expected a positive number, got {text!r}')
    return value
