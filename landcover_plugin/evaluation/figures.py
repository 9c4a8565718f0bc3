"""Pictures for a report: the confusion matrix, and a patch beside its label and prediction.

Figures are built with matplotlib's object interface, without pyplot: nothing global is touched, no
display is needed, threads do not meet, and no registry keeps a figure alive.
"""

import math
import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import NODATA, Legend
from ..training.metrics import IntArray, labelled, row_normalised

CORRECT = (211, 211, 211)
WRONG = (220, 20, 20)
UNLABELLED = (255, 255, 255)

_CELL = 0.62  # inches per class: '<0.1' and '100.0' fit in 9 points
_AXES = 4.0  # inches: least length of an axis when classes are few
_LABELS = 2.0  # inches for the class names along an axis


@dataclass(frozen=True, eq=False)
class Picture:
    """A patch for the report.

    Attributes:
        rgb: Colours in 0..1, shape ``(H, W, 3)``.
        label: Reference codes, shape ``(H, W)``; 0 is unlabelled.
        prediction: Predicted codes, shape ``(H, W)``.
        title: Line above the panels.
        confidence: Probability of the predicted class in 0..1, shape ``(H, W)``, if it is known.
    """

    rgb: NDArray[np.floating]
    label: IntArray
    prediction: IntArray
    title: str = ''
    confidence: NDArray[np.floating] | None = None


def plot_confusion(confusion: IntArray, legend: Legend, *, normalise: bool = True) -> Figure:
    """Draw a confusion matrix: reference classes in rows, predicted classes in columns.

    Zero cells are blank. The colour is the share of the row in both variants, so that a rare class is as
    legible as a common one. Classes that occur neither in the reference nor in the prediction are left
    out; those that only the prediction has keep an empty row, its name in grey. Pixels without a
    reference (row 0) are ignored; a last column 'no data' appears only if no data was predicted on
    labelled ground.

    Args:
        confusion: Pixel counts, shape ``(num_classes, num_classes)``, reference in rows.
        legend: Names of the codes.
        normalise: Write percent of the reference class; otherwise pixel counts (k: thousand, M: million,
            G: thousand million).

    Raises:
        LandcoverError: If no pixel has a reference.
        ValueError: If the matrix does not fit the legend.
    """
    counts, shares = _checked(confusion, legend), row_normalised(confusion)
    rows, columns = _codes_shown(counts)
    cell = max(_CELL, _AXES / len(columns))
    size = (_LABELS + 1.1 + cell * len(columns), _LABELS + 0.4 + cell * len(rows))
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.add_subplot()
    cells = np.ix_(rows, columns)
    percent = np.where(counts > 0, 100 * shares, np.nan)[cells]  # NaN: a blank cell
    image = axes.imshow(percent, cmap='Blues', vmin=0, vmax=100)
    _write_cells(axes, counts[cells], shares[cells], normalise)
    _name_axes(axes, rows, columns, legend)
    for tick, code in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color('black' if counts[code].any() else 'grey')
    axes.set_title('Confusion, percent of the reference class' if normalise else 'Confusion, pixels')
    figure.colorbar(image, ax=axes, shrink=0.8, label='% of the reference class')
    return figure


def plot_sample(
    image_rgb: NDArray[np.floating],
    label: IntArray,
    prediction: IntArray,
    legend: Legend,
    *,
    title: str = '',
    confidence: NDArray[np.floating] | None = None,
) -> Figure:
    """Draw a patch in four panels: image, label, prediction, errors; in a fifth its confidence, if that is known.

    Among the errors, correct pixels are light grey, wrong ones red, unlabelled ones white.

    Args:
        image_rgb: Colours in 0..1, shape ``(H, W, 3)``; NaN (no image) is drawn black.
        label: Reference codes, shape ``(H, W)``; 0 is unlabelled.
        prediction: Predicted codes, shape ``(H, W)``; 0 is drawn white, and is wrong on labelled ground.
        legend: Names and colours of the codes.
        title: Line above the panels.
        confidence: Probability of the predicted class in 0..1, shape ``(H, W)``.

    Raises:
        ValueError: If the arrays are not of one height and width.
    """
    if not (image_rgb.shape == (*label.shape, 3) and label.shape == prediction.shape):
        shapes = image_rgb.shape, label.shape, prediction.shape
        raise ValueError(f'image, label and prediction must be (H, W, 3), (H, W) and (H, W), got {shapes}')
    codes = np.union1d(label, prediction)
    height = 4.0 * np.clip(label.shape[0] / label.shape[1], 0.25, 3.0)
    count = 4 if confidence is None else 5
    figure = Figure(
        figsize=(16 if count == 4 else 18.5, height + 1.1 + 0.22 * math.ceil(len(codes) / 4)), layout='constrained'
    )
    panels = figure.subplots(1, count)
    wrong = (label != NODATA) & (label != prediction)
    paint = legend.palette.copy()
    paint[NODATA] = UNLABELLED
    pictures = (
        np.clip(np.nan_to_num(image_rgb), 0, 1),
        paint[label],
        paint[prediction],
        _errors(label, wrong),
    )
    titles = ('image', 'label', 'prediction', _errors_title(label, wrong))
    for axes, picture, text in zip(panels, pictures, titles, strict=False):
        axes.imshow(picture, interpolation='nearest')
        axes.set_title(text)
        axes.set(xticks=[], yticks=[])
    if confidence is not None:
        shown = panels[4].imshow(confidence, cmap='viridis', vmin=0, vmax=1, interpolation='nearest')
        panels[4].set(title='confidence', xticks=[], yticks=[])
        figure.colorbar(shown, ax=panels[4], shrink=0.8)
    _add_legend(figure, panels[3], codes, legend)
    if title:
        figure.suptitle(title)
    return figure


def _checked(confusion: IntArray, legend: Legend) -> NDArray[np.int64]:
    counts = labelled(confusion)
    if len(counts) != legend.num_classes:
        raise ValueError(f'the legend has {legend.num_classes} codes, the confusion matrix {len(counts)}')
    if not counts.any():
        raise LandcoverError('the confusion matrix is empty: no labelled pixel was compared')
    return counts


def _codes_shown(counts: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Codes of the rows and of the columns; no data comes last, so that the diagonal stays one."""
    occurs = (counts.sum(axis=0) > 0) | (counts.sum(axis=1) > 0)
    rows = [int(code) for code in np.flatnonzero(occurs) if code != NODATA]
    return rows, rows + [NODATA] * bool(occurs[NODATA])


def _write_cells(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64], normalise: bool) -> None:
    """Write the numbers of the non-zero cells, white on dark cells."""
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = float(shares[row, column])
        text = _percent(share) if normalise else _compact(int(counts[row, column]))
        colour = 'white' if share > 0.55 else 'black'
        axes.text(column, row, text, ha='center', va='center', fontsize=9, color=colour)


def _name_axes(axes: Axes, rows: list[int], columns: list[int], legend: Legend) -> None:
    def name(code: int) -> str:
        return textwrap.fill(f'{code} {legend[code].name}', width=24)

    axes.set_xticks(range(len(columns)), [name(c) for c in columns], rotation=90, fontsize=9)
    axes.set_yticks(range(len(rows)), [name(c) for c in rows], fontsize=9)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which='minor', color='lightgrey', linewidth=0.6)
    axes.tick_params(which='both', length=0)
    axes.set(xlabel='predicted', ylabel='reference')
    axes.spines[:].set_visible(False)


def _percent(share: float) -> str:
    """Percent with one decimal; what is there but rounds to nothing stays visible.

    Examples:
        >>> [_percent(share) for share in (0.0001, 0.0314, 0.9996, 1.0)]
        ['<0.1', '3.1', '100.0', '100']
    """
    if share == 1:
        return '100'
    return '<0.1' if share < 0.0005 else f'{100 * share:.1f}'


def _compact(count: int) -> str:
    """A count in at most five characters.

    Examples:
        >>> [_compact(count) for count in (7, 9999, 12_345, 999_999, 12_345_678)]
        ['7', '9999', '12.3k', '1.0M', '12.3M']
    """
    if count < 10_000:
        return str(count)
    for unit, size in (('k', 1e3), ('M', 1e6)):
        if count < 999.5 * size:
            return f'{count / size:.1f}{unit}' if count < 99.95 * size else f'{count / size:.0f}{unit}'
    return f'{count / 1e9:.1f}G'


def _errors(label: IntArray, wrong: NDArray[np.bool_]) -> NDArray[np.uint8]:
    colours = np.array([UNLABELLED, CORRECT, WRONG], dtype=np.uint8)
    return colours[np.where(wrong, 2, label != NODATA)]


def _errors_title(label: IntArray, wrong: NDArray[np.bool_]) -> str:
    scored = int((label != NODATA).sum())
    return f'errors ({100 * wrong.sum() / scored:.1f} % wrong)' if scored else 'errors (nothing labelled)'


def _add_legend(figure: Figure, last: Axes, codes: NDArray[np.integer], legend: Legend) -> None:
    """Name the classes that occur below all panels, and the colours of the errors below theirs."""

    def key(colour: tuple[int, int, int], text: str) -> Patch:
        red, green, blue = (value / 255 for value in colour)
        return Patch(facecolor=(red, green, blue), edgecolor='grey', linewidth=0.6, label=text)

    errors = [key(CORRECT, 'correct'), key(WRONG, 'wrong'), key(UNLABELLED, 'unlabelled')]
    last.legend(
        handles=errors,
        loc='upper center',
        bbox_to_anchor=(0.5, 0.0),  # below the panel
        ncols=3,
        columnspacing=1.0,
        frameon=False,
    )
    classes = [key(legend[c].colour, f'{c} {legend[c].name}') for c in codes.tolist() if c != NODATA]
    if NODATA in codes:
        classes.append(key(UNLABELLED, legend[NODATA].name))
    figure.legend(handles=classes, loc='outside lower center', ncols=4, frameon=False)
