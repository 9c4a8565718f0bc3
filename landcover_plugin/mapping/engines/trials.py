"""What trials of engines find, and how it is told."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Engine, EngineName


@dataclass(frozen=True)
class Trial:
    """What became of one engine.

    Attributes:
        name: The engine.
        rate: Million pixels per second, forward passes alone; of the first pass if it was left out after that, None if
            it was not tried.
        agreement: Share of the measured pixels whose class is that of the reference; None if it was not built.
        remark: Why it was not chosen, or that it was.
    """

    name: EngineName
    rate: float | None = None
    agreement: float | None = None
    remark: str = ''


@dataclass(frozen=True, eq=False)
class Choice:
    """The engine that maps, and how it was found.

    Attributes:
        engine: Ready to be called; the caller closes it.
        trials: All that were looked at, the reference first.
    """

    engine: Engine
    trials: tuple[Trial, ...]

    @property
    def chosen(self) -> Trial:
        """The trial of the engine."""
        return next(trial for trial in self.trials if trial.name == self.engine.name)

    def describe(self) -> str:
        """The trials as a table."""
        return describe(self.trials)


def describe(trials: tuple[Trial, ...]) -> str:
    """Trials as a table, for the log.

    Examples:
        >>> print(describe((Trial('torch', 0.5, 1.0, 'slower'), Trial('compile', remark='no compiler'))))
        engine           Mpx/s  agreement
        torch             0.50     1.0000  slower
        compile              -          -  no compiler
    """
    lines = [f'{"engine":<14}{"Mpx/s":>8}{"agreement":>11}']
    for t in trials:
        rate = '-' if t.rate is None else f'{t.rate:.2f}'
        agreement = '-' if t.agreement is None else f'{t.agreement:.4f}'
        lines.append(f'{t.name:<14}{rate:>8}{agreement:>11}  {t.remark}'.rstrip())
    return '\n'.join(lines)


def timed(engine: Engine, images: Tensor) -> tuple[Tensor, float]:
    """What an engine gives for a batch, and its seconds, the work of a device that computes on its own included."""
    started = time.perf_counter()
    result = engine(images)
    if result.is_cuda:
        torch.cuda.synchronize(result.device)
    return result, time.perf_counter() - started


def seconds_of(engine: Engine, images: Tensor) -> float:
    """How long an engine takes for a batch."""
    return timed(engine, images)[1]
