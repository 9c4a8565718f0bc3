"""The datasets: every patch is the file's own pixels, under TorchGeo's own samplers, splits and operators too."""

import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import torch
from conftest import (
    BANDS,
    IMAGE_NAME,
    LABEL_NAME,
    RELOCATED,
    analytic_codes,
    analytic_image,
    boundless,
    majority_reference,
    repeated,
    write_image,
    write_label,
    write_raster,
)
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.warp import calculate_default_transform, reproject
from torch.utils.data import DataLoader
from torchgeo.datasets import (
    IntersectionDataset,
    RasterDataset,
    random_bbox_assignment,
    random_grid_cell_assignment,
    roi_split,
)
from torchgeo.datasets.errors import RGBBandsMissingError
from torchgeo.samplers import (
    GriddedPatchSampler,
    RandomPatchSampler,
    RandomTimestampSampler,
    SequentialTimestampSampler,
)

from landcover_plugin.datasets.icgc import ICGCLandCover
from landcover_plugin.datasets.sentinel2 import CataloniaSentinel2, true_colour
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError, LandcoverWarning
from landcover_plugin.grid import AnchoredRes
from landcover_plugin.legend import LEGEND, PARENTS, lookup_table
from landcover_plugin.rasters import landcover
from landcover_plugin.rasters.landcover import LABEL_EXAMPLE, sample_values
from landcover_plugin.rasters.mosaics import MOSAIC_EXAMPLE, band_name

HEIGHT, WIDTH = 41, 53
ORIGINS = [(400000, 4600000), (400003, 4600007)]


def on_disk(sample: dict) -> NDArray[np.uint16]:
    """The digital numbers that a sample's reflectance stands for."""
    return np.round(sample['image'].numpy() * 10_000).astype(np.uint16)


def labelled(seed: int = 0, height: int = HEIGHT * 10, width: int = WIDTH * 10) -> NDArray[np.uint8]:
    """1 m labels in which majority, ties and no data all matter."""
    rng = np.random.default_rng(seed)
    ground = boundless(repeated(analytic_codes(), 10), 0, 0, height, width)
    return np.where(rng.random((height, width)) < 0.45, rng.integers(0, 13, (height, width)), ground).astype(np.uint8)


def queries(origin: tuple[float, float], n: int, seed: int) -> list[tuple[slice, slice, int, int, int, int]]:
    """Random queries, on and off the pixel edges, across every border: x, y and the window they must give.

    A corner lies at most 0.49 px from its pixel edge, so which window is nearest is no matter of rounding.
    """
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < n:
        row, col, height, width = map(int, (*rng.integers(-20, 45, 2), *rng.integers(1, 33, 2)))
        if row + height < 2 or col + width < 2 or row > HEIGHT - 2 or col > WIDTH - 2:
            continue
        dx, dy = rng.uniform(-0.49, 0.49, 2) * rng.integers(0, 2)
        x, y = origin[0] + 10 * (col + dx), origin[1] - 10 * (row + dy)
        found.append((slice(x, x + 10 * width), slice(y - 10 * height, y), row, col, height, width))
    return found


@pytest.fixture(params=ORIGINS, ids=['on 10 m', 'on 1 m'])
def origin(request: pytest.FixtureRequest) -> tuple[float, float]:
    return request.param


# --- exact pixels


@pytest.mark.parametrize(
    'labels_from',
    [(0, 0, 410, 530), (-37, 13, 500, 600), (60, -80, 250, 310)],  # m east, m north, rows, columns
    ids=['same', 'west and north of the image', 'smaller than the image'],
)
@pytest.mark.parametrize('crs', ['EPSG:32631', 'EPSG:25831'])
@pytest.mark.parametrize('swapped', [False, True])
def test_image_and_mask_are_exact_and_aligned(
    tmp_path: Path, origin: tuple[float, float], labels_from: tuple[int, int, int, int], crs: str, swapped: bool
) -> None:
    east, north, height, width = labels_from
    array, codes = analytic_image(), labelled(1, height, width)
    image_path = write_image(tmp_path, array, origin=origin, nodata=0)
    write_label(tmp_path, codes, origin=(origin[0] + east, origin[1] + north), crs=crs)
    images, labels = CataloniaSentinel2(tmp_path), ICGCLandCover(tmp_path)
    both = labels & images if swapped else images & labels
    read = 0
    with rasterio.open(image_path) as src:
        for x, y, row, col, h, w in queries(origin, 40, seed=2):
            try:
                sample = both[x, y]
            except IndexError:  # beyond the smaller label
                continue
            read += 1
            window = rasterio.windows.Window(col, row, w, h)
            plain = src.read(window=window, boundless=True, fill_value=0)
            assert np.array_equal(on_disk(sample), plain)
            assert np.array_equal(plain, boundless(array, row, col, h, w))
            fine = boundless(codes, row * 10 + north, col * 10 - east, h * 10, w * 10)
            assert np.array_equal(sample['mask'].numpy(), majority_reference(fine, 10))
            assert sample['mask'].shape == sample['valid'].shape == (h, w) and sample['image'].shape == (10, h, w)
            assert np.array_equal(sample['valid'].numpy(), plain[0] > 0)
            left, top = origin[0] + 10 * col, origin[1] - 10 * row
            place = [left, left + 10 * w, 10, top - 10 * h, top, 10]
            assert sample['bounds'].reshape(2, 9)[:, :6].tolist() == [place, place]
            assert sample['transform'].reshape(2, 9)[:, :6].tolist() == [[10, 0, left, 0, -10, top]] * 2
    assert read > 20
    assert sample['mask'].dtype == torch.int64 and sample['image'].dtype == torch.float32
    assert sample['valid'].dtype == torch.bool and sample['bounds'].dtype == torch.float64


def test_a_whole_dataset_is_its_whole_file(tmp_path: Path, origin: tuple[float, float]) -> None:
    write_image(tmp_path, analytic_image(), origin=origin)
    images = CataloniaSentinel2(tmp_path)
    for index in (images.bounds, slice(None), (slice(None), slice(None)), images.bounds[:2]):
        assert np.array_equal(on_disk(images[index]), analytic_image())
    assert np.array_equal(on_disk(images[origin[0] + 100 :])[:, :, 0], analytic_image()[:, :, 10])
    assert images.grid.bounds() == (origin[0], origin[1] - 410, origin[0] + 530, origin[1])


@pytest.mark.parametrize('query', ['reversed', 'empty', 'nan'])
def test_a_query_that_is_no_rectangle_is_told(tmp_path: Path, query: str) -> None:
    write_image(tmp_path, analytic_image())
    x = {'reversed': slice(400100, 400050), 'empty': slice(400100, 400100), 'nan': slice(float('nan'), 400100)}[query]
    with pytest.raises(LandcoverError, match=r'swapped|is empty|finite'):
        CataloniaSentinel2(tmp_path)[x, 4599800:4599900]


def test_a_query_that_meets_nothing_is_an_index_error(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image())
    images = CataloniaSentinel2(tmp_path)
    for query in (
        (slice(300000, 300100), slice(4599800, 4599900)),
        (slice(400530, 400600), slice(4599800, 4599900)),  # touches the border only
        (slice(None), slice(None), slice(pd.Timestamp('2018-06-01'), pd.Timestamp('2018-07-01'))),
    ):
        with pytest.raises(IndexError, match='not found in CataloniaSentinel2'):
            images[query]


def test_another_pixel_size_or_crs_is_resampled_on_request(tmp_path: Path) -> None:
    array = analytic_image()
    write_image(tmp_path, array, nodata=0)
    fine = CataloniaSentinel2(tmp_path, res=5)[400100:400200, 4599800:4599900]
    assert fine['image'].shape == (10, 20, 20) and fine['valid'].all()
    centre = array[:, 10:20, 10:20].astype(float)
    assert np.abs(on_disk(fine)[:, ::2, ::2] - (centre - 25.25)).max() <= 1  # a quarter pixel up and left
    from pyproj import CRS

    zone30 = CataloniaSentinel2(tmp_path, crs=CRS.from_epsg(25830))
    x, y, _ = zone30.bounds
    middle = ((x.start + x.stop) / 2, (y.start + y.stop) / 2)
    part = zone30[middle[0] - 60 : middle[0] + 60, middle[1] - 60 : middle[1] + 60]
    assert part['valid'].all() and abs(int(on_disk(part)[0].mean()) - int(array[0, 18:23, 24:29].mean())) < 160


# --- classes of the label


def parent_labels() -> NDArray[np.uint8]:
    """1 m labels with all 41 values, in squares that do not fit the pixels."""
    rng = np.random.default_rng(3)
    return repeated(rng.integers(0, 42, (60, 80), dtype=np.uint8), 7)[: HEIGHT * 10, : WIDTH * 10]


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('cobertes-sol-v1r0-2018.tif', 'auto'),
        ('LC_2018_UTM_WGS84_31N_1m.tif', 'auto'),
        ('LC_2018_UTM_WGS84_31N_1m.tif', '41'),
        (LABEL_NAME, '41'),  # told wins over the name
    ],
)
def test_the_41_classes_become_12(tmp_path: Path, name: str, told: str) -> None:
    values = parent_labels()
    write_label(tmp_path, values, name=name, crs='EPSG:25831')
    write_image(tmp_path, analytic_image())
    labels = ICGCLandCover(tmp_path, source_legend=told)  # type: ignore[arg-type]
    expected = majority_reference(lookup_table(parent=True)[values], 10)
    sample = (CataloniaSentinel2(tmp_path) & labels)[400000:400530, 4599590:4600000]
    assert np.array_equal(sample['mask'].numpy(), expected) and labels.unknown_count == 0
    assert np.array_equal(labels.read_codes(CataloniaSentinel2(tmp_path).grid), expected)


def test_the_12_classes_are_told_by_name_or_by_values(tmp_path: Path) -> None:
    codes = labelled()
    for folder, name in (
        (tmp_path / 'a', LABEL_NAME),
        (tmp_path / 'b', 'LC_2018.tif'),
        (tmp_path / 'c', 'lc_2018_x.tif'),
    ):
        write_label(folder, codes, name=name)
        assert np.array_equal(ICGCLandCover(folder)[400000:400530, 4599590:4600000]['mask'].numpy(), codes)


def test_a_name_against_the_values_is_warned_about(tmp_path: Path) -> None:
    write_label(tmp_path, parent_labels())  # named 12_Classes
    labels = ICGCLandCover(tmp_path)
    with pytest.warns(LandcoverWarning, match=r'values that are not in the legend \([\d,]+ label pixels so far\)'):
        mask = labels[400000:400530, 4599590:4600000]['mask']
    assert labels.unknown_count == (parent_labels() > 12).sum() and mask.max() == 12


def test_unknown_values_are_counted_and_warned_about_once(tmp_path: Path) -> None:
    codes = labelled()
    codes[:30, :40] = 77
    write_label(tmp_path, codes)
    labels = ICGCLandCover(tmp_path)
    with pytest.warns(LandcoverWarning, match='they are treated as no data') as caught:
        masks = [labels[400000:400100, 4599900:4600000]['mask'] for _ in range(3)]
    assert len(caught) == 1 and labels.unknown_count == 3 * 30 * 40
    assert not masks[0][:30, :40].any() and np.array_equal(masks[0][30:], codes[30:100, :100])


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
def test_declared_nodata_and_nan_are_quietly_no_data(tmp_path: Path, dtype: str) -> None:
    codes = labelled(4)
    missing = 255 if dtype == 'uint8' else -1 if dtype != 'uint16' else 65535
    stored = np.where(codes == 0, missing, codes.astype(int)).astype(dtype)
    if dtype == 'float32':
        stored[stored == 12] = np.nan
        codes[codes == 12] = 0
    write_label(tmp_path, stored, nodata=missing)
    write_image(tmp_path, analytic_image())
    with warnings.catch_warnings():
        warnings.simplefilter('error', LandcoverWarning)
        warnings.simplefilter('error', RuntimeWarning)
        labels = ICGCLandCover(tmp_path)
        sample = (CataloniaSentinel2(tmp_path) & labels)[400000:400530, 4599590:4600000]
    assert np.array_equal(sample['mask'].numpy(), majority_reference(codes, 10)) and labels.unknown_count == 0


def test_labels_in_another_zone_follow_the_truth(tmp_path: Path) -> None:
    ground = boundless(repeated(analytic_codes(20, 20), 43), 0, 0, HEIGHT * 10, WIDTH * 10)
    height, width = ground.shape
    source, bounds = from_origin(400000, 4600000, 1, 1), (400000, 4600000 - height, 400000 + width, 4600000)
    transform, columns, rows = calculate_default_transform('EPSG:32631', 'EPSG:25830', width, height, *bounds)
    there = np.zeros((rows, columns), np.uint8)
    reproject(ground, there, src_transform=source, src_crs='EPSG:32631', dst_transform=transform, dst_crs='EPSG:25830')
    write_label(tmp_path, there, crs='EPSG:25830', origin=(transform.c, transform.f), gsd=(transform.a, -transform.e))
    write_image(tmp_path, analytic_image())
    both = CataloniaSentinel2(tmp_path) & ICGCLandCover(tmp_path)
    mask = both[400010:400520, 4599600:4599990]['mask'].numpy()
    assert mask.shape == (39, 51)
    assert (mask == majority_reference(ground, 10)[1:-1, 1:-1]).mean() > 0.97


def test_the_rasters_own_colours_become_the_legends(tmp_path: Path) -> None:
    write_label(tmp_path, labelled(), colours={3: (1, 2, 3), 12: (4, 5, 6)})
    legend = ICGCLandCover(tmp_path).legend
    assert legend[3].colour == (1, 2, 3) and legend[12].colour == (4, 5, 6) and legend[1] == LEGEND[1]
    write_label(tmp_path / 'p', parent_labels(), name='LC_2018.tif', colours={3: (1, 2, 3)})
    assert ICGCLandCover(tmp_path / 'p').legend == LEGEND  # colours of 41 classes are not those of the 12


def test_values_are_sampled_at_full_resolution(tmp_path: Path) -> None:
    values = np.full((300, 700), 5.0, np.float32)
    values[-1, -1], values[0, 0], values[150, 350] = 41, np.nan, 12
    path = write_label(tmp_path, values)
    assert sample_values(path).tolist() == [5, 12, 41]


def test_several_label_files_fill_each_other(tmp_path: Path) -> None:
    left, right = labelled(5), labelled(6)
    left[:, 200:] = 0
    write_label(tmp_path, left, name='LC_2018_west_12_Classes.tif')
    write_label(tmp_path, right, name='LC_2018_x_12_Classes.tif')
    write_label(tmp_path, labelled(7), name='LC_2023_12_Classes.tif')
    labels = ICGCLandCover(tmp_path)
    expected = np.where(left > 0, left, right)
    expected = np.where(expected > 0, expected, labelled(7))
    assert np.array_equal(labels[400000:400530, 4599590:4600000]['mask'].numpy(), expected)
    of_2023 = slice(pd.Timestamp('2023-04-01'), pd.Timestamp('2023-05-01'))
    assert np.array_equal(labels[400000:400530, 4599590:4600000, of_2023]['mask'].numpy(), labelled(7))


def test_timeless_labels_answer_any_year(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image(), month='202304')
    write_label(tmp_path, labelled())
    images = CataloniaSentinel2(tmp_path)
    with pytest.raises(RuntimeError, match='no temporal intersection'):
        images & ICGCLandCover(tmp_path)
    both = images & ICGCLandCover(tmp_path, timeless=True)
    assert np.array_equal(both[both.bounds]['mask'].numpy(), majority_reference(labelled(), 10))


# --- stock TorchGeo


class Stock(RasterDataset):
    """A plain RasterDataset of anybody's raster."""

    filename_glob = 'elevation_*.tif'


def stock_raster(folder: Path, value: int = 7, **options: object) -> Stock:
    write_raster(folder / 'elevation_2018.tif', np.full((1, HEIGHT, WIDTH), value, np.float32), **options)  # type: ignore[arg-type]
    return Stock(folder)


@pytest.fixture
def pair(tmp_path: Path, origin: tuple[float, float]) -> tuple[CataloniaSentinel2, ICGCLandCover]:
    write_image(tmp_path, analytic_image(), origin=origin, nodata=0)
    write_image(tmp_path, analytic_image()[:, ::-1].copy(), origin=origin, nodata=0, month='201808')
    write_label(tmp_path, labelled(), origin=origin)
    return CataloniaSentinel2(tmp_path), ICGCLandCover(tmp_path)


def check(sample: dict, images: CataloniaSentinel2, array: NDArray | None = None) -> None:
    """A sample's pixels are the files' at the place that the sample itself names."""
    bounds = sample['bounds'].numpy().astype(float)
    col = (bounds[0] - images.grid.origin[0]) / 10
    row = (images.grid.origin[1] - bounds[4]) / 10
    assert abs(row - round(row)) < 1e-6 and abs(col - round(col)) < 1e-6
    window = (round(row), round(col), *sample['mask'].shape)
    expected = boundless(analytic_image() if array is None else array, *window)
    assert np.array_equal(on_disk(sample), expected), window
    mask = boundless(majority_reference(labelled(), 10), *window)
    assert np.array_equal(sample['mask'].numpy(), mask), window


def test_intersections_in_every_spelling_agree(pair: tuple[CataloniaSentinel2, ICGCLandCover]) -> None:
    images, labels = pair
    for both in (images & labels, labels & images, IntersectionDataset(images, labels)):
        assert isinstance(both, IntersectionDataset) and both.datasets[0] is images
        assert isinstance(labels.res, AnchoredRes) and labels.res.origin == images.grid.origin
        x, y = images.grid.origin
        for shift in (0, 3.7, -41.2):
            check(both[x + 100 + shift : x + 260 + shift, y - 330 + shift : y - 200 + shift], images)


@pytest.mark.parametrize('stock_first', [True, False])
def test_a_plain_raster_dataset_joins_in(
    pair: tuple[CataloniaSentinel2, ICGCLandCover], stock_first: bool, tmp_path: Path
) -> None:
    images, labels = pair
    origin = images.grid.origin
    stock = stock_raster(tmp_path, origin=origin)
    both = (stock & images) if stock_first else (images & stock)
    x, y = origin[0] + 100, origin[1] - 300
    sample = both[x : x + 160, y : y + 130]
    ours = slice(1, None) if stock_first else slice(None, 10)
    assert sample['image'].shape == (11, 13, 16)
    assert np.array_equal(np.round(sample['image'][ours].numpy() * 10_000), analytic_image()[:, 17:30, 10:26])
    assert (sample['image'][0 if stock_first else 10] == 7).all()
    masks = [d[x : x + 160, y : y + 130]['mask'] for d in (stock & labels, labels & stock)]
    assert np.array_equal(masks[0], majority_reference(labelled(), 10)[17:30, 10:26]) and masks[0].equal(masks[1])
    with pytest.raises(TypeError):
        labels & 3  # type: ignore[operator]


def test_a_stock_grid_between_the_pixels_is_obeyed_and_aligned(tmp_path: Path) -> None:
    write_image(tmp_path, np.full((10, HEIGHT, WIDTH), 3000, np.uint16), nodata=0)
    write_label(tmp_path, labelled())
    stock = stock_raster(tmp_path, origin=(400004, 4599997))
    images, labels = CataloniaSentinel2(tmp_path), ICGCLandCover(tmp_path)
    three = stock & images & labels
    sample = three[400104:400264, 4599797:4599897]
    assert sample['image'].shape == (11, 10, 16) and sample['mask'].shape == (10, 16)
    assert np.allclose(sample['image'][1:], 0.3)
    assert np.array_equal(sample['mask'], majority_reference(labelled()[103:203, 104:264], 10))


def test_a_union_of_images_is_exact(tmp_path: Path, origin: tuple[float, float]) -> None:
    east = (origin[0] + 10 * WIDTH, origin[1] + 120)
    write_image(tmp_path / 'a', analytic_image(), origin=origin, nodata=0)
    write_image(tmp_path / 'b', analytic_image()[:, ::-1].copy(), origin=east, nodata=0)
    write_label(tmp_path, labelled(), origin=origin)
    first, second = CataloniaSentinel2(tmp_path / 'a'), CataloniaSentinel2(tmp_path / 'b')
    union = first | second
    x, y = origin[0] + 400, origin[1] - 200
    sample = union[x : x + 250, y : y + 150]
    left = boundless(analytic_image(), 5, 40, 15, 25)
    right = boundless(analytic_image()[:, ::-1], 17, -13, 15, 25)
    assert np.array_equal(on_disk(sample), np.maximum(left, right))
    assert np.array_equal(on_disk(union[x - 300 : x - 100, y : y + 150]), boundless(analytic_image(), 5, 10, 15, 20))
    both = union & ICGCLandCover(tmp_path)
    check(both[x - 303 : x - 103, y : y + 150], first)


@pytest.mark.parametrize('roi', [(0, 0, 530, 410), (33.3, 41.7, 418.9, 377.7), (3, 4, 396, 400)])
def test_stock_samplers_give_exact_patches(
    pair: tuple[CataloniaSentinel2, ICGCLandCover], roi: tuple[float, float, float, float]
) -> None:
    images, labels = pair
    both, (x, y) = images & labels, images.grid.origin
    area = shapely.box(x + roi[0], y - roi[3], x + roi[2], y - roi[1])
    count = 0
    for sampler in (
        RandomPatchSampler(both, size=16, length=30, roi=area, generator=0),
        RandomPatchSampler(both, size=(9, 14), length=30, roi=area, generator=1),
        GriddedPatchSampler(both, size=16, stride=11, roi=area),
    ):
        for query in sampler:
            sample = both[query]
            assert sample['image'].shape[1:] == sample['mask'].shape
            check(sample, images)
            count += 1
    assert count > 70


def test_stock_splits_give_exact_patches(pair: tuple[CataloniaSentinel2, ICGCLandCover]) -> None:
    images, labels = pair
    both, (x, y) = images & labels, images.grid.origin
    west = shapely.box(x, y - 410, x + 233.3, y)
    east = shapely.box(x + 233.3, y - 410, x + 530, y)
    splits = [
        *roi_split(both, [west, east]),
        *random_grid_cell_assignment(both, [0.5, 0.5], grid_size=3, generator=torch.Generator().manual_seed(0)),
        *random_bbox_assignment(both, [0.5, 0.5], generator=torch.Generator().manual_seed(0)),
    ]
    for split in splits:
        queries_of_split = list(GriddedPatchSampler(split, size=12))
        assert queries_of_split
        for query in queries_of_split:
            check(split[query], images)


@pytest.mark.parametrize('seasons', ['separate', 'stack'])
def test_stock_splits_of_the_images_alone(tmp_path: Path, seasons: str) -> None:
    april, august = analytic_image(), analytic_image()[:, ::-1].copy()
    write_image(tmp_path, april, nodata=0)
    write_image(tmp_path, august, nodata=0, month='201808')
    images = CataloniaSentinel2(tmp_path, seasons=seasons)  # type: ignore[arg-type]
    expected = april if seasons == 'separate' else np.concatenate([april, august])
    halves = [shapely.box(400000, 4599590, 400200, 4600000), shapely.box(400200, 4599590, 400530, 4600000)]
    cells = random_grid_cell_assignment(images, [0.5, 0.5], generator=torch.Generator().manual_seed(1))
    for split in (*roi_split(images, halves), *cells):
        for query in GriddedPatchSampler(split, size=16):
            sample = split[query]
            col = round((float(sample['bounds'][0]) - 400000) / 10)
            row = round((4600000 - float(sample['bounds'][4])) / 10)
            found = on_disk(sample)
            if seasons == 'stack' or np.array_equal(found, boundless(april, row, col, 16, 16)):
                assert np.array_equal(found, boundless(expected, row, col, 16, 16))
            else:  # a cell that only August was given
                assert np.array_equal(found, boundless(august, row, col, 16, 16))


@pytest.mark.filterwarnings('ignore:random_sampler @ sequential_sampler')
def test_temporal_samplers_choose_the_season(pair: tuple[CataloniaSentinel2, ICGCLandCover]) -> None:
    images, labels = pair
    both = images & labels
    of_month = {4: analytic_image(), 8: analytic_image()[:, ::-1]}
    for sampler in (
        GriddedPatchSampler(both, size=16) @ SequentialTimestampSampler(both),
        RandomPatchSampler(both, size=16, length=8, generator=0) @ SequentialTimestampSampler(both),
        RandomPatchSampler(both, size=16, length=20, generator=0) @ RandomTimestampSampler(both, generator=0),
    ):
        months = []
        for query in sampler:
            months.append(query[2].start.month)
            check(both[query], images, of_month[months[-1]])
        assert set(months) == {4, 8}


# --- workers, copies


class _Patches(torch.utils.data.Dataset):
    """Queries by number, so that a loader can shuffle and split them."""

    def __init__(self, dataset: IntersectionDataset, found: list) -> None:
        self.dataset, self.found = dataset, found

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, i: int) -> dict:
        return self.dataset[self.found[i]]


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('compress', ['none', 'deflate'])
def test_workers_read_the_same_pixels_after_the_parent_has_read(tmp_path: Path, workers: int, compress: str) -> None:
    layout = {'tiled': True, 'blockxsize': 16, 'blockysize': 16, 'compress': compress}
    array = np.random.default_rng(8).integers(1, 9000, (10, 128, 144), dtype=np.uint16)
    codes = np.random.default_rng(9).integers(1, 13, (1280, 1440), dtype=np.uint8)
    write_image(tmp_path, array, nodata=0, **layout)
    write_label(tmp_path, codes, **layout)
    expected = majority_reference(codes, 10)
    both = CataloniaSentinel2(tmp_path) & ICGCLandCover(tmp_path)
    found = list(RandomPatchSampler(both, size=16, length=160, generator=3))
    both[found[0]]  # opens the parent's handles
    seen = 0
    for batch in DataLoader(_Patches(both, found), batch_size=8, num_workers=workers):
        for image, mask, bounds in zip(batch['image'], batch['mask'], batch['bounds'], strict=True):
            row, col = round((4600000 - float(bounds[4])) / 10), round((float(bounds[0]) - 400000) / 10)
            assert np.array_equal(on_disk({'image': image}), array[:, row : row + 16, col : col + 16])
            assert np.array_equal(mask, expected[row : row + 16, col : col + 16])
            seen += 1
    assert seen == 160


@pytest.mark.parametrize('again', [lambda d: pickle.loads(pickle.dumps(d)), __import__('copy').deepcopy])
def test_copies_read_the_same(pair: tuple[CataloniaSentinel2, ICGCLandCover], again: Callable) -> None:
    images, labels = pair
    both, (x, y) = images & labels, images.grid.origin
    before = both[x + 53 : x + 213, y - 213 : y - 53]
    copied = again(both)
    after = copied[x + 53 : x + 213, y - 213 : y - 53]
    assert all(before[k].equal(after[k]) for k in before)
    assert isinstance(copied.datasets[1].res, AnchoredRes) and copied.datasets[1].res.origin == images.grid.origin


@pytest.mark.slow
def test_a_spawned_worker_reads_the_same(pair: tuple[CataloniaSentinel2, ICGCLandCover]) -> None:
    images, labels = pair
    both = images & labels
    found = list(GriddedPatchSampler(both, size=16))
    loader = DataLoader(both, sampler=found, batch_size=None, num_workers=1, multiprocessing_context='spawn')
    for sample in loader:
        check(sample, images)


# --- Sentinel-2


def test_bands_are_chosen_by_name_and_order(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image())
    whole = CataloniaSentinel2(tmp_path)
    assert whole.bands == list(BANDS) == whole.channels and whole.all_bands == BANDS
    chosen = CataloniaSentinel2(tmp_path, bands=['b8a', 'B2', 'B11 (SWIR)'])
    assert chosen.channels == ['B8A', 'B02', 'B11']
    assert np.array_equal(on_disk(chosen[slice(None)]), analytic_image()[[7, 0, 8]])


def test_descriptions_decide_over_position(tmp_path: Path) -> None:
    order = ('B4 - red', 'b03', 'B02_10m', 'B08', 'B8a')
    write_image(tmp_path, analytic_image(bands=5), descriptions=order)
    images = CataloniaSentinel2(tmp_path, bands=['B02', 'B04'])
    assert images.all_bands == ('B04', 'B03', 'B02', 'B08', 'B8A')
    assert np.array_equal(on_disk(images[slice(None)]), analytic_image(bands=5)[[2, 0]])
    same = CataloniaSentinel2(tmp_path, band_order=['B4', 'B3', 'B2', 'B8', 'B8A'])
    assert same.all_bands == images.all_bands


def test_every_file_has_its_own_order(tmp_path: Path) -> None:
    array = analytic_image()
    write_image(tmp_path, array, nodata=0)
    write_image(tmp_path, array[::-1].copy(), descriptions=BANDS[::-1], nodata=0, month='201808')
    images = CataloniaSentinel2(tmp_path, bands=['B03', 'B12'])
    for look in images.looks:
        assert np.array_equal(on_disk(images[slice(None), slice(None), look]), array[[1, 9]])


def test_bands_without_names_need_ten_or_an_order(tmp_path: Path) -> None:
    ten, four = tmp_path / 'ten', tmp_path / 'four'
    write_image(ten, analytic_image(), descriptions=None)
    write_image(four, analytic_image(bands=4))
    assert CataloniaSentinel2(ten).all_bands == BANDS
    with pytest.raises(LandcoverError, match='has 4 bands without names; name them in order with band_order'):
        CataloniaSentinel2(four)
    images = CataloniaSentinel2(four, bands=['B8'], band_order=['B2', 'B3', 'B4', 'B8'])
    assert np.array_equal(on_disk(images[slice(None)]), analytic_image(bands=4)[[3]])
    write_image(ten, analytic_image(), descriptions=[f'Band {i}' for i in range(1, 11)])
    assert CataloniaSentinel2(ten).all_bands == BANDS


@pytest.mark.parametrize(
    ('descriptions', 'options', 'sentence'),
    [
        (BANDS, {'band_order': BANDS[::-1]}, r"band order \['B12'.* contradicts the descriptions in .*drop band_order"),
        (BANDS, {'band_order': BANDS[:4]}, r'band_order names 4 bands, but .* has 10'),
        (BANDS, {'bands': ['B04', 'B01', 'B10']}, r'has no band B01, B10; it has B02, B03'),
        ((None, *BANDS[1:3], 'B08', *BANDS[4:]), {}, r'contradicts the descriptions'),  # half told, and otherwise
        ((*BANDS[:9], 'B11'), {}, r'names a band twice'),
        (None, {'band_order': [*BANDS[:9], 'B02']}, r'names a band twice'),
    ],
)
def test_wrong_bands_are_told(tmp_path: Path, descriptions: tuple | None, options: dict, sentence: str) -> None:
    write_image(tmp_path, analytic_image(), descriptions=descriptions)
    with pytest.raises(LandcoverError, match=sentence):
        CataloniaSentinel2(tmp_path, **options)


def test_a_band_missing_in_one_file_is_told(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image())
    write_image(tmp_path, analytic_image(bands=3), descriptions=BANDS[:3], month='201808')
    with pytest.raises(LandcoverError, match=r'201808.* has no band B05, B06'):
        CataloniaSentinel2(tmp_path)
    assert CataloniaSentinel2(tmp_path, bands=['B04']).num_seasons == 2


@pytest.mark.parametrize('spelling', ['B2', 'b2', 'B02', ' b02', 'B2 (blue)', 'B02_10m', 'B02-blue', 'B02: blue'])
def test_band_spellings(spelling: str) -> None:
    assert band_name(spelling) == 'B02'
    assert band_name('B12') == 'B12' and band_name('B8') == 'B08' and band_name('B08A') == band_name('b8a') == 'B8A'
    assert band_name('Band 2') == 'Band 2' and band_name('B2x') == 'B2x' and band_name('B123') == 'B123'


def test_reflectance_has_scale_and_offset(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image(), nodata=0)
    images = CataloniaSentinel2(tmp_path, reflectance_scale=8000, reflectance_offset=-1000)
    image = images[399900:400100, 4599900:4600050]['image'].numpy()
    raw = boundless(analytic_image(), -5, -10, 15, 20).astype(float)
    assert np.allclose(image, np.where(raw > 0, (raw - 1000) / 8000, 0), atol=1e-6)
    for bad in (0, -5, float('nan'), float('inf')):
        with pytest.raises(LandcoverError, match=f'reflectance_scale must be a number > 0, got {bad}'):
            CataloniaSentinel2(tmp_path, reflectance_scale=bad)


@pytest.mark.parametrize('declared', [None, 0, 65535, 400])
@pytest.mark.parametrize('given', [None, 0, 65535])
def test_nodata_is_given_or_declared_or_zero(tmp_path: Path, declared: int | None, given: int | None) -> None:
    nodata = next(v for v in (given, declared, 0) if v is not None)
    array = analytic_image()
    array[:, 5:9, 3:20] = nodata
    array[4, 12:15, 30:40] = nodata  # in one band only: measured
    write_image(tmp_path, array, **({} if declared is None else {'nodata': declared}))
    images = CataloniaSentinel2(tmp_path, nodata=given)
    sample = images[399950:400580, 4599540:4600050]
    valid = boundless(np.where((array == nodata).all(0), 0, 1), -5, -5, 51, 63).astype(bool)
    assert np.array_equal(sample['valid'].numpy(), valid)
    assert np.array_equal(on_disk(sample), boundless(array, -5, -5, 51, 63) * valid)


@pytest.mark.parametrize(
    ('nodata', 'dtype'), [(-1, 'uint16'), (70000, 'uint16'), (0.5, 'uint16'), (float('nan'), 'int16')]
)
def test_a_nodata_that_no_pixel_can_have_is_told(tmp_path: Path, nodata: float, dtype: str) -> None:
    write_image(tmp_path, analytic_image(bands=4).astype(dtype), descriptions=BANDS[:4])
    with pytest.raises(LandcoverError, match=rf'nodata {nodata} does not fit the {dtype} pixels of'):
        CataloniaSentinel2(tmp_path, nodata=nodata)[slice(None)]


@pytest.mark.parametrize('declared', [None, float('nan'), -9999.0])
def test_float_rasters_with_nan(tmp_path: Path, declared: float | None) -> None:
    array = analytic_image().astype(np.float32) / 10_000
    array[:, 2:5, 3:9] = np.nan
    array[3, 20, 21] = np.nan
    array[2, 30, 7] = np.inf
    array[:, 8, 8] = -9999 if declared == -9999 else np.nan
    write_image(tmp_path, array, **({} if declared is None else {'nodata': declared}))
    sample = CataloniaSentinel2(tmp_path, reflectance_scale=1)[399990:400540, 4599580:4600010]
    valid = np.isfinite(array).all(0) & (array[0] != -9999)
    assert np.array_equal(sample['valid'].numpy(), boundless(valid, -1, -1, 43, 55))
    assert np.array_equal(sample['image'].numpy(), boundless(np.where(valid, array, 0), -1, -1, 43, 55))


def test_files_of_one_month_are_one_mosaic(tmp_path: Path) -> None:
    array = analytic_image()
    array[:, 20, 20] = 0
    pieces = {'S2_A_201804.tif': (0, 30), 'S2_B_201804.tif': (18, 53)}
    for name, (start, stop) in pieces.items():
        piece = array[:, :, start:stop] + (0 if 'A' in name else (array[:, :, start:stop] > 0).astype(np.uint16))
        write_raster(tmp_path / name, piece, origin=(400000 + 10 * start, 4600000), descriptions=BANDS, nodata=0)
    images = CataloniaSentinel2(tmp_path)
    expected = array + ((array > 0) & (np.arange(WIDTH) >= 30))  # where both are valid, the first wins
    for x, y, row, col, h, w in queries((400000, 4600000), 60, seed=11):
        sample = images[x, y]
        assert np.array_equal(on_disk(sample), boundless(expected, row, col, h, w))
        assert np.array_equal(sample['valid'].numpy(), boundless(expected[0], row, col, h, w) > 0)
    assert images.num_seasons == 1 and images.grid.bounds() == (400000, 4599590, 400530, 4600000)


def test_seasons_are_separate_or_stacked(tmp_path: Path) -> None:
    april, august = analytic_image(), analytic_image()[:, ::-1].copy()
    april[:, :4, :6] = 0
    august[:, 2:9, 3:5] = 0
    write_image(tmp_path, august, nodata=0, month='201808')
    write_image(tmp_path, april, nodata=0)
    separate, stack = CataloniaSentinel2(tmp_path), CataloniaSentinel2(tmp_path, seasons='stack')
    assert separate.dates == stack.dates == ['2018-04', '2018-08'] and separate.num_seasons == 2
    for month, array in (('2018-04', april), ('2018-08', august)):
        time = slice(pd.Timestamp(f'{month}-03'), pd.Timestamp(f'{month}-20'))
        sample = separate[400000:400530, 4599590:4600000, time]
        assert np.array_equal(on_disk(sample), array) and np.array_equal(sample['valid'].numpy(), array[0] > 0)
    assert np.array_equal(on_disk(separate[slice(None)]), np.where(april > 0, april, august))
    assert [s.start.month for s in separate.looks] == [4, 8] and stack.looks == [slice(None)]
    both = (april[0] > 0) & (august[0] > 0)
    sample = stack[slice(None)]
    assert sample['image'].shape == (20, HEIGHT, WIDTH) and np.array_equal(sample['valid'].numpy(), both)
    assert np.array_equal(on_disk(sample), np.concatenate([april, august]) * both)
    assert stack.channels == [f'{m} {b}' for m in ('2018-04', '2018-08') for b in BANDS]
    for dataset in (separate, stack):
        for look in dataset.looks:
            image, valid = dataset.read(dataset.grid, look)
            sample = dataset[slice(None), slice(None), look]
            assert np.array_equal(image, sample['image']) and np.array_equal(valid, sample['valid'])


@pytest.mark.parametrize(
    ('name', 'date'),
    [
        (IMAGE_NAME, '2018-04'),
        ('S2_T31TCG_20190815T105031.tif', '2019-08'),
        ('s2_cat_202012.TIF', '2020-12'),
        ('S2_v2_202301_10m.tiff', '2023-01'),
    ],
)
def test_dates_come_from_names(tmp_path: Path, name: str, date: str) -> None:
    path = write_raster(tmp_path / name, analytic_image(), descriptions=BANDS)
    assert CataloniaSentinel2(tmp_path).dates == CataloniaSentinel2(path).dates == [date]


# --- pictures


def test_plots_are_figures(pair: tuple[CataloniaSentinel2, ICGCLandCover]) -> None:
    images, labels = pair
    sample = (images & labels)[slice(None), slice(None)]
    sample['prediction'] = sample['mask'][None]
    figure = images.plot(sample, suptitle='April')
    assert isinstance(figure, Figure) and [a.get_title() for a in figure.axes] == ['image', 'mask', 'prediction']
    assert len(labels.plot(sample, show_titles=False).axes) == 2
    thin = {k: v[..., :1, :] for k, v in sample.items() if k in ('image', 'mask')}
    assert len(images.plot(thin).axes) == 2
    picture = true_colour(sample['image'], images.bands)
    assert picture.shape == (HEIGHT, WIDTH, 3) and picture.min() >= 0 and picture.max() <= 1
    with pytest.raises(RGBBandsMissingError):
        CataloniaSentinel2(images.paths, bands=['B08']).plot(sample)


# --- bad input


@pytest.mark.parametrize(('dataset', 'example'), [(CataloniaSentinel2, MOSAIC_EXAMPLE), (ICGCLandCover, LABEL_EXAMPLE)])
def test_missing_or_other_files_are_told(tmp_path: Path, dataset: type, example: str) -> None:
    with pytest.raises(LandcoverError, match=r'gone does not exist; name the folder or file'):
        dataset(tmp_path / 'gone')
    with pytest.raises(LandcoverError, match=r'gone\.tif does not exist'):
        dataset([tmp_path / 'gone.tif'])
    (tmp_path / 'notes.txt').write_text('no raster')
    with pytest.raises(LandcoverError, match=rf'no {re.escape(example)} raster in .*name the folder'):
        dataset(tmp_path)


DEFECTS = {
    'has no CRS; assign the right one': {'crs': None},
    'north up without rotation': {'transform': rasterio.Affine(9, 1, 4e5, 1, -9, 4.6e6)},
}


@pytest.mark.parametrize('sentence', DEFECTS)
def test_a_raster_that_lies_nowhere_is_told(tmp_path: Path, sentence: str) -> None:
    write_image(tmp_path, analytic_image(), **DEFECTS[sentence])
    write_label(tmp_path, labelled(), **DEFECTS[sentence])
    for dataset in (CataloniaSentinel2, ICGCLandCover):
        with pytest.raises(LandcoverError, match=rf'(?s)\.tif.*{sentence}'):
            dataset(tmp_path)


@pytest.mark.parametrize(
    'other',
    [{'origin': (400005, 4600000)}, {'gsd': 20}, {'crs': 'EPSG:32630'}, {'crs': 'EPSG:23031'}, {'gsd': (10, 20)}],
)
def test_files_on_different_grids_are_told(tmp_path: Path, other: dict) -> None:
    write_image(tmp_path, analytic_image())
    write_image(tmp_path, analytic_image(), month='201808', **other)
    with pytest.raises(LandcoverError, match=r'201808.* and .*201804.* lie on different pixel grids .*gdalwarp'):
        CataloniaSentinel2(tmp_path)


def test_files_under_two_names_of_one_crs_are_one_dataset(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image(), nodata=0)
    write_image(tmp_path, analytic_image(), month='201808', crs='EPSG:25831', origin=(400400, 4600120), nodata=0)
    images = CataloniaSentinel2(tmp_path)
    late = images[400400:400600, 4599900:4600120, images.looks[1]]
    assert np.array_equal(on_disk(late), analytic_image()[:, :22, :20])


@pytest.mark.parametrize('share', [0.3, 0.7, 0.99])
@pytest.mark.parametrize(
    'layout', [{}, {'compress': 'lzw'}, {'tiled': True, 'blockxsize': 16, 'blockysize': 16}, {'driver': 'COG'}]
)
@pytest.mark.parametrize('kind', ['image', 'label'])
def test_a_file_cut_off_is_told_at_the_start(tmp_path: Path, share: float, layout: dict, kind: str) -> None:
    rng = np.random.default_rng(12)
    if kind == 'image':
        path = write_image(tmp_path, rng.integers(1, 9000, (10, 70, 90), dtype=np.uint16), **layout)
    else:
        path = write_label(tmp_path, rng.integers(1, 13, (700, 900), dtype=np.uint8), **layout)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    dataset = CataloniaSentinel2 if kind == 'image' else ICGCLandCover
    with pytest.raises(LandcoverError, match=rf'{path.name} (is truncated|cannot be opened as a raster)'):
        dataset(tmp_path)


def test_a_damaged_file_is_told_when_it_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    layout = {'tiled': True, 'blockxsize': 64, 'blockysize': 64, 'compress': 'deflate'}
    image = write_image(tmp_path, rng.integers(1, 90, (10, 200, 210), dtype=np.uint16), **layout)
    label = write_label(tmp_path, rng.integers(1, 13, (700, 900), dtype=np.uint8), **layout)
    for path in (image, label):
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 6000] = rng.bytes(6000)
        path.write_bytes(content)
    for dataset, path in ((CataloniaSentinel2(tmp_path), image), (ICGCLandCover(tmp_path), label)):
        with pytest.raises(LandcoverError, match=rf'{path.name} cannot be read \(.*damaged: fetch it again'):
            dataset[slice(None)]


@pytest.mark.parametrize(
    ('make', 'sentence'),
    [
        (lambda p: CataloniaSentinel2(p, seasons='both'), r"seasons must be 'separate' or 'stack', got 'both'"),
        (lambda p: ICGCLandCover(p, source_legend='13'), r"source_legend must be 'auto', '12' or '41', got '13'"),
        (
            lambda p: ICGCLandCover(p, aggregation='mean'),
            r"aggregation must be one of mode, nearest, weighted, got 'mean'",
        ),
    ],
)
def test_bad_choices_are_told(tmp_path: Path, make: Callable, sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        make(tmp_path)


# --- the simulated scene and real pixels


def check_against_plain_reads(images: CataloniaSentinel2, labels: ICGCLandCover, size: int, length: int) -> None:
    """Patches of stock samplers equal plain rasterio reads of the files on disk."""
    both = images & labels
    with rasterio.open(images.files[0]) as image, rasterio.open(labels.files[0]) as label:
        n = round(10 / label.res[0])
        for query in RandomPatchSampler(both, size=size, length=length, generator=4):
            sample = both[(*query, images.looks[0])]
            col = round((query[0].start - image.bounds.left) / 10)
            row = round((image.bounds.top - query[1].stop) / 10)
            plain = image.read(window=((row, row + size), (col, col + size)))
            assert np.array_equal(on_disk(sample), plain)
            fine = label.read(1, window=tuple((v * n, (v + size) * n) for v in (row, col)))
            assert np.array_equal(sample['mask'].numpy(), majority_reference(fine, n))


def test_the_simulated_scene_is_read_exactly(scene: Scene) -> None:
    folder = scene.label.parent
    images, labels = CataloniaSentinel2(folder), ICGCLandCover(folder)
    assert images.dates == ['2018-04', '2018-08'] and images.bands == list(BANDS)
    assert (images.grid.height, images.grid.width) == (192, 256)
    check_against_plain_reads(images, labels, size=64, length=20)


@pytest.mark.skipif(not RELOCATED.is_dir(), reason='no real pixels beside the checkout')
def test_real_pixels_are_read_exactly() -> None:
    images, labels = CataloniaSentinel2(RELOCATED), ICGCLandCover(RELOCATED)
    assert images.bands == list(BANDS) and (images.grid.height, images.grid.width) == (224, 672)
    check_against_plain_reads(images, labels, size=128, length=12)
    assert labels.unknown_count == 0


def test_the_41_table_is_what_the_reader_uses() -> None:
    assert landcover.PARENTS is PARENTS and len(PARENTS) == 41
