"""The scoring rule, and windows that stay within their recording."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.resample import Segment
from models.windows import UNLABELLED, cut, majority_label
from quantization.errors import DatasetError


def segment(n: int, *, subject: str = "a", start: int = 0, label: int = 0) -> Segment:
    values = np.arange(start, start + n, dtype=np.float32)[:, None].repeat(2, axis=1)
    return Segment(subject, "r", ("acc_x", "acc_y"), 50.0, 0.0, values, np.full(n, label, np.int16))


@pytest.mark.parametrize(
    ("labels", "truth", "pure"),
    [
        ([2, 2, 2, 2], 2, True),
        ([2, 2, 2, 1], 2, False),
        ([2, 2, 1, 1], 1, False),  # a tie: the lower index
        ([0, 1, 2, 3], 0, False),
        ([-1, -1, -1, 2], UNLABELLED, False),
        ([-1, -1, 2, 2], 2, False),  # a label wins over as many unlabelled samples
        ([-1, -1, 1, 2], UNLABELLED, False),  # the largest single share is "unlabelled"
        ([-1, -1, -1, -1], UNLABELLED, False),
        ([3, -1, 3, 3], 3, False),
    ],
)
def test_the_scoring_rule_by_hand(labels, truth, pure):
    truths, pures = majority_label(np.array([labels], np.int16), 4)
    assert (truths.tolist(), pures.tolist()) == ([truth], [pure])
    assert (truths.dtype, pures.dtype) == (np.int16, np.bool_)


@given(st.lists(st.lists(st.integers(-1, 3), min_size=7, max_size=7), min_size=1, max_size=20))
def test_the_scoring_rule_as_in_words(rows):
    truth, pure = majority_label(np.array(rows, np.int16), 4)
    for row, found, is_pure in zip(rows, truth.tolist(), pure.tolist(), strict=True):
        candidates = [0, 1, 2, 3, -1]  # labels in order, then unlabelled: the first of the most frequent ones wins
        assert found == max(candidates, key=row.count)
        assert is_pure == (found >= 0 and row.count(found) == len(row))


@given(
    st.lists(st.tuples(st.integers(2, 60), st.sampled_from("abc")), min_size=1, max_size=6),
    st.integers(2, 12),
    st.integers(1, 15),
)
def test_no_window_crosses_segments(pieces, length, stride):
    segments = [segment(n, subject=s, start=1000 * i, label=i) for i, (n, s) in enumerate(pieces)]
    expected = [(s, at + 1000 * i) for i, (n, s) in enumerate(pieces) for at in range(0, n - length + 1, stride)]
    if not expected:
        with pytest.raises(DatasetError, match=f"{length} samples"):
            cut(segments, length=length, stride=stride, classes=6)
        return
    windows = cut(segments, length=length, stride=stride, classes=6)
    assert len(windows) == len(expected)
    assert windows.values.shape == (len(expected), length, 2)
    assert windows.values.dtype == np.float32
    assert (np.diff(windows.values, axis=1) == 1).all(), "consecutive samples, in order"
    found = zip(windows.subject.tolist(), windows.values[:, 0, 0].tolist(), strict=True)
    assert [(s, int(v)) for s, v in found] == expected
    assert windows.truth.tolist() == [at // 1000 for _, at in expected]
    assert windows.pure.all()


def test_selection():
    windows = cut([segment(20), segment(20, subject="b", label=1)], length=10, stride=5, classes=2)
    assert windows.of(["b"]).subject.tolist() == ["b"] * 3
    assert windows.of(["b"]).truth.tolist() == [1] * 3
    assert len(windows.of([])) == 0
    assert len(windows.where(windows.truth == 0)) == 3


def test_labels_change_within_a_window():
    one = segment(20)
    one.label[12:] = 1
    one.label[18:] = -1
    windows = cut([one], length=10, stride=5, classes=2)
    assert windows.truth.tolist() == [0, 0, 1]
    assert windows.pure.tolist() == [True, False, False]
