"""TI SensorTag CC2650: bytes worked out from TI's user's guide."""

import numpy as np
import pytest
from emulated_boards import SensorTagBoard, begin, check_hostile, end, random_values, read_all
from hypothesis import given
from hypothesis import strategies as st

from device_emulator.ble.profiles.base import Seen
from device_emulator.ble.profiles.sensortag import CONFIGURATION, DATA, MOVEMENT_SERVICE, PERIOD, SENSORTAG, SensorTag
from quantization.errors import ProfileError


@pytest.mark.parametrize(("acc_g", "at_rest"), [(2.0, "0040"), (4.0, "0020"), (8.0, "0010"), (16.0, "0008")])
def test_a_sample_by_hand(acc_g, at_rest):
    session = SENSORTAG.open(rate_hz=10, acc_g=acc_g)
    # Rotation first: 125 °/s = 16384, -250 °/s = -32768, 1 count = 250/32768 °/s. Then 0, 1 g, -32768; then the field.
    data = bytes.fromhex(f"0040 0080 0100  0000 {at_rest} 0080  ffff ffff ffff")
    (samples,) = session.feed(DATA, data)
    assert samples.values.tolist() == [[0.0, 1.0, -acc_g, 125.0, -250.0, 250 / 32768]]


def test_what_is_written():
    session = SENSORTAG.open(rate_hz=10)
    assert session.notify == ("f000aa81-0451-4000-b000-000000000000",)
    assert [(write.characteristic, write.data.hex()) for write in session.start] == [
        ("f000aa83-0451-4000-b000-000000000000", "0a"),  # 100 ms
        # 0x023f: gyroscope, accelerometer, 8 g; the value that stackoverflow.com/a/40253654 found to work
        ("f000aa82-0451-4000-b000-000000000000", "3f02"),
    ]
    assert [(write.characteristic, write.data.hex()) for write in session.stop] == [(CONFIGURATION, "0000")]
    assert SENSORTAG.open(rate_hz=4).start[0].data == bytes([25]), "250 ms"
    assert SENSORTAG.open(rate_hz=1, acc_g=16).start == ((PERIOD, b"\x64", True), (CONFIGURATION, b"\x3f\x03", True))


def test_what_it_cannot_do_is_said():
    with pytest.raises(ProfileError, match=r"TI SensorTag CC2650 offers up to 10 Hz; the model wants 50 Hz"):
        SENSORTAG.open(rate_hz=50)
    with pytest.raises(ProfileError, match=r"offers ±2, ±4, ±8, ±16 g; ±6 g is wanted"):
        SENSORTAG.open(rate_hz=10, acc_g=6)
    with pytest.raises(ProfileError, match=r"offers ±250 deg/s; ±500 deg/s is wanted"):
        SENSORTAG.open(rate_hz=10, gyro_dps=500)


def test_it_is_recognised():
    for name in ("CC2650 SensorTag", "SensorTag 2.0"):
        assert SENSORTAG.knows(Seen("a", name=name))
    assert SENSORTAG.knows(Seen("a", services=frozenset({MOVEMENT_SERVICE})))
    assert SENSORTAG.knows(Seen("a", services=frozenset({"0000aa80-0000-1000-8000-00805f9b34fb"})))
    assert not SENSORTAG.knows(Seen("a", name="SensorTag")), "the older CC2541 has other services"


@pytest.mark.parametrize("acc_g", [2.0, 4.0, 8.0, 16.0])
def test_a_stream(acc_g):
    board, session = SensorTagBoard(), SENSORTAG.open(rate_hz=5, acc_g=acc_g)
    assert not board.streaming
    begin(board, session)
    values = random_values(session, 200)
    assert np.abs(values[:, :3]).max() > 0.99 * acc_g
    read = read_all(session, board.encode(values))
    assert (np.abs(read - values) <= np.asarray(session.sensor.lsb)).all()
    end(board, session)
    assert not board.streaming


def test_a_firmware_that_measures_at_another_range():
    """Told ±4 g, it measures at ±8 g: reads half a g at rest, and acc_gain=2 puts that right."""
    board = SensorTagBoard(obeys=False)
    believing, corrected = SENSORTAG.open(rate_hz=10, acc_g=4), SensorTag(acc_gain=2.0).open(rate_hz=10, acc_g=4)
    begin(board, believing)
    at_rest = board.encode([[0, 0, 1, 10, 20, 30]])
    assert read_all(believing, at_rest)[0].tolist() == pytest.approx([0, 0, 0.5, 10, 20, 30], abs=0.01)
    assert read_all(corrected, at_rest)[0].tolist() == pytest.approx([0, 0, 1, 10, 20, 30], abs=0.01)
    values = random_values(corrected, 50)
    assert np.abs(values[:, :3]).max() > 7.9, "the sensor covers what it really measures"
    assert (np.abs(read_all(corrected, board.encode(values)) - values) <= np.asarray(corrected.sensor.lsb)).all()


@pytest.mark.parametrize("gain", [0, -1, 8.1, float("nan"), float("inf")])
def test_no_gain(gain):
    with pytest.raises(ProfileError, match="acc_gain"):
        SensorTag(acc_gain=gain)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes(notifications):
    session = SENSORTAG.open(rate_hz=10)
    assert check_hostile(session, DATA, notifications) == sum(len(data) != 18 for data in notifications)
    assert len(session.feed(DATA, bytes(18))) == 1
