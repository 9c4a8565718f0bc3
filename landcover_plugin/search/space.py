"""The space of a search: which settings are tried, and from where their values are drawn."""

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import LandcoverError
from .trees import at, merge, nested, same

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: Numbers that each kind takes; ``choice`` takes any values instead.
KINDS = {'choice': 0, 'uniform': 2, 'loguniform': 2, 'randint': 2, 'quniform': 3}

#: Settings that decide which ground is scored and what it holds: their trials could not be compared.
GROUND = {
    f'data.{name}'
    for name in (
        'root', 'ratios', 'block_size', 'split_seed', 'folds', 'fold', 'blocks', 'patch_size', 'patch_sizes',
        'source_legend', 'aggregation', 'aggregation_weights', 'unknown_labels', 'damaged', 'min_labelled', 'min_valid',
        'max_water',
    )
}  # fmt: skip

#: Settings that the search gives to its trials.
OWN = {
    'trainer.max_epochs', 'trainer.max_steps', 'trainer.max_time', 'trainer.default_root_dir', 'trainer.devices',
    'trainer.num_nodes', 'trainer.logger', 'checkpoint.monitor', 'checkpoint.mode', 'checkpoint.filename',
    'checkpoint.dirpath', 'checkpoint.save_last', 'keep.dirpath', 'resume', 'ckpt_path', 'config',
}  # fmt: skip


@dataclass(frozen=True)
class Dimension:
    """A setting that is tried.

    Attributes:
        key: Its name on the command line of ``landcover fit``, like ``model.lr``.
        kind: How it is drawn: one of :data:`KINDS`.
        values: Of choice, what may be chosen, each as JSON; else least and largest value, and of quniform the step.
    """

    key: str
    kind: str
    values: tuple[Any, ...]

    def distribution(self) -> 'BaseDistribution':
        """How Optuna draws it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == 'choice':
            return CategoricalDistribution(self.values)
        low, high = self.values[:2]
        if self.kind == 'randint':
            return IntDistribution(low, high)
        if self.kind == 'quniform':
            step = self.values[2]
            whole = all(isinstance(v, int) for v in self.values)
            return IntDistribution(low, high, step=step) if whole else FloatDistribution(low, high, step=step)
        return FloatDistribution(low, high, log=self.kind == 'loguniform')

    def setting(self, drawn: Any) -> Any:
        """The value for ``landcover fit`` of what was drawn."""
        return json.loads(drawn) if self.kind == 'choice' else drawn

    def drawn(self, setting: Any) -> Any:
        """What is drawn for a value of ``landcover fit``, None if the space does not hold it."""
        if self.kind == 'choice':
            return next((text for text in self.values if same(setting, json.loads(text))), None)
        number = isinstance(setting, int | float) and not isinstance(setting, bool)
        low, high = self.values[:2]
        if not number or not low <= setting <= high:
            return None
        if self.kind == 'quniform' and not math.isclose((step := (setting - low) / self.values[2]), round(step)):
            return None
        return setting

    def probes(self) -> list[Any]:
        """All choices, or the ends and the middle of a range."""
        if self.kind == 'choice':
            return list(self.values)
        low, high = self.values[:2]
        if self.kind == 'loguniform':
            return [low, math.sqrt(low * high), high]
        if self.kind == 'uniform':
            return [low, (low + high) / 2, high]
        step = self.values[2] if self.kind == 'quniform' else 1
        return [low, low + round((high - low) / step / 2) * step, high]


@dataclass(frozen=True)
class Space:
    """All settings that are tried.

    Attributes:
        dimensions: By key.
    """

    dimensions: dict[str, Dimension]

    def distributions(self) -> dict[str, 'BaseDistribution']:
        """How Optuna draws each."""
        return {key: dimension.distribution() for key, dimension in self.dimensions.items()}

    def overrides(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial changes, as a tree to be written as YAML.

        Examples:
            >>> space = Space({'model.lr': Dimension('model.lr', 'uniform', (0.1, 0.3))})
            >>> space.overrides({'model.lr': 0.2})
            {'model': {'lr': 0.2}}
        """
        tree: dict[str, Any] = {}
        for key, dimension in self.dimensions.items():
            merge(tree, nested(key, dimension.setting(drawn[key])))
        return tree

    def probes(self) -> list[dict[str, Any]]:
        """Few draws among which each choice, and ends and middle of each range, occur: to see whether all are valid."""
        columns = [dimension.probes() for dimension in self.dimensions.values()]
        rows = max(map(len, columns))
        return [{k: c[i % len(c)] for k, c in zip(self.dimensions, columns, strict=True)} for i in range(rows)]

    def default(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """What would have to be drawn for the settings as they are, and the keys whose value the space does not hold.

        Args:
            settings: Of ``landcover fit``, as a tree.
        """
        drawn = {key: dimension.drawn(at(settings, key)) for key, dimension in self.dimensions.items()}
        return drawn, [key for key, value in drawn.items() if value is None]


def read_space(path: str | os.PathLike[str]) -> Space:
    """Read a space from YAML: ``key: {kind: values}``.

    Raises:
        LandcoverError: If it cannot be read, or a key, kind or range is wrong.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise LandcoverError(f'{file} is not valid YAML: {" ".join(str(e).split())}') from e
    if not isinstance(content, Mapping) or not content:
        raise LandcoverError(f'{file} names no setting: write lines like  model.lr: {{loguniform: [1.0e-4, 1.0e-2]}}')
    space = Space({str(key): _dimension(str(key), spec) for key, spec in content.items()})
    for a, b in itertools.permutations(space.dimensions, 2):
        if b.startswith(f'{a}.'):
            raise LandcoverError(f'{file}: {a} holds {b}, so both would set it: keep one of them')
    return space


def _dimension(key: str, spec: Any) -> Dimension:
    if key in GROUND:
        raise LandcoverError(
            f'{key} cannot be searched: it decides which ground is scored, and scores of different ground do not '
            'compare; give it to all trials on the command line'
        )
    if key in OWN:
        raise LandcoverError(f'{key} cannot be searched: the search sets it for each trial')
    kinds = ', '.join(KINDS)
    if not isinstance(spec, Mapping) or len(spec) != 1 or (kind := str(next(iter(spec)))) not in KINDS:
        raise LandcoverError(f'{key} must be one of {kinds} with its values, like {{uniform: [0, 1]}}, got {spec}')
    values = spec[kind]
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise LandcoverError(f'{key}: {kind} takes a list [a, b, …], got {values}')
    return Dimension(key, kind, _choices(key, values) if kind == 'choice' else _range(key, kind, values))


def _choices(key: str, values: Sequence[Any]) -> tuple[str, ...]:
    try:
        texts = tuple(json.dumps(value) for value in values)
    except TypeError as e:
        raise LandcoverError(f'{key}: a choice must be a number, text, list or mapping ({e})') from e
    if len(texts) < 2 or len(set(texts)) < len(texts):
        raise LandcoverError(f'{key}: choice takes two or more different values, got {list(values)}')
    return texts


def _range(key: str, kind: str, values: Sequence[Any]) -> tuple[float, ...]:
    numbers = tuple(_number(key, kind, value) for value in values)
    what = {2: '[a, b] with a below b', 3: '[a, b, step] with a below b and whole steps between'}[KINDS[kind]]
    if len(numbers) != KINDS[kind] or not numbers[0] < numbers[1]:
        raise LandcoverError(f'{key}: {kind} takes {what}, got {list(values)}')
    if kind == 'loguniform' and numbers[0] <= 0:
        raise LandcoverError(f'{key}: loguniform takes numbers above 0, got {list(values)}')
    if kind == 'randint' and not all(isinstance(n, int) for n in numbers):
        raise LandcoverError(f'{key}: randint takes whole numbers, got {list(values)}')
    if kind == 'quniform':
        low, high, step = numbers
        if step <= 0 or not math.isclose((count := (high - low) / step), round(count)):
            raise LandcoverError(f'{key}: quniform takes {what}, got {list(values)}')
    return numbers


def _number(key: str, kind: str, value: Any) -> float:
    """A number; YAML takes 1e-4 for a text."""
    try:
        number: float = value if isinstance(value, int) and not isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise LandcoverError(f'{key}: {kind} takes numbers, got {value}')
    return number
