"""Intervals cover the truth as often as they say, on simulated maps; the script that counts it runs."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / 'scripts'


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module('bench_coverage')


def test_the_script_counts(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, 'DESIGNS', bench.DESIGNS[1:2])
    monkeypatch.setattr('sys.argv', ['bench', '--repetitions', '4', '--json', str(tmp_path / 'c.json')])
    assert bench.main() == 0
    found = json.loads((tmp_path / 'c.json').read_text())
    assert set(found) == {'repetitions', '600 points, equal', '20 blocks', '60 blocks'}
    assert all(0 <= share <= 1 for share in found['600 points, equal']['wilson']['area'])
    assert 'wilson intervals' in capsys.readouterr().out


def test_the_estimates_are_without_bias(bench: Any, tmp_path: Path) -> None:
    """The mean over many samples comes to the truth, within three standard errors of that mean."""
    ground = bench.simulate(shape=(200, 300))
    targets, found = ground.targets(), []
    for sample in bench.samples(ground, bench.Design('', 400, 'equal', 20), 60, tmp_path):
        found.append(bench.assess(sample, bench.LEGEND.codes, method='normal').area.value)
    error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - targets['area']) < 3.5 * error).all()


@pytest.mark.slow
def test_95_percent_intervals_cover_in_93_to_97_percent(bench: Any) -> None:
    """Means over the classes; single classes scatter by 1 point with 500 repetitions, and rare ones lie lower."""
    found = bench.cover_areas(bench.simulate(), bench.DESIGNS[0], 500)
    for quantity in ('area', 'users', 'producers', 'overall'):
        assert 0.93 <= np.mean(found['wilson'][quantity]) <= 0.97, quantity
    assert min(found['wilson']['area']) >= 0.92
    assert min(found['normal']['area']) < 0.8  # why they are not the default
    blocks = bench.cover_blocks(60, 500)
    assert 0.93 <= np.mean(blocks['iou']) <= 0.97 and min(blocks['iou']) >= 0.91
