"""A sample of the ground: windows spread evenly, read once at full resolution, boiled down to what checks ask for."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA
from ..rasters.labels import Labels
from ..rasters.landcover import LabelRasters
from ..rasters.mosaics import Mosaics
from ..sampling.inventory import count_codes
from .findings import Finding, told_by
from .shift import RADIUS, correlation, image_edges, is_telling, label_edges

#: Windows that are read at most and, of rasters that are costly to read, at least.
MOST_WINDOWS, FEWEST_WINDOWS = 100, 16

#: Edge of a window in pixels, at most and at least.
MOST_PIXELS, FEWEST_PIXELS = 256, 96

#: Edge of a window in label pixels, at most.
MOST_LABELS = 5120

#: Bytes that may be decoded: half a minute at 300 MB/s.
BUDGET = 8e9

#: Fewer pixels of a month than this tell nothing.
ENOUGH = 200

#: Every how many rows and columns a pixel is kept for the checks of values.
_THIN = 4

#: Edge in pixels of the cells in which classes are counted for weights by median frequency: about a patch.
_CELL = 256


@dataclass
class Sample:
    """What was seen in the windows.

    Args:
        grid: Image grid.
        dates: Months, one for each look.
        bands: Names of the bands.
        pixels: Raw digital numbers of every fourth pixel and row, shape ``(looks, n, C)``.
        valid: Which of them were measured, shape ``(looks, n)``.
        codes: Their labels, shape ``(n,)``.
        measured: Pixels measured by each look, among all pixels read, shape ``(looks,)``.
        counts: Pixels of each code that at least one look measured, shape ``(num_classes,)``.
        cells: The same in cells as large as a patch, shape ``(n, num_classes)`` for each window.
        purity: Sum of the purity of these pixels in percent.
        unknown: Label pixels outside the legend.
        correlations: Of label and image edges, one for each window with enough edges.
        read: Pixels of the windows.
        failures: Sentences of reads that failed, by the month or ``labels``.
        size: Edge of a whole window in pixels.
    """

    grid: PixelGrid
    dates: Sequence[str]
    bands: Sequence[str]
    pixels: NDArray[np.float32]
    valid: NDArray[np.bool_]
    codes: NDArray[np.uint8]
    measured: NDArray[np.int64]
    counts: NDArray[np.int64]
    cells: list[NDArray[np.uint32]] = field(default_factory=list, kw_only=True)
    purity: float = 0
    unknown: int = 0
    correlations: list[NDArray[np.float64]] = field(default_factory=list)
    read: int = 0
    failures: dict[str, list[str]] = field(default_factory=dict)
    size: int = MOST_PIXELS

    @property
    def share(self) -> float:
        """Share of the ground that was read."""
        return self.read / (self.grid.height * self.grid.width)

    @property
    def is_whole(self) -> bool:
        """Whether everything was read."""
        return self.read == self.grid.height * self.grid.width

    def measured_pixels(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Month and measured pixels of shape ``(n, C)`` of each look that has enough of them."""
        for date, pixels, valid in zip(self.dates, self.pixels, self.valid, strict=True):
            if valid.sum() >= ENOUGH:
                yield date, pixels[valid]


def window_size(grid: PixelGrid, factor: int = 1) -> int:
    """Edge of windows in pixels: small enough that several lie side by side, and fit in memory with their labels.

    Args:
        grid: Image grid.
        factor: Label pixels along one of its pixels.
    """
    third = min(grid.height, grid.width) // 3 // 16 * 16
    return max(min(max(third, FEWEST_PIXELS), MOST_PIXELS, MOST_LABELS // factor), 32)


def spread_windows(grid: PixelGrid, size: int, count: int) -> list[PixelWindow]:
    """Windows spread evenly over a grid, aligned to multiples of their size; all of it if ``count`` suffice.

    Examples:
        >>> from affine import Affine
        >>> from rasterio.crs import CRS
        >>> grid = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 0, 0, -10, 0), 1000, 2000)
        >>> [w[:2] for w in spread_windows(grid, 100, 8)]
        [(200, 200), (200, 700), (200, 1200), (200, 1700), (700, 200), (700, 700), (700, 1200), (700, 1700)]
        >>> sum(w.height * w.width for w in spread_windows(grid, 300, 100)) == 1000 * 2000
        True
    """
    rows, cols = -(-grid.height // size), -(-grid.width // size)
    if rows * cols <= count:
        down, across = rows, cols
    else:
        down = min(max(math.floor(math.sqrt(count * rows / cols)), 1), rows)
        across = min(max(count // down, 1), cols)
    corners = [
        (math.floor((i + 0.5) * rows / down) * size, math.floor((j + 0.5) * cols / across) * size)
        for i in range(down)
        for j in range(across)
    ]
    if rows * cols > count:
        corners = [(max(row - (row + size > grid.height) * size, 0), col) for row, col in corners]
    return [PixelWindow(row, col, size, size).intersection(grid.full) for row, col in corners]


def take_sample(
    images: Mosaics, labels: LabelRasters | None, windows: Sequence[PixelWindow], *, progress: bool = False
) -> Sample:
    """Read the windows; what cannot be read counts as not measured and is told in ``failures``.

    Args:
        images: Mosaics with ``seasons='separate'``.
        labels: Labels, if there are any.
        windows: On the grid of the images.
        progress: Show a progress bar on stderr.
    """
    looks, channels = images.looks, len(images.bands)
    nothing = np.zeros((looks, 0, channels), dtype=np.float32)
    sample = Sample(
        images.grid,
        images.dates,
        images.bands,
        nothing,
        np.zeros((looks, 0), dtype=bool),
        np.zeros(0, dtype=np.uint8),
        np.zeros(looks, dtype=np.int64),
        np.zeros(LEGEND.num_classes, dtype=np.int64),
    )
    sample.size = max((w.height for w in windows), default=MOST_PIXELS)
    bar = tqdm(windows, desc='sample', unit='window', disable=None if progress else True, leave=False)
    thinned = [_add(sample, images, labels, window) for window in bar]
    if thinned:
        pixels, valid, codes = zip(*thinned, strict=True)
        sample.pixels, sample.valid = np.concatenate(pixels, axis=1), np.concatenate(valid, axis=1)
        sample.codes = np.concatenate(codes)
    return sample


def _add(
    sample: Sample, images: Mosaics, labels: LabelRasters | None, window: PixelWindow
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint8]]:
    """Count one window, and return its thinned pixels, their validity and their codes."""
    grid = images.grid.subgrid(window)
    raw, valid = _read_looks(sample, images, grid)
    found = _read_labels(sample, labels, grid) if labels is not None and valid.any() else None
    codes = np.zeros(valid.shape[1:], dtype=np.uint8) if found is None else found.codes
    counted = np.where(valid.any(0), codes, NODATA)
    sample.read += codes.size
    sample.measured += valid.sum((1, 2))
    sample.cells.append(count_codes(counted, _CELL).reshape(-1, LEGEND.num_classes))
    sample.counts += sample.cells[-1].sum(0, dtype=np.int64)
    if found is not None:
        sample.unknown += found.unknown
        sample.purity += float(found.purity[counted != NODATA].sum())
        _correlate(sample, found, raw, valid)
    rows, cols = slice(_THIN // 2, None, _THIN), slice(_THIN // 2, None, _THIN)
    pixels = np.moveaxis(raw[:, :, rows, cols], 1, -1).reshape(len(raw), -1, raw.shape[1])
    return pixels, valid[:, rows, cols].reshape(len(raw), -1), codes[rows, cols].ravel()


def _read_looks(sample: Sample, images: Mosaics, grid: PixelGrid) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Digital numbers ``(looks, C, H, W)`` and validity ``(looks, H, W)``; nothing measured where a read fails."""
    raw = np.zeros((images.looks, len(images.bands), grid.height, grid.width), dtype=np.float32)
    valid = np.zeros((images.looks, grid.height, grid.width), dtype=bool)
    for look, date in enumerate(images.dates):
        try:
            raw[look], valid[look] = images.read(grid, look)
        except LandcoverError as e:
            sample.failures.setdefault(date, []).append(str(e))
    return raw, valid


def _read_labels(sample: Sample, labels: LabelRasters, grid: PixelGrid) -> Labels | None:
    try:
        return labels.read(grid)
    except LandcoverError as e:
        sample.failures.setdefault('labels', []).append(str(e))
    return None


def _correlate(sample: Sample, labels: Labels, raw: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
    """Keep the correlation of label and image edges of a window that has enough of them."""
    edges = label_edges(labels.codes, labels.purity)
    if min(edges.shape) < 0.6 * sample.size or not is_telling(edges):
        return
    looks = [image_edges(image, v) for image, v in zip(raw, valid, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # pixels that no look measured stay NaN
        image = np.nanmean(np.stack(looks), axis=0, dtype=np.float32)
    if np.isfinite(image).mean() > 0.3:
        sample.correlations.append(correlation(edges, image, min(RADIUS, sample.size // 4)))


def check_reading(sample: Sample, windows: int) -> Iterator[Finding]:
    """Reads that failed, although the files look whole."""
    for what, sentences in sample.failures.items():
        first = told_by('reading', LandcoverError(sentences[0]))
        yield Finding(
            'reading',
            'error',
            f'{what}: {len(sentences)} of {windows} windows cannot be read: {first.sentence}',
            first.way_out or 'fetch the file again',
            {'failures': sentences},
        )
