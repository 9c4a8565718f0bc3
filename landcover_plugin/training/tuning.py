"""How a pretrained network is tuned: learning rates by part, and an encoder that joins in later."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import LandcoverError

#: Pixels of the square on which it is seen what an encoder's features depend on.
_TRIAL = 64


def parameter_groups(
    network: nn.Module, lr: float, encoder_lr_factor: float = 1, weight_decay: float = 0
) -> list[dict[str, Any]]:
    """What is to be trained, in the groups that an optimiser takes: decoder and head first, then the encoder.

    Weight decay pulls the weights of convolutions and linear maps only: norms and biases set scales that it would
    work against (Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 5.3), and so would positions.

    Args:
        network: With its encoder as ``encoder``.
        lr: Learning rate of decoder and head.
        encoder_lr_factor: Learning rate of the encoder, as a share of it.
        weight_decay: Of the weights.

    Returns:
        Groups with ``name``, ``params``, ``lr`` and ``weight_decay``; empty ones are left out.

    Raises:
        LandcoverError: If the factor is not above 0.
    """
    if not 0 < encoder_lr_factor < math.inf:
        raise LandcoverError(
            f'encoder_lr_factor must be above 0, got {encoder_lr_factor}; --model.freeze_backbone true keeps the '
            'encoder as it is'
        )
    encoder = {id(p) for p in network.encoder.parameters()}  # type: ignore[union-attr]
    groups: dict[str, dict[str, Any]] = {
        f'{part}{suffix}': {'name': f'{part}{suffix}', 'params': [], 'lr': rate, 'weight_decay': decay}
        for part, rate in (('decoder', lr), ('encoder', lr * encoder_lr_factor))
        for suffix, decay in (('', weight_decay), (' without decay', 0.0))
    }
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            part = 'encoder' if id(parameter) in encoder else 'decoder'
            suffix = '' if parameter.ndim > 1 and not _is_offset(name) else ' without decay'
            groups[f'{part}{suffix}']['params'].append(parameter)
    return [group for group in groups.values() if group['params']]


def _is_offset(name: str) -> bool:
    """Whether a parameter of several dimensions is no weight: scales of attention, tables and tokens of positions."""
    return name.rpartition('.')[2] in ('logit_scale', 'pos_embed', 'cls_token', 'relative_position_bias_table')


def encoder_stages(encoder: nn.Module, in_channels: int) -> list[list[nn.Parameter]]:
    """The trained parameters of an encoder by stages, from the image inwards.

    A stage is what a feature depends on and the finer ones do not. Encoders that stand side by side are staged
    together, from the deepest feature on. Parameters that no feature depends on come with the last stage.

    Args:
        encoder: From images to features.
        in_channels: Channels of the image.

    Raises:
        LandcoverError: If all of the encoder is frozen.
    """
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    device = next(encoder.parameters()).device
    with torch.enable_grad():
        features = encoder(torch.zeros(1, in_channels, _TRIAL, _TRIAL, device=device))
    for module, mode in modes.items():
        module.training = mode
    branches = list(_branches(features))
    if not branches:
        raise LandcoverError('nothing of the encoder is trained; drop freeze_encoder_epochs or freeze_backbone')
    depth = max(len(branch) for branch in branches)
    stages, left = [], [p for p in encoder.parameters() if p.requires_grad]
    for level in range(-depth, 0):
        reached = set().union(*(_reached(branch[level]) for branch in branches if -level <= len(branch)))
        stage = [p for p in left if id(p) in reached]
        left = [p for p in left if id(p) not in reached]
        if stage:
            stages.append(stage)
    stages[-1] += left
    return stages


def _branches(features: Any) -> Iterator[list[Tensor]]:
    """The feature maps of each encoder, finest first, that depend on its parameters."""
    if maps := [f for f in features if isinstance(f, Tensor) and f.ndim == 4 and f.grad_fn is not None]:
        yield maps
    for nested in features:
        if isinstance(nested, list | tuple):
            yield from _branches(nested)


def _reached(feature: Tensor) -> set[int]:
    """Identities of the parameters that a feature depends on."""
    ahead, seen = [feature.grad_fn], {feature.grad_fn}
    while ahead:
        node = ahead.pop()
        following = {n for n, _ in node.next_functions if n is not None} - seen  # type: ignore[union-attr]
        seen |= following
        ahead += following
    return {id(node.variable) for node in seen if node is not None and hasattr(node, 'variable')}


def frozen_stages(epoch: int, stages: int, *, epochs: int, unfreeze_every: int = 0) -> int:
    """How many stages of the encoder, from the image on, are frozen in an epoch.

    Args:
        epoch: Epochs that are over.
        stages: Stages of the encoder.
        epochs: Epochs in which all of it is frozen.
        unfreeze_every: Epochs from one stage to the next, the last first (Howard and Ruder 2018,
            https://arxiv.org/abs/1801.06146); 0 sets all of them free at once.

    Examples:
        >>> [frozen_stages(epoch, 4, epochs=2) for epoch in range(4)]
        [4, 4, 0, 0]
        >>> [frozen_stages(epoch, 4, epochs=1, unfreeze_every=2) for epoch in range(9)]
        [4, 3, 3, 2, 2, 1, 1, 0, 0]
    """
    if epoch < epochs:
        return stages
    return max(stages - 1 - (epoch - epochs) // unfreeze_every, 0) if unfreeze_every else 0


class FreezeEncoder(Callback):
    """Keeps the encoder as it is for the first epochs, with the statistics of its batch norms.

    What is frozen follows from the epoch alone, so that a training resumes anywhere; and all parameters are with the
    optimiser from the start, so that schedules see the same groups throughout. (Lightning's ``BaseFinetuning`` adds
    groups later, leaves out parameters that are equal to others such as biases of 0, and after resuming leaves frozen
    what was free.)

    Args:
        epochs: Epochs in which all of the encoder is frozen.
        unfreeze_every: Epochs from one stage to the next, see :func:`frozen_stages`.

    Raises:
        LandcoverError: If a number is negative.
    """

    def __init__(self, epochs: int, unfreeze_every: int = 0) -> None:
        for name, value in (('freeze_encoder_epochs', epochs), ('unfreeze_every', unfreeze_every)):
            if value < 0:
                raise LandcoverError(f'{name} is a number of epochs, 0 or more, got {value}')
        self.epochs = epochs
        self.unfreeze_every = unfreeze_every
        self.stages: list[list[nn.Parameter]] = []
        self._frozen: list[nn.Parameter] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the stages, and freeze: training may begin in the middle of an epoch."""
        network: Any = pl_module.model
        self.stages = encoder_stages(network.encoder, pl_module.hparams['in_channels'])
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze what the epoch says."""
        network: Any = pl_module.model
        count = frozen_stages(
            trainer.current_epoch, len(self.stages), epochs=self.epochs, unfreeze_every=self.unfreeze_every
        )
        self._frozen = [p for stage in self.stages[:count] for p in stage]
        free = [p for stage in self.stages[count:] for p in stage]
        if trainer.world_size == 1:  # spares the gradients, which several processes count on
            for parameter in self._frozen:
                parameter.requires_grad_(False)
            for parameter in free:
                parameter.requires_grad_(True)
        _hold_statistics(network.encoder, frozen={id(p) for p in self._frozen}, free={id(p) for p in free})

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Forget the gradients of what is frozen, before they are clipped: without, an optimiser changes nothing."""
        for parameter in self._frozen:
            parameter.grad = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave all that was trainable trainable."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []


def _hold_statistics(encoder: nn.Module, *, frozen: set[int], free: set[int]) -> None:
    """Batch norms whose weights are frozen use their statistics as they are, those whose weights are free gather."""
    for module in encoder.modules():
        if isinstance(module, _BatchNorm) and id(module.weight) in frozen | free:
            module.train(id(module.weight) in free)
