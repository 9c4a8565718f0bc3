"""The test report: a folder of tables and pictures that appears only when it is whole."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import LEGEND, Legend
from ..rasters.outputs import PathLike, cannot_write, hidden_name, whole_folder
from ..training.metrics import CLASS_SCORES, IntArray, Scores, row_normalised
from .figures import plot_confusion, plot_sample

#: Everything that a report folder may hold; a folder with anything else in it is never replaced.
CONTENTS = frozenset(
    {'scores.csv', 'scores.json', 'scores.md', 'strata.csv', 'samples'}
    | {f'confusion{kind}.{suffix}' for kind in ('', '_normalised') for suffix in ('csv', 'png')}
)

_HEADINGS = {
    'overall_accuracy': 'overall accuracy',
    'mean_iou': 'mean IoU',
    'mean_dice': 'mean F1',
    'mean_producers_accuracy': "mean producer's accuracy",
    'iou': 'IoU',
    'dice': 'F1',
    'users_accuracy': "user's accuracy",
    'producers_accuracy': "producer's accuracy",
    'support': 'pixels',
}

_NOTE = (
    'Percent of labelled test pixels. n/a: the class has no reference pixel in the test split (or, for '
    "user's accuracy, was never predicted), and it does not enter the means. Where months are separate looks at the "
    'ground, each is scored on its own and a pixel counts once for each. Pixel counts are no area estimates.'
)

#: Scores of each stratum of the test pixels.
_STRATUM_SCORES = ('overall_accuracy', 'mean_iou')

_STRATA = {
    'pure': 'the class covers the whole pixel (purity 100 %)',
    'mixed': 'the class covers only part of the pixel (purity below 100 %)',
    'border': 'another class is among the eight neighbours in the patch',
    'interior': 'no other class is among the eight neighbours in the patch',
}

_STRATA_NOTE = (
    'The same labelled test pixels by kind. Each is pure or mixed, where its purity is known, and border or interior. '
    'Means run over the classes that the pixels of the kind hold, which may differ from kind to kind. Neighbours '
    'beyond the rim of a patch are not seen.'
)


@dataclass(frozen=True, eq=False)
class Picture:
    """A patch for the report.

    Attributes:
        rgb: Colours in 0..1, shape ``(H, W, 3)``.
        label: Reference codes, shape ``(H, W)``; 0 is unlabelled.
        prediction: Predicted codes, shape ``(H, W)``.
        title: Line above the panels.
    """

    rgb: NDArray[np.floating]
    label: IntArray
    prediction: IntArray
    title: str = ''


def write_report(
    folder: PathLike,
    confusion: IntArray,
    *,
    legend: Legend = LEGEND,
    strata: Mapping[str, IntArray] | None = None,
    pictures: Sequence[Picture] = (),
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write scores, confusion matrices and sample pictures into a new folder.

    Everything is written beside the folder first and moved into place when whole; a failure leaves
    nothing behind, and an older report stays until the new one is complete. Absent classes are empty
    cells in CSV, ``null`` in JSON and 'n/a' in Markdown.

    Args:
        folder: The report's folder; missing parents are made.
        confusion: Pixel counts of the test split, shape ``(num_classes, num_classes)``, reference codes in
            rows, predicted codes in columns; see :class:`~landcover_plugin.training.metrics.Scores`.
        legend: Names and colours of the codes.
        strata: Pixel counts of the pure, mixed, border and interior pixels, each as ``confusion``; see
            :func:`~landcover_plugin.training.strata.strata`. Those without a labelled pixel are left out.
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
    scores, strata_rows = Scores.from_confusion(confusion), _strata_rows(strata)
    if not scores.labelled_pixels:
        raise LandcoverError(
            'no labelled pixel in the test split, so there is nothing to score: '
            'check that the labels cover it, or test on a larger area'
        )
    target = check_writable(folder, overwrite=overwrite)
    with whole_folder(target, overwrite=overwrite) as staging:
        _write_scores(staging, scores, strata_rows, legend, metadata or {})
        for stem, matrix in ('confusion', confusion), ('confusion_normalised', row_normalised(confusion)):
            _write_csv(staging / f'{stem}.csv', _matrix_table(matrix, legend))
            figure = plot_confusion(confusion, legend, normalise=stem != 'confusion')
            figure.savefig(staging / f'{stem}.png', dpi=120)
        _write_samples(staging / 'samples', pictures, legend)
    return target


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


def summary(scores: Scores, *, legend: Legend = LEGEND, strata: Mapping[str, IntArray] | None = None) -> str:
    """The scores as a short plain-text table in percent, for the terminal.

    With ``strata``, as in :func:`write_report`, the last line tells the overall accuracy of each stratum.

    Examples:
        >>> lines = summary(Scores.from_confusion(np.diag([0, 0, 0, 7] + 9 * [0]))).splitlines()
        >>> lines[3].split()
        ['3', 'forest', '100.0', '100.0', '100.0', '100.0', '7']
        >>> lines[-1]
        "overall accuracy 100.0 %, mean IoU 100.0 %, mean F1 100.0 %, mean producer's accuracy 100.0 %"
    """
    table = _class_table(scores, legend)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for code, name, *numbers in table:
        cells = [f'{text:>{width}}' for text, width in zip(numbers, widths[2:], strict=True)]
        lines.append('  '.join([f'{code:>{widths[0]}}', f'{name:<{widths[1]}}', *cells]))
    overall = (f'{_HEADINGS[key]} {_percent(value, " %")}' for key, value in scores.overall().items())
    lines.append(', '.join(overall))
    if rows := _strata_rows(strata):
        shown = (f'{row["stratum"]} {_percent(row["overall_accuracy"], " %")}' for row in rows)
        lines.append(f'overall accuracy by kind of pixel: {", ".join(shown)}')
    return '\n'.join(lines)


def _percent(share: float, unit: str = '') -> str:
    return 'n/a' if math.isnan(share) else f'{100 * share:.1f}{unit}'


def _class_table(scores: Scores, legend: Legend) -> list[list[str]]:
    """A heading and one line per class, as text in percent."""
    heading = ['code', 'class', *(_HEADINGS[key] for key in CLASS_SCORES), 'pixels']
    lines = [
        [str(row['code']), row['name'], *(_percent(row[key]) for key in CLASS_SCORES), str(row['support'])]
        for row in scores.rows(legend)
    ]
    return [heading, *lines]


def _strata_rows(strata: Mapping[str, IntArray] | None) -> list[dict[str, Any]]:
    """One dictionary for each stratum that holds labelled pixels, for tables.

    Examples:
        >>> row, = _strata_rows({'pure': np.diag([0, 3, 1]), 'mixed': np.diag([9, 0, 0])})
        >>> row['stratum'], row['overall_accuracy'], row['mean_iou'], row['labelled_pixels']
        ('pure', 1.0, 1.0, 4)
    """
    strata = strata or {}
    if unknown := [name for name in strata if name not in _STRATA]:
        raise ValueError(f'a stratum is one of {", ".join(_STRATA)}, got {unknown[0]!r}')
    scores = {name: Scores.from_confusion(strata[name]) for name in _STRATA if name in strata}
    return [
        {'stratum': name}
        | {key: getattr(s, key) for key in _STRATUM_SCORES}
        | {'labelled_pixels': s.labelled_pixels, 'meaning': _STRATA[name]}
        for name, s in scores.items()
        if s.labelled_pixels
    ]


def _matrix_table(matrix: NDArray[Any], legend: Legend) -> list[list[Any]]:
    """A heading and one line per reference code, with codes and names on both axes."""
    heading = ['code', 'reference', *(f'{c.code} {c.name}' for c in legend)]
    return [heading, *([c.code, c.name, *matrix[c.code].tolist()] for c in legend)]


def _write_scores(
    folder: Path, scores: Scores, strata: list[dict[str, Any]], legend: Legend, metadata: Mapping[str, Any]
) -> None:
    rows = scores.rows(legend)
    document: dict[str, Any] = {
        'overall': {**scores.overall(), 'labelled_pixels': scores.labelled_pixels},
        'classes': rows,
        **({'strata': strata} if strata else {}),
        'metadata': metadata,
    }
    text = json.dumps(_jsonable(document), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / 'scores.json').write_text(text + '\n', encoding='utf-8')
    (folder / 'scores.md').write_text(_markdown(scores, strata, legend), encoding='utf-8')
    for name, table in ('scores', rows), ('strata', strata):
        if table:
            _write_csv(folder / f'{name}.csv', [list(table[0]), *(list(row.values()) for row in table)])


def _markdown(scores: Scores, strata: list[dict[str, Any]], legend: Legend) -> str:
    heading, *rows = _class_table(scores, legend)
    overall = [_line((_HEADINGS[key], _percent(value))) for key, value in scores.overall().items()]
    tables = [
        *('# Test scores', '', _NOTE, ''),
        *(_line(('score', '%')), '|:--|--:|', *overall, ''),
        *(_line(heading), '|--:|:--|' + '--:|' * (len(heading) - 2), *map(_line, rows), ''),
        *(_strata_section(strata) if strata else ()),
    ]
    return '\n'.join(tables)


def _strata_section(strata: list[dict[str, Any]]) -> list[str]:
    heading = ['pixels that are', *(_HEADINGS[key] for key in _STRATUM_SCORES), 'pixels', 'which means']
    lines = [
        (r['stratum'], *(_percent(r[key]) for key in _STRATUM_SCORES), str(r['labelled_pixels']), r['meaning'])
        for r in strata
    ]
    title = ('## Pure, mixed and border pixels', '', _STRATA_NOTE, '')
    return [*title, _line(heading), '|:--|--:|--:|--:|:--|', *map(_line, lines), '']


def _line(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _write_csv(path: Path, table: Iterable[Iterable[Any]]) -> None:
    """Write a table; NaN becomes an empty cell."""
    with path.open('w', encoding='utf-8', newline='') as file:
        csv.writer(file).writerows(['' if _is_undefined(cell) else cell for cell in row] for row in table)


def _write_samples(folder: Path, pictures: Sequence[Picture], legend: Legend) -> None:
    if pictures:
        folder.mkdir()
    for number, p in enumerate(pictures, start=1):
        figure = plot_sample(p.rgb, p.label, p.prediction, legend, title=p.title)
        figure.savefig(folder / f'{number:02d}.png', dpi=100)


def _is_undefined(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _jsonable(value: Any) -> Any:
    """A value that JSON knows: NaN and infinity become null, arrays lists, paths and the like text."""
    if isinstance(value, np.ndarray | np.generic):
        return _jsonable(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item) for item in value]
    if _is_undefined(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


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
