"""Reads the folder that ``landcover export`` wrote."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LandcoverError
from ..rasters.identity import sha256
from .export.exporting import CHECKPOINT, MANIFEST
from .export.facts import FORMAT, VERSION


@dataclass(frozen=True)
class ExportedModel:
    """An exported model whose files are what they were when they were written.

    Attributes:
        folder: Where it lies.
        facts: What ``model.json`` holds: network, channels, normalisation, formats.
    """

    folder: Path
    facts: Mapping[str, Any]

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that ``landcover predict`` and ``test`` read like any other."""
        return self.folder / CHECKPOINT


def is_export(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder, and so to be read as an exported model."""
    return Path(path).is_dir()


def open_export(folder: str | os.PathLike[str]) -> ExportedModel:
    """Open an exported model, after a look at the checksum of each of its files.

    Raises:
        LandcoverError: If the folder holds none, one of another version, or a file is missing or damaged.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise LandcoverError(f'{folder} holds no exported model ({MANIFEST} is missing); landcover export writes one')
    try:
        facts = json.loads(path.read_text(encoding='utf-8'))
        files = {str(name): (int(entry['bytes']), str(entry['sha256'])) for name, entry in facts['files'].items()}
        kind, version = facts['format'], int(facts['version'])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise LandcoverError(f'{path} is damaged ({type(e).__name__}): export the checkpoint again') from e
    if kind != FORMAT or version > VERSION:
        raise LandcoverError(f'{path} is of format {kind} {version}, this program reads {FORMAT} up to {VERSION}')
    missing = {CHECKPOINT} - set(files)
    for name in (*missing, *files):
        _check(Path(folder), name, files.get(name))
    return ExportedModel(Path(folder), facts)


def _check(folder: Path, name: str, expected: tuple[int, str] | None) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise LandcoverError(f'{folder / MANIFEST} names {name}, which lies outside the folder: it was tampered with')
    if expected is None or not path.is_file():
        raise LandcoverError(f'{path} is missing: copy the whole folder again, or export the checkpoint again')
    if path.stat().st_size != expected[0] or sha256(path) != expected[1]:
        raise LandcoverError(
            f'{path} is not what landcover export wrote: copy the whole folder again, or export the checkpoint again'
        )
