"""Local stand-ins of what lies in buckets: copies of inputs, and folders in which outputs are made."""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm

from ..errors import LandcoverError
from .opening import address
from .remote import check_address, check_writable, find, get, is_remote, joined, listing, put, remove

log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

#: Copies of inputs are kept for so many days after their last use.
KEPT_DAYS = 30

#: Uploads of small files at once.
_AT_ONCE = 8


def user_cache() -> Path:
    """Where files of this user are kept between runs: ``$XDG_CACHE_HOME/landcover``, or below ``~/.cache``."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'landcover'


def short_digest(*words: object) -> str:
    """A name for a folder that stands for some words."""
    return hashlib.sha256('\n'.join(map(str, words)).encode()).hexdigest()[:20]


def local_copy(path: PathLike) -> Path:
    """The path itself, or a local copy of an object in a bucket, fetched where there is none of its present content.

    Raises:
        LandcoverError: If there is no such object, or it cannot be fetched.
    """
    if not is_remote(path):
        return Path(path)
    name = check_address(path)
    stored = find(name)
    if stored is None:
        raise LandcoverError(f'{name} does not exist: check the address')
    copy = _place(*stored) / name.rsplit('/', 1)[1]
    if not copy.is_file() or copy.stat().st_size != stored.size:
        log.info('fetching %s (%.1f MB)', name, stored.size / 1e6)
        get(name, copy)
    return copy


def local_folder(folder: PathLike, known: str) -> Path | None:
    """A local copy of a folder in a bucket, None where it holds no object of a name.

    Raises:
        LandcoverError: If it cannot be fetched.
    """
    top = check_address(folder)
    if find(joined(top, known)) is None:
        return None
    objects = listing(top)
    copy = _place(*objects) / top.rsplit('/', 1)[1]
    for stored in objects:
        local = copy / stored.address.removeprefix(f'{top}/')
        if not local.resolve().is_relative_to(copy.resolve()):
            raise LandcoverError(f'{stored.address} would lie outside the copy of {top}: rename it')
        if not local.is_file() or local.stat().st_size != stored.size:
            get(stored.address, local)
    return copy


def _place(*words: object) -> Path:
    """The folder of a copy, noted as used; those that nobody used for long are removed."""
    copies, oldest = user_cache() / 'copies', time.time() - timedelta(days=KEPT_DAYS).total_seconds()
    folder = copies / short_digest(*words)
    with suppress(OSError):  # another process may look after them at the same time
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        for other in copies.iterdir():
            if other.stat().st_mtime < oldest:
                shutil.rmtree(other)
    return folder


@dataclass(frozen=True)
class StandIn:
    """A local place where an output of a bucket is made, and from which it is uploaded when it is whole.

    The place depends on the address alone: a run that was killed is gone on with there by the same command.

    Attributes:
        address: Of the file or folder in the bucket.
        main: Object of a folder that is written last, and marks it as whole; empty for files.
    """

    address: str
    main: str = ''

    @classmethod
    def of(cls, path: PathLike, main: str = '') -> 'StandIn':
        """The stand-in of an address.

        Raises:
            LandcoverError: If it is none.
        """
        return cls(check_address(path), main)

    @property
    def folder(self) -> Path:
        """The local folder in which nothing else lies."""
        return user_cache() / 'outputs' / short_digest(self.address)

    @property
    def local(self) -> Path:
        """Where the output is made."""
        return self.folder / self.address.rsplit('/', 1)[1]

    @property
    def parent(self) -> str:
        """Address of the folder in which the output lies."""
        return self.address.rsplit('/', 1)[0]

    def check(self, *, overwrite: bool, permission: str) -> None:
        """Find out, before any computing, whether the output can be written; leaves no trace.

        Args:
            overwrite: Whether an older one may be replaced.
            permission: How the user allows that, for the error.

        Raises:
            LandcoverError: If it exists and may not be replaced, or the bucket cannot be written to.
        """
        found = self._there()
        if found and not overwrite:
            raise LandcoverError(f'{found[0]} exists already: choose another name{permission}')
        if found and self.main and joined(self.address, self.main) not in found:
            raise LandcoverError(
                f'{self.address} holds something else than this command writes (no {self.main}), and would not be '
                'replaced: choose another name'
            )
        check_writable(self.parent)

    def _there(self) -> list[str]:
        """Addresses of what an earlier run has written."""
        if '{' in self.address:  # one file for each polygon, whose names are not known yet
            start, end = self.address.split('{', 1)[0], self.address.rsplit('}', 1)[1]
            below = [stored.address for stored in listing(start.rsplit('/', 1)[0])]
            return [name for name in below if name.startswith(start) and name.endswith(end)]
        if not self.main and (stored := find(self.address)):
            return [stored.address]
        return [stored.address for stored in listing(self.address)]

    def files(self) -> list[Path]:
        """What was made, in the order in which it appears: what makes it whole comes last."""

        def place(file: Path) -> tuple[bool, bool, int, str]:
            last = file == (self.local / self.main if self.main else self.local)
            return last, file.suffix == '.tif', -len(file.name), str(file)  # map.tif behind map_confidence.tif

        every = (file for file in self.folder.rglob('*') if file.is_file())
        return sorted((f for f in every if '/.' not in f'/{f.relative_to(self.folder).as_posix()}'), key=place)

    def upload(self) -> None:
        """Upload what was made, and remove it here.

        An older output vanishes first: at no time is there a mixture of both under its name.

        Raises:
            LandcoverError: If that fails; what was made stays.
        """
        files = self.files()
        if not files:  # the command wrote nothing
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        names = {file: joined(self.parent, file.relative_to(self.folder).as_posix()) for file in files}
        older = {stored.address for stored in listing(self.address)} if self.main else set()
        if len(files) > 1:
            remove(names[files[-1]])
        _put_all(names)
        for name in sorted(older - set(names.values())):
            remove(name)
        size = sum(f.stat().st_size for f in files) / 1e6
        shutil.rmtree(self.folder, ignore_errors=True)
        log.info('%s: uploaded, %d files (%.1f MB)', address(self.address), len(files), size)

    def clear(self) -> None:
        """Remove finished files of another command; hidden ones are kept, with which the same command goes on."""
        for path in self.folder.glob('[!.]*'):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.folder / '.upload.json').unlink(missing_ok=True)


def _put_all(names: Mapping[Path, str]) -> None:
    """Upload files to their addresses: small ones at once, then rasters and what comes last in their order."""
    total = sum(file.stat().st_size for file in names)
    *others, last = names
    small = [file for file in others if file.suffix != '.tif']
    with tqdm(total=total, desc='uploading', unit='B', unit_scale=True, disable=None) as bar:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for file, upload in [(file, threads.submit(put, file, names[file])) for file in small]:
                upload.result()
                bar.update(file.stat().st_size)
        for file in [file for file in others if file.suffix == '.tif'] + [last]:
            put(file, names[file])
            bar.update(file.stat().st_size)
