"""The benchmark of maps runs every arm on a tiny scene and keeps its networks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from landcover_plugin.datasets.simulated import Scene

SCRIPT = Path(__file__).parents[1] / 'scripts' / 'bench_maps.py'


@pytest.mark.slow
def test_every_map_is_scored_on_the_same_ground(scene: Scene, tmp_path: Path) -> None:
    config = tmp_path / 'small.yaml'
    config.write_text(
        'trainer: {max_epochs: 1, accelerator: cpu}\n'
        'model: {model: unet_scratch, backbone: plain16, weights: false}\n'
        'data: {patch_size: 32, block_size: 64, batch_size: 4, length: 8, num_workers: 0, ratios: [0.6, 0.2, 0.2]}\n'
    )
    command = [
        sys.executable, str(SCRIPT), f'--data={scene.label.parent}', f'--config={config}', '--splits=2', '--members=2',
        f'--dir={tmp_path}/runs', f'--json={tmp_path}/found.json',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((tmp_path / 'found.json').read_text())
    assert set(found['found']) == {'0', '1'} and len(found['temperatures']) == 2
    for maps in found['found'].values():
        assert maps['mapping unit 5 px']['small'] <= maps['plain']['small']
        assert maps['temperature']['overall_accuracy'] == pytest.approx(maps['plain']['overall_accuracy'], abs=0.01)
        assert maps['majority 3 px']['nll'] == maps['plain']['nll']
        assert maps['ensemble of 2']['nll'] != maps['plain']['nll']
    assert '| Bayesian smoothing |' in done.stdout and '2 ways to draw the blocks' in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert 'trained' in done.stderr and 'trained' not in again.stderr and again.stdout == done.stdout
