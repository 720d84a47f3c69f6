"""Codes to fewer bytes: a static range coder, packet by packet.

Most codes are the one before, and most others its neighbour. So each code becomes a few two-way decisions: it stays or
moves; up or down; how far. A codebook's *contexts* say how likely the first outcome of each decision is, out of 256,
as counted in training; a binary range coder writes the decisions. Nothing adapts: a packet decodes alone.

A device needs integers alone: three numbers a channel and the packet itself in RAM, the table (1962 bytes for six
channels at 4 bits) in ROM. ``docs/wire-format.md`` has it all, with the same in C.

The range coder is that of Martin (1979) in its carry-propagating binary form, as in LZMA (Pavlov 1998), with an end of
its own: the shortest that decodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, MutableSequence
from functools import lru_cache
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from quantization.codebook import CONTEXT_TOTAL, Codebook, ContextLayout
from quantization.errors import CodebookError
from quantization.imu import Codes, Floats

LEAF_FLOOR: Final = 1 / 64
"""Share of a packet's first codes that is spread evenly: one that training never saw costs 6 + b bits."""
STAY_FLOOR: Final = 1 / 256
MOVE_FLOOR: Final = 1 / 32
"""No outcome is less likely: what training never saw costs bits, but not many."""

Kernel = Callable[..., int]
"""``encode``, ``decode`` or ``count`` of :mod:`quantization.rangecoder`: they take the same."""


class EntropyCoder:
    """The coder of one codebook.

    Args:
        bits: 1 .. 8.
        contexts: ``[C, contexts]`` uint8, as in a codebook.
    """

    def __init__(self, bits: int, contexts: NDArray[np.uint8]) -> None:
        from quantization import rangecoder  # compiles: where, is the caller's choice

        self._kernels = rangecoder
        self.channels: Final = len(contexts)
        self._layout = self._integers(_layout(bits, self.channels))
        self._table = self._integers([*contexts.ravel().tolist(), CONTEXT_TOTAL // 2])

    def encode(self, codes: Codes, limit: int) -> bytes | None:
        """``[n, C]`` codes to 1 .. ``limit`` bytes; None if they take more while they are being written.

        (Zeros at the end, which are cut off last, count while they are written. Plain packing is there for those.)

        Raises:
            CodebookError: no sample, another number of channels, or a code that takes too many bits.
        """
        self._check(codes)
        if limit < 1:
            return None
        out = self._bytes(bytes(limit))
        length = self._run(self._kernels.encode, self._bytes(codes.tobytes()), self._table, out)
        return bytes(out[:length]) if length else None

    def decode(self, data: bytes, samples: int) -> Codes:
        """Bytes to ``[samples, C]`` codes.

        Raises:
            CodebookError: no byte at all, or not the bytes that :meth:`encode` makes of any codes.
        """
        if not data:
            raise CodebookError("not one byte to decode")
        codes = self._bytes(bytes(samples * self.channels))
        verdict = self._run(self._kernels.decode, codes, self._table, self._bytes(data))
        if verdict != self._kernels.OK:
            raise CodebookError(f"{len(data)} bytes for {samples} samples {_REFUSALS[verdict]}")
        return np.asarray(codes, dtype=np.uint8).reshape(samples, self.channels)

    def decisions(self, codes: Codes) -> NDArray[np.int64]:
        """How often each decision of ``[n, C]`` codes, taken as one packet, comes out as 0 and as 1.

        Returns:
            ``[C * contexts + 1, 2]``; the last row is what was decided at an even chance.

        Raises:
            CodebookError: as :meth:`encode`.
        """
        self._check(codes)
        counts = self._integers([0] * (2 * len(self._table)))
        self._run(self._kernels.count, self._bytes(codes.tobytes()), counts, self._bytes(b""))
        return np.asarray(counts, dtype=np.int64).reshape(-1, 2)

    def _check(self, codes: Codes) -> None:
        samples, channels = codes.shape
        if samples == 0 or channels != self.channels or codes.max() > self._layout[1]:
            raise CodebookError(f"codes {codes.shape} up to {codes.max(initial=0)} do not fit {self.channels} channels")

    def _run(
        self, kernel: Kernel, codes: MutableSequence[int], table: MutableSequence[int], data: MutableSequence[int]
    ) -> int:
        state = self._integers([0] * (self.channels * self._kernels.STATE_PER_CHANNEL))
        coder = self._integers([0] * self._kernels.CODER_SIZE)
        return kernel(codes, self.channels, self._layout, table, state, coder, data)

    # What the compiled functions take, or what plain Python is fastest with.

    def _integers(self, values: list[int]) -> MutableSequence[int]:
        return cast("MutableSequence[int]", np.array(values, dtype=np.int64)) if self._kernels.COMPILED else values

    def _bytes(self, data: bytes) -> MutableSequence[int]:
        copy = bytearray(data)
        return cast("MutableSequence[int]", np.frombuffer(copy, np.uint8)) if self._kernels.COMPILED else copy


_REFUSALS: Final = {
    1: "are not their shortest form",
    2: "have some at the end that are never read",
    3: "are outside of the range",
}


@lru_cache(maxsize=64)
def coder_of(codebook: Codebook) -> EntropyCoder | None:
    """The coder of a codebook, made once; None if it has no contexts.

    The first one of a process compiles, where numba is installed: up to some seconds, or a fraction of one when an
    earlier process has left its cache. A service calls this when it loads a codebook, not at the first packet.
    """
    return None if codebook.contexts is None else EntropyCoder(codebook.bits, codebook.contexts)


def code_length(codes: Codes, codebook: Codebook) -> float:
    """Bits that ``[n, C]`` codes take as one packet under the codebook's own contexts, before any rounding.

    Raises:
        CodebookError: the codebook has no contexts.
    """
    coder = coder_of(codebook)
    if coder is None or codebook.contexts is None:
        raise CodebookError("the codebook has no contexts to measure codes by")
    first = np.append(codebook.contexts.ravel().astype(np.float64), CONTEXT_TOTAL / 2) / CONTEXT_TOTAL
    return float(-(coder.decisions(codes) * np.log2(np.stack([first, 1 - first], axis=1))).sum())


def statistics_from_codes(sequences: Iterable[Codes], bits: int) -> NDArray[np.uint8]:
    """Count what decides the codes of recordings.

    Args:
        sequences: ``[n, C]`` codes each, evenly spaced within one.
        bits: 1 .. 8.

    Returns:
        ``[C, contexts]`` uint8 for :class:`quantization.codebook.Codebook`. No outcome gets a share of 0: see
        :data:`STAY_FLOOR` and its neighbours.

    Raises:
        CodebookError: there is no sequence, or they differ in channels.
    """
    usable = [np.ascontiguousarray(codes, dtype=np.uint8) for codes in sequences if len(codes)]
    if not usable or len({codes.shape[1] for codes in usable}) != 1:
        raise CodebookError("statistics take at least one sequence, and the same channels in all of them")
    channels = usable[0].shape[1]
    part = ContextLayout.of(bits)
    coder = EntropyCoder(bits, np.full((channels, part.size), CONTEXT_TOTAL // 2, dtype=np.uint8))
    counts = np.sum([coder.decisions(codes) for codes in usable], axis=0)[:-1].reshape(channels, part.size, 2)
    floor = np.full(part.size, MOVE_FLOOR)
    floor[part.stay : part.direction] = STAY_FLOOR
    share = (counts[:, :, 0] + 0.5) / (counts.sum(axis=2) + 1)  # Krichevsky & Trofimov 1981
    share = np.clip(share, floor, 1 - floor)
    # A packet may begin at any sample: its first codes are as frequent as codes are at all.
    samples = np.concatenate(usable)
    leaves = np.stack([np.bincount(samples[:, c], minlength=2**bits) for c in range(channels)]) / len(samples)
    share[:, : part.stay] = _tree((1 - LEAF_FLOOR) * leaves + LEAF_FLOOR / 2**bits)
    return np.clip(np.rint(share * CONTEXT_TOTAL), 1, CONTEXT_TOTAL - 1).astype(np.uint8)


def _tree(leaves: Floats) -> Floats:
    """``[C, 2**b]`` shares to ``[C, 2**b - 1]`` shares of a zero bit at each node, node 1 (the root) first."""
    levels = [leaves]
    while levels[0].shape[1] > 1:
        levels.insert(0, levels[0][:, 0::2] + levels[0][:, 1::2])
    return np.concatenate([low[:, 0::2] / high for high, low in itertools.pairwise(levels)], axis=1)


def _layout(bits: int, channels: int) -> list[int]:
    """What :mod:`quantization.rangecoder` reads: see there."""
    part = ContextLayout.of(bits)
    starts = [part.stay, part.direction, part.longer, part.exponent, part.mantissa]
    return [bits, 2**bits - 1, max(0, bits - 4), *starts, part.exponents, part.size, channels * part.size]
