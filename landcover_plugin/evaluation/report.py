"""The test report: a folder of tables, pictures and one page that appears only when it is whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..errors import LandcoverError
from ..inspection.findings import plain
from ..legend import LEGEND, Legend
from ..rasters.outputs import PathLike, cannot_write, hidden_name, whole_folder
from ..training.metrics import IntArray, Scores, row_normalised
from .breakdowns import Breakdowns
from .figures import Picture, plot_confusion, plot_sample
from .page import write_page
from .report_figures import report_figures
from .report_tables import markdown, matrix_table, strata_rows, summary, write_rows, write_table
from .score_intervals import score_intervals
from .training_curves import TrainingCurves

__all__ = ['CONTENTS', 'Picture', 'check_writable', 'summary', 'write_report']

#: Tables of the report and the entries of ``scores.json`` that they repeat.
_TABLES = {
    'scores': 'classes',
    'strata': 'strata',
    'distances': 'distances',
    'seasons': 'seasons',
    'blocks': 'blocks',
    'calibration': 'calibration',
    'reliability': 'reliability',
    'patches': 'patches',
    'training_curves': 'training_curves',
}

#: Figures of the report, each as PNG and as SVG.
_FIGURES = (
    'confusion', 'confusion_normalised', 'intervals', 'distances', 'blocks', 'reliability', 'training_curves',
)  # fmt: skip

#: Everything that a report folder may hold; a folder with anything else in it is never replaced.
CONTENTS = frozenset(
    {'report.html', 'scores.json', 'scores.md', 'samples', 'patches'}
    | {f'{name}.csv' for name in (*_TABLES, 'confusion', 'confusion_normalised', 'intervals', 'block_confusions')}
    | {f'{name}.{suffix}' for name in _FIGURES for suffix in ('png', 'svg')}
)


def write_report(
    folder: PathLike,
    confusion: IntArray,
    *,
    legend: Legend = LEGEND,
    strata: Mapping[str, IntArray] | None = None,
    breakdowns: Breakdowns | None = None,
    curves: TrainingCurves | None = None,
    pictures: Sequence[Picture] = (),
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write scores, confusion matrices, pictures and a page that shows them all into a new folder.

    Everything is written beside the folder first and moved into place when whole; a failure leaves
    nothing behind, and an older report stays until the new one is complete. Absent classes are empty
    cells in CSV, ``null`` in JSON and 'n/a' in Markdown and on the page.

    Args:
        folder: The report's folder; missing parents are made.
        confusion: Pixel counts of the test split, shape ``(num_classes, num_classes)``, reference codes in
            rows, predicted codes in columns; see :class:`~landcover_plugin.training.metrics.Scores`.
        legend: Names and colours of the codes.
        strata: Pixel counts of the pure, mixed, border and interior pixels, each as ``confusion``; see
            :func:`~landcover_plugin.training.strata.strata`. Those without a labelled pixel are left out.
        breakdowns: What else the test counted: distances to the class border, seasons, blocks, confidence.
        curves: Of the training that the checkpoint comes from.
        pictures: Patches for ``samples/01.png``, ``02.png``, …
        metadata: What the scores belong to, for ``scores.json``; paths and the like are written as text.
        overwrite: Replace an older report. A folder that holds anything else is not replaced.

    Returns:
        The absolute path of the folder.

    Raises:
        LandcoverError: If no pixel is labelled, or the folder cannot be written (see
            :func:`check_writable`), also when the disk fills up half way.
        ValueError: If the matrix does not fit the legend, or a stratum is unknown.
    """
    document = report_document(confusion, legend, strata, breakdowns, curves, metadata)
    target = check_writable(folder, overwrite=overwrite)
    with whole_folder(target, overwrite=overwrite) as staging:
        _write_numbers(staging, document, confusion, legend, breakdowns)
        for stem, matrix in ('confusion', confusion), ('confusion_normalised', row_normalised(confusion)):
            write_table(staging / f'{stem}.csv', matrix_table(matrix, legend))
            _save(plot_confusion(confusion, legend, normalise=stem != 'confusion'), staging / stem)
        for stem, figure in report_figures(document, breakdowns, legend):
            _save(figure, staging / stem)
        named = {f'samples/{i:02d}': picture for i, picture in enumerate(pictures, start=1)}
        if breakdowns is not None:
            named |= {f'patches/{name}': patch.picture for name, patch in breakdowns.named_patches()}
        _write_pictures(staging, named, legend)
        write_page(staging / 'report.html', document, confusion, legend, breakdowns, files=_names(staging))
    return target


def report_document(
    confusion: IntArray,
    legend: Legend,
    strata: Mapping[str, IntArray] | None,
    breakdowns: Breakdowns | None,
    curves: TrainingCurves | None,
    metadata: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Every number of the report but the confusion matrices, with the entries of ``scores.json``.

    Raises:
        LandcoverError: If no pixel is labelled.
    """
    scores = Scores.from_confusion(confusion)
    if not scores.labelled_pixels:
        raise LandcoverError(
            'no labelled pixel in the test split, so there is nothing to score: '
            'check that the labels cover it, or test on a larger area'
        )
    optional: dict[str, Any] = {'strata': strata_rows(strata)}
    if breakdowns is not None:
        optional |= {
            'intervals': score_intervals(breakdowns.blocks, legend),
            'distances': breakdowns.distance_rows(),
            'seasons': breakdowns.season_rows(),
            'blocks': breakdowns.block_rows(),
            'calibration': breakdowns.calibration_rows(),
            'reliability': breakdowns.reliability_rows(),
            'patches': breakdowns.patch_rows(),
        }
    if curves is not None:
        optional['training_curves'] = curves.rows()
    return {
        'overall': {**scores.overall(), 'labelled_pixels': scores.labelled_pixels},
        'classes': scores.rows(legend),
        **{name: rows for name, rows in optional.items() if rows},
        'metadata': {**(metadata or {}), **({'training_curves': str(curves.source)} if curves else {})},
    }


def _write_numbers(
    folder: Path,
    document: Mapping[str, Any],
    confusion: IntArray,
    legend: Legend,
    breakdowns: Breakdowns | None,
) -> None:
    text = json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / 'scores.json').write_text(text + '\n', encoding='utf-8')
    tables = markdown(Scores.from_confusion(confusion), document.get('strata', []), legend)
    (folder / 'scores.md').write_text(tables, encoding='utf-8')
    for name, entry in _TABLES.items():
        write_rows(folder / f'{name}.csv', document.get(entry, []))
    write_rows(folder / 'intervals.csv', document.get('intervals', {}).get('rows', []))
    write_rows(folder / 'block_confusions.csv', [] if breakdowns is None else breakdowns.block_pixel_rows())


def _save(figure: Figure, stem: Path) -> None:
    figure.savefig(stem.with_suffix('.png'), dpi=120)
    figure.set_layout_engine('none')  # it stays as it was laid out, which takes most of the time
    figure.savefig(stem.with_suffix('.svg'), metadata={'Date': None})


def _write_pictures(folder: Path, pictures: Mapping[str, Picture], legend: Legend) -> None:
    for name, p in pictures.items():
        path = folder / f'{name}.png'
        path.parent.mkdir(exist_ok=True)
        plot_sample(p.rgb, p.label, p.prediction, legend, title=p.title, confidence=p.confidence).savefig(path, dpi=100)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def check_writable(folder: PathLike, *, overwrite: bool = False) -> Path:
    """Find out, before any computing, whether a report can be written to a folder.

    A folder is made and removed again where the report would be staged.

    Args:
        folder: The report's folder.
        overwrite: Whether an older report there may be replaced.

    Returns:
        The absolute path of the folder.

    Raises:
        LandcoverError: If the folder exists (with ``overwrite``: and is not a report), or if its place
            cannot be written to.
    """
    target = Path(folder).resolve()
    try:
        _refuse_existing(target, overwrite)
        probe = hidden_name(target, 'report')
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def _refuse_existing(target: Path, overwrite: bool) -> None:
    """Raise unless the target is free, or is an older report that may be replaced."""
    if not target.exists():
        return
    if not target.is_dir():
        raise LandcoverError(f'{target} is a file, not a folder for the report: choose another path')
    if not overwrite:
        raise LandcoverError(
            f'{target} exists already: choose another folder, or allow replacing it with --output.overwrite true'
        )
    strangers = sorted({path.name for path in target.iterdir()} - CONTENTS)
    if strangers:
        raise LandcoverError(
            f'{target} holds {strangers[0]!r}, which is no part of a report, so it is not overwritten: '
            'choose another folder'
        )
    if target.is_mount():
        raise LandcoverError(f'{target} is a mount point and cannot be replaced: choose a folder inside it')
