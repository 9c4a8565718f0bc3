"""Reading pixels: exact windows where grids agree, a named resampling where they do not."""

import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio.warp
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from .cached import cached_raster
from .mapped import map_raster
from .opening import file_version, open_raster, read_failed, server_settings

PathLike = str | os.PathLike[str]

#: What rasterio raises when GDAL fails; it leaves some errors of GDAL unwrapped.
GDAL_ERRORS = (RasterioError, CPLE_BaseError)


def read_window(
    path: PathLike,
    window: PixelWindow,
    *,
    indexes: Sequence[int] | None = None,
    fill: float = 0,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """The pixels of a window in the file's own grid; what lies outside the file is ``fill``.

    Args:
        path: Raster.
        window: May reach beyond the raster on any side.
        indexes: Bands, counted from 1 (default: all).
        fill: Value of the pixels outside.
        out: Where the pixels go (default: a new array).

    Returns:
        Shape ``(bands, window.height, window.width)`` in the file's dtype.

    Raises:
        LandcoverError: If the file cannot be read there.
    """
    mapped = map_raster(path)
    if mapped:
        return _read_inside(mapped, window, indexes, fill, out)
    src = cached_raster(path) or open_raster(path)
    try:
        with server_settings(src.name):
            return _read_inside(src, window, indexes, fill, out)
    except GDAL_ERRORS as e:
        inside = window.intersection(PixelWindow(0, 0, src.height, src.width))
        rows, cols = (f'{start}-{stop}' for start, stop in inside.ranges)
        raise read_failed(src.name, e, f'rows {rows}, columns {cols}') from e


def _read_inside(
    src: Any, window: PixelWindow, indexes: Sequence[int] | None, fill: float, out: NDArray[Any] | None
) -> NDArray[Any]:
    """The pixels of a window that lie in an open raster, among fill."""
    bands = list(indexes or range(1, src.count + 1))
    if window.row >= 0 and window.col >= 0 and window.row_stop <= src.height and window.col_stop <= src.width:
        return src.read(bands, window=window.ranges, out=out)
    if out is None:
        out = np.empty((len(bands), window.height, window.width), dtype=src.dtypes[0])
    out[:] = fill
    inside = window.intersection(PixelWindow(0, 0, src.height, src.width))
    if not inside.is_empty:
        out[(slice(None), *inside.slices_in(window))] = src.read(bands, window=inside.ranges)
    return out


def grid_of(path: PathLike) -> PixelGrid:
    """The grid of a file; of one that has not changed it is known."""
    return _grid_of(os.fspath(path), file_version(path))


@functools.lru_cache(maxsize=256)
def _grid_of(path: str, version: int) -> PixelGrid:
    return PixelGrid.of(open_raster(path))


def read_onto(
    path: PathLike,
    grid: PixelGrid,
    *,
    resampling: Resampling,
    indexes: Sequence[int] | None = None,
    fill: float = 0,
) -> NDArray[Any]:
    """The raster on the pixels of a grid: copied where the pixel edges coincide, warped where they do not.

    Args:
        path: Raster.
        grid: Where, in any CRS; may reach beyond the raster.
        resampling: Used only when the grids differ in CRS, pixel size or phase.
        indexes: Bands, counted from 1 (default: all).
        fill: Value of the pixels outside; a warp leaves pixels of this value out of the resampling.

    Returns:
        Shape ``(bands, grid.height, grid.width)`` in the file's dtype.

    Raises:
        LandcoverError: If the file cannot be read there.
    """
    src, own = open_raster(path), grid_of(path)
    if same_ground(own.crs, grid.crs, grid.bounds()) and own.aligned_with(grid):
        window = own.nearest_window(*grid.slices(grid.full))
        return read_window(path, window, indexes=indexes, fill=fill)
    scale = 1 / pixels_across(own, grid)  # left to itself, GDAL guesses it anew, and a little off, for each window
    try:
        with (
            server_settings(src.name),
            WarpedVRT(
                src,
                crs=grid.crs,
                transform=grid.transform,
                height=grid.height,
                width=grid.width,
                resampling=resampling,
                src_nodata=fill,
                nodata=fill,
                tolerance=1e-3,  # in pixels, so that a place looks the same in every window; 0 crashes rasterio 1.5
                XSCALE=scale,
                YSCALE=scale,
            ) as vrt,
        ):
            return vrt.read(list(indexes or src.indexes))
    except GDAL_ERRORS as e:
        raise read_failed(src.name, e) from e


def pixels_across(own: PixelGrid, grid: PixelGrid) -> float:
    """How many pixels of ``own`` lie along one pixel in the middle of ``grid``, whatever their CRSs.

    Raises:
        LandcoverError: If no transformation leads from one CRS to the other.
    """
    (xmin, ymin, xmax, ymax), (xres, yres) = grid.bounds(), grid.res
    x, y = (xmin + xmax) / 2, (ymin + ymax) / 2
    try:
        xs, ys = rasterio.warp.transform(grid.crs, own.crs, [x, x + xres, x], [y, y, y + yres])[:2]
    except GDAL_ERRORS as e:
        raise LandcoverError(
            f'no transformation leads from {grid.crs} to {own.crs}; assign the right CRS (gdal_edit.py -a_srs) '
            'or warp the raster (gdalwarp)'
        ) from e
    area = abs((xs[1] - xs[0]) * (ys[2] - ys[0]) - (xs[2] - xs[0]) * (ys[1] - ys[0]))
    across = math.sqrt(area / math.prod(own.res))
    return across if 0 < across < math.inf else 1.0


def same_ground(a: CRS, b: CRS, bounds: tuple[float, float, float, float]) -> bool:
    """Whether coordinates mean the same place in both CRSs, to a millimetre over the bounds (in ``b``).

    True for one CRS under two spellings, and for EPSG:25831 and EPSG:32631, which PROJ relates by a null
    transformation (their datums, ETRS89 and WGS84, differ by less than a metre).
    """
    if a == b or a.is_geographic != b.is_geographic:
        return bool(a == b)
    digits = 0 if b.is_geographic else -4  # one answer serves all patches within a degree or 10 km
    return _same_numbers(a.to_wkt(), b.to_wkt(), tuple(round(v, digits) for v in bounds))


@functools.lru_cache(maxsize=256)
def _same_numbers(a: str, b: str, bounds: tuple[float, ...]) -> bool:
    xs, ys = list(bounds[::2]), list(bounds[1::2])
    try:
        x, y = rasterio.warp.transform(CRS.from_wkt(b), CRS.from_wkt(a), xs, ys)[:2]
    except GDAL_ERRORS:
        return False
    return bool(np.allclose(x, xs, rtol=0, atol=1e-3) and np.allclose(y, ys, rtol=0, atol=1e-3))
