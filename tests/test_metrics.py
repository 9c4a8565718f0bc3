"""Scores against scikit-learn, and what happens where a class is absent."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)

from landcover_plugin.legend import LEGEND
from landcover_plugin.training.metrics import CLASS_SCORES, OVERALL_SCORES, Scores, row_normalised

CODES = list(range(LEGEND.num_classes))


def random_labels(seed):
    """Reference and prediction with unlabelled ground, absent classes, and no data predicted."""
    rng = np.random.default_rng(seed)
    absent = rng.choice(LEGEND.codes, size=rng.integers(0, 9), replace=False)
    present = [code for code in LEGEND.codes if code not in absent]
    reference = rng.choice([0, *present], size=int(rng.integers(50, 3000)))
    noise = rng.choice(CODES, size=reference.size)
    prediction = np.where(rng.random(reference.size) < rng.random(), reference, noise)
    return reference, prediction


@pytest.mark.parametrize('seed', range(25))
def test_agrees_with_scikit_learn(seed):
    reference, prediction = random_labels(seed)
    scores = Scores.from_confusion(confusion_matrix(reference, prediction, labels=CODES))

    kept = reference > 0
    truth, guess = reference[kept], prediction[kept]
    options = {'labels': CODES, 'average': None, 'zero_division': np.nan}
    expected = {
        'iou': jaccard_score(truth, guess, labels=CODES, average=None, zero_division=0),
        'dice': f1_score(truth, guess, **options),
        'users_accuracy': precision_score(truth, guess, **options),
        'producers_accuracy': recall_score(truth, guess, **options),
    }
    present = np.isin(CODES, truth)
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(scores, name), np.where(present, values, np.nan), err_msg=name)
    np.testing.assert_array_equal(scores.support, np.bincount(truth, minlength=len(CODES)))

    seen = sorted(set(truth))
    macro = {'labels': seen, 'average': 'macro', 'zero_division': 0}
    assert scores.overall_accuracy == pytest.approx(accuracy_score(truth, guess))
    assert scores.mean_iou == pytest.approx(jaccard_score(truth, guess, **macro))
    assert scores.mean_dice == pytest.approx(f1_score(truth, guess, **macro))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # scikit-learn tells us that a class is absent from the reference
        assert scores.mean_producers_accuracy == pytest.approx(balanced_accuracy_score(truth, guess))


def test_unlabelled_ground_does_not_count_but_no_data_on_labelled_ground_is_an_error():
    confusion = np.diag([0] + 12 * [10])
    perfect = Scores.from_confusion(confusion)
    confusion[0] = 1000
    ignored = Scores.from_confusion(confusion)
    assert perfect.overall() == ignored.overall() == dict.fromkeys(OVERALL_SCORES, 1.0)
    confusion[3, 0] = 10
    scores = Scores.from_confusion(confusion)
    assert (scores.iou[3], scores.producers_accuracy[3], scores.users_accuracy[3]) == (0.5, 0.5, 1.0)
    assert scores.overall_accuracy == 120 / 130


def test_absent_classes_are_not_available_and_do_not_pull_the_mean():
    confusion = np.zeros((13, 13), dtype=np.int64)
    confusion[2, 2], confusion[2, 5], confusion[3, 3] = 6, 2, 4  # class 5 is only ever predicted
    scores = Scores.from_confusion(confusion)
    for name in CLASS_SCORES:
        absent = np.delete(getattr(scores, name), [2, 3])
        assert np.isnan(absent).all(), name
    assert scores.mean_iou == (0.75 + 1) / 2
    assert scores.mean_producers_accuracy == (0.75 + 1) / 2


def test_a_class_that_is_never_predicted_has_a_recall_of_zero_and_no_precision():
    confusion = np.zeros((13, 13), dtype=np.int64)
    confusion[2, 3] = confusion[3, 3] = 4
    scores = Scores.from_confusion(confusion)
    assert (scores.iou[2], scores.dice[2], scores.producers_accuracy[2]) == (0, 0, 0)
    assert np.isnan(scores.users_accuracy[2])


@pytest.mark.parametrize('unlabelled', [0, 7])
def test_nothing_labelled_is_not_available_and_silent(unlabelled):
    confusion = np.zeros((13, 13), dtype=np.int64)
    confusion[0] = unlabelled
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        scores = Scores.from_confusion(confusion)
        shares = row_normalised(confusion)
    assert np.isnan(list(scores.overall().values())).all()
    assert all(np.isnan(getattr(scores, name)).all() for name in CLASS_SCORES)
    assert scores.labelled_pixels == 0
    assert np.isnan(shares).all()


def test_counts_beyond_32_bits():
    scores = Scores.from_confusion(np.diag([0] + 12 * [2**40]).astype(np.int64))
    assert scores.labelled_pixels == 12 * 2**40
    assert scores.mean_dice == 1


def test_the_argument_stays_as_it_was_and_the_scores_are_frozen():
    confusion = np.arange(169).reshape(13, 13)
    before = confusion.copy()
    scores = Scores.from_confusion(confusion)
    row_normalised(confusion)
    np.testing.assert_array_equal(confusion, before)
    with pytest.raises(ValueError, match='read-only'):
        scores.iou[1] = 0


def test_rows_name_each_class_once():
    reference, prediction = random_labels(0)
    scores = Scores.from_confusion(confusion_matrix(reference, prediction, labels=CODES))
    rows = scores.rows()
    assert [row['code'] for row in rows] == list(LEGEND.codes)
    assert [row['name'] for row in rows] == LEGEND.names[1:]
    assert list(rows[0]) == ['code', 'name', *CLASS_SCORES, 'support']
    np.testing.assert_array_equal([row['dice'] for row in rows], scores.dice[1:])


def test_normalised_rows_sum_to_one_with_the_producers_accuracy_on_the_diagonal():
    reference, prediction = random_labels(1)
    confusion = confusion_matrix(reference, prediction, labels=CODES)
    shares, scores = row_normalised(confusion), Scores.from_confusion(confusion)
    present = scores.support > 0
    np.testing.assert_allclose(shares[present].sum(axis=1), 1)
    assert np.isnan(shares[~present]).all()
    np.testing.assert_array_equal(np.diag(shares), scores.producers_accuracy)


@pytest.mark.parametrize(
    ('confusion', 'sentence'),
    [
        (np.zeros((13, 12), dtype=int), r'square, got shape \(13, 12\)'),
        (np.zeros((13, 13)), 'integer pixel counts, got float64'),
        (np.full((13, 13), -1), 'no negative counts, got -1'),
    ],
)
def test_refuses_what_is_no_confusion_matrix(confusion, sentence):
    with pytest.raises(ValueError, match=sentence):
        Scores.from_confusion(confusion)


def test_refuses_a_legend_of_another_size():
    with pytest.raises(ValueError, match='the legend has 13 codes, the scores 3'):
        Scores.from_confusion(np.eye(3, dtype=int)).rows()
