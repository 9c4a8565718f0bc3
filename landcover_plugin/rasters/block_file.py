"""Writing pixels straight into the blocks of an uncompressed raster: each byte goes to the disk once."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..grid import PixelWindow
from .mapped import map_raster


class BlockFile:
    """An uncompressed, band-interleaved GeoTIFF whose blocks are laid out already.

    GDAL would load and write whole blocks again for each window that holds a part of them: of a striped source, dozens
    of times.

    Args:
        path: A file that :func:`~landcover_plugin.rasters.mapped.map_raster` can map.

    Raises:
        OSError: If its blocks do not follow each other.
    """

    def __init__(self, path: Path) -> None:
        if map_raster(path) is None:
            raise OSError('its blocks do not follow each other')
        with rasterio.open(path) as src:
            self._first = int(src.get_tag_item('BLOCK_OFFSET_0_0', 'TIFF', bidx=1))
            self._block = height, width = src.block_shapes[0]
            self._rows, self._cols = -(-src.height // height), -(-src.width // width)
        self._file = path.open('r+b')

    def write(self, pixels: NDArray[Any], window: PixelWindow) -> None:
        """Write a window that lies in the file.

        Args:
            pixels: Shape ``(bands, height, width)``, in the type of the file.
            window: Rows and columns.
        """
        height, width = self._block
        for block_row in range(window.row // height, -(-window.row_stop // height)):
            for block_col in range(window.col // width, -(-window.col_stop // width)):
                block = PixelWindow(block_row * height, block_col * width, height, width)
                part = block.intersection(window)
                rows, cols = part.slices_in(window)
                for band, values in enumerate(pixels[:, rows, cols]):
                    number = (band * self._rows + block_row) * self._cols + block_col
                    self._write_part(values, number, part.row - block.row, part.col - block.col)

    def _write_part(self, values: NDArray[Any], number: int, row: int, col: int) -> None:
        """Write pixels into a block, from a row and column of it on; whole rows of it lie side by side."""
        height, width = self._block
        item = values.dtype.itemsize
        start = self._first + (number * height * width + row * width + col) * item
        whole = values.shape[1] == width
        for i, line in enumerate([values] if whole else values):
            self._file.seek(start + i * width * item)
            self._file.write(np.ascontiguousarray(line).data)

    def close(self) -> None:
        """Hand what is buffered to the operating system."""
        self._file.close()
