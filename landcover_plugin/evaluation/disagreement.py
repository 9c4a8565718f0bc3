"""How two maps differ: by how much of each class, and by where it lies.

Quantity and allocation disagreement are those of Pontius and Millones (2011,
https://doi.org/10.1080/01431161.2011.552923); exchange and shift, the two parts of the latter, those of Pontius and
Santacruz (2014, https://doi.org/10.1080/2150704X.2014.969814).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Components of the difference between two maps, in the unit of the matrix.

    Per-class arrays have shape ``(classes,)``. A place whose class differs counts for both classes, so the numbers of
    the whole map are half the sums over classes.

    Attributes:
        agreement: Ground of each class that is the same in both.
        gain: Ground that is of the class in the second map alone.
        loss: Ground that is of the class in the first map alone.
        quantity: How much the sizes of the class differ.
        exchange: Ground that two classes swapped with each other.
        shift: What is neither quantity nor exchange: classes that moved round in a ring.
    """

    agreement: FloatArray
    gain: FloatArray
    loss: FloatArray
    quantity: FloatArray
    exchange: FloatArray
    shift: FloatArray

    @classmethod
    def from_matrix(cls, matrix: NDArray[np.generic]) -> 'Disagreement':
        """Components of a square matrix of pixels or hectares, the first map in rows.

        Raises:
            ValueError: If the matrix is not square or has negative entries.

        Examples:
            Two of ten pixels swapped, one more turned from the first class into the second:

            >>> found = Disagreement.from_matrix(np.array([[4, 2, 0], [1, 2, 0], [0, 0, 1]]))
            >>> found.overall()
            {'agreement': 7.0, 'quantity': 1.0, 'exchange': 2.0, 'shift': 0.0, 'allocation': 2.0, 'disagreement': 3.0}
        """
        m = np.asarray(matrix, dtype=np.float64)
        if m.ndim != 2 or m.shape[0] != m.shape[1] or (m < 0).any():
            raise ValueError(f'a transition matrix is square and holds no negative numbers, got shape {m.shape}')
        same = np.diag(m)
        loss, gain = m.sum(1) - same, m.sum(0) - same
        quantity = np.abs(gain - loss)
        exchange = 2 * (np.minimum(m, m.T).sum(1) - same)
        return cls(same, gain, loss, quantity, exchange, np.maximum(gain + loss - quantity - exchange, 0))

    def overall(self) -> dict[str, float]:
        """The components for the whole map; allocation is exchange and shift together."""
        halves = {name: float(getattr(self, name).sum() / 2) for name in ('quantity', 'exchange', 'shift')}
        allocation = halves['exchange'] + halves['shift']
        return {
            'agreement': float(self.agreement.sum()),
            **halves,
            'allocation': allocation,
            'disagreement': halves['quantity'] + allocation,
        }
