"""Folds of ground, each judged by a network that saw neither it nor a patch that touches it.

Cross-fitting for a label audit: every labelled pixel is held out once. Other than in
:func:`~landcover_plugin.sampling.blocks.fold_split`, which gives up half a patch on both sides, held-out ground is kept
whole and the distance of a patch is taken from the ground that trains and validates.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from .blocks import SPLITS, Split, SplitName, assign, block_ids
from .cells import near, square_sums
from .inventory import Inventory

#: Share of the ground beside a fold on which its network is validated and calibrated.
VALIDATION = 0.15

#: Least share of the labelled pixels to validate on.
_VALIDATES = 0.01

#: Edges of blocks that are tried, in patches.
_EDGES = (8, 6, 5, 4, 3, 2)

#: With so many labelled blocks the largest edge is taken without trying others.
_ENOUGH = 60


def cross_fit(
    inventory: Inventory, *, folds: int, patch_size: int, block_size: int | None = None, seed: int = 0
) -> list[Split]:
    """One split for each fold: ``test`` is the fold, ``train`` and ``val`` lie at least a patch away from it.

    Over all splits each labelled cell is ``test`` exactly once. Blocks are divided so that each fold gets its share of
    each class.

    Args:
        inventory: What the cells hold.
        folds: Number of folds, at least 2.
        patch_size: Edge of the largest patch in pixels.
        block_size: Edge of a block in pixels (default: of 8, 6, 5, 4, 3 and 2 patches the one with which the networks
            train on the most of each class; 8 where there is room for 60 blocks).
        seed: Of the draw.

    Raises:
        LandcoverError: If there are fewer than 2 folds, fewer blocks than folds, or no ground is left to train on.
    """
    if folds < 2:
        raise LandcoverError(f'folds must be at least 2, so that others train for each, got {folds}')
    sizes = [n * patch_size for n in _EDGES] if block_size is None else [block_size]
    best: tuple[float, list[Split]] | None = None
    most = 0
    for size in sizes:
        blocks = _labelled_blocks(inventory, size)
        count = int(blocks.max()) + 1
        most = max(most, count)
        if count < max(folds, 3):  # one is held out, one trains, one validates
            continue
        found = list(_splits(inventory, blocks, folds=folds, patch_size=patch_size, seed=seed))
        merit = min(_merit(inventory, split) for split in found)
        if best is None or merit > best[0]:
            best = merit, found
        if count >= _ENOUGH:
            break
    if best is None:
        raise LandcoverError(
            f'the labelled ground holds {most} blocks of {min(sizes)} px, but {max(folds, 3)} are needed for {folds} '
            'folds: choose fewer folds, a smaller patch_size or smaller blocks'
        )
    return [_checked(split, number, patch_size) for number, split in enumerate(best[1])]


def held_out(split: Split, patch_size: int) -> NDArray[np.bool_]:
    """Cells that a network trained on a split may judge: test ground a patch or more from all that it knows.

    No window of ``patch_size`` pixels holds a pixel of these cells and a pixel of training or validation ground.

    Args:
        split: Of the network.
        patch_size: Edge of its largest patch in pixels.

    Returns:
        Shape ``(rows, cols)``.
    """
    known = (split.cells == SPLITS['train']) | (split.cells == SPLITS['val'])
    return split.region('test') & ~near(known, -(-patch_size // split.cell))


def training_share(inventory: Inventory, split: Split) -> float:
    """Share of the labelled pixels of a class that trains, on average over the classes."""
    everything = inventory.class_counts()[1:]
    trains = inventory.class_counts(split.region('train'))[1:]
    return float(np.mean(trains[everything > 0] / everything[everything > 0]))


def _merit(inventory: Inventory, split: Split) -> float:
    """How good a split is to train on; one with hardly any validation ground comes after all others."""
    validates = inventory.class_counts(split.region('val'))[1:].sum() / inventory.class_counts()[1:].sum()
    return training_share(inventory, split) - (validates < _VALIDATES)


def _labelled_blocks(inventory: Inventory, size: int) -> NDArray[np.int64]:
    """Number of the block of each cell, without a gap; -1 where a block holds no label."""
    ids = block_ids(inventory, size)
    labelled = np.bincount(ids.ravel(), weights=inventory.labelled.ravel()) > 0
    return np.where(labelled, np.cumsum(labelled) - 1, -1)[ids]


def _splits(
    inventory: Inventory, blocks: NDArray[np.int64], *, folds: int, patch_size: int, seed: int
) -> Iterator[Split]:
    counts = np.zeros((int(blocks.max()) + 1, inventory.counts.shape[-1]), dtype=np.int64)
    np.add.at(counts, blocks[blocks >= 0], inventory.counts[blocks >= 0])
    counts[:, 0] = 0
    fold_of = assign(counts, [1 / folds] * folds, seed)
    for fold in range(folds):
        others = np.flatnonzero(fold_of != fold)
        parts = assign(counts[others], [1 - VALIDATION, VALIDATION], seed + 1 + fold)
        numbers = np.full(len(counts), SPLITS['test'])
        numbers[others] = np.where(parts == 1, SPLITS['val'], SPLITS['train'])
        yield _apart(inventory, blocks, numbers, patch_size)


def _apart(inventory: Inventory, blocks: NDArray[np.int64], numbers: NDArray[np.int64], patch_size: int) -> Split:
    """The split of cells, training and validation ground a patch from held-out ground and from each other."""
    cells = np.where(blocks >= 0, numbers[blocks], 0).astype(np.uint8)
    train, val, test = (cells == number for number in SPLITS.values())
    patch, half = -(-patch_size // inventory.cell), -(-patch_size // (2 * inventory.cell))
    beside = near(test, patch)
    val &= ~beside & ~near(train & ~beside, half)
    cells[~test] = 0
    cells[val] = SPLITS['val']
    cells[train & ~beside & ~near(val, patch)] = SPLITS['train']
    return Split(inventory.grid, inventory.cell, cells, blocks.astype(np.int32))


def _checked(split: Split, number: int, patch_size: int) -> Split:
    """The split, if a patch fits into its training ground and there is ground to validate on."""
    names: dict[SplitName, int] = {'train': -(-patch_size // split.cell), 'val': 1}
    for name, size in names.items():
        if not (square_sums(split.region(name), size) == size * size).any():
            raise LandcoverError(
                f'fold {number} leaves no {name} ground a patch of {patch_size} px away from what it holds out: choose '
                'a smaller patch_size, or another number of folds or block_size'
            )
    return split
