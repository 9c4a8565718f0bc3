"""The network that maps: checkpoints, test-time augmentation and temperature in one module that engines can compile."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import LandcoverError
from ..models.outputs import class_probabilities
from ..training.temperature import check_temperature

#: Looks at a window: as it is, mirrored (4), or mirrored and turned (8).
Augmentation = Literal['none', 'flips', 'dihedral']

#: Scaled windows have an edge that is a multiple of this, the stride of the encoders.
STRIDE = 32

_Look = tuple[bool, tuple[int, ...]]  # transposed first?, then mirrored along these axes

_FLIPS: tuple[_Look, ...] = ((False, ()), (False, (-1,)), (False, (-2,)), (False, (-2, -1)))

#: Whether rows and columns are swapped, and the axes that are mirrored then.
_LOOKS: dict[str, tuple[_Look, ...]] = {
    'none': _FLIPS[:1],
    'flips': _FLIPS,
    'dihedral': (*_FLIPS, *((True, axes) for _, axes in _FLIPS)),
}


class Renormalisation(nn.Module):
    """Turns images normalised for one network into those of another: ``x * gain + shift`` for each channel.

    Pixels that were not measured are 0 in all channels, before as after. A measured pixel is never told from them by
    mistake unless each of its bands is exactly the mean.

    Args:
        gain: One number for each channel.
        shift: Likewise.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, gain: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer('gain', gain.reshape(-1, 1, 1).float())
        self.register_buffer('shift', shift.reshape(-1, 1, 1).float())

    def forward(self, images: Tensor) -> Tensor:
        """Images of the same shape ``(B, C, H, W)``."""
        measured = images.abs().amax(dim=1, keepdim=True) > 0
        return torch.where(measured, images * self.gain + self.shift, 0.0)


@dataclass(frozen=True, eq=False)
class Member:
    """One network of an ensemble.

    Attributes:
        network: From images ``(B, C, H, W)`` to logits ``(B, num_classes, H, W)``.
        temperature: Its logits are divided by this before the softmax (Guo et al. 2017,
            https://arxiv.org/abs/1706.04599).
        renormalisation: For a network that was trained with another mean and standard deviation.
    """

    network: nn.Module
    temperature: float = 1.0
    renormalisation: Renormalisation | None = None


class MappingNetwork(nn.Module):
    """Class probabilities of normalised images: the mean over networks, looks and scales.

    Images ``(B, C, H, W)``, float32, 0 where not measured, become probabilities ``(B, num_classes, H, W)``, float32,
    that add up to 1; channel 0 (no data) is exactly 0. No step depends on the data, so the module can be exported. One
    network, look and scale cost what the network costs; otherwise one forward pass runs after the other, so that
    memory does not grow with their number.

    Args:
        members: One or several networks; all see the same channels.
        tta: Test-time augmentation: none, flips (4 looks) or dihedral (8 looks; windows must be square).
        scales: Sizes at which a window is seen, 1 being its own; each edge is rounded to a multiple of 32 px.

    Raises:
        LandcoverError: If a setting is out of range.

    Examples:
        >>> network = MappingNetwork([Member(nn.Conv2d(2, 4, 1))], tta='flips')
        >>> probabilities = network(torch.zeros(1, 2, 32, 48))
        >>> tuple(probabilities.shape), network.passes
        ((1, 4, 32, 48), 4)
    """

    def __init__(
        self, members: Sequence[Member], *, tta: Augmentation = 'none', scales: Sequence[float] = (1.0,)
    ) -> None:
        super().__init__()
        _check(members, tta, scales)
        self.networks = nn.ModuleList(m.network for m in members)
        self.inputs = nn.ModuleList(m.renormalisation or nn.Identity() for m in members)
        self.temperatures = [float(m.temperature) for m in members]
        self.looks, self.scales = _LOOKS[tta], [float(s) for s in scales]
        self.eval()

    @property
    def passes(self) -> int:
        """Forward passes for each window, small and large ones alike."""
        return len(self.networks) * len(self.looks) * len(self.scales)

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities ``(B, num_classes, H, W)`` of images ``(B, C, H, W)``.

        Raises:
            LandcoverError: If the window is not square and is to be turned.
        """
        height, width = images.shape[-2:]
        if any(turned for turned, _ in self.looks) and height != width:
            raise LandcoverError(f'tta dihedral turns windows, which must be square, got {height} x {width} px')
        parts = self._parts(images)
        total = next(parts)
        for part in parts:
            total = total + part
        return total if self.passes == 1 else total / self.passes

    def _parts(self, images: Tensor) -> Iterator[Tensor]:
        """The probabilities of each forward pass, back in the place of the images."""
        for network, prepare, temperature in zip(self.networks, self.inputs, self.temperatures, strict=True):
            prepared = prepare(images)
            for scale in self.scales:
                scaled = _resized(prepared, *(_scaled_edge(n, scale) for n in images.shape[-2:]))
                for look in self.looks:
                    logits = network(_seen(scaled, look))
                    cooled = logits if temperature == 1 else logits.float() / temperature
                    yield _resized(_unseen(class_probabilities(cooled), look), *images.shape[-2:])


def _check(members: Sequence[Member], tta: str, scales: Sequence[float]) -> None:
    if not members:
        raise LandcoverError('an ensemble needs at least one network, got none')
    if tta not in _LOOKS:
        raise LandcoverError(f'tta must be one of {", ".join(_LOOKS)}, got {tta!r}')
    if not scales or not all(0.25 <= s <= 4 for s in scales):
        raise LandcoverError(f'scales must be numbers in [0.25, 4], such as [0.75, 1, 1.25], got {list(scales)}')
    for member in members:
        check_temperature(member.temperature)


def _seen(images: Tensor, look: _Look) -> Tensor:
    turned, axes = look
    images = images.transpose(-2, -1) if turned else images
    return torch.flip(images, axes) if axes else images


def _unseen(probabilities: Tensor, look: _Look) -> Tensor:
    turned, axes = look
    probabilities = torch.flip(probabilities, axes) if axes else probabilities
    return probabilities.transpose(-2, -1) if turned else probabilities


def _scaled_edge(edge: int, scale: float) -> int:
    """The edge of a scaled window: a multiple of :data:`STRIDE`, but as it is at scale 1.

    Examples:
        >>> [_scaled_edge(256, s) for s in (0.75, 1, 1.3)], _scaled_edge(50, 1), _scaled_edge(32, 0.5)
        ([192, 256, 320], 50, 32)
    """
    # Engines that trace the network hand the edge over as a tensor.
    return edge if scale == 1 else max(round(int(edge) * scale / STRIDE), 1) * STRIDE


def _resized(values: Tensor, height: int, width: int) -> Tensor:
    if tuple(values.shape[-2:]) == (height, width):
        return values
    return F.interpolate(values, size=(height, width), mode='bilinear', align_corners=False)
