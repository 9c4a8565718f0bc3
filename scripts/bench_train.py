"""What a training step costs: ours against the stock TorchGeo task, and what augmentation and scores add.

Arms take turns, round by round, on the same batches; a ratio is the median over rounds of ratios within a round. The
stock arm is TorchGeo's task in float32 with its own training metrics, as it runs out of the box; ours computes no
scores in training, and one confusion matrix in validation.

    python scripts/bench_train.py                                    U-Net on a ResNet-50, 12 patches of 256 px
    python scripts/bench_train.py --backbone resnet18 --patch-size 128 --batch-size 4     a first look
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_common import environment, table
from torch import Tensor
from torchgeo.tasks import SemanticSegmentation
from tqdm import tqdm

from landcover_plugin import LandCoverSegmentation
from landcover_plugin.datasets.simulated_spectra import BANDS
from landcover_plugin.legend import LEGEND, NODATA
from landcover_plugin.training.augmentation import BatchTransform, geometry_augmentations, light_augmentations

STOCK = 'stock, float32'

#: What a ratio should reach: speed of our arm over the stock one, and the largest shares of our step.
FASTER, AUGMENTATION, SCORES = 2.0, 0.10, 0.03

OURS, MATRIX = 'ours, bf16, channels last', 'our confusion matrix (validation only)'

Batch = dict[str, Tensor]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    batch = _batch(args.batch_size, args.patch_size)
    runs = _runs(args.model, args.backbone, batch)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():  # what the first step costs is not a step
        run()
    names = list(runs)
    for turn in tqdm(range(args.rounds), desc='rounds', disable=None, leave=False):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - started)
    _show(seconds, args)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='unet', help='network (default: unet); the stock arm is always a U-Net')
    parser.add_argument('--backbone', default='resnet50', help='encoder (default: resnet50)')
    parser.add_argument('--batch-size', type=int, default=12, help='patches (default: 12)')
    parser.add_argument('--patch-size', type=int, default=256, help='edge in pixels (default: 256)')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each arm (default: 5)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='(default: all)')
    parser.add_argument('--json', metavar='FILE', help='write the numbers there')
    return parser


def _batch(count: int, size: int) -> Batch:
    """Digital numbers, labels and validity as a loader gives them."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, size, size)
    return {
        'image': torch.randint(200, 4000, (count, len(BANDS), size, size), generator=generator).to(torch.uint16),
        'mask': torch.randint(0, LEGEND.num_classes, shape, generator=generator).to(torch.uint8),
        'valid': torch.ones(shape, dtype=torch.bool),
    }


def _runs(model: str, backbone: str, batch: Batch) -> dict[str, Callable[[], object]]:
    """What each arm does in its turn."""
    mean, std = torch.full((len(BANDS),), 0.2), torch.full((len(BANDS),), 0.1)
    plain = BatchTransform(mean, std, scale=10_000)
    light = light_augmentations(BANDS, brightness=0.1, contrast=0.1, noise=0.05, band_dropout=0.05)
    augment = BatchTransform(mean, std, geometry=geometry_augmentations(), light=light, scale=10_000)
    ready = plain(batch)
    stock = SemanticSegmentation(
        'unet', backbone, weights=None, in_channels=len(BANDS), num_classes=LEGEND.num_classes, ignore_index=NODATA
    )
    ours = {
        last: LandCoverSegmentation(model, backbone, weights=False, in_channels=len(BANDS), channels_last=last)
        for last in (False, True)
    }
    ours[True].setup('fit')
    logits = torch.randn(len(batch['mask']), LEGEND.num_classes, *batch['mask'].shape[1:])
    metrics = ours[True].val_matrix
    return {
        STOCK: _step(stock, ready, bf16=False),
        'ours, float32': _step(ours[False], ready, bf16=False),
        'ours, bf16': _step(ours[False], ready, bf16=True),
        OURS: _step(ours[True], ready, bf16=True),
        'augmentation': lambda: augment(batch),
        'normalisation alone': lambda: plain(batch),
        'stock training metrics': lambda: stock.train_metrics(logits, ready['mask']),
        MATRIX: lambda: metrics.update(logits.argmax(1), ready['mask']),
    }


def _step(task: Any, batch: Batch, *, bf16: bool) -> Callable[[], None]:
    """Forward, backward and a step of AdamW, without a trainer."""
    task.log = task.log_dict = lambda *args, **kwargs: None
    task.train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast('cpu', torch.bfloat16) if bf16 else contextlib.nullcontext():
            loss = task.training_step(batch, 0)
        loss.backward()
        optimizer.step()

    return run


def _show(seconds: dict[str, list[float]], args: argparse.Namespace) -> None:
    """Print the tables, and keep the numbers."""
    best = OURS
    median = {name: statistics.median(values) for name, values in seconds.items()}

    def ratio(over: str, under: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))

    rows = [
        (name, round(1000 * value, 1), round(ratio(STOCK, name), 2), round(ratio(name, best), 4))
        for name, value in median.items()
    ]
    print(f'{args.model} on {args.backbone}, {args.batch_size} patches of {args.patch_size} px, {args.threads} threads')
    print(table(['step', 'ms', 'x as fast as stock', 'share of our step'], rows))
    checks = [
        ('our step is >= 2 x as fast as the stock one', ratio(STOCK, best) >= FASTER),
        ('augmentation costs < 10 % of our step', ratio('augmentation', best) < AUGMENTATION),
        ('one confusion matrix costs < 3 % of our step', ratio(MATRIX, best) < SCORES),
    ]
    print('\n'.join(f'{"pass" if met else "MISS"}  {text}' for text, met in checks))
    if args.json:
        found = {'environment': environment(), 'arguments': vars(args), 'seconds': seconds}
        Path(args.json).write_text(json.dumps(found, indent=1))


if __name__ == '__main__':
    sys.exit(main())
