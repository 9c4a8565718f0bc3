"""What digital numbers say about scale, offset, clouds, snow and the order of bands."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

#: ``BOA_ADD_OFFSET`` of processing baseline 04.00 and later (Sentinel-2 Products Specification Document).
BASELINE_OFFSET = 1000

#: Largest reflectance at which a file counts as holding reflectance itself; clouds and snow go a little above 1.
MOST_REFLECTANCE = 1.6

#: Reflectance between which the median of near infrared over land lies.
NIR_RANGE = (0.05, 0.6)


def by_name(pixels: NDArray[np.float32], bands: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Columns of an array of shape ``(n, C)`` by the names of the bands."""
    return {band: pixels[:, i] for i, band in enumerate(bands)}


def has_offset(numbers: Mapping[str, NDArray[np.float32]]) -> bool:
    """Whether the darkest digital numbers lie where the offset of baseline 04.00 puts them.

    Water, shadow and forest reflect less than 0.05 of blue and red light and of short-wave infrared, so the first
    percentile of each of these bands lies below 500, or between 900 and 1,600 with the offset of 1,000.

    Args:
        numbers: Digital numbers by band.

    Examples:
        >>> dark = np.linspace(200, 3000, 100, dtype=np.float32)
        >>> has_offset({'B02': dark, 'B12': dark}), has_offset({'B02': dark + 1000, 'B12': dark + 1000})
        (False, True)
    """
    dark = [np.percentile(numbers[b], 1) for b in ('B02', 'B04', 'B12') if b in numbers and len(numbers[b])]
    return len(dark) >= 2 and bool(min(dark) >= 0.9 * BASELINE_OFFSET and max(dark) <= 2.5 * BASELINE_OFFSET)


def clouds(reflectance: Mapping[str, NDArray[np.float32]]) -> NDArray[np.bool_] | None:
    """Pixels that are likely cloud: bright, flat and hazy in visible light; None without the bands.

    Brightness is that of Sen2Cor (red above 0.25, Level-2A Algorithm Theoretical Basis Document); whiteness below
    0.7, haze (blue - red / 2 > 0.08), short-wave infrared above 0.03 and snow index below 0.8 are those of Fmask
    (Zhu and Woodcock 2012, https://doi.org/10.1016/j.rse.2011.10.028). Roofs, quarries and beaches pass too.

    Examples:
        >>> cloud, field = (np.array([v], dtype=np.float32) for v in (0.5, 0.1))
        >>> one = {'B02': cloud, 'B03': cloud, 'B04': cloud, 'B11': cloud * 0.8}
        >>> bool(clouds(one)[0]), bool(clouds(one | {'B04': field})[0])
        (True, False)
    """
    if not {'B02', 'B03', 'B04', 'B11'} <= reflectance.keys():
        return None
    blue, green, red, swir = (reflectance[b] for b in ('B02', 'B03', 'B04', 'B11'))
    mean = (blue + green + red) / 3
    whiteness = sum(np.abs(b - mean) for b in (blue, green, red)) / np.maximum(mean, 1e-6)
    return (red > 0.25) & (whiteness < 0.7) & (blue - red / 2 > 0.08) & (swir > 0.03) & (_ndsi(green, swir) < 0.42)


def snow(reflectance: Mapping[str, NDArray[np.float32]]) -> NDArray[np.bool_] | None:
    """Pixels that are likely snow; None without the bands.

    The snow index above 0.42 is Sen2Cor's certain snow; near infrared above 0.11 and green above 0.1 keep water out
    (Fmask, Zhu and Woodcock 2012).

    Examples:
        >>> value = np.array([0.6, 0.05], dtype=np.float32)
        >>> snow({'B03': value, 'B08': value, 'B11': np.array([0.1, 0.01], dtype=np.float32)}).tolist()
        [True, False]
    """
    if not {'B03', 'B08', 'B11'} <= reflectance.keys():
        return None
    green, nir, swir = (reflectance[b] for b in ('B03', 'B08', 'B11'))
    return (_ndsi(green, swir) > 0.42) & (nir > 0.11) & (green > 0.1)


def _ndsi(green: NDArray[np.float32], swir: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalised difference snow index."""
    return (green - swir) / np.maximum(green + swir, 1e-6)


def fill_value(pixels: NDArray[np.float32]) -> float | None:
    """A value that whole pixels repeat in all bands, in at least 2 % of them: nodata that nobody declared.

    Args:
        pixels: Measured pixels, shape ``(n, C)``, more than one band.

    Examples:
        >>> fill_value(np.array([[5, 6], [7, 9], [65535, 65535]], dtype=np.float32))
        65535.0
    """
    if pixels.shape[1] < 2 or not len(pixels):
        return None
    flat = pixels[(pixels == pixels[:, :1]).all(1), 0]
    values, counts = np.unique(flat, return_counts=True)
    return float(values[counts.argmax()]) if len(values) and counts.max() >= 0.02 * len(pixels) else None
