"""Boxes that somebody drew, as label tools write them: COCO JSON and YOLO text.

**COCO**: ``annotations.json`` with ``images`` (``id``, ``file_name``, better also ``width`` and ``height``),
``categories`` (``id``, ``name``) and ``annotations`` (``image_id``, ``category_id``, ``bbox``: left, top, width, height
in pixels).

**YOLO**: ``<picture>.txt`` with a line for each object (number of the class from 0; middle, width and height as shares
of the picture's sides: ``0 0.5 0.5 0.2 0.1``), and one ``classes.txt`` with a name a line.

A box that cannot be read makes its picture unusable: without it, training would teach that nothing is there. A file
that is not what it should be is refused: where its form is wrong, its boxes are not to be trusted either. File names in
it are only looked up in the listing of what is there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from models.datasets.base import decode
from models.datasets.store import Entry
from protocol.messages import LabelName
from quantization.errors import DatasetError

COCO_FILE: Final = "annotations.json"
CLASSES_FILE: Final = "classes.txt"
MAX_JSON_BYTES: Final = 32 * 2**20
MAX_TEXT_BYTES: Final = 2**20
MAX_NAMES: Final = 1024
"""Of classes that are read; a detector knows fewer (:data:`models.vision.detector.MAX_CLASSES`)."""
MAX_OBJECTS: Final = 200_000

Box = tuple[float, float, float, float]
Objects = list[tuple[int, Box]]
"""Label and box of each object."""

_NAME: Final = TypeAdapter(LabelName)
_Id = int | str
M = TypeVar("M", bound=BaseModel)


class _Image(BaseModel):
    id: _Id
    file_name: str
    width: int | None = None
    height: int | None = None


class _Category(BaseModel):
    id: _Id
    name: str


class _Annotation(BaseModel):
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    iscrowd: Any = 0


class _Coco(BaseModel):
    images: Annotated[list[_Image], Field(min_length=1)]
    categories: Annotated[list[_Category], Field(min_length=1)]
    annotations: list[_Annotation]


@dataclass(frozen=True)
class Drawn:
    """One picture's boxes as a file has them.

    Args:
        path: of the picture, in the listing.
        where: what says so, for reports.
        size: width and height that the file states for the picture; None where it does not.
        objects: boxes left, top, right, bottom; in pixels, or as shares of the picture's sides.
        shares: which of the two.
        unreadable: the first box that could not be read, and why; there are no objects then. None: all could.
    """

    path: str
    where: str
    size: tuple[int, int] | None
    objects: Objects
    shares: bool
    unreadable: str | None = None


class Classes:
    """Names of classes, in order of their first mention."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def number(self, name: str, where: str) -> int:
        """Of a class; a new one if it is new.

        Raises:
            DatasetError: a name that bundles and messages cannot carry, or too many of them.
        """
        name = name.strip()
        if name in self.names:
            return self.names.index(name)
        try:
            _NAME.validate_python(name)
        except ValidationError as error:
            raise DatasetError(
                f"{where}: a class is called {name[:60]!r}; names have up to 48 of A-Z a-z 0-9 space _ . -"
            ) from error
        if len(self.names) == MAX_NAMES:
            raise DatasetError(f"{where}: more than {MAX_NAMES} classes")
        self.names.append(name)
        return len(self.names) - 1


def coco(entry: Entry, files: Mapping[str, Entry], classes: Classes, problems: list[str]) -> list[Drawn]:
    """The pictures of an ``annotations.json``, with their boxes.

    Args:
        entry: the file.
        files: what there is, by path.
        classes: gets the categories that an annotation uses.
        problems: gets a line for each picture that is not there, and for each box of none.

    Raises:
        DatasetError: not COCO, ids or pictures that repeat, or a ``file_name`` that leads out of the folder.
    """
    found = parse(_Coco, entry)
    if len(found.annotations) > MAX_OBJECTS:
        raise DatasetError(f"{entry.where}: {len(found.annotations)} boxes; at most {MAX_OBJECTS} are read")
    images = {one.id: one for one in found.images}
    if len(images) < len(found.images) or len({one.id for one in found.categories}) < len(found.categories):
        raise DatasetError(f"{entry.where}: an id of images or categories repeats")
    used = {one.category_id for one in found.annotations if isinstance(one.category_id, int | float | str)}
    numbers = {one.id: classes.number(one.name, entry.where) for one in found.categories if one.id in used}
    objects: dict[float | str, Objects] = {image: [] for image in images}
    unreadable: dict[float | str, str] = {}
    for at, one in enumerate(found.annotations):
        if not isinstance(one.image_id, int | float | str) or one.image_id not in images:
            problems.append(
                f"{entry.where}: left out annotations[{at}]: no picture has the id {str(one.image_id)[:40]}"
            )
            continue
        reason = _unusable(one, numbers)
        box = four_numbers(one.bbox)
        if reason is not None or box is None:
            reason = reason or "its bbox is not four numbers"
            unreadable.setdefault(one.image_id, f"{entry.where}: annotations[{at}]: {reason}")
            continue
        left, top, width, height = box
        objects[one.image_id].append((numbers[one.category_id], (left, top, left + width, top + height)))
    drawn = []
    for image in found.images:
        path = _picture(entry, image.file_name, files)
        if path is None:
            problems.append(f"{entry.where}: left out {image.file_name[:200]!r}: there is no such picture")
            continue
        size = None if image.width is None or image.height is None else (image.width, image.height)
        problem = unreadable.get(image.id)
        boxes = objects[image.id] if problem is None else []
        drawn.append(
            Drawn(path, f"{entry.where}: {image.file_name[:200]}", size, boxes, shares=False, unreadable=problem)
        )
    return drawn


def _unusable(one: _Annotation, numbers: Mapping[_Id, int]) -> str | None:
    if not isinstance(one.category_id, int | float | str) or one.category_id not in numbers:
        return f"no category has the id {str(one.category_id)[:40]}"
    return "a crowd" if one.iscrowd else None


def _picture(entry: Entry, name: str, files: Mapping[str, Entry]) -> str | None:
    """The path of a COCO picture: beside the file, or in a folder ``images`` there."""
    name = name.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise DatasetError(f"{entry.where}: the file_name {name[:200]!r} leads out of the folder")
    folder = PurePosixPath(entry.path).parent
    candidates = (str(folder / name), str(folder / "images" / name))
    return next((path for path in candidates if path in files), None)


def yolo(entry: Entry, picture: str, numbers: list[int]) -> Drawn:
    """The boxes of one picture's text file.

    Args:
        entry: the file.
        picture: its path.
        numbers: of the classes, in the order of ``classes.txt``.

    Raises:
        DatasetError: not text, or too much of it.
    """
    objects: Objects = []
    for at, line in enumerate(decode(entry.read(MAX_TEXT_BYTES), entry.where).splitlines(), 1):
        if not line.strip():
            continue
        found = _yolo_object(line, numbers)
        if isinstance(found, str):
            problem = f"{entry.where}:{at}: {line[:60]!r}: {found}"
            return Drawn(picture, entry.where, None, [], shares=True, unreadable=problem)
        objects.append(found)
    return Drawn(picture, entry.where, None, objects, shares=True)


def _yolo_object(line: str, numbers: list[int]) -> tuple[int, Box] | str:
    """Label and box of a line, or why it has none."""
    try:
        label, *rest = line.split()
        number = numbers[int(label)] if int(label) >= 0 else None
        box = four_numbers([float(one) for one in rest])
    except (ValueError, IndexError):
        number = box = None
    if number is None or box is None:
        return f"not a class of {CLASSES_FILE} and four numbers"
    x, y, width, height = box
    if max(width, height) > 2:
        return "in pixels? They are shares of the picture"
    return number, (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def class_names(entry: Entry, classes: Classes) -> list[int]:
    """The number of each line of a ``classes.txt``.

    Raises:
        DatasetError: as :meth:`Classes.number` does, or no name.
    """
    lines = decode(entry.read(MAX_TEXT_BYTES), entry.where).rstrip().splitlines()
    if not lines:
        raise DatasetError(f"{entry.where}: no name; it has one a line, that of class 0 first")
    return [classes.number(line, f"{entry.where}:{at}") for at, line in enumerate(lines, 1)]


def four_numbers(values: object) -> Box | None:
    """Four finite numbers of a parsed file; None: something else."""
    if not isinstance(values, list) or len(values) != 4:
        return None
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        return None
    try:
        left, top, right, bottom = (float(one) for one in values)
    except OverflowError:
        return None
    return (left, top, right, bottom) if all(map(math.isfinite, (left, top, right, bottom))) else None


def parse(model: type[M], entry: Entry) -> M:
    """A JSON file as a model.

    Raises:
        DatasetError: it is something else; names the first place.
    """
    try:
        return model.model_validate_json(entry.read(MAX_JSON_BYTES))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part)[:32] for part in first["loc"])
        raise DatasetError(f"{entry.where}: {where}: {first['msg'][:200]}".replace(": : ", ": ")) from error
