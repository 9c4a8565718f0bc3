"""Uncompressed GeoTIFFs as arrays in memory: their pixels are copied out, not decoded.

The operating system reads the pages that are touched and keeps them as long as memory lasts, for all processes
at once. A mapping may cross ``fork``; it is not a file handle.
"""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from .opening import file_version

_mapped: dict[tuple[str, int], 'MappedRaster | None'] = {}


@dataclass(frozen=True, eq=False)
class MappedRaster:
    """A band-interleaved file in memory, read as rasterio reads an open one.

    Args:
        name: The file.
        height: Rows.
        width: Columns.
        blocks: Shape ``(bands, block rows, block cols, block height, block width)``; the last blocks are padded.
    """

    name: str
    height: int
    width: int
    blocks: NDArray[Any]

    @property
    def count(self) -> int:
        """Bands."""
        return len(self.blocks)

    @property
    def dtypes(self) -> list[np.dtype[Any]]:
        """Type of the pixels, for each band."""
        return [self.blocks.dtype] * self.count

    def read(
        self,
        indexes: Sequence[int],
        *,
        window: tuple[tuple[int, int], tuple[int, int]],
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Pixels of a window that lies in the file.

        Args:
            indexes: Bands, counted from 1.
            window: ``((row, row_stop), (col, col_stop))``.
            out: Where they go (default: a new array).

        Returns:
            Shape ``(bands, rows, cols)``.
        """
        (row, row_stop), (col, col_stop) = window
        height, width = self.blocks.shape[3:]
        bands = _as_slice(tuple(indexes))
        if out is None:
            out = np.empty((len(indexes), row_stop - row, col_stop - col), dtype=self.blocks.dtype)
        for r in range(row // height, -(-row_stop // height)):
            top, bottom = max(row, r * height), min(row_stop, (r + 1) * height)
            rows, to_rows = slice(top - r * height, bottom - r * height), slice(top - row, bottom - row)
            for c in range(col // width, -(-col_stop // width)):
                left, right = max(col, c * width), min(col_stop, (c + 1) * width)
                cols = slice(left - c * width, right - c * width)
                out[:, to_rows, left - col : right - col] = self.blocks[bands, r, c, rows, cols]
        return out


@functools.lru_cache
def _as_slice(indexes: tuple[int, ...]) -> Any:
    """Positions of bands: a slice where they follow each other, since NumPy copies from it much faster."""
    first = indexes[0]
    if indexes == tuple(range(first, first + len(indexes))):
        return slice(first - 1, first - 1 + len(indexes))
    return [i - 1 for i in indexes]


def map_raster(path: str | os.PathLike[str]) -> MappedRaster | None:
    """The file in memory, or None where its layout does not allow that.

    It does for local, little-endian, uncompressed, band-interleaved GeoTIFFs whose blocks follow each other without
    a gap: what ``landcover prepare --store fast`` writes, and GDAL's plain GeoTIFFs of one band.
    """
    key = (os.fspath(path), file_version(path))
    try:
        return _mapped[key]
    except KeyError:
        found = _map(Path(path)) if key[1] else None
    if len(_mapped) >= 256:  # files that are rewritten again and again
        _mapped.clear()
    _mapped[key] = found
    return found


def _map(path: Path) -> MappedRaster | None:
    try:
        with tifffile.TiffFile(path) as tif:
            page, byte_order = tif.pages[0], tif.byteorder
            assert isinstance(page, tifffile.TiffPage)  # noqa: S101 - the first page is never a frame
            blocks = _blocks(path, page) if byte_order == '<' else None
    except Exception:  # a damaged header fails in any way (tifffile 2026); GDAL tells what is wrong with the file
        return None
    if blocks is None:
        return None
    return MappedRaster(str(path), page.imagelength, page.imagewidth, blocks)


def _blocks(path: Path, page: tifffile.TiffPage) -> NDArray[Any] | None:
    """The blocks of a file in memory, or None where they are coded or do not follow each other."""
    planar = page.samplesperpixel == 1 or page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    plain = page.compression == tifffile.COMPRESSION.NONE and page.predictor == 1 and page.bitspersample % 8 == 0
    if not (planar and plain and page.dtype is not None and page.fillorder == 1):
        return None
    rows, cols = page.imagelength, page.imagewidth
    size = (page.tilelength, page.tilewidth) if page.is_tiled else (rows, cols)
    shape = (page.samplesperpixel, -(-rows // size[0]), -(-cols // size[1]), *size)
    offsets, lengths = np.array(page.dataoffsets, dtype=np.int64), np.array(page.databytecounts, dtype=np.int64)
    whole = int(np.prod(shape, dtype=np.int64)) * page.dtype.itemsize
    follow = len(offsets) > 0 and offsets[0] > 0 and bool((offsets[1:] == offsets[:-1] + lengths[:-1]).all())
    if not follow or lengths.sum() != whole or offsets[0] + whole > path.stat().st_size:
        return None
    dtype = page.dtype.newbyteorder('<')
    return np.memmap(path, dtype=dtype, mode='r', offset=int(offsets[0]), shape=shape).view(np.ndarray)
