#!/usr/bin/env bash
# The wheel in dist/ as a user has it: installed into a fresh environment, run from a folder outside the checkout.
# Called by `make dist`. Its dependencies are those of .venv, seen through a .pth file, so nothing is fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

.venv/bin/python scripts/check_dist.py dist

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
unset PYTHONPATH
wheel=$(realpath dist/*.whl)
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if command -v uv >/dev/null; then
  uv venv --quiet --python .venv/bin/python "$place/venv"
  uv pip install --quiet --python "$place/venv/bin/python" --no-deps --no-index "$wheel"
else
  .venv/bin/python -m venv "$place/venv"
  "$place/venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --no-index "$wheel"
fi
# A .pth file in a folder that came by a .pth file is not read: the checkout, installed editably in .venv, stays unseen.
echo "$site" > "$("$place/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth"

cd "$place"
venv/bin/landcover --version
venv/bin/landcover simulate data --size 192 --seed 1 >/dev/null
venv/bin/python - <<'END'
import sys
from importlib.metadata import files, version
from pathlib import Path

import landcover_plugin

home = Path(landcover_plugin.__file__)
assert home.is_relative_to(sys.prefix), f'{home} is not that of the wheel'
assert version('landcover-plugin') == landcover_plugin.__version__
assert (home.parent / 'py.typed').is_file()
assert not [f for f in files('landcover-plugin') if f.parts[0] in ('tests', 'scripts', 'configs')]
from landcover_plugin import CataloniaDataModule, CataloniaSentinel2, LandCoverSegmentation

assert CataloniaSentinel2('data').bounds
print(f'the wheel works: {home.parent}')
END
