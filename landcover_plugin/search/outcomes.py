"""What came of the trials of a search: one line each, the best of them."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..rasters.outputs import write_whole

#: complete: trained to its end; stopped: the scheduler saw it fall behind; failed: an error ended it.
Status = Literal['waiting', 'running', 'complete', 'stopped', 'failed']


@dataclass(frozen=True)
class Outcome:
    """A trial.

    Attributes:
        number: From 1, in the order of their start.
        identity: Name of its folder in ``trials``.
        status: What became of it.
        epochs: That it trained.
        score: Its best value of the metric, None if there was none.
        seconds: That it took, since the search was last begun or gone on with.
        drawn: What was drawn for it, by key.
        message: Why it failed.
    """

    number: int
    identity: str
    status: Status
    epochs: int
    score: float | None
    seconds: float
    drawn: Mapping[str, Any]
    message: str = ''

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come of it."""
        return self.status not in ('waiting', 'running')


def best(outcomes: Sequence[Outcome], mode: str) -> Outcome | None:
    """The trial with the best score, None if none has one."""
    scored = [o for o in outcomes if o.score is not None and math.isfinite(o.score) and o.status != 'failed']
    return (max if mode == 'max' else min)(scored, key=lambda o: o.score or 0.0, default=None)


def plain(drawn: Any) -> Any:
    """What was drawn as a person writes it: JSON of a text without its quotes.

    Examples:
        >>> plain('"unet"'), plain('[1, 2]'), plain(0.5)
        ('unet', '[1, 2]', 0.5)
    """
    if isinstance(drawn, str) and drawn.startswith('"'):
        return json.loads(drawn)
    return drawn


def write_table(path: Path, outcomes: Sequence[Outcome], metric: str) -> None:
    """Write the trials as CSV, one a line; appears whole."""
    rows = [
        {
            'trial': o.number,
            'folder': o.identity,
            'status': o.status,
            'epochs': o.epochs,
            metric: '' if o.score is None else f'{o.score:.6g}',
            'seconds': f'{o.seconds:.1f}',
            **{key: plain(value) for key, value in o.drawn.items()},
            'message': o.message,
        }
        for o in outcomes
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ['trial'], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, lambda p: p.write_text(text.getvalue(), encoding='utf-8'))
