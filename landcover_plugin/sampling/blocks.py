"""Blocks of ground that go whole to training, validation or test, and the buffer between them.

Neighbouring pixels of one field in training and in test make a test that tells nothing, so ground is split by
blocks (Roberts et al. 2017, https://doi.org/10.1111/ecog.02881) that keep a distance of at least a patch.
"""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA
from .cells import near, rectangles
from .inventory import Inventory

SplitName = Literal['train', 'val', 'test']

#: Numbers of the splits in an array of cells; 0 belongs to none (buffer, unlabelled ground).
SPLITS: dict[SplitName, int] = {'train': 1, 'val': 2, 'test': 3}


@dataclass(frozen=True)
class Split:
    """Which cell belongs to which split.

    Args:
        grid: Image grid.
        cell: Edge of a cell in pixels.
        cells: Shape ``(rows, cols)``, uint8: a number of :data:`SPLITS`, or 0.
        blocks: Shape ``(rows, cols)``: number of the block, for display.
    """

    grid: PixelGrid
    cell: int
    cells: NDArray[np.uint8]
    blocks: NDArray[np.int32]

    def region(self, name: SplitName) -> NDArray[np.bool_]:
        """Cells of a split, shape ``(rows, cols)``."""
        return self.cells == SPLITS[name]

    def windows(self, name: SplitName) -> list[PixelWindow]:
        """Rectangles of pixels that cover a split exactly once."""
        found = (w.scaled(self.cell).intersection(self.grid.full) for w in rectangles(self.region(name)))
        return [w for w in found if not w.is_empty]

    def gap(self) -> int:
        """Least distance between two splits in whole pixels, rounded down to cells; -1 with a single split."""
        masks = [self.cells == n for n in SPLITS.values() if (self.cells == n).any()]
        if len(masks) < 2:
            return -1
        radii = range(1, max(self.cells.shape))
        return self.cell * bisect.bisect_left(
            radii, True, key=lambda r: any((near(a, r) & b).any() for a, b in itertools.combinations(masks, 2))
        )


def default_block_size(inventory: Inventory, patch_size: int) -> int:
    """Edge of blocks in pixels: as large as still gives about 60 labelled ones, at least two patches."""
    for patches in (8, 6, 4, 3):
        ids = block_ids(inventory, patches * patch_size)
        if len(np.unique(ids[inventory.labelled > 0])) >= 60:
            return patches * patch_size
    return 2 * patch_size


def block_split(
    inventory: Inventory,
    *,
    patch_size: int,
    block_size: int | None = None,
    ratios: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Split:
    """Assign blocks to training, validation and test so that each class is divided by the ratios.

    Blocks are drawn at random and then swapped as long as that brings the shares of the classes nearer to
    the ratios. Cells closer than half a patch to a block of another split are given up, so that splits keep a
    distance of a patch.

    Args:
        inventory: What the cells hold.
        patch_size: Edge of the largest patch in pixels.
        block_size: Edge of a block in pixels (default: see :func:`default_block_size`).
        ratios: Shares of training, validation and test, positive or 0, together 1.
        seed: Of the draw.

    Raises:
        LandcoverError: If the ratios or sizes are off, or a split would be left without ground.
    """
    if len(ratios) != 3 or min(ratios) < 0 or not np.isclose(sum(ratios), 1):
        raise LandcoverError(f'ratios must be three shares >= 0 that add up to 1, got {list(ratios)}')
    numbers = [n for n, ratio in zip(SPLITS.values(), ratios, strict=True) if ratio > 0]
    ids, counts = _labelled_blocks(inventory, patch_size, block_size, at_least=len(numbers))
    parts = assign(counts, [r for r in ratios if r > 0], seed)
    return _split(inventory, ids, np.asarray(numbers)[parts], patch_size)


def fold_split(
    inventory: Inventory,
    *,
    folds: int,
    fold: int,
    patch_size: int,
    block_size: int | None = None,
    seed: int = 0,
) -> Split:
    """One of k folds for cross-validation: fold ``fold`` is the test, the next one validates, the rest trains.

    Over all folds every block is tested once.

    Args:
        inventory: What the cells hold.
        folds: Number of folds, at least 3.
        fold: Which one is the test, from 0.
        patch_size: Edge of the largest patch in pixels.
        block_size: Edge of a block in pixels.
        seed: Of the draw of the folds; the same for all of them.

    Raises:
        LandcoverError: If there are fewer blocks than folds, or the numbers are off.
    """
    if folds < 3 or not 0 <= fold < folds:
        raise LandcoverError(f'folds must be >= 3 and fold in [0, folds), got folds {folds} and fold {fold}')
    ids, counts = _labelled_blocks(inventory, patch_size, block_size, at_least=folds)
    parts = assign(counts, [1 / folds] * folds, seed)
    numbers = np.full(folds, SPLITS['train'])
    numbers[fold], numbers[(fold + 1) % folds] = SPLITS['test'], SPLITS['val']
    return _split(inventory, ids, numbers[parts], patch_size)


def assign(counts: NDArray[np.int64], ratios: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Parts of the blocks so that each class is divided by the ratios as nearly as swaps can bring it.

    Args:
        counts: Shape ``(blocks, classes)``: pixels of each class; rare classes weigh as much as common ones.
        ratios: Share of each part.
        seed: Of the first draw and of the swaps.

    Returns:
        Shape ``(blocks,)``: the number of each block's part; every part gets at least one block.
    """
    if seed < 0:
        raise LandcoverError(f'the seed of the split must be at least 0, got {seed}')
    rng = np.random.default_rng(seed)
    counts = counts[:, counts.sum(0) > 0]
    shares = np.stack([counts / counts.sum(0), counts > 0])
    sizes = _quota(len(counts), ratios)
    parts = rng.permutation(np.repeat(np.arange(len(ratios)), sizes))
    held = np.stack([shares[:, parts == p].sum(1) for p in range(len(ratios))])
    holders = np.minimum((counts > 0).sum(0), min(len(ratios), 3))
    error = _deviation(held, ratios, holders)
    for a, b in rng.integers(len(counts), size=(200 * min(len(counts), 500), 2)):
        p, q = parts[a], parts[b]
        if p == q:
            continue
        trial = held.copy()
        trial[p] += shares[:, b] - shares[:, a]
        trial[q] += shares[:, a] - shares[:, b]
        if (trial_error := _deviation(trial, ratios, holders)) < error:
            held, error = trial, trial_error
            parts[a], parts[b] = q, p
    return parts


def _deviation(held: NDArray[np.float64], ratios: Sequence[float], holders: NDArray[np.int64]) -> float:
    """Distance of the parts from the ratios; a class in fewer parts than it could be costs a part's share for each.

    Three folds are left to hold a class, so whichever two test and validate, it is in training.

    Args:
        held: Shape ``(parts, 2, classes)``: share of each class in each part, and number of blocks that hold it.
        ratios: Share of each part.
        holders: Shape ``(classes,)``: parts that should hold each class.
    """
    lacking = np.maximum(holders - (held[:, 1] > 0.5).sum(0), 0).sum()
    return float(np.abs(held[:, 0] - np.asarray(ratios)[:, None]).sum() + min(ratios) * lacking)


def _quota(blocks: int, ratios: Sequence[float]) -> NDArray[np.int64]:
    """Blocks of each part: by largest remainder, at least one."""
    exact = np.asarray(ratios) * blocks
    sizes = np.maximum(np.floor(exact).astype(np.int64), 1)
    while sizes.sum() < blocks:
        sizes[np.argmax(exact - sizes)] += 1
    while sizes.sum() > blocks:
        sizes[np.argmax(sizes)] -= 1
    return sizes


def block_ids(inventory: Inventory, block_size: int) -> NDArray[np.int32]:
    """Number of the block of each cell: an even division of rows and columns into blocks near the size asked."""
    along = [max(round(n * inventory.cell / block_size), 1) for n in inventory.shape]
    row, col = ((np.arange(n) * k) // n for n, k in zip(inventory.shape, along, strict=True))
    return (row[:, None] * along[1] + col).astype(np.int32)


def _labelled_blocks(
    inventory: Inventory, patch_size: int, block_size: int | None, *, at_least: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Block number of each cell, renumbered, and the blocks' class counts.

    The number is -1 where the block has no label, or only some so near to its border that the buffer may take them.
    """
    size = default_block_size(inventory, patch_size) if block_size is None else block_size
    if size < 2 * patch_size:
        raise LandcoverError(
            f'block_size must be at least two patches, {2 * patch_size} px, to leave room for one beside the buffer, '
            f'got {size} px: choose larger blocks or a smaller patch_size'
        )
    ids = block_ids(inventory, size)
    counts = np.zeros((ids.max() + 1, LEGEND.num_classes), dtype=np.int64)
    np.add.at(counts, ids, inventory.counts)
    counts = counts[:, NODATA + 1 :]
    kept = ~near(_rims(ids), _buffer(inventory, patch_size) - 1)
    labelled = np.isin(np.arange(len(counts)), ids[kept & (inventory.labelled > 0)])
    if (found := labelled.sum()) < at_least:
        raise LandcoverError(
            f'the labelled ground holds {found} {"block" if found == 1 else "blocks"} of {size} px that keep a label '
            f'beside the buffer, but {at_least} are needed: choose a smaller patch_size than {patch_size} px, or '
            'smaller blocks'
        )
    numbers = np.where(labelled, np.cumsum(labelled) - 1, -1).astype(np.int32)
    return numbers[ids], counts[labelled]


def _split(inventory: Inventory, ids: NDArray[np.int32], numbers: NDArray[np.int64], patch_size: int) -> Split:
    """The split of cells after giving up those within half a patch of another split.

    No block loses its core, the cells that have only cells of the same block within half a patch.
    """
    cells = np.where(ids >= 0, numbers[ids], 0).astype(np.uint8)
    radius = _buffer(inventory, patch_size)
    kept = cells.copy()
    for number in np.unique(cells[cells > 0]):
        kept[(cells == number) & near((cells > 0) & (cells != number), radius)] = 0
    for number in (SPLITS['train'], SPLITS['val']):  # blocks that meet at a corner only are still too near there
        kept[(kept == number) & near(kept > number, -(-patch_size // inventory.cell))] = 0
    return Split(inventory.grid, inventory.cell, kept, ids)


def _buffer(inventory: Inventory, patch_size: int) -> int:
    """Half a patch in whole cells."""
    return -(-patch_size // (2 * inventory.cell))


def _rims(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Cells beside a cell of another block."""
    rims = np.zeros(ids.shape, dtype=bool)
    below, beside = ids[1:] != ids[:-1], ids[:, 1:] != ids[:, :-1]
    for inside, changes in ((rims[1:], below), (rims[:-1], below), (rims[:, 1:], beside), (rims[:, :-1], beside)):
        inside |= changes
    return rims
