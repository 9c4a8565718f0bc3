"""The data of one experiment: rasters, split, patches and what happens to a batch on the device."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torchgeo.datamodules import GeoDataModule
from torchgeo.datasets.utils import Sample

from ..datasets.icgc import ICGCLandCover
from ..datasets.patches import CataloniaPatches
from ..datasets.reading_notes import ReadingNotes
from ..datasets.sentinel2 import CataloniaSentinel2, true_colour
from ..errors import LandcoverError
from ..grid import PixelWindow
from ..legend import Legend
from ..machine import processors
from ..rasters.cached import keep_blocks
from ..rasters.damage import Damage
from ..rasters.labels import Aggregation
from ..rasters.landcover import SourceLegend
from ..rasters.mosaics import Seasons
from ..sampling.blocks import Split, SplitName
from ..sampling.inventory import Inventory
from ..sampling.lattice import Lattice, cut_strips
from ..sampling.polygons import write_split
from ..sampling.regions import Region, read_polygons, region_of, regions_by, window_of_bbox
from ..sampling.runs import Strip, StripRun, divide, join_runs
from ..sampling.samplers import BalancedPatchSampler, CoverSampler, RankSampler
from .augmentation import Batch, BatchTransform, PurityUse, geometry_augmentations, light_augmentations
from .batches import pad_and_stack
from .data_settings import block_bytes, cache_folder, check_settings
from .ground import ExperimentGround
from .killed_workers import killed_worker
from .mixing import MixName, mixing
from .prediction import WindowBatches
from .resuming import ResumableLoader, trained_patches
from .sources import Sources


class CataloniaDataModule(GeoDataModule):
    """Sentinel-2 mosaics and ICGC labels, split by blocks of ground.

    Batches on the device hold ``image`` ``(B, C, H, W)``, normalised and 0 where not measured, ``valid``
    ``(B, H, W)`` and, except in prediction, ``mask`` ``(B, H, W)`` with codes 0-12. Those of the test hold ``purity``
    ``(B, H, W)`` and ``place`` ``(B, 5)`` too: row, column, height, width and look of each patch.
    """

    def __init__(
        self,
        root: str = 'data',
        bands: list[str] | None = None,
        band_order: list[str] | None = None,
        seasons: Seasons = 'separate',
        reflectance_scale: float = 10_000,
        reflectance_offset: float = 0,
        nodata: float | None = None,
        source_legend: SourceLegend = 'auto',
        aggregation: Aggregation = 'mode',
        aggregation_weights: dict[int, float] | None = None,
        purity: PurityUse = 'none',
        unknown_labels: Literal['error', 'ignore'] = 'error',
        patch_size: int = 256,
        patch_sizes: list[int] | None = None,
        batch_size: int = 8,
        length: int | None = None,
        num_workers: int | None = None,
        ratios: list[float] = [0.8, 0.1, 0.1],  # noqa: B006 - jsonargparse shows the default in --help
        block_size: int | None = None,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        blocks: str | None = None,
        balance: float = 0.5,
        min_labelled: float = 0.05,
        min_valid: float = 0.05,
        max_water: float = 0.99,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        augment: bool = True,
        crop: int | None = None,
        brightness: float = 0.1,
        contrast: float = 0.1,
        noise: float = 0.05,
        band_dropout: float = 0.05,
        mix: MixName = 'none',
        mix_p: float = 0.5,
        bbox: list[float] | None = None,
        bbox_wgs84: list[float] | None = None,
        aoi: str | list[str] | None = None,
        damaged: Literal['error', 'nodata'] = 'error',
        overlap: int | None = None,
        store: str | None = None,
        cache: str | None = None,
        cache_size: float | None = None,
    ) -> None:
        """Keep the settings; rasters are opened in ``setup``.

        Args:
            root: Folder that holds CatLC-named rasters (S2_*_YYYYMM_*.tif, LC_YYYY_*.tif) anywhere below, here or in a
                bucket (gs://, s3://).
            bands: Bands by name, in the order wanted (default: all of the files).
            band_order: Names of the bands in the files, where the files do not describe them.
            seasons: separate: each month is a look of its own at the ground; stack: months are concatenated
                along the channels.
            reflectance_scale: Reflectance is (DN + reflectance_offset) / reflectance_scale.
            reflectance_offset: BOA_ADD_OFFSET of the product: -1000 from processing baseline 04.00 (January 2022) on.
            nodata: Digital number of unmeasured pixels (default: as the file declares, else 0).
            source_legend: Values of the labels: the 12 codes, the 41 MCSC values, or auto.
            aggregation: How 1 m labels become a pixel of the image: mode (majority), nearest, or weighted (majority in
                which narrow classes count more).
            aggregation_weights: Of weighted, by code (default: more for isolated urban areas and transport).
            purity: Purity is the share of a pixel that its label covers. none: every labelled pixel counts alike;
                weight: a pixel weighs as much as it is pure; soft: the loss is against the shares of all classes.
            unknown_labels: What to do with label values outside the legend: error, or ignore (treat as no data).
            patch_size: Edge of patches in pixels.
            patch_sizes: Several edges, one of which is drawn for each training batch (multi-scale training).
            batch_size: Patches in a batch.
            length: Training patches in an epoch (default: as many as the training ground holds side by side,
                times the looks). A last batch that is not full is left out.
            num_workers: Processes that read patches (default: none on a CPU, where they would only take time from the
                network; else half the processors, at most 8).
            ratios: Shares of training, validation and test ground.
            block_size: Edge of the blocks of ground in pixels (default: two to eight patches, by the area).
            split_seed: Seed of the assignment of blocks.
            folds: Number of folds for cross-validation, in place of ratios.
            fold: Which fold is the test, from 0.
            blocks: Vector file with a split column (train, val, test), in place of drawn blocks.
            balance: 0 draws each labelled pixel alike, 1 each class alike.
            min_labelled: Least share of labelled pixels in a training patch.
            min_valid: Least share of measured pixels in a training patch.
            max_water: Largest share of water among the labelled pixels of a training patch.
            mean: Mean reflectance of each channel (default: computed over training ground, kept in the checkpoint).
            std: Standard deviation of each channel (default: likewise).
            augment: Flip, turn and change the light of training patches.
            crop: Random crop of training patches to this edge in pixels.
            brightness: Largest shift of a group of bands, in standard deviations.
            contrast: Largest relative change of a group of bands.
            noise: Standard deviation of noise, in standard deviations of the band.
            band_dropout: Probability of hiding one band of a training patch.
            mix: Paste parts of other patches of the batch into training patches: cutmix (a rectangle), classmix (half
                of the classes) or copy_paste (pixels of rare classes).
            mix_p: Probability of mixing a patch.
            bbox: Area to map, [xmin, ymin, xmax, ymax] in units of the mosaics' CRS (default: all of the mosaics).
            bbox_wgs84: Area to map, [west, south, east, north] in degrees.
            aoi: Vector file with polygons to map, or several files; what lies outside is no data. Together with a bbox:
                what lies in both.
            damaged: What to do with blocks of the mosaics that cannot be read when mapping: error, or nodata (leave
                them out of the map, and say so).
            overlap: Pixels that neighbouring windows share in prediction (default: a quarter of patch_size).
            store: Training store that landcover prepare wrote (default: .landcover/store below root, where there is
                one); none reads the sources.
            cache: Local folder for inventories and blocks (default: .landcover below root, or, for a root in a bucket,
                in the user's cache).
            cache_size: Gigabytes that blocks of rasters on servers may take there (default: for a root in a bucket, a
                quarter of the free disk, at most 20; else 0, none are kept).
        """
        super().__init__(CataloniaSentinel2, batch_size, patch_size, length, num_workers or 0, paths=root)
        self.save_hyperparameters()
        self.settings: Any = self.hparams
        check_settings(self.settings)
        self.sizes = list(patch_sizes or [patch_size])
        self.cache = cache_folder(cache, root)
        keep_blocks(self.cache / 'blocks', block_bytes(cache_size, root, self.cache))
        self.sources = Sources(self.settings)
        self.ground = ExperimentGround(self.sources, self.sizes, self.cache)
        self.regions: list[Region] = []  #: What to map.
        #: What yet has to be predicted, if not all of the regions; asked for when the loader is made.
        self.runs_to_predict: Callable[[], Sequence[StripRun]] | None = None
        self._normalised = False  # in the threads that read
        self._transforms: dict[str, BatchTransform] = {}
        self._seed: int | None = None
        self._killed: str | None = None

    # Rasters and ground

    def open_images(self) -> CataloniaSentinel2:
        """The mosaics, opened once: those of the training store where there is one that fits."""
        return self.sources.open_images()

    def open_labels(self) -> ICGCLandCover:
        """The labels on the grid of the mosaics, opened once: those of the training store where they fit."""
        return self.sources.open_labels()

    @property
    def in_channels(self) -> int:
        """Channels of ``image``; the command line hands this to the task."""
        return len(self.open_images().channels)

    @property
    def legend(self) -> Legend:
        """Names and colours of the classes: those of the label raster, or of the one that the checkpoint knew."""
        return self.sources.legend

    def inventory(self) -> Inventory:
        """What the ground holds, scanned once and cached."""
        return self.ground.inventory()

    @property
    def split(self) -> Split:
        """Which ground trains, validates and tests."""
        return self.ground.split

    def cell_counts(self) -> NDArray[np.uint32]:
        """Pixels of each code in each cell of training ground as large as a patch, shape ``(cells, num_classes)``."""
        return self.ground.cell_counts()

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, in reflectance.

        Raises:
            LandcoverError: If given ones do not match the channels.
        """
        return self.ground.normalisation()

    def write_blocks(self, path: str | os.PathLike[str]) -> None:
        """Write the split as a GeoPackage that any GIS opens and ``blocks`` reads back."""
        write_split(path, self.split, self.inventory())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs for testing and mapping without the training data's statistics."""
        return self.ground.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take statistics and split from a checkpoint; settings given by hand win over statistics."""
        self.ground.load(state_dict, needs_split=self.trainer is None or not self.trainer.predicting)
        self._transforms.clear()

    # Lightning

    def prepare_data(self) -> None:
        """Scan the rasters once, on one process, so that the others find the cache."""
        if self.trainer is not None and self.trainer.state.fn == 'fit':
            self.inventory()
            self.normalisation()

    def setup(self, stage: str) -> None:
        """Open the rasters that a stage needs.

        Raises:
            LandcoverError: If they are missing, damaged or do not fit each other.
        """
        images = self.open_images()
        if stage == 'predict':
            self.regions = [self.region()]
            self.predict_dataset = images
            images.mosaics.damage = Damage() if self.settings.damaged == 'nodata' else None
            return
        labels = self.open_labels()
        self.sources.warn_of_years()
        try:
            use = self.settings.purity
            self.train_dataset = CataloniaPatches(images, labels, purity=use == 'weight', shares=use == 'soft')
            size = self.settings.patch_size
            self.val_dataset = CataloniaPatches(images, labels, size=size)
            self.test_dataset = CataloniaPatches(images, labels, purity=True, places=True, size=size)
        except RuntimeError as e:
            raise LandcoverError(
                f'the labels {labels.files} do not overlap the mosaics {images.files}; name the folder that holds '
                'images and labels of the same ground'
            ) from e
        if stage == 'fit':
            self.ground.describe_split()

    def region(self) -> Region:
        """What to map: all of the mosaics, or what lies in the bbox and in the polygons.

        Raises:
            LandcoverError: If bbox or polygons are none, or lie outside the mosaics.
        """
        grid, area, aoi = self.open_images().grid, self._area(), self.settings.aoi
        if aoi is None:
            return Region(grid, area)
        return region_of(grid, area, read_polygons(aoi, grid), what=f'the aoi {aoi}')

    def regions_by(self, column: str) -> list[Region]:
        """A region for each polygon of the aoi, named by an attribute.

        Raises:
            LandcoverError: If there is no aoi, or its polygons cannot be named by it.
        """
        grid, aoi = self.open_images().grid, self.settings.aoi
        if aoi is None:
            raise LandcoverError(f'maps named by {{{column}}} need polygons with this attribute: give --data.aoi FILE')
        return regions_by(column, grid, self._area(), read_polygons(aoi, grid))

    def _area(self) -> PixelWindow:
        s = self.settings
        return window_of_bbox(self.open_images().grid, bbox=s.bbox, bbox_wgs84=s.bbox_wgs84)

    @property
    def lattice(self) -> Lattice:
        """The windows over the mosaics.

        Raises:
            LandcoverError: If the overlap is too large.
        """
        grid = self.open_images().grid
        return Lattice(self.settings.patch_size, self.overlap, (grid.height, grid.width))

    @property
    def overlap(self) -> int:
        """Pixels that neighbouring windows share in prediction."""
        return self.settings.patch_size // 4 if self.settings.overlap is None else self.settings.overlap

    def train_dataloader(self) -> DataLoader[Sample]:
        """Random patches of training ground; another draw each epoch."""
        s, world = self.settings, self._world()
        dataset = self._dataset('train')
        if self._seed is None:  # each step of a training seeds anew
            self._seed = torch.initial_seed() % 2**32
        self.train_sampler = BalancedPatchSampler(
            dataset,
            inventory=self.inventory(),
            patch_sizes=self.sizes,
            region=self.split.region('train'),
            looks=self.open_images().looks,
            length=s.length,
            seed=self._seed,
            balance=s.balance,
            min_labelled=s.min_labelled,
            min_valid=s.min_valid,
            max_water=s.max_water,
            group=s.batch_size * world,
        )
        dataset.patches = len(self.train_sampler)  # lightning's batch finder goes no further
        if self.trainer is not None:  # lightning 2.6: a resumed run starts the workers before it sets the epoch
            epoch, patches = trained_patches(self.trainer, s.batch_size)
            self.train_sampler.set_epoch(epoch)
            self.train_sampler.pass_over(epoch, patches)
        return self._loader(dataset, self.train_sampler, training=True)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Validation ground, each pixel once."""
        return self._cover('val')

    def test_dataloader(self) -> DataLoader[Sample]:
        """Test ground, each pixel once."""
        return self._cover('test')

    def predict_dataloader(self) -> WindowBatches:  # type: ignore[override] # Lightning takes any iterable
        """Windows of what to map, and each look at them; of several processes, each gets its share."""
        if self.runs_to_predict is not None:
            runs = self.runs_to_predict()
        else:
            rank = self.trainer.global_rank if self.trainer is not None else 0
            runs = self.all_runs(rank, self._world())
        device = None if self.trainer is None else self.trainer.strategy.root_device.type
        self._normalised = device == 'cpu'
        return self.windows(runs, normalised=self._normalised, pin=device == 'cuda')

    def windows(self, runs: Sequence[StripRun], *, normalised: bool = True, pin: bool = False) -> WindowBatches:
        """The windows of some runs in batches.

        Args:
            runs: What to read, of one lattice.
            normalised: Normalise images while they are read.
            pin: See :class:`WindowBatches`.
        """
        images = self.open_images()
        return WindowBatches(
            images,
            runs,
            size=runs[0].lattice.size if runs else self.settings.patch_size,
            batch_size=self.settings.batch_size,
            normalisation=self._transform('eval').normalisation(images.raw) if normalised else None,
            threads=self.settings.num_workers,
            fill=not normalised,
            pin=pin,
        )

    def all_runs(self, rank: int = 0, world: int = 1, lattice: Lattice | None = None) -> list[StripRun]:
        """Everything that is to be mapped, or the share of one of several processes.

        Args:
            rank: Number of the process.
            world: Number of processes.
            lattice: Of the windows (default: :attr:`lattice`).
        """
        regions, lattice = self.regions or [self.region()], lattice or self.lattice
        strips = [
            Strip(number, window)
            for number, region in enumerate(regions)
            for window in cut_strips(region.area)
            if region.meets(window)
        ]
        return join_runs(divide(strips, lattice, world)[rank], regions, lattice)

    def _cover(self, name: SplitName) -> DataLoader[Sample]:
        images, windows = self.open_images(), self.split.windows(name)
        if not windows:
            raise LandcoverError(f'the split holds no {name} ground; give {name} a share of the ratios or polygons')
        dataset = self._dataset(name)
        sampler = CoverSampler(
            dataset, grid=images.grid, windows=windows, patch_size=self.settings.patch_size, looks=images.looks
        )
        return self._loader(dataset, sampler, training=False)

    def _dataset(self, name: SplitName) -> CataloniaPatches:
        dataset = getattr(self, f'{name}_dataset')
        if not isinstance(dataset, CataloniaPatches):
            self.setup('validate')
            dataset = getattr(self, f'{name}_dataset')
        return dataset

    def killed_worker(self, error: BaseException) -> str | None:
        """What happened, where an error comes from a process of a loader that was killed; see the function."""
        datasets = (getattr(self, f'{name}_dataset', None) for name in ('train', 'val', 'test'))
        return self._killed or killed_worker(error, [data for data in datasets if isinstance(data, CataloniaPatches)])

    def on_exception(self, exception: BaseException) -> None:
        """See whether a process of a loader was killed, before Lightning ends the others."""
        self._killed = self.killed_worker(exception)

    def _world(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    def _workers(self) -> int:
        """Processes that read patches: as many as asked for, else what serves the device."""
        if self.settings.num_workers is not None or self.trainer is None:
            return self.num_workers
        return 0 if self.trainer.strategy.root_device.type == 'cpu' else min(processors() // 2, 8)

    def _loader(self, dataset: CataloniaPatches, sampler: Any, *, training: bool) -> DataLoader[Sample]:
        if self._world() > 1 and self.trainer is not None:
            sampler = RankSampler(sampler, rank=self.trainer.global_rank, world=self._world(), even=training)
        workers = self._workers()
        dataset.notes = ReadingNotes(workers) if workers else None
        return ResumableLoader(
            dataset,
            batch_size=self.settings.batch_size,
            sampler=sampler,
            num_workers=workers,
            drop_last=training and len(sampler) > self.settings.batch_size,  # one patch cannot be batch-normalised
            collate_fn=pad_and_stack if training else partial(pad_and_stack, size=self.settings.patch_size),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(0),  # worker seeds do not use up the global generator
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise the batch on its device, unless that was done when it was read; augment it in training."""
        if self.trainer is None or (self.trainer.predicting and self._normalised):
            return batch
        kind = 'train' if self.trainer.training else 'eval'
        if kind == 'train':
            self._seed_step(self.trainer)
        return self._transform(kind).to(batch['image'].device)(batch)

    def _seed_step(self, trainer: Trainer) -> None:
        """What chance decides in a step depends on the step alone: so a training can be gone on with."""
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        step = self._seed or 0, progress.ready, trainer.global_rank
        torch.manual_seed(int(np.random.SeedSequence(step).generate_state(1, np.uint64)[0] >> 1))

    def _transform(self, kind: str) -> BatchTransform:
        if kind not in self._transforms:
            mean, std = (torch.tensor(v, dtype=torch.float32) for v in self.normalisation())
            s = self.settings
            steps: dict[str, Any] = {'purity': s.purity if kind == 'train' else 'none'}
            if kind == 'train' and s.augment:
                strengths = {n: s[n] for n in ('brightness', 'contrast', 'noise', 'band_dropout')}
                steps['geometry'] = geometry_augmentations(s.crop)
                steps['light'] = light_augmentations(self.open_images().channels, **strengths)
                steps['mixing'] = mixing(s.mix, s.mix_p, self.ground.class_counts)
            self._transforms[kind] = BatchTransform(
                mean, std, scale=s.reflectance_scale, offset=s.reflectance_offset, **steps
            )
        return self._transforms[kind]

    def to_rgb(self, image: Tensor) -> NDArray[np.float32]:
        """A normalised image ``(C, H, W)`` as a true-colour picture ``(H, W, 3)`` in [0, 1].

        Without red, green and blue among the bands, the first three channels stand for them.
        """
        mean, std = (torch.tensor(v)[:, None, None] for v in self.normalisation())
        reflectance = image.detach().cpu().float() * std + mean
        bands = self.open_images().bands
        if set(CataloniaSentinel2.rgb_bands) <= set(bands):
            return true_colour(reflectance, bands)
        first = reflectance[[0, min(1, len(reflectance) - 1), min(2, len(reflectance) - 1)]]
        return np.moveaxis((first / 0.3).clamp(0, 1).numpy(), 0, -1)
