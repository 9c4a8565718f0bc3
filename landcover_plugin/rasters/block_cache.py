"""Blocks of rasters on servers, kept on the local disk within a size: the second epoch asks for none of them.

A block is a file of its pixels and a checksum, under a name that holds what the server tells of the raster: a changed
raster has other names, and its old blocks are the first to go. All processes that use a folder share its size, which is
kept in a ledger under a lock; a process that is killed leaves whole blocks, or a part that is cleared away.
"""

import functools
import hashlib
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid import PixelWindow
from .identity import identity
from .opening import on_server, open_raster

try:
    import fcntl
except ImportError:  # Windows: sizes are kept by each process alone
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

#: Bytes of pixels of a block that are still kept; rasters in wider strips are read as they are.
_LARGEST = 2**26

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


@dataclass(frozen=True)
class CachedRaster:
    """A raster on a server, read block by block, as rasterio reads an open one; opened only where a block is missing.

    Args:
        name: As GDAL names it.
        version: What the server tells of it.
        height: Rows.
        width: Columns.
        count: Bands.
        dtype: Of the pixels.
        block: Rows and columns of a block.
        cache: Where blocks are kept.
    """

    name: str
    version: str
    height: int
    width: int
    count: int
    dtype: np.dtype[Any]
    block: tuple[int, int]
    cache: BlockCache

    @property
    def dtypes(self) -> list[np.dtype[Any]]:
        """Type of the pixels, for each band."""
        return [self.dtype] * self.count

    def read(
        self,
        indexes: Sequence[int],
        *,
        window: tuple[tuple[int, int], tuple[int, int]],
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Pixels ``(bands, rows, cols)`` of a window that lies in the file.

        Args:
            indexes: Bands, counted from 1.
            window: ``((row, row_stop), (col, col_stop))``.
            out: Where they go (default: a new array).
        """
        (top, bottom), (left, right) = window
        wanted = PixelWindow(top, left, bottom - top, right - left)
        if out is None:
            out = np.empty((len(indexes), wanted.height, wanted.width), self.dtype)
        missing = []
        for place in self._places(wanted):
            pixels = self.cache.get(self._key(place, indexes), (len(indexes), place.height, place.width), self.dtype)
            if pixels is None:
                missing.append(place)
            else:
                _copy(pixels, place, wanted, out)
        if missing:
            self._fetch(missing, indexes, wanted, out)
        return out

    def _places(self, window: PixelWindow) -> Iterator[PixelWindow]:
        height, width = self.block
        for row in range(window.row // height * height, window.row_stop, height):
            for col in range(window.col // width * width, window.col_stop, width):
                yield PixelWindow(row, col, min(height, self.height - row), min(width, self.width - col))

    def _fetch(
        self, missing: Sequence[PixelWindow], indexes: Sequence[int], wanted: PixelWindow, out: NDArray[Any]
    ) -> None:
        """Read missing blocks in one go, which is fewer requests, and keep them."""
        row, col = min(p.row for p in missing), min(p.col for p in missing)
        row_stop, col_stop = max(p.row_stop for p in missing), max(p.col_stop for p in missing)
        joint = PixelWindow(row, col, row_stop - row, col_stop - col)
        pixels = open_raster(self.name).read(list(indexes), window=joint.ranges)
        for place in missing:
            block = pixels[(slice(None), *place.slices_in(joint))]
            self.cache.put(self._key(place, indexes), block)
            _copy(block, place, wanted, out)

    def _key(self, place: PixelWindow, indexes: Sequence[int]) -> str:
        words = f'{self.name}\n{self.version}\n{place.row} {place.col} {list(indexes)}'
        return hashlib.sha256(words.encode()).hexdigest()[:32]


def _copy(pixels: NDArray[Any], place: PixelWindow, wanted: PixelWindow, out: NDArray[Any]) -> None:
    both = place.intersection(wanted)
    out[(slice(None), *both.slices_in(wanted))] = pixels[(slice(None), *both.slices_in(place))]


_cache: BlockCache | None = None
_rasters: dict[str, CachedRaster | None] = {}


def keep_blocks(folder: Path | None, limit: int = 0) -> None:
    """Keep blocks of rasters on servers from here on, in this process and those that it forks; None: no longer.

    Args:
        folder: Where they lie.
        limit: Bytes that they may take.
    """
    global _cache
    _cache = BlockCache(folder, limit) if folder is not None and limit > 0 else None
    _rasters.clear()


def cached_raster(path: str | os.PathLike[str]) -> CachedRaster | None:
    """A raster whose blocks are kept; None of local ones, of unusual layouts, and where none are to be kept.

    What the server tells of a raster is asked once in a process, and handed on to those that it forks.

    Raises:
        LandcoverError: If the raster cannot be opened.
    """
    if _cache is None or not on_server(path):
        return None
    key = os.fspath(path)
    if key not in _rasters:
        _rasters[key] = _known(key, _cache)
    return _rasters[key]


def _known(path: str, cache: BlockCache) -> CachedRaster | None:
    src = open_raster(path)
    block, dtype = src.block_shapes[0], np.dtype(src.dtypes[0])
    plain = len(set(src.dtypes)) == 1 and set(src.block_shapes) == {block}
    if not plain or src.count * block[0] * block[1] * dtype.itemsize > _LARGEST:
        return None
    version = str(sorted(identity(src.name).items()))
    return CachedRaster(src.name, version, src.height, src.width, src.count, dtype, block, cache)


@functools.cache
def _warn_once(text: str) -> None:
    log.warning(text)
