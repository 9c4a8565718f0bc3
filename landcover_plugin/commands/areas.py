"""``landcover areas``: areas of the classes as mapped and as a sample corrects them."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LandcoverError

if TYPE_CHECKING:
    from ..evaluation.class_map import ClassMap, MapCounts
    from ..evaluation.estimation import Assessment
    from ..evaluation.reference import ReferencePoints

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Areas of the classes of a map, for all of it and for zones (municipalities, protected areas, …), and, from reference
points, error-adjusted areas and accuracies with confidence intervals.

A map's own areas are biased by its errors. A probability sample of points with their true class gives areas that are
not (Olofsson et al. 2014, Remote Sensing of Environment 148; Stehman 2014, International Journal of Remote
Sensing 35(13), where the strata are not the classes of the map): draw one with landcover sample, interpret it, and name
it here.
"""

_EPILOG = """\
reference points:
  --reference sample.gpkg     drawn by landcover sample: strata and their sizes are in the file
  --reference points.csv      any points, with the columns x, y and reference_code (code, or English or Catalan name).
                              Strata are the classes of the map, or --stratum-column with --stratum-sizes. The points
                              must be a random sample: points that somebody chose give no interval
  --labels LC.tif --blocks blocks.gpkg
                              for want of a sample: labels on the test blocks of a run. Labels are not the truth and
                              blocks no probability sample, so this proves nothing about the whole map

intervals:
  wilson                      Wilson limits of each stratum, put together (MOVER; Zou and Donner 2008). They hold for
                              rare classes and few points (default)
  normal                      estimate ± 1.96 standard errors, as in the papers; too narrow for rare classes

examples:
  landcover areas map.tif
  landcover areas map.tif --zones comarques.gpkg --zone-column NOMCOMAR --csv areas.csv
  landcover areas map.tif --reference sample.gpkg --json areas.json
  landcover areas other.tif --reference sample.gpkg --other-map
"""


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If arguments or files do not fit, or a file cannot be written.
    """
    args = _parser().parse_args(argv)
    _check(args)
    from ..evaluation import area_tables  # rasterio, numba and geopandas: not for --help
    from ..evaluation.class_map import ClassMap, count
    from ..evaluation.zones import read_aoi, read_zones
    from ..rasters.pixel_size import warn_of_stretch

    outputs = _outputs(args)
    source = ClassMap(args.map, source_legend=args.source_legend)
    zones = read_zones(args.zones, args.zone_column, source.grid) if args.zones else None
    points = _points(args, source)
    aoi = read_aoi(args.aoi, source.grid) if args.aoi else _sampled_ground(points, source)
    source = ClassMap(args.map, source_legend=args.source_legend, aoi=aoi)
    warn_of_stretch(source.grid)
    counts = count(source, zones)
    found = _assess(args, source, counts, points)
    sys.stdout.write(area_tables.as_text(counts, found, level=args.level))
    if zones is not None:
        sys.stdout.write('\n' + '\n'.join(area_tables.zones_as_text(counts, zones)) + '\n')
    told = {'map': source.name, 'level': args.level, 'interval': _kind(args), 'reference': _named(args)}
    if 'csv' in outputs:
        zonal = zones is not None and found is None
        rows = area_tables.zone_rows(counts, zones) if zones and zonal else area_tables.class_rows(counts, found)
        area_tables.write_csv(outputs['csv'], rows)
    if 'zones_csv' in outputs and zones is not None:
        area_tables.write_csv(outputs['zones_csv'], area_tables.zone_rows(counts, zones))
    if 'json' in outputs:
        area_tables.write_json(outputs['json'], area_tables.document(counts, found, zones, told))
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.reference and args.labels:
        raise LandcoverError('give --reference (points) or --labels (a raster), not both')
    if bool(args.labels) != bool(args.blocks):
        raise LandcoverError(
            '--labels and --blocks go together: the labels are compared on the test blocks of the run '
            '(blocks.gpkg beside its YAML), which training has not seen'
        )
    if args.zone_column and not args.zones:
        raise LandcoverError('--zone-column names a column of --zones: give that file too')
    if args.stratum_sizes and not args.stratum_column:
        raise LandcoverError('--stratum-sizes are those of the strata in --stratum-column: give that too')
    if not 0.5 <= args.level < 1:
        raise LandcoverError(f'--level must be in [0.5, 1), such as 0.95, got {args.level}')


def _outputs(args: argparse.Namespace) -> dict[str, Path]:
    """The files to write; refused before any work if they cannot be."""
    from .files import free_output

    zones_csv = None
    if args.csv and args.zones and (args.reference or args.labels):
        zones_csv = str(Path(args.csv).with_stem(f'{Path(args.csv).stem}_zones'))
    wanted = {'csv': args.csv, 'zones_csv': zones_csv, 'json': args.json}
    return {kind: free_output(path, overwrite=args.overwrite) for kind, path in wanted.items() if path}


def _points(args: argparse.Namespace, source: 'ClassMap') -> 'ReferencePoints | None':
    if not args.reference:
        return None
    from ..evaluation.reference import ReferenceColumns, read_reference

    columns = ReferenceColumns(
        reference=args.reference_column,
        stratum=args.stratum_column,
        x=args.x_column,
        y=args.y_column,
        crs=args.crs,
        sizes=args.stratum_sizes,
    )
    points = read_reference(args.reference, source.grid, columns)
    if points.sample is not None and args.aoi:
        raise LandcoverError('the sample stands for the ground that it was drawn from: leave out --aoi')
    if points.sample is None and args.other_map:
        raise LandcoverError(
            '--other-map is for samples of landcover sample; for other points give --stratum-column and --stratum-sizes'
        )
    return points


def _sampled_ground(points: 'ReferencePoints | None', source: 'ClassMap') -> Any:
    """The polygon that a sample was drawn in, in the CRS of the map."""
    if points is None or points.sample is None or points.sample.aoi is None:
        return None
    import geopandas as gpd

    ground = gpd.GeoSeries([points.sample.aoi], crs=points.sample.points.crs)
    log.info('areas are those of the ground that was sampled')
    return ground.to_crs(source.grid.crs.to_wkt()).iloc[0]


def _assess(
    args: argparse.Namespace, source: 'ClassMap', counts: 'MapCounts', points: 'ReferencePoints | None'
) -> 'Assessment | None':
    from ..legend import LEGEND

    if points is not None:
        from ..evaluation.estimation import assess
        from ..evaluation.point_assessment import stratified_sample

        sample = stratified_sample(source, counts, points, other_map=args.other_map)
        return assess(sample, LEGEND.codes, level=args.level, method=args.interval)
    if not args.labels:
        return None
    from ..evaluation.label_assessment import WARNING, assess_with_labels, block_confusions, read_blocks

    blocks = read_blocks(args.blocks, source.grid)
    confusions = block_confusions(source, args.labels, blocks, source_legend=args.label_legend)
    log.warning(WARNING)
    return assess_with_labels(confusions, counts.areas, level=args.level)


def _kind(args: argparse.Namespace) -> str | None:
    return 'block bootstrap' if args.labels else args.interval if args.reference else None


def _named(args: argparse.Namespace) -> list[str]:
    return [Path(p).name for p in (args.reference or ([args.labels, args.blocks] if args.labels else []))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='landcover areas',
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('map', metavar='MAP', help='class map: codes in the first band')
    parser.add_argument('--zones', metavar='FILE', help='polygons, in any CRS: also the areas in each of them')
    parser.add_argument('--zone-column', metavar='NAME', help='column of the names of the zones (default: row numbers)')
    parser.add_argument('--aoi', metavar='FILE', help='polygons: only this ground counts')
    parser.add_argument(
        '--source-legend', default='12', choices=('12', '41', 'auto'), help='values of the map (default: 12)'
    )
    reference = parser.add_argument_group('reference')
    reference.add_argument(
        '--reference', nargs='+', metavar='FILE', help='sample.gpkg, or CSV or vector files of points'
    )
    reference.add_argument('--reference-column', default='reference_code', metavar='NAME', help='(reference_code)')
    reference.add_argument('--stratum-column', metavar='NAME', help='(default: the class of the map at the point)')
    reference.add_argument('--stratum-sizes', metavar='CSV', help='columns stratum, pixels (and area_ha)')
    reference.add_argument('--x-column', default='x', metavar='NAME', help='of a CSV (x)')
    reference.add_argument('--y-column', default='y', metavar='NAME', help='of a CSV (y)')
    reference.add_argument('--crs', metavar='EPSG:N', help='of the coordinates of a CSV (default: that of the map)')
    reference.add_argument(
        '--other-map', action='store_true', help='the sample was drawn from another map, whose classes are the strata'
    )
    reference.add_argument('--labels', metavar='RASTER', help='labels in place of points; needs --blocks')
    reference.add_argument('--blocks', metavar='FILE', help='polygons whose column split says test')
    reference.add_argument(
        '--label-legend', default='auto', choices=('auto', '12', '41'), help='values of the labels (default: auto)'
    )
    reference.add_argument('--level', type=float, default=0.95, metavar='P', help='of the intervals (0.95)')
    reference.add_argument('--interval', default='wilson', choices=('wilson', 'normal'), help='see below (wilson)')
    output = parser.add_argument_group('output')
    output.add_argument(
        '--csv',
        metavar='FILE',
        help='table of the classes or zones; with points, that of zones goes to FILE_zones',
    )
    output.add_argument('--json', metavar='FILE', help='everything, with the error matrix')
    output.add_argument('--overwrite', action='store_true', help='replace older files')
    return parser
