"""What a device's wearer truly did, as far as somebody says so, and the predicted windows that wait to hear it.

A label is a half-open range of ticks or of wall time. It may come early, late or out of order; where two overlap, the
one that came later holds. A window waits until all of its samples are labelled or :attr:`LabelTrack.lateness_ms` has
passed since it was predicted; then its truth is the majority of what is known, by the one rule of
:mod:`models.windows`. A window that is mostly unlabelled is not scored.

Activities that the bundle does not know count as one: such a window's truth is "an activity that it does not know".

A sample stands for half a period either side of its tick, so that ticks rounded to whole milliseconds by two parties
still agree on which sample a label begins with.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.clock import DeviceClock, passed, unwrap
from gateway.refusals import RefusedMessageError
from gateway.windows import Window
from models.windows import UNLABELLED, majority_label
from protocol.messages import Label
from protocol.packet import TICK_MODULUS

MAX_LABEL_MS: Final = 86_400_000
"""A label of more than a day, or further than that from the stream, is a mistake."""
MAX_RANGES: Final = 128
"""Labels kept per device: one bout a second for two minutes."""
MAX_EARLY: Final = 32
"""Labels kept for a device that has not sent a packet yet."""
MAX_WAITING: Final = 256
"""Windows per device that wait for labels; beyond, the oldest is scored with what is known."""
KEPT_MS: Final = 120_000
"""A label that ended so long before the stream's present, and before any waiting window, is dropped. Of signal: at ×24
of a replay, five seconds in which the network may be behind."""


class Range(NamedTuple):
    """``activity`` from unwrapped tick ``start`` (inclusive) to ``end`` (exclusive)."""

    start: float
    end: float
    activity: str


@dataclass(slots=True)
class Predicted:
    """A window that was answered."""

    window: Window
    likeliest: int
    unknown: bool
    """The answer was ``unknown``."""
    probability: float
    answered_ns: int


class Scored(NamedTuple):
    """A predicted window and its truth.

    Args:
        predicted: the answer.
        truth: the activity's name.
        truth_index: among the bundle's labels; None for an activity that the bundle does not know.
        pure: every sample carries the truth.
    """

    predicted: Predicted
    truth: str
    truth_index: int | None
    pure: bool


class _Waiting:
    """A predicted window and what is known of its truth. Each label is painted once, however long it waits."""

    __slots__ = ("_foreign", "_half", "_known", "_label", "predicted")

    def __init__(self, predicted: Predicted) -> None:
        self.predicted = predicted
        self._known = predicted.window.bundle.labels
        self._half = predicted.window.period_ms / 2
        self._label: NDArray[np.int16] | None = None  # of each sample, once there is any
        self._foreign = ""

    def paint(self, label: Range) -> bool:
        """Lay a label over the samples; return whether it touches any."""
        ticks = self.predicted.window.ticks
        first, last = np.searchsorted(ticks, (label.start - self._half, label.end - self._half))
        if first == last:
            return False
        if label.activity in self._known:
            index = self._known.index(label.activity)
        else:
            index, self._foreign = len(self._known), label.activity
        if self._label is None:
            self._label = np.full(len(ticks), UNLABELLED, dtype=np.int16)
        self._label[first:last] = index
        return True

    @property
    def covered(self) -> bool:
        """Whether every sample is labelled."""
        return self._label is not None and bool(self._label.min() != UNLABELLED)

    def score(self) -> list[Scored]:
        """The window with its truth; empty if it is mostly unlabelled."""
        if self._label is None:
            return []
        truth, pure = (int(one[0]) for one in majority_label(self._label[None], len(self._known) + 1))
        if truth == UNLABELLED:
            return []
        known = truth < len(self._known)
        name = self._known[truth] if known else self._foreign
        return [Scored(self.predicted, name, truth if known else None, bool(pure))]


class LabelTrack:
    """Labels and waiting windows of one device. All of it is bounded.

    Args:
        lateness_ms: so long after its prediction a window waits for labels.
    """

    __slots__ = ("_early", "_epoch", "_lateness_ns", "_ranges", "_waiting")

    def __init__(self, lateness_ms: float) -> None:
        self._lateness_ns = lateness_ms * 1e6
        self._ranges: deque[Range] = deque(maxlen=MAX_RANGES)
        self._early: deque[Label] = deque(maxlen=MAX_EARLY)
        self._waiting: deque[_Waiting] = deque()
        self._epoch = 0

    @property
    def waiting(self) -> int:
        """Windows that wait for labels."""
        return len(self._waiting)

    def begin(self, epoch: int, tick: int, clock: DeviceClock) -> list[Scored]:
        """A stream begins (anew): labels of the one before are void, those that came early are read.

        Returns:
            The windows of the stream before, scored with what was known.
        """
        scored = [one for waiting in self._waiting for one in waiting.score()]
        self._waiting.clear()
        self._ranges.clear()
        self._epoch = epoch
        self._ranges.extend(_read(label, tick, clock) for label in self._early)
        self._early.clear()
        return scored

    def add(self, label: Label, tick: int | None, clock: DeviceClock) -> list[Scored]:
        """Take a label; returns the windows that it completes.

        Args:
            label: the message.
            tick: unwrapped tick of the stream's newest packet; None before the first.
            clock: of the device.

        Raises:
            RefusedMessageError: ``label_range``: ends before it begins, or reaches further than a day.
        """
        _check(label)
        if tick is None:
            self._early.append(label)
            return []
        new = _read(label, tick, clock)
        if abs(new.start - tick) > MAX_LABEL_MS:
            raise RefusedMessageError("label_range", "the label is more than a day from the stream")
        needed = tick - KEPT_MS
        while self._ranges and self._ranges[0].end < needed:
            self._ranges.popleft()
        self._ranges.append(new)
        done = [waiting for waiting in self._waiting if waiting.paint(new) and waiting.covered]
        for waiting in done:
            self._waiting.remove(waiting)
        return [one for waiting in done for one in waiting.score()]

    def predict(self, predicted: Predicted) -> list[Scored]:
        """Take an answered window; returns what can be scored now."""
        if predicted.window.epoch != self._epoch:
            return []
        waiting = _Waiting(predicted)
        for label in self._ranges:
            waiting.paint(label)
        if waiting.covered:
            return waiting.score()
        self._waiting.append(waiting)
        return self._waiting.popleft().score() if len(self._waiting) > MAX_WAITING else []

    def expire(self, now_ns: int) -> list[Scored]:
        """Score what has waited long enough."""
        done: list[Scored] = []
        while self._waiting and passed(self._waiting[0].predicted.answered_ns, now_ns, self._lateness_ns):
            done += self._waiting.popleft().score()
        return done


def _read(label: Label, tick: int, clock: DeviceClock) -> Range:
    if label.from_tick is not None and label.to_tick is not None:
        start = unwrap(label.from_tick, tick, TICK_MODULUS)
        return Range(start, start + (label.to_tick - label.from_tick) % TICK_MODULUS, label.activity)
    return Range(clock.to_tick(label.from_ms or 0), clock.to_tick(label.to_ms or 0), label.activity)


def _check(label: Label) -> None:
    if label.from_tick is not None and label.to_tick is not None:
        length = (label.to_tick - label.from_tick) % TICK_MODULUS
    else:
        length = (label.to_ms or 0) - (label.from_ms or 0)
    if not 0 < length <= MAX_LABEL_MS:
        raise RefusedMessageError("label_range", f"{length} ms is no length of a label (1 ms to a day)")
