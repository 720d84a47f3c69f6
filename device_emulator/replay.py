"""Plays recordings: one trace, or several takes of one device, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from device_emulator.source import Block, Labels
from protocol.messages import SourceKind
from protocol.trace import Trace
from quantization.errors import TraceError
from quantization.imu import Counts
from quantization.sensor import Sensor

TAKE_GAP_MS: Final = 1000
"""Between two takes, and before a recording starts over: so long a silence is a gap to every receiver (at 20 Hz it is
20 samples), and no window spans two takes."""

MAX_GAP_MS: Final = 10_000
"""A recorded gap is played as it was, up to here: longer than any window, so nothing is joined that was apart, and
shorter than a night for which the recorder lay in a drawer."""

GAP_PERIODS: Final = 1.5
"""A step of more sampling periods than that between two ticks is a gap: half-way to one missing sample."""


@dataclass(frozen=True, eq=False, slots=True)
class _Stretch:
    """Samples without a gap between them; ``gap_ms`` before the first."""

    counts: Counts
    label: Labels
    gap_ms: int


class ReplaySource:
    """Samples of recorded traces, with their gaps, at the recordings' nominal rate.

    Args:
        traces: takes of one part; label names may differ between them.
        loop: start over at the end, after a gap; else the source ends.

    Raises:
        TraceError: no trace, or takes that differ in sensor, rate or kind of source.
    """

    def __init__(self, traces: Sequence[Trace], *, loop: bool) -> None:
        if not traces:
            raise TraceError("nothing to replay: no trace is given")
        first = traces[0]
        for trace in traces[1:]:
            if (trace.sensor, trace.rate_hz, trace.source) != (first.sensor, first.rate_hz, first.source):
                raise TraceError(
                    "takes that are replayed by one device must have one sensor, rate and kind of source: "
                    f"{first.sensor.name} at {first.rate_hz:g} Hz ({first.source}) and "
                    f"{trace.sensor.name} at {trace.rate_hz:g} Hz ({trace.source})"
                )
        self.sensor: Final[Sensor] = first.sensor
        self.rate_hz: Final[float] = first.rate_hz
        self.kind: Final[SourceKind] = first.source
        self.labels: Final[tuple[str, ...]] = tuple(dict.fromkeys(name for trace in traces for name in trace.labels))
        self.subject: Final[str] = ", ".join(dict.fromkeys(trace.subject for trace in traces if trace.subject))
        self._loop = loop
        self._stretches = [
            stretch
            for number, trace in enumerate(traces)
            for stretch in self._split(trace, TAKE_GAP_MS if number else 0)
        ]
        self._stretch = 0
        self._at = 0
        self._round = 0

    def _split(self, trace: Trace, gap_ms: int) -> list[_Stretch]:
        """A trace's stretches; ``gap_ms`` comes before the first."""
        renumbered = np.array([*(self.labels.index(name) for name in trace.labels), -1], dtype=np.int16)
        label = renumbered[trace.label]  # -1 takes the last entry
        period_ms = 1000.0 / trace.rate_hz
        steps = np.diff(trace.tick_ms)
        breaks = np.flatnonzero(steps > GAP_PERIODS * period_ms)
        # At high rates a period is of the order of a tick, and rounding alone makes steps of 0 or 2 ms: no gap.
        breaks = breaks[steps[breaks] - period_ms >= 1]
        gaps = [gap_ms, *(min(MAX_GAP_MS, round(float(steps[b]) - period_ms)) for b in breaks)]
        edges = [0, *(int(b) + 1 for b in breaks), len(trace.counts)]
        return [
            _Stretch(trace.counts[start:end], label[start:end], gap)
            for (start, end), gap in zip(itertools.pairwise(edges), gaps, strict=True)
        ]

    def read(self, samples: int) -> Block:
        """The next samples up to the next gap; see :class:`device_emulator.source.Source`."""
        if self._stretch == len(self._stretches):
            if not self._loop:
                return Block(self._stretches[0].counts[:0], self._stretches[0].label[:0])
            self._stretch, self._at = 0, 0
            self._round += 1
        stretch = self._stretches[self._stretch]
        start, end = self._at, self._at + samples
        gap_ms = 0
        if start == 0:
            gap_ms = stretch.gap_ms if self._stretch or not self._round else TAKE_GAP_MS
        block = Block(stretch.counts[start:end], stretch.label[start:end], gap_ms)
        self._at += len(block)
        if self._at == len(stretch.counts):
            self._stretch, self._at = self._stretch + 1, 0
        return block
