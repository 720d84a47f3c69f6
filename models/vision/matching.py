"""Which detections hit: of one class, the surest takes the true box that it fits best, and nobody else gets that."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from models.vision.detector import overlaps

HIT: Final = 0.5
"""The overlap (IoU) from which on a detection is one."""


def hits(found: Tensor, truth: Tensor) -> list[bool]:
    """For each detection of one class in one frame, whether it hits.

    Args:
        found: ``[n, 4]`` boxes, the surest first.
        truth: ``[m, 4]`` boxes.

    >>> import torch
    >>> box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    >>> hits(torch.cat([box, box + 1, box + 8]), box)
    [True, False, False]
    """
    fits = overlaps(found, truth)
    made = []
    for row in range(len(found)):
        best = int(fits[row].argmax()) if len(truth) else -1
        hit = best >= 0 and bool(fits[row, best] >= HIT)
        if hit:
            fits[:, best] = 0
        made.append(hit)
    return made
