"""What happens to a batch on the device: geometry, normalisation, then changes of light.

A batch holds ``image`` ``(B, C, H, W)``, ``valid`` ``(B, H, W)`` and, where there are labels, ``mask`` ``(B, H, W)``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import kornia.augmentation as K
import torch
from kornia.augmentation import IntensityAugmentationBase2D
from kornia.constants import DataKey, Resample
from torch import Tensor, nn

from ..legend import NODATA

#: Groups of bands that light and haze change alike.
BAND_GROUPS = {
    'visible': ('B02', 'B03', 'B04'),
    'red edge and near infrared': ('B05', 'B06', 'B07', 'B08', 'B8A'),
    'short-wave infrared': ('B11', 'B12'),
}

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

    Pixels that are not valid become 0 in the image, the mean, and no data in the mask. Geometry moves
    image, mask and validity together, without interpolation; masks are never normalised.

    Args:
        mean: Mean of each channel, in reflectance.
        std: Standard deviation of each channel, in reflectance.
        geometry: Applied to image, mask and valid before normalisation.
        light: Applied to the normalised image.
    """

    def __init__(
        self,
        mean: Tensor,
        std: Tensor,
        geometry: Sequence[nn.Module] = (),
        light: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.normalize = K.Normalize(mean=mean, std=std, keepdim=True)
        nearest = {'resample': Resample.NEAREST, 'align_corners': None}
        self.geometry = (
            K.AugmentationSequential(*geometry, data_keys=None, extra_args={DataKey.MASK: nearest})  # type: ignore[arg-type]
            if geometry
            else None
        )
        self.light = K.ImageSequential(*light) if light else None

    def forward(self, batch: Mapping[str, Any]) -> Batch:
        """The batch, changed; other entries are passed on."""
        out = dict(batch)
        image = out['image'].float()
        valid = out.get('valid')
        given = {'mask': out.get('mask'), 'mask_valid': valid}
        masks = {k: v[:, None].float() for k, v in given.items() if v is not None}
        if self.geometry is not None:
            moved: Batch = self.geometry({'image': image, **masks})
            image, masks = moved['image'], {k: moved[k] for k in masks}
        image = self.normalize(image)
        if self.light is not None:
            image = self.light(image)
        if 'mask' in masks:
            out['mask'] = masks['mask'][:, 0].long()
        if 'mask_valid' in masks:
            out['valid'] = masks['mask_valid'][:, 0] > 0.5
            image = image.where(out['valid'][:, None], 0.0)  # a product would keep NaN
            if 'mask' in out:
                out['mask'] = torch.where(out['valid'], out['mask'], NODATA)
        out['image'] = image
        return out


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
