"""Swin Transformers V2 as torchvision names their weights, in which TorchGeo publishes them, by the names of timm."""

import re
from collections.abc import Mapping

from torch import Tensor

#: What the same thing is called there and here; stages first, then layers within a block.
_RENAMED = (
    (r'^features\.0\.0\.', 'patch_embed.proj.'),
    (r'^features\.0\.2\.', 'patch_embed.norm.'),
    (r'\.mlp\.0\.', '.mlp.fc1.'),
    (r'\.mlp\.3\.', '.mlp.fc2.'),
)


def is_torchvision_swin(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of torchvision's Swin Transformer V2."""
    return 'features.1.0.attn.logit_scale' in state


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the features by the names that timm gives them, without norm and head of the classifier.

    torchvision keeps the bias of queries, keys and values in one and sets that of the keys to 0 when it computes (Liu
    et al. 2022, https://arxiv.org/abs/2111.09883, leave it out); timm has two.

    Args:
        state: As in ``torchvision.models.swin_v2_b().state_dict()``.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if not name.startswith('features.') or 'relative_' in name:  # tables that follow from the sizes
            continue
        name = _rename(name)
        if name.endswith('qkv.bias'):
            query, _, values = value.chunk(3)
            renamed |= {name.replace('qkv.bias', 'q_bias'): query, name.replace('qkv.bias', 'v_bias'): values}
        else:
            renamed[name] = value
    return renamed


def _rename(name: str) -> str:
    """One name; features 1, 3, 5, 7 are the stages, and what lies between them belongs to the next."""
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    if found := re.match(r'features\.(\d+)\.', name):
        index, rest = int(found[1]), name[found.end() :]
        name = f'layers_{index // 2}.' + (f'blocks.{rest}' if index % 2 else f'downsample.{rest}')
    return name
