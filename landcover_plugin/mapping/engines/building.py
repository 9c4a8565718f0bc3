"""Engines by name."""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import Tensor, nn

from ...errors import LandcoverError
from .base import ENGINES, Engine, EngineName, Shape, import_optional

#: Models in a folder of converted ones, by engine.
CONVERTED: dict[str, str] = {
    'openvino': 'openvino/model.xml',
    'openvino-bf16': 'openvino/model.xml',
    'openvino-int8': 'openvino-int8/model.xml',
    'onnxruntime': 'model.onnx',
}


def build_engine(
    name: EngineName,
    network: nn.Module,
    shape: Shape,
    calibration: Tensor | None = None,
    *,
    converted: Path | None = None,
) -> Engine:
    """Build an engine.

    Args:
        name: One of :data:`~landcover_plugin.mapping.engines.base.ENGINES`.
        network: From normalised images ``(B, C, H, W)`` to probabilities ``(B, num_classes, H, W)``; left as it is.
        shape: Of the images.
        calibration: Windows of the data ``(N, C, H, W)``, normalised; int8 needs them.
        converted: Folder in which converted models of this very network and shape are kept: one that is there is used,
            one that is made is left there, so that a run that goes on computes what it did before.

    Raises:
        LandcoverError: If there is no such engine, or it cannot be had here.
    """
    if name not in ENGINES:
        raise LandcoverError(f'engine must be one of {", ".join(ENGINES)} or auto, got {name!r}')
    if name in CONVERTED:
        return _converted_engine(name, network, (1, *shape[1:]), calibration, converted)
    from .torch_engine import TorchEngine

    return TorchEngine(network, shape, name)


def _converted_engine(
    name: EngineName, network: nn.Module, shape: Shape, calibration: Tensor | None, folder: Path | None
) -> Engine:
    _refuse_other_devices(name, network)
    kept = folder / CONVERTED[name] if folder is not None else None
    if name == 'onnxruntime':
        from .conversion import write_onnx
        from .onnxruntime_engine import OnnxRuntimeEngine

        import_optional('onnxruntime', 'onnx')
        if kept is None:
            with tempfile.TemporaryDirectory(prefix='landcover-onnx-') as passing:
                write_onnx(network, shape, Path(passing, 'model.onnx'))
                return OnnxRuntimeEngine(Path(passing, 'model.onnx'), shape)
        _keep(kept, lambda path: write_onnx(network, shape, path))
        return OnnxRuntimeEngine(kept, shape)
    from .openvino_engine import OpenVINOEngine

    return OpenVINOEngine(_openvino_model(name, network, shape, calibration, kept), shape, name)


def _openvino_model(
    name: EngineName, network: nn.Module, shape: Shape, calibration: Tensor | None, kept: Path | None
) -> Any:
    """The model for a window, from the folder of converted ones if it is there."""
    from .conversion import to_openvino
    from .quantization import to_int8

    openvino = import_optional('openvino', 'openvino')

    def make() -> Any:
        return to_int8(network, calibration) if name == 'openvino-int8' else to_openvino(network, shape)

    if kept is None:
        return make()
    if not kept.is_file():
        save_openvino(make(), kept)
    model = openvino.Core().read_model(str(kept))
    if list(model.inputs[0].get_partial_shape()) != list(shape):
        model.reshape(list(shape))
    return model


def save_openvino(model: Any, path: Path) -> None:
    """Write an OpenVINO model (.xml and .bin) so that the two appear together."""
    openvino = import_optional('openvino', 'openvino')

    def write(folder: Path) -> None:
        folder.mkdir()
        openvino.save_model(model, folder / path.name, compress_to_fp16=False)

    _keep(path.parent, write)


def _keep(target: Path, write: Callable[[Path], object]) -> None:
    """Make a file or folder that appears whole, unless it is there; another process may make the same at once."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f'.{uuid4().hex[:8]}.{target.name}')
    try:
        write(staging)
        with suppress(OSError):  # the other process was first
            staging.rename(target)
    finally:
        if staging.is_dir():
            shutil.rmtree(staging, ignore_errors=True)
        staging.unlink(missing_ok=True)
    if not target.exists():
        raise LandcoverError(f'{target} cannot be written: free some space, or choose a folder in which you may write')


def _refuse_other_devices(name: EngineName, network: nn.Module) -> None:
    device = next((p.device for p in network.parameters()), None)
    if device is not None and device.type != 'cpu':
        raise LandcoverError(f'{name} maps on the CPU, the network is on {device}: set --trainer.accelerator cpu')
