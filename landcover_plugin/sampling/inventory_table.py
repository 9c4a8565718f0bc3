"""An inventory as a table of squares, one a cell: GeoParquet, which any GIS and data frame opens."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from ..grid import PixelGrid
from ..legend import LEGEND
from .inventory import Inventory

#: Cells that are turned into squares at once; a country has a million.
_CELLS = 2**16


def write_table(path: Path, inventory: Inventory, looks: Sequence[str], channels: Sequence[str]) -> None:
    """Write an inventory as GeoParquet, some rows of cells at a time.

    One row a cell, by rows from the north-west corner. Columns:

    * ``row``, ``col``: int32, position of the cell in the grid of cells;
    * ``pixels``: int32, image pixels of the cell, fewer than ``cell ** 2`` at the south and east rim;
    * ``labelled``: float32, 0-1, share of the pixels that have a code;
    * ``purity``: percent of its pixel that the code covers, mean over the labelled pixels;
    * ``class_<code>``: pixels of each code; ``class_0`` is no data;
    * ``valid_<look>``: pixels that were measured, by look (``valid_2018-04``; stacked seasons are one look, ``a+b``);
    * ``mean <look> <channel>``, ``std <look> <channel>``: float32, mean and standard deviation of the digital numbers
      of the measured pixels (``mean 2018-04 B08``);
    * ``geometry``: WKB, the square in the CRS of the images.

    Args:
        path: The file.
        inventory: With purity and band statistics.
        looks: Names of the looks.
        channels: Names of the channels.
    """
    rows, cols = inventory.shape
    columns = _columns(inventory, looks, channels)
    types = {'row': pa.int32(), 'col': pa.int32()} | {n: pa.from_numpy_dtype(v.dtype) for n, v in columns.items()}
    schema = pa.schema(types | {'geometry': pa.binary()}, metadata={'geo': json.dumps(_geo(inventory.grid))})
    step = max(_CELLS // cols, 1)
    with pq.ParquetWriter(path, schema, compression='zstd') as writer:
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            row, col = (a.ravel().astype(np.int32) for a in np.mgrid[part, :cols])
            values = {name: np.ascontiguousarray(value[part]).ravel() for name, value in columns.items()}
            squares = shapely.to_wkb(_squares(inventory, row, col))
            writer.write_table(pa.table({'row': row, 'col': col} | values | {'geometry': squares}, schema=schema))


def read_table(path: Path, grid: PixelGrid, cell: int, looks: Sequence[str], channels: Sequence[str]) -> Inventory:
    """The inventory that :func:`write_table` wrote, without unknown values.

    Args:
        path: The file.
        grid: Image grid.
        cell: Edge of a cell in pixels.
        looks: Names of the looks.
        channels: Names of the channels.

    Raises:
        ValueError: If the table is damaged.
        KeyError: If it lacks a column.
    """
    shape, classes = (-(-grid.height // cell), -(-grid.width // cell)), range(LEGEND.num_classes)
    with pq.ParquetFile(path) as file:

        def column(name: str) -> NDArray[Any]:  # one at a time: a country has a million cells
            return file.read(columns=[name])[name].to_numpy().reshape(shape)

        def of_channels(name: str) -> NDArray[np.float32]:
            return np.stack([[column(f'{name} {look} {c}') for c in channels] for look in looks])

        counts = np.stack([column(f'class_{code}') for code in classes], axis=-1)
        valid = np.stack([column(f'valid_{look}') for look in looks])
        purity, mean, std = column('purity'), of_channels('mean'), of_channels('std')
    return Inventory(grid, cell, counts, valid, purity=purity, mean=mean, std=std)


def _columns(inventory: Inventory, looks: Sequence[str], channels: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Values of the cells by name, shape ``(rows, cols)``."""
    columns: dict[str, NDArray[Any]] = {
        'pixels': inventory.pixels.astype(np.int32),
        'labelled': (inventory.labelled / inventory.pixels).astype(np.float32),
    }
    if inventory.purity is not None:
        columns['purity'] = inventory.purity
    columns |= {f'class_{code}': inventory.counts[..., code] for code in range(LEGEND.num_classes)}
    for i, look in enumerate(looks):
        columns[f'valid_{look}'] = inventory.valid[i]
        for name, values in (('mean', inventory.mean), ('std', inventory.std)):
            if values is not None:
                columns |= {f'{name} {look} {c}': values[i, j] for j, c in enumerate(channels)}
    return columns


def _squares(inventory: Inventory, row: NDArray[Any], col: NDArray[Any]) -> NDArray[Any]:
    """The ground of some cells; the last ones of the grid may be cut."""
    cell, grid = inventory.cell, inventory.grid
    (x0, y0), (xres, yres) = grid.origin, grid.res
    left, top = x0 + col * cell * xres, y0 - row * cell * yres
    right = x0 + np.minimum((col + 1) * cell, grid.width) * xres
    bottom = y0 - np.minimum((row + 1) * cell, grid.height) * yres
    return np.asarray(shapely.box(left, bottom, right, top))


def _geo(grid: PixelGrid) -> dict[str, Any]:
    """What GeoParquet says about the squares."""
    crs = CRS.from_wkt(grid.crs.to_wkt()).to_json_dict()
    column = {'encoding': 'WKB', 'geometry_types': ['Polygon'], 'crs': crs, 'bbox': list(grid.bounds())}
    return {'version': '1.0.0', 'primary_column': 'geometry', 'columns': {'geometry': column}}
