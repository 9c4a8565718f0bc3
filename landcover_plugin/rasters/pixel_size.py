"""How much ground a pixel covers: metres and square metres."""

import logging
import math

import numpy as np
import pyproj
import rasterio.warp
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid

#: Square metres.
HECTARE = 10_000.0

#: A projection that stretches areas by more than this is told.
_STRETCH = 0.01

log = logging.getLogger(__name__)


def pixel_areas(grid: PixelGrid) -> NDArray[np.float64]:
    """Area of a pixel of each row in square metres, shape ``(grid.height,)``.

    In a projected CRS, that of the square in its plane; in degrees, that of the cell on the ellipsoid, exact (Snyder
    1987, https://doi.org/10.3133/pp1395, equation 3-12).

    Raises:
        LandcoverError: If the CRS is neither projected nor geographic.

    Examples:
        >>> from affine import Affine
        >>> from rasterio.crs import CRS
        >>> utm = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 400000, 0, -10, 4600000), 2, 3)
        >>> pixel_areas(utm).tolist()
        [100.0, 100.0]
        >>> world = PixelGrid(CRS.from_epsg(4326), Affine(1, 0, -180, 0, -1, 90), 180, 360)
        >>> f'{360 * pixel_areas(world).sum() / 1e6:,.0f} km2'
        '510,065,622 km2'
    """
    if grid.crs.is_geographic:
        return _cells_on_ellipsoid(grid)
    if not grid.crs.is_projected:
        raise LandcoverError(f'areas need a projected CRS or degrees, got {grid.crs}: warp the map (gdalwarp -t_srs)')
    return np.full(grid.height, projected_pixel_area(grid))


def _cells_on_ellipsoid(grid: PixelGrid) -> NDArray[np.float64]:
    a, b = (figure := ellipsoid(grid)).a, figure.b
    degree = grid.crs.units_factor[1]  # radians
    edges = (grid.origin[1] - np.arange(grid.height + 1) * grid.res[1]) * degree
    sine = np.sin(np.clip(edges, -math.pi / 2, math.pi / 2))
    if math.isclose(a, b):
        zone = a * a * sine
    else:
        e = math.sqrt(1 - (b / a) ** 2)
        zone = b * b / 2 * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
    return -np.diff(zone) * grid.res[0] * degree


def projected_pixel_area(grid: PixelGrid) -> float:
    """Area of a pixel of a projected CRS in its plane, in square metres."""
    return math.prod(grid.res) * metres_per_unit(grid) ** 2


def metres_per_unit(grid: PixelGrid) -> float:
    """Metres in a unit of a projected CRS."""
    return float(grid.crs.linear_units_factor[1])


def pixel_metres(grid: PixelGrid) -> tuple[float, float]:
    """Width and height of a pixel in metres; in degrees, in the middle row on a sphere of the larger radius."""
    xres, yres = grid.res
    if grid.crs.is_projected:
        return xres * metres_per_unit(grid), yres * metres_per_unit(grid)
    radius = ellipsoid(grid).a
    middle = grid.origin[1] - grid.height / 2 * yres
    return math.radians(xres) * radius * math.cos(math.radians(middle)), math.radians(yres) * radius


def ellipsoid(grid: PixelGrid) -> pyproj.Geod:
    """The ellipsoid of a CRS."""
    found = pyproj.CRS.from_wkt(grid.crs.to_wkt()).get_geod()
    if found is None:
        raise LandcoverError(f'the CRS {grid.crs} has no ellipsoid: warp the map (gdalwarp -t_srs)')
    return found


def warn_of_stretch(grid: PixelGrid) -> None:
    """Tell if the projection stretches areas noticeably in the middle of a grid, as Web Mercator does."""
    if grid.crs.is_geographic:
        return
    xmin, ymin, xmax, ymax = grid.bounds()
    (lon,), (lat,) = rasterio.warp.transform(grid.crs, 'EPSG:4326', [(xmin + xmax) / 2], [(ymin + ymax) / 2])[:2]
    scale = pyproj.Proj(grid.crs.to_wkt()).get_factors(lon, lat).areal_scale
    if math.isfinite(scale) and abs(scale - 1) > _STRETCH:
        log.warning(
            'warning: the projection of the map stretches areas by %+.1f %% in its middle: hectares here are those of '
            'the projection; warp the map to an equal-area CRS or to UTM for true ones', 100 * (scale - 1)
        )  # fmt: skip
