"""Sentinel-2 mosaics in CatLC layout as a TorchGeo dataset: 10 bands, 10 m, one file a season."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pyproj import CRS as PyprojCRS
from torchgeo.datasets.errors import RGBBandsMissingError
from torchgeo.datasets.utils import GeoSlice, Sample

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..rasters.finding import PathLike
from ..rasters.mosaics import MOSAIC_NAME, Mosaics, Seasons, month, to_reflectance
from ..rasters.opening import server_settings
from .base import PixelExactDataset
from .plotting import maps_of, panels

#: Types of digital numbers that are handed on as they are where they are asked for.
_RAW_TYPES = ('uint8', 'uint16', 'int16')


class CataloniaSentinel2(PixelExactDataset):
    """Seasonal Sentinel-2 mosaics as surface reflectance.

    File names carry year and month (``S2_CAT_201804_UTM_WGS84_31N_10m.tif``). A sample holds

    * ``image``: float32, shape ``(C, H, W)``, reflectance (0-1, a little above for clouds and snow); 0 where
      not valid. With ``raw``, the digital numbers as they are in the files, half the bytes;
    * ``valid``: bool, shape ``(H, W)``: inside a mosaic and measured;
    * ``bounds`` and ``transform``, float64, as TorchGeo gives them.

    Examples:
        >>> CataloniaSentinel2('data')  # doctest: +SKIP
        >>> dataset = CataloniaSentinel2('data', bands=['B04', 'B08'])  # doctest: +SKIP
        >>> dataset[400000:402560, 4590000:4592560]['image'].shape  # doctest: +SKIP
        torch.Size([2, 256, 256])
    """

    filename_glob = '[Ss]2_*'
    filename_regex = MOSAIC_NAME
    date_format = '%Y%m'
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
        raw: bool = False,
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
            raw: Give digital numbers of 8 or 16 bits as they are, whatever they are where not valid.

        Raises:
            LandcoverError: If files, bands or parameters do not fit, see
                :class:`~landcover_plugin.rasters.mosaics.Mosaics`.
        """
        if not 0 < reflectance_scale < np.inf:
            raise LandcoverError(f'reflectance_scale must be a number > 0, got {reflectance_scale}')
        if not -np.inf < reflectance_offset <= 0:
            raise LandcoverError(
                'reflectance_offset is added to the digital numbers and never positive for Sentinel-2: 0, or -1000 '
                f'from processing baseline 04.00 on; got {reflectance_offset}'
            )
        self.reflectance_scale, self.reflectance_offset = reflectance_scale, reflectance_offset
        self.mosaics = Mosaics(paths, bands=bands, band_order=band_order, seasons=seasons, nodata=nodata)
        self.all_bands = self.mosaics.all_bands
        self.raw = raw and self.mosaics.dtype.name in _RAW_TYPES
        #: Type of ``image``.
        self.image_dtype: torch.dtype = getattr(torch, self.mosaics.dtype.name) if self.raw else torch.float32
        with server_settings(self.mosaics.files[0]):  # TorchGeo opens all files once more
            super().__init__(self.mosaics.files, self.mosaics.grid, crs, res, self.mosaics.bands, transforms)
        times = sorted(set(self.index.index))
        self._looks = [slice(None)] if seasons == 'stack' else [slice(t.left, t.right) for t in times]
        self._look_of = {look.start: number for number, look in enumerate(self._looks)}

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Image and validity of a query ``[xmin:xmax, ymin:ymax, tmin:tmax]`` in CRS units.

        Raises:
            IndexError: If the query meets no mosaic.
        """
        rows, x, y = self._select(index)
        grid = self._target(x, y)
        if self.mosaics.seasons == 'stack':
            image, valid = self.mosaics.read(grid)
        else:
            dated = sorted({(month(self._paths[i]), self._paths[i]) for i in rows})
            image, valid = self.mosaics.read_files([path for _, path in dated], grid)
        sample = self._place(grid) | self._tensors(image, valid)
        return self.transforms(sample) if self.transforms else sample

    @property
    def looks(self) -> list[slice]:
        """Time slices of the different looks at the ground: one a month, or one in all when they are stacked."""
        return self._looks

    def read(self, grid: PixelGrid, look: slice) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Reflectance ``(C, H, W)`` and validity ``(H, W)`` of one look on the pixels of a grid.

        Args:
            grid: Where; may reach beyond the mosaics, which is not valid there.
            look: One of :attr:`looks`.
        """
        image, valid = self.mosaics.read(grid, self._look_of[look.start])
        return self._reflectance(image, valid), valid

    def look_number(self, look: slice) -> int:
        """Position of a time slice in :attr:`looks`."""
        return self._look_of[look.start]

    def read_into(self, image: NDArray[Any], valid: NDArray[np.bool_], grid: PixelGrid, look: int) -> None:
        """Read what a sample holds into arrays ``(C, H, W)`` and ``(H, W)``, without asking the index.

        Args:
            image: Where ``image`` goes.
            valid: Where ``valid`` goes.
            grid: Where; may reach beyond the mosaics, which is not valid there.
            look: Number of the look.
        """
        read, measured = self.mosaics.read(grid, look, out=image if self.raw else None, out_valid=valid)
        if measured is not valid:
            valid[:] = measured
        if not self.raw:
            image[:] = self._reflectance(read, measured)

    def _tensors(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> Sample:
        image = image if self.raw else self._reflectance(image, valid)
        return {'image': torch.from_numpy(image), 'valid': torch.from_numpy(valid)}

    def _reflectance(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        return to_reflectance(image, valid, scale=self.reflectance_scale, offset=self.reflectance_offset)

    @property
    def num_seasons(self) -> int:
        """Number of different months among the files."""
        return len(self.dates)

    @property
    def dates(self) -> list[str]:
        """Months of the mosaics as ``YYYY-MM``, in order."""
        return self.mosaics.dates

    @property
    def channels(self) -> list[str]:
        """Name of each channel of ``image``: the bands, with the month where seasons are stacked."""
        return self.mosaics.channels

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
