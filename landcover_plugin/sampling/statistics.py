"""Mean and standard deviation of each channel over training ground, computed once."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..datasets.sentinel2 import CataloniaSentinel2
from ..errors import LandcoverError
from ..grid import PixelWindow
from ..rasters.outputs import write_whole
from .samplers import cut_window

log = logging.getLogger(__name__)

#: Windows that are read, and their largest edge in pixels: 16 million pixels at most.
SAMPLE_WINDOWS, SAMPLE_SIZE = 256, 256


def band_statistics(
    images: CataloniaSentinel2, windows: Sequence[PixelWindow], *, seed: int = 0, progress: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of reflectance over the measured pixels of some windows.

    All looks are pooled. Large regions are sampled: 256 windows of at most 256 px, drawn with the seed.

    Args:
        images: Mosaics.
        windows: Windows of training ground.
        seed: Of the sample.
        progress: Show a progress bar on stderr.

    Returns:
        Two arrays of shape ``(C,)``.

    Raises:
        LandcoverError: If no pixel there was measured.
    """
    pieces = [piece for window in windows for piece in cut_window(window, SAMPLE_SIZE)]
    chosen = np.random.default_rng(seed).permutation(len(pieces))[:SAMPLE_WINDOWS]
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for i in tqdm(np.sort(chosen), desc='statistics', unit='window', disable=None if progress else True, leave=False):
        for look in images.looks:
            image, valid = images.read(images.grid.subgrid(pieces[i]), look)
            pixels = image[:, valid].astype(np.float64)
            count += pixels.shape[1]
            total = total + pixels.sum(1)
            squares = squares + (pixels**2).sum(1)
    if not count:
        raise LandcoverError('no pixel of the training ground was measured; choose other blocks or check nodata')
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 1e-12))


def cached_statistics(
    images: CataloniaSentinel2, windows: Sequence[PixelWindow], key: str, folder: Path, *, progress: bool = True
) -> tuple[list[float], list[float]]:
    """The statistics from the cache, or computed now and kept there.

    Args:
        images: Mosaics.
        windows: Windows of training ground.
        key: What the sources and the bands are, see :func:`~landcover_plugin.sampling.inventory.fingerprint`.
        folder: Cache; one that cannot be written costs a message, not the run.
        progress: Show a progress bar on stderr.
    """
    facts = [key, images.reflectance_scale, images.reflectance_offset, *map(tuple, windows)]
    path = folder / f'statistics-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.json'
    try:
        saved = json.loads(path.read_text())
        return saved['mean'], saved['std']
    except (OSError, ValueError, KeyError, TypeError):
        pass
    mean, std = band_statistics(images, windows, progress=progress)
    saved = {'channels': images.channels, 'mean': mean.tolist(), 'std': std.tolist()}
    try:
        write_whole(path, lambda p: p.write_text(json.dumps(saved, indent=1)))
    except OSError as e:
        log.warning('band statistics could not be kept in %s (%s)', folder, e)
    return saved['mean'], saved['std']
