"""The plain U-Net, with an encoder of its own that knows nothing beforehand."""

from collections.abc import Sequence
from typing import NamedTuple

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.base.modules import Conv2dReLU
from torch import Tensor, nn

from ..errors import LandcoverError
from .parts import AnySize, Segmenter, SkipDecoder


class Plan(NamedTuple):
    """An encoder by name.

    Attributes:
        width: Channels at full resolution; each level below has twice as many.
        levels: Full resolution and the halvings.
        kernel: Edge of the filters at full resolution; 1 looks at the spectrum of single pixels.
    """

    width: int
    levels: int = 5
    kernel: int = 3


#: Encoders by name. Those called spectral see 120 m around a pixel, not the whole patch, which little ground lets a
#: network learn by heart.
PLANS = {
    'plain16': Plan(16),
    'plain32': Plan(32),
    'plain64': Plan(64),
    'spectral32': Plan(32, levels=2, kernel=1),
    'spectral64': Plan(64, levels=2, kernel=1),
}


class PlainEncoder(nn.Module):
    """Two convolutions at each level, the largest of each 2 x 2 px taken down to the next.

    Args:
        in_channels: Channels of the image.
        channels: Channels of each level, finest first.
        kernel: Edge of the filters at full resolution.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], kernel: int = 3) -> None:
        super().__init__()
        self.out_channels = tuple(channels)
        kernels = (kernel, *[3] * (len(channels) - 1))
        self.levels = nn.ModuleList(
            nn.Sequential(Conv2dReLU(before, width, k, padding=k // 2), Conv2dReLU(width, width, k, padding=k // 2))
            for before, width, k in zip((in_channels, *channels[:-1]), channels, kernels, strict=True)
        )
        self.halve = nn.MaxPool2d(2)
        smp.base.initialization.initialize_decoder(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of each level, finest first."""
        features: list[Tensor] = []
        for level in self.levels:
            features.append(level(self.halve(features[-1]) if features else x))
        return features


def build_unet_scratch(backbone: str, *, in_channels: int, num_classes: int, pretrained: bool) -> nn.Module:
    """U-Net as published (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597), with padding and batch norm.

    Args:
        backbone: ``plain64`` (64 to 1,024 channels, as published), ``plain32`` or ``plain16``; for little ground
            ``spectral32`` or ``spectral64``, see :data:`PLANS`.
        in_channels: Channels of the image.
        num_classes: Channels of the logits.
        pretrained: Must be false: nothing pretrained exists.

    Raises:
        LandcoverError: If the encoder is unknown, or pretrained weights are asked for.
    """
    if backbone not in PLANS:
        raise LandcoverError(f'{backbone!r} is not an encoder of unet_scratch; choose {", ".join(PLANS)}, or unet')
    if pretrained:
        raise LandcoverError(
            'unet_scratch has no pretrained weights; add --model.weights false, or choose --model.model unet'
        )
    plan = PLANS[backbone]
    channels = [plan.width * 2**level for level in range(plan.levels)]
    encoder, decoder = PlainEncoder(in_channels, channels, plan.kernel), SkipDecoder(channels, channels[-2::-1])
    head = smp.base.SegmentationHead(channels[0], num_classes, kernel_size=1)
    return AnySize(Segmenter(encoder, decoder, head), stride=2 ** (plan.levels - 1))
