"""Sentinel-2 mosaics in CatLC layout: 10 bands, 10 m, one file a season."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pyproj import CRS as PyprojCRS
from rasterio.enums import Resampling
from torchgeo.datasets.errors import RGBBandsMissingError
from torchgeo.datasets.utils import GeoSlice, Sample

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..rasters.opening import band_descriptions, open_raster
from ..rasters.reading import read_onto
from .base import PathLike, PixelExactDataset, gdal_paths
from .plotting import maps_of, panels

Seasons = Literal['separate', 'stack']

#: Band order of the CatLC mosaics, assumed only for 10-band files that describe no band.
CATLC_BANDS = ('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B11', 'B12')


class CataloniaSentinel2(PixelExactDataset):
    """Seasonal Sentinel-2 mosaics as surface reflectance.

    File names carry year and month (``S2_CAT_201804_UTM_WGS84_31N_10m.tif``). A sample holds

    * ``image``: float32, shape ``(C, H, W)``, reflectance (0-1, a little above for clouds and snow); 0 where
      not valid;
    * ``valid``: bool, shape ``(H, W)``: inside a mosaic and measured;
    * ``bounds`` and ``transform``, float64, as TorchGeo gives them.

    Examples:
        >>> CataloniaSentinel2('data')  # doctest: +SKIP
        >>> dataset = CataloniaSentinel2('data', bands=['B04', 'B08'])  # doctest: +SKIP
        >>> dataset[400000:402560, 4590000:4592560]['image'].shape  # doctest: +SKIP
        torch.Size([2, 256, 256])
    """

    filename_glob = '[Ss]2_*'
    filename_regex = r'(?i)^S2_.*?(?P<date>(?:19|20)\d{2}(?:0[1-9]|1[0-2])).*\.(?:tif|tiff|vrt)$'
    date_format = '%Y%m'
    expected_name: ClassVar[str] = 'S2_*_YYYYMM_*.tif (such as S2_CAT_201804_UTM_WGS84_31N_10m.tif)'
    is_image = True
    rgb_bands = ('B04', 'B03', 'B02')

    def __init__(
        self,
        paths: PathLike | Iterable[PathLike] = 'data',
        crs: PyprojCRS | None = None,
        res: float | tuple[float, float] | None = None,
        bands: Sequence[str] | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
        *,
        band_order: Sequence[str] | None = None,
        seasons: Seasons = 'separate',
        reflectance_scale: float = 10_000,
        reflectance_offset: float = 0,
        nodata: float | None = None,
    ) -> None:
        """Open the mosaics.

        Args:
            paths: Folders that hold ``S2_*_YYYYMM_*.tif`` files anywhere below, or the files.
            crs: CRS of queries (default: that of the files). Another one resamples bilinearly.
            res: Pixel size in CRS units (default: that of the files). Another one resamples bilinearly.
            bands: Bands by name, in the order wanted (default: all, in the files' order).
            transforms: Called with each sample.
            band_order: Names of the bands in the files, for files that do not describe them. Must agree
                with the descriptions where there are some.
            seasons: ``separate``: mosaics of different months are different looks at the ground, told apart
                by the time slice of the query (without one, the earliest valid pixel wins). ``stack``: all
                months are concatenated along the channels in order of date, and a pixel is valid where all are.
            reflectance_scale: ``QUANTIFICATION_VALUE`` of the product: reflectance is
                ``(DN + reflectance_offset) / reflectance_scale``.
            reflectance_offset: ``BOA_ADD_OFFSET`` of the product: 0 before processing baseline 04.00, -1000
                from it on (Sentinel-2 Products Specification Document, January 2022).
            nodata: Digital number of unmeasured pixels (default: as the file declares, else 0). A pixel is
                unmeasured where all chosen bands have it, or any is NaN or infinite.

        Raises:
            LandcoverError: If files, bands or parameters do not fit, see :class:`PixelExactDataset`.
        """
        if seasons not in ('separate', 'stack'):
            raise LandcoverError(f"seasons must be 'separate' or 'stack', got {seasons!r}")
        if not 0 < reflectance_scale < np.inf:
            raise LandcoverError(f'reflectance_scale must be a number > 0, got {reflectance_scale}')
        if not -np.inf < reflectance_offset <= 0:
            raise LandcoverError(
                'reflectance_offset is added to the digital numbers and never positive for Sentinel-2: 0, or -1000 '
                f'from processing baseline 04.00 on; got {reflectance_offset}'
            )
        self.seasons, self.nodata_value = seasons, nodata
        self.reflectance_scale, self.reflectance_offset = reflectance_scale, reflectance_offset
        self._band_order = tuple(map(band_name, band_order)) if band_order else None
        self._indexes: dict[str, list[int]] = {}
        self.paths = gdal_paths(paths)
        self.all_bands = self._bands_of(self.files[0])
        chosen = [band_name(b) for b in bands] if bands else list(self.all_bands)
        self._check_bands(chosen)
        super().__init__(paths, crs, res, chosen, transforms)

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Image and validity of a query ``[xmin:xmax, ymin:ymax, tmin:tmax]`` in CRS units.

        Raises:
            IndexError: If the query meets no mosaic.
        """
        rows, x, y = self._select(index)
        grid = self._target(x, y)
        if self.seasons == 'stack':
            image, valid = self.read(grid, self.looks[0])
        else:
            ordered = [p for paths in self._by_date(rows).values() for p in paths]
            image, valid = self._mosaic(ordered, grid)
        sample = self._place(grid) | {'image': torch.from_numpy(image), 'valid': torch.from_numpy(valid)}
        return self.transforms(sample) if self.transforms else sample

    @property
    def looks(self) -> list[slice]:
        """Time slices of the different looks at the ground: one a month, or one in all when they are stacked."""
        if self.seasons == 'stack':
            return [slice(None)]
        return [slice(t.left, t.right) for t in sorted(set(self.index.index))]

    def read(self, grid: PixelGrid, look: slice) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Reflectance ``(C, H, W)`` and validity ``(H, W)`` of one look on the pixels of a grid.

        Args:
            grid: Where; may reach beyond the mosaics, which is not valid there.
            look: One of :attr:`looks`.
        """
        by_date = self._by_date(range(len(self.index)))
        if self.seasons == 'separate':
            return self._mosaic(by_date[look.start], grid)
        parts = [self._mosaic(paths, grid) for paths in by_date.values()]
        valid = np.logical_and.reduce([p[1] for p in parts])
        return np.concatenate([p[0] for p in parts]) * valid, valid

    @property
    def num_seasons(self) -> int:
        """Number of different months among the files."""
        return len(set(self.index.index.left))

    @property
    def dates(self) -> list[str]:
        """Months of the mosaics as ``YYYY-MM``, in order."""
        return [f'{d:%Y-%m}' for d in sorted(set(self.index.index.left))]

    @property
    def channels(self) -> list[str]:
        """Name of each channel of ``image``: the bands, with the month where seasons are stacked."""
        if self.seasons == 'separate':
            return list(self.bands)
        return [f'{date} {band}' for date in self.dates for band in self.bands]

    def _mosaic(self, paths: Sequence[str], grid: PixelGrid) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Reflectance and validity from several files: the first valid pixel wins."""
        image, valid = self._read(paths[0], grid)
        for path in paths[1:]:
            if valid.all():
                break
            other, other_valid = self._read(path, grid)
            image = np.where(valid, image, other)
            valid |= other_valid
        return image, valid

    def _read(self, path: str, grid: PixelGrid) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        indexes, nodata = self._band_indexes(path), self._nodata_of(path)
        raw = read_onto(path, grid, indexes=indexes, resampling=Resampling.bilinear, fill=nodata)
        image = raw.astype(np.float32)
        valid = ~(raw == nodata).all(0) & np.isfinite(image).all(0)
        image += np.float32(self.reflectance_offset)
        image /= np.float32(self.reflectance_scale)
        image[:, ~valid] = 0
        return image, valid

    def _nodata_of(self, path: str) -> float:
        src = open_raster(path)
        declared = src.nodata if self.nodata_value is None else self.nodata_value
        nodata = 0.0 if declared is None else float(declared)
        kind = np.dtype(src.dtypes[0])
        if kind.kind in 'iu' and not (np.iinfo(kind).min <= nodata <= np.iinfo(kind).max and nodata.is_integer()):
            raise LandcoverError(f'nodata {nodata:g} does not fit the {kind} pixels of {path}; give one that does')
        return nodata

    def _band_indexes(self, path: str) -> list[int]:
        """Numbers of the chosen bands in a file, counted from 1."""
        if path not in self._indexes:
            order = self._bands_of(path)
            self._indexes[path] = [order.index(b) + 1 for b in self.bands]
        return self._indexes[path]

    def _check_bands(self, chosen: Sequence[str]) -> None:
        for path in self.files:
            names = self._bands_of(path)
            missing = [b for b in chosen if b not in names]
            if missing:
                raise LandcoverError(f'{path} has no band {", ".join(missing)}; it has {", ".join(names)}')

    def _bands_of(self, path: str) -> tuple[str, ...]:
        """Names of a file's bands: its descriptions, the declared order, or the CatLC default."""
        described = tuple(band_name(d or '') for d in band_descriptions(path))
        count = len(described)
        if not any(d in CATLC_BANDS for d in described):
            described = ('',) * count
        order = self._band_order or (described if all(described) else CATLC_BANDS)
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

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """True colour, with mask and prediction beside it where the sample holds them.

        Args:
            sample: As returned by ``dataset[...]`` (or an intersection with labels).
            show_titles: Write a title above each panel.
            suptitle: Title of the figure.

        Raises:
            RGBBandsMissingError: If red, green and blue are not all among the bands.
        """
        rgb = {'image': true_colour(sample['image'], self.bands)}
        return panels(rgb, maps_of(sample), show_titles=show_titles, suptitle=suptitle)


def true_colour(image: torch.Tensor, bands: Sequence[str]) -> NDArray[np.float32]:
    """Reflectance as an RGB picture, stretched from 0 to 0.3 (three times the usual land reflectance).

    Args:
        image: Shape ``(C, H, W)``, reflectance; of stacked seasons the first is shown.
        bands: Names of the first channels.

    Returns:
        Shape ``(H, W, 3)``, values in [0, 1].

    Raises:
        RGBBandsMissingError: If red, green and blue are not all among the bands.
    """
    if not set(CataloniaSentinel2.rgb_bands) <= set(bands):
        raise RGBBandsMissingError
    channels = [list(bands).index(b) for b in CataloniaSentinel2.rgb_bands]
    return np.moveaxis((image[channels].float().cpu().numpy() / 0.3).clip(0, 1), 0, -1)


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
