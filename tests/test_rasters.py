"""Reading: windows equal plain indexing, labels equal a NumPy majority, and a damaged file is told, never guessed."""

import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import analytic_codes, analytic_image, boundless, majority_reference, repeated, write_image, write_raster
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import calculate_default_transform, reproject

from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.legend import PARENTS, lookup_table
from landcover_plugin.rasters import opening, reading
from landcover_plugin.rasters.labels import aggregate, read_labels
from landcover_plugin.rasters.mosaics import Mosaics, measured
from landcover_plugin.rasters.opening import band_descriptions, check_whole, close_rasters, open_raster, vsi_path
from landcover_plugin.rasters.reading import read_onto, read_window, same_ground

UTM = CRS.from_epsg(32631)
CODES = lookup_table(parent=False)


def grid_of(height: int, width: int, origin: tuple[float, float] = (400000, 4600000), gsd: float = 10) -> PixelGrid:
    return PixelGrid(UTM, from_origin(*origin, gsd, gsd), height, width)


def random_windows(n: int, seed: int) -> list[PixelWindow]:
    """Inside, across every border, and beyond."""
    rng = np.random.default_rng(seed)
    return [PixelWindow(*map(int, (*rng.integers(-30, 60, 2), *rng.integers(1, 30, 2)))) for _ in range(n)]


# --- windows


@pytest.mark.parametrize('layout', [{}, {'tiled': True, 'blockxsize': 16, 'blockysize': 32, 'compress': 'deflate'}])
def test_windows_equal_plain_indexing(tmp_path: Path, layout: dict) -> None:
    array = analytic_image()
    path = write_raster(tmp_path / 'a.tif', array, **layout)
    for window in random_windows(200, seed=0):
        expected = boundless(array, *window)
        found = read_window(path, window)
        assert found.dtype == np.uint16 and np.array_equal(found, expected), window
        assert np.array_equal(read_window(path, window, indexes=[7, 2]), expected[[6, 1]])
        filled = read_window(path, window, fill=65535)
        assert np.array_equal(filled, np.where(expected == 0, 65535, expected))


def test_an_aligned_grid_is_copied_and_another_interpolated(tmp_path: Path) -> None:
    array = analytic_image()[:3]
    path = write_raster(tmp_path / 'a.tif', array, nodata=0)
    full = grid_of(41, 53)
    for window in random_windows(100, seed=1):
        found = read_onto(path, full.subgrid(window), resampling=Resampling.bilinear)
        assert np.array_equal(found, boundless(array, *window)), window
    # 2 m east and 4 m south of the pixel edges: values rise by 1 a column and 100 a row
    for height, width in ((30, 40), (10, 40), (30, 7), (2, 3)):  # GDAL's own guess of the scale depends on the shape
        moved = read_onto(path, grid_of(height, width, (400052, 4599946)), resampling=Resampling.bilinear)
        expected = array[:, 5 : 5 + height, 5 : 5 + width] + 0.2 + 40
        assert np.abs(moved - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize('declared', [True, False])
def test_a_warp_does_not_mix_in_missing_pixels(tmp_path: Path, declared: bool) -> None:
    array = np.full((2, 30, 40), 5000, np.uint16)
    array[:, 10:13, 20:26] = 0
    path = write_raster(tmp_path / 'a.tif', array, **({'nodata': 0} if declared else {}))
    found = read_onto(path, grid_of(30, 40, origin=(400003, 4599995)), resampling=Resampling.bilinear)
    assert set(np.unique(found)) == {0, 5000}
    assert (found[:, 10:12, 20:25] == 0).all() and (found == 0).sum() < 2 * 100


def test_the_same_ground_under_other_names() -> None:
    bounds = (400000.0, 4500000.0, 410000.0, 4510000.0)
    etrs = CRS.from_epsg(25831)
    assert same_ground(etrs, UTM, bounds) and same_ground(UTM, etrs, bounds)
    assert same_ground(CRS.from_wkt(UTM.to_wkt()), UTM, bounds)
    for other in (25830, 23031, 3857, 4326, 3035):
        assert not same_ground(CRS.from_epsg(other), UTM, bounds), other
    degrees = (0.2, 0.1, 0.3, 0.4)  # round to the one point where degrees and metres of 3857 agree
    assert not same_ground(CRS.from_epsg(3857), CRS.from_epsg(4326), degrees)
    assert not same_ground(CRS.from_epsg(4230), CRS.from_epsg(4326), (1.0, 41.0, 2.0, 42.0))
    assert not same_ground(CRS.from_wkt('LOCAL_CS["plan",UNIT["metre",1]]'), UTM, bounds)


# --- labels


def random_codes(height: int, width: int, seed: int, codes: tuple[int, ...] = (0, 0, 1, 2, 12)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice(np.array(codes, np.uint8), (height, width))


def blobs(height: int, width: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Codes 1-12 in squares of ``size`` pixels."""
    small = np.random.default_rng(seed).integers(1, 13, (-(-height // size), -(-width // size)), dtype=np.uint8)
    return repeated(small, size)[:height, :width]


@pytest.mark.parametrize('gsd', [1, 2, 5, 10])
@pytest.mark.parametrize('crs', ['EPSG:32631', 'EPSG:25831'])
@pytest.mark.parametrize('origin', [(400000, 4600000), (400003, 4600007)])
def test_labels_equal_the_numpy_majority(tmp_path: Path, gsd: int, crs: str, origin: tuple[int, int]) -> None:
    n = 10 // gsd
    labels = random_codes(23 * n, 31 * n, seed=gsd)
    path = write_raster(tmp_path / 'l.tif', labels, origin=origin, gsd=gsd, crs=crs)
    grid = grid_of(23, 31, origin)
    for window in random_windows(60, seed=gsd):
        fine = boundless(labels, *window.scaled(n))
        expected = majority_reference(fine, n) if n > 1 else fine
        found = read_labels(path, grid.subgrid(window), table=CODES, aggregation='mode')
        assert found.unknown == 0 and found.codes.dtype == np.uint8 and np.array_equal(found.codes, expected), window
        share = (fine > 0).reshape(window.height, n, window.width, n).sum((1, 3)) * 100 // n**2
        assert np.array_equal(found.labelled, share) and (found.purity <= share).all()
        found = read_labels(path, grid.subgrid(window), table=CODES, aggregation='nearest').codes
        assert np.array_equal(found, fine[n // 2 :: n, n // 2 :: n])


@pytest.mark.parametrize('shift', [(-37, 13), (4, -6), (123, -88)])  # metres east and north of the image
def test_labels_of_another_origin_on_whole_metres_are_exact(tmp_path: Path, shift: tuple[int, int]) -> None:
    labels = random_codes(217, 301, seed=3, codes=(0, 3, 4, 4))
    path = write_raster(tmp_path / 'l.tif', labels, origin=(400003 + shift[0], 4600007 + shift[1]), gsd=1)
    grid = grid_of(41, 53, (400003, 4600007))
    for window in random_windows(60, seed=4):
        fine = boundless(
            labels, window.row * 10 + shift[1], window.col * 10 - shift[0], window.height * 10, window.width * 10
        )
        found = read_labels(path, grid.subgrid(window), table=CODES, aggregation='mode').codes
        assert np.array_equal(found, majority_reference(fine, 10)), window


def test_the_official_labels_are_copied_not_warped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, 'WarpedVRT', None)
    labels = random_codes(410, 530, seed=12)
    path = write_raster(tmp_path / 'l.tif', labels, origin=(399963, 4600013), gsd=1, crs='EPSG:25831', nodata=0)
    found = read_labels(path, grid_of(20, 30), table=CODES, aggregation='mode').codes
    assert np.array_equal(found, majority_reference(labels[13:213, 37:337], 10))
    with pytest.raises(TypeError):  # so would any warp
        read_labels(path, grid_of(20, 30, (400000.5, 4600000)), table=CODES, aggregation='mode')


def test_half_labelled_counts_and_a_tie_goes_to_the_lower_code() -> None:
    blocks = {
        (0, 0, 0, 9): 0,  # less than half is labelled
        (0, 0, 9, 9): 9,
        (0, 0, 9, 5): 5,
        (7, 3, 3, 7): 3,
        (12, 12, 12, 1): 12,
        (99, 99, 99, 4): 0,  # unknown is not labelled
        (99, 4, 4, 99): 4,
        (1, 2, 3, 4): 1,
    }
    values = np.array(list(blocks), np.uint8).reshape(-1, 2, 2)
    labels = aggregate(np.concatenate(list(values), axis=1), CODES, 2)
    assert labels.codes[0].tolist() == list(blocks.values()) and labels.unknown == 5


@pytest.mark.parametrize('resampling', [Resampling.nearest, Resampling.mode])
def test_overviews_inside_the_file_change_nothing(tmp_path: Path, resampling: Resampling) -> None:
    labels = random_codes(410, 530, seed=5)
    layout = {'tiled': True, 'blockxsize': 64, 'blockysize': 64, 'compress': 'deflate'}
    path = write_raster(tmp_path / 'l.tif', labels, gsd=1, **layout)
    with rasterio.open(path, 'r+') as dst:
        dst.build_overviews([2, 4, 8, 10], resampling)
    close_rasters()
    with rasterio.open(path) as src:
        assert src.overviews(1) == [2, 4, 8, 10]
    assert not open_raster(path).overviews(1)  # nobody's decimated read meets them
    grid = grid_of(41, 53)
    found = read_labels(path, grid, table=CODES, aggregation='mode').codes
    assert np.array_equal(found, majority_reference(labels, 10))
    # also where a warp decimates: half a metre off, to 10 m
    half = read_labels(path, grid_of(41, 53, (400000.5, 4600000)), table=CODES, aggregation='nearest').codes
    assert np.array_equal(half[:, :52], labels[5::10, 5::10][:, :52])


@pytest.mark.parametrize('nodata', [None, 0, 255, 7])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('off_grid', [False, True])
def test_declared_nodata_is_no_data_and_not_unknown(
    tmp_path: Path, nodata: int | None, dtype: str, off_grid: bool
) -> None:
    labels = blobs(200, 260, 20, seed=6)
    labels[labels == 7] = 8
    holes = labels.copy()
    holes[40:90, 60:141] = 0
    on_disk = np.where(holes == 0, nodata or 0, holes).astype(dtype)
    path = write_raster(tmp_path / 'l.tif', on_disk, gsd=1, **({} if nodata is None else {'nodata': nodata}))
    origin = (400000.5, 4600000) if off_grid else (400000, 4600000)
    found, *_, unknown = read_labels(path, grid_of(20, 25, origin), table=CODES, aggregation='mode')
    expected = majority_reference(holes, 10)[:, :25]
    assert unknown == 0 and (np.array_equal(found, expected) or (off_grid and (found == expected).mean() > 0.99))


@pytest.mark.parametrize('dtype', ['uint16', 'int16', 'int32', 'float32', 'float64'])
def test_values_that_are_no_code_are_counted_and_become_no_data(tmp_path: Path, dtype: str) -> None:
    labels = np.full((40, 60), 3, dtype)
    odd = [13, 254, 255, 256, 259, 30000] + ([-1, -250] if dtype != 'uint16' else [])
    odd += [2.5, 1e9, np.inf, -np.inf] if dtype.startswith('float') else []
    labels[0, : len(odd)] = odd
    missing = 5 if dtype.startswith('float') else 0
    labels[10, :missing] = np.nan if missing else 3
    path = write_raster(tmp_path / 'l.tif', labels, gsd=10)
    codes, *_, unknown = read_labels(path, grid_of(40, 60), table=CODES, aggregation='mode')
    assert unknown == len(odd) and (codes[0, : len(odd)] == 0).all() and (codes[10, :missing] == 0).all()
    assert (codes == 3).sum() == 40 * 60 - len(odd) - missing


def warped_to(labels: NDArray[np.uint8], crs: str, folder: Path) -> Path:
    """The labels (1 m, at the usual origin) in another CRS, nearest."""
    height, width = labels.shape
    source = from_origin(400000, 4600000, 1, 1)
    bounds = (400000, 4600000 - height, 400000 + width, 4600000)
    transform, columns, rows = calculate_default_transform(UTM, crs, width, height, *bounds)
    out = np.zeros((rows, columns), np.uint8)
    reproject(
        labels, out, src_transform=source, src_crs=UTM, dst_transform=transform, dst_crs=crs, init_dest_nodata=True
    )
    path = folder / 'l.tif'
    with rasterio.open(
        path, 'w', driver='GTiff', count=1, height=rows, width=columns, dtype='uint8', crs=crs, transform=transform
    ) as dst:
        dst.write(out, 1)
    return path


@pytest.mark.parametrize('crs', ['EPSG:25830', 'EPSG:3857', 'EPSG:3035', 'EPSG:4326'])
@pytest.mark.parametrize('parent', [False, True])
def test_labels_through_a_warp_follow_the_truth(tmp_path: Path, crs: str, parent: bool) -> None:
    if parent:  # many kinds of forest against one town: the 12 codes decide, not the 41 values
        rng = np.random.default_rng(7)
        kinds = np.array([p.value for p in PARENTS if p.code == 3] + [21] * 3, np.uint8)
        labels = rng.choice(kinds, (410, 530))
    else:
        labels = blobs(410, 530, 37, seed=8)
    table = lookup_table(parent)
    path = warped_to(labels, crs, tmp_path)
    found, *_, unknown = read_labels(path, grid_of(41, 53), table=table, aggregation='mode')
    truth = majority_reference(table[labels], 10)
    inside = (slice(1, -1), slice(1, -1))
    assert unknown == 0 and (found[inside] == truth[inside]).mean() > 0.97
    far = read_labels(path, grid_of(8, 9, (500000, 4700000)), table=table, aggregation='mode').codes
    assert far.shape == (8, 9) and not far.any()
    nearest = read_labels(path, grid_of(41, 53), table=table, aggregation='nearest').codes
    middle = table[labels][5::10, 5::10]
    assert parent or (nearest[inside] == middle[inside]).mean() > 0.95


def test_half_labelled_counts_through_a_warp_too(tmp_path: Path) -> None:
    labels = np.full((400, 500), 6, np.uint8)
    labels[:, ::10] = 0  # 9/10 labelled on the left
    labels[:, 250:] = 0
    labels[:, 250::10] = 6  # 1/10 labelled on the right
    path = warped_to(labels, 'EPSG:25830', tmp_path)
    found = read_labels(path, grid_of(40, 50), table=CODES, aggregation='mode').codes
    assert (found[2:-2, 2:24] == 6).all() and not found[:, 26:].any()


@pytest.mark.parametrize('gsd', [3, 7, 20, (1, 2)])
def test_labels_whose_pixels_do_not_divide_the_grid(tmp_path: Path, gsd: float | tuple[float, float]) -> None:
    xres, yres = gsd if isinstance(gsd, tuple) else (gsd, gsd)
    ground = blobs(420, 600, 60, seed=9)
    rows, cols = np.arange(0, 420, yres).astype(int), np.arange(0, 600, xres).astype(int)
    path = write_raster(tmp_path / 'l.tif', ground[np.ix_(rows, cols)], gsd=gsd)
    found = read_labels(path, grid_of(42, 60), table=CODES, aggregation='mode').codes
    assert (found == majority_reference(ground, 10)).mean() > 0.93


def test_labels_that_no_transformation_reaches_are_told(tmp_path: Path) -> None:
    path = write_raster(tmp_path / 'l.tif', analytic_codes(), gsd=1, crs='LOCAL_CS["plan",UNIT["metre",1]]')
    with pytest.raises(LandcoverError, match=r'no transformation leads from .*assign the right CRS'):
        read_labels(path, grid_of(4, 5), table=CODES, aggregation='mode')


# --- handles


def test_descriptions_are_read_although_overviews_are_hidden(tmp_path: Path) -> None:
    path = write_raster(tmp_path / 'a.tif', analytic_image(bands=3), descriptions=['B04', None, 'B02'])
    assert band_descriptions(path) == ('B04', None, 'B02')


def test_names_of_remote_files_become_gdals() -> None:
    assert vsi_path('s3://b/k.tif') == '/vsis3/b/k.tif'
    assert vsi_path('https://x.org/k.tif') == '/vsicurl/https://x.org/k.tif'
    assert vsi_path('/vsigs/b/k.tif') == '/vsigs/b/k.tif' and vsi_path(Path('a/gs.tif')) == 'a/gs.tif'


def test_a_handle_is_kept_and_a_rewritten_file_opened_anew(tmp_path: Path) -> None:
    path = write_raster(tmp_path / 'a.tif', analytic_codes())
    assert open_raster(path) is open_raster(str(path))
    first = read_window(path, PixelWindow(0, 0, 4, 5))
    write_raster(path, analytic_codes()[::-1].copy())
    os.utime(path, ns=(1, 1))
    assert not np.array_equal(first, read_window(path, PixelWindow(0, 0, 4, 5)))


def test_handles_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, 'MAX_HANDLES', 3)
    paths = [write_raster(tmp_path / f'{i}.tif', analytic_codes() + i) for i in range(6)]
    handles = [open_raster(p) for p in paths]
    assert [h.closed for h in handles] == [True, True, True, False, False, False]
    assert [int(read_window(p, PixelWindow(0, 0, 1, 1))[0, 0, 0]) for p in paths] == list(range(1, 7))
    close_rasters()
    assert all(h.closed for h in handles)


def test_threads_have_handles_of_their_own(tmp_path: Path) -> None:
    array = analytic_image()
    path = write_raster(tmp_path / 'a.tif', array, compress='deflate')
    mine, seen, wrong = open_raster(path), [], []

    def work(seed: int) -> None:
        seen.append(open_raster(path))
        wrong.extend(
            w for w in random_windows(60, seed) if not np.array_equal(read_window(path, w), boundless(array, *w))
        )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(set(map(id, [mine, *seen]))) == 5


def _child(path: Path, parent_handle: int, queue: 'multiprocessing.Queue[bool]') -> None:
    queue.put(id(open_raster(path)) != parent_handle and bool(read_window(path, PixelWindow(1, 2, 3, 4)).any()))


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')
def test_a_handle_never_crosses_a_fork(tmp_path: Path) -> None:
    path = write_raster(tmp_path / 'a.tif', analytic_image())
    handle = open_raster(path)
    context = multiprocessing.get_context('fork')
    queue: multiprocessing.Queue[bool] = context.Queue()
    child = context.Process(target=_child, args=(path, id(handle), queue))
    child.start()
    assert queue.get(timeout=20)
    child.join()
    assert not handle.closed and open_raster(path) is handle


# --- bad files


def cog(path: Path, array: NDArray[np.uint16]) -> None:
    write_raster(path, array, driver='COG', compress='deflate', blocksize=128)


def tiled(path: Path, array: NDArray[np.uint16]) -> None:
    write_raster(path, array, tiled=True, blockxsize=64, blockysize=64, compress='deflate', nodata=0)


def tiled_by_band(path: Path, array: NDArray[np.uint16]) -> None:
    write_raster(path, array, tiled=True, blockxsize=64, blockysize=64, interleave='band')


def striped(path: Path, array: NDArray[np.uint16]) -> None:
    write_raster(path, array, compress='lzw')


def plain(path: Path, array: NDArray[np.uint16]) -> None:
    write_raster(path, array)


LAYOUTS = [cog, tiled, tiled_by_band, striped, plain]


@pytest.fixture
def noise() -> NDArray[np.uint16]:
    return np.random.default_rng(10).integers(1, 9000, (4, 300, 421), dtype=np.uint16)


@pytest.mark.parametrize('write', LAYOUTS)
def test_a_whole_file_passes(tmp_path: Path, write: Callable, noise: NDArray[np.uint16]) -> None:
    write(tmp_path / 'a.tif', noise)
    check_whole(tmp_path / 'a.tif')
    assert np.array_equal(read_window(tmp_path / 'a.tif', PixelWindow(0, 0, 300, 421)), noise)


@pytest.mark.parametrize('write', LAYOUTS)
@pytest.mark.parametrize('share', [0.001, 0.02, 0.3, 0.7, 0.99, 0.9999])
def test_a_file_cut_off_is_told(tmp_path: Path, write: Callable, share: float, noise: NDArray[np.uint16]) -> None:
    path = tmp_path / 'a.tif'
    write(path, noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(LandcoverError, match=r'a\.tif (is truncated.*fetch it again|cannot be opened as a raster)'):
        check_whole(path)


@pytest.mark.parametrize('write', [cog, tiled, striped])
def test_a_file_damaged_in_the_middle_is_told_when_it_is_read(
    tmp_path: Path, write: Callable, noise: NDArray[np.uint16]
) -> None:
    path = tmp_path / 'a.tif'
    write(path, noise % 200)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = np.random.default_rng(11).bytes(
        4000
    )  # libtiff checks no checksum: not all is noticed
    path.write_bytes(content)
    with pytest.raises(LandcoverError, match=r'a\.tif cannot be read \(.*truncated or damaged: fetch it again'):
        read_window(path, PixelWindow(0, 0, 300, 421))
    with pytest.raises(LandcoverError, match=r'a\.tif cannot be read'):
        read_onto(path, grid_of(300, 421, (400003, 4600000)), resampling=Resampling.bilinear)


def test_no_raster_at_all_is_told(tmp_path: Path) -> None:
    for name, content in {'empty.tif': b'', 'text.tif': b'hello', 'zeros.tif': bytes(5000)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LandcoverError, match=f'{name} cannot be opened as a raster'):
            open_raster(tmp_path / name)
    with pytest.raises(LandcoverError, match='cannot be opened as a raster'):
        open_raster(tmp_path)
    with pytest.raises(LandcoverError, match=r'gone\.tif does not exist'):
        open_raster(tmp_path / 'gone.tif')


def test_a_grid_needs_a_georeference(tmp_path: Path) -> None:
    codes = analytic_codes()
    cases = {
        r'has no CRS; assign the right one \(gdal_edit.py -a_srs': {'crs': None},
        r'\(identity transform\); assign it': {'transform': Affine.identity()},
        r'north up without rotation, got the transform .*gdalwarp': {'transform': Affine(9, 1, 4e5, 1, -9, 4e6)},
    }
    for sentence, options in cases.items():
        path = tmp_path / 'a.tif'
        path.unlink(missing_ok=True)
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning) if 'identity' in sentence else _nothing():
            write_raster(path, codes, **options)
            with pytest.raises(LandcoverError, match=rf'a\.tif.*{sentence}'):
                PixelGrid.of(open_raster(path))


class _nothing:  # noqa: N801 - reads like contextlib.nullcontext
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def test_copies_of_a_raster_are_told_and_look_alikes_are_not(tmp_path: Path) -> None:
    """Uncompressed tiles of one size that differ in their middle alone are two rasters."""
    image = np.zeros((10, 200, 230), dtype=np.uint16)
    image[:, 90:110, 40:80] = 7
    other = np.zeros_like(image)
    other[:, 90:110, 140:180] = 9
    a = write_image(tmp_path / 'a', image)
    b = write_image(tmp_path / 'b', other)
    assert a.stat().st_size == b.stat().st_size
    assert len(Mosaics(tmp_path).files) == 2
    (tmp_path / 'b' / 'copy').mkdir()
    shutil.copyfile(a, tmp_path / 'b' / 'copy' / a.name)
    with pytest.raises(LandcoverError, match=r'are copies of one raster; move one out of the folder'):
        Mosaics(tmp_path)
    assert len(Mosaics(tmp_path / 'b').files) == 2


@pytest.mark.parametrize('nodata', [0, 5, np.nan])
@pytest.mark.parametrize('dtype', ['uint16', 'float32'])
def test_measured_pixels_equal_their_definition(dtype: str, nodata: float) -> None:
    rng = np.random.default_rng(3)
    image = rng.choice([0, 5, 9], (3, 20, 30)).astype(dtype)
    if dtype == 'float32':
        image[rng.random(image.shape) < 0.1] = np.nan
    elif np.isnan(nodata):
        return
    wanted = np.isfinite(image).all(0) & ~(image == nodata).all(0)
    out = np.empty((20, 30), dtype=bool)
    assert measured(image, nodata, out) is out
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(measured(image, nodata), wanted)
