"""Recordings come out as they were recorded: every sample, every gap."""

import dataclasses

import numpy as np
import pytest
from factories import LABELS, sensor
from hypothesis import given
from hypothesis import strategies as st
from source_checks import read_all, stream

from device_emulator.replay import MAX_GAP_MS, TAKE_GAP_MS, ReplaySource
from protocol.trace import Trace
from quantization.errors import TraceError


def trace(n, *, seed=0, rate_hz=50.0, gaps=None, part=None, labels=LABELS, subject="s1"):
    """``n`` random samples; ``gaps`` maps a sample's index to the extra milliseconds before it."""
    rng = np.random.default_rng(seed)
    part = part or sensor()
    counts = rng.integers(part.count_min, part.count_max + 1, (n, len(part.channels)), dtype=np.int32)
    tick_ms = np.rint(np.arange(n) * 1000 / rate_hz).astype(np.int64)
    for at, extra in (gaps or {}).items():
        tick_ms[at:] += extra
    label = np.repeat(rng.integers(-1, len(labels), n // 20 + 1), 20)[:n].astype(np.int16)
    return Trace(part, rate_hz, counts, tick_ms, label, labels, subject, "dataset")


def names(source, block):
    return [None if i < 0 else source.labels[i] for i in block.label]


def test_a_trace_comes_out_whole_and_ends():
    one = trace(300)
    source = ReplaySource([one], loop=False)
    counts, label, gaps = stream(read_all(source, 10_000, 64))
    assert counts == one.counts.tolist()
    assert label == one.label.tolist()
    assert gaps == []
    assert (source.rate_hz, source.kind, source.subject, source.sensor) == (50.0, "dataset", "s1", one.sensor)


def test_takes_are_apart_by_a_second_and_so_is_the_next_round():
    source = ReplaySource([trace(30, subject="a"), trace(20, seed=1, subject="b")], loop=True)
    counts, _, gaps = stream(read_all(source, 130, 7))
    assert gaps == [(30, TAKE_GAP_MS), (50, TAKE_GAP_MS), (80, TAKE_GAP_MS), (100, TAKE_GAP_MS)]
    assert counts[:50] == counts[50:100]
    assert TAKE_GAP_MS >= 1000
    assert source.subject == "a, b"


def test_a_single_take_that_starts_over_has_a_gap_too():
    assert stream(read_all(ReplaySource([trace(30)], loop=True), 90, 8))[2] == [(30, TAKE_GAP_MS), (60, TAKE_GAP_MS)]


def test_recorded_gaps_are_played_up_to_a_limit():
    one = trace(300, gaps={10: 20, 11: 9, 50: 3_600_000, 200: 11})
    assert stream(read_all(ReplaySource([one], loop=False), 300, 1000))[2] == [(10, 20), (50, MAX_GAP_MS), (200, 11)]


@given(
    rate=st.sampled_from([1.0, 20.0, 25.6, 50.0, 52.0, 104.0, 400.0, 833.0, 999.0, 1000.0]),
    jitter=st.integers(0, 2**32),
)
def test_rounding_of_ticks_is_no_gap(rate, jitter):
    one = trace(2000, rate_hz=rate, seed=jitter)
    assert stream(read_all(ReplaySource([one], loop=False), 2000, 1000))[2] == []


def test_takes_may_name_their_labels_differently():
    first = trace(60, labels=("A", "B"))
    second = trace(60, labels=("B", "C"), seed=3)
    source = ReplaySource([first, second], loop=False)
    assert source.labels == ("A", "B", "C")
    for one in (first, second):
        block = source.read(60)
        assert names(source, block) == [None if i < 0 else one.labels[i] for i in one.label]


def test_takes_must_be_of_one_device():
    one = trace(30)
    for other in (
        trace(30, rate_hz=20.0),
        trace(30, part=sensor(part="bmi270")),
        dataclasses.replace(one, source="device"),
    ):
        with pytest.raises(TraceError, match="one sensor, rate and kind"):
            ReplaySource([one, other], loop=False)
    with pytest.raises(TraceError, match="no trace"):
        ReplaySource([], loop=True)
