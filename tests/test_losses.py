"""The loss against torch and five lines of NumPy; the class weights against their formulas."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from landcover_plugin.errors import LandcoverError
from landcover_plugin.legend import LEGEND
from landcover_plugin.sampling.weights import class_weights
from landcover_plugin.training.losses import MaskedCrossEntropy

COUNTS = np.array([900, 100, 7, 5000, 0, 42, 13, 1, 0, 260, 3, 77, 800])
WEIGHT = torch.tensor([0.0, 1, 2, 0.5, 3, 0.1, 7, 1, 1, 4, 0.25, 1, 2])


def batch(
    seed: int, *, classes: int = 13, dtype: torch.dtype = torch.float32, low: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = (torch.randn(2, classes, 5, 7, generator=draw) * 4).to(dtype).requires_grad_()
    return logits, torch.randint(low, classes, (2, 5, 7), generator=draw)


def by_numpy(logits: Any, target: Any, weight: Any, ignore: int) -> float:
    z = np.moveaxis(logits.detach().double().numpy(), 1, -1)[target.numpy() != ignore]
    y = target.numpy()[target.numpy() != ignore]
    w = np.ones(len(y)) if weight is None else weight.double().numpy()[y]
    log_p = z[np.arange(len(y)), y] - np.log(np.exp(z).sum(-1))
    return float(-(w * log_p).sum() / w.sum())


@pytest.mark.parametrize('weight', [None, WEIGHT], ids=['plain', 'weighted'])
@pytest.mark.parametrize('ignore', [0, 5, 255, -100])
def test_it_is_cross_entropy(weight: torch.Tensor | None, ignore: int) -> None:
    for seed in range(5):
        logits, target = batch(seed)
        target[0, :2] = ignore
        mine = MaskedCrossEntropy(weight, ignore)(logits, target)
        (gradient,) = torch.autograd.grad(mine, logits)
        reference = torch.nn.CrossEntropyLoss(weight, ignore_index=ignore)(logits, target)
        (wanted,) = torch.autograd.grad(reference, logits)
        torch.testing.assert_close(mine, reference)
        torch.testing.assert_close(gradient, wanted)
        assert float(mine.detach()) == pytest.approx(by_numpy(logits, target, weight, ignore), rel=1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('weight', [None, WEIGHT], ids=['plain', 'weighted'])
def test_a_batch_without_labels_costs_nothing(weight: torch.Tensor | None, dtype: torch.dtype) -> None:
    logits, target = batch(1, dtype=dtype)
    loss = MaskedCrossEntropy(weight)(logits, torch.zeros_like(target))
    loss.backward()
    assert loss.item() == 0 and loss.dtype == torch.float32
    assert logits.grad is not None and logits.grad.eq(0).all()


def test_a_batch_of_classes_without_weight_costs_nothing() -> None:
    logits, target = batch(2)
    loss = MaskedCrossEntropy(torch.tensor([1.0] + [0.0] * 12))(logits, target)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and logits.grad.eq(0).all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    logits = torch.full((1, 13, 300, 300), 60000.0 if dtype == torch.float16 else 1e30, dtype=dtype)
    logits[:, 1] = 0
    target = torch.ones(1, 300, 300, dtype=torch.long)
    loss = MaskedCrossEntropy()(logits, target)
    assert torch.isfinite(loss)
    small, target = batch(3, dtype=dtype, low=1)
    assert float(MaskedCrossEntropy()(small, target).detach()) == pytest.approx(
        by_numpy(small, target, None, 0), rel=1e-5
    )


def test_mass_is_what_the_mean_divides_by() -> None:
    logits, target = batch(4)
    loss = MaskedCrossEntropy(WEIGHT)
    total = torch.nn.CrossEntropyLoss(WEIGHT, ignore_index=0, reduction='sum')(logits, target)
    torch.testing.assert_close(loss(logits, target) * loss.mass(target), total)
    assert MaskedCrossEntropy().mass(target) == (target != 0).sum()


# Weights of pixels and shares of classes


def soft_batch(seed: int, *, ignore: int = 0) -> tuple[Any, ...]:
    """Logits, codes, pixel weights and shares; some pixels do not count whatever their weight and shares."""
    logits, target = batch(seed, low=1)
    draw = torch.Generator().manual_seed(seed + 100)
    shares = torch.rand(2, 12, 5, 7, generator=draw)
    target[0, :2] = target[1, 4] = ignore
    return logits, target, torch.rand(2, 5, 7, generator=draw), shares / shares.sum(1, keepdim=True)


def by_definition(logits: Any, target: Any, weight: Any, ignore: int, pixels: Any, shares: Any) -> float:
    z = logits.detach().double().numpy()
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    v = (1 if pixels is None else pixels.double().numpy()) * (target.numpy() != ignore)
    hard = (np.arange(13)[None, :, None, None] == target.numpy()[:, None]).astype(float)
    s = hard if shares is None else np.concatenate([hard[:, :1] * 0, shares.double().numpy()], axis=1)
    w = (np.ones(13) if weight is None else weight.double().numpy())[None, :, None, None]
    mass = v[:, None] * s * w
    return float(-(mass * log_p).sum() / mass.sum())


@pytest.mark.parametrize('weight', [None, WEIGHT], ids=['plain', 'weighted'])
@pytest.mark.parametrize('ignore', [0, 5, 255])
@pytest.mark.parametrize('kinds', ['pixels', 'shares', 'pixels and shares'])
def test_weights_and_shares_agree_with_the_definition(weight: Any, ignore: int, kinds: str) -> None:
    for seed in range(5):
        logits, target, pixels, shares = soft_batch(seed, ignore=ignore)
        given = (pixels if 'pixels' in kinds else None, shares if 'shares' in kinds else None)
        mine = MaskedCrossEntropy(weight, ignore)(logits, target, *given)
        assert float(mine.detach()) == pytest.approx(by_definition(logits, target, weight, ignore, *given), rel=1e-5)


@pytest.mark.parametrize('weight', [None, WEIGHT], ids=['plain', 'weighted'])
@pytest.mark.parametrize('weighted', [False, True])
def test_shares_that_are_all_or_nothing_give_the_loss_of_codes(weight: Any, weighted: bool) -> None:
    logits, target, pixels, _ = soft_batch(1)
    shares = (torch.arange(1, 13)[None, :, None, None] == target[:, None]).float()
    given = pixels if weighted else None
    loss = MaskedCrossEntropy(weight)
    hard, soft = loss(logits, target, given), loss(logits, target, given, shares)
    torch.testing.assert_close(soft, hard)
    gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (soft, hard)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(loss.mass(target, given, shares), loss.mass(target, given))


def test_weights_of_1_change_nothing_and_their_scale_does_not_matter() -> None:
    logits, target, pixels, shares = soft_batch(2)
    loss = MaskedCrossEntropy(WEIGHT)
    torch.testing.assert_close(loss(logits, target, torch.ones_like(pixels)), loss(logits, target))
    for given in (None, shares):
        torch.testing.assert_close(loss(logits, target, 7 * pixels, given), loss(logits, target, pixels, given))


@pytest.mark.parametrize('weight', [None, WEIGHT], ids=['plain', 'weighted'])
def test_mass_is_the_sum_of_all_weights(weight: Any) -> None:
    _, target, pixels, shares = soft_batch(3)
    loss, w = MaskedCrossEntropy(weight), np.ones(13) if weight is None else WEIGHT.double().numpy()
    counts, v, s = target.numpy() != 0, pixels.double().numpy(), shares.double().numpy()
    assert float(loss.mass(target, pixels)) == pytest.approx((w[target.numpy()] * v * counts).sum(), rel=1e-5)
    soft = (w[1:, None, None] * s * (v * counts)[:, None]).sum()
    assert float(loss.mass(target, pixels, shares)) == pytest.approx(soft, rel=1e-5)


def test_what_is_ignored_has_no_gradient() -> None:
    logits, target, pixels, shares = soft_batch(4)
    for given in ((pixels, None), (None, shares), (pixels, shares)):
        (gradient,) = torch.autograd.grad(MaskedCrossEntropy(WEIGHT)(logits, target, *given), logits)
        unlabelled = (target == 0)[:, None].expand_as(gradient)
        assert gradient[unlabelled].eq(0).all() and gradient[~unlabelled].ne(0).all()


@pytest.mark.parametrize('weight', [None, WEIGHT], ids=['plain', 'weighted'])
@pytest.mark.parametrize('empty', ['labels', 'weights', 'shares'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_a_batch_without_weight_costs_nothing(weight: Any, empty: str, dtype: torch.dtype) -> None:
    _, target, pixels, shares = soft_batch(5)
    logits = batch(5, dtype=dtype)[0]
    changed = {'labels': target, 'weights': pixels, 'shares': shares}[empty]
    changed[:] = 0
    loss = MaskedCrossEntropy(weight)(logits, target, pixels, shares)
    loss.backward()
    assert loss.item() == 0 and loss.dtype == torch.float32
    assert logits.grad is not None and logits.grad.eq(0).all()


REFERENCES = {
    'none': lambda n: np.ones(len(n)),
    'inverse': lambda n: n.sum() / n,
    'median': lambda n: np.median(n / n.sum()) / (n / n.sum()),
    'effective': lambda n: np.array([(1 / n.sum()) / (1 - (1 - 1 / n.sum()) ** k) for k in n]),
}


@pytest.mark.parametrize('strategy', REFERENCES)
def test_strategies(strategy: Any) -> None:
    before = COUNTS.copy()
    weights = class_weights(COUNTS, strategy)
    present = (COUNTS > 0) & (np.arange(13) > 0)
    raw = REFERENCES[strategy](COUNTS[present].astype(float))
    np.testing.assert_allclose(weights[present], raw / raw.mean(), rtol=1e-5)
    assert weights[0] == 0 and (weights[~present] == 0).all()
    assert weights.dtype == np.float32 and weights.shape == (13,)
    assert weights[present].mean() == pytest.approx(1)
    np.testing.assert_array_equal(COUNTS, before)


@pytest.mark.parametrize('strategy', REFERENCES)
@pytest.mark.parametrize('counts', [[5] + [0] * 12, [0] * 13, [0, 1] + [0] * 11, [0] * 12 + [10**11]])
def test_strategies_at_the_edge(strategy: Any, counts: list[int]) -> None:
    weights = class_weights(np.array(counts), strategy)
    assert np.isfinite(weights).all() and weights[0] == 0
    np.testing.assert_array_equal(weights > 0, np.array([0, *counts[1:]]) > 0)


@pytest.mark.parametrize('given', [[1.0] * 12, [9.0] + [1.0] * 12, torch.ones(12), tuple(range(1, 13))])
def test_a_list_is_taken_as_it_is(given: Any) -> None:
    weights: NDArray[np.float32] = class_weights(COUNTS, given)
    assert weights.tolist() == [0.0, *[float(v) for v in given][-12:]]
    assert len(weights) == LEGEND.num_classes


@pytest.mark.parametrize(
    'wrong', [[], [1.0] * 11, [1.0] * 14, [-1.0] + [1.0] * 11, [float('nan')] * 12, [0.0] * 12, None, [[1.0] * 12]]
)
def test_a_wrong_list_is_told(wrong: Any) -> None:
    with pytest.raises(LandcoverError, match='class_weights needs 12 weights >= 0, not all 0'):
        class_weights(COUNTS, wrong)


def test_an_unknown_strategy_is_told() -> None:
    with pytest.raises(LandcoverError, match="one of none, inverse, median, effective or a list, got 'balanced'"):
        class_weights(COUNTS, 'balanced')  # type: ignore[arg-type]
