"""The labels of a training store: aggregated to the pixels of the images, each block of the sources decoded once."""

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.warp import transform_bounds

from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA
from ..machine import processors
from ..rasters.attribute_table import write_attribute_table
from ..rasters.labels import AGGREGATIONS, Labels, class_shares, fine_factor, read_fine, tally, whole_factor
from ..rasters.landcover import (
    AGGREGATION_TAG,
    LABELLED,
    PURITY,
    SHARES,
    LabelRasters,
    companion_name,
    first_labelled,
    first_shares,
    year,
)
from ..rasters.opening import open_raster
from ..rasters.qml import write_qml
from ..rasters.reading import pixels_across, same_ground
from ..rasters.storing import Layout, StoreRaster
from ..rasters.streaming import in_order
from .staging import finish, finished

log = logging.getLogger(__name__)

#: Label pixels that one window holds at most, and all windows in memory together.
WINDOW_PIXELS, ALL_PIXELS = 2**25, 2**27


class LabelYear(NamedTuple):
    """What was found in the label rasters of a year.

    Args:
        year: In the names of the files.
        areas: Pixels of the image grid by code, in the label rasters and after each method, shape
            ``(1 + methods, num_classes)``; no data is what is left of the grid.
        unknown: Label pixels with values outside the legend.
    """

    year: str
    areas: NDArray[np.float64]
    unknown: int


class _Counted(NamedTuple):
    """What one window holds: pixels ``(bands, height, width)`` by raster, areas and unknown values as above."""

    window: PixelWindow
    pixels: dict[str, NDArray[np.uint8]]
    areas: NDArray[np.float64]
    unknown: int


def label_years(labels: LabelRasters) -> dict[str, list[str]]:
    """Source files by the name of the prepared raster that they go into, one for each year.

    The first labelled file wins, in the order of the names, before and after: where the years do not follow each other
    in the order of their files, the names are numbered.
    """
    runs = [(str(key), list(files)) for key, files in itertools.groupby(labels.files, year)]
    years = [key for key, _ in runs]
    numbered = years != sorted(set(years))
    return {f'LC_{f"{i:03d}_" if numbered else ""}{key}_12_classes.tif': files for i, (key, files) in enumerate(runs)}


@dataclass(frozen=True)
class LabelCopy:
    """How labels are aggregated into a store.

    Args:
        labels: Sources, with the method.
        grid: Image grid.
        layout: Of codes and purity, which each training patch reads.
        shares: Write the share of each class too.
        progress: Show a progress bar.
    """

    labels: LabelRasters
    grid: PixelGrid
    layout: Layout
    shares: bool
    progress: bool

    def write(self, path: Path, files: Sequence[str]) -> LabelYear:
        """Aggregate the files of a year into a raster and those beside it, unless an earlier run finished that.

        Args:
            path: Of the raster of codes.
            files: Sources; the first that is labelled wins.
        """
        name = str(year(files[0]))
        found = finished(path)
        if found is None:
            areas, unknown = self._write(path, files, f'labels {name}')
            found = {'areas': areas.tolist(), 'unknown': unknown}
            write_attribute_table(path, self.labels.legend)  # names and colours for GDAL and QGIS
            write_qml(path, self.labels.legend)
            finish(path, found)
        else:
            log.info('the labels of %s were finished by an earlier run', name)
        return LabelYear(name, np.array(found['areas']), int(found['unknown']))

    def _write(self, path: Path, files: Sequence[str], desc: str) -> tuple[NDArray[np.float64], int]:
        areas, unknown, grid = np.zeros((1 + len(AGGREGATIONS), LEGEND.num_classes)), 0, self.grid
        per_pixel = pixels_across(self.labels.grids[files[0]], grid) ** 2
        with ExitStack() as stack:
            rasters = {kind: stack.enter_context(raster) for kind, raster in self._rasters(path, files).items()}
            for counted in in_order(
                lambda window: self._count(window, files),
                label_windows(grid, files),
                desc=desc,
                unit='px',
                size_of=lambda w: round(w.height * w.width * per_pixel),
                progress=self.progress,
            ):
                for kind, raster in rasters.items():
                    raster.write(counted.window, counted.pixels[kind])
                areas += counted.areas
                unknown += counted.unknown
        areas[:, NODATA] = np.maximum(grid.height * grid.width - areas[:, NODATA + 1 :].sum(1), 0)
        return areas, unknown

    def _rasters(self, path: Path, files: Sequence[str]) -> Mapping[str, StoreRaster]:
        """What is written, by the first word of the name: codes have none."""
        legend = self.labels.legend
        tags = {f'CLASS_{c.code}': c.name for c in legend}
        tags |= {AGGREGATION_TAG: self.labels.aggregation, 'SOURCES': ' '.join(Path(file).name for file in files)}

        def beside(kind: str, layout: Layout, bands: Sequence[str], nodata: int | None = None) -> StoreRaster:
            name = path.with_name(companion_name(path.name, kind))
            return StoreRaster(name, self.grid, layout=layout, dtype=np.uint8, bands=bands, nodata=nodata, tags=tags)

        rasters = {
            '': StoreRaster(
                path, self.grid, layout=self.layout, dtype=np.uint8, bands=['class'], nodata=NODATA,
                colormap=legend.colormap, tags=tags,
            ),
            PURITY: beside(PURITY, self.layout, ['purity in percent'], NODATA),
            LABELLED: beside(LABELLED, 'compact', ['labelled share in percent']),
        }  # fmt: skip
        return rasters | ({SHARES: beside(SHARES, 'compact', LEGEND.names[1:])} if self.shares else {})

    def _count(self, window: PixelWindow, files: Sequence[str]) -> _Counted:
        """Aggregate one window of the files that reach into it."""
        part = self.grid.subgrid(window)
        areas = np.zeros((1 + len(AGGREGATIONS), LEGEND.num_classes))
        found: list[Labels] = []
        shares: list[NDArray[np.uint8]] = []
        for path in (path for path in files if _meets(self.labels.grids[path], part)):
            table = self.labels.tables[path]
            values, factor = read_fine(path, part)
            if found:  # ground that an earlier file labelled is its alone, and counts once in the areas
                taken = first_labelled(found).codes != NODATA
                values = np.where(taken.repeat(factor, 0).repeat(factor, 1), np.uint8(NODATA), values)
            labels, counts = tally(values, table, factor, self.labels.aggregation, self.labels.class_weights)
            areas += counts / factor**2
            found.append(labels)
            if self.shares:
                shares.append(class_shares(values, table, factor))
        merged = first_labelled(found) if found else _unlabelled(part)
        pixels = {'': merged.codes[None], PURITY: merged.purity[None], LABELLED: merged.labelled[None]}
        if self.shares:
            none = np.zeros((len(LEGEND.codes), part.height, part.width), dtype=np.uint8)
            pixels[SHARES] = first_shares(shares, [labels.codes for labels in found]) if found else none
        return _Counted(window, pixels, areas, merged.unknown)


def _unlabelled(part: PixelGrid) -> Labels:
    nothing = np.zeros((part.height, part.width), dtype=np.uint8)
    return Labels(nothing, nothing, nothing)


def _meets(own: PixelGrid, part: PixelGrid) -> bool:
    """Whether a label raster may reach into a part of the image grid; in doubt, it does."""
    bounds = part.bounds()
    if not same_ground(own.crs, part.crs, bounds):
        bounds = transform_bounds(part.crs, own.crs, *bounds, densify_pts=21)
    xmin, ymin, xmax, ymax = own.bounds()
    xres, yres = (size * 2 for size in own.res)
    apart = bounds[0] > xmax + xres or bounds[2] < xmin - xres or bounds[1] > ymax + yres or bounds[3] < ymin - yres
    return not apart


def label_windows(grid: PixelGrid, files: Sequence[str]) -> list[PixelWindow]:
    """Windows of the image grid in which label rasters are best read: each of their blocks is decoded once.

    Squares of a tiled raster, full rows of a striped one. A raster in another CRS is always read in squares: its rows
    lie askew in the image.

    Args:
        grid: Image grid.
        files: Label rasters, tiled or striped.
    """
    src = max(map(open_raster, files), key=lambda f: f.block_shapes[0][1])
    own, (block_height, block_width) = PixelGrid.of(src), src.block_shapes[0]
    factor = whole_factor(own, grid)
    fine = fine_factor(own, grid)
    most = min(WINDOW_PIXELS, ALL_PIXELS // (processors() + 1)) // fine**2
    first = own.nearest_window(*grid.slices(grid.full)) if factor else grid.full
    if block_width < own.width or not same_ground(own.crs, grid.crs, grid.bounds()):
        rows = _cuts(grid.height, first.row, block_height, fine, math.isqrt(most))
        cols = _cuts(grid.width, first.col, block_width, fine, math.isqrt(most))
    else:
        rows, cols = _cuts(grid.height, first.row, block_height, fine, most // grid.width), [0, grid.width]
    return [
        PixelWindow(top, left, bottom - top, right - left)
        for top, bottom in itertools.pairwise(rows)
        for left, right in itertools.pairwise(cols)
    ]


def _cuts(length: int, offset: int, block: int, factor: int, target: int) -> list[int]:
    """Where to cut an axis of the image grid: at edges of label blocks, into pieces near a target.

    Args:
        length: Pixels of the image grid.
        offset: Label pixel at which it starts.
        block: Label pixels in a block.
        factor: Label pixels in a pixel.
        target: Wanted length of a piece; at least 1 is taken.

    Examples:
        >>> _cuts(1000, 0, 512, 10, 500)
        [0, 256, 512, 768, 1000]
        >>> _cuts(1000, -60, 512, 10, 500)
        [0, 6, 262, 518, 774, 1000]
        >>> _cuts(5, 0, 1, 40, 0)
        [0, 1, 2, 3, 4, 5]
    """
    unit, target = math.lcm(block, factor) // factor, max(target, 1)
    if unit > target:
        return [*range(0, length, target), length]
    start = next((s for s in range(unit) if (offset + s * factor) % block == 0), 0)
    return sorted({0, *range(start, length, target // unit * unit), length})
