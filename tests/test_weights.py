"""Class weights against the formulas of their papers."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from landcover_plugin.errors import LandcoverError
from landcover_plugin.legend import LEGEND
from landcover_plugin.sampling.weights import WEIGHTINGS, class_weights

COUNTS = np.array([900, 100, 7, 5000, 0, 42, 13, 1, 0, 260, 3, 77, 800])
PRESENT = (COUNTS > 0) & (np.arange(13) > 0)

#: Shares of the land cover of a country, from forest to green areas.
COUNTRY = np.array([0, 16, 9, 38, 25, 3, 1.5, 1.6, 0.2, 1, 0.2, 1.5, 3])


def cells_of(seed: int) -> NDArray[np.uint32]:
    """Counts of 40 cells; most cells lack most classes, class 4 lies nowhere."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(1, 1000, (40, 13)) * (draw.random((40, 13)) < 0.3)
    counts[:, 4] = 0
    return counts.astype(np.uint32)


def median_frequency(cells: Any) -> Any:
    """By loops over classes and cells."""
    frequency = []
    for c in [c for c in range(1, 13) if cells[:, c].sum()]:
        holds = [cell for cell in cells.astype(float) if cell[c] > 0]
        frequency.append(sum(cell[c] for cell in holds) / sum(cell[1:].sum() for cell in holds))
    return np.median(frequency) / np.array(frequency)


def effective(n: Any) -> Any:
    return np.array([(1 - 0.9999) / (1 - 0.9999 ** (k / 256)) for k in n])


REFERENCES = {
    'none': lambda n: np.ones(len(n)),
    'inverse_sqrt': lambda n: (n.sum() / n) ** 0.5,
    'effective': effective,
    'median': lambda n: np.median(n / n.sum()) / (n / n.sum()),
    'inverse': lambda n: n.sum() / n,
}


def test_every_strategy_has_a_reference() -> None:
    assert set(REFERENCES) == set(WEIGHTINGS)


@pytest.mark.parametrize('strategy', WEIGHTINGS)
def test_strategies(strategy: Any) -> None:
    before = COUNTS.copy()
    weights = class_weights(COUNTS, strategy)
    raw = REFERENCES[strategy](COUNTS[PRESENT].astype(float))
    np.testing.assert_allclose(weights[PRESENT], raw / raw.mean(), rtol=1e-5)
    assert weights[0] == 0 and (weights[~PRESENT] == 0).all()
    assert weights.dtype == np.float32 and weights.shape == (13,)
    assert weights[PRESENT].mean() == pytest.approx(1)
    np.testing.assert_array_equal(COUNTS, before)


@pytest.mark.parametrize('strategy', WEIGHTINGS)
@pytest.mark.parametrize('counts', [[5] + [0] * 12, [0] * 13, [0, 1] + [0] * 11, [0] * 12 + [10**11]])
def test_strategies_at_the_edge(strategy: Any, counts: list[int]) -> None:
    for given in (np.array(counts), np.array([counts, [0] * 13, counts])):
        weights = class_weights(given, strategy)
        assert np.isfinite(weights).all() and weights[0] == 0
        np.testing.assert_array_equal(weights > 0, np.array([0, *counts[1:]]) > 0)


@pytest.mark.parametrize('strategy', WEIGHTINGS)
def test_counts_by_cell(strategy: Any) -> None:
    for seed in range(3):
        cells = cells_of(seed)
        before, total = cells.copy(), cells.sum(0)
        weights = class_weights(cells, strategy)
        present = (total > 0) & (np.arange(13) > 0)
        raw = median_frequency(cells) if strategy == 'median' else REFERENCES[strategy](total[present].astype(float))
        np.testing.assert_allclose(weights[present], raw / raw.mean(), rtol=1e-5)
        assert (weights[~present] == 0).all()
        np.testing.assert_array_equal(cells, before)


def test_a_class_in_few_places_weighs_less_than_a_thin_one() -> None:
    """A mine fills few cells; a road crosses all. Both cover the same ground."""
    cells = np.zeros((100, 13), dtype=np.int64)
    cells[:, 3], cells[:, 11] = 990, 10
    cells[0, [3, 11, 10]] = 0, 0, 1000
    by_cell = class_weights(cells, 'median')
    assert by_cell[10] == by_cell[[3, 10, 11]].min() and by_cell[11] == by_cell.max()
    pooled = class_weights(cells, 'inverse')
    assert pooled[10] == pytest.approx(pooled[11], rel=0.02)


def test_the_strategies_differ_on_a_country_and_get_stronger() -> None:
    counts = (COUNTRY * 3.2e6).astype(np.int64)
    spread = {s: float(np.ptp(np.log(class_weights(counts, s)[1:]))) for s in WEIGHTINGS}
    assert spread['none'] == 0 and spread['median'] == pytest.approx(spread['inverse'])
    assert 2 * spread['inverse_sqrt'] == pytest.approx(spread['inverse'], rel=1e-5)
    assert 0.5 < spread['effective'] < spread['inverse_sqrt'] < spread['inverse']


def test_the_effective_number_is_inverse_on_little_ground_and_none_on_much() -> None:
    few, many = COUNTRY * 100, COUNTRY * 1e10
    np.testing.assert_allclose(class_weights(few, 'effective'), class_weights(few, 'inverse'), rtol=0.02)
    np.testing.assert_allclose(class_weights(many, 'effective')[1:], 1, rtol=1e-3)


@pytest.mark.parametrize('most', [1, 1.5, 3, 12, 1e9])
@pytest.mark.parametrize('strategy', WEIGHTINGS)
def test_a_largest_weight_keeps_mean_and_proportions(strategy: Any, most: float) -> None:
    free, capped = class_weights(COUNTS, strategy)[PRESENT], class_weights(COUNTS, strategy, max_weight=most)[PRESENT]
    assert capped.max() <= most * (1 + 1e-6) and capped.mean() == pytest.approx(1)
    below = capped < most * (1 - 1e-6)
    ratios = capped[below] / free[below]
    np.testing.assert_allclose(ratios, ratios[:1].repeat(len(ratios)), rtol=1e-5)
    assert (np.diff(capped[free.argsort()]) >= -1e-6).all()
    if free.max() <= most:
        np.testing.assert_allclose(capped, free, rtol=1e-6)


@pytest.mark.parametrize('most', [0.5, 0, -1, float('nan')])
def test_a_largest_weight_below_the_mean_is_told(most: float) -> None:
    with pytest.raises(LandcoverError, match='max_weight must be at least 1, the mean of the weights, got'):
        class_weights(COUNTS, 'inverse', max_weight=most)


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
    sentence = "one of none, inverse_sqrt, effective, median, inverse or a list, got 'balanced'"
    with pytest.raises(LandcoverError, match=sentence):
        class_weights(COUNTS, 'balanced')  # type: ignore[arg-type]
