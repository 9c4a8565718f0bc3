"""Networks as ONNX and OpenVINO models."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import LandcoverError
from .base import Shape, import_optional
from .doubling import with_doubling_blocks

#: Names of the input and the output of converted models.
INPUT, OUTPUT = 'images', 'probabilities'


def to_openvino(network: nn.Module, shape: Shape, *, is_open: bool = False) -> Any:
    """The network as an OpenVINO model, whose values are float32.

    Args:
        network: From images to probabilities, on the CPU.
        shape: Of the images.
        is_open: Leave number, height and width of the images open: by way of ``torch.export``, which sees where they
            matter.

    Raises:
        LandcoverError: If OpenVINO is missing or cannot take the network.
    """
    openvino = import_optional('openvino', 'openvino')
    with _converting('OpenVINO'):
        images = torch.zeros(shape)
        faster = with_doubling_blocks(network, images[:1])
        if is_open:
            program = torch.export.export(faster, (images,), dynamic_shapes=(dynamic_dims(),))
            model = openvino.convert_model(program)
        else:
            model = openvino.convert_model(faster, example_input=images, input=[list(shape)])
    model.inputs[0].set_names({INPUT})
    model.outputs[0].set_names({OUTPUT})
    return model


def write_onnx(network: nn.Module, shape: Shape, path: Path, *, dynamic: bool = False) -> None:
    """Write the network as an ONNX model.

    Args:
        network: From images to probabilities, on the CPU.
        shape: Of the images.
        path: The file; large weights stay in it too, up to 2 GB.
        dynamic: Leave number, height and width of the images open.

    Raises:
        LandcoverError: If a package is missing or ONNX cannot express the network.
    """
    import_optional('onnx', 'onnx')
    import_optional('onnxscript', 'onnx')
    with _converting('ONNX'):
        images = torch.zeros(shape)
        program = torch.onnx.export(
            with_doubling_blocks(network, images[:1]),
            (images,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(dynamic_dims(),) if dynamic else None,
        )
        program.save(os.fspath(path), external_data=False)  # type: ignore[union-attr]


def dynamic_dims() -> dict[int, Any]:
    """Which dimensions of the images may differ from call to call, for ``torch.export``."""
    auto = torch.export.Dim.AUTO
    return {0: auto, 2: auto, 3: auto}


@contextmanager
def _converting(target: str) -> Iterator[None]:
    """Without the converters' chatter; their failures in one sentence."""
    noisy = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir', 'torch.export')]
    levels = [log.level for log in noisy]
    for log in noisy:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            yield
    except LandcoverError:
        raise
    except Exception as e:
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        raise LandcoverError(
            f'{target} cannot take this network ({(lines or [type(e).__name__])[0]}): choose --output.engine torch'
        ) from e
    finally:
        for log, level in zip(noisy, levels, strict=True):
            log.setLevel(level)
