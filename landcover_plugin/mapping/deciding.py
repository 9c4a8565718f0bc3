"""From weighted sums of probabilities to what a map shows: codes, and how sure they are."""

from collections.abc import Collection
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import NODATA
from ..rasters.layers import PERCENT_NODATA, Kind

#: Each layer of some rows, uint8, shape ``(bands, n, width)``.
Decided = dict[Kind, NDArray[np.uint8]]


def decide(sums: NDArray[np.float32], weights: NDArray[np.float32], kinds: Collection[Kind]) -> Decided:
    """Decide for the most probable class; channel 0 (no data) is never chosen.

    Args:
        sums: Weighted probabilities, shape ``(num_classes, n, width)``.
        weights: Sum of the weights, shape ``(n, width)``; 0 where there is nothing to decide.
        kinds: The layers wanted.

    Returns:
        ``classes``: codes, the lower one of a tie, 0 where there is no weight. ``confidence``: mean probability of that
        class in whole percent. ``entropy``: that of the mean probabilities, in percent of what equal ones have.
        ``probabilities``: of each class, without channel 0, in percent. Percentages are 255 where there is no weight.

    Raises:
        LandcoverError: If a pixel with a weight is NaN: the network broke down there.

    Examples:
        >>> sums = np.array([[[0, 0]], [[0.5, 0]], [[1.5, 0]]], np.float32)
        >>> found = decide(sums, np.array([[2, 0]], np.float32), ['classes', 'confidence'])
        >>> found['classes'].tolist(), found['confidence'].tolist()
        ([[[2, 0]]], [[[75, 255]]])
    """
    out = _room(len(sums), weights.shape, kinds)
    unwanted = np.empty((0, 0, 0), np.uint8)
    layers: tuple[Kind, ...] = ('classes', 'confidence', 'entropy', 'probabilities')
    broken = _decide(sums, weights, *(out.get(kind, unwanted) for kind in layers))
    if broken:
        raise LandcoverError(
            f'the network gave NaN at {broken} pixels: the checkpoint is damaged, its training diverged, or it needs '
            'more than 16 bits; map with --trainer.precision 32 or choose another checkpoint'
        )
    return out


def decide_nothing(num_classes: int, shape: tuple[int, int], kinds: Collection[Kind]) -> Decided:
    """Layers of rows to which no window came."""
    out = _room(num_classes, shape, kinds)
    for kind, array in out.items():
        array[:] = NODATA if kind == 'classes' else PERCENT_NODATA
    return out


def confidence_of(probabilities: NDArray[np.float32], codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Percent of the class of each pixel, 255 where it is no data; probabilities as sums of weight 1."""
    chosen = np.take_along_axis(probabilities, codes[None].astype(np.intp), axis=0)[0]
    return np.where(codes == NODATA, PERCENT_NODATA, np.rint(100 * chosen)).astype(np.uint8)


def hide(layers: Decided, wanted: NDArray[np.bool_]) -> None:
    """Make no data of the pixels, shape ``(n, width)``, that are not wanted."""
    for kind, array in layers.items():
        array[:, ~wanted] = NODATA if kind == 'classes' else PERCENT_NODATA


def _room(num_classes: int, shape: tuple[int, int], kinds: Collection[Kind]) -> Decided:
    every: tuple[Kind, ...] = ('classes', 'confidence', 'entropy', 'probabilities')
    bands = {kind: num_classes - 1 if kind == 'probabilities' else 1 for kind in every}
    return {kind: np.empty((bands[kind], *shape), np.uint8) for kind in every if kind in kinds or kind == 'classes'}


@numba.njit(cache=True, nogil=True)
def _decide(sums, weights, codes, confidence, entropy, percent) -> Any:  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill the layers that have room, row by row so that a row stays near the processor; count broken pixels."""
    classes, rows, cols = sums.shape
    best = np.empty(cols, np.float32)
    chosen = np.empty(cols, np.uint8)
    disorder = np.empty(cols, np.float32)
    divisor = np.empty(cols, np.float32)
    broken = 0
    most = np.float32(100 / np.log(classes - 1)) if classes > 2 else np.float32(0)
    for r in range(rows):
        weight = np.ascontiguousarray(weights[r])
        for c in range(cols):
            divisor[c] = weight[c] if weight[c] > 0 else np.float32(1)
            best[c] = -1
            disorder[c] = 0
        for k in range(1, classes):
            total = np.ascontiguousarray(sums[k, r])  # what is known to be contiguous is computed faster
            for c in range(cols):
                p = total[c] / divisor[c]
                better = (p > best[c]) | (p != p)  # NaN stays: nothing is greater
                best[c] = p if better else best[c]
                chosen[c] = np.uint8(k) if better else chosen[c]
            if entropy.size:
                for c in range(cols):
                    p = total[c] / divisor[c]
                    disorder[c] -= p * np.log(p) if p > 0 else np.float32(0)
            if percent.size:
                band = percent[k - 1, r]
                for c in range(cols):
                    p = np.rint(total[c] / divisor[c] * np.float32(100))
                    band[c] = np.uint8(p) if weight[c] > 0 else np.uint8(255)
        for c in range(cols):
            covered = weight[c] > 0
            broken += covered & (best[c] != best[c])
            codes[0, r, c] = chosen[c] if covered else np.uint8(0)
            if confidence.size:
                confidence[0, r, c] = np.uint8(np.rint(best[c] * np.float32(100))) if covered else np.uint8(255)
            if entropy.size:
                entropy[0, r, c] = np.uint8(np.rint(disorder[c] * most)) if covered else np.uint8(255)
    return broken
