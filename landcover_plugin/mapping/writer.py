"""From predicted windows to maps on disk: the callback that `landcover predict` gives to Lightning."""

import logging
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
import rasterio
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from ..errors import LandcoverError
from ..machine import return_free_memory
from ..rasters.identity import sha256
from ..rasters.layers import Kind
from ..rasters.staging import read_plan
from ..rasters.stand_ins import local_copy
from ..rasters.writing import MapFolder
from ..sampling.runs import Strip, StripRun, divide, join_runs
from ..training.datamodule import CataloniaDataModule
from ..training.prediction import block_cache_bytes
from .engines import MIN_AGREEMENT, Engine, EngineName, Pending
from .finishing import Effort, Extras, finish_maps
from .maps import MapJob, strips_of
from .network import Augmentation
from .options import SMOOTHNESS, MapOptions
from .plan import area_of, settings_of
from .progress import Progress
from .provenance import provenance
from .seams import Tidying
from .session import Predicted, Session
from .starting import Start, find_patch_size, follow, start

log = logging.getLogger(__name__)

#: The name of an attribute in a path.
_PLACE = re.compile(r'\{([^{}]+)\}')


class MapWriter(Callback):
    """Blends the predicted windows and writes the map strip by strip, in memory that does not grow with the area.

    Windows overlap; each is weighted by a taper that falls towards its rim, and different looks at the same ground
    (seasons) are averaged. Finished strips are kept in a hidden folder beside the map: a run that was interrupted or
    killed goes on with the same command and gives the same map. Files appear under their names when they are whole.

    Args:
        path: The map, a GeoTIFF (COG) on the exact grid of the mosaics: uint8 codes with colours and class names. With
            the name of an attribute in braces, such as maps/{name}.tif, one map for each polygon of the aoi.
        confidence: Also write <path>_confidence.tif: percent of the chosen class.
        entropy: Also write <path>_entropy.tif: how undecided the network is, in percent.
        probabilities: Also write <path>_probabilities.tif: percent of each class, one band each.
        png: Also draw <path>.png with a legend.
        stac: Also write <path>.stac.json, an item for STAC catalogues.
        overwrite: Replace older files.
        engine: What computes the network: torch (PyTorch in float32, the reference), torch-bf16, compile, openvino,
            openvino-bf16, openvino-int8, onnxruntime, or auto: the fastest that is installed and agrees with the
            reference on windows of the very data; what the reference maps in a minute is left to it.
        min_agreement: Least share of pixels to which an engine has to give the class that the reference gives.
        batch_size: Windows in a batch (default: on a CPU one for each core; on other devices found by a short probe
            where auto looks for an engine, else data.batch_size).
        patch_size: Edge of windows in pixels: a number, or auto: that of the training, or two or three times as much
            where the map would take the reference half an hour or more, and that is faster and agrees. The overlap
            stays.
        tta: Test-time augmentation: none, flips (4 looks at each window) or dihedral (8); takes so many times as long.
        scales: Sizes at which a window is seen, such as [0.75, 1, 1.25]; probabilities are averaged.
        ensemble: Other checkpoints, whose probabilities are averaged with those of the first.
        temperature: Logits are divided by it; auto takes what landcover validate --calibrate true found, else 1.
        smooth: Edge of the neighbourhood of Bayesian smoothing in pixels, such as 7; 0 for none.
        smoothness: Variance of the logits in Bayesian smoothing: the larger, the smoother.
        majority: Edge of the neighbourhood of majority smoothing in pixels, such as 3; 0 for none.
        mmu: Minimum mapping unit in square metres: smaller regions join a neighbour; 0 for none. (The specification of
            the ICGC's map says 500.)

    Raises:
        LandcoverError: Before predicting, if a file cannot be written; afterwards, if nothing was measured there.
    """

    def __init__(
        self,
        path: str,
        confidence: bool = False,
        entropy: bool = False,
        probabilities: bool = False,
        png: bool = False,
        stac: bool = True,
        overwrite: bool = False,
        engine: EngineName | Literal['auto'] = 'auto',
        min_agreement: float = MIN_AGREEMENT,
        batch_size: int | None = None,
        patch_size: int | Literal['auto'] = 'auto',
        tta: Augmentation = 'none',
        scales: list[float] = [1.0],  # noqa: B006 - jsonargparse shows the default in --help
        ensemble: list[str] = [],  # noqa: B006
        temperature: float | Literal['auto'] = 'auto',
        smooth: int = 0,
        smoothness: float = SMOOTHNESS,
        majority: int = 0,
        mmu: float = 0.0,
    ) -> None:
        for name, value in (('batch_size', batch_size), ('patch_size', patch_size)):
            if isinstance(value, int) and value < 1:
                raise LandcoverError(f'output.{name} must be at least 1, got {value}')
        self.path, self.overwrite = path, overwrite
        self.batch_size, self.patch_size = batch_size, patch_size
        self.extras = Extras(png=png, stac=stac)
        others = tuple(str(local_copy(path)) for path in ensemble)
        self.options = MapOptions(
            engine, min_agreement, tta, tuple(scales), others, temperature, smooth, smoothness, majority, mmu
        )
        self.refine = self.options.refine()
        self.tidy: Tidying | None = None
        wanted: dict[Kind, bool] = {'confidence': confidence, 'entropy': entropy, 'probabilities': probabilities}
        self.kinds = [kind for kind, is_wanted in wanted.items() if is_wanted]
        self.jobs: list[MapJob] = []
        self._session: Session | None = None
        self._engine: Engine | None = None
        self._stack = ExitStack()

    # Before

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Fail before computing if the maps could not be written afterwards."""
        if stage != 'predict':
            return
        data = data_of(trainer)
        columns = set(_PLACE.findall(self.path))
        if len(columns) > 1:
            raise LandcoverError(f'{self.path} names several attributes; maps are named by one')
        for column in columns:
            data.regions = data.regions_by(column)
        paths = [
            self.path.replace(f'{{{column}}}', region.name) for region in data.regions for column in columns or ('',)
        ]
        self.jobs = [
            MapJob(region, MapFolder(path, region.grid.subgrid(region.area), self.kinds, data.legend), data.legend)
            for region, path in zip(data.regions, paths, strict=True)
        ]
        for job in self.jobs:
            job.folder.check(self.extras.paths(job.folder.target), overwrite=self.overwrite)
        data.runs_to_predict = lambda: self._begin(trainer, pl_module)

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> Start:
        """Decide on engine and sizes: the first process does, and the others do as it does."""
        data, world = data_of(trainer), trainer.strategy
        network = self.options.network(pl_module.model, trainer.ckpt_path, data)  # type: ignore[arg-type]
        overlap = data.overlap  # of the training's patch size
        if isinstance(self.patch_size, int) and self.patch_size <= overlap:
            raise LandcoverError(
                f'output.patch_size must be more than the overlap of windows, {overlap} px, got {self.patch_size}; '
                'choose larger windows, or less overlap by --data.overlap'
            )
        earlier = read_plan(self.jobs[0].folder.folder) if trainer.is_global_zero else None
        edge: int | str = self.patch_size
        if edge == 'auto':
            edge = find_patch_size(network, data, self.options, earlier=earlier) if trainer.is_global_zero else 0
        data.settings.patch_size, data.settings.overlap = world.broadcast(edge), overlap
        if trainer.is_global_zero:
            begun = start(network, data, self.options, batch_size=self.batch_size, earlier=earlier)
            world.broadcast((begun.engine.name, begun.batch_size))
            return begun
        chosen: Any = world.broadcast(None)
        return follow(network, data, *chosen)

    def settings(self, trainer: Trainer, data: CataloniaDataModule) -> dict[str, Any]:
        """What decides the maps beside their areas, as JSON: strips of other settings are not gone on with."""
        path = trainer.ckpt_path
        return {
            **settings_of(data),
            'checkpoint': sha256(path) if path else None,
            'engine': None if self._engine is None else self._engine.name,
            'device': trainer.strategy.root_device.type,
            'layers': list(self.kinds),
            **self.options.record(path),
        }

    @property
    def halo(self) -> int:
        """Pixels around a strip that its result depends on."""
        return sum(step.halo for step in (self.refine, self.tidy) if step is not None)

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> Sequence[StripRun]:
        """Find out what is to be done, and take this process's share of it."""
        data = data_of(trainer)
        if self.tidy is None:
            self.tidy = self.options.tidy(data.open_images().grid)
        begun = self._start(trainer, pl_module)
        return_free_memory()
        self._engine, data.settings.batch_size, self._trials = begun
        pl_module.engine = self._engine.begin  # type: ignore[assignment]
        todo = trainer.strategy.broadcast(self._open(trainer, data) if trainer.is_global_zero else [])
        share = divide(todo, data.lattice, trainer.world_size)[trainer.global_rank]
        runs = join_runs(share, [job.region for job in self.jobs], data.lattice, self.halo)
        images = data.open_images()
        self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=block_cache_bytes(images, data.settings.patch_size)))
        self._begun, self._todo = time.monotonic(), todo
        self._session = Session(
            self.jobs,
            runs,
            self.kinds,
            looks=len(images.looks),
            progress=self._progress(trainer, share),
            damage=images.mosaics.damage,
            refine=self.refine,
            tidy=self.tidy,
        )
        return runs

    def _progress(self, trainer: Trainer, share: Sequence[Strip]) -> Progress:
        pixels = sum(strip.window.height * strip.window.width for strip in share)
        everything = sum(strip.height * strip.width for job in self.jobs for strip in job.strips)
        if trainer.world_size > 1:
            name = f'map, process {trainer.global_rank + 1} of {trainer.world_size}'
            return Progress(pixels, name=name, quiet=not trainer.is_global_zero)
        return Progress(everything, everything - pixels)

    def _open(self, trainer: Trainer, data: CataloniaDataModule) -> list[Strip]:
        """Make or take over the folders of the maps; the strips that are missing."""
        settings = self.settings(trainer, data)
        self._plans = [{**settings, **area_of(job.region)} for job in self.jobs]
        self._finished = set()
        for number, job in enumerate(self.jobs):
            if job.folder.open(self._plans[number], overwrite=self.overwrite):
                self._finished.add(number)
        todo = strips_of(self.jobs, [n for n in range(len(self.jobs)) if n not in self._finished])
        total = sum(len(job.strips) for n, job in enumerate(self.jobs) if n not in self._finished)
        if len(todo) < total:
            log.info('%d of %d strips are there from an earlier run: the others follow', total - len(todo), total)
        return todo

    # Meanwhile

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Hand a batch of windows to the thread that blends and writes."""
        assert self._session is not None  # noqa: S101 - there is a batch
        found: Tensor | Pending = outputs['probabilities']  # networks of others may give them at once

        def probabilities() -> NDArray[np.float32]:
            return (found if isinstance(found, Tensor) else found()).float().cpu().numpy()

        self._session.put(Predicted(batch['windows'].cpu().numpy(), probabilities, outputs['valid'].cpu().numpy()))

    # Afterwards

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the strips of all processes; then the first one makes the maps of them."""
        assert self._session is not None  # noqa: S101 - begun
        self._session.finish()
        self._close_engine(pl_module)
        trainer.strategy.barrier('strips')
        if trainer.is_global_zero:
            with self._stack:
                self._publish(trainer, pl_module, time.monotonic() - self._begun)
        trainer.strategy.barrier('maps')

    def _publish(self, trainer: Trainer, pl_module: LightningModule, seconds: float) -> None:
        jobs = {n: job for n, job in enumerate(self.jobs) if n not in self._finished}
        tags = provenance(trainer, pl_module, data_of(trainer))
        effort = Effort(self._todo, seconds, trainer.world_size, self._trials)
        finish_maps(jobs, self._plans, tags, effort, self.extras)

    def _close_engine(self, pl_module: LightningModule) -> None:
        if self._engine is not None:
            self._engine.close()
            pl_module.engine = None  # type: ignore[assignment]
            self._engine = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep the strips that are finished, and say how to go on."""
        if self._session is not None:
            self._session.abandon()
        self._close_engine(pl_module)
        self._stack.close()
        if not trainer.is_global_zero:
            return
        kept = sum(job.folder.leave() for job in self.jobs)
        if kept:
            total = sum(len(job.strips) for job in self.jobs)
            log.info('%d of %d strips are kept beside the map: the same command goes on with them', kept, total)


def data_of(trainer: Trainer) -> CataloniaDataModule:
    """The data module of a trainer.

    Raises:
        LandcoverError: If it is another one.
    """
    data = getattr(trainer, 'datamodule', None)
    if not isinstance(data, CataloniaDataModule):
        raise LandcoverError('MapWriter needs the windows of CataloniaDataModule; pass one to trainer.predict')
    return data
