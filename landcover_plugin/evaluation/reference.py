"""Reference points, from a sample file of ours or from any table of points."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA
from ..rasters.outputs import PathLike
from .class_map import ClassMap, grid_text
from .class_words import class_codes
from .sample_file import SampleFile, is_sample_file, pixel_centres, read_sample
from .zones import read_vector

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReferenceColumns:
    """Names of the columns of a table of points.

    Attributes:
        reference: Reference class: code, or English or Catalan name.
        stratum: Stratum; None is the class that the map shows at the point.
        x: Of a CSV.
        y: Of a CSV.
        crs: Of the coordinates of a CSV; None is that of the map.
        sizes: CSV with the columns ``stratum`` and ``pixels`` (and ``area_ha`` where pixels differ in area); None where
            strata are the classes of the map, whose sizes are counted.
    """

    reference: str = 'reference_code'
    stratum: str | None = None
    x: str = 'x'
    y: str = 'y'
    crs: str | None = None
    sizes: PathLike | None = None


@dataclass(frozen=True, eq=False)
class ReferencePoints:
    """Points with what is known about them; arrays of shape ``(n,)``.

    Attributes:
        reference: Reference code; 0 where the point is not interpreted.
        stratum: Label of the stratum, or None where it is the class of the map under the point.
        rows: Row on the map's grid.
        cols: Column on the map's grid.
        strata: Indexed by label: ``pixels`` and ``area_ha``; None where they are the classes of the map.
        sample: The sample file, if it is one of ours.
    """

    reference: NDArray[np.int64]
    stratum: NDArray[np.object_] | None
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    strata: pd.DataFrame | None
    sample: SampleFile | None = field(default=None)


def read_reference(
    paths: Sequence[PathLike], grid: PixelGrid, columns: ReferenceColumns | None = None
) -> ReferencePoints:
    """Points of one file, or of several with the same columns.

    Args:
        paths: A sample of ``landcover sample``, or CSV or vector files.
        grid: Of the map that is assessed.
        columns: Names of the columns (default: those of :class:`ReferenceColumns`); not for samples of ours.

    Raises:
        LandcoverError: If a file cannot be read, lacks a column or a CRS, holds unknown classes or no points, or if no
            point lies on the map.
    """
    ours = [path for path in paths if Path(path).suffix.lower() != '.csv' and is_sample_file(path)]
    if ours and len(paths) > 1:
        raise LandcoverError(
            f'{ours[0]} is a sample with strata of its own: assess one at a time, other points cannot be added'
        )
    if ours:
        return _from_sample(ours[0], grid)
    return _from_tables(paths, grid, columns or ReferenceColumns())


def _from_sample(path: PathLike, grid: PixelGrid) -> ReferencePoints:
    found = read_sample(path)
    design = found.design.loc[found.points.index]
    xs, ys = _on_grid(found.points, grid, path)
    if grid_text(grid) == found.info.grid:
        rows, cols = design['row'].to_numpy(np.int64), design['col'].to_numpy(np.int64)
        x0, y0 = pixel_centres(grid, rows, cols)
        moved = (np.abs(xs - x0) > grid.res[0] / 2) | (np.abs(ys - y0) > grid.res[1] / 2)
        if moved.any():
            log.warning(
                'warning: %d points of %s were moved out of their pixels; the pixels that were drawn count',
                moved.sum(),
                path,
            )
    else:
        rows, cols = _pixels_of(xs, ys, grid)
    lost = len(found.design) - len(found.points)
    reference = class_codes(found.points['reference_code'], str(path))
    stratum = design['stratum'].to_numpy(dtype=object)
    if lost:  # deleted points are points without an answer
        gone = found.design.drop(found.points.index)
        reference = np.append(reference, np.zeros(lost, dtype=np.int64))
        stratum = np.append(stratum, gone['stratum'].to_numpy(dtype=object))
        rows, cols = (np.append(a, np.zeros(lost, dtype=np.int64)) for a in (rows, cols))
    return ReferencePoints(reference, stratum, rows, cols, found.strata, found)


def _from_tables(paths: Sequence[PathLike], grid: PixelGrid, columns: ReferenceColumns) -> ReferencePoints:
    parts = [_table(path, grid, columns) for path in paths]
    reference, rows, cols, stratum = (np.concatenate(p) for p in zip(*parts, strict=True))
    if not len(reference):
        raise LandcoverError(f'{", ".join(map(str, paths))} holds no point: name a file with reference points')
    strata = None if columns.sizes is None else _sizes(columns.sizes)
    if columns.stratum is None:
        return ReferencePoints(reference, None, rows, cols, None)
    if strata is None:
        stratum = class_codes(stratum, f'column {columns.stratum!r} (give other strata with --stratum-sizes)').astype(
            object
        )
    elif unknown := sorted({str(s) for s in stratum} - set(strata.index)):
        raise LandcoverError(f'{columns.sizes} has no row for the stratum {unknown[0]!r}; it has {list(strata.index)}')
    return ReferencePoints(reference, np.array([str(s) if strata is not None else s for s in stratum], dtype=object),
                           rows, cols, strata)  # fmt: skip


def _table(
    path: PathLike, grid: PixelGrid, columns: ReferenceColumns
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.object_]]:
    frame = _read_csv(path, grid, columns) if Path(path).suffix.lower() == '.csv' else read_vector(path)
    wanted = [columns.reference, *([columns.stratum] if columns.stratum else [])]
    for name in wanted:
        if name not in frame.columns:
            raise LandcoverError(
                f'{path} has no column {name!r}; it has {", ".join(str(c) for c in frame.columns)}: name the column '
                f'with --{"reference" if name == columns.reference else "stratum"}-column'
            )
    rows, cols = _pixels_of(*_on_grid(frame, grid, path), grid)
    reference = class_codes(frame[columns.reference], f'{path}, column {columns.reference!r}')
    stratum = frame[columns.stratum].to_numpy(dtype=object) if columns.stratum else np.full(len(frame), None)
    return reference, rows, cols, stratum


def _read_csv(path: PathLike, grid: PixelGrid, columns: ReferenceColumns) -> gpd.GeoDataFrame:
    try:
        table = pd.read_csv(path, sep=None, engine='python', dtype=str, encoding='utf-8-sig')
    except OSError:
        raise LandcoverError(f'{path} does not exist: name a file of reference points') from None
    except (ValueError, pd.errors.ParserError) as e:
        raise LandcoverError(f'{path} cannot be read as CSV ({str(e).splitlines()[0]})') from e
    if missing := [c for c in (columns.x, columns.y) if c not in table.columns]:
        raise LandcoverError(
            f'{path} has no column {missing[0]!r}; it has {", ".join(table.columns)}: name the coordinates with '
            '--x-column and --y-column'
        )
    xs, ys = (pd.to_numeric(table[c], errors='coerce') for c in (columns.x, columns.y))
    if (bad := xs.isna() | ys.isna()).any():
        raise LandcoverError(f'{path}: line {int(np.flatnonzero(bad)[0]) + 2} has no coordinates')
    try:
        crs = pyproj.CRS.from_user_input(columns.crs or grid.crs.to_wkt())
    except pyproj.exceptions.CRSError:
        raise LandcoverError(f'{columns.crs!r} is no CRS: give one such as EPSG:4326') from None
    return gpd.GeoDataFrame(table, geometry=gpd.points_from_xy(xs, ys), crs=crs)


def _sizes(path: PathLike) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep=None, engine='python', dtype={'stratum': str}, encoding='utf-8-sig')
        sizes = table.set_index(table['stratum'].str.strip())[[c for c in ('pixels', 'area_ha') if c in table.columns]]
        sizes = sizes.astype(float)
        good = 'pixels' in sizes and not sizes.index.has_duplicates and (sizes > 0).all(axis=None)
    except (OSError, ValueError, KeyError, pd.errors.ParserError) as e:
        raise LandcoverError(f'{path} cannot be read as a table of strata ({e}): columns stratum and pixels') from e
    if not good:
        raise LandcoverError(f'{path} needs the columns stratum and pixels, each stratum once, and numbers > 0')
    return sizes


def _on_grid(
    frame: gpd.GeoDataFrame, grid: PixelGrid, path: PathLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of points in the CRS of a grid."""
    if frame.crs is None:
        raise LandcoverError(f'{path} has no CRS: assign the right one (ogr2ogr -a_srs EPSG:25831 …)')
    if not len(frame):
        raise LandcoverError(f'{path} holds no point: name a file with reference points')
    geometry = frame.geometry.to_crs(grid.crs.to_wkt()).to_numpy()
    if not (shapely.get_type_id(geometry) == 0).all() or shapely.is_empty(geometry).any():
        raise LandcoverError(f'{path} must hold points and nothing else (QGIS: Centroids)')
    return shapely.get_x(geometry), shapely.get_y(geometry)


def _pixels_of(
    xs: NDArray[np.float64], ys: NDArray[np.float64], grid: PixelGrid
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixels that hold points; beyond the grid where they lie outside."""
    (x0, y0), (xres, yres) = grid.origin, grid.res
    position = np.floor((y0 - ys) / yres), np.floor((xs - x0) / xres)
    rows, cols = (np.where(np.isfinite(p), p, -1).astype(np.int64) for p in position)
    return rows, cols


def map_codes(source: ClassMap, points: ReferencePoints) -> NDArray[np.int64]:
    """What the map shows at points; 0 outside, or where it is no data.

    Raises:
        LandcoverError: If no point lies on a class of the map.
    """
    grid = source.grid
    codes = np.zeros(len(points.rows), dtype=np.int64)
    inside = (points.rows >= 0) & (points.rows < grid.height) & (points.cols >= 0) & (points.cols < grid.width)
    for i in np.argsort(points.rows, kind='stable'):  # neighbours share the blocks that GDAL keeps
        if inside[i]:
            codes[i] = source.read(PixelWindow(int(points.rows[i]), int(points.cols[i]), 1, 1))[0, 0]
    if not (codes != NODATA).any():
        raise LandcoverError(
            f'no point lies on a class of {source.path}, which covers {[round(v, 6) for v in grid.bounds()]} of '
            f'{grid.crs}: check the CRS of the points'
        )
    return codes


def class_name(label: object) -> str:
    """How a stratum is told: the name of the class, if it is one."""
    return LEGEND[int(label)].name if isinstance(label, int | np.integer) and label in LEGEND.codes else str(label)
