"""Arithmetic on arrays of cells: sums over squares of cells, places where a patch fits, rectangles."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid import PixelWindow


def square_sums(values: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Sum over each square of ``size`` x ``size`` cells, by a summed-area table.

    Args:
        values: Shape ``(rows, cols)``.
        size: Cells along the square.

    Returns:
        Shape ``(rows - size + 1, cols - size + 1)``, indexed by the upper left cell; empty where none fits.

    Examples:
        >>> square_sums(np.arange(6).reshape(2, 3), 2).tolist()
        [[8, 12]]
    """
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1), dtype=np.int64)
    table[1:, 1:] = values.cumsum(0, dtype=np.int64).cumsum(1)
    if min(values.shape) < size:
        return np.zeros((max(values.shape[0] - size + 1, 0), max(values.shape[1] - size + 1, 0)), dtype=np.int64)
    return table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]


def near(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Cells with a marked cell at most ``radius`` cells away in both axes (Chebyshev distance)."""
    padded = np.pad(mask, radius)
    return square_sums(padded, 2 * radius + 1) > 0


def covered_by(anchors: NDArray[np.bool_], size: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Cells that lie in a square of ``size`` x ``size`` cells whose upper left cell is marked.

    Args:
        anchors: Shape ``(rows - size + 1, cols - size + 1)``.
        size: Cells along the square.
        shape: ``(rows, cols)`` of the result.
    """
    if not anchors.size:
        return np.zeros(shape, dtype=bool)
    return square_sums(np.pad(anchors, size - 1), size) > 0


def rectangles(region: NDArray[np.bool_]) -> Iterator[PixelWindow]:
    """Rectangles of cells that cover a region exactly once: runs of a row, joined with equal runs below.

    Examples:
        >>> list(rectangles(np.array([[1, 1, 0], [1, 1, 1]], dtype=bool)))
        [PixelWindow(row=0, col=0, height=1, width=2), PixelWindow(row=1, col=0, height=1, width=3)]
    """
    open_runs: dict[tuple[int, int], int] = {}
    for row in range(region.shape[0] + 1):
        runs = _runs(region[row]) if row < region.shape[0] else set()
        for run in sorted(set(open_runs) - runs):
            start = open_runs.pop(run)
            yield PixelWindow(start, run[0], row - start, run[1] - run[0])
        for run in runs:
            open_runs.setdefault(run, row)


def _runs(row: NDArray[np.bool_]) -> set[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
    return {(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)}
