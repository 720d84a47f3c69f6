"""Recording files."""

from dataclasses import replace

import numpy as np
import pytest
from hostile_files import HOSTILE, SOUND_TRACE, TRACES
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.trace import SUFFIX, Trace, load_trace
from quantization.errors import TraceError
from quantization.imu import ACC
from quantization.sensor import Sensor

PART = Sensor("adxl ±8 g", ACC, 12, (0.004, 0.004, 0.0039), (2000, 2048, 1990), signed=False)


def take(n: int = 5, seed: int = 0) -> Trace:
    rng = np.random.default_rng(seed)
    return Trace(
        sensor=PART,
        rate_hz=52.083,
        counts=rng.integers(0, 4096, size=(n, 3)).astype(np.int32),
        tick_ms=np.cumsum(rng.integers(1, 10**9, size=n)).astype(np.int64),
        label=rng.integers(-1, 2, size=n).astype(np.int16),
        labels=("gehen", "Treppe auf ↑"),
        subject="s 1",
        source="dataset",
    )


@settings(max_examples=25)
@given(st.integers(1, 200), st.integers(0, 1000))
def test_round_trip(tmp_path_factory, n, seed):
    path = tmp_path_factory.mktemp("trace") / f"a{SUFFIX}"
    trace = take(n, seed)
    trace.save(path)
    again = load_trace(path)
    for field in ("counts", "tick_ms", "label"):
        assert np.array_equal(getattr(again, field), getattr(trace, field))
        assert getattr(again, field).dtype == getattr(trace, field).dtype
    for field in ("sensor", "rate_hz", "labels", "subject", "source", "channels"):
        assert getattr(again, field) == getattr(trace, field)


def test_columns_of_a_larger_array_are_saved_as_they_are(tmp_path):
    trace = take()
    trace = replace(trace, counts=np.asfortranarray(trace.counts), tick_ms=trace.tick_ms)
    trace.save(tmp_path / "a.gwtrace")
    assert np.array_equal(load_trace(tmp_path / "a.gwtrace").counts, trace.counts)


def test_the_sound_file_reads(tmp_path):
    path = tmp_path / "sound.bin"
    path.write_bytes(SOUND_TRACE)
    trace = load_trace(path)
    assert (trace.counts.tolist(), trace.tick_ms.tolist(), trace.label.tolist()) == ([[-3], [4]], [0, 20], [-1, 0])
    assert trace.labels == ("walking",)


@pytest.mark.parametrize("name", sorted(TRACES))
def test_hostile_file(name):
    data, expected = TRACES[name]
    path = HOSTILE / name
    assert path.read_bytes() == data, "the file is what hostile_files.py makes; run it to write it anew"
    with pytest.raises(TraceError, match=expected) as caught:
        load_trace(path)
    assert str(path) in str(caught.value), "an error names its file"


def test_absent_files_and_folders(tmp_path):
    for path in (tmp_path / "absent.gwtrace", tmp_path):
        with pytest.raises(TraceError, match=str(path)):
            load_trace(path)


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "cut.gwtrace"
    for length in range(0, len(SOUND_TRACE), 5):
        path.write_bytes(SOUND_TRACE[:length])
        with pytest.raises(TraceError):
            load_trace(path)


@settings(max_examples=150)
@given(st.integers(0, len(SOUND_TRACE) - 1), st.integers(1, 255))
def test_damage_raises_our_error_or_reads_as_a_trace(tmp_path_factory, at, change):
    path = tmp_path_factory.getbasetemp() / "damaged.gwtrace"
    data = bytearray(SOUND_TRACE)
    data[at] ^= change
    path.write_bytes(data)
    try:
        assert isinstance(load_trace(path), Trace)
    except TraceError:
        return


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": np.zeros((4, 3), np.int32)},
        {"counts": np.zeros((5, 2), np.int32)},
        {"counts": np.zeros((0, 3), np.int32)},
        {"counts": np.full((5, 3), 4096, np.int32)},
        {"counts": np.full((5, 3), -1, np.int32)},
        {"tick_ms": np.array([0, 1, 2, 2, 3])},
        {"tick_ms": np.array([0, 1, 2, 1, 3])},
        {"label": np.full(5, 2, np.int16)},
        {"label": np.full(5, -2, np.int16)},
        {"rate_hz": 0.0},
        {"rate_hz": float("nan")},
        {"rate_hz": 1e9},
    ],
)
def test_takes_that_cannot_be(changes):
    with pytest.raises(TraceError):
        replace(take(), **changes)
