"""The network to beat: an encoder without skip connections and transposed convolutions."""

from collections.abc import Sequence

from torch import Tensor, nn

from .parts import AnySize, Segmenter
from .smp_networks import build_encoder

#: Channels behind each doubling, coarsest first.
WIDTHS = (512, 256, 128, 64, 32)


class DeconvDecoder(nn.Sequential):
    """Doubles the resolution of the deepest features by transposed convolutions, until it is the image's.

    Args:
        in_channels: Channels of the deepest features.
        widths: Channels behind each doubling.
    """

    def __init__(self, in_channels: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__(
            *(
                nn.Sequential(
                    nn.ConvTranspose2d(before, width, 3, stride=2, padding=1, output_padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                )
                for before, width in zip((in_channels, *widths[:-1]), widths, strict=True)
            )
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features at full resolution, from those of an encoder, deepest last."""
        return super().forward(features[-1])


def build_deconv(backbone: str, *, in_channels: int, num_classes: int, pretrained: bool) -> nn.Module:
    """An encoder, transposed convolutions to 32 channels at full resolution, a 1 x 1 convolution to the classes.

    A fully convolutional network (Long et al. 2015, https://arxiv.org/abs/1411.4038) without its skip connections: what
    is finer than the deepest features, 1/32, has to be guessed.

    Args:
        backbone: Any encoder of segmentation_models_pytorch; ``resnet50`` is what the network is named after.
        in_channels: Channels of the image.
        num_classes: Channels of the logits.
        pretrained: Load ImageNet weights; three channels take them as they are, others adapted.

    Raises:
        LandcoverError: If the encoder is unknown, does not suit, or its weights cannot be fetched.
    """
    encoder = build_encoder(backbone, in_channels=in_channels, pretrained=pretrained)
    decoder = DeconvDecoder(encoder.out_channels[-1])  # type: ignore[arg-type, index]
    return AnySize(Segmenter(encoder, decoder, nn.Conv2d(WIDTHS[-1], num_classes, 1)))
