"""Which checkpoint a command is given, and the settings that it brings."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import LandcoverError
from ..mapping.export.exporting import MANIFEST
from ..mapping.exported import open_export
from ..publishing.addresses import PREFIX
from ..rasters.opening import address
from ..rasters.remote import find, get, is_remote, joined
from ..rasters.stand_ins import local_copy, local_folder
from ..training.datamodule import CataloniaDataModule
from ..training.task import LandCoverSegmentation
from ..training.temperature import temperature_path
from .arguments import options, yaml_given

#: Settings of the data that belong to one run of predict, not to the checkpoint.
_NOT_FROM_CHECKPOINT = (
    'bbox',
    'bbox_wgs84',
    'aoi',
    'damaged',
    'overlap',
    'num_workers',
    'store',
    'cache',
    'cache_size',
)


def named_checkpoint(args: list[str]) -> str | None:
    """The checkpoint that the arguments or the YAML files among them name last.

    Examples:
        >>> named_checkpoint(['--ckpt_path', 'a.ckpt', '--ckpt_path=b.ckpt'])
        'b.ckpt'
        >>> named_checkpoint(['--ckpt_path', '--data.root=data']) is None
        True
    """
    found = None
    for name, value in options(args):
        if name == '--ckpt_path':
            found = value or found
        found = yaml_given(name, value).get('ckpt_path', found)
    return found


def registered_as_checkpoint(args: list[str]) -> list[str]:
    """The arguments with ``--model models:/NAME/ALIAS`` as ``--ckpt_path``: ``--model`` is a group of settings.

    Examples:
        >>> registered_as_checkpoint(['--model', 'models:/catalonia/champion', '--model.lr=1'])
        ['--ckpt_path', 'models:/catalonia/champion', '--model.lr=1']
        >>> registered_as_checkpoint(['--model=models:/catalonia/3'])
        ['--ckpt_path=models:/catalonia/3']

    Raises:
        LandcoverError: If the address is of another kind.
    """
    for name, value in options(args):
        if name == '--model' and ':/' in value and not value.startswith(PREFIX):
            raise LandcoverError(f'--model takes a model of a registry, {PREFIX}NAME/ALIAS, got {value}')
    named = [
        '--ckpt_path' if a == '--model' and b.startswith(PREFIX) else a
        for a, b in zip(args, [*args[1:], ''], strict=False)
    ]
    return [re.sub(f'^--model={PREFIX}', f'--ckpt_path={PREFIX}', a) for a in named]


def local_checkpoint(path: str, command: str) -> str:
    """The checkpoint that a path means: itself, that of an exported model, or that of a model in a registry.

    Args:
        path: A file or a folder of ``landcover export``, here or in a bucket, or ``models:/NAME/ALIAS``.
        command: What it is for.

    Raises:
        LandcoverError: If such a model cannot be had, or is none to train on.
    """
    if path.startswith(PREFIX):
        from ..publishing.fetching import fetch  # mlflow: an extra

        path = str(fetch(path).folder)
    elif is_remote(path):
        path = str(checkpoint_in_bucket(path))
    if not Path(path).is_dir():
        return path
    exported = open_export(path)
    if command == 'fit':
        raise LandcoverError(
            f'{path} is an exported model, which training cannot go on from; to start from its weights, give '
            f'--model.weights {exported.checkpoint}'
        )
    return str(exported.checkpoint)


def checkpoint_in_bucket(path: str) -> Path:
    """A local copy of a checkpoint in a bucket, with its temperature, or of an exported model.

    Raises:
        LandcoverError: If it cannot be fetched.
    """
    if (folder := local_folder(path, MANIFEST)) is not None:
        return folder
    copy = local_copy(path)
    beside = temperature_path(copy)
    temperature = joined(address(path).rsplit('/', 1)[0], beside.name)
    if find(temperature) is not None:
        get(temperature, beside)
    else:
        beside.unlink(missing_ok=True)
    return copy


def settings_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The task's and data module's settings in a checkpoint, as names of the command line.

    Raises:
        LandcoverError: If it is a checkpoint of something else.
    """
    model = checkpoint.get('hyper_parameters', {})
    data = checkpoint.get('datamodule_hyper_parameters', {})
    if not model or not data or 'root' not in data:
        raise LandcoverError('the checkpoint was not written by landcover fit: it lacks the settings of task and data')
    for part, ours in ((model, LandCoverSegmentation), (data, CataloniaDataModule)):
        if (found := part.get('_class_path', ours.__name__).rsplit('.')[-1]) != ours.__name__:
            raise LandcoverError(f'the checkpoint is one of {found}, not of {ours.__name__}: map it with its own tool')
    names = {f'data.{k}': v for k, v in data.items() if k not in _NOT_FROM_CHECKPOINT and not k.startswith('_')}
    told = ('in_channels', 'channels')  # by the data
    return names | {f'model.{k}': v for k, v in model.items() if k not in told and not k.startswith('_')}
