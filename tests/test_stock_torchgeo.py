"""The acid test of a plugin: its classes run from TorchGeo's own command line, together and with stock ones."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from landcover_plugin import cli
from landcover_plugin.datasets.simulated import Scene

TORCHGEO = Path(sys.executable).with_name('torchgeo')

#: A data module as users of TorchGeo write them: stock datasets, samplers, collation and augmentation.
STOCK_DATA = """
from pathlib import Path

import torch
from torchgeo.datamodules import GeoDataModule
from torchgeo.datasets import RasterDataset
from torchgeo.samplers import GriddedPatchSampler, RandomPatchSampler


class Images(RasterDataset):
    filename_glob = 'S2_CAT_201804*.tif'


class Labels(RasterDataset):
    filename_glob = 'LC_*.tif'
    is_image = False


class StockData(GeoDataModule):
    mean, std = torch.tensor(0), torch.tensor(10_000)

    def __init__(self, root: str, patch_size: int = 32, batch_size: int = 4):
        super().__init__(Images, batch_size, patch_size, paths=root)

    def setup(self, stage: str) -> None:
        self.dataset = Images(**self.kwargs) & Labels(**self.kwargs)
        self.train_sampler = RandomPatchSampler(self.dataset, size=self.patch_size, length=8, generator=0)
        self.val_sampler = GriddedPatchSampler(self.dataset, size=self.patch_size, stride=self.patch_size)
"""

OUR_DATA = {
    'class_path': 'landcover_plugin.CataloniaDataModule',
    'init_args': {'patch_size': 32, 'batch_size': 4, 'length': 8, 'num_workers': 0},
}
OUR_TASK = {
    'class_path': 'landcover_plugin.LandCoverSegmentation',
    'init_args': {'model': 'unet', 'backbone': 'resnet18', 'weights': False, 'in_channels': 10},
}
STOCK_TASK = {
    'class_path': 'torchgeo.tasks.SemanticSegmentation',
    'init_args': {
        'model': 'unet',
        'backbone': 'resnet18',
        'in_channels': 10,
        'num_classes': 13,
        'ignore_index': 0,
    },
}


def run(folder: Path, *arguments: str) -> str:
    """Output of ``torchgeo`` in a folder."""
    environment = os.environ | {'PYTHONPATH': str(folder), 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [str(TORCHGEO), *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


def fit(folder: Path, root: Path, model: dict[str, Any], data: dict[str, Any]) -> str:
    """Train for an epoch from a YAML file."""
    experiment = {
        'seed_everything': 0,
        'trainer': {'max_epochs': 1, 'accelerator': 'cpu', 'default_root_dir': 'runs', 'log_every_n_steps': 1},
        'model': model,
        'data': data | {'init_args': data['init_args'] | {'root': str(root)}},
    }
    (folder / 'x.yaml').write_text(yaml.safe_dump(experiment))
    output = run(folder, 'fit', '--config', 'x.yaml')
    assert '`max_epochs=1` reached' in output
    assert len(list(folder.glob('runs/**/*.ckpt'))) == 1
    return output


@pytest.mark.slow
def test_our_task_and_data(scene: Scene, tmp_path: Path) -> None:
    fit(tmp_path, scene.label.parent, OUR_TASK, OUR_DATA)
    (saved,) = tmp_path.glob('runs/**/config.yaml')
    assert yaml.safe_load(saved.read_text())['model']['init_args']['backbone'] == 'resnet18'


@pytest.mark.slow
def test_our_task_and_data_are_tested_from_their_checkpoint(scene: Scene, tmp_path: Path) -> None:
    fit(tmp_path, scene.label.parent, OUR_TASK, OUR_DATA)
    (checkpoint,) = tmp_path.glob('runs/**/*.ckpt')
    output = run(tmp_path, 'test', '--config', 'x.yaml', '--ckpt_path', str(checkpoint), '--weights_only', 'true')
    assert 'test_mIoU' in output


@pytest.mark.slow
def test_landcover_maps_with_a_checkpoint_of_stock_torchgeo(scene: Scene, tmp_path: Path) -> None:
    fit(tmp_path, scene.label.parent, OUR_TASK, OUR_DATA)
    (checkpoint,) = tmp_path.glob('runs/**/*.ckpt')
    target = tmp_path / 'map.tif'
    assert cli.main(['predict', f'--ckpt_path={checkpoint}', f'--output.path={target}']) == 0
    assert target.is_file()


@pytest.mark.slow
def test_landcover_refuses_a_checkpoint_of_another_task(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path, scene.label.parent, STOCK_TASK, OUR_DATA)
    (checkpoint,) = tmp_path.glob('runs/**/*.ckpt')
    assert cli.main(['predict', f'--ckpt_path={checkpoint}', f'--output.path={tmp_path}/map.tif']) == 1
    assert 'is one of SemanticSegmentation, not of LandCoverSegmentation' in capsys.readouterr().err


@pytest.mark.slow
def test_the_stock_task_with_our_data(scene: Scene, tmp_path: Path) -> None:
    fit(tmp_path, scene.label.parent, STOCK_TASK, OUR_DATA)


@pytest.mark.slow
def test_our_task_with_stock_data(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / 'stock_data.py').write_text(STOCK_DATA)
    fit(tmp_path, scene.label.parent, OUR_TASK, {'class_path': 'stock_data.StockData', 'init_args': {}})


@pytest.mark.slow
@pytest.mark.parametrize('task', [OUR_TASK, STOCK_TASK], ids=['ours', 'stock'])
def test_the_stock_command_predicts_with_our_data(scene: Scene, tmp_path: Path, task: dict[str, Any]) -> None:
    """It writes no file; what counts is that it gets whole batches to the end."""
    fit(tmp_path, scene.label.parent, task, OUR_DATA)
    (checkpoint,) = tmp_path.glob('runs/**/*.ckpt')
    quiet = ['--weights_only', 'true', '--return_predictions', 'false']
    output = run(tmp_path, 'predict', '--config', 'x.yaml', '--ckpt_path', str(checkpoint), *quiet)
    assert 'Predicting' in output
