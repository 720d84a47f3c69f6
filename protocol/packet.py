"""The bytes of one IMU packet.

A packet decodes alone: it needs its codebook (named by the digest) and nothing from any packet before it. The same
bytes go over MQTT as the payload of ``.../imu`` and over BLE as one notification.

====== ======= ==================================================================================================
offset type    meaning
====== ======= ==================================================================================================
0      4 bytes first four bytes of the codebook's digest (SHA-256 of its binary layout)
4      u32 LE  tick of the first sample: milliseconds since the device started, wraps after 49.7 days
8      u24 LE  bits 0-11 sequence, wraps after 4095; bits 12-21 samples - 1 (so 1 .. 1024); bits 22-23 coder
11     u8      CRC-8 over all other bytes of the packet: polynomial 0x07, initial value 0, not reflected, no xor
12     ...     payload: 1 to 232 bytes
====== ======= ==================================================================================================

Coders: 0 plain packing (:mod:`quantization.codec`); 1 the entropy coder (:mod:`quantization.entropy`), only with a
codebook that has contexts and where it is shorter; 2 and 3 are reserved.

MUST: the sequence goes up by one with every packet that a device makes, sent or not, so that a receiver can count what
is missing; samples are evenly spaced from the tick on, at the rate that the device's ``status`` gives (within 5 % of
the codebook's); a packet is at most 244 bytes, one BLE notification at an ATT MTU of 247; a receiver refuses a payload
that is not, byte for byte, what its coder makes of its codes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from quantization import codec
from quantization.codebook import SHORT_DIGEST_BYTES, Codebook
from quantization.entropy import coder_of
from quantization.errors import CodebookError, PacketError
from quantization.imu import Codes

HEADER_BYTES: Final = 12
MAX_PACKET_BYTES: Final = 244
MAX_PAYLOAD_BYTES: Final = MAX_PACKET_BYTES - HEADER_BYTES
MAX_SAMPLES: Final = 1024
SEQUENCE_MODULUS: Final = 4096
TICK_MODULUS: Final = 2**32

_HEAD: Final = struct.Struct("<4sI")


class Coder(IntEnum):
    """How the codes of a packet become its payload."""

    PLAIN = 0
    ENTROPY = 1


@dataclass(frozen=True)
class Packet:
    """One packet, checked but not yet decoded (that takes the codebook).

    Args:
        short_digest: 4 bytes.
        sequence: 0 .. 4095.
        tick_ms: 0 .. 2^32 - 1, of the first sample.
        samples: 1 .. 1024.
        payload: 1 .. 232 bytes.
        coder: how the payload is made.

    Raises:
        PacketError: a field out of its range.

    >>> packet = Packet(bytes.fromhex("01020304"), sequence=5, tick_ms=1000, samples=2, payload=bytes(3))
    >>> bytes(packet).hex(" ")
    '01 02 03 04 e8 03 00 00 05 10 00 c5 00 00 00'
    """

    short_digest: bytes
    sequence: int
    tick_ms: int
    samples: int
    payload: bytes
    coder: Coder = Coder.PLAIN

    def __post_init__(self) -> None:
        if len(self.short_digest) != SHORT_DIGEST_BYTES:
            raise PacketError("field", f"a digest of {len(self.short_digest)} bytes, not {SHORT_DIGEST_BYTES}")
        if not 0 <= self.sequence < SEQUENCE_MODULUS:
            raise PacketError("field", f"sequence {self.sequence} is not in 0 .. {SEQUENCE_MODULUS - 1}")
        if not 0 <= self.tick_ms < TICK_MODULUS:
            raise PacketError("field", f"tick {self.tick_ms} is not in 0 .. 2^32 - 1")
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise PacketError("field", f"{self.samples} samples are not in 1 .. {MAX_SAMPLES}")
        if not 1 <= len(self.payload) <= MAX_PAYLOAD_BYTES:
            raise PacketError("length", f"a payload of {len(self.payload)} bytes is not in 1 .. {MAX_PAYLOAD_BYTES}")

    def __bytes__(self) -> bytes:
        word = self.sequence | (self.samples - 1) << 12 | self.coder << 22
        head = _HEAD.pack(self.short_digest, self.tick_ms) + word.to_bytes(3, "little")
        return head + bytes([_crc8(head + self.payload)]) + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> Packet:
        """Read one packet.

        Raises:
            PacketError: ``length``, ``checksum`` or ``coder``.
        """
        if not HEADER_BYTES < len(data) <= MAX_PACKET_BYTES:
            raise PacketError("length", f"{len(data)} bytes; a packet has {HEADER_BYTES + 1} to {MAX_PACKET_BYTES}")
        if _crc8(data[: HEADER_BYTES - 1] + data[HEADER_BYTES:]) != data[HEADER_BYTES - 1]:
            raise PacketError("checksum", "the bytes do not match their CRC-8")
        short_digest, tick_ms = _HEAD.unpack_from(data)
        word = int.from_bytes(data[8:11], "little")
        if word >> 22 > max(Coder):
            raise PacketError("coder", f"coder {word >> 22} is reserved")
        return cls(
            short_digest=short_digest,
            sequence=word & 0xFFF,
            tick_ms=tick_ms,
            samples=(word >> 12 & 0x3FF) + 1,
            payload=data[HEADER_BYTES:],
            coder=Coder(word >> 22),
        )

    @classmethod
    def from_codes(cls, codes: Codes, codebook: Codebook, *, sequence: int, tick_ms: int) -> Packet:
        """Make the packet of ``[n, C]`` codes, with the coder that makes it shorter.

        Raises:
            PacketError: no samples or more than one packet holds (:func:`encode_longest` says how many), or other
                channels.
        """
        if codes.ndim != 2 or codes.shape[1] != len(codebook.channels):
            raise PacketError("field", f"codes {codes.shape} for {len(codebook.channels)} channels")
        if not 1 <= len(codes) <= MAX_SAMPLES:
            raise PacketError("field", f"{len(codes)} samples are not in 1 .. {MAX_SAMPLES}")
        encoded = encode_payload(codes, codebook)
        if encoded is None:
            raise PacketError("length", f"{len(codes)} samples take more than {MAX_PAYLOAD_BYTES} bytes")
        coder, payload = encoded
        return cls(
            short_digest=codebook.short_digest,
            sequence=sequence % SEQUENCE_MODULUS,
            tick_ms=tick_ms % TICK_MODULUS,
            samples=len(codes),
            payload=payload,
            coder=coder,
        )

    def codes(self, codebook: Codebook) -> Codes:
        """``[samples, C]`` codes.

        Raises:
            PacketError: ``codebook`` the digest is another one's, ``coder`` the codebook has no contexts for it,
                ``payload`` the bytes are not what a device makes of any such block.
        """
        if codebook.short_digest != self.short_digest:
            raise PacketError("codebook", f"the packet is coded with {self.short_digest.hex()}")
        channels = len(codebook.channels)
        try:
            if self.coder is Coder.PLAIN:
                return codec.unpack(self.payload, self.samples, channels, codebook.bits)
            coder = coder_of(codebook)
            if coder is None:
                raise PacketError("coder", "the packet is entropy coded; its codebook has no contexts")
            if len(self.payload) >= codec.packed_size(self.samples, channels, codebook.bits):
                raise PacketError("payload", f"{len(self.payload)} coded bytes: plain packing takes no more")
            return coder.decode(self.payload, self.samples)
        except CodebookError as error:
            raise PacketError("payload", str(error)) from error


def encode_payload(codes: Codes, codebook: Codebook, max_bytes: int = MAX_PAYLOAD_BYTES) -> tuple[Coder, bytes] | None:
    """``[n, C]`` codes to the shorter of both forms, plain if they are equally long; None if it takes more bytes.

    Codes whose coded form is short only once zeros are cut off its end may be packed plainly: both are legal.

    Raises:
        CodebookError: codes that do not fit the codebook.
    """
    plain = codec.packed_size(len(codes), codes.shape[1], codebook.bits)
    coder = coder_of(codebook)
    limit = min(max_bytes, plain - 1)
    coded = coder.encode(codes, limit) if coder is not None and limit else None
    if coded is not None:
        return Coder.ENTROPY, coded
    return (Coder.PLAIN, codec.pack(codes, codebook.bits)) if plain <= max_bytes else None


def encode_longest(codes: Codes, codebook: Codebook, max_bytes: int = MAX_PAYLOAD_BYTES) -> tuple[int, Coder, bytes]:
    """As many of the first of ``[n, C]`` codes as one payload holds: how many, and as :func:`encode_payload`.

    What plain packing holds always fits, so ``max_bytes`` must have room for one sample.

    Raises:
        CodebookError: codes that do not fit the codebook.
        PacketError: ``length``: not one sample fits.
    """
    fitting = min(len(codes), MAX_SAMPLES)
    encoded = encode_payload(codes[:fitting], codebook, max_bytes)
    if encoded is not None:
        return fitting, *encoded
    most, fitting = fitting, samples_that_fit(codes.shape[1], codebook.bits, max_bytes)
    encoded = encode_payload(codes[:fitting], codebook, max_bytes) if fitting else None
    if encoded is None:
        raise PacketError("length", f"{max_bytes} bytes do not hold one sample of {codes.shape[1]} channels")
    while most - fitting > 1:  # `fitting` samples fit, `most` do not
        middle = (fitting + most) // 2
        tried = encode_payload(codes[:middle], codebook, max_bytes)
        if tried is None:
            most = middle
        else:
            fitting, encoded = middle, tried
    return fitting, *encoded


def samples_that_fit(channels: int, bits: int, payload_bytes: int = MAX_PAYLOAD_BYTES) -> int:
    """Most samples that one packet holds with plain packing.

    >>> samples_that_fit(channels=6, bits=4)
    77
    """
    return min(MAX_SAMPLES, payload_bytes * 8 // (channels * bits))


def _crc8_table() -> bytes:
    """CRC-8/SMBUS (polynomial x^8 + x^2 + x + 1), one entry a byte."""
    table = bytearray()
    for register in range(256):
        for _ in range(8):
            register = (register << 1 ^ (0x07 if register & 0x80 else 0)) & 0xFF
        table.append(register)
    return bytes(table)


_CRC8: Final = _crc8_table()


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc
