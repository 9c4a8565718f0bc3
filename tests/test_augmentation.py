"""Geometry moves image, mask and validity together and exactly; light changes the image alone."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from landcover_plugin.training.augmentation import (
    BandDropout,
    BatchTransform,
    GroupJitter,
    band_groups,
    geometry_augmentations,
    light_augmentations,
)

ALL = {'brightness': 0.3, 'contrast': 0.3, 'noise': 0.2, 'band_dropout': 0.5}
NOTHING = {'brightness': 0.0, 'contrast': 0.0, 'noise': 0.0, 'band_dropout': 0.0}
BANDS = ('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B11', 'B12')


def positions(number: int, size: int, *, valid: bool = True) -> dict[str, Any]:
    """Images whose every pixel has its own value, which mask and valid can be computed from."""
    pixel = torch.arange(size * size, dtype=torch.float32).reshape(size, size)
    image = pixel.expand(number, 2, size, size).clone()
    batch = {'image': image, 'mask': codes_of(image[:, 0]), 'valid': valid_of(image[:, 0])}
    return batch if valid else {k: v for k, v in batch.items() if k != 'valid'}


def codes_of(pixel: Tensor) -> Tensor:
    return (pixel * 7 % 13).long()


def valid_of(pixel: Tensor) -> Tensor:
    return pixel % 5 != 2


def transform(mean: float = 0, std: float = 1, channels: int = 2, **steps: Sequence[nn.Module]) -> BatchTransform:
    return BatchTransform(torch.full((channels,), float(mean)), torch.full((channels,), float(std)), **steps)


def check_together(out: dict[str, Any], image: Tensor) -> None:
    """Mask and valid are those of the pixels that lie there now; invalid ones are 0 in image and mask."""
    valid = valid_of(image[:, 0])
    assert out['valid'].dtype == torch.bool and out['mask'].dtype == torch.int64
    assert torch.equal(out['valid'], valid)
    assert torch.equal(out['mask'], codes_of(image[:, 0]) * valid)
    assert torch.equal(out['image'], image * valid[:, None])


@pytest.mark.parametrize('size', [5, 8])
def test_all_eight_symmetries_occur_and_nothing_else(size: int) -> None:
    torch.manual_seed(0)
    batch = positions(200, size)
    batch['valid'][:] = True
    out = transform(geometry=geometry_augmentations())(batch)
    pixel = batch['image'][0, 0]
    turned = [torch.rot90(p, k) for p in (pixel, pixel.T) for k in range(4)]
    found = [next(i for i, t in enumerate(turned) if torch.equal(t, image[0])) for image in out['image']]
    counts = torch.bincount(torch.tensor(found), minlength=8)
    assert counts.sum() == 200 and (counts >= 10).all()  # 25 of each on average
    for image, mask, which in zip(out['image'], out['mask'], found, strict=True):
        assert torch.equal(image[0], image[1]) and torch.equal(mask, codes_of(turned[which]))


def test_image_mask_and_valid_move_together() -> None:
    torch.manual_seed(1)
    geometry = geometry_augmentations()
    for _ in range(20):
        batch = positions(6, 7)
        out = transform(geometry=geometry)(batch)
        invalid_free = positions(6, 7)['image']
        # Invalid pixels are 0 in the image, so its pixels are told from the mask's symmetries instead.
        pixel = invalid_free[0, 0]
        turned = [torch.rot90(p, k) for p in (pixel, pixel.T) for k in range(4)]
        for i in range(6):
            fits = [t for t in turned if torch.equal(valid_of(t), out['valid'][i])]
            fits = [t for t in fits if torch.equal(t * valid_of(t), out['image'][i, 0])]
            assert len(fits) == 1
            assert torch.equal(out['mask'][i], codes_of(fits[0]) * valid_of(fits[0]))


@pytest.mark.parametrize(('size', 'crop'), [(8, 3), (9, 9), (6, 1), (32, 31)])
def test_crops_are_exact(size: int, crop: int) -> None:
    torch.manual_seed(2)
    batch = positions(12, size, valid=False)
    out = transform(geometry=geometry_augmentations(crop)[-1:])(batch)
    assert out['image'].shape == (12, 2, crop, crop)
    corner = out['image'][:, 0, :1, :1]
    offset = torch.arange(crop)[:, None] * size + torch.arange(crop)
    assert torch.equal(out['image'][:, 0], corner + offset)
    assert torch.equal(out['mask'], codes_of(out['image'][:, 0]))
    assert crop == size or len(corner.unique()) > 1


def test_crop_and_symmetries_together() -> None:
    torch.manual_seed(3)
    batch = positions(12, 16)
    batch['image'] += 1  # so that no valid pixel is 0
    out = transform(geometry=geometry_augmentations(5))(batch)
    pixel = out['image'][:, 0] - 1
    seen = out['valid']
    assert torch.equal(seen, out['image'][:, 0] > 0)
    assert torch.equal(out['mask'][seen], codes_of(pixel)[seen]) and out['mask'][~seen].eq(0).all()
    assert valid_of(pixel)[seen].all()


def test_masks_are_never_normalised() -> None:
    batch = positions(2, 4)
    out = transform(mean=100, std=7)(batch)
    seen = batch['valid']
    assert torch.equal(out['mask'], batch['mask'] * seen)
    wanted = ((batch['image'] - 100) / 7) * seen[:, None]
    torch.testing.assert_close(out['image'], wanted)


def test_channels_have_their_own_statistics() -> None:
    batch = positions(3, 4, valid=False)
    out = BatchTransform(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 10.0]))(batch)
    wanted = (batch['image'] - torch.tensor([1.0, 5])[:, None, None]) / torch.tensor([2.0, 10])[:, None, None]
    torch.testing.assert_close(out['image'], wanted)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 1e30])
def test_what_was_not_measured_is_hidden_whatever_it_holds(value: float) -> None:
    torch.manual_seed(0)
    batch = positions(4, 8)
    hidden = ~batch['valid'][:, None].expand_as(batch['image'])
    batch['image'][hidden] = value
    light = light_augmentations(['B02', 'B08'], **ALL)
    out = transform(3, 2, geometry=geometry_augmentations(), light=light)(batch)
    unseen = ~out['valid']
    assert unseen.sum() == hidden[:, 0].sum()
    assert out['image'].isfinite().all()
    assert out['image'].movedim(1, -1)[unseen].eq(0).all() and out['mask'][unseen].eq(0).all()


def test_other_entries_are_passed_on_and_the_batch_is_not_changed() -> None:
    torch.manual_seed(0)
    extra = {'bounds': torch.arange(6, dtype=torch.float64), 'name': ['a', 'b'], 'crs': None, 'masked': torch.ones(3)}
    batch = positions(2, 8) | extra
    before = {k: v.clone() if isinstance(v, Tensor) else v for k, v in batch.items()}
    light = light_augmentations(['B02', 'B08'], **ALL)
    out = transform(geometry=geometry_augmentations(4), light=light)(batch)
    assert list(out) == list(batch)
    for key in extra:
        assert out[key] is batch[key]
    for key in ('image', 'mask', 'valid'):
        assert torch.equal(batch[key], before[key])


@pytest.mark.parametrize('missing', [['mask'], ['valid'], ['mask', 'valid']])
def test_mask_and_valid_may_be_missing(missing: list[str]) -> None:
    batch = {k: v for k, v in positions(3, 8).items() if k not in missing}
    out = transform(geometry=geometry_augmentations())(batch)
    assert set(out) == set(batch)


def test_the_same_seed_gives_the_same_batch() -> None:
    steps = {'geometry': geometry_augmentations(6), 'light': light_augmentations(['B02', 'B08'], **ALL)}

    def draw(seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        return transform(**steps)(positions(8, 8))

    first, again, other = draw(4), draw(4), draw(5)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first['image'], other['image'])


def test_evaluation_is_not_random() -> None:
    batch, steps = positions(4, 8), transform(2, 3)
    state = torch.get_rng_state()
    first, again = steps(batch), steps(batch)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_strength_zero_is_left_out() -> None:
    assert light_augmentations(BANDS, **NOTHING) == []
    assert [type(s).__name__ for s in light_augmentations(BANDS, **ALL)] == [
        'GroupJitter',
        'RandomGaussianNoise',
        'BandDropout',
    ]


def test_jitter_is_shared_within_a_group_and_a_season() -> None:
    torch.manual_seed(0)
    channels = [f'{date} {band}' for date in ('2018-04', '2018-08') for band in BANDS]
    groups = band_groups(channels)
    assert groups == [0] * 3 + [1] * 5 + [2] * 2 + [3] * 3 + [4] * 5 + [5] * 2
    image = torch.stack([torch.zeros(20, 4, 4), torch.ones(20, 4, 4)]).repeat(30, 1, 1, 1)
    out = GroupJitter(groups, 0.2, 0.3, p=1)(image)
    shift = out[::2]  # of images of 0
    assert torch.equal(shift.amin((2, 3)), shift.amax((2, 3)))
    shift = shift[:, :, 0, 0]
    for group in range(6):
        members = [i for i, g in enumerate(groups) if g == group]
        assert torch.equal(shift[:, members], shift[:, members[:1]].expand(-1, len(members)))
    firsts = shift[:, [groups.index(g) for g in range(6)]]
    assert all(len(row.unique()) == 6 for row in firsts), 'groups and seasons change independently'
    assert firsts.abs().max() <= 0.2 and firsts.abs().max() > 0.15 and firsts.min() < 0 < firsts.max()
    assert (out[1::2] - 1).abs().max() <= 0.2 + 0.3 + 1e-6


def test_jitter_scales_and_shifts() -> None:
    torch.manual_seed(0)
    image = torch.tensor([0.0, 1, 3]).reshape(1, 1, 1, 3).expand(50, 1, 1, 3)
    out = GroupJitter([0], 0.0, 0.5, p=1)(image)[:, 0, 0]
    torch.testing.assert_close(out[:, 2], 3 * out[:, 1])
    assert out[:, 0].eq(0).all() and 0.5 <= out[:, 1].min() < 0.7 and 1.3 < out[:, 1].max() <= 1.5


def test_bands_outside_the_table_stand_alone() -> None:
    assert band_groups(['B02', 'elevation', 'B04', 'slope']) == [0, 1, 0, 2]


def test_one_band_of_an_image_is_dropped() -> None:
    torch.manual_seed(0)
    image = torch.ones(300, 4, 3, 3)
    out = BandDropout(p=0.5)(image)
    dropped = out.eq(0).all((2, 3))
    assert (out.eq(0).any((2, 3)) == dropped).all() and dropped.sum(1).max() == 1
    assert 110 < dropped.sum() < 190
    assert (dropped.sum(0) > 15).all(), 'every band gets its turn'
    assert image.eq(1).all()


def test_noise_has_the_strength_asked_for() -> None:
    torch.manual_seed(0)
    (noise,) = light_augmentations(['B02'], **(NOTHING | {'noise': 0.2}))
    out = noise(torch.zeros(200, 1, 16, 16))
    changed = out.ne(0).any(dim=(1, 2, 3)) if out.ndim == 4 else out
    assert 70 < changed.sum() < 130
    assert float(out[changed].std()) == pytest.approx(0.2, rel=0.05)
