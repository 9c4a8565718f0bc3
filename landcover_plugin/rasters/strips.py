"""Finished strips of a map on disk: small rasters, each with a note that tells whether it arrived whole."""

import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what GDAL raises beside RasterioError has no public name
from rasterio.errors import RasterioError

from ..grid import PixelGrid, PixelWindow
from .layers import Kind, Layer
from .outputs import cannot_write
from .staging import write_small

#: Side of a tile in pixels.
BLOCK = 512

WRITE_ERRORS = (OSError, RasterioError, CPLE_BaseError)

#: What is noted of a strip, as JSON.
Note = dict[str, Any]


class StripFolder:
    """The strips of one map.

    A strip is a raster for each layer and a note in JSON with their checksums. The note is written last, and under
    its name only when it is whole: what has no note, or does not fit it, is not finished. Strips without data have a
    note alone.

    Args:
        folder: Where they are; need not exist yet.
        grid: Of the map; strips are counted from its first pixel.
        layers: Of the map.
    """

    def __init__(self, folder: Path, grid: PixelGrid, layers: Mapping[Kind, Layer]) -> None:
        self.folder, self.grid, self.layers = folder, grid, dict(layers)

    def path(self, strip: PixelWindow, kind: Kind) -> Path:
        """The raster of one layer."""
        return self.folder / f'{_name(strip)}-{kind}.tif'

    def write(self, strip: PixelWindow, arrays: Mapping[Kind, NDArray[np.uint8]], note: Note) -> None:
        """Keep a strip.

        Args:
            strip: Its pixels.
            arrays: Each layer, shape ``(bands, height, width)``; none if there is nothing but no data.
            note: What else is to be noted, as JSON.

        Raises:
            LandcoverError: If writing fails, for example because the disk is full.
            ValueError: If layers or shapes do not fit.
        """
        if arrays and arrays.keys() != self.layers.keys():
            raise ValueError(f'this map consists of {sorted(self.layers)}, got {sorted(arrays)}')
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for kind, array in arrays.items():
                self._write_layer(strip, kind, array)
        except WRITE_ERRORS as error:
            raise cannot_write(self.folder, error) from error
        sums = {kind: zlib.crc32(np.ascontiguousarray(array)) for kind, array in arrays.items()}
        whole = {**note, 'strip': list(strip), 'crc32': sums}
        write_small(self._note_path(strip), lambda path: path.write_text(json.dumps(whole)))

    def _write_layer(self, strip: PixelWindow, kind: Kind, array: NDArray[np.uint8]) -> None:
        layer, path = self.layers[kind], self.path(strip, kind)
        shape = len(layer.bands), strip.height, strip.width
        if array.shape != shape or array.dtype != np.uint8:
            raise ValueError(f'{kind} of this strip is uint8 of shape {shape}, got {array.dtype} {array.shape}')
        options: dict[str, Any] = {'compress': 'deflate', 'zlevel': 1, 'interleave': 'band', 'sparse_ok': True}
        options |= {'nodata': layer.nodata, 'crs': self.grid.crs, 'transform': self.grid.subgrid(strip).transform}
        if strip.width > BLOCK:
            options |= {'tiled': True, 'blockxsize': BLOCK, 'blockysize': BLOCK}
        with rasterio.open(
            path, 'w', driver='GTiff', count=shape[0], height=shape[1], width=shape[2], dtype='uint8', **options
        ) as dst:
            dst.write(array)
        with path.open('r+b') as file:
            os.fsync(file.fileno())

    def note(self, strip: PixelWindow) -> Note | None:
        """What was noted of a strip, if there is a note."""
        with suppress(OSError, ValueError):
            found = json.loads(self._note_path(strip).read_text())
            return found if found['strip'] == list(strip) else None
        return None

    def finished(self, strip: PixelWindow) -> Note | None:
        """What was noted of a strip if its rasters hold what was written, else None."""
        note = self.note(strip)
        if note is None:
            return None
        try:
            for kind, crc in note['crc32'].items():
                with rasterio.open(self.path(strip, kind)) as src:
                    if zlib.crc32(src.read()) != crc:
                        return None
        except (*WRITE_ERRORS, ValueError):
            return None
        return note

    def checksum(self, strip: PixelWindow, kind: Kind) -> int:
        """Checksum of what a layer has in a strip; without a note it is no data."""
        note = self.note(strip) or {'crc32': {}}
        if kind in note['crc32']:
            return int(note['crc32'][kind])
        layer = self.layers[kind]
        return zlib.crc32(np.full((len(layer.bands), strip.height, strip.width), layer.nodata, np.uint8))

    def count(self) -> int:
        """Number of strips that have a note."""
        return sum(1 for _ in self.folder.glob('[!.]*.json'))

    def _note_path(self, strip: PixelWindow) -> Path:
        return self.folder / f'{_name(strip)}.json'


def _name(strip: PixelWindow) -> str:
    return f'{strip.col:06d}-{strip.row:06d}'
