"""Networks by name: each builds logits ``(B, num_classes, H, W)`` for any height and width."""

from collections.abc import Callable
from typing import Literal

from torch import nn

from .unet import build_unet

ModelName = Literal['unet']

BUILDERS: dict[str, Callable[..., nn.Module]] = {'unet': build_unet}
