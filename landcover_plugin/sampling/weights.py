"""Class weights for a loss, from how many training pixels each class has."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import LEGEND, NODATA

ClassWeighting = Literal['none', 'inverse', 'median', 'effective']

#: The named strategies, from the mildest.
WEIGHTINGS: tuple[ClassWeighting, ...] = get_args(ClassWeighting)


def class_weights(counts: NDArray[np.int64], weighting: ClassWeighting | Sequence[float]) -> NDArray[np.float32]:
    """Weights of the classes in the loss, from how many training pixels each has.

    * ``none``: 1 for all.
    * ``inverse``: ``1 / frequency``.
    * ``median``: median frequency over frequency (Eigen and Fergus 2015, https://arxiv.org/abs/1411.4734).
    * ``effective``: ``(1 - b) / (1 - b**n)`` with ``b = 1 - 1/N`` for ``n`` of ``N`` pixels (effective number of
      samples, Cui et al. 2019, https://arxiv.org/abs/1901.05555).
    * a list: taken as it is.

    The weights of a named strategy are scaled to a mean of 1 over the classes that occur; classes that do not
    occur get 0, and so does no data, always.

    Args:
        counts: Shape ``(num_classes,)``, training pixels of each code.
        weighting: A strategy, or one weight for each code (13) or for each class but no data (12).

    Returns:
        Shape ``(num_classes,)``.

    Raises:
        LandcoverError: If the strategy is unknown, or a list has the wrong length, a negative weight or none above 0.

    Examples:
        >>> class_weights(np.array([5, 30, 10] + [0] * 10), 'inverse')[:4].tolist()
        [0.0, 0.5, 1.5, 0.0]
    """
    if not isinstance(weighting, str):
        return _given(weighting)
    present = counts > 0
    present[NODATA] = False
    n = counts[present].astype(np.float64)
    strategies: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        'none': np.ones_like,
        'inverse': lambda n: 1 / n,
        'median': lambda n: np.median(n) / n,
        'effective': lambda n: -1 / np.expm1(n * np.log1p(-1 / max(n.sum(), 2))),
    }
    if weighting not in strategies:
        raise LandcoverError(f'class_weights must be one of {", ".join(strategies)} or a list, got {weighting!r}')
    weights = np.zeros(len(counts), dtype=np.float32)
    if len(n):
        raw = strategies[weighting](n)
        weights[present] = raw / raw.mean()
    return weights


def _given(values: Sequence[float]) -> NDArray[np.float32]:
    weights = np.array(values, dtype=np.float32, ndmin=1)
    if len(weights) == len(LEGEND.codes):
        weights = np.concatenate((np.zeros(1, dtype=np.float32), weights))
    fits = weights.shape == (LEGEND.num_classes,) and np.isfinite(weights).all() and (weights >= 0).all()
    if not fits or not weights[NODATA + 1 :].any():
        raise LandcoverError(
            f'class_weights needs {len(LEGEND.codes)} weights >= 0, not all 0, one for each class by code, got {values}'
        )
    weights[NODATA] = 0
    return weights
