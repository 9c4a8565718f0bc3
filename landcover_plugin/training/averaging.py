"""Averaged weights: an exponential moving average of what training passes through, validated and kept in its place."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..errors import LandcoverError


def ramped_decay(decay: float, updates: int) -> float:
    """Decay of a moving average that has seen few weights: young averages forget faster.

    As in TensorFlow's ``ExponentialMovingAverage`` and timm's ``ModelEmaV3``: without it, an average with a decay of
    0.999 is still made of random weights after a thousand steps.

    Args:
        decay: Where it leads to.
        updates: Updates so far.

    Examples:
        >>> [round(ramped_decay(0.99, n), 3) for n in (1, 10, 100, 1000)]
        [0.182, 0.55, 0.918, 0.99]
    """
    return min(decay, (1 + updates) / (10 + updates))


class AveragedWeights(EMAWeightAveraging):
    """Exponential moving average of the weights (Polyak and Juditsky 1992, https://doi.org/10.1137/0330046).

    Lightning's callback, whose average is what validation scores, what checkpoints hold as ``state_dict`` and what
    training ends with; the weights that are trained lie beside it in the checkpoint, so that a run resumes. Here the
    decay rises, see :func:`ramped_decay`, and a test or map of such a checkpoint is not warned about.

    Args:
        decay: Share of the average that a step keeps; 1 / (1 - decay) steps are averaged.

    Raises:
        LandcoverError: If the decay is not between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise LandcoverError(f'ema must lie between 0 and 1, such as 0.999, or be 0 for none, got {decay}')
        super().__init__(decay=decay)
        self.decay = decay
        self._kwargs = {'multi_avg_fn': self._average}

    def _average(self, averaged: Any, current: Any, updates: Tensor | int) -> None:
        """Move the averages towards the weights, in place; counters of batches are counted, not averaged."""
        if torch.is_floating_point(averaged[0]):
            get_ema_multi_avg_fn(ramped_decay(self.decay, int(updates)))(averaged, current, updates)
        else:
            torch._foreach_copy_(averaged, current)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take average and weights from a checkpoint where training goes on; elsewhere the average is the network."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
