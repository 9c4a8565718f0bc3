"""The estimate of label shift: exact on made-up edges, to a tenth of a pixel on simulated land, silent on noise."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from conftest import RELOCATED
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import from_origin

from landcover_plugin.datasets.simulated import Scene, write_scene
from landcover_plugin.grid import PixelGrid
from landcover_plugin.inspection.alignment import check_shift
from landcover_plugin.inspection.findings import Finding
from landcover_plugin.inspection.sample import spread_windows, take_sample, window_size
from landcover_plugin.inspection.shift import (
    Shift,
    correlation,
    estimate_shift,
    image_edges,
    is_telling,
    label_edges,
    peak,
)
from landcover_plugin.rasters.landcover import LabelRasters
from landcover_plugin.rasters.mosaics import Mosaics


def estimate(folder: Path) -> Shift | None:
    images = Mosaics(folder)
    windows = spread_windows(images.grid, window_size(images.grid), 100)
    return estimate_shift(take_sample(images, LabelRasters(folder), windows).correlations)


def with_moved_label(source: Path, target: Path, *, east: float, south: float) -> Path:
    """A copy of a folder whose labels lie that many pixels of 10 m east and south."""
    target.mkdir()
    for path in source.glob('*.tif'):
        shutil.copy(path, target / path.name)
        (target / path.name).chmod(0o644)
    label = next(target.glob('LC_*.tif'))
    with rasterio.open(label, 'r+') as dst:
        t = dst.transform
        dst.transform = from_origin(t.c + 10 * east, t.f - 10 * south, t.a, -t.e)
    return target


@pytest.fixture(scope='module')
def land(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_scene(tmp_path_factory.mktemp('land'), size=(320, 384), seed=11, label_gsd=1)


@pytest.mark.parametrize(('east', 'south'), [(0, 0), (3, -2), (1.5, 0.5), (-0.7, 0.3), (9.3, 20.5)])
def test_a_known_shift_is_found_to_a_tenth_of_a_pixel(land: Scene, tmp_path: Path, east: float, south: float) -> None:
    found = estimate(with_moved_label(land.label.parent, tmp_path / 'moved', east=east, south=south))
    assert found is not None
    assert found.is_certain
    assert (found.east, found.south) == (pytest.approx(east, abs=0.1), pytest.approx(south, abs=0.1))
    assert found.error < 0.15


@pytest.mark.skipif(not RELOCATED.is_dir(), reason='no real pixels beside the checkout')
@pytest.mark.parametrize(('east', 'south'), [(3, -2), (-1.2, 0.7)])
def test_real_pixels_move_with_their_labels(tmp_path: Path, east: float, south: float) -> None:
    before = estimate(RELOCATED)
    after = estimate(with_moved_label(RELOCATED, tmp_path / 'moved', east=east, south=south))
    assert before is not None
    assert after is not None
    assert before.is_certain
    assert before.length < 2 * before.error
    assert after.east - before.east == pytest.approx(east, abs=0.5)
    assert after.south - before.south == pytest.approx(south, abs=0.5)


def test_labels_of_other_ground_are_not_certain(scene: Scene, land: Scene, tmp_path: Path) -> None:
    with rasterio.open(scene.label) as src:
        other, profile = src.read(), src.profile
    for path in land.images:
        shutil.copy(path, tmp_path / path.name)
    with rasterio.open(tmp_path / scene.label.name, 'w', **profile) as dst:
        dst.write(other[:, ::-1, ::-1])
    found = estimate(tmp_path)
    assert found is not None
    assert not found.is_certain


def steps(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Rectangles of codes: edges in both directions."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 5, (-(-height // 9), -(-width // 7)))
    return np.repeat(np.repeat(coarse, 9, 0), 7, 1)[:height, :width].astype(np.uint8)


@pytest.mark.parametrize(('east', 'south'), [(0, 0), (4, -3), (-5, 6)])
def test_correlation_tells_east_from_south(east: int, south: int) -> None:
    codes = steps(60, 80)
    image = np.stack([codes * 100.0, 500 - codes * 40.0])
    moved = np.roll(codes, (south, east), (0, 1))
    surface = correlation(
        label_edges(moved, np.full(moved.shape, 100, dtype=np.uint8)), image_edges(image, codes > 0), 8
    )
    row, col = peak(surface)
    assert (round(col) - 8, round(row) - 8) == (east, south)
    assert surface.max() == pytest.approx(1, abs=0.25)


def test_pixels_that_are_not_valid_make_no_edges() -> None:
    codes = steps(40, 50)
    image = np.stack([codes * 100.0])
    valid = np.ones(codes.shape, dtype=bool)
    valid[10:20, 30:40] = False
    spoilt = np.where(valid, image, 60_000)
    edges = image_edges(spoilt, valid)
    assert np.isnan(edges[9:21, 31:39]).all()
    assert np.nanmax(edges) < 10
    assert np.isnan(image_edges(image, np.zeros_like(valid))).all()


def test_unlabelled_pixels_make_no_edges() -> None:
    codes = np.full((30, 30), 3, dtype=np.uint8)
    codes[:, 15:] = 0
    edges = label_edges(codes, np.where(codes > 0, 100, 0).astype(np.uint8))
    assert np.nanmax(edges) == 0
    assert not is_telling(edges)
    assert is_telling(label_edges(steps(30, 30), np.full((30, 30), 100, dtype=np.uint8)))


def test_no_window_gives_no_estimate_and_one_no_certainty() -> None:
    assert estimate_shift([]) is None
    one = estimate_shift([np.random.default_rng(0).random((17, 17))])
    assert one is not None
    assert one.error == float('inf')
    assert not one.is_certain


def test_flat_edges_do_not_divide_by_zero() -> None:
    flat = np.zeros((40, 40), dtype=np.float32)
    assert np.isfinite(correlation(flat, flat, 4)).all()
    nothing = np.full((40, 40), np.nan, dtype=np.float32)
    assert not correlation(nothing, flat, 4).any()


def told(surfaces: list[NDArray[np.float64]]) -> Finding:
    """What the check says of a sample with these correlations."""
    grid = PixelGrid(CRS.from_epsg(32631), from_origin(400000, 4600000, 10, 10), 100, 100)
    (finding,) = check_shift(SimpleNamespace(correlations=surfaces, grid=grid), [])  # type: ignore[arg-type]
    return finding


def test_what_is_said_of_noise_and_of_small_shifts() -> None:
    rng = np.random.default_rng(1)
    noise = [rng.normal(size=(49, 49)) for _ in range(12)]
    assert (told(noise).level, 'at no displacement' in told(noise).sentence) == ('warning', True)
    assert (told(noise[:4]).level, 'too faint to tell' in told(noise[:4]).sentence) == ('note', True)
    assert (told([]).level, 'not enough edges' in told([]).sentence) == ('note', True)
    row, col = np.ogrid[-24:25, -24:25]
    for east, level in ((0.1, 'ok'), (0.35, 'note')):
        hill = np.exp(-((row - 0.0) ** 2 + (col - east) ** 2) / 4)
        assert told([hill + 0.001 * n for n in noise]).level == level
