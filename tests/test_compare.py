"""`landcover compare` from the outside: two maps in, tables, change raster and polygons out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from conftest import analytic_codes, majority_reference, repeated, write_label, write_raster
from numpy.typing import NDArray
from rasterio.warp import Resampling, reproject
from scipy import ndimage

from landcover_plugin.commands import compare
from landcover_plugin.errors import LandcoverError
from landcover_plugin.evaluation import change_polygons, overlay
from landcover_plugin.legend import PARENTS


def two_maps(height: int = 90, width: int = 130) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two maps of coarse patches, with no data in a corner of each."""
    rng = np.random.default_rng(0)
    a = repeated(rng.choice([1, 3, 6], size=(height // 5, width // 5)), 5).astype(np.uint8)
    b = np.where(repeated(rng.random((height // 10, width // 10)) < 0.3, 10), 3, a).astype(np.uint8)
    a[:6, :9], b[-8:, -4:] = 0, 0
    return a, b


def run(folder: Path, a: Path, b: Path, *more: object) -> dict[str, Any]:
    arguments = [a, b, '--output', folder / 'out', '--overwrite', *more]
    assert compare.main([str(v) for v in arguments]) == 0
    return dict(json.loads((folder / 'out' / 'components.json').read_text(encoding='utf-8')))


def matrix_of(found: dict[str, Any]) -> NDArray[np.int64]:
    matrix = np.zeros((13, 13), dtype=np.int64)
    for row in found['transitions']:
        matrix[row['from_code'], row['to_code']] = row['pixels']
    return matrix


def counted(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.int64]:
    matrix = np.zeros((13, 13), dtype=np.int64)
    np.add.at(matrix, (a, b), 1)
    matrix[0], matrix[:, 0] = 0, 0
    return matrix


@pytest.mark.parametrize('tile', [512, 16])
def test_transitions_are_counts_of_pairs(tile: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, 'TILE', tile)
    a, b = two_maps()
    found = run(tmp_path, write_raster(tmp_path / 'a.tif', a), write_raster(tmp_path / 'b.tif', b))
    expected = counted(a, b)
    assert (matrix_of(found) == expected).all()
    assert found['components_ha']['agreement'] == pytest.approx(np.trace(expected) * 0.01)
    assert found['components_ha']['disagreement'] == pytest.approx((expected.sum() - np.trace(expected)) * 0.01)
    assert found['only_first_ha'] == pytest.approx(((a > 0) & (b == 0)).sum() * 0.01)
    forest = next(r for r in found['classes'] if r['code'] == 3)
    assert forest['gain_ha'] == pytest.approx(((b == 3) & (a != 3) & (a > 0)).sum() * 0.01)
    assert forest['first_ha'] == pytest.approx(((a == 3) & (b > 0)).sum() * 0.01)


def test_a_map_equals_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_raster(tmp_path / 'a.tif', two_maps()[0])
    found = run(tmp_path, path, path, '--raster', '--polygons')
    assert found['components_ha']['disagreement'] == 0 and 'no pixel differs' in capsys.readouterr().out
    assert len(pyogrio.read_dataframe(tmp_path / 'out' / 'changes.gpkg')) == 0


def test_shifted_grids_of_one_lattice_are_compared_where_they_meet(tmp_path: Path) -> None:
    a, b = two_maps()
    first = write_raster(tmp_path / 'a.tif', a[10:, :100], origin=(400000, 4599900))
    second = write_raster(tmp_path / 'b.tif', b[:80, 20:], origin=(400200, 4600000))
    found = run(tmp_path, first, second, '--raster')
    assert (matrix_of(found) == counted(a[10:80, 20:100], b[10:80, 20:100])).all()
    with rasterio.open(tmp_path / 'out' / 'change.tif') as src:
        assert src.shape == (70, 80) and (src.transform.c, src.transform.f) == (400200, 4599900)


def test_finer_labels_become_pixels_by_majority_or_centre(tmp_path: Path) -> None:
    codes = analytic_codes(30, 40)
    rng = np.random.default_rng(0)
    fine = repeated(codes, 10)
    fine = np.where(rng.random(fine.shape) < 0.3, 3, fine).astype(np.uint8)
    a, b = write_raster(tmp_path / 'a.tif', codes), write_label(tmp_path, fine)
    assert (matrix_of(run(tmp_path, a, b)) == counted(codes, majority_reference(fine, 10))).all()
    nearest = run(tmp_path, a, b, '--aggregation', 'nearest')
    assert (matrix_of(nearest) == counted(codes, fine[5::10, 5::10])).all()


def test_parents_become_the_twelve_classes(tmp_path: Path) -> None:
    values = (np.arange(41 * 30).reshape(30, 41) % 41 + 1).astype(np.uint8)
    table = np.array([0, *(p.code for p in PARENTS)], dtype=np.uint8)
    a, b = write_raster(tmp_path / 'a.tif', table[values]), write_raster(tmp_path / 'b.tif', values)
    assert run(tmp_path, a, b)['components_ha']['disagreement'] == 0


def test_another_crs_is_brought_to_the_first(tmp_path: Path) -> None:
    a = two_maps()[0]
    a[a == 0] = 3
    first = write_raster(tmp_path / 'a.tif', a)
    moved = np.zeros((220, 300), dtype=np.uint8)
    with rasterio.open(first) as src:
        left, bottom, right, top = rasterio.warp.transform_bounds(src.crs, 'EPSG:4326', *src.bounds)
        gsd = ((right - left) / 300, (top - bottom) / 220)
        transform = rasterio.transform.from_origin(left, top, *gsd)
        reproject(
            a, moved, src_transform=src.transform, src_crs=src.crs, dst_transform=transform, dst_crs='EPSG:4326',
            resampling=Resampling.nearest,
        )  # fmt: skip
    second = write_raster(tmp_path / 'b.tif', moved, origin=(left, top), gsd=gsd, crs='EPSG:4326')
    found = run(tmp_path, first, second)
    parts = found['components_ha']
    assert found['compared_pixels'] > 0.97 * a.size  # the rim is cut askew
    assert parts['agreement'] > 0.97 * found['compared_ha']


def test_the_change_raster_names_its_transitions(tmp_path: Path) -> None:
    a, b = two_maps()
    run(tmp_path, write_raster(tmp_path / 'a.tif', a), write_raster(tmp_path / 'b.tif', b), '--raster')
    path = tmp_path / 'out' / 'change.tif'
    with rasterio.open(path) as src:
        assert (src.dtypes, src.nodata, src.tags(ns='IMAGE_STRUCTURE')['LAYOUT']) == (('uint16',), 65535, 'COG')
        values = src.read(1)
    expected = np.where(a == b, 0, a.astype(int) * 100 + b)
    expected[(a == 0) | (b == 0)] = 65535
    assert (values == expected).all()
    assert 'forest -&gt; ' not in path.with_name('change.tif.aux.xml').read_text()  # forest never changes here
    assert 'urban area -&gt; forest' in path.with_name('change.tif.aux.xml').read_text()


@pytest.mark.parametrize('rows', [512, 7, 1])
def test_polygons_are_the_changed_ground_whatever_the_strips(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_polygons, 'ROWS', rows)
    a, b = two_maps()
    b[3:70, 40] = 12  # a thin line through many strips
    b[20:22, 10:120] = 11
    first, second = write_raster(tmp_path / 'a.tif', a), write_raster(tmp_path / 'b.tif', b)
    run(tmp_path, first, second, '--polygons', '--min-area', 0)
    found = pyogrio.read_dataframe(tmp_path / 'out' / 'changes.gpkg')
    values = a.astype(int) * 100 + b
    values[(a == b) | (a == 0) | (b == 0)] = 0
    number = sum(ndimage.label(values == v)[1] for v in np.unique(values) if v)  # joined by edges
    assert len(found) == number and found.geometry.is_valid.all()
    assert found['area_ha'].to_numpy() == pytest.approx(found.geometry.area.to_numpy() / 1e4)
    with rasterio.open(first) as src:
        pairs = zip(found.geometry, found['from_code'] * 100 + found['to_code'], strict=True)
        burnt = rasterio.features.rasterize(pairs, a.shape, transform=src.transform, dtype='int32')
    assert (burnt == values).all()
    assert (found['to_class'][found['to_code'] == 12] == 'watercourses and water bodies').all()


def test_small_polygons_are_left_out(tmp_path: Path) -> None:
    a = np.full((40, 50), 3, np.uint8)
    b = a.copy()
    b[2, 2], b[10:20, 10:30] = 6, 6
    paths = write_raster(tmp_path / 'a.tif', a), write_raster(tmp_path / 'b.tif', b)
    run(tmp_path, *paths, '--polygons')
    found = pyogrio.read_dataframe(tmp_path / 'out' / 'changes.gpkg')
    assert found['area_ha'].tolist() == [2.0] and found['from_class'].tolist() == ['forest']


def test_only_the_area_of_interest_is_compared(tmp_path: Path) -> None:
    a, b = two_maps()
    frame = gpd.GeoDataFrame(geometry=[shapely.box(400200, 4599300, 400900, 4599800)], crs='EPSG:32631')
    frame.to_file(tmp_path / 'aoi.gpkg')
    paths = write_raster(tmp_path / 'a.tif', a), write_raster(tmp_path / 'b.tif', b)
    found = run(tmp_path, *paths, '--aoi', tmp_path / 'aoi.gpkg')
    assert (matrix_of(found) == counted(a[20:70, 20:90], b[20:70, 20:90])).all()


def test_the_command_tells_and_writes(tmp_path: Path) -> None:
    a, b = two_maps()
    write_raster(tmp_path / 'a.tif', a)
    write_raster(tmp_path / 'b.tif', b)
    arguments = [tmp_path / 'a.tif', tmp_path / 'b.tif', '--output', tmp_path / 'out', '--polygons']
    command = [sys.executable, '-m', 'landcover_plugin', 'compare', *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 'quantity disagreement' in done.stdout and 'urban area -> forest' in done.stdout
    names = {p.name for p in (tmp_path / 'out').iterdir()}
    assert names == {'components.json', 'classes.csv', 'transitions.csv', 'matrix.csv', 'change.tif',
                     'change.tif.aux.xml', 'changes.gpkg'}  # fmt: skip
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 1 and 'exists already' in again.stderr and '--overwrite' in again.stderr


@pytest.mark.parametrize(
    ('options', 'more', 'sentence'),
    [
        ({'origin': (600000, 4600000)}, [], 'do not overlap: the first covers'),
        ({'crs': None}, [], 'has no CRS'),
        ({'crs': 'EPSG:32731'}, [], 'do not overlap'),
        ({}, ['--raster'], 'are written to a folder: name it with --output'),
        ({}, ['--min-area', '-1'], '--min-area must be at least 0'),
        ({'empty': True}, [], 'share no pixel with a class in both'),
    ],
)
def test_maps_that_cannot_be_compared(tmp_path: Path, options: dict[str, Any], more: list[str], sentence: str) -> None:
    a, b = two_maps()
    if options.pop('empty', False):
        b[:] = 0
    paths = write_raster(tmp_path / 'a.tif', a), write_raster(tmp_path / 'b.tif', b, **options)
    with pytest.raises(LandcoverError, match=sentence):
        compare.main([*map(str, paths), *more])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failure_leaves_no_change_raster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = two_maps()
    paths = write_raster(tmp_path / 'a.tif', a), write_raster(tmp_path / 'b.tif', b)

    def fail(*_: object, **__: object) -> None:
        raise OSError('disk full')

    monkeypatch.setattr('rasterio.shutil.copy', fail)
    with pytest.raises(LandcoverError, match=r'change\.tif cannot be written'):
        compare.main([*map(str, paths), '--output', str(tmp_path / 'out'), '--raster'])
    left = [p for p in tmp_path.rglob('*') if p.is_file()]
    assert sorted(left) == sorted(paths)
