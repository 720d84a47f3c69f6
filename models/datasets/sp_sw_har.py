"""GeoTec smartphone and smartwatch set: 23 subjects walk the Timed-Up-and-Go test at about 100 Hz.

Layout: ``DATA/sXX/sXX_YY_{sw,sp}.csv`` with the header
``x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label``; m/s² with gravity, rad/s, Unix time in whole ms. One file
is one execution of the test and becomes one recording. The watch (``sw``) is on the left wrist.

Times jitter, and several samples may share a millisecond (0.5 % of the watch's, 8 % of the phone's).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Final, Literal

import numpy as np

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
from models.datasets.store import Entry
from quantization.errors import DatasetError
from quantization.imu import ACC_GYRO, STANDARD_GRAVITY

LABELS: Final = ("SEATED", "STANDING_UP", "WALKING", "TURNING", "SITTING_DOWN")
_HEADER: Final = "x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label"
_ROW: Final = np.dtype([("values", "f8", (6,)), ("timestamp", "f8"), ("label", "U24")])
_SCALE: Final = np.array([1 / STANDARD_GRAVITY] * 3 + [RAD_S] * 3)


def _parse(entry: Entry, match: re.Match[str], *, dataset: str) -> Iterator[Recording]:
    lines = decode(entry.read(), entry.where).splitlines()
    if not lines or lines[0].strip() != _HEADER:
        seen = lines[0][:120] if lines else ""
        raise DatasetError(f"{entry.where}:1: expected the header {_HEADER!r}, found {seen!r}")
    table = parse_table(lines[1:], _ROW, entry.where, first_line=2)

    names = np.char.strip(table["label"])
    label = np.full(len(table), -1, np.int16)
    for index, name in enumerate(LABELS):
        label[names == name] = index
    if (label < 0).any():
        row = int(np.argmax(label < 0))
        line = nth_row(lines[1:], row) + 2
        raise DatasetError(f"{entry.where}:{line}: unknown label {str(names[row])!r}; known: {', '.join(LABELS)}")

    # Stable, so that samples which share a millisecond keep their order. No published watch file needs it.
    order = np.argsort(table["timestamp"], kind="stable")
    t_ms = table["timestamp"][order]
    yield Recording(
        dataset=dataset,
        subject=match["subject"],
        name=match["name"],
        channels=ACC_GYRO,
        labels=LABELS,
        t_s=(t_ms - t_ms[0]) / 1000.0,
        values=to_float32(table["values"][order] * _SCALE),
        label=label[order],
    )


def _dataset(name: str, device: Literal["sw", "sp"], title: str) -> PublishedDataset:
    return PublishedDataset(
        name=name,
        title=title,
        licence="CC-BY-4.0",
        url="https://doi.org/10.5281/zenodo.8398688",
        citation=(
            "Matey-Sanz, M., Casteleyn, S., & Granell, C. (2023). Dataset of inertial measurements of smartphones and "
            "smartwatches for human activity recognition. Data in Brief, 109809. "
            "https://doi.org/10.1016/j.dib.2023.109809"
        ),
        channels=ACC_GYRO,
        labels=LABELS,
        rate_hz=100.0,
        files=(Download("https://zenodo.org/api/records/8398688", "sp_sw_har.zip", zenodo=True),),
        how_to="Download the zip of https://doi.org/10.5281/zenodo.8398688 and give its path.",
        layout=f"DATA/s01/s01_01_{device}.csv",
        pattern=re.compile(rf"(?:^|/)(?P<name>(?P<subject>s\d+)_\d+)_{device}\.csv$"),
        parse=partial(_parse, dataset=name),
    )


WATCH: Final = _dataset("sp_sw_har", "sw", "GeoTec smartphone and smartwatch HAR, watch on the left wrist")
PHONE: Final = _dataset("sp_sw_har_phone", "sp", "GeoTec smartphone and smartwatch HAR, phone in the pocket")
