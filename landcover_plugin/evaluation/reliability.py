"""How far the confidence of a network can be taken at its word, from bins of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Reliability:
    """Labelled pixels in bins of equal width by their confidence, the probability of the predicted class.

    Args:
        pixels: Of each bin, shape ``(bins,)``.
        confidence: Sum over them.
        hits: How many of them are right.

    Examples:
        >>> found = Reliability(np.array([0, 4]), np.array([0, 3.6]), np.array([0, 3]))
        >>> round(found.error, 3), found.rows()[0]['accuracy']
        (0.15, 0.75)
    """

    pixels: NDArray[np.floating]
    confidence: NDArray[np.floating]
    hits: NDArray[np.floating]

    @property
    def total(self) -> int:
        """Labelled pixels."""
        return int(self.pixels.sum())

    @property
    def error(self) -> float:
        """Expected calibration error, in 0..1 (Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602)."""
        return float(np.abs(self.hits - self.confidence).sum() / self.pixels.sum()) if self.total else float('nan')

    def rows(self) -> list[dict[str, Any]]:
        """One row for each bin that holds pixels: its limits, mean confidence, accuracy and pixels."""
        edges = np.linspace(0, 1, len(self.pixels) + 1)
        return [
            {
                'from': float(edges[i]),
                'to': float(edges[i + 1]),
                'mean_confidence': float(self.confidence[i] / self.pixels[i]),
                'accuracy': float(self.hits[i] / self.pixels[i]),
                'labelled_pixels': int(self.pixels[i]),
            }
            for i in np.flatnonzero(self.pixels).tolist()
        ]
