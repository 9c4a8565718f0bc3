"""Memory that does not grow while a map is made."""

import ctypes
import sys
from contextlib import suppress

#: The setting M_MMAP_THRESHOLD of glibc (mallopt(3)).
_M_MMAP_THRESHOLD = -3

#: Buffers of so many bytes and more go back to the system as soon as they are free.
_LARGE = 2**20


def return_large_buffers() -> None:
    """Have the C library give large buffers back at once.

    By itself, glibc raises that threshold up to 32 MB as such buffers are freed, and keeps what it got in heaps that
    threads tear into pieces: a map of 4,096 x 4,096 px took 2.3 GB, with a fixed threshold 1.8 GB. Other libraries are
    left alone.
    """
    if sys.platform.startswith('linux'):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
