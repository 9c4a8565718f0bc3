"""The network that maps, against plain arithmetic on its parts; checkpoints with their own normalisation."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from landcover_plugin import LandCoverSegmentation
from landcover_plugin.errors import LandcoverError
from landcover_plugin.mapping.members import load_members
from landcover_plugin.mapping.network import MappingNetwork, Member
from landcover_plugin.training.temperature import write_temperature

CLASSES, CHANNELS = 5, 3


class Uneven(nn.Module):
    """A convolution whose answer depends on the place in the window, so that no look is like another."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.convolution = nn.Conv2d(CHANNELS, CLASSES, 3, padding=1)
        self.calls: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        rows = torch.linspace(-1, 1, images.shape[-2])[:, None]
        cols = torch.linspace(-2, 1, images.shape[-1])
        return self.convolution(images * (1 + rows) + cols)


def softmax(logits: Tensor) -> np.ndarray:
    """Probabilities by plain NumPy: no data is left out."""
    z = np.exp(logits.detach().numpy().astype(np.float64))
    z[:, 0] = 0
    return z / z.sum(axis=1, keepdims=True)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, CHANNELS, 64, 64, generator=torch.Generator().manual_seed(1))


def of(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


@torch.no_grad()
def test_one_network_is_its_softmax(images: Tensor) -> None:
    network = Uneven()
    found = MappingNetwork([Member(network)])(images[..., :50])
    np.testing.assert_allclose(found, softmax(network(images[..., :50])), atol=1e-6)
    assert found.dtype == torch.float32 and not found[:, 0].any()


@torch.no_grad()
@pytest.mark.parametrize(('tta', 'turns', 'mirrors'), [('flips', (0, 2), 2), ('dihedral', (0, 1, 2, 3), 2)])
def test_looks_are_turned_and_mirrored_windows_turned_back(images: Tensor, tta: Any, turns: Any, mirrors: int) -> None:
    network = Uneven()
    expected = []
    for k in turns:  # the group written as turns and one mirror, not as the module writes it
        for mirrored in range(mirrors):
            seen = np.rot90(images.numpy(), k, axes=(2, 3))
            seen = seen[..., ::-1] if mirrored else seen
            back = softmax(network(of(seen)))
            back = back[..., ::-1] if mirrored else back
            expected.append(np.rot90(back, -k, axes=(2, 3)))
    mapping = MappingNetwork([Member(network)], tta=tta)
    assert mapping.passes == len(expected)
    found = mapping(images)
    np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=1e-6)
    np.testing.assert_allclose(found.sum(dim=1), 1, atol=1e-6)


@torch.no_grad()
def test_scales_are_multiples_of_the_stride_and_come_back(images: Tensor) -> None:
    sizes = []
    network = Uneven()
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    found = MappingNetwork([Member(network)], scales=[0.5, 1, 1.4])(images[..., :50])
    assert sizes == [(32, 32), (64, 50), (96, 64)]
    assert found.shape == (2, CLASSES, 64, 50) and not found[:, 0].any()
    np.testing.assert_allclose(found.sum(dim=1), 1, atol=1e-6)
    constant = MappingNetwork([Member(nn.Conv2d(CHANNELS, CLASSES, 1))], scales=[0.5, 1, 1.4])
    flat = constant(torch.ones(1, CHANNELS, 64, 64))
    np.testing.assert_allclose(flat, flat[:, :, :1, :1].expand_as(flat), atol=1e-6)


@torch.no_grad()
def test_members_are_averaged_each_at_its_temperature(images: Tensor) -> None:
    one, two = Uneven(0), Uneven(1)
    found = MappingNetwork([Member(one), Member(two, temperature=2.5)])(images)
    expected = (softmax(one(images)) + softmax(two(images) / 2.5)) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)


@torch.no_grad()
def test_exported_and_converted_networks_say_the_same(images: Tensor) -> None:
    from landcover_plugin.mapping.members import renormalisation

    own = renormalisation([0.1] * 3, [0.2] * 3, [0.2] * 3, [0.1] * 3)
    members = [Member(nn.Conv2d(CHANNELS, CLASSES, 3, padding=1), 1.3), Member(Uneven(1), 1.0, own)]
    mapping = MappingNetwork(members, tta='dihedral', scales=[0.5, 1])
    images[0, :, :9, :7] = 0
    expected = mapping(images)
    program = torch.export.export(mapping, (images,))
    torch.testing.assert_close(program.module()(images), expected)
    openvino = pytest.importorskip('openvino')
    compiled = openvino.compile_model(
        openvino.convert_model(program), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': 1}
    )
    np.testing.assert_allclose(compiled(images.numpy())[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'members': []}, 'at least one network'),
        ({'tta': 'mirrors'}, "tta must be one of none, flips, dihedral, got 'mirrors'"),
        ({'scales': [1, 9]}, r'scales must be numbers in \[0.25, 4\]'),
        ({'scales': []}, 'scales must be numbers'),
        ({'members': [Member(nn.Identity(), temperature=0)]}, r'temperature must be in \[0.05, 20\]'),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        MappingNetwork(**{'members': [Member(nn.Identity())]} | settings)


def test_only_square_windows_are_turned(images: Tensor) -> None:
    with pytest.raises(LandcoverError, match='must be square, got 64 x 50 px'):
        MappingNetwork([Member(Uneven())], tta='dihedral')(images[..., :50])


# Checkpoints

BANDS = ['B02', 'B03', 'B08']
MEAN, STD = [0.1, 0.2, 0.3], [0.05, 0.1, 0.2]


def checkpoint(path: Path, seed: int = 0, **changes: Any) -> LandCoverSegmentation:
    """A checkpoint as landcover fit writes it, of a network that knows its own normalisation."""
    torch.manual_seed(seed)
    settings = {'model': 'unet_scratch', 'backbone': 'plain16', 'in_channels': len(BANDS)}
    task = LandCoverSegmentation(**settings, weights=False)  # type: ignore[arg-type]
    data = {'channels': BANDS, 'mean': MEAN, 'std': STD, 'reflectance': [10_000.0, 0.0]} | changes
    content = {'state_dict': task.state_dict(), 'hyper_parameters': settings, 'CataloniaDataModule': data}
    torch.save(content, path)
    return task.eval()


@torch.no_grad()
def test_a_member_sees_images_as_in_its_own_training(tmp_path: Path) -> None:
    mean, std = [0.15, 0.1, 0.25], [0.1, 0.1, 0.1]
    task = checkpoint(tmp_path / 'b.ckpt', mean=mean, std=std)
    write_temperature(tmp_path / 'b.ckpt', 2.0, {})
    reflectance = np.random.default_rng(0).uniform(0, 0.6, (2, 3, 32, 32))
    measured = np.ones((2, 1, 32, 32), bool)
    measured[0, :, :5, 3:9] = False

    def normalised(m: list[float], s: list[float]) -> Tensor:
        values = (reflectance - np.reshape(m, (3, 1, 1))) / np.reshape(s, (3, 1, 1))
        return torch.from_numpy(np.where(measured, values, 0).astype(np.float32))

    members = load_members([tmp_path / 'b.ckpt'], channels=BANDS, mean=MEAN, std=STD)
    found = MappingNetwork(members)(normalised(MEAN, STD))
    np.testing.assert_allclose(found, softmax(task.model(normalised(mean, std)) / 2), atol=1e-4)


@torch.no_grad()
def test_a_member_with_the_same_normalisation_costs_nothing_more(tmp_path: Path) -> None:
    task = checkpoint(tmp_path / 'a.ckpt')
    (member,) = load_members([tmp_path / 'a.ckpt'], channels=['2018-04 B02', '2018-04 B03', 'B08'], mean=MEAN, std=STD)
    assert member.renormalisation is None and member.temperature == 1 and not member.network.training
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(member.network(x), task.model(x))


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path, caplog: Any, monkeypatch: Any) -> None:
    given: dict[str, Any] = {'channels': BANDS, 'mean': MEAN, 'std': STD, 'reflectance': [10_000.0, 0.0]}
    checkpoint(tmp_path / 'a.ckpt', channels=['B02', 'B08', 'B03'])
    with pytest.raises(LandcoverError, match=r"a.ckpt was trained on the channels \['B02', 'B08', 'B03'\]"):
        load_members([tmp_path / 'a.ckpt'], **given)
    torch.save({'state_dict': {}}, tmp_path / 'a.ckpt')
    with pytest.raises(LandcoverError, match=r'a.ckpt was not written by landcover fit'):
        load_members([tmp_path / 'a.ckpt'], **given)
    with pytest.raises(LandcoverError, match=r'none.ckpt does not exist'):
        load_members([tmp_path / 'none.ckpt'], **given)
    monkeypatch.setattr(logging.getLogger('landcover_plugin'), 'propagate', True)  # the command line turns it off
    checkpoint(tmp_path / 'a.ckpt', reflectance=[10_000.0, -1000.0])
    load_members([tmp_path / 'a.ckpt'], **given)
    assert 'another processing baseline' in caplog.text
