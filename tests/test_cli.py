"""The command line as a user drives it: what it writes, and what it says when the input is no good."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import lightning.pytorch  # noqa: F401 - binds its log handler here, not to a stream that one test captures
import numpy as np
import pytest
import rasterio
import rasterio.warp
import torch
from affine import Affine
from lightning.pytorch.callbacks import ModelCheckpoint

from landcover_plugin import cli
from landcover_plugin.commands.lightning import LandcoverCLI
from landcover_plugin.datasets.simulated import write_scene
from landcover_plugin.legend import LEGEND

CONFIGS = Path(__file__).parents[1] / 'configs'
LANDCOVER = [sys.executable, '-m', 'landcover_plugin']

SMALL = [
    '--model.backbone=resnet18',
    '--model.weights=false',
    '--data.patch_size=32',
    '--data.length=16',
    '--data.batch_size=8',
    '--data.num_workers=0',
    '--trainer.max_epochs=1',
    '--trainer.accelerator=cpu',
    '--trainer.enable_model_summary=false',
    '--trainer.enable_progress_bar=false',
]


def run(*args, **kwargs):
    return subprocess.run([*LANDCOVER, *map(str, args)], capture_output=True, text=True, timeout=300, **kwargs)


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """A simulated scene of 192 x 256 px that nobody changes."""
    root = tmp_path_factory.mktemp('cli') / 'good'
    write_scene(root, size=(192, 256), label_gsd=2, seed=1)
    return root


@pytest.fixture(scope='module')
def trained(good, tmp_path_factory):
    """The checkpoint of one epoch, made by the command in a process of its own."""
    runs = tmp_path_factory.mktemp('runs')
    done = run('fit', f'--data.root={good}', f'--trainer.default_root_dir={runs}', *SMALL)
    assert done.returncode == 0, done.stderr
    assert 'best checkpoint' in done.stderr
    return next(runs.rglob('best.ckpt'))


@pytest.fixture
def copy(good, tmp_path):
    """A copy of the scene that a test may damage."""
    return Path(shutil.copytree(good, tmp_path / 'data', ignore=shutil.ignore_patterns('.landcover')))


def image(root):
    return next(root.glob('S2*201804*'))


def label(root):
    return next(root.glob('LC*'))


def rewrite(path, change=None, **profile):
    with rasterio.open(path) as src:
        data, kept, names = src.read(), src.profile, src.descriptions
    data = data if change is None else change(data)
    with rasterio.open(path, 'w', **(kept | profile)) as dst:
        dst.write(data)
        dst.descriptions = names


def truncate(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def error_of(capsys, *args):
    """The sentence of a command that must fail with code 1."""
    capsys.readouterr()
    assert cli.main([str(a) for a in args]) == 1
    captured = capsys.readouterr().err
    assert 'Traceback' not in captured
    lines = [line for line in captured.splitlines() if line.startswith('landcover: error: ')]
    assert len(lines) == 1
    return lines[0]


def fit_error(capsys, root, *args):
    return error_of(capsys, 'fit', f'--data.root={root}', f'--trainer.default_root_dir={root}/runs', *SMALL, *args)


# What it writes


def test_the_run_keeps_its_yaml_its_blocks_and_two_checkpoints(trained):
    folder = trained.parent.parent
    assert {'config.yaml', 'blocks.gpkg'} <= {p.name for p in folder.iterdir()}
    assert (trained.parent / 'last.ckpt').is_file()


def test_help_is_quick_and_names_every_command_without_torch():
    code = 'import sys; from landcover_plugin.cli import main; main(["--help"]); assert "torch" not in sys.modules'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_help_of_fit_explains_the_keys():
    done = run('fit', '--help')
    assert done.returncode == 0, done.stderr
    for words in ('--data.root', 'Edge of patches in pixels', '--model.class_weights', '--checkpoint.monitor'):
        assert words in done.stdout


def test_version():
    from landcover_plugin import __version__

    told = run('--version').stdout
    assert told.startswith(f'landcover {__version__} (python {sys.version.split()[0]}, torch ')
    assert f'GDAL {rasterio.__gdal_version__}' in told and told.count('\n') == 1


def test_test_writes_a_report_from_the_checkpoint_alone(trained, tmp_path):
    done = run('test', f'--ckpt_path={trained}', f'--output.path={tmp_path}/report', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {p.name for p in (tmp_path / 'report').iterdir()}
    assert {'scores.csv', 'scores.json', 'scores.md', 'confusion.csv', 'confusion_normalised.png', 'samples'} <= names
    assert {'report.html', 'blocks.csv', 'reliability.svg', 'patches', 'training_curves.csv'} <= names
    assert {p.name for p in tmp_path.iterdir()} == {'report'}


def test_predict_maps_a_bbox_on_the_exact_grid_of_the_source(trained, good, tmp_path):
    target = tmp_path / 'out' / 'map.tif'
    bbox = [400303, 4598504, 401000, 4599208]  # off the grid: grows outward to whole pixels
    options = ['--output.confidence=true', '--output.probabilities=true', '--output.png=true']
    done = run('predict', f'--ckpt_path={trained}', f'--data.bbox={bbox}', f'--output.path={target}', *options)
    assert done.returncode == 0, done.stderr
    names = ('map.tif', 'map_confidence.tif', 'map_probabilities.tif', 'map.png', 'map.json')
    assert all((target.parent / n).is_file() for n in names)
    with rasterio.open(target) as m, rasterio.open(image(good)) as source:
        assert m.crs == source.crs
        assert tuple(m.bounds) == (400300, 4598500, 401000, 4599210)
        assert m.transform == Affine(10, 0, 400300, 0, -10, 4599210)
        assert (m.dtypes[0], m.nodata, m.shape) == ('uint8', 0, (71, 70))
        codes = m.read(1)
        assert m.colormap(1)[3][:3] == LEGEND[3].colour
        tags = m.tags()
        measured = source.read(window=((79, 150), (30, 100))).any(0)
    assert tags['CLASS_3'] == 'forest'
    assert tags['MODEL'] == 'unet'
    assert len(tags['CHECKPOINT_SHA256']) == 64
    assert tags['DATES'] == '2018-04 2018-08'
    assert ((codes > 0) >= measured).all()
    assert codes.max() < LEGEND.num_classes
    with (
        rasterio.open(target.with_stem('map_probabilities')) as p,
        rasterio.open(target.with_stem('map_confidence')) as c,
    ):
        probabilities, confidence = p.read(), c.read(1)
        assert p.descriptions[2] == 'forest'
    seen = codes > 0
    assert np.array_equal(probabilities.max(0)[seen], confidence[seen])
    assert abs(probabilities.sum(0)[seen].astype(int) - 100).max() <= 6  # twelve roundings


def test_predict_in_degrees_and_at_another_overlap_gives_the_same_grid(trained, good, tmp_path):
    first, second = tmp_path / 'a.tif', tmp_path / 'b.tif'
    with rasterio.open(image(good)) as source:
        west, south, east, north = rasterio.warp.transform_bounds(source.crs, 'EPSG:4326', *source.bounds)
    middle = [
        west + (east - west) / 3,
        south + (north - south) / 3,
        east - (east - west) / 3,
        north - (north - south) / 3,
    ]
    for target, overlap in ((first, 0), (second, 16)):
        args = [f'--ckpt_path={trained}', f'--data.bbox_wgs84={middle}', f'--data.overlap={overlap}']
        assert cli.main(['predict', *args, f'--output.path={target}', '--trainer.enable_progress_bar=false']) == 0
    with rasterio.open(first) as a, rasterio.open(second) as b:
        assert (a.transform, a.shape) == (b.transform, b.shape)
        assert a.transform.c % 10 == 0
        assert 0.5 < (a.read(1) == b.read(1)).mean() < 1  # the same ground, blended differently


def test_predict_in_pieces_equals_predict_as_a_whole(trained, good, tmp_path):
    """The map of a bbox is cut from the same ground wherever the bbox begins: no shift by a row or column."""
    whole, part = tmp_path / 'whole.tif', tmp_path / 'part.tif'
    base = ['predict', f'--ckpt_path={trained}', '--trainer.enable_progress_bar=false']
    assert cli.main([*base, f'--output.path={whole}']) == 0
    assert cli.main([*base, '--data.bbox=[400500, 4598700, 401500, 4599500]', f'--output.path={part}']) == 0
    with rasterio.open(whole) as a, rasterio.open(part) as b:
        window = a.window(*b.bounds).round_offsets().round_lengths()
        assert np.array_equal(a.read(1, window=window), b.read(1))


def test_resume_continues_the_run(trained, good, tmp_path):
    args = [f'--data.root={good}', f'--trainer.default_root_dir={tmp_path}', *SMALL, '--trainer.max_epochs=2']
    assert cli.main(['fit', *args, f'--ckpt_path={trained.with_name("last.ckpt")}']) == 0
    import torch

    resumed = torch.load(next(tmp_path.rglob('last.ckpt')), weights_only=True)
    assert resumed['epoch'] == 1
    assert resumed['global_step'] == 4


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(good, tmp_path):
    """Ctrl-C while training: code 130 and the checkpoint with which to go on."""
    args = [f'--data.root={good}', f'--trainer.default_root_dir={tmp_path}', *SMALL, '--trainer.max_epochs=1000']
    started = subprocess.Popen([*LANDCOVER, 'fit', *args], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob('last.ckpt')) and time.monotonic() < deadline and started.poll() is None:
        time.sleep(0.2)
    try:
        started.send_signal(signal.SIGINT)
        try:
            said = started.communicate(timeout=60)[1]
        except subprocess.TimeoutExpired:  # Python drops an interrupt that arrives while it collects garbage
            started.send_signal(signal.SIGINT)
            said = started.communicate(timeout=60)[1]
    finally:
        started.kill()
    assert started.returncode == 130, said
    assert '--ckpt_path' in said
    assert 'last.ckpt' in said


# What it says


def test_missing_folder(capsys, tmp_path):
    assert 'nowhere does not exist' in fit_error(capsys, tmp_path / 'nowhere')


def test_no_file_matches(capsys, tmp_path):
    assert 'no S2_*_YYYYMM_*.tif' in fit_error(capsys, tmp_path)


@pytest.mark.parametrize('which', [image, label])
def test_truncated(capsys, copy, which):
    truncate(which(copy))
    assert f'{which(copy).name} is truncated' in fit_error(capsys, copy)


def test_label_without_overlap(capsys, copy):
    rewrite(label(copy), transform=Affine(2, 0, 900000, 0, -2, 4600000))
    assert 'do the label and image rasters show the same ground?' in fit_error(capsys, copy)


@pytest.mark.parametrize('which', [image, label])
def test_no_crs(capsys, copy, which):
    rewrite(which(copy), crs=None)
    assert 'has no CRS; assign the right one' in fit_error(capsys, copy)


def test_label_in_the_wrong_zone(capsys, copy):
    rewrite(label(copy), crs='EPSG:32633')
    message = fit_error(capsys, copy)
    assert 'EPSG:32633' in message
    assert 'EPSG:32631' in message


def test_mosaics_on_different_grids(capsys, copy):
    rewrite(image(copy), transform=Affine(10, 0, 400003, 0, -10, 4600000))
    assert 'different pixel grids' in fit_error(capsys, copy)


def test_band_missing(capsys, good):
    assert 'has no band B10; it has B02' in fit_error(capsys, good, '--data.bands=[B04, B10]')


def test_checkpoint_of_other_bands(capsys, trained, tmp_path):
    target = tmp_path / 'map.tif'
    message = error_of(
        capsys, 'predict', f'--ckpt_path={trained}', '--data.bands=[B02, B03, B04]', f'--output.path={target}'
    )
    assert 'trained on 10 channels' in message
    assert 'the data give 3' in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('bbox', 'words'),
    [
        ('[0, 0, 10, 10]', 'lies outside the mosaics, which cover [400000.0'),
        ('[400000, 4599000, 400000, 4600000]', 'is empty: xmin < xmax'),
        ('[401000, 4600000, 400000, 4599000]', 'did you mean [400000.0, 4599000.0, 401000.0, 4600000.0]?'),
        ('[400000, 4599000, 401000]', 'four finite numbers'),
        ('here', 'data.bbox'),
    ],
)
def test_bbox_that_is_none(capsys, trained, tmp_path, bbox, words):
    target = tmp_path / 'map.tif'
    message = error_of(capsys, 'predict', f'--ckpt_path={trained}', f'--data.bbox={bbox}', f'--output.path={target}')
    assert words in message
    assert not list(tmp_path.iterdir())


def test_patch_larger_than_the_block(capsys, good):
    assert 'block_size must be at least two patches, 64 px' in fit_error(capsys, good, '--data.block_size=40')


def test_patch_larger_than_the_ground(capsys, good):
    assert 'choose a smaller patch_size than 256 px' in fit_error(capsys, good, '--data.patch_size=256')


@pytest.mark.parametrize('share', ['some', 'all'])
def test_label_values_outside_the_legend(capsys, copy, share):
    rewrite(label(copy), lambda a: np.where((a == 3) | (share == 'all'), 200, a).astype(np.uint8))
    message = fit_error(capsys, copy)
    assert '(200)' in message
    assert '--data.unknown_labels ignore' in message


def test_label_values_outside_the_legend_can_be_ignored(copy, tmp_path):
    rewrite(label(copy), lambda a: np.where(a == 7, 200, a))
    args = [f'--data.root={copy}', f'--trainer.default_root_dir={tmp_path}/runs', *SMALL]
    assert cli.main(['fit', *args, '--data.unknown_labels=ignore', '--trainer.limit_train_batches=1']) == 0


def test_ground_that_was_not_measured(capsys, copy, trained, tmp_path):
    for path in copy.glob('S2*'):
        rewrite(path, np.zeros_like)
    assert 'no labelled pixel lies on a measured image pixel' in fit_error(capsys, copy)
    target = tmp_path / 'out' / 'map.tif'
    message = error_of(capsys, 'predict', f'--ckpt_path={trained}', f'--data.root={copy}', f'--output.path={target}')
    assert 'it is all nodata' in message
    assert not target.parent.exists() or not list(target.parent.iterdir())


def test_output_that_cannot_be_written(capsys, trained, good, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    ckpt = f'--ckpt_path={trained}'
    assert 'cannot be written' in error_of(capsys, 'predict', ckpt, f'--output.path={tmp_path}/file/map.tif')
    assert 'report cannot be written' in error_of(capsys, 'test', ckpt, f'--output.path={tmp_path}/file/report')
    message = fit_error(capsys, good, f'--trainer.default_root_dir={tmp_path}/file/runs')
    assert 'file/runs: Not a directory' in message
    assert [p.name for p in tmp_path.iterdir()] == ['file']


@pytest.mark.skipif(os.geteuid() == 0, reason='permission bits do not bind root')
def test_read_only_folder(capsys, trained, tmp_path):
    tmp_path.chmod(0o500)
    message = error_of(capsys, 'predict', f'--ckpt_path={trained}', f'--output.path={tmp_path}/map.tif')
    assert 'cannot be written' in message


def test_an_older_map_is_not_replaced_unasked(capsys, trained, tmp_path):
    target = tmp_path / 'map.tif'
    target.write_text('mine')
    assert 'overwrite' in error_of(capsys, 'predict', f'--ckpt_path={trained}', f'--output.path={target}')
    assert target.read_text() == 'mine'


def test_unknown_yaml_key_and_broken_yaml(capsys, tmp_path):
    config = tmp_path / 'x.yaml'
    config.write_text('data:\n  patchsize: 64\n')
    assert 'data.patchsize' in error_of(capsys, 'fit', f'--config={config}')
    config.write_text('data:\n  patch_size: [64\n')
    assert 'x.yaml is not valid YAML' in error_of(capsys, 'fit', f'--config={config}')
    assert 'does not exist' in error_of(capsys, 'fit', f'--config={tmp_path}/none.yaml')


def test_a_misspelt_key_is_put_right(capsys):
    assert 'did you mean data.patch_size?' in error_of(capsys, 'fit', '--data.patchsize=64')


@pytest.mark.parametrize(
    ('arg', 'sentence'),
    [
        ('--data.seasons=stak', "data.seasons must be separate or stack, got stak; did you mean 'stack'?"),
        ('--data.seasons=x', 'data.seasons must be separate or stack, got x'),
        ('--data.batch_size=many', 'data.batch_size must be a whole number, got many'),
        ('--data.patch_sizes=3', 'data.patch_sizes must be a list of whole numbers [a, b, …] or null, got 3'),
        ('--data.patch_sizes=[a]', "data.patch_sizes must be a list of whole numbers [a, b, …] or null, got ['a']"),
        ('--data.augment=maybe', 'data.augment must be true or false, got maybe'),
    ],
)
def test_a_wrong_value_is_told_with_what_may_be_given(capsys, arg, sentence):
    assert error_of(capsys, 'fit', arg) == f'landcover: error: {sentence}'


def test_a_wrong_choice_in_yaml_and_among_many(capsys, tmp_path):
    config = tmp_path / 'x.yaml'
    config.write_text('model:\n  model: unett\n')
    error = error_of(capsys, 'fit', f'--config={config}')
    assert error.startswith('landcover: error: model.model must be unet, unet_scratch, ')
    assert error.endswith(" got unett; did you mean 'unet'?")


def test_an_offset_of_the_wrong_sign(capsys, good):
    assert 'never positive for Sentinel-2' in fit_error(capsys, good, '--data.reflectance_offset=1000')


def test_another_offset_than_in_training_is_told(capsys, trained, tmp_path):
    args = [f'--ckpt_path={trained}', '--data.reflectance_offset=-1000', f'--output.path={tmp_path}/map.tif']
    assert cli.main(['predict', *args, '--data.bbox=[400500, 4599000, 400800, 4599300]']) == 0
    assert 'trained with reflectance scale and offset [10000.0, 0.0]' in capsys.readouterr().err


def test_a_bbox_in_degrees_that_lies_elsewhere(capsys, trained, tmp_path):
    args = [f'--ckpt_path={trained}', '--data.bbox_wgs84=[41.51, 1.81, 41.52, 1.83]', f'--output.path={tmp_path}/m.tif']
    assert 'which cover [1.80' in error_of(capsys, 'predict', *args)


def test_degrees_where_metres_are_expected(capsys, trained, tmp_path):
    args = [f'--ckpt_path={trained}', '--data.bbox=[1.81, 41.51, 1.83, 41.52]', f'--output.path={tmp_path}/m.tif']
    assert error_of(capsys, 'predict', *args).endswith('; degrees are given by bbox_wgs84')


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_a_command_without_arguments_says_what_it_needs(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main([command])
    except SystemExit as left:
        code = left.code
    assert code in (1, 2)
    assert 'error: ' in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_last_checkpoint_that_is_named_counts(capsys, trained, tmp_path):
    args = [f'--ckpt_path={trained}', '--ckpt_path', f'{tmp_path}/nope.ckpt', f'--output.path={tmp_path}/m.tif']
    assert f'checkpoint {tmp_path}/nope.ckpt does not exist' in error_of(capsys, 'predict', *args)
    args[2] = ''
    assert 'predict needs --ckpt_path' in error_of(capsys, 'predict', *args[1:])


@pytest.mark.parametrize(
    ('arg', 'sentence'),
    [
        ('--trainer.accelerator=gpu', 'No supported gpu backend found; --trainer.accelerator,'),
        ('--trainer.devices=0', 'the trainer cannot do what its settings ask for'),
        ('--trainer.strategy=ddpp', "invalid strategy name: `strategy='ddpp'`"),
        ('--output.batch_size=-1', 'output.batch_size must be at least 1, got -1'),
        ('--output.min_agreement=2', 'min_agreement must be a share of pixels in [0, 1], got 2'),
        ('--output.patch_size=7', 'output.patch_size must be more than the overlap of windows, 8 px, got 7'),
        ('--data.overlap=-1', 'overlap must be in [0, 32) px, the patch size, got -1'),
        ('--model=modls:/x/1', '--model takes a model of a registry, models:/NAME/ALIAS, got modls:/x/1'),
    ],
)
def test_settings_that_cannot_be_are_told_before_mapping(capsys, trained, tmp_path, arg, sentence):
    if arg == '--trainer.accelerator=gpu' and torch.accelerator.is_available():
        pytest.skip('there is a GPU')
    assert sentence in error_of(capsys, 'predict', f'--ckpt_path={trained}', f'--output.path={tmp_path}/m.tif', arg)
    assert not list(tmp_path.iterdir())


def test_a_map_needs_a_name(capsys, trained):
    assert error_of(capsys, 'predict', f'--ckpt_path={trained}') == 'landcover: error: --output.path must be given'


def test_a_learning_rate_is_looked_at_before_the_ground(capsys, good, tmp_path):
    runs = f'--trainer.default_root_dir={tmp_path}'
    told = error_of(capsys, 'fit', f'--data.root={good}', runs, '--model.lr=-1', '--model.weights=false')
    assert 'lr must be > 0' in told and not list(tmp_path.iterdir())


def test_rasters_that_are_not_there(capsys, tmp_path):
    assert f'{tmp_path}/a.tif does not exist' in error_of(capsys, 'areas', f'{tmp_path}/a.tif')


def test_value_of_the_wrong_type(capsys):
    assert 'data.batch_size' in error_of(capsys, 'fit', '--data.batch_size=many')


def test_checkpoint_that_is_none(capsys, tmp_path):
    ckpt, target = tmp_path / 'x.ckpt', tmp_path / 'map.tif'
    ckpt.write_text('hello')
    assert 'is not a checkpoint' in error_of(capsys, 'predict', f'--ckpt_path={ckpt}', f'--output.path={target}')
    missing = tmp_path / 'y.ckpt'
    assert 'does not exist' in error_of(capsys, 'predict', f'--ckpt_path={missing}', f'--output.path={target}')
    assert 'predict needs --ckpt_path' in error_of(capsys, 'predict', f'--output.path={target}')


def test_predict_needs_an_output(capsys, trained):
    assert 'output.path' in error_of(capsys, 'predict', f'--ckpt_path={trained}')


def test_unknown_command(capsys):
    assert "did you mean 'predict'?" in error_of(capsys, 'predct')


def test_a_block_damaged_in_the_middle_is_named_also_by_a_worker(capsys, copy, trained, tmp_path):
    path = image(copy)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = np.random.default_rng(0).bytes(20_000)
    path.write_bytes(content)
    args = [f'--data.root={copy}', '--data.num_workers=2', f'--output.path={tmp_path}/out/map.tif']
    assert f'{path.name} cannot be read' in error_of(capsys, 'predict', f'--ckpt_path={trained}', *args)
    assert not (tmp_path / 'out').exists() or not list((tmp_path / 'out').iterdir())


# The examples


#: Experiment cards; those of loggers stand beside one of them, spaces of a search are none.
CARDS = sorted(p for p in CONFIGS.rglob('*.yaml') if p.parent.name not in ('loggers', 'tune'))


@pytest.fixture(scope='module')
def wide(tmp_path_factory):
    """A scene with ground for every split that the cards ask for."""
    root = tmp_path_factory.mktemp('wide') / 'data'
    write_scene(root, size=(512, 512), label_gsd=10, seed=2)
    return root


@pytest.mark.parametrize('config', CARDS, ids=lambda p: p.stem)
def test_every_yaml_trains(config, wide, tmp_path):
    """Each experiment card runs as it is, but for its length and the weights, which would be fetched."""
    args = [
        f'--config={config}',
        f'--data.root={wide}',
        f'--trainer.default_root_dir={tmp_path}',
        '--model.weights=false',
        '--data.patch_size=32',
        '--data.length=2',
        '--data.batch_size=2',
        '--data.num_workers=0',
        '--trainer.max_epochs=1',
        '--trainer.limit_val_batches=1',
        '--trainer.accelerator=cpu',
        '--trainer.precision=32',
        '--trainer.enable_progress_bar=false',
    ]
    assert cli.main(['fit', *args]) == 0


@pytest.mark.slow
def test_real_rasters_all_the_way(tmp_path):
    """Real reflectance and labels, where they are at hand: fit, test and predict."""
    root = Path(__file__).parents[2] / 'shared' / 'data' / 'relocated'
    if not root.is_dir():
        pytest.skip('real rasters are not here')
    data = [f'--data.root={root}', f'--data.cache={tmp_path}/cache']
    short = ['--trainer.max_epochs=2', '--data.length=64', '--trainer.enable_progress_bar=false']
    runs = f'--trainer.default_root_dir={tmp_path}/runs'
    assert cli.main(['fit', f'--config={CONFIGS}/relocated.yaml', *data, runs, *short]) == 0
    ckpt = f'--ckpt_path={next(tmp_path.rglob("best.ckpt"))}'
    assert cli.main(['test', ckpt, *data, f'--output.path={tmp_path}/report']) == 0
    bbox = '--data.bbox=[400000, 4598000, 403000, 4600000]'
    assert cli.main(['predict', ckpt, *data, bbox, f'--output.path={tmp_path}/map.tif']) == 0
    with rasterio.open(tmp_path / 'map.tif') as m:
        assert m.shape == (200, 300)
        assert set(np.unique(m.read(1))) <= set(LEGEND.codes)


@pytest.mark.slow
def test_two_processes_train_together(good, tmp_path):
    """DDP on two CPU processes: no rank waits for another for ever, and the run is written once."""
    two = ['--trainer.devices=2', '--trainer.strategy=ddp', '--trainer.max_epochs=2', '--data.length=65']
    done = run('fit', f'--data.root={good}', f'--trainer.default_root_dir={tmp_path}', *SMALL, *two)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob('best.ckpt'))) == len(list(tmp_path.rglob('blocks.gpkg'))) == 1
    assert [done.stderr.count(text) for text in ('landcover: training', 'best checkpoint', 'sync_dist')] == [1, 1, 0]


# Mapping by several processes, and interrupted


@pytest.fixture(scope='module')
def tall(tmp_path_factory):
    """A scene of three strips."""
    root = tmp_path_factory.mktemp('tall') / 'data'
    write_scene(root, size=(1100, 96), label_gsd=10, seed=3)
    return root


def mapping(trained, tall, target):
    return ['predict', f'--ckpt_path={trained}', f'--data.root={tall}', f'--output.path={target}', '--data.overlap=4']


@pytest.fixture(scope='module')
def alone(trained, tall, tmp_path_factory):
    """The map that one process makes."""
    target = tmp_path_factory.mktemp('alone') / 'map.tif'
    assert cli.main(mapping(trained, tall, target)) == 0
    return target


def when_a_strip_is_finished(folder, process):
    deadline = time.monotonic() + 600
    while not list(folder.glob('.map.part/strips/[0-9]*.json')) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


TWO = ['--trainer.devices=2', '--trainer.strategy=ddp', '--trainer.accelerator=cpu']


@pytest.mark.slow
def test_two_processes_make_the_map_of_one(trained, tall, alone, tmp_path):
    command = [*LANDCOVER, *mapping(trained, tall, tmp_path / 'map.tif'), *TWO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'map.tif').read_bytes() == alone.read_bytes()
    assert {f.name for f in tmp_path.iterdir()} == {
        'map.tif', 'map.tif.aux.xml', 'map.json', 'map.qml', 'map.stac.json',
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 1])
def test_the_death_of_a_process_ends_the_run_and_the_next_goes_on(trained, tall, alone, tmp_path, rank):
    command = [*LANDCOVER, *mapping(trained, tall, tmp_path / 'map.tif')]
    started = subprocess.Popen([*command, *TWO], stderr=subprocess.PIPE, text=True)
    when_a_strip_is_finished(tmp_path, started)
    children = Path(f'/proc/{started.pid}/task/{started.pid}/children').read_text().split()
    os.kill(started.pid if rank == 0 else int(children[-1]), signal.SIGKILL)
    started.communicate(timeout=600)
    assert started.returncode != 0
    assert not (tmp_path / 'map.tif').exists()
    deadline = time.monotonic() + 300
    while any(Path(f'/proc/{child}/stat').exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.2)  # the other process notices too
    assert not any(Path(f'/proc/{child}/stat').exists() for child in children)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert 'strips are there from an earlier run' in done.stderr
    assert (tmp_path / 'map.tif').read_bytes() == alone.read_bytes()


@pytest.mark.slow
def test_an_interrupted_map_says_how_to_go_on(trained, tall, alone, tmp_path):
    command = [*LANDCOVER, *mapping(trained, tall, tmp_path / 'map.tif')]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    when_a_strip_is_finished(tmp_path, started)
    started.send_signal(signal.SIGINT)
    said = started.communicate(timeout=600)[1]
    assert started.returncode == 130, said
    assert 'of 3 strips are kept beside the map: the same command goes on with them' in said
    assert 'Traceback' not in said
    assert [f.name for f in tmp_path.iterdir()] == ['.map.part']
    assert subprocess.run(command, capture_output=True, timeout=600).returncode == 0
    assert (tmp_path / 'map.tif').read_bytes() == alone.read_bytes()


@pytest.mark.parametrize(('monitor', 'told'), [('val_mIoU', 'val_mIoU 0.250'), (None, 'the last')])
def test_the_result_is_told_with_its_score_or_without_one(
    monitor: str | None, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = ModelCheckpoint(monitor=monitor)
    checkpoint.best_model_path = 'best.ckpt'
    checkpoint.best_model_score = None if monitor is None else torch.tensor(0.25)
    run = SimpleNamespace(trainer=SimpleNamespace(checkpoint_callback=checkpoint), mirror=None)
    with caplog.at_level('INFO', logger='landcover_plugin'):
        LandcoverCLI.after_fit(cast('LandcoverCLI', run))
    assert caplog.messages == [f'best checkpoint ({told}): best.ckpt']
