"""Which of one's own pictures train, and which test.

Those that ``split.json`` names (``{"train": [...], "test": [...]}``: paths from where it lies, or file names there);
else those in folders called ``train`` and ``test``, where there are both; else a fifth tests that is drawn by the
contents of the files: the same pictures are split the same way wherever they lie and whatever they are called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from pydantic import BaseModel, ConfigDict

from models.datasets.store import Entry, Store
from models.vision.annotations import parse
from quantization.errors import DatasetError

SPLIT_FILE: Final = "split.json"
TEST_SHARE: Final = 5
"""One picture in so many tests."""
_SEED: Final = b"gammawear split 0 "

Part = str | None
"""``train``, ``test``, or None: neither."""


class _Split(BaseModel):
    model_config = ConfigDict(extra="forbid")

    train: list[str]
    test: list[str]


def split_of(store: Store, pictures: Sequence[tuple[str, str]]) -> tuple[list[Part], str]:
    """Which part each picture belongs to, given path and digest, and how that was decided."""
    lists = [entry for entry in store.entries if PurePosixPath(entry.path).name == SPLIT_FILE]
    if len(lists) > 1:
        raise DatasetError(f"{store.path}: {len(lists)} files {SPLIT_FILE}; keep one of them")
    if lists:
        return _listed(lists[0], [path for path, _ in pictures]), f"split by {SPLIT_FILE}"
    folders: list[Part] = [_part_of_folder(path) for path, _ in pictures]
    if {"train", "test"} <= set(folders):
        return folders, "split by the folders train and test"
    order = sorted(digest for _, digest in pictures)
    order.sort(key=lambda digest: hashlib.sha256(_SEED + digest.encode()).digest())
    test = set(order[: max(1, len(order) // TEST_SHARE)])
    drawn: list[Part] = ["test" if digest in test else "train" for _, digest in pictures]
    return drawn, "a fifth, drawn with a fixed seed by the files' contents, tests"


def _listed(entry: Entry, paths: Sequence[str]) -> list[Part]:
    split = parse(_Split, entry)
    folder = PurePosixPath(entry.path).parent
    parts: dict[str, str] = {}
    for part, names in (("train", split.train), ("test", split.test)):
        for name in names:
            if parts.setdefault(str(folder / name), part) != part:
                raise DatasetError(f"{entry.where}: {name[:200]!r} is in train and in test")
    return [_part_in(entry, parts, path) for path in paths]


def _part_in(entry: Entry, parts: Mapping[str, str], path: str) -> Part:
    folder = PurePosixPath(entry.path).parent
    said = {parts[name] for name in (path, str(folder / PurePosixPath(path).name)) if name in parts}
    if len(said) > 1:
        raise DatasetError(f"{entry.where}: {path!r} is in train and in test, by its path and by its name")
    return next(iter(said), None)


def _part_of_folder(path: str) -> Part:
    """By its innermost folder with such a name."""
    folders = [part.lower() for part in PurePosixPath(path).parts[:-1]]
    return next((part for part in reversed(folders) if part in ("train", "test")), None)
