"""Ray Tune at work: starts or goes on with a search, and says what becomes of its trials."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from ..errors import LandcoverError
from .listening import Listener
from .outcomes import Outcome
from .space import Space
from .strategy import REDUCTION, Devices, Strategy

log = logging.getLogger(__name__)

#: Bytes of Ray's object store: trials read the rasters themselves, hardly anything goes through it.
_STORE = 100_000_000

#: Name of Ray's own folder within that of the search.
STATE = 'ray'


@contextmanager
def cluster(address: str | None, cpus: int | None = None) -> Iterator[None]:
    """Ray on this machine, or a running cluster; what was started is ended.

    Args:
        address: Of the head of a cluster; None starts Ray here, for the time of the search.
        cpus: Processors to give to a Ray that is started here (default: all).

    Raises:
        LandcoverError: If there is no cluster at the address.
    """
    own: dict[str, Any] = {'num_cpus': cpus, 'object_store_memory': _STORE, 'include_dashboard': False}
    try:
        ray.init(address or 'local', log_to_driver=False, logging_level=logging.ERROR, **({} if address else own))
    except (ConnectionError, RuntimeError, ValueError) as e:
        what = f'no Ray cluster answers at {address}' if address else 'Ray did not start'
        raise LandcoverError(f'{what} ({" ".join(str(e).split())[:200]}); ray status tells of a running one') from e
    try:
        yield
    finally:
        ray.shutdown()


def share(parallel: int | None, cpus: int | None, gpus: float | None) -> Devices:
    """Fill in what was not said from what Ray found: a trial for each GPU, or one with all processors.

    Raises:
        LandcoverError: If no machine can hold a trial.
    """
    nodes = [node['Resources'] for node in ray.nodes() if node['Alive']]
    graphics = int(sum(node.get('GPU', 0) for node in nodes))
    gpus = gpus if gpus is not None else float(graphics > 0)
    parallel = parallel or max(1, int(graphics / gpus) if gpus else 1)
    largest = int(max(node.get('CPU', 0) for node in nodes))
    total = int(sum(node.get('CPU', 0) for node in nodes))
    cpus = cpus or max(1, min(largest, total // parallel))
    if not any(node.get('CPU', 0) >= cpus and node.get('GPU', 0) >= gpus for node in nodes):
        raise LandcoverError(
            f'no machine has the {cpus} processors and {gpus:g} GPUs of a trial: at most {largest} processors and '
            f'{max(node.get("GPU", 0) for node in nodes):g} GPUs; lower --cpus-per-trial or --gpus-per-trial'
        )
    return Devices(parallel, cpus, gpus)


def run(
    train: Callable[[dict[str, Any]], None],
    space: Space,
    strategy: Strategy,
    devices: Devices,
    folder: Path,
    *,
    first: Mapping[str, Any] | None = None,
    tell: Callable[[Sequence[Outcome]], None] | None = None,
) -> list[Outcome]:
    """Run a search, or go on with the one in a folder.

    Args:
        train: A trial: takes what was drawn, reports ``epoch``, ``score`` and whether it is ``complete``.
        space: What is drawn from.
        strategy: How.
        devices: On what.
        folder: Of the search; Ray keeps its state in it. On a cluster, all machines must see it.
        first: What the first trial gets.
        tell: Is given all trials whenever one begins or ends.

    Returns:
        All trials; where the search was interrupted, some of them are not ended.
    """
    logging.getLogger('ray.tune').setLevel(logging.CRITICAL)  # the listener tells of failures, without their traces
    trainable = tune.with_resources(train, {'cpu': devices.cpus, 'gpu': devices.gpus})
    listener = Listener(strategy, tell)
    state = folder / STATE
    if tune.Tuner.can_restore(str(state)):
        tuner = tune.Tuner.restore(str(state), trainable)
        vars(tuner)['_local_tuner']._run_config.callbacks = [listener]  # those that were kept know nobody here
    else:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                metric='score',
                mode=strategy.mode,
                num_samples=strategy.trials,
                search_alg=_searcher(space, strategy, first),
                scheduler=_scheduler(strategy),
                max_concurrent_trials=devices.parallel,
                trial_dirname_creator=_identity,
            ),
            run_config=tune.RunConfig(
                name=STATE,
                storage_path=str(folder),
                verbose=0,
                callbacks=[listener],
            ),
        )
    found = tuner.fit()
    # On Ctrl-C, Ray calls trials ended that are gone on with.
    return listener.latest or listener.outcomes(found._experiment_analysis.trials)


def _identity(trial: Trial) -> str:
    return str(trial.trial_id)


def _searcher(space: Space, strategy: Strategy, first: Mapping[str, Any] | None) -> OptunaSearch:
    """TPE (Bergstra et al. 2011) begins with random trials: a quarter of them, for there are few."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    begin = max(4, min(10, strategy.trials // 4))
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.RandomSampler(seed=strategy.seed)
        if strategy.searcher == 'random'
        else optuna.samplers.TPESampler(seed=strategy.seed, n_startup_trials=begin)
    )
    return OptunaSearch(
        space.distributions(),
        metric='score',
        mode=strategy.mode,
        sampler=sampler,
        points_to_evaluate=[dict(first)] if first else None,
    )


def _scheduler(strategy: Strategy) -> TrialScheduler:
    """ASHA (Li et al. 2020, https://arxiv.org/abs/1810.05934); whole trials end by themselves, hence one epoch more."""
    if strategy.scheduler == 'none':
        return FIFOScheduler()
    return AsyncHyperBandScheduler(
        time_attr='epoch', max_t=strategy.epochs + 1, grace_period=strategy.grace, reduction_factor=REDUCTION
    )
