#!/usr/bin/env python
"""What makes a map better: test-time augmentation, ensembles, temperature, smoothing, a minimum mapping unit."""

import argparse
import itertools
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from bench_accuracy import _difference_cell, _mean_sd, difference, markdown
from bench_common import environment
from numpy.typing import NDArray
from scipy import ndimage

from landcover_plugin import CataloniaDataModule
from landcover_plugin.grid import PixelWindow, taper
from landcover_plugin.legend import LEGEND, NODATA
from landcover_plugin.mapping.deciding import decide
from landcover_plugin.mapping.members import load_members
from landcover_plugin.mapping.mosaic import BlendedMosaic
from landcover_plugin.mapping.network import MappingNetwork, Member
from landcover_plugin.mapping.refinement import MajoritySmoothing, MinimumMappingUnit
from landcover_plugin.mapping.smoothing import BayesianSmoothing
from landcover_plugin.rasters.opening import close_rasters
from landcover_plugin.sampling.samplers import WindowSampler
from landcover_plugin.training.augmentation import BatchTransform
from landcover_plugin.training.batches import pad_and_stack
from landcover_plugin.training.calibration import CalibrationError, PixelSample, calibrate
from landcover_plugin.training.metrics import Scores
from landcover_plugin.training.task import read_checkpoint

log = logging.getLogger('bench_maps')

_DESCRIPTION = """\
What makes a map better, on test ground that no network has seen.

For each way to draw the blocks, networks are trained that differ in their seed; the first maps all of a small scene in
overlapping windows, plainly and with one thing more at a time. Each map is scored on the test pixels. The table tells
by how much it beats the plain one, as the mean of the differences on the same blocks with its 95 % interval by
Student's t. The temperature is fitted to the validation ground. The whole scene is held in memory.
"""

#: Windows that the network sees at a time.
_BATCH = 16

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]


class Ground(NamedTuple):
    """A scene in memory, as one split sees it.

    Attributes:
        images: Normalised images of each look, shape ``(1, C, height, width)``.
        valid: Which pixels each look measured, shape ``(height, width)``.
        truth: Codes of the test ground, 0 elsewhere, shape ``(height, width)``.
    """

    images: list[torch.Tensor]
    valid: list[NDArray[np.bool_]]
    truth: Codes


@dataclass(frozen=True)
class Arm:
    """One way to map.

    Args:
        passes: How the network sees the ground: key of the probabilities.
        soft: What happens to probabilities.
        hard: What happens to codes.
    """

    passes: str = 'plain'
    soft: Callable[[Floats, NDArray[np.bool_]], Floats] | None = None
    hard: Callable[[Codes], Codes] | None = None


class Found(NamedTuple):
    """Figures of one map: shares, but small regions per 1,000 px and mean negative log-likelihood."""

    mean_iou: float
    overall_accuracy: float
    small: float
    nll: float
    ece: float


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format='%(message)s', stream=sys.stderr)
    log.setLevel(logging.INFO)
    warnings.filterwarnings('ignore')
    arms, found, temperatures = _arms(args), {}, []
    for split in range(args.splits):
        paths = [_trained(args, split, member) for member in range(args.members)]
        found[split], temperature = _maps(args, paths, arms)
        temperatures.append(temperature)
        log.info('blocks %d: temperature %.2f; %s', split, temperature, found[split]['plain'])
    close_rasters()
    sys.stdout.write(_report(found, temperatures))
    if args.json:
        figures = {split: {name: f._asdict() for name, f in own.items()} for split, own in found.items()}
        record = {'environment': environment(), 'settings': vars(args), 'temperatures': temperatures, 'found': figures}
        args.json.write_text(json.dumps(record, indent=1, default=str) + '\n')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--data', default='data', metavar='DIR', help='folder of the rasters (default: data)')
    add('--config', default='configs/recommended/small_scene.yaml', metavar='YAML', help='of the networks')
    add('--override', nargs='*', default=[], metavar='KEY=VALUE', help='more settings, such as data.length=160')
    add('--splits', type=int, default=5, metavar='N', help='ways to draw the blocks (default: 5)')
    add('--members', type=int, default=3, metavar='N', help='networks of each (default: 3)')
    add('--window', type=int, default=64, metavar='N', help='windows in pixels, half of which overlap (default: 64)')
    add('--unit', type=int, default=5, metavar='N', help='minimum mapping unit in pixels (default: 5)')
    add('--dir', type=Path, default=Path('runs/maps'), metavar='DIR', help='keeps the networks (default: runs/maps)')
    add('--json', type=Path, metavar='FILE', help='write all numbers and the machine to this file')
    return parser


def _arms(args: argparse.Namespace) -> dict[str, Arm]:
    majority, unit = MajoritySmoothing(3), MinimumMappingUnit(args.unit)
    return {
        'plain': Arm(),
        'flips': Arm('flips'),
        'dihedral': Arm('dihedral'),
        'scales 0.75, 1, 1.25': Arm('scales'),
        f'ensemble of {args.members}': Arm('ensemble'),
        f'ensemble of {args.members}, dihedral': Arm('ensemble, dihedral'),
        'temperature': Arm('temperature'),
        'Bayesian smoothing': Arm(soft=BayesianSmoothing()),
        'Bayesian smoothing, 5 px, 10': Arm(soft=BayesianSmoothing(5, 10)),
        'temperature, Bayesian smoothing': Arm('temperature', soft=BayesianSmoothing()),
        'majority 3 px': Arm(hard=majority),
        f'mapping unit {args.unit} px': Arm(hard=unit),
        'dihedral, Bayesian, mapping unit': Arm('dihedral', BayesianSmoothing(), unit),
    }


def _networks(members: Sequence[Member], calibrated: Member) -> dict[str, MappingNetwork]:
    first = members[:1]
    return {
        'plain': MappingNetwork(first),
        'flips': MappingNetwork(first, tta='flips'),
        'dihedral': MappingNetwork(first, tta='dihedral'),
        'scales': MappingNetwork(first, scales=(0.75, 1, 1.25)),
        'ensemble': MappingNetwork(members),
        'ensemble, dihedral': MappingNetwork(members, tta='dihedral'),
        'temperature': MappingNetwork([calibrated]),
    }


def _trained(args: argparse.Namespace, split: int, member: int) -> Path:
    """The checkpoint of a network, trained by the command line unless an earlier benchmark kept it."""
    folder = args.dir / f'split-{split}' / f'member-{member}'
    path = folder / 'checkpoints' / 'best.ckpt'
    if not (folder / 'done').is_file():
        given = {
            'config': args.config, 'data.root': args.data, 'data.cache': args.dir / 'cache', 'data.split_seed': split,
            'seed_everything': member, 'trainer.default_root_dir': folder, 'trainer.logger': 'false',
            'trainer.enable_progress_bar': 'false',
        }  # fmt: skip
        command = [sys.executable, '-m', 'landcover_plugin', 'fit', *(f'--{k}={v}' for k, v in given.items())]
        command += [f'--{setting}' for setting in args.override]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env=os.environ)
        (folder / 'done').touch()
        log.info('trained %s', path)
    return path


def _maps(args: argparse.Namespace, paths: Sequence[Path], arms: Mapping[str, Arm]) -> tuple[dict[str, Found], float]:
    """Map with every arm on the blocks of one split."""
    checkpoint = read_checkpoint(paths[0])
    settings = {k: v for k, v in checkpoint['datamodule_hyper_parameters'].items() if not k.startswith('_')}
    data = CataloniaDataModule(**settings)
    data.load_state_dict(checkpoint['CataloniaDataModule'])
    data.setup('test')
    mean, std = data.normalisation()
    transform = BatchTransform(
        torch.tensor(mean),
        torch.tensor(std),
        scale=settings['reflectance_scale'],
        offset=settings['reflectance_offset'],
    )
    members = load_members(paths, channels=data.open_images().channels, mean=mean, std=std)
    temperature = _temperature(data, transform, members[0])
    networks = _networks(members, Member(members[0].network, temperature))
    ground = _ground(data, transform)
    mapped: dict[str, tuple[Floats, NDArray[np.bool_]]] = {}
    found = {}
    for name, arm in arms.items():
        if arm.passes not in mapped:
            mapped[arm.passes] = _probabilities(networks[arm.passes], ground, args.window)
        probabilities, covered = mapped[arm.passes]
        found[name] = _score(arm, probabilities, covered, ground.truth, args.unit)
    return found, temperature


def _temperature(data: CataloniaDataModule, transform: BatchTransform, member: Member) -> float:
    sample = PixelSample()
    with torch.inference_mode():
        for batch in data.val_dataloader():
            batch = transform(batch)
            sample.add(member.network(batch['image']), batch['mask'])
    return calibrate(*sample.pixels).temperature


def _ground(data: CataloniaDataModule, transform: BatchTransform) -> Ground:
    """The whole scene, and what is known of the test ground."""
    images = data.open_images()
    grid: Any = images.grid
    whole = WindowSampler(images, grid=grid, windows=[grid.full], looks=images.looks)
    batches = [transform(pad_and_stack([images[query]])) for query in whole]
    truth = np.zeros((grid.height, grid.width), dtype=np.uint8)
    loader: Any = data.test_dataloader()
    for query in loader.sampler:
        sample = loader.dataset[query]
        window = grid.nearest_window(query[0], query[1])
        codes = np.where(sample['valid'], sample['mask'], NODATA)
        rows, cols = window.slices_in(grid.full)
        truth[rows, cols] = codes[: window.height, : window.width]
    return Ground([b['image'] for b in batches], [b['valid'][0].numpy() for b in batches], truth)


def _probabilities(network: MappingNetwork, ground: Ground, size: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Blended probabilities of the whole scene; beyond its border windows see its mirror image."""
    height, width = ground.truth.shape
    rim, weights = size // 2, taper(size, size // 2)
    mosaic = BlendedMosaic(PixelWindow(0, 0, height, width), LEGEND.num_classes)
    with torch.inference_mode():
        for batch in itertools.batched(_windows(ground, size, rim), _BATCH):
            probabilities = network(torch.cat([image for _, image, _ in batch])).numpy()
            for (window, _, valid), own in zip(batch, probabilities, strict=True):
                mosaic.add(window, own, weights * valid)
    strips = [strip for _, strip in mosaic.flush()]
    return np.concatenate([s[0] for s in strips], axis=1), np.concatenate([s[1] for s in strips])


def _windows(ground: Ground, size: int, rim: int) -> Iterator[tuple[PixelWindow, torch.Tensor, NDArray[np.bool_]]]:
    height, width = ground.truth.shape
    beyond = ((rim, 2 * size), (rim, 2 * size))
    rows, cols = (
        np.pad(np.arange(n), reach, mode='symmetric') for n, reach in zip((height, width), beyond, strict=True)
    )
    for top in range(-rim, height, size - rim):
        for left in range(-rim, width, size - rim):
            r, c = (line[at + rim : at + rim + size] for line, at in ((rows, top), (cols, left)))
            for image, valid in zip(ground.images, ground.valid, strict=True):
                yield PixelWindow(top, left, size, size), image[:, :, r][:, :, :, c], valid[np.ix_(r, c)]


def _score(arm: Arm, probabilities: Floats, covered: NDArray[np.bool_], truth: Codes, unit: int) -> Found:
    if arm.soft is not None:
        probabilities = arm.soft(probabilities, covered)
    codes = decide(probabilities, covered.astype(np.float32), [])['classes'][0]
    if arm.hard is not None:
        codes = arm.hard(codes)
    labelled = (truth != NODATA) & covered
    size = LEGEND.num_classes
    counts = np.bincount(truth[labelled].astype(int) * size + codes[labelled], minlength=size**2)
    scores = Scores.from_confusion(counts.reshape(size, size))
    at = torch.from_numpy(probabilities[:, labelled].T.copy()), torch.from_numpy(truth[labelled].astype(np.int64))
    error = CalibrationError()
    error.update(*at)
    nll = -float(at[0].gather(1, at[1][:, None]).clamp_min(1e-12).log().mean())
    return Found(scores.mean_iou, scores.overall_accuracy, _small(codes, unit), nll, float(error.compute()))


def _small(codes: Codes, unit: int) -> float:
    """Regions of less than the mapping unit, for each 1,000 px of the map."""
    small = sum(int((np.bincount(ndimage.label(codes == c)[0].ravel())[1:] < unit).sum()) for c in LEGEND.codes)
    return 1000 * small / max(np.count_nonzero(codes), 1)


def _report(found: Mapping[int, Mapping[str, Found]], temperatures: Sequence[float]) -> str:
    splits = list(found)
    header = ['map', 'mIoU %', 'mIoU, points [95 %]', 'OA, points [95 %]', 'small regions per 1,000 px', 'NLL', 'ECE %']
    rows = []
    for name in found[splits[0]]:
        own = [found[s][name] for s in splits]
        plain = [found[s]['plain'] for s in splits]
        gains = [
            _difference_cell(difference([getattr(f, k) for f in own], [getattr(f, k) for f in plain]))
            for k in ('mean_iou', 'overall_accuracy')
        ]
        means = [f'{np.mean([getattr(f, k) for f in own]):.{d}f}' for k, d in (('small', 1), ('nll', 3))]
        shown = gains if name != 'plain' else ['', '']
        rows.append([name, _mean_sd([f.mean_iou for f in own]), *shown, *means, _mean_sd([f.ece for f in own])])
    drawn = ', '.join(f'{t:.2f}' for t in temperatures)
    sentence = (
        f'{len(splits)} ways to draw the blocks; gains over the plain map of the same blocks. Temperatures: {drawn}. '
        'NLL and ECE are of the probabilities before majority and mapping unit.'
    )
    return f'{markdown(header, rows)}\n\n{sentence}\n'


if __name__ == '__main__':
    start = time.perf_counter()
    code = main()
    log.info('%.0f s', time.perf_counter() - start)
    sys.exit(code)
