"""Buckets, against emulators in processes of their own: the whole way, what is complete or absent, and faults."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from bucket_servers import SECRETS, Proxy, emulator, make_bucket, s3_environment, without_buckets
from conftest import write_raster
from rasterio.cache import invalidate_all
from test_audit import QUICK

from landcover_plugin.commands.buckets import outputs_in_buckets
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.rasters.finding import find_rasters, gdal_paths
from landcover_plugin.rasters.identity import identity
from landcover_plugin.rasters.mosaics import MOSAIC_EXAMPLE, MOSAIC_NAME
from landcover_plugin.rasters.opening import close_rasters
from landcover_plugin.rasters.reading import read_window
from landcover_plugin.rasters.remote import find, get, joined, listing, put, read, remove
from landcover_plugin.rasters.stand_ins import StandIn, local_copy, user_cache
from landcover_plugin.training.mirroring import RunMirror

pytest.importorskip('s3fs')
pytest.importorskip('gcsfs')


@pytest.fixture(scope='session')
def moto() -> Iterator[int]:
    with emulator('s3') as port:
        make_bucket(port)
        yield port


@pytest.fixture(scope='session')
def google() -> Iterator[int]:
    with emulator('gs') as port:
        yield port


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that tells nothing of clouds, and failures that are tried again at once."""
    for name in os.environ.keys() - without_buckets(dict(os.environ)).keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv('GDAL_HTTP_RETRY_DELAY', '0.01')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('HOME', str(tmp_path))


@pytest.fixture
def s3(moto: int, clean: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before S3; objects of a test lie below ``s3://land/<name of the test>``."""
    proxy = Proxy(moto, tmp_path)
    for name, value in s3_environment(proxy.port).items():
        monkeypatch.setenv(name, value)
    yield proxy
    _stop(proxy)


@pytest.fixture
def gs(google: int, clean: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy(google, tmp_path)
    monkeypatch.setenv('STORAGE_EMULATOR_HOST', f'http://127.0.0.1:{proxy.port}')
    yield proxy
    _stop(proxy)


def _stop(proxy: Proxy) -> None:
    close_rasters()
    invalidate_all()
    proxy.stop()


@pytest.fixture
def top(request: pytest.FixtureRequest) -> str:
    return f's3://land/{request.node.name}'


def text_file(folder: Path, text: str = 'hello', name: str = 'a.txt') -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(folder: str) -> list[str]:
    return [stored.address.removeprefix(f'{folder}/') for stored in listing(folder)]


# Objects


@pytest.mark.parametrize('kind', ['s3', 'gs'])
def test_objects_come_and_go(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    request.getfixturevalue(kind)
    place = f'{kind}://land/come/and/go.txt'
    assert find(place) is None and listing(f'{kind}://land/come') == []
    put(text_file(tmp_path), place)
    stored = find(place)
    assert stored is not None and stored.size == 5 and stored.tag and abs(stored.modified - time.time()) < 3600
    assert read(place) == b'hello'
    assert names(f'{kind}://land/come') == ['and/go.txt']
    get(place, tmp_path / 'deep' / 'copy.txt')
    assert (tmp_path / 'deep' / 'copy.txt').read_text() == 'hello'
    put(text_file(tmp_path, 'hello!'), place)
    again = find(place)
    assert again is not None and again.tag != stored.tag
    remove(place)
    remove(place)
    assert find(place) is None


@pytest.mark.slow
def test_a_large_file_goes_in_parts_and_appears_when_it_is_whole(s3: Proxy, top: str, tmp_path: Path) -> None:
    large = tmp_path / 'large.bin'
    with large.open('wb') as file:
        file.truncate(101 * 2**20)
    s3.behave('down PUT 2')  # two of the parts, or one of them twice
    put(large, f'{top}/large.bin')
    asked = s3.asked()
    assert any('uploads' in line for line in asked) and any('partNumber' in line for line in asked)
    stored = find(f'{top}/large.bin')
    assert stored is not None and stored.size == large.stat().st_size
    s3.behave('down PUT 99')
    with pytest.raises(LandcoverError, match=r'cannot be written \(tried 4 times'):
        put(large, f'{top}/other.bin')
    s3.behave('well')
    assert find(f'{top}/other.bin') is None
    assert sum('DELETE' in line and 'uploadId' in line for line in s3.asked()) >= 1  # no part is left to be paid for


# Faults


@pytest.mark.parametrize('mood', ['down 3', 'cut 2'])
def test_what_passes_is_asked_again(s3: Proxy, top: str, mood: str, tmp_path: Path) -> None:
    place = f'{top}/a.txt'
    put(text_file(tmp_path), place)
    s3.behave(mood)
    assert read(place) == b'hello'
    s3.behave(mood.replace(' ', ' PUT '))
    put(text_file(tmp_path, 'changed'), place)
    assert read(place) == b'changed'


def test_pauses_grow(s3: Proxy, top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr('landcover_plugin.rasters.remote.time.sleep', pauses.append)
    monkeypatch.setenv('GDAL_HTTP_MAX_RETRY', '4')
    monkeypatch.setenv('GDAL_HTTP_RETRY_DELAY', '0.5')
    s3.behave('down 99')
    with pytest.raises(LandcoverError, match='tried 5 times'):
        find(f'{top}/a.txt')
    assert pauses == [0.5, 1, 2, 4]


@pytest.mark.parametrize(('mood', 'seconds'), [('down 99', 5), ('cut 99', 5), ('slow', 9)])
def test_what_does_not_pass_is_one_sentence(
    s3: Proxy, top: str, mood: str, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('GDAL_HTTP_MAX_RETRY', '1')
    monkeypatch.setenv('GDAL_HTTP_LOW_SPEED_TIME', '1')
    place = f'{top}/a.txt'
    put(text_file(tmp_path), place)
    s3.behave(mood)
    begun = time.monotonic()
    with pytest.raises(LandcoverError) as told:
        read(place)
    sentence = str(told.value)
    assert sentence.startswith(f'{place} cannot be read (tried 2 times, at last ') and '\n' not in sentence
    assert sentence.endswith('check the connection, or try later')
    assert time.monotonic() - begun < seconds
    assert not any(secret in sentence for secret in SECRETS.values())


def test_what_is_refused_is_told_at_once(s3: Proxy, top: str, tmp_path: Path) -> None:
    s3.behave('denied')
    for ask in (lambda: read(f'{top}/a'), lambda: put(text_file(tmp_path), f'{top}/a'), lambda: listing(top)):
        s3.asked()
        with pytest.raises(LandcoverError, match='access is denied') as told:
            ask()
        assert len(s3.asked()) == 1
        assert not any(secret in str(told.value) for secret in SECRETS.values())
    s3.behave('well')
    with pytest.raises(LandcoverError, match='s3://nowhere/a cannot be written: there is no such object or bucket'):
        put(text_file(tmp_path), 's3://nowhere/a')


def test_google_is_asked_again_and_refusals_are_told(gs: Proxy, tmp_path: Path) -> None:
    place = 'gs://land/faults/a.txt'
    gs.behave('down 1')
    put(text_file(tmp_path), place)
    gs.behave('cut GET 1')
    assert read(place) == b'hello'
    gs.behave('denied')
    with pytest.raises(LandcoverError, match=f'{place} cannot be read: access is denied'):
        read(place)
    gs.behave('well')
    with pytest.raises(LandcoverError, match='there is no such object or bucket'):
        read('gs://land/faults/gone.txt')


def test_missing_credentials_and_addresses_that_hold_some_are_told(
    s3: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(LandcoverError, match='credentials do not belong in it') as told:
        find('s3://AKIDNOTTOBETOLD12345:hush@land/a.txt')
    assert 'hush' not in str(told.value) and 'AKID' not in str(told.value)
    with pytest.raises(LandcoverError, match='names no place in a bucket'):
        StandIn.of('s3://land')
    for name in SECRETS:
        monkeypatch.delenv(name)
    monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    s3.asked()
    with pytest.raises(LandcoverError, match=r'no credentials were found .*aws configure'):
        read('s3://land/a.txt')
    assert s3.asked() == []


def test_a_missing_client_is_told(top: str, monkeypatch: pytest.MonkeyPatch, clean: None) -> None:
    monkeypatch.setitem(sys.modules, 's3fs.core', None)
    with pytest.raises(LandcoverError, match=r"needs s3fs .*pip install 'landcover-plugin\[buckets\]'"):
        find(f'{top}/a.txt')


# Rasters


@pytest.mark.parametrize('kind', ['s3', 'gs'])
def test_gdal_follows_the_address_of_the_other_clients_in_few_requests(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy: Proxy = request.getfixturevalue(kind)
    folder = f'{kind}://land/rasters-{kind}'
    array = np.random.default_rng(5).integers(1, 99, (10, 300, 350), dtype=np.uint16)
    local = write_raster(tmp_path / 'S2_a_201804_x.tif', array, tiled=True, blockxsize=64, blockysize=64)
    put(local, f'{folder}/deep/S2_a_201804_x.tif')
    for hidden in ('.landcover/store/S2_b_201804_x.tif', 'store/S2_c_201804_x.tif', 'store/store.json'):
        put(text_file(tmp_path, 'no raster'), f'{folder}/{hidden}')
    proxy.asked()
    found = find_rasters(gdal_paths(folder), MOSAIC_NAME, MOSAIC_EXAMPLE)
    assert len(found) == 1 and found[0].endswith('rasters-' + kind + '/deep/S2_a_201804_x.tif')
    assert len(proxy.asked()) <= 3
    from landcover_plugin.grid import PixelWindow

    assert np.array_equal(read_window(found[0], PixelWindow(0, 0, 64, 128)), array[:, :64, :128])
    assert len(needs := proxy.asked()) <= 4, needs
    first = identity(found[0])
    assert first['bytes'] == local.stat().st_size
    with rasterio.open(local, 'r+') as dst:
        dst.write(array[::-1])
    put(local, f'{folder}/deep/S2_a_201804_x.tif')
    assert identity(found[0]) != first


# Outputs


def test_copies_are_fetched_once(s3: Proxy, top: str, tmp_path: Path) -> None:
    put(text_file(tmp_path), f'{top}/a.gpkg')
    assert local_copy(f'{top}/a.gpkg').read_text() == 'hello'
    s3.asked()
    assert local_copy(f'{top}/a.gpkg').name == 'a.gpkg'
    assert [line.split()[0] for line in s3.asked()] == ['HEAD']
    put(text_file(tmp_path, 'other'), f'{top}/a.gpkg')
    copy, unused = local_copy(f'{top}/a.gpkg'), user_cache() / 'copies' / 'unused'
    assert copy.read_text() == 'other'
    unused.mkdir()
    for folder in (copy.parent, unused):
        os.utime(folder, (0, 0))
    assert local_copy(f'{top}/a.gpkg') == copy and copy.exists()  # used now
    assert not unused.exists()
    with pytest.raises(LandcoverError, match='does not exist'):
        local_copy(f'{top}/gone.gpkg')


def test_an_output_is_complete_or_absent(s3: Proxy, top: str, tmp_path: Path) -> None:
    place = StandIn.of(f'{top}/out/store', 'store.json')
    place.check(overwrite=False, permission='')
    assert names(top) == []  # the probe is gone

    def make(**files: str) -> None:
        for name, text in files.items():
            text_file(place.local, text, name.replace('_', '.'))

    make(a_tif='1', store_json='{}', b_csv='2', old_csv='3')
    text_file(place.folder / '.work', 'no output', 'x')
    place.upload()
    puts = [line.split()[1].rsplit('/', 1)[1] for line in s3.asked() if line.startswith('PUT')]
    assert puts[-2:] == ['a.tif', 'store.json']
    assert names(f'{top}/out/store') == ['a.tif', 'b.csv', 'old.csv', 'store.json']
    assert not place.folder.exists()
    with pytest.raises(LandcoverError, match='exists already: choose another name, or so'):
        place.check(overwrite=False, permission=', or so')
    make(a_tif='new', b_csv='new', store_json='new')
    s3.behave('down PUT 99')
    with pytest.raises(LandcoverError, match='tried 4 times'):
        place.upload()
    s3.behave('well')
    assert 'store.json' not in names(f'{top}/out/store')  # no mixture under its name
    assert (place.local / 'store.json').exists()
    place.upload()
    assert names(f'{top}/out/store') == ['a.tif', 'b.csv', 'store.json']
    assert read(f'{top}/out/store/a.tif') == b'new'


def test_nothing_else_is_replaced(s3: Proxy, top: str, tmp_path: Path) -> None:
    put(text_file(tmp_path), f'{top}/photos/a.jpg')
    with pytest.raises(LandcoverError, match='holds something else than this command writes'):
        StandIn.of(f'{top}/photos', 'report.html').check(overwrite=True, permission='')
    assert names(top) == ['photos/a.jpg']
    s3.behave('denied')
    with pytest.raises(LandcoverError, match='access is denied'):
        StandIn.of(f'{top}/new', 'report.html').check(overwrite=False, permission='')


def test_commands_get_local_paths(s3: Proxy, top: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = ['map.tif', '--csv', f'{top}/areas.csv', f'--json={top}/areas.json', '--level', '12']
    with outputs_in_buckets('areas', arguments) as local:
        assert local is not None and local[:3] == ['map.tif', '--level', '12']
        paths = [Path(option.partition('=')[2]) for option in local[3:]]
        assert [path.name for path in paths] == ['areas.csv', 'areas.json'] and user_cache() in paths[0].parents
        for path in paths:
            text_file(path.parent, 'x', path.name)
    assert names(top) == ['areas.csv', 'areas.json']
    with (
        pytest.raises(LandcoverError, match=r'areas\.csv exists already.*--overwrite'),
        outputs_in_buckets('areas', arguments),
    ):
        pass
    config = text_file(tmp_path, f'output:\n  path: {top}/map.tif\n', 'c.yaml')
    with outputs_in_buckets('predict', ['--config', str(config)]) as local:
        assert local is not None and local[-1].startswith(f'--output.path={user_cache()}')
    with outputs_in_buckets('prepare', [f'{top}/data/', '--shares']) as local:
        assert local is not None and local[:2] == [f'{top}/data/', '--shares'] and local[2].endswith('/store')
    with outputs_in_buckets('predict', ['--output.path', 'map.tif']) as local:
        assert local == ['--output.path', 'map.tif']
    assert not list((user_cache() / 'outputs').iterdir())


def test_a_failed_upload_is_made_up_for_by_the_same_command(s3: Proxy, top: str) -> None:
    arguments = ['map.tif', '--output', f'{top}/map.gpkg']
    with (
        pytest.raises(LandcoverError, match='the same command uploads them'),
        outputs_in_buckets('polygonize', arguments) as local,
    ):
        assert local is not None
        text_file(Path(local[-1].partition('=')[2]).parent, 'polygons', 'map.gpkg')
        s3.behave('down PUT 99')
    s3.behave('well')
    assert names(top) == []
    with outputs_in_buckets('polygonize', arguments) as local:
        assert local is None  # nothing is computed again
    assert read(f'{top}/map.gpkg') == b'polygons'


# Runs


def test_runs_are_mirrored_and_gone_on_with_elsewhere(
    s3: Proxy, top: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RunMirror(f'{top}/runs')
    first.begin(resume=False)
    run = first.local / 'lightning_logs' / 'version_0'
    text_file(run / 'checkpoints', 'state 1', 'last.ckpt')
    text_file(run / 'checkpoints', 'best', 'best.ckpt')
    text_file(run, 'lr: 1', 'config.yaml')
    first.upload()
    s3.asked()
    first.upload()
    assert s3.asked() == []
    text_file(run / 'checkpoints', 'state two', 'last.ckpt')
    first.upload_or_warn()
    assert sum(line.startswith('PUT') for line in s3.asked()) == 1
    first.forget(run / 'checkpoints' / 'best.ckpt')
    assert names(f'{top}/runs/lightning_logs/version_0') == ['checkpoints/last.ckpt', 'config.yaml']
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'another machine'))
    fresh = RunMirror(f'{top}/runs')
    fresh.begin(resume=False)
    assert (fresh.local / 'lightning_logs' / 'version_0').is_dir()  # its number is taken
    assert not list(fresh.local.rglob('*.ckpt'))
    fresh.begin(resume=True)
    last = fresh.local / 'lightning_logs' / 'version_0' / 'checkpoints' / 'last.ckpt'
    assert last.read_text() == 'state two'
    assert fresh.address_of(last) == joined(f'{top}/runs', 'lightning_logs', 'version_0', 'checkpoints', 'last.ckpt')
    s3.asked()
    fresh.upload()
    assert s3.asked() == []


def test_an_upload_that_fails_does_not_end_the_training(s3: Proxy, top: str, caplog: pytest.LogCaptureFixture) -> None:
    mirror = RunMirror(f'{top}/runs')
    mirror.begin(resume=False)
    text_file(mirror.local, 'x', 'a.ckpt')
    s3.behave('down 99')
    mirror.upload_or_warn()
    assert 'the training goes on' in caplog.text
    s3.behave('well')
    mirror.upload()
    assert names(f'{top}/runs') == ['a.ckpt']


# The whole way


class Commands:
    """Runs commands as a user does, and keeps what they say."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment, self.folder, self.said = environment, folder, ''

    def __call__(self, *arguments: str, fails: bool = False) -> str:
        command = [sys.executable, '-m', 'landcover_plugin', *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, cwd=self.folder)
        self.said += done.stdout + done.stderr
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['s3', 'gs'])
def test_the_whole_way_on_a_bucket(kind: str, request: pytest.FixtureRequest, scene: Scene, tmp_path: Path) -> None:
    proxy: Proxy = request.getfixturevalue(kind)
    here = str(Path(__file__).parents[1])
    run = Commands(dict(os.environ) | {'PYTHONPATH': here, 'OMP_NUM_THREADS': '1'}, tmp_path)
    bucket = f'{kind}://land/whole'
    for file in scene.label.parent.glob('*.tif'):
        put(file, f'{bucket}/data/{file.name}')
    run('prepare', f'{bucket}/data')
    assert 'store.json' in names(f'{bucket}/data/.landcover/store')
    fit = (
        *('fit', f'--data.root={bucket}/data', '--data.patch_size=32', '--data.batch_size=4', '--data.length=16'),
        *('--model.model=unet_scratch', '--model.backbone=plain16', '--model.weights=false'),
        *('--trainer.accelerator=cpu', f'--trainer.default_root_dir={bucket}/runs', '--data.num_workers=0'),
    )
    told = run(*fit, '--trainer.max_epochs=1')
    best = f'{bucket}/runs/lightning_logs/version_0/checkpoints/best.ckpt'
    assert f'images are read from the compact store {bucket}/data/.landcover/store' in told and best in told
    proxy.asked()
    if kind == 's3':  # the run goes on, and its blocks are read from the local disk
        assert list(user_cache().rglob('blocks/??/*'))
        assert 'going on with' in run(*fit, '--trainer.max_epochs=2', '--resume=true')
        pixels = [line for line in proxy.asked() if '.tif' in line and line.startswith('GET')]
        assert len(pixels) <= 12, pixels  # headers; of the blocks, at most those that were not drawn before
        run('test', '--ckpt_path', best, '--trainer.accelerator=cpu', f'--output.path={bucket}/report')
        assert json.loads(read(f'{bucket}/report/scores.json'))['overall']
        assert 'report.html' in names(f'{bucket}/report')
    run('predict', '--ckpt_path', best, '--trainer.accelerator=cpu', f'--output.path={bucket}/map.tif')
    get(f'{bucket}/map.tif', tmp_path / 'map.tif')
    with rasterio.open(tmp_path / 'map.tif') as src, rasterio.open(scene.images[0]) as image:
        assert src.shape == image.shape and src.transform == image.transform and src.read(1).any()
    assert {'map.json', 'map.qml', 'map.stac.json', 'map.tif.aux.xml'} <= set(names(bucket))
    assert 'exists already' in run('predict', '--ckpt_path', best, f'--output.path={bucket}/map.tif', fails=True)
    if kind == 's3':
        run('polygonize', f'{bucket}/map.tif')
        run('sample', f'{bucket}/map.tif', '--n=50', '--min-per-class=2', f'--output={bucket}/sample.gpkg')
        labels = f'{bucket}/data/{scene.label.name}'
        for more in ([], ['--overwrite', '--raster']):
            run('compare', f'{bucket}/map.tif', labels, f'--output={bucket}/differences', *more)
        run('export', best, f'--output.path={bucket}/model')
        assert {'map.gpkg', 'sample.gpkg', 'differences/change.tif', 'model/model.pt2'} <= set(names(bucket))
        assert read(f'{bucket}/sample.gpkg')[:6] == b'SQLite'
        assert json.loads(read(f'{bucket}/differences/components.json'))
        assert json.loads(read(f'{bucket}/model/model.json'))
    assert not any(secret in run.said for secret in SECRETS.values())


@pytest.mark.slow
def test_an_audit_is_written_to_a_bucket(s3: Proxy, scene: Scene, tmp_path: Path) -> None:
    run = Commands(dict(os.environ) | {'OMP_NUM_THREADS': '1'}, tmp_path)
    for file in scene.label.parent.glob('*.tif'):
        put(file, f's3://land/audit/data/{file.name}')
    told = run('audit', '--output=s3://land/audit/a.gpkg', '--folds=2', '--data.root=s3://land/audit/data', *QUICK)
    assert 's3://land/audit/a.gpkg: layer suspects' in told
    kept = names('s3://land/audit')
    assert {'a.gpkg', 'a.json'} <= set(kept) and len(json.loads(read('s3://land/audit/a.json'))['folds']) == 2
    get('s3://land/audit/a.gpkg', tmp_path / 'a.gpkg')
    frame = gpd.read_file(tmp_path / 'a.gpkg', layer='suspects')
    assert set(frame['picture_201804']) <= {f'a_pictures/{name}' for name in names('s3://land/audit/a_pictures')}
