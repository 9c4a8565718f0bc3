"""Networks that are divided among GPUs (FSDP): what goes together with it."""

from typing import Any

import torch

from ..errors import LandcoverError


def check_division(strategy: Any, *, ema: bool) -> None:
    """See whether a network can be divided as a strategy asks for.

    Args:
        strategy: ``trainer.strategy`` as parsed: a name, or a class with its settings.
        ema: Whether averaged weights are kept.

    Raises:
        LandcoverError: If it divides the network and there is no GPU, or other settings need the weights whole.

    Examples:
        >>> check_division('ddp', ema=True)
    """
    name = strategy if isinstance(strategy, str) else str(getattr(strategy, 'class_path', ''))
    if not name.rpartition('.')[2].lower().startswith('fsdp'):
        return
    settings = getattr(strategy, 'init_args', None)
    if settings is not None and settings.get('state_dict_type', 'full') != 'full':
        raise LandcoverError(
            'checkpoints are one file, which test and predict read on one device: give the strategy '
            'state_dict_type: full'
        )
    if ema:
        raise LandcoverError(f'ema averages whole weights, {name} divides them: drop --model.ema, or take ddp')
    if not torch.cuda.is_available():
        raise LandcoverError(
            f'--trainer.strategy {name} divides the network among GPUs, and torch finds none here: on CPUs, '
            '--trainer.strategy ddp trains with several processes'
        )
