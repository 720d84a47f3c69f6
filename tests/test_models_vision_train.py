"""From views to a scored bundle that can be loaded."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.vision.bundle import load_detector
from models.vision.fit import DetectorSettings
from models.vision.shots import Shots, Variation, View, brightness
from models.vision.tasks import TEST_SEED
from models.vision.train import LEAST_THRESHOLD, LIGHTS, MOST_THRESHOLD, DetectorData, train_detector_bundle
from protocol.frame import coded_bits
from quantization.errors import BundleError, TrainingError

torch.set_num_threads(1)

SETTINGS = DetectorSettings(epochs=2, batch=2, seed=1)


def scene(seed: int) -> View:
    rng = np.random.default_rng(seed)
    linear = np.full((60, 80, 3), 0.2, dtype=np.float32)
    left, top = rng.integers(4, 50), rng.integers(4, 30)
    linear[top : top + 24, left : left + 20] = 0.9
    return View(f"v{seed}", linear, np.array([[left, top, left + 20, top + 24]], np.float32), np.array([0]), None)


DATA = DetectorData(
    dataset="made up",
    synthetic=True,
    licence="CC0",
    citation="nobody",
    protocol="two train, one tests",
    classes=("thing", "absent"),
    variation=Variation(zooms=(0.9, 1.1)),
    rate_weight=0.0,
    train=[scene(0), scene(1)],
    test=[scene(2)],
)


def train(out, report=lambda _epoch, _loss: None, *, data=DATA, **more):
    options = {"kind": "gamma", "bits": 3, "settings": SETTINGS, "name": "eye", "version": 2} | more
    return train_detector_bundle(data, **options, out=out, report=report)


def test_a_stopped_training_goes_on_to_the_same_bundle(tmp_path):
    def stop(epoch: int, _loss: float) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a", stop)
    assert [path.suffix for path in (tmp_path / "a").iterdir()] == [".safetensors"]
    epochs: list[int] = []
    folder, bundle = train(tmp_path / "a", lambda epoch, _: epochs.append(epoch))
    assert epochs == [2]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["eye@2"], "its checkpoint is done with"
    _, whole = train(tmp_path / "b")
    assert whole.manifest.model_sha256 == bundle.manifest.model_sha256
    assert whole.codebook == bundle.codebook

    stored = load_detector(folder).network.state_dict()
    assert all(torch.equal(stored[name], tensor) for name, tensor in bundle.network.state_dict().items()), (
        "what is scored is what is stored"
    )
    loaded = load_detector(folder).manifest
    assert loaded.model_dump_json() == bundle.manifest.model_dump_json()
    assert (loaded.reference, loaded.classes) == ("eye@2", ["thing", "absent"])
    assert LEAST_THRESHOLD <= loaded.threshold <= MOST_THRESHOLD
    assert (loaded.width, loaded.height) == (320, 240)
    assert (loaded.data.train_pictures, loaded.data.test_pictures, loaded.data.synthetic) == (2, 1, True)
    assert loaded.training.items() >= {"quantizer": "gamma", "bits": 3, "epochs": 2, "zooms": [0.9, 1.1]}.items()
    assert loaded.training["gain"] == pytest.approx(brightness(DATA.train))
    scores = loaded.scores
    assert scores.ap50_by_class["absent"] is None, "no test picture has one"
    assert scores.ap50_by_class["thing"] == pytest.approx(scores.ap50)
    assert [float(light) for light in scores.ap50_by_light] == list(LIGHTS)
    assert scores.ap50_by_light["1"] == scores.ap50
    tested = Shots(DATA.test, gain=loaded.training["gain"], seed=TEST_SEED)
    frame = tested.plain(0).frame
    codes = frame.quantized(bundle.codebook)
    assert scores.bits_per_photosite == coded_bits(codes, bundle.codebook)

    with pytest.raises(BundleError, match="exists"):
        train(tmp_path / "b")


def no_training(epoch: int, _loss: float) -> None:
    pytest.fail(f"epoch {epoch} was trained")


@pytest.mark.parametrize("name", ["Bad Name", "a/b", "Ünï", "", "../up", "n\0", "n" * 33])
def test_a_name_that_no_bundle_can_have_is_refused_before_training(tmp_path, name):
    with pytest.raises(TrainingError, match=r"no bundle can have the name .*: up to 32 of a-z 0-9 _ -.*--name"):
        train(tmp_path / "out", no_training, name=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test": [replace(scene(2), boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64))] * 2},
         "none of the 2 pictures that test has a box that can be seen"),
        ({"test": [replace(scene(2), boxes=np.array([[4, 4, 4.2, 4.2]], np.float32))]}, "none of the 1 pictures"),
        ({"test": []}, "data.test_pictures 0"),
        ({"classes": tuple(f"c{number}" for number in range(65))}, "the classes .*: List should have at most 64"),
    ],
    ids=["nothing to find", "nothing to see", "no picture", "many classes"],
)  # fmt: skip
def test_data_that_could_not_be_scored_or_saved_is_refused_before_training(tmp_path, change, said):
    with pytest.raises(TrainingError, match=said):
        train(tmp_path / "out", no_training, data=replace(DATA, **change))
    assert not list(tmp_path.iterdir())


def test_no_curve_makes_no_bundle(tmp_path):
    with pytest.raises(TrainingError, match="needs a quantizer"):
        train(tmp_path, kind="none")
    assert not list(tmp_path.iterdir())
