"""From what a wearable sends, in bursts and by its own clock, to an even stream of counts that a device can send on."""

from __future__ import annotations

import math
from collections import deque
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_emulator.ble.clock import Run, SampleClock
from device_emulator.source import Block
from protocol.messages import SourceKind
from quantization.codebook import RATE_TOLERANCE
from quantization.errors import ProfileError
from quantization.imu import Floats
from quantization.sensor import Sensor

CUTOFF: Final = 0.4
"""-6 dB point of the anti-alias filter as a share of the output rate, as in training (:mod:`models.resample`)."""

TRANSITION: Final = 0.2
"""From pass to stop band, as a share of the output rate: the stop band begins at its Nyquist frequency."""

STOP_DB: Final = 60.0
"""A thousandth folds back: of 1 g, less than what a 12-bit part at ±8 g tells apart."""

_BETA = 0.1102 * (STOP_DB - 8.7)
_REACH = (STOP_DB - 7.95) / (14.36 * TRANSITION * 2)
# A Kaiser window's shape, and how far it reaches to both sides for that transition (Oppenheim & Schafer, 7.5.3).
_FINE = 256
# Points of the kernel's table per unit: a straight line between two of them is off by 1e-5 of the middle at most.

MAX_VALUE: Final = 1e6
"""g or °/s: no part measures a thousandth of that."""

MAX_SAMPLES: Final = 4096
"""Of one notification. It has at most 512 bytes (Bluetooth Core 5.4, Vol 3, Part F, 3.2.9)."""


class Resampled(NamedTuple):
    """Consecutive samples at the output rate.

    Fields:
        values: ``[m, C]`` g and °/s, m >= 1.
        gap_ms: by how much later the first one comes than an even rate would have it.
    """

    values: Floats
    gap_ms: int


class Resampler:
    """Makes an even stream of one wearable's notifications; what is missing stays missing.

    Output sample *i* stands ``i / out_hz`` plus the gaps after :attr:`origin_s`, on the clock of the arrivals. Gaps are
    whole output periods, rounded to ms so that no error adds up: samples and gaps together are the time that passed.

    Rates always differ by what the device's clock is off, even if they are nominally equal: taken as they are, samples
    would get ticks that run away by as much. So each output is a sinc-weighted mean at its very own position:

    * Where the output rate is below 0.95 of the input's, with the cut-off of training: -6 dB at 0.4 and -60 dB from 0.5
      of the output rate, gain exactly 1 at 0 Hz.
    * Else what could alias is the last 5 % below Nyquist, and the kernel only interpolates: flat to 0.4 of the input
      rate, where a straight line between samples would take away up to 10 dB, in beats.

    Both see 9.1 samples (of the lower rate) to both sides, so outputs come by as much later. At a stretch's ends its
    first and last values are held.

    Args:
        channels: C.
        in_hz: nominal rate of the device.
        out_hz: wanted.

    Attributes:
        origin_s: when the first sample was taken; None until it is known.
        stretches: begun so far: one more than there were breaks.

    Raises:
        ProfileError: the device is more than 5 % too slow.
        ValueError: no rate at all.
    """

    def __init__(self, channels: int, in_hz: float, out_hz: float) -> None:
        if not (0 < in_hz < math.inf and 0 < out_hz < math.inf):
            raise ValueError(f"cannot resample {in_hz} Hz to {out_hz} Hz")
        if in_hz < (1 - RATE_TOLERANCE) * out_hz:
            raise ProfileError("rate", f"sends {in_hz:g} Hz; the model wants {out_hz:g} Hz")
        self.out_hz: Final = out_hz
        self.origin_s: float | None = None
        self.stretches = 0
        self._clock = SampleClock(in_hz)
        interpolating = out_hz >= (1 - RATE_TOLERANCE) * in_hz
        unit, cutoff = (1.0, 0.5) if interpolating else (in_hz / out_hz, CUTOFF)  # unit: input samples
        self._half = math.ceil(_REACH * unit)
        distance = np.arange(math.ceil(_REACH * _FINE) + 1) / _FINE  # in units
        window = np.i0(_BETA * np.sqrt(np.clip(1 - (distance / _REACH) ** 2, 0, None)))
        self._distance, self._kernel = distance * unit, np.sinc(2 * cutoff * distance) * window
        self._kernel[-1] = 0.0
        self._offsets = np.arange(-self._half, self._half + 1)
        # The stretch's samples that outputs still need, and their times.
        self._values: Floats = np.empty((0, channels))
        self._times: NDArray[np.float64] = np.empty(0)
        self._next = 0  # output period, counted from the origin without a break
        self._skipped = 0  # periods that are gaps
        self._gaps_ms = 0  # given

    @property
    def in_hz(self) -> float:
        """The device's own rate, as far as it is known."""
        return self._clock.rate_hz

    def push(self, values: Floats, end_ns: int | None, arrival_s: float) -> list[Resampled]:
        """Take one notification.

        Args:
            values: ``[n, C]``, evenly spaced, at most 4096; g and °/s.
            end_ns: the device's time of the last one; None if it tells none.
            arrival_s: when it came, on a clock that never goes back.

        Returns:
            What is complete now; a gap, if any, comes before the first sample of each.

        Raises:
            ProfileError: a value is not a number, or beyond ± :data:`MAX_VALUE`.
            ValueError: another shape.
        """
        if values.ndim != 2 or values.shape[1] != self._values.shape[1] or len(values) > MAX_SAMPLES:
            raise ValueError(f"samples of shape {values.shape}")
        if not (np.abs(values) <= MAX_VALUE).all():
            raise ProfileError("value", f"a value that no part measures: {values.min()} .. {values.max()}")
        if len(values) == 0:
            return []
        return self._resample(self._clock.push(values, end_ns, arrival_s))

    def flush(self) -> list[Resampled]:
        """The link is down: give what is held back. The next samples begin a new stretch."""
        return self._resample(self._clock.flush()) + self._finish()

    def _resample(self, runs: list[Run]) -> list[Resampled]:
        out = []
        for run in runs:
            if not run.follows:
                out += self._finish()
            times = run.end_s - run.step_s * np.arange(len(run.values) - 1, -1, -1)
            if len(self._times) == 0:
                self._begin(float(times[0]))
            self._values = np.concatenate([self._values, run.values])
            self._times = np.concatenate([self._times, times])
            if len(self._times) > self._half:
                out += self._emit(float(self._times[-1 - self._half]))
                self._values = self._values[-len(self._offsets) :]
                self._times = self._times[-len(self._offsets) :]
        return out

    def _begin(self, start_s: float) -> None:
        """Begin a stretch: its first output is the first one of the even grid that lies within it."""
        self.stretches += 1
        if self.origin_s is None:
            self.origin_s = start_s
        # Where arrivals have set the time back, the first samples only surround what comes after them.
        first = max(self._next, math.ceil((start_s - self.origin_s) * self.out_hz - 1e-6))
        self._skipped += first - self._next
        self._next = first

    def _finish(self) -> list[Resampled]:
        """End a stretch."""
        out = self._emit(float(self._times[-1])) if len(self._times) else []
        self._values, self._times = self._values[:0], self._times[:0]
        return out

    def _emit(self, until_s: float) -> list[Resampled]:
        """Outputs up to a time within the stretch."""
        if self.origin_s is None:
            return []
        end = math.floor((until_s - self.origin_s) * self.out_hz + 1e-6) + 1
        if end <= self._next:
            return []
        grid = self.origin_s + np.arange(self._next, end) / self.out_hz
        position = np.interp(grid, self._times, np.arange(len(self._times)))[:, None]  # [m, 1]
        taps = np.rint(position).astype(np.int64) + self._offsets  # [m, taps]
        kernel = np.interp(np.abs(position - taps), self._distance, self._kernel)
        kernel /= kernel.sum(axis=1, keepdims=True)
        held = self._values[np.clip(taps, 0, len(self._values) - 1)]  # [m, taps, C]
        gaps_ms = round(1000 * self._skipped / self.out_hz)
        gap_ms, self._gaps_ms = gaps_ms - self._gaps_ms, gaps_ms
        self._next = end
        return [Resampled(np.einsum("mk,mkc->mc", kernel, held), gap_ms)]


class LiveSource:
    """Buffers what a wearable sends, as counts; see :class:`device_emulator.source.Source`.

    An empty block means that there is nothing *now*. A reader asks :meth:`ready` first, or its packets get short.

    Args:
        sensor: the part.
        rate_hz: of the samples that are pushed.
        labels: names that :meth:`set_label` may take.
        subject: who wears it.
        capacity: samples that may wait; then the oldest are dropped, and become a gap.

    Attributes:
        dropped: samples.
    """

    def __init__(
        self, sensor: Sensor, rate_hz: float, labels: tuple[str, ...] = (), *, subject: str = "", capacity: int = 10_000
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a capacity of {capacity} samples")
        self.sensor: Final = sensor
        self.rate_hz: Final = rate_hz
        self.kind: Final[SourceKind] = "device"
        self.labels: Final = labels
        self.subject: Final = subject
        self.dropped = 0
        self._capacity = capacity
        self._label = -1
        self._blocks: deque[Block] = deque()
        self._waiting = 0
        self._dropped_ms = 0

    def set_label(self, name: str | None) -> None:
        """What the wearer does from the next sample on; None = unknown.

        Raises:
            ValueError: not one of :attr:`labels`.
        """
        if name is not None and name not in self.labels:
            raise ValueError(f"{name!r} is none of the labels: {', '.join(self.labels)}")
        self._label = -1 if name is None else self.labels.index(name)

    def push(self, values: Floats, gap_ms: int = 0) -> None:
        """Take ``[n, C]`` samples in g and °/s, with a gap of ``gap_ms`` before them."""
        if len(values) == 0:
            return
        label = np.full(len(values), self._label, dtype=np.int16)
        self._blocks.append(Block(self.sensor.to_counts(values), label, gap_ms))
        self._waiting += len(values)
        while self._waiting > self._capacity:
            self._drop(min(self._waiting - self._capacity, len(self._blocks[0])))

    def available(self) -> int:
        """How many samples can be read without a gap between them."""
        return self._front()[0]

    def ready(self, samples: int) -> bool:
        """Whether so many can be read, or fewer behind which there is a gap: more will never join them."""
        waiting, ended = self._front()
        return waiting >= samples or ended

    def read(self, samples: int) -> Block:
        """What there is up to the next gap, at most ``samples``; empty if there is nothing now."""
        taken: list[Block] = []
        while samples and self._blocks and not (taken and self._blocks[0].gap_ms):
            block = self._blocks.popleft()
            if len(block) > samples:
                self._blocks.appendleft(Block(block.counts[samples:], block.label[samples:]))
                block = Block(block.counts[:samples], block.label[:samples], block.gap_ms)
            taken.append(block)
            samples -= len(block)
            self._waiting -= len(block)
        if not taken:
            return Block(np.empty((0, len(self.sensor.channels)), dtype=np.int32), np.empty(0, dtype=np.int16))
        counts, label = [block.counts for block in taken], [block.label for block in taken]
        return Block(np.concatenate(counts), np.concatenate(label), taken[0].gap_ms)

    def _front(self) -> tuple[int, bool]:
        """Samples before the next gap, and whether there is one."""
        samples = 0
        for block in self._blocks:
            if block.gap_ms and samples:
                return samples, True
            samples += len(block)
        return samples, False

    def _drop(self, samples: int) -> None:
        """Drop so many of the oldest block; they become a gap before what is then the oldest."""
        block = self._blocks.popleft()
        self.dropped += samples
        self._waiting -= samples
        # From the total, so that what is rounded off one gap counts at the next.
        dropped_ms = round(1000 * self.dropped / self.rate_hz)
        gap_ms, self._dropped_ms = block.gap_ms + dropped_ms - self._dropped_ms, dropped_ms
        if samples < len(block):
            left = Block(block.counts[samples:], block.label[samples:], gap_ms)
        else:
            after = self._blocks.popleft()  # the newest block is never dropped as a whole
            left = Block(after.counts, after.label, after.gap_ms + gap_ms)
        self._blocks.appendleft(left)
