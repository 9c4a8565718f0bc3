"""A class map as polygons: streamed tile by tile, exact, without gaps, in memory that does not grow with the map."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..rasters.pixel_size import metres_per_unit
from ..rasters.streaming import in_order
from .pieces import Pieces, Tile, read_tile
from .stitching import Stitcher
from .tiled_map import TiledMap

#: Edge of a tile in pixels.
TILE = 1024

#: Vertices that one polygon may have; 16 bytes each in the file.
MAX_VERTICES = 1_000_000

log = logging.getLogger(__name__)


class Polygons(NamedTuple):
    """Some polygons with their attributes, ready to be written; arrays of one length.

    Args:
        geometry: In the CRS of the map, as well-known binary; shells run counterclockwise.
        codes: Class.
        regions: Number of the region: its first pixel, counted in rows from the upper left.
        pixels: Pixels of the map.
        areas: Their area in square metres.
        perimeters: Length of the outline in metres with that of holes, NaN in degrees.
        confidence: Mean confidence of the pixels, NaN where it is unknown.
    """

    geometry: NDArray[Any]
    codes: NDArray[np.uint8]
    regions: NDArray[np.int64]
    pixels: NDArray[np.int64]
    areas: NDArray[np.float64]
    perimeters: NDArray[np.float64]
    confidence: NDArray[np.float64]


def polygons_of(
    source: TiledMap,
    folder: Path,
    *,
    simplify: float | None = None,
    tile: int = TILE,
    max_vertices: int = MAX_VERTICES,
    progress: bool = True,
) -> Iterator[Polygons]:
    """The regions of a class map as polygons, a batch at a time.

    Without simplification neither the polygons nor their attributes depend on the size of tiles, only their
    order does; rasterised, they give the map back.

    Args:
        source: The map.
        folder: Where a temporary file may go: the outlines of regions that tiles cut.
        simplify: Metres, see :func:`~landcover_plugin.mapping.pieces.simplified`; None for outlines of whole pixels.
            Where a border crosses the edge of a tile, a vertex stays.
        tile: Edge of a tile in pixels.
        max_vertices: Of one polygon; a region that needs more stays cut at the edges of tiles.
        progress: Show progress bars.

    Raises:
        LandcoverError: If the map cannot be read, or holds no class.
        OSError: If the disk is full.
    """
    tiles = source.tiles(tile)
    ready = partial(_ready, grid=source.grid)
    found = False

    def size(key: tuple[int, int]) -> int:
        return tiles[key].height * tiles[key].width

    def outlined(key: tuple[int, int]) -> tuple[Tile, Polygons]:
        read = read_tile(source, key, tiles, simplify=simplify)
        return read, ready(read.closed)

    with Stitcher(folder, source.grid.width, max_vertices=max_vertices) as stitcher:
        for read, closed in in_order(
            outlined, list(tiles), desc='outlines', unit='px', size_of=size, progress=progress
        ):
            stitcher.add(read)
            found |= bool(len(closed.codes)) or bool(len(read.pieces.codes))
            yield closed
        if not found:
            raise LandcoverError(f'{source.path} holds no class in the area: all its pixels are no data')
        stitched = stitcher.finish()
        cut = 0
        for pieces in stitched.cut():
            cut += len(pieces.codes)
            yield ready(pieces)
        if cut:
            log.warning(
                'warning: regions with more than %s vertices stay in pieces, %s in all; pieces of one region have one '
                'number in the column region', f'{max_vertices:,}', f'{cut:,}',
            )  # fmt: skip
        yield from in_order(
            lambda batch: ready(stitched.joined(batch)),
            stitched.batches(),
            desc='regions over tiles',
            unit='batch',
            progress=progress,
        )


def _ready(pieces: Pieces, grid: PixelGrid) -> Polygons:
    """Polygons in the CRS, in their normal form but for the direction, with their attributes."""
    t = grid.transform
    placed = shapely.transform(pieces.polygons, lambda xy: xy * (t.a, t.e) + (t.c, t.f))
    placed = shapely.reverse(shapely.normalize(placed))  # the normal form has clockwise shells
    unit = metres_per_unit(grid) if grid.crs.is_projected else np.nan
    with np.errstate(invalid='ignore'):
        mean = pieces.confidence / np.where(pieces.known > 0, pieces.known, np.nan)
    return Polygons(
        np.asarray(shapely.to_wkb(placed), dtype=object),
        pieces.codes,
        pieces.firsts,
        pieces.pixels,
        pieces.areas,
        shapely.length(placed) * unit,
        mean,
    )
