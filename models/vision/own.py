"""One's own pictures: a folder (or a zip of it) with pictures and their boxes.

Boxes come from ``annotations.json`` (COCO) or from a text file for each picture (YOLO) with one ``classes.txt``; see
:mod:`models.vision.annotations`. A text file stands beside its picture, or in ``labels`` where the picture is in
``images``. Pictures are JPEG and PNG, turned back into light (:mod:`models.vision.unprocess`); where a reader of RAW
frames is given, the light of these is taken (:func:`models.vision.shots.view_of_raw`). Shots of either are new.

A picture that is there twice is taken once. Which of them test: see :mod:`models.vision.own_split`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from models.datasets.store import Entry, Store
from models.vision.annotations import CLASSES_FILE, COCO_FILE, Box, Classes, Drawn, class_names, coco, yolo
from models.vision.own_split import split_of
from models.vision.pictures import MAX_PICTURE_BYTES, Picture, checked_boxes, decoded_picture
from models.vision.shots import View, view_of, view_of_raw
from models.vision.tasks import CAMERA_SEED
from quantization.errors import DatasetError, FrameError
from quantization.raw import RawFrame

MAX_PICTURES: Final = 3000
"""A view takes 2 MB, and all of them are kept."""
PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png")
_DIGEST_BYTES: Final = 8
_PNG_SIXTEEN_GREY: Final = b"\x10\x00"
"""Bit depth and colour type of a PNG with linear counts."""

ReadRaw = Callable[[Path], RawFrame]


@dataclass(frozen=True, eq=False)
class OwnPicture:
    """One picture.

    Args:
        path: in its folder.
        digest: of its file: SHA-256, the first 8 bytes in hex.
        part: ``train`` or ``test``.
        view: its light and boxes.
    """

    path: str
    digest: str
    part: str
    view: View


@dataclass(frozen=True, eq=False)
class OwnPictures:
    """A folder of pictures, read.

    Args:
        classes: names of the labels.
        pictures: by path.
        protocol: how they are split, in words.
        problems: a line for each picture and box that was left out or cut, and why.
    """

    classes: tuple[str, ...]
    pictures: tuple[OwnPicture, ...]
    protocol: str
    problems: tuple[str, ...]

    def of(self, part: str) -> list[OwnPicture]:
        """The pictures of one part."""
        return [one for one in self.pictures if one.part == part]


def looks_own(store: Store) -> bool:
    """Whether there is a file with boxes or with the names of classes."""
    return any(_base(entry) in (COCO_FILE, CLASSES_FILE) for entry in store.entries)


def read_own(
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    read_raw: ReadRaw | None = None,
    raw_suffixes: Collection[str] = (),
) -> OwnPictures:
    """Read a folder or a zip of pictures with boxes.

    Args:
        path: of it.
        classes: only these, in this order; None takes all that have a box.
        read_raw: reads a RAW frame from its file, if there are any.
        raw_suffixes: of RAW frames, lower case.

    Raises:
        DatasetError: nothing can be used, a file with boxes is not what it should be, or a class is not there.
    """
    with Store(path) as store:
        problems: list[str] = []
        reader = _Reader(store, read_raw, frozenset(raw_suffixes), problems)
        every = Classes()
        drawn = reader.drawn(every)
        wanted = _wanted(drawn, every.names, classes)
        before = len(problems)
        pictures = reader.pictures([_only(one, [every.names.index(name) for name in wanted]) for one in drawn])
        if not pictures:
            # Not of the pictures without boxes, which were never meant: each of those that have some was left out.
            first = problems[before]
            raise DatasetError(f"{path}: none of {len(drawn)} pictures can be used. The first reason: {first}")
        parts, protocol = split_of(store, [(one.path, digest) for one, digest, _ in pictures])
    unused = [one.path for (one, _, _), part in zip(pictures, parts, strict=True) if part is None]
    problems += [f"{path}: left out {name}: neither in train nor in test" for name in unused]
    own = tuple(
        OwnPicture(one.path, digest, part, view)
        for (one, digest, view), part in zip(pictures, parts, strict=True)
        if part is not None
    )
    return OwnPictures(tuple(wanted), own, protocol, tuple(problems))


class _Reader:
    def __init__(self, store: Store, read_raw: ReadRaw | None, raw: frozenset[str], problems: list[str]) -> None:
        self._store = store
        self._files: Mapping[str, Entry] = {entry.path: entry for entry in store.entries}
        self._read_raw = read_raw
        self._raw = raw
        self._problems = problems

    def drawn(self, classes: Classes) -> list[Drawn]:
        """All pictures that boxes are given for (perhaps none in a picture), by path."""
        found = [
            one
            for entry in self._store.entries
            if _base(entry) == COCO_FILE
            for one in coco(entry, self._files, classes, self._problems)
        ]
        by_path = {one.path: one for one in found}
        if len(by_path) < len(found):
            raise DatasetError(f"{self._store.path}: a picture is in {COCO_FILE} twice")
        pictures = [path for path in self._files if _suffix(path) in {*PICTURE_SUFFIXES, *self._raw}]
        by_path |= self._yolo(pictures, by_path, classes)
        if not by_path:
            raise DatasetError(
                f"{self._store.path}: {len(pictures)} pictures without boxes, in {self._store.listing()}. Boxes stand "
                f"in {COCO_FILE} (COCO), or in a .txt for each picture and {CLASSES_FILE} (YOLO)"
            )
        if len(by_path) > MAX_PICTURES:
            raise DatasetError(f"{self._store.path}: {len(by_path)} pictures; at most {MAX_PICTURES} are read")
        without = sorted(set(pictures) - set(by_path))
        self._problems += [
            f"{self._store.path}: left out {path}: no boxes are given; an empty .txt says that it has none"
            for path in without
        ]
        return [by_path[path] for path in sorted(by_path)]

    def _yolo(self, pictures: list[str], taken: Mapping[str, Drawn], classes: Classes) -> dict[str, Drawn]:
        texts: dict[str, str] = {}
        for path in pictures:
            text = next((name for name in _texts(path) if name in self._files), None)
            if text is None:
                continue
            if path in taken:
                raise DatasetError(
                    f"{self._store.path}: {path} has boxes in {COCO_FILE} and in {text}; keep one of them"
                )
            if text in texts:
                raise DatasetError(f"{self._store.path}: {texts[text]} and {path} share {text}; keep one of them")
            texts[text] = path
        if not texts:
            return {}
        lists = [entry for entry in self._store.entries if _base(entry) == CLASSES_FILE]
        if len(lists) != 1:
            raise DatasetError(
                f"{self._store.path}: {len(lists)} files {CLASSES_FILE}; YOLO boxes need one, with a name a line"
            )
        numbers = class_names(lists[0], classes)
        return {path: yolo(self._files[text], path, numbers) for text, path in texts.items()}

    def pictures(self, drawn: Sequence[Drawn]) -> list[tuple[Drawn, str, View]]:
        """Those that can be read, with their digests and views."""
        first: dict[str, str] = {}
        pictures = []
        for one in drawn:
            try:
                if one.unreadable is not None:
                    raise DatasetError(f"{self._files[one.path].where}: {one.unreadable}")
                data = self._files[one.path].read(MAX_PICTURE_BYTES)
                digest = hashlib.sha256(data).digest()[:_DIGEST_BYTES].hex()
                if digest in first:
                    raise DatasetError(f"{self._files[one.path].where}: the same picture as {first[digest]}")
                view = self._view(one, data, digest)
            except (DatasetError, FrameError) as error:
                self._problems.append(f"left out a picture: {error}")
                continue
            first[digest] = one.path
            pictures.append((one, digest, view))
        return pictures

    def _view(self, one: Drawn, data: bytes, name: str) -> View:
        entry = self._files[one.path]
        suffix = _suffix(one.path)
        if suffix in PICTURE_SUFFIXES and not (suffix == ".png" and data[24:26] == _PNG_SIXTEEN_GREY):
            srgb = decoded_picture(data, entry.where)
            boxes, labels = self._boxes(one, srgb.shape[1], srgb.shape[0])
            return view_of(Picture(name, "", srgb, boxes, labels), CAMERA_SEED)
        if self._read_raw is None or entry.file is None:
            raise DatasetError(
                f"{entry.where}: RAW frames are read from a folder, not from an archive; unpack it first"
            )
        frame = self._read_raw(entry.file)
        boxes, labels = self._boxes(one, frame.counts.shape[1], frame.counts.shape[0])
        return view_of_raw(name, frame, boxes, labels)

    def _boxes(self, one: Drawn, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        if one.size is not None and not all(abs(a - b) <= 1 for a, b in zip(one.size, (width, height), strict=True)):
            raise DatasetError(
                f"{one.where}: the boxes are of {one.size[0]} × {one.size[1]}, the picture is {width} × {height}"
            )
        scale = (width, height, width, height) if one.shares else (1, 1, 1, 1)
        objects = [(label, _times(box, scale)) for label, box in one.objects]
        return checked_boxes(one.where, objects, (height, width), self._problems)


def _times(box: Box, scale: tuple[int, int, int, int]) -> Box:
    # Rounded, as six decimals of a share may end a little beyond the picture.
    left, top, right, bottom = (round(side * factor, 2) for side, factor in zip(box, scale, strict=True))
    return left, top, right, bottom


def _wanted(drawn: Sequence[Drawn], names: Sequence[str], classes: Sequence[str] | None) -> list[str]:
    used = {label for one in drawn for label, _ in one.objects}
    if classes is None:
        wanted = [name for number, name in enumerate(names) if number in used]
        if not wanted:
            reason = next((f" that can be read: {one.unreadable}" for one in drawn if one.unreadable), "")
            raise DatasetError(f"none of {len(drawn)} pictures has a box{reason}")
        return wanted
    there = [name for number, name in enumerate(names) if number in used]
    if set(classes) - set(there) or len(set(classes)) < len(classes):
        raise DatasetError(f"no classes to choose: {', '.join(classes)}; boxes are of {', '.join(there) or 'nothing'}")
    return list(classes)


def _only(one: Drawn, wanted: Sequence[int]) -> Drawn:
    """With the objects of the wanted classes, numbered in their order."""
    objects = [(wanted.index(label), box) for label, box in one.objects if label in wanted]
    return replace(one, objects=objects)


def _texts(path: str) -> tuple[str, ...]:
    """Where the boxes of a picture may stand."""
    text = PurePosixPath(path).with_suffix(".txt")
    parts = list(text.parts)
    if "images" not in parts[:-1]:
        return (str(text),)
    at = len(parts) - 2 - parts[-2::-1].index("images")
    return str(text), str(PurePosixPath(*parts[:at], "labels", *parts[at + 1 :]))


def _base(entry: Entry) -> str:
    return PurePosixPath(entry.path).name


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
