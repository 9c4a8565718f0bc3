"""From ground to image: mixing to 10 m, relief, clouds, blur, noise and quantisation."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from landcover_plugin.datasets import simulated_noise as noise
from landcover_plugin.datasets.simulated_noise import fractal, hash32
from landcover_plugin.datasets.simulated_spectra import STEPS

#: Metres of an image pixel.
IMAGE_GSD = 10

#: Metres from a cloud to its shadow: the sun of a morning overpass stands in the south-east.
SHADOW = (-170.0, -260.0)

_ELEVATION, _COAST, _VIGOUR = noise.ELEVATION, noise.COAST, noise.VIGOUR
_LAST = STEPS - 1


@njit(cache=True)
def mix(
    kind: NDArray[np.uint8],
    patch: NDArray[np.uint16],
    vigour: NDArray[np.float32],
    corner: tuple[float, float, float, int],
    habits: NDArray[np.float32],
    recipes: NDArray[np.uint8],
    materials: NDArray[np.float32],
    salt: int,
) -> NDArray[np.float32]:
    """Reflectance of the image pixels: the mean of what the label pixels inside are made of.

    Args:
        kind: Kinds of a tile, at the resolution of the label.
        patch: Random bytes of the parcels, same shape.
        vigour: Smooth field at the corners of the image pixels.
        corner: The tile's frame: x and y in metres, label pixel in metres, label pixels per image pixel.
        habits: Grain, patch, field and gain of every kind.
        recipes: Shape ``(seasons, kinds, steps)``: the material of each step.
        materials: Shape ``(seasons, materials, bands)``.
        salt: Salt of the seed.

    Returns:
        Shape ``(seasons, bands, rows, cols)`` of the image.
    """
    x0, y0, gsd, n = corner
    seasons, count, bands = materials.shape
    rows, cols = kind.shape[0] // n, kind.shape[1] // n
    out = np.zeros((seasons, bands, rows, cols), dtype=np.float32)
    share = np.zeros((seasons, count), dtype=np.float32)
    for r in range(rows):
        for c in range(cols):
            share[:] = 0
            for row in range(r * n, r * n + n):
                y = y0 + (row + 0.5) * gsd
                for col in range(c * n, c * n + n):
                    k, p = kind[row, col], int(patch[row, col])
                    grain, by_patch, by_field, gain = habits[k]
                    bits = hash32(int((x0 + (col + 0.5) * gsd) / grain + 64), int(y / grain + 64), salt)
                    level = (bits & 0xFFFF) / 65536.0 - by_field * vigour[r, c] + by_patch * ((p & 0xFF) / 255.0 - 0.5)
                    step = int(min(max(level, 0.0), 0.9999) * STEPS)
                    bright = 1 + gain * ((p >> 8) / 127.5 - 1) + 0.1 * ((bits >> 16) / 32768.0 - 1)
                    for s in range(seasons):
                        share[s, recipes[s, k, step]] += bright
            _add_up(share, materials, out[:, :, r, c])
            out[:, :, r, c] /= n * n
    return out


@njit(cache=True)
def _add_up(share: NDArray[np.float32], materials: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Sum of the materials' spectra by share, in a fixed order."""
    for s in range(share.shape[0]):
        for m in range(share.shape[1]):
            if share[s, m] > 0:
                for b in range(materials.shape[2]):
                    out[s, b] += share[s, m] * materials[s, m, b]


@njit(cache=True)
def shade(image: NDArray[np.float32], planes: NDArray[np.float32], floor: float, relief: float) -> None:
    """Light the slopes, in place: a Lambertian cosine for small slopes, sun in the south-east at 58 degrees.

    Teillet, Guindon and Goodenough 1982, https://doi.org/10.1080/07038992.1982.10855028 . Land at or below
    the ``floor`` of farmland is almost flat; ``relief`` is metres per unit of elevation.
    """
    height, coast = planes[_ELEVATION], planes[_COAST]
    for r in range(image.shape[2]):
        for c in range(image.shape[3]):
            if coast[r, c] < 0:
                continue
            east = (height[r, c + 1] - height[r, c]) * relief / 10
            south = (height[r + 1, c] - height[r, c]) * relief / 10
            steep = min(max((height[r, c] - floor) / 0.3, 0.15), 1.0)
            light = min(max(1 - 0.62 * steep * (0.55 * east + 0.84 * south), 0.5), 1.4)
            image[:, :, r, c] *= light


@njit(cache=True)
def _cover(x: float, y: float, clouds: NDArray[np.float64], salt: int) -> float:
    """Opacity (0-1) of the clouds at a place: soft, ragged discs with rows x, y, radius, opacity."""
    cover = 0.0
    for cx, cy, radius, opacity in clouds:
        away = np.sqrt((x - cx) ** 2 + (y - cy) ** 2) / radius
        if away < 1.8:
            t = min(max(1.6 * (1 - away + 0.45 * fractal(x, y, radius * 0.8, 4, salt)), 0.0), 1.0)
            cover = max(cover, opacity * t * t * (3 - 2 * t))
    return cover


@njit(cache=True)
def cover_with_clouds(image: NDArray[np.float32], x0: float, y0: float, clouds: NDArray[np.float64], salt: int) -> None:
    """Add clouds and their shadows to one season ``(bands, rows, cols)``, in place."""
    for r in range(image.shape[1]):
        y = y0 + (r + 0.5) * 10
        for c in range(image.shape[2]):
            x = x0 + (c + 0.5) * 10
            dark = 1 - 0.62 * _cover(x - SHADOW[0], y - SHADOW[1], clouds, salt)
            white = _cover(x, y, clouds, salt)
            for b in range(image.shape[0]):
                bright = 0.62 if b < 8 else 0.42
                image[b, r, c] = image[b, r, c] * dark * (1 - white) + bright * white


@njit(cache=True)
def _normal(i: int, j: int, salt: int) -> float:
    """Almost normal noise of mean 0 and deviation 1: the sum of four bytes."""
    h = hash32(i, j, salt)
    total = (h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + (h >> 24)
    return (total - 510.0) / 147.8


@njit(cache=True)
def expose(
    image: NDArray[np.float32], row0: int, col0: int, side: NDArray[np.float32], salt: int
) -> NDArray[np.uint16]:
    """Blur, add sensor noise and quantise one season.

    Args:
        image: Reflectance with one pixel more on every side: shape ``(bands, rows + 2, cols + 2)``.
        row0: Row of the first output pixel in the scene.
        col0: Its column.
        side: Weight of a neighbour in the separable kernel ``(side, 1 - 2 side, side)`` of each band.
        salt: Salt of the season.

    Returns:
        Reflectance x 10,000, at least 1: shape ``(bands, rows, cols)``.
    """
    bands, rows, cols = image.shape[0], image.shape[1] - 2, image.shape[2] - 2
    out = np.empty((bands, rows, cols), dtype=np.uint16)
    for b in range(bands):
        w, band = side[b], image[b]
        for r in range(rows):
            for c in range(cols):
                value = 0.0
                for i in range(3):
                    line = w * (band[r + i, c] + band[r + i, c + 2]) + (1 - 2 * w) * band[r + i, c + 1]
                    value += line * (1 - 2 * w if i == 1 else w)
                value += (0.0012 + 0.012 * value) * _normal(row0 + r, col0 + c, salt + b)
                out[b, r, c] = np.uint16(min(max(np.rint(value * 10000), 1.0), 65535.0))
    return out
