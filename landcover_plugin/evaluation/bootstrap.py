"""Intervals for scores by resampling blocks of ground.

Pixels beside each other are not independent, so an interval that takes each as an observation is far too narrow. Blocks
that lie apart are nearly so: they are drawn anew, with all their pixels (Lahiri 2003,
https://doi.org/10.1007/978-1-4757-3803-2; for maps, Roberts et al. 2017, https://doi.org/10.1111/ecog.02881).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import NODATA
from .intervals import z_value

FloatArray = NDArray[np.float64]

#: Keeps the logits of 0 and 1 finite.
_EDGE = 1e-6

#: From confusion matrices, shape ``(…, classes, classes)`` with the reference in rows, to scores, shape ``(…)`` or
#: ``(…, scores)``.
Statistic = Callable[[NDArray[np.int64]], FloatArray]


class BootstrapInterval(NamedTuple):
    """Scores of all blocks together with their limits; shape as the statistic gives it, NaN where not defined."""

    value: FloatArray
    low: FloatArray
    high: FloatArray


def block_bootstrap(
    confusions_by_block: NDArray[np.integer],
    statistic: Statistic,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> BootstrapInterval:
    """Scores of a map and their confidence limits, from the confusion matrix of each block of ground.

    The standard error is that of the resamples, without their bias towards narrowness, on the scale of the logit, where
    the scores of rare classes are less skewed; the quantile is Student's (Hesterberg 2015,
    https://doi.org/10.1080/00031305.2015.1089789, section 4; logit limits: Brown, Cai and DasGupta 2001,
    https://doi.org/10.1214/ss/1009213286, section 4.2.1). With fewer than about 20 blocks, or with a class that lies
    in a few of them, limits cover less often than they say: ``scripts/bench_coverage.py`` counts it.

    Args:
        confusions_by_block: Pixel counts, shape ``(blocks, classes, classes)``, reference in rows.
        statistic: Scores in 0..1 of confusion matrices, over leading axes; such as :func:`iou`.
        n: Resamples.
        seed: Of the draw.
        level: Of the intervals.

    Raises:
        LandcoverError: If there are fewer than two blocks.
        ValueError: If a score is not in 0..1.

    Examples:
        >>> blocks = np.array([[[0, 0, 0], [0, 8, 2], [0, 1, 9]], [[0, 0, 0], [0, 9, 1], [0, 3, 7]]] * 10)
        >>> found = block_bootstrap(blocks, overall_accuracy)
        >>> float(found.value), bool(found.low < 0.825 < found.high)
        (0.825, True)
    """
    counts = np.asarray(confusions_by_block, dtype=np.int64)
    blocks = len(counts)
    if counts.ndim != 3 or blocks < 2:
        raise LandcoverError(
            f'a block bootstrap needs the matrices of at least 2 blocks of ground, got {blocks}: test on a larger area'
        )
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=n)
    flat = counts.reshape(blocks, -1).astype(np.float64)  # BLAS; counts below 2**53 stay exact
    resampled = np.rint(draws @ flat).astype(np.int64).reshape(n, *counts.shape[1:])
    value = np.asarray(statistic(counts.sum(0)), dtype=np.float64)
    if ((value < -_EDGE) | (value > 1 + _EDGE)).any():
        raise ValueError(f'scores are shares in 0..1, got {value}')
    margin = _student(blocks - 1, level) * math.sqrt(blocks / (blocks - 1)) * _spread(_logit(statistic(resampled)))
    centre = _logit(value)
    return BootstrapInterval(value, *(np.clip(_share_of(centre + d), 0, 1) for d in (-margin, margin)))


def _logit(share: FloatArray) -> FloatArray:
    inside = np.clip(np.asarray(share, dtype=np.float64), 0, 1)
    return np.log((inside + _EDGE) / (1 - inside + _EDGE))


def _share_of(logit: FloatArray) -> FloatArray:
    odds = np.exp(-logit)
    return (1 + _EDGE - _EDGE * odds) / (1 + odds)


def _spread(values: FloatArray) -> FloatArray:
    """Standard deviation over the resamples in which a score is defined; NaN with fewer than two."""
    known = ~np.isnan(values)
    count = known.sum(0)
    with np.errstate(divide='ignore', invalid='ignore'):
        mean = np.where(known, values, 0).sum(0) / count
        return np.sqrt((np.where(known, values - mean, 0) ** 2).sum(0) / (count - 1))


def _student(freedom: int, level: float) -> float:
    """Two-sided quantile of Student's distribution, found by bisection over its integral.

    Examples:
        >>> round(_student(9, 0.95), 3), round(_student(2, 0.95), 2)
        (2.262, 4.3)
    """
    angles = np.linspace(0, math.pi / 2, 20_001)[:-1]  # t = sqrt(freedom) tan(angle) makes the integral finite
    density = np.cos(angles) ** (freedom - 1)
    share = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    last = density[-1] / 2
    angle = float(np.interp(level, share / (share[-1] + last), angles))
    return max(math.sqrt(freedom) * math.tan(angle), z_value(level))


def overall_accuracy(confusions: NDArray[np.integer]) -> FloatArray:
    """Share of labelled pixels whose class is right, shape ``(…)``."""
    labelled = confusions[..., NODATA + 1 :, :]
    hits = np.diagonal(confusions, axis1=-2, axis2=-1)[..., NODATA + 1 :].sum(-1)
    return _share(hits, labelled.sum((-2, -1)))


def iou(confusions: NDArray[np.integer]) -> FloatArray:
    """Intersection over union of each class, shape ``(…, classes)``; NaN for no data and classes without reference."""
    hits, reference, predicted = _margins(confusions)
    return np.where(reference > 0, _share(hits, reference + predicted - hits), np.nan)


def mean_iou(confusions: NDArray[np.integer]) -> FloatArray:
    """Mean of :func:`iou` over the classes that the reference holds, shape ``(…)``."""
    return class_mean(iou(confusions))


def class_mean(each: FloatArray) -> FloatArray:
    """Mean of a score of each class, shape ``(…, classes)``, over the classes that have one, shape ``(…)``."""
    return _share(np.nansum(each, -1), (~np.isnan(each)).sum(-1))


def dice(confusions: NDArray[np.integer]) -> FloatArray:
    """Dice coefficient (F1) of each class, shape ``(…, classes)``; NaN for no data and classes without reference."""
    hits, reference, predicted = _margins(confusions)
    return np.where(reference > 0, _share(2 * hits, reference + predicted), np.nan)


def users_accuracy(confusions: NDArray[np.integer]) -> FloatArray:
    """Share of what the map shows of each class that is right, shape ``(…, classes)``."""
    hits, reference, predicted = _margins(confusions)
    return np.where(reference > 0, _share(hits, predicted), np.nan)


def producers_accuracy(confusions: NDArray[np.integer]) -> FloatArray:
    """Share of what is there of each class that the map shows, shape ``(…, classes)``."""
    hits, reference, _ = _margins(confusions)
    return _share(hits, reference)


def _margins(confusions: NDArray[np.integer]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Hits, reference pixels and predicted pixels of each class; row 0 (no reference) does not count."""
    counts = np.array(confusions, dtype=np.float64)
    counts[..., NODATA, :] = 0
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)


def _share(part: NDArray[Any], whole: NDArray[Any]) -> FloatArray:
    total: FloatArray = np.asarray(whole, dtype=np.float64)
    return np.divide(part, total, out=np.full(total.shape, np.nan), where=total > 0)
