"""The networks of segmentation_models_pytorch, with any of its encoders."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import segmentation_models_pytorch as smp
import timm
from torch import nn

from ..errors import LandcoverError
from .first_layer import RGB, adapt_first_conv, multiply_patches
from .hub import fetching
from .parts import AnySize, freeze_unreached

#: Mark of the encoders that come from timm.
_TIMM = 'tu-'

#: What transformers of timm need to take images of any size, by the beginning of their names.
_OPTIONS: dict[str, dict[str, Any]] = {
    'tu-swin': {'strict_img_size': False},
    'tu-vit_': {'dynamic_img_size': True, 'num_classes': 0},
}

#: Where the defaults of the package do not do: the encoder of its PSPNet ends at 1/8 with a tenth of the layers; the
#: paper dilates the others (Zhao et al. 2017, https://arxiv.org/abs/1612.01105).
_SETTINGS: dict[str, dict[str, Any]] = {'PSPNet': {'encoder_depth': 5, 'output_stride': 8, 'upsampling': 8}}

#: Multiples that the image is padded to: PAN pools three times behind a stride of 16.
_STRIDE = {'PAN': 128}


def build_smp(architecture: str, backbone: str, *, in_channels: int, num_classes: int, pretrained: bool) -> nn.Module:
    """A decoder of segmentation_models_pytorch on an encoder by name.

    Args:
        architecture: Class, such as ``Unet`` (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597),
            ``DeepLabV3Plus`` (Chen et al. 2018, https://arxiv.org/abs/1802.02611) or ``UPerNet`` (Xiao et al. 2018,
            https://arxiv.org/abs/1807.10221).
        backbone: Any encoder of the package, such as ``resnet50``, ``timm-tf_efficientnet_lite0`` or
            ``tu-swinv2_tiny_window8_256`` (tu-: from timm).
        in_channels: Channels of the image.
        num_classes: Channels of the logits.
        pretrained: Load ImageNet weights; the first convolution is adapted, see
            :func:`~landcover_plugin.models.first_layer.spread_filters`.

    Raises:
        LandcoverError: If the encoder is unknown, does not suit, or its weights cannot be fetched.
    """
    with _building(backbone, f'{in_channels} channels cannot be the encoder of {architecture}', pretrained=pretrained):
        network = getattr(smp, architecture)(
            backbone,
            encoder_weights=_weights(backbone, pretrained),
            in_channels=RGB if pretrained else in_channels,
            classes=num_classes,
            **_SETTINGS.get(architecture, {}),
            **_options(backbone),
        )
    if pretrained:
        adapt_first_conv(network.encoder, in_channels)
    multiply_patches(network.encoder)
    whole = AnySize(network, _STRIDE.get(architecture, 32))
    freeze_unreached(whole, in_channels)
    return whole


def build_encoder(backbone: str, *, in_channels: int, pretrained: bool) -> nn.Module:
    """An encoder alone: from the image to features at 1, 1/2, 1/4, 1/8, 1/16 and 1/32.

    Args:
        backbone: As in :func:`build_smp`.
        in_channels: Channels of the image.
        pretrained: As in :func:`build_smp`.

    Returns:
        A module with ``out_channels``, those of each of its features.

    Raises:
        LandcoverError: As :func:`build_smp`.
    """
    with _building(backbone, f'{in_channels} channels cannot be an encoder', pretrained=pretrained):
        encoder = smp.encoders.get_encoder(
            backbone,
            in_channels=RGB if pretrained else in_channels,
            weights=_weights(backbone, pretrained),
            **_options(backbone),
        )
    if pretrained:
        adapt_first_conv(encoder, in_channels)
    multiply_patches(encoder)
    return encoder


@contextmanager
def _building(backbone: str, failure: str, *, pretrained: bool) -> Iterator[None]:
    """Say in one sentence why an encoder cannot be built."""
    _check_name(backbone)
    try:
        with fetching(backbone, wanted=pretrained):
            yield
    except LandcoverError:
        raise
    except Exception as e:
        raise LandcoverError(
            f'{backbone} with {failure} ({" ".join(str(e).split())}); try another backbone, or '
            '--model.weights false if only its weights are missing'
        ) from e


def _check_name(backbone: str) -> None:
    """Refuse unknown encoders, with the names nearest to what was asked for."""
    if backbone.startswith(_TIMM):
        known = timm.is_model(backbone.removeprefix(_TIMM))
        names = [f'{_TIMM}{name}' for name in timm.list_models()]
    else:
        names = smp.encoders.get_encoder_names()
        known = backbone in names
    if known:
        return
    near = difflib.get_close_matches(backbone, names) or ['resnet50', 'resnet18', 'efficientnet-b0']
    raise LandcoverError(f'{backbone!r} is not an encoder of segmentation_models_pytorch; try {" or ".join(near)}')


def _weights(backbone: str, pretrained: bool) -> str | bool | None:
    """ImageNet weights as the package wants them named, which differs for timm's encoders."""
    if not pretrained:
        return None
    return True if backbone.startswith(_TIMM) else 'imagenet'


def _options(backbone: str) -> dict[str, Any]:
    return next((options for start, options in _OPTIONS.items() if backbone.startswith(start)), {})
