"""Shapes of the charts on the report's page, in the units of their view boxes; the template draws them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import to_hex

from ..legend import Legend
from .breakdowns import Ground
from .report_tables import percent

Row = Mapping[str, Any]
Shape = dict[str, Any]

#: Width of plots in a view box, and room for the numbers beside them.
_WIDTH, _LEFT = 300.0, 36.0


def interval_chart(rows: Sequence[Row], legend: Legend) -> list[Shape]:
    """A dot and a line for the IoU of each class, from 0 to 100 along x.

    Examples:
        >>> from landcover_plugin.legend import LEGEND
        >>> row = {'code': 3, 'class': 'forest', 'score': 'iou', 'value': 0.5, 'low': 0.25, 'high': 0.625}
        >>> shape, = interval_chart([row], LEGEND)
        >>> shape['name'], shape['x'], shape['low'], shape['high']
        ('3 forest', 50.0, 25.0, 62.5)
    """
    return [
        {
            'name': f'{row["code"]} {row["class"]}',
            'colour': colour(legend, row['code']),
            'x': 100 * row['value'],
            'low': 100 * row['low'],
            'high': 100 * row['high'],
            'known': row['low'] == row['low'],
            'told': f'{percent(row["value"])} % ({percent(row["low"])} to {percent(row["high"])})',
        }
        for row in rows
        if row['score'] == 'iou'
    ]


def colour(legend: Legend, code: int) -> str:
    """Colour of a class, such as ``#0d520f``."""
    return '#{:02x}{:02x}{:02x}'.format(*legend[code].colour)


def scale_colour(share: float) -> str:
    """Colour of a share in 0..1, the same as in the figures; grey where it is not defined."""
    return (
        '#9a9a9a' if math.isnan(share) else to_hex(colormaps['viridis'](float(share)))
    )  # a whole number would be an index


def block_map(ground: Ground, rows: Sequence[Row]) -> Shape:
    """Blocks of ground north up in a box of at most 320 x 320, those of the test in the colour of their accuracy.

    Only the part of the mosaics that holds blocks is shown.
    """
    scores = {row['block']: row for row in rows}
    extents = [block.extent for block in ground.blocks]
    top, left = min(w.row for w in extents), min(w.col for w in extents)
    height, width = max(w.row_stop for w in extents) - top, max(w.col_stop for w in extents) - left
    factor = 320 / max(height, width)
    shapes = []
    for block in sorted(ground.blocks, key=lambda b: b.split == 'test'):
        corners = [[factor * v for v in (w.col - left, w.row - top, w.width, w.height)] for w in block.windows]
        shape: Shape = {
            'kind': block.split,
            'path': ''.join(f'M{x:.2f} {y:.2f}h{w:.2f}v{h:.2f}h{-w:.2f}z' for x, y, w, h in corners),
        }
        if block.split == 'test':
            row = scores[block.number]
            shape |= {
                'fill': scale_colour(row['overall_accuracy']),
                'told': f'block {block.number}: overall accuracy {percent(row["overall_accuracy"], " %")}, '
                f'mean IoU {percent(row["mean_iou"], " %")}, {row["labelled_pixels"]:,} labelled pixels',
            }
        shapes.append(shape)
    return {'width': round(factor * width, 2), 'height': round(factor * height, 2), 'shapes': shapes}


def reliability_chart(rows: Sequence[Row]) -> list[Shape]:
    """Points of each kind of probabilities on a square of 100 x 100, the origin above."""
    names = list(dict.fromkeys(row['probabilities'] for row in rows))
    return [
        {'name': name, 'points': [_reliability_point(row) for row in rows if row['probabilities'] == name]}
        for name in names
    ]


def _reliability_point(row: Row) -> Shape:
    return {
        'x': 100 * row['mean_confidence'],
        'y': 100 - 100 * row['accuracy'],
        'told': f'confidence {percent(row["mean_confidence"], " %")}, accuracy {percent(row["accuracy"], " %")}, '
        f'{row["labelled_pixels"]:,} pixels',
    }


def curve_chart(rows: Sequence[Row], names: Sequence[str], *, top: float | None = None) -> Shape | None:
    """Curves over the epochs in a box of 300 x 160, or None where there is none.

    Args:
        rows: Curve, epoch and value of each point.
        names: Curves to draw.
        top: Upper end of the axis (default: just above the largest value).
    """
    points = {n: [(row['epoch'], row['value']) for row in rows if row['curve'] == n] for n in names}
    if not any(points.values()):
        return None
    epochs = [e for p in points.values() for e, _ in p]
    first, last = min(epochs), max(epochs)
    highest = top or _round_up(max(v for p in points.values() for _, v in p))

    def place(epoch: float, value: float) -> tuple[float, float]:
        return _LEFT + _WIDTH * (epoch - first) / max(last - first, 1), 160 - 160 * max(value, 0) / highest

    curves = [
        {
            'name': name,
            'line': ' '.join('{:.1f},{:.1f}'.format(*place(*p)) for p in found),
            'points': [dict(zip('xy', place(*p), strict=True), told=f'epoch {p[0]}: {p[1]:.4g}') for p in found],
        }
        for name, found in points.items()
        if found
    ]
    ticks = [{'y': 160 - 40 * i, 'text': f'{highest * i / 4:.3g}'} for i in range(5)]
    return {'curves': curves, 'ticks': ticks, 'first': first, 'last': last}


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, … times a power of ten.

    Examples:
        >>> [_round_up(v) for v in (0.07, 1.0, 2.3)]
        [0.1, 1.0, 5.0]
    """
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return float(next(round(step * power, 12) for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9)))
