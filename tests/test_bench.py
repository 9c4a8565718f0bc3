"""The benchmark runs, checks what it times, and says what it found."""

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import majority_reference

SCRIPTS = Path(__file__).parents[1] / 'scripts'


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module('bench_common')


@pytest.fixture
def data(common: Any) -> Any:
    return importlib.import_module('bench_data')


def run(*arguments: str) -> str:
    """Standard output of the benchmark."""
    command = [sys.executable, str(SCRIPTS / 'bench_data.py'), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_every_section_runs_on_a_tiny_scene(tmp_path: Path) -> None:
    sections = ('patches', 'cold', 'locality', 'balance', 'labels')
    output = run(
        '--size=300', '--patch-size=32', '--batch-size=4', '--rounds=1', '--seconds=0.01', f'--dir={tmp_path}',
        f'--json={tmp_path}/found.json', *(f'--{s}' for s in sections),
    )  # fmt: skip
    assert 'checked: all arms give the pixels of a plain read' in output
    found = json.loads((tmp_path / 'found.json').read_text())
    arms = {'stock', 'rasterio', 'ours, no store', 'batches, no store', 'memmap', 'png tiles', 'geotiff tiles'}
    assert arms <= set(found['patches']['median_rate'])
    assert found['patches']['median']['stock']['stock'] == 1
    assert all(
        rate > 0 for s in ('patches', 'cold', 'locality', 'labels') for r in found[s]['rates'].values() for rate in r
    )
    assert found['labels']['agreement']['ours'] == 1
    for shares in found['balance']['sampled'].values():
        assert sum(shares) == pytest.approx(1)
    assert {t['section'] for t in found['targets']} <= set(sections)
    assert found['scene']['size_px'] == 300 and found['environment']['gdal_cachemax'] == '64'


def test_a_scene_is_kept_only_while_it_is_whole(common: Any, tmp_path: Path) -> None:
    scene = common.make_scene(tmp_path, 40, 3)
    label = scene.label.read_bytes()
    times = scene.image.stat().st_mtime_ns, scene.label.stat().st_mtime_ns
    common.make_scene(tmp_path, 40, 3)
    assert (scene.image.stat().st_mtime_ns, scene.label.stat().st_mtime_ns) == times
    scene.label.write_bytes(label[:100])
    common.make_scene(tmp_path, 40, 3)
    assert scene.label.read_bytes() == label


def test_runs_take_turns(common: Any) -> None:
    order: list[str] = []
    runs = {name: lambda n, name=name: order.append(name) or float(n + 1) for name in 'abc'}
    rates = common.interleave(runs, 3, description='test')
    assert ''.join(order) == 'abcbcacab'
    assert rates['b'] == [1, 2, 3]


def test_ratios_are_taken_within_a_round(common: Any) -> None:
    rates = {'fast': [20.0, 2.0, 9.0], 'slow': [10.0, 1.0, 3.0]}
    assert common.median_ratio(rates, 'fast', 'slow') == 2
    assert common.median_ratio(rates, 'fast', 'absent') is None


@pytest.mark.skipif(sys.platform != 'linux', reason='posix_fadvise and mincore')
def test_files_leave_the_page_cache(common: Any, tmp_path: Path) -> None:
    path = tmp_path / 'file'
    path.write_bytes(bytes(1 << 22))
    common.warm_page_cache([path])
    assert common.share_in_page_cache([path]) == 1
    mapped = np.memmap(path, dtype=np.uint8, mode='r')
    assert mapped.sum() == 0
    common.drop_from_page_cache([path])
    assert common.share_in_page_cache([path]) < 1
    assert mapped.sum() == 0


def test_documented_examples(common: Any) -> None:
    assert doctest.testmod(common).failed == 0


def test_the_reference_majority(data: Any) -> None:
    fine = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(np.uint8)
    assert np.array_equal(data.majority_reference(fine), majority_reference(fine, 10))


def test_help_teaches(data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        data.main(['--help'])
    output = capsys.readouterr().out
    assert 'examples:' in output
    assert all(f'--{section} ' in output for section in data.SECTIONS)


def test_an_arm_that_gives_other_pixels_is_told(data: Any) -> None:
    bands, codes = np.ones((10, 4, 6), dtype=np.uint16), np.ones((4, 6), dtype=np.uint8)
    arm, mask = data.Arm('any', []), torch.from_numpy(codes)
    assert data._same_pixels(arm, (torch.from_numpy(bands), mask), bands, codes)
    assert not data._same_pixels(arm, (torch.from_numpy(bands + 1), mask), bands, codes)
    assert not data._same_pixels(arm, (torch.from_numpy(bands), mask + 1), bands, codes)
    arm.scale = 10_000
    assert data._same_pixels(arm, (torch.from_numpy(bands / np.float32(10_000)), mask), bands, codes)


def test_targets_are_met_or_missed(data: Any) -> None:
    target = data.Target('patches', 'ours', 'stock', 2)
    assert [data._verdict(target, ratio) for ratio in (2.0, 1.99, None)] == ['pass', 'MISS', 'not measured']
