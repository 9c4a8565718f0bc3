"""What each piece of ground holds: class counts and validity by cell, counted once."""

import hashlib
import json
import logging
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..datasets.icgc import ICGCLandCover, sample_values
from ..datasets.sentinel2 import CataloniaSentinel2
from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA
from ..rasters.outputs import write_whole

log = logging.getLogger(__name__)

#: Edge of the windows in which rasters are scanned, in pixels of the image grid.
SCAN_SIZE = 1024


@dataclass(frozen=True)
class Inventory:
    """Pixel counts of each cell of ground. Cells are squares on the image grid; the last of a row may be cut.

    Args:
        grid: Image grid.
        cell: Edge of a cell in pixels.
        counts: Shape ``(rows, cols, num_classes)``: pixels of each code that at least one look measured.
        valid: Shape ``(looks, rows, cols)``: pixels that each look (season) measured.
        unknown: Label pixels with values outside the legend.
    """

    grid: PixelGrid
    cell: int
    counts: NDArray[np.uint32]
    valid: NDArray[np.uint32]
    unknown: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.counts.shape[0], self.counts.shape[1]

    @property
    def labelled(self) -> NDArray[np.uint32]:
        """Shape ``(rows, cols)``: pixels with a class."""
        return self.counts[..., NODATA + 1 :].sum(-1, dtype=np.uint32)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Shape ``(rows, cols)``: pixels of each cell, fewer where the grid cuts it."""
        sides = (np.minimum(self.cell, n - np.arange(0, n, self.cell)) for n in (self.grid.height, self.grid.width))
        return np.outer(*sides)

    def class_counts(self, region: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Pixels of each code, shape ``(num_classes,)``, over all cells or those of a region."""
        counts = self.counts if region is None else self.counts[region]
        return counts.reshape(-1, LEGEND.num_classes).sum(0, dtype=np.int64)


def cell_size(patch_sizes: Sequence[int]) -> int:
    """Edge of a cell for patches of these sizes: a divisor of all, near an eighth of the smallest.

    Examples:
        >>> cell_size([256]), cell_size([64]), cell_size([96, 128]), cell_size([50])
        (32, 8, 8, 5)

    Raises:
        LandcoverError: If the sizes have no common divisor of at least 4.
    """
    common = int(np.gcd.reduce(list(patch_sizes)))
    target = max(min(patch_sizes) // 8, 4)
    cell = max(d for d in range(1, min(target, common) + 1) if common % d == 0)
    if cell < 4:
        raise LandcoverError(
            f'patch sizes {list(patch_sizes)} px share no divisor of at least 4, so the ground would be counted in '
            'cells too small for a country: choose multiples of 8'
        )
    return cell


def take_inventory(images: CataloniaSentinel2, labels: ICGCLandCover, cell: int, *, progress: bool = True) -> Inventory:
    """Scan the rasters once, window by window, in bounded memory.

    Args:
        images: Mosaics; their grid is the reference.
        labels: Labels, already on the grid of the images (``labels.res = images.res``).
        cell: Edge of a cell in pixels.
        progress: Show a progress bar on stderr.

    Raises:
        LandcoverError: If labels and images do not overlap.
    """
    grid, looks = images.grid, images.looks
    rows, cols = -(-grid.height // cell), -(-grid.width // cell)
    counts = np.zeros((rows, cols, LEGEND.num_classes), dtype=np.uint32)
    valid = np.zeros((len(looks), rows, cols), dtype=np.uint32)
    before = labels.unknown_count
    windows = list(_scan_windows(grid, max(SCAN_SIZE // cell, 1) * cell))
    for window in tqdm(windows, desc='inventory', unit='window', disable=None if progress else True, leave=False):
        part = grid.subgrid(window)
        codes = labels.read_codes(part)
        seen = [images.read(part, look)[1] for look in looks]
        codes = np.where(np.logical_or.reduce(seen), codes, NODATA)
        to_cells = PixelWindow(
            window.row // cell, window.col // cell, -(-window.height // cell), -(-window.width // cell)
        )
        where = to_cells.slices_in(PixelWindow(0, 0, rows, cols))
        counts[where] = count_codes(codes, cell)
        for i, look_valid in enumerate(seen):
            valid[(i, *where)] = count_codes(look_valid.astype(np.uint8), cell)[..., 1]
    unknown = labels.unknown_count - before
    if not counts[..., NODATA + 1 :].any():
        raise LandcoverError(_nothing_labelled(images, labels, unknown))
    return Inventory(grid, cell, counts, valid, unknown)


def _nothing_labelled(images: CataloniaSentinel2, labels: ICGCLandCover, unknown: int) -> str:
    if unknown:
        return f'nothing is labelled; {unknown_values_sentence(labels, unknown)}'
    return (
        'no labelled pixel lies on a measured image pixel: do the label and image rasters show the same ground? '
        f'Images cover {_place(images.grid)}, labels {_place(labels.grid)}'
    )


def unknown_values_sentence(labels: ICGCLandCover, count: int) -> str:
    """What to say of label pixels whose values are not in the legend; the values are those of a sample."""
    known = set(LEGEND.codes) | {NODATA}
    values = sorted({int(v) for f in labels.files for v in sample_values(f)} - known)
    named = f' ({", ".join(map(str, values[:5]))})' if values else ''
    return (
        f'{", ".join(labels.files)}: {count:,} label pixels hold values outside the legend{named}; correct the raster, '
        'name its legend with --data.source_legend, or treat them as no data with --data.unknown_labels ignore'
    )


def count_codes(codes: NDArray[np.uint8], cell: int) -> NDArray[np.uint32]:
    """Pixels of each code in each cell.

    Args:
        codes: Shape ``(height, width)``; the last cells of rows and columns may be cut.
        cell: Edge of a cell in pixels.

    Returns:
        Shape ``(rows, cols, num_classes)``.

    Examples:
        >>> count_codes(np.array([[1, 1, 2], [0, 1, 2]], dtype=np.uint8), 2)[0, :, :3].tolist()
        [[1, 3, 0], [0, 0, 2]]
    """
    height, width = codes.shape
    rows, cols = -(-height // cell), -(-width // cell)
    of_row = (np.arange(height) // cell * cols).astype(np.int64)
    of_cell = of_row[:, None] + np.arange(width) // cell
    flat = np.bincount((of_cell * LEGEND.num_classes + codes).ravel(), minlength=rows * cols * LEGEND.num_classes)
    return flat.reshape(rows, cols, LEGEND.num_classes).astype(np.uint32)


def _scan_windows(grid: PixelGrid, size: int) -> Iterator[PixelWindow]:
    for row in range(0, grid.height, size):
        for col in range(0, grid.width, size):
            yield PixelWindow(row, col, size, size).intersection(grid.full)


def _place(grid: PixelGrid) -> str:
    return '[' + ', '.join(f'{v:.0f}' for v in grid.bounds()) + f'] in {grid.crs}'


def cached_inventory(
    images: CataloniaSentinel2, labels: ICGCLandCover, cell: int, folder: Path, *, progress: bool = True
) -> Inventory:
    """The inventory from the cache, or taken now and kept there.

    The cache knows the sources by path, size and time of change, and the parameters that matter; a changed
    source is scanned anew. A folder that cannot be written costs a message, not the run.
    """
    path = folder / f'inventory-{fingerprint(images, labels, cell)}.npz'
    try:
        with np.load(path, allow_pickle=False) as saved:
            return Inventory(images.grid, cell, saved['counts'], saved['valid'], int(saved['unknown']))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        log.warning('%s is damaged (%s); the rasters are scanned again', path, e)
    taken = take_inventory(images, labels, cell, progress=progress)
    try:
        write_whole(
            path, lambda p: np.savez_compressed(p, counts=taken.counts, valid=taken.valid, unknown=taken.unknown)
        )
    except OSError as e:
        log.warning('the inventory could not be kept in %s (%s); the next run scans the rasters again', folder, e)
    return taken


def fingerprint(images: CataloniaSentinel2, labels: ICGCLandCover, *parameters: object) -> str:
    """Short hash of the source files (path, size, time of change) and of what decides how they are read."""
    facts = [
        [(str(f), *_stat(f)) for f in (*images.files, *labels.files)],
        [images.seasons, list(images.bands), list(images.all_bands), images.nodata_value],
        [labels.aggregation, labels.source_legend, list(map(float, labels.res))],
        list(map(str, parameters)),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _stat(path: str) -> tuple[int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
