"""OpenVINO on the CPU: float32, bfloat16 and int8."""

from typing import Any

import numpy as np
from torch import Tensor

from ...errors import LandcoverError
from ...machine import processors
from .base import EngineName, Pending, Shape, Streams, import_optional, openvino_core

#: What multiplications are computed in; int8 layers are marked in the model, and the others are bfloat16 where it can.
_PRECISION = {'openvino': 'f32', 'openvino-bf16': 'bf16', 'openvino-int8': 'bf16'}


class OpenVINOEngine:
    """A compiled model, one window on one thread each.

    Args:
        model: An OpenVINO model for images of the shape, one window at a time.
        shape: Of the images.
        name: ``openvino``, ``openvino-bf16`` or ``openvino-int8``.

    Raises:
        LandcoverError: If OpenVINO is missing, or bfloat16 is asked for and slow here.
    """

    def __init__(self, model: Any, shape: Shape, name: EngineName) -> None:
        self.name: str = name
        openvino = import_optional('openvino', 'openvino')
        core = openvino_core()
        able = core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        if name == 'openvino-bf16' and 'BF16' not in able:
            raise LandcoverError('this processor has no fast bfloat16: choose --output.engine openvino')
        count = processors()
        self._compiled = core.compile_model(
            model,
            'CPU',
            {
                'PERFORMANCE_HINT': 'THROUGHPUT',
                'NUM_STREAMS': str(count),
                'INFERENCE_NUM_THREADS': str(count),
                'INFERENCE_PRECISION_HINT': _PRECISION[name] if 'BF16' in able else 'f32',
                'ENABLE_CPU_PINNING': 'NO',  # threads that read and write need the cores as well
            },
        )
        self._tensor = openvino.Tensor
        self._requests = [self._compiled.create_infer_request() for _ in range(count)]
        num_classes = self._compiled.output(0).shape[1]
        self._streams = Streams(self._run, shape, num_classes, count)

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities of images."""
        return self._streams(images)

    def begin(self, images: Tensor) -> Pending:
        """Line images up."""
        return self._streams.begin(images)

    def close(self) -> None:
        """End the threads and drop the model."""
        self._streams.close()
        self._requests, self._compiled = [], None

    def _run(self, images: Tensor, result: Tensor, stream: int) -> None:
        request = self._requests[stream]
        request.set_input_tensor(self._tensor(np.ascontiguousarray(images.numpy()), shared_memory=True))
        request.set_output_tensor(self._tensor(result.numpy(), shared_memory=True))
        request.infer()
