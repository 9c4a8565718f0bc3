"""Strips that follow each other, as the work of one process: which windows they need, and in which order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..grid import PixelWindow
from .lattice import Lattice, grown, share
from .regions import Region


class Strip(NamedTuple):
    """A piece of one of the maps of a run of the command.

    Attributes:
        map: Number of the map.
        window: Its pixels on the mosaics' grid.
    """

    map: int
    window: PixelWindow


@dataclass(frozen=True)
class StripRun:
    """Strips of one swath of one map, each below the other without a gap.

    Args:
        map: Number of the map.
        region: What is mapped.
        strips: From the top.
        lattice: Of the windows.
        halo: Pixels around a strip that its result depends on.
    """

    map: int
    region: Region
    strips: tuple[PixelWindow, ...]
    lattice: Lattice
    halo: int = 0

    @property
    def canvas(self) -> PixelWindow:
        """All pixels that the strips depend on."""
        first, last = self.strips[0], self.strips[-1]
        whole = PixelWindow(first.row, first.col, last.row_stop - first.row, first.width)
        return grown(whole, self.halo, self.lattice.shape)

    def windows(self) -> Iterator[PixelWindow]:
        """Windows to predict, row by row; those that touch no polygon are left out."""
        for window in self.lattice.windows(self.canvas):
            if self.region.meets(window, self.halo):
                yield window


def divide(strips: Sequence[Strip], lattice: Lattice, parts: int) -> list[list[Strip]]:
    """Strips in contiguous parts of about equal numbers of windows, one for each process."""
    weights = [lattice.count(strip.window) for strip in strips]
    return [list(strips[part]) for part in share(weights, parts)] if strips else [[] for _ in range(parts)]


def join_runs(strips: Sequence[Strip], regions: Sequence[Region], lattice: Lattice, halo: int = 0) -> list[StripRun]:
    """Runs of strips that continue each other, in the order of the strips."""
    runs: list[list[Strip]] = []
    for strip in strips:
        before = runs[-1][-1] if runs else None
        if before is not None and before.map == strip.map and _continues(before.window, strip.window):
            runs[-1].append(strip)
        else:
            runs.append([strip])
    return [
        StripRun(run[0].map, regions[run[0].map], tuple(strip.window for strip in run), lattice, halo) for run in runs
    ]


def _continues(above: PixelWindow, below: PixelWindow) -> bool:
    return (above.col, above.width, above.row_stop) == (below.col, below.width, below.row)
