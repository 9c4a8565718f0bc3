"""What is shipped: licences that are known, one version, archives that are complete, no index named in any file."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from landcover_plugin import __version__

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'scripts'))

import check_dist  # noqa: E402
import licences  # noqa: E402


def test_every_licence_is_known_and_allowed() -> None:
    found = list(licences.dependencies())
    some = {'torch', 'torchgeo', 'openvino', 'mlflow-skinny', 'google-cloud-aiplatform', 'ruff'}
    assert some <= {d.name for d in found}
    assert not [d for d in found if not licences.is_allowed(d.licence)]


def test_the_table_is_up_to_date() -> None:
    made = licences.table(list(licences.dependencies()))
    assert (ROOT / 'THIRD_PARTY.md').read_text(encoding='utf-8') == made, 'make licences'


@pytest.mark.parametrize('licence', ['GPL-3.0-only', '', 'MIT AND LGPL-2.1-only', '(MIT AND AGPL-3.0-only)'])
def test_licences_that_are_not_allowed(licence: str) -> None:
    assert not licences.is_allowed(licence)


def test_an_unknown_package_has_no_licence(tmp_path: Path) -> None:
    path = tmp_path / 'pyproject.toml'
    path.write_text('[project]\nname="a"\ndependencies=["no-such-package-here>=1"]\n[project.optional-dependencies]\n')
    assert list(licences.dependencies(path)) == [('no-such-package-here', '', '')]


def test_the_version_stands_in_one_place() -> None:
    names = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    code = [n for n in names if Path(n).suffix in ('.py', '.toml', '.yaml', '.yml', '.sh') or n == 'Dockerfile']
    wording = re.compile(rf'version[\W_]+[\'"]?{re.escape(__version__)}\b')
    holding = [n for n in code if (ROOT / n).is_file() and wording.search((ROOT / n).read_text(encoding='utf-8'))]
    assert holding == ['landcover_plugin/_version.py']


def test_archives_are_compared_with_what_git_holds() -> None:
    tracked = {'landcover_plugin/__init__.py': b'1', 'landcover_plugin/py.typed': b'', 'tests/test_x.py': b''}
    package = {k: v for k, v in tracked.items() if not k.startswith('tests')}
    wheel = package | {'landcover_plugin-1.dist-info/METADATA': b''}
    sdist = tracked | dict.fromkeys(check_dist.BESIDE, b'')
    assert check_dist.faults(wheel, sdist, tracked) == []
    without = {k: v for k, v in wheel.items() if 'typed' not in k}
    assert check_dist.faults(without, sdist, tracked) == [
        'the wheel lacks landcover_plugin/py.typed, or holds another version of it'
    ]
    assert check_dist.faults(wheel | tracked, sdist, tracked) == [
        'the wheel holds tests/test_x.py, which is no file of the package'
    ]
    changed = wheel | {'landcover_plugin/__init__.py': b'2'}
    assert check_dist.faults(changed, {}, tracked)[0].startswith('the wheel lacks landcover_plugin/__init__.py')
    assert 'the sdist lacks LICENSE' in check_dist.faults(wheel, package, tracked)
