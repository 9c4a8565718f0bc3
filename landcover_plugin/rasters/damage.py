"""Blocks of a raster that cannot be read, left out instead of ending the work."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from .opening import address, open_raster
from .reading import read_window


class Hole(NamedTuple):
    """A block that cannot be read.

    Attributes:
        file: Its raster.
        bounds: ``(xmin, ymin, xmax, ymax)`` in units of the raster's CRS.
        reason: What the reading said.
    """

    file: str
    bounds: tuple[float, float, float, float]
    reason: str


class Damage:
    """Collects the blocks that could not be read; threads may share it."""

    def __init__(self) -> None:
        self._holes: dict[tuple[str, PixelWindow], Hole] = {}
        self._lock = threading.Lock()

    def read(self, path: str, window: PixelWindow, *, indexes: Sequence[int], fill: float) -> NDArray[Any]:
        """The pixels of a window block by block, as :func:`read_window` does; damaged blocks are ``fill``."""
        src = open_raster(path)
        image = np.empty((len(indexes), window.height, window.width), dtype=src.dtypes[0])
        image[:] = fill
        grid = PixelGrid.of(src)
        inside = window.intersection(grid.full)
        height, width = src.block_shapes[0]
        for row in range(inside.row // height * height, inside.row_stop, height):
            for col in range(inside.col // width * width, inside.col_stop, width):
                block = PixelWindow(row, col, height, width).intersection(grid.full)
                part = block.intersection(window)
                try:
                    image[(slice(None), *part.slices_in(window))] = read_window(path, part, indexes=indexes, fill=fill)
                except LandcoverError as e:
                    self._note(path, block, grid, str(e))
        return image

    def _note(self, path: str, block: PixelWindow, grid: PixelGrid, reason: str) -> None:
        with self._lock:
            self._holes.setdefault((path, block), Hole(address(path), grid.bounds(block), reason))

    def meeting(self, bounds: tuple[float, float, float, float]) -> list[Hole]:
        """Damaged blocks, found so far, that meet bounds in CRS units, in the order of files and places."""
        with self._lock:
            holes = sorted(self._holes.values())
        xmin, ymin, xmax, ymax = bounds
        return [
            h for h in holes if h.bounds[0] < xmax and h.bounds[2] > xmin and h.bounds[1] < ymax and h.bounds[3] > ymin
        ]
