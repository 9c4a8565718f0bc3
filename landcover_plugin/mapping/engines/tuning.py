"""Batch and patch size by a short probe of the machine and the data."""

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import LandcoverError
from ...grid import taper
from ...machine import processors
from ...models.outputs import predicted_codes
from .base import Engine
from .choosing import MIN_AGREEMENT
from .trials import seconds_of, timed

log = logging.getLogger(__name__)

#: Windows in a batch that are tried.
BATCHES = (1, 2, 4, 8, 16, 32, 64)

#: A smaller batch that is this near to the best rate is taken: it needs less memory.
_NEARLY = 0.97

#: A larger window that is this near is taken: the noise of a short probe should not decide what a map looks like.
_AS_FAST = 0.9


class PatchTrial(NamedTuple):
    """What became of a patch size.

    Attributes:
        rate: Million pixels of map per second: those that the windows share count once.
        agreement: Share of pixels with the class that windows of the training patch size give them.
    """

    rate: float
    agreement: float


def cpu_batch() -> int:
    """Windows in a batch on a CPU.

    There each window is computed by itself, and batches follow each other without a pause: one for each core keeps all
    of them busy, and more would only take memory.
    """
    return processors()


def tune_batch(
    engine: Engine, images: Tensor, *, candidates: Sequence[int] = BATCHES, rounds: int = 3
) -> tuple[int, dict[int, float]]:
    """The smallest batch that is as good as the fastest, on a device that computes a batch as one.

    Args:
        engine: Built for one window, so that nothing is filled up.
        images: One window or more ``(N, C, H, W)``; repeated to fill the batches.
        candidates: Batches.
        rounds: Turns that each batch gets.

    Returns:
        Windows in a batch, and the rate of each batch in million pixels per second. Batches for which memory does not
        suffice are left out.

    Raises:
        LandcoverError: If memory does not suffice for the smallest.
    """
    sizes = sorted(candidates)
    repeated = images.repeat(-(-sizes[-1] // len(images)), 1, 1, 1)
    taken: dict[int, list[float]] = {}
    for turn in range(rounds):
        for size in sizes if turn == 0 else list(taken):
            try:
                taken.setdefault(size, []).append(seconds_of(engine, repeated[:size]))
            except torch.cuda.OutOfMemoryError:
                taken.pop(size)
                break
    pixels = images.shape[-2] * images.shape[-1] / 1e6
    rates = {size: size * pixels / statistics.median(each) for size, each in taken.items()}
    if not rates:
        raise LandcoverError(f'memory does not suffice for a batch of {sizes[0]} windows: choose a smaller patch size')
    return min(size for size, rate in rates.items() if rate >= _NEARLY * max(rates.values())), rates


def tune_patch_size(
    build: Callable[[int], Engine],
    images: Tensor,
    *,
    patch_size: int,
    overlap: int,
    factors: Sequence[int] = (1, 2),
    min_agreement: float = MIN_AGREEMENT,
) -> tuple[int, Mapping[int, PatchTrial]]:
    """The largest patch size that is about as fast as any and whose map is nearly that of the training patch size.

    Larger windows share less of their ground with neighbours, so more of what is computed is map; but a network that
    sees more of the surroundings may decide otherwise, so the agreement is measured.

    Args:
        build: The engine for windows of an edge, closed afterwards.
        images: Squares of real ground ``(N, C, S, S)``, normalised, whose edge is the largest candidate.
        patch_size: Of the training.
        overlap: Pixels that neighbours share, whatever their size.
        factors: Candidates, as multiples of ``patch_size``.
        min_agreement: Least share of pixels on which a size has to agree.

    Returns:
        The edge of windows in pixels, and what was found for each; none for those that memory does not suffice for.

    Raises:
        LandcoverError: If the squares have another edge than the largest candidate.
    """
    sizes = [factor * patch_size for factor in factors]
    if images.shape[-1] != max(sizes) or images.shape[-2] != max(sizes):
        raise LandcoverError(f'the probe must be squares of {max(sizes)} px, got {tuple(images.shape[-2:])}')
    inside = slice(overlap // 2, max(sizes) - overlap // 2)  # nearer to the rim a map has other neighbours
    codes: dict[int, NDArray[np.int64]] = {}
    trials: dict[int, PatchTrial] = {}
    for size in sizes:
        engine = build(size)
        try:
            codes[size], seconds = _map_squares(engine, images, size, overlap)
        except torch.cuda.OutOfMemoryError:
            if not trials:
                raise
            break
        finally:
            engine.close()
        agreement = float((codes[size] == codes[sizes[0]])[:, inside, inside].mean())
        trials[size] = PatchTrial((size - overlap) ** 2 / 1e6 / seconds, agreement)
    good = {s: trial.rate for s, trial in trials.items() if s == sizes[0] or trial.agreement >= min_agreement}
    return max(s for s, rate in good.items() if rate >= _AS_FAST * max(good.values())), trials


def _map_squares(engine: Engine, images: Tensor, size: int, overlap: int) -> tuple[NDArray[np.int64], float]:
    """Codes of squares that are mapped by windows of an edge, and the seconds of a window."""
    edge = images.shape[-1]
    starts = sorted({min(start, edge - size) for start in range(0, edge - overlap, size - overlap)})
    places = [(slice(r, r + size), slice(c, c + size)) for r in starts for c in starts]
    weights = torch.from_numpy(taper(size, overlap))
    windows = torch.cat([images[:, :, rows, cols] for rows, cols in places])
    engine(windows[: processors()])  # each thread has its memory then
    found, seconds = timed(engine, windows)
    total: Tensor | None = None
    for (rows, cols), part in zip(places, found.cpu().split(len(images)), strict=True):
        total = part.new_zeros(len(images), part.shape[1], edge, edge) if total is None else total
        total[:, :, rows, cols] += part * weights  # the sum of weights is the same for all classes
    if total is None:
        raise LandcoverError('the probe is empty: give at least one square')
    return predicted_codes(total).numpy(), seconds / len(windows)
