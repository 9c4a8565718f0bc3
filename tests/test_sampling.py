"""The inventory and its statistics agree with plain NumPy; the cache gives the same and never stops a run."""

import itertools
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import analytic_codes, analytic_image, majority_reference, repeated, write_image, write_label
from numpy.typing import NDArray
from rasterio.crs import CRS

from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.rasters.landcover import LabelRasters
from landcover_plugin.rasters.mosaics import Mosaics
from landcover_plugin.sampling import inventory as inventory_module
from landcover_plugin.sampling import inventory_cache
from landcover_plugin.sampling.inventory import (
    Inventory,
    cell_size,
    count_codes,
    take_inventory,
)
from landcover_plugin.sampling.inventory_cache import cached_inventory, fingerprint


def inventory_of(
    codes: NDArray[Any], cell: int, *valid: NDArray[Any], res: tuple[float, float] = (10, 10)
) -> Inventory:
    """The inventory of an array of codes; each look measured everything unless masks of pixels are given."""
    looks = valid or (np.ones(codes.shape),)
    grid = PixelGrid(CRS.from_epsg(32631), Affine(res[0], 0, 400003, 0, -res[1], 4600007), *codes.shape)
    counted = np.stack([count_codes(v.astype(np.uint8), cell)[..., 1] for v in looks])
    seen = np.where(np.any(looks, axis=0), codes, 0).astype(np.uint8)
    return Inventory(grid, cell, count_codes(seen, cell), counted)


def patchwork(height: int, width: int, *, seed: int = 0, grain: int = 16) -> NDArray[np.uint8]:
    """Squares of all classes, some of them rare."""
    shares = np.array([30, 20, 20, 15, 5, 3, 2, 1, 1, 0.5, 0.3, 0.2])
    shape = -(-height // grain), -(-width // grain)
    codes = np.random.default_rng(seed).choice(np.arange(1, 13), p=shares / shares.sum(), size=shape)
    return repeated(codes, grain)[:height, :width].astype(np.uint8)


def pair(*folders: Path, **options: Any) -> tuple[Mosaics, LabelRasters]:
    return Mosaics(folders, **options), LabelRasters(folders)


@pytest.fixture
def small(tmp_path: Path) -> tuple[Mosaics, LabelRasters]:
    """Two looks of 41 x 53 px, each with its own hole, and a common one; labels of 5 m with no data inside."""
    april, august = analytic_image(), analytic_image() + 7
    april[:, 3:9, 4:30] = 0
    august[:, 6:40, 20:24] = 0
    codes = analytic_codes()
    codes[30:, 40:] = 0
    write_image(tmp_path, april, month='201804', nodata=0)
    write_image(tmp_path, august, month='201808', nodata=0)
    write_label(tmp_path, repeated(codes, 2), gsd=5)
    return pair(tmp_path)


def recount(images: Mosaics, codes: NDArray[np.uint8], cell: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Counts and validity by a loop over cells, from plain reads."""
    stack = []
    for path in images.files:
        with rasterio.open(path) as src:
            stack.append((src.read() != 0).any(0))
    seen = np.any(stack, axis=0)
    rows, cols = -(-codes.shape[0] // cell), -(-codes.shape[1] // cell)
    counts, valid = np.zeros((rows, cols, 13), int), np.zeros((len(stack), rows, cols), int)
    for r, c in np.ndindex(rows, cols):
        at = slice(r * cell, (r + 1) * cell), slice(c * cell, (c + 1) * cell)
        counts[r, c] = np.bincount(np.where(seen[at], codes[at], 0).ravel(), minlength=13)
        valid[:, r, c] = [v[at].sum() for v in stack]
    return counts, valid


# Inventory


@pytest.mark.parametrize('cell', [4, 8, 7])
def test_the_inventory_of_a_scene_equals_a_recount_from_plain_reads(scene: Scene, cell: int) -> None:
    images, labels = pair(scene.label.parent)
    found = take_inventory(images, labels, cell, progress=False)
    with rasterio.open(scene.label) as src:
        codes = majority_reference(src.read(1), 5)
    counts, valid = recount(images, codes, cell)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_array_equal(found.valid, valid)
    np.testing.assert_array_equal(found.labelled, counts[..., 1:].sum(-1))
    np.testing.assert_array_equal(found.class_counts(), counts.sum((0, 1)))
    region = np.random.default_rng(0).random(found.shape) < 0.3
    np.testing.assert_array_equal(found.class_counts(region), counts[region].sum(0))
    assert found.counts.sum() == found.pixels.sum() == images.grid.height * images.grid.width


@pytest.mark.parametrize('scan', [1, 6, 16, 10_000])
def test_nodata_is_counted_by_look_and_the_size_of_the_scan_does_not_matter(
    small: tuple[Mosaics, LabelRasters], monkeypatch: pytest.MonkeyPatch, scan: int
) -> None:
    def squares(images: Mosaics, cell: int) -> list[PixelWindow]:
        step, full = max(scan // cell, 1) * cell, images.grid.full
        corners = itertools.product(range(0, full.height, step), range(0, full.width, step))
        return [PixelWindow(row, col, step, step).intersection(full) for row, col in corners]

    monkeypatch.setattr(inventory_module, 'image_windows', squares)
    images, labels = small
    codes = analytic_codes()
    codes[30:, 40:] = 0
    for cell in (5, 6):
        found = take_inventory(images, labels, cell, progress=False)
        counts, valid = recount(images, codes, cell)
        np.testing.assert_array_equal(found.counts, counts)
        np.testing.assert_array_equal(found.valid, valid)
    assert counts[..., 0].any() and (valid[0] != valid[1]).any()


def test_labels_elsewhere_are_an_error_that_names_both_places(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image())
    write_label(tmp_path, repeated(analytic_codes(), 2), gsd=5, origin=(500000, 4600000))
    with pytest.raises(LandcoverError, match=r'no labelled pixel.*400000.*500000'):
        take_inventory(*pair(tmp_path), 8, progress=False)


@pytest.mark.parametrize('sizes', [[256], [64], [96, 128], [50], [48, 72], [32, 8]])
def test_a_cell_divides_every_patch(sizes: list[int]) -> None:
    assert all(s % cell_size(sizes) == 0 for s in sizes)
    assert 4 <= cell_size(sizes) <= max(min(sizes) // 8, 4)


@pytest.mark.parametrize('sizes', [[251], [64, 66], [3]])
def test_patch_sizes_that_would_need_tiny_cells_are_refused(sizes: list[int]) -> None:
    with pytest.raises(LandcoverError, match='choose multiples of 8'):
        cell_size(sizes)


# Cache


def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with each scan."""
    seen: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Inventory:
        seen.append(1)
        return take_inventory(*args, **kwargs)

    monkeypatch.setattr(inventory_cache, 'take_inventory', counted)
    return seen


def same(a: Inventory, b: Inventory) -> bool:
    names = ('counts', 'valid', 'purity', 'mean', 'std')
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names) and (a.grid, a.cell, a.unknown) == (
        b.grid,
        b.cell,
        b.unknown,
    )


def test_an_inventory_is_kept_and_taken_anew_when_a_file_or_the_cell_changes(
    small: tuple[Mosaics, LabelRasters], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, cache = scans(monkeypatch), tmp_path / 'cache' / 'deep'
    first = cached_inventory(*small, 6, cache, progress=False)
    again = cached_inventory(*pair(tmp_path), 6, cache, progress=False)
    assert same(first, again) and len(taken) == 1
    assert [f.suffix for f in cache.iterdir()] == ['.npz']
    cached_inventory(*small, 5, cache, progress=False)
    assert len(taken) == 2
    codes = analytic_codes()
    codes[:10] = 3
    path = write_label(tmp_path, repeated(codes, 2), gsd=5)
    os.utime(path, ns=(1, 1))
    changed = cached_inventory(*pair(tmp_path), 6, cache, progress=False)
    assert len(taken) == 3 and changed.class_counts()[3] > first.class_counts()[3]


DAMAGES = [b'', b'not a zip', b'PK\x03\x04 cut off', None, 'short', 'flipped']


@pytest.mark.parametrize('damage', DAMAGES, ids=map(str, DAMAGES))
def test_a_damaged_cache_file_is_replaced(
    small: tuple[Mosaics, LabelRasters],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: Any,
) -> None:
    taken, cache = scans(monkeypatch), tmp_path / 'cache'
    first = cached_inventory(*small, 6, cache, progress=False)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    if damage is None:
        np.savez(file, counts=first.counts)  # 'valid' is missing
    elif damage == 'short':
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == 'flipped':
        file.write_bytes(whole[:80] + bytes(b ^ 255 for b in whole[80:200]) + whole[200:])
    else:
        file.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert same(first, cached_inventory(*small, 6, cache, progress=False))
    assert 'is damaged' in caplog.text and len(taken) == 2
    assert same(first, cached_inventory(*small, 6, cache, progress=False)) and len(taken) == 2


@pytest.mark.parametrize('obstacle', ['file', 'replace'])
def test_a_cache_that_cannot_be_written_costs_a_message(
    small: tuple[Mosaics, LabelRasters],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    obstacle: str,
) -> None:
    cache = tmp_path / 'cache'
    if obstacle == 'file':
        cache.write_text('a file where the folder should be')
    else:  # as on a disk that turns read-only: nothing can be renamed or deleted

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise OSError(30, 'Read-only file system')

        monkeypatch.setattr(Path, 'replace', refuse)
        monkeypatch.setattr(Path, 'unlink', refuse)
    with caplog.at_level(logging.WARNING):
        assert cached_inventory(*small, 6, cache, progress=False).class_counts().sum()
    assert 'could not be kept' in caplog.text


def test_no_half_file_stays_behind(
    small: tuple[Mosaics, LabelRasters], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, **arrays: Any) -> None:
        path.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(np, 'savez_compressed', full)
    cached_inventory(*small, 6, tmp_path / 'cache', progress=False)
    assert not list((tmp_path / 'cache').iterdir())


def test_the_fingerprint_knows_what_decides_the_pixels(tmp_path: Path) -> None:
    for month in ('201804', '201808'):
        write_image(tmp_path, analytic_image(bands=3)[:3], month=month, descriptions=None)
    write_label(tmp_path, repeated(analytic_codes(), 2), gsd=5)

    def prints(aggregation: Any = 'mode', class_weights: Any = None, cell: int = 8, **options: Any) -> str:
        images = Mosaics(tmp_path, **({'band_order': ['B02', 'B03', 'B04']} | options))
        labels = LabelRasters(tmp_path, aggregation=aggregation, class_weights=class_weights)
        return fingerprint(images, labels, cell)

    variants = [
        {},
        {'bands': ['B02', 'B03']},
        {'bands': ['B02', 'B03'], 'band_order': ['B03', 'B02', 'B04']},  # the same names, other bands of the file
        {'bands': ['B02', 'B03'], 'band_order': ['B02', 'B04', 'B03']},
        {'seasons': 'stack'},
        {'nodata': 5},
        {'aggregation': 'nearest'},
        {'aggregation': 'weighted'},
        {'aggregation': 'weighted', 'class_weights': {7: 2.0}},
        {'cell': 4},
    ]
    assert len({prints(**v) for v in variants}) == len(variants)
    assert prints() == prints()


# Statistics


def moments(images: Mosaics, cell: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and standard deviation of each look, channel and cell, by a loop over plain reads; 0 of nothing."""
    arrays = []
    for path in images.files:
        with rasterio.open(path) as src:
            arrays.append(src.read().astype(np.float64))
    masks = [(a != 0).any(0) for a in arrays]
    if images.seasons == 'stack':
        arrays, masks = [np.concatenate(arrays)], [np.logical_and.reduce(masks)]
    rows, cols = -(-images.grid.height // cell), -(-images.grid.width // cell)
    mean, std = np.zeros((2, len(arrays), len(arrays[0]), rows, cols))
    for look, (array, mask) in enumerate(zip(arrays, masks, strict=True)):
        for r, c in np.ndindex(rows, cols):
            at = slice(r * cell, (r + 1) * cell), slice(c * cell, (c + 1) * cell)
            if mask[at].any():
                pixels = array[(slice(None), *at)][:, mask[at]]
                mean[look, :, r, c], std[look, :, r, c] = pixels.mean(1), pixels.std(1)
    return mean, std


@pytest.mark.parametrize('seasons', ['separate', 'stack'])
@pytest.mark.parametrize('cell', [6, 8])
def test_the_moments_of_cells_equal_numpy(small: tuple[Mosaics, LabelRasters], cell: int, seasons: Any) -> None:
    images = Mosaics(small[0].files, seasons=seasons)
    found = take_inventory(images, small[1], cell, progress=False)
    mean, std = moments(images, cell)
    assert mean.shape == (images.looks, len(images.channels), *found.shape)
    assert found.grid.height % cell and found.grid.width % cell, 'the last cells are cut'
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(found.std, std, rtol=1e-5, atol=1e-2)


def test_the_purity_of_cells_equals_numpy(tmp_path: Path) -> None:
    image = analytic_image()
    image[:, 3:9, 4:30] = 0
    fine = np.random.default_rng(2).choice(np.array([0, 1, 1, 1, 5, 12], np.uint8), (82, 106))
    write_image(tmp_path, image, nodata=0)
    write_label(tmp_path, fine, gsd=5)
    found = take_inventory(*pair(tmp_path), 8, progress=False)
    codes = np.where(image[0] > 0, majority_reference(fine, 2), 0)
    blocks = fine.reshape(41, 2, 53, 2)
    pure = (blocks == majority_reference(fine, 2)[:, None, :, None]).sum((1, 3)) * 100 // 4
    expected = np.zeros(found.shape)
    for r, c in np.ndindex(found.shape):
        at = slice(r * 8, (r + 1) * 8), slice(c * 8, (c + 1) * 8)
        if (codes[at] > 0).any():
            expected[r, c] = pure[at][codes[at] > 0].mean()
    np.testing.assert_allclose(found.purity, expected, rtol=1e-6)
    assert 40 < expected[expected > 0].min() < expected.max() < 100


@pytest.mark.parametrize('seasons', ['separate', 'stack'])
def test_a_coarsened_inventory_is_that_of_larger_cells(small: tuple[Mosaics, LabelRasters], seasons: Any) -> None:
    images = Mosaics(small[0].files, seasons=seasons)
    fine = take_inventory(images, small[1], 4, progress=False)
    for factor in (2, 3):
        wanted, found = take_inventory(images, small[1], 4 * factor, progress=False), fine.coarsened(factor)
        assert (found.grid, found.cell, found.unknown) == (wanted.grid, wanted.cell, wanted.unknown)
        for name in ('counts', 'valid'):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
            assert getattr(found, name).dtype == getattr(wanted, name).dtype
        for name in ('purity', 'mean', 'std'):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-5, atol=1e-2)
            assert getattr(found, name).dtype == np.float32
    assert fine.coarsened(1) is fine


@pytest.mark.parametrize('seasons', ['separate', 'stack'])
def test_statistics_of_a_region_equal_numpy_over_its_pixels(small: tuple[Mosaics, LabelRasters], seasons: Any) -> None:
    images = Mosaics(small[0].files, seasons=seasons)
    inventory = take_inventory(images, small[1], 6, progress=False)
    region = np.random.default_rng(3).random(inventory.shape) < 0.4
    region[-1, -1] = True
    inside = region.repeat(6, 0).repeat(6, 1)[:41, :53]
    looks = [images.read(images.grid, look) for look in range(images.looks)]
    pixels = np.concatenate([image[:, valid & inside].astype(np.float64) for image, valid in looks], axis=1)
    mean, std = inventory.band_statistics(region)
    np.testing.assert_allclose(mean, pixels.mean(1), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std(1), rtol=1e-5)


def test_ground_without_a_measured_pixel_has_no_statistics(small: tuple[Mosaics, LabelRasters]) -> None:
    inventory = take_inventory(*small, 3, progress=False)
    nowhere = np.zeros(inventory.shape, bool)
    nowhere[2, 7] = True  # rows 6-8, columns 21-23: in the holes of both months
    for region in (nowhere, np.zeros(inventory.shape, bool)):
        with pytest.raises(LandcoverError, match=r'no pixel of the training ground was measured'):
            inventory.band_statistics(region)
    counted_only = inventory_of(analytic_codes(), 8)
    with pytest.raises(LandcoverError, match='taken without band statistics; take it again'):
        counted_only.band_statistics(np.ones(counted_only.shape, bool))
