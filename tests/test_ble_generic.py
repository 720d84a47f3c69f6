"""Wearables described in a file: layouts by hand, the shipped example, files that are wrong."""

import copy
import struct
import tomllib
from pathlib import Path

import numpy as np
import pytest
from emulated_boards import NanoBoard, begin, check_hostile, end, random_values, read_all
from hypothesis import given
from hypothesis import strategies as st

from device_emulator.ble.profiles.base import Seen
from device_emulator.ble.profiles.generic import GenericProfile, GenericSettings, load_profile
from quantization.errors import ProfileError
from quantization.imu import ACC, ACC_GYRO

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
NANO = EXAMPLES / "arduino-nano-33.toml"
DATA = "0000ff01-0000-1000-8000-00805f9b34fb"

WANTED = {
    "name": "board",
    "title": "Board",
    "match": {"name_prefix": "Board"},
    "gatt": {"notify": "FF01"},
    "layout": {"row": "3h", "scale": [0.001, 0.001, 0.001]},
    "sensor": {"channels": list(ACC), "rate_hz": 50, "adc_bits": 12, "full_scale": {"acc": 8}},
}


def settings(**tables) -> dict:
    """The wanted ones with some fields of some tables changed; None takes a field away."""
    changed = copy.deepcopy(WANTED)
    for table, fields in tables.items():
        if not isinstance(fields, dict):
            changed[table] = fields
            continue
        changed[table] |= fields
        changed[table] = {key: value for key, value in changed[table].items() if value is not None}
    return changed


def open_session(**tables):
    return GenericProfile(GenericSettings.model_validate(settings(**tables))).open(rate_hz=50)


def values(session, data: str) -> list[list[float]]:
    (samples,) = session.feed(DATA, bytes.fromhex(data))
    return samples.values.tolist()


@pytest.mark.parametrize(
    ("layout", "data", "expected"),
    [
        ({}, "e803 18fc 0100", [[1, -1, 0.001]]),
        ({}, "e803 0000 0000  0000 e803 0000", [[1, 0, 0], [0, 1, 0]]),
        ({"byte_order": "big"}, "03e8 fc18 0001", [[1, -1, 0.001]]),
        ({"header_bytes": 2, "trailer_bytes": 1}, "ffff e803 18fc 0100 ff", [[1, -1, 0.001]]),
        ({"row": "x3h2x"}, "ff e803 18fc 0100 ffff  ff 0100 0000 0000 ffff", [[1, -1, 0.001], [0.001, 0, 0]]),
        ({"row": "hxhxh"}, "e803 ff 18fc ff 0100", [[1, -1, 0.001]]),
        ({"row": "3f", "scale": [1, 1, 0.5]}, "0000803f 000000bf 00000040", [[1, -0.5, 1]]),
        ({"row": "3B", "offset": [128, 127, 0], "scale": [0.5, 0.5, -0.25]}, "80 7f 04", [[0, 0, -1]]),
        ({"row": "bBi", "scale": [1, 0.01, 1e-6]}, "ff ff 40420f00", [[-1, 2.55, 1]]),
        ({"row": "3h", "scale": [1, 1, 1]}, "e803 18fc 0100", [[8, -8, 1]]),  # saturates at the full scale
        ({"row": "3d", "scale": [1e6, 1e6, 1e6]}, "ffffffffffffef7f ffffffffffffefff" + "00" * 8, [[8, -8, 0]]),
    ],
)
def test_a_layout_by_hand(layout, data, expected):
    assert np.array(values(open_session(layout=layout), data)) == pytest.approx(np.array(expected))


@pytest.mark.parametrize(
    ("layout", "sizes"),
    [
        ({}, {6, 12, 18, 24, 30}),
        ({"rows": 2}, {12}),
        ({"header_bytes": 4}, {10, 16, 22, 28}),
        ({"header_bytes": 3, "trailer_bytes": 1, "rows": 4}, {28}),
    ],
)
def test_a_notification_is_whole_rows(layout, sizes):
    session = open_session(layout=layout)
    for size in range(32):
        if size in sizes:
            assert len(session.feed(DATA, bytes(size))) == 1
        else:
            with pytest.raises(ProfileError, match="length"):
                session.feed(DATA, bytes(size))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none(number):
    session = open_session(layout={"row": "3f"})
    with pytest.raises(ProfileError, match="value: Board: a number is not finite"):
        session.feed(DATA, struct.pack("<3f", 1, number, 1))
    assert len(session.feed(DATA, bytes(12))) == 1


def test_what_is_written():
    start = [{"characteristic": "FF02", "hex": "01 32"}, {"characteristic": "ff03", "hex": "aB", "response": False}]
    session = open_session(gatt={"start": start, "stop": start[:1]})
    assert session.notify == (DATA,)
    first = ("0000ff02-0000-1000-8000-00805f9b34fb", b"\x01\x32", True)
    assert session.start == (first, ("0000ff03-0000-1000-8000-00805f9b34fb", b"\xab", False))
    assert session.stop == (first,)
    with pytest.raises(ProfileError, match="characteristic"):
        session.feed(first[0], bytes(6))


def test_what_it_cannot_do_is_said():
    profile = GenericProfile(GenericSettings.model_validate(WANTED))
    assert profile.open(rate_hz=20, acc_g=8).rate_hz == 50
    with pytest.raises(ProfileError, match=r"Board offers up to 50 Hz; the model wants 100 Hz"):
        profile.open(rate_hz=100)
    with pytest.raises(ProfileError, match=r"Board offers ±8 g; ±4 g is wanted"):
        profile.open(rate_hz=50, acc_g=4)
    with pytest.raises(ProfileError, match=r"Board offers none deg/s; ±250 deg/s is wanted"):
        profile.open(rate_hz=50, gyro_dps=250)


@pytest.mark.parametrize(
    ("match", "name", "services", "known"),
    [
        ({"name_prefix": "Board"}, "Board 1", [], True),
        ({"name_prefix": "Board"}, "A Board", [], False),
        ({"name_prefix": None, "service": "FF00"}, "", ["0000ff00-0000-1000-8000-00805f9b34fb"], True),
        ({"name_prefix": None, "service": "FF00"}, "Board", [], False),
        ({"service": "FF00"}, "Board", [], False),
        ({"service": "FF00"}, "Board", ["0000ff00-0000-1000-8000-00805f9b34fb"], True),
    ],
)
def test_it_is_recognised(match, name, services, known):
    profile = GenericProfile(GenericSettings.model_validate(settings(match=match)))
    assert profile.knows(Seen("a", name=name, services=frozenset(services))) == known


@given(st.lists(st.binary(max_size=60), max_size=6), st.sampled_from("bBhHiIfd"), st.integers(0, 3))
def test_any_bytes(notifications, letter, header):
    session = open_session(layout={"row": f"3{letter}", "header_bytes": header})
    check_hostile(session, DATA, notifications)
    assert len(session.feed(DATA, bytes(header + struct.calcsize(f"<3{letter}")))) == 1


# The example


def test_the_examples_profile():
    profile = load_profile(NANO)
    assert (profile.name, profile.title) == ("arduino-nano-33", "Arduino Nano 33 BLE")
    assert (profile.channels, profile.rates_hz) == (ACC_GYRO, (50.0,))
    assert profile.knows(Seen("a", name="Nano33", services=frozenset({NanoBoard.SERVICE})))
    session = profile.open(rate_hz=50)
    # Notification 7; 1 g = 8192, -4 g, 1/8192 g; 100 °/s = 1600, -2048 °/s, 1/16 °/s; four samples of zeros.
    data = bytes.fromhex("0700  0020 0080 0100 4006 0080 0100") + bytes(48)
    (samples,) = session.feed(NanoBoard.DATA, data)
    assert samples.values[0].tolist() == [1, -4, 1 / 8192, 100, -2048, 1 / 16]
    assert samples.values[1:].tolist() == [[0.0] * 6] * 4


def test_a_stream_of_the_example():
    board, session = NanoBoard(), load_profile(NANO).open(rate_hz=50)
    assert not board.streaming
    begin(board, session)
    wanted = random_values(session, 200)
    sent = board.encode(wanted[:3]) + board.encode(wanted[3:])
    assert len(sent) == 40
    read = read_all(session, sent)
    assert (np.abs(read - wanted) <= np.asarray(session.sensor.lsb)).all()
    end(board, session)
    assert not board.streaming


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_named_as_its_file(path):
    assert load_profile(path).name == path.stem


# Files that are wrong


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ProfileError, match=r"file: .*nothing\.toml: No such file"):
        load_profile(tmp_path / "nothing.toml")
    with pytest.raises(ProfileError, match=r"file: .*: Is a directory"):
        load_profile(tmp_path)


@pytest.mark.parametrize("text", [b"name = ", b"\xff\xfe", b"[a]\n[a]\n", b"name = 1979-13-01"])
def test_a_file_that_is_not_toml(tmp_path, text):
    path = tmp_path / "board.toml"
    path.write_bytes(text)
    with pytest.raises(ProfileError, match=r"toml: .*board\.toml: "):
        load_profile(path)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('name = "arduino-nano-33"', 'name = "Nano 33"', "name: "),
        ('name = "arduino-nano-33"', "", "name: Field required"),
        ('name = "arduino-nano-33"', "name = 33", "name: Input should be a valid string"),
        ('title = "Arduino Nano 33 BLE"', 'titel = "x"\ntitle = "x"', "titel: Extra inputs are not permitted"),
        ("rate_hz = 50", 'rate_hz = "50"', "sensor.rate_hz: "),
        ("rate_hz = 50", "rate_hz = 0", "sensor.rate_hz: "),
        ("rate_hz = 50", "rate_hz = nan", "sensor.rate_hz: "),
        ("adc_bits = 16", "adc_bits = 17", "sensor.adc_bits: "),
        ("adc_bits = 16", "adc_bits = 16.5", "sensor.adc_bits: "),
        ("acc = 4, gyro = 2048", "acc = 4", "sensor: no full scale is given for gyro_x"),
        ("acc = 4, gyro = 2048", "acc = 0, gyro = 2048", "sensor.full_scale.acc: "),
        ("acc = 4, gyro = 2048", "acc = 4, gyro = 2048, mag = 1", "sensor.full_scale.mag"),
        ('"acc_x", "acc_y"', '"acc_x", "acc_x"', "sensor.channels: channel names repeat"),
        ('"acc_x", "acc_y"', '"acc_x"', "layout.row has 6 numbers, sensor.channels 5 names"),
        ('row = "6h"', 'row = "6s"', "layout.row: a row is made of"),
        ('row = "6h"', 'row = "<6h"', "layout.row: a row is made of"),
        ('row = "6h"', 'row = "999h"', "layout.row: a row is made of"),
        ('row = "6h"', 'row = "6x"', "layout.row has 0 numbers"),
        ('row = "6h"', 'row = ""', "layout.row: "),
        ("rows = 5", "rows = 0", "layout.rows: "),
        ("rows = 5", "rows = 50", "layout: 602 bytes; a notification has at most 512"),
        ("header_bytes = 2", "header_bytes = -1", "layout.header_bytes: "),
        ('"little"', '"native"', "layout.byte_order: "),
        ("scale = [0.0001220703125, ", "scale = [", "layout.scale has 5 numbers, sensor.channels 6 names"),
        ("scale = [0.0001220703125, ", "scale = [0, ", "layout.scale.0: a scale of 0"),
        ("scale = [", "offset = [1]\nscale = [", "layout.offset has 1 numbers"),
        ('notify = "19b10001-', 'notify = "19b1-', "gatt.notify: a UUID is"),
        ('hex = "01"', 'hex = "0g"', "gatt.start.0.hex: "),
        ('hex = "01"', 'hex = ""', "gatt.start.0.hex: "),
        ('name_prefix = "Nano33"\nservice', "#", "match: give name_prefix, service or both"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, old, new, field):
    text = NANO.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "board.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ProfileError) as wrong:
        load_profile(path)
    assert wrong.value.reason == "field"
    assert wrong.value.detail.startswith(f"{path}: ")
    assert field in wrong.value.detail


TOML_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=4,
)


@given(st.data())
def test_any_field_may_be_anything(data):
    """A description is either refused, or makes a session that holds to what every session holds to."""
    table = data.draw(st.sampled_from(["match", "gatt", "layout", "sensor"]))
    known = tomllib.loads(NANO.read_text(encoding="utf-8"))[table]
    field = data.draw(st.sampled_from(sorted(known)))
    changed = settings(**{table: {field: data.draw(TOML_VALUES)}})
    try:
        profile = GenericProfile(GenericSettings.model_validate(changed))
    except ValueError:
        return
    session = profile.open(rate_hz=profile.rates_hz[0])
    check_hostile(session, session.notify[0], [data.draw(st.binary(max_size=40)) for _ in range(3)])
