"""The hidden folder in which a store is written: locked, gone on with after a kill, and published as a whole."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import LandcoverError
from ..rasters.finding import STORE_MANIFEST
from ..rasters.locking import locked
from ..rasters.outputs import cannot_write
from ..rasters.staging import LOCK, PLAN, begin, write_small

log = logging.getLogger(__name__)

#: Room on the disk that is left alone, in bytes.
_SPARE = 2**26


def check_folder(folder: Path, sources: Sequence[str], *, overwrite: bool) -> Path:
    """Find out whether a store may be written to a folder; nothing but an older store is ever replaced.

    Args:
        folder: Of the store.
        sources: What it is made from.
        overwrite: Whether an older store there may be replaced.

    Returns:
        The absolute path, behind links.

    Raises:
        LandcoverError: If it may not.
    """
    if '://' in os.fspath(folder) or os.fspath(folder).startswith(('/vsi', 'gs:/', 's3:/', 'http:/', 'https:/')):
        raise LandcoverError(f'{folder} is not on a local disk: name a local folder for the store with --output')
    target = folder.resolve()
    homes = {Path(source).resolve().parent for source in sources}
    for home in homes:
        if (home / STORE_MANIFEST).exists():
            raise LandcoverError(f'{home} is a training store already: name the folder of the sources it was made from')
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return target
    if not (target / STORE_MANIFEST).is_file() or any(target in (home, *home.parents) for home in homes):
        raise LandcoverError(f'{folder} is no training store, and would not be replaced by one: choose another folder')
    if not overwrite:
        raise LandcoverError(f'{folder} exists already: replace it with --overwrite, or choose another folder')
    return target


def staging_of(folder: Path) -> Path:
    """Where the store of a folder is written: hidden and beside it, hence on the same disk."""
    return folder.with_name(f'.{folder.name}.part')


def _replaced(folder: Path) -> Path:
    """Where an older store lies for the moment in which it is replaced."""
    return folder.with_name(f'.{folder.name}.old')


@contextmanager
def staged(folder: Path, plan: dict[str, Any]) -> Iterator[Path]:
    """Keep other runs out, and hand on what a killed run with the same plan had finished.

    The lock ends with the process, however it ends. A run that fails before anything was finished leaves nothing.

    Args:
        folder: Of the store, see :func:`check_folder`.
        plan: What decides the result, as JSON.

    Yields:
        The folder to write to.

    Raises:
        LandcoverError: If it cannot be written, or another run is writing there.
    """
    staging = staging_of(folder)
    with ExitStack() as stack:
        try:
            staging.mkdir(parents=True, exist_ok=True)
            taken = f'another landcover prepare is writing {staging}: wait for it, or stop it'
            stack.enter_context(locked(staging / LOCK, taken))
            _restore(folder)
            begin(staging, plan)
        except OSError as e:
            raise LandcoverError(f'{cannot_write(staging, e)}; --output DIR names the folder of the store') from e
        try:
            yield staging
        except BaseException:
            _leave(staging)
            raise


def _restore(folder: Path) -> None:
    """Give an older store its name back, if a run was killed in the moment of replacing it."""
    old = _replaced(folder)
    if old.exists() and not folder.exists():
        old.rename(folder)


def _leave(staging: Path) -> None:
    """Clear away after a run that failed, or say what the next one need not do again."""
    if any(staging.glob('.*.json')):
        log.info('finished labels are kept in %s: the same command goes on with them', staging)
    else:
        shutil.rmtree(staging, ignore_errors=True)
        if staging.parent.name.startswith('.'):  # made for the store, as far as it is empty
            with suppress(OSError):
                staging.parent.rmdir()


@contextmanager
def for_good(staging: Path) -> Iterator[None]:
    """Keep nothing of a run that fails in here: the same sources would fail again."""
    try:
        yield
    except LandcoverError:
        for marker in staging.glob('.*.json'):
            marker.unlink()
        raise


def finished(path: Path) -> dict[str, Any] | None:
    """What an earlier run found while it wrote a raster, if it finished that."""
    with suppress(OSError, ValueError):
        return dict(json.loads(_marker(path).read_text()))
    return None


def finish(path: Path, found: dict[str, Any]) -> None:
    """Note that a raster is finished, and what was found."""
    write_small(_marker(path), lambda p: p.write_text(json.dumps(found)))


def _marker(path: Path) -> Path:
    return path.with_name(f'.{path.name}.json')


def check_space(staging: Path, need: float, way_out: str) -> None:
    """Refuse, before any reading, to write what the disk cannot hold.

    Args:
        staging: Where it is to be written; what lies there is counted as room.
        need: Bytes.
        way_out: What else the user can do.
    """
    used = sum(getattr(f.stat(), 'st_blocks', 0) * 512 for f in staging.iterdir())
    have = shutil.disk_usage(staging).free + used
    if need + _SPARE > have:
        raise LandcoverError(
            f'the store needs about {(need + _SPARE) / 1e9:,.2f} GB, {have / 1e9:,.2f} GB are free on the disk of '
            f'{staging.parent}: free some space, name a folder on another disk (--output){way_out}'
        )


def publish(staging: Path, folder: Path) -> None:
    """Give the staging folder its name, in place of an older store."""
    old = _replaced(folder)
    try:
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        staging.rename(folder)
    except OSError as e:
        raise cannot_write(folder, e) from e
    shutil.rmtree(old, ignore_errors=True)
    for working in (folder / PLAN, *folder.glob('.*')):
        working.unlink(missing_ok=True)
