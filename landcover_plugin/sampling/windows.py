"""Windows in which rasters are scanned: whole blocks of the files, whole cells of the inventory, bounded memory."""

import itertools
import math
from collections.abc import Sequence

from ..grid import PixelWindow
from ..machine import processors
from ..rasters.mosaics import Mosaics
from ..rasters.opening import open_raster
from ..rasters.storing import BLOCKS

#: Bytes of images that one window holds at most, and all windows in memory together.
WINDOW_BYTES, ALL_BYTES = 2**26, 2**28

#: Edge of square windows, unless blocks of the source are larger.
EDGE = 512


def pixel_bytes(images: Mosaics) -> int:
    """Bytes of a pixel in all bands and months."""
    return sum(open_raster(images.files_of(date)[0]).count for date in images.dates) * images.dtype.itemsize


def image_windows(images: Mosaics, cell: int) -> list[PixelWindow]:
    """Windows in which mosaics are best read and written: full rows of striped files, else squares of whole blocks.

    Args:
        images: Mosaics.
        cell: Windows begin at the corner of a cell of this edge.
    """
    grid, per_pixel = images.grid, pixel_bytes(images)
    most = min(WINDOW_BYTES, ALL_BYTES // (processors() + 1)) // per_pixel
    if is_striped(images.files) and grid.width > BLOCKS['fast']:
        rows, cols = _starts(grid.height, most // grid.width, (), cell), [0, grid.width]
    else:
        blocks, edge = open_raster(images.files[0]).block_shapes[0], math.isqrt(most)
        rows, cols = (
            _starts(length, edge, (block, EDGE, BLOCKS['compact']), cell)
            for length, block in zip((grid.height, grid.width), blocks, strict=True)
        )
    return [
        PixelWindow(top, left, bottom - top, right - left)
        for top, bottom in itertools.pairwise(rows)
        for left, right in itertools.pairwise(cols)
    ]


def is_striped(files: Sequence[str]) -> bool:
    """Whether a block of any file is as wide as the file."""
    return any(src.block_shapes[0][1] >= src.width for src in map(open_raster, files))


def _starts(length: int, most: int, blocks: Sequence[int], cell: int) -> list[int]:
    """Where windows start and the last one ends: whole cells, and whole blocks of source and store where these fit.

    Args:
        length: Pixels.
        most: Pixels of a window; a cell is always taken.
        blocks: Edges of blocks, the best first, the least last.
        cell: Edge of a cell.

    Examples:
        >>> _starts(2000, 1200, (256, 512, 64), 32), _starts(2000, 1200, (256, 512, 64), 20)
        ([0, 512, 1024, 1536, 2000], [0, 320, 640, 960, 1280, 1600, 1920, 2000])
        >>> _starts(70, 8, (), 32), _starts(2000, 1200, (1024, 512, 64), 32)
        ([0, 32, 64, 70], [0, 1024, 2000])
    """
    units = [math.lcm(block, blocks[-1], cell) for block in blocks]
    unit = next((unit for unit in units if unit <= max(most, blocks[-1])), cell)
    return [*range(0, length, max(min(most, EDGE if blocks else most) // unit, 1) * unit), length]
