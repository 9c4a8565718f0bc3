"""``landcover view``: images, labels, maps and audits on a web map of this machine."""

import argparse
import socket
import sys
from collections.abc import Sequence

from ..errors import LandcoverError

#: Where the map is served unless another port is asked for.
PORT = 8018

_DESCRIPTION = """\
Look at images, labels, maps and audits in the browser: a web map that this machine serves from the files, without
anything from the network.

  images           S2_*_YYYYMM_*.tif: true colour, infrared or any three bands, each month
  labels           LC_YYYY_*.tif
  maps             what landcover predict wrote, with confidence, entropy and probabilities beside it; where map and
                   labels differ is computed while you look
  audits           GeoPackages of landcover audit: step through the suspects and accept (the label is wrong, or the
                   ground has changed), reject (the label is right) or leave them open; each verdict is written into
                   the GeoPackage at once

Swipe, opacity, classes on and off; a click tells coordinates, spectra, classes and probabilities. The address in the
browser holds the view: copy it to come back. Press ? there for the keys. Ctrl-C ends.
"""

_EPILOG = """\
examples:
  landcover view data
  landcover view data map.tif
  landcover view data map.tif suspects.gpkg
  landcover view map_2018.tif map_2023.tif --port 0

Rasters without overviews are shown from close by only; gdaladdo -r average IMAGE and gdaladdo -r mode LABELS make some.
Only this machine can open the map. --host 0.0.0.0 lets every machine that reaches this one look at the files and judge
suspects (a phone in the same network, say): there is no password.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If arguments or files do not fit, packages are missing, or the port is taken.
    """
    args = _parser().parse_args(argv)
    if not 0 <= args.port <= 65535:
        raise LandcoverError(f'--port must be in [0, 65535], got {args.port}')
    if not args.reflectance_scale > 0:
        raise LandcoverError(f'--reflectance-scale must be a number > 0, got {args.reflectance_scale}')
    _check_packages()
    from ..viewing.app import make_app  # rasterio, geopandas and a web server: not for --help
    from ..viewing.scene import Scene
    from ..viewing.serving import listen, open_browser, serve, url_of

    scene = Scene(
        args.paths,
        source_legend=args.legend,
        band_order=args.band_order,
        nodata=args.nodata,
        reflectance_scale=args.reflectance_scale,
        reflectance_offset=args.reflectance_offset,
    )
    sock = listen(args.host, args.port)
    url, own = url_of(sock), socket.gethostname()
    sys.stdout.write(f'{len(scene.layers)} layers, {len(scene.suspects)} audits: {url} (Ctrl-C ends)\n')
    sys.stdout.flush()
    if args.open:
        open_browser(url)
    try:
        serve(make_app(scene, names=[args.host, own, f'{own}.local']), sock)
    except KeyboardInterrupt:
        sys.stdout.write('\n')
    return 0


def _check_packages() -> None:
    """Find out whether the packages of the web map are installed.

    Raises:
        LandcoverError: If one is missing.
    """
    try:
        import rio_tiler  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as e:
        raise LandcoverError(
            f"{e.name} is missing, which the web map needs: pip install 'landcover-plugin[view]'"
        ) from e


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='landcover view',
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('paths', metavar='DATA-or-MAP', nargs='+', help='folders and files, as above')
    parser.add_argument('--port', type=int, default=PORT, help=f'port; 0 takes a free one (default: {PORT})')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on (default: 127.0.0.1, this machine)')
    parser.add_argument(
        '--open', action=argparse.BooleanOptionalAction, default=True, help='open the browser (default: yes)'
    )
    parser.add_argument(
        '--legend', default='auto', choices=('auto', '12', '41'), help='values of labels and maps (auto)'
    )
    parser.add_argument('--band-order', nargs='+', metavar='BAND', help='names of the bands, where images name none')
    parser.add_argument(
        '--nodata', type=float, help='digital number of unmeasured pixels (default: as declared, else 0)'
    )
    parser.add_argument('--reflectance-scale', type=float, default=10_000, help='default: 10000')
    parser.add_argument(
        '--reflectance-offset', type=float, default=0, help='-1000 for processing baseline 04.00 and later (default: 0)'
    )
    return parser
