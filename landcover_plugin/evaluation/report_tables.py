"""Scores as tables: on the screen, as Markdown and as CSV."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..legend import LEGEND, Legend
from ..training.metrics import CLASS_SCORES, IntArray, Scores

HEADINGS = {
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

NOTE = (
    'Percent of labelled test pixels. n/a: the class has no reference pixel in the test split (or, for '
    "user's accuracy, was never predicted), and it does not enter the means. Where months are separate looks at the "
    'ground, each is scored on its own and a pixel counts once for each. Pixel counts are no area estimates.'
)

#: Scores of each part of the test pixels.
PART_SCORES = ('overall_accuracy', 'mean_iou')

_STRATA = {
    'pure': 'the class covers the whole pixel (purity 100 %)',
    'mixed': 'the class covers only part of the pixel (purity below 100 %)',
    'border': 'another class is among the eight neighbours in the patch',
    'interior': 'no other class is among the eight neighbours in the patch',
}

STRATA_NOTE = (
    'The same labelled test pixels by kind. Each is pure or mixed, where its purity is known, and border or interior. '
    'Means run over the classes that the pixels of the kind hold, which may differ from kind to kind. Neighbours '
    'beyond the rim of a patch are not seen.'
)


def summary(scores: Scores, *, legend: Legend = LEGEND, strata: Mapping[str, IntArray] | None = None) -> str:
    """The scores as a short plain-text table in percent, for the terminal.

    With ``strata``, as in :func:`write_report`, the last line tells the overall accuracy of each stratum.

    Examples:
        >>> import numpy as np
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
    overall = (f'{HEADINGS[key]} {percent(value, " %")}' for key, value in scores.overall().items())
    lines.append(', '.join(overall))
    if rows := strata_rows(strata):
        shown = (f'{row["stratum"]} {percent(row["overall_accuracy"], " %")}' for row in rows)
        lines.append(f'overall accuracy by kind of pixel: {", ".join(shown)}')
    return '\n'.join(lines)


def percent(share: float, unit: str = '') -> str:
    """A share in percent with one decimal, or n/a."""
    return 'n/a' if math.isnan(share) else f'{100 * share:.1f}{unit}'


def _class_table(scores: Scores, legend: Legend) -> list[list[str]]:
    """A heading and one line per class, as text in percent."""
    heading = ['code', 'class', *(HEADINGS[key] for key in CLASS_SCORES), 'pixels']
    lines = [
        [str(row['code']), row['name'], *(percent(row[key]) for key in CLASS_SCORES), str(row['support'])]
        for row in scores.rows(legend)
    ]
    return [heading, *lines]


def strata_rows(strata: Mapping[str, IntArray] | None) -> list[dict[str, Any]]:
    """One dictionary for each stratum that holds labelled pixels, for tables.

    Examples:
        >>> import numpy as np
        >>> row, = strata_rows({'pure': np.diag([0, 3, 1]), 'mixed': np.diag([9, 0, 0])})
        >>> row['stratum'], row['overall_accuracy'], row['mean_iou'], row['labelled_pixels']
        ('pure', 1.0, 1.0, 4)
    """
    strata = strata or {}
    if unknown := [name for name in strata if name not in _STRATA]:
        raise ValueError(f'a stratum is one of {", ".join(_STRATA)}, got {unknown[0]!r}')
    rows = [
        {'stratum': name, **part_row(strata[name]), 'meaning': meaning}
        for name, meaning in _STRATA.items()
        if name in strata
    ]
    return [row for row in rows if row['labelled_pixels']]


def part_row(matrix: IntArray) -> dict[str, Any]:
    """Scores and labelled pixels of a part of the test pixels, for tables."""
    scores = Scores.from_confusion(matrix)
    return {key: getattr(scores, key) for key in PART_SCORES} | {'labelled_pixels': scores.labelled_pixels}


def matrix_table(matrix: NDArray[Any], legend: Legend) -> list[list[Any]]:
    """A heading and one line per reference code, with codes and names on both axes."""
    heading = ['code', 'reference', *(f'{c.code} {c.name}' for c in legend)]
    return [heading, *([c.code, c.name, *matrix[c.code].tolist()] for c in legend)]


def markdown(scores: Scores, strata: list[dict[str, Any]], legend: Legend) -> str:
    """The scores as a page of Markdown."""
    heading, *rows = _class_table(scores, legend)
    overall = [_line((HEADINGS[key], percent(value))) for key, value in scores.overall().items()]
    tables = [
        *('# Test scores', '', NOTE, ''),
        *(_line(('score', '%')), '|:--|--:|', *overall, ''),
        *(_line(heading), '|--:|:--|' + '--:|' * (len(heading) - 2), *map(_line, rows), ''),
        *(_strata_section(strata) if strata else ()),
    ]
    return '\n'.join(tables)


def _strata_section(strata: list[dict[str, Any]]) -> list[str]:
    heading = ['pixels that are', *(HEADINGS[key] for key in PART_SCORES), 'pixels', 'which means']
    lines = [
        (r['stratum'], *(percent(r[key]) for key in PART_SCORES), str(r['labelled_pixels']), r['meaning'])
        for r in strata
    ]
    title = ('## Pure, mixed and border pixels', '', STRATA_NOTE, '')
    return [*title, _line(heading), '|:--|--:|--:|--:|:--|', *map(_line, lines), '']


def _line(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


def write_table(path: Path, table: Iterable[Iterable[Any]]) -> None:
    """Write a table; NaN becomes an empty cell."""
    with path.open('w', encoding='utf-8', newline='') as file:
        csv.writer(file).writerows(['' if _is_undefined(cell) else cell for cell in row] for row in table)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same names as a table; none where there are no rows."""
    if rows:
        write_table(path, [list(rows[0]), *(list(row.values()) for row in rows)])


def _is_undefined(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
