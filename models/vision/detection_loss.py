"""What a detector's maps should say, and how far they are from it.

Centres: Gaussians on the boxes and the focal loss of CenterNet (Zhou et al. 2019, arXiv 1904.07850). Boxes: generalised
IoU (Rezatofighi et al. 2019, arXiv 1902.09630) in the middle of each Gaussian, every object weighing the same (as in
TTFNet, Liu et al. 2020, arXiv 1909.00700). Quality: cross-entropy with the overlap that the box has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from models.vision.detector import STRIDE, Maps, cell_middles

SPREAD: Final = 0.54 / 6
"""Standard deviation of a Gaussian, as a share of the box's side (TTFNet's α = 0.54, cut at three deviations)."""
LEAST_SPREAD: Final = 0.6
"""In cells. The neighbours of a small object's cell are then not quite wrong: with 0.35, fewer of them were found."""
BOX_FROM: Final = 0.5
"""Boxes are learned where the Gaussian is at least so high, and at its centre."""
BOX_WEIGHT: Final = 5.0
"""Of validation pictures, 5 found more at every light than 2, and fitted boxes better."""
QUALITY_WEIGHT: Final = 0.5


@dataclass(frozen=True)
class Targets:
    """What the maps of B mosaics should say.

    Args:
        heat: float32 ``[B, K, h, w]``, 1 at an object's centre.
        boxes: float32 ``[B, 4, h, w]`` left, top, right, bottom, photosites.
        weights: float32 ``[B, h, w]``: of the cells that learn a box, summing to one for each object.
        objects: in all mosaics.
    """

    heat: Tensor
    boxes: Tensor
    weights: Tensor
    objects: int


def targets_of(boxes: list[Tensor], labels: list[Tensor], classes: int, height: int, width: int) -> Targets:
    """Targets on maps of ``height`` × ``width`` cells.

    Args:
        boxes: of each mosaic, ``[n, 4]`` photosites.
        labels: of each mosaic, ``[n]``.
        classes: K.
        height: of the maps.
        width: likewise.
    """
    heat = torch.zeros(len(boxes), classes, height, width)
    wanted = torch.zeros(len(boxes), 4, height, width)
    weights = torch.zeros(len(boxes), height, width)
    x, y = cell_middles(height, width)
    for image, (found, kinds) in enumerate(zip(boxes, labels, strict=True)):
        sizes = found[:, 2:] - found[:, :2]
        # Large boxes first: where two lie on each other, the smaller is in front more often than not.
        for i in sizes.prod(dim=1).argsort(descending=True).tolist():
            centre = (found[i, :2] + found[i, 2:]) / 2
            column = int((centre[0] / STRIDE).clamp(0, width - 1))
            row = int((centre[1] / STRIDE).clamp(0, height - 1))
            spread = (sizes[i] * SPREAD).clamp_min(LEAST_SPREAD * STRIDE)
            # About the cell that holds the centre, so that one cell is exactly 1.
            across = torch.exp(-((x - x[column]) ** 2) / (2 * spread[0] ** 2))
            down = torch.exp(-((y - y[row]) ** 2) / (2 * spread[1] ** 2))
            bell = down[:, None] * across[None, :]
            kind = heat[image, int(kinds[i])]
            torch.maximum(kind, bell, out=kind)
            inside = bell >= BOX_FROM
            weights[image][inside] = bell[inside] / bell[inside].sum()
            wanted[image][:, inside] = found[i][:, None]
    return Targets(heat, wanted, weights, sum(map(len, boxes)))


def loss_of(maps: Maps, targets: Targets) -> Tensor:
    """The mean loss of an object, a scalar."""
    objects = max(1, targets.objects)
    centres = _focal(maps.centres, targets.heat) / objects
    learned = targets.weights > 0
    if not bool(learned.any()):
        return centres
    weights = targets.weights[learned]
    height, width = targets.heat.shape[2:]
    x, y = cell_middles(height, width)
    middles = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=2)
    here = middles.expand(len(targets.weights), -1, -1, -1)[learned]
    sides = maps.sides.permute(0, 2, 3, 1)[learned]
    found = torch.cat([here - sides[:, :2], here + sides[:, 2:]], dim=1)
    wanted = targets.boxes.permute(0, 2, 3, 1)[learned]
    iou, giou = _generalised(found, wanted)
    boxes = (weights * (1 - giou)).sum() / objects
    quality = maps.quality[:, 0][learned]
    quality_loss = functional.binary_cross_entropy_with_logits(quality, iou.detach(), weights, reduction="sum")
    return centres + BOX_WEIGHT * boxes + QUALITY_WEIGHT * quality_loss / objects


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Penalty-reduced focal loss, α = 2, β = 4, summed."""
    likely = torch.sigmoid(logits)
    peaks = heat == 1
    hits = -functional.logsigmoid(logits[peaks]) * (1 - likely[peaks]) ** 2
    misses = -functional.logsigmoid(-logits) * likely**2 * (1 - heat) ** 4
    return hits.sum() + (misses * ~peaks).sum()


def _generalised(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of ``[n, 4]`` boxes with as many others."""
    shared = (torch.minimum(found[:, 2:], wanted[:, 2:]) - torch.maximum(found[:, :2], wanted[:, :2])).clamp_min(0)
    around = torch.maximum(found[:, 2:], wanted[:, 2:]) - torch.minimum(found[:, :2], wanted[:, :2])
    both = shared.prod(dim=1)
    union = (found[:, 2:] - found[:, :2]).prod(dim=1) + (wanted[:, 2:] - wanted[:, :2]).prod(dim=1) - both
    iou = both / union.clamp_min(1e-6)
    hull = around.prod(dim=1).clamp_min(1e-6)
    return iou, iou - (hull - union) / hull
