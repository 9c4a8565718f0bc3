"""What happens to a batch on the device: geometry, normalisation, then changes of light.

A batch holds ``image`` ``(B, C, H, W)``, ``valid`` ``(B, H, W)`` and, where there are labels, ``mask`` ``(B, H, W)``
and maybe ``purity`` ``(B, H, W)`` and ``shares`` ``(B, 12, H, W)``, in percent.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import kornia.augmentation as K
import numpy as np
import torch
from kornia.augmentation import IntensityAugmentationBase2D
from kornia.constants import DataKey, Resample
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import LandcoverError
from ..legend import NODATA

#: Groups of bands that light and haze change alike.
BAND_GROUPS = {
    'visible': ('B02', 'B03', 'B04'),
    'red edge and near infrared': ('B05', 'B06', 'B07', 'B08', 'B8A'),
    'short-wave infrared': ('B11', 'B12'),
}

#: What belongs to the pixels of an image and moves with them.
MOVED = ('valid', 'mask', 'purity', 'shares')

#: How purity enters the loss: not at all, as the weight of a pixel, or as shares of the classes in place of codes.
PurityUse = Literal['none', 'weight', 'soft']

Batch = dict[str, Any]


class GroupJitter(IntensityAugmentationBase2D):
    """Brightness and contrast of each group of bands, changed at random on normalised images.

    ``x * (1 + c) + b`` with ``c`` in ``±contrast`` and ``b`` in ``±brightness`` (standard deviations), drawn for
    each image and each group.

    Args:
        groups: Group number of each channel.
        brightness: Largest shift in standard deviations.
        contrast: Largest relative change.
        p: Probability of changing an image.
    """

    def __init__(self, groups: Sequence[int], brightness: float, contrast: float, p: float = 0.8) -> None:
        super().__init__(p=p)
        self.groups, self.brightness, self.contrast = list(groups), brightness, contrast

    def generate_parameters(self, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """One shift and one factor for each image and channel; channels of a group share them."""
        number = max(self.groups) + 1
        return {
            'shift': ((torch.rand(shape[0], number) * 2 - 1) * self.brightness)[:, self.groups],
            'factor': (1 + (torch.rand(shape[0], number) * 2 - 1) * self.contrast)[:, self.groups],
        }

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """The changed images, shape ``(B, C, H, W)``."""
        factor, shift = (params[k].to(input)[:, :, None, None] for k in ('factor', 'shift'))
        return input * factor + shift


class BandDropout(IntensityAugmentationBase2D):
    """Sets one channel to 0, the mean of normalised images, so that no single band is relied on.

    Args:
        p: Probability of dropping a band of an image.
    """

    def __init__(self, p: float = 0.1) -> None:
        super().__init__(p=p)

    def generate_parameters(self, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """The channel to drop of each image."""
        return {'channel': torch.randint(shape[1], (shape[0],))}

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """The images without that channel, shape ``(B, C, H, W)``."""
        out = input.clone()
        out[torch.arange(len(out), device=out.device), params['channel'].to(out.device)] = 0
        return out


class BatchTransform(nn.Module):
    """Normalises a batch and hides what was not measured; in training also augments it.

    Images of an integer type are digital numbers, whose reflectance is ``(DN + offset) / scale``; floating ones are
    reflectance. Pixels that are not valid become 0 in the image, the mean, and no data in the mask. Geometry moves
    image, validity, mask, purity and shares together, without interpolation; masks are never normalised.

    Args:
        mean: Mean of each channel, in reflectance.
        std: Standard deviation of each channel, in reflectance.
        geometry: Applied to image, valid, mask, purity and shares before normalisation.
        light: Applied to the normalised image.
        mixing: Applied last to batches with labels.
        scale: Digital numbers of a reflectance of 1.
        offset: Added to digital numbers first.
        purity: weight adds ``weight`` ``(B, H, W)`` to labelled batches: the share of the pixel that its class
            covers, 0 where unlabelled. soft makes ``shares`` those of the labelled part: they add up to 1, or are all
            0 where unlabelled. Otherwise shares are left out.
    """

    of_reflectance: Tensor
    of_numbers: Tensor

    def __init__(
        self,
        mean: Tensor,
        std: Tensor,
        geometry: Sequence[nn.Module] = (),
        light: Sequence[nn.Module] = (),
        *,
        mixing: Sequence[nn.Module] = (),
        scale: float = 1,
        offset: float = 0,
        purity: PurityUse = 'none',
    ) -> None:
        super().__init__()
        self.register_buffer('of_reflectance', _normalisation(mean, std, scale=1, offset=0))
        self.register_buffer('of_numbers', _normalisation(mean, std, scale=scale, offset=offset))
        self.purity = purity
        nearest = {'resample': Resample.NEAREST, 'align_corners': None}
        self.geometry = (
            K.AugmentationSequential(*geometry, data_keys=None, extra_args={DataKey.MASK: nearest})  # type: ignore[arg-type]
            if geometry
            else None
        )
        self.light = K.ImageSequential(*light) if light else None
        self.mixing = nn.Sequential(*mixing)

    def forward(self, batch: Mapping[str, Any]) -> Batch:
        """The batch, changed; other entries are passed on.

        Raises:
            LandcoverError: If a labelled batch lacks the purity or the shares that the loss needs.
        """
        out = dict(batch)
        if self.purity != 'soft':
            out.pop('shares', None)
        image, moved = self._move(out['image'].float(), {k: out[k] for k in MOVED if out.get(k) is not None})
        image = self._normalise(image, given=out['image'])
        if self.light is not None:
            image = self.light(image)
        out |= moved
        if 'mask' in moved:
            out['mask'] = moved['mask'].long()
        if 'valid' in moved:
            image.masked_fill_(~moved['valid'][:, None], 0)  # a product would keep NaN
            if 'mask' in moved:
                out['mask'] = out['mask'].where(moved['valid'], NODATA)
        out['image'] = image
        return self.mixing(self._with_purity(out)) if 'mask' in moved else out

    def _move(self, image: Tensor, planes: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Image and what belongs to its pixels after the same geometry; planes are moved in one piece."""
        if self.geometry is None:
            return image, planes
        if not planes:
            return self.geometry({'image': image})['image'], planes
        channels = [p if p.ndim == 4 else p[:, None] for p in planes.values()]
        stacked = torch.cat([channels[0].float(), *channels[1:]], dim=1)
        moved: Batch = self.geometry({'image': image, 'mask': stacked})
        parts = moved['mask'].split([c.shape[1] for c in channels], dim=1)
        return moved['image'], {
            key: (part if planes[key].ndim == 4 else part[:, 0]).to(planes[key].dtype)
            for key, part in zip(planes, parts, strict=True)
        }

    def _normalise(self, image: Tensor, given: Tensor) -> Tensor:
        """The normalised image, in memory of its own."""
        if given.is_floating_point():
            factor, shift = self.of_reflectance
            return (image * factor).add_(shift)
        factor, shift = self.of_numbers
        return image.mul_(factor).add_(shift)  # a copy of the integers, which nobody else holds

    def normalisation(self, numbers: bool) -> NDArray[np.float32]:
        """What pixels are multiplied by and what is added, ``(2, C, 1, 1)``: of digital numbers, or of reflectance."""
        return (self.of_numbers if numbers else self.of_reflectance).cpu().numpy()

    def _with_purity(self, out: Batch) -> Batch:
        """The batch with what the loss takes from purity."""
        needed = {'none': 'mask', 'weight': 'purity', 'soft': 'shares'}[self.purity]
        if out.get(needed) is None:
            raise LandcoverError(f'purity {self.purity!r} needs {needed} in each batch, got {", ".join(out)}')
        labelled = out['mask'] != NODATA
        if self.purity == 'weight':
            out['weight'] = out['purity'].where(labelled, 0) / 100
        elif self.purity == 'soft':
            total = out['shares'].sum(dim=1)
            out['shares'] = out['shares'] * (labelled / total.clamp_min(1))[:, None]
        return out


def _normalisation(mean: Tensor, std: Tensor, *, scale: float, offset: float) -> Tensor:
    """What numbers are multiplied by, and what is added, shape ``(2, C, 1, 1)``; their reflectance is as above."""
    mean, std = mean.double(), std.double()
    return torch.stack([1 / (scale * std), (offset / scale - mean) / std])[..., None, None].float()


def geometry_augmentations(crop: int | None = None) -> list[nn.Module]:
    """The eight flips and quarter turns of a square, and a random crop.

    Args:
        crop: Edge of the crop in pixels.
    """
    flips: list[nn.Module] = [K.RandomHorizontalFlip(p=0.5), K.RandomVerticalFlip(p=0.5), Transpose(p=0.5)]
    return flips + ([K.RandomCrop((crop, crop), cropping_mode='slice')] if crop else [])


class Transpose(K.GeometricAugmentationBase2D):
    """Swaps rows and columns; with the two flips it makes all eight symmetries of the square, exactly."""

    def generate_parameters(self, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Nothing is drawn but whether to apply it."""
        return {}

    def compute_transformation(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        """The matrix that swaps x and y, shape ``(B, 3, 3)``."""
        swap = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]], device=input.device, dtype=input.dtype)
        return swap.expand(input.shape[0], 3, 3)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """The transposed images."""
        return input.transpose(-1, -2)

    def inverse_transform(
        self, input: Tensor, flags: dict[str, Any], transform: Tensor | None = None, size: Any = None
    ) -> Tensor:
        """Transposed back."""
        return input.transpose(-1, -2)


def light_augmentations(
    channels: Sequence[str], *, brightness: float, contrast: float, noise: float, band_dropout: float
) -> list[nn.Module]:
    """Changes of the normalised image; those with strength 0 are left out.

    Args:
        channels: Names of the channels; the last word of each is the band.
        brightness: Largest shift of a band group in standard deviations.
        contrast: Largest relative change of a band group.
        noise: Standard deviation of Gaussian noise, in standard deviations of the band.
        band_dropout: Probability of dropping one band.
    """
    steps: list[nn.Module] = []
    if brightness or contrast:
        steps.append(GroupJitter(band_groups(channels), brightness, contrast))
    if noise:
        steps.append(K.RandomGaussianNoise(mean=0.0, std=noise, p=0.5))
    if band_dropout:
        steps.append(BandDropout(p=band_dropout))
    return steps


def band_groups(channels: Sequence[str]) -> list[int]:
    """Group number of each channel: same season and same part of the spectrum; other bands stand alone.

    Examples:
        >>> band_groups(['B02', 'B03', 'B08', 'B11'])
        [0, 0, 1, 2]
        >>> band_groups(['2018-04 B02', '2018-08 B02'])
        [0, 1]
    """
    parts = {band: name for name, bands in BAND_GROUPS.items() for band in bands}
    numbers: dict[str, int] = {}
    keys = [' '.join([*c.split()[:-1], parts.get(c.split()[-1], c)]) for c in channels]
    return [numbers.setdefault(key, len(numbers)) for key in keys]
