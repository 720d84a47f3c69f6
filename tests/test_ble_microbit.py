"""BBC micro:bit: bytes worked out from its Bluetooth profile, and some that people published."""

import numpy as np
import pytest
from emulated_boards import MicrobitBoard, begin, check_hostile, random_values, read_all
from hypothesis import given
from hypothesis import strategies as st

from device_emulator.ble.profiles.base import Seen
from device_emulator.ble.profiles.microbit import DATA, MICROBIT
from quantization.errors import ProfileError
from quantization.imu import ACC


@pytest.mark.parametrize(
    ("data", "milli_g"),
    [
        ("e803 18fc 0000", [1000, -1000, 0]),
        ("0020 0100 00e0", [8192, 1, -8192]),
        ("0001 a003 2001", [256, 928, 288]),  # published in issue 355 of github.com/lancaster-university/microbit-dal
        ("6000 6000 10fc", [96, 96, -1008]),  # issue 22: lying on a table
    ],
)
def test_a_sample_by_hand(data, milli_g):
    (samples,) = MICROBIT.open(rate_hz=50).feed(DATA, bytes.fromhex(data))
    assert samples.values.shape == (1, 3)
    assert samples.values[0].tolist() == pytest.approx(np.array(milli_g) / 1000)


@pytest.mark.parametrize(("wanted", "rate", "period"), [(50, 50, "1400"), (20, 50, "1400"), (60, 100, "0a00")])
def test_what_is_written(wanted, rate, period):
    session = MICROBIT.open(rate_hz=wanted)
    assert session.rate_hz == rate
    assert session.notify == ("e95dca4b-251d-470a-a062-fa1922dfa9a8",)
    assert session.start == (("e95dfb24-251d-470a-a062-fa1922dfa9a8", bytes.fromhex(period), True),)


def test_what_it_cannot_do_is_said():
    with pytest.raises(ProfileError, match=r"BBC micro:bit offers up to 100 Hz; the model wants 200 Hz"):
        MICROBIT.open(rate_hz=200)
    with pytest.raises(ProfileError, match="set by the program"):
        MICROBIT.open(rate_hz=50, acc_g=2)
    with pytest.raises(ProfileError, match="no gyroscope"):
        MICROBIT.open(rate_hz=50, gyro_dps=250)


def test_it_is_recognised():
    assert MICROBIT.knows(Seen("a", name="BBC micro:bit [zuvot]"))
    assert MICROBIT.knows(Seen("a", services=frozenset({"e95d0753-251d-470a-a062-fa1922dfa9a8"})))
    assert not MICROBIT.knows(Seen("a", name="micro:bit"))


@pytest.mark.parametrize("rate", MICROBIT.rates_hz)
def test_a_stream(rate):
    board, session = MicrobitBoard(), MICROBIT.open(rate_hz=rate)
    begin(board, session)
    assert session.sensor.channels == ACC == MICROBIT.channels
    values = random_values(session, 500)
    assert np.abs(values).max() > 8, "the widest range that a program can set"
    read = read_all(session, board.encode(values))
    assert (np.abs(read - values) <= np.asarray(session.sensor.lsb)).all()


@given(st.lists(st.binary(max_size=10), max_size=5))
def test_any_bytes(notifications):
    session = MICROBIT.open(rate_hz=50)
    assert check_hostile(session, DATA, notifications) == sum(len(data) != 6 for data in notifications)
    assert len(session.feed(DATA, bytes(6))) == 1
