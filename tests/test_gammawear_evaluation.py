"""``gammawear evaluate`` on detectors, and training on one's own pictures, as people run them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from camera_stack import save_untrained
from dataset_files import write
from factories import tiny_bundle
from own_pictures import bccd_as_coco, coco_files, coco_json, picture
from PIL import Image
from test_gammawear_cli import Run, run
from test_models_vision_own import as_yolo

from gammawear.learn import any_bundle
from gammawear.pictures import pictures_to_test
from models.bundle_files import DETECTOR
from models.vision.bundle import load_detector
from models.vision.own import read_own

__all__ = ["run"]

torch.set_num_threads(1)
Archive = Callable[[str], Path]


def test_a_shipped_detector_has_the_scores_of_its_manifest(run: Run, pictures_archive: Archive) -> None:
    archive = pictures_archive("bccd.zip")
    status, out, err = run("evaluate", "--bundle", "bccd@1", "--data", str(archive), "--light", "1", "--json")
    assert status == 0, err
    report = json.loads(out)
    manifest = load_detector("bccd@1").manifest
    assert (report["dataset"], report["protocol"]) == (manifest.data.dataset, manifest.data.protocol)
    assert report["pictures"] == manifest.data.test_pictures
    plain = report["by_light"]["1"]
    # Another processor may round one code or score in a thousand the other way.
    assert plain["ap"] == pytest.approx(manifest.scores.ap, abs=0.005)
    assert plain["ap50_by_class"] == pytest.approx(manifest.scores.ap50_by_class, abs=0.01)
    assert plain["bits_per_photosite"] == pytest.approx(manifest.scores.bits_per_photosite, abs=0.005)


def test_own_pictures_from_first_to_last(run: Run, pictures_archive: Archive, tmp_path: Path) -> None:
    folder = bccd_as_coco(pictures_archive("bccd.zip"), tmp_path / "smears", 20)
    document = json.loads((folder / "annotations.json").read_text())
    known = document["categories"][0]["id"]
    document["annotations"] += [{"image_id": 10, "category_id": known, "bbox": [1, 1, 0, 9]}] * 7
    (folder / "annotations.json").write_text(json.dumps(document))
    status, out, err = run("train", "detector", "--data", "smears", "--epochs", "2", "--name", "mine")
    assert status == 0, err
    assert "7 pictures or boxes were left out or cut; the first 5:" in err
    assert err.count("left out a box without an area") == 5
    assert "16 pictures train, 4 test: RBC, WBC, Platelets" in err
    manifest = load_detector(tmp_path / "runs" / "mine@1").manifest
    split = read_own(folder)
    assert manifest.data.trained_on == sorted(one.digest for one in split.of("train"))
    assert "drawn with a fixed seed" in manifest.data.protocol
    assert manifest.data.protocol in (tmp_path / "runs" / "mine@1" / "README.md").read_text()

    (tmp_path / "smears").rename(tmp_path / "moved")
    status, out, err = run("evaluate", "--bundle", "mine", "--data", "moved", "--json")
    assert status == 0, err
    report = json.loads(out)
    assert (report["pictures"], report["protocol"]) == (4, "4 pictures, without the 16 that trained the bundle")
    assert report["by_light"]["1"]["ap50"] == pytest.approx(manifest.scores.ap50, abs=1e-3)
    assert {k: v["ap50"] for k, v in report["by_light"].items()} == pytest.approx(
        manifest.scores.ap50_by_light, abs=1e-3
    )

    # What knows such pictures finds its way in the same folder.
    status, out, err = run("evaluate", "--bundle", "bccd@1", "--data", "moved", "--light", "1")
    assert status == 0, err
    assert "bccd@1 on 20 pictures" in out
    ap50 = re.search(r"^│ AP50 +│ +│ +(\d\.\d+)", out, re.MULTILINE)
    assert ap50, out
    assert float(ap50[1]) > 0.7

    (tmp_path / "only").mkdir()
    for one in split.of("train"):
        name = Path(one.path).name
        (tmp_path / "only" / name).write_bytes((tmp_path / "moved" / "images" / name).read_bytes())
    (tmp_path / "only" / "annotations.json").write_text(json.dumps(document))
    status, _, err = run("evaluate", "--bundle", "mine", "--data", "only")
    assert status == 1
    assert "all 16 pictures of only trained mine@1" in err


def test_only_some_classes_and_an_own_split(run: Run, tmp_path: Path) -> None:
    split = {"train": [f"{n}.png" for n in range(6)], "test": ["6.png", "7.png"]}
    write(tmp_path / "mine", coco_files(8) | {"images/split.json": json.dumps(split).encode()})
    status, _, err = run("train", "detector", "--data", "mine", "--classes", "plate", "--epochs", "1", "--batch", "2")
    assert status == 0, err
    manifest = load_detector(tmp_path / "runs" / "own@1").manifest
    assert manifest.classes == ["plate"]
    assert (manifest.data.train_pictures, manifest.data.test_pictures) == (6, 2)
    assert (manifest.data.protocol, manifest.data.licence) == ("split by split.json", "yours")
    status, out, err = run("evaluate", "--bundle", "own", "--data", "mine", "--light", "1")
    assert status == 0, err
    assert "boxes of classes that it does not know were left out: 2 cup" in out


def darker(png: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((np.asarray(Image.open(io.BytesIO(png))) * 0.4).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_other_pictures_are_exposed_for_themselves(run: Run, tmp_path: Path) -> None:
    """A folder is the one that trained a bundle if those pictures are in it; all folders are called own pictures."""
    files = coco_files(6)
    dark = {name: darker(data) if name.endswith(".png") else data for name, data in files.items()}
    write(tmp_path / "mine", files)
    write(tmp_path / "more", files | {f"dark/{name}": data for name, data in dark.items()})
    write(tmp_path / "dark", dark)
    status, _, err = run("train", "detector", "--data", "mine", "--epochs", "1", "--batch", "2")
    assert status == 0, err
    bundle = load_detector(tmp_path / "runs" / "own@1")
    of_training = {name: pictures_to_test(bundle, tmp_path / name)[1] for name in ("mine", "more", "dark")}
    assert of_training == {"mine": True, "more": True, "dark": False}


def test_of_both_kinds_the_highest_version_of_a_name_is_meant(tmp_path: Path) -> None:
    save_untrained(tmp_path)
    activities = tiny_bundle(tmp_path, version=2)
    assert any_bundle("tiny", tmp_path).reference == any_bundle("tiny@2", tmp_path).reference == activities.reference
    assert any_bundle("tiny@1", tmp_path).manifest.format == DETECTOR
    assert any_bundle(str(tmp_path / "tiny@1"), tmp_path).manifest.format == DETECTOR


def test_what_cannot_be_is_a_sentence(run: Run, tmp_path: Path) -> None:
    save_untrained(tmp_path / "runs")
    write(tmp_path / "mine", coco_files(6))
    write(tmp_path / "few", coco_files(1))
    write(tmp_path / "raw", {"a.dng": b"II*\0", "b.png": picture()})
    write(tmp_path / "unlabelled", {"a.dng": b"II*\0", "classes.txt": b"cup"})
    outside = coco_json([("../mine/images/0.png", [])])
    write(tmp_path / "outside", {"annotations.json": json.dumps(outside).encode()})
    empty = as_yolo(coco_files(6)) | {"labels/5.txt": b""}
    write(
        tmp_path / "empty",
        empty | {"split.json": b'{"train": ["images/0.png", "images/1.png"], "test": ["images/5.png"]}'},
    )
    names = [f"c{n}" for n in range(65)]
    every = [(f"{n}.png", [(label, (1, 1, 9, 9)) for label in range(65)]) for n in range(6)]
    write(tmp_path / "many", coco_files(6) | {"annotations.json": json.dumps(coco_json(every, names=names)).encode()})
    evaluate, train = ("evaluate", "--bundle", "tiny", "--data"), ("train", "detector", "--data")
    for arguments, words in (
        ((*evaluate, "mine"), "tiny@1 finds person, car, parcel; boxes are of cup, plate"),
        ((*evaluate, "raw"), "nor your own with annotations.json (COCO) or classes.txt (YOLO); found a.dng, b.png\n"),
        ((*evaluate, "unlabelled"), "1 pictures without boxes, in a.dng, classes.txt"),
        ((*evaluate, "absent.zip"), "absent.zip"),
        ((*evaluate, "outside"), "leads out of the folder"),
        ((*evaluate, "mine", "--light", "dusk"), "such as 1,0.25,0.1"),
        ((*evaluate, "mine", "--subjects", "test"), "tiny@1 is a detector"),
        ((*evaluate, "mine", "--picture", "a.png"), "tiny@1 is a detector"),
        (("evaluate", "--bundle", "wrist6", "--data", "mine", "--light", "1"), "wrist6@2 recognises activities"),
        ((*train, "few"), "few: 0 pictures to train and 1 to test are too few"),
        ((*train, "mine", "--classes", "fork"), "boxes are of cup, plate"),
        ((*train, "many"), "many: boxes are of 65 classes, and a detector knows at most 64: choose some"),
        ((*train, "mine", "--name", "a/b"), "no bundle can have the name 'a/b': up to 32 of a-z"),
        ((*train, "mine", "--batch", "2", "--out", "few/annotations.json"), "few/annotations.json: File exists"),
        ((*train, "mine", "--batch", "2", "--out", "/proc/absent"), "/proc/absent: No such file or directory"),
        ((*train, "empty", "--batch", "2"), "none of the 1 pictures that test has a box"),
        ((*train, "mine", "--task", "bccd"), "mine: not bccd"),
        ((*train, "mine", "--task", "scenes"), "leave --data out"),
        ((*train, "raw"), "found a.dng, b.png. If it is one of them after all, say which with --task"),
        (("train", "detector", "--task", "own"), "--data"),
        (("train", "detector", "--classes", "cup"), "scenes has its own"),
    ):
        status, out, err = run(*arguments)
        assert (status, out) == (1, ""), (arguments, err)
        assert words in err.splitlines(keepends=True)[-1], arguments
