"""Data sets that spread one recording over several files, such as accelerometer and gyroscope."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import PublishedDataset, Recording, choose_subjects
from models.datasets.store import Entry, Found, Store
from quantization.errors import DatasetError

MAX_GAP_S: Final = 0.25
"""Nothing is interpolated over a longer step; :func:`models.resample.resample` ends a segment at the same one."""


@dataclass(frozen=True)
class CompanionDataset(PublishedDataset):
    """A data set whose files of samples need others beside them.

    Subjects without any companion are left out, as if they were not in the archive.

    Args:
        companions: finds the other files by the tail of their paths; a group ``subject`` where they are a subject's.
        parse: reads one file that ``pattern`` finds; gets the companions of all subjects by the tail that matched.
    """

    companions: re.Pattern[str] = field(repr=False)
    parse: Callable[..., Iterable[Recording]] = field(repr=False)  # (Entry, re.Match[str], Mapping[str, Entry])

    def recognises(self, store: Store) -> bool:
        """Whether ``store`` has files of samples and companions of the same subject."""
        return bool(self._complete(store))

    def recordings(self, path: Path, subjects: Collection[str] | None = None) -> Iterator[Recording]:
        """See :class:`models.datasets.base.Dataset`."""
        with Store(path) as store:
            by_subject = self._by_subject(store)
            others = {found.match.group(0).lstrip("/"): found.entry for found in store.find(self.companions)}
            for subject in choose_subjects(by_subject, subjects, path):
                for found in by_subject[subject]:
                    yield from self.parse(found.entry, found.match, others)

    def _by_subject(self, store: Store) -> dict[str, list[Found]]:
        every = super()._by_subject(store)
        complete = self._complete(store)
        if not complete:
            raise DatasetError(
                f"{store.path}: not {self.name}: files like {self.layout} are there, but none of those that belong to "
                f"them; found {store.listing()}. {self.how_to}"
            )
        return {subject: found for subject, found in every.items() if subject in complete}

    def _complete(self, store: Store) -> set[str]:
        beside = {found.match["subject"] for found in store.find(self.companions)}
        return beside & {found.match["subject"] for found in store.find(self.pattern)}


def companion(others: Mapping[str, Entry], tail: str, entry: Entry) -> Entry:
    """The file that belongs to ``entry``. :class:`DatasetError`, which names both, if it is missing."""
    try:
        return others[tail]
    except KeyError:
        raise DatasetError(f"{entry.where}: there is no {tail} beside it") from None


def at_times(
    t_s: NDArray[np.float64], other_s: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Linear interpolation of one sensor's samples at another one's times.

    Args:
        t_s: ``[n]``, not decreasing.
        other_s: ``[m]``, not decreasing, on the same clock; m >= 1.
        values: ``[m, C]`` at ``other_s``.

    Returns:
        values ``[n, C]``, and bool ``[n]``: whether the time lies between two samples of the other sensor that are at
        most :data:`MAX_GAP_S` apart.
    """
    out = np.stack([np.interp(t_s, other_s, column) for column in values.T], axis=1)
    after = np.searchsorted(other_s, t_s, side="left")
    before = np.searchsorted(other_s, t_s, side="right") - 1
    inside = (before >= 0) & (after < len(other_s))
    step = other_s[np.minimum(after, len(other_s) - 1)] - other_s[np.maximum(before, 0)]
    return out, inside & (step <= MAX_GAP_S)
