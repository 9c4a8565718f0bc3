"""How bright image bands are shown: percentiles over all months, found once from a bounded sample of pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..grid import PixelWindow
from ..rasters.mosaics import Mosaics, measured
from ..rasters.opening import server_settings
from ..rasters.reading import read_window

#: Percentiles of the digital numbers that become black and full brightness.
LOW, HIGH = 2, 98

#: Edge of the thumbnail that is read through overviews, and number and edge of windows where there are none.
_THUMBNAIL, _WINDOWS, _EDGE = 512, 5, 128


def limits(mosaics: Mosaics) -> dict[str, tuple[float, float]]:
    """Darkest and brightest digital number of each band; the months share them, so that they can be compared.

    Args:
        mosaics: With all of their bands.

    Raises:
        LandcoverError: If a file cannot be read.
    """
    samples = [_sample(path, mosaics.indexes_of(path)) for path in mosaics.files]
    pixels = [
        s[:, measured(s[..., None], mosaics.nodata_of(p))[:, 0]] for p, s in zip(mosaics.files, samples, strict=True)
    ]
    joined = np.concatenate(pixels, axis=1)
    if not joined.shape[1]:  # nothing was met: the usual range of land
        return dict.fromkeys(mosaics.bands, (0.0, 3000.0))
    low, high = np.percentile(joined, (LOW, HIGH), axis=1)
    return {b: (float(lo), float(hi)) for b, lo, hi in zip(mosaics.bands, low, high, strict=True)}


def _sample(path: str, indexes: Sequence[int]) -> NDArray[Any]:
    """Pixels from all over a file, shape ``(bands, n)``."""
    with server_settings(path), rasterio.open(path) as src:
        height, width = src.shape
        factor = max(height, width) / _THUMBNAIL
        if factor <= 1 or any(o >= factor / 4 for o in src.overviews(1)):
            shape = (len(indexes), *(max(round(n / max(factor, 1)), 1) for n in (height, width)))
            return src.read(list(indexes), out_shape=shape).reshape(len(indexes), -1)
    rows, cols = (np.linspace(0, max(n - _EDGE, 0), _WINDOWS, dtype=int) for n in (height, width))
    windows = [PixelWindow(int(r), int(c), min(_EDGE, height), min(_EDGE, width)) for r in rows for c in cols]
    read = [read_window(path, w, indexes=indexes).reshape(len(indexes), -1) for w in windows]
    return np.concatenate(read, axis=1)
