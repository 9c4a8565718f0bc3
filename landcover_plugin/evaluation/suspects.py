"""Suspects: connected pixels whose label a network contradicts with confidence, ranked for a photo-interpreter.

The score of a polygon is ``margin * (1 - rate) * pixels / (pixels + 2)``, in [0, 1]:

* **margin** is the mean normalised margin of its pixels: by how much the confident class is more probable than the
  label, both calibrated and cross-fitted;
* **rate** is the share of the pixels of this label that the noise model takes to be of this confident class. Where a
  class is contradicted in the same way again and again, the network rather than the label is weak;
* the last factor draws the margin of small polygons towards 0, as if they had two more pixels without any. Five pixels
  have to be surer than a field; beyond half a hectare the margin decides, not the area.
"""

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray

from ..grid import PixelGrid, PixelWindow
from ..mapping.polygonize import polygons_of
from ..mapping.tiled_map import TiledMap
from ..rasters.reading import read_window
from ..rasters.streaming import in_order
from .confident import NoiseModel
from .suspect_rasters import SuspectRasters, codes_of, pair_legend

#: Pixels without margin by which a polygon is drawn towards 0.
PRIOR = 2

#: Pixels of a polygon's window that are read at a time.
_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Suspect:
    """A polygon of one label and one confident class.

    Attributes:
        geometry: In the CRS of the images.
        label: Code of the label.
        predicted: Code of the confident class.
        pixels: Number of pixels.
        area_m2: Their area in square metres.
        score: See the module, in [0, 1].
        confidence: Mean probability of the confident class, in [0, 1].
    """

    geometry: shapely.Geometry
    label: int
    predicted: int
    pixels: int
    area_m2: float
    score: float
    confidence: float = float('nan')


@dataclass(frozen=True)
class Ranked:
    """The suspects that are kept, best first, and what all of them are.

    Attributes:
        suspects: At most as many as asked for.
        found: Polygons of the least area or more.
        area_m2: Area of these.
    """

    suspects: list[Suspect]
    found: int
    area_m2: float


def score_of(margin: Any, rate: Any, pixels: Any) -> Any:
    """The score of polygons.

    Args:
        margin: Mean normalised margin, in [0, 1].
        rate: Share of the pixels of the label that are estimated to be of the confident class, in [0, 1].
        pixels: Number of pixels.

    Examples:
        >>> score_of(0.9, 0.0, 8), round(score_of(0.9, 0.5, 88), 3)
        (0.72, 0.44)
    """
    return margin * (1 - rate) * pixels / (pixels + PRIOR)


def rank(
    rasters: SuspectRasters, noise: NoiseModel, folder: Path, *, min_area: float, most: int, progress: bool = True
) -> Ranked:
    """Outline suspect pixels and keep the polygons with the highest scores.

    Pixels that share an edge, the label and the confident class form one polygon. Memory holds as many polygons as are
    kept.

    Args:
        rasters: Of the suspect pixels.
        noise: Of their labels.
        folder: Where a temporary file may go.
        min_area: Square metres below which a polygon is left out.
        most: Polygons to keep.
        progress: Show progress bars, where stderr is a terminal.

    Raises:
        LandcoverError: If a raster cannot be read.
    """
    source = TiledMap(rasters.pairs, rasters.margin, pair_legend())
    rates, found, area, order = noise.rates, 0, 0.0, itertools.count()
    kept: list[tuple[float, int, Suspect]] = []
    for batch in polygons_of(source, folder, progress=progress):
        large = np.flatnonzero(batch.areas >= min_area)
        found, area = found + len(large), area + float(batch.areas[large].sum())
        labels, predicted = codes_of(batch.codes.astype(np.int64))
        scores = score_of(batch.confidence / 100, rates[labels - 1, predicted - 1], batch.pixels)
        for i in large:
            suspect = Suspect(
                shapely.from_wkb(batch.geometry[i]),
                int(labels[i]),
                int(predicted[i]),
                int(batch.pixels[i]),
                float(batch.areas[i]),
                float(scores[i]),
            )
            entry = (suspect.score, -next(order), suspect)
            heapq.heappush(kept, entry) if len(kept) < most else heapq.heappushpop(kept, entry)
    best = [suspect for _, _, suspect in sorted(kept, key=lambda e: e[:2], reverse=True)]
    return Ranked(list(_confident(best, rasters, source.grid, progress)), found, area)


def _confident(suspects: list[Suspect], rasters: SuspectRasters, grid: PixelGrid, progress: bool) -> Iterator[Suspect]:
    """The suspects with their mean confidence."""

    def work(suspect: Suspect) -> Suspect:
        total = sum(int(read_window(rasters.confidence, part)[0][mask].sum()) for part, mask in masks(suspect, grid))
        mean = total / suspect.pixels / 100
        return Suspect(**{**suspect.__dict__, 'confidence': mean})

    yield from in_order(work, suspects, desc='confidence', unit='polygon', progress=progress)


def masks(suspect: Suspect, grid: PixelGrid) -> Iterator[tuple[PixelWindow, NDArray[np.bool_]]]:
    """The pixels of a polygon, a piece of its window at a time."""
    window = grid.window(suspect.geometry.bounds)
    rows = max(_AT_ONCE // window.width, 1)
    for row in range(window.row, window.row_stop, rows):
        part = PixelWindow(row, window.col, min(rows, window.row_stop - row), window.width)
        transform = grid.subgrid(part).transform
        inside = rasterio.features.rasterize(
            [suspect.geometry], (part.height, part.width), transform=transform, dtype=np.uint8
        )
        yield part, inside.astype(np.bool_)
