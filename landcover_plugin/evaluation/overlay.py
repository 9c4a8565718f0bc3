"""Two maps on one grid, tile by tile."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.warp import transform_bounds

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA
from ..rasters.labels import Aggregation, fine_factor, read_labels
from ..rasters.landcover import SourceLegend
from ..rasters.opening import address, check_whole, open_raster
from ..rasters.outputs import PathLike
from ..rasters.pixel_size import HECTARE, pixel_areas
from ..rasters.reading import GDAL_ERRORS, same_ground
from ..rasters.streaming import in_order
from .class_map import CACHE_BYTES, class_table
from .zones import pixels_inside

#: Tiles are a multiple of this, the tile of the change raster.
TILE = 512

#: Pixels of the finer raster that are read at a time.
_AT_ONCE = 32_000_000

log = logging.getLogger(__name__)


class Tile(NamedTuple):
    """Codes of both maps in a window of the common grid, shape ``(height, width)``."""

    window: PixelWindow
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    unknown: int


class Overlay:
    """Two class maps on the pixels that the first has where the second lies.

    The second map is brought to the grid of the first: where its pixels are finer, by majority or the pixel at the
    centre; where they are not, by the nearest pixel.

    Args:
        first: Class map.
        second: Class map or label raster, in any CRS and on any grid.
        legends: Values of both: ``12``, ``41`` or ``auto``.
        aggregation: How finer pixels become one.
        aoi: Polygon in the CRS of the first map: only this ground counts.

    Attributes:
        grid: The common pixels.

    Raises:
        LandcoverError: If a raster cannot be opened or has no CRS, or both share no ground.
    """

    def __init__(
        self,
        first: PathLike,
        second: PathLike,
        *,
        legends: tuple[SourceLegend, SourceLegend] = ('auto', 'auto'),
        aggregation: Aggregation = 'mode',
        aoi: shapely.Geometry | None = None,
    ) -> None:
        self.paths, self.aggregation, self.aoi = (first, second), aggregation, aoi
        for path in self.paths:
            check_whole(path)
        own, other = (PixelGrid.of(open_raster(path)) for path in self.paths)
        self.tables = tuple(class_table(path, legend) for path, legend in zip(self.paths, legends, strict=True))
        self.grid = own.subgrid(_common_window(own, other, self.paths))
        self.factor = fine_factor(other, self.grid)
        if other.crs.is_geographic == own.crs.is_geographic and other.res[0] > 1.5 * own.res[0]:
            log.warning(
                'warning: the pixels of %s are larger than those of %s: name the coarser map first, or their size is '
                'counted as difference', address(second), address(first)
            )  # fmt: skip

    def tiles(self) -> list[PixelWindow]:
        """Windows that cover the common grid."""
        side = min(max(int(math.sqrt(_AT_ONCE) / self.factor) // TILE, 1) * TILE, 4 * TILE)
        height, width = self.grid.height, self.grid.width
        return [
            PixelWindow(row, col, min(side, height - row), min(side, width - col))
            for row in range(0, height, side)
            for col in range(0, width, side)
        ]

    def read(self, window: PixelWindow) -> Tile:
        """Codes of both maps in a window; 0 where either is beside the area of interest.

        Raises:
            LandcoverError: If a raster cannot be read.
        """
        found = []
        for path, table in zip(self.paths, self.tables, strict=True):
            try:
                found.append(read_labels(path, self.grid.subgrid(window), table=table, aggregation=self.aggregation))
            except GDAL_ERRORS as e:
                raise LandcoverError(f'{address(path)} cannot be read ({e})') from e
        first, second = found
        unknown = first.unknown + second.unknown
        if self.aoi is None:
            return Tile(window, first.codes, second.codes, unknown)
        inside = pixels_inside(self.aoi, self.grid, window)
        return Tile(window, first.codes * inside, second.codes * inside, unknown)


def _common_window(own: PixelGrid, other: PixelGrid, paths: tuple[PathLike, PathLike]) -> PixelWindow:
    bounds = other.bounds()
    if not same_ground(other.crs, own.crs, own.bounds()):
        bounds = transform_bounds(other.crs, own.crs, *bounds, densify_pts=201)
    if all(map(math.isfinite, bounds)):
        window = own.window(bounds).intersection(own.full)
        if not window.is_empty:
            return window
    raise LandcoverError(
        f'{address(paths[0])} and {address(paths[1])} do not overlap: the first covers {_told(own.bounds())} and the '
        f'second {_told(bounds)} in {own.crs}; check their CRSs'
    )


def _told(bounds: tuple[float, ...]) -> list[float]:
    return [round(v, 3) for v in bounds]


@dataclass(frozen=True, eq=False)
class Transitions:
    """How often each class of the first map is each class of the second.

    Attributes:
        pixels: Shape ``(num_classes, num_classes)``, the first map in rows; with no data.
        areas: The same in hectares.
    """

    pixels: NDArray[np.int64]
    areas: NDArray[np.float64]

    @property
    def compared(self) -> int:
        """Pixels that have a class in both maps."""
        return int(self.pixels[NODATA + 1 :, NODATA + 1 :].sum())


def transitions(overlay: Overlay, write: Callable[[Tile], None] | None = None, *, progress: bool = True) -> Transitions:
    """Count the transitions, in one pass.

    Args:
        overlay: Both maps.
        write: Called with each tile, in order.
        progress: Show a progress bar, where stderr is a terminal.

    Raises:
        LandcoverError: If a raster cannot be read, or no pixel has a class in both maps.
    """
    k = LEGEND.num_classes
    pixels, areas, unknown = np.zeros((k, k), dtype=np.int64), np.zeros((k, k)), 0
    row_areas = pixel_areas(overlay.grid) / HECTARE
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        for tile in in_order(overlay.read, overlay.tiles(), desc='comparing', unit='tile', progress=progress):
            pairs = tile.first.astype(np.int64) * k + tile.second
            by_row = np.stack([np.bincount(row, minlength=k * k) for row in pairs])
            pixels += by_row.sum(0).reshape(k, k)
            areas += (row_areas[tile.window.row : tile.window.row_stop] @ by_row).reshape(k, k)
            unknown += tile.unknown
            if write is not None:
                write(tile)
    if unknown:
        log.warning('warning: %d pixels hold values outside the legend and count as no data', unknown)
    found = Transitions(pixels, areas)
    if not found.compared:
        where = ' within the area of interest' if overlay.aoi is not None else ''
        raise LandcoverError(
            f'{address(overlay.paths[0])} and {address(overlay.paths[1])} share no pixel with a class in both{where}'
        )
    return found
