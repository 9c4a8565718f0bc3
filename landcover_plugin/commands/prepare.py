"""``landcover prepare``: read the rasters once and write a training store."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LandcoverError

if TYPE_CHECKING:
    from ..sampling.prepare import Prepared

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Read the mosaics and label rasters in a folder once and write a training store:

  labels       1 m labels aggregated to the pixels of the images, with the purity of each pixel (percent that its
               class covers) and the labelled share
  images       copied into a layout made for random patches; ordinary GeoTIFFs that any GIS opens
  inventory    GeoParquet: class counts, validity, purity and band statistics of each cell of ground
  areas.csv    what each method of aggregation makes of the area of each class

fit, validate, test and predict find the store by themselves and say so; without one they read the sources.
A changed source is noticed: the store is then left aside until it is made again. A run that is stopped resumes with the
labels that it had finished, and never leaves half a store.
"""

_EPILOG = """\
which store:
  compact      zstd in blocks of 64 px, about the size of the sources. Also the best where the images do not fit
               into memory
  fast         uncompressed, mapped into memory: the fastest by far where memory can hold the images (a 30,000 x
               30,000 px mosaic of 10 bands takes 18 GB)
  labels       labels and inventory only; images are read from the sources

examples:
  landcover prepare data
  landcover prepare data --store fast --output /scratch/store
  landcover fit --config configs/unet.yaml --data.root data --data.store /scratch/store
  landcover prepare data --aggregation weighted --weights 11=3,7=2
"""


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If arguments or rasters do not fit, or the store cannot be written.
    """
    args = _parser().parse_args(argv)
    if args.weights and args.aggregation != 'weighted':
        raise LandcoverError('--weights count in --aggregation weighted only: add that, or leave them out')
    from ..rasters.landcover import LabelRasters  # numba and rasterio: not for --help
    from ..rasters.mosaics import Mosaics
    from ..sampling.inventory import unknown_values_sentence
    from ..sampling.prepare import prepare
    from ..sampling.store import STORE_FOLDER

    started = time.monotonic()
    if args.output is None and not Path(args.data).exists():
        raise LandcoverError(
            f'{args.data} is no local folder: name one that holds the rasters, or, if they are remote, where the store '
            'goes (--output)'
        )
    images = Mosaics(args.data, bands=args.bands, band_order=args.band_order, seasons=args.seasons, nodata=args.nodata)
    labels = LabelRasters(
        args.data, source_legend=args.source_legend, aggregation=args.aggregation, class_weights=args.weights
    )
    prepared = prepare(
        images,
        labels,
        Path(args.output or Path(args.data, STORE_FOLDER)),
        kind=args.store,
        cell=args.cell,
        shares=args.shares,
        overwrite=args.overwrite,
    )
    unknown = prepared.inventory.unknown
    sentence = unknown_values_sentence(labels, unknown) if unknown else None
    sys.stdout.write(_report(prepared, sentence, time.monotonic() - started))
    return 0


def _report(prepared: 'Prepared', unknown: str | None, seconds: float) -> str:
    """What was written, and what the methods make of the areas."""
    from ..legend import LEGEND
    from ..rasters.labels import AGGREGATIONS
    from ..sampling.prepare import area_unit

    lines = []
    unit, per_pixel = area_unit(prepared.inventory.grid)
    for year, pixels in prepared.areas.items():
        areas = pixels * per_pixel
        lines += [f'areas {year} in {unit}, and how each method of aggregation changes them:']
        lines += [f'  {"class":<44}{"labels":>14}' + ''.join(f'{m:>11}' for m in AGGREGATIONS)]
        for c in (c for c in LEGEND if areas[:, c.code].any()):
            own, *others = areas[:, c.code]
            changes = ''.join(f'{v / own - 1:>+11.1%}' if own else f'{"new":>11}' for v in others)
            lines.append(f'  {c.code:>2} {c.name:<41}{own:>14,.1f}{changes}')
    if unknown:
        lines.append(f'warning: {unknown}')
    settings = prepared.store.manifest['label_settings']
    if settings['aggregation'] != 'mode':
        lines.append(f'train on these labels with --data.aggregation {settings["aggregation"]}')
    size = sum(prepared.store.manifest['files'].values())
    lines.append(f'{prepared.store.layout} store: {prepared.store.folder} ({size / 1e6:,.0f} MB, {seconds:,.0f} s)')
    return '\n'.join(lines) + '\n'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='landcover prepare',
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'data', metavar='DATA', help='folder that holds the rasters, here or in a bucket (gs://, s3://)'
    )
    parser.add_argument(
        '--output', metavar='DIR', help='folder of the store, here or in a bucket (default: DATA/.landcover/store)'
    )
    parser.add_argument(
        '--store', default='compact', choices=('compact', 'fast', 'labels'), help='layout, see below (default: compact)'
    )
    parser.add_argument(
        '--aggregation',
        default='mode',
        choices=('mode', 'nearest', 'weighted'),
        help='how label pixels become a pixel of the images: majority, the one at the centre, or a majority in which '
        'narrow classes count more (default: mode)',
    )
    parser.add_argument(
        '--weights', type=_weights, metavar='CODE=W,...', help='of --aggregation weighted (default: 7=1.5,11=1.5)'
    )
    parser.add_argument('--shares', action='store_true', help='also the share of each class, for --data.purity soft')
    parser.add_argument(
        '--cell', type=int, default=32, metavar='PX', help='cell of the inventory in pixels; patch sizes that are '
        'multiples of 8 cells use it as it is (default: 32)'
    )  # fmt: skip
    parser.add_argument(
        '--bands', type=_names, metavar='B02,...', help='bands that the inventory counts (default: all)'
    )
    parser.add_argument(
        '--band-order', type=_names, metavar='B02,...', help='names of the bands of files without names'
    )
    parser.add_argument(
        '--seasons', default='separate', choices=('separate', 'stack'), help='as in training (default: separate)'
    )
    parser.add_argument('--nodata', type=float, metavar='DN', help='digital number of unmeasured pixels')
    parser.add_argument(
        '--source-legend', default='auto', choices=('auto', '12', '41'), help='values of the labels (default: auto)'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace an older store')
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(',') if name.strip()]


def _weights(text: str) -> dict[int, float]:
    """Parse '11=3,7=2'."""
    try:
        pairs = [part.split('=') for part in text.split(',')]
        return {int(code): float(weight) for code, weight in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected CODE=WEIGHT,..., e.g. 11=3,7=2, got {text!r}') from None
