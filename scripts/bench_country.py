"""A label raster of a whole country through ``landcover prepare``: how long it takes, and how much memory.

Makes a label raster of 300,000 x 300,000 px (1 m) and a mosaic of one band on 30,000 x 30,000 px (10 m) from mirrored
copies of a small scene, about 2 GB of disk, prepares them in a process whose memory is watched, and compares random
windows with a majority by NumPy.

    python scripts/bench_country.py --dir DIR            the whole country
    python scripts/bench_country.py --dir DIR --size 8192    a first look
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from bench_common import FACTOR, Scene, environment, kept, make_scene, table
from bench_data import majority_reference
from rasterio.transform import from_origin
from rasterio.windows import Window
from tqdm import tqdm

#: Edge of the small scene, and of the blocks of the files, in pixels.
SMALL, BLOCK = 2048, 512

#: Windows that are compared with NumPy.
CHECKED = 200


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code, 1 where a window differs."""
    args = _parser().parse_args(argv)
    root = Path(args.dir)
    folder = root / f'country-{args.size}'
    small = make_scene(root / f'bench-{SMALL}px-0', SMALL, 0)
    kept(folder, 'country', {'version': 1, 'size': args.size}, lambda: _tile(small, folder / 'source', args.size))
    result: dict[str, Any] = {'environment': environment(), 'size': args.size, 'store': args.store}
    result |= _watched(folder, args.store)
    result['wrong_windows'] = _compare(folder, args.size)
    result['label_bytes'] = sum(p.stat().st_size for p in (folder / 'source').glob('LC_*'))
    rows = [(k, v) for k, v in result.items() if not isinstance(v, dict)]
    print(table(['what', 'value'], rows))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1))
    return int(result['wrong_windows'] > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dir', required=True, help='where the rasters are made and kept')
    parser.add_argument('--size', type=int, default=30_000, help='edge in pixels of 10 m (default: 30000)')
    parser.add_argument('--store', default='labels', choices=('labels', 'compact', 'fast'), help='(default: labels)')
    parser.add_argument('--json', metavar='FILE', help='write the numbers there')
    return parser


def _tile(small: Scene, folder: Path, size: int) -> list[Path]:
    """Mirrored copies of a scene side by side: label of 1 m and one band of 10 m, written block by block."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / small.image.name, folder / small.label.name]
    settings = [(1, {'dtype': 'uint16', 'predictor': 2}), (FACTOR, {'dtype': 'uint8'})]
    for source, path, (factor, kind) in zip((small.image, small.label), paths, settings, strict=True):
        with rasterio.open(source) as src:
            codes = src.read(1)
            colours = src.colormap(1) if factor == FACTOR else None
        whole = np.block([[codes, codes[:, ::-1]], [codes[::-1], codes[::-1, ::-1]]])
        period, side = len(whole), size * factor
        gsd = FACTOR / factor
        profile = {
            'driver': 'GTiff', 'count': 1, 'width': side, 'height': side, 'crs': 'EPSG:32631', 'tiled': True,
            'blockxsize': BLOCK, 'blockysize': BLOCK, 'bigtiff': 'yes', 'num_threads': 'all_cpus',
            'compress': 'zstd', 'zstd_level': 1, 'transform': from_origin(240000, 4780000, gsd, gsd), **kind,
        }  # fmt: skip
        with rasterio.open(path, 'w', **profile) as dst:
            dst.descriptions = ['B04' if factor == 1 else 'class']
            if colours:
                dst.write_colormap(1, colours)
            step = 10 * BLOCK
            starts = [(r, c) for r in range(0, side, step) for c in range(0, side, step)]
            for row, col in tqdm(starts, desc=path.name, unit='window', disable=None, leave=False):
                rows, cols = min(step, side - row), min(step, side - col)
                at = np.arange(row, row + rows) % period, np.arange(col, col + cols) % period
                dst.write(whole[np.ix_(*at)], 1, window=Window(col, row, cols, rows))
    return paths


def _watched(folder: Path, store: str) -> dict[str, Any]:
    """Run ``landcover prepare`` and look at its memory twice a second."""
    command = [sys.executable, '-m', 'landcover_plugin', 'prepare', str(folder / 'source'), '--store', store]
    command += ['--output', str(folder / 'store'), '--overwrite']
    if store == 'labels':
        command += ['--cell', '32']
    started, seen = time.monotonic(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            seen.append(_resident_mb(process.pid))
            time.sleep(0.5)
        text = process.stdout.read() if process.stdout else ''
    if process.returncode:
        raise SystemExit(text)
    seconds = time.monotonic() - started
    steady = [mb for mb in seen[len(seen) // 10 :] if mb] or [0.0]
    quarters = np.array_split(np.array(steady), 4)
    with rasterio.open(next((folder / 'source').glob('LC_*.tif'))) as src:
        pixels = src.width * src.height
    return {
        'seconds': round(seconds, 1),
        'label_mpx_per_second': round(pixels / seconds / 1e6),
        'peak_mb': round(max(seen)),
        'quarters': {f'{i + 1}': round(float(np.median(q))) for i, q in enumerate(quarters)},
        'median_mb_by_quarter': ' '.join(f'{np.median(q):.0f}' for q in quarters),
        'report': {'text': text},
    }


def _resident_mb(pid: int) -> float:
    """Resident memory of a process, with what it has mapped."""
    try:
        pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def _compare(folder: Path, size: int) -> int:
    """How many random windows of the store differ from a majority by NumPy."""
    rng = np.random.default_rng(0)
    wrong = 0
    with (
        rasterio.open(next((folder / 'source').glob('LC_*.tif'))) as fine,
        rasterio.open(next((folder / 'store').glob('LC_*.tif'))) as coarse,
    ):
        for row, col in rng.integers(0, size - 64, (CHECKED, 2)).tolist():
            codes = fine.read(1, window=Window(col * FACTOR, row * FACTOR, 64 * FACTOR, 64 * FACTOR))
            wrong += not np.array_equal(coarse.read(1, window=Window(col, row, 64, 64)), majority_reference(codes))
    return wrong


if __name__ == '__main__':
    sys.exit(main())
