"""Average precision, by the COCO rules (pycocotools)."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from models.vision.detector import Detections
from models.vision.matching import hits
from models.vision.pictures import Boxes


@dataclass(frozen=True)
class Precision:
    """How good detections are.

    Args:
        ap: mean over IoU thresholds of 0.50 to 0.95 in steps of 0.05, and over classes.
        ap50: at an IoU of 0.50.
        ap50_by_class: of each class, in order; NaN where the test set has none.
    """

    ap: float
    ap50: float
    ap50_by_class: tuple[float, ...]


def average_precision(
    truths: Sequence[tuple[Boxes, NDArray[np.int64]]], found: Sequence[Detections], classes: int
) -> Precision:
    """Score one test set.

    Args:
        truths: of each image, boxes ``[n, 4]`` and labels ``[n]``.
        found: of each image.
        classes: K.
    """
    annotations: list[dict[str, Any]] = []
    for image, (boxes, labels) in enumerate(truths):
        for box, label in zip(_as_xywh(boxes), labels.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image, "category_id": label,
                    "bbox": box, "area": box[2] * box[3], "iscrowd": 0,
                }
            )  # fmt: skip
    results = [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for image, one in enumerate(found)
        for box, label, score in zip(_as_xywh(one.boxes.numpy()), one.labels.tolist(), one.scores.tolist(), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = COCO()
        truth.dataset = {
            "info": {}, "images": [{"id": image} for image in range(len(truths))],
            "categories": [{"id": label} for label in range(classes)], "annotations": annotations,
        }  # fmt: skip
        truth.createIndex()
        if not results:
            there = {one["category_id"] for one in annotations}
            return Precision(0.0, 0.0, tuple(0.0 if label in there else math.nan for label in range(classes)))
        scored = COCOeval(truth, truth.loadRes(results), "bbox")
        scored.evaluate()
        scored.accumulate()
    # [IoU thresholds, recalls, classes, areas (0 = all), most detections (2 = 100)]; -1 where there is no object.
    table = np.where(scored.eval["precision"][:, :, :, 0, 2] < 0, np.nan, scored.eval["precision"][:, :, :, 0, 2])
    by_class = table[0].mean(axis=0)
    return Precision(float(np.nanmean(table)), float(np.nanmean(by_class)), tuple(by_class.tolist()))


def best_threshold(truths: Sequence[tuple[Boxes, NDArray[np.int64]]], found: Sequence[Detections]) -> float:
    """The score from which on detections, taken together, have the highest F1 at an IoU of 0.5.

    Args:
        truths: of each image, boxes ``[n, 4]`` and labels ``[n]``.
        found: of each image, the surest first.
    """
    scores: list[float] = []
    hit: list[bool] = []
    for (boxes, labels), one in zip(truths, found, strict=True):
        for label in set(one.labels.tolist()):
            own = one.labels == label
            hit += hits(one.boxes[own], torch.from_numpy(boxes[labels == label]))
            scores += one.scores[own].tolist()
    order = np.argsort(-np.array(scores), kind="stable")
    right = np.cumsum(np.array(hit, dtype=float)[order])
    f1 = 2 * right / (np.arange(1, len(right) + 1) + sum(len(labels) for _, labels in truths))
    return float(np.array(scores)[order][int(f1.argmax())]) if len(f1) else 0.5


def _as_xywh(boxes: NDArray[np.float32]) -> list[list[float]]:
    rows: list[list[float]] = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
    return rows
