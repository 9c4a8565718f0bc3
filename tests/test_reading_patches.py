"""The fast ways of reading give what plain ones give: counted labels, mapped files, found files, patches, workers."""

import multiprocessing
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import (
    BANDS,
    analytic_codes,
    analytic_image,
    boundless,
    majority_reference,
    repeated,
    write_image,
    write_label,
    write_raster,
)
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from landcover_plugin.datasets.icgc import ICGCLandCover
from landcover_plugin.datasets.patches import CataloniaPatches
from landcover_plugin.datasets.sentinel2 import CataloniaSentinel2
from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelWindow
from landcover_plugin.legend import lookup_table
from landcover_plugin.rasters import mosaics as mosaics_module
from landcover_plugin.rasters.finding import STORE_MANIFEST, find_rasters
from landcover_plugin.rasters.labels import AGGREGATIONS, THIN_CLASSES, aggregate, class_shares, tally
from landcover_plugin.rasters.mapped import map_raster
from landcover_plugin.rasters.mosaics import MOSAIC_NAME, Mosaics
from landcover_plugin.rasters.opening import check_whole
from landcover_plugin.rasters.reading import read_window

# Labels


def ground(factor: int, seed: int, rows: int = 5, cols: int = 7) -> NDArray[np.uint8]:
    """Blocks of one value, of two, with ties, with no data and with values outside the legend."""
    rng = np.random.default_rng(seed)
    values = repeated(rng.integers(0, 15, (rows, cols), dtype=np.uint8), factor)
    noise = rng.choice(np.array([0, 0, 1, 2, 7, 11, 12, 13, 99, 255], np.uint8), values.shape)
    mixed = np.where(rng.random(values.shape) < 0.6, noise, values)
    half = repeated(rng.integers(0, 13, (rows, cols * 2), dtype=np.uint8), factor)[:, : cols * factor]
    half = np.where(np.arange(cols * factor) % factor < factor // 2, half, values)  # ties where the factor is even
    pick = repeated(rng.integers(0, 3, (rows, cols)), factor)
    return np.choose(pick, [values, mixed, half]).astype(np.uint8)


def block_counts(values: NDArray[np.uint8], table: NDArray[np.uint8], factor: int) -> NDArray[np.int64]:
    """Pixels of each code in each block, shape ``(256, rows, cols)``."""
    codes = table[values].reshape(values.shape[0] // factor, factor, values.shape[1] // factor, factor)
    return np.stack([(codes == code).sum((1, 3)) for code in range(256)])


def chosen(values: NDArray[np.uint8], table: NDArray[np.uint8], factor: int, weights: dict[int, float]) -> list[Any]:
    """Codes after mode, nearest and weighted, by plain NumPy."""
    counts = block_counts(values, table, factor)
    known = counts[1:13]
    weight = np.array([weights.get(code, 1.0) for code in range(1, 13)])[:, None, None]
    enough = (2 * known.sum(0) >= factor**2) & (known.sum(0) > 0)
    middle = table[values][factor // 2 :: factor, factor // 2 :: factor]
    return [
        np.where(enough, known.argmax(0) + 1, 0),
        np.where(middle <= 12, middle, 0),
        np.where(enough, (known * weight).argmax(0) + 1, 0),
    ]


@pytest.mark.parametrize('factor', [1, 2, 3, 10, 15, 16, 20, 300])
@pytest.mark.parametrize('parent', [False, True])
def test_labels_are_counted_as_numpy_counts_them(factor: int, parent: bool) -> None:
    table, weights = lookup_table(parent), {7: 3.0, 11: 1.25}
    for seed in range(2 if factor == 300 else 12):
        values = ground(factor, seed)
        counts = block_counts(values, table, factor)
        references = chosen(values, table, factor, weights)
        areas = [counts.sum((1, 2))[:13]]
        areas += [factor**2 * np.bincount(codes.ravel(), minlength=13) for codes in references]
        shares = (counts[1:13] * 200 + factor**2) // (2 * factor**2)
        for method, expected in zip(AGGREGATIONS, references, strict=True):
            labels, found = tally(values, table, factor, method, weights)
            assert np.array_equal(labels.codes, expected), method
            covered = np.take_along_axis(counts, expected[None].astype(int), 0)[0]
            assert np.array_equal(labels.purity, np.where(expected > 0, covered * 100 // factor**2, 0))
            assert np.array_equal(labels.labelled, counts[1:13].sum(0) * 100 // factor**2)
            assert labels.unknown == counts[13:].sum() and {a.dtype for a in labels[:3]} == {np.dtype(np.uint8)}
            assert np.array_equal(found, areas)
        assert np.array_equal(class_shares(values, table, factor), shares)


def test_a_tie_goes_to_the_lower_code_and_thin_classes_weigh_more() -> None:
    table = lookup_table(parent=False)
    values = np.array([[12, 4, 11, 3, 9, 7], [4, 12, 3, 11, 7, 9]], np.uint8)
    assert aggregate(values, table, 2, 'mode').codes.tolist() == [[4, 3, 7]]
    assert aggregate(values, table, 2, 'weighted').codes.tolist() == [[4, 11, 7]]
    assert aggregate(values, table, 2, 'weighted', {}).codes.tolist() == [[4, 3, 7]]
    road = np.full((10, 10), 3, np.uint8)
    road[:, :4] = 11  # 40 of 100 pixels, 1.5 times each: as much as the other 60
    assert aggregate(road, table, 10, 'weighted').codes == 3
    road[0, 4] = 11
    labels = aggregate(road, table, 10, 'weighted')
    assert labels.codes == 11 and labels.purity == 41 and THIN_CLASSES[11] == 1.5


@pytest.mark.parametrize('weights', [{0: 2.0}, {13: 2.0}, {3: 0.0}, {3: -1.0}, {3: float('nan')}, {3: float('inf')}])
def test_weights_that_are_none_are_told(weights: dict[int, float]) -> None:
    with pytest.raises(LandcoverError, match='weights are numbers > 0 for codes 1 to 12'):
        aggregate(np.ones((2, 2), np.uint8), lookup_table(parent=False), 2, 'weighted', weights)


# Mapped files


def numbers(bands: int, dtype: str, height: int = 141, width: int = 203) -> NDArray[Any]:
    rng = np.random.default_rng(bands)
    return rng.integers(-900 if dtype != 'uint8' and dtype[0] != 'u' else 0, 250, (bands, height, width)).astype(dtype)


def same_windows(path: Path, array: NDArray[Any], seed: int = 0) -> bool:
    """Windows inside, across every border and beyond; all bands, one, some, and turned round."""
    rng, bands = np.random.default_rng(seed), len(array)
    picks = [None, [1], [bands], list(range(bands, 0, -1)), list(range(1, bands + 1, 2))]
    with rasterio.open(path) as src:
        for i in range(120):
            window = PixelWindow(*map(int, (*rng.integers(-60, 200, 2), *rng.integers(1, 150, 2))))
            indexes = picks[i % len(picks)]
            at = slice(None) if indexes is None else np.array(indexes) - 1
            found = read_window(path, window, indexes=indexes)
            if found.dtype != array.dtype or not np.array_equal(found, boundless(array[at], *window)):
                return False
            inside = window.intersection(PixelWindow(0, 0, *array.shape[1:]))
            if not inside.is_empty:
                plain = src.read(indexes, window=inside.ranges)
                if not np.array_equal(read_window(path, inside, indexes=indexes), plain):
                    return False
    return True


MAPPED = {
    'tiled': {'tiled': True, 'blockxsize': 64, 'blockysize': 32},
    'one row to a strip': {'blockysize': 1},
    'strips that do not divide': {'blockysize': 13},
    'one strip': {'blockysize': 141},
    'big': {'tiled': True, 'blockxsize': 16, 'blockysize': 16, 'bigtiff': 'YES'},
}


@pytest.mark.parametrize('layout', MAPPED)
@pytest.mark.parametrize('bands', [1, 4])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
def test_mapped_files_read_as_rasterio_reads_them(tmp_path: Path, layout: str, bands: int, dtype: str) -> None:
    array = numbers(bands, dtype)
    path = write_raster(tmp_path / 'a.tif', array, interleave='band', **MAPPED[layout])
    mapped = map_raster(path)
    assert mapped is not None and mapped.count == bands and mapped.dtypes == [array.dtype] * bands
    assert same_windows(path, array)


NOT_MAPPED = {
    'compressed': {'compress': 'deflate'},
    'pixel-interleaved': {'interleave': 'pixel'},
    'big-endian': {'endianness': 'BIG', 'interleave': 'band'},
    'bits': {'nbits': 12, 'interleave': 'band'},
    'cog': {'driver': 'COG', 'compress': 'none', 'blocksize': 128},
    'sparse': {'sparse_ok': True, 'interleave': 'band', 'tiled': True, 'blockxsize': 64, 'blockysize': 64},
}


@pytest.mark.parametrize('layout', NOT_MAPPED)
def test_files_of_other_layouts_are_not_mapped_and_read_the_same(tmp_path: Path, layout: str) -> None:
    array = numbers(3, 'uint16')
    array[:, :64, :64] = 0
    path = write_raster(tmp_path / 'a.tif', array, **NOT_MAPPED[layout])
    assert map_raster(path) is None and same_windows(path, array)


def test_a_file_with_a_gap_between_its_blocks_is_not_mapped(tmp_path: Path) -> None:
    array = numbers(2, 'uint16')
    profile = {'tiled': True, 'blockxsize': 64, 'blockysize': 64, 'interleave': 'band', 'sparse_ok': True}
    path = write_raster(tmp_path / 'a.tif', np.zeros_like(array), **profile)
    with rasterio.open(path, 'r+') as dst:  # blocks come in the order of writing
        for rows, cols in (((64, 141), (64, 203)), ((0, 64), (0, 203)), ((64, 141), (0, 64))):
            dst.write(array[:, slice(*rows), slice(*cols)], window=(rows, cols))
    assert map_raster(path) is None and same_windows(path, array)


@pytest.mark.parametrize('layout', ['tiled', 'one row to a strip', 'one strip'])
def test_a_file_cut_off_anywhere_is_not_mapped_and_told(tmp_path: Path, layout: str) -> None:
    array, path = numbers(2, 'uint16') | 1, tmp_path / 'a.tif'
    write_raster(path, array, interleave='band', **MAPPED[layout])
    content = path.read_bytes()
    cuts = [*range(0, 600, 7), *range(600, len(content), len(content) // 25), len(content) - 1]
    for number, cut in enumerate(cuts):
        path.write_bytes(content[:cut])
        os.utime(path, ns=(number + 1, number + 1))
        with pytest.raises(LandcoverError):
            check_whole(path)
        if (mapped := map_raster(path)) is not None:  # the list of blocks may lie behind all pixels
            assert mapped.read([1], window=((0, 141), (0, 203))).shape == (1, 141, 203)


def test_a_header_of_noise_maps_nothing_and_stops_nothing(tmp_path: Path) -> None:
    path = write_raster(tmp_path / 'a.tif', numbers(1, 'uint8'))
    content, rng = path.read_bytes(), np.random.default_rng(5)
    for number in range(150):
        broken = bytearray(content)
        for at in rng.integers(0, 260, 4):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        os.utime(path, ns=(number + 1, number + 1))
        mapped = map_raster(path)
        if mapped is not None:
            mapped.read([1], window=((0, mapped.height), (0, mapped.width)))


def test_a_rewritten_file_is_mapped_anew(tmp_path: Path) -> None:
    first, window = numbers(1, 'uint8'), PixelWindow(3, 4, 50, 60)
    path = write_raster(tmp_path / 'a.tif', first)
    assert np.array_equal(read_window(path, window), boundless(first, *window))
    write_raster(path, first[:, ::-1].copy())
    os.utime(path, ns=(1, 1))
    assert np.array_equal(read_window(path, window), boundless(first[:, ::-1], *window))
    write_raster(path, first, compress='lzw')
    os.utime(path, ns=(2, 2))
    assert map_raster(path) is None and np.array_equal(read_window(path, window), boundless(first, *window))


# Finding files


def found_in(*paths: Path) -> list[str]:
    return find_rasters([str(p) for p in paths], MOSAIC_NAME, 'image')


def touch(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(path))  # no two alike: copies of a raster are refused
    return str(path)


def test_hidden_folders_and_stores_are_passed_by_unless_named(tmp_path: Path) -> None:
    source = touch(tmp_path / 'deep' / 'er' / 'S2_a_201804.tif')
    hidden = touch(tmp_path / '.landcover' / 'store' / 'S2_b_201804.tif')
    store = touch(tmp_path / 'store' / 'images' / 'S2_c_201804.tif')
    touch(tmp_path / 'store' / STORE_MANIFEST)
    assert found_in(tmp_path) == [source]
    assert found_in(tmp_path / '.landcover') == found_in(tmp_path / '.landcover' / 'store') == [hidden]
    assert found_in(tmp_path / 'store') == found_in(tmp_path / 'store' / 'images') == [store]
    assert found_in(Path(store)) == [store] and found_in(tmp_path, Path(store)) == sorted([source, store])


def test_folders_may_have_names_that_look_like_patterns(tmp_path: Path) -> None:
    for name in ('[2018]', 'a*b', 'what?', 'plain'):
        wanted = touch(tmp_path / name / 'sub [x]' / 'S2_a_201804.tif')
        assert found_in(tmp_path / name) == [wanted]
    assert len(found_in(tmp_path)) == 4


def test_links_are_followed_once(tmp_path: Path) -> None:
    wanted = touch(tmp_path / 'elsewhere' / 'S2_a_201804.tif')
    data = tmp_path / 'data'
    (data / 'sub').mkdir(parents=True)
    (data / 'S2_b_201808.tif').symlink_to(wanted)
    assert found_in(data) == [str(data / 'S2_b_201808.tif')]
    (data / 'S2_b_201808.tif').unlink()
    (data / 'linked').symlink_to(tmp_path / 'elsewhere')
    (data / 'sub' / 'loop').symlink_to(data)
    assert found_in(data) == [str(data / 'linked' / 'S2_a_201804.tif')]
    (data / 'S2_gone_201804.tif').symlink_to(tmp_path / 'gone')
    assert len(found_in(data)) == 1


# Overlapping mosaics


def test_only_files_that_meet_the_window_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array, reads = analytic_image(), []
    pieces = {'S2_A_201804.tif': (0, 20), 'S2_B_201804.tif': (15, 35), 'S2_C_201804.tif': (30, 53)}
    expected = np.zeros_like(array)
    for number, (name, (start, stop)) in reversed(list(enumerate(pieces.items()))):
        piece = array[:, :, start:stop] + np.uint16(number)
        piece[:, 5:9, 1:4] = 0
        expected[:, :, start:stop] = np.where(piece > 0, piece, expected[:, :, start:stop])
        write_raster(tmp_path / name, piece, origin=(400000 + 10 * start, 4600000), descriptions=BANDS, nodata=0)
    mosaics = Mosaics(tmp_path)

    def counted(path: Any, *args: Any, **options: Any) -> NDArray[Any]:
        reads.append(Path(path).name[3])
        return read_window(path, *args, **options)

    monkeypatch.setattr(mosaics_module, 'read_window', counted)
    rng = np.random.default_rng(3)
    for _ in range(200):
        row, col, height, width = map(int, (*rng.integers(-5, 48, 2), *rng.integers(1, 12, 2)))
        reads.clear()
        image, valid = mosaics.read(mosaics.grid.subgrid(PixelWindow(row, col, height, width)))
        assert np.array_equal(image, boundless(expected, row, col, height, width))
        assert np.array_equal(valid, image[0] > 0)
        meets = [n for n, (a, b) in zip('ABC', pieces.values(), strict=True) if col < b and col + width > a]
        meets = meets if row < 41 and row + height > 0 else []
        assert reads == sorted(reads) and set(reads) <= set(meets or 'A'), (reads, meets)
    reads.clear()
    mosaics.read(mosaics.grid.subgrid(PixelWindow(20, 16, 3, 3)))
    assert reads == ['A']  # all valid there


def test_months_of_different_types_give_one_type(tmp_path: Path) -> None:
    dark = (analytic_image() % 250 + 1).astype(np.uint8)
    write_image(tmp_path, dark, nodata=0)
    write_image(tmp_path, analytic_image(), nodata=0, month='201808')
    images = CataloniaSentinel2(tmp_path, raw=True)
    write_label(tmp_path, analytic_codes(), gsd=10)
    dataset = CataloniaPatches(images, ICGCLandCover(tmp_path, timeless=True))
    grid = images.grid.slices(images.grid.full)
    samples = [dataset[(*grid, look)] for look in images.looks]
    assert [s['image'].dtype for s in samples] == [torch.uint16] * 2
    assert np.array_equal(samples[0]['image'], dark) and np.array_equal(samples[1]['image'], analytic_image())
    assert images[grid]['image'].dtype == torch.uint16


# Patches


def scene_of(folder: Path, **layout: Any) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Two months of 128 x 160 px with a hole, and labels of 5 m."""
    rng = np.random.default_rng(8)
    image = rng.integers(1, 9000, (10, 128, 160), dtype=np.uint16)
    image[:, 40:60, 30:70] = 0
    codes = rng.integers(0, 13, (256, 320), dtype=np.uint8)
    write_image(folder, image, nodata=0, **layout)
    write_image(folder, image[:, ::-1].copy(), nodata=0, month='201808', **layout)
    write_label(folder, codes, gsd=5, **layout)
    return image, codes


def patches_in(folder: Path, *, raw: bool = True, **options: Any) -> CataloniaPatches:
    images, labels = CataloniaSentinel2(folder, raw=raw), ICGCLandCover(folder, timeless=True)
    labels.crs, labels.res = images.crs, images.res
    return CataloniaPatches(images, labels, **options)


def queries(dataset: CataloniaPatches, n: int, size: int = 32, seed: int = 4) -> list[tuple[slice, slice, slice]]:
    rng, images = np.random.default_rng(seed), dataset.images
    corners = zip(rng.integers(-10, 128 - 16, n), rng.integers(-10, 160 - 16, n), rng.integers(0, 2, n), strict=True)
    return [(*images.grid.slices(PixelWindow(int(r), int(c), size, size)), images.looks[k]) for r, c, k in corners]


@pytest.mark.parametrize('raw', [True, False])
def test_patches_are_those_of_the_intersection(tmp_path: Path, raw: bool) -> None:
    scene_of(tmp_path)
    dataset = patches_in(tmp_path, raw=raw, purity=True, shares=True)
    both = dataset.images & dataset.labels
    for query in queries(dataset, 60):
        sample, reference = dataset[query], both[query]
        assert sample['image'].dtype == (torch.uint16 if raw else torch.float32)
        for key in ('image', 'valid', 'mask'):
            assert np.array_equal(sample[key], reference[key]), key
        fine = np.array(sample['shares'])
        assert np.array_equal(np.where(sample['mask'] > 0, fine.max(0), 0), sample['purity'])
    first = dataset[query[:2]]
    assert np.array_equal(first['image'], dataset[(*query[:2], dataset.images.looks[0])]['image'])


def reference_of(dataset: CataloniaPatches, image: NDArray[Any], mask: NDArray[Any], query: tuple) -> tuple[Any, Any]:
    window = dataset.images.grid.nearest_window(*query[:2])
    season = image if query[2] == dataset.images.looks[0] else image[:, ::-1]
    return boundless(season, *window), boundless(mask, *window)


LAYOUTS = {
    'compressed': {'tiled': True, 'blockxsize': 32, 'blockysize': 32, 'compress': 'deflate'},
    'mapped': {'tiled': True, 'blockxsize': 32, 'blockysize': 32, 'interleave': 'band'},
}


def as_it_is(batch: Any) -> Any:
    return batch


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')
@pytest.mark.parametrize('layout', LAYOUTS)
def test_ten_thousand_patches_of_forked_workers_are_the_plain_reads(tmp_path: Path, layout: str) -> None:
    image, codes = scene_of(tmp_path, **LAYOUTS[layout])
    mask, dataset = majority_reference(codes, 2), patches_in(tmp_path)
    assert (map_raster(dataset.images.files[0]) is not None) == (layout == 'mapped')
    wanted = queries(dataset, 10_000)
    dataset[wanted[0]]  # what the parent has open must not reach the workers
    loader = DataLoader(
        dataset, sampler=wanted, batch_size=50, num_workers=2, collate_fn=as_it_is, multiprocessing_context='fork'
    )
    seen = 0
    for batch in loader:
        for values, valid, labels in zip(batch['image'], batch['valid'], batch['mask'], strict=True):
            expected, expected_mask = reference_of(dataset, image, mask, wanted[seen])
            assert np.array_equal(values, expected) and np.array_equal(valid, expected[0] > 0), seen
            assert np.array_equal(labels, expected_mask), seen
            seen += 1
    assert seen == 10_000


@pytest.mark.slow
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('start', ['fork', 'spawn'])
@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')
def test_workers_however_started_read_the_same(tmp_path: Path, layout: str, start: str) -> None:
    image, codes = scene_of(tmp_path, **LAYOUTS[layout])
    mask, dataset = majority_reference(codes, 2), patches_in(tmp_path)
    wanted = queries(dataset, 60)
    dataset[wanted[0]]
    loader = DataLoader(
        dataset, sampler=wanted, batch_size=6, num_workers=2, collate_fn=as_it_is, multiprocessing_context=start
    )
    found = [(values, labels) for batch in loader for values, labels in zip(batch['image'], batch['mask'], strict=True)]
    for (values, labels), query in zip(found, wanted, strict=True):
        expected, expected_mask = reference_of(dataset, image, mask, query)
        assert np.array_equal(values, expected) and np.array_equal(labels, expected_mask)


def memory_of_workers() -> int:
    """Bytes that this process's children allocated; of libraries and mapped files, a process's share (PSS) grows when
    any other process that has them open ends."""
    rollups = [Path(f'/proc/{child.pid}/smaps_rollup').read_text() for child in multiprocessing.active_children()]
    assert len(rollups) == 2
    allocated = [re.findall(r'^Anonymous:\s+(\d+) kB', text, re.MULTILINE) for text in rollups]
    return sum(1024 * int(kilobytes) for (kilobytes,) in allocated)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/smaps_rollup').exists(), reason='memory is told by Linux')
@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_long_epoch_takes_no_more_memory_than_a_short_one(tmp_path: Path, layout: str) -> None:
    scene_of(tmp_path, **LAYOUTS[layout])
    dataset = patches_in(tmp_path, purity=True)
    loader = DataLoader(
        dataset,
        sampler=queries(dataset, 10_000),
        batch_size=10,
        num_workers=2,
        collate_fn=as_it_is,
        multiprocessing_context='spawn',  # of a fork, what it has from this process would be counted as its own
    )
    after = {}
    for number, batch in enumerate(loader):
        del batch
        if number in (200, 600, 990):
            after[number] = memory_of_workers()
    assert after[990] - after[200] < 4e6, after  # 500 bytes a patch
