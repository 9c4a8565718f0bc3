"""The test ground taken apart: confusion matrices by distance to the class border, by look and by block of ground."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from ..grid import PixelWindow
from ..legend import LEGEND, NODATA
from .border_distance import DISTANCE_BINS, border_distance_bins


class Breakdown(Metric):
    """A confusion matrix for each distance bin, look and block; counts of several processes are added up.

    Args:
        looks: Number of looks at the ground.
        blocks: Number of blocks of test ground.
    """

    full_state_update = False
    distances: Tensor
    looks: Tensor
    blocks: Tensor

    def __init__(self, looks: int, blocks: int) -> None:
        super().__init__()
        classes = LEGEND.num_classes
        for name, size in (('distances', DISTANCE_BINS), ('looks', looks), ('blocks', blocks)):
            self.add_state(name, torch.zeros(size, classes, classes, dtype=torch.long), dist_reduce_fx='sum')

    def update(self, counts: Tensor, looks: Tensor, blocks: Tensor) -> None:
        """Add what :func:`count_parts` found.

        Args:
            counts: Shape ``(parts, DISTANCE_BINS, num_classes, num_classes)``.
            looks: Number of the look of each part, shape ``(parts,)``.
            blocks: Number of the block of each part, shape ``(parts,)``.
        """
        self.distances += counts.sum(0)
        matrices = counts.sum(1)
        self.looks.index_add_(0, looks, matrices)
        self.blocks.index_add_(0, blocks, matrices)

    def compute(self) -> dict[str, Tensor]:
        """Pixel counts by name: ``distances``, ``looks`` and ``blocks``, reference in rows."""
        return {'distances': self.distances, 'looks': self.looks, 'blocks': self.blocks}


class Parts(NamedTuple):
    """Pieces of a batch that lie in one patch and one block each.

    Attributes:
        part: Number of the piece of each pixel, shape ``(B, H, W)`` or ``(B, 1, 1)`` where no patch crosses blocks.
        patches: Patch of each piece.
        blocks: Block of each piece.
    """

    part: Tensor
    patches: list[int]
    blocks: list[int]


def cut_into_parts(
    windows: Sequence[PixelWindow], blocks: NDArray[np.integer], cell: int, shape: tuple[int, int]
) -> Parts:
    """Cut the patches of a batch at the borders of blocks, which a patch may cross where two blocks of a split meet.

    Args:
        windows: Pixels of each patch; in the batch they lie in the upper left corner.
        blocks: Number of the block of each cell.
        cell: Edge of a cell in pixels.
        shape: Height and width of the batch.

    Examples:
        >>> blocks = np.array([[4, 7]])
        >>> parts = cut_into_parts([PixelWindow(0, 0, 1, 2), PixelWindow(0, 1, 1, 2)], blocks, cell=2, shape=(1, 2))
        >>> parts.part.tolist(), parts.patches, parts.blocks
        ([[[0, 0]], [[1, 2]]], [0, 1, 1], [4, 4, 7])
    """
    numbers, patches, found = [], list[int](), list[int]()
    for i, window in enumerate(windows):
        rows, cols = (np.arange(a, b) // cell for a, b in window.ranges)
        own, inverse = np.unique(blocks[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1], return_inverse=True)
        crossing = len(own) > 1
        inside = inverse[rows - rows[0]][:, cols - cols[0]] if crossing else None
        numbers.append((len(patches), inside))
        patches += [i] * len(own)
        found += own.tolist()
    part = torch.tensor([first for first, _ in numbers])[:, None, None]
    if len(found) > len(windows):
        part = part.repeat(1, *shape)
        for values, window, (_, inside) in zip(part, windows, numbers, strict=True):
            if inside is not None:
                values[: window.height, : window.width] += torch.from_numpy(inside)
    return Parts(part, patches, found)


def count_parts(prediction: Tensor, target: Tensor, part: Tensor, parts: int) -> Tensor:
    """Confusion matrices of the labelled pixels of each part, for each distance to the class border.

    Args:
        prediction: Predicted codes, shape ``(B, H, W)``.
        target: Reference codes, shape ``(B, H, W)``.
        part: Number of the part of each pixel, of a shape that fits.
        parts: Number of parts.

    Returns:
        Pixel counts, shape ``(parts, DISTANCE_BINS, num_classes, num_classes)``, reference in rows.
    """
    classes = LEGEND.num_classes
    key = part * DISTANCE_BINS + border_distance_bins(target)
    key.mul_(classes).add_(target).mul_(classes).add_(prediction)
    counts = torch.bincount(key.flatten(), minlength=parts * DISTANCE_BINS * classes**2)
    counts = counts.reshape(parts, DISTANCE_BINS, classes, classes)
    counts[:, :, NODATA] = 0  # unlabelled
    return counts
