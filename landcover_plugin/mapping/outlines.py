"""Outlines of the regions of a class map: NumPy codes in, polygons of whole pixels out.

A region is a connected set of pixels of one code that share sides (4-connected). Its polygon has a vertex at each
corner and wherever three regions meet, also along a straight side: neighbours share every vertex of their common
border, so the polygons are a coverage without gaps and overlaps in the strict sense (``shapely.coverage_is_valid``),
also after they are moved to another CRS.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import shapely
from numpy.typing import NDArray

#: What lies beyond the raster: a code that no map has.
OUTSIDE = -1


class Regions(NamedTuple):
    """The regions of a piece of a map, numbered in the order of their first pixels.

    Args:
        labels: Number of the region of each pixel, shape ``(height, width)``.
        firsts: First pixel of each region, counted in rows, shape ``(regions,)``.
    """

    labels: NDArray[np.int32]
    firsts: NDArray[np.int64]


def find_regions(codes: NDArray[np.uint8]) -> Regions:
    """Number the connected regions of equal codes, no data included.

    Args:
        codes: Shape ``(height, width)``.

    Examples:
        >>> regions = find_regions(np.array([[5, 7], [7, 5]], np.uint8))
        >>> regions.labels.tolist(), regions.firsts.tolist()
        ([[0, 1], [2, 3]], [0, 1, 2, 3])
    """
    labels = np.empty(codes.shape, dtype=np.int32)
    firsts = _label(np.ascontiguousarray(codes), labels)
    return Regions(labels, firsts)


def outlines(labels: NDArray[np.int32], around: NDArray[np.int16]) -> NDArray[Any]:
    """The polygon of each region, in pixels: x is the column, y the row of a pixel's corner.

    Args:
        labels: Numbers of regions without a gap, in the order of their first pixels, shape ``(height, width)``.
        around: Codes of the same pixels and of one more on each side, :data:`OUTSIDE` beyond the raster,
            shape ``(height + 2, width + 2)``.

    Returns:
        Polygons of shapely, valid, with whole coordinates, shape ``(regions,)``.

    Examples:
        >>> labels = np.array([[0, 0, 1], [0, 2, 1]], np.int32)
        >>> polygons = outlines(labels, np.pad(labels.astype(np.int16), 1, constant_values=OUTSIDE))
        >>> polygons[0].wkt
        'POLYGON ((0 0, 2 0, 2 1, 1 1, 1 2, 0 2, 0 0))'
    """
    corners, rings, owners = _trace(labels, around)
    order = np.argsort(owners, kind='stable')  # the shell of a region was found before its holes
    lengths = np.diff(rings)[order]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    xy = corners[np.repeat(rings[:-1][order] - ends[:-1], lengths) + np.arange(ends[-1])]
    polygons = np.searchsorted(owners[order], np.arange(int(labels.max()) + 2))
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy.astype(np.float64), (ends, polygons))


def straight_corners(around: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Corners of pixels through which a border of exactly two regions passes straight.

    A piece of a map that ends there has a vertex that the whole map has not.

    Args:
        around: Codes, shape ``(height + 1, width + 1)``.

    Returns:
        Shape ``(height, width)``: whether it is so at the corner between four neighbouring codes.
    """
    upper_left, upper_right = around[:-1, :-1], around[:-1, 1:]
    lower_left, lower_right = around[1:, :-1], around[1:, 1:]
    level = (upper_left == upper_right) & (lower_left == lower_right)
    upright = (upper_left == lower_left) & (upper_right == lower_right)
    return level ^ upright


@numba.njit(cache=True, nogil=True)
def _root(parents: NDArray[np.int32], label: int) -> int:  # pragma: no cover - compiled
    while parents[label] != label:
        parents[label] = parents[parents[label]]
        label = parents[label]
    return label


@numba.njit(cache=True, nogil=True)
def _label(codes: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.int64]:  # pragma: no cover - compiled
    """Fill ``labels``; returns the first pixels. Two passes with union-find; a root is the first of its region."""
    height, width = codes.shape
    parents = np.empty(height * width, dtype=np.int32)
    firsts = np.empty(height * width, dtype=np.int64)
    count = 0
    for r in range(height):
        for c in range(width):
            up = labels[r - 1, c] if r > 0 and codes[r - 1, c] == codes[r, c] else -1
            left = labels[r, c - 1] if c > 0 and codes[r, c - 1] == codes[r, c] else -1
            if up < 0 and left < 0:
                parents[count], firsts[count] = count, r * width + c
                labels[r, c] = count
                count += 1
            elif up < 0 or left < 0 or up == left:
                labels[r, c] = max(up, left)
            else:
                a, b = _root(parents, up), _root(parents, left)
                labels[r, c] = min(a, b)
                parents[max(a, b)] = min(a, b)
    numbers = np.empty(count, dtype=np.int32)
    regions = 0
    for label in range(count):
        root = _root(parents, label)
        if root == label:
            numbers[label], firsts[regions] = regions, firsts[label]
            regions += 1
        else:
            numbers[label] = numbers[root]
    for r in range(height):
        for c in range(width):
            labels[r, c] = numbers[labels[r, c]]
    return firsts[:regions].copy()


@numba.njit(cache=True, nogil=True)
def _sides(labels: NDArray[np.int32]) -> int:  # pragma: no cover - compiled
    """Sides of pixels at which a region ends."""
    height, width = labels.shape
    count = 2 * (height + width)
    for r in range(height):
        for c in range(width):
            if r > 0 and labels[r, c] != labels[r - 1, c]:
                count += 2
            if c > 0 and labels[r, c] != labels[r, c - 1]:
                count += 2
    return count


#: How a walk goes east, south, west and north in rows and columns, and the corner of a pixel to which its side leads.
_AHEAD_ROW, _AHEAD_COL = (0, 1, 0, -1), (1, 0, -1, 0)
_CORNER_ROW, _CORNER_COL = (0, 1, 1, 0), (1, 1, 0, 0)


@numba.njit(cache=True, nogil=True)
def _step(
    labels: NDArray[np.int32], around: NDArray[np.int16], r: int, c: int, way: int
) -> tuple[int, int, int, bool]:  # pragma: no cover - compiled
    """The next side of the same ring, and whether there is a vertex between the two.

    At a corner where the region has only the pixel on the far left besides its own, the walk goes on there: it keeps
    to the same pixel outside. So a ring passes a corner once at most and bounds one connected piece of what the region
    leaves over, and a hole that touches the shell in a corner is a ring of its own, as the Simple Features ask.
    """
    height, width = labels.shape
    left = (way + 3) % 4
    ahead_r, ahead_c = r + _AHEAD_ROW[way], c + _AHEAD_COL[way]
    far_r, far_c = ahead_r + _AHEAD_ROW[left], ahead_c + _AHEAD_COL[left]
    own = labels[r, c]
    if 0 <= far_r < height and 0 <= far_c < width and labels[far_r, far_c] == own:
        return far_r, far_c, left, True
    if 0 <= ahead_r < height and 0 <= ahead_c < width and labels[ahead_r, ahead_c] == own:
        beside = around[r + _AHEAD_ROW[left] + 1, c + _AHEAD_COL[left] + 1]
        return ahead_r, ahead_c, way, beside != around[far_r + 1, far_c + 1]
    return r, c, (way + 1) % 4, True


@numba.njit(cache=True, nogil=True)
def _trace(
    labels: NDArray[np.int32], around: NDArray[np.int16]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:  # pragma: no cover - compiled
    """Walk around each region with the region on the right: its shell from its first pixel, then its holes.

    Each ring has sides that look north, and the first of them in the order of pixels starts in a corner.

    Returns:
        Vertices ``(column, row)`` of the closed rings, where each ring starts, and the region that it belongs to.
    """
    height, width = labels.shape
    sides = _sides(labels)
    xy = np.empty((sides + sides // 4, 2), dtype=np.int32)
    starts = np.zeros(sides // 4 + 1, dtype=np.int64)
    owners = np.empty(sides // 4, dtype=np.int32)
    seen = np.zeros((height, width), dtype=np.bool_)  # the side that looks north
    vertices, rings = 0, 0
    for row in range(height):
        for col in range(width):
            if seen[row, col] or (row > 0 and labels[row - 1, col] == labels[row, col]):
                continue
            xy[vertices, 0], xy[vertices, 1] = col, row
            vertices += 1
            r, c, way = row, col, 0
            while not (seen[row, col] and r == row and c == col and way == 0):
                seen[r, c] |= way == 0
                x, y = c + _CORNER_COL[way], r + _CORNER_ROW[way]
                r, c, way, vertex = _step(labels, around, r, c, way)
                if vertex:
                    xy[vertices, 0], xy[vertices, 1] = x, y
                    vertices += 1
            owners[rings] = labels[row, col]
            rings += 1
            starts[rings] = vertices
    return xy[:vertices].copy(), starts[: rings + 1].copy(), owners[:rings].copy()
