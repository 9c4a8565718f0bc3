"""Runs of a training in a bucket: they are made in a local folder, and every state that is kept is uploaded."""

import logging
import os
import re
from pathlib import Path

from ..errors import LandcoverError
from ..rasters.remote import Stored, check_address, check_writable, get, joined, listing, put, remove
from ..rasters.stand_ins import short_digest, user_cache

log = logging.getLogger(__name__)

#: Checkpoints with which a run goes on, as :func:`~landcover_plugin.training.resuming.newest_state` looks for them.
_STATE = re.compile(r'(^|/)checkpoints/(last|resume)\.ckpt$')


class RunMirror:
    """Keeps what lies in a local folder of runs in a bucket, too.

    An upload that fails in the middle of a training costs a warning: it is made up for with the next one. A checkpoint
    replaces the one before when it is whole.

    Args:
        address: Of the folder of the runs in the bucket.

    Attributes:
        local: The folder that stands in for it; depends on the address alone.

    Raises:
        LandcoverError: If that is no address.
    """

    def __init__(self, address: str) -> None:
        self.address = check_address(address)
        self.local = user_cache() / 'runs' / short_digest(self.address)
        self._known: dict[str, tuple[int, int]] = {}  # size and time of change of what is there

    def begin(self, *, resume: bool) -> None:
        """Learn which runs there are, so that a new one gets a number of its own; fetch the one to go on with.

        Raises:
            LandcoverError: If the bucket cannot be read or written.
        """
        objects = {stored.address.removeprefix(f'{self.address}/'): stored for stored in listing(self.address)}
        for name in objects:
            self._path(name).parent.mkdir(parents=True, exist_ok=True)
        self.local.mkdir(parents=True, exist_ok=True)
        states = [name for name in objects if _STATE.search(name)]
        newest = max(states, key=lambda name: objects[name].modified, default=None)
        run = newest.rpartition('checkpoints/')[0] if newest else None
        for name, stored in objects.items():
            if resume and run is not None and name.startswith(run):
                self._fetch(name, stored)
            path = self._path(name)
            if path.is_file() and _is_copy(path, stored):
                self._known[name] = _version(path)
        check_writable(self.address)

    def _fetch(self, name: str, stored: Stored) -> None:
        path = self._path(name)
        if not path.is_file() or path.stat().st_mtime < stored.modified:
            log.info('fetching %s (%.1f MB)', stored.address, stored.size / 1e6)
            get(stored.address, path)
            os.utime(path, (stored.modified, stored.modified))

    def _path(self, name: str) -> Path:
        path = self.local / name
        if not path.resolve().is_relative_to(self.local.resolve()):
            raise LandcoverError(f'{joined(self.address, name)} lies outside its folder: rename it')
        return path

    def address_of(self, path: str | os.PathLike[str]) -> str:
        """Where a file of a run lies in the bucket."""
        return joined(self.address, Path(path).resolve().relative_to(self.local.resolve()).as_posix())

    def upload(self) -> None:
        """Upload what is new or has changed.

        Raises:
            LandcoverError: If that fails; it is tried again with the next call.
        """
        files = {path.relative_to(self.local).as_posix(): path for path in sorted(self.local.rglob('*'))}
        for name, path in files.items():
            if '/.' in f'/{name}' or not path.is_file() or self._known.get(name) == (version := _version(path)):
                continue
            put(path, joined(self.address, name))
            self._known[name] = version

    def upload_or_warn(self) -> None:
        """Upload, while the training goes on whatever comes of it."""
        try:
            self.upload()
        except (LandcoverError, OSError) as e:
            log.warning('%s; the training goes on, and the upload is made up for', e)

    def forget(self, path: str | os.PathLike[str]) -> None:
        """Delete a checkpoint that is no longer kept here."""
        name = Path(path).resolve().relative_to(self.local.resolve()).as_posix()
        if self._known.pop(name, None) is not None:
            remove(joined(self.address, name))


def _version(path: Path) -> tuple[int, int]:
    told = path.stat()
    return told.st_size, told.st_mtime_ns


def _is_copy(path: Path, stored: Stored) -> bool:
    told = path.stat()
    return told.st_size == stored.size and told.st_mtime <= stored.modified
