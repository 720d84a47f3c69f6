"""Scoring a bundle: by the path of the devices, and as its manifest says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import codebook, tiny_bundle
from test_models_train import material, recordings, trained  # noqa: F401 - fixtures

from models.bundle import load_bundle
from models.evaluate import evaluate, material_for, predict_windows
from models.scores import score
from models.windows import SCORING_RULE, cut
from quantization.errors import DatasetError
from quantization.imu import ACC
from quantization.sensor import PARTS

torch.set_num_threads(1)


def test_evaluation_repeats_the_manifest(trained, recordings):  # noqa: F811
    bundle = load_bundle(trained[0])
    report = evaluate(bundle, material_for(bundle, recordings), subjects=bundle.manifest.data.test_subjects)
    scores = bundle.manifest.scores
    assert round(report.scores.macro_f1, 4) == scores.macro_f1
    assert round(report.scores.accuracy, 4) == scores.accuracy
    assert round(report.scores.macro_f1_pure, 4) == scores.macro_f1_pure
    assert round(report.unknown_share, 4) == scores.unknown_share
    assert report.scores.windows == scores.windows
    assert report.per_subject == {"p0": report.scores.macro_f1}


def test_the_report(trained, recordings):  # noqa: F811
    bundle = trained[1]
    report = evaluate(bundle, material_for(bundle, recordings))
    assert report.subjects == ("p0", "p1", "p2", "p3")
    assert set(report.per_subject) == set(report.subjects)
    shown = json.loads(report.to_json())
    assert shown == json.loads(json.dumps(report.to_dict()))
    assert shown["scoring_rule"] == SCORING_RULE
    assert shown["bundle"] == "mine@1"
    assert set(shown["per_class_f1"]) == {"hammer", "stir"}
    assert np.sum(shown["confusion"]["rows_are_truth"]) == shown["windows"] == report.scores.windows
    assert shown["unknown_found"] == {}


def test_it_goes_by_counts_and_codes(trained, material):  # noqa: F811
    """The path of a device, written out: physical, counts, codes, network."""
    bundle = trained[1]
    windows = cut(material.of(["p0"]), length=20, stride=2, classes=2)
    said = predict_windows(bundle, windows, bundle.sensor)
    one = windows.values[7]
    codes = bundle.codebook.encode_physical(bundle.sensor.to_physical(bundle.sensor.to_counts(one)))
    alone = bundle.predict(codes[None])
    assert np.allclose(alone.probabilities[0], said.probabilities[7], atol=1e-5)
    assert alone.evidence[0] == pytest.approx(said.evidence[7], abs=1e-4)
    assert score(windows, said.probabilities).macro_f1 == evaluate(bundle, material, subjects=["p0"]).scores.macro_f1


def test_another_part_makes_little_difference(trained, material):  # noqa: F811
    bundle = trained[1]
    fine = PARTS["lsm6dso"].sensor("lsm6dso", bundle.codebook.channels, acc_g=8.0, gyro_dps=2000.0)
    here, there = (evaluate(bundle, material, sensor=part).scores for part in (None, fine))
    assert there.windows == here.windows
    assert there.macro_f1 == pytest.approx(here.macro_f1, abs=0.05)


def test_activities_that_it_does_not_know(trained, material):  # noqa: F811
    """Each is reported by itself."""
    bundle = trained[1]
    strange = {
        "juggle": tuple(replace(s, label=np.full_like(s.label, -1)) for s in material.of(["p0"])),
        "short": tuple(replace(s, values=s.values[:5], label=s.label[:5]) for s in material.of(["p1"])),
    }
    report = evaluate(bundle, replace(material, unknown=strange))
    assert set(report.unknown_found) == {"juggle"}
    share, windows = report.unknown_found["juggle"]
    assert windows > 50
    assert 0 <= share <= 1
    assert json.loads(report.to_json())["unknown_found"]["juggle"] == {"share": share, "windows": windows}


def test_subjects_that_are_not_there(trained, material):  # noqa: F811
    with pytest.raises(DatasetError, match=r"p9.*p0, p1"):
        evaluate(trained[1], material, subjects=["p0", "p9"])


def test_recordings_with_other_channels(recordings, tmp_path):  # noqa: F811
    bundle = tiny_bundle(tmp_path, labels=("hammer", "stir"), book=codebook(ACC, rate_hz=20.0))
    with pytest.raises(DatasetError, match="gyro_x"):
        material_for(bundle, recordings)


def test_recordings_of_other_activities(recordings, tmp_path):  # noqa: F811
    with pytest.raises(DatasetError, match="labels"):
        material_for(tiny_bundle(tmp_path), recordings)
