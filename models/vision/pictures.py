"""Annotated pictures: what every image data set gives, from its archive or its folder as published."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from models.datasets.store import Entry, Store
from quantization.errors import DatasetError

MAX_PIXELS: Final = 2**24
"""A larger picture is refused before it is decoded."""
MAX_PICTURE_BYTES: Final = 2**28
"""So much as the largest picture takes uncompressed, at 16 bits."""
_UNREADABLE: Final = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    AssertionError,  # Pillow's answer to a palette that is not there
    # What Pillow says of the largest by itself; the warning, where warnings are errors.
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

_TURNS: Final[dict[object, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture upright, by its EXIF orientation. Label tools draw boxes on pictures that are."""

Boxes = NDArray[np.float32]
"""``[n, 4]`` left, top, right, bottom, in pixels from the picture's top left corner; right and bottom exclusive."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture with its boxes.

    Args:
        name: names it within its set.
        split: what the publisher or the place says it belongs to ("train", "fudan", ...).
        srgb: uint8 ``[H, W, 3]``.
        boxes: float32 ``[n, 4]``, within the picture.
        labels: int64 ``[n]``, indices into the set's classes.
    """

    name: str
    split: str
    srgb: NDArray[np.uint8]
    boxes: Boxes
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class PictureSet:
    """A data set, read.

    Args:
        name: of the data set.
        classes: names of what is boxed.
        pictures: by name.
        problems: a line for each annotation that was left out, and why.
    """

    name: str
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    problems: tuple[str, ...]

    def of(self, *splits: str) -> list[Picture]:
        """The pictures of some splits."""
        return [picture for picture in self.pictures if picture.split in splits]


@dataclass(frozen=True)
class PublishedPictures:
    """A data set of pictures in its published layout.

    Args:
        annotation: finds a file of boxes by the tail of its path.
        read: gives the pictures of an opened archive or folder; appends to the list what it leaves out.
    """

    name: str
    title: str
    licence: str
    citation: str
    how_to: str
    classes: tuple[str, ...]
    annotation: re.Pattern[str]
    read: Callable[[Store, list[str]], Iterator[Picture]]

    def load(self, path: Path) -> PictureSet:
        """Read all of it.

        Raises:
            DatasetError: ``path`` does not hold the data set as it is published, or a picture is damaged.
        """
        problems: list[str] = []
        with Store(path) as store:
            pictures = tuple(self.read(store, problems))
            if not pictures:
                raise DatasetError(f"{path}: not {self.name}: found {store.listing()}. {self.how_to}")
        return PictureSet(self.name, self.classes, pictures, tuple(problems))


def read_picture(entry: Entry) -> NDArray[np.uint8]:
    """uint8 ``[H, W, 3]`` of a PNG or JPEG.

    Raises:
        DatasetError: not a picture, damaged, or larger than 2^24 pixels.
    """
    return decoded_picture(entry.read(MAX_PICTURE_BYTES), entry.where)


def decoded_picture(data: bytes, where: str) -> NDArray[np.uint8]:
    """uint8 ``[H, W, 3]`` of a PNG or JPEG, upright as its EXIF data says.

    Raises:
        DatasetError: not a picture, damaged, or larger than 2^24 pixels.
    """
    try:
        with warnings.catch_warnings():
            # Of damaged EXIF data: whoever shows the picture does without them, too.
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DatasetError(f"{where}: {image.width} × {image.height} pixels are more than {MAX_PIXELS}")
                turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
                srgb = image.convert("RGB")
                return np.asarray(srgb if turn is None else srgb.transpose(turn))
    except _UNREADABLE as error:
        raise DatasetError(f"{where}: not a picture that can be read: {str(error) or 'damaged'}") from error


def checked_boxes(
    where: str, found: list[tuple[int, tuple[float, float, float, float]]], size: tuple[int, int], problems: list[str]
) -> tuple[Boxes, NDArray[np.int64]]:
    """Boxes cut to the picture; those without an area are left out and reported.

    Args:
        where: of the picture, for reports.
        found: label and box of each object.
        size: height and width of the picture.
        problems: gets a line for each box that is left out or cut.
    """
    height, width = size
    boxes, labels = [], []
    for label, (left, top, right, bottom) in found:
        cut = (max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom))
        if any(map(math.isnan, (left, top, right, bottom))) or cut[2] - cut[0] < 1 or cut[3] - cut[1] < 1:
            problems.append(f"{where}: left out a box without an area: {left:g}, {top:g}, {right:g}, {bottom:g}")
            continue
        if cut != (left, top, right, bottom):
            problems.append(f"{where}: cut a box beyond the picture: {left:g}, {top:g}, {right:g}, {bottom:g}")
        boxes.append(cut)
        labels.append(label)
    return np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(labels, dtype=np.int64)
