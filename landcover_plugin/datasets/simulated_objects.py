"""What people and water drew on the ground: towns, estates, houses, mines, lakes, rivers and roads.

Every function draws, in place, the objects of a table into the ``kind`` and ``patch`` of a tile (see
``simulated_ground``); the sea is never drawn over.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from landcover_plugin.datasets.simulated_ground import NEUTRAL, Frame, Kinds, Patches, between
from landcover_plugin.datasets.simulated_noise import hash32
from landcover_plugin.datasets.simulated_spectra import KIND

_OLD_TOWN, _TOWN, _SUBURB, _STREET, _HOUSE = (KIND[k] for k in ('old town', 'town', 'suburb', 'street', 'house'))
_LAWNS, _PARK, _SHEDS, _YARDS = (KIND[k] for k in ('lawns', 'park', 'sheds', 'yards'))
_RIPARIAN, _RIVER, _SEA, _BEACH = (KIND[k] for k in ('riparian', 'river', 'sea', 'beach'))


@njit(cache=True)
def _span(low: float, high: float, origin: float, gsd: float, size: int) -> tuple[int, int]:
    """Rows (or columns) of a tile that a stretch in metres can touch."""
    start = max(0, int(np.floor((low - origin) / gsd)) - 1)
    return start, min(size, int(np.ceil((high - origin) / gsd)) + 1)


@njit(cache=True)
def _quarter(u: float, v: float, away: float, town: int) -> tuple[int, int]:
    """Kind and patch of a town's block; ``away`` is 0 in the centre and 1 at the edge."""
    i, j = int(np.floor(u / 96)), int(np.floor(v / 74))
    if u - 96 * i < 10 or v - 74 * j < 8:
        return _STREET, NEUTRAL
    block = hash32(i, j, town)
    share = (block & 0xFFF) / 4096.0
    if share < 0.10 and away > 0.15:
        return (_LAWNS if share < 0.05 else _PARK), block >> 16
    if share < 0.13:
        return _YARDS, block >> 16
    if away < 0.38:
        return _OLD_TOWN, block >> 16
    return (_TOWN if away + 0.5 * (share - 0.5) < 0.72 else _SUBURB), block >> 16


@njit(cache=True)
def draw_towns(
    warp: NDArray[np.float32], frame: Frame, towns: NDArray[np.float64], kind: Kinds, patch: Patches
) -> None:
    """Draw towns: rows of ``towns`` are x, y, radius, cosine, sine, identity."""
    for x, y, radius, cosine, sine, town in towns:
        rows = _span(y - 1.5 * radius, y + 1.5 * radius, frame.y0, frame.gsd, kind.shape[0])
        cols = _span(x - 1.5 * radius, x + 1.5 * radius, frame.x0, frame.gsd, kind.shape[1])
        for row in range(rows[0], rows[1]):
            dy = frame.y0 + (row + 0.5) * frame.gsd - y
            for col in range(cols[0], cols[1]):
                dx = frame.x0 + (col + 0.5) * frame.gsd - x
                away = np.sqrt(dx * dx + dy * dy) / radius
                away += 0.28 * between(warp, row, col, frame.per_cell)
                if away < 1 and kind[row, col] != _SEA and kind[row, col] != _BEACH:
                    u, v = dx * cosine + dy * sine, dy * cosine - dx * sine
                    kind[row, col], patch[row, col] = _quarter(u, v, away, int(town))


@njit(cache=True)
def draw_discs(
    warp: NDArray[np.float32], frame: Frame, discs: NDArray[np.float64], kind: Kinds, patch: Patches
) -> None:
    """Draw rough discs (lakes, ponds, mines): rows of ``discs`` are x, y, radius, kind, identity."""
    for x, y, radius, value, name in discs:
        rows = _span(y - 1.6 * radius, y + 1.6 * radius, frame.y0, frame.gsd, kind.shape[0])
        cols = _span(x - 1.6 * radius, x + 1.6 * radius, frame.x0, frame.gsd, kind.shape[1])
        for row in range(rows[0], rows[1]):
            dy = frame.y0 + (row + 0.5) * frame.gsd - y
            for col in range(cols[0], cols[1]):
                dx = frame.x0 + (col + 0.5) * frame.gsd - x
                away = np.sqrt(dx * dx + dy * dy) / radius + 0.3 * between(warp, row, col, frame.per_cell)
                if away < 1 and kind[row, col] != _SEA:
                    kind[row, col] = int(value)
                    bench = hash32(int(away * radius / 30), 3, int(name))  # terraces of a quarry
                    patch[row, col] = bench & 0xFFFF


@njit(cache=True)
def draw_rectangles(frame: Frame, rectangles: NDArray[np.float64], kind: Kinds, patch: Patches) -> None:
    """Draw estates, parks and houses.

    Rows of ``rectangles`` are x, y, half width, half height, cosine, sine, kind, identity. Houses stand
    on rural ground only; an estate is made of sheds and yards.
    """
    for x, y, wide, high, cosine, sine, value, name in rectangles:
        reach = wide + high
        rows = _span(y - reach, y + reach, frame.y0, frame.gsd, kind.shape[0])
        cols = _span(x - reach, x + reach, frame.x0, frame.gsd, kind.shape[1])
        for row in range(rows[0], rows[1]):
            dy = frame.y0 + (row + 0.5) * frame.gsd - y
            for col in range(cols[0], cols[1]):
                dx = frame.x0 + (col + 0.5) * frame.gsd - x
                u, v = dx * cosine + dy * sine, dy * cosine - dx * sine
                rural = kind[row, col] < _BEACH
                if abs(u) > wide or abs(v) > high or (value == _HOUSE and not rural) or kind[row, col] == _SEA:
                    continue
                draw = hash32(int(np.floor(u / 64)), int(np.floor(v / 44)), int(name))
                kind[row, col] = _YARDS if value == _SHEDS and draw & 0xFF < 90 else int(value)
                patch[row, col] = (draw >> 8) & 0xFFFF


@njit(cache=True)
def draw_lines(
    warp: NDArray[np.float32], frame: Frame, lines: NDArray[np.float64], kind: Kinds, patch: Patches
) -> None:
    """Draw rivers and roads: rows of ``lines`` are x, y, x, y, half width, kind, identity."""
    for x0, y0, x1, y1, half, value, name in lines:
        rows = _span(min(y0, y1) - 1.5 * half, max(y0, y1) + 1.5 * half, frame.y0, frame.gsd, kind.shape[0])
        cols = _span(min(x0, x1) - 1.5 * half, max(x0, x1) + 1.5 * half, frame.x0, frame.gsd, kind.shape[1])
        dx, dy = x1 - x0, y1 - y0
        length = dx * dx + dy * dy
        rough = 0.4 if value in (_RIVER, _RIPARIAN) else 0.0
        for row in range(rows[0], rows[1]):
            y = frame.y0 + (row + 0.5) * frame.gsd - y0
            for col in range(cols[0], cols[1]):
                x = frame.x0 + (col + 0.5) * frame.gsd - x0
                t = min(max((x * dx + y * dy) / length, 0.0), 1.0)
                away = np.sqrt((x - t * dx) ** 2 + (y - t * dy) ** 2)
                if rough > 0:
                    away *= 1 + rough * between(warp, row, col, frame.per_cell)
                if away < half and kind[row, col] != _SEA:
                    kind[row, col] = int(value)
                    patch[row, col] = hash32(int(name), 5, 11) & 0xFFFF
