"""The Lightning callback that calibrates a checkpoint while it is validated."""

import logging
import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.types import STEP_OUTPUT

from ..errors import LandcoverError
from ..rasters.outputs import check_output
from ..training.calibration import PixelSample, calibrate
from ..training.temperature import temperature_path, write_temperature

log = logging.getLogger(__name__)


class TemperatureCalibration(pl.Callback):
    """Fits one temperature on the validation ground and writes it beside the checkpoint.

    Args:
        pixels: Labelled pixels to fit it to: a uniform random sample of this size at most.
        seed: Of the sample.
    """

    def __init__(self, pixels: int = 200_000, seed: int = 0) -> None:
        self.pixels, self.seed = pixels, seed
        self._sample = PixelSample(pixels, seed)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse what cannot be: each device would see a part of the ground.

        Raises:
            LandcoverError: If there are several devices.
        """
        if trainer.world_size > 1:
            raise LandcoverError(f'calibrate runs on one device, got {trainer.world_size}: set --trainer.devices 1')

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget an earlier run; fail before computing if the temperature could not be written afterwards.

        Raises:
            LandcoverError: If there is no checkpoint, or its folder is read-only.
        """
        self._sample = PixelSample(self.pixels, self.seed)
        if not trainer.ckpt_path:
            raise LandcoverError('calibrate needs --ckpt_path, the checkpoint whose probabilities are calibrated')
        check_output(temperature_path(trainer.ckpt_path), overwrite=True)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Offer the labelled pixels of a batch to the sample."""
        if not isinstance(outputs, dict) or 'logits' not in outputs:
            raise LandcoverError(f'{type(pl_module).__name__} gives no logits to calibrate: use LandCoverSegmentation')
        self._sample.add(outputs['logits'], batch['mask'])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fit, say what it changes, and write.

        Raises:
            LandcoverError: If no pixel was labelled, logits are not finite, or the file cannot be written.
        """
        logits, codes = self._sample.pixels
        found = calibrate(logits, codes)
        if not math.isfinite(found.nll_after):
            raise LandcoverError('the network gave logits that are not finite: choose another checkpoint')
        path = write_temperature(str(trainer.ckpt_path), found.temperature, found.figures())
        log.info('%s; written to %s', found, path)
