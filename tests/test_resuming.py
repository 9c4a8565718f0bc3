"""Trainings that are killed, that meet a full disk or lose their loss: what is kept, and that it is gone on with."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from landcover_plugin import CataloniaDataModule, cli
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.sampling.samplers import RankSampler
from landcover_plugin.training.resuming import RunKeeper, WholeCheckpoints, newest_state

TINY = [
    '--model.model=unet_scratch', '--model.backbone=plain16', '--model.weights=false', '--data.patch_size=32',
    '--data.num_workers=0', '--trainer.accelerator=cpu', '--trainer.enable_progress_bar=false',
]  # fmt: skip

LANDCOVER = [sys.executable, '-m', 'landcover_plugin']


def fit(scene: Scene, folder: Path, *more: str) -> list[str]:
    """A training of 2 epochs of 6 steps, with much left to chance, that keeps its state every 2 steps."""
    return [
        'fit', f'--data.root={scene.label.parent}', f'--trainer.default_root_dir={folder}', *TINY,
        '--data.length=24', '--data.batch_size=4', '--trainer.max_epochs=2', '--data.mix=cutmix', '--keep.steps=2',
        *more,
    ]  # fmt: skip


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(next(folder.rglob('last.ckpt')), weights_only=True)['state_dict']


def scalars(run: Path, step: int) -> dict[str, float]:
    """What a run logged of the validation patches at a step."""
    events = EventAccumulator(str(run)).Reload()
    values = [(tag, e) for tag in events.Tags()['scalars'] if tag.startswith('val_') for e in events.Scalars(tag)]
    return {tag: e.value for tag, e in values if e.step == step}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize('world', [1, 2])
def test_the_patches_that_were_trained_on_are_passed_over(scene: Scene, world: int) -> None:
    data = CataloniaDataModule(str(scene.label.parent), patch_size=32, length=17, batch_size=2, num_workers=0)
    data.setup('fit')
    data.train_dataloader()
    sampler = data.train_sampler
    ranks = [RankSampler(sampler, rank=rank, world=world, even=True) for rank in range(world)]
    sampler.set_epoch(3)
    whole = [list(rank) for rank in ranks]
    sampler.pass_over(3, 4 * world)
    assert [list(rank) for rank in ranks] == [patches[4:] for patches in whole]
    sampler.set_epoch(4)
    assert len(list(ranks[0])) == len(whole[0]) != 0


TWO = ['--trainer.devices=2', '--trainer.strategy=ddp', '--data.batch_size=2']


@pytest.fixture(scope='module')
def whole(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes the folder of a training that is not stopped, once for each set of arguments."""

    @functools.cache
    def make(*more: str) -> Path:
        folder = tmp_path_factory.mktemp('whole')
        done = subprocess.run([*LANDCOVER, *fit(scene, folder, *more)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return folder

    return make


def test_loaders_made_later_draw_what_the_first_drew(scene: Scene) -> None:
    """Steps seed the generator anew, so it must not be asked again; 0 is a seed like others."""
    torch.manual_seed(0)
    data = CataloniaDataModule(str(scene.label.parent), patch_size=32, length=4, batch_size=2, num_workers=0)
    data.setup('fit')
    data.train_dataloader()
    first = list(data.train_sampler)
    torch.manual_seed(7)
    data.train_dataloader()
    assert list(data.train_sampler) == first


@pytest.mark.slow
@pytest.mark.parametrize(
    ('processes', 'workers'), [([], 0), ([], 2), (TWO, 0)], ids=['alone', 'two workers', 'two processes']
)
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(
    scene: Scene, whole: Callable[..., Path], tmp_path: Path, processes: list[str], workers: int
) -> None:
    expected = whole(*processes)
    command = [*LANDCOVER, *fit(scene, tmp_path, *processes, f'--data.num_workers={workers}', '--resume=true')]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert started.stderr is not None
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob('resume.ckpt')) and time.monotonic() < deadline and started.poll() is None:
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGKILL)
    assert 'no run' in started.communicate()[1]
    state = torch.load(next(tmp_path.rglob('resume.ckpt')), weights_only=True)
    assert state['global_step'] % 6 != 0  # within an epoch
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 'going on with' in done.stderr
    assert same(weights(tmp_path), weights(expected))
    assert [p.name for p in tmp_path.rglob('version_*')] == ['version_0']
    best = [next(f.rglob('best.ckpt')) for f in (expected, tmp_path)]
    assert same(*(torch.load(path, weights_only=True)['state_dict'] for path in best))


@pytest.mark.slow
def test_a_training_of_one_epoch_goes_on_with_the_next(
    scene: Scene, whole: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the checkpoint of the end of an epoch, with all patches of the next one."""
    assert cli.main(fit(scene, tmp_path, '--trainer.max_epochs=1')) == 0
    assert cli.main(fit(scene, tmp_path, '--resume=true')) == 0
    assert same(weights(tmp_path), weights(whole()))


@pytest.mark.slow
def test_two_processes_score_as_one_does(scene: Scene, whole: Callable[..., Path], tmp_path: Path) -> None:
    """All that the run of two processes logged of its best checkpoint is what one process finds."""
    path = next(whole(*TWO).rglob('best.ckpt'))
    step = torch.load(path, weights_only=True)['global_step']
    logged = scalars(path.parents[1], step - 1)
    logger = ['--trainer.logger=TensorBoardLogger', f'--trainer.logger.save_dir={tmp_path}']
    arguments = ['validate', f'--ckpt_path={path}', '--trainer.accelerator=cpu', '--trainer.enable_progress_bar=false']
    assert cli.main([*arguments, *logger]) == 0
    found = scalars(next(tmp_path.rglob('events.*')).parent, step=0)
    assert {'val_mIoU', 'val_OA', 'val_loss'} <= found.keys() == logged.keys()
    assert found == pytest.approx(logged, abs=1e-6, nan_ok=True)


@pytest.mark.slow
def test_torchrun_starts_the_processes(scene: Scene, whole: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=29777', '-m',
               'landcover_plugin', *fit(scene, tmp_path, *TWO)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert same(weights(tmp_path), weights(whole(*TWO)))


@pytest.mark.slow
def test_tasks_of_slurm_find_each_other(scene: Scene, whole: Callable[..., Path], tmp_path: Path) -> None:
    """Two tasks with the variables that SLURM sets for them, in place of srun."""
    job = {
        'JOB_ID': '7',
        'JOB_NAME': 'fit',
        'NTASKS': '2',
        'NTASKS_PER_NODE': '2',
        'NNODES': '1',
        'NODELIST': 'localhost',
    }
    places = [{**job, 'NODEID': '0', 'PROCID': str(task), 'LOCALID': str(task)} for task in range(2)]
    tasks = [
        subprocess.Popen(
            [*LANDCOVER, *fit(scene, tmp_path, *TWO)],
            env={**os.environ, 'MASTER_PORT': '29778', **{f'SLURM_{name}': value for name, value in place.items()}},
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in places
    ]
    said = [task.communicate(timeout=300)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert same(weights(tmp_path), weights(whole(*TWO)))


@pytest.mark.slow
def test_a_training_that_is_asked_to_end_keeps_its_last_step(scene: Scene, tmp_path: Path) -> None:
    more = ['--keep.steps=null', '--data.length=400', '--resume=true']
    command = [*LANDCOVER, *fit(scene, tmp_path, *more)]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    events = 'events.out*'
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob(events)) and time.monotonic() < deadline and started.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    started.send_signal(signal.SIGTERM)
    said = started.communicate(timeout=120)[1]
    assert started.returncode != 0
    assert 'asked to end: the state of step' in said, said
    assert 'Traceback' not in said, said
    state = newest_state(tmp_path)
    assert state is not None and torch.load(state, weights_only=True)['global_step'] >= 1


def test_without_a_run_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    assert newest_state(tmp_path) is None
    folder = tmp_path / 'lightning_logs' / 'version_3' / 'checkpoints'
    folder.mkdir(parents=True)
    for number, name in enumerate(('last.ckpt', 'resume.ckpt', 'best.ckpt')):
        (folder / name).touch()
        os.utime(folder / name, ns=(number, number))
    assert newest_state(tmp_path) == folder / 'resume.ckpt'


def test_two_ways_of_going_on_are_one_too_many(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(fit(scene, tmp_path, '--resume=true', '--ckpt_path=last')) == 1
    assert 'give one of them' in capsys.readouterr().err


@pytest.mark.parametrize('settings', [{'minutes': 0}, {'steps': -1}])
def test_states_are_kept_in_intervals(settings: dict[str, Any]) -> None:
    with pytest.raises(LandcoverError, match='must be above 0'):
        RunKeeper(**settings)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    disk = tmp_path / 'disk'
    disk.mkdir()
    made = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', str(disk)], capture_output=True)
    if made.returncode:
        pytest.skip('making a small disk needs root')
    try:
        path, io = disk / 'run' / 'last.ckpt', WholeCheckpoints()
        io.save_checkpoint({'step': 1, 'state': torch.zeros(300_000, dtype=torch.uint8)}, path)
        with pytest.raises(LandcoverError, match=r'last\.ckpt cannot be written \(No space left.*left as it was'):
            io.save_checkpoint({'step': 2, 'state': torch.zeros(3_000_000, dtype=torch.uint8)}, path)
        assert torch.load(path, weights_only=True)['step'] == 1
        assert [file.name for file in path.parent.iterdir()] == ['last.ckpt']
    finally:
        subprocess.run(['umount', str(disk)], check=True)


def test_a_loss_that_is_no_number_ends_the_training(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(fit(scene, tmp_path, '--model.lr=1e30')) == 1
    said = capsys.readouterr().err
    assert 'the loss of step' in said and 'Choose a smaller --model.lr' in said and 'Traceback' not in said
    batch = torch.load(next(tmp_path.rglob('not_finite*.pt')), weights_only=True)
    assert batch['image'].shape == (4, 10, 32, 32) and np.isfinite(batch['image'].numpy()).all()
