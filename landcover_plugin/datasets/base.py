"""What both datasets share: pixel-exact queries on a RasterDataset."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyproj import CRS as PyprojCRS
from rasterio.crs import CRS
from torchgeo.datasets import RasterDataset
from torchgeo.datasets.utils import GeoSlice, Sample

from ..grid import AnchoredRes, PixelGrid, check_bbox


class PixelExactDataset(RasterDataset):
    """A RasterDataset whose patches are the file's own pixels.

    A query is moved to the nearest pixel edges of the dataset's grid and keeps its size in pixels; queries of
    one size always give one shape. Pixels are resampled only when another dataset dictates a CRS, a pixel size
    or an origin that the files do not have, and then by a named method. File handles belong to the process
    and thread that use them.
    """

    def __init__(
        self,
        files: Sequence[str],
        grid: PixelGrid,
        crs: PyprojCRS | None,
        res: float | tuple[float, float] | None,
        bands: Sequence[str] | None,
        transforms: Callable[[Sample], Sample] | None,
    ) -> None:
        """Index the files, which have been found and checked, and the grid over all of them."""
        self._catalog_index: Any = None
        self._files, self.grid = list(files), grid
        super().__init__(self._files, crs=crs, res=res, bands=bands, transforms=transforms)
        if tuple(self.res) == self.grid.res:
            self._res = AnchoredRes(self.grid.res, self.grid.origin)

    @property
    def files(self) -> list[str]:
        """Files of this dataset's kind, in the order of their names."""
        return self._files

    @property
    def crs(self) -> PyprojCRS:
        """Coordinate reference system of queries."""
        return self.index.crs

    @crs.setter
    def crs(self, new_crs: PyprojCRS) -> None:
        if new_crs != self.index.crs:
            self.index.to_crs(new_crs, inplace=True)
            self._catalog_index = None

    @property
    def res(self) -> tuple[float, float]:
        """Pixel size of samples, ``(xres, yres)`` in CRS units, with the origin of the grid where known."""
        return self._res

    @res.setter
    def res(self, new_res: float | tuple[float, float]) -> None:
        if isinstance(new_res, int | float):
            new_res = (new_res, new_res)
        self._res = new_res

    def _refresh_catalog(self) -> None:
        """Keep the index as plain arrays: TorchGeo's splits replace it, and pandas is slow to ask."""
        if self._catalog_index is not self.index:
            times = self.index.index
            self._bounds = self.index.bounds.to_numpy()
            self._intervals = list(zip(times.left, times.right, strict=True))
            self._times = (times.left.min().timestamp(), times.right.max().timestamp(), 1)
            # torchgeo 0.10.1: random_grid_cell_assignment loses the names of the columns
            self._paths = list(self.index['filepath'] if 'filepath' in self.index else self.index.iloc[:, 0])
            own = self.index.crs == self.grid.crs
            self._query_crs = self.grid.crs if own else CRS.from_user_input(self.index.crs)
            self._catalog_index = self.index

    def _select(self, index: GeoSlice) -> tuple[list[int], slice, slice]:
        """Rows of the index that a query meets, and the query's x and y slices made whole.

        Raises:
            IndexError: If it meets none.
            LandcoverError: If it is empty, reversed or not finite.
        """
        self._refresh_catalog()
        x, y, t = (*((index,) if isinstance(index, slice) else index), slice(None), slice(None))[:3]
        b = self._bounds
        x = slice(_or(x.start, b[:, 0].min()), _or(x.stop, b[:, 2].max()), _or(x.step, self._res[0]))
        y = slice(_or(y.start, b[:, 1].min()), _or(y.stop, b[:, 3].max()), _or(y.step, self._res[1]))
        check_bbox((x.start, y.start, x.stop, y.stop))
        meets = (b[:, 0] < x.stop) & (b[:, 2] > x.start) & (b[:, 1] < y.stop) & (b[:, 3] > y.start)
        rows = [
            i
            for i, (left, right) in enumerate(self._intervals)
            if meets[i] and (t.start is None or right >= t.start) and (t.stop is None or left <= t.stop)
        ]
        if not rows:
            raise IndexError(f'query {index} not found in {type(self).__name__} with bounds {self.bounds}')
        return rows[:: t.step], x, y

    def _target(self, x: slice, y: slice) -> PixelGrid:
        """The pixels that answer a query."""
        anchored = isinstance(self._res, AnchoredRes) and (x.step, y.step) == tuple(self._res)
        origin = self._res.origin if isinstance(self._res, AnchoredRes) and anchored else (x.start, y.stop)
        lattice = AnchoredRes((x.step, y.step), origin).lattice(self._query_crs)
        return lattice.subgrid(lattice.nearest_window(x, y))

    def _place(self, grid: PixelGrid) -> Sample:
        """The sample's georeference as TorchGeo gives it, in double precision."""
        xmin, ymin, xmax, ymax = grid.bounds()
        xres, yres = grid.res
        return {
            'bounds': torch.tensor([xmin, xmax, xres, ymin, ymax, yres, *self._times], dtype=torch.float64),
            'transform': torch.tensor(tuple(grid.transform), dtype=torch.float64),
        }


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
