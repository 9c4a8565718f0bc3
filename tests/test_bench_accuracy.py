"""The benchmark of accuracy runs every arm on a tiny scene, keeps what it found, and compares run with run."""

import doctest
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError

SCRIPTS = Path(__file__).parents[1] / 'scripts'

SMALL = {'model': 'unet', 'backbone': 'resnet18', 'weights': True, 'lr': 1e-3}
EMA = {'class_path': 'EMAWeightAveraging', 'init_args': {'decay': 0.9}}
DATA = {'patch_size': 32, 'block_size': 64, 'batch_size': 4, 'ratios': [0.6, 0.2, 0.2], 'seasons': 'separate'}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module('bench_accuracy')


def write_config(folder: Path, **changes: Any) -> Path:
    """A config of landcover fit."""
    path = folder / 'ours.yaml'
    path.write_text(yaml.safe_dump({'trainer': {'callbacks': [EMA]}, 'model': SMALL, 'data': DATA} | changes))
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The benchmark from its command line."""
    environment = os.environ | {'HF_HUB_OFFLINE': '1'}
    command = [sys.executable, str(SCRIPTS / 'bench_accuracy.py'), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.mark.slow
def test_every_arm_runs_on_a_tiny_scene_and_is_kept(scene: Scene, tmp_path: Path) -> None:
    arguments = (
        f'--data={scene.label.parent}', f'--cache={tmp_path}/cache', f'--configs={write_config(tmp_path)}',
        '--weights=random', '--backbone=resnet18', '--batch-size=4', '--patches=8', '--checks=2', '--seeds=2',
        '--splits=2', '--trees=3', '--pixels=500', f'--dir={tmp_path}/runs', f'--json={tmp_path}/found.json',
    )  # fmt: skip
    first = run(*arguments)
    found = json.loads((tmp_path / 'found.json').read_text())
    names = ['ours', 'baseline/resnet50_deconv', 'stock', 'forest', 'logistic']
    assert [arm['name'] for arm in found['arms']] == names and set(found['differences']) == set(names[1:])
    assert [r['arm'] for r in found['runs']] == names * 2 and found['same_ground']
    assert all(0 <= r['scores']['mean_iou'] <= 1 for r in found['runs'])
    assert {r['split'] for r in found['runs']} == {0, 1}
    assert 'random weights' in first.stdout and first.stdout.count('\n| ') == 2 * len(names)
    kept = sorted((tmp_path / 'runs').glob('*.json'))
    kept[0].unlink()
    changed = {path: path.stat().st_mtime_ns for path in kept[1:]}
    run(*arguments)
    assert len(list((tmp_path / 'runs').glob('*.json'))) == len(kept)
    assert changed == {path: path.stat().st_mtime_ns for path in kept[1:]}


def test_arms_share_the_ground_of_the_first_config(bench: Any, tmp_path: Path) -> None:
    arguments = ['--configs', str(write_config(tmp_path)), '--vary', 'data.balance=1', '--backbone', 'resnet18']
    arms = bench.make_arms(bench._parser().parse_args([*arguments, '--patch-size=48']))
    assert [arm.name for arm in arms] == [
        'ours', 'ours, data.balance=1', 'baseline/resnet50_deconv', 'stock', 'forest', 'logistic'
    ]  # fmt: skip
    assert {arm.data['patch_size'] for arm in arms} == {48}
    assert not any(set(bench._SPLIT) & set(arm.data) for arm in arms)
    by_name = {arm.name: arm for arm in arms}
    baseline, stock = by_name['baseline/resnet50_deconv'], by_name['stock']
    assert baseline.model['backbone'] == stock.model['backbone'] == 'resnet18'
    assert baseline.data['bands'] == ['B04', 'B03', 'B02'] and stock.data['bands'] is None
    assert not baseline.data['augment'] and not stock.data['augment'] and stock.data['balance'] == 0


def test_weights_are_of_one_kind(bench: Any, tmp_path: Path) -> None:
    arms = bench.make_arms(bench._parser().parse_args(['--configs', str(write_config(tmp_path))]))
    settled, sentence = bench.settle_weights(arms, 'random')
    assert not any(arm.model['weights'] for arm in settled if 'weights' in arm.model)
    assert 'random weights' in sentence
    settled, sentence = bench.settle_weights(arms, 'imagenet')
    assert settled == arms and 'ImageNet weights: ours, baseline/resnet50_deconv, stock' in sentence


def test_what_cannot_be_compared_is_refused(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(LandcoverError, match=r'model\.optimizer_name'):
        bench.read_arm(write_config(tmp_path, optimizer={'class_path': 'torch.optim.SGD'}), {})
    with pytest.raises(LandcoverError, match=r'a setting is model\.NAME'):
        bench.read_arm(write_config(tmp_path), {'early_stopping.patience': 3})
    with pytest.raises(LandcoverError, match='KEY=VALUE'):
        bench.parse_settings(['data.balance'])


def test_doctests(bench: Any) -> None:
    failed, tried = doctest.testmod(bench)
    assert tried and not failed
