"""Where two maps differ, as a raster of transitions."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from ..grid import PixelGrid
from ..legend import LEGEND, NODATA, Legend
from ..rasters.outputs import cannot_write, hidden_name
from .class_map import CACHE_BYTES
from .overlay import TILE, Tile

#: Value where either map has no data, and where both agree.
NOT_COMPARED, UNCHANGED = 65535, 0

_WRITE_ERRORS = (OSError, RasterioError, CPLE_BaseError)


def transition_values(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """``100 * first + second`` where two maps differ.

    Examples:
        >>> transition_values(np.uint8([3, 3, 0]), np.uint8([3, 6, 6])).tolist()
        [0, 306, 65535]
    """
    values = first.astype(np.uint16) * 100 + second
    values[first == second] = UNCHANGED
    values[(first == NODATA) | (second == NODATA)] = NOT_COMPARED
    return values


class ChangeRaster:
    """A COG of transitions that appears under its name when it is whole: uint16, deflate, tiles of 512 px.

    Values are ``100 * code in the first map + code in the second``, 0 where both agree, 65535 (nodata) where either has
    none. ``<name>.tif.aux.xml`` holds a raster attribute table with the names and the colour of the second class.

    Args:
        path: The ``.tif``, checked to be writable.
        grid: Common grid of the maps.
        legend: Names and colours.
    """

    def __init__(self, path: Path, grid: PixelGrid, legend: Legend = LEGEND) -> None:
        self.path, self._grid, self._legend = path, grid, legend
        self._tiles, self._cog = hidden_name(path, 'tiles'), hidden_name(path, 'cog')
        self._seen: set[int] = set()
        self._dst: Any = None

    def __enter__(self) -> Self:
        grid = self._grid
        try:
            self._dst = rasterio.open(
                self._tiles, 'w', driver='GTiff', height=grid.height, width=grid.width, count=1, dtype='uint16',
                crs=grid.crs, transform=grid.transform, nodata=NOT_COMPARED, tiled=True, blockxsize=TILE,
                blockysize=TILE, compress='deflate', zlevel=1, bigtiff='if_safer',
            )  # fmt: skip
        except _WRITE_ERRORS as error:
            raise cannot_write(self.path, error) from error
        return self

    def write(self, tile: Tile) -> None:
        """Write a tile; each is written once.

        Raises:
            LandcoverError: If the disk is full or the like.
        """
        values = transition_values(tile.first, tile.second)
        self._seen |= set(np.unique(values).tolist())
        try:
            self._dst.write(values, 1, window=tile.window.ranges)
        except _WRITE_ERRORS as error:
            raise cannot_write(self.path, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._dst.close()
            if error is None:
                self._publish()
        except _WRITE_ERRORS as failure:
            if error is None:
                raise cannot_write(self.path, failure) from failure
        finally:
            for path in (self._tiles, self._cog):
                path.unlink(missing_ok=True)

    def _publish(self) -> None:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            rasterio.shutil.copy(
                self._tiles, self._cog, driver='COG', blocksize=TILE, compress='deflate', predictor='yes',
                overview_resampling='mode', bigtiff='if_safer', num_threads='all_cpus',
            )  # fmt: skip
        with self._cog.open('r+b') as file:
            os.fsync(file)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        sidecar = self.path.with_name(f'{self.path.name}.aux.xml')
        sidecar.write_text(attribute_table(self._seen, self._legend), encoding='utf-8')
        self._cog.replace(self.path)


def transition_name(value: int, legend: Legend = LEGEND) -> str:
    """What a value of the change raster means.

    Examples:
        >>> transition_name(306), transition_name(0)
        ('forest -> urban area', 'unchanged')
    """
    if value == UNCHANGED:
        return 'unchanged'
    return f'{legend[value // 100].name} -> {legend[value % 100].name}'


def attribute_table(values: set[int], legend: Legend = LEGEND) -> str:
    """GDAL's XML of a raster attribute table: value, transition, and the colour of what the second map shows."""
    columns = (('Value', 0, 5), ('Transition', 2, 2), ('R', 0, 6), ('G', 0, 7), ('B', 0, 8))
    fields = ''.join(
        f'<FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for i, (name, kind, usage) in enumerate(columns)
    )
    rows = []
    for index, value in enumerate(sorted(values - {NOT_COMPARED})):
        colour = (240, 240, 240) if value == UNCHANGED else legend[value % 100].colour
        cells = (value, transition_name(value, legend), *colour)
        rows.append(f'<Row index="{index}">' + ''.join(f'<F>{escape(str(c))}</F>' for c in cells) + '</Row>')
    return (
        '<PAMDataset><PAMRasterBand band="1">'
        f'<GDALRasterAttributeTable tableType="thematic">{fields}{"".join(rows)}</GDALRasterAttributeTable>'
        '</PAMRasterBand></PAMDataset>\n'
    )
