"""Small true-colour pictures of polygons, one for each month of the mosaics, with the outline drawn in."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..grid import PixelGrid, PixelWindow
from ..rasters.mosaics import Mosaics, to_reflectance

#: Red, green and blue; without them the first three bands stand for them.
_RGB = ('B04', 'B03', 'B02')

#: Reflectance that is white.
_WHITE = 0.3

#: Least and most pixels of the ground that a picture shows, and about how large it is drawn.
_LEAST, _MOST, _DRAWN = 40, 400, 320

#: Share of the polygon's extent that is shown around it on each side.
_AROUND = 0.5

#: Colours of the outline: a line in the first, edged with the second.
_LINE, _EDGE = (255, 255, 0), (0, 0, 0)

#: Colour of unmeasured ground.
_UNMEASURED = 40


class Thumbnails:
    """Draws pictures of polygons.

    Args:
        mosaics: Of the months, each a look of its own; red, green and blue alone.
        scale: Of the digital numbers, see :func:`~landcover_plugin.rasters.mosaics.to_reflectance`.
        offset: Likewise.
    """

    def __init__(self, mosaics: Mosaics, *, scale: float, offset: float) -> None:
        self.mosaics, self._scale, self._offset = mosaics, scale, offset

    @classmethod
    def of(
        cls,
        paths: Iterable[str],
        *,
        band_order: Sequence[str] | None = None,
        nodata: float | None = None,
        scale: float = 10_000,
        offset: float = 0,
    ) -> 'Thumbnails':
        """Pictures of mosaic files, with the settings by which they were read for training."""
        files = list(paths)
        every = Mosaics(files, band_order=band_order, nodata=nodata).all_bands
        bands = _RGB if set(_RGB) <= set(every) else [every[i] for i in (0, min(1, len(every) - 1), len(every[:3]) - 1)]
        return cls(Mosaics(files, bands=bands, band_order=band_order, nodata=nodata), scale=scale, offset=offset)

    @property
    def months(self) -> list[str]:
        """Months as ``YYYYMM``, in order."""
        return [date.replace('-', '') for date in self.mosaics.dates]

    def draw(self, geometry: shapely.Geometry, look: int) -> Image.Image:
        """A picture of a polygon, north up.

        Args:
            geometry: In the CRS of the mosaics.
            look: Number of the month.
        """
        grid = self.mosaics.grid
        window = window_around(geometry, grid)
        numbers, valid = self.mosaics.read(grid.subgrid(window), look)
        rgb = to_reflectance(numbers, valid, scale=self._scale, offset=self._offset)
        picture = (255 * np.clip(np.moveaxis(rgb, 0, -1) / _WHITE, 0, 1)).astype(np.uint8)
        picture[~valid] = _UNMEASURED
        factor = max(_DRAWN // window.width, 1)
        image = Image.fromarray(picture).resize(
            (window.width * factor, window.height * factor), Image.Resampling.NEAREST
        )
        self._outline(image, geometry, grid.subgrid(window), factor)
        return image

    def write(self, folder: Path, name: str, geometry: shapely.Geometry) -> list[str]:
        """Write a PNG for each month; returns their names.

        Args:
            folder: Where they go.
            name: What their names begin with.
            geometry: In the CRS of the mosaics.
        """
        names = [f'{name}_{month}.png' for month in self.months]
        for look, file in enumerate(names):
            self.draw(geometry, look).save(folder / file, optimize=True)
        return names

    @staticmethod
    def _outline(image: Image.Image, geometry: shapely.Geometry, grid: PixelGrid, factor: int) -> None:
        (x0, y0), (xres, yres) = grid.origin, grid.res
        canvas = ImageDraw.Draw(image)
        rings: list[NDArray[Any]] = []
        for polygon in shapely.get_parts(geometry):
            rings += [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
        lines = [[tuple(p) for p in (ring - (x0, y0)) / (xres, -yres) * factor] for ring in rings]
        for colour, width in ((_EDGE, 3), (_LINE, 1)):
            for line in lines:
                canvas.line(line, fill=colour, width=width)


def window_around(geometry: shapely.Geometry, grid: PixelGrid) -> PixelWindow:
    """The square of pixels that a picture shows: the polygon and what lies around it, or the middle of a large one.

    May reach beyond the grid.
    """
    own = grid.window(geometry.bounds)
    side = round(max(own.height, own.width) * (1 + 2 * _AROUND))
    row, col = own.row + own.height // 2, own.col + own.width // 2
    if side > _MOST:  # a point inside, which the middle of the extent need not be
        at = shapely.point_on_surface(geometry)
        inside = grid.window((at.x, at.y - grid.res[1], at.x + grid.res[0], at.y))
        row, col = inside.row, inside.col
    side = min(max(side, _LEAST), _MOST)
    return PixelWindow(row - side // 2, col - side // 2, side, side)
