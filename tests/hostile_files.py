"""What ``tests/hostile/*.bin`` holds, built by hand, and what must be said of each.

The files are there so that decoders in other languages can be tried on them. Run this module to write them anew.
"""

import json
import struct
from pathlib import Path
from zlib import crc32

from reference import Book, crc8

HOSTILE = Path(__file__).parent / "hostile"

NAN = float("nan")
SMALL = Book(["acc_x"], 2, 50.0, [[-1.0, 0.0, 1.0]], [[-1.5, -0.5, 0.5, 1.5]], [[8192] * 4])
"""A sound codebook that every hostile one differs from in one point."""


def _book(**changes: object) -> bytes:
    return Book(**(vars(SMALL) | changes)).to_bytes()


def _bytes_at(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


_SOUND = SMALL.to_bytes()
_HUGE = b"GWCB" + bytes([1, 255, 255, 1]) + struct.pack("<d", 50.0)

CODEBOOKS: dict[str, tuple[bytes, str]] = {
    "codebook-empty.bin": (b"", "too few"),
    "codebook-head-only.bin": (_SOUND[:16], "take 96"),
    "codebook-truncated.bin": (_SOUND[:-1], "95 bytes.*take 96"),
    "codebook-trailing.bin": (_SOUND + b"\0", "97 bytes.*take 96"),
    "codebook-magic.bin": (_bytes_at(_SOUND, 0, b"GWCC"), "GWCB"),
    "codebook-version-0.bin": (_bytes_at(_SOUND, 4, b"\0"), "version 0"),
    "codebook-version-2.bin": (_bytes_at(_SOUND, 4, b"\2"), "version 2"),
    "codebook-huge.bin": (_HUGE, "255 bits, 255 channels"),
    "codebook-bits-0.bin": (_bytes_at(_SOUND, 5, b"\0"), "0 bits"),
    "codebook-bits-9.bin": (_bytes_at(_SOUND, 5, b"\x09"), "9 bits"),
    "codebook-channels-0.bin": (_bytes_at(_SOUND, 6, b"\0"), "0 channels"),
    "codebook-statistics-2.bin": (_bytes_at(_SOUND, 7, b"\2"), "96 bytes.*take 171"),
    "codebook-statistics-3.bin": (_bytes_at(_SOUND, 7, b"\3"), "statistics 3"),
    "codebook-contexts-zero.bin": (_book(statistics=None, contexts=[[128] * 82 + [0]]), "at least 1"),
    "codebook-rate-nan.bin": (_book(rate_hz=NAN), "rate"),
    "codebook-rate-0.bin": (_book(rate_hz=0.0), "rate"),
    "codebook-rate-infinite.bin": (_book(rate_hz=float("inf")), "rate"),
    "codebook-name-latin1.bin": (_bytes_at(_SOUND, 16, b"acc_\xe9"), "ASCII"),
    "codebook-name-empty.bin": (_bytes_at(_SOUND, 16, bytes(16)), "channel name"),
    "codebook-name-path.bin": (_bytes_at(_SOUND, 16, b"../acc"), "channel name"),
    "codebook-name-hidden.bin": (_bytes_at(_SOUND, 16, b"acc\0x"), "channel name"),
    "codebook-names-repeat.bin": (
        _book(channels=["a", "a"], thresholds=SMALL.thresholds * 2, levels=SMALL.levels * 2, statistics=None),
        "repeat",
    ),
    "codebook-thresholds-nan.bin": (_book(thresholds=[[-1.0, NAN, 1.0]]), "thresholds must be finite"),
    "codebook-thresholds-infinite.bin": (_book(thresholds=[[-1.0, 0.0, float("inf")]]), "thresholds must be finite"),
    "codebook-thresholds-fall.bin": (_book(thresholds=[[-1.0, 1.0, 0.0]]), "thresholds must not fall"),
    "codebook-levels-nan.bin": (_book(levels=[[NAN] * 4]), "levels must be finite"),
    "codebook-levels-fall.bin": (_book(levels=[[0.0, 1.0, 2.0, 1.0]]), "levels must not fall"),
    "codebook-statistics-zero.bin": (_book(statistics=[[0, 10, 10, 32748]]), "at least 1"),
    "codebook-statistics-sum.bin": (_book(statistics=[[1, 1, 1, 1]]), "sum to 32768"),
    "codebook-statistics-wrap.bin": (_book(statistics=[[65535, 1, 32767, 1]]), "sum to 32768"),
}


def _packet(payload: bytes, *, samples: int = 4, coder: int = 0, crc: int | None = None, digest: bytes = b"") -> bytes:
    head = (digest or SMALL.short_digest()) + struct.pack("<I", 7)
    head += (3 | (samples - 1) << 12 | coder << 22).to_bytes(3, "little")
    return head + bytes([crc8(head + payload) if crc is None else crc]) + payload


CODED = Book(**(vars(SMALL) | {"statistics": None, "contexts": [[240] * 83]}))
"""The same with contexts: 16 codes of 0 are coded as one zero byte."""


def _coded(payload: bytes, samples: int) -> bytes:
    return _packet(payload, samples=samples, coder=1, digest=CODED.short_digest())


CODED_PACKETS: dict[str, tuple[bytes, str]] = {
    "packet-coded-trailing.bin": (_coded(b"\0\0", 16), "not their shortest form"),
    "packet-coded-longer.bin": (_coded(b"\0\1", 16), "not their shortest form"),
    "packet-coded-never-read.bin": (_coded(b"\0\0\0\0\0\1", 40), "never read"),
    "packet-coded-range.bin": (_coded(b"\xff\xff\xff\xff\xff", 40), "outside of the range"),
    "packet-coded-plain-length.bin": (_coded(b"\0\0\0\0", 16), "plain packing takes no more"),
    "packet-coded-samples-1024.bin": (_coded(b"\x55" * 232, 1024), "."),
}

PACKETS: dict[str, tuple[bytes, str]] = {
    # Sound is b"\x1b", the codes 3 2 1 0 at two bits. The word is the error's reason.
    "packet-empty.bin": (b"", "length"),
    "packet-short.bin": (_packet(b"\x1b")[:11], "length"),
    "packet-header-only.bin": (_packet(b""), "length"),
    "packet-too-long.bin": (_packet(bytes(233), samples=932), "length"),
    "packet-crc.bin": (_packet(b"\x1b", crc=crc8(_packet(b"\x1b")[:11] + b"\x1b") ^ 1), "checksum"),
    "packet-all-zero.bin": (bytes(13), "codebook"),
    "packet-all-ones.bin": (b"\xff" * 13, "checksum"),
    "packet-truncated.bin": (_packet(b"\x1b\x1b", samples=8)[:-1], "checksum"),
    "packet-coder-1.bin": (_packet(b"\x1b", coder=1), "coder"),
    "packet-coder-2.bin": (_packet(b"\x1b", coder=2), "coder"),
    "packet-coder-3.bin": (_packet(b"\x1b", coder=3), "coder"),
    "packet-other-codebook.bin": (_packet(b"\x1b", digest=b"\xde\xad\xbe\xef"), "codebook"),
    "packet-payload-short.bin": (_packet(b"\x1b", samples=5), "payload"),
    "packet-payload-long.bin": (_packet(b"\x1b\0"), "payload"),
    "packet-samples-1024.bin": (_packet(b"\x1b", samples=1024), "payload"),
    "packet-padding.bin": (_packet(b"\x5b", samples=3), "payload"),
}

IMAGES = Book(["red", "green", "blue"], 2, 1.0, [[0.25, 0.5, 0.75]] * 3, [[0.125, 0.375, 0.625, 0.875]] * 3, None)
"""A codebook for images. A sound frame with it is 2 × 2 with the payload b"\x1b", the codes 3 2 1 0."""


def chunk(payload: bytes, **changes: int | bytes) -> bytes:
    """A chunk of that frame but for these fields; both sums are right unless they are given."""
    field: dict = {
        "magic": b"F1", "filter": 0, "coder": 0, "bits": 2, "top": 0, "scale": 0, "digest": IMAGES.short_digest(),
        "sequence": 7, "tick": 1000, "exposure": 0, "coded": len(payload), "frame_crc": crc32(payload),
        "width": 2, "height": 2, "index": 0, "count": 1,
    } | changes  # fmt: skip
    word = field["filter"] | field["coder"] << 2 | field["bits"] - 1 << 4 | field["top"] << 7
    head = field["magic"] + bytes([word, field["scale"]]) + field["digest"]
    head += struct.pack("<5I", *(field[name] for name in ("sequence", "tick", "exposure", "coded", "frame_crc")))
    head += struct.pack("<4H", *(field[name] for name in ("width", "height", "index", "count")))
    return head + struct.pack("<I", field.get("crc", crc32(head + payload))) + payload


def _coded_chunk(payload: bytes, **changes: int | bytes) -> bytes:
    return chunk(payload, coder=1, **({"width": 16, "height": 16} | changes))


FRAMES: dict[str, tuple[bytes, str]] = {
    # The word is the error's reason, of reading the chunk or of decoding the frame that it is all of.
    "frame-empty.bin": (b"", "length"),
    "frame-short.bin": (chunk(b"\x1b")[:39], "length"),
    "frame-header-only.bin": (chunk(b"")[:40], "length"),
    "frame-too-long.bin": (chunk(bytes(65_537), width=1024, height=256), "length"),
    "frame-all-zero.bin": (bytes(41), "format"),
    "frame-all-ones.bin": (b"\xff" * 41, "format"),
    "frame-magic.bin": (chunk(b"\x1b", magic=b"G1"), "format"),
    "frame-version.bin": (chunk(b"\x1b", magic=b"F2"), "format"),
    "frame-reserved-bit.bin": (chunk(b"\x1b", top=1), "format"),
    "frame-chunk-crc.bin": (chunk(b"\x1b", crc=0), "checksum"),
    "frame-truncated.bin": (chunk(b"\x1b\x1b", width=4)[:-1], "checksum"),
    "frame-crc.bin": (chunk(b"\x1b", frame_crc=0), "checksum"),
    "frame-coder-2.bin": (chunk(b"\x1b", coder=2), "coder"),
    "frame-coder-3.bin": (chunk(b"\x1b", coder=3), "coder"),
    "frame-side-0.bin": (chunk(b"\x1b", width=0), "size"),
    "frame-side-odd.bin": (chunk(b"\x1b", height=3), "size"),
    "frame-side-long.bin": (chunk(b"\x1b", width=8194), "size"),
    "frame-huge.bin": (_coded_chunk(b"\x1b", width=8192, height=8192), "size"),
    "frame-coded-4-gib.bin": (chunk(b"\x1b", coded=2**32 - 1), "length"),
    "frame-coded-0.bin": (_coded_chunk(b"\x1b", coded=0), "length"),
    "frame-coded-plain-length.bin": (_coded_chunk(bytes(64)), "length"),
    "frame-plain-short.bin": (chunk(b"\x1b", width=4), "length"),
    "frame-plain-long.bin": (chunk(b"\x1b\0"), "length"),
    "frame-payload-short.bin": (chunk(b"\x1b", width=4, coded=2), "length"),
    "frame-count-0.bin": (chunk(b"\x1b", count=0), "chunk"),
    "frame-index-beyond.bin": (chunk(b"\x1b", index=1), "chunk"),
    "frame-chunk-empty.bin": (chunk(b"\x1b", width=4, coded=2, count=3), "chunk"),
    "frame-chunks-65535.bin": (chunk(b"\x1b", count=65_535), "chunk"),
    "frame-chunk-too-large.bin": (chunk(b"\x1b", width=2048, height=1024, coded=2**19), "chunk"),
    "frame-other-codebook.bin": (chunk(b"\x1b", digest=b"\xde\xad\xbe\xef"), "codebook"),
    "frame-other-bits.bin": (chunk(b"\x1b\0", bits=4), "codebook"),
    "frame-coded-trailing.bin": (_coded_chunk(b"\0\0"), "payload"),
    "frame-coded-range.bin": (_coded_chunk(b"\xff" * 8), "payload"),
    "frame-coded-never-read.bin": (_coded_chunk(b"\0" * 62 + b"\1"), "payload"),
}


def _safetensors(tensors: dict[str, tuple[str, list[int], bytes]], metadata: dict[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


_PART = {"name": "p", "channels": ["acc_x"], "adc_bits": 8, "lsb": [1.0], "offset": [0], "signed": True}
_TENSORS = {
    "counts": ("I32", [2, 1], struct.pack("<2i", -3, 4)),
    "tick_ms": ("I64", [2], struct.pack("<2q", 0, 20)),
    "label": ("I16", [2], struct.pack("<2h", -1, 0)),
}
_METADATA = {
    "format": "gammawear-trace-1",
    "sensor": json.dumps(_PART),
    "labels": '["walking"]',
    "rate_hz": "50.0",
    "subject": "s1",
    "source": "device",
}


def trace_with(tensors: dict | None = None, **metadata: str | None) -> bytes:
    """The bytes of a small sound trace, but for these tensors and metadata (None leaves one out)."""
    text = {name: value for name, value in (_METADATA | metadata).items() if value is not None}
    return _safetensors({k: v for k, v in (_TENSORS | (tensors or {})).items() if v is not None}, text)


def _part(**changes: object) -> str:
    return json.dumps(_PART | changes)


SOUND_TRACE = trace_with()

TRACES: dict[str, tuple[bytes, str]] = {
    "trace-empty.bin": (b"", "."),
    "trace-pickle.bin": (b"\x80\x04cos\nsystem\n(S'false'\ntR.", "."),
    "trace-header-length.bin": (struct.pack("<Q", 2**62) + b"{}", "."),
    "trace-truncated.bin": (SOUND_TRACE[:-1], "."),
    "trace-no-metadata.bin": (_safetensors(_TENSORS, {}), "format"),
    "trace-format.bin": (trace_with(format="gammawear-trace-2"), "format"),
    "trace-no-counts.bin": (trace_with({"counts": None}), "counts"),
    "trace-no-sensor.bin": (trace_with(sensor=None), "sensor"),
    "trace-no-rate.bin": (trace_with(rate_hz=None), "rate_hz"),
    "trace-counts-i16.bin": (trace_with({"counts": ("I16", [2, 1], bytes(4))}), "counts must be int32"),
    "trace-counts-f32.bin": (trace_with({"counts": ("F32", [2, 1], bytes(8))}), "counts must be int32"),
    "trace-counts-flat.bin": (trace_with({"counts": ("I32", [2], bytes(8))}), "do not fit"),
    "trace-counts-scalar.bin": (trace_with({"counts": ("I32", [], bytes(4))}), "unsized"),
    "trace-counts-beyond.bin": (trace_with({"counts": ("I32", [2, 1], struct.pack("<2i", 0, 128))}), "8 bits"),
    "trace-no-samples.bin": (
        trace_with({"counts": ("I32", [0, 1], b""), "tick_ms": ("I64", [0], b""), "label": ("I16", [0], b"")}),
        "without samples",
    ),
    "trace-ticks-equal.bin": (trace_with({"tick_ms": ("I64", [2], bytes(16))}), "rise"),
    "trace-ticks-wrap.bin": (trace_with({"tick_ms": ("I64", [2], struct.pack("<2q", 2**63 - 1, -(2**63)))}), "rise"),
    "trace-label-nameless.bin": (trace_with({"label": ("I16", [2], struct.pack("<2h", 0, 1))}), "labels run"),
    "trace-label-minus-2.bin": (trace_with({"label": ("I16", [2], struct.pack("<2h", -2, 0))}), "labels run"),
    "trace-labels-deep.bin": (trace_with(labels="[" * 5000), "."),
    "trace-labels-number.bin": (trace_with(labels="7"), "."),
    "trace-rate-nan.bin": (trace_with(rate_hz="nan"), "rate"),
    "trace-rate-word.bin": (trace_with(rate_hz="fast"), "fast"),
    "trace-source.bin": (trace_with(source="oracle"), "oracle"),
    "trace-sensor-list.bin": (trace_with(sensor="[1]"), "sensor"),
    "trace-sensor-infinite.bin": (trace_with(sensor=_part(adc_bits=float("inf"))), "sensor"),
    "trace-sensor-bits.bin": (trace_with(sensor=_part(adc_bits=60)), "ADC bits"),
    "trace-sensor-lsb.bin": (trace_with(sensor=_part(lsb=[0.0])), "LSB"),
}


def write() -> None:
    """Write every file."""
    HOSTILE.mkdir(exist_ok=True)
    for name, (data, _) in (CODEBOOKS | PACKETS | CODED_PACKETS | FRAMES | TRACES).items():
        (HOSTILE / name).write_bytes(data)


if __name__ == "__main__":
    write()
