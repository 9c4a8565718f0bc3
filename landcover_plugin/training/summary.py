"""What a training is and why, in a few lines that are printed before it starts."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint


def describe_fit(model: LightningModule, data: LightningDataModule, trainer: Trainer) -> str:
    """What is trained, on what and how long, each with its reason.

    Args:
        model: The task.
        data: The data module, its rasters open.
        trainer: Set up, not yet run.
    """
    h, s = model.hparams, data.hparams
    lines = {
        'network': _network(model, data),
        'start': _start(model),
        'loss': _loss(h, s),
        'steps': '; '.join(_steps(h, s, trainer)),
        'patches': '; '.join(_patches(s)),
        'scale': _scale(s),
        'end': '; '.join(_end(trainer)),
        'device': '; '.join(_device(h, trainer)),
    }
    return 'training\n  ' + '\n  '.join(f'{name:8}  {text}' for name, text in lines.items())


def _network(model: LightningModule, data: LightningDataModule) -> str:
    h, s = model.hparams, data.hparams
    count = sum(p.numel() for p in model.parameters())
    bands = 'those of data.bands' if s['bands'] else 'all bands of the files'
    looks = {'separate': 'each month is a look of its own', 'stack': 'all months side by side'}[s['seasons']]
    return (
        f'{h["model"]} with {h["backbone"]}, {count / 1e6:.1f} million weights; {h["in_channels"]} channels: {bands}, '
        f'{looks}'
    )


def _start(model: LightningModule) -> str:
    """Where the weights come from, and which of them are trained."""
    h, given = model.hparams, model.hparams.get('weights')
    told = {
        True: 'ImageNet weights of the encoder, filters matched to the bands by name' if h['channels'] else 'ImageNet',
        False: 'random weights, since model.weights is false; ImageNet ones (true) often need less ground',
    }
    parts = [told[bool(given)] if given is None or isinstance(given, bool) else f'weights of {given}']
    total, trained = (sum(p.numel() for p in model.parameters() if p.requires_grad or every) for every in (True, False))
    if trained < total:
        parts.append(f'{trained / 1e6:.2f} million are trained, the others stay')
    if h['freeze_encoder_epochs']:
        parts.append(f'the encoder joins in after {h["freeze_encoder_epochs"]} epochs')
    if h['encoder_lr_factor'] != 1:
        parts.append(f'it learns at {h["encoder_lr_factor"]:g} x the rate of the rest, so as to forget less')
    return '; '.join(parts)


def _loss(h: Any, s: Any) -> str:
    weighting = h['class_weights'] if isinstance(h['class_weights'], str) else 'given'
    reason = {
        ('none', True): f'since patches with rare classes are drawn more often (balance {s["balance"]:g})',
        ('none', False): 'and patches are drawn by area: rare classes count as little as they cover',
        ('given', True): f'and rare classes are drawn more often too (balance {s["balance"]:g})',
        ('given', False): 'as model.class_weights lists them',
    }
    named = ('by the pixels of the training ground', ', and drawn more often too: rare classes gain twice')
    why = reason.get((weighting, s['balance'] > 0), named[0] + named[1] * (s['balance'] > 0))
    purity = {
        'none': 'every labelled pixel counts alike',
        'weight': 'a pixel counts by its purity',
        'soft': 'against the shares of the classes in a pixel',
    }[s['purity']]
    return f'{h["loss"]}, {purity}; class weights: {weighting}, {why}'


def _steps(h: Any, s: Any, trainer: Trainer) -> Iterator[str]:
    rate = {
        'plateau': f'halved when val_loss has not fallen for {h["patience"]} epochs',
        'cosine': f'risen to over {h["warmup"]:.0%} of the steps, then down to 0 with the last epoch',
        'onecycle': f'risen to over {h["warmup"]:.0%} of the steps, then down to 0 with the last epoch',
        'constant': 'all the time',
    }[h['lr_schedule']]
    yield f'{h["optimizer_name"]}, lr {h["lr"]:g} {rate}'
    factors = {
        'batch_size': s['batch_size'],
        'accumulated': trainer.accumulate_grad_batches,
        'processes': trainer.world_size,
    }
    made = ' x '.join(f'{name} {n}' for name, n in factors.items() if n > 1)
    batch = s['batch_size'] * trainer.accumulate_grad_batches * trainer.world_size
    yield f'{batch} patches of {s["patch_sizes"] or s["patch_size"]} px a step' + f' ({made})' * (
        batch > s['batch_size']
    )
    if trainer.gradient_clip_val:
        yield f'gradients clipped at {trainer.gradient_clip_val:g}'
    if h['ema']:
        yield f'averaged weights (decay {h["ema"]:g}) are validated and kept, since they swing less than the last ones'


def _patches(s: Any) -> Iterator[str]:
    yield (
        f'{s["length"]:,} an epoch' if s['length'] else 'an epoch is as many as the training ground holds side by side'
    )
    yield 'flipped, turned, light changed' if s['augment'] else 'not augmented'
    if s['augment'] and s['mix'] != 'none':
        yield f'{s["mix"]} into {s["mix_p"]:.0%} of them'


def _scale(s: Any) -> str:
    taken = (
        'data.mean and data.std' if s['mean'] else 'mean and deviation of the training ground, kept in the checkpoint'
    )
    return f'each band by {taken}; reflectance is (DN + {s["reflectance_offset"]:g}) / {s["reflectance_scale"]:g}'


def _end(trainer: Trainer) -> Iterator[str]:
    if trainer.max_steps > 0:
        yield f'after {trainer.max_steps:,} steps at most'
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        yield f'after {trainer.max_epochs} {"epoch" if trainer.max_epochs == 1 else "epochs"} at most'
    for stop in (c for c in trainer.callbacks if isinstance(c, EarlyStopping)):  # type: ignore[attr-defined]
        yield f'earlier when {stop.monitor} has not improved for {stop.patience}'
    if isinstance(kept := trainer.checkpoint_callback, ModelCheckpoint) and kept.monitor:
        yield f'{kept.filename}.ckpt is that of the {"highest" if kept.mode == "max" else "lowest"} {kept.monitor}'


def _device(h: Any, trainer: Trainer) -> Iterator[str]:
    device, precision = trainer.strategy.root_device, str(trainer.precision)
    on_cpu = device.type == 'cpu'
    missing = on_cpu and not torch.accelerator.is_available()
    yield f'{device}, since torch finds no other' if missing else f'{device}'
    quick = bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if on_cpu and quick and precision == '32-true':
        yield f'{precision}; this processor takes bfloat16 too: --trainer.precision bf16-mixed may be quicker'
    elif on_cpu and not quick and precision.startswith('bf16'):
        yield f'{precision}, which this processor has no instructions for: 32-true may be quicker'
    else:
        yield precision
    if h['channels_last']:
        yield 'channels last'
    if h['compile']:
        yield 'compiled'
