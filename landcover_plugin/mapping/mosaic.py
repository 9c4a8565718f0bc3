"""Blending overlapping windows into finished rows, in memory that does not grow with the area.

No torch: windows of class probabilities come in, rows that no later window can change go out.
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelWindow
from ..rasters.layers import Kind
from .deciding import Decided, decide, decide_nothing

#: Rows that are handed out at a time: the pieces stay near the processor while they become bytes.
STRIP = 32

Sums = NDArray[np.float32]
Weights = NDArray[np.float32]

#: Mean probabilities ``(num_classes, n, width)``, and which pixels have any, ``(n, width)``.
Means = tuple[NDArray[np.float32], NDArray[np.bool_]]


class BlendedMosaic:
    """The weighted mean of overlapping windows, released row by row from the top.

    Sums are kept in a ring of rows: row ``r`` of the area lies at ``r % capacity``, released rows are
    zeroed and used again, and the ring grows only when a window reaches below its last row. It holds the
    rows between the last released row and the lowest row of any window: one window height if windows come
    row by row and :meth:`finished` is called, and consumed, between the rows. Memory is ``(num_classes + 1)
    * 4`` bytes per pixel of those rows.

    Every weight is summed in the order in which its probabilities are, so a mean of ones is exactly one.
    Not thread-safe.

    Args:
        area: The pixels to be mapped, on the grid on which windows are counted; parts of windows outside
            are dropped.
        num_classes: Channels of the probabilities, channel 0 (no data) included.

    Raises:
        LandcoverError: If the area is empty.

    Examples:
        >>> mosaic = BlendedMosaic(PixelWindow(0, 0, 2, 3), num_classes=2)
        >>> sure = np.stack([np.zeros((2, 2)), np.ones((2, 2))]).astype(np.float32)
        >>> mosaic.add(PixelWindow(0, 0, 2, 2), sure, np.ones((2, 2), np.float32))
        >>> [(row, {kind: layer.tolist() for kind, layer in found.items()}) for row, found in mosaic.decided(1, [])]
        [(0, {'classes': [[[1, 1, 0]]]})]
    """

    def __init__(self, area: PixelWindow, num_classes: int) -> None:
        if area.is_empty:
            raise LandcoverError(f'the area to map must hold at least one pixel, got {tuple(area)}')
        self.area = area
        self.num_classes = num_classes
        self.released = area.row  #: First row of the grid that has not been released.
        self._stop = area.row  # first row of the grid below all windows so far
        self._sums = np.zeros((num_classes, 0, area.width), dtype=np.float32)
        self._weights = np.zeros((0, area.width), dtype=np.float32)

    @property
    def rows_held(self) -> int:
        """Rows for which memory is reserved."""
        return len(self._weights)

    def add(self, window: PixelWindow, probabilities: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
        """Add one look at a window; several looks at the same ground are averaged.

        Args:
            window: Where, on the grid; may reach beyond the area.
            probabilities: Shape ``(num_classes, height, width)``. Where the weight is 0 they are not used,
                whatever they hold.
            weights: Shape ``(height, width)``, 0 or more; 0 where the look saw nothing.

        Raises:
            ValueError: If shapes do not fit, or the window holds rows of the area that were released.
        """
        shape = (window.height, window.width)
        if probabilities.shape != (self.num_classes, *shape) or weights.shape != shape:
            raise ValueError(
                f'a window of {shape} px takes probabilities {(self.num_classes, *shape)} and weights {shape}, '
                f'got {probabilities.shape} and {weights.shape}'
            )
        part = window.intersection(self.area)
        if part.is_empty:
            return
        if part.row < self.released:
            raise ValueError(f'rows above {self.released} were released, got a window from row {part.row}')
        self._reserve(part.row_stop, window.height)
        probabilities, weights = np.ascontiguousarray(probabilities), np.ascontiguousarray(weights)
        for start, stop in self._segments(part.row, part.row_stop):
            piece = PixelWindow(start, part.col, stop - start, part.width)
            to = self._slot(start), part.col - self.area.col
            corner = start - window.row, part.col - window.col
            _add(self._sums, self._weights, to, probabilities, weights, corner, (piece.height, piece.width))

    def finished(self, row: int) -> Iterator[tuple[int, Means]]:
        """Release the rows above ``row`` of the grid: no window to come may reach them.

        The iterator must be consumed: rows are released, and their memory is used again, as they are
        yielded.

        Yields:
            ``(row, (probabilities, covered))`` from top to bottom without a gap: the row of the grid, the
            mean probabilities of shape ``(num_classes, n, width)``, 0 where not covered, and whether a pixel has
            any weight, shape ``(n, width)``; ``n`` is at most :data:`STRIP`. The arrays are the caller's.
        """
        return self._release(row, _means, self._no_means)

    def decided(self, row: int, kinds: Collection[Kind]) -> Iterator[tuple[int, Decided]]:
        """Release rows as :meth:`finished` does, as layers of a map, see :func:`~.deciding.decide`."""
        nothing = partial(decide_nothing, self.num_classes, kinds=kinds)
        return self._release(row, partial(decide, kinds=kinds), nothing)

    def _release[Rows](
        self, row: int, use: Callable[[Sums, Weights], Rows], nothing: Callable[[tuple[int, int]], Rows]
    ) -> Iterator[tuple[int, Rows]]:
        """Release rows as what ``use`` makes of their sums and weights, and ``nothing`` of a shape without any."""
        stop = min(row, self.area.row_stop)
        while self.released < stop:
            start = self.released
            end = self._end_of_piece(start, min(start + STRIP, stop))
            if start >= self._stop:  # no window came near
                made = nothing((end - start, self.area.width))
            else:
                rows = slice(self._slot(start), self._slot(start) + end - start)
                made = use(self._sums[:, rows], self._weights[rows])
                self._sums[:, rows] = 0
                self._weights[rows] = 0
            self.released = end
            yield start, made

    def flush(self) -> Iterator[tuple[int, Means]]:
        """Release all remaining rows of the area, as :meth:`finished` does."""
        return self.finished(self.area.row_stop)

    def _no_means(self, shape: tuple[int, int]) -> Means:
        return np.zeros((self.num_classes, *shape), np.float32), np.zeros(shape, np.bool_)

    def _slot(self, row: int) -> int:
        return (row - self.area.row) % self.rows_held

    def _segments(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Cut rows of the grid where the ring begins anew."""
        while start < stop:
            end = min(stop, start + self.rows_held - self._slot(start))
            yield start, end
            start = end

    def _end_of_piece(self, start: int, stop: int) -> int:
        """End of the rows from ``start`` that are contiguous in the ring, or lie below all windows."""
        if start >= self._stop:
            return stop
        return next(self._segments(start, min(stop, self._stop)))[1]

    def _reserve(self, stop: int, height: int) -> None:
        """Grow the ring, if need be, until it holds all rows from the first unreleased one to ``stop``.

        The first windows may reach less far into the area than ``height``, which later ones will need.
        """
        held, self._stop = range(self.released, self._stop), max(self._stop, stop)
        needed = self._stop - self.released
        if needed <= self.rows_held:
            return
        needed = max(needed, min(height, self.area.height))
        old = [(row, self._slot(row)) for row in held]
        sums, weights = self._sums, self._weights
        self._sums = np.zeros((self.num_classes, needed, self.area.width), dtype=np.float32)
        self._weights = np.zeros((needed, self.area.width), dtype=np.float32)
        for row, slot in old:
            self._sums[:, self._slot(row)] = sums[:, slot]
            self._weights[self._slot(row)] = weights[slot]


def _means(sums: Sums, weights: Weights) -> Means:
    covered = weights > 0
    return np.divide(sums, np.where(covered, weights, np.float32(1)), dtype=np.float32), covered


@numba.njit(cache=True, nogil=True)
def _add(sums, total, to, probabilities, weights, corner, shape):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add weighted probabilities and their weights, row by row so that these stay near the processor.

    Args:
        sums: Of the ring; contiguous, as all arrays, which the compiler needs to know.
        total: Weights of the ring.
        to: Row and column of the ring.
        probabilities: Of the window.
        weights: Of the window.
        corner: Row and column of the window to begin with.
        shape: Rows and columns to add.
    """
    width = shape[1]
    for r in range(shape[0]):
        row, col = corner[0] + r, corner[1]
        share = weights[row, col : col + width]
        for k in range(len(sums)):
            target, values = sums[k, to[0] + r, to[1] : to[1] + width], probabilities[k, row, col : col + width]
            for c in range(width):
                target[c] += values[c] * share[c] if share[c] > 0 else np.float32(0)  # NaN stays out
        target = total[to[0] + r, to[1] : to[1] + width]
        for c in range(width):
            target[c] += share[c]
