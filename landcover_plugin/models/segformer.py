"""SegFormer and its encoder, the Mix Transformer, from transformers."""

from typing import Any

from torch import Tensor, nn
from transformers import (
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SegformerModel,
)

from ..errors import LandcoverError
from .first_layer import adapt_first_conv
from .hub import fetching
from .parts import AnySize, Segmenter

#: Layers of each stage, by the name of the encoder, from the appendix of the paper.
DEPTHS = {
    'mit_b0': (2, 2, 2, 2),
    'mit_b1': (2, 2, 2, 2),
    'mit_b2': (3, 4, 6, 3),
    'mit_b3': (3, 4, 18, 3),
    'mit_b4': (3, 8, 27, 3),
    'mit_b5': (3, 6, 40, 3),
}

#: Where the authors' ImageNet weights lie on the hub.
REPOSITORY = 'nvidia/{}'


class MixTransformer(nn.Module):
    """The encoder: features at 1/4, 1/8, 1/16 and 1/32.

    Args:
        model: The encoder of transformers.
    """

    def __init__(self, model: SegformerModel) -> None:
        super().__init__()
        self.model = model
        self.out_channels = tuple(model.config.hidden_sizes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features ``(B, channels, rows, cols)``, finest first."""
        return list(self.model(x, output_hidden_states=True).hidden_states)


def build_segformer(backbone: str, *, in_channels: int, num_classes: int, pretrained: bool) -> nn.Module:
    """SegFormer (Xie et al. 2021, https://arxiv.org/abs/2105.15203).

    Its head ends at a quarter of the resolution and the logits are interpolated from there, as in the paper: outlines
    finer than 4 px are smoothed. ``segformer_unet`` and ``segformer_resnet_unet`` learn the way to full resolution.

    Args:
        backbone: ``mit_b0`` to ``mit_b5``.
        in_channels: Channels of the image.
        num_classes: Channels of the logits.
        pretrained: Load the authors' ImageNet weights; the first convolution is adapted, see
            :func:`~landcover_plugin.models.first_layer.spread_filters`.

    Raises:
        LandcoverError: If the encoder is unknown or its weights cannot be fetched.
    """
    encoder = build_mix_transformer(backbone, in_channels=in_channels, pretrained=pretrained)
    head: Any = SegformerForSemanticSegmentation(mix_transformer_config(backbone, num_labels=num_classes)).decode_head
    classifier, head.classifier = head.classifier, nn.Identity()
    quadruple = nn.Upsample(scale_factor=4, mode='bilinear')
    return AnySize(Segmenter(encoder, head, nn.Sequential(classifier, quadruple)))


def build_mix_transformer(backbone: str, *, in_channels: int, pretrained: bool) -> MixTransformer:
    """The encoder by name, see :func:`build_segformer`."""
    config = mix_transformer_config(backbone, num_channels=in_channels)
    if not pretrained:
        return MixTransformer(SegformerModel(config))
    with fetching(backbone, wanted=True):
        name = REPOSITORY.format(backbone.replace('_', '-'))
        model = SegformerForImageClassification.from_pretrained(name).segformer.train()  # it comes in evaluation mode
    adapt_first_conv(model, in_channels)
    return MixTransformer(model)


def mix_transformer_config(backbone: str, **settings: Any) -> SegformerConfig:
    """Sizes of a published Mix Transformer and its head.

    Args:
        backbone: ``mit_b0`` to ``mit_b5``.
        **settings: Of :class:`transformers.SegformerConfig`.

    Raises:
        LandcoverError: If the name is none of them.
    """
    if backbone not in DEPTHS:
        raise LandcoverError(f'{backbone!r} is not a Mix Transformer, which this network needs: {", ".join(DEPTHS)}')
    return SegformerConfig(
        depths=DEPTHS[backbone],
        hidden_sizes=(32, 64, 160, 256) if backbone == 'mit_b0' else (64, 128, 320, 512),
        decoder_hidden_size=256 if backbone in ('mit_b0', 'mit_b1') else 768,
        **settings,
    )
