"""Rasters on a server: read as local ones, in few requests, by forked workers too; failures name the address."""

import email.utils
import multiprocessing
import os
import re
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from bucket_servers import serve_forever
from conftest import IMAGE_NAME, LABEL_NAME, write_image, write_label
from rasterio.cache import invalidate_all
from rasterio.env import get_gdal_config
from torch.utils.data import DataLoader

from landcover_plugin.datasets.icgc import ICGCLandCover
from landcover_plugin.datasets.patches import CataloniaPatches
from landcover_plugin.datasets.sentinel2 import CataloniaSentinel2
from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelWindow
from landcover_plugin.rasters.identity import identity
from landcover_plugin.rasters.landcover import LabelRasters
from landcover_plugin.rasters.mosaics import Mosaics
from landcover_plugin.rasters.opening import close_rasters, open_raster, server_settings
from landcover_plugin.rasters.reading import read_window
from landcover_plugin.sampling.prepare import prepare

LAYOUT = {'tiled': True, 'blockxsize': 64, 'blockysize': 64, 'compress': 'deflate'}

PROFILE = {
    'driver': 'GTiff', 'width': 20, 'height': 20, 'count': 1, 'dtype': 'uint8', 'crs': 'EPSG:32631',
    'transform': rasterio.Affine(10, 0, 400000, 0, -10, 4600000),
}  # fmt: skip


class Server:
    """Serves a folder with range requests over connections that stay open, from a process of its own.

    Opening a remote file keeps the interpreter (rasterio 1.5), so that a thread could not answer.
    """

    def __init__(self, folder: Path, notes: Path) -> None:
        self.folder, self.log, self.mood = folder, notes / 'asked.txt', notes / 'mood.txt'
        self.behave('well')
        context = multiprocessing.get_context('fork')
        with socket.create_server(('127.0.0.1', 0)) as listening:
            self.port = listening.getsockname()[1]
            self.process = context.Process(target=serve, args=(listening, folder, self.log, self.mood), daemon=True)
            self.process.start()

    def url(self, name: str) -> str:
        return f'http://127.0.0.1:{self.port}/{name}'

    def behave(self, mood: str) -> None:
        """``well``, ``unavailable`` (the next request is put off) or ``cuts`` (no answer is whole).

        Also ``dated`` and ``tagged``: well, and telling the time of change or an entity tag.
        """
        self.mood.write_text(mood)

    def asked(self) -> list[str]:
        """Requests since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


def serve(listening: socket.socket, folder: Path, log: Path, mood: Path) -> None:
    Handler.folder, Handler.log, Handler.mood = folder, log, mood
    serve_forever(listening, Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    folder: Path
    log: Path
    mood: Path

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        asked = self.headers.get('Range', '')
        with self.log.open('a') as log:
            log.write(f'{self.command} {self.path} {asked}\n')
        mood = self.mood.read_text()
        file = self.folder / self.path.lstrip('/')
        if not file.is_file():
            self.send_error(404)
            return
        if mood == 'unavailable':
            self.mood.write_text('well')
            self.send_error(503)
            return
        content = file.read_bytes()
        match = re.fullmatch(r'bytes=(\d+)-(\d*)', asked)
        first = int(match[1]) if match else 0
        last = min(int(match[2]) if match and match[2] else len(content), len(content) - 1)
        part = content[first : last + 1]
        self.send_response(206 if match else 200)
        self.send_header('Accept-Ranges', 'bytes')
        self.send_header('Content-Length', str(len(part)))
        if mood == 'dated':
            self.send_header('Last-Modified', email.utils.formatdate(file.stat().st_mtime, usegmt=True))
        elif mood == 'tagged':
            self.send_header('ETag', f'"{file.stat().st_mtime_ns:x}"')
        if match:
            self.send_header('Content-Range', f'bytes {first}-{last}/{len(content)}')
        self.end_headers()
        if not body:
            return
        if mood == 'cuts':
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self.wfile.write(part)

    def log_message(self, *args: object) -> None:
        """Silence."""


@pytest.fixture
def server(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A CatLC folder of 200 x 230 px on a server, and no proxy before it."""
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    rng = np.random.default_rng(1)
    write_image(tmp_path, rng.integers(1, 9000, (10, 200, 230), dtype=np.uint16), nodata=0, **LAYOUT)
    write_label(tmp_path, rng.integers(0, 13, (1000, 1150), dtype=np.uint8), gsd=2, **LAYOUT)
    found = Server(tmp_path, tmp_path_factory.mktemp('notes'))
    yield found
    close_rasters()
    found.process.terminate()
    found.process.join()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are not tried again for seconds."""
    monkeypatch.setenv('GDAL_HTTP_RETRY_DELAY', '0.01')


def patches(*places: str | Path) -> CataloniaPatches:
    image, label = places
    images = CataloniaSentinel2([image], raw=True)
    labels = ICGCLandCover([label], timeless=True)
    labels.res = images.res
    return CataloniaPatches(images, labels, purity=True)


def queries(dataset: CataloniaPatches, n: int, size: int = 32) -> list[tuple[slice, slice]]:
    rng, grid = np.random.default_rng(2), dataset.images.grid
    return [grid.slices(PixelWindow(*map(int, rng.integers(-8, 190, 2)), size, size)) for _ in range(n)]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')
@pytest.mark.parametrize('workers', [0, 2])
def test_remote_reads_equal_local_ones(server: Server, workers: int) -> None:
    local = patches(server.folder / IMAGE_NAME, server.folder / LABEL_NAME)
    remote = patches(server.url(IMAGE_NAME), server.url(LABEL_NAME))
    assert remote.images.dates == ['2018-04'] and remote.images.grid == local.images.grid
    found = queries(local, 300)
    remote[found[0]]  # the parent's connection is open when the workers are forked
    loader = DataLoader(remote, sampler=found, batch_size=None, num_workers=workers)
    for query, sample in zip(found, loader, strict=True):
        assert equal(sample, local[query])
    assert equal(remote[found[1]], local[found[1]])  # nor has the parent's suffered


def test_opening_and_reading_need_few_requests(server: Server) -> None:
    names = [server.url(IMAGE_NAME), server.url(LABEL_NAME)]
    dataset = patches(*names)
    needs = server.asked()
    assert len(needs) <= 6, '\n'.join(needs)
    assert {line.split()[1] for line in needs} == {f'/{IMAGE_NAME}', f'/{LABEL_NAME}'}
    dataset[queries(dataset, 1)[0]]
    needs = server.asked()
    assert len(needs) <= 4 and all('bytes=' in line for line in needs), needs
    dataset[queries(dataset, 1)[0]]
    assert not server.asked()  # GDAL keeps what it has fetched


def test_a_listing_of_the_folder_is_not_asked_for_but_local_sidecars_are_seen(server: Server) -> None:
    with rasterio.open(server.folder / 'S2_side_201804.tif', 'w', **PROFILE) as dst:
        dst.write(np.ones((1, 20, 20), np.uint8))
    (server.folder / 'S2_side_201804.tif.aux.xml').write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>1</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    assert open_raster(server.folder / 'S2_side_201804.tif').nodata == 1
    assert open_raster(server.url('S2_side_201804.tif')).nodata is None
    assert not any(line.endswith(('/ ', '.xml ', '.ovr ', '.msk ')) for line in server.asked())
    assert get_gdal_config('GDAL_DISABLE_READDIR_ON_OPEN') is None


def test_a_file_that_is_not_there_is_told_with_its_address(server: Server) -> None:
    gone = server.url('S2_CAT_202304_gone.tif')
    sentence = rf'^{re.escape(gone)} cannot be opened as a raster \(.*\); check the address'
    with pytest.raises(LandcoverError, match=sentence) as told:
        CataloniaSentinel2([gone])
    assert '\n' not in str(told.value)


def test_a_server_that_cuts_the_connection_is_told_with_the_address(server: Server, impatient: None) -> None:
    image, window = server.url(IMAGE_NAME), PixelWindow(0, 0, 200, 230)
    open_raster(image)
    server.behave('cuts')
    with pytest.raises(LandcoverError, match=rf'^{re.escape(image)} cannot be read \(.*\); the connection may be lost'):
        read_window(image, window)
    close_rasters()
    invalidate_all()
    with pytest.raises(LandcoverError, match=rf'^{re.escape(image)} cannot be (opened|read)'):
        CataloniaSentinel2([image])
    server.behave('well')
    close_rasters()
    invalidate_all()
    assert np.array_equal(read_window(image, window), read_window(server.folder / IMAGE_NAME, window))


def test_no_server_at_all_is_told(server: Server, impatient: None) -> None:
    server.process.terminate()
    server.process.join()
    with pytest.raises(LandcoverError, match=rf'^{re.escape(server.url(LABEL_NAME))} cannot be opened as a raster'):
        ICGCLandCover([server.url(LABEL_NAME)])


def test_an_error_that_passes_is_tried_again(server: Server) -> None:
    image, window = server.url(IMAGE_NAME), PixelWindow(60, 70, 50, 40)
    open_raster(image)
    server.asked()
    server.behave('unavailable')
    assert np.array_equal(read_window(image, window), read_window(server.folder / IMAGE_NAME, window))
    assert len(server.asked()) >= 2


def test_the_environment_wins_over_our_settings(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('GDAL_HTTP_MAX_RETRY', '0')
    with server_settings(server.url(IMAGE_NAME)):
        assert get_gdal_config('GDAL_HTTP_MAX_RETRY') == 0
        assert get_gdal_config('GDAL_HTTP_CONNECTTIMEOUT') == 15
    assert get_gdal_config('GDAL_HTTP_CONNECTTIMEOUT') is None


def test_the_address_of_a_folder_says_to_name_the_files(server: Server) -> None:
    folder = server.url('')
    for dataset in (CataloniaSentinel2, ICGCLandCover):
        with pytest.raises(LandcoverError, match=rf'nothing is listed below {re.escape(folder)}: .*name the files'):
            dataset(folder)


@pytest.mark.parametrize('mood', ['well', 'dated', 'tagged'])
def test_a_source_that_changed_on_its_server_is_noticed(server: Server, tmp_path: Path, mood: str) -> None:
    server.behave(mood)
    images, labels = Mosaics([server.url(IMAGE_NAME)]), LabelRasters([server.url(LABEL_NAME)])
    store = prepare(images, labels, tmp_path / 'store', kind='compact', progress=False).store
    assert store.image_mismatch(images) is None
    assert store.label_mismatch(labels) is None
    close_rasters()
    pixels = np.random.default_rng(7).integers(1, 2000, (10, 200, 230), dtype=np.uint16)
    os.utime(write_image(server.folder, pixels, nodata=0, **LAYOUT), (1e9, 1e9))
    invalidate_all()  # what GDAL remembers of a server, a new process would not know
    changed = store.image_mismatch(Mosaics([server.url(IMAGE_NAME)]))
    assert changed is not None
    assert f'{server.url(IMAGE_NAME)} has changed since' in changed
    assert store.label_mismatch(labels) is None


def test_the_identity_of_a_file_that_no_server_tells_about_is_that_of_its_blocks(server: Server) -> None:
    first = identity('/vsicurl/' + server.url(IMAGE_NAME))
    assert first['name'] == IMAGE_NAME
    assert (first['bytes'], first['modified']) == (0, 0)
    assert len(first['ends']) == 16
    assert identity('/vsicurl/' + server.url(IMAGE_NAME)) == first


def test_purity_is_found_beside_a_prepared_raster_on_a_server(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local = prepare(Mosaics(tmp_path), LabelRasters(tmp_path), tmp_path / 'store', kind='labels', progress=False).store
    grid = Mosaics(tmp_path).grid
    name = Path(local.labels[0]).name
    with caplog.at_level('WARNING', logger='landcover_plugin'):
        remote = LabelRasters([server.url(f'store/{name}')])
        assert not caplog.messages
        wanted, found = LabelRasters(local.labels).read(grid), remote.read(grid)
        for a, b in zip(found[:3], wanted[:3], strict=True):
            np.testing.assert_array_equal(a, b)
        assert 0 < found.purity[found.codes > 0].min() < 100
        close_rasters()
        invalidate_all()
        (local.folder / f'purity_{name}').unlink()
        for place in (server.url(f'store/{name}'), local.labels[0]):
            caplog.clear()
            LabelRasters([place])
            assert f'{place} was prepared, but purity_{name} is not beside it' in caplog.text
