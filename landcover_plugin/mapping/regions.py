"""Connected regions of a class map, and small ones that join a neighbour. Kernels; see refinement.py for the rule."""

import numba
import numpy as np

from ..legend import NODATA

#: The four neighbours that share a side, then those that share a corner, as steps in rows and columns.
_STEPS = np.array([(-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)])

_SIDES = 4


@numba.njit(cache=True, nogil=True)
def merge_small(codes, pixels, corners, rounds):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Let regions of less than ``pixels`` px join a large neighbour, in place.

    Args:
        codes: Shape ``(height, width)``, uint8.
        pixels: Size from which a region is large.
        corners: Whether pixels that share a corner are connected.
        rounds: How often at most.
    """
    large = np.zeros(codes.shape, dtype=np.bool_)
    starts, members = _find_small(codes, pixels, corners, large)
    choices = np.zeros(len(starts) - 1, dtype=np.uint8)  # the class that a region takes in this round; 0: none
    waiting = np.arange(len(starts) - 1)
    for _ in range(rounds):
        kept = 0
        for n in waiting:  # some now belong to what joined their own class in the round before
            region = members[starts[n] : starts[n + 1]]
            if _touches_own(codes, large, region, 8 if corners else _SIDES):
                _mark(large, region)
            else:
                waiting[kept] = n
                kept += 1
        waiting = waiting[:kept]
        kept = 0
        for n in waiting:
            choices[n] = _longest_border(codes, large, members[starts[n] : starts[n + 1]])
        for n in waiting:
            region = members[starts[n] : starts[n + 1]]
            if choices[n] != NODATA:
                for p in region:
                    codes[p // codes.shape[1], p % codes.shape[1]] = choices[n]
                _mark(large, region)
            else:
                waiting[kept] = n
                kept += 1
        if kept == len(waiting):
            break
        waiting = waiting[:kept]


@numba.njit(cache=True, nogil=True)
def _mark(large, region):  # type: ignore[no-untyped-def]  # pragma: no cover
    for p in region:
        large[p // large.shape[1], p % large.shape[1]] = True


@numba.njit(cache=True, nogil=True)
def _touches_own(codes, large, region, directions):  # type: ignore[no-untyped-def]  # pragma: no cover
    height, width = codes.shape
    for p in region:
        row, col = p // width, p % width
        for d in range(directions):
            r, c = row + _STEPS[d, 0], col + _STEPS[d, 1]
            if 0 <= r < height and 0 <= c < width and large[r, c] and codes[r, c] == codes[row, col]:
                return True
    return False


@numba.njit(cache=True, nogil=True)
def _longest_border(codes, large, region):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The class with which a region shares most sides along large regions, the lower of two; 0 without any."""
    height, width = codes.shape
    sides = np.zeros(256, dtype=np.int32)
    best = np.uint8(NODATA)
    for p in region:
        row, col = p // width, p % width
        for d in range(_SIDES):
            r, c = row + _STEPS[d, 0], col + _STEPS[d, 1]
            if 0 <= r < height and 0 <= c < width and large[r, c]:
                code = codes[r, c]
                sides[code] += 1
                if sides[code] > sides[best] or (sides[code] == sides[best] and code < best):
                    best = code
    return best


@numba.njit(cache=True, nogil=True)
def _root(parents, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    while parents[n] != n:
        parents[n] = parents[parents[n]]
        n = parents[n]
    return n


@numba.njit(cache=True, nogil=True)
def _join(parents, sizes, a, b):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Join two regions under the pixel that comes first; its size is that of both."""
    a, b = _root(parents, a), _root(parents, b)
    if a != b:
        first, second = min(a, b), max(a, b)
        parents[second] = first
        sizes[first] += sizes[second]


@numba.njit(cache=True, nogil=True)
def _find_small(codes, pixels, corners, large):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Mark the pixels of large regions; list those of each small one.

    Returns:
        Where each small region starts among the listed pixels, one more at the end; and the pixels, as positions in
        the flat array.
    """
    height, width = codes.shape
    parents = np.arange(height * width).astype(np.int32)
    sizes = np.ones(height * width, dtype=np.int32)
    for row in range(height):
        for col in range(width):
            code, here = codes[row, col], row * width + col
            if code == NODATA:
                continue
            if col > 0 and codes[row, col - 1] == code:
                _join(parents, sizes, here, here - 1)
            if row > 0:
                if codes[row - 1, col] == code:
                    _join(parents, sizes, here, here - width)
                if corners and col > 0 and codes[row - 1, col - 1] == code:
                    _join(parents, sizes, here, here - width - 1)
                if corners and col + 1 < width and codes[row - 1, col + 1] == code:
                    _join(parents, sizes, here, here - width + 1)
    regions = small = 0
    for n in range(height * width):
        row, col = n // width, n % width
        if codes[row, col] != NODATA:
            large[row, col] = sizes[_root(parents, n)] >= pixels
            if not large[row, col]:
                small += 1
                regions += parents[n] == n
    return _listed(codes, large, parents, sizes, regions, small)


@numba.njit(cache=True, nogil=True)
def _listed(codes, large, parents, sizes, regions, small):  # type: ignore[no-untyped-def]  # pragma: no cover
    width = codes.shape[1]
    starts = np.zeros(regions + 1, dtype=np.int32)
    members = np.zeros(small, dtype=np.int32)
    ends = np.zeros(regions, dtype=np.int32)
    region = 0
    for n in range(len(parents)):
        if codes[n // width, n % width] != NODATA and not large[n // width, n % width]:
            root = _root(parents, n)
            if root == n:  # the first pixel of its region; from here on its size is its number
                starts[region + 1] = starts[region] + sizes[n]
                ends[region] = starts[region]
                sizes[n] = region
                region += 1
            number = sizes[root]
            members[ends[number]] = n
            ends[number] += 1
    return starts, members
