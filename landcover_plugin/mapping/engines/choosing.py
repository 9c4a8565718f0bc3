"""Which engine maps: the fastest that agrees with the reference on the data at hand."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import LandcoverError
from ...models.outputs import predicted_codes
from ...rasters.streaming import processors
from .base import ENGINES, Engine, EngineName, Shape
from .building import build_engine
from .trials import Choice, Trial, seconds_of

REFERENCE: EngineName = 'torch'

#: Least share of pixels that get the class that the reference gives them.
MIN_AGREEMENT = 0.995

#: What ``auto`` tries; the compiler takes longer than small maps do.
CANDIDATES: tuple[EngineName, ...] = tuple(name for name in ENGINES if name != 'compile')

#: Seconds in which the engines take turns.
_TRIAL_SECONDS = 4.0


def choose_engine(
    name: EngineName | Literal['auto'],
    network: nn.Module,
    images: Tensor,
    *,
    valid: Tensor | None = None,
    batch_size: int | None = None,
    min_agreement: float = MIN_AGREEMENT,
    candidates: Sequence[EngineName] = CANDIDATES,
    converted: Path | None = None,
    seconds: float = _TRIAL_SECONDS,
) -> Choice:
    """Build the engine of a name, or the fastest that agrees with the reference, and say what was found.

    The reference is the network in PyTorch and float32. Engines take turns on the same windows; those that cannot be
    built or disagree are listed with the reason.

    Args:
        name: An engine, or auto.
        network: From normalised images to probabilities, in the form that is to be mapped with.
        images: Windows of the very data ``(N, C, H, W)``, normalised: the probe, and what int8 is calibrated on.
        valid: ``(N, H, W)``: which pixels were measured; the others do not count.
        batch_size: Windows in a batch (default: as many as there are in the probe).
        min_agreement: Least share of the pixels to which an engine gives the class that the reference gives.
        candidates: What auto tries, besides the reference.
        converted: See :func:`~landcover_plugin.mapping.engines.building.build_engine`.
        seconds: How long the engines take turns, at least one each.

    Raises:
        LandcoverError: If the engine of that name cannot be built here or disagrees; auto falls back on the reference.
    """
    if not 0 <= min_agreement <= 1:
        raise LandcoverError(f'min_agreement must be in [0, 1], got {min_agreement}')
    measured = np.ones((len(images), *images.shape[2:]), bool) if valid is None else valid.cpu().numpy().astype(bool)
    if not measured.any():
        raise LandcoverError(
            'the probe of the engines holds no measured pixel: choose windows that do, or --output.engine torch'
        )
    shape: Shape = (batch_size or len(images), *images.shape[1:])
    names = dict.fromkeys((REFERENCE, *candidates) if name == 'auto' else (REFERENCE, name))
    probe = _Probe(network, images, measured, shape, converted)
    try:
        for each in names:
            probe.admit(each, min_agreement, must=name == each)
        if len(names) > 1:
            probe.race(seconds)
        return probe.choose(name)
    except BaseException:
        probe.close()
        raise


class _Probe:
    """Engines that are tried on the same windows."""

    def __init__(
        self, network: nn.Module, images: Tensor, measured: NDArray[np.bool_], shape: Shape, converted: Path | None
    ) -> None:
        self._network, self._images, self._measured = network, images, measured
        self._shape, self._converted = shape, converted
        self._engines: dict[EngineName, Engine] = {}
        self._trials: dict[EngineName, Trial] = {}
        self._codes: NDArray[np.int64] | None = None

    def admit(self, name: EngineName, min_agreement: float, *, must: bool) -> None:
        """Build an engine and compare it with the reference, which comes first."""
        try:
            engine = build_engine(name, self._network, self._shape, self._images, converted=self._converted)
            self._engines[name] = engine
            codes = self._codes_of(engine)
        except Exception as e:  # converters and compilers raise whatever they like
            if must or name == REFERENCE:
                raise
            self._drop(Trial(name, remark=' '.join(str(e).split()) or type(e).__name__))
            return
        self._codes = codes if self._codes is None else self._codes
        agreement = float((codes == self._codes)[self._measured].mean())
        self._trials[name] = Trial(name, agreement=agreement)
        if agreement < min_agreement:
            sentence = f'{agreement:.4f} of the pixels get the class of the reference, fewer than {min_agreement:g}'
            if must:
                raise LandcoverError(
                    f'{name} does not agree with torch in float32 on these data: {sentence}; choose another engine, or '
                    'lower --output.min_agreement'
                )
            self._drop(replace(self._trials[name], remark=sentence))

    def race(self, seconds: float) -> None:
        """Let the engines take turns on as much of the probe as keeps all cores busy, once each at least."""
        images = self._images[: 2 * processors()]
        taken: dict[EngineName, list[float]] = {name: [] for name in self._engines}
        stop = time.perf_counter() + seconds
        while not taken[REFERENCE] or time.perf_counter() < stop:
            for name, engine in self._engines.items():
                taken[name].append(seconds_of(engine, images))
        pixels = len(images) * images.shape[-2] * images.shape[-1] / 1e6
        for name, each in taken.items():
            self._trials[name] = replace(self._trials[name], rate=pixels / float(np.median(each)))

    def choose(self, wanted: EngineName | Literal['auto']) -> Choice:
        """Keep the engine that is wanted, or the fastest; close the others."""
        best = max(self._engines, key=lambda name: self._trials[name].rate or 0) if wanted == 'auto' else wanted
        for name in list(self._engines):
            remark = 'chosen' if name == best else 'slower' if wanted == 'auto' else 'reference'
            self._trials[name] = replace(self._trials[name], remark=remark)
            if name != best:
                self._engines.pop(name).close()
        return Choice(self._engines[best], tuple(self._trials.values()))

    def close(self) -> None:
        """Close all engines."""
        for engine in self._engines.values():
            engine.close()

    def _codes_of(self, engine: Engine) -> NDArray[np.int64]:
        return predicted_codes(engine(self._images)).cpu().numpy()

    def _drop(self, trial: Trial) -> None:
        self._trials[trial.name] = trial
        if trial.name in self._engines:
            self._engines.pop(trial.name).close()
