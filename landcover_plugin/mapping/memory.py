"""Memory that earlier work has left behind."""

import ctypes
import gc
import sys
from contextlib import suppress


def return_free_memory() -> None:
    """Give memory that is free back to the system: glibc keeps what a probe of engines took (malloc_trim(3)).

    Other libraries are left alone.
    """
    gc.collect()
    if sys.platform.startswith('linux'):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
