from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import BUCKET_MS, MAX_SKEW, DeviceClock, unwrap
from protocol.packet import TICK_MODULUS

WALL = 1_790_000_000_000.0


@given(near=st.integers(-(2**40), 2**40), step=st.integers(-(2**31), 2**31 - 1))
def test_unwrap_finds_every_step_below_half_a_turn(near: int, step: int) -> None:
    assert unwrap((near + step) % TICK_MODULUS, near, TICK_MODULUS) == near + step


def test_the_first_packet_is_enough() -> None:
    clock = DeviceClock()
    assert not clock.ready
    clock.observe(500.0, WALL)
    assert clock.ready
    assert clock.to_wall_ms(500.0) == WALL
    assert clock.to_wall_ms(1500.0) == WALL + 1000
    assert clock.skew == 0


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    ppm=st.floats(-100, 100),
    first=st.floats(0, 2**33),
    jitter_ms=st.sampled_from([0.0, 5.0, 50.0]),
)
def test_offset_and_skew_from_delayed_packets(seed: int, ppm: float, first: float, jitter_ms: float) -> None:
    """Twenty minutes of a packet a second, delays exponential: the clock is known to a few milliseconds."""
    rng = np.random.default_rng(seed)
    clock = DeviceClock()
    worst = 0.0
    for i in range(1200):
        tick = first + 1000.0 * i
        true_wall = WALL + (tick - first) * (1 + ppm * 1e-6)
        clock.observe(tick, true_wall + rng.exponential(jitter_ms))
        assert clock.to_tick(clock.to_wall_ms(tick)) == pytest.approx(tick, abs=0.01)
        assert abs(clock.skew) <= MAX_SKEW
        if i > 150:
            worst = max(worst, abs(clock.to_wall_ms(tick) - true_wall))
    # Without a slope the skew moves the envelope by up to ppm times the ten minutes that are kept.
    assert worst < 1 + jitter_ms
    if jitter_ms <= 5:
        assert clock.skew == pytest.approx(ppm * 1e-6, abs=1e-6 + jitter_ms * 4e-6)


@given(seed=st.integers(0, 2**32 - 1))
def test_never_later_than_any_arrival(seed: int) -> None:
    """Delays are not negative: no packet may be said to have arrived before it was sent.

    But for the slope's share of half a minute, of which only the lowest point is kept.
    """
    rng = np.random.default_rng(seed)
    clock = DeviceClock()
    points = []
    for i in range(200):
        tick, wall = 1000.0 * i, WALL + 1000.0 * i + float(rng.gamma(0.5, 200.0))
        clock.observe(tick, wall)
        points.append((tick, wall))
        assert all(clock.to_wall_ms(t) <= w + MAX_SKEW * BUCKET_MS for t, w in points)


def test_a_wrong_estimate_leaves_within_ten_minutes() -> None:
    """The gateway's clock was an hour slow and is set right: all later packets look late at first."""
    clock = DeviceClock()
    for i in range(60):
        clock.observe(1000.0 * i, WALL - 3_600_000 + 1000.0 * i)
    for i in range(60, 60 + 660):
        clock.observe(1000.0 * i, WALL + 1000.0 * i)
    assert clock.to_wall_ms(720_000.0) == pytest.approx(WALL + 720_000, abs=1)


def test_a_clock_that_is_set_back_is_learned_at_once() -> None:
    clock = DeviceClock()
    for second in range(600):
        clock.observe(1000.0 * second, WALL + 1000.0 * second)
    for second in range(600, 900):
        clock.observe(1000.0 * second, WALL + 1000.0 * second - 3_600_000)
        assert clock.to_wall_ms(1000.0 * second) == pytest.approx(WALL + 1000.0 * second - 3_600_000, abs=1)


def test_a_backlog_does_not_disturb_the_clock() -> None:
    clock = DeviceClock()
    for i in range(100):
        clock.observe(1000.0 * i, WALL + 1000.0 * i)
    for i in range(100, 400):  # queued for five minutes, then all at once
        clock.observe(1000.0 * i, WALL + 400_000.0 + i)
    assert clock.to_wall_ms(300_000.0) == pytest.approx(WALL + 300_000, abs=1)
