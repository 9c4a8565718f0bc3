"""How many points of a sample go to each stratum."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError

Allocation = Literal['neyman', 'proportional', 'equal']
ALLOCATIONS: tuple[Allocation, ...] = ('neyman', 'proportional', 'equal')


def allocate(
    pixels: NDArray[np.int64],
    n: int,
    *,
    allocation: Allocation = 'neyman',
    expected_accuracy: NDArray[np.float64] | None = None,
    minimum: int = 50,
) -> NDArray[np.int64]:
    """Points of each stratum: at least the minimum (all pixels of a smaller stratum), the rest by the rule.

    * ``proportional``: as the area.
    * ``neyman``: as the area times the expected standard deviation of being right, ``sqrt(U (1 - U))``, which makes the
      standard error of the overall accuracy least (Cochran 1977, equation 5.26; Olofsson et al. 2014, section 5.1).
    * ``equal``: alike.

    Args:
        pixels: Pixels of each stratum, shape ``(strata,)``; strata without pixels get no point.
        n: Points in all.
        allocation: Which of the three.
        expected_accuracy: User's accuracy that one expects of each stratum, of ``neyman``, shape ``(strata,)``
            (default: 0.8 for each, with which neyman is proportional).
        minimum: Points of each stratum.

    Raises:
        LandcoverError: If n does not suffice for the minimum or exceeds the pixels, or an accuracy is not in (0, 1).

    Examples:
        >>> allocate(np.array([20, 70, 910]) * 1000, 100, allocation='proportional', minimum=10).tolist()
        [10, 10, 80]
        >>> expected = np.array([0.7, 0.7, 0.99])
        >>> allocate(np.array([20, 70, 910]) * 1000, 100, expected_accuracy=expected, minimum=10).tolist()
        [10, 24, 66]
    """
    size = np.asarray(pixels, dtype=np.int64)
    if allocation not in ALLOCATIONS:
        raise LandcoverError(f'allocation must be one of {", ".join(ALLOCATIONS)}, got {allocation!r}')
    if n < 1:
        raise LandcoverError(f'a sample has at least 1 point, got {n}: raise --n')
    floor = np.minimum(minimum, size)
    if minimum < 0 or n < max(floor.sum(), 1):
        raise LandcoverError(
            f'{n} points do not suffice for {minimum} in each of {(size > 0).sum()} strata, which takes {floor.sum()}: '
            'raise --n or lower --min-per-class'
        )
    if n > size.sum():
        raise LandcoverError(f'the map has only {size.sum()} pixels of a class, fewer than {n} points: lower --n')
    share = _shares(size, allocation, expected_accuracy)
    return _fill(share, floor, size, n)


def _shares(
    size: NDArray[np.int64], allocation: Allocation, expected: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    if allocation == 'equal':
        return (size > 0).astype(np.float64)
    if allocation == 'proportional' or expected is None:
        return size.astype(np.float64)
    accuracy = np.asarray(expected, dtype=np.float64)
    if not ((accuracy > 0) & (accuracy < 1)).all():
        raise LandcoverError(f'an expected accuracy is a share between 0 and 1, got {accuracy.tolist()}')
    return np.asarray(size * np.sqrt(accuracy * (1 - accuracy)), dtype=np.float64)


def _fill(share: NDArray[np.float64], floor: NDArray[np.int64], size: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Whole numbers that add up to n, between floor and size, else in proportion to the shares."""
    exact = floor.astype(np.float64)
    bound = np.zeros(len(share), dtype=bool)
    while not bound.all():
        if not (rest := share[~bound].sum()):  # strata without pixels
            break
        exact[~bound] = (n - exact[bound].sum()) * share[~bound] / rest
        too_many, too_few = ~bound & (exact > size), ~bound & (exact < floor)
        if not (wrong := too_many if too_many.any() and not too_few.any() else too_few).any():
            break
        exact[wrong] = np.where(too_few[wrong], floor[wrong], size[wrong])
        bound |= wrong
    found = np.clip(np.floor(exact).astype(np.int64), floor, size)
    for h in np.argsort(found - exact, kind='stable'):  # largest remainders first
        if found.sum() < n and found[h] < size[h]:
            found[h] += 1
    return _settle(found, floor, size, n)


def _settle(found: NDArray[np.int64], floor: NDArray[np.int64], size: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Put the last few points where there is room, or take them from the largest strata."""
    while (short := n - int(found.sum())) != 0:
        room = size - found if short > 0 else found - floor
        h = int(np.argmax(room))
        found[h] += np.sign(short) * min(abs(short), int(room[h]))
    return found
