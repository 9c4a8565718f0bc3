"""Patches of a batch pasted into each other on the device: CutMix, ClassMix and copy-paste of rare classes.

A batch is one that :class:`~landcover_plugin.training.augmentation.BatchTransform` made. A pixel is pasted with all
that belongs to it, so each pixel of the result is a pixel of the batch under its own label; pixels that were not
measured are never pasted, and those without a label stay without one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, get_args

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LandcoverError
from ..legend import LEGEND, NODATA
from .augmentation import MOVED, Batch

#: What is pasted with a pixel, as far as the batch has it.
PASTED = ('image', 'weight', *MOVED)

MixName = Literal['none', 'cutmix', 'classmix', 'copy_paste']

#: The ways to mix, by name.
MIXES: tuple[MixName, ...] = get_args(MixName)


def paste(batch: Batch, where: Tensor, source: Tensor) -> Batch:
    """The batch with pixels of other patches of it, at the same place.

    Args:
        batch: Tensors whose last axes are rows and columns.
        where: Shape ``(B, H, W)``: pixels to replace.
        source: Shape ``(B,)``: patch that they come from.

    Examples:
        >>> batch = {'image': torch.tensor([[[[1, 2]]], [[[3, 4]]]]), 'name': 'kept'}
        >>> mixed = paste(batch, torch.tensor([[[True, False]], [[False, False]]]), torch.tensor([1, 0]))
        >>> mixed['image'].tolist(), mixed['name']
        ([[[[3, 2]]], [[[3, 4]]]], 'kept')
    """
    found = {k: batch[k] for k in PASTED if batch.get(k) is not None}
    return batch | {k: v[source].where(where if v.ndim == 3 else where[:, None], v) for k, v in found.items()}


class Mix(nn.Module, ABC):
    """Pastes into each patch, with a probability, pixels of another patch of the batch.

    All that is random is drawn on the CPU, so that every device mixes alike.

    Args:
        p: Probability of changing a patch.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise LandcoverError(f'the probability of mixing a patch must be in 0 to 1, got {p}')
        self.p = p

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """The mixed batch; the one given is not changed.

        Args:
            batch: ``image`` ``(B, C, H, W)``, ``mask`` ``(B, H, W)`` int64 and maybe ``valid``, ``weight`` and
                ``purity`` ``(B, H, W)`` and ``shares`` ``(B, 12, H, W)``; other entries are passed on.
            generator: Of the CPU (default: the global one).
        """
        mask = batch['mask']
        if len(mask) < 2 or not self.p:
            return batch
        changed = (torch.rand(len(mask), generator=generator) < self.p).to(mask.device)
        source, where = self.choose(mask, generator)
        where = where & changed[:, None, None]
        if batch.get('valid') is not None:
            where = where & batch['valid'][source]
        return paste(batch, where, source)

    @abstractmethod
    def choose(self, mask: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Another patch for each patch ``(B,)``, and which of its pixels to paste ``(B, H, W)``."""


class CutMix(Mix):
    """Pastes a rectangle of half the area of the patch, at a random place and of random proportions.

    Yun et al. 2019, https://arxiv.org/abs/1905.04899; the rectangle as in French et al. 2020,
    https://arxiv.org/abs/1906.01916, who carried it over to segmentation.
    """

    area = 0.5

    def choose(self, mask: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """See the class."""
        source, draws = another(len(mask), generator), torch.rand(3, len(mask), generator=generator)
        shares = torch.stack([self.area ** draws[0], self.area ** (1 - draws[0])])
        inside = []
        for share, place, edge in zip(shares, draws[1:], mask.shape[1:], strict=True):
            length = (share * edge).round()
            start = (place * (edge - length + 1)).floor()
            pixel = torch.arange(edge)
            inside.append((pixel >= start[:, None]) & (pixel < (start + length)[:, None]))
        rows, cols = (v.to(mask.device) for v in inside)
        return source.to(mask.device), rows[:, :, None] & cols[:, None, :]


class ClassMix(Mix):
    """Pastes all pixels of half of the classes of another patch, chosen at random.

    Olsson et al. 2021, https://arxiv.org/abs/2007.07936, on labels in place of predictions. Half of an odd number is
    rounded down: a patch of one class would be replaced as a whole. What has no label is no class.
    """

    def choose(self, mask: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """See the class."""
        source = another(len(mask), generator).to(mask.device)
        codes = mask[source].flatten(1)
        draws = torch.rand(len(mask), LEGEND.num_classes, generator=generator).to(mask.device)
        present = torch.zeros_like(draws, dtype=torch.bool).scatter_(1, codes, True)
        present[:, NODATA] = False
        ranks = draws.where(present, 2).argsort(dim=1).argsort(dim=1)
        chosen = present & (ranks < present.sum(dim=1, keepdim=True) // 2)
        return source, chosen.gather(1, codes).view_as(mask)


class RareCopyPaste(Mix):
    """Pastes the pixels of the rarest classes of another patch that has some, with a margin of what is around them.

    Copy-paste (Ghiasi et al. 2021, https://arxiv.org/abs/2012.07177) for land cover: patches stay where they are, all
    objects of the rare classes are pasted at once, and rare pixels are never covered, so that no patch has fewer of
    them than before.

    Args:
        counts: Training pixels of each code, shape ``(num_classes,)``.
        p: Probability of changing a patch.
        number: How many classes are rare: those with fewest pixels, at most half of the ones that occur.
        margin: Pixels around them that are pasted too, so that a class is not told by the seam.
    """

    rare: Tensor

    def __init__(self, counts: ArrayLike, p: float = 0.5, *, number: int = 4, margin: int = 3) -> None:
        super().__init__(p)
        known = torch.as_tensor(counts).double()
        if known.shape != (LEGEND.num_classes,):
            raise LandcoverError(
                f'copy-paste needs counts of {LEGEND.num_classes} codes, got shape {tuple(known.shape)}'
            )
        known[NODATA] = 0
        rarest = known.where(known > 0, torch.inf).argsort()[: min(number, int((known > 0).sum()) // 2)]
        self.register_buffer(
            'rare', torch.zeros_like(known, dtype=torch.bool).scatter_(0, rarest, True), persistent=False
        )
        self.margin = margin

    def choose(self, mask: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """See the class."""
        rare = self.rare.to(mask.device)[mask]
        draws = torch.rand(len(mask), len(mask), generator=generator).fill_diagonal_(-2).to(mask.device)
        source = (draws + rare.any(dim=(1, 2))).argmax(dim=1)  # another patch with rare pixels, where there is one
        around = _grown(rare, self.margin)[source]
        return source, around & (rare[source] | ~rare)


def _grown(pixels: Tensor, margin: int) -> Tensor:
    """Pixels at most a margin from the given ones in rows and columns; ``(B, H, W)``, boolean."""
    grown = pixels.float()[:, None]
    for kernel in ((2 * margin + 1, 1), (1, 2 * margin + 1)):  # one axis after the other: fewer comparisons
        grown = F.max_pool2d(grown, kernel, stride=1, padding=(kernel[0] // 2, kernel[1] // 2))
    return grown[:, 0] > 0


def another(number: int, generator: torch.Generator | None = None) -> Tensor:
    """For each of several patches another one, at random; each is taken once.

    Examples:
        >>> another(2).tolist()
        [1, 0]
    """
    order = torch.randperm(number, generator=generator)
    return torch.empty_like(order).scatter_(0, order, order.roll(1))


def mixing(name: MixName, p: float, counts: Callable[[], ArrayLike]) -> list[nn.Module]:
    """The way to mix that a name means; empty for none.

    Args:
        name: none, cutmix, classmix or copy_paste.
        p: Probability of changing a patch.
        counts: Gives the training pixels of each code; called for copy_paste alone.

    Raises:
        LandcoverError: If the name is unknown or the probability is none.
    """
    ways: dict[str, Callable[[], list[nn.Module]]] = {
        'none': list,
        'cutmix': lambda: [CutMix(p)],
        'classmix': lambda: [ClassMix(p)],
        'copy_paste': lambda: [RareCopyPaste(counts(), p)],
    }
    if name not in ways:
        raise LandcoverError(f'mix must be one of {", ".join(MIXES)}, got {name!r}')
    return ways[name]()
