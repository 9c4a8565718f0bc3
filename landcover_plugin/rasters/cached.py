"""Rasters on servers whose blocks are kept on the local disk: opened only where a block is missing."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid import PixelWindow
from .block_cache import BlockCache
from .identity import identity
from .opening import on_server, open_raster

#: Bytes of pixels of a block that are still kept; rasters in wider strips are read as they are.
_LARGEST = 2**26


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
