"""Estimators against the worked examples of the papers, intervals against definitions, allocation, bootstrap."""

import numpy as np
import pytest
from numpy.typing import NDArray

from landcover_plugin.errors import LandcoverError
from landcover_plugin.evaluation.allocation import allocate
from landcover_plugin.evaluation.bootstrap import (
    block_bootstrap,
    iou,
    mean_iou,
    overall_accuracy,
    producers_accuracy,
    users_accuracy,
)
from landcover_plugin.evaluation.disagreement import Disagreement
from landcover_plugin.evaluation.estimation import StratifiedSample, assess
from landcover_plugin.evaluation.intervals import Parts, linear_interval, ratio_interval, wilson
from landcover_plugin.training.metrics import Scores

#: Olofsson et al. 2014, Remote Sensing of Environment 148, 42-57, table 8 and section 5: deforestation, forest gain,
#: stable forest, stable non-forest; map classes in rows.
OLOFSSON = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
OLOFSSON_HA = np.array([200_000.0, 150_000, 3_200_000, 6_450_000])


def letters(text: str) -> NDArray[np.int64]:
    return np.array([ord(c) - ord('A') for c in text])


def stehman() -> StratifiedSample:
    """The 40 pixels in 4 strata of Stehman 2014, International Journal of Remote Sensing 35(13), 4923-4939, table 2."""
    pixels = np.array([40_000.0, 30_000, 20_000, 10_000])
    return StratifiedSample(
        stratum=letters('A' * 10 + 'B' * 10 + 'C' * 10 + 'D' * 10),
        map_code=letters('A' * 7 + 'BBB' + 'A' + 'B' * 11 + 'C' * 6 + 'BB' + 'D' * 10),
        reference=letters('AAAAACBABCABBBBBAABBCCCCCDDBBADDDDDDDCCB'),
        pixels=pixels,
        areas=pixels / pixels.sum(),
    )


def olofsson(points: NDArray[np.int64] = OLOFSSON) -> StratifiedSample:
    mapped, reference = (np.repeat(i.ravel(), points.ravel()) for i in np.indices(points.shape))
    return StratifiedSample(mapped, mapped, reference, OLOFSSON_HA / 0.09 * 1e3, OLOFSSON_HA)


def test_worked_example_of_olofsson_2014() -> None:
    found = assess(olofsson(), range(4), method='normal')
    assert found.area.value[0] == pytest.approx(235_086, abs=0.5)  # p. 53
    assert 1.96 * found.area.se[0] == pytest.approx(68_418, abs=1)
    assert found.users.value.round(2).tolist() == [0.88, 0.73, 0.93, 0.96]
    assert (1.96 * found.users.se).round(2).tolist() == [0.07, 0.10, 0.04, 0.02]
    assert found.producers.value.round(2).tolist() == [0.75, 0.85, 0.93, 0.96]
    assert found.overall.value.round(2).tolist() == [0.95]
    assert (1.96 * found.overall.se).round(2).tolist() == [0.02]
    assert (found.area.low[0], found.area.high[0]) == pytest.approx((166_669, 303_503), abs=2)
    assert found.matrix.sum(1) == pytest.approx(OLOFSSON_HA)
    assert (found.points == OLOFSSON).all()


def test_producers_accuracy_has_the_standard_error_of_the_paper_s_equation() -> None:
    """Olofsson et al. 2014, equation 7, written out with loops."""
    n, weight = OLOFSSON.sum(1), OLOFSSON_HA
    users, producers = np.diag(OLOFSSON) / n, assess(olofsson(), range(4)).producers.value
    for j in range(4):
        whole = sum(weight[i] * OLOFSSON[i, j] / n[i] for i in range(4))
        own = weight[j] ** 2 * (1 - producers[j]) ** 2 * users[j] * (1 - users[j]) / (n[j] - 1)
        others = sum(
            weight[i] ** 2 * OLOFSSON[i, j] / n[i] * (1 - OLOFSSON[i, j] / n[i]) / (n[i] - 1)
            for i in range(4) if i != j
        )  # fmt: skip
        expected = np.sqrt(own + producers[j] ** 2 * others) / whole
        assert assess(olofsson(), range(4)).producers.se[j] == pytest.approx(expected, rel=1e-4)


def test_numerical_example_of_stehman_2014() -> None:
    found = assess(stehman(), range(4), method='normal')
    assert found.overall.value[0] == pytest.approx(0.63)
    assert found.overall.se[0] == pytest.approx(0.085, abs=5e-4)
    assert found.users.value[1] == pytest.approx(0.574, abs=5e-4)
    assert found.users.se[1] == pytest.approx(0.125, abs=5e-4)
    assert found.producers.value[1] == pytest.approx(0.794, abs=5e-4)
    assert found.producers.se[1] == pytest.approx(0.116, abs=6e-4)  # 0.11655 printed as 0.116
    assert found.area.value[[0, 2]] == pytest.approx([0.35, 0.20])
    assert found.area.se[[0, 2]] == pytest.approx([0.082, 0.064], abs=5e-4)
    assert found.matrix[1, 2] == pytest.approx(0.08)


@pytest.mark.parametrize('method', ['wilson', 'normal'])
def test_intervals_hold_their_estimates_and_stay_in_range(method: str) -> None:
    for sample in (stehman(), olofsson()):
        found = assess(sample, range(4), method=method)  # type: ignore[arg-type]
        for estimates in (found.area, found.users, found.producers, found.overall):
            assert (estimates.low <= estimates.value).all() and (estimates.value <= estimates.high).all()
            assert (estimates.low >= 0).all()
        assert (found.users.high <= 1).all() and (found.producers.high <= 1).all()
        assert found.area.value.sum() == pytest.approx(sample.areas.sum())


def test_a_class_without_a_miss_is_not_taken_for_perfect() -> None:
    points = np.array([[50, 0], [0, 50]])
    mapped, reference = (np.repeat(i.ravel(), points.ravel()) for i in np.indices((2, 2)))
    sample = StratifiedSample(mapped, mapped, reference, np.array([1e6, 9e6]), np.array([1e4, 9e4]))
    found = assess(sample, range(2))
    assert found.users.se.tolist() == [0, 0] and found.users.low == pytest.approx([0.929, 0.929], abs=1e-3)
    assert found.producers.low[0] < 0.65  # 7 % of the nine times larger stratum may be of the class
    assert found.area.high[0] > 15_000


def test_one_point_in_a_stratum_leaves_the_standard_error_open() -> None:
    sample = StratifiedSample(*np.array([[0, 0, 1], [0, 0, 1], [0, 1, 1]]), np.array([100.0, 50]), np.array([1.0, 0.5]))
    found = assess(sample, range(2))
    assert sample.single.tolist() == [1]
    assert np.isnan(found.overall.se[0]) and np.isfinite([found.overall.low[0], found.overall.high[0]]).all()


def test_a_census_leaves_no_doubt() -> None:
    stratum, reference = np.repeat([0, 1], [40, 60]), np.tile([0, 1], 50)
    sample = StratifiedSample(stratum, stratum, reference, np.array([40.0, 60]), np.array([4.0, 6]))
    found = assess(sample, range(2))
    assert found.area.se.tolist() == [0, 0]
    assert found.area.low == pytest.approx(found.area.high, abs=1e-3)


def test_pixels_of_unequal_area_are_weighted_by_it() -> None:
    """All pixels of a small population: the estimate is the area itself, which equal weights would miss."""
    area = np.array([1.0, 2, 3, 4])
    stratum, truth = np.zeros(4, dtype=np.int64), np.array([0, 1, 0, 1])
    sample = StratifiedSample(stratum, truth, truth, np.array([4.0]), np.array([10.0]), area)
    assert assess(sample, range(2)).area.value == pytest.approx([4, 6])


def test_samples_that_cannot_be_estimated_from() -> None:
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(LandcoverError, match='no interpreted point'):
        StratifiedSample(none, none, none, np.array([10.0]), np.array([1.0]))
    two = np.zeros(2, dtype=np.int64)
    with pytest.raises(LandcoverError, match='1 strata have no interpreted point'):
        StratifiedSample(two, two, two, np.array([10.0, 5]), np.array([1.0, 1]))
    with pytest.raises(LandcoverError, match='more points than pixels'):
        StratifiedSample(two, two, two, np.array([1.0]), np.array([1.0]))


def test_wilson_limits_solve_their_equation() -> None:
    """|p - limit| = z sqrt(limit (1 - limit) / n), away from the modified ends."""
    low, high = wilson(np.array([0.3]), np.array([80.0]), 0.95)
    for limit in (low[0], high[0]):
        assert abs(0.3 - limit) == pytest.approx(1.959964 * np.sqrt(limit * (1 - limit) / 80), rel=1e-5)


def test_mover_agrees_with_a_simulation_of_the_ratio() -> None:
    """In large samples all methods agree: limits of a ratio against the quantiles of simulated ratios."""
    rng = np.random.default_rng(0)
    n, weight = np.array([2000, 3000]), np.array([1.0, 5.0])
    p_hit, p_miss = np.array([0.7, 0.0]), np.array([0.1, 0.05])
    draws = [rng.multinomial(n[h], [p_hit[h], p_miss[h], 1 - p_hit[h] - p_miss[h]], size=20_000) for h in (0, 1)]
    hit, miss = (sum(weight[h] * draws[h][:, c] / n[h] for h in (0, 1)) for c in (0, 1))
    parts = [Parts(p[:, None], n.astype(float), weight) for p in (p_hit, p_miss)]
    low, high = ratio_interval(*parts, 0.95)
    assert (low[0], high[0]) == pytest.approx(np.quantile(hit / (hit + miss), [0.025, 0.975]), abs=3e-3)
    low, high = linear_interval(parts[1], 0.95)
    assert (low[0], high[0]) == pytest.approx(np.quantile(miss, [0.025, 0.975]), abs=4e-3)


@pytest.mark.parametrize('method', ['neyman', 'proportional', 'equal'])
def test_allocations_add_up_and_keep_their_bounds(method: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        pixels = rng.integers(0, 10 ** rng.integers(1, 7), size=12)
        pixels[0] += 1000
        minimum = int(rng.integers(0, 60))
        floor = np.minimum(minimum, pixels)
        n = int(rng.integers(max(floor.sum(), 1), pixels.sum() + 1))
        expected = rng.uniform(0.5, 0.99, 12)
        found = allocate(pixels, n, allocation=method, expected_accuracy=expected, minimum=minimum)  # type: ignore[arg-type]
        assert found.sum() == n and (found >= floor).all() and (found <= pixels).all()


def test_neyman_needs_fewer_points_for_the_same_standard_error() -> None:
    pixels, users = np.array([500_000, 500_000]), np.array([0.5, 0.99])
    neyman, even = (allocate(pixels, 400, allocation=a, expected_accuracy=users) for a in ('neyman', 'proportional'))
    variances = [sum(u * (1 - u) / n / 4 for u, n in zip(users, points, strict=True)) for points in (neyman, even)]
    assert neyman[0] > 300 and variances[0] < 0.75 * variances[1]


def test_allocations_that_cannot_be() -> None:
    pixels = np.array([1000, 1000, 5])
    with pytest.raises(LandcoverError, match='60 points do not suffice for 50 in each of 3 strata, which takes 105'):
        allocate(pixels, 60)
    with pytest.raises(LandcoverError, match='has only 2005 pixels'):
        allocate(pixels, 3000)
    with pytest.raises(LandcoverError, match='share between 0 and 1'):
        allocate(pixels, 300, expected_accuracy=np.array([0.5, 1, 0.5]))


def difference_by_definition(m: NDArray[np.int64]) -> dict[str, float]:
    """Pontius and Millones 2011 (equations 2-5) and Pontius and Santacruz 2014, by loops."""
    k = len(m)
    quantity = sum(abs(m[:, g].sum() - m[g].sum()) for g in range(k)) / 2
    allocation = sum(2 * min(m[:, g].sum() - m[g, g], m[g].sum() - m[g, g]) for g in range(k)) / 2
    exchange = sum(2 * min(m[i, j], m[j, i]) for i in range(k) for j in range(i))
    return {
        'agreement': np.trace(m),
        'quantity': quantity,
        'exchange': exchange,
        'shift': allocation - exchange,
        'allocation': allocation,
        'disagreement': quantity + allocation,
    }


def test_components_of_difference_follow_their_definitions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        matrix = rng.integers(0, 100, size=(5, 5)) * rng.integers(0, 2, size=(5, 5))
        found = Disagreement.from_matrix(matrix)
        assert found.overall() == pytest.approx(difference_by_definition(matrix))
        assert found.overall()['disagreement'] == pytest.approx(matrix.sum() - np.trace(matrix))
        assert found.quantity + found.exchange + found.shift == pytest.approx(found.gain + found.loss)


def test_a_ring_of_three_classes_is_shift_and_a_swap_is_exchange() -> None:
    ring = Disagreement.from_matrix(np.array([[5, 1, 0], [0, 5, 1], [1, 0, 5]])).overall()
    assert (ring['quantity'], ring['exchange'], ring['shift']) == (0, 0, 3)
    swap = Disagreement.from_matrix(np.array([[5, 1, 0], [1, 5, 0], [0, 0, 5]])).overall()
    assert (swap['quantity'], swap['exchange'], swap['shift']) == (0, 2, 0)
    growth = Disagreement.from_matrix(np.array([[5, 2, 0], [0, 5, 0], [0, 0, 5]])).overall()
    assert (growth['quantity'], growth['exchange'], growth['shift']) == (2, 0, 0)


def test_bootstrap_scores_are_those_of_the_report() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 50, size=(30, 5, 5))
    blocks[:, 4] = 0  # a class without reference
    scores = Scores.from_confusion(blocks.sum(0))
    for statistic, expected in (
        (iou, scores.iou), (users_accuracy, scores.users_accuracy), (producers_accuracy, scores.producers_accuracy),
        (overall_accuracy, scores.overall_accuracy), (mean_iou, scores.mean_iou),
    ):  # fmt: skip
        found = block_bootstrap(blocks, statistic, n=200)
        np.testing.assert_allclose(found.value, expected)
        known = ~np.isnan(found.value)
        assert (found.low[known] <= found.value[known]).all() and (found.value[known] <= found.high[known]).all()
        assert (np.isnan(found.low) == ~known).all()


def test_bootstrap_is_seeded_and_widens_with_the_spread_between_blocks() -> None:
    same = np.tile(np.array([[0, 0, 0], [0, 8, 2], [0, 1, 9]]), (20, 1, 1))
    found = block_bootstrap(same, overall_accuracy)
    assert found.value == 0.85 and [found.low, found.high] == pytest.approx([0.85, 0.85], abs=1e-9)
    mixed = same.copy()
    mixed[::2] = [[0, 0, 0], [0, 2, 8], [0, 9, 1]]
    mixed[:, 1, 1] += np.arange(20)
    one, two, other = (block_bootstrap(mixed, overall_accuracy, seed=s) for s in (1, 1, 2))
    assert one == two and one != other and one.high - one.low > 0.2
    with pytest.raises(LandcoverError, match='at least 2 blocks'):
        block_bootstrap(same[:1], overall_accuracy)
