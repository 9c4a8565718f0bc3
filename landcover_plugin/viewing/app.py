"""The web application: page, tiles, points and verdicts. Files are named by ids of the server, never by paths."""

import json
import logging
import re
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from .._version import __version__
from ..errors import LandcoverError
from ..legend import LEGEND
from . import pictures
from .guard import Guard
from .layers import Look
from .points import at
from .scene import Scene
from .suspects import Suspects
from .tiles import Tile

log = logging.getLogger(__name__)

#: Page, script and styles.
STATIC = Path(str(files('landcover_plugin.viewing'))) / 'static'

#: Longest verdict in bytes, with its remark.
_MAX_BODY = 20_000


def make_app(scene: Scene, names: Collection[str] = ()) -> Starlette:
    """The application that shows a scene.

    Args:
        scene: The files.
        names: Names of hosts under which it is reached, besides ``localhost`` and addresses in numbers.
    """
    app = Starlette(
        routes=[
            Route('/', _page),
            Route('/api/scene', _scene),
            Route('/api/tiles/{layer}/{z:int}/{x:int}/{y:int}.png', _tile),
            Route('/api/point', _point),
            Route('/api/audits/{audit}', _audit),
            Route('/api/audits/{audit}/{fid:int}', _outline),
            Route('/api/audits/{audit}/{fid:int}', _verdict, methods=['POST']),
            Mount('/static', StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, names=names)],
        exception_handlers={LandcoverError: _told, HTTPException: _http_error},
    )
    app.state.scene = scene
    return app


def _told(request: Request, error: Exception) -> Response:
    """What went wrong with the files, in its sentence."""
    log.warning('%s', error)
    told = ' '.join(str(error).split())
    for folder in request.app.state.scene.folders:  # the browser may be on another machine
        told = told.replace(folder, '')
    return PlainTextResponse(told, 422, headers={'Cache-Control': 'no-store'})


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these
    return PlainTextResponse(error.detail, error.status_code, headers=error.headers)


def _page(request: Request) -> Response:
    return FileResponse(STATIC / 'index.html', headers={'Cache-Control': 'no-cache'})


def _scene(request: Request) -> Response:
    told = request.app.state.scene.document() | {'version': __version__}
    return JSONResponse(told, headers={'Cache-Control': 'no-store'})


def _tile(request: Request) -> Response:
    scene: Scene = request.app.state.scene
    layer = scene.layers.get(request.path_params['layer'])
    tile = Tile(*(request.path_params[k] for k in 'zxy'))
    if layer is None or not tile.exists:
        raise HTTPException(404, 'there is no such tile')
    look = _look(request)
    if any(source.meets(tile) for source in layer.sources):
        content = pictures.encoded(layer.picture(tile, look))
    else:
        content = pictures.empty()
    return Response(content, media_type='image/png', headers={'Cache-Control': 'private, max-age=3600'})


def _look(request: Request) -> Look:
    """How the tile is to look, from the query."""
    asked = request.query_params
    bands = tuple(asked['bands'].split(',')) if 'bands' in asked else Look().bands
    hidden, code = asked.get('hide', ''), asked.get('class', '1')
    codes = {str(c) for c in LEGEND.codes}
    if len(bands) != 3 or not re.fullmatch(r'[\d,]*', hidden) or code not in codes:
        raise HTTPException(400, 'bands are three names, hide is a list of codes, class is a code')
    return Look(bands, frozenset(int(c) for c in hidden.split(',') if c in codes), int(code))


def _point(request: Request) -> Response:
    try:
        lon, lat = (float(request.query_params[k]) for k in ('lon', 'lat'))
    except (KeyError, ValueError):
        raise HTTPException(400, 'a point is asked for by lon and lat in degrees') from None
    return JSONResponse(at(request.app.state.scene, lon, lat), headers={'Cache-Control': 'no-store'})


def _suspects(request: Request) -> Suspects:
    found: Suspects | None = request.app.state.scene.suspects.get(request.path_params['audit'])
    if found is None:
        raise HTTPException(404, 'there is no such audit')
    return found


def _audit(request: Request) -> Response:
    return JSONResponse(_suspects(request).rows(), headers={'Cache-Control': 'no-store'})


def _outline(request: Request) -> Response:
    try:
        return JSONResponse(_suspects(request).outline(request.path_params['fid']))
    except KeyError:
        raise HTTPException(404, 'there is no such suspect') from None


async def _verdict(request: Request) -> Response:
    suspects, fid = _suspects(request), request.path_params['fid']
    asked = _verdict_asked(await _body(request))
    try:
        await run_in_threadpool(suspects.judge, fid, *asked)
    except KeyError:
        raise HTTPException(404, 'there is no such suspect') from None
    return JSONResponse({'fid': fid, 'verdict': asked[0]})


async def _body(request: Request) -> bytes:
    """The body of a request, which must be small."""
    body = b''
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise HTTPException(413, f'a verdict has at most {_MAX_BODY} bytes')
    return body


def _verdict_asked(body: bytes) -> tuple[str | None, str | None]:
    """Verdict and remark of a request."""
    try:
        asked: Any = json.loads(body)
        verdict, remark = asked['verdict'], asked.get('remark')
    except (ValueError, KeyError, TypeError, AttributeError):
        raise HTTPException(400, 'a verdict is JSON such as {"verdict": "accept", "remark": "…"}') from None
    if not all(v is None or isinstance(v, str) for v in (verdict, remark)):
        raise HTTPException(400, 'verdict and remark are text or null')
    return verdict, remark
