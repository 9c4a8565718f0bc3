"""Geometry moves image, mask and validity together and exactly; light changes the image alone."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from landcover_plugin.errors import LandcoverError
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


def transform(mean: float = 0, std: float = 1, channels: int = 2, **steps: Any) -> BatchTransform:
    return BatchTransform(torch.full((channels,), float(mean)), torch.full((channels,), float(std)), **steps)


def purity_of(pixel: Tensor) -> Tensor:
    return (pixel % 101).byte()


def shares_of(pixel: Tensor) -> Tensor:
    """Twelve shares that add up to 6..66, each with a pattern of its own, shape ``(B, 12, H, W)``."""
    return torch.stack([(pixel * k // 3 % 6).byte() + (k == 12) * 6 for k in range(1, 13)], dim=1).byte()


def with_purity(number: int, size: int) -> dict[str, Any]:
    batch = positions(number, size)
    return batch | {'purity': purity_of(batch['image'][:, 0]), 'shares': shares_of(batch['image'][:, 0])}


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


@pytest.mark.parametrize('crop', [None, 5])
@pytest.mark.parametrize('number', [torch.float32, torch.int16, torch.uint16])
def test_purity_and_shares_move_with_the_image(crop: int | None, number: torch.dtype) -> None:
    torch.manual_seed(4)
    for use in ('soft', 'weight'):
        batch = with_purity(24, 12)
        batch['image'] = (batch['image'] + 1).to(number)  # so that no valid pixel is 0
        out = transform(geometry=geometry_augmentations(crop), purity=use)(batch)
        pixel, seen = out['image'][:, 0] - 1, out['valid']
        assert len(pixel.flatten(1).unique(dim=0)) > 6, 'patches were moved differently'
        labelled = seen & (codes_of(pixel) > 0)
        assert out['purity'].dtype == torch.uint8
        assert torch.equal(out['purity'][seen], purity_of(pixel)[seen])
        if use == 'weight':
            assert 'shares' not in out
            assert torch.equal(out['weight'], torch.where(labelled, purity_of(pixel) / 100, 0))
        else:
            wanted = shares_of(pixel).double()
            wanted = wanted / wanted.sum(1, keepdim=True) * labelled[:, None]
            torch.testing.assert_close(out['shares'], wanted.float())


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


def by_numpy(numbers: NDArray[Any], valid: NDArray[Any], scale: float, offset: float) -> NDArray[np.float64]:
    reflectance = (numbers.astype(np.float64) + offset) / scale
    mean, std = np.array([0.1, 0.3])[:, None, None], np.array([0.02, 0.2])[:, None, None]
    return (reflectance - mean) / std * valid[:, None]


@pytest.mark.parametrize(('scale', 'offset'), [(10_000, 0), (10_000, -1000), (255.0, 3.5)])
@pytest.mark.parametrize('number', [torch.uint16, torch.int16, torch.uint8, torch.int32])
def test_digital_numbers_become_reflectance(number: torch.dtype, scale: float, offset: float) -> None:
    torch.manual_seed(0)
    limits = torch.iinfo(number)
    numbers = torch.randint(max(limits.min, -(2**15)), min(limits.max, 2**16) + 1, (3, 2, 6, 9)).to(number)
    valid = torch.rand(3, 6, 9) < 0.8
    batch = {'image': numbers, 'valid': valid}
    steps = BatchTransform(torch.tensor([0.1, 0.3]), torch.tensor([0.02, 0.2]), scale=scale, offset=offset)
    out = steps(batch)['image']
    assert out.dtype == torch.float32
    wanted = by_numpy(numbers.numpy(), valid.numpy(), scale, offset)
    np.testing.assert_allclose(out.numpy(), wanted, rtol=1e-5, atol=1e-5)
    reflectance = torch.from_numpy((numbers.numpy().astype(np.float64) + offset) / scale).float()
    torch.testing.assert_close(steps({'image': reflectance, 'valid': valid})['image'], out, rtol=1e-5, atol=1e-5)


def test_digital_numbers_and_reflectance_give_the_same_augmented_batch() -> None:
    batch = positions(6, 9)
    batch['image'] = (batch['image'] * 50).to(torch.uint16)
    steps = {
        'geometry': geometry_augmentations(5),
        'light': light_augmentations(['B02', 'B08'], **ALL),
        'scale': 10_000,
        'offset': -1000,
    }
    torch.manual_seed(1)
    numbers = transform(0.05, 0.1, **steps)(batch)
    torch.manual_seed(1)
    reflectance = transform(0.05, 0.1, **steps)(batch | {'image': (batch['image'].float() - 1000) / 10_000})
    torch.testing.assert_close(numbers['image'], reflectance['image'], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(numbers[k], reflectance[k]) for k in ('mask', 'valid'))


@pytest.mark.parametrize('number', [torch.uint16, torch.int16, torch.float32])
@pytest.mark.parametrize('moved', [True, False])
def test_the_batch_given_is_not_changed(number: torch.dtype, moved: bool) -> None:
    torch.manual_seed(0)
    for use in ('none', 'weight', 'soft'):
        batch = with_purity(4, 8)
        batch['image'] = batch['image'].to(number)
        before = {k: v.clone() for k, v in batch.items()}
        steps = geometry_augmentations() if moved else ()
        out = transform(3, 2, geometry=steps, purity=use)(batch)
        assert out['mask'].ne(before['mask']).any() and set(batch) == set(before)
        for key, values in before.items():
            assert torch.equal(batch[key], values), key


def test_masks_of_bytes_become_long() -> None:
    batch = positions(2, 5)
    out = transform()(batch | {'mask': batch['mask'].byte()})
    check_together(out, batch['image'])


def test_weight_and_shares_are_those_of_the_labelled_pixels() -> None:
    draw = np.random.default_rng(0)
    mask = draw.integers(0, 13, (2, 5, 7)).astype(np.uint8)
    shares = draw.multinomial(100, np.full(14, 1 / 14), size=(2, 5, 7)).transpose(0, 3, 1, 2)[:, :12].astype(np.uint8)
    given = {
        'image': np.zeros((2, 2, 5, 7), np.float32),
        'valid': draw.random((2, 5, 7)) < 0.7,
        'mask': mask,
        'purity': draw.integers(0, 101, (2, 5, 7)).astype(np.uint8),
        'shares': shares,
    }
    batch = {k: torch.from_numpy(v) for k, v in given.items()}
    labelled = given['valid'] & (mask > 0)
    out = transform(purity='weight')(batch)
    assert out['weight'].dtype == torch.float32 and torch.equal(out['purity'], batch['purity'])
    np.testing.assert_allclose(out['weight'].numpy(), np.where(labelled, given['purity'] / 100, 0), rtol=1e-6)
    soft = transform(purity='soft')(batch)
    assert soft['shares'].dtype == torch.float32 and 'weight' not in soft
    wanted = shares / shares.sum(1, keepdims=True, dtype=np.int64) * labelled[:, None]
    np.testing.assert_allclose(soft['shares'].numpy(), wanted, rtol=1e-6)
    np.testing.assert_allclose(soft['shares'].sum(1).numpy(), labelled, rtol=1e-6)
    plain = transform()(batch)
    assert set(plain) == {'image', 'valid', 'mask', 'purity'}


@pytest.mark.parametrize(('use', 'needed'), [('weight', 'purity'), ('soft', 'shares')])
def test_purity_that_the_loss_lacks_is_told(use: str, needed: str) -> None:
    with pytest.raises(LandcoverError, match=f"purity '{use}' needs {needed} in each batch, got image, mask, valid"):
        transform(purity=use)(positions(1, 4))
    unlabelled = {k: v for k, v in positions(1, 4).items() if k != 'mask'}
    assert set(transform(purity=use)(unlabelled)) == {'image', 'valid'}


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
