"""Figures of the report beside the confusion matrices: intervals, distances, blocks, reliability, training curves.

As in :mod:`.figures`, without pyplot.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from ..legend import Legend
from .breakdowns import Breakdowns, Ground
from .report_tables import HEADINGS

Row = Mapping[str, Any]

#: Colours of two curves or kinds of bars, apart in all kinds of colour vision and in grey.
FIRST, SECOND = '#1f5a96', '#d98300'


def report_figures(
    document: Mapping[str, Any], breakdowns: Breakdowns | None, legend: Legend
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each that the document has numbers for."""
    if 'intervals' in document:
        yield 'intervals', plot_intervals(document['intervals']['rows'], legend)
    if 'distances' in document:
        yield 'distances', plot_distances(document['distances'])
    if breakdowns is not None and breakdowns.ground is not None and 'blocks' in document:
        yield 'blocks', plot_blocks(breakdowns.ground, document['blocks'])
    if 'reliability' in document:
        yield 'reliability', plot_reliability(document['reliability'])
    if 'training_curves' in document:
        yield 'training_curves', plot_training_curves(document['training_curves'])


def plot_intervals(rows: Sequence[Row], legend: Legend) -> Figure:
    """Draw the IoU of each class with its limits, in percent."""
    shown = [row for row in rows if row['score'] == 'iou']
    figure, axes = _axes(7.5, 1 + 0.32 * len(shown))
    for y, row in enumerate(shown):
        colour = np.array(legend[row['code']].colour) / 255
        axes.plot([100 * row['low'], 100 * row['high']], [y, y], color='dimgrey', linewidth=1.5)
        axes.plot(100 * row['value'], y, 'o', color=colour, markeredgecolor='black', markersize=8)
    axes.set_yticks(range(len(shown)), [f'{row["code"]} {row["class"]}' for row in shown])
    axes.set(xlim=(0, 100), xlabel='IoU, percent, with 95 % limits by blocks of ground', ylim=(len(shown) - 0.5, -0.5))
    return figure


def plot_distances(rows: Sequence[Row]) -> Figure:
    """Draw accuracy and mean IoU against the distance to the class border."""
    figure, axes = _axes(6, 3.5)
    for offset, key, colour in ((-0.2, 'overall_accuracy', FIRST), (0.2, 'mean_iou', SECOND)):
        heights = [100 * row[key] for row in rows]
        axes.bar(np.arange(len(rows)) + offset, heights, 0.38, color=colour, label=HEADINGS[key])
    axes.set_xticks(range(len(rows)), [distance_name(row) for row in rows])
    axes.set(xlabel='distance to the class border, pixels', ylabel='percent', ylim=(0, 100))
    axes.legend(frameon=False, loc='upper left', bbox_to_anchor=(1, 1))
    return figure


def distance_name(row: Row) -> str:
    """A distance bin in few characters.

    Examples:
        >>> [distance_name(r) for r in ({'from_px': 1, 'below_px': 2}, {'from_px': 8, 'below_px': None})]
        ['1-2', '≥ 8']
    """
    return f'≥ {row["from_px"]}' if row['below_px'] is None else f'{row["from_px"]}-{row["below_px"]}'


def plot_blocks(ground: Ground, rows: Sequence[Row]) -> Figure:
    """Draw the blocks of test ground in the colour of their accuracy, those of the other splits in grey."""
    figure, axes = _axes(7, 5.5)
    accuracy = {row['block']: row['overall_accuracy'] for row in rows}
    corners: dict[str, list[Any]] = {'test': [], 'val': [], 'train': []}
    values = []
    for block in ground.blocks:
        for window in block.windows:
            xmin, ymin, xmax, ymax = ground.grid.bounds(window)
            corners[block.split].append([(xmin, ymin), (xmax, ymin), (xmax, ymax), (xmin, ymax)])
            if block.split == 'test':
                values.append(100 * accuracy[block.number])
    for split, colour in (('train', '0.93'), ('val', '0.82')):
        axes.add_collection(PolyCollection(corners[split], facecolors=colour, edgecolors='none'))
    tested = PolyCollection(corners['test'], cmap='viridis', edgecolors='black', linewidths=0.6)
    tested.set_array(np.ma.masked_invalid(values))
    tested.set_clim(0, 100)
    axes.add_collection(tested)
    axes.set(aspect='equal', xlabel=f'x, {ground.grid.crs}', ylabel='y')
    axes.autoscale_view()
    axes.ticklabel_format(style='plain', useOffset=False)
    axes.tick_params(axis='x', rotation=45)
    label = 'overall accuracy of test blocks, percent; training ground is light, validation ground darker grey'
    figure.colorbar(tested, ax=axes, orientation='horizontal', label=label, shrink=0.8)
    return figure


def plot_reliability(rows: Sequence[Row]) -> Figure:
    """Draw accuracy against confidence; on the diagonal, confidence can be taken at its word."""
    figure, axes = _axes(5.5, 5.6)
    axes.plot([0, 100], [0, 100], color='grey', linestyle='--', linewidth=1)
    for name, colour, marker in zip(
        dict.fromkeys(r['probabilities'] for r in rows), (FIRST, SECOND), 'os', strict=False
    ):
        shown = [row for row in rows if row['probabilities'] == name]
        x, y = ([100 * row[key] for row in shown] for key in ('mean_confidence', 'accuracy'))
        axes.plot(x, y, marker=marker, color=colour, label=name)
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect='equal', xlabel='confidence, percent', ylabel='accuracy, percent')
    figure.legend(frameon=False, loc='outside lower center')
    return figure


def plot_training_curves(rows: Sequence[Row]) -> Figure:
    """Draw losses and scores against the epoch."""
    figure = Figure(figsize=(9, 3.5), layout='constrained')
    panels = figure.subplots(1, 2)
    for axes, names, label in (
        (panels[0], ('train_loss', 'val_loss'), 'loss'),
        (panels[1], ('val_mIoU', 'val_OA'), 'share'),
    ):
        for name, colour in zip(names, (FIRST, SECOND), strict=True):
            points = [(row['epoch'], row['value']) for row in rows if row['curve'] == name]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=name, marker='.' if len(points) < 3 else None)
        axes.set(xlabel='epoch', ylabel=label)
        axes.spines[['top', 'right']].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False)
    panels[1].set_ylim(0, 1)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.subplots()
    axes.spines[['top', 'right']].set_visible(False)
    return figure, axes
