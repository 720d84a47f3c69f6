"""RAW frames from cameras' own files, read by LibRaw: the visible area of a 2 × 2 Bayer mosaic, with its levels.

LibRaw forgives much that must not pass for a frame: it tells headerless files by their length alone, and some of its
decoders (Sony's ARW among them) go on beyond the end of a truncated file with whatever is in their buffer. So each file
is decoded twice, once with bytes behind its end: they cannot change the frame of a whole file. CRW is not read, as its
directory is found from the end of the file.

What LibRaw 0.22 leaves open:

- It begins the visible area at an even row and column (LibRaw issue 252): a file's odd margin grows by one. The order
  of the colours follows, but four unequal black levels of such a DNG do not.
- Damage in the middle of a file that its decoder gets past has no other sign than what LibRaw writes to stderr.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from quantization.errors import FrameError, GammawearError, SensorError
from quantization.raw import MAX_SIDE, MIN_ADC_BITS, CameraSensor, Cfa, RawFrame

if TYPE_CHECKING:
    import rawpy

_NAMES: Final = "3fr arw cr2 cr3 dcr dng erf fff iiq k25 kdc mef mos mrw nef nrw orf pef raf rw2 rwl sr2 srf srw"
CAMERA_SUFFIXES: Final = frozenset(f".{name}" for name in _NAMES.split())

MAX_MASKED: Final = 2
"""A camera's mosaic may have this many times the largest frame's photosites, masked borders included."""
MAX_EXPOSURE_S: Final = 3600.0
"""A longer exposure time is taken for a damaged field."""

_BEHIND: Final = b"\xa5\x3c\x96\x0f" * 16384
_JPEG_BEGIN: Final = b"\xff\xd8\xff"
_TRUNCATED: Final = "it ends before its mosaic does; copy it again from the camera"
_BAYER: Final = (
    "a mosaic behind a 2 × 2 Bayer filter is needed, as the sensor gave it: "
    "take the camera's own file, or a DNG that was not converted to linear or RGB"
)


def read_camera_file(path: Path, data: bytes) -> RawFrame:
    """The frame in ``data``, which is what the file at ``path`` holds.

    Raises:
        FrameError: as :func:`device_emulator.camera.raw_files.read_raw` does.
        GammawearError: rawpy is not installed.
    """
    try:
        import rawpy
    except ImportError as error:
        raise missing("rawpy") from error
    try:
        frame = _decode(path, data)
    except (rawpy.LibRawError, OSError) as error:
        raise _not_read(path, data, error) from error
    try:
        again = _decode(path, data + _BEHIND)
    except (rawpy.LibRawError, OSError) as error:
        raise refused(
            path, "file", "LibRaw knows it by its length alone. A headerless mosaic is called .raw and needs a layout"
        ) from error
    if not np.array_equal(frame.counts, again.counts):
        raise refused(path, "truncated", _TRUNCATED)
    return frame


def refused(path: Path, reason: str, detail: str) -> FrameError:
    """An error that names the file."""
    return FrameError(reason, f"{path}: {detail}")


def missing(package: str) -> GammawearError:
    """An error that says how to install what reads a file."""
    return GammawearError(f"reading this file needs {package}: pip install 'gammawear[camera]'")


def even_frame(path: Path, counts: NDArray[np.uint16], sensor: CameraSensor, exposure_us: int = 0) -> RawFrame:
    """``[H, W]`` counts, cut to even sides, as a frame. Refusals name the file."""
    height, width = (side & ~1 for side in counts.shape)
    try:
        return RawFrame(np.ascontiguousarray(counts[:height, :width]), sensor, exposure_us)
    except FrameError as error:
        raise refused(path, error.reason, error.detail) from error


def _not_read(path: Path, data: bytes, error: Exception) -> FrameError:
    import rawpy

    if data.startswith(_JPEG_BEGIN):
        return refused(path, "file", "a JPEG picture under a RAW file's name; take the camera's own file")
    if isinstance(error, rawpy.LibRawIOError):
        return refused(path, "truncated", _TRUNCATED)
    said = error.args[0].decode("utf-8", "replace") if error.args and isinstance(error.args[0], bytes) else str(error)
    return refused(path, "file", f"LibRaw cannot read it ({said}). Convert it to DNG, with the mosaic kept")


def _decode(path: Path, data: bytes) -> RawFrame:
    import rawpy

    with rawpy.imread(io.BytesIO(data)) as raw:
        sizes = raw.sizes  # from the header: nothing is decoded yet
        if max(sizes.width, sizes.height) > MAX_SIDE or sizes.raw_width * sizes.raw_height > MAX_MASKED * MAX_SIDE**2:
            raise refused(
                path, "size", f"{sizes.width} × {sizes.height}; sides of up to {MAX_SIDE} are read. Crop or bin it"
            )
        if raw.raw_type is not rawpy.RawType.Flat:
            raise refused(path, "mosaic", f"several values a pixel (linear DNG, sRAW, Foveon); {_BAYER}")
        cfa, colours = _filter(path, raw)
        levels = [float(level) for level in raw.black_level_per_channel]
        white = raw.white_level
        bits = max(MIN_ADC_BITS, white.bit_length())
        try:
            black = levels[colours[0]], levels[colours[1]], levels[colours[2]], levels[colours[3]]
            sensor = CameraSensor(path.name, cfa, bits, black, float(white))
        except SensorError as error:
            raise refused(path, "field", f"levels that cannot be ({error}); convert it to DNG again") from error
        # Beyond white a photosite is full, whatever its count.
        counts = np.minimum(raw.raw_image_visible, np.uint16(2**bits - 1))
        return even_frame(path, counts, sensor, _exposure_us(raw))


def _filter(path: Path, raw: rawpy.RawPy) -> tuple[Cfa, list[int]]:
    """The order of the colours at the visible area's corner, and LibRaw's number of the colour at each position."""
    try:
        pattern = raw.raw_pattern
    except NotImplementedError:  # what a damaged file may ask for
        pattern = None
    if pattern is None or pattern.shape != (2, 2):
        side = 1 if pattern is None else len(pattern)
        what = "no colour filter" if side == 1 else f"a {side} × {side} filter (as X-Trans has)"
        raise refused(path, "mosaic", f"a sensor with {what}; {_BAYER}")
    top, left = raw.sizes.top_margin, raw.sizes.left_margin
    colours = [raw.raw_color(top + row, left + column) for row in (0, 1) for column in (0, 1)]
    names = "".join(chr(raw.color_desc[colour]) for colour in colours)
    if names not in Cfa.__members__:
        raise refused(path, "mosaic", f"a sensor with a filter of {names}; {_BAYER}")
    return Cfa[names], colours


def _exposure_us(raw: rawpy.RawPy) -> int:
    try:
        seconds = raw.other.shutter_speed
    except (OverflowError, ValueError, OSError):  # rawpy converts the date too, and a damaged one is no date
        return 0
    return round(seconds * 1e6) if 0 < seconds <= MAX_EXPOSURE_S else 0
