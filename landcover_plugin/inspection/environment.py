"""The software and the machine, for reports of faults. Imports none of what it names."""

import platform
import shutil
import subprocess
from importlib import metadata

import numpy as np
import rasterio

from .._version import __version__
from ..machine import memory_bytes, processors

#: Distributions whose versions matter, as the package index spells them.
STACK = (
    'torch',
    'torchgeo',
    'lightning',
    'segmentation-models-pytorch',
    'transformers',
    'kornia',
    'torchmetrics',
    'geopandas',
    'numba',
)


def environment() -> dict[str, str]:
    """Versions of the stack, and what the machine offers, by name."""
    found = {'landcover': __version__, 'python': platform.python_version()}
    found |= {name: version_of(name) for name in STACK}
    found |= {'rasterio': rasterio.__version__, 'GDAL': rasterio.__gdal_version__, 'numpy': np.__version__}
    found |= {'system': f'{platform.system()} {platform.release()} {platform.machine()}'}
    found |= {'processors': str(processors())}
    found |= {'memory': f'{memory_bytes() / 2**30:.1f} GiB', 'GPU': gpu()}
    return found


def stack() -> str:
    """The software below this package in one line, for ``landcover --version``."""
    parts = [f'python {platform.python_version()}', *(f'{name} {version_of(name)}' for name in ('torch', 'torchgeo'))]
    parts += [f'rasterio {rasterio.__version__}', f'GDAL {rasterio.__gdal_version__}', f'numpy {np.__version__}']
    return ', '.join([*parts, f'{platform.system()} {platform.machine()}'])


def version_of(name: str) -> str:
    """Version of an installed distribution, or 'not installed'."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return 'not installed'


def gpu() -> str:
    """Names of the NVIDIA devices as their driver tells them, or 'none seen'."""
    tool = shutil.which('nvidia-smi')
    if tool is None:
        return 'none seen'
    try:
        told = subprocess.run(
            [tool, '--query-gpu=name,memory.total', '--format=csv,noheader'],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return 'none seen (nvidia-smi fails)'
    return '; '.join(told.stdout.split('\n')).strip('; ') or 'none seen'
