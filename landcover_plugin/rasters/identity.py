"""What tells a raster from an edited one, here or on a server, without reading it all."""

import email.utils
import filecmp
import hashlib
import importlib.util
import itertools
import os
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rasterio

from ..errors import LandcoverError
from .opening import address, block_end, on_server, open_raster
from .remote import client_of, find, is_remote

#: Bytes at both ends of a local file that its identity covers.
_ENDS = 65_536

#: Seconds that a server has to answer.
_PATIENCE = 15


def identity(path: str) -> dict[str, Any]:
    """What tells a source from an edited one: name, size, second of change, and a hash of what else is cheap to ask.

    Of local files the hash covers both ends; a VRT changes with the files that it names. Of files on servers it covers
    the entity tag, where the server tells no time of change (buckets: always), or, where it tells nothing, where the
    blocks of the raster lie and how long they are: compressed pixels that change seldom keep all of that.
    """
    if on_server(path):
        told = _told_by_bucket(path) if is_remote(path) else _told_by_server(address(path))
        return {'name': Path(path).name} | (told or _told_by_blocks(path))
    parts = [Path(file) for file in _files_of(path) if Path(file).is_file()]
    digest = hashlib.sha256()
    for part in parts:
        with part.open('rb') as f:
            digest.update(f.read(_ENDS))
            f.seek(max(part.stat().st_size - _ENDS, 0))
            digest.update(f.read(_ENDS))
    found = [part.stat() for part in parts]
    return {
        'name': Path(path).name,
        'bytes': sum(f.st_size for f in found),
        'modified': sum(int(f.st_mtime) for f in found),
        'ends': digest.hexdigest()[:16] if parts else '',
    }


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a whole file in hexadecimal digits."""
    with Path(path).open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _files_of(path: str) -> list[str]:
    """The file itself, or a VRT and the files that it names."""
    if not path.lower().endswith('.vrt'):
        return [path]
    with rasterio.open(path) as src:  # without its overviews, GDAL lists no files
        return list(src.files)


def _told_by_server(url: str) -> dict[str, Any] | None:
    """Size, time of change and entity tag as the server tells them; None where it does not."""
    if not url.startswith(('http://', 'https://')):
        return None
    request = urllib.request.Request(url, method='HEAD')
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            told = answer.headers
    except (OSError, ValueError):  # it may know no HEAD, or want credentials that only GDAL has
        return None
    modified = email.utils.parsedate_to_datetime(told['Last-Modified']).timestamp() if told['Last-Modified'] else 0
    if not modified and not told['ETag']:
        return None
    return {
        'bytes': int(told['Content-Length'] or 0),
        'modified': int(modified),
        'ends': '' if modified else _short(told['ETag']),  # each machine behind one address may have tags of its own
    }


def _told_by_bucket(path: str) -> dict[str, Any] | None:
    """Size and entity tag of an object; None where the package that asks for them is not installed."""
    if importlib.util.find_spec(client_of(path)) is None:
        return None
    stored = find(path)
    return None if stored is None else {'bytes': stored.size, 'modified': 0, 'ends': _short(stored.tag)}


def _told_by_blocks(path: str) -> dict[str, Any]:
    """Where the blocks at the corners end, and the size of the raster."""
    src = open_raster(path)
    (height, width), bands = src.block_shapes[0], (1, src.count)
    last = -(-src.height // height) - 1, -(-src.width // width) - 1
    corners = [*itertools.product(bands, (0, last[0]), (0, last[1]))]
    ends = [block_end(src, *corner) for corner in corners] if src.driver == 'GTiff' else []
    return {'bytes': 0, 'modified': 0, 'ends': _short(repr((src.shape, src.count, src.dtypes, src.transform, ends)))}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_no_copies(files: Iterable[tuple[str, str]]) -> None:
    """Check that no two local files of a date are the same, byte by byte.

    Args:
        files: Path and date of each.

    Raises:
        LandcoverError: If some are.
    """
    alike: dict[tuple[str, int], list[str]] = {}
    for path, date in files:
        if Path(path).is_file():
            alike.setdefault((date, Path(path).stat().st_size), []).append(path)
    for paths in alike.values():
        for a, b in itertools.combinations(paths, 2):
            if identity(a)['ends'] == identity(b)['ends'] and filecmp.cmp(a, b, shallow=False):
                raise LandcoverError(
                    f'{a} and {b} are copies of one raster; move one out of the folder, or into a hidden one (.name), '
                    'or name a folder that holds one of them'
                )
