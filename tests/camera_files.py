"""RAW files for tests: published ones, and DNGs and layouts that are made here."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import VISION
from needed import need
from numpy.typing import NDArray

from device_emulator.camera.raw_files import RawLayout, read_raw
from quantization.errors import FrameError

TEST_RAW = "openISP/raw/test.RAW"
FOLDERS = {"raw_camera_files": "raw_camera_files", "pascalraw_sample": "PASCALRAW_sample16"}


def member(folder: Path, name: str, archive: str = "raw_camera_files") -> Path:
    """One file of a shared archive, unpacked below ``folder``."""
    path = VISION / f"{archive}.zip"
    need(path.exists(), str(path))
    with zipfile.ZipFile(path) as opened:
        return Path(opened.extract(f"{FOLDERS[archive]}/{name}", folder))


def refusal(path: Path, layout: RawLayout | None = None) -> FrameError:
    """The error of reading a file, which must name it."""
    with pytest.raises(FrameError) as caught:
        read_raw(path, layout)
    assert str(path) in caught.value.detail
    return caught.value


Tag = tuple[int, int, bytes]
"""Number, type and values of a TIFF field."""


def byte(number: int, *values: int) -> Tag:
    return number, 1, bytes(values)


def short(number: int, *values: int) -> Tag:
    return number, 3, struct.pack(f"<{len(values)}H", *values)


def long(number: int, *values: int) -> Tag:
    return number, 4, struct.pack(f"<{len(values)}I", *values)


def ratio(number: int, above: int, below: int) -> Tag:
    return number, 5, struct.pack("<II", above, below)


def tiff(mosaic: NDArray[np.generic], *changed: Tag, without: tuple[int, ...] = ()) -> bytes:
    """A DNG of one strip: uncompressed, a Bayer filter in RGGB where no field says otherwise; fields by TIFF 6.0."""
    data = mosaic.tobytes()
    height, width = mosaic.shape[:2]
    tags = [
        long(254, 0), long(256, width), long(257, height), short(258, *[8 * mosaic.itemsize] * (mosaic[0, 0].size)),
        short(259, 1), short(262, 32803), (271, 2, b"Maker\0"), (272, 2, b"Model\0"), long(273, 0),
        short(277, mosaic[0, 0].size), long(278, height), long(279, len(data)), short(33421, 2, 2),
        byte(33422, 0, 1, 1, 2), byte(50706, 1, 4, 0, 0), (50708, 2, b"Model\0"),
    ]  # fmt: skip
    fields = {tag[0]: tag for tag in (*tags, *changed) if tag[0] not in without}
    behind = 8 + 2 + 12 * len(fields) + 4
    fields[273] = long(273, behind + sum(len(value) for _, _, value in fields.values() if len(value) > 4))
    entries, values = b"", b""
    for number, kind, value in sorted(fields.values()):
        entries += struct.pack("<HHI", number, kind, len(value) // {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}[kind])
        if len(value) <= 4:
            entries += value.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", behind + len(values))
            values += value
    return struct.pack("<2sHIH", b"II", 42, 8, len(fields)) + entries + b"\0\0\0\0" + values + data


def noise(height: int = 40, width: int = 60, top: int = 4096) -> NDArray[np.uint16]:
    return np.random.default_rng(1).integers(0, top, (height, width)).astype(np.uint16)


def dng(folder: Path, *changed: Tag, mosaic: NDArray[np.generic] | None = None) -> Path:
    path = folder / "frame.dng"
    path.write_bytes(tiff(noise() if mosaic is None else mosaic, *changed))
    return path


def described(**changed: object) -> RawLayout:
    return RawLayout.model_validate({"width": 60, "height": 40, "cfa": "RGGB", "adc_bits": 12, **changed})
