"""Averaged weights: the average is that of the formula, it is validated, kept, resumed and mapped with."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from landcover_plugin import LandCoverSegmentation
from landcover_plugin.datasets.simulated import write_scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.training.averaging import AveragedWeights

pytestmark = pytest.mark.usefixtures('one_thread')

DECAY = 0.8


def loader() -> Any:
    """Two batches of four patches whose class is told by a band."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 16, 16, generator=draw)
    return DataLoader([{'image': x, 'mask': (x[0] > 0).long() + 1} for x in images], batch_size=4)  # type: ignore[arg-type]


def task(**settings: Any) -> LandCoverSegmentation:
    seed_everything(0, verbose=False)
    given = {'ema': DECAY, 'lr': 0.01, 'lr_schedule': 'constant'} | settings
    return LandCoverSegmentation('unet_scratch', 'plain16', weights=False, in_channels=3, **given)


def fit(network: Any, folder: Path, epochs: int, *callbacks: Callback, resume: Any = None) -> Trainer:
    trainer = Trainer(
        accelerator='cpu', max_epochs=epochs, default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), enable_checkpointing=any(
            isinstance(c, ModelCheckpoint) for c in callbacks
        ),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        trainer.fit(network, loader(), loader(), ckpt_path=resume, weights_only=True if resume else None)
    return trainer


class Steps(Callback):
    """One weight, one statistic and one counter after each step, and the weight that each validation saw."""

    def __init__(self) -> None:
        self.steps: list[list[Any]] = []
        self.validated: list[Any] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        self.steps.append(self.look(pl_module))

    def on_validation_batch_start(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if not trainer.sanity_checking:
            self.validated.append(self.look(pl_module))

    def look(self, module: Any) -> list[Any]:
        state = module.state_dict()
        names = ('levels.0.0.0.weight', 'levels.0.0.1.running_var', 'levels.0.0.1.num_batches_tracked')
        found = [next(v for k, v in state.items() if k.endswith(name)) for name in names]
        return [v.double().numpy().copy() for v in found]


def test_it_is_the_moving_average_of_the_steps_and_the_one_that_is_validated(tmp_path: Path) -> None:
    seen, network = Steps(), task()
    fit(network, tmp_path, 3, seen)
    weights, statistics, counters = zip(*seen.steps, strict=True)
    averages = []
    for values in (weights, statistics):
        average = values[0]
        for updates, value in enumerate(values[1:], 1):
            share = min(DECAY, (1 + updates) / (10 + updates))
            average = share * average + (1 - share) * value
        averages.append(average)
    last = seen.validated[-1]
    for found, wanted in zip(last, averages, strict=False):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    assert np.abs(last[0] - weights[-1]).max() > 1e-4 and last[2] == counters[-1] == 6
    np.testing.assert_array_equal(Steps().look(network)[0], last[0])  # training ends with it


def test_a_checkpoint_holds_what_was_validated(tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path, 'best', monitor='val_mIoU', mode='max', save_last=True)
    trainer = fit(task(), tmp_path, 3, kept)
    other = LandCoverSegmentation.load_from_checkpoint(tmp_path / 'best.ckpt')
    quiet = {'logger': False, 'enable_progress_bar': False, 'enable_model_summary': False, 'accelerator': 'cpu'}
    again = Trainer(**quiet, enable_checkpointing=False)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = again.validate(other, loader(), verbose=False)[0]
    assert found['val_mIoU'] == pytest.approx(float(kept.best_model_score), abs=1e-6)  # type: ignore[arg-type]
    file = torch.load(tmp_path / 'last.ckpt', weights_only=True)
    trained, averaged = file['current_model_state'], file['state_dict']
    assert any(not torch.equal(averaged[k], v) for k, v in trained.items())
    assert trainer.callback_metrics['val_mIoU'] > 0


def test_a_training_resumes_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole, first, second = (tmp_path / n for n in ('whole', 'first', 'second'))
    straight = task()
    fit(straight, whole, 4, ModelCheckpoint(whole, save_last=True))
    fit(task(), first, 2, ModelCheckpoint(first, save_last=True))
    resumed = task()
    fit(resumed, second, 4, ModelCheckpoint(second, save_last=True), resume=first / 'last.ckpt')
    files = [torch.load(f / 'last.ckpt', weights_only=True) for f in (whole, second)]
    for part in ('state_dict', 'current_model_state', 'averaging_state'):
        for name, value in files[0][part].items():
            torch.testing.assert_close(files[1][part][name], value, msg=f'{part} {name}')
    for name, value in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value)


def test_without_the_key_nothing_is_averaged() -> None:
    assert task(ema=0).configure_callbacks() == []
    assert [type(c) for c in task(freeze_encoder_epochs=1).configure_callbacks()][1:] == [AveragedWeights]


@pytest.mark.parametrize('decay', [-0.1, 1.0, 2])
def test_a_decay_that_is_none_is_told(decay: float) -> None:
    with pytest.raises(LandcoverError, match='ema must lie between 0 and 1'):
        task(ema=decay).configure_callbacks()


def test_it_does_not_go_with_low_rank_adaptation() -> None:
    network = LandCoverSegmentation('segformer', 'mit_b0', weights=False, in_channels=3, lora_rank=2, ema=0.9)
    with pytest.raises(LandcoverError, match='drop one of the two'):
        network.configure_callbacks()


# The command line


@pytest.fixture(scope='module')
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('averaging') / 'data'
    write_scene(root, size=(192, 192), label_gsd=10, seed=1)
    return root


def landcover(*arguments: object) -> str:
    command = [sys.executable, '-m', 'landcover_plugin', *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def arguments(root: Path, folder: Path) -> list[str]:
    model = ['--model.model=unet_scratch', '--model.backbone=plain16', '--model.weights=false', '--model.ema=0.9']
    data = [f'--data.root={root}', '--data.patch_size=32', '--data.length=16', '--data.batch_size=4']
    trainer = ['--trainer.max_epochs=2', '--trainer.accelerator=cpu', '--trainer.enable_progress_bar=false']
    return [*model, *data, *trainer, f'--trainer.default_root_dir={folder}']


@pytest.mark.slow
def test_fit_with_all_training_aids_then_test(scene: Path, tmp_path: Path) -> None:
    """Averaging, clipping, accumulation and deterministic mode together; two runs end in the same numbers."""
    aids = ['--trainer.gradient_clip_val=1', '--trainer.accumulate_grad_batches=2', '--trainer.deterministic=true']
    found = []
    for name in ('first', 'second'):
        told = landcover('fit', *arguments(scene, tmp_path / name), *aids)
        assert 'averaged weights' in told and '8 patches of 32 px a step' in told and 'Warn' not in told
        path = next((tmp_path / name).rglob('best.ckpt'))
        found.append(torch.load(path, weights_only=True))
    assert found[0]['global_step'] in (2, 4)  # of eight batches, two to a step
    for name, value in found[0]['state_dict'].items():
        assert torch.equal(value, found[1]['state_dict'][name]), name
    told = landcover('test', f'--ckpt_path={path}', f'--output.path={tmp_path}/report')
    assert 'Warn' not in told and 'verag' not in told


@pytest.mark.slow
def test_two_processes_average_together(scene: Path, tmp_path: Path) -> None:
    """DDP: both ranks keep the same average, and the checkpoint holds it."""
    landcover('fit', *arguments(scene, tmp_path), '--trainer.devices=2', '--trainer.strategy=ddp')
    path = next(tmp_path.rglob('best.ckpt'))
    landcover('validate', f'--ckpt_path={path}')
