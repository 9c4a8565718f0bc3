"""What the doctor found: one sentence, how grave it is, and the way out."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..errors import LandcoverError

Level = Literal['ok', 'note', 'warning', 'error']

#: Levels from harmless to grave.
LEVELS: tuple[Level, ...] = ('ok', 'note', 'warning', 'error')


@dataclass(frozen=True)
class Finding:
    """One result of one check.

    Args:
        check: Which check, one word.
        level: ``ok``; ``note``: good to know; ``warning``: training works, but costs quality or speed; ``error``:
            training would end with a message or learn nonsense.
        sentence: The value and the rule.
        way_out: What to do, as an exact command or key where there is one; empty if there is nothing to do.
        data: The numbers behind the sentence. ``keys``, where given, are arguments that belong on every command
            that trains.
    """

    check: str
    level: Level
    sentence: str
    way_out: str = ''
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """Arguments that this finding asks for."""
        return tuple(self.data.get('keys', ()))


def told_by(check: str, error: LandcoverError, level: Level = 'error') -> Finding:
    """The finding for an error that tells itself, value and rule first, the way out behind the last semicolon.

    Examples:
        >>> told_by('bands', LandcoverError('a.tif has 3 bands; name them')).way_out
        'name them'
    """
    text = ' '.join(str(error).split())
    sentence, _, way_out = text.rpartition('; ')
    if not sentence or way_out.startswith('it '):
        sentence, way_out = text, _USUAL_WAYS_OUT.get(check, '')
    return Finding(check, level, sentence, way_out)


#: Of errors that name none themselves, by check.
_USUAL_WAYS_OUT = {
    'files': 'fetch it again, or take it away',
    'bands': 'choose bands that every file has with --data.bands',
}


def worst(findings: Iterable[Finding]) -> Level:
    """The gravest level among findings; ``ok`` if there are none."""
    return LEVELS[max((LEVELS.index(f.level) for f in findings), default=0)]


def exit_code(findings: Iterable[Finding]) -> int:
    """0: nothing worse than a note; 1: an error; 2: a warning."""
    return {'error': 1, 'warning': 2}.get(worst(findings), 0)


def plain(value: Any) -> Any:
    """A value as JSON knows it: NumPy numbers and arrays become Python's, NaN and infinity become None.

    Examples:
        >>> plain({'a': np.float32(0.5), 'b': (np.nan, np.int64(2))})
        {'a': 0.5, 'b': [None, 2]}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
