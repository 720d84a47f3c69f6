"""WISDM smartphone and smartwatch activity set (2019), watch accelerometer: 51 subjects, 18 activities, 20 Hz.

Layout: ``raw/watch/accel/data_16NN_accel_watch.txt``, one line a sample: ``subject,activity,t_ns,x,y,z;`` with m/s²
including gravity. The LG G watch clips at ±2 g.

Each activity was recorded by itself for about three minutes, and the clock (nanoseconds since some boot) may restart
in between. So one contiguous run of one activity is one recording; a clock that goes backwards within an activity
ends a recording, too. The published archive is a zip in a zip.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import numpy as np

from models.datasets.base import Download, PublishedDataset, Recording, decode, nth_row, parse_table, to_float32
from models.datasets.store import Entry
from quantization.errors import DatasetError
from quantization.imu import ACC, STANDARD_GRAVITY

NAME: Final = "wisdm2019_watch"

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


def _parse(entry: Entry, match: re.Match[str]) -> Iterator[Recording]:
    subject = match["subject"]
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
    values = to_float32(table["values"] / STANDARD_GRAVITY)
    cuts = np.flatnonzero((np.diff(label) != 0) | (np.diff(t_ns) < 0)) + 1
    seen: dict[str, int] = {}
    for start, stop in zip([0, *cuts], [*cuts, len(table)], strict=True):
        name = f"{subject}_{LABELS[label[start]]}"
        seen[name] = seen.get(name, 0) + 1
        yield Recording(
            dataset=NAME,
            subject=subject,
            name=name if seen[name] == 1 else f"{name}_{seen[name]}",
            channels=ACC,
            labels=LABELS,
            t_s=(t_ns[start:stop] - t_ns[start]) / 1e9,
            values=values[start:stop],
            label=label[start:stop],
        )


WATCH: Final = PublishedDataset(
    name=NAME,
    title="WISDM smartphone and smartwatch activity set, watch accelerometer",
    licence="CC-BY-4.0",
    url="https://doi.org/10.24432/C5HK59",
    citation=(
        "Weiss, G. (2019). WISDM Smartphone and Smartwatch Activity and Biometrics Dataset. UCI Machine Learning "
        "Repository. https://doi.org/10.24432/C5HK59"
    ),
    channels=ACC,
    labels=LABELS,
    rate_hz=20.0,
    files=(
        Download(
            "https://archive.ics.uci.edu/static/public/507/"
            "wisdm+smartphone+and+smartwatch+activity+and+biometrics+dataset.zip",
            "wisdm2019.zip",
        ),
    ),
    how_to="Download the zip of https://archive.ics.uci.edu/dataset/507 and give its path.",
    layout="raw/watch/accel/data_1600_accel_watch.txt",
    pattern=re.compile(r"(?:^|/)data_(?P<subject>\d+)_accel_watch\.txt$"),
    parse=_parse,
)
