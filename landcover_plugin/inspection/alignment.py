"""Check of the place of the labels: do their boundaries lie where the image shows edges?"""

import shlex
from collections.abc import Iterator, Sequence

from ..grid import PixelGrid
from .facts import Facts
from .findings import Finding
from .sample import Sample
from .shift import Shift, estimate_shift

#: Distances in pixels from which a shift is a note and a warning.
_NOTEWORTHY, _GRAVE = 0.25, 0.5

#: Fewer windows with edges than this tell nothing.
_FEWEST = 3

#: What labels in ED50 (EPSG:23031) read as ETRS89 or WGS84 are off by in Catalonia, in metres east and south.
_ED50 = (93, 205)


def check_shift(sample: Sample, labels: Sequence[Facts]) -> Iterator[Finding]:
    """Displacement of the labels against the images, where it can be told."""
    shift = estimate_shift(sample.correlations)
    data = {} if shift is None else {'east_px': shift.east, 'south_px': shift.south, 'error_px': shift.error}
    if shift is not None:
        data |= {'contrast': shift.contrast, 'agreement': shift.agreement, 'windows': shift.windows}
    if shift is None or shift.windows < _FEWEST:
        count = 0 if shift is None else shift.windows
        yield Finding(
            'shift',
            'note',
            f'not enough edges to tell whether the labels are shifted ({count} windows with boundaries, '
            f'{_FEWEST} are needed)',
            'lay the labels over the image in QGIS',
            data,
        )
    elif not shift.is_certain:
        yield _unclear(shift, data)
    else:
        yield _certain(shift, sample.grid, labels, data)


def _unclear(shift: Shift, data: dict[str, float]) -> Finding:
    if shift.windows >= 8 and shift.agreement < 0.1:
        return Finding(
            'shift',
            'warning',
            f'boundaries of the labels agree with edges of the images at no displacement ({shift.windows} '
            'windows searched): labels of other ground, mirrored, or off by more than that',
            'lay the labels over the image in QGIS',
            data,
        )
    return Finding(
        'shift',
        'note',
        f'edges are too faint to tell whether the labels are shifted ({shift.windows} windows, of which '
        f'{shift.agreement:.0%} agree)',
        'lay the labels over the image in QGIS',
        data,
    )


def _certain(shift: Shift, grid: PixelGrid, labels: Sequence[Facts], data: dict[str, float]) -> Finding:
    where = f'{_towards(shift, grid)} (± {max(shift.error, 0.01):.2f} px, {shift.windows} windows)'
    shifted = shift.length > 2 * shift.error
    if shift.length < _NOTEWORTHY or not shifted:
        told = f'to {shift.length:.2f} px (± {max(shift.error, 0.01):.2f} px, {shift.windows} windows)'
        return Finding('shift', 'ok', f'labels lie on image edges {told}', data=data)
    if shift.length < _GRAVE:
        return Finding('shift', 'note', f'label boundaries lie {where} off image edges', data=data)
    return Finding(
        'shift',
        'warning',
        f'labels lie {where} of what the images show: at every border pixels learn the wrong '
        f'class{_explanation(shift, grid)}',
        _move(shift, grid, labels),
        data,
    )


def _towards(shift: Shift, grid: PixelGrid) -> str:
    east = f'{abs(shift.east):.2f} px {"east" if shift.east > 0 else "west"}'
    south = f'{abs(shift.south):.2f} px {"south" if shift.south > 0 else "north"}'
    metres = '' if grid.crs.is_geographic else f' = {_metres(shift, grid)}'
    return f'{east}, {south}{metres}'


def _metres(shift: Shift, grid: PixelGrid) -> str:
    return f'{abs(shift.east) * grid.res[0]:.0f} and {abs(shift.south) * grid.res[1]:.0f} m'


def _explanation(shift: Shift, grid: PixelGrid) -> str:
    """The usual cause of a shift of this size and direction, if there is one."""
    east, south = shift.east * grid.res[0], shift.south * grid.res[1]
    if any(max(abs(sign * east - _ED50[0]), abs(sign * south - _ED50[1])) < 15 for sign in (1, -1)):
        return '; that is ED50 (EPSG:23031) taken for ETRS89 (EPSG:25831) or the reverse'
    if max(abs(abs(shift.east) - 0.5), abs(abs(shift.south) - 0.5)) < 0.15:
        return '; half a pixel both ways: pixel centres taken for corners'
    return ''


def _move(shift: Shift, grid: PixelGrid, labels: Sequence[Facts]) -> str:
    """The command that moves the labels back."""
    facts = labels[0]
    moves = (-shift.east * grid.res[0], shift.south * grid.res[1])
    dx, dy = (round(move / res) * res for move, res in zip(moves, facts.grid.res, strict=True))  # stays on its pixels
    if dx == dy == 0:
        return 'labels this coarse cannot be moved by so little: make them from finer ones (landcover prepare)'
    if facts.grid.crs != grid.crs and facts.grid.crs.is_geographic != grid.crs.is_geographic:
        return 'shift the labels after a look in QGIS'
    xmin, ymin, xmax, ymax = facts.grid.bounds()
    corners = ' '.join(f'{v:.10g}' for v in (xmin + dx, ymax + dy, xmax + dx, ymin + dy))
    others = ', and the other label rasters alike' if len(labels) > 1 else ''
    return f'gdal_edit.py -a_ullr {corners} {shlex.quote(facts.path)}  # after a look in QGIS{others}'
