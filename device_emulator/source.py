"""Where a device's samples come from: what the ADC of one part gives, as integers, with the truth beside it.

A *source* stands for wearer, sensor and ADC together. What it gives is evenly spaced at its rate, except where a block
says that time has been skipped before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.messages import SourceKind
from quantization.imu import Counts
from quantization.sensor import Sensor

Labels = NDArray[np.int16]
"""Index into a source's label names, ``[n]``; -1 = unlabelled."""


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """Consecutive samples, oldest first.

    Args:
        counts: int32 ``[n, C]``, ADC counts.
        label: int16 ``[n]``, index into the source's ``labels``, -1 = unlabelled.
        gap_ms: by how much later the first sample comes than an even rate would have it; 0 or more.

    Raises:
        ValueError: sizes that do not fit, or a gap below 0.
    """

    counts: Counts
    label: Labels
    gap_ms: int = 0

    def __post_init__(self) -> None:
        if self.counts.ndim != 2 or self.label.shape != (len(self.counts),):
            raise ValueError(f"counts {self.counts.shape} and labels {self.label.shape} do not fit")
        if self.gap_ms < 0:
            raise ValueError(f"a gap of {self.gap_ms} ms")

    def __len__(self) -> int:
        return len(self.counts)


class Source(Protocol):
    """A wearer with one part, or a recording of one."""

    @property
    def sensor(self) -> Sensor:
        """The part whose counts come out."""

    @property
    def rate_hz(self) -> float:
        """Samples per second, 1 .. 1000."""

    @property
    def kind(self) -> SourceKind:
        """Generated, from a data set, or recorded from a device: goes into ``status``."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the activities."""

    @property
    def subject(self) -> str:
        """Who wears the device; empty if unknown."""

    def read(self, samples: int) -> Block:
        """The next samples, at most ``samples`` (1 or more) of them; none at all means that the source has ended.

        What comes out in all does not depend on how many samples are asked for at a time.
        """
