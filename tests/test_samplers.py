"""Patches stay in their region to the pixel, reach all of it, and follow seed and epoch alone."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from numpy.typing import NDArray
from test_sampling import inventory_of, patchwork
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler
from torchgeo.datasets import IntersectionDataset
from torchgeo.samplers import RandomTimestampSampler, SequentialTimestampSampler

from landcover_plugin.datasets.icgc import ICGCLandCover
from landcover_plugin.datasets.sentinel2 import CataloniaSentinel2
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.sampling.blocks import block_split
from landcover_plugin.sampling.cells import rectangles
from landcover_plugin.sampling.inventory import Inventory, cell_size, take_inventory
from landcover_plugin.sampling.samplers import (
    WATER,
    BalancedPatchSampler,
    CoverSampler,
    RankSampler,
    WindowSampler,
    cut_window,
)

MONTHS = [slice(pd.Timestamp(f'2018-0{m}-01'), pd.Timestamp(f'2018-0{m}-28')) for m in (4, 8)]


def ground(grid: PixelGrid) -> Any:
    """What a sampler asks of a dataset."""
    times = pd.IntervalIndex.from_arrays([m.start for m in MONTHS], [m.stop for m in MONTHS], closed='both')
    index = gpd.GeoDataFrame(geometry=[shapely.box(*grid.bounds())] * 2, crs=32631, index=times)
    return SimpleNamespace(index=index, res=grid.res)


def sampler_of(inventory: Inventory, patch_sizes: Any, **options: Any) -> BalancedPatchSampler:
    return BalancedPatchSampler(ground(inventory.grid), inventory=inventory, patch_sizes=patch_sizes, **options)


def windows_of(sampler: Any, grid: PixelGrid) -> list[PixelWindow]:
    """The windows of a sampler's slices; slices off the pixel edges fail."""
    found = [grid.nearest_window(s[0], s[1]) for s in sampler]
    for window, s in zip(found, sampler, strict=True):
        np.testing.assert_allclose(grid.bounds(window), (s[0].start, s[1].start, s[0].stop, s[1].stop), atol=1e-6)
    return found


def times_seen(windows: Sequence[PixelWindow], shape: tuple[int, int]) -> NDArray[np.int64]:
    """How many windows show each pixel; windows that leave the array fail."""
    count = np.zeros(shape, int)
    for w in windows:
        assert 0 <= w.row < w.row_stop <= shape[0] and 0 <= w.col < w.col_stop <= shape[1]
        count[w.row : w.row_stop, w.col : w.col_stop] += 1
    return count


def pixels_of(region: NDArray[np.bool_], inventory: Inventory) -> NDArray[np.bool_]:
    grown = region.repeat(inventory.cell, 0).repeat(inventory.cell, 1)
    return grown[: inventory.grid.height, : inventory.grid.width]


def odd_region(shape: tuple[int, int], seed: int, size: int) -> NDArray[np.bool_]:
    """Overlapping squares of cells, two of them at corners of the array, and holes."""
    rng = np.random.default_rng(seed)
    region = np.zeros(shape, bool)
    starts = [(0, 0), (shape[0] - size, shape[1] - size), *rng.integers(0, np.array(shape) - size + 1, (7, 2)).tolist()]
    for r, c in starts:
        region[r : r + size + int(rng.integers(3)), c : c + size + int(rng.integers(3))] = True
    region[tuple(rng.integers(0, shape, (6, 2)).T)] = False
    region[:size, :size] = region[-size:, -size:] = True
    return region


# Training patches: where they lie


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('shape', [(200, 168), (203, 167)])  # the second cuts its last cells
def test_patches_stay_in_an_odd_region_and_show_all_that_they_can(shape: tuple[int, int], seed: int) -> None:
    inventory = inventory_of(patchwork(*shape, seed=seed), 4)
    region = odd_region(inventory.shape, seed, 9 if seed % 2 else 8)
    windows = windows_of(sampler_of(inventory, 32, region=region, length=2000, seed=seed), inventory.grid)
    inside = pixels_of(region, inventory)
    assert all(inside[w.row : w.row_stop, w.col : w.col_stop].all() and w[2:] == (32, 32) for w in windows)
    reachable = np.zeros(shape, bool)  # what patches at whole cells, and at the raster's edges, show
    rows, cols = ({*range(0, n - 31, 4), n - 32} for n in shape)
    for r, c in itertools.product(rows, cols):
        if inside[r : r + 32, c : c + 32].all():
            reachable[r : r + 32, c : c + 32] = True
    assert not (times_seen(windows, shape) > 0)[~reachable].any()
    corners = np.zeros(shape, bool)
    corners[:20, :20] = True
    seen = times_seen(windows, shape) > 0
    assert (seen[reachable & ~corners].mean() > 0.97) and any((w.row % 4, w.col % 4) != (0, 0) for w in windows)


@pytest.mark.parametrize(
    ('shape', 'place'),
    [
        ((240, 320), None),  # the whole raster
        ((243, 318), None),  # with cut cells at its right and bottom edge
        ((243, 318), (4, 60, 6, 78)),  # a rectangle of cells inside it
        ((243, 318), (20, 61, 30, 80)),  # one that ends at its edges
    ],
)
def test_the_border_of_a_rectangle_is_seen_nearly_as_often_as_its_middle(
    shape: tuple[int, int], place: tuple[int, int, int, int] | None
) -> None:
    inventory = inventory_of(np.ones(shape), 4)
    region = np.zeros(inventory.shape, bool)
    r0, r1, c0, c1 = place or (0, *inventory.shape[:1], 0, *inventory.shape[1:])
    region[r0:r1, c0:c1] = True
    inside = pixels_of(region, inventory)
    sampler = sampler_of(inventory, 32, region=region, length=20_000)
    seen = times_seen([w for w, _ in sampler.windows()], shape)
    assert (seen[inside] > 0).all() and not seen[~inside].any()
    seen = seen[np.ix_(inside.any(1), inside.any(0))]
    for along in (seen.mean(1), seen.mean(0)):  # by row, by column
        relative = along / along.mean()
        assert relative.min() > 0.4 and relative.max() < 1.7  # patches moved inward pile up a patch from the border
        np.testing.assert_allclose(relative, relative[::-1], atol=0.12)


def test_patches_of_the_whole_region_have_one_place() -> None:
    inventory = inventory_of(np.ones((64, 64)), 8)
    assert {w for w, _ in sampler_of(inventory, 64, length=20).windows()} == {PixelWindow(0, 0, 64, 64)}


def test_a_cut_raster_of_one_patch_and_a_bit_is_seen_to_both_ends() -> None:
    inventory = inventory_of(np.ones((37, 32)), 8)
    windows = {w for w, _ in sampler_of(inventory, 32, length=200).windows()}
    assert windows == {PixelWindow(r, 0, 32, 32) for r in range(6)}


def test_the_drawn_cell_lies_in_the_patch() -> None:
    codes = np.zeros((96, 120))
    codes[40, 50] = 7  # a single labelled pixel is in every patch
    inventory = inventory_of(codes, 4)
    windows = [w for w, _ in sampler_of(inventory, 32, length=500, min_labelled=0).windows()]
    assert all(w.row <= 40 < w.row_stop and w.col <= 50 < w.col_stop for w in windows)
    assert len({(w.row, w.col) for w in windows}) > 300


# Training patches: what is drawn


def test_the_sequence_follows_seed_and_epoch_alone() -> None:
    inventory = inventory_of(patchwork(200, 300), 4)
    one, two, other = (sampler_of(inventory, [32, 48], length=50, seed=s, looks=None) for s in (3, 3, 4))
    first = list(one)
    assert first == list(one) == list(two)
    assert first != list(other)
    one.set_epoch(1)
    fresh = list(one)
    assert fresh != first and not set(map(str, fresh)) & set(map(str, first))
    two.set_epoch(1)
    assert fresh == list(two)
    one.set_epoch(0)
    assert first == list(one)


class Echo(Dataset[Any]):
    """Gives the query back."""

    def __getitem__(self, query: Any) -> Any:
        return query


@pytest.mark.parametrize('workers', [1, 2])
def test_the_number_of_workers_does_not_matter(workers: int) -> None:
    inventory = inventory_of(patchwork(200, 300), 4)
    sampler = sampler_of(inventory, 32, length=22)
    loaders = [DataLoader(Echo(), batch_size=4, sampler=sampler, num_workers=n, collate_fn=list) for n in (0, workers)]
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        alone, shared = (list(loader) for loader in loaders)
        assert alone == shared and sum(map(len, alone)) == 22


def test_balance_shows_the_rarest_class_more_often() -> None:
    codes = np.ones((600, 600))
    codes[:, 300:] = 3
    codes[200:208, 400:408] = 10  # 64 of 360,000 px
    inventory = inventory_of(codes, 4)
    shown = {}
    for balance in (0, 0.5, 1):
        sampler = sampler_of(inventory, 32, length=6000, balance=balance, seed=1)
        parts = [codes[w.row : w.row_stop, w.col : w.col_stop] for w, _ in sampler.windows()]
        shown[balance] = sum(int((p == 10).sum()) for p in parts)
    assert shown[1] > 5 * shown[0] > 0
    assert shown[0] < shown[0.5] < shown[1]


def test_without_balance_each_pixel_is_drawn_alike() -> None:
    codes = patchwork(320, 400, grain=8)
    sampler = sampler_of(inventory_of(codes, 4), 32, length=6000, balance=0)
    seen = times_seen([w for w, _ in sampler.windows()], codes.shape)
    shown = np.bincount(codes.ravel(), seen.ravel(), 13) / seen.sum()
    there = np.bincount(codes.ravel(), minlength=13) / codes.size
    np.testing.assert_allclose(shown[there > 0.02], there[there > 0.02], rtol=0.1)


def test_ground_without_labels_measurements_or_land_is_left_out() -> None:
    codes = patchwork(128, 320).astype(int)
    codes[codes == WATER] = 1
    seen = np.ones(codes.shape)
    codes[:, :64] = 0
    seen[:, 128:192] = 0
    codes[:, 256:] = WATER
    inventory = inventory_of(codes, 4, seen)
    labelled = np.where(seen, codes, 0)
    for options in ({}, {'min_labelled': 0.5}, {'min_valid': 0.5}, {'max_water': 0.5}):
        limits = {'min_labelled': 0.05, 'min_valid': 0.05, 'max_water': 0.99} | options
        windows = [w for w, _ in sampler_of(inventory, 32, length=1500, seed=2, **options).windows()]
        for w in windows:
            at = slice(w.row, w.row_stop), slice(w.col, w.col_stop)
            count = (labelled[at] > 0).sum()
            assert count >= limits['min_labelled'] * 1024 and seen[at].sum() >= limits['min_valid'] * 1024
            assert (labelled[at] == WATER).sum() <= limits['max_water'] * count < 1024 * limits['max_water'] + 1
        left, right = min(w.col for w in windows), max(w.col_stop for w in windows)
        assert left < 64 < 256 < right  # up to the limits, patches reach into the empty ground
    everything = sampler_of(inventory, 32, length=3000, min_labelled=0, min_valid=0, max_water=1)
    assert any(w.col > 256 for w, _ in everything.windows())


def test_clouds_do_not_matter(scene: Scene) -> None:
    """A cloud is a measurement: ground below one is drawn like any other."""
    images = CataloniaSentinel2(scene.label.parent)
    labels = ICGCLandCover(scene.label, timeless=True)
    labels.res = images.res
    inventory = take_inventory(images.mosaics, labels.rasters, 8, progress=False)
    bright = np.stack([images.read(images.grid, look)[0].mean(0) > 0.4 for look in images.looks])
    sampler = sampler_of(inventory, 64, length=400)
    seen = times_seen([w for w, _ in sampler.windows()], bright.shape[1:])
    assert bright.any() and (seen[bright.any(0)] > 0).mean() > 0.99


def test_batches_have_one_size_and_all_sizes_occur() -> None:
    inventory = inventory_of(patchwork(200, 300), 4)
    sampler = sampler_of(inventory, [32, 48, 64], length=100, group=6)
    sizes = [w.height for w, _ in sampler.windows()]
    groups = [set(sizes[i : i + 6]) for i in range(0, 100, 6)]
    assert all(len(g) == 1 for g in groups) and set.union(*groups) == {32, 48, 64}
    assert len(sizes) == len(sampler) == 100
    for rank in range(2):  # batches of 3 on 2 devices
        part = [inventory.grid.nearest_window(*s).height for s in RankSampler(sampler, rank=rank, world=2, even=True)]
        assert all(len(set(part[i : i + 3])) == 1 for i in range(0, 50, 3))


def test_sizes_are_drawn_alike() -> None:
    sampler = sampler_of(inventory_of(patchwork(200, 300), 4), [32, 48], length=2000)
    count = Counter(w.height for w, _ in sampler.windows())
    assert 900 < count[32] < 1100


def test_a_look_is_drawn_where_it_measured_something() -> None:
    codes = patchwork(128, 256)
    april, august = np.ones(codes.shape), np.ones(codes.shape)
    april[:, 192:] = august[:, :128] = 0
    inventory = inventory_of(codes, 4, april, august)
    sampler = sampler_of(inventory, 32, looks=MONTHS, length=3000, min_valid=0.25)
    drawn = {MONTHS[0].start: [], MONTHS[1].start: []}  # type: ignore[var-annotated]
    for x, y, t in sampler:
        drawn[t.start].append(inventory.grid.nearest_window(x, y))
        assert t in MONTHS
    for windows, valid in zip(drawn.values(), (april, august), strict=True):
        assert all(valid[w.row : w.row_stop, w.col : w.col_stop].mean() >= 0.25 for w in windows)
        assert (times_seen(windows, codes.shape) > 0)[valid > 0].mean() > 0.99
    assert 1.2 < len(drawn[MONTHS[0].start]) / len(drawn[MONTHS[1].start]) < 1.9  # 192 columns to 128
    both = [w for w, look in sampler_of(inventory, 32, length=1000).windows() if look is None]
    assert len(both) == 1000 and (times_seen(both, codes.shape) > 0).all()  # without looks, any of them will do


def test_a_look_that_saw_nothing_of_the_region_is_never_drawn() -> None:
    codes, nothing = patchwork(64, 64), np.zeros((64, 64))
    sampler = sampler_of(inventory_of(codes, 4, nothing, np.ones((64, 64))), 32, looks=MONTHS, length=50)
    assert {look.start for _, look in sampler.windows() if look} == {MONTHS[1].start}


def test_labels_and_measurements_must_meet() -> None:
    """Half of each patch is labelled and half is measured in April, but never the same half."""
    codes = np.tile(np.repeat([3, 0], 16), (64, 4))
    april, august = (codes == 0).astype(int), np.ones(codes.shape)
    sampler = sampler_of(inventory_of(codes, 4, april, august), 32, looks=MONTHS, length=50)
    assert {look.start for _, look in sampler.windows() if look} == {MONTHS[1].start}


def test_the_least_share_of_labels_counts_those_that_the_look_measured() -> None:
    codes = np.zeros((64, 160), int)
    codes[:, :92] = 3
    april = np.zeros(codes.shape)
    april[:, 80:] = 1  # three columns of cells are labelled and measured
    sampler = sampler_of(inventory_of(codes, 4, april, np.ones(codes.shape)), 32, looks=MONTHS, min_labelled=0.25)
    windows = [w for epoch in range(30) for w, look in _epoch(sampler, epoch) if look == MONTHS[0]]
    assert len(windows) > 20
    assert all((codes * april > 0)[w.row : w.row_stop, w.col : w.col_stop].mean() >= 0.25 for w in windows)


def _epoch(sampler: BalancedPatchSampler, epoch: int) -> Iterator[tuple[PixelWindow, slice | None]]:
    sampler.set_epoch(epoch)
    return sampler.windows()


def test_a_cell_is_drawn_for_a_look_that_measured_it() -> None:
    """Between two measured pixels more than a patch apart lies no patch."""
    april = np.zeros((96, 160))
    april[40, 48] = april[40, 83] = 1
    inventory = inventory_of(np.ones(april.shape), 4, april, np.ones(april.shape))
    sampler = sampler_of(inventory, 32, looks=MONTHS, length=20_000, min_labelled=0, min_valid=0)
    windows = [w for w, look in sampler.windows() if look == MONTHS[0]]
    assert len(windows) > 20 and all(april[w.row : w.row_stop, w.col : w.col_stop].any() for w in windows)


def test_patches_stay_in_the_roi() -> None:
    inventory = inventory_of(patchwork(200, 300), 8)
    (x0, y0), slanted = inventory.grid.origin, [(100, -90), (1900, -40), (2600, -1900), (500, -1300)]
    for roi in (
        shapely.box(x0 + 85, y0 - 1515, x0 + 995, y0 - 35),  # half a pixel off the grid
        shapely.Polygon([(x0 + x, y0 + y) for x, y in slanted]),
        shapely.box(x0 - 999, y0 - 720, x0 + 640, y0 + 999),
    ):
        sampler = sampler_of(inventory, 32, roi=roi, length=800)
        boxes = [shapely.box(x.start, y.start, x.stop, y.stop) for x, y in sampler]
        assert shapely.covers(roi, boxes).all() and len(set(boxes)) > 200
        assert sampler.geometry.equals(shapely.box(*inventory.grid.bounds()) & roi)
    region = np.zeros(inventory.shape, bool)
    region[:, 20:] = True
    with pytest.raises(LandcoverError, match='no patch of 32 px fits'):
        sampler_of(inventory, 32, roi=roi, region=region)


def test_an_epoch_holds_the_region_side_by_side_times_the_looks() -> None:
    inventory = inventory_of(patchwork(203, 300), 4, np.ones((203, 300)), np.ones((203, 300)))
    region = np.zeros(inventory.shape, bool)
    region[:, :24] = True
    assert len(sampler_of(inventory, 32)) == 203 * 300 // 1024
    assert len(sampler_of(inventory, [64, 32], looks=MONTHS, region=region)) == 2 * (203 * 96 // 1024)
    for options in ({}, {'length': 7, 'group': 4}, {'length': 8, 'group': 4}, {'looks': MONTHS}):
        sampler = sampler_of(inventory, 32, **options)
        assert len(list(sampler)) == len(sampler)


def test_a_temporal_sampler_of_torchgeo_adds_the_time() -> None:
    inventory = inventory_of(patchwork(200, 300), 4)
    spatial = sampler_of(inventory, 32, length=20)
    for temporal, per_place in ((RandomTimestampSampler, 1), (SequentialTimestampSampler, 2)):
        with pytest.warns(UserWarning, match='random_sampler') if per_place == 2 else _nothing():
            queries = list(spatial @ temporal(ground(inventory.grid)))
        assert len(queries) == 20 * per_place
        assert [q[:2] for q in queries[::per_place]] == list(spatial)
        assert {q[2].start for q in queries} == {m.start for m in MONTHS}


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...


def test_patches_of_a_scene_hold_what_the_windows_say(scene: Scene) -> None:
    images = CataloniaSentinel2(scene.label.parent)
    labels = ICGCLandCover(scene.label, timeless=True)
    labels.crs, labels.res = images.crs, images.res
    inventory = take_inventory(images.mosaics, labels.rasters, 4, progress=False)
    split = block_split(inventory, patch_size=32, seed=1)
    dataset = IntersectionDataset(images, labels, spatial_only=True)
    sampler = BalancedPatchSampler(
        dataset,
        inventory=inventory,
        patch_sizes=32,
        region=split.region('train'),
        looks=images.looks,
        length=12,
    )
    whole, codes = [images.read(images.grid, look)[0] for look in images.looks], labels.read_codes(images.grid)
    for query, (w, look) in zip(sampler, sampler.windows(), strict=True):
        at = slice(w.row, w.row_stop), slice(w.col, w.col_stop)
        sample = dataset[query]
        np.testing.assert_array_equal(sample['image'], whole[images.looks.index(look)][:, *at])
        np.testing.assert_array_equal(sample['mask'], codes[at])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({'balance': 1.5}, r'balance must be in \[0, 1\], got 1.5'),
    ({'balance': float('nan')}, r'balance must be in \[0, 1\], got nan'),
    ({'min_labelled': -0.1}, r'min_labelled must be in \[0, 1\], got -0.1'),
    ({'min_valid': 2}, r'min_valid must be in'),
    ({'max_water': 99}, r'max_water must be in'),
    ({'length': 0}, r'length must be at least 1, got 0'),
    ({'group': 0}, r'group must be at least 1, got 0'),
    ({'patch_sizes': []}, r'patch_sizes must be at least 1, got 0'),
    ({'patch_sizes': [32, -8]}, r'patch_sizes must be at least 1, got -8'),
    ({'patch_sizes': 30}, r'patch size 30 px must be a multiple of the cell of 4 px'),
    ({'patch_sizes': [32, 128]}, r'no patch of 128 px fits into the training region: choose a smaller patch_size'),
    ({'region': np.zeros((25, 30), bool)}, r'no patch of 32 px fits'),
    ({'looks': MONTHS[:1] * 3}, r'looks must be the 1 looks that the inventory counted.*got 3'),
    ({'looks': []}, r'looks must be the 1 looks.*got 0'),
    (
        {'min_labelled': 1.0},
        r'every patch of 32 px.*relax min_labelled \(1.0\), min_valid \(0.05\) or max_water',
    ),
]


@pytest.mark.parametrize(('options', 'sentence'), REFUSED)
def test_what_cannot_be_drawn_is_refused(options: dict[str, Any], sentence: str) -> None:
    codes = patchwork(100, 118)
    codes[::5, ::7] = 0
    with pytest.raises(LandcoverError, match=sentence):
        sampler_of(inventory_of(codes, 4), **({'patch_sizes': 32} | options))


def test_a_raster_smaller_than_a_patch_is_refused() -> None:
    for shape in ((31, 64), (64, 29), (3, 3)):
        with pytest.raises(LandcoverError, match='no patch of 32 px fits'):
            sampler_of(inventory_of(np.ones(shape), 4), 32)


# Evaluation


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('size', [1, 7, 32, 1000])
def test_a_cover_shows_each_pixel_of_a_region_once_for_each_look(seed: int, size: int) -> None:
    inventory = inventory_of(np.ones((61, 83)), 4)
    region = np.random.default_rng(seed).random(inventory.shape) < (0.2, 0.5, 0.9)[seed % 3]
    full = inventory.grid.full
    windows = [w.scaled(4).intersection(full) for w in rectangles(region)]
    for looks in (None, MONTHS):
        sampler = CoverSampler(
            ground(inventory.grid), grid=inventory.grid, windows=windows, patch_size=size, looks=looks
        )
        queries = list(sampler)
        assert len(queries) == len(sampler)
        for look in looks or [None]:
            found = [inventory.grid.nearest_window(*q[:2]) for q in queries if look is None or q[2] == look]
            assert max(max(w[2:]) for w in found) <= size
            np.testing.assert_array_equal(times_seen(found, (61, 83)), pixels_of(region, inventory))


@pytest.mark.parametrize('seed', range(3))
def test_a_cover_of_a_split_never_meets_another_split(seed: int) -> None:
    inventory = inventory_of(patchwork(203, 310, seed=seed), cell_size([48]))
    split = block_split(inventory, patch_size=48, block_size=96, seed=seed)
    total = np.zeros((203, 310), int)
    for name in ('train', 'val', 'test'):
        cover = CoverSampler(ground(split.grid), grid=split.grid, windows=split.windows(name), patch_size=48)
        seen = times_seen(windows_of(cover, split.grid), (203, 310))
        np.testing.assert_array_equal(seen, pixels_of(split.region(name), inventory))
        total += seen
    assert total.max() == 1


@pytest.mark.parametrize('window', [PixelWindow(3, 5, 65, 31), PixelWindow(-4, 0, 1, 200), PixelWindow(0, 0, 64, 96)])
def test_pieces_are_even(window: PixelWindow) -> None:
    pieces = list(cut_window(window, 32))
    assert len(pieces) == -(-window.height // 32) * -(-window.width // 32)
    for axis in (2, 3):
        edges = {p[axis] for p in pieces}
        assert max(edges) - min(edges) <= 1


def test_windows_are_given_in_order_with_each_look() -> None:
    grid = inventory_of(np.ones((40, 60)), 4).grid
    windows = [PixelWindow(5, 7, 20, 30), PixelWindow(-3, 50, 20, 20)]
    sampler = WindowSampler(ground(grid), grid=grid, windows=windows, looks=MONTHS)
    assert [grid.nearest_window(x, y) for x, y, _ in sampler] == [w for w in windows for _ in MONTHS]
    assert [t for *_, t in sampler] == MONTHS * 2 and len(sampler) == 4
    assert windows_of(WindowSampler(ground(grid), grid=grid, windows=windows), grid) == windows
    assert not list(WindowSampler(ground(grid), grid=grid, windows=[]))


# Several devices


class Numbers:
    """A sampler of the numbers from 0 that remembers its epoch."""

    def __init__(self, n: int) -> None:
        self.n, self.epoch = n, 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        return iter(range(100 * self.epoch, 100 * self.epoch + self.n))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


@pytest.mark.parametrize('world', [1, 2, 3, 8])
@pytest.mark.parametrize('n', [1, 7, 8, 24])
def test_ranks_share_the_whole_sequence(n: int, world: int) -> None:
    for even in (True, False):
        ranks: list[Any] = [RankSampler(Numbers(n), rank=r, world=world, even=even) for r in range(world)]  # type: ignore[arg-type]
        parts = [list(r) for r in ranks]
        assert [len(p) for p in parts] == [len(r) for r in ranks]
        given = sorted(itertools.chain.from_iterable(parts))
        assert given == list(range(n // world * world if even else n))
        assert max(map(len, parts)) - min(map(len, parts)) <= (not even)
        for r in ranks:
            r.set_epoch(3)
        assert sorted(itertools.chain.from_iterable(ranks)) == [300 + g for g in given]


def test_lightning_leaves_the_sampler_of_a_rank_alone() -> None:
    grid = inventory_of(np.ones((40, 60)), 4).grid
    cover = CoverSampler(ground(grid), grid=grid, windows=[grid.full], patch_size=16)
    rank = RankSampler(cover, rank=1, world=2, even=False)
    assert isinstance(rank, DistributedSampler)
    rank.set_epoch(2)  # a sampler without epochs does not mind
    assert list(rank) == list(cover)[1::2]
