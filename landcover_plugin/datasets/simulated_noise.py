"""Randomness as a pure function of place: the same value for a pixel whichever tile asks for it.

numba does not notice that a function it has cached calls one that changed in another file: after an
edit here or in the table of kinds, delete ``datasets/__pycache__``.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_MASK = np.uint64(0xFFFFFFFF)
_I, _J, _SALT = np.uint64(0x8DA6B343), np.uint64(0xD8163841), np.uint64(0xCB1AB31F)
_A, _B = np.uint64(0x7FEB352D), np.uint64(0x846CA68B)
_S15, _S16 = np.uint64(15), np.uint64(16)


@njit(cache=True)
def hash32(i: int, j: int, salt: int) -> int:
    """32 scrambled bits of a lattice point.

    Mixer: ``lowbias32`` of C. Wellons' hash-prospector, https://nullprogram.com/blog/2018/07/31/ .
    """
    h = (np.uint64(i) * _I) ^ (np.uint64(j) * _J) ^ (np.uint64(salt) * _SALT)
    h = (h ^ (h >> np.uint64(32))) & _MASK
    h = ((h ^ (h >> _S16)) * _A) & _MASK
    h = ((h ^ (h >> _S15)) * _B) & _MASK
    return np.int64(h ^ (h >> _S16))  # type: ignore[return-value]


@njit(cache=True)
def uniform(i: int, j: int, salt: int) -> float:
    """A number in [0, 1) for a lattice point."""
    return hash32(i, j, salt) / 4294967296.0


@njit(cache=True)
def value_noise(x: float, y: float, scale: float, salt: int) -> float:
    """Smooth noise in [-1, 1]: random values on a lattice of ``scale`` metres, smoothly interpolated."""
    u, v = x / scale, y / scale
    i, j = int(np.floor(u)), int(np.floor(v))
    a, b = u - i, v - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    top = uniform(i, j, salt) * (1 - a) + uniform(i + 1, j, salt) * a
    low = uniform(i, j + 1, salt) * (1 - a) + uniform(i + 1, j + 1, salt) * a
    return 2 * (top * (1 - b) + low * b) - 1


@njit(cache=True)
def fractal(x: float, y: float, scale: float, octaves: int, salt: int) -> float:
    """Sum of octaves of :func:`value_noise`, each half as wide and half as high, each turned by 37 degrees."""
    total, height = 0.0, 1.0
    for octave in range(octaves):
        total += height * value_noise(x, y, scale, salt + octave)
        x, y = 0.8 * x - 0.6 * y + 1013.0, 0.6 * x + 0.8 * y + 577.0
        scale, height = scale / 2, height / 2
    return total


#: Planes of :func:`fields`.
ELEVATION, MOISTURE, ROCK, COAST, BORDER, WARP, VIGOUR, STAND = range(8)


@njit(cache=True)
def fields(
    xs: NDArray[np.float64], ys: NDArray[np.float64], size: tuple[float, float], salt: int
) -> NDArray[np.float32]:
    """Smooth fields of the landscape at the crossings of ``xs`` and ``ys`` (metres east and south).

    ``size`` is the height and width of the scene in metres.

    Returns:
        Shape ``(8, rows, cols)``. ``COAST`` and ``BORDER`` are metres, negative in the sea and abroad;
        the others are without unit, around 0.
    """
    height, width = size
    short = min(height, width)
    relief = min(max(short / 2.2, 400.0), 4500.0)
    out = np.empty((8, len(ys), len(xs)), dtype=np.float32)
    for r, y in enumerate(ys):
        for c, x in enumerate(xs):
            out[ELEVATION, r, c] = fractal(x, y, relief, 5, salt + 10)
            out[MOISTURE, r, c] = fractal(x, y, relief / 3, 6, salt + 20)
            out[ROCK, r, c] = fractal(x, y, relief / 4, 4, salt + 30)
            shore = 0.9 * width - x + 0.04 * width * fractal(x, y, short / 2, 4, salt + 40)
            out[COAST, r, c] = shore
            corner = (x / width + y / height - 0.3) * short * 0.7
            out[BORDER, r, c] = corner + 0.04 * short * fractal(x, y, short / 6, 4, salt + 50)
            out[WARP, r, c] = fractal(x, y, 140.0, 3, salt + 60)
            out[VIGOUR, r, c] = fractal(x, y, 420.0, 4, salt + 70) / 1.5
            out[STAND, r, c] = 1.3 * fractal(x, y, 75.0, 2, salt + 90)
    return out
