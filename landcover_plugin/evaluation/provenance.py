"""Where the scores of a report come from: checkpoint, data, split, settings and software."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import LandcoverError
from ..rasters.identity import identity, sha256

#: Settings of the data that tell how the ground was split.
_SPLIT = ('ratios', 'block_size', 'split_seed', 'folds', 'fold', 'blocks', 'patch_size')


def checkpoint_facts(path: str | os.PathLike[str] | None) -> dict[str, Any] | None:
    """Path, SHA-256, size and time of change of a checkpoint."""
    if not path or not Path(path).is_file():
        return None
    told = Path(path).stat()
    return {'path': str(path), 'sha256': sha256(path), 'bytes': told.st_size, 'modified': _utc(told.st_mtime)}


def data_facts(sources: Any) -> list[dict[str, Any]]:
    """The rasters that were read: path, what they are, size, time of change and a hash of both ends.

    Args:
        sources: Of the data module; of another one, that has none, nothing is known.
    """
    found = []
    for kind in ('images', 'labels'):
        rasters = getattr(sources, kind, None)
        for file in getattr(rasters, 'files', None) or ():
            found.append({'kind': kind, 'path': str(file)} | _identity(str(file)))
    return found


def _identity(file: str) -> dict[str, Any]:
    try:
        told = identity(file)
    except (OSError, LandcoverError):  # a server that went away since the test began must not cost its report
        return {'bytes': None, 'modified': None, 'identity': None}
    modified = int(told.get('modified') or 0)
    return {
        'bytes': told.get('bytes') or None,
        'modified': _utc(modified) if modified else None,
        'identity': told.get('ends') or None,
    }


def split_facts(settings: Mapping[str, Any], ground: Any) -> dict[str, Any]:
    """How the ground was split, and the numbers of the blocks of each split."""
    numbers: dict[str, list[int]] = {}
    for block in () if ground is None else ground.blocks:
        numbers.setdefault(block.split, []).append(block.number)
    return {name: settings[name] for name in _SPLIT if name in settings} | {'block_numbers': numbers}


def configuration(**parts: Mapping[str, Any]) -> str:
    """Settings as YAML, without Lightning's own entries."""
    kept = {
        part: {k: _plain(v) for k, v in settings.items() if not k.startswith('_')}
        for part, settings in parts.items()
        if settings
    }
    return str(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)) if kept else ''


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k) if not isinstance(k, int) else k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _utc(seconds: float) -> str:
    return time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(seconds))
