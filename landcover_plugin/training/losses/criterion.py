"""One loss, or a weighted sum of several, by name."""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import LandcoverError
from ...legend import NODATA
from .pixels import CrossEntropy, Focal, GeneralisedCrossEntropy, PixelLoss, SymmetricCrossEntropy
from .regions import Dice, Jaccard, Lovasz, RegionLoss, Tversky
from .truth import Truth

#: The losses by name.
LOSSES: dict[str, type[PixelLoss] | type[RegionLoss]] = {
    'ce': CrossEntropy,
    'focal': Focal,
    'dice': Dice,
    'jaccard': Jaccard,
    'tversky': Tversky,
    'lovasz': Lovasz,
    'gce': GeneralisedCrossEntropy,
    'sce': SymmetricCrossEntropy,
}

#: Smallest and largest value of each setting of a loss.
RANGES: dict[str, tuple[float, float]] = {
    'label_smoothing': (0, 0.9),
    'focal_gamma': (0, 10),
    'tversky_alpha': (0, 1),
    'gce_q': (0.01, 1),
    'sce_alpha': (0, 100),
    'sce_beta': (0, 100),
}

_TERM = re.compile(r'\s*(?:(\d*\.?\d+)\s*\*\s*)?([a-z_]+)\s*')


class LandCoverLoss(nn.Module):
    """A weighted sum of losses over the labelled pixels; 0, with zero gradients, where there is none.

    Computed in float32 at least, whatever the precision of the logits and of the training.

    Args:
        terms: Losses and their factors.
        weight: Shape ``(num_classes,)``, weight of each class (default: all 1). It may be set later.
        ignore_index: Code of pixels that do not count.
    """

    weight: Tensor | None

    def __init__(
        self,
        terms: Mapping[PixelLoss | RegionLoss, float],
        weight: Tensor | None = None,
        ignore_index: int = NODATA,
    ) -> None:
        super().__init__()
        self.register_buffer('weight', weight)
        self.terms, self.ignore_index = dict(terms), ignore_index

    def extra_repr(self) -> str:
        """The sum in words."""
        return ' + '.join(f'{factor:g} * {term}' for term, factor in self.terms.items())

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
        log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
        truth = Truth.of(target, self.ignore_index, pixel_weight, shares, self.weight)
        return torch.stack([factor * term(log_p, truth) for term, factor in self.terms.items()]).sum()

    def mass(self, target: Tensor, pixel_weight: Tensor | None = None, shares: Tensor | None = None) -> Tensor:
        """Sum of the weights of the labelled pixels: what a mean over pixels divides by.

        Losses of batches, averaged by their masses, are the loss of all their pixels where it is a mean over pixels.
        Dice, Jaccard, Tversky and Lovász losses are not: their average depends on what shares a batch.
        """
        return Truth.of(target, self.ignore_index, pixel_weight, shares, self.weight).mass


def build_loss(
    loss: str | Mapping[str, float] = 'ce',
    class_weight: Tensor | None = None,
    *,
    loss_args: Mapping[str, float] | None = None,
    ignore_index: int = NODATA,
) -> LandCoverLoss:
    """The loss that a name, a sum of names or a table of factors means.

    Args:
        loss: As in :func:`parse_loss`.
        class_weight: Shape ``(num_classes,)``, weight of each class (default: all 1).
        loss_args: Settings by name, see :data:`RANGES`; those of several losses go to each.
        ignore_index: Code of pixels that do not count.

    Raises:
        LandcoverError: If a loss or a setting is unknown, out of its range or without effect.

    Examples:
        >>> build_loss('ce+0.5*focal', loss_args={'focal_gamma': 3})
        LandCoverLoss(1 * CrossEntropy(label_smoothing=0.0) + 0.5 * Focal(label_smoothing=0.0, focal_gamma=3))
    """
    factors, given = parse_loss(loss), dict(loss_args or {})
    for name, value in given.items():
        _check_setting(name, value, used=any(name in _settings(n) for n in factors), loss=loss)
    terms = {LOSSES[n](**{k: v for k, v in given.items() if k in _settings(n)}): f for n, f in factors.items()}
    return LandCoverLoss(terms, class_weight, ignore_index)


def parse_loss(loss: str | Mapping[str, float]) -> dict[str, float]:
    """Factor of each loss in a sum.

    Args:
        loss: A name, a sum of names with or without factors, or a table of factors by name.

    Raises:
        LandcoverError: If it is none of these, a name is unknown or twice there, or a factor is not above 0.

    Examples:
        >>> parse_loss('ce + 0.5*dice'), parse_loss({'ce': 1, 'lovasz': 2})
        ({'ce': 1.0, 'dice': 0.5}, {'ce': 1.0, 'lovasz': 2.0})
    """
    pairs: list[Any] = list(loss.items()) if isinstance(loss, Mapping) else _pairs(loss)
    factors = {name: float(factor) for name, factor in pairs}
    if (
        not pairs
        or len(factors) < len(pairs)
        or not set(factors) <= set(LOSSES)
        or not all(0 < f < float('inf') for f in factors.values())
    ):
        raise LandcoverError(
            f'loss must be one of {", ".join(LOSSES)}, or a sum of them as ce+dice or ce+0.5*dice with factors above '
            f'0, got {loss!r}'
        )
    return factors


def _pairs(loss: str) -> list[tuple[str, str]]:
    """Names and factors of a sum; empty if it cannot be read as one."""
    found = [_TERM.fullmatch(part) for part in loss.split('+')]
    return [(m[2], m[1] or '1') for m in found if m] if all(found) else []


def _settings(name: str) -> set[str]:
    """Names of the settings of a loss."""
    return {f.name for f in fields(LOSSES[name])}


def _check_setting(name: str, value: float, *, used: bool, loss: str | Mapping[str, float]) -> None:
    if name not in RANGES:
        raise LandcoverError(f'loss_args may hold {", ".join(RANGES)}, got {name!r}')
    low, high = RANGES[name]
    if not low <= value <= high:
        raise LandcoverError(f'{name} must be in {low:g} to {high:g}, got {value}')
    if not used:
        owners = ' or '.join(n for n in LOSSES if name in _settings(n))
        raise LandcoverError(f'{name} has no effect on loss {loss!r}; it belongs to {owners}')
