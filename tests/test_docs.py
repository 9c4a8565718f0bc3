"""The documentation: its examples run, its notebook is kept bare, its pages fetch nothing."""

import doctest
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip('sybil')
ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
sys.path.insert(0, str(DOCS))

import check_pages  # noqa: E402
import generate_reference  # noqa: E402
import reference_choices  # noqa: E402
import reference_markdown  # noqa: E402
import run_page  # noqa: E402
from sybil import Sybil  # noqa: E402
from sybil.parsers.myst import CodeBlockParser  # noqa: E402

from landcover_plugin import cli  # noqa: E402
from landcover_plugin.datasets.simulated import Scene  # noqa: E402

#: Stands for configs/unet.yaml, which is made for a GPU.
TINY = """\
trainer: {max_epochs: 1, accelerator: cpu}
model: {model: unet_scratch, backbone: spectral32, weights: false}
data: {patch_size: 32, block_size: 64, length: 32, num_workers: 0, batch_size: 8}
"""


@pytest.fixture
def folder(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with what a reader has: the configs and a scene."""
    shutil.copytree(scene.label.parent, tmp_path / 'data', ignore=shutil.ignore_patterns('.landcover'))
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('page', ['accuracy', 'howto/sensor'])
def test_examples_of_python(page: str, folder: Path) -> None:
    assert run_page.run_page(DOCS / f'{page}.md') >= 5


def test_example_of_the_readme(folder: Path) -> None:
    """It is included in a page; the scene here has room for smaller patches."""
    (example,) = Sybil([CodeBlockParser('python', print)]).parse(ROOT / 'README.md').examples()
    written, smaller = 'size=256, length=1000', 'size=32, length=4'
    assert written in example.parsed
    found: dict[str, Any] = {}
    exec(example.parsed.replace(written, smaller), found)
    assert found['batch']['image'].shape == (4, 4, 32, 32)
    assert found['batch']['mask'].shape == found['batch']['valid'].shape == (4, 32, 32)


@pytest.mark.slow
@pytest.mark.usefixtures('one_thread')
def test_quick_start(folder: Path) -> None:
    shutil.rmtree('data')
    run_page.run_page(DOCS / 'quickstart.md')
    assert Path('report', 'scores.md').is_file()
    assert Path('map.png').is_file()


@pytest.mark.slow
@pytest.mark.usefixtures('one_thread')
def test_walkthrough_and_model_card(folder: Path) -> None:
    Path('configs', 'unet.yaml').write_text(TINY)
    run_page.run_page(DOCS / 'walkthrough.md', also={'doctor': ['--patch-size', '32']})
    run_page.run_page(DOCS / 'cards' / 'model.md')
    written = [
        'map.gpkg',
        'areas.json',
        'differences/change.tif',
        'exported/model.pt2',
        'data/.landcover/store/areas.csv',
    ]
    assert [name for name in written if not Path(name).is_file()] == []


@pytest.mark.slow
@pytest.mark.usefixtures('one_thread')
def test_better_settings(folder: Path) -> None:
    pytest.importorskip('ray.tune')
    page = DOCS / 'tune.md'
    (space,) = Sybil([CodeBlockParser('yaml', print)]).parse(page).examples()
    Path(run_page.caption_of(space) or '').write_text(space.parsed)
    small = ['--data.length=32', '--trials=2', '--epochs=1']
    run_page.run_page(page, also={'tune': small, 'fit': ['--trainer.max_epochs=1', '--data.length=32']})
    assert Path('runs', 'tune', 'best.ckpt').is_file() and Path('runs', 'tune', 'trials.csv').is_file()


def change_package(page: Path, folder: Path) -> None:
    """Write the files and make the changes that a page shows, in a folder with a copy of the package."""
    for example in Sybil([CodeBlockParser('python', print)]).parse(page).examples():
        if caption := run_page.caption_of(example):
            (folder / caption).write_text(example.parsed, encoding='utf-8')
    for example in Sybil([CodeBlockParser('diff', print)]).parse(page).examples():
        subprocess.run(['git', 'apply', '-'], input=example.parsed, cwd=folder, text=True, check=True)


@pytest.mark.slow
@pytest.mark.parametrize('names', [('network', 'loss'), ('legend',)], ids='-'.join)
def test_how_tos_change_the_package(names: tuple[str, ...], folder: Path) -> None:
    shutil.copytree(ROOT / 'landcover_plugin', folder / 'landcover_plugin')  # with what numba compiled
    pages = [DOCS / 'howto' / f'{name}.md' for name in names]
    for page in pages:
        change_package(page, folder)
    done = subprocess.run(
        [sys.executable, DOCS / 'run_page.py', *pages],
        env=os.environ | {'PYTHONPATH': str(folder), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count(' examples\n') == len(pages)


def test_changes_that_how_tos_show_fit_the_package(tmp_path: Path) -> None:
    shutil.copytree(ROOT / 'landcover_plugin', tmp_path / 'landcover_plugin')
    for page in ('network', 'loss', 'legend'):
        change_package(DOCS / 'howto' / f'{page}.md', tmp_path)


@pytest.mark.parametrize('module', [reference_markdown, run_page])
def test_docstrings(module: ModuleType) -> None:
    failed, tried = doctest.testmod(module)
    assert tried and not failed


def test_a_wrong_example_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / 'page.md'
    for block in ('```python\n>>> 1 + 1\n3\n```', '```python\nassert 1 > 2\n```', '```sh\nlandcover simulat data\n```'):
        page.write_text(f'# A page\n\n{block}\n')
        with pytest.raises(Exception, match=r'Expected|1 > 2|ended with 1|^$'):
            run_page.run_page(page)


def test_the_notebook_is_kept_without_outputs() -> None:
    for path in (DOCS / 'notebooks').glob('*.ipynb'):
        cells = [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
        assert cells
        assert all(c['outputs'] == [] and c['execution_count'] is None for c in cells), (
            f'clear the outputs of {path.name}'
        )


def test_every_command_has_its_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('COLUMNS', generate_reference.COLUMNS)
    monkeypatch.setattr(generate_reference, 'help_of', lambda name: f'usage: landcover {name}')
    pages = dict(generate_reference.command_pages())
    assert [f'commands/{name}' for name in cli.COMMANDS] == [name for name in pages if name != 'commands/index']
    monkeypatch.undo()
    assert '--label-gsd' in generate_reference.help_of('simulate')
    with pytest.raises(RuntimeError, match='printed no usage'):
        generate_reference.help_of('nothing')


def test_commands_with_keys_have_a_page_of_keys() -> None:
    with_keys = {name for name, command in cli.COMMANDS.items() if command.module == 'lightning'}
    assert {command for _, _, command, _ in generate_reference.KEY_PAGES.values()} == with_keys


def test_every_key_stands_on_a_page() -> None:
    pages = dict(generate_reference.key_pages())
    assert 'keep.minutes' in pages['keys/fit'] and 'data.mix' in pages['keys/data']


def test_names_to_choose_from_come_from_the_code() -> None:
    from landcover_plugin.models import NETWORKS
    from landcover_plugin.training.losses import LOSSES

    text = dict(reference_choices.choice_pages())['choices']
    assert all(f'| `{name}` |' in text for name in (*NETWORKS, *LOSSES))


def test_what_pages_fetch_from_elsewhere_is_found(tmp_path: Path) -> None:
    kept = '<a href="https://x.org">x</a><link rel="stylesheet" href="a.css"><script src="b.js"></script>'
    fetched = '<link href="https://cdn.org/a.css" rel="stylesheet"><script async src="//cdn.org/b.js"></script>'
    (tmp_path / 'index.html').write_text(kept)
    assert list(check_pages.outside(tmp_path)) == []
    (tmp_path / 'index.html').write_text(kept + fetched)
    (tmp_path / 'a.css').write_text('@font-face { src: url("https://fonts.org/f.woff2") }')
    assert list(check_pages.outside(tmp_path)) == [
        'index.html fetches https://cdn.org/a.css',
        'index.html fetches //cdn.org/b.js',
        'a.css fetches https://fonts.org/f.woff2',
    ]
