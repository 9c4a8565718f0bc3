"""Suspect pixels as rasters, in two passes over the labels in memory that does not grow with them.

The first pass finds the thresholds of the classes, the second counts the confident joint and writes, for each suspect
pixel, its pair of classes, its margin and its confidence.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..legend import LEGEND, NODATA, LandCoverClass, Legend
from ..rasters.outputs import cannot_write
from ..rasters.streaming import in_order
from ..rasters.strips import WRITE_ERRORS
from .class_map import CACHE_BYTES
from .confident import ConfidentJoint, NoiseModel, Thresholds, suspicion
from .cross_fitted import CrossFitted, Judged

#: Classes without no data.
_CLASSES = len(LEGEND.codes)


@dataclass(frozen=True)
class SuspectRasters:
    """Where the rasters of suspect pixels lie, all uint8 on the grid of the images.

    Attributes:
        pairs: Label and confident class as one number, see :func:`pair_of`; 0 where nothing is suspect.
        margin: Percent by which the confident class is more probable than the label.
        confidence: Probability of the confident class in percent.
    """

    pairs: Path
    margin: Path
    confidence: Path

    @classmethod
    def within(cls, folder: Path) -> 'SuspectRasters':
        """Their names in a folder."""
        return cls(*(folder / f'suspect_{name}.tif' for name in ('pairs', 'margin', 'confidence')))

    def remove(self) -> None:
        """Delete them."""
        for path in (self.pairs, self.margin, self.confidence):
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Assessed:
    """What the passes found.

    Attributes:
        noise: Joint distribution of labels and true classes.
        suspects: Suspect pixels by label and confident class, shape ``(classes, classes)``.
        pixels: Labelled pixels that were judged, and why others were not, see
            :class:`~landcover_plugin.evaluation.cross_fitted.Judged`.
    """

    noise: NoiseModel
    suspects: NDArray[np.int64]
    pixels: dict[str, int]


def pair_of(label: Any, predicted: Any) -> Any:
    """One number for two codes, in a byte.

    Examples:
        >>> pair_of(1, 2), pair_of(12, 11), codes_of(pair_of(12, 11))
        (2, 143, (12, 11))
    """
    return (label - 1) * _CLASSES + predicted


def codes_of(pair: Any) -> tuple[Any, Any]:
    """Label and predicted class of a pair, or of an array of them."""
    label, predicted = divmod(pair - 1, _CLASSES)
    return label + 1, predicted + 1


def pair_legend() -> Legend:
    """The pairs as a legend, for what outlines class maps."""
    pairs = [codes_of(n) for n in range(1, _CLASSES**2 + 1)]
    names = [LEGEND[NODATA].name, *(f'{LEGEND[a].name} -> {LEGEND[b].name}' for a, b in pairs)]
    return Legend(tuple(LandCoverClass(n, name, name, (0, 0, 0)) for n, name in enumerate(names)))


def assess(source: CrossFitted, rasters: SuspectRasters, *, progress: bool = True) -> Assessed:
    """Estimate the noise of the labels, and write the suspect pixels.

    Args:
        source: Labels and cross-fitted probabilities.
        rasters: What is written.
        progress: Show progress bars, where stderr is a terminal.

    Raises:
        LandcoverError: If nothing can be judged, or a raster cannot be read or written.
    """
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        thresholds, pixels = _thresholds(source, progress)
        joint, suspects = ConfidentJoint(thresholds), np.zeros(_CLASSES**2 + 1, dtype=np.int64)
        percents = thresholds.percents
        with _written(rasters, source.grid) as (pairs, margin, confidence):
            for tile in in_order(source.read, source.tiles(), desc='suspects', unit='tile', progress=progress):
                where = tile.labels != NODATA
                labels, values = tile.labels[where], tile.percents[:, where]
                found = suspicion(labels, values, percents)
                joint.add(labels, found.confident)
                suspect = found.margin > 0
                pair = np.where(suspect, pair_of(labels, found.confident), 0).astype(np.uint8)
                suspects += np.bincount(pair, minlength=len(suspects))
                own = values[np.maximum(found.confident, 1).astype(np.intp) - 1, np.arange(labels.size)]
                _write(pairs, tile, where, pair)
                _write(margin, tile, where, found.margin)
                _write(confidence, tile, where, np.where(suspect, own, 0).astype(np.uint8))
    return Assessed(joint.finish(), suspects[1:].reshape(_CLASSES, _CLASSES), pixels)


def _thresholds(source: CrossFitted, progress: bool) -> tuple[Thresholds, dict[str, int]]:
    thresholds, pixels = Thresholds(_CLASSES), dict.fromkeys(('judged', 'mixed', 'beyond', 'unlearned'), 0)
    for tile in in_order(source.read, source.tiles(), desc='thresholds', unit='tile', progress=progress):
        where = tile.labels != NODATA
        thresholds.add(tile.labels[where], tile.percents[:, where])
        for name, count in tile.pixels.items():
            pixels[name] += count
    if not pixels['judged']:
        raise LandcoverError(
            f'no labelled pixel can be judged: {pixels["mixed"]:,} are mixed, {pixels["beyond"]:,} were not held out '
            f'or not measured, {pixels["unlearned"]:,} are of classes that no network has learned; give more ground, '
            'or lower --min-purity'
        )
    return thresholds, pixels


@contextmanager
def _written(rasters: SuspectRasters, grid: PixelGrid) -> Iterator[list[Any]]:
    """The rasters, open for writing; tiles that are never written stay 0 and take no room."""
    options: dict[str, Any] = {'tiled': True, 'blockxsize': 512, 'blockysize': 512, 'compress': 'deflate', 'zlevel': 1}
    with ExitStack() as stack:
        try:
            yield [
                stack.enter_context(
                    rasterio.open(
                        path, 'w', driver='GTiff', height=grid.height, width=grid.width, count=1, dtype='uint8',
                        crs=grid.crs, transform=grid.transform, sparse_ok=True, bigtiff='if_safer', **options,
                    )
                )
                for path in (rasters.pairs, rasters.margin, rasters.confidence)
            ]  # fmt: skip
            stack.close()  # writes what GDAL still holds
        except WRITE_ERRORS as e:
            raise cannot_write(rasters.pairs, e) from e


def _write(dst: Any, tile: Judged, where: NDArray[np.bool_], values: NDArray[np.uint8]) -> None:
    if values.any():
        layer = np.zeros(where.shape, dtype=np.uint8)
        layer[where] = values
        dst.write(layer, 1, window=tile.window.ranges)
