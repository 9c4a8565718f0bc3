"""Decoders of U-Nets for inference: nearest-neighbour doubling and the convolution behind it as one step."""

import copy
from typing import Any

import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

#: Which of a kernel's three rows meet a pixel that was doubled, for each row of the transposed kernel.
_MET = ((0, 0, 1), (0, 1, 1), (1, 1, 0), (1, 0, 0))


class DoublingBlock(nn.Module):
    """What a decoder block computes, with fewer multiplications: 4 instead of 9 for each of the doubled channels.

    A 3 x 3 convolution of pixels that were doubled multiplies the same pixel several times. Added up beforehand, its
    weights make a transposed convolution of the pixels as they were: 4 x 4 weights, two pixels apart (Shi et al. 2016,
    "Is the deconvolution layer the same as a convolutional layer?", https://arxiv.org/abs/1609.07009). The features
    that join there are convolved by themselves, so the two need not be put together before. The result is that of the
    block but for rounding.

    Args:
        block: In evaluation, see :func:`is_doubling`; its modules are used, not copied.
        skip_channels: Channels that join.

    Examples:
        >>> block = UnetDecoderBlock(4, 2, 3).eval()
        >>> x, skip = torch.rand(1, 4, 5, 6), torch.rand(1, 2, 10, 12)
        >>> with torch.no_grad():
        ...     torch.allclose(DoublingBlock(block, 2)(x, 10, 12, skip), block(x, 10, 12, skip), atol=1e-5)
        True
    """

    def __init__(self, block: UnetDecoderBlock, skip_channels: int) -> None:
        super().__init__()
        convolution = fuse_conv_bn_eval(block.conv1[0], block.conv1[1])
        weight, met = convolution.weight.detach(), torch.tensor(_MET, dtype=convolution.weight.dtype)
        width, given = weight.shape[0], weight.shape[1] - skip_channels
        self.doubling = nn.ConvTranspose2d(given, width, 4, stride=2, padding=1)
        kernel = torch.einsum('ka,oiab,lb->iokl', met.to(weight.device), weight[:, :given], met.to(weight.device))
        self.doubling.weight = nn.Parameter(kernel.contiguous(), requires_grad=False)
        self.doubling.bias = nn.Parameter(convolution.bias.detach(), requires_grad=False)
        self.joining: nn.Conv2d | None = None
        if skip_channels:
            self.joining = nn.Conv2d(skip_channels, width, 3, padding=1, bias=False)
            self.joining.weight = nn.Parameter(weight[:, given:].contiguous(), requires_grad=False)
        self.activation, self.conv2 = block.conv1[2], block.conv2

    def forward(
        self, feature_map: Tensor, target_height: int, target_width: int, skip_connection: Tensor | None = None
    ) -> Tensor:
        """Features ``(B, width, 2 H, 2 W)`` of features ``(B, C, H, W)`` and those that join."""
        found = self.doubling(feature_map)
        if self.joining is not None and skip_connection is not None:
            found = found + self.joining(skip_connection)
        return self.conv2(self.activation(found))


def is_doubling(module: nn.Module) -> bool:
    """Whether a module is a decoder block that doubles by repeating pixels, with batch norm and without attention."""
    return (
        isinstance(module, UnetDecoderBlock)
        and module.interpolation_mode == 'nearest'
        and isinstance(module.conv1[1], nn.BatchNorm2d)
        and all(isinstance(a.attention, nn.Identity) for a in (module.attention1, module.attention2))
    )


def with_doubling_blocks(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy of a network for inference in which decoder blocks of U-Nets take fewer multiplications.

    Blocks that do something else than double, as images show, stay as they are.

    Args:
        network: In evaluation.
        images: For one pass, on the device of the network.
    """
    faster = copy.deepcopy(network).eval()
    skips: dict[nn.Module, int] = {}

    def look(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        feature_map, height, width, *joining = (*args, *kwargs.values())
        skip = joining[0] if joining else None
        if (height, width) == tuple(2 * n for n in feature_map.shape[-2:]):
            skips[block] = 0 if skip is None else skip.shape[1]

    hooks = [
        module.register_forward_pre_hook(look, with_kwargs=True) for module in faster.modules() if is_doubling(module)
    ]
    if hooks:
        with torch.inference_mode():
            faster(images)
    for hook in hooks:
        hook.remove()
    for parent in list(faster.modules()):
        for name, child in parent.named_children():
            if child in skips:
                setattr(parent, name, DoublingBlock(child, skips[child]))
    return faster
