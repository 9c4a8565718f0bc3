"""What is printed before a training: what was chosen, and the reason."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from landcover_plugin import CataloniaDataModule, LandCoverSegmentation
from landcover_plugin.training.summary import describe_fit


def described(folder: Path, model: Any = (), data: Any = (), **trainer: Any) -> dict[str, str]:
    """The lines by their names; nothing is read, since a summary must not wait for rasters."""
    settings: Any = {'model': 'unet_scratch', 'backbone': 'plain16', 'weights': False, 'in_channels': 4}
    task = LandCoverSegmentation(**settings | dict(model))
    module = CataloniaDataModule(root=str(folder), **dict(data))
    callbacks = [EarlyStopping('val_loss', patience=7), ModelCheckpoint(folder, 'best', monitor='val_mIoU', mode='max')]
    made = Trainer(accelerator='cpu', logger=False, callbacks=callbacks, max_epochs=30, **trainer)
    first, *lines = describe_fit(task, module, made).split('\n')
    assert first == 'training' and all(re.match(r'  \w+ +\S', line) for line in lines)
    return dict(re.split(' +', line.strip(), maxsplit=1) for line in lines)


def test_defaults_have_their_reasons(tmp_path: Path) -> None:
    told = described(tmp_path)
    assert told['network'] == (
        'unet_scratch with plain16, 2.0 million weights; 4 channels: all bands of the files, each month is a look of '
        'its own'
    )
    assert told['start'].startswith('random weights, since model.weights is false')
    assert told['loss'].endswith('none, since patches with rare classes are drawn more often (balance 0.5)')
    assert 'lr 0.001 halved when val_loss has not fallen for 3 epochs; 8 patches of 256 px a step' in told['steps']
    assert told['patches'].startswith('an epoch is as many as the training ground holds side by side; flipped')
    assert 'training ground, kept in the checkpoint' in told['scale']
    assert told['end'] == (
        'after 30 epochs at most; earlier when val_loss has not improved for 7; best.ckpt is that of the highest '
        'val_mIoU'
    )
    assert told['device'].startswith('cpu')


@pytest.mark.parametrize(
    ('model', 'data', 'line', 'words'),
    [
        ({'class_weights': 'inverse_sqrt'}, {}, 'loss', 'by the pixels of the training ground, and drawn more often'),
        ({'class_weights': 'inverse_sqrt'}, {'balance': 0}, 'loss', 'inverse_sqrt, by the pixels of the training'),
        ({'class_weights': [1.0] * 12}, {'balance': 0}, 'loss', 'given, as model.class_weights lists them'),
        ({}, {'balance': 0}, 'loss', 'drawn by area: rare classes count as little as they cover'),
        ({'loss': 'ce+dice'}, {'purity': 'soft'}, 'loss', 'ce+dice, against the shares of the classes in a pixel'),
        ({'lr_schedule': 'cosine'}, {}, 'steps', 'risen to over 5% of the steps, then down to 0 with the last epoch'),
        ({'ema': 0.99}, {}, 'steps', 'averaged weights (decay 0.99) are validated and kept, since'),
        ({'encoder_lr_factor': 0.1}, {}, 'start', 'learns at 0.1 x the rate of the rest, so as to forget less'),
        ({'freeze_backbone': True}, {}, 'start', 'million are trained, the others stay'),
        ({'channels_last': True, 'compile': True}, {}, 'device', 'channels last; compiled'),
        ({}, {'mix': 'cutmix', 'mix_p': 0.3}, 'patches', 'cutmix into 30% of them'),
        ({}, {'augment': False, 'length': 1200}, 'patches', '1,200 an epoch; not augmented'),
        ({}, {'mean': [0.1], 'std': [0.1]}, 'scale', 'each band by data.mean and data.std'),
        ({}, {'bands': ['B04'], 'seasons': 'stack'}, 'network', 'those of data.bands, all months side by side'),
    ],
)
def test_what_is_chosen_is_told(tmp_path: Path, model: Any, data: Any, line: str, words: str) -> None:
    assert words in described(tmp_path, model, data)[line]


def test_steps_and_precision_of_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = described(tmp_path, accumulate_grad_batches=4, gradient_clip_val=0.5, max_steps=90)
    assert '32 patches of 256 px a step (batch_size 8 x accumulated 4); gradients clipped at 0.5' in told['steps']
    assert told['end'].startswith('after 90 steps at most; after 30 epochs at most')
    for quick, precision, words in (
        (True, '32-true', '--trainer.precision bf16-mixed may be quicker'),
        (False, 'bf16-mixed', 'which this processor has no instructions for'),
        (True, 'bf16-mixed', 'cpu'),
    ):
        monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda quick=quick: quick)
        told = described(tmp_path, precision=precision)
        assert words in told['device'] and precision in told['device']
