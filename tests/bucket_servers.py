"""Emulators of buckets, each in a process of its own, and a proxy before them that fails as it is told.

Opening remote rasters keeps the interpreter (rasterio 1.5), so that a thread of the test could not answer.
"""

import http.client
import multiprocessing
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: Starts an emulator on a port; S3 by moto, Google Cloud Storage by gcp-storage-emulator.
_STARTS = {
    's3': 'import sys; from moto.server import main; main(["-H", "127.0.0.1", "-p", sys.argv[1]])',
    'gs': 'import sys; from gcp_storage_emulator.server import create_server; '
    's = create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="land"); s.run()',
}

#: Credentials that S3 is asked with; no message may ever hold them.
SECRETS = {
    'AWS_ACCESS_KEY_ID': 'AKIDNOTTOBETOLD12345',
    'AWS_SECRET_ACCESS_KEY': 'hush/NotToBeTold+0123456789abcdefghij',
}


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def emulator(kind: str) -> Iterator[int]:
    """The port of an emulator that is up."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, '-c', _STARTS[kind], str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(('127.0.0.1', port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, 'the emulator did not start'
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


class Proxy:
    """Hands requests on to an emulator, counts them, and fails in a mood.

    Moods: ``well``; ``down N`` (the next N requests are answered 503), ``cut N`` (the next N answers break off half
    way), ``slow`` (answers never end), ``denied`` (403), ``down PUT N``: only requests of a method.
    """

    def __init__(self, port: int, notes: Path) -> None:
        self.log, self.mood = notes / 'asked.txt', notes / 'mood.txt'
        self.behave('well')
        with socket.create_server(('127.0.0.1', 0), backlog=64) as listening:
            self.port = listening.getsockname()[1]
            context = multiprocessing.get_context('fork')
            self.process = context.Process(target=_serve, args=(listening, port, self.log, self.mood), daemon=True)
            self.process.start()

    def behave(self, mood: str) -> None:
        self.mood.write_text(mood)

    def asked(self) -> list[str]:
        """Method and path of each request since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()


def _serve(listening: socket.socket, port: int, log: Path, mood: Path) -> None:
    _Handler.upstream, _Handler.log, _Handler.mood = port, log, mood
    serve_forever(listening, _Handler)


def serve_forever(listening: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
    """Answer what comes in at a socket that listens already."""
    httpd = ThreadingHTTPServer(('127.0.0.1', 0), handler, bind_and_activate=False)
    httpd.socket.close()
    httpd.socket = listening
    httpd.daemon_threads = True
    httpd.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    upstream: int
    log: Path
    mood: Path

    def _answer(self) -> None:
        body = self._body()
        with self.log.open('a') as log:
            log.write(f'{self.command} {self.path} {self.headers.get("Range", "")}\n')
        mood, *words = self.mood.read_text().split()
        if mood in ('down', 'cut'):
            method = words[0] if len(words) > 1 else self.command
            left = int(words[-1])
            if left and method == self.command:
                self.mood.write_text(' '.join([mood, *words[:-1], str(left - 1)]))
            else:
                mood = 'well'
        if mood in ('down', 'denied'):
            self._send(
                503 if mood == 'down' else 403, {}, b'<Error><Code>AccessDenied</Code></Error>' * (mood == 'denied')
            )
            return
        # the very Host that was signed
        connection = http.client.HTTPConnection('127.0.0.1', self.upstream)
        skipped = ('connection', 'transfer-encoding', 'content-length', 'expect')
        headers = {k: v for k, v in self.headers.items() if k.lower() not in skipped}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self._send(answer.status, dict(answer.getheaders()), content, mood)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815 - as http.server asks for

    def _body(self) -> bytes:
        if self.headers.get('Expect') == '100-continue':
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get('Transfer-Encoding') != 'chunked':
            return self.rfile.read(int(self.headers.get('Content-Length') or 0))
        parts = []
        while size := int(self.rfile.readline().split(b';')[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b''.join(parts)

    def _send(self, status: int, headers: dict[str, str], content: bytes, mood: str = 'well') -> None:
        self.send_response(status)
        kept = {
            k: v for k, v in headers.items() if k.lower() not in ('connection', 'transfer-encoding', 'date', 'server')
        }
        if self.command != 'HEAD':
            kept = {k: v for k, v in kept.items() if k.lower() != 'content-length'}
            kept['Content-Length'] = str(len(content))
        for name, value in kept.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == 'HEAD':
            return
        if mood == 'cut':
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif mood == 'slow':
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            time.sleep(60)
        else:
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Silence."""


def s3_environment(port: int) -> dict[str, str]:
    """What a user sets: one address for all clients, and credentials."""
    return SECRETS | {'AWS_ENDPOINT_URL': f'http://127.0.0.1:{port}', 'AWS_DEFAULT_REGION': 'us-east-1'}


def without_buckets(environment: dict[str, str]) -> dict[str, str]:
    """An environment that tells nothing of clouds and proxies."""
    names = ('AWS_', 'GOOGLE_', 'GS_', 'CPL_', 'GDAL_', 'STORAGE_', 'http_proxy', 'https_proxy', 'all_proxy')
    return {k: v for k, v in environment.items() if not k.upper().startswith(tuple(n.upper() for n in names))}


def make_bucket(port: int, name: str = 'land') -> None:
    """Make a bucket of the emulator of S3, which takes any signature."""
    signature = 'AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0'
    request = urllib.request.Request(
        f'http://127.0.0.1:{port}/{name}', method='PUT', headers={'Authorization': signature}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(request, timeout=30).close()
