"""Polar: frames and answers of Polar's own documents, frames by hand, emulated devices' streams, and hostile bytes."""

import struct
from itertools import pairwise

import numpy as np
import pytest
from emulated_polar import START_NS, EmulatedH10, EmulatedVeritySense
from hypothesis import example, given, settings
from hypothesis import strategies as st

from device_emulator.ble.profiles.base import Seen
from device_emulator.ble.profiles.polar import CONTROL, DATA, MAX_ROWS, POLAR_H10, POLAR_VERITY_SENSE
from quantization.errors import ProfileError

ACC_STARTED = "f0 02 02 00 00 05 01 40 da 7f 39"
"""``online_measurement.pdf``, "Start stream": a Verity Sense's accelerometer with a factor of 0.000244 g."""
GYRO_STARTED = "f0 02 05 00 00 05 01 29 5c 8f 3d"
"""The same for the gyroscope, with 0.07 °/s."""
IN_MG = "f0 02 02 00 00"
"""polar-ble-sdk issue 443: newer firmware names no factor."""


def h10(rate_hz=50.0, **ranges):
    return POLAR_H10.open(rate_hz=rate_hz, **ranges)


def verity():
    return POLAR_VERITY_SENSE.open(rate_hz=50.0)


def answer(session, *answers):
    for data in answers:
        assert session.feed(CONTROL, bytes.fromhex(data)) == []


def frame(kind, end_ns, frame_type, payload):
    return struct.pack("<BQB", kind, end_ns, frame_type) + bytes.fromhex(payload)


def connect(session, device):
    """Write what the session wants written, and hand on the answers."""
    for write in session.start:
        for characteristic, data in device.on_write(write.characteristic, write.data):
            assert session.feed(characteristic, data) == []
    assert device.streaming
    assert device.rate_hz == session.rate_hz


def stream(session, device, values, chunk=40, lost=()):
    """All samples of ``values`` that come through; notifications whose number is in ``lost`` do not."""
    given_out, number = [], 0
    for at in range(0, len(values), chunk):
        for characteristic, data in device.encode(values[at : at + chunk]):
            if number not in lost:
                given_out += session.feed(characteristic, data)
            number += 1
    return given_out


def rows_of(samples, rate_hz, start_ns=START_NS):
    """Which of the emulated device's samples those are, by their times: the first is one period after ``start_ns``."""
    last = round((samples.end_ns - start_ns) * rate_hz / 1e9) - 1
    return slice(last - len(samples.values) + 1, last + 1)


def check(given_out, values, session, start_ns=START_NS):
    """Everything given out is what was measured then, within one LSB; which samples came."""
    lsb = np.asarray(session.sensor.lsb)
    came = np.zeros(len(values), dtype=bool)
    for samples in given_out:
        rows = rows_of(samples, session.rate_hz, start_ns)
        assert not came[rows].any()
        came[rows] = True
        assert np.all(np.abs(samples.values - values[rows]) <= lsb)
    return came


# What is written


def test_the_start_is_what_polar_documents():
    # online_measurement.pdf, "Start stream"; issues 331 and 443 show the same bytes for the Verity Sense.
    assert [(w.characteristic, w.data.hex(" "), w.response) for w in verity().start] == [
        ("fb005c81-02e7-f387-1cad-8acd2d8df0c8", "03 02", True),
        ("fb005c81-02e7-f387-1cad-8acd2d8df0c8", "03 05", True),
        ("fb005c81-02e7-f387-1cad-8acd2d8df0c8", "02 02 00 01 34 00 01 01 10 00 02 01 08 00 04 01 03", True),
        ("fb005c81-02e7-f387-1cad-8acd2d8df0c8", "02 05 00 01 34 00 01 01 10 00 02 01 d0 07 04 01 03", True),
    ]
    assert [w.data.hex(" ") for w in h10(200.0).start] == ["03 02", "02 02 00 01 c8 00 01 01 10 00 02 01 08 00"]
    assert [w.data.hex(" ") for w in h10(25.0, acc_g=2.0).start] == [
        "03 02",
        "02 02 00 01 19 00 01 01 10 00 02 01 02 00",
    ]


def test_the_stop_and_what_to_subscribe_to():
    assert [w.data.hex(" ") for w in h10().stop] == ["03 02"]
    assert [w.data.hex(" ") for w in verity().stop] == ["03 02", "03 05"]
    assert h10().notify == ("fb005c81-02e7-f387-1cad-8acd2d8df0c8", "fb005c82-02e7-f387-1cad-8acd2d8df0c8")


@pytest.mark.parametrize(("wanted", "given_rate"), [(20.0, 25.0), (26.0, 25.0), (27.0, 50.0), (50.0, 50.0), (200, 200)])
def test_the_lowest_rate_that_serves(wanted, given_rate):
    assert h10(wanted).rate_hz == given_rate


@pytest.mark.parametrize(
    ("profile", "wanted", "reason", "says"),
    [
        (POLAR_H10, {"rate_hz": 250.0}, "rate", "Polar H10 offers up to 200 Hz"),
        (POLAR_VERITY_SENSE, {"rate_hz": 100.0}, "rate", "Polar Verity Sense offers up to 52 Hz"),
        (POLAR_H10, {"rate_hz": 50.0, "acc_g": 16.0}, "range", "±2, ±4, ±8 g"),
        (POLAR_H10, {"rate_hz": 50.0, "gyro_dps": 2000.0}, "range", "none deg/s"),
        (POLAR_VERITY_SENSE, {"rate_hz": 50.0, "gyro_dps": 500.0}, "range", "±2000 deg/s"),
        (POLAR_H10, {"rate_hz": float("nan")}, "rate", "nan"),
        (POLAR_H10, {"rate_hz": 0.0}, "rate", "0"),
    ],
)
def test_what_cannot_be_done_is_refused_and_said(profile, wanted, reason, says):
    with pytest.raises(ProfileError, match=says) as caught:
        profile.open(**wanted)
    assert caught.value.reason == reason


def test_who_is_known():
    for device, profile in ((EmulatedH10, POLAR_H10), (EmulatedVeritySense, POLAR_VERITY_SENSE)):
        name, services = device.advertised
        seen = Seen("00:11:22:33:44:55", name, frozenset(services))
        assert [one for one in (POLAR_H10, POLAR_VERITY_SENSE) if one.knows(seen)] == [profile]
    assert not POLAR_H10.knows(Seen("00:11:22:33:44:55", "Polar H9 12345678"))
    assert not POLAR_VERITY_SENSE.knows(Seen("00:11:22:33:44:55"))


@pytest.mark.parametrize(("acc_g", "bits", "most"), [(2.0, 12, 2.047), (4.0, 13, 4.095), (8.0, 14, 8.191)])
def test_the_sensor_covers_the_range(acc_g, bits, most):
    sensor = h10(acc_g=acc_g).sensor
    assert (sensor.channels, sensor.adc_bits) == (("acc_x", "acc_y", "acc_z"), bits)
    assert sensor.to_physical([[sensor.count_max] * 3]).ravel() == pytest.approx([most] * 3)
    sensor = verity().sensor
    assert sensor.to_physical([[sensor.count_min] * 6]).ravel() == pytest.approx([-8.0] * 3 + [-2293.76] * 3)


# What is read


def test_a_raw_frame_of_the_document():
    # online_measurement.pdf, "Start stream", H10. (It prints x as -184 mg; ff45 is -187.)
    data = bytes.fromhex("02 ea 54 a2 42 8b 45 52 08 01 45 ff e4 ff b5 03 45 ff e4 ff b8 03")
    (samples,) = h10().feed(DATA, data)
    assert samples.end_ns == 599618164814402794
    assert samples.values.dtype == np.float64
    assert samples.values == pytest.approx(np.array([[-0.187, -0.028, 0.949], [-0.187, -0.028, 0.952]]))


@pytest.mark.parametrize(
    ("started", "frame_type", "payload", "unit", "counts"),
    [
        # online_measurement.pdf, "Start stream", Verity Sense; the first two of its differences
        (ACC_STARTED, 0x80, "d0 ff 65 01 e4 0f 08 02 fc 07 ff 0c 13 f2", 0.000244,
         [[-48, 357, 4068], [-52, 364, 4067], [-40, 383, 4053]]),
        # polar-ble-sdk, AccDataTest.kt, "acc compressed data type 0": 10 bits: +190, -105, -85
        (ACC_STARTED, 0x80, "71 07 f0 6a 9e 8d 0a 01 be 5c be ba", 0.000244,
         [[1905, 27376, -29282], [2095, 27271, -29367]]),
        # AccDataTest.kt, "acc compressed data type 1": 6 bits: -5, -3, 0; the padding is not 0
        (IN_MG, 0x81, "f1 ff 14 00 f0 03 06 01 7b 0f 08", 0.001, [[-15, 20, 1008], [-20, 17, 1008]]),
        # a reference sample alone
        (IN_MG, 0x81, "01 00 02 00 03 00", 0.001, [[1, 2, 3]]),
        # two blocks of 2 bits: +1 -1 -2 = 01 11 10 -> 10 1101 = 2d, then 0 0 +1 = 01 0000 = 10
        (IN_MG, 0x81, "00 00 00 00 00 00 02 01 2d 02 01 10", 0.001, [[0, 0, 0], [1, -1, -2], [1, -1, -1]]),
        # 17 bits, from one end of the range to the other: +65535 0 -65535
        (IN_MG, 0x81, "00 80 00 00 ff 7f 11 01 ff ff 00 00 04 00 04", 0.001, [[-32768, 0, 32767], [32767, 0, -32768]]),
        # the H10's reserved byte is no setting
        ("f0 02 02 00 00 01", 0x81, "01 00 02 00 03 00", 0.001, [[1, 2, 3]]),
        # a setting before the factor (0.5)
        ("f0 02 02 00 00 00 01 32 00 05 01 00 00 00 3f", 0x81, "01 00 02 00 03 00", 0.0005, [[1, 2, 3]]),
    ],
)  # fmt: skip
def test_delta_frames_of_the_accelerometer(started, frame_type, payload, unit, counts):
    session = h10()
    answer(session, started)
    (samples,) = session.feed(DATA, frame(2, 2_000_000_000, frame_type, payload))
    assert samples.end_ns == 2_000_000_000
    assert samples.values == pytest.approx(unit * np.array(counts))


def test_a_frame_that_a_verity_sense_sent():
    # polar-ble-sdk issue 443: its first block, 10 differences of 8 bits. The user held it still: about 1 g.
    payload = "ee 02 1f fe 82 ff 08 0a 10 da 20 d6 a3 0b d9 cb e7 d6 f6 c4 e6 f1 e1 f3 e0 15 1a fe 28 1b f8 37"
    session = h10()
    answer(session, IN_MG)
    (samples,) = session.feed(DATA, bytes.fromhex("02 00 41 6f c4 12 45 93 0a 81 " + payload + "2c 25 20 13 19 11"))
    assert samples.end_ns == 0x0A934512C46F4100
    assert samples.values[[0, 1, -1]] == pytest.approx(
        np.array([[0.750, -0.481, -0.126], [0.766, -0.519, -0.094], [0.720, -0.670, -0.034]])
    )
    assert np.all(np.abs(np.linalg.norm(samples.values, axis=1) - 1) < 0.15)


def test_rows_of_both_measurements_by_hand():
    session = verity()
    answer(session, ACC_STARTED, GYRO_STARTED)
    # Three samples each. The accelerometer's stand at 0, 1, 2 periods, the gyroscope's half a period earlier.
    period = 1e9 / 52
    acc_end, gyro_end = 10**18 + round(2 * period), 10**18 + round(1.5 * period)
    # counts 1000 0 0, then twice (+1 +1 +1) in 2 bits: 01 01 01, 01 01 01 -> 55 05
    assert session.feed(DATA, frame(2, acc_end, 0x80, "e8 03 00 00 00 00 02 02 55 05")) == []
    # GyrDataTest.kt, "gyro compressed data type 0": -22 8 13, then in 3 bits -1 +3 +3, there df 00; here twice:
    # 0b011_011_111_011_011_111 = 0x1bedf
    given_out = session.feed(DATA, frame(5, gyro_end, 0x80, "ea ff 08 00 0d 00 03 02 df be 01"))
    (samples,) = given_out
    # Gyroscope at -0.5, 0.5, 1.5 periods: -22 -23 -24; 8 11 14; 13 16 19. At 0 and 1: the means. At 2: not yet.
    gyro = 0.07 * np.array([[-22.5, 9.5, 14.5], [-23.5, 12.5, 17.5]])
    assert samples.values[:, 3:] == pytest.approx(gyro, rel=1e-6)
    assert samples.values[:, :3] == pytest.approx(0.000244 * np.array([[1000, 0, 0], [1001, 1, 1]]))
    assert samples.end_ns == pytest.approx(10**18 + period, abs=2)


def test_samples_of_the_same_time_are_joined_at_once():
    session = verity()
    answer(session, IN_MG, GYRO_STARTED)
    steps = "01 00 00 00 00 00 02 02 55 05"
    assert session.feed(DATA, frame(5, 10**18 + 1, 0x80, steps)) == []
    (samples,) = session.feed(DATA, frame(2, 10**18 + 1, 0x81, steps))
    expected = np.array([[1, 0, 0], [2, 1, 1], [3, 2, 2]])
    assert samples.values == pytest.approx(np.hstack([0.001 * expected, 0.07 * expected]))
    assert samples.end_ns == 10**18 + 1


def test_samples_on_both_sides_of_a_gap_are_given_out_apart():
    session = verity()
    answer(session, IN_MG, GYRO_STARTED)
    ends = [10**18 + round(periods * 1e9 / 52) for periods in (2, 10, 11)]
    for end_ns in ends[:2]:
        assert session.feed(DATA, frame(2, end_ns, 0x81, "00 00 00 00 00 00 02 02 55 05")) == []
    given_out = session.feed(DATA, frame(5, ends[2], 0x80, "00 00 00 00 00 00 02 0d" + 10 * "00"))
    assert [len(samples.values) for samples in given_out] == [3, 3]
    assert [samples.end_ns for samples in given_out] == ends[:2]


# Streams


@pytest.mark.parametrize("rate_hz", POLAR_H10.rates_hz)
@pytest.mark.parametrize("acc_g", [2.0, 8.0])
def test_an_emulated_h10(rate_hz, acc_g):
    rng = np.random.default_rng(7)
    values = rng.uniform(-acc_g, acc_g, size=(400, 3))
    device, session = EmulatedH10(), h10(rate_hz, acc_g=acc_g)
    connect(session, device)
    came = check(stream(session, device, values, chunk=17), values, session)
    assert came[:396].all()
    assert not came[396:].any()


@pytest.mark.parametrize("newer", [False, True])
def test_an_emulated_verity_sense(newer):
    rng = np.random.default_rng(8)
    values = rng.uniform(-1, 1, size=(900, 6)) * ([7.9] * 3 + [1999.0] * 3)
    values[300:600] *= 0.01  # other widths
    device, session = EmulatedVeritySense(newer=newer), verity()
    connect(session, device)
    if newer:  # in whole mg
        values[:, :3] = np.rint(values[:, :3] * 1000) / 1000
    came = check(stream(session, device, values), values, session)
    assert came[1:750].all()  # the first may lie a rounding before the gyroscope's


def ramps(samples, late_ns):
    """Straight lines over time, the gyroscope's sampled ``late_ns`` later."""
    seconds = np.arange(1, samples + 1)[:, None] / 52
    acc = -7 + seconds * [1.0, 0.5, 0.25]
    gyro = -1900 + (seconds + late_ns / 1e9) * [300.0, 150.0, 75.0]
    return np.hstack([acc, gyro]), np.hstack([acc, gyro - late_ns / 1e9 * np.array([300.0, 150.0, 75.0])])


@pytest.mark.parametrize("late_ns", [-19_000_000, -7_000_000, 3, 7_000_000, 30_000_000])
def test_the_gyroscope_is_interpolated_to_the_accelerometer(late_ns):
    sent, expected = ramps(600, late_ns)
    device, session = EmulatedVeritySense(gyro_late_ns=late_ns), verity()
    connect(session, device)
    came = check(stream(session, device, sent), expected, session)
    assert came[3:500].all()


@pytest.mark.parametrize("lost", [{2}, {3}, {4, 5}, {4, 6}])
def test_what_lacks_its_partner_is_not_given_out(lost):
    sent, expected = ramps(600, 0)
    device, session = EmulatedVeritySense(), verity()
    connect(session, device)
    given_out = stream(session, device, sent, lost=lost)
    came = check(given_out, expected, session)
    assert 10 < np.sum(~came[3:500]) <= 72 * len(lost)
    assert came[350:500].all()
    ends = [samples.end_ns for samples in given_out]
    assert all(a < b for a, b in pairwise(ends))


def test_a_clock_that_is_set_anew_costs_some_samples():
    values, expected = ramps(400, 0)
    session = verity()
    for start_ns in (START_NS + 10**18, START_NS - 10**17, START_NS - 10**17 - 10**9, 10**9, START_NS):
        device = EmulatedVeritySense()
        device.now_ns = dict.fromkeys(device.now_ns, start_ns)
        connect(session, device)
        came = check(stream(session, device, values), expected, session, start_ns)
        assert came[75:300].all()


def test_a_device_whose_clock_runs_otherwise():
    device, session = EmulatedVeritySense(), verity()
    device.drift = 0.04
    line = np.arange(700)[:, None] * [0.01, 0.01, 0.01, 2.0, 2.0, 2.0] + [-3.5, -3.5, -3.5, -700.0, -700.0, -700.0]
    connect(session, device)
    given_out = stream(session, device, line)
    rows = np.concatenate([samples.values for samples in given_out if samples.end_ns > START_NS + 3 * 10**9])
    assert len(rows) > 400
    assert np.abs(rows[:, 3:] / 200 - rows[:, :3]).max() < 0.0006  # both lie on the same line
    period = np.diff([samples.end_ns for samples in given_out]) / [len(samples.values) for samples in given_out[1:]]
    assert period[3:] == pytest.approx(1.04e9 / 52, rel=1e-3)


def test_what_waits_is_bounded():
    session = verity()
    answer(session, ACC_STARTED, GYRO_STARTED)
    block = "02 ff" + 192 * "00"
    for number in range(20):
        for kind in (2, 2, 5) if number > 15 else (2,):
            session.feed(DATA, frame(kind, (number + 1) * 10**10, 0x80, "00 00 00 00 00 00" + block))
            assert all(len(times) <= MAX_ROWS for times in session._joiner._times.values())
            assert all(len(values) <= MAX_ROWS for values in session._joiner._values.values())


# Refusals


@pytest.mark.parametrize(
    ("data", "reason", "says"),
    [
        ("f0 02 02 08 00", "refused", r"does not start its accelerometer: invalid sampling rate \(8\)"),
        ("f0 02 02 06 00", "refused", "already"),
        ("f0 02 02 0d", "refused", "charger"),
        ("f0 02 02 ff 00", "refused", r"unknown \(255\)"),
        ("f0 03 02 0c 00", "refused", "does not stop"),
        ("01 02", "stopped", "accelerometer"),
        ("01 02 07", "stopped", "accelerometer, 7"),
        ("f0 02 05 00 00", "answer", "asked"),  # it has no gyroscope
        ("f0 01 02 00 00", "answer", "asked"),
        ("f0 02 02", "answer", "asked"),
        ("", "answer", "asked"),
        ("77 02 02 00", "answer", "asked"),
        ("f0 02 02 00 00 05 01 00 00", "settings", "read"),
        ("f0 02 02 00 00 09 01 00 00 00 00", "settings", "read"),
        ("f0 02 02 00 00 05 01 00 00 c0 7f", "settings", "nan"),
        ("f0 02 02 00 00 05 01 00 00 80 7f", "settings", "inf"),
        ("f0 02 02 00 00 05 01 00 00 00 00", "settings", "factor of 0"),
        ("f0 02 02 00 00 05 01 00 00 80 bf", "settings", "factor of -1"),
    ],
)
def test_answers_that_are_errors(data, reason, says):
    session = h10()
    with pytest.raises(ProfileError, match=says) as caught:
        session.feed(CONTROL, bytes.fromhex(data))
    assert caught.value.reason == reason
    assert len(session.feed(DATA, frame(2, 1, 1, "01 00 02 00 03 00"))) == 1


def test_answers_that_are_none():
    # Stopping what does not run is no error; what reading the control point gives is no answer.
    answer(h10(), "f0 03 02 06 00", "f0 03 02 00 00", "0f 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00")


@pytest.mark.parametrize(
    ("kind", "frame_type", "payload", "reason"),
    [
        (2, 0x01, "", "length"),
        (2, 0x01, "01 00 02 00 03", "length"),
        (2, 0x01, 504 * "00", "length"),
        (2, 0x00, "01 02 03", "frame"),
        (2, 0x82, "01 00 02 00 03 00", "frame"),
        (5, 0x80, "01 00 02 00 03 00", "frame"),
        (0, 0x00, "01 00 02", "frame"),
        (2, 0x80, "01 00 02 00 03", "length"),
        (2, 0x80, "00 00 00 00 00 00 08", "delta"),
        (2, 0x80, "00 00 00 00 00 00 00 ff", "delta"),  # 255 samples in no bytes
        (2, 0x80, "00 00 00 00 00 00 08 00", "delta"),
        (2, 0x80, "00 00 00 00 00 00 12 01 00 00 00 00 00 00 00", "delta"),
        (2, 0x80, "00 00 00 00 00 00 08 02 01 02 03 04 05", "length"),
        (2, 0x80, "ff 7f 00 00 00 00 08 01 01 00 00", "delta"),  # 32768
    ],
)
def test_frames_that_are_none(kind, frame_type, payload, reason):
    session = h10()
    answer(session, ACC_STARTED)
    with pytest.raises(ProfileError) as caught:
        session.feed(DATA, frame(kind, 1, frame_type, payload))
    assert caught.value.reason == reason


def test_a_delta_frame_before_its_scale_is_known():
    session = h10()
    with pytest.raises(ProfileError, match="factor"):
        session.feed(DATA, frame(2, 1, 0x80, "00 00 00 00 00 00"))


def test_another_characteristic():
    with pytest.raises(ProfileError, match="characteristic"):
        h10().feed("00002a37-0000-1000-8000-00805f9b34fb", b"\x00\x40")


HOSTILE_FRAMES = st.one_of(
    st.binary(max_size=600),
    st.builds(
        lambda kind, end_ns, frame_type, payload: struct.pack("<BQB", kind, end_ns, frame_type) + payload,
        st.sampled_from([2, 5]),
        st.one_of(st.integers(0, 2**64 - 1), st.integers(START_NS, START_NS + 10**9)),
        st.sampled_from([0x01, 0x80, 0x81]),
        st.one_of(
            st.binary(max_size=500),
            st.binary(max_size=20).map(lambda some: (some * 6)[: len(some) // 6 * 6] or bytes(6)),
            st.builds(lambda n: bytes(6) + bytes([2, n]) + bytes((6 * n + 7) // 8), st.integers(1, 255)),
        ),
    ),
)
HOSTILE_ANSWERS = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=12).map(lambda rest: b"\xf0\x02\x02\x00\x00" + rest),
    st.binary(max_size=12).map(lambda rest: b"\xf0\x02\x05\x00\x00\x05\x01" + rest),
)
HOSTILE = st.lists(
    st.one_of(
        st.tuples(st.just(DATA), HOSTILE_FRAMES),
        st.tuples(st.just(CONTROL), HOSTILE_ANSWERS),
        st.tuples(st.text(max_size=40), st.binary(max_size=20)),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(HOSTILE, st.sampled_from([POLAR_H10, POLAR_VERITY_SENSE]))
@example([(DATA, frame(2, 2**64 - 1, 0x80, 6 * "00")), (DATA, frame(5, 0, 0x80, 6 * "00"))], POLAR_VERITY_SENSE)
@example([(DATA, frame(5, 0, 0x80, 6 * "00")), (DATA, frame(2, 2**64 - 1, 0x80, 6 * "00"))], POLAR_VERITY_SENSE)
def test_any_bytes_are_samples_or_a_profile_error(notifications, profile):
    session = profile.open(rate_hz=50.0)
    if profile is POLAR_VERITY_SENSE:
        answer(session, ACC_STARTED, GYRO_STARTED)
    for characteristic, data in notifications:
        try:
            given_out = session.feed(characteristic, data)
        except ProfileError:
            continue
        for samples in given_out:
            assert samples.values.ndim == 2
            assert samples.values.shape[1] == len(session.sensor.channels)
            assert 0 < len(samples.values) <= 1400
            assert np.isfinite(samples.values).all()
            session.sensor.to_counts(samples.values)
    # And then it serves: what it lost is found again.
    device = EmulatedH10() if profile is POLAR_H10 else EmulatedVeritySense()
    connect(session, device)
    values = np.random.default_rng(0).uniform(-1, 1, size=(360, len(session.sensor.channels)))
    given_out = [s for s in stream(session, device, values) if 2e9 < s.end_ns - START_NS <= 360e9 / session.rate_hz]
    came = check([s for s in given_out if rows_of(s, session.rate_hz).start >= 75], values, session)
    assert came[150:280].all()


# The emulated device itself


def test_the_session_starts_and_stops_the_emulated_device():
    device, session = EmulatedVeritySense(), verity()
    connect(session, device)
    ((_, refusal),) = device.on_write(CONTROL, session.start[-1].data)
    with pytest.raises(ProfileError, match="already"):
        session.feed(CONTROL, refusal)
    for write in session.stop:
        for characteristic, data in device.on_write(write.characteristic, write.data):
            session.feed(characteristic, data)
    assert not device.streaming
