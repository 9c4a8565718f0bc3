"""Confidence limits of all scores of a test run, from its blocks of ground."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..legend import Legend
from ..training.metrics import CLASS_SCORES, OVERALL_SCORES, IntArray
from .bootstrap import block_bootstrap, class_mean, dice, iou, overall_accuracy, producers_accuracy, users_accuracy

#: Below so many blocks with labelled pixels, limits cover less often than they say.
FEW_BLOCKS = 20

LEVEL, RESAMPLES, SEED = 0.95, 2000, 0

_BY_CLASS = dict(zip(CLASS_SCORES, (iou, dice, users_accuracy, producers_accuracy), strict=True))


def score_intervals(blocks: IntArray | None, legend: Legend) -> dict[str, Any] | None:
    """Limits of the scores of the whole and of each class; None with fewer than two blocks that hold labelled pixels.

    Args:
        blocks: Pixel counts of each block, shape ``(blocks, num_classes, num_classes)``, reference in rows.
        legend: Names of the codes.

    Returns:
        How they were found, and ``rows``: code (None for the whole), class, score, value, low, high. Where a
        score does not differ between blocks (it is 0 or 1 in all, or its class lies in one), limits are NaN: nothing
        tells its spread.
    """
    if blocks is None or len(held := blocks[blocks[:, 1:].any(axis=(1, 2))]) < 2:
        return None
    found = block_bootstrap(held, _all_scores, n=RESAMPLES, seed=SEED, level=LEVEL)
    names: list[tuple[int | None, str]] = [(None, score) for score in OVERALL_SCORES]
    names += [(code, score) for score in CLASS_SCORES for code in range(legend.num_classes)]
    rows = [
        {
            'code': code,
            'class': 'all' if code is None else legend[code].name,
            'score': score,
            **_limits(*(float(values[i]) for values in found)),
        }
        for i, (code, score) in enumerate(names)
        if not np.isnan(found.value[i])
    ]
    return {'blocks': len(held), 'level': LEVEL, 'resamples': RESAMPLES, 'seed': SEED, 'rows': rows}


def _limits(value: float, low: float, high: float) -> dict[str, float]:
    known = high - low > 1e-9  # resamples that are all alike differ by rounding at most
    return {'value': value, 'low': low if known else float('nan'), 'high': high if known else float('nan')}


def _all_scores(confusions: NDArray[np.integer]) -> NDArray[np.float64]:
    """Scores of the whole, then of each class, shape ``(…, scores)``."""
    by_class = {name: score(confusions) for name, score in _BY_CLASS.items()}
    means = [class_mean(by_class[name.removeprefix('mean_')]) for name in OVERALL_SCORES[1:]]
    return np.concatenate([np.stack([overall_accuracy(confusions), *means], -1), *by_class.values()], -1)
