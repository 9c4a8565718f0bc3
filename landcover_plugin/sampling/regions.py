"""What to map: a rectangle of pixels, and polygons in it if a vector file was given."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio.features
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..rasters.stand_ins import local_copy

log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Region:
    """An area on the mosaics' grid: a rectangle, or the polygons in it.

    Args:
        grid: Pixel grid of the mosaics.
        area: Pixels of the map.
        polygons: In the CRS of the grid, or None where all of the area is wanted.
        name: What tells this region from others of one run.
    """

    grid: PixelGrid
    area: PixelWindow
    polygons: NDArray[Any] | None = None
    name: str = ''

    def __post_init__(self) -> None:
        object.__setattr__(self, '_tree', None if self.polygons is None else shapely.STRtree(self.polygons))

    def meets(self, window: PixelWindow, halo: int = 0) -> bool:
        """Whether a window, grown by ``halo`` pixels, may hold pixels of the region."""
        wider = PixelWindow(window.row - halo, window.col - halo, window.height + 2 * halo, window.width + 2 * halo)
        if self.polygons is None:
            return not wider.intersection(self.area).is_empty
        return len(self._near(wider)) > 0

    def mask(self, window: PixelWindow) -> NDArray[np.bool_] | None:
        """Pixels of a window whose centre lies in a polygon, shape ``(height, width)``; None where all are wanted."""
        if self.polygons is None:
            return None
        shape = window.height, window.width
        near = self.polygons[np.sort(self._near(window))]
        if not len(near):
            return np.zeros(shape, dtype=np.bool_)
        transform = self.grid.subgrid(window).transform
        return rasterio.features.rasterize(near, shape, transform=transform, dtype=np.uint8).astype(np.bool_)

    def _near(self, window: PixelWindow) -> NDArray[np.int64]:
        """Numbers of the polygons that meet a window."""
        tree: Any = self._tree  # type: ignore[attr-defined]
        return tree.query(shapely.box(*self.grid.bounds(window)), predicate='intersects')


def window_of_bbox(
    grid: PixelGrid, *, bbox: Sequence[float] | None = None, bbox_wgs84: Sequence[float] | None = None
) -> PixelWindow:
    """The window that covers a bbox, as far as the grid reaches; all of the grid where none is given.

    Args:
        grid: Pixel grid of the mosaics.
        bbox: In units of the grid's CRS.
        bbox_wgs84: In degrees: west, south, east, north.

    Raises:
        LandcoverError: If the bbox is none, or lies outside the grid.
    """
    asked = bbox if bbox_wgs84 is None else grid.bbox_from_wgs84(bbox_wgs84)
    if asked is None:
        return grid.full
    wanted = grid.window(asked)
    area = wanted.intersection(grid.full)
    if area.is_empty:
        cover, where = ([float(v) for v in grid.bounds()], str(grid.crs)) if bbox else (_degrees(grid), 'degrees')
        degrees = bbox and grid.crs.is_projected and all(abs(v) <= 180 for v in bbox)
        raise LandcoverError(
            f'the bbox {bbox or bbox_wgs84} lies outside the mosaics, which cover {cover} in {where}'
            f'{"; degrees are given by bbox_wgs84" if degrees else ""}'
        )
    if area != wanted:
        log.warning('the bbox reaches beyond the mosaics; the map covers %s', grid.bounds(area))
    return area


def _degrees(grid: PixelGrid) -> list[float]:
    """Bounds of a grid in degrees: west, south, east, north."""
    return [round(v, 5) for v in transform_bounds(grid.crs, CRS.from_epsg(4326), *grid.bounds(), densify_pts=21)]


def read_polygons(paths: PathLike | Sequence[PathLike], grid: PixelGrid) -> gpd.GeoDataFrame:
    """Polygons of one or several vector files in the CRS of a grid, made valid.

    Raises:
        LandcoverError: If a file is missing, unreadable, empty, has no CRS or holds something else than polygons.
    """
    files = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not files:
        raise LandcoverError('aoi names no file: give a vector file of polygons, or leave it out to map everything')
    frames = [_read(local_copy(path), grid) for path in files]
    return gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), crs=frames[0].crs)


def _read(path: Path, grid: PixelGrid) -> gpd.GeoDataFrame:
    if not path.exists():
        raise LandcoverError(f'{path} does not exist; --data.aoi names a vector file of polygons')
    try:
        frame = gpd.read_file(path)
    except Exception as e:  # GDAL's drivers raise whatever they find
        raise LandcoverError(f'{path} cannot be read as a vector file ({" ".join(str(e).split())})') from e
    if not isinstance(frame, gpd.GeoDataFrame) or frame.geometry.isna().all() or frame.geometry.is_empty.all():
        raise LandcoverError(f'{path} holds no geometry: name a vector file of polygons')
    if frame.crs is None:
        raise LandcoverError(f'{path} has no CRS; assign the right one (ogr2ogr -a_srs EPSG:25831 …)')
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    if strange := sorted(set(frame.geom_type) - {'Polygon', 'MultiPolygon', 'GeometryCollection'}):
        raise LandcoverError(
            f'{path} holds {", ".join(strange)}: an area to map is made of polygons, buffer them first'
        )
    moved = frame.to_crs(grid.crs.to_wkt())
    if not np.isfinite(moved.total_bounds).all():
        raise LandcoverError(
            f'{path}: the coordinates {frame.total_bounds.tolist()} do not exist in its CRS, {frame.crs.name}; '
            'assign the right one (ogr2ogr -a_srs)'
        )
    return moved.set_geometry(_valid(path, moved.geometry.to_numpy()))


def _valid(path: Path, geometry: NDArray[Any]) -> NDArray[Any]:
    """Only the polygons of sound geometry."""
    unsound = int((~shapely.is_valid(geometry)).sum())
    if unsound:
        log.warning('%s: %d polygons cross themselves, and were repaired (make_valid)', path, unsound)
    made = np.array([_areas_of(g) for g in shapely.make_valid(geometry)], dtype=object)
    if shapely.is_empty(made).all():
        raise LandcoverError(f'{path} holds no polygon with an area: name a vector file of polygons')
    return made


def _areas_of(geometry: Any) -> Any:
    """The polygons of a geometry, without the lines and points that repairing leaves."""
    parts = shapely.get_parts(geometry)
    if (shapely.get_type_id(parts) == shapely.GeometryType.GEOMETRYCOLLECTION).any():
        parts = shapely.get_parts(parts)
    kinds = shapely.get_type_id(parts)
    return shapely.multipolygons(shapely.get_parts(parts[np.isin(kinds, (3, 6))]))


def region_of(grid: PixelGrid, area: PixelWindow, frame: gpd.GeoDataFrame, *, name: str = '', what: str) -> Region:
    """The part of an area that polygons fill.

    Args:
        grid: Pixel grid of the mosaics.
        area: What may be mapped at most.
        frame: Polygons in the CRS of the grid.
        name: Of the region.
        what: The polygons in words, for the error.

    Raises:
        LandcoverError: If the polygons lie outside the area.
    """
    polygons = shapely.get_parts(frame.geometry.to_numpy())
    polygons = polygons[shapely.intersects(polygons, shapely.box(*grid.bounds(area)))]
    part = PixelWindow(0, 0, 0, 0)
    if len(polygons):
        part = grid.window(shapely.total_bounds(polygons)).intersection(area)
    if part.is_empty:
        raise LandcoverError(
            f'{what} lies outside the area that can be mapped, {[round(v, 2) for v in grid.bounds(area)]} in '
            f'{grid.crs}: check its CRS, or take other polygons'
        )
    return Region(grid, part, polygons, name)


def regions_by(column: str, grid: PixelGrid, area: PixelWindow, frame: gpd.GeoDataFrame) -> list[Region]:
    """A region for each polygon, named by an attribute.

    Raises:
        LandcoverError: If the column is missing, or names are missing, alike or unfit for a file.
    """
    if column not in frame.columns or column == frame.geometry.name:
        others = ', '.join(map(str, frame.columns.drop(frame.geometry.name))) or 'none'
        raise LandcoverError(f'the aoi has no attribute {column!r} to name maps by; it has {others}')
    names = [file_name(value) for value in frame[column]]
    if '' in names:
        raise LandcoverError(f'a polygon of the aoi has no {column}, so its map cannot be named by it')
    folded = [name.casefold() for name in names]  # some disks take a.tif and A.tif for one
    twice = sorted({name for name in names if folded.count(name.casefold()) > 1})
    if twice:
        raise LandcoverError(
            f'several polygons of the aoi are called {twice[0]!r} in {column}, and would be one file: dissolve them, '
            'or name maps by another attribute'
        )
    return [
        region_of(grid, area, frame.iloc[[i]], name=name, what=f'the polygon {name!r} of the aoi')
        for i, name in enumerate(names)
    ]


def file_name(value: Any) -> str:
    """An attribute as part of a file's name: what folders, drives and shells take for their own becomes ``_``.

    Examples:
        >>> [file_name(v) for v in ("Alt Empordà", 'a/b:c', ' ..x ', 12.0, None)]
        ['Alt_Empordà', 'a_b_c', 'x', '12', '']
    """
    if value is None or value != value:
        return ''
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return re.sub(r'[^\w\-.]+', '_', text.strip()).strip('._')[:120]
