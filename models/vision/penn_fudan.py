"""Penn-Fudan Database for Pedestrian Detection: street pictures of two campuses (Wang et al., ACCV 2007)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from models.datasets.base import decode
from models.datasets.store import Store
from models.vision.pictures import Picture, PublishedPictures, checked_boxes, read_picture
from quantization.errors import DatasetError

_ANNOTATION: Final = re.compile(r"(?:^|/)Annotation/((Fudan|Penn)Ped\d+)\.txt$")
_BOX: Final = re.compile(r"^Bounding box for object .*: \((-?\d+), (-?\d+)\) - \((-?\d+), (-?\d+)\)\s*$", re.MULTILINE)


def _read(store: Store, problems: list[str]) -> Iterator[Picture]:
    for found in store.find(_ANNOTATION):
        name, campus = found.match[1], found.match[2].lower()
        pictures = store.find(re.compile(rf"(?:^|/)PNGImages/{name}\.png$"))
        if not pictures:
            raise DatasetError(f"{found.entry.where}: its picture PNGImages/{name}.png is missing")
        srgb = read_picture(pictures[0].entry)
        # Pixels count from 1, and a box includes its last one.
        corners = [tuple(map(float, box)) for box in _BOX.findall(decode(found.entry.read(), found.entry.where))]
        objects = [(0, (left - 1, top - 1, right, bottom)) for left, top, right, bottom in corners]
        boxes, labels = checked_boxes(found.entry.where, objects, srgb.shape[:2], problems)
        yield Picture(name, campus, srgb, boxes, labels)


PENN_FUDAN: Final = PublishedPictures(
    name="penn_fudan",
    title="Penn-Fudan pedestrians: 170 street pictures with 423 people, two campuses",
    licence="none stated",
    citation=("L. Wang, J. Shi, G. Song, I. Shen: Object Detection Combining Recognition and Segmentation. ACCV 2007."),
    how_to="Get PennFudanPed.zip from https://www.cis.upenn.edu/~jshi/ped_html/.",
    classes=("person",),
    annotation=_ANNOTATION,
    read=_read,
)
