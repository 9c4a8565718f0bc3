"""What is kept of a training whose loss is no number any more."""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchgeo.datasets.utils import Sample

from ..errors import LandcoverError
from ..rasters.outputs import write_whole
from .resuming import run_folder


def lost(task: LightningModule, loss: Tensor, batch: Sample) -> LandcoverError:
    """Keep the batch for inspection, and say what happened.

    Args:
        task: In training.
        loss: Not finite.
        batch: As the network saw it: normalised and augmented.

    Returns:
        The error to raise.
    """
    trainer = task.trainer
    path = run_folder(trainer) / f'not_finite_step{trainer.global_step}_rank{trainer.global_rank}.pt'
    tensors = {key: value.detach().cpu() for key, value in batch.items() if isinstance(value, Tensor)}
    weights = [name for name, weight in task.named_parameters() if not torch.isfinite(weight).all()]
    try:
        write_whole(path, lambda staging: torch.save(tensors, staging))
        kept = f'its batch is kept in {path} (torch.load)'
    except (OSError, RuntimeError) as error:
        kept = f'its batch could not be kept ({error})'
    images = tensors['image'].float()
    cause = (
        'the images hold numbers that are not finite'
        if not torch.isfinite(images).all()
        else f'weights are not finite any more, {weights[0]} first: the steps were too large'
        if weights
        else f'images reach {images.abs().max():.3g} and weights {_largest(task):.3g}'
    )
    return LandcoverError(
        f'the loss of step {trainer.global_step} is {loss.item()}: {cause}; {kept}. Choose a smaller --model.lr, '
        '--trainer.gradient_clip_val 1 or --trainer.precision 32-true, and go on with --resume true'
    )


def _largest(task: LightningModule) -> float:
    return max(float(weight.detach().abs().max()) for weight in task.parameters())
