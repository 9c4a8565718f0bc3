"""Losses that are means over pixels: cross-entropy, focal, and two that forgive wrong labels.

All are a cost of the logarithm of the probability of the right class. Where a pixel holds several classes, its cost is
the mean of their costs by their shares: what is expected if one of them were drawn as its label.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from ...legend import NODATA
from .truth import UNLABELLED, Truth, ratio


@dataclass(frozen=True, kw_only=True)
class PixelLoss(ABC):
    """Weighted mean of the costs of the labelled pixels; 0, with zero gradients, where there is none.

    With the weight ``v`` of each pixel ``i``, the share ``s`` of each class ``c`` in it and the weights ``w`` of the
    classes it is ``sum(v[i] * s[i, c] * w[c] * cost(log p[i, c])) / sum(v[i] * s[i, c] * w[c])``.

    Label smoothing (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567) mixes each cost with the mean of those of
    all classes but no data. The weight of a pixel stays that of its own class; ``torch.nn.CrossEntropyLoss`` weighs
    the mixed-in classes by theirs, so that with one rare class of weight 10 and smoothing of 0.1 a pixel of a frequent
    class of weight 0.1 would be told to be nearly as much of the rare class as of its own.

    Args:
        label_smoothing: Share of a label that is spread over all classes.
    """

    label_smoothing: float = 0.0

    @abstractmethod
    def cost(self, log_p: Tensor) -> Tensor:
        """Cost of giving the right class a probability, from its logarithm; 0 for a logarithm of 0."""

    def __call__(self, log_p: Tensor, truth: Truth) -> Tensor:
        """Mean cost, from logarithms of probabilities ``(B, num_classes, H, W)``."""
        if truth.soft is None:
            of_label = -F.nll_loss(log_p, truth.codes, ignore_index=UNLABELLED, reduction='none')
        else:
            of_label = log_p[:, NODATA + 1 :]
        total = (truth.masses * self.cost(of_label)).sum()
        if self.label_smoothing:
            spread = (truth.pixel_masses * self.cost(log_p[:, NODATA + 1 :]).mean(dim=1)).sum()
            total = (1 - self.label_smoothing) * total + self.label_smoothing * spread
        return ratio(total, truth.mass)


class CrossEntropy(PixelLoss):
    """``-log p``; without smoothing it equals ``torch.nn.CrossEntropyLoss`` wherever that is finite."""

    def cost(self, log_p: Tensor) -> Tensor:
        """See the class."""
        return -log_p


@dataclass(frozen=True, kw_only=True)
class Focal(PixelLoss):
    """``-(1 - p)**gamma log p``: pixels that are right already count less (Lin et al. 2017, arXiv:1708.02002).

    On the softmax of all classes, as the others; ``smp.losses.FocalLoss`` is one sigmoid for each class against the
    rest, has no weights of pixels and is NaN where nothing is labelled.

    Args:
        focal_gamma: 0 is cross-entropy.
    """

    focal_gamma: float = 2.0

    def cost(self, log_p: Tensor) -> Tensor:
        """See the class."""
        wrong = (-log_p.expm1()).clamp_min(1e-7)  # a power below 1 has no slope at 0
        return -(wrong**self.focal_gamma) * log_p


@dataclass(frozen=True, kw_only=True)
class GeneralisedCrossEntropy(PixelLoss):
    """``(1 - p**q) / q``: between cross-entropy (q towards 0) and absolute error (q = 1), which wrong labels move less.

    Zhang and Sabuncu 2018, https://arxiv.org/abs/1805.07836; without their truncation.

    Args:
        gce_q: 0.7 as in the paper; larger forgives more and learns slower.
    """

    gce_q: float = 0.7

    def cost(self, log_p: Tensor) -> Tensor:
        """See the class."""
        return -(self.gce_q * log_p).expm1() / self.gce_q


@dataclass(frozen=True, kw_only=True)
class SymmetricCrossEntropy(PixelLoss):
    """``-alpha log p - beta A (1 - p)``: cross-entropy, and its reverse that wrong labels move less.

    Wang et al. 2019, https://arxiv.org/abs/1908.06112. The reverse is the cross-entropy of the label under the
    prediction, in which ``A`` stands for the logarithm of 0; only ``beta A`` matters.

    Args:
        sce_alpha: Weight of cross-entropy; 0.1 is theirs for ten classes.
        sce_beta: Weight of the reverse.
    """

    sce_alpha: float = 0.1
    sce_beta: float = 1.0
    log_of_zero: ClassVar[float] = -4.0

    def cost(self, log_p: Tensor) -> Tensor:
        """See the class."""
        return self.sce_beta * self.log_of_zero * log_p.expm1() - self.sce_alpha * log_p
