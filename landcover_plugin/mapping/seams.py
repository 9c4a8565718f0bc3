"""Where others plug in: what refines probabilities before codes are decided, and codes afterwards."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Refinement(Protocol):
    """Changes probabilities before codes are decided."""

    @property
    def halo(self) -> int:
        """Rows and columns around a pixel that its result depends on."""

    def __call__(self, probabilities: NDArray[np.float32], covered: NDArray[np.bool_]) -> NDArray[np.float32]:
        """New probabilities of shape ``(num_classes, H, W)``; ``covered`` ``(H, W)`` tells which are any."""


class Tidying(Protocol):
    """Changes codes after they were decided."""

    @property
    def halo(self) -> int:
        """Rows and columns around a pixel that its result depends on."""

    def __call__(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """New codes of shape ``(H, W)``; 0 is no data, and stays it."""
