"""What an audit found, as JSON and as tables for the screen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..legend import LEGEND, Legend
from .suspect_rasters import Assessed
from .suspects import PRIOR, Ranked, Suspect

#: Pairs of classes on the screen.
_PAIRS = 8


def document(assessed: Assessed, ranked: Ranked, told: Mapping[str, Any], legend: Legend = LEGEND) -> dict[str, Any]:
    """Everything, as JSON; matrices have labels in rows, and codes 1 to 12 in order.

    Args:
        assessed: Noise model and counts of pixels.
        ranked: The polygons.
        told: Settings and folds.
        legend: Names of the classes.
    """
    noise = assessed.noise
    joint = noise.joint
    return {
        **told,
        'pixels': assessed.pixels,
        'classes': [legend[code].name for code in legend.codes],
        'thresholds': [None if np.isinf(t) else round(float(t) / 100, 4) for t in noise.thresholds],
        'confident_joint': noise.confident.tolist(),
        'joint': [[round(float(v), 8) for v in row] for row in joint],
        'estimated_wrong': float(1 - np.trace(joint)),
        'labels': class_rows(assessed, legend),
        'pairs': pair_rows(assessed, ranked.suspects, legend),
        'suspects': {
            'score': f'mean margin * (1 - estimated rate of the pair) * pixels / (pixels + {PRIOR})',
            'polygons_found': ranked.found,
            'area_m2_found': ranked.area_m2,
            'polygons': len(ranked.suspects),
            'area_m2': sum(s.area_m2 for s in ranked.suspects),
        },
    }


def class_rows(assessed: Assessed, legend: Legend = LEGEND) -> list[dict[str, Any]]:
    """For each class with judged pixels: how many, its threshold, and how much of it is wrong or missed."""
    noise = assessed.noise
    wrong, missed = noise.wrong, noise.missed
    return [
        {
            'code': code,
            'name': legend[code].name,
            'pixels': int(noise.pixels[code - 1]),
            'threshold': round(float(noise.thresholds[code - 1]) / 100, 4),
            'wrong': round(float(wrong[code - 1]), 4),
            'missed': round(float(missed[code - 1]), 4),
            'suspect_pixels': int(assessed.suspects[code - 1].sum()),
        }
        for code in legend.codes
        if noise.pixels[code - 1]
    ]


def pair_rows(assessed: Assessed, suspects: Sequence[Suspect], legend: Legend = LEGEND) -> list[dict[str, Any]]:
    """For each pair of label and confident class with suspect pixels, those of the most pixels first."""
    joint, rows = assessed.noise.joint, []
    for label, predicted in np.argwhere(assessed.suspects) + 1:
        mine = [s for s in suspects if (s.label, s.predicted) == (label, predicted)]
        rows.append(
            {
                'label': int(label),
                'label_name': legend[int(label)].name,
                'predicted': int(predicted),
                'predicted_name': legend[int(predicted)].name,
                'estimated_share': round(float(joint[label - 1, predicted - 1]), 8),
                'suspect_pixels': int(assessed.suspects[label - 1, predicted - 1]),
                'polygons': len(mine),
                'area_m2': sum(s.area_m2 for s in mine),
            }
        )
    return sorted(rows, key=lambda row: -row['suspect_pixels'])


def as_text(found: Mapping[str, Any]) -> str:
    """Tables for the screen of a :func:`document`."""
    lines = [f'   {"label":<42}{"pixels":>12}{"threshold":>11}{"wrong %":>9}{"missed %":>10}{"suspect":>10}']
    for row in found['labels']:
        shares = f'{100 * row["wrong"]:>9.1f}{100 * row["missed"]:>10.1f}'
        lines.append(
            f'{row["code"]:>2} {row["name"]:<42}{row["pixels"]:>12,}{row["threshold"]:>11.2f}{shares}'
            f'{row["suspect_pixels"]:>10,}'
        )
    lines += ['', f'   {"label -> image":<62}{"polygons":>10}{"ha":>10}{"suspect px":>12}']
    for row in found['pairs'][:_PAIRS]:
        name = f'{row["label_name"]} -> {row["predicted_name"]}'
        lines.append(f'   {name:<62}{row["polygons"]:>10,}{row["area_m2"] / 1e4:>10.1f}{row["suspect_pixels"]:>12,}')
    lines += ['', *_sentences(found)]
    return '\n'.join(lines) + '\n'


def _sentences(found: Mapping[str, Any]) -> list[str]:
    pixels, suspects = found['pixels'], found['suspects']
    kept = f'{suspects["polygons"]:,} of {suspects["polygons_found"]:,} polygons of suspects'
    total = sum(pixels.values())
    return [
        f'{100 * found["estimated_wrong"]:.1f} % of the labels are estimated to be wrong, as far as the networks tell',
        f'{pixels["judged"]:,} of {total:,} labelled pixels were judged; {pixels["mixed"]:,} are mixed, '
        f'{pixels["beyond"]:,} not held out or not measured, {pixels["unlearned"]:,} of classes too rare to be learned',
        f'{kept}, {suspects["area_m2"] / 1e4:,.1f} ha, in the order in which they are worth a look',
    ]
