"""What mapping costs: forward passes with each engine, whole maps, the stock TorchGeo way, and memory against area.

Arms take turns, round by round; a ratio is the median over rounds of ratios within a round. Agreement is the share of
measured pixels that get the class that PyTorch in float32 gives them.

    python scripts/bench_predict.py                                    forward passes of a U-Net on a ResNet-50
    python scripts/bench_predict.py --model segformer_unet --backbone mit_b0 --patch-size 512
    python scripts/bench_predict.py --checkpoint best.ckpt --data data     a trained network on real windows
    python scripts/bench_predict.py --checkpoint best.ckpt --data data --maps --memory 512,1024,2048

Without a checkpoint weights are random and images invented: rates hold, and agreement is that of the worst case, in
which classes lie close together.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import torch
from bench_common import environment, interleave, median_ratio, table
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from shapely.geometry import box
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import GriddedPatchSampler
from torchgeo.tasks import SemanticSegmentation

from landcover_plugin import CataloniaDataModule, LandCoverSegmentation, cli
from landcover_plugin.datasets.simulated_spectra import BANDS
from landcover_plugin.errors import LandcoverError
from landcover_plugin.legend import LEGEND, NODATA
from landcover_plugin.mapping.engines import ENGINES, Engine, EngineName, build_engine
from landcover_plugin.mapping.engines.trials import seconds_of
from landcover_plugin.mapping.export.formats import probe
from landcover_plugin.mapping.network import MappingNetwork, Member
from landcover_plugin.models import BUILDERS
from landcover_plugin.models.outputs import predicted_codes
from landcover_plugin.training.task import read_checkpoint

REFERENCE: EngineName = 'torch'

STOCK, OURS, LIMIT = 'stock TorchGeo', 'landcover predict', 'forward passes alone'

#: Least agreement of a trained network.
AGREEMENT = 0.995

#: Least rate of a map, as a share of that of its forward passes alone, and as a multiple of the stock way's.
WHOLE, FASTER = 0.85, 8.0

#: Largest peak of memory at four times an area, as a multiple of that at the area.
MEMORY = 1.1


class Subject(NamedTuple):
    """What is measured: a network with probabilities, normalised windows, and which of their pixels were measured."""

    network: MappingNetwork
    images: Tensor
    valid: NDArray[np.bool_]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.maps or args.memory) and not (args.checkpoint and args.data):
        parser.error('--maps and --memory need --checkpoint and --data')
    found: dict[str, Any] = {'environment': environment(), 'arguments': vars(args)}
    subject = _trained(args) if args.checkpoint else _random(args)
    found['forward'] = forward(subject, args)
    if args.memory:
        found['memory'] = memory(args)
    if args.maps:
        found['maps'] = maps(subject, args.map_engine or found['forward']['best'], argparse.Namespace(**vars(args)))
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='unet', help='network without a checkpoint (default: unet)')
    parser.add_argument('--backbone', default='resnet50', help='its encoder (default: resnet50)')
    parser.add_argument('--checkpoint', metavar='CKPT', help='a trained network')
    parser.add_argument('--data', metavar='DIR', help='its rasters (default: those that it was trained on)')
    parser.add_argument('--patch-size', type=int, default=256, help='edge of windows in pixels (default: 256)')
    parser.add_argument('--windows', type=int, default=8, help='in a batch (default: 8)')
    parser.add_argument(
        '--engines', default=','.join(e for e in ENGINES if e != 'compile'), help='default: all but the compiler'
    )
    parser.add_argument('--rounds', type=int, default=5, help='turns of each arm (default: 5)')
    parser.add_argument('--maps', action='store_true', help='whole maps, ours and the stock way')
    parser.add_argument('--map-size', type=int, default=1024, help='edge of these maps in pixels (default: 1024)')
    parser.add_argument('--map-engine', choices=ENGINES, help='of ours (default: the fastest that agrees)')
    parser.add_argument('--wide', type=_sizes, default=[], metavar='PX,...', help='our maps with these windows, too')
    parser.add_argument('--memory', type=_sizes, metavar='PX,PX,...', help='peak memory of maps of these edges')
    parser.add_argument('--predict', nargs='*', default=[], metavar='KEY=VALUE', help='more for landcover predict')
    parser.add_argument('--json', metavar='FILE', help='write the numbers there')
    return parser


def _sizes(text: str) -> list[int]:
    return sorted(int(part) for part in text.split(','))


def _random(args: argparse.Namespace) -> Subject:
    """A network with random weights, and invented images."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {'in_channels': len(BANDS), 'num_classes': LEGEND.num_classes, 'pretrained': False}
    network = MappingNetwork([Member(BUILDERS[args.model](args.backbone, **settings))])
    images = probe(len(BANDS), args.patch_size, windows=args.windows)
    return Subject(network, images, np.ones((args.windows, args.patch_size, args.patch_size), bool))


def _trained(args: argparse.Namespace) -> Subject:
    """The network of a checkpoint, and windows spread over its data."""
    task = LandCoverSegmentation.load_from_checkpoint(args.checkpoint, map_location='cpu')
    data = _data(args)
    probe_ = data.windows(data.all_runs()).sample(args.windows)
    if probe_ is None:
        raise SystemExit(f'nothing was measured in {data.settings.root}')
    return Subject(MappingNetwork([Member(task.model)]), probe_['image'], probe_['valid'].numpy())


def _data(args: argparse.Namespace, **changed: Any) -> CataloniaDataModule:
    """The data of the checkpoint, opened for mapping; settings may differ."""
    checkpoint = read_checkpoint(args.checkpoint)
    settings = {k: v for k, v in checkpoint['datamodule_hyper_parameters'].items() if not k.startswith('_')}
    settings |= {'patch_size': args.patch_size, 'bbox': None, 'bbox_wgs84': None, 'overlap': 0, 'store': 'none'}
    settings |= {name: checkpoint['CataloniaDataModule'][name] for name in ('mean', 'std')}
    data = CataloniaDataModule(**(settings | changed | ({'root': args.data} if args.data else {})))
    data.setup('predict')
    return data


# Forward passes


def forward(subject: Subject, args: argparse.Namespace) -> dict[str, Any]:
    """Rates and agreement of the engines."""
    engines, missing = _build(subject, args)
    pixels = subject.valid.size / 1e6
    expected = predicted_codes(engines[REFERENCE](subject.images)).numpy()
    agreement = {
        name: float((predicted_codes(engine(subject.images)).numpy() == expected)[subject.valid].mean())
        for name, engine in engines.items()
    }
    runs: dict[str, Callable[[int], float]] = {
        name: lambda _, engine=engine: pixels / seconds_of(engine, subject.images) for name, engine in engines.items()
    }
    rates = interleave(runs, args.rounds, description='forward passes')
    for engine in engines.values():
        engine.close()
    ratio = {name: median_ratio(rates, name, REFERENCE) for name in engines}
    rows = [(name, statistics.median(rates[name]), ratio[name], f'{agreement[name]:.4f}') for name in engines]
    print(f'forward passes, {args.windows} windows of {args.patch_size} px')
    print(table(['engine', 'Mpx/s', 'x torch', 'agreement'], rows))
    print('\n'.join(f'{name}: {reason}' for name, reason in missing.items()))
    best = max((n for n in engines if agreement[n] >= AGREEMENT), key=lambda n: ratio[n] or 0)
    print(f'the fastest with an agreement of {AGREEMENT:.1%}: {best}')
    return {'rates': rates, 'median_ratio': ratio, 'agreement': agreement, 'missing': missing, 'best': best}


def _build(subject: Subject, args: argparse.Namespace) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines that can be had here, and why the others cannot."""
    engines: dict[str, Engine] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys((REFERENCE, *args.engines.split(','))):
        try:
            engines[name] = build_engine(name, subject.network, tuple(subject.images.shape), subject.images)
            engines[name](subject.images[:2])  # what the first pass costs is not a pass
        except LandcoverError as e:
            missing[name] = str(e)
    return engines, missing


# Whole maps


class Ours:
    """Maps of the command with windows of one size, and the forward passes that they take.

    Args:
        subject: The network.
        args: The arguments; ``data`` names a folder with one mosaic.
        bbox: What is mapped.
        folder: For the maps.
        engine: By name.
        patch_size: Edge of windows in pixels.
    """

    def __init__(
        self,
        subject: Subject,
        args: argparse.Namespace,
        bbox: Sequence[float],
        folder: Path,
        engine: EngineName,
        patch_size: int,
    ) -> None:
        self.args = argparse.Namespace(**{**vars(args), 'patch_size': patch_size, 'overlap': args.patch_size // 4})
        self.bbox, self.folder, self.engine = bbox, folder, engine
        data = _data(self.args, bbox=list(bbox), overlap=self.args.overlap)
        batches = data.windows(data.all_runs())
        self.windows = sum(1 for _ in batches.looks())
        self.pixels = args.map_size**2 / 1e6
        self.run = self.windows * patch_size**2 / args.map_size**2
        probe = batches.sample(args.windows)
        if probe is None:
            raise SystemExit(f'nothing was measured in {bbox}')
        self.images = probe['image']
        self.passes = build_engine(engine, subject.network, tuple(self.images.shape), self.images)
        self.maps: dict[str, NDArray[np.uint8]] = {}
        self.before: list[float] = []

    def limit(self, _: int) -> float:
        """Rate of a quarter of the forward passes of the map, nothing else, in Mpx of the map per second."""
        repeats, started = max(self.windows // (4 * len(self.images)), 1), time.perf_counter()
        pending = [self.passes.begin(self.images) for _ in range(repeats)]  # without a pause between them
        for wait in pending:
            wait()
        seconds = (time.perf_counter() - started) / repeats
        return self.pixels / (seconds * self.windows / len(self.images))

    def map(self, n: int, engine: EngineName | None = None) -> float:
        """Rate of a whole map in Mpx per second, from the first window to the joined file."""
        path, started = Path(self.folder, f'{self.args.patch_size}-{n}.tif'), time.perf_counter()
        if cli.main([*_predict(self.args, self.bbox, path), f'--output.engine={engine or self.engine}']):
            raise SystemExit('landcover predict failed')
        took = time.perf_counter() - started
        run = json.loads(path.with_suffix('.json').read_text())['run']
        seconds = run['seconds'] + run['seconds_joining']
        self.before.append(took - seconds)
        with rasterio.open(path) as src:
            self.maps[engine or self.engine] = src.read(1)
        return self.pixels / seconds

    def agreement(self, other: NDArray[np.uint8], margin: int = 0) -> float:
        """Share of the classes that are those of another map, some pixels from the border on."""
        inside = (slice(margin, -margin or None),) * 2
        codes = self.maps[self.engine][inside]
        return float((codes == other[inside])[codes != NODATA].mean())


def maps(subject: Subject, engine: EngineName, args: argparse.Namespace) -> dict[str, Any]:
    """Rates of whole maps in pixels of the map: ours by the command, its forward passes alone, the stock way."""
    overlap, found = args.patch_size // 4, dict[str, NDArray[np.uint8]]()
    with tempfile.TemporaryDirectory(prefix='bench-predict-') as folder:
        data = _first_season(args, Path(folder, 'season'))
        bbox = _bbox(data, args.map_size)
        sizes = [args.patch_size, *args.wide]
        ways = {size: Ours(subject, args, bbox, Path(folder), engine, size) for size in sizes}

        def stock(_: int) -> float:
            started = time.perf_counter()
            found[STOCK] = stock_map(subject.network.networks[0], data, bbox, args, overlap)
            return args.map_size**2 / 1e6 / (time.perf_counter() - started)

        runs: dict[str, Callable[[int], float]] = {STOCK: stock}
        for size, way in ways.items():
            way.map(-1, REFERENCE)
            runs |= {f'{LIMIT}, {size} px': way.limit, f'{OURS}, {size} px': way.map}
        rates = interleave(runs, args.rounds, description='maps')
        for way in ways.values():
            way.passes.close()
    print(f'maps of {args.map_size} x {args.map_size} px with {engine}, in which windows share {overlap} px')
    print(table(['arm', 'Mpx/s of map'], [(name, statistics.median(values)) for name, values in rates.items()]))
    told = {size: _judge(rates, way, found[STOCK], overlap) for size, way in ways.items()}
    return {'rates': rates, 'engine': engine, 'windows': told}


def _judge(rates: dict[str, list[float]], ours: Ours, stock: NDArray[np.uint8], overlap: int) -> dict[str, float]:
    """Say what was found of windows of one size, and whether it is enough."""
    size = ours.args.patch_size
    print(f'windows of {size} px: {ours.run:.2f} px are run for one of the map; before that (settings, checkpoint, '
          f'engine) {statistics.median(ours.before):.1f} s, not counted')  # fmt: skip
    whole, faster = (median_ratio(rates, f'{OURS}, {size} px', other) for other in (f'{LIMIT}, {size} px', STOCK))
    same = ours.agreement(ours.maps[REFERENCE])
    inside = ours.agreement(stock, overlap)  # at the border the stock way sees what lies outside as zeros
    for met, said in (
        (whole >= WHOLE, f'end to end {whole:.2f} of the forward passes alone, asked {WHOLE}'),
        (faster >= FASTER, f'{faster:.2f} x as fast as stock, asked {FASTER}'),
        (same >= AGREEMENT, f'{same:.2%} of the classes are those of {REFERENCE}, asked {AGREEMENT:.1%}'),
    ):
        print(f'{"pass" if met else "MISS"}  {said}')
    print(f'{inside:.2%} of the classes inside are those of the stock way')
    return {'of_forward': whole, 'x_stock': faster, 'agreement': same, 'agreement_stock': inside, 'run': ours.run}


def _first_season(args: argparse.Namespace, folder: Path) -> CataloniaDataModule:
    """One mosaic alone, so that both ways look once at each window; the arguments name its folder from now on."""
    first = Path(_data(args).open_images().files[0]).resolve()
    folder.mkdir()
    (folder / first.name).symlink_to(first)
    args.data = str(folder)
    return _data(args)


def _bbox(data: CataloniaDataModule, size: int) -> tuple[float, float, float, float]:
    """A square of pixels at the top left corner of the mosaics."""
    grid = data.open_images().grid
    if size > min(grid.height, grid.width):
        raise SystemExit(f'the mosaics are {grid.height} x {grid.width} px: choose a smaller size than {size}')
    xmin, _, _, ymax = grid.bounds()
    gsd = grid.transform.a
    return xmin, ymax - size * gsd, xmin + size * gsd, ymax


def _predict(args: argparse.Namespace, bbox: Sequence[float], path: Path) -> list[str]:
    """The command that maps a bbox."""
    return [
        'predict',
        f'--ckpt_path={args.checkpoint}',
        f'--data.root={args.data}',
        f'--data.bbox={list(bbox)}',
        f'--output.patch_size={args.patch_size}',
        f'--data.overlap={args.overlap}',
        f'--data.batch_size={args.windows}',
        f'--output.path={path}',
        '--trainer.accelerator=cpu',
        '--trainer.enable_progress_bar=false',
        *(f'--{setting}' for setting in args.predict),
    ]


class _StockTask(SemanticSegmentation):
    """TorchGeo's task around the network at hand."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__('unet', 'resnet18', weights=None, in_channels=len(BANDS), num_classes=LEGEND.num_classes)
        self.model = network


def stock_map(
    network: nn.Module,
    data: CataloniaDataModule,
    bbox: tuple[float, float, float, float],
    args: argparse.Namespace,
    overlap: int,
) -> NDArray[np.uint8]:
    """A map as TorchGeo's documentation makes it: gridded patches, ``trainer.predict``, stitched in memory."""
    mean, std = (torch.tensor(v)[:, None, None] for v in data.normalisation())
    scale = data.settings.reflectance_scale

    def normalise(sample: dict[str, Any]) -> dict[str, Any]:
        return sample | {'image': (sample['image'] / scale - mean) / std}

    class Images(RasterDataset):
        filename_glob = Path(data.open_images().files[0]).name

    xmin, ymin, xmax, ymax = bbox
    dataset = Images(str(Path(data.open_images().files[0]).parent), transforms=normalise)
    size = args.patch_size
    sampler = GriddedPatchSampler(dataset, size=size, stride=size - overlap, roi=box(*bbox))
    loader = DataLoader(dataset, batch_size=args.windows, sampler=sampler, collate_fn=stack_samples)
    trainer = Trainer(accelerator='cpu', logger=False, enable_progress_bar=False, enable_model_summary=False)
    batches = trainer.predict(_StockTask(network), loader)
    rows, cols = (round((high - low) / 10) for low, high in ((ymin, ymax), (xmin, xmax)))
    total = np.zeros((LEGEND.num_classes, rows + 2 * size, cols + 2 * size), np.float32)  # patches reach beyond the roi
    for batch in batches or []:
        for probabilities, place in zip(batch['probabilities'].numpy(), batch['bounds'], strict=True):
            col, row = size + round((float(place[0]) - xmin) / 10), size + round((ymax - float(place[4])) / 10)
            total[:, row : row + size, col : col + size] += probabilities
    inside = total[NODATA + 1 :, size : size + rows, size : size + cols]
    return (inside.argmax(0) + NODATA + 1).astype(np.uint8)


# Memory


def memory(args: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of the command for several areas, each in a process of its own."""
    data = _data(args)
    overlapping = argparse.Namespace(**vars(args), overlap=args.patch_size // 4)
    peaks: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix='bench-predict-') as folder:
        for size in args.memory:
            arguments = _predict(overlapping, _bbox(data, size), Path(folder, f'{size}.tif'))
            peaks[size] = _peak([sys.executable, '-m', 'landcover_plugin', *arguments])
    first, sizes = peaks[args.memory[0]], args.memory
    print('peak memory of landcover predict')
    print(table(['px', 'MB', 'x the first'], [(size, peak, peak / first) for size, peak in peaks.items()]))
    pairs = [(size, 2 * size) for size in sizes if 2 * size in sizes] or [(sizes[0], sizes[-1])]
    met = all(peaks[large] <= MEMORY * peaks[small] for small, large in pairs)
    told = ', '.join(f'{small} to {large} px: {peaks[large] / peaks[small]:.2f}' for small, large in pairs)
    print(f'{"pass" if met else "MISS"}  at most {MEMORY} x from one area to the next ({told})')
    return {'megabytes': peaks}


def _peak(command: Sequence[str]) -> float:
    """Largest resident memory of a process in MB."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f'landcover predict ended with {process.returncode}: {" ".join(command)}')
    return usage.ru_maxrss / 1024


if __name__ == '__main__':
    sys.exit(main())
