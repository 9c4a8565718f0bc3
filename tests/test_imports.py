"""Imports cost what they must and point one way: in the order of the data's way through the system."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import landcover_plugin

PACKAGE = Path(landcover_plugin.__file__).parent

#: Rooms in the order of the data's way; a module imports from its own room and those before it.
ROOMS = (
    'grid',
    'rasters',
    'datasets',
    'sampling',
    'inspection',
    'models',
    'training',
    'mapping',
    'evaluation',
    'viewing',
    'publishing',
    'search',
    'commands',
    'cli',
    '__main__',
)
EVERYWHERE = ('errors', '_version', '__version__', 'legend', 'machine')

MODULES = sorted(PACKAGE.rglob('*.py'))


def run(code: str) -> str:
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of each import from this package, also those inside functions."""
    parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(parts[: len(parts) - node.level]) if node.level else ''
            module = '.'.join(filter(None, (base, node.module)))
            names = [f'{module}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith(f'{PACKAGE.name}.'):
                yield node.lineno, name.split('.')[1]


def test_pure_raster_code_loads_no_torch() -> None:
    rasters = [f'landcover_plugin.rasters.{p.stem}' for p in (PACKAGE / 'rasters').glob('[a-z]*.py')]
    names = [
        'landcover_plugin',
        'landcover_plugin.errors',
        'landcover_plugin.legend',
        'landcover_plugin.grid',
        *sorted(rasters),
        *(
            f'landcover_plugin.sampling.{p.stem}'
            for p in (PACKAGE / 'sampling').glob('[a-z]*.py')
            if p.stem != 'samplers'
        ),
        'landcover_plugin.datasets.simulated',
        'landcover_plugin.commands.simulate',
        *(f'landcover_plugin.inspection.{p.stem}' for p in (PACKAGE / 'inspection').glob('[a-z]*.py')),
        'landcover_plugin.commands.prepare',
        'landcover_plugin.commands.doctor',
        'landcover_plugin.commands.polygonize',
        'landcover_plugin.mapping.geopackage',
        'landcover_plugin.mapping.refinement',
        'landcover_plugin.mapping.stac',
        'landcover_plugin.sampling.regions',
        *(
            f'landcover_plugin.evaluation.{p.stem}'
            for p in (PACKAGE / 'evaluation').glob('[a-z]*.py')
            if p.stem not in ('callbacks', 'calibrator', 'tally')
        ),
        *(f'landcover_plugin.viewing.{p.stem}' for p in (PACKAGE / 'viewing').glob('[a-z]*.py')),
        *(
            f'landcover_plugin.commands.{name}'
            for name in ('areas', 'sample', 'compare', 'files', 'view', 'register', 'cloud')
        ),
        *(
            f'landcover_plugin.publishing.{name}'
            for name in ('addresses', 'scores', 'mlflow_client', 'google_requests', 'google_client', 'training_jobs')
        ),
    ]
    assert len(rasters) >= 3
    code = f'import importlib, sys\nfor n in {names}: importlib.import_module(n); assert "torch" not in sys.modules, n'
    run(code)


def test_public_names_load_on_first_use() -> None:
    code = """
import sys
import landcover_plugin
assert 'torch' not in sys.modules and dir(landcover_plugin) == sorted(landcover_plugin.__all__)
from landcover_plugin import CataloniaSentinel2, ICGCLandCover, __version__
import landcover_plugin.datasets.sentinel2 as home
assert CataloniaSentinel2 is home.CataloniaSentinel2 is landcover_plugin.CataloniaSentinel2
assert 'torch' in sys.modules and __version__
"""
    run(code)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        landcover_plugin.Nothing  # noqa: B018


@pytest.mark.parametrize('path', MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix('').parts[0]
    if own == '__init__':  # the lazy door to all rooms
        return
    allowed = set(EVERYWHERE)
    if own not in EVERYWHERE:
        assert own in ROOMS, f'{path.name} stands in no room: add {own!r} to ROOMS'
        allowed |= set(ROOMS[: ROOMS.index(own) + 1])
    wrong = [f'line {line} imports {room}' for line, room in imports_of(path) if room not in allowed]
    assert not wrong, f'{path.relative_to(PACKAGE)}: {wrong}'


def test_the_direction_test_sees_imports() -> None:
    assert {room for _, room in imports_of(PACKAGE / 'datasets' / 'base.py')} == {'grid'}
    assert 'datasets' in {room for _, room in imports_of(PACKAGE / 'commands' / 'simulate.py')}
