"""Movesense: payloads by hand, in one part and in several, an emulated sensor's stream, and hostile bytes."""

import struct

import numpy as np
import pytest
from emulated_movesense import EmulatedMovesense
from hypothesis import given, settings
from hypothesis import strategies as st

from device_emulator.ble.profiles.base import Seen
from device_emulator.ble.profiles.movesense import MOVESENSE, NOTIFY
from quantization.errors import ProfileError

G = 9.80665


def payload(time_ms, acc, gyro):
    """Rows of m/s² and °/s."""
    return struct.pack(f"<I{6 * len(acc)}f", time_ms, *np.ravel(acc), *np.ravel(gyro))


def still(time_ms, samples):
    return payload(time_ms, [[0, 0, G]] * samples, [[0, 0, 0]] * samples)


def connect(session, device):
    for write in session.start:
        for characteristic, data in device.on_write(write.characteristic, write.data):
            assert session.feed(characteristic, data) == []
    assert device.streaming
    assert device.rate_hz == session.rate_hz


# What is written


def test_the_start_and_the_stop():
    session = MOVESENSE.open(rate_hz=50.0)
    (start,) = session.start
    assert start.characteristic == "34800001-7185-4d5d-b431-630e7050e8f0"
    assert start.data == b"\x01\x63/Meas/IMU6/52"
    assert [write.data for write in session.stop] == [b"\x02\x63"]
    assert session.notify == ("34800002-7185-4d5d-b431-630e7050e8f0",)


@pytest.mark.parametrize(("wanted", "rate_hz"), [(1.0, 13), (13.6, 13), (14.0, 26), (50.0, 52), (100, 104), (208, 208)])
def test_the_lowest_rate_that_serves(wanted, rate_hz):
    assert MOVESENSE.open(rate_hz=wanted).rate_hz == rate_hz


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"rate_hz": 400.0}, "rate"),
        ({"rate_hz": float("nan")}, "rate"),
        ({"rate_hz": 52.0, "acc_g": 2.0}, "range"),
        ({"rate_hz": 52.0, "gyro_dps": 250.0}, "range"),
    ],
)
def test_what_cannot_be_done_is_refused(wanted, reason):
    with pytest.raises(ProfileError, match=r"Movesense offers|no sampling rate") as caught:
        MOVESENSE.open(**wanted)
    assert caught.value.reason == reason


def test_who_is_known():
    name, services = EmulatedMovesense.advertised
    assert MOVESENSE.knows(Seen("00:11:22:33:44:55", name, frozenset(services)))
    assert MOVESENSE.knows(Seen("00:11:22:33:44:55", "", frozenset(["34802252-7185-4d5d-b431-630e7050e8f0"])))
    assert not MOVESENSE.knows(Seen("00:11:22:33:44:55", "Polar H10 12345678", frozenset(services)))


def test_the_sensor_covers_the_widest_ranges():
    sensor = MOVESENSE.open(rate_hz=52.0).sensor
    assert sensor.channels == ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
    assert sensor.to_physical([[sensor.count_min] * 6]).ravel() == pytest.approx([-16.0] * 3 + [-2293.76] * 3)


# What is read


def test_one_sample_by_hand():
    # 1000 ms; 9.80665 0 -9.80665 m/s²; 90 -0.5 0 °/s
    data = "02 63 e8 03 00 00 0a e8 1c 41 00 00 00 00 0a e8 1c c1 00 00 b4 42 00 00 00 bf 00 00 00 00"
    (samples,) = MOVESENSE.open(rate_hz=13.0).feed(NOTIFY, bytes.fromhex(data))
    assert samples.values == pytest.approx(np.array([[1.0, 0.0, -1.0, 90.0, -0.5, 0.0]]), rel=1e-7)
    assert samples.values.dtype == np.float64
    assert samples.end_ns == 1_000_000_000


def test_two_samples_by_hand():
    # All of the accelerometer's before the gyroscope's: 1 2 3, 4 5 6 m/s²; 10 20 30, 40 50 60 °/s
    data = (
        "02 63 00 00 00 00 00 00 80 3f 00 00 00 40 00 00 40 40 00 00 80 40 00 00 a0 40 00 00 c0 40"
        "00 00 20 41 00 00 a0 41 00 00 f0 41 00 00 20 42 00 00 48 42 00 00 70 42"
    )
    (samples,) = MOVESENSE.open(rate_hz=26.0).feed(NOTIFY, bytes.fromhex(data))
    assert samples.values[:, :3] * G == pytest.approx(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert samples.values[:, 3:].tolist() == [[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]]
    assert samples.end_ns == 38_461_538  # one period of 1/26 s after the first


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 100, 156, 195])
def test_long_data_in_two_responses(cut):
    session = MOVESENSE.open(rate_hz=104.0)
    acc, gyro = np.arange(24.0).reshape(8, 3), np.arange(100.0, 124.0).reshape(8, 3)
    data = payload(2000, acc, gyro)
    assert len(data) == 196
    for _ in range(2):
        assert session.feed(NOTIFY, b"\x02\x63" + data[:cut]) == []
        (samples,) = session.feed(NOTIFY, b"\x03\x63" + data[cut:])
        assert samples.values == pytest.approx(np.hstack([acc / G, gyro]))
        assert samples.end_ns == 2_000_000_000 + 67_307_692


def test_a_lost_part_costs_its_payload_only():
    session = MOVESENSE.open(rate_hz=104.0)
    first, second = still(0, 8), still(77, 8)
    assert session.feed(NOTIFY, b"\x02\x63" + first[:150]) == []  # the rest is lost
    assert session.feed(NOTIFY, b"\x02\x63" + second[:150]) == []
    (samples,) = session.feed(NOTIFY, b"\x03\x63" + second[150:])
    assert samples.values == pytest.approx(np.array([[0, 0, 1, 0, 0, 0]] * 8))
    assert samples.end_ns == 77_000_000 + 67_307_692
    with pytest.raises(ProfileError, match="order"):  # here the beginning was lost
        session.feed(NOTIFY, b"\x03\x63" + second[150:])
    assert len(session.feed(NOTIFY, b"\x02\x63" + second)) == 1


def test_the_time_goes_on_when_its_32_bits_wrap():
    session = MOVESENSE.open(rate_hz=13.0)
    ends = []
    for time_ms in (2**32 - 50, 27, 2**32 - 50, 104):
        (samples,) = session.feed(NOTIFY, b"\x02\x63" + still(time_ms % 2**32, 1))
        ends.append(samples.end_ns // 1_000_000 - 2**32)
    assert ends == [-50, 27, -50, 104]


# Streams


@pytest.mark.parametrize("rate_hz", MOVESENSE.rates_hz)
@pytest.mark.parametrize("mtu", [64, 161, 247, 512])
def test_an_emulated_movesense(rate_hz, mtu):
    rng = np.random.default_rng(3)
    values = rng.uniform(-1, 1, size=(320, 6)) * ([16.0] * 3 + [2000.0] * 3)
    device = EmulatedMovesense(mtu=mtu, first_ms=2**32 - 500)
    session = MOVESENSE.open(rate_hz=rate_hz)
    connect(session, device)
    given_out = []
    for at in range(0, len(values), 7):
        for characteristic, data in device.encode(values[at : at + 7]):
            assert len(data) <= mtu - 3
            given_out += session.feed(characteristic, data)
    rows = np.concatenate([samples.values for samples in given_out])
    assert len(rows) == 320
    assert np.all(np.abs(rows - values) <= session.sensor.lsb)
    counts = np.cumsum([len(samples.values) for samples in given_out])
    due_ms = 2**32 - 500 + 1000 * (counts - 1) / rate_hz
    assert np.abs(np.array([samples.end_ns for samples in given_out]) / 1e6 - due_ms).max() <= 0.51


def test_the_session_stops_the_emulated_sensor():
    device, session = EmulatedMovesense(), MOVESENSE.open(rate_hz=52.0)
    connect(session, device)
    for write in session.stop:
        for characteristic, data in device.on_write(write.characteristic, write.data):
            assert session.feed(characteristic, data) == []
    assert not device.streaming
    assert device.encode(np.zeros((10, 6))) == []


# Refusals


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "reference"),
        (b"\x02\x63", "reference"),
        (b"\x02\x62" + still(0, 4), "reference"),
        (b"\x04\x63" + still(0, 4), "order"),
        (b"\x03\x63" + still(0, 4), "order"),
        (b"\x02\x63" + still(0, 4) + b"\0", "length"),
        (b"\x02\x63" + still(0, 8), "length"),
        (b"\x02\x63" + payload(0, [[0, 0, float("nan")]] * 4, [[0, 0, 0]] * 4), "value"),
        (b"\x02\x63" + payload(0, [[0, 0, G]] * 4, [[0, float("inf"), 0]] * 4), "value"),
        (b"\x02\x63" + payload(0, [[0, 0, 21 * G]] * 4, [[0, 0, 0]] * 4), "value"),
        (b"\x02\x63" + payload(0, [[0, 0, G]] * 4, [[0, 0, -3000]] * 4), "value"),
        (bytes.fromhex("01 63 94 01"), "refused"),  # 404
        (bytes.fromhex("01 63 fb 01"), "refused"),  # 507
        (bytes.fromhex("01 63 c8"), None),  # 200 in one byte
        (bytes.fromhex("01 63 c8 00"), None),
        (bytes.fromhex("01 63 c9 00 00"), None),
    ],
)
def test_what_is_refused(data, reason):
    session = MOVESENSE.open(rate_hz=52.0)
    if reason is None:
        assert session.feed(NOTIFY, data) == []
    else:
        with pytest.raises(ProfileError) as caught:
            session.feed(NOTIFY, data)
        assert caught.value.reason == reason
    (samples,) = session.feed(NOTIFY, b"\x02\x63" + still(0, 4))
    assert samples.values == pytest.approx(np.array([[0, 0, 1, 0, 0, 0]] * 4))


def test_another_characteristic():
    with pytest.raises(ProfileError, match="characteristic"):
        MOVESENSE.open(rate_hz=52.0).feed("34800001-7185-4d5d-b431-630e7050e8f0", b"\x02\x63" + still(0, 4))


PARTS = st.one_of(
    st.binary(max_size=600),
    st.builds(
        lambda kind, content: bytes([kind, 0x63]) + content,
        st.sampled_from([1, 2, 2, 3, 3, 4]),
        st.one_of(st.binary(max_size=400), st.integers(0, 450).map(bytes)),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PARTS, max_size=40), st.sampled_from(MOVESENSE.rates_hz))
def test_any_bytes_are_samples_or_a_profile_error(notifications, rate_hz):
    session = MOVESENSE.open(rate_hz=rate_hz)
    samples_each = int(rate_hz) // 13
    for data in notifications:
        try:
            given_out = session.feed(NOTIFY, data)
        except ProfileError:
            continue
        for samples in given_out:
            assert samples.values.shape == (samples_each, 6)
            assert np.isfinite(samples.values).all()
        assert len(session._part) < 4 + 24 * samples_each
    (samples,) = session.feed(NOTIFY, b"\x02\x63" + still(1, samples_each))
    assert samples.values == pytest.approx(np.array([[0, 0, 1, 0, 0, 0]] * samples_each))
