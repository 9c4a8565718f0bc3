"""The pixel grid: windows, outward growth, degrees, tiles and tapers hold their invariants everywhere."""

import copy
import math
import pickle

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import AnchoredRes, PixelGrid, PixelWindow, check_bbox, taper

UTM = CRS.from_epsg(32631)
GRIDS = [
    PixelGrid(UTM, Affine(10, 0, 400000, 0, -10, 4600000), 200, 300),
    PixelGrid(UTM, Affine(10, 0, 400003, 0, -10, 4600007), 200, 300),
    PixelGrid(UTM, Affine(2.5, 0, 400000.3, 0, -5, 4600000.7), 123, 45),
    PixelGrid(CRS.from_epsg(4326), Affine(1 / 3600, 0, 1.1, 0, -1 / 1800, 42.3), 90, 70),
]


def random_windows(n: int, seed: int = 0) -> list[PixelWindow]:
    rng = np.random.default_rng(seed)
    return [PixelWindow(*map(int, (*rng.integers(-400, 400, 2), *rng.integers(1, 300, 2)))) for _ in range(n)]


@pytest.mark.parametrize('grid', GRIDS)
def test_a_window_survives_the_way_to_coordinates_and_back(grid: PixelGrid) -> None:
    for window in random_windows(200):
        assert grid.window(grid.bounds(window)) == window
        assert grid.nearest_window(*grid.slices(window)) == window
        assert grid.subgrid(window).bounds() == pytest.approx(grid.bounds(window), rel=1e-12)
        assert grid.aligned_with(grid.subgrid(window)) and grid.subgrid(window).aligned_with(grid)


@pytest.mark.parametrize('grid', GRIDS)
def test_a_bbox_grows_outward_by_less_than_a_pixel(grid: PixelGrid) -> None:
    rng = np.random.default_rng(1)
    (x0, y0), res = grid.origin, np.array(grid.res)
    for _ in range(300):
        low = np.array([x0, y0]) + rng.uniform(-50, 50, 2) * res
        high = low + rng.uniform(0.001, 40, 2) * res
        xmin, ymin, xmax, ymax = grid.bounds(grid.window((*low, *high)))
        grown = np.array([low[0] - xmin, low[1] - ymin, xmax - high[0], ymax - high[1]]) / np.tile(res, 2)
        assert (grown > -2e-4).all() and (grown < 1).all()


def test_float_noise_at_an_edge_adds_no_pixel() -> None:
    grid = GRIDS[0]
    exact = grid.bounds(PixelWindow(3, 5, 7, 11))
    for noise in (1e-5, -1e-5, 1e-9):
        assert grid.window([v + noise for v in exact]) == PixelWindow(3, 5, 7, 11)
    assert grid.window((400000, 4599999.5, 400000.4, 4600000)) == PixelWindow(0, 0, 1, 1)  # never empty


@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('pixels', [1, 2.5, 32, 33.5])
def test_queries_of_one_size_give_one_shape_wherever_they_lie(grid: PixelGrid, pixels: float) -> None:
    rng = np.random.default_rng(2)
    (xres, yres), shapes = grid.res, set()
    for x, y in rng.uniform(-500, 500, (500, 2)) * grid.res + np.array(grid.origin):
        window = grid.nearest_window(slice(x, x + pixels * xres), slice(y, y + pixels * yres))
        shapes.add((window.height, window.width))
        left, _, _, top = grid.bounds(window)
        assert abs(left - x) <= 0.501 * xres and abs(top - (y + pixels * yres)) <= 0.501 * yres
    assert shapes == {(math.floor(pixels + 0.5),) * 2}


def test_windows_meet_as_sets_of_pixels() -> None:
    def pixels(w: PixelWindow) -> set[tuple[int, int]]:
        return {(r, c) for r in range(w.row, w.row_stop) for c in range(w.col, w.col_stop)}

    rng = np.random.default_rng(3)
    for _ in range(200):
        a, b = (PixelWindow(*map(int, (*rng.integers(-6, 6, 2), *rng.integers(1, 9, 2)))) for _ in 'ab')
        both = a.intersection(b)
        assert pixels(both) == pixels(a) & pixels(b) and both.is_empty == (not pixels(both))
        canvas = np.zeros((b.height, b.width), bool)
        if not both.is_empty:
            canvas[both.slices_in(b)] = True
        assert canvas.sum() == len(pixels(both))
        assert PixelWindow(*a).scaled(3).ranges == ((a.row * 3, a.row_stop * 3), (a.col * 3, a.col_stop * 3))


def test_degrees_are_covered_as_by_a_fine_densification() -> None:
    grid, rng = GRIDS[0], np.random.default_rng(4)
    to_utm = Transformer.from_crs(4326, 32631, always_xy=True)
    t = np.linspace(0, 1, 3001)
    for _ in range(60):
        west, south = rng.uniform(0, 3), rng.uniform(40, 42.5)
        east, north = west + rng.uniform(0.001, 3.2), south + rng.uniform(0.001, 2)
        lon, lat = west + (east - west) * t, south + (north - south) * t
        lons = np.concatenate([lon, lon, np.full_like(t, west), np.full_like(t, east)])
        lats = np.concatenate([np.full_like(t, south), np.full_like(t, north), lat, lat])
        x, y = to_utm.transform(lons, lats)
        found = grid.bbox_from_wgs84((west, south, east, north))
        assert found == pytest.approx((x.min(), y.min(), x.max(), y.max()), abs=0.05)
        corners = to_utm.transform([west, west, east, east], [south, north, south, north])
        assert found[1] <= min(corners[1]) and found[3] >= max(corners[1]) - 1e-6


@pytest.mark.parametrize(
    ('bbox', 'sentence'),
    [
        ((10, 20, 5, 30), r'corners swapped; did you mean \[5\.0, 20\.0, 10\.0, 30\.0\]\?'),
        ((0, 9, 5, 3), r'corners swapped; did you mean \[0\.0, 3\.0, 5\.0, 9\.0\]\?'),
        ((0, 0, 0, 3), r'is empty: xmin < xmax and ymin < ymax must hold'),
        ((0, 3, 5, 3), r'is empty'),
        ((0, math.nan, 5, 3), r'four finite numbers \[xmin, ymin, xmax, ymax\], got .*nan'),
        ((0, 0, math.inf, 3), r'four finite numbers'),
        ((0, 0, 1), r'four finite numbers'),
        ((0, 0, 1, 1, 1), r'four finite numbers'),
        (('a', 0, 1, 1), r"four finite numbers .* got \('a', 0, 1, 1\)"),
        (None, r'four finite numbers .* got None'),
    ],
)
def test_a_bad_bbox_is_told(bbox: object, sentence: str) -> None:
    for use in (check_bbox, GRIDS[0].window, GRIDS[0].bbox_from_wgs84):
        with pytest.raises(LandcoverError, match=sentence):
            use(bbox)  # type: ignore[arg-type]


def test_degrees_out_of_range_are_told() -> None:
    with pytest.raises(LandcoverError, match=r'\[-180, 180\] x \[-90, 90\], got \[400000'):
        GRIDS[0].bbox_from_wgs84((400000, 4590000, 400100, 4600000))


@pytest.mark.parametrize(
    'transform', [Affine(10, 1, 0, 0, -10, 0), Affine(10, 0, 0, 0, 10, 0), Affine(-10, 0, 0, 0, -10, 0)]
)
def test_only_north_up_grids_exist(transform: Affine) -> None:
    with pytest.raises(LandcoverError, match=r'north up without rotation, got the transform .*gdalwarp'):
        PixelGrid(UTM, transform, 4, 5)


def test_alignment_knows_size_and_phase() -> None:
    def grid(res: float, x: float = 0, y: float = 0) -> PixelGrid:
        return PixelGrid(UTM, Affine(res, 0, x, 0, -res, y), 4, 5)

    assert grid(10).aligned_with(grid(10, 4600000, -70)) and grid(10, 3, 7).aligned_with(grid(10, 400003, 27))
    assert not grid(10).aligned_with(grid(10, 5)) and not grid(10).aligned_with(grid(10, 0, 0.01))
    assert not grid(10).aligned_with(grid(1))
    degree = 1 / 3600
    assert not grid(degree).aligned_with(grid(degree * 1.00002))  # 2 px over the whole of Catalonia


@pytest.mark.parametrize(('size', 'overlap'), [(1, 0), (2, 1), (7, 3), (8, 0), (8, 7), (64, 32), (64, 63)])
def test_the_taper_is_positive_symmetric_and_falls_outward(size: int, overlap: int) -> None:
    weights = taper(size, overlap)
    assert weights.shape == (size, size) and weights.dtype == np.float32
    assert (weights > 0).all() and (weights <= 1).all()
    for same in (weights.T, weights[::-1], weights[:, ::-1]):
        assert np.array_equal(weights, same)
    assert (np.diff(weights[: (size + 1) // 2], axis=0) >= 0).all()
    inside = slice(overlap, size - overlap)
    assert (weights[inside, inside] == 1).all()


def test_a_resolution_carries_its_origin_into_copies() -> None:
    res = AnchoredRes((10.0, 20.0), origin=(400003.0, 4600007.0))
    copies = [copy.copy(res), copy.deepcopy(res), *(pickle.loads(pickle.dumps(res, p)) for p in range(2, 6))]
    for copied in copies:
        assert type(copied) is AnchoredRes and copied == (10.0, 20.0) and copied.origin == res.origin
    assert res.lattice(UTM).bounds() == (400003.0, 4599987.0, 400013.0, 4600007.0)
    assert pickle.loads(pickle.dumps(GRIDS[1])) == GRIDS[1] and copy.deepcopy(GRIDS[1]) == GRIDS[1]
