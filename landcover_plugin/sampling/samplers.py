"""Where patches lie: random ones for training, an exact cover for evaluation."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon
from torch.utils.data.distributed import DistributedSampler
from torchgeo.datasets import GeoDataset
from torchgeo.samplers import SpatialSampler

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA
from .cells import covered_by, square_sums
from .inventory import Inventory

#: Code of water and sea, whose endless patches teach nothing.
WATER = LEGEND.code('watercourses and water bodies')


class BalancedPatchSampler(SpatialSampler):
    """Random patches that lie wholly in a region, drawn so that rare classes are seen more often.

    A labelled pixel is drawn first (each cell with a weight from the classes it holds), then a place of the patch
    around it; a patch that would leave the region is moved inward. So each patch shows something worth
    seeing, and ground at the border of the region is seen about as often as its middle.

    The draw depends on ``seed`` and the epoch alone: not on the number of workers, devices or calls. Patches
    of one batch have one size.

    Examples:
        >>> sampler = BalancedPatchSampler(images & labels, inventory=inventory, patch_sizes=256)  # doctest: +SKIP
    """

    strategy: Literal['random', 'sequential'] = 'random'

    def __init__(
        self,
        dataset: GeoDataset,
        *,
        inventory: Inventory,
        patch_sizes: int | Sequence[int],
        region: NDArray[np.bool_] | None = None,
        roi: Polygon | None = None,
        looks: Sequence[slice] | None = None,
        length: int | None = None,
        seed: int = 0,
        balance: float = 0.5,
        min_labelled: float = 0.05,
        min_valid: float = 0.05,
        max_water: float = 0.99,
        group: int = 1,
    ) -> None:
        """Find where patches may lie.

        Args:
            dataset: Dataset to sample from.
            inventory: What its cells hold.
            patch_sizes: Edge of patches in pixels, or several from which one is drawn for each group.
            region: Shape ``(rows, cols)`` of cells; patches stay inside (default: everywhere).
            roi: Polygon in CRS units; patches stay inside its bounds.
            looks: Time slices, one of which is drawn for each patch and given as third slice
                (default: patches without time, which other samplers may add by ``@``).
            length: Patches in an epoch (default: the area of the region over that of a patch, times the looks).
            seed: Of the draw.
            balance: 0 draws each labelled pixel alike, 1 each class alike; between, weights are
                the frequency of the class to the power of ``-balance``.
            min_labelled: Least share of labelled pixels in a patch.
            min_valid: Least share of pixels that the look measured.
            max_water: Largest share of water among the labelled pixels.
            group: Consecutive patches of one size: the batch size times the number of devices.

        Raises:
            LandcoverError: If a parameter is out of range or no patch fits.
        """
        super().__init__(dataset, roi=roi)
        self.sizes = [patch_sizes] if isinstance(patch_sizes, int) else list(patch_sizes)
        shares = {'balance': balance, 'min_labelled': min_labelled, 'min_valid': min_valid, 'max_water': max_water}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise LandcoverError(f'{name} must be in [0, 1], got {share}')
        self.inventory, self.seed, self.group, self.epoch = inventory, seed, group, 0
        self.looks: list[slice | None] = [None] if looks is None else list(looks)
        inside = self._whole_cells(roi) & (np.ones(inventory.shape, dtype=bool) if region is None else region)
        limits = (min_labelled, min_valid, max_water)
        self._places = [
            [self._allowed(inside, size, look, limits) for look in range(len(self.looks))] for size in self.sizes
        ]
        self._draws = [[self._weights(a, s, balance) for a in p] for p, s in zip(self._places, self.sizes, strict=True)]
        area = int(inside.sum()) * inventory.cell**2
        self._length = length or max(area // min(self.sizes) ** 2, 1) * len(self.looks)

    def _whole_cells(self, roi: Polygon | None) -> NDArray[np.bool_]:
        """Cells that the grid (and the roi's bounds) hold uncut."""
        grid, cell = self.inventory.grid, self.inventory.cell
        row0 = col0 = 0
        row1, col1 = grid.height // cell, grid.width // cell
        if roi is not None:
            w = grid.window(roi.bounds)
            row0, col0 = max(row0, -(-w.row // cell)), max(col0, -(-w.col // cell))
            row1, col1 = min(row1, w.row_stop // cell), min(col1, w.col_stop // cell)
        whole = np.zeros(self.inventory.shape, dtype=bool)
        whole[row0:row1, col0:col1] = True
        return whole

    def _allowed(
        self, inside: NDArray[np.bool_], size: int, look: int, limits: tuple[float, float, float]
    ) -> NDArray[np.bool_]:
        """Upper left cells at which a patch lies in the region and holds enough to learn from."""
        inventory, n = self.inventory, size // self.inventory.cell
        if size % inventory.cell:
            raise LandcoverError(f'patch size {size} px must be a multiple of the cell of {inventory.cell} px')
        fits = square_sums(inside, n) == n * n
        if not fits.any():
            raise LandcoverError(
                f'no patch of {size} px fits into the training region: choose a smaller patch_size or larger blocks'
            )
        min_labelled, min_valid, max_water = limits
        labelled = square_sums(inventory.labelled, n)
        water = square_sums(inventory.counts[..., WATER], n)
        valid = square_sums(inventory.valid[look % len(inventory.valid)], n)
        enough = (labelled >= max(min_labelled * size**2, 1)) & (valid >= max(min_valid * size**2, 1))
        allowed = fits & enough & (water <= max_water * labelled)
        if not allowed.any():
            raise LandcoverError(
                f'every patch of {size} px in the training region is unlabelled, unmeasured or only water; relax '
                f'min_labelled ({min_labelled}), min_valid ({min_valid}) or max_water ({max_water})'
            )
        return allowed

    def _weights(self, allowed: NDArray[np.bool_], size: int, balance: float) -> NDArray[np.float64]:
        """Cumulated weights of the cells that some patch can show."""
        n = size // self.inventory.cell
        counts = self.inventory.counts * covered_by(allowed, n, self.inventory.shape)[..., None]
        totals = counts.sum((0, 1), dtype=np.float64)
        totals[NODATA] = 0
        of_class = np.zeros_like(totals)
        of_class[totals > 0] = totals[totals > 0] ** -balance
        return np.cumsum(counts.reshape(-1, len(totals)) @ of_class)

    def set_epoch(self, epoch: int) -> None:
        """Choose the draw of an epoch; Lightning calls this."""
        self.epoch = epoch

    def windows(self) -> Iterator[tuple[PixelWindow, slice | None]]:
        """Windows of the epoch with their looks."""
        rng = np.random.default_rng([self.seed, self.epoch])
        which = np.repeat(rng.integers(len(self.sizes), size=-(-self._length // self.group)), self.group)
        for s in which[: self._length]:
            look = int(rng.integers(len(self.looks)))
            yield self._draw(rng, self.sizes[s], self._places[s][look], self._draws[s][look]), self.looks[look]

    def _draw(
        self, rng: np.random.Generator, size: int, allowed: NDArray[np.bool_], cumulated: NDArray[np.float64]
    ) -> PixelWindow:
        cell, n = self.inventory.cell, size // self.inventory.cell
        drawn = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side='right'))
        row, col = divmod(min(drawn, len(cumulated) - 1), self.inventory.shape[1])
        up, left, down, right = rng.integers((n, n, cell, cell))
        row, col = _nearest_allowed(allowed, row, col, n, (row - int(up), col - int(left)))
        block = allowed[row : row + 2, col : col + 2]
        if block.shape == (2, 2) and block.all():
            shift = int(down), int(right)
        elif block.shape[0] == 2 and block[1, 0]:
            shift = int(down), 0
        elif block.shape[1] == 2 and block[0, 1]:
            shift = 0, int(right)
        else:
            shift = 0, 0
        return PixelWindow(row * cell + shift[0], col * cell + shift[1], size, size)

    def __iter__(self) -> Iterator[Any]:
        """Slices ``[xmin:xmax, ymin:ymax]`` of the epoch's patches, with the time slice where looks were given."""
        for window, look in self.windows():
            yield _slices(self.inventory.grid, window, look)


def _nearest_allowed(
    allowed: NDArray[np.bool_], row: int, col: int, n: int, wanted: tuple[int, int]
) -> tuple[int, int]:
    """The allowed place nearest to the wanted one among those whose ``n`` x ``n`` cells hold the drawn cell."""
    if 0 <= wanted[0] < allowed.shape[0] and 0 <= wanted[1] < allowed.shape[1] and allowed[wanted]:
        return wanted
    top, left = max(row - n + 1, 0), max(col - n + 1, 0)
    rows, cols = np.nonzero(allowed[top : row + 1, left : col + 1])
    best = np.argmin(np.maximum(np.abs(rows + top - wanted[0]), np.abs(cols + left - wanted[1])))
    return int(rows[best]) + top, int(cols[best]) + left


class WindowSampler(SpatialSampler):
    """The given windows in their order, each once for every look at the ground."""

    strategy: Literal['random', 'sequential'] = 'sequential'

    def __init__(
        self,
        dataset: GeoDataset,
        *,
        grid: PixelGrid,
        windows: Sequence[PixelWindow],
        looks: Sequence[slice] | None = None,
    ) -> None:
        """Keep the windows.

        Args:
            dataset: Dataset to sample from.
            grid: Image grid that the windows are counted on.
            windows: Windows of pixels.
            looks: Time slices; each window is given once for each of them, with it as third slice.
        """
        super().__init__(dataset)
        self.grid, self.windows = grid, list(windows)
        self.looks: list[slice | None] = [None] if looks is None else list(looks)
        self._length = len(self.windows) * len(self.looks)

    def __iter__(self) -> Iterator[Any]:
        """Slices of the windows, with the time slice where looks were given."""
        for window in self.windows:
            for look in self.looks:
                yield _slices(self.grid, window, look)


class CoverSampler(WindowSampler):
    """Patches that cover each pixel of a set of windows exactly once and never leave them.

    Each window is cut evenly into pieces of at most the patch size, so pieces at the rim are smaller rather
    than reaching out or overlapping.
    """

    def __init__(
        self,
        dataset: GeoDataset,
        *,
        grid: PixelGrid,
        windows: Sequence[PixelWindow],
        patch_size: int,
        looks: Sequence[slice] | None = None,
    ) -> None:
        """Cut the windows.

        Args:
            dataset: Dataset to sample from.
            grid: Image grid that the windows are counted on.
            windows: Disjoint windows, see :meth:`Split.windows <landcover_plugin.sampling.blocks.Split.windows>`.
            patch_size: Largest edge of a patch in pixels.
            looks: Time slices, as for :class:`WindowSampler`.
        """
        pieces = [piece for window in windows for piece in cut_window(window, patch_size)]
        super().__init__(dataset, grid=grid, windows=pieces, looks=looks)


def cut_window(window: PixelWindow, size: int) -> Iterator[PixelWindow]:
    """An even division of a window into pieces of at most ``size`` x ``size`` pixels."""
    for row, height in _pieces(window.row, window.height, size):
        for col, width in _pieces(window.col, window.width, size):
            yield PixelWindow(row, col, height, width)


def _pieces(start: int, length: int, size: int) -> list[tuple[int, int]]:
    """An even division of a stretch into pieces of at most ``size``: their starts and lengths."""
    count = -(-length // size)
    edges = [start + length * i // count for i in range(count + 1)]
    return [(a, b - a) for a, b in itertools.pairwise(edges)]


def _slices(grid: PixelGrid, window: PixelWindow, look: slice | None) -> Any:
    x, y = grid.slices(window)
    return (x, y) if look is None else (x, y, look)


class RankSampler(DistributedSampler[Any]):
    """Every ``world``-th element of another sampler, starting at this process's rank.

    Lightning leaves a DistributedSampler alone, so this keeps our order and passes the epoch on.

    Args:
        sampler: The whole sequence, equal on all ranks.
        rank: Number of this process.
        world: Number of processes.
        even: Drop the elements beyond a multiple of ``world``, so that all ranks take as many steps (training);
            otherwise all elements are given once (evaluation).
    """

    def __init__(self, sampler: SpatialSampler, *, rank: int, world: int, even: bool) -> None:
        super().__init__(sampler, num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.whole, self.even = sampler, even

    def __iter__(self) -> Iterator[Any]:
        """This rank's elements."""
        total = len(self.whole) // self.num_replicas * self.num_replicas if self.even else len(self.whole)
        for i, element in enumerate(self.whole):
            if i < total and i % self.num_replicas == self.rank:
                yield element

    def __len__(self) -> int:
        """Number of this rank's elements."""
        extra = len(self.whole) % self.num_replicas
        return len(self.whole) // self.num_replicas + (not self.even and self.rank < extra)

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on."""
        if hasattr(self.whole, 'set_epoch'):
            self.whole.set_epoch(epoch)
