"""Polygons on a pixel grid: areas of interest and zones, by pixel centres, one strip of the raster at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..rasters.outputs import PathLike
from ..rasters.stand_ins import local_copy


@dataclass(frozen=True, eq=False)
class Zones:
    """Named polygons in the CRS of a grid; they may overlap.

    Args:
        names: One for each polygon, in the order of the file.
        geometries: Sound polygons.
    """

    names: list[str]
    geometries: NDArray[np.object_]

    def __post_init__(self) -> None:
        object.__setattr__(self, '_bounds', shapely.bounds(self.geometries))

    def inside(self, grid: PixelGrid, window: PixelWindow) -> Iterator[tuple[int, PixelWindow, NDArray[np.bool_]]]:
        """The zones that a window meets: number, the part of the window around it, and which pixels of that it holds.

        A pixel belongs to a zone if its centre does, so zones that share an edge share no pixel.
        """
        xmin, ymin, xmax, ymax = grid.bounds(window)
        b: NDArray[np.float64] = self._bounds  # type: ignore[attr-defined]
        for number in np.flatnonzero((b[:, 0] < xmax) & (b[:, 2] > xmin) & (b[:, 1] < ymax) & (b[:, 3] > ymin)):
            part = grid.window(tuple(b[number])).intersection(window)
            if part.is_empty:
                continue
            mask = pixels_inside(self.geometries[number], grid, part)
            if mask.any():
                yield int(number), part, mask


def pixels_inside(geometry: shapely.Geometry, grid: PixelGrid, window: PixelWindow) -> NDArray[np.bool_]:
    """Pixels of a window whose centres lie in a polygon, shape ``(window.height, window.width)``."""
    near = shapely.clip_by_rect(geometry, *_grown(grid, window))
    if near.is_empty:
        return np.zeros((window.height, window.width), dtype=bool)
    return rasterio.features.rasterize(
        [near], (window.height, window.width), transform=grid.subgrid(window).transform, dtype=np.uint8
    ).astype(bool)


def _grown(grid: PixelGrid, window: PixelWindow) -> tuple[float, float, float, float]:
    """Bounds of the window and a pixel around it, so that where it is clipped decides about no centre."""
    return grid.bounds(PixelWindow(window.row - 1, window.col - 1, window.height + 2, window.width + 2))


def read_zones(path: PathLike, column: str | None, grid: PixelGrid) -> Zones:
    """Polygons of a vector file in the CRS of a grid; rows with the same name become one zone.

    Args:
        path: Any vector file.
        column: Of the names (default: rows are numbered from 1).
        grid: Of the map.

    Raises:
        LandcoverError: If the file cannot be read, has no CRS or no such column, or none of it meets the grid.
    """
    frame = read_polygons(path, grid.crs)
    if column is not None and column not in frame.columns:
        raise LandcoverError(f'{path} has no column {column!r}: its columns are {", ".join(_columns(frame))}')
    names = [str(n) for n in (range(1, len(frame) + 1) if column is None else frame[column])]
    if column is not None and len(set(names)) < len(names):
        frame = frame.assign(**{column: names}).dissolve(column, sort=False).reset_index()
        names = list(frame[column])
    zones = Zones(names, frame.geometry.to_numpy())
    if not shapely.intersects(shapely.box(*grid.bounds()), zones.geometries).any():
        raise LandcoverError(f'{path} lies outside the map: no zone meets {_told(grid)}')
    return zones


def read_aoi(path: PathLike, grid: PixelGrid) -> shapely.Geometry:
    """The polygons of a vector file as one geometry in the CRS of a grid.

    Raises:
        LandcoverError: If the file cannot be read, has no CRS, or lies outside the grid.
    """
    whole = shapely.union_all(read_polygons(path, grid.crs).geometry.to_numpy())
    if not shapely.intersects(shapely.box(*grid.bounds()), whole):
        raise LandcoverError(f'{path} lies outside the map, which covers {_told(grid)}')
    return whole


def read_polygons(path: PathLike, crs: CRS, layer: str | None = None) -> gpd.GeoDataFrame:
    """Polygons of a vector file in a CRS.

    Raises:
        LandcoverError: If the file cannot be read, holds no polygons, has no CRS, or unsound geometries.
    """
    frame = read_vector(path, layer)
    if frame.crs is None:
        raise LandcoverError(f'{path} has no CRS: assign the right one (ogr2ogr -a_srs EPSG:25831 …)')
    frame = frame[frame.geometry.notna() & ~frame.geometry.is_empty]
    if not len(frame) or not frame.geom_type.isin(('Polygon', 'MultiPolygon')).all():
        raise LandcoverError(f'{path} must hold polygons and nothing else')
    if unsound := int((~frame.geometry.is_valid).sum()):
        raise LandcoverError(f'{path}: {unsound} polygons cross themselves; repair them (QGIS: Fix geometries)')
    moved = frame.to_crs(crs.to_wkt())
    if not np.isfinite(moved.total_bounds).all():
        raise LandcoverError(
            f'{path}: the coordinates {frame.total_bounds.tolist()} do not exist in {frame.crs.name}; assign the right '
            'CRS (ogr2ogr -a_srs)'
        )
    return moved


def read_vector(path: PathLike, layer: str | None = None) -> gpd.GeoDataFrame:
    """A layer of a vector file with geometries.

    Raises:
        LandcoverError: If the file does not exist, is damaged, or has no geometries.
    """
    path = local_copy(path)
    if not path.exists():
        raise LandcoverError(f'{path} does not exist: name a vector file')
    try:
        frame = gpd.read_file(path, layer=layer)
    except Exception as e:
        why = (str(e) or type(e).__name__).splitlines()[0]
        raise LandcoverError(f'{path} cannot be read as a vector file ({why}): it may be damaged') from e
    if not isinstance(frame, gpd.GeoDataFrame):
        raise LandcoverError(f'{path} holds a table without geometries')
    return frame


def _columns(frame: gpd.GeoDataFrame) -> list[str]:
    return [str(c) for c in frame.columns if c != frame.geometry.name]


def _told(grid: PixelGrid) -> str:
    return f'{[round(v, 6) for v in grid.bounds()]} of {grid.crs}'
