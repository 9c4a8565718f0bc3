"""The task in whole runs of Lightning: scores against scikit-learn, loss, checkpoints, reproducibility."""

import logging
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn import metrics
from torch.optim import Adam, AdamW
from torch.utils.data import DataLoader
from torchgeo.tasks import SemanticSegmentation

from landcover_plugin import CataloniaDataModule, LandCoverSegmentation
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.legend import LEGEND
from landcover_plugin.models import hub
from landcover_plugin.models.outputs import predicted_codes
from landcover_plugin.sampling.weights import class_weights
from landcover_plugin.training.task import read_checkpoint

RATIOS = [0.5, 0.25, 0.25]


def data(scene: Scene, **settings: Any) -> CataloniaDataModule:
    given = {'patch_size': 32, 'batch_size': 4, 'num_workers': 0, 'length': 12, 'ratios': RATIOS}
    return CataloniaDataModule(root=str(scene.label.parent), **(given | settings))


def task(seed: int = 0, **settings: Any) -> LandCoverSegmentation:
    torch.manual_seed(seed)
    return LandCoverSegmentation(**({'backbone': 'resnet18', 'weights': False} | settings))


def trainer(folder: Path, **settings: Any) -> Trainer:
    quiet = {'logger': False, 'enable_progress_bar': False, 'enable_model_summary': False}
    given = {'accelerator': 'cpu', 'max_epochs': 1, 'num_sanity_val_steps': 0, 'default_root_dir': folder}
    checkpoints = {'enable_checkpointing': any(isinstance(c, ModelCheckpoint) for c in settings.get('callbacks', []))}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return Trainer(**(quiet | given | checkpoints | settings))


class Losses(Callback):
    """The training loss of each step."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps.append(float(outputs['loss']))


class Windows(Callback):
    """The windows that the training sampler draws in each epoch."""

    def __init__(self) -> None:
        self.epochs: dict[int, list[Any]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sampler: Any = trainer.train_dataloader.sampler  # type: ignore[union-attr]
        self.epochs[trainer.current_epoch] = list(sampler.windows())


@pytest.fixture(scope='module')
def fitted(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CataloniaDataModule]:
    """The checkpoint of a short training, and its data module."""
    folder, dm = tmp_path_factory.mktemp('fitted'), data(scene, augment=False)
    saving = ModelCheckpoint(folder, filename='model', monitor='val_mIoU', mode='max')
    trainer(folder, callbacks=[saving]).fit(task(), dm)
    return folder / 'model.ckpt', dm


# What it is


def test_it_is_a_task_of_torchgeo() -> None:
    made = task()
    assert isinstance(made, SemanticSegmentation)
    assert made.hparams['in_channels'] == 10 and made.hparams['num_classes'] == 13
    assert made(torch.zeros(1, 10, 33, 40)).shape == (1, 13, 33, 40)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'model': 'unett'}, "model must be one of unet.*, got 'unett'"),
        ({'num_classes': 12}, r'drop num_classes and ignore_index \(got 12 and 0\)'),
        ({'ignore_index': 255}, r'drop num_classes and ignore_index \(got 13 and 255\)'),
        ({'class_weights': [1.0, 2.0]}, 'class_weights needs 12 weights'),
        ({'backbone': 'resnet19'}, "'resnet19' is not an encoder"),
        ({'weights': 'nowhere.ckpt'}, 'weights nowhere.ckpt is not a file'),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        task(**settings)


def test_weights_that_cannot_be_fetched_name_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*args: Any, **kwargs: Any) -> None:
        assert kwargs['encoder_weights'] == 'imagenet'
        raise OSError('no network')

    monkeypatch.setattr(smp, 'Unet', fetch)
    monkeypatch.setattr(hub, 'hub_answers', lambda: False)
    with pytest.raises(LandcoverError, match=r'--model\.weights false'):
        task(weights=True)


@pytest.mark.parametrize(('name', 'kind'), [('adam', Adam), ('adamw', AdamW)])
def test_optimizer_and_schedule(name: Any, kind: type) -> None:
    made = task(optimizer_name=name, lr=2e-4)
    configured: Any = made.configure_optimizers()
    optimizer, plan = configured['optimizer'], configured['lr_scheduler']
    assert type(optimizer) is kind and optimizer.param_groups[0]['lr'] == 2e-4
    assert {id(p) for g in optimizer.param_groups for p in g['params']} == {id(p) for p in made.parameters()}
    scheduler = plan['scheduler']
    assert plan['monitor'] == 'val_loss' and scheduler.mode == 'min'
    assert scheduler.factor == 0.5 and scheduler.patience == 3
    for _ in range(5):
        scheduler.step(1.0)
    assert optimizer.param_groups[0]['lr'] == 1e-4, 'halved in the fourth epoch without a better loss'


@pytest.mark.parametrize('part', ['backbone', 'decoder'])
def test_a_part_can_be_frozen(part: str) -> None:
    made = task(**{f'freeze_{part}': True})
    frozen, free = made.model.encoder, made.model.decoder
    if part == 'decoder':
        frozen, free = free, frozen
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in free.parameters())
    assert made.model.network.segmentation_head[0].weight.requires_grad


def test_a_frozen_backbone_does_not_learn(scene: Scene, tmp_path: Path) -> None:
    made = task(freeze_backbone=True)
    before = {k: v.clone() for k, v in made.model.named_parameters()}
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=1).fit(made, data(scene))
    changed = {k for k, v in made.model.named_parameters() if not torch.equal(v, before[k])}
    assert changed and not any('.encoder.' in k for k in changed)


# Scores


@pytest.fixture(scope='module')
def by_hand(fitted: tuple[Path, CataloniaDataModule], scene: Scene) -> dict[str, Any]:
    """Labels, predictions and loss of all validation pixels, gathered without Lightning."""
    path, dm = fitted
    network = LandCoverSegmentation.load_from_checkpoint(path).eval()
    own = data(scene, batch_size=1)
    own.load_state_dict(dm.state_dict())
    own.setup('validate')
    transform, truth, predicted, columns = own._transform('eval'), [], [], []
    with torch.no_grad():
        for batch in own.val_dataloader():
            batch = transform(batch)
            logits = network(batch['image'])
            seen = batch['mask'] > 0
            truth.append(batch['mask'][seen])
            predicted.append(predicted_codes(logits)[seen])
            columns.append(logits.movedim(1, -1)[seen])
    return {'truth': torch.cat(truth), 'predicted': torch.cat(predicted), 'logits': torch.cat(columns)}


@pytest.mark.parametrize('weights', ['none', [float(v) for v in range(1, 13)]], ids=['plain', 'weighted'])
@pytest.mark.parametrize('batch_size', [1, 3, 16])
def test_scores_are_those_of_all_pixels_whatever_the_batch(
    fitted: tuple[Path, CataloniaDataModule],
    by_hand: dict[str, Any],
    scene: Scene,
    tmp_path: Path,
    batch_size: int,
    weights: Any,
) -> None:
    path, _ = fitted
    made = task(class_weights=weights)
    made.model.load_state_dict(LandCoverSegmentation.load_from_checkpoint(path).model.state_dict())
    dm = data(scene, batch_size=batch_size)
    dm.load_state_dict(fitted[1].state_dict())
    (logged,) = trainer(tmp_path).validate(made, dm, verbose=False)
    y, p = by_hand['truth'].numpy(), by_hand['predicted'].numpy()
    present = np.unique(y)
    np.testing.assert_array_equal(made.val_confusion, metrics.confusion_matrix(y, p, labels=range(13)))
    iou = metrics.jaccard_score(y, p, labels=present, average=None, zero_division=0)
    f1 = metrics.f1_score(y, p, labels=present, average=None, zero_division=0)
    recall = metrics.recall_score(y, p, labels=present, average=None, zero_division=0)
    wanted = {
        'val_OA': metrics.accuracy_score(y, p),
        'val_mIoU': iou.mean(),
        'val_mDice': f1.mean(),
        'val_mean_accuracy': recall.mean(),
    }
    for kind, values in (('IoU', iou), ('Dice', f1), ('accuracy', recall)):
        wanted |= {f'val_{kind}/{LEGEND[c].name}': v for c, v in zip(present, values, strict=True)}
    weight = torch.ones(13) if weights == 'none' else torch.tensor([0.0, *weights])
    loss = torch.nn.CrossEntropyLoss(weight)(by_hand['logits'], by_hand['truth'])
    wanted['val_loss'] = float(loss)
    assert set(logged) == set(wanted), 'every class of the labels and no other'
    assert len(present) < 12, 'the test needs an absent class'
    for name, value in wanted.items():
        assert logged[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_the_test_ground_of_a_checkpoint_is_that_of_its_training(
    fitted: tuple[Path, CataloniaDataModule], scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, dm = fitted
    made = LandCoverSegmentation.load_from_checkpoint(path)
    again = CataloniaDataModule.load_from_checkpoint(path)
    assert again.settings.ratios == RATIOS and again.settings.augment is False
    moved = 'landcover_plugin.training.ground.block_split'
    monkeypatch.setattr(moved, lambda *a, **k: pytest.fail('the blocks were drawn anew'))
    (logged,) = trainer(tmp_path).test(made, again, ckpt_path=path, verbose=False)
    assert again.split.windows('test') == dm.split.windows('test')
    assert made.test_confusion is not None and logged['test_OA'] > 0
    images, labels, total = dm.open_images(), dm.open_labels(), 0
    for window in dm.split.windows('test'):
        grid = images.grid.subgrid(window)
        codes = labels.read_codes(grid)
        total += sum(int((images.read(grid, look)[1] & (codes > 0)).sum()) for look in images.looks)
    assert made.test_confusion.sum() == total


# Batches without labels


class Patches(torch.utils.data.Dataset[dict[str, Any]]):
    """Random patches as any data set may give them; those named are unlabelled."""

    def __init__(self, count: int, unlabelled: range) -> None:
        self.count, self.unlabelled = count, unlabelled

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(index)
        mask = torch.randint(1, 13, (1, 32, 32), generator=draw)
        image = torch.randn(10, 32, 32, generator=draw)
        return {'image': image, 'mask': mask * (index not in self.unlabelled)}


@pytest.mark.parametrize('precision', ['32-true', 'bf16-mixed'])
@pytest.mark.parametrize('unlabelled', [range(2, 6), range(8)], ids=['some', 'all'])
def test_a_run_stays_finite_without_labels(tmp_path: Path, unlabelled: range, precision: Any) -> None:
    loader: Any = DataLoader(Patches(8, unlabelled), batch_size=2)
    made, losses = task(), Losses()
    run = trainer(tmp_path, callbacks=[losses], precision=precision)
    run.fit(made, loader, loader)
    assert len(losses.steps) == 4 and np.isfinite(losses.steps).all()
    assert [losses.steps[i] for i in (1, 2)] == [0, 0] and (losses.steps[0] > 0) == (unlabelled == range(2, 6))
    assert all(p.isfinite().all() for p in made.parameters())
    scores = {k: v.isfinite() for k, v in run.callback_metrics.items() if k.startswith('val_') and k != 'val_loss'}
    assert all(v.isfinite() for k, v in run.callback_metrics.items() if k not in scores)
    assert all(scores.values()) == any(scores.values()) == (unlabelled == range(2, 6)), 'n/a is not 0'


def test_a_mask_may_keep_its_channel_axis(tmp_path: Path) -> None:
    sample = Patches(1, range(0))[0]
    made = task().eval()
    flat = made.criterion(made(sample['image'][None]), sample['mask'])
    kept = made._evaluate(
        {'image': sample['image'][None], 'mask': sample['mask'][None]}, made.val_matrix, made.val_mean
    )
    assert torch.equal(flat, kept['loss']) and kept['prediction'].shape == (1, 32, 32)


# Purity


class PurityPatches(Patches):
    """The same with purity, and weights and shares as the device makes them; masks of bytes."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample, draw = super().__getitem__(index), torch.Generator().manual_seed(index + 1000)
        mask = sample['mask'][0].byte()
        mask[:, 16:] = mask[:1, :1]  # so that there is an interior
        mask[5, 20:25] = 0
        purity = torch.randint(95, 101, mask.shape, generator=draw).byte() * (mask > 0)
        shares = torch.rand(12, 32, 32, generator=draw)
        soft = shares / shares.sum(0) * (mask > 0)
        return {'image': sample['image'], 'mask': mask, 'purity': purity, 'weight': purity / 100, 'shares': soft}


@pytest.mark.parametrize('keys', [(), ('weight',), ('shares',), ('weight', 'shares')])
def test_training_honours_weight_and_shares(keys: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = next(iter(DataLoader(PurityPatches(2, range(0)), batch_size=2)))
    made = task(class_weights=[float(v) for v in range(1, 13)]).eval()
    monkeypatch.setattr(made, 'log', lambda *a, **k: None)
    batch = {k: v for k, v in whole.items() if k in ('image', 'mask', 'purity', *keys)}
    loss = made.training_step(batch, 0)
    with torch.no_grad():
        log_p = made(whole['image']).double().log_softmax(1).numpy()[:, 1:]
    codes = whole['mask'].numpy()
    s = whole['shares'].double().numpy() if 'shares' in keys else np.arange(1, 13)[:, None, None] == codes[:, None]
    v = whole['weight'].double().numpy() if 'weight' in keys else np.ones(codes.shape)
    mass = s * (v * (codes > 0))[:, None] * np.arange(1, 13)[:, None, None]
    assert float(loss.detach()) == pytest.approx(-(mass * log_p).sum() / mass.sum(), rel=1e-4)
    plain = task().criterion
    for matrix, mean in ((made.val_matrix, made.val_mean), (made.test_matrix, made.test_mean)):
        outputs = made._evaluate(batch, matrix, mean)
        hard = made.criterion(made(whole['image']), whole['mask'].long())
        assert torch.equal(outputs['loss'], hard), 'losses that are compared do not depend on purity'
        assert mean.weight == made.criterion.mass(whole['mask'].long()) > plain.mass(whole['mask'].long())


def border_by_shifts(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    shifts = [(r, c) for r in range(3) for c in range(3)]
    around = np.stack([padded[:, r : r + mask.shape[1], c : c + mask.shape[2]] for r, c in shifts])
    return ((around > 0) & (around != mask) & (mask > 0)).any(0)


class Predictions(Callback):
    """What the task predicts in a test."""

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append(outputs['prediction'].numpy())


@pytest.mark.parametrize('batch_size', [1, 3])
def test_each_kind_of_test_pixel_is_counted(tmp_path: Path, batch_size: int) -> None:
    patches, made = PurityPatches(5, range(1, 2)), task()
    for _ in range(2):  # a second run starts from nothing
        seen = Predictions()
        trainer(tmp_path, callbacks=[seen]).test(made, DataLoader(patches, batch_size=batch_size), verbose=False)
        mask, purity = (np.stack([patches[i][k].numpy() for i in range(5)]) for k in ('mask', 'purity'))
        border, predicted = border_by_shifts(mask), np.concatenate(seen.batches)
        wanted = {'pure': purity == 100, 'mixed': purity < 100, 'border': border, 'interior': ~border}
        assert list(made.test_strata) == list(wanted)
        for name, pixels in wanted.items():
            y, p = (a[pixels & (mask > 0)] for a in (mask, predicted))
            np.testing.assert_array_equal(
                made.test_strata[name], metrics.confusion_matrix(y, p, labels=range(13)), err_msg=name
            )
        for one, other in (('pure', 'mixed'), ('border', 'interior')):
            np.testing.assert_array_equal(made.test_strata[one] + made.test_strata[other], made.test_confusion)


def test_kinds_that_hold_no_pixel_are_left_out(tmp_path: Path) -> None:
    made = task()
    assert made.test_strata == {}
    trainer(tmp_path).test(made, DataLoader(Patches(2, range(0))), verbose=False)
    assert list(made.test_strata) == ['border'], 'noise has no interior, and no purity'
    trainer(tmp_path).test(made, DataLoader(Patches(2, range(2))), verbose=False)
    assert made.test_strata == {}


# Class weights


@pytest.mark.parametrize('strategy', ['inverse_sqrt', 'effective', 'median', 'inverse'])
def test_class_weights_come_from_the_training_ground(scene: Scene, tmp_path: Path, strategy: Any) -> None:
    dm, made = data(scene), task(class_weights=strategy)
    trainer(tmp_path, limit_train_batches=1, limit_val_batches=1).fit(made, dm)
    counts = np.zeros(13, dtype=np.int64)
    for window in dm.split.windows('train'):
        grid = dm.open_images().grid.subgrid(window)
        seen = np.logical_or.reduce([dm.open_images().read(grid, look)[1] for look in dm.open_images().looks])
        counts += np.bincount((dm.open_labels().read_codes(grid) * seen).ravel(), minlength=13)
    assert made.criterion.weight is not None
    np.testing.assert_array_equal(dm.cell_counts().sum(0), counts)
    expected = class_weights(dm.cell_counts() if strategy == 'median' else counts, strategy)
    np.testing.assert_allclose(made.criterion.weight.numpy(), expected, rtol=1e-5)
    assert made.criterion.weight[0] == 0 and made.criterion.weight[1:].max() > 0


def test_class_weights_by_name_need_data_that_count(tmp_path: Path) -> None:
    loader: Any = DataLoader(Patches(2, range(0)), batch_size=2)
    with pytest.raises(LandcoverError, match="class_weights 'median' needs a data module that counts classes"):
        trainer(tmp_path).fit(task(class_weights='median'), loader)
    given = task(class_weights=[2.0] * 12)
    trainer(tmp_path).fit(given, loader, loader)
    assert given.criterion.weight is not None and given.criterion.weight.tolist() == [0.0] + [2.0] * 12


# Checkpoints


def test_settings_and_weights_come_back(fitted: tuple[Path, CataloniaDataModule], monkeypatch: Any) -> None:
    path, _ = fitted
    monkeypatch.setattr(hub, 'hub_answers', lambda: pytest.fail('weights were fetched'))
    made = LandCoverSegmentation.load_from_checkpoint(path)
    saved = read_checkpoint(path)
    assert made.hparams['backbone'] == 'resnet18' and made.hparams['class_weights'] == 'none'
    assert made.provenance()['backbone'] == 'resnet18'
    assert all(torch.equal(v, saved['state_dict'][k]) for k, v in made.state_dict().items())
    assert 'weights' not in made.hparams


def test_a_task_that_began_from_imagenet_is_loaded_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = smp.Unet
    monkeypatch.setattr(smp, 'Unet', lambda *a, encoder_weights, **k: real(*a, encoder_weights=None, **k))
    monkeypatch.setattr(hub, 'hub_answers', lambda: True)
    run, loader = trainer(tmp_path), DataLoader(Patches(2, range(0)), batch_size=2)
    run.fit(task(weights=True), loader, loader)
    run.save_checkpoint(tmp_path / 'a.ckpt')
    monkeypatch.setattr(smp, 'Unet', real)
    monkeypatch.setattr(hub, 'hub_answers', lambda: pytest.fail('weights were fetched'))
    LandCoverSegmentation.load_from_checkpoint(tmp_path / 'a.ckpt')


def test_training_starts_from_an_earlier_checkpoint(fitted: tuple[Path, CataloniaDataModule]) -> None:
    path, _ = fitted
    state = read_checkpoint(path)['state_dict']
    made = task(weights=str(path), class_weights=[3.0] * 12)
    assert all(torch.equal(v, state[f'model.{k}']) for k, v in made.model.state_dict().items())
    assert made.criterion.weight is not None and made.criterion.weight.max() == 3, 'only the network is taken'
    with pytest.raises(LandcoverError, match='holds another network than unet with resnet18 and 4 channels'):
        task(weights=str(path), in_channels=4)


def test_another_number_of_channels_is_told(
    fitted: tuple[Path, CataloniaDataModule], scene: Scene, tmp_path: Path
) -> None:
    path, _ = fitted
    with pytest.raises(LandcoverError, match=r'trained on 10 channels \(B02, .*\), the data give 20: choose the same'):
        trainer(tmp_path).test(task(in_channels=20), data(scene, seasons='stack'), ckpt_path=path)
    with pytest.raises(LandcoverError, match='another network than unet with resnet18 and 2 channels'):
        LandCoverSegmentation.load_from_checkpoint(path, in_channels=2)
    with pytest.raises(LandcoverError, match='another network than unet with resnet34 and 10 channels'):
        trainer(tmp_path).test(task(backbone='resnet34'), data(scene), ckpt_path=path)


def test_other_bands_of_the_same_number_are_told(
    fitted: tuple[Path, CataloniaDataModule], scene: Scene, tmp_path: Path
) -> None:
    bands = ['B12', 'B11', 'B8A', 'B08', 'B07', 'B06', 'B05', 'B04', 'B03', 'B02']
    with pytest.raises(LandcoverError, match='choose the same bands in the same order'):
        trainer(tmp_path).test(task(), data(scene, bands=bands), ckpt_path=fitted[0])


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize('legacy', [False, True])
def test_a_checkpoint_executes_nothing(tmp_path: Path, legacy: bool) -> None:
    path, target = tmp_path / 'evil.ckpt', tmp_path / 'executed'
    content = {'state_dict': {}, 'hyper_parameters': Bomb(target)}
    if legacy:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(LandcoverError, match=r'evil\.ckpt is not a checkpoint, or is damaged \(UnpicklingError\)'):
        read_checkpoint(path)
    with pytest.raises(LandcoverError, match='is not a checkpoint'):
        task(weights=str(path))
    with pytest.raises(pickle.UnpicklingError):
        LandCoverSegmentation.load_from_checkpoint(path)
    assert not target.exists()
    with open(path, 'rb') as file:  # the bomb is live
        pickle.load(file) if legacy else torch.load(file, weights_only=False)
    assert target.exists()


@pytest.mark.parametrize('content', [b'', b'garbage' * 100, b'PK\x03\x04' + b'\0' * 50])
def test_garbage_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'a.ckpt').write_bytes(content)
    with pytest.raises(LandcoverError, match=r'a\.ckpt is not a checkpoint, or is damaged'):
        read_checkpoint(tmp_path / 'a.ckpt')


def test_other_files_are_no_checkpoint(fitted: tuple[Path, CataloniaDataModule], tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / 'list.pt')
    torch.save({'weight': torch.ones(3)}, tmp_path / 'weights.pt')
    for name in ('list.pt', 'weights.pt'):
        with pytest.raises(LandcoverError, match='it holds no state_dict'):
            read_checkpoint(tmp_path / name)
    for name in ('missing.ckpt', ''):
        with pytest.raises(LandcoverError, match='does not exist; landcover fit prints the path'):
            read_checkpoint(tmp_path / name)
    whole = fitted[0].read_bytes()
    (tmp_path / 'cut.ckpt').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LandcoverError, match='is damaged'):
        read_checkpoint(tmp_path / 'cut.ckpt')


# Prediction


def test_prediction_gives_probabilities_of_real_classes(
    fitted: tuple[Path, CataloniaDataModule], scene: Scene, tmp_path: Path
) -> None:
    path, trained = fitted
    x, y = trained.open_images().grid.origin
    dm = data(scene, bbox=[x, y - 400, x + 500, y])
    run = trainer(tmp_path)
    batches: Any = run.predict(LandCoverSegmentation.load_from_checkpoint(path), dm, ckpt_path=path)
    assert dm.normalisation() == trained.normalisation()
    for batch in batches:
        p = batch['probabilities']
        assert p.dtype == torch.float32 and p[:, 0].eq(0).all()
        torch.testing.assert_close(p.sum(1), torch.ones_like(p[:, 0]))
        assert batch['valid'].dtype == torch.bool and batch['valid'].shape == p[:, 0].shape


# Reproducibility


def losses_of(scene: Scene, folder: Path, seed: int, **settings: Any) -> list[float]:
    seed_everything(seed, verbose=False)
    losses = Losses()
    made = LandCoverSegmentation(backbone='tu-resnet10t', weights=False)
    trainer(folder, max_epochs=2, callbacks=[losses]).fit(made, data(scene, **settings))
    return losses.steps


def test_the_same_seed_gives_the_same_losses_with_any_number_of_workers(scene: Scene, tmp_path: Path) -> None:
    alone = losses_of(scene, tmp_path, 1, num_workers=0)
    assert len(alone) == 6 and len(set(alone)) == 6
    assert losses_of(scene, tmp_path, 1, num_workers=2) == alone
    assert losses_of(scene, tmp_path, 2) != alone


@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_resumed_run_goes_on_where_it_stopped(scene: Scene, tmp_path: Path, num_workers: int) -> None:
    """Without augmentation, whose draws Lightning does not keep, the losses agree to the last bit."""

    def run(epochs: int, ckpt_path: Path | None = None) -> tuple[Losses, Windows, Trainer]:
        seed_everything(3, verbose=False)
        losses, windows = Losses(), Windows()
        saving = ModelCheckpoint(tmp_path / str(epochs), save_last=True)
        made = LandCoverSegmentation(backbone='tu-resnet10t', weights=False)
        went = trainer(tmp_path, max_epochs=epochs, callbacks=[losses, windows, saving])
        went.fit(made, data(scene, augment=False, num_workers=num_workers), ckpt_path=ckpt_path)
        return losses, windows, went

    whole, whole_windows, _ = run(2)
    run(1)
    rest, rest_windows, resumed = run(2, tmp_path / '1' / 'last.ckpt')
    assert resumed.current_epoch == 2 and list(rest_windows.epochs) == [1]
    assert rest_windows.epochs[1] == whole_windows.epochs[1] != whole_windows.epochs[0]
    assert rest.steps == whole.steps[3:]


# How the device computes


def test_channels_last_changes_the_layout_and_not_the_logits() -> None:
    plain, last = task(), task(channels_last=True)
    last.load_state_dict(plain.state_dict())
    last.setup('fit')
    weights = [p for p in last.model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert weights and all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    image = torch.randn(2, plain.hparams['in_channels'], 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(last.eval()(image), plain.eval()(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('fails', ['never', 'at once', 'with gradients', 'at another shape'])
def test_compiling_is_tried_without_a_trace_and_given_up_in_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    """Compilers fail at the first call, at the first gradients or at a later shape; the result is that without them."""
    made, plain = task(compile=True).train(), task().train()
    plain.load_state_dict(made.state_dict())

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            raise RuntimeError('no compiler\nwith a long story')

    def compiled(*args: Any, **kwargs: Any) -> None:
        def call(image: torch.Tensor) -> torch.Tensor:
            if fails == 'at once' or (fails == 'at another shape' and image.shape[-1] == 96):
                raise RuntimeError('no compiler\nwith a long story')
            logits = made.model._call_impl(image)
            return Broken.apply(logits) if fails == 'with gradients' else logits

        made.model._compiled_call_impl = call

    monkeypatch.setattr(made.model, 'compile', compiled)
    monkeypatch.setattr(logging.getLogger('landcover_plugin'), 'propagate', True)
    with caplog.at_level('WARNING'):
        made.setup('fit')
        assert all(torch.equal(v, plain.state_dict()[k]) for k, v in made.state_dict().items())
        for width in (64, 96):
            image = torch.randn(2, made.hparams['in_channels'], 64, width)
            for network in (made, plain):
                network.zero_grad()
                network(image).square().mean().backward()
    assert caplog.text.count('does not work here (no compiler); going on without it') == (fails != 'never')
    for (name, found), wanted in zip(made.model.named_parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(found.grad, wanted.grad), name  # type: ignore[arg-type]
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in made.state_dict().items())


def test_what_is_wrong_with_the_input_is_not_blamed_on_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    made = task(compile=True).eval()
    monkeypatch.setattr(made.model, 'compile', lambda: None)
    made.setup('fit')
    with pytest.raises(RuntimeError, match='channels'):
        made(torch.zeros(1, made.hparams['in_channels'] + 1, 32, 32))
