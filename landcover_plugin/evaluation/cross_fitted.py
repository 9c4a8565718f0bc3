"""Labels and the probabilities of networks that did not see them, window by window."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA
from ..rasters.landcover import LabelRasters
from ..rasters.layers import PERCENT_NODATA
from ..rasters.opening import check_whole, open_raster
from ..rasters.reading import read_window

#: Edge of a tile in pixels: 16 MB of probabilities.
TILE = 1024


@dataclass(frozen=True, eq=False)
class FoldMap:
    """Probabilities of one network on the ground that it may judge.

    Attributes:
        path: Raster of percents, one band for each class, 255 where there is none.
        grid: Of the images.
        cell: Edge of a cell in pixels.
        cells: Cells of the grid that the network may judge, shape ``(rows, cols)``.
        knows: Codes that it has learned, shape ``(num_classes,)``; pixels with other labels are not judged by it.
    """

    path: Path
    grid: PixelGrid
    cell: int
    cells: NDArray[np.bool_]
    knows: NDArray[np.bool_]
    _offset: PixelWindow = field(init=False)

    def __post_init__(self) -> None:
        check_whole(self.path)
        src = open_raster(self.path)
        window = self.grid.window_of(PixelGrid.of(src))
        if window is None or src.count != len(LEGEND.codes):
            raise LandcoverError(f'{self.path} does not fit the images any more: delete it and run the command again')
        object.__setattr__(self, '_offset', window)

    def mask(self, window: PixelWindow) -> NDArray[np.bool_]:
        """Pixels of a window in cells that may be judged, shape ``(height, width)``."""
        rows = np.arange(window.row, window.row_stop) // self.cell
        cols = np.arange(window.col, window.col_stop) // self.cell
        return self.cells[np.ix_(rows, cols)]

    def read(self, window: PixelWindow) -> NDArray[np.uint8]:
        """Percents of a window, shape ``(classes, height, width)``, 255 beyond the raster."""
        own = PixelWindow(window.row - self._offset.row, window.col - self._offset.col, window.height, window.width)
        return read_window(self.path, own, fill=PERCENT_NODATA)


class Judged(NamedTuple):
    """What is judged in a window.

    Attributes:
        window: On the grid of the images.
        labels: Codes of the pixels that are judged, 0 elsewhere, shape ``(height, width)``.
        percents: Probabilities of a network that did not see them, shape ``(classes, height, width)``.
        pixels: Of the labelled ones, how many are ``judged``, ``mixed``, ``beyond`` all folds or unmeasured, or of a
            class that is ``unlearned``.
    """

    window: PixelWindow
    labels: NDArray[np.uint8]
    percents: NDArray[np.uint8]
    pixels: dict[str, int]


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Labels beside cross-fitted probabilities.

    Attributes:
        grid: Of the images.
        labels: Label rasters, on any grid.
        folds: Of several networks that may judge a pixel the first does.
        purity: Share in percent that the label has to cover of a pixel: a mixed one has no single true class.
    """

    grid: PixelGrid
    labels: LabelRasters
    folds: Sequence[FoldMap]
    purity: float = 75.0

    def tiles(self) -> list[PixelWindow]:
        """Windows that cover the grid; those without any cell to judge are left out."""
        every = (
            PixelWindow(row, col, TILE, TILE).intersection(self.grid.full)
            for row in range(0, self.grid.height, TILE)
            for col in range(0, self.grid.width, TILE)
        )
        return [window for window in every if any(fold.mask(window).any() for fold in self.folds)]

    def read(self, window: PixelWindow) -> Judged:
        """What is judged in a window.

        Raises:
            LandcoverError: If a raster cannot be read.
        """
        found = self.labels.read(self.grid.subgrid(window))
        labelled = found.codes != NODATA
        mixed = labelled & (found.purity < self.purity)
        percents = np.zeros((len(LEGEND.codes), window.height, window.width), dtype=np.uint8)
        taken, known = np.zeros_like(labelled), np.zeros_like(labelled)
        for fold in self.folds:
            may = fold.mask(window) & ~taken
            if not may.any():
                continue
            values = fold.read(window)
            may &= values[0] != PERCENT_NODATA
            percents[:, may] = values[:, may]
            known[may] = fold.knows[found.codes[may]]
            taken |= may
        judged = labelled & ~mixed & taken & known
        pixels = {
            'judged': judged,
            'mixed': mixed,
            'beyond': labelled & ~mixed & ~taken,
            'unlearned': labelled & ~mixed & taken & ~known,
        }
        labels = np.where(judged, found.codes, np.uint8(NODATA))
        return Judged(window, labels, percents, {name: int(where.sum()) for name, where in pixels.items()})
