"""Training batches: random crops of recordings, varied as wearers, straps and clocks vary them.

All variation is physical and happens before the ADC: the order in which it happens on a wrist.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from models.resample import Segment
from models.training import digest_of
from models.windows import UNLABELLED
from quantization.codebook import RATE_TOLERANCE
from quantization.errors import TrainingError
from quantization.sensor import Sensor

BACKGROUND: Final = -2
"""The truth of crops that show what is not to be known."""


@dataclass(frozen=True)
class Augment:
    """How far a crop may be varied.

    Args:
        rate: share by which the sampling rate is off, ±; what gateways accept from devices.
        rotation_deg: a strap's play: rotation about a random axis, ± this (normal, one standard deviation).
        gain: share by which each channel's sensitivity is off (normal, one standard deviation).
        mirror: probability of the other wrist: the x axis of the accelerometer and the y and z axes of the gyroscope
            change sign (a rotation is a pseudo-vector).
    """

    rate: float = RATE_TOLERANCE
    rotation_deg: float = 10.0
    gain: float = 0.02
    mirror: float = 0.5


class Crops:
    """Random windows of recordings, augmented, with the truth of the crop as it came out.

    Args:
        segments: where to cut from; none spans a gap.
        background: examples of what is not to be known; their crops have truth :data:`BACKGROUND`.
        length: T, samples of a window.
        stride: one epoch has one crop for every ``stride`` samples of the recordings.
        classes: K; the truth of a crop is by the scoring rule of :mod:`models.windows`.
        augment: how far to vary.

    Raises:
        TrainingError: no segment is long enough.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        *,
        length: int,
        stride: int,
        classes: int,
        augment: Augment,
        background: Sequence[Segment] = (),
    ) -> None:
        self._augment: Final = augment
        self._length: Final = length
        self._classes: Final = classes
        # A crop at a rate that is too fast reads beyond its length.
        self._reach: Final = math.ceil((length - 1) * (1 + augment.rate)) + 1
        strange = [replace(s, label=np.full_like(s.label, BACKGROUND)) for s in background]
        long_enough = [segment for segment in (*segments, *strange) if len(segment.values) >= self._reach]
        if not long_enough:
            raise TrainingError(f"no recording is long enough for a window of {length} samples")
        self._values: Final = torch.from_numpy(np.concatenate([segment.values for segment in long_enough]))
        self._label: Final = torch.from_numpy(np.concatenate([segment.label for segment in long_enough]).astype(int))
        starts, at = [], 0
        for segment in long_enough:
            starts.append(np.arange(at, at + len(segment.values) - self._reach + 1))
            at += len(segment.values)
        self._starts: Final = torch.from_numpy(np.concatenate(starts))
        self._per_epoch: Final = max(1, len(self._values) // stride)
        self._triples: Final = self._values.shape[1] // 3 if self._values.shape[1] % 3 == 0 else 0

    def class_counts(self) -> Tensor:
        """``[K]`` labelled samples of each class."""
        return torch.bincount(self._label[self._label >= 0], minlength=self._classes)

    def values(self) -> Tensor:
        """``[n, C]`` every sample, physical units."""
        return self._values

    def describe(self) -> list[object]:
        """What tells these crops from others; fit for JSON."""
        seen = digest_of((self._values.numpy(), self._label.numpy()))
        return [seen, self._length, self._per_epoch, self._classes, asdict(self._augment)]

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of (values ``[B, T, C]``, truth ``[B]``); unlabelled crops have truth -1, background -2."""
        chosen = torch.randperm(len(self._starts), generator=generator)[: self._per_epoch]
        for part in torch.split(chosen, size):
            if len(part) > 1:  # batch normalisation needs two
                yield self._crop(self._starts[part], generator)

    def batches_per_epoch(self, size: int) -> int:
        """How many batches an epoch has."""
        return math.ceil(min(self._per_epoch, len(self._starts)) / size)

    def _crop(self, start: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        batch = len(start)
        rate = 1 + self._augment.rate * (2 * torch.rand(batch, generator=generator) - 1)
        position = rate[:, None] * torch.arange(self._length)  # [B, T], within the segment by construction of reach
        before = position.floor().long()
        share = (position - before).unsqueeze(-1)
        at = start[:, None] + before
        after = start[:, None] + torch.clamp(before + 1, max=self._reach - 1)
        values = self._values[at] * (1 - share) + self._values[after] * share  # [B, T, C]
        truth = self._majority(self._label[torch.where(share.squeeze(-1) < 0.5, at, after)])
        return self._vary(values, generator), truth

    def _majority(self, label: Tensor) -> Tensor:
        candidates = torch.tensor([*range(self._classes), UNLABELLED, BACKGROUND])
        votes = torch.stack([(label == k).sum(dim=1) for k in candidates], dim=1)
        return candidates[votes.argmax(dim=1)]  # the first of equals, as in models.windows.majority_label

    def _vary(self, values: Tensor, generator: torch.Generator) -> Tensor:
        batch, _, channels = values.shape
        values = values * (1 + self._augment.gain * torch.randn(batch, 1, channels, generator=generator))
        if not self._triples:
            return values
        turn = _rotations(batch, math.radians(self._augment.rotation_deg), generator)
        flip = (torch.rand(batch, generator=generator) < self._augment.mirror).float() * -2 + 1  # ±1
        parts = []
        for triple in range(self._triples):
            xyz = values[..., 3 * triple : 3 * triple + 3] @ turn
            one = torch.ones_like(flip)
            signs = torch.stack([flip, one, one] if triple == 0 else [one, flip, flip], dim=1)
            parts.append(xyz * signs[:, None, :])
        return torch.cat(parts, dim=-1)


def adc(values: Tensor, sensor: Sensor) -> Tensor:
    """What a part's ADC leaves of ``[..., C]`` physical values: rounded to counts and saturated, as float32."""
    # In float64, as in Sensor: in float32 a value next to a tie would round to the other count.
    lsb = torch.tensor(sensor.lsb, dtype=torch.float64)
    offset = torch.tensor(sensor.offset, dtype=torch.float64)
    counts = (torch.round(values.double() / lsb) + offset).clamp(sensor.count_min, sensor.count_max)
    return ((counts - offset) * lsb).float()


def _rotations(batch: int, sigma: float, generator: torch.Generator) -> Tensor:
    """``[B, 3, 3]`` rotations by a normal angle about a random axis (Rodrigues' formula)."""
    axis = torch.nn.functional.normalize(torch.randn(batch, 3, generator=generator), dim=1)
    angle = (sigma * torch.randn(batch, generator=generator))[:, None, None]
    x, y, z = axis.unbind(dim=1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(batch, 3, 3)
    return torch.eye(3) + torch.sin(angle) * cross + (1 - torch.cos(angle)) * (cross @ cross)
