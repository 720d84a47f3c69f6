"""From views to a scored detector bundle."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.bundle_files import check_before_training, checkpoint_of
from models.vision.bundle import (
    DetectionScores,
    DetectorBundle,
    DetectorManifest,
    assemble,
    rounded,
    save_detector,
)
from models.vision.fit import DetectorSettings, JointDetector, detect, evaluate
from models.vision.precision import best_threshold
from models.vision.shots import HEIGHT, WIDTH, Shots, Variation, View
from models.vision.tasks import TEST_SEED, CurveKind, train_detector
from protocol.frame import coded_bits
from quantization.errors import BundleError, TrainingError
from quantization.gamma_image import PlaneQuantizer

LIGHTS: Final = (1.0, 0.25, 0.1)
"""Factors on the scene's light that every detector is tested in."""
LEAST_THRESHOLD: Final = 0.2
MOST_THRESHOLD: Final = 0.6
"""Scores below a threshold are left out when a bundle serves. It is that of the best F1 on plain shots of the training
pictures, within these bounds: a detector is surer of pictures that it knows."""
CODED_FRAMES: Final = 40
_THRESHOLD_FRAMES: Final = 200


@dataclass(frozen=True)
class DetectorData:
    """What to train a detector on.

    Args:
        dataset: its name.
        synthetic: the pictures were generated.
        licence: as published.
        citation: how its authors want to be cited.
        protocol: the split, in words.
        classes: names.
        variation: of the shots in training.
        rate_weight: λ that suits curves learned on it (:class:`models.vision.fit.DetectorSettings`).
        train: views.
        test: views that training never sees.
        train_files: digests of the files behind ``train``, where they are one's own.
        test_files: likewise.
    """

    dataset: str
    synthetic: bool
    licence: str
    citation: str
    protocol: str
    classes: tuple[str, ...]
    variation: Variation
    rate_weight: float
    train: list[View]
    test: list[View]
    train_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()


def train_detector_bundle(
    data: DetectorData,
    *,
    kind: CurveKind,
    bits: int,
    settings: DetectorSettings,
    name: str,
    version: int,
    out: Path,
    report: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> tuple[Path, DetectorBundle]:
    """Train, score and save; goes on from a checkpoint in ``out`` where there is one.

    Returns:
        The bundle's folder, and the bundle.

    Raises:
        TrainingError: the curve makes no codes, no bundle can be called so, nothing is to be found in the pictures that
            test, or training cannot start or go on.
        BundleError: that version exists already.
        OSError: ``out`` is no folder and cannot become one.
    """
    if kind == "none":
        raise TrainingError("a bundle needs a quantizer: none is for comparisons")
    _check(data, name, version)
    if (out / f"{name}@{version}").exists():
        raise BundleError(f"{out / f'{name}@{version}'} exists; a version is never overwritten, give the next number")
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint_of(out, name, version)
    model, gain = train_detector(
        data.train,
        len(data.classes),
        kind,
        bits,
        settings,
        variation=data.variation,
        checkpoint=checkpoint,
        report=report,
    )
    rounded(model.detector)
    quantizer = model.quantizer
    if not isinstance(quantizer, PlaneQuantizer):  # of the kinds, only "none" is not one
        raise TrainingError(f"{kind} makes no codes")
    shots = Shots(data.test, gain=gain, seed=TEST_SEED)
    threshold = _threshold(model, Shots(data.train[:_THRESHOLD_FRAMES], gain=gain, seed=TEST_SEED))
    manifest = {
        **_card(data, name, version),
        "threshold": threshold,
        "scores": _scores(model, quantizer, shots, data.classes),
        "training": {"quantizer": kind, "bits": bits, "gain": gain, **asdict(settings), **asdict(data.variation)},
    }
    bundle = assemble(manifest, codebook=quantizer.image_codebook(), network=model.detector)
    folder = save_detector(out, bundle)
    checkpoint.unlink(missing_ok=True)
    return folder, bundle


def _check(data: DetectorData, name: str, version: int) -> None:
    """Refuse before training what could not be saved or scored after it."""
    unscored = {
        "threshold": LEAST_THRESHOLD,
        "network": {},
        "scores": DetectionScores(ap=0.0, ap50=0.0, ap50_by_class={}, ap50_by_light={}),
        "training": {},
    }
    check_before_training(DetectorManifest, {**_card(data, name, version), **unscored})
    # As photographed: of a box that is too small nothing is left there.
    shots = Shots(data.test, gain=1.0, seed=TEST_SEED)
    if not any(len(shots.plain(index).boxes) for index in range(len(data.test))):
        raise TrainingError(
            f"none of the {len(data.test)} pictures that test has a box that can be seen, so nothing could be scored "
            f"({data.protocol}); let others test: split.json says which"
        )


def _card(data: DetectorData, name: str, version: int) -> dict[str, Any]:
    """What a manifest says of name and data."""
    return {
        "name": name,
        "version": version,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "classes": list(data.classes),
        "width": WIDTH,
        "height": HEIGHT,
        "data": {
            "dataset": data.dataset,
            "synthetic": data.synthetic,
            "licence": data.licence,
            "citation": data.citation,
            "protocol": data.protocol,
            "train_pictures": len(data.train),
            "test_pictures": len(data.test),
            "trained_on": sorted(data.train_files),
        },
    }


def _threshold(model: JointDetector, shots: Shots) -> float:
    taken = [shots.plain(index) for index in range(len(shots.views))]
    best = best_threshold([(shot.boxes, shot.labels) for shot in taken], detect(model, taken))
    return round(min(MOST_THRESHOLD, max(LEAST_THRESHOLD, best)), 2)


def _scores(model: JointDetector, quantizer: PlaneQuantizer, shots: Shots, classes: Sequence[str]) -> DetectionScores:
    by_light = {light: evaluate(model, shots, light) for light in LIGHTS}
    codebook = quantizer.image_codebook()
    frames = [shots.plain(index).frame for index in range(min(CODED_FRAMES, len(shots.views)))]
    bits = [coded_bits(frame.quantized(codebook), codebook) for frame in frames]
    plain = by_light[1.0]
    return DetectionScores(
        ap=plain.ap,
        ap50=plain.ap50,
        ap50_by_class={
            name: None if math.isnan(score) else score for name, score in zip(classes, plain.ap50_by_class, strict=True)
        },
        ap50_by_light={f"{light:g}": precision.ap50 for light, precision in by_light.items()},
        bits_per_photosite=float(np.mean(bits)),
    )
