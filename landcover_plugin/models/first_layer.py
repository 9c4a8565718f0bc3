"""The first convolution of an encoder: from three colours to any number of channels, and right on every processor."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LandcoverError

#: Channels of the photographs that encoders were pretrained on.
RGB = 3


def spread_filters(weight: Tensor, in_channels: int) -> Tensor:
    """Filters for any number of channels from those for red, green and blue.

    By position: channel i takes the filter of colour i modulo 3, whatever its band, and all are scaled by 3 / channels.
    One channel takes the sum of the three.

    Args:
        weight: Shape ``(out_channels, 3, rows, cols)``.
        in_channels: Channels of the image.

    Returns:
        Shape ``(out_channels, in_channels, rows, cols)``.

    Examples:
        >>> rgb = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
        >>> [spread_filters(rgb, n).flatten().tolist() for n in (1, 3, 6)]
        [[6.0], [1.0, 2.0, 3.0], [0.5, 1.0, 1.5, 0.5, 1.0, 1.5]]
    """
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, torch.arange(in_channels) % RGB] * (RGB / in_channels)


def adapt_first_conv(encoder: nn.Module, in_channels: int) -> None:
    """Let an encoder that was pretrained on RGB take another number of channels; three are left as they are.

    Raises:
        LandcoverError: If no convolution of the encoder takes three channels.
    """
    if in_channels == RGB:
        return
    first = next((m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.in_channels == RGB), None)
    if first is None:
        raise LandcoverError(
            f'the encoder has no convolution over {RGB} channels that could be adapted to {in_channels}; choose '
            f'{RGB} bands, another backbone, or --model.weights false'
        )
    first.weight = nn.Parameter(spread_filters(first.weight.detach(), in_channels))
    first.in_channels = in_channels


class PatchConv2d(nn.Conv2d):
    """A convolution whose kernel is as wide as its step, computed as a product of matrices.

    oneDNN gets such convolutions wrong in bfloat16 on CPUs with AMX for most numbers of channels above three (seen with
    torch 2.14); this can go when ``test_patches_are_embedded_right`` passes without it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of an image whose height and width are multiples of the kernel's."""
        pixels = F.pixel_unshuffle(x, self.kernel_size[0])
        return F.conv2d(pixels, self.weight.flatten(1)[..., None, None], self.bias)


def multiply_patches(encoder: nn.Module) -> None:
    """Replace the first convolution of an encoder by :class:`PatchConv2d` where it cuts the image into patches."""
    name, first = next((n, m) for n, m in encoder.named_modules() if isinstance(m, nn.Conv2d))
    rows, cols = first.kernel_size
    if type(first) is not nn.Conv2d or first.stride != (rows, cols) or rows != cols or first.padding != (0, 0):
        return
    patches = PatchConv2d(first.in_channels, first.out_channels, rows, stride=rows, bias=first.bias is not None)
    patches.weight, patches.bias = first.weight, first.bias
    parent, _, leaf = name.rpartition('.')
    setattr(encoder.get_submodule(parent), leaf, patches)
