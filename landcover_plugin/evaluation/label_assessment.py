"""Estimates from labels on held-out blocks of ground, for want of a probability sample."""

import logging
from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..grid import PixelGrid, PixelWindow
from ..legend import LEGEND, NODATA
from ..rasters.labels import Aggregation, read_labels
from ..rasters.landcover import SourceLegend
from ..rasters.outputs import PathLike
from ..rasters.reading import GDAL_ERRORS
from ..rasters.streaming import in_order
from .bootstrap import BootstrapInterval, block_bootstrap
from .class_map import ClassMap, class_table
from .estimation import Assessment, Estimates
from .zones import pixels_inside, read_polygons

#: Edge of the windows in which labels are read, in pixels of the map.
TILE = 512

WARNING = (
    'warning: these numbers compare the map with labels on the test blocks. They are no estimate for the whole map: '
    'labels are not the truth (their errors enter as errors of the map, or hide them), and blocks are no probability '
    'sample of the ground, so the intervals tell how much scores vary from block to block and nothing more. For areas '
    'that can be published draw a sample with landcover sample and interpret it.'
)

log = logging.getLogger(__name__)


def read_blocks(path: PathLike, grid: PixelGrid, split: str = 'test') -> list[shapely.Geometry]:
    """Polygons of the blocks of one split, in the CRS of a grid.

    Raises:
        LandcoverError: If the file cannot be read, or has no such blocks.
    """
    frame = read_polygons(path, grid.crs)
    if 'split' not in frame.columns:
        raise LandcoverError(f"{path} has no column 'split': name the blocks.gpkg that fit writes beside the run")
    frame = frame[frame['split'].astype(str).str.strip().str.lower() == split]
    if not len(frame):
        raise LandcoverError(f'{path} has no block whose split is {split!r}')
    if 'block' in frame.columns:
        frame = frame.dissolve('block', sort=False)
    return list(frame.geometry)


def block_confusions(
    source: ClassMap,
    labels: PathLike,
    blocks: list[shapely.Geometry],
    *,
    source_legend: SourceLegend = 'auto',
    aggregation: Aggregation = 'mode',
    progress: bool = True,
) -> NDArray[np.int64]:
    """Confusion matrix of each block that holds labelled pixels, reference in rows.

    Args:
        source: The map.
        labels: Label raster, on any grid.
        blocks: Polygons in the CRS of the map.
        source_legend: Values of the labels.
        aggregation: How label pixels become a pixel of the map.
        progress: Show a progress bar, where stderr is a terminal.

    Returns:
        Shape ``(blocks, num_classes, num_classes)``.

    Raises:
        LandcoverError: If a raster cannot be read, or no pixel of the blocks has both a label and a class.
    """
    table, k = class_table(labels, source_legend), LEGEND.num_classes
    jobs = [(number, tile) for number, block in enumerate(blocks) for tile in _tiles(block, source.grid)]

    def work(job: tuple[int, PixelWindow]) -> tuple[int, NDArray[np.int64]]:
        number, tile = job
        inside = pixels_inside(blocks[number], source.grid, tile)
        if not inside.any():
            return number, np.zeros((k, k), dtype=np.int64)
        try:
            truth = read_labels(labels, source.grid.subgrid(tile), table=table, aggregation=aggregation).codes
        except GDAL_ERRORS as e:
            raise LandcoverError(f'{labels} cannot be read ({e})') from e
        shown = source.read(tile)
        pairs = truth[inside].astype(np.int64) * k + shown[inside]
        return number, np.bincount(pairs, minlength=k * k).reshape(k, k)

    found = np.zeros((len(blocks), k, k), dtype=np.int64)
    for number, matrix in in_order(work, jobs, desc='comparing with labels', progress=progress):
        found[number] += matrix
    known = found[:, NODATA + 1 :, NODATA + 1 :].sum((1, 2)) > 0
    if not known.any():
        raise LandcoverError(f'no pixel of the blocks has both a class in {source.path} and a label in {labels}')
    return found[known]


def _tiles(block: shapely.Geometry, grid: PixelGrid) -> Iterator[PixelWindow]:
    box = grid.window(block.bounds).intersection(grid.full)
    for row in range(box.row, box.row_stop, TILE):
        for col in range(box.col, box.col_stop, TILE):
            yield PixelWindow(row, col, min(TILE, box.row_stop - row), min(TILE, box.col_stop - col))


def assess_with_labels(
    confusions: NDArray[np.int64], mapped: NDArray[np.float64], *, level: float = 0.95, seed: int = 0
) -> Assessment:
    """Areas and accuracies as in Olofsson et al. (2014), with the pixels of the blocks in place of a sample.

    Args:
        confusions: From :func:`block_confusions`.
        mapped: Hectares of each code in the map, shape ``(num_classes,)``.
        level: Of the intervals, by :func:`~landcover_plugin.evaluation.bootstrap.block_bootstrap`.
        seed: Of the bootstrap.

    Raises:
        LandcoverError: If there are fewer than two blocks.
    """
    codes = np.array([c for c in LEGEND.codes if mapped[c] > 0 or confusions[:, c].any()])
    inner = confusions[:, NODATA + 1 :, NODATA + 1 :]
    shares = mapped[NODATA + 1 :]
    unseen = codes[(inner.sum((0, 1))[codes - 1] == 0) & (mapped[codes] > 0)]
    if unseen.size:
        log.warning(
            'warning: the blocks hold no labelled pixel that the map shows as %s: their areas stay as mapped',
            ', '.join(LEGEND[int(c)].name for c in unseen),
        )
    found = block_bootstrap(inner, lambda m: _statistics(m, shares), seed=seed, level=level)
    parts = np.split(np.stack(found), [len(shares), 2 * len(shares), 3 * len(shares)], axis=1)
    parts[0] = parts[0] * shares.sum()
    area, users, producers = (_estimates(BootstrapInterval(*part[:, codes - 1])) for part in parts[:3])
    joint = _joint(inner.sum(0), shares)[np.ix_(codes - 1, codes - 1)]
    points = inner.sum(0).T[np.ix_(codes - 1, codes - 1)]
    return Assessment(codes, area, users, producers, _estimates(BootstrapInterval(*parts[3])), joint, points)


def _joint(confusion: NDArray[np.integer], mapped: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hectares of each combination, map codes in rows, shape ``(…, classes, classes)``."""
    by_map = np.swapaxes(confusion, -1, -2).astype(np.float64)
    n = by_map.sum(-1, keepdims=True)
    as_mapped = np.broadcast_to(np.eye(len(mapped)), by_map.shape)
    return mapped[:, None] * np.divide(by_map, n, out=as_mapped.copy(), where=n > 0)


def _statistics(confusion: NDArray[np.integer], mapped: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of the area, user's and producer's accuracies of the classes, and the overall accuracy: the last axis."""
    joint = _joint(confusion, mapped)
    hits, area = np.diagonal(joint, axis1=-2, axis2=-1), joint.sum(-2)
    seen = np.swapaxes(confusion, -1, -2).sum(-1) > 0
    with np.errstate(divide='ignore', invalid='ignore'):
        users = np.where(seen, hits / joint.sum(-1), np.nan)
        producers = hits / area
    overall = hits.sum(-1, keepdims=True) / mapped.sum()
    return np.concatenate([area / mapped.sum(), users, producers, overall], axis=-1)


def _estimates(found: BootstrapInterval) -> Estimates:
    return Estimates(found.value, np.full(found.value.shape, np.nan), found.low, found.high)
