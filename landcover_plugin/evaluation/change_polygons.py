"""Changed ground as polygons, strip by strip: only what touches the strip in hand is kept in memory."""

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import rasterio
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, Legend
from ..rasters.opening import open_raster
from ..rasters.outputs import write_whole
from ..rasters.pixel_size import HECTARE, ellipsoid, metres_per_unit
from ..rasters.reading import read_window
from ..rasters.streaming import in_order
from .change_raster import NOT_COMPARED, UNCHANGED
from .class_map import CACHE_BYTES

#: Rows of a strip.
ROWS = 512

#: Number of the first column: with 0, rasterio would warn that the first strip has the identity as transform.
_COLUMN = 1

log = logging.getLogger(__name__)


@dataclass
class _Growing:
    """A polygon that may go on in the next strip: its parts, and those of them that touch the lower edge."""

    value: int
    parts: list[shapely.Geometry] = field(default_factory=list)
    rim: list[shapely.Geometry] = field(default_factory=list)


def write_polygons(
    path: Path, change_raster: Path, *, min_area: float = 0.0, legend: Legend = LEGEND, progress: bool = True
) -> int:
    """Write the changed ground of a change raster as a GeoPackage.

    Pixels that share an edge and the transition form one polygon.

    Args:
        path: The ``.gpkg``, checked to be writable.
        change_raster: See :class:`~landcover_plugin.evaluation.change_raster.ChangeRaster`.
        min_area: Hectares below which a polygon is left out.
        legend: Names of the classes.
        progress: Show a progress bar, where stderr is a terminal.

    Returns:
        How many polygons were written.

    Raises:
        LandcoverError: If a file cannot be read or written.
    """
    grid = PixelGrid.of(open_raster(change_raster))
    written, left_out = 0, 0.0

    def write(staging: Path) -> None:
        nonlocal written, left_out
        for number, batch in enumerate(_polygons(change_raster, grid, progress)):
            areas = _hectares(shapes := _on_ground([g for _, g in batch], grid), grid)
            keep = [i for i, area in enumerate(areas) if area >= min_area]
            left_out += areas.sum() - areas[keep].sum()
            if keep or not number:  # an empty layer where nothing changed
                frame = _frame([batch[i][0] for i in keep], shapes[keep], areas[keep], grid, legend)
                pyogrio.write_dataframe(frame, staging, layer='changes', driver='GPKG', append=staging.exists())
            written += len(keep)
        with sqlite3.connect(staging) as db:
            db.execute('UPDATE gpkg_contents SET identifier = table_name')
        db.close()

    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            write_whole(path, write)
    except (OSError, RuntimeError, sqlite3.Error) as e:  # pyogrio's errors are RuntimeErrors
        raise LandcoverError(f'{path} cannot be written ({e}); choose a folder in which you may write') from e
    if left_out:
        log.info('%.1f ha of change lie in polygons below %g ha, which are left out of %s', left_out, min_area, path)
    return written


def _frame(
    values: list[int], shapes: NDArray[np.object_], areas: NDArray[np.float64], grid: PixelGrid, legend: Legend
) -> gpd.GeoDataFrame:
    columns = {
        'from_code': np.array([v // 100 for v in values], dtype=np.int32),
        'from_class': pd.Series([legend[v // 100].name for v in values], dtype='str'),
        'to_code': np.array([v % 100 for v in values], dtype=np.int32),
        'to_class': pd.Series([legend[v % 100].name for v in values], dtype='str'),
        'area_ha': areas,
    }
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=grid.crs.to_wkt())


def _on_ground(shapes: list[shapely.Geometry], grid: PixelGrid) -> NDArray[np.object_]:
    """Polygons in columns and rows as multipolygons in CRS units."""
    parts = np.array([shapely.multipolygons(shapely.get_parts(g)) for g in shapes], dtype=object)
    (x0, y0), (xres, yres) = grid.origin, grid.res
    return np.asarray(
        shapely.transform(parts, lambda c: np.column_stack([x0 + (c[:, 0] - _COLUMN) * xres, y0 - c[:, 1] * yres]))
    )


def _hectares(geometries: NDArray[np.object_], grid: PixelGrid) -> NDArray[np.float64]:
    if grid.crs.is_geographic:
        geod = ellipsoid(grid)
        return np.array([abs(geod.geometry_area_perimeter(g)[0]) / HECTARE for g in geometries])
    return np.asarray(shapely.area(geometries) * metres_per_unit(grid) ** 2 / HECTARE, dtype=np.float64)


def _polygons(path: Path, grid: PixelGrid, progress: bool) -> Iterator[list[tuple[int, shapely.Geometry]]]:
    """Finished polygons of each strip, in columns and rows: whole numbers meet exactly."""
    strips = [PixelWindow(row, 0, min(ROWS, grid.height - row), grid.width) for row in range(0, grid.height, ROWS)]

    def work(strip: PixelWindow) -> list[tuple[int, shapely.Geometry]]:
        values = read_window(path, strip, fill=NOT_COMPARED)[0]
        changed = (values != UNCHANGED) & (values != NOT_COMPARED)
        transform = Affine.translation(_COLUMN, strip.row)
        found = rasterio.features.shapes(values.astype(np.int32), mask=changed, transform=transform)
        return [(int(value), shapely.geometry.shape(geometry)) for geometry, value in found]

    growing: list[_Growing] = []
    for strip, found in zip(
        strips, in_order(work, strips, desc='outlining changes', unit='strip', progress=progress), strict=True
    ):
        growing, finished = _join(growing, found, strip)
        yield [(g.value, shapely.union_all(g.parts)) for g in finished]
    yield [(g.value, shapely.union_all(g.parts)) for g in growing]


def _join(
    growing: list[_Growing], found: list[tuple[int, shapely.Geometry]], strip: PixelWindow
) -> tuple[list[_Growing], list[_Growing]]:
    """Polygons of a strip joined with those from above: what may still grow, and what is finished."""
    bounds = shapely.bounds(np.array([g for _, g in found], dtype=object)).reshape(-1, 4)
    owners = _owners(growing, found, bounds[:, 1] == strip.row)
    groups: dict[int, _Growing] = {}
    for (value, shape), owner, reaches in zip(
        found, owners[len(growing) :], bounds[:, 3] == strip.row_stop, strict=True
    ):
        group = groups.setdefault(owner, _Growing(value))
        group.parts.append(shape)
        if reaches:
            group.rim.append(shape)
    for old, owner in zip(growing, owners[: len(growing)], strict=True):
        groups.setdefault(owner, _Growing(old.value)).parts.extend(old.parts)
    return [g for g in groups.values() if g.rim], [g for g in groups.values() if not g.rim]


def _owners(growing: list[_Growing], found: list[tuple[int, shapely.Geometry]], at_top: NDArray[np.bool_]) -> list[int]:
    """Number of the group of each polygon: first of those from above, then of those of the strip."""
    parent = list(range(len(growing) + len(found)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    rims = [(number, g) for number, old in enumerate(growing) for g in old.rim]
    new = np.flatnonzero(at_top)
    if rims and len(new):
        tree = shapely.STRtree([g for _, g in rims])
        mine, above = tree.query([found[i][1] for i in new], predicate='intersects')
        for i, r in zip(new[mine], above, strict=True):
            number, rim = rims[r]
            if found[i][0] == growing[number].value and shapely.intersection(found[i][1], rim).length > 0:
                parent[root(len(growing) + int(i))] = root(number)
    return [root(i) for i in range(len(parent))]
