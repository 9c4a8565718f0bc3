"""Which ground a checkpoint may judge: what its stored split shows that it did not see."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA
from ..rasters.identity import sha256
from ..sampling.blocks import Split
from ..sampling.cells import rectangles
from ..sampling.cross_fitting import held_out
from ..sampling.inventory import Inventory
from .datamodule import CataloniaDataModule
from .task import read_checkpoint
from .temperature import find_temperature

#: Fewer training pixels than these (a hectare of 10 m) teach a network nothing of a class.
LEAST = 100


@dataclass(frozen=True, eq=False)
class Judge:
    """A checkpoint and the ground that it may judge.

    Attributes:
        checkpoint: Its file.
        split: That it was trained on.
        patch_size: Edge of its largest patch in pixels.
    """

    checkpoint: Path
    split: Split
    patch_size: int

    @classmethod
    def of(cls, path: Path) -> 'Judge':
        """The judge that a checkpoint is.

        Raises:
            LandcoverError: If it is none, does not tell what it was trained on, or held nothing out.
        """
        checkpoint = read_checkpoint(path)
        state: dict[str, Any] = checkpoint.get(CataloniaDataModule.__qualname__) or {}
        saved, settings = state.get('split'), checkpoint.get('datamodule_hyper_parameters') or {}
        if not saved or 'patch_size' not in settings:
            raise LandcoverError(
                f'{path} does not tell on which ground it was trained, so nothing shows which pixels it may judge: '
                'give checkpoints that landcover fit wrote, or let landcover audit train its own (--folds)'
            )
        height, width = saved['shape']
        grid = PixelGrid(CRS.from_wkt(saved['crs']), Affine(*saved['transform']), height, width)
        split = Split(grid, saved['cell'], saved['cells'].numpy(), saved['blocks'].numpy())
        patch_size = max(settings.get('patch_sizes') or [settings['patch_size']])
        judge = cls(path, split, patch_size)
        if not judge.cells.any():
            raise LandcoverError(
                f'{path} was trained or validated within a patch ({patch_size} px) of all ground of its split, so no '
                'pixel was held out from it: give checkpoints of other splits (--data.folds), or leave --checkpoints '
                'out'
            )
        return judge

    def check_grid(self, grid: PixelGrid) -> None:
        """Check that the split lies on the pixels of the images.

        Raises:
            LandcoverError: If it does not: nothing shows then what was held out.
        """
        own = self.split.grid
        if own.crs != grid.crs or own.window_of(grid) != grid.full or own.full != grid.full:
            raise LandcoverError(
                f'{self.checkpoint} was trained on other rasters, {own.height} x {own.width} px in {own.crs}, than '
                f'these of {grid.height} x {grid.width} px in {grid.crs}: its split does not show which of these '
                'pixels it saw; name the rasters that it was trained on with --data.root'
            )

    @property
    def cells(self) -> NDArray[np.bool_]:
        """Cells that it may judge, shape ``(rows, cols)``."""
        return held_out(self.split, self.patch_size)

    @property
    def windows(self) -> list[PixelWindow]:
        """Rectangles of pixels that cover these exactly once."""
        grid, cell = self.split.grid, self.split.cell
        return [w.scaled(cell).intersection(grid.full) for w in rectangles(self.cells)]

    def knows(self, inventory: Inventory) -> NDArray[np.bool_]:
        """Codes of which it has seen enough to judge them, shape ``(num_classes,)``.

        Args:
            inventory: Of the ground, in cells like those of the split.
        """
        return np.asarray(inventory.class_counts(self.split.region('train')) >= LEAST)

    def describe(self, inventory: Inventory) -> dict[str, Any]:
        """What it saw and may judge, in labelled pixels, as JSON.

        Args:
            inventory: See :meth:`knows`.
        """

        def pixels(cells: NDArray[np.bool_]) -> int:
            return int(inventory.class_counts(cells)[NODATA + 1 :].sum())

        unlearned = (inventory.class_counts() > 0) & ~self.knows(inventory)
        return {
            'checkpoint': str(self.checkpoint),
            'sha256': sha256(self.checkpoint),
            'temperature': find_temperature(self.checkpoint) or 1.0,
            'patch_size': self.patch_size,
            'trained_px': pixels(self.split.region('train')),
            'validated_px': pixels(self.split.region('val')),
            'held_out_px': pixels(self.cells),
            'unlearned': [LEGEND[code].name for code in LEGEND.codes if unlearned[code]],
        }
