"""Windows for mapping: read ahead in threads, normalised, and stacked in batches of one shape."""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..datasets.sentinel2 import CataloniaSentinel2
from ..errors import LandcoverError
from ..grid import PixelWindow
from ..machine import processors
from ..rasters.buffers import Buffers
from ..rasters.opening import on_server, open_raster
from ..rasters.streaming import ahead
from ..sampling.lattice import SWATH_WIDTH, reflected
from ..sampling.runs import StripRun
from ..sampling.windows import is_striped, pixel_bytes
from .augmentation import Batch


class Look(NamedTuple):
    """One look at a window of a run.

    Attributes:
        run: Number of the run.
        window: Pixels on the mosaics' grid; may reach beyond it.
        look: Number of the look.
    """

    run: int
    window: PixelWindow
    look: int


class _Read(NamedTuple):
    at: Look
    image: NDArray[Any]
    valid: NDArray[np.bool_]


class WindowBatches:
    """The windows of some runs as batches, which Lightning takes in place of a loader.

    Every batch holds ``image`` ``(B, C, size, size)``, ``valid`` ``(B, size, size)`` and ``windows`` ``(n, 4)``, int64:
    run, row, column and look of its first ``n`` images. All but the last are full, and that one may be filled up with
    images that are 0 and not valid, so that a network always sees one shape. Windows come run by run, row by row, look
    by look; those in which a look measured nothing are left out.

    Args:
        images: Mosaics.
        runs: What to read.
        size: Edge of a window.
        batch_size: Images in a batch.
        normalisation: ``(2, C, 1, 1)``, by which numbers are multiplied and what is added: batches are normalised,
            float32, and 0 where not valid. Without, they are in the type of the mosaics.
        threads: Threads that read (default: one for eight processors where these compute the network and files are
            local; else as many as there are processors).
        fill: Fill the last batch up; engines that take windows one by one need not.
        pin: Put batches in memory from which they are copied to a GPU meanwhile.
    """

    def __init__(
        self,
        images: CataloniaSentinel2,
        runs: Sequence[StripRun],
        *,
        size: int,
        batch_size: int,
        normalisation: NDArray[np.float32] | None = None,
        threads: int | None = None,
        fill: bool = True,
        pin: bool = False,
    ) -> None:
        self.images, self.runs, self.size, self.batch_size = images, runs, size, batch_size
        self.normalisation, self.fill, self.pin = normalisation, fill, pin
        self.threads = threads or self._readers()
        self._buffers = Buffers()

    def _readers(self) -> int:
        """Threads that are enough: each has its own handles, and decodes blocks that another has decoded again."""
        count, computes = processors(), self.normalisation is not None
        return max(count // 8, 1) if computes and not any(map(on_server, self.images.files)) else count

    def looks(self) -> Iterator[Look]:
        """What is to be read, in order."""
        count = len(self.images.looks)
        for number, run in enumerate(self.runs):
            for window in run.windows():
                for look in range(count):
                    yield Look(number, window, look)

    def __iter__(self) -> Iterator[Batch]:
        """Batches, one of which is made while another is used."""
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix='windows')
        try:
            reads = ahead(pool, self._read, self.looks(), depth=self.batch_size + self.threads)
            yield from ahead(pool, self._stack, _grouped(reads, self.batch_size), depth=1)
        finally:
            pool.shutdown(cancel_futures=True)

    def sample(self, count: int) -> Batch | None:
        """Windows from all over, those that measured the most, as one batch; None if all are empty.

        Args:
            count: Windows at most.
        """
        looks = list(self.looks())
        tried = looks[:: max(len(looks) // (4 * count), 1)]
        reads = [read for read in map(self._read, tried) if read is not None]
        reads.sort(key=lambda read: -int(read.valid.sum()))
        return self._stack(reads[:count]) if reads else None

    def _read(self, at: Look) -> _Read | None:
        """A look at a window, or None if it measured nothing there."""
        try:
            image, valid = read_reflected(self.images, at.window, at.look)
        except LandcoverError as e:
            if self.images.mosaics.damage is None and 'cannot be read' in str(e):
                raise LandcoverError(f'{e}; --data.damaged nodata leaves out what cannot be read') from e
            raise
        return _Read(at, image, valid) if valid.any() else None

    def _stack(self, reads: Sequence[_Read]) -> Batch:
        shape = self.batch_size if self.fill else len(reads), len(self.images.channels), self.size, self.size
        dtype = self.images.image_dtype if self.normalisation is None else torch.float32
        image = self._room(shape, dtype)
        valid = torch.zeros((shape[0], *shape[2:]), dtype=torch.bool, pin_memory=self.pin)
        places, valids = image.numpy(), valid.numpy()
        for i, read in enumerate(reads):
            valids[i] = read.valid
            if self.normalisation is None:
                places[i] = read.image
            else:
                factor, shift = self.normalisation.reshape(2, -1)
                normalise(read.image, read.valid, factor, shift, places[i])
        places[len(reads) :] = 0
        windows = [[r.at.run, r.at.window.row, r.at.window.col, r.at.look] for r in reads]
        return {'image': image, 'valid': valid, 'windows': torch.tensor(windows)}

    def _room(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self.pin:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        return torch.from_numpy(self._buffers.empty(shape, str(dtype).removeprefix('torch.')))


def _grouped(reads: Iterable[_Read | None], size: int) -> Iterator[list[_Read]]:
    group: list[_Read] = []
    for read in reads:
        if read is not None:
            group.append(read)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def read_reflected(
    images: CataloniaSentinel2, window: PixelWindow, look: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Image ``(C, H, W)`` and validity ``(H, W)`` of a window; beyond the grid they are mirrored on its edge.

    Args:
        images: Mosaics.
        window: Meets their grid.
        look: Number of the look.
    """
    grid = images.grid
    rows = reflected(window.row, window.row_stop, grid.height)
    cols = reflected(window.col, window.col_stop, grid.width)
    row, col = int(rows.min()), int(cols.min())
    part = PixelWindow(row, col, int(rows.max()) + 1 - row, int(cols.max()) + 1 - col)
    dtype = images.mosaics.dtype if images.raw else np.float32
    image = np.empty((len(images.channels), part.height, part.width), dtype)
    valid = np.empty((part.height, part.width), np.bool_)
    images.read_into(image, valid, grid.subgrid(part), look)
    if part == window:
        return image, valid
    rows, cols = (rows - row)[:, None], cols - col
    return image[:, rows, cols], valid[rows, cols]


def block_cache_bytes(images: CataloniaSentinel2, size: int) -> int:
    """Memory for GDAL's blocks: all that the windows of one row meet, so that those of the next find them again."""
    mosaics, width = images.mosaics, images.grid.width
    height = max(open_raster(path).block_shapes[0][0] for path in images.files)
    rows = (math.ceil((size - 1) / height) + 1) * height
    swath = width if is_striped(images.files) else min(width, SWATH_WIDTH + size)
    return min(max(rows * swath * pixel_bytes(mosaics) * 9 // 8, 2**26), 2**29)


@numba.njit(cache=True, nogil=True)
def normalise(image, valid, factor, shift, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write ``image * factor + shift`` of each channel, 0 where not valid, in one pass."""
    for band in range(image.shape[0]):
        for row in range(image.shape[1]):
            for col in range(image.shape[2]):
                value = np.float32(image[band, row, col]) * factor[band] + shift[band]
                out[band, row, col] = value if valid[row, col] else np.float32(0)
