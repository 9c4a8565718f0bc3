"""Each finding has data that provoke it: the level, the sentence and the way out that the user reads."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import BANDS, IMAGE_NAME, LABEL_NAME, analytic_codes, repeated, write_image, write_label, write_raster
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling

from landcover_plugin.datasets.simulated import Scene, write_scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid
from landcover_plugin.inspection import layout, leakage, rounds, storage
from landcover_plugin.inspection.examination import Examination, Settings
from landcover_plugin.inspection.facts import Facts, read_facts
from landcover_plugin.inspection.findings import Finding, Level, exit_code, told_by, worst
from landcover_plugin.inspection.rounds import examine
from landcover_plugin.inspection.sample import spread_windows
from landcover_plugin.inspection.screen import as_text
from landcover_plugin.inspection.steps import next_steps
from landcover_plugin.rasters.landcover import LabelRasters
from landcover_plugin.rasters.mosaics import Mosaics
from landcover_plugin.sampling.blocks import SPLITS
from landcover_plugin.sampling.inventory import cell_size
from landcover_plugin.sampling.inventory_cache import cached_inventory
from landcover_plugin.sampling.prepare import prepare
from landcover_plugin.sampling.store import STORE_FOLDER
from landcover_plugin.sampling.weights import WEIGHTINGS, class_weights

Images = dict[str, NDArray[Any]]


@pytest.fixture(scope='module')
def pixels(scene: Scene) -> Images:
    """The simulated scene as arrays: a month each, and the label."""
    paths = dict(zip(scene.seasons, scene.images, strict=True)) | {'label': scene.label}
    arrays = {}
    for name, path in paths.items():
        with rasterio.open(path) as src:
            arrays[name] = src.read()
    return arrays | {'label': arrays['label'][0]}


@pytest.fixture(scope='module')
def land(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with room for every class in training, validation and test ground."""
    return write_scene(tmp_path_factory.mktemp('land'), size=(416, 448), seed=2, label_gsd=2).label.parent


@pytest.fixture
def folder(pixels: Images, tmp_path: Path) -> Callable[..., Path]:
    """Writes the scene, or what replaces parts of it, as tiled GeoTIFFs that declare nodata 0."""

    def write(images: Images | None = None, label: NDArray[Any] | None = None, **options: dict[str, Any]) -> Path:
        usual = {'nodata': 0, 'compress': 'deflate', 'tiled': True, 'blockxsize': 64, 'blockysize': 64}
        for month in ('201804', '201808') if images is None else images:
            array = pixels[month] if images is None else images[month]
            write_image(tmp_path, array, month=month, **(usual | options.get('image', {})))
        write_label(tmp_path, pixels['label'] if label is None else label, **({'gsd': 2} | options.get('labels', {})))
        return tmp_path

    return write


def look(root: Path, **settings: Any) -> Examination:
    return examine(Settings(root=str(root), **({'patch_size': 32} | settings)))


def of(found: Examination, check: str, level: Level | None = None) -> list[Finding]:
    return [f for f in found.findings if f.check == check and level in (None, f.level)]


def only(found: Examination, check: str, level: Level) -> Finding:
    findings = of(found, check, level)
    assert len(findings) == 1, found.findings
    return findings[0]


def test_a_healthy_scene_has_nothing_worse_than_notes(land: Path) -> None:
    found = look(land)
    assert worst(found.findings) in ('ok', 'note'), found.findings
    assert exit_code(found.findings) == 0
    checks = {f.check for f in found.findings}
    assert checks >= {'files', 'grid', 'bands', 'scale', 'nodata', 'sky', 'legend', 'classes', 'shift', 'pyramids',
                      'layout', 'split', 'storage'}  # fmt: skip
    assert found.share == 1
    assert sum(row.share for row in found.table) == pytest.approx(1)
    assert 'landcover fit' in next_steps(found)[-1]
    assert '--data.patch_size 32' in next_steps(found)[-1]


# files


def test_a_missing_folder_is_told_once() -> None:
    found = look(Path('/no/such/folder'))
    assert 'does not exist' in only(found, 'files', 'error').sentence
    assert exit_code(found.findings) == 1


def test_missing_labels_and_files_with_other_names(folder: Callable[..., Path]) -> None:
    root = folder()
    (root / LABEL_NAME).rename(root / 'landcover.tif')
    found = look(root)
    assert 'no LC_YYYY_*.tif' in only(found, 'files', 'error').sentence
    note = only(found, 'files', 'note')
    assert note.sentence.startswith('landcover.tif: passed by')
    assert 'if these are the labels, rename them' in note.way_out
    assert note.way_out in next_steps(found)
    assert of(found, 'scale', 'ok')  # the images are examined all the same


def test_a_truncated_file_does_not_hide_the_others(folder: Callable[..., Path]) -> None:
    root = folder()
    path = root / IMAGE_NAME
    os.truncate(path, path.stat().st_size // 2)
    found = look(root)
    error = only(found, 'files', 'error')
    assert IMAGE_NAME in error.sentence
    assert error.way_out.startswith('fetch it again')
    assert found.table
    assert '2018-08' in only(found, 'seasons', 'note').sentence


def test_a_file_that_is_no_raster(folder: Callable[..., Path]) -> None:
    root = folder()
    (root / IMAGE_NAME.replace('201804', '201812')).write_bytes(b'<html>not found</html>')
    assert 'cannot be opened' in only(look(root), 'files', 'error').sentence


def test_no_crs(folder: Callable[..., Path]) -> None:
    error = only(look(folder(labels={'crs': None})), 'files', 'error')
    assert 'has no CRS' in error.sentence
    assert 'gdal_edit.py -a_srs' in error.way_out


def test_labels_of_another_year(folder: Callable[..., Path]) -> None:
    root = folder()
    (root / LABEL_NAME).rename(root / LABEL_NAME.replace('2018', '2009'))
    assert 'labels of 2009 meet mosaics of 2018' in only(look(root), 'files', 'note').sentence


def test_a_damaged_tile_is_found_by_reading(folder: Callable[..., Path]) -> None:
    root = folder()
    with rasterio.open(root / IMAGE_NAME) as src:
        start = int(src.get_tag_item('BLOCK_OFFSET_1_1', 'TIFF', bidx=1))
    with (root / IMAGE_NAME).open('r+b') as file:
        file.seek(start)
        file.write(b'\xff' * 400)
    found = look(root)
    error = only(found, 'reading', 'error')
    assert error.sentence.startswith('2018-04: ')
    assert 'windows cannot be read' in error.sentence
    assert 'fetch it again' in error.way_out
    assert found.table


def test_pixels_of_complex_numbers(folder: Callable[..., Path], pixels: Images) -> None:
    root = folder({'201804': pixels['201804'], '201808': pixels['201808'].astype(np.complex64)})
    assert 'holds complex64 pixels' in only(look(root), 'files', 'error').sentence


# grids


def test_mosaics_on_two_grids(folder: Callable[..., Path], pixels: Images) -> None:
    root = folder({'201804': pixels['201804']})
    write_image(root, pixels['201808'][:, :100], month='201808', origin=(400003, 4600000), nodata=0)
    found = look(root)
    error = only(found, 'grid', 'error')
    assert 'does not lie on the grid of' in error.sentence
    assert 'gdalwarp -t_srs EPSG:32631 -te 400000 4598080 402560 4600000 -ts 256 192 -r bilinear' in error.way_out
    assert '2018-04' in only(found, 'seasons', 'note').sentence


def test_labels_in_another_crs_or_off_the_pixel_edges(folder: Callable[..., Path]) -> None:
    root = folder(labels={'origin': (400000.7, 4600000)})
    warning = only(look(root), 'grid', 'warning')
    assert 'off by 0.35 and 0 of a label pixel' in warning.sentence
    assert 'prepare' in warning.way_out
    write_label(root, analytic_codes(192, 256), gsd=10, crs='EPSG:32630', origin=(900000, 4620000))
    assert 'another CRS than that of the mosaics' in only(look(root), 'grid', 'warning').sentence


def test_no_whole_number_of_label_pixels(folder: Callable[..., Path], pixels: Images) -> None:
    root = folder(label=pixels['label'][:640, :850], labels={'gsd': 3})
    assert '3.333 of them lie along a pixel' in only(look(root), 'grid', 'warning').sentence


def test_labels_in_a_crs_that_leads_nowhere(folder: Callable[..., Path]) -> None:
    found = look(folder(labels={'crs': 'LOCAL_CS["site",UNIT["metre",1]]'}))
    assert 'no transformation leads from' in only(found, 'grid', 'error').sentence
    assert of(found, 'scale', 'ok')
    assert not any('itself failed' in f.sentence for f in found.findings)


def test_labels_coarser_than_the_mosaics(folder: Callable[..., Path]) -> None:
    root = folder(label=analytic_codes(96, 128), labels={'gsd': 20})
    assert 'coarser than the mosaics' in only(look(root), 'grid', 'warning').sentence


def test_pixels_of_another_size(folder: Callable[..., Path]) -> None:
    root = folder(image={'gsd': 20})
    assert '20 x 20 units, not 10 m' in only(look(root), 'grid', 'note').sentence


def test_mosaics_in_degrees(folder: Callable[..., Path]) -> None:
    root = folder(image={'gsd': 1e-4, 'crs': 'EPSG:4326', 'origin': (2, 41.5)})
    found = look(root)
    assert 'lie in degrees' in of(found, 'grid', 'warning')[0].sentence


def test_labels_of_other_ground(folder: Callable[..., Path]) -> None:
    found = look(folder(labels={'origin': (500000, 4600000)}))
    assert 'share no ground' in only(found, 'overlap', 'error').sentence
    assert 'both labelled and measured' in only(found, 'classes', 'error').sentence


def test_labels_of_a_part_of_the_ground(folder: Callable[..., Path], pixels: Images) -> None:
    found = look(folder(label=pixels['label'][:300, :600]))
    assert 'of the ground of the mosaics lies within the labels' in only(found, 'overlap', 'warning').sentence


def test_a_month_twice_on_the_same_ground(folder: Callable[..., Path], pixels: Images) -> None:
    root = folder()
    again = write_image(root, pixels['201804'], month='201804_b', nodata=0)
    warning = only(look(root), 'overlap', 'warning')
    assert 'of one month and share 100%' in warning.sentence
    again.unlink()
    write_image(root / 'east', pixels['201804'][:, :, :64], origin=(402400, 4600000), nodata=0)
    assert 'share 6%' in only(look(root), 'overlap', 'note').sentence


def test_a_copy_of_a_raster_below_its_folder(folder: Callable[..., Path]) -> None:
    root = folder()
    (root / 'old').mkdir()
    shutil.copy(root / LABEL_NAME, root / 'old' / LABEL_NAME)
    error = only(look(root), 'files', 'error')
    assert 'are copies of one raster' in error.sentence
    assert error.way_out.startswith('move one out of the folder')


# bands


def test_bands_without_names(folder: Callable[..., Path]) -> None:
    root = folder(image={'descriptions': None})
    assert 'the CatLC order is assumed' in only(look(root), 'bands', 'note').sentence
    assert 'by your order B02' in only(look(root, band_order=BANDS), 'bands', 'ok').sentence


def test_four_bands_without_names_are_an_error_and_the_rest_goes_on(
    folder: Callable[..., Path], pixels: Images
) -> None:
    months = {m: pixels[m][:4] for m in ('201804', '201808')}
    found = look(folder(months))
    assert '4 bands without names' in only(found, 'bands', 'error').sentence
    assert found.table
    assert of(found, 'shift')
    assert not of(look(folder(months), band_order=BANDS[:4]), 'bands', 'error')


def test_a_band_that_is_not_there(folder: Callable[..., Path]) -> None:
    found = look(folder(), bands=['B04', 'B09'])
    error = only(found, 'bands', 'error')
    assert 'has no band B09; it has B02' in error.sentence
    assert error.way_out == 'choose bands that every file has with --data.bands'
    assert found.table


def test_bands_in_another_order(folder: Callable[..., Path], pixels: Images) -> None:
    months = {m: pixels[m][::-1] for m in ('201804', '201808')}
    warnings = of(look(folder(months)), 'bands', 'warning')
    assert len(warnings) == 2
    assert 'near infrared (B08' in warnings[0].sentence


@pytest.mark.parametrize(
    ('one', 'other', 'told'),
    [
        ('B02', 'B04', 'over bare soil and built-up ground red (B04'),
        ('B05', 'B06', 'over forest and meadows red edge (B06'),
        ('B11', 'B12', 'over forest and meadows short-wave infrared (B11'),
    ],
)
def test_two_bands_in_each_other_s_place(
    folder: Callable[..., Path], pixels: Images, one: str, other: str, told: str
) -> None:
    a, b = BANDS.index(one), BANDS.index(other)
    swapped = pixels['201804'].copy()
    swapped[[a, b]] = swapped[[b, a]]
    warning = only(look(folder({'201804': swapped, '201808': pixels['201808']})), 'bands', 'warning')
    assert warning.sentence.startswith(f'2018-04: {told}')


def test_bands_of_another_sensor(folder: Callable[..., Path]) -> None:
    root = folder(image={'descriptions': (*BANDS[:9], 'elevation')})
    assert 'elevation: not among the bands of CatLC' in only(look(root), 'bands', 'note').sentence


# scale


def test_reflectance_in_floats(folder: Callable[..., Path], pixels: Images) -> None:
    months = {m: (pixels[m] / 10_000).astype(np.float32) for m in ('201804', '201808')}
    root = folder(months)
    warnings = of(look(root), 'scale', 'warning')
    assert len(warnings) == 2
    assert warnings[0].keys == ('--data.reflectance_scale 1',)
    assert next_steps(look(root))[-1].count('--data.reflectance_scale 1') == 1
    assert only(look(root, reflectance_scale=1), 'scale', 'ok')


def test_the_offset_of_baseline_4(folder: Callable[..., Path], pixels: Images) -> None:
    months = {m: np.where(pixels[m] > 0, pixels[m] + 1000, 0).astype(np.uint16) for m in ('201804', '201808')}
    root = folder(months)
    assert {f.keys for f in of(look(root), 'scale', 'warning')} == {('--data.reflectance_offset -1000',)}
    assert only(look(root, reflectance_offset=-1000), 'scale', 'ok')


def test_an_offset_that_is_not_there(folder: Callable[..., Path]) -> None:
    warnings = of(look(folder(), reflectance_offset=-1000), 'scale', 'warning')
    assert len(warnings) == 2
    assert 'become negative' in warnings[0].sentence


def test_pictures_of_8_bits(folder: Callable[..., Path], pixels: Images) -> None:
    months = {m: (pixels[m] // 40).clip(0, 255).astype(np.uint8) for m in ('201804', '201808')}
    assert '8-bit pictures' in of(look(folder(months)), 'scale', 'warning')[0].sentence


def test_a_scale_that_land_does_not_show(folder: Callable[..., Path]) -> None:
    warning = of(look(folder(), reflectance_scale=100_000), 'scale', 'warning')[0]
    assert 'median of near infrared' in warning.sentence
    assert 'QUANTIFICATION_VALUE' in warning.way_out


def test_a_constant_image(folder: Callable[..., Path], pixels: Images) -> None:
    found = look(folder({'201804': np.full_like(pixels['201804'], 700), '201808': pixels['201808']}))
    assert 'every measured pixel is 700' in only(found, 'scale', 'error').sentence


def test_months_of_different_scale(folder: Callable[..., Path], pixels: Images) -> None:
    months = {'201804': pixels['201804'], '201808': (pixels['201808'] / 10_000).astype(np.float32)}
    warning = only(look(folder(months)), 'scale', 'warning')
    assert warning.sentence.startswith('2018-08')
    assert 'bring all months to one scale' in warning.way_out
    assert not warning.keys


# months


def test_a_month_without_a_measurement(folder: Callable[..., Path], pixels: Images) -> None:
    found = look(folder({'201804': pixels['201804'], '201808': np.zeros_like(pixels['201808'])}))
    messages = ' '.join(f.sentence for f in found.findings if f.level == 'error')
    assert 'no block of it holds data' in messages or 'nothing was measured' in messages
    empty = np.full(pixels['201808'].shape, np.nan, dtype=np.float32)
    found = look(folder({'201804': pixels['201804'].astype(np.float32), '201808': empty}))
    assert '2018-08: nothing was measured' in only(found, 'nodata', 'error').sentence


def test_a_month_that_is_half_empty(folder: Callable[..., Path], pixels: Images) -> None:
    poor = pixels['201808'].copy()
    poor[:, 60:] = 0
    warning = only(look(folder({'201804': pixels['201804'], '201808': poor})), 'nodata', 'warning')
    assert warning.sentence.startswith('2018-08 measured 28% of the ground, 2018-04 97%')
    assert set(warning.data['measured']) == {'2018-04', '2018-08'}


def test_a_fill_value_that_nobody_declared(folder: Callable[..., Path], pixels: Images) -> None:
    filled = pixels['201808'].copy()
    filled[:, :30] = 65535
    warning = of(look(folder({'201804': pixels['201804'], '201808': filled})), 'nodata', 'warning')[0]
    assert warning.keys == ('--data.nodata 65535',)


def test_holes_in_some_bands(folder: Callable[..., Path], pixels: Images) -> None:
    holed = pixels['201808'].copy()
    holed[3, 20:60] = 0
    warning = only(look(folder({'201804': pixels['201804'], '201808': holed})), 'nodata', 'warning')
    assert 'have nodata (0) in some bands' in warning.sentence


def test_nan(folder: Callable[..., Path], pixels: Images) -> None:
    months = {m: pixels[m].astype(np.float32) for m in ('201804', '201808')}
    months['201804'][2, 40:60] = np.nan
    assert 'NaN or infinite' in only(look(folder(months)), 'nodata', 'note').sentence


def test_clouds_and_snow(folder: Callable[..., Path], pixels: Images) -> None:
    april, august = pixels['201804'].copy(), pixels['201808'].copy()
    april[:, :60, :200] = 6000
    august[:, :60] = 6000
    august[8:, :60] = 500
    findings = {f.data['kind']: f for f in of(look(folder({'201804': april, '201808': august})), 'sky', 'warning')}
    assert findings.keys() == {'cloud', 'snow'}
    assert 'looks like cloud: 2018-04 2' in findings['cloud'].sentence
    assert 'looks like snow: 2018-08 3' in findings['snow'].sentence


def test_one_month_under_two_names(folder: Callable[..., Path], pixels: Images) -> None:
    found = look(folder({'201804': pixels['201804'], '201808': pixels['201804']}))
    assert 'are identical in 100%' in only(found, 'seasons', 'warning').sentence


def test_stacked_months_with_different_holes(folder: Callable[..., Path], pixels: Images) -> None:
    april, august = pixels['201804'].copy(), pixels['201808'].copy()
    april[:, :60], august[:, 100:] = 0, 0
    root = folder({'201804': april, '201808': august})
    assert not of(look(root), 'seasons')
    assert 'stacked months need all of them' in only(look(root, seasons='stack'), 'seasons', 'warning').sentence


# labels


def test_labels_of_41_classes(folder: Callable[..., Path], pixels: Images) -> None:
    parent = np.array([0, 1, 3, 7, 10, 16, 21, 24, 26, 27, 29, 31, 36], dtype=np.uint8)
    root = folder(label=parent[pixels['label']], labels={'name': 'LC_2018_1m.tif'})
    found = look(root)
    assert 'not official' in only(found, 'legend', 'note').sentence
    assert [row.pixels for row in found.table] == [row.pixels for row in look_at_label(folder, root).table]


def look_at_label(folder: Callable[..., Path], root: Path) -> Examination:
    (root / 'LC_2018_1m.tif').unlink()
    return look(folder())


def test_rasters_of_12_and_41_classes_side_by_side(folder: Callable[..., Path], pixels: Images) -> None:
    root = folder()
    write_label(root / 'b', np.full_like(pixels['label'], 36), name='LC_2019_1m.tif', gsd=2)
    assert 'some 12' in only(look(root), 'legend', 'warning').sentence


def test_values_outside_the_legend(folder: Callable[..., Path], pixels: Images) -> None:
    label = pixels['label'].copy()
    label[:50, :50] = 77
    found = look(folder(label=label))
    error = only(found, 'legend', 'error')
    assert '2,500 label pixels of those read hold values outside the legend (77)' in error.sentence
    assert '--data.unknown_labels ignore' in error.way_out
    assert found.table
    assert next_steps(found)[-1].startswith('landcover doctor')
    assert next_steps(found)[-1].endswith('--patch-size 32 --unknown-labels ignore')
    assert (
        'they count as no data' in only(look(folder(label=label), unknown_labels='ignore'), 'legend', 'note').sentence
    )


def test_a_picture_in_place_of_labels(folder: Callable[..., Path], pixels: Images) -> None:
    found = look(folder(label=np.stack([pixels['label'] * 20] * 3)))
    assert 'has 3 bands' in only(found, 'legend', 'warning').sentence
    error = only(found, 'legend', 'error')
    assert 'none one of the legend' in error.sentence
    assert not error.keys
    assert not of(found, 'classes')


def test_labels_that_are_one_class_or_all_sea(folder: Callable[..., Path], pixels: Images) -> None:
    sea = np.full_like(pixels['label'], 12)
    found = look(folder(label=sea))
    assert 'nothing to tell apart' in only(found, 'classes', 'error').sentence
    assert 'not enough edges to tell' in only(found, 'shift', 'note').sentence
    sea[400:420, 400:420] = 3
    assert 'are water' in only(look(folder(label=sea)), 'classes', 'warning').sentence


def test_labels_without_a_code(folder: Callable[..., Path], pixels: Images) -> None:
    label = np.zeros_like(pixels['label'])
    label[0, 0] = 1
    found = look(folder(label=label))
    assert 'no pixel is both labelled and measured' in only(found, 'classes', 'error').sentence
    assert not found.table


def test_rare_and_missing_classes(folder: Callable[..., Path], pixels: Images) -> None:
    label = np.where(np.isin(pixels['label'], (8, 9)), 3, pixels['label']).astype(np.uint8)
    label[500:515, 500:515] = 8
    notes = ' '.join(f.sentence for f in of(look(folder(label=label)), 'classes', 'note'))
    assert 'not on this ground: industrial, commercial and leisure areas' in notes
    assert 'of the labelled ground: green areas' in notes


def test_the_class_table_weighs_like_the_loss(scene: Scene) -> None:
    found = look(scene.label.parent)
    counts = np.array([0] + [row.pixels for row in found.table])
    for name in set(WEIGHTINGS) - {'median'}:
        np.testing.assert_allclose([row.weights[name] for row in found.table], class_weights(counts, name)[1:])
    median, inverse = ([row.weights[name] for row in found.table] for name in ('median', 'inverse'))
    assert not np.allclose(median, inverse), 'the median is over the cells that hold a class'


# shift


def test_a_shift_comes_with_the_command_that_undoes_it(folder: Callable[..., Path]) -> None:
    root = folder(labels={'origin': (400030, 4600020)})
    warning = only(look(root), 'shift', 'warning')
    assert re.search(r'labels lie [23]\.\d\d px east, [12]\.\d\d px north = 30 and 20 m', warning.sentence)
    corners = warning.way_out.split('-a_ullr ')[1].split()[:4]
    assert np.allclose([float(v) for v in corners], [400000, 4600000, 402560, 4598080], atol=1.5)


def test_labels_in_ed50_and_half_a_pixel(folder: Callable[..., Path]) -> None:
    ed50 = only(look(folder(labels={'origin': (400093, 4599795)})), 'shift', 'warning')
    assert 'ED50 (EPSG:23031)' in ed50.sentence
    half = only(look(folder(labels={'origin': (400006, 4599994)})), 'shift', 'warning')
    assert 'pixel centres taken for corners' in half.sentence


def test_labels_that_agree_nowhere(folder: Callable[..., Path], pixels: Images) -> None:
    found = look(folder(label=np.ascontiguousarray(pixels['label'][::-1, ::-1])))
    assert not of(found, 'shift', 'ok')


def test_labels_too_coarse_to_be_moved(folder: Callable[..., Path], pixels: Images) -> None:
    warning = only(look(folder(label=pixels['label'][::5, ::5].copy(), labels={'gsd': 10})), 'shift', 'warning')
    assert re.search(r'labels lie 0\.\d\d px east, 0\.\d\d px south', warning.sentence)
    assert 'make them from finer ones' in warning.way_out


# pyramids and layout


def test_a_pyramid_of_the_label(folder: Callable[..., Path]) -> None:
    root = folder()
    assert only(look(root), 'pyramids', 'ok')
    with rasterio.open(root / LABEL_NAME, 'r+') as dst:
        dst.build_overviews([2, 4, 8], Resampling.nearest)
    note = only(look(root), 'pyramids', 'note')
    assert '1:2 to 1:8' in note.sentence
    assert 0.5 < note.data['agreement'] < 0.999


def facts(**changes: Any) -> Facts:
    grid = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 0, 0, -10, 0), 30_000, 30_000)
    tiled = Facts(
        'S2_201804.tif', grid, 'GTiff', 'uint16', 10, (256, 256), 'deflate', 'pixel', 0, BANDS, (), 9_000_000_000
    )
    return replace(tiled, **changes)


def test_strips_cost_more_than_tiles() -> None:
    (tiles,) = layout.check_layout([facts()], [], 256, 10, 10, None)
    assert (tiles.level, tiles.data['decoded_per_used']) == ('ok', pytest.approx(4, abs=0.05))
    (strips,) = layout.check_layout([facts(block=(1, 30_000))], [], 256, 10, 10, None)
    assert strips.level == 'warning'
    assert '30000 x 1 px strips' in strips.sentence
    assert 'decodes 117.2 x' in strips.sentence
    (two,) = layout.check_layout([facts()], [], 256, 10, 2, None)
    assert two.data['decoded_per_used'] == pytest.approx(20, abs=0.5)
    small = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 0, 0, -10, 0), 2000, 3000)
    (note,) = layout.check_layout([facts(grid=small, block=(2000, 3000))], [], 256, 10, 10, None)
    assert note.level == 'note'
    vrt, timed = layout.check_layout([facts(driver='VRT')], [], 256, 10, 10, 5.0)
    assert 'is a VRT' in vrt.sentence
    assert '5.0 ms to read: 200 patches/s' in timed.sentence


def test_decoded_bytes_against_counting() -> None:
    grid = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 0, 0, -10, 0), 960, 960)
    head = facts(grid=grid, block=(48, 96))
    counted = [
        (-(-(row + 64) // 48) - row // 48) * 48 * (-(-(col + 64) // 96) - col // 96) * 96 / 64**2
        for row in range(0, 48)
        for col in range(0, 96)
    ]
    assert layout.decoded_per_used(head, 64) == pytest.approx(np.mean(counted))


def test_which_store_is_worth_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wanted(memory: float, free: float) -> Finding:
        monkeypatch.setattr(storage, 'memory_bytes', lambda: int(memory))
        monkeypatch.setattr(storage.shutil, 'disk_usage', lambda _: SimpleNamespace(free=int(free)))
        return storage._wanted(tmp_path, [facts()])

    assert wanted(64e9, 500e9).data['store'] == 'fast'
    assert wanted(16e9, 500e9).data['store'] == 'compact'
    assert wanted(64e9, 15e9).data['store'] == 'compact'
    assert wanted(64e9, 1e9).level == 'warning'
    assert '--output DIR' in wanted(64e9, 1e9).way_out


def test_a_folder_that_cannot_be_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.os, 'access', lambda *_: False)
    assert '--data.cache' in of(look(scene.label.parent), 'storage', 'note')[-1].way_out


def test_the_store_that_is_there(folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder()
    prepare(Mosaics(root), LabelRasters(root), root / STORE_FOLDER, kind='fast', cell=4, progress=False)
    monkeypatch.setattr(leakage, 'AFFORDABLE', 0)
    found = look(root)
    assert 'training reads from the fast store' in only(found, 'storage', 'ok').sentence
    assert of(found, 'split', 'ok')  # drawn from the inventory of the store
    assert not any('prepare' in step for step in next_steps(found))
    os.utime(root / IMAGE_NAME, (0, 0))
    stale = only(look(root), 'storage', 'warning')
    assert 'has changed since' in stale.sentence
    assert stale.way_out.endswith('--store fast --overwrite')
    (root / STORE_FOLDER / 'store.json').write_text('{')
    assert 'is damaged' in only(look(root), 'storage', 'warning').sentence


# split


def test_a_patch_too_large_for_a_split(folder: Callable[..., Path]) -> None:
    found = look(folder(), patch_size=128)
    error = only(found, 'split', 'error')
    (key,) = error.keys
    assert int(key.split()[-1]) < 128
    assert not of(look(folder(), patch_size=int(key.split()[-1])), 'split', 'error')


def test_parts_that_come_too_near(scene: Scene) -> None:
    root = scene.label.parent
    inventory = leakage.find_inventory(Mosaics(root), LabelRasters(root), 32, root / 'nowhere')
    assert inventory is not None
    split = leakage.block_split(inventory, patch_size=32)
    assert next(leakage.describe_split(inventory, split, 32)).level in ('ok', 'note')
    leaking = replace(split, cells=np.full_like(split.cells, SPLITS['train']))
    leaking.cells[:, -1] = SPLITS['test']
    first = next(leakage.describe_split(inventory, leaking, 32))
    assert (first.level, 'less than a patch of 32 px' in first.sentence) == ('error', True)
    lacking = replace(split, cells=np.where(split.cells == SPLITS['val'], 0, split.cells).astype(np.uint8))
    assert any(
        'for want of ground: val: herbaceous crops' in f.sentence
        for f in leakage.describe_split(inventory, lacking, 32)
    )


def test_a_country_is_not_counted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, 'AFFORDABLE', 100)
    monkeypatch.setattr(leakage, 'kept_inventory', lambda *_: None)  # of other tests, beside the scene that all share
    assert 'not drawn here' in only(look(scene.label.parent), 'split', 'note').sentence


# the examination


def test_a_check_that_fails_is_a_finding(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> list[Finding]:
        raise ZeroDivisionError('by zero')

    monkeypatch.setattr(rounds.months, 'check_sky', fails)
    monkeypatch.setattr(rounds.layout, 'time_patches', fails)
    found = look(scene.label.parent)
    warning = only(found, 'sky', 'warning')
    assert 'this check itself failed (ZeroDivisionError: by zero)' in warning.sentence
    assert 'landcover doctor --env' in warning.way_out
    assert of(found, 'split')


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'patch_size': 8}, 'at least 32 px, got 8'),
        ({'reflectance_scale': 0}, 'must be a number > 0, got 0'),
        ({'reflectance_scale': float('nan')}, 'must be a number > 0, got nan'),
        ({'reflectance_offset': 1000}, 'must be 0 or negative, got 1000'),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        look(Path('data'), **settings)


def test_a_sample_says_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, 'BUDGET', 1)
    monkeypatch.setattr(rounds, 'FEWEST_WINDOWS', 2)
    found = look(scene.label.parent)
    assert 0 < found.share < 0.6
    assert 'a sample, ' in as_text(found)


def test_windows_spread_over_the_grid() -> None:
    grid = facts().grid
    windows = spread_windows(grid, 256, 100)
    assert len(windows) == 100
    assert all(w.height == w.width == 256 and w.row % 256 == 0 and w.col % 256 == 0 for w in windows)
    rows, cols = (np.unique(v) for v in zip(*[w[:2] for w in windows], strict=True))
    assert rows.max() + 256 <= grid.height
    assert np.ptp(np.diff(rows)) <= 256
    assert cols.min() < 0.1 * grid.width


def test_screen_fits_and_colours_only_when_asked(land: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(land)
    found = look(Path())
    text = as_text(found, width=80)
    assert max(len(line) for line in text.splitlines() if 'landcover fit' not in line) <= 80
    assert len(text.splitlines()) <= 52
    assert '\x1b' not in text
    assert '\x1b[32mok' in as_text(found, colour=True)


def test_levels_and_exit_codes() -> None:
    def codes(levels: Sequence[Level]) -> int:
        return exit_code([Finding('x', level, '') for level in levels])

    assert [codes(v) for v in (['ok'], ['note'], ['warning', 'note'], ['warning', 'error'], [])] == [0, 0, 2, 1, 0]
    assert told_by('x', LandcoverError('one sentence')).way_out == ''


def test_facts_of_a_file(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / 'a.tif', repeated(analytic_codes(), 10), compress='lzw', tiled=True, blockxsize=128, blockysize=64
    )
    head = read_facts(path)
    assert (head.block, head.compression, head.dtype, head.bands) == ((64, 128), 'lzw', 'uint8', 1)
    assert (head.raw_bytes, head.file_bytes) == (410 * 530, path.stat().st_size)


def test_a_class_that_training_never_sees(scene: Scene) -> None:
    root = scene.label.parent
    inventory = leakage.find_inventory(Mosaics(root), LabelRasters(root), 32, root / 'nowhere')
    assert inventory is not None
    split = leakage.block_split(inventory, patch_size=32)
    empty = replace(split, cells=np.where(split.cells == SPLITS['train'], 0, split.cells).astype(np.uint8))
    warning = next(f for f in leakage.describe_split(inventory, empty, 32) if f.level == 'warning')
    assert 'the training ground holds nothing of herbaceous crops' in warning.sentence


def test_the_inventory_that_fit_kept_is_used(folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder()
    monkeypatch.setattr(leakage, 'AFFORDABLE', 0)
    assert of(look(root), 'split', 'note')[0].sentence.startswith('the split is not drawn here')
    cached_inventory(Mosaics(root), LabelRasters(root), cell_size([32]), root / '.landcover', progress=False)
    assert of(look(root), 'split', 'ok')
    damaged = next((root / '.landcover').glob('inventory-*.npz'))
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert 'not drawn here' in only(look(root), 'split', 'note').sentence
