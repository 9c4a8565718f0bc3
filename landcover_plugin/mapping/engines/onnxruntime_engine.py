"""ONNX Runtime on the CPU."""

import os
from pathlib import Path

import numpy as np
from torch import Tensor

from ...machine import processors
from .base import Pending, Shape, Streams, import_optional
from .conversion import INPUT, OUTPUT


class OnnxRuntimeEngine:
    """An ONNX model in float32, one window on one thread each.

    Args:
        path: The model.
        shape: Of the images.

    Raises:
        LandcoverError: If ONNX Runtime is missing.
    """

    name: str = 'onnxruntime'

    def __init__(self, path: str | os.PathLike[str], shape: Shape) -> None:
        runtime = import_optional('onnxruntime', 'onnx')
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(Path(path).read_bytes(), options, providers=['CPUExecutionProvider'])
        num_classes = self._session.get_outputs()[0].shape[1]
        self._streams = Streams(self._run, shape, num_classes, processors())

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities of images."""
        return self._streams(images)

    def begin(self, images: Tensor) -> Pending:
        """Line images up."""
        return self._streams.begin(images)

    def close(self) -> None:
        """End the threads and drop the model."""
        self._streams.close()
        self._session = None

    def _run(self, images: Tensor, result: Tensor, stream: int) -> None:
        given, taken = np.ascontiguousarray(images.numpy()), result.numpy()
        binding = self._session.io_binding()
        binding.bind_input(INPUT, 'cpu', 0, np.float32, given.shape, given.ctypes.data)
        binding.bind_output(OUTPUT, 'cpu', 0, np.float32, taken.shape, taken.ctypes.data)
        self._session.run_with_iobinding(binding)
