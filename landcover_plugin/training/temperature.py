"""The temperature of a checkpoint: a small JSON beside it, which holds for exactly this checkpoint."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import LandcoverError
from ..rasters.identity import sha256
from ..rasters.outputs import cannot_write, write_whole

log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

#: Temperatures that make sense.
LIMITS = (0.05, 20.0)


def check_temperature(temperature: float) -> float:
    """The temperature, if it is one.

    Raises:
        LandcoverError: Unless it lies in :data:`LIMITS`.
    """
    if not LIMITS[0] <= temperature <= LIMITS[1]:
        raise LandcoverError(
            f'temperature must be in [{LIMITS[0]:g}, {LIMITS[1]:g}], 1 changing nothing, got {temperature:g}'
        )
    return float(temperature)


def temperature_path(checkpoint: PathLike) -> Path:
    """Where the temperature of a checkpoint is kept.

    Examples:
        >>> temperature_path('runs/best.ckpt').name
        'best.temperature.json'
    """
    return Path(checkpoint).with_suffix('.temperature.json')


def write_temperature(checkpoint: PathLike, temperature: float, figures: Mapping[str, Any]) -> Path:
    """Keep a temperature beside its checkpoint, in place of an older one.

    Args:
        checkpoint: The checkpoint, whose SHA-256 is kept too.
        temperature: In :data:`LIMITS`.
        figures: How it was found, for whoever opens the file.

    Returns:
        The path of the file.

    Raises:
        LandcoverError: If the temperature is out of range or the file cannot be written.
    """
    path = temperature_path(checkpoint)
    content = {'temperature': check_temperature(temperature), 'checkpoint_sha256': sha256(checkpoint), **figures}
    text = json.dumps(content, indent=2) + '\n'
    try:
        write_whole(path, lambda staging: staging.write_text(text, encoding='utf-8'))
    except OSError as e:
        raise cannot_write(path, e) from e
    return path


def find_temperature(checkpoint: PathLike) -> float | None:
    """The temperature that ``landcover validate --calibrate true`` found for a checkpoint, or None.

    One that belongs to an older checkpoint of this name is not used, which is said.

    Raises:
        LandcoverError: If the file beside the checkpoint is damaged.
    """
    path = temperature_path(checkpoint)
    if not path.is_file():
        return None
    again = f'landcover validate --ckpt_path {checkpoint} --calibrate true'
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        temperature, digest = check_temperature(float(content['temperature'])), content['checkpoint_sha256']
    except (OSError, ValueError, TypeError, KeyError) as e:
        raise LandcoverError(f'{path} is damaged: delete it, or write it anew with {again}') from e
    if digest != sha256(checkpoint):
        log.warning('%s belongs to an older %s and is not used; calibrate anew: %s', path, checkpoint, again)
        return None
    return temperature
