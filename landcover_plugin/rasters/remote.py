"""Files in buckets, ``gs://`` and ``s3://``, through fsspec: asked for again where that may help.

Credentials are found by the clients themselves (s3fs and botocore, gcsfs and google-auth) as their own manuals say;
none passes through here. What a client says is told without anything that looks like a secret.
"""

import importlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import LandcoverError
from .opening import address
from .outputs import write_whole
from .server_settings import Patience

log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

#: Beginnings of addresses of buckets, and the packages that speak with them.
SCHEMES = {'s3://': 's3fs', 'gs://': 'gcsfs'}

#: Errors of the clients, by class, that may have passed when the question is asked again.
_PASSING = re.compile(
    'Timeout|ConnectionError|EndpointConnection|ConnectionClosed|HTTPClientError|IncompleteRead|ResponseStreaming|'
    'ResponseParser|ClientPayloadError|ServerDisconnected|ClientConnector|ClientOSError|ChunkedEncoding|ProxyError|'
    'ChecksumError'
)

#: … and those that say that there are no credentials.
_NO_CREDENTIALS = re.compile(
    'CredentialsError|CredentialRetrieval|RefreshError|TokenRetrieval|ProfileNotFound|SSOToken'
)

#: Answers of servers that pass.
_PASSING_CODES = (408, 425, 429, 500, 502, 503, 504)

#: Options of an address, and long words that mix letters and digits: signatures, keys and tokens look so.
_SECRETS = re.compile(r'\?\S*|\b(?=[\w/+=-]*\d)(?=[\w/+=-]*[A-Za-z])[\w+=-]{20,}')


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
    except _MissingError:
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
    except _MissingError:
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
    except _MissingError:
        return


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


class _MissingError(LandcoverError):
    """There is no such object, or no such bucket."""


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
            if not _may_pass(error) or number == tries:
                raise _sentence(name, done, error, tries if tries > 1 else 6) from None
            log.debug('%s: %s, tried again', name, type(error).__name__)
            time.sleep(patience.delay * 2 ** (number - 1))
    raise AssertionError


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _code(error: BaseException) -> int:
    """The answer's number, 0 where there was none."""
    for e in _chain(error):
        response = getattr(e, 'response', None)
        told = response.get('ResponseMetadata', {}).get('HTTPStatusCode') if isinstance(response, dict) else None
        found = told or getattr(e, 'code', None) or getattr(e, 'status', None)
        if isinstance(found, int | str) and str(found).isdigit():
            return int(found)
    return 0


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, LandcoverError) or _is(error, _NO_CREDENTIALS):
        return False
    code = _code(error)  # aiohttp calls an answer that breaks off 400
    return code in _PASSING_CODES or (code not in (401, 403, 404) and _is(error, _PASSING))


def _is(error: BaseException, classes: re.Pattern[str]) -> bool:
    return any(classes.search(kind.__name__) for e in _chain(error) for kind in type(e).__mro__)


def _sentence(name: str, done: str, error: BaseException, tries: int) -> LandcoverError:
    """What happened, and the way out."""
    reason = f'{type(error).__name__}: {_SECRETS.sub("…", " ".join(str(error).split()))}'[:300].rstrip(': ')
    if isinstance(error, LandcoverError):
        return error
    if _is(error, _NO_CREDENTIALS):
        return LandcoverError(
            f'{name} cannot be {done}: no credentials were found ({type(error).__name__}); set them up as for other '
            'clients (s3: aws configure, AWS_PROFILE or a role; gs: gcloud auth application-default login)'
        )
    denied = isinstance(error, PermissionError) or _code(error) in (401, 403) or str(error).startswith('Forbidden')
    if denied:
        return LandcoverError(
            f'{name} cannot be {done}: access is denied ({type(error).__name__}); ask for the right to it, or check '
            'which credentials are used'
        )
    if isinstance(error, FileNotFoundError) or _code(error) == 404:
        return _MissingError(f'{name} cannot be {done}: there is no such object or bucket; check the address')
    if _may_pass(error):
        return LandcoverError(
            f'{name} cannot be {done} (tried {tries} times, at last {reason}): check the connection, or try later'
        )
    return LandcoverError(f'{name} cannot be {done} ({reason}): check the address and your rights')
