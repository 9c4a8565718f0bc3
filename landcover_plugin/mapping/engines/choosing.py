"""Which engine maps: the fastest that agrees with the reference on the data at hand."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import LandcoverError
from ...machine import processors, return_free_memory
from ...models.outputs import predicted_codes
from .base import Engine, EngineName, Shape
from .building import build_engine
from .trials import Choice, Trial, seconds_of, timed

REFERENCE: EngineName = 'torch'

#: Least share of pixels that get the class that the reference gives them.
MIN_AGREEMENT = 0.995

#: What ``auto`` tries, those of less precision first; the compiler takes longer than small maps do.
CANDIDATES: tuple[EngineName, ...] = ('torch-bf16', 'openvino-int8', 'openvino-bf16', 'openvino', 'onnxruntime')

#: Engines that compute as precisely as the reference, and how much faster than it they cannot be (for a U-Net-ResNet50
#: they are 1.1 to 1.7 times as fast): where another engine is, they are not built, which takes time and memory.
_FLOAT32, _OUT_OF_REACH = ('openvino', 'onnxruntime'), 4.0

#: Seconds in which the engines take turns.
_TRIAL_SECONDS = 4.0

#: Engines that need so many times as long as the fastest for their first pass do not take turns: each of them takes
#: memory. What an engine only does once makes fast ones look slower there, hence the wide margin.
_HOPELESS = 3.0


def choose_engine(
    name: EngineName | Literal['auto'],
    network: nn.Module,
    images: Tensor,
    *,
    valid: Tensor | None = None,
    batch_size: int | None = None,
    min_agreement: float = MIN_AGREEMENT,
    candidates: Sequence[EngineName] = CANDIDATES,
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
        seconds: How long the engines that may be the fastest take turns, at least one each.

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
    probe = _Probe(network, images, measured, shape)
    try:
        for each in names:
            if name == 'auto' and probe.is_out_of_reach(each):
                continue
            probe.admit(each, min_agreement, must=name == each)
            if name == 'auto':
                probe.leave_out_slow_ones()
        if len(names) > 1:
            probe.race(seconds)
        return probe.choose(name)
    except BaseException:
        probe.close()
        raise


class _Probe:
    """Engines that are tried on the same windows."""

    def __init__(self, network: nn.Module, images: Tensor, measured: NDArray[np.bool_], shape: Shape) -> None:
        self._network, self._images, self._measured, self._shape = network, images, measured, shape
        self._converted: dict[str, Any] = {}
        self._engines: dict[EngineName, Engine] = {}
        self._trials: dict[EngineName, Trial] = {}
        self._codes: NDArray[np.int64] | None = None

    def admit(self, name: EngineName, min_agreement: float, *, must: bool) -> None:
        """Build an engine and compare it with the reference, which comes first."""
        try:
            engine = build_engine(name, self._network, self._shape, self._images, converted=self._converted)
            self._engines[name] = engine
            probabilities, seconds = timed(engine, self._images)
            codes = predicted_codes(probabilities).cpu().numpy()
            del probabilities
        except Exception as e:  # converters and compilers raise whatever they like
            if must or name == REFERENCE:
                raise
            self._drop(Trial(name, remark=' '.join(str(e).split()) or type(e).__name__))
            return
        self._codes = codes if self._codes is None else self._codes
        agreement = float((codes == self._codes)[self._measured].mean())
        self._trials[name] = Trial(name, _rate(self._images, seconds), agreement)
        if agreement < min_agreement:
            sentence = f'{agreement:.4f} of the pixels get the class of the reference, fewer than {min_agreement:g}'
            if must:
                raise LandcoverError(
                    f'{name} does not agree with torch in float32 on these data: {sentence}; choose another engine, or '
                    'lower --output.min_agreement'
                )
            self._drop(replace(self._trials[name], remark=sentence))

    def is_out_of_reach(self, name: EngineName) -> bool:
        """Whether an engine, which is then not tried, cannot come near another one."""
        if name not in _FLOAT32:
            return False
        times = self._best / (self._trials[REFERENCE].rate or self._best)
        if times < _OUT_OF_REACH:
            return False
        self._trials[name] = Trial(name, remark=f'not tried: float32, and another one is {times:.1f} x torch')
        return True

    @property
    def _best(self) -> float:
        return max(self._trials[name].rate or 0 for name in self._engines)

    def leave_out_slow_ones(self) -> None:
        """Close the engines that cannot be the fastest."""
        best = self._best
        for trial in [self._trials[name] for name in self._engines]:
            if (trial.rate or 0) * _HOPELESS < best:
                self._drop(replace(trial, remark='slower'))
        return_free_memory()

    def race(self, seconds: float) -> None:
        """Let the engines take turns on a window for each core, once each at least."""
        self._converted.clear()
        images = self._images[: processors()]
        taken: dict[EngineName, list[float]] = {name: [] for name in self._engines}
        stop = time.perf_counter() + seconds
        while not all(taken.values()) or time.perf_counter() < stop:
            for name, engine in self._engines.items():
                taken[name].append(seconds_of(engine, images))
        for name, each in taken.items():
            self._trials[name] = replace(self._trials[name], rate=_rate(images, float(np.median(each))))

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

    def _drop(self, trial: Trial) -> None:
        self._trials[trial.name] = trial
        if trial.name in self._engines:
            self._engines.pop(trial.name).close()


def _rate(images: Tensor, seconds: float) -> float:
    """Million pixels per second."""
    return len(images) * images.shape[-2] * images.shape[-1] / 1e6 / seconds
