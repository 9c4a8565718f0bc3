"""PyTorch itself: the float32 reference, bfloat16, and the compiler."""

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import LandcoverError
from ...machine import processors
from .base import EngineName, Pending, Shape, Streams, check_images, one_thread_each
from .doubling import with_doubling_blocks

log = logging.getLogger(__name__)

#: Layers whose weights autocast would turn into bfloat16 again in every forward pass.
_CAST = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)

#: Freezing folds batch norms into convolutions and packs weights once.
_COMPILER_OPTIONS = {'freezing': True}


def has_fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware: others take longer for it than for float32."""
    if device.type == 'cuda':
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = torch.cpu.get_capabilities()
    return bool(able.get('avx512_bf16') or able.get('amx_bf16') or able.get('amx_tile') or able.get('bf16'))


class TorchEngine:
    """The network as it is, or compiled, on the CPU or the device of the network.

    On a CPU each window is computed by one thread, as many at a time as there are cores. Elsewhere the batch is
    computed as one; the last of a run is filled up, so that the shape never changes.

    Args:
        network: From images to probabilities; a copy of it is used.
        shape: Of the images, see :data:`~landcover_plugin.mapping.engines.base.Shape`.
        name: ``torch`` (float32), ``torch-bf16`` or ``compile`` (bfloat16 where that is fast).

    Raises:
        LandcoverError: If bfloat16 is asked for and slow here.
    """

    def __init__(self, network: nn.Module, shape: Shape, name: EngineName = 'torch') -> None:
        self.name: str = name
        self.device = next((p.device for p in network.parameters()), torch.device('cpu'))
        fast = has_fast_bf16(self.device)
        if name == 'torch-bf16' and not fast:
            raise LandcoverError(
                'this processor has no fast bfloat16 (AVX512-BF16 or AMX): choose --output.engine torch'
            )
        self._shape, self._bf16 = shape, fast and name != 'torch'
        faster = (
            network if name == 'torch' else with_doubling_blocks(network, torch.zeros(1, *shape[1:]).to(self.device))
        )
        self._network = _prepared(faster, bf16=self._bf16 and name != 'compile')
        self._call: Any = self._network
        if name == 'compile':
            self._call = torch.compile(self._network, options=dict(_COMPILER_OPTIONS))
        self._streams = self._start_streams() if self.device.type == 'cpu' else None
        if self._streams is None:
            self._first(torch.zeros(shape))

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities of images, on the device of the network."""
        return self.begin(images)()

    def begin(self, images: Tensor) -> Pending:
        """Line images up; a device other than the CPU computes on its own anyway."""
        if self._streams is not None:
            return self._streams.begin(images)
        check_images(images, self._shape)
        missing = self._shape[0] - len(images)
        filled = torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing > 0 else images
        probabilities = self._forward(filled)[: len(images)]
        return lambda: probabilities

    def close(self) -> None:
        """End the threads and drop the network."""
        if self._streams is not None:
            self._streams.close()
        self._call = None
        del self._network

    def _start_streams(self) -> Streams:
        with one_thread_each(1) as pool:  # like the streams: the compiler counts threads
            num_classes = pool.submit(self._first, torch.zeros(1, *self._shape[1:])).result().shape[1]
        return Streams(lambda x, result, _: result.copy_(self._forward(x)), self._shape, num_classes, processors())

    def _first(self, images: Tensor) -> Tensor:
        """The first pass; where the compiler does not work, the engine goes on without it, and says so."""
        try:
            return self._forward(images)
        except Exception as e:  # the compiler raises whatever its back ends do
            if self._call is self._network:
                raise
            log.warning('torch.compile does not work here (%s); going on without it', str(e).split('\n')[0] or type(e))
            self._call = self._network
            return self._forward(images)

    def _forward(self, images: Tensor) -> Tensor:
        device = self.device.type
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=self._bf16, cache_enabled=False):
            return self._call(images.to(self.device).contiguous(memory_format=torch.channels_last)).float()


def _prepared(network: nn.Module, *, bf16: bool) -> nn.Module:
    """A copy for inference, channels last; with weights in bfloat16 where they are multiplied."""
    prepared = copy.deepcopy(network).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    for module in prepared.modules():
        if bf16 and isinstance(module, _CAST):
            module.weight.data = module.weight.data.bfloat16()
            if module.bias is not None:
                module.bias.data = module.bias.data.bfloat16()
    return prepared
