"""What both datasets share: pixel-exact queries on a RasterDataset."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pyproj import CRS as PyprojCRS
from rasterio.crs import CRS
from torchgeo.datasets import RasterDataset
from torchgeo.datasets.utils import GeoSlice, Sample

from ..errors import LandcoverError
from ..grid import AnchoredRes, PixelGrid, check_bbox
from ..rasters.opening import check_whole, open_raster, vsi_path
from ..rasters.reading import same_ground

PathLike = str | os.PathLike[str]


class PixelExactDataset(RasterDataset):
    """A RasterDataset whose patches are the file's own pixels.

    A query is moved to the nearest pixel edges of the dataset's grid and keeps its size in pixels; queries of
    one size always give one shape. Pixels are resampled only when another dataset dictates a CRS, a pixel size
    or an origin that the files do not have, and then by a named method. File handles belong to the process
    and thread that use them.

    Raises:
        LandcoverError: If no file is found, or one is truncated, has no CRS, or lies on another grid
            than the first.
    """

    #: What the names of the files look like, for messages.
    expected_name: ClassVar[str] = '*.tif'

    paths: list[str]

    def __init__(
        self,
        paths: PathLike | Iterable[PathLike],
        crs: PyprojCRS | None,
        res: float | tuple[float, float] | None,
        bands: Sequence[str] | None,
        transforms: Callable[[Sample], Sample] | None,
    ) -> None:
        """Open and check the files, and index them."""
        self._catalog_index: Any = None
        self.paths = gdal_paths(paths)
        self.grid = self._common_grid()
        super().__init__(self.paths, crs=crs, res=res, bands=bands, transforms=transforms)
        if tuple(self.res) == self.grid.res:
            self._res = AnchoredRes(self.grid.res, self.grid.origin)

    @property
    def files(self) -> list[str]:
        """Files of this dataset's kind, in the order of their names.

        Raises:
            LandcoverError: If a path does not exist or nothing matches.
        """
        files: set[str] = set()
        for path in self.paths:
            name = os.fspath(path)
            if not name.startswith('/vsi') and not Path(name).exists():
                raise LandcoverError(f'{name} does not exist; name the folder or file that holds the rasters')
        files.update(f for f in super().files if re.match(self.filename_regex, Path(f).name))
        if not files:
            places = ', '.join(map(str, self.paths))
            raise LandcoverError(
                f'no {self.expected_name} raster in {places}; name the folder that holds it or rename the file'
            )
        return sorted(files)

    def _common_grid(self) -> PixelGrid:
        """The grid over all files: that of the first, grown to their joint extent."""
        grids = {}
        for path in self.files:
            check_whole(path)
            grids[path] = PixelGrid.of(open_raster(path))
        first, *others = grids.items()
        for path, grid in others:
            if not same_ground(grid.crs, first[1].crs, grid.bounds()) or not first[1].aligned_with(grid):
                raise LandcoverError(
                    f'{path} and {first[0]} lie on different pixel grids (CRS, pixel size or origin); '
                    'warp one onto the other (gdalwarp -tap) or load them as two datasets'
                )
        bounds = [g.bounds() for g in grids.values()]
        lows, highs = zip(*((b[:2], b[2:]) for b in bounds), strict=True)
        joint = (*map(min, zip(*lows, strict=True)), *map(max, zip(*highs, strict=True)))
        return first[1].subgrid(first[1].window(joint))

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

    def _by_date(self, rows: Iterable[int]) -> dict[Any, list[str]]:
        """Files of rows of the index, by the start of their time, in order of date and name.

        TorchGeo's splits give several rows to one file, in any order.
        """
        self._refresh_catalog()
        groups: dict[Any, list[str]] = {}
        for start, path in sorted({(self._intervals[i][0], self._paths[i]) for i in rows}):
            groups.setdefault(start, []).append(path)
        return groups

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


def gdal_paths(paths: PathLike | Iterable[PathLike]) -> list[str]:
    """One path or several as a list of names that GDAL and TorchGeo find files under."""
    return [vsi_path(p) for p in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
