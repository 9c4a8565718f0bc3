"""Checks of the layout of files: what a random patch costs to read."""

import statistics
import time
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import LandcoverError
from ..grid import PixelWindow
from ..rasters.landcover import LabelRasters
from ..rasters.mosaics import Mosaics
from .facts import Facts
from .findings import Finding, Level

#: Decoded bytes for each byte used from which reading is costly.
_COSTLY = 8.0

#: Rasters that together are smaller than this are read fast enough in any layout.
_SMALL = 256e6


def decoded_per_used(facts: Facts, patch: int) -> float:
    """Bytes that are decoded for each byte that a random square patch uses, on average over its places.

    Examples:
        >>> from affine import Affine
        >>> from rasterio.crs import CRS
        >>> from landcover_plugin.grid import PixelGrid
        >>> grid = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 0, 0, -10, 0), 30000, 30000)
        >>> def tiles(rows, cols):
        ...     return Facts('', grid, 'GTiff', 'uint8', 1, (rows, cols), 'lzw', 'band', 0, (None,), (), 0)
        >>> round(decoded_per_used(tiles(256, 256), 256), 1), round(decoded_per_used(tiles(1, 30000), 256), 1)
        (4.0, 117.2)
    """
    ratio = 1.0
    for block, side in zip(facts.block, (facts.grid.height, facts.grid.width), strict=True):
        edge = min(patch, side)
        ratio *= min((edge + block - 1) / block * block, -(-side // block) * block) / edge
    return ratio


def window_cost(facts: Facts, pixels: int) -> float:
    """Bytes that are decoded for a square window of this edge."""
    edge = [min(pixels, side) for side in (facts.grid.height, facts.grid.width)]
    return decoded_per_used(facts, pixels) * edge[0] * edge[1] * facts.pixel_bytes


def check_layout(
    images: Sequence[Facts], labels: Sequence[Facts], patch_size: int, factor: int, bands: int, took: float | None
) -> Iterator[Finding]:
    """What a patch decodes of the costliest image and the costliest label.

    Args:
        images: Mosaics.
        labels: Label rasters.
        patch_size: Edge of a patch in pixels of the images.
        factor: Label pixels along one of the images.
        bands: Bands that are used; a pixel-interleaved file decodes the others too.
        took: Measured milliseconds for image and label of a patch.
    """
    small = sum(f.raw_bytes for f in (*images, *labels)) < _SMALL
    if images:
        facts = max(images, key=lambda f: decoded_per_used(f, patch_size))
        unused = facts.bands / bands if facts.interleave == 'pixel' else 1
        yield _of_kind('mosaics', facts, decoded_per_used(facts, patch_size) * unused, patch_size, small)
    if labels:
        facts = max(labels, key=lambda f: decoded_per_used(f, patch_size * factor))
        yield _of_kind('labels', facts, decoded_per_used(facts, patch_size * factor), patch_size, small)
    if took is not None:
        sentence = f'a patch took {took:.1f} ms to read: {1000 / took:,.0f} patches/s'
        yield Finding('layout', 'ok', sentence, data={'ms_per_patch': took})


def _of_kind(kind: str, facts: Facts, ratio: float, patch_size: int, small: bool) -> Finding:
    data = {'file': facts.path, 'block': facts.block, 'compression': facts.compression, 'decoded_per_used': ratio}
    if facts.driver == 'VRT':
        return Finding('layout', 'note', f'{kind}: {facts.name} is a VRT: its sources decide what it costs to read')
    is_packed = facts.compression != 'none'
    costly = ratio >= _COSTLY and is_packed
    level: Level = 'note' if costly and small else 'warning' if costly else 'ok'
    order = f', {facts.interleave}-interleaved' if facts.bands > 1 else ''
    sentence = (
        f'{kind}: {facts.compression if is_packed else "uncompressed"} {facts.driver}{order}, {facts.pieces}; a random '
        f'patch of {patch_size} px {"decodes" if is_packed else "reads"} {ratio:.1f} x what it uses'
    )
    return Finding('layout', level, sentence, 'landcover prepare, see storage' if level == 'warning' else '', data)


def time_patches(images: Mosaics, labels: LabelRasters | None, patch_size: int, *, repeats: int = 6) -> float | None:
    """Median milliseconds to read image and label of a patch at a few random places."""
    grid, rng, took = images.grid, np.random.default_rng(0), []
    size = min(patch_size, grid.height, grid.width)
    for i in range(repeats + 1):
        row, col = (int(rng.integers(side - size + 1)) for side in (grid.height, grid.width))
        part = grid.subgrid(PixelWindow(row, col, size, size))
        start = time.perf_counter()
        try:
            images.read(part, i % images.looks)
            if labels is not None:
                labels.read_codes(part)
        except LandcoverError:
            continue
        took.append(1000 * (time.perf_counter() - start))
    return statistics.median(took[1:]) if len(took) > 1 else None  # the first compiles and opens
