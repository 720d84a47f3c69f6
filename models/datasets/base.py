"""What every data set gives: recordings in physical units, from its archive or its folder as published.

A new data set is one module with a :class:`PublishedDataset` and one line in ``models/datasets/__init__.py``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from models.datasets.store import Entry, Found, Store
from quantization.errors import DatasetError, SensorError
from quantization.imu import check_channels

UNLABELLED: Final = -1
"""The label of a sample that nobody has labelled."""

RAD_S: Final = 180.0 / np.pi
"""°/s in one rad/s."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One uninterrupted recording of one subject.

    Args:
        dataset: name of the data set.
        subject: who wore it; split by this, never by window.
        name: names the recording within the data set.
        channels: as in :mod:`quantization.imu`.
        labels: all label names of the data set, in one fixed order.
        t_s: float64 ``[n]``, seconds since the recording's first sample, never decreasing (equal times occur).
        values: float32 ``[n, channels]``, g and °/s.
        label: int16 ``[n]``, index into ``labels``; -1 = unlabelled.

    Raises:
        DatasetError: the arrays do not fit together, a value is not finite, or time runs backwards.
    """

    dataset: str
    subject: str
    name: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    t_s: NDArray[np.float64]
    values: NDArray[np.float32]
    label: NDArray[np.int16]

    def __post_init__(self) -> None:
        here = f"{self.dataset} {self.name}"
        try:
            check_channels(self.channels)
        except SensorError as error:
            raise DatasetError(f"{here}: {error}") from error
        if len(set(self.labels)) != len(self.labels):
            raise DatasetError(f"{here}: label names repeat: {', '.join(self.labels)}")
        self._check_shapes(here)
        self._check_numbers(here)

    def _check_shapes(self, here: str) -> None:
        n = len(self.t_s)
        expected: dict[str, tuple[NDArray[Any], type[np.generic], tuple[int, ...]]] = {
            "t_s": (self.t_s, np.float64, (n,)),
            "values": (self.values, np.float32, (n, len(self.channels))),
            "label": (self.label, np.int16, (n,)),
        }
        for name, (array, dtype, shape) in expected.items():
            if array.dtype != dtype or array.shape != shape:
                raise DatasetError(f"{here}: {name} is {array.dtype} {array.shape}, expected {dtype.__name__} {shape}")
        if n == 0:
            raise DatasetError(f"{here}: no samples")

    def _check_numbers(self, here: str) -> None:
        if not np.isfinite(self.t_s).all() or not np.isfinite(self.values).all():
            raise DatasetError(f"{here}: a time or a value is not a finite number")
        if (np.diff(self.t_s) < 0).any():
            raise DatasetError(f"{here}: time runs backwards at sample {int(np.argmax(np.diff(self.t_s) < 0)) + 1}")
        if self.label.min() < UNLABELLED or self.label.max() >= len(self.labels):
            raise DatasetError(f"{here}: a label is outside -1..{len(self.labels) - 1}")

    @property
    def rate_hz(self) -> float:
        """Measured rate: one over the median step between different times; 0.0 when there is no step."""
        steps = np.diff(self.t_s)
        steps = steps[steps > 0]
        return float(1.0 / np.median(steps)) if len(steps) else 0.0


@dataclass(frozen=True)
class Download:
    """One file that a publisher offers.

    Args:
        url: its address; with ``zenodo``, the address of a Zenodo record in their REST API, which is asked for the
            address, size and MD5 of its only zip when the download starts.
        filename: what to call it here.
        size: bytes, None where it is not known. Never a guess.
        md5: the publisher's checksum in hex, None where there is none.
        zenodo: ``url`` is a record, not a file.
    """

    url: str
    filename: str
    size: int | None = None
    md5: str | None = None
    zenodo: bool = False


class Dataset(Protocol):
    """A data set; :class:`PublishedDataset` is one, :mod:`models.datasets.own` another."""

    @property
    def name(self) -> str:
        """Key of the registry, ``[a-z0-9_]+``."""

    @property
    def title(self) -> str:
        """One line for people."""

    @property
    def licence(self) -> str:
        """As published; SPDX where it has an identifier."""

    @property
    def url(self) -> str:
        """Landing page."""

    @property
    def citation(self) -> str:
        """How its authors want to be cited."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels of every recording; empty where recordings differ."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in their fixed order; empty where the files decide."""

    @property
    def rate_hz(self) -> float:
        """Nominal rate; 0.0 where recordings differ."""

    @property
    def files(self) -> tuple[Download, ...]:
        """What :mod:`models.datasets.fetch` downloads."""

    @property
    def how_to(self) -> str:
        """What a person does to get it by hand."""

    def recognises(self, store: Store) -> bool:
        """Whether an opened folder or archive has this data set's layout."""

    def subjects(self, path: Path) -> tuple[str, ...]:
        """Sorted subjects in ``path``, without reading the samples. :class:`DatasetError` if there are none."""

    def recordings(self, path: Path, subjects: Collection[str] | None = None) -> Iterator[Recording]:
        """Recordings by subject and name; only of ``subjects`` if given, and only their files are read.

        Raises :class:`DatasetError` (at the first ``next``) if ``path`` does not hold the data set or a subject.
        """


@dataclass(frozen=True)
class PublishedDataset:
    """A data set whose file names give the subject.

    Args:
        layout: what its paths look like, for messages.
        pattern: finds a file of samples by the tail of its path; has a group ``subject``.
        parse: reads one such file. It may give several recordings.
    """

    name: str
    title: str
    licence: str
    url: str
    citation: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    rate_hz: float
    files: tuple[Download, ...]
    how_to: str
    layout: str
    pattern: re.Pattern[str] = field(repr=False)
    parse: Callable[[Entry, re.Match[str]], Iterable[Recording]] = field(repr=False)

    def recognises(self, store: Store) -> bool:
        """Whether a path in ``store`` matches."""
        return bool(store.find(self.pattern))

    def subjects(self, path: Path) -> tuple[str, ...]:
        """See :class:`Dataset`."""
        with Store(path) as store:
            return tuple(sorted(self._by_subject(store)))

    def recordings(self, path: Path, subjects: Collection[str] | None = None) -> Iterator[Recording]:
        """See :class:`Dataset`."""
        with Store(path) as store:
            by_subject = self._by_subject(store)
            for subject in choose_subjects(by_subject, subjects, path):
                for found in by_subject[subject]:
                    yield from self.parse(found.entry, found.match)

    def _by_subject(self, store: Store) -> dict[str, list[Found]]:
        by_subject: dict[str, list[Found]] = {}
        for found in store.find(self.pattern):
            by_subject.setdefault(found.match["subject"], []).append(found)
        if not by_subject:
            raise DatasetError(
                f"{store.path}: not {self.name}: expected files like {self.layout}, "
                f"found {store.listing()}. {self.how_to}"
            )
        return by_subject


def choose_subjects(present: Iterable[str], wanted: Collection[str] | None, path: Path) -> list[str]:
    """Sorted subjects to read. :class:`DatasetError` when one that is wanted is not present."""
    there = set(present)
    if isinstance(wanted, str):  # a str is a Collection[str] of its letters
        wanted = (wanted,)
    missing = set(wanted or ()) - there
    if missing:
        raise DatasetError(
            f"{path}: no subject {', '.join(sorted(missing))}; there are {', '.join(sorted(there)) or 'none'}"
        )
    return sorted(there if wanted is None else wanted)


def decode(raw: bytes, where: str) -> str:
    """UTF-8 text, without a byte order mark. :class:`DatasetError` if it is something else."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{where}: not text: byte {error.object[error.start]:#04x} at {error.start}") from error


def parse_table(lines: Sequence[str], dtype: DTypeLike, where: str, *, first_line: int = 1) -> NDArray[np.void]:
    """Comma-separated rows as a structured array ``[n]``; blank lines are skipped.

    Args:
        lines: rows without the header.
        dtype: structured; a text field must be wider than any text that is legal in it.
        where: file name for messages.
        first_line: number of ``lines[0]`` in the file.

    Raises:
        DatasetError: no rows, a row that does not fit ``dtype``, or a number that is not finite; names the line.
    """
    if not any(line.strip() for line in lines):
        raise DatasetError(f"{where}: no rows")
    try:
        table = _loadtxt(lines, dtype)
    except (ValueError, OverflowError):
        bad = _first_bad(lines, dtype)
        raise DatasetError(f"{where}:{first_line + bad}: malformed row {lines[bad][:120]!r}") from None
    for name in table.dtype.names or ():
        column = table[name].reshape(len(table), -1)
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            row = int(np.argmin(np.isfinite(column).all(axis=1)))
            raise DatasetError(f"{where}:{first_line + nth_row(lines, row)}: {name} is not a finite number")
    return table


def nth_row(lines: Sequence[str], row: int) -> int:
    """Index into ``lines`` of table row ``row``, which counts no blank lines. For messages."""
    return [index for index, line in enumerate(lines) if line.strip()][row]


def to_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Narrow; what does not fit becomes infinite without a warning, and :class:`Recording` refuses it."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _loadtxt(lines: Sequence[str], dtype: DTypeLike) -> NDArray[np.void]:
    return np.loadtxt(io.StringIO("\n".join(lines)), dtype=dtype, delimiter=",", comments=None, ndmin=1)


def _first_bad(lines: Sequence[str], dtype: DTypeLike) -> int:
    """Index of the first line that does not parse, by bisection; one of ``lines`` does not."""
    low, high = 0, len(lines)  # lines[:low] parse, lines[:high] do not
    while high - low > 1:
        middle = (low + high) // 2
        part = [line for line in lines[low:middle] if line.strip()]
        try:
            if part:
                _loadtxt(part, dtype)
            low = middle
        except (ValueError, OverflowError):
            high = middle
    return low
