"""Samples of any size become a batch: every value in its place, padding is what was not measured, types stay."""

from typing import Any

import numpy as np
import pytest
import torch

from landcover_plugin.training.batches import pad_and_stack

SIZES = ((4, 5), (2, 7), (6, 1))


def sample(number: int, height: int, width: int, image: torch.dtype) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(number)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randint(1, 101, (*shape, height, width), generator=draw)

    return {
        'image': (numbers(2) * 100).to(image) if image != torch.uint8 else numbers(2).byte(),
        'valid': torch.ones(height, width, dtype=torch.bool),
        'mask': (numbers() % 12 + 1).byte(),
        'purity': numbers().byte(),
        'shares': numbers(12).byte(),
        'bounds': number,
    }


@pytest.mark.parametrize('image', [torch.float32, torch.uint16, torch.int16, torch.uint8])
@pytest.mark.parametrize('sizes', [SIZES, SIZES[:1], SIZES[:1] * 3], ids=['ragged', 'one', 'alike'])
@pytest.mark.parametrize('size', [1, 5, 9])
def test_every_value_is_in_its_place_and_the_rest_is_0(image: torch.dtype, sizes: Any, size: int) -> None:
    samples = [sample(i, *s, image) for i, s in enumerate(sizes)]
    batch = pad_and_stack(samples, size)
    height, width = (
        max(size, *(s[axis] for s in sizes)) if len(sizes) > 1 else max(size, sizes[0][axis]) for axis in (0, 1)
    )
    assert list(batch) == ['image', 'valid', 'mask', 'purity', 'shares']
    for key, values in batch.items():
        wanted = np.zeros((len(samples), *samples[0][key].shape[:-2], height, width), samples[0][key].numpy().dtype)
        for i, s in enumerate(samples):
            wanted[i, ..., : sizes[i][0], : sizes[i][1]] = s[key].numpy()
        assert values.dtype == samples[0][key].dtype, key
        np.testing.assert_array_equal(values.numpy(), wanted, err_msg=key)


def test_the_batch_shares_no_memory_with_the_samples() -> None:
    samples = [sample(0, 4, 5, torch.uint16)]
    batch = pad_and_stack(samples)
    batch['purity'][:] = 0
    assert samples[0]['purity'].all()


@pytest.mark.parametrize('missing', [['mask'], ['purity', 'shares'], ['valid', 'mask', 'purity', 'shares']])
def test_what_samples_do_not_have_is_left_out(missing: list[str]) -> None:
    samples = [{k: v for k, v in sample(i, *s, torch.float32).items() if k not in missing} for i, s in enumerate(SIZES)]
    assert set(pad_and_stack(samples)) == {'image', 'valid', 'mask', 'purity', 'shares'} - set(missing)
