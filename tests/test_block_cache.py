"""Blocks of rasters on servers on the local disk: the same pixels, within the size, few requests, changes noticed."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import IMAGE_NAME, write_image
from rasterio.cache import invalidate_all
from test_remote import LAYOUT, Server

from landcover_plugin.grid import PixelWindow
from landcover_plugin.rasters.block_cache import BlockCache
from landcover_plugin.rasters.cached import cached_raster, keep_blocks
from landcover_plugin.rasters.opening import close_rasters
from landcover_plugin.rasters.reading import read_window

#: A block of 64 x 64 px of 10 bands, with its checksum.
BLOCK = 64 * 64 * 10 * 2 + 4


@pytest.fixture
def server(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    write_image(tmp_path, pixels(1), nodata=0, **LAYOUT)
    found = Server(tmp_path, tmp_path_factory.mktemp('notes'))
    found.behave('tagged')
    yield found
    keep_blocks(None)
    close_rasters()
    invalidate_all()
    found.process.terminate()
    found.process.join()


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 9000, (10, 200, 230), dtype=np.uint16)


def windows(n: int) -> list[PixelWindow]:
    rng = np.random.default_rng(3)
    return [PixelWindow(*map(int, rng.integers(-8, 190, 2)), 37, 41) for _ in range(n)]


def forget() -> None:
    """What a new process would not know."""
    close_rasters()
    invalidate_all()


def test_the_second_epoch_asks_for_nothing_and_reads_the_same(server: Server, tmp_path: Path) -> None:
    keep_blocks(tmp_path / 'blocks', 10**9)
    url, local = server.url(IMAGE_NAME), server.folder / IMAGE_NAME
    for window in windows(40):
        for indexes in (None, [3, 1]):
            wanted = read_window(local, window, indexes=indexes)
            assert np.array_equal(read_window(url, window, indexes=indexes), wanted)
    assert server.asked()
    forget()
    for window in windows(40):
        assert np.array_equal(read_window(url, window), read_window(local, window))
    assert server.asked() == []
    keep_blocks(tmp_path / 'blocks', 10**9)  # a new run asks what the raster is, and reads its header
    read_window(url, windows(1)[0])
    assert len(server.asked()) <= 4


def test_a_changed_raster_is_read_anew(server: Server, tmp_path: Path) -> None:
    url, window = server.url(IMAGE_NAME), PixelWindow(10, 20, 100, 90)
    keep_blocks(tmp_path / 'blocks', 10**9)
    assert np.array_equal(read_window(url, window), pixels(1)[:, 10:110, 20:110])
    os.utime(write_image(server.folder, pixels(2), nodata=0, **LAYOUT), (2e9, 2e9))
    forget()
    keep_blocks(tmp_path / 'blocks', 10**9)
    assert np.array_equal(read_window(url, window), pixels(2)[:, 10:110, 20:110])


def test_the_size_is_kept_and_what_was_used_last_stays(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 10 * BLOCK)
    block = np.arange(64 * 64 * 10, dtype=np.uint16).reshape(10, 64, 64)
    names = [f'{n:032x}' for n in range(30)]
    for number, name in enumerate(names):
        cache.put(name, block + np.uint16(number))
        assert cache.get(names[0], block.shape, block.dtype) is not None
        assert sum(p.stat().st_size for p in tmp_path.glob('??/*')) <= 10 * BLOCK
        for path in tmp_path.glob('??/*'):  # file systems tell times in steps
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))
    kept = [name for name in names if cache.get(name, block.shape, block.dtype) is not None]
    assert names[0] in kept and names[-1] in kept and len(kept) >= 8
    assert np.array_equal(cache.get(names[-1], block.shape, block.dtype), block + np.uint16(29))


def test_damage_is_a_miss_and_parts_of_killed_processes_go(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 3 * BLOCK)
    block = np.full((10, 64, 64), 7, np.uint16)
    cache.put('ab' * 16, block)
    path = tmp_path / 'ab' / ('ab' * 16)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cache.get('ab' * 16, block.shape, block.dtype) is None
    path.with_suffix('.part').write_bytes(b'x' * 100)
    (tmp_path / '.size').write_text('')  # killed between emptying and writing
    for n in range(4):
        cache.put(f'{n:032x}', block)
    assert not list(tmp_path.rglob('*.part'))
    assert cache.size() <= 3 * BLOCK
    cache.put('ff' * 16, np.zeros((10, 256, 256), np.uint16))  # larger than all of it
    assert not (tmp_path / 'ff').exists()


def fill(folder: Path, worker: int) -> None:
    cache = BlockCache(folder, 12 * BLOCK)
    for n in range(25):
        name = f'{worker:02x}{n:030x}'
        cache.put(name, np.full((10, 64, 64), worker * 100 + n, np.uint16))
        found = cache.get(name, (10, 64, 64), np.dtype(np.uint16))
        assert found is None or (found == worker * 100 + n).all()


def test_several_processes_share_the_size(tmp_path: Path) -> None:
    context = multiprocessing.get_context('fork')
    workers = [context.Process(target=fill, args=(tmp_path, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        with BlockCache(tmp_path, 0)._ledger():  # else a block might go, and another come, while they are counted
            assert BlockCache(tmp_path, 0).size() <= 12 * BLOCK
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert int((tmp_path / '.size').read_text()) == BlockCache(tmp_path, 0).size() > 0


def test_a_disk_that_refuses_costs_nothing_but_speed(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / 'file').write_text('')
    keep_blocks(tmp_path / 'file' / 'blocks', 10**9)
    assert np.array_equal(read_window(server.url(IMAGE_NAME), PixelWindow(0, 0, 70, 70)), pixels(1)[:, :70, :70])
    assert 'blocks cannot be kept' in caplog.text


def test_local_rasters_are_read_as_they_are(server: Server, tmp_path: Path) -> None:
    keep_blocks(tmp_path / 'blocks', 10**9)
    assert cached_raster(server.folder / IMAGE_NAME) is None
    read_window(server.folder / IMAGE_NAME, PixelWindow(0, 0, 9, 9))
    assert not (tmp_path / 'blocks').exists()
