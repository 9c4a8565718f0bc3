"""Aggregating a fine label raster to the pixels of the image grid."""

import os
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..legend import LEGEND, NODATA, UNKNOWN
from .block_counts import count_blocks, share_blocks
from .opening import open_raster
from .reading import grid_of, pixels_across, read_onto, read_window, same_ground

Aggregation = Literal['mode', 'nearest', 'weighted']
AGGREGATIONS: tuple[Aggregation, ...] = ('mode', 'nearest', 'weighted')

#: Weights of ``weighted`` for classes that are often narrower than a pixel of 10 m, which a plain majority erases.
THIN_CLASSES = {LEGEND.code('isolated urban areas'): 1.5, LEGEND.code('transport network'): 1.5}

#: Slot in which values outside the legend are counted, behind those of the codes.
_UNKNOWN_SLOT = LEGEND.num_classes


class Labels(NamedTuple):
    """Labels on the pixels of a grid; arrays of uint8 and shape ``(height, width)``.

    Attributes:
        codes: Code of each pixel, 0 where less than half of it is labelled.
        purity: Percent of the pixel that its code covers, rounded down (100 is pure); 0 where there is no code.
        labelled: Percent of the pixel that has any code, rounded down.
        unknown: Label pixels that held values outside the legend.
    """

    codes: NDArray[np.uint8]
    purity: NDArray[np.uint8]
    labelled: NDArray[np.uint8]
    unknown: int = 0


def read_labels(
    path: str | os.PathLike[str],
    grid: PixelGrid,
    *,
    table: NDArray[np.uint8],
    aggregation: Aggregation = 'mode',
    class_weights: Mapping[int, float] | None = None,
) -> Labels:
    """Labels of one raster on the pixels of a grid.

    Where each pixel of the grid holds a whole number of label pixels (10 x 10 of 1 m in one of 10 m), they
    are counted exactly. Otherwise the raster is first warped (nearest) to about as many pixels in each pixel of
    the grid, and those are counted. Overviews are never used.

    Args:
        path: Label raster of any pixel size, in the CRS of the grid or another.
        grid: Where; may reach beyond the raster, which is no data there.
        table: Shape ``(256,)``: raster value to code, see :func:`~landcover_plugin.legend.lookup_table`.
        aggregation: See :func:`aggregate`.
        class_weights: Of ``weighted``, by code (default: :data:`THIN_CLASSES`); other classes have 1.
    """
    values, factor = read_fine(path, grid)
    return aggregate(values, table, factor, aggregation, class_weights)


def read_fine(path: str | os.PathLike[str], grid: PixelGrid) -> tuple[NDArray[np.uint8], int]:
    """Label values in pixels that are a whole number of times finer than a grid, and how many lie along one.

    Args:
        path: Label raster.
        grid: Where; may reach beyond the raster, which is no data there.

    Returns:
        Raster values, shape ``(grid.height * factor, grid.width * factor)``, and the factor.
    """
    src, own = open_raster(path), grid_of(path)
    factor = fine_factor(own, grid)
    if whole_factor(own, grid):
        raw = read_window(path, own.nearest_window(*grid.slices(grid.full)), indexes=[1], fill=NODATA)
    else:
        raw = read_onto(path, grid.refined(factor), resampling=Resampling.nearest, indexes=[1], fill=NODATA)
    return _as_uint8(raw[0], src.nodata), factor


def fine_factor(own: PixelGrid, grid: PixelGrid) -> int:
    """How many pixels are counted along one pixel of the grid: label pixels, or those they are warped to."""
    return whole_factor(own, grid) or round(pixels_across(own, grid)) // 2 * 2 + 1  # odd: one lies in the very centre


def whole_factor(own: PixelGrid, grid: PixelGrid) -> int:
    """How many label pixels lie along one pixel of the grid, 0 where that is no whole number."""
    factor = round(grid.res[0] / own.res[0])
    if factor < 1 or not same_ground(own.crs, grid.crs, grid.bounds()):
        return 0
    return factor if own.aligned_with(grid.refined(factor)) else 0


def _as_uint8(values: NDArray[Any], nodata: float | None) -> NDArray[np.uint8]:
    """Label values as bytes: declared nodata and NaN become 0, what is no code becomes unknown."""
    missing = np.isnan(values) if values.dtype.kind == 'f' else np.zeros((), dtype=bool)
    if nodata is not None and nodata != NODATA:
        missing = missing | (values == nodata)
    if values.dtype == np.uint8:
        return np.where(missing, np.uint8(NODATA), values) if missing.any() else values
    whole = (values >= 0) & (values < UNKNOWN) & (values == np.floor(values))
    return np.where(missing, NODATA, np.where(whole, values, UNKNOWN)).astype(np.uint8)


def aggregate(
    values: NDArray[np.uint8],
    table: NDArray[np.uint8],
    factor: int,
    aggregation: Aggregation = 'mode',
    class_weights: Mapping[int, float] | None = None,
) -> Labels:
    """One code for each block of ``factor`` x ``factor`` label pixels.

    * ``mode``: the code that covers most of the labelled part; no data where less than half is labelled.
    * ``weighted``: the same, with the cover of each class times its weight.
    * ``nearest``: the label pixel right of and below the centre.

    A tie goes to the lower code.

    Args:
        values: Shape ``(rows * factor, cols * factor)``, raster values.
        table: Shape ``(256,)``, raster value to code.
        factor: Label pixels along one output pixel.
        aggregation: Which of the three.
        class_weights: Of ``weighted``, by code (default: :data:`THIN_CLASSES`); other classes have 1.

    Examples:
        >>> from landcover_plugin.legend import lookup_table
        >>> values = np.array([[3, 3, 0, 0], [12, 3, 0, 4]], dtype=np.uint8)
        >>> labels = aggregate(values, lookup_table(parent=False), 2)
        >>> labels.codes.tolist(), labels.purity.tolist(), labels.labelled.tolist()
        ([[3, 0]], [[75, 0]], [[100, 25]])
    """
    return tally(values, table, factor, aggregation, class_weights)[0]


def tally(
    values: NDArray[np.uint8],
    table: NDArray[np.uint8],
    factor: int,
    aggregation: Aggregation = 'mode',
    class_weights: Mapping[int, float] | None = None,
) -> tuple[Labels, NDArray[np.int64]]:
    """What :func:`aggregate` gives, and what each method makes of the area of each class.

    Args:
        values: As in :func:`aggregate`.
        table: As in :func:`aggregate`.
        factor: As in :func:`aggregate`.
        aggregation: As in :func:`aggregate`.
        class_weights: As in :func:`aggregate`.

    Returns:
        The labels, and label pixels by code, shape ``(1 + methods, num_classes)``: in the raster itself, then after
        each of :data:`AGGREGATIONS`.
    """
    if aggregation not in AGGREGATIONS:
        raise LandcoverError(f'aggregation must be one of {", ".join(AGGREGATIONS)}, got {aggregation!r}')
    weights = code_weights(class_weights)
    if factor == 1:
        return _translated(values, table)
    shape = values.shape[0] // factor, values.shape[1] // factor
    codes, purity, labelled = (np.empty(shape, dtype=np.uint8) for _ in range(3))
    areas = np.zeros((1 + len(AGGREGATIONS), _UNKNOWN_SLOT + 1), dtype=np.int64)
    flat = np.ascontiguousarray(values).ravel()
    method = AGGREGATIONS.index(aggregation)
    slots, words = _slots_and_words(table)
    count_blocks(flat, values.shape[1], slots, words, factor, weights, method, codes, purity, labelled, areas)
    return Labels(codes, purity, labelled, int(areas[0, _UNKNOWN_SLOT])), areas[:, : LEGEND.num_classes]


def _translated(values: NDArray[np.uint8], table: NDArray[np.uint8]) -> tuple[Labels, NDArray[np.int64]]:
    """Labels of pixels that are those of the grid already: every method agrees."""
    codes = table[values]
    unknown = codes == UNKNOWN
    codes[unknown] = NODATA
    pure = (codes != NODATA) * np.uint8(100)
    areas = np.tile(np.bincount(codes.ravel(), minlength=LEGEND.num_classes), (1 + len(AGGREGATIONS), 1))
    areas[0, NODATA] -= (count := int(unknown.sum()))
    return Labels(codes, pure, pure.copy(), count), areas


def class_shares(values: NDArray[np.uint8], table: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Percent of each block that each class covers, rounded to whole percents.

    Args:
        values: Shape ``(rows * factor, cols * factor)``, raster values.
        table: Shape ``(256,)``, raster value to code.
        factor: Label pixels along one output pixel.

    Returns:
        Shape ``(classes, rows, cols)``, without no data.

    Examples:
        >>> from landcover_plugin.legend import lookup_table
        >>> values = np.array([[3, 3, 0, 0], [12, 3, 0, 4]], dtype=np.uint8)
        >>> shares = class_shares(values, lookup_table(parent=False), 2)
        >>> shares[2].tolist(), shares[3].tolist(), shares[11].tolist()
        ([[75, 0]], [[0, 25]], [[25, 0]])
    """
    rows, cols = values.shape[0] // factor, values.shape[1] // factor
    out = np.zeros((len(LEGEND.codes), rows, cols), dtype=np.uint8)
    if factor == 1:
        out[:] = (table[values][None] == np.array(LEGEND.codes)[:, None, None]) * np.uint8(100)
    else:
        share_blocks(np.ascontiguousarray(values).ravel(), values.shape[1], table, factor, out)
    return out


def code_weights(class_weights: Mapping[int, float] | None = None) -> NDArray[np.float64]:
    """Weights of the codes for ``weighted``, shape ``(num_classes,)``.

    Args:
        class_weights: By code (default: :data:`THIN_CLASSES`); other classes have 1.

    Raises:
        LandcoverError: If a code or a weight is none.
    """
    weights = np.ones(LEGEND.num_classes)
    for code, weight in (THIN_CLASSES if class_weights is None else class_weights).items():
        if code not in LEGEND.codes or not 0 < weight < np.inf:
            raise LandcoverError(f'weights are numbers > 0 for codes 1 to {LEGEND.codes[-1]}, got {code}={weight}')
        weights[code] = weight
    return weights


def _slots_and_words(table: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """For each raster value its slot, and what it adds to the two words of eight 8-bit counters each."""
    slots = np.where(table == UNKNOWN, _UNKNOWN_SLOT, table).astype(np.uint8)
    words = np.zeros((256, 2), dtype=np.uint64)
    words[np.arange(256), slots // 8] = np.uint64(1) << (8 * (slots % 8)).astype(np.uint64)
    return slots, words
