"""Bayesian smoothing of class probabilities: each pixel is weighed against its neighbours."""

import math
from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import NODATA
from .selection import COPY, ORDER, selection_program

#: Probabilities are kept this far from 0 and 1, so that their logits are finite.
LEAST = 1e-4

#: Rows that are smoothed at a time, and pixels on which comparisons run at a time: both stay near the processor.
_ROWS, _TILE = 32, 128

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
            _smooth_class(prior, seen, whole, start - top, variance, *settings, out[code, inside])
        _to_probabilities(out[:, inside], covered[inside])

    def _program(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        return selection_program(self.window, _share_of(self.window**2, self.neighbour_fraction))


def _logits(probabilities: Floats) -> Floats:
    return np.log(probabilities / (np.float32(1) - probabilities))


#: The logit of the least probability, by the arithmetic of arrays.
_FLOOR = _logits(np.full(64, LEAST, dtype=np.float32))[0]


def _heights(probabilities: Floats, covered: Flags) -> Floats:
    """Logits above that of the least probability, so that an absent class is exactly 0; 0 where not covered."""
    p = np.where(covered, probabilities, np.float32(LEAST))
    if np.isnan(p.max()):
        raise LandcoverError('the network gave NaN: map with 32-bit precision, or choose another checkpoint')
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
    _find_whole(covered, row, halo, whole)
    return whole


@numba.njit(cache=True, nogil=True)
def _find_whole(covered, row, halo, whole):  # type: ignore[no-untyped-def]  # pragma: no cover
    height, width = covered.shape
    run = np.zeros(width, dtype=np.int64)  # covered pixels above and including the lowest row of the window
    for below in range(max(row - halo, 0), min(row + len(whole) + halo, height)):
        streak = 0
        for col in range(width):
            run[col] = run[col] + 1 if covered[below, col] else 0
            streak = streak + 1 if run[col] > 2 * halo else 0
            if streak > 2 * halo and row <= below - halo < row + len(whole):
                whole[below - halo - row, col - halo] = True


@numba.njit(cache=True, nogil=True)
def _share_of(number, fraction):  # type: ignore[no-untyped-def]  # pragma: no cover
    return max(math.ceil(number * fraction - 1e-9), 1)


@numba.njit(cache=True, nogil=True)
def _smooth_class(  # type: ignore[no-untyped-def]  # pragma: no cover
    heights, covered, whole, row, variance, window, fraction, program, result, lines, out
):
    """Posterior heights of the rows from ``row`` on; whole windows many at a time, the others one by one."""
    width, halo, reach = heights.shape[1], window // 2, _TILE - window + 1
    wires = np.zeros((lines, _TILE + window), dtype=np.float32)
    neighbours = np.zeros(window * window, dtype=np.float32)
    for r in range(len(whole)):
        for left in range(0, width - window + 1, reach):
            if whole[r, left + halo : left + halo + reach].any():
                stop = min(reach, width - window + 1 - left)
                top = row + r - halo
                if _load(heights[top : top + window, left : left + _TILE], wires):
                    _run(program, wires)
                    _posterior(wires, result, heights[row + r, left + halo :], variance, stop, out[r, left + halo :])
                else:
                    out[r, left + halo : left + halo + stop] = 0
        for col in range(width):
            if covered[row + r, col] and not whole[r, col]:
                out[r, col] = _one(heights, covered, row + r, col, halo, fraction, variance, neighbours)


@numba.njit(cache=True, nogil=True)
def _load(part, wires):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Copy the rows of a tile; whether anything in it is above 0."""
    largest = np.float32(0)
    for n in range(part.shape[0]):
        for c in range(part.shape[1]):
            value = part[n, c]
            wires[n, c] = value
            largest = value if value > largest else largest
    return largest > 0


@numba.njit(cache=True, nogil=True)
def _run(program, wires):  # type: ignore[no-untyped-def]  # pragma: no cover
    for n in range(len(program)):
        kind, first, second = program[n, 0], wires[program[n, 1]], wires[program[n, 2]]
        if kind == COPY:
            moved = second[program[n, 3] :]
            for c in range(_TILE):
                first[c] = moved[c]
        elif kind == ORDER:
            for c in range(_TILE):
                a, b = first[c], second[c]
                first[c] = a if a > b else b
                second[c] = b if a > b else a
        else:
            for c in range(_TILE):
                a, b = first[c], second[c]
                first[c] = a if a > b else b


@numba.njit(cache=True, nogil=True)
def _posterior(wires, lines, own, variance, stop, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    n = len(lines)
    mean, spread = np.zeros(_TILE, dtype=np.float32), np.zeros(_TILE, dtype=np.float32)
    for line in lines:
        values = wires[line]
        for c in range(_TILE):
            mean[c] += values[c]
    share, degrees = np.float32(1 / n), np.float32(1 / max(n - 1, 1))
    for c in range(_TILE):
        mean[c] *= share
    for line in lines:
        values = wires[line]
        for c in range(_TILE):
            distance = values[c] - mean[c]
            spread[c] += distance * distance
    for c in range(stop):
        prior = spread[c] * degrees
        out[c] = (own[c] * prior + mean[c] * variance) / (prior + variance)


@numba.njit(cache=True, nogil=True)
def _one(heights, covered, row, col, halo, fraction, variance, neighbours):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The posterior of one pixel from the neighbours that exist, by sorting."""
    count = 0
    for r in range(max(row - halo, 0), min(row + halo + 1, covered.shape[0])):
        for c in range(max(col - halo, 0), min(col + halo + 1, covered.shape[1])):
            if covered[r, c]:
                neighbours[count] = heights[r, c]
                count += 1
    neighbours[:count].sort()
    n = _share_of(count, fraction)
    highest = neighbours[count - n : count]
    mean = np.float32(0)
    for value in highest:
        mean += value
    mean /= np.float32(n)
    spread = np.float32(0)
    for value in highest:
        spread += (value - mean) * (value - mean)
    prior = spread / np.float32(max(n - 1, 1))
    return (heights[row, col] * prior + mean * variance) / (prior + variance)
