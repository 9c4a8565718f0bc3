"""Settings as trees of mappings, as YAML holds them."""

from collections.abc import Mapping
from typing import Any


def nested(key: str, value: Any) -> dict[str, Any]:
    """A dotted key as a tree.

    Examples:
        >>> nested('data.mix', 'cutmix')
        {'data': {'mix': 'cutmix'}}
    """
    for name in reversed(key.split('.')):
        value = {name: value}
    return dict(value)


def merge(tree: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Put one tree into another, which is changed and returned; the leaves of the second win."""
    for name, value in more.items():
        if isinstance(value, Mapping) and isinstance(tree.get(name), dict):
            merge(tree[name], value)
        else:
            tree[name] = dict(value) if isinstance(value, Mapping) else value
    return tree


def at(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key in a tree, None if it has none.

    Examples:
        >>> at({'data': {'mix': 'cutmix'}}, 'data.mix')
        'cutmix'
    """
    found: Any = settings
    for name in key.split('.'):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def same(setting: Any, choice: Any) -> bool:
    """Whether a setting is what is chosen; of a mapping, whether its keys are."""
    if isinstance(choice, Mapping) and isinstance(setting, Mapping):
        return all(same(setting.get(name), value) for name, value in choice.items())
    if isinstance(choice, list) and isinstance(setting, list | tuple):
        return len(choice) == len(setting) and all(map(same, setting, choice))
    if (number := _number_of(choice)) is not None:
        return number == _number_of(setting)
    return type(setting) is type(choice) and bool(setting == choice)


def _number_of(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
