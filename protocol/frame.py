"""The bytes of a camera's frames: codes of one exposure's mosaic, in chunks of one MQTT message each.

A frame decodes alone: it needs its codebook (named by the digest) and nothing from any frame before it. Every chunk
says all of its frame, so that a receiver can begin with any of them.

====== ======= ==================================================================================================
offset type    meaning
====== ======= ==================================================================================================
0      2 bytes ``46 31`` ("F1": the 1 is the layout's version)
2      u8      bits 0-1 filter array (0 RGGB, 1 GRBG, 2 GBRG, 3 BGGR); bits 2-3 coder; bits 4-6 bits of a code - 1;
               bit 7 zero
3      u8      bits 0-4 binning - 1: photosites of the sensor, along a side, that one of the mosaic stands for, 1 .. 32;
               bits 5-7 lift: how often light was doubled before the curve, 0 .. 7
4      4 bytes first four bytes of the codebook's digest (SHA-256 of its binary layout)
8      u32 LE  sequence of the frame, wraps after 2^32 - 1
12     u32 LE  tick at which the exposure began: milliseconds since the device started, wraps after 49.7 days
16     u32 LE  how long it was exposed, microseconds; 0 = not known
20     u32 LE  coded bytes of the frame, n
24     u32 LE  CRC-32 over these n bytes
28     u16 LE  width, photosites
30     u16 LE  height, photosites
32     u16 LE  index of this chunk, from 0
34     u16 LE  chunks of the frame, m
36     u32 LE  CRC-32 over all other bytes of this chunk
40     ...     payload: of the coded bytes, those from index · s on, s at most, where s = ⌈n / m⌉
====== ======= ==================================================================================================

CRC-32 is that of IEEE 802.3 and zlib: polynomial 0x04C11DB7, reflected, initial value and final xor 0xFFFFFFFF.

Coders: 0 plain packing (:mod:`quantization.codec`) of the codes in reading order; 1 the context coder
(:mod:`quantization.plane_coder`), only where it is shorter; 2 and 3 are reserved.

MUST: the sequence goes up by one with every frame that a camera makes, sent or not; width and height are even, 2 ..
8192, and their product is at most 2^21; a payload has 1 .. 65 536 bytes; no chunk is empty; a receiver refuses coded
bytes that are not, byte for byte, what their coder makes of the codes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from quantization import codec
from quantization.codebook import MAX_BITS, SHORT_DIGEST_BYTES, Codebook
from quantization.errors import CodebookError, FrameError
from quantization.raw import MAX_LIFT, Cfa, CodeMosaic, check_images, check_size

MAGIC: Final = b"F1"
CHUNK_HEADER_BYTES: Final = 40
MAX_CHUNK_PAYLOAD_BYTES: Final = 65_536
"""With header and topic, half of the smallest limit of the large brokers (AWS IoT Core: 128 KiB)."""
CHUNK_PAYLOAD_BYTES: Final = 16_384
"""What is sent unless asked otherwise: a short message does not hold up others on a slow link."""
MAX_PHOTOSITES: Final = 2**21
"""Full HD. It bounds memory and time that any frame costs a receiver, however few its bytes."""
MAX_FRAME_BYTES: Final = MAX_PHOTOSITES
"""Coded bytes of one frame: plain packing at 8 bits."""
MAX_BINNING: Final = 32
SEQUENCE_MODULUS: Final = 2**32
TICK_MODULUS: Final = 2**32

_HEAD: Final = struct.Struct("<2sBB4sIIIIIHHHH")
_CRC: Final = struct.Struct("<I")


class FrameCoder(IntEnum):
    """How the codes of a frame become its coded bytes."""

    PLAIN = 0
    CONTEXT = 1


@dataclass(frozen=True)
class FrameHeader:
    """What every chunk of a frame says.

    Args:
        short_digest: 4 bytes, of the codebook.
        sequence: 0 .. 2^32 - 1.
        tick_ms: 0 .. 2^32 - 1, when the exposure began.
        exposure_us: 0 .. 2^32 - 1; 0 = not known.
        width: photosites, even, 2 .. 8192; width × height at most 2^21.
        height: likewise.
        cfa: order of the filter array's colours.
        bits: of a code, 1 .. 8.
        binning: photosites of the sensor, along a side, that one of the mosaic stands for: 1 .. 32.
        lift: how often light was doubled before the curve: 0 .. 7 (:func:`quantization.raw.lift_for`).
        coder: how the coded bytes are made.
        coded_bytes: what plain packing takes, or from 1 to less than that with the context coder.
        crc: CRC-32 of the coded bytes.

    Raises:
        FrameError: ``size``, ``length`` or ``field``: a field out of its range.
    """

    short_digest: bytes
    sequence: int
    tick_ms: int
    exposure_us: int
    width: int
    height: int
    cfa: Cfa
    bits: int
    binning: int
    lift: int
    coder: FrameCoder
    coded_bytes: int
    crc: int

    def __post_init__(self) -> None:
        if len(self.short_digest) != SHORT_DIGEST_BYTES:
            raise FrameError("field", f"a digest of {len(self.short_digest)} bytes, not {SHORT_DIGEST_BYTES}")
        for name in ("sequence", "tick_ms", "exposure_us", "crc"):
            if not 0 <= getattr(self, name) < 2**32:
                raise FrameError("field", f"{name} {getattr(self, name)} is not in 0 .. 2^32 - 1")
        if not 1 <= self.bits <= MAX_BITS:
            raise FrameError("field", f"bits must be 1 to {MAX_BITS}, not {self.bits}")
        if not 1 <= self.binning <= MAX_BINNING:
            raise FrameError("field", f"binning must be 1 to {MAX_BINNING}, not {self.binning}")
        if not 0 <= self.lift <= MAX_LIFT:
            raise FrameError("field", f"lift must be 0 to {MAX_LIFT}, not {self.lift}")
        check_size(self.height, self.width)
        if self.width * self.height > MAX_PHOTOSITES:
            raise FrameError("size", f"{self.width} × {self.height} photosites are more than {MAX_PHOTOSITES}")
        plain = codec.packed_size(self.height, self.width, self.bits)
        least, most = (plain, plain) if self.coder is FrameCoder.PLAIN else (1, plain - 1)
        if not least <= self.coded_bytes <= most:
            raise FrameError("length", f"{self.coded_bytes} coded bytes are not {least} to {most}")


@dataclass(frozen=True)
class Chunk:
    """One message, checked but not yet decoded (that takes all chunks and the codebook).

    Args:
        header: of the frame.
        index: 0 .. count - 1.
        count: 1 .. 65535 chunks of the frame, none of them empty.
        payload: of the length that header, index and count give, at most 65 536 bytes.

    Raises:
        FrameError: ``chunk``: such chunks do not make up such a frame; ``length``: a payload of another length.
    """

    header: FrameHeader
    index: int
    count: int
    payload: bytes

    def __post_init__(self) -> None:
        total = self.header.coded_bytes
        if not 0 <= self.index < self.count < 2**16:
            raise FrameError("chunk", f"there is no chunk {self.index} of {self.count}")
        if self._size > MAX_CHUNK_PAYLOAD_BYTES or (self.count - 1) * self._size >= total:
            raise FrameError("chunk", f"{total} coded bytes are not sent in {self.count} chunks")
        if len(self.payload) != min(self._size, total - self.start):
            raise FrameError("length", f"{len(self.payload)} bytes in chunk {self.index} of {self.count} of {total}")

    @property
    def start(self) -> int:
        """Where in the coded bytes the payload belongs."""
        return self.index * self._size

    @property
    def _size(self) -> int:
        return -(-self.header.coded_bytes // self.count)

    def __bytes__(self) -> bytes:
        header = self.header
        head = _HEAD.pack(
            MAGIC,
            header.cfa | header.coder << 2 | header.bits - 1 << 4,
            header.binning - 1 | header.lift << 5,
            header.short_digest,
            header.sequence,
            header.tick_ms,
            header.exposure_us,
            header.coded_bytes,
            header.crc,
            header.width,
            header.height,
            self.index,
            self.count,
        )
        return head + _CRC.pack(zlib.crc32(self.payload, zlib.crc32(head))) + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> Chunk:
        """Read one chunk.

        Raises:
            FrameError: ``length``, ``format``, ``checksum``, ``coder``, ``size``, ``field`` or ``chunk``.
        """
        if not CHUNK_HEADER_BYTES < len(data) <= CHUNK_HEADER_BYTES + MAX_CHUNK_PAYLOAD_BYTES:
            raise FrameError("length", f"{len(data)} bytes are too few or too many for a chunk of a frame")
        magic, word, scale, digest, sequence, tick_ms, exposure_us, coded_bytes, crc, width, height, index, count = (
            _HEAD.unpack_from(data)
        )
        if magic != MAGIC:
            raise FrameError("format", "not a chunk of a frame as this release reads them (it does not begin with F1)")
        payload = data[CHUNK_HEADER_BYTES:]
        if (zlib.crc32(payload, zlib.crc32(data[: _HEAD.size])),) != _CRC.unpack_from(data, _HEAD.size):
            raise FrameError("checksum", "the bytes do not match their CRC-32")
        if word >> 7:
            raise FrameError("format", "a bit is set that this release does not know")
        if word >> 2 & 3 > max(FrameCoder):
            raise FrameError("coder", f"coder {word >> 2 & 3} is reserved")
        header = FrameHeader(
            short_digest=digest,
            sequence=sequence,
            tick_ms=tick_ms,
            exposure_us=exposure_us,
            width=width,
            height=height,
            cfa=Cfa(word & 3),
            bits=(word >> 4) + 1,
            binning=(scale & 31) + 1,
            lift=scale >> 5,
            coder=FrameCoder(word >> 2 & 3),
            coded_bytes=coded_bytes,
            crc=crc,
        )
        return cls(header, index, count, payload)


def frame_chunks(
    codes: CodeMosaic,
    codebook: Codebook,
    *,
    cfa: Cfa,
    sequence: int,
    tick_ms: int,
    exposure_us: int = 0,
    binning: int = 1,
    lift: int = 0,
    max_payload: int = CHUNK_PAYLOAD_BYTES,
    compress: bool = True,
) -> list[Chunk]:
    """The chunks of ``[H, W]`` codes, with the coder that makes them shorter.

    Args:
        codes: sides even, 2 .. 8192, at most 2^21 photosites.
        codebook: what the codes were made with.
        cfa: order of the filter array's colours.
        sequence: counted modulo 2^32.
        tick_ms: when the exposure began, modulo 2^32.
        exposure_us: 0 = not known.
        binning: photosites of the sensor, along a side, that one of the mosaic stands for: 1 .. 32.
        lift: how often light was doubled before the curve: 0 .. 7.
        max_payload: bytes of a payload at most, 1 .. 65 536.
        compress: False packs plainly at once: for a machine to which the context coder is too slow.

    Raises:
        FrameError: a mosaic or a number out of range, or more chunks than 65535.
        CodebookError: the codebook is not one for images, or codes that do not fit it.
    """
    check_images(codebook)
    if not 1 <= max_payload <= MAX_CHUNK_PAYLOAD_BYTES:
        raise FrameError("field", f"a payload of at most {max_payload} bytes is not in 1 .. {MAX_CHUNK_PAYLOAD_BYTES}")
    coder, coded = _coded(codes, codebook.bits, compress=compress)
    header = FrameHeader(
        short_digest=codebook.short_digest,
        sequence=sequence % SEQUENCE_MODULUS,
        tick_ms=tick_ms % TICK_MODULUS,
        exposure_us=exposure_us,
        width=codes.shape[1],
        height=codes.shape[0],
        cfa=cfa,
        bits=codebook.bits,
        binning=binning,
        lift=lift,
        coder=coder,
        coded_bytes=len(coded),
        crc=zlib.crc32(coded),
    )
    count = -(-len(coded) // max_payload)
    size = -(-len(coded) // count)
    return [Chunk(header, index, count, coded[index * size : (index + 1) * size]) for index in range(count)]


def decode_frame(header: FrameHeader, coded: bytes, codebook: Codebook) -> CodeMosaic:
    """The coded bytes of all chunks to ``[height, width]`` codes. Takes up to a second for the largest frame.

    Raises:
        FrameError: ``codebook`` the digest or the bits are another one's, or it is not for images; ``length`` or
            ``checksum`` the bytes are not those that the header is of; ``payload`` they are not what a camera makes of
            any such mosaic.
    """
    if codebook.short_digest != header.short_digest or codebook.bits != header.bits:
        raise FrameError("codebook", f"the frame is coded with {header.short_digest.hex()} of {header.bits} bits")
    if len(coded) != header.coded_bytes:
        raise FrameError("length", f"{len(coded)} coded bytes, not {header.coded_bytes}")
    if zlib.crc32(coded) != header.crc:
        raise FrameError("checksum", "the coded bytes do not match their CRC-32")
    try:
        check_images(codebook)
    except CodebookError as error:
        raise FrameError("codebook", str(error)) from error
    if header.coder is FrameCoder.PLAIN:
        try:
            return codec.unpack(coded, header.height, header.width, header.bits)
        except CodebookError as error:
            raise FrameError("payload", str(error)) from error
    from quantization import plane_coder  # compiles: some seconds the first time

    return plane_coder.decode(coded, header.height, header.width, header.bits)


def coded_bits(codes: CodeMosaic, codebook: Codebook) -> float:
    """Coded bits a photosite, without headers."""
    return 8 * len(_coded(codes, codebook.bits, compress=True)[1]) / codes.size


def _coded(codes: CodeMosaic, bits: int, *, compress: bool) -> tuple[FrameCoder, bytes]:
    check_size(*codes.shape)
    if codes.size > MAX_PHOTOSITES:
        raise FrameError("size", f"{codes.size} photosites are more than {MAX_PHOTOSITES}")
    plain = codec.pack(codes, bits)
    if compress and len(plain) > 1:
        from quantization import plane_coder

        coded = plane_coder.encode(codes, bits, len(plain) - 1)
        if coded is not None:
            return FrameCoder.CONTEXT, coded
    return FrameCoder.PLAIN, plain
