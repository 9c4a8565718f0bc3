"""The network in each format, compared with PyTorch before it is kept."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import LandcoverError
from ...models.outputs import predicted_codes
from ..engines.base import Shape, import_optional, openvino_core
from ..engines.conversion import INPUT, dynamic_dims, to_openvino, write_onnx

log = logging.getLogger(__name__)

Format = Literal['pt2', 'onnx', 'openvino']

FORMATS: tuple[Format, ...] = get_args(Format)

#: File of each format in the folder; OpenVINO's has its weights beside it.
FILES: dict[Format, str] = {'pt2': 'model.pt2', 'onnx': 'model.onnx', 'openvino': 'openvino/model.xml'}

#: Largest difference of a probability from PyTorch's, and least share of pixels with the same class.
MAX_DIFFERENCE, MIN_AGREEMENT = 1e-3, 0.999


class Parity(NamedTuple):
    """How near a format comes to PyTorch on the probe.

    Attributes:
        max_difference: Largest difference of a probability.
        agreement: Share of pixels with the same class.
    """

    max_difference: float
    agreement: float

    @property
    def is_good(self) -> bool:
        """Whether both are within the bounds."""
        return self.max_difference <= MAX_DIFFERENCE and self.agreement >= MIN_AGREEMENT


class _Converter(NamedTuple):
    """Writes a format, and opens what was written as a function of images."""

    write: Callable[[nn.Module, Shape, Path, bool], None]
    open: Callable[[Path], Callable[[Tensor], Tensor]]


def probe(channels: int, size: int, *, windows: int = 2, seed: int = 0) -> Tensor:
    """Images like normalised ones: fields of a few pixels to a few dozen, and noise.

    Returns:
        Shape ``(windows, channels, size, size)``, mean 0, standard deviation about 1.
    """
    generator = torch.Generator().manual_seed(seed)

    def field(edge: int) -> Tensor:
        coarse = torch.randn(windows, channels, edge, edge, generator=generator)
        return F.interpolate(coarse, size=(size, size), mode='bilinear')

    return field(max(size // 32, 2)) + 0.5 * field(max(size // 4, 2)) + 0.2 * field(size)


def write_format(name: Format, network: nn.Module, channels: int, size: int, folder: Path) -> dict[str, Any]:
    """Write one format, of open size if it can be, and compare it with PyTorch.

    Args:
        name: The format.
        network: From images to probabilities, on the CPU.
        channels: Of the images.
        size: Edge of a patch in pixels.
        folder: Where its file goes.

    Returns:
        What ``model.json`` says of it: file, shape (-1: open) and parity.

    Raises:
        LandcoverError: If its package is missing, it cannot express the network, or it computes something else.
    """
    path = folder / FILES[name]
    path.parent.mkdir(exist_ok=True)
    shape: Shape = (2, channels, size, size)
    why: Exception | None = None
    for is_open, seen in ((True, list(_probes(channels, size))), (False, [probe(channels, size, windows=1)])):
        try:
            _CONVERTERS[name].write(network, shape if is_open else (1, *shape[1:]), path, is_open)
            run = _CONVERTERS[name].open(path)
            parity = compare(network, run, seen)
        except Exception as e:  # an open size is more than some networks and converters can do
            if isinstance(e, LandcoverError) and isinstance(e.__cause__, ImportError):
                raise
            why = e
            continue
        if parity.is_good:
            written = [-1, channels, -1, -1] if is_open else [1, *shape[1:]]
            return {'file': FILES[name], 'shape': written, 'parity': parity._asdict()}
        if not is_open:
            raise LandcoverError(
                f'{name} does not compute what PyTorch does: probabilities differ by up to {parity.max_difference:.1e} '
                f'(bound {MAX_DIFFERENCE:g}), {parity.agreement:.4f} of the classes agree (bound {MIN_AGREEMENT:g}); '
                f'leave it out with --formats'
            )
    reason = ' '.join(str(why).split()) or type(why).__name__
    raise LandcoverError(f'{name} cannot hold this network ({reason}); leave it out with --formats') from why


def compare(network: nn.Module, run: Callable[[Tensor], Tensor], images: Sequence[Tensor]) -> Parity:
    """Compare a format with the network on images of any shapes."""
    difference, same, pixels = 0.0, 0, 0
    for each in images:
        with torch.inference_mode():
            expected, found = network(each), run(each)
        if found.shape != expected.shape or not torch.isfinite(found).all():
            return Parity(float('inf'), 0.0)
        difference = max(difference, float((found - expected).abs().max()))
        codes = predicted_codes(expected)
        same, pixels = same + int((predicted_codes(found) == codes).sum()), pixels + codes.numel()
    return Parity(difference, same / pixels)


def _probes(channels: int, size: int) -> Iterator[Tensor]:
    """Images of the size that was exported, and of another number and size."""
    yield probe(channels, size)
    yield probe(channels, size + 32, windows=3, seed=1)[..., :size]


def _write_pt2(network: nn.Module, shape: Shape, path: Path, is_open: bool) -> None:
    dims = (dynamic_dims(),) if is_open else None
    torch.export.save(torch.export.export(network, (torch.zeros(shape),), dynamic_shapes=dims), path)


def _open_pt2(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(path).module()


def _write_onnx(network: nn.Module, shape: Shape, path: Path, is_open: bool) -> None:
    write_onnx(network, shape, path, dynamic=is_open)


def _open_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    runtime = import_optional('onnxruntime', 'onnx')
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(path.read_bytes(), options, providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run(None, {INPUT: np.ascontiguousarray(images.numpy())})[0])


def _write_openvino(network: nn.Module, shape: Shape, path: Path, is_open: bool) -> None:
    openvino = import_optional('openvino', 'openvino')
    model = to_openvino(network, shape, is_open=is_open)
    openvino.save_model(model, path, compress_to_fp16=False)


def _open_openvino(path: Path) -> Callable[[Tensor], Tensor]:
    core = openvino_core()
    compiled = core.compile_model(core.read_model(path), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return lambda images: torch.from_numpy(compiled(np.ascontiguousarray(images.numpy()))[0].copy())


_CONVERTERS: dict[Format, _Converter] = {
    'pt2': _Converter(_write_pt2, _open_pt2),
    'onnx': _Converter(_write_onnx, _open_onnx),
    'openvino': _Converter(_write_openvino, _open_openvino),
}
