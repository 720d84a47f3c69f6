"""Drift: whether a network's errors or its confidence have changed, by ADWIN.

Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007, as in :mod:`river.drift`. The
error needs labels; the confidence (probability of the likeliest activity) does not, so it speaks in the field too.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, Literal

import river.drift

_drift: Any = river.drift  # river has no types

Signal = Literal["error", "confidence"]
SIGNALS: Final[tuple[Signal, ...]] = ("error", "confidence")


class Drift:
    """Watches one bundle.

    Attributes:
        events: changes detected, by signal.
    """

    def __init__(self) -> None:
        self.events: Counter[Signal] = Counter(dict.fromkeys(SIGNALS, 0))
        self._detectors = {signal: _drift.ADWIN() for signal in SIGNALS}

    def update(self, signal: Signal, value: float) -> bool:
        """Take one value in [0, 1]; return whether it completes the evidence of a change."""
        detector = self._detectors[signal]
        detector.update(value)
        changed = bool(detector.drift_detected)
        self.events[signal] += changed
        return changed
