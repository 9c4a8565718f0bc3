"""The task: a network, its loss and its scores, as a subclass of TorchGeo's semantic segmentation."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchgeo.datasets.utils import Sample
from torchgeo.tasks import SemanticSegmentation
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from ..errors import LandcoverError
from ..legend import LEGEND, NODATA
from ..models import BUILDERS, DEFAULT_BACKBONE, ModelName
from ..models.lora import add_lora, load_lora_state, lora_state
from ..models.outputs import class_probabilities, predicted_codes
from ..models.pretrained import build_network
from ..rasters.remote import is_remote
from ..rasters.stand_ins import local_copy
from ..sampling.weights import ClassWeighting, class_weights
from .averaging import AveragedWeights
from .compiling import Compiled
from .divergence import lost
from .losses import LandCoverLoss, build_loss
from .metrics import IntArray, Scores
from .optimization import OptimizerName, Schedule, check_rates, make_optimizer, make_schedule
from .strata import STRATA, StrataConfusion, strata
from .tuning import FreezeEncoder, parameter_groups

log = logging.getLogger(__name__)


class LandCoverSegmentation(SemanticSegmentation):
    """Semantic segmentation with the land-cover legend.

    Code, channel and class are one number; channel 0 (no data) is ignored in loss and scores and never predicted.
    Scores come from one confusion matrix over the whole split, so they do not depend on the batches.

    Attributes:
        val_confusion: Pixel counts of the validation split, reference in rows; None before it ran.
        test_confusion: Pixel counts of the test split.
        test_strata: Pixel counts of the test split for each kind of pixel that it holds, see
            :func:`~landcover_plugin.training.strata.strata`; pure and mixed need ``purity`` in the batches.
    """

    criterion: LandCoverLoss
    test_strata: dict[str, IntArray]
    #: Where the training of a loaded checkpoint was logged.
    log_dir: str | None = None
    #: Turns images into probabilities in prediction, in place of the network, or into what gives them later.
    engine: Callable[[Tensor], Any] | None = None

    def __init__(
        self,
        model: ModelName = 'unet',
        backbone: str | None = None,
        weights: bool | str | None = True,
        in_channels: int = 10,
        num_classes: int = LEGEND.num_classes,
        loss: str | dict[str, float] = 'ce',
        loss_args: dict[str, float] | None = None,
        class_weights: ClassWeighting | list[float] = 'none',
        max_class_weight: float | None = None,
        ignore_index: int = NODATA,
        optimizer_name: OptimizerName = 'adamw',
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        lr_schedule: Schedule = 'plateau',
        warmup: float = 0.05,
        patience: int = 3,
        channels_last: bool = False,
        compile: bool = False,
        channels: list[str] | None = None,
        encoder_lr_factor: float = 1.0,
        freeze_encoder_epochs: int = 0,
        unfreeze_every: int = 0,
        lora_rank: int = 0,
        ema: float = 0,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Build the network.

        Args:
            model: Network by name.
            backbone: Encoder by name (default: the network's own, such as resnet50 for unet, mit_b2 for segformer).
            weights: true for ImageNet weights of the encoder (fetched once from the hub), false for random ones, the
                path of a checkpoint of this package whose network is the start, that of a state dict of a network or
                encoder (.pth, .pt, .safetensors), or Sentinel-2 weights by the name of TorchGeo, such as
                ResNet50_Weights.SENTINEL2_ALL_MOCO.
            in_channels: Channels of the image; the data module sets it on the command line.
            num_classes: Codes of the legend.
            loss: ce, focal, dice, jaccard, tversky, lovasz, gce (generalised) or sce (symmetric cross-entropy), or sums
                of them: ce+dice, ce+0.5*dice, or {ce: 1, dice: 0.5}.
            loss_args: Their settings: label_smoothing, focal_gamma, tversky_alpha, gce_q, sce_alpha, sce_beta.
            class_weights: Weights of the classes in the loss: none, inverse_sqrt, effective (number of samples), median
                (frequency) or inverse (frequency), from the training ground, or a list of 12 numbers. No data always
                has weight 0.
            max_class_weight: Largest weight of a class, where the mean is 1 (default: none).
            ignore_index: Code that does not count.
            optimizer_name: adam, adamw or sgd (with momentum); --optimizer on the command line replaces it.
            lr: Learning rate: at the start, or where the warm-up leads to.
            weight_decay: Of adamw and sgd.
            lr_schedule: plateau (halved when the validation loss stalls), cosine (warm-up, then down to 0), onecycle
                or constant.
            warmup: Share of the training over which cosine and onecycle raise the learning rate.
            patience: Epochs without a better validation loss before plateau halves the learning rate.
            channels_last: Keep images and filters pixel by pixel in memory, which convolutions like on many devices.
            compile: Compile the network with torch.compile; where that fails, go on without, and say so.
            channels: Names of the channels, which pretrained filters are matched to; the data module sets them on the
                command line. Without, filters for colours are spread by position.
            encoder_lr_factor: Learning rate of the encoder, as a share of lr.
            freeze_encoder_epochs: Epochs at the start in which the encoder stays as it is, with its batch norms.
            unfreeze_every: Epochs from one stage of the encoder to the next, the last first; 0 sets all free at once.
            lora_rank: Above 0, a transformer stays as it is and matrices of this rank beside its attention learn.
            ema: Above 0, a moving average of the weights is validated and kept in their place; the share of it that a
                step keeps, such as 0.99 for hundreds of steps, 0.999 for thousands.
            *args: As in torchgeo.tasks.SemanticSegmentation.
            **kwargs: As in torchgeo.tasks.SemanticSegmentation.

        Raises:
            LandcoverError: If the network is unknown or its weights cannot be had.
        """
        if model not in BUILDERS:
            raise LandcoverError(f'model must be one of {", ".join(BUILDERS)}, got {model!r}')
        if num_classes != LEGEND.num_classes or ignore_index != NODATA:
            raise LandcoverError(
                f'the legend has {LEGEND.num_classes} codes of which {NODATA} is ignored; drop num_classes and '
                f'ignore_index (got {num_classes} and {ignore_index})'
            )
        check_rates(lr, weight_decay)
        backbone = backbone or DEFAULT_BACKBONE[model]
        super().__init__(
            model,  # type: ignore[arg-type] # the parent knows fewer names
            backbone,
            weights,
            in_channels,
            *args,
            **{
                'num_classes': num_classes,
                'loss': loss,
                'class_weights': class_weights,
                'ignore_index': ignore_index,
                'lr': lr,
                'patience': patience,
                **kwargs,
            },
        )
        self.val_confusion = self.test_confusion = None
        self.test_strata = {}

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> 'LandCoverSegmentation':
        """As in Lightning, without fetching the weights that training started from or executing what a file brings."""
        return super().load_from_checkpoint(*args, **{'weights': False, 'lora_rank': 0, 'weights_only': True, **kwargs})

    def configure_models(self) -> None:
        """Build the network by name."""
        h = self.hparams
        own = isinstance(self.weights, str | os.PathLike) and Path(self.weights).suffix == '.ckpt'
        self.model, account, self._first_layers = build_network(
            h['model'],
            h['backbone'],
            weights=False if own else self.weights,
            in_channels=h['in_channels'],
            num_classes=h['num_classes'],
            channels=h['channels'],
        )
        self._compiled: Compiled | None = None
        if own:
            self._start_from(self.weights)  # type: ignore[arg-type]
        elif self.weights:
            log.info('%s', account)
        if h['lora_rank']:
            log.info('%s', add_lora(self.model, h['lora_rank']))
        for part in ('backbone', 'decoder'):
            if h.get(f'freeze_{part}'):
                module = self.model.encoder if part == 'backbone' else self.model.decoder
                module.requires_grad_(False)

    def _start_from(self, path: str | os.PathLike[str]) -> None:
        if not is_remote(path) and not Path(path).is_file():
            raise LandcoverError(f'weights {path} is not a file; give true, false or the path of a checkpoint')
        self.model.load_state_dict(self._network_of(read_checkpoint(path), name=str(path)))

    def _network_of(self, checkpoint: Mapping[str, Any], name: str) -> dict[str, Tensor]:
        """The weights of the network in a checkpoint, if they fit ours."""
        state, own = checkpoint['state_dict'], self.model.state_dict()
        found = {k.removeprefix('model.'): v for k, v in state.items() if k.startswith('model.')}
        if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in own.items()}:
            raise LandcoverError(
                f'{name} holds another network than {self.hparams["model"]} with {self.hparams["backbone"]} and '
                f'{self.hparams["in_channels"]} channels'
            )
        return found

    def configure_losses(self) -> None:
        """The loss by name; named class weights follow when the data are known."""
        given: Any = self.hparams['class_weights']
        weight = torch.ones(LEGEND.num_classes)
        if not isinstance(given, str):
            weight = torch.from_numpy(class_weights(None, given))  # type: ignore[arg-type]
        weight[NODATA] = 0
        self.criterion = build_loss(self.hparams['loss'], weight, loss_args=self.hparams['loss_args'])

    def configure_metrics(self) -> None:
        """One confusion matrix and one mean loss for each split; for the test also one for each kind of pixel."""

        def matrix() -> MulticlassConfusionMatrix:
            return MulticlassConfusionMatrix(LEGEND.num_classes, ignore_index=NODATA, validate_args=False)

        self.val_matrix, self.test_matrix = matrix(), matrix()
        self.val_mean, self.test_mean = MeanMetric(), MeanMetric()
        self.strata_matrices = StrataConfusion()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser and the schedule of its learning rate, by name."""
        h = self.hparams
        decay = 0 if h['optimizer_name'] == 'adam' else h['weight_decay']
        groups = parameter_groups(self.model, h['lr'], h['encoder_lr_factor'], decay)
        optimizer = make_optimizer(h['optimizer_name'], groups, lr=h['lr'], weight_decay=h['weight_decay'])
        ends = h['lr_schedule'] in ('cosine', 'onecycle')  # asking for the number of steps opens the loaders
        schedule = make_schedule(
            h['lr_schedule'],
            optimizer,
            steps=self.trainer.estimated_stepping_batches if ends else float('inf'),
            warmup=h['warmup'],
            patience=h['patience'],
            monitor=self.monitor,
        )
        return {'optimizer': optimizer} if schedule is None else {'optimizer': optimizer, 'lr_scheduler': schedule}

    def configure_callbacks(self) -> list[Callback]:
        """What freezes the encoder for a while, and what averages the weights, as asked.

        Raises:
            LandcoverError: If a number is out of range, or averaging meets low-rank adaptation.
        """
        h, callbacks = self.hparams, list[Callback]()
        if h['freeze_encoder_epochs'] or h['unfreeze_every']:
            callbacks.append(FreezeEncoder(h['freeze_encoder_epochs'], h['unfreeze_every']))
        if h['ema'] and h['lora_rank']:
            raise LandcoverError('ema averages whole weights, lora_rank trains parts of them: drop one of the two')
        if h['ema']:
            callbacks.append(AveragedWeights(h['ema']))
        return callbacks

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the run logs, for reports, and what low-rank adaptation needs to resume."""
        if folder := getattr(self.trainer.logger, 'log_dir', None):
            checkpoint['log_dir'] = str(Path(folder).resolve())
        if matrices := lora_state(self.model):
            checkpoint['lora'] = matrices

    def setup(self, stage: str) -> None:
        """Fold in what pretrained filters were shown, lay the network out in memory and compile it, as asked."""
        if stage == 'fit':
            self._fold_normalisation()
        if self.hparams['channels_last']:
            self.model.to(memory_format=torch.channels_last)
        if self.hparams['compile'] and self._compiled is None:
            self._compiled = Compiled(self.model)

    def _fold_normalisation(self) -> None:
        """Fold the normalisation of pretrained weights into the first layer, once; what resumes loads over it."""
        layers, self._first_layers = self._first_layers, ()
        if not layers:
            return
        normalisation = getattr(getattr(self.trainer, 'datamodule', None), 'normalisation', None)
        if normalisation is None:
            log.warning('the data module tells no mean and deviation: pretrained filters see pixels of another scale')
        else:
            log.info('%s', ' and '.join(sorted({layer.fold(*normalisation()) for layer in layers})))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Logits ``(B, num_classes, H, W)`` of images ``(B, C, H, W)``."""
        images, *others = args
        if self.hparams['channels_last']:
            images = images.contiguous(memory_format=torch.channels_last)
        return (self._compiled or self.model)(images, *others, **kwargs)

    def on_fit_start(self) -> None:
        """Weigh the classes by the training ground.

        Raises:
            LandcoverError: If the data module cannot count classes.
        """
        weighting: ClassWeighting | list[float] = self.hparams['class_weights']
        if not isinstance(weighting, str) or weighting == 'none':
            return
        counts = getattr(getattr(self.trainer, 'datamodule', None), 'cell_counts', None)
        if counts is None:
            raise LandcoverError(
                f'class_weights {weighting!r} needs a data module that counts classes (CataloniaDataModule); '
                'give a list of weights instead'
            )
        weights = class_weights(counts(), weighting, max_weight=self.hparams['max_class_weight'])
        self.criterion.weight = torch.from_numpy(weights).to(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or number of channels, in words.

        Raises:
            LandcoverError: If network or channels differ.
        """
        trained = checkpoint.get('hyper_parameters', {}).get('in_channels')
        if trained is not None and trained != self.hparams['in_channels']:
            channels = checkpoint.get('CataloniaDataModule', {}).get('channels')
            named = f' ({", ".join(channels)})' if channels else ''
            raise LandcoverError(
                f'the checkpoint was trained on {trained} channels{named}, the data give '
                f'{self.hparams["in_channels"]}: choose the same bands and seasons'
            )
        self._network_of(checkpoint, name='the checkpoint')
        self.log_dir = checkpoint.get('log_dir')
        load_lora_state(self.model, checkpoint.get('lora', {}))

    def on_train_epoch_start(self) -> None:
        """Note the learning rate."""
        self.log('learning_rate', self.trainer.optimizers[0].param_groups[0]['lr'])

    def training_step(self, batch: Sample, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Loss of a batch, with the weights of pixels or the shares of classes where the batch has them."""
        loss = self.criterion(self(batch['image']), _codes(batch), batch.get('weight'), batch.get('shares'))
        if not torch.isfinite(loss):
            raise lost(self, loss, batch)
        self.log('train_loss', loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(batch['image']))
        return loss

    def validation_step(self, batch: Sample, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Loss, predicted codes and logits of a batch; the codes are counted."""
        return self._evaluate(batch, self.val_matrix, self.val_mean)

    def test_step(self, batch: Sample, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Loss, predicted codes and logits of a batch; the codes are counted, also for each kind of pixel."""
        outputs, target = self._evaluate(batch, self.test_matrix, self.test_mean), _codes(batch)
        self.strata_matrices.update(outputs['prediction'], target, strata(target, batch.get('purity')))
        return outputs

    def _evaluate(self, batch: Sample, matrix: MulticlassConfusionMatrix, mean: MeanMetric) -> dict[str, Tensor]:
        target, logits = _codes(batch), self(batch['image'])
        loss, codes = self.criterion(logits, target), predicted_codes(logits)
        matrix.update(codes, target)
        mean.update(loss, self.criterion.mass(target))  # so that the epoch's loss is a mean over pixels, not batches
        return {'loss': loss, 'prediction': codes, 'logits': logits}

    def predict_step(self, batch: Sample, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Probabilities ``(B, num_classes, H, W)`` of the classes, and which pixels were measured.

        An engine may give the probabilities later: then they are a function that waits for them.
        """
        image = batch['image']
        return {
            'probabilities': class_probabilities(self(image)) if self.engine is None else self.engine(image),
            'valid': batch.get('valid'),
            'bounds': batch.get('bounds'),
            'transform': batch.get('transform'),
        }

    def on_train_epoch_end(self) -> None:
        """Nothing: training scores would cost as much as they tell."""

    def on_validation_epoch_end(self) -> None:
        """Scores over the whole validation ground."""
        self.val_confusion = self._finish('val', self.val_matrix, self.val_mean)

    def on_test_epoch_end(self) -> None:
        """Scores over the whole test ground, and the counts of each kind of pixel."""
        self.test_confusion = self._finish('test', self.test_matrix, self.test_mean)
        counts = dict(zip(STRATA, self.strata_matrices.compute().cpu().numpy(), strict=True))
        self.strata_matrices.reset()
        self.test_strata = {name: confusion for name, confusion in counts.items() if confusion.any()}

    def _finish(self, name: str, matrix: MulticlassConfusionMatrix, mean: MeanMetric) -> Any:
        confusion, loss = matrix.compute().cpu().numpy(), mean.compute()
        matrix.reset()
        mean.reset()
        self.log(f'{name}_loss', loss.nan_to_num(), prog_bar=True)  # 0 where the whole split is unlabelled
        scores = Scores.from_confusion(confusion)
        overall = {
            f'{name}_mIoU': scores.mean_iou,
            f'{name}_OA': scores.overall_accuracy,
            f'{name}_mDice': scores.mean_dice,
            f'{name}_mean_accuracy': scores.mean_producers_accuracy,
        }
        by_class = {
            f'{name}_{kind}/{LEGEND[c].name}': values[c]
            for kind, values in (('IoU', scores.iou), ('Dice', scores.dice), ('accuracy', scores.producers_accuracy))
            for c in LEGEND.codes
        }
        shown = {k: overall.pop(k) for k in (f'{name}_mIoU', f'{name}_OA')}
        self.log_dict(shown, prog_bar=True)  # NaN where nothing was labelled: callbacks rank it last
        self.log_dict(overall)
        self.log_dict({k: float(v) for k, v in by_class.items() if v == v})  # n/a is not logged as 0
        return confusion

    def provenance(self) -> dict[str, Any]:
        """What the network is, for reports and maps."""
        return {k: self.hparams[k] for k in ('model', 'backbone', 'in_channels', 'loss', 'loss_args', 'class_weights')}


def _codes(batch: Sample) -> Tensor:
    """Label codes ``(B, H, W)``, int64, also from data modules that keep a channel axis."""
    mask = batch['mask']
    return (mask[:, 0] if mask.ndim == 4 else mask).long()


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A checkpoint on the CPU, without executing anything that it brings.

    Raises:
        LandcoverError: If the file is missing or is no checkpoint.
    """
    path = local_copy(path)
    if not path.is_file():
        raise LandcoverError(f'checkpoint {path} does not exist; landcover fit prints the path of the best one')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as e:
        raise LandcoverError(f'{path} is not a checkpoint, or is damaged ({type(e).__name__})') from e
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise LandcoverError(f'{path} is not a checkpoint of landcover fit: it holds no state_dict')
    return checkpoint
