"""Camera makers' files, read through LibRaw: published ones, and DNGs made here with whatever is wrong."""

from pathlib import Path

import numpy as np
import pytest
from camera_files import TEST_RAW, Tag, byte, described, dng, long, member, noise, ratio, refusal, short, tiff
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from device_emulator.camera.raw_files import read_raw
from quantization.raw import MAX_SIDE, Cfa

CODERS = "magick.net/tests/Magick.NET.Tests/Images/Coders"
DNG = "tinydngloader/colorchart.dng"
KDC = f"{CODERS}/RAW_KODAK_DC50.KDC"
STACK = f"{CODERS}/DSC8695.dng"
JPEG_NEF = "metadata-extractor-images/nef/Issue 247-1.nef"
LETTERS = {cfa: [0 if c == "R" else 1 if c == "G" else 2 for c in cfa.name] for cfa in Cfa}


def test_a_real_dng_is_cut_to_its_visible_area(tmp_path: Path) -> None:
    path = member(tmp_path, DNG)
    frame = read_raw(path)
    assert frame.counts.shape == (1156, 1734)
    assert frame.sensor.cfa is Cfa.RGGB
    assert frame.sensor.adc_bits == 14
    assert frame.sensor.black == (2056.0,) * 4
    assert frame.sensor.white == 15000.0
    assert frame.sensor.name == "colorchart.dng"
    assert frame.counts.mean() == pytest.approx(2634.04, abs=0.01)
    # The strip is packed 14-bit counts, high bits first; the visible area begins at row 26, column 152 of 1888.
    row = np.unpackbits(np.frombuffer(path.read_bytes()[1536:], np.uint8, 27 * 1888 * 14 // 8))
    counts = row.reshape(27, 1888, 14) @ (1 << np.arange(13, -1, -1))
    assert frame.counts[0].tolist() == counts[26, 152 : 152 + 1734].tolist()


def test_a_real_kdc_has_its_size_order_and_exposure(tmp_path: Path) -> None:
    frame = read_raw(member(tmp_path, KDC))
    assert frame.counts.shape == (512, 768)
    assert frame.sensor.cfa is Cfa.GRBG
    assert (frame.sensor.adc_bits, frame.sensor.black, frame.sensor.white) == (14, (0.0,) * 4, 16383.0)
    assert frame.exposure_us == 4350
    assert frame.counts.mean() == pytest.approx(2769.19, abs=0.01)


def test_a_stack_of_four_channels_is_no_mosaic(tmp_path: Path) -> None:
    error = refusal(member(tmp_path, STACK))
    assert error.reason == "mosaic"
    assert "2 × 2 Bayer" in error.detail


def test_a_jpeg_called_nef_is_told_as_one(tmp_path: Path) -> None:
    error = refusal(member(tmp_path, JPEG_NEF))
    assert error.reason == "file"
    assert "JPEG" in error.detail


@pytest.mark.parametrize("name", [DNG, KDC])
def test_a_truncated_camera_file_is_refused(tmp_path: Path, name: str) -> None:
    path = member(tmp_path, name)
    data = path.read_bytes()
    for kept in (len(data) - 1, len(data) - 5000, len(data) // 2, 2000, 100):
        path.write_bytes(data[:kept])
        assert refusal(path).reason in {"truncated", "file"}
    for kept in (len(data) - 1, len(data) // 2):
        path.write_bytes(data[:kept])
        assert refusal(path).reason == "truncated"
    path.write_bytes(b"")
    assert refusal(path).reason in {"truncated", "file"}


@pytest.mark.parametrize("missing", [1, 2, 100, 320 * 10, 320 * 120])
def test_a_decoder_that_reads_on_beyond_the_end_is_caught(tmp_path: Path, missing: int) -> None:
    """LibRaw's decoder of Sony's ARW 2 gives a truncated file's missing rows out of its buffer and says nothing."""
    data = np.random.default_rng(0).integers(0, 256, (240, 320), dtype=np.uint8)
    path = tmp_path / "frame.arw"
    whole = tiff(data, short(259, 32767), (271, 2, b"SONY\0"), (272, 2, b"DSLR-A350\0"), without=(50706, 50708))
    path.write_bytes(whole)
    assert read_raw(path).counts.shape == (240, 320)
    path.write_bytes(whole[:-missing])
    assert refusal(path).reason == "truncated"


def test_libraw_must_not_guess_by_length(tmp_path: Path) -> None:
    """LibRaw takes any 4 147 200 bytes for one particular phone's mosaic."""
    path = member(tmp_path, TEST_RAW).rename(tmp_path / "test.dng")
    error = refusal(path)
    assert error.reason == "file"
    assert "layout" in error.detail


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cfa=st.sampled_from(Cfa),
    top=st.integers(0, 5),
    left=st.integers(0, 5),
    bottom=st.integers(36, 40),
    right=st.integers(55, 60),
    black=st.tuples(*[st.integers(0, 300)] * 4),
)
def test_margins_keep_the_order_and_the_black_levels(
    tmp_path: Path, cfa: Cfa, top: int, left: int, bottom: int, right: int, black: tuple[int, int, int, int]
) -> None:
    """CFAPattern and BlackLevel begin at the active area's corner (DNG 1.4, ActiveArea), whatever the margins.

    LibRaw cuts one more where a margin is odd, and then has unequal black levels in the wrong places.
    """
    mosaic = noise()
    if top % 2 or left % 2:
        black = (black[0],) * 4
    path = dng(
        tmp_path,
        byte(33422, *LETTERS[cfa]),
        long(50829, top, left, bottom, right),
        short(50713, 2, 2),
        long(50714, *black),
        long(50717, 4000),
        mosaic=mosaic,
    )
    frame = read_raw(path)
    order = np.array(list(cfa.name)).reshape(2, 2)
    at_corner = Cfa["".join(np.roll(order, (-(top % 2), -(left % 2)), (0, 1)).ravel())]
    top, left = top + top % 2, left + left % 2
    height, width = (bottom - top) & ~1, (right - left) & ~1
    assert frame.counts.tolist() == mosaic[top : top + height, left : left + width].tolist()
    assert (frame.sensor.cfa, frame.sensor.black, frame.sensor.white) == (at_corner, black, 4000.0)
    assert frame.sensor.adc_bits == 12


@pytest.mark.parametrize(("white", "bits"), [(200, 8), (255, 8), (1023, 10), (1024, 11), (16383, 14), (65535, 16)])
def test_adc_bits_follow_the_white_level(tmp_path: Path, white: int, bits: int) -> None:
    frame = read_raw(dng(tmp_path, long(50717, white), mosaic=noise(top=65536)))
    assert frame.sensor.adc_bits == bits
    assert frame.sensor.white == white
    assert frame.counts.max() == min(noise(top=65536).max(), 2**bits - 1)


def test_exposure_time(tmp_path: Path) -> None:
    assert read_raw(dng(tmp_path, ratio(33434, 1, 250))).exposure_us == 4000
    assert read_raw(dng(tmp_path)).exposure_us == 0
    assert read_raw(dng(tmp_path, ratio(33434, 2**31, 1))).exposure_us == 0


XTRANS = bytes.fromhex("010001010201 020101000101 010201010001 010201010001 000101020101 010001010201")


@pytest.mark.parametrize(
    ("mosaic", "changed", "word"),
    [
        (np.zeros((40, 60, 3), np.uint16), [short(262, 34892)], "several values"),
        (noise(), [short(262, 34892)], "no colour filter"),
        (noise(), [short(33421, 6, 6), (33422, 1, XTRANS)], "6 × 6"),
        (noise(), [byte(33422, 0, 1, 2, 1)], "filter of RG"),
        (noise(), [byte(50710, 3, 4, 5, 6), byte(33422, 3, 4, 5, 6)], "filter"),
    ],
    ids=["linear", "monochrome", "x-trans", "another order", "CMYG"],
)
def test_what_is_no_bayer_mosaic_is_refused(
    tmp_path: Path, mosaic: NDArray[np.generic], changed: list[Tag], word: str
) -> None:
    error = refusal(dng(tmp_path, *changed, mosaic=mosaic))
    assert error.reason == "mosaic"
    assert word in error.detail
    assert "2 × 2 Bayer" in error.detail


def test_levels_that_cannot_be_are_refused(tmp_path: Path) -> None:
    assert refusal(dng(tmp_path, long(50714, 5000), long(50717, 4000))).reason == "field"


def test_a_camera_frame_too_large_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    error = refusal(dng(tmp_path, long(256, MAX_SIDE + 2), long(257, 40)))
    assert error.reason == "size"
    assert str(MAX_SIDE) in error.detail


def test_a_camera_file_takes_no_layout(tmp_path: Path) -> None:
    assert refusal(dng(tmp_path), described()).reason == "layout"
    (tmp_path / "layout.json").write_text("a folder's layout is for its other files")
    assert read_raw(dng(tmp_path)).counts.tolist() == noise().tolist()


def test_what_is_not_raw_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "frame.cr2"
    path.write_bytes(b"not a picture, but long enough to be looked at. " * 50)
    assert refusal(path).reason == "file"
