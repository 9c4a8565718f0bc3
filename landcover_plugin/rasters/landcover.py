"""Label rasters of the ICGC: 12 or 41 classes, as codes on the pixels of a grid."""

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA, PARENTS, Legend, lookup_table
from .finding import PathLike, common_grid, find_rasters, gdal_paths
from .labels import AGGREGATIONS, Aggregation, Labels, class_shares, code_weights, read_fine, read_labels
from .opening import address, on_server, open_raster
from .reading import read_window

log = logging.getLogger(__name__)

SourceLegend = Literal['auto', '12', '41']

#: File names of label rasters: ``date`` is the year.
LABEL_NAME = r'(?i)^(?:LC|cobertes)[-_].*?(?P<date>(?:19|20)\d{2})(?!\d).*\.(?:tif|tiff|vrt)$'
LABEL_EXAMPLE = 'LC_YYYY_*.tif (such as LC_2018_UTM_WGS84_31N_1m_12_Classes.tif)'

#: What the files beside a prepared label raster hold, by the first word of their names.
PURITY, LABELLED, SHARES = COMPANIONS = 'purity', 'labelled', 'shares'

#: Tag in which a prepared label raster says how it was aggregated.
AGGREGATION_TAG = 'AGGREGATION'

_SAYS_12 = re.compile(r'12[_-]?class', re.IGNORECASE)


class LabelRasters:
    """Label rasters on one pixel grid of their own, usually finer than that of the images.

    A raster that ``landcover prepare`` wrote knows the purity of its pixels from the file beside it.

    Args:
        paths: Folders that hold ``LC_YYYY_*.tif`` files anywhere below, or the files; local or remote.
        source_legend: Values in the files: the ``12`` codes, the ``41`` MCSC values (turned into the 12 by a
            table that is not official), or ``auto``: told by the name, otherwise by the values.
        aggregation: How label pixels become a pixel of a coarser grid, see
            :func:`~landcover_plugin.rasters.labels.aggregate`.
        class_weights: Of ``weighted``, by code.

    Attributes:
        files: In the order of their names; the first that is labelled wins.
        grid: The pixel grid over all of them.
        parents: Which files hold the 41 MCSC values.
        legend: The classes, in the colours of the first 12-class raster that has a colour table.
        unknown_count: Label pixels with values outside the legend met so far, in this process.

    Raises:
        LandcoverError: If no file is found, one is damaged or on another grid, or parameters do not fit.
    """

    def __init__(
        self,
        paths: PathLike | Iterable[PathLike],
        *,
        source_legend: SourceLegend = 'auto',
        aggregation: Aggregation = 'mode',
        class_weights: Mapping[int, float] | None = None,
    ) -> None:
        if source_legend not in ('auto', '12', '41'):
            raise LandcoverError(f"source_legend must be 'auto', '12' or '41', got {source_legend!r}")
        if aggregation not in AGGREGATIONS:
            raise LandcoverError(f'aggregation must be one of {", ".join(AGGREGATIONS)}, got {aggregation!r}')
        code_weights(class_weights)
        self.source_legend: SourceLegend = source_legend
        self.aggregation: Aggregation = aggregation
        self.class_weights = class_weights
        self.paths = gdal_paths(paths)
        self.files = find_rasters(self.paths, LABEL_NAME, LABEL_EXAMPLE)
        self.grid, self.grids = common_grid(self.files)
        self.parents = {f: self._is_parent(f) if source_legend == 'auto' else source_legend == '41' for f in self.files}
        self.tables = {path: lookup_table(parent) for path, parent in self.parents.items()}
        self.legend = self._coloured_legend()
        self.unknown_count = 0
        self._companions = {path: {kind: companion(path, kind) for kind in COMPANIONS} for path in self.files}
        self._warn_of_lost_purity()

    def _warn_of_lost_purity(self) -> None:
        """Tell where a prepared raster came without the files beside it."""
        for path, beside in self._companions.items():
            if beside[PURITY] is None and was_prepared(path):
                name = companion_name(Path(path).name, PURITY)
                log.warning(
                    '%s was prepared, but %s is not beside it: its pixels count as pure; copy that file there too, or '
                    'prepare again', address(path), name,
                )  # fmt: skip

    def read(self, grid: PixelGrid, paths: Iterable[str] | None = None) -> Labels:
        """Codes, purity and labelled share on the pixels of a grid; the first labelled file wins.

        Args:
            grid: Where; may reach beyond the rasters, which is no data there.
            paths: Which of the files (default: all).
        """
        found = [self._read(path, grid) for path in (self.files if paths is None else paths)]
        self.unknown_count += sum(labels.unknown for labels in found)
        return first_labelled(found)

    def read_codes(
        self, grid: PixelGrid, paths: Iterable[str] | None = None, *, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Codes on the pixels of a grid, shape ``(grid.height, grid.width)``; as :meth:`read`.

        Args:
            grid: Where; may reach beyond the rasters, which is no data there.
            paths: Which of the files (default: all).
            out: Where the codes go (default: a new array).
        """
        chosen = self.files if paths is None else list(paths)
        if len(chosen) == 1 and (codes := self._copied(chosen[0], grid, out)) is not None:
            return codes
        codes = self.read(grid, chosen).codes
        if out is None:
            return codes
        out[:] = codes
        return out

    def read_shares(self, grid: PixelGrid, paths: Iterable[str] | None = None) -> NDArray[np.uint8]:
        """Percent of each pixel of a grid that each class covers, shape ``(classes, height, width)``.

        From the file beside a prepared raster where there is one, else counted. Of several files, the first that gives
        the pixel a code wins.

        Raises:
            LandcoverError: If a raster was prepared without them.
        """
        chosen = self.files if paths is None else list(paths)
        shares = [self._shares(path, grid) for path in chosen]
        return shares[0] if len(shares) == 1 else first_shares(shares, [self._read(p, grid).codes for p in chosen])

    def _shares(self, path: str, grid: PixelGrid) -> NDArray[np.uint8]:
        """Class shares of one file; of a prepared one as they were counted then."""
        window, beside = self._window(path, grid), self._companions[path]
        if window is not None and (shares := beside[SHARES]):
            return read_window(shares, window, fill=NODATA)
        if beside[PURITY]:
            raise LandcoverError(f'{path} was prepared without class shares: prepare it again with --shares')
        values, factor = read_fine(path, grid)
        return class_shares(values, self.tables[path], factor)

    def _read(self, path: str, grid: PixelGrid) -> Labels:
        """Labels of one file; of a prepared one as they were counted then."""
        window, beside = self._window(path, grid), self._companions[path]
        if window is not None and (purity := beside[PURITY]) and (labelled := beside[LABELLED]):
            codes, *shares = (read_window(file, window, fill=NODATA)[0] for file in (path, purity, labelled))
            return Labels(codes, *shares)
        return read_labels(
            path, grid, table=self.tables[path], aggregation=self.aggregation, class_weights=self.class_weights
        )

    def _window(self, path: str, grid: PixelGrid) -> PixelWindow | None:
        """The window of a file's own pixels that a grid asks for, if it does."""
        own = self.grids[path]
        same = grid.crs is own.crs or grid.crs == own.crs
        return own.window_of(grid) if same else None

    def _copied(self, path: str, grid: PixelGrid, out: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        """Codes of a raster of codes on the very pixels asked for, which need no counting."""
        window = self._window(path, grid)
        if window is None or self._companions[path][PURITY] is None:
            return None
        return read_window(path, window, fill=NODATA, out=None if out is None else out[None])[0]

    def _is_parent(self, path: str) -> bool:
        """Whether a raster holds the 41 MCSC values: its name tells, otherwise a sample of its values."""
        if _SAYS_12.search(Path(path).name):
            return False
        values = sample_values(path)
        return bool(((values > len(LEGEND.codes)) & (values <= len(PARENTS))).any())

    def _coloured_legend(self) -> Legend:
        """The legend, in the colours of the first 12-class raster that has a colour table."""
        for path in (path for path, parent in self.parents.items() if not parent):
            try:
                return LEGEND.with_colours(open_raster(path).colormap(1))
            except ValueError:
                continue
        return LEGEND


def first_labelled(found: Sequence[Labels]) -> Labels:
    """Labels of several files on one grid: the first that gives a pixel a code wins."""
    merged = found[0]
    for other in found[1:]:
        use = merged.codes == NODATA
        codes, purity, labelled = (np.where(use, b, a) for a, b in zip(merged[:3], other[:3], strict=True))
        merged = Labels(codes, purity, labelled, merged.unknown + other.unknown)
    return merged


def first_shares(shares: Sequence[NDArray[np.uint8]], codes: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Class shares ``(classes, height, width)`` of several files: of the first that gives a pixel a code."""
    merged, known = shares[0], codes[0] != NODATA
    for other, other_codes in zip(shares[1:], codes[1:], strict=True):
        merged = np.where(known, merged, other)
        known = known | (other_codes != NODATA)
    return merged


def companion_name(name: str, kind: str) -> str:
    """Name of the file that holds the purity, labelled share or class shares of a prepared label raster.

    Examples:
        >>> companion_name('LC_2018_12_classes.tif', PURITY)
        'purity_LC_2018_12_classes.tif'
    """
    return f'{kind}_{name}'


def companion(path: PathLike, kind: str) -> str | None:
    """The file beside a prepared label raster that holds its purity, labelled share or class shares, if any.

    A server is only asked for it where the raster says that it was prepared.
    """
    folder, slash, name = os.fspath(path).rpartition('/')
    beside = folder + slash + companion_name(name, kind)
    if not on_server(path):
        return beside if Path(beside).is_file() else None
    if was_prepared(path):
        with suppress(LandcoverError):
            open_raster(beside)
            return beside
    return None


def was_prepared(path: PathLike) -> bool:
    """Whether a label raster says that ``landcover prepare`` wrote it."""
    return AGGREGATION_TAG in open_raster(path).tags()


def year(path: PathLike) -> str | None:
    """Year in the name of a label raster.

    Examples:
        >>> year('LC_2018_UTM_WGS84_31N_1m_12_Classes.tif')
        '2018'
    """
    match = re.match(LABEL_NAME, Path(path).name)
    return match['date'] if match else None


def sample_values(path: PathLike, *, windows: int = 64, size: int = 256) -> NDArray[np.int64]:
    """The different values in an even sample of windows of a label raster, at full resolution.

    Args:
        path: Raster; its first band is read.
        windows: About how many windows.
        size: Edge of a window in pixels.

    Returns:
        Sorted values.
    """
    src = open_raster(path)
    per_axis = max(int(windows**0.5), 1)
    rows = np.linspace(0, max(src.height - size, 0), per_axis, dtype=int)
    cols = np.linspace(0, max(src.width - size, 0), per_axis, dtype=int)
    found = [
        np.unique(read_window(path, PixelWindow(int(r), int(c), size, size), indexes=[1]))
        for r in np.unique(rows)
        for c in np.unique(cols)
    ]
    values = np.unique(np.concatenate(found))
    return values[np.isfinite(values)].astype(np.int64)
