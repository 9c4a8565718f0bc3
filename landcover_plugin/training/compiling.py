"""torch.compile as an option: where compiling fails, whenever it does, the network goes on without."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class Compiled:
    """Calls a network compiled, and gives that up, in words, when the compiler fails.

    Compilers work when a network is first called, for each shape, and for the gradients when these are first asked for.
    So the first training batch is tried with its gradients before it counts.

    Args:
        network: Compiled in place.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.works = True
        self._tried = False
        try:
            network.compile()
        except Exception as e:  # such as on systems that torch.compile does not know
            self._give_up(e)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the network makes of its input, compiled or not."""
        if self.works:
            try:
                if self.network.training and torch.is_grad_enabled() and not self._tried:
                    self._try_gradients(*args, **kwargs)
                return self.network(*args, **kwargs)
            except (
                Exception
            ) as e:  # the compiler raises whatever its back ends do; what is the input's fault comes back
                self._give_up(e)
        return self.network(*args, **kwargs)

    def _try_gradients(self, *args: Any, **kwargs: Any) -> None:
        """One step that leaves no trace: neither gradients nor statistics of batch norms nor random numbers."""
        kept = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        trained = [p for p in self.network.parameters() if p.requires_grad]
        try:
            with torch.random.fork_rng():
                total = self.network(*args, **kwargs).float().sum()
                torch.autograd.grad(total, trained, allow_unused=True)
            self._tried = True
        finally:
            for name, buffer in self.network.named_buffers():
                buffer.copy_(kept[name])

    def _give_up(self, error: Exception) -> None:
        """Go on without, and say why in a line."""
        self.works = False
        self.network._compiled_call_impl = None
        reason = next((line.strip() for line in str(error).split('\n') if line.strip()), type(error).__name__)
        log.warning('torch.compile does not work here (%s); going on without it', reason[:200])
