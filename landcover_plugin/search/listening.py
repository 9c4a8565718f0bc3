"""What becomes of the trials of Ray Tune, told while they run."""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from .outcomes import Outcome, Status, plain
from .strategy import Strategy

log = logging.getLogger(__name__)


class Listener(tune.Callback):
    """Says what becomes of trials, while they run.

    Args:
        strategy: Of the search.
        tell: Is given all trials whenever one begins or ends.
    """

    def __init__(self, strategy: Strategy, tell: Callable[[Sequence[Outcome]], None] | None) -> None:
        self.strategy, self.tell, self.told = strategy, tell, dict[str, Status]()
        self.latest: list[Outcome] = []

    def __getstate__(self) -> dict[str, Any]:
        """Without what cannot be kept in the state of a search."""
        return {'strategy': self.strategy, 'tell': None, 'told': {}, 'latest': []}

    def outcomes(self, trials: Sequence[Trial]) -> list[Outcome]:
        """The trials as they are."""
        return sorted((_outcome(trial, self.strategy) for trial in trials), key=lambda outcome: outcome.number)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Say what changed."""
        outcomes = self.latest = self.outcomes(trials)
        if not self.told and (before := [o for o in outcomes if o.ended]):
            log.info('%d trials have ended before', len(before))
            self.told = {o.identity: o.status for o in before}
        changed = [o for o in outcomes if self.told.get(o.identity) != o.status]
        for outcome in changed:
            if outcome.status != 'waiting':
                log.info(sentence(outcome, self.strategy))
            self.told[outcome.identity] = outcome.status
        if changed and self.tell is not None:
            self.tell(outcomes)


def _outcome(trial: Trial, strategy: Strategy) -> Outcome:
    number = int(str(trial.experiment_tag).partition('_')[0])  # counted by Ray; a search that goes on has another order
    last = trial.last_result or {}
    epochs, score = int(last.get('epoch', 0)), last.get('score')
    status: Status = {'RUNNING': 'running', 'ERROR': 'failed', 'TERMINATED': 'stopped'}.get(trial.status, 'waiting')  # type: ignore[assignment]
    if status == 'stopped' and (last.get('complete') or epochs >= strategy.epochs):
        status = 'complete'
    seconds = float(last.get('time_total_s', 0))
    message = _why(trial) if status == 'failed' else ''
    return Outcome(number, trial.trial_id, status, epochs, score, seconds, dict(trial.config), message)


def _why(trial: Trial) -> str:
    """The last error in what Ray wrote of a failure."""
    files = [Path(file) for file in (trial.error_file, f'{trial.path}/error.txt') if file]  # the second after --resume
    text = next((file.read_text(errors='replace') for file in files if file.is_file()), '')
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(' ')]
    return re.sub(r'^[\w.]*(?:LandcoverError): ', '', lines[-1])[:500] if lines else 'its process ended'


def sentence(outcome: Outcome, strategy: Strategy) -> str:
    """What became of a trial, for people."""
    name = f'trial {outcome.number} of {strategy.trials}'
    if outcome.status == 'running':
        settings = ', '.join(
            f'{k}={v:.3g}' if isinstance(v, float) else f'{k}={plain(v)}' for k, v in outcome.drawn.items()
        )
        return f'{name} begins: {settings}'
    if outcome.status == 'failed':
        return f'{name} failed: {outcome.message}'
    score = 'none' if outcome.score is None else f'{outcome.score:.3f}'
    how = 'complete' if outcome.status == 'complete' else 'stopped early'
    return f'{name} {how} after {outcome.epochs} epochs, best {strategy.metric} {score}'
