"""Losses against torch and against NumPy that is written for one thing only: to be read."""

from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningArgumentParser
from segmentation_models_pytorch.losses import DiceLoss, LovaszLoss

from landcover_plugin.errors import LandcoverError
from landcover_plugin.training.losses import LOSSES, RANGES, LandCoverLoss, build_loss, parse_loss

WEIGHT = torch.tensor([0.0, 1, 2, 0.5, 3, 0.1, 7, 1, 1, 4, 0.25, 1, 2])
PIXELWISE, REGIONAL = ('ce', 'focal', 'gce', 'sce'), ('dice', 'jaccard', 'tversky', 'lovasz')
KINDS = ('codes', 'pixels', 'shares', 'pixels and shares')

weighted = pytest.mark.parametrize('weight', [None, WEIGHT], ids=['plain', 'weighted'])


def batch(
    seed: int, *, classes: int = 13, dtype: torch.dtype = torch.float32, low: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = (torch.randn(2, classes, 5, 7, generator=draw) * 4).to(dtype).requires_grad_()
    return logits, torch.randint(low, classes, (2, 5, 7), generator=draw)


def soft_batch(seed: int, *, ignore: int = 0) -> tuple[Any, ...]:
    """Logits, codes, pixel weights and shares; some pixels do not count whatever their weight and shares."""
    logits, target = batch(seed, low=1)
    draw = torch.Generator().manual_seed(seed + 100)
    shares = torch.rand(2, 12, 5, 7, generator=draw)
    target[0, :2] = target[1, 4] = ignore
    return logits, target, torch.rand(2, 5, 7, generator=draw), shares / shares.sum(1, keepdim=True)


def given(kind: str, pixels: Any, shares: Any) -> tuple[Any, Any]:
    return pixels if 'pixels' in kind else None, shares if 'shares' in kind else None


def mostly_of_few_classes(target: torch.Tensor) -> torch.Tensor:
    """The labels with only classes 1, 4 and 5 left."""
    return torch.tensor([0, 1, 1, 4, 4, 5, 5, 1, 1, 4, 4, 5, 5])[target]


# References


def labels_of(target: Any, weight: Any, ignore: int, pixels: Any, shares: Any) -> tuple[Any, Any, Any]:
    """Weights of pixels (B, H, W), shares (B, 13, H, W) and weights of classes (13,), as NumPy."""
    v = (1 if pixels is None else pixels.double().numpy()) * (target.numpy() != ignore)
    hard = (np.arange(13)[None, :, None, None] == target.numpy()[:, None]).astype(float)
    s = hard if shares is None else np.concatenate([hard[:, :1] * 0, shares.double().numpy()], axis=1)
    return v, s, np.ones(13) if weight is None else weight.double().numpy()


def probabilities(logits: Any) -> Any:
    z = np.exp(logits.detach().double().numpy())
    return z / z.sum(1, keepdims=True)


COSTS: dict[str, Callable[[Any], Any]] = {
    'ce': lambda p: -np.log(p),
    'focal': lambda p: -((1 - p) ** 2) * np.log(p),
    'gce': lambda p: (1 - p**0.7) / 0.7,
    'sce': lambda p: -0.1 * np.log(p) + 4 * (1 - p),
}


def pixel_loss(cost: Any, logits: Any, target: Any, *labels: Any, smoothing: float = 0) -> float:
    v, s, w = labels_of(target, *labels)
    costs = cost(probabilities(logits))
    costs = (1 - smoothing) * costs + smoothing * costs[:, 1:].mean(1, keepdims=True)
    mass = v[:, None] * s * w[None, :, None, None]
    return float((mass * costs).sum() / mass.sum())


def tversky(p: Any, s: Any, v: Any, positives: float, negatives: float) -> float:
    both, extra, missed = np.minimum(p, s), np.maximum(p - s, 0), np.maximum(s - p, 0)
    hit = (v * both).sum()
    return float(1 - hit / (hit + positives * (v * extra).sum() + negatives * (v * missed).sum()))


def lovasz(p: Any, s: Any, v: Any) -> float:
    """The integral over thresholds of the Jaccard loss of what is more wrong than the threshold."""
    errors = np.abs(p - s)
    levels = np.unique(np.concatenate([[0], errors]))[::-1]
    total = 0.0
    for upper, lower in pairwise(levels):
        wrong = errors >= upper
        union = (v * s).sum() + (v * (1 - s))[wrong].sum()
        total += (upper - lower) * (1 - (v * s)[~wrong].sum() / union)
    return total


AREAS: dict[str, Callable[..., float]] = {
    'dice': lambda *a: tversky(*a, 0.5, 0.5),
    'jaccard': lambda *a: tversky(*a, 1, 1),
    'tversky': lambda *a: tversky(*a, 0.3, 0.7),
    'lovasz': lovasz,
}


def region_loss(area: Any, logits: Any, target: Any, *labels: Any) -> float:
    v, s, w = labels_of(target, *labels)
    p = probabilities(logits)
    of_class = {
        c: area(p[:, c].ravel(), s[:, c].ravel(), (v * (s[:, 1:].sum(1) > 0)).ravel())
        for c in range(1, 13)
        if (v * s[:, c]).sum() > 0 and w[c] > 0
    }
    return sum(w[c] * value for c, value in of_class.items()) / sum(w[c] for c in of_class)


def by_numpy(name: str, *args: Any) -> float:
    return pixel_loss(COSTS[name], *args) if name in COSTS else region_loss(AREAS[name], *args)


def test_every_loss_has_a_reference() -> None:
    assert set(COSTS) == set(PIXELWISE) and set(AREAS) == set(REGIONAL)
    assert set(LOSSES) == {*PIXELWISE, *REGIONAL}


# All losses


@weighted
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', LOSSES)
def test_losses_agree_with_their_definition(name: str, kind: str, weight: Any) -> None:
    for seed in range(3):
        for ignore in (0, 255):
            logits, target, pixels, shares = soft_batch(seed, ignore=ignore)
            labels = given(kind, pixels, shares)
            mine = build_loss(name, weight, ignore_index=ignore)(logits, target, *labels)
            assert float(mine.detach()) == pytest.approx(
                by_numpy(name, logits, target, weight, ignore, *labels), rel=1e-5
            )


@weighted
@pytest.mark.parametrize('name', LOSSES)
def test_only_classes_of_the_batch_count(name: str, weight: Any) -> None:
    logits, target, pixels, _ = soft_batch(1)
    few = mostly_of_few_classes(target)
    mine = build_loss(name, weight)(logits, few, pixels)
    assert float(mine.detach()) == pytest.approx(by_numpy(name, logits, few, weight, 0, pixels, None), rel=1e-5)


@weighted
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', LOSSES)
def test_gradients_are_those_of_finite_differences(name: str, kind: str, weight: Any) -> None:
    logits, target, pixels, shares = soft_batch(2)
    labels = [None if v is None else v.double()[:, ..., :3, :4] for v in given(kind, pixels, shares)]
    target = mostly_of_few_classes(target)[:, :3, :4]
    loss = build_loss(name, None if weight is None else weight.double())
    given_logits = (logits.detach().double() / 4)[..., :3, :4].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, target, *labels), given_logits)


@weighted
@pytest.mark.parametrize('name', LOSSES)
def test_shares_that_are_all_or_nothing_give_the_loss_of_codes(name: str, weight: Any) -> None:
    logits, target, pixels, _ = soft_batch(1)
    shares = (torch.arange(1, 13)[None, :, None, None] == target[:, None]).float()
    loss = build_loss(name, weight)
    for kind in ('codes', 'pixels'):
        labels = given(kind, pixels, None)[0]
        hard, soft = loss(logits, target, labels), loss(logits, target, labels, shares)
        torch.testing.assert_close(soft, hard)
        gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (soft, hard)]
        torch.testing.assert_close(*gradients)
        torch.testing.assert_close(loss.mass(target, labels, shares), loss.mass(target, labels))


@pytest.mark.parametrize('name', LOSSES)
def test_weights_of_1_change_nothing_and_their_scale_does_not_matter(name: str) -> None:
    logits, target, pixels, shares = soft_batch(2)
    loss, twice = build_loss(name, WEIGHT), build_loss(name, 2 * WEIGHT)
    torch.testing.assert_close(loss(logits, target, torch.ones_like(pixels)), loss(logits, target))
    for soft in (None, shares):
        wanted = loss(logits, target, pixels, soft)
        torch.testing.assert_close(loss(logits, target, 7 * pixels, soft), wanted)
        torch.testing.assert_close(twice(logits, target, pixels, soft), wanted)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', LOSSES)
def test_what_is_ignored_has_no_gradient(name: str, kind: str) -> None:
    logits, target, pixels, shares = soft_batch(4)
    pixels[1, 2] = shares[1, :, 3] = 0
    labels = given(kind, pixels, shares)
    loss = build_loss(name, WEIGHT)(logits, target, *labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    dead = target == 0
    dead[1, 2] |= 'pixels' in kind
    dead[1, 3] |= 'shares' in kind
    assert gradient.movedim(1, -1)[dead].eq(0).all()
    assert gradient.movedim(1, -1)[~dead].ne(0).any(-1).all()
    torch.testing.assert_close(loss, build_loss(name, WEIGHT)(logits * ~dead[:, None], target, *labels))


@weighted
@pytest.mark.parametrize('empty', ['labels', 'weights', 'shares', 'classes'])
@pytest.mark.parametrize('name', [*LOSSES, 'ce+dice'])
def test_a_batch_without_weight_costs_nothing(name: str, empty: str, weight: Any) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        _, target, pixels, shares = soft_batch(5)
        logits = batch(5, dtype=dtype)[0]
        if empty == 'classes':
            weight = torch.tensor([1.0] + [0.0] * 12)
        else:
            {'labels': target, 'weights': pixels, 'shares': shares}[empty][:] = 0
        loss = build_loss(name, weight)(logits, target, pixels, shares)
        loss.backward()
        assert loss.item() == 0 and loss.dtype == torch.float32
        assert logits.grad is not None and logits.grad.eq(0).all()
        if empty in ('labels', 'classes'):
            assert build_loss(name, weight)(logits, target).item() == 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', LOSSES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    logits = torch.full((1, 13, 64, 64), 60000.0 if dtype == torch.float16 else 1e30, dtype=dtype)
    logits[:, 1] = 0
    logits.requires_grad_()
    target = torch.ones(1, 64, 64, dtype=torch.long)
    loss = build_loss(name)
    with torch.autocast('cpu', dtype=dtype):
        value = loss(logits, target)
        value.backward()
    assert value.isfinite() and logits.grad is not None and logits.grad.isfinite().all()
    _, target, pixels, shares = soft_batch(3)
    small = batch(3, dtype=dtype)[0]
    for kind in KINDS:
        labels = given(kind, pixels, shares)
        with torch.autocast('cpu', dtype=dtype):
            mine = loss(small, target, *labels)
        wanted = by_numpy(name, small.float(), target, None, 0, *labels)
        assert mine.dtype == torch.float32 and float(mine.detach()) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize('name', LOSSES)
def test_right_and_sure_costs_next_to_nothing_and_wrong_costs_more(name: str) -> None:
    _, target = batch(6, low=1)
    right = torch.nn.functional.one_hot(target, 13).movedim(-1, 1) * 40.0
    loss = build_loss(name)
    costs = [float(loss(z, target)) for z in (right, right / 20, right * 0, right.roll(1, dims=1) / 20)]
    assert costs[0] < 1e-5 and costs == sorted(costs)


@pytest.mark.parametrize('name', ['dice', 'jaccard', 'tversky', 'lovasz', 'ce'])
def test_shares_are_the_best_prediction_of_shares(name: str) -> None:
    """Which they are not with the product of shares and probabilities in Dice and Jaccard."""
    _, target, _, shares = soft_batch(7)
    logits = torch.cat([torch.full((2, 1, 5, 7), -60.0), shares.log()], dim=1).requires_grad_()
    loss = build_loss(name)
    best = loss(logits, target, None, shares)
    if name != 'ce':
        assert best.abs() < 1e-5
    for seed in range(5):
        moved = logits + 0.1 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
        assert loss(moved, target, None, shares) > best


# Cross-entropy and its relatives


@weighted
@pytest.mark.parametrize('ignore', [0, 5, 255, -100])
def test_it_is_cross_entropy(weight: Any, ignore: int) -> None:
    for seed in range(5):
        logits, target = batch(seed)
        target[0, :2] = ignore
        mine = build_loss('ce', weight, ignore_index=ignore)(logits, target)
        (gradient,) = torch.autograd.grad(mine, logits)
        reference = torch.nn.CrossEntropyLoss(weight, ignore_index=ignore)(logits, target)
        (wanted,) = torch.autograd.grad(reference, logits)
        torch.testing.assert_close(mine, reference)
        torch.testing.assert_close(gradient, wanted)


def test_the_limits_of_the_relatives_are_cross_entropy() -> None:
    logits, target, pixels, shares = soft_batch(8)
    wanted = build_loss('ce', WEIGHT)(logits, target, pixels, shares)
    for name, settings in (
        ('focal', {'focal_gamma': 0}),
        ('gce', {'gce_q': 0.01}),
        ('sce', {'sce_alpha': 1, 'sce_beta': 0}),
    ):
        mine = build_loss(name, WEIGHT, loss_args=settings)(logits, target, pixels, shares)
        torch.testing.assert_close(mine, wanted, rtol=0.06 if name == 'gce' else 1e-5, atol=0)


def test_a_sure_wrong_label_moves_the_robust_losses_less() -> None:
    logits = torch.zeros(1, 13, 1, 1, dtype=torch.double)
    logits[:, 3] = 8
    slopes = {}
    for name in PIXELWISE:
        z = logits.clone().requires_grad_()
        build_loss(name)(z, torch.full((1, 1, 1), 7)).backward()
        slopes[name] = float(z.grad.abs().sum())  # type: ignore[union-attr]
    assert max(slopes['gce'], slopes['sce']) < 0.2 * slopes['ce'] and slopes['focal'] > slopes['ce']


@pytest.mark.parametrize('gamma', [0, 0.5, 1, 2])
def test_focal_has_a_slope_everywhere(gamma: float) -> None:
    logits = torch.zeros(1, 13, 1, 2)
    logits[:, 1, :, 0] = 200
    logits.requires_grad_()
    build_loss('focal', loss_args={'focal_gamma': gamma})(logits, torch.ones(1, 1, 2, dtype=torch.long)).backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad[..., 1].ne(0).all()


@weighted
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', PIXELWISE)
def test_label_smoothing(name: str, kind: str, weight: Any) -> None:
    logits, target, pixels, shares = soft_batch(9)
    labels = given(kind, pixels, shares)
    mine = build_loss(name, weight, loss_args={'label_smoothing': 0.2})(logits, target, *labels)
    wanted = pixel_loss(COSTS[name], logits, target, weight, 0, *labels, smoothing=0.2)
    assert float(mine.detach()) == pytest.approx(wanted, rel=1e-5)


def test_label_smoothing_is_that_of_torch_without_class_weights() -> None:
    logits, target = batch(10, low=1)
    logits = torch.cat([torch.full((2, 1, 5, 7), -200.0), logits[:, 1:]], dim=1)
    mine = build_loss('ce', loss_args={'label_smoothing': 0.1})(logits, target)
    torch.testing.assert_close(mine, torch.nn.CrossEntropyLoss(label_smoothing=0.1)(logits[:, 1:], target - 1))


@weighted
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', PIXELWISE)
def test_batches_averaged_by_mass_are_one_batch(name: str, kind: str, weight: Any) -> None:
    loss, parts = build_loss(name, weight, loss_args={'label_smoothing': 0.1}), [soft_batch(s) for s in (11, 12, 13)]
    labels = [(z, t, *given(kind, v, s)) for z, t, v, s in parts]
    values = torch.stack([loss(*part) for part in labels])
    masses = torch.stack([loss.mass(*part[1:]) for part in labels])
    whole = [None if group[0] is None else torch.cat(group) for group in zip(*labels, strict=True)]
    torch.testing.assert_close((values * masses).sum() / masses.sum(), loss(*whole))


@weighted
def test_mass_is_the_sum_of_all_weights(weight: Any) -> None:
    _, target, pixels, shares = soft_batch(3)
    loss, w = build_loss('ce+lovasz', weight), np.ones(13) if weight is None else WEIGHT.double().numpy()
    counts, v, s = target.numpy() != 0, pixels.double().numpy(), shares.double().numpy()
    assert float(loss.mass(target)) == pytest.approx((w[target.numpy()] * counts).sum(), rel=1e-5)
    assert float(loss.mass(target, pixels)) == pytest.approx((w[target.numpy()] * v * counts).sum(), rel=1e-5)
    soft = (w[1:, None, None] * s * (v * counts)[:, None]).sum()
    assert float(loss.mass(target, pixels, shares)) == pytest.approx(soft, rel=1e-5)


# Areas


def test_lovasz_is_that_of_its_authors_and_dice_that_of_smp_but_for_the_mean() -> None:
    for seed in range(5):
        logits, target = batch(seed)
        few = mostly_of_few_classes(target)
        for labels in (target, few):
            theirs = LovaszLoss('multiclass', ignore_index=0)(logits, labels)
            torch.testing.assert_close(build_loss('lovasz')(logits, labels), theirs)
        theirs = DiceLoss('multiclass', ignore_index=0)(logits, few)
        torch.testing.assert_close(build_loss('dice')(logits, few), theirs * 13 / 3)


def test_lovasz_of_a_hard_prediction_is_the_jaccard_loss() -> None:
    _, target = batch(14, low=1)
    predicted = target.roll(3, dims=2)
    logits = torch.nn.functional.one_hot(predicted, 13).movedim(-1, 1) * 100.0
    for name in ('lovasz', 'jaccard'):
        found = [
            1 - ((predicted == c) & (target == c)).sum() / ((predicted == c) | (target == c)).sum()
            for c in target.unique()
        ]
        torch.testing.assert_close(build_loss(name)(logits, target), torch.stack(found).mean())


def test_lovasz_stays_exact_on_many_pixels() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(4, 13, 256, 256, generator=draw), torch.randint(0, 13, (4, 256, 256), generator=draw)
    single, double = (build_loss('lovasz')(z.requires_grad_(), target) for z in (logits, logits.double()))
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)


# Sums and their settings


@weighted
@pytest.mark.parametrize('kind', KINDS)
def test_sums(kind: str, weight: Any) -> None:
    logits, target, pixels, shares = soft_batch(15)
    labels = given(kind, pixels, shares)
    parts = {n: build_loss(n, weight)(logits, target, *labels) for n in LOSSES}
    for spec, wanted in (
        ('ce+dice', parts['ce'] + parts['dice']),
        ('0.5*ce + 2 * lovasz', 0.5 * parts['ce'] + 2 * parts['lovasz']),
        ({'focal': 3, 'jaccard': 0.25}, 3 * parts['focal'] + 0.25 * parts['jaccard']),
    ):
        torch.testing.assert_close(build_loss(spec, weight)(logits, target, *labels), wanted)


def test_a_weight_may_be_set_later_and_is_kept_in_checkpoints() -> None:
    logits, target, pixels, _ = soft_batch(16)
    loss = build_loss('ce+dice', torch.ones(13))
    loss.weight = WEIGHT
    torch.testing.assert_close(loss(logits, target, pixels), build_loss('ce+dice', WEIGHT)(logits, target, pixels))
    assert list(loss.state_dict()) == ['weight']
    other = build_loss('lovasz', torch.ones(13))
    other.load_state_dict(loss.state_dict())
    assert other.weight is not None and torch.equal(other.weight, WEIGHT)


@pytest.mark.parametrize('name', LOSSES)
def test_settings_change_what_they_say(name: str) -> None:
    logits, target, pixels, _ = soft_batch(17)
    plain = build_loss(name)(logits, target, pixels)
    for setting in {f.name for f in fields(LOSSES[name])}:
        assert setting in RANGES
        low, high = RANGES[setting]
        values = {float(build_loss(name, loss_args={setting: v})(logits, target, pixels).detach()) for v in (low, high)}
        assert len(values | {float(plain.detach())}) >= 2
        assert np.isfinite(list(values)).all()


def test_every_setting_belongs_to_a_loss() -> None:
    assert set(RANGES) == {f.name for kind in LOSSES.values() for f in fields(kind)}


def test_a_setting_goes_to_every_loss_that_has_it() -> None:
    logits, target = batch(18, low=1)
    given = {'label_smoothing': 0.1, 'focal_gamma': 1}
    parts = build_loss('ce', loss_args={'label_smoothing': 0.1}), build_loss('focal', loss_args=given)
    both = build_loss('ce+focal+dice', loss_args=given)(logits, target)
    torch.testing.assert_close(both, sum(p(logits, target) for p in (*parts, build_loss('dice'))))


WRONG_NAMES = ('', 'bce', 'ce+', 'ce+ce', 'ce dice', '-1*ce', '0*ce', 'ce*2', '1.2.3*ce', 'CE')
WRONG_TABLES = ({}, {'bce': 1}, {'ce': 0}, {'ce': float('nan')}, {'ce': float('inf')}, {'dice': -1.0, 'ce': 1.0})


@pytest.mark.parametrize('wrong', WRONG_NAMES + WRONG_TABLES)
def test_a_wrong_loss_is_told(wrong: Any) -> None:
    with pytest.raises(LandcoverError, match=r'loss must be one of ce, focal, .*, or a sum of them as ce\+dice'):
        build_loss(wrong)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'gamma': 2}, "loss_args may hold label_smoothing, focal_gamma, .*, got 'gamma'"),
        ({'label_smoothing': 1.0}, 'label_smoothing must be in 0 to 0.9, got 1.0'),
        ({'label_smoothing': float('nan')}, 'label_smoothing must be in 0 to 0.9, got nan'),
        ({'focal_gamma': 2}, r"focal_gamma has no effect on loss 'ce\+dice'; it belongs to focal"),
    ],
)
def test_a_wrong_setting_is_told(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        build_loss('ce+dice', loss_args=settings)


class Owner:
    """Has the arguments of the task."""

    def __init__(self, loss: str | dict[str, float] = 'ce', loss_args: dict[str, float] | None = None) -> None: ...


@pytest.mark.parametrize(
    ('args', 'wanted'),
    [
        ([], {'gce': 1}),
        (['--model.loss', 'focal'], {'focal': 1}),
        (['--model.loss', 'ce+0.5*dice'], {'ce': 1, 'dice': 0.5}),
        (['--model.loss', '{ce: 1, dice: 0.5}'], {'ce': 1, 'dice': 0.5}),
    ],
)
def test_the_command_line_takes_names_sums_and_tables(args: list[str], wanted: dict[str, float]) -> None:
    parser = LightningArgumentParser()
    parser.add_class_arguments(Owner, 'model')
    parser.set_defaults({'model.loss': {'gce': 1.0}})  # as a checkpoint does
    parsed = parser.parse_args(args)
    assert parse_loss(parsed.model.loss) == wanted
    again = LightningArgumentParser()
    again.add_class_arguments(Owner, 'model')
    assert parse_loss(again.parse_string(parser.dump(parsed)).model.loss) == wanted


def test_it_says_what_it_is() -> None:
    assert 'Tversky(tversky_alpha=0.4)' in repr(build_loss('0.5*tversky', loss_args={'tversky_alpha': 0.4}))
    assert isinstance(build_loss(), LandCoverLoss)
