"""``landcover compare``: where and how two maps differ."""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LandcoverError

if TYPE_CHECKING:
    from ..evaluation.overlay import Overlay, Transitions

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Compare two class maps, or a map and a label raster: how much agrees, and of what kind the differences are.

  quantity     the maps hold different amounts of a class
  exchange     two classes swapped places
  shift        more than two classes moved round
               (exchange and shift together are the allocation disagreement)

after Pontius and Millones (2011) and Pontius and Santacruz (2014). B is brought to the pixels of A: its finer pixels by
majority or the one at the centre, others by the nearest. The 41 MCSC values become the 12 classes.
"""

_EPILOG = """\
files in --output DIR:
  components.json       everything
  classes.csv           hectares, gain, loss, quantity, exchange and shift of each class
  transitions.csv       pixels and hectares of each pair of classes
  matrix.csv            hectares, classes of A in rows, of B in columns
  change.tif            with --raster: 100 x code in A + code in B, 0 where both agree, 65535 where either has no data
  changes.gpkg          with --polygons: changed ground, its classes and area

examples:
  landcover compare map_2018.tif map_2023.tif
  landcover compare map.tif LC_2018_UTM_WGS84_31N_1m_12_Classes.tif --output differences --raster
  landcover compare a.tif b.tif --output differences --polygons --min-area 2
"""


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If arguments or files do not fit, or a file cannot be written.
    """
    args = _parser().parse_args(argv)
    if (args.raster or args.polygons) and not args.output:
        raise LandcoverError('--raster and --polygons are written to a folder: name it with --output')
    if not args.min_area >= 0:
        raise LandcoverError(f'--min-area must be at least 0 ha, got {args.min_area}')
    from ..evaluation import transition_tables  # rasterio, numba and geopandas: not for --help
    from ..evaluation.class_map import ClassMap
    from ..evaluation.overlay import Overlay
    from ..evaluation.zones import read_aoi
    from ..rasters.pixel_size import warn_of_stretch

    outputs = _outputs(args)
    aoi = read_aoi(args.aoi, ClassMap(args.a, source_legend=args.legend_a).grid) if args.aoi else None
    overlay = Overlay(args.a, args.b, legends=(args.legend_a, args.legend_b), aggregation=args.aggregation, aoi=aoi)
    warn_of_stretch(overlay.grid)
    found = _compare(overlay, outputs, args.min_area)
    sys.stdout.write(transition_tables.as_text(found))
    if outputs:
        _write_tables(args, found, outputs)
    return 0


def _outputs(args: argparse.Namespace) -> dict[str, Path]:
    """The files to write; refused before any work if they cannot be."""
    from .files import free_output

    if not args.output:
        return {}
    names = ['components.json', 'classes.csv', 'transitions.csv', 'matrix.csv']
    names += ['change.tif'] * (args.raster or args.polygons) + ['changes.gpkg'] * args.polygons
    folder = Path(args.output)
    if folder.exists() and not folder.is_dir():
        raise LandcoverError(f'{folder} is a file: name a folder')
    found = {name: free_output(str(folder / name), overwrite=args.overwrite) for name in names}
    if args.polygons and not args.raster:
        log.info('polygons are outlined on the change raster, which is written too')
    return found


def _compare(overlay: 'Overlay', outputs: dict[str, Path], min_area: float) -> 'Transitions':
    from ..evaluation.change_polygons import write_polygons
    from ..evaluation.change_raster import ChangeRaster
    from ..evaluation.overlay import transitions

    with ExitStack() as stack:
        write = None
        if 'change.tif' in outputs:
            write = stack.enter_context(ChangeRaster(outputs['change.tif'], overlay.grid)).write
        found = transitions(overlay, write)
    if 'changes.gpkg' in outputs:
        written = write_polygons(outputs['changes.gpkg'], outputs['change.tif'], min_area=min_area)
        log.info('changes.gpkg: %d polygons', written)
    return found


def _write_tables(args: argparse.Namespace, found: 'Transitions', outputs: dict[str, Path]) -> None:
    from ..evaluation import area_tables, transition_tables

    told = {'first': Path(args.a).name, 'second': Path(args.b).name, 'aggregation': args.aggregation}
    area_tables.write_csv(outputs['classes.csv'], transition_tables.class_rows(found))
    area_tables.write_csv(outputs['transitions.csv'], transition_tables.transition_rows(found))
    area_tables.write_csv(outputs['matrix.csv'], transition_tables.matrix_rows(found))
    area_tables.write_json(outputs['components.json'], transition_tables.document(found, told))
    sys.stdout.write(f'\n{Path(args.output).resolve()}: {", ".join(outputs)}\n')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='landcover compare',
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('a', metavar='A', help='class map; its pixels are compared')
    parser.add_argument('b', metavar='B', help='class map or label raster, on any grid')
    parser.add_argument('--output', metavar='DIR', help='folder for tables, change raster and polygons')
    parser.add_argument('--raster', action='store_true', help='write the change raster, a COG')
    parser.add_argument('--polygons', action='store_true', help='write changed ground as polygons')
    parser.add_argument(
        '--min-area', type=float, default=0.5, metavar='HA', help='smallest polygon in hectares (default: 0.5)'
    )
    parser.add_argument('--aoi', metavar='FILE', help='polygons, in any CRS: only this ground is compared')
    parser.add_argument(
        '--aggregation',
        default='mode',
        choices=('mode', 'nearest'),
        help='how finer pixels of B become one: majority, or the one at the centre (default: mode)',
    )
    for name in ('a', 'b'):
        parser.add_argument(
            f'--legend-{name}', default='auto', choices=('auto', '12', '41'), help=f'values of {name.upper()} (auto)'
        )
    parser.add_argument('--overwrite', action='store_true', help='replace older files')
    return parser
