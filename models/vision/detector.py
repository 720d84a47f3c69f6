"""The detector: a small anchor-free convolutional network on the four half-resolution planes of a mosaic.

Each cell of a map at an eighth of the mosaic's resolution says how likely an object of each class has its centre there
(CenterNet: Zhou et al. 2019, arXiv 1904.07850), and how far that object's four sides are (FCOS: Tian et al. 2019, arXiv
1904.01355). Residual stages as in He et al. 2016; two lateral connections bring deep features back up.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantization.errors import BundleError

STRIDE: Final = 8
"""Photosites per cell."""
COARSEST: Final = 32
"""Photosites per cell of the deepest stage: mosaics are padded to whole ones."""
PRIOR: Final = 0.01
"""How likely a centre is before anything is learned; keeps the first steps from being all about empty cells."""
MAX_OBJECTS: Final = 100
"""Most objects of one frame, before overlapping ones are taken out."""
MAX_CLASSES: Final = 64
LEAST_SPREAD: Final = 1e-3
"""Added to the standard deviation of a frame, which is 0 where nothing is in sight."""


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes of a :class:`Detector`.

    Args:
        classes: K.
        widths: channels of the four stages, at 1/4, 1/8, 1/16 and 1/32 of the mosaic's resolution.
        blocks: residual blocks of each stage.
        head: channels of the map that the outputs are read from.

    Raises:
        BundleError: a size that no detector of ours has.
    """

    classes: int
    widths: tuple[int, int, int, int] = (16, 48, 96, 160)
    blocks: tuple[int, int, int, int] = (1, 2, 2, 2)
    head: int = 48

    def __post_init__(self) -> None:
        fits = (
            all(isinstance(size, int) for size in (self.classes, *self.widths, *self.blocks, self.head))
            and 1 <= self.classes <= MAX_CLASSES
            and (len(self.widths), len(self.blocks)) == (4, 4)
            and all(4 <= width <= 512 for width in self.widths)
            and all(1 <= blocks <= 8 for blocks in self.blocks)
            and 4 <= self.head <= 512
        )
        if not fits:
            raise BundleError(f"not a detector's sizes: {self}")

    def to_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> DetectorConfig:
        """Read :meth:`to_dict`'s form.

        Raises:
            BundleError: a field is missing, unknown or out of range.
        """
        try:
            lists = {name: tuple(fields[name]) for name in ("widths", "blocks")}
            return cls(**{**fields, **lists})
        except (KeyError, TypeError) as error:
            raise BundleError(f"not a detector's sizes: {error!r}") from error


class Maps(NamedTuple):
    """What the network says of B mosaics.

    Fields:
        centres: float32 ``[B, K, H/8, W/8]`` logits.
        sides: float32 ``[B, 4, H/8, W/8]`` from the cell's middle to left, top, right, bottom, photosites, > 0.
        quality: float32 ``[B, 1, H/8, W/8]`` logits of the overlap (IoU) that the box is expected to have.
    """

    centres: Tensor
    sides: Tensor
    quality: Tensor


class _Block(nn.Module):
    """Two 3 × 3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)  # begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.norm(self.second(self.first(x))))


def _conv(inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Detector(nn.Module):
    """``[B, 4, H/2, W/2]`` quantized planes in [-1, 1] to :class:`Maps` of as many whole cells as cover them."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        stages: list[nn.Module] = []
        inputs = 4
        for width, blocks in zip(config.widths, config.blocks, strict=True):
            stages.append(nn.Sequential(_conv(inputs, width, stride=2), *(_Block(width) for _ in range(blocks))))
            inputs = width
        self.stages = nn.ModuleList(stages)
        self.laterals = nn.ModuleList([_conv(width, config.head, kernel=1) for width in config.widths[1:]])
        self.merge = _conv(config.head, config.head)
        self.centre_head = nn.Sequential(_conv(config.head, config.head), nn.Conv2d(config.head, config.classes, 1))
        self.box_head = nn.Sequential(_conv(config.head, config.head), nn.Conv2d(config.head, 5, 1))
        for head in (self.centre_head, self.box_head):
            nn.init.normal_(cast("Tensor", head[1].weight), std=0.01)
            nn.init.zeros_(cast("Tensor", head[1].bias))
        nn.init.constant_(cast("Tensor", self.centre_head[1].bias), float(torch.logit(torch.tensor(PRIOR))))

    def forward(self, planes: Tensor) -> Maps:
        """See the class."""
        # Each frame by its own mean and spread: light then only moves what it does to the noise.
        spread, mean = torch.std_mean(planes, dim=(1, 2, 3), keepdim=True)
        x = padded((planes - mean) / (spread + LEAST_SPREAD))
        found = []
        for stage in self.stages:  # H/4, H/8, H/16, H/32
            x = stage(x)
            found.append(x)
        up = self.laterals[2](found[3])
        for lateral, features in ((self.laterals[1], found[2]), (self.laterals[0], found[1])):
            up = lateral(features) + functional.interpolate(up, scale_factor=2.0, mode="nearest")
        up = self.merge(up)  # [B, head, H/8, W/8]
        centres, boxes = self._heads(up)
        # The exponential keeps distances positive and their errors relative; 8 photosites are one cell.
        sides = STRIDE * torch.exp(boxes[:, :4].clamp(-6, 6))
        return Maps(centres, sides, boxes[:, 4:])

    def _heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        centres, boxes = self.centre_head[0](features), self.box_head[0](features)
        # The last layers in full precision: in bfloat16 a box's sides would move in steps of a hundredth.
        with torch.autocast(features.device.type, enabled=False):
            return self.centre_head[1](centres.float()), self.box_head[1](boxes.float())


def padded(planes: Tensor) -> Tensor:
    """``[B, C, h, w]`` with zeros to the right and below, up to whole cells of the coarsest stage."""
    height, width = planes.shape[2:]
    whole = COARSEST // 2
    return functional.pad(planes, (0, -width % whole, 0, -height % whole))


class Detections(NamedTuple):
    """Objects of one frame, the surest first.

    Fields:
        boxes: float32 ``[n, 4]`` left, top, right, bottom, photosites.
        labels: int64 ``[n]``.
        scores: float32 ``[n]`` 0 .. 1.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor


def cell_middles(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where a map's cells lie: x ``[width]`` and y ``[height]``, photosites."""
    return (torch.arange(width) + 0.5) * STRIDE, (torch.arange(height) + 0.5) * STRIDE


@torch.inference_mode()
def decode(maps: Maps, size: tuple[int, int], *, threshold: float = 0.05, overlap: float = 0.55) -> list[Detections]:
    """Maps to objects.

    Args:
        maps: of B mosaics.
        size: height and width to which boxes are cut, photosites.
        threshold: objects with a lower score are left out.
        overlap: of two boxes of one class with a larger IoU, the surer stays.

    Returns:
        One :class:`Detections` for each mosaic, at most 100 objects.
    """
    # A box's score: how likely a centre is here, weighed with how well the box is expected to fit.
    heat = torch.sqrt(torch.sigmoid(maps.centres) * torch.sigmoid(maps.quality))
    peaks = functional.max_pool2d(heat, 3, stride=1, padding=1) == heat
    heat = heat * peaks
    _, classes, height, width = heat.shape
    x, y = cell_middles(height, width)
    found = []
    for scores, sides in zip(heat.flatten(1), maps.sides, strict=True):
        best, at = scores.topk(min(MAX_OBJECTS, classes * height * width))
        at = at[best >= threshold]
        best = best[best >= threshold]
        cell = at % (height * width)
        left, top, right, bottom = sides.flatten(1)[:, cell]
        across, down = x[cell % width], y[cell // width]
        boxes = torch.stack([across - left, down - top, across + right, down + bottom], dim=1)
        boxes[:, 0::2] = boxes[:, 0::2].clamp(0, size[1])
        boxes[:, 1::2] = boxes[:, 1::2].clamp(0, size[0])
        labels = at // (height * width)
        # Cells beyond the frame may say boxes of which nothing is left.
        kept = suppress(boxes, labels, overlap) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        found.append(Detections(boxes[kept], labels[kept], best[kept]))
    return found


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """IoU of ``[n, 4]`` with ``[m, 4]`` boxes: ``[n, m]``; 0 where both are empty.

    >>> overlaps(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]])).round(decimals=3).tolist()
    [[0.3330000042915344]]
    """
    corner = torch.maximum(first[:, None, :2], second[None, :, :2])
    other = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (other - corner).clamp_min(0).prod(dim=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(dim=1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None, :] - shared).clamp_min(1e-9)


def suppress(boxes: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Greedy non-maximum suppression within each class.

    Args:
        boxes: ``[n, 4]``, the surest first.
        labels: ``[n]``.
        overlap: a box goes if one that stays, of its class and before it, has a larger IoU with it.

    Returns:
        bool ``[n]``: which stay.
    """
    above = overlaps(boxes, boxes) > overlap
    above &= labels[:, None] == labels[None, :]
    above = torch.triu(above, diagonal=1)
    kept = torch.ones(len(boxes), dtype=torch.bool)
    # Vectorised to a fixed point: after round i the first i decisions are final, and most settle in two or three.
    for _ in range(len(boxes)):
        settled = ~(above & kept[:, None]).any(dim=0)
        if torch.equal(settled, kept):
            break
        kept = settled
    return kept
