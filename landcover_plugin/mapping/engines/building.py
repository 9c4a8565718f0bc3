"""Engines by name."""

import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...errors import LandcoverError
from .base import ENGINES, Engine, EngineName, Shape, import_optional

#: Engines for which the network is converted.
_CONVERTED = ('openvino', 'openvino-bf16', 'openvino-int8', 'onnxruntime')


def build_engine(
    name: EngineName,
    network: nn.Module,
    shape: Shape,
    calibration: Tensor | None = None,
    *,
    converted: dict[str, Any] | None = None,
) -> Engine:
    """Build an engine.

    Args:
        name: One of :data:`~landcover_plugin.mapping.engines.base.ENGINES`.
        network: From normalised images ``(B, C, H, W)`` to probabilities ``(B, num_classes, H, W)``; left as it is.
        shape: Of the images.
        calibration: Windows of the data ``(N, C, H, W)``, normalised; int8 needs them.
        converted: Models of this very network and shape that engines share; one that is made is put there.

    Raises:
        LandcoverError: If there is no such engine, or it cannot be had here.
    """
    if name not in ENGINES:
        raise LandcoverError(f'engine must be one of {", ".join(ENGINES)} or auto, got {name!r}')
    if name in _CONVERTED:
        return _converted_engine(name, network, (1, *shape[1:]), calibration, {} if converted is None else converted)
    from .torch_engine import TorchEngine

    return TorchEngine(network, shape, name)


def _converted_engine(
    name: EngineName, network: nn.Module, shape: Shape, calibration: Tensor | None, converted: dict[str, Any]
) -> Engine:
    _refuse_other_devices(name, network)
    if name == 'onnxruntime':
        from .conversion import write_onnx
        from .onnxruntime_engine import OnnxRuntimeEngine

        import_optional('onnxruntime', 'onnx')
        with tempfile.TemporaryDirectory(prefix='landcover-onnx-') as passing:
            write_onnx(network, shape, Path(passing, 'model.onnx'))
            return OnnxRuntimeEngine(Path(passing, 'model.onnx'), shape)
    from .conversion import to_openvino
    from .openvino_engine import OpenVINOEngine
    from .quantization import to_int8

    kind = 'int8' if name == 'openvino-int8' else 'float'
    if kind not in converted:
        converted[kind] = to_int8(network, calibration) if kind == 'int8' else to_openvino(network, shape)
    return OpenVINOEngine(converted[kind], shape, name)


def _refuse_other_devices(name: EngineName, network: nn.Module) -> None:
    device = next((p.device for p in network.parameters()), None)
    if device is not None and device.type != 'cpu':
        raise LandcoverError(f'{name} maps on the CPU, the network is on {device}: set --trainer.accelerator cpu')
