"""Post-training quantisation to int8, calibrated on real windows."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import LandcoverError
from .base import import_optional, openvino_core
from .conversion import INPUT, write_onnx

#: Operators that are computed in int8. Sums, joins and resizings cost little, and rounding what passes through them
#: would cost agreement: with them 99.75 % instead of 99.87 % of a U-Net-ResNet50's classes, and no speed.
_OPERATORS = ('Conv', 'ConvTranspose', 'MatMul', 'Gemm')

#: Convolutions whose result has every second row of the image, or fewer, are int8. The finer ones hold what decides
#: between neighbouring pixels and classes, and the first one sees the wide range of the data: of the
#: classes of a trained U-Net-ResNet50 99.62 % stay, and without those of every second row in int8 99.70 %, at 0.95
#: times the rate.
_FINEST = 2

#: Calibration sees the middle of wide windows: it keeps all activations, 4 GB for those of 512 px.
_EDGE = 256


def to_int8(network: nn.Module, calibration: Tensor | None) -> Any:
    """The network as an OpenVINO model in which convolutions and products are int8.

    Activations get one scale for each tensor, weights one for each output channel. The first convolution, those at the
    resolution of the image and the last one, which decides between the classes, stay as they are. A scale covers the
    mean over windows of the least and of the largest value, so that a single bright roof does not coarsen it. The
    steps are those of ONNX Runtime's static quantisation (QDQ), which OpenVINO computes in int8.

    Args:
        network: From images to probabilities, on the CPU.
        calibration: Real windows ``(N, C, H, W)``, normalised, from whose activations the scales are taken.

    Raises:
        LandcoverError: If packages or windows are missing, or the network cannot be converted.
    """
    if calibration is None or not len(calibration):
        raise LandcoverError('int8 needs windows of the data to be calibrated on, got none')
    height, width = calibration.shape[-2:]
    rows, cols = (slice((n - min(n, _EDGE)) // 2, (n + min(n, _EDGE)) // 2) for n in (height, width))
    middles = calibration[..., rows, cols].contiguous()
    if middles.shape != calibration.shape:
        with suppress(RuntimeError, LandcoverError):  # a network may depend on the size
            model = _quantised(network, middles)
            model.reshape([1, *calibration.shape[1:]])
            if [dim.get_length() for dim in model.outputs[0].get_partial_shape()][2:] == [height, width]:
                return model
    return _quantised(network, calibration)


def _quantised(network: nn.Module, calibration: Tensor) -> Any:
    """The model for images of the size of those on which it is calibrated."""
    import_optional('openvino', 'openvino')
    quantization = import_optional('onnxruntime.quantization', 'onnx')
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
            extra_options={'ActivationSymmetric': False, 'WeightSymmetric': True, 'CalibMovingAverage': True},
        )
        return openvino_core().read_model(quantised.read_bytes(), b'')


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
    """Names of the first and the last product and of convolutions with a fine result."""
    onnx = import_optional('onnx', 'onnx')
    graph = onnx.load(str(path)).graph  # with shapes: the preparation for the quantisation infers them
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
    height = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    products = [node for node in graph.node if node.op_type in _OPERATORS]
    fine = [
        node
        for node in products
        if node.op_type in ('Conv', 'ConvTranspose') and _FINEST * shapes.get(node.output[0], (0, 0, 0))[2] > height
    ]
    return list({node.name: node for node in (*products[:1], *fine, *products[-1:])})


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
