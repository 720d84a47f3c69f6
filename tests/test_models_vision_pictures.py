"""Annotated pictures: the published sets are read whole, and what is damaged is refused by name."""

import io
import math
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dataset_files import make_zip, write
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.datasets.store import Entry
from models.vision.bccd import BCCD, MAX_ANNOTATION_BYTES
from models.vision.penn_fudan import PENN_FUDAN
from models.vision.pictures import checked_boxes, decoded_picture, read_picture
from models.vision.tasks import TASKS
from quantization.errors import DatasetError


def picture(kind: str, width: int = 12, height: int = 8) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def penn_txt(*boxes: tuple[int, int, int, int]) -> bytes:
    lines = ['Image filename : "PennFudanPed/PNGImages/FudanPed00001.png"', "Image size (X x Y x C) : 12 x 8 x 3"]
    for number, (left, top, right, bottom) in enumerate(boxes, 1):
        lines.append(f'Original label for object {number} "PASpersonWalking" : "PennFudanPed"')
        lines.append(
            f'Bounding box for object {number} "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : '
            f"({left}, {top}) - ({right}, {bottom})"
        )
    return "\r\n".join(lines).encode()


def bccd_xml(*objects: tuple[str, object, object, object, object]) -> bytes:
    sides = ("xmin", "ymin", "xmax", "ymax")
    items = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for name, *box in objects
    )
    return f"<annotation><filename>x.jpg</filename>{items}</annotation>".encode()


PENN_FILES = {
    "PennFudanPed/Annotation/FudanPed00001.txt": penn_txt((1, 1, 12, 8), (3, 2, 5, 4)),
    "PennFudanPed/PNGImages/FudanPed00001.png": picture("PNG"),
    "PennFudanPed/Annotation/PennPed00002.txt": penn_txt(),
    "PennFudanPed/PNGImages/PennPed00002.png": picture("PNG"),
    "PennFudanPed/PedMasks/FudanPed00001_mask.png": picture("PNG"),
}
BCCD_FILES = {
    "BCCD/Annotations/BloodImage_00001.xml": bccd_xml(("RBC", 1, 2, 6, 7), ("Platelets", 0, 0, 12, 8)),
    "BCCD/JPEGImages/BloodImage_00001.jpg": picture("JPEG"),
    "BCCD/Annotations/BloodImage_00007.xml": bccd_xml(("WBC", 1, 1, 4, 4)),
    "BCCD/JPEGImages/BloodImage_00007.jpg": picture("JPEG"),
    "BCCD/ImageSets/Main/train.txt": b"BloodImage_00007\n",
    "BCCD/ImageSets/Main/val.txt": b"BloodImage_00001\n",
    "BCCD/ImageSets/Main/trainval.txt": b"BloodImage_00001\nBloodImage_00007\n",
}
FIRST_XML = "BCCD/Annotations/BloodImage_00001.xml"


def test_penn_fudan_as_published(pictures_archive):
    found = PENN_FUDAN.load(pictures_archive("penn_fudan.zip"))
    assert len(found.pictures) == 170
    assert Counter(one.split for one in found.pictures) == {"fudan": 74, "penn": 96}
    assert sum(len(one.boxes) for one in found.pictures) == 423
    assert found.problems == ()
    first = found.pictures[0]
    assert first.name == "FudanPed00001"
    assert first.srgb.shape == (536, 559, 3)
    assert first.boxes.tolist() == [[159, 181, 302, 431], [419, 170, 535, 486]]
    for one in found.pictures:
        height, width = one.srgb.shape[:2]
        assert one.srgb.dtype == np.uint8
        assert one.boxes.dtype == np.float32
        assert one.labels.tolist() == [0] * len(one.boxes)
        assert (one.boxes[:, :2] >= 0).all()
        assert (one.boxes[:, 2:] <= [width, height]).all()
        assert (one.boxes[:, 2:] - one.boxes[:, :2] >= 1).all()
    for task, sizes in (("penn_fudan", (120, 50)), ("penn_fudan_campus", (96, 74))):
        train, test = TASKS[task].split(found)
        assert (len(train), len(test)) == sizes
        assert len({one.name for one in [*train, *test]}) == 170
    # Another split would be another benchmark.
    assert TASKS["penn_fudan"].split(found)[1] == TASKS["penn_fudan"].split(found)[1]


def test_bccd_as_published(pictures_archive):
    found = BCCD.load(pictures_archive("bccd.zip"))
    assert len(found.pictures) == 292
    assert {one.srgb.shape for one in found.pictures} == {(480, 640, 3)}
    assert len(found.problems) == 2
    assert all("without an area" in line for line in found.problems)
    assert ["BloodImage_00338" in found.problems[0], "BloodImage_00343" in found.problems[1]] == [True, True]
    labels = Counter(label for one in found.pictures for label in one.labels.tolist())
    assert [labels[found.classes.index(name)] for name in ("RBC", "WBC", "Platelets")] == [3348, 301, 292]
    train, test = TASKS["bccd"].split(found)
    assert (len(train), len(test)) == (205, 87)


@pytest.mark.parametrize("packed", [False, True])
def test_small_copies(tmp_path, packed):
    def place(files: dict[str, bytes], name: str) -> Path:
        if not packed:
            return write(tmp_path / name, files)
        (tmp_path / f"{name}.zip").write_bytes(make_zip(files))
        return tmp_path / f"{name}.zip"

    penn = PENN_FUDAN.load(place(PENN_FILES, "penn"))
    assert [(one.name, one.split) for one in penn.pictures] == [("FudanPed00001", "fudan"), ("PennPed00002", "penn")]
    assert penn.pictures[0].boxes.tolist() == [[0, 0, 12, 8], [2, 1, 5, 4]], "pixels count from 1, the last is inside"
    assert penn.pictures[1].boxes.shape == (0, 4)
    assert penn.pictures[1].labels.shape == (0,)
    exact = np.asarray(Image.open(io.BytesIO(picture("PNG"))))
    assert np.array_equal(penn.pictures[0].srgb, exact)

    bccd = BCCD.load(place(BCCD_FILES, "bccd"))
    assert [(one.name, one.split) for one in bccd.pictures] == [
        ("BloodImage_00001", "val"), ("BloodImage_00007", "train"),
    ]  # fmt: skip
    assert bccd.pictures[0].boxes.tolist() == [[1, 2, 6, 7], [0, 0, 12, 8]]
    assert [bccd.classes[label] for label in bccd.pictures[0].labels] == ["RBC", "Platelets"]
    assert [one.name for one in bccd.of("train")] == ["BloodImage_00007"]
    assert len(bccd.of("train", "val")) == 2


@pytest.mark.parametrize("source", [PENN_FUDAN, BCCD], ids=lambda source: source.name)
def test_something_else_is_refused_with_what_to_do(tmp_path, source):
    write(tmp_path, {"notes.txt": b"nothing"})
    with pytest.raises(DatasetError) as caught:
        source.load(tmp_path)
    assert "notes.txt" in str(caught.value)
    assert source.how_to in str(caught.value)


def header_of(kind: str, width: int, height: int) -> bytes:
    """A picture that says a size and has no pixels."""
    if kind == "JPEG":
        frame = struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
        return b"\xff\xd8\xff\xc0" + frame + b"\xff\xd9"
    chunks = b""
    for name, data in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b""))):
        chunks += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


def without_palette() -> bytes:
    buffer = io.BytesIO()
    Image.new("P", (12, 8)).save(buffer, "PNG", transparency=0)
    data = buffer.getvalue()
    start = data.index(b"PLTE") - 4
    return data[:start] + data[start + 12 + int.from_bytes(data[start : start + 4]) :]


DAMAGED = {
    "empty": b"",
    "text": b"not found",
    "another kind": picture("GIF"),
    "PNG without its end": picture("PNG")[:60],
    "PNG without pixels": picture("PNG")[:33],
    "PNG with a wrong sum": picture("PNG").replace(b"IHDR\x00\x00\x00\x0c", b"IHDR\x00\x00\x00\x0d"),
    "JPEG without its end": picture("JPEG", 64, 64)[:-400],
    "JPEG without pixels": picture("JPEG")[:100],
    "PNG without its palette": without_palette(),
    "PNG of no pixel": header_of("PNG", 0, 0),
    **{
        f"{kind} of {side} x {side}": header_of(kind, side, side)
        for kind in ("PNG", "JPEG")
        for side in (4100, 10_000, 14_000, 65_500)
    },
    "PNG of 2^31": header_of("PNG", 2**31 - 1, 2**31 - 1),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pictures_are_refused_by_name(tmp_path, name):
    write(tmp_path, PENN_FILES | {"PennFudanPed/PNGImages/PennPed00002.png": DAMAGED[name]})
    with pytest.raises(DatasetError, match=r"PennPed00002\.png"):
        PENN_FUDAN.load(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_sound_picture_that_is_too_large_is_refused(kind):
    buffer = io.BytesIO()
    Image.new("L", (2**14, 2**10 + 1)).save(buffer, kind)
    with pytest.raises(DatasetError, match="a: 16384 × 1025 pixels are more than 16777216"):
        read_picture(Entry("a", "a", lambda: io.BytesIO(buffer.getvalue())))


@given(st.sampled_from(["PNG", "JPEG"]), st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 10**6))
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_gives_a_picture_or_a_refusal(kind, at, value, length):
    data = bytearray(picture(kind))
    data[at % len(data)] = value
    cut = bytes(data[: 8 + length % len(data)])
    for content in (bytes(data), cut):
        try:
            srgb = read_picture(Entry("a", "a", lambda content=content: io.BytesIO(content)))
        except DatasetError:
            continue
        assert srgb.dtype == np.uint8
        assert srgb.ndim == 3
        assert srgb.shape[2] == 3


def with_exif(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a cup"
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_data_turns_a_picture_and_damaged_data_does_no_harm(kind):
    data = with_exif(kind)
    assert decoded_picture(data, "a").shape == (6, 4, 3)
    start = data.index(b"Exif" if kind == "JPEG" else b"eXIf") + (6 if kind == "JPEG" else 4)
    end = data.index(b"a cup") + 6
    for at in range(start, end):
        for value in (0, 1, 2, 4, 9, 127, 128, 255):
            changed = bytearray(data)
            changed[at] = value
            if kind == "PNG":  # with the right sum, or it would not be looked at
                changed[end : end + 4] = struct.pack(">I", zlib.crc32(changed[start - 4 : end]))
            try:
                srgb = decoded_picture(bytes(changed), "a")
            except DatasetError:
                continue
            assert srgb.shape in ((6, 4, 3), (4, 6, 3))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
def test_any_kind_of_pixels_becomes_red_green_blue(mode):
    buffer = io.BytesIO()
    Image.new("L", (5, 4), 255).convert(mode).save(buffer, "PNG")
    srgb = read_picture(Entry("a", "a", lambda: io.BytesIO(buffer.getvalue())))
    assert srgb.shape == (4, 5, 3)
    assert (srgb == srgb[0, 0, 0]).all()


@pytest.mark.parametrize(
    ("source", "files", "missing", "named"),
    [
        (PENN_FUDAN, PENN_FILES, "PennFudanPed/PNGImages/PennPed00002.png", "PNGImages/PennPed00002.png"),
        (BCCD, BCCD_FILES, "BCCD/JPEGImages/BloodImage_00007.jpg", "JPEGImages/BloodImage_00007.jpg"),
        (BCCD, BCCD_FILES, "BCCD/ImageSets/Main/val.txt", "ImageSets/Main"),
    ],
)
def test_missing_files_are_named(tmp_path, source, files, missing, named):
    write(tmp_path, {name: data for name, data in files.items() if name != missing})
    with pytest.raises(DatasetError, match=named):
        source.load(tmp_path)


ENTITY = '<!DOCTYPE a [<!ENTITY e "RBC">]><annotation><object><name>&e;</name></object></annotation>'
HOSTILE = {
    "entity": ENTITY.encode(),
    "entity in UTF-16": ENTITY.encode("utf-16"),
    "entity in UTF-16 without a mark": ENTITY.encode("utf-16-le"),
    "entity in UTF-7": ('<?xml version="1.0" encoding="utf-7"?>' + ENTITY.replace("<!", "+ADwAIQ-")).encode(),
    "entity of a file": b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><a><object><name>&e;</name></object></a>',
    "unknown entity": b"<annotation><object><name>&e;</name></object></annotation>",
    "half": bccd_xml(("RBC", 1, 1, 4, 4))[:-20],
    "empty": b"",
    "bytes": bytes(range(256)),
    "too long": bccd_xml() + b" " * MAX_ANNOTATION_BYTES,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_annotations_are_refused_by_name(tmp_path, name):
    write(tmp_path, BCCD_FILES | {FIRST_XML: HOSTILE[name]})
    with pytest.raises(DatasetError, match=r"BloodImage_00001\.xml"):
        BCCD.load(tmp_path)


def test_a_deep_annotation_is_no_trouble(tmp_path):
    deep = b"<a>" * 100_000 + b"</a>" * 100_000
    write(tmp_path, BCCD_FILES | {FIRST_XML: deep})
    assert len(BCCD.load(tmp_path).pictures[0].boxes) == 0


@pytest.mark.parametrize(
    "item",
    [
        ("Neutrophil", 1, 1, 4, 4),
        ("", 1, 1, 4, 4),
        ("RBC", "", 1, 4, 4),
        ("RBC", "one", 1, 4, 4),
        ("RBC", "nan", 1, 4, 4),
        ("RBC", 1, 1, "nan", 4),
        ("RBC", 5, 5, 5, 7),
        ("RBC", 6, 5, 3, 7),
        ("RBC", 20, 1, 30, 4),
        ("RBC", -9, 1, 0, 4),
    ],
)
def test_objects_that_make_no_sense_are_left_out_and_said(tmp_path, item):
    write(tmp_path, BCCD_FILES | {FIRST_XML: bccd_xml(item, ("WBC", 1, 2, 6, 7))})
    found = BCCD.load(tmp_path)
    assert found.pictures[0].boxes.tolist() == [[1, 2, 6, 7]]
    assert found.pictures[0].labels.tolist() == [1]
    assert len(found.problems) == 1
    assert "BloodImage_00001.xml" in found.problems[0]
    assert "left out" in found.problems[0]


def test_boxes_beyond_the_picture_are_cut_and_said():
    problems: list[str] = []
    sides = [(0, (-3.0, 2.0, 5.0, 90.0)), (1, (1.0, 1.0, 11.0, 7.0)), (2, (1.0, -math.inf, math.inf, 3.0))]
    boxes, labels = checked_boxes("p", sides, (8, 12), problems)
    assert boxes.tolist() == [[0, 2, 5, 8], [1, 1, 11, 7], [1, 0, 12, 3]]
    assert labels.tolist() == [0, 1, 2]
    assert ["cut" in line for line in problems] == [True, True]
    assert checked_boxes("p", [], (8, 12), problems)[0].shape == (0, 4)
