"""The maps of one run of the command: what is to be done for them, and what becomes of finished strips."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..grid import PixelWindow
from ..legend import Legend
from ..rasters.damage import Damage
from ..rasters.strips import Note
from ..rasters.writing import MapFolder
from ..sampling.lattice import cut_strips
from ..sampling.regions import Region
from ..sampling.runs import Strip
from .blending import FinishedStrip
from .deciding import hide


@dataclass(frozen=True, eq=False)
class MapJob:
    """One map.

    Args:
        region: What it shows.
        folder: Where it is made.
        legend: Of the codes.
    """

    region: Region
    folder: MapFolder
    legend: Legend

    @property
    def strips(self) -> list[PixelWindow]:
        """Its strips on the mosaics' grid; those that touch no polygon are left out."""
        return [strip for strip in cut_strips(self.region.area) if self.region.meets(strip)]

    def place(self, strip: PixelWindow) -> PixelWindow:
        """A strip as counted from the first pixel of the map."""
        area = self.region.area
        return strip._replace(row=strip.row - area.row, col=strip.col - area.col)

    def write(self, strip: FinishedStrip, looks: int, damage: Damage | None) -> None:
        """Keep a strip, with what is to be told of it.

        Args:
            strip: From the blending.
            looks: Number of looks at each window.
            damage: Blocks that could not be read.
        """
        wanted = self.region.mask(strip.window)
        if wanted is not None:
            hide(strip.layers, wanted)
        counts = np.bincount(strip.layers['classes'].ravel(), minlength=self.legend.num_classes)
        bounds = self.region.grid.bounds(strip.window)
        note = {
            'counts': counts.tolist(),
            'wanted': int(strip.window.height * strip.window.width if wanted is None else wanted.sum()),
            'windows': {'run': strip.seen, 'skipped': strip.planned * looks - strip.seen},
            'holes': [] if damage is None else [hole._asdict() for hole in damage.meeting(bounds)],
        }
        self.folder.strips.write(self.place(strip.window), strip.layers if counts[1:].any() else {}, note)

    def unfinished(self) -> list[PixelWindow]:
        """Strips that have to be computed: none was kept, or what was kept is damaged."""
        return [strip for strip in self.strips if self.folder.strips.finished(self.place(strip)) is None]

    def notes(self) -> list[Note]:
        """What is noted of the strips."""
        found = (self.folder.strips.note(self.place(strip)) for strip in self.strips)
        return [note for note in found if note is not None]

    def join(self, tags: Mapping[str, str]) -> None:
        """Make whole rasters of the strips."""
        places = [self.place(strip) for strip in cut_strips(self.region.area)]
        self.folder.join(places, tags)


@dataclass(frozen=True)
class Tally:
    """What the strips of a map add up to.

    Attributes:
        counts: Pixels of each code; of no data, as many as the map has.
        wanted: Pixels that were to be mapped.
        run: Looks at windows that were predicted.
        skipped: Looks that measured nothing.
        holes: Blocks that could not be read, each once.
    """

    counts: list[int]
    wanted: int
    run: int
    skipped: int
    holes: list[dict[str, Any]]

    @property
    def mapped(self) -> int:
        """Pixels that got a class."""
        return sum(self.counts[1:])

    @classmethod
    def of(cls, job: MapJob) -> 'Tally':
        """Add up the notes of a map."""
        notes, area = job.notes(), job.region.area
        counts = np.sum([note['counts'] for note in notes], axis=0, dtype=np.int64)
        counts[0] = area.height * area.width - counts[1:].sum()
        holes = {(hole['file'], *hole['bounds']): hole for note in notes for hole in note['holes']}
        return cls(
            counts.tolist(),
            sum(note['wanted'] for note in notes),
            sum(note['windows']['run'] for note in notes),
            sum(note['windows']['skipped'] for note in notes),
            [holes[key] for key in sorted(holes)],
        )


def strips_of(jobs: Sequence[MapJob], numbers: Iterable[int]) -> list[Strip]:
    """Unfinished strips of the maps with these numbers."""
    return [Strip(number, strip) for number in numbers for strip in jobs[number].unfinished()]
