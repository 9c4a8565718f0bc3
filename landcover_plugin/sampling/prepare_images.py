"""The images of a training store: copied into its layout and counted on the way."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid import PixelGrid, PixelWindow
from ..rasters.landcover import LabelRasters
from ..rasters.mosaics import Mosaics, measured
from ..rasters.storing import BLOCKS, Layout, StoreRaster
from ..rasters.streaming import in_order
from .inventory import Inventory, InventoryBuilder, Scan
from .windows import image_windows, is_striped, pixel_bytes


class ImageCopy:
    """Mosaics read window by window: what goes into the files of a store, one a month, and what is counted.

    Files hold all bands that all mosaics have, merged where a month has several; the inventory counts the chosen ones.

    Args:
        images: Sources.
        labels: Labels on the grid of the mosaics.
    """

    def __init__(self, images: Mosaics, labels: LabelRasters) -> None:
        self.images, self.labels = images, labels
        self.whole = Mosaics(
            images.files, bands=common_bands(images), band_order=images.band_order, nodata=images.nodata
        )
        self._chosen = [self.whole.bands.index(band) for band in images.bands]

    def files(self) -> dict[str, list[str]]:
        """Sources by the name of the file that they go into."""
        found = {}
        for date in self.whole.dates:
            sources = self.whole.files_of(date)
            name = f'{Path(sources[0]).stem}.tif' if len(sources) == 1 else f'S2_{date.replace("-", "")}.tif'
            found[name] = sources
        return found

    def write(self, folder: Path, layout: Layout | None, cell: int, *, progress: bool) -> Inventory:
        """Write the files, unless the layout is None, and count the ground.

        Args:
            folder: For the files.
            layout: Of the files.
            cell: Edge of the cells of the inventory in pixels.
            progress: Show a progress bar.
        """
        images = self.images
        builder = InventoryBuilder(images.grid, cell, images.looks, len(images.channels))
        with ExitStack() as stack:
            rasters = [stack.enter_context(raster) for raster in self._rasters(folder, layout)] if layout else []
            for scan, pixels in in_order(
                self._read,
                image_windows(images, cell),
                desc='images',
                unit='px',
                size_of=lambda w: w.height * w.width,
                progress=progress,
            ):
                builder.add(scan)
                for raster, image in zip(rasters, pixels, strict=False):
                    raster.write(scan.window, image)
        return builder.finish()

    def _rasters(self, folder: Path, layout: Layout) -> list[StoreRaster]:
        whole = self.whole
        return [
            StoreRaster(
                folder / name, whole.grid, layout=layout, dtype=whole.dtype, bands=whole.bands,
                nodata=whole.nodata_of(sources[0]), tags={'SOURCES': ' '.join(Path(s).name for s in sources)},
            )
            for name, sources in self.files().items()
        ]  # fmt: skip

    def _read(self, window: PixelWindow) -> tuple[Scan, list[NDArray[Any]]]:
        """What is counted of a window, and the pixels of each month."""
        part = self.images.grid.subgrid(window)
        months = [self._month(part, look) for look in range(self.whole.looks)]
        pixels = [self._of_chosen(month) for month in months]
        valid = [measured(image, self._nodata(look)) for look, image in enumerate(pixels)]
        if self.images.seasons == 'stack':
            pixels, valid = [np.concatenate(pixels)], [np.logical_and.reduce(valid)]
        return Scan(window, self.labels.read(part), pixels, valid), months

    def _month(self, part: PixelGrid, look: int) -> NDArray[Any]:
        """Pixels of a month; where it has several files, each of which may declare another nodata, with the first's."""
        image, valid = self.whole.read(part, look)
        if len(self.whole.files_of(self.whole.dates[look])) > 1:
            image = image.astype(self.whole.dtype, copy=False)
            image[:, ~valid] = self._nodata(look)
        return image

    def _nodata(self, look: int) -> float:
        return self.whole.nodata_of(self.whole.files_of(self.whole.dates[look])[0])

    def _of_chosen(self, image: NDArray[Any]) -> NDArray[Any]:
        """The bands that are counted; a copy only where they are not all."""
        return image if self._chosen == list(range(len(image))) else image[self._chosen]


def common_bands(images: Mosaics) -> list[str]:
    """Bands that each of the mosaics has, in the order of the first."""
    each = [set(Mosaics([file], band_order=images.band_order, nodata=images.nodata).all_bands) for file in images.files]
    return [band for band in images.all_bands if all(band in names for names in each)]


def cache_bytes(images: Mosaics) -> int:
    """Memory for GDAL's blocks: a row of blocks of each file, which rows of a striped source fill bit by bit."""
    row = BLOCKS['compact'] * images.grid.width * pixel_bytes(images) if is_striped(images.files) else 0
    return max(2**27, row * 5 // 4)
