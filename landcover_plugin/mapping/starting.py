"""The engine of a run and its sizes: found by a short probe of the data, or taken from the run that is gone on with."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from ..machine import free_memory, processors
from ..sampling.lattice import Lattice
from ..training.augmentation import Batch
from ..training.datamodule import CataloniaDataModule
from ..training.prediction import WindowBatches
from .engines import (
    ENGINES,
    Engine,
    EngineName,
    build_engine,
    choose_engine,
    cpu_batch,
    tune_batch,
    tune_patch_size,
)
from .engines.trials import seconds_of
from .options import MapOptions

log = logging.getLogger(__name__)

#: Windows of the probe: the most and the least, and the pixels of wide ones.
PROBE, _LEAST, _PIXELS = 12, 3, 12 * 512**2

#: Maps that the reference makes within so many seconds are left to it: a probe would take as long.
QUICK = 60.0

#: Windows of other sizes are tried for maps that take the reference so many seconds: on less ground the fastest engine
#: saves less by them than it takes to find them.
LONG = 1800.0

#: Edges of windows that are compared, as multiples of the training's patch size, and on how many squares of ground.
_FACTORS, _SQUARES = (1, 2, 3), 2

#: Free memory without which an edge is not tried on a CPU: what the start takes anyway, and what each pixel takes that
#: the cores compute at once. A U-Net-ResNet50 on two cores took 3.1 GB at 256 px and 4.4 at 768, 1.6 of it before.
_BASE, _EACH = 2e9, 1024


class Start(NamedTuple):
    """What a run begins with.

    Attributes:
        engine: Ready to be called.
        batch_size: Windows in a batch.
        trials: What was tried, in words; empty if nothing was.
    """

    engine: Engine
    batch_size: int
    trials: str = ''


def start(
    network: nn.Module,
    data: CataloniaDataModule,
    options: MapOptions,
    *,
    batch_size: int | None,
    earlier: Mapping[str, Any] | None = None,
) -> Start:
    """Build the engine.

    Args:
        network: From normalised images to probabilities, on the device of the trainer.
        data: What is mapped.
        options: Which engine is wanted.
        batch_size: Windows in a batch; None takes what suits a CPU, and finds what suits another device where the
            engine is found.
        earlier: Plan of a run that may be gone on with, whose batch and engine are taken rather than others found.

    Raises:
        LandcoverError: If the engine cannot be had, or does not agree with the reference.
    """
    batches = data.windows(data.all_runs())
    on_cpu = _is_on_cpu(network)
    before = earlier or {}
    given = batch_size or before.get('batch_size') or (cpu_batch() if on_cpu else data.settings.batch_size)
    wanted = options.engine
    known = before.get('engine')
    if wanted == 'auto' and known in ENGINES:
        wanted = known
        log.info('the engine of the earlier run, %s, goes on', wanted)
    elif wanted == 'auto' and not _takes(QUICK, network, data, batches):
        wanted = 'torch'
    if wanted == 'torch':
        return Start(build_engine('torch', network, _shape(data, given)), given)
    probe = _probe(data, batches)
    if probe is None:
        return Start(build_engine('torch', network, _shape(data, given)), given)
    choice = choose_engine(
        wanted, network, probe['image'], valid=probe['valid'], batch_size=given, min_agreement=options.min_agreement
    )
    if options.engine == 'auto' and batch_size is None and known is None and not on_cpu:
        given, rates = tune_batch(choice.engine, probe['image'])
        log.info('windows in a batch: %d (%s)', given, ', '.join(f'{n}: {r:.2f} Mpx/s' for n, r in rates.items()))
    log.info('engines on windows of these data\n%s', choice.describe())
    return Start(choice.engine, given, choice.describe())


def follow(network: nn.Module, data: CataloniaDataModule, name: EngineName, batch_size: int) -> Start:
    """Build the engine that another process has chosen."""
    probe = _probe(data, data.windows(data.all_runs())) if name == 'openvino-int8' else None
    calibration = None if probe is None else probe['image']
    return Start(build_engine(name, network, _shape(data, batch_size), calibration), batch_size)


def find_patch_size(
    network: nn.Module, data: CataloniaDataModule, options: MapOptions, *, earlier: Mapping[str, Any] | None = None
) -> int:
    """The edge of windows in pixels: the fastest that gives nearly the map of the training's patch size.

    The overlap stays. Maps that do not take long keep the training's patch size, and so do machines with little memory.

    Args:
        network: From normalised images to probabilities, on the device of the trainer.
        data: What is mapped.
        options: Which agreement is wanted.
        earlier: Plan of a run that may be gone on with, whose edge is taken rather than another found.
    """
    size, known = int(data.settings.patch_size), (earlier or {}).get('patch_size')
    if isinstance(known, int) and known > data.overlap:
        return known
    factors = [factor for factor in _FACTORS if factor == 1 or _has_room(network, factor * size)]
    squares = Lattice(size * max(factors), data.overlap, data.lattice.shape)
    if len(factors) == 1 or min(squares.shape) < squares.size:
        return size
    if not _takes(LONG, network, data, data.windows(data.all_runs())):
        return size
    probe = data.windows(data.all_runs(lattice=squares)).sample(_SQUARES)
    if probe is None:
        return size

    def build(edge: int) -> Engine:  # what an edge is worth differs little between engines
        return build_engine('torch', network, (1, data.in_channels, edge, edge))

    found, trials = tune_patch_size(
        build, probe['image'], patch_size=size, overlap=data.overlap, factors=factors,
        min_agreement=options.min_agreement,
    )  # fmt: skip
    told = ', '.join(f'{edge} px: {t.rate:.2f} Mpx/s, agreement {t.agreement:.4f}' for edge, t in trials.items())
    log.info('edge of windows: %d px (%s)', found, told)
    return found


def _probe(data: CataloniaDataModule, batches: WindowBatches) -> Batch | None:
    """Windows of the data on which engines are compared, and int8 is calibrated."""
    return batches.sample(min(max(_PIXELS // data.settings.patch_size**2, _LEAST), PROBE))


def _shape(data: CataloniaDataModule, batch_size: int) -> tuple[int, int, int, int]:
    size = data.settings.patch_size
    return batch_size, data.in_channels, size, size


def _has_room(network: nn.Module, edge: int) -> bool:
    """Whether the memory suffices for windows of an edge; that of another device is tried out."""
    free = free_memory()
    return not (free and _is_on_cpu(network)) or free >= _BASE + processors() * edge**2 * _EACH


def _is_on_cpu(network: nn.Module) -> bool:
    return next((p.device.type for p in network.parameters()), 'cpu') == 'cpu'


def _takes(seconds: float, network: nn.Module, data: CataloniaDataModule, batches: WindowBatches) -> bool:
    """Whether the reference needs at least so many seconds for the map."""
    probe = batches.sample(1)
    if probe is None:
        return False
    engine = build_engine('torch', network, _shape(data, 1))
    try:
        engine(probe['image'])
        return sum(1 for _ in batches.looks()) * seconds_of(engine, probe['image']) >= seconds
    finally:
        engine.close()
