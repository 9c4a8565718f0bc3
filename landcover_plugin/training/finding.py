"""Learning rate and batch size, looked for before a training: Lightning's finders, and what they found in words."""

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.tuner import Tuner

from ..machine import free_memory

log = logging.getLogger(__name__)

#: Share of the free memory that a search on the CPU may take: the system kills what takes all.
_SHARE = 0.8


def find_batch_size(trainer: Trainer, model: LightningModule, data: LightningDataModule) -> None:
    """Double the batch until memory is full or an epoch is one batch, and keep the largest that fitted.

    The last doubling is not safe from what a longer training needs besides; on a device that others use, take half.

    Args:
        trainer: Not yet run.
        model: The task.
        data: Its ``batch_size`` is set.
    """
    tuner = Tuner(trainer)
    if trainer.strategy.root_device.type == 'cpu':
        log.info('looking for a batch size on the CPU, up to %.0f%% of the free memory', 100 * _SHARE)
        with limited_memory(_SHARE):
            found = tuner.scale_batch_size(model, datamodule=data, mode='power', max_trials=10)
    else:
        found = tuner.scale_batch_size(model, datamodule=data, mode='power', max_trials=10)
    largest = min(found or data.hparams['batch_size'], len(data.train_dataset))  # type: ignore[attr-defined]
    data.batch_size = data.hparams['batch_size'] = largest  # type: ignore[attr-defined]
    log.info('batch size found: %d', largest)


def find_learning_rate(trainer: Trainer, model: LightningModule, data: LightningDataModule) -> None:
    """Raise the learning rate step by step and take the one at which the loss falls fastest.

    Smith 2017, https://arxiv.org/abs/1506.01186.

    Args:
        trainer: Not yet run.
        model: The task; its ``lr`` is set, or stays where nothing can be said.
        data: What it trains on.
    """
    finder = Tuner(trainer).lr_find(model, datamodule=data)
    found = None if finder is None else finder.suggestion()
    if found is None:
        steps = 0 if finder is None else len(finder.results['lr'])
        log.warning(
            'no learning rate was found in %d steps, lr stays %g: the loss ran away, or the epochs end too soon '
            '(--trainer.max_epochs, --data.length)', steps, model.hparams['lr']
        )  # fmt: skip
    else:
        log.info('learning rate found: %.3g', found)


@contextmanager
def limited_memory(share: float) -> Iterator[None]:
    """Within this, asking for more than a share of the free memory fails, in place of ending the process; on Linux.

    Args:
        share: Of what is free now.
    """
    mapped, free = Path('/proc/self/statm'), free_memory()
    if not (free and mapped.is_file()):
        yield
        return
    used = int(mapped.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + int(share * free)
    resource.setrlimit(resource.RLIMIT_AS, (limit if soft == resource.RLIM_INFINITY else min(soft, limit), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
