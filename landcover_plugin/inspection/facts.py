"""What a raster file says about itself, without its pixels."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..rasters.opening import band_descriptions, check_whole, open_raster, vsi_path
from ..rasters.reading import GDAL_ERRORS


@dataclass(frozen=True)
class Facts:
    """The head of a raster file.

    Args:
        path: File, as GDAL names it.
        grid: Its pixels.
        driver: Format.
        dtype: Type of its pixels.
        bands: Number of bands.
        block: ``(height, width)`` of the pieces in which it is compressed.
        compression: Method, ``none`` for none.
        interleave: ``pixel`` or ``band``.
        nodata: As declared.
        descriptions: Of the bands.
        overviews: Factors of its pyramid.
        file_bytes: Size of the file; 0 where it is remote.
    """

    path: str
    grid: PixelGrid
    driver: str
    dtype: str
    bands: int
    block: tuple[int, int]
    compression: str
    interleave: str
    nodata: float | None
    descriptions: tuple[str | None, ...]
    overviews: tuple[int, ...]
    file_bytes: int

    @property
    def name(self) -> str:
        """Name of the file without its folder."""
        return Path(self.path).name

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel, all bands together."""
        return self.bands * np.dtype(self.dtype).itemsize

    @property
    def raw_bytes(self) -> int:
        """Bytes of all pixels, uncompressed."""
        return self.grid.height * self.grid.width * self.pixel_bytes

    @property
    def pieces(self) -> str:
        """The pieces in words."""
        height, width = self.block
        if width < self.grid.width:
            return f'{width} x {height} px tiles'
        return 'one piece' if height == self.grid.height else f'{width} x {height} px strips'


def read_facts(path: str | os.PathLike[str]) -> Facts:
    """The facts of a file that can be used.

    Raises:
        LandcoverError: If it cannot be opened, is truncated, has no CRS or georeference, or is rotated.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        src = open_raster(path)
        grid = PixelGrid.of(src)
    if np.dtype(src.dtypes[0]).kind not in 'iuf':
        raise LandcoverError(f'{path} holds {src.dtypes[0]} pixels; convert it (gdal_translate -ot UInt16)')
    check_whole(path)
    return Facts(
        path=os.fspath(path),
        grid=grid,
        driver=src.driver,
        dtype=src.dtypes[0],
        bands=src.count,
        block=(min(src.block_shapes[0][0], src.height), min(src.block_shapes[0][1], src.width)),
        compression=src.compression.value.lower() if src.compression else 'none',
        interleave=src.interleaving.value.lower() if src.interleaving else 'band',
        nodata=src.nodata,
        descriptions=band_descriptions(path),
        overviews=overviews_of(path),
        file_bytes=Path(path).stat().st_size if Path(path).is_file() else 0,
    )


def overviews_of(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Factors of the pyramid of a raster's first band, inside the file or in an ``.ovr`` beside it."""
    try:
        with rasterio.open(vsi_path(path)) as src:
            return tuple(src.overviews(1))
    except GDAL_ERRORS:
        return ()
