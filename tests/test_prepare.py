"""Preparing a store: pixels equal plain rasterio and NumPy, memory is flat, and no kill leaves half a store."""

import errno
import itertools
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from conftest import (
    BANDS,
    IMAGE_NAME,
    LABEL_NAME,
    analytic_codes,
    analytic_image,
    boundless,
    majority_reference,
    repeated,
    write_image,
    write_label,
)
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import from_origin

from landcover_plugin import cli
from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.legend import LEGEND, lookup_table
from landcover_plugin.rasters import locking, storing
from landcover_plugin.rasters.labels import AGGREGATIONS
from landcover_plugin.rasters.landcover import LabelRasters
from landcover_plugin.rasters.mosaics import Mosaics
from landcover_plugin.rasters.storing import StoreRaster
from landcover_plugin.sampling import prepare as module
from landcover_plugin.sampling import prepare_images, prepare_labels, staging, windows
from landcover_plugin.sampling.inventory import take_inventory
from landcover_plugin.sampling.prepare import Prepared, prepare
from landcover_plugin.sampling.store import STORE_FOLDER, Store

CODES, PURITY, LABELLED, SHARES = (f'{p}LC_2018_12_classes.tif' for p in ('', 'purity_', 'labelled_', 'shares_'))

LANDCOVER = (sys.executable, '-m', 'landcover_plugin')

HEIGHT, WIDTH, ORIGIN = 41, 53, (400000, 4600000)

TILED = {'tiled': True, 'blockxsize': 64, 'blockysize': 48}
LAYOUTS = {
    'striped': {},
    'striped-lzw': {'compress': 'lzw'},
    'strips-of-7': {'blockysize': 7, 'compress': 'deflate'},
    'tiled': TILED,
    'tiled-zstd': TILED | {'compress': 'zstd'},
    'big-tiles': {'tiled': True, 'blockxsize': 512, 'blockysize': 512, 'compress': 'deflate'},
}

_MOSAIC, _LABELS = ('bands', 'band_order', 'seasons', 'nodata'), ('source_legend', 'aggregation', 'class_weights')


def run(root: Path, folder: Path | None = None, **settings: Any) -> Prepared:
    """Prepare a folder; settings go where they belong."""
    images = Mosaics(root, **{name: settings.pop(name) for name in _MOSAIC if name in settings})
    labels = LabelRasters(root, **{name: settings.pop(name) for name in _LABELS if name in settings})
    return prepare(images, labels, folder or root / STORE_FOLDER, **({'progress': False} | settings))


def read(path: Path) -> NDArray[Any]:
    """All pixels by plain rasterio."""
    with rasterio.open(path) as src:
        return src.read()


def fine_labels(height: int = HEIGHT * 10, width: int = WIDTH * 10, seed: int = 0, most: int = 12) -> NDArray[np.uint8]:
    """Large and small patches of all values, a river, and ground without labels."""
    rng = np.random.default_rng(seed)

    def noise(edge: int) -> NDArray[np.uint8]:
        coarse = rng.integers(0, most + 1, (height // edge + 1, width // edge + 1), dtype=np.uint8)
        return repeated(coarse, edge)[:height, :width]

    labels = np.where(noise(40) > most // 3, noise(29), noise(3))
    labels[:, width // 3 : width // 3 + 4] = 12
    labels[: height // 5, : width // 5] = 0
    return labels.astype(np.uint8)


def reference(fine: NDArray[Any], factor: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Majority code, its purity and the labelled share in percent, by plain NumPy."""
    codes, total = majority_reference(fine, factor), factor * factor
    blocks = fine.reshape(codes.shape[0], factor, codes.shape[1], factor)
    own = (blocks == codes[:, None, :, None]).sum((1, 3))
    purity = np.where(codes > 0, own * 100 // total, 0)
    return codes, purity.astype(np.uint8), ((blocks > 0).sum((1, 3)) * 100 // total).astype(np.uint8)


def seen_from(fine: NDArray[Any], shift: tuple[float, float], factor: int) -> NDArray[Any]:
    """Labels of 1 m, moved east and north by ``shift`` m, at the centres of the parts of each pixel."""
    rows, cols = (np.arange(n * factor) for n in (HEIGHT, WIDTH))
    row = np.floor((rows + 0.5) * 10 / factor + shift[1]).astype(int)
    col = np.floor((cols + 0.5) * 10 / factor - shift[0]).astype(int)
    inside = ((row >= 0) & (row < fine.shape[0]))[:, None] & ((col >= 0) & (col < fine.shape[1]))
    picked = fine[row.clip(0, fine.shape[0] - 1)[:, None], col.clip(0, fine.shape[1] - 1)]
    return np.where(inside, picked, 0).astype(np.uint8)


def check_labels(store: Path, fine: NDArray[Any], factor: int) -> None:
    for name, wanted in zip((CODES, PURITY, LABELLED), reference(fine, factor), strict=True):
        np.testing.assert_array_equal(read(store / name)[0], wanted, err_msg=name)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a few pixels, as a country has thousands of."""
    monkeypatch.setattr(prepare_labels, 'WINDOW_PIXELS', 100 * 60 * 12)
    monkeypatch.setattr(windows, 'WINDOW_BYTES', 20 * 64 * 64)


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The package's messages, also where a run of the command line has taken them over."""
    monkeypatch.setattr(logging.getLogger('landcover_plugin'), 'propagate', True)
    caplog.set_level(logging.INFO, logger='landcover_plugin')
    return caplog


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One month and labels of 1 m."""
    write_image(tmp_path, analytic_image())
    write_label(tmp_path, fine_labels())
    return tmp_path


# --- labels


@pytest.mark.parametrize('layout', LAYOUTS, ids=str)
@pytest.mark.parametrize('overviews', [False, True])
@pytest.mark.usefixtures('small_windows')
def test_labels_are_the_majority_of_any_layout(tmp_path: Path, layout: str, overviews: bool) -> None:
    fine = fine_labels()
    write_image(tmp_path, analytic_image())
    path = write_label(tmp_path, fine, **LAYOUTS[layout])
    if overviews:  # of another rule, as the official file has them
        with rasterio.open(path, 'r+') as dst:
            dst.build_overviews([2, 4, 8], rasterio.enums.Resampling.nearest)
    store = run(tmp_path).store.folder
    check_labels(store, fine, 10)


@pytest.mark.parametrize('gsd', [1, 2, 5, 10])
def test_labels_of_any_whole_pixel_size(tmp_path: Path, gsd: int) -> None:
    factor = 10 // gsd
    fine = fine_labels(HEIGHT * factor, WIDTH * factor)
    write_image(tmp_path, analytic_image())
    write_label(tmp_path, fine, gsd=gsd)
    check_labels(run(tmp_path, kind='labels').store.folder, fine, factor)


def test_labels_of_quarter_metres_are_not_too_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_labels, 'WINDOW_PIXELS', 1000)  # less than one row of the image
    fine = fine_labels(6 * 40, 20 * 40)
    write_image(tmp_path, analytic_image(6, 20))
    write_label(tmp_path, fine, gsd=0.25)
    check_labels(run(tmp_path, kind='labels').store.folder, fine, 40)


@pytest.mark.parametrize('shift', [(30, -50), (-7, 4), (3, 3), (-200, 100), (0.3, -0.2)], ids=str)
@pytest.mark.parametrize('layout', ['striped', 'tiled'])
@pytest.mark.usefixtures('small_windows')
def test_labels_of_another_origin_and_spelling_of_the_crs(
    tmp_path: Path, shift: tuple[float, float], layout: str
) -> None:
    fine = fine_labels()
    write_image(tmp_path, analytic_image())
    origin = (ORIGIN[0] + shift[0], ORIGIN[1] + shift[1])
    write_label(tmp_path, fine, origin=origin, crs='EPSG:25831', **LAYOUTS[layout])
    factor = 10 if isinstance(shift[0], int) else 11  # of its own accord, an odd number of samples
    check_labels(run(tmp_path, kind='labels').store.folder, seen_from(fine, shift, factor), factor)


@pytest.mark.parametrize(('height', 'width', 'dy', 'dx'), [(90, 120, -105, 203), (800, 900, 201, -99)])
def test_labels_of_a_part_and_of_more(tmp_path: Path, height: int, width: int, dy: int, dx: int) -> None:
    fine = fine_labels(height, width)
    write_image(tmp_path, analytic_image())
    write_label(tmp_path, fine, origin=(ORIGIN[0] + dx, ORIGIN[1] + dy))
    prepared = run(tmp_path, kind='labels')
    seen = boundless(fine, dy, -dx, HEIGHT * 10, WIDTH * 10)
    check_labels(prepared.store.folder, seen, 10)
    counts = np.bincount(seen.ravel(), minlength=13)
    assert prepared.areas['2018'][0] == pytest.approx(counts / 100)
    assert prepared.areas['2018'].sum(1) == pytest.approx([HEIGHT * WIDTH] * 4)


def test_labels_of_another_projection_are_near_the_truth(tmp_path: Path) -> None:
    from pyproj import Transformer

    write_image(tmp_path, analytic_image())
    to_other = Transformer.from_crs(32631, 25830, always_xy=True)
    x, y = to_other.transform(ORIGIN[0] + WIDTH * 5, ORIGIN[1] - HEIGHT * 5)
    fine = fine_labels(900, 1000)
    corner = (round(x) - 500, round(y) + 450)
    write_label(tmp_path, fine, origin=corner, crs='EPSG:25830', **TILED)
    prepared = run(tmp_path, kind='labels')
    cols, rows = np.meshgrid((np.arange(WIDTH * 11) + 0.5) / 1.1, (np.arange(HEIGHT * 11) + 0.5) / 1.1)
    xs, ys = to_other.transform(ORIGIN[0] + cols, ORIGIN[1] - rows)
    seen = fine[np.floor(corner[1] - ys).astype(int), np.floor(xs - corner[0]).astype(int)]
    found = read(prepared.store.folder / CODES)[0]
    assert (found == majority_reference(seen, 11)).mean() > 0.99  # GDAL transforms to an eighth of a pixel
    grid, labels = Mosaics(tmp_path).grid, LabelRasters(tmp_path)
    patches = [labels.read_codes(grid.subgrid(grid.full._replace(row=row, height=8))) for row in range(0, 40, 8)]
    assert (np.concatenate(patches) == found[:40]).mean() > 0.99


def test_labels_in_degrees_are_told_in_pixels_that_make_sense(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image(), gsd=1e-4, origin=(1.5, 41.5), crs='EPSG:4326')
    fine = fine_labels()
    write_label(tmp_path, fine, gsd=1e-5, origin=(1.5, 41.5), crs='EPSG:4326')
    prepared = run(tmp_path, kind='labels')
    check_labels(prepared.store.folder, fine, 10)
    table = (prepared.store.folder / 'areas.csv').read_text().splitlines()
    assert table[0] == 'year,code,class,unit,labels,mode,nearest,weighted'
    assert {row.split('px,')[0].count('"') for row in table[1:]} <= {0, 2} and all(',px,' in row for row in table[1:])
    assert prepared.areas['2018'][0].sum() == pytest.approx(HEIGHT * WIDTH)


def test_labels_of_41_classes(tmp_path: Path) -> None:
    fine = fine_labels(most=41)
    write_image(tmp_path, analytic_image())
    write_label(tmp_path, fine, name='LC_2018_UTM_WGS84_31N_1m.tif', **TILED)
    prepared = run(tmp_path, kind='labels')
    check_labels(prepared.store.folder, lookup_table(parent=True)[fine], 10)
    assert prepared.store.unknown == 0


@pytest.mark.parametrize('aggregation', AGGREGATIONS)
def test_methods_and_their_areas(root: Path, aggregation: Any) -> None:
    prepared = run(root, kind='labels', aggregation=aggregation, class_weights={7: 3.0, 11: 2.0})
    fine = fine_labels()
    blocks = fine.reshape(HEIGHT, 10, WIDTH, 10)
    counts = np.stack([(blocks == code).sum((1, 3)) for code in range(1, 13)]).astype(float)
    weighted = counts * np.array([2.0 if c == 11 else 3.0 if c == 7 else 1.0 for c in range(1, 13)])[:, None, None]
    known = 2 * counts.sum(0) >= 100
    wanted = {
        'mode': np.where(known, counts.argmax(0) + 1, 0),
        'nearest': blocks[:, 5, :, 5],
        'weighted': np.where(known, weighted.argmax(0) + 1, 0),
    }
    np.testing.assert_array_equal(read(prepared.store.folder / CODES)[0], wanted[aggregation])
    areas = prepared.areas['2018']
    assert areas[0] == pytest.approx(np.bincount(fine.ravel(), minlength=13) / 100)
    for row, codes in zip(areas[1:], wanted.values(), strict=True):
        assert row == pytest.approx(np.bincount(codes.ravel(), minlength=13))
    lines = (prepared.store.folder / 'areas.csv').read_text().splitlines()
    assert lines[4].startswith('2018,3,forest,ha,') and float(lines[4].split(',')[4]) == pytest.approx(
        areas[0, 3] / 100
    )


def test_tiles_of_a_year_become_one_raster_in_which_the_first_wins(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image())
    west, east = fine_labels(410, 305, seed=1), fine_labels(410, 300, seed=2)
    write_label(tmp_path, west, name='LC_2018_a.tif')
    write_label(tmp_path, east, name='LC_2018_b.tif', origin=(ORIGIN[0] + 230, ORIGIN[1]), **TILED)
    prepared = run(tmp_path, kind='labels')
    first, second = (reference(boundless(a, 0, c, 410, 530), 10) for a, c in ((west, 0), (east, -230)))
    use = first[0] > 0
    for name, a, b in zip((CODES, PURITY, LABELLED), first, second, strict=True):
        np.testing.assert_array_equal(read(prepared.store.folder / name)[0], np.where(use, a, b))


def test_nothing_is_kept_of_sources_that_can_never_be_prepared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path, analytic_image())
    write_label(tmp_path, fine_labels(), crs='EPSG:32630')
    with pytest.raises(LandcoverError, match='no labelled pixel lies on a measured image pixel'):
        run(tmp_path)
    assert 'finished labels are kept' not in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([IMAGE_NAME, LABEL_NAME])


def test_ground_of_two_rasters_counts_once_in_the_areas(tmp_path: Path) -> None:
    """The second raster holds the first one's ground again, classes and all, and some of its own."""
    write_image(tmp_path, analytic_image())
    whole = np.where(fine_labels() == 0, 3, fine_labels()).astype(np.uint8)
    write_label(tmp_path, whole[:, :300], name='LC_2018_a.tif')
    write_label(tmp_path, whole, name='LC_2018_b.tif', **TILED)
    prepared = run(tmp_path, kind='labels', shares=True)
    areas = prepared.areas['2018']
    assert areas[0] == pytest.approx(np.bincount(whole.ravel(), minlength=13) / 100)
    assert areas[1] == pytest.approx(np.bincount(reference(whole, 10)[0].ravel(), minlength=13))
    for name, wanted in zip((CODES, PURITY, LABELLED), reference(whole, 10), strict=True):
        np.testing.assert_array_equal(read(prepared.store.folder / name)[0], wanted)
    assert (read(prepared.store.folder / SHARES).sum(0) >= 95).all()


@pytest.mark.parametrize('names', [('LC_2017_x.tif', 'LC_2018_x.tif'), ('LC_2018_x.tif', 'cobertes_2017.tif')])
def test_years_keep_their_order(tmp_path: Path, names: tuple[str, str]) -> None:
    write_image(tmp_path, analytic_image())
    for seed, name in enumerate(names):
        write_label(tmp_path, fine_labels(seed=seed), name=name)
    prepared = run(tmp_path, kind='labels')
    wanted = LabelRasters(tmp_path).read(Mosaics(tmp_path).grid)
    found = LabelRasters(prepared.store.folder).read(Mosaics(tmp_path).grid)
    assert len(prepared.store.labels) == 2 and sorted(prepared.areas) == ['2017', '2018']
    for a, b in zip(found[:3], wanted[:3], strict=True):
        np.testing.assert_array_equal(a, b)


def test_nodata_of_the_label_and_unknown_values(tmp_path: Path) -> None:
    fine = fine_labels()
    odd = np.where(fine == 0, 255, fine).astype(np.uint8)
    odd[200:210, 100:220] = 77
    write_image(tmp_path, analytic_image())
    write_label(tmp_path, odd, nodata=255)
    prepared = run(tmp_path, kind='labels')
    assert prepared.store.unknown == prepared.inventory.unknown == 1200
    check_labels(prepared.store.folder, np.where(odd == 77, 0, fine), 10)


@pytest.mark.parametrize(('dtype', 'nodata'), [('int16', -9999), ('float32', np.nan), ('uint16', None)])
def test_labels_of_other_types(tmp_path: Path, dtype: str, nodata: float | None) -> None:
    fine = fine_labels()
    odd = fine.astype(dtype)
    odd[fine == 0] = nodata or 0
    write_image(tmp_path, analytic_image())
    write_label(tmp_path, odd, **({} if nodata is None else {'nodata': nodata}))
    check_labels(run(tmp_path, kind='labels').store.folder, fine, 10)


def test_folders_with_odd_names(tmp_path: Path) -> None:
    root = tmp_path / 'dades [2018] àrea *'
    write_image(root, analytic_image())
    write_label(root, fine_labels())
    check_labels(run(root, root / 'magatzem [1]').store.folder, fine_labels(), 10)
    assert len(Mosaics(root).files) == len(LabelRasters(root).files) == 1  # the store is passed by


def test_shares(root: Path) -> None:
    prepared = run(root, kind='labels', shares=True)
    blocks = fine_labels().reshape(HEIGHT, 10, WIDTH, 10)
    wanted = np.stack([(blocks == code).sum((1, 3)) for code in range(1, 13)])
    with rasterio.open(prepared.store.folder / SHARES) as src:
        np.testing.assert_array_equal(src.read(), wanted)
        assert list(src.descriptions) == LEGEND.names[1:]


# --- images


IMAGE_LAYOUTS = {
    'striped': {},
    'striped-band': {'interleave': 'band', 'compress': 'deflate'},
    'tiled': {'tiled': True, 'blockxsize': 128, 'blockysize': 128, 'compress': 'zstd'},
}


@pytest.mark.parametrize('kind', ['fast', 'compact'])
@pytest.mark.parametrize('layout', IMAGE_LAYOUTS)
@pytest.mark.parametrize('size', [(41, 53), (300, 1100)], ids=str)
@pytest.mark.usefixtures('small_windows')
def test_images_are_copied(tmp_path: Path, kind: Any, layout: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    months = {month: rng.integers(0, 9000, (10, *size), dtype=np.uint16) for month in ('201804', '201808')}
    for month, image in months.items():
        write_image(tmp_path, image, month=month, nodata=0, **IMAGE_LAYOUTS[layout])
    write_label(tmp_path, fine_labels(size[0], size[1]), gsd=10)
    prepared = run(tmp_path, kind=kind)
    assert [Path(f).name for f in prepared.store.images] == [IMAGE_NAME, IMAGE_NAME.replace('04', '08')]
    for path, image in zip(prepared.store.images, months.values(), strict=True):
        with rasterio.open(path) as src:
            np.testing.assert_array_equal(src.read(), image)
            assert src.descriptions == BANDS and src.nodata == 0 and src.crs.to_epsg() == 32631
            assert src.transform == rasterio.open(tmp_path / Path(path).name).transform
            fast = kind == 'fast'
            assert src.interleaving.value == ('BAND' if fast else 'PIXEL')
            assert src.block_shapes[0] == tuple(storing.block_edge(kind, side) for side in size)
            assert (src.compression is None) == fast


@pytest.mark.parametrize('kind', ['fast', 'compact'])
@pytest.mark.parametrize(
    ('dtype', 'nodata'),
    [('uint8', None), ('uint16', 65535), ('int16', -9999), ('float32', None), ('float32', np.nan), ('float64', -1)],
)
def test_types_and_nodata(tmp_path: Path, kind: Any, dtype: str, nodata: float | None) -> None:
    image = (analytic_image() % 251).astype(dtype)
    image[:, :5, :7] = 0 if nodata is None else nodata
    if dtype.startswith('float'):
        image[3, 20, 30] = np.nan
    write_image(tmp_path, image, **({} if nodata is None else {'nodata': nodata}))
    write_label(tmp_path, analytic_codes(), gsd=10)
    prepared = run(tmp_path, kind=kind, cell=8)
    np.testing.assert_array_equal(read(tmp_path / IMAGE_NAME), image)
    np.testing.assert_array_equal(read(Path(prepared.store.images[0])), image)
    stored, sources = Mosaics(prepared.store.images), Mosaics(tmp_path)
    for a, b in zip(stored.read(stored.grid), sources.read(sources.grid), strict=True):
        np.testing.assert_array_equal(a, b)


def test_months_of_different_types_and_bands(tmp_path: Path) -> None:
    """The file of each month holds the bands that all have; a type that holds all of theirs."""
    more = analytic_image(bands=13)
    names = ['B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12']
    write_image(tmp_path, more, month='201804', descriptions=names)
    write_image(tmp_path, analytic_image().astype(np.float32) + 0.5, month='201808')
    write_label(tmp_path, analytic_codes(), gsd=10)
    prepared = run(tmp_path, bands=['B04', 'B03'])
    stored = Mosaics(prepared.store.images)
    assert list(stored.all_bands) == list(BANDS) and stored.dtype == np.float32
    first, second = map(read, map(Path, prepared.store.images))
    np.testing.assert_array_equal(first, more[[names.index(b) for b in BANDS]])
    np.testing.assert_array_equal(second, analytic_image() + 0.5)
    assert prepared.inventory.mean is not None and prepared.inventory.mean.shape[:2] == (2, 2)


@pytest.mark.parametrize('kind', ['fast', 'compact'])
def test_overlapping_tiles_of_a_month_are_merged(tmp_path: Path, kind: Any) -> None:
    """Each tile declares a nodata of its own; what no tile measured has that of the first."""
    image = analytic_image()
    west, east = image[:, :, :30].copy(), image[:, 5:, 20:].copy() + 1
    west[:, 10:20, 22:28], west[:, :9, :9] = 0, 0
    east[:, 12:14, 3:5] = 65535
    write_image(tmp_path, west, month='201804_a', nodata=0)
    write_image(tmp_path, east, month='201804_b', nodata=65535, origin=(ORIGIN[0] + 200, ORIGIN[1] - 50))
    write_image(tmp_path, image, month='201808', compress='lzw')
    write_label(tmp_path, analytic_codes(), gsd=10)
    prepared = run(tmp_path, kind=kind)
    assert [Path(f).name for f in prepared.store.images] == ['S2_201804.tif', IMAGE_NAME.replace('04', '08')]
    wanted, beyond = np.zeros_like(image), boundless(east, -5, -20, HEIGHT, WIDTH)
    wanted[:, :, :30] = west
    wanted = np.where((wanted == 0).all(0) & (beyond != 65535).all(0), beyond, wanted)
    np.testing.assert_array_equal(read(Path(prepared.store.images[0])), wanted)
    np.testing.assert_array_equal(read(Path(prepared.store.images[1])), image)


def test_files_without_names_take_those_of_the_band_order(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image(bands=3), descriptions=None)
    write_label(tmp_path, analytic_codes(), gsd=10)
    prepared = run(tmp_path, band_order=['B04', 'B03', 'B02'])
    with rasterio.open(prepared.store.images[0]) as src:
        assert src.descriptions == ('B04', 'B03', 'B02')


def test_names_in_small_letters_and_of_vrts(tmp_path: Path) -> None:
    write_image(tmp_path / 'parts', analytic_image()).rename(tmp_path / 'part.tif')
    vrt = tmp_path / 's2_cat_201804.vrt'
    with rasterio.open(tmp_path / 'part.tif') as src:
        rasterio.shutil.copy(src, vrt, driver='VRT')
    write_label(tmp_path, analytic_codes(), gsd=10)
    prepared = run(tmp_path, band_order=BANDS)
    np.testing.assert_array_equal(read(Path(prepared.store.images[0])), analytic_image())
    os.utime(tmp_path / 'part.tif', (1, 1))
    assert 'has changed' in (prepared.store.image_mismatch(Mosaics(tmp_path, band_order=BANDS)) or '')


# --- inventory


@pytest.mark.parametrize('kind', ['fast', 'compact', 'labels'])
@pytest.mark.parametrize('seasons', ['separate', 'stack'])
@pytest.mark.usefixtures('small_windows')
def test_the_inventory_is_that_of_the_sources(tmp_path: Path, kind: Any, seasons: Any) -> None:
    image = analytic_image(90, 150)
    for month in ('201804', '201808'):
        image[:, 3:40, int(month[-2:]) :][:, :, :30] = 0
        image[1, 60:, 100:] = 0  # measured, though not in this band
        write_image(tmp_path, image, month=month)
    write_label(tmp_path, fine_labels(900, 1500))
    settings = {'bands': ['B03', 'B11'], 'seasons': seasons}
    images, labels = Mosaics(tmp_path, **settings), LabelRasters(tmp_path)
    prepared = run(tmp_path, tmp_path / 'store', kind=kind, cell=20, **settings)
    for cell in (20, 40):
        wanted = take_inventory(images, labels, cell, progress=False)
        chosen = Mosaics(prepared.store.images, **settings) if prepared.store.images else images
        found = prepared.store.inventory(chosen, cell)
        assert found is not None
        for name in ('counts', 'valid', 'purity', 'mean', 'std'):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-4, atol=1e-3, err_msg=name)
    assert prepared.store.inventory(chosen, 30) is None


def test_the_inventory_opens_in_geopandas(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('landcover_plugin.sampling.inventory_table._CELLS', 8)  # in several parts
    prepared = run(root, cell=16)
    frame = gpd.read_parquet(prepared.store.folder / 'inventory.parquet')
    assert frame.crs.to_epsg() == 32631 and len(frame) == 3 * 4
    for cell in frame.itertuples():
        x0, y0 = ORIGIN[0] + cell.col * 160, ORIGIN[1] - cell.row * 160
        x1, y1 = min(x0 + 160, ORIGIN[0] + WIDTH * 10), max(y0 - 160, ORIGIN[1] - HEIGHT * 10)
        assert cell.geometry.bounds == (x0, y1, x1, y0) and cell.geometry.area == cell.pixels * 100
    wanted = majority_reference(fine_labels(), 10)
    one = frame[(frame.row == 1) & (frame.col == 2)].iloc[0]
    assert one['class_12'] == (wanted[16:32, 32:48] == 12).sum()
    assert one['mean 2018-04 B04'] == pytest.approx(analytic_image()[2, 16:32, 32:48].mean(), rel=1e-6)
    assert one['valid_2018-04'] == 256 and one['labelled'] == pytest.approx((wanted[16:32, 32:48] > 0).mean())


def test_gdal_opens_each_file_as_what_it_is(root: Path) -> None:
    colours = {code: (code * 20, 255 - code * 20, code, 255) for code in range(13)}
    write_label(root, fine_labels(), colours=colours, nodata=0)
    prepared = run(root, kind='fast', shares=True)
    with rasterio.open(prepared.store.folder / CODES) as src:
        assert src.nodata == 0 and src.descriptions == ('class',) and src.crs.to_epsg() == 32631
        assert {code: src.colormap(1)[code] for code in range(1, 13)} == {c: colours[c] for c in range(1, 13)}
        assert src.tags()['AGGREGATION'] == 'mode' and src.tags()['CLASS_3'] == 'forest'
        assert src.tags()['SOURCES'] == LABEL_NAME
    for name, text in ((PURITY, 'purity in percent'), (LABELLED, 'labelled share in percent')):
        with rasterio.open(prepared.store.folder / name) as src:
            assert src.descriptions == (text,) and src.dtypes == ('uint8',)
            assert src.nodata == (0 if 'purity in' in text else None)
    described = {f'{CODES}.aux.xml', str(Path(CODES).with_suffix('.qml'))}  # QGIS may rewrite them: not in the list
    assert all('forest' in (prepared.store.folder / name).read_text() for name in described)
    assert set(json.loads((prepared.store.folder / 'store.json').read_text())['files']) == {
        p.name for p in prepared.store.folder.iterdir()
    } - {'store.json', *described}


# --- what is refused


def test_other_folders_are_never_replaced(root: Path) -> None:
    keep = root / 'mine'
    keep.mkdir()
    (keep / 'thesis.txt').write_text('x')
    for folder in (keep, root, keep / 'thesis.txt', Path('/')):
        with pytest.raises(LandcoverError, match='no training store, and would not be replaced'):
            run(root, folder, overwrite=True)
    assert (keep / 'thesis.txt').read_text() == 'x'
    empty = root / 'empty'
    empty.mkdir()
    run(root, empty, kind='labels')
    with pytest.raises(LandcoverError, match='exists already: replace it with --overwrite'):
        run(root, empty, kind='labels')
    run(root, empty, kind='labels', overwrite=True)


def test_a_link_to_another_disk_is_followed(root: Path, tmp_path: Path) -> None:
    (root / '.landcover').mkdir()
    (root / STORE_FOLDER).symlink_to(tmp_path / 'scratch')
    run(root, kind='labels')
    assert (root / STORE_FOLDER).is_symlink() and (tmp_path / 'scratch' / 'store.json').is_file()


def test_a_store_is_no_source(root: Path) -> None:
    store = run(root).store.folder
    with pytest.raises(LandcoverError, match='is a training store already: name the folder of the sources'):
        run(store)


@pytest.mark.parametrize('folder', ['gs://bucket/store', '/vsigs/bucket/store', 's3://a/b'])
def test_stores_are_local(root: Path, folder: str) -> None:
    with pytest.raises(LandcoverError, match='not on a local disk: name a local folder for the store with --output'):
        run(root, Path(folder))


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [({'kind': 'small'}, 'the store is one of fast, compact, labels'), ({'cell': 3}, 'must be at least 4 px, got 3')],
)
def test_settings_are_checked(root: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        run(root, **settings)


def test_labels_of_other_ground_are_told_before_images_are_copied(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_label(root, fine_labels(), origin=(500000, 4500000))
    monkeypatch.setattr(prepare_images.ImageCopy, 'write', lambda *a, **k: pytest.fail('copied'))
    with pytest.raises(LandcoverError, match='do the label and image rasters show the same ground'):
        run(root)
    assert not Store.open(root / STORE_FOLDER)


def test_a_damaged_source_is_told_and_leaves_no_store(root: Path) -> None:
    path = write_image(root, repeated(analytic_image()[0], 8)[None].repeat(10, 0), compress='deflate')
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    path.write_bytes(data)
    with pytest.raises(LandcoverError, match=r'cannot be read .* may be truncated or damaged'):
        run(root)
    assert not (root / STORE_FOLDER).exists()
    left = [p.name for p in (root / '.landcover' / '.store.part').iterdir()]
    assert IMAGE_NAME not in left and CODES in left  # finished labels are gone on with


# --- disks


def test_too_little_space_is_told_before_any_reading(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_labels.LabelCopy, 'write', lambda *a: pytest.fail('read'))
    usage = type('Usage', (), {'free': 1000})
    monkeypatch.setattr(staging.shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(LandcoverError, match=r'needs about 0.\d\d GB, 0.00 GB are free .*--output.*--store compact'):
        run(root, kind='fast')
    assert not (root / '.landcover').exists()


def test_space_in_use_by_a_killed_run_is_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = module.space_needed(Mosaics(root), 'fast', shares=True)
    assert need >= (10 * 2 + 2) * HEIGHT * WIDTH
    folder = root / 'part'
    folder.mkdir()
    (folder / 'half.tif').write_bytes(bytes(2**20))
    monkeypatch.setattr(staging.shutil, 'disk_usage', lambda path: type('Usage', (), {'free': 2**26}))
    staging.check_space(folder, 2**19, '')
    with pytest.raises(LandcoverError, match='the store needs about'):
        staging.check_space(folder, 2**22, '')


def landcover(*arguments: Any, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LANDCOVER, *map(str, arguments)], capture_output=True, text=True, **settings)


def noisy_scene(root: Path, size: int = 700) -> Path:
    """Some 30 MB that do not compress."""
    rng = np.random.default_rng(0)
    for month in ('201804', '201808'):
        write_image(root, rng.integers(1, 60000, (10, size, size), dtype=np.uint16), month=month)
    write_label(root, rng.integers(1, 13, (size, size), dtype=np.uint8), gsd=10)
    return root


@pytest.mark.parametrize('kind', ['fast', 'compact'])
def test_a_file_that_may_not_grow(tmp_path: Path, kind: str) -> None:
    noisy_scene(tmp_path, 500)
    limit = 2 * 2**20
    done = landcover(
        'prepare', tmp_path, '--store', kind,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert 'cannot be written' in done.stderr.splitlines()[-1] and 'Traceback' not in done.stderr
    assert not (tmp_path / STORE_FOLDER).exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / 'disk'
    mount.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', str(mount)], capture_output=True)
    if done.returncode:
        pytest.skip('may not mount a disk here')
    yield mount
    subprocess.run(['umount', '-l', str(mount)], check=True)


@pytest.mark.parametrize('kind', ['fast', 'compact', 'labels'])
def test_a_disk_that_fills_up(tmp_path: Path, small_disk: Path, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy_scene(tmp_path)
    (small_disk / 'other').write_bytes(bytes(2**20 * 12 if kind == 'labels' else 2**20))
    with pytest.raises(LandcoverError, match=r'the store needs about .* are free|cannot be written'):
        run(tmp_path, small_disk / 'store', kind=kind)
    monkeypatch.setattr(staging, 'check_space', lambda *a: None)
    monkeypatch.setattr(module, 'check_space', lambda *a: None)
    with pytest.raises(LandcoverError, match=r'cannot be written .*(free on its disk|another disk)'):
        run(tmp_path, small_disk / 'store', kind=kind)
    assert not (small_disk / 'store').exists()
    (small_disk / 'other').unlink()
    if kind == 'labels':
        run(tmp_path, small_disk / 'store', kind=kind)


@pytest.mark.parametrize('folder', ['/proc/nothing/store', '/dev/null/store'])
def test_folders_that_cannot_be(root: Path, folder: str) -> None:
    with pytest.raises(LandcoverError, match=r'cannot be written .*choose a'):
        run(root, Path(folder))


def test_a_read_only_disk(root: Path, small_disk: Path) -> None:
    subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
    with pytest.raises(LandcoverError, match=r'Read-only file system.*: choose a folder in which you may write'):
        run(root, small_disk / 'store')


# --- kills


def pixels_of(store: Path) -> dict[str, Any]:
    """What a store holds, apart from when it was made."""
    rasters = {p.name: read(p).tobytes() for p in store.glob('*.tif')}
    return rasters | {n: (store / n).read_bytes() for n in ('areas.csv', 'inventory.parquet')}


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['fast', 'compact'])
def test_no_kill_leaves_half_a_store(tmp_path: Path, kind: str) -> None:
    noisy_scene(tmp_path, 1500)
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    started = time.monotonic()
    assert landcover('prepare', tmp_path, '--store', kind, '--output', whole).returncode == 0
    took = time.monotonic() - started
    kills = 0
    for delay in np.random.default_rng(0).uniform(0.2, 1.05, 14) * took:
        process = subprocess.Popen(
            [*LANDCOVER, 'prepare', str(tmp_path), '--store', kind, '--output', str(killed), '--overwrite'],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        store = Store.open(killed)  # raises if it is not whole
        if store is not None:
            assert pixels_of(killed) == pixels_of(whole)
    assert kills
    assert landcover('prepare', tmp_path, '--store', kind, '--output', killed, '--overwrite').returncode == 0
    assert pixels_of(killed) == pixels_of(whole)
    assert sorted(p.name for p in killed.iterdir()) == sorted(p.name for p in whole.iterdir())
    assert not list(tmp_path.glob('.killed*'))


def test_finished_labels_are_not_done_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch, messages: pytest.LogCaptureFixture
) -> None:
    whole = run(root, root / 'whole')
    with monkeypatch.context() as patch:
        patch.setattr(prepare_images.ImageCopy, 'write', lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(root)
    assert 'finished labels are kept in' in messages.text
    (staging.staging_of(whole.store.folder.parent / STORE_FOLDER) / '.inventory-1.parquet').write_bytes(b'half')
    with monkeypatch.context() as patch:
        patch.setattr(prepare_labels.LabelCopy, '_write', lambda *a: pytest.fail('done again'))
        again = run(root)
    assert 'the labels of 2018 were finished by an earlier run' in messages.text
    assert pixels_of(again.store.folder) == pixels_of(whole.store.folder)
    assert not list((root / '.landcover').glob('.*'))
    assert {p.name for p in again.store.folder.iterdir()} == {p.name for p in whole.store.folder.iterdir()}


@pytest.mark.parametrize('changed', ['source', 'aggregation', 'layout'])
def test_labels_of_other_sources_or_settings_are_done_again(
    root: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(prepare_images.ImageCopy, 'write', lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(root)
    settings: dict[str, Any] = {'aggregation': {'aggregation': 'nearest'}, 'layout': {'kind': 'fast'}}.get(changed, {})
    if changed == 'source':
        write_label(root, fine_labels(seed=9))
        os.utime(root / LABEL_NAME, (1, 1))
    again = run(root, **settings)
    whole = run(root, root / 'whole', **settings)
    assert pixels_of(again.store.folder) == pixels_of(whole.store.folder)


def test_a_store_is_there_again_if_a_run_was_killed_while_replacing_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = run(root, kind='labels').store.folder
    inode = (store / CODES).stat().st_ino
    store.rename(store.with_name('.store.old'))
    monkeypatch.setattr(prepare_labels.LabelCopy, 'write', lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(root, kind='labels', overwrite=True)
    assert Store.open(store) and (store / CODES).stat().st_ino == inode


def test_an_interrupt_ends_in_a_sentence(tmp_path: Path) -> None:
    noisy_scene(tmp_path, 2000)
    process = subprocess.Popen(
        [*LANDCOVER, 'prepare', str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    part = tmp_path / '.landcover' / '.store.part'
    while not (part / f'.{CODES}.json').exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == 'landcover: interrupted' and 'Traceback' not in err
    assert 'finished labels are kept' in err and out == ''
    assert not (tmp_path / STORE_FOLDER).exists()


def test_two_runs_at_once(root: Path) -> None:
    folder = root / 'store'
    with (
        staging.staged(folder, {'plan': 1}),
        pytest.raises(LandcoverError, match=r'another landcover prepare is writing .*wait for it, or stop it'),
    ):
        run(root, folder)
    run(root, folder, kind='labels')


def test_a_disk_without_locks_is_written_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(locking.fcntl, 'flock', no_locks)
    assert run(root, kind='labels').store


# --- rasters of the store


def test_a_disk_that_cannot_set_space_aside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, 'Operation not supported')

    monkeypatch.setattr(storing.os, 'posix_fallocate', refused)
    np.testing.assert_array_equal(read(Path(run(root, kind='fast').store.images[0])), analytic_image())


def test_pixels_that_did_not_arrive_are_noticed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing.zlib, 'crc32', Mock(side_effect=itertools.count()))
    with pytest.raises(LandcoverError, match=r'cannot be written \(the file is incomplete\)'):
        run(root)
    assert not (root / STORE_FOLDER).exists()


def test_a_block_that_never_came_is_noticed(tmp_path: Path) -> None:
    grid = PixelGrid(CRS.from_epsg(32631), from_origin(*ORIGIN, 10, 10), 200, 300)
    settings: dict[str, Any] = {'layout': 'compact', 'dtype': np.uint8, 'bands': ['class']}
    with (
        pytest.raises(LandcoverError, match='the file is incomplete'),
        StoreRaster(tmp_path / 'a.tif', grid, **settings) as a,
    ):
        a.write(PixelWindow(0, 0, 100, 300), np.ones((1, 100, 300), np.uint8))
    assert not (tmp_path / 'a.tif').exists()
    with StoreRaster(tmp_path / 'b.tif', grid, **settings) as b:  # blocks without anything are there
        b.write(grid.full, np.zeros((1, 200, 300), np.uint8))
    assert not read(tmp_path / 'b.tif').any()


@pytest.mark.parametrize('layout', ['fast', 'compact'])
def test_any_windows_make_the_same_raster(tmp_path: Path, layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(storing.BLOCKS, layout, 32)
    image = analytic_image(75, 110, bands=3)
    grid = PixelGrid(CRS.from_epsg(32631), from_origin(*ORIGIN, 10, 10), 75, 110)
    for height, width in ((75, 110), (7, 110), (32, 32), (64, 50), (1, 13)):
        with StoreRaster(tmp_path / 'a.tif', grid, layout=layout, dtype=np.uint16, bands=['a', 'b', 'c']) as raster:
            for row, col in itertools.product(range(0, 75, height), range(0, 110, width)):
                window = PixelWindow(row, col, height, width).intersection(grid.full)
                raster.write(window, image[(slice(None), *window.slices_in(grid.full))])
        np.testing.assert_array_equal(read(tmp_path / 'a.tif'), image, err_msg=f'{height} x {width}')


def test_compact_files_hold_no_dead_blocks(tmp_path: Path, small_windows: None) -> None:
    """Rows of a striped source fill a block bit by bit; it is written once, when it is full."""
    rng = np.random.default_rng(0)
    image = rng.integers(1, 60000, (10, 400, 900), dtype=np.uint16)
    write_image(tmp_path, image)
    write_label(tmp_path, rng.integers(1, 13, (400, 900), dtype=np.uint8), gsd=10)
    path = Path(run(tmp_path).store.images[0])
    with rasterio.open(path) as src:
        rows, cols = (-(-n // block) for n, block in zip(src.shape, src.block_shapes[0], strict=True))
        sizes = [int(src.get_tag_item(f'BLOCK_SIZE_{c}_{r}', 'TIFF', bidx=1)) for r in range(rows) for c in range(cols)]
    assert path.stat().st_size < 1.02 * sum(sizes) + 10_000


# --- the command


def test_the_command_reports(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(['prepare', str(root), '--aggregation', 'weighted', '--weights', '11=3,7=2', '--shares']) == 0
    out, err = capsys.readouterr()
    assert 'areas 2018 in ha, and how each method of aggregation changes them:' in out
    assert out.splitlines()[-1].startswith(f'compact store: {root / STORE_FOLDER} (') and err == ''
    assert out.splitlines()[-2] == 'train on these labels with --data.aggregation weighted'
    widths = {len(line) for line in out.splitlines()[1:-2]}
    assert len(widths) == 1
    assert cli.main(['prepare', str(root)]) == 1
    assert 'exists already' in capsys.readouterr().err


def test_unknown_values_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = fine_labels()
    fine[200:210, 100:220] = 77
    write_image(tmp_path, analytic_image())
    write_label(tmp_path, fine)
    assert cli.main(['prepare', str(tmp_path), '--store', 'labels']) == 0
    assert (
        'warning: ' in (out := capsys.readouterr().out) and '1,200 label pixels hold values outside the legend' in out
    )


def test_weights_without_their_method_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(['prepare', str(root), '--weights', '11=3']) == 1
    assert '--weights count in --aggregation weighted only' in capsys.readouterr().err


def test_remote_data_need_an_output(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path('/'))
    assert cli.main(['prepare', 'https://x.org/data']) == 1
    assert '--output' in capsys.readouterr().err and not Path('https:').exists()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(['prepare', '--help'])
    text = capsys.readouterr().out
    assert end.value.code == 0 and max(map(len, text.splitlines())) <= 120
    for words in ('compact', 'fast', 'labels', 'landcover prepare data', 'resumes'):
        assert words in text


# --- memory


def large_scene(root: Path, size: int, layout: dict[str, Any]) -> Path:
    """Labels of ``size`` px, written by blocks, and two months that fit; compressible."""
    rng = np.random.default_rng(0)
    options = {'driver': 'GTiff', 'crs': 'EPSG:32631', 'compress': 'zstd', 'zstd_level': 1, **layout}
    labels = repeated(rng.integers(1, 13, (64, 64), dtype=np.uint8), 16)
    image = rng.integers(1, 5000, (10, 64, size // 10), dtype=np.uint16)
    for name, pixels, count, gsd in (
        (LABEL_NAME, np.tile(labels, (1, -(-size // 1024)))[None, :, :size], 1, 1),
        (IMAGE_NAME, image, 10, 10),
        (IMAGE_NAME.replace('04', '08'), image, 10, 10),
    ):
        edge, dtype = size // gsd, pixels.dtype
        root.mkdir(exist_ok=True)
        with rasterio.open(
            root / name, 'w', width=edge, height=edge, count=count, dtype=dtype, nodata=0, bigtiff='if_safer',
            transform=from_origin(*ORIGIN, gsd, gsd), interleave='pixel', **options,
        ) as dst:  # fmt: skip
            for row in range(0, edge, pixels.shape[1]):
                rows = min(pixels.shape[1], edge - row)
                dst.write(pixels[:, :rows], window=((row, row + rows), (0, edge)))
    return root


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='Linux tells the peak there')
@pytest.mark.parametrize('layout', ['striped', 'tiled'])
def test_memory_does_not_grow_with_the_rasters(tmp_path: Path, layout: str) -> None:
    options = {'tiled': True, 'blockxsize': 512, 'blockysize': 512} if layout == 'tiled' else {}
    peaks = {}
    for size in (20_000, 60_000):
        large_scene(tmp_path / str(size), size, options)
        code = f"""
            from landcover_plugin.cli import main
            assert main(['prepare', {str(tmp_path / str(size))!r}]) == 0
            lines = open('/proc/self/status').read().splitlines()  # getrusage inherits the peak of the parent
            print(next(line for line in lines if line.startswith('VmHWM')).split()[1])
        """
        done = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks[size] = int(done.stdout.split()[-1]) / 1024
    # nine times the area; the smaller one does not fill GDAL's cache of 128 MB for the blocks of images
    assert peaks[60_000] < peaks[20_000] + 300 and peaks[60_000] < 900, peaks
