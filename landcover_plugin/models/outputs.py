"""From logits to classes: the one place that masks the channel of no data."""

import torch
from torch import Tensor

from ..legend import NODATA


def class_probabilities(logits: Tensor) -> Tensor:
    """Softmax over the real classes; no data, which no network can predict, gets probability 0.

    Args:
        logits: Shape ``(B, num_classes, H, W)``.

    Returns:
        Same shape, float32, adding up to 1 over channels.

    Examples:
        >>> class_probabilities(torch.tensor([9.0, 0.0, 0.0]).reshape(1, 3, 1, 1)).flatten().tolist()
        [0.0, 0.5, 0.5]
    """
    masked = logits.float().clone()
    masked[:, NODATA] = -torch.inf
    return masked.softmax(dim=1)


def confidence(logits: Tensor) -> Tensor:
    """Probability of the most likely class, the largest of :func:`class_probabilities`, without the others.

    Args:
        logits: Shape ``(B, num_classes, H, W)``.

    Returns:
        Shape ``(B, H, W)``, float32.

    Examples:
        >>> confidence(torch.tensor([9.0, 0.0, 0.0]).reshape(1, 3, 1, 1)).item()
        0.5
    """
    real = logits[:, NODATA + 1 :].float()
    return (real.amax(dim=1) - real.logsumexp(dim=1)).exp()


def predicted_codes(logits: Tensor) -> Tensor:
    """Most likely class code of each pixel, never no data.

    Args:
        logits: Shape ``(B, num_classes, H, W)``.

    Returns:
        Shape ``(B, H, W)``, int64.
    """
    return logits[:, NODATA + 1 :].argmax(dim=1) + NODATA + 1
