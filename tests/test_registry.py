"""The MLflow registry, a SQLite file and a real server: what comes out is what went in, or a sentence."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rasterio
from test_export import write_checkpoint

from landcover_plugin import cli
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.mapping.export.exporting import export
from landcover_plugin.mapping.exported import ExportedModel, open_export
from landcover_plugin.publishing.addresses import ModelAddress, check_alias, check_file_name, check_name

mlflow = pytest.importorskip('mlflow')

from landcover_plugin.publishing.fetching import fetch  # noqa: E402
from landcover_plugin.publishing.registering import DIGEST, register  # noqa: E402

CONFIG = Path(__file__).parents[1] / 'configs' / 'loggers' / 'mlflow.yaml'
SCORES = {'overall': {'mean_iou': 0.4321, 'labelled_pixels': 1234}, 'classes': [{'name': 'forest', 'iou': 0.5}]}


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that vanishes, no registry from outside, and nothing is told to the makers of MLflow."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('MLFLOW_DISABLE_TELEMETRY', 'true')
    monkeypatch.setenv('MLFLOW_HTTP_REQUEST_MAX_RETRIES', '1')
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    for name in ('MLFLOW_TRACKING_URI', 'MLFLOW_REGISTRY_URI'):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope='module')
def checkpoint(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp('trained') / 'best.ckpt', scene)


@pytest.fixture(scope='module')
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    folder = tmp_path_factory.mktemp('exported') / 'model'
    export(checkpoint, folder, formats=[])
    return open_export(folder)


@pytest.fixture(scope='module')
def filled(exported: ExportedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SQLite registry of one version, with scores and alias."""
    folder = tmp_path_factory.mktemp('registry')
    uri = f'sqlite:///{folder}/registry.db'
    register(exported, name='catalonia', registry=uri, alias='champion', scores=SCORES)
    return folder


@pytest.fixture
def registry(filled: Path) -> str:
    return f'sqlite:///{filled}/registry.db'


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def client(registry: str) -> Any:
    return mlflow.MlflowClient(registry, registry)


def stored(registry: str) -> Path:
    """Where the files of version 1 lie."""
    uri = client(registry).get_model_version('catalonia', '1').source
    return Path(uri.removeprefix('file://'))


@pytest.mark.parametrize('address', ['models:/catalonia/champion', 'models:/catalonia/1', 'models:/catalonia@champion'])
def test_what_comes_out_is_what_went_in(
    registry: str, exported: ExportedModel, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('MLFLOW_TRACKING_URI', registry)
    found = fetch(address)
    assert contents(found.folder) == contents(exported.folder)
    assert found.checkpoint.is_file() and found.facts == exported.facts


def test_the_version_tells_what_the_model_is(registry: str, exported: ExportedModel, filled: Path) -> None:
    version = client(registry).get_model_version_by_alias('catalonia', 'champion')
    assert version.description == (exported.folder / 'README.md').read_text(encoding='utf-8')
    run = client(registry).get_run(version.run_id)
    assert run.info.status == 'FINISHED'
    assert run.data.metrics == {'test.mean_iou': 0.4321, 'test.labelled_pixels': 1234, 'test.iou.forest': 0.5}
    assert run.data.params['model'] == 'unet_scratch' and run.data.params['dates'] == '201804'
    assert filled in stored(registry).parents  # beside the file, not where the process happened to be


def test_a_model_is_downloaded_once(registry: str, exported: ExportedModel, tmp_path: Path) -> None:
    first = fetch('models:/catalonia/champion', registry, tmp_path)
    aside = stored(registry).rename(tmp_path / 'aside')
    try:
        assert fetch('models:/catalonia/1', registry, tmp_path).folder == first.folder
        first.checkpoint.write_bytes(b'changed')
        with pytest.raises(LandcoverError, match='refuses'):  # nothing to mend it from
            fetch('models:/catalonia/1', registry, tmp_path)
    finally:
        aside.rename(stored(registry))
    assert contents(fetch('models:/catalonia/1', registry, tmp_path).folder) == contents(exported.folder)


def rewritten(folder: Path) -> None:
    """A changed checkpoint whose checksum in the manifest was made to fit."""
    (folder / 'model.ckpt').write_bytes(b'other')
    facts = json.loads((folder / 'model.json').read_text())
    facts['files']['model.ckpt'] = {'bytes': 5, 'sha256': hashlib.sha256(b'other').hexdigest()}
    (folder / 'model.json').write_text(json.dumps(facts))


@pytest.mark.parametrize(
    'damage, sentence',
    [
        (lambda f: (f / 'model.ckpt').write_bytes(b'other'), 'not what landcover export wrote'),
        (rewritten, 'model.json of models:/catalonia/1 is not what was registered'),
        (lambda f: (f / 'weights.safetensors').unlink(), 'refuses'),
    ],
    ids=['file', 'file and manifest', 'missing'],
)
def test_what_was_changed_in_the_registry_is_refused(
    filled: Path, tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    registry = f'sqlite:///{filled}/registry.db'
    original, kept = stored(registry), tmp_path / 'kept'
    shutil.copytree(original, kept)
    try:
        damage(original)
        with pytest.raises(LandcoverError, match=sentence):
            fetch('models:/catalonia/1', registry, tmp_path / 'models')
    finally:
        shutil.rmtree(original)
        shutil.copytree(kept, original)
    assert not [p for p in (tmp_path / 'models').glob('*') if p.is_dir()]


def test_only_what_was_registered_is_taken(registry: str, tmp_path: Path) -> None:
    extra = stored(registry) / 'model.pkl'
    extra.write_bytes(b'cos\nsystem\n')
    try:
        assert 'model.pkl' not in contents(fetch('models:/catalonia/1', registry, tmp_path).folder)
    finally:
        extra.unlink()


@pytest.mark.parametrize(
    'address, sentence',
    [
        ('models:/catalonia/other', r'no models:/catalonia/other: aliases of catalonia: champion \(version 1\)'),
        ('models:/catalonia/7', r'no models:/catalonia/7: aliases of catalonia: champion \(version 1\)'),
        ('models:/balears/champion', 'no models:/balears/champion: its models are catalonia'),
        ('models:/catalonia', 'is no address of a registered model'),
    ],
)
def test_what_is_not_there_is_told_with_what_there_is(registry: str, address: str, sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        fetch(address, registry)


def test_a_version_of_another_program_is_not_taken(registry: str) -> None:
    c = client(registry)
    c.create_registered_model('foreign')
    c.create_model_version('foreign', stored(registry).as_uri())
    with pytest.raises(LandcoverError, match=f'not registered by landcover register: its tag {DIGEST}'):
        fetch('models:/foreign/1', registry)


def test_registries_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LandcoverError, match='set MLFLOW_TRACKING_URI'):
        fetch('models:/catalonia/champion')
    with pytest.raises(LandcoverError, match=r'registry\.db is no address of a registry'):
        fetch('models:/catalonia/champion', 'registry.db')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        nobody = f'http://user:secret@127.0.0.1:{s.getsockname()[1]}'
    with pytest.raises(LandcoverError, match='does not answer') as told:
        fetch('models:/catalonia/champion', nobody)
    assert 'secret' not in str(told.value)
    monkeypatch.setitem(sys.modules, 'mlflow', None)
    with pytest.raises(LandcoverError, match=r"pip install 'landcover-plugin\[mlflow\]'"):
        fetch('models:/catalonia/champion', nobody)


@pytest.mark.parametrize('alias', ['3', 'v3', 'latest', 'a/b', '', 'a b'])
def test_aliases_that_could_be_taken_for_versions(alias: str) -> None:
    with pytest.raises(LandcoverError, match='an alias is made of'):
        check_alias(alias)


@pytest.mark.parametrize('name', ['a/b', 'a:b', '', ' ', '../x'])
def test_names_that_no_address_can_tell(name: str) -> None:
    with pytest.raises(LandcoverError, match='a model is named by'):
        check_name(name)


@pytest.mark.parametrize('name', ['../x', '/etc/x', 'a/../../x', 'C:\\x', 'file:x', ''])
def test_files_outside_the_folder(name: str) -> None:
    with pytest.raises(LandcoverError, match='tampered with'):
        check_file_name(name)


def test_register_and_predict_by_name(
    checkpoint: Path,
    exported: ExportedModel,
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'scores.json').write_text(json.dumps(SCORES))
    registry = f'sqlite:///{tmp_path}/registry.db'
    options = ['--name', 'catalonia', '--alias', 'champion', '--report', str(tmp_path)]
    assert cli.main(['register', str(exported.folder), '--registry', registry, *options]) == 0
    assert capsys.readouterr().out == 'registered: models:/catalonia/1\nalias:      models:/catalonia/champion\n'
    monkeypatch.setenv('MLFLOW_TRACKING_URI', registry)
    where = ['--data.bbox', '[402500, 4598000, 402900, 4598300]', '--data.root', str(scene.label.parent)]
    where += ['--output.engine', 'torch', '--trainer.accelerator', 'cpu']
    for model, name in (['--model', 'models:/catalonia/champion'], 'a'), (['--ckpt_path', str(checkpoint)], 'b'):
        assert cli.main(['predict', *model, *where, '--output.path', str(tmp_path / f'{name}.tif')]) == 0
    with rasterio.open(tmp_path / 'a.tif') as a, rasterio.open(tmp_path / 'b.tif') as b:
        assert (a.read() == b.read()).all() and a.read().any()
    assert cli.main(['fit', '--ckpt_path', 'models:/catalonia/1', '--data.root', str(scene.label.parent)]) == 1
    assert 'give --model.weights' in capsys.readouterr().err


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of MLflow that keeps files itself, so that they travel by HTTP."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    command = [sys.executable, '-m', 'mlflow', 'server', '--host', '127.0.0.1', '--port', str(port), '--workers', '1']
    command += [
        '--backend-store-uri',
        f'sqlite:///{tmp_path}/server.db',
        '--artifacts-destination',
        str(tmp_path / 'f'),
    ]
    quiet = {'MLFLOW_SERVER_ENABLE_JOB_EXECUTION': 'false', 'PYTHONPATH': ''}
    with (tmp_path / 'server.log').open('w') as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | quiet, cwd=tmp_path, start_new_session=True
        )
    address = f'http://127.0.0.1:{port}'
    try:
        _wait_for(f'{address}/health', process, tmp_path / 'server.log')
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(360):
        assert process.poll() is None, log.read_text()
        try:
            with opener.open(url, timeout=2) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.mark.slow
def test_a_server_keeps_runs_and_models(
    server: str,
    checkpoint: Path,
    exported: ExportedModel,
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version in (1, 2):
        assert register(exported, name='catalonia', registry=server, alias='champion') == ModelAddress(
            'catalonia', version
        )
    assert contents(fetch('models:/catalonia/champion', server).folder) == contents(exported.folder)
    assert client(server).get_model_version_by_alias('catalonia', 'champion').version in ('2', 2)
    options = ['--registry', server, '--name', 'catalonia', '--formats', 'pt2']
    assert cli.main(['register', str(checkpoint), *options]) == 0
    assert set(fetch('models:/catalonia/3', server).facts['formats']) == {'pt2'}
    config = tmp_path / 'mlflow.yaml'
    config.write_text(CONFIG.read_text().replace('sqlite:///mlflow.db', server))
    monkeypatch.chdir(tmp_path)
    small = ['--model.model=unet_scratch', '--model.backbone=plain16', '--model.weights=false', '--data.patch_size=32']
    small += ['--data.length=8', '--data.batch_size=4', '--data.num_workers=0', '--trainer.max_epochs=1']
    small += ['--trainer.accelerator=cpu', '--trainer.enable_progress_bar=false']
    assert cli.main(['fit', f'--config={config}', f'--data.root={scene.label.parent}', *small]) == 0
    (run,) = [
        r
        for r in client(server).search_runs([client(server).get_experiment_by_name('landcover').experiment_id])
        if 'val_mIoU' in r.data.metrics
    ]
    assert run.data.params['backbone'] == 'plain16' and run.info.status == 'FINISHED'
    (best,) = tmp_path.rglob('best.ckpt')
    assert {'config.yaml', 'blocks.gpkg'} <= {p.name for p in best.parents[1].iterdir()}
