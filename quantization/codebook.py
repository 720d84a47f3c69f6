"""The artefact that training makes and that device and gateway share.

A :class:`Codebook` says, channel by channel, where one code ends and the next begins (*thresholds*) and what a code
stands for (*levels*), in physical units. It knows nothing of a part's counts: :meth:`Codebook.thresholds_for` derives
those.

Binary layout (version 1, little-endian). Its SHA-256 is the codebook's *digest*; the first four bytes of the digest
travel in every packet.

====== ============== =============================================================================================
offset type           meaning
====== ============== =============================================================================================
0      4 bytes        ``47 57 43 42`` ("GWCB")
4      u8             layout version, 1
5      u8             bits per code, b, 1 .. 8
6      u8             channels, C, 1 .. 16
7      u8             statistics: 0 none, 1 how frequent codes are, 2 contexts of the entropy coder
8      f64            sampling rate in Hz, 1 .. 1000
16     C × 16 bytes   channel names, ASCII, padded with zeros
...    C × (2^b − 1)  f64 thresholds, physical units, not falling within a channel
...    C × 2^b        f64 levels, physical units, not falling within a channel
...    C × 2^b        u16 only with statistics 1: each code's share of 2^15, at least 1; a channel sums to 32768
...    C × T(b)       u8 only with statistics 2: the first outcome's share of 256 in each of a channel's contexts, at
                      least 1, in the order of :class:`ContextLayout`
====== ============== =============================================================================================

MUST: a code is the number of thresholds that are not above the value, ``code = #{i : x >= t_i}``; nothing follows the
last field; a reader refuses what it does not know.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantization.errors import CodebookError, SensorError
from quantization.imu import MAX_CHANNELS, Counts, Floats, check_channels, unit_of
from quantization.sensor import Sensor

MAGIC: Final = b"GWCB"
LAYOUT_VERSION: Final = 1
MAX_BITS: Final = 8
MIN_RATE_HZ: Final = 1.0
MAX_RATE_HZ: Final = 1000.0
RATE_TOLERANCE: Final = 0.05
"""A device within this share of a codebook's rate is taken as it is; training varies the rate by as much."""
STATISTICS_TOTAL: Final = 2**15
"""Frequencies of a channel's codes sum to this: a power of two, so that a coder divides by shifting."""
CONTEXT_TOTAL: Final = 2**8
"""A decision's two outcomes share this. 12 bits would save a ten-thousandth of a bit a sample and double the table."""
MAX_CONTEXTS: Final = 255 + 19 * 16 + 4 * 6
"""Of one channel, at 8 bits."""
SHORT_DIGEST_BYTES: Final = 4
MAX_CODEBOOK_BYTES: Final = 16 + MAX_CHANNELS * (16 + 8 * 255 + 8 * 256 + MAX_CONTEXTS)
"""No valid codebook is longer: what is can be refused before it is read."""

MAX_JSON_BYTES: Final = 4 * 2**20
"""The JSON form of the largest codebook, at 25 characters a number, is well below."""

_HEAD: Final = struct.Struct("<4sBBBBd")
_NAME_BYTES: Final = 16
_NONE, _FREQUENCIES, _CONTEXTS = 0, 1, 2
"""The layout's kinds of statistics."""


class ContextLayout(NamedTuple):
    """Where the entropy coder's contexts of one channel lie in its row. What they mean: ``docs/wire-format.md``.

    Fields:
        stay: after the ``2**b - 1`` nodes of the first code's tree; 9 to each class of codes.
        direction: 4 to each class.
        longer: 6 to each class.
        exponent: 3 to each of ``exponents``.
        mantissa: 1 to each of ``exponents``.
        exponents: max(1, b - 2).
        size: of the row.

    >>> ContextLayout.of(4)
    ContextLayout(stay=15, direction=159, longer=223, exponent=319, mantissa=325, exponents=2, size=327)
    """

    stay: int
    direction: int
    longer: int
    exponent: int
    mantissa: int
    exponents: int
    size: int

    @classmethod
    def of(cls, bits: int) -> ContextLayout:
        """That of ``bits``, 1 .. 8. Codes form at most 16 classes, by their upper four bits."""
        classes, exponents = 2 ** min(bits, 4), max(1, bits - 2)
        stay = 2**bits - 1
        direction = stay + 9 * classes
        longer = direction + 4 * classes
        exponent = longer + 6 * classes
        mantissa = exponent + 3 * exponents
        return cls(stay, direction, longer, exponent, mantissa, exponents, mantissa + exponents)


@dataclass(frozen=True, eq=False)
class Codebook:
    """Thresholds and levels of a scalar quantizer, one curve per channel. Immutable; compared by digest.

    Args:
        channels: C channel names, in the order of a sample's columns.
        bits: b, 1 to 8.
        rate_hz: the sampling rate that the codes were learned at.
        thresholds: ``[C, 2**b - 1]`` float64, physical units (g, °/s), not falling along a row.
        levels: ``[C, 2**b]`` float64, physical units, not falling along a row.
        statistics: ``[C, 2**b]`` uint16 frequencies that sum to 32768 along a row, or None.
        contexts: ``[C, ContextLayout.of(b).size]`` uint8, at least 1, or None: then packets are never entropy coded.
            They take the place of ``statistics``: a codebook has at most one of the two.

    Raises:
        CodebookError: sizes that do not fit, values that are not finite or that fall, statistics that do not sum,
            contexts out of range.

    >>> book = Codebook(("acc_x",), 1, 50.0, thresholds=np.array([[0.0]]), levels=np.array([[-0.5, 0.5]]))
    >>> book.digest.hex()[:8]
    '23acea56'
    """

    channels: tuple[str, ...]
    bits: int
    rate_hz: float
    thresholds: Floats
    levels: Floats
    statistics: NDArray[np.uint16] | None = field(default=None)
    contexts: NDArray[np.uint8] | None = field(default=None)

    def __post_init__(self) -> None:
        try:
            check_channels(self.channels)
        except SensorError as error:
            raise CodebookError(str(error)) from error
        if not 1 <= self.bits <= MAX_BITS:
            raise CodebookError(f"bits must be 1 to {MAX_BITS}, not {self.bits}")
        if not MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ:
            raise CodebookError(f"sampling rate must be {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz, not {self.rate_hz}")
        rows, codes = len(self.channels), 2**self.bits
        _check_table("thresholds", self.thresholds, (rows, codes - 1))
        _check_table("levels", self.levels, (rows, codes))
        if self.statistics is not None:
            _check_statistics(self.statistics, (rows, codes))
        if self.contexts is not None:
            if self.statistics is not None:
                raise CodebookError("a codebook has either statistics or contexts, not both")
            _check_contexts(self.contexts, (rows, ContextLayout.of(self.bits).size))
        for name in ("thresholds", "levels", "statistics", "contexts"):
            table = getattr(self, name)
            if table is not None:  # a copy, so that a caller's own array stays writable, and cannot change ours
                copied = table.copy()
                copied.setflags(write=False)
                object.__setattr__(self, name, copied)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the binary layout, 32 bytes: the codebook's name everywhere."""
        return hashlib.sha256(bytes(self)).digest()

    @property
    def short_digest(self) -> bytes:
        """The first four bytes of the digest, as in every packet."""
        return self.digest[:SHORT_DIGEST_BYTES]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codebook) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def thresholds_for(self, sensor: Sensor) -> Counts:
        """The integers that one part compares with: ``code = #{i : count >= T_i}``.

        Returns:
            ``[C, 2**b - 1]`` int32; ``count_max + 1`` marks a threshold that the part never reaches.

        Raises:
            CodebookError: the part measures other channels.
        """
        if sensor.channels != self.channels:
            raise CodebookError(
                f"the codebook is for {', '.join(self.channels)}; the sensor gives {', '.join(sensor.channels)}"
            )
        counts = sensor.all_counts()
        # Searching the very values that to_physical gives for every count leaves no rounding of its own: the result
        # is exact whatever the LSB, where ceil(t / lsb + offset) would be off by one count at some ties.
        grid = sensor.to_physical(counts[:, None] * np.ones(len(self.channels), dtype=np.int32))
        rows = [np.searchsorted(grid[:, c], self.thresholds[c], side="left") for c in range(len(self.channels))]
        return np.asarray(rows, dtype=np.int32).reshape(self.thresholds.shape) + np.int32(sensor.count_min)

    def encode_physical(self, values: ArrayLike) -> NDArray[np.uint8]:
        """``[n, C]`` physical values to ``[n, C]`` codes, without an ADC in between."""
        block = np.asarray(values, dtype=np.float64)
        columns = [np.searchsorted(self.thresholds[c], block[:, c], side="right") for c in range(block.shape[1])]
        return np.stack(columns, axis=1).astype(np.uint8)

    def decode(self, codes: NDArray[np.uint8]) -> Floats:
        """``[n, C]`` codes to ``[n, C]`` physical values (g, °/s)."""
        physical: Floats = self.levels[np.arange(len(self.channels)), codes]
        return physical

    def __bytes__(self) -> bytes:
        names = b"".join(name.encode("ascii").ljust(_NAME_BYTES, b"\0") for name in self.channels)
        kind = _CONTEXTS if self.contexts is not None else _FREQUENCIES if self.statistics is not None else _NONE
        head = _HEAD.pack(MAGIC, LAYOUT_VERSION, self.bits, len(self.channels), kind, self.rate_hz)
        tables = self.thresholds.astype("<f8").tobytes() + self.levels.astype("<f8").tobytes()
        statistics = b"" if self.statistics is None else self.statistics.astype("<u2").tobytes()
        return head + names + tables + statistics + (b"" if self.contexts is None else self.contexts.tobytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Codebook:
        """Read the binary layout.

        Raises:
            CodebookError: not a codebook, an unknown version, truncated, too long, or not valid.
        """
        if len(data) < _HEAD.size:
            raise CodebookError(f"{len(data)} bytes are too few for a codebook")
        magic, version, bits, channels, kind, rate_hz = _HEAD.unpack_from(data)
        if magic != MAGIC:
            raise CodebookError("not a codebook (it does not begin with GWCB)")
        if version != LAYOUT_VERSION:
            raise CodebookError(f"layout version {version}; this release reads {LAYOUT_VERSION}")
        if not (1 <= bits <= MAX_BITS and 1 <= channels <= MAX_CHANNELS and kind <= _CONTEXTS):
            raise CodebookError(f"{bits} bits, {channels} channels, statistics {kind} are not all in range")
        codes = 2**bits
        width = {_NONE: 0, _FREQUENCIES: codes * 2, _CONTEXTS: ContextLayout.of(bits).size}[kind]
        sizes = (channels * _NAME_BYTES, channels * (codes - 1) * 8, channels * codes * 8, channels * width)
        ends = np.cumsum([_HEAD.size, *sizes])
        if len(data) != ends[-1]:
            raise CodebookError(f"{len(data)} bytes; {bits} bits and {channels} channels take {ends[-1]}")
        names, thresholds, levels, counted = (data[start:end] for start, end in itertools.pairwise(ends))
        statistics = np.frombuffer(counted, "<u2").reshape(channels, codes) if kind == _FREQUENCIES else None
        return cls(
            channels=_read_names(names),
            bits=bits,
            rate_hz=rate_hz,
            thresholds=np.frombuffer(thresholds, "<f8").reshape(channels, codes - 1).astype(np.float64),
            levels=np.frombuffer(levels, "<f8").reshape(channels, codes).astype(np.float64),
            statistics=None if statistics is None else statistics.astype(np.uint16),
            contexts=np.frombuffer(counted, np.uint8).reshape(channels, width) if kind == _CONTEXTS else None,
        )

    def to_json(self) -> str:
        """For people and for other languages. Floats are written so that they read back exactly."""
        rows = [
            {
                "channel": name,
                "unit": unit_of(name),
                "thresholds": self.thresholds[c].tolist(),
                "levels": self.levels[c].tolist(),
                **({} if self.statistics is None else {"statistics": self.statistics[c].tolist()}),
                **({} if self.contexts is None else {"contexts": self.contexts[c].tolist()}),
            }
            for c, name in enumerate(self.channels)
        ]
        document = {"digest": self.digest.hex(), "bits": self.bits, "rate_hz": self.rate_hz, "channels": rows}
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Codebook:
        """Read :meth:`to_json`'s form and check its digest.

        Raises:
            CodebookError: not JSON, a field is missing, not valid, or the digest is not that of the contents.
        """
        try:
            document = json.loads(text)
            rows = document["channels"]
            # A table of some channels only has too few rows, and is refused.
            statistics = [row["statistics"] for row in rows if "statistics" in row]
            contexts = [row["contexts"] for row in rows if "contexts" in row]
            book = cls(
                channels=tuple(str(row["channel"]) for row in rows),
                bits=int(document["bits"]),
                rate_hz=float(document["rate_hz"]),
                thresholds=np.array([row["thresholds"] for row in rows], dtype=np.float64),
                levels=np.array([row["levels"] for row in rows], dtype=np.float64),
                statistics=np.array(statistics, dtype=np.uint16) if statistics else None,
                contexts=np.array(contexts, dtype=np.uint8) if contexts else None,
            )
            digest = str(document["digest"])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, CodebookError):
                raise
            raise CodebookError(f"not a codebook in JSON: {error!r}") from error
        if digest != book.digest.hex():
            raise CodebookError(f"the digest says {digest[:8]}, the contents make {book.digest.hex()[:8]}")
        return book

    def save(self, path: Path) -> None:
        """Write the binary layout to ``path`` and the JSON form beside it (``.json``)."""
        path.write_bytes(bytes(self))
        path.with_suffix(".json").write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Codebook:
        """Read a ``.bin`` or ``.json`` file.

        Raises:
            CodebookError: the file is absent or not a codebook; the message names it.
        """
        try:
            with path.open("rb") as file:
                if path.suffix == ".json":
                    return cls.from_json(file.read(MAX_JSON_BYTES).decode("utf-8"))
                return cls.from_bytes(file.read(MAX_CODEBOOK_BYTES + 1))
        except (OSError, UnicodeDecodeError, CodebookError) as error:
            raise CodebookError(f"{path}: {error}") from error


def statistics_from_counts(counts: ArrayLike) -> NDArray[np.uint16]:
    """Turn ``[C, 2**b]`` code counts into frequencies that sum to 32768 a row, none below 1.

    No code may have frequency 0: a static coder could not send it.

    >>> statistics_from_counts([[0, 3]]).tolist()
    [[1, 32767]]
    """
    table = np.asarray(counts, dtype=np.float64)
    codes = table.shape[1]
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    frequency = 1 + np.floor(share * (STATISTICS_TOTAL - codes))
    # What rounding left over goes to the likeliest code, where it costs least.
    frequency[np.arange(len(table)), table.argmax(axis=1)] += STATISTICS_TOTAL - frequency.sum(axis=1)
    table16: NDArray[np.uint16] = frequency.astype(np.uint16)
    return table16


def _check_table(name: str, table: Floats, shape: tuple[int, int]) -> None:
    if table.dtype != np.float64 or table.shape != shape:
        raise CodebookError(f"{name} must be float64 {shape}, not {table.dtype} {table.shape}")
    if not np.isfinite(table).all():
        raise CodebookError(f"{name} must be finite")
    if (np.diff(table, axis=1) < 0).any():
        raise CodebookError(f"{name} must not fall along a channel")


def _check_statistics(table: NDArray[np.uint16], shape: tuple[int, int]) -> None:
    if table.dtype != np.uint16 or table.shape != shape:
        raise CodebookError(f"statistics must be uint16 {shape}, not {table.dtype} {table.shape}")
    if (table == 0).any() or (table.sum(axis=1, dtype=np.int64) != STATISTICS_TOTAL).any():
        raise CodebookError(f"statistics must be at least 1 each and sum to {STATISTICS_TOTAL} a channel")


def _check_contexts(table: NDArray[np.uint8], shape: tuple[int, int]) -> None:
    if table.dtype != np.uint8 or table.shape != shape:
        raise CodebookError(f"contexts must be uint8 {shape}, not {table.dtype} {table.shape}")
    if (table == 0).any():
        raise CodebookError("contexts must be at least 1: no outcome is certain")


def _read_names(data: bytes) -> tuple[str, ...]:
    fields = [data[at : at + _NAME_BYTES] for at in range(0, len(data), _NAME_BYTES)]
    try:
        names = tuple(one.rstrip(b"\0").decode("ascii") for one in fields)
    except UnicodeDecodeError as error:
        raise CodebookError("channel names are not ASCII") from error
    return names
