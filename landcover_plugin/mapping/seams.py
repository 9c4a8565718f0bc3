"""Where others plug in: what computes probabilities, and what refines them before and after codes are decided."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Engine(Protocol):
    """Turns normalised images into probabilities.

    Attributes:
        name: What it is, such as ``torch-bf16``; part of the plan, so that no map is made by two engines.
    """

    name: str

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities ``(B, num_classes, H, W)``, float32, channel 0 all 0, of images ``(B, C, H, W)``."""

    def close(self) -> None:
        """Let go of what it holds."""


class Refinement(Protocol):
    """Changes probabilities before codes are decided. Its ``repr`` is part of the plan.

    Attributes:
        halo: Rows and columns around a pixel that its result depends on.
    """

    halo: int

    def __call__(self, probabilities: NDArray[np.float32], covered: NDArray[np.bool_]) -> NDArray[np.float32]:
        """New probabilities of shape ``(num_classes, H, W)``; ``covered`` ``(H, W)`` tells which are any."""


class Tidying(Protocol):
    """Changes codes after they were decided. Its ``repr`` is part of the plan.

    Attributes:
        halo: Rows and columns around a pixel that its result depends on.
    """

    halo: int

    def __call__(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """New codes of shape ``(H, W)``; 0 is no data, and stays it."""
