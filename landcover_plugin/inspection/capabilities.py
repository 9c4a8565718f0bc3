"""What the installation can do, for reports of faults: optional engines, devices, drivers, threads, memory, disks."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import rasterio

from ..machine import free_memory, memory_bytes
from .environment import version_of

#: Distributions that add something, and what.
OPTIONAL = {
    'openvino': 'engine for mapping',
    'onnxruntime': 'engine for mapping',
    'onnx': 'export',
    'onnxscript': 'export',
    'mlflow-skinny': 'landcover register',
    'google-cloud-aiplatform': 'landcover cloud',
}

#: GDAL drivers that commands read or write with.
DRIVERS = ('GTiff', 'COG', 'VRT', 'GPKG', 'PNG')

#: Variables that change how many threads run or how GDAL reads; none of them holds a secret.
VARIABLES = ('OMP_NUM_THREADS', 'GDAL_NUM_THREADS', 'GDAL_CACHEMAX', 'NUMBA_NUM_THREADS', 'CUDA_VISIBLE_DEVICES')

#: Runs in a process of its own: a torch that cannot be imported, or dies, is an answer too.
_ASK_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    'torch build': f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU',
    'CUDA': ', '.join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) if cuda else 'no device',
    'bf16 on the GPU': str(cuda and torch.cuda.is_bf16_supported()).lower(),
    'bf16 on the processor': str(torch.ops.mkldnn._is_mkldnn_bf16_supported()).lower(),
    'vector instructions': torch.backends.cpu.get_cpu_capability(),
    'torch threads': str(torch.get_num_threads()),
}))
"""


def capabilities() -> dict[str, str]:
    """Optional packages, devices, drivers, threads, memory and disks, by name. Torch answers in another process."""
    found = {name: f'{version_of(name)} ({purpose})' for name, purpose in OPTIONAL.items()}
    found |= ask_torch()
    found |= {'GDAL drivers': _drivers()}
    found |= {name: os.environ[name] for name in VARIABLES if name in os.environ}
    found |= {'memory free': f'{free_memory() / 2**30:.1f} of {memory_bytes() / 2**30:.1f} GiB'}
    places = {'here': Path.cwd(), 'temporary files': Path(tempfile.gettempdir()), 'home': Path.home()}
    return found | {f'disk free, {name}': _free_disk(path) for name, path in places.items()}


def ask_torch(python: str = sys.executable, seconds: float = 120) -> dict[str, str]:
    """What torch says of itself and of the devices; if it says nothing, why.

    Args:
        python: Interpreter that is asked.
        seconds: After which it is not waited for any longer.
    """
    try:
        done = subprocess.run([python, '-c', _ASK_TORCH], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {'torch build': f'not known: torch was not imported within {seconds:g} s'}
    except OSError as error:
        return {'torch build': f'not known: {error.strerror}'}
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f'it ended with code {done.returncode}'])[-1]
        return {'torch build': f'cannot be imported: {reason}'}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _drivers() -> str:
    with rasterio.Env() as env:
        names = env.drivers()
    missing = [name for name in DRIVERS if name not in names]
    told = f'without {", ".join(missing)}' if missing else f'with {", ".join(DRIVERS)}'
    return f'{len(names)}, {told}'


def _free_disk(path: Path) -> str:
    try:
        return f'{shutil.disk_usage(path).free / 1e9:,.1f} GB'
    except OSError as error:
        return f'not known ({error.strerror})'
