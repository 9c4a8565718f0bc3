"""Lightning callbacks that turn a test or validation run into a report or TensorBoard pictures.

Both work in ``on_test_end`` and ``on_validation_end``, not in ``on_*_epoch_end``: Lightning 2.6 calls the
callbacks' epoch-end hooks before the module's, when the confusion matrix is not there yet or is the
previous epoch's.
"""

import logging
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from numpy.typing import NDArray
from torch import Tensor

from .._version import __version__
from ..errors import LandcoverError
from ..legend import LEGEND, NODATA, Legend
from ..models.outputs import confidence
from ..training.metrics import Scores
from ..training.temperature import find_temperature
from .breakdowns import Breakdowns
from .figures import Picture, plot_confusion, plot_sample
from .provenance import checkpoint_facts, configuration, data_facts, split_facts
from .report import check_writable, summary, write_report
from .tally import ReportTally, seasons_of
from .training_curves import find_training_curves

log = logging.getLogger(__name__)


class ReportWriter(pl.Callback):
    """Writes scores, confusion matrices, pictures and a page that shows them all after ``test``.

    The sample pictures are spread over the run: it is cut into as many stretches as there are pictures, and
    the patch with the most classes of each is kept. Beside them the patches of the highest and lowest accuracy are.

    Args:
        path: Folder for the report; made when the test has run.
        pictures: Number of sample pictures; 0 for none.
        extremes: How many of the best and how many of the worst patches are shown; 0 for none.
        overwrite: Replace an older report in that folder.

    Raises:
        LandcoverError: If ``pictures`` or ``extremes`` is negative; before testing, if the folder cannot be written.
    """

    def __init__(self, path: str = 'report', pictures: int = 6, extremes: int = 4, overwrite: bool = False) -> None:
        _check_at_least(0, pictures=pictures, extremes=extremes)
        self.path = path
        self.pictures = pictures
        self.extremes = extremes
        self.overwrite = overwrite
        self._best: dict[int, tuple[int, Picture]] = {}  # stretch -> number of classes, picture
        self._seen = 0
        self._tally: ReportTally | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Fail before computing if the report could not be written afterwards."""
        if stage == 'test' and trainer.is_global_zero:
            check_writable(self.path, overwrite=self.overwrite)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget an earlier run."""
        self._best.clear()
        self._seen = 0
        data = getattr(trainer, 'datamodule', None)
        self._tally = ReportTally(
            getattr(data, 'split', None),
            seasons_of(trainer),
            temperature=find_temperature(trainer.ckpt_path) if trainer.ckpt_path else None,
            extremes=self.extremes,
            device=pl_module.device,
        )

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch, and keep the patches that a report shows."""
        if not isinstance(outputs, dict) or 'prediction' not in outputs or self._tally is None:
            return
        first, world, rank = self._seen, trainer.world_size, trainer.global_rank
        self._seen += len(batch['mask'])

        def draw(index: int) -> Picture:
            return _picture(trainer, outputs, batch, index, f'test patch {number(index) + 1}')

        def number(index: int) -> int:
            return (first + index) * world + rank

        self._tally.add(batch, outputs['prediction'], outputs.get('logits'), draw, number)
        if self.pictures and trainer.is_global_zero:
            self._keep_samples(sum(trainer.num_test_batches) * len(batch['mask']), first, batch, draw)

    def _keep_samples(self, total: float, first: int, batch: Any, draw: Callable[[int], Picture]) -> None:
        """Keep the patches that show the most classes of their stretch of the run."""
        for index, label in enumerate(_labels(batch)):
            stretch = _stretch(first + index, total, self.pictures)
            variety = len(np.setdiff1d(label, NODATA))
            if variety > self._best.get(stretch, (0, None))[0]:
                self._best[stretch] = variety, draw(index)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the report, of all processes together.

        Raises:
            LandcoverError: If the module has no ``test_confusion``, no pixel was labelled, or the folder
                cannot be written.
        """
        breakdowns = self._tally.finish() if self._tally is not None else None
        self._tally = None
        if not trainer.is_global_zero:
            return
        confusion = getattr(pl_module, 'test_confusion', None)
        if confusion is None:
            name = type(pl_module).__name__
            raise LandcoverError(f'{name} provides no test_confusion for a report: use LandCoverSegmentation')
        strata = getattr(pl_module, 'test_strata', None)
        # Before writing: the scores of a long run outlive a disk that fills up.
        log.info('scores on the test split, in percent\n%s', summary(Scores.from_confusion(confusion), strata=strata))
        folder = write_report(
            self.path,
            confusion,
            legend=_legend(trainer),
            strata=strata,
            breakdowns=breakdowns,
            curves=find_training_curves(trainer.ckpt_path, getattr(pl_module, 'log_dir', None)),
            pictures=[picture for _, (_, picture) in sorted(self._best.items(), key=lambda item: item[0])],
            metadata=_metadata(trainer, pl_module, breakdowns),
            overwrite=self.overwrite,
        )
        self._best.clear()
        log.info('report written to %s', folder)


class TensorBoardPictures(pl.Callback):
    """Shows the confusion matrix and sample pictures of each validation in TensorBoard.

    The samples are the first labelled patches, the same in each epoch. Loggers that take no figures
    are passed over.

    Args:
        pictures: Number of sample pictures; 0 for the confusion matrix alone.
        every_n_epochs: Draw after every so many epochs.

    Raises:
        LandcoverError: If ``pictures`` is negative or ``every_n_epochs`` is not at least 1.
    """

    def __init__(self, pictures: int = 4, every_n_epochs: int = 1) -> None:
        _check_at_least(0, pictures=pictures)
        _check_at_least(1, every_n_epochs=every_n_epochs)
        self.pictures = pictures
        self.every_n_epochs = every_n_epochs
        self._kept: list[Picture] = []

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the epoch before."""
        self._kept.clear()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first labelled patches."""
        if len(self._kept) >= self.pictures or not self._is_due(trainer) or not _has_prediction(outputs):
            return
        labelled = [index for index, label in enumerate(_labels(batch)) if label.any()]
        for index in labelled[: self.pictures - len(self._kept)]:
            title = f'epoch {trainer.current_epoch}'
            self._kept.append(_picture(trainer, outputs, batch, index, title))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, hand over to the loggers, and let go of figures and patches."""
        if not self._is_due(trainer):
            return
        boards = [logger.experiment for logger in trainer.loggers if hasattr(logger, 'experiment')]
        confusion = getattr(pl_module, 'val_confusion', None)
        for board in (board for board in boards if hasattr(board, 'add_figure')):
            if confusion is not None and confusion[NODATA + 1 :].any():
                figure = plot_confusion(confusion, _legend(trainer))
                board.add_figure('confusion', figure, global_step=trainer.global_step)
            for number, p in enumerate(self._kept, start=1):
                figure = plot_sample(p.rgb, p.label, p.prediction, _legend(trainer), title=p.title)
                board.add_figure(f'sample/{number:02d}', figure, global_step=trainer.global_step)
        self._kept.clear()

    def _is_due(self, trainer: pl.Trainer) -> bool:
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        return due and trainer.is_global_zero and not trainer.sanity_checking


def _legend(trainer: pl.Trainer) -> Legend:
    """The colours of the data's own label raster, where the data module knows them."""
    return getattr(getattr(trainer, 'datamodule', None), 'legend', LEGEND)


def _check_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise LandcoverError(f'{name} must be at least {least}, got {value}')


def _stretch(position: int, total: float, stretches: int) -> int:
    """Which of the stretches of a run a patch belongs to; patches take turns if the length is unknown.

    Examples:
        >>> [_stretch(position, 5, 2) for position in range(5)]
        [0, 0, 0, 1, 1]
        >>> [_stretch(position, float('inf'), 2) for position in range(5)]
        [0, 1, 0, 1, 0]
    """
    if total == float('inf'):
        return position % stretches
    return min(int(position * stretches // total), stretches - 1)


def _has_prediction(outputs: STEP_OUTPUT) -> bool:
    return isinstance(outputs, dict) and 'prediction' in outputs


def _labels(batch: Any) -> NDArray[np.integer]:
    """Labels of a batch, shape ``(B, H, W)``; no data where the pixel is not valid."""
    mask: Tensor = batch['mask']
    return _where_valid(mask, batch).cpu().numpy()


def _where_valid(codes: Tensor, batch: Any) -> Tensor:
    return codes.where(batch['valid'], NODATA) if 'valid' in batch else codes


def _picture(trainer: pl.Trainer, outputs: Any, batch: Any, index: int, title: str) -> Picture:
    """A patch without the padding of its batch."""
    height, width = batch['place'][index, 2:4].tolist() if 'place' in batch else batch['mask'].shape[-2:]
    part = np.s_[..., :height, :width]
    image = batch['image'][index].detach().float().cpu()[part]
    prediction, label = (
        _where_valid(v, batch)[index].cpu().numpy()[part] for v in (outputs['prediction'], batch['mask'])
    )
    sure = None
    if 'logits' in outputs:
        sure = confidence(outputs['logits'][index : index + 1])[0].cpu().numpy()[part].copy()
    to_rgb = getattr(getattr(trainer, 'datamodule', None), 'to_rgb', _stretched)
    # Copies: a view would keep the whole batch in memory.
    return Picture(np.array(to_rgb(image)), label.copy(), prediction.copy(), title, sure)


def _stretched(image: Tensor) -> NDArray[np.float32]:
    """The first three channels, reversed (blue, green, red is their order on disk), 2 to 98 percent.

    Args:
        image: Any units, shape ``(C, H, W)``; fewer than three channels give a grey picture.

    Returns:
        Colours in 0..1, shape ``(H, W, 3)``.

    Examples:
        >>> _stretched(torch.arange(24.0).reshape(4, 2, 3)).shape
        (2, 3, 3)
    """
    channels = image[[2, 1, 0]] if len(image) >= 3 else image[[0, 0, 0]]
    rgb = np.nan_to_num(channels.permute(1, 2, 0).numpy())
    low, high = np.percentile(rgb, (2, 98), axis=(0, 1))
    return np.clip((rgb - low) / np.maximum(high - low, 1e-6), 0, 1).astype(np.float32)


def _metadata(trainer: pl.Trainer, pl_module: pl.LightningModule, breakdowns: Breakdowns | None) -> dict[str, Any]:
    """What the scores belong to: checkpoint, network, data, split, settings, software versions."""
    provenance = getattr(pl_module, 'provenance', None)
    data = getattr(trainer, 'datamodule', None)
    settings = dict(getattr(data, 'hparams', {}))
    told = {
        'checkpoint': trainer.ckpt_path,
        'checkpoint_file': checkpoint_facts(trainer.ckpt_path),
        'provenance': provenance() if callable(provenance) else None,
        'data': data_facts(getattr(data, 'sources', None)),
        'split': split_facts(settings, breakdowns.ground if breakdowns else None),
        'configuration': configuration(model=dict(pl_module.hparams), data=settings),
    }
    created = time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())
    return {k: v for k, v in told.items() if v or k in ('checkpoint', 'provenance')} | {
        'created': created,
        'software': _software(),
    }


def _software() -> dict[str, str]:
    versions = {
        'python': platform.python_version(),
        'landcover-plugin': __version__,
        'torch': str(torch.__version__),  # unlike its metadata, it names the CUDA or CPU build
    }
    for name in ('torchgeo', 'lightning', 'numpy'):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # from another distribution, such as pytorch-lightning
            versions[name] = 'unknown'
    return versions
