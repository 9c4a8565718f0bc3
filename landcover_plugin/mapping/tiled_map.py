"""A finished class map, read tile by tile: codes and confidence."""

import os
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA, Legend
from ..rasters.opening import check_whole, open_raster, read_failed
from ..rasters.reading import GDAL_ERRORS
from .outlines import OUTSIDE

PathLike = str | os.PathLike[str]


class Refinement(Protocol):
    """What changes codes and depends on ``halo`` pixels around them."""

    @property
    def halo(self) -> int:
        """Pixels around a piece that its result depends on."""

    def __call__(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The refined codes, a new array of the same shape."""


class Area(Protocol):
    """Which part of a map is wanted."""

    @property
    def area(self) -> PixelWindow:
        """The rectangle that holds it."""

    def meets(self, window: PixelWindow) -> bool:
        """Whether a window may hold pixels of it."""

    def mask(self, window: PixelWindow) -> NDArray[np.bool_] | None:
        """Pixels of a window that are wanted, or None where all are."""


@dataclass(frozen=True)
class TiledMap:
    """A class map on disk.

    Args:
        path: GeoTIFF of one band of codes.
        confidence: Raster of percent on the same grid, or None.
        legend: Codes, names and colours.
        area: The part that is wanted (default: everything); the rest counts as no data.
        refinement: What is done to the codes when they are read, for example a minimum mapping unit.

    Raises:
        LandcoverError: If a file cannot be opened, is no class map, has no CRS or georeference, is rotated or cut off,
            or the two are not on one grid.
    """

    path: PathLike
    confidence: PathLike | None = None
    legend: Legend = LEGEND
    area: Area | None = None
    refinement: Refinement | None = None
    grid: PixelGrid = field(init=False)

    def __post_init__(self) -> None:
        check_whole(self.path)
        src = open_raster(self.path)
        if src.count != 1 or np.dtype(src.dtypes[0]).kind not in 'iu':
            raise LandcoverError(
                f'{self.path} is no class map: it has {src.count} band(s) of {src.dtypes[0]}, where one band of whole '
                'numbers is expected; name the map that predict wrote'
            )
        object.__setattr__(self, 'grid', PixelGrid.of(src))
        if self.confidence is not None:
            check_confidence(self.confidence, self.grid)

    @property
    def window(self) -> PixelWindow:
        """The rectangle of pixels that may be wanted."""
        return self.grid.full if self.area is None else self.area.area

    def tiles(self, size: int) -> dict[tuple[int, int], PixelWindow]:
        """Windows that cover what is wanted, by their row and column of tiles, row by row."""
        return {
            (i, j): window
            for i, row in enumerate(range(self.window.row, self.window.row_stop, size))
            for j, col in enumerate(range(self.window.col, self.window.col_stop, size))
            if self._meets(window := PixelWindow(row, col, size, size).intersection(self.window))
        }

    def _meets(self, window: PixelWindow) -> bool:
        return self.area is None or self.area.meets(window)

    def codes_around(self, window: PixelWindow) -> NDArray[np.int16]:
        """Codes of a window and of one more pixel on each side, those beyond what is wanted ``OUTSIDE``.

        Returns:
            Shape ``(height + 2, width + 2)``.

        Raises:
            LandcoverError: If the file cannot be read, or holds values that are no classes.
        """
        wider = _grown(window, 1)
        inside = wider.intersection(self.window)
        halo = 0 if self.refinement is None else self.refinement.halo
        read = _grown(inside, halo).intersection(self.window)
        codes = self._codes(read)
        mask = None if self.area is None else self.area.mask(read)
        if mask is not None:
            codes[~mask] = NODATA
        if self.refinement is not None:
            codes = self.refinement(codes)
        around = np.full((wider.height, wider.width), OUTSIDE, dtype=np.int16)
        around[inside.slices_in(wider)] = codes[inside.slices_in(read)]
        return around

    def _codes(self, window: PixelWindow) -> NDArray[np.uint8]:
        src = open_raster(self.path)
        values = _read(self.path, window)
        if src.nodata is not None and src.nodata != NODATA:
            values = np.where(values == src.nodata, NODATA, values)
        if values.size and not 0 <= values.min() <= values.max() < self.legend.num_classes:
            wrong = int(values.max()) if values.max() >= self.legend.num_classes else int(values.min())
            raise LandcoverError(
                f'{self.path} holds the value {wrong}, which is no class: codes are 0 (no data) to '
                f'{self.legend.num_classes - 1}; name a map that predict wrote, or labels of prepare'
            )
        return values.astype(np.uint8)

    def confidence_in(self, window: PixelWindow) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
        """Confidence of each pixel of a window and where it is known, or None without a confidence raster."""
        if self.confidence is None:
            return None
        values, nodata = _read(self.confidence, window), open_raster(self.confidence).nodata
        known = np.isfinite(values) if nodata is None else (values != nodata) & np.isfinite(values)
        return values, known

    def tags(self) -> dict[str, str]:
        """What the file says about where it comes from."""
        return {k: v for k, v in open_raster(self.path).tags().items() if k not in ('AREA_OR_POINT',)}


def coloured_legend(path: PathLike) -> Legend:
    """The legend with the colours of a map's own colour table, if it has one.

    Raises:
        LandcoverError: If the map cannot be opened.
    """
    src = open_raster(path)
    is_palette = src.count > 0 and src.colorinterp[0] == ColorInterp.palette
    return LEGEND.with_colours(src.colormap(1)) if is_palette else LEGEND


def check_confidence(path: PathLike, grid: PixelGrid) -> None:
    """Check that a confidence raster lies on the grid of a map.

    Raises:
        LandcoverError: If it does not.
    """
    check_whole(path)
    src = open_raster(path)
    own = PixelGrid.of(src)
    if src.count != 1 or own.crs != grid.crs or own.window_of(grid) != grid.full or own.full != grid.full:
        raise LandcoverError(
            f'{path} does not lie on the grid of the map pixel by pixel, in one band; name the confidence that was '
            'written together with it'
        )


def _read(path: PathLike, window: PixelWindow) -> NDArray[Any]:
    try:
        return open_raster(path).read(1, window=window.ranges)
    except GDAL_ERRORS as e:
        raise read_failed(os.fspath(path), e) from e


def _grown(window: PixelWindow, pixels: int) -> PixelWindow:
    return PixelWindow(window.row - pixels, window.col - pixels, window.height + 2 * pixels, window.width + 2 * pixels)
