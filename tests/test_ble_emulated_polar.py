"""The emulated Polar devices answer as the documents say, or tests of the parser would prove nothing."""

import numpy as np
import pytest
from emulated_polar import EmulatedH10, EmulatedVeritySense

from device_emulator.ble.profiles.polar import CONTROL


def test_the_emulated_devices_answer_as_documented():
    # online_measurement.pdf, "Request stream settings" and "Read features"
    h10_settings = "f0 01 02 00 00 00 04 19 00 32 00 64 00 c8 00 01 01 10 00 02 03 02 00 04 00 08 00"
    assert EmulatedH10().on_write(CONTROL, b"\1\2") == [(CONTROL, bytes.fromhex(h10_settings))]
    verity_settings = "f0 01 02 00 00 00 01 34 00 01 01 10 00 02 01 08 00 04 01 03"
    assert EmulatedVeritySense().on_write(CONTROL, b"\1\2") == [(CONTROL, bytes.fromhex(verity_settings))]
    assert EmulatedVeritySense().on_read(CONTROL).hex(" ") == "0f 6e" + 15 * " 00"


@pytest.mark.parametrize(
    ("written", "status"),
    [
        ("02", 4),
        ("02 05 00 01 32 00", 3),
        ("09 02", 1),
        ("02 02 00 01 33 00 01 01 10 00 02 01 08 00", 8),
        ("02 02 00 01 32 00 01 01 0e 00 02 01 08 00", 7),
        ("02 02 00 01 32 00 01 01 10 00 02 01 10 00", 9),
        ("02 02 00 01 32", 4),
        ("03 02", 6),
    ],
)
def test_the_emulated_device_refuses(written, status):
    device = EmulatedH10()
    ((characteristic, data),) = device.on_write(CONTROL, bytes.fromhex(written))
    assert (characteristic, data[3]) == (CONTROL, status)
    assert not device.streaming
    assert device.encode(np.zeros((100, 3))) == []
