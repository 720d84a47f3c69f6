"""BCCD: blood smears under a microscope, with red cells, white cells and platelets boxed (MIT licence)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree as ET

from models.datasets.base import decode
from models.datasets.store import Entry, Store
from models.vision.pictures import Picture, PublishedPictures, checked_boxes, read_picture
from quantization.errors import DatasetError

CLASSES: Final = ("RBC", "WBC", "Platelets")
MAX_ANNOTATION_BYTES: Final = 2**20
_ANNOTATION: Final = re.compile(r"(?:^|/)Annotations/(BloodImage_\d+)\.xml$")
_SPLIT: Final = re.compile(r"(?:^|/)ImageSets/Main/(train|val|test)\.txt$")

_Object = tuple[int, tuple[float, float, float, float]]


def _read(store: Store, problems: list[str]) -> Iterator[Picture]:
    splits = {
        name: found.match[1]
        for found in store.find(_SPLIT)
        for name in decode(found.entry.read(MAX_ANNOTATION_BYTES), found.entry.where).split()
    }
    for found in store.find(_ANNOTATION):
        name = found.match[1]
        pictures = store.find(re.compile(rf"(?:^|/)JPEGImages/{name}\.jpg$"))
        if not pictures or name not in splits:
            raise DatasetError(f"{found.entry.where}: JPEGImages/{name}.jpg or its line in ImageSets/Main is missing")
        srgb = read_picture(pictures[0].entry)
        objects = _objects(found.entry, problems)
        boxes, labels = checked_boxes(found.entry.where, objects, srgb.shape[:2], problems)
        yield Picture(name, splits[name], srgb, boxes, labels)


def _objects(entry: Entry, problems: list[str]) -> list[_Object]:
    text = decode(entry.read(MAX_ANNOTATION_BYTES), entry.where)
    # Entities could grow without bound; annotations have none. Nor have they zeros: the parser would take the text for
    # UTF-16, in which a "<!" looks different.
    if "<!" in text or "\0" in text:
        raise DatasetError(f"{entry.where}: an annotation with a document type, a comment or a zero is not read")
    try:
        root = ET.fromstring(text)  # noqa: S314 - without these there is nothing to expand
    except ET.ParseError as error:
        raise DatasetError(f"{entry.where}: not XML: {error}") from error
    objects: list[_Object] = []
    for item in root.iter("object"):
        name = item.findtext("name", "")
        try:
            left, top, right, bottom = (
                float(item.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            objects.append((CLASSES.index(name), (left, top, right, bottom)))
        except ValueError:
            problems.append(
                f"{entry.where}: left out an object {name[:32]!r} of no known class or without four numbers"
            )
    return objects


BCCD: Final = PublishedPictures(
    name="bccd",
    title="BCCD: 364 blood smears, 640 × 480, with red cells, white cells and platelets",
    licence="MIT",
    citation="Shenggan: BCCD Dataset, https://github.com/Shenggan/BCCD_Dataset.",
    how_to="Get https://github.com/Shenggan/BCCD_Dataset as a zip.",
    classes=CLASSES,
    annotation=_ANNOTATION,
    read=_read,
)
