"""A mosaic of codes to fewer bytes, without loss: a range coder whose probabilities adapt within the frame.

A frame decodes alone: everything that adapts starts anew with it. All is integers, so every machine makes the same
bytes: 16 KiB of tables (which 33 numbers make), 175 KiB of state (59 310 chances with ages, 360 weights), the five rows
above. One implementation, twice, as in :mod:`quantization.rangecoder`: importing this module compiles it where numba is
installed; plain Python takes sixty times as long.

**Order.** Row by row, each from the left. ``a[y][x]`` is the mosaic, W × H, with margins: 0 above it; on the left and
on the right (4 columns each) a row goes on with what its outermost columns of the same colour have two rows above:
``a[y][x] = a[y-2][x & 1]`` for x < 0, ``a[y-2][W - 2 + (x & 1)]`` for x >= W. ``>>`` rounds down, ``cut(v, low, high)``
is v, but at least low and at most high. b is the bits of a code, ``top = 2^b - 1``, ``s = max(0, b - 4)``.

**Prediction.** P, in 1/64 codes, is the sum of the codes before, weighted like this, then cut to 0 .. 64 top::

              x-4  x-3  x-2  x-1   x   x+1  x+2
        y-4                        1
        y-2              -1   -6   11   -3    3
        y-1              -8    3   15   11    2
        y      3         13   20

The predicted code is ``g = (P + 32) >> 6``, its fraction ``f = (P + 32) & 63``. Once the code c is known, its error is
``r[y][x] = min(abs(64 c - P) >> (s + 2), 255)``; r is 0 outside of the mosaic. The noise class n, 0 .. 7, is how many
of 10, 20, 30, 40, 60, 80 and 120 are not above ``2 r[y][x-1] + r[y][x-2] + 2 r[y-1][x] + r[y-1][x+1]``.

**Contexts.** Three for each code. With ``west = a[y][x-2]`` and ``north = a[y-2][x]``, which have its colour, and
``q = (x + y) & 1``::

    A = (((g >> s) * 8 + (f >> 3)) * 4 + (n >> 1)) * 2 + q                                            of 1024
    B = ((16 d(west + north) + d(a[y][x-1] + a[y-1][x])) * 4 + (f >> 4)) * 2 + q                      of 2048
        d(v) = cut((32 v - P) >> (s + 4), -7, 8) + 7
    C = (((7 t(west, 3) + t(north, 3)) * 3 + t(a[y-2][x-2], 1)) * 3 + t(a[y-2][x+2], 1)) * 2 + q      of 882
        t(v, m) = cut((v - g) >> s, -m, m) + m

**Decisions**, each with a slot, 0 .. 14:

1. Slot 0: whether c differs from g. If not, that is all.
2. Slot 1: whether c is above g (then u = 1). Not asked where g is 0 (u = 1) or top (u = 0).
3. How far, m = abs(c − g), from 1 to the room ``top - g`` or ``g``: an Elias gamma code, cut to the room. While
   ``2 << k`` is within the room, from k = 0 on: slot ``2 + 2 min(k, 2) + u``, whether m is as large; if so, k grows.
   Then ``m = 1 << k``. For i = k − 1 down to 0, where ``m + (1 << i)`` is within the room: whether that is added, slot
   ``8 + 2 min(k - 1, 2) + u`` if i = k − 1, else 14.

**Chances.** For every slot, each context has the chance p of a 1 (16 bits, at first 32768) and its age (at first 0).
The chances of the three contexts mix on a logistic scale, with three weights w for each noise class and slot (at first
24576): ``x[i] = stretch(p[i] >> 4)``; ``z = cut((w[0] x[0] + w[1] x[1] + w[2] x[2]) >> 16, -2047, 2047)``; the chance
is ``h = cut(squash(z), 1, 4095)`` of 4096. After the outcome o, 0 or 1::

    w[i] = cut(w[i] + ((x[i] * (4096 o - h) * 14 + 32768) >> 16), -262143, 262143)
    p[i] = p[i] + (((65535 o - p[i]) * floor(131072 / (2 age[i] + 3))) >> 16);    age[i] = min(age[i] + 1, 30)

All numbers fit 32 bits with a sign, but the product in the second line, which takes 33.

``squash(z)`` is 4096 / (1 + e^(−z/256)) in straight lines between :data:`KNOTS`: with ``i = (z + 2048) >> 7`` and
``j = z & 127`` it is ``(KNOTS[i] * (128 - j) + KNOTS[i+1] * j + 64) >> 7``. ``stretch(p)`` is the least z from −2047 on
with ``squash(z) >= p``.

**Bytes.** The range coder of :mod:`quantization.rangecoder`, with ``bound = (range >> 12) * (4096 - h)`` for an outcome
of 0. Its end is the shortest that decodes: a mosaic has one form only, and a decoder refuses all others.

Logistic mixing of adaptive contexts is that of Mahoney 2005 ("Adaptive Weighing of Context Models for Lossless Data
Compression", Florida Tech, CS-2005-16). The prediction is a least-squares fit to simulated exposures, rounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from copy import copy
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from quantization.codebook import MAX_BITS
from quantization.errors import FrameError
from quantization.rangecoder import (
    COMPILED,
    DECODE,
    ENCODE,
    OK,
    Integers,
    check_end,
    finish,
    jit,
    locate,
    narrow,
)
from quantization.raw import CodeMosaic, check_size

KNOTS: Final = (
    1, 2, 4, 6, 10, 17, 27, 45, 74, 120, 194, 311, 488, 747, 1102, 1546, 2048, 2550, 2994, 3349, 3608, 3785, 3902, 3976,
    4022, 4051, 4069, 4079, 4086, 4090, 4092, 4094, 4095,
)  # fmt: skip
"""4096 / (1 + e^(-i/2)) for i = -8 .. 8 in halves, rounded."""

_FULL: Final = 0xFFFFFFFF
_MARGIN: Final = 4
_SLOTS: Final = 15
_CONTEXTS: Final = 1024 + 2048 + 882
_NOISE_CLASSES: Final = 8
_FIRST_WEIGHT: Final = 24576
_OLDEST: Final = 30
_PLACE_SIZE: Final = 5


def _squash(z: int) -> int:
    knot, j = z + 2048 >> 7, z & 127
    return KNOTS[knot] * (128 - j) + KNOTS[knot + 1] * j + 64 >> 7


def _table(values: Sequence[int]) -> Integers:
    """What compiled code, or plain Python, reads fastest."""
    return cast("Integers", np.array(values, dtype=np.int64)) if COMPILED else list(values)


_CURVE: Final = [_squash(z) for z in range(-2047, 2048)]
_SQUASH: Final = _table(_CURVE)
_STRETCH: Final = _table([bisect_left(_CURVE, p) - 2047 for p in range(4096)])
_RATES: Final = _table([131072 // (2 * age + 3) for age in range(_OLDEST + 1)])
_FRESH: Final = _table([32768 << 5] * (_CONTEXTS * _SLOTS) + [_FIRST_WEIGHT] * (_NOISE_CLASSES * _SLOTS * 3))
"""The model as it is before a frame."""

# What the signatures abbreviate: arrays of 64-bit integers, of codes with their margins, of bytes.
_I, _H, _B = "i8[::1]", "i2[::1]", "u1[::1]"

# `model` holds the chances, each as 32 p + age, then the weights. `place` holds what is known of a code before it: 0-2
# where the three contexts begin in `model`, 3 where the weights of its noise class begin, 4 the prediction.


@jit("i8(i8, i8, i8)")
def _cut(value: int, low: int, high: int) -> int:
    return low if value < low else min(value, high)


@jit(f"i8({_H}, i8, i8)")
def _predicted(a: Integers, at: int, stride: int) -> int:
    """What the neighbours of ``a[at]`` predict, before it is cut to the codes that there are."""
    n, nn = at - stride, at - 2 * stride
    near = 20 * a[at - 1] + 15 * a[n] + 3 * a[n - 1] + 11 * a[n + 1] - 8 * a[n - 2] + 2 * a[n + 2]
    far = 13 * a[at - 2] + 11 * a[nn] - a[nn - 2] + 3 * a[nn + 2] - 6 * a[nn - 1] - 3 * a[nn + 1]
    return near + far + 3 * a[at - 4] + a[at - 4 * stride]


@jit(f"i8({_I}, i8)")
def _noise_class(errors: Integers, x: int) -> int:
    noise = 2 * errors[x - 1] + errors[x - 2] + 2 * errors[x] + errors[x + 1]
    if noise < 40:
        return 0 if noise < 10 else 1 if noise < 20 else 2 if noise < 30 else 3
    return 4 if noise < 60 else 5 if noise < 80 else 6 if noise < 120 else 7


@jit(f"i8({_H}, i8, i8, i8, i8, {_I}, i8, {_I})")
def _look(a: Integers, at: int, stride: int, bits: int, parity: int, errors: Integers, x: int, place: Integers) -> int:
    """Fill ``place``; returns the predicted code."""
    shift = max(0, bits - 4)
    p = _cut(_predicted(a, at, stride), 0, (1 << bits) - 1 << 6)
    g, f = p + 32 >> 6, p + 32 & 63
    noise = _noise_class(errors, x)
    west, north = int(a[at - 2]), int(a[at - 2 * stride])
    northwest, northeast = int(a[at - 2 * stride - 2]), int(a[at - 2 * stride + 2])
    level = ((g >> shift) * 8 + (f >> 3)) * 4 + (noise >> 1)
    same = _cut(32 * (west + north) - p >> shift + 4, -7, 8) + 7
    other = _cut(32 * (a[at - 1] + a[at - stride]) - p >> shift + 4, -7, 8) + 7
    sides = 7 * _cut(west - g >> shift, -3, 3) + _cut(north - g >> shift, -3, 3) + 24
    corners = 3 * _cut(northwest - g >> shift, -1, 1) + _cut(northeast - g >> shift, -1, 1) + 4
    place[0] = (2 * level + parity) * _SLOTS
    place[1] = (1024 + 2 * ((16 * same + other) * 4 + (f >> 4)) + parity) * _SLOTS
    place[2] = (1024 + 2048 + 2 * (9 * sides + corners) + parity) * _SLOTS
    place[3] = (_CONTEXTS + 3 * noise) * _SLOTS
    place[4] = p
    return g


@jit(f"i8({_I}, i8, i8, i8)")
def _learn(model: Integers, at: int, outcome: int, weight: int) -> int:
    """Move a chance towards an outcome; returns the ``weight`` cut to its limits."""
    age = model[at] & 31
    p = model[at] >> 5
    p += ((65535 if outcome else 0) - p) * _RATES[age] >> 16
    model[at] = p << 5 | min(age + 1, _OLDEST)
    return _cut(weight, -262143, 262143)


@jit(f"i8({_I}, {_I}, {_I}, i8, i8, {_B})")
def _decide(coder: Integers, model: Integers, place: Integers, slot: int, outcome: int, data: Integers) -> int:
    """Write ``outcome``; or read an outcome, whatever was given. Returns it."""
    i, j, k, w = place[0] + slot, place[1] + slot, place[2] + slot, place[3] + 3 * slot
    x, y, z = _STRETCH[model[i] >> 9], _STRETCH[model[j] >> 9], _STRETCH[model[k] >> 9]
    mixed = model[w] * x + model[w + 1] * y + model[w + 2] * z >> 16
    h = _cut(_SQUASH[_cut(mixed, -2047, 2047) + 2047], 1, 4095)
    bound = (coder[1] >> 12) * (4096 - h)
    outcome = narrow(coder, bound, outcome, data) if coder[3] == ENCODE else locate(coder, bound, data)
    error = ((outcome << 12) - h) * 14
    model[w] = _learn(model, i, outcome, model[w] + (x * error + 32768 >> 16))
    model[w + 1] = _learn(model, j, outcome, model[w + 1] + (y * error + 32768 >> 16))
    model[w + 2] = _learn(model, k, outcome, model[w + 2] + (z * error + 32768 >> 16))
    return outcome


@jit(f"i8({_I}, {_I}, {_I}, i8, i8, i8, {_B})")
def _distance(
    coder: Integers, model: Integers, place: Integers, up: int, room: int, distance: int, data: Integers
) -> int:
    """How far a code is from the predicted one."""
    k = 0
    while 2 << k <= room:
        if _decide(coder, model, place, 2 + 2 * min(k, 2) + up, 1 if distance >= 2 << k else 0, data) == 0:
            break
        k += 1
    known = 1 << k
    for i in range(k - 1, -1, -1):
        if known + (1 << i) <= room:
            slot = 8 + 2 * min(k - 1, 2) + up if i == k - 1 else 14
            known += _decide(coder, model, place, slot, distance >> i & 1, data) << i
    return known


@jit(f"i8({_I}, {_I}, {_I}, i8, i8, i8, {_B})")
def _code(coder: Integers, model: Integers, place: Integers, g: int, top: int, code: int, data: Integers) -> int:
    """Write a code, or (whatever was given) read one; returns it."""
    if _decide(coder, model, place, 0, 1 if code != g else 0, data) == 0:
        return g
    up = 1 if g == 0 else 0
    if 0 < g < top:
        up = _decide(coder, model, place, 1, 1 if code > g else 0, data)
    distance = _distance(coder, model, place, up, top - g if up else g, code - g if up else g - code, data)
    return g + distance if up else g - distance


@jit(f"i8({_H}, i8, i8, {_I}, {_I}, {_I}, {_I}, {_B})")
def _walk(
    a: Integers,
    width: int,
    bits: int,
    errors: Integers,
    place: Integers,
    model: Integers,
    coder: Integers,
    data: Integers,
) -> int:
    """Write, or read into ``a``, all codes; stops early once ``data`` is full."""
    stride = width + 2 * _MARGIN
    top, shift = (1 << bits) - 1, max(0, bits - 4)
    for y in range(len(a) // stride - _MARGIN):
        start = (y + _MARGIN) * stride + _MARGIN
        above = start - 2 * stride
        for x in range(_MARGIN):
            a[start - _MARGIN + x] = a[above + (x & 1)]
            a[start + width + x] = a[above + width - 2 + (x & 1)]
        for x in range(width):
            at = start + x
            g = _look(a, at, stride, bits, x + y & 1, errors, x + _MARGIN, place)
            code = _code(coder, model, place, g, top, int(a[at]), data)
            if coder[4]:
                return 0
            a[at] = code
            errors[x + _MARGIN] = min(abs(64 * code - place[4]) >> shift + 2, 255)
    return 0


def encode(codes: CodeMosaic, bits: int, limit: int) -> bytes | None:
    """``[H, W]`` codes to 1 .. ``limit`` bytes; None if they take more while they are being written.

    (Zeros at the end, which are cut off last, count while they are written. Plain packing is there for those.)

    Args:
        codes: sides even, 2 to 8192.
        bits: 1 to 8.
        limit: at least 1.

    Raises:
        FrameError: ``size`` or ``field``: sides, bits or codes out of range.
    """
    _check(bits, *codes.shape)
    if int(codes.max()) >> bits:
        raise FrameError("field", f"a code of {codes.max()} takes more than {bits} bits")
    margined = np.pad(codes.astype(np.int16), ((_MARGIN, 0), (_MARGIN, _MARGIN)))
    out = _bytes(bytes(limit))
    coder = _table([0, _FULL, 0, ENCODE, 0])
    _run(_codes(margined), codes.shape[1], bits, coder, out)
    length = 0 if coder[4] else finish(coder, out)
    return bytes(out[:length]) if length else None


def decode(data: bytes, height: int, width: int, bits: int) -> CodeMosaic:
    """Bytes to ``[height, width]`` codes. Memory goes by the size alone, 3 bytes a photosite and 0.5 MB.

    Args:
        data: any bytes.
        height: even, 2 to 8192; check it against what is to be expected, as no bytes are too few for any size.
        width: likewise.
        bits: 1 to 8.

    Raises:
        FrameError: ``size`` or ``field``: sides or bits out of range; ``payload``: not the bytes that :func:`encode`
            makes of any codes.
    """
    _check(bits, height, width)
    if not data:
        raise FrameError("payload", "not one byte to decode")
    held = _bytes(data)
    value = int.from_bytes(data[:4].ljust(4, b"\0"), "big")
    if value == _FULL:
        raise FrameError("payload", f"{len(data)} bytes are outside of the range")
    coder = _table([value, _FULL, 4, DECODE, 0])
    a = _codes(np.zeros((height + _MARGIN, width + 2 * _MARGIN), dtype=np.int16))
    _run(a, width, bits, coder, held)
    if check_end(coder, held) != OK:
        raise FrameError("payload", f"{len(data)} bytes are no form of {width} × {height} codes of {bits} bits")
    margined = np.asarray(a, dtype=np.int16).reshape(height + _MARGIN, -1)
    return margined[_MARGIN:, _MARGIN:-_MARGIN].astype(np.uint8)


def _check(bits: int, *sides: int) -> None:
    check_size(*sides)
    if not 1 <= bits <= MAX_BITS:
        raise FrameError("field", f"bits must be 1 to {MAX_BITS}, not {bits}")


def _run(a: Integers, width: int, bits: int, coder: Integers, data: Integers) -> None:
    errors, place = _table([0] * (width + 2 * _MARGIN)), _table([0] * _PLACE_SIZE)
    _walk(a, width, bits, errors, place, copy(_FRESH), coder, data)


def _codes(margined: NDArray[np.int16]) -> Integers:
    flat = margined.ravel()
    return cast("Integers", flat) if COMPILED else flat.tolist()


def _bytes(data: bytes) -> Integers:
    held = bytearray(data)
    return cast("Integers", np.frombuffer(held, np.uint8)) if COMPILED else held
