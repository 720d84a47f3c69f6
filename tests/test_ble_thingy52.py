"""Nordic Thingy:52: bytes worked out from Nordic's firmware documentation."""

import numpy as np
import pytest
from emulated_boards import Thingy52Board, begin, check_hostile, random_values, read_all
from hypothesis import given
from hypothesis import strategies as st

from device_emulator.ble.profiles.base import Seen
from device_emulator.ble.profiles.thingy52 import CONFIGURATION_SERVICE, RAW_DATA, THINGY52
from quantization.errors import ProfileError
from quantization.imu import ACC_GYRO


def test_a_sample_by_hand():
    session = THINGY52.open(rate_hz=50)
    # 1 g = 1024, -0.5 g = -512, 1/1024 g; 1 °/s = 32, -1000 °/s = -32000, 1/32 °/s; the magnetometer's are not read.
    data = bytes.fromhex("0004 00fe 0100  2000 0083 0100  ffff ff7f 0080")
    (samples,) = session.feed(RAW_DATA, data)
    assert samples.values.tolist() == [[1.0, -0.5, 1 / 1024, 1.0, -1000.0, 1 / 32]]
    assert samples.end_ns is None


def test_a_published_sample():
    """From issue 377 of github.com/IanHarvey/bluepy: a Thingy at rest."""
    (samples,) = THINGY52.open(rate_hz=50).feed(RAW_DATA, bytes.fromhex("f3ffbdff02fceaff0500f6ff000000000000"))
    assert samples.values[0, :3].tolist() == [-13 / 1024, -67 / 1024, -1022 / 1024]
    assert samples.values[0, 3:].tolist() == [-22 / 32, 5 / 32, -10 / 32]
    assert np.linalg.norm(samples.values[0, :3]) == pytest.approx(1, abs=0.01), "gravity"


def test_what_is_written():
    session = THINGY52.open(rate_hz=50)
    assert session.notify == ("ef680406-9b35-4933-9b10-52ffa9740042",)
    ((characteristic, data, response),) = session.start
    assert characteristic == "ef680401-9b35-4933-9b10-52ffa9740042"
    assert data == bytes.fromhex("e803 f401 f401 3200 01"), "1000 ms, 500 ms, 500 ms, 50 Hz, wake on motion"
    assert response
    assert session.stop == ()


@pytest.mark.parametrize(
    ("wanted", "rate"), [(50, 50), (48, 50), (51, 50), (52.6, 50), (52.7, 100), (12.5, 20), (1, 5), (210, 200)]
)
def test_the_rate_is_the_lowest_that_serves(wanted, rate):
    assert THINGY52.open(rate_hz=wanted).rate_hz == rate


def test_what_it_cannot_do_is_said():
    with pytest.raises(ProfileError, match=r"rate: Nordic Thingy:52 offers up to 200 Hz; the model wants 400 Hz"):
        THINGY52.open(rate_hz=400)
    with pytest.raises(ProfileError, match=r"range: Nordic Thingy:52 offers ±32 g; ±8 g is wanted"):
        THINGY52.open(rate_hz=50, acc_g=8)
    with pytest.raises(ProfileError, match=r"offers ±1024 deg/s; ±2000 deg/s is wanted"):
        THINGY52.open(rate_hz=50, gyro_dps=2000)


@pytest.mark.parametrize("rate", [0, -50, float("nan"), float("inf")])
def test_no_rate(rate):
    with pytest.raises(ProfileError, match="no sampling rate"):
        THINGY52.open(rate_hz=rate)


def test_it_is_recognised():
    assert THINGY52.knows(Seen("a", services=frozenset({CONFIGURATION_SERVICE})))
    assert THINGY52.knows(Seen("a", name="Thingy"))
    assert not THINGY52.knows(Seen("a", name="My Thingy"))
    assert not THINGY52.knows(Seen("a"))


def test_a_stream():
    board, session = Thingy52Board(), THINGY52.open(rate_hz=100)
    begin(board, session)
    assert session.sensor.channels == ACC_GYRO == THINGY52.channels
    values = random_values(session, 500)
    read = read_all(session, board.encode(values))
    assert read.shape == values.shape
    assert (np.abs(read - values) <= np.asarray(session.sensor.lsb)).all()
    assert np.array_equal(session.sensor.to_counts(read), session.sensor.to_counts(values))


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes(notifications):
    session = THINGY52.open(rate_hz=50)
    refused = check_hostile(session, RAW_DATA, notifications)
    assert refused == sum(len(data) != 18 for data in notifications)
    assert len(session.feed(RAW_DATA, bytes(18))) == 1


def test_another_characteristic():
    session = THINGY52.open(rate_hz=50)
    with pytest.raises(ProfileError, match="characteristic"):
        session.feed("ef680405-9b35-4933-9b10-52ffa9740042", bytes(18))
    assert len(session.feed(RAW_DATA.upper(), bytes(18))) == 1
