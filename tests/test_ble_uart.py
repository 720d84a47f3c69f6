"""Text lines over the Nordic UART service, written by hand."""

import itertools
import json

import numpy as np
import pytest
from emulated_boards import UartBoard, begin, check_hostile, random_values, read_all
from hypothesis import given
from hypothesis import strategies as st

from device_emulator.ble.profiles.base import Seen
from device_emulator.ble.profiles.uart import MAX_LINE_BYTES, NORDIC_UART, NORDIC_UART_ACC, TX
from quantization.errors import ProfileError
from quantization.imu import ACC


def session(profile=NORDIC_UART):
    """Opened, and past the first line feed."""
    opened = profile.open(rate_hz=50)
    assert opened.feed(TX, b"\n") == []
    return opened


def rows(blocks) -> list[list[list[float]]]:
    return [samples.values.tolist() for samples in blocks]


SIX = [0.5, -0.25, 1.0, 10.0, -20.5, 300.0]


@pytest.mark.parametrize(
    "line",
    [
        b"0.5,-0.25,1,10,-20.5,300\n",
        b"0.5,-0.25,1.0,10.0,-20.5,300.0\r\n",
        b" +.5 , -2.5e-1 , 1. , 1E1 , -20.5 , 3e+2 \r\n",
        b'{"acc":[0.5,-0.25,1],"gyro":[10,-20.5,300]}\r\n',
        b'{"t": "imu", "gyro": {"x": 10, "y": -20.5, "z": 3e2}, "acc": {"z": 1, "x": 0.5, "y": -0.25, "mag": 1.2}}\n',
        b"\x1b[J>\x08 \x080.5,-0.25,1,10,-20.5,300\r\n>",  # an Espruino console's erased prompt
        b"\r\n\n0.5,-0.25,1,10,-20.5,300\n",
    ],
)
def test_a_line_by_hand(line):
    assert rows(session().feed(TX, line)) == [[SIX]]


@pytest.mark.parametrize("line", [b"0.5,-0.25,1\n", b"0.5,-0.25,1,10,-20.5,300\n", b'{"acc":[0.5,-0.25,1]}\n'])
def test_without_a_gyroscope(line):
    opened = session(NORDIC_UART_ACC)
    assert opened.sensor.channels == NORDIC_UART_ACC.channels == ACC
    assert rows(opened.feed(TX, line)) == [[SIX[:3]]]


def test_a_missing_gyroscope_is_said():
    for line in (b"0.5,-0.25,1\n", b'{"acc":[0.5,-0.25,1]}\n'):
        with pytest.raises(ProfileError, match=r"columns: .* use nordic-uart-acc"):
            session().feed(TX, line)


def test_what_comes_before_the_first_line_feed_is_not_read():
    """It could be the end of a line: 0.5,-0.25,1 without its beginning is 5,-0.25,1."""
    opened = NORDIC_UART_ACC.open(rate_hz=50)
    assert opened.feed(TX, b"5,-0.2") == []
    assert opened.feed(TX, b"5,1\n1,2") == []
    assert rows(opened.feed(TX, b",3\n")) == [[[1, 2, 3]]]


@given(st.lists(st.integers(0, 300), max_size=12))
def test_lines_may_be_cut_and_joined_anywhere(cuts):
    stream = b"".join(b"%d,0,0\r\n" % (number % 16) for number in range(40))
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    opened = session(NORDIC_UART_ACC)
    found = [
        row[0]
        for a, b in itertools.pairwise(edges)
        for block in opened.feed(TX, stream[a:b])
        for row in block.values.tolist()
    ]
    assert found == [number % 16 for number in range(40)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"hello", "text"),
        (b"1,2,three", "text"),
        (b"1,2,nan", "text"),
        (b"1,2,inf", "text"),
        (b"1_0,2,3", "text"),
        (b"1,2,", "text"),
        ("1,2,٣".encode(), "text"),
        (b"1\x002,0,0", "text"),
        (b"1,2", "columns"),
        (b"1,2,3,4", "columns"),
        (b"1,2,3,4,5,6,7", "columns"),
        (b"=undefined", "text"),
        (b'{"acc":[1,2,3]', "text"),
        (b'{"t":"status","bat":90}', "columns"),
        (b'{"acc":[1,2]}', "columns"),
        (b'{"acc":[1,2,"3"]}', "columns"),
        (b'{"acc":[1,2,true]}', "columns"),
        (b'{"acc":{"x":1,"y":2}}', "columns"),
        (b'{"acc":null}', "columns"),
        (b'{"acc":[1,2,NaN]}', "text"),
        (b'{"acc":[1,2,1e999]}', "text"),
        (b'{"acc":[1,2,3],"gyro":[1,2]}', "columns"),
        (b'{"acc":' + b"[" * 150 + b"}", "text"),
        (b"1," * 150, "length"),
    ],
)
def test_what_is_no_sample_is_refused_and_the_next_line_is_read(line, reason):
    opened = session(NORDIC_UART_ACC)
    with pytest.raises(ProfileError) as refused:
        opened.feed(TX, line + b"\n")
    assert refused.value.reason == reason
    assert rows(opened.feed(TX, b"1,2,3\n")) == [[[1, 2, 3]]]


def test_a_line_between_that_cannot_be_read_divides_blocks():
    found = session(NORDIC_UART_ACC).feed(TX, b"1,0,0\n2,0,0\nERROR: out of memory\n4,0,0\n")
    assert rows(found) == [[[1, 0, 0], [2, 0, 0]], [[4, 0, 0]]]


def test_a_line_without_an_end_is_not_kept():
    opened = session(NORDIC_UART_ACC)
    refused = check_hostile(opened, TX, [b"1" * 20] * 1000)
    assert 80 <= refused <= 100, "once per 200 bytes"
    assert len(opened._held) <= MAX_LINE_BYTES
    assert opened.feed(TX, b",2,3\n") == [], "the end of the long line"
    assert rows(opened.feed(TX, b"1,2,3\n")) == [[[1, 2, 3]]]


def test_what_lies_beyond_the_full_scale_is_saturated():
    opened = NORDIC_UART.open(rate_hz=50, acc_g=4, gyro_dps=500)
    (samples,) = opened.feed(TX, b"\n1e50,-1e50,4.5,-1e50,1e50,499\n")
    assert samples.values.tolist() == [[4, -4, 4, -500, 500, 499]]
    assert opened.sensor.to_counts(samples.values).tolist() == [[32767, -32768, 32767, -32768, 32767, 32702]]


def test_rates():
    assert NORDIC_UART.open(rate_hz=12.5).rate_hz == 12.5
    assert NORDIC_UART.open(rate_hz=40).rate_hz == 40, "a sketch may do anything"
    with pytest.raises(ProfileError, match=r"1 to 104 Hz, not at 200 Hz"):
        NORDIC_UART.open(rate_hz=200)
    with pytest.raises(ProfileError, match=r"1 to 104 Hz, not at 0.5 Hz"):
        NORDIC_UART.open(rate_hz=0.5)
    with pytest.raises(ProfileError, match=r"offers ±2, ±4, ±8, ±16 g; ±3 g is wanted"):
        NORDIC_UART.open(rate_hz=50, acc_g=3)
    with pytest.raises(ProfileError, match=r"offers none deg/s; ±250 deg/s is wanted"):
        NORDIC_UART_ACC.open(rate_hz=50, gyro_dps=250)


def test_nothing_is_written():
    opened = session()
    assert opened.notify == ("6e400003-b5a3-f393-e0a9-e50e24dcca9e",)
    assert (opened.start, opened.stop) == ((), ())
    with pytest.raises(ProfileError, match="characteristic"):
        opened.feed("6e400002-b5a3-f393-e0a9-e50e24dcca9e", b"1,2,3\n")


def test_it_is_recognised():
    assert NORDIC_UART.knows(Seen("a", services=frozenset({"6e400001-b5a3-f393-e0a9-e50e24dcca9e"})))
    assert NORDIC_UART.knows(Seen("a", name="Bangle.js 1a2b"))
    assert not NORDIC_UART.knows(Seen("a", name="Thingy"))


@pytest.mark.parametrize("form", ["columns", "lists", "objects"])
@pytest.mark.parametrize("profile", [NORDIC_UART, NORDIC_UART_ACC])
@pytest.mark.parametrize("cut", [1, 20, 244])
def test_a_stream(form, profile, cut):
    board, opened = UartBoard(rate_hz=25, form=form, cut=cut), profile.open(rate_hz=25)
    begin(board, opened)
    values = random_values(opened, 60)
    read = read_all(opened, board.encode(values))
    assert read.shape == values.shape
    assert (np.abs(read - values) <= np.asarray(opened.sensor.lsb)).all()


NUMBERS = st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=3))
LINES = st.one_of(
    st.binary(max_size=60),
    st.lists(st.floats(), max_size=7).map(lambda row: ",".join(map(repr, row)).encode()),
    st.fixed_dictionaries(
        {}, optional={"acc": st.lists(NUMBERS, max_size=4), "gyro": st.dictionaries(st.sampled_from("xyz"), NUMBERS)}
    ).map(lambda read: json.dumps(read).encode()),
)


@given(st.sampled_from([NORDIC_UART, NORDIC_UART_ACC]), st.lists(st.one_of(LINES, st.just(b"\n")), max_size=12))
def test_any_bytes(profile, notifications):
    opened = profile.open(rate_hz=50)
    check_hostile(opened, TX, notifications)
    assert len(opened._held) <= MAX_LINE_BYTES
    check_hostile(opened, TX, [b"\n"])
    assert rows(opened.feed(TX, b"1,2,3,4,5,6\n")) == [[[1, 2, 3, 4, 5, 6][: len(opened.sensor.channels)]]]
