"""Resampling, on signals whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.datasets.base import Recording
from models.resample import Segment, resample
from quantization.errors import DatasetError


def recording(t_s, values=None, label=None) -> Recording:
    t_s = np.asarray(t_s, np.float64)
    values = np.ones(len(t_s)) if values is None else np.asarray(values)
    columns = np.stack([values] * 3, axis=1).astype(np.float32)
    label = np.zeros(len(t_s)) if label is None else np.asarray(label)
    return Recording("test", "s", "s_1", ("acc_x", "acc_y", "acc_z"), ("a", "b"), t_s, columns, label.astype(np.int16))


def only(segments: list[Segment]) -> Segment:
    assert len(segments) == 1
    return segments[0]


def times(segment: Segment):
    return segment.start_s + np.arange(len(segment.label)) / segment.rate_hz


def jittered(seconds: float, rate: float, share: float = 0.3):
    n = int(seconds * rate)
    jitter = np.random.default_rng(5).uniform(-share, share, n) / rate
    return np.sort(np.arange(n) / rate + jitter - jitter[0]).clip(0)


def tone(t, hz: float):
    return np.sin(2 * np.pi * hz * np.asarray(t))


def middle(segment: Segment):
    """Without the 0.5 s at each end where the held ends show."""
    skip = int(segment.rate_hz / 2)
    return slice(skip, -skip)


@pytest.mark.parametrize("rate", [20.0, 50.0, 95.5, 100.0, 120.0])
def test_slow_sine_survives_jitter(rate):
    t = jittered(6, 100)
    out = only(resample(recording(t, tone(t, 3)), rate))
    inner = middle(out)
    error = out.values[inner, 0] - tone(times(out), 3)[inner]
    assert np.abs(error).max() < 0.02


def test_regular_clock_at_its_own_rate_is_left_alone():
    values = np.random.default_rng(1).normal(size=300)
    out = only(resample(recording(np.arange(300) / 50, values), 50))
    assert np.abs(out.values[:, 2] - values.astype(np.float32)).max() < 1e-5
    assert len(out.label) == 300


@pytest.mark.parametrize(("hz", "gain"), [(5, 1.0), (14, 1.0), (20, 0.5), (25.5, 0.0), (40, 0.0), (49, 0.0)])
def test_low_pass_from_100_to_50_hz(hz, gain):
    t = np.arange(800) / 100
    out = only(resample(recording(t, tone(t, hz)), 50))
    inner = middle(out)
    # Zero phase: what is left has the input's phase, so the projection on the input's tone is the gain.
    reference = np.sin(2 * np.pi * hz * times(out))[inner]
    rest = out.values[inner, 0] - gain * reference
    assert np.abs(rest).max() < 0.02


def test_no_low_pass_within_five_per_cent():
    """20.03 Hz, as the WISDM watch runs, is 20 Hz; the top of its band stays."""
    t = np.arange(400) / 20.03
    out = only(resample(recording(t, tone(t, 4)), 20))
    assert np.abs(out.values[middle(out), 0]).max() > 0.9


@pytest.mark.parametrize("rate", [10.0, 50.0, 100.0, 200.0])
def test_constant_stays_constant_to_the_edges(rate):
    out = only(resample(recording(jittered(3, 100), np.full(300, -0.75)), rate))
    assert np.abs(out.values + 0.75).max() < 1e-6


def test_gap_splits_and_is_not_filled():
    t = np.concatenate([np.arange(100) / 100, 2 + np.arange(51) / 100])
    values = np.concatenate([np.zeros(100), np.ones(51)])
    first, second = resample(recording(t, values), 50)
    assert first.start_s == 0.0
    assert second.start_s == 2.0
    assert times(first)[-1] <= 0.99
    assert len(second.label) == 26
    assert not first.values.any()
    assert (second.values == 1).all()
    joined = only(resample(recording(t, values), 50, max_gap_s=1.5))
    assert len(joined.label) == 126


def test_short_pieces_are_dropped():
    t = [0.0, 0.01, 5.0, 10.0, 10.01, 10.02, 10.03]
    assert [s.start_s for s in resample(recording(t), 100)] == [0.0, 10.0]
    assert [s.start_s for s in resample(recording(t), 40)] == [10.0]
    assert resample(recording([0.0]), 50) == []


def test_equal_times_are_averaged_and_the_first_label_counts():
    t = [0.0, 0.1, 0.1, 0.1, 0.2]
    out = only(resample(recording(t, [0, 1, 2, 6, 0], [0, 1, 0, 0, 0]), 10))
    assert out.values[:, 0].tolist() == [0, 3, 0]
    assert out.label.tolist() == [0, 1, 0]


def test_labels_change_where_they_change():
    t = np.arange(300) / 100
    label = np.where(t < 1.004, 0, np.where(t < 2.0, 1, -1))
    out = only(resample(recording(t, label=label), 50))
    at = times(out)
    assert (out.label[at < 1.005] == 0).all()
    assert (out.label[(at > 1.015) & (at < 1.99)] == 1).all()
    assert (out.label[at > 2.005] == -1).all()


def test_nearest_label_prefers_the_earlier():
    assert only(resample(recording([0, 0.2], label=[0, 1]), 10)).label.tolist() == [0, 0, 1]


def test_bursts_do_not_blow_up_the_native_grid():
    """Nine samples within 18 ns, then 0.1 s nothing: the median step alone would ask for 10**8 points a second."""
    t = (np.arange(200)[:, None] / 10 + np.arange(9) * 2e-9).ravel()
    out = only(resample(recording(t), 20))
    assert np.abs(out.values - 1).max() < 1e-6


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1001])
def test_refuses_rates(rate):
    with pytest.raises(DatasetError, match="resample"):
        resample(recording([0, 1]), rate)


@pytest.mark.parametrize("gap", [0, -1, float("nan"), float("inf")])
def test_refuses_gaps(gap):
    with pytest.raises(DatasetError, match="max_gap_s"):
        resample(recording([0, 1]), 50, max_gap_s=gap)


@given(
    steps=st.lists(st.floats(0, 0.5) | st.sampled_from([0.0, 1e-300, 1e-9, 0.01, 0.25, 40.0]), max_size=80),
    rate=st.floats(0.5, 1000),
    seed=st.integers(0, 99),
)
def test_any_clock_gives_segments_on_an_exact_grid(steps, rate, seed):
    t = np.cumsum([0.0, *steps])
    generator = np.random.default_rng(seed)
    source = recording(t, generator.uniform(-2, 2, len(t)), generator.integers(-1, 2, len(t)))
    end = -1.0
    for segment in resample(source, rate):
        n = len(segment.label)
        assert n >= 2
        assert segment.values.shape == (n, 3)
        assert segment.values.dtype == np.float32
        assert segment.label.dtype == np.int16
        assert segment.rate_hz == rate
        assert np.isfinite(segment.values).all()
        assert segment.start_s > end
        end = segment.start_s + (n - 1) / rate
        assert end <= t[-1] + 1e-5
        assert set(segment.label) <= set(source.label)
