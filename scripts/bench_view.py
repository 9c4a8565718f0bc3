"""How long tiles of the web map take, on rasters of 30,000 x 30,000 px.

    python scripts/bench_view.py [--size 30000] [--tiles 40] [--json view.json] [--folder DIR]

Writes an image of 10 bands (blocks of 256 px, interleaved by pixel, deflate, overviews by average), labels and a map
(COGs with overviews by majority), starts `landcover view` on them as a user would, and asks for tiles of each layer at
each zoom over HTTP, one after the other, each for the first time. Prints median and 95 % quantile in milliseconds, and
(on Linux) the mean of what the server computed, which other work on the machine changes less. The pixels are squares of
4 x 4 equal ones, so that the files stay small: real pixels take longer to decode. The files are removed at the end.
"""

import argparse
import http.client
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import morecantile
import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import from_origin

from landcover_plugin.rasters.mosaics import CATLC_BANDS

#: Pixels along a square of equal ones, and rows that are written at a time.
SQUARE, ROWS = 4, 256

PLACE = {'crs': 'EPSG:32631', 'transform': from_origin(260_000, 4_750_000, 10, 10)}
MATRIX = morecantile.tms.get('WebMercatorQuad')


def squares(rng: np.random.Generator, low: int, high: int, shape: tuple[int, int, int], dtype: str) -> NDArray[Any]:
    """Random values ``(bands, rows, cols)`` in squares."""
    bands, rows, cols = shape
    small = rng.integers(low, high, size=(bands, -(-rows // SQUARE), -(-cols // SQUARE)), dtype=dtype)
    return small.repeat(SQUARE, axis=1).repeat(SQUARE, axis=2)[:, :rows, :cols]


def write_rows(path: Path, size: int, strips: list[NDArray[Any]], **options: Any) -> None:
    """Write a raster of some strips in turn."""
    bands, _, _ = strips[0].shape
    profile = {
        'driver': 'GTiff',
        'tiled': True,
        'blockxsize': 256,
        'blockysize': 256,
        'compress': 'deflate',
        'zlevel': 1,
    }
    profile |= {'width': size, 'height': size, 'count': bands, 'dtype': strips[0].dtype, 'bigtiff': 'yes', 'nodata': 0}
    with rasterio.open(path, 'w', **(profile | PLACE | options)) as dst:
        for number, row in enumerate(range(0, size, ROWS)):
            height = min(ROWS, size - row)
            dst.write(strips[number % len(strips)][:, :height], window=((row, row + height), (0, size)))
        if bands > 1:
            dst.descriptions = CATLC_BANDS


def write_files(folder: Path, size: int) -> list[Path]:
    """Image, labels and map."""
    rng = np.random.default_rng(0)
    image = folder / 'S2_BENCH_201804.tif'
    shape = len(CATLC_BANDS), ROWS, size
    write_rows(image, size, [squares(rng, 200, 3000, shape, 'uint16') for _ in range(3)], interleave='pixel')
    factors = [2**n for n in range(1, max(math.ceil(math.log2(size / 256)), 1) + 1)]
    with rasterio.open(image, 'r+') as dst:
        dst.build_overviews(factors, Resampling.average)
    paths = [image]
    for name in ('LC_2018_BENCH.tif', 'map.tif'):
        plain, path = folder / f'plain-{name}', folder / name
        write_rows(plain, size, [squares(rng, 1, 13, (1, ROWS, size), 'uint8') for _ in range(5)])
        rasterio.shutil.copy(plain, path, driver='COG', overview_resampling='mode', compress='deflate', bigtiff='yes')
        plain.unlink()
        paths.append(path)
    return paths


@contextmanager
def served(paths: list[Path]) -> Iterator[tuple[http.client.HTTPConnection, int]]:
    """`landcover view` on some files, and its process."""
    command = [sys.executable, '-m', 'landcover_plugin', 'view', *map(str, paths), '--port', '0', '--no-open']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        found = re.search(r'http://([\d.]+):(\d+)/', server.stdout.readline() if server.stdout else '')
        if not found:
            sys.exit('landcover view did not start')
        try:
            yield http.client.HTTPConnection(found[1], int(found[2]), timeout=60), server.pid
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)


def get(connection: http.client.HTTPConnection, url: str) -> tuple[float, bytes]:
    """Milliseconds, and what came."""
    begun = time.perf_counter()
    connection.request('GET', url)
    answer = connection.getresponse()
    content = answer.read()
    took = (time.perf_counter() - begun) * 1000
    if answer.status != 200:
        sys.exit(f'{url}: {content.decode()}')
    return took, content


def tiles(bounds: list[float], zoom: int, most: int, rng: np.random.Generator) -> list[morecantile.Tile]:
    """Different tiles of a zoom within bounds in degrees."""
    west, south, east, north = bounds
    first, last = MATRIX.tile(west, north, zoom), MATRIX.tile(east, south, zoom)
    rows, cols = last.y - first.y + 1, last.x - first.x + 1
    chosen = rng.choice(rows * cols, size=min(most, rows * cols), replace=False)
    return [morecantile.Tile(first.x + int(n) % cols, first.y + int(n) // cols, zoom) for n in chosen]


def cpu_of(process: int) -> float:
    """Milliseconds that a process has computed; not a number where the system does not tell."""
    try:
        fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf('SC_CLK_TCK')


def measure(connection: http.client.HTTPConnection, process: int, most: int) -> list[dict[str, Any]]:
    """Median and 95 % quantile of each layer at each zoom."""
    rng, rows = np.random.default_rng(1), []
    scene = json.loads(get(connection, '/api/scene')[1])
    for layer in scene['layers']:
        for zoom in range(max(layer['min_zoom'], 5), layer['max_zoom'] + 1):
            asked = tiles(layer['bounds'], zoom, most, rng)
            before = cpu_of(process)
            took = [get(connection, f'/api/tiles/{layer["id"]}/{t.z}/{t.x}/{t.y}.png')[0] for t in asked]
            if zoom == max(layer['min_zoom'], 5) and layer['kind'] == 'image':
                print(f'first tile of the image, with its percentiles: {took[0]:.0f} ms')
                took = took[1:] or [
                    get(connection, f'/api/tiles/{layer["id"]}/{zoom}/{asked[0].x}/{asked[0].y}.png')[0]
                ]
            rows.append({'layer': layer['kind'], 'zoom': zoom, 'tiles': len(took)})
            rows[-1]['cpu_ms'] = (cpu_of(process) - before) / len(asked)
            rows[-1] |= {'median_ms': float(np.median(took)), 'p95_ms': float(np.percentile(took, 95))}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, default=30_000)
    parser.add_argument('--tiles', type=int, default=40, help='of each layer at each zoom, at most')
    parser.add_argument('--json', type=Path)
    parser.add_argument(
        '--folder', type=Path, help='where a folder for the files is made (default: the system chooses)'
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        begun = time.monotonic()
        paths = write_files(Path(folder), args.size)
        gigabytes = sum(p.stat().st_size for p in paths) / 1e9
        print(f'{args.size:,} x {args.size:,} px, {gigabytes:.1f} GB, written in {time.monotonic() - begun:.0f} s')
        with served(paths) as (connection, process):
            rows = measure(connection, process, args.tiles)
    print(f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n')
    print(f'{"layer":<14}{"zoom":>5}{"tiles":>7}{"median ms":>11}{"95 % ms":>9}{"CPU ms":>8}')
    for row in rows:
        print(
            f'{row["layer"]:<14}{row["zoom"]:>5}{row["tiles"]:>7}{row["median_ms"]:>11.0f}{row["p95_ms"]:>9.0f}{row["cpu_ms"]:>8.0f}'
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
