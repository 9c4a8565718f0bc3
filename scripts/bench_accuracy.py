#!/usr/bin/env python
"""How well networks and recipes map land cover: ours against the earlier pipeline, stock TorchGeo and single pixels."""

import argparse
import hashlib
import json
import logging
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import yaml
from bench_common import environment
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from numpy.typing import NDArray
from scipy.stats import t as student
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.utils.data import DataLoader
from torchgeo.tasks import SemanticSegmentation

from landcover_plugin import CataloniaDataModule, LandCoverSegmentation
from landcover_plugin.errors import LandcoverError
from landcover_plugin.legend import LEGEND, NODATA
from landcover_plugin.machine import processors
from landcover_plugin.models import BUILDERS, DEFAULT_BACKBONE
from landcover_plugin.models.outputs import predicted_codes
from landcover_plugin.rasters.opening import close_rasters
from landcover_plugin.sampling.samplers import CoverSampler
from landcover_plugin.training.augmentation import Batch, BatchTransform
from landcover_plugin.training.batches import pad_and_stack
from landcover_plugin.training.metrics import Scores

log = logging.getLogger('bench_accuracy')

_DESCRIPTION = """\
How well networks and recipes map land cover, on test ground that none of them has seen.

Every arm trains on the same blocks of ground, with the same seeds, on as many patches, and is scored on the same
test pixels: one confusion matrix over the whole test ground, each season on its own, as landcover test does;
classes that the test ground lacks are n/a. The reference are the labels as the first config reads them, whatever
another arm trains on. Beside the configs run:

  baseline   the recipe of the pipeline that this package replaces (--baseline): three bands, no augmentation,
             unweighted
  stock      torchgeo.tasks.SemanticSegmentation as it comes: U-Net with the backbone of the first config (resnet50
             where that is unet_scratch, or --stock-backbone), all bands, cross-entropy, its own optimiser; patches of
             our data module, drawn by area, normalised, not augmented
  forest     random forest on single pixels of the training blocks, normalised bands
  logistic   logistic regression on the same pixels

The first config is the recommended one: the second table tells by how much it beats each other arm, as the mean of
the differences of runs with the same seed and blocks, with its 95 % interval by Student's t. With one split the
interval covers chance in training, not chance in the choice of ground: --splits draws other blocks for each seed,
which on a small area matters more.
"""

_EXAMPLE = """\
example, on the country:
  python scripts/bench_accuracy.py --data data --configs configs/unet.yaml configs/segformer_unet.yaml \\
    --seeds 5 --patches 20000 --dir runs/accuracy
which ingredient of a recipe helps:
  python scripts/bench_accuracy.py --data data --configs configs/unet.yaml --vary data.augment=false data.balance=0
"""

#: Arms that are no config.
OTHERS = ('baseline', 'stock', 'forest', 'logistic')

_CONFIGS = Path(__file__).resolve().parents[1] / 'configs'

#: Settings that decide which pixels are ground and what they are: those of the first config hold for all.
_GROUND = (
    'root', 'band_order', 'reflectance_scale', 'reflectance_offset', 'nodata', 'source_legend', 'unknown_labels',
    'patch_size', 'store', 'cache', 'num_workers',
)  # fmt: skip

#: Settings that draw the blocks: only the first config's count, and the blocks are handed on as a file.
_SPLIT = ('ratios', 'block_size', 'split_seed', 'folds', 'fold', 'blocks')

#: Settings of the augmentation, which stock and single pixels go without.
_LIGHT = ('brightness', 'contrast', 'noise', 'band_dropout', 'mix_p')

#: What of the trainer belongs to a recipe; length and early stopping do not, since all arms see as many patches.
_RECIPE = ('precision', 'gradient_clip_val', 'gradient_clip_algorithm', 'callbacks')

Settings = dict[str, Any]
Kind = Literal['network', 'stock', 'forest', 'logistic']


@dataclass(frozen=True)
class Arm:
    """One row of the table: what is trained, and how.

    Args:
        name: In tables.
        kind: Who trains it.
        model: Settings of the task or of the classifier.
        data: Settings of the data module.
        trainer: Settings of Lightning's trainer.
    """

    name: str
    kind: Kind
    model: Settings
    data: Settings
    trainer: Settings


class Result(NamedTuple):
    """What one run found.

    Attributes:
        confusion: Pixel counts of the test ground, shape ``(num_classes, num_classes)``, reference in rows.
        looks: How often each test pixel was scored: once for each season, unless they are stacked.
        note: What was trained, in words.
    """

    confusion: NDArray[np.int64]
    looks: int
    note: str


class Run(NamedTuple):
    """A run that is kept."""

    arm: str
    seed: int
    split: int
    seconds: float
    looks: int
    note: str
    scores: Scores


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format='%(message)s', stream=sys.stderr)
    log.setLevel(logging.INFO)
    for name in ('lightning.pytorch', 'lightning.fabric', 'lightning.pytorch.utilities.rank_zero'):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings('ignore')
    torch.set_num_threads(args.threads)
    try:
        with tempfile.TemporaryDirectory(prefix='bench-accuracy-') as temporary:
            bench = Bench(args, Path(args.dir or temporary))
            runs = bench.run()
            sys.stdout.write(bench.report(runs))
            if args.json:
                args.json.write_text(json.dumps(bench.record(runs), indent=1, default=str) + '\n')
    except LandcoverError as e:
        parser.exit(1, f'{e}\n')
    finally:
        close_rasters()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--data', default='data', metavar='DIR', help='folder of the rasters (default: data)')
    add('--configs', type=Path, nargs='+', default=[_CONFIGS / 'unet.yaml'], metavar='YAML', help='the first is ours')
    add('--baseline', type=Path, default=_CONFIGS / 'baseline' / 'resnet50_deconv.yaml', metavar='YAML')
    add('--without', nargs='+', choices=OTHERS, default=[], help='arms to leave out')
    add('--vary', nargs='+', default=[], metavar='KEY=VALUE', help='more arms: the first config with one thing changed')
    add('--seeds', type=int, default=5, metavar='N', help='runs of each arm (default: 5)')
    add('--splits', type=int, default=1, metavar='N', help='run i takes blocks i modulo N (default: 1)')
    add('--patches', type=int, default=20_000, metavar='N', help='patches that a network sees (default: 20000)')
    add('--checks', type=int, default=10, metavar='N', help='validations in a training (default: 10)')
    kept = 'which weights of all networks are scored: those of the best validation mIoU, or the last (default: best)'
    add('--keep', choices=('best', 'last'), default='best', help=kept)
    start = 'auto: ImageNet where the configs ask for it, unless one arm cannot have it; then random for all'
    add('--weights', choices=('auto', 'imagenet', 'random'), default='auto', help=start)
    add('--pixels', type=int, default=100_000, metavar='N', help='training pixels of forest and logistic')
    add('--trees', type=int, default=200, metavar='N', help='of the forest (default: 200)')
    add('--backbone', nargs='+', default=[], metavar='NAME', help='for encoders of the same family, such as resnet18')
    add('--stock-backbone', metavar='NAME', help='encoder of the stock arm (default: that of the first config)')
    add('--patch-size', type=int, metavar='N', help='in pixels, of all arms (default: that of the first config)')
    add('--batch-size', type=int, metavar='N', help='of all arms (default: that of each config)')
    add('--override', nargs='+', default=[], metavar='KEY=VALUE', help='of all configs, such as data.block_size=128')
    add('--accelerator', default='auto', help='as in Lightning (default: auto)')
    add('--threads', type=int, default=processors(), metavar='N', help='of the CPU (default: all)')
    add('--cache', metavar='DIR', help='where scans are kept when the data folder is read-only')
    add('--dir', type=Path, metavar='DIR', help='keeps every run, so that an interrupted benchmark goes on')
    add('--json', type=Path, metavar='FILE', help='write all numbers, versions and the machine to this file')
    return parser


# Arms


def read_arm(path: Path, changes: Mapping[str, Any], backbones: Sequence[str] = ()) -> Arm:
    """A config as an arm.

    Args:
        path: YAML of ``landcover fit``.
        changes: Settings that win over it, by dotted key.
        backbones: Encoders that stand in for those of their family.

    Raises:
        LandcoverError: If the file has no model or data, or sets what cannot be compared here.
    """
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict) or not {'model', 'data'} <= set(content):
        raise LandcoverError(f'{path} is no config of landcover fit: it needs model and data')
    if unknown := {'optimizer', 'lr_scheduler'} & set(content):
        raise LandcoverError(f'{path} sets {unknown.pop()}; name it by model.optimizer_name and model.lr_schedule')
    parts = {name: dict(content.get(name) or {}) for name in ('model', 'data', 'trainer')}
    model = parts['model']
    named = model.get('backbone') or DEFAULT_BACKBONE[model.get('model', 'unet')]
    model['backbone'] = '+'.join(_stand_in(part, backbones) for part in named.split('+'))
    inside = path.resolve().with_suffix('').parts
    name = '/'.join(inside[inside.index('configs') + 1 :]) if 'configs' in inside else path.stem
    return changed(Arm(name, 'network', **parts), changes)


def _stand_in(encoder: str, backbones: Sequence[str]) -> str:
    """The given encoder of the same family, if there is one: resnet18 for resnet50, mit_b0 for mit_b2."""
    family = re.match('[a-z]+', encoder)
    return next((b for b in backbones if family and b.startswith(family[0])), encoder)


def changed(arm: Arm, changes: Mapping[str, Any]) -> Arm:
    """An arm with other settings, by dotted key such as ``data.balance``."""
    parts = {name: dict(getattr(arm, name)) for name in ('model', 'data', 'trainer')}
    for key, value in changes.items():
        part, _, name = key.partition('.')
        if part not in parts or not name:
            raise LandcoverError(f'a setting is model.NAME, data.NAME or trainer.NAME, got {key!r}')
        parts[part][name] = value
    return replace(arm, **parts)


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Settings of the command line, their values read as YAML.

    Examples:
        >>> parse_settings(['data.balance=0', 'data.ratios=[0.6, 0.2, 0.2]', 'model.lr=3e-4'])
        {'data.balance': 0, 'data.ratios': [0.6, 0.2, 0.2], 'model.lr': 0.0003}
    """
    pairs = [word.partition('=') for word in words]
    if bad := [key for key, sign, _ in pairs if not sign]:
        raise LandcoverError(f'a setting is KEY=VALUE, got {bad[0]!r}')
    return {key: _number_or_yaml(value) for key, _, value in pairs}


def _number_or_yaml(text: str) -> Any:
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value  # YAML takes 3e-4 for a word
    except ValueError:
        return value


def make_arms(args: argparse.Namespace) -> list[Arm]:
    """All arms of a benchmark, the recommended one first."""
    changes = {'data.root': args.data, 'data.cache': args.cache, **parse_settings(args.override)}
    if args.batch_size:
        changes['data.batch_size'] = args.batch_size
    if args.patch_size:
        changes['data.patch_size'] = args.patch_size
    paths = [*args.configs, *([] if 'baseline' in args.without else [args.baseline])]
    ours, *others = (read_arm(path, changes, args.backbone) for path in paths)
    varied = [replace(changed(ours, parse_settings([word])), name=f'{ours.name}, {word}') for word in args.vary]
    arms = [ours, *varied, *others]
    neither = {'bands': None, 'augment': False, 'mix': 'none', 'purity': 'none', 'balance': 0}
    plain = _without(ours.data, _LIGHT) | neither
    encoder = args.stock_backbone or ours.model['backbone'].split('+')[0]
    own = not args.stock_backbone and ours.model.get('model', 'unet') == 'unet_scratch'
    stock = {
        'model': 'unet',
        'backbone': _stand_in('resnet50', args.backbone) if own else encoder,
        'weights': ours.model.get('weights', True) is True,
        'num_classes': LEGEND.num_classes,
        'ignore_index': NODATA,
    }
    precision = {k: v for k, v in ours.trainer.items() if k == 'precision'}
    pixels = {'pixels': args.pixels}
    made = [
        Arm('stock', 'stock', stock, plain | {'patch_sizes': None, 'crop': None}, precision),
        Arm('forest', 'forest', pixels | {'trees': args.trees}, plain, {}),
        Arm('logistic', 'logistic', pixels, plain, {}),
    ]
    arms += [arm for arm in made if arm.name not in args.without]
    ground = {k: ours.data[k] for k in _GROUND if k in ours.data}
    return [replace(arm, data=_without(arm.data, _GROUND + _SPLIT) | ground) for arm in arms]


def _without(settings: Mapping[str, Any], keys: Sequence[str]) -> Settings:
    return {k: v for k, v in settings.items() if k not in keys}


def settle_weights(arms: list[Arm], choice: str) -> tuple[list[Arm], str]:
    """Arms that all start from the ImageNet weights they ask for, or all from random ones; and a sentence on it."""
    asking = [arm for arm in arms if arm.kind in ('network', 'stock') and arm.model.get('weights', True) is True]
    if choice == 'auto' and asking:
        for name, backbone in {(a.model['model'], a.model['backbone']) for a in asking}:
            try:
                BUILDERS[name](backbone, in_channels=3, num_classes=LEGEND.num_classes, pretrained=True)
            except LandcoverError as e:
                log.info('random weights for all arms: %s', e)
                choice = 'random'
                break
    if choice != 'random' and asking:
        return arms, f'ImageNet weights: {", ".join(a.name for a in asking)}; the other networks start as they say.'
    settled = [replace(a, model=a.model | {'weights': False}) if a in asking else a for a in arms]
    return settled, 'All networks start from random weights, also those whose recipe asks for ImageNet.'


# Runs


class Bench:
    """All runs of all arms, those that an earlier benchmark kept and those still to do.

    Args:
        args: The command line.
        folder: Keeps runs and blocks.
    """

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.arms, self.weights = settle_weights(make_arms(args), args.weights)
        names = [arm.name for arm in self.arms]
        if twice := {name for name in names if names.count(name) > 1}:
            raise LandcoverError(f'two arms are called {twice.pop()}: give each config a name of its own')
        changes = {'data.root': args.data, 'data.cache': args.cache, **parse_settings(args.override)}
        ours = read_arm(args.configs[0], changes).data
        self.ground = {k: v for k, v in ours.items() if k in _SPLIT} | self.arms[0].data
        self.files = sorted(
            [file.name, file.stat().st_size] for file in Path(args.data).rglob('*.tif') if not file.name.startswith('.')
        )

    def run(self) -> list[Run]:
        """Run what no earlier benchmark has kept; arms take turns, so that half the runs say something already."""
        todo = [(seed, arm) for seed in range(self.args.seeds) for arm in self.arms]
        runs = []
        for n, (seed, arm) in enumerate(todo, 1):
            run = self._kept_or_run(arm, seed)
            shown = f'mIoU {run.scores.mean_iou:.1%}, OA {run.scores.overall_accuracy:.1%}, {run.seconds:.0f} s'
            log.info('[%d/%d] %s, seed %d, blocks %d: %s', n, len(todo), arm.name, seed, run.split, shown)
            runs.append(run)
        return runs

    def _kept_or_run(self, arm: Arm, seed: int) -> Run:
        split = seed % self.args.splits
        budget = {'patches': self.args.patches, 'checks': self.args.checks, 'keep': self.args.keep}
        ground = {k: self.ground.get(k) for k in (*_SPLIT, 'aggregation')}
        spec = asdict(arm) | {'seed': seed, 'split': split, 'budget': budget, 'ground': ground, 'files': self.files}
        spec = _without(spec, ('name',)) | {'landcover-plugin': version('landcover-plugin')}
        path = self.folder / f'{re.sub(r"[^\w.=-]+", "-", arm.name)}-{seed}-{_digest(spec)}.json'
        if not path.is_file():
            start = time.perf_counter()
            result = self._run(arm, seed, split)
            seconds = time.perf_counter() - start
            found = result._asdict() | {'confusion': result.confusion.tolist(), 'seconds': seconds}
            part = path.with_suffix('.part')
            part.write_text(json.dumps({'spec': spec, 'found': found}, default=str))
            part.rename(path)
        found = json.loads(path.read_text())['found']
        scores = Scores.from_confusion(np.asarray(found['confusion'], dtype=np.int64))
        return Run(arm.name, seed, split, found['seconds'], found['looks'], found['note'], scores)

    def _run(self, arm: Arm, seed: int, split: int) -> Result:
        """Train and score one arm."""
        settings = arm.data | {'blocks': str(self._blocks(split))}
        seed_everything(seed, workers=True, verbose=False)
        if arm.kind in ('forest', 'logistic'):
            return self._run_pixels(arm, settings, seed)
        steps = max(self.args.patches // settings.get('batch_size', 8) // self.args.checks, 1)  # in an epoch
        data = CataloniaDataModule(**settings | {'length': steps * settings.get('batch_size', 8)})
        task = _task(arm, data.open_images().channels)
        counting = Counting(keep_best=self.args.keep == 'best')
        common = {
            'accelerator': self.args.accelerator, 'devices': 1, 'logger': False, 'enable_checkpointing': False,
            'enable_progress_bar': False, 'enable_model_summary': False, 'num_sanity_val_steps': 0,
        }  # fmt: skip
        trainer = Trainer(**common, **_recipe(arm.trainer, counting), max_epochs=self.args.checks)
        trainer.fit(task, datamodule=data)
        note = f'{trainer.global_step} steps, {counting.restore(task)}'
        tester = Trainer(**common, callbacks=[counting])
        tester.test(task, datamodule=self._scored(settings, data), verbose=False)
        return Result(counting.confusion, len(data.open_images().looks), note)

    def _run_pixels(self, arm: Arm, settings: Settings, seed: int) -> Result:
        """Train and score a classifier of single pixels."""
        data = self._scored(settings)
        data.setup('fit')
        transform = _normalisation(data)
        bands, codes = _training_pixels(data, transform, arm.model['pixels'], np.random.default_rng(seed))
        classifier = _CLASSIFIERS[arm.kind](arm.model, seed).fit(bands, codes)
        confusion = np.zeros((LEGEND.num_classes,) * 2, dtype=np.int64)
        data.setup('test')
        for batch in data.test_dataloader():
            bands, reference = _pixels(transform(batch))
            if len(reference):
                np.add.at(confusion, (reference, classifier.predict(bands)), 1)
        return Result(confusion, len(data.open_images().looks), f'{len(codes)} pixels')

    def _scored(self, settings: Settings, trained: CataloniaDataModule | None = None) -> CataloniaDataModule:
        """Data to score on: the labels of the first config, normalised as in training."""
        reference = {'aggregation': self.ground.get('aggregation', 'mode'), 'purity': 'none', 'patch_sizes': None}
        given = dict(zip(('mean', 'std'), trained.normalisation(), strict=True)) if trained else {}
        return CataloniaDataModule(**settings | reference | given)

    def _blocks(self, split: int) -> Path:
        """The blocks of a split as a file, drawn by the settings of the first config."""
        name = 'fold' if self.ground.get('folds') else 'split_seed'
        settings = self.ground | {name: self.ground.get(name, 0) + split}
        path = self.folder / f'blocks-{split}-{_digest([settings, self.files])}.gpkg'
        if not path.is_file():
            CataloniaDataModule(**settings).write_blocks(path)
        return path

    # Words

    def report(self, runs: Sequence[Run]) -> str:
        """Both tables as Markdown, and what one needs to know to read them."""
        by_arm = {arm.name: [r for r in runs if r.arm == arm.name] for arm in self.arms}
        codes = [c for c in LEGEND.codes if any(r.scores.support[c] for r in runs)]
        header = ['arm', 'mIoU %', 'OA %', *(LEGEND[c].name for c in codes), 'runs', 's/run']
        rows = [
            [
                name,
                _mean_sd([r.scores.mean_iou for r in own]),
                _mean_sd([r.scores.overall_accuracy for r in own]),
                *(_mean([r.scores.iou[c] for r in own]) for c in codes),
                str(len(own)),
                f'{statistics.mean(r.seconds for r in own):.0f}',
            ]
            for name, own in by_arm.items()
        ]
        ours = self.arms[0].name
        differences = [
            [name, *(_difference_cell(d) for d in paired(by_arm[ours], own).values())]
            for name, own in by_arm.items()
            if name != ours
        ]
        second = ['compared with', 'mIoU, points [95 %]', 'OA, points [95 %]']
        parts = [markdown(header, rows), f'{ours} minus each other arm, in runs with the same seed and blocks:']
        return '\n\n'.join([*parts, markdown(second, differences), *self._sentences(runs)]) + '\n'

    def _sentences(self, runs: Sequence[Run]) -> Iterator[str]:
        a, support = self.args, runs[0].scores.support // runs[0].looks
        yield (
            f'Mean ± standard deviation of {a.seeds} runs; class columns are mean IoU in %. Networks saw {a.patches:,} '
            f'patches; their {"weights of best validation mIoU" if a.keep == "best" else "last weights"} were scored, '
            f'of {a.checks} validations. {self.weights}'
        )
        yield f'Test ground of the first blocks: {support.sum():,} labelled pixels; {_splits_sentence(a)}'
        if not _same_ground(runs):
            yield 'The arms were NOT scored on the same pixels: some are not measured in all bands or seasons.'

    def record(self, runs: Sequence[Run]) -> dict[str, Any]:
        """All numbers, for the JSON."""
        by_arm = {arm.name: [r for r in runs if r.arm == arm.name] for arm in self.arms}
        ours = by_arm[self.arms[0].name]
        versions = {name: version(name) for name in ('lightning', 'segmentation-models-pytorch', 'scikit-learn')}
        return {
            'environment': environment() | versions,
            'settings': vars(self.args),
            'weights': self.weights,
            'arms': [asdict(arm) for arm in self.arms],
            'runs': [r._asdict() | {'scores': r.scores.overall() | {'iou': _plain(r.scores.iou)}} for r in runs],
            'differences': {name: paired(ours, own) for name, own in by_arm.items() if own is not ours},
            'same_ground': _same_ground(runs),
        }


def _digest(spec: Any) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True, default=str).encode()).hexdigest()[:10]


# Networks


def _task(arm: Arm, channels: list[str]) -> LightningModule:
    if arm.kind == 'stock':
        return SemanticSegmentation(**arm.model | {'in_channels': len(channels)})
    return LandCoverSegmentation(**arm.model | {'in_channels': len(channels), 'channels': channels})


def _recipe(settings: Settings, counting: 'Counting') -> Settings:
    """Arguments of the trainer. Counting comes first, so that it sees the weights that were validated."""
    chosen = {k: v for k, v in settings.items() if k in _RECIPE}
    if not torch.cuda.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        chosen.pop('precision', None)  # on a CPU without such instructions slower, and no more exact
    callbacks = [_callback(**entry) for entry in chosen.pop('callbacks', None) or []]
    return chosen | {'callbacks': [counting, *callbacks]}


def _callback(class_path: str, init_args: Mapping[str, Any] | None = None) -> Callback:
    module, _, name = class_path.rpartition('.')
    return getattr(import_module(module or 'lightning.pytorch.callbacks'), name)(**init_args or {})


class Counting(Callback):
    """Counts pixels of any task alike, in validation and test, and keeps the weights of the best validation.

    Args:
        keep_best: Keep them; otherwise the last weights stay.
    """

    def __init__(self, keep_best: bool) -> None:
        self.keep_best = keep_best
        self.confusion = np.zeros((LEGEND.num_classes,) * 2, dtype=np.int64)
        self.history: list[float] = []
        self._best: dict[str, Tensor] = {}
        self._logits = torch.empty(0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen to the network."""
        self._hook = pl_module.register_forward_hook(self._keep_logits)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no more."""
        self._hook.remove()

    def _keep_logits(self, module: LightningModule, inputs: Any, logits: Tensor) -> None:
        self._logits = logits.detach()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count anew."""
        self.confusion = np.zeros_like(self.confusion)

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, *args: Any
    ) -> None:
        """Count a batch; no data is never predicted, also where a task would."""
        reference = batch['mask'].long()
        codes = predicted_codes(self._logits)
        size = LEGEND.num_classes
        counts = torch.bincount((reference * size + codes)[reference != NODATA], minlength=size**2)
        self.confusion += counts.reshape(size, size).cpu().numpy()

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if none before were better."""
        score = Scores.from_confusion(self.confusion).mean_iou
        if self.keep_best and score > max(self.history, default=-1.0):
            self._best = {k: v.detach().cpu().clone() for k, v in pl_module.state_dict().items()}
        self.history.append(score)

    def restore(self, task: LightningModule) -> str:
        """Put the kept weights back into a task, and say where they come from."""
        if not self._best:
            return 'last weights'
        task.load_state_dict(self._best)
        return f'weights of validation {int(np.nanargmax(self.history)) + 1} of {len(self.history)}'


# Single pixels


def _logistic(model: Settings, seed: int) -> LogisticRegression:
    return LogisticRegression(max_iter=1000, random_state=seed)


def _forest(model: Settings, seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(model['trees'], random_state=seed, n_jobs=torch.get_num_threads())


_CLASSIFIERS: dict[str, Callable[[Settings, int], Any]] = {'forest': _forest, 'logistic': _logistic}


def _normalisation(data: CataloniaDataModule) -> BatchTransform:
    mean, std = (torch.tensor(v, dtype=torch.float32) for v in data.normalisation())
    s = data.settings
    return BatchTransform(mean, std, scale=s.reflectance_scale, offset=s.reflectance_offset)


def _training_pixels(
    data: CataloniaDataModule, transform: BatchTransform, wanted: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pixels of training ground, drawn without replacement.

    Pieces of ground are taken at random until they hold four times as many: a country need not be read.
    """
    images, size = data.open_images(), data.settings.patch_size
    windows = data.split.windows('train')
    dataset: Any = data.train_dataset
    pieces = list(CoverSampler(dataset, grid=images.grid, windows=windows, patch_size=size, looks=images.looks))
    order = [pieces[i] for i in generator.permutation(len(pieces))]
    collate = partial(pad_and_stack, size=size)
    found, number = [], 0
    for batch in DataLoader(dataset, batch_size=data.settings.batch_size, sampler=order, collate_fn=collate):
        found.append(_pixels(transform(batch)))
        number += len(found[-1][1])
        if number >= 4 * wanted:
            break
    bands, codes = (np.concatenate(part) for part in zip(*found, strict=True))
    chosen = generator.permutation(len(codes))[:wanted]
    return bands[chosen], codes[chosen]


def _pixels(batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Labelled pixels of a batch: bands ``(N, C)`` and codes ``(N,)``."""
    codes = batch['mask'].long()
    where = codes != NODATA
    return batch['image'].movedim(1, -1)[where].numpy(), codes[where].numpy()


# Statistics and words


class Difference(NamedTuple):
    """Mean of paired differences, and half the width of its 95 % interval (NaN for a single pair)."""

    mean: float
    half: float


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """First minus second, pair by pair, with the 95 % interval by Student's t.

    Examples:
        >>> d = difference([0.5, 0.6, 0.7], [0.4, 0.4, 0.4])
        >>> round(d.mean, 3), round(d.half, 3)
        (0.2, 0.248)
    """
    pairs = np.subtract(first, second)
    n = len(pairs)
    half = student.ppf(0.975, n - 1) * pairs.std(ddof=1) / n**0.5 if n > 1 else float('nan')
    return Difference(float(pairs.mean()), float(half))


def paired(ours: Sequence[Run], other: Sequence[Run]) -> dict[str, Difference]:
    """Differences of runs with the same seed and blocks, by score."""
    second = {(run.seed, run.split): run.scores for run in other}
    pairs = [(run.scores, second[run.seed, run.split]) for run in ours]
    return {
        name: difference([getattr(a, name) for a, _ in pairs], [getattr(b, name) for _, b in pairs])
        for name in ('mean_iou', 'overall_accuracy')
    }


def _same_ground(runs: Sequence[Run]) -> bool:
    """Whether all runs on the same blocks were scored on as many pixels of each class."""
    supports = {(r.split, *(r.scores.support // r.looks).tolist()) for r in runs}
    return len(supports) == len({r.split for r in runs})


def _splits_sentence(args: argparse.Namespace) -> str:
    if args.splits == 1:
        return 'the blocks are the same in all runs, so that intervals tell nothing about other ground.'
    return f'{min(args.splits, args.seeds)} ways to draw the blocks; means of a class run over those that hold it.'


def _mean(shares: Sequence[float]) -> str:
    known = [s for s in shares if s == s]
    return f'{100 * statistics.mean(known):.1f}' if known else 'n/a'


def _mean_sd(shares: Sequence[float]) -> str:
    return _mean(shares) + (f' ± {100 * statistics.stdev(shares):.1f}' if len(shares) > 1 else '')


def _difference_cell(found: Difference) -> str:
    mean, half = 100 * found.mean, 100 * found.half
    return f'{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]' if half == half else f'{mean:+.1f}'


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [None if v != v else float(v) for v in values]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: words to the left, all else to the right.

    Examples:
        >>> print(markdown(['arm', 'x'], [['ours', '1.0']]))
        | arm | x |
        |---|---:|
        | ours | 1.0 |
    """
    lines = [header, *rows]
    rule = '|---|' + '---:|' * (len(header) - 1)
    text = ['| ' + ' | '.join(line) + ' |' for line in lines]
    return '\n'.join([text[0], rule, *text[1:]])


if __name__ == '__main__':
    sys.exit(main())
