"""Which kind of ground lies where: nature and farmland from smooth noise and parcels.

A tile holds two arrays at the resolution of the label: ``kind`` (a value of
:data:`~landcover_plugin.datasets.simulated_spectra.KIND`) and ``patch`` (two random bytes that all
pixels of a parcel share). Every pixel depends on its place alone, so tiles of any size agree.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from landcover_plugin.datasets import simulated_noise as noise
from landcover_plugin.datasets.simulated_noise import hash32, uniform
from landcover_plugin.datasets.simulated_spectra import KIND

Kinds = NDArray[np.uint8]
Patches = NDArray[np.uint16]

_ELEVATION, _MOISTURE, _ROCK, _COAST = noise.ELEVATION, noise.MOISTURE, noise.ROCK, noise.COAST
_WARP, _VIGOUR, _STAND = noise.WARP, noise.VIGOUR, noise.STAND
_CEREAL, _IRRIGATED, _ALFALFA, _FALLOW, _VEGETABLES = (
    KIND[k] for k in ('cereal', 'irrigated', 'alfalfa', 'fallow', 'vegetables')
)
_VINEYARD, _OLIVES, _ORCHARD = KIND['vineyard'], KIND['olives'], KIND['orchard']
_CONIFERS, _BROADLEAVES, _OAKS, _OPEN = KIND['conifers'], KIND['broadleaves'], KIND['oaks'], KIND['open forest']
_SHRUBS, _MEADOW, _SOIL, _ROCKS, _BEACH = (KIND[k] for k in ('shrubland', 'meadow', 'soil', 'rocks', 'beach'))
_LANE, _SEA = KIND['lane'], KIND['sea']
#: Patch of ground that is nobody's parcel.
NEUTRAL = 0x8080


class Frame(NamedTuple):
    """Place of a tile: metres of its upper left corner, label pixel in metres, label pixels per image pixel."""

    x0: float
    y0: float
    gsd: float
    per_cell: int


class Rules(NamedTuple):
    """Levels of the smooth fields that part one kind of nature from another, and the seed's salt."""

    farmland: float
    forest: float
    scrub: float
    rock: float
    region: float
    salt: int


@njit(cache=True)
def blend(field: NDArray[np.float32], r: int, c: int, a: float, b: float) -> float:
    """A field inside image pixel ``r, c``, bilinear between its corners; ``a`` and ``b`` run from 0 to 1."""
    top = field[r, c] * (1 - a) + field[r, c + 1] * a
    return top * (1 - b) + (field[r + 1, c] * (1 - a) + field[r + 1, c + 1] * a) * b


@njit(cache=True)
def between(field: NDArray[np.float32], row: int, col: int, per_cell: int) -> float:
    """A field at a label pixel."""
    r, c = row // per_cell, col // per_cell
    return blend(field, r, c, (col - c * per_cell + 0.5) / per_cell, (row - r * per_cell + 0.5) / per_cell)


@njit(cache=True)
def _two_nearest(x: float, y: float, regions: NDArray[np.float64], size: float) -> tuple[int, int, int, int]:
    """Lattice indices of the two region centres nearest to a point (a jittered-lattice Voronoi diagram)."""
    i0, j0 = int(np.floor(y / size)) + 2, int(np.floor(x / size)) + 2
    best = second = 1e18
    bi = bj = si = sj = 0
    for i in range(max(i0 - 1, 0), min(i0 + 2, regions.shape[0])):
        for j in range(max(j0 - 1, 0), min(j0 + 2, regions.shape[1])):
            d = (regions[i, j, 0] - x) ** 2 + (regions[i, j, 1] - y) ** 2
            if d < best:
                second, si, sj = best, bi, bj
                best, bi, bj = d, i, j
            elif d < second:
                second, si, sj = d, i, j
    return bi, bj, si, sj


@njit(cache=True)
def _to_border(x: float, y: float, p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Metres from a point of region ``p`` to the straight border with ``q``."""
    apart = np.sqrt((q[0] - p[0]) ** 2 + (q[1] - p[1]) ** 2)
    return ((q[0] - x) ** 2 + (q[1] - y) ** 2 - (p[0] - x) ** 2 - (p[1] - y) ** 2) / (2 * apart)


@njit(cache=True)
def _crop(draw: int, region: NDArray[np.float64]) -> int:
    """Kind of a parcel of farmland from its random bits and its region's habits."""
    share, choice = (draw & 0xFFF) / 4096.0, ((draw >> 12) & 0x3FF) / 1024.0
    if share < 0.09:
        return _MEADOW if share < 0.045 else (_SOIL if share < 0.06 else (_OAKS if share < 0.075 else _SHRUBS))
    if share < 0.09 + 0.91 * region[5]:
        if choice < 0.55:
            return _VINEYARD if region[6] < 0.5 else _OLIVES
        return _OLIVES if choice < 0.75 else _ORCHARD
    if choice < 0.24:
        return _VEGETABLES if choice < 0.05 else (_ALFALFA if choice < 0.11 else _FALLOW)
    return _IRRIGATED if choice < (0.3 if region[6] < 0.65 else 0.6) else _CEREAL


@njit(cache=True)
def _parcel(x: float, y: float, region: NDArray[np.float64], salt: int) -> tuple[int, int]:
    """Kind and patch of the parcel at a point: rows of rectangles, turned with the region."""
    dx, dy = x - region[0], y - region[1]
    u, v = dx * region[2] + dy * region[3], dy * region[2] - dx * region[3]
    deep = region[4]
    row = int(np.floor(v / deep))
    salt = salt + 100 + int(1e6 * region[7])
    wide = deep * (0.7 + 1.5 * uniform(row, 0, salt))
    along = u / wide + uniform(row, 1, salt)
    col = int(np.floor(along))
    draw = hash32(row, col, salt + 1)
    if draw & 3 == 0 and wide > 120:
        draw = hash32(2 * row, col * 2 + int(2 * (along - col)), salt + 2)
    return _crop(draw >> 2, region), hash32(draw, 7, salt) & 0xFFFF


@njit(cache=True)
def _nature(elevation: float, moisture: float, rock: float, vigour: float, rules: Rules) -> int:
    """Kind of land that nobody tills."""
    if rock > rules.rock + 0.5 * max(moisture - rules.scrub, 0.0):
        return _ROCKS if elevation > rules.farmland + 0.25 else _SOIL
    if moisture > rules.forest:
        if moisture < rules.forest + 0.09:
            return _OPEN
        if elevation > rules.farmland + 0.45 or rock < -0.55:
            return _BROADLEAVES
        return _CONIFERS if vigour > -0.1 else _OAKS
    return _SHRUBS if moisture > rules.scrub else _MEADOW


@njit(cache=True)
def _land(
    planes: NDArray[np.float32], r: int, c: int, a: float, b: float, x: float, y: float,
    inner: bool, near: tuple[int, int, int, int], regions: NDArray[np.float64], rules: Rules,
) -> tuple[int, int]:  # fmt: skip
    """Kind and patch of a label pixel that no town, water or road covers."""
    coast, warp = blend(planes[_COAST], r, c, a, b), blend(planes[_WARP], r, c, a, b)
    if coast < 26 + 30 * warp:
        return (_SEA if coast < 0 else _BEACH), NEUTRAL
    x, y = x + 18 * warp, y - 14 * warp
    elevation = blend(planes[_ELEVATION], r, c, a, b)
    farmed = elevation < rules.farmland + 0.08 * warp
    if not inner:
        near = _two_nearest(x, y, regions, rules.region)
    region = regions[near[0], near[1]]
    if not inner:
        other = regions[near[2], near[3]]
        chance = (region[7] + other[7]) % 1.0  # three in four borders have a lane of 4-6 m
        if chance < 0.75 and _to_border(x, y, region, other) < 2 + 1.3 * chance and (farmed or chance < 0.3):
            return _LANE, NEUTRAL
    if farmed:
        return _parcel(x, y, region, rules.salt)
    moisture = blend(planes[_MOISTURE], r, c, a, b) + 0.16 * warp
    rock, vigour = blend(planes[_ROCK], r, c, a, b), blend(planes[_VIGOUR], r, c, a, b)
    stand = min(max(blend(planes[_STAND], r, c, a, b), -1.0), 1.0)
    bright = int(127.5 + 60 * min(max(warp, -1.0), 1.0))
    return _nature(elevation, moisture, rock, vigour, rules), bright << 8 | int(127.5 + 127 * stand)


@njit(cache=True)
def draw_land(
    planes: NDArray[np.float32],
    frame: Frame,
    rules: Rules,
    regions: NDArray[np.float64],
    kind: Kinds,
    patch: Patches,
) -> None:
    """Fill a tile with sea, beach, nature, lanes and parcels.

    Args:
        planes: Smooth fields at the corners of the tile's image pixels.
        frame: Place of the tile.
        rules: Levels that part the kinds.
        regions: Shape ``(rows, cols, 8)``: x, y, cosine, sine, depth of a row of parcels, share of woody
            crops, habit, identity.
        kind: Output, shape ``(rows, cols)`` of the label.
        patch: Output, same shape.
    """
    n = frame.per_cell
    for r in range(kind.shape[0] // n):
        for c in range(kind.shape[1] // n):
            warp = blend(planes[_WARP], r, c, 0.5, 0.5)
            x, y = frame.x0 + 10 * c + 5 + 18 * warp, frame.y0 + 10 * r + 5 - 14 * warp
            near = _two_nearest(x, y, regions, rules.region)
            # Far from a border, all label pixels of this image pixel share its region: 8 times faster.
            inner = _to_border(x, y, regions[near[0], near[1]], regions[near[2], near[3]]) > 25
            for i in range(n):
                b, y = (i + 0.5) / n, frame.y0 + 10 * r + (i + 0.5) * frame.gsd
                for j in range(n):
                    a, x = (j + 0.5) / n, frame.x0 + 10 * c + (j + 0.5) * frame.gsd
                    kind[r * n + i, c * n + j], patch[r * n + i, c * n + j] = _land(
                        planes, r, c, a, b, x, y, inner, near, regions, rules
                    )


@njit(cache=True)
def abroad(border: NDArray[np.float32], per_cell: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Label pixels of a tile of this shape that lie beyond the border."""
    out = np.empty(shape, dtype=np.bool_)
    for row in range(shape[0]):
        for col in range(shape[1]):
            out[row, col] = between(border, row, col, per_cell) < 0
    return out
