"""WEDA-FALL (Marques & Moreno, 2023), a watch: 14 young subjects fall and do daily activities, 11 old ones do some.

Layout: ``dataset/50Hz/{D01..D11,F01..F08}/UXX_RXX_{accel,gyro}.csv`` with the headers
``accel_time_list,accel_x_list,…`` and ``gyro_time_list,gyro_x_list,…``; seconds, m/s² with gravity, rad/s, values
rounded to 0.1. ``dataset/fall_timestamps.csv`` says when each fall began and ended; a fall recording is unlabelled
before and after. The derived ``orientation`` and ``vertical_accel`` are not read.

**Times.** They are those of delivery: the watch hands over four or five samples every 0.1 s, milliseconds apart, so
that their steps are not those of sampling. A straight line through them fits within 0.15 s in 98 % of the files.
Sample ``k`` of either sensor is therefore taken to be ``k`` periods of that line after the first one, and the gyroscope
is interpolated linearly at the accelerometer's times. Where a clock runs backwards or stands still for more than
0.25 s, samples may be missing: the recording ends there.

**Rates.** The falls of subjects 1 to 13 were sampled at 39.5 Hz, everything else, subject 14's falls included, at
49.4 Hz. A network that sees content near 20 Hz can tell falls by the rate. Use it at 25 Hz, which filters both alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import RAD_S, UNLABELLED, Recording, decode, parse_table, to_float32
from models.datasets.companions import MAX_GAP_S, CompanionDataset, at_times, companion
from models.datasets.store import Entry
from quantization.errors import DatasetError
from quantization.imu import ACC_GYRO, STANDARD_GRAVITY

NAME: Final = "weda_fall"
FALL: Final = "fall"

ACTIVITIES: Final = {
    "D01": "walking",
    "D02": "jogging",
    "D03": "stairs",
    "D04": "sitting_down_and_up",
    "D05": "collapsing_into_chair",
    "D06": "tying_shoes",
    "D07": "stumbling",
    "D08": "jumping",
    "D09": "hitting_table",
    "D10": "clapping",
    "D11": "opening_door",
}
"""Table 2 of the data set's README in short."""

LABELS: Final = (*ACTIVITIES.values(), FALL)

MIN_SAMPLES: Final = 80
"""Two seconds at the slower rate: with fewer, bursts of 0.1 s leave the slope of a clock uncertain by more than 1 %."""

_FALL_TIMES: Final = "fall_timestamps.csv"
_FALL_HEADER: Final = "filename,start_time,end_time"
_FALL_ROW: Final = np.dtype([("recording", "U24"), ("start", "f8"), ("end", "f8")])
_ROW: Final = np.dtype([("t", "f8"), ("values", "f8", (3,))])


def _lines(entry: Entry, header: str) -> list[str]:
    """Lines below the header."""
    lines = decode(entry.read(), entry.where).splitlines()
    if not lines or lines[0].strip() != header:
        seen = lines[0][:120] if lines else ""
        raise DatasetError(f"{entry.where}:1: expected the header {header!r}, found {seen!r}")
    return lines[1:]


def _sensor(entry: Entry, kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Evenly spaced times ``[n]`` in seconds and values ``[n, 3]``; both empty if the clock fails too early."""
    header = ",".join(f"{kind}_{column}_list" for column in ("time", "x", "y", "z"))
    table = parse_table(_lines(entry, header), _ROW, entry.where, first_line=2)
    steps = np.diff(table["t"])
    broken = (steps < 0) | (steps > MAX_GAP_S)
    n = int(np.argmax(broken)) + 1 if broken.any() else len(table)
    if n < MIN_SAMPLES:
        return np.empty(0), np.empty((0, 3))
    period = float(np.polyfit(np.arange(n), table["t"][:n], 1)[0])
    return np.arange(n, dtype=np.float64) * period, table["values"][:n]


def _fall(entry: Entry, recording: str) -> tuple[float, float]:
    """Seconds from the recording's first sample at which the fall begins and ends."""
    table = parse_table(_lines(entry, _FALL_HEADER), _FALL_ROW, entry.where, first_line=2)
    found = table[table["recording"] == recording]
    if len(found) != 1:
        raise DatasetError(f"{entry.where}: {len(found)} rows for {recording}, expected 1")
    return float(found["start"][0]), float(found["end"][0])


def _parse(entry: Entry, match: re.Match[str], others: Mapping[str, Entry]) -> Iterator[Recording]:
    activity, name = match["activity"], f"{match['activity']}/{match['subject']}_{match['trial']}"
    t_s, acceleration = _sensor(entry, "accel")
    gyro_s, rotation = _sensor(companion(others, f"50Hz/{name}_gyro.csv", entry), "gyro")
    if not len(t_s) or not len(gyro_s):
        return
    rotation, both = at_times(t_s, gyro_s, rotation)
    t_s = t_s[both]
    if activity in ACTIVITIES:
        label = np.full(len(t_s), LABELS.index(ACTIVITIES[activity]), np.int16)
    else:
        start, end = _fall(companion(others, _FALL_TIMES, entry), name)
        falling = (t_s >= start) & (t_s <= end)
        label = np.where(falling, LABELS.index(FALL), UNLABELLED).astype(np.int16)
    values = np.concatenate([acceleration[both] / STANDARD_GRAVITY, rotation[both] * RAD_S], axis=1)
    yield Recording(
        dataset=NAME,
        subject=match["subject"],
        name=name,
        channels=ACC_GYRO,
        labels=LABELS,
        t_s=t_s,
        values=to_float32(values),
        label=label,
    )


WRIST: Final = CompanionDataset(
    name=NAME,
    title="WEDA-FALL, falls and daily activities of young and old people, watch",
    licence="none stated; evaluation only",
    url="https://github.com/joaojtmarques/WEDA-FALL",
    citation=(
        "Marques, J., & Moreno, P. (2023). Online Fall Detection Using Wrist Devices. Sensors, 23(3), 1146. "
        "https://doi.org/10.3390/s23031146"
    ),
    channels=ACC_GYRO,
    labels=LABELS,
    rate_hz=50.0,
    files=(),
    how_to="Download https://github.com/joaojtmarques/WEDA-FALL as a zip and give its path.",
    layout="dataset/50Hz/D01/U01_R01_accel.csv",
    # The 50Hz belongs to it: the publisher's other folders hold the same recordings at lower rates.
    pattern=re.compile(r"(?:^|/)50Hz/(?P<activity>D\d\d|F0[1-8])/(?P<subject>U\d\d)_(?P<trial>R\d\d)_accel\.csv$"),
    companions=re.compile(rf"(?:^|/)(?:50Hz/[DF]\d\d/(?P<subject>U\d\d)_R\d\d_gyro\.csv|{re.escape(_FALL_TIMES)})$"),
    parse=_parse,
)
