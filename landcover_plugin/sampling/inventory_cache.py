"""The inventory kept beside the rasters, so that they are scanned once."""

import hashlib
import json
import logging
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..rasters.landcover import LabelRasters
from ..rasters.mosaics import Mosaics
from ..rasters.outputs import write_whole
from .inventory import Inventory, take_inventory

log = logging.getLogger(__name__)

#: Arrays of an inventory, by the names under which they are kept.
_ARRAYS = ('counts', 'valid', 'purity', 'mean', 'std')


def cached_inventory(
    images: Mosaics, labels: LabelRasters, cell: int, folder: Path, *, progress: bool = True
) -> Inventory:
    """The inventory from the cache, or taken now and kept there.

    The cache knows the sources by path, size and time of change, and the parameters that matter; a changed
    source is scanned anew. A folder that cannot be written costs a message, not the run.
    """
    kept = kept_inventory(images, labels, cell, folder)
    if kept is not None:
        return kept
    taken = take_inventory(images, labels, cell, progress=progress)
    arrays = {name: getattr(taken, name) for name in _ARRAYS}
    path = _path(images, labels, cell, folder)
    try:
        write_whole(path, lambda p: np.savez_compressed(p, allow_pickle=False, unknown=taken.unknown, **arrays))
    except OSError as e:
        log.warning('the inventory could not be kept in %s (%s); the next run scans the rasters again', folder, e)
    return taken


def kept_inventory(images: Mosaics, labels: LabelRasters, cell: int, folder: Path) -> Inventory | None:
    """The inventory from the cache, or None where it is not there or damaged."""
    path = _path(images, labels, cell, folder)
    try:
        with np.load(path, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in _ARRAYS}
            return Inventory(images.grid, cell, unknown=int(saved['unknown']), **arrays)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        log.warning('%s is damaged (%s); the rasters are scanned again', path, e)
        return None


def _path(images: Mosaics, labels: LabelRasters, cell: int, folder: Path) -> Path:
    return folder / f'inventory-{fingerprint(images, labels, cell)}.npz'


def fingerprint(images: Mosaics, labels: LabelRasters, *parameters: object) -> str:
    """Short hash of the source files (path, size, time of change) and of what decides how they are read."""
    facts = [
        'moments',
        [(str(f), *_stat(f)) for f in (*images.files, *labels.files)],
        [images.seasons, images.bands, list(images.all_bands), images.nodata],
        [labels.aggregation, labels.source_legend, sorted((labels.class_weights or {}).items())],
        list(map(str, parameters)),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _stat(path: str) -> tuple[int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
