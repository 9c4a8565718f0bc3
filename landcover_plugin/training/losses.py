"""Losses that stay finite where nothing is labelled, and the class weights that go into them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..legend import NODATA


class MaskedCrossEntropy(nn.Module):
    """Weighted mean cross-entropy over the labelled pixels; 0, with zero gradients, where there is none.

    Equals ``torch.nn.CrossEntropyLoss`` wherever that is finite. With a weight ``v`` of each pixel ``i`` and the
    share ``s`` of each class ``c`` in it, both of which may be left out, and the weights ``w`` of the classes, it is
    ``-sum(v[i] * s[i, c] * w[c] * log p[i, c]) / sum(v[i] * s[i, c] * w[c])``: shares that are all 0 or 1 give what
    codes give.

    Args:
        weight: Shape ``(num_classes,)``, weight of each class (default: all 1).
        ignore_index: Code of pixels that do not count.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, ignore_index: int = NODATA) -> None:
        super().__init__()
        self.register_buffer('weight', weight)
        self.ignore_index = ignore_index

    def forward(
        self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None = None, shares: Tensor | None = None
    ) -> Tensor:
        """Loss of logits ``(B, num_classes, H, W)`` against codes, or against shares where they are given.

        Args:
            logits: Shape ``(B, num_classes, H, W)``.
            target: Codes ``(B, H, W)``; with shares they only say which pixels do not count.
            pixel_weight: Shape ``(B, H, W)``, at least 0.
            shares: Shape ``(B, num_classes - 1, H, W)``: share of each class but no data, in 0..1.
        """
        weights = self._weights(target, pixel_weight, shares)
        if shares is None:
            losses = F.cross_entropy(logits.float(), target, ignore_index=self.ignore_index, reduction='none')
        else:
            losses = -logits.float().log_softmax(dim=1)[:, NODATA + 1 :]
        return (weights * losses).sum() / weights.sum().clamp_min(torch.finfo(torch.float32).tiny)

    def mass(self, target: Tensor, pixel_weight: Tensor | None = None, shares: Tensor | None = None) -> Tensor:
        """Sum of the weights of the labelled pixels: what the mean of :meth:`forward` divides by."""
        return self._weights(target, pixel_weight, shares).sum()

    def _weights(self, target: Tensor, pixel_weight: Tensor | None, shares: Tensor | None) -> Tensor:
        """Weight of each pixel ``(B, H, W)``, or of each class in it, shaped as ``shares``; 0 where unlabelled."""
        labelled = target != self.ignore_index
        pixels = labelled.float() if pixel_weight is None else pixel_weight.where(labelled, 0)
        if shares is not None:
            classes = shares * pixels[:, None]
            return classes if self.weight is None else classes * self.weight[NODATA + 1 :, None, None]
        if self.weight is None:
            return pixels
        return pixels * self.weight[target.where(labelled, 0)]  # ignore_index may lie outside the classes
