"""What an engine is, and the streams on which engines run windows side by side."""

import functools
import importlib
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from types import ModuleType
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from ...errors import LandcoverError
from ...rasters.buffers import Buffers

#: Engines by name; the reference is ``torch``.
EngineName = Literal['torch', 'torch-bf16', 'compile', 'openvino', 'openvino-bf16', 'openvino-int8', 'onnxruntime']

ENGINES: tuple[EngineName, ...] = get_args(EngineName)

#: Shape of the images that an engine takes: windows, channels, rows, columns.
Shape = tuple[int, int, int, int]

#: Waits for the probabilities of a batch that an engine has begun with, and gives them.
Pending = Callable[[], Tensor]


class Engine(Protocol):
    """Turns normalised images into class probabilities.

    The probabilities of a window do not depend on its place in the batch or on its companions.

    Attributes:
        name: One of :data:`ENGINES`.
    """

    name: str

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities ``(B, num_classes, H, W)``, float32, of images ``(B, C, H, W)``, float32.

        The result is the caller's: no later call changes it.
        """
        ...

    def begin(self, images: Tensor) -> Pending:
        """As the call, which goes on meanwhile: no core need wait for the last window of a batch.

        The images must stay as they are until the result is there.
        """
        ...

    def close(self) -> None:
        """Let go of threads and memory; the engine cannot be called afterwards."""
        ...


class Streams:
    """Runs the windows of a batch one by one on single-threaded streams, whichever is free takes the next.

    Several windows at a time on one thread each use the cores better than one window at a time on all of them, where
    the threads wait for each other in every layer and for whatever else the cores do.

    Args:
        run: Fills the result of one window: images ``(1, C, H, W)``, probabilities ``(1, num_classes, H, W)``, and
            the number of the stream, which no other window uses at the same time.
        shape: Of the images; the number of windows may differ from call to call.
        num_classes: Channels of the result.
        count: Streams.
    """

    def __init__(
        self, run: Callable[[Tensor, Tensor, int], object], shape: Shape, num_classes: int, count: int
    ) -> None:
        self._run, self._shape, self._num_classes = run, shape, num_classes
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for stream in range(count):
            self._free.put(stream)
        self._pool = one_thread_each(count)
        self._buffers = Buffers()

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities of images."""
        return self.begin(images)()

    def begin(self, images: Tensor) -> Pending:
        """Line images up for the streams."""
        check_images(images, self._shape)
        with torch.inference_mode(False):  # else other threads could not write to it
            result = torch.from_numpy(
                self._buffers.empty((len(images), self._num_classes, *self._shape[2:]), np.float32)
            )
        futures = [self._pool.submit(self._one, images[i : i + 1], result[i : i + 1]) for i in range(len(images))]

        def finish() -> Tensor:
            wait(futures)
            for future in futures:
                future.result()
            return result

        return finish

    def _one(self, images: Tensor, result: Tensor) -> None:
        stream = self._free.get()
        try:
            self._run(images, result, stream)
        finally:
            self._free.put(stream)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)


def one_thread_each(count: int) -> ThreadPoolExecutor:
    """Threads in which the layers of a network stay on the thread that runs them."""
    torch.get_num_threads()  # this thread's own number, which from here on stays as it is
    return ThreadPoolExecutor(count, 'engine', initializer=torch.set_num_threads, initargs=(1,))


def check_images(images: Tensor, shape: Shape) -> None:
    """Refuse images that an engine was not built for.

    Raises:
        ValueError: If channels, height, width or number type differ.
    """
    if images.dtype != torch.float32 or tuple(images.shape[1:]) != shape[1:]:
        raise ValueError(
            f'the engine was built for float32 images (B, {", ".join(map(str, shape[1:]))}), '
            f'got {images.dtype} {tuple(images.shape)}'
        )


def import_optional(package: str, extra: str, otherwise: str = ', or choose --output.engine torch') -> ModuleType:
    """Import a package that engines need and the plain installation lacks.

    Args:
        package: Name of the module.
        extra: Of this package, which brings it.
        otherwise: What to do without it, as the end of the sentence.

    Raises:
        LandcoverError: If it is missing or cannot be loaded.
    """
    try:
        return importlib.import_module(package)
    except ImportError as e:
        raise LandcoverError(
            f"{package.partition('.')[0]} cannot be imported ({e}): pip install 'landcover-plugin[{extra}]'{otherwise}"
        ) from e


@functools.cache
def openvino_core() -> Any:
    """The core of OpenVINO, one for this process, which never ends before it.

    On processors with AMX, each core gives the thread that makes it a stack for signals, and gives the one before back
    when it ends (OpenVINO 2026.4). Of several that end in another order, a stack stays that is gone, and the next
    signal, of Ctrl-C or of a child that ended, is the end of the process.
    """
    return import_optional('openvino', 'openvino').Core()
