"""What benchmarks share: a scene that is quick to make, rounds that take turns, the page cache, tables."""

import ctypes
import functools
import itertools
import json
import mmap
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numba
import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import from_origin
from tqdm import tqdm

from landcover_plugin import CataloniaSentinel2, ICGCLandCover
from landcover_plugin.datasets.simulated import IMAGE_NAME, LABEL_NAME
from landcover_plugin.datasets.simulated_spectra import BANDS
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.legend import LEGEND, NODATA

#: Label pixels along one image pixel, and image pixels along a block of either file.
FACTOR, BLOCK = 10, 512

#: Raise it when the pixels or files change, so that older scenes are made anew.
SCENE_VERSION = 2

#: Share of the ground in each belt of the first field, and its class by the second field (split at its quantiles).
_BELTS = (
    (0.020, (0, 0, 0)),
    (0.050, (12, 12, 12)),
    (0.200, (4, 4, 5)),
    (0.350, (3, 3, 4)),
    (0.220, (1, 2, 7)),
    (0.100, (2, 1, 7)),
    (0.045, (6, 6, 8)),
    (0.0135, (9, 9, 8)),
    (0.0015, (10, 10, 10)),
)
_SPLITS = (0.5, 0.94)

#: Half the width of a road in image pixels, and its class.
_ROAD_REACH, _ROAD = 0.4, LEGEND.code('transport network')

_CODES = LEGEND.num_classes  # numba takes plain numbers

#: Standard deviations of texture and noise in digital numbers: chosen so that files compress as real ones do, 1.5 x.
_TEXTURE, _NOISE = 120, 35


@dataclass(frozen=True)
class Scene:
    """A scene of square image and label, made for timing alone.

    Args:
        folder: Where its files lie.
        size: Edge in image pixels.
        seed: Of everything drawn.
    """

    folder: Path
    size: int
    seed: int

    @property
    def image(self) -> Path:
        """10 bands, uint16, 10 m."""
        return self.folder / IMAGE_NAME.format(season='201804')

    @property
    def label(self) -> Path:
        """12 classes, uint8, 1 m."""
        return self.folder / LABEL_NAME

    @property
    def image_compression(self) -> float:
        """How many times smaller the image is than its pixels."""
        return self.size**2 * len(BANDS) * 2 / self.image.stat().st_size

    @property
    def label_compression(self) -> float:
        """How many times smaller the label is than its pixels."""
        return (self.size * FACTOR) ** 2 / self.label.stat().st_size

    def describe(self) -> dict[str, Any]:
        """What a reader needs to know to compare numbers."""
        return {
            'size_px': self.size,
            'seed': self.seed,
            'bands': len(BANDS),
            'image': f'uint16, zstd, predictor 2, pixel-interleaved, {BLOCK} px blocks',
            'label': f'uint8, 1 m, deflate, {BLOCK} px blocks, no pyramid',
            'image_bytes': self.image.stat().st_size,
            'label_bytes': self.label.stat().st_size,
            'image_compression': round(self.image_compression, 3),
            'label_compression': round(self.label_compression, 1),
        }


def kept(folder: Path, name: str, spec: Mapping[str, Any], make: Callable[[], Sequence[Path]]) -> None:
    """Make files unless an earlier run left them whole, of the same specification.

    Args:
        folder: Where the record ``name.json`` is kept.
        name: Of the record.
        spec: What decides the content of the files.
        make: Writes the files and returns them.
    """
    record = folder / f'{name}.json'
    try:
        saved = json.loads(record.read_text())
        if saved['spec'] == spec and all(Path(f).stat().st_size == n for f, n in saved['files'].items()):
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass
    folder.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    files = {str(f): f.stat().st_size for f in make()}
    record.write_text(json.dumps({'spec': dict(spec), 'files': files}))


def make_scene(root: Path, size: int, seed: int) -> Scene:
    """The scene of a size and seed below a folder, made now or by an earlier run."""
    scene = Scene(root / 'source', size, seed)
    spec = {'version': SCENE_VERSION, 'size': size, 'seed': seed}
    kept(root, 'source', spec, lambda: _write_scene(scene))
    return scene


def _write_scene(scene: Scene) -> list[Path]:
    """Write image and label, block by block: memory does not grow with the scene."""
    scene.folder.mkdir(parents=True, exist_ok=True)
    ground = _Ground(scene.size, scene.seed)
    common: dict[str, Any] = {'driver': 'GTiff', 'crs': 'EPSG:32631', 'tiled': True, 'bigtiff': 'if_safer'}
    common |= {'blockxsize': BLOCK, 'blockysize': BLOCK, 'num_threads': 'all_cpus'}
    layers: dict[Path, dict[str, Any]] = {
        scene.image: {
            'gsd': FACTOR,
            'count': len(BANDS),
            'dtype': 'uint16',
            'compress': 'zstd',
            'zstd_level': 3,
            'predictor': 2,
        },
        scene.label: {'gsd': 1, 'count': 1, 'dtype': 'uint8', 'compress': 'deflate'},
    }
    opened = []
    for path, layer in layers.items():
        gsd = layer.pop('gsd')
        side = scene.size * FACTOR // gsd
        place = {'width': side, 'height': side, 'transform': from_origin(400000, 4600000, gsd, gsd)}
        opened.append(rasterio.open(path, 'w', **common, **place, **layer))
    image, label = opened
    with image, label:
        image.descriptions = BANDS
        label.write_colormap(1, LEGEND.colormap)
        starts = range(0, scene.size, BLOCK)
        blocks = [(row, col) for row in starts for col in starts]
        for row, col in tqdm(blocks, desc='scene', unit='block', disable=None, leave=False):
            rows, cols = (min(BLOCK, scene.size - start) for start in (row, col))
            bands, codes = ground.paint(row, col, rows, cols)
            image.write(bands, window=((row, row + rows), (col, col + cols)))
            fine = tuple((start * FACTOR, (start + n) * FACTOR) for start, n in ((row, rows), (col, cols)))
            label.write(codes, 1, window=fine)
    return [scene.image, scene.label]


class _Ground:
    """Invented ground: smooth noise cut into classes, with roads along the level lines of another noise."""

    def __init__(self, size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        octaves = {
            'belts': ((160, 1.0), (32, 0.35), (8, 0.08), (3, 0.03)),
            'splits': ((24, 1.0), (6, 0.4), (3, 0.1)),
            'roads': ((96, 1.0), (20, 0.15)),
            'texture': ((6, 1.0),),
        }
        self._seed = seed
        self._lattices = {
            name: [(spacing, amplitude * _lattice(rng, size, spacing)) for spacing, amplitude in parts]
            for name, parts in octaves.items()
        }
        self._spectra = rng.uniform(400, 3500, (LEGEND.num_classes, len(BANDS))).astype(np.float32)
        self._gains = rng.uniform(0.5, 1.5, (len(BANDS), 1, 1)).astype(np.float32)
        sample = np.linspace(0, size, 512)
        shares, classes = zip(*_BELTS, strict=True)
        self._belt_edges = np.quantile(self._field('belts', sample, sample), np.cumsum(shares)[:-1])
        self._split_edges = np.quantile(self._field('splits', sample, sample), _SPLITS)
        self._classes = np.array(classes, dtype=np.uint8)

    def paint(self, row: int, col: int, rows: int, cols: int) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """Bands ``(bands, rows, cols)`` and codes ``(rows * 10, cols * 10)`` of a window of image pixels."""
        y, x = row + np.arange(-1, rows + 2.0), col + np.arange(-1, cols + 2.0)
        belts, splits = (self._field(name, y[1:-1], x[1:-1]) for name in ('belts', 'splits'))
        roads = self._field('roads', y, x)
        slope = np.hypot(roads[2:, 1:-1] - roads[:-2, 1:-1], roads[1:-1, 2:] - roads[1:-1, :-2]) / 2
        distance = roads[1:-1, 1:-1] / np.maximum(slope, 1e-6)
        codes, shares = _draw(belts, splits, distance, self._belt_edges, self._split_edges, self._classes)
        bands = np.tensordot(self._spectra.T, shares, 1)
        bands += _TEXTURE * self._gains * self._field('texture', y[1:-2], x[1:-2])
        rng = np.random.default_rng([self._seed, row, col])
        bands += _NOISE * rng.standard_normal(bands.shape, dtype=np.float32)
        return np.maximum(bands, 1).astype(np.uint16), codes

    def _field(self, name: str, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float32]:
        """Smooth noise at the crossings of rows ``y`` and columns ``x``, in image pixels."""
        total = np.zeros((len(y), len(x)), dtype=np.float32)
        for spacing, lattice in self._lattices[name]:
            total += _between(_between(lattice, y / spacing).T, x / spacing).T
        return total


def _lattice(rng: np.random.Generator, size: int, spacing: int) -> NDArray[np.float32]:
    """Random heights every ``spacing`` pixels, with a rim around the scene."""
    side = size // spacing + 5
    return rng.standard_normal((side, side), dtype=np.float32)


def _between(values: NDArray[np.float32], at: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of an array at fractional positions, counted from its second row, eased from one to the next."""
    below = np.floor(at).astype(np.int64)
    t = (at - below).astype(np.float32)[:, None]
    t = t * t * (3 - 2 * t)
    return values[below + 1] * (1 - t) + values[below + 2] * t


@numba.njit(cache=True, nogil=True)
def _draw(belts, splits, roads, belt_edges, split_edges, classes):  # type: ignore[no-untyped-def]
    """Codes at 1 m from fields given at the corners of image pixels, and the share of each class in those pixels."""
    rows, cols = belts.shape[0] - 1, belts.shape[1] - 1
    codes = np.empty((rows * FACTOR, cols * FACTOR), dtype=np.uint8)
    shares = np.zeros((_CODES, rows, cols), dtype=np.float32)
    for row in range(rows):
        for col in range(cols):
            rs, cs = slice(row, row + 2), slice(col, col + 2)
            b, s, d = belts[rs, cs], splits[rs, cs], roads[rs, cs]
            crossed = d.min() < _ROAD_REACH and d.max() > -_ROAD_REACH
            belt, split = _bin(belt_edges, b.min()), _bin(split_edges, s.min())
            if not crossed and belt == _bin(belt_edges, b.max()) and split == _bin(split_edges, s.max()):
                code = classes[belt, split]  # the corners agree, so all between them does
                codes[row * FACTOR : (row + 1) * FACTOR, col * FACTOR : (col + 1) * FACTOR] = code
                shares[code, row, col] = 1
                continue
            for r in range(FACTOR):
                for c in range(FACTOR):
                    v, u = (r + 0.5) / FACTOR, (c + 0.5) / FACTOR
                    code = classes[_bin(belt_edges, _inside(b, v, u)), _bin(split_edges, _inside(s, v, u))]
                    if crossed and abs(_inside(d, v, u)) < _ROAD_REACH and code != NODATA:
                        code = _ROAD
                    codes[row * FACTOR + r, col * FACTOR + c] = code
                    shares[code, row, col] += 1 / FACTOR**2
    return codes, shares


@numba.njit(cache=True, nogil=True)
def _bin(edges, value):  # type: ignore[no-untyped-def]
    """Number of edges at or below a value."""
    count = 0
    for edge in edges:
        count += edge <= value
    return count


@numba.njit(cache=True, nogil=True)
def _inside(corners, v, u):  # type: ignore[no-untyped-def]
    """The value at fractions ``v`` down and ``u`` right between four corners."""
    top = corners[0, 0] * (1 - u) + corners[0, 1] * u
    return top * (1 - v) + (corners[1, 0] * (1 - u) + corners[1, 1] * u) * v


# Other forms of the scene


def our_labels(images: CataloniaSentinel2, folder: Path) -> ICGCLandCover:
    """The labels below a folder on the grid of images, as our data module opens them."""
    labels = ICGCLandCover(folder, timeless=True)
    labels.crs, labels.res = images.crs, images.res
    return labels


class Flat:
    """The scene as flat files, the label aggregated to 10 m by exact majority."""

    def __init__(self, root: Path, scene: Scene) -> None:
        self._scene = scene
        self.image_file, self.label_file = root / 'flat' / 'image.u16', root / 'flat' / 'label.u8'
        kept(root, 'flat', scene.describe(), self._write)

    def image(self, mode: Any = 'r') -> NDArray[np.uint16]:
        """Shape ``(bands, H, W)``."""
        return np.memmap(self.image_file, np.uint16, mode, shape=(len(BANDS), self._scene.size, self._scene.size))

    def label(self, mode: Any = 'r') -> NDArray[np.uint8]:
        """Shape ``(H, W)``."""
        return np.memmap(self.label_file, np.uint8, mode, shape=(self._scene.size, self._scene.size))

    def _write(self) -> list[Path]:
        self.image_file.parent.mkdir(exist_ok=True)
        image, label, side = self.image('w+'), self.label('w+'), self._scene.size
        labels = our_labels(CataloniaSentinel2(self._scene.folder), self._scene.folder)
        starts = list(itertools.product(range(0, side, BLOCK), repeat=2))
        with rasterio.open(self._scene.image) as src:
            grid = PixelGrid.of(src)
            for row, col in tqdm(starts, desc='flat files', unit='block', disable=None, leave=False):
                window = PixelWindow(row, col, BLOCK, BLOCK).intersection(grid.full)
                where = window.slices_in(grid.full)
                image[(slice(None), *where)] = src.read(window=window.ranges)
                label[where] = labels[grid.slices(window)]['mask'].numpy()
        return [self.image_file, self.label_file]


def cut_tiles(root: Path, scene: Scene, flat: Flat, patch_size: int) -> Path:
    """Cut the scene into tiles: PNG of three bands in 8 bits with a mask, and GeoTIFF of all bands with a mask."""
    folder = root / f'tiles-{patch_size}px'
    kept(root, folder.name, scene.describe(), functools.partial(_write_tiles, folder, scene, flat, patch_size))
    return folder


def _write_tiles(folder: Path, scene: Scene, flat: Flat, patch_size: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    image, label = flat.image(), flat.label()
    starts = list(itertools.product(range(0, scene.size - patch_size + 1, patch_size), repeat=2))
    for row, col in tqdm(starts, desc='tiles', unit='tile', disable=None, leave=False):
        where = slice(row, row + patch_size), slice(col, col + patch_size)
        bands, codes = np.asarray(image[(slice(None), *where)]), np.asarray(label[where])
        Image.fromarray(np.moveaxis(eight_bit(bands), 0, -1)).save(folder / f'{row}_{col}.png')
        Image.fromarray(codes).save(folder / f'{row}_{col}.mask.png')
        _write_tile(folder / f'{row}_{col}.tif', bands)
        _write_tile(folder / f'{row}_{col}.mask.tif', codes[np.newaxis])
    return sorted(f for f in folder.iterdir() if f.suffix in ('.png', '.tif'))


def _write_tile(path: Path, array: NDArray[Any]) -> None:
    bands, height, width = array.shape
    profile = {'driver': 'GTiff', 'compress': 'zstd', 'zstd_level': 3, 'predictor': 2}
    with rasterio.open(path, 'w', count=bands, height=height, width=width, dtype=array.dtype, **profile) as dst:
        dst.write(array)


def eight_bit(bands: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Red, green and blue stretched from 0 to 0.3 of reflectance."""
    return (bands[[2, 1, 0]] * (255 / 3000)).clip(0, 255).astype(np.uint8)


# Time


def interleave(runs: Mapping[str, Callable[[int], float]], rounds: int, *, description: str) -> dict[str, list[float]]:
    """The rate of each run in each round; runs take turns, and each round begins with another one.

    Ratios within a round compare runs under the same load of the machine, so medians of them hold where
    absolute rates swing.

    Args:
        runs: By name: takes the number of the round, returns a rate.
        rounds: How many.
        description: For the progress bar on stderr.
    """
    names, rates = list(runs), {name: [] for name in runs}
    with tqdm(total=rounds * len(names), desc=description, unit='run', disable=None, leave=False) as bar:
        for n in range(rounds):
            first = n % len(names)
            for name in names[first:] + names[:first]:
                bar.set_postfix_str(name)
                rates[name].append(runs[name](n))
                bar.update()
    return rates


def median_ratio(rates: Mapping[str, Sequence[float]], name: str, base: str) -> float | None:
    """Median over rounds of the ratio of two runs within a round; None where the base was not run."""
    if name not in rates or base not in rates:
        return None
    return statistics.median(a / b for a, b in zip(rates[name], rates[base], strict=True))


def rate_of(step: Callable[[Any], Any], items: Sequence[Any], seconds: float) -> float:
    """Steps per second over the items, again and again in their order, until the time is up."""
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not count:
        step(items[count % len(items)])
        count += 1
    return count / elapsed


def rate_once(step: Callable[[Any], Any], items: Sequence[Any]) -> float:
    """Steps per second over the items, each once."""
    start = time.perf_counter()
    for item in items:
        step(item)
    return len(items) / (time.perf_counter() - start)


# Page cache


def warm_page_cache(paths: Sequence[Path]) -> None:
    """Read files once, so that they lie in memory as far as it holds them."""
    for path in paths:
        with path.open('rb') as file:
            while file.read(1 << 24):
                pass


def drop_from_page_cache(paths: Sequence[Path]) -> None:
    """Make the kernel forget the content of files; what another process has mapped stays."""
    _let_go_of_mapped_pages(paths)
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # only clean pages can be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _let_go_of_mapped_pages(paths: Sequence[Path]) -> None:
    """Take the pages of files out of this process's read-only maps, which would hold them in memory.

    The maps stay valid: a page that is touched again is read again.
    """
    libc, names = ctypes.CDLL(None, use_errno=True), {str(path.resolve()) for path in paths}
    for line in Path('/proc/self/maps').read_text().splitlines():
        addresses, permissions, *_, name = line.split(maxsplit=5)
        if permissions == 'r--s' and name in names:
            start, stop = (int(v, 16) for v in addresses.split('-'))
            if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED):
                raise OSError(ctypes.get_errno(), 'madvise failed', name)


def share_in_page_cache(paths: Sequence[Path]) -> float:
    """Share of the pages of files that are in memory, as ``mincore`` tells."""
    libc, resident, total = ctypes.CDLL(None, use_errno=True), 0, 0
    for path in paths:
        pages = np.memmap(path, dtype=np.uint8, mode='c')  # mincore answers for files that one could write
        state = np.zeros(-(-pages.size // mmap.PAGESIZE), dtype=np.uint8)
        address, length = ctypes.c_void_p(pages.ctypes.data), ctypes.c_size_t(pages.size)
        if libc.mincore(address, length, state.ctypes.data_as(ctypes.c_void_p)):
            raise OSError(ctypes.get_errno(), 'mincore failed', str(path))
        resident, total = resident + int((state & 1).sum()), total + state.size
    return resident / max(total, 1)


# Words


def environment() -> dict[str, Any]:
    """Versions and machine, for the JSON."""
    names = ('landcover-plugin', 'torchgeo', 'torch', 'rasterio', 'numpy', 'numba', 'pillow')
    return {
        'python': platform.python_version(),
        **{name: _version(name) for name in names},
        'gdal': rasterio.__gdal_version__,
        'gdal_cachemax': os.environ.get('GDAL_CACHEMAX', 'default'),
        'cpus': len(os.sched_getaffinity(0)),
        'machine': platform.machine(),
        'kernel': platform.release(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return 'missing'


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Text in aligned columns: words to the left, numbers to the right; None is a dash.

    Examples:
        >>> print(table(['arm', 'x'], [['stock', 1.0], ['memmap', 42.5]]))
        arm        x
        stock   1.00
        memmap  42.5
    """
    cells = [[*map(str, header)], *([_cell(v) for v in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    words = [all(isinstance(row[i], str) for row in rows) for i in range(len(header))]
    lines = (
        '  '.join(v.ljust(w) if left else v.rjust(w) for v, w, left in zip(row, widths, words, strict=True))
        for row in cells
    )
    return '\n'.join(line.rstrip() for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return '-'
    if isinstance(value, float):
        return f'{value:.2f}' if abs(value) < 10 else f'{value:.1f}' if abs(value) < 100 else f'{value:,.0f}'
    return str(value)
