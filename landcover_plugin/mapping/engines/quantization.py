"""Post-training quantisation to int8, calibrated on real windows."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import LandcoverError
from .base import import_optional
from .conversion import INPUT, write_onnx

#: Operators that are computed in int8. Sums, joins and resizings cost little, and rounding what passes through them
#: would cost agreement: with them 99.75 % instead of 99.87 % of a U-Net-ResNet50's classes, and no speed.
_OPERATORS = ('Conv', 'MatMul', 'Gemm')

#: Convolutions whose result has every fourth row of the image, or fewer, are int8. The finer ones hold what decides
#: between neighbouring pixels and classes: of a trained U-Net-ResNet50's classes 99.45 % stayed with all convolutions
#: in int8, at 4.9 times the rate of PyTorch, and 99.69 % at 4.0 to 4.4 times without the fine ones.
_COARSEST_FLOAT = 4


def to_int8(network: nn.Module, calibration: Tensor | None) -> Any:
    """The network as an OpenVINO model in which convolutions and products are int8.

    Activations get one scale for each tensor, weights one for each output channel; convolutions at the finest
    resolutions and the last one, which decides between the classes, stay as they are. The steps are those of ONNX
    Runtime's static quantisation (QDQ), which OpenVINO computes in int8.

    Args:
        network: From images to probabilities, on the CPU.
        calibration: Real windows ``(N, C, H, W)``, normalised, from whose activations the scales are taken.

    Raises:
        LandcoverError: If packages or windows are missing, or the network cannot be converted.
    """
    openvino = import_optional('openvino', 'openvino')
    quantization = import_optional('onnxruntime.quantization', 'onnx')
    if calibration is None or not len(calibration):
        raise LandcoverError('int8 needs windows of the data to be calibrated on, got none')
    with tempfile.TemporaryDirectory(prefix='landcover-int8-') as folder:
        plain, ready, quantised = (Path(folder, f'{name}.onnx') for name in ('plain', 'ready', 'int8'))
        write_onnx(network, (1, *calibration.shape[1:]), plain)
        _quietly(quantization.quant_pre_process, str(plain), str(ready), skip_symbolic_shape=True)
        _quietly(
            quantization.quantize_static,
            str(ready),
            str(quantised),
            _Windows(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=list(_OPERATORS),
            nodes_to_exclude=_left_as_they_are(ready),
            extra_options={'ActivationSymmetric': False, 'WeightSymmetric': True},
        )
        return openvino.Core().read_model(quantised.read_bytes(), b'')


class _Windows:
    """Hands windows to the calibration, one by one."""

    def __init__(self, calibration: Tensor) -> None:
        self._ahead = self._each(calibration)

    def _each(self, calibration: Tensor) -> Iterator[dict[str, NDArray[np.float32]]]:
        for window in calibration.numpy():
            yield {INPUT: window[np.newaxis]}

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next window, None behind the last."""
        return next(self._ahead, None)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Part of the interface that this number of windows does not need."""

    def __len__(self) -> int:
        return 0


def _left_as_they_are(path: Path) -> list[str]:
    """Names of the convolutions with a fine result, and of the product that is nearest to the output."""
    onnx = import_optional('onnx', 'onnx')
    graph = onnx.load(str(path)).graph  # with shapes: the preparation for the quantisation infers them
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
    height = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    products = [node for node in graph.node if node.op_type in _OPERATORS]
    fine = [
        node
        for node in products
        if node.op_type == 'Conv' and _COARSEST_FLOAT * shapes.get(node.output[0], (0, 0, 0))[2] > height
    ]
    return [node.name for node in (*fine, *products[-1:])]


def _quietly(call: Any, *args: Any, **kwargs: Any) -> None:
    """Run a step of the quantisation without its advice on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        call(*args, **kwargs)
    except Exception as e:
        reason = ' '.join(str(e).split()) or type(e).__name__
        raise LandcoverError(f'the network cannot be quantised ({reason}): choose another engine') from e
    finally:
        root.setLevel(level)
