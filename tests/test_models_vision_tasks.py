"""Tasks: every curve can be started, and a learned one starts at the light that it will see."""

import numpy as np
import pytest
import torch

from models.vision.detector import Detector
from models.vision.fit import DetectorSettings, JointDetector
from models.vision.pictures import Picture, PictureSet
from models.vision.shots import Shots, Variation, View, brightness
from models.vision.tasks import CURVES, TASKS, light_values, make_quantizer, train_detector, views
from quantization.errors import TrainingError
from quantization.gamma_image import (
    FixedPlanes,
    ImageQuantizer,
    PaperQuantizer,
    PlaneQuantizer,
    UnquantizedPlanes,
    linear_image,
    log_image,
)

torch.set_num_threads(1)


def scene(light: tuple[float, float, float] = (0.1, 0.2, 0.4), name: str = "v") -> View:
    linear = np.broadcast_to(np.array(light, dtype=np.float32), (24, 32, 3)).copy()
    linear[4:12, 6:20] *= 2
    return View(name, linear, np.array([[6, 4, 20, 12]], dtype=np.float32), np.array([0]), None)


def shots() -> Shots:
    return Shots([scene(), scene((0.2, 0.1, 0.1))], gain=1.0, seed=0, width=64, height=48)


def picture(name: str, split: str) -> Picture:
    srgb = np.full((20, 30, 3), 90, dtype=np.uint8)
    return Picture(name, split, srgb, np.array([[1, 2, 9, 9]], dtype=np.float32), np.array([0]))


def test_light_values_are_those_of_the_colours():
    values = light_values(shots())
    assert values.shape == (2 * 8 * 6, 3), "of every sixteenth cell its red, a green and its blue"
    assert np.median(values[: 8 * 6], axis=0) == pytest.approx([0.1, 0.2, 0.4], rel=0.15)
    assert np.median(values[8 * 6 :], axis=0) == pytest.approx([0.2, 0.1, 0.1], rel=0.15)


def test_light_values_of_dim_views_are_lifted():
    dim = Shots([scene((0.01, 0.02, 0.04))], gain=1.0, seed=0, width=64, height=48)
    mean = dim.plain(0).frame.mean_light
    assert 0.045 < mean * 2 <= 0.09
    assert np.median(light_values(dim), axis=0) == pytest.approx([0.02, 0.04, 0.08], rel=0.15)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_every_curve_can_be_started(bits):
    made = {kind: make_quantizer(kind, bits, shots()) for kind in CURVES}
    assert {kind: type(one) for kind, one in made.items()} == {
        "none": UnquantizedPlanes,
        "linear": FixedPlanes,
        "log": FixedPlanes,
        "gamma-paper": PaperQuantizer,
        "gamma": ImageQuantizer,
    }
    books = {kind: one.image_codebook() for kind, one in made.items() if isinstance(one, PlaneQuantizer)}
    assert {book.bits for book in books.values()} == {bits}
    assert books["linear"] == linear_image(bits)
    assert books["log"] == log_image(bits)
    fitted = ImageQuantizer.fitted(bits, light_values(shots()))
    assert books["gamma"] == fitted.image_codebook()


@pytest.mark.parametrize(
    ("task", "splits", "train", "test"),
    [("bccd", ("train", "val"), ["a"], ["b", "c"]), ("penn_fudan_campus", ("penn", "fudan"), ["a"], ["b", "c"])],
)
def test_views_follow_the_split(task, splits, train, test):
    pictures = tuple(picture(name, splits[name != "a"]) for name in "abc")
    first, second = views(TASKS[task], PictureSet("p", ("x",), pictures, ()))
    assert [one.name for one in first] == train
    assert [one.name for one in second] == test
    for left, right in (((), pictures), (pictures[:1], ())):
        with pytest.raises(TrainingError, match=task):
            views(TASKS[task], PictureSet("p", ("x",), (*left, *right[1:]), ()))


def test_training_starts_from_its_seed_and_goes_at_the_light_of_real_raw():
    some, settings = [scene(name=str(n)) for n in range(2)], DetectorSettings(epochs=2, batch=2, seed=7)
    seen: list[int] = []
    model, gain = train_detector(some, 2, "linear", 3, settings, report=lambda epoch, _: seen.append(epoch))
    assert isinstance(model, JointDetector)
    assert isinstance(model.detector, Detector)
    assert model.detector.config.classes == 2
    assert (seen, gain) == ([1, 2], brightness(some))
    again, _ = train_detector(some, 2, "linear", 3, settings)
    other, _ = train_detector(some, 2, "linear", 3, settings, variation=Variation(zooms=(0.5, 0.6)))
    weights, same, others = ([p.detach() for p in one.parameters()] for one in (model, again, other))
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))
