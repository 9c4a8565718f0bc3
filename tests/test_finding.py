"""Batch size and learning rate that the command line looks for."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.memory import is_oom_error

from landcover_plugin.datasets.simulated import write_scene
from landcover_plugin.training.finding import limited_memory

LENGTH = 96


def fit(root: Path, folder: Path, *arguments: str) -> str:
    command = [sys.executable, '-m', 'landcover_plugin', 'fit', f'--data.root={root}', '--model.model=unet_scratch']
    model = ['--model.backbone=spectral32', '--model.weights=false', '--trainer.accelerator=cpu']
    data = ['--data.patch_size=16', f'--data.length={LENGTH}', '--data.batch_size=4', '--trainer.limit_val_batches=1']
    trainer = [f'--trainer.default_root_dir={folder}', '--trainer.enable_progress_bar=false']
    done = subprocess.run([*command, *model, *data, *trainer, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope='module')
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('finding') / 'data'
    write_scene(root, size=(128, 160), label_gsd=10, seed=1)
    return root


@pytest.mark.slow
def test_the_largest_batch_is_an_epoch_where_memory_allows(scene: Path, tmp_path: Path) -> None:
    told = fit(scene, tmp_path, '--find.batch_size=true', '--trainer.max_epochs=1')
    assert f'batch size found: {LENGTH}' in told and f'{LENGTH} patches of 16 px a step' in told
    assert not list(tmp_path.rglob('.scale*'))


@pytest.mark.slow
def test_a_learning_rate_is_found_and_used(scene: Path, tmp_path: Path) -> None:
    told = fit(scene, tmp_path, '--find.lr=true', '--trainer.max_epochs=4', '--trainer.max_steps=100')
    found = next(line.split()[-1] for line in told.splitlines() if 'learning rate found' in line)
    used = told.split('training\n')[1].split(', lr ')[1].split()[0]
    assert 1e-8 < float(found) < 1 and float(used) == pytest.approx(float(found), rel=1e-2)


@pytest.mark.slow
def test_a_search_that_finds_nothing_says_so(scene: Path, tmp_path: Path) -> None:
    told = fit(scene, tmp_path, '--find.lr=true', '--trainer.max_epochs=1', '--data.batch_size=32')
    assert 'no learning rate was found in' in told and 'lr stays 0.001' in told


def test_memory_that_is_not_there_is_an_error_that_the_search_knows() -> None:
    with limited_memory(0.5), pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 44, dtype=torch.uint8)
    assert is_oom_error(caught.value)
    with limited_memory(0.5):
        assert torch.zeros(1000).sum() == 0
