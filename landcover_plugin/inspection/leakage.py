"""Check of the split: is there one for this patch size, and do its parts keep their distance?"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import LEGEND, NODATA
from ..rasters.landcover import LabelRasters
from ..rasters.mosaics import Mosaics
from ..sampling.blocks import Split, SplitName, block_split
from ..sampling.inventory import Inventory, cell_size, take_inventory
from ..sampling.inventory_cache import kept_inventory
from ..sampling.store import STORE_FOLDER, Store
from .findings import Finding

#: Rasters of at most this many pixels are counted for the check.
AFFORDABLE = 2560 * 2560


def find_inventory(images: Mosaics, labels: LabelRasters, patch_size: int, root: Path) -> Inventory | None:
    """What the ground holds: from the store or the cache, or counted now where that takes seconds; else None."""
    cell = cell_size([patch_size])
    found = _of_store(images, labels, cell, root / STORE_FOLDER) or kept_inventory(
        images, labels, cell, (root / STORE_FOLDER).parent
    )
    if found is not None or images.grid.height * images.grid.width > AFFORDABLE:
        return found
    return take_inventory(images, labels, cell, progress=False)


def _of_store(images: Mosaics, labels: LabelRasters, cell: int, folder: Path) -> Inventory | None:
    try:
        store = Store.open(folder)
    except LandcoverError:  # the check of storage tells
        return None
    if store is None or store.image_mismatch(images) or store.label_mismatch(labels):
        return None
    names = {'bands': images.bands, 'band_order': images.all_bands}
    return store.inventory(Mosaics(store.images, **names, seasons=images.seasons, nodata=images.nodata), cell)


def check_split(inventory: Inventory | None, patch_size: int) -> Iterator[Finding]:
    """Draw the default split and measure the distance between its parts.

    Args:
        inventory: What the ground holds; None if that is not known.
        patch_size: Edge of a patch in pixels.
    """
    if inventory is None:
        yield Finding(
            'split',
            'note',
            'the split is not drawn here, since that takes a scan of all rasters; fit scans them once, draws '
            'it and reports the shares',
            '',
        )
        return
    try:
        split = block_split(inventory, patch_size=patch_size)
    except LandcoverError as e:
        yield _no_split(inventory, patch_size, e)
        return
    yield from describe_split(inventory, split, patch_size)


def _no_split(inventory: Inventory, patch_size: int, error: LandcoverError) -> Finding:
    """The error, with the largest patch for which there is a split that keeps half of the ground, if any."""
    for smaller in range((patch_size - 1) // 32 * 32, 31, -32):
        try:
            split = block_split(inventory, patch_size=smaller)
        except LandcoverError:
            continue
        if _kept(inventory, split) >= 0.5:
            key = f'--data.patch_size {smaller}'
            return Finding('split', 'error', str(error), f'add {key}', {'keys': [key]})
    return Finding('split', 'error', str(error), 'label more ground: no patch size leaves a split')


def _kept(inventory: Inventory, split: Split) -> float:
    """Share of the labelled ground that lies in one of the parts."""
    return float(inventory.labelled[split.cells > 0].sum()) / max(int(inventory.labelled.sum()), 1)


def describe_split(inventory: Inventory, split: Split, patch_size: int) -> Iterator[Finding]:
    """Distance, shares, and classes that a part lacks."""
    names: Sequence[SplitName] = ('train', 'val', 'test')
    counts = {n: inventory.class_counts(split.region(n))[NODATA + 1 :] for n in names}
    total = max(int(inventory.labelled.sum()), 1)
    shares = {n: float(c.sum()) / total for n, c in counts.items()}
    lost, gap = 1 - sum(shares.values()), split.gap()
    data = {'gap_px': gap, 'shares': shares, 'buffer': lost}
    told = ', '.join(f'{n} {s:.0%}' for n, s in shares.items())
    if gap < patch_size:
        yield Finding(
            'split',
            'error',
            f'training, validation and test ground come as near as {gap} px, less than a patch of '
            f'{patch_size} px: tests would look better than they are',
            'report this with landcover doctor --env',
            data,
        )
        return
    sentence = f'{told} of the labelled ground, at least {gap} px apart; {lost:.0%} is given up between blocks'
    if lost > 0.5:
        smaller = f'a smaller --data.patch_size than {patch_size} loses less'
        yield Finding('split', 'note', sentence, smaller, data)
    else:
        yield Finding('split', 'ok', sentence, data=data)
    yield from _check_lacking(inventory, counts)


def _check_lacking(inventory: Inventory, counts: Mapping[SplitName, NDArray[np.int64]]) -> Iterator[Finding]:
    """Classes that are on the ground, and not on that of a part."""
    present = [code for code in LEGEND.codes if inventory.class_counts()[code]]
    lacking: dict[str, list[str]] = {
        part: [LEGEND[c].name for c in present if not of_part[c - 1]] for part, of_part in counts.items()
    }
    untaught = lacking.pop('train')
    way_out = 'try another --data.split_seed, a smaller --data.patch_size, or --data.folds'
    if untaught:
        sentence = f'the training ground holds nothing of {", ".join(untaught)}, so that cannot be learnt'
        yield Finding('split', 'warning', sentence, way_out, {'train': untaught})
    if any(lacking.values()):
        told = '; '.join(f'{part}: {", ".join(names)}' for part, names in lacking.items() if names)
        yield Finding('split', 'note', f'cannot be scored, for want of ground: {told}', way_out, lacking)
