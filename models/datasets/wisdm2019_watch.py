"""WISDM smartphone and smartwatch activity set (2019), the watch: 51 subjects, 18 activities, 20 Hz.

Layout: ``raw/watch/{accel,gyro}/data_16NN_{accel,gyro}_watch.txt``, one line a sample: ``subject,activity,t_ns,x,y,z;``
with m/s² including gravity, or rad/s. The LG G watch clips at ±2 g and ±2000 °/s.

Each activity was recorded by itself for about three minutes, and the clock (nanoseconds since some boot) may restart
in between. So one contiguous run of one activity is one recording; a clock that goes backwards within an activity
ends a recording, too. The published archive is a zip in a zip.

:data:`WATCH` reads the accelerometer alone. :data:`WATCH_SIX` adds the gyroscope: both sensors share a clock but not
their times, so the gyroscope is interpolated linearly at the accelerometer's times; samples without the gyroscope's on
both sides, at most 0.25 s apart and of the same activity, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import (
    RAD_S,
    Download,
    PublishedDataset,
    Recording,
    decode,
    nth_row,
    parse_table,
    to_float32,
)
from models.datasets.companions import CompanionDataset, at_times, companion
from models.datasets.store import Entry
from quantization.errors import DatasetError
from quantization.imu import ACC, ACC_GYRO, STANDARD_GRAVITY

NAME: Final = "wisdm2019_watch"
NAME_SIX: Final = "wisdm2019_watch_6axis"

ACTIVITIES: Final = {
    "A": "walking",
    "B": "jogging",
    "C": "stairs",
    "D": "sitting",
    "E": "standing",
    "F": "typing",
    "G": "brushing_teeth",
    "H": "eating_soup",
    "I": "eating_chips",
    "J": "eating_pasta",
    "K": "drinking",
    "L": "eating_sandwich",
    "M": "kicking",
    "O": "catch",
    "P": "dribbling",
    "Q": "writing",
    "R": "clapping",
    "S": "folding",
}
"""The archive's ``activity_key.txt`` (there is no N), its short names ("teeth", "soup") written out."""

LABELS: Final = tuple(ACTIVITIES.values())
_ROW: Final = np.dtype([("subject", "U8"), ("activity", "U4"), ("t_ns", "i8"), ("values", "f8", (3,))])


@dataclass(frozen=True)
class _Run:
    """One activity, recorded without a break.

    Args:
        label: index into :data:`LABELS`.
        t_ns: int64 ``[n]``, never decreasing.
        values: float64 ``[n, 3]`` as in the file, m/s² or rad/s.
    """

    label: int
    t_ns: NDArray[np.int64]
    values: NDArray[np.float64]


def _runs(entry: Entry, subject: str) -> list[_Run]:
    """One file in runs of one activity, in the file's order."""
    lines = decode(entry.read(), entry.where).replace(";", "").splitlines()
    table = parse_table(lines, _ROW, entry.where)

    activity = np.char.strip(table["activity"])
    label = np.full(len(table), -1, np.int16)
    for index, letter in enumerate(ACTIVITIES):
        label[activity == letter] = index
    if (label < 0).any():
        row = int(np.argmax(label < 0))
        where = f"{entry.where}:{nth_row(lines, row) + 1}"
        raise DatasetError(f"{where}: unknown activity {str(activity[row])!r}; known: {' '.join(ACTIVITIES)}")
    stranger = np.char.strip(table["subject"]) != subject
    if stranger.any():
        row = int(np.argmax(stranger))
        where = f"{entry.where}:{nth_row(lines, row) + 1}"
        raise DatasetError(f"{where}: a sample of subject {table['subject'][row]} in the file of {subject}")

    t_ns = table["t_ns"]
    cuts = np.flatnonzero((np.diff(label) != 0) | (np.diff(t_ns) < 0)) + 1
    return [
        _Run(int(label[start]), t_ns[start:stop], table["values"][start:stop])
        for start, stop in zip([0, *cuts], [*cuts, len(table)], strict=True)
    ]


def _recordings(
    dataset: str, subject: str, channels: tuple[str, ...], runs: Iterable[tuple[_Run, NDArray[np.float64]]]
) -> Iterator[Recording]:
    """Runs, each with its values ``[n, channels]`` in g and °/s, named by activity and count."""
    seen: dict[str, int] = {}
    for run, values in runs:
        name = f"{subject}_{LABELS[run.label]}"
        seen[name] = seen.get(name, 0) + 1
        yield Recording(
            dataset=dataset,
            subject=subject,
            name=name if seen[name] == 1 else f"{name}_{seen[name]}",
            channels=channels,
            labels=LABELS,
            t_s=(run.t_ns - run.t_ns[0]) / 1e9,
            values=to_float32(values),
            label=np.full(len(values), run.label, np.int16),
        )


def _parse(entry: Entry, match: re.Match[str]) -> Iterator[Recording]:
    subject = match["subject"]
    runs = ((run, run.values / STANDARD_GRAVITY) for run in _runs(entry, subject))
    yield from _recordings(NAME, subject, ACC, runs)


def _parse_six(entry: Entry, match: re.Match[str], others: Mapping[str, Entry]) -> Iterator[Recording]:
    subject = match["subject"]
    gyro = companion(others, f"data_{subject}_gyro_watch.txt", entry)
    rotations = _runs(gyro, subject)
    runs = [paired for run in _runs(entry, subject) if (paired := _with_gyro(run, rotations)) is not None]
    if not runs:
        raise DatasetError(f"{gyro.where}: no sample was taken at the time and in the activity of {entry.where}")
    yield from _recordings(NAME_SIX, subject, ACC_GYRO, runs)


def _with_gyro(run: _Run, rotations: list[_Run]) -> tuple[_Run, NDArray[np.float64]] | None:
    """The samples of a run that have the gyroscope's on both sides, with values ``[n, 6]`` in g and °/s."""
    rotation = np.zeros((len(run.t_ns), 3))
    both = np.zeros(len(run.t_ns), np.bool_)
    origin = run.t_ns[0]  # nanoseconds since a boot do not fit a float64's 53 bits after 104 days
    for other in rotations:
        if other.label == run.label:
            values, inside = at_times((run.t_ns - origin) / 1e9, (other.t_ns - origin) / 1e9, other.values)
            new = inside & ~both
            rotation[new] = values[new]
            both |= inside
    if not both.any():
        return None
    values = np.concatenate([run.values[both] / STANDARD_GRAVITY, rotation[both] * RAD_S], axis=1)
    return _Run(run.label, run.t_ns[both], run.values[both]), values


_COMMON: Final[dict[str, Any]] = {
    "licence": "CC-BY-4.0",
    "url": "https://doi.org/10.24432/C5HK59",
    "citation": (
        "Weiss, G. (2019). WISDM Smartphone and Smartwatch Activity and Biometrics Dataset. UCI Machine Learning "
        "Repository. https://doi.org/10.24432/C5HK59"
    ),
    "labels": LABELS,
    "rate_hz": 20.0,
    "files": (
        Download(
            "https://archive.ics.uci.edu/static/public/507/"
            "wisdm+smartphone+and+smartwatch+activity+and+biometrics+dataset.zip",
            "wisdm2019.zip",
        ),
    ),
    "how_to": "Download the zip of https://archive.ics.uci.edu/dataset/507 and give its path.",
    "layout": "raw/watch/accel/data_1600_accel_watch.txt",
    "pattern": re.compile(r"(?:^|/)data_(?P<subject>\d+)_accel_watch\.txt$"),
}

WATCH: Final = PublishedDataset(
    name=NAME,
    title="WISDM smartphone and smartwatch activity set, watch accelerometer",
    channels=ACC,
    parse=_parse,
    **_COMMON,
)

WATCH_SIX: Final = CompanionDataset(
    name=NAME_SIX,
    title="WISDM smartphone and smartwatch activity set, watch accelerometer and gyroscope",
    channels=ACC_GYRO,
    companions=re.compile(r"(?:^|/)data_(?P<subject>\d+)_gyro_watch\.txt$"),
    parse=_parse_six,
    **_COMMON,
)
