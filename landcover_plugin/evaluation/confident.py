"""Confident learning: how noisy labels are, class by class, and which of them are wrong.

After Northcutt, Jiang and Chuang (2021), Confident Learning: Estimating Uncertainty in Dataset Labels, Journal of
Artificial Intelligence Research 70, https://doi.org/10.1613/jair.1.12125, for probabilities of models that did not see
the pixel that they judge:

* the **threshold** of a class is the mean probability that pixels with its label have for it (equation 2);
* a pixel is **confidently** of the most probable class among those whose thresholds its probabilities reach; counted by
  label and confident class, these pixels are the confident joint (equation 1);
* calibrated so that its rows add up to the pixels of each label, and all to 1, it estimates the **joint** distribution
  of noisy and true labels (equation 3);
* a pixel is **suspect** where it is counted off the diagonal of the confident joint and its confident class is more
  probable than its label; its **normalised margin** is how much more (section 3.2.1).

Probabilities are whole percents, as ``predict`` writes them. Codes start at 1; 0 is no data. NumPy only.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Float noise in means of whole percents.
_EPSILON = 1e-6


class Suspicion(NamedTuple):
    """What confident learning says of pixels; arrays of one shape.

    Attributes:
        confident: Confident class, 0 where there is none.
        margin: Percent by which it is more probable than the label; 0 where the pixel is not suspect.
    """

    confident: NDArray[np.uint8]
    margin: NDArray[np.uint8]


class Thresholds:
    """Sums that become the thresholds of the classes.

    Args:
        classes: Number of classes, without no data.
    """

    def __init__(self, classes: int) -> None:
        self.pixels = np.zeros(classes, dtype=np.int64)
        self._sums = np.zeros(classes, dtype=np.int64)

    def add(self, labels: NDArray[np.uint8], percents: NDArray[np.uint8]) -> None:
        """Count pixels.

        Args:
            labels: Codes, all at least 1, shape ``(n,)``.
            percents: Probability of each class in percent, shape ``(classes, n)``.
        """
        own = percents[labels.astype(np.intp) - 1, np.arange(labels.size)]
        count = len(self.pixels) + 1
        self.pixels += np.bincount(labels, minlength=count)[1:]
        self._sums += np.bincount(labels, weights=own, minlength=count)[1:].astype(np.int64)

    @property
    def percents(self) -> NDArray[np.float64]:
        """Threshold of each class in percent, shape ``(classes,)``; infinite for a class without pixels."""
        means = self._sums / np.maximum(self.pixels, 1)
        return np.where(self.pixels > 0, means, np.inf)


def suspicion(labels: NDArray[np.uint8], percents: NDArray[np.uint8], thresholds: NDArray[np.float64]) -> Suspicion:
    """Judge pixels.

    Args:
        labels: Codes, all at least 1, shape ``(n,)``.
        percents: Probability of each class in percent, shape ``(classes, n)``.
        thresholds: Of each class in percent, shape ``(classes,)``.

    Examples:
        >>> found = suspicion(np.uint8([1, 1, 2]), np.uint8([[80, 20, 45], [20, 80, 55]]), np.array([50.0, 60.0]))
        >>> found.confident.tolist(), found.margin.tolist()
        ([1, 2, 0], [0, 60, 0])
    """
    reached = percents >= thresholds[:, None] - _EPSILON
    best = np.where(reached, percents.astype(np.int16), -1)
    confident = best.argmax(0)
    most = np.take_along_axis(best, confident[None], axis=0)[0]
    own = percents[labels.astype(np.intp) - 1, np.arange(labels.size)].astype(np.int16)
    codes = np.where(most >= 0, confident + 1, 0).astype(np.uint8)
    suspect = (codes > 0) & (codes != labels) & (most > own)
    return Suspicion(codes, np.where(suspect, most - own, 0).astype(np.uint8))


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """The estimated joint distribution of labels and true classes; matrices have labels in rows.

    Attributes:
        thresholds: Of each class in percent, infinite for a class without pixels.
        pixels: Judged pixels of each label.
        confident: The confident joint: pixels by label and confident class.
    """

    thresholds: NDArray[np.float64]
    pixels: NDArray[np.int64]
    confident: NDArray[np.int64]

    @property
    def joint(self) -> NDArray[np.float64]:
        """Share of all pixels by label and true class; adds up to 1.

        A label without any confident pixel is taken to be right.

        Examples:
            >>> model = NoiseModel(np.array([50.0, 50]), np.array([80, 20]), np.array([[30, 10], [0, 5]]))
            >>> model.joint.round(3).tolist()
            [[0.6, 0.2], [0.0, 0.2]]
        """
        counts = self.confident.astype(np.float64)
        np.fill_diagonal(counts, np.maximum(np.diag(counts), 1))
        rows = counts / counts.sum(1, keepdims=True) * self.pixels[:, None]
        return np.asarray(rows / max(rows.sum(), 1))

    @property
    def rates(self) -> NDArray[np.float64]:
        """Share of the pixels of each label that are of each true class; rows of labels with pixels add up to 1."""
        joint = self.joint
        totals = joint.sum(1, keepdims=True)
        return np.asarray(np.divide(joint, totals, out=np.eye(len(joint)), where=totals > 0))

    @property
    def wrong(self) -> NDArray[np.float64]:
        """Share of the pixels of each label whose true class is another; 0 for a label without pixels."""
        return np.asarray(1 - np.diag(self.rates))

    @property
    def missed(self) -> NDArray[np.float64]:
        """Share of the pixels of each true class whose label is another; 0 for a class without pixels."""
        joint = self.joint
        totals = joint.sum(0)
        return np.asarray(1 - np.divide(np.diag(joint), totals, out=np.ones(len(joint)), where=totals > 0))


class ConfidentJoint:
    """Counts that become a :class:`NoiseModel`.

    Args:
        thresholds: Finished.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        classes = len(thresholds.pixels)
        self._counts = np.zeros((classes, classes + 1), dtype=np.int64)

    def add(self, labels: NDArray[np.uint8], confident: NDArray[np.uint8]) -> None:
        """Count pixels by label, at least 1, and confident class."""
        classes, columns = self._counts.shape
        pairs = (labels.astype(np.int64) - 1) * columns + confident
        self._counts += np.bincount(pairs, minlength=classes * columns).reshape(classes, columns)

    def finish(self) -> NoiseModel:
        """The model of what was counted."""
        return NoiseModel(self._thresholds.percents, self._thresholds.pixels, self._counts[:, 1:].copy())
