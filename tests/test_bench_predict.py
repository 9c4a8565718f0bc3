"""The benchmark of mapping runs, and says what it found."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_export import write_checkpoint

from landcover_plugin.datasets.simulated import Scene

SCRIPT = Path(__file__).parents[1] / 'scripts' / 'bench_predict.py'


def run(*arguments: object) -> str:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_forward_passes_of_a_small_network(tmp_path: Path) -> None:
    output = run(
        '--model=unet_scratch', '--backbone=plain16', '--patch-size=32', '--windows=2', '--rounds=2',
        '--engines=torch,onnxruntime,nothing', f'--json={tmp_path}/found.json',
    )  # fmt: skip
    assert 'forward passes, 2 windows of 32 px' in output and "got 'nothing'" in output
    found = json.loads((tmp_path / 'found.json').read_text())['forward']
    assert found['median_ratio']['torch'] == 1 and len(found['rates']['onnxruntime']) == 2
    assert found['agreement']['onnxruntime'] > 0.999


@pytest.mark.slow
def test_maps_and_memory(scene: Scene, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / 'best.ckpt', scene)
    state = torch.load(checkpoint, weights_only=True)
    for name, weight in state['state_dict'].items():
        if re.search(r'encoder\.levels\.[1-9].*weight', name):
            weight.zero_()  # the network sees a few pixels around, so that both ways decide alike wherever windows lie
    torch.save(state, checkpoint)
    output = run(
        f'--checkpoint={checkpoint}', f'--data={scene.label.parent}', '--patch-size=64', '--windows=4', '--rounds=1',
        '--engines=torch', '--maps', '--wide=128', '--map-size=160', '--memory=64,128', f'--json={tmp_path}/found.json',
    )  # fmt: skip
    assert 'x as fast as stock' in output and 'of the forward passes alone' in output and 'peak memory' in output
    found = json.loads((tmp_path / 'found.json').read_text())
    assert len(found['maps']['rates']) == 5
    for size in ('64', '128'):
        told = found['maps']['windows'][size]
        assert told['agreement'] > 0.999 and told['agreement_stock'] > 0.9 and told['run'] > 1
    assert found['memory']['megabytes']['64'] > 100
