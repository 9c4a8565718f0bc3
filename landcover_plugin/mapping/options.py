"""How a map is computed, from the settings of the user: network, engine, sizes, refinement."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ..errors import LandcoverError
from ..grid import PixelGrid
from ..rasters.identity import sha256
from ..training.datamodule import CataloniaDataModule
from ..training.temperature import check_temperature, find_temperature
from .engines import ENGINES, MIN_AGREEMENT, EngineName
from .members import load_members
from .network import Augmentation, MappingNetwork, Member
from .refinement import Codes, MajoritySmoothing, MinimumMappingUnit, pixels_of_area
from .seams import Refinement, Tidying
from .smoothing import BayesianSmoothing

log = logging.getLogger(__name__)

#: Variance of the logits of :class:`BayesianSmoothing`, the default of the R package sits.
SMOOTHNESS = 20.0


@dataclass(frozen=True)
class MapOptions:
    """Settings of a map, as on the command line.

    Attributes:
        engine: See :func:`~landcover_plugin.mapping.engines.choose_engine`.
        min_agreement: Likewise.
        tta: Test-time augmentation, see :class:`MappingNetwork`.
        scales: Likewise.
        ensemble: Other checkpoints whose probabilities are averaged with those of the first.
        temperature: By which logits are divided; auto takes what ``landcover validate --calibrate`` found.
        smooth: Window of Bayesian smoothing in pixels; 0 for none.
        smoothness: See :class:`BayesianSmoothing`.
        majority: Window of majority smoothing in pixels; 0 for none.
        mmu: Minimum mapping unit in square metres; 0 for none.

    Raises:
        LandcoverError: If a setting is out of range.
    """

    engine: EngineName | Literal['auto'] = 'auto'
    min_agreement: float = MIN_AGREEMENT
    tta: Augmentation = 'none'
    scales: Sequence[float] = (1.0,)
    ensemble: Sequence[str] = ()
    temperature: float | Literal['auto'] = 'auto'
    smooth: int = 0
    smoothness: float = SMOOTHNESS
    majority: int = 0
    mmu: float = 0.0

    def __post_init__(self) -> None:
        if self.engine not in (*ENGINES, 'auto'):
            raise LandcoverError(f'engine must be auto or one of {", ".join(ENGINES)}, got {self.engine!r}')
        if not 0 <= self.min_agreement <= 1:
            raise LandcoverError(f'min_agreement must be a share of pixels in [0, 1], got {self.min_agreement:g}')
        if not isinstance(self.temperature, str):
            check_temperature(self.temperature)
        elif self.temperature != 'auto':
            raise LandcoverError(f'temperature must be auto or a number, got {self.temperature!r}')
        if self.mmu < 0:
            raise LandcoverError(f'mmu must be an area in square metres, 0 for none, got {self.mmu:g}')

    def network(self, network: nn.Module, checkpoint: str | os.PathLike[str] | None, data: CataloniaDataModule) -> Any:
        """The network that maps.

        Args:
            network: Of the checkpoint, from normalised images to logits.
            checkpoint: Its file.
            data: By which images are read and normalised.
        """
        mean, std = data.normalisation()
        images, s = data.open_images(), data.settings
        others = load_members(
            self.ensemble,
            channels=images.channels,
            mean=mean,
            std=std,
            reflectance=[float(s.reflectance_scale), float(s.reflectance_offset)],
        )
        first = Member(network, self.temperature_of(checkpoint))
        return MappingNetwork([first, *others], tta=self.tta, scales=self.scales)

    def temperature_of(self, checkpoint: str | os.PathLike[str] | None) -> float:
        """The temperature of the first network."""
        if not isinstance(self.temperature, str):
            return self.temperature
        found = find_temperature(checkpoint) if checkpoint is not None else None
        if found is not None:
            log.info('probabilities are calibrated: temperature %.3f', found)
        return 1.0 if found is None else found

    def refine(self) -> Refinement | None:
        """What changes probabilities before codes are decided."""
        return BayesianSmoothing(self.smooth, self.smoothness) if self.smooth else None

    def tidy(self, grid: PixelGrid) -> Tidying | None:
        """What changes codes."""
        steps: list[Tidying] = [MajoritySmoothing(self.majority)] if self.majority else []
        if self.mmu:
            steps.append(MinimumMappingUnit(pixels_of_area(self.mmu, grid)))
        return _Steps(steps) if steps else None

    def record(self, checkpoint: str | os.PathLike[str] | None) -> dict[str, Any]:
        """What decides the map beside the engine, as JSON: members of the ensemble by their checksums."""
        return {
            'tta': self.tta,
            'smooth': self.smooth,
            'smoothness': self.smoothness,
            'majority': self.majority,
            'mmu': self.mmu,
            'scales': [float(scale) for scale in self.scales],
            'ensemble': [sha256(path) for path in self.ensemble],
            'temperature': self.temperature_of(checkpoint),
        }


class _Steps:
    """One step after the other."""

    def __init__(self, steps: Sequence[Tidying]) -> None:
        self.steps = steps
        self.halo = sum(step.halo for step in steps)

    def __call__(self, codes: Codes) -> Codes:
        for step in self.steps:
            codes = step(codes)
        return codes

    def __repr__(self) -> str:
        return ' '.join(map(repr, self.steps))
