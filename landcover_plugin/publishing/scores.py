"""What a registry is told about a model: scores and settings as flat names."""

import re
from collections.abc import Mapping
from typing import Any


def metrics_of(scores: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report of ``landcover test``, by names that a registry takes.

    Args:
        scores: What ``scores.json`` holds.

    Examples:
        >>> classes = [{'name': 'scrub, meadows', 'iou': 0.5}, {'name': 'bare soil', 'iou': None}]
        >>> metrics_of({'overall': {'mean_iou': 0.4, 'labelled_pixels': 12, 'note': 'x'}, 'classes': classes})
        {'test.mean_iou': 0.4, 'test.labelled_pixels': 12.0, 'test.iou.scrub meadows': 0.5}
    """
    overall = {f'test.{k}': v for k, v in scores['overall'].items()}
    classes = {f'test.iou.{row["name"]}': row.get('iou') for row in scores['classes']}
    return {
        re.sub(r'[^\w .-]', '', name): float(value)
        for name, value in (overall | classes).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def settings_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """Network and data of an exported model as short texts.

    Args:
        facts: What ``model.json`` holds.
    """
    network = facts['network']
    return {
        **{name: str(network[name]) for name in ('model', 'backbone', 'loss', 'parameters') if network.get(name)},
        'bands': ' '.join(facts['bands']),
        'seasons': str(facts['seasons']),
        'dates': ' '.join(facts['dates']),
        'patch_size': str(facts['patch_size']),
        'formats': ' '.join(facts['formats']),
        'software': str(facts['software']),
    }
