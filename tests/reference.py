"""The wire format a second time: plain Python without numpy, written from the format tables alone.

Nothing here is shared with the package. What both agree on is what the tables say; where they differ, one of them has
misread the tables.
"""

import hashlib
import struct
from dataclasses import dataclass


def crc8(data: bytes) -> int:
    """Polynomial x^8 + x^2 + x + 1, bit by bit, most significant bit first, from 0."""
    remainder = 0
    for byte in data:
        for position in range(7, -1, -1):
            top = remainder >> 7
            remainder = (remainder << 1) & 0xFF
            if top ^ (byte >> position & 1):
                remainder ^= 0b0000_0111
    return remainder


def pack(codes: list[int], bits: int) -> bytes:
    """One large number whose bit i is bit i of the stream."""
    number = sum(code << (index * bits) for index, code in enumerate(codes))
    return number.to_bytes(-(-len(codes) * bits // 8), "little")


def unpack(data: bytes, total: int, bits: int) -> list[int]:
    number = int.from_bytes(data, "little")
    return [number >> (index * bits) & (2**bits - 1) for index in range(total)]


@dataclass
class Book:
    """A codebook as its bytes say it."""

    channels: list[str]
    bits: int
    rate_hz: float
    thresholds: list[list[float]]
    levels: list[list[float]]
    statistics: list[list[int]] | None

    def to_bytes(self) -> bytes:
        out = b"GWCB" + bytes([1, self.bits, len(self.channels), self.statistics is not None])
        out += struct.pack("<d", self.rate_hz)
        for name in self.channels:
            out += name.encode("ascii") + bytes(16 - len(name))
        for table in (self.thresholds, self.levels):
            for row in table:
                out += b"".join(struct.pack("<d", value) for value in row)
        for counts in self.statistics or []:
            out += b"".join(struct.pack("<H", value) for value in counts)
        return out

    @staticmethod
    def from_bytes(data: bytes) -> "Book":
        assert data[:4] == b"GWCB"
        version, bits, channels, kind = data[4:8]
        assert (version, kind in (0, 1)) == (1, True)
        (rate_hz,) = struct.unpack("<d", data[8:16])
        at = 16

        def take(size: int) -> bytes:
            nonlocal at
            assert at + size <= len(data)
            at += size
            return data[at - size : at]

        def rows(letter: str, width: int) -> list[list]:
            size = struct.calcsize(f"<{width}{letter}")
            return [list(struct.unpack(f"<{width}{letter}", take(size))) for _ in range(channels)]

        names = [take(16).split(b"\0")[0].decode("ascii") for _ in range(channels)]
        thresholds, levels = rows("d", 2**bits - 1), rows("d", 2**bits)
        statistics = rows("H", 2**bits) if kind else None
        assert at == len(data)
        return Book(names, bits, rate_hz, thresholds, levels, statistics)

    def short_digest(self) -> bytes:
        return hashlib.sha256(self.to_bytes()).digest()[:4]

    def encode(self, sample: list[float]) -> list[int]:
        """Physical values of one sample to codes."""
        return [sum(value >= edge for edge in row) for value, row in zip(sample, self.thresholds, strict=True)]

    def decode(self, codes: list[int]) -> list[float]:
        return [row[code] for code, row in zip(codes, self.levels, strict=True)]


def write_packet(book: Book, samples: list[list[float]], *, sequence: int, tick_ms: int) -> bytes:
    """Physical samples to the bytes of a packet."""
    codes = [code for sample in samples for code in book.encode(sample)]
    word = sequence + 4096 * (len(samples) - 1)
    head = book.short_digest() + struct.pack("<I", tick_ms) + struct.pack("<I", word)[:3]
    payload = pack(codes, book.bits)
    return head + bytes([crc8(head + payload)]) + payload


def read_packet(data: bytes, codebook: bytes) -> tuple[int, int, list[list[float]]]:
    """(sequence, tick, physical levels of every sample) of a packet's and a codebook's bytes."""
    book = Book.from_bytes(codebook)
    assert 12 < len(data) <= 244
    assert data[:4] == hashlib.sha256(codebook).digest()[:4]
    assert data[11] == crc8(data[:11] + data[12:])
    word = int.from_bytes(data[8:11], "little")
    sequence, samples, coder = word % 4096, word // 4096 % 1024 + 1, word // 4096 // 1024
    assert coder == 0
    width = len(book.channels)
    payload = data[12:]
    assert len(payload) == (samples * width * book.bits + 7) // 8
    codes = unpack(payload, samples * width, book.bits)
    assert pack(codes, book.bits) == payload  # so the padding is zero
    rows = [codes[at : at + width] for at in range(0, len(codes), width)]
    return sequence, int.from_bytes(data[4:8], "little"), [book.decode(row) for row in rows]
