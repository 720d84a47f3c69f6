"""The live score of a detector: average precision and recall at an IoU of 0.5, over the last frames with a known truth.

The precision is interpolated at 101 recalls, as COCO does (Lin et al. 2014, arXiv 1405.0312).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from models.vision.matching import hits
from protocol.messages import FoundBox, TrueBox

ROLLING_FRAMES: Final = 200
_RECALLS: Final = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class DetectionScore:
    """What :meth:`LiveDetectionScore.read` gives; None where no true box stands behind it.

    Args:
        model: ``name@version``.
        frames: scored since the start.
        ap50: mean over classes, of the last frames.
        recall: share of true boxes that were found, of the last frames.
    """

    model: str
    frames: int
    ap50: float | None
    recall: float | None


@dataclass(frozen=True)
class _Scored:
    """One class in one frame: the scores of its detections, which of them hit, and how many true boxes there were."""

    scores: list[float]
    hits: list[bool]
    truths: int


class LiveDetectionScore:
    """Of one detector.

    Args:
        model: ``name@version``.
        classes: what it knows. Other things in a truth have no part in the score: it cannot find them.
    """

    def __init__(self, model: str, classes: Sequence[str]) -> None:
        self._model = model
        self._classes = tuple(classes)
        self._frames = 0
        self._read: DetectionScore | None = None
        self._rolling: deque[dict[str, _Scored]] = deque(maxlen=ROLLING_FRAMES)

    def update(self, truth: Sequence[TrueBox], found: Sequence[FoundBox]) -> None:
        """One more frame."""
        labels = {one.label for one in (*truth, *found)} & set(self._classes)
        self._frames += 1
        self._read = None
        self._rolling.append(
            {
                name: _match([t for t in truth if t.label == name], [f for f in found if f.label == name])
                for name in labels
            }
        )

    def read(self) -> DetectionScore:
        """As it is now."""
        if self._read is None:
            self._read = self._computed()
        return self._read

    def _computed(self) -> DetectionScore:
        names = {name for frame in self._rolling for name in frame}
        by_class = [[frame[name] for frame in self._rolling if name in frame] for name in sorted(names)]
        known = [frames for frames in by_class if sum(one.truths for one in frames)]
        truths = sum(one.truths for frames in known for one in frames)
        if not truths:
            return DetectionScore(self._model, self._frames, None, None)
        hits = sum(sum(one.hits) for frames in known for one in frames)
        ap50 = float(np.mean([_average_precision(frames) for frames in known]))
        return DetectionScore(self._model, self._frames, ap50, hits / truths)


def _match(truth: Sequence[TrueBox], found: Sequence[FoundBox]) -> _Scored:
    """One class in one frame."""
    surest = sorted(found, key=lambda one: -one.score)
    return _Scored([one.score for one in surest], hits(_sides(surest), _sides(truth)), len(truth))


def _average_precision(frames: Sequence[_Scored]) -> float:
    scores = np.array([score for one in frames for score in one.scores])
    hits = np.array([hit for one in frames for hit in one.hits], dtype=float)
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order])
    recall = right / sum(one.truths for one in frames)
    precision = right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
    at = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.where(at < len(envelope), envelope[np.minimum(at, len(envelope) - 1)], 0.0).mean())


def _sides(boxes: Sequence[TrueBox]) -> Tensor:
    return torch.tensor([one.box for one in boxes], dtype=torch.float64).reshape(-1, 4)
