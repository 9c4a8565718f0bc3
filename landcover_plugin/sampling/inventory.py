"""What each piece of ground holds: class counts, validity and brightness by cell, counted once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA
from ..rasters.labels import Labels
from ..rasters.landcover import LabelRasters, sample_values
from ..rasters.mosaics import Mosaics
from ..rasters.streaming import in_order
from .windows import image_windows


@dataclass(frozen=True)
class Inventory:
    """Pixel counts of each cell of ground. Cells are squares on the image grid; the last of a row may be cut.

    Args:
        grid: Image grid.
        cell: Edge of a cell in pixels.
        counts: Shape ``(rows, cols, num_classes)``: pixels of each code that at least one look measured.
        valid: Shape ``(looks, rows, cols)``: pixels that each look (season) measured.
        unknown: Label pixels with values outside the legend.
        purity: Shape ``(rows, cols)``: mean purity of the labelled pixels in percent.
        mean: Shape ``(looks, C, rows, cols)``: mean digital number of the measured pixels.
        std: Shape ``(looks, C, rows, cols)``: their standard deviation.
    """

    grid: PixelGrid
    cell: int
    counts: NDArray[np.uint32]
    valid: NDArray[np.uint32]
    unknown: int = 0
    purity: NDArray[np.float32] | None = None
    mean: NDArray[np.float32] | None = None
    std: NDArray[np.float32] | None = None

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

    def band_statistics(self, region: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each channel over all measured pixels of a region, looks pooled.

        Args:
            region: Shape ``(rows, cols)`` of cells.

        Returns:
            Two arrays of shape ``(C,)``, in digital numbers.

        Raises:
            LandcoverError: If no pixel there was measured.
        """
        if self.mean is None or self.std is None:
            raise LandcoverError('this inventory was taken without band statistics; take it again')
        pixels = self.valid[:, region].astype(np.float64)
        if not pixels.sum():
            raise LandcoverError('no pixel of the training ground was measured; choose other blocks or check nodata')
        weights = (pixels / pixels.sum())[:, None]
        means, stds = (v[:, :, region].astype(np.float64) for v in (self.mean, self.std))
        mean = (weights * means).sum((0, 2))
        variance = (weights * (stds**2 + (means - mean[:, None]) ** 2)).sum((0, 2))
        return mean, np.sqrt(variance)

    def coarsened(self, factor: int) -> 'Inventory':
        """The same ground in cells ``factor`` times larger."""
        if factor == 1:
            return self
        shape = tuple(-(-n // factor) for n in self.shape)
        pad = [(0, n * factor - m) for n, m in zip(shape, self.shape, strict=True)]

        def blocks(values: NDArray[Any]) -> NDArray[Any]:
            """Values ``(..., rows, cols)`` as ``(..., rows, cols, parts)`` of the larger cells."""
            padded = np.pad(values, [(0, 0)] * (values.ndim - 2) + pad)
            cut = padded.reshape(*values.shape[:-2], shape[0], factor, shape[1], factor)
            return np.moveaxis(cut, -3, -2).reshape(*values.shape[:-2], *shape, factor**2)

        def mean_of(values: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
            total = weights.sum(-1)
            return np.divide((values * weights).sum(-1), total, out=np.zeros(values.shape[:-1]), where=total > 0)

        counts = blocks(np.moveaxis(self.counts, -1, 0)).sum(-1, dtype=np.uint32)
        parts = blocks(self.valid)
        purity = mean = std = None
        if self.purity is not None:
            purity = mean_of(blocks(self.purity), blocks(self.labelled)).astype(np.float32)
        if self.mean is not None and self.std is not None:
            means, stds, weights = blocks(self.mean), blocks(self.std), parts[:, None].astype(np.float64)
            mean = mean_of(means.astype(np.float64), weights)
            std = np.sqrt(mean_of(stds.astype(np.float64) ** 2 + (means - mean[..., None]) ** 2, weights))
            mean, std = mean.astype(np.float32), std.astype(np.float32)
        valid = parts.sum(-1, dtype=np.uint32)
        return Inventory(
            self.grid, self.cell * factor, np.moveaxis(counts, 0, -1), valid, self.unknown, purity, mean, std
        )


class Scan(NamedTuple):
    """What was read of one window: labels, and digital numbers and validity of each look."""

    window: PixelWindow
    labels: Labels
    images: list[NDArray[Any]]
    valid: list[NDArray[np.bool_]]


class InventoryBuilder:
    """Counts windows into cells; windows begin at the corner of a cell and come in any order.

    Args:
        grid: Image grid.
        cell: Edge of a cell in pixels.
        looks: Number of looks.
        channels: Channels of each.
    """

    def __init__(self, grid: PixelGrid, cell: int, looks: int, channels: int) -> None:
        rows, cols = -(-grid.height // cell), -(-grid.width // cell)
        self.grid, self.cell, self.unknown = grid, cell, 0
        self.counts = np.zeros((rows, cols, LEGEND.num_classes), dtype=np.uint32)
        self.valid = np.zeros((looks, rows, cols), dtype=np.uint32)
        self.purity = np.zeros((rows, cols), dtype=np.float32)
        self.mean, self.std = (np.zeros((looks, channels, rows, cols), dtype=np.float32) for _ in range(2))

    def add(self, scan: Scan) -> None:
        """Count a window."""
        cell, window = self.cell, scan.window
        to_cells = PixelWindow(
            window.row // cell, window.col // cell, -(-window.height // cell), -(-window.width // cell)
        )
        where = to_cells.slices_in(PixelWindow(0, 0, *self.counts.shape[:2]))
        codes = np.where(np.logical_or.reduce(scan.valid), scan.labels.codes, NODATA)
        self.counts[where] = count_codes(codes, cell)
        labelled = self.counts[where][..., NODATA + 1 :].sum(-1)
        total = cell_sums(np.where(codes == NODATA, 0, scan.labels.purity), cell)
        self.purity[where] = np.divide(total, labelled, out=np.zeros(total.shape), where=labelled > 0)
        for look, (image, valid) in enumerate(zip(scan.images, scan.valid, strict=True)):
            self.valid[(look, *where)] = cell_sums(valid, cell)
            mean, std = self.mean[(look, slice(None), *where)], self.std[(look, slice(None), *where)]
            _cell_moments(image, valid, cell, mean, std)
        self.unknown += scan.labels.unknown

    def finish(self) -> Inventory:
        """The inventory of what was counted."""
        return Inventory(self.grid, self.cell, self.counts, self.valid, self.unknown, self.purity, self.mean, self.std)


@numba.njit(cache=True, nogil=True)
def _cell_moments(image, valid, cell, mean, std):  # type: ignore[no-untyped-def]  # pragma: no cover
    bands, height, width = image.shape
    for band in range(bands):
        for row in range(mean.shape[1]):
            for col in range(mean.shape[2]):
                count, total, squares = 0, 0.0, 0.0
                for r in range(row * cell, min((row + 1) * cell, height)):
                    for c in range(col * cell, min((col + 1) * cell, width)):
                        if valid[r, c]:
                            value = np.float64(image[band, r, c])
                            count += 1
                            total += value
                            squares += value * value
                if count:
                    mean[band, row, col] = total / count
                    std[band, row, col] = np.sqrt(max(squares / count - (total / count) ** 2, 0.0))


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


def take_inventory(images: Mosaics, labels: LabelRasters, cell: int, *, progress: bool = True) -> Inventory:
    """Scan the rasters once, window by window, in bounded memory and on all cores.

    Args:
        images: Mosaics; their grid is the reference.
        labels: Labels.
        cell: Edge of a cell in pixels.
        progress: Show a progress bar on stderr.

    Raises:
        LandcoverError: If labels and images do not overlap.
    """
    grid = images.grid
    builder = InventoryBuilder(grid, cell, images.looks, len(images.channels))

    def read(window: PixelWindow) -> Scan:
        part = grid.subgrid(window)
        seen = [images.read(part, look) for look in range(images.looks)]
        return Scan(window, labels.read(part), [s[0] for s in seen], [s[1] for s in seen])

    for scan in in_order(read, image_windows(images, cell), desc='inventory', progress=progress):
        builder.add(scan)
    taken = builder.finish()
    check_labelled(taken, images, labels)
    return taken


def check_labelled(inventory: Inventory, images: Mosaics, labels: LabelRasters) -> None:
    """Check that some measured pixel has a class.

    Raises:
        LandcoverError: If labels and images do not overlap, or every label is unknown.
    """
    if inventory.counts[..., NODATA + 1 :].any():
        return
    if inventory.unknown:
        raise LandcoverError(f'nothing is labelled; {unknown_values_sentence(labels, inventory.unknown)}')
    raise LandcoverError(
        'no labelled pixel lies on a measured image pixel: do the label and image rasters show the same ground? '
        f'Images cover {_place(images.grid)}, labels {_place(labels.grid)}'
    )


def unknown_values_sentence(labels: LabelRasters, count: int) -> str:
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
    rows, cols = (-(-n // cell) for n in codes.shape)
    out = np.zeros((rows, cols, LEGEND.num_classes), dtype=np.uint32)
    _count_codes(codes, cell, out)
    return out


@numba.njit(cache=True, nogil=True)
def _count_codes(codes, cell, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for row in range(codes.shape[0]):
        for col in range(codes.shape[1]):
            out[row // cell, col // cell, codes[row, col]] += 1


def cell_sums(values: NDArray[Any], cell: int) -> NDArray[np.int64]:
    """Sum of each cell, shape ``(rows, cols)``; the last cells of rows and columns may be cut.

    Examples:
        >>> cell_sums(np.array([[1, 1, 2], [0, 1, 2]]), 2).tolist()
        [[3, 4]]
    """
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], cell), axis=0, dtype=np.int64)
    return np.add.reduceat(rows, np.arange(0, values.shape[1], cell), axis=1)


def _place(grid: PixelGrid) -> str:
    return '[' + ', '.join(f'{v:.0f}' for v in grid.bounds()) + f'] in {grid.crs}'
