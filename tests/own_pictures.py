"""Folders of pictures with boxes, as people's label tools leave them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dataset_files import write
from PIL import Image

NAMES = ("cup", "plate")
Object = tuple[int, tuple[float, float, float, float]]


def picture(seed: int = 0, width: int = 40, height: int = 30, kind: str = "PNG") -> bytes:
    """Each seed is another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def coco_json(
    images: Sequence[tuple[str, list[Object]]], *, size: tuple[int, int] | None = (40, 30), names: Sequence[str] = NAMES
) -> dict[str, Any]:
    """A COCO document; boxes are given as left, top, right, bottom, categories count from 1."""
    sides = {} if size is None else {"width": size[0], "height": size[1]}
    return {
        "images": [{"id": 10 + n, "file_name": name, **sides} for n, (name, _) in enumerate(images)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": [
            {"image_id": 10 + n, "category_id": label + 1, "bbox": [left, top, right - left, bottom - top]}
            for n, (_, objects) in enumerate(images)
            for label, (left, top, right, bottom) in objects
        ],
    }


def coco_files(count: int = 10, *, folder: str = "", **more: Any) -> dict[str, bytes]:
    """So many pictures with a cup and a plate each, as files of a folder."""
    objects: list[Object] = [(0, (4, 5, 14, 25)), (1, (20, 3, 38, 28))]
    files = {f"{folder}images/{n}.png": picture(n) for n in range(count)}
    document = coco_json([(f"{n}.png", objects) for n in range(count)], **more)
    return files | {f"{folder}annotations.json": json.dumps(document).encode()}


def bccd_as_coco(archive: Path, folder: Path, count: int) -> Path:
    """The first pictures of BCCD as somebody would have exported them."""
    from models.datasets.store import Store
    from models.vision.bccd import BCCD, CLASSES

    images, files = [], {}
    with Store(archive) as store:
        jpegs = {entry.path.rpartition("/")[2]: entry for entry in store.entries if entry.path.endswith(".jpg")}
        reading = BCCD.read(store, [])
        for one in (next(reading) for _ in range(count)):
            name = f"{one.name}.jpg"
            files[f"images/{name}"] = jpegs[name].read()
            images.append((name, list(zip(one.labels.tolist(), map(tuple, one.boxes.tolist()), strict=True))))
    document = coco_json(images, size=(640, 480), names=CLASSES)  # type: ignore[arg-type]
    return write(folder, files | {"annotations.json": json.dumps(document).encode()})
