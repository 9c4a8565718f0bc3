"""One suite for all networks, and the YAML of each."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import huggingface_hub.constants
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import SegformerForImageClassification

from landcover_plugin import cli
from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.errors import LandcoverError
from landcover_plugin.models import BUILDERS, DEFAULT_BACKBONE, NETWORKS, ModelName, hub, segformer
from landcover_plugin.models.first_layer import PatchConv2d, adapt_first_conv, spread_filters
from landcover_plugin.models.parts import AnySize, freeze_unreached

CONFIGS = Path(__file__).parents[1] / 'configs'

#: The smallest encoder of each network that is not built on any encoder.
SMALL = {
    'unet_scratch': 'plain16',
    'segformer': 'mit_b0',
    'segformer_unet': 'mit_b0',
    'segformer_resnet_unet': 'mit_b0+resnet18',
    'upernet': 'tu-swinv2_tiny_window8_256',
    'dpt': 'tu-vit_tiny_patch16_224',
}

#: Large even when small, or seldom chosen: most of their tests wait for `make test-all`.
HEAVY = ('upernet', 'dpt', 'unetplusplus', 'manet', 'linknet', 'pspnet', 'pan', 'deeplabv3')

every_network = pytest.mark.parametrize('name', BUILDERS)
each_network = pytest.mark.parametrize(
    'name', [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in BUILDERS]
)


pytestmark = pytest.mark.usefixtures('one_thread')


def build(name: str, in_channels: int = 10, backbone: str | None = None, pretrained: bool = False) -> Any:
    torch.manual_seed(0)
    backbone = backbone or SMALL.get(name, 'resnet18')
    return BUILDERS[name](backbone, in_channels=in_channels, num_classes=13, pretrained=pretrained)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# Names


def test_the_command_line_knows_every_network() -> None:
    assert get_args(ModelName) == tuple(NETWORKS) == tuple(BUILDERS) == tuple(DEFAULT_BACKBONE)


@every_network
def test_every_network_has_a_default_encoder(name: str) -> None:
    with torch.device('meta'):  # sizes without numbers
        network = BUILDERS[name](in_channels=10, num_classes=13, pretrained=False)
        assert network(torch.zeros(2, 10, 65, 97)).shape == (2, 13, 65, 97)
        named = BUILDERS[name](DEFAULT_BACKBONE[name], in_channels=10, num_classes=13, pretrained=False)
    assert 20e6 < count(network) == count(named) < 60e6


# What every network promises


@every_network
def test_any_height_and_width(name: str) -> None:
    network = build(name).eval()
    with torch.no_grad():
        for size in ((64, 64), (65, 97), (33, 40), (1, 40)):
            assert network(torch.randn(2, 10, *size)).shape == (2, 13, *size)
        x = torch.randn(1, 10, 33, 40)
        below, right = -33 % network.stride, -40 % network.stride
        whole = network(F.pad(x, (0, right, 0, below), mode='replicate'))
        torch.testing.assert_close(network(x), whole[..., :33, :40])


@each_network
@pytest.mark.parametrize('channels', [1, 4, 20])
def test_any_number_of_channels(name: str, channels: int) -> None:
    with torch.no_grad():
        assert build(name, channels).eval()(torch.randn(1, channels, 32, 32)).shape == (1, 13, 32, 32)


@each_network
def test_gradients_reach_every_parameter(name: str) -> None:
    network = build(name)
    assert all(module.training for module in network.modules())
    network(torch.randn(2, 10, 33, 40)).square().mean().backward()
    for key, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    frozen = [key for key, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen == (['network.encoder.model.norm.weight', 'network.encoder.model.norm.bias'] if name == 'dpt' else [])


@each_network
def test_training_lowers_the_loss(name: str) -> None:
    network = build(name, in_channels=3)
    optimizer = torch.optim.AdamW((p for p in network.parameters() if p.requires_grad), lr=1e-3)
    x = torch.randn(2, 3, 32, 32)
    target, losses = (x[:, 0] > 0).long() + 1, []
    for _ in range(6):
        loss = F.cross_entropy(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[3:]) < losses[0]


@each_network
def test_a_frozen_encoder_leaves_the_rest_to_learn(name: str) -> None:
    network = build(name)
    parts = [network.encoder, network.decoder, network.segmentation_head]
    assert all(count(part) for part in parts)
    assert sum(map(count, parts)) == count(network), 'every parameter lies in one of the three'
    network.encoder.requires_grad_(False)
    network(torch.randn(2, 10, 32, 32)).square().mean().backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(p.grad is not None for part in parts[1:] for p in part.parameters())


@each_network
def test_saved_networks_agree_and_evaluation_is_deterministic(name: str, tmp_path: Path) -> None:
    network, x = build(name).eval(), torch.randn(2, 10, 40, 56)
    state = network.state_dict()
    assert all(isinstance(v, torch.Tensor) for v in state.values())
    torch.save(state, tmp_path / 'network.pt')
    torch.manual_seed(1)
    other = BUILDERS[name](SMALL.get(name, 'resnet18'), in_channels=10, num_classes=13, pretrained=False).eval()
    with torch.no_grad():
        first = network(x)
        assert torch.equal(first, network(x)) and not torch.equal(first, other(x))
        other.load_state_dict(torch.load(tmp_path / 'network.pt', weights_only=True))
        assert torch.equal(first, other(x))


@each_network
def test_exported_channels_last_and_in_half_precision(name: str) -> None:
    network, x = build(name).eval(), torch.randn(1, 10, 64, 96)
    with torch.no_grad():
        logits = network(x)
        exported = torch.export.export(network, (x,)).module()
        torch.testing.assert_close(exported(x), logits)
        with torch.autocast('cpu', torch.bfloat16):
            half, odd = network(x), network(torch.randn(1, 10, 33, 40))
        assert odd.shape == (1, 13, 33, 40) and odd.isfinite().all()
        assert (half.argmax(1) == logits.argmax(1)).float().mean() > 0.9
        network.to(memory_format=torch.channels_last)
        last = network(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(last, logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize('name', ['unet', 'resnet50_deconv'])
def test_exported_for_any_size(name: str) -> None:
    network = build(name, 3).eval()
    batch, rows, cols = (torch.export.Dim(n, min=1, max=64) for n in ('batch', 'rows', 'cols'))
    shapes = ({0: batch, 2: 32 * rows, 3: 32 * cols},)
    with torch.no_grad():
        exported = torch.export.export(network, (torch.randn(2, 3, 96, 128),), dynamic_shapes=shapes).module()
        for shape in ((1, 3, 160, 64), (3, 3, 64, 96)):
            x = torch.randn(shape)
            torch.testing.assert_close(exported(x), network(x))


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(set(BUILDERS) - {'unet', 'resnet50_deconv', 'upernet', 'pan'}))
def test_others_exported_for_any_size(name: str) -> None:
    test_exported_for_any_size(name)


# What single networks promise


@pytest.mark.parametrize(('backbone', 'reach'), [('spectral32', 7), ('spectral64', 7)])
def test_spectral_networks_see_little_around_a_pixel(backbone: str, reach: int) -> None:
    network = build('unet_scratch', backbone=backbone).eval()
    x = torch.randn(1, 10, 64, 64, requires_grad=True)
    network(x)[0, :, 32, 32].square().sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten() - 32  # type: ignore[union-attr]
    assert -reach < rows.min() < -2 and 2 < rows.max() <= reach
    assert network(torch.zeros(1, 10, 33, 41)).shape == (1, 13, 33, 41) and network.stride == 2


@pytest.mark.parametrize(
    ('backbone', 'encoder', 'decoder'),
    [
        ('mit_b0', 3.4, 0.4),
        ('mit_b1', 13.1, 0.6),
        ('mit_b2', 24.2, 3.3),
        ('mit_b3', 44.0, 3.3),
        ('mit_b4', 60.8, 3.3),
        ('mit_b5', 81.4, 3.3),
    ],
)
def test_segformer_has_its_published_size(backbone: str, encoder: float, decoder: float) -> None:
    """Millions of parameters in table 1 of https://arxiv.org/abs/2105.15203, with the 150 classes of ADE20K."""
    with torch.device('meta'):
        network = BUILDERS['segformer'](backbone, in_channels=3, num_classes=150, pretrained=False)
    own = count(network.encoder)
    assert own / 1e6 == pytest.approx(encoder, abs=0.1)
    assert (count(network) - own) / 1e6 == pytest.approx(decoder, abs=0.15)


def test_the_baseline_is_a_resnet_50_without_its_last_layer() -> None:
    with torch.device('meta'):
        network = BUILDERS['resnet50_deconv'](in_channels=3, num_classes=13, pretrained=False)
    assert count(network.encoder) == 25_557_032 - 2_049_000  # torchvision's, less the layer of 1,000 classes
    assert [m.out_channels for m in network.decoder.modules() if isinstance(m, nn.ConvTranspose2d)][-1] == 32
    assert network.segmentation_head.weight.shape == (13, 32, 1, 1)


@pytest.mark.parametrize('name', ['segformer_unet', 'segformer_resnet_unet', 'unet_scratch', 'resnet50_deconv'])
def test_the_way_to_full_resolution_is_learned(name: str) -> None:
    network = build(name)
    assert not any(isinstance(m, nn.Upsample) for m in network.modules())
    seen: list[torch.Size] = []
    network.segmentation_head.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[-2:]))
    network(torch.randn(2, 10, 64, 96))
    assert seen == [(64, 96)]


def test_plain_segformer_is_interpolated_from_a_quarter() -> None:
    network = build('segformer').eval()
    with torch.no_grad():
        features = network.decoder(network.encoder(torch.randn(1, 10, 64, 96)))
    assert features.shape[-2:] == (16, 24)


def test_both_encoders_of_the_hybrid_are_heard() -> None:
    network, x = build('segformer_resnet_unet').eval(), torch.randn(1, 10, 64, 64)
    with torch.no_grad():
        before = network(x)
        for part in (network.encoder.transformer, network.encoder.convolutional):
            hook = part.register_forward_hook(lambda module, args, output: [0 * feature for feature in output])
            assert not torch.allclose(network(x), before)
            hook.remove()


def test_what_no_gradient_reaches_is_frozen() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.idle(x)
            return self.used(x)

    network = Half()
    freeze_unreached(network, 2)
    assert {k for k, p in network.named_parameters() if p.requires_grad} == {'used.weight', 'used.bias'}
    assert network.training


@pytest.mark.parametrize(
    ('name', 'channels'), [('dpt', 4), ('dpt', 10), ('upernet', 10), ('upernet', 16), ('upernet', 20)]
)
def test_patches_are_embedded_right(name: str, channels: int) -> None:
    network = build(name, channels)
    patches = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    assert isinstance(patches, PatchConv2d)
    x = torch.randn(2, channels, 64, 96)
    right = F.conv2d(x, patches.weight, patches.bias, stride=patches.stride)
    torch.testing.assert_close(patches(x), right)
    with torch.autocast('cpu', torch.bfloat16):
        assert (patches(x) - right).abs().max() < 0.05 * right.std()


# Weights


def first_conv(module: Any) -> torch.Tensor:
    return next(m.weight.detach() for m in module.modules() if isinstance(m, nn.Conv2d))


def expected(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """The adapted filters, one by one."""
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return torch.stack([weight[:, i % 3] * 3 / channels for i in range(channels)], dim=1)


@pytest.fixture
def mit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The encoder's weights of a MiT-B0 for ImageNet that lies where the hub would have put it."""
    torch.manual_seed(3)
    model = SegformerForImageClassification(segformer.mix_transformer_config('mit_b0'))
    model.save_pretrained(tmp_path / 'mit-b0')
    saved = load_file(tmp_path / 'mit-b0' / 'model.safetensors')
    assert 'segformer.encoder.block.0.0.attention.self.query.weight' in saved, 'named as on the hub'
    monkeypatch.setattr(segformer, 'REPOSITORY', str(tmp_path / '{}'))
    monkeypatch.setattr(hub, 'hub_answers', lambda: True)
    return model.segformer.state_dict()


@pytest.mark.parametrize('channels', [1, 3, 10])
@pytest.mark.parametrize('name', ['segformer', 'segformer_unet'])
def test_weights_of_mix_transformers_are_loaded(name: str, channels: int, mit: dict[str, torch.Tensor]) -> None:
    network = build(name, channels, pretrained=True)
    state, first = network.encoder.model.state_dict(), 'stages.0.patch_embeddings.proj.weight'
    torch.testing.assert_close(state.pop(first), expected(mit[first], channels))
    assert all(torch.equal(v, mit[k]) for k, v in state.items())
    assert all(module.training for module in network.modules()), 'weights that were loaded are trained on'
    assert network(torch.randn(2, channels, 33, 40)).shape == (2, 13, 33, 40)


@pytest.mark.parametrize('channels', [3, 10])
@pytest.mark.parametrize('name', ['resnet50_deconv', 'segformer_resnet_unet', 'fpn', 'deeplabv3plus'])
def test_weights_of_resnets_are_loaded(
    name: str, channels: int, mit: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    weights = smp.encoders.get_encoder('resnet18').state_dict()
    save_file(weights, tmp_path / 'model.safetensors')
    monkeypatch.setattr(smp.encoders, 'hf_hub_download', lambda *args, **kwargs: str(tmp_path / 'model.safetensors'))
    network = build(name, channels, pretrained=True)
    encoder = network.encoder.convolutional if name == 'segformer_resnet_unet' else network.encoder
    state = encoder.state_dict()
    torch.testing.assert_close(state.pop('conv1.weight'), expected(weights['conv1.weight'], channels))
    assert all(torch.equal(v, weights[k]) for k, v in state.items())
    assert network(torch.randn(2, channels, 33, 40)).shape == (2, 13, 33, 40)


@pytest.mark.parametrize('channels', [3, 10])
def test_weights_of_swin_are_loaded(channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    weights = timm.create_model('swinv2_tiny_window8_256').state_dict()
    monkeypatch.setattr(hub, 'hub_answers', lambda: True)
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_hf', lambda *args, **kwargs: dict(weights))
    network = build('upernet', channels, pretrained=True)
    torch.testing.assert_close(first_conv(network.encoder), expected(weights['patch_embed.proj.weight'], channels))
    deep = 'layers.3.blocks.1.mlp.fc2.weight'
    assert torch.equal(network.encoder.state_dict()[f'model.{deep.replace("layers.", "layers_")}'], weights[deep])


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 10, 20])
def test_filters_answer_grey_as_before(channels: int) -> None:
    weight = torch.randn(5, 3, 7, 7)
    spread = spread_filters(weight, channels)
    torch.testing.assert_close(spread, expected(weight, channels))
    if channels in (1, 3):  # otherwise the colours do not come equally often
        torch.testing.assert_close(spread.sum(1), weight.sum(1))


def test_an_encoder_that_cannot_be_adapted_is_told() -> None:
    with pytest.raises(LandcoverError, match=r'no convolution over 3 channels .* --model\.weights false'):
        adapt_first_conv(nn.Conv2d(12, 8, 3), 10)
    unchanged = nn.Conv2d(12, 8, 3)
    adapt_first_conv(unchanged, 3)
    assert unchanged.in_channels == 12


@pytest.mark.parametrize('name', sorted(set(BUILDERS) - {'unet_scratch'}))
def test_without_network_every_network_names_the_way_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(LandcoverError, match=r'weights of .* could not be fetched .* --model\.weights false') as raised:
        build(name, pretrained=True)
    assert '--model.weights PATH' in str(raised.value) and '\n' not in str(raised.value)


@pytest.mark.parametrize(
    ('name', 'backbone', 'sentence'),
    [
        ('segformer', 'resnet50', r"^'resnet50' is not a Mix Transformer, .*: mit_b0, mit_b1"),
        ('segformer_unet', 'mit_b7', r"^'mit_b7' is not a Mix Transformer"),
        ('segformer_resnet_unet', 'resnet34', r"^'resnet34' is not a Mix Transformer"),
        ('segformer_resnet_unet', 'mit_b0+resnet43', r"^'resnet43' is not an encoder .*; try resnet34"),
        (
            'unet_scratch',
            'resnet50',
            r"^'resnet50' is not an encoder of unet_scratch; choose plain16, plain32, plain64, spectral32",
        ),
        ('resnet50_deconv', 'resnet5', r"^'resnet5' is not an encoder .*; try resnet50"),
        ('upernet', 'tu-swinv3_tiny_window8_256', r'is not an encoder .*; try tu-swinv2_tiny_window8_256'),
        ('dpt', 'resnet50', r'^resnet50 with 10 channels cannot be the encoder of DPT \(.*\); try another backbone'),
        ('deeplabv3plus', 'tu-swinv2_tiny_window8_256', r'cannot be the encoder of DeepLabV3Plus'),
    ],
)
def test_an_encoder_that_does_not_go_with_the_network_is_told(name: str, backbone: str, sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        build(name, backbone=backbone)


def test_what_has_no_pretrained_weights_says_so() -> None:
    with pytest.raises(LandcoverError, match=r'no pretrained weights; add --model\.weights false'):
        build('unet_scratch', pretrained=True)


def test_any_size_hands_out_the_parts() -> None:
    network = build('fpn')
    assert isinstance(network, AnySize) and network.segmentation_head is network.network.segmentation_head


# YAML

OURS = sorted(p for p in CONFIGS.rglob('*.yaml') if p.stem in BUILDERS and p.parent.name != 'tune')
BASELINES = [p for p in OURS if p.parent.name == 'baseline']


def test_networks_have_their_yaml() -> None:
    named = {'unet_scratch', 'resnet50_deconv', 'segformer', 'segformer_unet', 'segformer_resnet_unet'}
    assert {p.stem for p in OURS if p.parent == CONFIGS} == named | {'unet', 'deeplabv3plus', 'upernet'}
    assert {p.stem for p in BASELINES} == named | {'unet'}


@pytest.mark.parametrize('path', OURS, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_the_command_line_reads_the_yaml(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(['fit', f'--config={path}', '--print_config'])
    assert left.value.code == 0
    read, given = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(path.read_text())
    for group in ('trainer', 'model', 'data'):
        assert given[group].items() <= read[group].items()
    model = read['model']
    assert model['model'] == path.stem and path.stem in read['trainer']['default_root_dir']
    with torch.device('meta'):
        BUILDERS[path.stem](model['backbone'], in_channels=3, num_classes=13, pretrained=False)
    assert model['weights'] is (path.stem != 'unet_scratch')


@pytest.mark.parametrize('path', BASELINES, ids=lambda p: p.stem)
def test_the_baselines_are_what_they_were(path: Path) -> None:
    given = yaml.safe_load(path.read_text())
    model, data = given['model'], given['data']
    transformer = path.stem.startswith('segformer')
    recipe = ('adamw', 6e-5, 8, 10) if transformer else ('adam', 1e-3, 12, 100)
    assert (model['optimizer_name'], model['lr'], data['batch_size'], given['trainer']['max_epochs']) == recipe
    assert data['bands'] == ['B04', 'B03', 'B02'] and data['augment'] is False and data['balance'] == 0
    assert model['class_weights'] == 'none'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('config', 'backbone'), [('unet_scratch', 'plain16'), ('baseline/segformer_resnet_unet', 'mit_b0+resnet18')]
)
def test_one_step_of_training(config: str, backbone: str, scene: Scene, tmp_path: Path) -> None:
    arguments = [
        f'--config={CONFIGS / config}.yaml',
        f'--model.backbone={backbone}',
        '--model.weights=false',
        f'--data.root={scene.label.parent}',
        f'--data.cache={tmp_path}',
        '--data.patch_size=32',
        '--data.batch_size=2',
        '--data.num_workers=0',
        '--trainer.fast_dev_run=true',
        '--trainer.accelerator=cpu',
        '--trainer.precision=32',
    ]
    command = [sys.executable, '-m', 'landcover_plugin', 'fit', *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f'with {backbone}' in done.stderr
