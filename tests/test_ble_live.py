"""Notifications in bursts, by a clock that is off, become an even stream whose ticks are true."""

from typing import NamedTuple

import numpy as np
import pytest
from factories import codebook, sensor
from hypothesis import example, given, settings
from hypothesis import strategies as st
from source_checks import check_source

from device_emulator.ble.clock import FRAME_S, HOLD_S, HOLD_SAMPLES, JITTER_S
from device_emulator.ble.live import MAX_SAMPLES, LiveSource, Resampler
from device_emulator.device import Device, shared_encoder
from protocol.packet import Packet
from quantization.codebook import RATE_TOLERANCE
from quantization.errors import ProfileError
from quantization.imu import ACC
from quantization.sensor import Sensor

START_S = 5000.0
INTERVAL_S = 0.03
"""Connection interval: notifications leave at multiples of it."""


class Notification(NamedTuple):
    taken_s: np.ndarray
    """True times of its samples, [n]."""
    end_ns: int | None
    arrival_s: float


def notifications(seconds, rate_hz, *, samples=(5, 25), times=True, error=0.0, jitter_s=0.015, seed=0):
    """What a wearable sends whose samples really are ``rate_hz`` apart, and whose own clock runs off by ``error``."""
    rng = np.random.default_rng(seed)
    sent, taken, arrival_s = [], 0, 0.0
    while taken / rate_hz < seconds:
        n = int(rng.integers(*samples, endpoint=True))
        taken_s = START_S + (taken + np.arange(n)) / rate_hz
        taken += n
        leaves_s = INTERVAL_S * np.ceil(taken_s[-1] / INTERVAL_S)
        arrival_s = max(arrival_s, float(leaves_s + rng.exponential(jitter_s)))
        end_ns = 10**18 + int((taken_s[-1] - START_S) * (1 + error) * 1e9) if times else None
        sent.append(Notification(taken_s, end_ns, arrival_s))
    return sent


def resampled(sent, signal, in_hz=52.0, out_hz=50.0):
    """All of it; ``signal``: times [n] to values [n]."""
    one = Resampler(1, in_hz, out_hz)
    out = [
        block for taken_s, end_ns, at_s in sent for block in one.push(signal(taken_s)[:, None], end_ns, at_s)
    ] + one.flush()
    return one, out


def on_the_line(one, out):
    """Times by ticks, and values, of all samples."""
    assert one.origin_s is not None
    gaps_ms = np.cumsum([block.gap_ms for block in out])
    sizes = [len(block.values) for block in out]
    times_s = np.arange(sum(sizes)) / one.out_hz + np.repeat(gaps_ms, sizes) / 1000 + one.origin_s
    return times_s, np.concatenate([block.values[:, 0] for block in out])


def gaps(out):
    return [block.gap_ms for block in out if block.gap_ms]


def clock_reading(taken_s):
    """A signal that is the time itself."""
    return taken_s - START_S


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("error", [-0.03, 0.0, 0.03])
def test_a_sine_keeps_frequency_phase_and_size_for_ten_minutes(error, times):
    """52 Hz by a clock that is 3 % off, in bursts: after a minute ticks are true to 30 ms and 200 ppm."""
    hertz = 2.0
    sent = notifications(600, 52 * (1 + error), times=times, error=error)
    one, out = resampled(sent, lambda t: np.sin(2 * np.pi * hertz * t))
    assert gaps(out) == []
    assert one.in_hz == pytest.approx(52 * (1 + error), rel=2e-4)
    times_s, values = on_the_line(one, out)
    assert times_s[-1] == pytest.approx(sent[-1].taken_s[-1], abs=0.03)

    turns = np.exp(-2j * np.pi * hertz * times_s)
    phases = []
    for start in range(60 * 50, len(values) - 500, 500):  # ten seconds each
        part = 2j * np.mean(values[start : start + 500] * turns[start : start + 500])
        assert abs(part) == pytest.approx(1, abs=0.002)
        phases.append(np.angle(part))
    late_s = -np.unwrap(phases) / (2 * np.pi * hertz)
    assert (late_s > -0.005).all()
    assert (late_s < 0.03).all()
    slope = np.polyfit(10.0 * np.arange(len(late_s)), late_s, 1)[0]
    assert abs(slope) < 50e-6, "frequency over nine minutes"
    # Evenness: what is left beside the sine is the jitter of the time line.
    tail = slice(-2500, None)
    basis = np.stack([turns[tail].real, turns[tail].imag], axis=1)
    left = values[tail] - basis @ np.linalg.lstsq(basis, values[tail], rcond=None)[0]
    assert np.sqrt(2 * np.mean(left**2)) < 0.03  # 2.4 ms


def test_ticks_are_within_a_tenth_of_a_second_from_the_first_on():
    for seed, error in enumerate((-0.03, 0.0, 0.03)):
        one, out = resampled(notifications(60, 52 * (1 + error), error=error, seed=seed), clock_reading)
        times_s, reading = on_the_line(one, out)
        assert np.abs(times_s - START_S - reading).max() < 0.1


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("samples", [(1, 1), (72, 72)])
def test_notifications_of_any_size(samples, times):
    one, out = resampled(notifications(200, 51.0, samples=samples, times=times), clock_reading)
    assert gaps(out) == []
    times_s, reading = on_the_line(one, out)
    assert np.abs(times_s - START_S - reading)[60 * 50 :].max() < 0.06


def test_blocks_are_what_one_push_of_all_would_give():
    """What is kept between two pushes is enough: the same samples in other portions give the same values."""
    rng = np.random.default_rng(1)
    for in_hz in (52.0, 208.0):
        values = rng.normal(size=(2000, 1))
        whole, parts = Resampler(1, in_hz, 50.0), Resampler(1, in_hz, 50.0)
        one = [*whole.push(values, None, 2000 / in_hz), *whole.flush()]
        some = []
        for end in range(10, 2001, 10):
            some += parts.push(values[end - 10 : end], None, end / in_hz)
        some += parts.flush()
        np.testing.assert_allclose(
            np.concatenate([b.values for b in some]), np.concatenate([b.values for b in one]), atol=1e-5
        )


# -- the filter -------------------------------------------------------------------------------------------------------


def size_db(hertz, in_hz, out_hz, seconds=60):
    sent = notifications(seconds, in_hz, jitter_s=0.0, samples=(16, 16))
    _, out = resampled(sent, lambda t: np.sin(2 * np.pi * hertz * t), in_hz, out_hz)
    middle = np.concatenate([block.values for block in out])[int(10 * out_hz) : int(-10 * out_hz)]
    return 10 * np.log10(2 * np.mean(middle**2))


@pytest.mark.parametrize(("in_hz", "out_hz"), [(104.0, 50.0), (100.0, 50.0), (200.0, 50.0), (52.0, 20.0)])
def test_what_is_above_the_new_nyquist_frequency_is_suppressed_by_58_db(in_hz, out_hz):
    for share in (0.51, 0.6, 0.8, 0.95):
        assert size_db(share * out_hz, in_hz, out_hz) < -58
    for share in (0.05, 0.2, 0.29):
        assert size_db(share * out_hz, in_hz, out_hz) == pytest.approx(0, abs=0.05)
    assert size_db(0.4 * out_hz, in_hz, out_hz) == pytest.approx(-6, abs=0.3)


@pytest.mark.parametrize("in_hz", [47.5, 50.0, 50.7, 52.0])
def test_near_the_own_rate_nothing_is_taken_away(in_hz):
    for hertz in (1.0, 10.0, 18.9):
        assert size_db(hertz, in_hz, 50.0) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("in_hz", [48.0, 52.0, 104.0, 833.0])
def test_a_constant_stays_what_it_is(in_hz):
    _, out = resampled(notifications(20, in_hz), lambda t: np.full(len(t), 0.123), in_hz)
    np.testing.assert_allclose(np.concatenate([block.values for block in out]), 0.123, rtol=1e-12)


def test_a_device_that_is_too_slow_is_refused():
    with pytest.raises(ProfileError, match="sends 10 Hz; the model wants 50 Hz"):
        Resampler(3, 10.0, 50.0)
    with pytest.raises(ProfileError):
        Resampler(3, 47.4, 50.0)
    Resampler(3, 47.5, 50.0)
    for rates in ((0.0, 50.0), (50.0, float("nan")), (float("inf"), 50.0), (50.0, -1.0)):
        with pytest.raises(ValueError, match="cannot resample"):
            Resampler(3, *rates)


# -- what is missing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [-0.03, 0.0, 0.03])
def test_a_lost_notification_is_a_gap_of_its_length(error):
    sent = notifications(120, 52 * (1 + error), samples=(25, 25), error=error)
    one, out = resampled([n for i, n in enumerate(sent) if i not in (100, 150, 151)], clock_reading)
    lost_ms = 1000 * 25 / (52 * (1 + error))
    assert gaps(out) == pytest.approx([lost_ms, 2 * lost_ms], abs=30)
    assert one.stretches == 3
    times_s, reading = on_the_line(one, out)
    assert np.abs(times_s - START_S - reading)[60 * 50 :].max() < 0.05
    # Nothing stands where samples are missing.
    for lost in (100, 150, 151):
        first, last = sent[lost].taken_s[[0, -1]] - START_S
        assert not ((reading >= first) & (reading <= last)).any()


@pytest.mark.parametrize(("samples", "lost"), [(25, (100,)), (25, (100, 101, 102)), (1, range(2600, 2640))])
def test_a_device_without_times_loses_what_does_not_come(samples, lost):
    sent = notifications(120, 52.0, samples=(samples, samples), times=False)
    one, out = resampled([n for i, n in enumerate(sent) if i not in lost], clock_reading)
    assert gaps(out) == pytest.approx([1000 * len(lost) * samples / 52], abs=60)
    times_s, reading = on_the_line(one, out)
    assert np.abs(times_s - START_S - reading)[60 * 50 :].max() < 0.06


def test_small_losses_without_times_are_made_good():
    """A tenth of a second is not told from lateness; the time line comes back to the arrivals."""
    sent = notifications(300, 52.0, samples=(5, 5), times=False)
    one, out = resampled([n for i, n in enumerate(sent) if i != 1000], clock_reading)
    assert gaps(out) == []
    times_s, reading = on_the_line(one, out)
    off_s = reading - (times_s - START_S)
    assert 0.05 < off_s[97 * 50 : 100 * 50].max() < 0.15
    assert np.abs(off_s[-50 * 50 :]).max() < 0.03


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("stall_s", [0.4, 3.0])
def test_what_is_only_late_is_no_gap(stall_s, times):
    sent = [
        n._replace(arrival_s=max(n.arrival_s, START_S + 60 + stall_s)) if n.arrival_s > START_S + 60 else n
        for n in notifications(120, 52.0, times=times)
    ]
    one, out = resampled(sent, clock_reading)
    assert gaps(out) == []
    assert one.stretches == 1
    times_s, reading = on_the_line(one, out)
    assert np.abs(times_s - START_S - reading)[50 * 50 :].max() < 0.05


@pytest.mark.parametrize("away_s", [3.0, 600.0])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("clock", ["goes on", "begins anew", "none"])
def test_after_a_reconnect_the_gap_is_as_long_as_the_link_was_away(clock, told, away_s):
    sent = notifications(60 + away_s + 60, 52 * 1.03, times=clock != "none", error=0.03)
    before = [n for n in sent if n.taken_s[-1] < START_S + 60]
    after = [n for n in sent if n.taken_s[0] > START_S + 60 + away_s]
    if clock == "begins anew":
        after = [n._replace(end_ns=n.end_ns - after[0].end_ns) for n in after]
    # What was queued while connecting comes at once.
    after = [n._replace(arrival_s=max(n.arrival_s, after[0].arrival_s + 0.6)) for n in after]
    one = Resampler(1, 52.0, 50.0)
    out = []
    for part in (before, after):
        for taken_s, end_ns, arrival_s in part:
            out += one.push(clock_reading(taken_s)[:, None], end_ns, arrival_s)
        if told:
            out += one.flush()
    out += one.flush()
    missing_s = after[0].taken_s[0] - before[-1].taken_s[-1] - 1 / 52
    assert gaps(out) == pytest.approx([1000 * missing_s], abs=80)
    times_s, reading = on_the_line(one, out)
    assert np.abs(times_s - START_S - reading)[30 * 50 :].max() < 0.08


def test_a_clock_that_is_set_costs_no_time():
    sent = notifications(120, 52.0)
    sent = sent[:200] + [n._replace(end_ns=n.end_ns + 3600 * 10**9) for n in sent[200:]]
    one, out = resampled(sent, clock_reading)
    assert one.stretches == 2
    assert sum(gaps(out)) <= 40
    times_s, reading = on_the_line(one, out)
    assert np.abs(times_s - START_S - reading)[60 * 50 :].max() < 0.08


@pytest.mark.parametrize("out_hz", [20.0, 30.0, 50.0])
def test_samples_and_gaps_are_the_time_that_passed(out_hz):
    rng = np.random.default_rng(3)
    sent = [n for n in notifications(600, 52.0) if rng.random() > 0.1]
    _, out = resampled(sent, clock_reading, out_hz=out_hz)
    passed_s = sum(len(block.values) for block in out) / out_hz + sum(gaps(out)) / 1000
    assert passed_s == pytest.approx(sent[-1].taken_s[-1] - sent[0].taken_s[0], abs=0.05 + 1 / out_hz)
    assert len(gaps(out)) > 50


# -- hostile ----------------------------------------------------------------------------------------------------------

_PUSHES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 30), st.sampled_from([MAX_SAMPLES])),
        st.one_of(st.none(), st.integers(-(10**12), 10**12), st.sampled_from([2**64, -(2**64), 10**400, -(10**400)])),
        st.one_of(st.just(0.0), st.floats(0, 3), st.sampled_from([1e6])),
        st.booleans(),
    ),
    max_size=40,
)


@given(pushes=_PUSHES, in_hz=st.sampled_from([48.0, 52.0, 400.0]))
@example(pushes=[(MAX_SAMPLES, None, 0.0, False), (MAX_SAMPLES, 0, 0.0, False), (16, None, 0.0, True)], in_hz=48.0)
@settings(deadline=None)
def test_whatever_comes_the_time_line_is_even_and_bounded(pushes, in_hz):
    one = Resampler(2, in_hz, 50.0)
    arrival_s, pushed, given_back, gaps_ms, frame_s = 1000.0, 0, 0, 0, 0.0
    for samples, end_ns, wait_s, flush in pushes:
        arrival_s += wait_s
        pushed += samples
        if end_ns is not None and samples / in_hz >= FRAME_S[0]:  # those may be late by as much as they last
            frame_s = min(max(frame_s, samples / in_hz), FRAME_S[1])
        out = one.push(np.ones((samples, 2)), end_ns, arrival_s) + (one.flush() if flush else [])
        for block in out:
            np.testing.assert_allclose(block.values, 1.0)
            assert block.values.shape[1] == 2
            assert len(block.values) >= 1
            assert isinstance(block.gap_ms, int)
            assert block.gap_ms >= 0
            given_back += len(block.values)
            gaps_ms += block.gap_ms
        # Never more than came in, but for the rate's tolerance and the time line's corrections; never from the future.
        assert given_back <= pushed * 50 / in_hz * (1 + RATE_TOLERANCE) * 1.15 + one.stretches
        if one.origin_s is not None:
            ahead_s = one.origin_s + given_back / 50 + gaps_ms / 1000 - arrival_s
            assert ahead_s <= JITTER_S + frame_s + 2.5 / in_hz + 1 / 50 + 1e-3
        assert one._clock._held_samples < HOLD_SAMPLES
        assert len(one._values) == len(one._times) <= 2 * one._half + 1


def test_a_device_that_lies_gives_no_more_than_time_passes():
    """Ten times the rate that it says: what comes before its time is left out, and a tenth of it is enough to fill."""
    one = Resampler(1, 52.0, 50.0)
    out = [block for i in range(6000) for block in one.push(np.zeros((5, 1)), None, i * 5 / 520)]
    passed_s = sum(len(block.values) for block in out) / 50 + sum(gaps(out)) / 1000
    assert passed_s < 6000 * 5 / 520 + HOLD_SAMPLES / 52


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e300])
def test_values_that_no_part_measures_are_refused(value):
    one = Resampler(1, 52.0, 50.0)
    with pytest.raises(ProfileError, match="no part measures"):
        one.push(np.array([[0.0], [value]]), None, 0.0)
    out = one.push(np.zeros((100, 1)), None, 0.0) + one.flush()
    assert sum(len(block.values) for block in out) == 96, "100 samples at 52 Hz last 95 periods of 50 Hz"


def test_other_shapes_are_a_mistake():
    one = Resampler(3, 52.0, 50.0)
    for shape in ((5,), (5, 2), (MAX_SAMPLES + 1, 3)):
        with pytest.raises(ValueError, match="shape"):
            one.push(np.zeros(shape), None, 0.0)
    assert one.push(np.zeros((0, 3)), 5, 0.0) == []
    assert one.flush() == []


# -- the source -------------------------------------------------------------------------------------------------------


def live(**options):
    return LiveSource(sensor(ACC), 50.0, ("walk", "sit"), **options)


def rows(values):
    return np.repeat(np.asarray(values, dtype=float)[:, None], 3, axis=1)


def test_a_live_source_is_a_source():
    def filled():
        source = live(subject="me")
        rng = np.random.default_rng(0)
        for number in range(40):
            source.set_label((None, "walk", "sit")[number % 3])
            source.push(rng.normal(size=(1 + number % 7, 3)), 500 if number in (9, 20) else 0)
        return source

    check_source(filled)
    assert (filled().kind, filled().subject) == ("device", "me")


def test_counts_are_those_of_the_part():
    source = live()
    source.push(rows([0.0, 1.0, -100.0, 100.0]))
    assert source.read(10).counts[:, 0].tolist() == [0, 256, -2048, 2047]


def test_labels_hold_from_the_next_sample_on():
    source = live()
    source.push(rows([0.0]))
    source.set_label("sit")
    source.push(rows([0.0, 0.0]))
    source.set_label(None)
    source.push(rows([0.0]))
    assert source.read(10).label.tolist() == [-1, 1, 1, -1]
    with pytest.raises(ValueError, match="run"):
        source.set_label("run")


def test_a_read_ends_at_a_gap():
    source = live()
    assert (source.available(), source.ready(1), len(source.read(5))) == (0, False, 0)
    source.push(rows([0.0] * 3))
    source.push(rows([0.0] * 2))
    assert (source.available(), source.ready(5), source.ready(6)) == (5, True, False)
    source.push(rows([0.0] * 4), 700)
    assert (source.available(), source.ready(6)) == (5, True), "no more will join them"
    assert len(source.read(2)) == 2
    block = source.read(10)
    assert (len(block), block.gap_ms) == (3, 0)
    block = source.read(1)
    assert (len(block), block.gap_ms) == (1, 700)
    assert (source.available(), source.read(10).gap_ms, source.available()) == (3, 0, 0)


@given(
    pushes=st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0, 0, 300]), st.integers(0, 12)), max_size=30),
    capacity=st.integers(1, 20),
    rate_hz=st.sampled_from([20.0, 50.0, 52.0]),
)
def test_what_is_dropped_is_counted_and_leaves_a_gap(pushes, capacity, rate_hz):
    """Each sample's value is its number: wherever it comes out, it comes out at its time."""
    part = Sensor("p", ("acc_x",), 16, (1.0,), (0,))
    source = LiveSource(part, rate_hz, capacity=capacity)
    true_ms, pushed, gaps_ms, read, read_gaps_ms = {}, 0, 0, 0, 0
    for samples, gap_ms, reads in pushes:
        if samples:
            gaps_ms += gap_ms
        for _ in range(samples):
            true_ms[pushed] = gaps_ms + 1000 * pushed / rate_hz
            pushed += 1
        source.push(np.arange(pushed - samples, pushed, dtype=float)[:, None], gap_ms)
        block = source.read(reads) if reads else source.read(1)
        read_gaps_ms += block.gap_ms
        for number in block.counts[:, 0].tolist():
            assert read_gaps_ms + 1000 * read / rate_hz == pytest.approx(true_ms[number], abs=0.51)
            read += 1
        waiting = pushed - read - source.dropped
        assert 0 <= source.available() <= waiting <= capacity
    with pytest.raises(ValueError, match="capacity"):
        LiveSource(part, rate_hz, capacity=0)


def test_a_device_makes_packets_with_true_ticks():
    """Through packets: a ramp that tells the time, a clock 3 % slow, a lost notification and a reconnect."""
    turn_s = 20.0  # the ramp's
    sent = notifications(240, 52 * 0.97, samples=(20, 25), error=-0.03)
    sent = [n for i, n in enumerate(sent) if i != 150 and not 120 < n.taken_s[-1] - START_S < 131]
    resampler, source = Resampler(3, 52.0, 50.0), live()
    book = codebook(ACC, bits=8, curved=False)
    device = Device("w1", source, shared_encoder(book, source.sensor))
    enough = round(device.packet_period_s * source.rate_hz)
    emissions = []
    assert device.next_packet() is None, "there is nothing yet"

    def pump(blocks, least):
        for values, gap_ms in blocks:
            source.push(values, gap_ms)
        while source.ready(least) and (emission := device.next_packet()) is not None:
            emissions.append(emission)

    for taken_s, end_ns, arrival_s in sent:
        ramp = 14 * ((taken_s - START_S) % turn_s) / turn_s - 7
        pump(resampler.push(rows(ramp), end_ns, arrival_s), enough)
    pump(resampler.flush(), 1)

    assert resampler.origin_s is not None
    origin_s = resampler.origin_s - START_S
    checked = 0
    for emission in emissions:
        packet = Packet.from_bytes(emission.packet)
        ramp = np.array(book.levels[0])[packet.codes(book)[:, 0]]
        true_s = (ramp + 7) / 14 * turn_s
        if emission.samples < 10 or not (1 < true_s[0] < true_s[-1] < turn_s - 1):
            continue  # the ramp falls back
        tick_s = packet.tick_ms / 1000 + np.arange(emission.samples) / 50 + origin_s
        off_s = (np.mean(tick_s - true_s) + turn_s / 2) % turn_s - turn_s / 2
        assert abs(off_s) < (0.05 if packet.tick_ms > 60_000 else 0.1)
        checked += 1
    assert checked > 150
    assert sum(emission.samples for emission in emissions) == device.samples_made
    last = emissions[-1]
    assert last.due_ms / 1000 + origin_s == pytest.approx(sent[-1].taken_s[-1] - START_S, abs=0.08)
    # Whole packets, but for the ends of the three stretches and what an entropy coder could not fit.
    assert np.median([emission.samples for emission in emissions]) == enough


def test_hold_is_the_only_delay_beside_the_filter():
    """In steady state an output comes no later than its filter's 9.1 samples after the notification that it needs."""
    one = Resampler(1, 52.0, 50.0)
    worst_s = 0.0
    for taken_s, end_ns, arrival_s in notifications(60, 52.0, samples=(1, 1), jitter_s=0.0):
        if one.push(taken_s[:, None], end_ns, arrival_s) and arrival_s > START_S + 2 * HOLD_S:
            worst_s = max(worst_s, arrival_s - (one.origin_s + (one._next - 1) / 50))
    assert 9 / 52 < worst_s < 11 / 52 + 1 / 50 + INTERVAL_S
