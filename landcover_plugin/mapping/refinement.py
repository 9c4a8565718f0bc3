"""Refinement of class maps: majority, minimum mapping unit. Arrays in, arrays out.

Each callable has a ``halo``: the pixels around a piece that its result depends on. A map that is cut into pieces with
that halo, refined piece by piece and put together is the refined whole, pixel by pixel.
"""

import math
from typing import Literal

import numba
import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..legend import NODATA
from ..rasters.pixel_size import projected_pixel_area
from .regions import merge_small

Codes = NDArray[np.uint8]

#: Largest minimum mapping unit: a halo beyond would be wider than the strips that are mapped.
_MOST_PIXELS = 100


class MajoritySmoothing:
    """The most frequent class of each pixel's neighbourhood.

    A pixel keeps its class if that is among the most frequent ones, else it takes the one of the lower code. No data
    is not counted, stays, and is never filled.

    Args:
        size: Edge of the neighbourhood in pixels, odd.

    Raises:
        LandcoverError: If the size is out of range.

    Examples:
        >>> codes = np.array([[3, 3, 3], [3, 7, 0], [3, 3, 7]], np.uint8)
        >>> MajoritySmoothing(3)(codes).tolist()
        [[3, 3, 3], [3, 3, 0], [3, 3, 7]]
    """

    def __init__(self, size: int = 3) -> None:
        if size % 2 == 0 or not 3 <= size <= 21:
            raise LandcoverError(f'the size of majority smoothing must be an odd number in [3, 21] px, got {size}')
        self.size = size

    def __repr__(self) -> str:
        return f'MajoritySmoothing({self.size})'

    @property
    def halo(self) -> int:
        """Pixels around a piece that its result depends on."""
        return self.size // 2

    def __call__(self, codes: Codes) -> Codes:
        """The smoothed codes, a new array of shape ``(height, width)``."""
        out = np.zeros_like(codes)
        if codes.size:
            _majority(np.ascontiguousarray(codes), self.halo, int(codes.max()) + 1, out)
        return out


class MinimumMappingUnit:
    """Regions that are too small join a neighbour, in a way that does not depend on how the map is cut.

    A region is a connected set of pixels of one class; it is large from ``pixels`` px on. In each of some rounds, all
    small regions that share a side with a large one change at once: each takes the class with which it shares the
    longest border, counted in pixel sides along large regions, and the lower code of two. What changed is part of a
    large region from then on, so no pixel changes twice and large regions keep every pixel. Small regions inside a
    cluster of others wait for a later round; those that touch no large one, such as islets in no data, stay, as with
    GDAL's sieve. No data is no neighbour and never changes.

    Why the halo is ``2 * (pixels - 1) * rounds``: distances in pixels are those of a king's moves. All pixels of a
    small region lie within ``pixels - 2`` of each other, so a pixel and all neighbours of its region lie within
    ``pixels - 1``. Whether one of these belongs to a large region is settled by growing from it until ``pixels`` px
    are found, within another ``pixels - 1``. What becomes of a pixel in one round depends on nothing farther away than
    the sum; round by round the distances add up.

    Args:
        pixels: Fewest pixels of a region, see :func:`pixels_of_area`. 1 changes nothing.
        connectivity: 4: pixels of a region share a side; 8: a corner is enough.
        rounds: How often at most. Each adds to the halo.

    Raises:
        LandcoverError: If a setting is out of range.

    Examples:
        >>> codes = np.array([[3, 3, 7, 7, 7], [3, 5, 5, 7, 7], [3, 3, 3, 7, 0]], np.uint8)
        >>> unit = MinimumMappingUnit(3)
        >>> unit(codes).tolist(), unit.halo
        ([[3, 3, 7, 7, 7], [3, 3, 3, 7, 7], [3, 3, 3, 7, 0]], 16)
    """

    def __init__(self, pixels: int, connectivity: Literal[4, 8] = 4, rounds: int = 4) -> None:
        if not 1 <= pixels <= _MOST_PIXELS:
            raise LandcoverError(f'the minimum mapping unit must be in [1, {_MOST_PIXELS}] px, got {pixels}')
        if connectivity not in (4, 8):
            raise LandcoverError(f'connectivity must be 4 or 8, got {connectivity}')
        if rounds < 1:
            raise LandcoverError(f'rounds must be at least 1, got {rounds}')
        self.pixels, self.connectivity, self.rounds = pixels, connectivity, rounds

    def __repr__(self) -> str:
        return f'MinimumMappingUnit({self.pixels}, {self.connectivity}, {self.rounds})'

    @property
    def halo(self) -> int:
        """Pixels around a piece that its result depends on."""
        return 2 * (self.pixels - 1) * self.rounds

    def __call__(self, codes: Codes) -> Codes:
        """The codes with small regions merged, a new array of shape ``(height, width)``."""
        out = np.ascontiguousarray(codes).copy()
        if self.pixels > 1 and codes.size:
            merge_small(out, self.pixels, self.connectivity == 8, self.rounds)
        return out


def pixels_of_area(square_metres: float, grid: PixelGrid) -> int:
    """The fewest whole pixels that cover an area.

    Raises:
        LandcoverError: If the area is no positive number, or the grid is not measured in metres.

    Examples:
        >>> from rasterio.crs import CRS
        >>> from affine import Affine
        >>> grid = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 400000, 0, -10, 4600000), 100, 100)
        >>> [pixels_of_area(area, grid) for area in (500, 501, 50)]
        [5, 6, 1]
    """
    if not (math.isfinite(square_metres) and square_metres > 0):
        raise LandcoverError(f'a minimum area must be a positive number of square metres, got {square_metres:g}')
    if not grid.crs.is_projected:
        raise LandcoverError(f'an area in square metres needs a grid in metres, the mosaics are in {grid.crs}')
    pixels = square_metres / projected_pixel_area(grid)
    if pixels > grid.height * grid.width:
        raise LandcoverError(f'a minimum area of {square_metres:g} m2 is larger than the mosaics')
    return math.ceil(pixels * (1 - 1e-9))


@numba.njit(cache=True, nogil=True)
def _majority(codes, halo, number, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Slide a window along each row, counting the column that enters and the one that leaves."""
    height, width = codes.shape
    counts = np.zeros(number, dtype=np.int32)
    for row in range(height):
        counts[:] = 0
        top, bottom = max(row - halo, 0), min(row + halo + 1, height)
        for col in range(-halo, width):
            if col + halo < width:
                for r in range(top, bottom):
                    counts[codes[r, col + halo]] += 1
            if col - halo - 1 >= 0:
                for r in range(top, bottom):
                    counts[codes[r, col - halo - 1]] -= 1
            if col >= 0 and codes[row, col] != NODATA:
                best = codes[row, col]
                most = counts[best]
                for code in range(NODATA + 1, number):
                    if counts[code] > most:
                        best, most = code, counts[code]
                out[row, col] = best
