"""Mixed batches hold nothing but pixels of the batch, each under its own label."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from landcover_plugin.errors import LandcoverError
from landcover_plugin.training.augmentation import BatchTransform
from landcover_plugin.training.mixing import MIXES, ClassMix, CutMix, Mix, RareCopyPaste, another, mixing, paste

COUNTS = np.array([10**6, 900, 800, 5000, 4000, 300, 200, 100, 4, 90, 3, 700, 0])
RARE = (7, 8, 9, 10)  # ... of the classes that occur

KINDS: dict[str, Callable[..., Mix]] = {
    'cutmix': CutMix,
    'classmix': ClassMix,
    'copy_paste': lambda **settings: RareCopyPaste(COUNTS, **settings),
}
each = pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)


def batch(seed: int = 0, number: int = 6, height: int = 24, width: int = 17) -> dict[str, Any]:
    """Patches in whose first channel every pixel of the batch has its own number."""
    draw = torch.Generator().manual_seed(seed)
    shape = (number, height, width)
    pixel = torch.arange(number * height * width, dtype=torch.float32).view(shape)
    corner = torch.randint(0, 13, (number, -(-height // 4), -(-width // 4)), generator=draw)
    mask = corner.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width].clone()
    valid = torch.rand(shape, generator=draw) < 0.9
    mask[~valid] = 0
    image = torch.stack([pixel, -pixel, pixel % 7], dim=1) * valid[:, None]
    image[:, 0] = pixel  # stays the number of the pixel, measured or not
    purity = torch.randint(0, 101, shape, generator=draw).byte()
    shares = torch.rand(number, 12, height, width, generator=draw)
    shares = shares / shares.sum(1, keepdim=True) * (mask > 0)[:, None]
    return {
        'image': image,
        'mask': mask,
        'valid': valid,
        'weight': purity.where(mask > 0, 0) / 100,
        'shares': shares,
        'purity': purity,
        'bounds': torch.arange(number * 6).view(number, 6),
        'names': list('abcdef'),
    }


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def origin(out: dict[str, Any], number: int) -> tuple[Tensor, Tensor]:
    """Patch of the batch, and place in it, of each pixel of a mixed batch."""
    place = out['image'][:, 0].long()
    return place // (place.numel() // number), place % (place.numel() // number)


@each
def test_every_pixel_is_one_of_the_batch_with_all_that_belongs_to_it(kind: Any) -> None:
    changed = 0
    for seed in range(20):
        given = batch(seed)
        before = {k: v.clone() for k, v in given.items() if isinstance(v, Tensor)}
        out = kind(p=0.8)(given, seeded(seed))
        patch, place = origin(out, 6)
        assert (place == torch.arange(24 * 17).view(24, 17)).all(), 'a pixel keeps its place'
        own = patch == torch.arange(6)[:, None, None]
        for key in ('image', 'mask', 'valid', 'weight', 'shares', 'purity'):
            values = before[key].movedim(1, -1) if before[key].ndim == 4 else before[key]
            wanted = values.flatten(0, 2)[out['image'][:, 0].long()]
            wanted = wanted.movedim(-1, 1) if before[key].ndim == 4 else wanted
            assert out[key].dtype == before[key].dtype and torch.equal(out[key], wanted)
        assert out['valid'][~own].all(), 'what was not measured is not pasted'
        assert out['mask'][~out['valid']].eq(0).all() and out['weight'][out['mask'] == 0].eq(0).all()
        assert all(torch.equal(given[k], v) for k, v in before.items()), 'the batch given is not changed'
        assert out['bounds'] is given['bounds'] and out['names'] is given['names'] and list(out) == list(given)
        changed += int((~own).any(dim=(1, 2)).sum())
    assert changed > 20


@each
def test_only_one_other_patch_is_pasted_into_a_patch(kind: Any) -> None:
    for seed in range(10):
        patch, _ = origin(kind(p=1)(batch(seed), seeded(seed)), 6)
        assert all(len(set(p.unique().tolist()) - {i}) <= 1 for i, p in enumerate(patch))


@each
def test_the_seed_decides_and_the_global_one_by_default(kind: Any) -> None:
    given = batch(1)
    first, again, other = (kind(p=0.7)(given, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first['image'], again['image']) and not torch.equal(first['image'], other['image'])
    state = torch.get_rng_state()
    kind(p=0.7)(given, seeded(1))
    assert torch.equal(torch.get_rng_state(), state), 'a generator of its own leaves the global one alone'
    torch.manual_seed(1)
    assert torch.equal(kind(p=0.7)(given)['image'], first['image'])


@each
def test_nothing_happens_with_probability_0_or_a_single_patch(kind: Any) -> None:
    given = batch(2)
    out = kind(p=0)(given)
    assert all(out[k] is v for k, v in given.items())
    single = batch(2, number=1)
    assert all(torch.equal(v, single[k]) for k, v in kind(p=1)(single).items() if isinstance(v, Tensor))


@each
def test_the_probability_is_that_of_a_patch(kind: Any) -> None:
    changed = 0
    for seed in range(100):
        given = batch(seed)
        given['mask'][:, :8] = 10  # so that there is always something to paste
        given['mask'][:, 8:] = torch.where(given['mask'][:, 8:] > 6, 1, given['mask'][:, 8:])
        given['valid'][:] = True
        patch, _ = origin(kind(p=0.3)(given, seeded(seed)), 6)
        changed += int((patch != torch.arange(6)[:, None, None]).any(dim=(1, 2)).sum())
    assert 130 < changed < 230  # 180 on average


@each
def test_unlabelled_batches_stay_unlabelled(kind: Any) -> None:
    given = batch(3)
    given['mask'][:] = 0
    assert kind(p=1)(given, seeded(0))['mask'].eq(0).all()


@each
@pytest.mark.parametrize('missing', [('weight', 'shares', 'purity'), ('valid',)])
def test_what_the_batch_lacks_is_not_made_up(kind: Any, missing: tuple[str, ...]) -> None:
    given = {k: v for k, v in batch(4).items() if k not in missing}
    out = kind(p=1)(given, seeded(4))
    assert set(out) == set(given)
    patch, _ = origin(out, 6)
    assert torch.equal(out['mask'], given['mask'].flatten()[out['image'][:, 0].long()])
    assert (patch != torch.arange(6)[:, None, None]).any()


@each
def test_batches_of_the_device_can_be_mixed(kind: Any) -> None:
    given = batch(5)
    given['shares'] = (given['shares'] * 100).byte()
    for use in ('none', 'weight', 'soft'):
        made = BatchTransform(torch.zeros(3), torch.ones(3), purity=use)(given)  # type: ignore[arg-type]
        out = kind(p=1)(made, seeded(5))
        labelled = out['mask'] > 0
        assert out['image'].isfinite().all() and out['image'].movedim(1, -1)[~out['valid']].eq(0).all()
        if use == 'soft':
            torch.testing.assert_close(out['shares'].sum(1), labelled.float())
        if use == 'weight':
            assert torch.equal(out['weight'], torch.where(labelled, out['purity'] / 100, 0))


# CutMix


def test_cutmix_pastes_one_rectangle_of_half_the_area() -> None:
    heights, corners, ends = set(), set(), set()
    for seed in range(40):
        given = batch(seed, height=40, width=30)
        given['valid'][:] = True
        patch, _ = origin(CutMix(p=1)(given, seeded(seed)), 6)
        foreign = patch != torch.arange(6)[:, None, None]
        for pasted in foreign:
            rows, cols = pasted.any(1).nonzero().flatten(), pasted.any(0).nonzero().flatten()
            assert pasted.sum() == len(rows) * len(cols) == (rows[-1] - rows[0] + 1) * (cols[-1] - cols[0] + 1)
            assert 0.46 < pasted.float().mean() < 0.54
            heights.add(len(rows))
            corners.add((int(rows[0]), int(cols[0])))
            if len(rows) < 36 and len(cols) < 26:  # not as long as the patch anyhow
                ends |= {('row', int(rows[-1])), ('col', int(cols[-1]))}
    assert min(heights) <= 21 and max(heights) >= 39 and len(corners) > 100
    assert {('row', 39), ('col', 29)} <= ends, 'every place, to the rim'
    assert {r for r, _ in corners} >= set(range(15)) and {c for _, c in corners} >= set(range(10))


# ClassMix


def test_classmix_pastes_half_of_the_classes_whole_and_nothing_else() -> None:
    seen = set()
    for seed in range(20):
        given = batch(seed)
        out = ClassMix(p=1)(given, seeded(seed))
        patch, _ = origin(out, 6)
        for i in range(6):
            foreign = patch[i] != i
            if not foreign.any():
                continue
            source = int(patch[i][foreign][0])
            codes = given['mask'][source]
            classes, pasted = set(codes.unique().tolist()) - {0}, set(codes[foreign].unique().tolist())
            assert len(pasted) == len(classes) // 2 and 0 not in pasted
            whole = torch.isin(codes, torch.tensor(sorted(pasted)))
            assert torch.equal(foreign, whole & given['valid'][source])
            seen |= pasted
    assert seen == set(range(1, 13))


def test_classmix_never_replaces_a_patch_of_one_class() -> None:
    given = batch(6)
    given['mask'][:] = 3
    out = ClassMix(p=1)(given, seeded(6))
    assert torch.equal(out['image'], given['image'])


# Copy-paste


@pytest.mark.parametrize('margin', [0, 1, 5])
def test_rare_pixels_are_pasted_with_what_is_around_them(margin: int) -> None:
    rare_codes = torch.tensor(RARE)
    for seed in range(10):
        given = batch(seed)
        out = RareCopyPaste(COUNTS, p=1, margin=margin)(given, seeded(seed))
        patch, _ = origin(out, 6)
        rare = torch.isin(given['mask'], rare_codes)
        for i in range(6):
            foreign = patch[i] != i
            source = int(patch[i][foreign][0])
            near = torch.zeros_like(foreign)
            for r, c in rare[source].nonzero().tolist():
                near[max(r - margin, 0) : r + margin + 1, max(c - margin, 0) : c + margin + 1] = True
            assert torch.equal(foreign, near & given['valid'][source] & (rare[source] | ~rare[i]))


def test_no_patch_has_fewer_rare_pixels_and_the_batch_has_more() -> None:
    before = after = 0
    for seed in range(30):
        given = batch(seed)
        given['mask'][3:][torch.isin(given['mask'][3:], torch.tensor(RARE))] = 3  # half of the patches have none
        out = RareCopyPaste(COUNTS, p=0.5)(given, seeded(seed))
        was, now = (torch.isin(b['mask'], torch.tensor(RARE)).sum((1, 2)) for b in (given, out))
        assert (now >= was).all()
        before, after = before + int(was.sum()), after + int(now.sum())
    assert after > 1.4 * before


def test_patches_with_rare_classes_are_looked_for() -> None:
    for seed in range(10):
        given = batch(seed)
        given['mask'][:] = 3
        given['mask'][4, 5:9, 5:9] = 10
        given['valid'][:] = True
        out = RareCopyPaste(COUNTS, p=1, margin=2)(given, seeded(seed))
        assert out['mask'].eq(10).sum((1, 2)).tolist() == [16] * 6
        assert torch.equal(out['image'][4], given['image'][4]), 'nothing to paste into it'


@pytest.mark.parametrize(
    ('counts', 'number', 'rare'),
    [
        (COUNTS, 4, [7, 8, 9, 10]),
        (COUNTS, 1, [10]),
        ([9, 5, 7] + [0] * 10, 4, [1]),
        ([9, 5] + [0] * 11, 4, []),
        (torch.zeros(13), 4, []),
        (COUNTS, 0, []),
    ],
)
def test_which_classes_are_rare(counts: Any, number: int, rare: list[int]) -> None:
    made = RareCopyPaste(counts, number=number)
    assert made.rare.nonzero().flatten().tolist() == rare
    assert not list(made.state_dict()), 'nothing of it belongs into a checkpoint'
    given = batch(7)
    out = made(given, seeded(7))
    assert bool(rare) != torch.equal(out['image'], given['image'])


# Names and parts


@pytest.mark.parametrize('name', MIXES)
def test_every_name_means_a_way_to_mix(name: Any) -> None:
    asked = []
    steps = mixing(name, 0.5, lambda: asked.append(name) or COUNTS)  # type: ignore[func-returns-value]
    assert [type(s) for s in steps] == {
        'none': [],
        'cutmix': [CutMix],
        'classmix': [ClassMix],
        'copy_paste': [RareCopyPaste],
    }[name]
    assert asked == (['copy_paste'] if name == 'copy_paste' else [])


def test_what_is_wrong_is_told() -> None:
    with pytest.raises(LandcoverError, match="mix must be one of none, cutmix, classmix, copy_paste, got 'mixup'"):
        mixing('mixup', 0.5, lambda: COUNTS)  # type: ignore[arg-type]
    with pytest.raises(LandcoverError, match=r'probability of mixing a patch must be in 0 to 1, got 1\.5'):
        CutMix(1.5)
    with pytest.raises(LandcoverError, match=r'copy-paste needs counts of 13 codes, got shape \(12,\)'):
        RareCopyPaste(COUNTS[1:])


def test_another_is_never_the_same_and_each_is_taken_once() -> None:
    torch.manual_seed(0)
    for number in (2, 3, 8):
        drawn = torch.stack([another(number) for _ in range(200)])
        assert (drawn != torch.arange(number)).all() and (drawn.sort(dim=1).values == torch.arange(number)).all()
        assert all(len(column.unique()) == number - 1 for column in drawn.T)


def test_paste_moves_planes_and_stacks_alike() -> None:
    given = batch(8)
    where = torch.rand(6, 24, 17, generator=seeded(8)) < 0.5
    source = torch.tensor([3, 3, 0, 1, 5, 4])
    out = paste(given, where, source)
    for key in ('image', 'mask', 'shares'):
        for i in range(6):
            wanted = np.where(where[i].numpy(), given[key][source[i]].numpy(), given[key][i].numpy())
            np.testing.assert_array_equal(out[key][i].numpy(), wanted)
