"""How a search goes about it, and on what."""

from dataclasses import dataclass
from typing import Literal

#: Of the trials that reach a rung of ASHA, one of so many goes on.
REDUCTION = 3


@dataclass(frozen=True)
class Devices:
    """How trials share the machines.

    Attributes:
        parallel: Trials at once.
        cpus: Of a trial.
        gpus: Of a trial; may be a share of one.
    """

    parallel: int
    cpus: int
    gpus: float


@dataclass(frozen=True)
class Strategy:
    """How a search goes about it.

    Attributes:
        metric: Reported by trials after each validation; its best so far is compared.
        mode: max or min.
        trials: Number of them.
        epochs: Of a whole trial.
        grace: Epochs that each trial gets before it may be stopped.
        seed: Of what is drawn.
        searcher: optuna (TPE) or random.
        scheduler: asha or none.
    """

    metric: str
    mode: Literal['max', 'min']
    trials: int
    epochs: int
    grace: int
    seed: int
    searcher: Literal['optuna', 'random']
    scheduler: Literal['asha', 'none']
