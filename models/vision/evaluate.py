"""Score a detector bundle on pictures, by the path of a camera and a gateway: counts, codes, network."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.vision.bundle import DetectorBundle
from models.vision.detector import Detections, decode
from models.vision.fit import EVALUATION_THRESHOLD
from models.vision.pictures import Boxes
from models.vision.precision import Precision, average_precision
from models.vision.shots import Shots, View, brightness
from models.vision.tasks import TEST_SEED
from models.vision.train import CODED_FRAMES, LIGHTS
from protocol.frame import coded_bits
from quantization.errors import DatasetError

MOST_LIGHT: Final = 4.0


@dataclass(frozen=True)
class LightScores:
    """Scores at one factor on the scene's light.

    Args:
        precision: in the order of the bundle's classes; NaN where the pictures have none.
        bits_per_photosite: of the frames' codes, entropy coded.
    """

    precision: Precision
    bits_per_photosite: float


@dataclass(frozen=True)
class DetectionReport:
    """What ``gammawear evaluate`` says of a detector.

    Args:
        bundle: ``name@version``.
        dataset: name of what was scored on.
        protocol: which of its pictures, in words.
        classes: of the bundle, in the order of the scores.
        pictures: so many.
        objects: boxes in them, by class.
        not_known: boxes of classes that the bundle does not know, by class; they are left out.
        by_light: scores by the factor on the scene's light.
    """

    bundle: str
    dataset: str
    protocol: str
    classes: tuple[str, ...]
    pictures: int
    objects: dict[str, int]
    not_known: dict[str, int]
    by_light: dict[float, LightScores]

    def to_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "bundle": self.bundle,
            "dataset": self.dataset,
            "protocol": self.protocol,
            "pictures": self.pictures,
            "objects": self.objects,
            "not_known": self.not_known,
            "by_light": {
                f"{light:g}": {
                    "ap": scores.precision.ap,
                    "ap50": scores.precision.ap50,
                    "ap50_by_class": {
                        name: None if math.isnan(ap50) else ap50
                        for name, ap50 in zip(self.classes, scores.precision.ap50_by_class, strict=True)
                    },
                    "bits_per_photosite": scores.bits_per_photosite,
                }
                for light, scores in self.by_light.items()
            },
        }

    def to_json(self) -> str:
        """One line."""
        return json.dumps(self.to_dict())


def evaluate_detector(
    bundle: DetectorBundle,
    views: Sequence[View],
    classes: Sequence[str],
    *,
    dataset: str,
    protocol: str,
    as_trained: bool,
    lights: Sequence[float] = LIGHTS,
) -> DetectionReport:
    """Score a bundle on plain shots of some views.

    Pictures of the data set that the bundle was trained on are exposed as in its training, others so that their mean
    light is that of real RAW.

    Args:
        bundle: what to score.
        views: what to photograph.
        classes: names of the views' labels; matched with the bundle's by name.
        dataset: for the report.
        protocol: likewise.
        as_trained: they are of the data set that the bundle was trained on.
        lights: factors on the scene's light.

    Raises:
        DatasetError: no picture, or none has a box of a class that the bundle knows.
    """
    known = bundle.manifest.classes
    if not set(known) & set(classes):
        raise DatasetError(
            f"{bundle.reference} finds {', '.join(known)}; boxes are of {', '.join(classes) or 'nothing'}: "
            "names must be the same"
        )
    matched = _matched(views, classes, known)
    none = DatasetError(f"none of {len(matched)} pictures has a box of {', '.join(known)} that can be seen")
    if not any(len(view.labels) for view in matched):
        raise none
    shots = Shots(
        matched,
        gain=_gain(bundle, matched, as_trained=as_trained),
        seed=TEST_SEED,
        width=bundle.manifest.width,
        height=bundle.manifest.height,
    )
    # As photographed: of a box that is too small nothing is left there.
    objects = _count((shots.plain(index).labels for index in range(len(matched))), len(known))
    if not sum(objects):
        raise none
    everything = _count((view.labels for view in views), len(classes))
    return DetectionReport(
        bundle=bundle.reference,
        dataset=dataset,
        protocol=protocol,
        classes=tuple(known),
        pictures=len(matched),
        objects=dict(zip(known, objects, strict=True)),
        not_known={name: n for name, n in zip(classes, everything, strict=True) if n and name not in known},
        by_light={light: _scores(bundle, shots, light) for light in lights},
    )


def parse_lights(text: str) -> list[float]:
    """``"1,0.25,0.1"`` to factors.

    Raises:
        DatasetError: something else.
    """
    try:
        lights = [float(part) for part in text.split(",")]
    except ValueError:
        lights = []
    if not lights or not all(0 < light <= MOST_LIGHT for light in lights) or len(set(lights)) != len(lights):
        raise DatasetError(f"lights are factors above 0, up to {MOST_LIGHT:g}, such as 1,0.25,0.1: not {text!r}")
    return lights


def _count(labels: Iterable[NDArray[np.int64]], classes: int) -> list[int]:
    """Boxes of each class."""
    return sum((np.bincount(one, minlength=classes) for one in labels), np.zeros(classes, int)).tolist()


def _matched(views: Sequence[View], classes: Sequence[str], known: Sequence[str]) -> list[View]:
    """The views with the bundle's labels, without the boxes that it does not know."""
    number = np.array([known.index(name) if name in known else -1 for name in classes], dtype=np.int64)
    matched = []
    for view in views:
        labels = number[view.labels]
        kept = labels >= 0
        matched.append(replace(view, boxes=view.boxes[kept], labels=labels[kept]))
    return matched


def _gain(bundle: DetectorBundle, views: Sequence[View], *, as_trained: bool) -> float:
    trained = bundle.manifest.training.get("gain")
    if as_trained and isinstance(trained, float) and trained > 0:
        return trained
    return brightness(views)


def _scores(bundle: DetectorBundle, shots: Shots, light: float) -> LightScores:
    truths: list[tuple[Boxes, np.ndarray[Any, np.dtype[np.int64]]]] = []
    found: list[Detections] = []
    bits = []
    for index in range(len(shots.views)):
        shot = shots.plain(index, light)
        frame = shot.frame
        codes = frame.quantized(bundle.codebook)
        size = (codes.shape[0], codes.shape[1])
        found += decode(bundle.maps(codes, frame.sensor.cfa), size, threshold=EVALUATION_THRESHOLD)
        truths.append((shot.boxes, shot.labels))
        if index < CODED_FRAMES:
            bits.append(coded_bits(codes, bundle.codebook))
    return LightScores(average_precision(truths, found, len(bundle.manifest.classes)), float(np.mean(bits)))
