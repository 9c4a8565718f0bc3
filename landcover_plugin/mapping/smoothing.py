"""Bayesian smoothing of class probabilities: each pixel is weighed against its neighbours."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import NODATA
from .selection import selection_program
from .smoothing_kernels import find_whole, share_of, smooth_class

#: Probabilities are kept this far from 0 and 1, so that their logits are finite.
LEAST = 1e-4

#: Rows that are smoothed at a time: they stay near the processor.
_ROWS = 32

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


class BayesianSmoothing:
    """Empirical Bayesian smoothing of class probabilities.

    Per class, the logit ``x`` of a pixel is taken as a measurement of variance ``smoothness``, and the logits of its
    neighbourhood as the prior: their mean ``m`` and variance ``s2`` over the upper share of the neighbours, those most
    like the class, the pixel among them. What remains is the posterior mean

        ``x * s2 / (s2 + smoothness) + m * smoothness / (s2 + smoothness)``

    turned back into probabilities (Camara et al. 2024, Bayesian inference for post-processing of remote sensing image
    classification, Remote Sensing 16(23) 4572, https://doi.org/10.3390/rs16234572; as ``sits_smooth`` of the R package
    sits does). Unlike there, probabilities add up to 1 again, and at the border of the array and of what is covered
    the neighbours are those that exist, not mirrored ones.

    Args:
        window: Edge of the neighbourhood in pixels, odd.
        smoothness: Variance of the logits of each class, or one number for each class without no data. The larger, the
            smoother.
        neighbour_fraction: Share of the neighbours that is taken for the prior: those with the largest logits.

    Raises:
        LandcoverError: If a setting is out of range.

    Examples:
        A lone pixel joins its neighbours:

        >>> probabilities = np.zeros((3, 5, 5), np.float32)
        >>> probabilities[1], probabilities[2] = 0.9, 0.1
        >>> probabilities[1:, 2, 2] = 0.4, 0.6
        >>> smooth = BayesianSmoothing(window=3)
        >>> smooth(probabilities, np.ones((5, 5), bool))[1:, 2, 2].round(2), smooth.halo
        (array([0.84, 0.16], dtype=float32), 1)
    """

    def __init__(
        self, window: int = 7, smoothness: float | Sequence[float] = 20.0, neighbour_fraction: float = 0.5
    ) -> None:
        if window % 2 == 0 or not 3 <= window <= 21:
            raise LandcoverError(f'the window of Bayesian smoothing must be an odd number in [3, 21] px, got {window}')
        if not 0 < neighbour_fraction <= 1:
            raise LandcoverError(f'the fraction of neighbours must be in (0, 1], got {neighbour_fraction}')
        self.smoothness = np.atleast_1d(np.asarray(smoothness, dtype=np.float32))
        if not (np.isfinite(self.smoothness) & (self.smoothness > 0)).all():
            raise LandcoverError(f'smoothness must be greater than 0, got {smoothness}')
        self.window, self.neighbour_fraction = window, neighbour_fraction

    def __repr__(self) -> str:
        return f'BayesianSmoothing({self.window}, {self.smoothness.tolist()}, {self.neighbour_fraction})'

    @property
    def halo(self) -> int:
        """Pixels around a piece that its result depends on."""
        return self.window // 2

    def __call__(self, probabilities: Floats, covered: Flags) -> Floats:
        """Smoothed probabilities.

        Args:
            probabilities: Shape ``(num_classes, height, width)``, in 0..1.
            covered: Shape ``(height, width)``; other pixels neither give nor take.

        Returns:
            A new array of the same shape: adding up to 1 where covered, 0 elsewhere; channel 0 is 0.

        Raises:
            LandcoverError: If a covered pixel is NaN, or there is not one smoothness for each class.
        """
        classes = len(probabilities) - NODATA - 1
        if len(self.smoothness) not in (1, classes):
            raise LandcoverError(
                f'smoothness must be one number or one for each of the {classes} classes, got {len(self.smoothness)}'
            )
        smoothness = np.broadcast_to(self.smoothness, classes)
        out = np.zeros_like(probabilities, dtype=np.float32)
        for start in range(0, covered.shape[0], _ROWS):
            self._smooth_rows(probabilities, covered, start, smoothness, out)
        return out

    def _smooth_rows(self, probabilities: Floats, covered: Flags, start: int, smoothness: Floats, out: Floats) -> None:
        height = covered.shape[0]
        stop, top = min(start + _ROWS, height), max(start - self.halo, 0)
        rows, inside = slice(top, min(stop + self.halo, height)), slice(start, stop)
        seen = np.ascontiguousarray(covered[rows])
        if not seen[start - top : stop - top].any():
            return
        whole = _whole_windows(seen, start - top, stop - start, self.halo)
        settings = (self.window, self.neighbour_fraction, *self._program())
        for code, variance in enumerate(smoothness, start=NODATA + 1):
            prior = _heights(probabilities[code, rows], seen)
            smooth_class(prior, seen, whole, start - top, variance, *settings, out[code, inside])
        _to_probabilities(out[:, inside], covered[inside])

    def _program(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        return selection_program(self.window, share_of(self.window**2, self.neighbour_fraction))


def _logits(probabilities: Floats) -> Floats:
    return np.log(probabilities / (np.float32(1) - probabilities))


#: The logit of the least probability, by the arithmetic of arrays.
_FLOOR = _logits(np.full(64, LEAST, dtype=np.float32))[0]


def _heights(probabilities: Floats, covered: Flags) -> Floats:
    """Logits above that of the least probability, so that an absent class is exactly 0; 0 where not covered."""
    p = np.where(covered, probabilities, np.float32(LEAST))
    if np.isnan(p.max()):
        raise LandcoverError('the network gave NaN: the checkpoint is damaged or diverged; choose another one')
    np.clip(p, np.float32(LEAST), np.float32(1 - LEAST), out=p)
    return np.maximum(_logits(p) - _FLOOR, np.float32(0))


def _to_probabilities(heights: Floats, covered: Flags) -> None:
    """Turn heights above the least logit into probabilities that add up to 1, in place."""
    heights += _FLOOR
    np.negative(heights, out=heights)
    np.exp(heights, out=heights)
    heights += 1
    np.reciprocal(heights, out=heights)
    heights[NODATA] = 0
    heights /= heights.sum(axis=0)
    heights *= covered


def _whole_windows(covered: Flags, row: int, rows: int, halo: int) -> Flags:
    """Whether the window around each pixel of some rows lies inside the array and is covered."""
    whole = np.zeros((rows, covered.shape[1]), dtype=np.bool_)
    find_whole(covered, row, halo, whole)
    return whole
