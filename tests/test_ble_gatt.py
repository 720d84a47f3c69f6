"""Our GATT profile as bytes: settings, time, and the codebook upload."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from factories import codebook
from hypothesis import given
from hypothesis import strategies as st

from device_emulator.ble.gatt import (
    Refusal,
    Settings,
    State,
    Upload,
    WriteError,
    read_time,
    time_value,
    upload_writes,
)
from quantization.codebook import MAX_CODEBOOK_BYTES, Codebook

DIGEST = bytes(range(32))
SETTINGS = Settings(
    on=True, rate_hz=12.5, acc_g=8.0, gyro_dps=2000.0, axes=(-2, 1, 3), adc_bits=12, codebook=DIGEST, source="synthetic"
)
SETTINGS_HEX = "01" "03" "d4300000" "401f" "d007" "fe0103" "0c" "0000" + DIGEST.hex()  # fmt: skip


def refusal_of(call: Any, *args: Any) -> Refusal:
    with pytest.raises(WriteError) as caught:
        call(*args)
    return caught.value.refusal


# -- settings and time ------------------------------------------------------------------------------------------------


def test_settings_are_the_bytes_that_are_documented() -> None:
    assert bytes(SETTINGS).hex() == SETTINGS_HEX
    assert Settings.from_bytes(bytes.fromhex(SETTINGS_HEX)) == SETTINGS
    assert len(bytes(SETTINGS)) == 48


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes.fromhex(SETTINGS_HEX)[:-1],
        bytes.fromhex(SETTINGS_HEX) + b"\0",
        b"\x02" + bytes.fromhex(SETTINGS_HEX)[1:],  # version 2
        b"\x01\x06" + bytes.fromhex(SETTINGS_HEX)[2:],  # a source that there is not
        b"\x01\x80" + bytes.fromhex(SETTINGS_HEX)[2:],  # a flag that there is not
    ],
)
def test_other_settings_are_malformed(data: bytes) -> None:
    assert refusal_of(Settings.from_bytes, data) is Refusal.MALFORMED


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("rate_hz", 0.0, Refusal.RATE),
        ("rate_hz", 0.999, Refusal.RATE),
        ("rate_hz", 1000.001, Refusal.RATE),
        ("acc_g", 65.536, Refusal.FULL_SCALE),
        ("gyro_dps", 65536.0, Refusal.FULL_SCALE),
        ("adc_bits", 7, Refusal.FULL_SCALE),
        ("adc_bits", 17, Refusal.FULL_SCALE),
        ("axes", (0, 0, 0), Refusal.AXES),
        ("axes", (1, -1, 3), Refusal.AXES),
        ("axes", (1000, 0, 0), Refusal.AXES),
    ],
)
def test_settings_that_no_device_can_have_are_refused(field: str, value: object, refusal: Refusal) -> None:
    assert refusal_of(lambda: replace(SETTINGS, **{field: value})) is refusal  # type: ignore[arg-type]


def test_bytes_that_no_device_can_mean_are_refused() -> None:
    for at, data, refusal in ((2, bytes(4), Refusal.RATE), (13, b"\0", Refusal.FULL_SCALE), (10, b"\1", Refusal.AXES)):
        value = bytearray(bytes(SETTINGS))
        value[at : at + len(data)] = data
        assert refusal_of(Settings.from_bytes, bytes(value)) is refusal


_OF_SETTINGS = {Refusal.MALFORMED, Refusal.RATE, Refusal.FULL_SCALE, Refusal.AXES}


@given(st.binary(max_size=64) | st.binary(min_size=48, max_size=48).map(lambda data: b"\x01\x01" + data[2:]))
def test_any_settings_are_refused_or_come_back(data: bytes) -> None:
    try:
        settings = Settings.from_bytes(data)
    except WriteError as error:
        assert error.refusal in _OF_SETTINGS  # noqa: PT017 - both outcomes are right
    else:
        assert bytes(settings)[:14] == data[:14]
        assert bytes(settings)[16:] == data[16:]


def test_a_change_leaves_the_rest() -> None:
    off = SETTINGS.changed(on=False)
    assert (off.on, off.axes, off.rate_hz, off.codebook) == (False, SETTINGS.axes, 12.5, bytes(32))
    turned = SETTINGS.changed(axes=(1, 2, 3))
    assert (turned.on, turned.axes) == (True, (1, 2, 3))


def test_time_is_the_bytes_that_are_documented() -> None:
    data = bytes.fromhex("e8030000" "0004b8a596010000")  # fmt: skip
    assert time_value(1000, 0x196A5B80400) == data
    assert time_value(2**32 + 1000, 0x196A5B80400) == data, "ticks wrap, after 49.7 days"
    assert read_time(data) == (1000, 0x196A5B80400)


@given(st.binary(max_size=20))
def test_any_time_is_refused_or_comes_back(data: bytes) -> None:
    if len(data) == 12:
        assert time_value(*read_time(data)) == data
    else:
        assert refusal_of(read_time, data) is Refusal.MALFORMED


def test_the_numbers_that_go_over_the_air_stay() -> None:
    assert [(one.name, one.value) for one in State] == [
        ("IDLE", 0), ("STREAMING", 1), ("MTU_TOO_SMALL", 2), ("SWITCHED_OFF", 3), ("NOT_BONDED", 4),
    ]  # fmt: skip
    assert [(one.name, hex(one.value)) for one in Refusal] == [
        ("MALFORMED", "0x80"), ("RATE", "0x81"), ("FULL_SCALE", "0x82"), ("AXES", "0x83"), ("CODEBOOK", "0x84"),
        ("ORDER", "0x85"), ("DIGEST", "0x86"), ("TOO_LONG", "0x87"),
    ]  # fmt: skip


# -- upload -----------------------------------------------------------------------------------------------------------

BOOK = codebook()
DATA = bytes(BOOK)


def begin(length: int = len(DATA), digest: bytes = BOOK.digest) -> bytes:
    return b"\x01" + length.to_bytes(4, "little") + digest


def chunk(offset: int, data: bytes) -> bytes:
    return b"\x02" + offset.to_bytes(4, "little") + data


COMMIT, CANCEL = b"\x03", b"\x00"


def written(*writes: bytes) -> Upload:
    """An upload that has taken these."""
    upload = Upload()
    for one in writes:
        assert upload.write(one) is None
    return upload


def test_the_writes_of_an_upload_are_the_bytes_that_are_documented() -> None:
    half = len(DATA) // 2 + 1
    writes = upload_writes(BOOK, half)
    assert writes == [begin(), chunk(0, DATA[:half]), chunk(half, DATA[half:]), COMMIT]
    assert begin().hex() == "01" + len(DATA).to_bytes(4, "little").hex() + hashlib.sha256(DATA).hexdigest()


@given(st.integers(1, 2 * len(DATA)))
def test_an_upload_arrives_in_chunks_of_any_size(size: int) -> None:
    *steps, last = upload_writes(BOOK, size)
    upload = written(*steps)
    assert upload.write(last) == BOOK
    assert refusal_of(upload.write, COMMIT) is Refusal.ORDER, "once"


@pytest.mark.parametrize(
    ("writes", "refused", "refusal"),
    [
        ([], COMMIT, Refusal.ORDER),
        ([], chunk(0, DATA), Refusal.ORDER),
        ([begin()], COMMIT, Refusal.ORDER),  # nothing has come
        ([begin(), chunk(0, DATA[:-1])], COMMIT, Refusal.ORDER),  # a byte is missing
        ([begin(), chunk(0, DATA[:9])], chunk(10, DATA[10:]), Refusal.ORDER),  # a hole
        ([begin(), chunk(0, DATA[:9])], chunk(0, DATA[:9]), Refusal.ORDER),  # again
        ([begin(), chunk(0, DATA)], chunk(len(DATA), b"x"), Refusal.TOO_LONG),
        ([], begin(0), Refusal.TOO_LONG),
        ([], begin(MAX_CODEBOOK_BYTES + 1), Refusal.TOO_LONG),
        ([], begin(0xFFFFFFFF), Refusal.TOO_LONG),
        ([begin(), chunk(0, DATA[:-1] + bytes([DATA[-1] ^ 1]))], COMMIT, Refusal.DIGEST),
        ([begin(digest=DIGEST), chunk(0, DATA)], COMMIT, Refusal.DIGEST),
        ([begin(4, hashlib.sha256(b"junk").digest()), chunk(0, b"junk")], COMMIT, Refusal.CODEBOOK),
        ([begin(), chunk(0, DATA), CANCEL], COMMIT, Refusal.ORDER),
        ([begin(), chunk(0, DATA), begin()], COMMIT, Refusal.ORDER),  # begins anew
        ([], b"", Refusal.MALFORMED),
        ([], b"\x04", Refusal.MALFORMED),
        ([], begin()[:-1], Refusal.MALFORMED),
        ([], begin() + b"\0", Refusal.MALFORMED),
        ([begin()], chunk(0, b""), Refusal.MALFORMED),
        ([begin(), chunk(0, DATA)], COMMIT + b"\0", Refusal.MALFORMED),
        ([], CANCEL + b"\0", Refusal.MALFORMED),
    ],
)
def test_an_upload_that_goes_wrong_is_refused(writes: list[bytes], refused: bytes, refusal: Refusal) -> None:
    upload = written(*writes)
    assert refusal_of(upload.write, refused) is refusal
    for one in upload_writes(BOOK, 200)[:-1]:  # and the next one goes well
        upload.write(one)
    assert upload.write(COMMIT) == BOOK


def test_a_chunk_out_of_order_does_not_end_an_upload() -> None:
    """A write whose answer was lost is sent again: what has come stays."""
    upload = written(begin(), chunk(0, DATA[:9]))
    assert refusal_of(upload.write, chunk(0, DATA[:9])) is Refusal.ORDER
    assert upload.write(chunk(9, DATA[9:])) is None
    assert upload.write(COMMIT) == BOOK


WRITES = (
    st.binary(max_size=300)
    | st.builds(begin, st.integers(0, 70_000), st.binary(min_size=32, max_size=32))
    | st.builds(chunk, st.integers(0, 600), st.binary(min_size=1, max_size=300))
    | st.sampled_from([begin(), *upload_writes(BOOK, 200), COMMIT, CANCEL])
)


@given(st.lists(WRITES, max_size=40))
def test_any_writes_are_refused_or_taken_and_memory_is_bounded(writes: list[bytes]) -> None:
    upload = Upload()
    for one in writes:
        try:
            taken = upload.write(one)
        except WriteError as error:
            assert error.refusal in Refusal  # noqa: PT017 - both outcomes are right
        else:
            assert taken is None or isinstance(taken, Codebook)
        held = sum(len(value) for value in vars(upload).values() if isinstance(value, (bytes, bytearray)))
        assert held <= MAX_CODEBOOK_BYTES + 32
