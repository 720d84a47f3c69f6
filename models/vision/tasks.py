"""What detectors are trained for: a set of pictures, how it is split, for how long, and with which curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import torch

from models.vision.bccd import BCCD
from models.vision.detector import Detector, DetectorConfig
from models.vision.fit import DetectorFit, DetectorSettings, JointDetector
from models.vision.penn_fudan import PENN_FUDAN
from models.vision.pictures import Picture, PictureSet, PublishedPictures
from models.vision.shots import Shots, Variation, View, brightness, view_of
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
from quantization.imu import Floats
from quantization.raw import lift_for

CAMERA_SEED: Final = 0
"""Cameras of test pictures, and with :data:`TEST_SEED` their noise, are the same for every run."""
TEST_SEED: Final = 1000
_SHUFFLE: Final = 2024
"""Seed of the fixed split."""
_FIXED_TRAIN: Final = 120

PEOPLE_RATE_WEIGHT: Final = 0.03
"""λ of curves that are learned to find people. Of those tried on a fifth of Penn-Fudan's training pictures, kept apart,
the least that keeps frames to 1.6 bits a photosite. On BCCD's, scores fell with any: platelets are small and pale."""

MICROSCOPE: Final = Variation(zooms=(0.85, 1.4))
"""It has one magnification."""

Split = tuple[list[Picture], list[Picture]]
"""Training and test pictures."""

CurveKind = Literal["none", "linear", "log", "gamma-paper", "gamma"]
CURVES: Final[tuple[CurveKind, ...]] = get_args(CurveKind)
"""Quantizers of a detector; "none" is the ADC's 12 bits."""


@dataclass(frozen=True)
class DetectionTask:
    """A data set as it is trained on.

    Args:
        name: of the task.
        published: the data set.
        protocol: the split, in words.
        epochs: of training.
        variation: of the shots in training.
        rate_weight: of curves that learn (:class:`models.vision.fit.DetectorSettings`).
        split: gives training and test pictures.
    """

    name: str
    published: PublishedPictures
    protocol: str
    epochs: int
    variation: Variation
    rate_weight: float
    split: Callable[[PictureSet], Split] = field(repr=False)


def _fixed(pictures: PictureSet) -> Split:
    order = np.random.default_rng(_SHUFFLE).permutation(len(pictures.pictures)).tolist()
    shuffled = [pictures.pictures[index] for index in order]
    return shuffled[:_FIXED_TRAIN], shuffled[_FIXED_TRAIN:]


def _by_campus(pictures: PictureSet) -> Split:
    return pictures.of("penn"), pictures.of("fudan")


def _as_published(pictures: PictureSet) -> Split:
    return pictures.of("train"), pictures.of("val")


TASKS: Final = {
    task.name: task
    for task in (
        DetectionTask(
            "penn_fudan",
            PENN_FUDAN,
            "120 pictures train, the other 50 test",
            120,
            Variation(),
            PEOPLE_RATE_WEIGHT,
            _fixed,
        ),
        DetectionTask(
            "penn_fudan_campus",
            PENN_FUDAN,
            "Penn's 96 train, Fudan's 74 test",
            120,
            Variation(),
            PEOPLE_RATE_WEIGHT,
            _by_campus,
        ),
        DetectionTask("bccd", BCCD, "as published: 205 train, 87 (val) test", 60, MICROSCOPE, 0.0, _as_published),
    )
}


def views(task: DetectionTask, pictures: PictureSet) -> tuple[list[View], list[View]]:
    """Training and test views."""
    train, test = task.split(pictures)
    if not train or not test:
        raise TrainingError(f"{task.name}: {len(train)} pictures to train and {len(test)} to test with are too few")
    return [view_of(one, CAMERA_SEED) for one in train], [view_of(one, CAMERA_SEED) for one in test]


def light_values(shots: Shots) -> Floats:
    """``[n, 3]`` lifted light of red, green and blue, fractions of full scale: every sixteenth cell of plain shots."""
    columns = []
    for index in range(len(shots.views)):
        shot = shots.plain(index)
        red, green, _, blue = shot.planes[:, ::4, ::4] * 2.0 ** lift_for(shot.frame.mean_light)
        columns.append(np.stack([red.ravel(), green.ravel(), blue.ravel()], axis=1))
    return np.concatenate(columns)


def make_quantizer(kind: CurveKind, bits: int, shots: Shots) -> PlaneQuantizer | UnquantizedPlanes:
    """A quantizer to start from; "gamma" begins at the light of ``shots``."""
    match kind:
        case "none":
            return UnquantizedPlanes()
        case "linear":
            return FixedPlanes(linear_image(bits))
        case "log":
            return FixedPlanes(log_image(bits))
        case "gamma-paper":
            return PaperQuantizer(bits)
        case "gamma":
            return ImageQuantizer.fitted(bits, light_values(shots))


def train_detector(
    train: list[View],
    classes: int,
    kind: CurveKind,
    bits: int,
    settings: DetectorSettings,
    *,
    variation: Variation | None = None,
    lifted: bool = True,
    checkpoint: Path | None = None,
    report: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> tuple[JointDetector, float]:
    """Train one detector with its curve.

    Without ``lifted`` the curve sees dim light as it is, unlike that of our cameras.

    Returns:
        It, and the gain that brings its training set to the mean light of real RAW (:func:`brightness`).
    """
    gain = brightness(train)
    shots = Shots(train, gain=gain, seed=settings.seed, variation=variation)
    torch.manual_seed(settings.seed)
    model = JointDetector(make_quantizer(kind, bits, shots), Detector(DetectorConfig(classes)), lifted=lifted)
    return DetectorFit(model, shots, settings, checkpoint).run(report), gain
