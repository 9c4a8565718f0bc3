"""What networks are put together from."""

from collections.abc import Sequence
from itertools import zip_longest

import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from torch import Tensor, nn
from torch.nn import functional as F


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

    @property
    def segmentation_head(self) -> nn.Module:
        """The last layer, from features to logits."""
        return self.network.segmentation_head  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape ``(B, num_classes, H, W)`` for an image ``(B, C, H, W)``."""
        height, width = x.shape[-2:]
        below, right = -height % self.stride, -width % self.stride
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode='replicate')
        return self.network(x)[..., :height, :width]


class Segmenter(nn.Module):
    """Encoder, decoder and head, one after the other.

    Args:
        encoder: From the image to features.
        decoder: From what the encoder returns to one feature map.
        segmentation_head: From this to logits.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, segmentation_head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.segmentation_head = segmentation_head

    def forward(self, x: Tensor) -> Tensor:
        """Logits of an image whose height and width are multiples of the encoder's stride."""
        return self.segmentation_head(self.decoder(self.encoder(x)))


class SkipDecoder(nn.Module):
    """Decoder of a U-Net: doubles the resolution, joins the encoder's features of that resolution, convolves.

    Args:
        channels: Channels of the features, finest first, each half as fine as the one before.
        widths: Channels behind each doubling, coarsest first. Doublings beyond the finest features join nothing.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        deepest, *skips = reversed(channels)
        inputs = (deepest, *widths[:-1])
        sizes = zip(inputs, (*skips, *[0] * (len(widths) - len(skips))), widths, strict=True)
        self.blocks = nn.ModuleList(UnetDecoderBlock(*size) for size in sizes)
        initialize_decoder(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The finest feature map, from features in the order of the channels."""
        x, *skips = reversed(features)
        for block, skip in zip_longest(self.blocks, skips):
            height, width = x.shape[-2:]
            x = block(x, 2 * height, 2 * width, skip)
        return x


def freeze_unreached(network: nn.Module, in_channels: int) -> None:
    """Freeze what the logits do not depend on, such as the last layers of EfficientNets.

    A parameter that waits for a gradient that never comes stops distributed training.

    Args:
        network: From images to logits.
        in_channels: Channels of the image.
    """
    mode = network.training
    network.eval()
    with torch.enable_grad():
        ahead = [network(torch.zeros(1, in_channels, 32, 32)).grad_fn]
    network.train(mode)
    seen = set(ahead)
    while ahead:
        following = {node for node, _ in ahead.pop().next_functions if node is not None} - seen
        seen |= following
        ahead += following
    reached = {id(node.variable) for node in seen if hasattr(node, 'variable')}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in reached)
