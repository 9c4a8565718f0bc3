"""The search of ``landcover tune``: its folder, its trials, its results."""

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import LandcoverError
from ..evaluation.area_tables import write_json
from ..rasters.outputs import cannot_write, write_whole
from ..search.outcomes import Outcome, best, plain, write_table
from ..search.plots import write_hparams, write_plots
from ..search.running import STATE, cluster, run, share
from ..search.space import Space, read_space
from ..search.strategy import Strategy
from ..training.datamodule import CataloniaDataModule
from ..training.losses import parse_loss
from .lightning import fit_settings
from .trial import Trials

log = logging.getLogger(__name__)


def check_settings(arguments: Sequence[str], path: str) -> tuple[Space, dict[str, Any]]:
    """Read the space, and parse what the trials may be given.

    Args:
        arguments: Of ``landcover fit``.
        path: Of the space.

    Returns:
        The space, and the settings of ``landcover fit`` as they are without it.

    Raises:
        LandcoverError: If the space is wrong, or ``landcover fit`` has no such setting or refuses a value.
    """
    space = read_space(path)
    settings = yaml.safe_load(fit_settings(list(arguments)))
    for drawn in space.probes():
        try:
            changed = yaml.safe_load(changed_settings(arguments, space.overrides(drawn)))
            parse_loss(changed['model']['loss'])
            CataloniaDataModule(**changed['data'])
        except LandcoverError as e:
            raise LandcoverError(f'{path}: {e}') from e
    return space, dict(settings)


def changed_settings(arguments: Sequence[str], tree: dict[str, Any]) -> str:
    """All settings of ``landcover fit`` with some changed, as YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'changed.yaml'
        path.write_text(yaml.safe_dump(tree), encoding='utf-8')
        return fit_settings([*arguments, '--config', str(path)])


@dataclass
class Search:
    """A search in a folder.

    Attributes:
        folder: Absolute.
        arguments: Of ``landcover fit``.
        space: What is drawn from.
        settings: Of ``landcover fit``, as they are without it.
        strategy: How.
    """

    folder: Path
    arguments: tuple[str, ...]
    space: Space
    settings: dict[str, Any]
    strategy: Strategy

    def open(self, *, resume: bool) -> None:
        """Make the folder, or see that it holds this very search.

        Raises:
            LandcoverError: If it holds a search that is not gone on with, or another one.
        """
        wanted, file = self._description(), self.folder / 'tune.json'
        if not file.is_file():
            if resume:
                log.info('there is no search in %s to go on with: a new one begins', self.folder)
            if (self.folder / STATE).exists() or (self.folder / 'trials').exists():
                raise LandcoverError(f'{self.folder} holds trials but no tune.json: choose another folder by --output')
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_json(file, {'search': wanted})
            except OSError as e:
                raise cannot_write(file, e) from e
        elif not resume:
            raise LandcoverError(f'{self.folder} holds a search: go on with --resume, or choose another --output')
        else:
            self._compare(_search_of(file), wanted)

    def run(self, address: str | None, parallel: int | None, cpus: int | None, gpus: float | None) -> int:
        """Run the trials that are left, and write what came of all.

        Args:
            address: Of a Ray cluster.
            parallel: Trials at once.
            cpus: Of a trial.
            gpus: Of a trial.

        Returns:
            0.

        Raises:
            LandcoverError: If no trial has a score.
            KeyboardInterrupt: If the user interrupted; the search can be gone on with.
        """
        trials = Trials(self.arguments, self.space, self.strategy, self.folder, Path.cwd())
        first, outside = self.space.default(self.settings)
        if outside:
            log.info('the settings as they are get no trial: the space does not hold %s', ', '.join(outside))
        with cluster(address, parallel * cpus if parallel and cpus else None):
            devices = share(parallel, cpus, gpus)
            log.info(
                '%d trials of at most %d epochs, %d at once, each with %d processors and %g GPUs: %s',
                *(
                    self.strategy.trials,
                    self.strategy.epochs,
                    devices.parallel,
                    devices.cpus,
                    devices.gpus,
                    self.folder,
                ),
            )
            outcomes = run(
                trials.train,
                *(self.space, self.strategy, devices, self.folder),
                first=None if outside else first,
                tell=self._keep,
            )
        self._keep(outcomes)
        ended = sum(o.ended for o in outcomes)
        if ended < self.strategy.trials:
            log.info('%d of %d trials have ended; to go on, add --resume to the command', ended, self.strategy.trials)
            raise KeyboardInterrupt
        self._conclude(outcomes, trials)
        return 0

    def _description(self) -> dict[str, Any]:
        """What makes a search this one."""
        space = {key: {d.kind: [plain(v) for v in d.values]} for key, d in self.space.dimensions.items()}
        described = {'arguments': list(self.arguments), 'settings': self.settings, 'space': space}
        return dict(json.loads(json.dumps(described | asdict(self.strategy), default=str)))

    def _compare(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        """Raise if a search is not this one."""
        for name in ('space', 'settings', *asdict(self.strategy)):
            if found.get(name) == wanted[name]:
                continue
            if isinstance(wanted[name], dict):
                raise LandcoverError(
                    f'the {name} of the search in {self.folder} are others: go on with the same command and files, or '
                    'choose another --output'
                )
            raise LandcoverError(
                f'the search in {self.folder} has --{name} {found.get(name)}, not {wanted[name]}: go on with the same, '
                'or choose another --output'
            )

    def _keep(self, outcomes: Sequence[Outcome]) -> None:
        """Write the table, and free the disk of the checkpoints of ended trials that are not the best."""
        write_table(self.folder / 'trials.csv', outcomes, self.strategy.metric)
        leader = best(outcomes, self.strategy.mode)
        for outcome in outcomes:
            if outcome.ended and outcome is not leader:
                for path in (self.folder / 'trials' / outcome.identity).rglob('checkpoints/*.ckpt'):
                    path.unlink(missing_ok=True)

    def _conclude(self, outcomes: Sequence[Outcome], trials: Trials) -> None:
        """Write the results, and say what the best trial is."""
        winner, strategy = best(outcomes, self.strategy.mode), self.strategy
        if winner is None or winner.score is None:
            why = next((o.message for o in outcomes if o.message), 'none has a score')
            raise LandcoverError(f'all {len(outcomes)} trials failed, the first so: {why}')
        told = f'{strategy.metric} {winner.score:.4f}, trial {winner.number} of {strategy.trials}'
        text = changed_settings(self.arguments, trials.changed(dict(winner.drawn)))
        found = list(trials.folder_of(winner.identity).rglob('checkpoints/best*.ckpt'))
        checkpoint = max(found, key=lambda path: path.stat().st_mtime_ns)
        write_whole(
            self.folder / 'best.yaml',
            lambda path: path.write_text(f'# Found by landcover tune: {told}\n{text}', encoding='utf-8'),
        )
        write_whole(self.folder / 'best.ckpt', lambda path: shutil.copyfile(checkpoint, path))
        shares = write_plots(self.folder, outcomes, self.space, strategy.metric, strategy.mode)
        write_hparams(self.folder / 'tensorboard', outcomes, strategy.metric)
        document = {'search': _search_of(self.folder / 'tune.json'), 'best': asdict(winner), 'importance': shares}
        write_json(self.folder / 'tune.json', document | {'trials': [asdict(o) for o in outcomes]})
        log.info('best: %s: %s', told, ', '.join(f'{k}={plain(v)}' for k, v in winner.drawn.items()))
        log.info('best.yaml, best.ckpt, trials.csv and pictures: %s', self.folder)


def _search_of(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding='utf-8'))['search'])
    except (ValueError, KeyError, TypeError) as e:
        raise LandcoverError(f'{file} is not that of a search: choose another folder by --output') from e
