"""Rasters laid out for random patches: ordinary GeoTIFFs, uncompressed to be mapped or in small compressed blocks."""

import errno
import itertools
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from .block_file import BlockFile
from .mapped import map_raster
from .opening import check_whole, open_raster
from .outputs import cannot_write
from .reading import GDAL_ERRORS

Layout = Literal['fast', 'compact']

#: Edges of blocks in pixels. Fast ones are as large as the usual patch: it is copied from few of them, in rows that
#: follow each other in memory (512 px and 64 px are 1.1 to 1.2 x slower). Compact ones are small: little is decoded
#: beside the patch.
BLOCKS: dict[Layout, int] = {'fast': 256, 'compact': 64}

_OPTIONS: dict[Layout, dict[str, Any]] = {
    'fast': {'interleave': 'band'},
    'compact': {
        'interleave': 'pixel', 'compress': 'zstd', 'zstd_level': 1, 'num_threads': 'ALL_CPUS',
        'sparse_ok': True,  # blocks take their place when they are written, not before
    },
}  # fmt: skip

#: What a disk answers that has no room, as distinct from one that cannot set space aside.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: Windows whose checksums are kept while writing, and compared at the end.
_CHECKED = 64

_ERRORS = (OSError, *GDAL_ERRORS)


def stored_bytes(grid: PixelGrid, bands: int, dtype: np.dtype[Any], layout: Layout) -> int:
    """Size of the pixels of a file, blocks padded, before compression."""
    edges = [(side, block_edge(layout, side)) for side in (grid.height, grid.width)]
    return math.prod(-(-side // edge) * edge for side, edge in edges) * bands * dtype.itemsize


def block_edge(layout: Layout, side: int) -> int:
    """Edge of the blocks along a side of the raster: no longer than the side needs, a multiple of 16 as TIFF asks.

    Examples:
        >>> block_edge('fast', 672), block_edge('fast', 30_000), block_edge('compact', 672)
        (256, 256, 64)
    """
    return min(BLOCKS[layout], -(-side // 16) * 16)


class StoreRaster:
    """A raster that is written window by window, and checked at the end.

    Args:
        path: The file, ``.tif``.
        grid: CRS, transform and shape.
        layout: ``fast``: uncompressed, band-interleaved, tiles of 256 px; disk space is set aside at once.
            ``compact``: zstd, pixel-interleaved, tiles of 64 px.
        dtype: Of the pixels.
        bands: Names of the bands.
        nodata: Value of missing pixels, None for none.
        colormap: Colours of the values of a single band.
        tags: Metadata.

    Raises:
        LandcoverError: If it cannot be written, for example because the disk is full.
    """

    def __init__(
        self,
        path: Path,
        grid: PixelGrid,
        *,
        layout: Layout,
        dtype: np.dtype[Any] | type[np.generic],
        bands: Sequence[str],
        nodata: float | None = None,
        colormap: Mapping[int, tuple[int, int, int, int]] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.grid = path, grid
        self._profile = {
            'driver': 'GTiff', 'width': grid.width, 'height': grid.height, 'count': len(bands), 'dtype': dtype,
            'crs': grid.crs, 'transform': grid.transform, 'nodata': nodata, 'bigtiff': 'IF_SAFER',
            'tiled': True, 'blockxsize': block_edge(layout, grid.width),
            'blockysize': block_edge(layout, grid.height), **_OPTIONS[layout],
        }  # fmt: skip
        self._dtype = np.dtype(dtype)
        if layout == 'compact' and len(bands) > 1:  # neighbouring pixels are alike: 1.2 x smaller and faster
            self._profile['predictor'] = 3 if self._dtype.kind == 'f' else 2
        self._layout, self._bands, self._colormap, self._tags = layout, bands, colormap, dict(tags or {})
        self._checksums: dict[PixelWindow, int] = {}
        self._count = 0
        self._last: tuple[PixelWindow, NDArray[Any]] | None = None

    def __enter__(self) -> Self:
        try:
            with rasterio.open(self.path, 'w', **self._profile) as dst:
                dst.descriptions = self._bands
                dst.update_tags(**self._tags)
                if self._colormap:
                    dst.write_colormap(1, self._colormap)
            if self._layout == 'fast':  # GDAL has laid out all blocks, in order, in a file full of holes
                self._set_space_aside()
                self._blocks = BlockFile(self.path)
            else:
                self._dst = rasterio.open(self.path, 'r+', num_threads='ALL_CPUS')
        except _ERRORS as e:
            self._discard()
            raise cannot_write(self.path, e) from e
        return self

    def _set_space_aside(self) -> None:
        if not hasattr(os, 'posix_fallocate'):
            return
        with self.path.open('r+b') as file:
            try:
                os.posix_fallocate(file.fileno(), 0, self.path.stat().st_size)
            except OSError as e:
                if e.errno in _FULL:
                    raise

    def write(self, window: PixelWindow, pixels: NDArray[Any]) -> None:
        """Write a window.

        Args:
            window: Rows and columns of the grid; each pixel is written once.
            pixels: Shape ``(bands, height, width)``, of a type that that of the raster holds.

        Raises:
            LandcoverError: If writing fails.
        """
        pixels = pixels.astype(self._dtype, copy=False)
        try:
            if self._layout == 'fast':
                self._blocks.write(pixels, window)
            else:
                self._dst.write(pixels, window=window.ranges)
        except _ERRORS as e:
            raise cannot_write(self.path, e) from e
        self._count, self._last = self._count + 1, (window, pixels)
        if self._count.bit_count() == 1 or self._count % 16 == 0:  # the first ones, then an even sample
            self._checksums[window] = zlib.crc32(np.ascontiguousarray(pixels))
            if len(self._checksums) > _CHECKED:
                del self._checksums[next(iter(self._checksums))]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            (self._blocks if self._layout == 'fast' else self._dst).close()
            if error is None:
                self._check()
        except LandcoverError:
            self._discard()
            raise
        except _ERRORS as e:
            self._discard()
            if error is None:
                raise cannot_write(self.path, e) from e
        if error is not None:
            self._discard()

    def _discard(self) -> None:
        """Give the room on the disk back."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _check(self) -> None:
        """Compare a sample of windows with what was written: GDAL may close a file on a full disk without a word."""
        if self._last is not None:
            self._checksums[self._last[0]] = zlib.crc32(np.ascontiguousarray(self._last[1]))
            self._last = None
        try:
            check_whole(self.path)
            src = open_raster(self.path)
            arrived = self._has_all_blocks(src) and all(
                zlib.crc32(src.read(window=window.ranges)) == checksum for window, checksum in self._checksums.items()
            )
        except (LandcoverError, *_ERRORS) as e:
            raise cannot_write(self.path, e) from e
        if not arrived:
            raise cannot_write(self.path, OSError('the file is incomplete'))
        with self.path.open('rb') as file, suppress(OSError):
            os.fsync(file.fileno())

    def _has_all_blocks(self, src: Any) -> bool:
        if self._layout == 'fast':
            return map_raster(self.path) is not None
        (height, width), (rows, cols) = src.block_shapes[0], src.shape
        blocks = itertools.product(range(-(-rows // height)), range(-(-cols // width)))
        return all(src.get_tag_item(f'BLOCK_OFFSET_{col}_{row}', 'TIFF', bidx=1) for row, col in blocks)
