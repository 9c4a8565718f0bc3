"""Memory that is used again."""

import math
import weakref
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Buffers:
    """Arrays whose memory is used again as soon as nobody holds them, or a view of them, any more.

    The first touch of fresh memory costs more than filling it: the system has to find and clear it page by page. Safe
    for use by several threads.

    Examples:
        >>> buffers = Buffers()
        >>> place = buffers.empty((2, 3), np.float32).ctypes.data  # nobody holds the array
        >>> held = buffers.empty((2, 3), np.float32)[:1]
        >>> held.ctypes.data == place, buffers.empty((2, 3), np.float32).ctypes.data == place
        (True, False)
    """

    def __init__(self) -> None:
        self._free: deque[NDArray[np.uint8]] = deque()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array with any content; memory of another size that lies ready is let go.

        Args:
            shape: Of the array.
            dtype: Of its numbers.
        """
        memory = self._of(math.prod(shape) * np.dtype(dtype).itemsize)
        handed_out = np.frombuffer(memoryview(memory), dtype)  # which all views keep: they would not keep a mere view
        weakref.finalize(handed_out, self._free.append, memory).atexit = False
        return handed_out.reshape(shape)

    def _of(self, size: int) -> NDArray[np.uint8]:
        with suppress(IndexError):  # none is free
            while True:
                memory = self._free.popleft()
                if memory.size == size:
                    return memory
        return np.empty(size, np.uint8)
