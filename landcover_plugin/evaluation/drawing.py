"""Drawing a stratified random sample of pixels, without replacement, in memory that does not grow with the map.

The first pass counts the pixels of each class in each strip. Ranks are drawn among them (the k-th pixel of the class,
row by row), and the second pass reads only the strips that hold a drawn rank. What is drawn depends on the map and the
seed alone, not on the strips.
"""

from typing import NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelWindow
from ..legend import NODATA
from ..rasters.streaming import in_order
from .class_map import CACHE_BYTES, ClassMap, MapCounts


class DrawnPixels(NamedTuple):
    """Pixels of a sample in random order; arrays of shape ``(n,)``.

    Attributes:
        rows: Of the map's grid.
        cols: Of the map's grid.
        codes: What the map shows there.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    codes: NDArray[np.int64]


def draw_ranks(
    pixels: NDArray[np.int64], points: NDArray[np.int64], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """For each code the ranks that are drawn among its pixels, sorted; every subset of that size is as likely.

    Examples:
        >>> [r.tolist() for r in draw_ranks(np.array([5, 3]), np.array([0, 3]), np.random.default_rng(0))]
        [[], [0, 1, 2]]
    """
    return [
        np.sort(rng.choice(int(size), size=int(n), replace=False, shuffle=False)) if n else np.empty(0, dtype=np.int64)
        for size, n in zip(pixels, points, strict=True)
    ]


def draw(
    source: ClassMap, counts: MapCounts, points: NDArray[np.int64], *, seed: int = 0, progress: bool = True
) -> DrawnPixels:
    """Draw pixels of each class.

    Args:
        source: The map.
        counts: Its counts, from :func:`~landcover_plugin.evaluation.class_map.count`.
        points: How many of each code, shape ``(num_classes,)``; none of no data.
        seed: Same map and seed, same pixels.
        progress: Show a progress bar, where stderr is a terminal.

    Raises:
        LandcoverError: If the seed is negative or the map changed since it was counted.
    """
    if seed < 0:
        raise LandcoverError(f'the seed must be at least 0, got {seed}')
    rng = np.random.default_rng(seed)
    wanted = points.copy()
    wanted[NODATA] = 0
    ranks = draw_ranks(counts.pixels, wanted, rng)
    before = np.cumsum(counts.strips, axis=0) - counts.strips
    jobs = [
        (strip, [r[(r >= low) & (r < low + held)] - low for r, low, held in zip(ranks, lows, helds, strict=True)])
        for strip, lows, helds in zip(source.strips(), before, counts.strips, strict=True)
    ]
    jobs = [(strip, local) for strip, local in jobs if any(len(r) for r in local)]
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        found = list(in_order(lambda job: _pick(source, *job), jobs, desc='drawing the sample', progress=progress))
    rows, cols, codes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if len(rows) != wanted.sum():
        raise LandcoverError(f'{source.path} changed while the sample was drawn: run the command again')
    order = np.lexsort((cols, rows))[rng.permutation(len(rows))]  # the same with strips of any height
    return DrawnPixels(rows[order], cols[order], codes[order])


def _pick(source: ClassMap, strip: PixelWindow, ranks: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], ...]:
    """Rows, columns and codes of the pixels with these ranks within a strip."""
    codes = source.read(strip).ravel()
    places, found = [], []
    for code, wanted in enumerate(ranks):
        if len(wanted):
            own = np.flatnonzero(codes == code)
            places.append(own[wanted[wanted < len(own)]])
            found.append(np.full(len(places[-1]), code, dtype=np.int64))
    place = np.concatenate(places)
    return strip.row + place // strip.width, strip.col + place % strip.width, np.concatenate(found)
