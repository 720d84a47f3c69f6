"""Your own recordings: a folder of CSV files, of trace files (``*.gwtrace``), or of both.

A CSV file is one recording. Its first line names the columns, in any order:

- ``t_s`` or ``timestamp_ms``: seconds or milliseconds from any origin, never decreasing;
- ``acc_x``, ``acc_y``, ``acc_z``: acceleration in g, gravity included;
- ``gyro_x``, ``gyro_y``, ``gyro_z``: °/s; all three or none;
- ``label``: optional; the activity by a name that messages can carry, empty = unlabelled;
- ``subject``: optional; the same in every row. Without it the file is called ``<subject>_<anything>.csv``.

Any rate from 10 to 200 Hz. The labels are the sorted union over all files, so that all files are read even when only
some subjects are wanted. ``docs/data.md`` has an example.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from models.datasets.base import Download, Recording, choose_subjects, decode, nth_row, parse_table, to_float32
from models.datasets.store import Entry, Store
from protocol.messages import UNKNOWN, LabelName
from protocol.trace import SUFFIX, load_trace
from quantization.errors import DatasetError, TraceError
from quantization.imu import ACC, ACC_GYRO, GYRO

_MS: Final = {"t_s": 1.0, "timestamp_ms": 1000.0}
"""Units of each time column in one second."""

_TEXT: Final = ("label", "subject")
_COLUMNS: Final = (*_MS, *ACC_GYRO, *_TEXT)
_TEXT_WIDTH: Final = 64
_LABEL: Final = TypeAdapter(LabelName)

_RATES_HZ: Final = (9.0, 220.0)
"""10 to 200 Hz, with room for a crystal and for rounding to ms. Outside, the time column has another unit."""

_MAX_MEDIAN_G: Final = 4.0
"""No body holds this on average; 1 g given in m/s² exceeds it twofold."""

_MIN_MEDIAN_G: Final = 0.3
"""Half of a recording would be a fall. What a phone calls linear acceleration, or user acceleration, lies below."""

_HEAD: Final = 4096
_SNIFF: Final = 50
"""CSV files whose header is looked at before deciding that a folder is something else."""


@dataclass(frozen=True)
class OwnRecordings:
    """The data set of files that follow this module's layout. See :class:`models.datasets.base.Dataset`."""

    name: str = "own"
    title: str = "Your own recordings (CSV or trace files)"
    licence: str = "yours"
    url: str = ""
    citation: str = ""
    channels: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    rate_hz: float = 0.0
    files: tuple[Download, ...] = ()
    how_to: str = "docs/data.md describes the columns and file names."

    def recognises(self, store: Store) -> bool:
        """Whether there is a trace, or a CSV file with a time and an acceleration column."""
        files = _files(store)
        if any(_is_trace(entry) for entry in files):
            return True
        for entry in files[:_SNIFF]:
            columns = set(_header(entry.head(_HEAD).decode("utf-8-sig", "replace")))
            if columns & set(_MS) and set(ACC) <= columns:
                return True
        return False

    def subjects(self, path: Path) -> tuple[str, ...]:
        """See :class:`models.datasets.base.Dataset`."""
        with Store(path) as store:
            return tuple(sorted({_subject(entry) for entry in self._some_files(store)}))

    def recordings(self, path: Path, subjects: Collection[str] | None = None) -> Iterator[Recording]:
        """See :class:`models.datasets.base.Dataset`."""
        with Store(path) as store:
            every = [_read(entry, self.name) for entry in self._some_files(store)]
        labels = tuple(sorted({label for recording in every for label in recording.labels}))
        chosen = choose_subjects((recording.subject for recording in every), subjects, path)
        for recording in sorted(every, key=lambda recording: (recording.subject, recording.name)):
            if recording.subject in chosen:
                yield _relabel(recording, labels)

    def _some_files(self, store: Store) -> list[Entry]:
        files = _files(store)
        if not files:
            raise DatasetError(
                f"{store.path}: expected CSV files or {SUFFIX} traces, found {store.listing()}. {self.how_to}"
            )
        return files


OWN: Final = OwnRecordings()


def _files(store: Store) -> list[Entry]:
    files = [entry for entry in store.entries if entry.path.lower().endswith((".csv", SUFFIX))]
    return sorted(files, key=lambda entry: entry.path)


def _is_trace(entry: Entry) -> bool:
    return entry.path.lower().endswith(SUFFIX)


def _header(text: str) -> list[str]:
    return [name.strip() for name in text.partition("\n")[0].split(",")]


def _subject(entry: Entry) -> str:
    """Subject of a file by its first lines, or by its name."""
    if _is_trace(entry):
        return _trace_recording(entry, "").subject
    lines = entry.head(_HEAD).decode("utf-8-sig", "replace").splitlines()
    columns = _header(lines[0]) if lines else []
    rows = [line for line in lines[1:] if line.strip()]
    if "subject" in columns and rows:
        fields = rows[0].split(",")
        if len(fields) == len(columns):
            return fields[columns.index("subject")].strip()
    return _subject_of_name(entry)


def _subject_of_name(entry: Entry) -> str:
    return PurePosixPath(entry.path).stem.partition("_")[0]


def _read(entry: Entry, dataset: str) -> Recording:
    return _trace_recording(entry, dataset) if _is_trace(entry) else _csv_recording(entry, dataset)


def _name(entry: Entry) -> str:
    return str(PurePosixPath(entry.path).with_suffix(""))


def _trace_recording(entry: Entry, dataset: str) -> Recording:
    if entry.file is None:
        raise DatasetError(f"{entry.where}: traces are read from a folder, not from an archive; unpack it first")
    try:
        trace = load_trace(entry.file)
    except TraceError as error:
        raise DatasetError(str(error)) from error
    _check_labels(trace.labels, entry.where)
    return Recording(
        dataset=dataset,
        subject=trace.subject or _subject_of_name(entry),
        name=_name(entry),
        channels=trace.channels,
        labels=trace.labels,
        t_s=(trace.tick_ms - trace.tick_ms[0]) / 1000.0,
        values=to_float32(trace.sensor.to_physical(trace.counts)),
        label=trace.label,
    )


def _csv_recording(entry: Entry, dataset: str) -> Recording:
    lines = decode(entry.read(), entry.where).splitlines()
    columns = _header(lines[0]) if lines else []
    channels, time = _check_columns(columns, entry.where)
    kinds = [(name, f"U{_TEXT_WIDTH}" if name in _TEXT else "f8") for name in columns]
    table = parse_table(lines[1:], np.dtype(kinds), entry.where, first_line=2)
    t_s = table[time] / _MS[time]
    if (np.diff(t_s) < 0).any():
        line = nth_row(lines[1:], int(np.argmax(np.diff(t_s) < 0)) + 1) + 2
        raise DatasetError(f"{entry.where}:{line}: {time} runs backwards")

    labels, label = _labels(table, entry.where)
    recording = Recording(
        dataset=dataset,
        subject=_subject_of_table(table, entry),
        name=_name(entry),
        channels=channels,
        labels=labels,
        t_s=t_s - t_s[0],
        values=to_float32(np.stack([table[name] for name in channels], axis=1)),
        label=label,
    )
    _check_plausible(recording, entry.where, time)
    return recording


def _check_columns(columns: list[str], where: str) -> tuple[tuple[str, ...], str]:
    """Channels and the time column of a header."""
    times = [name for name in _MS if name in columns]
    unknown = [name for name in columns if name not in _COLUMNS]
    gyro = [name for name in GYRO if name in columns]
    problem = ""
    if len(set(columns)) != len(columns):
        problem = "a column name repeats"
    elif unknown:
        problem = f"unknown column {unknown[0][:40]!r}"
    elif len(times) != 1:
        problem = "no time column" if not times else "two time columns"
    elif not set(ACC) <= set(columns):
        problem = "acc_x, acc_y and acc_z are needed"
    elif len(gyro) not in (0, len(GYRO)):
        problem = "gyro_x, gyro_y and gyro_z come together"
    if problem:
        raise DatasetError(
            f"{where}:1: {problem}; the columns are t_s or timestamp_ms, {', '.join(ACC_GYRO)} (gyro optional), "
            f"label and subject (both optional), separated by commas"
        )
    return (ACC_GYRO if gyro else ACC), times[0]


def _labels(table: NDArray[np.void], where: str) -> tuple[tuple[str, ...], NDArray[np.int16]]:
    """Sorted label names of one file, and the index of each row; -1 where the text is empty."""
    if "label" not in (table.dtype.names or ()):
        return (), np.full(len(table), -1, np.int16)
    texts, inverse = np.unique(np.char.strip(table["label"]), return_inverse=True)
    if len(texts) > np.iinfo(np.int16).max:
        raise DatasetError(f"{where}: {len(texts)} labels; is another column meant?")
    empty_first = int(texts[0] == "")  # "" sorts before everything else
    names = tuple(str(text) for text in texts[empty_first:])
    _check_labels(names, where)
    return names, (inverse - empty_first).astype(np.int16)


def _check_labels(names: Iterable[str], where: str) -> None:
    """Refuse, before anything is trained, what no bundle and no message can carry."""
    for name in names:
        try:
            _LABEL.validate_python(name)
        except ValidationError as error:
            raise DatasetError(
                f"{where}: a label is called {name[:60]!r}; labels have up to 48 of A-Z a-z 0-9 space _ . -, "
                f"and begin with a letter or a digit"
            ) from error
        if name.lower() == UNKNOWN:
            raise DatasetError(
                f"{where}: a label is called {name!r}, as the gateway's answer where it knows none; leave it empty"
            )


def _subject_of_table(table: NDArray[np.void], entry: Entry) -> str:
    if "subject" not in (table.dtype.names or ()):
        return _subject_of_name(entry)
    texts = np.unique(np.char.strip(table["subject"]))
    if len(texts) != 1 or not texts[0]:
        raise DatasetError(f"{entry.where}: one file is one recording of one subject; found {len(texts)} subjects")
    return str(texts[0])


def _check_plausible(recording: Recording, where: str, time: str) -> None:
    """Catch the usual wrong units before they are trained on."""
    rate = recording.rate_hz
    if len(recording.t_s) > 1 and not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
        raise DatasetError(f"{where}: {rate:.4g} Hz by its {time} column; is that the column's unit? 10 to 200 Hz work")
    median_g = float(np.median(np.linalg.norm(recording.values[:, :3].astype(np.float64), axis=1)))
    if median_g > _MAX_MEDIAN_G:
        raise DatasetError(f"{where}: the median acceleration is {median_g:.3g} g; the columns must be in g, not m/s²")
    if median_g < _MIN_MEDIAN_G:
        raise DatasetError(
            f"{where}: the median acceleration is {median_g:.3g} g, so gravity was taken out, or the columns are not "
            f"in g; export what the accelerometer itself says, not the linear (user) acceleration"
        )


def _relabel(recording: Recording, labels: tuple[str, ...]) -> Recording:
    """The same with ``labels``, of which the recording's are a part."""
    index = np.array([*(labels.index(label) for label in recording.labels), -1], np.int16)  # [-1] stays -1
    return replace(recording, labels=labels, label=index[recording.label])
