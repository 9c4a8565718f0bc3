"""Checks of room: the training store that is there, or the one that is worth writing."""

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LandcoverError
from ..machine import memory_bytes
from ..rasters.landcover import LabelRasters
from ..rasters.mosaics import Mosaics
from ..rasters.storing import stored_bytes
from ..sampling.store import STORE_FOLDER, Store
from .facts import Facts
from .findings import Finding

#: Share of the free disk that a store may fill.
_FILL = 0.9


def check_storage(
    root: Path, files: Sequence[Facts], images: Mosaics, labels: LabelRasters | None
) -> Iterator[Finding]:
    """The training store below a folder, or which one is worth writing and whether there is room for it.

    Args:
        root: Folder of the rasters; nothing is said of a remote one.
        files: Mosaics.
        images: The same, open.
        labels: Labels, if they can be used.
    """
    if not root.is_dir():
        return
    try:
        store = Store.open(root / STORE_FOLDER)
    except LandcoverError as e:
        text, _, way_out = str(e).rpartition(': ')
        yield Finding('storage', 'warning', text, way_out)
        return
    yield _existing(root, store, images, labels) if store else _wanted(root, files)
    if not os.access(root, os.W_OK):
        sentence = f'{root} cannot be written to, so scans are not kept in it'
        yield Finding('storage', 'note', sentence, 'add --data.cache DIR with a folder in which you may write')


def _existing(root: Path, store: Store, images: Mosaics, labels: LabelRasters | None) -> Finding:
    """Whether training will use the store."""
    why = store.image_mismatch(images) or (labels and store.label_mismatch(labels))
    data = {'store': store.layout, 'folder': str(store.folder)}
    if why and store.images:
        again = f'landcover prepare {shlex.quote(str(root))} --store {store.layout} --overwrite'
        return Finding('storage', 'warning', f'the training store in {store.folder} is left aside: {why}', again, data)
    return Finding('storage', 'ok', f'training reads from the {store.layout} store in {store.folder}', data=data)


def _wanted(root: Path, files: Sequence[Facts]) -> Finding:
    """Which store is worth writing: the fast one where half of the memory holds it."""
    needs, memory, free = store_bytes(files), memory_bytes(), shutil.disk_usage(root).free
    data: dict[str, Any] = {'needs_bytes': needs, 'memory_bytes': memory, 'free_bytes': free}
    kind = 'fast' if needs['fast'] <= memory / 2 and needs['fast'] < _FILL * free else 'compact'
    room = f'memory {size(memory)}, free disk {size(free)}'
    if needs[kind] > _FILL * free:
        sentence = f'no room for a training store, which takes about {size(needs[kind])}: {room}'
        way_out = f'free some space, or landcover prepare {shlex.quote(str(root))} --output DIR on another disk'
        return Finding('storage', 'warning', sentence, way_out, data)
    why = 'fits in half of the memory' if kind == 'fast' else 'is for images that memory or disk cannot hold unpacked'
    return Finding(
        'storage',
        'note',
        f'no training store; a {kind} one takes about {size(needs[kind])} and {why} ({room})',
        f'landcover prepare {shlex.quote(str(root))} --store {kind}',
        {**data, 'store': kind},
    )


def store_bytes(files: Sequence[Facts]) -> dict[str, int]:
    """Bytes that either store of mosaics and labels takes, about."""
    grids = max(f.grid.height * f.grid.width for f in files)
    fast = sum(stored_bytes(f.grid, f.bands, np.dtype(f.dtype), 'fast') for f in files)
    compact = sum(f.file_bytes if f.driver == 'GTiff' and f.file_bytes else f.raw_bytes // 2 for f in files)
    return {'fast': fast + 2 * grids, 'compact': compact + grids // 2}  # codes and purity


def size(count: float) -> str:
    """Bytes in the unit in which they are a short number.

    Examples:
        >>> size(1.5e6), size(24e9)
        ('1.5 MB', '24.0 GB')
    """
    return f'{count / 1e9:,.1f} GB' if count >= 1e9 else f'{count / 1e6:,.1f} MB'
