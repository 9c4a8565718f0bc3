"""From samples to batches."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchgeo.datasets.utils import Sample

from .augmentation import MOVED, Batch


def pad_and_stack(samples: Sequence[Sample] | Sample, size: int = 1) -> Batch:
    """Stack samples into a batch; smaller ones are padded right and below to the largest.

    Padding is what was not measured: 0 in images, no data in masks, False in validity, 0 in purity and shares.
    Types stay as they are: digital numbers become reflectance, and codes int64, on the device.

    Args:
        samples: Dictionaries with ``image`` ``(C, H, W)``, ``valid`` ``(H, W)`` and maybe ``mask`` ``(H, W)``,
            ``purity`` ``(H, W)`` and ``shares`` ``(12, H, W)``; other entries are left out. A batch that was read in
            one piece is passed on.
        size: Pad to this height and width at least, so that what is predicted does not depend on the batch.
    """
    if isinstance(samples, dict):
        return samples
    height = max(size, *(s['image'].shape[-2] for s in samples))
    width = max(size, *(s['image'].shape[-1] for s in samples))
    return {k: _stacked([s[k] for s in samples], height, width) for k in ('image', *MOVED) if k in samples[0]}


def _stacked(tensors: Sequence[Tensor], height: int, width: int) -> Tensor:
    if all(t.shape[-2:] == (height, width) for t in tensors):
        return torch.stack(list(tensors))
    batch = tensors[0].new_zeros((len(tensors), *tensors[0].shape[:-2], height, width))
    for place, values in zip(batch, tensors, strict=True):
        place[..., : values.shape[-2], : values.shape[-1]] = values
    return batch
