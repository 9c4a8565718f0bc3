"""Checks of the labels: their legend, their values, the classes that there are to learn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import LandcoverError
from ..legend import LEGEND, NODATA, UNCERTAIN_PARENTS
from ..rasters.landcover import LabelRasters, sample_values
from ..rasters.opening import open_raster
from ..sampling.weights import WEIGHTINGS, ClassWeighting, class_weights
from .findings import Finding
from .sample import Sample

WATER = LEGEND.code('watercourses and water bodies')

#: A class below this share of the labelled ground is rare.
RARE = 0.002


@dataclass(frozen=True)
class ClassRow:
    """One line of the class table."""

    code: int
    name: str
    pixels: int
    share: float
    weights: dict[ClassWeighting, float]


def class_table(sample: Sample) -> list[ClassRow]:
    """Pixels, share of the labelled ground and weight under each strategy, for each class; empty without labels."""
    counts = sample.counts.copy()
    counts[NODATA] = 0
    total = int(counts.sum())
    if not total:
        return []
    cells = np.concatenate(sample.cells)
    weights = {name: class_weights(cells, name) for name in WEIGHTINGS}
    return [
        ClassRow(
            code,
            LEGEND[code].name,
            int(counts[code]),
            counts[code] / total,
            {name: float(w[code]) for name, w in weights.items()},
        )
        for code in LEGEND.codes
    ]


def check_legend(labels: LabelRasters) -> Iterator[Finding]:
    """Whether the rasters hold the 12 codes or the 41 values of the parent."""
    for path in labels.files:
        if (bands := open_raster(path).count) > 1:
            yield Finding(
                'legend',
                'warning',
                f'{path} has {bands} bands, as a picture of a map has; labels are read from the first',
                'export the classes themselves, one band of codes',
                {'bands': bands},
            )
    parents = [path for path, parent in labels.parents.items() if parent]
    if parents:
        uncertain = ', '.join(map(str, UNCERTAIN_PARENTS))
        yield Finding(
            'legend',
            'note',
            'the labels hold the 41 MCSC classes; the table that turns them into the 12 is a reading of '
            f'their names, not official (least certain: {uncertain})',
            'use the 12-class raster where you have it',
            {'parents': parents},
        )
        if len(parents) < len(labels.files):
            yield Finding(
                'legend',
                'warning',
                'some label rasters hold 41 classes and some 12; told by name or by a sample of their values',
                'name the legend with --data.source_legend if this is wrong',
                {'parents': labels.parents},
            )
    else:
        yield Finding('legend', 'ok', 'the labels hold the 12 codes', data={'parents': []})


def check_values(labels: LabelRasters, sample: Sample, ignored: bool) -> Iterator[Finding]:
    """Values that the legend does not know: ``fit`` ends at them unless told to ignore them."""
    if not sample.unknown:
        return
    strange: set[int] = set()
    for path, table in labels.tables.items():
        try:
            values = sample_values(path)
        except LandcoverError:
            continue
        strange |= {int(v) for v in values if not 0 <= v < len(table) or table[v] == 255}
    named = f' ({", ".join(map(str, sorted(strange)[:5]))}{", …" if len(strange) > 5 else ""})' if strange else ''
    what = f'{sample.unknown:,} label pixels of those read hold values outside the legend{named}'
    data = {'unknown': sample.unknown, 'values': sorted(strange)}
    recode = 'correct the raster, or name its legend with --data.source_legend'
    if not sample.counts[NODATA + 1 :].any():
        yield Finding('legend', 'error', f'{what}, and none one of the legend', recode, data)
        return
    if ignored:
        yield Finding('legend', 'note', f'{what}; they count as no data', data=data)
        return
    yield Finding(
        'legend',
        'error',
        f'{what}; fit ends at them',
        f'{recode}, or add --data.unknown_labels ignore to treat them as no data',
        {**data, 'keys': ['--data.unknown_labels ignore']},
    )


def check_classes(sample: Sample) -> Iterator[Finding]:
    """Whether there is something to learn, and which classes are rare or missing."""
    counts = sample.counts.copy()
    counts[NODATA] = 0
    total = int(counts.sum())
    if not total and (sample.unknown or 'labels' in sample.failures):
        return  # told already
    if not total:
        what = 'no pixel' if sample.is_whole else f'no pixel of the {sample.share:.1%} of the ground that was read'
        yield Finding(
            'classes',
            'error',
            f'{what} is both labelled and measured',
            'check that labels and mosaics show the same ground, and nodata',
        )
        return
    present = [code for code in LEGEND.codes if counts[code]]
    yield from _check_variety(counts, total, present, sample)
    if len(present) == 1:
        return
    yield from _check_frequency(counts, total, present, sample)
    labelled = total / max(int(sample.measured.max(initial=0)), 1)
    purity = sample.purity / total
    yield Finding(
        'classes',
        'ok' if labelled > 0.5 else 'note',
        f'{len(present)} of {len(LEGEND.codes)} classes; {labelled:.0%} of measured ground labelled; purity '
        f'{purity:.0f}%',
        data={'labelled': labelled, 'purity': purity},
    )


def _check_frequency(
    counts: NDArray[np.int64], total: int, present: Sequence[int], sample: Sample
) -> Iterator[Finding]:
    missing = [LEGEND[c].name for c in LEGEND.codes if not counts[c]]
    rare = [LEGEND[c].name for c in present if counts[c] < RARE * total]
    if missing:
        where = 'not on this ground' if sample.is_whole else 'not in the sample'
        yield Finding('classes', 'note', f'{where}: {", ".join(missing)}', data={'missing': missing})
    if rare:
        yield Finding(
            'classes',
            'note',
            f'below {RARE:.1%} of the labelled ground: {", ".join(rare)}',
            'the default --data.balance 0.5 draws them more often; 1 draws every class alike',
            {'rare': rare},
        )


def _check_variety(counts: NDArray[np.int64], total: int, present: Sequence[int], sample: Sample) -> Iterator[Finding]:
    water = counts[WATER] / total
    whole = '' if sample.is_whole else ' of the sample'
    if len(present) == 1:
        yield Finding(
            'classes',
            'error' if sample.is_whole else 'warning',
            f'every label{whole} is {LEGEND[present[0]].name}: nothing to tell apart',
            'choose ground with several classes',
        )
    elif water > 0.99:
        yield Finding(
            'classes',
            'warning',
            f'{water:.1%} of the labels{whole} are water: most patches are left out (max_water 0.99)',
            'choose ground with more land',
            {'water': water},
        )
