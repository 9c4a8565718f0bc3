"""Areas as tables: on the screen, as CSV and as JSON."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..inspection.findings import plain
from ..legend import LEGEND, NODATA
from ..rasters.outputs import write_whole
from .class_map import MapCounts
from .estimation import Assessment, Estimates
from .zones import Zones

Row = dict[str, Any]


def class_rows(counts: MapCounts, found: Assessment | None = None) -> list[Row]:
    """One row for each class that the map or the reference holds: areas in hectares, accuracies as shares."""
    total = counts.areas.sum()
    place = {} if found is None else {int(code): i for i, code in enumerate(found.codes)}
    rows = []
    for code in LEGEND.codes:
        i = place.get(code)
        in_reference = found is not None and i is not None and found.points[:, i].any()
        if not counts.pixels[code] and not in_reference:
            continue
        row: Row = {
            'code': code,
            'class': LEGEND[code].name,
            'pixels': int(counts.pixels[code]),
            'mapped_ha': round(float(counts.areas[code]), 6),
            'mapped_share': round(float(counts.areas[code] / total), 9),
        }
        if found is not None and i is not None:
            row |= _columns('adjusted_ha', found.area, i) | _columns('users_accuracy', found.users, i)
            row |= _columns('producers_accuracy', found.producers, i)
            row |= {'map_points': int(found.points[i].sum()), 'reference_points': int(found.points[:, i].sum())}
        rows.append(row)
    return rows


def _columns(name: str, estimates: Estimates, i: int) -> Row:
    return {
        name: float(estimates.value[i]),
        f'{name}_se': float(estimates.se[i]),
        f'{name}_low': float(estimates.low[i]),
        f'{name}_high': float(estimates.high[i]),
    }


def zone_rows(counts: MapCounts, zones: Zones) -> list[Row]:
    """One row for each zone and class: what the map shows there."""
    rows = []
    for number, name in enumerate(zones.names):
        total = counts.zone_areas[number].sum()
        for code in LEGEND.codes:
            if counts.zone_pixels[number, code]:
                rows.append(
                    {
                        'zone': name,
                        'code': code,
                        'class': LEGEND[code].name,
                        'pixels': int(counts.zone_pixels[number, code]),
                        'mapped_ha': round(float(counts.zone_areas[number, code]), 6),
                        'mapped_share': round(float(counts.zone_areas[number, code] / total), 9),
                    }
                )
    return rows


def document(
    counts: MapCounts, found: Assessment | None, zones: Zones | None, told: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything, for JSON."""
    result: dict[str, Any] = {
        **told,
        'map_sha256': counts.digest,
        'mapped_ha': round(float(counts.areas.sum()), 6),
        'no_data_pixels': int(counts.pixels[NODATA]),
        'classes': class_rows(counts, found),
    }
    if found is not None:
        result |= _columns('overall_accuracy', found.overall, 0)
        result['matrix'] = {
            'codes': found.codes.tolist(),
            'points': found.points.tolist(),
            'estimated_ha': found.matrix.tolist(),
            'axes': 'map codes in rows, reference codes in columns',
        }
    if zones is not None:
        result['zones'] = zone_rows(counts, zones)
    return result


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole; what is not defined becomes null."""
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, lambda p: p.write_text(text + '\n', encoding='utf-8'))


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows whole; what is not defined becomes an empty cell."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator='\n')
    writer.writeheader()
    writer.writerows({k: '' if _undefined(v) else v for k, v in row.items()} for row in rows)
    write_whole(path, lambda p: p.write_text(text.getvalue(), encoding='utf-8'))


def _undefined(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def as_text(counts: MapCounts, found: Assessment | None, *, level: float) -> str:
    """The classes as a table for the terminal: hectares, and percent for accuracies."""
    rows = class_rows(counts, found)
    longest = max(len(row['class']) for row in rows)
    lines = [_heading(longest, found is not None, level)]
    for row in rows:
        line = (
            f'{row["code"]:>2} {row["class"]:<{longest}} {row["mapped_ha"]:>14,.1f} {100 * row["mapped_share"]:>6.2f}'
        )
        lines.append(line + (_estimated(row) if 'adjusted_ha' in row else ''))
    lines.append(f'   {"all":<{longest}} {counts.areas.sum():>14,.1f} {100:>6.2f}')
    if found is not None:
        lines.append(f'overall accuracy {_share(found.overall.value[0])} % ({_limits(found.overall, 0)})')
    return '\n'.join(lines) + '\n'


def _heading(longest: int, estimated: bool, level: float) -> str:
    heading = f'   {"":<{longest}} {"mapped ha":>14} {"%":>6}'
    if estimated:
        heading += f' {"adjusted ha":>14} {f"{100 * level:g} % interval":>27} {"users %":>8} {"producers %":>12}'
    return heading + (f' {"points":>7}' if estimated else '')


def _estimated(row: Row) -> str:
    interval = f'{row["adjusted_ha_low"]:,.1f} - {row["adjusted_ha_high"]:,.1f}'
    return (
        f' {row["adjusted_ha"]:>14,.1f} {interval:>27} {_share(row["users_accuracy"]):>8} '
        f'{_share(row["producers_accuracy"]):>12} {row["reference_points"]:>7}'
    )


def _share(value: float) -> str:
    return 'n/a' if math.isnan(value) else f'{100 * value:.1f}'


def _limits(estimates: Estimates, i: int) -> str:
    return f'{_share(estimates.low[i])} - {_share(estimates.high[i])}'


def zones_as_text(counts: MapCounts, zones: Zones, *, most: int = 40) -> Iterator[str]:
    """Lines that tell the largest classes of each zone."""
    longest = max((len(name) for name in zones.names[:most]), default=0)
    for number, name in enumerate(zones.names[:most]):
        areas = counts.zone_areas[number]
        total = areas.sum()
        largest = [int(c) for c in areas.argsort()[::-1][:3] if areas[c] > 0]
        told = ', '.join(f'{LEGEND[c].name} {100 * areas[c] / total:.1f} %' for c in largest) or 'nothing mapped'
        yield f'{name:<{longest}} {total:>14,.1f} ha  {told}'
    if len(zones.names) > most:
        yield f'… and {len(zones.names) - most} zones more: --csv and --json hold them all'
