"""GeoPackages of land-cover polygons: streamed, styled for QGIS, under their names only when they are whole."""

import glob
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyogrio
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..legend import Legend
from ..rasters.outputs import PathLike, cannot_write, check_output, write_whole
from ..rasters.qml import polygons_qml
from .polygonize import Polygons

#: Name of the layer.
LAYER = 'land_cover'

_GEOMETRY = pa.field('geom', pa.binary(), metadata={'ARROW:extension:name': 'geoarrow.wkb'})

#: GDAL's setting, in bytes.
_INDEX_MEMORY = 'OGR_GPKG_MAX_RAM_USAGE_RTREE'

#: As QGIS makes it.
_LAYER_STYLES = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
  f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""


def check_geopackage(path: PathLike, *, overwrite: bool) -> Path:
    """Find out, before any computing, whether a GeoPackage can be written.

    Raises:
        LandcoverError: If its name does not end in ``.gpkg``, it exists and may not be replaced, another program has
            it open, or its folder cannot be written to.
    """
    if Path(path).suffix.lower() != '.gpkg':
        raise LandcoverError(f'polygons go into a GeoPackage whose name ends in .gpkg, got {Path(path).name!r}')
    target = check_output(path, overwrite=overwrite, permission='--overwrite')
    for journal in (target.with_name(f'{target.name}-wal'), target.with_name(f'{target.name}-journal')):
        if journal.exists():
            raise LandcoverError(
                f'{target} is open in another program (there is {journal.name}): close it there, or choose another name'
            )
    return target


def write_geopackage(
    path: Path,
    batches: Iterable[Polygons],
    *,
    grid: PixelGrid,
    legend: Legend,
    confidence: bool,
    tags: Mapping[str, str],
) -> int:
    """Write polygons as they come, with spatial index, style and metadata.

    Args:
        path: See :func:`check_geopackage`.
        batches: Polygons in batches.
        grid: Of the map: its CRS; without metres there is no perimeter.
        legend: Names and colours.
        confidence: Whether there is a column of it.
        tags: Metadata of the layer.

    Returns:
        Number of polygons.

    Raises:
        LandcoverError: If it cannot be written.
    """
    writer = _Writer(batches, legend, _schema(grid, confidence))
    try:
        write_whole(path, lambda staging: _write(staging, writer, grid, legend, tags))
    except (OSError, RuntimeError, sqlite3.Error) as e:  # pyogrio's errors are RuntimeErrors
        if writer.error is not None and not isinstance(writer.error, OSError):
            raise writer.error from None
        raise cannot_write(path, writer.error or e) from e
    return writer.count


def _schema(grid: PixelGrid, confidence: bool) -> pa.Schema:
    fields = [
        ('code', pa.int16()),
        ('class', pa.string()),
        ('class_ca', pa.string()),
        ('area_ha', pa.float64()),
        ('area_m2', pa.float64()),
        *([('perimeter_m', pa.float64())] if grid.crs.is_projected else []),
        ('pixels', pa.int64()),
        *([('confidence', pa.float64())] if confidence else []),
        ('region', pa.int64()),
    ]
    return pa.schema([*(pa.field(name, kind) for name, kind in fields), _GEOMETRY])


class _Writer:
    """Batches as an Arrow stream that remembers what was in it, and which error ended it.

    GDAL pulls the batches, so an exception in between reaches the caller as one of GDAL's, without its kind.
    """

    def __init__(self, batches: Iterable[Polygons], legend: Legend, schema: pa.Schema) -> None:
        self._batches, self._legend, self._schema = batches, legend, schema
        self.count, self.pixels = 0, 0
        self.error: BaseException | None = None

    @property
    def stream(self) -> pa.RecordBatchReader:
        """The polygons."""
        return pa.RecordBatchReader.from_batches(self._schema, self._tables())

    def _tables(self) -> Iterator[pa.RecordBatch]:
        try:
            for polygons in self._batches:
                if len(polygons.codes):
                    self.count += len(polygons.codes)
                    self.pixels += int(polygons.pixels.sum())
                    yield self._table(polygons)
        except BaseException as e:
            self.error = e
            raise

    def _table(self, p: Polygons) -> pa.RecordBatch:
        names, names_ca = (np.array([getattr(c, k) for c in self._legend], dtype=object) for k in ('name', 'name_ca'))
        columns: dict[str, NDArray[Any]] = {
            'code': p.codes.astype(np.int16), 'class': names[p.codes], 'class_ca': names_ca[p.codes],
            'area_ha': p.areas / 1e4, 'area_m2': p.areas, 'perimeter_m': p.perimeters, 'pixels': p.pixels,
            'confidence': p.confidence, 'region': p.regions, 'geom': p.geometry,
        }  # fmt: skip
        arrays = [pa.array(columns[f.name], type=f.type, from_pandas=True) for f in self._schema]  # NaN is null
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


def _write(staging: Path, writer: _Writer, grid: PixelGrid, legend: Legend, tags: Mapping[str, str]) -> None:
    description = 'Land cover: regions of one class as polygons'
    try:
        with _small_index_in_memory():
            pyogrio.write_arrow(
                writer.stream, staging, layer=LAYER, driver='GPKG', geometry_name='geom', geometry_type='Polygon',
                crs=grid.crs.to_wkt(), layer_metadata=dict(tags), dataset_options={'VERSION': '1.3'},
                layer_options={'SPATIAL_INDEX': 'YES', 'IDENTIFIER': 'land cover', 'DESCRIPTION': description},
            )  # fmt: skip
        if writer.error is not None:
            raise RuntimeError('the stream of polygons ended early')
        _complete(staging, writer, legend)
    finally:
        for working in staging.parent.glob(f'{glob.escape(staging.name)}?*'):  # journals, and the index while it grows
            with suppress(OSError):
                working.unlink(missing_ok=True)


@contextmanager
def _small_index_in_memory() -> Iterator[None]:
    """Keep GDAL from building the spatial index in a tenth of the machine's memory."""
    before = pyogrio.get_gdal_config_option(_INDEX_MEMORY)
    pyogrio.set_gdal_config_options({_INDEX_MEMORY: str(2**24)})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({_INDEX_MEMORY: before})


def _complete(staging: Path, writer: _Writer, legend: Legend) -> None:
    """Check that everything has arrived, and add the style."""
    with closing(sqlite3.connect(staging)) as db, db:
        found = db.execute(f'SELECT count(*), sum(pixels) FROM {LAYER}').fetchone()
        if found != (writer.count, writer.pixels):
            raise OSError(f'{writer.count} polygons were written, {found[0]} arrived')
        db.execute(_LAYER_STYLES)
        db.execute(
            'INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, '
            "styleQML, styleSLD, useAsDefault, description, owner) VALUES ('', '', ?, 'geom', ?, ?, '', 1, ?, '')",
            (LAYER, 'land cover', polygons_qml(legend, 'code'), 'classes of the legend'),
        )
        db.execute(
            'INSERT INTO gpkg_contents (table_name, data_type, identifier, description) '
            "VALUES ('layer_styles', 'attributes', 'layer_styles', 'styles of QGIS')"
        )
