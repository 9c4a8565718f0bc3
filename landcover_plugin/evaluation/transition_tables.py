"""Transitions as tables: on the screen, as CSV and as JSON."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..legend import LEGEND, NODATA
from .area_tables import Row
from .disagreement import Disagreement
from .overlay import Transitions

_COMPONENTS = {
    'agreement': 'the same class in both',
    'quantity': 'classes differ in size (quantity disagreement)',
    'allocation': 'classes lie elsewhere (allocation disagreement)',
    'exchange': '  two classes swapped',
    'shift': '  more than two classes moved round',
}


def components(found: Transitions) -> Disagreement:
    """Components of the difference in hectares, of the ground that has a class in both maps."""
    return Disagreement.from_matrix(found.areas[NODATA + 1 :, NODATA + 1 :])


def class_rows(found: Transitions) -> list[Row]:
    """One row for each class of either map, in hectares."""
    parts, areas = components(found), found.areas[NODATA + 1 :, NODATA + 1 :]
    rows = []
    for code in LEGEND.codes:
        i = code - 1
        first, second = areas[i].sum(), areas[:, i].sum()
        if first or second:
            names = ('agreement', 'loss', 'gain', 'quantity', 'exchange', 'shift')
            told = {f'{name}_ha': _ha(getattr(parts, name)[i]) for name in names}
            rows.append(
                {'code': code, 'class': LEGEND[code].name, 'first_ha': _ha(first), 'second_ha': _ha(second)} | told
            )
    return rows


def transition_rows(found: Transitions) -> list[Row]:
    """One row for each transition that occurs, the largest first."""
    rows = [
        {
            'from_code': a,
            'from_class': LEGEND[a].name,
            'to_code': b,
            'to_class': LEGEND[b].name,
            'pixels': int(found.pixels[a, b]),
            'area_ha': _ha(found.areas[a, b]),
        }
        for a in LEGEND.codes
        for b in LEGEND.codes
        if found.pixels[a, b]
    ]
    return sorted(rows, key=lambda row: -row['area_ha'])


def matrix_rows(found: Transitions) -> list[Row]:
    """The transition matrix in hectares: classes of the first map in rows, of the second in columns."""
    used = [c for c in LEGEND.codes if found.areas[c, 1:].any() or found.areas[1:, c].any()]
    return [
        {'first': f'{a} {LEGEND[a].name}'} | {f'{b} {LEGEND[b].name}': _ha(found.areas[a, b]) for b in used}
        for a in used
    ]


def document(found: Transitions, told: dict[str, Any]) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        **told,
        'compared_pixels': found.compared,
        'compared_ha': _ha(found.areas[1:, 1:].sum()),
        'only_first_ha': _ha(found.areas[1:, NODATA].sum()),
        'only_second_ha': _ha(found.areas[NODATA, 1:].sum()),
        'components_ha': {name: _ha(v) for name, v in components(found).overall().items()},
        'classes': class_rows(found),
        'transitions': transition_rows(found),
    }


def as_text(found: Transitions, *, most: int = 12) -> str:
    """The components, the classes and the largest transitions, for the terminal."""
    return '\n'.join([*_overall(found), '', *_classes(found), '', *_largest(found, most)]) + '\n'


def _overall(found: Transitions) -> Iterator[str]:
    parts = components(found).overall()
    total = parts['agreement'] + parts['disagreement']
    yield f'{"compared":<52} {total:>14,.1f} ha  {100:>6.2f} %'
    for name, meaning in _COMPONENTS.items():
        yield f'{meaning:<52} {parts[name]:>14,.1f} ha  {100 * parts[name] / total:>6.2f} %'
    for meaning, area in (
        ('not compared: the second map has no data', found.areas[1:, NODATA].sum()),
        ('not compared: the first map has no data', found.areas[NODATA, 1:].sum()),
    ):
        if area:
            yield f'{meaning:<52} {area:>14,.1f} ha'


def _classes(found: Transitions) -> Iterator[str]:
    names = ('first', 'second', 'loss', 'gain', 'quantity', 'exchange', 'shift')
    rows = class_rows(found)
    longest = max(len(row['class']) for row in rows)
    yield f'   {"hectares":<{longest}}' + ''.join(f'{name:>13}' for name in names)
    for row in rows:
        cells = ''.join(f'{row[f"{name}_ha"]:>13,.1f}' for name in names)
        yield f'{row["code"]:>2} {row["class"]:<{longest}}{cells}'


def _largest(found: Transitions, most: int) -> Iterator[str]:
    changed = [row for row in transition_rows(found) if row['from_code'] != row['to_code']]
    yield 'largest differences' if changed else 'no pixel differs'
    for row in changed[:most]:
        yield f'{row["area_ha"]:>14,.1f} ha  {row["from_class"]} -> {row["to_class"]}'


def _ha(value: float | np.floating) -> float:
    return round(float(value), 6)
