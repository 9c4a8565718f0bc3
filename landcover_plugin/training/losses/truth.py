"""What a batch of labels says, in the one form that all losses take it."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...legend import NODATA

#: Stands for pixels that do not count; the number that torch ignores by default.
UNLABELLED = -100


@dataclass(frozen=True, eq=False)
class Truth:
    """Labels of a batch, the weights of its pixels and those of the classes.

    Args:
        codes: Shape ``(B, H, W)``, int64; :data:`UNLABELLED` where a pixel does not count.
        pixels: Shape ``(B, H, W)``: weight of each pixel, 0 where it does not count.
        soft: Shape ``(B, num_classes - 1, H, W)``: share of each class but no data, where shares take the place of
            codes.
        class_weight: Shape ``(num_classes,)``; None for 1.
    """

    codes: Tensor
    pixels: Tensor
    soft: Tensor | None = None
    class_weight: Tensor | None = None

    @classmethod
    def of(
        cls,
        target: Tensor,
        ignore_index: int,
        pixel_weight: Tensor | None = None,
        shares: Tensor | None = None,
        class_weight: Tensor | None = None,
    ) -> 'Truth':
        """The truth in codes ``(B, H, W)``, of which ``ignore_index`` does not count."""
        labelled = target != ignore_index
        pixels = labelled.float() if pixel_weight is None else pixel_weight.where(labelled, 0)
        return cls(target.where(labelled, UNLABELLED), pixels, shares, class_weight)

    @cached_property
    def masses(self) -> Tensor:
        """Weight in a mean: of each pixel ``(B, H, W)``, or of each class in it, shaped as the shares."""
        if self.soft is not None:
            classes = self.soft * self.pixels[:, None]
            return classes if self.class_weight is None else classes * self.class_weight[NODATA + 1 :, None, None]
        return self.pixels if self.class_weight is None else self.pixels * self.class_weight[self.codes.clamp_min(0)]

    @property
    def pixel_masses(self) -> Tensor:
        """Weight of each pixel in a mean, shape ``(B, H, W)``."""
        return self.masses if self.soft is None else self.masses.sum(dim=1)

    @cached_property
    def mass(self) -> Tensor:
        """Sum of all weights: what a mean over pixels divides by."""
        return self.masses.sum()

    def shares(self, num_classes: int) -> Tensor:
        """Share of each class but no data in each pixel, ``(B, num_classes - 1, H, W)``; 0 or 1 where codes are all."""
        if self.soft is not None:
            return self.soft
        classes = torch.arange(NODATA + 1, num_classes, device=self.codes.device)
        return (self.codes[:, None] == classes[:, None, None]).to(self.pixels.dtype)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Part of a whole, at least 0; 0, with gradients of 0, where the whole is."""
    return part / whole.clamp_min(torch.finfo(whole.dtype).tiny)
