"""Low-rank adaptation of transformers: the encoder stays, small matrices beside its attention learn."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import LandcoverError
from .hybrids import PairedEncoder
from .pretrained import image_convolutions

#: Projections of attention in the encoders of timm and transformers; not the small network of Swin V2's positions.
_PROJECTION = re.compile(r'\.(attn|attention)\.(qkv|proj|[qkvo]_proj)$')

#: How a parametrised weight and its matrices are called in a state dict.
_ORIGINAL, _FIRST, _SECOND = (f'parametrizations.weight.{name}' for name in ('original', '0.a', '0.b'))


class LowRank(nn.Module):
    """A weight and the product of two thin matrices, which is 0 at first.

    Hu et al. 2021, https://arxiv.org/abs/2106.09685, with alpha = rank.

    Args:
        weight: Shape ``(out, in)``.
        rank: Columns of the first, rows of the second.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.b = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        return weight + self.b @ self.a


def add_lora(network: nn.Module, rank: int) -> str:
    """Freeze the transformer of a network and put low-rank matrices beside its attention, in place.

    Decoder, head, a convolutional encoder beside the transformer, and the first layer, whose filters are new where
    bands are, learn as before. The weights are parametrised in torch, not wrapped by peft: Swin V2 takes the weight out
    of its layer and computes without calling it, which a wrapper would never notice.

    State dicts hold the sum under the plain name: checkpoints load with and without adaptation. The matrices
    themselves, which a training needs to resume, are :func:`lora_state`.

    Args:
        network: With a transformer as encoder.
        rank: Rank of the matrices.

    Returns:
        How many parameters are trained, for the log.

    Raises:
        LandcoverError: If the rank is below 1, or the encoder has no attention.
    """
    if rank < 1:
        raise LandcoverError(f'lora_rank must be 1 or more, got {rank}; leave it at 0 to train all of the encoder')
    encoder: Any = network.encoder
    encoder = encoder.transformer if isinstance(encoder, PairedEncoder) else encoder
    layers = [m for n, m in encoder.named_modules() if isinstance(m, nn.Linear) and _PROJECTION.search(n)]
    if not layers:
        raise LandcoverError(
            'lora_rank needs a transformer as encoder, such as --model.model segformer or upernet; '
            'this one has no attention'
        )
    encoder.requires_grad_(False)
    for parameter in image_convolutions(encoder)[0].parameters():
        parameter.requires_grad_(True)
    for layer in layers:
        parametrize.register_parametrization(layer, 'weight', LowRank(layer.weight, rank))
        layer.register_state_dict_post_hook(_merge)
        layer.register_load_state_dict_pre_hook(_part)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in network.parameters())
    return (
        f'low-rank adaptation, rank {rank}, of {len(layers)} projections: {trained:,} of {everything:,} parameters '
        'are trained'
    )


def merge_lora(network: nn.Module) -> None:
    """Put the sums in place of the parametrised weights, for good; what was frozen stays so."""
    for layer in _adapted(network).values():
        parametrize.remove_parametrizations(layer, 'weight', leave_parametrized=True)
        layer._state_dict_hooks.clear()
        layer._load_state_dict_pre_hooks.clear()
        layer.weight.requires_grad_(False)


def lora_state(network: nn.Module) -> dict[str, Tensor]:
    """The low-rank matrices by name; empty without adaptation."""
    return {name: matrix.detach().clone() for name, matrix in _matrices(network).items()}


def load_lora_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set the low-rank matrices, before the state dict is loaded that holds the sums.

    Args:
        network: With adaptation, or without: then nothing is to be set, the sums are enough.
        state: From :func:`lora_state`; empty leaves the matrices as they are.

    Raises:
        LandcoverError: If they are of another network or rank.
    """
    own = _matrices(network)
    if not own or not state:
        return
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in state.items()}:
        ranks = sorted({v.shape[0] for k, v in state.items() if k.endswith('.a')})
        raise LandcoverError(
            f'the checkpoint was trained with lora_rank {", ".join(map(str, ranks))} on {len(state) // 2} projections; '
            'resume with the same network and rank, or start from it with --model.weights PATH'
        )
    with torch.no_grad():
        for name, matrix in own.items():
            matrix.copy_(state[name])


def _matrices(network: nn.Module) -> dict[str, nn.Parameter]:
    layers = _adapted(network).items()
    return {f'{n}.{k}': p for n, layer in layers for k, p in layer.parametrizations.weight[0].named_parameters()}


def _adapted(network: nn.Module) -> dict[str, Any]:
    """The adapted layers by name."""
    layers: dict[str, Any] = {n: m for n, m in network.named_modules() if parametrize.is_parametrized(m, 'weight')}
    return {n: layer for n, layer in layers.items() if isinstance(layer.parametrizations.weight[0], LowRank)}


def _merge(layer: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Say in a state dict what the weight is, not how it is made up."""
    original, a, b = (state.pop(f'{prefix}{name}') for name in (_ORIGINAL, _FIRST, _SECOND))
    state[f'{prefix}weight'] = original + b @ a


def _part(layer: Any, state: dict[str, Any], prefix: str, *others: Any) -> None:
    """Load a weight into its original, less what the matrices add to it."""
    weight = state.pop(f'{prefix}weight', None)
    if weight is None:
        return
    matrices = layer.parametrizations.weight[0]
    a, b = matrices.a.detach(), matrices.b.detach()
    state[f'{prefix}{_FIRST}'], state[f'{prefix}{_SECOND}'] = a, b
    state[f'{prefix}{_ORIGINAL}'] = weight.to(a) - b @ a
