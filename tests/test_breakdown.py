"""The test ground taken apart: distances, parts and confidence against SciPy, NumPy, scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import confusion_matrix
from torchmetrics.classification import MulticlassCalibrationError

from landcover_plugin.evaluation.reliability import Reliability
from landcover_plugin.grid import PixelWindow
from landcover_plugin.models.outputs import class_probabilities, confidence
from landcover_plugin.training.border_distance import DISTANCE_BINS, DISTANCE_LIMITS, border_distance_bins
from landcover_plugin.training.breakdown import Breakdown, count_parts, cut_into_parts
from landcover_plugin.training.calibration import ConfidenceBins
from landcover_plugin.training.strata import strata

CODES = range(13)


def patchy(height, width, seed, cell=9):
    """Codes in patches of uneven size with unlabelled ground among them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 13, (height // cell + 2, width // cell + 2))
    return np.kron(coarse, np.ones((cell, cell), dtype=int))[3 : 3 + height, 5 : 5 + width]


def border_of(codes):
    """Labelled pixels with another class among their eight neighbours, pixel by pixel."""
    padded, found = np.pad(codes, 1), np.zeros(codes.shape, dtype=bool)
    for row, col in np.ndindex(codes.shape):
        around = padded[row : row + 3, col : col + 3]
        found[row, col] = codes[row, col] > 0 and ((around > 0) & (around != codes[row, col])).any()
    return found


def distance_bins(codes):
    border = border_of(codes)
    if not border.any():
        return np.full(codes.shape, DISTANCE_BINS - 1)
    return np.digitize(distance_transform_edt(~border), DISTANCE_LIMITS)


@pytest.mark.parametrize(('shape', 'cell'), [((41, 67), 9), ((64, 50), 23), ((30, 33), 40), ((3, 70), 17), ((1, 1), 9)])
def test_distances_are_those_of_scipy(shape, cell):
    codes = np.stack([patchy(*shape, seed, cell) for seed in range(3)])
    found = border_distance_bins(torch.from_numpy(codes))
    np.testing.assert_array_equal(found.numpy(), np.stack([distance_bins(c) for c in codes]))


def test_the_first_distance_is_the_border():
    codes = torch.from_numpy(patchy(40, 60, 1))[None]
    border = strata(codes)['border']
    assert border.any() and not border.all()
    assert torch.equal((border_distance_bins(codes) == 0), border)


def test_parts_of_a_batch_lie_in_one_block_each():
    rng = np.random.default_rng(0)
    blocks, cell = np.kron(rng.integers(0, 5, (4, 5)), np.ones((3, 3), dtype=int)), 4
    windows = [PixelWindow(*rng.integers(0, 30, 2), *rng.integers(2, 14, 2)) for _ in range(12)]
    parts = cut_into_parts(windows, blocks, cell, (24, 26))
    crossing = 0
    for i, (number, window) in enumerate(zip(parts.part, windows, strict=True)):
        rows, cols = np.arange(window.row, window.row_stop) // cell, np.arange(window.col, window.col_stop) // cell
        inside = number[: window.height, : window.width].numpy()
        np.testing.assert_array_equal(np.array(parts.blocks)[inside], blocks[np.ix_(rows, cols)])
        assert set(np.array(parts.patches)[inside].ravel()) == {i}
        crossing += len(np.unique(inside)) > 1
    assert 0 < crossing < 12


def test_counts_are_those_of_scikit_learn_and_parts_add_up():
    rng = np.random.default_rng(0)
    target = np.stack([patchy(30, 40, seed) for seed in range(4)])
    prediction = np.where(rng.random(target.shape) < 0.6, np.maximum(target, 1), rng.integers(1, 13, target.shape))
    part = np.broadcast_to(np.array([0, 1, 2, 2])[:, None, None], target.shape)
    counts = count_parts(*(torch.from_numpy(v.copy()) for v in (prediction, target, part)), 3)
    distance = np.stack([distance_bins(t) for t in target])
    for p, d in np.ndindex(3, DISTANCE_BINS):
        chosen = (part == p) & (distance == d) & (target > 0)
        expected = confusion_matrix(target[chosen], prediction[chosen], labels=CODES) if chosen.any() else 0
        np.testing.assert_array_equal(counts[p, d], np.broadcast_to(expected, (13, 13)))
    metric = Breakdown(looks=2, blocks=4)
    metric.update(counts[:2], torch.tensor([0, 1]), torch.tensor([3, 0]))
    metric.update(counts[2:], torch.tensor([1]), torch.tensor([3]))
    found, whole = metric.compute(), counts.sum((0, 1))
    assert all(torch.equal(matrices.sum(0), whole) for matrices in found.values())
    assert torch.equal(found['looks'][0], counts[0].sum(0)) and torch.equal(found['blocks'][0], counts[1].sum(0))
    assert not found['blocks'][1:3].any()


def test_calibration_error_is_that_of_torchmetrics_and_bins_hold_every_labelled_pixel():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 13, (2, 50, 60), generator=generator)
    logits = torch.randn(2, 13, 50, 60, generator=generator) * 2
    logits.scatter_add_(1, target[:, None], torch.full_like(logits[:, :1], 1.5))
    probabilities, labelled = class_probabilities(logits), target > 0
    prediction = probabilities.argmax(1)
    torch.testing.assert_close(confidence(logits), probabilities.amax(1))
    bins = ConfidenceBins()
    for part in (slice(0, 1), slice(1, 2)):
        bins.update(confidence(logits)[part], (prediction == target)[part], labelled[part])
    found = Reliability(*bins.compute().numpy())
    reference = MulticlassCalibrationError(13, n_bins=15, norm='l1', ignore_index=0)
    assert found.error == pytest.approx(float(reference(probabilities, target)), abs=1e-6)
    assert found.total == int(labelled.sum()) == sum(row['labelled_pixels'] for row in found.rows())
    assert found.hits.sum() == int(((prediction == target) & labelled).sum())
    for row in found.rows():
        own = labelled & (confidence(logits) > row['from']) & (confidence(logits) <= row['to'])
        assert row['accuracy'] == pytest.approx(float((prediction == target)[own].double().mean()))
        assert row['from'] < row['mean_confidence'] <= row['to']
