"""Joint training of an image quantizer and a detector."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.training import (
    averaging,
    load_optimizer,
    optimizer_tensors,
    pace,
    restore_checkpoint,
    save_checkpoint,
    under,
)
from models.vision.detection_loss import loss_of, targets_of
from models.vision.detector import Detections, Detector, Maps, decode
from models.vision.precision import Precision, average_precision
from models.vision.shots import Shot, Shots
from quantization.errors import TrainingError
from quantization.gamma import LearnedQuantizer
from quantization.gamma_image import PlaneQuantizer, UnquantizedPlanes
from quantization.rate import bits_per_photosite
from quantization.raw import lift_for

EMA_DECAY: Final = 0.995
"""Averages over 200 steps, six epochs of the smallest set."""
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
        rate_weight: λ: adds so much loss for every bit that a photosite would take after entropy coding.
        weight_decay: of the network (AdamW).
        seed: of initialisation, windows, noise.
    """

    epochs: int = 120
    batch: int = 4
    learning_rate: float = 4e-3
    quantizer_rate: float = 5.0
    rate_weight: float = 0.0
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        not_negative = all(value >= 0 for value in (self.quantizer_rate, self.rate_weight, self.weight_decay))
        rates = self.learning_rate > 0 and not_negative
        if self.epochs < 1 or self.batch < 2 or not rates:
            raise TrainingError(f"impossible settings: {self}")


class JointDetector(nn.Module):
    """A quantizer and the detector that learns with it: ``[B, 4, H/2, W/2]`` light to :class:`Maps`.

    Args:
        quantizer: first.
        detector: then.
        lifted: dim frames are made brighter before the quantizer, as cameras do it (:func:`quantization.raw.lift_for`).
            A network without a quantizer has no use for it.
    """

    def __init__(
        self, quantizer: PlaneQuantizer | UnquantizedPlanes, detector: Detector, *, lifted: bool = True
    ) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.detector = detector
        self.lifted = lifted and isinstance(quantizer, PlaneQuantizer)

    def forward(self, light: Tensor) -> Maps:
        """``[B, 4, H/2, W/2]`` float64 fractions of full scale to maps."""
        maps: Maps = self.detector(self.quantizer(self.lift(light)).to(memory_format=torch.channels_last))
        return maps

    def lift(self, light: Tensor) -> Tensor:
        """``[B, 4, H/2, W/2]`` light as the quantizer gets it."""
        if not self.lifted:
            return light
        lifts = torch.tensor([2.0 ** lift_for(mean) for mean in light.mean((1, 2, 3)).tolist()])
        return light * lifts[:, None, None, None]


class DetectorFit:
    """One training run: ``run()`` it, stop it with Ctrl-C, ``run()`` it again from its checkpoint.

    Args:
        model: freshly initialised.
        shots: of the training set; one epoch photographs each view once.
        settings: how.
        checkpoint: where to keep the state after every epoch; None keeps none.

    Raises:
        TrainingError: fewer views than one batch has, or a weight on the rate of a curve that cannot learn.
    """

    def __init__(
        self, model: JointDetector, shots: Shots, settings: DetectorSettings, checkpoint: Path | None = None
    ) -> None:
        self._steps = len(shots.views) // settings.batch
        if not self._steps:
            raise TrainingError(f"{len(shots.views)} pictures do not fill a batch of {settings.batch}")
        if settings.rate_weight and not isinstance(model.quantizer, LearnedQuantizer):
            raise TrainingError("a weight on the rate needs a curve that learns: gamma or gamma-paper")
        self._fingerprint = _fingerprint(model, shots, settings)
        self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._shots = shots
        self._settings = settings
        self._checkpoint = checkpoint
        curve = {"params": list(model.quantizer.parameters()), "weight_decay": 0.0, "factor": settings.quantizer_rate}
        network = {"params": list(model.detector.parameters()), "weight_decay": settings.weight_decay, "factor": 1.0}
        self._optimizer = torch.optim.AdamW(
            [network, curve] if curve["params"] else [network], lr=settings.learning_rate, fused=True
        )
        self._average = AveragedModel(model, multi_avg_fn=averaging(EMA_DECAY))
        self._epoch = 0

    def run(self, report: Callable[[int, float], None] = lambda _epoch, _loss: None) -> JointDetector:
        """Train, and return the exponential moving average of the model.

        Args:
            report: gets every epoch's number, from 1, and mean loss.

        Raises:
            TrainingError: the checkpoint belongs to other settings or data, or the loss is no longer finite.
        """
        restore_checkpoint(self._checkpoint, self._fingerprint, self._load)
        while self._epoch < self._settings.epochs:
            loss = self._train_one()
            self._epoch += 1
            self._save()  # before the report, from which Ctrl-C may come: no epoch is lost
            report(self._epoch, loss)
        return cast("JointDetector", self._average.module).eval()

    def _train_one(self) -> float:
        self._model.train()
        order = np.random.default_rng([self._settings.seed, 3, self._epoch]).permutation(len(self._shots.views))
        total = 0.0
        for number, batch in enumerate(_batches(order.tolist(), self._settings.batch)):
            self._set_learning_rate(self._epoch * self._steps + number + 1)
            taken = [self._shots.varied(index, self._epoch) for index in batch]
            loss = _loss(self._model, taken, self._settings.rate_weight)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._model.detector.parameters(), CLIP)
            self._optimizer.step()
            self._average.update_parameters(self._model)
            total += float(loss.detach())
            if not math.isfinite(total):
                raise TrainingError("the loss is no longer finite; try a smaller learning rate")
        return total / self._steps

    def _set_learning_rate(self, step: int) -> None:
        factor = pace(step / (self._steps * self._settings.epochs))
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * group["factor"] * factor

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        tensors = {f"model.{k}": v for k, v in self._model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self._average.state_dict().items()}
        tensors |= optimizer_tensors(self._optimizer)
        save_checkpoint(self._checkpoint, tensors, self._fingerprint, {"epoch": self._epoch})

    def _load(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        self._model.load_state_dict(under(tensors, "model."))
        self._average.load_state_dict(under(tensors, "average."))
        load_optimizer(self._optimizer, tensors)
        self._epoch = int(progress["epoch"])


def _fingerprint(model: JointDetector, shots: Shots, settings: DetectorSettings) -> str:
    """Names everything that a checkpoint must agree with; ``model`` as it starts."""
    curve = {name: tensor.tolist() for name, tensor in model.quantizer.state_dict().items()}
    kind = [type(model.quantizer).__name__, getattr(model.quantizer, "bits", None), model.lifted]
    parts = [asdict(settings), kind, curve, model.detector.config.to_dict(), *shots.describe()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _batches(order: list[int], size: int) -> Iterator[list[int]]:
    """Whole batches; what is left over waits for another epoch's order."""
    for at in range(0, len(order) - size + 1, size):
        yield order[at : at + size]


def _loss(model: JointDetector, taken: list[Shot], rate_weight: float) -> Tensor:
    light = light_of(taken)
    with torch.autocast("cpu", torch.bfloat16):
        maps = model(light)
    targets = targets_of(
        [torch.from_numpy(shot.boxes) for shot in taken],
        [torch.from_numpy(shot.labels) for shot in taken],
        maps.centres.shape[1],
        maps.centres.shape[2],
        maps.centres.shape[3],
    )
    loss = loss_of(maps, targets)
    if rate_weight and isinstance(model.quantizer, LearnedQuantizer):
        loss = loss + rate_weight * bits_per_photosite(model.quantizer, model.lift(light))
    return loss


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
