"""Pretrained weights as files and as TorchGeo's names: reading them, and what is known about them."""

import difflib
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import torch
import torchgeo.models
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import LandcoverError
from .hub import hub_answers
from .rescaling import Scaling
from .torchvision_swin import is_torchvision_swin, timm_names

#: Entries under which training frameworks keep the weights, outermost first.
_ENTRIES = ('state_dict', 'model_state_dict', 'model', 'encoder')

#: Digital numbers of a reflectance of 1, and the reflectance that true-colour images of level 1C show as 255
#: (Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD).
_NUMBERS, _BYTE, _BRIGHTEST = 10_000.0, 255.0, 0.3558

_SWIN = '--model.model upernet --model.backbone tu-swinv2_{}_window8_256'


class Pretrained(NamedTuple):
    """Weights of a network.

    Attributes:
        name: File or name, for sentences.
        state: Tensors by name.
        bands: What the channels of its first layer are, if known.
        normalisation: What was done to its pixels, if known.
        suits: Flags of the network that they are for, if known.
        scaling: The same normalisation in numbers, where its pixels have a known reflectance.
    """

    name: str
    state: dict[str, Tensor]
    bands: tuple[str, ...] | None = None
    normalisation: str = ''
    suits: str = ''
    scaling: Scaling | None = None


def read_weights(weights: str | os.PathLike[str]) -> Pretrained:
    """Weights from a file (.pth, .pt, .ckpt, .safetensors), or by the name that TorchGeo gives Sentinel-2 weights.

    Nothing that a file brings is executed.

    Args:
        weights: Path, or a name such as ``ResNet50_Weights.SENTINEL2_ALL_MOCO``.

    Raises:
        LandcoverError: If there is no such file or name, it cannot be read or fetched, or is not for Sentinel-2.
    """
    path = Path(weights)
    if path.is_file():
        read = _read_safetensors if path.suffix == '.safetensors' else _read_pickle
        return Pretrained(str(weights), _tensors(read(path), str(weights)))
    if re.fullmatch(r'\w+_Weights\.\w+', str(weights)):
        return _fetch(torchgeo_weights(str(weights)))
    raise LandcoverError(
        f'weights {weights} is not a file; give true, false, the path of a checkpoint or state dict, or a name of '
        'TorchGeo such as ResNet50_Weights.SENTINEL2_ALL_MOCO'
    )


def torchgeo_weights(name: str) -> Any:
    """An entry of TorchGeo's enumerations of weights that belongs to Sentinel-2.

    Raises:
        LandcoverError: If there is none of that name, or it is of another sensor, whose bands have the same names.
    """
    try:
        entry = torchgeo.models.get_weight(name)
    except ValueError as e:
        near = difflib.get_close_matches(name, sentinel2_weights(), n=3, cutoff=0.5)
        near = near or ['ResNet50_Weights.SENTINEL2_ALL_MOCO']
        raise LandcoverError(f'TorchGeo has no weights {name}; try {" or ".join(near)}') from e
    if name not in sentinel2_weights():
        raise LandcoverError(f'{name} was not trained on Sentinel-2 alone; choose weights with SENTINEL2 in their name')
    return entry


def sentinel2_weights() -> list[str]:
    """Names of all Sentinel-2 weights of the installed TorchGeo whose bands it states."""
    enumerations = {e for e in vars(torchgeo.models).values() if isinstance(e, type) and hasattr(e, 'get_state_dict')}
    entries = (entry for e in enumerations for entry in e)  # type: ignore[attr-defined]
    return sorted(str(e) for e in entries if e.name.startswith('SENTINEL2_') and 'bands' in e.meta)


def _fetch(entry: Any) -> Pretrained:
    """Weights of TorchGeo, from torch's cache or from where it publishes them."""
    cached = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlsplit(entry.url).path).name
    try:
        if not cached.is_file() and not hub_answers():
            raise OSError('no connection')
        state = entry.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location='cpu')
    except (OSError, RuntimeError) as e:
        raise LandcoverError(
            f'the weights {entry} could not be fetched ({type(e).__name__}); connect to the network once, or download '
            f'{entry.url} elsewhere and put it into {cached.parent}'
        ) from e
    meta, name = entry.meta, str(entry)
    steps = _normalisations(entry.transforms)
    return Pretrained(
        name,
        _tensors(state, name),
        tuple(meta['bands']),
        normalisation=', then '.join(f'(pixel - {_brief(s.mean)}) / {_brief(s.std)}' for s in steps),
        suits=_suits(meta),
        scaling=_scaling(steps, len(meta['bands'])),
    )


def _normalisations(transforms: Any) -> list[Any]:
    """The steps with mean and deviation that weights of TorchGeo expect."""
    modules = transforms.modules() if isinstance(transforms, nn.Module) else ()
    return [m for m in modules if hasattr(m, 'mean') and hasattr(m, 'std')]


def _scaling(steps: list[Any], bands: int) -> Scaling | None:
    """One normalisation in reflectance; None for several, which stand for stretched images of unknown origin."""
    if len(steps) != 1:
        return None
    mean, std = (torch.as_tensor(v).double().flatten().expand(bands) for v in (steps[0].mean, steps[0].std))
    numbers = torch.where(std == _BYTE, _BYTE / _BRIGHTEST, _NUMBERS)  # for a reflectance of 1
    return Scaling(tuple((mean / numbers).tolist()), tuple((std / numbers).tolist()))


def _brief(values: Any) -> str:
    """One number where all are the same."""
    numbers = [float(v) for v in torch.as_tensor(values).flatten()]
    return f'{numbers[0]:g}' if len(set(numbers)) == 1 else f'({", ".join(f"{v:g}" for v in numbers)})'


def _suits(meta: Mapping[str, Any]) -> str:
    """Flags of the network that weights of TorchGeo are for."""
    model = str(meta.get('model', ''))
    if model.startswith('resnet'):
        return f'--model.model unet --model.backbone {model}'
    if model.startswith('vit_'):
        return f'--model.model dpt --model.backbone tu-{model}'
    return _SWIN.format({'t': 'tiny', 'b': 'base'}[model[-1]]) if model in ('swin_v2_t', 'swin_v2_b') else ''


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as e:
        raise LandcoverError(f'{path} is no safetensors file, or is damaged') from e


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as e:
        raise LandcoverError(
            f'{path} is no state dict, is damaged, or holds more than tensors, which is not executed '
            f'({type(e).__name__}); save network.state_dict() alone'
        ) from e


def _tensors(content: Any, name: str) -> dict[str, Tensor]:
    """The tensors of what a file holds."""
    for entry in _ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not state:
        raise LandcoverError(f'{name} holds no tensors by name; save network.state_dict()')
    return timm_names(state) if is_torchvision_swin(state) else state
