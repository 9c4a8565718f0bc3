"""Opening rasters: one handle per process, thread and file, never inherited over a fork.

A GDAL handle that crosses ``fork`` shares its file offset with the parent, and both read garbage. Handles
are therefore kept in thread-local storage together with the process id that opened them. GDAL's connections to
servers would cross it too, and are closed before.
"""

import atexit
import functools
import os
import threading
from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import rasterio
from rasterio.env import get_gdal_config
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader

from ..errors import LandcoverError
from .server_settings import SERVER_SETTINGS, endpoint_settings

#: Handles kept open per thread; the least recently used is closed beyond this.
MAX_HANDLES = 64

_REMOTE = {
    'gs://': '/vsigs/',
    's3://': '/vsis3/',
    'https://': '/vsicurl/https://',
    'http://': '/vsicurl/http://',
}

#: GDAL's file systems on servers.
_SERVERS = ('/vsicurl', '/vsis3', '/vsigs', '/vsiaz', '/vsiadls', '/vsioss', '/vsiswift')


class _Local(threading.local):
    pid: int = -1
    handles: 'OrderedDict[tuple[str, int], DatasetReader]'


_local = _Local()

#: What a parent process opened before the fork: kept here, since letting go of a handle closes it.
_inherited: list[Any] = []


def vsi_path(path: str | os.PathLike[str]) -> str:
    """A path as GDAL reads it: ``gs://``, ``s3://`` and ``https://`` become ``/vsi…`` paths.

    Examples:
        >>> vsi_path('gs://bucket/a.tif')
        '/vsigs/bucket/a.tif'
    """
    text = os.fspath(path)
    for scheme, prefix in _REMOTE.items():
        if text.startswith(scheme):
            return prefix + text.removeprefix(scheme)
    return text


def address(path: str | os.PathLike[str]) -> str:
    """A path as users write it: the other way round than :func:`vsi_path`.

    Examples:
        >>> address('/vsigs/bucket/a.tif')
        'gs://bucket/a.tif'
    """
    text = os.fspath(path)
    for scheme, prefix in _REMOTE.items():
        if text.startswith(prefix):
            return scheme + text.removeprefix(prefix)
    return text


def on_server(path: str | os.PathLike[str]) -> bool:
    """Whether GDAL asks a server for a path.

    Examples:
        >>> on_server('https://x.org/a.tif'), on_server('/vsizip//vsis3/b/a.zip/a.tif'), on_server('data/a.tif')
        (True, True, False)
    """
    text = vsi_path(path)
    return text.startswith('/vsi') and any(server in text for server in _SERVERS)


def server_settings(path: str | os.PathLike[str]) -> AbstractContextManager[Any]:
    """GDAL's settings while a file is opened or read: patience with servers, none for local files."""
    if not on_server(path):
        return nullcontext()
    _close_connections_before_forks()
    wanted = SERVER_SETTINGS | endpoint_settings()
    return rasterio.Env(**{k: v for k, v in wanted.items() if get_gdal_config(k) is None})


@functools.cache
def _close_connections_before_forks() -> None:
    """See to it that no child inherits connections: it would take the answers to its parent's requests (GDAL 3.12)."""
    try:
        from rasterio.cache import invalidate_all
    except ImportError:  # rasterio < 1.5
        return
    if hasattr(os, 'register_at_fork'):
        os.register_at_fork(before=invalidate_all)


def open_raster(path: str | os.PathLike[str]) -> DatasetReader:
    """The calling thread's own handle of a raster, kept open for the next call.

    Overviews are hidden (``OVERVIEW_LEVEL=NONE``): GDAL would otherwise answer a decimated read
    from a pyramid that was resampled in a way nobody chose.

    Raises:
        LandcoverError: If the file cannot be opened as a raster.
    """
    if _local.pid != os.getpid():  # a new process or thread: what a parent opened is left alone, not closed
        if _local.pid >= 0:
            _inherited.append(_local.handles)
        _local.pid = os.getpid()
        _local.handles = OrderedDict()
        if threading.current_thread() is threading.main_thread():  # others let go of theirs when they end
            atexit.register(close_rasters)  # GDAL complains about handles that outlive the interpreter
    key = (vsi_path(path), file_version(path))
    handle = _local.handles.get(key)
    if handle is None:
        handle = _open(key[0], OVERVIEW_LEVEL='NONE')
        _local.handles[key] = handle
        if len(_local.handles) > MAX_HANDLES:
            _local.handles.popitem(last=False)[1].close()
    else:
        _local.handles.move_to_end(key)
    return handle


def band_descriptions(path: str | os.PathLike[str]) -> tuple[str | None, ...]:
    """What a file says about each of its bands.

    :func:`open_raster` cannot tell: GDAL (3.12) drops descriptions together with overviews.

    Raises:
        LandcoverError: If the file cannot be opened as a raster.
    """
    with _open(vsi_path(path)) as src:
        return src.descriptions


def close_rasters() -> None:
    """Close the handles of the calling thread."""
    if _local.pid == os.getpid():
        while _local.handles:
            _local.handles.popitem()[1].close()


def file_version(path: str | os.PathLike[str]) -> int:
    """Modification time of a local file in nanoseconds, 0 of others: a rewritten file is opened anew."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - the path may be a /vsi name
    except OSError:
        return 0


def _open(path: str, **options: str) -> DatasetReader:
    try:
        with server_settings(path):
            return rasterio.open(path, **options)
    except RasterioIOError as e:
        if not path.startswith('/vsi') and not Path(path).exists():
            raise LandcoverError(f'{path} does not exist: check the path') from e
        way_out = 'check the address and your credentials' if on_server(path) else 'fetch it again, or leave it out'
        raise LandcoverError(f'{address(path)} cannot be opened as a raster ({_first_line(e)}); {way_out}') from e


def read_failed(path: str, error: Exception, where: str = '') -> LandcoverError:
    """The sentence for a read that failed: usually a truncated or damaged file, or a lost connection.

    Args:
        path: The file, as GDAL reads it.
        error: What GDAL said.
        where: Which pixels were to be read.
    """
    cause = error.__cause__ or error
    reason = f'{_first_line(cause)}{where and f", {where}"}'
    why = 'the file may be truncated or damaged: fetch it again'
    if on_server(path):
        why = 'the connection may be lost, or the file damaged: try again, or copy the file here'
    return LandcoverError(f'{address(path)} cannot be read ({reason}); {why}')


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def check_whole(path: str | os.PathLike[str]) -> None:
    """Check that a local GeoTIFF is not cut off: no block may end beyond the end of the file.

    Looks at the last row of blocks of the first and the last band and at an even sample of the others, through
    the block offsets that GDAL publishes; other formats pass. A file that was cut off before its list of
    blocks looks as if all were empty, and GDAL would read zeros.

    Raises:
        LandcoverError: If the file is truncated or holds nothing.
    """
    src = open_raster(path)
    if src.driver != 'GTiff' or not Path(path).is_file():
        return
    size = Path(path).stat().st_size
    rows = -(-src.height // src.block_shapes[0][0])
    cols = -(-src.width // src.block_shapes[0][1])
    blocks = range(rows * cols)
    sample = {*blocks[:: max(len(blocks) // 4096, 1)], *blocks[-cols:]}
    ends = [block_end(src, band, *divmod(block, cols)) for band in (1, src.count) for block in sample]
    if max(ends) > size:
        raise LandcoverError(f'{path} is truncated: its data should go on beyond its {size:,} bytes; fetch it again')
    if not any(ends) and not any(block_end(src, 1, *divmod(block, cols)) for block in blocks):
        raise LandcoverError(f'{path} is truncated or empty: no block of it holds data; fetch it again or leave it out')


def block_end(src: Any, band: int, row: int, col: int) -> int:
    """The byte behind a block of an open GeoTIFF, 0 where it is not in the file."""
    offset = src.get_tag_item(f'BLOCK_OFFSET_{col}_{row}', 'TIFF', bidx=band)
    length = src.get_tag_item(f'BLOCK_SIZE_{col}_{row}', 'TIFF', bidx=band)
    return int(offset) + int(length) if offset and length else 0
