"""Inventory and statistics agree with plain NumPy; the cache gives the same and never stops a run."""

import json
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

from landcover_plugin.datasets.icgc import ICGCLandCover
from landcover_plugin.datasets.sentinel2 import CataloniaSentinel2
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.sampling import inventory as inventory_module
from landcover_plugin.sampling.inventory import (
    Inventory,
    cached_inventory,
    cell_size,
    count_codes,
    fingerprint,
    take_inventory,
)
from landcover_plugin.sampling.statistics import SAMPLE_SIZE, band_statistics, cached_statistics


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


def pair(*folders: Path) -> tuple[CataloniaSentinel2, ICGCLandCover]:
    images = CataloniaSentinel2(folders)
    labels = ICGCLandCover(folders, timeless=True)
    labels.crs, labels.res = images.crs, images.res
    return images, labels


@pytest.fixture
def small(tmp_path: Path) -> tuple[CataloniaSentinel2, ICGCLandCover]:
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


def recount(images: CataloniaSentinel2, codes: NDArray[np.uint8], cell: int) -> tuple[NDArray[Any], NDArray[Any]]:
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
    small: tuple[CataloniaSentinel2, ICGCLandCover], monkeypatch: pytest.MonkeyPatch, scan: int
) -> None:
    monkeypatch.setattr(inventory_module, 'SCAN_SIZE', scan)
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

    monkeypatch.setattr(inventory_module, 'take_inventory', counted)
    return seen


def same(a: Inventory, b: Inventory) -> bool:
    alike = np.array_equal(a.counts, b.counts) and np.array_equal(a.valid, b.valid)
    return alike and (a.grid, a.cell, a.unknown) == (b.grid, b.cell, b.unknown)


def test_an_inventory_is_kept_and_taken_anew_when_a_file_or_the_cell_changes(
    small: tuple[CataloniaSentinel2, ICGCLandCover], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    small: tuple[CataloniaSentinel2, ICGCLandCover],
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
    small: tuple[CataloniaSentinel2, ICGCLandCover],
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
        cached_statistics(small[0], [small[0].grid.full], 'key', cache, progress=False)
    assert 'could not be kept' in caplog.text and 'statistics could not be kept' in caplog.text


def test_no_half_file_stays_behind(
    small: tuple[CataloniaSentinel2, ICGCLandCover], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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

    def prints(aggregation: Any = 'mode', cell: int = 8, **options: Any) -> str:
        images = CataloniaSentinel2(tmp_path, **({'band_order': ['B02', 'B03', 'B04']} | options))
        labels = ICGCLandCover(tmp_path, aggregation=aggregation, timeless=True)
        labels.res = images.res
        return fingerprint(images, labels, cell)

    variants = [
        {},
        {'bands': ['B02', 'B03']},
        {'bands': ['B02', 'B03'], 'band_order': ['B03', 'B02', 'B04']},  # the same names, other bands of the file
        {'bands': ['B02', 'B03'], 'band_order': ['B02', 'B04', 'B03']},
        {'seasons': 'stack'},
        {'nodata': 5},
        {'aggregation': 'nearest'},
        {'cell': 4},
    ]
    assert len({prints(**v) for v in variants}) == len(variants)
    assert prints() == prints()


# Statistics


def test_statistics_equal_numpy_over_the_same_pixels(small: tuple[CataloniaSentinel2, ICGCLandCover]) -> None:
    images, _ = small
    windows = [PixelWindow(0, 0, 20, 31), PixelWindow(20, 5, 21, 48)]
    mean, std = band_statistics(images, windows, progress=False)
    pixels = []
    for path in images.files:
        with rasterio.open(path) as src:
            array = src.read().astype(np.float64) / 10_000
        for w in windows:
            part = array[:, w.row : w.row_stop, w.col : w.col_stop].reshape(10, -1)
            pixels.append(part[:, (part != 0).any(0)])
    reference = np.concatenate(pixels, axis=1)
    np.testing.assert_allclose(mean, reference.mean(1), rtol=1e-6)
    np.testing.assert_allclose(std, reference.std(1), rtol=1e-5)


def test_large_ground_is_sampled_by_the_seed(
    small: tuple[CataloniaSentinel2, ICGCLandCover], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = small
    monkeypatch.setattr('landcover_plugin.sampling.statistics.SAMPLE_WINDOWS', 3)
    windows = [PixelWindow(r, c, 5, 5) for r in range(10, 40, 5) for c in range(0, 50, 5)]
    first, again = (band_statistics(images, windows, seed=1, progress=False)[0] for _ in range(2))
    other = band_statistics(images, windows, seed=2, progress=False)[0]
    assert (first == again).all() and (first != other).any()
    assert SAMPLE_SIZE == 256


def test_ground_without_a_measured_pixel_has_no_statistics(small: tuple[CataloniaSentinel2, ICGCLandCover]) -> None:
    with pytest.raises(LandcoverError, match=r'no pixel of the training ground was measured'):
        band_statistics(small[0], [PixelWindow(6, 20, 3, 4)], progress=False)


def test_statistics_are_kept_by_source_scale_and_windows(
    small: tuple[CataloniaSentinel2, ICGCLandCover], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, cache, seen = small[0], tmp_path / 'cache', []

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        return band_statistics(*args, **kwargs)

    monkeypatch.setattr('landcover_plugin.sampling.statistics.band_statistics', counted)
    windows = [PixelWindow(0, 0, 41, 53)]
    first = cached_statistics(images, windows, 'key', cache, progress=False)
    assert first == cached_statistics(images, windows, 'key', cache, progress=False) and len(seen) == 1
    (file,) = cache.iterdir()
    for damage in ('', '{"mean": [1', '[]', '3', '{"mean": [1]}'):
        file.write_text(damage)
        assert first == cached_statistics(images, windows, 'key', cache, progress=False)
    assert json.loads(file.read_text())['channels'] == images.channels
    cached_statistics(images, windows, 'other key', cache, progress=False)
    cached_statistics(images, [PixelWindow(0, 0, 40, 53)], 'key', cache, progress=False)
    images.reflectance_scale = 1.0
    scaled = cached_statistics(images, windows, 'key', cache, progress=False)
    assert scaled[0][0] == pytest.approx(first[0][0] * 10_000, rel=1e-5) and len(seen) == 1 + 5 + 3
