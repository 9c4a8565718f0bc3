"""Files in buckets, ``gs://`` and ``s3://``, through fsspec: asked for again where that may help.

Credentials are found by the clients themselves (s3fs and botocore, gcsfs and google-auth) as their own manuals say;
none passes through here. What a client says is told without anything that looks like a secret.
"""

import importlib
import logging
import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from ..errors import LandcoverError
from .bucket_errors import MissingError, failure, may_pass
from .opening import address
from .outputs import write_whole
from .server_settings import Patience

log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

#: Beginnings of addresses of buckets, and the packages that speak with them.
SCHEMES = {'s3://': 's3fs', 'gs://': 'gcsfs'}


class Stored(NamedTuple):
    """An object of a bucket.

    Attributes:
        address: ``s3://bucket/name``.
        size: Bytes.
        modified: Second of its change, 0 where the server does not tell.
        tag: What changes with its content: the entity tag, or the generation.
    """

    address: str
    size: int
    modified: float
    tag: str


def is_remote(path: PathLike) -> bool:
    """Whether a path lies in a bucket.

    Examples:
        >>> is_remote('s3://land/map.tif'), is_remote('/vsigs/land/map.tif'), is_remote('data/map.tif')
        (True, True, False)
    """
    return address(path).startswith(tuple(SCHEMES))


def client_of(path: PathLike) -> str:
    """The package that speaks with the server of a path in a bucket.

    Examples:
        >>> client_of('s3://land/map.tif')
        's3fs'
    """
    return next(package for scheme, package in SCHEMES.items() if address(path).startswith(scheme))


def joined(folder: PathLike, *names: str) -> str:
    """A path below a folder, here or in a bucket.

    Examples:
        >>> joined('s3://land/data/', '.landcover', 'store'), joined('data', 'store')
        ('s3://land/data/.landcover/store', 'data/store')
    """
    if is_remote(folder):
        return '/'.join([address(folder).rstrip('/'), *names])
    return str(Path(folder, *names))


def find(path: PathLike) -> Stored | None:
    """What a bucket tells about an object, None where there is none.

    Raises:
        LandcoverError: If the server cannot be asked, or refuses.
    """
    name = address(path)
    try:
        told = _patiently(name, 'read', lambda fs: fs.info(name))
    except MissingError:
        return None
    return None if told.get('type') == 'directory' else _stored(name, told)


def listing(folder: PathLike) -> list[Stored]:
    """All objects below a folder of a bucket, in the order of their names.

    Raises:
        LandcoverError: If the server cannot be asked, or refuses.
    """
    top = address(folder).rstrip('/')
    scheme = top[: top.index('://') + 3]
    try:
        found = _patiently(top, 'listed', lambda fs: fs.find(top, detail=True))
    except MissingError:
        return []
    files = {name: told for name, told in found.items() if not name.endswith('/')}
    return [_stored(f'{scheme}{name}', told) for name, told in sorted(files.items())]


def read(path: PathLike) -> bytes:
    """The content of a small object.

    Raises:
        LandcoverError: If there is none, or it cannot be read.
    """
    name = address(path)
    return bytes(_patiently(name, 'read', lambda fs: fs.cat_file(name)))


def get(path: PathLike, local: Path) -> None:
    """Copy an object to a local file, which takes its name when it is whole.

    Raises:
        LandcoverError: If there is none, or it cannot be read.
    """
    name = address(path)
    write_whole(local, lambda staging: _patiently(name, 'read', lambda fs: fs.get_file(name, str(staging))))


def put(local: Path, path: PathLike) -> None:
    """Copy a local file to an object, a large one in several parts; it appears when it is whole.

    Raises:
        LandcoverError: If it cannot be written.
    """
    name, size = address(path), local.stat().st_size
    _patiently(name, 'written', lambda fs: fs.put_file(str(local), name))
    stored = find(name)
    if stored is None or stored.size != size:
        raise LandcoverError(f'{name} is not the {size:,} bytes that were written: another program works there')


def remove(path: PathLike) -> None:
    """Delete an object, if it is there.

    Raises:
        LandcoverError: If that fails.
    """
    name = address(path)
    try:
        _patiently(name, 'deleted', lambda fs: fs.rm_file(name))
    except MissingError:
        return


def check_writable(folder: PathLike) -> None:
    """Find out, before any computing, whether a folder of a bucket can be written to; leaves no trace.

    Raises:
        LandcoverError: If it cannot.
    """
    name = joined(folder, f'.{uuid4().hex}.probe')
    _patiently(name, 'written', lambda fs: fs.pipe_file(name, b''))
    remove(name)


def check_address(path: PathLike) -> str:
    """The address of an object or folder in a bucket.

    Raises:
        LandcoverError: If it names no bucket, or holds credentials.
    """
    name = address(path)
    bucket, _, key = name[name.index('://') + 3 :].partition('/')
    if '@' in bucket or ':' in bucket:
        raise LandcoverError(
            f'an address in a bucket is {name[: name.index("://")]}://BUCKET/NAME: credentials do not belong in it, '
            'the clients find them in their own places (environment, profile, role)'
        )
    if not bucket or not key.strip('/'):
        raise LandcoverError(f'{name} names no place in a bucket: expected {name[: name.index("://")]}://BUCKET/NAME')
    return name.rstrip('/')


def _stored(name: str, told: dict[str, Any]) -> Stored:
    changed = told.get('LastModified') or told.get('mtime') or told.get('updated')
    seconds = changed.timestamp() if isinstance(changed, datetime) else 0.0
    tag = str(told.get('ETag') or told.get('etag') or told.get('generation') or '').strip('"')
    return Stored(name, int(told.get('size') or 0), seconds, tag)


def _filesystem(name: str, patience: Patience) -> Any:
    """The client of an address, of this process; listings are not kept, since others write there too."""
    check_address(f'{name}/.' if name.count('/') < 3 else name)
    package = client_of(name)
    try:
        core = importlib.import_module(f'{package}.core')
    except ImportError as e:
        raise LandcoverError(f"{name} needs {package} ({e}): pip install 'landcover-plugin[buckets]'") from e
    if package == 'gcsfs':
        from aiohttp import ClientTimeout

        # It logs whole tracebacks of what is told in one sentence.
        logging.getLogger('gcsfs').setLevel(logging.CRITICAL)
        timeout = ClientTimeout(total=None, sock_connect=patience.connect, sock_read=patience.silence)
        emulated = os.environ.get('STORAGE_EMULATOR_HOST', '') not in ('', 'default')  # it knows no credentials
        token = 'anon' if emulated else None
        return core.GCSFileSystem(token=token, use_listings_cache=False, session_kwargs={'timeout': timeout})
    unsigned = os.environ.get('AWS_NO_SIGN_REQUEST', '').upper() in ('YES', 'TRUE', 'ON', '1')
    client = {
        'retries': {'total_max_attempts': 1},  # it is asked again from here
        'connect_timeout': patience.connect,
        'read_timeout': patience.silence,
    }
    server = os.environ.get('AWS_ENDPOINT_URL_S3') or os.environ.get('AWS_ENDPOINT_URL')
    fs = core.S3FileSystem(anon=unsigned, endpoint_url=server, use_listings_cache=False, config_kwargs=client)
    fs.retries = 1
    return fs


def _patiently[T](name: str, done: str, ask: Callable[[Any], T]) -> T:
    """Ask, and ask again after a pause where the failure may pass.

    Raises:
        LandcoverError: In one sentence, if it does not.
    """
    patience = Patience.of_environment()
    fs = _filesystem(name, patience)
    tries = 1 if name.startswith('gs://') else patience.tries  # gcsfs tries again by itself
    for number in range(1, tries + 1):
        try:
            return ask(fs)
        except Exception as error:  # each client has its own
            if not may_pass(error) or number == tries:
                raise failure(name, done, error, tries if tries > 1 else 6) from None
            log.debug('%s: %s, tried again', name, type(error).__name__)
            time.sleep(patience.delay * 2 ** (number - 1))
    raise AssertionError
