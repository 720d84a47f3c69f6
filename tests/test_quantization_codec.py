"""Counts to codes, codes to bytes: the integer thresholds, the packed layout, and how long it takes."""

import timeit

import numpy as np
import pytest
from factories import codebook, sensor
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import pack as reference_pack
from reference import unpack as reference_unpack
from strategies import blocks
from vector_files import read_vector

from quantization.codec import Encoder, network_input, pack, packed_size, unpack
from quantization.errors import CodebookError
from quantization.sensor import Sensor

EIGHT = np.arange(8, dtype=np.uint8)[:, None]


@settings(max_examples=200)
@given(blocks())
def test_packing_is_that_of_the_reference_and_reads_back(drawn):
    codes, bits = drawn
    data = pack(codes, bits)
    assert len(data) == packed_size(*codes.shape, bits)
    assert data == reference_pack(codes.ravel().tolist(), bits)
    assert reference_unpack(data, codes.size, bits) == codes.ravel().tolist()
    again = unpack(data, *codes.shape, bits)
    assert again.dtype == np.uint8
    assert np.array_equal(again, codes)


def test_golden_bytes():
    assert pack(EIGHT, 3) + pack(EIGHT, 4) + pack(EIGHT, 8) == read_vector("packing.hex")
    assert pack(np.array([[1], [2], [3]], dtype=np.uint8), 4).hex() == "2103", "an odd number of nibbles"
    assert pack(np.array([[1, 0, 1]], dtype=np.uint8), 1).hex() == "05"


@settings(max_examples=100)
@given(blocks(), st.integers(0, 7))
def test_padding_that_is_not_zero_is_refused(drawn, where):
    codes, bits = drawn
    data = bytearray(pack(codes, bits))
    used = codes.size * bits % 8
    if not used:
        return
    data[-1] |= 1 << used + where % (8 - used)
    with pytest.raises(CodebookError, match="padding"):
        unpack(bytes(data), *codes.shape, bits)


@given(blocks(), st.integers(-3, 3))
def test_another_length_is_refused(drawn, more):
    codes, bits = drawn
    data = (pack(codes, bits) + bytes(3))[: max(0, packed_size(*codes.shape, bits) + more)]
    if len(data) == packed_size(*codes.shape, bits):
        return
    with pytest.raises(CodebookError, match="bytes"):
        unpack(data, *codes.shape, bits)


def test_unpacked_codes_may_be_written_to():
    for bits in (3, 4, 8):
        unpack(pack(EIGHT, bits), 8, 1, bits)[0, 0] = 1


@pytest.mark.parametrize("part", ["generic12", "bmi270"])
def test_the_table_is_the_thresholds(part):
    """Every count of every channel against a count of the integer thresholds that are not above it."""
    encoder = Encoder(codebook(), sensor(part=part))
    counts = encoder.sensor.all_counts()[:: 1 if part == "generic12" else 7]
    codes = encoder.encode(np.repeat(counts[:, None], 6, axis=1))
    for channel, row in enumerate(encoder.thresholds.tolist()):
        assert codes[:, channel].tolist() == [sum(count >= edge for edge in row) for count in counts.tolist()]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (np.full((1, 6), 2048, np.int32), "more than 12 bits"),
        (np.full((1, 6), -2049, np.int32), "more than 12 bits"),
        (np.zeros((1, 5), np.int32), "a block is"),
        (np.zeros(6, np.int32), "a block is"),
    ],
)
def test_blocks_that_do_not_fit(block, said):
    with pytest.raises(CodebookError, match=said):
        Encoder(codebook(), sensor()).encode(block)


def test_no_samples_and_other_integer_types():
    encoder = Encoder(codebook(), sensor())
    assert encoder.encode(np.zeros((0, 6), np.int32)).shape == (0, 6)
    block = np.arange(-300, 300, dtype=np.int32).reshape(100, 6)
    for kind in (np.int16, np.int64):
        assert np.array_equal(encoder.encode(block.astype(kind)), encoder.encode(block))


def test_one_codebook_serves_parts_of_other_resolution():
    """The same movement through a 12-bit and a 16-bit part: codes differ only where the parts round differently."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(4000, 6)) * ([1.0] * 3 + [150.0] * 3)
    book = codebook()
    coarse, fine = (Encoder(book, sensor(part=part)) for part in ("generic12", "bmi270"))
    a, b = (one.encode(one.sensor.to_counts(values)).astype(int) for one in (coarse, fine))
    assert (a != b).mean() < 0.02
    assert np.abs(a - b).max() <= 1
    assert np.array_equal(
        fine.encode(fine.sensor.to_counts(values)),
        book.encode_physical(fine.sensor.to_physical(fine.sensor.to_counts(values))),
    )


@pytest.mark.parametrize("bits", range(1, 9))
def test_network_input_is_evenly_spaced(bits):
    seen = network_input(np.arange(2**bits, dtype=np.uint8)[:, None], bits).ravel()
    assert seen.dtype == np.float32
    assert (seen[0], seen[-1]) == (-1.0, 1.0)
    assert np.allclose(np.diff(seen), 2 / (2**bits - 1), atol=1e-6)


def test_speed():
    """One second of six channels at 100 Hz takes well under 100 µs."""
    part = Sensor.symmetric("p", codebook().channels, adc_bits=12, full_scale={"acc": 8.0, "gyro": 2000.0})
    encoder = Encoder(codebook(), part)
    counts = np.random.default_rng(0).integers(-2048, 2048, size=(100, 6)).astype(np.int32)
    codes = encoder.encode(counts)
    for work in (lambda: encoder.encode(counts), lambda: pack(codes, 4)):
        best = min(timeit.repeat(work, number=20, repeat=30)) / 20
        assert best < 100e-6
