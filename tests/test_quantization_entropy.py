"""The entropy coder: lossless, bounded, as short as its statistics say, and the same compiled and in plain Python."""

import importlib.util
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from needed import need
from reference import decisions, entropy_code

from quantization import rangecoder
from quantization.codebook import Codebook, ContextLayout
from quantization.codec import packed_size
from quantization.entropy import EntropyCoder, code_length, coder_of, statistics_from_codes
from quantization.errors import CodebookError

ROOM = 1 << 16


def book_of(contexts: np.ndarray, bits: int) -> Codebook:
    rows, codes = len(contexts), 2**bits
    edges = np.tile(np.arange(codes, dtype=np.float64), (rows, 1))
    names = tuple(f"c{i}" for i in range(rows))
    return Codebook(names, bits, 50.0, thresholds=edges[:, 1:].copy(), levels=edges, contexts=contexts)


@st.composite
def tables(draw: st.DrawFn, max_bits: int = 8) -> tuple[np.ndarray, int]:
    """Contexts and bits: random, extreme, or all alike."""
    bits, channels = draw(st.integers(1, max_bits)), draw(st.integers(1, 16))
    shape = (channels, ContextLayout.of(bits).size)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["random", "extreme", "alike"]))
    if kind == "random":
        return rng.integers(1, 256, size=shape).astype(np.uint8), bits
    if kind == "extreme":
        return rng.choice(np.array([1, 2, 254, 255], np.uint8), size=shape), bits
    return np.full(shape, draw(st.integers(1, 255)), np.uint8), bits


@st.composite
def cases(draw: st.DrawFn, max_samples: int = 120, max_bits: int = 8) -> tuple[np.ndarray, np.ndarray, int]:
    """Contexts, ``[n, C]`` codes and bits. Codes are noise, walks, or what these very contexts think likely or not."""
    contexts, bits = draw(tables(max_bits))
    samples, channels, top = draw(st.integers(1, max_samples)), len(contexts), 2**bits - 1
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["noise", "walk", "jumps", "still", "own"]))
    shape = (samples, channels)
    if kind == "own":
        # What random bytes decode to is what the table expects; nothing finds an unlikely carry as often.
        codes = bytearray(samples * channels)
        coder = EntropyCoder(bits, contexts)
        coder._run(
            rangecoder.decode, as_kernel := coder._bytes(bytes(codes)), coder._table, coder._bytes(rng.bytes(99))
        )
        return contexts, np.asarray(as_kernel, np.uint8).reshape(shape), bits
    if kind == "still":
        return contexts, np.full(shape, draw(st.integers(0, top)), np.uint8), bits
    if kind == "jumps":
        return contexts, rng.choice([0, top], size=shape).astype(np.uint8), bits
    steps = rng.integers(-2, 3, size=shape) if kind == "walk" else rng.integers(-top, top + 1, size=shape)
    walk = np.clip(np.cumsum(steps * (rng.random(shape) < draw(st.floats(0, 1))), axis=0) + top // 2, 0, top)
    return contexts, walk.astype(np.uint8), bits


@settings(max_examples=150)
@given(cases())
def test_round_trip_within_two_bytes_of_the_information(case):
    contexts, codes, bits = case
    coder = EntropyCoder(bits, contexts)
    data = coder.encode(codes, ROOM)
    assert np.array_equal(coder.decode(data, len(codes)), codes)
    information = code_length(codes, book_of(contexts, bits))
    assert 8 * len(data) <= information + 16


@settings(max_examples=60, deadline=None)
@given(cases(max_samples=12))
def test_the_reference_makes_the_same_bytes(case):
    contexts, codes, bits = case
    decided = decisions(codes.tolist(), bits, contexts.tolist())
    assert EntropyCoder(bits, contexts).encode(codes, ROOM) == entropy_code(decided)
    ours = code_length(codes, book_of(contexts, bits))
    shares = [(share if outcome == 0 else 256 - share) / 256 for share, outcome in decided]
    assert ours == pytest.approx(-np.log2(shares).sum())


def test_it_stays_within_two_bytes_over_the_longest_packet():
    """Rounding adds up with the number of decisions: the most there can be, at the most lopsided odds."""
    for share in (1, 2, 100, 254, 255):
        contexts = np.full((16, ContextLayout.of(8).size), share, np.uint8)
        codes = np.random.default_rng(0).integers(0, 256, size=(1024, 16)).astype(np.uint8)
        for block in (codes, np.zeros_like(codes), np.full_like(codes, 255)):
            data = EntropyCoder(8, contexts).encode(block, 1 << 20)
            assert 8 * len(data) <= code_length(block, book_of(contexts, 8)) + 16


@settings(max_examples=100)
@given(cases(), st.data())
def test_room_is_kept_to_exactly(case, data):
    contexts, codes, bits = case
    coder = EntropyCoder(bits, contexts)
    whole = coder.encode(codes, ROOM)
    assert coder.encode(codes, len(whole) - 1) is None
    limit = data.draw(st.integers(0, len(whole) + 4))
    # Zeros at the end, which are cut off, must fit while they are written; a device then sends another form.
    assert coder.encode(codes, limit) in ((None,) if limit < len(whole) else (whole, None))


@settings(max_examples=150)
@given(tables(), st.integers(1, 1024), st.binary(min_size=1, max_size=232))
def test_bytes_are_refused_or_the_only_form_of_their_codes(table, samples, data):
    contexts, bits = table
    coder = EntropyCoder(bits, contexts)
    try:
        codes = coder.decode(data, samples)
    except CodebookError:
        return
    assert codes.max() < 2**bits
    assert coder.encode(codes, ROOM) == data


@settings(max_examples=80)
@given(cases(max_samples=60), st.data())
def test_damage_is_refused_or_is_the_only_form_of_other_codes(case, data):
    contexts, codes, bits = case
    coder = EntropyCoder(bits, contexts)
    sound = coder.encode(codes, ROOM)
    flip = data.draw(st.integers(0, 8 * len(sound) - 1))
    flipped = bytearray(sound)
    flipped[flip // 8] ^= 1 << flip % 8
    cut = data.draw(st.integers(0, len(sound) - 1))
    for damaged in (bytes(flipped), sound[:cut], sound + b"\0", sound + data.draw(st.binary(min_size=1, max_size=8))):
        try:
            found = coder.decode(damaged, len(codes))
        except CodebookError:
            continue
        assert not np.array_equal(found, codes)
        assert coder.encode(found, ROOM) == damaged


def test_the_longest_hostile_packet_takes_milliseconds():
    rng = np.random.default_rng(1)
    coder = EntropyCoder(8, rng.integers(1, 256, size=(16, ContextLayout.of(8).size)).astype(np.uint8))
    coder.encode(np.zeros((1, 16), np.uint8), 1)
    began = time.process_time()
    for _ in range(10):
        with pytest.raises(CodebookError):
            coder.decode(rng.bytes(231) + b"\0", 1024)
    assert time.process_time() - began < 10 * (0.1 if rangecoder.COMPILED else 2.0)


@pytest.fixture(scope="module")
def plain():
    """The same functions as on a device: without numba."""
    spec = importlib.util.spec_from_file_location("rangecoder_plain", rangecoder.__file__)
    module = importlib.util.module_from_spec(spec)
    numba, sys.modules["numba"] = sys.modules.get("numba"), None
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["numba"]
        if numba is not None:
            sys.modules["numba"] = numba
    assert not module.COMPILED
    return module


def plainly(coder: EntropyCoder, module) -> EntropyCoder:
    same = EntropyCoder.__new__(EntropyCoder)
    same._kernels, same.channels = module, coder.channels
    same._layout, same._table = [int(v) for v in coder._layout], [int(v) for v in coder._table]
    return same


@settings(max_examples=50)
@given(case=cases(max_samples=40), noise=st.binary(min_size=1, max_size=60))
def test_plain_python_does_the_same(plain, case, noise):
    contexts, codes, bits = case
    coder = EntropyCoder(bits, contexts)
    slow = plainly(coder, plain)
    data = coder.encode(codes, ROOM)
    for limit in (len(data) - 1, len(data) + 4, packed_size(*codes.shape, bits)):
        assert slow.encode(codes, limit) == coder.encode(codes, limit)
    assert np.array_equal(slow.decode(data, len(codes)), codes)
    assert np.array_equal(slow.decisions(codes), coder.decisions(codes))
    for damaged in (noise, data + noise, data[:-1] or b"\0"):
        assert outcome(slow, damaged, len(codes)) == outcome(coder, damaged, len(codes))


def outcome(coder: EntropyCoder, data: bytes, samples: int) -> str | bytes:
    try:
        return coder.decode(data, samples).tobytes()
    except CodebookError as error:
        return str(error)


def test_without_a_folder_for_the_cache_it_compiles_all_the_same(monkeypatch):
    need(importlib.util.find_spec("numba"), "numba, which gateways have (pip install numba)")
    import numba

    real, asked = numba.njit, []

    def njit(signature, *, nogil, cache=False):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(signature, nogil=nogil)

    def twice(value: int) -> int:
        return 2 * value

    monkeypatch.setattr("numba.njit", njit)
    signed, compiled = rangecoder._compiler()
    assert compiled
    assert signed("i8(i8)")(twice)(21) == 42
    assert asked == [True, False]


# -- statistics --------------------------------------------------------------------------------------------------------


def walks(rng: np.random.Generator, samples: int, channels: int, bits: int, liveliness: float) -> np.ndarray:
    steps = rng.integers(-1, 2, size=(samples, channels)) * (rng.random((samples, channels)) < liveliness)
    position, found = np.full(channels, 2**bits // 2), []
    for step in steps:
        position = np.clip(position + step, 0, 2**bits - 1)
        found.append(position)
    return np.array(found, dtype=np.uint8)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_statistics_make_packets_short(bits):
    rng = np.random.default_rng(bits)
    contexts = statistics_from_codes([walks(rng, 3000, 3, bits, 0.1) for _ in range(3)], bits)
    assert contexts.shape == (3, ContextLayout.of(bits).size)
    book = book_of(contexts, bits)
    fresh = walks(rng, 50, 3, bits, 0.1)
    # A step up or down at 1/15 each, mostly not: 0.42 bits a sample, and the first sample.
    assert code_length(fresh, book) < 0.5 * 150 + 3 * (bits + 6)
    assert len(coder_of(book).encode(fresh, ROOM)) < packed_size(50, 3, bits)


@settings(max_examples=60)
@given(cases(max_samples=80))
def test_nothing_is_certain_and_what_was_never_seen_is_affordable(case):
    _, codes, bits = case
    book = book_of(statistics_from_codes([codes], bits), bits)
    assert (book.contexts >= 1).all()
    rng = np.random.default_rng(0)
    other = rng.integers(0, 2**bits, size=(1, codes.shape[1])).astype(np.uint8)
    assert code_length(other, book) <= codes.shape[1] * (bits + 7), "any first code"
    for top in (0, 2**bits - 1):
        jump = np.array([[top], [2**bits - 1 - top]], np.uint8).repeat(codes.shape[1], axis=1)
        cost = code_length(jump, book) - code_length(jump[:1], book)
        assert cost <= codes.shape[1] * (8.1 + 5.1 + 5.1 * bits + bits)


def test_recordings_do_not_run_into_each_other():
    low, high = np.zeros((100, 1), np.uint8), np.full((100, 1), 15, np.uint8)
    apart, joined = statistics_from_codes([low, high], 4), statistics_from_codes([np.concatenate([low, high])], 4)
    part = ContextLayout.of(4)
    assert (apart[:, part.direction :] == 128).all(), "nothing ever moved"
    assert not np.array_equal(apart, joined)
    tree = [128, 254, 2, 254, 128, 128, 2]
    assert abs(apart[0, :7].astype(int) - tree).max() <= 2


def test_statistics_of_nothing_are_refused():
    for nothing in ([], [np.zeros((0, 3), np.uint8)], [np.zeros((2, 3), np.uint8), np.zeros((2, 2), np.uint8)]):
        with pytest.raises(CodebookError, match="statistics take"):
            statistics_from_codes(nothing, 4)


def test_codes_that_do_not_fit_are_refused():
    coder = EntropyCoder(2, np.full((3, ContextLayout.of(2).size), 128, np.uint8))
    for codes in (np.zeros((0, 3)), np.zeros((4, 2)), np.full((4, 3), 4)):
        with pytest.raises(CodebookError, match="do not fit"):
            coder.encode(codes.astype(np.uint8), ROOM)
    with pytest.raises(CodebookError, match="not one byte"):
        coder.decode(b"", 4)


def test_one_coder_for_each_codebook_with_contexts():
    book = book_of(np.full((1, ContextLayout.of(1).size), 200, np.uint8), 1)
    assert coder_of(book) is coder_of(Codebook.from_bytes(bytes(book)))
    assert coder_of(replace(book, contexts=None)) is None
    with pytest.raises(CodebookError, match="no contexts"):
        code_length(np.zeros((1, 1), np.uint8), replace(book, contexts=None))


def test_importing_a_codec_does_not_compile():
    """A device, and a command that only lists bundles, must not wait for numba."""
    import subprocess

    text = "import sys, quantization.entropy, protocol.packet; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
