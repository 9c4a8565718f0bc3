"""fit, validate, test and predict: LightningCLI with our task, data and outputs."""

import logging
import re
import warnings
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ..errors import LandcoverError
from ..evaluation.calibrator import TemperatureCalibration
from ..evaluation.callbacks import ReportWriter, TensorBoardPictures
from ..mapping.writer import MapWriter
from ..rasters.remote import is_remote, put
from ..training.datamodule import CataloniaDataModule
from ..training.division import check_division
from ..training.finding import find_batch_size, find_learning_rate
from ..training.lost_processes import announce_lost_processes, lost_process
from ..training.mirroring import RunMirror
from ..training.resuming import RunKeeper, WholeCheckpoints, newest_state, run_folder
from ..training.summary import describe_fit
from ..training.task import LandCoverSegmentation, read_checkpoint
from ..training.temperature import temperature_path
from .buckets import is_first_process
from .checkpoints import local_checkpoint, named_checkpoint, registered_as_checkpoint, settings_of
from .wording import sentence

log = logging.getLogger(__name__)

#: Words that Lightning takes for --ckpt_path beside a file.
_CKPT_WORDS = ('best', 'last', 'hpc')

_DESCRIPTIONS = {
    'fit': 'Train a network. Example: landcover fit --config configs/unet.yaml --data.root DIR',
    'validate': 'Score a checkpoint on the validation ground. Example: landcover validate --ckpt_path best.ckpt',
    'test': 'Score a checkpoint on the test ground and write a report: tables, figures and one page, report.html. '
    'Example: landcover test --ckpt_path best.ckpt --output.path report',
    'predict': 'Map a bounding box with a checkpoint, which brings all settings of its training. '
    "Example: landcover predict --ckpt_path best.ckpt --data.root DIR --data.bbox '[400000, 4590000, 420000, 4600000]' "
    '--output.path map.tif',
}


class _Parser(LightningArgumentParser):
    """A parser that raises its errors, so that they become one sentence and exit code 1."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message without jsonargparse's frame around it."""
        raise LandcoverError(sentence(self, str(message))) from ex


class _RunRecord(SaveConfigCallback):
    """Keeps what a training run was: its YAML and its blocks, in the run's folder."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write YAML and blocks; on rank zero alone, so nothing here may wait for the other ranks."""
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / self.config_filename
        self.parser.save(self.config, config, skip_none=False, overwrite=self.overwrite, multifile=self.multifile)
        data = getattr(trainer, 'datamodule', None)
        if isinstance(data, CataloniaDataModule):
            path = folder / 'blocks.gpkg'
            data.write_blocks(path)
            log.info('blocks of ground: %s', path)


class LandcoverCLI(LightningCLI):
    """LightningCLI for one command: class defaults < checkpoint < YAML < command line.

    Args:
        command: fit, validate, test or predict.
        args: The arguments behind it.
    """

    #: Address of the checkpoint that was fetched.
    fetched_from: str | None = None

    #: Where the runs are kept, if that is a bucket.
    mirror: RunMirror | None = None

    #: Whether an interrupted training tells how it is gone on with.
    says_how_to_go_on = True

    def __init__(self, command: str, args: list[str]) -> None:
        self.command = command
        super().__init__(
            LandCoverSegmentation,
            CataloniaDataModule,
            save_config_callback=_RunRecord if command == 'fit' else None,
            save_config_kwargs={'overwrite': True, 'save_to_log_dir': False},  # the record saves it
            trainer_defaults={
                'default_root_dir': 'runs',
                'max_epochs': 100,
                'log_every_n_steps': 10,
                'enable_model_summary': False,
                'callbacks': [TensorBoardPictures()] if command == 'fit' else [],
                **({} if command == 'fit' else {'logger': False}),
                **({'enable_progress_bar': False} if command == 'predict' else {}),  # MapWriter has its own
            },
            seed_everything_default=0,
            parser_class=_Parser,
            parser_kwargs={'prog': 'landcover', 'description': 'Land cover from Sentinel-2 mosaics.'},
            args=[command, *args],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the command that is run: the parsers of the others would cost a second each."""
        return {self.command: super().subcommands()[self.command]}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        kwargs['description'] = _DESCRIPTIONS[subcommand]
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        defaults = {'weights_only': True, 'return_predictions': False, 'verbose': subcommand == 'validate'}
        parser.set_defaults({k: v for k, v in defaults.items() if k in self._subcommand_method_arguments[subcommand]})
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The outputs of the command, and what the data tell the task."""
        parser.link_arguments('data', 'model.in_channels', compute_fn=_channels_of, apply_on='instantiate')
        parser.link_arguments('data', 'model.channels', compute_fn=_names_of, apply_on='instantiate')
        if self.command == 'fit':
            parser.add_argument('--find.lr', type=bool, default=False, help='Look for a learning rate before training.')
            parser.add_argument(
                '--find.batch_size', type=bool, default=False, help='Look for the largest batch that fits in memory.'
            )
            parser.add_argument(
                '--resume',
                type=bool,
                default=False,
                help='Go on with the latest run in trainer.default_root_dir where it stopped, with the same patches in '
                'the same order; without one, begin.',
            )
            parser.add_lightning_class_args(ModelCheckpoint, 'checkpoint')
            parser.add_lightning_class_args(RunKeeper, 'keep')
            parser.add_lightning_class_args(EarlyStopping, 'early_stopping')
            parser.set_defaults(
                {
                    'checkpoint.monitor': 'val_mIoU',
                    'checkpoint.mode': 'max',
                    'checkpoint.filename': 'best',
                    'checkpoint.save_last': True,
                    'early_stopping.monitor': 'val_loss',
                    'early_stopping.patience': 10,
                }
            )
        elif self.command == 'validate':
            parser.add_argument(
                '--calibrate',
                type=bool,
                default=False,
                help='Fit a temperature to the validation ground, so that probabilities can be taken at their word '
                '(Guo et al. 2017), and write it beside the checkpoint, where predict finds it.',
            )
        elif self.command == 'test':
            parser.add_lightning_class_args(ReportWriter, 'output')
        elif self.command == 'predict':
            parser.add_lightning_class_args(MapWriter, 'output')

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Take the settings of the checkpoint as defaults, then parse."""
        args = registered_as_checkpoint(args)
        given = named_checkpoint(args)
        path = None if given is None else local_checkpoint(given, self.command)
        if path is not None and not (self.command == 'fit' and path in _CKPT_WORDS):
            checkpoint = read_checkpoint(path)
            own = self._subcommand_parsers[self.command]
            own.set_defaults({'model.weights': False})
            if self.command != 'fit':
                own.set_defaults(settings_of(checkpoint))
        elif path is None and self.command != 'fit' and not {'-h', '--help'} & set(args):
            raise LandcoverError(f'{self.command} needs --ckpt_path, the checkpoint that landcover fit wrote')
        super().parse_arguments(parser, args)
        if path != given:
            self.config[self.command].ckpt_path = path
            self.fetched_from = given

    def _parse_ckpt_path(self) -> None:
        """Nothing: :meth:`parse_arguments` took the checkpoint's settings, below those of YAML and command line."""

    def before_instantiate_classes(self) -> None:
        """Find the run to go on with, and let it keep its folder."""
        config = self.config[self.command]
        check_division(config.trainer.strategy, ema=bool(config.model.ema))
        if self.command != 'fit':
            return
        if is_remote(str(config.checkpoint.dirpath or '')):
            raise LandcoverError('checkpoint.dirpath is a local folder: name the bucket with trainer.default_root_dir')
        if is_remote(str(config.trainer.default_root_dir)):
            self.mirror = RunMirror(config.trainer.default_root_dir)
            if is_first_process():
                self.mirror.begin(resume=config.resume)
            config.trainer.default_root_dir = str(self.mirror.local)
        if config.resume:
            self._resume(config)

    def _instantiate_trainer(self, config: Any, callbacks: Any) -> Trainer:
        """The trainer.

        Raises:
            LandcoverError: If this machine, or Lightning, lacks what the settings ask for.
        """
        try:
            return super()._instantiate_trainer(config, callbacks)
        except (MisconfigurationException, ValueError) as error:
            raise _refused(error) from error

    def instantiate_classes(self) -> None:
        """Make trainer, task and data; the YAML of the run keeps the address of a bucket."""
        super().instantiate_classes()
        if self.mirror is not None:
            self.config.fit.trainer.default_root_dir = self.mirror.address

    def _resume(self, config: Any) -> None:
        if config.ckpt_path:
            raise LandcoverError('--resume true looks for a checkpoint, --ckpt_path names one: give one of them')
        root = Path(config.trainer.default_root_dir)
        state = newest_state(root, config.checkpoint.dirpath)
        if state is None:
            log.info('there is no run in %s to go on with: a new one begins', root)
            return
        log.info('going on with %s', state)
        config.ckpt_path = str(state)
        config.model.weights = False  # the checkpoint's come
        self.save_config_callback = None  # the YAML of the run is there
        run = state.parents[1]
        if config.trainer.logger in (None, True) and config.checkpoint.dirpath is None:
            config.trainer.logger = Namespace(
                class_path='lightning.pytorch.loggers.TensorBoardLogger',
                init_args=Namespace(
                    save_dir=str(root), name=str(run.parent.relative_to(root)), version=_version(run.name)
                ),
            )

    def before_fit(self) -> None:
        """Find what was asked to be found, and say what is trained."""
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = WholeCheckpoints(self.mirror)
        callback = self.trainer.checkpoint_callback
        if self.trainer.fast_dev_run and isinstance(callback, ModelCheckpoint):  # type: ignore[attr-defined]
            callback.save_last = False  # which Lightning keeps all the same when the training ends
        find = self.config.fit.find
        if find.batch_size:
            find_batch_size(self.trainer, self.model, self.datamodule)
        if find.lr:
            find_learning_rate(self.trainer, self.model, self.datamodule)
        log.info(describe_fit(self.model, self.datamodule, self.trainer))

    def before_validate(self) -> None:
        """Calibrate the checkpoint as well, if that was asked for."""
        if self.config.validate.calibrate:
            self.trainer.callbacks.append(TemperatureCalibration())  # type: ignore[attr-defined]

    def after_validate(self) -> None:
        """Put a new temperature beside its checkpoint in a bucket."""
        source = self.fetched_from
        if self.config.validate.calibrate and source and is_remote(source) and self.trainer.is_global_zero:
            target = str(temperature_path(source.rsplit('/', 1)[1]))
            put(temperature_path(self.config.validate.ckpt_path), f'{source.rsplit("/", 1)[0]}/{target}')

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the command; Ctrl-C, which Lightning turns into an exit, stays what it is.

        Raises:
            LandcoverError: If a process that reads patches, or another one that trains, was killed.
        """
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:
            raise _refused(error) from error
        except (RuntimeError, OSError, EOFError) as error:
            happened = self.datamodule.killed_worker(error) or lost_process(error, self.trainer)
            if happened is None:
                raise
            raise LandcoverError(happened + self._how_to_go_on()) from error
        except SystemExit:
            if not self.trainer.interrupted:
                raise
            last = getattr(self.trainer.checkpoint_callback, 'last_model_path', '')
            if last and self.says_how_to_go_on:
                log.info('to go on, give the same command and --resume true (or --ckpt_path %s)', last)
            raise KeyboardInterrupt from None
        if self.mirror is not None and self.trainer.is_global_zero:
            self._upload(self.mirror)

    def _how_to_go_on(self) -> str:
        """What is kept of a training that ended early, and how it is gone on with; nothing for other commands."""
        callback = self.trainer.checkpoint_callback
        if self.command != 'fit' or not isinstance(callback, ModelCheckpoint) or not self.says_how_to_go_on:
            return ''
        state = newest_state(self.trainer.default_root_dir, callback.dirpath)
        return '; no state was kept yet' if state is None else f'; {state} is kept: --resume true goes on with it'

    def after_fit(self) -> None:
        """Say where the result is."""
        callback = self.trainer.checkpoint_callback
        if isinstance(callback, ModelCheckpoint) and callback.best_model_path:
            score, best = callback.best_model_score, callback.best_model_path
            # Without a monitor there is no score.
            judged = 'the last' if score is None else f'{callback.monitor} {score:.3f}'
            log.info('best checkpoint (%s): %s', judged, best if self.mirror is None else self.mirror.address_of(best))

    def _upload(self, mirror: RunMirror) -> None:
        try:
            mirror.upload()
        except LandcoverError as e:
            raise LandcoverError(
                f'{e}; the finished run is in {mirror.local}, the same command with --resume true uploads it'
            ) from e


class _Parsed(LandcoverCLI):
    """The settings of a command, parsed as when it runs; nothing is opened or run."""

    def before_instantiate_classes(self) -> None:
        """Nothing."""

    def instantiate_classes(self) -> None:
        """Nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing."""


def fit_settings(args: list[str]) -> str:
    """All settings of ``landcover fit`` with some arguments, defaults among them, as the YAML of a run.

    Raises:
        LandcoverError: If an argument or a key of a YAML is wrong.
    """
    quieten()
    parsed = _Parsed('fit', args)
    text: str = parsed._parser('fit').dump(parsed.config.fit, skip_none=False)
    return text


def _refused(error: Exception) -> LandcoverError:
    """What Lightning says of settings of the trainer that do not go with each other or with this machine."""
    return LandcoverError(
        f'the trainer cannot do what its settings ask for: {" ".join(str(error).split()).rstrip(".!")}; '
        '--trainer.accelerator, --trainer.devices and --trainer.strategy auto take what this machine has'
    )


def _channels_of(data: CataloniaDataModule) -> int:
    return data.in_channels


def _names_of(data: CataloniaDataModule) -> list[str]:
    return data.open_images().channels


def _version(folder: str) -> int | str:
    """What Lightning calls the run of a folder: the number behind version_, else its name."""
    found = re.fullmatch(r'version_(0|[1-9]\d*)', folder)
    return int(found[1]) if found else folder


def quieten() -> None:
    """Drop advertisements and warnings that the user can do nothing about."""
    for name in ('lightning.pytorch', 'lightning.fabric'):
        logging.getLogger(name).setLevel(logging.WARNING)
    announce_lost_processes()
    expected = (
        'does not have many workers',
        'LeafSpec',
        'Checkpoint directory',
        'The dirpath has changed',
        'callbacks used to create the checkpoint',
        'smaller than the logging interval',
        "LightningCLI's args parameter",
        'sync_dist=True',  # metrics of torchmetrics are those of all processes
    )
    for text in expected:
        warnings.filterwarnings('ignore', message=f'.*{text}.*')


def main(command: str, argv: list[str]) -> int:
    """Run ``landcover fit``, ``validate``, ``test`` or ``predict``.

    Args:
        command: Which of them.
        argv: Arguments behind it.

    Raises:
        LandcoverError: If input or settings do not fit.
    """
    quieten()
    if not is_first_process():  # which says what all would say
        logging.getLogger('landcover_plugin').setLevel(logging.ERROR)
    LandcoverCLI(command, argv)
    return 0
