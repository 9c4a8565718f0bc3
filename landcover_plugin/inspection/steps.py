"""What to do next: the ways out of the findings in order, then the commands that follow."""

import shlex
from collections.abc import Iterator
from dataclasses import fields

from .examination import Examination, Settings
from .findings import Level


def next_steps(found: Examination) -> list[str]:
    """What to do, in order: errors, names of files, warnings, then the commands that follow."""
    steps = [*_ways_out(found, 'error'), *_ways_out(found, 'note', 'files'), *_ways_out(found, 'warning')]
    steps = list(dict.fromkeys(step for step in steps if not step.startswith('landcover prepare')))
    if any(f.level == 'error' for f in found.findings):
        return [*steps, _again(found)]
    return [*steps, *_ways_out(found, None, 'storage'), _fit(found)]


def _ways_out(found: Examination, level: Level | None, check: str | None = None) -> Iterator[str]:
    for f in found.findings:
        if f.way_out and level in (None, f.level) and check in (None, f.check):
            yield f.way_out


def _fit(found: Examination) -> str:
    keys = ' '.join(f'--data.{name} {value}' for name, value in _arguments(found).items())
    return f'landcover fit --config configs/unet.yaml --data.root {shlex.quote(found.settings.root)} {keys}'.strip()


def _again(found: Examination) -> str:
    options = ' '.join(f'--{name.replace("_", "-")} {value}' for name, value in _arguments(found).items())
    return f'landcover doctor {shlex.quote(found.settings.root)} {options}'.strip()


def _arguments(found: Examination) -> dict[str, str]:
    """Names and values of settings: those given, then those that findings ask for."""
    asked = [key.removeprefix('--data.').partition(' ') for f in found.findings for key in f.keys]
    return dict(_given(found.settings)) | {name: value for name, _, value in asked}


def _given(settings: Settings) -> Iterator[tuple[str, str]]:
    """The settings that differ from the defaults."""
    for f in fields(settings):
        value = getattr(settings, f.name)
        if f.name != 'root' and value != f.default:
            is_number = isinstance(value, int | float)
            text = f'{value:g}' if is_number else str(value) if isinstance(value, str) else f"'[{', '.join(value)}]'"
            yield f.name, text
