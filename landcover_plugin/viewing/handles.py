"""Open rasters that threads borrow from each other: what one has decoded, the next tile of any thread finds."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import rasterio
from rasterio.io import DatasetReader

from ..errors import LandcoverError
from ..rasters.opening import file_version, on_server, read_failed, server_settings
from ..rasters.reading import GDAL_ERRORS

#: Handles that wait for the next borrower at most; the one that waited longest is closed beyond this.
MAX_IDLE = 32


class _Key(NamedTuple):
    path: str
    level: int | None
    version: int


class Handles:
    """Handles of rasters, or of their overviews. One thread at a time has a handle: GDAL asks for no more.

    Unlike :func:`~landcover_plugin.rasters.opening.open_raster`, which keeps one for each thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[_Key, DatasetReader]] = []

    @contextmanager
    def borrow(self, path: str, level: int | None = None) -> Iterator[DatasetReader]:
        """A handle, the one that was used last if any is free.

        Args:
            path: As GDAL reads it.
            level: Number of the overview that is opened as if it were the raster.

        Raises:
            LandcoverError: If the file is gone or cannot be opened.
        """
        key = _Key(path, level, file_version(path))
        handle = self._take(key) or _open(key)
        try:
            yield handle
        except BaseException:
            handle.close()  # it may be in any state
            raise
        self._give(key, handle)

    def close(self) -> None:
        """Close those that nobody has borrowed."""
        with self._lock:
            while self._idle:
                self._idle.pop()[1].close()

    def _take(self, key: _Key) -> DatasetReader | None:
        with self._lock:
            for number in reversed(range(len(self._idle))):
                if self._idle[number][0] == key:
                    return self._idle.pop(number)[1]
        return None

    def _give(self, key: _Key, handle: DatasetReader) -> None:
        with self._lock:
            self._idle.append((key, handle))
            if len(self._idle) > MAX_IDLE:
                self._idle.pop(0)[1].close()


def check_there(path: str) -> None:
    """Find out whether a local file is still there.

    Raises:
        LandcoverError: If it is not.
    """
    if not on_server(path) and not Path(path).exists():
        raise LandcoverError(f'{path} is gone: it was moved or deleted while it was being looked at')


def _open(key: _Key) -> DatasetReader:
    check_there(key.path)
    options = {} if key.level is None else {'OVERVIEW_LEVEL': key.level}
    try:
        with server_settings(key.path):
            return rasterio.open(key.path, **options)
    except GDAL_ERRORS as e:
        raise read_failed(key.path, e) from e


#: Those of this process.
HANDLES = Handles()
