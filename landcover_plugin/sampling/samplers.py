"""Where patches lie: random ones for training, an exact cover for evaluation."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
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
from .ordering import local_order
from .polygons import cells_within

#: Code of water and sea, whose endless patches teach nothing.
WATER = LEGEND.code('watercourses and water bodies')


class BalancedPatchSampler(SpatialSampler):
    """Random patches that lie wholly in a region, drawn so that rare classes are seen more often.

    A cell is drawn first, with a weight from the classes it holds, then a place of the patch around it; a patch
    that would leave the region is moved inward. So each patch shows something worth seeing, and the outermost
    pixels of a straight border are seen about half as often as the middle. Looks are drawn as often as they
    measured ground worth seeing.

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
        neighbourhood: int | None = 1024,
        spread: int = 4,
    ) -> None:
        """Find where patches may lie.

        Args:
            dataset: Dataset to sample from.
            inventory: What its cells hold.
            patch_sizes: Edge of patches in pixels, or several from which one is drawn for each group.
            region: Shape ``(rows, cols)`` of cells; patches stay inside (default: everywhere).
            roi: Polygon in CRS units; patches stay inside, among the cells that lie wholly in it.
            looks: Time slices of the inventory's looks, one of which is drawn for each patch and given as third slice
                (default: patches without time, which other samplers may add by ``@``).
            length: Patches in an epoch (default: the area of the region over that of a patch, times the looks).
            seed: Of the draw.
            balance: 0 draws each labelled pixel alike, 1 each class alike; between, weights are
                the frequency of the class to the power of ``-balance``.
            min_labelled: Least share of labelled pixels in a patch.
            min_valid: Least share of pixels that the look measured.
            max_water: Largest share of water among the labelled pixels.
            group: Consecutive patches of one size: the batch size times the number of devices.
            neighbourhood: Edge of a neighbourhood in pixels; patches of one follow each other every ``spread`` groups,
                so that blocks are decoded for several of them. None leaves them in the order of the draw. The patches
                of an epoch are the same either way.
            spread: See ``neighbourhood``.

        Raises:
            LandcoverError: If a parameter is out of range or no patch fits.
        """
        super().__init__(dataset, roi=roi)
        self.sizes = [patch_sizes] if isinstance(patch_sizes, int) else list(patch_sizes)
        shares = {'balance': balance, 'min_labelled': min_labelled, 'min_valid': min_valid, 'max_water': max_water}
        numbers = {'length': length, 'group': group, 'neighbourhood': neighbourhood, 'spread': spread}
        _check(shares, {'patch_sizes': min(self.sizes, default=0), **numbers})
        self.neighbourhood, self.spread = neighbourhood, spread
        self.inventory, self.seed, self.group, self.epoch = inventory, seed, group, 0
        self._passed = (0, 0)
        self.looks: list[slice | None] = [None] if looks is None else list(looks)
        inside = np.ones(inventory.shape, dtype=bool) if region is None else region
        if roi is not None:
            inside = inside & cells_within(inventory, roi)
        limits = (min_labelled, min_valid, max_water)
        valid = self._valid()
        fits = [self._fitting(inside, size) for size in self.sizes]
        self._places = [
            [f & self._worthwhile(s, v, limits) for v in valid] for f, s in zip(fits, self.sizes, strict=True)
        ]
        for size, places in zip(self.sizes, self._places, strict=True):
            if not np.any(places):
                raise LandcoverError(
                    f'every patch of {size} px in the training region is unlabelled, unmeasured or only water; relax '
                    f'min_labelled ({min_labelled}), min_valid ({min_valid}) or max_water ({max_water})'
                )
        self._draws = [self._cumulate(p, s, valid, balance) for p, s in zip(self._places, self.sizes, strict=True)]
        area = int(inventory.pixels[inside].sum())
        self._length = length or max(area // min(self.sizes) ** 2, 1) * len(self.looks)

    def _valid(self) -> list[NDArray[np.uint32]]:
        """Measured pixels of the cells for each look; without looks, those of the best one."""
        valid = self.inventory.valid
        if self.looks == [None]:
            return [valid.max(0)]
        if len(self.looks) != len(valid):
            raise LandcoverError(
                f'looks must be the {len(valid)} looks that the inventory counted, in their order, got '
                f'{len(self.looks)}: pass those of the dataset that it was taken from'
            )
        return list(valid)

    def _fitting(self, inside: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
        """Upper left cells at which a patch lies in the region.

        Where the raster cuts its last row or column of cells, a patch that starts at the last place ends at
        the edge of the raster (see :meth:`_place`), so it begins inside the cell before and needs that one too.
        """
        grid, cell = self.inventory.grid, self.inventory.cell
        if size % cell:
            raise LandcoverError(
                f'patch size {size} px must be a multiple of the cell of {cell} px; take the inventory with '
                'cell_size(patch_sizes)'
            )
        fits = square_sums(inside, size // cell) == (size // cell) ** 2
        for axis, side in enumerate((grid.height, grid.width)):
            if side % cell and fits.size:
                along = np.moveaxis(fits, axis, 0)
                along[-1] &= along[-2] if len(along) > 1 else False
        if not fits.any():
            raise LandcoverError(
                f'no patch of {size} px fits into the training region: choose a smaller patch_size or larger blocks'
            )
        return fits

    def _worthwhile(
        self, size: int, valid: NDArray[np.uint32], limits: tuple[float, float, float]
    ) -> NDArray[np.bool_]:
        """Upper left cells at which a patch holds enough to learn from in a look."""
        min_labelled, min_valid, max_water = limits
        labels = self.inventory.labelled, self.inventory.counts[..., WATER]
        labelled, water = (square_sums(np.minimum(v, valid), size // self.inventory.cell) for v in labels)
        measured = square_sums(valid, size // self.inventory.cell)
        enough = (labelled >= max(min_labelled * size**2, 1)) & (measured >= min_valid * size**2)
        return enough & (water <= max_water * labelled)

    def _cumulate(
        self, places: Sequence[NDArray[np.bool_]], size: int, valid: Sequence[NDArray[np.uint32]], balance: float
    ) -> list[NDArray[np.float64]]:
        """For each look, the cumulated weights of the cells that it measured and that some patch can show."""
        inventory, n = self.inventory, size // self.inventory.cell
        shown = [covered_by(p, n, inventory.shape) & (v > 0) for p, v in zip(places, valid, strict=True)]
        totals = np.sum([inventory.class_counts(s) for s in shown], axis=0).astype(np.float64)
        totals[NODATA] = 0
        of_class = np.zeros_like(totals)
        of_class[totals > 0] = totals[totals > 0] ** -balance
        weights = inventory.counts @ of_class
        return [np.cumsum(weights * s) for s in shown]

    def set_epoch(self, epoch: int) -> None:
        """Choose the draw of an epoch; Lightning calls this."""
        self.epoch = epoch

    def pass_over(self, epoch: int, patches: int) -> None:
        """Leave out the first patches of an epoch, on which an interrupted training was trained already."""
        self._passed = (epoch, patches)

    @property
    def passed(self) -> int:
        """Patches that are left out at the beginning of this epoch."""
        epoch, patches = self._passed
        return patches if epoch == self.epoch else 0

    def windows(self) -> Iterator[tuple[PixelWindow, slice | None]]:
        """Windows of the epoch with their looks."""
        rng = np.random.default_rng([self.seed, self.epoch])
        which = np.repeat(rng.integers(len(self.sizes), size=-(-self._length // self.group)), self.group)
        which = which[: self._length]
        of_look = [np.cumsum([d[-1] for d in draws]) for draws in self._draws]
        drawn = np.empty((len(which), 3), dtype=np.int64)  # look, row, column
        for i, s in enumerate(which):
            look = _pick(rng, of_look[s])
            cell = divmod(_pick(rng, self._draws[s][look]), self.inventory.shape[1])
            drawn[i] = look, *self._place(rng, cell, self.sizes[s], self._places[s][look])
        for size, look, row, col in np.column_stack([which, drawn[self._order(drawn, which, rng)]]).tolist():
            yield PixelWindow(row, col, self.sizes[size], self.sizes[size]), self.looks[look]

    def _order(self, drawn: NDArray[np.int64], which: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Positions of the drawn patches in the order to give them in; sizes stay where they are."""
        order = np.arange(len(drawn))
        if self.neighbourhood is not None:
            streams = self.spread * self.group
            for size in range(len(self.sizes)):
                at = np.flatnonzero(which == size)
                order[at] = at[local_order(drawn[at], neighbourhood=self.neighbourhood, streams=streams, rng=rng)]
        return order

    def _place(
        self, rng: np.random.Generator, drawn: tuple[int, int], size: int, allowed: NDArray[np.bool_]
    ) -> tuple[int, int]:
        """Row and column of a patch around a cell: anywhere, as far as the places that it touches are allowed."""
        grid, cell = self.inventory.grid, self.inventory.cell
        last = grid.height - size, grid.width - size
        wanted = [
            min(max(c * cell - int(o), 0), e)
            for c, o, e in zip(drawn, rng.integers(size - cell + 1, size=2), last, strict=True)
        ]
        (top, down), (left, right) = (divmod(w, cell) for w in wanted)
        row, col = (top, left) if allowed[top, left] else _nearest_allowed(allowed, drawn, size // cell, (top, left))
        if down and not (row == top and allowed[row + 1, col]):
            down = 0
        if right and not (col == left and allowed[row : row + 1 + (down > 0), col + 1].all()):
            right = 0
        return min(row * cell + down, last[0]), min(col * cell + right, last[1])

    def __iter__(self) -> Iterator[Any]:
        """Slices ``[xmin:xmax, ymin:ymax]`` of the epoch's patches, with the time slice where looks were given."""
        for window, look in itertools.islice(self.windows(), self.passed, None):
            yield _slices(self.inventory.grid, window, look)


def _check(shares: Mapping[str, float], numbers: Mapping[str, int | None]) -> None:
    """Refuse shares outside [0, 1] and numbers below 1."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise LandcoverError(f'{name} must be in [0, 1], got {share}')
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise LandcoverError(f'{name} must be at least 1, got {number}')


def _pick(rng: np.random.Generator, cumulated: NDArray[np.float64]) -> int:
    """An index, drawn by cumulated weights."""
    below = min(rng.random() * cumulated[-1], math.nextafter(cumulated[-1], 0))  # the product may round up
    return int(np.searchsorted(cumulated, below, side='right'))


def _nearest_allowed(
    allowed: NDArray[np.bool_], drawn: tuple[int, int], n: int, wanted: tuple[int, int]
) -> tuple[int, int]:
    """The allowed place nearest to the wanted one among those whose ``n`` x ``n`` cells hold the drawn cell."""
    top, left = max(drawn[0] - n + 1, 0), max(drawn[1] - n + 1, 0)
    rows, cols = np.nonzero(allowed[top : drawn[0] + 1, left : drawn[1] + 1])
    best = np.argmin((rows + (top - wanted[0])) ** 2 + (cols + (left - wanted[1])) ** 2)
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
        for i, element in enumerate(self.whole, start=getattr(self.whole, 'passed', 0)):
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
