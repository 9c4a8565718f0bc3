"""What keeps other web pages and other machines out: checks before each answer, and rules that the browser keeps."""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Nothing is loaded from anywhere else, run from text, or framed. Leaflet gives dropped tiles an empty 'data:' image.
_POLICY = '; '.join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

_HEADERS = {
    'Content-Security-Policy': _POLICY,
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}


class Guard:
    """Refuses requests that no page of ours sent.

    A foreign page may point its own name at this machine (DNS rebinding): hence only names that nobody else can own,
    addresses in numbers and those that were asked for, are answered. Writing takes a request that the browser marks as
    coming from our own page.

    Args:
        app: What is guarded.
        names: Names of hosts that are answered besides ``localhost`` and addresses in numbers.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self.app = app
        self.names = {name.casefold() for name in ('localhost', *names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope['method'], Headers(scope=scope))
        await (refusal or self.app)(scope, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> PlainTextResponse | None:
        host = headers.get('host', '')
        if not self._is_ours(host):
            return PlainTextResponse(f'the host {host!r} is not answered here: open the address that was printed', 403)
        if method in ('GET', 'HEAD'):
            return None
        if method != 'POST':
            return PlainTextResponse(f'{method} is not answered here', 405)
        origin, site = headers.get('origin', ''), headers.get('sec-fetch-site', 'same-origin')
        if urlsplit(origin).netloc != host or site != 'same-origin':
            return PlainTextResponse('verdicts are only taken from the page that this server gave', 403)
        if headers.get('content-type', '').partition(';')[0].strip() != 'application/json':
            return PlainTextResponse('verdicts are sent as application/json', 415)
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f'//{host}').hostname
        except ValueError:
            return False
        return bool(name) and (name in self.names or _is_address(name or ''))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
