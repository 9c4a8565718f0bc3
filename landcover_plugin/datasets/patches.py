"""Images and labels together, read by pixel window: what the data module's loaders index."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info
from torchgeo.datasets import IntersectionDataset
from torchgeo.datasets.utils import Sample

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND
from .icgc import ICGCLandCover
from .reading_notes import Doing, Note, ReadingNotes, begin, go_on
from .sentinel2 import CataloniaSentinel2


class CataloniaPatches(IntersectionDataset):
    """The intersection of mosaics and labels, whose samples are read without asking an index for each.

    It is indexed with the slices that our samplers give, ``(x, y)`` or ``(x, y, look)``. A sample holds ``image``,
    ``valid`` and ``mask`` in the types of the files, and no georeference: what the training needs, at the speed of
    the disk.

    Args:
        images: Mosaics; their grid is the reference.
        labels: Labels.
        purity: Give ``purity`` too: uint8, percent of the pixel that its code covers.
        shares: Give ``shares`` too: uint8, shape ``(classes, H, W)``, percent of the pixel that each class covers.
        places: Give ``place`` too: int64, shape ``(5,)``, row, column, height and width in pixels of the image grid,
            and the number of the look.
        size: Batches are padded to this height and width at least, so that what is predicted does not depend on
            which patches meet in a batch.

    Raises:
        RuntimeError: If images and labels do not overlap.
    """

    def __init__(
        self,
        images: CataloniaSentinel2,
        labels: ICGCLandCover,
        *,
        purity: bool = False,
        shares: bool = False,
        places: bool = False,
        size: int = 1,
    ) -> None:
        super().__init__(images, labels, spatial_only=True)
        self.images, self.labels, self.purity, self.shares, self.size = images, labels, purity, shares, size
        self.places = places
        self.patches: int | None = None
        #: What the workers of a loader are at; given by what makes the loader.
        self.notes: ReadingNotes | None = None

    def __len__(self) -> int:
        """Patches of an epoch, once it is known how many are drawn, for what compares batches with them; else files."""
        return super().__len__() if self.patches is None else self.patches

    def __getitem__(self, index: Any) -> Sample:
        """The patch of a query in CRS units, moved to the nearest pixels; without a look, the earliest."""
        batch = self._read([self._part(index)])
        return {key: values[0] for key, values in batch.items()}

    def __getitems__(self, indices: Sequence[Any]) -> Sample:
        """The patches of several queries as one batch, each read into its place: a loader copies nothing.

        Smaller patches are padded right and below with what was not measured: 0 in images, no data in masks.
        """
        return self._read([self._part(index) for index in indices], self.size)

    def _part(self, index: Any) -> tuple[PixelWindow, int]:
        """The pixels of a query, and the number of its look."""
        x, y, *look = index
        return self.images.grid.nearest_window(x, y), self.images.look_number(look[0]) if look else 0

    def place_of(self, note: Note) -> str:
        """Pixels and files of a patch, in words.

        Args:
            note: Of the patch; what was read of it tells images from labels.
        """
        rows, cols = (f'{start}-{stop}' for start, stop in note.window.ranges)
        grid, mosaics = self.images.grid.subgrid(note.window), self.images.mosaics
        files = self.labels.files if note.doing is Doing.LABELS else mosaics.files_at(grid, note.look)
        return f'rows {rows}, columns {cols} of {", ".join(files)}'

    def _read(self, parts: Sequence[tuple[PixelWindow, int]], size: int = 1) -> Sample:
        try:
            return self._read_batch(parts, size)
        except (MemoryError, RuntimeError) as e:  # torch raises the latter
            if not isinstance(e, MemoryError) and 'allocate' not in str(e):
                raise
            place = self.place_of(Note(Doing.IMAGES, *parts[0]))
            raise LandcoverError(
                f'memory ran out when {len(parts)} patches were read, the first at {place}: choose a smaller '
                '--data.batch_size, --data.patch_size or --data.num_workers'
            ) from e

    def _read_batch(self, parts: Sequence[tuple[PixelWindow, int]], size: int) -> Sample:
        count, note = len(parts), None if self.notes is None else self.notes.own()
        shape = max(size, *(window.height for window, _ in parts)), max(size, *(window.width for window, _ in parts))
        channels, classes = len(self.images.channels), len(LEGEND.codes)
        batch = {
            'image': _room((count, channels, *shape), self.images.image_dtype),
            'valid': _room((count, *shape), torch.bool),
            'mask': _room((count, *shape), torch.uint8),
        }
        if self.purity:
            batch['purity'] = _room((count, *shape), torch.uint8)
        if self.shares:
            batch['shares'] = _room((count, classes, *shape), torch.uint8)
        if any((window.height, window.width) != shape for window, _ in parts):
            for values in batch.values():
                values.zero_()
        arrays = {key: values.numpy() for key, values in batch.items()}
        for i, (window, look) in enumerate(parts):
            place = {key: values[i, ..., : window.height, : window.width] for key, values in arrays.items()}
            begin(note, window, look)
            self._fill(place, self.images.grid.subgrid(window), look, note)
            go_on(note, Doing.NOTHING)
        if self.places:
            batch['place'] = torch.tensor([[*window, look] for window, look in parts])
        return batch

    def _fill(self, place: dict[str, NDArray[Any]], grid: PixelGrid, look: int, note: NDArray[np.int64] | None) -> None:
        """Read a patch into its arrays."""
        rasters = self.labels.rasters
        self.images.read_into(place['image'], place['valid'], grid, look)
        go_on(note, Doing.LABELS)
        if self.purity:
            found = rasters.read(grid)
            place['mask'][:], place['purity'][:] = found.codes, found.purity
        else:
            rasters.read_codes(grid, out=place['mask'])
        if self.shares:
            place['shares'][:] = rasters.read_shares(grid)


def _room(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for a batch; in a loader's worker it is shared, so that the batch need not be copied to the trainer."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)
