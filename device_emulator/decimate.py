"""Fewer samples from a part that gives too many: an anti-alias decimator by 2, 4 or 8, in integers.

A part whose rate is 2, 4 or 8 times a codebook's serves that codebook: one, two or three equal half-band stages, each
of which halves the rate. A stage is a linear-phase filter of 11 taps over 1024, of which four are 0 and the middle one
is a shift: three multiplications. With frequencies as shares of the stage's output rate (half of it is Nyquist):

======================  ==============================================
0 to 0.3                pass band, -0.09 to +0.03 dB
0.3 to 0.7              transition: -1.5 dB at 0.4, -6 dB at 0.5
0.7 to 1                stop band, -40 dB: what would fold into the pass band
group delay             5 input samples of each stage
======================  ==============================================

Two or three stages have the same stop band, in shares of their last rate; their pass band ends at -0.16 and -0.21 dB.

The filter that training uses (:mod:`models.resample`) is narrower, -6 dB at 0.4 and -53 dB from 0.5 of the output rate,
and looks ahead more than twice as far; a half-band filter lets more through between 0.35 and 0.5, and folds what is
between 0.5 and 0.65 onto it. A wrist has little there: see "Fewer samples" in ``docs/wire-format.md``.

An output sample stands at the time of the input sample under the middle tap, and has its label. A device has it
``delay_ms`` later than that; an emulated one reads ahead, and sends as if it had not to wait.
"""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction
from typing import Final

import numpy as np

from device_emulator.source import Block, Labels, Source
from protocol.messages import SourceKind
from quantization.codebook import RATE_TOLERANCE
from quantization.imu import Counts
from quantization.sensor import Sensor

FACTORS: Final = (2, 4, 8)
"""One, two or three stages. Parts that are faster yet can be set to a lower rate."""

SHIFT: Final = 10
"""Taps are over 2^10: with less, rounding them costs stop band (-37 dB over 2^8); more gains nothing."""

SIDE_TAPS: Final = (310, -73, 19)
"""Taps at 1, 3 and 5 samples from the middle, to both sides; the middle one is 512, those at 2 and 4 are 0.

The equiripple half-band filter of that length with a pass band to 0.3 of the output rate (Vaidyanathan & Nguyen 1987),
rounded so that 512 + 2 (310 - 73 + 19) = 1024: a constant comes out as it went in.
"""

REACH: Final = 2 * len(SIDE_TAPS) - 1
"""From the middle tap to the last one: the group delay of a stage in its input samples."""

# Partial sums stay within int32: no count of 16 bits, signed or not, is beyond ± 65535, and the taps' magnitudes sum to
# 512 + 2 (310 + 73 + 19) = 1316, so that |sum| + 512 <= 65535 * 1316 + 512 < 2^27, in whatever order it is added up.


class _HalfBand:
    """One stage, from a stretch's first sample to its last; both are held beyond the ends."""

    def __init__(self, sensor: Sensor) -> None:
        self._range = sensor.count_min, sensor.count_max
        self._kept: Counts = np.empty((0, len(sensor.channels)), dtype=np.int32)
        # Kept: what the next output's taps lie on, from the first tap on. Empty before the first sample.

    def push(self, counts: Counts) -> Counts:
        """int32 ``[n, C]`` -> ``[about n / 2, C]``: one for every second sample that has 5 behind it by now."""
        if len(counts) == 0:
            return counts
        if len(self._kept) == 0:
            self._kept = np.repeat(counts[:1], REACH, axis=0)
        x = np.concatenate([self._kept, counts])
        n = max(0, (len(x) - 2 * REACH + 1) // 2)
        span = 2 * n - 1 if n else 0  # from the first output's middle to just behind the last one's
        total = x[REACH : REACH + span : 2] << (SHIFT - 1)
        for distance, tap in zip(range(1, REACH + 1, 2), SIDE_TAPS, strict=True):
            before, after = REACH - distance, REACH + distance
            total += tap * (x[before : before + span : 2] + x[after : after + span : 2])
        self._kept = x[2 * n :]
        return np.clip((total + (1 << (SHIFT - 1))) >> SHIFT, *self._range)

    def flush(self) -> Counts:
        """What is left at a stretch's end: n samples have given ceil(n / 2) by then."""
        return self.push(np.repeat(self._kept[-1:], REACH, axis=0))


class Decimated:
    """A source at a half, a quarter or an eighth of its rate; see :class:`device_emulator.source.Source`.

    A stretch without a gap, of n samples, gives ceil(n / factor); the first stands where the first input sample stood.
    The filter begins anew after a gap. Where a gap is so short that the last sample still lasts, as many input samples
    are left out as it takes: no two output samples are nearer than one period.

    Args:
        source: what to decimate. Blocks of it are read ``factor`` times as long as asked for.
        factor: 2, 4 or 8.

    Attributes:
        delay_ms: group delay: so much later than it stands does a device have a sample.

    Raises:
        ValueError: another factor, or an output rate below 1 Hz.
    """

    def __init__(self, source: Source, factor: int) -> None:
        if factor not in FACTORS or source.rate_hz < factor:
            raise ValueError(f"cannot decimate {source.rate_hz:g} Hz by {factor}; factors: {FACTORS}, output: 1 Hz up")
        self._source = source
        self.factor: Final = factor
        self.sensor: Final[Sensor] = source.sensor
        self.rate_hz: Final[float] = source.rate_hz / factor
        self.kind: Final[SourceKind] = source.kind
        self.labels: Final[tuple[str, ...]] = source.labels
        self.subject: Final[str] = source.subject
        # The stages' input periods are 1, 2, 4 of the source's: they sum to factor - 1.
        self.delay_ms: Final[float] = 1000 * REACH * (factor - 1) / source.rate_hz
        self._period_ms = 1000 / Fraction(source.rate_hz).limit_denominator(1_000_000)
        self._stages: list[_HalfBand] = []  # none: between two stretches
        self._label: Labels = np.empty(0, dtype=np.int16)  # of output samples that are still in the filter
        self._phase = 0  # input samples of this stretch, modulo the factor
        self._gap_ms = 0  # before the next output sample
        self._in_ms = Fraction(0)  # time of the next input sample
        self._out_ms = Fraction(0)  # time of the next output sample, if no gap comes before it
        self._ready: deque[Block] = deque()
        self._ended = False

    def read(self, samples: int) -> Block:
        """The next samples up to the next gap; see :class:`device_emulator.source.Source`."""
        while not self._ready and not self._ended:
            self._advance(self._source.read(samples * self.factor))
        if not self._ready:
            return Block(np.empty((0, len(self.sensor.channels)), dtype=np.int32), np.empty(0, dtype=np.int16))
        block = self._ready.popleft()
        if len(block) > samples:
            self._ready.appendleft(Block(block.counts[samples:], block.label[samples:]))
            block = Block(block.counts[:samples], block.label[:samples], block.gap_ms)
        return block

    def _advance(self, block: Block) -> None:
        """Take a block of the source's; an empty one is its end."""
        self._ended = len(block) == 0
        if self._ended or block.gap_ms:
            self._finish()
        self._in_ms += block.gap_ms
        counts, label = block.counts, block.label
        if not self._stages:
            skipped = self._skipped(len(counts))
            self._in_ms += skipped * self._period_ms
            counts, label = counts[skipped:], label[skipped:]
            if len(counts) == 0:
                return
            self._begin()
        self._in_ms += len(counts) * self._period_ms
        self._label = np.concatenate([self._label, label[-self._phase % self.factor :: self.factor]])
        self._phase = (self._phase + len(counts)) % self.factor
        for stage in self._stages:
            counts = stage.push(counts)
        self._emit(counts)

    def _skipped(self, samples: int) -> int:
        """How many of a stretch's samples come before the last output sample's period is over; half a tick is none."""
        early_ms = self._out_ms - self._in_ms - Fraction(1, 2)
        return min(samples, max(0, math.ceil(early_ms / self._period_ms)))

    def _begin(self) -> None:
        """Begin a stretch with the next input sample."""
        self._stages = [_HalfBand(self.sensor) for _ in range(self.factor.bit_length() - 1)]
        self._phase = 0
        # From exact times, so that what is rounded off one gap counts at the next.
        self._gap_ms = math.floor(self._in_ms - self._out_ms + Fraction(1, 2))
        self._out_ms += self._gap_ms

    def _finish(self) -> None:
        """End a stretch."""
        rest: Counts = np.empty((0, len(self.sensor.channels)), dtype=np.int32)
        for stage in self._stages:
            rest = np.concatenate([stage.push(rest), stage.flush()])
        self._emit(rest)
        self._stages = []

    def _emit(self, counts: Counts) -> None:
        n = len(counts)
        if n:
            self._ready.append(Block(counts, self._label[:n], self._gap_ms))
            self._label = self._label[n:]
            self._gap_ms = 0
            self._out_ms += n * self.factor * self._period_ms


def matched(source: Source, rate_hz: float) -> Source:
    """The source as it is, or decimated where that, and nothing else, brings it within 5 % of ``rate_hz``.

    A source that fits neither way comes back as it is, for :class:`device_emulator.device.Device` to refuse.
    """
    for factor in FACTORS:
        if abs(source.rate_hz / factor - rate_hz) <= RATE_TOLERANCE * rate_hz:
            return Decimated(source, factor)
    return source
