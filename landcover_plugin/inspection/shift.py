"""How far the labels lie from what the image shows: the displacement at which their edges agree best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..legend import NODATA

#: Largest displacement that is looked for, in pixels. ED50 in place of ETRS89 moves Catalonia by 9 and 21.
RADIUS = 24

#: A window tells something when at least this share of its pixels lies beside a boundary of the label.
MIN_EDGES = 0.01

#: Displacements nearer than this to the peak belong to it and not to its surroundings, in pixels.
_PEAK = 3


@dataclass(frozen=True)
class Shift:
    """A displacement of the label against the image, in image pixels.

    Args:
        east: Positive where the label lies east of what the image shows.
        south: Positive where it lies south of it.
        error: Standard error of either, by a jackknife over the windows.
        contrast: Height of the peak of the correlation above its surroundings, in their standard deviations.
        agreement: Share of windows whose own peak lies within 1.5 px.
        windows: Windows with enough edges.
    """

    east: float
    south: float
    error: float
    contrast: float
    agreement: float
    windows: int

    @property
    def is_certain(self) -> bool:
        """Whether the peak stands out and the windows agree on it."""
        return self.windows >= 3 and self.contrast >= 5 and self.agreement >= 0.2 and self.error <= 0.5

    @property
    def length(self) -> float:
        """Distance in pixels."""
        return float(np.hypot(self.east, self.south))


def label_edges(codes: NDArray[np.uint8], purity: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Edge strength of a label as if its classes were bands of an image: the gradient of their shares.

    The purity places an edge inside a pixel, so that the displacement comes out to a fraction.

    Args:
        codes: Majority codes, shape ``(H, W)``.
        purity: Percent of the pixel that its code covers, shape ``(H, W)``.

    Returns:
        Shape ``(H, W)``; NaN beside pixels without a label.
    """
    present = np.unique(codes[codes != NODATA])
    shares = np.where(codes == present[:, None, None], purity.astype(np.float32) / 100, 0)
    return _gradient(shares, codes != NODATA)


def image_edges(image: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Edge strength of an image: the gradient over its bands, each stretched to the middle 96 % of its values.

    Args:
        image: Shape ``(C, H, W)``, in any unit.
        valid: Shape ``(H, W)``.

    Returns:
        Shape ``(H, W)``; NaN beside pixels that are not valid.
    """
    if not valid.any():
        return np.full(valid.shape, np.nan, dtype=np.float32)
    image = np.where(valid, image, 0).astype(np.float32)
    low, high = np.percentile(image[:, valid], (2, 98), axis=1)[:, :, None, None]
    return _gradient((image.clip(low, high) - low) / np.maximum(high - low, 1e-6), valid)


def _gradient(bands: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Length of the gradient over all bands by central differences, NaN where a neighbour is not valid."""
    out = np.full(valid.shape, np.nan, dtype=np.float32)
    across = bands[:, 1:-1, 2:] - bands[:, 1:-1, :-2]
    down = bands[:, 2:, 1:-1] - bands[:, :-2, 1:-1]
    length = np.sqrt((across**2 + down**2).mean(0)) if len(bands) else np.zeros(across.shape[1:], dtype=np.float32)
    whole = valid[1:-1, 1:-1] & valid[1:-1, 2:] & valid[1:-1, :-2] & valid[2:, 1:-1] & valid[:-2, 1:-1]
    out[1:-1, 1:-1] = np.where(whole, length, np.nan)
    return out


def correlation(label: NDArray[np.float32], image: NDArray[np.float32], radius: int = RADIUS) -> NDArray[np.float64]:
    """Normalised cross-correlation of two edge maps at every whole displacement up to a radius.

    Pixels that are NaN in either map do not count.

    Args:
        label: Shape ``(H, W)``.
        image: Shape ``(H, W)``.
        radius: Largest displacement in pixels; less than a side of the maps.

    Returns:
        Shape ``(2 radius + 1, 2 radius + 1)``: ``[radius + south, radius + east]`` is the correlation if the label
        lies that many pixels south and east of the image.

    Examples:
        >>> image = np.random.default_rng(0).random((40, 50), dtype=np.float32)
        >>> found = correlation(np.roll(image, (2, -3), (0, 1)), image, 5)
        >>> [int(i) - 5 for i in np.unravel_index(found.argmax(), found.shape)]
        [2, -3]
    """
    shape = tuple(int(n) + radius for n in label.shape)
    weights = [np.isfinite(edges).astype(np.float64) for edges in (label, image)]
    centred = [_standardised(edges, w) for edges, w in zip((label, image), weights, strict=True)]
    products = _lagged(centred, shape, radius)
    counts = _lagged(weights, shape, radius)
    return products / np.maximum(counts, 0.1 * label.size)


def _standardised(edges: NDArray[np.float32], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Zero mean and unit variance over the pixels that count, 0 elsewhere; the brightest edges are cut off."""
    inside = weight > 0
    if not inside.any():
        return weight
    values = np.minimum(edges, np.percentile(edges[inside], 98))
    mean, spread = values[inside].mean(), values[inside].std()
    return np.where(inside, (values - mean) / max(float(spread), 1e-9), 0)


def _lagged(pair: Sequence[NDArray[np.float64]], shape: tuple[int, ...], radius: int) -> NDArray[np.float64]:
    """Sums of products of the first, moved back, with the second, for lags from -radius to radius."""
    first, second = (np.fft.rfft2(a, s=shape) for a in pair)
    lags = np.fft.irfft2(first * second.conj(), s=shape)
    return np.roll(lags, (radius, radius), (0, 1))[: 2 * radius + 1, : 2 * radius + 1]


def peak(surface: NDArray[np.float64]) -> tuple[float, float]:
    """Place of the largest value as ``(row, col)``, to a fraction by a parabola along each axis.

    Examples:
        >>> x = np.arange(7) - 3.25
        >>> row, col = peak(1 - (x[:, None] ** 2 + (x + 1) ** 2) / 100)
        >>> round(row, 3), round(col, 3)
        (3.25, 2.25)
    """
    row, col = np.unravel_index(int(surface.argmax()), surface.shape)
    return _vertex(surface[:, col], int(row)), _vertex(surface[row], int(col))


def _vertex(values: NDArray[np.float64], at: int) -> float:
    if not 0 < at < len(values) - 1:
        return float(at)
    before, here, after = values[at - 1 : at + 2]
    bend = before - 2 * here + after
    return at + float(0.5 * (before - after) / bend) if bend < 0 else float(at)


def estimate_shift(surfaces: Sequence[NDArray[np.float64]]) -> Shift | None:
    """The displacement on which windows agree, from their correlations; None without a window.

    Args:
        surfaces: What :func:`correlation` gave for each window, all with one radius.
    """
    if not surfaces:
        return None
    stack = np.stack(surfaces)
    total = stack.mean(0)
    radius = total.shape[0] // 2
    row, col = peak(total)
    distance = np.hypot((np.arange(total.shape[0]) - row)[:, None], np.arange(total.shape[1]) - col)
    around = total[distance > _PEAK]
    contrast = (total.max() - around.mean()) / max(float(around.std()), 1e-9) if around.size else 0.0
    own = np.array([peak(s) for s in stack])
    agreement = float((np.hypot(*(own - (row, col)).T) <= 1.5).mean())
    return Shift(col - radius, row - radius, _jackknife(stack), float(contrast), agreement, len(stack))


def _jackknife(stack: NDArray[np.float64]) -> float:
    """Standard error of the place of the peak: the larger of both axes (Efron and Stein 1981)."""
    n = len(stack)
    if n < 2:
        return float('inf')
    total = stack.sum(0)
    places = np.array([peak((total - s) / (n - 1)) for s in stack])
    return float(np.sqrt((n - 1) / n * ((places - places.mean(0)) ** 2).sum(0)).max())


def is_telling(edges: NDArray[np.float32]) -> bool:
    """Whether a label has enough boundaries in a window to place it."""
    return bool(np.count_nonzero(edges > 0.02) >= MIN_EDGES * edges.size)
