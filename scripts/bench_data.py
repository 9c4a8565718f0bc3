#!/usr/bin/env python
"""How fast patches and labels are read: ours against stock TorchGeo, plain rasterio, NumPy and pre-cut tiles."""

import argparse
import contextlib
import inspect
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import torch
from bench_common import (
    BLOCK,
    FACTOR,
    Flat,
    Scene,
    cut_tiles,
    drop_from_page_cache,
    eight_bit,
    environment,
    interleave,
    make_scene,
    median_ratio,
    our_labels,
    rate_of,
    rate_once,
    share_in_page_cache,
    table,
    warm_page_cache,
)
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from torch import Tensor
from torchgeo.datasets import GeoDataset, RasterDataset
from tqdm import tqdm

from landcover_plugin import CataloniaDataModule, CataloniaSentinel2, ICGCLandCover
from landcover_plugin.datasets.patches import CataloniaPatches
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.legend import LEGEND, NODATA
from landcover_plugin.rasters.opening import close_rasters
from landcover_plugin.sampling.inventory import Inventory
from landcover_plugin.sampling.samplers import BalancedPatchSampler

Patch = tuple[Tensor, Tensor]

SECTIONS = ('patches', 'cold', 'locality', 'balance', 'labels')

#: Kinds of stores that `landcover prepare` makes.
STORES = ('fast', 'compact', 'labels')

#: Names of arms that ratios are taken to.
STOCK, RASTERIO, MEMMAP, MEMMAP_BATCHES = 'stock', 'rasterio', 'memmap', 'memmap batches'
NO_STORE = 'ours, no store'

#: GDAL's block cache in megabytes, for all arms: the scene must not fit in it.
CACHE_MB = 64

#: Pixels of patches' neighbourhoods in the local order.
NEIGHBOURHOOD = 1024


class Target(NamedTuple):
    """What a ratio should be: an arm of a section, to another one, at least so many times."""

    section: str
    arm: str
    base: str
    at_least: float


TARGETS = (
    Target('patches', 'ours, fast store', STOCK, 40),
    Target('patches', 'ours, fast store', MEMMAP, 0.7),
    Target('patches', 'batches, fast store', MEMMAP_BATCHES, 0.7),
    Target('patches', 'ours, compact store', STOCK, 8),
    Target('patches', NO_STORE, RASTERIO, 0.9),
    Target('patches', NO_STORE, STOCK, 2),
    Target('patches', 'stock on fast store', STOCK, 2.5),
    Target('patches', 'stock on compact store', STOCK, 2.5),
    Target('cold', 'ours, compact store', 'ours, fast store', 1),
    Target('labels', 'ours', 'decode alone', 0.5),
    Target('labels', 'ours', 'GDAL mode, decimated', 1),
    Target('balance', 'rarest class, balance 1', 'balance 0', 5),
)

_DESCRIPTION = """\
Measure, in one run, how fast patches are read by this package with and without a store, by stock TorchGeo, by plain
rasterio, from a NumPy memmap and from pre-cut tiles; and how fast 1 m labels become 10 m labels.

The scene is made for the purpose (invented ground, CatLC names: 10 bands of 10 m, labels of 1 m) and kept in --dir. All
arms are first checked to give the pixels of a plain read. Then they take turns, round by round, each round on windows
of its own; a ratio is the median over rounds of ratios within a round, so a busy machine moves rates but hardly
ratios. GDAL's cache is held at 64 MB and torch at one thread for all.

sections (default: all but --cold):
  --patches    patches per second, page cache warm
  --cold       the same after dropping the files from the page cache before each turn (Linux)
  --locality   order of patches: random against local, and how alike consecutive batches are
  --balance    how often the sampler shows each class, by its balance
  --labels     1 m label pixels per second, decoding included, one thread
"""

_EXAMPLE = """\
examples:
  python scripts/bench_data.py --size 1024 --rounds 3               a first look, in a minute
  python scripts/bench_data.py --dir /data/bench --json data.json   everything; the scene is kept and used again
  python scripts/bench_data.py --dir /data/bench --cold --size 16384

reading the table: 'x stock' 2.0 is twice as fast as stock TorchGeo. A target is met (pass) or missed (MISS). Arms that
need `landcover prepare` are left out where this release has no such command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    os.environ['GDAL_CACHEMAX'] = str(CACHE_MB)  # read when GDAL first reads a block
    warnings.filterwarnings('ignore', category=UserWarning)
    torch.manual_seed(args.seed)  # the data module's sampler follows it
    torch.set_num_threads(1)  # as in a loader's worker; a pool that waits for busy cores would hide what is measured
    sections = [s for s in SECTIONS if getattr(args, s)] or [s for s in SECTIONS if s != 'cold']
    with tempfile.TemporaryDirectory(prefix='bench-data-') as temporary:
        root = Path(args.dir or temporary) / f'bench-{args.size}px-{args.seed}'
        bench = Bench(root, args)
        result: dict[str, Any] = {'environment': environment(), 'settings': vars(args), 'scene': bench.scene.describe()}
        sys.stdout.write(_scene_sentence(bench.scene))
        result['prepare'] = bench.prepare_stores()
        for section in sections:
            result[section] = getattr(bench, section)()
        result['targets'] = _show_targets(result)
        close_rasters()
    if args.json:
        args.json.write_text(json.dumps(result, indent=1, default=str) + '\n')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--dir', type=Path, metavar='DIR', help='keeps the scene for the next run (default: a temporary folder)')
    add('--json', type=Path, metavar='FILE', help='write all numbers, versions and the machine to this file')
    add('--size', type=int, default=4096, metavar='N', help='edge of the scene in pixels of 10 m (default: 4096)')
    add('--patch-size', type=int, default=256, metavar='N', help='edge of a patch in pixels (default: 256)')
    add('--batch-size', type=int, default=12, metavar='N', help='patches in a batch (default: 12)')
    add('--rounds', type=int, default=7, metavar='N', help='rounds; odd numbers have a middle one (default: 7)')
    add('--seconds', type=float, default=1.0, metavar='S', help='time of an arm in a round (default: 1)')
    add('--seed', type=int, default=0, metavar='N', help='of scene and windows (default: 0)')
    chosen = parser.add_argument_group('sections')
    for section in SECTIONS:
        chosen.add_argument(f'--{section}', action='store_true', help=f'run the section {section}')
    return parser


# Arms: ways of reading a patch


class Arm:
    """A way of reading a patch: image ``(bands, H, W)`` and mask ``(H, W)`` of a window of the image grid.

    Args:
        name: In the table.
        files: What it reads.

    Attributes:
        scale: Digital numbers in one unit of a floating-point image.
        exact_mask: Whether the mask is the exact majority at 10 m.
        note: What the reader of the table must know.
    """

    scale, exact_mask, note = 1, True, ''

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        self.name, self.files = name, list(files)

    def read(self, window: PixelWindow) -> Patch:
        """Image and mask of a window."""
        raise NotImplementedError

    def seen(self, window: PixelWindow) -> PixelWindow:
        """The window that is really read."""
        return window

    def close(self) -> None:
        """Let go of files, so that the page cache can drop them."""

    def rate(self, windows: Sequence[PixelWindow], seconds: float) -> float:
        """Patches per second."""
        return rate_of(self.read, windows, seconds)


class Stock(Arm):
    """TorchGeo's RasterDataset, image & label, asked with the slices that its samplers yield."""

    def __init__(self, name: str, grid: PixelGrid, image_folder: Path, label_folder: Path) -> None:
        super().__init__(name, _rasters(image_folder, label_folder))
        self._grid = grid
        with contextlib.redirect_stdout(sys.stderr):  # torchgeo 0.10.1 prints that it converts the labels' pixel size
            images, labels = StockImages(image_folder), StockLabels(label_folder)
            self.exact_mask = labels.res == images.res
            self._dataset = images & labels
        self.note = '' if self.exact_mask else 'mask is the nearest 1 m pixel: only the image is compared'

    def read(self, window: PixelWindow) -> Patch:
        """Image and mask of a window."""
        sample = self._dataset[self._grid.slices(window)]
        return sample['image'], sample['mask']


class StockImages(RasterDataset):
    """As users of TorchGeo declare it."""

    filename_glob = 'S2_*.tif'


class StockLabels(RasterDataset):
    """As users of TorchGeo declare it."""

    filename_glob = 'LC_*.tif'
    is_image = False


class PlainRasterio(Arm):
    """Open handles and windowed reads; the label at 1 m in full, or decimated by nearest."""

    exact_mask = False

    def __init__(self, name: str, scene: Scene, *, decimated: bool) -> None:
        super().__init__(name, [scene.image, scene.label])
        self._image, self._label = rasterio.open(scene.image), rasterio.open(scene.label)
        self._decimated = decimated
        self.note = 'mask is the nearest 1 m pixel' if decimated else 'mask is left at 1 m, decoded in full'

    def read(self, window: PixelWindow) -> Patch:
        """Image and mask of a window."""
        image = self._image.read(window=window.ranges)
        shape = (window.height, window.width) if self._decimated else None
        mask = self._label.read(1, window=window.scaled(FACTOR).ranges, out_shape=shape, resampling=Resampling.nearest)
        return torch.from_numpy(image), torch.from_numpy(mask)


class Ours(Arm):
    """What our data module reads for training: digital numbers and codes of a window."""

    def __init__(self, name: str, grid: PixelGrid, image_folder: Path, label_folder: Path) -> None:
        super().__init__(name, _rasters(image_folder, label_folder))
        self._grid = grid
        self.dataset = CataloniaPatches(CataloniaSentinel2(image_folder, raw=True), ICGCLandCover(label_folder))

    def read(self, window: PixelWindow) -> Patch:
        """Image and mask of a window."""
        sample = self.dataset[self._grid.slices(window)]
        return sample['image'], sample['mask']

    def close(self) -> None:
        """Close this thread's handles."""
        close_rasters()


class OurSamples(Arm):
    """Our public datasets, indexed with slices: samples as TorchGeo defines them."""

    scale = 10_000
    note = 'reflectance in float32, codes in int64, with bounds and transform'

    def __init__(self, name: str, grid: PixelGrid, image_folder: Path, label_folder: Path) -> None:
        super().__init__(name, _rasters(image_folder, label_folder))
        self._grid = grid
        self.dataset: GeoDataset = CataloniaSentinel2(image_folder) & ICGCLandCover(label_folder)

    def read(self, window: PixelWindow) -> Patch:
        """Image and mask of a window."""
        sample = self.dataset[self._grid.slices(window)]
        return sample['image'], sample['mask']

    def close(self) -> None:
        """Close this thread's handles."""
        close_rasters()


class OurBatches(Arm):
    """The data module's training loader without workers: patches of whole batches per second."""

    note = 'windows are those of its sampler'

    def __init__(self, name: str, module: CataloniaDataModule, files: Sequence[Path]) -> None:
        super().__init__(name, files)
        self._module = module
        self._batches: Iterator[Any] | None = None

    def _endless(self) -> Iterator[Any]:
        loader = self._module.train_dataloader()
        for epoch in itertools.count():
            self._module.train_sampler.set_epoch(epoch)
            yield from loader

    def rate(self, windows: Sequence[PixelWindow], seconds: float) -> float:
        """Patches per second; the windows are the sampler's own."""
        if self._batches is None:
            self._batches = self._endless()
            next(self._batches)
        return rate_of(lambda _: next(self._batches), [None], seconds) * self._module.batch_size

    def close(self) -> None:
        """Close this thread's handles."""
        close_rasters()


class MemmapBatches(Arm):
    """The same number of patches from the memmap, stacked into batches."""

    note = 'patches are read, then stacked, as PyTorch collates them; no validity'

    def __init__(self, name: str, memmap: 'Memmap', size: int) -> None:
        super().__init__(name, memmap.files)
        self._memmap, self._size = memmap, size

    def rate(self, windows: Sequence[PixelWindow], seconds: float) -> float:
        """Patches per second."""
        starts = range(0, len(windows) - self._size, self._size)
        return rate_of(lambda at: self._batch(windows[at : at + self._size]), starts, seconds) * self._size

    def _batch(self, windows: Sequence[PixelWindow]) -> Patch:
        images, masks = zip(*map(self._memmap.read, windows), strict=True)
        return torch.stack(images), torch.stack(masks)


class Memmap(Arm):
    """Flat files: ``(bands, H, W)`` uint16 and ``(H, W)`` uint8, copied out."""

    note = 'no validity, which ours give too'

    def __init__(self, name: str, flat: Flat) -> None:
        super().__init__(name, [flat.image_file, flat.label_file])
        self._flat = flat
        self._maps: tuple[NDArray[np.uint16], NDArray[np.uint8]] | None = None

    def read(self, window: PixelWindow) -> Patch:
        """Image and mask of a window."""
        if self._maps is None:
            self._maps = self._flat.image(), self._flat.label()
        rows, cols = slice(window.row, window.row_stop), slice(window.col, window.col_stop)
        image, mask = self._maps
        return (
            torch.from_numpy(np.ascontiguousarray(image[:, rows, cols])),
            torch.from_numpy(np.ascontiguousarray(mask[rows, cols])),
        )

    def close(self) -> None:
        """Unmap the files."""
        self._maps = None


class MemmapSamples(Memmap):
    """The same as the float32 and int64 that TorchGeo's samples hold."""

    note = 'as float32 and int64, like a sample of TorchGeo, but unscaled, without validity, bounds and transform'

    def read(self, window: PixelWindow) -> Patch:
        """Image and mask of a window."""
        image, mask = super().read(window)
        return image.float(), mask.long()


class Tiles(Arm):
    """Pre-cut patches on a grid; each window stands for the tile under its corner."""

    note = 'tiles on a fixed grid: cannot give arbitrary windows'

    def __init__(self, name: str, folder: Path, patch_size: int, decode: Callable[[Path], Patch], suffix: str) -> None:
        super().__init__(name, sorted(folder.glob(f'*{suffix}')))
        self._folder, self._size, self._decode, self._suffix = folder, patch_size, decode, suffix

    def seen(self, window: PixelWindow) -> PixelWindow:
        """The tile under the window's corner."""
        row, col = (v // self._size * self._size for v in window[:2])
        return PixelWindow(row, col, self._size, self._size)

    def read(self, window: PixelWindow) -> Patch:
        """Image and mask of a window."""
        tile = self.seen(window)
        return self._decode(self._folder / f'{tile.row}_{tile.col}{self._suffix}')


def _decode_png(path: Path) -> Patch:
    image = np.moveaxis(np.asarray(Image.open(path)), -1, 0)
    mask = np.asarray(Image.open(path.with_suffix('.mask.png')))
    return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(mask.copy())


def _decode_geotiff(path: Path) -> Patch:
    with rasterio.open(path) as image, rasterio.open(path.with_suffix('.mask.tif')) as mask:
        return torch.from_numpy(image.read()), torch.from_numpy(mask.read(1))


def _rasters(image_folder: Path, label_folder: Path | None = None) -> list[Path]:
    """Mosaics anywhere below a folder, and labels below it or another one."""
    return sorted([*image_folder.rglob('S2_*.tif'), *(label_folder or image_folder).rglob('LC_*.tif')])


# The run


class Bench:
    """One run on one scene: each section is a method that prints its table and returns its numbers."""

    def __init__(self, root: Path, args: argparse.Namespace) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.args = root, args
        self.scene = make_scene(root, args.size, args.seed)
        with rasterio.open(self.scene.image) as src:
            self.grid = PixelGrid.of(src)
        self.flat = Flat(root, self.scene)
        self.stores: dict[str, Path] = {}

    def prepare_stores(self) -> dict[str, Any]:
        """Run ``landcover prepare`` for each kind of store, where there is such a command."""
        if not _has_prepare():
            sys.stdout.write('left out: all arms on a store, since `landcover --help` lists no command `prepare`\n\n')
            return {}
        measured = {}
        for kind in tqdm(STORES, desc='prepare', unit='store', disable=None, leave=False):
            folder = self.root / f'store-{kind}'
            shutil.rmtree(folder, ignore_errors=True)
            measured[kind] = _prepare(self.scene, kind, folder)
            self.stores[kind] = folder
        label_mpx = (self.scene.size * FACTOR) ** 2 / 1e6
        rows = [[kind, m['seconds'], label_mpx / m['seconds'], m['peak_mb'], m['mb']] for kind, m in measured.items()]
        _show('landcover prepare', ['store', 'seconds', 'label Mpx/s', 'peak MB', 'written MB'], rows)
        return measured

    def patches(self) -> dict[str, Any]:
        """Patches per second with a warm page cache."""
        with tqdm(total=1, desc='opening', disable=None, leave=False):
            arms = self._arms()
            self._verify(arms)
        runs = {arm.name: partial(self._turn, arm) for arm in arms}
        for arm in arms:
            warm_page_cache(arm.files)
            arm.rate(self._windows(0), 0)  # what the first patch costs is not a rate
        rates = interleave(runs, self.args.rounds, description='patches')
        self._close(arms)
        title = f'patches of {self.args.patch_size} px, 10 bands + label at 10 m, page cache warm'
        return _show_rates(
            'patches', title, rates, [STOCK, RASTERIO, MEMMAP, MEMMAP_BATCHES], {a.name: a.note for a in arms}
        )

    def cold(self) -> dict[str, Any]:
        """Patches per second from files that were dropped from the page cache before each turn."""
        arms = [*self._ours(), Memmap(MEMMAP, self.flat)]
        shares: dict[str, list[float]] = {arm.name: [] for arm in arms}
        count = max((self.args.size // self.args.patch_size) ** 2 // 4, 1)  # more would find what others read

        def turn(arm: Arm, n: int) -> float:
            arm.close()
            drop_from_page_cache(arm.files)
            shares[arm.name].append(share_in_page_cache(arm.files))
            return rate_once(arm.read, self._windows(n, count))

        for arm in arms:
            arm.rate(self._windows(0), 0)
        rates = interleave({arm.name: partial(turn, arm) for arm in arms}, self.args.rounds, description='cold')
        self._close(arms)
        notes = {name: f'{max(found):.0%} of its pages were left in memory' for name, found in shares.items()}
        title = 'the same, files dropped from the page cache before each turn (a disk may still cache them itself)'
        return _show_rates('cold', title, rates, [NO_STORE, 'ours, fast store', MEMMAP], notes)

    def locality(self) -> dict[str, Any]:
        """Rates in random and in local order, and how alike consecutive batches are in both."""
        orders = {'random': {'neighbourhood': None}, 'local': {'neighbourhood': NEIGHBOURHOOD}}
        arms = [arm for arm in self._ours() if arm.name != 'ours, fast store']
        inventory = self._inventory()
        length = self.args.batch_size * 200
        windows = {}
        for order, options in orders.items():
            sampler = self._sampler(inventory, length=length, group=self.args.batch_size, **options)
            windows[order] = [w for w, _ in sampler.windows()]
        runs = {
            f'{arm.name}, {order} order': partial(self._local_turn, arm, windows[order])
            for arm in arms
            for order in orders
        }
        rates = interleave(runs, self.args.rounds, description='locality')
        self._close(arms)
        found = _show_rates('locality', 'order of patches', rates, [f'{arm.name}, random order' for arm in arms], {})
        alike = {order: self._likeness(given) for order, given in windows.items()}
        rows = [[order, *values.values()] for order, values in alike.items()]
        header = ['order', 'consecutive batches', 'patches within a batch']
        _show('cosine similarity of class histograms (1 is alike)', header, rows)
        return found | {'similarity': alike}

    def balance(self) -> dict[str, Any]:
        """Share of each class among the pixels that the sampler shows, by its balance."""
        inventory, strengths = self._inventory(), (0.0, 0.5, 1.0)
        shares = {b: self._shares(self._sampler(inventory, length=2000, balance=b)) for b in strengths}
        scene = inventory.class_counts().astype(float)
        scene[NODATA] = 0
        scene /= scene.sum()
        present = sorted((c for c in LEGEND.codes if scene[c] > 0), key=lambda c: scene[c])
        rows = [
            [LEGEND[c].name, f'{scene[c]:.3%}', *(f'{shares[b][c]:.3%}' for b in strengths), _ratio(shares, c)]
            for c in present
        ]
        header = ['class', 'scene', *(f'balance {b:g}' for b in strengths), '1 over 0']
        _show('share among labelled pixels of sampled patches, rarest class first', header, rows)
        return {
            'scene': scene.tolist(),
            'sampled': {f'{b:g}': s.tolist() for b, s in shares.items()},
            'median': {'rarest class, balance 1': {'balance 0': _ratio(shares, present[0])}},
        }

    def labels(self) -> dict[str, Any]:
        """1 m label pixels per second on one thread, with decoding, in windows on block edges."""
        side = min(self.scene.size, 1024 if self.scene.size >= 2048 else BLOCK)
        arms, close = _label_arms(self.scene, self.grid)
        agreement = _check_labels(arms, PixelWindow(0, 0, min(side, 256), min(side, 256)))
        starts = list(itertools.product(range(0, self.scene.size - side + 1, BLOCK), repeat=2))
        million = (side * FACTOR) ** 2 / 1e6

        def turn(read: Callable[[PixelWindow], Any], n: int) -> float:
            order = np.random.default_rng([self.args.seed, n]).permutation(len(starts))
            windows = [PixelWindow(*starts[i], side, side) for i in order]
            return million * rate_of(read, windows, self.args.seconds)

        runs = {name: partial(turn, read) for name, read in arms.items()}
        rates = interleave(runs, self.args.rounds, description='labels')
        close()
        title = f'labels from 1 m to 10 m, one thread, windows of {side * FACTOR:,} px: million 1 m pixels per second'
        notes = {name: f'{share:.2%} of pixels as the exact majority' for name, share in agreement.items()}
        found = _show_rates('labels', title, rates, ['decode alone', 'GDAL mode, decimated'], notes, unit='Mpx/s')
        return found | {'agreement': agreement}

    # What the sections are made of

    def _arms(self) -> list[Arm]:
        tiles = cut_tiles(self.root, self.scene, self.flat, self.args.patch_size)
        png = Tiles('png tiles', tiles, self.args.patch_size, _decode_png, '.png')
        png.note = f'3 bands in 8 bits, {png.note}'
        return [
            Stock(STOCK, self.grid, self.scene.folder, self.scene.folder),
            *(
                Stock(f'stock on {kind} store', self.grid, self._images_of(kind), folder)
                for kind, folder in self.stores.items()
            ),
            PlainRasterio(RASTERIO, self.scene, decimated=False),
            PlainRasterio('rasterio, label decimated', self.scene, decimated=True),
            *self._ours(),
            *self._our_samples(),
            *self._our_batches(),
            Memmap(MEMMAP, self.flat),
            MemmapBatches(MEMMAP_BATCHES, Memmap(MEMMAP, self.flat), self.args.batch_size),
            MemmapSamples('memmap, as samples', self.flat),
            png,
            Tiles('geotiff tiles', tiles, self.args.patch_size, _decode_geotiff, '.tif'),
        ]

    def _ours(self) -> list[Ours]:
        stores = [
            Ours(f'ours, {kind} store', self.grid, self._images_of(kind), folder)
            for kind, folder in self.stores.items()
        ]
        return [Ours(NO_STORE, self.grid, self.scene.folder, self.scene.folder), *stores]

    def _our_samples(self) -> list[OurSamples]:
        """Our datasets as other TorchGeo projects use them, on the source and on each store."""
        folders = [('no', self.scene.folder, self.scene.folder)]
        folders += [(kind, self._images_of(kind), folder) for kind, folder in self.stores.items()]
        return [OurSamples(f'samples, {kind} store', self.grid, images, labels) for kind, images, labels in folders]

    def _our_batches(self) -> Iterator[OurBatches]:
        """The data module's loader on the source and on each store."""
        yield OurBatches('batches, no store', self._module(), _rasters(self.scene.folder))
        if 'store' in inspect.signature(CataloniaDataModule.__init__).parameters:
            for kind, folder in self.stores.items():
                files = _rasters(self._images_of(kind), folder)
                yield OurBatches(f'batches, {kind} store', self._module(store=str(folder)), files)

    def _module(self, **options: Any) -> CataloniaDataModule:
        """Our data module without workers."""
        return CataloniaDataModule(
            root=str(self.scene.folder),
            patch_size=self.args.patch_size,
            batch_size=self.args.batch_size,
            length=100 * self.args.batch_size,
            num_workers=0,
            cache=str(self.root / 'cache'),
            **options,
        )

    def _images_of(self, kind: str) -> Path:
        """Where the images are that go with a store: in it, or at the source if it holds only labels."""
        return self.scene.folder if kind == 'labels' else self.stores[kind]

    def _windows(self, n: int, count: int = 2048) -> list[PixelWindow]:
        """Windows of a round, anywhere in the scene."""
        size = self.args.patch_size
        corners = np.random.default_rng([self.args.seed, n]).integers(self.scene.size - size + 1, size=(count, 2))
        return [PixelWindow(int(row), int(col), size, size) for row, col in corners]

    def _turn(self, arm: Arm, n: int) -> float:
        return arm.rate(self._windows(n), self.args.seconds)

    def _local_turn(self, arm: Arm, windows: Sequence[PixelWindow], n: int) -> float:
        """A stretch of the order, another one each round."""
        start = n * len(windows) // self.args.rounds
        return arm.rate([*windows[start:], *windows[:start]], self.args.seconds)

    def _close(self, arms: Sequence[Arm]) -> None:
        for arm in arms:
            arm.close()

    def _verify(self, arms: Sequence[Arm]) -> None:
        """Compare each arm with a plain read of both files and a majority by NumPy.

        Raises:
            SystemExit: If an arm gives other pixels: timing it would mean nothing.
        """
        with rasterio.open(self.scene.image) as image, rasterio.open(self.scene.label) as label:
            for arm, window in itertools.product(arms, self._windows(0, count=4)):
                if isinstance(arm, OurBatches | MemmapBatches):
                    continue
                seen = arm.seen(window)
                bands, fine = image.read(window=seen.ranges), label.read(1, window=seen.scaled(FACTOR).ranges)
                if not _same_pixels(arm, arm.read(window), bands, majority_reference(fine)):
                    raise SystemExit(f'{arm.name} gives other pixels than a plain read at {tuple(seen)}')
        left_out = [arm.name for arm in arms if not arm.exact_mask]
        sys.stdout.write(
            'checked: all arms give the pixels of a plain read on 4 windows, and masks the majority by NumPy '
            f'(only images: {", ".join(left_out)}; three bands in 8 bits: png tiles)\n\n'
        )

    def _inventory(self) -> Inventory:
        return self._module().inventory()

    def _sampler(self, inventory: Inventory, **options: Any) -> BalancedPatchSampler:
        dataset = CataloniaSentinel2(self.scene.folder)
        given = {'patch_sizes': self.args.patch_size, 'seed': self.args.seed} | options
        return BalancedPatchSampler(dataset, inventory=inventory, **given)

    def _histograms(self, windows: Sequence[PixelWindow]) -> NDArray[np.float64]:
        """Pixels of each class in each window, shape ``(windows, classes)``, without no data."""
        label, n = self.flat.label(), LEGEND.num_classes
        return np.array([
            np.bincount(label[w.row : w.row_stop, w.col : w.col_stop].ravel(), minlength=n)[NODATA + 1 :]
            for w in windows
        ]).astype(np.float64)  # fmt: skip

    def _shares(self, sampler: BalancedPatchSampler) -> NDArray[np.float64]:
        """Share of each code among the labelled pixels of an epoch."""
        counts = self._histograms([w for w, _ in sampler.windows()]).sum(0)
        return np.concatenate([[0.0], counts / counts.sum()])

    def _likeness(self, windows: Sequence[PixelWindow]) -> dict[str, float]:
        """Mean cosine similarity of class histograms: of consecutive batches, and of patches of one batch."""
        size = self.args.batch_size
        patches = self._histograms(windows[: len(windows) // size * size]).reshape(-1, size, len(LEGEND.codes))
        batches = _unit(patches.sum(1))
        unit = _unit(patches)
        pairs = (unit @ unit.swapaxes(1, 2)).sum((1, 2)) - size
        return {
            'consecutive': float((batches[1:] * batches[:-1]).sum(-1).mean()),
            'within': float(pairs.mean() / max(size * (size - 1), 1)),
        }


def _same_pixels(arm: Arm, patch: Patch, bands: NDArray[np.uint16], codes: NDArray[np.uint8]) -> bool:
    """Whether a patch holds the digital numbers and codes of a plain read."""
    image, mask = (part.numpy() for part in patch)
    if image.dtype.kind == 'f':
        image = np.rint(image.astype(np.float64) * arm.scale)
    expected = eight_bit(bands) if image.dtype == np.uint8 else bands
    return np.array_equal(image, expected) and (not arm.exact_mask or np.array_equal(mask, codes))


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _ratio(shares: Mapping[float, NDArray[np.float64]], code: int) -> float:
    """How many times more often a class is seen with balance 1 than with 0."""
    return float(shares[1.0][code] / max(shares[0.0][code], 1e-12))


# Labels


def _label_arms(
    scene: Scene, grid: PixelGrid
) -> tuple[dict[str, Callable[[PixelWindow], NDArray[np.uint8]]], Callable[[], None]]:
    """Ways of reading codes at 10 m from the 1 m label, and what closes its handles."""
    labels = our_labels(CataloniaSentinel2(scene.folder), scene.folder)
    src = rasterio.open(scene.label, OVERVIEW_LEVEL='NONE')
    vrt = WarpedVRT(
        src, crs=grid.crs, transform=grid.transform, height=grid.height, width=grid.width, resampling=Resampling.mode
    )

    def decode(window: PixelWindow) -> NDArray[np.uint8]:
        return src.read(1, window=window.scaled(FACTOR).ranges)

    def decimated(window: PixelWindow, resampling: Resampling) -> NDArray[np.uint8]:
        shape = window.height, window.width
        return src.read(1, window=window.scaled(FACTOR).ranges, out_shape=shape, resampling=resampling)

    def close() -> None:
        vrt.close()
        src.close()
        close_rasters()

    return {
        'decode alone': decode,
        'ours': lambda window: labels[grid.slices(window)]['mask'].numpy(),
        'GDAL mode, decimated': partial(decimated, resampling=Resampling.mode),
        'GDAL mode, WarpedVRT': lambda window: vrt.read(1, window=Window(*_col_row(window))),
        'GDAL nearest, decimated': partial(decimated, resampling=Resampling.nearest),
    }, close


def _col_row(window: PixelWindow) -> tuple[int, int, int, int]:
    return window.col, window.row, window.width, window.height


def _check_labels(
    arms: Mapping[str, Callable[[PixelWindow], NDArray[np.uint8]]], window: PixelWindow
) -> dict[str, float]:
    """Share of pixels at which each arm agrees with a majority by NumPy; ours must agree at all.

    Raises:
        SystemExit: If ours does not.
    """
    expected = majority_reference(arms['decode alone'](window))
    agreement = {
        name: float((read(window) == expected).mean()) for name, read in arms.items() if name != 'decode alone'
    }
    if agreement['ours'] < 1:
        raise SystemExit(f'our labels differ from a majority by NumPy: {agreement["ours"]:.4%} of pixels agree')
    return agreement


def majority_reference(fine: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Majority of blocks of label pixels by NumPy: a tie to the lower code, no data where under half is labelled."""
    rows, cols = (n // FACTOR for n in fine.shape)
    blocks = fine.reshape(rows, FACTOR, cols, FACTOR)
    counts = np.stack([(blocks == code).sum((1, 3), dtype=np.int16) for code in LEGEND.codes])
    return np.where(2 * counts.sum(0) >= FACTOR**2, counts.argmax(0) + 1, NODATA).astype(np.uint8)


# The store


def _has_prepare() -> bool:
    """Whether this release's command line makes stores."""
    done = subprocess.run([*_LANDCOVER, '--help'], capture_output=True, text=True, check=True)
    return any(line.split()[:1] == ['prepare'] for line in done.stdout.splitlines())


_LANDCOVER = (sys.executable, '-m', 'landcover_plugin')

#: Runs a command and prints the peak of its memory in kB: a small parent, since a child starts with its parent's peak.
_PEAK = """\
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def _prepare(scene: Scene, kind: str, folder: Path) -> dict[str, float]:
    """Make a store: seconds, peak memory, and bytes written."""
    command = [*_LANDCOVER, 'prepare', str(scene.folder), '--store', kind, '--output', str(folder)]
    environment = {k: v for k, v in os.environ.items() if k != 'GDAL_CACHEMAX'}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, '-c', _PEAK, *command], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(f'landcover prepare --store {kind} failed:\n{done.stderr[-2000:]}')
    seconds = time.perf_counter() - start
    written = sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())
    return {'seconds': seconds, 'peak_mb': int(done.stdout.split()[-1]) / 1024, 'mb': written / 1e6}


# Words


def _scene_sentence(scene: Scene) -> str:
    side, raw_mb = scene.size * FACTOR, scene.size**2 * 20 / 1e6
    small = (
        f'; it is SMALL for a cache of {CACHE_MB} MB, which flatters whatever decodes' if raw_mb < 4 * CACHE_MB else ''
    )
    return (
        f'scene: {scene.size:,} x {scene.size:,} px, 10 bands of uint16 ({raw_mb:,.0f} MB), compressed '
        f'{scene.image_compression:.2f} x; label of {side:,} x {side:,} px, compressed {scene.label_compression:.0f} x '
        f'(real labels less){small}\n\n'
    )


def _show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    sys.stdout.write(f'{title}\n{table(header, rows)}\n\n')
    sys.stdout.flush()


def _show_rates(
    section: str,
    title: str,
    rates: Mapping[str, Sequence[float]],
    bases: Sequence[str],
    notes: Mapping[str, str],
    unit: str = 'patches/s',
) -> dict[str, Any]:
    """Print median rates and ratios, with targets beside them, and return them for the JSON."""
    bases = [base for base in bases if base in rates]
    medians = {name: {base: median_ratio(rates, name, base) for base in bases} for name in rates}
    rows = [
        [name, statistics.median(rates[name]), *ratios.values(), _verdicts(section, name, ratios), notes.get(name, '')]
        for name, ratios in medians.items()
    ]
    _show(title, ['arm', unit, *(f'x {base}' for base in bases), 'targets', 'note'], rows)
    return {'rates': dict(rates), 'median_rate': {n: statistics.median(r) for n, r in rates.items()}, 'median': medians}


def _verdicts(section: str, arm: str, ratios: Mapping[str, float | None]) -> str:
    """The targets of an arm, each met or missed."""
    return ', '.join(
        f'{t.at_least:g} x {t.base}: {_verdict(t, ratios.get(t.base))}'
        for t in TARGETS
        if (t.section, t.arm) == (section, arm)
    )


def _verdict(target: Target, ratio: float | None) -> str:
    if ratio is None:
        return 'not measured'
    return 'pass' if ratio >= target.at_least else 'MISS'


def _show_targets(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Print all targets of the sections that were run, and return them for the JSON."""
    found = []
    for target in TARGETS:
        if target.section in result:
            ratio = result[target.section]['median'].get(target.arm, {}).get(target.base)
            found.append(target._asdict() | {'ratio': ratio, 'verdict': _verdict(target, ratio)})
    rows = [[f['section'], f['arm'], f'{f["at_least"]:g} x {f["base"]}', f['ratio'], f['verdict']] for f in found]
    _show('targets', ['section', 'arm', 'at least', 'ratio', 'verdict'], rows)
    return found


if __name__ == '__main__':
    sys.exit(main())
