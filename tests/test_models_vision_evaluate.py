"""Scoring a detector bundle: as its manifest says, by the path of a camera, class by class by name."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from camera_stack import untrained_detector
from test_models_vision_train import DATA, scene, train

from models.vision.evaluate import evaluate_detector, parse_lights
from models.vision.shots import Shots, View, brightness
from models.vision.tasks import TEST_SEED
from models.vision.train import LIGHTS
from protocol.frame import frame_chunks
from quantization.errors import DatasetError
from quantization.raw import lift_for

torch.set_num_threads(1)


def report_of(bundle, views, classes=DATA.classes, **more):
    return evaluate_detector(
        bundle, views, classes, **({"dataset": "made up", "protocol": "p", "as_trained": True, "lights": [1.0]} | more)
    )


def test_evaluation_repeats_the_manifest(tmp_path):
    bundle = train(tmp_path)[1]
    scores = bundle.manifest.scores
    report = report_of(bundle, DATA.test, lights=LIGHTS)
    plain = report.by_light[1.0]
    assert plain.precision.ap == pytest.approx(scores.ap, abs=1e-6)
    assert plain.bits_per_photosite == scores.bits_per_photosite
    assert {f"{k:g}": v.precision.ap50 for k, v in report.by_light.items()} == pytest.approx(scores.ap50_by_light)
    assert (report.pictures, report.objects, report.not_known) == (1, {"thing": 1, "absent": 0}, {})

    shown = json.loads(report.to_json())
    assert shown == report.to_dict()
    assert list(shown["by_light"]) == ["1", "0.25", "0.1"]
    assert shown["by_light"]["1"]["ap50_by_class"]["absent"] is None
    assert (shown["bundle"], shown["dataset"], shown["protocol"]) == ("eye@2", "made up", "p")


def test_it_goes_by_counts_and_codes():
    """The path of a camera and a gateway, written out: what it finds there, taken for the truth, is found."""
    bundle = untrained_detector(threshold=0.01)
    colours = np.tile(np.array([[0, 1], [1, 2]]), (120, 160)).ravel()  # RGGB
    views = [replace(scene(n), name=str(n)) for n in range(2)]
    shots = Shots(views, gain=brightness(views), seed=TEST_SEED)
    truths, bits = [], []
    for index, view in enumerate(views):
        frame = shots.plain(index, 0.5).frame
        light = frame.counts.reshape(-1, 1).repeat(3, 1) / frame.sensor.white
        codes = bundle.codebook.encode_physical(light * 2 ** lift_for(float(light.mean())))
        mosaic = codes[np.arange(len(codes)), colours].reshape(240, 320)
        found = bundle.detect(mosaic, frame.sensor.cfa)
        large = (found.boxes[:, 2:] - found.boxes[:, :2]).min(dim=1).values > 8
        assert large.any()
        boxes, labels = found.boxes[large][:9].numpy() / 4, found.labels[large][:9].numpy()
        truths.append(replace(view, boxes=boxes, labels=labels))
        chunks = frame_chunks(mosaic, bundle.codebook, cfa=frame.sensor.cfa, sequence=0, tick_ms=0)
        bits.append(8 * sum(len(chunk.payload) for chunk in chunks) / mosaic.size)
    classes = bundle.manifest.classes
    scores = report_of(bundle, truths, classes, as_trained=False, lights=[0.5, 0.02]).by_light
    there = {label for truth in truths for label in truth.labels.tolist()}
    recalled = [one for label, one in enumerate(scores[0.5].precision.ap50_by_class) if label in there]
    assert scores[0.5].bits_per_photosite == pytest.approx(np.mean(bits))
    assert min(recalled) > 0.6
    assert scores[0.02].precision.ap < scores[0.5].precision.ap, "of other codes another truth"


def test_classes_meet_by_name():
    bundle = untrained_detector()
    two = View("v", scene(0).linear, np.array([[4, 4, 30, 40], [30, 10, 60, 40]], np.float32), np.array([0, 1]), None)
    report = report_of(bundle, [two, two], ("bird", "car"))
    assert report.objects == {"person": 0, "car": 2, "parcel": 0}
    assert report.not_known == {"bird": 2}
    alone = replace(two, boxes=two.boxes[1:], labels=np.array([0]))
    assert report_of(bundle, [alone, alone], ("car",)).to_dict()["by_light"] == report.to_dict()["by_light"]
    with pytest.raises(DatasetError, match=r"person, car, parcel.*bird, Car"):
        report_of(bundle, [two], ("bird", "Car"))
    with pytest.raises(DatasetError, match="none of 1 pictures has a box of person"):
        report_of(bundle, [replace(two, boxes=two.boxes[:1], labels=np.array([0]))], ("bird", "car"))
    specks = replace(two, boxes=np.array([[4, 4, 4.2, 4.2]] * 2, np.float32))
    with pytest.raises(DatasetError, match=r"none of 1 pictures has a box of person.* that can be seen"):
        report_of(bundle, [specks], ("bird", "car"))
    with pytest.raises(DatasetError, match="none of 0 pictures"):
        report_of(bundle, [], ("car",))


def test_exposure_is_that_of_the_training_only_for_its_own_data(tmp_path):
    bundle = train(tmp_path)[1]
    bright = replace(DATA.test[0], linear=DATA.test[0].linear * 0.3)
    same, other = (report_of(bundle, [bright], as_trained=of_it).by_light[1.0] for of_it in (True, False))
    assert same.bits_per_photosite < other.bits_per_photosite, "dark pictures of the same set stay dark"
    like = report_of(bundle, [DATA.test[0]], as_trained=False).by_light[1.0]
    assert other.bits_per_photosite == pytest.approx(like.bits_per_photosite, rel=0.02)


@pytest.mark.parametrize(("text", "lights"), [("1", [1.0]), ("1,0.25, .1", [1.0, 0.25, 0.1]), ("4", [4.0])])
def test_lights(text, lights):
    assert parse_lights(text) == lights


@pytest.mark.parametrize("text", ["", "dusk", "0", "-1", "1,,2", "nan", "inf", "5", "1,1", "1;2"])
def test_lights_that_are_none(text):
    with pytest.raises(DatasetError, match=r"such as 1,0\.25,0\.1"):
        parse_lights(text)
