"""What tiles look like: stretched bands, classes in the colours of the legend, percentages on a ramp; as PNG."""

from collections.abc import Collection
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from rio_tiler.utils import render

from ..legend import NODATA, Legend
from ..rasters.layers import PERCENT_NODATA
from .tiles import TILE

#: Red, green, blue and opacity of each pixel, shape ``(4, rows, cols)``.
Picture = NDArray[np.uint8]

#: Where map and label differ, and where they agree.
DIFFERS, AGREES = (214, 0, 110, 255), (120, 130, 140, 70)

#: Brightens the middle of a stretched image: land is dark beside roofs and clouds.
_GAMMA = 1.25

#: By layer: perceptually uniform, readable with colour-blindness.
_RAMPS = {'confidence': 'viridis', 'entropy': 'magma', 'probabilities': 'cividis'}


def stretched(image: NDArray[Any], valid: NDArray[np.bool_], limits: NDArray[np.float64]) -> Picture:
    """Three bands ``(3, rows, cols)`` as colours, each spread from its lower to its upper limit.

    Args:
        image: Values.
        valid: Shape ``(rows, cols)``: elsewhere the picture is transparent.
        limits: Shape ``(3, 2)``.

    Examples:
        >>> image = np.array([[[0]], [[50]], [[200]]])
        >>> limits = np.array([[0, 100]] * 3)
        >>> stretched(image, np.array([[True]]), limits)[:, 0, 0].tolist()
        [0, 146, 255, 255]
    """
    low, high = limits.astype(np.float32).T[..., None, None]
    share = ((image - low) / np.maximum(high - low, 1e-9)).clip(0, 1) ** (1 / _GAMMA)
    return np.concatenate([np.where(valid, share * 255, 0), valid[None] * 255]).astype(np.uint8)


def painted(codes: NDArray[np.uint8], legend: Legend, hidden: Collection[int] = ()) -> Picture:
    """Codes ``(rows, cols)`` in the colours of the legend; no data and hidden classes are transparent."""
    table = np.zeros((256, 4), dtype=np.uint8)
    for code in legend.codes:
        table[code] = (*legend[code].colour, 0 if code in hidden else 255)
    table[NODATA] = 0
    return np.moveaxis(table[codes], -1, 0)


def on_ramp(percent: NDArray[np.uint8], kind: str) -> Picture:
    """Percentages ``(rows, cols)`` on the ramp of their layer; 255 is transparent."""
    return np.moveaxis(ramp(kind)[percent], -1, 0)


@cache
def ramp(kind: str) -> NDArray[np.uint8]:
    """Colours of the values 0 to 255 of a layer of percentages, shape ``(256, 4)``."""
    table = np.zeros((256, 4), dtype=np.uint8)
    table[:101] = (mpl.colormaps[_RAMPS[kind]](np.linspace(0, 1, 101)) * 255).round()
    table[PERCENT_NODATA] = 0
    return table


def differing(first: NDArray[np.uint8], second: NDArray[np.uint8], hidden: Collection[int] = ()) -> Picture:
    """Where two rasters of codes differ; transparent where either has no data, or both classes are hidden."""
    show = (first != NODATA) & (second != NODATA)
    if hidden:
        away = list(hidden)
        show &= ~(np.isin(first, away) & np.isin(second, away))
    colours = np.where((first != second)[..., None], *np.array([DIFFERS, AGREES], dtype=np.uint8))
    return np.moveaxis(colours * show[..., None], -1, 0)


def encoded(picture: Picture) -> bytes:
    """A picture as PNG, compressed for speed."""
    return render(picture[:3], picture[3], img_format='PNG', zlevel=1)


@cache
def empty() -> bytes:
    """The PNG of a tile that shows nothing."""
    return encoded(np.zeros((4, TILE, TILE), dtype=np.uint8))
