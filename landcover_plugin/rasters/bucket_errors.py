"""What went wrong with a bucket: whether it may pass, and the sentence for it, without what looks like a secret."""

import os
import re
from collections.abc import Iterator

from ..errors import LandcoverError

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


class MissingError(LandcoverError):
    """There is no such object, or no such bucket."""


def _without_secrets(text: str) -> str:
    """A text without the credentials of the environment, and without what looks like some.

    Examples:
        >>> _without_secrets('GET https://x.org/a?X-Amz-Signature=1 by AKIA0123456789ABCDEF')
        'GET https://x.org/a… by …'
    """
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN'):
        if secret := os.environ.get(name):
            text = text.replace(secret, '…')
    return _SECRETS.sub('…', text)


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


def may_pass(error: BaseException) -> bool:
    """Whether a failure may have passed when the question is asked again."""
    if isinstance(error, LandcoverError) or _is(error, _NO_CREDENTIALS):
        return False
    code = _code(error)  # aiohttp calls an answer that breaks off 400
    return code in _PASSING_CODES or (code not in (401, 403, 404) and _is(error, _PASSING))


def _is(error: BaseException, classes: re.Pattern[str]) -> bool:
    return any(classes.search(kind.__name__) for e in _chain(error) for kind in type(e).__mro__)


def failure(name: str, done: str, error: BaseException, tries: int) -> LandcoverError:
    """The sentence for a failure, and the way out.

    Args:
        name: Address that was asked for.
        done: What was to be done with it, as a participle.
        error: What the client raised.
        tries: How often that was tried.
    """
    reason = f'{type(error).__name__}: {_without_secrets(" ".join(str(error).split()))}'[:300].rstrip(': ')
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
        return MissingError(f'{name} cannot be {done}: there is no such object or bucket; check the address')
    if may_pass(error):
        return LandcoverError(
            f'{name} cannot be {done} (tried {tries} times, at last {reason}): check the connection, or try later'
        )
    return LandcoverError(f'{name} cannot be {done} ({reason}): check the address and your rights')
