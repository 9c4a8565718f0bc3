"""The search for better settings: its space, what it refuses, and that it goes on after failures and kills."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from lightning.pytorch import __version__ as _lightning  # noqa: F401 - binds its log handler before capturing

from landcover_plugin import cli
from landcover_plugin.commands.lightning import fit_settings
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.search.outcomes import Outcome, best, write_table
from landcover_plugin.search.plots import importances, write_plots
from landcover_plugin.search.space import Space, read_space

CONFIGS = Path(__file__).parents[1] / 'configs'
SMALL = CONFIGS / 'recommended' / 'small_scene.yaml'


def space_of(folder: Path, text: str) -> Space:
    path = folder / 'space.yaml'
    path.write_text(text)
    return read_space(path)


def test_draws_become_settings_and_back(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """
        model.lr: {loguniform: [1e-4, 1.0e-2]}
        model.loss: {choice: [ce, {ce: 1, dice: 0.5}]}
        data.batch_size: {quniform: [4, 16, 4]}
        data.noise: {quniform: [0, 0.3, 0.1]}
        model.patience: {randint: [2, 6]}
        """,
    )
    drawn = {'model.lr': 0.001, 'data.batch_size': 8, 'data.noise': 0.1, 'model.patience': 6}
    drawn['model.loss'] = space.dimensions['model.loss'].values[1]
    tree = space.overrides(drawn)
    assert tree == {
        'model': {'lr': 0.001, 'loss': {'ce': 1, 'dice': 0.5}, 'patience': 6},
        'data': {'batch_size': 8, 'noise': 0.1},
    }
    assert space.default(tree) == (drawn, [])
    tree['model'] |= {'lr': 0.1, 'loss': 'focal'}
    tree['data']['batch_size'] = 6
    assert space.default(tree)[1] == ['model.lr', 'model.loss', 'data.batch_size']
    probes = space.probes()
    assert [p['model.lr'] for p in probes] == pytest.approx([1e-4, 1e-3, 1e-2])
    assert {p['model.loss'] for p in probes} == set(space.dimensions['model.loss'].values)
    assert [p['data.batch_size'] for p in probes] == [4, 8, 16] or [p['data.batch_size'] for p in probes] == [4, 12, 16]


def test_distributions_draw_within_what_was_said(tmp_path: Path) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = space_of(
        tmp_path,
        'a: {loguniform: [1.0e-3, 1]}\nb: {randint: [1, 3]}\nc: {quniform: [4, 16, 4]}\nd: {choice: [x, 2]}',
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [study.ask(space.distributions()).params for _ in range(60)]
    assert {d['b'] for d in drawn} == {1, 2, 3}
    assert {d['c'] for d in drawn} == {4, 8, 12, 16} and all(isinstance(d['c'], int) for d in drawn)
    assert {json.loads(d['d']) for d in drawn} == {'x', 2}
    assert 0.3 < np.mean([d['a'] < 1e-3**0.5 for d in drawn]) < 0.7  # half below the geometric mean


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('[1]', 'names no setting'),
        ('model.lr: {uniform: [1, 0]}', r'model.lr: uniform takes \[a, b\] with a below b, got \[1, 0\]'),
        ('model.lr: {loguniform: [0, 1]}', 'loguniform takes numbers above 0'),
        ('model.lr: {uniform: [low, 1]}', 'model.lr: uniform takes numbers, got low'),
        ('model.lr: {normal: [0, 1]}', 'model.lr must be one of choice, uniform, loguniform, randint, quniform'),
        ('model.lr: 0.1', 'model.lr must be one of choice'),
        ('model.patience: {randint: [1.5, 3]}', 'randint takes whole numbers'),
        ('data.noise: {quniform: [0, 1, 0.3]}', 'whole steps between'),
        ('model.loss: {choice: [ce]}', 'two or more different values'),
        (
            'data.patch_size: {choice: [16, 32]}',
            'data.patch_size cannot be searched: it decides which ground',
        ),
        ('data.ratios: {choice: [[0.8, 0.1, 0.1], [0.6, 0.2, 0.2]]}', 'scores of different ground do not compare'),
        ('trainer.max_epochs: {randint: [1, 3]}', 'the search sets it'),
        ('model: {choice: [{lr: 1}, {lr: 2}]}\nmodel.lr: {uniform: [0, 1]}', 'model holds model.lr'),
        ('a: [', 'not valid YAML'),
    ],
)
def test_spaces_that_are_none_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LandcoverError, match=said):
        space_of(tmp_path, text)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('model.lrr: {uniform: [0, 1]}', 'did you mean model.lr?'),
        ('data.batch_size: {uniform: [1.5, 4]}', 'data.batch_size must be a whole number'),
        ('data.mix: {choice: [none, cutmax]}', "did you mean 'cutmix'?"),
        ('model.loss: {choice: [ce, hinge]}', 'loss must be one of ce'),
        ('data.batch_size: {choice: [4, 0]}', 'batch_size must be at least 1, got 0'),
    ],
)
def test_what_fit_would_refuse_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / 'space.yaml').write_text(text)
    output = tmp_path / 'search'
    command = ['tune', f'--config={SMALL}', f'--space={tmp_path / "space.yaml"}', f'--output={output}']
    assert cli.main(command) == 1
    assert said in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (['--trials=0'], '--trials must be at least 1, got 0'),
        (['--gpus-per-trial=2'], '--gpus-per-trial must be in [0, 1], got 2'),
        (['--epochs=3', '--grace=4'], '--grace must be at most the 3 epochs'),
        (['--config=none.yaml'], 'there is no file none.yaml'),
        (['--data.batchsize=3'], 'did you mean data.batch_size?'),
    ],
)
def test_options_that_make_no_search_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    (tmp_path / 'space.yaml').write_text('model.lr: {loguniform: [1.0e-4, 1.0e-2]}')
    command = ['tune', f'--config={SMALL}', f'--space={tmp_path / "space.yaml"}', f'--output={tmp_path / "s"}']
    assert cli.main([*command, *given]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize('package', ['ray.tune', 'optuna', 'sklearn'])
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(['tune', f'--config={SMALL}', f'--space={CONFIGS / "tune" / "small_scene.yaml"}']) == 1
    said = capsys.readouterr().err
    assert f'{package.partition(".")[0]} cannot be imported' in said
    assert said.rstrip().endswith("pip install 'landcover-plugin[tune]'")


@pytest.mark.parametrize(
    ('space', 'config'), [('unet.yaml', 'unet.yaml'), ('small_scene.yaml', 'recommended/small_scene.yaml')]
)
def test_spaces_that_come_along_fit_their_settings_and_hold_them(space: str, config: str) -> None:
    from landcover_plugin.commands.tune_search import check_settings

    found, settings = check_settings(['--config', str(CONFIGS / config)], str(CONFIGS / 'tune' / space))
    assert found.default(settings)[1] == []


def outcomes(space: Space, count: int = 24) -> list[Outcome]:
    """Trials whose score depends on the learning rate alone; the last failed."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(1, count + 1):
        drawn: dict[str, Any] = {'model.lr': 10 ** rng.uniform(-4, -2), 'model.loss': rng.choice(['"ce"', '"focal"'])}
        score = 1 - (np.log10(drawn['model.lr']) + 3) ** 2
        found.append(Outcome(number, f't{number}', 'complete', 3, float(score), 1.0, drawn))
    return [*found, Outcome(count + 1, 'bad', 'failed', 0, None, 0.1, found[0].drawn, 'it failed')]


def test_importance_finds_what_mattered_and_plots_are_drawn(tmp_path: Path) -> None:
    space = space_of(tmp_path, 'model.lr: {loguniform: [1.0e-4, 1.0e-2]}\nmodel.loss: {choice: [ce, focal]}')
    trials = outcomes(space)
    shares = write_plots(tmp_path, trials, space, 'val_mIoU', 'max')
    assert next(iter(shares)) == 'model.lr' and shares['model.lr'] > 0.8
    for name in ('parallel_coordinates', 'importance'):
        assert (tmp_path / f'{name}.png').read_bytes().startswith(b'\x89PNG')
        assert '<svg' in (tmp_path / f'{name}.svg').read_text()
    assert importances(trials[:3], space, 'max') == {}


def test_table_and_best(tmp_path: Path) -> None:
    trials = outcomes(space_of(tmp_path, 'model.lr: {uniform: [0, 1]}'))
    lowest, highest = best(trials, 'min'), best(trials, 'max')
    scores = [o.score for o in trials if o.score is not None]
    assert lowest is not None and highest is not None
    assert (lowest.score, highest.score) == (min(scores), max(scores))
    assert best(trials[-1:], 'max') is None
    write_table(tmp_path / 'trials.csv', trials, 'val_mIoU')
    rows = list(csv.DictReader((tmp_path / 'trials.csv').open()))
    assert len(rows) == len(trials) and rows[-1]['message'] == 'it failed' and rows[-1]['val_mIoU'] == ''
    assert {row['model.loss'] for row in rows} == {'ce', 'focal'}


def ended(folder: Path) -> int:
    """Trials that the table of a search calls ended."""
    table = folder / 'trials.csv'
    rows = list(csv.DictReader(table.open())) if table.is_file() else []
    return sum(row['status'] in ('complete', 'stopped', 'failed') for row in rows)


@pytest.mark.slow
def test_a_search_outlives_a_failed_trial_and_a_kill(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / 'space.yaml').write_text(
        'model.lr: {loguniform: [1.0e-3, 1.0e-2]}\nmodel.backbone: {choice: [plain16, plain15]}\n'
    )
    folder = tmp_path / 'search'
    command = [
        sys.executable, '-m', 'landcover_plugin', 'tune', f'--config={SMALL}', '--space=space.yaml',
        f'--data.root={scene.label.parent}', '--data.length=16', '--model.backbone=plain16', '--trials=4',
        '--epochs=2', '--scheduler=none', '--cpus-per-trial=1', '--seed=1', '--output=search',
    ]  # fmt: skip
    with (tmp_path / 'first.txt').open('w') as told:
        started = subprocess.Popen(command, cwd=tmp_path, stderr=told, start_new_session=True)
        deadline = time.monotonic() + 240
        while ended(folder) < 1 and time.monotonic() < deadline and started.poll() is None:
            time.sleep(0.1)
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    before = list(csv.DictReader((folder / 'trials.csv').open()))
    assert ended(folder) >= 1, (tmp_path / 'first.txt').read_text()
    assert not (folder / 'best.yaml').exists()

    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 1 and 'go on with --resume' in again.stderr
    other = subprocess.run([*command, '--resume', '--trials=5'], cwd=tmp_path, capture_output=True, text=True)
    assert other.returncode == 1 and 'has --trials 4, not 5' in other.stderr

    done = subprocess.run([*command, '--resume'], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((folder / 'trials.csv').open()))
    assert len(rows) == 4 and rows[0]['folder'] == before[0]['folder']
    for row in rows:
        failed = row['model.backbone'] == 'plain15'
        assert row['status'] == ('failed' if failed else 'complete'), row
        assert ('plain15' in row['message']) == failed
    assert {row['status'] for row in rows} == {'failed', 'complete'}  # this seed draws both
    assert 'Traceback' not in done.stderr
    _check_results(folder, rows, scene)


def _check_results(folder: Path, rows: list[dict[str, str]], scene: Scene) -> None:
    """The results are those of the best trial, and ready for fit and predict."""
    leader = max((row for row in rows if row['val_mIoU']), key=lambda row: float(row['val_mIoU']))
    settings = yaml.safe_load(fit_settings(['--config', str(folder / 'best.yaml')]))
    assert settings['model']['lr'] == pytest.approx(float(leader['model.lr']))
    assert settings['trainer']['max_epochs'] == 2
    assert settings['trainer']['default_root_dir'] == 'runs/small_scene'
    kept = {path.parents[3].name for path in folder.rglob('checkpoints/best.ckpt')}
    assert kept == {leader['folder']}
    document = json.loads((folder / 'tune.json').read_text())
    assert document['best']['identity'] == leader['folder'] and len(document['trials']) == 4
    assert list((folder / 'tensorboard').rglob('events.out.tfevents.*'))
    with rasterio.open(scene.images[0]) as src:
        left, top = src.bounds.left, src.bounds.top
    box = [left, top - 640, left + 640, top]
    map_ = folder / 'map.tif'
    assert (
        cli.main(['predict', f'--ckpt_path={folder / "best.ckpt"}', f'--data.bbox={box}', f'--output.path={map_}']) == 0
    )
    with rasterio.open(map_) as src:
        assert (src.height, src.width) == (64, 64) and src.read(1).any()
