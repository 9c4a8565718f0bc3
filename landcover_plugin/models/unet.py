"""The plain U-Net, with an encoder of its own that knows nothing beforehand."""

from collections.abc import Sequence

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.base.modules import Conv2dReLU
from torch import Tensor, nn

from ..errors import LandcoverError
from .parts import AnySize, Segmenter, SkipDecoder

#: Channels at full resolution, by the name of the encoder; each level below has twice as many.
WIDTHS = {'plain16': 16, 'plain32': 32, 'plain64': 64}

#: Levels: full resolution and four halvings.
_DEPTH = 5


class PlainEncoder(nn.Module):
    """Two convolutions at each level, the largest of each 2 x 2 px taken down to the next.

    Args:
        in_channels: Channels of the image.
        channels: Channels of each level, finest first.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.out_channels = tuple(channels)
        self.levels = nn.ModuleList(
            nn.Sequential(Conv2dReLU(before, width, 3, padding=1), Conv2dReLU(width, width, 3, padding=1))
            for before, width in zip((in_channels, *channels[:-1]), channels, strict=True)
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
        backbone: ``plain64`` (64 to 1,024 channels, as published), ``plain32`` or ``plain16``.
        in_channels: Channels of the image.
        num_classes: Channels of the logits.
        pretrained: Must be false: nothing pretrained exists.

    Raises:
        LandcoverError: If the encoder is unknown, or pretrained weights are asked for.
    """
    if backbone not in WIDTHS:
        raise LandcoverError(f'{backbone!r} is not an encoder of unet_scratch; choose {", ".join(WIDTHS)}, or unet')
    if pretrained:
        raise LandcoverError(
            'unet_scratch has no pretrained weights; add --model.weights false, or choose --model.model unet'
        )
    channels = [WIDTHS[backbone] * 2**level for level in range(_DEPTH)]
    encoder, decoder = PlainEncoder(in_channels, channels), SkipDecoder(channels, channels[-2::-1])
    head = smp.base.SegmentationHead(channels[0], num_classes, kernel_size=1)
    return AnySize(Segmenter(encoder, decoder, head), stride=2 ** (_DEPTH - 1))
