"""Rasters as square tiles of a web map, read through overviews and never beyond a bounded number of pixels."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import morecantile
import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Interleaving
from rasterio.transform import from_bounds
from rasterio.warp import calculate_default_transform, transform_bounds
from rio_tiler.reader import part

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..rasters.opening import address, check_whole, file_version, read_failed, server_settings
from ..rasters.reading import GDAL_ERRORS
from .handles import HANDLES, check_there

#: Edge of a tile in pixels.
TILE = 256

#: Bytes that are decoded for one tile at most: a raster without overviews is not read from afar.
MAX_BYTES = 2**25

#: Deepest zoom of the tiles; a pixel is then 4 cm wide.
MAX_ZOOM = 22

Bounds = tuple[float, float, float, float]

_MATRIX = morecantile.tms.get('WebMercatorQuad')
_CRS = _MATRIX.rasterio_crs

#: Metres of the Web Mercator plane that a pixel of zoom 0 covers.
_ZOOM_0 = 2 * math.pi * 6_378_137 / TILE

#: Zooms beyond that of the raster's own pixels at which tiles are still made; later ones are enlarged by the browser.
_DEEPER = 2


#: By resampling: an overview may be coarser than the map by so much. Classes keep their detail (where no power of two
#: divides the size, factors are odd); images, whose bands are all decoded together, take half the time.
_COARSER = {'nearest': 1.02, 'bilinear': 2**0.5}


#: Warped straight to the pixels of the tile: left to itself, rio-tiler would warp the raster's own and thin them out.
#: With a band for validity, GDAL 3.12 warps the bands that are asked for; without it, all.
_WARP = {'width': TILE, 'height': TILE, 'nodata': None, 'add_alpha': True}


class Tile(NamedTuple):
    """A tile of the Web Mercator pyramid: zoom, column from the west, row from the north."""

    z: int
    x: int
    y: int

    @property
    def exists(self) -> bool:
        """Whether the pyramid has it.

        Examples:
            >>> Tile(1, 1, 0).exists, Tile(1, 2, 0).exists
            (True, False)
        """
        return 0 <= self.z <= MAX_ZOOM and 0 <= self.x < 2**self.z and 0 <= self.y < 2**self.z

    @property
    def bounds(self) -> Bounds:
        """Its bounds in metres of the Web Mercator plane (EPSG:3857)."""
        left, bottom, right, top = _MATRIX.xy_bounds(morecantile.Tile(self.x, self.y, self.z))
        return left, bottom, right, top


class _Facts(NamedTuple):
    """What the header of a raster says.

    Attributes:
        grid: Its pixels.
        width: Of a pixel on the Web Mercator plane, in metres.
        overviews: Factors of its overviews.
        depth: Bytes that are decoded for a pixel.
        bounds_wgs84: In degrees.
        bounds_mercator: In metres of the Web Mercator plane.
    """

    grid: PixelGrid
    width: float
    overviews: list[int]
    depth: int
    bounds_wgs84: Bounds
    bounds_mercator: Bounds


@lru_cache(maxsize=256)
def _facts(path: str, version: int) -> _Facts:
    """Read them; anew when the file changes."""
    check_there(path)
    check_whole(path)
    with HANDLES.borrow(path) as src:
        grid, overviews, depth = PixelGrid.of(src), list(src.overviews(1)), np.dtype(src.dtypes[0]).itemsize
        depth *= src.count if src.interleaving is Interleaving.pixel else 1
    try:
        transform = calculate_default_transform(grid.crs, _CRS, grid.width, grid.height, *grid.bounds())[0]
        bounds = [transform_bounds(grid.crs, crs, *grid.bounds()) for crs in ('EPSG:4326', _CRS)]
    except GDAL_ERRORS as e:
        raise LandcoverError(
            f'{address(path)} cannot be shown on a web map: no transformation leads from {grid.crs} there; '
            'warp it first (gdalwarp)'
        ) from e
    return _Facts(grid, float(transform.a), overviews, depth, *bounds)


@dataclass(frozen=True)
class TileSource:
    """One raster whose tiles are asked for.

    Args:
        path: As GDAL reads it.
        nodata: Value of pixels that are not shown; may be NaN.

    Raises:
        LandcoverError: On first use, if the file cannot be opened, is truncated, or has no CRS.
    """

    path: str
    nodata: float

    @property
    def _facts(self) -> _Facts:
        return _facts(self.path, self.version)

    @property
    def grid(self) -> PixelGrid:
        """The raster's own pixels."""
        return self._facts.grid

    @property
    def bounds_wgs84(self) -> Bounds:
        """West, south, east, north in degrees."""
        return self._facts.bounds_wgs84

    @property
    def own_zoom(self) -> int:
        """The first zoom at which a pixel of the map is no wider than one of the raster."""
        return min(max(math.ceil(math.log2(_ZOOM_0 / self._facts.width)), 0), MAX_ZOOM)

    @property
    def max_zoom(self) -> int:
        """The deepest zoom of tiles; those beyond would show nothing new."""
        return min(self.own_zoom + _DEEPER, MAX_ZOOM)

    @property
    def min_zoom(self) -> int:
        """The zoom from which a tile can be made of at most :data:`MAX_BYTES` bytes."""
        return next((z for z in range(self.own_zoom) if self._bytes(z) <= MAX_BYTES), self.own_zoom)

    def _bytes(self, zoom: int) -> float:
        """Bytes that are decoded for a tile, at most."""
        grid, factor = self.grid, self._factor(zoom)
        level = self._level(zoom)
        overview = 1 if level is None else self._facts.overviews[level]
        rows, cols = (min(TILE * factor, length) / overview for length in (grid.height, grid.width))
        return rows * cols * self._facts.depth

    def _factor(self, zoom: int) -> float:
        """Pixels of the raster along one pixel of the map."""
        return _ZOOM_0 / 2**zoom / self._facts.width

    def _level(self, zoom: int, resampling: str = 'nearest') -> int | None:
        """The coarsest overview that is fine enough for the map; None where the raster itself is needed."""
        fine = [n for n, o in enumerate(self._facts.overviews) if o <= self._factor(zoom) * _COARSER[resampling]]
        return max(fine, key=lambda n: self._facts.overviews[n], default=None)

    @property
    def version(self) -> int:
        """Changes when the file does."""
        return file_version(self.path)

    def meets(self, tile: Tile) -> bool:
        """Whether a tile shows some of the raster."""
        own, its = self._facts.bounds_mercator, tile.bounds
        return own[0] < its[2] and own[2] > its[0] and own[1] < its[3] and own[3] > its[1]

    def read(self, tile: Tile, indexes: list[int], *, resampling: str = 'nearest') -> NDArray[Any]:
        """Pixels of a tile, shape ``(bands, 256, 256)``; :attr:`nodata` outside the raster.

        Args:
            tile: At :attr:`min_zoom` or deeper.
            indexes: Bands, counted from 1.
            resampling: ``nearest`` or ``bilinear``, of the warp to Web Mercator.

        Raises:
            LandcoverError: If the file cannot be read there, or not without decoding too much of it.
        """
        if tile.z < self.min_zoom:
            raise LandcoverError(self.too_far)
        try:
            with server_settings(self.path), HANDLES.borrow(self.path, self._level(tile.z, resampling)) as src:
                image = part(
                    src,
                    tile.bounds,
                    dst_crs=_CRS,
                    indexes=[*indexes, src.count + 1],
                    nodata=self.nodata,
                    reproject_method=resampling,  # type: ignore[arg-type]
                    vrt_options=_WARP | {'transform': from_bounds(*tile.bounds, TILE, TILE)},
                    height=TILE,
                    width=TILE,
                )
        except GDAL_ERRORS as e:
            raise read_failed(self.path, e) from e
        *bands, valid = image.array.data
        return np.where(valid != 0, bands, np.array(self.nodata, dtype=image.array.dtype))

    @property
    def too_far(self) -> str:
        """Why the raster is not shown from afar, and what helps."""
        return (
            f'{self.name} is shown from zoom {self.min_zoom} on: it has no overviews, and smaller scales would read '
            f'too much of it; make some with gdaladdo -r {"mode" if self._facts.depth == 1 else "average"} {self.name}'
        )

    @property
    def name(self) -> str:
        """Name of the file."""
        return Path(self.path).name
