"""The normalisation that weights were pretrained under, folded into the first layer of a network."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import LandcoverError
from .bands import BandMatch, adapt_first_layer


class Scaling(NamedTuple):
    """What pretrained filters were shown: ``(reflectance - offset) / scale`` of each band.

    Attributes:
        offset: One number for each pretrained band.
        scale: Likewise.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]


class FirstLayer(NamedTuple):
    """A first layer whose pretrained filters still wait for the statistics of the images in use.

    Attributes:
        convolution: Of the network; it takes the channels of the image.
        norm: The batch norm behind it, where it has no bias of its own.
        weight: Pretrained filters, shape ``(out_channels, bands, rows, cols)``.
        matches: Which of the bands each channel starts from.
        scaling: What the filters were shown.
    """

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d | None
    weight: Tensor
    matches: Sequence[BandMatch]
    scaling: Scaling

    def fold(self, mean: Sequence[float], std: Sequence[float]) -> str:
        """Let the layer answer standardised images as the pretrained one answers its own, in place.

        With ``x = (reflectance - mean) / std`` of a channel the filters were shown ``a x + b``, where
        ``a = std / scale`` and ``b = (mean - offset) / scale``. The filters are multiplied by ``a``; what they make of
        ``b`` goes into the bias or, negative, into the running mean of the norm. At the border of an image, which
        convolutions pad with 0, this is exact only where the mean is what 0 was before.

        Args:
            mean: Mean reflectance of each channel.
            std: Standard deviation of each channel.

        Returns:
            What was done, for the log.

        Raises:
            LandcoverError: If there are not as many numbers as channels.
        """
        if not len(mean) == len(std) == len(self.matches):
            raise LandcoverError(
                f'mean and std need one number for each of {len(self.matches)} channels, got {len(mean)} and {len(std)}'
            )
        factors = [self._of_channel(match, 0, std[i]) for i, match in enumerate(self.matches)]
        shifts = [self._of_channel(match, mean[i], None) for i, match in enumerate(self.matches)]
        gain = self._gain()
        weight, constant = gain * torch.stack(factors, dim=1), gain * torch.stack(shifts).sum(dim=(0, 2, 3))
        with torch.no_grad():
            self.convolution.weight.copy_(weight)
            if self.convolution.bias is not None:
                self.convolution.bias.add_(constant)
            elif self.norm is not None and self.norm.running_mean is not None:
                self.norm.running_mean.sub_(constant)
            else:
                return (
                    'the scale of the pretrained pixels is folded into the first layer; it has no bias for their mean'
                )
        return 'the scale and mean of the pretrained pixels are folded into the first layer'

    def _of_channel(self, match: BandMatch, mean: float, std: float | None) -> Tensor:
        """Filters of a channel times ``a`` or, without a deviation, times ``b``: ``(out_channels, rows, cols)``."""
        parts = []
        for i in match.indices:
            offset, scale = self.scaling.offset[i], self.scaling.scale[i]
            parts.append(self.weight[:, i] * ((mean - offset) / scale if std is None else std / scale))
        return torch.stack(parts).mean(dim=0)

    def _gain(self) -> Tensor:
        """The one factor of :func:`~landcover_plugin.models.bands.adapt_first_layer`, for bands that are missing."""
        plain = torch.stack([self.weight[:, list(m.indices)].mean(dim=1) for m in self.matches], dim=1)
        adapted = adapt_first_layer(self.weight, self.matches)
        return adapted.norm() / plain.norm().clamp_min(torch.finfo(plain.dtype).tiny)


def norm_behind(encoder: nn.Module, convolution: nn.Conv2d) -> nn.BatchNorm2d | None:
    """The batch norm that follows a convolution in an encoder; None if something else does."""
    modules = [m for m in encoder.modules() if not any(m.children())]
    following = modules[modules.index(convolution) + 1 :][:1]
    return following[0] if following and isinstance(following[0], nn.BatchNorm2d) else None
