"""Settings of GDAL for files on servers, and what follows for the other clients of buckets.

One environment serves all of them: patience is set by GDAL's own names (``GDAL_HTTP_MAX_RETRY`` …), the address of a
server that stands in for Amazon's or Google's by the name that their clients know (``AWS_ENDPOINT_URL``,
``STORAGE_EMULATOR_HOST``).
"""

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import LandcoverError

#: Where the environment does not say otherwise: no folder is listed to look for files beside the raster, pieces that
#: were read are kept, errors that may pass are tried again, and a server that has fallen silent is given up.
SERVER_SETTINGS = {
    'GDAL_DISABLE_READDIR_ON_OPEN': 'EMPTY_DIR',
    'GDAL_INGESTED_BYTES_AT_OPEN': '65536',  # headers of large files come in one piece
    'GDAL_HTTP_MAX_RETRY': '3',
    'GDAL_HTTP_RETRY_DELAY': '0.5',
    'GDAL_HTTP_CONNECTTIMEOUT': '15',
    'GDAL_HTTP_LOW_SPEED_TIME': '30',
    'GDAL_HTTP_LOW_SPEED_LIMIT': '1',
}


class Patience(NamedTuple):
    """How long a server is borne with.

    Attributes:
        tries: How often something is asked for.
        delay: Seconds before the second time; each later pause is twice as long.
        connect: Seconds to answer a call.
        silence: Seconds without a byte.
    """

    tries: int
    delay: float
    connect: float
    silence: float

    @classmethod
    def of_environment(cls) -> 'Patience':
        """As GDAL's settings say.

        Raises:
            LandcoverError: If one of them is no number.
        """
        retries, delay, connect, silence = (
            _number(f'GDAL_HTTP_{name}') for name in ('MAX_RETRY', 'RETRY_DELAY', 'CONNECTTIMEOUT', 'LOW_SPEED_TIME')
        )
        return cls(1 + int(retries), delay, connect, silence)


def _number(name: str) -> float:
    text = os.environ.get(name) or SERVER_SETTINGS[name]
    try:
        return max(float(text), 0)
    except ValueError:
        raise LandcoverError(f'{name} must be a number, got {text!r}: correct the environment') from None


def endpoint_settings() -> dict[str, str]:
    """GDAL's settings for the servers that the environment names for other clients of buckets.

    Examples:
        >>> before = dict(os.environ)
        >>> os.environ.pop('AWS_ENDPOINT_URL_S3', None) and None
        >>> os.environ['AWS_ENDPOINT_URL'] = 'http://127.0.0.1:5000'
        >>> endpoint_settings()['AWS_S3_ENDPOINT'], endpoint_settings()['AWS_HTTPS']
        ('127.0.0.1:5000', 'NO')
        >>> os.environ.clear(); os.environ.update(before)
    """
    found = {}
    if url := os.environ.get('AWS_ENDPOINT_URL_S3') or os.environ.get('AWS_ENDPOINT_URL'):
        parts = urlsplit(url)
        found = {
            'AWS_S3_ENDPOINT': f'{parts.netloc}{parts.path.rstrip("/")}',
            'AWS_HTTPS': 'NO' if parts.scheme == 'http' else 'YES',
            'AWS_VIRTUAL_HOSTING': 'FALSE',  # as botocore addresses buckets of other servers
        }
    if (host := os.environ.get('STORAGE_EMULATOR_HOST', '')) not in ('', 'default'):
        url = host if '://' in host else f'http://{host}'
        found |= {'CPL_GS_ENDPOINT': f'{url.rstrip("/")}/', 'GS_NO_SIGN_REQUEST': 'YES'}
    return found
