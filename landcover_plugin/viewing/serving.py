"""Serving the web map from this machine until it is interrupted."""

import errno
import ipaddress
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from ..errors import LandcoverError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; connections wait until they are served.

    Args:
        host: Name or address of this machine; ``0.0.0.0`` listens on all of its addresses.
        port: 0 takes a free one.

    Raises:
        LandcoverError: If the port is taken or not allowed, or the host is not this machine.
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=128)
    except OSError as e:
        raise LandcoverError(_cannot_listen(host, port, e)) from e
    # asyncio only sets it on sockets that say they are TCP, which this one does not: each tile would wait for 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f'port {port} of {host} is taken by another program: choose another one with --port, or --port 0'
    if error.errno == errno.EACCES:
        return f'port {port} is reserved for the system: choose one above 1023 with --port'
    return f'{host} is no address of this machine ({error.strerror or error}): leave --host out, or name one of its own'


def url_of(sock: socket.socket) -> str:
    """The address to open in a browser of this machine.

    Examples:
        >>> with listen('127.0.0.1', 0) as sock:
        ...     url_of(sock) == f'http://127.0.0.1:{sock.getsockname()[1]}/'
        True
    """
    host, port = sock.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = '::1' if ':' in host else '127.0.0.1'
    return f'http://[{host}]:{port}/' if ':' in host else f'http://{host}:{port}/'


def serve(app: ASGIApp, sock: socket.socket) -> None:
    """Serve until the process is interrupted or terminated; requests on their way are given two seconds.

    Args:
        app: The application.
        sock: What :func:`listen` gave; closed at the end.
    """
    config = uvicorn.Config(
        app, log_level='warning', access_log=False, server_header=False, lifespan='off', timeout_graceful_shutdown=2
    )
    with sock:
        uvicorn.Server(config).run(sockets=[sock])


def open_browser(url: str, open_url: Callable[[str], object] = webbrowser.open) -> None:
    """Open a page in the user's browser, beside what goes on here; does nothing where there is no screen."""
    if sys.platform == 'linux' and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        return
    threading.Thread(target=open_url, args=(url,), daemon=True).start()
