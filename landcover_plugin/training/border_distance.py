"""How far labelled pixels lie from the nearest border between classes."""

import torch
from torch import Tensor

from .strata import border_pixels

#: Distances that part the bins, in pixels: below 1 (the border itself), 1 to below 2, …, 8 and more.
DISTANCE_LIMITS = (1, 2, 4, 8)

#: A square beyond the last limit, with room above it in 16 bits.
_FAR = DISTANCE_LIMITS[-1] ** 2

#: Number of bins.
DISTANCE_BINS = len(DISTANCE_LIMITS) + 1


def border_distance_bins(mask: Tensor) -> Tensor:
    """The bin of each pixel's distance to the nearest border pixel.

    A border pixel has another class among its eight neighbours; no data is no class. The distance runs from centre to
    centre, so it is 0 there: the first bin is the stratum ``border`` of
    :func:`~landcover_plugin.training.strata.strata`. As there, what lies beyond the rim of the patch is not seen, so
    pixels near the rim may be taken for farther ones.

    The squared distance is exact up to the last limit, which is all that the bins need: the nearest in each row first,
    then the lowest parabola along each column (Felzenszwalb and Huttenlocher 2012,
    https://doi.org/10.4086/toc.2012.v008a019), in small integers on the device of the mask.

    Args:
        mask: Codes, shape ``(B, H, W)``.

    Returns:
        Numbers of the bins, shape ``(B, H, W)``, uint8.

    Examples:
        >>> border_distance_bins(torch.tensor([[[3, 3, 3, 7, 7, 7, 7, 7, 7]]])).tolist()
        [[[2, 1, 0, 0, 1, 2, 2, 3, 3]]]
    """
    in_row = _lowest(torch.where(border_pixels(mask), 0, _FAR).to(torch.int16), axis=-1)
    squares = _lowest(in_row, axis=-2)
    bins = torch.zeros_like(squares, dtype=torch.uint8)
    for limit in DISTANCE_LIMITS:
        bins += squares >= limit**2
    return bins


def _lowest(squares: Tensor, axis: int) -> Tensor:
    """The least of each value and its neighbours' along an axis, raised by the square of their distance."""
    lowest = squares.clone()
    size = squares.shape[axis]
    for step in range(1, min(DISTANCE_LIMITS[-1], size)):
        raised = squares + step**2
        for here, there in ((step, 0), (0, step)):
            part = lowest.narrow(axis, here, size - step)
            torch.minimum(part, raised.narrow(axis, there, size - step), out=part)
    return lowest
