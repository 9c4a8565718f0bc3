"""What lies at a point: coordinates, reflectance of each month, classes and their probabilities."""

import math
from typing import Any

import rasterio.warp

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA, UNKNOWN
from ..rasters.layers import PERCENT_NODATA
from ..rasters.mosaics import Mosaics, to_reflectance
from ..rasters.reading import GDAL_ERRORS, read_window
from .layers import ClassLayer, PercentLayer
from .scene import Scene


def at(scene: Scene, lon: float, lat: float) -> dict[str, Any]:
    """All that the files say about a point, as JSON.

    Args:
        scene: The files.
        lon: Longitude in degrees (WGS84).
        lat: Latitude.

    Raises:
        LandcoverError: If the point is nowhere, or a file cannot be read.
    """
    if not (-180 <= lon <= 180 and -90 < lat < 90):
        raise LandcoverError(f'a point lies in [-180, 180] x (-90, 90) degrees, got {lon}, {lat}')
    return {
        'lon': lon,
        'lat': lat,
        'place': _place(_reference(scene), lon, lat),
        'spectra': _spectra(scene, scene.mosaics, lon, lat) if scene.mosaics else [],
        'classes': [_class(layer, lon, lat) for layer in scene.layers.values() if isinstance(layer, ClassLayer)],
        'percents': [_percent(layer, lon, lat) for layer in scene.layers.values() if isinstance(layer, PercentLayer)],
    }


def _reference(scene: Scene) -> PixelGrid:
    """The grid whose pixels are counted: that of the image, else of the first layer."""
    return scene.mosaics.grid if scene.mosaics else next(iter(scene.layers.values())).sources[0].grid


def position(grid: PixelGrid, lon: float, lat: float) -> tuple[float, float]:
    """A point in the CRS of a grid.

    Raises:
        LandcoverError: If the CRS has no place for it.
    """
    try:
        (x,), (y,) = rasterio.warp.transform('EPSG:4326', grid.crs, [lon], [lat])[:2]
    except GDAL_ERRORS as e:
        raise LandcoverError(f'{lon}, {lat} has no place in {grid.crs}: choose a point on the map') from e
    if not (math.isfinite(x) and math.isfinite(y)):
        raise LandcoverError(f'{lon}, {lat} has no place in {grid.crs}: choose a point on the map')
    return x, y


def pixel(grid: PixelGrid, x: float, y: float) -> PixelWindow:
    """The pixel of a grid, perhaps beyond its edges, in which a point of its CRS lies."""
    (x0, y0), (xres, yres) = grid.origin, grid.res
    return PixelWindow(math.floor((y0 - y) / yres), math.floor((x - x0) / xres), 1, 1)


def _pixel_at(grid: PixelGrid, lon: float, lat: float) -> PixelWindow | None:
    """The pixel at a point, None beyond the edges."""
    window = pixel(grid, *position(grid, lon, lat))
    return window if not window.intersection(grid.full).is_empty else None


def _place(grid: PixelGrid, lon: float, lat: float) -> dict[str, Any]:
    """Coordinates in the CRS of the files, and the pixel there with its outline in degrees."""
    x, y = position(grid, lon, lat)
    window = pixel(grid, x, y)
    xmin, ymin, xmax, ymax = grid.bounds(window)
    corners = [(xmin, ymin), (xmin, ymax), (xmax, ymax), (xmax, ymin)]
    lons, lats = rasterio.warp.transform(grid.crs, 'EPSG:4326', *zip(*corners, strict=True))[:2]
    return {
        'crs': grid.crs.to_string() if grid.crs.to_epsg() is None else f'EPSG:{grid.crs.to_epsg()}',
        'x': x,
        'y': y,
        'units': 'degrees' if grid.crs.is_geographic else grid.crs.linear_units,
        'inside': not window.intersection(grid.full).is_empty,
        'row': window.row,
        'col': window.col,
        'outline': list(zip(lats, lons, strict=True)),
    }


def _spectra(scene: Scene, mosaics: Mosaics, lon: float, lat: float) -> list[dict[str, Any]]:
    """Reflectance of each month by band; None where it was not measured."""
    window = _pixel_at(mosaics.grid, lon, lat)
    spectra = []
    for number, date in enumerate(mosaics.dates):
        values: dict[str, float] | None = None
        if window is not None:
            image, valid = mosaics.read(mosaics.grid.subgrid(window), number)
            if valid.all():
                scaled = to_reflectance(image, valid, scale=scene.reflectance_scale, offset=scene.reflectance_offset)
                values = {b: round(float(v), 5) for b, v in zip(mosaics.bands, scaled[:, 0, 0], strict=True)}
        layer = scene.layers[f'image-{date}']
        spectra.append({'layer': layer.id, 'name': layer.name, 'reflectance': values})
    return spectra


def _class(layer: ClassLayer, lon: float, lat: float) -> dict[str, Any]:
    """Code of a layer at a point; 0 where it has none."""
    code = NODATA
    for source, table in zip(layer.sources, layer.tables, strict=True):
        window = _pixel_at(source.grid, lon, lat)
        if code == NODATA and window is not None:
            found = int(table[read_window(source.path, window, indexes=[1], fill=NODATA)[0, 0, 0]])
            code = NODATA if found == UNKNOWN else found
    return {'layer': layer.id, 'kind': layer.kind, 'name': layer.name, 'code': code}


def _percent(layer: PercentLayer, lon: float, lat: float) -> dict[str, Any]:
    """Percentages of a layer at a point: of each class, or one; empty where it has none."""
    window = _pixel_at(layer.source.grid, lon, lat)
    values: list[int] = []
    if window is not None:
        read = read_window(layer.source.path, window, fill=PERCENT_NODATA)[:, 0, 0]
        values = [] if (read == PERCENT_NODATA).any() else [int(v) for v in read]
    by_code = dict(zip(LEGEND.codes, values, strict=True)) if layer.kind == 'probabilities' and values else {}
    return {'layer': layer.id, 'kind': layer.kind, 'name': layer.name, 'values': values, 'by_code': by_code}
