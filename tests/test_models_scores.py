"""Scores against scikit-learn's."""

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from models.scores import confusion, f1_per_class, score
from models.windows import Windows
from quantization.errors import DatasetError


def windows_of(truth: np.ndarray, pure: np.ndarray | None = None) -> Windows:
    n = len(truth)
    pure = np.ones(n, bool) if pure is None else pure
    return Windows(np.zeros((n, 8, 1), np.float32), truth.astype(np.int16), pure, np.full(n, "a"))


@pytest.mark.parametrize("seed", range(40))
def test_f1_is_that_of_scikit_learn(seed):
    """Absent classes included: the macro mean is over those that occur in truth or prediction."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 9))
    some = rng.choice(classes, int(rng.integers(1, classes + 1)), replace=False)
    truth = rng.choice(some, 60)
    predicted = np.where(rng.random(60) < 0.5, truth, rng.integers(0, classes, 60))
    pure = rng.random(60) < 0.5
    truth_and_unlabelled = np.where(rng.random(60) < 0.1, -1, truth)
    known = truth_and_unlabelled >= 0
    result = score(windows_of(truth_and_unlabelled, pure), np.eye(classes, dtype=np.float32)[predicted] * 0.3)

    t, p = truth[known], predicted[known]
    occurs = np.union1d(t, p)
    everything = np.arange(classes)
    assert result.windows == known.sum()
    assert np.array_equal(result.confusion, confusion_matrix(t, p, labels=everything))
    each = f1_score(t, p, average=None, labels=everything, zero_division=0)
    assert np.allclose(result.f1[occurs], each[occurs])
    assert np.isnan(np.delete(result.f1, occurs)).all()
    assert result.macro_f1 == pytest.approx(f1_score(t, p, average="macro"))
    assert result.accuracy == pytest.approx((t == p).mean())
    tp, pp = t[pure[known]], p[pure[known]]
    assert result.macro_f1_pure == pytest.approx(f1_score(tp, pp, average="macro"))


def test_nothing_labelled_is_an_error_and_nothing_pure_is_not():
    answers = np.full((3, 2), 0.5, np.float32)
    with pytest.raises(DatasetError, match="labelled"):
        score(windows_of(np.full(3, -1)), answers)
    assert math.isnan(score(windows_of(np.zeros(3), np.zeros(3, bool)), answers).macro_f1_pure)


def test_by_hand():
    table = confusion(np.array([0, 0, 1, 1], np.int16), np.array([0, 1, 1, 1]), 3)
    assert table.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert f1_per_class(table)[:2].tolist() == pytest.approx([2 / 3, 4 / 5])
    assert np.isnan(f1_per_class(table)[2])


def test_logits_score_like_their_probabilities():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 4)).astype(np.float32)
    windows = windows_of(rng.integers(0, 4, 50))
    assert score(windows, logits).macro_f1 == score(windows, np.exp(logits)).macro_f1
