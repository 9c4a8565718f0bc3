"""Smoothing, minimum mapping unit and entropy against slow references; pieces with a halo against the whole."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import sieve
from scipy import ndimage
from scipy.stats import entropy as scipy_entropy

from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid
from landcover_plugin.mapping.deciding import decide
from landcover_plugin.mapping.refinement import MajoritySmoothing, MinimumMappingUnit, pixels_of_area
from landcover_plugin.mapping.selection import COPY, ORDER, selection_program
from landcover_plugin.mapping.smoothing import BayesianSmoothing

Array = np.ndarray[Any, Any]


def blobs(height: int, width: int, *, smooth: float = 1.5, noise: float = 0.1, seed: int = 0) -> Array:
    """Codes 0-5 in patches of a few pixels, with lone pixels of other classes and holes of no data."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal((height, width)), smooth) for _ in range(5)]
    codes = (np.argmax(fields, axis=0) + 1).astype(np.uint8)
    lone = rng.random(codes.shape) < noise
    codes[lone] = rng.integers(0, 6, lone.sum())
    codes[height // 2 : height // 2 + 4, : width // 3] = 0
    return codes


def shares(height: int, width: int, seed: int = 0) -> tuple[Array, Array]:
    """Probabilities of 4 classes, some exactly 0 or 1, and what is covered."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(4, 0.3), size=(height, width)).transpose(2, 0, 1)
    p[:, :, : width // 4] = np.eye(4)[1][:, None, None]
    covered = rng.random((height, width)) > 0.01
    covered[-7:, : width // 3] = False
    return np.concatenate([p[:1] * 0, p]).astype(np.float32), covered


def pieces(height: int, width: int, step: tuple[int, int], halo: int) -> Iterator[tuple[Any, Any, Any]]:
    """Pieces that cover an array: where they lie, with their halo, and where they lie in that."""
    for row in range(0, height, step[0]):
        for col in range(0, width, step[1]):
            top, left = max(row - halo, 0), max(col - halo, 0)
            own = np.s_[row : row + step[0], col : col + step[1]]
            around = np.s_[top : row + step[0] + halo, left : col + step[1] + halo]
            yield own, around, np.s_[row - top : row - top + step[0], col - left : col - left + step[1]]


# Bayesian smoothing


def bayes(p: Array, covered: Array, window: int, smoothness: Array, fraction: float) -> Array:
    """Camara et al. 2024, pixel by pixel."""
    out, halo = np.zeros(p.shape), window // 2
    clipped = np.clip(p, np.float32(1e-4), np.float32(1 - 1e-4)).astype(np.float64)
    x = np.log(clipped / (1 - clipped))
    for row, col in zip(*np.nonzero(covered), strict=True):
        around = np.s_[max(row - halo, 0) : row + halo + 1, max(col - halo, 0) : col + halo + 1]
        for k in range(1, len(p)):
            neighbours = np.sort(x[k][around][covered[around]])[::-1]
            highest = neighbours[: math.ceil(fraction * len(neighbours))]
            m, s2 = highest.mean(), highest.var(ddof=1) if len(highest) > 1 else 0.0
            posterior = (
                s2 / (s2 + smoothness[k - 1]) * x[k, row, col] + smoothness[k - 1] / (s2 + smoothness[k - 1]) * m
            )
            out[k, row, col] = 1 / (1 + math.exp(-posterior))
        out[:, row, col] /= out[:, row, col].sum()
    return out


@pytest.mark.parametrize(('window', 'fraction'), [(3, 0.5), (5, 0.25), (7, 0.5), (7, 1.0), (9, 0.01), (11, 0.7)])
def test_bayesian_smoothing_is_its_formula(window: int, fraction: float) -> None:
    p, covered = shares(23, 150)  # wider than the tiles that are smoothed at a time
    smoothness = [20.0, 5, 80, 1]
    found = BayesianSmoothing(window, smoothness, fraction)(p, covered)
    np.testing.assert_allclose(found, bayes(p, covered, window, np.array(smoothness), fraction), atol=1e-5)
    assert found.dtype == np.float32 and not found[0].any() and not found[:, ~covered].any()
    np.testing.assert_allclose(found.sum(axis=0)[covered], 1, atol=1e-6)


def test_bayesian_smoothing_does_not_depend_on_the_cut() -> None:
    p, covered = shares(90, 170, seed=1)
    smooth = BayesianSmoothing(7)
    whole = smooth(p, covered)
    for own, around, inside in pieces(90, 170, (41, 57), smooth.halo):
        part = smooth(p[:, *around], covered[around])
        np.testing.assert_array_equal(part[:, *inside], whole[:, *own])


def test_bayesian_smoothing_of_an_array_smaller_than_the_window() -> None:
    p, covered = shares(4, 5)
    covered[:] = True
    found = BayesianSmoothing(9)(p, covered)
    np.testing.assert_allclose(found, bayes(p, covered, 9, np.full(4, 20.0), 0.5), atol=1e-5)
    assert not BayesianSmoothing(9)(p, covered & False).any()


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'window': 4}, r'odd number in \[3, 21\] px, got 4'),
        ({'window': 1}, 'got 1'),
        ({'neighbour_fraction': 0}, r'must be in \(0, 1\], got 0'),
        ({'smoothness': 0}, 'smoothness must be greater than 0, got 0'),
        ({'smoothness': [1, math.nan]}, 'smoothness must be greater than 0'),
        ({'smoothness': [1, 2]}, 'one for each of the 4 classes, got 2'),
    ],
)
def test_bad_settings_of_bayesian_smoothing_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        BayesianSmoothing(**settings)(*shares(5, 6))


def test_nan_is_refused_only_where_covered() -> None:
    p, covered = shares(12, 16)
    p[:, ~covered] = np.nan
    assert np.isfinite(BayesianSmoothing(3)(p, covered)).all()
    p[2, 1, 9], covered[1, 9] = np.nan, True
    with pytest.raises(LandcoverError, match='the network gave NaN'):
        BayesianSmoothing(3)(p, covered)


@pytest.mark.parametrize('window', [3, 5, 7, 9, 13, 21])
@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
def test_programs_select_the_largest(window: int, share: float) -> None:
    count = max(round(window**2 * share), 1)
    program, result, lines = selection_program(window, count)
    values = np.random.default_rng(0).permutation(window * 40).reshape(window, 40)
    wires = np.full((lines, 40), -1)
    wires[:window] = values
    for kind, a, b, shift in program:
        if kind == COPY:
            wires[a] = np.concatenate([wires[b, shift:], np.full(shift, -1)])
        else:
            wires[a], smaller = np.maximum(wires[a], wires[b]), np.minimum(wires[a], wires[b])
            wires[b] = smaller if kind == ORDER else wires[b]
    for col in (0, 40 - window):
        expected = np.sort(values[:, col : col + window].ravel())[-count:]
        np.testing.assert_array_equal(np.sort(wires[result, col]), expected)


# Majority


def majority(codes: Array, size: int) -> Array:
    out = np.zeros_like(codes)
    for row, col in zip(*np.nonzero(codes), strict=True):
        halo = size // 2
        around = codes[max(row - halo, 0) : row + halo + 1, max(col - halo, 0) : col + halo + 1]
        counts = np.bincount(around[around > 0], minlength=14)
        winners = np.flatnonzero(counts == counts.max())
        out[row, col] = codes[row, col] if codes[row, col] in winners else winners[0]
    return out


@pytest.mark.parametrize('size', [3, 5])
def test_majority_is_that_of_counting(size: int) -> None:
    codes = blobs(37, 53, noise=0.4)
    smooth = MajoritySmoothing(size)
    whole = smooth(codes)
    np.testing.assert_array_equal(whole, majority(codes, size))
    np.testing.assert_array_equal(whole == 0, codes == 0)
    for own, around, inside in pieces(37, 53, (16, 20), smooth.halo):
        np.testing.assert_array_equal(smooth(codes[around])[inside], whole[own])
    assert (whole != codes).mean() > 0.1


# Minimum mapping unit


def regions(codes: Array, corners: bool) -> tuple[Array, Array]:
    """Labels of connected regions, and the size of each; 0 is no data."""
    labels, number = np.zeros(codes.shape, dtype=int), 0
    for code in range(1, codes.max() + 1):
        own, count = ndimage.label(codes == code, np.ones((3, 3)) if corners else None)
        labels[own > 0] = own[own > 0] + number
        number += count
    return labels, np.bincount(labels.ravel(), minlength=number + 1)


def merged(codes: Array, pixels: int, corners: bool, rounds: int) -> Array:
    """The rule, with regions labelled anew in each round."""
    for _ in range(rounds):
        labels, sizes = regions(codes, corners)
        large, out = (sizes[labels] >= pixels) & (labels > 0), codes.copy()
        for region in np.flatnonzero((sizes < pixels) & (np.arange(len(sizes)) > 0)):
            inside = labels == region
            sides = np.zeros(14, dtype=int)
            for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
                beside, edge = np.roll(inside, step, axis), np.zeros_like(inside)
                edge[tuple(slice(None) if n != axis else (0 if step > 0 else -1) for n in (0, 1))] = True
                np.add.at(sides, codes[beside & ~edge & large], 1)
            if sides.any():
                out[inside] = sides.argmax()
        codes = out
    return codes


@pytest.mark.parametrize('connectivity', [4, 8])
@pytest.mark.parametrize(('pixels', 'rounds'), [(2, 1), (5, 1), (5, 2), (5, 4), (9, 3)])
def test_small_regions_join_their_longest_neighbour(connectivity: Any, pixels: int, rounds: int) -> None:
    codes = blobs(31, 44, smooth=1, noise=0.25, seed=pixels)
    found = MinimumMappingUnit(pixels, connectivity, rounds)(codes)
    np.testing.assert_array_equal(found, merged(codes, pixels, connectivity == 8, rounds))
    np.testing.assert_array_equal(found == 0, codes == 0)
    labels, sizes = regions(codes, connectivity == 8)
    kept = (sizes[labels] >= pixels) & (labels > 0)
    np.testing.assert_array_equal(found[kept], codes[kept])


@pytest.mark.parametrize(('pixels', 'connectivity', 'rounds'), [(5, 4, 1), (3, 8, 2), (4, 4, 3)])
def test_the_mapping_unit_does_not_depend_on_the_cut(pixels: int, connectivity: Any, rounds: int) -> None:
    unit = MinimumMappingUnit(pixels, connectivity, rounds)
    for seed in range(3):
        codes = blobs(120, 140, smooth=0.7, noise=0.4, seed=seed)
        whole = unit(codes)
        for own, around, inside in pieces(120, 140, (23 + seed, 31), unit.halo):
            np.testing.assert_array_equal(unit(codes[around])[inside], whole[own])
        assert (whole != codes).mean() > 0.1


@pytest.mark.parametrize('connectivity', [4, 8])
def test_lone_regions_are_sieved_as_gdal_does(connectivity: Any) -> None:
    codes = np.ones((40, 60), np.uint8)
    codes[:, 30:] = 7
    for row, col, height, width in ((3, 4, 1, 1), (8, 10, 2, 2), (20, 5, 2, 3), (30, 40, 4, 1), (12, 45, 3, 3)):
        codes[row : row + height, col : col + width] = 3
    found = MinimumMappingUnit(5, connectivity)(codes)
    np.testing.assert_array_equal(found, sieve(codes, 5, connectivity=connectivity))
    assert [(found == c).sum() for c in (3,)] == [6 + 9]


def test_islets_in_no_data_stay_and_ties_go_to_the_lower_code() -> None:
    codes = np.zeros((9, 12), np.uint8)
    codes[1, 1:4] = 5  # an islet
    codes[4:, :6], codes[4:, 6:] = 9, 2
    codes[6, 5:7] = 4  # two pixels, as many sides along 9 as along 2
    found = MinimumMappingUnit(4)(codes)
    assert (found[1, 1:4] == 5).all() and (found[6, 5:7] == 2).all()
    np.testing.assert_array_equal(MinimumMappingUnit(1)(codes), codes)
    assert MinimumMappingUnit(5)(codes[:0]).shape == (0, 12)


@pytest.mark.parametrize(
    ('make', 'sentence'),
    [
        (lambda: MajoritySmoothing(2), 'odd number in .3, 21. px, got 2'),
        (lambda: MinimumMappingUnit(0), r'in \[1, 100\] px, got 0'),
        (lambda: MinimumMappingUnit(101), 'got 101'),
        (lambda: MinimumMappingUnit(5, 6), 'connectivity must be 4 or 8, got 6'),  # type: ignore[arg-type]
        (lambda: MinimumMappingUnit(5, 4, 0), 'rounds must be at least 1, got 0'),
    ],
)
def test_bad_settings_are_refused(make: Any, sentence: str) -> None:
    with pytest.raises(LandcoverError, match=sentence):
        make()


def test_square_metres_become_whole_pixels() -> None:
    def grid(crs: int, xres: float, yres: float) -> PixelGrid:
        return PixelGrid(CRS.from_epsg(crs), Affine(xres, 0, 0, 0, -yres, 0), 50, 50)

    assert [pixels_of_area(a, grid(32631, 10, 10)) for a in (500, 500.1, 1, 100)] == [5, 6, 1, 1]
    assert pixels_of_area(0.3, grid(32631, 0.1, 0.3)) == 10  # float noise asks for no pixel more
    assert pixels_of_area(500, grid(2263, 10, 10)) == 54  # US survey feet: 9.29 m2 a pixel
    for area in (0, -5, math.nan, math.inf):
        with pytest.raises(LandcoverError, match='positive number of square metres'):
            pixels_of_area(area, grid(32631, 10, 10))
    with pytest.raises(LandcoverError, match='larger than the mosaics'):
        pixels_of_area(1e6, grid(32631, 10, 10))
    with pytest.raises(LandcoverError, match='needs a grid in metres, the mosaics are in EPSG:4326'):
        pixels_of_area(500, grid(4326, 1e-4, 1e-4))


# Entropy


def entropy_of(probabilities: Any, covered: Any) -> Any:
    return decide(probabilities, covered.astype(np.float32), ['entropy'])['entropy'][0]


def test_entropy_is_that_of_scipy() -> None:
    p, covered = shares(45, 30)
    found = entropy_of(p, covered)
    expected = 100 * scipy_entropy(p[1:].astype(np.float64), axis=0) / math.log(4)
    assert found.dtype == np.uint8 and (found[~covered] == 255).all()
    assert np.abs(found[covered] - expected[covered]).max() <= 0.51
    assert (entropy_of(np.full((5, 2, 3), 0.25, np.float32), np.ones((2, 3), bool)) == 100).all()
