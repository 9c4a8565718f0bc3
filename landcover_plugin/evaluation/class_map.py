"""A class map as a stream of strips of codes, and what it holds: pixels, hectares, zones, a digest."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA, PARENTS, UNKNOWN, lookup_table
from ..rasters.landcover import SourceLegend, sample_values
from ..rasters.opening import address, check_whole, open_raster
from ..rasters.outputs import PathLike
from ..rasters.pixel_size import HECTARE, pixel_areas
from ..rasters.reading import read_window
from ..rasters.streaming import in_order
from .zones import Zones, pixels_inside

#: Pixels that are read at a time: memory does not grow with the map.
STRIP_PIXELS = 16_000_000

#: What GDAL may keep of decoded blocks, in bytes; its default is a twentieth of the memory of the machine.
CACHE_BYTES = 64_000_000

log = logging.getLogger(__name__)


class ClassMap:
    """A raster of codes, read in strips of rows.

    Args:
        path: GeoTIFF or any raster of GDAL; its first band holds the 12 codes, or the 41 MCSC values.
        source_legend: Values in the file, as in :class:`~landcover_plugin.rasters.landcover.LabelRasters`.
        aoi: Ground beside this polygon (in the CRS of the raster) counts as no data.

    Raises:
        LandcoverError: If the raster cannot be opened, is truncated, has no CRS, or does not hold whole numbers.
    """

    def __init__(
        self, path: PathLike, *, source_legend: SourceLegend = '12', aoi: shapely.Geometry | None = None
    ) -> None:
        self.path, self.aoi = path, aoi
        src = open_raster(path)
        check_whole(path)
        self.grid = PixelGrid.of(src)
        if src.dtypes[0] != 'uint8':
            raise LandcoverError(f'{address(path)} is no class map: its pixels are {src.dtypes[0]}, not uint8')
        self.table = class_table(path, source_legend)
        nodata = src.nodata
        if nodata is not None and nodata != NODATA and 0 <= nodata <= 255:
            self.table = self.table.copy()
            self.table[int(nodata)] = NODATA

    @property
    def name(self) -> str:
        """Name of the file."""
        return Path(self.path).name

    @cached_property
    def row_areas(self) -> NDArray[np.float64]:
        """Hectares of a pixel of each row, shape ``(height,)``."""
        return pixel_areas(self.grid) / HECTARE

    def strips(self) -> list[PixelWindow]:
        """Windows over the full width that cover the map from north to south."""
        height, width = self.grid.height, self.grid.width
        rows, block = max(STRIP_PIXELS // width, 1), open_raster(self.path).block_shapes[0][0]
        if rows > block:  # no block is decoded for two strips
            rows -= rows % block
        return [PixelWindow(row, 0, min(rows, height - row), width) for row in range(0, height, rows)]

    def read(self, window: PixelWindow) -> NDArray[np.uint8]:
        """Codes of a window, 0 outside the area of interest.

        Raises:
            LandcoverError: If the raster cannot be read, or holds a value that is no class.
        """
        return self.within_aoi(self.read_everything(window), window)

    def read_everything(self, window: PixelWindow) -> NDArray[np.uint8]:
        """Codes of a window, also beside the area of interest."""
        values = read_window(self.path, window, indexes=[1], fill=NODATA)[0]
        codes = self.table[values]
        if (codes == UNKNOWN).any():
            value = int(values[codes == UNKNOWN].min())
            raise LandcoverError(
                f'{address(self.path)} holds the value {value}, which is no class: codes are 0 to {LEGEND.codes[-1]}'
            )
        return codes

    def within_aoi(self, codes: NDArray[np.uint8], window: PixelWindow) -> NDArray[np.uint8]:
        """The codes with no data beside the area of interest."""
        if self.aoi is None:
            return codes
        return np.where(pixels_inside(self.aoi, self.grid, window), codes, np.uint8(NODATA))


@dataclass(frozen=True, eq=False)
class MapCounts:
    """What a map holds.

    Attributes:
        strips: Pixels of each code in each strip, shape ``(strips, num_classes)``.
        areas: Hectares of each code, shape ``(num_classes,)``; no data is 0.
        zone_pixels: Pixels of each code in each zone, shape ``(zones, num_classes)``.
        zone_areas: Hectares of each code in each zone, likewise.
        digest: SHA-256 of the grid and of all codes, also of those beside the area of interest: two maps with the same
            digest are the same map, however they are stored.
    """

    strips: NDArray[np.int64]
    areas: NDArray[np.float64]
    zone_pixels: NDArray[np.int64]
    zone_areas: NDArray[np.float64]
    digest: str

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Pixels of each code, shape ``(num_classes,)``."""
        return self.strips.sum(0)


def count(
    source: ClassMap, zones: Zones | None = None, *, desc: str = 'counting the map', progress: bool = True
) -> MapCounts:
    """Pixels and hectares of each class, in one pass over the map.

    Args:
        source: The map.
        zones: Also count within these.
        desc: Name on the progress bar.
        progress: Show it, where stderr is a terminal.

    Raises:
        LandcoverError: If the map cannot be read or holds no class at all.
    """
    zones = zones or Zones([], np.array([], dtype=object))
    shape = len(zones.names), LEGEND.num_classes
    zone_pixels, zone_areas = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    areas, strips = np.zeros(LEGEND.num_classes), []
    digest = hashlib.sha256(grid_text(source.grid).encode())
    work = _strip_counter(source, zones)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        for everything, by_row, row_areas, in_zones in in_order(work, source.strips(), desc=desc, progress=progress):
            digest.update(everything)
            strips.append(by_row.sum(0))
            areas += row_areas @ by_row
            for number, pixels, hectares in in_zones:
                zone_pixels[number] += pixels
                zone_areas[number] += hectares
    for array in (areas, zone_areas, zone_pixels):
        array[..., NODATA] = 0
    counts = MapCounts(np.array(strips), areas, zone_pixels, zone_areas, digest.hexdigest())
    if not counts.pixels[NODATA + 1 :].any():
        where = 'in the area of interest' if source.aoi is not None else 'at all'
        raise LandcoverError(f'{address(source.path)} holds no class {where}: every pixel is no data')
    return counts


_ZoneCounts = list[tuple[int, NDArray[np.int64], NDArray[np.float64]]]
_StripCounts = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64], _ZoneCounts]


def _strip_counter(source: ClassMap, zones: Zones) -> Callable[[PixelWindow], _StripCounts]:
    def work(window: PixelWindow) -> _StripCounts:
        everything = source.read_everything(window)
        codes = source.within_aoi(everything, window)
        rows = source.row_areas[window.row : window.row_stop]
        in_zones = []
        for number, part, mask in zones.inside(source.grid, window):
            by_row = _by_row(np.where(mask, codes[part.slices_in(window)], np.uint8(NODATA)))
            in_zones.append((number, by_row.sum(0), source.row_areas[part.row : part.row_stop] @ by_row))
        return np.ascontiguousarray(everything), _by_row(codes), rows, in_zones

    return work


def _by_row(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels of each code in each row, shape ``(rows, num_classes)``."""
    return np.stack([np.bincount(row, minlength=LEGEND.num_classes) for row in codes])


def grid_text(grid: PixelGrid) -> str:
    """CRS, origin, pixel size and shape as text."""
    return f'{grid.crs.to_string()} {tuple(grid.transform)[:6]} {grid.height} x {grid.width}'


def class_table(path: PathLike, source_legend: SourceLegend) -> NDArray[np.uint8]:
    """Table from the values of a raster to codes; ``auto`` tells the 12 codes from the 41 MCSC values by a sample."""
    parent = source_legend == '41'
    if source_legend == 'auto':
        values = sample_values(path)
        parent = bool(((values > LEGEND.codes[-1]) & (values <= len(PARENTS))).any())
        if parent:
            log.info('%s is taken to hold the 41 MCSC values, which become the 12 classes', address(path))
    return lookup_table(parent)
