"""Splits as polygons: reading saved blocks or a user's own, writing blocks for any GIS."""

import logging
import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..legend import LEGEND
from ..rasters.outputs import write_whole
from ..rasters.stand_ins import local_copy
from .blocks import SPLITS, Split
from .inventory import Inventory

#: Other words for the splits that polygon files use.
_SYNONYMS = {'validation': 'val', 'valid': 'val', 'training': 'train', 'testing': 'test'}

log = logging.getLogger(__name__)


def polygon_split(inventory: Inventory, path: str | os.PathLike[str], *, patch_size: int) -> Split:
    """A split from a vector file: saved blocks or a user's own polygons with a ``split`` column.

    A cell belongs to a split if it lies wholly in its polygons. The polygons are taken as they are, without a
    further buffer; if they come nearer to each other than a patch, a warning says so.

    Args:
        inventory: What the cells hold.
        path: Any vector file; its ``split`` column holds train, val (or validation) and test.
        patch_size: Edge of the largest patch in pixels.

    Raises:
        LandcoverError: If the file cannot be read, lacks the column, or its polygons overlap between splits.
    """
    frame = _read_polygons(path, inventory.grid.crs)
    cells = np.zeros(inventory.shape, dtype=np.uint8)
    blocks = np.full(inventory.shape, -1, dtype=np.int32)
    for name, number in SPLITS.items():
        own = frame[frame['split'] == name]
        inside = cells_within(inventory, shapely.union_all(own.geometry.to_numpy()))
        if (cells[inside] > 0).any():
            raise LandcoverError(f'{path}: polygons of {name} overlap those of another split; cut them apart')
        cells[inside] = number
        blocks[inside] = _polygon_numbers(inventory, own)[inside]
    if not (cells > 0).any():
        raise LandcoverError(f'{path}: no polygon holds a whole cell of {inventory.cell} px of the image grid')
    split = Split(inventory.grid, inventory.cell, cells, blocks)
    if 0 <= split.gap() < patch_size:
        log.warning(
            '%s: polygons of different splits come within %d px of each other, less than a patch of %d px: '
            'scores will look better than they are', path, split.gap(), patch_size
        )  # fmt: skip
    return split


def _read_polygons(path: str | os.PathLike[str], crs: CRS) -> gpd.GeoDataFrame:
    """Sound polygons in the given CRS, with the words of SPLITS in their column ``split``."""
    path = local_copy(path)
    if not path.exists():
        raise LandcoverError(f'{path} does not exist; name a vector file with a split column')
    try:
        frame = gpd.read_file(path)
    except Exception as e:
        raise LandcoverError(f'{path} cannot be read as a vector file ({str(e) or type(e).__name__})') from e
    if 'split' not in frame.columns or getattr(frame, 'crs', None) is None:
        raise LandcoverError(f"{path} needs a CRS and a column 'split' that holds train, val and test")
    words = frame['split'].astype(str).str.strip().str.lower()
    frame['split'] = words.map(lambda w: _SYNONYMS.get(w, w))
    if unknown := sorted(set(frame['split']) - set(SPLITS)):
        raise LandcoverError(f'{path}: the split {unknown[0]!r} is not one of {", ".join(SPLITS)}')
    if unsound := int((~frame.geometry.is_valid).sum()):
        raise LandcoverError(
            f'{path}: {unsound} polygons are empty or cross themselves; repair them (QGIS: Fix geometries)'
        )
    moved = frame.to_crs(crs.to_wkt())
    if not np.isfinite(moved.total_bounds).all() and len(frame):
        raise LandcoverError(
            f'{path}: the coordinates {frame.total_bounds.tolist()} do not exist in its CRS, {frame.crs.name}; '
            'assign the right one (ogr2ogr -a_srs)'
        )
    return moved.assign(block=_block_numbers(moved))


def _block_numbers(frame: gpd.GeoDataFrame) -> NDArray[np.int32]:
    """The numbers of saved blocks, so that they are called the same again; else the position of each polygon."""
    if 'block' in frame and frame['block'].dtype.kind in 'iu' and frame['block'].is_unique:
        found = frame['block'].to_numpy()
        if len(found) and found.min() >= 0 and found.max() < np.iinfo(np.int32).max:
            return found.astype(np.int32)
    return np.arange(len(frame), dtype=np.int32)


def _polygon_numbers(inventory: Inventory, frame: gpd.GeoDataFrame) -> NDArray[np.int32]:
    """Number of the polygon that holds the centre of each cell, -1 where none does."""
    shapes = list(zip(frame.geometry, frame['block'].tolist(), strict=True))
    if not shapes:
        return np.full(inventory.shape, -1, dtype=np.int32)
    transform = _cell_transform(inventory.grid, inventory.cell)
    return rasterio.features.rasterize(shapes, inventory.shape, fill=-1, transform=transform, dtype=np.int32)


def _cell_transform(grid: PixelGrid, cell: int) -> Affine:
    return grid.transform @ Affine.scale(cell)


def cells_within(inventory: Inventory, geometry: shapely.Geometry) -> NDArray[np.bool_]:
    """Cells wholly inside a geometry, to a thousandth of a pixel; the last ones of the grid count as cut."""
    if geometry.is_empty:
        return np.zeros(inventory.shape, dtype=bool)
    grid, cell = inventory.grid, inventory.cell
    touched = rasterio.features.rasterize(
        [geometry], inventory.shape, transform=_cell_transform(grid, cell), all_touched=True, dtype=np.uint8
    ).astype(bool)
    rows, cols = np.nonzero(touched)
    xres, yres = grid.res
    (x0, y0), (_, ymin, xmax, _) = grid.origin, grid.bounds()
    boxes = shapely.box(
        x0 + cols * cell * xres,
        np.maximum(y0 - (rows + 1) * cell * yres, ymin),
        np.minimum(x0 + (cols + 1) * cell * xres, xmax),
        y0 - rows * cell * yres,
    )
    grown = shapely.buffer(geometry, 1e-3 * min(xres, yres), join_style='mitre')
    shapely.prepare(grown)
    touched[rows, cols] = shapely.covers(grown, boxes)
    return touched


def write_split(path: str | os.PathLike[str], split: Split, inventory: Inventory) -> None:
    """Write the blocks as a GeoPackage: polygon, split, block number, and pixels of each class.

    The file appears under its name only when it is whole, and :func:`polygon_split` reads it back.

    Raises:
        LandcoverError: If the file cannot be written.
    """
    labels = np.where(split.cells > 0, split.blocks + 1, 0).astype(np.int32)
    rows = []
    clip = shapely.box(*split.grid.bounds())
    for number in np.unique(labels[labels > 0]):
        where = labels == number
        counts = inventory.class_counts(where)
        name = next(n for n, v in SPLITS.items() if v == split.cells[where][0])
        pixels = {LEGEND[c].name: int(counts[c]) for c in LEGEND.codes}
        rows.append({'split': name, 'block': int(number) - 1, **pixels})
    shapes: dict[int, list[shapely.Geometry]] = {int(v): [] for v in np.unique(labels[labels > 0])}
    transform = _cell_transform(split.grid, split.cell)
    for geometry, value in rasterio.features.shapes(labels, mask=labels > 0, transform=transform):
        shapes[int(value)].append(shapely.geometry.shape(geometry))
    geometry = [shapely.intersection(shapely.union_all(parts), clip) for parts in shapes.values()]
    frame = gpd.GeoDataFrame(rows, geometry=geometry, crs=CRS.from_user_input(split.grid.crs).to_wkt())
    try:
        write_whole(Path(path), lambda p: frame.to_file(p, layer='blocks', driver='GPKG'))
    except (OSError, RuntimeError) as e:  # pyogrio's errors are RuntimeErrors
        raise LandcoverError(f'{path} cannot be written ({e}); choose a folder in which you may write') from e
