"""ICGC land-cover rasters as a TorchGeo dataset: labels of 12 classes, aggregated to the image grid."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pyproj import CRS as PyprojCRS
from torch.utils.data import get_worker_info
from torchgeo.datasets import GeoDataset, IntersectionDataset
from torchgeo.datasets.utils import GeoSlice, Sample

from ..errors import LandcoverWarning
from ..grid import PixelGrid
from ..rasters.finding import PathLike
from ..rasters.labels import Aggregation
from ..rasters.landcover import LABEL_NAME, LabelRasters, SourceLegend
from ..rasters.opening import server_settings
from .base import PixelExactDataset
from .plotting import maps_of, panels


class ICGCLandCover(PixelExactDataset):
    """Land-cover labels of the ICGC, as the 12 codes of :data:`~landcover_plugin.legend.LEGEND`.

    Reads the 12-class raster of CatLC and the 41-class *Mapa de cobertes del sòl* it derives from, at any pixel
    size, in EPSG:25831, EPSG:32631 or another CRS. A sample holds

    * ``mask``: int64, shape ``(H, W)``, codes 0-12; 0 is no data, an unknown value, or outside;
    * ``purity``, if wanted;
    * ``bounds`` and ``transform``, float64, as TorchGeo gives them.

    Combined with images (``images & labels``, in either order) it takes the images' pixel grid, origin included.
    """

    filename_glob = '*'
    filename_regex = LABEL_NAME
    date_format = '%Y'
    is_image = False

    def __init__(
        self,
        paths: PathLike | Iterable[PathLike] = 'data',
        crs: PyprojCRS | None = None,
        res: float | tuple[float, float] | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
        *,
        source_legend: SourceLegend = 'auto',
        aggregation: Aggregation = 'mode',
        class_weights: Mapping[int, float] | None = None,
        purity: bool = False,
        timeless: bool = False,
    ) -> None:
        """Open the label rasters.

        Args:
            paths: Folders that hold ``LC_YYYY_*.tif`` files anywhere below, or the files.
            crs: CRS of queries (default: that of the files).
            res: Pixel size in CRS units (default: that of the files; an image dataset sets its own).
            transforms: Called with each sample.
            source_legend: Values in the files: the ``12`` codes, the ``41`` MCSC values (turned into the 12 by a
                table that is not official), or ``auto``: told by the name, otherwise by the values.
            aggregation: How label pixels become a pixel of the image grid: ``mode`` (majority), ``nearest``, or
                ``weighted`` (majority in which narrow classes count more).
            class_weights: Of ``weighted``, by code.
            purity: Give ``purity`` too: uint8, shape ``(H, W)``, percent of the pixel that its code covers.
            timeless: Answer queries of any date rather than of the year in the file name, to use labels of one year
                with images of another.

        Raises:
            LandcoverError: If files or parameters do not fit, see
                :class:`~landcover_plugin.rasters.landcover.LabelRasters`.
        """
        self.rasters = LabelRasters(
            paths, source_legend=source_legend, aggregation=aggregation, class_weights=class_weights
        )
        self.timeless, self.purity = timeless, purity
        with server_settings(self.rasters.files[0]):  # TorchGeo opens all files once more
            super().__init__(self.rasters.files, self.rasters.grid, crs, res, None, transforms)
        self.legend = self.rasters.legend
        self._warned = False

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Codes of a query ``[xmin:xmax, ymin:ymax]`` in CRS units.

        Raises:
            IndexError: If the query meets no raster.
        """
        rows, x, y = self._select(index)
        grid = self._target(x, y)
        dated = sorted({(self._intervals[i][0], self._paths[i]) for i in rows})
        sample = self._place(grid) | self.patch(grid, [path for _, path in dated])
        sample['mask'] = sample['mask'].long()
        return self.transforms(sample) if self.transforms else sample

    def patch(self, grid: PixelGrid, paths: Iterable[str] | None = None) -> Sample:
        """``mask`` (uint8) and, if wanted, ``purity`` on the pixels of a grid, without asking the index.

        Args:
            grid: Where; may reach beyond the rasters, which is no data there.
            paths: Which of the files (default: all).
        """
        if not self.purity:
            return {'mask': torch.from_numpy(self.read_codes(grid, paths))}
        labels = self.rasters.read(grid, paths)
        self._warn_of_unknown()
        return {'mask': torch.from_numpy(labels.codes), 'purity': torch.from_numpy(labels.purity)}

    def read_codes(self, grid: PixelGrid, paths: Iterable[str] | None = None) -> NDArray[np.uint8]:
        """Codes on the pixels of a grid, shape ``(grid.height, grid.width)``; the first labelled file wins.

        Args:
            grid: Where; may reach beyond the rasters, which is no data there.
            paths: Which of the files (default: all).
        """
        codes = self.rasters.read_codes(grid, paths)
        self._warn_of_unknown()
        return codes

    @property
    def unknown_count(self) -> int:
        """Label pixels with values outside the legend that this object has met, in this process."""
        return self.rasters.unknown_count

    def _warn_of_unknown(self) -> None:
        if self.unknown_count and not self._warned and get_worker_info() is None:
            warnings.warn(
                f'{", ".join(self.files)} holds values that are not in the legend ({self.unknown_count:,} label pixels '
                'so far); they are treated as no data',
                LandcoverWarning,
                stacklevel=3,
            )
            self._warned = True

    def __and__(self, other: GeoDataset) -> IntersectionDataset:
        """Intersection with another dataset; images come first, since the first dictates the grid."""
        if getattr(other, 'is_image', True):
            return IntersectionDataset(other, self)
        return IntersectionDataset(self, other)

    def _filepath_to_timestamp(self, filepath: PathLike) -> tuple[datetime, datetime]:
        return (self.mint, self.maxt) if self.timeless else super()._filepath_to_timestamp(filepath)

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Labels in the colours of the legend, with the prediction beside them where the sample holds one.

        Args:
            sample: As returned by ``dataset[...]``.
            show_titles: Write a title above each panel.
            suptitle: Title of the figure.
        """
        return panels({}, maps_of(sample), legend=self.legend, show_titles=show_titles, suptitle=suptitle)
