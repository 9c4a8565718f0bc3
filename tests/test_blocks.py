"""Splits keep a patch apart, share each class fairly, and survive the way through a vector file."""

import itertools
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from test_sampling import inventory_of, patchwork

from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelGrid, PixelWindow
from landcover_plugin.legend import LEGEND
from landcover_plugin.sampling.blocks import (
    SPLITS,
    Split,
    assign,
    block_split,
    default_block_size,
    fold_split,
)
from landcover_plugin.sampling.cells import covered_by, near, rectangles, square_sums
from landcover_plugin.sampling.inventory import Inventory, cell_size
from landcover_plugin.sampling.polygons import polygon_split, write_split

RATIOS = (0.8, 0.1, 0.1)


def pixels_of(split: Split) -> NDArray[np.uint8]:
    """The number of the split of each pixel."""
    grown = np.repeat(np.repeat(split.cells, split.cell, 0), split.cell, 1)
    return grown[: split.grid.height, : split.grid.width]


def distance(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> int:
    """Least chessboard distance between marked places, by comparing all pairs of those at a rim."""

    def rim(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        inner = np.pad(mask, 1)
        inside = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:] & mask
        return np.argwhere(mask & ~inside)

    here, there = rim(a), rim(b)
    return min(int(np.abs(here - place).max(1).min()) for place in there)


def held_by(split: Split, inventory: Inventory) -> NDArray[np.int64]:
    """Pixels of each class in the whole blocks of each split, shape ``(3, classes)``."""
    held = np.zeros((3, 13), int)
    for number in SPLITS.values():
        blocks = np.unique(split.blocks[split.cells == number])
        held[number - 1] = inventory.class_counts(np.isin(split.blocks, blocks[blocks >= 0]))
    return held[:, 1:]


# Cells


@pytest.mark.parametrize('shape', [(1, 1), (2, 5), (7, 3), (9, 11)])
@pytest.mark.parametrize('size', [1, 2, 3, 4])
def test_arithmetic_of_cells_equals_loops(shape: tuple[int, int], size: int) -> None:
    rng = np.random.default_rng(size)
    values, mask = rng.integers(0, 2**32, shape, dtype=np.uint32), rng.random(shape) < 0.25
    places = max(shape[0] - size + 1, 0), max(shape[1] - size + 1, 0)
    sums = [values[r : r + size, c : c + size].astype(int).sum() for r, c in np.ndindex(places)]
    np.testing.assert_array_equal(square_sums(values, size), np.reshape(np.array(sums, int), places))
    marked = np.argwhere(mask)
    for radius in (0, size, 10):
        close = [len(marked) > 0 and np.abs(marked - at).max(1).min() <= radius for at in np.ndindex(shape)]
        np.testing.assert_array_equal(near(mask, radius), np.reshape(close, shape))
    anchors = rng.random(places) < 0.25
    covered = np.zeros(shape, bool)
    for r, c in np.argwhere(anchors):
        covered[r : r + size, c : c + size] = True
    np.testing.assert_array_equal(covered_by(anchors, size, shape), covered)


@pytest.mark.parametrize('share', [0, 0.1, 0.5, 0.9, 1])
def test_rectangles_cover_a_region_exactly_once(share: float) -> None:
    for seed in range(10):
        region = np.random.default_rng(seed).random((13, 17)) < share
        count = np.zeros(region.shape, int)
        for w in rectangles(region):
            assert not w.is_empty
            count[w.row : w.row_stop, w.col : w.col_stop] += 1
        np.testing.assert_array_equal(count, region)
    assert len(list(rectangles(np.ones((5, 7), bool)))) == 1


# Blocks

GROUND = [
    ((1000, 777), 48, 96),
    ((203, 310), 16, 32),
    ((161, 157), 20, 53),
    ((300, 110), 36, 72),
    ((512, 512), 64, 128),
]


@pytest.mark.parametrize(('shape', 'patch', 'block'), GROUND)
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_splits_keep_a_patch_apart(shape: tuple[int, int], patch: int, block: int, seed: int) -> None:
    codes = patchwork(*shape, seed=seed)
    codes[: shape[0] // 3, : shape[1] // 4] = 0  # unlabelled ground
    inventory = inventory_of(codes, cell_size([patch]))
    splits = [block_split(inventory, patch_size=patch, block_size=block, seed=seed)]
    splits += [fold_split(inventory, folds=3, fold=seed, patch_size=patch, block_size=block)]
    for split in splits:
        pixels = pixels_of(split)
        assert set(np.unique(pixels)) == {0, 1, 2, 3}
        apart = [distance(pixels == a, pixels == b) for a, b in itertools.combinations((1, 2, 3), 2)]
        assert min(apart) > patch and split.gap() >= patch  # neighbouring pixels have a distance of 1 and a gap of 0
        assert split.gap() == min(apart) - 1
        assert min(apart) <= patch + 2 * split.cell  # and no more ground than needed is given up


@pytest.mark.parametrize('seed', range(20))
def test_the_gap_is_the_least_distance_in_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.choice([0, 1, 2, 3], p=[0.94, 0.02, 0.02, 0.02], size=(14, 9)).astype(np.uint8)
    grid = inventory_of(np.ones((14 * 4, 9 * 4)), 4).grid
    present = [n for n in (1, 2, 3) if (cells == n).any()]
    pairs = itertools.combinations(present, 2)
    expected = min(((distance(cells == a, cells == b) - 1) * 4 for a, b in pairs), default=-1)
    assert Split(grid, 4, cells, np.zeros(cells.shape, np.int32)).gap() == expected


def test_the_gap_between_opposite_corners() -> None:
    cells = np.zeros((3, 700), np.uint8)
    cells[0, 0], cells[2, 699] = 1, 3
    grid = inventory_of(np.ones((3, 700)), 1).grid
    assert Split(grid, 1, cells, np.zeros(cells.shape, np.int32)).gap() == 698


@pytest.mark.parametrize(('shape', 'patch', 'block'), GROUND)
def test_windows_cover_a_split_once_on_the_grid_of_cells(shape: tuple[int, int], patch: int, block: int) -> None:
    inventory = inventory_of(patchwork(*shape), cell_size([patch]))
    split = block_split(inventory, patch_size=patch, block_size=block)
    pixels, count = pixels_of(split), np.zeros(shape, int)
    for name, number in SPLITS.items():
        for w in split.windows(name):
            assert w.row % split.cell == w.col % split.cell == 0
            assert w.intersection(split.grid.full) == w and not w.is_empty
            assert (pixels[w.row : w.row_stop, w.col : w.col_stop] == number).all()
            count[w.row : w.row_stop, w.col : w.col_stop] += 1
    np.testing.assert_array_equal(count, pixels > 0)


@pytest.mark.parametrize('seed', range(6))
def test_each_split_gets_its_share_and_training_every_class(seed: int) -> None:
    inventory = inventory_of(patchwork(1000, 777, seed=seed), cell_size([48]))
    split = block_split(inventory, patch_size=48, seed=seed)
    held = held_by(split, inventory)
    np.testing.assert_allclose(held.sum(1) / held.sum(), RATIOS, atol=0.02)
    blocks = [np.unique(split.blocks[inventory.counts[..., c] > 0]) for c in LEGEND.codes]
    widespread = [c for c, ids in zip(LEGEND.codes, blocks, strict=True) if len(ids) >= 3]
    trained = inventory.class_counts(split.region('train'))
    assert len(widespread) >= 10 and all(trained[c] for c in widespread)


def rare_classes(seed: int) -> NDArray[np.int64]:
    """Pixels by block: two common classes, and ten that occur in one to six blocks each."""
    rng = np.random.default_rng(seed)
    blocks = int(rng.choice([12, 20, 30, 60]))
    counts = np.zeros((blocks, 12), np.int64)
    counts[:, 0], counts[:, 1] = rng.integers(1000, 5000, blocks), rng.integers(1, 3000, blocks)
    for c in range(2, 12):
        some = rng.choice(blocks, int(rng.integers(1, 7)), replace=False)
        counts[some, c] = np.exp(rng.normal(3, 2, len(some))).astype(int) + 1
    return counts


def test_a_class_in_three_blocks_is_never_left_out_of_training() -> None:
    for seed in range(30):
        counts = rare_classes(seed)
        parts = assign(counts, RATIOS, seed)
        widespread = (counts > 0).sum(0) >= 3
        assert counts[parts == 0].sum(0)[widespread].all()


def test_a_class_in_three_blocks_is_in_training_of_every_fold() -> None:
    rng = np.random.default_rng(0)
    for folds in (3, 5):
        for seed in range(5):
            counts = np.zeros((40, 5), np.int64)
            counts[:, 0] = rng.integers(1000, 5000, 40)
            for c in range(1, 5):  # nearly all of it in one block: shares alone do not care where the rest goes
                counts[rng.choice(40, 3, replace=False), c] = 5000, 3, 1
            parts = assign(counts, [1 / folds] * folds, seed)
            for fold in range(folds):
                trains = (parts != fold) & (parts != (fold + 1) % folds)
                assert counts[trains].sum(0).all()


def test_stratified_shares_lie_nearer_to_the_ratios_than_random_ones() -> None:
    drawn, shuffled = [], []
    for seed in range(8):
        inventory = inventory_of(patchwork(800, 600, seed=seed), 6)
        split = block_split(inventory, patch_size=48, block_size=96, seed=seed)
        ids = np.unique(split.blocks[split.cells > 0])
        counts = np.array([inventory.class_counts(split.blocks == i)[1:] for i in ids])
        parts = np.array([split.cells[(split.blocks == i) & (split.cells > 0)][0] for i in ids])
        for assigned, into in ((parts, drawn), (np.random.default_rng(seed).permutation(parts), shuffled)):
            held = np.stack([counts[assigned == n].sum(0) for n in SPLITS.values()])[:, counts.sum(0) > 0]
            into.append(np.abs(held / held.sum(0) - np.array(RATIOS)[:, None]).mean())
    assert np.mean(drawn) < 0.5 * np.mean(shuffled)


def test_the_seed_decides() -> None:
    inventory = inventory_of(patchwork(400, 300), 4)
    for draw in (
        lambda seed: block_split(inventory, patch_size=32, seed=seed),
        lambda seed: fold_split(inventory, folds=4, fold=1, patch_size=32, seed=seed),
    ):
        np.testing.assert_array_equal(draw(3).cells, draw(3).cells)
        assert (draw(3).cells != draw(4).cells).any()


@pytest.mark.parametrize(
    'ratios', [(0.98, 0.01, 0.01), (0.01, 0.98, 0.01), (0.34, 0.33, 0.33), (0.6, 0.4, 0), (1, 0, 0)]
)
@pytest.mark.parametrize('shape', [(96, 100), (64, 161), (300, 200)])
def test_a_split_has_ground_exactly_if_it_has_a_share(ratios: Sequence[float], shape: tuple[int, int]) -> None:
    inventory = inventory_of(patchwork(*shape), 2)
    split = block_split(inventory, patch_size=16, block_size=32, ratios=ratios, seed=1)
    assert [split.region(name).any() for name in SPLITS] == [r > 0 for r in ratios]
    assert [bool(split.windows(name)) for name in SPLITS] == [r > 0 for r in ratios]


@pytest.mark.parametrize('folds', [3, 5])
def test_over_all_folds_each_labelled_block_is_tested_once(folds: int) -> None:
    codes = patchwork(403, 310)
    codes[:130, :90] = 0
    inventory = inventory_of(codes, 4)
    splits = [fold_split(inventory, folds=folds, fold=f, patch_size=32, block_size=64, seed=7) for f in range(folds)]
    blocks = splits[0].blocks
    for number in ('test', 'val'):
        tested = [np.unique(blocks[s.region(number)]) for s in splits]
        found = np.sort(np.concatenate(tested))
        np.testing.assert_array_equal(found, np.unique(blocks[blocks >= 0]))
        assert max(map(len, tested)) - min(map(len, tested)) <= 1
    for s, following in zip(splits, splits[1:] + splits[:1], strict=True):
        np.testing.assert_array_equal(s.blocks, blocks)
        assert set(blocks[s.region('val')]) == set(blocks[following.region('test')])


def test_unlabelled_blocks_belong_to_no_split() -> None:
    codes = patchwork(320, 256)
    codes[64:192, 64:128] = 0
    for split in (
        block_split(inventory_of(codes, 4), patch_size=32, block_size=64),
        fold_split(inventory_of(codes, 4), folds=3, fold=2, patch_size=32, block_size=64),
    ):
        assert not pixels_of(split)[64:192, 64:128].any()
        assert (split.blocks[16:48, 16:32] == -1).all()


def test_the_default_block_is_as_large_as_leaves_many_of_them() -> None:
    assert default_block_size(inventory_of(np.ones((1024, 1024)), 16), 16) == 128
    assert default_block_size(inventory_of(np.ones((300, 300)), 4), 32) == 64


CALLS: list[tuple[dict[str, Any], str]] = [
    ({'ratios': (0.8, 0.1)}, r'ratios must be three shares >= 0 that add up to 1, got \[0.8, 0.1\]'),
    ({'ratios': (0.8, 0.3, -0.1)}, r'three shares >= 0'),
    ({'ratios': (0.8, 0.1, 0.2)}, r'add up to 1'),
    ({'ratios': (0.8, 0.2, float('nan'))}, r'add up to 1'),
    ({'block_size': 63}, r'at least two patches, 64 px.*got 63 px: choose larger blocks'),
    ({'block_size': 0}, r'at least two patches, 64 px.*got 0 px'),
    ({'patch_size': 256}, r'holds 1 block of 512 px.*but 3 are needed: choose a smaller patch_size than 256'),
    ({'seed': -1}, r'seed of the split must be at least 0, got -1'),
    ({'folds': 2, 'fold': 0}, r'folds must be >= 3.*got folds 2'),
    ({'folds': 5, 'fold': 5}, r'fold in \[0, folds\), got folds 5 and fold 5'),
    ({'folds': 5, 'fold': -1}, r'got folds 5 and fold -1'),
    ({'folds': 40, 'fold': 1, 'block_size': 64}, r'blocks of 64 px .*but 40 are needed'),
]


@pytest.mark.parametrize(('settings', 'sentence'), CALLS)
def test_what_cannot_be_split_is_refused(settings: dict[str, Any], sentence: str) -> None:
    inventory = inventory_of(patchwork(300, 310), 4)
    with pytest.raises(LandcoverError, match=sentence):
        (fold_split if 'folds' in settings else block_split)(inventory, **({'patch_size': 32} | settings))


def test_labels_in_the_buffer_alone_are_refused() -> None:
    codes = np.zeros((64, 192))
    codes[:, 60:68] = codes[:, 126:130] = 3
    with pytest.raises(LandcoverError, match=r'holds 0 blocks of 64 px that keep a label beside the buffer, but 3'):
        block_split(inventory_of(codes, 4), patch_size=32, block_size=64)


# Vector files


def polygons(path: Path, rows: Sequence[tuple[str, Any]], crs: Any = 32631, **columns: Any) -> Path:
    frame = gpd.GeoDataFrame({'split': [r[0] for r in rows]} | columns, geometry=[r[1] for r in rows], crs=crs)
    frame.to_file(path)
    return path


def box(inventory: Inventory, row: float, col: float, height: float, width: float) -> shapely.Polygon:
    """A rectangle in pixels as a polygon."""
    t = inventory.grid.transform
    return shapely.box(*(t @ (col, row + height)), *(t @ (col + width, row)))


@pytest.mark.parametrize('res', [(10, 10), (2.5, 7.3)])
@pytest.mark.parametrize(('shape', 'patch', 'block'), GROUND)
def test_a_written_split_is_read_back_to_the_cell(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shape: tuple[int, int], patch: int, block: int, res: Any
) -> None:
    codes = patchwork(*shape, seed=4)
    codes[: shape[0] // 4] = 0
    inventory = inventory_of(codes, cell_size([patch]), res=res)
    split = block_split(inventory, patch_size=patch, block_size=block, seed=4)
    path = tmp_path / 'out' / 'blocks.gpkg'
    write_split(path, split, inventory)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(polygon_split(inventory, path, patch_size=patch).cells, split.cells)
    assert not caplog.records and [f.name for f in path.parent.iterdir()] == ['blocks.gpkg']
    frame = gpd.read_file(path)
    assert frame.crs == CRS.from_epsg(32631) and list(pyogrio.list_layers(path)[:, 0]) == ['blocks']
    assert frame.columns.tolist() == ['split', 'block', *LEGEND.names[1:], 'geometry']
    assert frame.geometry.is_valid.all() and frame['block'].is_unique
    for name in SPLITS:
        written = frame.loc[frame['split'] == name, LEGEND.names[1:]].sum().to_numpy()
        np.testing.assert_array_equal(written, inventory.class_counts(split.region(name))[1:])
    xmin, ymin, xmax, ymax = inventory.grid.bounds()
    left, bottom, right, top = frame.total_bounds
    assert xmin <= left and ymin <= bottom and right <= xmax and top <= ymax


@pytest.mark.parametrize('seed', range(5))
def test_cells_that_touch_diagonally_survive_the_file(tmp_path: Path, seed: int) -> None:
    inventory = inventory_of(patchwork(61, 83), 8)
    cells = np.random.default_rng(seed).choice([0, 1, 2, 3], size=inventory.shape).astype(np.uint8)
    for blocks in (cells.astype(np.int32) - 1, np.zeros_like(cells, dtype=np.int32)):
        written = Split(inventory.grid, 8, cells, blocks)
        if blocks.any():
            write_split(tmp_path / 'a.gpkg', written, inventory)
            np.testing.assert_array_equal(polygon_split(inventory, tmp_path / 'a.gpkg', patch_size=1).cells, cells)


def test_a_split_from_polygons_is_written_with_its_splits(tmp_path: Path) -> None:
    inventory = inventory_of(patchwork(80, 120), 8)
    rows = [
        ('train', box(inventory, 0, 0, 40, 40)),
        ('val', box(inventory, 0, 64, 40, 16)),
        ('test', box(inventory, 56, 0, 24, 120)),
    ]
    split = polygon_split(inventory, polygons(tmp_path / 'own.gpkg', rows), patch_size=16)
    write_split(tmp_path / 'again.gpkg', split, inventory)
    assert sorted(gpd.read_file(tmp_path / 'again.gpkg')['split']) == ['test', 'train', 'val']
    np.testing.assert_array_equal(polygon_split(inventory, tmp_path / 'again.gpkg', patch_size=16).cells, split.cells)


def test_saved_blocks_are_called_the_same_again_and_own_polygons_are_counted(tmp_path: Path) -> None:
    inventory = inventory_of(patchwork(96, 128), 8)
    drawn = block_split(inventory, patch_size=8, block_size=24, ratios=(0.4, 0.2, 0.4), seed=1)
    write_split(tmp_path / 'blocks.gpkg', drawn, inventory)
    again = polygon_split(inventory, tmp_path / 'blocks.gpkg', patch_size=8)
    np.testing.assert_array_equal(again.cells, drawn.cells)
    np.testing.assert_array_equal(again.blocks[again.cells > 0], drawn.blocks[drawn.cells > 0])
    assert len(np.unique(again.blocks[again.region('test')])) > 3
    rows = [('test', box(inventory, 0, 0, 40, 40)), ('train', box(inventory, 56, 0, 40, 128)),
            ('test', box(inventory, 0, 40, 40, 40))]  # fmt: skip
    own = polygon_split(inventory, polygons(tmp_path / 'own.gpkg', rows), patch_size=8)
    assert [own.blocks[r, c] for r, c in ((0, 0), (10, 0), (0, 7))] == [0, 1, 2]
    assert (own.blocks[own.cells == 0] == -1).all()


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), pyogrio.errors.DataSourceError('disk full')])
@pytest.mark.parametrize('existing', [True, False])
def test_a_failing_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, existing: bool
) -> None:
    def fails(self: Any, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b'half')
        raise error

    inventory = inventory_of(patchwork(160, 160), 4)
    path = tmp_path / 'blocks.gpkg'
    if existing:
        path.write_bytes(b'whole')
    monkeypatch.setattr(gpd.GeoDataFrame, 'to_file', fails)
    with pytest.raises(LandcoverError, match=r'blocks.gpkg cannot be written \(.*choose a folder'):
        write_split(path, block_split(inventory, patch_size=16), inventory)
    assert [f.read_bytes() for f in tmp_path.iterdir()] == [b'whole'] * existing


def test_polygons_in_degrees_with_slanted_edges_hold_the_cells_wholly_inside(tmp_path: Path) -> None:
    inventory = inventory_of(patchwork(157, 203), 8)
    (x0, y0), cell = inventory.grid.origin, 80
    slanted = shapely.Polygon([(x0 - 50, y0 - 300), (x0 + 700, y0 + 90), (x0 + 1130, y0 - 640), (x0 + 210, y0 - 1200)])
    hole = shapely.box(x0 + 500, y0 - 420, x0 + 505, y0 - 415)
    other = shapely.box(x0 + 1400, y0 - 5000, x0 + 5000, y0 + 5000)  # beyond the raster, cut cells included
    rows = [('Training ', slanted - hole), ('VALIDATION', other)]
    frame = gpd.GeoDataFrame({'split': [r[0] for r in rows]}, geometry=[r[1] for r in rows], crs=32631)
    frame.geometry = frame.geometry.segmentize(20)  # a straight line of the grid is a curve in degrees
    frame.to_crs(4326).to_file(tmp_path / 'own.geojson')
    cells = polygon_split(inventory, tmp_path / 'own.geojson', patch_size=16).cells
    extent = shapely.box(*inventory.grid.bounds())
    for r, c in np.ndindex(inventory.shape):
        square = shapely.box(x0 + c * cell, y0 - (r + 1) * cell, x0 + (c + 1) * cell, y0 - r * cell) & extent
        margins = [shapely.covers(shapely.buffer(slanted - hole, d), square) for d in (-0.5, 0.5)]
        if margins[0] == margins[1]:  # polygons that come within half a metre decide nothing
            assert (cells[r, c] == SPLITS['train']) == margins[0]
        assert (cells[r, c] == SPLITS['val']) == shapely.covers(other, square)
    assert (cells == 1).sum() > 50 and cells[-1, -1] == 2


@pytest.mark.parametrize(
    ('word', 'name'),
    [('validation', 'val'), ('valid', 'val'), (' Train', 'train'), ('TRAINING', 'train'), ('testing', 'test')],
)
def test_other_words_for_the_splits(tmp_path: Path, word: str, name: Any) -> None:
    inventory = inventory_of(patchwork(40, 40), 8)
    path = polygons(tmp_path / 'own.gpkg', [(word, box(inventory, 8, 0, 16, 8))])
    split = polygon_split(inventory, path, patch_size=16)
    assert split.windows(name) == [PixelWindow(8, 0, 16, 8)] and (split.cells > 0).sum() == 2


def test_polygons_that_come_too_near_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inventory = inventory_of(patchwork(80, 80), 8)
    for gap, told in ((0, True), (8, True), (16, False)):
        rows = [('train', box(inventory, 0, 0, 24, 80)), ('test', box(inventory, 24 + gap, 0, 16, 80))]
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            polygon_split(inventory, polygons(tmp_path / 'own.gpkg', rows), patch_size=16)
        assert (f'within {gap} px of each other, less than a patch of 16 px' in caplog.text) == told


def wrong_files(tmp_path: Path, inventory: Inventory) -> dict[str, Path]:
    here = box(inventory, 0, 0, 40, 40)
    bow = shapely.Polygon([(400003, 4600007), (400403, 4599607), (400403, 4600007), (400003, 4599607)])
    files = {
        'does not exist; name a vector file with a split column': tmp_path / 'none.gpkg',
        'polygons of test overlap those of another split; cut them apart': polygons(
            tmp_path / 'overlap.gpkg', [('train', here), ('test', box(inventory, 24, 24, 40, 40))]
        ),
        "needs a CRS and a column 'split'": polygons(tmp_path / 'a.gpkg', [('train', here)], crs=None),
        "the split 'trian' is not one of train, val, test": polygons(
            tmp_path / 'b.gpkg', [('train', here), ('trian', here)]
        ),
        'the split nan is not one': polygons(tmp_path / 'c.gpkg', [('train', here), (None, here)]),  # type: ignore[list-item]
        'no polygon holds a whole cell of 8 px': polygons(
            tmp_path / 'd.gpkg', [('train', box(inventory, 1, 1, 14, 14)), ('test', box(inventory, 900, 0, 99, 99))]
        ),
        '1 polygons are empty or cross themselves; repair': polygons(tmp_path / 'e.gpkg', [('train', bow)]),
        'do not exist in its CRS, WGS 84; assign': polygons(tmp_path / 'f.gpkg', [('train', here)], crs=4326),
    }
    gpd.GeoDataFrame({'part': ['train']}, geometry=[here], crs=32631).to_file(tmp_path / 'g.gpkg')
    files["g.gpkg needs a CRS and a column 'split'"] = tmp_path / 'g.gpkg'
    (tmp_path / 'h.csv').write_text('split,block\ntrain,1\n')
    files["h.csv needs a CRS and a column 'split'"] = tmp_path / 'h.csv'
    (tmp_path / 'i.gpkg').write_bytes(files['1 polygons are empty or cross themselves; repair'].read_bytes()[:5000])
    files['i.gpkg cannot be read as a vector file'] = tmp_path / 'i.gpkg'
    (tmp_path / 'j.gpkg').write_bytes(b'')
    files['j.gpkg cannot be read as a vector file'] = tmp_path / 'j.gpkg'
    return files


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    inventory = inventory_of(patchwork(80, 80), 8)
    for sentence, path in wrong_files(tmp_path, inventory).items():
        with pytest.raises(LandcoverError, match=sentence):
            polygon_split(inventory, path, patch_size=16)


def test_a_written_split_is_a_sound_geopackage(tmp_path: Path) -> None:
    inventory = inventory_of(patchwork(160, 160), 4)
    write_split(tmp_path / 'blocks.gpkg', block_split(inventory, patch_size=16), inventory)
    with sqlite3.connect(tmp_path / 'blocks.gpkg') as db:
        assert db.execute('pragma integrity_check').fetchone() == ('ok',)
        assert db.execute('select table_name, srs_id from gpkg_contents').fetchall() == [('blocks', 32631)]


def test_a_grid_in_degrees_works_too(tmp_path: Path) -> None:
    metres = inventory_of(patchwork(203, 157), 8)
    grid = PixelGrid(CRS.from_epsg(4326), Affine(1e-4, 0, 1.234567, 0, -9e-5, 41.7654321), 203, 157)
    inventory = Inventory(grid, 8, metres.counts, metres.valid)
    split = block_split(inventory, patch_size=16, seed=2)
    write_split(tmp_path / 'blocks.gpkg', split, inventory)
    np.testing.assert_array_equal(polygon_split(inventory, tmp_path / 'blocks.gpkg', patch_size=16).cells, split.cells)
