"""Where a map is computed: pure numbers."""

import numpy as np
import pytest

from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelWindow
from landcover_plugin.sampling.lattice import Lattice, cut_strips, grown, reflected, share


def cases(count: int):
    rng = np.random.default_rng(5)
    for _ in range(count):
        size = int(rng.integers(1, 60))
        shape = int(rng.integers(1, 200)), int(rng.integers(1, 200))
        start = int(rng.integers(0, shape[0]))
        yield Lattice(size, int(rng.integers(0, size)), shape), start, int(rng.integers(start + 1, shape[0] + 1))


def test_windows_cover_the_grid_and_see_its_border_as_well_as_its_middle() -> None:
    for lattice, *_ in cases(500):
        starts, length = lattice.starts(0, lattice.shape[0], 0), lattice.shape[0]
        assert starts[0] == -(lattice.overlap // 2) and (np.diff(starts) == lattice.stride).all()
        pixels = np.arange(length)[:, None]
        rim = np.minimum(pixels - starts, starts + lattice.size - 1 - pixels).max(axis=1)  # of the best window
        assert (rim >= lattice.overlap // 2).all(), lattice
        assert starts[-1] < length, 'no window lies beyond the grid'


def test_the_windows_of_a_part_are_those_of_the_whole_that_meet_it() -> None:
    for lattice, start, stop in cases(2000):
        whole = lattice.starts(0, lattice.shape[0], 0)
        expected = whole[(whole < stop) & (whole + lattice.size > start)]
        assert np.array_equal(lattice.starts(start, stop, 0), expected), (lattice, start, stop)


def test_windows_come_row_by_row_and_are_counted() -> None:
    lattice, area = Lattice(16, 5, (70, 90)), PixelWindow(20, 30, 31, 40)
    windows = list(lattice.windows(area))
    assert windows == sorted(windows) and len(windows) == lattice.count(area) == len(set(windows))
    assert all(not window.intersection(area).is_empty for window in windows)


@pytest.mark.parametrize('overlap', [-1, 32, 300])
def test_an_impossible_overlap_is_told(overlap: int) -> None:
    with pytest.raises(LandcoverError, match=rf'\[0, 32\) px, the patch size, got {overlap}'):
        Lattice(32, overlap, (10, 10))


@pytest.mark.parametrize('length', [1, 2, 5, 9])
def test_reflection_is_that_of_numpy(length: int) -> None:
    expected = np.pad(np.arange(length), (11, 13), mode='symmetric')
    assert np.array_equal(reflected(-11, length + 13, length), expected)


def test_strips_make_up_the_area_and_lie_on_tiles() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        row, col, height, width = rng.integers(0, 50), rng.integers(0, 50), *rng.integers(1, 3000, 2)
        area = PixelWindow(int(row), int(col), int(height), int(width))
        strips = cut_strips(area, height=512, width=1024)
        seen = np.zeros((area.height, area.width), np.uint8)
        for strip in strips:
            seen[strip.slices_in(area)] += 1
            assert strip.height <= 512 and strip.width <= 1024
            assert (strip.row - area.row) % 512 == (strip.col - area.col) % 512 == 0
        assert (seen == 1).all()
    assert max(strip.width for strip in cut_strips(PixelWindow(0, 0, 30_000, 30_000))) <= 8192


def test_a_halo_ends_at_the_grid() -> None:
    assert grown(PixelWindow(3, 90, 10, 10), 5, (200, 100)) == PixelWindow(0, 85, 18, 15)


def test_shares_are_contiguous_and_about_equal() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        weights = rng.integers(1, 9, rng.integers(1, 60)).tolist()
        parts = int(rng.integers(1, 9))
        found = [weights[part] for part in share(weights, parts)]
        assert [w for part in found for w in part] == weights and len(found) == parts
        assert all(abs(sum(part) - sum(weights) / parts) <= 9 for part in found)
