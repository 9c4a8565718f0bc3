"""The data module: what is split, normalised, padded, kept in checkpoints, and told."""

import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import analytic_codes, analytic_image, repeated, write_image, write_label
from torch.utils.data import SequentialSampler

from landcover_plugin.datasets.simulated import Scene, write_scene
from landcover_plugin.errors import LandcoverError, LandcoverWarning
from landcover_plugin.grid import PixelWindow
from landcover_plugin.legend import LEGEND
from landcover_plugin.sampling.blocks import SPLITS
from landcover_plugin.training import datamodule, ground
from landcover_plugin.training.batches import pad_and_stack
from landcover_plugin.training.datamodule import CataloniaDataModule

PATCH = 32


def data(root: Any, **settings: Any) -> CataloniaDataModule:
    folder = root.label.parent if isinstance(root, Scene) else root
    return CataloniaDataModule(
        root=str(folder), **({'patch_size': PATCH, 'batch_size': 4, 'num_workers': 0} | settings)
    )


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The package's messages, also where a run of the command line has taken them over."""
    monkeypatch.setattr(logging.getLogger('landcover_plugin'), 'propagate', True)
    caplog.set_level(logging.INFO, logger='landcover_plugin')
    return caplog


@pytest.fixture
def own(scene: Scene, tmp_path: Path) -> Path:
    """A copy of the scene that a test may change."""
    for path in scene.paths:
        shutil.copy(path, tmp_path)
    return tmp_path


def reflectance(scene: Scene, window: PixelWindow) -> list[np.ndarray]:
    """Both seasons of a window by plain rasterio, shape ``(bands, rows, cols)``; NaN where not measured."""
    images = []
    for path in scene.images:
        with rasterio.open(path) as src:
            raw = src.read(window=window.ranges)
        images.append(np.where((raw == 0).all(0), np.nan, raw / 10_000))
    return images


def test_statistics_are_those_of_the_training_ground_alone(scene: Scene) -> None:
    dm = data(scene)
    mean, std = dm.normalisation()
    pixels = [image.reshape(10, -1) for window in dm.split.windows('train') for image in reflectance(scene, window)]
    joined = np.concatenate(pixels, axis=1)
    np.testing.assert_allclose(mean, np.nanmean(joined, axis=1), rtol=1e-5)
    np.testing.assert_allclose(std, np.nanstd(joined, axis=1), rtol=1e-4)
    whole = np.concatenate([i.reshape(10, -1) for i in reflectance(scene, dm.open_images().grid.full)], axis=1)
    assert not np.allclose(mean, np.nanmean(whole, axis=1), rtol=1e-5)


def test_statistics_and_inventory_are_kept_beside_the_data(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = data(own).normalisation()
    assert [re.sub('-.*[.]', '-*.', f.name) for f in (own / '.landcover').iterdir()] == ['inventory-*.npz']
    monkeypatch.setattr('landcover_plugin.sampling.inventory.take_inventory', lambda *a, **k: pytest.fail('scanned'))
    assert data(own).normalisation() == wanted


def test_another_split_has_its_own_statistics(scene: Scene) -> None:
    assert data(scene).normalisation() != data(scene, ratios=[0.5, 0.25, 0.25]).normalisation()


def test_the_cache_may_lie_elsewhere(own: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = tmp_path_factory.mktemp('cache')
    data(own, cache=str(cache)).normalisation()
    assert len(list(cache.iterdir())) == 1 and not (own / '.landcover').exists()


def test_given_statistics_win(scene: Scene, tmp_path: Path) -> None:
    mean, std = [0.1 * i for i in range(10)], [0.5] * 10
    dm = data(scene, mean=mean, std=std, cache=str(tmp_path / 'none'))
    assert dm.normalisation() == (mean, std) and not (tmp_path / 'none').exists()
    dm.load_state_dict({'mean': [0.0] * 10, 'std': [1.0] * 10})
    assert dm.normalisation() == (mean, std)


def test_wrong_statistics_are_told(scene: Scene) -> None:
    with pytest.raises(LandcoverError, match=r'one number for each of the 10 channels .* got 3 and 3'):
        data(scene, mean=[0.1] * 3, std=[0.1] * 3).normalisation()
    with pytest.raises(LandcoverError, match='mean and std go together'):
        data(scene, mean=[0.1] * 10)
    with pytest.raises(LandcoverError, match='std must be greater than 0'):
        data(scene, mean=[0.1] * 10, std=[0.1] * 9 + [0.0])


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'patch_size': 0}, 'patch_size must be at least 1, got 0'),
        ({'patch_sizes': [32, 0]}, r'patch_sizes must be at least 1, got \[32, 0\]'),
        ({'batch_size': 0}, 'batch_size must be at least 1'),
        ({'length': -1}, 'length must be at least 1, got -1'),
        ({'crop': 33}, 'crop must be at most the patch size, 32 px, got 33'),
        ({'patch_sizes': [64, 32], 'crop': 48}, 'crop must be at most the patch size, 32 px, got 48'),
        ({'balance': 1.5}, r'balance must be in \[0, 1\], got 1.5'),
        ({'mix': 'cutmix', 'mix_p': 2}, r'mix_p must be in \[0, 1\], got 2'),
        ({'band_dropout': float('nan')}, r'band_dropout must be in \[0, 1\], got nan'),
        ({'noise': -0.1}, 'noise must be at least 0, which leaves it out, got -0.1'),
        ({'contrast': float('inf')}, 'contrast must be at least 0'),
        ({'reflectance_scale': 0}, 'reflectance_scale must be a number > 0, such as 10000 for Sentinel-2, got 0'),
        ({'bbox': [0, 0, 1, 1], 'bbox_wgs84': [0, 0, 1, 1]}, 'either as bbox or as bbox_wgs84'),
    ],
)
def test_wrong_settings_are_told_at_once(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        data('nowhere', **settings)


# Seasons and bands


def test_separate_seasons_are_looks(scene: Scene) -> None:
    dm = data(scene, batch_size=1)
    assert dm.in_channels == 10 and len(dm.open_images().looks) == 2
    dm.setup('validate')
    one_look = len(dm.val_dataloader()) // 2
    batches = list(dm.val_dataloader())
    assert len(batches) == 2 * one_look
    different = [not torch.equal(a['image'], b['image']) for a, b in zip(batches[::2], batches[1::2], strict=True)]
    assert all(torch.equal(a['image'].isfinite(), b['image'].isfinite()) for a, b in zip(batches, batches, strict=True))
    assert all(different)
    drawn = {str(t) for *_, t in dm.train_dataloader().sampler}
    assert len(drawn) == 2, 'training draws from both seasons'


def test_stacked_seasons_are_channels(scene: Scene) -> None:
    dm = data(scene, seasons='stack')
    assert dm.in_channels == 20 and len(dm.open_images().looks) == 1
    dm.setup('fit')
    batch = next(iter(dm.train_dataloader()))
    assert batch['image'].shape == (4, 20, PATCH, PATCH)
    assert len(dm.normalisation()[0]) == 20
    apart = data(scene).normalisation()[0]
    both = np.array(dm.normalisation()[0]).reshape(2, 10).mean(0)
    np.testing.assert_allclose(both, apart, rtol=0.1)


def test_a_subset_of_bands_in_another_order(scene: Scene) -> None:
    dm, whole = data(scene, bands=['B08', 'B04']), data(scene)
    assert dm.in_channels == 2 and dm.open_images().channels == ['B08', 'B04']
    few, all_ = dm.normalisation()[0], whole.normalisation()[0]
    np.testing.assert_allclose(few, [all_[6], all_[2]])
    dm.setup('fit')
    assert next(iter(dm.train_dataloader()))['image'].shape == (4, 2, PATCH, PATCH)


# Batches


def test_batches_hold_what_they_promise(scene: Scene) -> None:
    dm = data(scene)
    dm.setup('fit')
    types = {'image': torch.uint16, 'valid': torch.bool, 'mask': torch.uint8, 'purity': torch.uint8}  # as in the files
    types['windows'] = types['place'] = torch.int64
    loaders = {
        dm.train_dataloader(): {'image', 'valid', 'mask'},
        dm.val_dataloader(): {'image', 'valid', 'mask'},
        dm.test_dataloader(): {'image', 'valid', 'mask', 'purity', 'place'},
        dm.predict_dataloader(): {'image', 'valid', 'windows'},
    }
    for loader, keys in loaders.items():
        for batch in loader:
            assert {k: v.dtype for k, v in batch.items()} == {k: types[k] for k in keys}
            assert {v.shape[-2:] for k, v in batch.items() if types[k] != torch.int64} == {batch['valid'].shape[-2:]}


@pytest.mark.parametrize('length', [1, 3, 4, 5, 9])
def test_training_batches_are_full(scene: Scene, length: int) -> None:
    """A last batch of one patch of 32 px is one pixel deep down, which batch normalisation refuses."""
    dm = data(scene, length=length)
    dm.setup('fit')
    sizes = [len(b['image']) for b in dm.train_dataloader()]
    assert sizes == ([length] if length < 4 else [4] * (length // 4))


def test_smaller_pieces_are_padded_and_padding_does_not_count() -> None:
    torch.manual_seed(0)
    samples = [
        {
            'image': torch.rand(2, h, w) + 1,
            'valid': torch.ones(h, w, dtype=torch.bool),
            'mask': torch.full((h, w), 5),
            'bounds': torch.zeros(9, dtype=torch.float64),
        }
        for h, w in ((3, 5), (4, 2), (1, 1))
    ]
    batch = pad_and_stack(samples)
    assert set(batch) == {'image', 'valid', 'mask'}
    assert batch['image'].shape == (3, 2, 4, 5) and batch['valid'].dtype == torch.bool
    for i, s in enumerate(samples):
        h, w = s['mask'].shape
        assert torch.equal(batch['image'][i, :, :h, :w], s['image'])
        assert batch['valid'][i].sum() == h * w and batch['valid'][i, :h, :w].all()
        assert (batch['mask'][i] > 0).sum() == h * w
        assert (batch['image'][i, 0] > 0).sum() == h * w, 'unmeasured is 0'
    assert set(pad_and_stack([{k: v for k, v in samples[0].items() if k != 'mask'}])) == {'image', 'valid'}
    assert pad_and_stack(samples, size=8)['image'].shape == (3, 2, 8, 8)
    assert pad_and_stack(samples[:1], size=4)['mask'].shape == (1, 4, 5)


def labelled_pixels(dm: CataloniaDataModule, name: Any) -> int:
    """Labelled and measured pixels of a split over all looks, window by window."""
    images, labels, total = dm.open_images(), dm.open_labels(), 0
    for window in dm.split.windows(name):
        grid = images.grid.subgrid(window)
        codes = labels.read_codes(grid)
        total += sum(int((images.read(grid, look)[1] & (codes > 0)).sum()) for look in images.looks)
    return total


@pytest.mark.parametrize('seasons', ['separate', 'stack'])
@pytest.mark.parametrize('batch_size', [1, 7])
def test_evaluation_sees_each_pixel_once_for_each_look(scene: Scene, seasons: Any, batch_size: int) -> None:
    dm = data(scene, seasons=seasons, batch_size=batch_size)
    dm.setup('validate')
    transform = dm._transform('eval')
    for name, loader in (('val', dm.val_dataloader()), ('test', dm.test_dataloader())):
        assert {b['image'].shape[-2:] for b in loader} == {(PATCH, PATCH)}, 'whatever the pieces and the batch'
        seen = sum(int((transform(b)['mask'] > 0).sum()) for b in loader)
        assert seen == labelled_pixels(dm, name) > 0


def test_workers_read_the_same(scene: Scene) -> None:
    alone, helped = (list(_ready(scene, num_workers=n).train_dataloader()) for n in (0, 2))
    assert len(alone) == len(helped) > 1
    for a, b in zip(alone, helped, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


def _ready(scene: Scene, **settings: Any) -> CataloniaDataModule:
    torch.manual_seed(11)
    dm = data(scene, **settings)
    dm.setup('fit')
    return dm


def test_the_draw_follows_the_seed_and_the_epoch(scene: Scene) -> None:
    def windows(seed: int, epoch: int) -> list[Any]:
        dm = _ready(scene)
        torch.manual_seed(seed)
        sampler: Any = dm.train_dataloader().sampler
        sampler.set_epoch(epoch)
        return list(sampler.windows())

    assert windows(1, 0) == windows(1, 0)
    assert windows(1, 0) != windows(2, 0) and windows(1, 0) != windows(1, 1)


def test_loading_uses_up_no_global_randomness(scene: Scene) -> None:
    dm = _ready(scene)
    state = torch.get_rng_state()
    for loader in (dm.train_dataloader(), dm.val_dataloader()):
        list(loader)
    assert torch.equal(torch.get_rng_state(), state)
    assert not isinstance(dm.train_dataloader().sampler, SequentialSampler)


# Checkpoint state


def disjoint_by_a_patch(dm: CataloniaDataModule) -> bool:
    return dm.split.gap() >= PATCH


def test_the_split_comes_back_from_a_checkpoint(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dm = data(scene, split_seed=5)
    dm.normalisation()
    dm.ground.class_counts()
    torch.save(dm.state_dict(), tmp_path / 'state.pt')
    state = torch.load(tmp_path / 'state.pt', weights_only=True)
    for name in ('block_split', 'cached_inventory'):
        monkeypatch.setattr(ground, name, lambda *a, _name=name, **k: pytest.fail(f'{_name} was called'))
    again = data(scene, split_seed=5)
    again.load_state_dict(state)
    for name in SPLITS:
        assert again.split.windows(name) == dm.split.windows(name)
    np.testing.assert_array_equal(again.split.blocks, dm.split.blocks)
    assert again.normalisation() == dm.normalisation()
    np.testing.assert_array_equal(again.ground.class_counts(), dm.ground.class_counts())
    assert disjoint_by_a_patch(again)
    again.setup('test')
    assert len(again.test_dataloader()) > 0


def test_another_split_than_the_checkpoints_is_told(scene: Scene, warnings_of: pytest.LogCaptureFixture) -> None:
    dm = data(scene, split_seed=5)
    dm.normalisation()
    other = data(scene, split_seed=5, ratios=[0.5, 0.25, 0.25])
    other.load_state_dict(dm.state_dict())
    assert 'other ground or another split; blocks are drawn anew' in warnings_of.text
    assert other.split.windows('test') != dm.split.windows('test')
    assert other.normalisation() == dm.normalisation(), 'the network knows the statistics of its training'


def test_other_ground_than_the_checkpoints_is_told(
    scene: Scene, tmp_path: Path, warnings_of: pytest.LogCaptureFixture
) -> None:
    dm = data(scene)
    dm.normalisation()
    write_image(tmp_path, analytic_image(128, 192), origin=(500000, 4700000))
    write_label(tmp_path, analytic_codes(128, 192), origin=(500000, 4700000), gsd=10)
    other = data(tmp_path)
    other.load_state_dict(dm.state_dict())
    assert 'trained on other ground' in warnings_of.text
    warnings_of.clear()
    mapping: Any = data(tmp_path)
    mapping.trainer = SimpleNamespace(predicting=True)
    mapping.load_state_dict(dm.state_dict())
    assert not warnings_of.text, 'a map needs no split'
    assert other.split.grid == other.open_images().grid


def test_other_bands_than_the_checkpoints_are_told(scene: Scene) -> None:
    dm = data(scene, bands=['B02', 'B03'])
    dm.normalisation()
    with pytest.raises(
        LandcoverError, match=r"trained on the channels \['B02', 'B03'\], the data give \['B03', 'B02'\]"
    ):
        data(scene, bands=['B03', 'B02']).load_state_dict(dm.state_dict())


def test_stacked_seasons_of_another_year_fit_a_checkpoint(scene: Scene, own: Path) -> None:
    dm = data(scene, seasons='stack')
    dm.normalisation()
    for path in own.glob('S2_*'):
        path.rename(path.with_name(path.name.replace('CAT_2018', 'CAT_2019')))
    other = data(own, seasons='stack')
    other.load_state_dict(dm.state_dict())
    assert other.normalisation() == dm.normalisation()


def test_an_empty_state_says_nothing(scene: Scene) -> None:
    dm = data(scene)
    assert dm.state_dict() == {}
    dm.load_state_dict({})
    assert dm.split.windows('train')


def test_written_blocks_are_read_back(scene: Scene, tmp_path: Path, warnings_of: pytest.LogCaptureFixture) -> None:
    dm = data(scene)
    dm.write_blocks(tmp_path / 'blocks.gpkg')
    again = data(scene, blocks=str(tmp_path / 'blocks.gpkg'))
    np.testing.assert_array_equal(again.split.cells, dm.split.cells)
    assert 'come within' not in warnings_of.text


def test_folds_test_every_block_once(scene: Scene) -> None:
    tested = np.sum([data(scene, folds=3, fold=i).split.region('test') for i in range(3)], axis=0)
    assert tested.max() == 1


# Labels


def test_unknown_labels_stop_a_run_and_name_the_way_out(own: Path) -> None:
    path = next(own.glob('LC_*'))
    with rasterio.open(path, 'r+') as dst:
        codes = dst.read(1)
        codes[100:140, 60:90] = 77
        dst.write(codes, 1)
    for _ in range(2):  # scanned, then from the cache
        with pytest.raises(LandcoverError, match=r'1,200 label pixels .* \(77\); .*--data.unknown_labels ignore'):
            _quietly(data(own))
    lenient = data(own, unknown_labels='ignore')
    _quietly(lenient)
    assert lenient.split.windows('train')
    window = PixelWindow(20, 12, 8, 6)  # 2 m labels: five to a pixel
    with pytest.warns(LandcoverWarning, match='not in the legend'):
        codes = data(own).open_labels().read_codes(lenient.open_images().grid.subgrid(window))
    assert (codes == 0).all()


def _quietly(dm: CataloniaDataModule) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', LandcoverWarning)
        dm.inventory()


def test_labels_of_another_year_are_told(own: Path, warnings_of: pytest.LogCaptureFixture) -> None:
    data(own).setup('fit')
    assert 'labels of' not in warnings_of.text
    path = next(own.glob('LC_*'))
    path.rename(path.with_name(path.name.replace('2018', '2009')))
    dm = data(own)
    dm.setup('fit')
    assert 'labels of 2009 are used with images of 2018' in warnings_of.text
    assert next(iter(dm.train_dataloader()))['mask'].any()


def test_labels_of_other_ground_are_told(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image(128, 192))
    write_label(tmp_path, analytic_codes(128, 192), origin=(700000, 4600000), gsd=10)
    with pytest.raises(LandcoverError, match='do not overlap the mosaics'):
        data(tmp_path).setup('fit')
    with pytest.raises(LandcoverError, match='do the label and image rasters show the same ground'):
        data(tmp_path).inventory()


@pytest.mark.parametrize('settings', [{'patch_size': 128}, {'block_size': 48}, {'patch_size': 512}])
def test_patches_larger_than_a_block_are_told(scene: Scene, settings: dict[str, Any]) -> None:
    with pytest.raises(LandcoverError, match='smaller patch_size'):
        _ = data(scene, **settings).split


def test_a_split_without_test_ground_is_told(scene: Scene) -> None:
    dm = data(scene, ratios=[0.8, 0.2, 0.0])
    dm.setup('test')
    with pytest.raises(LandcoverError, match='the split holds no test ground; give test a share'):
        dm.test_dataloader()


def test_missing_labels_and_images_are_told(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(LandcoverError, match=r'no S2_\*_YYYYMM_'):
        data(tmp_path).setup('fit')
    with pytest.raises(LandcoverError, match='does not exist'):
        data(tmp_path / 'nowhere').setup('predict')
    shutil.copy(scene.images[0], tmp_path)
    with pytest.raises(LandcoverError, match='no LC_YYYY_'):
        data(tmp_path).setup('fit')


# Areas to map


def bbox_of(dm: CataloniaDataModule, row: float, col: float, height: float, width: float) -> list[float]:
    (x, y), (xres, yres) = dm.open_images().grid.origin, dm.open_images().grid.res
    return [x + col * xres, y - (row + height) * yres, x + (col + width) * xres, y - row * yres]


def area(scene: Scene, *box: float, **settings: Any) -> PixelWindow | None:
    dm = data(scene, bbox=bbox_of(data(scene), *box), **settings)
    dm.setup('predict')
    return dm.regions[0].area


def test_without_a_bbox_all_is_mapped(scene: Scene) -> None:
    dm = data(scene)
    dm.setup('predict')
    assert dm.regions[0].area == PixelWindow(0, 0, 192, 256)


def test_a_bbox_grows_to_whole_pixels(scene: Scene, warnings_of: pytest.LogCaptureFixture) -> None:
    assert area(scene, 10, 20, 30, 40) == PixelWindow(10, 20, 30, 40)
    assert area(scene, 10.4, 20.6, 30, 40) == PixelWindow(10, 20, 31, 41)
    assert 'beyond' not in warnings_of.text


def test_a_bbox_beyond_the_mosaics_is_told(scene: Scene, warnings_of: pytest.LogCaptureFixture) -> None:
    assert area(scene, -10, 200, 50, 100) == PixelWindow(0, 200, 40, 56)
    assert 'the bbox reaches beyond the mosaics' in warnings_of.text
    with pytest.raises(LandcoverError, match=r'lies outside the mosaics, which cover \[400000.0, 459'):
        area(scene, 0, 256, 10, 10)


@pytest.mark.parametrize(
    ('bbox', 'sentence'),
    [
        ([401000, 4599000, 400000, 4599500], 'corners swapped; did you mean'),
        ([400000, 4599000, 400000, 4599500], 'is empty'),
        ([400000, 4599000, 401000], 'four finite numbers'),
        ([400000, 4599000, 401000, float('nan')], 'four finite numbers'),
    ],
)
def test_a_bbox_that_is_none_is_told(scene: Scene, bbox: list[float], sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        data(scene, bbox=bbox).setup('predict')


def test_a_bbox_in_degrees(scene: Scene) -> None:
    dm = data(scene, bbox_wgs84=[1.805, 41.54, 1.81, 41.545])
    dm.setup('predict')
    (found,) = dm.regions
    assert 35 < found.area.height < 75 and 35 < found.area.width < 60
    with pytest.raises(LandcoverError, match='lies outside the mosaics'):
        data(scene, bbox_wgs84=[2.9, 41.0, 3.0, 41.1]).setup('predict')


@pytest.mark.parametrize('overlap', [32, -1])
def test_an_overlap_that_leaves_no_step_is_told(scene: Scene, overlap: int) -> None:
    told = re.escape(f'overlap must be in [0, 32) px, the patch size, got {overlap}')
    with pytest.raises(LandcoverError, match=told):
        dm = data(scene, overlap=overlap)
        dm.setup('predict')
        dm.predict_dataloader()


def test_prediction_needs_no_labels(scene: Scene, tmp_path: Path) -> None:
    for path in scene.images:
        shutil.copy(path, tmp_path)
    trained = data(scene)
    trained.normalisation()
    dm = data(tmp_path, overlap=8)
    dm.load_state_dict(trained.state_dict())
    dm.setup('predict')
    covered = np.zeros((192, 256), dtype=int)
    for batch in dm.predict_dataloader():
        assert set(batch) == {'image', 'valid', 'windows'}
        for _, row, col, _ in batch['windows'].tolist():
            covered[max(row, 0) : row + PATCH, max(col, 0) : col + PATCH] += 1
    with rasterio.open(scene.images[0]) as src:
        assert ((covered > 0) >= (src.read() > 0).any(0)).all()
    assert dm.sources.labels is None
    out = dm._transform('eval')(batch)
    assert out['image'].isfinite().all()


def test_patches_larger_than_the_mosaic_are_predicted(tmp_path: Path) -> None:
    write_image(tmp_path, analytic_image(41, 53))
    dm = data(tmp_path, patch_size=64, mean=[0.0] * 10, std=[1.0] * 10)
    dm.setup('predict')
    (batch,) = list(dm.predict_dataloader())
    assert batch['image'].shape == (4, 10, 64, 64) and len(batch['windows']) == 2
    assert batch['valid'][:2].all(), 'what lies beyond the mosaic is its mirror image'
    assert not batch['valid'][2:].any() and not batch['image'][2:].any(), 'the batch is filled up'


def test_pictures_are_true_colour_or_the_first_bands(scene: Scene) -> None:
    for bands in (None, ['B08'], ['B08', 'B11', 'B12', 'B05']):
        dm = data(scene, bands=bands)
        dm.setup('validate')
        batch = dm._transform('eval')(next(iter(dm.val_dataloader())))
        rgb = dm.to_rgb(batch['image'][0])
        assert rgb.shape == (*batch['image'].shape[-2:], 3) and 0 <= rgb.min() <= rgb.max() <= 1
        assert rgb.dtype == np.float32 and rgb.max() > 0.05


def test_labels_repeated_on_a_finer_grid_give_the_same_counts(tmp_path: Path) -> None:
    codes = analytic_codes(128, 192)
    for name, factor in (('coarse', 1), ('fine', 5)):
        write_image(tmp_path / name, analytic_image(128, 192, bands=10))
        write_label(tmp_path / name, repeated(codes, factor), gsd=10 / factor)
    counts = [data(tmp_path / n).inventory().class_counts() for n in ('coarse', 'fine')]
    np.testing.assert_array_equal(*counts)
    np.testing.assert_array_equal(counts[0], np.bincount(codes.ravel(), minlength=13))


def test_the_colours_of_the_label_raster_travel_in_the_checkpoint(tmp_path):
    """A map made without labels at hand is painted as the label raster was."""
    write_scene(tmp_path / 'data', size=(192, 256), label_gsd=2, seed=1)
    label = next((tmp_path / 'data').glob('LC*'))
    with rasterio.open(label, 'r+') as dst:
        dst.write_colormap(1, {0: (0, 0, 0, 0), 3: (1, 2, 3, 255)})
    trained = CataloniaDataModule(str(tmp_path / 'data'), patch_size=32)
    trained.setup('fit')
    trained.normalisation()
    label.unlink()
    mapping = CataloniaDataModule(str(tmp_path / 'data'), patch_size=32)
    mapping.load_state_dict(trained.state_dict())
    assert mapping.legend[3].colour == (1, 2, 3)
    assert mapping.legend[4] == LEGEND[4]


@pytest.mark.parametrize(
    ('device', 'asked', 'expected'), [('cpu', None, 0), ('cuda', None, 3), ('cpu', 2, 2), ('cuda', 0, 0)]
)
def test_workers_are_those_asked_for_or_what_serves_the_device(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, device: str, asked: int | None, expected: int
) -> None:
    monkeypatch.setattr(datamodule, 'processors', lambda: 6)
    dm = _ready(scene, num_workers=asked)
    dm.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))  # type: ignore[assignment]
    assert dm._workers() == expected
