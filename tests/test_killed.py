"""Processes that read patches and are killed, or run out of memory: one sentence tells where, why and how to go on."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_resuming import LANDCOVER, TINY, TWO, fit

from landcover_plugin import CataloniaDataModule, cli
from landcover_plugin.datasets.patches import CataloniaPatches
from landcover_plugin.datasets.sentinel2 import CataloniaSentinel2
from landcover_plugin.datasets.simulated import Scene, write_scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.rasters.landcover import LabelRasters
from landcover_plugin.rasters.opening import close_rasters
from landcover_plugin.training.killed_workers import killed_worker

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')


def loader_of(scene: Scene, workers: int = 1) -> tuple[CataloniaPatches, Any]:
    data = CataloniaDataModule(str(scene.label.parent), patch_size=32, length=32, batch_size=2, num_workers=workers)
    data.setup('fit')
    loader = data.train_dataloader()
    assert isinstance(loader.dataset, CataloniaPatches)
    return loader.dataset, loader


def dies(path: Path, read: Callable[..., Any], place: int) -> Callable[..., Any]:
    """A read that notes its pixels in a file and is killed at the third patch."""
    done = []

    def killed(*args: Any, **kwargs: Any) -> Any:
        done.append(1)
        if len(done) == 3:
            grid = args[place]
            path.write_text(' '.join(map(str, (*grid.origin, grid.height, grid.width))))
            os.kill(os.getpid(), signal.SIGKILL)
        return read(*args, **kwargs)

    return killed


@pytest.mark.parametrize(('reader', 'method', 'at'), [
    (CataloniaSentinel2, 'read_into', 3), (LabelRasters, 'read_codes', 1)
], ids=['images', 'labels'])  # fmt: skip
def test_the_patch_at_which_a_worker_is_killed_is_named(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Any, method: str, at: int
) -> None:
    monkeypatch.setattr(reader, method, dies(tmp_path / 'place', getattr(reader, method), at))
    dataset, loader = loader_of(scene)
    with pytest.raises((RuntimeError, OSError, EOFError)) as failed:
        list(loader)
    said = killed_worker(failed.value, [dataset])
    assert said is not None
    x, y, height, width = map(float, (tmp_path / 'place').read_text().split())
    origin = dataset.images.grid.origin
    row, col = round((origin[1] - y) / 10), round((x - origin[0]) / 10)
    assert f'while it read rows {row}-{row + int(height)}, columns {col}-{col + int(width)} of ' in said
    assert ('LC_2018' in said) == (at == 1) and ('S2_CAT' in said) == (at == 3)
    assert 'when memory runs out: choose a smaller --data.num_workers' in said


def test_other_errors_are_not_taken_for_a_killed_worker(scene: Scene) -> None:
    dataset, loader = loader_of(scene)
    list(loader)
    for error in (RuntimeError('shapes differ'), ValueError('DataLoader worker (pid 7) exited'), OSError(2, 'gone')):
        assert killed_worker(error, [dataset]) is None
    bus = RuntimeError('DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that')
    assert '--shm-size' in (killed_worker(bus, [dataset]) or '')


def test_a_worker_that_torch_tells_of_meanwhile_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, loader = loader_of(scene)
    list(loader)

    def told(_: float) -> None:
        raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')

    monkeypatch.setattr(time, 'sleep', told)
    said = killed_worker(ConnectionResetError(), [dataset])
    assert said is not None and "(pid 7) was ended by the signal 'Killed'" in said


def test_memory_that_runs_out_is_told_with_the_patch(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*args: Any) -> None:
        raise MemoryError('Unable to allocate 9 TiB')

    monkeypatch.setattr(CataloniaSentinel2, 'read_into', read)
    for workers in (0, 1):
        with pytest.raises(LandcoverError) as failed:
            list(loader_of(scene, workers)[1])
        said = cli.explain(failed.value)
        assert said is not None and said.startswith('memory ran out when 2 patches were read, the first at rows ')
        assert 'S2_CAT_2018' in said and 'Traceback' not in said


def killed_after_a_state(command: list[str], folder: Path, victim: Callable[[int], int]) -> str:
    """What a training says that loses one of its processes after it kept a state."""
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(folder.rglob('resume.ckpt')) and time.monotonic() < deadline and started.poll() is None:
        time.sleep(0.02)
    os.kill(victim(started.pid), signal.SIGKILL)
    said = started.communicate(timeout=120)[1]
    assert started.returncode != 0
    assert 'Traceback' not in said, said
    return said


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


@pytest.mark.slow
def test_a_training_whose_worker_is_killed_tells_how_to_go_on(scene: Scene, tmp_path: Path) -> None:
    command = [*LANDCOVER, *fit(scene, tmp_path, '--data.num_workers=2', '--data.length=4000')]
    said = killed_after_a_state(command, tmp_path, lambda pid: children(pid)[-1])
    (line,) = [text for text in said.splitlines() if text.startswith('landcover: error: ')]
    assert 'a process that reads patches' in line and ' rows ' in line and 'resume.ckpt is kept: --resume true' in line


@pytest.mark.slow
def test_a_training_that_loses_a_process_says_so(scene: Scene, tmp_path: Path) -> None:
    command = [*LANDCOVER, *fit(scene, tmp_path, *TWO, '--data.length=4000')]
    said = killed_after_a_state(command, tmp_path, lambda pid: children(pid)[-1])
    assert 'of this run ended with code -9' in said or 'another of the 2 processes is gone' in said, said


@pytest.mark.slow
def test_a_damaged_block_is_named_by_a_worker_of_fit(tmp_path: Path) -> None:
    image = write_scene(tmp_path / 'data', size=(192, 256), seed=5, label_gsd=10, seasons=['201804'], tile=64).images[0]
    command = [
        *LANDCOVER, 'fit', f'--data.root={tmp_path}/data', f'--trainer.default_root_dir={tmp_path}', *TINY,
        '--data.num_workers=2', '--trainer.max_epochs=1', '--data.length=64',
    ]  # fmt: skip
    CataloniaDataModule(str(tmp_path / 'data'), patch_size=32).inventory()  # in the cache from here on
    close_rasters()
    times = image.stat().st_mtime_ns
    content = bytearray(image.read_bytes())
    start, stop = len(content) // 5, len(content) * 4 // 5
    content[start:stop] = np.random.default_rng(0).bytes(stop - start)
    image.write_bytes(content)
    os.utime(image, ns=(times, times))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    (line,) = [text for text in done.stderr.splitlines() if text.startswith('landcover: error: ')]
    assert f'{image.name} cannot be read' in line and 'rows ' in line and 'columns ' in line


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_dividing_the_network_needs_gpus_and_whole_checkpoints(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(fit(scene, tmp_path, '--trainer.strategy=fsdp')) == 1
    assert 'divides the network among GPUs, and torch finds none' in capsys.readouterr().err
    strategy = '--trainer.strategy={class_path: lightning.pytorch.strategies.FSDPStrategy, init_args: %s}'
    assert cli.main(fit(scene, tmp_path, strategy % '{state_dict_type: sharded}')) == 1
    assert 'state_dict_type: full' in capsys.readouterr().err
    assert cli.main(fit(scene, tmp_path, '--trainer.strategy=fsdp', '--model.ema=0.99')) == 1
    assert 'drop --model.ema' in capsys.readouterr().err
