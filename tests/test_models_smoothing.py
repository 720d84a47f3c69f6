"""Smoothing by its laws: only the past counts, gaps forget, certainty stays; and its delay by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.resample import Segment
from models.smoothing import HiddenMarkov, added_delay, by_segment, exponential
from models.windows import cut
from quantization.errors import DatasetError

STICKY = HiddenMarkov(np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]), np.array([0.5, 0.3, 0.2]))
SMOOTHERS = {
    "exponential": lambda blocks: exponential(blocks, 0.3),
    "identity": lambda blocks: exponential(blocks, 1.0),
    "markov": STICKY.filter,
}


def answers(windows: int, seed: int, classes: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), windows).astype(np.float32)


def one_hot(labels: list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes)[labels]


seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 30)


@pytest.mark.parametrize("kind", SMOOTHERS)
@given(windows=sizes, seed=seeds, data=st.data())
def test_only_the_past_counts(kind, windows, seed, data):
    at = data.draw(st.integers(0, windows - 1))
    block = answers(windows, seed)
    other = block.copy()
    other[at:] = answers(windows - at, seed ^ 1)
    before, after = SMOOTHERS[kind]([block])[0], SMOOTHERS[kind]([other])[0]
    assert np.array_equal(before[:at], after[:at])
    assert not np.array_equal(before[at:], after[at:])


@pytest.mark.parametrize("kind", SMOOTHERS)
@given(sizes=st.lists(sizes, min_size=1, max_size=4), seed=seeds)
def test_rows_are_probabilities_and_segments_know_nothing_of_each_other(kind, sizes, seed):
    blocks = [answers(n, (seed + i) % 2**32) for i, n in enumerate(sizes)]
    kept = [block.copy() for block in blocks]
    together = SMOOTHERS[kind](blocks)
    for block, copy, smooth in zip(blocks, kept, together, strict=True):
        assert np.array_equal(block, copy), "the input is left as it is"
        assert smooth.shape == block.shape
        assert (smooth >= 0).all()
        assert np.allclose(smooth.sum(axis=1), 1, atol=1e-5)
        assert np.allclose(smooth[0], block[0], atol=1e-6), "with no past, the answer is the network's own"
        assert np.array_equal(smooth, SMOOTHERS[kind]([block])[0])


@given(windows=sizes, seed=seeds, alpha=st.floats(0.01, 1))
def test_exponential_leaves_what_stays_and_forgets_as_said(windows, seed, alpha):
    constant = np.tile(answers(1, seed), (windows, 1))
    assert np.allclose(exponential([constant], alpha)[0], constant)
    step = one_hot([0] + [1] * windows)
    assert np.allclose(exponential([step], alpha)[0][:, 0], (1 - alpha) ** np.arange(windows + 1))


@given(windows=sizes, seed=seeds)
def test_alpha_1_is_the_identity(windows, seed):
    block = answers(windows, seed)
    assert np.array_equal(exponential([block], 1.0)[0], block)


@pytest.mark.parametrize("alpha", [0, -0.1, 1.1, math.nan])
def test_alpha_is_a_share(alpha):
    with pytest.raises(DatasetError, match="alpha"):
        exponential([answers(3, 0)], alpha)


@given(windows=sizes, label=st.integers(0, 2))
def test_a_certain_network_is_left_alone(windows, label):
    constant = one_hot([label] * windows)
    assert np.allclose(STICKY.filter([constant])[0], constant, atol=1e-9)
    there_and_back = one_hot([0, 1, 2, 1, 0])
    assert np.allclose(STICKY.filter([there_and_back])[0], there_and_back, atol=1e-9)


@given(windows=sizes, seed=seeds)
def test_where_the_past_says_nothing_the_filter_changes_nothing(windows, seed):
    prior = np.array([0.2, 0.5, 0.3])
    block = answers(windows, seed)
    assert np.allclose(HiddenMarkov(np.tile(prior, (3, 1)), prior).filter([block])[0], block, atol=1e-6)


def test_the_filter_is_bayes_rule():
    """Against the sum over all paths of three windows."""
    block = answers(3, 5).astype(np.float64)
    likelihood = block / STICKY.prior
    joint = np.einsum(
        "i,i,ij,j,jk,k->k",
        STICKY.prior, likelihood[0], STICKY.transition, likelihood[1], STICKY.transition, likelihood[2],
    )  # fmt: skip
    assert np.allclose(STICKY.filter([block])[0][2], joint / joint.sum())


def test_a_lone_doubtful_window_is_smoothed_away_and_a_bout_is_not():
    sure, doubt, other = [0.9, 0.05, 0.05], [0.4, 0.5, 0.1], [0.05, 0.9, 0.05]
    block = np.array([sure, sure, doubt, sure, other, other])
    assert block.argmax(axis=1).tolist() == [0, 0, 1, 0, 1, 1]
    assert STICKY.filter([block])[0].argmax(axis=1).tolist() == [0, 0, 0, 0, 1, 1]


def test_estimate_by_hand():
    truths = [np.array([0, 0, 1, -1, 0], np.int16), np.array([1, 1], np.int16)]
    made = HiddenMarkov.estimate(truths, 3, leaning=1)
    assert np.allclose(made.transition, [[2 / 5, 2 / 5, 1 / 5], [1 / 4, 2 / 4, 1 / 4], [1 / 3] * 3])
    assert np.allclose(made.prior, np.array([4, 4, 1]) / 9), "windows of each, and one more"
    assert np.allclose(HiddenMarkov.estimate(truths, 3, leaning=0).prior, 1 / 3)
    assert np.allclose(HiddenMarkov.estimate(truths, 3).prior, np.array([2, 2, 1]) / 5)
    with pytest.raises(DatasetError, match="added"):
        HiddenMarkov.estimate(truths, 3, added=0)


def test_estimate_finds_the_chain():
    rng = np.random.default_rng(0)
    chain = [0]
    for _ in range(20_000):
        chain.append(rng.choice(3, p=STICKY.transition[chain[-1]]))
    found = HiddenMarkov.estimate([np.array(chain[:7_000]), np.array(chain[7_000:])], 3).transition
    assert np.abs(found - STICKY.transition).max() < 0.03


@pytest.mark.parametrize(
    ("transition", "prior"),
    [
        ([[0.5, 0.5]], [0.5, 0.5]),
        ([[0.5, 0.6], [0.5, 0.5]], [0.5, 0.5]),
        ([[1.0, 0.0], [0.5, 0.5]], [0.5, 0.5]),
        ([[0.5, 0.5], [0.5, 0.5]], [0.9, 0.9]),
        ([[0.5, math.nan], [0.5, 0.5]], [0.5, 0.5]),
    ],
)
def test_tables_that_are_no_chain(transition, prior):
    with pytest.raises(DatasetError, match="transitions"):
        HiddenMarkov(np.array(transition), np.array(prior))


def test_delay_by_hand():
    truth = [np.array([0, 0, 1, 1, 1, 2, -1, 0, 0]), np.array([2, 2, 0])]
    plain = [one_hot([0, 0, 1, 1, 1, 2, 0, 1, 1]), one_hot([2, 2, 0])]
    smooth = [one_hot([0, 0, 0, 0, 1, 1, 0, 0, 0]), one_hot([2, 2, 0])]
    delay = added_delay(truth, plain, smooth, stride_s=0.5)
    # 0 to 1: two windows later. 1 to 2: swallowed. After the unlabelled one: no change. The second segment: no lag.
    assert (delay.changes, delay.followed, delay.followed_smoothed) == (3, 3, 2)
    assert delay.seconds == pytest.approx((2 + 0) / 2 * 0.5)


def test_no_change_no_delay():
    delay = added_delay([np.zeros(4, int)], [one_hot([0] * 4)], [one_hot([0] * 4)], stride_s=0.5)
    assert math.isnan(delay.seconds)
    assert (delay.changes, delay.followed, delay.followed_smoothed) == (0, 0, 0)


def test_the_delay_of_an_exponential_is_what_its_formula_gives():
    """From certain 0 to certain 1, ``1 - (1 - α)^n`` passes 1/2 at the third window for α = 0.25: two later."""
    truth = np.repeat([0, 1, 0, 1], 10)
    plain = [one_hot(truth.tolist())]
    delay = added_delay([truth], plain, exponential(plain, 0.25), stride_s=0.5)
    assert delay.seconds == pytest.approx(1.0)
    assert delay.followed_smoothed == delay.changes == 3


def segment(samples: int, seed: int) -> Segment:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((samples, 3)).astype(np.float32)
    label = rng.integers(-1, 3, samples).astype(np.int16)
    return Segment("a", f"r{seed}", ("acc_x", "acc_y", "acc_z"), 50.0, 0.0, values, label)


@given(st.lists(st.integers(2, 60), min_size=1, max_size=6), st.integers(1, 20), st.integers(1, 20))
def test_rows_go_back_to_the_segments_that_they_came_from(samples, length, stride):
    segments = [segment(n, seed) for seed, n in enumerate(samples)]
    settings = {"length": length, "stride": stride}
    long_enough = [s for s in segments if len(s.values) >= length]
    if not long_enough:
        with pytest.raises(DatasetError, match="windows"):
            by_segment(np.empty(0), segments, **settings)
        return
    windows = cut(segments, **settings, classes=3)
    blocks = by_segment(windows.truth, segments, **settings)
    assert len(blocks) == len(long_enough)
    for block, one in zip(blocks, long_enough, strict=True):
        assert np.array_equal(block, cut([one], **settings, classes=3).truth)
    with pytest.raises(DatasetError, match="windows"):
        by_segment(windows.truth[:-1], segments, **settings)
