"""From predicted windows to a map on disk, as they come."""

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from .._version import __version__
from ..errors import LandcoverError
from ..grid import taper
from ..rasters.outputs import check_output
from ..rasters.preview import write_preview
from ..rasters.writing import MapFile, output_paths
from ..training.datamodule import CataloniaDataModule
from .mosaic import BlendedMosaic, Strip, to_codes, to_percent

log = logging.getLogger(__name__)


class MapWriter(BasePredictionWriter):
    """Blends the predicted windows and writes the map row by row, in memory that does not grow with its height.

    Windows overlap; each is weighted by a taper that falls towards its rim, and different looks at the same ground
    (seasons) are averaged. The files appear under their names only when they are whole.

    Args:
        path: The map, a GeoTIFF (COG) on the exact grid of the mosaics: uint8 codes with colours and class names.
        confidence: Also write <path>_confidence.tif: percent of the chosen class.
        probabilities: Also write <path>_probabilities.tif: percent of each class, one band each.
        png: Also draw <path>.png with a legend.
        overwrite: Replace older files.

    Raises:
        LandcoverError: Before predicting, if a file cannot be written; afterwards, if nothing was measured there.
    """

    def __init__(
        self,
        path: str,
        confidence: bool = False,
        probabilities: bool = False,
        png: bool = False,
        overwrite: bool = False,
    ) -> None:
        super().__init__(write_interval='batch')
        self.path, self.png, self.overwrite = path, png, overwrite
        self.layers = {'confidence': confidence, 'probabilities': probabilities}
        self._stack = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Fail before computing if the map could not be written afterwards."""
        if stage != 'predict':
            return
        if trainer.world_size > 1:
            raise LandcoverError(f'predict runs on one device, got {trainer.world_size}: set --trainer.devices 1')
        for target in output_paths(self.path, **self.layers).values():
            check_output(target, overwrite=self.overwrite)
        if self.png:
            check_output(Path(self.path).with_suffix('.png'), overwrite=self.overwrite)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the files."""
        data = _data_of(trainer)
        images, area = data.open_images(), data.area
        if area is None:
            raise LandcoverError('the data module has no area to map')
        self._grid, self._area = images.grid, area
        self._mosaic = BlendedMosaic(area, data.legend.num_classes)
        size = data.settings.patch_size
        self._taper = taper(size, data.overlap)
        self._covered = 0
        self._file = MapFile(
            self.path,
            images.grid.subgrid(area),
            legend=data.legend,
            tags=provenance(trainer, pl_module, data),
            overwrite=self.overwrite,
            **self.layers,
        )
        self._stack.enter_context(self._file)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Blend a batch of windows and write the rows that are finished by it."""
        probabilities = prediction['probabilities'].float().cpu().numpy()
        valid = prediction['valid'].cpu().numpy()
        for i, (x, y, *_) in enumerate(batch_indices or ()):
            window = self._grid.nearest_window(x, y)
            for strip in self._mosaic.finished(window.row):  # windows come row by row
                self._write(strip)
            self._mosaic.add(window, probabilities[i], self._taper * valid[i])

    def _write(self, strip: Strip) -> None:
        row, probabilities, covered = strip
        self._covered += int(np.count_nonzero(covered))
        codes, confidence = to_codes(probabilities, covered)
        self._file.write_rows(
            row - self._area.row,
            codes,
            confidence if self.layers['confidence'] else None,
            to_percent(probabilities, covered) if self.layers['probabilities'] else None,
        )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last rows and give the files their names."""
        with self._stack:
            for strip in self._mosaic.flush():
                self._write(strip)
            if not self._covered:
                raise LandcoverError(
                    f'no pixel of the area {self._grid.bounds(self._area)} was measured: it is all nodata; '
                    'choose another bbox, or check --data.nodata'
                )
        total = self._area.height * self._area.width
        for kind, target in self._file.paths.items():
            log.info('%s: %s (%d x %d px)', kind, target, self._area.width, self._area.height)
        if self._covered < total:
            log.info('%.1f %% of the area was not measured and is no data', 100 * (1 - self._covered / total))
        if self.png:
            picture = Path(self.path).with_suffix('.png')
            legend = _data_of(trainer).legend
            log.info('picture: %s', write_preview(picture, self.path, legend, overwrite=self.overwrite))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove what was written so far."""
        self._stack.__exit__(type(exception), exception, exception.__traceback__)


def _data_of(trainer: Trainer) -> CataloniaDataModule:
    data = getattr(trainer, 'datamodule', None)
    if not isinstance(data, CataloniaDataModule):
        raise LandcoverError('MapWriter needs the windows of CataloniaDataModule; pass one to trainer.predict')
    return data


def provenance(trainer: Trainer, pl_module: LightningModule, data: CataloniaDataModule) -> dict[str, str]:
    """Where a map comes from, as tags of its files: network, checkpoint and its hash, bands, dates, software."""
    images = data.open_images()
    describe = getattr(pl_module, 'provenance', dict)
    network = {f'MODEL_{k.upper()}' if k != 'model' else 'MODEL': str(v) for k, v in describe().items()}
    path = trainer.ckpt_path
    checkpoint = {'CHECKPOINT': Path(path).name, 'CHECKPOINT_SHA256': sha256(path)} if path else {}
    packages = ('torch', 'torchgeo', 'lightning', 'segmentation-models-pytorch', 'rasterio')
    return {
        **network,
        **checkpoint,
        'BANDS': ' '.join(images.bands),
        'DATES': ' '.join(images.dates),
        'SEASONS': images.mosaics.seasons,
        'SOURCES': ' '.join(Path(f).name for f in images.files),
        'SOFTWARE': ', '.join([f'landcover {__version__}', *(f'{p} {version(p)}' for p in packages)]),
    }


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    with open(path, 'rb') as file:  # noqa: PTH123 - the path may be text
        return hashlib.file_digest(file, 'sha256').hexdigest()
