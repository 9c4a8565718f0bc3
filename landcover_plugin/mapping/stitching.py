"""Regions that tiles cut: which pieces belong together, and the pieces made one polygon again."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import shapely
from numpy.typing import NDArray

from .pieces import Pieces, Tile, corner_numbers

#: Where this tile meets earlier ones: the step to the other tile, its side and ours.
_MEET = (((-1, 0), 'bottom', 'top'), ((0, -1), 'right', 'left'))

#: Vertices that are joined at a time, unless one region has more.
_BATCH = 100_000


class _Side(NamedTuple):
    """Piece (-1 for none) and code of each pixel along a side."""

    pieces: NDArray[np.int64]
    codes: NDArray[np.uint8]


class Stitcher:
    """Takes tiles row by row; then gives the regions that they cut, whole.

    Two pieces belong together where pixels of one class meet at a seam (union-find). The union of the pieces is
    exact: coordinates are whole numbers, and both sides of a seam have the same vertices. Vertices that are there only
    because a seam is, go.

    A region whose pieces have more than ``max_vertices`` vertices together (a forest through a whole country with all
    its clearings) stays in pieces: neither memory nor a GIS could take it whole.

    Outlines wait in a temporary file without a name. Memory holds about 150 bytes for each piece, and the vertices of
    one batch of regions.

    Args:
        folder: Where the temporary file may go.
        width: Columns of the map.
        max_vertices: Of one polygon.
    """

    def __init__(self, folder: Path, width: int, *, max_vertices: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed on leaving
        self._width, self._most = width, max_vertices
        self._parents: list[int] = []
        self._sides: dict[tuple[tuple[int, int], str], _Side] = {}
        self._tiles: list[tuple[Pieces, NDArray[np.int64], NDArray[np.int64]]] = []
        self._corners: list[NDArray[np.int64]] = []
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, tile: Tile) -> None:
        """Take what a tile holds of regions that it may cut.

        Raises:
            OSError: If the disk is full.
        """
        start = len(self._parents)
        self._parents.extend(range(start, start + len(tile.pieces.codes)))
        outlines = shapely.to_wkb(tile.pieces.polygons)
        lengths = np.array([len(outline) for outline in outlines], dtype=np.int64)
        self._file.write(b''.join(outlines))
        offsets = self._end + np.cumsum(lengths) - lengths
        self._end += int(lengths.sum())
        vertices = shapely.get_num_coordinates(tile.pieces.polygons)
        self._tiles.append((tile.pieces._replace(polygons=offsets), lengths, vertices))
        self._corners.append(tile.corners)
        self._join(tile, start)

    def _join(self, tile: Tile, start: int) -> None:
        """Unite pieces of one class that meet at the seams above and on the left."""
        codes = np.append(tile.pieces.codes, 0)  # -1 is no data
        own = {name: _Side(np.where(p >= 0, p + start, -1), codes[p]) for name, p in tile.sides.items()}
        for (down, right), theirs, ours in _MEET:
            other = self._sides.pop(((tile.key[0] + down, tile.key[1] + right), theirs), None)
            if other is None:
                continue
            same = (other.pieces >= 0) & (other.codes == own[ours].codes)
            pairs = np.stack([other.pieces[same], own[ours].pieces[same]])
            for a, b in np.unique(pairs, axis=1).T.tolist():
                a, b = self._root(a), self._root(b)
                self._parents[max(a, b)] = min(a, b)
        self._sides |= {(tile.key, name): own[name] for name in ('bottom', 'right') if name in own}

    def _root(self, piece: int) -> int:
        parents = self._parents
        while parents[piece] != piece:
            parents[piece] = parents[parents[piece]]
            piece = parents[piece]
        return piece

    def finish(self) -> 'Stitched':
        """What was taken, sorted by regions, after the last tile."""
        self._file.flush()
        counted = Pieces(*(np.concatenate(column) for column in zip(*(p for p, _, _ in self._tiles), strict=True)))
        lengths, vertices = (np.concatenate([tile[i] for tile in self._tiles]) for i in (1, 2))
        roots = np.array([self._root(piece) for piece in range(len(self._parents))], dtype=np.int64)
        order = np.argsort(roots, kind='stable')
        return Stitched(
            self._file, counted.where(order), lengths[order], vertices[order], roots[order],
            np.unique(np.concatenate(self._corners)), self._width, self._most,
        )  # fmt: skip


class Stitched:
    """Pieces sorted by regions: first give :meth:`cut`, then each of :meth:`batches` to :meth:`joined`."""

    def __init__(
        self,
        file: Any,
        pieces: Pieces,
        lengths: NDArray[np.int64],
        vertices: NDArray[np.int64],
        roots: NDArray[np.int64],
        corners: NDArray[np.int64],
        width: int,
        max_vertices: int,
    ) -> None:
        self._file, self._pieces, self._lengths, self._vertices = file, pieces, lengths, vertices
        self._corners, self._width, self._most = corners, width, max_vertices
        starts = np.flatnonzero(np.diff(roots, prepend=-1)).tolist()
        self._slices = [slice(start, stop) for start, stop in itertools.pairwise([*starts, len(roots)])]

    @property
    def num_pieces(self) -> int:
        """How many pieces there are."""
        return len(self._lengths)

    def _is_cut(self, region: slice) -> bool:
        return int(self._vertices[region].sum()) > self._most

    def cut(self) -> Iterator[Pieces]:
        """The pieces of regions with too many vertices, a batch at a time, numbered by the first pixel of the region.

        Their neighbours will keep the vertices that they share with them.
        """
        shared: list[NDArray[np.int64]] = []
        for region in filter(self._is_cut, self._slices):
            first = self._pieces.firsts[region].min()
            for part in self._portions([slice(i, i + 1) for i in range(region.start, region.stop)]):
                pieces = self._read(slice(part[0].start, part[-1].stop))
                shared.append(np.intersect1d(self._corners, self._numbers(shapely.get_coordinates(pieces.polygons))))
                yield pieces._replace(firsts=np.full(len(pieces.firsts), first))
        if shared:
            self._corners = np.setdiff1d(self._corners, np.concatenate(shared))

    def batches(self) -> list[list[slice]]:
        """The other regions, in batches of few vertices, or of one region."""
        return self._portions([region for region in self._slices if not self._is_cut(region)])

    def _portions(self, slices: list[slice]) -> list[list[slice]]:
        """Consecutive slices together as long as they have few vertices."""
        portions: list[list[slice]] = []
        total = _BATCH + 1
        for part in slices:
            size = int(self._vertices[part].sum())
            if total + size > _BATCH:
                portions.append([])
                total = 0
            portions[-1].append(part)
            total += size
        return portions

    def joined(self, batch: list[slice]) -> Pieces:
        """The regions of a batch, each one polygon. May be called in several threads at once."""
        pieces = self._read(np.concatenate([np.arange(region.start, region.stop) for region in batch]))
        stops = np.cumsum([region.stop - region.start for region in batch])
        starts = np.concatenate([[0], stops[:-1]])
        whole = [
            pieces.polygons[start] if stop == start + 1 else shapely.coverage_union_all(pieces.polygons[start:stop])
            for start, stop in zip(starts, stops, strict=True)
        ]
        sums = [np.add.reduceat(values, starts) for values in pieces[3:]]
        firsts = np.minimum.reduceat(pieces.firsts, starts)
        return Pieces(self._without_corners(np.array(whole, dtype=object)), pieces.codes[starts], firsts, *sums)

    def _read(self, chosen: NDArray[np.int64] | slice) -> Pieces:
        pieces = self._pieces.where(chosen)
        places = zip(pieces.polygons.tolist(), self._lengths[chosen].tolist(), strict=True)
        outlines = [os.pread(self._file.fileno(), length, offset) for offset, length in places]
        return pieces._replace(polygons=shapely.from_wkb(np.array(outlines, dtype=object)))

    def _numbers(self, xy: NDArray[np.float64]) -> NDArray[np.int64]:
        return corner_numbers(xy[:, 1], xy[:, 0], self._width)

    def _without_corners(self, polygons: NDArray[Any]) -> NDArray[Any]:
        """Polygons without the vertices on straight lines that only seams brought."""
        rings, polygon = shapely.get_rings(polygons, return_index=True)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        ends = np.searchsorted(ring, np.arange(1, len(rings) + 1))
        starts = np.concatenate([[0], ends[:-1]])
        before, after = np.arange(len(xy)) - 1, np.arange(len(xy)) + 1
        before[starts], after[ends - 1] = ends - 2, starts + 1  # the last point is the first
        (dx0, dy0), (dx1, dy1) = (xy - xy[before]).T, (xy[after] - xy).T
        kept = (dx0 * dy1 != dy0 * dx1) | ~self._is_corner(xy)
        kept[ends - 1] = False  # shapely closes rings
        return shapely.polygons(shapely.linearrings(xy[kept], indices=ring[kept]), indices=polygon)

    def _is_corner(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether a border passes straight there, at the rim of a tile."""
        numbers = self._numbers(xy)
        places = np.searchsorted(self._corners, numbers).clip(max=max(len(self._corners) - 1, 0))
        return self._corners[places] == numbers if len(self._corners) else np.zeros(len(xy), dtype=np.bool_)
