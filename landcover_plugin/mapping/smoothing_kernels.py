"""Kernels of Bayesian smoothing; see smoothing.py for the rule."""

import math

import numba
import numpy as np

from .selection import COPY, ORDER

#: Pixels on which comparisons run at a time: their lines stay near the processor.
_TILE = 128


@numba.njit(cache=True, nogil=True)
def find_whole(covered, row, halo, whole):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Tell which windows around the pixels of some rows lie inside the array and are covered."""
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
def share_of(number, fraction):  # type: ignore[no-untyped-def]  # pragma: no cover
    """A fraction of a number, rounded up; at least 1."""
    return max(math.ceil(number * fraction - 1e-9), 1)


@numba.njit(cache=True, nogil=True)
def smooth_class(  # type: ignore[no-untyped-def]  # pragma: no cover
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
    n = share_of(count, fraction)
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
