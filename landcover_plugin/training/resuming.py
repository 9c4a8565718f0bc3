"""Trainings that outlive their process: checkpoints that are whole, kept in mid-epoch, and gone on with by one flag."""

import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from ..errors import LandcoverError
from ..rasters.outputs import cannot_write, write_whole
from .mirroring import RunMirror

log = logging.getLogger(__name__)

#: Name of the checkpoint of :class:`RunKeeper`.
RESUME = 'resume'


class ResumableLoader(DataLoader[Any]):
    """A loader that Lightning may leave in the middle of an epoch and go on with later.

    It has no state of its own: the data module passes over the patches of the epoch that were trained on, see
    :meth:`BalancedPatchSampler.pass_over <landcover_plugin.sampling.samplers.BalancedPatchSampler.pass_over>`.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Nothing to be done."""


class RunKeeper(ModelCheckpoint):
    """Keeps the state of a training every few minutes, in mid-epoch, and when the process is asked to end (SIGTERM).

    The newest state replaces the one before, as ``resume.ckpt`` beside the best checkpoint. A training that goes on
    from it ends with the very weights of one that was never stopped, where the device computes deterministically.

    Args:
        minutes: Between two states.
        dirpath: Folder (default: that of the run's checkpoints).
        steps: Keep a state every so many optimiser steps instead.

    Raises:
        LandcoverError: If minutes or steps are not above 0.
    """

    def __init__(self, minutes: float = 10, dirpath: str | None = None, steps: int | None = None) -> None:
        for name, value in (('minutes', minutes), ('steps', steps)):
            if value is not None and value <= 0:
                raise LandcoverError(f'keep.{name} must be above 0, got {value}')
        super().__init__(
            dirpath,
            RESUME,
            save_top_k=1,
            train_time_interval=None if steps else timedelta(minutes=minutes),
            every_n_train_steps=steps,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder."""
        first = trainer.checkpoint_callback
        if self.dirpath is None and isinstance(first, ModelCheckpoint) and first is not self:
            self.dirpath = first.dirpath
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the state if it is time; not between accumulated batches, nor just before the end of the epoch."""
        loop = trainer.fit_loop
        if not loop._should_accumulate() and not loop.epoch_loop.batch_progress.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the other checkpoint is written then."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the other checkpoint is written then."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the state when the process is asked to end, which Lightning heeds between batches."""
        if isinstance(exception, SIGTERMException) and trainer.training:
            self._save_checkpoint(trainer, self.format_checkpoint_name({}))
            log.info('asked to end: the state of step %d is kept', trainer.global_step)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints under a hidden name first: a full disk or a kill leaves the one before as it was.

    Args:
        mirror: Where the runs are kept, too.
    """

    def __init__(self, mirror: RunMirror | None = None) -> None:
        super().__init__()
        self.mirror = mirror

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            LandcoverError: If it cannot be written; what was there is left.
        """
        if '://' in os.fspath(path):
            super().save_checkpoint(checkpoint, str(path), storage_options)
            return
        target = Path(path)
        try:
            write_whole(target, lambda staging: _save(checkpoint, staging))
        except OSError as error:
            kept = f'; {target} is left as it was: --resume true goes on with it' if target.is_file() else ''
            raise LandcoverError(f'{cannot_write(target, error)}{kept}') from error
        if self.mirror is not None:
            self.mirror.upload_or_warn()

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        super().remove_checkpoint(path)
        if self.mirror is not None:
            self.mirror.forget(path)


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    with path.open('wb') as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:  # torch closes its archive and hides what the system said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def run_folder(trainer: Trainer) -> Path:
    """The folder of a run: of the loggers of servers, which have none, by the name and number of the run."""
    logger = trainer.logger
    if logger is None:
        return Path(trainer.default_root_dir)
    own = getattr(logger, 'log_dir', None)  # trainer.log_dir would wait for the other ranks
    return Path(own or Path(logger.save_dir or trainer.default_root_dir, str(logger.name), str(logger.version)))


def trained_patches(trainer: Trainer, batch_size: int) -> tuple[int, int]:
    """Epoch and patches of it, over all processes, that a training has behind it when it goes on.

    Args:
        trainer: Its loops, with the progress of the checkpoint.
        batch_size: Of one process.
    """
    loop: Any = trainer.fit_loop
    progress = loop.epoch_loop.batch_progress
    batches = 0 if progress.is_last_batch else progress.current.processed  # a checkpoint of the end of an epoch
    return loop.epoch_progress.current.processed, batches * batch_size * trainer.world_size


def newest_state(root: str | os.PathLike[str], dirpath: str | os.PathLike[str] | None = None) -> Path | None:
    """The checkpoint with which the latest run goes on, None if there is none.

    Args:
        root: ``trainer.default_root_dir``, the folder of the runs.
        dirpath: ``checkpoint.dirpath``, where checkpoints lie instead.
    """
    names = ('last.ckpt', f'{RESUME}.ckpt')
    folders = Path(root).rglob('checkpoints') if dirpath is None else [Path(dirpath)]
    found = [path for folder in folders for name in names if (path := folder / name).is_file()]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
