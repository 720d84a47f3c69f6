"""Data sets by name: ``load("sp_sw_har", path)``, or ``load(detect(path), path)``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from models.datasets import casale_chest, own, sp_sw_har, weda_fall, wisdm2019_watch
from models.datasets.base import UNLABELLED, Dataset, Download, PublishedDataset, Recording
from models.datasets.store import Store
from quantization.errors import DatasetError

DATASETS: Final[dict[str, Dataset]] = {
    dataset.name: dataset
    for dataset in (
        sp_sw_har.WATCH,
        sp_sw_har.PHONE,
        wisdm2019_watch.WATCH,
        wisdm2019_watch.WATCH_SIX,
        casale_chest.CHEST,
        weda_fall.WRIST,
        own.OWN,
    )
}
"""Every data set that is known. The order is that of :func:`detect`."""

__all__ = [
    "DATASETS",
    "UNLABELLED",
    "Dataset",
    "Download",
    "PublishedDataset",
    "Recording",
    "detect",
    "get",
    "load",
]


def get(name: str) -> Dataset:
    """The data set of that name. :class:`DatasetError`, listing the known ones, if there is none."""
    try:
        return DATASETS[name]
    except KeyError:
        raise DatasetError(f"no data set {name!r}; known: {', '.join(DATASETS)}") from None


def load(dataset: str | Dataset, path: Path, subjects: Collection[str] | None = None) -> list[Recording]:
    """All recordings (of ``subjects``, if given) in an archive or a folder.

    Raises:
        DatasetError: no such data set or subject, or ``path`` does not hold the data set as it is published.
    """
    chosen = get(dataset) if isinstance(dataset, str) else dataset
    return list(chosen.recordings(Path(path), subjects))


def detect(path: Path, *, prefer: str | None = None) -> Dataset:
    """The data set whose layout ``path`` has: ``prefer`` where one archive holds several, else the first of them.

    Raises:
        DatasetError: nothing is there, or it has no known layout.
    """
    with Store(Path(path)) as store:
        for dataset in sorted(DATASETS.values(), key=lambda one: one.name != prefer):  # stable: the others keep order
            if dataset.recognises(store):
                return dataset
        raise DatasetError(f"{path}: no known data set ({', '.join(DATASETS)}); found {store.listing()}")
