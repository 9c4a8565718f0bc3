"""``landcover tune``: search for better settings of a training."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LandcoverError

if TYPE_CHECKING:
    from ..search.strategy import Strategy

log = logging.getLogger(__name__)

_DESCRIPTION = """\
Search for better settings of landcover fit: Ray Tune runs trials, Optuna chooses what they try from what came of those
before, ASHA stops those that fall behind. Any setting can be searched, except those that decide which ground is scored.
The first trial takes the settings as they are, where the space holds them: what the search gains is seen at once.
A trial that fails is noted, the search goes on. All arguments that are not listed here go to landcover fit.
"""

_EPILOG = """\
The space is YAML, a line for each setting of landcover fit (landcover fit --help lists them):
  model.lr: {loguniform: [1.0e-4, 1.0e-2]}         between a and b, evenly on a logarithmic scale; above 0
  data.balance: {uniform: [0, 1]}                  between a and b
  data.batch_size: {choice: [4, 8, 16]}            one of these: numbers, texts, true, lists, mappings
  model.patience: {randint: [2, 6]}                whole numbers from a to b
  data.noise: {quniform: [0, 0.3, 0.05]}           from a to b in steps
  model: {choice: [{model: unet, backbone: resnet18}, {model: segformer, backbone: mit_b0}]}    several at once

files in --output DIR:
  best.yaml, best.ckpt              settings of the best trial for landcover fit --config, checkpoint for predict
  trials.csv                        each trial: settings, score, epochs, status, why it failed
  tune.json                         the same with how was searched, and what mattered
  parallel_coordinates.png, .svg    settings and scores of all trials
  importance.png, .svg              share of the variance of the scores that each setting explains (fANOVA)
  trials/ID/                        settings, messages and curves of a trial; only the best keeps its checkpoints
  tensorboard/                      tab HPARAMS of  tensorboard --logdir DIR
  ray/                              Ray's state, by which --resume goes on; as it is read by pickle, only trust your own

The best of many scores on the same validation ground is a little too good: judge best.ckpt by landcover test.
On a cluster (--ray.address) package, rasters and DIR must be at the same paths on all machines.

examples:
  landcover tune --config configs/unet.yaml --space configs/tune/unet.yaml --data.root DIR
  landcover tune --config configs/unet.yaml --space configs/tune/unet.yaml --data.root DIR --resume
  landcover tune --config configs/unet.yaml --space space.yaml --trials 50 --epochs 30 --ray.address auto --output DIR
  landcover fit --config runs/tune/best.yaml --seed_everything 1
"""


def main(argv: Sequence[str]) -> int:
    """Run the command on its arguments (without the command's name); returns the exit code.

    Raises:
        LandcoverError: If arguments, settings or space do not fit, Ray is missing, or no trial has a score.
    """
    args, rest = _parser().parse_known_args(argv)
    _check(args)
    os.environ |= {'RAY_USAGE_STATS_ENABLED': '0', 'RAY_CHDIR_TO_TRIAL_DIR': '0'}  # nothing is sent; paths stay
    os.environ['RAY_AIR_NEW_OUTPUT'] = '0'  # its tables: search/listening.py tells what there is to tell
    os.environ |= {'TUNE_DISABLE_AUTO_CALLBACK_LOGGERS': '1', 'TUNE_GLOBAL_CHECKPOINT_S': '5'}
    os.environ |= {'TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S': '0'}
    from ..mapping.engines.base import import_optional

    for package in ('ray.tune', 'optuna', 'sklearn'):
        import_optional(package, 'tune', '')
    from .tune_search import Search, check_settings

    arguments = [part for path in args.config for part in ('--config', path)] + rest
    space, settings = check_settings(arguments, args.space)
    strategy = _strategy(args, int(settings['trainer']['max_epochs'] or 0))
    search = Search(Path(args.output).resolve(), tuple(arguments), space, settings, strategy)
    search.open(resume=args.resume)
    return search.run(args.ray_address, args.parallel, args.cpus_per_trial, args.gpus_per_trial)


def _check(args: argparse.Namespace) -> None:
    """Refuse numbers that make no search."""
    for name in ('trials', 'parallel', 'cpus_per_trial', 'epochs', 'grace'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise LandcoverError(f'--{name.replace("_", "-")} must be at least 1, got {value}')
    if args.gpus_per_trial is not None and not 0 <= args.gpus_per_trial <= 1:
        raise LandcoverError(
            f'--gpus-per-trial must be in [0, 1], got {args.gpus_per_trial:g}: a trial trains on one device, or a part '
            'of one; more GPUs are used by more trials at once, --parallel'
        )
    for path in (*args.config, args.space):
        if not Path(path).is_file():
            raise LandcoverError(f'there is no file {path}')


def _strategy(args: argparse.Namespace, max_epochs: int) -> 'Strategy':
    from ..search.strategy import REDUCTION, Strategy

    epochs = args.epochs or max_epochs
    if epochs < 1:
        raise LandcoverError(f'trainer.max_epochs is {max_epochs}: say with --epochs how long a trial trains')
    grace = args.grace or max(1, epochs // REDUCTION**2)
    if grace > epochs:
        raise LandcoverError(f'--grace must be at most the {epochs} epochs of a trial, got {grace}')
    return Strategy(args.metric, args.mode, args.trials, epochs, grace, args.seed, args.searcher, args.scheduler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='landcover tune',
        allow_abbrev=False,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--config', action='append', required=True, metavar='YAML', help='settings of landcover fit; may be repeated')
    add('--space', required=True, metavar='YAML', help='settings that are searched, see below')
    add('--output', default='runs/tune', metavar='DIR', help='folder of the search (default: runs/tune)')
    add('--resume', action='store_true', help='go on with the search in --output after a kill, with the same command')
    add('--trials', type=int, default=20, metavar='N', help='number of trials (default: 20)')
    add('--epochs', type=int, metavar='N', help='epochs of a whole trial (default: trainer.max_epochs)')
    add('--metric', default='val_mIoU', help='score of a trial, the best over its epochs (default: val_mIoU)')
    add('--mode', default='max', choices=('max', 'min'), help='whether more of it is better, or less (default: max)')
    add('--searcher', default='optuna', choices=('optuna', 'random'), help="Optuna's TPE, or chance (default: optuna)")
    add('--scheduler', default='asha', choices=('asha', 'none'), help='whether trials are stopped (default: asha)')
    add('--grace', type=int, metavar='N', help='epochs that each trial gets before ASHA stops it (default: a ninth)')
    add('--seed', type=int, default=0, help='of what is drawn; trials train with seed_everything (default: 0)')
    add('--parallel', type=int, metavar='N', help='trials at once (default: one for each GPU, else 1)')
    add('--cpus-per-trial', type=int, metavar='N', help='processors of a trial (default: they are shared out)')
    add('--gpus-per-trial', type=float, metavar='X', help='GPUs of a trial, 0.5: two share one (default: 1 if any)')
    add('--ray.address', dest='ray_address', metavar='ADDRESS', help='of a Ray cluster (default: this machine)')
    return parser
