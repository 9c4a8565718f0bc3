"""The training store in use: the same batches as without it, or a sentence that says why the sources are read."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import BANDS, IMAGE_NAME, LABEL_NAME, analytic_image, repeated, write_image, write_label

from landcover_plugin import cli
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.rasters.landcover import LabelRasters
from landcover_plugin.rasters.mosaics import Mosaics
from landcover_plugin.sampling.prepare import prepare
from landcover_plugin.sampling.store import STORE_FOLDER, Store
from landcover_plugin.training.datamodule import CataloniaDataModule

PATCH = 32

#: Two classes in blocks, and a third on the seams.
CODES = np.kron(np.arange(60).reshape(6, 10) % 12 + 1, np.ones((20, 16), int)).astype(np.uint8)


def data(root: Path, **settings: Any) -> CataloniaDataModule:
    chosen = {'patch_size': PATCH, 'batch_size': 4, 'num_workers': 0}
    return CataloniaDataModule(root=str(root), **(chosen | settings))


def make(root: Path, folder: Path | None = None, **settings: Any) -> Store:
    """A store of the sources in a folder."""
    mosaic = {n: settings.pop(n) for n in ('bands', 'band_order', 'seasons', 'nodata') if n in settings}
    label = {n: settings.pop(n) for n in ('source_legend', 'aggregation', 'class_weights') if n in settings}
    given = {'progress': False, 'overwrite': True, 'cell': 4} | settings
    return prepare(Mosaics(root, **mosaic), LabelRasters(root, **label), folder or root / STORE_FOLDER, **given).store


@pytest.fixture
def own(scene: Scene, tmp_path: Path) -> Path:
    """A copy of the simulated scene that a test may change."""
    root = tmp_path / 'data'
    root.mkdir()
    for path in scene.paths:
        shutil.copy(path, root)
    return root


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The package's messages, also where a run of the command line has taken them over."""
    monkeypatch.setattr(logging.getLogger('landcover_plugin'), 'propagate', True)
    caplog.set_level(logging.INFO, logger='landcover_plugin')
    return caplog


def batches(dm: CataloniaDataModule, name: str) -> list[dict[str, torch.Tensor]]:
    """Batches of a loader as they reach the network, but for what is random on the device."""
    torch.manual_seed(1)
    loader = getattr(dm, f'{name}_dataloader')()
    return [dm._transform('eval')(batch) for batch in loader]


def check_same(a: CataloniaDataModule, b: CataloniaDataModule, *, exactly: bool = True) -> None:
    """Whether two data modules give the same split, statistics and batches."""
    assert a.open_images().channels == b.open_images().channels and a.open_images().grid == b.open_images().grid
    np.testing.assert_array_equal(a.inventory().counts, b.inventory().counts)
    np.testing.assert_array_equal(a.inventory().valid, b.inventory().valid)
    assert a.inventory().unknown == b.inventory().unknown
    np.testing.assert_array_equal(a.split.cells, b.split.cells)
    np.testing.assert_array_equal(a.ground.class_counts(), b.ground.class_counts())
    np.testing.assert_allclose(a.normalisation(), b.normalisation(), rtol=1e-5)
    assert a.legend == b.legend
    for name in ('train', 'val', 'test'):
        pairs = list(zip(batches(a, name), batches(b, name), strict=True))
        assert pairs
        for one, other in pairs:
            assert sorted(one) == sorted(other)
            for key in one:
                tolerance = 1e-4 if key == 'image' else 0
                torch.testing.assert_close(one[key], other[key], rtol=tolerance, atol=tolerance)


def raw_same(a: CataloniaDataModule, b: CataloniaDataModule) -> None:
    """Whether reflectance, mask and validity are equal to the bit in the patches that are read."""
    for name in ('train', 'val', 'test'):
        torch.manual_seed(1)
        first = list(getattr(a, f'{name}_dataloader')())
        torch.manual_seed(1)
        for one, other in zip(first, getattr(b, f'{name}_dataloader')(), strict=True):
            valid = one['valid'][:, None]
            assert torch.equal(one['valid'], other['valid']) and torch.equal(one['mask'], other['mask'])
            own, its = (torch.where(valid, batch['image'].double(), 0) for batch in (one, other))
            assert torch.equal(own, its)


# --- the same batches


@pytest.mark.parametrize('kind', ['fast', 'compact', 'labels'])
@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'seasons': 'stack', 'bands': ['B08', 'B04', 'B03']},
        {'aggregation': 'weighted', 'purity': 'weight'},
        {'aggregation': 'nearest', 'reflectance_offset': -1000},
        {'purity': 'soft'},
        {'patch_sizes': [16, 32], 'nodata': 0},
    ],
    ids=str,
)
def test_batches_are_those_of_the_sources(
    own: Path, kind: Any, settings: dict[str, Any], messages: pytest.LogCaptureFixture
) -> None:
    without = data(own, store='none', **settings)
    wanted = {n: settings[n] for n in ('seasons', 'aggregation', 'nodata') if n in settings}
    store = make(own, kind=kind, shares=settings.get('purity') == 'soft', **wanted)
    messages.clear()
    with_store = data(own, **settings)
    check_same(without, with_store)
    raw_same(without, with_store)
    assert with_store.open_labels().rasters.files == store.labels
    assert f'labels are read from the store {store.folder}' in messages.text
    if kind == 'labels':
        assert 'it holds labels alone' not in messages.text  # that was asked for
    else:
        assert with_store.open_images().mosaics.files == store.images
        assert f'images are read from the {kind} store {store.folder}' in messages.text


@pytest.mark.parametrize('kind', ['fast', 'compact'])
def test_a_store_without_its_sources_is_enough(own: Path, tmp_path: Path, kind: Any) -> None:
    without = data(own, store='none')
    make(own, kind=kind)
    elsewhere = tmp_path / 'elsewhere'
    shutil.copytree(own / STORE_FOLDER, elsewhere)
    alone = data(elsewhere)
    check_same(without, alone)
    raw_same(without, alone)


def test_a_named_store_and_moved_sources(own: Path, tmp_path: Path, messages: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / 'scratch'
    make(own, folder)
    moved = own.rename(tmp_path / 'moved')
    check_same(data(moved, store='none'), data(moved, store=str(folder)))
    assert f'images are read from the compact store {folder}' in messages.text


def test_the_inventory_is_not_taken_again(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(own)
    monkeypatch.setattr('landcover_plugin.sampling.inventory.take_inventory', lambda *a, **k: pytest.fail('scanned'))
    assert data(own).normalisation()


@pytest.mark.parametrize('kind', ['fast', 'compact'])
def test_unknown_values_are_refused_as_without_a_store(own: Path, kind: Any) -> None:
    with rasterio.open(own / LABEL_NAME, 'r+') as dst:
        values = dst.read(1)
        values[50:60, 50:70] = 99
        dst.write(values, 1)
    sentences = []
    for prepared in (False, True):
        if prepared:
            make(own, kind=kind)
        with pytest.raises(LandcoverError, match=r'200 label pixels hold values outside the legend \(99\)') as e:
            data(own).inventory()
        sentences.append(str(e.value))
    assert sentences[0] == sentences[1]
    check_same(data(own, unknown_labels='ignore', store='none'), data(own, unknown_labels='ignore'))


def test_years_tiles_and_folders_merge_as_without_a_store(tmp_path: Path) -> None:
    """Tiles of one name in two folders, two label years whose files lie against their order, two months."""
    root = tmp_path / 'data'
    image = analytic_image(120, 160)
    for folder, start in (('west', 0), ('east', 70)):
        part = image[:, :, start : start + 90] + (start > 0)
        write_image(root / folder, part, origin=(400000 + start * 10, 4600000))
        write_image(root / folder, part + 7, origin=(400000 + start * 10, 4600000), month='201808')
    labels = repeated(CODES, 2)
    partly = np.where(np.arange(320) < 120, labels, 0).astype(np.uint8)
    write_label(root / 'a', partly, name='LC_2018_x.tif', gsd=5)
    write_label(root / 'b', np.roll(labels, 30, axis=1), name='LC_2017_x.tif', gsd=5)
    make(root)
    with_store = data(root)
    check_same(data(root, store='none'), with_store)
    raw_same(data(root, store='none'), with_store)
    assert [Path(f).name for f in with_store.open_images().mosaics.files] == ['S2_201804.tif', 'S2_201808.tif']
    os.utime(root / 'west' / IMAGE_NAME, (1, 1))
    assert 'has changed' in (Store.open(root / STORE_FOLDER).image_mismatch(Mosaics(root)) or '')  # type: ignore[union-attr]


# --- sources or settings that do not fit


def _touched(root: Path) -> None:
    os.utime(root / IMAGE_NAME, (1, 1))


def _edited(root: Path) -> None:
    with rasterio.open(root / IMAGE_NAME, 'r+') as dst:
        dst.write(dst.read() + 1)
    os.utime(root / IMAGE_NAME, (1, 1))


def _replaced(root: Path) -> None:
    found = (root / IMAGE_NAME).stat()
    write_image(root, analytic_image(192, 256))
    os.utime(root / IMAGE_NAME, (found.st_mtime, found.st_mtime))  # as some copying tools leave it


def _added(root: Path) -> None:
    shutil.copy(root / IMAGE_NAME, root / IMAGE_NAME.replace('04', '06'))


def _removed(root: Path) -> None:
    (root / IMAGE_NAME).unlink()


@pytest.mark.parametrize(
    ('change', 'why'),
    [
        (_touched, f'{IMAGE_NAME} has changed since'),
        (_edited, f'{IMAGE_NAME} has changed since'),
        (_replaced, f'{IMAGE_NAME} has changed since'),
        (_added, f'since then {IMAGE_NAME.replace("04", "06")} came'),
        (_removed, f'since then {IMAGE_NAME} went'),
    ],
)
def test_changed_images_are_noticed(
    own: Path, change: Callable[[Path], None], why: str, messages: pytest.LogCaptureFixture
) -> None:
    store = make(own)
    change(own)
    dm = data(own)
    assert dm.open_images().mosaics.files == Mosaics(own).files
    assert f'images are read from the sources, not from the store {store.folder}: ' in messages.text
    assert why in messages.text
    assert dm.open_labels().rasters.files == store.labels  # these are as they were
    check_same(data(own, store='none'), dm)


@pytest.mark.parametrize('how', ['touched', 'added'])
def test_changed_labels_are_noticed(own: Path, how: str, messages: pytest.LogCaptureFixture) -> None:
    store = make(own)
    if how == 'touched':
        os.utime(own / LABEL_NAME, (1, 1))
    else:
        shutil.copy(own / LABEL_NAME, own / 'LC_2009.tif')
    dm = data(own)
    assert dm.open_labels().rasters.files == LabelRasters(own).files
    why = f'{LABEL_NAME} has changed since' if how == 'touched' else 'since then LC_2009.tif came'
    assert f'labels are read from the sources, not from the store {store.folder}' in messages.text
    assert why in messages.text
    check_same(data(own, store='none'), dm)


@pytest.mark.parametrize(
    ('settings', 'what', 'why'),
    [
        ({'aggregation': 'nearest'}, 'labels', 'aggregation differ'),
        ({'aggregation': 'weighted', 'aggregation_weights': {3: 2.0}}, 'labels', 'aggregation and aggregation_weights'),
        ({'source_legend': '41'}, 'labels', 'source_legend differ'),
        ({'nodata': 1}, 'images', 'nodata differ'),
    ],
    ids=str,
)
def test_other_settings_read_the_sources(
    own: Path, settings: dict[str, Any], what: str, why: str, messages: pytest.LogCaptureFixture
) -> None:
    make(own)
    dm = data(own, **settings)
    check_same(data(own, store='none', **settings), dm)
    assert f'{what} are read from the sources' in messages.text and why in messages.text


def test_another_band_order_reads_the_sources(tmp_path: Path, messages: pytest.LogCaptureFixture) -> None:
    write_image(tmp_path, analytic_image(120, 160), descriptions=None)
    write_label(tmp_path, CODES, gsd=10)
    make(tmp_path)
    assert data(tmp_path, band_order=list(BANDS)).open_images().mosaics.files != Mosaics(tmp_path).files
    dm = data(tmp_path, band_order=list(reversed(BANDS)))
    assert dm.open_images().mosaics.files == Mosaics(tmp_path).files
    assert 'the order of the bands differ' in messages.text


@pytest.mark.parametrize(
    ('prepared', 'settings'),
    [
        ({'aggregation': 'weighted'}, {'aggregation': 'weighted', 'aggregation_weights': {7: 1.5, 11: 1.5}}),
        ({'source_legend': 'auto'}, {'source_legend': '12'}),
        ({'nodata': float('nan')}, {'nodata': float('nan')}),
        ({'nodata': 0}, {'nodata': 0.0}),
    ],
    ids=str,
)
def test_what_comes_to_the_same_fits(tmp_path: Path, prepared: dict[str, Any], settings: dict[str, Any]) -> None:
    write_image(tmp_path, analytic_image(120, 160).astype(np.float32))
    write_label(tmp_path, repeated(CODES, 2), gsd=5)
    store = make(tmp_path, **prepared)
    dm = data(tmp_path, **settings)
    assert dm.open_images().mosaics.files == store.images and dm.open_labels().rasters.files == store.labels


# --- damaged stores


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        path = store / 'store.json'
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps(change(manifest) or manifest))

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    'half a manifest': (lambda s: os.truncate(s / 'store.json', 99), r'store.json is damaged \(JSONDecodeError\)'),
    'empty manifest': (lambda s: (s / 'store.json').write_text(''), 'store.json is damaged'),
    'binary manifest': (lambda s: (s / 'store.json').write_bytes(b'\xff\xfe\0'), 'store.json is damaged'),
    'a list': (_manifest(lambda m: [1]), 'store.json is damaged'),
    'no files': (_manifest(lambda m: {'version': 1}), r'store.json is damaged \(KeyError\)'),
    'odd sizes': (_manifest(lambda m: m['files'].update({'areas.csv': 'x'})), 'store.json is damaged'),
    'no sources': (_manifest(lambda m: m.pop('sources') and None), r'store.json is damaged \(it tells no sources\)'),
    'old version': (_manifest(lambda m: m.update(version=0)), 'is of version 0, this program reads 1'),
    'new version': (_manifest(lambda m: m.update(version=99)), 'is of version 99, this program reads 1'),
    'a file less': (lambda s: (s / IMAGE_NAME).unlink(), f'{IMAGE_NAME} is missing or not of its'),
    'truncated': (lambda s: os.truncate(s / IMAGE_NAME, 4000), f'{IMAGE_NAME} is missing or not of its'),
    'empty file': (lambda s: os.truncate(s / 'inventory.parquet', 0), 'inventory.parquet is missing or not of its'),
}


@pytest.fixture(scope='module')
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small sources and their store."""
    root = tmp_path_factory.mktemp('small')
    write_image(root, analytic_image(120, 160))
    write_label(root, CODES, gsd=10)
    make(root)
    return root


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_store_is_left_aside_unless_it_was_named(
    small_store: Path, tmp_path: Path, damage: str, messages: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / 'data'
    shutil.copytree(small_store, root)
    do, sentence = DAMAGES[damage]
    do(root / STORE_FOLDER)
    with pytest.raises(LandcoverError, match=f'{sentence}.*make it again .landcover prepare --overwrite. or delete'):
        data(root, store=str(root / STORE_FOLDER)).open_images()
    dm = data(root)
    assert dm.open_images().mosaics.files == [str(root / IMAGE_NAME)]
    assert 'the sources are read: ' in messages.text and 'make it again' in messages.text


def test_a_damaged_inventory_is_taken_again(
    small_store: Path, tmp_path: Path, messages: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / 'data'
    shutil.copytree(small_store, root)
    path = root / STORE_FOLDER / 'inventory.parquet'
    path.write_bytes(bytes(path.stat().st_size))
    np.testing.assert_array_equal(data(root).inventory().counts, data(small_store).inventory().counts)
    assert 'inventory.parquet is damaged' in messages.text and 'counted again' in messages.text


@pytest.mark.parametrize('what', ['missing', 'no store', 'a file'])
def test_a_named_store_that_is_none_is_an_error(small_store: Path, tmp_path: Path, what: str) -> None:
    named = {'missing': tmp_path / 'nothing', 'no store': tmp_path, 'a file': small_store / IMAGE_NAME}[what]
    with pytest.raises(LandcoverError, match='holds no training store; make one with landcover prepare'):
        data(small_store, store=str(named)).open_images()


def test_a_store_that_is_being_written_is_not_found(small_store: Path, tmp_path: Path) -> None:
    root = tmp_path / 'data'
    shutil.copytree(small_store, root)
    (root / STORE_FOLDER).rename(root / '.landcover' / '.store.part')
    assert data(root).open_images().mosaics.files == [str(root / IMAGE_NAME)]
    assert LabelRasters(root).files == [str(root / LABEL_NAME)]


def test_many_changed_names_are_told_in_few(tmp_path: Path) -> None:
    for i in range(3):
        write_image(tmp_path, analytic_image(), month=f'20180{i + 1}')
    write_label(tmp_path, CODES, gsd=10)
    store = make(tmp_path)
    for i in range(6):
        write_image(tmp_path, analytic_image(), month=f'20170{i + 1}')
    why = store.image_mismatch(Mosaics(tmp_path)) or ''
    assert why.endswith('and 3 more came') and 'went' not in why


def test_training_with_a_store_says_so(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(own)
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    arguments = ['fit', '--data.root', str(own), '--data.patch_size', '32', '--data.num_workers', '0']
    arguments += ['--trainer.fast_dev_run', '1', '--trainer.accelerator', 'cpu', '--model.weights', 'false']
    code = cli.main([*arguments, '--model.backbone', 'resnet18', '--trainer.logger', 'false'])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert 'images are read from the compact store' in told.err and 'labels are read from the store' in told.err
    assert not list(Path().rglob('*.ckpt'))  # of a run that only tries whether everything works
