"""What a frame of codes takes as this and that coder send it, and what a JPEG of the same exposure takes.

    python -m benchmarks.frame_bytes --data ../shared/data/vision    # writes benchmarks/results/frame_bytes.json

Every ``--every``-th picture of a data set is exposed as for the detectors' tests (320 × 240, noise and all) and
quantized with one γ curve. All rows but the JPEGs are lossless coders of that mosaic, and what they decode is compared.
Image coders get it in the arrangement ``planes`` (the four colours one above the other) or ``mosaic`` (as it is).

The JPEGs are of the exposure as a camera would develop it: 12-bit counts, bilinear demosaicing, white balance, sRGB's
gamma, 4:2:0. ``bright`` is as bright as the picture was that the scene is made of; ``as exposed`` leaves out what the
exposure lacks of that. They are lossy, of other data, and for scale.

Times are of one core, of the process, for each frame. Comparators that are not installed are left out: ``zstandard``
and ``imagecodecs`` (PNG, WebP, JPEG-LS, JPEG XL).
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from benchmarks.machine import RESULTS, commit, machine
from models.vision.bccd import BCCD
from models.vision.penn_fudan import PENN_FUDAN
from models.vision.shots import SENSOR, Shots, View, brightness, view_of
from protocol.frame import Chunk, decode_frame, frame_chunks
from quantization import plane_coder
from quantization.codebook import Codebook
from quantization.codec import pack, unpack
from quantization.exposure import demosaiced
from quantization.gamma_image import ImageQuantizer
from quantization.raw import CodeMosaic, RawFrame, to_mosaic, to_planes

DATASETS: Final = {"penn_fudan": PENN_FUDAN, "bccd": BCCD}
GAMMA: Final = 0.38
BITS: Final = (2, 4, 6, 8)
SEED: Final = 1000
ROOM: Final = 1 << 22

Arrange = Callable[[CodeMosaic], NDArray[np.uint8]]


@dataclass(frozen=True)
class Coder:
    """One lossless way to send a mosaic.

    Args:
        encode: ``[H, W]`` codes to bytes.
        decode: bytes back to codes.
        about: what it does, for people.
    """

    encode: Callable[[CodeMosaic], bytes]
    decode: Callable[[bytes], CodeMosaic]
    about: str


def coders(codebook: Codebook, height: int, width: int) -> dict[str, Coder]:
    """All that are installed, by name."""
    bits = codebook.bits

    def unpacked(data: bytes) -> CodeMosaic:
        return unpack(data, height, width, bits)

    def sent(codes: CodeMosaic) -> bytes:
        made = frame_chunks(codes, codebook, cfa=SENSOR.cfa, sequence=0, tick_ms=0)
        return b"".join(map(bytes, made))

    def received(data: bytes) -> CodeMosaic:
        # Chunks of a frame are equally long, but for the last.
        length = -(-len(data) // int.from_bytes(data[34:36], "little"))
        chunks = [Chunk.from_bytes(data[at : at + length]) for at in range(0, len(data), length)]
        return decode_frame(chunks[0].header, b"".join(one.payload for one in chunks), codebook)

    found = {
        "packed": Coder(lambda codes: pack(codes, bits), unpacked, "plain packing"),
        "packed-zlib-9": Coder(
            lambda codes: zlib.compress(pack(codes, bits), 9), lambda data: unpacked(zlib.decompress(data)), "deflate"
        ),
        "context": Coder(
            lambda codes: plane_coder.encode(codes, bits, ROOM) or b"",
            lambda data: plane_coder.decode(data, height, width, bits),
            "quantization.plane_coder",
        ),
        "context-sent": Coder(sent, received, "the same, in chunks with their headers"),
    }
    zstandard = optional("zstandard")
    if zstandard is not None:
        compressor, decompressor = zstandard.ZstdCompressor(19), zstandard.ZstdDecompressor()
        found["packed-zstd-19"] = Coder(
            lambda codes: compressor.compress(pack(codes, bits)),
            lambda data: unpacked(decompressor.decompress(data)),
            "zstd at its slowest common level",
        )
    codecs = optional("imagecodecs")
    if codecs is not None:
        for arrangement, (arrange, back) in arrangements().items():
            for name, (encode, decode) in image_coders(codecs, bits).items():
                found[f"{name} {arrangement}"] = Coder(
                    lambda codes, arrange=arrange, encode=encode: encode(arrange(codes)),  # type: ignore[misc]
                    lambda data, back=back, decode=decode: back(decode(data)),  # type: ignore[misc]
                    f"{name} of the {arrangement}",
                )
    return found


def optional(name: str) -> ModuleType | None:
    """A module that may not be installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def arrangements() -> dict[str, tuple[Arrange, Arrange]]:
    """How a mosaic becomes a picture in grey, and back."""

    def stacked(codes: CodeMosaic) -> CodeMosaic:
        planes = to_planes(codes, SENSOR.cfa)
        return np.ascontiguousarray(planes.reshape(-1, planes.shape[2]))

    def unstacked(tall: NDArray[np.uint8]) -> CodeMosaic:
        return to_mosaic(tall.reshape(4, -1, tall.shape[1]), SENSOR.cfa)

    return {"planes": (stacked, unstacked), "mosaic": (np.ascontiguousarray, np.ascontiguousarray)}


def image_coders(codecs: Any, bits: int) -> dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]]:  # noqa: ANN401 - a module
    """What ``imagecodecs`` has that is lossless, for ``[h, w]`` grey."""

    def jxl(effort: int) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
        def encode(grey: Any) -> bytes:  # noqa: ANN401
            options = {"lossless": True, "effort": effort, "bitspersample": bits, "numthreads": 1}
            return bytes(codecs.jpegxl_encode(grey, **options))

        return encode, codecs.jpegxl_decode

    return {
        "png-9": (lambda grey: codecs.png_encode(grey, level=9), codecs.png_decode),
        "webp": (
            lambda grey: codecs.webp_encode(np.repeat(grey[..., None], 3, axis=2), lossless=True, method=4),
            lambda data: codecs.webp_decode(data)[..., 0],
        ),
        "jpeg-ls": (codecs.jpegls_encode, codecs.jpegls_decode),
        "jpeg-xl-3": jxl(3),
        "jpeg-xl-7": jxl(7),
        "jpeg-xl-9": jxl(9),
    }


# -- JPEG -------------------------------------------------------------------------------------------------------------


def developed(frame: RawFrame, gains: NDArray[np.float32]) -> Image.Image:
    """A frame as a camera shows it: ``gains`` are of red, green and blue."""
    light = demosaiced(frame.counts.astype(np.float32) / np.float32(frame.sensor.white), frame.sensor.cfa)
    linear = np.clip(light * gains, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return Image.fromarray(np.rint(255 * srgb).astype(np.uint8))


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """With 4:2:0 and tables of its own."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, subsampling=2, optimize=True)
    return out.getvalue()


# -- measuring --------------------------------------------------------------------------------------------------------


def measure(coder: Coder, mosaics: list[CodeMosaic]) -> dict[str, Any]:
    """Bytes and milliseconds of one coder.

    Raises:
        AssertionError: it is not lossless.
    """
    coder.decode(coder.encode(mosaics[0]))  # what only the first call does is not its speed
    started = time.process_time()
    coded = [coder.encode(one) for one in mosaics]
    encoded = time.process_time()
    back = [coder.decode(one) for one in coded]
    ended = time.process_time()
    if not all(np.array_equal(a, b) for a, b in zip(back, mosaics, strict=True)):
        raise AssertionError(f"{coder.about} is not lossless")
    return {
        **sizes([len(one) for one in coded], mosaics[0].size),
        "encode_ms": round(1000 * (encoded - started) / len(mosaics), 2),
        "decode_ms": round(1000 * (ended - encoded) / len(mosaics), 2),
    }


def sizes(lengths: list[int], photosites: int) -> dict[str, Any]:
    """Of frames of ``photosites`` each."""
    return {
        "frames": len(lengths),
        "bytes_mean": round(float(np.mean(lengths)), 1),
        "bytes_max": max(lengths),
        "bits_per_photosite": round(8 * float(np.mean(lengths)) / photosites, 4),
    }


def jpeg_rows(views: list[View], frames: list[RawFrame], gain: float) -> list[dict[str, Any]]:
    """JPEGs of the developed exposures."""
    rows = []
    for brightened in ("bright", "as exposed"):
        pictures = []
        for view, frame in zip(views, frames, strict=True):
            gains = np.ones(3, np.float32) if view.camera is None else view.camera.gains
            pictures.append(developed(frame, gains / gain if brightened == "bright" else gains / gains[1]))
        for quality in (50, 75, 90):
            lengths = [len(jpeg(picture, quality)) for picture in pictures]
            about = "lossy, of the developed exposure"
            rows.append(
                {"coder": f"jpeg-{quality} {brightened}", **sizes(lengths, frames[0].counts.size), "about": about}
            )
    return rows


def run(dataset: str, path: Path, every: int, console: Console) -> list[dict[str, Any]]:
    """All coders on one data set."""
    pictures = DATASETS[dataset].load(path).pictures[::every]
    views = [view_of(picture, SEED) for picture in pictures]
    gain = brightness(views)
    shots = Shots(views, gain=gain, seed=SEED)
    frames = [shots.plain(index).frame for index in range(len(views))]
    rows = [{"dataset": dataset, "bits": None, **row} for row in jpeg_rows(views, frames, gain)]
    for bits in BITS:
        codebook = ImageQuantizer(bits, gamma=[GAMMA] * 3, white=[1.0] * 3).image_codebook()
        mosaics = [frame.codes(frame.sensor.lookup(codebook)) for frame in frames]
        for name, coder in coders(codebook, *mosaics[0].shape).items():
            row = {"dataset": dataset, "bits": bits, "coder": name, **measure(coder, mosaics), "about": coder.about}
            size = f"{row['bytes_mean']:8.0f} bytes  {row['bits_per_photosite']:.3f} bits a photosite"
            times = f"{row['encode_ms']:7.1f} ms  {row['decode_ms']:6.1f} ms"
            console.print(f"{dataset} {bits} bits  {name:18} {size}  {times}", soft_wrap=True)
            rows.append(row)
    return rows


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/vision"), help="folder of the archives")
    parser.add_argument("--datasets", nargs="+", choices=sorted(DATASETS), default=sorted(DATASETS))
    parser.add_argument("--every", type=int, default=4, help="take each picture of this number")
    parser.add_argument("--out", type=Path, default=RESULTS / "frame_bytes.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    for dataset in arguments.datasets:
        rows += run(dataset, arguments.data / f"{dataset}.zip", arguments.every, console)
    for row in rows:
        if row["bits"] is None:
            console.print(f"{row['dataset']}  {row['coder']:18} {row['bytes_mean']:8.0f} bytes")
    # One row a line: it stays readable, and so do its changes.
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    head = f'{{\n "machine": {json.dumps(machine())},\n "commit": {json.dumps(commit())},\n "rows": [\n  '
    arguments.out.write_text(f"{head}{lines}\n ]\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
