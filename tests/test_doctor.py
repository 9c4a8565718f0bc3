"""``landcover doctor`` as a process: exit codes, the screen, JSON, the environment, and what it must not import."""

import json
import math
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import LABEL_NAME, RELOCATED, write_image, write_label

from landcover_plugin.datasets.simulated import Scene, write_scene
from landcover_plugin.inspection.capabilities import ask_torch
from landcover_plugin.sampling.weights import WEIGHTINGS


def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'landcover_plugin', 'doctor', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment, timeout=120)


@pytest.fixture(scope='module')
def land(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp('land'), size=(416, 448), seed=2, label_gsd=2).label.parent


def without_nan(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f'{constant} is no JSON')

    return json.loads(text, parse_constant=refuse)


def test_fine_data_exit_0_and_end_with_the_command_to_train(land: Path) -> None:
    done = run(land, '--patch-size', 32)
    assert (done.returncode, done.stderr) == (0, '')
    assert 'fit to train' in done.stdout
    assert f' 2. landcover fit --config configs/unet.yaml --data.root {land} --data.patch_size 32\n' in done.stdout
    assert '\x1b' not in done.stdout
    assert 'herbaceous crops' in done.stdout


def test_warnings_exit_2(scene: Scene, tmp_path: Path) -> None:
    for path in scene.paths:
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / LABEL_NAME).unlink()
    with rasterio.open(scene.label) as src:
        write_label(tmp_path, src.read(1), gsd=2, origin=(400030, 4599980))
    done = run(tmp_path, '--patch-size', 32)
    assert done.returncode == 2
    assert 'of what the images show' in ' '.join(done.stdout.split())


def test_errors_exit_1(tmp_path: Path) -> None:
    done = run(tmp_path / 'nowhere')
    assert done.returncode == 1
    assert 'does not exist' in ' '.join(done.stdout.split())
    assert 'cannot train like this: 1 error' in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ([], 'doctor needs the folder'),
        (['data', '--patch-size', 'big'], "invalid int value: 'big'; see landcover doctor --help"),
        (['data', '--patch-size', '4'], 'at least 32 px, got 4'),
        (['data', '--nothing'], 'unrecognized arguments: --nothing'),
        (['data', '--bands', ','], 'expected names such as B04,B08'),
    ],
)
def test_unusable_arguments_exit_1(arguments: list[str], sentence: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, '')
    assert sentence in done.stderr
    assert 'Traceback' not in done.stderr


def test_help_names_the_exit_codes() -> None:
    done = run('--help')
    assert done.returncode == 0
    assert '2  trains, but warnings will cost quality or speed' in done.stdout


def test_json_is_one_document_without_nan(tmp_path: Path) -> None:
    write_image(tmp_path, np.full((10, 100, 120), np.nan, dtype=np.float32))
    write_label(tmp_path, np.ones((1000, 1200), dtype=np.uint8))
    done = run(tmp_path, '--json', '--patch-size', 32)
    assert (done.returncode, done.stderr) == (1, '')
    document = without_nan(done.stdout)
    assert document['exit_code'] == 1
    assert {'check', 'level', 'sentence', 'way_out', 'data'} == set(document['findings'][0])
    assert document['environment']['landcover']


def test_json_of_a_scene_holds_what_the_screen_shows(land: Path) -> None:
    document = without_nan(run(land, '--json', '--patch-size', 32).stdout)
    assert len(document['classes']) == 12
    assert set(document['classes'][0]['weights']) == set(WEIGHTINGS)
    shift = next(f for f in document['findings'] if f['check'] == 'shift')
    assert math.hypot(shift['data']['east_px'], shift['data']['south_px']) < 0.1
    assert document['next'][-1].startswith('landcover fit')


def test_environment(tmp_path: Path) -> None:
    done = run('--env')
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert {'landcover', 'python', 'torch', 'torchgeo', 'rasterio', 'GDAL', 'processors', 'memory', 'GPU'} <= set(names)
    assert done.returncode == 0
    found = without_nan(run('--env', '--json', OMP_NUM_THREADS='1').stdout)
    assert found['numpy'] == np.__version__
    assert found['openvino'].startswith(metadata.version('openvino')) and 'landcover register' in found['mlflow-skinny']
    assert found['torch threads'] == found['OMP_NUM_THREADS'] == '1'
    assert found['bf16 on the processor'] in ('true', 'false') and found['torch build'].startswith(('CUDA', 'CPU'))
    assert found['GDAL drivers'].endswith('with GTiff, COG, VRT, GPKG, PNG')
    assert float(found['disk free, here'].split()[0].replace(',', '')) > 0


def test_a_torch_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\necho "Traceback" >&2; echo "ImportError: libcudart.so.13 is missing" >&2; exit 1\n')
    python.chmod(0o755)
    assert ask_torch(str(python)) == {'torch build': 'cannot be imported: ImportError: libcudart.so.13 is missing'}
    python.write_text('#!/bin/sh\nsleep 5\n')
    assert 'not imported within 0.1 s' in ask_torch(str(python), seconds=0.1)['torch build']
    assert 'not known' in ask_torch(str(tmp_path / 'nowhere'))['torch build']


def test_no_torch_on_the_way(scene: Scene) -> None:
    code = (
        'import sys; from landcover_plugin.commands import doctor; '
        f'doctor.main([{str(scene.label.parent)!r}, "--patch-size", "32"]); assert "torch" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, timeout=120)


def test_nothing_is_written(land: Path) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in land.rglob('*'))
    run(land, '--patch-size', 32)
    assert sorted((p, p.stat().st_mtime_ns) for p in land.rglob('*')) == before


def test_names_that_the_terminal_cannot_print(tmp_path: Path) -> None:
    done = run(tmp_path / 'còpia de seguretat', PYTHONIOENCODING='ascii', PYTHONUTF8='0')
    assert done.returncode == 1
    assert 'c\\xf2pia' in done.stdout


@pytest.mark.skipif(not RELOCATED.is_dir(), reason='no real pixels beside the checkout')
def test_real_pixels() -> None:
    document = without_nan(run(RELOCATED, '--json', '--patch-size', 64).stdout)
    assert document['exit_code'] in (0, 2)
    assert document['share_of_ground_read'] == 1
    assert sum(row['pixels'] > 0 for row in document['classes']) == 6
