"""The ground of an experiment: what it holds, how it is split, and the statistics of its training part."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.crs import CRS

from ..errors import LandcoverError
from ..legend import LEGEND, NODATA
from ..sampling.blocks import Split, SplitName, block_split, fold_split
from ..sampling.inventory import Inventory, cell_size, unknown_values_sentence
from ..sampling.inventory_cache import cached_inventory
from ..sampling.polygons import polygon_split
from .sources import Sources

log = logging.getLogger(__name__)

Normalisation = tuple[list[float], list[float]]


class ExperimentGround:
    """Split, counts and statistics: from the checkpoint where one was loaded, else computed and cached.

    Args:
        sources: The rasters.
        sizes: Edges of patches in pixels.
        cache: Folder for inventories.
    """

    def __init__(self, sources: Sources, sizes: list[int], cache: Path) -> None:
        self.sources, self.settings, self.sizes, self.cache = sources, sources.settings, sizes, cache
        mean, std = self.settings.mean, self.settings.std
        self._inventory: Inventory | None = None
        self._split: Split | None = None
        self._class_counts: NDArray[np.int64] | None = None
        self._normalisation: Normalisation | None = (list(mean), list(std)) if mean and std else None

    def inventory(self) -> Inventory:
        """What the ground holds, scanned once and cached.

        Raises:
            LandcoverError: If the labels hold values outside the legend, unless the settings ignore them.
        """
        if self._inventory is None:
            images, labels = self.sources.open_images().mosaics, self.sources.open_labels().rasters
            cell, store = cell_size(self.sizes), self.sources.store
            taken = store.inventory(images, cell) if store and images.files == store.images else None
            self._inventory = taken or cached_inventory(images, labels, cell, self.cache)
            if store:
                self._inventory = replace(self._inventory, unknown=store.unknown)
            if self._inventory.unknown and self.settings.unknown_labels == 'error':
                rasters = self.sources.labels_at_source().rasters
                raise LandcoverError(unknown_values_sentence(rasters, self._inventory.unknown))
        return self._inventory

    @property
    def split(self) -> Split:
        """Which ground trains, validates and tests."""
        if self._split is None:
            s, inventory, largest = self.settings, self.inventory(), max(self.sizes)
            drawn = {'patch_size': largest, 'block_size': s.block_size, 'seed': s.split_seed}
            if s.blocks:
                self._split = polygon_split(inventory, s.blocks, patch_size=largest)
            elif s.folds:
                self._split = fold_split(inventory, folds=s.folds, fold=s.fold, **drawn)
            else:
                self._split = block_split(inventory, ratios=s.ratios, **drawn)
        return self._split

    def class_counts(self) -> NDArray[np.int64]:
        """Training pixels of each code, shape ``(num_classes,)``."""
        if self._class_counts is None:
            self._class_counts = self.inventory().class_counts(self.split.region('train'))
        return self._class_counts

    def cell_counts(self) -> NDArray[np.uint32]:
        """Pixels of each code in each cell of training ground as large as a patch, shape ``(cells, num_classes)``."""
        inventory = self.inventory()
        train = replace(inventory, counts=inventory.counts * self.split.region('train')[..., None])
        return train.coarsened(self.settings.patch_size // inventory.cell).counts.reshape(-1, LEGEND.num_classes)

    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of each channel, in reflectance.

        Raises:
            LandcoverError: If given ones do not match the channels.
        """
        channels = self.sources.open_images().channels
        if self._normalisation is None:
            mean, std = self.inventory().band_statistics(self.split.region('train'))
            scale, offset = self._reflectance()
            self._normalisation = ((mean + offset) / scale).tolist(), np.maximum(std / scale, 1e-6).tolist()
        mean_, std_ = self._normalisation
        if not len(mean_) == len(std_) == len(channels):
            raise LandcoverError(
                f'mean and std need one number for each of the {len(channels)} channels {channels}, '
                f'got {len(mean_)} and {len(std_)}'
            )
        return self._normalisation

    def describe_split(self) -> None:
        """Say how much labelled ground each split has, and which classes it will not be able to score."""
        inventory, split = self.inventory(), self.split
        total = int(inventory.labelled.sum())
        names: tuple[SplitName, ...] = ('train', 'val', 'test')
        counts = {n: inventory.class_counts(split.region(n))[NODATA + 1 :] for n in names}
        shares = ', '.join(f'{n} {c.sum():,} px ({c.sum() / total:.0%})' for n, c in counts.items())
        lost = 1 - sum(int(c.sum()) for c in counts.values()) / total
        log.info('labelled ground: %s; %.0f%% lies in the buffers between blocks', shares, 100 * lost)
        for name in names[1:]:
            missing = [c for c in LEGEND.codes if inventory.class_counts()[c] and not counts[name][c - 1]]
            if counts[name].any() and missing:
                log.warning(
                    'the %s ground holds nothing of %s, so it cannot score that; a smaller patch_size or block_size, '
                    'or folds, may help', name, ', '.join(self.sources.legend[c].name for c in missing)
                )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs for testing and mapping without the training data's statistics."""
        if self._normalisation is None:
            return {}
        images, (mean, std) = self.sources.open_images(), self._normalisation
        state: dict[str, Any] = {'mean': list(mean), 'std': list(std)}
        state |= {'channels': images.channels, 'dates': images.dates}
        state['colours'] = self.sources.legend.palette.tolist()
        state['reflectance'] = self._reflectance()
        if self._split is not None:
            grid = self._split.grid
            state['split'] = {
                'key': self._split_key(),
                'crs': grid.crs.to_wkt(),
                'transform': list(grid.transform)[:6],
                'shape': [grid.height, grid.width],
                'cell': self._split.cell,
                'cells': torch.from_numpy(self._split.cells.copy()),
                'blocks': torch.from_numpy(self._split.blocks.copy()),
            }
        if self._class_counts is not None:
            state['class_counts'] = self._class_counts.tolist()
        return state

    def load(self, state: dict[str, Any], *, needs_split: bool) -> None:
        """Take statistics and split from a checkpoint; settings given by hand win over statistics.

        Args:
            state: What :meth:`state` gave.
            needs_split: Warn where its split cannot be taken. A map needs none.

        Raises:
            LandcoverError: If it was trained on other bands.
        """
        self._check_bands(state.get('channels'))
        if self.settings.mean is None and 'mean' in state:
            self._normalisation = state['mean'], state['std']
        trained = state.get('reflectance', self._reflectance())
        if trained != self._reflectance():
            log.warning(
                'the checkpoint was trained with reflectance scale and offset %s, these data are read with %s: right '
                'only if they are of another processing baseline', trained, self._reflectance()
            )  # fmt: skip
        self.sources.trained_legend = LEGEND.with_colours(dict(enumerate(state.get('colours', []))))
        saved = state.get('split')
        if not saved:
            return
        grid = self.sources.open_images().grid
        same_ground = (
            np.allclose(list(grid.transform)[:6], saved['transform'])
            and [grid.height, grid.width] == list(saved['shape'])
            and grid.crs == CRS.from_wkt(saved['crs'])
        )
        if same_ground and saved['key'] == self._split_key():
            self._split = Split(grid, saved['cell'], saved['cells'].numpy(), saved['blocks'].numpy())
            counts = state.get('class_counts')
            self._class_counts = None if counts is None else np.asarray(counts, dtype=np.int64)
        elif needs_split:
            log.warning(
                'the checkpoint was trained on other ground or another split; blocks are drawn anew, so that test '
                'ground may hold ground that this model was trained on'
            )

    def _split_key(self) -> str:
        names = ('ratios', 'block_size', 'split_seed', 'folds', 'fold', 'blocks')
        return repr([self.settings[n] for n in names] + [max(self.sizes)])

    def _reflectance(self) -> list[float]:
        return [float(self.settings.reflectance_scale), float(self.settings.reflectance_offset)]

    def _check_bands(self, trained: list[str] | None) -> None:
        channels = self.sources.open_images().channels
        if trained and [c.split()[-1] for c in trained] != [c.split()[-1] for c in channels]:  # dates may differ
            raise LandcoverError(
                f'the checkpoint was trained on the channels {trained}, the data give {channels}: choose the same '
                'bands in the same order with --data.bands'
            )
