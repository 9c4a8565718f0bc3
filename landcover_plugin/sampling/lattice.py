"""Where a map is computed: windows on a lattice that is fixed to the mosaics' grid, and strips of finished work.

Numbers only. A window, and what blending makes of a pixel, does not depend on which area is asked for: the map of a
part is the part of the map.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelWindow

#: Rows and, at most, columns of a strip: the sums of a swath are held in memory, whatever the width of the area.
STRIP_HEIGHT, SWATH_WIDTH = 512, 8192

#: Edges of swaths lie on whole tiles of the map.
_TILE = 512


@dataclass(frozen=True)
class Lattice:
    """Overlapping square windows over a grid, the first one half the overlap above and left of its first pixel.

    So every pixel, also one at the border, lies half the overlap or more from the rim of some window. Windows
    reach beyond the grid; there they are to be filled by reflection (:func:`reflected`).

    Args:
        size: Edge of a window in pixels.
        overlap: Pixels that neighbours share.
        shape: Rows and columns of the grid.

    Raises:
        LandcoverError: If neighbours would not move on.

    Examples:
        >>> lattice = Lattice(size=40, overlap=10, shape=(100, 30))
        >>> [tuple(window) for window in lattice.windows(PixelWindow(0, 0, 30, 30))]
        [(-5, -5, 40, 40), (25, -5, 40, 40)]
    """

    size: int
    overlap: int
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise LandcoverError(f'overlap must be in [0, {self.size}) px, the patch size, got {self.overlap}')

    @property
    def stride(self) -> int:
        """Pixels from one window to the next."""
        return self.size - self.overlap

    def starts(self, start: int, stop: int, axis: int) -> NDArray[np.int64]:
        """First pixels of the windows that meet ``[start, stop)`` along an axis (0: rows, 1: columns), in order."""
        half = self.overlap // 2
        last = max(math.ceil((self.shape[axis] + 2 * half - self.size) / self.stride), 0)
        first = max((start - self.size + half) // self.stride + 1, 0)
        return np.arange(first, min(math.ceil((stop + half) / self.stride) - 1, last) + 1) * self.stride - half

    def windows(self, area: PixelWindow) -> Iterator[PixelWindow]:
        """Windows that meet a part of the grid, row by row."""
        cols = self.starts(area.col, area.col_stop, 1).tolist()
        for row in self.starts(area.row, area.row_stop, 0).tolist():
            for col in cols:
                yield PixelWindow(row, col, self.size, self.size)

    def count(self, area: PixelWindow) -> int:
        """Number of windows that meet a part of the grid."""
        return len(self.starts(area.row, area.row_stop, 0)) * len(self.starts(area.col, area.col_stop, 1))


def reflected(start: int, stop: int, length: int) -> NDArray[np.int64]:
    """Pixels of ``[0, length)`` that stand for those of ``[start, stop)``: beyond an edge as in a mirror on it.

    As ``numpy.pad(mode='symmetric')``; an edge pixel is its own neighbour.

    Examples:
        >>> reflected(-3, 7, 4).tolist()
        [2, 1, 0, 0, 1, 2, 3, 3, 2, 1]
    """
    turned = np.arange(start, stop) % (2 * length)
    return np.minimum(turned, 2 * length - 1 - turned)


def cut_strips(area: PixelWindow, *, height: int = STRIP_HEIGHT, width: int = SWATH_WIDTH) -> list[PixelWindow]:
    """Strips that make up an area, swath by swath, in each from the top.

    Swaths are about equally wide, and strips of one area never overlap.

    Args:
        area: What to cut.
        height: Rows of a strip; the last one of a swath may have fewer.
        width: Most columns of a swath.

    Examples:
        >>> [tuple(strip) for strip in cut_strips(PixelWindow(7, 3, 600, 1500), width=1024)]
        [(7, 3, 512, 1024), (519, 3, 88, 1024), (7, 1027, 512, 476), (519, 1027, 88, 476)]
    """
    swaths = math.ceil(area.width / width)
    tiles = math.ceil(area.width / swaths / _TILE) * _TILE
    return [
        PixelWindow(row, col, min(height, area.row_stop - row), min(tiles, area.col_stop - col))
        for col in range(area.col, area.col_stop, tiles)
        for row in range(area.row, area.row_stop, height)
    ]


def grown(window: PixelWindow, halo: int, shape: tuple[int, int]) -> PixelWindow:
    """A window and what lies within ``halo`` pixels of it, as far as a grid of this shape reaches."""
    wider = PixelWindow(window.row - halo, window.col - halo, window.height + 2 * halo, window.width + 2 * halo)
    return wider.intersection(PixelWindow(0, 0, *shape))


def share(weights: Sequence[float], parts: int) -> list[slice]:
    """Contiguous parts of a sequence whose sums are about equal; some are empty where there is less than one each.

    Examples:
        >>> share([4, 1, 1, 1, 1], 2), share([1], 2)
        ([slice(0, 1, None), slice(1, 5, None)], [slice(0, 0, None), slice(0, 1, None)])
    """
    middles = np.cumsum(weights) - np.asarray(weights) / 2
    edges = np.searchsorted(middles, np.sum(weights) * np.arange(parts + 1) / parts)
    edges[0], edges[-1] = 0, len(weights)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]
