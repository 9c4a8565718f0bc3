"""A long training whose memory is watched: does it stay as it was, with workers, checkpoints, validations and mixing?

Makes a small simulated scene, runs ``landcover fit`` on it for a stated time as a user would (two workers, CutMix,
pictures, the best, the last and the state of every minute kept), and samples the memory of the training and its
workers: RSS, what each process holds, memory that they share counted in each, so that its growth would be overstated.
(USS and PSS, which are listed, move by 60 to 130 MiB when another process that uses the same libraries begins or ends:
what was shared with it is counted differently then.) After the warm-up the slope is estimated with Theil and
Sen's method over medians of equal spans, since neighbouring samples are alike. The verdict is about the upper end of
its interval, so that a run too short to tell is not called flat.

    python scripts/soak.py                        one hour
    python scripts/soak.py --minutes 5            a first look: the interval will be wide
"""

import argparse
import csv
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from bench_common import environment, table
from scipy.stats import theilslopes
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from tqdm import tqdm

from landcover_plugin.datasets.simulated import write_scene

#: Share of the time that is warm-up, equal spans of the rest, and level of the interval.
WARM_UP, SPANS, LEVEL = 0.2, 24, 0.95

MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """What the training held at one moment.

    Attributes:
        seconds: Since it began.
        rss: Memory of all its processes in bytes, shared memory counted in each.
        trainer_rss: That of the process that trains.
        uss: Memory of all its processes, without what is shared with any other process.
        pss: Likewise, what is shared divided among those that share it.
        files: Open files and sockets of all processes.
        processes: Their number.
        threads: Their threads.
    """

    seconds: float
    rss: int
    trainer_rss: int
    uss: int
    pss: int
    files: int
    processes: int
    threads: int


@dataclass(frozen=True)
class Trend:
    """How a number moved after the warm-up.

    Attributes:
        level: Median.
        slope: Change in an hour, with the ends of its interval.
    """

    level: float
    slope: float
    low: float
    high: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; returns 0 if everything stayed as it was, else 1."""
    args = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix='landcover-soak-') as temporary:
        root = Path(args.dir or temporary)
        write_scene(root / 'data', size=(320, 384), seed=1, label_gsd=2, overwrite=True)
        samples, code = watch(_command(root, args), args.minutes * 60, args.every)
        losses = _losses(root / 'runs')
        kept = sorted(path.name for path in (root / 'runs').rglob('*.ckpt'))
    samples = while_training(samples, 1 + 2 * args.workers)
    steady = samples[round(WARM_UP * len(samples)) :]
    if len(steady) < SPANS:
        print(f'the training ended with code {code} after {len(samples)} samples: too few to judge')
        return 1
    trends = {f.name: trend(steady, f.name) for f in fields(Sample) if f.name != 'seconds'}
    checks = _checks(trends, losses, code, args.bound * MIB)
    _show(samples, trends, losses, kept, checks)
    _keep(args, samples, trends, losses, checks)
    return int(not all(met for _, met in checks))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=60, help='of training (default: 60)')
    parser.add_argument('--every', type=float, default=2, help='seconds between samples (default: 2)')
    parser.add_argument('--workers', type=int, default=2, help='processes that read patches (default: 2)')
    parser.add_argument('--bound', type=float, default=20, help='growth that passes as none, MiB/h (default: 20)')
    parser.add_argument('--dir', help='keep scene and run there (default: a temporary folder, removed afterwards)')
    parser.add_argument('--csv', metavar='FILE', help='write the samples there')
    parser.add_argument('--json', metavar='FILE', help='write trends and verdicts there')
    return parser


def _command(root: Path, args: argparse.Namespace) -> list[str]:
    """A training as users run it, of a small network."""
    limit = timedelta(minutes=args.minutes)
    days, rest = limit.days, time.strftime('%H:%M:%S', time.gmtime(limit.seconds))
    return [
        sys.executable, '-m', 'landcover_plugin', 'fit', f'--data.root={root}/data', '--model.model=unet_scratch',
        '--model.backbone=plain16', '--model.weights=false', '--model.ema=0.999', '--data.patch_size=64',
        '--data.batch_size=8', '--data.length=320', f'--data.num_workers={args.workers}', '--data.mix=cutmix',
        '--trainer.accelerator=cpu', '--trainer.max_epochs=-1', f'--trainer.max_time={days:02d}:{rest}',
        '--trainer.enable_progress_bar=false', f'--trainer.default_root_dir={root}/runs', '--keep.minutes=1',
        '--early_stopping.patience=1000000000',
    ]  # fmt: skip


def watch(command: Sequence[str], seconds: float, every: float) -> tuple[list[Sample], int]:
    """Run a command and sample what it holds.

    Args:
        command: To run.
        seconds: How long it should take, for the progress bar.
        every: Seconds between samples.

    Returns:
        The samples, and the exit code.
    """
    started = time.monotonic()
    samples = []
    with subprocess.Popen(command) as running, tqdm(total=round(seconds), unit='s', disable=None) as bar:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            sample = _sample(process, time.monotonic() - started)
            if sample is not None:
                samples.append(sample)
            bar.update(round(time.monotonic() - started) - bar.n)
            time.sleep(every)
    return samples, running.returncode


def _sample(process: psutil.Process, seconds: float) -> Sample | None:
    """What a process and its children hold; None while one of them ends or begins."""
    try:
        all_of_it = [process, *process.children(recursive=True)]
        memory = [p.memory_full_info() for p in all_of_it]
        files = sum(p.num_fds() for p in all_of_it)
        threads = sum(p.num_threads() for p in all_of_it)
    except psutil.Error:
        return None
    rss, uss, pss = (sum(getattr(m, name) for m in memory) for name in ('rss', 'uss', 'pss'))
    return Sample(round(seconds, 2), rss, memory[0].rss, uss, pss, files, len(all_of_it), threads)


def while_training(samples: Sequence[Sample], processes: int) -> list[Sample]:
    """Samples from the first to the last at which a training had all its processes: without start and end.

    Args:
        samples: In order.
        processes: Trainer, and workers of training and validation.
    """
    full = [i for i, sample in enumerate(samples) if sample.processes >= processes]
    return list(samples[full[0] : full[-1] + 1]) if full else []


def trend(samples: Sequence[Sample], name: str) -> Trend:
    """Level and slope of a number, over the medians of equal spans of samples.

    Args:
        samples: In order, at least :data:`SPANS`.
        name: Of the field.

    Examples:
        >>> rising = [Sample(s, 100 + s, 0, 0, 0, 7, 3, 5) for s in range(240)]
        >>> trend(rising, 'rss')
        Trend(level=219.5, slope=3600.0, low=3600.0, high=3600.0)
        >>> trend(rising, 'files').slope
        0.0
    """
    values = np.array([getattr(s, name) for s in samples], dtype=float)
    hours = np.array([s.seconds for s in samples]) / 3600
    spans = np.array_split(np.arange(len(samples)), SPANS)
    found = theilslopes([np.median(values[i]) for i in spans], [hours[i].mean() for i in spans], LEVEL)
    slope, low, high = (round(float(v), 3) for v in (found[0], found[2], found[3]))
    return Trend(float(np.median(values)), slope, low, high)


def _losses(runs: Path) -> dict[str, list[float]]:
    """The losses that the run logged, in order."""
    (log,) = runs.rglob('events.out.tfevents.*')
    events = EventAccumulator(str(log.parent), size_guidance={SCALARS: 0}).Reload()
    return {name: [e.value for e in events.Scalars(name)] for name in ('train_loss_epoch', 'val_loss')}


def _checks(
    trends: dict[str, Trend], losses: dict[str, list[float]], code: int, bound: float
) -> list[tuple[str, bool]]:
    memory = trends['rss']
    finite = all(values and all(map(math.isfinite, values)) for values in losses.values())
    falls = losses['train_loss_epoch'][-1] < losses['train_loss_epoch'][0]
    words = 'below' if memory.high < bound else 'not shown to be below'
    return [
        ('the training ended by itself, with code 0', code == 0),
        (f'memory grows by {words} {bound / MIB:g} MiB in an hour ({LEVEL:.0%} interval)', memory.high < bound),
        *((f'the number of {name} stays as it was', abs(trends[name].slope) < 1) for name in ('files', 'processes')),
        ('every loss is finite, and that of training fell', finite and falls),
    ]


def _tenths(samples: Sequence[Sample]) -> Iterator[list[Any]]:
    """Rows of the table: medians of each tenth of the training, and the peak."""
    for tenth, part in enumerate(np.array_split(np.arange(len(samples)), 10)):
        inside = [samples[i] for i in part]
        rss, trainer, uss, pss = (
            float(np.median([getattr(s, name) for s in inside])) / MIB for name in ('rss', 'trainer_rss', 'uss', 'pss')
        )
        counts = (int(np.median([getattr(s, name) for s in inside])) for name in ('files', 'processes', 'threads'))
        yield [f'{10 * tenth}-{10 * tenth + 10} %', rss, max(s.rss for s in inside) / MIB, trainer, uss, pss, *counts]


def _show(
    samples: Sequence[Sample],
    trends: dict[str, Trend],
    losses: dict[str, list[float]],
    kept: Sequence[str],
    checks: Sequence[tuple[str, bool]],
) -> None:
    header = ['training', 'RSS, MiB', 'peak', 'trainer alone', 'USS', 'PSS', 'files', 'processes', 'threads']
    print(table(header, list(_tenths(samples))))
    epochs = len(losses['train_loss_epoch'])
    first, last = losses['train_loss_epoch'][0], losses['train_loss_epoch'][-1]
    print(f'{len(samples)} samples, {epochs} epochs, loss {first:.3f} to {last:.3f}; kept: {", ".join(kept)}')
    for name in ('rss', 'trainer_rss', 'uss', 'pss'):
        t = trends[name]
        slope, low, high = (v / MIB for v in (t.slope, t.low, t.high))
        print(f'{name} after the warm-up: {t.level / MIB:.1f} MiB, {slope:+.2f} MiB/h ({low:+.2f} to {high:+.2f})')
    print('\n'.join(f'{"pass" if met else "MISS"}  {text}' for text, met in checks))


def _keep(
    args: argparse.Namespace,
    samples: Sequence[Sample],
    trends: dict[str, Trend],
    losses: dict[str, list[float]],
    checks: Sequence[tuple[str, bool]],
) -> None:
    if args.csv:
        with Path(args.csv).open('w', encoding='utf-8', newline='') as file:
            writer = csv.DictWriter(file, [f.name for f in fields(Sample)])
            writer.writeheader()
            writer.writerows(asdict(s) for s in samples)
    if args.json:
        found = {
            'environment': environment(),
            'arguments': vars(args),
            'trends': {name: asdict(t) for name, t in trends.items()},
            'losses': losses,
            'checks': dict(checks),
        }
        Path(args.json).write_text(json.dumps(found, indent=1))


if __name__ == '__main__':
    sys.exit(main())
