"""The networks of a label audit: trained, calibrated and mapped fold by fold; what is finished is not done again.

Below the working folder, ``plan.json`` tells by what settings the folds were made. Each ``fold-N`` holds the blocks of
ground, the checkpoint and its temperature, a note that training is finished, and the probabilities of what is held out.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import geopandas as gpd
import shapely
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from ..errors import LandcoverError
from ..evaluation.cross_fitted import FoldMap
from ..rasters.identity import identity, sha256
from ..rasters.outputs import write_whole
from ..rasters.staging import LOCK, begin, read_plan, write_small
from ..sampling.blocks import Split
from ..sampling.cross_fitting import cross_fit
from ..sampling.inventory import Inventory
from ..sampling.inventory_cache import cached_inventory
from ..sampling.polygons import write_split
from ..training.datamodule import CataloniaDataModule
from ..training.judges import Judge
from ..training.resuming import newest_state
from .lightning import LandcoverCLI, quieten

log = logging.getLogger(__name__)

#: Options of fit that the audit itself decides.
_OWN = (
    *('--ckpt_path', '--data.blocks', '--data.folds', '--data.fold', '--data.ratios', '--checkpoint.dirpath'),
    *('--data.block_size', '--trainer.default_root_dir', '--data.aoi', '--data.bbox', '--data.bbox_wgs84'),
)

#: Settings that change nothing in a network, so that folds made with others are gone on with.
_INDIFFERENT = (
    *('config', 'ckpt_path', 'checkpoint', 'find', 'optimizer', 'lr_scheduler', 'return_predictions', 'verbose'),
    *('keep', 'resume'),
    *('trainer.enable_progress_bar', 'trainer.default_root_dir', 'trainer.callbacks', 'trainer.logger'),
    *('data.num_workers', 'data.cache', 'data.store', 'data.damaged', 'data.block_size'),
)


class Fold(LandcoverCLI):
    """A training that the audit goes on with by itself."""

    says_how_to_go_on = False


class Settings(LandcoverCLI):
    """What the arguments of fit or predict ask for; runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    @property
    def data(self) -> CataloniaDataModule:
        """The data module, with nothing opened yet."""
        return self.datamodule

    def plain(self) -> dict[str, Any]:
        """All settings as names with dots."""
        parser = self._subcommand_parsers[self.command]
        text = parser.dump(self.config[self.command], skip_validation=True)
        return dict(_flat(yaml.safe_load(text)))

    def runtime(self) -> list[str]:
        """Arguments that checkpoints do not bring: on what to compute, and where to look for data."""
        config = self.config[self.command]
        names = {f'data.{n}': config.data.get(n) for n in ('store', 'cache', 'num_workers')}
        names |= {f'trainer.{n}': config.trainer.get(n) for n in ('accelerator', 'devices', 'precision')}
        names['trainer.enable_progress_bar'] = config.trainer.get('enable_progress_bar')
        return [f'--{name}={value}' for name, value in names.items() if value is not None]


def _flat(values: Mapping[str, Any], prefix: str = '') -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        key = f'{prefix}{name}'
        found += _flat(value, f'{key}.') if isinstance(value, Mapping) else [(key, value)]
    return found


def read_settings(arguments: Sequence[str], checkpoints: Sequence[str] | None = None) -> Settings:
    """The settings of the networks: those that are to be trained, or those of the first of some checkpoints.

    Raises:
        LandcoverError: If an argument is wrong, or one that the audit decides itself.
    """
    for argument in arguments:
        if argument.split('=')[0] in _OWN:
            raise LandcoverError(
                f'{argument.split("=")[0]} is decided by audit itself, which holds each piece of ground out once: '
                'leave it out'
            )
    quieten()
    if checkpoints:
        settings = Settings('predict', ['--ckpt_path', checkpoints[0], '--output.path=map.tif', *arguments])
    else:
        settings = Settings('fit', list(arguments))
    if settings.trainer.world_size > 1:
        raise LandcoverError(
            f'audit trains its networks one after the other on one device, got {settings.trainer.world_size}: set '
            '--trainer.devices 1'
        )
    return settings


def draw_folds(data: CataloniaDataModule, folds: int, block_size: int | None) -> list[Split]:
    """The splits of all folds; blocks that suit fit, which gives up less ground between them, may be too small."""
    largest, seed = max(data.sizes), data.settings.split_seed
    return cross_fit(data.inventory(), folds=folds, patch_size=largest, block_size=block_size, seed=seed)


class Workshop:
    """The working folder of an audit.

    Args:
        folder: See :meth:`open`.
        arguments: Of fit, or of predict where checkpoints are given.
        settings: What they ask for.
    """

    def __init__(self, folder: Path, arguments: Sequence[str], settings: Settings) -> None:
        self.folder, self.arguments, self.settings = folder, list(arguments), settings

    def open(self, what: Mapping[str, Any], *, overwrite: bool) -> None:
        """Note the plan in the folder, which exists and is locked, or go on with what it holds.

        Args:
            what: Which folds, as JSON.
            overwrite: Whether folds of other settings may be deleted.

        Raises:
            LandcoverError: If it holds the folds of other settings, or something else.
        """
        data = self.settings.data
        sources = [*data.open_images().mosaics.files, *data.open_labels().rasters.files]
        settings = {n: v for n, v in self.settings.plain().items() if not _indifferent(n)}
        plan = json.loads(json.dumps({**what, **settings, 'sources': [identity(path) for path in sources]}))
        earlier = read_plan(self.folder)
        if earlier is None and any(path.name != LOCK for path in self.folder.iterdir()):
            raise LandcoverError(f'{self.folder} is no folder of an audit, and holds files: choose another --output')
        differ = sorted(n for n in plan.keys() | (earlier or {}).keys() if plan.get(n) != (earlier or {}).get(n))
        if earlier is not None and differ and not overwrite:
            raise LandcoverError(
                f'{self.folder} holds the folds of an audit with other settings ({", ".join(differ[:4])}): choose '
                'another --output, or delete them with --overwrite'
            )
        begin(self.folder, plan)

    def train(self, number: int, split: Split) -> Path:
        """The checkpoint of a fold; one that is there is not trained again."""
        folder = self.folder / f'fold-{number}'
        note = folder / 'trained.json'
        with suppress(OSError, ValueError, KeyError):
            told = json.loads(note.read_text(encoding='utf-8'))
            if sha256(path := folder / told['checkpoint']) == told['sha256']:
                log.info('fold %d: trained by an earlier run', number)
                return path
        resumed = _resumable(folder)
        if not resumed:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_split(folder / 'blocks.gpkg', split, self.settings.data.inventory())
        best = self._fit(folder, resumed)
        LandcoverCLI(
            'validate', ['--ckpt_path', str(best), '--calibrate=true', '--verbose=false', *self.settings.runtime()]
        )
        told = {'checkpoint': best.name, 'sha256': sha256(best)}
        write_small(note, lambda p: p.write_text(json.dumps(told), encoding='utf-8'))
        return best

    def _fit(self, folder: Path, resumed: Sequence[str]) -> Path:
        own = [f'--data.blocks={folder / "blocks.gpkg"}', '--data.folds=null']
        own += [f'--trainer.default_root_dir={folder}', f'--checkpoint.dirpath={folder}']
        cli = Fold('fit', [*self.arguments, *own, *resumed])
        callback = cli.trainer.checkpoint_callback
        if not isinstance(callback, ModelCheckpoint) or not callback.best_model_path:
            raise LandcoverError('the training kept no checkpoint, which the audit needs: leave checkpoints enabled')
        return Path(callback.best_model_path)

    def map(self, number: int, judge: Judge) -> FoldMap:
        """Probabilities on the ground that a checkpoint may judge; strips that are there are not mapped again."""
        folder, data = self.folder / f'fold-{number}', self.settings.data
        folder.mkdir(parents=True, exist_ok=True)
        grid = data.open_images().grid
        judge.check_grid(grid)
        target, area = folder / 'map.tif', folder / 'held_out.gpkg'
        if not target.exists():
            boxes = shapely.box(*zip(*(grid.bounds(window) for window in judge.windows), strict=True))
            frame = gpd.GeoDataFrame(geometry=boxes, crs=grid.crs.to_wkt())
            write_whole(area, lambda p: frame.to_file(p, layer='held_out', driver='GPKG'))
            own = ['--ckpt_path', str(judge.checkpoint), f'--data.aoi={area}', f'--output.path={target}']
            own += ['--output.probabilities=true', '--output.stac=false', '--output.overwrite=true']
            LandcoverCLI('predict', [*self._for_predict(), *own])
        else:
            log.info('fold %d: mapped by an earlier run', number)
        knows = judge.knows(self.inventory(judge.split.cell))
        return FoldMap(folder / 'map_probabilities.tif', grid, judge.split.cell, judge.cells, knows)

    def inventory(self, cell: int) -> Inventory:
        """What the ground holds, in cells of an edge."""
        data = self.settings.data
        own = data.inventory()
        if own.cell == cell:
            return own
        return cached_inventory(data.open_images().mosaics, data.open_labels().rasters, cell, data.cache)

    def _for_predict(self) -> list[str]:
        return self.arguments if self.settings.command == 'predict' else self.settings.runtime()


def _resumable(folder: Path) -> list[str]:
    """Arguments to go on with a training that was stopped, if there is one."""
    last = newest_state(folder, folder)
    if last is None:
        return []
    try:
        Judge.of(last)
    except LandcoverError:
        return []
    log.info('training goes on with %s', last)
    return [f'--ckpt_path={last}']


def _indifferent(name: str) -> bool:
    return any(name == other or name.startswith(f'{other}.') for other in _INDIFFERENT)
