"""Losses that stay finite where nothing is labelled, and the class weights that go into them."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LandcoverError
from ..legend import LEGEND, NODATA

ClassWeighting = Literal['none', 'inverse', 'median', 'effective']


class MaskedCrossEntropy(nn.Module):
    """Mean cross-entropy over the labelled pixels; 0, with zero gradients, where there is none.

    Equals ``torch.nn.CrossEntropyLoss`` wherever that is finite.

    Args:
        weight: Shape ``(num_classes,)``, weight of each class (default: all 1).
        ignore_index: Code of pixels that do not count.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, ignore_index: int = NODATA) -> None:
        super().__init__()
        self.register_buffer('weight', weight)
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of logits ``(B, num_classes, H, W)`` against codes ``(B, H, W)``."""
        weight, ignored = self.weight, self.ignore_index
        total = F.cross_entropy(logits.float(), target, weight=weight, ignore_index=ignored, reduction='sum')
        return total / self.mass(target).clamp_min(torch.finfo(torch.float32).tiny)

    def mass(self, target: Tensor) -> Tensor:
        """Sum of the weights of the labelled pixels: what the mean of :meth:`forward` divides by."""
        labelled = target != self.ignore_index
        if self.weight is None:
            return labelled.sum()
        return (self.weight[target.where(labelled, 0)] * labelled).sum()  # ignore_index may lie outside the classes


def class_weights(counts: NDArray[np.int64], weighting: ClassWeighting | Sequence[float]) -> NDArray[np.float32]:
    """Weights of the classes in the loss, from how many training pixels each has.

    * ``none``: 1 for all.
    * ``inverse``: ``1 / frequency``.
    * ``median``: median frequency over frequency (Eigen and Fergus 2015, https://arxiv.org/abs/1411.4734).
    * ``effective``: ``(1 - b) / (1 - b**n)`` with ``b = 1 - 1/N`` for ``n`` of ``N`` pixels (effective number of
      samples, Cui et al. 2019, https://arxiv.org/abs/1901.05555).
    * a list: taken as it is.

    The weights of a named strategy are scaled to a mean of 1 over the classes that occur; classes that do not
    occur get 0, and so does no data, always.

    Args:
        counts: Shape ``(num_classes,)``, training pixels of each code.
        weighting: A strategy, or one weight for each code (13) or for each class but no data (12).

    Returns:
        Shape ``(num_classes,)``.

    Raises:
        LandcoverError: If the strategy is unknown, or a list has the wrong length, a negative weight or none above 0.

    Examples:
        >>> class_weights(np.array([5, 30, 10] + [0] * 10), 'inverse')[:4].tolist()
        [0.0, 0.5, 1.5, 0.0]
    """
    if not isinstance(weighting, str):
        return _given(weighting)
    present = counts > 0
    present[NODATA] = False
    n = counts[present].astype(np.float64)
    strategies: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        'none': np.ones_like,
        'inverse': lambda n: 1 / n,
        'median': lambda n: np.median(n) / n,
        'effective': lambda n: -1 / np.expm1(n * np.log1p(-1 / max(n.sum(), 2))),
    }
    if weighting not in strategies:
        raise LandcoverError(f'class_weights must be one of {", ".join(strategies)} or a list, got {weighting!r}')
    weights = np.zeros(len(counts), dtype=np.float32)
    if len(n):
        raw = strategies[weighting](n)
        weights[present] = raw / raw.mean()
    return weights


def _given(values: Sequence[float]) -> NDArray[np.float32]:
    weights = np.array(values, dtype=np.float32, ndmin=1)
    if len(weights) == len(LEGEND.codes):
        weights = np.concatenate((np.zeros(1, dtype=np.float32), weights))
    fits = weights.shape == (LEGEND.num_classes,) and np.isfinite(weights).all() and (weights >= 0).all()
    if not fits or not weights[NODATA + 1 :].any():
        raise LandcoverError(
            f'class_weights needs {len(LEGEND.codes)} weights >= 0, not all 0, one for each class by code, got {values}'
        )
    weights[NODATA] = 0
    return weights
