"""How fast frames go: a camera node's table and coder, the gateway's decoder and detector."""

from __future__ import annotations

import itertools

from benchmarks.timing import Results, Size, best_s
from device_emulator.camera.source import EMULATED, SceneSource
from models.vision.bundle import DetectorBundle
from protocol.frame import decode_frame, frame_chunks

SCENES = 8


def measure_frames(results: Results, bundle: DetectorBundle, size: Size) -> None:
    """Frames of generated scenes a second, each step on one thread."""
    source = SceneSource(0)
    frames = [source.at(number, 3.0 * number).frame for number in range(SCENES)]
    lookup, book = EMULATED.lookup(bundle.codebook), bundle.codebook
    mosaics = [frame.codes(lookup) for frame in frames]
    coded = []
    for mosaic in mosaics:
        chunks = frame_chunks(mosaic, book, cfa=EMULATED.cfa, sequence=0, tick_ms=0)
        coded.append((chunks[0].header, b"".join(chunk.payload for chunk in chunks)))
    turn = itertools.cycle(range(SCENES))
    steps = {
        "quantize": ("counts to codes", lambda: frames[next(turn)].codes(lookup)),
        "encode": (
            "codes to chunks",
            lambda: frame_chunks(mosaics[next(turn)], book, cfa=EMULATED.cfa, sequence=0, tick_ms=0),
        ),
        "decode": ("chunks' bytes to codes", lambda: decode_frame(*coded[next(turn)], book)),
        "detect": ("codes to boxes", lambda: bundle.detect(mosaics[next(turn)], EMULATED.cfa)),
    }
    height, width = mosaics[0].shape
    parameters = sum(parameter.numel() for parameter in bundle.network.parameters())
    for name, (what, call) in steps.items():
        rate = 1 / best_s(call, size)
        more = f", {parameters:,} parameters" if name == "detect" else ""
        how = f"{width} × {height}, {book.bits} bits{more}; one thread; best of {size.rounds} rounds"
        results.add(f"frames_per_s/{name}", rate, f"frames a second, {what} ({bundle.reference})", f"{rate:,.0f}", how)
