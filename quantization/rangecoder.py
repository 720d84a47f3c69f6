"""The integers of :mod:`quantization.entropy`: what is decided of each code, and the range coder that writes it.

One implementation, twice: compiled where numba is installed (a gateway), plain Python elsewhere (a device; there the
tables are lists, which are faster to index). Importing this module compiles, or reads numba's cache: some seconds the
first time. :func:`quantization.entropy.coder_of` imports it.

``docs/wire-format.md`` specifies all of it, with the same in C.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableSequence
from typing import Final

logger = logging.getLogger(__name__)

PROBABILITY_BITS: Final = 8
STATE_PER_CHANNEL: Final = 3
"""Code, last move (-2 .. 2; 0 = none yet), age of that move in samples (0 .. 2)."""
CODER_SIZE: Final = 5
ENCODE: Final = 0
DECODE: Final = 1
COUNT: Final = 2

OK: Final = 0
NOT_SHORTEST: Final = 1
NEVER_READ: Final = 2
OUT_OF_RANGE: Final = 3

_FULL: Final = 0xFFFFFFFF
_REFILL: Final = 1 << 24

Integers = MutableSequence[int]
"""A list or a bytearray; compiled, an array."""

_Jit = Callable[[Callable[..., int]], Callable[..., int]]


def _compiler() -> tuple[Callable[[str], _Jit], bool]:
    """A decorator that takes a signature, and whether it compiles."""
    try:
        import numba
    except ImportError:
        return lambda _signature: lambda function: function, False

    def signed(signature: str) -> _Jit:
        def compiled(function: Callable[..., int]) -> Callable[..., int]:
            try:
                made: Callable[..., int] = numba.njit(signature, cache=True, nogil=True)(function)
            except RuntimeError:  # neither this folder nor the user's takes a cache
                logger.info("no folder for numba's cache: %s is compiled anew in every process", function.__name__)
                made = numba.njit(signature, nogil=True)(function)
            return made

        return compiled

    return signed, True


jit, COMPILED = _compiler()

# What the signatures abbreviate: i a 64-bit integer, I an array of them, B an array of bytes.
_I, _B = "i8[::1]", "u1[::1]"
_WALK = f"i8({_B}, i8, {_I}, {_I}, {_I}, {_I}, {_B})"
# Of everything that goes through all codes: codes, channels, layout, table or counts, state, coder, bytes.


# -- what is decided ---------------------------------------------------------------------------------------------------
#
# `layout` holds, for one channel's table: 0 bits, 1 top code, 2 shift to a code's class, 3-7 where the contexts of
# stay, direction, longer, exponent and mantissa begin, 8 how many exponents have contexts of their own, 9 size of the
# table, 10 where the entry for an even chance lies, after the tables of all channels.


@jit(f"i8({_I}, i8, {_I}, i8)")
def stay_context(state: Integers, channel: int, layout: Integers, movers: int) -> int:
    """Whether a code stays depends on its class, on when it last moved, and on how many other channels move."""
    at = STATE_PER_CHANNEL * channel
    age = state[at + 2]
    others = movers - 1 if age == 0 else movers
    return channel * layout[9] + layout[3] + ((state[at] >> layout[2]) * 3 + age) * 3 + min(others, 2)


@jit(f"i8({_I}, i8, {_I})")
def direction_context(state: Integers, channel: int, layout: Integers) -> int:
    """Where it moves to depends on its class, on the direction of its last move, and on whether that was just now."""
    at = STATE_PER_CHANNEL * channel
    upward = 1 if state[at + 1] > 0 else 0
    recent = 1 if state[at + 2] == 0 else 0
    return channel * layout[9] + layout[4] + (state[at] >> layout[2]) * 4 + 2 * upward + recent


@jit(f"i8({_I}, i8, {_I}, i8, i8)")
def exponent_context(state: Integers, channel: int, layout: Integers, up: int, exponent: int) -> int:
    """Whether the exponent goes on depends on the size of the step before; at first on class and direction too."""
    at = STATE_PER_CHANNEL * channel
    step = abs(state[at + 1]) if state[at + 2] == 0 else 0
    if exponent == 0:
        return channel * layout[9] + layout[5] + ((state[at] >> layout[2]) * 2 + up) * 3 + step
    return channel * layout[9] + layout[6] + min(exponent - 1, layout[8] - 1) * 3 + step


@jit(f"i8(i8, {_I}, i8, i8)")
def mantissa_context(channel: int, layout: Integers, exponent: int, bit: int) -> int:
    """Of the size's bits below the first, the highest has a context; the others are an even chance."""
    if bit < exponent - 1:
        return layout[10]
    return channel * layout[9] + layout[7] + min(exponent - 1, layout[8] - 1)


@jit(f"i8({_I}, i8, i8, i8)")
def advance(state: Integers, channel: int, code: int, movers: int) -> int:
    """Note a channel's next code; returns how many channels moved at their latest sample."""
    at = STATE_PER_CHANNEL * channel
    step = code - state[at]
    if state[at + 2] == 0:
        movers -= 1
    state[at] = code
    if step == 0:
        state[at + 2] = min(state[at + 2] + 1, 2)
        return movers
    state[at + 1] = min(2, max(-2, step))
    state[at + 2] = 0
    return movers + 1


# -- the range coder ---------------------------------------------------------------------------------------------------
#
# `coder` holds 0 low (the value less low when decoding), 1 range, 2 bytes written or read, 3 what is done, 4 whether
# the bytes have become too many.


@jit(f"i8({_B}, i8)")
def carry(out: Integers, written: int) -> int:
    """Add one to the bytes written; there is a byte below 255, as the whole stays below 1."""
    at = written - 1
    while out[at] == 0xFF:
        out[at] = 0
        at -= 1
    out[at] += 1
    return at


@jit(f"i8({_I}, i8, i8, {_B})")
def narrow(coder: Integers, bound: int, outcome: int, out: Integers) -> int:
    """Write one decision. A flag is left, and nothing is done any more, once ``out`` is full."""
    if coder[4]:
        return outcome
    low, width = coder[0], bound
    if outcome:
        low += bound
        width = coder[1] - bound
        if low > _FULL:
            low &= _FULL
            carry(out, coder[2])
    while width < _REFILL:
        if coder[2] == len(out):
            coder[4] = 1
            return outcome
        out[coder[2]] = low >> 24
        coder[2] += 1
        low = low << 8 & _FULL
        width <<= 8
    coder[0], coder[1] = low, width
    return outcome


@jit(f"i8({_I}, i8, {_B})")
def locate(coder: Integers, bound: int, data: Integers) -> int:
    """Read one decision. After the last byte, zeros are read."""
    value, width, outcome = coder[0], bound, 0
    if value >= bound:
        value -= bound
        width = coder[1] - bound
        outcome = 1
    while width < _REFILL:
        following = int(data[coder[2]]) if coder[2] < len(data) else 0
        value = value << 8 | following
        width <<= 8
        coder[2] += 1
    coder[0], coder[1] = value, width
    return outcome


@jit(f"i8({_I}, {_I}, i8, i8, {_B})")
def decide(coder: Integers, table: Integers, context: int, outcome: int, data: Integers) -> int:
    """Write ``outcome``, or count it; or read an outcome, whatever was given. Returns it."""
    if coder[3] == COUNT:
        table[2 * context + outcome] += 1
        return outcome
    bound = (coder[1] >> PROBABILITY_BITS) * table[context]
    return narrow(coder, bound, outcome, data) if coder[3] == ENCODE else locate(coder, bound, data)


# -- codes -------------------------------------------------------------------------------------------------------------
#
# One description of what is decided serves writing, counting and reading; when reading, the `code` given means nothing.


@jit(f"i8(i8, i8, {_I}, {_I}, {_I}, {_I}, {_B})")
def first(
    channel: int, code: int, layout: Integers, table: Integers, state: Integers, coder: Integers, data: Integers
) -> int:
    """A code of a packet's first sample: a tree of its bits, the highest first."""
    node = 1
    for bit in range(layout[0] - 1, -1, -1):
        node = 2 * node + decide(coder, table, channel * layout[9] + node - 1, code >> bit & 1, data)
    at = STATE_PER_CHANNEL * channel
    state[at] = node - layout[1] - 1
    state[at + 1] = 0
    state[at + 2] = 2
    return state[at]


@jit(f"i8(i8, i8, i8, {_I}, {_I}, {_I}, {_I}, {_B})")
def following(
    channel: int,
    code: int,
    movers: int,
    layout: Integers,
    table: Integers,
    state: Integers,
    coder: Integers,
    data: Integers,
) -> int:
    """Any later code: it stays or moves, up or down, and how far: an Elias gamma code, cut to the room that is left."""
    before = state[STATE_PER_CHANNEL * channel]
    moves = 1 if code != before else 0
    if decide(coder, table, stay_context(state, channel, layout, movers), moves, data) == 0:
        return before
    up = 1 if before == 0 else 0
    if 0 < before < layout[1]:
        up = decide(coder, table, direction_context(state, channel, layout), 1 if code > before else 0, data)
    size = code - before if up else before - code
    room = layout[1] - before if up else before
    exponent = 0
    while 2 << exponent <= room:
        context = exponent_context(state, channel, layout, up, exponent)
        if decide(coder, table, context, 1 if size >= 2 << exponent else 0, data) == 0:
            break
        exponent += 1
    known = 1 << exponent
    for bit in range(exponent - 1, -1, -1):
        if known + (1 << bit) <= room:
            context = mantissa_context(channel, layout, exponent, bit)
            known += decide(coder, table, context, size >> bit & 1, data) << bit
    return before + known if up else before - known


@jit(_WALK)
def walk(
    codes: Integers,
    channels: int,
    layout: Integers,
    table: Integers,
    state: Integers,
    coder: Integers,
    data: Integers,
) -> int:
    """Write, count or (into ``codes``) read all codes, sample by sample."""
    channel, movers = 0, 0
    for at in range(len(codes)):
        code = int(codes[at])
        if at < channels:
            code = first(channel, code, layout, table, state, coder, data)
        else:
            code = following(channel, code, movers, layout, table, state, coder, data)
            movers = advance(state, channel, code, movers)
        if coder[4]:
            break
        codes[at] = code
        channel = channel + 1 if channel + 1 < channels else 0
    return 0


@jit(f"i8({_I}, {_B})")
def finish(coder: Integers, out: Integers) -> int:
    """Write the shortest end within the range, zero bytes implied after it; returns the length, 0 = too long."""
    low, written, kept = coder[0], coder[2], 0
    rest = _FULL
    end = (low + rest) & ~rest
    while end - low >= coder[1]:
        kept += 1
        rest >>= 8
        end = (low + rest) & ~rest
    if written + kept > len(out):
        return 0
    if end > _FULL:
        end &= _FULL
        carry(out, written)
    for i in range(kept):
        out[written + i] = end >> 24 - 8 * i & 0xFF
    written += kept
    while written > 0 and out[written - 1] == 0:
        written -= 1
    return max(written, 1)  # nothing but zeros: one of them is sent


@jit(f"i8({_I}, {_B})")
def check_end(coder: Integers, data: Integers) -> int:
    """Whether :func:`finish` would have written these bytes: every block of codes has one form only."""
    tail = coder[2] - len(data)
    if tail < 0:
        return NEVER_READ
    last = int(data[len(data) - 1])
    if last == 0:
        return OK if len(data) == 1 else NOT_SHORTEST
    if tail >= 4:
        return OK
    unit = 1 << 8 * tail
    shortest = coder[0] < unit and (256 - last) * unit >= coder[1] - coder[0]
    return OK if shortest else NOT_SHORTEST


@jit(_WALK)
def encode(
    codes: Integers,
    channels: int,
    layout: Integers,
    table: Integers,
    state: Integers,
    coder: Integers,
    out: Integers,
) -> int:
    """Codes to bytes; returns how many, 0 if they are more than ``out`` has room for."""
    coder[0], coder[1], coder[2], coder[3], coder[4] = 0, _FULL, 0, ENCODE, 0
    walk(codes, channels, layout, table, state, coder, out)
    return 0 if coder[4] else finish(coder, out)


@jit(_WALK)
def decode(
    codes: Integers,
    channels: int,
    layout: Integers,
    table: Integers,
    state: Integers,
    coder: Integers,
    data: Integers,
) -> int:
    """Bytes to codes; returns :data:`OK`, or why the bytes are refused."""
    coder[0], coder[1], coder[2], coder[3], coder[4] = 0, _FULL, 4, DECODE, 0
    for i in range(4):
        coder[0] = coder[0] << 8 | (int(data[i]) if i < len(data) else 0)
    if coder[0] >= _FULL:
        return OUT_OF_RANGE
    walk(codes, channels, layout, table, state, coder, data)
    return check_end(coder, data)


@jit(_WALK)
def count(
    codes: Integers,
    channels: int,
    layout: Integers,
    counts: Integers,
    state: Integers,
    coder: Integers,
    unused: Integers,
) -> int:
    """Add to ``counts`` what is decided: two entries for each context, outcomes 0 and 1."""
    coder[3], coder[4] = COUNT, 0
    return walk(codes, channels, layout, counts, state, coder, unused)
