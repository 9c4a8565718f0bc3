"""Tuning: groups of parameters, an encoder that joins in later, and low-rank adaptation."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from landcover_plugin.errors import LandcoverError
from landcover_plugin.models import BUILDERS
from landcover_plugin.models.lora import add_lora, load_lora_state, lora_state, merge_lora
from landcover_plugin.training.tuning import FreezeEncoder, encoder_stages, frozen_stages, parameter_groups

SMALL = {
    'unet': 'resnet18',
    'unet_scratch': 'plain16',
    'resnet50_deconv': 'resnet18',
    'segformer': 'mit_b0',
    'segformer_unet': 'mit_b0',
    'segformer_resnet_unet': 'mit_b0+resnet18',
    'upernet': 'tu-swinv2_tiny_window8_256',
    'dpt': 'tu-vit_tiny_patch16_224',
}
every_network = pytest.mark.parametrize('name', BUILDERS)
every_transformer = pytest.mark.parametrize(
    'name', ['segformer', 'segformer_unet', 'segformer_resnet_unet', 'upernet', 'dpt']
)


pytestmark = pytest.mark.usefixtures('one_thread')


def build(name: str = 'unet', backbone: str | None = None, in_channels: int = 4) -> Any:
    torch.manual_seed(0)
    backbone = backbone or SMALL.get(name, 'resnet18')
    return BUILDERS[name](backbone, in_channels=in_channels, num_classes=3, pretrained=False)


# Groups


@every_network
def test_every_trained_parameter_is_in_one_group(name: str) -> None:
    network = build(name)
    groups = parameter_groups(network, 1e-3, 0.1, 0.05)
    members = [id(p) for group in groups for p in group['params']]
    assert len(members) == len(set(members))
    assert set(members) == {id(p) for p in network.parameters() if p.requires_grad}
    encoder = {id(p) for p in network.encoder.parameters()}
    for group in groups:
        inside = {id(p) in encoder for p in group['params']}
        assert inside == {group['name'].startswith('encoder')}, group['name']
        assert group['lr'] == pytest.approx(1e-4 if group['name'].startswith('encoder') else 1e-3)
    assert groups[0]['name'] == 'decoder', 'the learning rate that is logged is that of the decoder'
    norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    linear = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    of_norms = {id(p) for m in network.modules() if isinstance(m, norms) for p in m.parameters(recurse=False)}
    weights = {id(m.weight) for m in network.modules() if isinstance(m, linear)}
    decayed = {id(p) for group in groups if group['weight_decay'] for p in group['params']}
    assert {group['weight_decay'] for group in groups} == {0, 0.05}
    assert decayed == weights & set(members) and not decayed & of_norms


def test_a_step_moves_encoder_and_decoder_at_their_rates() -> None:
    network = build()
    before = {k: v.clone() for k, v in network.named_parameters()}
    optimizer = SGD(parameter_groups(network, 1.0, 0.25, 0.1))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        rate = 0.25 if '.encoder.' in name else 1.0
        decay = 0.1 * before[name] if parameter.ndim > 1 else 0
        torch.testing.assert_close(parameter, before[name] - rate * (1 + decay))


def test_frozen_parameters_are_in_no_group() -> None:
    network = build()
    network.encoder.requires_grad_(False)
    assert [g['name'] for g in parameter_groups(network, 1e-3)] == ['decoder', 'decoder without decay']


@pytest.mark.parametrize('factor', [0, -1, float('inf'), float('nan')])
def test_a_factor_that_trains_nothing_is_told(factor: float) -> None:
    with pytest.raises(
        LandcoverError, match=f'encoder_lr_factor must be above 0, got {factor}; --model.freeze_backbone'
    ):
        parameter_groups(build(), 1e-3, factor)


# Stages


@every_network
def test_stages_are_those_of_the_encoder_from_the_image_on(name: str) -> None:
    network = build(name)
    stages = encoder_stages(network.encoder, 4)
    members = [id(p) for stage in stages for p in stage]
    assert len(stages) >= 4 and all(stages) and len(members) == len(set(members))
    assert set(members) == {id(p) for p in network.encoder.parameters() if p.requires_grad}
    names = {id(p): n for n, p in network.encoder.named_parameters()}
    assert any(names[id(p)].split('.')[-1] == 'weight' and p.shape[1:2] == (4,) for p in stages[0])


@pytest.mark.parametrize(
    ('name', 'starts'),
    [
        ('unet', [('conv1.', 'bn1.'), ('layer1.',), ('layer2.',), ('layer3.',), ('layer4.',)]),
        ('segformer', [(f'model.stages.{i}.',) for i in range(4)]),
        ('upernet', [('model.patch_embed.', 'model.layers_0.'), *((f'model.layers_{i}.',) for i in (1, 2, 3))]),
        ('dpt', None),
        (
            'segformer_resnet_unet',
            [
                ('convolutional.conv1.', 'convolutional.bn1.'),
                *((f'transformer.model.stages.{i}.', f'convolutional.layer{i + 1}.') for i in range(4)),
            ],
        ),
    ],
)
def test_stages_by_name(name: str, starts: Any) -> None:
    network = build(name)
    network.train()
    stages = encoder_stages(network.encoder, 4)
    assert all(m.training for m in network.modules()) and all(p.grad is None for p in network.parameters())
    names = {id(p): n for n, p in network.encoder.named_parameters()}
    if starts is None:  # of the twelve blocks of a vision transformer, three to a feature
        blocks = [{int(n.split('.')[2]) for p in s if 'blocks.' in (n := names[id(p)])} for s in stages]
        assert blocks == [{0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {9, 10, 11}]
        return
    assert len(stages) == len(starts)
    for stage, start in zip(stages, starts, strict=True):
        assert {names[id(p)] for p in stage} == {n for n in names.values() if n.startswith(start)}


def test_statistics_are_not_touched_by_finding_stages() -> None:
    network = build()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    encoder_stages(network.encoder, 4)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_an_encoder_that_is_frozen_for_good_has_no_stages() -> None:
    network = build()
    network.encoder.requires_grad_(False)
    with pytest.raises(LandcoverError, match='drop freeze_encoder_epochs or freeze_backbone'):
        encoder_stages(network.encoder, 4)


@pytest.mark.parametrize(('stages', 'epochs', 'every'), [(5, 0, 1), (4, 3, 2), (5, 2, 0), (1, 1, 3)])
def test_stages_are_set_free_from_the_last_on(stages: int, epochs: int, every: int) -> None:
    frozen = [frozen_stages(e, stages, epochs=epochs, unfreeze_every=every) for e in range(40)]
    assert frozen[:epochs] == [stages] * epochs and frozen[-1] == 0
    steps = [a - b for a, b in zip(frozen[epochs:], frozen[epochs + 1 :], strict=False)]
    assert frozen[epochs] == (stages - 1 if every else 0)
    assert [i + 1 for i, step in enumerate(steps) if step] == [every * i for i in range(1, stages)] * bool(every)


# In training


class Task(LightningModule):
    """A task as ours, small: groups, plateau, batch norms."""

    def __init__(self, patience: int = 0) -> None:
        super().__init__()
        self.patience = patience
        self.save_hyperparameters({'in_channels': 4})
        self.model = build()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log('val_loss', nn.functional.cross_entropy(self.model(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = AdamW(parameter_groups(self.model, 1e-3, 0.5, 0.01))
        plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=self.patience, threshold=10.0)
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': plateau, 'monitor': 'val_loss'}}


class Record(Callback):
    """What changed in each epoch: parameters and statistics of the encoder, and the rates."""

    def __init__(self) -> None:
        self.changed: dict[int, set[str]] = {}
        self.rates: dict[int, list[float]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # which a resumed epoch leaves out

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.before = {k: v.clone() for k, v in pl_module.model.encoder.state_dict().items()}
        self.rates[trainer.current_epoch] = [g['lr'] for g in trainer.optimizers[0].param_groups]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        now = pl_module.model.encoder.state_dict()
        changed = {k for k, v in now.items() if not torch.equal(v, self.before[k])}
        self.changed[trainer.current_epoch] = {k.split('.')[0] for k in changed}


def loader() -> Any:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(8, 4, 64, 64, generator=draw)
    return DataLoader(TensorDataset(images, torch.randint(0, 3, (8, 64, 64), generator=draw)), batch_size=4)


def fit(
    folder: Path, epochs: int, callbacks: list[Callback], resume: Any = None, patience: int = 0, **settings: Any
) -> Any:
    seed_everything(0, verbose=False)
    task = Task(patience)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        quiet = {'logger': False, 'enable_progress_bar': False, 'enable_model_summary': False, 'accelerator': 'cpu'}
        checkpoints = {'enable_checkpointing': any(isinstance(c, ModelCheckpoint) for c in callbacks)}
        trainer = Trainer(
            max_epochs=epochs, callbacks=callbacks, default_root_dir=folder, **(quiet | checkpoints | settings)
        )
        trainer.fit(task, loader(), loader(), ckpt_path=resume, weights_only=True if resume else None)
    return task


STEM, ALL = {'conv1', 'bn1'}, {'conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4'}


@pytest.mark.parametrize('clip', [None, 1.0])
def test_the_encoder_stays_then_joins_in(tmp_path: Path, clip: Any) -> None:
    record = Record()
    task = fit(tmp_path, 4, [FreezeEncoder(2), record], gradient_clip_val=clip, val_check_interval=0.5)
    assert record.changed == {0: set(), 1: set(), 2: ALL, 3: ALL}, 'with all statistics'
    assert all(p.requires_grad for p in task.parameters())
    assert record.rates[0] == [1e-3, 1e-3, 5e-4, 5e-4]
    assert record.rates[3][2] == record.rates[3][0] / 2 < 5e-4, 'the plateau halves all alike'


def test_stages_join_in_one_by_one(tmp_path: Path) -> None:
    record = Record()
    fit(tmp_path, 6, [FreezeEncoder(1, unfreeze_every=1), record], limit_train_batches=1)
    deep = ['layer4', 'layer3', 'layer2', 'layer1']
    assert record.changed == {0: set()} | {i: set(deep[:i]) for i in range(1, 5)} | {5: ALL}


@pytest.mark.parametrize('at', [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_training_resumes_as_if_it_had_not_stopped(tmp_path: Path, at: int) -> None:
    """Without a plateau: Lightning saves before the schedule's step of the epoch, which a resumed training lacks."""
    straight, record = Record(), Record()
    whole = fit(tmp_path, 5, [FreezeEncoder(2, unfreeze_every=1), straight], patience=99)
    saving = ModelCheckpoint(tmp_path, filename='last', save_on_train_epoch_end=False)
    fit(tmp_path, at, [FreezeEncoder(2, unfreeze_every=1), saving], patience=99)
    again: list[Callback] = [FreezeEncoder(2, unfreeze_every=1), record]
    resumed = fit(tmp_path, 5, again, resume=tmp_path / 'last.ckpt', patience=99)
    assert [record.changed[epoch] for epoch in range(at, 5)] == [straight.changed[epoch] for epoch in range(at, 5)]
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_a_training_resumes_within_an_epoch(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, filename='{step}', every_n_train_steps=1, save_top_k=-1)
    fit(tmp_path, 2, [FreezeEncoder(2), saving])
    before = torch.load(tmp_path / 'step=3.ckpt', weights_only=True)['state_dict']
    task = fit(tmp_path, 2, [FreezeEncoder(2)], resume=tmp_path / 'step=3.ckpt')
    now = task.state_dict()
    changed = {k for k in now if not torch.equal(now[k], before[k])}
    assert changed and not any('.encoder.' in k for k in changed)


def test_gradients_are_kept_for_several_processes_but_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, 'world_size', 2)
    record, seen = Record(), []

    class Look(Callback):
        def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
            seen.append(pl_module.model.encoder.conv1.weight.grad is not None)

    fit(tmp_path, 2, [FreezeEncoder(1), record, Look()], gradient_clip_val=1.0)
    assert all(seen) and record.changed == {0: set(), 1: ALL}


@pytest.mark.parametrize(('given', 'name'), [((-1, 0), 'freeze_encoder_epochs'), ((1, -2), 'unfreeze_every')])
def test_negative_epochs_are_told(given: Any, name: str) -> None:
    with pytest.raises(LandcoverError, match=f'{name} is a number of epochs, 0 or more, got -'):
        FreezeEncoder(*given)


# Low-rank adaptation


def learn(network: Any, steps: int = 2) -> None:
    optimizer = SGD([p for p in network.parameters() if p.requires_grad], lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(2, 4, 64, 64)).square().mean().backward()
        optimizer.step()


@every_transformer
def test_adaptation_starts_as_the_network_and_trains_every_matrix(name: str) -> None:
    network = build(name).eval()
    for part, parameter in network.encoder.named_parameters():
        if 'norm' in part and part.endswith('weight'):
            nn.init.ones_(parameter)  # random blocks of Swin V2 add nothing, by norms of 0
    x = torch.randn(1, 4, 64, 64)
    plain, keys = network(x), list(network.state_dict())
    everything = sum(p.numel() for p in network.parameters())
    account = add_lora(network, 4)
    torch.testing.assert_close(network(x), plain)
    assert sorted(network.state_dict()) == sorted(keys)
    matrices = {n: p for n, p in network.named_parameters() if n.endswith(('.0.a', '.0.b'))}
    free = {n for n, p in network.named_parameters() if p.requires_grad}
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    added = sum(p.numel() for p in matrices.values())
    assert f'{trained:,} of {everything + added:,} parameters are trained' in account
    inside = network.encoder.transformer if name == 'segformer_resnet_unet' else network.encoder
    names = {n for n, p in network.named_parameters() if any(p is q for q in inside.parameters())}
    assert {n for n in free & names if n not in matrices} == {
        n for n in names if 'patch_embed' in n and 'proj' in n and n in free
    }
    assert 1 <= len((free & names) - set(matrices)) <= 2, 'the first layer, and nothing else'
    assert trained < 0.99 * everything and all(p.requires_grad for p in network.segmentation_head.parameters())
    before = {n: p.detach().clone() for n, p in matrices.items()}
    learn(network.train(), 3)
    still = [n for n, p in matrices.items() if torch.equal(p, before[n])]
    unreached = [n for n in still if '.q_proj.' in n or '.k_proj.' in n]  # uniform attention has next to no gradient
    assert still == unreached and len(still) < len(matrices) / 4


@every_transformer
def test_a_state_dict_is_that_of_a_plain_network(name: str) -> None:
    network = build(name)
    add_lora(network, 2)
    learn(network)
    network.eval()
    x, state = torch.randn(1, 4, 64, 64), network.state_dict()
    wanted = network(x)
    plain = build(name).eval()
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in state.items()}
    plain.load_state_dict(state)
    torch.testing.assert_close(plain(x), wanted, rtol=1e-4, atol=1e-5)
    again = build(name).eval()
    add_lora(again, 2)
    load_lora_state(again, lora_state(network))
    again.load_state_dict(state)
    torch.testing.assert_close(again(x), wanted, rtol=1e-4, atol=1e-5)
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    fresh = build(name).eval()
    add_lora(fresh, 2)
    fresh.load_state_dict(state)
    torch.testing.assert_close(fresh(x), wanted, rtol=1e-4, atol=1e-5)
    twin = copy.deepcopy(network)
    merge_lora(network)
    torch.testing.assert_close(network(x), wanted, rtol=1e-4, atol=1e-5)
    assert not lora_state(network) and lora_state(twin)
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    network.load_state_dict(twin.state_dict())


def test_matrices_of_another_rank_are_told() -> None:
    one, other, plain = build('segformer'), build('segformer'), build('segformer')
    add_lora(one, 2)
    add_lora(other, 4)
    with pytest.raises(LandcoverError, match='was trained with lora_rank 4 on 32 projections; resume with the same'):
        load_lora_state(one, lora_state(other))
    load_lora_state(plain, lora_state(other))
    load_lora_state(one, {})


@pytest.mark.parametrize(
    ('name', 'rank', 'sentence'),
    [('unet', 4, 'lora_rank needs a transformer'), ('segformer', -1, 'lora_rank must be 1 or more, got -1')],
)
def test_networks_that_cannot_be_adapted_are_told(name: str, rank: int, sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        add_lora(build(name), rank)


def test_adaptation_agrees_with_peft() -> None:
    peft = pytest.importorskip('peft')
    ours, theirs = build('segformer').eval(), build('segformer').eval()
    add_lora(ours, 3)
    learn(ours, 2)
    ours.eval()
    config = peft.LoraConfig(r=3, lora_alpha=3, target_modules=r'.*attention\.[qkvo]_proj', lora_dropout=0)
    theirs.network.encoder.model = peft.inject_adapter_in_model(config, theirs.network.encoder.model)
    state, matrices = ours.state_dict(), lora_state(ours)
    for name, module in theirs.named_modules():
        if hasattr(module, 'lora_A'):
            a, b = matrices[f'{name}.a'], matrices[f'{name}.b']
            module.lora_A['default'].weight.data, module.lora_B['default'].weight.data = a, b
            module.base_layer.weight.data = state[f'{name}.weight'] - b @ a
            module.base_layer.bias.data = state[f'{name}.bias']
    rest = {k: v for k, v in state.items() if k in theirs.state_dict()}
    theirs.load_state_dict(rest, strict=False)
    x = torch.randn(1, 4, 64, 64)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-4, atol=1e-5)


def test_why_adaptation_does_not_wrap_layers() -> None:
    """Where this fails, Swin V2 calls its layer, and peft would do."""
    peft = pytest.importorskip('peft')
    network = build('upernet').eval()
    config = peft.LoraConfig(r=2, target_modules=r'.*attn\.qkv')
    network.network.encoder.model = peft.inject_adapter_in_model(config, network.network.encoder.model)
    network(torch.randn(1, 4, 64, 64)).sum().backward()
    matrices = [p for n, p in network.named_parameters() if 'lora_' in n]
    assert matrices and all(p.grad is None for p in matrices)
