"""U-Net with any encoder of segmentation_models_pytorch."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import huggingface_hub.constants
import segmentation_models_pytorch as smp
import timm
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LandcoverError

#: Last layers of EfficientNets, which a U-Net does not use; a parameter that never gets a gradient stops DDP.
_UNUSED = ('conv_head', 'bn2', '_conv_head', '_bn1')

#: Seconds to wait for a connection to the hub.
CONNECT_TIMEOUT = 5


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
        LandcoverError: If the encoder is unknown, does not suit, or its weights cannot be fetched.
    """
    universal = backbone.startswith('tu-')
    known = timm.is_model(backbone.removeprefix('tu-')) if universal else backbone in smp.encoders.get_encoder_names()
    if not known:
        raise LandcoverError(
            f'{backbone!r} is not an encoder of segmentation_models_pytorch; try resnet50, resnet18 or efficientnet-b0'
        )
    weights = (True if universal else 'imagenet') if pretrained else None
    try:
        with _offline_without_network(wanted=pretrained):
            network = smp.Unet(backbone, encoder_weights=weights, in_channels=in_channels, classes=num_classes)
    except (OSError, KeyError) as e:
        told = 'do not exist' if isinstance(e, KeyError) else f'could not be fetched ({type(e).__name__})'
        raise LandcoverError(
            f'the ImageNet weights of {backbone} {told}; connect to the network once, choose another backbone, or '
            'start from random weights with --model.weights false'
        ) from e
    except Exception as e:
        raise LandcoverError(
            f'{backbone} with {in_channels} channels cannot be the encoder of a U-Net ({" ".join(str(e).split())}); '
            'try resnet50, or --model.weights false if only its weights are missing'
        ) from e
    for name, layer in network.encoder.named_children():
        if name in _UNUSED:
            layer.requires_grad_(False)
    return AnySize(network)


@contextmanager
def _offline_without_network(*, wanted: bool) -> Iterator[None]:
    """Keep the hub from trying for 23 seconds (huggingface_hub 1.x: six times) where it cannot be reached.

    Weights that were fetched earlier are still found.
    """
    constants = huggingface_hub.constants
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or (wanted and not _hub_answers())
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    """Whether a connection to the hub opens; behind a proxy only the hub's own attempt can tell."""
    if any(os.environ.get(name) for name in ('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy')):
        return True
    hub = urlsplit(huggingface_hub.constants.ENDPOINT)
    port = hub.port or (80 if hub.scheme == 'http' else 443)
    try:
        socket.create_connection((hub.hostname, port), timeout=CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True
