"""U-Net with any encoder of segmentation_models_pytorch."""

import segmentation_models_pytorch as smp
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LandcoverError


class AnySize(nn.Module):
    """A network that takes images of any height and width.

    Pads to the next multiple of the encoder's stride by repeating the border and cuts the logits back.

    Args:
        network: From ``(B, C, H, W)`` to logits ``(B, num_classes, H, W)``, for H and W multiples of the stride.
        stride: Reduction of the deepest features.
    """

    def __init__(self, network: nn.Module, stride: int = 32) -> None:
        super().__init__()
        self.network = network
        self.stride = stride

    @property
    def encoder(self) -> nn.Module:
        """The encoder, where TorchGeo expects it."""
        return self.network.encoder  # type: ignore[return-value]

    @property
    def decoder(self) -> nn.Module:
        """The decoder, where TorchGeo expects it."""
        return self.network.decoder  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape ``(B, num_classes, H, W)`` for an image ``(B, C, H, W)``."""
        height, width = x.shape[-2:]
        below, right = -height % self.stride, -width % self.stride
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode='replicate')
        return self.network(x)[..., :height, :width]


def build_unet(backbone: str, *, in_channels: int, num_classes: int, pretrained: bool) -> nn.Module:
    """U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) on an encoder by name.

    Args:
        backbone: Any encoder of segmentation_models_pytorch, such as ``resnet50`` or ``timm-tf_efficientnet_lite0``.
        in_channels: Channels of the image.
        num_classes: Channels of the logits.
        pretrained: Load ImageNet weights; the first convolution is adapted to ``in_channels`` by repeating its
            three filters and scaling them so that the sum over the inputs keeps its size.

    Raises:
        LandcoverError: If the encoder is unknown or its weights cannot be fetched.
    """
    if backbone not in smp.encoders.get_encoder_names() and not backbone.startswith('tu-'):
        raise LandcoverError(
            f'{backbone!r} is not an encoder of segmentation_models_pytorch; try resnet50, resnet18 or efficientnet-b0'
        )
    try:
        network = smp.Unet(
            encoder_name=backbone,
            encoder_weights='imagenet' if pretrained else None,
            in_channels=in_channels,
            classes=num_classes,
        )
    except Exception as e:
        if not pretrained:
            raise
        raise LandcoverError(
            f'the ImageNet weights of {backbone} could not be fetched ({type(e).__name__}); connect to the network '
            'once or start from random weights with --model.weights false'
        ) from e
    return AnySize(network)
