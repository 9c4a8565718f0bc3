"""Confidence intervals of proportions that are put together from strata.

Estimate ± z times standard error covers too seldom where a class is rare: a stratum of which no point (or every point)
is of the class adds no variance, as if it were known. Here each stratum's proportion has Wilson limits (Wilson 1927,
https://doi.org/10.1080/01621459.1927.10502953), and sums and ratios over strata recover their limits from those:
the method of variance estimates recovery, MOVER (Zou and Donner 2008, https://doi.org/10.1002/sim.3095; Zou, Huang and
Zhang 2009, https://doi.org/10.1016/j.csda.2008.09.033, for sums of proportions). ``scripts/bench_coverage.py`` counts
how often both kinds cover.
"""

import functools
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Interval(NamedTuple):
    """Lower and upper confidence limits."""

    low: FloatArray
    high: FloatArray


class Parts(NamedTuple):
    """Proportions in strata.

    Attributes:
        mean: Shape ``(strata, quantities)``, in 0..1.
        n: Size of the sample that each proportion rests on, shape ``(strata,)``; larger than the number of points where
            these are much of the stratum.
        weight: Factor of each stratum in the sum, shape ``(strata,)``.
        possible: Whether a stratum can hold any of it at all, shape ``(strata, quantities)`` (default: each can).
    """

    mean: FloatArray
    n: FloatArray
    weight: FloatArray
    possible: NDArray[np.bool_] | None = None


def z_value(level: float) -> float:
    """Standard normal quantile of a two-sided interval.

    Examples:
        >>> round(z_value(0.95), 3)
        1.96
    """
    return NormalDist().inv_cdf((1 + level) / 2)


def normal_interval(value: FloatArray, se: FloatArray, level: float, upper: float = 1.0) -> Interval:
    """Estimate ± z times standard error, cut at 0 and at ``upper``."""
    margin = z_value(level) * se
    return Interval(np.maximum(value - margin, 0), np.minimum(value + margin, upper))


def wilson(proportion: FloatArray, n: FloatArray, level: float) -> Interval:
    """Wilson limits of proportions, modified near 0 and 1; 0 and 1 where there is no sample.

    Wilson's lower limit is too high where 1 to 3 points of the sample were found (and the upper one too low where all
    but these were); a Poisson limit takes its place (Brown, Cai and DasGupta 2001,
    https://doi.org/10.1214/ss/1009213286, section 4.1.1).

    Args:
        proportion: In 0..1.
        n: Size of the sample, need not be whole.
        level: Of the interval.

    Examples:
        >>> low, high = wilson(np.array([0.0, 0.02, 0.9]), np.array([50.0, 50.0, 50.0]), 0.95)
        >>> low.round(3).tolist(), high.round(3).tolist()
        ([0.0, 0.001, 0.786], [0.071, 0.105, 0.957])
    """
    z2 = z_value(level) ** 2
    with np.errstate(divide='ignore', invalid='ignore'):
        centre = (proportion + z2 / (2 * n)) / (1 + z2 / n)
        spread = np.sqrt(z2 * (proportion * (1 - proportion) / n + z2 / (4 * n * n))) / (1 + z2 / n)
        low = np.minimum(centre - spread, _poisson_limit(proportion * n, n, level) / n)
        high = np.maximum(centre + spread, 1 - _poisson_limit((1 - proportion) * n, n, level) / n)
    none = ~(n > 0)
    return Interval(np.clip(np.where(none, 0, low), 0, proportion), np.clip(np.where(none, 1, high), proportion, 1))


def _poisson_limit(count: FloatArray, n: FloatArray, level: float) -> FloatArray:
    """Lower limit of a Poisson mean after a small count, infinite after one that is not small."""
    means = [0.0, *(_poisson_mean(k, 1 - level) for k in (1, 2, 3))]
    small = count <= np.where(n <= 50, 2, 3) + 1e-6
    return np.where(small, np.interp(count, range(4), means), np.inf)


@functools.cache
def _poisson_mean(count: int, probability: float) -> float:
    """The mean at which a Poisson variable reaches a count with a probability.

    Examples:
        >>> round(_poisson_mean(1, 0.05), 4), round(_poisson_mean(2, 0.05), 4)
        (0.0513, 0.3554)
    """
    low, high = 0.0, 20.0
    for _ in range(60):
        mean = (low + high) / 2
        below = math.exp(-mean) * sum(mean**k / math.factorial(k) for k in range(count))
        low, high = (mean, high) if 1 - below < probability else (low, mean)
    return low


def linear_interval(parts: Parts, level: float) -> Interval:
    """Limits of the sums of ``weight * mean`` over strata.

    The distances to the Wilson limits add up like standard errors, below and above each on its own.

    Examples:
        A single stratum of weight 1 has the Wilson limits themselves:

        >>> parts = Parts(np.array([[0.9]]), np.array([50.0]), np.array([1.0]))
        >>> [v.round(3).tolist() for v in linear_interval(parts, 0.95)]
        [[0.786], [0.957]]
    """
    below, above = _distances(parts, level)
    value = parts.weight @ parts.mean
    return Interval(value - np.sqrt((below**2).sum(0)), value + np.sqrt((above**2).sum(0)))


def ratio_interval(hit: Parts, missed: Parts, level: float) -> Interval:
    """Limits of ``hit / (hit + missed)``, where no pixel is both.

    The lower limit is the ratio r at which the lower limit of ``(1 - r) hit - r missed`` is 0, and the upper one that
    at which the upper limit is: Fieller's idea with the limits of MOVER. Within a stratum the two proportions are
    correlated as those of a multinomial distribution are.

    Examples:
        With one stratum, all of which is hit or missed, these are the Wilson limits:

        >>> n, one = np.array([50.0]), np.array([1.0])
        >>> limits = ratio_interval(Parts(np.array([[0.9]]), n, one), Parts(np.array([[0.1]]), n, one), 0.95)
        >>> [v.round(3).tolist() for v in limits]
        [[0.786], [0.957]]
    """
    hit_below, hit_above = _distances(hit, level)
    missed_below, missed_above = _distances(missed, level)
    correlation = _correlation(hit.mean, missed.mean)
    y, o = hit.weight @ hit.mean, missed.weight @ missed.mean

    def excess(r: FloatArray, a: FloatArray, b: FloatArray, sign: int) -> FloatArray:
        first, second = (1 - r) * a, r * b
        spread = np.sqrt((first**2 + second**2 - 2 * correlation * first * second).sum(0))
        return (1 - r) * y - r * o + sign * spread

    with np.errstate(divide='ignore', invalid='ignore'):
        value = y / (y + o)
    zero, one = np.zeros_like(value), np.ones_like(value)
    low = _bisect(lambda r: excess(r, hit_below, missed_above, -1), zero, value)
    high = _bisect(lambda r: excess(r, hit_above, missed_below, +1), value, one)
    return Interval(low, high)


def _distances(parts: Parts, level: float) -> tuple[FloatArray, FloatArray]:
    """Weighted distances from the proportions to their limits, each of shape ``(strata, quantities)``."""
    low, high = wilson(parts.mean, parts.n[:, None], level)
    weight = parts.weight[:, None] * (1.0 if parts.possible is None else parts.possible)
    return weight * (parts.mean - low), weight * (high - parts.mean)


def _correlation(p: FloatArray, q: FloatArray) -> FloatArray:
    """Of two proportions of one multinomial sample; 0 where one of them does not vary."""
    variances = p * (1 - p) * q * (1 - q)
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(variances > 0, -p * q / np.sqrt(variances), np.where((p == 0) & (q == 0), 0, -1.0))


def _bisect(excess: Callable[[FloatArray], FloatArray], low: FloatArray, high: FloatArray) -> FloatArray:
    """Where a falling function is 0, between the bounds; one answer for each element."""
    for _ in range(50):
        middle = (low + high) / 2
        above = excess(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2
