"""Seasonal image mosaics: bands by name, digital numbers and validity on the pixels of a grid."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from .damage import Damage
from .finding import PathLike, common_grid, find_rasters, gdal_paths
from .opening import band_descriptions, open_raster
from .reading import read_onto, read_window

Seasons = Literal['separate', 'stack']

#: Band order of the CatLC mosaics, assumed only for 10-band files that describe no band.
CATLC_BANDS = ('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B11', 'B12')

#: File names of mosaics: ``date`` is year and month.
MOSAIC_NAME = r'(?i)^S2_.*?(?P<date>(?:19|20)\d{2}(?:0[1-9]|1[0-2])).*\.(?:tif|tiff|vrt)$'
MOSAIC_EXAMPLE = 'S2_*_YYYYMM_*.tif (such as S2_CAT_201804_UTM_WGS84_31N_10m.tif)'


class Mosaics:
    """Mosaics of one or several months on one pixel grid.

    Args:
        paths: Folders that hold ``S2_*_YYYYMM_*.tif`` files anywhere below, or the files; local, ``gs://``, ``s3://``,
            ``https://`` or ``/vsi``.
        bands: Bands by name, in the order wanted (default: all, in the files' order).
        band_order: Names of the bands in the files, for files that do not describe them. Must agree with the
            descriptions where there are some.
        seasons: ``separate``: each month is a look of its own at the ground. ``stack``: one look, all months along the
            channels in order of date, in which a pixel is valid where all are.
        nodata: Digital number of unmeasured pixels (default: as the file declares, else 0). A pixel is
            unmeasured where all chosen bands have it, or any is NaN or infinite.

    Attributes:
        files: In the order of their names.
        grid: The pixel grid over all of them.
        all_bands: Bands of the first file, in its order.
        bands: The chosen ones.
        dtype: Type of the digital numbers: that of the files, or what holds all of theirs.
        dates: Months as ``YYYY-MM``, in order.
        damage: Where blocks that cannot be read are noted, which then count as unmeasured; None: they are an error.

    Raises:
        LandcoverError: If no file is found, one is damaged or on another grid, or bands or parameters do not fit.
    """

    def __init__(
        self,
        paths: PathLike | Iterable[PathLike],
        *,
        bands: Sequence[str] | None = None,
        band_order: Sequence[str] | None = None,
        seasons: Seasons = 'separate',
        nodata: float | None = None,
    ) -> None:
        if seasons not in ('separate', 'stack'):
            raise LandcoverError(f"seasons must be 'separate' or 'stack', got {seasons!r}")
        self.seasons: Seasons = seasons
        self.nodata = nodata
        self.damage: Damage | None = None
        self.band_order = tuple(map(band_name, band_order)) if band_order else None
        self.paths = gdal_paths(paths)
        self.files = find_rasters(self.paths, MOSAIC_NAME, MOSAIC_EXAMPLE)
        self.grid, self.grids = common_grid(self.files)
        names = {path: self._bands_of(path) for path in self.files}
        self.all_bands = names[self.files[0]]
        self.bands = [band_name(b) for b in bands] if bands else list(self.all_bands)
        self._indexes = {path: self._positions(path, order) for path, order in names.items()}
        self._dtypes = {path: np.dtype(open_raster(path).dtypes[0]) for path in self.files}
        self.dtype: np.dtype[Any] = np.result_type(*self._dtypes.values())
        self._nodata = {path: self._nodata_of(path) for path in self.files}
        self._by_date: dict[str, list[str]] = {}
        for date, path in sorted((month(path), path) for path in self.files):
            self._by_date.setdefault(date, []).append(path)

    @property
    def dates(self) -> list[str]:
        """Months as ``YYYY-MM``, in order."""
        return list(self._by_date)

    @property
    def looks(self) -> int:
        """Number of different looks at the ground: one a month, or one in all when they are stacked."""
        return 1 if self.seasons == 'stack' else len(self._by_date)

    @property
    def channels(self) -> list[str]:
        """Name of each channel: the bands, with the month where seasons are stacked."""
        if self.seasons == 'separate':
            return list(self.bands)
        return [f'{date} {band}' for date in self.dates for band in self.bands]

    def files_of(self, date: str) -> list[str]:
        """Files of a month, in the order of their names."""
        return self._by_date[date]

    def files_at(self, grid: PixelGrid, look: int = 0) -> list[str]:
        """Files that a look on a grid in the mosaics' CRS is read from; of those that overlap, not all may be asked."""
        files = self.files_of(self.dates[look]) if self.seasons == 'separate' else self.files
        return [path for path in files if self._meets(path, grid)] or list(files)

    def indexes_of(self, path: str) -> list[int]:
        """Numbers of the chosen bands in a file, counted from 1, in the order of :attr:`bands`."""
        return self._indexes[path]

    def nodata_of(self, path: str) -> float:
        """Digital number of the unmeasured pixels of a file; may be NaN."""
        return self._nodata[path]

    def read(
        self,
        grid: PixelGrid,
        look: int = 0,
        *,
        out: NDArray[Any] | None = None,
        out_valid: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Digital numbers ``(C, H, W)`` and validity ``(H, W)`` of one look on the pixels of a grid.

        Args:
            grid: Where; may reach beyond the mosaics, which is not valid there. On another grid than the
                mosaics' they are resampled bilinearly.
            look: Number of the look: of a month, by date, or 0 for all of them stacked.
            out: Where the digital numbers go, of :attr:`dtype` (default: a new array).
            out_valid: Where the validity goes (default: a new array).
        """
        if self.seasons == 'separate':
            return self.read_files(self.files_of(self.dates[look]), grid, out=out, out_valid=out_valid)
        if out is None:
            out = np.empty((len(self.channels), grid.height, grid.width), dtype=self.dtype)
        seasons = zip(self._by_date.values(), np.split(out, len(self._by_date)), strict=True)
        valid = [self.read_files(paths, grid, out=part)[1] for paths, part in seasons]
        return out, np.logical_and.reduce(valid, out=out_valid)

    def read_files(
        self,
        paths: Sequence[str],
        grid: PixelGrid,
        *,
        out: NDArray[Any] | None = None,
        out_valid: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Digital numbers and validity from some of the files: the first valid pixel wins."""
        if len(paths) > 1:
            paths = [path for path in paths if self._meets(path, grid)] or paths[:1]
        image, valid = self._read(paths[0], grid, out, out_valid)
        for path in paths[1:]:
            if valid.all():
                break
            other, other_valid = self._read(path, grid)
            image = np.where(valid, image, other)
            valid |= other_valid
        if out is not None and image is not out:
            out[:] = image
        return (image if out is None else out), valid

    def _meets(self, path: str, grid: PixelGrid) -> bool:
        """Whether a file may show some of a grid; only asked of grids in the CRS of the files."""
        if grid.crs is not self.grid.crs:
            return True
        own, its = self.grids[path].bounds(), grid.bounds()
        return own[0] < its[2] and own[2] > its[0] and own[1] < its[3] and own[3] > its[1]

    def _read(
        self,
        path: str,
        grid: PixelGrid,
        out: NDArray[Any] | None = None,
        out_valid: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        indexes, nodata = self._indexes[path], self._nodata[path]
        window = self.grids[path].window_of(grid) if grid.crs is self.grid.crs else None
        if window is not None:
            fits = out is not None and out.dtype == self._dtypes[path]
            image = self._read_window(path, window, out if fits else None)
        else:
            image = read_onto(path, grid, indexes=indexes, resampling=Resampling.bilinear, fill=nodata)
        return image.astype(self.dtype, copy=False), measured(image, nodata, out_valid)

    def _read_window(self, path: str, window: PixelWindow, out: NDArray[Any] | None) -> NDArray[Any]:
        indexes, fill = self._indexes[path], self._nodata[path]
        try:
            return read_window(path, window, indexes=indexes, fill=fill, out=out)
        except LandcoverError:
            if self.damage is None:
                raise
        image = self.damage.read(path, window, indexes=indexes, fill=fill)
        if out is not None:
            out[:] = image
        return image if out is None else out

    def _nodata_of(self, path: str) -> float:
        src = open_raster(path)
        declared = src.nodata if self.nodata is None else self.nodata
        nodata = 0.0 if declared is None else float(declared)
        kind = self._dtypes[path]
        if kind.kind in 'iu' and not (np.iinfo(kind).min <= nodata <= np.iinfo(kind).max and nodata.is_integer()):
            raise LandcoverError(f'nodata {nodata:g} does not fit the {kind} pixels of {path}; give one that does')
        return nodata

    def _positions(self, path: str, order: Sequence[str]) -> list[int]:
        """Numbers of the chosen bands in a file, counted from 1."""
        missing = [b for b in self.bands if b not in order]
        if missing:
            raise LandcoverError(f'{path} has no band {", ".join(missing)}; it has {", ".join(order)}')
        return [order.index(b) + 1 for b in self.bands]

    def _bands_of(self, path: str) -> tuple[str, ...]:
        """Names of a file's bands: its descriptions, the declared order, or the CatLC default."""
        described = tuple(band_name(d or '') for d in band_descriptions(path))
        count = len(described)
        if not any(d in CATLC_BANDS for d in described):
            described = ('',) * count
        order = self.band_order or (described if all(described) else CATLC_BANDS)
        if len(order) != count and order is not CATLC_BANDS:
            raise LandcoverError(f'band_order names {len(order)} bands, but {path} has {count}: name each band once')
        if len(order) != count:
            raise LandcoverError(
                f'{path} has {count} bands without names; name them in order with band_order '
                f'(the CatLC order {list(CATLC_BANDS)} is only assumed for {len(CATLC_BANDS)} bands)'
            )
        if any(d not in ('', name) for d, name in zip(described, order, strict=True)):
            raise LandcoverError(
                f'the band order {list(order)} contradicts the descriptions in {path}: {list(described)}; '
                'drop band_order, or correct it or the file'
            )
        if len(set(order)) < len(order):
            raise LandcoverError(f'{path} names a band twice: {list(order)}; name each band once with band_order')
        return order


def measured(image: NDArray[Any], nodata: float, out: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Where digital numbers ``(C, H, W)`` were measured: not nodata in all bands, and finite in each.

    Args:
        image: Digital numbers.
        nodata: That of unmeasured pixels; may be NaN.
        out: Where the answer ``(H, W)`` goes (default: a new array).

    Examples:
        >>> measured(np.array([[[0, 0, 5]], [[0, 3, 5]]]), 0).tolist()
        [[False, True, True]]
    """
    missing = image.dtype.type(nodata)  # a float would turn the image into floats
    valid: NDArray[np.bool_] = np.not_equal(image[0], missing, out=out)
    for band in image[1:]:
        if valid.all():  # the usual case needs one band
            break
        valid |= band != missing
    if image.dtype.kind == 'f':
        valid &= np.isfinite(image).all(0)
    return valid


@numba.njit(cache=True, nogil=True)
def _reflectance(image, valid, scale, offset, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for band in range(image.shape[0]):
        for row in range(image.shape[1]):
            for col in range(image.shape[2]):
                value = (np.float32(image[band, row, col]) + offset) / scale
                out[band, row, col] = value if valid[row, col] else np.float32(0)


def to_reflectance(
    image: NDArray[Any], valid: NDArray[np.bool_], *, scale: float, offset: float
) -> NDArray[np.float32]:
    """Digital numbers as reflectance, ``(DN + offset) / scale``; 0 where not valid.

    Args:
        image: Shape ``(C, H, W)``.
        valid: Shape ``(H, W)``.
        scale: ``QUANTIFICATION_VALUE`` of the product.
        offset: ``BOA_ADD_OFFSET`` of the product.

    Examples:
        >>> image, valid = np.array([[[1500, 0]]], dtype=np.uint16), np.array([[True, False]])
        >>> to_reflectance(image, valid, scale=10_000, offset=-1000).round(3).tolist()
        [[[0.05000000074505806, 0.0]]]
    """
    out = np.empty(image.shape, dtype=np.float32)
    _reflectance(image, valid, np.float32(scale), np.float32(offset), out)
    return out


def month(path: PathLike) -> str:
    """Year and month in the name of a mosaic.

    Examples:
        >>> month('data/S2_CAT_201804_UTM_WGS84_31N_10m.tif')
        '2018-04'
    """
    match = re.match(MOSAIC_NAME, Path(path).name)
    if match is None:
        raise LandcoverError(f'{path} is not named like a mosaic, {MOSAIC_EXAMPLE}')
    return f'{match["date"][:4]}-{match["date"][4:]}'


def band_name(text: str) -> str:
    """The Sentinel-2 name of a band in its usual spelling, or the text as it is.

    Examples:
        >>> [band_name(t) for t in ('B2', 'b08', 'B8a_20m', 'B11 (SWIR 1)', 'elevation')]
        ['B02', 'B08', 'B8A', 'B11', 'elevation']
    """
    match = re.match(r'\s*B0?(\d{1,2})(a?)(?![a-z\d])', text, re.IGNORECASE)
    if not match:
        return text.strip()
    number, letter = match.groups()
    return f'B{number}A' if letter else f'B{int(number):02d}'
