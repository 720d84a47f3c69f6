"""Chunks of frames: the bytes of the table, round trips, and what is refused, before it costs anything."""

import subprocess
import sys
import tracemalloc
from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest
from hostile_files import FRAMES, HOSTILE, IMAGES, chunk
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.frame import (
    CHUNK_HEADER_BYTES,
    MAX_CHUNK_PAYLOAD_BYTES,
    MAX_FRAME_BYTES,
    MAX_PHOTOSITES,
    Chunk,
    FrameCoder,
    FrameHeader,
    coded_bits,
    decode_frame,
    frame_chunks,
)
from quantization import plane_coder  # compiles here, not within an example's deadline
from quantization.codebook import Codebook
from quantization.errors import CodebookError, FrameError
from quantization.raw import COLOURS, Cfa, CodeMosaic

BOOK = Codebook.from_bytes(IMAGES.to_bytes())


def book_of(bits: int) -> Codebook:
    edges = np.tile(np.arange(2**bits) / 2**bits, (3, 1))
    return Codebook(COLOURS, bits, 1.0, thresholds=edges[:, 1:].copy(), levels=edges)


def still(height: int, width: int) -> CodeMosaic:
    """Codes of two bits that are coded shorter than packed."""
    return ((np.mgrid[:height, :width].sum(axis=0) // 9) % 4).astype(np.uint8)


def assembled(chunks: list[Chunk]) -> bytes:
    return b"".join(one.payload for one in sorted(chunks, key=lambda one: one.index))


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_coded_bits_are_those_of_the_payloads():
    codes = still(64, 96)
    chunks = frame_chunks(codes, book_of(2), cfa=Cfa.RGGB, sequence=0, tick_ms=0, max_payload=100)
    assert coded_bits(codes, book_of(2)) == 8 * len(assembled(chunks)) / (64 * 96)


def test_the_bytes_of_a_chunk():
    codes = np.array([[1, 2], [3, 15]], np.uint8)
    (made,) = frame_chunks(
        codes, book_of(4), cfa=Cfa.GBRG, sequence=2**32 + 5, tick_ms=1000, exposure_us=20_000, binning=3, lift=2
    )
    payload = bytes([0x21, 0xF3])
    head = bytes.fromhex("46 31 32 42") + book_of(4).digest[:4]  # GBRG 2, plain 0, 4 bits: 3 << 4; binning 3, lift 2
    head += bytes.fromhex("05000000 e8030000 204e0000 02000000") + crc32(payload).to_bytes(4, "little")
    head += bytes.fromhex("0200 0200 0000 0100")
    assert bytes(made) == head + crc32(head + payload).to_bytes(4, "little") + payload
    assert Chunk.from_bytes(bytes(made)) == made


def test_the_sum_is_the_one_that_is_named():
    """CRC-32 of IEEE 802.3, bit by bit."""
    register = 0xFFFFFFFF
    for byte in bytes(made := frame_chunks(still(8, 8), BOOK, cfa=Cfa.RGGB, sequence=0, tick_ms=0)[0])[:36] + (
        made.payload
    ):
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    assert bytes(made)[36:40] == (register ^ 0xFFFFFFFF).to_bytes(4, "little")


def test_coded_bytes_go_into_chunks_of_equal_length():
    codes = np.random.default_rng(0).integers(0, 4, (64, 64)).astype(np.uint8)
    chunks = frame_chunks(codes, BOOK, cfa=Cfa.RGGB, sequence=1, tick_ms=2, max_payload=300)
    assert {one.header.coder for one in chunks} == {FrameCoder.PLAIN}, "noise is packed"
    assert [len(one.payload) for one in chunks] == [256] * 4
    assert [one.start for one in chunks] == [0, 256, 512, 768]
    assert (
        assembled(chunks)
        == np.packbits(
            np.unpackbits(codes.reshape(-1, 1), axis=1, count=2, bitorder="little"), bitorder="little"
        ).tobytes()
    )


@st.composite
def frames(draw: st.DrawFn) -> tuple[CodeMosaic, Codebook, dict]:
    bits = draw(st.integers(1, 8))
    height, width = (2 * draw(st.integers(1, 20)) for _ in range(2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    top = draw(st.sampled_from([1, 2**bits]))
    word = st.integers(0, 2**32 - 1)
    return (
        rng.integers(0, top, (height, width)).astype(np.uint8),
        book_of(bits),
        {
            "cfa": draw(st.sampled_from(Cfa)),
            "sequence": draw(word),
            "tick_ms": draw(word),
            "exposure_us": draw(word),
            "binning": draw(st.integers(1, 32)),
            "lift": draw(st.integers(0, 7)),
        },
    )


@settings(max_examples=150, deadline=None)
@given(frames(), st.integers(1, 2000), st.booleans())
def test_round_trip(frame, max_payload, compress):
    codes, book, fields = frame
    chunks = frame_chunks(codes, book, **fields, max_payload=max_payload, compress=compress)
    read = [Chunk.from_bytes(bytes(one)) for one in chunks]
    assert read == chunks
    assert all(1 <= len(one.payload) <= max_payload for one in read)
    header = read[0].header
    assert all(one.header == header for one in read)
    assert {name: getattr(header, name) for name in fields} == fields
    coded = assembled(read)
    assert np.array_equal(decode_frame(header, coded, book), codes)
    plain = -(-codes.size * book.bits // 8)
    assert len(coded) < plain if header.coder else len(coded) == plain
    if not compress:
        assert header.coder is FrameCoder.PLAIN


def test_the_largest_frame():
    codes = still(1024, 2048)
    assert codes.size == MAX_PHOTOSITES
    chunks = frame_chunks(codes, book_of(8), cfa=Cfa.RGGB, sequence=0, tick_ms=0, compress=False)
    assert sum(len(one.payload) for one in chunks) == MAX_FRAME_BYTES
    assert len(chunks) == 128
    with pytest.raises(FrameError, match="photosites are more"):
        frame_chunks(still(1026, 2048), book_of(8), cfa=Cfa.RGGB, sequence=0, tick_ms=0)


def test_nothing_is_compiled_until_a_frame_is_coded():
    text = "import sys, protocol.frame; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- what is refused ---------------------------------------------------------------------------------------------------


def reason(data: bytes, book: Codebook = BOOK) -> str:
    """Why a chunk is refused, or the frame that it is all of; empty if it is not."""
    try:
        read = Chunk.from_bytes(data)
        decode_frame(read.header, read.payload, book)
    except FrameError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_hostile_file(name):
    data, expected = FRAMES[name]
    assert (HOSTILE / name).read_bytes() == data, "the file is what hostile_files.py makes; run it to write it anew"
    assert reason(data) == expected


def test_what_hostile_files_differ_from_is_sound():
    assert reason(chunk(b"\x1b")) == ""
    sound = plane_coder.encode(np.zeros((16, 16), np.uint8), 2, 99)
    assert reason(chunk(sound, coder=1, width=16, height=16)) == ""


HUGE = [name for name in FRAMES if name.removesuffix(".bin").endswith(("huge", "gib", "long", "65535", "large"))]


@pytest.mark.parametrize("name", sorted(HUGE))
def test_hostile_sizes_are_refused_before_they_cost_memory(name):
    data, expected = FRAMES[name]
    reason(data)
    tracemalloc.start()
    try:
        assert reason(data) == expected
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data) + 8192
    finally:
        tracemalloc.stop()


WORDS = {"", "length", "format", "checksum", "coder", "size", "field", "chunk", "codebook", "payload"}


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=120), st.binary(max_size=60))
@example(b"F1" + bytes(40), b"")
def test_noise_is_refused_with_our_error_alone(noise, payload):
    head = (b"F1" + noise)[:36].ljust(36, b"\0")
    for data in (noise, head + crc32(head + payload).to_bytes(4, "little") + payload):
        assert reason(data) in WORDS


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "coder": st.integers(0, 3),
            "bits": st.integers(1, 8),
            "scale": st.integers(0, 255),
            "width": st.integers(0, 40) | st.integers(0, 65_535),
            "height": st.integers(0, 40) | st.integers(0, 65_535),
            "index": st.integers(0, 3) | st.integers(0, 65_535),
            "count": st.integers(0, 4) | st.integers(0, 65_535),
            "coded": st.integers(0, 80) | st.integers(0, 2**32 - 1),
        },
    ),
    st.binary(min_size=1, max_size=80),
)
def test_headers_with_the_right_sum_are_refused_or_sound(fields, payload):
    data = chunk(payload, **fields)
    refused = reason(data, book_of(fields.get("bits", 2)))
    assert refused in WORDS
    try:
        read = Chunk.from_bytes(data)
    except FrameError:
        return
    assert bytes(read) == data
    assert read.start + len(read.payload) <= read.header.coded_bytes <= MAX_FRAME_BYTES


@settings(max_examples=200, deadline=None)
@given(frames(), st.data())
def test_truncations_and_flipped_bits_are_refused(frame, draw):
    codes, book, fields = frame
    data = bytes(frame_chunks(codes, book, **fields, max_payload=MAX_CHUNK_PAYLOAD_BYTES)[0])
    assert reason(data, book) == ""
    assert reason(data[: draw.draw(st.integers(0, len(data) - 1))], book) in {"length", "checksum"}
    at = draw.draw(st.integers(0, 8 * len(data) - 1))
    flipped = bytearray(data)
    flipped[at // 8] ^= 1 << at % 8
    assert reason(bytes(flipped), book) == ("format" if at < 16 else "checksum")
    assert reason(data + b"\0", book) in {"length", "checksum"}


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=600), st.sampled_from(FrameCoder), st.integers(1, 8))
def test_any_coded_bytes_are_refused_or_the_only_form_of_their_codes(coded, coder, bits):
    book = book_of(bits)
    try:
        header = replace(SOUND, short_digest=book.short_digest, bits=bits, coder=coder, coded_bytes=len(coded))
        codes = decode_frame(replace(header, crc=crc32(coded)), coded, book)
    except FrameError as error:
        refused = error.reason
    else:
        refused = ""
        again = frame_chunks(codes, book, cfa=Cfa.RGGB, sequence=0, tick_ms=0, compress=coder is FrameCoder.CONTEXT)
        assert again[0].header.coder is not coder or assembled(again) == coded
    assert refused in {"", "length", "payload"}


SOUND = FrameHeader(
    BOOK.short_digest,
    sequence=0,
    tick_ms=0,
    exposure_us=0,
    width=16,
    height=16,
    cfa=Cfa.RGGB,
    bits=2,
    binning=1,
    lift=0,
    coder=FrameCoder.PLAIN,
    coded_bytes=64,
    crc=0,
)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("short_digest", bytes(3), "field"),
        ("sequence", -1, "field"),
        ("sequence", 2**32, "field"),
        ("tick_ms", 2**32, "field"),
        ("exposure_us", -1, "field"),
        ("crc", 2**32, "field"),
        ("bits", 0, "field"),
        ("bits", 9, "field"),
        ("binning", 0, "field"),
        ("binning", 33, "field"),
        ("lift", -1, "field"),
        ("lift", 8, "field"),
        ("width", 15, "size"),
        ("height", 8194, "size"),
        ("coded_bytes", 63, "length"),
        ("coded_bytes", 65, "length"),
        ("coder", FrameCoder.CONTEXT, "length"),
    ],
)
def test_headers_that_cannot_be(field, value, expected):
    with pytest.raises(FrameError) as caught:
        replace(SOUND, **{field: value})
    assert caught.value.reason == expected


def test_photosites_are_bounded():
    with pytest.raises(FrameError, match="more than 2097152") as caught:
        replace(SOUND, width=2048, height=1026, coded_bytes=525_312)
    assert caught.value.reason == "size"


@pytest.mark.parametrize(
    ("index", "count", "payload", "expected"),
    [
        (0, 0, b"", "chunk"),
        (-1, 1, bytes(64), "chunk"),
        (1, 1, bytes(64), "chunk"),
        (0, 65, bytes(1), "chunk"),
        (0, 33, bytes(2), "chunk"),
        (0, 2, bytes(31), "length"),
        (2, 3, bytes(22), "length"),
    ],
)
def test_chunks_that_cannot_be(index, count, payload, expected):
    assert Chunk(SOUND, 2, 3, bytes(20)).start == 44
    with pytest.raises(FrameError) as caught:
        Chunk(SOUND, index, count, payload)
    assert caught.value.reason == expected


def test_frames_that_do_not_fit_their_codebook():
    codes = still(16, 16)
    one = frame_chunks(codes, BOOK, cfa=Cfa.RGGB, sequence=0, tick_ms=0)[0]
    for book, coded, expected in (
        (book_of(2), one.payload, "codebook"),
        (BOOK, one.payload + b"\0", "length"),
        (BOOK, one.payload[:-1] + bytes([one.payload[-1] ^ 1]), "checksum"),
    ):
        with pytest.raises(FrameError) as caught:
            decode_frame(one.header, coded, book)
        assert caught.value.reason == expected


def test_a_codebook_for_motion_is_not_for_frames():
    edges = np.tile(np.arange(4.0), (3, 1))
    motion = Codebook(("acc_x", "acc_y", "acc_z"), 2, 50.0, thresholds=edges[:, 1:].copy(), levels=edges)
    with pytest.raises(CodebookError, match="red, green, blue"):
        frame_chunks(still(4, 4), motion, cfa=Cfa.RGGB, sequence=0, tick_ms=0)
    with pytest.raises(FrameError, match=r"codebook: .*red, green, blue"):
        decode_frame(replace(SOUND, short_digest=motion.short_digest, crc=crc32(bytes(64))), bytes(64), motion)


def test_codes_that_a_frame_does_not_take():
    for codes, error in (
        (np.full((2, 2), 4, np.uint8), CodebookError),
        (np.zeros((2, 3), np.uint8), FrameError),
        (np.zeros(4, np.uint8), FrameError),
    ):
        with pytest.raises(error):
            frame_chunks(codes, BOOK, cfa=Cfa.RGGB, sequence=0, tick_ms=0)
    for max_payload in (0, MAX_CHUNK_PAYLOAD_BYTES + 1):
        with pytest.raises(FrameError, match="payload of at most"):
            frame_chunks(still(4, 4), BOOK, cfa=Cfa.RGGB, sequence=0, tick_ms=0, max_payload=max_payload)


def test_the_header_is_as_long_as_the_table_says():
    assert len(bytes(frame_chunks(still(2, 2), BOOK, cfa=Cfa.RGGB, sequence=0, tick_ms=0)[0])) == CHUNK_HEADER_BYTES + 1
