"""WitMotion WT901BLE: bytes worked out from its protocol; frames that are cut, joined, lost."""

import itertools

import numpy as np
import pytest
from emulated_boards import WitMotionBoard, begin, check_hostile, random_values, read_all
from hypothesis import given
from hypothesis import strategies as st

from device_emulator.ble.profiles.base import Seen
from device_emulator.ble.profiles.witmotion import COMMANDS, DATA, WITMOTION
from quantization.errors import ProfileError

# 1 g = 2048, -16 g = -32768, 16/32768 g; 1000 °/s = 16384, -2000 °/s = -32768, 2000/32768 °/s; the angles are not read.
FRAME = bytes.fromhex("5561 0008 0080 0100  0040 0080 0100  ffff ff7f 0080")
ROW = [1.0, -16.0, 16 / 32768, 1000.0, -2000.0, 2000 / 32768]
REGISTERS = bytes.fromhex("5571 3a00") + bytes(16)


def session():
    return WITMOTION.open(rate_hz=50)


def numbered(first: int, count: int) -> list[bytes]:
    """Frames whose first acceleration tells them apart."""
    return [b"\x55\x61" + number.to_bytes(2, "little") + bytes(16) for number in range(first, first + count)]


def numbers(blocks) -> list[list[int]]:
    return [[round(value * 2048) for value in samples.values[:, 0]] for samples in blocks]


def joined(lists) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def test_a_frame_by_hand():
    (samples,) = session().feed(DATA, FRAME)
    assert samples.values.tolist() == [ROW]


def test_a_published_frame():
    """From a log of a WT901BLE lying upside down, printed in the comments of an ESP32 sketch on GitHub."""
    data = bytes.fromhex("55 61 5A 00 BE FF 37 F8 00 00 00 00 00 00 72 82 03 FD 19 B8")
    (samples,) = session().feed(DATA, data)
    assert samples.values[0].tolist() == [90 / 2048, -66 / 2048, -1993 / 2048, 0.0, 0.0, 0.0]


def test_what_is_written():
    opened = session()
    assert opened.notify == ("0000ffe4-0000-1000-8000-00805f9a34fb",), "9a: not Bluetooth's base"
    assert opened.start == (
        ("0000ffe9-0000-1000-8000-00805f9a34fb", bytes.fromhex("ffaa6988b5"), False),
        (COMMANDS, bytes.fromhex("ffaa030800"), False),
    )
    assert opened.stop == ()
    assert WITMOTION.open(rate_hz=10).start[1].data == bytes.fromhex("ffaa030600"), "the example in WitMotion's manuals"


def test_what_it_cannot_do_is_said():
    with pytest.raises(ProfileError, match=r"WitMotion WT901BLE offers up to 50 Hz; the model wants 100 Hz"):
        WITMOTION.open(rate_hz=100)
    with pytest.raises(ProfileError, match=r"offers ±16 g; ±8 g is wanted"):
        WITMOTION.open(rate_hz=50, acc_g=8)
    with pytest.raises(ProfileError, match=r"offers ±2000 deg/s; ±250 deg/s is wanted"):
        WITMOTION.open(rate_hz=50, gyro_dps=250)
    with pytest.raises(ProfileError, match="characteristic"):
        session().feed(DATA.replace("9a34", "9b34"), FRAME)


def test_it_is_recognised():
    assert WITMOTION.knows(Seen("a", name="WT901BLE67"))
    assert WITMOTION.knows(Seen("a", services=frozenset({"0000ffe5-0000-1000-8000-00805f9a34fb"})))
    assert not WITMOTION.knows(Seen("a", services=frozenset({"0000ffe5-0000-1000-8000-00805f9b34fb"}))), (
        "many other devices have FFE5 on Bluetooth's base"
    )


@given(st.lists(st.integers(0, 199), max_size=12))
def test_frames_may_be_cut_and_joined_anywhere(cuts):
    stream = b"".join(numbered(1, 10))
    edges = [0, *sorted(cuts), len(stream)]
    opened = session()
    blocks = [block for a, b in itertools.pairwise(edges) for block in opened.feed(DATA, stream[a:b])]
    assert joined(numbers(blocks)) == list(range(1, 11))


def test_answers_about_registers_are_passed_over():
    blocks = session().feed(DATA, b"".join([*numbered(1, 2), REGISTERS, *numbered(3, 2)]))
    assert numbers(blocks) == [[1, 2, 3, 4]]


@given(st.binary(min_size=1, max_size=19), st.integers(1, 25))
def test_lost_synchronisation_is_found_again(garbage, cut):
    """Whatever stands between, from the fourth frame after it on at the latest everything is read again."""
    opened = session()
    assert numbers(opened.feed(DATA, b"".join(numbered(1, 3)))) == [[1, 2, 3]]
    rest = garbage + b"".join(numbered(11, 12))
    found: list[list[int]] = []
    for at in range(0, len(rest), cut):
        try:
            found += numbers(opened.feed(DATA, rest[at : at + cut]))
        except ProfileError:
            continue
    assert joined(found)[-8:] == list(range(15, 23))


def test_a_gap_divides_blocks():
    """Samples on either side of skipped bytes are not evenly spaced."""
    opened = session()
    blocks = opened.feed(DATA, b"".join([*numbered(1, 2), b"\x00" * 7, *numbered(11, 3)]))
    assert numbers(blocks) == [[1], [11, 12, 13]], "the frame before the gap is not believed"


def test_a_header_within_a_sample_is_not_taken_for_a_frame():
    opened = session()
    inside = b"\x55\x61" + bytes(6) + b"\x55\x61" + bytes(10)
    with pytest.raises(ProfileError, match="synchronisation"):
        opened.feed(DATA, inside[3:])
    assert numbers(opened.feed(DATA, b"".join(numbered(5, 2)))) == [[5, 6]]


def test_a_truncated_frame_is_not_read():
    opened = session()
    with pytest.raises(ProfileError, match="synchronisation: 12 bytes"):
        opened.feed(DATA, FRAME[:12] + numbered(7, 1)[0])
    assert numbers(opened.feed(DATA, numbered(8, 1)[0])) == [[7, 8]]


@pytest.mark.parametrize("cut", [None, 1, 7, 20, 33, 240])
def test_a_stream(cut):
    board, opened = WitMotionBoard(cut), WITMOTION.open(rate_hz=20)
    begin(board, opened)
    values = random_values(opened, 200)
    read = read_all(opened, board.encode(values))
    assert read.shape == values.shape
    assert (np.abs(read - values) <= np.asarray(opened.sensor.lsb)).all()


HEADERS = st.sampled_from([b"\x55", b"\x55\x61", b"\x55\x71", FRAME])


@given(st.lists(st.one_of(st.binary(max_size=60), HEADERS), max_size=12))
def test_any_bytes(notifications):
    opened = session()
    check_hostile(opened, DATA, notifications)
    assert len(opened._held) < 22, "at most a frame and the beginning of a header is kept"
    check_hostile(opened, DATA, numbered(1, 4))
    assert numbers(opened.feed(DATA, numbered(5, 1)[0]))[-1][-1] == 5
