"""Blending overlapping windows into finished rows, in memory that does not grow with the area.

NumPy only: windows of class probabilities come in, rows that no later window can change go out.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelWindow
from ..legend import NODATA
from ..rasters.writing import PERCENT_NODATA

#: Rows that are handed out at a time: the pieces stay near the processor while they become bytes.
STRIP = 32

Strip = tuple[int, NDArray[np.float32], NDArray[np.bool_]]


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
        >>> [(row, *(part.tolist() for part in to_codes(*strip))) for row, *strip in mosaic.finished(1)]
        [(0, [[1, 1, 0]], [[100, 100, 255]])]
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
        self._scratch = np.zeros(0, dtype=np.float32)

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
        self._reserve(part.row_stop)
        for segment in self._segments(part.row, part.row_stop):
            piece = PixelWindow(segment[0], part.col, segment[1] - segment[0], part.width)
            rows, cols = piece.slices_in(window)
            self._accumulate(piece, probabilities[:, rows, cols], weights[rows, cols])

    def finished(self, row: int) -> Iterator[Strip]:
        """Release the rows above ``row`` of the grid: no window to come may reach them.

        The iterator must be consumed: rows are released, and their memory is used again, as they are
        yielded.

        Yields:
            ``(row, probabilities, covered)`` from top to bottom without a gap: the row of the grid, the
            mean probabilities of shape ``(num_classes, n, width)``, 0 where not covered, and whether a pixel has
            any weight, shape ``(n, width)``; ``n`` is at most :data:`STRIP`. The arrays are the caller's.
        """
        stop = min(row, self.area.row_stop)
        while self.released < stop:
            start = self.released
            end = self._end_of_piece(start, min(start + STRIP, stop))
            strip = self._take(start, end)
            self.released = end
            yield strip

    def flush(self) -> Iterator[Strip]:
        """Release all remaining rows of the area, as :meth:`finished` does."""
        return self.finished(self.area.row_stop)

    def _accumulate(self, piece: PixelWindow, probabilities: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
        """Add an array to rows that are contiguous in the ring, class by class so that scratch stays in cache."""
        at = self._slot(piece.row)
        rows, cols = slice(at, at + piece.height), piece.slices_in(self.area)[1]
        size = piece.height * piece.width
        if self._scratch.size < size:
            self._scratch = np.zeros(size, dtype=np.float32)
        scratch = self._scratch[:size].reshape(piece.height, piece.width)
        masked = weights > 0 if weights.min() <= 0 else True
        if masked is not True:
            scratch[:] = 0  # NaN under a weight of 0 stays out
        for sums, channel in zip(self._sums[:, rows, cols], probabilities, strict=True):
            np.multiply(channel, weights, out=scratch, where=masked)
            sums += scratch
        self._weights[rows, cols] += weights

    def _take(self, start: int, end: int) -> Strip:
        """Means of rows that are contiguous in the ring, which is left empty there."""
        shape = (end - start, self.area.width)
        if start >= self._stop:  # no window came near
            return start, np.zeros((self.num_classes, *shape), np.float32), np.zeros(shape, np.bool_)
        rows = slice(self._slot(start), self._slot(start) + shape[0])
        sums, weights = self._sums[:, rows], self._weights[rows]
        covered = weights > 0
        means = np.divide(sums, np.where(covered, weights, np.float32(1)), dtype=np.float32)
        sums[:] = 0
        weights[:] = 0
        return start, means, covered

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

    def _reserve(self, stop: int) -> None:
        """Grow the ring, if need be, until it holds all rows from the first unreleased one to ``stop``."""
        held, self._stop = range(self.released, self._stop), max(self._stop, stop)
        needed = self._stop - self.released
        if needed <= self.rows_held:
            return
        old = [(row, self._slot(row)) for row in held]
        sums, weights = self._sums, self._weights
        self._sums = np.zeros((self.num_classes, needed, self.area.width), dtype=np.float32)
        self._weights = np.zeros((needed, self.area.width), dtype=np.float32)
        for row, slot in old:
            self._sums[:, self._slot(row)] = sums[:, slot]
            self._weights[self._slot(row)] = weights[slot]


def to_codes(
    probabilities: NDArray[np.float32], covered: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Decide for the most probable class; channel 0 (no data) is never chosen.

    Args:
        probabilities: Shape ``(num_classes, height, width)``, in 0..1.
        covered: Shape ``(height, width)``: where there is anything to decide.

    Returns:
        Codes, the lower one of a tie, 0 where not covered; and confidence, the probability of that class in
        whole percent, 255 where not covered. Both uint8 of shape ``(height, width)``.

    Raises:
        LandcoverError: If a covered pixel is NaN: the network broke down there.
    """
    first = NODATA + 1
    best = probabilities[first].copy()
    codes = np.full(best.shape, first, dtype=np.uint8)
    for code in range(first + 1, len(probabilities)):
        np.copyto(codes, np.uint8(code), where=probabilities[code] > best)
        np.maximum(best, probabilities[code], out=best)  # hands NaN on
    codes[~covered] = NODATA
    return codes, _percent(best, covered)


def to_percent(probabilities: NDArray[np.float32], covered: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Probabilities of the real classes in whole percent, 255 where not covered.

    Args:
        probabilities: Shape ``(num_classes, height, width)``, in 0..1.
        covered: Shape ``(height, width)``.

    Returns:
        Shape ``(num_classes - 1, height, width)``, uint8: channel 0 (no data) is left out.

    Raises:
        LandcoverError: If a covered pixel is NaN.
    """
    return np.stack([_percent(channel, covered) for channel in probabilities[NODATA + 1 :]])


def _percent(shares: NDArray[np.float32], covered: NDArray[np.bool_]) -> NDArray[np.uint8]:
    percent = np.where(covered, shares, np.float32(0))
    if np.isnan(percent).any():
        raise LandcoverError(
            f'the network gave NaN at {np.count_nonzero(np.isnan(percent))} pixels: '
            'map with 32-bit precision, or choose another checkpoint'
        )
    percent *= 100
    np.rint(percent, out=percent)
    np.copyto(percent, np.float32(PERCENT_NODATA), where=~covered)
    return percent.astype(np.uint8)
