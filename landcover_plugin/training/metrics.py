"""Scores of a land-cover map from its confusion matrix, in NumPy alone.

Absent is n/a, not 0: a class without a pixel in the reference has no score. It is NaN in every
per-class array and is left out of every mean, so that a test area without mines does not make a
model look worse (counting it as 0) or better (counting it as 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..legend import LEGEND, NODATA, Legend

IntArray = NDArray[np.integer]
FloatArray = NDArray[np.float64]

#: Names of the per-class scores, in the order of tables.
CLASS_SCORES = ('iou', 'dice', 'users_accuracy', 'producers_accuracy')

#: Names of the scores of the whole map, in the order of tables.
OVERALL_SCORES = ('overall_accuracy', 'mean_iou', 'mean_dice', 'mean_producers_accuracy')


@dataclass(frozen=True, eq=False)
class Scores:
    """Agreement of a map with its reference, per class and overall; shares in 0..1.

    Build it with :meth:`from_confusion`. Per-class arrays are indexed by code, shape ``(num_classes,)``,
    read-only, and NaN ('n/a', not 0) for no data and for classes without a reference pixel. Means run
    over the classes that the reference holds. With ``tp``, ``fp`` and ``fn`` the pixels of a class
    rightly mapped, wrongly mapped and missed:

    Attributes:
        iou: Intersection over union, ``tp / (tp + fp + fn)`` (Jaccard 1912,
            https://doi.org/10.1111/j.1469-8137.1912.tb05611.x).
        dice: ``2 tp / (2 tp + fp + fn)``, also called F1 (Dice 1945, https://doi.org/10.2307/1932409).
        users_accuracy: ``tp / (tp + fp)``, precision: of what the map shows, the share that is there
            (Congalton 1991, https://doi.org/10.1016/0034-4257(91)90048-B). Also NaN where the map shows
            nothing of the class.
        producers_accuracy: ``tp / (tp + fn)``, recall: of what is there, the share that the map shows
            (Congalton 1991).
        support: Reference pixels; 0 for absent classes.
        overall_accuracy: Share of labelled pixels whose class is right.
        mean_iou: Mean of ``iou``.
        mean_dice: Mean of ``dice``.
        mean_producers_accuracy: Mean of ``producers_accuracy``, also called balanced accuracy (Brodersen
            et al. 2010, https://doi.org/10.1109/ICPR.2010.764).
    """

    iou: FloatArray
    dice: FloatArray
    users_accuracy: FloatArray
    producers_accuracy: FloatArray
    support: NDArray[np.int64]
    overall_accuracy: float
    mean_iou: float
    mean_dice: float
    mean_producers_accuracy: float

    @classmethod
    def from_confusion(cls, confusion: IntArray) -> 'Scores':
        """Scores of a confusion matrix.

        Args:
            confusion: Pixel counts, shape ``(num_classes, num_classes)``: rows are reference codes, columns
                predicted codes. Row 0 (no reference) is ignored; column 0 (no data predicted on labelled
                ground) counts as an error. A matrix without a labelled pixel gives NaN throughout.

        Raises:
            ValueError: If the matrix is not square, not of integers, or has a negative count.

        Examples:
            Codes 0 (no data), 1, 2 and 3; class 3 is absent from the reference:

            >>> confusion = np.array([[9, 9, 9, 9], [0, 6, 2, 0], [1, 0, 3, 0], [0, 0, 0, 0]])
            >>> scores = Scores.from_confusion(confusion)
            >>> scores.iou.round(3).tolist()
            [nan, 0.75, 0.5, nan]
            >>> scores.producers_accuracy.tolist(), scores.mean_producers_accuracy
            ([nan, 0.75, 0.75, nan], 0.75)
            >>> scores.support.tolist(), scores.overall_accuracy, scores.mean_iou
            ([0, 8, 4, 0], 0.75, 0.625)
        """
        counts = labelled(confusion)
        hits, support, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
        present = support > 0
        iou = _share(hits, support + predicted - hits, present)
        dice = _share(2 * hits, support + predicted, present)
        users = _share(hits, predicted, present & (predicted > 0))
        producers = _share(hits, support, present)
        for array in (iou, dice, users, producers, support):
            array.setflags(write=False)
        total = int(support.sum())
        accuracy = int(hits.sum()) / total if total else float('nan')
        means = (_mean(iou, present), _mean(dice, present), _mean(producers, present))
        return cls(iou, dice, users, producers, support, accuracy, *means)

    @property
    def labelled_pixels(self) -> int:
        """Pixels that were scored."""
        return int(self.support.sum())

    def overall(self) -> dict[str, float]:
        """The scores of the whole map by name, in the order of :data:`OVERALL_SCORES`."""
        return {name: getattr(self, name) for name in OVERALL_SCORES}

    def rows(self, legend: Legend = LEGEND) -> list[dict[str, Any]]:
        """One dictionary per class of the legend, without no data, for tables.

        Keys are ``code``, ``name``, those of :data:`CLASS_SCORES` (floats, NaN for n/a) and ``support``.

        Raises:
            ValueError: If the legend has another number of classes.

        Examples:
            >>> scores = Scores.from_confusion(np.diag(np.arange(13)))
            >>> scores.rows()[11]['name'], scores.rows()[11]['iou'], scores.rows()[11]['support']
            ('watercourses and water bodies', 1.0, 12)
        """
        if legend.num_classes != len(self.support):
            raise ValueError(f'the legend has {legend.num_classes} codes, the scores {len(self.support)}')
        return [
            {'code': code, 'name': legend[code].name}
            | {key: float(getattr(self, key)[code]) for key in CLASS_SCORES}
            | {'support': int(self.support[code])}
            for code in legend.codes
        ]


def labelled(confusion: IntArray | Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """A checked copy of a confusion matrix without the pixels that have no reference (row 0).

    Args:
        confusion: Pixel counts, shape ``(num_classes, num_classes)``, reference in rows.

    Raises:
        ValueError: If the matrix is not square, not of integers, or has a negative count.

    Examples:
        >>> labelled(np.array([[5, 5], [1, 2]])).tolist()
        [[0, 0], [1, 2]]
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f'a confusion matrix is square, got shape {counts.shape}')
    if counts.dtype.kind not in 'iu':
        raise ValueError(f'a confusion matrix holds integer pixel counts, got {counts.dtype}')
    if (counts < 0).any():
        raise ValueError(f'a confusion matrix holds no negative counts, got {counts.min()}')
    counts = counts.astype(np.int64)
    counts[NODATA] = 0
    return counts


def row_normalised(confusion: IntArray) -> FloatArray:
    """Share of each reference class that went to each predicted class.

    Args:
        confusion: Pixel counts, shape ``(num_classes, num_classes)``, reference in rows.

    Returns:
        Shares in 0..1 of the same shape: each row sums to 1, and its diagonal element is the producer's
        accuracy. Absent is n/a, not 0: rows without a reference pixel, and row 0, are NaN.

    Raises:
        ValueError: As :func:`labelled`.

    Examples:
        >>> row_normalised(np.array([[5, 5, 5], [0, 3, 1], [0, 0, 0]])).tolist()
        [[nan, nan, nan], [0.0, 0.75, 0.25], [nan, nan, nan]]
    """
    counts = labelled(confusion)
    support = counts.sum(axis=1, keepdims=True)
    return _share(counts, support, np.broadcast_to(support > 0, counts.shape))


def _share(part: NDArray[np.int64], whole: NDArray[np.int64], defined: NDArray[np.bool_]) -> FloatArray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=defined)


def _mean(values: FloatArray, present: NDArray[np.bool_]) -> float:
    return float(values[present].mean()) if present.any() else float('nan')
