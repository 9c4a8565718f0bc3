"""Pieces of regions: what one tile of a map holds, with what each piece counts."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import shapely
from numpy.typing import NDArray

from ..grid import PixelGrid, PixelWindow
from ..legend import NODATA
from ..rasters.pixel_size import pixel_areas, pixel_metres
from .outlines import find_regions, outlines, straight_corners
from .tiled_map import TiledMap


class Pieces(NamedTuple):
    """Regions, or the parts of them that lie in one tile; arrays of one length.

    Args:
        polygons: In pixels of the whole map: x is the column, y the row.
        codes: Class.
        firsts: First pixel, counted in rows of the whole map.
        pixels: Number of pixels.
        areas: Square metres of the pixels.
        confidence: Sum of the confidence of the pixels where it is known.
        known: Number of these pixels.
    """

    polygons: NDArray[Any]
    codes: NDArray[np.uint8]
    firsts: NDArray[np.int64]
    pixels: NDArray[np.int64]
    areas: NDArray[np.float64]
    confidence: NDArray[np.float64]
    known: NDArray[np.int64]

    def where(self, chosen: NDArray[Any] | slice) -> Self:
        """Some of them."""
        columns: list[Any] = [values[chosen] for values in self]
        return type(self)(*columns)


@dataclass(frozen=True, eq=False)
class Tile:
    """What a tile holds.

    Args:
        key: Row and column among the tiles.
        closed: Regions that end within the tile.
        pieces: Parts of regions that may go on beyond it.
        sides: Along each side at which another tile follows (``top``, ``bottom``, ``left``, ``right``), which of
            ``pieces`` a pixel belongs to, -1 for no data.
        corners: Corners of pixels on the rim through which a border of two regions passes straight, counted in rows
            of the corners of the whole map.
    """

    key: tuple[int, int]
    closed: Pieces
    pieces: Pieces
    sides: dict[str, NDArray[np.int64]]
    corners: NDArray[np.int64]


#: Sides of a tile: the next tile there, and the pixels along it.
SIDES: dict[str, tuple[tuple[int, int], Any]] = {
    'top': ((-1, 0), np.s_[0, :]),
    'bottom': ((1, 0), np.s_[-1, :]),
    'left': ((0, -1), np.s_[:, 0]),
    'right': ((0, 1), np.s_[:, -1]),
}


def read_tile(
    source: TiledMap, key: tuple[int, int], tiles: dict[tuple[int, int], PixelWindow], *, simplify: float | None
) -> Tile:
    """Read and outline one tile.

    Args:
        source: The map.
        key: Of the tile.
        tiles: All windows by row and column.
        simplify: Metres, see :func:`simplified`; None leaves the outlines as they are.
    """
    window = tiles[key]
    around = source.codes_around(window)
    codes = around[1:-1, 1:-1].astype(np.uint8)
    labels, firsts = find_regions(codes)
    polygons = outlines(labels, around)
    if simplify is not None:
        polygons = simplified(polygons, simplify, pixel_metres(source.grid))
    polygons = shapely.transform(polygons, lambda xy: xy + np.array([window.col, window.row]))
    found = _count(source, window, labels, firsts, polygons, codes.ravel()[firsts])
    seams = {name: at for name, (step, at) in SIDES.items() if (key[0] + step[0], key[1] + step[1]) in tiles}
    is_open = np.zeros(len(firsts), dtype=np.bool_)
    for at in seams.values():
        is_open[labels[at]] = True
    is_class = found.codes != NODATA
    numbers = np.where(is_class & is_open, np.cumsum(is_class & is_open) - 1, -1)
    return Tile(
        key,
        found.where(is_class & ~is_open),
        found.where(is_class & is_open),
        {name: numbers[labels[at]] for name, at in seams.items()},
        _rim_corners(around, window, source.grid),
    )


def _count(
    source: TiledMap,
    window: PixelWindow,
    labels: NDArray[np.int32],
    firsts: NDArray[np.int64],
    polygons: NDArray[Any],
    codes: NDArray[np.uint8],
) -> Pieces:
    """The regions of a window with what each counts; the first pixel is counted in the whole map."""
    flat, size = labels.ravel(), len(firsts)
    weights = np.repeat(pixel_areas(source.grid.subgrid(window)), window.width)
    confidence, known = np.zeros(size), np.zeros(size, dtype=np.int64)
    if (layer := source.confidence_in(window)) is not None:
        values, valid = layer
        known = np.bincount(labels[valid], minlength=size)
        confidence = np.bincount(labels[valid], weights=values[valid], minlength=size)
    rows, cols = np.divmod(firsts, window.width)
    return Pieces(
        polygons,
        codes,
        firsts=(window.row + rows) * source.grid.width + window.col + cols,
        pixels=np.bincount(flat, minlength=size),
        areas=np.bincount(flat, weights=weights, minlength=size),
        confidence=confidence,
        known=known,
    )


def _rim_corners(around: NDArray[np.int16], window: PixelWindow, grid: PixelGrid) -> NDArray[np.int64]:
    straight = straight_corners(around)
    straight[1:-1, 1:-1] = False
    rows, cols = np.nonzero(straight)
    return corner_numbers(rows + window.row, cols + window.col, grid.width)


def corner_numbers(rows: NDArray[Any], cols: NDArray[Any], width: int) -> NDArray[np.int64]:
    """One number for each corner of a pixel, counted in rows, of a map of this width."""
    return np.asarray(rows).astype(np.int64) * (width + 1) + np.asarray(cols).astype(np.int64)


def simplified(polygons: NDArray[Any], tolerance: float, size: tuple[float, float]) -> NDArray[Any]:
    """Outlines with fewer vertices: each common border is simplified once, so there are no gaps and no overlaps.

    The coverage is simplified by Visvalingam and Whyatt's method with the topology kept (GEOS CoverageSimplifier);
    its outer rim and places where three regions meet stay. Vertices that are left are vertices of the original.

    Args:
        polygons: A coverage in pixels.
        tolerance: Metres; about the square root of the area of the triangles that are cut away.
        size: Width and height of a pixel in metres.
    """
    metres = shapely.transform(polygons, lambda xy: xy * size)
    fewer = shapely.coverage_simplify(metres, tolerance, simplify_boundary=False)
    return shapely.transform(fewer, lambda xy: np.rint(xy / size))
