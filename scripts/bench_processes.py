"""What a second process adds to a training: patches a second of ``landcover fit`` with 1 and 2 processes (DDP).

Arms take turns, round by round; each trains a few epochs as a user would, and the time between the ends of the first
and the last epoch is taken from its log, so that start-up does not count. A ratio is the median over rounds of ratios
within a round; efficiency is that ratio divided by the number of processes. Each process computes with one thread.

    python scripts/bench_processes.py                    3 rounds
    python scripts/bench_processes.py --rounds 1 --length 64     a first look
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench_common import environment, interleave, median_ratio, table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from landcover_plugin.datasets.simulated import write_scene

ONE = '1 process'


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    args = _parser().parse_args(argv)
    batch = args.batch_size
    arms = {
        ONE: (1, batch),
        '2 processes, same batch of all': (2, batch // 2),
        '2 processes, same batch each': (2, batch),
    }
    with tempfile.TemporaryDirectory(prefix='landcover-bench-') as folder:
        write_scene(Path(folder) / 'data', size=(320, 384), seed=1, label_gsd=10)
        runs = {
            name: lambda turn, devices=devices, size=size: rate(Path(folder), turn, devices, size, args)
            for name, (devices, size) in arms.items()
        }
        rates = interleave(runs, args.rounds, description='rounds')
    rows = []
    for name, (devices, size) in arms.items():
        ratio = median_ratio(rates, name, ONE) or 0.0
        rows.append((name, size, sorted(rates[name])[len(rates[name]) // 2], ratio, ratio / devices))
    print(
        f'{args.backbone}, patches of {args.patch_size} px, {len(os.sched_getaffinity(0))} cores, {args.rounds} rounds'
    )
    print(table(['arm', 'batch of a process', 'patches/s', 'x one process', 'efficiency'], rows))
    if args.json:
        found = {'environment': environment(), 'arguments': vars(args), 'rates': rates}
        Path(args.json).write_text(json.dumps(found, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backbone', default='resnet18', help='encoder of the U-Net (default: resnet18)')
    parser.add_argument('--batch-size', type=int, default=8, help='patches of one process (default: 8)')
    parser.add_argument('--patch-size', type=int, default=64, help='edge in pixels (default: 64)')
    parser.add_argument('--length', type=int, default=192, help='patches in an epoch (default: 192)')
    parser.add_argument('--epochs', type=int, default=4, help='of a run; the first is not timed (default: 4)')
    parser.add_argument('--rounds', type=int, default=3, help='turns of each arm (default: 3)')
    parser.add_argument('--json', metavar='FILE', help='write the numbers there')
    return parser


def rate(folder: Path, turn: int, devices: int, batch: int, args: argparse.Namespace) -> float:
    """Patches a second of one training, over all its processes.

    Args:
        folder: Holds the scene, and takes the run.
        turn: Number of the round.
        devices: Processes.
        batch: Patches in a batch of one process.
        args: Of the benchmark.
    """
    runs = folder / f'{turn}-{devices}-{batch}'
    command = [
        sys.executable, '-m', 'landcover_plugin', 'fit', f'--data.root={folder}/data', '--model.model=unet',
        f'--model.backbone={args.backbone}', '--model.weights=false', f'--data.patch_size={args.patch_size}',
        f'--data.batch_size={batch}', f'--data.length={args.length}', '--data.num_workers=0',
        '--trainer.accelerator=cpu', f'--trainer.max_epochs={args.epochs}', f'--trainer.devices={devices}',
        *(['--trainer.strategy=ddp'] if devices > 1 else []), '--trainer.enable_progress_bar=false',
        '--trainer.limit_val_batches=0', '--trainer.num_sanity_val_steps=0', '--early_stopping.monitor=train_loss',
        '--model.lr_schedule=cosine',
        '--checkpoint.monitor=null', '--checkpoint.save_last=false', f'--trainer.default_root_dir={runs}',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    if done.returncode:
        raise RuntimeError(f'the training of {devices} processes failed: {done.stderr[-2000:]}')
    (log,) = runs.rglob('events.out.tfevents.*')
    ends = [event.wall_time for event in EventAccumulator(str(log.parent)).Reload().Scalars('train_loss_epoch')]
    return args.length * (len(ends) - 1) / (ends[-1] - ends[0])


if __name__ == '__main__':
    sys.exit(main())
