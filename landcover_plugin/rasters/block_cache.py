"""Blocks of rasters on servers, kept on the local disk within a size: the second epoch asks for none of them.

A block is a file of its pixels and a checksum, under a name that holds what the server tells of the raster: a changed
raster has other names, and its old blocks are the first to go. All processes that use a folder share its size, which is
kept in a ledger under a lock; a process that is killed leaves whole blocks, or a part that is cleared away.
"""

import functools
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import fcntl
except ImportError:  # Windows: sizes are kept by each process alone
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

#: Share of the size down to which old blocks are deleted at once.
_LOW = 0.9

_CHECKSUM = 4


@dataclass(frozen=True)
class BlockCache:
    """A folder of blocks.

    Args:
        folder: Where they lie.
        limit: Bytes that all of them may take.
    """

    folder: Path
    limit: int

    def get(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
        """A kept block, None where it is not there or damaged."""
        path = self._path(name)
        try:
            content = path.read_bytes()
            os.utime(path)  # it is the last to go now
        except OSError:
            return None
        if zlib.crc32(content[_CHECKSUM:]) != int.from_bytes(content[:_CHECKSUM], 'little'):
            return None
        pixels = np.frombuffer(content, dtype, offset=_CHECKSUM)
        return pixels.reshape(shape) if pixels.size == np.prod(shape) else None

    def put(self, name: str, pixels: NDArray[Any]) -> None:
        """Keep a block; the least recently used ones make room. A disk that refuses costs nothing but speed."""
        body = pixels.tobytes()
        content = zlib.crc32(body).to_bytes(_CHECKSUM, 'little') + body
        if len(content) > self.limit:
            return
        try:
            with self._ledger() as (size, note):
                total = size + len(content)
                if total > self.limit:
                    total = self._make_room(len(content)) + len(content)
                note(total)
                path = self._path(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_suffix('.part')
                part.write_bytes(content)
                part.replace(path)
        except OSError as e:
            _warn_once(f'blocks cannot be kept in {self.folder} ({e.strerror}): they are read from the server')

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    @contextmanager
    def _ledger(self) -> Iterator[tuple[int, Any]]:
        """Bytes of all blocks, and how to note another number; other processes wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / '.size').open('a+') as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()

            def note(total: int) -> None:
                file.truncate(0)
                file.write(str(total))
                file.flush()

            yield int(text) if text.isdigit() else self.size(), note

    def _files(self) -> list[tuple[float, int, Path]]:
        """Last use, bytes and path of each file."""
        found = []
        for path in self.folder.glob('[0-9a-f][0-9a-f]/*'):
            with suppress(FileNotFoundError):
                told = path.stat()
                found.append((0 if path.suffix == '.part' else told.st_mtime, told.st_size, path))
        return found

    def size(self) -> int:
        """Bytes of all blocks, counted."""
        return sum(size for _, size, _ in self._files())

    def _make_room(self, need: int) -> int:
        """Delete what was used longest ago, and parts of killed processes; returns the bytes that are left."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for used, size, path in files:
            if used and total + need <= self.limit * _LOW:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total


@functools.cache
def _warn_once(text: str) -> None:
    log.warning(text)
