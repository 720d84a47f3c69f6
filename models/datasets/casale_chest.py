"""Casale et al. (2012), a single accelerometer on the chest: 15 subjects, 7 activities, 52 Hz.

Layout: ``Activity Recognition from Single Chest-Mounted Accelerometer/N.csv``, one file a subject, without header:
``counter,x,y,z,label`` with the counts of an uncalibrated 12-bit ADC and a label of 0 (none) to 7. y points up.

The counter is no time: from 100,000 on it was printed with five digits and stands still. Its last value says that no
row is missing, so row ``k`` was taken at ``k / 52`` seconds.

Counts become g by :data:`COUNTS_PER_G` and :data:`OFFSETS`, which ``benchmarks/casale_gravity.py`` fits to gravity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import Download, PublishedDataset, Recording, decode, nth_row, parse_table, to_float32
from models.datasets.store import Entry
from quantization.errors import DatasetError
from quantization.imu import ACC

NAME: Final = "casale_chest"
RATE_HZ: Final = 52.0
MAX_COUNT: Final = 4095

LABELS: Final = (
    "working_at_computer",
    "standing_up_walking_stairs",
    "standing",
    "walking",
    "stairs",
    "walking_talking",
    "standing_talking",
)
"""Labels 1 to 7 of the archive's README. The second one is a mixture of others."""

COUNTS_PER_G: Final = 369.1
"""One gain for all axes and subjects, fitted to |a| = 1 g where subjects keep still (benchmarks/casale_gravity.py)."""

OFFSETS: Final[Mapping[str, tuple[float, float, float]]] = {
    "1": (1959.2, 2021.4, 2015.0),
    "2": (1980.7, 2014.0, 2013.6),
    "3": (1948.8, 2015.5, 2012.1),
    "4": (1973.9, 2019.8, 2018.3),
    "5": (1922.5, 1986.9, 2012.8),
    "6": (1947.3, 1983.5, 2002.3),
    "7": (2049.6, 2042.7, 2024.7),
    "8": (2026.5, 2044.6, 2043.1),
    "9": (2072.3, 2172.2, 2048.4),
    "10": (2073.0, 2171.3, 2071.3),
    "11": (1959.3, 1985.1, 2022.1),
    "12": (1919.8, 1987.8, 2006.4),
}
"""Counts at 0 g by subject, fitted together with the gain. They differ by up to 190 counts (0.5 g): it was not one
and the same sensor that the subjects wore, or not in one state. Subjects 13 to 15 are in no copy that we have seen, so
they have no offsets and are not read."""

_ROW: Final = np.dtype([("counter", "f8"), ("counts", "i4", (3,)), ("label", "i4")])


def read_counts(entry: Entry) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """One subject's file as published: counts ``[n, 3]`` in 0..4095 and labels ``[n]`` in 0..7, 0 = unlabelled.

    Raises:
        DatasetError: a row is malformed or out of range; names the line.
    """
    lines = decode(entry.read(), entry.where).splitlines()
    table = parse_table(lines, _ROW, entry.where)
    counts, label = table["counts"], table["label"]
    for bad, what in (
        (((counts < 0) | (counts > MAX_COUNT)).any(axis=1), f"a count is outside 0..{MAX_COUNT}"),
        ((label < 0) | (label > len(LABELS)), f"the label is outside 0..{len(LABELS)}"),
    ):
        if bad.any():
            raise DatasetError(f"{entry.where}:{nth_row(lines, int(np.argmax(bad))) + 1}: {what}")
    return counts, label


def _parse(entry: Entry, match: re.Match[str]) -> Iterator[Recording]:
    subject = match["subject"]
    counts, label = read_counts(entry)
    yield Recording(
        dataset=NAME,
        subject=subject,
        name=subject,
        channels=ACC,
        labels=LABELS,
        t_s=np.arange(len(counts)) / RATE_HZ,
        values=to_float32((counts - np.array(OFFSETS[subject])) / COUNTS_PER_G),
        label=(label - 1).astype(np.int16),
    )


CHEST: Final = PublishedDataset(
    name=NAME,
    title="Activity recognition from a single chest-mounted accelerometer",
    licence="CC-BY-4.0",
    url="https://archive.ics.uci.edu/dataset/287",
    citation=(
        "Casale, P., Pujol, O., & Radeva, P. (2012). Personalization and user verification in wearable systems using "
        "biometric walking patterns. Personal and Ubiquitous Computing, 16(5), 563-580."
    ),
    channels=ACC,
    labels=LABELS,
    rate_hz=RATE_HZ,
    files=(
        Download(
            "https://archive.ics.uci.edu/static/public/287/"
            "activity+recognition+from+single+chest+mounted+accelerometer.zip",
            "casale_chest.zip",
        ),
    ),
    how_to="Download the zip of https://archive.ics.uci.edu/dataset/287 and give its path.",
    layout="Activity Recognition from Single Chest-Mounted Accelerometer/1.csv",
    # The folder belongs to it: a bare 1.csv may be anybody's.
    pattern=re.compile(
        rf"(?:^|/)Activity Recognition from Single Chest-Mounted Accelerometer/(?P<subject>{'|'.join(OFFSETS)})\.csv$"
    ),
    parse=_parse,
)
