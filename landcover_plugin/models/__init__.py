"""Networks by name: each builds logits ``(B, num_classes, H, W)`` for any height and width."""

from collections.abc import Callable
from importlib import import_module
from typing import Literal, NamedTuple

from torch import nn

ModelName = Literal[
    'unet',
    'unet_scratch',
    'resnet50_deconv',
    'segformer',
    'segformer_unet',
    'segformer_resnet_unet',
    'deeplabv3plus',
    'upernet',
    'unetplusplus',
    'manet',
    'linknet',
    'fpn',
    'pspnet',
    'pan',
    'deeplabv3',
    'dpt',
]


class Network(NamedTuple):
    """A network: the encoder that it has unless another is named, and the function that builds it.

    Attributes:
        backbone: Default encoder.
        module: Module of this package, imported when the network is first built.
        builder: Its function.
        args: What the function takes before the backbone.
    """

    backbone: str
    module: str
    builder: str
    args: tuple[str, ...] = ()

    def build(self, backbone: str | None = None, *, in_channels: int, num_classes: int, pretrained: bool) -> nn.Module:
        """Build the network.

        Args:
            backbone: Encoder by name (default: that of the network).
            in_channels: Channels of the image.
            num_classes: Channels of the logits.
            pretrained: Load ImageNet weights of the encoder.

        Raises:
            LandcoverError: If the encoder is unknown, does not suit, or its weights cannot be had.
        """
        build = getattr(import_module(f'.{self.module}', __name__), self.builder)
        settings = {'in_channels': in_channels, 'num_classes': num_classes, 'pretrained': pretrained}
        return build(*self.args, self.backbone if backbone is None else backbone, **settings)


def _smp(architecture: str, backbone: str) -> Network:
    """A network of segmentation_models_pytorch, by the name of its class."""
    return Network(backbone, 'smp_networks', 'build_smp', (architecture,))


NETWORKS: dict[str, Network] = {
    'unet': _smp('Unet', 'resnet50'),
    'unet_scratch': Network('plain64', 'unet', 'build_unet_scratch'),
    'resnet50_deconv': Network('resnet50', 'deconv', 'build_deconv'),
    'segformer': Network('mit_b2', 'segformer', 'build_segformer'),
    'segformer_unet': Network('mit_b2', 'hybrids', 'build_segformer_unet'),
    'segformer_resnet_unet': Network('mit_b2+resnet34', 'hybrids', 'build_segformer_resnet_unet'),
    'deeplabv3plus': _smp('DeepLabV3Plus', 'resnet50'),
    'upernet': _smp('UPerNet', 'tu-swinv2_tiny_window8_256'),
    'unetplusplus': _smp('UnetPlusPlus', 'resnet34'),
    'manet': _smp('MAnet', 'resnet34'),
    'linknet': _smp('Linknet', 'resnet34'),
    'fpn': _smp('FPN', 'resnet50'),
    'pspnet': _smp('PSPNet', 'resnet50'),
    'pan': _smp('PAN', 'resnet50'),
    'deeplabv3': _smp('DeepLabV3', 'resnet50'),
    'dpt': _smp('DPT', 'tu-vit_small_patch16_224'),
}

BUILDERS: dict[str, Callable[..., nn.Module]] = {name: network.build for name, network in NETWORKS.items()}

DEFAULT_BACKBONE: dict[str, str] = {name: network.backbone for name, network in NETWORKS.items()}
