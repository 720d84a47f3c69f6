"""Windows of a stream, and the one rule by which they are labelled and scored: in training, in evaluation and live.

**The scoring rule** (``majority``): a window's truth is the label that most of its samples carry, the lower index of
two that are equally frequent; unlabelled samples vote for "unlabelled", and a window whose majority is unlabelled is
not scored. All other windows are scored, also those that span a change; the score on *pure* windows (every sample
carries the truth) stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.resample import Segment
from quantization.errors import DatasetError

SCORING_RULE: Final = "majority"
UNLABELLED: Final = -1


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of several recordings.

    Args:
        values: float32 ``[W, T, C]``, g and °/s.
        truth: int16 ``[W]``, index into the label names, -1 = unlabelled.
        pure: bool ``[W]``, all samples carry the truth.
        subject: ``[W]`` subject of each window.
    """

    values: NDArray[np.float32]
    truth: NDArray[np.int16]
    pure: NDArray[np.bool_]
    subject: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.truth)

    def where(self, keep: NDArray[np.bool_]) -> Windows:
        """Only the windows for which ``keep`` [W] holds."""
        return Windows(self.values[keep], self.truth[keep], self.pure[keep], self.subject[keep])

    def of(self, subjects: Iterable[str]) -> Windows:
        """Only the windows of these subjects."""
        return self.where(np.isin(self.subject, list(subjects)))


def majority_label(label: NDArray[np.int16], classes: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """The truth of windows and whether it is pure.

    Args:
        label: ``[W, T]``, -1 .. classes - 1.
        classes: how many label names there are.

    Returns:
        truth ``[W]`` int16 and pure ``[W]`` bool.

    >>> truth, pure = majority_label(np.array([[0, 1, 1], [2, 2, 2], [-1, -1, 0]], dtype=np.int16), 3)
    >>> truth.tolist(), pure.tolist()
    ([1, 2, -1], [False, True, False])
    """
    # Column `classes` counts the unlabelled samples; argmax then takes the first of equals, so labels win over it.
    votes = (np.where(label < 0, classes, label)[:, :, None] == np.arange(classes + 1)).sum(axis=1)
    winner = votes.argmax(axis=1)
    pure = (winner < classes) & (votes[np.arange(len(votes)), winner] == label.shape[1])
    return np.where(winner == classes, UNLABELLED, winner).astype(np.int16), pure


def cut(segments: Iterable[Segment], *, length: int, stride: int, classes: int) -> Windows:
    """All whole windows of ``length`` samples, one every ``stride``; none spans a gap or two recordings.

    Raises:
        DatasetError: no segment is long enough for one window.
    """
    values, labels, subjects = [], [], []
    for segment in segments:
        if len(segment.values) < length:
            continue
        view = np.lib.stride_tricks.sliding_window_view(segment.values, length, axis=0)[::stride]  # [w, C, T]
        values.append(view.transpose(0, 2, 1))
        labels.append(np.lib.stride_tricks.sliding_window_view(segment.label, length)[::stride])
        subjects.append(np.full(len(view), segment.subject))
    if not values:
        raise DatasetError(f"no recording is long enough for one window of {length} samples")
    truth, pure = majority_label(np.concatenate(labels), classes)
    return Windows(np.ascontiguousarray(np.concatenate(values)), truth, pure, np.concatenate(subjects))
