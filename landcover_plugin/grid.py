"""The pixel grid: which pixels, where. Integers inside, CRS units at the edge.

Every patch, block and bbox of this package is an integer window on one grid, that of the image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from .errors import LandcoverError

#: Positions closer to a pixel edge than this (in pixels) lie on it: float noise is not a shift.
EDGE_TOLERANCE = 1e-4


#: One object for each CRS, since comparing two takes longer than reading a line of pixels.
_CRSS: dict[CRS, CRS] = {}


class PixelWindow(NamedTuple):
    """A rectangle of whole pixels; ``row`` and ``col`` may be negative, beyond the grid."""

    row: int
    col: int
    height: int
    width: int

    @property
    def row_stop(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    @property
    def is_empty(self) -> bool:
        """Whether the window holds no pixel."""
        return self.height <= 0 or self.width <= 0

    @property
    def ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """``((row, row_stop), (col, col_stop))``, the form that rasterio's ``window=`` takes."""
        return (self.row, self.row_stop), (self.col, self.col_stop)

    def intersection(self, other: 'PixelWindow') -> 'PixelWindow':
        """The pixels in both windows; empty (height or width 0) where they do not meet."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row_stop, other.row_stop) - row
        width = min(self.col_stop, other.col_stop) - col
        return PixelWindow(row, col, max(height, 0), max(width, 0))

    def slices_in(self, other: 'PixelWindow') -> tuple[slice, slice]:
        """Row and column slices of this window in an array that holds ``other``."""
        row, col = self.row - other.row, self.col - other.col
        return slice(row, row + self.height), slice(col, col + self.width)

    def scaled(self, factor: int) -> 'PixelWindow':
        """The same ground on a grid of pixels ``factor`` times smaller."""
        return PixelWindow(*(v * factor for v in self))


@dataclass(frozen=True)
class PixelGrid:
    """A north-up grid of square-edged pixels: CRS, origin, pixel size and shape.

    Args:
        crs: Coordinate reference system.
        transform: Affine map from (column, row) to (x, y) of the CRS, north up.
        height: Rows.
        width: Columns.

    Raises:
        LandcoverError: If the transform is rotated or not north up.

    Examples:
        >>> grid = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 400000, 0, -10, 4600000), 200, 300)
        >>> grid.window((400005, 4599900, 400100, 4599999))
        PixelWindow(row=0, col=0, height=10, width=10)
        >>> grid.bounds(PixelWindow(0, 0, 10, 10))
        (400000.0, 4599900.0, 400100.0, 4600000.0)
    """

    crs: CRS
    transform: Affine
    height: int
    width: int

    def __post_init__(self) -> None:
        t = self.transform
        if t.b or t.d or t.a <= 0 or t.e >= 0:
            raise LandcoverError(
                f'the raster grid must be north up without rotation, got the transform {tuple(t)[:6]}; '
                'warp it first (gdalwarp)'
            )

    @classmethod
    def of(cls, src: Any) -> 'PixelGrid':
        """The grid of an open rasterio dataset.

        Raises:
            LandcoverError: If the raster has no CRS or no georeference, or is rotated.
        """
        if src.crs is None:
            raise LandcoverError(f'{src.name} has no CRS; assign the right one (gdal_edit.py -a_srs EPSG:32631 FILE)')
        if src.transform.is_identity:
            raise LandcoverError(
                f'{src.name} has no georeference (identity transform); assign it (gdal_edit.py -a_ullr … FILE)'
            )
        try:
            return cls(_CRSS.setdefault(src.crs, src.crs), src.transform, src.height, src.width)
        except LandcoverError as e:
            raise LandcoverError(f'{src.name}: {e}') from None

    @property
    def res(self) -> tuple[float, float]:
        """Pixel size as ``(xres, yres)`` in CRS units."""
        return self.transform.a, -self.transform.e

    @property
    def origin(self) -> tuple[float, float]:
        """``(x, y)`` of the upper left corner in CRS units."""
        return self.transform.c, self.transform.f

    @property
    def full(self) -> PixelWindow:
        """The window of the whole grid."""
        return PixelWindow(0, 0, self.height, self.width)

    def bounds(self, window: PixelWindow | None = None) -> tuple[float, float, float, float]:
        """``(xmin, ymin, xmax, ymax)`` of a window (default: the whole grid) in CRS units."""
        w = self.full if window is None else window
        (x0, y0), (xres, yres) = self.origin, self.res
        return (x0 + w.col * xres, y0 - w.row_stop * yres, x0 + w.col_stop * xres, y0 - w.row * yres)

    def subgrid(self, window: PixelWindow) -> 'PixelGrid':
        """The grid of the pixels of a window."""
        t = self.transform
        corner = Affine(t.a, 0, t.c + window.col * t.a, 0, t.e, t.f + window.row * t.e)
        return PixelGrid(self.crs, corner, window.height, window.width)

    def refined(self, factor: int) -> 'PixelGrid':
        """The same ground in pixels ``factor`` times smaller."""
        transform = self.transform @ Affine.scale(1 / factor)
        return PixelGrid(self.crs, transform, self.height * factor, self.width * factor)

    def slices(self, window: PixelWindow) -> tuple[slice, slice]:
        """A window as the ``(x, y)`` slices in CRS units with which TorchGeo datasets are indexed."""
        xmin, ymin, xmax, ymax = self.bounds(window)
        xres, yres = self.res
        return slice(xmin, xmax, xres), slice(ymin, ymax, yres)

    def window(self, bbox: Sequence[float]) -> PixelWindow:
        """The smallest window of whole pixels that covers a bbox in CRS units: it grows outward.

        The window is not clipped to the grid.
        """
        xmin, ymin, xmax, ymax = check_bbox(bbox)
        left, top = self._position(xmin, ymax)
        right, bottom = self._position(xmax, ymin)
        row, col = math.floor(top + EDGE_TOLERANCE), math.floor(left + EDGE_TOLERANCE)
        row_stop, col_stop = math.ceil(bottom - EDGE_TOLERANCE), math.ceil(right - EDGE_TOLERANCE)
        return PixelWindow(row, col, max(row_stop - row, 1), max(col_stop - col, 1))

    def nearest_window(self, x: slice, y: slice) -> PixelWindow:
        """The window whose corner is nearest to that of a query, with the query's size in whole pixels.

        Queries of one size give windows of one shape, wherever they lie: patches stack into batches.
        A corner in the middle between two pixels goes to the one right of or below it.
        """
        left, top = self._position(x.start, y.stop)
        xres, yres = self.res
        row, col = _nearest(top), _nearest(left)
        height, width = _nearest((y.stop - y.start) / yres), _nearest((x.stop - x.start) / xres)
        return PixelWindow(row, col, max(height, 1), max(width, 1))

    def _position(self, x: float, y: float) -> tuple[float, float]:
        """Fractional ``(column, row)`` of a point."""
        return (x - self.transform.c) / self.transform.a, (y - self.transform.f) / self.transform.e

    def bbox_from_wgs84(self, bbox_wgs84: Sequence[float]) -> tuple[float, float, float, float]:
        """A bbox in WGS84 degrees (west, south, east, north) as a bbox that covers it in CRS units.

        Each edge is densified to 201 points before reprojection, since straight lines of longitude and
        latitude are curves on the grid: all of Catalonia is covered to 3 cm (with 21 points, to 2 m).
        """
        west, south, east, north = check_bbox(bbox_wgs84)
        if not (west >= -180 and east <= 180 and south >= -90 and north <= 90):
            raise LandcoverError(f'a bbox in degrees must lie in [-180, 180] x [-90, 90], got {list(bbox_wgs84)}')
        wgs84 = CRS.from_epsg(4326)
        left, bottom, right, top = transform_bounds(wgs84, self.crs, west, south, east, north, densify_pts=201)
        return left, bottom, right, top

    def window_of(self, other: 'PixelGrid') -> PixelWindow | None:
        """The window that another grid's pixels fill, or None where their edges do not coincide.

        The CRS is not compared.
        """
        own, its = self.transform, other.transform
        same_res = math.isclose(own.a, its.a, rel_tol=1e-9) and math.isclose(own.e, its.e, rel_tol=1e-9)
        col, row = (its.c - own.c) / own.a, (its.f - own.f) / own.e
        if not (same_res and _near_integer(col) and _near_integer(row)):
            return None
        return PixelWindow(round(row), round(col), other.height, other.width)

    def aligned_with(self, other: 'PixelGrid') -> bool:
        """Whether the pixel edges of both grids coincide (same size and phase); the CRS is not compared."""
        return self.window_of(other) is not None


class AnchoredRes(tuple[float, float]):
    """A pixel size ``(xres, yres)`` that remembers the origin of the grid that it belongs to.

    TorchGeo hands the resolution of the first dataset of an intersection or union to the second, and nothing
    else. With the origin inside, the second knows the first one's pixel edges, not only their distance.

    Examples:
        >>> AnchoredRes((10.0, 10.0), origin=(400003.0, 4600007.0)).lattice(CRS.from_epsg(32631)).origin
        (400003.0, 4600007.0)
    """

    origin: tuple[float, float]

    def __new__(cls, res: tuple[float, float], origin: tuple[float, float]) -> 'AnchoredRes':  # noqa: D102
        self = super().__new__(cls, res)
        self.origin = origin
        return self

    def __getnewargs__(self) -> tuple[tuple[float, float], tuple[float, float]]:
        xres, yres = self
        return (xres, yres), self.origin

    def lattice(self, crs: CRS) -> PixelGrid:
        """The grid of one pixel at the origin, from which windows are counted."""
        (xres, yres), (x, y) = self, self.origin
        return PixelGrid(crs, Affine(xres, 0, x, 0, -yres, y), 1, 1)


def _nearest(value: float) -> int:
    """The nearest whole number, the upper one of two; float noise does not decide."""
    return math.floor(value + 0.5 + EDGE_TOLERANCE)


def _near_integer(value: float) -> bool:
    return abs(value - round(value)) < EDGE_TOLERANCE


def check_bbox(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    """The bbox ``(xmin, ymin, xmax, ymax)`` as floats, if it is one.

    Raises:
        LandcoverError: If it does not hold four finite numbers, is empty, or has its corners swapped.
    """
    try:
        values = [float(v) for v in bbox]
    except (TypeError, ValueError):
        values = []
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise LandcoverError(f'a bbox is four finite numbers [xmin, ymin, xmax, ymax], got {bbox!r}')
    xmin, ymin, xmax, ymax = values
    if xmin == xmax or ymin == ymax:
        raise LandcoverError(f'the bbox {values} is empty: xmin < xmax and ymin < ymax must hold')
    if xmin > xmax or ymin > ymax:
        swapped = [min(xmin, xmax), min(ymin, ymax), max(xmin, xmax), max(ymin, ymax)]
        raise LandcoverError(f'the bbox {values} has its corners swapped; did you mean {swapped}?')
    return xmin, ymin, xmax, ymax


def taper(size: int, overlap: int) -> NDArray[np.float32]:
    """Blending weights of a square window: 1 inside, falling linearly to the rim over ``overlap`` pixels.

    Positive everywhere, so that any set of windows that covers a pixel gives it a weight.

    Returns:
        Shape ``(size, size)``, values in (0, 1].

    Examples:
        >>> taper(4, 2)[0].tolist()
        [0.0625, 0.1875, 0.1875, 0.0625]
    """
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
    ramp = np.clip(distance / max(overlap, 0.5), 0, 1).astype(np.float32)
    return np.outer(ramp, ramp)
