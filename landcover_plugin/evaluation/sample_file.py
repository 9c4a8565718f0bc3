"""A sample as a GeoPackage: points that a person interprets, and apart from them what the estimators need.

The interpretation is blind: the layer that is opened holds neither map class nor stratum, and its points come in random
order, so that nothing hints at what the map says (Olofsson et al. 2014, section 5.2). Stratum, map class and inclusion
probability of each point wait in the table ``design``.
"""

import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..legend import LEGEND, Legend
from ..rasters.outputs import PathLike, write_whole
from ..rasters.stand_ins import local_copy
from .drawing import DrawnPixels
from .qgis_form import point_style, style_row

#: Layers and tables of the file.
POINTS, DESIGN, STRATA, INFO, AREA, STYLES = 'sample', 'design', 'strata', 'sample_info', 'sample_area', 'layer_styles'


@dataclass(frozen=True)
class SampleInfo:
    """Where a sample comes from.

    Attributes:
        map_name: File that it was drawn from.
        map_digest: See :class:`~landcover_plugin.evaluation.class_map.MapCounts`.
        grid: Grid of that map, as text.
        seed: Of the draw.
        allocation: How points were allocated.
        software: What wrote the file.
    """

    map_name: str
    map_digest: str
    grid: str
    seed: int
    allocation: str
    software: str


def write_sample(
    path: PathLike,
    drawn: DrawnPixels,
    grid: PixelGrid,
    *,
    pixels: NDArray[np.int64],
    areas: NDArray[np.float64],
    row_areas: NDArray[np.float64],
    info: SampleInfo,
    aoi: shapely.Geometry | None = None,
    legend: Legend = LEGEND,
) -> None:
    """Write a sample; the file appears under its name only when it is whole.

    Args:
        path: The ``.gpkg``.
        drawn: The pixels in the order in which they are to be interpreted.
        grid: Of the map.
        pixels: Pixels of each code, shape ``(num_classes,)``: the sizes of the strata.
        areas: Hectares of each code, likewise.
        row_areas: Hectares of a pixel of each row of the map.
        info: Where it comes from.
        aoi: The ground that was sampled (default: all of the map), in the CRS of the grid.
        legend: Names of the codes.

    Raises:
        LandcoverError: If the file cannot be written.
    """
    points = np.bincount(drawn.codes, minlength=len(pixels))
    tables: dict[str, pd.DataFrame] = {
        POINTS: _points(drawn, grid),
        DESIGN: _design(drawn, points, pixels, row_areas),
        STRATA: _strata(points, pixels, areas, legend),
        INFO: pd.DataFrame({'key': list(asdict(info)), 'value': [str(v) for v in asdict(info).values()]}),
        STYLES: pd.DataFrame([style_row(POINTS, point_style(legend, pixel=grid.res[0]))]),
    }
    if aoi is not None:
        tables[AREA] = gpd.GeoDataFrame({'name': ['sampled ground']}, geometry=[aoi], crs=_wkt(grid.crs))
    try:
        write_whole(Path(path), lambda staging: _write(staging, tables))
    except (OSError, RuntimeError, sqlite3.Error) as e:  # pyogrio's errors are RuntimeErrors
        raise LandcoverError(f'{path} cannot be written ({e}); choose a folder in which you may write') from e


def _write(path: Path, tables: dict[str, pd.DataFrame]) -> None:
    for name, table in tables.items():
        pyogrio.write_dataframe(table, path, layer=name, driver='GPKG', append=path.exists())
    with sqlite3.connect(path) as db:  # GDAL would name the point layer after the staging file
        db.execute('UPDATE gpkg_contents SET identifier = table_name')
    db.close()


def _points(drawn: DrawnPixels, grid: PixelGrid) -> gpd.GeoDataFrame:
    xs, ys = pixel_centres(grid, drawn.rows, drawn.cols)
    n = len(xs)
    text = pd.Series([None] * n, dtype='str')
    return gpd.GeoDataFrame(
        {
            'id': np.arange(1, n + 1),
            'reference_code': pd.Series([pd.NA] * n, dtype='Int32'),
            'interpreter': text,
            'confidence': text,
            'remark': text,
        },
        geometry=shapely.points(xs, ys),
        crs=_wkt(grid.crs),
    )


def _design(
    drawn: DrawnPixels, points: NDArray[np.int64], pixels: NDArray[np.int64], row_areas: NDArray[np.float64]
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            'id': np.arange(1, len(drawn.codes) + 1),
            'stratum': drawn.codes,
            'map_code': drawn.codes,
            'row': drawn.rows,
            'col': drawn.cols,
            'inclusion_probability': points[drawn.codes] / pixels[drawn.codes],
            'pixel_ha': row_areas[drawn.rows],
        }
    )


def _strata(
    points: NDArray[np.int64], pixels: NDArray[np.int64], areas: NDArray[np.float64], legend: Legend
) -> pd.DataFrame:
    codes = [code for code in legend.codes if pixels[code]]
    return pd.DataFrame(
        {
            'stratum': codes,
            'name': [legend[code].name for code in codes],
            'pixels': pixels[codes],
            'area_ha': areas[codes],
            'points': points[codes],
        }
    )


def pixel_centres(
    grid: PixelGrid, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of the centres of pixels in CRS units."""
    (x0, y0), (xres, yres) = grid.origin, grid.res
    return np.asarray(x0 + (cols + 0.5) * xres), np.asarray(y0 - (rows + 0.5) * yres)


def _wkt(crs: CRS) -> str:
    return str(crs.to_wkt())


def is_sample_file(path: PathLike) -> bool:
    """Whether a vector file is a sample that :func:`write_sample` wrote."""
    return {POINTS, DESIGN, STRATA, INFO} <= set(_layers(path))


def _layers(path: PathLike) -> list[str]:
    if not Path(path).is_file():
        raise LandcoverError(f'{path} does not exist: name a file of reference points')
    try:
        return [str(name) for name in pyogrio.list_layers(path)[:, 0]]
    except Exception as e:
        raise damaged(path, e) from e


def damaged(path: PathLike, error: BaseException) -> LandcoverError:
    """The sentence for a file that cannot be read."""
    why = (str(error) or type(error).__name__).splitlines()[0]
    return LandcoverError(f'{path} cannot be read ({why}): it may be damaged; take the copy that you had before')


@dataclass(frozen=True, eq=False)
class SampleFile:
    """What a sample file holds.

    Attributes:
        points: Interpreted columns and points, indexed by ``id``.
        design: Table ``design``, indexed by ``id``.
        strata: Table ``strata``, indexed by ``stratum``.
        info: Where it comes from.
        aoi: The ground that was sampled, in the CRS of the points; None is all of the map.
    """

    points: gpd.GeoDataFrame
    design: pd.DataFrame
    strata: pd.DataFrame
    info: SampleInfo
    aoi: shapely.Geometry | None


def read_sample(path: PathLike) -> SampleFile:
    """Read a sample, with whatever has been interpreted so far.

    Raises:
        LandcoverError: If the file is damaged or its tables do not fit together.
    """
    path = local_copy(path)
    try:
        layers = _layers(path)
        points, design, strata, info = (pyogrio.read_dataframe(path, layer=n) for n in (POINTS, DESIGN, STRATA, INFO))
        aoi = pyogrio.read_dataframe(path, layer=AREA).geometry.iloc[0] if AREA in layers else None
        values: dict[str, Any] = dict(zip(info['key'], info['value'], strict=True))
        told = SampleInfo(**{**values, 'seed': int(values['seed'])})
        found = SampleFile(points.set_index('id'), design.set_index('id'), strata.set_index('stratum'), told, aoi)
        complete = found.design['stratum'].isin(found.strata.index).all() and 'reference_code' in found.points
    except LandcoverError:
        raise
    except Exception as e:
        raise damaged(path, e) from e
    if not complete or found.points.index.has_duplicates or not found.points.index.isin(found.design.index).all():
        raise LandcoverError(
            f'{path}: its points and its table {DESIGN} do not fit together (points added, ids changed or a column '
            'deleted): only points of the drawn sample count, take the others out'
        )
    return found
