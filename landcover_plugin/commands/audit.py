"""``landcover audit``: where labels are probably wrong, or the ground has changed."""

import argparse
import logging
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LandcoverError

if TYPE_CHECKING:
    from ..evaluation.cross_fitted import CrossFitted
    from ..evaluation.suspect_rasters import Assessed
    from ..evaluation.suspects import Ranked, Suspect
    from ..training.datamodule import CataloniaDataModule

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Find places where a label is probably wrong, or the ground has changed since it was drawn, and rank them for a
photo-interpreter.

The ground is divided into folds. For each, a network is trained on the others, calibrated, and maps the fold: no pixel
is judged by a network that saw it, or ground within a patch of it. Confident learning (Northcutt et al. 2021) compares
these probabilities with the labels. It estimates how many labels of each class are wrong, and which pixels are suspect;
connected ones become polygons.

Further options are those of landcover fit (--config, --data.…, --model.…, --trainer.…).
"""

_EPILOG = """\
files:
  audit.gpkg         layer suspects, in the order of rank: label and predicted class with their names, confidence,
                     score, area_m2, a picture for each month; verdict (accept: the label is wrong, reject: it is
                     right, unsure) and remark are for the interpreter. QGIS shows form and pictures by itself
  audit.json         summary: joint distribution of labels and true classes, thresholds, pairs of classes, folds
  audit_pictures/    PNG files that the GeoPackage names
  audit_folds/       checkpoints and probabilities. The same command, interrupted or killed, goes on from there; with
                     --overwrite and another --min-area, --min-purity or --max-suspects it does not train again. May be
                     deleted

score: mean margin (probability of the predicted class minus that of the label) * (1 - share of this label that is
estimated to be of the predicted class) * pixels / (pixels + 2)

examples:
  landcover audit --config configs/unet.yaml --data.root data --folds 4 --output audit.gpkg
  landcover audit --checkpoints fold0.ckpt fold1.ckpt fold2.ckpt --data.root data --output audit.gpkg
"""


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If arguments or rasters do not fit, training fails, or a file cannot be written.
    """
    args, rest = _parser().parse_known_args(argv)
    _check(args)
    outputs = _outputs(args)
    from .audit_folds import Workshop, read_settings  # torch: not for --help

    settings = read_settings(rest, args.checkpoints)
    with _alone(outputs['folds']):
        workshop = Workshop(outputs['folds'], rest, settings)
        source, folds = _judge(args, workshop)
        assessed, ranked = _assess(args, source, outputs['folds'])
    _write(args, settings.data, outputs, assessed, ranked, folds)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.folds < 2:
        raise LandcoverError(f'--folds must be at least 2, so that others train for each, got {args.folds}')
    if not args.min_area >= 0 or not math.isfinite(args.min_area):
        raise LandcoverError(f'--min-area must be square metres, 0 or more, got {args.min_area:g}')
    if args.max_suspects < 1:
        raise LandcoverError(f'--max-suspects must be at least 1, got {args.max_suspects}')
    if not 0 <= args.min_purity <= 100:
        raise LandcoverError(f'--min-purity must be percent in [0, 100], got {args.min_purity:g}')


def _outputs(args: argparse.Namespace) -> dict[str, Path]:
    """What is written; refused before any work if it cannot be."""
    from ..evaluation.suspect_file import verdicts
    from ..mapping.geopackage import check_geopackage
    from .files import free_output

    target = check_geopackage(args.output, overwrite=args.overwrite)
    if count := verdicts(target):
        raise LandcoverError(
            f'{target} holds {count:,} verdicts, which would be lost: move it elsewhere first, or choose '
            'another --output'
        )
    summary = free_output(str(target.with_suffix('.json')), overwrite=args.overwrite)
    pictures = target.with_name(f'{target.stem}_pictures')
    if pictures.exists() and not args.overwrite:
        raise LandcoverError(f'{pictures} exists already: choose another name, or replace it with --overwrite')
    return {
        'suspects': target,
        'summary': summary,
        'pictures': pictures,
        'folds': target.with_name(f'{target.stem}_folds'),
    }


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the folder of the folds, and keep other runs out of it."""
    from ..rasters.locking import locked
    from ..rasters.outputs import cannot_write
    from ..rasters.staging import LOCK

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise cannot_write(folder, e) from e
    with locked(folder / LOCK, f'another audit works in {folder}: wait for it, or choose another --output'):
        try:
            yield
        except KeyboardInterrupt:
            log.info('the same command goes on with what is finished in %s', folder)
            raise
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # it is empty if nothing was begun, else there are folds to go on with
                folder.rmdir()


def _judge(args: argparse.Namespace, workshop: Any) -> tuple['CrossFitted', list[dict[str, Any]]]:
    """Labels beside the probabilities of networks that did not see them, and what each network saw."""
    from ..evaluation.cross_fitted import CrossFitted
    from ..rasters.identity import sha256
    from ..training.judges import Judge
    from .audit_folds import draw_folds

    data = workshop.settings.data
    grid, labels = data.open_images().grid, data.open_labels().rasters
    splits = [] if args.checkpoints else draw_folds(data, args.folds, args.block_size)
    given = [Judge.of(Path(path)) for path in args.checkpoints or ()]
    for judge in given:
        judge.check_grid(grid)
    what: dict[str, Any] = (
        {'checkpoints': [sha256(judge.checkpoint) for judge in given]} if given else {'folds': args.folds}
    )
    what['block_size'] = args.block_size
    workshop.open(what, overwrite=args.overwrite)
    maps, folds = [], []
    for number in range(1, len(splits or given) + 1):
        log.info('fold %d of %d', number, len(splits or given))
        judge = given[number - 1] if given else Judge.of(workshop.train(number, splits[number - 1]))
        maps.append(workshop.map(number, judge))
        folds.append(judge.describe(workshop.inventory(judge.split.cell)))
    return CrossFitted(grid, labels, maps, args.min_purity), folds


def _assess(args: argparse.Namespace, source: 'CrossFitted', folder: Path) -> tuple['Assessed', 'Ranked']:
    from ..evaluation.suspect_rasters import SuspectRasters, assess
    from ..evaluation.suspects import Ranked, rank

    rasters = SuspectRasters.within(folder)
    try:
        assessed = assess(source, rasters)
        if not assessed.suspects.any():
            return assessed, Ranked([], 0, 0.0)
        return assessed, rank(rasters, assessed.noise, folder, min_area=args.min_area, most=args.max_suspects)
    finally:
        rasters.remove()


def _write(
    args: argparse.Namespace,
    data: 'CataloniaDataModule',
    outputs: dict[str, Path],
    assessed: 'Assessed',
    ranked: 'Ranked',
    folds: list[dict[str, Any]],
) -> None:
    """Pictures, then the file that names them, then the summary."""
    from .._version import __version__
    from ..evaluation.area_tables import write_json
    from ..evaluation.audit_tables import as_text, document
    from ..evaluation.suspect_file import LAYER, write_suspects

    months, pictures = _draw(data, outputs['pictures'], ranked.suspects)
    crs, legend = data.open_images().grid.crs, data.legend
    write_suspects(outputs['suspects'], ranked.suspects, crs=crs, months=months, pictures=pictures, legend=legend)
    settings = {'min_area_m2': args.min_area, 'min_purity': args.min_purity, 'max_suspects': args.max_suspects}
    found = document(assessed, ranked, {'software': f'landcover {__version__}', **settings, 'folds': folds}, legend)
    write_json(outputs['summary'], found)
    sys.stdout.write(as_text(found))
    sys.stdout.write(f'\n{outputs["suspects"]}: layer {LAYER}, {len(ranked.suspects):,} polygons\n')


def _draw(
    data: 'CataloniaDataModule', folder: Path, suspects: Sequence['Suspect']
) -> tuple[list[str], list[list[str]]]:
    """Months, and the pictures of each polygon, as paths beside the GeoPackage."""
    from ..evaluation.thumbnails import Thumbnails
    from ..rasters.outputs import whole_folder
    from ..rasters.streaming import in_order

    s = data.settings
    drawing = Thumbnails.of(
        data.open_images().mosaics.files,
        band_order=s.band_order,
        nodata=s.nodata,
        scale=s.reflectance_scale,
        offset=s.reflectance_offset,
    )
    if not suspects:
        shutil.rmtree(folder, ignore_errors=True)
        return drawing.months, []
    with whole_folder(folder, overwrite=True) as staging:

        def draw(ranked: tuple[int, 'Suspect']) -> list[str]:
            names = drawing.write(staging, f'{ranked[0]:05d}', ranked[1].geometry)
            return [f'{folder.name}/{name}' for name in names]

        return drawing.months, list(in_order(draw, list(enumerate(suspects, 1)), desc='pictures', unit='polygon'))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='landcover audit',
        allow_abbrev=False,
        usage='landcover audit [--folds K | --checkpoints CKPT …] --output FILE.gpkg [options] [options of fit]',
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--output', '--out', required=True, metavar='FILE', help='the GeoPackage, .gpkg')
    judges = parser.add_mutually_exclusive_group()
    judges.add_argument('--folds', type=int, default=4, metavar='K', help='networks to train (default: 4)')
    judges.add_argument(
        '--checkpoints', nargs='+', metavar='CKPT', help='networks that are there, in place of new ones: each judges '
        'the test ground of the split that it was trained on, as far as it lies a patch from all that it saw'
    )  # fmt: skip
    parser.add_argument(
        '--block-size', type=int, metavar='PX', help='edge of the blocks of which folds are made (default: with which '
        'the networks train on the most of each class)'
    )  # fmt: skip
    parser.add_argument(
        '--min-area', type=float, default=500.0, metavar='M2',
        help="smallest polygon in square metres (default: 500, five pixels: the ICGC's minimum mapping unit)",
    )  # fmt: skip
    parser.add_argument(
        '--max-suspects', type=int, default=1000, metavar='N', help='polygons to write, the best (default: 1000)'
    )
    parser.add_argument(
        '--min-purity', type=float, default=75.0, metavar='PERCENT', help='pixels of which the label covers less are '
        'mixed and not judged (default: 75)'
    )  # fmt: skip
    parser.add_argument('--overwrite', action='store_true', help='replace older files, and folds of other settings')
    return parser
