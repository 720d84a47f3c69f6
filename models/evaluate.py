"""Score a bundle on recordings, by the path that a device and a gateway take: counts, codes, network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models import datasets
from models.bandwidth import Bandwidth, bandwidth
from models.device_part import DevicePart
from models.resample import Segment
from models.scores import Scores, score
from models.tasks import Material, Task, load_material
from models.windows import SCORING_RULE, Windows, cut
from quantization.codec import Encoder
from quantization.errors import DatasetError
from quantization.imu import Codes
from quantization.sensor import Sensor

if TYPE_CHECKING:
    from models.bundle import Bundle, Prediction

PREDICT_BATCH = 512
PACKET_S = 1.0
"""What devices send by default."""


@dataclass(frozen=True, eq=False)
class Report:
    """What ``gammawear evaluate`` says.

    Args:
        bundle: ``name@version``.
        dataset: name of the data set.
        labels: activity names, in the order of the scores.
        subjects: who was scored.
        scores: over all their windows.
        per_subject: macro-F1 of each subject alone.
        unknown_share: of scored windows, answered ``unknown``.
        unknown_found: by activity that the bundle does not know: share answered ``unknown``, windows there were.
        bandwidth: of these subjects' recordings in packets of 1 s.
    """

    bundle: str
    dataset: str
    labels: tuple[str, ...]
    subjects: tuple[str, ...]
    scores: Scores
    per_subject: dict[str, float]
    unknown_share: float
    unknown_found: dict[str, tuple[float, int]]
    bandwidth: Bandwidth

    def to_dict(self) -> dict[str, Any]:
        """For scripts."""
        scores = self.scores
        pure = scores.macro_f1_pure
        return {
            "bundle": self.bundle,
            "dataset": self.dataset,
            "scoring_rule": SCORING_RULE,
            "macro_f1": scores.macro_f1,
            "accuracy": scores.accuracy,
            "macro_f1_pure": None if np.isnan(pure) else pure,
            "windows": scores.windows,
            "subjects": list(self.subjects),
            "per_subject_macro_f1": self.per_subject,
            "per_class_f1": {
                label: None if np.isnan(f1) else f1 for label, f1 in zip(self.labels, scores.f1.tolist(), strict=True)
            },
            "confusion": {"labels": list(self.labels), "rows_are_truth": scores.confusion.tolist()},
            "unknown_share": self.unknown_share,
            "payload_bits_per_sample": self.bandwidth.payload_bits,
            "all_in_bits_per_sample": self.bandwidth.all_in_bits,
            "unknown_found": {
                activity: {"share": share, "windows": windows}
                for activity, (share, windows) in self.unknown_found.items()
            },
        }

    def to_json(self) -> str:
        """One line."""
        return json.dumps(self.to_dict())


def predict_windows(bundle: Bundle, windows: Windows, sensor: Sensor) -> Prediction:
    """What a bundle says of ``[W, T, C]`` physical windows that ``sensor`` measures and quantizes."""
    from models.bundle import Prediction  # with torch, which those who only read material do without

    encoder = Encoder(bundle.codebook, sensor)
    count, length, channels = windows.values.shape
    codes = encoder.encode(sensor.to_counts(windows.values.reshape(-1, channels))).reshape(count, length, channels)
    parts = [bundle.predict(codes[at : at + PREDICT_BATCH]) for at in range(0, count, PREDICT_BATCH)]
    return Prediction(
        np.concatenate([part.probabilities for part in parts]), np.concatenate([part.evidence for part in parts])
    )


def evaluate(
    bundle: Bundle, material: Material, *, subjects: Sequence[str] | None = None, sensor: Sensor | None = None
) -> Report:
    """Score a bundle on every window of these subjects.

    Args:
        bundle: what to score.
        material: recordings at the bundle's rate, labelled with the bundle's labels.
        subjects: whom; None takes all that the material has.
        sensor: the part to emulate; None takes the one that the bundle was trained with.

    Raises:
        DatasetError: a subject is not there, or nothing is labelled.
    """
    chosen = list(subjects) if subjects is not None else material.subjects
    material.check_subjects(chosen)
    part = sensor or bundle.sensor
    windows = _cut(bundle, material.of(chosen))
    said = predict_windows(bundle, windows, part)
    labelled = windows.truth >= 0
    found: dict[str, tuple[float, int]] = {}
    for activity, segments in sorted(material.unknown.items()):
        theirs = [s for s in segments if s.subject in chosen and len(s.values) >= bundle.manifest.window]
        if theirs:
            evidence = predict_windows(bundle, _cut(bundle, theirs), part).evidence
            found[activity] = (float((evidence < bundle.manifest.unknown_below).mean()), len(evidence))
    return Report(
        bundle=bundle.reference,
        dataset=bundle.manifest.data.dataset,
        labels=bundle.labels,
        subjects=tuple(chosen),
        scores=score(windows, said.probabilities),
        per_subject={
            subject: score(windows.of([subject]), said.probabilities[windows.subject == subject]).macro_f1
            for subject in chosen
            if (windows.truth[windows.subject == subject] >= 0).any()
        },
        unknown_share=float((said.evidence[labelled] < bundle.manifest.unknown_below).mean()),
        unknown_found=found,
        bandwidth=bandwidth(_codes(bundle, material.of(chosen), part), bundle.codebook, PACKET_S),
    )


def _codes(bundle: Bundle, segments: Sequence[Segment], sensor: Sensor) -> Iterator[Codes]:
    encoder = Encoder(bundle.codebook, sensor)
    return (encoder.encode(sensor.to_counts(segment.values)) for segment in segments)


def material_for(bundle: DevicePart, path: Path) -> Material:
    """Read an archive or a folder as a bundle needs it, whatever data set it holds.

    One archive may hold several data sets, such as a watch's and a phone's: the one that the bundle was trained on has
    precedence.

    Raises:
        DatasetError: not a known layout, or other channels than the bundle's.
    """
    manifest = bundle.manifest
    dataset = datasets.detect(path, prefer=manifest.data.dataset)
    task = Task(
        dataset=dataset.name,
        bundle=manifest.name,
        rate_hz=manifest.rate_hz,
        window_s=manifest.window / manifest.rate_hz,
        stride_s=manifest.stride / manifest.rate_hz,
        acc_g=0.0,  # the bundle brings its own part
        gyro_dps=None,
        body_site=manifest.body_site,
        merged=manifest.data.merged_labels,
        split_by=manifest.data.split_by,
    )
    material = load_material(task, path, labels=bundle.labels)
    wanted = bundle.codebook.channels
    if material.channels == wanted:
        return material
    raise DatasetError(
        f"{path} has the channels {', '.join(material.channels)}; {bundle.reference} needs {', '.join(wanted)}"
    )


def own_task(body_site: str, rate_hz: float) -> Task:
    """The task of a user's own recordings: full scales that no wrist exceeds."""
    return Task(
        "own", "own", rate_hz=rate_hz, window_s=2.0, stride_s=1.0, acc_g=8.0, gyro_dps=2000.0, body_site=body_site
    )


def _cut(bundle: Bundle, segments: Sequence[Segment]) -> Windows:
    manifest = bundle.manifest
    return cut(segments, length=manifest.window, stride=manifest.stride, classes=len(manifest.labels))
