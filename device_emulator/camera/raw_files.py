"""RAW frames from files: what an emulated camera exposes.

Three kinds of file, told apart by their suffix:

- **camera files** (:data:`CAMERA_SUFFIXES`) say themselves what they hold; see :mod:`device_emulator.camera.libraw`.
- **PNG** with one channel of linear values, 8 or 16 bits. Without a layout: RGGB, black at 0, and of the 16 bits only
  12 where no value is beyond, else 14 or 16. That is a guess from one frame: give a layout where frames must agree.
- **anything else** is a headerless mosaic, little-endian, rows without padding, and needs a layout.

A layout (:class:`RawLayout`) is given, or stands beside the file: ``<name>.json`` for ``<name>.raw`` goes before
``layout.json``, which holds for a whole folder. Where a side is odd, the last row or column is cut off.
"""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from device_emulator.camera.libraw import CAMERA_SUFFIXES, even_frame, missing, read_camera_file, refused
from quantization.errors import FrameError
from quantization.raw import MAX_ADC_BITS, MAX_SIDE, MIN_ADC_BITS, CameraSensor, Cfa, RawFrame

PNG_SUFFIX: Final = ".png"
HEADERLESS_SUFFIXES: Final = frozenset({".raw", ".bin"})
"""What :func:`raw_paths` takes for headerless mosaics. :func:`read_raw` takes any other suffix too."""
FOLDER_LAYOUT: Final = "layout.json"

MAX_FILE_BYTES: Final = 256 * 2**20
"""Twice the largest frame at 16 bits: leaves room for the previews in a camera's file."""
MAX_LAYOUT_BYTES: Final = 64 * 1024

_PNG_HEADER: Final = struct.Struct(">8sI4sIIBB")
_PNG_BEGIN: Final = (b"\x89PNG\r\n\x1a\n", 13, b"IHDR")
_PNG_END: Final = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_COLOURS: Final = {2: "RGB", 3: "palette colours", 4: "grey and alpha", 6: "RGB and alpha"}
_PNG_BITS: Final = (12, 14, 16)
_ASPECTS: Final = ((4, 3), (3, 2), (16, 9), (16, 10), (5, 4), (1, 1))


class RawLayout(BaseModel):
    """What a file without a header leaves unsaid. As JSON: the same fields, nothing else.

    ``black`` and ``white`` are counts after the shift; four black levels are those of a cell's positions in reading
    order. Without ``white`` it is full scale of ``adc_bits``.

    Raises:
        ValidationError: numbers that no part could have, or more bits than a value has after the shift.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    width: Annotated[int, Field(ge=2, le=MAX_SIDE)]
    height: Annotated[int, Field(ge=2, le=MAX_SIDE)]
    cfa: Literal["RGGB", "GRBG", "GBRG", "BGGR"]
    adc_bits: Annotated[int, Field(ge=MIN_ADC_BITS, le=MAX_ADC_BITS)]
    black: float | tuple[float, float, float, float] = 0.0
    white: float | None = None
    dtype: Literal["uint8", "uint16"] = "uint16"
    shift: Annotated[int, Field(ge=0, le=8)] = 0
    """Unused low bits of a value: a count is the value shifted right by so many."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        bits = 8 * np.dtype(self.dtype).itemsize - self.shift
        if self.adc_bits > bits:
            raise ValueError(f"{self.dtype} shifted by {self.shift} leaves {bits} bits, not {self.adc_bits}")
        self.sensor("layout")
        return self

    def sensor(self, name: str) -> CameraSensor:
        """The part that this describes."""
        black = self.black if isinstance(self.black, tuple) else (self.black,) * 4
        white = 2.0**self.adc_bits - 1 if self.white is None else self.white
        return CameraSensor(name, Cfa[self.cfa], self.adc_bits, black, white)


def raw_paths(folder: Path) -> list[Path]:
    """Files directly in ``folder`` that are RAW frames by their suffix, sorted by name; perhaps none.

    Raises:
        FrameError: ``file``: no folder, or none that can be read.
    """
    known = CAMERA_SUFFIXES | HEADERLESS_SUFFIXES | {PNG_SUFFIX}
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in known and path.is_file())
    except OSError as error:
        raise refused(folder, "file", f"{error.strerror}; a folder of RAW frames is needed") from error


def read_raw(path: Path, layout: RawLayout | None = None) -> RawFrame:
    """One frame.

    Args:
        path: a file; see the module's text.
        layout: of a PNG or headerless file; goes before one that stands beside the file.

    Raises:
        FrameError: the message names the file and says what would do. ``file`` cannot be read, or is not what its
            suffix says; ``truncated`` it ends early; ``mosaic`` no 2 × 2 Bayer mosaic; ``layout`` none is there, or it
            does not fit the file; ``size`` too large or too small; ``field`` levels that cannot be.
        GammawearError: the library that the file needs is not installed.
    """
    suffix = path.suffix.lower()
    if suffix in CAMERA_SUFFIXES:
        if layout is not None:
            raise refused(path, "layout", "a camera's file describes itself; read it without a layout")
        return read_camera_file(path, _read(path))
    data = _read(path)
    layout = layout or _layout_beside(path)
    if suffix == PNG_SUFFIX:
        return _png(path, data, layout)
    if layout is None:
        raise refused(
            path,
            "layout",
            f"a headerless mosaic needs a layout: {path.stem}.json or {FOLDER_LAYOUT} beside it, such as "
            f'{{"width": 1920, "height": 1080, "cfa": "RGGB", "adc_bits": 12}}; black, white, dtype and shift can '
            f"follow. {_sizes_that_fit(len(data))}. Camera files and PNG are known by their suffix: "
            f"{' '.join(sorted(CAMERA_SUFFIXES))} {PNG_SUFFIX}",
        )
    return _headerless(path, data, layout)


def _read(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise refused(path, "file", "a folder or a device; the path of one file is needed")
        if size > limit:
            raise refused(path, "size", f"{size} bytes; at most {limit} are read")
        return path.read_bytes()
    except OSError as error:
        raise refused(path, "file", f"{error.strerror}; the path of one file is needed") from error


def read_layout(path: Path) -> RawLayout:
    """A layout from its JSON.

    Raises:
        FrameError: ``layout``: it is none; ``file``, ``size``: it cannot be read.
    """
    try:
        return RawLayout.model_validate_json(_read(path, MAX_LAYOUT_BYTES))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part)[:32] for part in first["loc"]) or "as a whole"
        raise refused(path, "layout", f"no layout: {where}: {first['msg'][:200]}") from error


def _layout_beside(path: Path) -> RawLayout | None:
    for place in (path.with_suffix(".json"), path.with_name(FOLDER_LAYOUT)):
        if place.exists():
            try:
                return read_layout(place)
            except FrameError as error:
                raise refused(path, error.reason, f"{place.name} beside it: {error.detail}") from error
    return None


def _headerless(path: Path, data: bytes, layout: RawLayout) -> RawFrame:
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    expected = layout.width * layout.height * dtype.itemsize
    if len(data) != expected:
        raise refused(
            path,
            "layout",
            f"{layout.width} × {layout.height} {layout.dtype} takes {expected} bytes; the file has {len(data)}. "
            + _sizes_that_fit(len(data), layout.width, layout.height),
        )
    values = np.frombuffer(data, dtype).reshape(layout.height, layout.width)
    return _described(path, values.astype(np.uint16), layout)


def _sizes_that_fit(size: int, *sides: int) -> str:
    """A few layouts of ``size`` bytes: with one of the given sides first, then of the usual aspect ratios."""
    fits: list[str] = []
    for dtype in ("uint16", "uint8"):
        photosites, rest = divmod(size, np.dtype(dtype).itemsize)
        widths = [width for side in sides for width in (side, photosites // side)]
        widths += [math.isqrt(photosites * x // y) for x, y in _ASPECTS]
        for width in widths:
            height = photosites // max(1, width)
            whole = not rest and width * height == photosites and width % 2 == height % 2 == 0
            if whole and min(width, height) >= 2 and max(width, height) <= MAX_SIDE:
                fits.append(f"{width} × {height} {dtype}")
    if not fits:
        return "No usual size fits: has it a header, or padding at the ends of rows, or is it cut off?"
    return f"What would fit: {', '.join(dict.fromkeys(fits))}"


def _described(path: Path, values: NDArray[np.uint16], layout: RawLayout) -> RawFrame:
    """A frame of values whose layout is known."""
    counts = values >> np.uint16(layout.shift)
    most = int(counts.max())
    if most >= 2**layout.adc_bits:
        raise refused(
            path,
            "layout",
            f"a count of {most} is beyond the {layout.adc_bits} bits of its layout; correct adc_bits or shift",
        )
    return even_frame(path, counts, layout.sensor(path.name))


def _png(path: Path, data: bytes, layout: RawLayout | None) -> RawFrame:
    width, height, depth = _png_header(path, data)
    if layout is not None and (layout.width, layout.height, layout.dtype) != (width, height, f"uint{depth}"):
        raise refused(
            path,
            "layout",
            f"its layout says {layout.width} × {layout.height} {layout.dtype}, its header {width} × {height} "
            f"uint{depth}; correct the layout",
        )
    values = _png_values(path, data, (width, height))
    if layout is not None:
        return _described(path, values, layout)
    most = int(values.max())
    bits = depth if depth == MIN_ADC_BITS else next(bits for bits in _PNG_BITS if most < 2**bits)
    return even_frame(path, values, CameraSensor(path.name, Cfa.RGGB, bits, white=2.0**bits - 1))


def _png_header(path: Path, data: bytes) -> tuple[int, int, int]:
    """Width, height and bits of the one linear channel, before anything is decompressed."""
    if not data.startswith(_PNG_BEGIN[0]):
        raise refused(path, "file", "not a PNG file, whatever its suffix says")
    if len(data) < _PNG_HEADER.size:
        raise refused(path, "truncated", "a PNG that ends in its header; copy it again")
    *begin, width, height, depth, colour = _PNG_HEADER.unpack_from(data)
    if tuple(begin) != _PNG_BEGIN:
        raise refused(path, "file", "a damaged PNG (no header); copy it again")
    if colour != 0 or depth not in (8, 16):
        what = _PNG_COLOURS.get(colour, f"grey in {depth} bits")
        raise refused(
            path,
            "mosaic",
            f"a PNG of {what}; a mosaic is one grey channel of 8 or 16 bits with linear values. Save what the sensor "
            f"gave as 16-bit grey, not a developed picture",
        )
    if min(width, height) < 2 or max(width, height) > MAX_SIDE:
        raise refused(path, "size", f"{width} × {height}; sides of 2 to {MAX_SIDE} are read. Crop or bin it")
    return width, height, depth


def _png_values(path: Path, data: bytes, size: tuple[int, int]) -> NDArray[np.uint16]:
    try:
        from PIL import Image
    except ImportError as error:
        raise missing("pillow") from error
    if _PNG_END not in data:
        raise refused(path, "truncated", "a PNG that ends early; copy it again")
    try:
        # Decoding looks at no checksum. Checking uses an image up, so that it is opened twice.
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            # A second header would have taken the place of the one that was checked.
            if image.size != size or image.mode not in ("L", "I;16"):
                raise refused(path, "file", "a damaged PNG (two headers); copy it again")
            return np.asarray(image).astype(np.uint16)
    except FrameError:
        raise
    except (
        OSError,
        SyntaxError,
        ValueError,
        IndexError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise refused(path, "file", f"a damaged PNG ({error}); copy it again") from error
