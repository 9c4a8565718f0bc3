"""What an exported model is: the facts that its files tell."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..._version import __version__
from ...errors import LandcoverError
from ...legend import LEGEND, Legend
from ...rasters.identity import sha256

#: Mark of ``model.json``, and its version: raise it when readers of older ones would go wrong.
FORMAT, VERSION = 'landcover-model', 1


def legend_of(checkpoint: Mapping[str, Any]) -> Legend:
    """The legend in the colours that the training labels had."""
    return LEGEND.with_colours(dict(enumerate(checkpoint['CataloniaDataModule'].get('colours', []))))


def legend_document(legend: Legend) -> list[dict[str, Any]]:
    """The classes as JSON holds them."""
    return [
        {'code': c.code, 'name': c.name, 'name_ca': c.name_ca, 'colour': '#{:02X}{:02X}{:02X}'.format(*c.colour)}
        for c in legend
    ]


def facts_of(checkpoint: Mapping[str, Any], path: str | os.PathLike[str], parameters: int) -> dict[str, Any]:
    """Network, channels and normalisation of a checkpoint, as JSON holds them.

    Args:
        checkpoint: As :func:`~landcover_plugin.training.task.read_checkpoint` reads it.
        path: Where from.
        parameters: Weights of the network.

    Raises:
        LandcoverError: If it lacks what mapping needs.
    """
    model, data = checkpoint.get('hyper_parameters', {}), checkpoint.get('datamodule_hyper_parameters', {})
    state = checkpoint.get('CataloniaDataModule', {})
    if not model or 'patch_size' not in data or 'mean' not in state:
        raise LandcoverError(
            f'{path} was not written by landcover fit: it lacks the settings or the normalisation of the data'
        )
    channels = [str(channel) for channel in state['channels']]
    names = ('model', 'backbone', 'in_channels', 'num_classes', 'loss')
    return {
        'format': FORMAT,
        'version': VERSION,
        'software': f'landcover {__version__}',
        'checkpoint': {'name': Path(path).name, 'sha256': sha256(path)},
        'network': {**{k: model.get(k) for k in names}, 'parameters': parameters},
        'bands': list(dict.fromkeys(channel.split()[-1] for channel in channels)),
        'channels': channels,
        'seasons': data['seasons'],
        'dates': list(state.get('dates', [])),
        'reflectance': {'scale': data['reflectance_scale'], 'offset': data['reflectance_offset']},
        'nodata': data['nodata'],
        'normalisation': {'mean': list(state['mean']), 'std': list(state['std'])},
        'patch_size': int(data['patch_size']),
        'input': {'name': 'images', 'order': 'BCHW', 'type': 'float32', 'not measured': 0},
        'output': {'name': 'probabilities', 'order': 'BCHW', 'type': 'float32', 'channel': 'code of the class'},
    }
