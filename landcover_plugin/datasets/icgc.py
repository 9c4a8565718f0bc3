"""ICGC land-cover rasters: labels of 12 classes, aggregated to the image grid."""

import re
import warnings
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pyproj import CRS as PyprojCRS
from torch.utils.data import get_worker_info
from torchgeo.datasets import GeoDataset, IntersectionDataset
from torchgeo.datasets.utils import GeoSlice, Sample

from ..errors import LandcoverError, LandcoverWarning
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA, PARENTS, Legend, lookup_table
from ..rasters.labels import Aggregation, read_labels
from ..rasters.opening import open_raster
from ..rasters.reading import read_window
from .base import PathLike, PixelExactDataset
from .plotting import maps_of, panels

SourceLegend = Literal['auto', '12', '41']

_SAYS_12 = re.compile(r'12[_-]?class', re.IGNORECASE)


class ICGCLandCover(PixelExactDataset):
    """Land-cover labels of the ICGC, as the 12 codes of :data:`~landcover_plugin.legend.LEGEND`.

    Reads the 12-class raster of CatLC and the 41-class *Mapa de cobertes del sòl* it derives from, at any pixel
    size, in EPSG:25831, EPSG:32631 or another CRS. A sample holds

    * ``mask``: int64, shape ``(H, W)``, codes 0-12; 0 is no data, an unknown value, or outside;
    * ``bounds`` and ``transform``, float64, as TorchGeo gives them.

    Combined with images (``images & labels``, in either order) it takes the images' pixel grid, origin included.
    """

    filename_glob = '*'
    filename_regex = r'(?i)^(?:LC|cobertes)[-_].*?(?P<date>(?:19|20)\d{2})(?!\d).*\.(?:tif|tiff|vrt)$'
    date_format = '%Y'
    expected_name: ClassVar[str] = 'LC_YYYY_*.tif (such as LC_2018_UTM_WGS84_31N_1m_12_Classes.tif)'
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
            aggregation: How label pixels become a pixel of the image grid: ``mode`` (majority) or ``nearest``.
            timeless: Answer queries of any date rather than of the year in the file name, to use labels of one year
                with images of another.

        Raises:
            LandcoverError: If files or parameters do not fit, see :class:`PixelExactDataset`.
        """
        if source_legend not in ('auto', '12', '41'):
            raise LandcoverError(f"source_legend must be 'auto', '12' or '41', got {source_legend!r}")
        if aggregation not in ('mode', 'nearest'):
            raise LandcoverError(f"aggregation must be 'mode' or 'nearest', got {aggregation!r}")
        self.aggregation: Aggregation = aggregation
        self.timeless, self.source_legend = timeless, source_legend
        super().__init__(paths, crs, res, None, transforms)
        parents = {f: self._is_parent(f) if source_legend == 'auto' else source_legend == '41' for f in self.files}
        self._tables = {path: lookup_table(parent) for path, parent in parents.items()}
        self.legend = self._coloured_legend([path for path, parent in parents.items() if not parent])
        #: Label pixels with values outside the legend that this object has met, in this process.
        self.unknown_count = 0

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Codes of a query ``[xmin:xmax, ymin:ymax]`` in CRS units.

        Raises:
            IndexError: If the query meets no raster.
        """
        rows, x, y = self._select(index)
        grid = self._target(x, y)
        codes = self.read_codes(grid, [path for paths in self._by_date(rows).values() for path in paths])
        sample = self._place(grid) | {'mask': torch.from_numpy(codes).long()}
        return self.transforms(sample) if self.transforms else sample

    def __and__(self, other: GeoDataset) -> IntersectionDataset:
        """Intersection with another dataset; images come first, since the first dictates the grid."""
        if getattr(other, 'is_image', True):
            return IntersectionDataset(other, self)
        return IntersectionDataset(self, other)

    def read_codes(self, grid: PixelGrid, paths: Iterable[str] | None = None) -> NDArray[np.uint8]:
        """Codes on the pixels of a grid, shape ``(grid.height, grid.width)``; the first labelled file wins.

        Args:
            grid: Where; may reach beyond the rasters, which is no data there.
            paths: Which of the files (default: all).
        """
        codes = np.zeros((grid.height, grid.width), dtype=np.uint8)
        for path in self._tables if paths is None else paths:
            found, unknown = read_labels(path, grid, table=self._tables[path], aggregation=self.aggregation)
            codes = np.where(codes == NODATA, found, codes)
            if unknown:
                self._count_unknown(path, unknown)
        return codes

    def _count_unknown(self, path: str, count: int) -> None:
        if not self.unknown_count and get_worker_info() is None:
            warnings.warn(
                f'{path} holds values that are not in the legend ({count:,} label pixels so far); '
                'they are treated as no data',
                LandcoverWarning,
                stacklevel=2,
            )
        self.unknown_count += count

    def _filepath_to_timestamp(self, filepath: PathLike) -> tuple[datetime, datetime]:
        return (self.mint, self.maxt) if self.timeless else super()._filepath_to_timestamp(filepath)

    def _is_parent(self, path: str) -> bool:
        """Whether a raster holds the 41 MCSC values: its name tells, otherwise a sample of its values."""
        if _SAYS_12.search(Path(path).name):
            return False
        values = sample_values(path)
        return bool(((values > len(LEGEND.codes)) & (values <= len(PARENTS))).any())

    def _coloured_legend(self, paths: Iterable[str]) -> Legend:
        """The legend, in the colours of the first 12-class raster that has a colour table."""
        for path in paths:
            try:
                return LEGEND.with_colours(open_raster(path).colormap(1))
            except ValueError:
                continue
        return LEGEND

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Labels in the colours of the legend, with the prediction beside them where the sample holds one.

        Args:
            sample: As returned by ``dataset[...]``.
            show_titles: Write a title above each panel.
            suptitle: Title of the figure.
        """
        return panels({}, maps_of(sample), legend=self.legend, show_titles=show_titles, suptitle=suptitle)


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
