"""What is to be recognised, and how: a data set's rate, window, part and split, by which bundles are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from models.datasets import Recording, get
from models.resample import Segment, resample
from quantization.errors import DatasetError, TrainingError
from quantization.sensor import Sensor

SplitBy = Literal["subject", "recording"]


@dataclass(frozen=True)
class Task:
    """How one data set becomes windows.

    Args:
        dataset: its name in :data:`models.datasets.DATASETS`.
        bundle: what a bundle trained on it is called.
        rate_hz: what recordings are brought to.
        window_s: length of a window in seconds.
        stride_s: from one window to the next.
        acc_g: full scale of the part, ± g.
        gyro_dps: the same of its gyroscope, ± °/s; None where there is none.
        body_site: where it is worn.
        test: subjects that have no part in training, early stopping or calibration.
        validation: subjects for early stopping and for the ``unknown`` threshold.
        merged: label names that count as another one, such as four meals as "eating".
        excluded: labels that the bundle is not to know.
        background: of those, the ones that training shows the network as examples of what it does not know.
        split_by: "recording" where there is one wearer only: says how well *that* person is known.
        adc_bits: of the part, 8 to 16.
    """

    dataset: str
    bundle: str
    rate_hz: float
    window_s: float
    stride_s: float
    acc_g: float
    gyro_dps: float | None
    body_site: str
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    merged: Mapping[str, str] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    background: tuple[str, ...] = ()
    split_by: SplitBy = "subject"
    adc_bits: int = 12

    @property
    def window(self) -> int:
        """Samples of a window."""
        return round(self.window_s * self.rate_hz)

    @property
    def stride(self) -> int:
        """Samples from one window to the next."""
        return max(1, round(self.stride_s * self.rate_hz))

    def sensor(self, channels: tuple[str, ...]) -> Sensor:
        """The part that recordings are brought to."""
        full_scale = {"acc": self.acc_g} | ({} if self.gyro_dps is None else {"gyro": self.gyro_dps})
        name = f"generic{self.adc_bits} ±{self.acc_g:g} g"
        return Sensor.symmetric(name, channels, adc_bits=self.adc_bits, full_scale=full_scale)


TASKS: Final = {
    task.dataset: task
    for task in (
        # Bouts last 0.7 to 1.4 s: a longer window would blur them.
        Task(
            "sp_sw_har", "wrist6", rate_hz=50.0, window_s=1.0, stride_s=0.5, acc_g=8.0, gyro_dps=2000.0,
            body_site="wrist", test=("s04", "s09", "s14", "s18"), validation=("s03", "s08", "s13"),
        ),
        # The watch of this set clips at ±2 g. A wrist alone does not tell one meal from another. Three activities are
        # left out, so that the bundle can learn, and be tried on, what it does not know: two are shown to it as such,
        # "catch" it never sees.
        Task(
            "wisdm2019_watch", "wrist3", rate_hz=20.0, window_s=5.0, stride_s=2.5, acc_g=2.0, gyro_dps=None,
            body_site="wrist", test=("1600", "1605", "1610", "1615", "1620", "1625"),
            validation=("1602", "1608", "1614", "1621"),
            merged={f"eating_{meal}": "eating" for meal in ("soup", "chips", "pasta", "sandwich")},
            excluded=("kicking", "catch", "folding"), background=("kicking", "folding"),
        ),
        # The same with the gyroscope, which the LG G clips at ±2000 °/s.
        Task(
            "wisdm2019_watch_6axis", "wrist6w", rate_hz=20.0, window_s=5.0, stride_s=2.5, acc_g=2.0, gyro_dps=2000.0,
            body_site="wrist", test=("1600", "1605", "1610", "1615", "1620", "1625"),
            validation=("1602", "1608", "1614", "1621"),
            merged={f"eating_{meal}": "eating" for meal in ("soup", "chips", "pasta", "sandwich")},
            excluded=("kicking", "catch", "folding"), background=("kicking", "folding"),
        ),
        Task(
            "sp_sw_har_phone", "phone6", rate_hz=50.0, window_s=1.0, stride_s=0.5, acc_g=8.0, gyro_dps=2000.0,
            body_site="pocket", test=("s04", "s09", "s14", "s18"), validation=("s03", "s08", "s13"),
        ),
        # Label 2 of this set is a mixture of standing up, walking and stairs, which have labels of their own or none.
        # Whether its wearer talks, an accelerometer on the chest does not tell from one person to another.
        Task(
            "casale_chest", "chest3", rate_hz=52.0, window_s=2.0, stride_s=1.0, acc_g=4.0, gyro_dps=None,
            body_site="chest", test=("3", "8", "12"), validation=("5", "10"),
            excluded=("standing_up_walking_stairs",),
            merged={"walking_talking": "walking", "standing_talking": "standing"},
        ),
        # At 25 Hz, because most falls were sampled at another rate than the rest (models/datasets/weda_fall.py): only
        # U14's were not, so U14 tests.
        Task(
            "weda_fall", "weda", rate_hz=25.0, window_s=2.0, stride_s=1.0, acc_g=4.0, gyro_dps=2000.0,
            body_site="wrist", test=("U04", "U09", "U14", "U25", "U30"), validation=("U03", "U08", "U13", "U23", "U28"),
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Material:
    """Recordings brought to a task's rate, with the labels that are to be known."""

    labels: tuple[str, ...]
    channels: tuple[str, ...]
    segments: tuple[Segment, ...]
    unknown: Mapping[str, tuple[Segment, ...]]
    """By activity: segments that hold nothing else than one that is not to be known; their label is -1."""

    @property
    def subjects(self) -> list[str]:
        """Sorted."""
        return sorted({segment.subject for segment in self.segments})

    def check_subjects(self, subjects: Iterable[str]) -> None:
        """Raise :class:`DatasetError` if one of them is not there."""
        absent = sorted(set(subjects) - set(self.subjects))
        if absent:
            raise DatasetError(f"no subject {', '.join(absent)}; there are {', '.join(self.subjects)}")

    def of(self, subjects: Sequence[str]) -> list[Segment]:
        """The segments of these subjects."""
        return [segment for segment in self.segments if segment.subject in subjects]


def load_material(task: Task, path: Path, *, labels: tuple[str, ...] | None = None) -> Material:
    """Read, resample and relabel.

    Args:
        task: what to make of the data set.
        path: archive or folder.
        labels: the label names to know, in order; None takes the data set's own, merged, less the excluded ones.

    Raises:
        DatasetError: not that data set, or none of its recordings is usable.
    """
    recordings = list(get(task.dataset).recordings(path))
    if not recordings:
        raise DatasetError(f"{path}: no recordings")
    for other in recordings:
        if other.channels != recordings[0].channels:
            raise DatasetError(
                f"{path}: recordings must have the same channels: {recordings[0].name} has "
                f"{', '.join(recordings[0].channels)}; {other.name} has {', '.join(other.channels)}"
            )
    own = [task.merged.get(name, name) for name in recordings[0].labels if name not in task.excluded]
    names = labels or tuple(dict.fromkeys(own))
    if not names:
        raise DatasetError(f"{path}: no recording is labelled; training needs a column label (docs/data.md)")
    known: list[Segment] = []
    unknown: dict[str, list[Segment]] = {}
    for recording in recordings:
        relabelled = _relabel(recording, names, task.merged)
        strangers = {recording.labels[index] for index in np.unique(recording.label[recording.label >= 0])}
        segments = resample(relabelled, task.rate_hz)
        if len(strangers) == 1 and not (relabelled.label >= 0).any():
            unknown.setdefault(strangers.pop(), []).extend(segments)
        else:
            known.extend(segments)
    if not any((segment.label >= 0).any() for segment in known):
        raise DatasetError(f"{path}: no recording has any of the labels {', '.join(names)}")
    material = Material(names, recordings[0].channels, tuple(known), {n: tuple(s) for n, s in unknown.items()})
    return material if task.split_by == "subject" else _by_recording(material)


def _by_recording(material: Material) -> Material:
    """Every recording as a subject of its own."""

    def renamed(segments: Sequence[Segment]) -> tuple[Segment, ...]:
        return tuple(replace(s, subject=f"{s.subject}/{s.recording}") for s in segments)

    unknown = {name: renamed(segments) for name, segments in material.unknown.items()}
    return replace(material, segments=renamed(material.segments), unknown=unknown)


def _relabel(recording: Recording, names: tuple[str, ...], merged: Mapping[str, str]) -> Recording:
    """The recording with labels as indices into ``names``; others become -1."""
    own = [merged.get(name, name) for name in recording.labels]
    table = np.array([*(names.index(name) if name in names else -1 for name in own), -1], dtype=np.int16)
    return replace(recording, labels=names, label=table[recording.label])  # -1 looks up the last entry


def split(task: Task, subjects: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Subjects for training, validation and test.

    A task that names its own keeps them; otherwise every fifth subject tests and every fifth of the rest validates.

    Raises:
        TrainingError: fewer than three subjects.
    """
    if task.test:
        test = [s for s in subjects if s in task.test]
        validation = [s for s in subjects if s in task.validation]
    else:
        if len(subjects) < 3:
            more = (
                "Record more people, or use --split recording, which says how well the model knows those it has seen"
                if task.split_by == "subject"
                else "Record more"
            )
            raise TrainingError(
                f"training, validation and test need a {task.split_by} each; there are {len(subjects)}. {more}"
            )
        test = list(subjects[::5])
        rest = [s for s in subjects if s not in test]
        validation = rest[1::5] or rest[:1]
    train = [s for s in subjects if s not in test and s not in validation]
    for purpose, chosen in (("training", train), ("validation", validation), ("test", test)):
        if not chosen:
            raise TrainingError(f"no {task.split_by} is left for {purpose} among {', '.join(subjects)}")
    return train, validation, test
