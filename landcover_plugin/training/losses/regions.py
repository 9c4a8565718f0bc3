"""Losses that compare areas, class by class: Dice, Jaccard, Tversky and Lovász-softmax.

Each is the mean over the classes that the batch holds, by the weights of the classes; no data is never one of them.
A class counts as much as another whatever its area, so weights by frequency on top favour rare classes twice.

Those of segmentation_models_pytorch 0.6 take neither weights of pixels nor shares. Its Dice, Jaccard and Tversky losses
divide by all 13 channels whatever the batch holds, so that the gradient of a class shrinks with the number of classes
in the batch, and take the product of shares and probabilities, which is not best where both agree. Its Lovász loss is
an empty tensor where nothing is labelled, and its gradient is off by 4e-4 on 260,000 pixels (ours by 2e-7): it takes
differences of neighbouring Jaccard indices, which are a millionth apart.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ...legend import NODATA
from .truth import Truth, ratio

_AREA = (0, 2, 3)


@dataclass(frozen=True, kw_only=True)
class RegionLoss(ABC):
    """Weighted mean over the classes of a batch; 0, with zero gradients, where nothing is labelled."""

    @abstractmethod
    def of_classes(self, p: Tensor, shares: Tensor, pixels: Tensor) -> Tensor:
        """Loss of each class, shape ``(C,)``; any finite number for classes without area.

        Args:
            p: Probabilities ``(B, C, H, W)``.
            shares: What the pixels hold ``(B, C, H, W)``.
            pixels: Weight of each pixel ``(B, 1, H, W)``, 0 where it does not count.
        """

    def __call__(self, log_p: Tensor, truth: Truth) -> Tensor:
        """Mean loss, from logarithms of probabilities ``(B, num_classes, H, W)``."""
        shares, p = truth.shares(log_p.shape[1]), log_p[:, NODATA + 1 :].exp()
        pixels = (truth.pixels * (shares.sum(dim=1) > 0))[:, None]
        weights = ((pixels * shares).sum(_AREA) > 0).to(p.dtype)
        if truth.class_weight is not None:
            weights = weights * truth.class_weight[NODATA + 1 :]
        return ratio((weights * self.of_classes(p, shares, pixels)).sum(), weights.sum())


class OverlapLoss(RegionLoss):
    """1 - ``TP / (TP + a FP + b FN)``, by the weights ``a`` of false positives and ``b`` of false negatives.

    TP is the sum of ``min(p, s)``: the product where a pixel is of one class (``s`` is 0 or 1), and largest where the
    probabilities are the shares otherwise, which the product is not (Wang et al. 2023, https://arxiv.org/abs/2302.05666
    and https://arxiv.org/abs/2303.16296).
    """

    @property
    @abstractmethod
    def penalties(self) -> tuple[float, float]:
        """Weights of false positives and false negatives."""

    def of_classes(self, p: Tensor, shares: Tensor, pixels: Tensor) -> Tensor:
        """See the class."""
        both, predicted, held = ((pixels * area).sum(_AREA) for area in (torch.minimum(p, shares), p, shares))
        of_positives, of_negatives = self.penalties
        total = both + of_positives * (predicted - both) + of_negatives * (held - both)
        return 1 - both / total.where(total > 0, 1)


class Dice(OverlapLoss):
    """1 - Dice index ``2 TP / (2 TP + FP + FN)``, the F1 score (Milletari et al. 2016, arXiv:1606.04797)."""

    penalties = (0.5, 0.5)


class Jaccard(OverlapLoss):
    """1 - Jaccard index ``TP / (TP + FP + FN)``, the intersection over union."""

    penalties = (1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Tversky(OverlapLoss):
    """1 - Tversky index ``TP / (TP + alpha FP + (1 - alpha) FN)`` (Salehi et al. 2017, arXiv:1706.05721).

    Args:
        tversky_alpha: Weight of false positives; below 0.5 missed pixels weigh more. 0.3 is the best of the paper.
    """

    tversky_alpha: float = 0.3

    @property
    def penalties(self) -> tuple[float, float]:
        """Weights of false positives and false negatives."""
        return self.tversky_alpha, 1 - self.tversky_alpha


class Lovasz(RegionLoss):
    """Lovász-softmax: the Jaccard loss of a batch, continued from right and wrong to probabilities.

    Berman et al. 2018, https://arxiv.org/abs/1705.08790. The errors ``|p - s|`` are sorted, largest first, and each
    counts with what its pixel adds to the Jaccard loss when it turns wrong after those before it. Weights and shares
    enter that loss as parts of pixels.
    """

    def of_classes(self, p: Tensor, shares: Tensor, pixels: Tensor) -> Tensor:
        """See the class."""
        errors, shares = (v.transpose(0, 1).flatten(1) for v in ((p - shares).abs(), shares))
        with torch.no_grad():
            order = errors.argsort(dim=1, descending=True)
            steps = _steps(shares.gather(1, order), pixels.flatten().expand_as(order).gather(1, order))
            steps = torch.zeros_like(steps).scatter_(1, order, steps)
        return (errors * steps).sum(dim=1)


def _steps(shares: Tensor, pixels: Tensor) -> Tensor:
    """What each pixel adds to the Jaccard loss of a class when it turns wrong after all before it in its row.

    With the intersection ``I`` and the union ``U`` before it, the loss ``1 - I / U`` grows with a pixel of weight ``v``
    and share ``s`` by ``v (I + (U - I) s) / (U (U + v (1 - s)))``: no difference of two numbers that are nearly equal.

    Examples:
        >>> _steps(torch.tensor([[1.0, 0, 1]]), torch.ones(1, 3)).cumsum(1)  # 1 - 1/2, 1 - 1/3, 1 - 0/3
        tensor([[0.5000, 0.6667, 1.0000]])
    """
    held, other = pixels * shares, pixels * (1 - shares)
    area = held.sum(dim=1, keepdim=True)
    intersection = (area - held.cumsum(dim=1) + held).clamp_min(0)
    union = area + other.cumsum(dim=1) - other
    gain = pixels * (intersection + (union - intersection) * shares)
    union = union.where(union > 0, 1)  # a class without area has nothing to gain either
    return gain / (union * (union + other))
