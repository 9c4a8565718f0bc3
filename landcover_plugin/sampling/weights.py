"""Class weights for a loss, from how many training pixels each class has."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import LEGEND, NODATA

ClassWeighting = Literal['none', 'inverse_sqrt', 'effective', 'median', 'inverse']

#: The named strategies, from the mildest on ground as large as a country.
WEIGHTINGS: tuple[ClassWeighting, ...] = get_args(ClassWeighting)

#: Of the effective number of samples: after some ``1 / (1 - BETA)`` samples of a class, more tell nothing new.
BETA = 0.9999

#: Pixels that make one sample of the effective number: 16 x 16, 160 m of ground.
SAMPLE_PIXELS = 16 * 16

_Floats = NDArray[np.float64]


def class_weights(
    counts: NDArray[Any], weighting: ClassWeighting | Sequence[float], *, max_weight: float | None = None
) -> NDArray[np.float32]:
    """Weights of the classes in the loss, from how many training pixels each has.

    With ``n`` pixels of a class:

    * ``none``: 1 for all.
    * ``inverse_sqrt``: ``1 / sqrt(n)``, half way to inverse (Mahajan et al. 2018, https://arxiv.org/abs/1805.00932).
    * ``effective``: ``(1 - b) / (1 - b**(n / 256))`` with ``b = 0.9999``: the effective number of samples (Cui et al.
      2019, https://arxiv.org/abs/1901.05555). Samples that overlap tell little new; a pixel tells next to nothing
      beside its neighbours, so squares of 16 x 16 pixels are samples here. Classes far below 10,000 of them (26,000
      ha) are weighed as by inverse, all classes far above alike.
    * ``median``: median frequency over frequency, where the frequency is ``n`` over the labelled pixels of the cells
      that hold the class (Eigen and Fergus 2015, https://arxiv.org/abs/1411.4734, whose cells are images): a class
      that is rare because it lies in few places weighs less than one that is thin everywhere. Without cells it is
      the same as inverse, since only ratios matter.
    * ``inverse``: ``1 / n``.
    * a list: taken as it is.

    The weights of a named strategy are scaled to a mean of 1 over the classes that occur; classes that do not
    occur get 0, and so does no data, always. The losses divide by the weights that they add up, so the scale is there
    to be read, and changes no loss.

    Args:
        counts: Training pixels of each code, shape ``(num_classes,)``, or in each cell of ground
            ``(cells, num_classes)``; cells as large as a patch suit ``median``.
        weighting: A strategy, or one weight for each code (13) or for each class but no data (12).
        max_weight: Largest weight of a named strategy, at least 1; the other classes take what is cut off, in
            proportion.

    Returns:
        Shape ``(num_classes,)``.

    Raises:
        LandcoverError: If the strategy is unknown, a list has the wrong length, a negative weight or none above 0, or
            the largest weight is below the mean.

    Examples:
        >>> class_weights(np.array([5, 30, 10] + [0] * 10), 'inverse')[:4].tolist()
        [0.0, 0.5, 1.5, 0.0]
        >>> class_weights(np.array([[0, 30, 10] + [0] * 10]), 'median')[:3].tolist()
        [0.0, 0.5, 1.5]
    """
    if not isinstance(weighting, str):
        return _given(weighting)
    if max_weight is not None and not max_weight >= 1:
        raise LandcoverError(f'max_weight must be at least 1, the mean of the weights, got {max_weight}')
    cells = np.atleast_2d(counts).astype(np.float64)
    cells[:, NODATA] = 0
    present = cells.any(axis=0)
    strategies: dict[str, Callable[[_Floats], _Floats]] = {
        'none': lambda cells: np.ones(cells.shape[1]),
        'inverse_sqrt': lambda cells: 1 / np.sqrt(cells.sum(axis=0)),
        'effective': _effective,
        'median': _median_frequency,
        'inverse': lambda cells: 1 / cells.sum(axis=0),
    }
    if weighting not in strategies:
        raise LandcoverError(f'class_weights must be one of {", ".join(strategies)} or a list, got {weighting!r}')
    weights = np.zeros(cells.shape[1], dtype=np.float32)
    if present.any():
        weights[present] = _scaled(strategies[weighting](cells[:, present]), max_weight)
    return weights


def _effective(cells: _Floats) -> _Floats:
    samples = cells.sum(axis=0) / SAMPLE_PIXELS
    return (1 - BETA) / -np.expm1(samples * np.log(BETA))


def _median_frequency(cells: _Floats) -> _Floats:
    around = (cells.sum(axis=1, keepdims=True) * (cells > 0)).sum(axis=0)
    frequency = cells.sum(axis=0) / around
    return np.median(frequency) / frequency


def _scaled(weights: _Floats, most: float | None) -> _Floats:
    """Weights of mean 1, none above the most; those below it keep their proportions."""
    weights = weights / weights.mean()
    while most is not None and (weights > most * (1 + 1e-9)).any():
        over = weights >= most
        left = len(weights) - most * over.sum()
        weights = np.where(over, most, weights * left / weights[~over].sum())
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
