"""The bytes of a packet: by hand, against the reference, and against whatever else may arrive."""

from dataclasses import replace

import numpy as np
import pytest
from factories import codebook
from hostile_files import CODED, CODED_PACKETS, HOSTILE, PACKETS, SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import crc8, read_packet, write_packet
from strategies import as_book, codebooks
from vector_files import read_vector

from protocol.packet import (
    HEADER_BYTES,
    MAX_PACKET_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SAMPLES,
    SEQUENCE_MODULUS,
    TICK_MODULUS,
    Coder,
    Packet,
    _crc8,
    encode_longest,
    encode_payload,
    samples_that_fit,
)
from quantization.baselines import linear
from quantization.codebook import Codebook, ContextLayout
from quantization.codec import pack, unpack
from quantization.entropy import EntropyCoder
from quantization.errors import PacketError
from quantization.imu import ACC

ONE_BIT = Codebook(("acc_x",), 1, 50.0, thresholds=np.array([[0.0]]), levels=np.array([[-0.5, 0.5]]))
SEQUENCES = st.integers(0, SEQUENCE_MODULUS - 1)
TICKS = st.integers(0, TICK_MODULUS - 1)


@st.composite
def coded(draw: st.DrawFn) -> tuple[Codebook, np.ndarray]:
    """A codebook, and a block of its codes that fits one packet."""
    book = draw(codebooks())
    most = samples_that_fit(len(book.channels), book.bits)
    samples = draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return book, rng.integers(0, 2**book.bits, size=(samples, len(book.channels))).astype(np.uint8)


@settings(max_examples=80)
@given(coded(), SEQUENCES, TICKS)
def test_round_trip_and_the_reference_decoder(drawn, sequence, tick_ms):
    book, codes = drawn
    packet = Packet.from_codes(codes, book, sequence=sequence, tick_ms=tick_ms)
    data = bytes(packet)
    assert len(data) <= MAX_PACKET_BYTES
    again = Packet.from_bytes(data)
    assert again == packet
    assert np.array_equal(again.codes(book), codes)
    levels = book.decode(codes).tolist()
    assert read_packet(data, bytes(book)) == (sequence, tick_ms, levels)


@settings(max_examples=40)
@given(codebooks(max_bits=5), SEQUENCES, TICKS, st.integers(0, 2**32 - 1))
def test_the_reference_encoder_makes_the_same_bytes(book, sequence, tick_ms, seed):
    samples = samples_that_fit(len(book.channels), book.bits) % 23 + 1
    values = np.random.default_rng(seed).normal(size=(samples, len(book.channels)))
    ours = Packet.from_codes(book.encode_physical(values), book, sequence=sequence, tick_ms=tick_ms)
    theirs = write_packet(as_book(book), values.tolist(), sequence=sequence, tick_ms=tick_ms)
    if ours.coder is Coder.PLAIN and Packet.from_bytes(theirs).coder is Coder.ENTROPY:
        # A device may always pack plainly, and ours does where zeros that the coder would cut off do not fit at first.
        plainly = replace(book, contexts=None)
        ours = replace(ours, short_digest=plainly.short_digest)
        theirs = write_packet(as_book(plainly), values.tolist(), sequence=sequence, tick_ms=tick_ms)
    assert bytes(ours) == theirs


def test_golden_bytes():
    codes = np.array([[1, 0, 1, 1, 0, 0, 0, 1, 1, 1]], dtype=np.uint8).T
    packet = Packet.from_codes(codes, ONE_BIT, sequence=5, tick_ms=1000)
    assert bytes(packet) == read_vector("packet.hex")
    steps = linear(ACC, 4, 50.0, [8.0] * 3)
    block = steps.encode_physical([[0.2, -0.3, 1.0], [-9.0, 9.0, 6.9]])
    assert block.tolist() == [[8, 7, 9], [0, 15, 14]]
    last = Packet.from_codes(block, steps, sequence=4095, tick_ms=2**32 - 1)
    assert bytes(last) == read_vector("packet-3x4.hex")


def test_crc_check_value():
    """CRC-8/SMBUS in the catalogue of parametrised CRC algorithms."""
    assert _crc8(b"123456789") == crc8(b"123456789") == 0xF4


@given(st.binary(max_size=100))
def test_crc_by_table_is_crc_by_bit(data):
    assert _crc8(data) == crc8(data)


def test_sizes():
    assert (HEADER_BYTES, MAX_PACKET_BYTES) == (12, 244)
    assert MAX_PACKET_BYTES == 247 - 3, "one notification at an ATT MTU of 247"
    codes = np.zeros((52, 6), np.uint8)
    second = bytes(Packet.from_codes(codes, codebook(rate_hz=52.0), sequence=0, tick_ms=0))
    assert len(second) == 12 + 156
    assert 8 * len(second) / codes.size <= 4.6, "bits per value with our header"


@given(st.integers(1, 16), st.integers(1, 8))
def test_as_many_samples_as_fit_and_not_one_more(channels, bits):
    most = samples_that_fit(channels, bits)
    book = codebook(tuple(f"acc_{i}" for i in range(channels)), bits=bits)
    full = Packet.from_codes(np.zeros((most, channels), np.uint8), book, sequence=0, tick_ms=0)
    assert 1 <= len(bytes(full)) <= MAX_PACKET_BYTES
    with pytest.raises(PacketError):
        Packet.from_codes(np.zeros((most + 1, channels), np.uint8), book, sequence=0, tick_ms=0)


def test_samples_are_bounded_by_their_field_as_well():
    assert samples_that_fit(1, 1) == MAX_SAMPLES
    codes = np.ones((1024, 1), np.uint8)
    packet = Packet.from_codes(codes, ONE_BIT, sequence=0, tick_ms=0)
    assert Packet.from_bytes(bytes(packet)).samples == 1024
    assert np.array_equal(packet.codes(ONE_BIT), codes)


def test_counters_wrap():
    codes = np.zeros((1, 1), np.uint8)
    packet = Packet.from_codes(codes, ONE_BIT, sequence=4096 + 7, tick_ms=2**32 + 9)
    assert (packet.sequence, packet.tick_ms) == (7, 9)


def test_every_single_flipped_bit_is_noticed():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, size=(50, 6)).astype(np.uint8)
    data = bytes(Packet.from_codes(codes, codebook(), sequence=77, tick_ms=123_456))
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PacketError) as caught:
            Packet.from_bytes(bytes(flipped))
        assert caught.value.reason == "checksum"


def test_every_burst_of_up_to_eight_bits_in_the_payload_is_noticed():
    """What the polynomial promises: bit errors next to each other, as radio gives them."""
    data = bytes(Packet.from_codes(np.full((4, 6), 9, np.uint8), codebook(), sequence=1, tick_ms=2))
    number = int.from_bytes(data[12:], "big")
    width = 8 * (len(data) - 12)
    for start in range(width - 7):
        for burst in range(1, 256):
            payload = (number ^ burst << start).to_bytes(width // 8, "big")
            assert _crc8(data[:11] + payload) != data[11]


def test_a_packet_cut_off_anywhere_is_refused():
    data = bytes(Packet.from_codes(np.full((50, 6), 9, np.uint8), codebook(), sequence=1, tick_ms=2))
    for length in range(len(data)):
        with pytest.raises(PacketError):
            Packet.from_bytes(data[:length]).codes(codebook())


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_noise_is_refused_with_our_error_alone(noise):
    book = codebook()
    framed = book.short_digest + noise[:7].ljust(7, b"\0")
    framed += bytes([crc8(framed + noise[7:])]) + noise[7:]
    for data in (noise, framed):
        reason = "length"
        try:
            Packet.from_bytes(data).codes(book)
        except PacketError as error:
            reason = error.reason
        assert reason in {"length", "checksum", "coder", "codebook", "payload"}


@pytest.mark.parametrize("name", sorted(PACKETS))
def test_hostile_file(name):
    data, reason = PACKETS[name]
    assert (HOSTILE / name).read_bytes() == data, "the file is what hostile_files.py makes; run it to write it anew"
    book = Codebook.from_bytes(SMALL.to_bytes())
    with pytest.raises(PacketError) as caught:
        Packet.from_bytes(data).codes(book)
    assert caught.value.reason == reason
    assert caught.value.detail in str(caught.value)


@pytest.mark.parametrize("name", sorted(CODED_PACKETS))
def test_hostile_coded_file(name):
    data, said = CODED_PACKETS[name]
    assert (HOSTILE / name).read_bytes() == data, "the file is what hostile_files.py makes; run it to write it anew"
    book = Codebook.from_bytes(CODED.to_bytes())
    with pytest.raises(PacketError, match=said) as caught:
        Packet.from_bytes(data).codes(book)
    assert caught.value.reason == "payload"


GOOD = Packet(bytes(4), sequence=0, tick_ms=0, samples=1, payload=b"\0")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("short_digest", bytes(3), "field"),
        ("short_digest", bytes(32), "field"),
        ("sequence", -1, "field"),
        ("sequence", 4096, "field"),
        ("tick_ms", -1, "field"),
        ("tick_ms", 2**32, "field"),
        ("samples", 0, "field"),
        ("samples", 1025, "field"),
        ("payload", b"", "length"),
        ("payload", bytes(MAX_PAYLOAD_BYTES + 1), "length"),
    ],
)
def test_fields_out_of_range(field, value, reason):
    with pytest.raises(PacketError) as caught:
        replace(GOOD, **{field: value})
    assert caught.value.reason == reason


@given(
    st.builds(
        Packet,
        st.binary(min_size=4, max_size=4),
        SEQUENCES,
        TICKS,
        st.integers(1, MAX_SAMPLES),
        st.binary(min_size=1, max_size=MAX_PAYLOAD_BYTES),
        st.sampled_from(Coder),
    )
)
def test_whatever_can_be_made_can_be_read(packet):
    assert Packet.from_bytes(bytes(packet)) == packet


# -- entropy coded -----------------------------------------------------------------------------------------------------


def still(samples: int, book: Codebook) -> np.ndarray:
    return np.full((samples, len(book.channels)), 1, np.uint8)


def coded_book(bits: int = 4, share: int = 250) -> Codebook:
    """Everything stays, says this codebook."""
    book = codebook(bits=bits)
    return replace(book, contexts=np.full((6, ContextLayout.of(bits).size), share, np.uint8))


def test_golden_bytes_of_coded_packets():
    book = Codebook.from_bytes(read_vector("codebook-contexts.hex"))
    packet = Packet.from_codes(
        np.repeat(np.array([[0], [1]], np.uint8), [10, 14], axis=0), book, sequence=6, tick_ms=1200
    )
    assert packet.coder is Coder.ENTROPY
    assert bytes(packet) == read_vector("packet-coded.hex")
    book = Codebook.from_bytes(read_vector("codebook-contexts-3x4.hex"))
    codes = unpack(read_vector("codes-coded-3x4.hex"), 60, 3, 4)
    assert bytes(Packet.from_codes(codes, book, sequence=7, tick_ms=20)) == read_vector("packet-coded-3x4.hex")
    assert np.array_equal(Packet.from_bytes(read_vector("packet-coded-3x4.hex")).codes(book), codes)


@settings(max_examples=60)
@given(codebooks(), st.integers(1, MAX_SAMPLES), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_payload_is_the_shorter_of_both_forms(book, samples, liveliness, seed):
    rng = np.random.default_rng(seed)
    shape = (min(samples, samples_that_fit(len(book.channels), book.bits)), len(book.channels))
    steps = rng.integers(-1, 2, size=shape) * (rng.random(shape) < liveliness)
    codes = np.clip(np.cumsum(steps, axis=0), 0, 2**book.bits - 1).astype(np.uint8)
    packet = Packet.from_codes(codes, book, sequence=0, tick_ms=0)
    plain = pack(codes, book.bits)
    assert len(packet.payload) <= len(plain)
    assert (packet.coder is Coder.PLAIN) == (packet.payload == plain)
    if book.contexts is None:
        assert packet.coder is Coder.PLAIN
    assert np.array_equal(Packet.from_bytes(bytes(packet)).codes(book), codes)


def test_a_coded_packet_holds_more_than_a_plain_one():
    book = coded_book()
    packet = Packet.from_codes(still(1024, book), book, sequence=0, tick_ms=0)
    assert (packet.coder, packet.samples) == (Coder.ENTROPY, 1024)
    assert len(packet.payload) < 232 < 1024 * 3
    assert np.array_equal(Packet.from_bytes(bytes(packet)).codes(book), still(1024, book))
    for samples in (0, 1025):
        with pytest.raises(PacketError, match="samples"):
            Packet.from_codes(still(samples, book), book, sequence=0, tick_ms=0)


@pytest.mark.parametrize("max_bytes", [3, 20, 232])
def test_the_longest_beginning_that_fits(max_bytes):
    book = coded_book()
    rng = np.random.default_rng(3)
    codes = np.where(np.arange(1500)[:, None] < 400, 0, rng.integers(0, 16, size=(1500, 6))).astype(np.uint8)
    samples, coder, payload = encode_longest(codes, book, max_bytes)
    assert len(payload) <= max_bytes
    assert encode_payload(codes[:samples], book, max_bytes) == (coder, payload)
    assert encode_payload(codes[: samples + 1], book, max_bytes) is None
    assert samples > samples_that_fit(6, 4, max_bytes)
    assert encode_longest(codes[400:], book, max_bytes)[0] == samples_that_fit(6, 4, max_bytes), "noise goes plainly"
    with pytest.raises(PacketError, match="one sample"):
        encode_longest(codes, book, 2)


def test_what_a_receiver_refuses_of_coded_payloads():
    book = coded_book()
    good = Packet.from_codes(still(100, book), book, sequence=0, tick_ms=0)
    plain = replace(book, contexts=None)
    with pytest.raises(PacketError, match="no contexts") as caught:
        replace(good, short_digest=plain.short_digest).codes(plain)
    assert caught.value.reason == "coder"
    for payload in (good.payload + b"\0", good.payload + b"\1", b"\xff" * 4, bytes(20)):
        with pytest.raises(PacketError) as caught:
            replace(good, payload=payload).codes(book)
        assert caught.value.reason == "payload"
    noise = np.random.default_rng(0).integers(0, 16, (10, 6)).astype(np.uint8)
    longer = EntropyCoder(4, book.contexts).encode(noise, 232)
    with pytest.raises(PacketError, match="plain packing takes no more"):
        replace(good, samples=10, payload=longer).codes(book)


@settings(max_examples=200)
@given(codebooks(max_bits=8), st.integers(1, MAX_SAMPLES), st.binary(min_size=1, max_size=MAX_PAYLOAD_BYTES))
def test_a_hostile_payload_is_refused_or_is_the_only_form_of_its_codes(book, samples, payload):
    packet = replace(GOOD, short_digest=book.short_digest, samples=samples, payload=payload, coder=Coder.ENTROPY)
    try:
        codes = packet.codes(book)
    except PacketError as error:
        reason = error.reason
    else:
        reason = ""
        assert codes.shape == (samples, len(book.channels))
        assert EntropyCoder(book.bits, book.contexts).encode(codes, 1 << 16) == payload
    assert reason in {"", "payload", "coder"}
