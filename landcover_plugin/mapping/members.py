"""Other checkpoints that map together with the first: the same channels, each with its own normalisation."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LandcoverError
from ..training.task import LandCoverSegmentation, read_checkpoint
from ..training.temperature import find_temperature
from .network import Member, Renormalisation

log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]


def load_members(
    paths: Sequence[PathLike],
    *,
    channels: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    reflectance: Sequence[float] | None = None,
) -> list[Member]:
    """Networks of other checkpoints, for images that are normalised as the first checkpoint wants it.

    A checkpoint with another mean and standard deviation gets images turned into its own. Each keeps its calibrated
    temperature, if it has one.

    Args:
        paths: Checkpoints of landcover fit; nothing that they bring is executed.
        channels: Names of the channels of the images, as :class:`~landcover_plugin.CataloniaDataModule` knows them.
        mean: By which the images are normalised, in reflectance.
        std: Likewise.
        reflectance: Scale and offset by which the images are read; a checkpoint that had others is warned of.

    Returns:
        One member for each path, in evaluation mode.

    Raises:
        LandcoverError: If a checkpoint cannot be read, or was trained on other channels.
    """
    return [_member(path, list(channels), (mean, std), reflectance) for path in paths]


def _member(
    path: PathLike,
    channels: list[str],
    normalisation: tuple[Sequence[float], Sequence[float]],
    reflectance: Sequence[float] | None,
) -> Member:
    checkpoint = read_checkpoint(path)
    data = checkpoint.get('CataloniaDataModule', {})
    if not {'channels', 'mean', 'std'} <= set(data):
        raise LandcoverError(f'{path} was not written by landcover fit: it lacks the channels and their normalisation')
    if _bands(data['channels']) != _bands(channels):
        raise LandcoverError(
            f'{path} was trained on the channels {data["channels"]}, the images have {channels}: an ensemble needs '
            'checkpoints of the same bands in the same order'
        )
    if reflectance is not None and list(data.get('reflectance', reflectance)) != list(reflectance):
        log.warning(
            '%s was trained with reflectance scale and offset %s, these data are read with %s: right only if they are '
            'of another processing baseline', path, data['reflectance'], list(reflectance)
        )  # fmt: skip
    own = renormalisation(*normalisation, data['mean'], data['std'])
    return Member(_network(path, checkpoint), find_temperature(path) or 1.0, own)


def _bands(channels: Sequence[str]) -> list[str]:
    """Channels without their dates, which may differ."""
    return [channel.split()[-1] for channel in channels]


def _network(path: PathLike, checkpoint: Mapping[str, Any]) -> nn.Module:
    """The network of a checkpoint, built by the task from names and numbers alone."""
    settings = checkpoint.get('hyper_parameters', {})
    if not {'model', 'backbone', 'in_channels'} <= set(settings):
        raise LandcoverError(f'{path} was not written by landcover fit: it lacks the settings of the task')
    names = {k: settings[k] for k in ('model', 'backbone', 'in_channels')}
    task = LandCoverSegmentation(**names, weights=False)
    try:
        task.on_load_checkpoint(dict(checkpoint))
    except LandcoverError as e:
        raise LandcoverError(f'{path} cannot join the ensemble: {e}') from e
    state = checkpoint['state_dict']
    task.model.load_state_dict({k.removeprefix('model.'): v for k, v in state.items() if k.startswith('model.')})
    return task.model.eval()


def renormalisation(
    mean: Sequence[float], std: Sequence[float], own_mean: Sequence[float], own_std: Sequence[float]
) -> Renormalisation | None:
    """From images normalised by mean and std to those normalised by a network's own; None where they are equal.

    ``x * std + mean`` is reflectance, ``(reflectance - own_mean) / own_std`` what the network wants.

    Examples:
        >>> own = renormalisation([0.1], [0.2], [0.2], [0.1])
        >>> own(torch.tensor([0.0, 1.0, -0.5]).reshape(3, 1, 1, 1)).flatten()
        tensor([ 0.,  1., -2.])
    """
    m, s, own_m, own_s = (_numbers(v) for v in (mean, std, own_mean, own_std))
    if torch.equal(m, own_m) and torch.equal(s, own_s):
        return None
    return Renormalisation(s / own_s, (m - own_m) / own_s)


def _numbers(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)
