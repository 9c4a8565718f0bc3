import numpy as np
import pytest

from landcover_plugin.errors import LandcoverError
from landcover_plugin.grid import PixelWindow, taper
from landcover_plugin.mapping.deciding import confidence_of, decide
from landcover_plugin.mapping.mosaic import STRIP, BlendedMosaic
from landcover_plugin.sampling.lattice import Lattice

CLASSES = 13


def one_hot(codes):
    return (np.arange(CLASSES)[:, None, None] == codes).astype(np.float32)


def collect(strips, area):
    """Assemble strips, checking that they follow one another without a gap and own their memory."""
    rows, probabilities, covered = [], [], []
    for row, (p, c) in strips:
        assert p.dtype == np.float32 and c.dtype == bool
        assert p.shape == (CLASSES, *c.shape) and c.shape[1] == area.width and 1 <= len(c) <= STRIP
        assert p.base is None
        rows += range(row, row + len(c))
        probabilities.append(p)
        covered.append(c)
    return rows, probabilities, covered


def blend(area, lattice, look, rng, *, weights=None):
    """Map an area with a network ``look(window) -> probabilities``; windows of a row come in any order."""
    mosaic = BlendedMosaic(area, CLASSES)
    weight = taper(lattice.size, lattice.overlap) if weights is None else weights
    windows = list(lattice.windows(area))
    strips, held = [], 0
    for row in sorted({window.row for window in windows}):
        strips += mosaic.finished(row)
        for i in rng.permutation([i for i, window in enumerate(windows) if window.row == row]):
            mosaic.add(windows[i], look(windows[i]), weight)
        held = max(held, mosaic.rows_held)
    strips += mosaic.flush()
    done, probabilities, covered = collect(strips, area)
    assert done == list(range(area.row, area.row_stop))
    return np.concatenate(probabilities, axis=1), np.concatenate(covered), held


def sure(probabilities, covered, kinds=('confidence',)):
    """Codes and the layers asked for, of means."""
    found = decide(probabilities, covered.astype(np.float32), kinds)
    return found['classes'][0], *(found[kind] for kind in kinds)


@pytest.mark.parametrize('seed', range(30))
def test_a_one_hot_oracle_gives_back_the_labels_exactly(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(4, 40))
    overlap = int(rng.integers(0, size))
    shape = tuple(rng.integers(1, 130, 2).tolist())  # areas start and end anywhere, at the border too
    row, col = int(rng.integers(0, shape[0])), int(rng.integers(0, shape[1]))
    area = PixelWindow(row, col, int(rng.integers(1, shape[0] - row + 1)), int(rng.integers(1, shape[1] - col + 1)))
    truth = rng.integers(1, CLASSES, shape).astype(np.uint8)
    wide = np.pad(truth, 200, mode='symmetric')

    def look(w):
        return one_hot(wide[w.row + 200 : w.row_stop + 200, w.col + 200 : w.col_stop + 200])

    probabilities, covered, held = blend(area, Lattice(size, overlap, shape), look, rng)
    assert covered.all()
    codes, confidence = sure(probabilities, covered)
    expected = truth[area.row : area.row_stop, area.col : area.col_stop]
    assert np.array_equal(codes, expected)
    assert (confidence == 100).all()
    assert np.array_equal(probabilities, one_hot(expected))
    assert held <= min(size, area.height)


def test_blend_is_the_weighted_mean():
    rng = np.random.default_rng(1)
    area, size, overlap = PixelWindow(3, 5, 50, 71), 24, 11
    pad = size
    seen = []

    def look(window):
        p = rng.dirichlet(np.ones(CLASSES), (size, size)).transpose(2, 0, 1).astype(np.float32)
        seen.append((window, p))
        return p

    probabilities, covered, _ = blend(area, Lattice(size, overlap, (60, 90)), look, rng)
    sums, weights = np.zeros((CLASSES, 150, 150)), np.zeros((150, 150))
    for w, p in seen:
        at = np.s_[w.row + pad : w.row_stop + pad, w.col + pad : w.col_stop + pad]
        sums[:, *at] += p * taper(size, overlap)
        weights[at] += taper(size, overlap)
    at = np.s_[area.row + pad : area.row_stop + pad, area.col + pad : area.col_stop + pad]
    assert covered.all()
    np.testing.assert_allclose(probabilities, sums[:, *at] / weights[at], atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


def test_two_looks_are_averaged_and_a_look_that_saw_nothing_does_not_count():
    rng = np.random.default_rng(2)
    area = window = PixelWindow(0, 0, 6, 9)
    april, august = (rng.dirichlet(np.ones(CLASSES), (6, 9)).transpose(2, 0, 1).astype('f4') for _ in range(2))
    clear = np.ones((6, 9), np.float32)
    cloudy = clear.copy()
    cloudy[2, 3:5] = 0
    august[:, 2, 3] = np.nan  # what a network makes of no data must not spread
    mosaic = BlendedMosaic(area, CLASSES)
    mosaic.add(window, april, clear)
    mosaic.add(window, august, cloudy)
    _, (p,), (covered,) = collect(mosaic.flush(), area)
    expected = (april + august) / 2
    expected[:, cloudy == 0] = april[:, cloudy == 0]
    assert covered.all()
    np.testing.assert_allclose(p, expected, atol=1e-6)


def test_pixels_without_weight_are_not_covered():
    area = PixelWindow(10, 20, 40, 30)
    mosaic = BlendedMosaic(area, CLASSES)
    weights = np.ones((8, 8), np.float32)
    weights[:, 5] = 0
    mosaic.add(PixelWindow(25, 25, 8, 8), one_hot(np.full((8, 8), 7)), weights)
    rows, parts, covers = collect(mosaic.flush(), area)
    probabilities, covered = np.concatenate(parts, axis=1), np.concatenate(covers)
    expected = np.zeros((40, 30), bool)
    expected[15:23, 5:13] = weights > 0
    assert rows == list(range(10, 50))
    assert np.array_equal(covered, expected)
    codes, (confidence,), (entropy,), percent = sure(probabilities, covered, ('confidence', 'entropy', 'probabilities'))
    assert np.array_equal(codes, np.where(expected, 7, 0))
    assert np.array_equal(confidence, np.where(expected, 100, 255))
    assert np.array_equal(entropy, np.where(expected, 0, 255))
    assert percent.shape == (CLASSES - 1, 40, 30)
    assert np.array_equal(percent[6], confidence) and set(np.unique(percent[0])) == {0, 255}


def test_channel_0_is_never_chosen_and_ties_go_to_the_lower_code():
    p = np.zeros((CLASSES, 1, 3), np.float32)
    p[0] = 0.9, 0.9, 0
    p[5] = 0.1, 0.05, 0.5
    p[9] = 0, 0.05, 0.5
    codes, confidence = sure(p, np.ones((1, 3), bool))
    assert codes.tolist() == [[5, 5, 5]]
    assert confidence.tolist() == [[[10, 5, 50]]]


def test_layers_agree_with_numpy():
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(CLASSES - 1), (20, 31)).transpose(2, 0, 1).astype('f4')
    p = np.concatenate([np.zeros((1, 20, 31), 'f4'), p])
    weights = rng.uniform(0.1, 5, (20, 31)).astype('f4')
    kinds = ('confidence', 'entropy', 'probabilities')
    found = decide(p * weights, weights, kinds)
    expected = -(p[1:] * np.log(p[1:])).sum(0) / np.log(CLASSES - 1)
    assert np.array_equal(found['classes'][0], p[1:].argmax(axis=0) + 1)
    for layer, values in zip(kinds, (p[1:].max(axis=0), expected, p[1:]), strict=True):
        assert found[layer].dtype == np.uint8
        assert (abs(found[layer] - 100 * values) <= 0.501).all()
    assert np.array_equal(confidence_of(p, found['classes'][0]), sure(p, weights > 0)[1][0])


@pytest.mark.parametrize('kinds', [(), ('confidence',), ('entropy', 'probabilities')])
def test_nan_of_a_covered_pixel_is_an_error(kinds):
    p = np.full((CLASSES, 2, 2), 1 / CLASSES, np.float32)
    p[3, 1, 1] = np.nan
    with pytest.raises(LandcoverError, match='NaN at 1 pixels: the checkpoint is damaged'):
        decide(p, np.ones((2, 2), np.float32), kinds)
    decide(p, np.array([[1, 1], [1, 0]], np.float32), kinds)


def test_decided_rows_are_those_of_the_means():
    """Both ways to release rows agree, also where no window came and where rows end in the middle of a piece."""
    rng = np.random.default_rng(5)
    area = PixelWindow(10, 20, 100, 30)
    kinds = ('confidence', 'entropy', 'probabilities')
    found = []
    for way in ('decided', 'finished'):
        rng = np.random.default_rng(5)
        mosaic, rows = BlendedMosaic(area, CLASSES), []
        for row in (15, 23, 50):
            rows += mosaic.decided(row, kinds) if way == 'decided' else mosaic.finished(row)
            p = rng.dirichlet(np.ones(CLASSES), (20, 20)).transpose(2, 0, 1).astype('f4')
            mosaic.add(PixelWindow(row, 25, 20, 20), p, rng.uniform(0, 1, (20, 20)).astype('f4').round())
        rows += mosaic.decided(999, kinds) if way == 'decided' else mosaic.flush()
        if way == 'finished':
            rows = [(row, decide(p, covered.astype('f4'), kinds)) for row, (p, covered) in rows]
        found.append({k: np.concatenate([layers[k] for _, layers in rows], axis=1) for k in ('classes', *kinds)})
    for kind, layer in found[0].items():
        assert layer.shape[1:] == (100, 30) and np.array_equal(layer, found[1][kind])


def test_released_rows_cannot_change():
    mosaic = BlendedMosaic(PixelWindow(0, 0, 100, 20), CLASSES)
    patch, weights = one_hot(np.ones((20, 20))), np.ones((20, 20), np.float32)
    mosaic.add(PixelWindow(0, 0, 20, 20), patch, weights)
    list(mosaic.finished(15))
    assert mosaic.released == 15
    with pytest.raises(ValueError, match='rows above 15 were released, got a window from row 14'):
        mosaic.add(PixelWindow(14, 0, 20, 20), patch, weights)
    mosaic.add(PixelWindow(15, 0, 20, 20), patch, weights)
    mosaic.add(PixelWindow(0, 50, 20, 20), patch, weights)  # outside the area: nothing to change
    assert list(mosaic.finished(15)) == [] and list(mosaic.finished(3)) == []


def test_rows_above_the_area_may_arrive_late():
    """The part of a window above or beside the area does not count."""
    area = PixelWindow(10, 5, 4, 4)
    mosaic = BlendedMosaic(area, CLASSES)
    mosaic.add(PixelWindow(2, -3, 12, 12), one_hot(np.full((12, 12), 4)), np.ones((12, 12), np.float32))
    _, (p,), (covered,) = collect(mosaic.flush(), area)
    assert covered.all() and (p[4] == 1).all()


@pytest.mark.parametrize('wrong', ['probabilities', 'weights'])
def test_wrong_shapes_are_named(wrong):
    shapes = {'probabilities': (CLASSES, 4, 6), 'weights': (4, 6), wrong: (4, 4)}
    mosaic = BlendedMosaic(PixelWindow(0, 0, 10, 10), CLASSES)
    with pytest.raises(ValueError, match=r'a window of \(4, 6\) px takes'):
        mosaic.add(PixelWindow(0, 0, 4, 6), *(np.ones(shape, np.float32) for shape in shapes.values()))


def test_an_empty_area_is_an_error():
    with pytest.raises(LandcoverError, match='at least one pixel'):
        BlendedMosaic(PixelWindow(0, 0, 0, 10), CLASSES)


def test_memory_does_not_grow_with_the_area():
    size, step = 16, 6
    area = PixelWindow(0, 0, 3000, 20)
    mosaic = BlendedMosaic(area, CLASSES)
    patch, weights = one_hot(np.full((size, 20), 2)), np.ones((size, 20), np.float32)
    held, rows = set(), 0
    for row in range(0, area.height - size + 1, step):
        rows += sum(len(covered) for _, (_, covered) in mosaic.finished(row))
        mosaic.add(PixelWindow(row, 0, size, 20), patch, weights)
        held.add(mosaic.rows_held)
    assert held == {size}
    assert mosaic._sums.nbytes == CLASSES * size * 20 * 4
    assert rows + sum(len(covered) for _, (_, covered) in mosaic.flush()) == area.height


def test_an_iterator_that_is_dropped_loses_nothing():
    rng = np.random.default_rng(4)
    area = PixelWindow(0, 0, 90, 10)
    mosaic = BlendedMosaic(area, CLASSES)
    truth = rng.integers(1, CLASSES, (90, 10))
    strips = []
    for row in range(0, 90, 10):
        at = PixelWindow(row, 0, 10, 10)
        mosaic.add(at, one_hot(truth[row : row + 10]), np.ones((10, 10), np.float32))
        if row % 40 == 0:
            mosaic.finished(row)  # not consumed
        if row == 50:
            strips.append(next(mosaic.finished(row)))  # consumed in part
    strips += mosaic.flush()
    rows, parts, _ = collect(strips, area)
    assert rows == list(range(90))
    assert np.array_equal(np.concatenate(parts, axis=1), one_hot(truth))
