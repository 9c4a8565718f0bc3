"""Where results go: checked before any computing, staged under hidden names, refused in words."""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ..errors import LandcoverError

log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

_MAY_WRITE = 'choose a folder in which you may write'
_WAYS_OUT = {
    errno.EACCES: _MAY_WRITE,
    errno.EPERM: _MAY_WRITE,
    errno.EROFS: _MAY_WRITE,
    errno.ENOENT: _MAY_WRITE,
    errno.ENOTDIR: 'choose a path whose parents are folders',
    errno.ENAMETOOLONG: 'choose a shorter name',
}


def check_output(path: PathLike, *, overwrite: bool = False, permission: str = '--output.overwrite true') -> Path:
    """Find out, before any computing, whether a file can be written; leaves no trace.

    Missing parent folders are fine: they are made when the file is there to go into them.

    Args:
        path: The file to be written.
        overwrite: Whether an older file there may be replaced.
        permission: How the user allows that, for the error.

    Returns:
        The absolute path.

    Raises:
        LandcoverError: If the path is a folder or remote, the file exists and may not be replaced or is write-
            protected, or its folder cannot be made or written to.
    """
    if '://' in os.fspath(path) or os.fspath(path).startswith('/vsi'):
        raise LandcoverError(f'{path} is not on a local disk: write to a local file and upload it afterwards')
    target = Path(path).resolve()
    try:
        _refuse_existing(target, overwrite, permission)
        probe = hidden_name(target, 'probe')
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def _refuse_existing(target: Path, overwrite: bool, permission: str) -> None:
    """Raise unless the target is free, or is a file that may be replaced."""
    if target.is_dir():
        raise LandcoverError(f'{target} is a folder: name a file in it')
    if not target.exists():
        return
    if not overwrite:
        raise LandcoverError(f'{target} exists already: choose another name, or allow replacing it with {permission}')
    if not os.access(target, os.W_OK):
        raise LandcoverError(f'{target} is write-protected: choose another name, or lift the protection')


def hidden_name(target: Path, purpose: str) -> Path:
    """A free hidden name beside the target, or in its nearest existing parent (hence on the same disk)."""
    parent = next(path for path in target.parents if path.exists())
    return parent / f'.{target.stem}.{purpose}.{uuid4().hex[:8]}.part{target.suffix}'


def cannot_write(target: Path, error: BaseException) -> LandcoverError:
    """The sentence for a write that failed; GDAL seldom says why, so it names the free space."""
    cause = error.__cause__ or error
    lines = str(getattr(cause, 'strerror', None) or cause).strip().splitlines()
    reason = lines[0].rstrip('.') if lines else type(cause).__name__
    way_out = _WAYS_OUT.get(cause.errno or 0) if isinstance(cause, OSError) else None  # GDAL has its own numbers
    if way_out is None:
        parent = next(path for path in target.parents if path.exists())
        way_out = (
            f'{shutil.disk_usage(parent).free / 1e6:,.0f} MB are free on its disk; '
            'free some space or choose a folder on another disk'
        )
    return LandcoverError(f'{target} cannot be written ({reason}): {way_out}')


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that appears under its name only when it is whole; its folder is made.

    Args:
        path: The file.
        write: Writes to the hidden path beside it that it is given.
    """
    staging = path.with_name(f'.{path.stem}-{os.getpid()}{path.suffix}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(staging)
        with staging.open('r+b') as file:
            os.fsync(file.fileno())  # a power cut must not leave the name without the content
        staging.replace(path)
    finally:
        with suppress(OSError):  # a read-only disk refuses even to delete what is not there
            staging.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder that takes the target's name at the end, or vanishes if anything fails.

    Args:
        target: The folder; what may be replaced has been checked before.
        overwrite: Whether an older folder there is replaced.

    Yields:
        The hidden folder beside it to write to.

    Raises:
        LandcoverError: If the disk refuses.
    """
    staging = hidden_name(target, 'folder')
    try:
        staging.mkdir()
        yield staging
        _move_folder(staging, target, overwrite)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move_folder(staging: Path, target: Path, overwrite: bool) -> None:
    """Give the staged folder its name. Replacing takes two renames: no system call swaps portably."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (overwrite and target.exists()):
        staging.rename(target)
        return
    old = staging.with_suffix('.old')
    target.rename(old)
    try:
        staging.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    if old.exists():
        log.warning('the new folder is %s; the old one could not be removed from %s', target, old)
