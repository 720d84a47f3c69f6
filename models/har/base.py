"""What every recognition network is to the rest of the project: windows in, logits out, built from a small config."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from quantization.errors import BundleError


@dataclass(frozen=True)
class HarConfig:
    """What a network is built from.

    Args:
        kind: name in the registry of :mod:`models.har`.
        channels: C, columns of a window.
        classes: K, activities.
        window: T, samples of a window.
        dropout: 0 .. 1, before the classifier.
    """

    kind: str
    channels: int
    classes: int
    window: int
    dropout: float = 0.3

    def __post_init__(self) -> None:
        # A manifest comes from a file: sizes are bounded before anything is allocated by them.
        if not (1 <= self.channels <= 16 and 2 <= self.classes <= 256 and 8 <= self.window <= 4096):
            raise BundleError(f"a network for {self.channels} channels, {self.classes} classes, {self.window} samples")
        if not 0 <= self.dropout < 1:
            raise BundleError(f"dropout must be 0 or more and below 1, not {self.dropout}")

    def to_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)


class HarNetwork(nn.Module, ABC):
    """A recognition network: ``[B, T, C]`` quantized windows in [-1, 1] to ``[B, K]`` logits."""

    config: HarConfig

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to logits ``[B, K]``."""

    def parameter_count(self) -> int:
        """Trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
