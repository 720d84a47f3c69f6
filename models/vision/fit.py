"""Joint training of an image quantizer and a detector."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.vision.detection_loss import loss_of, targets_of
from models.vision.detector import Detections, Detector, Maps, decode
from models.vision.precision import Precision, average_precision
from models.vision.shots import Shot, Shots
from quantization.errors import TrainingError
from quantization.gamma_image import PlaneQuantizer, UnquantizedPlanes

EMA_DECAY: Final = 0.995
"""Averages over 200 steps, six epochs of the smallest set."""
WARM_UP: Final = 0.1
"""Share of all steps in which the learning rate rises, before the cosine."""
CLIP: Final = 10.0
"""Gradients are cut to this norm: the first boxes can be far off."""
EVALUATION_BATCH: Final = 16
EVALUATION_THRESHOLD: Final = 0.01
"""Average precision wants the unsure detections, too."""


@dataclass(frozen=True)
class DetectorSettings:
    """How to train.

    Args:
        epochs: all of them; nothing stops early.
        batch: mosaics in a step.
        learning_rate: of the network, at its peak.
        quantizer_rate: the quantizer's learning rate as a multiple of the network's.
        weight_decay: of the network (AdamW).
        seed: of initialisation, windows, noise.
    """

    epochs: int = 120
    batch: int = 4
    learning_rate: float = 4e-3
    quantizer_rate: float = 5.0
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or self.learning_rate <= 0 or self.quantizer_rate < 0:
            raise TrainingError(f"impossible settings: {self}")


class JointDetector(nn.Module):
    """A quantizer and the detector that learns with it: ``[B, 4, H/2, W/2]`` light to :class:`Maps`."""

    def __init__(self, quantizer: PlaneQuantizer | UnquantizedPlanes, detector: Detector) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.detector = detector

    def forward(self, light: Tensor) -> Maps:
        """``[B, 4, H/2, W/2]`` float64 fractions of full scale to maps."""
        maps: Maps = self.detector(self.quantizer(light).to(memory_format=torch.channels_last))
        return maps


def fit(
    model: JointDetector,
    shots: Shots,
    settings: DetectorSettings,
    progress: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> JointDetector:
    """Train, and return the exponential moving average of the model.

    Args:
        model: freshly initialised.
        shots: of the training set; one epoch photographs each view once.
        settings: how.
        progress: gets every epoch's number, from 1, and mean loss.

    Raises:
        TrainingError: fewer views than one batch has, or the loss is no number any more.
    """
    steps = len(shots.views) // settings.batch
    if not steps:
        raise TrainingError(f"{len(shots.views)} pictures do not fill a batch of {settings.batch}")
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    curve = list(model.quantizer.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": model.detector.parameters(), "weight_decay": settings.weight_decay},
            {"params": curve, "lr": settings.learning_rate * settings.quantizer_rate, "weight_decay": 0.0},
        ][: 2 if curve else 1],
        lr=settings.learning_rate,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _Pace(steps * settings.epochs))
    average = AveragedModel(model, multi_avg_fn=_average)
    order = np.random.default_rng([settings.seed, 3])
    for epoch in range(settings.epochs):
        model.train()
        total = 0.0
        for batch in _batches(order.permutation(len(shots.views)).tolist(), settings.batch):
            loss = _loss(model, [shots.varied(index, epoch) for index in batch])
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(f"the loss is {value} in epoch {epoch + 1}: lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.detector.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            total += value
        progress(epoch + 1, total / steps)
    return cast("JointDetector", average.module).eval()


class _Pace:
    """Learning rate over the steps, as a share of its peak: up in a line, down in a cosine."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._rising = max(1, round(steps * WARM_UP))

    def __call__(self, step: int) -> float:
        if step < self._rising:
            return (step + 1) / self._rising
        return 0.5 * (1 + math.cos(math.pi * (step - self._rising) / max(1, self._steps - self._rising)))


def _average(means: Sequence[Tensor], currents: Sequence[Tensor], updates: Tensor | int) -> None:
    """An exponential moving average that begins short: a small data set has fewer steps than its length."""
    n = float(updates)
    for mean, current in zip(means, currents, strict=True):
        mean.lerp_(current, 1 - min(EMA_DECAY, (1 + n) / (10 + n)))


def _batches(order: list[int], size: int) -> Iterator[list[int]]:
    """Whole batches; what is left over waits for another epoch's order."""
    for at in range(0, len(order) - size + 1, size):
        yield order[at : at + size]


def _loss(model: JointDetector, taken: list[Shot]) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        maps = model(light_of(taken))
    targets = targets_of(
        [torch.from_numpy(shot.boxes) for shot in taken],
        [torch.from_numpy(shot.labels) for shot in taken],
        maps.centres.shape[1],
        maps.centres.shape[2],
        maps.centres.shape[3],
    )
    return loss_of(maps, targets)


def light_of(taken: Sequence[Shot]) -> Tensor:
    """``[B, 4, H/2, W/2]`` float64 of shots of one size."""
    return torch.from_numpy(np.stack([shot.planes for shot in taken]))


@torch.inference_mode()
def detect(model: JointDetector, taken: Sequence[Shot], threshold: float = EVALUATION_THRESHOLD) -> list[Detections]:
    """What the model finds in shots of one size."""
    found: list[Detections] = []
    for at in range(0, len(taken), EVALUATION_BATCH):
        some = taken[at : at + EVALUATION_BATCH]
        height, width = some[0].frame.counts.shape
        found += decode(model(light_of(some)), (height, width), threshold=threshold)
    return found


def evaluate(model: JointDetector, shots: Shots, light: float = 1.0) -> Precision:
    """Average precision on plain shots, the scene's light multiplied by ``light``."""
    taken = [shots.plain(index, light) for index in range(len(shots.views))]
    found = detect(model, taken)
    return average_precision([(s.boxes, s.labels) for s in taken], found, model.detector.config.classes)
