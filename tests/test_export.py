"""An exported model: every file is what it says, and maps what the checkpoint maps."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import torch
from conftest import BANDS
from pystac.extensions.mlm import MLMExtension
from safetensors.torch import load_file

from landcover_plugin import cli
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.legend import LEGEND
from landcover_plugin.mapping.engines.base import openvino_core
from landcover_plugin.mapping.export import formats as formats_module
from landcover_plugin.mapping.export.exporting import export
from landcover_plugin.mapping.export.formats import compare, probe
from landcover_plugin.mapping.exported import open_export
from landcover_plugin.mapping.network import MappingNetwork, Member
from landcover_plugin.rasters.identity import sha256
from landcover_plugin.training.task import LandCoverSegmentation, read_checkpoint
from landcover_plugin.training.temperature import find_temperature, write_temperature

SIZE = 32


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'landcover_plugin', *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def write_checkpoint(path: Path, scene: Scene, **changed: object) -> Path:
    """A checkpoint as training writes it, of a network that nobody trained."""
    torch.manual_seed(3)
    settings = {'model': 'unet_scratch', 'backbone': 'plain16', 'weights': False, 'in_channels': len(BANDS)}
    task = LandCoverSegmentation(**settings, channels=list(BANDS))
    data = {'root': str(scene.label.parent), 'seasons': 'separate', 'patch_size': SIZE, 'nodata': None}
    data |= {'reflectance_scale': 10_000.0, 'reflectance_offset': 0.0}
    state = {'mean': [0.15] * len(BANDS), 'std': [0.1] * len(BANDS), 'channels': list(BANDS), 'dates': ['201804']}
    checkpoint = {
        'pytorch-lightning_version': '2.6.6',
        'epoch': 1,
        'global_step': 10,
        'state_dict': task.state_dict(),
        'callbacks': {'ModelCheckpoint': {'dirpath': '/home/somebody/runs'}},
        'optimizer_states': [{'state': {0: {'exp_avg': torch.zeros(3)}}}],
        'lr_schedulers': [],
        'hparams_name': 'kwargs',
        'hyper_parameters': settings | {'channels': list(BANDS)},
        'datamodule_hparams_name': 'kwargs',
        'datamodule_hyper_parameters': data,
        'CataloniaDataModule': state | {'colours': LEGEND.palette.tolist(), 'reflectance': [10_000.0, 0.0]},
    } | changed
    torch.save(checkpoint, path)
    return path


@pytest.fixture(scope='module')
def checkpoint(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp('trained') / 'best.ckpt', scene)


@pytest.fixture(scope='module')
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('report')
    classes = [{'name': 'forest', 'iou': 0.5, 'support': 1234}, {'name': 'bare soil', 'iou': None, 'support': 0}]
    document = {'overall': {'mean_iou': 0.4321, 'labelled_pixels': 1234}, 'classes': classes, 'metadata': {}}
    (folder / 'scores.json').write_text(json.dumps(document))
    return folder


@pytest.fixture(scope='module')
def exported(checkpoint: Path, report: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command writes."""
    folder = tmp_path_factory.mktemp('exported') / 'model'
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert cli.main(['export', str(checkpoint), '--output.path', str(folder), '--report', str(report)]) == 0
    assert output.getvalue().count('100.00% same class') == 3, output.getvalue()
    return folder


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """An exported model that a test may damage."""
    folder = tmp_path / 'copy'
    for path in exported.rglob('*'):
        if path.is_file():
            target = folder / path.relative_to(exported)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope='module')
def network(checkpoint: Path) -> MappingNetwork:
    return MappingNetwork([Member(LandCoverSegmentation.load_from_checkpoint(checkpoint, map_location='cpu').model)])


def error_of(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    capsys.readouterr()
    assert cli.main([str(a) for a in args]) == 1
    return capsys.readouterr().err


def test_the_folder_holds_what_is_promised(exported: Path, checkpoint: Path) -> None:
    names = {p.relative_to(exported).as_posix() for p in exported.rglob('*') if p.is_file()}
    assert names == {
        'model.pt2', 'model.onnx', 'openvino/model.xml', 'openvino/model.bin', 'weights.safetensors', 'model.ckpt',
        'legend.json', 'model.json', 'README.md', 'stac_mlm.json',
    }  # fmt: skip
    assert [p.name for p in exported.parent.iterdir()] == ['model']
    facts = json.loads((exported / 'model.json').read_text())
    assert set(facts['files']) == names - {'model.json'}
    assert facts['bands'] == facts['channels'] == list(BANDS)
    assert facts['patch_size'] == SIZE and facts['normalisation']['std'] == [0.1] * 10
    for entry in facts['formats'].values():
        assert entry['shape'] == [-1, 10, -1, -1]
        assert entry['parity']['max_difference'] <= 1e-3 and entry['parity']['agreement'] >= 0.999
    legend = json.loads((exported / 'legend.json').read_text())
    assert [c['code'] for c in legend] == list(range(13)) and legend[12]['name'] == LEGEND[12].name
    kept = read_checkpoint(exported / 'model.ckpt')
    assert not {'optimizer_states', 'callbacks', 'loops', 'lr_schedulers'} & set(kept)
    assert kept['hyper_parameters'] == read_checkpoint(checkpoint)['hyper_parameters']


def test_the_weights_are_those_of_the_network(exported: Path, network: MappingNetwork) -> None:
    weights = load_file(exported / 'weights.safetensors')
    own = network.networks[0].state_dict()
    assert set(weights) == set(own) and all(torch.equal(weights[k], v) for k, v in own.items())


def test_the_formats_take_windows_of_any_size(exported: Path, network: MappingNetwork) -> None:
    import onnxruntime

    images = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 10, 48, 80)).astype(np.float32))
    with torch.inference_mode():
        expected = network(images)
        program = torch.export.load(exported / 'model.pt2').module()(images)
    session = onnxruntime.InferenceSession(exported / 'model.onnx')
    compiled = openvino_core().compile_model(
        exported / 'openvino' / 'model.xml', 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'}
    )
    found = {
        'pt2': program,
        'onnx': torch.from_numpy(session.run(['probabilities'], {'images': images.numpy()})[0]),
        'openvino': torch.from_numpy(compiled({'images': images.numpy()})['probabilities']),
    }
    for name, each in found.items():
        assert torch.allclose(each, expected, atol=1e-4), name


def test_the_card_says_what_it_is(exported: Path) -> None:
    card = (exported / 'README.md').read_text()
    for words in ('unet_scratch with plain16', '--ckpt_path model', 'watercourses', '| mean iou | 43.2 |', '## Limits'):
        assert words in card
    assert '| bare soil | n/a | 0 |' in card and 'CC BY 4.0' in card


def test_the_item_is_read_by_pystac(exported: Path) -> None:
    item = pystac.Item.from_file(str(exported / 'stac_mlm.json'))
    mlm = MLMExtension.ext(item)
    assert [band.name for band in mlm.input[0].bands] == list(BANDS)
    assert mlm.input[0].input.shape == [-1, 10, SIZE, SIZE]
    assert [s['mean'] for s in mlm.input[0].properties['value_scaling']] == [0.15] * 10  # the schema wants an array
    classes = mlm.output[0].classes
    assert [c.value for c in classes] == list(range(13)) and classes[3].title == 'forest'
    assert re.fullmatch('[a-zA-Z][a-zA-Z0-9_.-]+[a-zA-Z0-9]', mlm.mlm_name) and mlm.framework == 'PyTorch'
    assert all(re.fullmatch('[0-9A-Za-z_-]+', c.name) for c in classes)
    assert str(mlm.tasks[0]) == 'semantic-segmentation'
    assert 'mlm:model' in item.assets['model.onnx'].roles
    for asset in item.assets.values():
        assert (exported / asset.href).is_file()


@pytest.mark.slow
def test_predict_maps_what_the_checkpoint_maps(exported: Path, checkpoint: Path, scene: Scene, tmp_path: Path) -> None:
    options = ['--data.overlap=8', '--trainer.accelerator=cpu', '--trainer.enable_progress_bar=false']
    maps = []
    for name, path in (('checkpoint', checkpoint), ('folder', exported)):
        done = run('predict', f'--ckpt_path={path}', f'--output.path={tmp_path}/{name}.tif', *options)
        assert done.returncode == 0, done.stderr
        with rasterio.open(tmp_path / f'{name}.tif') as src:
            maps.append(src.read(1))
    assert len(np.unique(maps[0])) > 2
    assert np.array_equal(*maps)


@pytest.mark.slow
def test_a_temperature_goes_with_the_model(checkpoint: Path, tmp_path: Path) -> None:
    calibrated = Path(shutil.copy(checkpoint, tmp_path / 'best.ckpt'))
    write_temperature(calibrated, 2.5, {})
    export(calibrated, tmp_path / 'model', formats=['onnx'])
    assert find_temperature(open_export(tmp_path / 'model').checkpoint) == 2.5


@pytest.mark.parametrize('name', ['model.ckpt', 'openvino/model.bin', 'legend.json'])
def test_damaged_files_are_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(LandcoverError, match=f'{name} is not what landcover export wrote'):
        open_export(copy)
    (copy / name).unlink()
    with pytest.raises(LandcoverError, match=f'{name} is missing'):
        open_export(copy)


def test_a_damaged_manifest_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / 'model.json'
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {'version': 99}))
    assert 'is of format landcover-model 99' in error_of(capsys, 'predict', f'--ckpt_path={copy}')
    outside = {'files': {**facts['files'], '../secret': {'bytes': 1, 'sha256': ''}}}
    path.write_text(json.dumps(facts | outside))
    assert 'lies outside the folder' in error_of(capsys, 'predict', f'--ckpt_path={copy}')
    path.write_text(path.read_text()[:100])
    assert 'model.json is damaged' in error_of(capsys, 'predict', f'--ckpt_path={copy}')
    path.unlink()
    assert 'holds no exported model' in error_of(capsys, 'predict', f'--ckpt_path={copy}')


def test_training_does_not_go_on_from_an_export(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert '--model.weights' in error_of(capsys, 'fit', f'--ckpt_path={exported}')


def test_only_an_older_export_is_replaced(
    checkpoint: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 'exists already' in error_of(capsys, 'export', checkpoint, '--output.path', copy)
    stranger = tmp_path / 'photos'
    stranger.mkdir()
    (stranger / 'cat.png').touch()
    arguments = ['export', checkpoint, '--output.path', stranger, '--output.overwrite']
    assert 'is no exported model' in error_of(capsys, *arguments)
    facts = export(checkpoint, copy, formats=['pt2'], overwrite=True)
    assert set(facts['formats']) == {'pt2'} and not (copy / 'model.onnx').exists()
    assert open_export(copy).facts == facts
    assert 'No report of `landcover test`' in (copy / 'README.md').read_text()


def test_a_format_that_disagrees_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = formats_module._CONVERTERS['pt2']

    def off(path: Path):
        run = honest.open(path)
        return lambda images: run(images) + 0.01

    monkeypatch.setitem(formats_module._CONVERTERS, 'pt2', honest._replace(open=off))
    sentence = error_of(capsys, 'export', checkpoint, '--output.path', tmp_path / 'model', '--formats', 'pt2')
    assert 'pt2 does not compute what PyTorch does: probabilities differ by up to 1.0e-02 (bound 0.001)' in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_fixed_size_says_so(
    tmp_path: Path, network: MappingNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError('constraints violated')

    monkeypatch.setattr(formats_module, 'dynamic_dims', refuse)
    entry = formats_module.write_format('pt2', network, 10, SIZE, tmp_path)
    assert entry['shape'] == [1, 10, SIZE, SIZE]


def test_a_missing_package_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, 'openvino', None)
    arguments = ['export', checkpoint, '--output.path', tmp_path / 'model', '--formats', 'openvino']
    assert "pip install 'landcover-plugin[openvino]'" in error_of(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('changed', 'words'),
    [
        ({'CataloniaDataModule': {}}, 'lacks the settings or the normalisation'),
        ({'hyper_parameters': {}}, 'was not written by landcover fit'),
    ],
)
def test_checkpoints_of_something_else(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, object], words: str
) -> None:
    path = write_checkpoint(tmp_path / 'other.ckpt', scene, **changed)
    assert words in error_of(capsys, 'export', path, '--output.path', tmp_path / 'model')


def test_a_report_of_something_else(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['export', checkpoint, '--output.path', tmp_path / 'model', '--report', tmp_path]
    assert 'is no report of landcover test' in error_of(capsys, *arguments)


@pytest.mark.parametrize('command', ['export', 'register'])
def test_a_report_of_another_checkpoint_is_refused(
    command: str, checkpoint: Path, exported: Path, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = ('--registry', f'sqlite:///{tmp_path}/r.db', '--name', 'catalonia')
    model = {
        'export': (checkpoint, '--output.path', tmp_path / 'model', '--formats', 'pt2'),
        'register': (exported, *registry),
    }[command]
    document = json.loads((report / 'scores.json').read_text())
    document['metadata'] = {'checkpoint_file': {'sha256': 'f' * 64}}
    path = tmp_path / 'scores.json'
    path.write_text(json.dumps(document))
    told = error_of(capsys, command, *model, '--report', path)
    assert f'{path} scores another checkpoint (SHA-256 ffffffffffff…) than {model[0]}' in told
    assert not (tmp_path / 'model').exists()
    document['metadata']['checkpoint_file']['sha256'] = sha256(checkpoint)
    path.write_text(json.dumps(document))
    assert cli.main([str(a) for a in (command, *model, '--report', path)]) == 0
    assert 'warning: the report' not in capsys.readouterr().err


def test_parity_sees_what_is_wrong(network: MappingNetwork) -> None:
    images = [probe(10, SIZE)]
    assert compare(network, network, images) == (0, 1)
    assert not compare(network, lambda x: network(x).flip(2), images).is_good
    assert not compare(network, lambda x: network(x)[..., :-1], images).is_good
    assert not compare(network, lambda x: network(x) * torch.nan, images).is_good


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(['export', '--help'])
    output = capsys.readouterr().out
    assert 'landcover predict --ckpt_path model' in output and '--formats' in output
