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
    contexts: list[list[int]] | None = None

    def to_bytes(self) -> bytes:
        kind = 2 if self.contexts else 1 if self.statistics else 0
        out = b"GWCB" + bytes([1, self.bits, len(self.channels), kind])
        out += struct.pack("<d", self.rate_hz)
        for name in self.channels:
            out += name.encode("ascii") + bytes(16 - len(name))
        for table in (self.thresholds, self.levels):
            for row in table:
                out += b"".join(struct.pack("<d", value) for value in row)
        for counts in self.statistics or []:
            out += b"".join(struct.pack("<H", value) for value in counts)
        for shares in self.contexts or []:
            out += bytes(shares)
        return out

    @staticmethod
    def from_bytes(data: bytes) -> "Book":
        assert data[:4] == b"GWCB"
        version, bits, channels, kind = data[4:8]
        assert (version, kind in (0, 1, 2)) == (1, True)
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
        statistics = rows("H", 2**bits) if kind == 1 else None
        contexts = rows("B", 2**bits - 1 + 19 * 2 ** min(bits, 4) + 4 * max(1, bits - 2)) if kind == 2 else None
        assert at == len(data)
        return Book(names, bits, rate_hz, thresholds, levels, statistics, contexts)

    def short_digest(self) -> bytes:
        return hashlib.sha256(self.to_bytes()).digest()[:4]

    def encode(self, sample: list[float]) -> list[int]:
        """Physical values of one sample to codes."""
        return [sum(value >= edge for edge in row) for value, row in zip(sample, self.thresholds, strict=True)]

    def decode(self, codes: list[int]) -> list[float]:
        return [row[code] for code, row in zip(codes, self.levels, strict=True)]


def decisions(rows: list[list[int]], bits: int, contexts: list[list[int]]) -> list[tuple[int, int]]:
    """(share of a 0 in 256, outcome) of all that the entropy coder decides of ``rows`` of codes."""
    classes, exponents, top = 2 ** min(bits, 4), max(1, bits - 2), 2**bits - 1
    sizes = [top, 9 * classes, 4 * classes, 6 * classes, 3 * exponents, exponents]
    found = []
    for t, row in enumerate(rows):
        for c, code in enumerate(row):
            ends = [sum(sizes[: i + 1]) for i in range(6)]
            tree, stay, direction, longer, exponent, mantissa = (
                contexts[c][end - size : end] for end, size in zip(ends, sizes, strict=True)
            )
            if t == 0:
                text = format(code, f"0{bits}b")
                found += [(tree[int("1" + text[:i], 2) - 1], int(text[i])) for i in range(bits)]
                continue
            steps = [rows[i][c] - rows[i - 1][c] for i in range(1, t)][::-1]  # the latest first
            moves = [step for step in steps if step]
            age = next((i for i, step in enumerate(steps[:2]) if step), 2)
            latest = [(rows[t], rows[t - 1]) if o < c else (rows[t - 1], rows[max(0, t - 2)]) for o in range(len(row))]
            others = min(2, sum(new[o] != old[o] for o, (new, old) in enumerate(latest) if o != c))
            before = rows[t - 1][c]
            q, step = before >> max(0, bits - 4), min(2, abs(steps[0])) if steps else 0
            found.append((stay[9 * q + 3 * age + others], int(code != before)))
            if code == before:
                continue
            up, size = int(code > before), abs(code - before)
            if 0 < before < top:
                found.append((direction[4 * q + 2 * bool(moves and moves[0] > 0) + (age == 0)], up))
            room, e = (top - before if up else before), 0
            while 2 ** (e + 1) <= room:
                share = exponent[3 * min(e - 1, exponents - 1) + step] if e else longer[6 * q + 3 * up + step]
                found.append((share, int(size >= 2 ** (e + 1))))
                if size < 2 ** (e + 1):
                    break
                e += 1
            for i in reversed(range(e)):
                if (size >> (i + 1) << (i + 1)) + 2**i <= room:
                    share = mantissa[min(e - 1, exponents - 1)] if i == e - 1 else 128
                    found.append((share, size >> i & 1))
    return found


def entropy_code(decided: list[tuple[int, int]]) -> bytes:
    """The shortest fraction in the interval. ``low`` is one large number: nothing is written until the end."""
    low, width, places = 0, 2**32 - 1, 4
    for share, outcome in decided:
        bound = (width >> 8) * share
        low, width = (low + bound, width - bound) if outcome else (low, bound)
        while width < 2**24:
            low, width, places = low << 8, width << 8, places + 1
    for kept in range(places + 1):
        unit = 256 ** (places - kept)
        if -(-low // unit) * unit < low + width:
            return (-(-low // unit)).to_bytes(kept, "big") or b"\0"
    raise AssertionError


def write_packet(book: Book, samples: list[list[float]], *, sequence: int, tick_ms: int) -> bytes:
    """Physical samples to the bytes of a packet."""
    codes = [code for sample in samples for code in book.encode(sample)]
    payload, coder = pack(codes, book.bits), 0
    if book.contexts:
        rows = [book.encode(sample) for sample in samples]
        coded = entropy_code(decisions(rows, book.bits, book.contexts))
        if len(coded) < len(payload):
            payload, coder = coded, 1
    word = sequence + 4096 * (len(samples) - 1) + 2**22 * coder
    head = book.short_digest() + struct.pack("<I", tick_ms) + struct.pack("<I", word)[:3]
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
