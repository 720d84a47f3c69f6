"""Joint training of a quantizer and a recognition network. Resumable to the bit.

The quantizer's parameters learn beside the network's, three times as fast and without weight decay (decay would pull
every curve towards the one that it started from). What is kept is an exponential moving average of both, the epoch that
scored best on subjects held out from training.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.augment import BACKGROUND, Crops, adc
from models.har import HarNetwork
from models.scores import Scores, score
from models.training import (
    averaging,
    digest_of,
    load_optimizer,
    optimizer_tensors,
    pace,
    restore_checkpoint,
    save_checkpoint,
    under,
)
from models.windows import Windows
from quantization.errors import TrainingError
from quantization.gamma import LearnedQuantizer, Quantizer, Unquantized
from quantization.rate import bits_per_sample
from quantization.sensor import Sensor

EMA_DECAY: Final = 0.99
"""Averages over about 100 steps, two epochs of the smallest data set: evens out the noise of single steps."""
BACKGROUND_WEIGHT: Final = 0.3
"""Weight of the outlier-exposure loss: enough to tell strangers apart, without a cost on known activities that
validation subjects would show."""
EVALUATION_BATCH: Final = 512


@dataclass(frozen=True)
class FitSettings:
    """How to train.

    Args:
        epochs: at most so many.
        batch: windows in a step.
        learning_rate: of the network, at its peak.
        quantizer_rate: the quantizer's learning rate as a multiple of the network's.
        weight_decay: of the network (AdamW).
        patience: epochs without a better validation score before stopping; 0 = never stop early, keep the last epoch.
            With a ``rate_weight`` the last epoch is kept as well.
        rate_weight: λ: adds so much loss for every bit that a sample of a channel would take after entropy coding.
        seed: of initialisation, crops and dropout.
    """

    epochs: int = 40
    batch: int = 64
    learning_rate: float = 2e-3
    quantizer_rate: float = 3.0
    weight_decay: float = 1e-2
    patience: int = 15
    rate_weight: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or self.learning_rate <= 0 or self.patience < 0 or self.rate_weight < 0:
            raise TrainingError(f"impossible settings: {self}")


class JointModel(nn.Module):
    """A quantizer and the network that learns with it: ``[B, T, C]`` physical windows to ``[B, K]`` logits."""

    def __init__(self, quantizer: Quantizer | Unquantized, network: HarNetwork) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` g and °/s to logits."""
        return self.network(self.quantizer(x))


@dataclass(frozen=True)
class Epoch:
    """What one epoch did."""

    number: int
    of: int
    loss: float
    validation: Scores | None
    best: float
    """Best validation macro-F1 so far."""


@torch.inference_mode()
def logits_of(model: JointModel, windows: Windows, sensor: Sensor) -> Tensor:
    """``[W, K]`` logits of windows as ``sensor`` would measure them."""
    model.eval()
    parts = [
        model(adc(torch.from_numpy(windows.values[at : at + EVALUATION_BATCH]), sensor))
        for at in range(0, len(windows), EVALUATION_BATCH)
    ]
    return torch.cat(parts)


class Fit:
    """One training run: ``run()`` it, stop it with Ctrl-C, ``run()`` it again from its checkpoint.

    Args:
        model: freshly initialised.
        crops: the training subjects.
        validation: windows of subjects held out from training; None keeps the last epoch.
        sensor: the part whose ADC every window passes.
        settings: how to train.
        checkpoint: where to keep the state after every epoch; None keeps none.
    """

    def __init__(
        self,
        model: JointModel,
        crops: Crops,
        validation: Windows | None,
        sensor: Sensor,
        settings: FitSettings,
        checkpoint: Path | None = None,
    ) -> None:
        self._model = model
        self._crops = crops
        self._validation = validation
        self._sensor = sensor
        self._settings = settings
        self._checkpoint = checkpoint
        self._generator = torch.Generator().manual_seed(settings.seed)
        torch.manual_seed(settings.seed)
        self._average = AveragedModel(model, multi_avg_fn=averaging(EMA_DECAY))
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(model.network.parameters()), "weight_decay": settings.weight_decay, "factor": 1.0},
                {
                    "params": [p for p in model.quantizer.parameters() if p.requires_grad],
                    "weight_decay": 0.0,
                    "factor": settings.quantizer_rate,
                },
            ],
            lr=settings.learning_rate,
            fused=True,
        )
        counts = crops.class_counts().float().clamp_min(1)
        # The root of the inverse frequency: the full inverse lets the rarest class decide most answers.
        weight = (counts.sum() / counts).sqrt()
        self._known_loss = nn.CrossEntropyLoss(weight=weight / weight.mean())
        self._fingerprint = _fingerprint(model, crops, validation, sensor, settings)
        self._steps = settings.epochs * crops.batches_per_epoch(settings.batch)
        self._epoch = 0
        self._step = 0
        self._best = -1.0
        self._best_epoch = 0
        self._best_state = copy.deepcopy(self._average.module.state_dict())

    def run(self, report: Callable[[Epoch], None] = lambda _: None) -> int:
        """Train, and leave in the model what was best.

        Args:
            report: called after every epoch.

        Returns:
            The number of the epoch that was kept, from 1.

        Raises:
            TrainingError: the checkpoint belongs to other settings or data, or the loss is no longer finite.
        """
        restore_checkpoint(self._checkpoint, self._fingerprint, self._load)
        while self._epoch < self._settings.epochs and not self._stale():
            loss = self._train_one()
            self._epoch += 1
            epoch = self._judge(loss)
            self._save()  # before the report, from which Ctrl-C may come: no epoch is lost
            report(epoch)
        self._model.load_state_dict(self._best_state)
        self._model.eval()
        return self._best_epoch

    def _stale(self) -> bool:
        return self._chooses and 0 < self._settings.patience <= self._epoch - self._best_epoch

    @property
    def _chooses(self) -> bool:
        """Whether the best epoch is kept and not the last.

        With a weight on the rate, validation accuracy would choose an early epoch, whose curve is still expensive.
        """
        settings = self._settings
        return self._validation is not None and settings.patience > 0 and settings.rate_weight == 0

    def _train_one(self) -> float:
        self._model.train()
        total, batches = 0.0, 0
        for values, truth in self._crops.batches(self._settings.batch, self._generator):
            self._set_learning_rate()
            measured = adc(values, self._sensor)
            loss = self._loss(self._model(measured), truth) + self._rate_loss(measured)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            self._average.update_parameters(self._model)
            total += loss.item()
            batches += 1
        if not math.isfinite(total):
            raise TrainingError("the loss is no longer finite; try a smaller learning rate")
        return total / max(1, batches)

    def _loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Cross-entropy on what is known; on the background, distance from an answer that favours nothing.

        Outlier exposure (Hendrycks et al. 2019, arXiv 1812.04606): a network that has seen some activities it must not
        name is less sure of itself on ones that it has never seen.
        """
        known, strange = truth >= 0, truth == BACKGROUND
        loss = 0.0 * logits.sum()  # all that is left of a batch without labels: a mean over none would be NaN
        if bool(known.any()):
            loss = loss + self._known_loss(logits[known], truth[known])
        if bool(strange.any()):
            loss = loss - BACKGROUND_WEIGHT * torch.log_softmax(logits[strange], dim=1).mean()
        return loss

    def _rate_loss(self, measured: Tensor) -> Tensor | float:
        quantizer = self._model.quantizer
        if self._settings.rate_weight == 0 or not isinstance(quantizer, LearnedQuantizer):
            return 0.0
        return self._settings.rate_weight * bits_per_sample(quantizer, measured)

    def _set_learning_rate(self) -> None:
        self._step += 1
        factor = pace(min(1.0, self._step / max(1, self._steps)))
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * group["factor"] * factor

    def _judge(self, loss: float) -> Epoch:
        average = cast("JointModel", self._average.module)
        scores = None
        if self._validation is not None:
            scores = score(self._validation, logits_of(average, self._validation, self._sensor).numpy())
        if scores is None or not self._chooses or scores.macro_f1 > self._best:
            self._best = -1.0 if scores is None else scores.macro_f1
            self._best_epoch = self._epoch
            self._best_state = copy.deepcopy(average.state_dict())
        return Epoch(self._epoch, self._settings.epochs, loss, scores, self._best)

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        tensors = {f"model.{k}": v for k, v in self._model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self._average.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self._best_state.items()}
        tensors |= optimizer_tensors(self._optimizer)
        tensors |= {"rng.crops": self._generator.get_state(), "rng.torch": torch.get_rng_state()}
        progress = {"epoch": self._epoch, "step": self._step, "best": self._best, "best_epoch": self._best_epoch}
        save_checkpoint(self._checkpoint, tensors, self._fingerprint, progress)

    def _load(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        self._model.load_state_dict(under(tensors, "model."))
        self._average.load_state_dict(under(tensors, "average."))
        self._best_state = under(tensors, "best.")
        load_optimizer(self._optimizer, tensors)
        self._generator.set_state(tensors["rng.crops"])
        torch.set_rng_state(tensors["rng.torch"])
        self._epoch, self._step = int(progress["epoch"]), int(progress["step"])
        self._best, self._best_epoch = float(progress["best"]), int(progress["best_epoch"])


def _fingerprint(
    model: JointModel, crops: Crops, validation: Windows | None, sensor: Sensor, settings: FitSettings
) -> str:
    """Names everything that a checkpoint must agree with; ``model`` as it starts."""
    curve = {name: tensor.tolist() for name, tensor in model.quantizer.state_dict().items()}
    kind = [type(model.quantizer).__name__, *(getattr(model.quantizer, name, None) for name in ("bits", "variant"))]
    judged = None if validation is None else digest_of((validation.values, validation.truth))
    parts = [
        *(asdict(settings), kind, curve, model.network.config.to_dict()),
        *(crops.describe(), judged, sensor.to_dict()),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
