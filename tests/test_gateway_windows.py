from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import codebook, tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import DeviceClock
from gateway.reassembly import Joint, Piece
from gateway.windows import WindowBuffer
from models.bundle import Bundle
from quantization.imu import ACC


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return tiny_bundle(folder, window=50, stride=25)


def piece(bundle: Bundle, tick: int, codes: np.ndarray, joint: Joint = Joint.FOLLOWS) -> Piece:
    return Piece(bundle, codes, 0, tick, 1000 / bundle.manifest.rate_hz, 0, 0, joint)


def clock() -> DeviceClock:
    made = DeviceClock()
    made.observe(0.0, 10_000.0)
    return made


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_windows_do_not_depend_on_packets(bundle: Bundle, sizes: list[int]) -> None:
    """However the stream is cut into packets, its windows are those of offline evaluation."""
    total = sum(sizes)
    stream = np.random.default_rng(total).integers(0, 16, (total, 6), dtype=np.uint8)
    buffer, windows, at = WindowBuffer("w", lambda _: None), [], 0
    for size in sizes:
        joint = Joint.FOLLOWS if at else Joint.START
        windows += buffer.add(piece(bundle, at * 20, stream[at : at + size], joint), clock())
        at += size
        assert len(buffer) < 50
    assert len(windows) == max(0, (total - 50) // 25 + 1)
    for k, window in enumerate(windows):
        assert np.array_equal(window.codes, stream[25 * k : 25 * k + 50])
        assert np.array_equal(window.ticks, 20.0 * np.arange(25 * k, 25 * k + 50))
        assert window.from_ms == 10_000 + 500 * k
        assert window.to_ms == window.from_ms + 980


@pytest.mark.parametrize(("joint", "reason"), [(Joint.GAP, "gap"), (Joint.START, "restart")])
def test_no_window_spans_a_break(bundle: Bundle, joint: Joint, reason: str) -> None:
    flushed: list[str] = []
    buffer = WindowBuffer("w", flushed.append)
    ones, twos = np.full((49, 6), 1, dtype=np.uint8), np.full((60, 6), 2, dtype=np.uint8)
    assert buffer.add(piece(bundle, 0, ones, Joint.START), clock()) == []
    epoch = buffer.epoch
    (window,) = buffer.add(piece(bundle, 5000, twos, joint), clock())
    assert (window.codes == 2).all()
    assert flushed == [reason]
    assert buffer.epoch - epoch == (joint is Joint.START)


def test_no_window_mixes_codebooks(bundle: Bundle, folder: Path) -> None:
    other = tiny_bundle(folder, "flat", book=codebook(curved=False))
    flushed: list[str] = []
    buffer = WindowBuffer("w", flushed.append)
    buffer.add(piece(bundle, 0, np.full((49, 6), 1, dtype=np.uint8), Joint.START), clock())
    (window,) = buffer.add(piece(other, 980, np.full((50, 6), 2, dtype=np.uint8)), clock())
    assert (window.codes == 2).all()
    assert window.bundle is other
    assert flushed == ["codebook"]


def test_channels_may_change_with_the_codebook(bundle: Bundle, folder: Path) -> None:
    other = tiny_bundle(folder, "acc", book=codebook(ACC, rate_hz=20.0))
    buffer = WindowBuffer("w", lambda _: None)
    buffer.add(piece(bundle, 0, np.zeros((49, 6), dtype=np.uint8), Joint.START), clock())
    (window,) = buffer.add(piece(other, 980, np.zeros((60, 3), dtype=np.uint8)), clock())
    assert window.codes.shape == (50, 3)
    assert window.ticks[-1] == 980 + 49 * 50


def test_a_new_network_for_the_same_codebook_takes_the_samples_over(bundle: Bundle, folder: Path) -> None:
    longer = tiny_bundle(folder, version=2, window=80, stride=40)
    flushed: list[str] = []
    buffer = WindowBuffer("w", flushed.append)
    buffer.add(piece(bundle, 0, np.full((49, 6), 1, dtype=np.uint8), Joint.START), clock())
    (window,) = buffer.add(piece(longer, 980, np.full((31, 6), 2, dtype=np.uint8)), clock())
    assert window.codes.shape == (80, 6)
    assert flushed == []
