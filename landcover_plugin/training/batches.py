"""From samples to batches."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchgeo.datasets.utils import Sample

from ..legend import NODATA
from .augmentation import Batch


def pad_and_stack(samples: Sequence[Sample], size: int = 1) -> Batch:
    """Stack samples into a batch; smaller ones are padded right and below to the largest.

    Padding is what was not measured: 0 in images, no data in masks, False in validity.

    Args:
        samples: Dictionaries with ``image`` ``(C, H, W)``, ``valid`` ``(H, W)`` and maybe ``mask`` ``(H, W)``.
        size: Pad to this height and width at least, so that what is predicted does not depend on the batch.
    """
    height = max(size, *(s['image'].shape[-2] for s in samples))
    width = max(size, *(s['image'].shape[-1] for s in samples))
    batch: Batch = {}
    for key in ('image', 'valid', 'mask'):
        if key in samples[0]:
            batch[key] = torch.stack([_pad(s[key], height, width) for s in samples])
    return batch


def _pad(values: Tensor, height: int, width: int) -> Tensor:
    return F.pad(values, (0, width - values.shape[-1], 0, height - values.shape[-2]), value=NODATA)
