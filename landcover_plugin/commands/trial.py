"""A trial of ``landcover tune``: ``landcover fit`` in a process of Ray, with some settings changed."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from ray import tune

from ..errors import LandcoverError
from ..search.space import Space
from ..search.strategy import Strategy
from ..search.trees import merge
from .lightning import LandcoverCLI, quieten


@dataclass(frozen=True)
class Trials:
    """What the trials of a search share; called with what was drawn for one, it trains that one.

    Attributes:
        arguments: Of ``landcover fit``.
        space: What is drawn from.
        strategy: Of the search.
        folder: Of the search; each trial has one in it.
        cwd: Folder to which paths in the arguments relate.
    """

    arguments: tuple[str, ...]
    space: Space
    strategy: Strategy
    folder: Path
    cwd: Path

    def changed(self, drawn: dict[str, Any]) -> dict[str, Any]:
        """The settings of a trial that a fit of one's own would take over, as a tree."""
        own = {
            'trainer': {'max_epochs': self.strategy.epochs},
            'checkpoint': {'monitor': self.strategy.metric, 'mode': self.strategy.mode, 'filename': 'best'},
        }
        return merge(own, self.space.overrides(drawn))

    def folder_of(self, identity: str) -> Path:
        """Where a trial writes."""
        return self.folder / 'trials' / identity

    def train(self, drawn: dict[str, Any]) -> None:
        """Train, or go on where the trial stopped; runs in a process of Ray.

        Raises:
            LandcoverError: As ``landcover fit`` does.
        """
        os.chdir(self.cwd)
        folder = self.folder_of(tune.get_context().get_trial_id())
        folder.mkdir(parents=True, exist_ok=True)
        here = {
            'trainer': {'default_root_dir': str(folder), 'devices': 1, 'enable_progress_bar': False},
            'resume': True,
        }
        settings = folder / 'trial.yaml'
        settings.write_text(yaml.safe_dump(merge(self.changed(drawn), here), sort_keys=False), encoding='utf-8')
        with _log_in(folder / 'log.txt'):
            quieten()
            trained = _TrialCLI(self.strategy.metric, [*self.arguments, '--config', str(settings)])
        _report(trained.trainer, complete=True)


class _TrialCLI(LandcoverCLI):
    """``landcover fit`` that tells Ray its scores.

    Args:
        metric: The score.
        args: Arguments of fit.
    """

    def __init__(self, metric: str, args: list[str]) -> None:
        self._metric = metric
        super().__init__('fit', args)

    def before_fit(self) -> None:
        """Tell the scores after the checkpoints are written, so that a trial can be stopped then."""
        super().before_fit()
        self.trainer.callbacks.append(_Reporter(self._metric))  # type: ignore[attr-defined]


class _Reporter(Checkpoint):
    """Tells Ray the score after each epoch with a validation; as one of the checkpoints, which Lightning calls last.

    Args:
        metric: Its name.
    """

    def __init__(self, metric: str) -> None:
        self._metric, self._validated = metric, False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there is a score.

        Raises:
            LandcoverError: If the validation knows no such metric.
        """
        if trainer.sanity_checking:
            return
        if self._metric not in trainer.callback_metrics:
            known = ', '.join(sorted(name for name in map(str, trainer.callback_metrics) if name.startswith('val')))
            raise LandcoverError(f'the validation has no {self._metric}, which --metric names: there are {known}')
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the score."""
        if self._validated:
            _report(trainer, complete=False)
        self._validated = False


def _report(trainer: Trainer, *, complete: bool) -> None:
    """Tell Ray the epochs behind and the best score so far, which is that of best.ckpt."""
    callback = trainer.checkpoint_callback
    best = callback.best_model_score if isinstance(callback, ModelCheckpoint) else None
    if best is None:
        raise LandcoverError('the training ended without a score: it needs an epoch with a validation')
    done = trainer.current_epoch + (not complete)
    tune.report({'epoch': done, 'score': float(best), 'complete': complete})


@contextmanager
def _log_in(path: Path) -> Iterator[None]:
    """Our messages go to a file."""
    handler = logging.FileHandler(path, encoding='utf-8')
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
    logger = logging.getLogger('landcover_plugin')
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
