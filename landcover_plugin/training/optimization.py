"""Optimisers and schedules of the learning rate, by name."""

from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, ReduceLROnPlateau, SequentialLR

from ..errors import LandcoverError

OptimizerName = Literal['adam', 'adamw', 'sgd']
Schedule = Literal['plateau', 'cosine', 'onecycle', 'constant']

#: Momentum of stochastic gradient descent (Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html).
MOMENTUM = 0.9

#: Learning rate at the start of the warm-up, as a share of the one it leads to.
_COLD = 0.01


def check_rates(lr: float, weight_decay: float) -> None:
    """Refuse numbers with which nothing can be learned.

    Raises:
        LandcoverError: If one is out of range.
    """
    if not lr > 0 or not weight_decay >= 0:
        raise LandcoverError(f'lr must be > 0 and weight_decay >= 0, got {lr} and {weight_decay}')


def make_optimizer(name: OptimizerName, parameters: Iterable[Any], *, lr: float, weight_decay: float) -> Optimizer:
    """An optimiser by name.

    Args:
        name: ``adam``, ``adamw`` (decoupled weight decay) or ``sgd`` (with Nesterov momentum).
        parameters: Parameters, or groups of them.
        lr: Learning rate at the start.
        weight_decay: Of ``adamw`` and ``sgd``; ``adam`` has none, since it would not be what the name says.

    Raises:
        LandcoverError: If the name is none of these, or a number is out of range.
    """
    if name not in get_args(OptimizerName):
        raise LandcoverError(f'optimizer_name must be one of {", ".join(get_args(OptimizerName))}, got {name!r}')
    check_rates(lr, weight_decay)
    makers: dict[str, Callable[[], Optimizer]] = {
        'adam': lambda: Adam(parameters, lr=lr),
        'adamw': lambda: AdamW(parameters, lr=lr, weight_decay=weight_decay),
        'sgd': lambda: SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=MOMENTUM, nesterov=True),
    }
    return makers[name]()


def make_schedule(
    name: Schedule, optimizer: Optimizer, *, steps: int | float, warmup: float, patience: int, monitor: str
) -> LRSchedulerConfigType | None:
    """What Lightning takes as ``lr_scheduler``, or None for a constant learning rate.

    * ``plateau``: halved when ``monitor`` has not become better for ``patience`` epochs.
    * ``cosine``: rises linearly over the warm-up, then falls to 0 along half a cosine (Loshchilov and Hutter 2017,
      https://arxiv.org/abs/1608.03983).
    * ``onecycle``: rises over the warm-up and falls to 0, momentum the other way (Smith and Topin 2018,
      https://arxiv.org/abs/1708.07120).

    Args:
        name: Which of them, or ``constant``.
        optimizer: Whose learning rates are changed; each group keeps its own scale.
        steps: Optimiser steps of the whole training.
        warmup: Share of the steps over which the learning rate rises.
        patience: Epochs.
        monitor: Name of the logged value.

    Raises:
        LandcoverError: If the name is unknown, a number is out of range, or the training has no end.
    """
    if name not in get_args(Schedule):
        raise LandcoverError(f'lr_schedule must be one of {", ".join(get_args(Schedule))}, got {name!r}')
    if not 0 <= warmup < 1:
        raise LandcoverError(f'warmup is a share of the steps in [0, 1), got {warmup}')
    if name == 'constant':
        return None
    if name == 'plateau':
        return {'scheduler': ReduceLROnPlateau(optimizer, factor=0.5, patience=patience), 'monitor': monitor}
    if not 0 < steps < float('inf'):
        raise LandcoverError(f'lr_schedule {name} needs an end of training: set --trainer.max_epochs or max_steps')
    total = int(steps)
    if name == 'onecycle':
        peaks = [group['lr'] for group in optimizer.param_groups]
        shape = OneCycleLR(optimizer, peaks, total_steps=total, pct_start=min(max(warmup, 1 / total), 0.99))
        return {'scheduler': shape, 'interval': 'step'}
    rise = round(warmup * total)
    fall = CosineAnnealingLR(optimizer, T_max=max(total - rise, 1))
    if not rise:
        return {'scheduler': fall, 'interval': 'step'}
    start = LinearLR(optimizer, start_factor=_COLD, total_iters=rise)
    return {'scheduler': SequentialLR(optimizer, [start, fall], milestones=[rise]), 'interval': 'step'}
