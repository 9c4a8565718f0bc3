"""What the machine, or the container, has for this process."""

import ctypes
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path

_CGROUP = Path('/sys/fs/cgroup')


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of the machine, or of the container if that is less; 0 where neither is known."""
    try:
        total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    except (AttributeError, OSError, ValueError):
        total = 0
    limit = _number('memory.max')
    return total if limit is None else min(limit, total or limit)


def free_memory() -> int:
    """Memory that can be had, in bytes, of the container if that is less, at least 1; 0 where neither is known."""
    try:
        lines = Path('/proc/meminfo').read_text(encoding='ascii').splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable'))
    except (OSError, StopIteration, ValueError):
        free = 0
    limit, used = _number('memory.max'), _number('memory.current')
    return free if limit is None or used is None else min(max(limit - used, 1), free or limit)


def return_free_memory() -> None:
    """Give memory that is free back to the system: glibc keeps what a probe of engines took (malloc_trim(3)).

    Other libraries are left alone.
    """
    gc.collect()
    if sys.platform.startswith('linux'):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _number(name: str) -> int | None:
    """What a file of the container's control group holds (cgroup v2); None without a limit."""
    try:
        return int((_CGROUP / name).read_text(encoding='ascii'))
    except (OSError, ValueError):
        return None
