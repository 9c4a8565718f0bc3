"""Kinds of labelled pixels that are scored on their own: pure, mixed, at a border, inside."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix

from ..legend import LEGEND, NODATA

#: Names of the strata: a labelled pixel is pure or mixed, where its purity is known, and border or interior.
STRATA = ('pure', 'mixed', 'border', 'interior')

#: Purity of a pixel that its class covers wholly, in percent.
PURE = 100

#: Each pixel beside its neighbour on the right, below, below on the right and below on the left: every pair once.
_NEIGHBOURS = (
    (np.s_[..., :, :-1], np.s_[..., :, 1:]),
    (np.s_[..., :-1, :], np.s_[..., 1:, :]),
    (np.s_[..., :-1, :-1], np.s_[..., 1:, 1:]),
    (np.s_[..., :-1, 1:], np.s_[..., 1:, :-1]),
)


def strata(mask: Tensor, purity: Tensor | None = None) -> dict[str, Tensor]:
    """Which labelled pixels belong to each stratum.

    * ``pure``: the class covers the whole pixel (purity 100 %); ``mixed``: it does not.
    * ``border``: another class is among the eight neighbours; ``interior``: none is. No data is no class.

    Neighbours are looked for in the patch alone: a pixel at its rim whose only neighbours of another class lie
    outside counts as interior. Rims are 1.6 % of the pixels of a patch of 256 px, 6 % at 64 px; few of them are
    misjudged.

    Args:
        mask: Codes, shape ``(B, H, W)``.
        purity: Share of the pixel that its class covers, in percent, shape ``(B, H, W)``.

    Returns:
        Boolean, shape ``(B, H, W)``, by name in the order of :data:`STRATA`; without purity border and interior alone.

    Examples:
        >>> found = strata(torch.tensor([[[3, 3, 7, 0, 5]]]), torch.tensor([[[100, 80, 100, 0, 51]]]))
        >>> {name: pixels.flatten().nonzero().flatten().tolist() for name, pixels in found.items()}
        {'pure': [0, 2], 'mixed': [1, 4], 'border': [1, 2], 'interior': [0, 4]}
    """
    labelled, border = mask != NODATA, border_pixels(mask)
    found = {} if purity is None else {'pure': labelled & (purity == PURE), 'mixed': labelled & (purity < PURE)}
    return found | {'border': border, 'interior': labelled & ~border}


def border_pixels(mask: Tensor) -> Tensor:
    """Labelled pixels with another class among their eight neighbours in the patch, shape ``(B, H, W)``."""
    border = torch.zeros_like(mask, dtype=torch.bool)
    for one, other in _NEIGHBOURS:
        here, there = mask[one], mask[other]
        differs = (here != there) & (here != NODATA) & (there != NODATA)
        border[one] |= differs
        border[other] |= differs
    return border


class StrataConfusion(Metric):
    """A confusion matrix for each stratum; counts of several processes are added up."""

    full_state_update = False
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        classes = LEGEND.num_classes
        self.add_state('counts', torch.zeros(len(STRATA), classes, classes, dtype=torch.long), dist_reduce_fx='sum')

    def update(self, prediction: Tensor, target: Tensor, pixels: Mapping[str, Tensor]) -> None:
        """Count a batch.

        Args:
            prediction: Predicted codes, shape ``(B, H, W)``.
            target: Reference codes, shape ``(B, H, W)``.
            pixels: Which pixels belong to each stratum, from :func:`strata`.
        """
        for name, chosen in pixels.items():
            self.counts[STRATA.index(name)] += multiclass_confusion_matrix(
                prediction,
                target.where(chosen, NODATA),
                num_classes=LEGEND.num_classes,
                ignore_index=NODATA,
                validate_args=False,
            )

    def compute(self) -> Tensor:
        """Pixel counts, shape ``(len(STRATA), num_classes, num_classes)``, reference in rows."""
        return self.counts
