"""Mix Transformers with the decoder of a U-Net: context from attention, outlines from convolutions."""

from collections.abc import Sequence

import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.modules import Conv2dReLU
from torch import Tensor, nn

from .parts import AnySize, Segmenter, SkipDecoder
from .segformer import build_mix_transformer
from .smp_networks import build_encoder

#: Channels of the decoder behind each doubling, coarsest first.
WIDTHS = (256, 128, 64, 32, 16)

#: Partner of the Mix Transformer where none is named.
RESNET = 'resnet34'


class PairedEncoder(nn.Module):
    """Two encoders that look at the same image.

    Args:
        transformer: Features at 1/4 to 1/32.
        convolutional: Features at 1 to 1/32.
    """

    def __init__(self, transformer: nn.Module, convolutional: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.convolutional = convolutional

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Features of the transformer at 1/4 to 1/32, and of the convolutions at 1/2 to 1/32."""
        return self.transformer(x), self.convolutional(x)[1:]


class FusingDecoder(nn.Module):
    """Fuses the features of two encoders by 1 x 1 convolutions where both have them, then decodes as a U-Net.

    The fusing is learned from random weights and so belongs to the decoder, not to a frozen encoder.

    Args:
        transformer: Channels of the transformer's features, finest first.
        convolutional: Channels of the other's, with the finer ones in front that the transformer lacks.
        widths: Channels behind each doubling, coarsest first.
    """

    def __init__(self, transformer: Sequence[int], convolutional: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.finer = len(convolutional) - len(transformer)
        pairs = zip(transformer, convolutional[self.finer :], strict=True)
        self.fuse = nn.ModuleList(Conv2dReLU(one + other, other, kernel_size=1) for one, other in pairs)
        self.unet = SkipDecoder(convolutional, widths)

    def forward(self, features: tuple[list[Tensor], list[Tensor]]) -> Tensor:
        """One feature map at full resolution."""
        transformer, convolutional = features
        pairs = zip(self.fuse, transformer, convolutional[self.finer :], strict=True)
        fused = [fuse(torch.cat([one, other], dim=1)) for fuse, one, other in pairs]
        return self.unet([*convolutional[: self.finer], *fused])


def build_segformer_unet(backbone: str, *, in_channels: int, num_classes: int, pretrained: bool) -> nn.Module:
    """Mix Transformer with the decoder of a U-Net, which learns the way from 1/4 to full resolution.

    Args:
        backbone: ``mit_b0`` to ``mit_b5``.
        in_channels: Channels of the image.
        num_classes: Channels of the logits.
        pretrained: Load ImageNet weights, see :func:`~landcover_plugin.models.segformer.build_segformer`.

    Raises:
        LandcoverError: If the encoder is unknown or its weights cannot be fetched.
    """
    encoder = build_mix_transformer(backbone, in_channels=in_channels, pretrained=pretrained)
    decoder = SkipDecoder(encoder.out_channels, WIDTHS)
    return AnySize(Segmenter(encoder, decoder, SegmentationHead(WIDTHS[-1], num_classes)))


def build_segformer_resnet_unet(backbone: str, *, in_channels: int, num_classes: int, pretrained: bool) -> nn.Module:
    """Mix Transformer and ResNet side by side, fused at four scales, with the decoder of a U-Net.

    At half resolution, where a Mix Transformer has nothing, the ResNet's features go straight to the decoder.

    Args:
        backbone: ``mit_b0`` to ``mit_b5``, with its partner behind a plus (``mit_b2+resnet18``; default resnet34).
        in_channels: Channels of the image.
        num_classes: Channels of the logits.
        pretrained: Load ImageNet weights of both.

    Raises:
        LandcoverError: If an encoder is unknown or its weights cannot be fetched.
    """
    first, _, second = backbone.partition('+')
    transformer = build_mix_transformer(first, in_channels=in_channels, pretrained=pretrained)
    resnet = build_encoder(second or RESNET, in_channels=in_channels, pretrained=pretrained)
    decoder = FusingDecoder(transformer.out_channels, resnet.out_channels[1:], WIDTHS)  # type: ignore[arg-type, index]
    head = SegmentationHead(WIDTHS[-1], num_classes)
    return AnySize(Segmenter(PairedEncoder(transformer, resnet), decoder, head))
