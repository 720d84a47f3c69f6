"""The context coder of mosaics: lossless, bounded, one form only, and the same compiled and in plain Python."""

import contextlib
import hashlib
import importlib.util
import sys
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_mosaic import KNOTS, code, decisions

from quantization import plane_coder, rangecoder
from quantization.codec import packed_size
from quantization.errors import FrameError
from quantization.plane_coder import decode, encode
from quantization.raw import CodeMosaic

ROOM = 1 << 20


def scene(height: int, width: int, bits: int, noise: float, seed: int = 0) -> CodeMosaic:
    """A smooth scene in four colours of different brightness, with edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    light = 0.5 + 0.3 * np.sin(x / 23) * np.cos(y / 17) + 0.2 * ((x // 40 + y // 30) % 2)
    light *= np.tile([[0.6, 1.0], [1.0, 0.8]], (height // 2, width // 2))
    codes = np.rint(light * (2**bits - 1) * 0.7 + noise * rng.standard_normal(light.shape))
    return np.clip(codes, 0, 2**bits - 1).astype(np.uint8)


@st.composite
def mosaics(draw: st.DrawFn, max_side: int = 24) -> tuple[CodeMosaic, int]:
    """Codes and their bits: noise, scenes, one code everywhere, extremes, and what the model expects."""
    bits = draw(st.integers(1, 8))
    height, width = (2 * draw(st.integers(1, max_side // 2)) for _ in range(2))
    seed, top = draw(st.integers(0, 2**32 - 1)), 2**bits - 1
    rng = np.random.default_rng(seed)
    kind = draw(st.sampled_from(["noise", "scene", "flat", "extremes", "expected"]))
    if kind == "noise":
        return rng.integers(0, top + 1, (height, width)).astype(np.uint8), bits
    if kind == "scene":
        return scene(height, width, bits, draw(st.floats(0, 3)), seed), bits
    if kind == "flat":
        return np.full((height, width), draw(st.integers(0, top)), np.uint8), bits
    if kind == "extremes":
        return rng.choice(np.array([0, top], np.uint8), (height, width)), bits
    # What random bytes decode to is what the model expects; nothing finds an unlikely carry as often.
    margined = plane_coder._codes(np.zeros((height + 4, width + 8), np.int16))
    coder = plane_coder._table([int(rng.integers(2**32 - 1)), 2**32 - 1, 4, rangecoder.DECODE, 0])
    plane_coder._run(margined, width, bits, coder, plane_coder._bytes(rng.bytes(999)))
    return np.asarray(margined).reshape(height + 4, -1)[4:, 4:-4].astype(np.uint8), bits


@settings(max_examples=200, deadline=None)
@given(mosaics(max_side=60))
def test_round_trip(case):
    codes, bits = case
    data = encode(codes, bits, ROOM)
    assert np.array_equal(decode(data, *codes.shape, bits), codes)
    assert len(data) <= 1.35 * packed_size(*codes.shape, bits) + 80, "what it does not expect costs more, in bounds"


@settings(max_examples=60, deadline=None)
@given(mosaics(max_side=12))
def test_the_reference_makes_the_same_bytes(case):
    codes, bits = case
    assert encode(codes, bits, ROOM) == code(decisions(codes.tolist(), bits))


def test_the_reference_agrees_once_everything_has_adapted():
    codes = scene(48, 64, 4, 1.0)
    assert encode(codes, 4, ROOM) == code(decisions(codes.tolist(), 4))
    deep = scene(24, 32, 8, 6.0)
    assert encode(deep, 8, ROOM) == code(decisions(deep.tolist(), 8))


def test_the_knots_are_the_logistic_curve():
    assert list(plane_coder.KNOTS) == KNOTS


def integers(height: int, width: int, bits: int) -> CodeMosaic:
    """A pattern that is the same on every machine."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    hashed = (x * 73_856_093 ^ y * 19_349_663) % 65_521 % 5
    return ((3 * (x & 1) + (x + 2 * y) // 9 + hashed) % 40 * 2**bits // 44).astype(np.uint8)


@pytest.mark.parametrize(
    ("bits", "length", "digest"),
    [
        (1, 678, "7ef32b2071db"),
        (2, 1309, "362fc7a8a1fd"),
        (4, 4059, "1f5bbe8180c6"),
        (8, 14720, "50a4a321e356"),
    ],
)
def test_the_bytes_are_those_of_every_release(bits, length, digest):
    data = encode(integers(120, 160, bits), bits, ROOM)
    assert (len(data), hashlib.sha256(data).hexdigest()[:12]) == (length, digest)


def test_noise_is_most_of_what_is_sent():
    """A clean scene takes little, and a noisy one not much more than the entropy of its noise."""
    clean, noisy = (8 * len(encode(scene(240, 320, 4, noise), 4, ROOM)) / 76_800 for noise in (0.0, 0.7))
    assert clean < 0.4
    entropy = 0.5 * np.log2(2 * np.pi * np.e * (0.7**2 + 1 / 12))
    assert entropy - 0.1 < noisy < 1.2 * entropy


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_nothing_to_say_takes_next_to_nothing(bits):
    for value in (0, 2**bits - 1):
        assert len(encode(np.full((480, 640), value, np.uint8), bits, ROOM)) < 64


@settings(max_examples=100, deadline=None)
@given(mosaics(), st.data())
def test_room_is_kept_to_exactly(case, data):
    codes, bits = case
    whole = encode(codes, bits, ROOM)
    if len(whole) > 1:
        assert encode(codes, bits, len(whole) - 1) is None
    limit = data.draw(st.integers(1, len(whole) + 4))
    # Zeros at the end, which are cut off, must fit while they are written.
    assert encode(codes, bits, limit) in ((None,) if limit < len(whole) else (whole, None))


SIDES = st.integers(1, 12).map(lambda half: 2 * half)


def read(data: bytes, height: int, width: int, bits: int) -> str:
    """Decode any bytes: what is not refused is the only form of its codes."""
    try:
        codes = decode(data, height, width, bits)
    except FrameError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.reason == "payload"
        return refused.detail
    assert codes.shape == (height, width)
    assert codes.dtype == np.uint8
    assert not (codes >> bits if bits < 8 else np.zeros(1)).any()
    assert encode(codes, bits, ROOM) == data
    return ""


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), SIDES, SIDES, st.integers(1, 8))
def test_any_bytes_are_refused_or_the_only_form_of_their_codes(data, height, width, bits):
    read(data, height, width, bits)


@settings(max_examples=150, deadline=None)
@given(mosaics(), st.data())
def test_damaged_bytes_are_refused_or_another_mosaic(case, draw):
    codes, bits = case
    data = encode(codes, bits, ROOM)
    at = draw.draw(st.integers(0, len(data) - 1))
    flipped = data[:at] + bytes([data[at] ^ draw.draw(st.integers(1, 255))]) + data[at + 1 :]
    for damaged in (flipped, data[:at], data + b"\0", data + b"\1", data[:at] + data[at + 1 :]):
        read(damaged, *codes.shape, bits)
    assert read(data + b"\0", *codes.shape, bits), "a byte too many is refused"


@pytest.mark.parametrize("data", [b"", b"\xff" * 4, b"\xff" * 400, b"\1" + bytes(9), b"\0\0"])
def test_what_no_encoder_makes_is_refused(data):
    assert read(data, 8, 8, 4)


def test_memory_goes_by_the_size_alone():
    tracemalloc.start()
    try:
        for data in (b"\x55", b"\x55" * 100_000):
            tracemalloc.reset_peak()
            with contextlib.suppress(FrameError):
                decode(data, 480, 640, 4)
            assert tracemalloc.get_traced_memory()[1] < 3 * 480 * 640 + 2 * len(data) + 600_000
    finally:
        tracemalloc.stop()


def test_it_is_fast_enough_for_a_camera():
    codes = scene(240, 320, 4, 1.0)
    began = time.process_time()
    for _ in range(5):
        assert np.array_equal(decode(encode(codes, 4, ROOM), 240, 320, 4), codes)
    assert time.process_time() - began < 5 * (0.15 if plane_coder.COMPILED else 20)


@pytest.mark.parametrize(
    ("shape", "bits", "reason"),
    [((3, 4), 4, "size"), ((0, 2), 4, "size"), ((2, 8194), 4, "size"), ((2, 2), 9, "field")],
)
def test_what_it_does_not_take(shape, bits, reason):
    for call in (lambda: encode(np.zeros(shape, np.uint8), bits, 99), lambda: decode(b"\0", *shape, bits)):
        with pytest.raises(FrameError) as caught:
            call()
        assert caught.value.reason == reason


def test_a_code_beyond_its_bits_is_not_taken():
    with pytest.raises(FrameError, match="4 takes more than 2 bits"):
        encode(np.full((2, 2), 4, np.uint8), 2, 99)


# -- plain Python ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain():
    """The same functions as on a device: without numba."""
    changed = {"numba": None}
    before = {name: sys.modules.get(name) for name in ("numba", rangecoder.__name__)}
    sys.modules.update(changed)
    try:
        for module in (rangecoder, plane_coder):
            spec = importlib.util.spec_from_file_location(f"{module.__name__}_plain", module.__file__)
            made = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(made)
            assert not made.COMPILED
            sys.modules[rangecoder.__name__] = made  # what the coder is made of
        return made
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@settings(max_examples=25, deadline=None)
@given(case=mosaics(max_side=16), noise=st.binary(min_size=1, max_size=60))
def test_plain_python_does_the_same(plain, case, noise):
    codes, bits = case
    data = encode(codes, bits, ROOM)
    for limit in (max(1, len(data) - 1), len(data) + 4):
        assert plain.encode(codes, bits, limit) == encode(codes, bits, limit)
    assert np.array_equal(plain.decode(data, *codes.shape, bits), codes)
    for damaged in (noise, data + noise, data[:-1] or b"\0"):
        assert outcome(plain, damaged, codes.shape, bits) == outcome(plane_coder, damaged, codes.shape, bits)


def outcome(coder, data: bytes, shape: tuple[int, int], bits: int) -> str | bytes:
    try:
        return coder.decode(data, *shape, bits).tobytes()
    except FrameError as error:
        return str(error)
