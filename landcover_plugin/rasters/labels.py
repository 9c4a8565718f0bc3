"""Aggregating a fine label raster to the pixels of the image grid."""

import os
from typing import Any, Literal

import numba
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling

from ..grid import PixelGrid
from ..legend import LEGEND, NODATA, UNKNOWN
from .opening import open_raster
from .reading import pixels_across, read_onto, read_window, same_ground

Aggregation = Literal['mode', 'nearest']


def read_labels(
    path: str | os.PathLike[str], grid: PixelGrid, *, table: NDArray[np.uint8], aggregation: Aggregation
) -> tuple[NDArray[np.uint8], int]:
    """Labels of one raster on the pixels of a grid.

    Where each pixel of the grid holds a whole number of label pixels (10 x 10 of 1 m in one of 10 m), they
    are counted exactly. Otherwise the raster is first warped (nearest) to about as many pixels in each pixel of
    the grid, and those are counted. Overviews are never used.

    Args:
        path: Label raster of any pixel size, in the CRS of the grid or another.
        grid: Where; may reach beyond the raster, which is no data there.
        table: Shape ``(256,)``: raster value to code, see :func:`~landcover_plugin.legend.lookup_table`.
        aggregation: ``mode``: the code that covers most of the labelled part of the pixel, the lower code
            of a tie, no data where less than half is labelled. ``nearest``: the label pixel right of and
            below the centre.

    Returns:
        Codes of shape ``(grid.height, grid.width)``, and how many label pixels held unknown values.
    """
    src = open_raster(path)
    own = PixelGrid.of(src)
    factor = _whole_factor(own, grid)
    if factor:
        raw = read_window(path, own.nearest_window(*grid.slices(grid.full)), indexes=[1], fill=NODATA)
    else:
        factor = max(round(pixels_across(own, grid)), 1) if aggregation == 'mode' else 1
        raw = read_onto(path, _refined(grid, factor), resampling=Resampling.nearest, indexes=[1], fill=NODATA)
    values = _as_uint8(raw[0], src.nodata)
    if factor == 1:
        return _translate(values, table)
    if aggregation == 'nearest':
        return _translate(values[factor // 2 :: factor, factor // 2 :: factor], table)
    codes, unknown = majority(values, table, factor)
    return codes, int(unknown)


def _whole_factor(own: PixelGrid, grid: PixelGrid) -> int:
    """How many label pixels lie along one pixel of the grid, 0 where that is no whole number."""
    factor = round(grid.res[0] / own.res[0])
    if factor < 1 or not same_ground(own.crs, grid.crs, grid.bounds()):
        return 0
    return factor if own.aligned_with(_refined(grid, factor)) else 0


def _refined(grid: PixelGrid, factor: int) -> PixelGrid:
    """The same ground in pixels ``factor`` times smaller."""
    transform = grid.transform @ Affine.scale(1 / factor)
    return PixelGrid(grid.crs, transform, grid.height * factor, grid.width * factor)


def _as_uint8(values: NDArray[Any], nodata: float | None) -> NDArray[np.uint8]:
    """Label values as bytes: declared nodata and NaN become 0, what is no code becomes unknown."""
    missing = np.isnan(values) if values.dtype.kind == 'f' else np.zeros((), dtype=bool)
    if nodata is not None and nodata != NODATA:
        missing = missing | (values == nodata)
    if values.dtype == np.uint8:
        return np.where(missing, np.uint8(NODATA), values) if missing.any() else values
    whole = (values >= 0) & (values < UNKNOWN) & (values == np.floor(values))
    return np.where(missing, NODATA, np.where(whole, values, UNKNOWN)).astype(np.uint8)


def _translate(values: NDArray[np.uint8], table: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    codes = table[values]
    unknown = codes == UNKNOWN
    codes[unknown] = NODATA
    return codes, int(np.count_nonzero(unknown))


@numba.njit(cache=True, nogil=True)
def _majority(values, table, factor, num_classes, unknown_code):  # type: ignore[no-untyped-def]  # pragma: no cover
    rows, cols = values.shape[0] // factor, values.shape[1] // factor
    out = np.zeros((rows, cols), dtype=np.uint8)
    counts = np.zeros(256, dtype=np.int32)
    unknown = 0
    for row in range(rows):
        for col in range(cols):
            counts[:num_classes] = 0
            counts[unknown_code] = 0
            for r in range(row * factor, (row + 1) * factor):
                for c in range(col * factor, (col + 1) * factor):
                    counts[table[values[r, c]]] += 1
            unknown += counts[unknown_code]
            best, labelled = 0, 0
            for code in range(1, num_classes):
                labelled += counts[code]
                if counts[code] > 0 and (best == 0 or counts[code] > counts[best]):
                    best = code
            if 2 * labelled >= factor * factor:
                out[row, col] = best
    return out, unknown


def majority(values: NDArray[np.uint8], table: NDArray[np.uint8], factor: int) -> tuple[NDArray[np.uint8], int]:
    """Majority code of each block of ``factor`` x ``factor`` label pixels.

    Args:
        values: Shape ``(rows * factor, cols * factor)``, raster values.
        table: Shape ``(256,)``, raster value to code.
        factor: Label pixels along one output pixel.

    Returns:
        Codes of shape ``(rows, cols)`` and the number of pixels with unknown values. A block is no data where
        less than half of it is labelled; a tie goes to the lower code.

    Examples:
        >>> from landcover_plugin.legend import lookup_table
        >>> values = np.array([[3, 3, 0, 0], [12, 3, 0, 4]], dtype=np.uint8)
        >>> majority(values, lookup_table(parent=False), 2)[0].tolist()
        [[3, 0]]
    """
    codes, unknown = _majority(np.ascontiguousarray(values), table, factor, LEGEND.num_classes, UNKNOWN)
    return codes, int(unknown)
