"""One's own pictures: COCO and YOLO give the same, damage is left out by name, nothing leaks from test to train."""

import io
import json
import math

import numpy as np
import pytest
from dataset_files import make_zip, write
from needed import need
from own_pictures import coco_files, coco_json, picture
from PIL import Image

from device_emulator.camera.raw_files import HEADERLESS_SUFFIXES, read_raw
from models.datasets.store import Store
from models.vision import own
from models.vision.annotations import MAX_NAMES, MAX_OBJECTS
from models.vision.own import looks_own, read_own
from models.vision.pictures import Picture
from models.vision.shots import Shots, view_of
from models.vision.tasks import CAMERA_SEED
from quantization.errors import DatasetError


def document(files):
    return json.loads(files["annotations.json"])


def with_document(files, changed):
    return files | {"annotations.json": json.dumps(changed).encode()}


def names_of(found, part):
    return [one.path for one in found.of(part)]


def as_yolo(files, *, labels="labels", width=40, height=30):
    """The same boxes as text files."""
    coco = document(files)
    out = {name: data for name, data in files.items() if name != "annotations.json"}
    out["classes.txt"] = "\n".join(one["name"] for one in coco["categories"]).encode()
    for image in coco["images"]:
        lines = []
        for one in coco["annotations"]:
            if one["image_id"] == image["id"]:
                x, y, w, h = one["bbox"]
                shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
                lines.append(" ".join([str(one["category_id"] - 1), *(f"{share:.8f}" for share in shares)]))
        out[f"{labels}/{image['file_name'].removesuffix('.png')}.txt"] = "\n".join(lines).encode()
    return out


@pytest.mark.parametrize("packed", [False, True])
def test_coco(tmp_path, packed):
    files = {f"mine/{name}": data for name, data in coco_files().items()}
    if packed:
        (tmp_path / "mine.zip").write_bytes(make_zip(files))
    found = read_own(tmp_path / "mine.zip" if packed else write(tmp_path, files))
    assert found.classes == ("cup", "plate")
    assert found.problems == ()
    assert sorted(one.path for one in found.pictures) == [f"mine/images/{n}.png" for n in range(10)]
    for one in found.pictures:
        assert one.view.labels.tolist() == [0, 1]
        assert one.view.boxes.tolist() == [[4, 5, 14, 25], [20, 3, 38, 28]]
        srgb = np.asarray(Image.open(io.BytesIO(files[one.path])))
        expected = view_of(Picture(one.digest, "", srgb, one.view.boxes, one.view.labels), CAMERA_SEED)
        assert np.array_equal(one.view.linear, expected.linear)
        assert np.array_equal(one.view.camera.gains, expected.camera.gains)


@pytest.mark.parametrize("labels", ["labels", "images"])
def test_yolo_is_the_same(tmp_path, labels):
    files = coco_files()
    coco = read_own(write(tmp_path / "coco", files))
    yolo = read_own(write(tmp_path / "yolo", as_yolo(files, labels=labels)))
    assert yolo.problems == ()
    assert yolo.classes == coco.classes
    for a, b in zip(coco.pictures, yolo.pictures, strict=True):
        assert (a.path, a.digest, a.part) == (b.path, b.digest, b.part)
        assert np.allclose(a.view.boxes, b.view.boxes, atol=1e-4)
        assert a.view.labels.tolist() == b.view.labels.tolist()


def test_both_in_one_folder(tmp_path):
    files = coco_files(4, folder="a/") | {f"b/{n}": d for n, d in as_yolo(coco_files(3)).items()}
    files |= {f"b/images/{n}.png": picture(100 + n) for n in range(3)}
    files["b/classes.txt"] = b"plate\nbowl\n"
    found = read_own(write(tmp_path, files))
    assert found.classes == ("cup", "plate", "bowl")
    labels = {one.path: one.view.labels.tolist() for one in found.pictures}
    assert labels["a/images/0.png"] == [0, 1]
    assert labels["b/images/0.png"] == [1, 2], "classes are matched by name"
    assert read_own(tmp_path, classes=["bowl", "cup"]).pictures[-1].view.labels.tolist() == [0]


def test_classes_are_chosen_and_ordered(tmp_path):
    folder = write(tmp_path, coco_files(5, names=("cup", "plate", "never")))
    assert read_own(folder).classes == ("cup", "plate"), "what no box is of is no class"
    found = read_own(folder, classes=["plate"])
    assert found.classes == ("plate",)
    assert all(one.view.boxes.tolist() == [[20, 3, 38, 28]] for one in found.pictures)
    assert {tuple(one.view.labels.tolist()) for one in found.pictures} == {(0,)}
    assert {tuple(p.view.labels.tolist()) for p in read_own(folder, classes=["plate", "cup"]).pictures} == {(1, 0)}
    for chosen in (["never"], ["cup", "fork"], ["cup", "cup"]):
        with pytest.raises(DatasetError, match="boxes are of cup, plate"):
            read_own(folder, classes=chosen)


def test_only_classes_that_are_used_count(tmp_path):
    """Label tools write the names that they know, of which two are drawn."""
    files = coco_files(5)
    unused = [{"id": n, "name": "<none>" if n == 3 else f"unused {n}"} for n in range(3, 5000)]
    coco = read_own(
        write(
            tmp_path / "coco",
            with_document(files, document(files) | {"categories": unused + document(files)["categories"]}),
        )
    )
    names = "\n".join(["cup", "plate", *(f"unused {n}" for n in range(1000))])
    yolo = read_own(write(tmp_path / "yolo", as_yolo(files) | {"classes.txt": names.encode()}))
    for found in (coco, yolo):
        assert found.classes == ("cup", "plate")
        assert found.problems == ()
        assert {tuple(one.view.labels.tolist()) for one in found.pictures} == {(0, 1)}


# -- split ------------------------------------------------------------------------------------------------------------


def test_a_fifth_is_drawn_by_content(tmp_path):
    files = coco_files(10)
    found = read_own(write(tmp_path / "a", files))
    assert (len(found.of("train")), len(found.of("test"))) == (8, 2)
    assert "fixed seed" in found.protocol
    renamed = {name.replace("images/", "images/z"): data for name, data in files.items()}
    changed = document(files)
    for image in changed["images"]:
        image["file_name"] = "z" + image["file_name"]
    other = read_own(write(tmp_path / "b", with_document(renamed, changed)))
    for part in ("train", "test"):
        assert {one.digest for one in other.of(part)} == {one.digest for one in found.of(part)}, "under any name"


def test_folders_split(tmp_path):
    files = coco_files(3, folder="train/")
    more = {name: data for name, data in coco_files(6, folder="test/").items() if not name.endswith(("0.png", "1.png"))}
    found = read_own(write(tmp_path, files | more))
    assert names_of(found, "test") == [f"test/images/{n}.png" for n in (2, 3, 4, 5)]
    assert names_of(found, "train") == ["train/images/0.png", "train/images/1.png"]
    assert found.protocol == "split by the folders train and test"
    assert any("train/images/2.png: the same picture as test/images/2.png" in line for line in found.problems), (
        "what tests does not train, too"
    )


def test_a_list_splits(tmp_path):
    files = coco_files(5) | {"split.json": json.dumps({"train": ["images/0.png", "3.png"], "test": ["1.png"]}).encode()}
    found = read_own(write(tmp_path, files))
    assert names_of(found, "train") == ["images/0.png", "images/3.png"]
    assert names_of(found, "test") == ["images/1.png"]
    assert found.protocol == "split by split.json"
    assert [line.partition("left out ")[2] for line in found.problems] == [
        f"images/{n}.png: neither in train nor in test" for n in (2, 4)
    ]


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ('{"train": ["images/0.png"], "test": ["images/0.png"]}', "in train and in test"),
        ('{"train": ["images/0.png"]}', "test: Field required"),
        ('{"train": ["images/0.png"], "test": [], "val": []}', "val"),
        ('{"train": "images/0.png", "test": []}', "train"),
        ("[" * 100_000, "split.json"),
        ("", "split.json"),
    ],
)
def test_lists_that_do_not_split(tmp_path, split, said):
    with pytest.raises(DatasetError, match=said):
        read_own(write(tmp_path, coco_files(3) | {"split.json": split.encode()}))


# -- what is left out, and said ---------------------------------------------------------------------------------------

UNREADABLE = {
    "nan": [math.nan, 1, 5, 5],
    "infinite": [math.inf, 1, 5, 5],
    "all infinite": [-math.inf, 1, math.inf, 5],
    "beyond float": [10**400, 1, 5, 5],
    "three": [5, 5, 3],
    "text": ["5", "5", "3", "3"],
    "yes": [True, True, True, True],
    "none": None,
    "object": {"left": 1},
    "nested": [[1, 2, 3, 4]],
}


@pytest.mark.parametrize(
    "change",
    [
        *({"bbox": box} for box in UNREADABLE.values()),
        {"category_id": 99}, {"category_id": None}, {"category_id": [1]}, {"category_id": math.nan}, {"iscrowd": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_picture_with_a_box_that_cannot_be_read_is_left_out(tmp_path, change):
    """Without the box it would teach that nothing is there, and test a right detection as a false one."""
    files = coco_files(5)
    changed = document(files)
    changed["annotations"].append({"image_id": 10, "category_id": 1, "bbox": [1, 1, 8, 8]} | change)
    found = read_own(write(tmp_path, with_document(files, changed)))
    assert [one.path for one in found.pictures] == [f"images/{n}.png" for n in range(1, 5)]
    assert len(found.problems) == 1
    assert "left out a picture" in found.problems[0]
    assert "images/0.png" in found.problems[0]
    assert "annotations[10]" in found.problems[0]


BOXES = {"no width": [5, 5, 0, 5], "negative": [5, 5, -3, 5], "outside": [100, 5, 3, 5], "shares": [0.1, 0.1, 0.3, 0.3]}


@pytest.mark.parametrize("name", BOXES)
def test_boxes_without_an_area(tmp_path, name):
    files = coco_files(5)
    changed = document(files)
    changed["annotations"].append({"image_id": 10, "category_id": 1, "bbox": BOXES[name]})
    found = read_own(write(tmp_path, with_document(files, changed)))
    assert len(found.problems) == 1
    assert "left out" in found.problems[0]
    assert found.pictures[0].view.boxes.tolist() == [[4, 5, 14, 25], [20, 3, 38, 28]]


@pytest.mark.parametrize("image", [9, "10", {}], ids=str)
def test_boxes_of_no_picture(tmp_path, image):
    files = coco_files(5)
    changed = document(files)
    changed["annotations"].append({"image_id": image, "category_id": 1, "bbox": [1, 1, 8, 8]})
    found = read_own(write(tmp_path, with_document(files, changed)))
    assert len(found.problems) == 1
    assert "left out annotations[10]" in found.problems[0]
    assert len(found.pictures[0].view.boxes) == 2


@pytest.mark.parametrize(
    "line",
    ["2 .5 .5 .1 .1", "-1 .5 .5 .1 .1", "0 .5 .5 .1", "0 nan .5 .1 .1", "cup .5 .5 .1 .1", "0 20 15 10 10",
     "0.0 1 1 1 1", "0 .5 .5 .1 .1 .9", "0 inf inf inf inf", "9" * 5000 + " .5 .5 .1 .1", "\0"],
)  # fmt: skip
def test_a_picture_with_a_yolo_line_that_cannot_be_read_is_left_out(tmp_path, line):
    files = as_yolo(coco_files(5))
    files["labels/0.txt"] += b"\n\n" + line.encode()
    found = read_own(write(tmp_path, files))
    assert [one.path for one in found.pictures] == [f"images/{n}.png" for n in range(1, 5)]
    assert len(found.problems) == 1, found.problems
    assert "left out a picture" in found.problems[0]
    assert "labels/0.txt:4" in found.problems[0]


def test_a_yolo_box_without_an_area(tmp_path):
    files = as_yolo(coco_files(5))
    files["labels/0.txt"] += b"\n0 .5 .5 0 .1"
    found = read_own(write(tmp_path, files))
    assert len(found.problems) == 1, found.problems
    assert "labels/0.txt: left out a box" in found.problems[0]
    assert len(found.pictures[0].view.boxes) == 2


def test_polygons_alone_are_said(tmp_path):
    """What a label tool writes for segmentation."""
    polygons = {f"labels/{n}.txt": b"0 .1 .1 .4 .1 .4 .4" for n in range(3)}
    with pytest.raises(DatasetError, match=r"none of 3 pictures has a box that can be read: .*0\.txt:1: '0 .1"):
        read_own(write(tmp_path, as_yolo(coco_files(3)) | polygons))


def rotated(orientation):
    image = Image.open(io.BytesIO(picture(50)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


PICTURES = {
    "empty": b"",
    "text": b"hello",
    "truncated": picture(99, kind="JPEG")[:-200],
    "another size": picture(99, 41, 32),
    "on its side": rotated(6),
    "the same again": picture(1),
    "RAW": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x28\0\0\0\x1e\x10\0\0\0\0",
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_cannot_be_used(tmp_path, name):
    folder = write(tmp_path, coco_files(6) | {"images/3.png": PICTURES[name]})
    found = read_own(folder)
    assert len(found.pictures) == 5
    assert len(found.problems) == 1
    assert "3.png" in found.problems[0]


def test_a_picture_that_says_it_is_huge(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (2**14, 2**10 + 1)).save(buffer, "PNG")
    found = read_own(write(tmp_path, coco_files(6) | {"images/3.png": buffer.getvalue()}))
    assert len(found.pictures) == 5
    assert "pixels are more than" in found.problems[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path, orientation):
    """Boxes are drawn on what label tools show; Pillow's own way is the reference."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(rotated(orientation))))
    size = (upright.width, upright.height)
    files = coco_files(2, size=None) | {"images/0.png": rotated(orientation)}
    found = read_own(write(tmp_path, with_document(files, coco_json([("0.png", [(0, (1, 1, 9, 9))])], size=size))))
    expected = Picture("a", "", np.asarray(upright), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert np.array_equal(found.pictures[0].view.linear, view_of(expected, 0).linear)


def test_pictures_that_are_not_there_or_not_labelled(tmp_path):
    files = coco_files(6) | {"images/other.jpg": picture(77, kind="JPEG")}
    del files["images/2.png"]
    found = read_own(write(tmp_path, files))
    assert len(found.pictures) == 5
    assert any("'2.png': there is no such picture" in line for line in found.problems)
    assert any("other.jpg: no boxes are given" in line for line in found.problems)


def test_a_picture_without_objects_is_one(tmp_path):
    found = read_own(write(tmp_path, as_yolo(coco_files(5)) | {"labels/0.txt": b""}))
    assert found.problems == ()
    assert found.pictures[0].view.boxes.shape == (0, 4)


# -- what is refused --------------------------------------------------------------------------------------------------


def changed_coco(**change):
    return coco_files(3) | {"annotations.json": json.dumps(document(coco_files(3)) | change).encode()}


def leads_to(name):
    return changed_coco(images=[{"id": 10, "file_name": name}])


REFUSED = {
    "not JSON": (coco_files(3) | {"annotations.json": b"\x89PNG"}, "annotations.json"),
    "empty": (coco_files(3) | {"annotations.json": b""}, "annotations.json"),
    "deep": (coco_files(3) | {"annotations.json": b'{"images":' + b"[" * 100_000}, "annotations.json"),
    "cut": (coco_files(3) | {"annotations.json": coco_files(3)["annotations.json"][:-9]}, "annotations.json"),
    "a list": (coco_files(3) | {"annotations.json": b"[]"}, "annotations.json"),
    "no images": (changed_coco(images=[]), "images"),
    "no categories": (changed_coco(categories=[]), "categories"),
    "no boxes": (changed_coco(annotations=[]), "none of 3 pictures has a box"),
    "an id twice": (changed_coco(images=[{"id": 1, "file_name": "0.png"}, {"id": 1, "file_name": "1.png"}]), "repeats"),
    "a picture twice": (
        changed_coco(images=[{"id": 1, "file_name": "0.png"}, {"id": 2, "file_name": "./0.png"}]), "twice",
    ),
    "NaN wide": (changed_coco(images=[{"id": 10, "file_name": "0.png", "width": math.nan, "height": 4}]), "width"),
    "up": (leads_to("../../secret.png"), "leads out"),
    "up later": (leads_to("images/../../secret.png"), "leads out"),
    "up in DOS": (leads_to("..\\secret.png"), "leads out"),
    "absolute": (leads_to("/etc/passwd"), "leads out"),
    "a drive": (leads_to("C:\\secret.png"), "leads out"),
    "a class of no name": (changed_coco(categories=[{"id": 1, "name": ""}]), "a class is called"),
    "a class of markup": (changed_coco(categories=[{"id": 1, "name": "<script>"}]), "a class is called"),
    "many classes": (
        changed_coco(
            categories=[{"id": n, "name": f"c{n}"} for n in range(MAX_NAMES + 1)],
            annotations=[{"image_id": 10, "category_id": n, "bbox": [1, 1, 8, 8]} for n in range(MAX_NAMES + 1)],
        ),
        "more than 1024 classes",
    ),
    "many names": (
        as_yolo(coco_files(3)) | {"classes.txt": "\n".join(f"c{n}" for n in range(MAX_NAMES + 1)).encode()},
        "more than 1024 classes",
    ),
    "an unused id twice": (changed_coco(categories=[{"id": n, "name": f"c{n}"} for n in (1, 2, 3, 3)]), "repeats"),
    "many boxes": (changed_coco(annotations=[{}] * (MAX_OBJECTS + 1)), "at most"),
    "no classes.txt": ({n: d for n, d in as_yolo(coco_files(3)).items() if n != "classes.txt"}, "0 files classes.txt"),
    "two classes.txt": (as_yolo(coco_files(3)) | {"labels/classes.txt": b"cup"}, "2 files classes.txt"),
    "an empty classes.txt": (as_yolo(coco_files(3)) | {"classes.txt": b"\n"}, "no name"),
    "bytes as boxes": (as_yolo(coco_files(3)) | {"labels/0.txt": b"\xff\xfe"}, r"labels/0\.txt: not text"),
    "boxes twice": (coco_files(3) | as_yolo(coco_files(3)), "keep one"),
    "a text of two": (as_yolo(coco_files(3)) | {"images/0.jpg": picture(5, kind="JPEG")}, "share"),
    "pictures alone": ({"a.jpg": picture(5, kind="JPEG")}, "1 pictures without boxes"),
    "no picture": ({n: d for n, d in coco_files(3).items() if n == "annotations.json"}, "without boxes"),
    "no sound picture": (coco_files(1) | {"images/0.png": b"x"}, "none of 1 pictures can be used"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    files, said = REFUSED[name]
    with pytest.raises(DatasetError, match=said):
        read_own(write(tmp_path / "mine", files))


def test_the_first_reason_is_that_of_a_picture_with_boxes(tmp_path):
    files = coco_files(1, size=(41, 32)) | {"images/another.png": picture(5)}
    with pytest.raises(DatasetError, match=r"none of 1 .* The first reason: .*: the boxes are of 41 × 32"):
        read_own(write(tmp_path, files))


def test_only_so_many_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(own, "MAX_PICTURES", 4)
    with pytest.raises(DatasetError, match="5 pictures; at most 4"):
        read_own(write(tmp_path, coco_files(5)))


def test_what_looks_own(tmp_path):
    for name, files, expected in (
        ("coco", coco_files(1), True), ("yolo", as_yolo(coco_files(1)), True), ("none", {"a.png": picture()}, False),
    ):  # fmt: skip
        with Store(write(tmp_path / name, files)) as store:
            assert looks_own(store) is expected


# -- RAW --------------------------------------------------------------------------------------------------------------


def test_the_light_of_raw_frames_is_taken(tmp_path):
    """The left half is twice as bright."""
    counts = np.zeros((60, 80), dtype="<u2")
    for (row, column), level in {(0, 0): 800, (0, 1): 1200, (1, 0): 1200, (1, 1): 400}.items():
        counts[row::2, column::2] = 95 + level
    counts[:, :40] += counts[:, :40] - 95
    layout = {"width": 80, "height": 60, "cfa": "RGGB", "adc_bits": 12, "black": 95, "white": 4095}
    files = {f"{n}.raw": (counts + n).astype("<u2").tobytes() for n in range(2)}
    files |= {
        "layout.json": json.dumps(layout).encode(),
        "classes.txt": b"cup",
        "0.txt": b"0 .25 .5 .5 1",
        "1.txt": b"",
    }
    folder = write(tmp_path, files)
    found = read_own(folder, read_raw=read_raw, raw_suffixes=HEADERLESS_SUFFIXES)
    view = found.pictures[0].view
    assert view.camera is None
    assert view.boxes.tolist() == [[0, 0, 40, 60]]
    assert view.linear[10, 60] == pytest.approx([0.2, 0.3, 0.1], abs=1e-3)
    assert view.linear[10, 10] == pytest.approx([0.4, 0.6, 0.2], abs=1e-3)
    assert Shots([view], gain=1.0, seed=0).plain(0).frame.counts.shape == (240, 320)
    with pytest.raises(DatasetError, match="without boxes"):
        read_own(folder)


@pytest.mark.parametrize("side", [2, 600, 4000])
def test_raw_frames_of_any_size_become_small_views(tmp_path, side):
    layout = {"width": side, "height": 2 * side, "cfa": "BGGR", "adc_bits": 8, "dtype": "uint8"}
    files = {"0.raw": bytes([100]) * (2 * side * side), "layout.json": json.dumps(layout).encode()}
    files |= {"classes.txt": b"cup", "0.txt": b"0 .5 .5 1 1"}
    view = read_own(write(tmp_path, files), read_raw=read_raw, raw_suffixes=HEADERLESS_SUFFIXES).pictures[0].view
    height, width = view.linear.shape[:2]
    assert height <= 360
    assert height == 2 * width
    assert view.linear == pytest.approx(100 / 255, abs=1e-3)
    assert view.boxes[0] == pytest.approx([0, 0, width, height], abs=0.01)


def test_damaged_raw_frames_are_left_out(tmp_path):
    files = {"0.dng": b"II*\0", "classes.txt": b"cup", "0.txt": b"0 .5 .5 1 1", "images/1.png": picture(1)}
    found = read_own(
        write(tmp_path, files | {"images/1.txt": b"0 .5 .5 1 1"}), read_raw=read_raw, raw_suffixes={".dng"}
    )
    assert [one.path for one in found.pictures] == ["images/1.png"]
    assert "0.dng" in found.problems[0]


def test_genuine_raw_frames_with_their_published_boxes(tmp_path, pictures_archive):
    import zipfile

    archive = pictures_archive("pascalraw_sample.zip")
    need(archive.exists(), str(archive))
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    (tmp_path / "classes.txt").write_text("car\nperson\nbicycle\n")
    found = read_own(tmp_path, read_raw=read_raw)
    assert found.problems == ()
    assert found.classes == ("car", "person", "bicycle")
    assert len(found.pictures) == 4
    by_name = {one.path[-8:-4]: one.view for one in found.pictures}
    assert [len(by_name[name].boxes) for name in ("0005", "0009", "0061", "0163")] == [1, 1, 8, 2]
    for view in by_name.values():
        assert view.camera is None
        assert view.linear.shape == (320, 480, 3)
        assert 0.02 < view.linear.mean() < 0.3
    # 600 × 400 photosites, in a view of 480 × 320.
    x, y, w, h = 0.210833, 0.55, 0.368333, 0.9
    expected = [(x - w / 2) * 480, (y - h / 2) * 320, (x + w / 2) * 480, (y + h / 2) * 320]
    assert by_name["0005"].boxes[0] == pytest.approx(expected, abs=0.1)
