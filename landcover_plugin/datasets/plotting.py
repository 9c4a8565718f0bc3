"""Pictures of samples: an image in true colour and class maps in the colours of the legend."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ..legend import LEGEND, Legend


def maps_of(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Mask and prediction of a sample, as far as it holds them, in shape ``(H, W)``."""
    return {key: sample[key].reshape(sample[key].shape[-2:]) for key in ('mask', 'prediction') if key in sample}


def panels(
    pictures: Mapping[str, NDArray[Any]],
    class_maps: Mapping[str, Any],
    *,
    legend: Legend = LEGEND,
    show_titles: bool = True,
    suptitle: str | None = None,
) -> Figure:
    """Pictures and class maps side by side, with a key of the classes that occur.

    Args:
        pictures: Title to an array of shape ``(H, W, 3)`` with values in [0, 1].
        class_maps: Title to codes of shape ``(H, W)``.
        legend: Names and colours.
        show_titles: Write a title above each panel.
        suptitle: Title of the figure.
    """
    maps = {title: np.asarray(codes).astype(np.intp) for title, codes in class_maps.items()}
    drawn = dict(pictures) | {title: legend.palette[codes] for title, codes in maps.items()}
    figure = Figure(figsize=(4 * len(drawn), 4.6 if maps else 4), layout='constrained')
    axes = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axis, (title, picture) in zip(axes, drawn.items(), strict=True):
        axis.imshow(picture, interpolation='nearest')
        axis.axis('off')
        if show_titles:
            axis.set_title(title)
    present = sorted({int(code) for codes in maps.values() for code in np.unique(codes)})
    if present:
        key = [Patch(color='#' + bytes(legend[c].colour).hex(), label=legend[c].name) for c in present]
        figure.legend(handles=key, loc='outside lower center', ncols=4, fontsize='x-small', frameon=False)
    if suptitle is not None:
        figure.suptitle(suptitle)
    return figure
