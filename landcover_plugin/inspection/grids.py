"""Checks of grids: one for the mosaics, one for the labels, and how these lie on those."""

import itertools
import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rasterio.warp import transform_bounds

from ..grid import PixelGrid
from ..rasters.labels import whole_factor
from ..rasters.mosaics import month
from ..rasters.reading import same_ground
from .facts import Facts
from .findings import Finding

#: Pixel size of the mosaics that models and defaults are made for, in metres.
GSD = 10


def common_part(files: Sequence[Facts]) -> tuple[list[Facts], list[Facts]]:
    """Files of one grid, those that cover the most, and the files that lie on other grids."""
    groups: list[list[Facts]] = []
    for facts in files:
        for group in groups:
            first = group[0].grid
            if same_ground(facts.grid.crs, first.crs, facts.grid.bounds()) and first.aligned_with(facts.grid):
                group.append(facts)
                break
        else:
            groups.append([facts])
    groups.sort(key=lambda g: -sum(f.grid.height * f.grid.width for f in g))
    return groups[0] if groups else [], list(itertools.chain(*groups[1:]))


def check_one_grid(kept: Sequence[Facts], others: Sequence[Facts]) -> Iterator[Finding]:
    """An error for each file that does not lie on the grid of the rest, with the command that moves it there."""
    for facts in others:
        grid = kept[0].grid
        bounds = ' '.join(f'{v:.10g}' for v in grid.bounds())
        out = Path(facts.path).with_name(f'warped_{facts.name}')
        crs = _crs(grid)
        yield Finding(
            'grid',
            'error',
            f'{facts.name} ({describe(facts.grid)}) does not lie on the grid of {kept[0].name} ({describe(grid)}); '
            'files of one kind must share CRS, pixel size and pixel edges',
            f'gdalwarp -t_srs {crs} -te {bounds} -ts {grid.width} {grid.height} -r '
            f'{"bilinear" if facts.bands > 1 else "near"} {shlex.quote(facts.path)} {shlex.quote(str(out))}  '
            f'# then put it in the place of {facts.name}',
            {'file': facts.path, 'reference': kept[0].path},
        )


def describe(grid: PixelGrid) -> str:
    """CRS, pixel size and the phase of the pixel edges of a grid in a few words."""
    x, y = (v % r for v, r in zip(grid.origin, grid.res, strict=True))
    phase = '' if min(x, grid.res[0] - x) + min(y, grid.res[1] - y) < 1e-3 else f', edges at {x:.6g}, {y:.6g}'
    return f'{_crs(grid)}, {_number(grid.res[0])} x {_number(grid.res[1])}{phase}'


def _crs(grid: PixelGrid) -> str:
    code = grid.crs.to_epsg()
    return f'EPSG:{code}' if code else str(grid.crs.to_wkt()).split('"')[1]


def _number(value: float) -> str:
    return f'{value:.6g}'


def check_image_grid(grid: PixelGrid) -> Iterator[Finding]:
    """Whether the mosaics have pixels of 10 m in a metric CRS."""
    data = {'crs': _crs(grid), 'res': grid.res, 'shape': (grid.height, grid.width), 'bounds': grid.bounds()}
    xres, yres = grid.res
    if grid.crs.is_geographic:
        yield Finding(
            'grid',
            'warning',
            f'the mosaics lie in degrees ({_crs(grid)}): pixels are not square on the ground',
            'gdalwarp -t_srs EPSG:32631 -tr 10 10 -r bilinear IN OUT',
            data,
        )
    elif not math.isclose(xres, GSD) or not math.isclose(yres, GSD):
        yield Finding(
            'grid',
            'note',
            f'pixels of {_number(xres)} x {_number(yres)} units, not {GSD} m: fine for training, but a model knows one '
            'pixel size and maps only rasters that share it',
            data=data,
        )
    km = [n * r / 1000 for n, r in zip((grid.width, grid.height), grid.res, strict=True)]
    extent = '' if grid.crs.is_geographic else f', {km[0]:,.1f} x {km[1]:,.1f} km'
    yield Finding(
        'grid',
        'ok',
        f'mosaics: {grid.width:,} x {grid.height:,} px of {_size(grid)} in {_crs(grid)}{extent}',
        data=data,
    )


def _size(grid: PixelGrid) -> str:
    """Edge of a pixel with its unit."""
    unit = '°' if grid.crs.is_geographic else ' m' if math.isclose(grid.crs.linear_units_factor[1], 1) else ' units'
    return f'{_number(grid.res[0])}{unit}'


def check_label_grid(images: PixelGrid, labels: PixelGrid) -> Iterator[Finding]:
    """How the label pixels lie in those of the mosaics, and how much of the ground they share."""
    data = {'crs': _crs(labels), 'res': labels.res, 'shape': (labels.height, labels.width)}
    described = f'labels: {labels.width:,} x {labels.height:,} px of {_size(labels)} in {_crs(labels)}'
    factor = whole_factor(labels, images)
    if factor:
        yield Finding('grid', 'ok', f'{described}, {factor} x {factor} in a pixel', data=data)
    elif not same_ground(labels.crs, images.crs, images.bounds()):
        yield Finding(
            'grid',
            'warning',
            f'{described}, another CRS than that of the mosaics ({_crs(images)}): every patch is warped anew, at '
            'about a sixth of the speed',
            'landcover prepare warps them once',
            data,
        )
    elif labels.res[0] > images.res[0] * 1.001:
        yield Finding(
            'grid',
            'warning',
            f'{described}: coarser than the mosaics, so borders of classes are off by pixels',
            'use labels of at most the pixel size of the mosaics',
            data,
        )
    else:
        yield Finding(
            'grid',
            'warning',
            f'{described}: {_mismatch(images, labels)}, so every patch is warped anew, at about a sixth of the speed',
            'landcover prepare warps them once',
            data,
        )


def _mismatch(images: PixelGrid, labels: PixelGrid) -> str:
    """Why no whole number of label pixels fills a pixel of the mosaics."""
    along = images.res[0] / labels.res[0]
    if not math.isclose(along, round(along), rel_tol=1e-6):
        return f'{along:.4g} of them lie along a pixel of the mosaics, no whole number'
    col, row = ((a - b) / r % 1 for a, b, r in zip(labels.origin, images.origin, labels.res, strict=True))
    return f'pixel edges do not meet those of the mosaics (off by {col:.2g} and {row:.2g} of a label pixel)'


def check_overlap(images: PixelGrid, labels: PixelGrid) -> Iterator[Finding]:
    """Whether labels and mosaics show the same ground, by their extents."""
    share = overlap_share(images, labels)
    place = f'mosaics cover {_place(images)}, labels {_place(labels)}'
    if share == 0:
        yield Finding(
            'overlap',
            'error',
            f'labels and mosaics share no ground: {place}',
            'check the CRS of each (gdalinfo, or layer properties in QGIS), or name the folder with both of one region',
            {'share': share},
        )
    elif share < 0.5:
        yield Finding(
            'overlap',
            'warning',
            f'only {share:.0%} of the ground of the mosaics lies within the labels: {place}',
            'check the CRS and extent of each',
            {'share': share},
        )


def overlap_share(images: PixelGrid, labels: PixelGrid) -> float:
    """Share of the extent of the images that lies in that of the labels."""
    xmin, ymin, xmax, ymax = images.bounds()
    bounds = labels.bounds()
    if not same_ground(labels.crs, images.crs, images.bounds()):
        bounds = transform_bounds(labels.crs, images.crs, *bounds)
    width = min(xmax, bounds[2]) - max(xmin, bounds[0])
    height = min(ymax, bounds[3]) - max(ymin, bounds[1])
    return max(width, 0) * max(height, 0) / ((xmax - xmin) * (ymax - ymin))


def _place(grid: PixelGrid) -> str:
    return '[' + ', '.join(f'{v:.10g}' for v in grid.bounds()) + f'] in {_crs(grid)}'


def check_duplicates(images: Sequence[Facts]) -> Iterator[Finding]:
    """Files of one month that show the same ground: the first in order of names wins where both measured."""
    for a, b in itertools.combinations(images, 2):
        share = overlap_share(a.grid, b.grid)
        if month(a.path) == month(b.path) and share > 0:
            yield Finding(
                'overlap',
                'warning' if share > 0.5 else 'note',
                f'{a.name} and {b.name} are of one month and share {share:.0%} of the ground of the first, which wins '
                'where it is measured',
                f'take {b.name} away if it is a copy' if share > 0.5 else '',
                {'files': [a.path, b.path], 'share': share},
            )
