"""RAW frames of files: values without a header and their layouts, PNG, folders."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from camera_files import TEST_RAW, described, dng, member, noise, refusal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from device_emulator.camera.libraw import CAMERA_SUFFIXES
from device_emulator.camera.raw_files import MAX_FILE_BYTES, MAX_LAYOUT_BYTES, RawLayout, raw_paths, read_raw
from quantization.errors import FrameError, GammawearError
from quantization.raw import MAX_SIDE, Cfa, RawFrame, to_planes

EIGHT_BIT = "infinite-isp/in_frames/normal/Outdoor1_2592x1536_8bit_GRBG.raw"


def scene(folder: Path, cfa: Cfa) -> RawFrame:
    path = member(folder, f"mushfiqulalam_isp/images/DSC_1339_768x512_{cfa.name.lower()}.raw")
    return read_raw(path, described(width=768, height=512, cfa=cfa.name, adc_bits=14, black=600, white=15520))


def test_one_scene_in_all_four_orders(tmp_path: Path) -> None:
    """The files hold one mosaic whose photosites change places within each cell: not a shifted or relabelled one.

    Red and blue are the same everywhere. BGGR and GBRG have the two greens the other way round: their maker numbered
    the greens in reading order, not by the colour beside them.
    """
    rggb, grbg, gbrg, bggr = (scene(tmp_path, cfa) for cfa in Cfa)
    for cfa, frame in zip(Cfa, (rggb, grbg, gbrg, bggr), strict=True):
        assert frame.counts.shape == (512, 768)
        assert (frame.sensor.cfa, frame.sensor.black, frame.sensor.white) == (cfa, (600.0,) * 4, 15520.0)
    red, beside_red, beside_blue, blue = to_planes(rggb.counts, Cfa.RGGB)
    assert (beside_red != beside_blue).mean() > 0.9
    for frame, greens in [
        (grbg, (beside_red, beside_blue)),
        (gbrg, (beside_blue, beside_red)),
        (bggr, (beside_blue, beside_red)),
    ]:
        planes = to_planes(frame.counts, frame.sensor.cfa)
        assert np.array_equal(planes, np.stack([red, *greens, blue]))
    light = (rggb.counts.mean() - 600) / (15520 - 600)
    assert light == pytest.approx(0.0733, abs=0.0005)


def test_counts_beyond_the_layouts_bits_are_refused(tmp_path: Path) -> None:
    """The maker's copy with bad pixels added has counts of 65535."""
    error = refusal(
        member(tmp_path, "mushfiqulalam_isp/images/DSC_1339_768x512_rggb_bpc_test.raw"),
        RawLayout(width=768, height=512, cfa="RGGB", adc_bits=14),
    )
    assert error.reason == "layout"
    assert "65535" in error.detail


def test_values_that_hold_fewer_bits(tmp_path: Path) -> None:
    path = member(tmp_path, TEST_RAW)
    as_stored = read_raw(path, RawLayout(width=1920, height=1080, cfa="RGGB", adc_bits=10))
    shifted = read_raw(path, RawLayout(width=1920, height=1080, cfa="RGGB", adc_bits=8, shift=2))
    assert as_stored.counts.max() == 1020
    assert shifted.counts.max() == 255
    assert np.array_equal(shifted.counts * 4, as_stored.counts)
    assert shifted.sensor.white == 255.0
    assert as_stored.counts.mean() == pytest.approx(430.90, abs=0.01)


def test_eight_bits_a_value(tmp_path: Path) -> None:
    path = member(tmp_path, EIGHT_BIT)
    frame = read_raw(path, RawLayout(width=2592, height=1536, cfa="GRBG", adc_bits=8, dtype="uint8"))
    assert frame.counts.shape == (1536, 2592)
    red, beside_red, beside_blue, blue = to_planes(frame.counts, Cfa.GRBG).mean(axis=(1, 2))
    assert beside_red == pytest.approx(beside_blue, rel=0.01)
    assert max(red, blue) < beside_red


@pytest.mark.parametrize(
    ("size", "layout", "fits"),
    [
        (1920 * 1080 * 2, {"width": 1080, "height": 1080}, "1920 × 1080 uint16"),
        (1920 * 1080, {"width": 1920, "height": 1080}, "1920 × 1080 uint8"),
        (100 * 62, {"width": 100, "height": 60, "dtype": "uint8"}, "100 × 62 uint8"),
        (60 * 40 * 2 + 1, {}, "No usual size fits"),
        (0, {}, "No usual size fits"),
    ],
)
def test_a_wrong_size_is_told_with_what_would_fit(
    tmp_path: Path, size: int, layout: dict[str, object], fits: str
) -> None:
    path = tmp_path / "frame.raw"
    path.write_bytes(bytes(size))
    error = refusal(path, described(**{"adc_bits": 8, **layout}))
    assert error.reason == "layout"
    assert fits in error.detail


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), width=st.integers(2, 20), height=st.integers(2, 20), cfa=st.sampled_from(Cfa))
def test_headerless_values_come_back(tmp_path: Path, data: st.DataObject, width: int, height: int, cfa: Cfa) -> None:
    dtype, itemsize = data.draw(st.sampled_from([("uint8", 1), ("uint16", 2)]))
    bits = data.draw(st.integers(8, 8 * itemsize))
    shift = data.draw(st.integers(0, min(8, 8 * itemsize - bits)))
    layout = described(width=width, height=height, cfa=cfa.name, adc_bits=bits, dtype=dtype, shift=shift)
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=width * height, max_size=width * height))
    path = tmp_path / "frame.bin"
    path.write_bytes(b"".join((value << shift).to_bytes(itemsize, "little") for value in values))
    frame = read_raw(path, layout)
    rows = [values[row * width : (row + 1) * width][: width & ~1] for row in range(height & ~1)]
    assert frame.counts.tolist() == rows
    assert frame.sensor.cfa is cfa


def test_a_layout_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "one.raw"
    path.write_bytes(noise().tobytes())
    error = refusal(path)
    assert error.reason == "layout"
    for word in ("one.json", "layout.json", "adc_bits", "60 × 40 uint16"):
        assert word in error.detail

    folder_layout = tmp_path / "layout.json"
    folder_layout.write_text(described(cfa="GBRG").model_dump_json())
    assert read_raw(path).sensor.cfa is Cfa.GBRG
    (tmp_path / "one.json").write_text('{"width": 60, "height": 40, "cfa": "BGGR", "adc_bits": 12, "black": [1,2,3,4]}')
    assert read_raw(path).sensor.black == (1.0, 2.0, 3.0, 4.0)
    assert read_raw(path).sensor.cfa is Cfa.BGGR
    assert read_raw(path, described()).sensor.cfa is Cfa.RGGB


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"width": 60}',
        '{"width": 60, "height": 40, "cfa": "RGGB", "adc_bits": 12, "gain": 1}',
        '{"width": "60", "height": 40, "cfa": "RGGB", "adc_bits": 12}',
        '{"width": 60, "height": 40, "cfa": "XTRANS", "adc_bits": 12}',
        '{"width": 60, "height": 40, "cfa": "RGGB", "adc_bits": 12, "black": NaN}',
        '{"width": 60, "height": 40, "cfa": "RGGB", "adc_bits": 12, "black": 5000}',
        '{"width": 60, "height": 40, "cfa": "RGGB", "adc_bits": 12, "white": 4096}',
        '{"width": 60, "height": 40, "cfa": "RGGB", "adc_bits": 12, "dtype": "uint8"}',
        '{"width": 60, "height": 40, "cfa": "RGGB", "adc_bits": 12, "shift": 5}',
        '{"width": 60, "height": 9000, "cfa": "RGGB", "adc_bits": 12}',
        "[" * 10_000,
    ],
)
def test_a_layout_beside_the_file_is_read_strictly(tmp_path: Path, text: str) -> None:
    path = tmp_path / "one.raw"
    path.write_bytes(noise().tobytes())
    (tmp_path / "one.json").write_text(text)
    error = refusal(path)
    assert error.reason == "layout"
    assert "one.json" in error.detail


def test_a_layout_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "one.raw").touch()
    (tmp_path / "one.json").write_text(" " * (MAX_LAYOUT_BYTES + 1))
    with pytest.raises(FrameError, match=r"^size: .*one\.json"):
        read_raw(tmp_path / "one.raw")


def test_a_layout_in_code_is_checked_too() -> None:
    with pytest.raises(ValidationError, match="leaves 14 bits, not 16"):
        RawLayout(width=60, height=40, cfa="RGGB", adc_bits=16, shift=2)


def png(folder: Path, picture: Image.Image) -> Path:
    path = folder / "frame.png"
    picture.save(path)
    return path


def linear_png(folder: Path) -> Path:
    return png(folder, Image.fromarray(noise()))


@pytest.mark.parametrize("name", ["2014_000005", "2014_000009", "2014_000061", "2014_000163"])
def test_real_pascalraw_frames(tmp_path: Path, name: str) -> None:
    frame = read_raw(member(tmp_path, f"data_split/test/images/{name}.png", "pascalraw_sample"))
    assert frame.counts.shape == (400, 600)
    assert (frame.sensor.cfa, frame.sensor.adc_bits, frame.sensor.white) == (Cfa.RGGB, 12, 4095.0)
    assert 0.07 < frame.counts.mean() / 4095 < 0.17
    assert 3800 < frame.counts.max() < 4096


@pytest.mark.parametrize(("most", "bits"), [(300, 12), (4095, 12), (4096, 14), (16383, 14), (16384, 16), (65535, 16)])
def test_bits_of_a_png_without_a_layout(tmp_path: Path, most: int, bits: int) -> None:
    mosaic = noise(top=300)
    mosaic[3, 5] = most
    frame = read_raw(png(tmp_path, Image.fromarray(mosaic)))
    assert frame.counts.tolist() == mosaic.tolist()
    assert (frame.sensor.adc_bits, frame.sensor.white) == (bits, 2.0**bits - 1)


def test_an_eight_bit_png(tmp_path: Path) -> None:
    frame = read_raw(png(tmp_path, Image.fromarray(noise(top=256).astype(np.uint8))))
    assert frame.counts.tolist() == noise(top=256).tolist()
    assert (frame.sensor.adc_bits, frame.sensor.white) == (8, 255.0)


def test_a_png_with_a_layout(tmp_path: Path) -> None:
    path = linear_png(tmp_path)
    (tmp_path / "layout.json").write_text(described(cfa="GRBG", black=64, white=4000, shift=0).model_dump_json())
    frame = read_raw(path)
    assert (frame.sensor.cfa, frame.sensor.black, frame.sensor.white) == (Cfa.GRBG, (64.0,) * 4, 4000.0)
    assert frame.counts.tolist() == noise().tolist()
    assert read_raw(path, described(adc_bits=10, shift=2)).counts.tolist() == (noise() >> 2).tolist()
    for changed in ({"width": 62}, {"height": 38}, {"dtype": "uint8", "adc_bits": 8}, {"adc_bits": 10}):
        assert refusal(path, described(**changed)).reason == "layout"


def test_odd_sides_of_a_png_are_cut(tmp_path: Path) -> None:
    mosaic = noise(41, 59)
    assert read_raw(png(tmp_path, Image.fromarray(mosaic))).counts.tolist() == mosaic[:40, :58].tolist()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_a_picture_is_no_mosaic(tmp_path: Path, mode: str) -> None:
    error = refusal(png(tmp_path, Image.new("RGB", (60, 40)).convert(mode)))
    assert error.reason == "mosaic"
    assert "16-bit grey" in error.detail


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))


def test_a_huge_png_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    begin, end = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    for width, height in [(MAX_SIDE + 2, 40), (40, MAX_SIDE + 2), (2**31 - 1, 2**31 - 1), (1, 40), (0, 0)]:
        path.write_bytes(begin + header(width, height) + pixels + end)
        assert refusal(path).reason == "size"
    # What follows the first header may not enlarge the picture, even where the pixels are there.
    pixels = chunk(b"IDAT", zlib.compress(bytes(400 * (1 + 2 * 400))))
    for side in (400, 2**30):
        path.write_bytes(begin + header(60, 40) + header(side, side) + pixels + end)
        assert refusal(path).reason == "file"


def test_a_truncated_png_is_refused(tmp_path: Path) -> None:
    path = member(tmp_path, "data_split/test/images/2014_000005.png", "pascalraw_sample")
    data = path.read_bytes()
    for kept in (len(data) - 1, len(data) - 12, len(data) - 13, len(data) // 2, 40, 20):
        path.write_bytes(data[:kept])
        assert refusal(path).reason == "truncated"
    path.write_bytes(data[: len(data) // 2] + data[-12:])
    assert refusal(path).reason == "file"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0), change=st.integers(1, 255))
def test_a_changed_byte_of_a_png_is_noticed(tmp_path: Path, at: int, change: int) -> None:
    file = io.BytesIO()
    Image.fromarray(noise(4, 6)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[at % len(data)] ^= change
    path = tmp_path / "frame.png"
    path.write_bytes(data)
    refusal(path)


def test_a_file_that_is_not_png(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(b"GIF89a" + bytes(100))
    assert refusal(path).reason == "file"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "frame.raw"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert refusal(path, described()).reason == "size"


@pytest.mark.parametrize("name", ["absent.dng", "absent.png", "absent.raw", "folder.dng"])
def test_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.dng").mkdir()
    assert refusal(tmp_path / name).reason == "file"


def test_the_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.DNG", "a.png", "c.raw", "layout.json", "notes.txt", "d.jpeg"):
        (tmp_path / name).touch()
    (tmp_path / "folder.raw").mkdir()
    assert [path.name for path in raw_paths(tmp_path)] == ["a.png", "b.DNG", "c.raw"]
    assert {".dng", ".nef", ".arw", ".cr2", ".cr3", ".kdc", ".raf"} <= CAMERA_SUFFIXES
    with pytest.raises(FrameError, match="absent"):
        raw_paths(tmp_path / "absent")


@pytest.mark.parametrize(("name", "package"), [("frame.dng", "rawpy"), ("frame.png", "PIL")])
def test_a_missing_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    path = dng(tmp_path) if name == "frame.dng" else linear_png(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(GammawearError, match=r"pip install 'gammawear\[camera\]'"):
        read_raw(path)


def test_a_device_without_a_camera_loads_no_image_library() -> None:
    code = "import sys, device_emulator.camera.raw_files; print({'rawpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "set()\n"
