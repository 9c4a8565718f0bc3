"""What a test run counted beside its confusion matrix, as values and as rows of tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..grid import PixelGrid, PixelWindow
from ..sampling.blocks import SPLITS, Split, SplitName
from ..sampling.cells import rectangles
from ..training.metrics import IntArray
from .figures import Picture
from .reliability import Reliability
from .report_tables import part_row

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Block:
    """A block of ground.

    Attributes:
        number: As in the GeoPackage of the blocks.
        split: train, val or test.
        windows: Rectangles of pixels that cover it once.
    """

    number: int
    split: SplitName
    windows: Sequence[PixelWindow]

    @property
    def extent(self) -> PixelWindow:
        """The rectangle of pixels around it."""
        row, col = min(w.row for w in self.windows), min(w.col for w in self.windows)
        last = max(w.row_stop for w in self.windows), max(w.col_stop for w in self.windows)
        return PixelWindow(row, col, last[0] - row, last[1] - col)


@dataclass(frozen=True, eq=False)
class Ground:
    """The blocks of a split on their grid.

    Attributes:
        grid: Image grid.
        blocks: Of all splits.
    """

    grid: PixelGrid
    blocks: Sequence[Block]

    @classmethod
    def from_split(cls, split: Split) -> 'Ground':
        """The blocks of a split without the ground that belongs to none."""
        blocks = []
        for name, number in SPLITS.items():
            region = split.cells == number
            for block in np.unique(split.blocks[region]).tolist():
                found = [
                    w.scaled(split.cell).intersection(split.grid.full)
                    for w in rectangles(region & (split.blocks == block))
                ]
                blocks.append(Block(block, name, [w for w in found if not w.is_empty]))
        return cls(split.grid, blocks)

    @property
    def tested(self) -> list[Block]:
        """The blocks of the test split, in the order of their numbers."""
        return [b for b in self.blocks if b.split == 'test']


@dataclass(frozen=True, eq=False)
class RankedPatch:
    """A test patch among the best or the worst.

    Attributes:
        picture: What it shows.
        accuracy: Share of its labelled pixels whose class is right.
        labelled_pixels: Their number.
        window: Its pixels on the image grid, if they are known.
        season: The months of its image.
    """

    picture: Picture
    accuracy: float
    labelled_pixels: int
    window: PixelWindow | None = None
    season: str = ''


@dataclass(frozen=True, eq=False)
class Breakdowns:
    """What a test run counted beside its confusion matrix; matrices have the reference in rows.

    Attributes:
        distances: By distance to the class border, shape ``(bins, num_classes, num_classes)``.
        distance_limits: Distances in pixels that part the bins.
        seasons: By the months of the images.
        ground: Blocks of all splits, if they are known.
        blocks: Of the blocks of test ground, in the order of :attr:`Ground.tested`; none where they are not known.
        reliability: Bins of the confidence, by what the probabilities are.
        best: Patches of the highest accuracy, the best first.
        worst: Patches of the lowest accuracy, the worst first.
    """

    distances: IntArray
    distance_limits: Sequence[int]
    seasons: Mapping[str, IntArray] = field(default_factory=dict)
    ground: Ground | None = None
    blocks: IntArray | None = None
    reliability: Mapping[str, Reliability] = field(default_factory=dict)
    best: Sequence[RankedPatch] = ()
    worst: Sequence[RankedPatch] = ()

    def distance_rows(self) -> list[Row]:
        """One row for each bin that holds labelled pixels; the last has no upper limit."""
        edges = [0, *self.distance_limits]
        rows = [
            {'from_px': low, 'below_px': high} | part_row(matrix)
            for low, high, matrix in zip(edges, [*edges[1:], None], self.distances, strict=True)
        ]
        return [row for row in rows if row['labelled_pixels']]

    def season_rows(self) -> list[Row]:
        """One row for each season that holds labelled pixels."""
        rows = [{'season': name} | part_row(matrix) for name, matrix in self.seasons.items()]
        return [row for row in rows if row['labelled_pixels']]

    def block_rows(self) -> list[Row]:
        """One row for each block of test ground: its rectangle on the ground and its scores."""
        if self.ground is None or self.blocks is None:
            return []
        names = ('xmin', 'ymin', 'xmax', 'ymax')
        return [
            {'block': block.number}
            | dict(zip(names, map(float, self.ground.grid.bounds(block.extent)), strict=True))
            | part_row(matrix)
            for block, matrix in zip(self.ground.tested, self.blocks, strict=True)
        ]

    def block_pixel_rows(self) -> list[Row]:
        """The confusion matrices of the blocks, one row for each count that is not 0."""
        if self.ground is None or self.blocks is None:
            return []
        return [
            {'block': block.number, 'reference': i, 'predicted': j, 'pixels': int(matrix[i, j])}
            for block, matrix in zip(self.ground.tested, self.blocks, strict=True)
            for i, j in np.argwhere(matrix).tolist()
        ]

    def reliability_rows(self) -> list[Row]:
        """One row for each bin that holds pixels."""
        return [{'probabilities': name} | row for name, found in self.reliability.items() for row in found.rows()]

    def calibration_rows(self) -> list[Row]:
        """The expected calibration error of each kind of probabilities."""
        return [
            {'probabilities': name, 'expected_calibration_error': found.error, 'labelled_pixels': found.total}
            for name, found in self.reliability.items()
        ]

    def patch_rows(self) -> list[Row]:
        """One row for each picture of the best and worst patches, by the name of its file."""
        return [
            {'patch': name, 'accuracy': patch.accuracy, 'labelled_pixels': patch.labelled_pixels}
            | dict(zip(('row', 'col', 'height', 'width'), patch.window or (None,) * 4, strict=True))
            | {'season': patch.season}
            for name, patch in self.named_patches()
        ]

    def named_patches(self) -> list[tuple[str, RankedPatch]]:
        """The best and worst patches with the names of their pictures."""
        return [
            (f'{kind}_{number:02d}', patch)
            for kind, patches in (('best', self.best), ('worst', self.worst))
            for number, patch in enumerate(patches, start=1)
        ]
