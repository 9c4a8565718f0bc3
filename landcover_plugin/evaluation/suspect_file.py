"""Suspects as a GeoPackage that a photo-interpreter steps through.

Layer ``suspects``: one polygon for each suspect, in the CRS of the images, in the order of ``rank``. Columns, exactly:

=================  =========  ==========================================================================================
``fid``            integer    key of GeoPackage; equal to ``rank`` when the file is written
``rank``           integer    1 for the first to look at
``label``          integer    code of the label, 1 to 12
``label_name``     text       its English name
``predicted``      integer    code that the networks give with confidence, 1 to 12
``predicted_name`` text       its English name
``confidence``     real       mean calibrated, cross-fitted probability of ``predicted``, 0 to 1
``score``          real       what ``rank`` is by, 0 to 1, see :mod:`~landcover_plugin.evaluation.suspects`
``area_m2``        real       area of the pixels in square metres
``verdict``        text       NULL until somebody decides; then ``accept`` (the label is wrong, or the ground has
                              changed), ``reject`` (the label is right) or ``unsure``
``remark``         text       free; NULL at first
``picture_YYYYMM`` text       one column for each month of the mosaics: path of a PNG, relative to the folder of the
                              GeoPackage, with forward slashes
=================  =========  ==========================================================================================

The geometry column is ``geom`` (Polygon). The default style of QGIS lies in the table ``layer_styles``. There is no
spatial index, which thousands of polygons do not need: its triggers call functions that SQLite has not, so that
``UPDATE suspects SET verdict = ?, remark = ? WHERE fid = ?`` works on any connection to the file.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
from rasterio.crs import CRS

from ..legend import LEGEND, Legend
from ..rasters.outputs import cannot_write, write_whole
from .qgis_form import style_row
from .suspect_style import suspect_style
from .suspects import Suspect

#: Name of the layer.
LAYER = 'suspects'

#: Columns of the layer beside ``fid``, geometry and pictures.
COLUMNS = (
    'rank', 'label', 'label_name', 'predicted', 'predicted_name', 'confidence', 'score', 'area_m2', 'verdict', 'remark',
)  # fmt: skip


def write_suspects(
    path: Path,
    suspects: Sequence[Suspect],
    *,
    crs: CRS,
    months: Sequence[str] = (),
    pictures: Sequence[Sequence[str]] = (),
    legend: Legend = LEGEND,
) -> None:
    """Write suspects; the file appears under its name only when it is whole.

    Args:
        path: The ``.gpkg``, checked to be writable.
        suspects: In the order of their rank.
        crs: Of their geometries.
        months: ``YYYYMM`` of the pictures.
        pictures: Path of a picture for each month, for each suspect.
        legend: Names of the codes.

    Raises:
        LandcoverError: If it cannot be written.
    """
    columns = {f'picture_{month}': month for month in months}
    frame = _frame(suspects, crs, legend)
    for number, name in enumerate(columns):
        frame[name] = pd.Series([p[number] for p in pictures], dtype='str')
    style = pd.DataFrame(
        [style_row(LAYER, suspect_style([*COLUMNS, *columns], columns), 'form and symbols for the verdict on suspects')]
    )
    try:
        write_whole(path, lambda staging: _write(staging, frame, style))
    except (OSError, RuntimeError, sqlite3.Error) as e:  # pyogrio's errors are RuntimeErrors
        raise cannot_write(path, e) from e


def verdicts(path: Path) -> int:
    """How many suspects of a file have been decided; 0 for what is no such file."""
    if not path.is_file():
        return 0
    try:
        with closing(sqlite3.connect(f'file:{quote(str(path))}?mode=ro', uri=True)) as db:
            return int(db.execute(f'SELECT count(verdict) FROM {LAYER}').fetchone()[0])
    except sqlite3.Error:
        return 0


def _write(path: Path, frame: gpd.GeoDataFrame, style: pd.DataFrame) -> None:
    layer = {'geometry_type': 'Polygon', 'geometry_name': 'geom', 'layer_options': {'SPATIAL_INDEX': 'NO'}}
    pyogrio.write_dataframe(frame, path, layer=LAYER, driver='GPKG', **layer)
    pyogrio.write_dataframe(style, path, layer='layer_styles', driver='GPKG', append=True)
    with closing(sqlite3.connect(path)) as db, db:  # GDAL would name the layer after the staging file
        db.execute('UPDATE gpkg_contents SET identifier = table_name')


def _frame(suspects: Sequence[Suspect], crs: CRS, legend: Legend) -> gpd.GeoDataFrame:
    names = legend.names
    values = {
        'rank': np.arange(1, len(suspects) + 1, dtype=np.int32),
        'label': np.array([s.label for s in suspects], dtype=np.int32),
        'label_name': pd.Series([names[s.label] for s in suspects], dtype='str'),
        'predicted': np.array([s.predicted for s in suspects], dtype=np.int32),
        'predicted_name': pd.Series([names[s.predicted] for s in suspects], dtype='str'),
        'confidence': np.array([s.confidence for s in suspects], dtype=np.float64),
        'score': np.array([s.score for s in suspects], dtype=np.float64),
        'area_m2': np.array([s.area_m2 for s in suspects], dtype=np.float64),
        'verdict': pd.Series([None] * len(suspects), dtype='str'),
        'remark': pd.Series([None] * len(suspects), dtype='str'),
    }
    return gpd.GeoDataFrame(values, geometry=[s.geometry for s in suspects], crs=crs.to_wkt())
