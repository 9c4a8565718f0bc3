"""Check of pyramids: what a decimated read through them would have made of the labels."""

from collections.abc import Iterator, Sequence

import numpy as np
import rasterio
from rasterio.enums import Resampling

from ..grid import PixelWindow
from ..legend import NODATA
from ..rasters.labels import aggregate
from ..rasters.landcover import LabelRasters
from ..rasters.opening import vsi_path
from ..rasters.reading import GDAL_ERRORS, read_window
from .facts import Facts
from .findings import Finding
from .sample import spread_windows

#: Edge of the windows that are compared, in label pixels, and how many there are at most.
_SIZE, _WINDOWS = 1000, 9


def check_pyramids(files: Sequence[Facts], labels: LabelRasters | None, factor: int) -> Iterator[Finding]:
    """A note for each label raster with a pyramid, and one for all images that have one.

    Args:
        files: Images and labels.
        labels: To read codes with; None if they cannot be used.
        factor: Label pixels along a pixel of the images, as near as may be.
    """
    of_labels = [f for f in files if f.overviews and labels is not None and f.path in labels.files]
    of_images = [f for f in files if f.overviews and f not in of_labels]
    for facts in of_labels:
        share = _agreement(facts, labels, factor) if labels is not None and factor > 1 else None
        if share is None:
            compared = ''
        else:
            compared = f'; on a sample, majorities of {factor} x {factor} px read through it are right in {share:.0%}'
        yield Finding(
            'pyramids',
            'note',
            f'{facts.name} has a pyramid ({_factors(facts)}), which GDAL and QGIS use whenever they '
            f'shrink a read, whatever resampling is asked for{compared}',
            'nothing to do here: this tool never reads pyramids; elsewhere open with OVERVIEW_LEVEL=NONE',
            {'file': facts.path, 'factors': facts.overviews, 'agreement': share},
        )
    if of_images:
        yield Finding(
            'pyramids',
            'ok',
            f'{", ".join(f.name for f in of_images)}: pyramids are there and never read',
            data={'files': [f.path for f in of_images]},
        )
    if not of_labels and not of_images:
        yield Finding('pyramids', 'ok', 'no raster has a pyramid, and none is needed')


def _factors(facts: Facts) -> str:
    return (
        f'1:{facts.overviews[0]} to 1:{facts.overviews[-1]}' if len(facts.overviews) > 1 else f'1:{facts.overviews[0]}'
    )


def _agreement(facts: Facts, labels: LabelRasters | None, factor: int) -> float | None:
    """Share of labelled pixels on which a decimated majority through the pyramid equals the exact one."""
    if labels is None:
        return None
    table, size = labels.tables[facts.path], max(_SIZE // factor, 1) * factor
    same = total = 0
    try:
        with rasterio.open(vsi_path(facts.path)) as src:
            for window in spread_windows(facts.grid, size, _WINDOWS):
                rows, cols = window.height // factor, window.width // factor
                cut = PixelWindow(window.row, window.col, rows * factor, cols * factor)
                if cut.is_empty:
                    continue
                exact = aggregate(read_window(facts.path, cut, indexes=[1])[0].astype(np.uint8), table, factor).codes
                shrunk = src.read(1, window=cut.ranges, out_shape=(rows, cols), resampling=Resampling.mode)
                labelled = exact != NODATA
                same += int((table[shrunk.astype(np.uint8)] == exact)[labelled].sum())
                total += int(labelled.sum())
    except GDAL_ERRORS:
        return None
    return same / total if total else None
