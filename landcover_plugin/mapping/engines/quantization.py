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

#: Operators that are computed in int8; what lies between them stays there.
_OPERATORS = ('Conv', 'MatMul', 'Gemm', 'MaxPool', 'Concat', 'Add', 'Resize')


def to_int8(network: nn.Module, calibration: Tensor | None) -> Any:
    """The network as an OpenVINO model in which convolutions and products are int8.

    Activations get one scale for each tensor, weights one for each output channel; the last convolution, which decides
    between the classes, stays as it is. The steps are those of ONNX Runtime's static quantisation (QDQ), which
    OpenVINO computes in int8.

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
            nodes_to_exclude=_last_convolution(ready),
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


def _last_convolution(path: Path) -> list[str]:
    """Name of the convolution or product that is nearest to the output."""
    onnx = import_optional('onnx', 'onnx')
    nodes = [n.name for n in onnx.load(str(path)).graph.node if n.op_type in ('Conv', 'Gemm', 'MatMul')]
    return nodes[-1:]


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
