"""Writing a training store: the rasters are read once, and come out laid out for random patches."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray

from .._version import __version__
from ..errors import LandcoverError
from ..grid import PixelGrid
from ..legend import LEGEND, NODATA
from ..rasters.finding import STORE_MANIFEST
from ..rasters.identity import identity
from ..rasters.labels import AGGREGATIONS
from ..rasters.landcover import LabelRasters
from ..rasters.mosaics import Mosaics
from ..rasters.opening import close_rasters
from ..rasters.pixel_size import HECTARE, projected_pixel_area
from ..rasters.staging import write_small
from ..rasters.storing import Layout, stored_bytes
from .inventory import Inventory, check_labelled
from .inventory_table import write_table
from .prepare_images import ImageCopy, cache_bytes, pixel_bytes
from .prepare_labels import LabelCopy, LabelYear, label_years
from .staging import check_folder, check_space, for_good, publish, staged
from .store import INVENTORY, VERSION, Store, image_settings, label_settings, look_names

StoreKind = Literal['fast', 'compact', 'labels']
STORE_KINDS: tuple[StoreKind, ...] = ('fast', 'compact', 'labels')

#: What each method makes of the areas, as a table.
AREAS = 'areas.csv'


@dataclass(frozen=True)
class Prepared:
    """What came of it.

    Args:
        store: The finished store.
        inventory: What the ground holds.
        areas: For each year, pixels of the image grid by code, in the label rasters and after each method, shape
            ``(1 + methods, num_classes)``.
    """

    store: Store
    inventory: Inventory
    areas: dict[str, NDArray[np.float64]]


def prepare(
    images: Mosaics,
    labels: LabelRasters,
    folder: Path,
    *,
    kind: StoreKind = 'compact',
    cell: int = 32,
    shares: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Prepared:
    """Read mosaics and labels once and write a training store.

    The store appears as a whole, by renaming its folder. Labels that a killed run had finished are used by the next one
    with the same sources and settings; memory does not depend on the size of the rasters.

    Args:
        images: Mosaics; their grid is the reference.
        labels: Labels.
        folder: Of the store; made.
        kind: ``fast``: images uncompressed, to be mapped; ``compact``: images in small compressed blocks; ``labels``:
            labels and inventory only.
        cell: Edge of the cells of the inventory in pixels.
        shares: Write the share of each class in each pixel too, for soft labels.
        overwrite: Replace an older store.
        progress: Show progress bars on stderr, where that is a terminal.

    Raises:
        LandcoverError: If it cannot be written, rasters are damaged, or nothing is labelled.
    """
    if kind not in STORE_KINDS:
        raise LandcoverError(f'the store is one of {", ".join(STORE_KINDS)}, got {kind!r}')
    if cell < 4:
        raise LandcoverError(f'the cells of the inventory must be at least 4 px, got {cell}')
    folder = check_folder(folder, [*images.files, *labels.files], overwrite=overwrite)
    plan = _plan(images, labels, kind, cell, shares)
    with staged(folder, plan) as staging, rasterio.Env(GDAL_CACHEMAX=cache_bytes(images)):
        check_space(staging, space_needed(images, kind, shares), _smaller(kind, folder))
        copy = LabelCopy(labels, images.grid, 'fast' if kind == 'fast' else 'compact', shares, progress)
        years = [copy.write(staging / name, files) for name, files in label_years(labels).items()]
        unknown = sum(year.unknown for year in years)
        with for_good(staging):
            _check_any(years, images, labels, cell, unknown)
        prepared = LabelRasters([staging / name for name in label_years(labels)], source_legend='12')
        layout: Layout | None = None if kind == 'labels' else kind
        copied = ImageCopy(images, prepared)
        inventory = replace(copied.write(staging, layout, cell, progress=progress), unknown=unknown)
        with for_good(staging):
            check_labelled(inventory, images, labels)
        areas = _by_year(years)
        looks, channels = look_names(images), images.channels
        write_small(staging / INVENTORY, lambda path: write_table(path, inventory, looks, channels))
        write_small(staging / AREAS, lambda path: path.write_text(area_table(areas, images.grid)))
        manifest = _manifest(staging, plan, images, list(copied.files()) if layout else [], labels, inventory)
        write_small(staging / STORE_MANIFEST, lambda path: path.write_text(json.dumps(manifest, indent=1)))
        close_rasters()
        publish(staging, folder)
    store = Store.open(folder)
    if store is None:
        raise LandcoverError(f'{folder} has vanished: another program works there')
    return Prepared(store, inventory, areas)


def _plan(images: Mosaics, labels: LabelRasters, kind: StoreKind, cell: int, shares: bool) -> dict[str, Any]:
    """What decides the result, as JSON holds it: a staging folder with another plan is not gone on with."""
    return {
        'version': VERSION,
        'software': f'landcover {__version__}',
        'store': kind,
        'shares': shares,
        'cell': cell,
        'sources': {'images': [identity(f) for f in images.files], 'labels': [identity(f) for f in labels.files]},
        **image_settings(images),
        'bands': images.bands,
        'seasons': images.seasons,
        'label_settings': label_settings(labels),
    }


def space_needed(images: Mosaics, kind: StoreKind, shares: bool) -> float:
    """Bytes that a store takes.

    What is compressed is guessed: images 0.7 of their pixels, or a little more than compressed sources take; labels a
    tenth, shares one in fifty.
    """
    grid, dtype, byte = images.grid, images.dtype, np.dtype(np.uint8)
    pixels = grid.height * grid.width
    bands = pixel_bytes(images) // dtype.itemsize
    small = pixels * (0.3 + (0.02 * len(LEGEND.codes) if shares else 0))
    if kind == 'labels':
        return small
    if kind == 'fast':
        return small + stored_bytes(grid, bands, dtype, 'fast') + 2 * stored_bytes(grid, 1, byte, 'fast')
    return small + min(0.7 * pixels * bands * dtype.itemsize, 1.3 * sum(identity(f)['bytes'] for f in images.files))


def _smaller(kind: StoreKind, folder: Path) -> str:
    """What else a user can do whose disk is too small."""
    ways = ['write a smaller one (--store compact)'] if kind == 'fast' else []
    ways += ['delete the older store first'] if folder.exists() else []
    return ''.join(f', or {way}' for way in ways)


def _check_any(years: Sequence[LabelYear], images: Mosaics, labels: LabelRasters, cell: int, unknown: int) -> None:
    """Tell that nothing is labelled before the images are copied."""
    if not any(year.areas[0, NODATA + 1 :].any() for year in years):
        counts, valid = np.zeros((1, 1, LEGEND.num_classes), dtype=np.uint32), np.zeros((1, 1, 1), dtype=np.uint32)
        check_labelled(Inventory(images.grid, cell, counts, valid, unknown), images, labels)


def _by_year(years: Sequence[LabelYear]) -> dict[str, NDArray[np.float64]]:
    """Areas by year; a year may have several rasters."""
    areas: dict[str, NDArray[np.float64]] = {}
    for found in years:
        areas[found.year] = areas.get(found.year, 0) + found.areas
    return areas


def _manifest(
    staging: Path,
    plan: dict[str, Any],
    images: Mosaics,
    image_files: Sequence[str],
    labels: LabelRasters,
    inventory: Inventory,
) -> dict[str, Any]:
    """What ``store.json`` says."""
    visible = (p.name for p in staging.glob('[!.]*'))  # a killed run may have left half a file under a hidden name
    names = sorted(name for name in visible if name.endswith(('.tif', '.parquet', '.csv')))
    return {
        **plan,
        'images': list(image_files),
        'labels': list(label_years(labels)),
        'files': {name: (staging / name).stat().st_size for name in names},
        'grid': {
            'crs': images.grid.crs.to_string(),
            'origin': list(images.grid.origin),
            'pixel_size': list(images.grid.res),
            'shape': [images.grid.height, images.grid.width],
        },
        'inventory': {
            'cell': inventory.cell,
            'looks': look_names(images),
            'seasons': images.seasons,
            'bands': images.bands,
            'unknown': inventory.unknown,
        },
    }


def area_unit(grid: PixelGrid) -> tuple[str, float]:
    """Unit in which areas are told, and how many of it a pixel of the grid has: hectares, or pixels in degrees."""
    if not grid.crs.is_projected:
        return 'px', 1.0
    return 'ha', projected_pixel_area(grid) / HECTARE


def area_table(areas: dict[str, NDArray[np.float64]], grid: PixelGrid) -> str:
    """Area of each class in the labels and after each method, as CSV.

    Args:
        areas: See :class:`Prepared`.
        grid: Image grid.
    """
    unit, per_pixel = area_unit(grid)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['year', 'code', 'class', 'unit', 'labels', *AGGREGATIONS])
    for year, area in areas.items():
        for c in LEGEND:
            writer.writerow([year, c.code, c.name, unit, *(round(float(v) * per_pixel, 4) for v in area[:, c.code])])
    return out.getvalue()
