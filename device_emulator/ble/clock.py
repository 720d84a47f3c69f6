"""When the samples of a wearable were taken, on the clock of the bridge that receives them.

A notification says how many samples it brings, at most what its device's clock shows, and arrives some time after the
last sample was taken. Neither its count nor the device's clock is a measure of time: both may be off by per cents. Only
arrivals are, and they come late by what varies: no sample arrives before it is taken, so what tells the time is the
*least late* arrival of a while (Moon, Skelly and Towsley, INFOCOM 1999). Therefore:

* Within a stretch samples are evenly spaced. Their period and phase follow the least late arrival of each second, in a
  critically damped second-order loop: the fading-memory line (Morrison, "Introduction to Sequential Smoothing and
  Prediction", 1969), whose memory grows with what has been seen.
* The device's own times, where it has them, say what is missing between two notifications; they pace nothing. A device
  whose clock is off by 3 % would otherwise give ticks that are, and a gateway's clock model stops at 0.02 %.
* What cannot be explained by lateness alone is held back for a second. If a later arrival is in time, it was late; if
  none is, so much is missing, and a new stretch begins. Every first stretch starts like that too, because devices that
  have just been connected send what they have queued.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from quantization.codebook import RATE_TOLERANCE
from quantization.imu import Floats

GAP_PERIODS: Final = 2.5
"""Two samples may be missing unnoticed: a FIFO that is read a little early or late looks like that."""

JITTER_S: Final = 0.25
"""Beyond :data:`GAP_PERIODS`, so much may arrivals vary before anything is held back. Devices that send in bursts of up
to half a second pass at 0.25 without a false gap; at 0.1 those of 0.25 s make some. What is lost of a device without
times of its own is seen as a gap from there on; less is made good by the loop, so that ticks stay true."""

FRAME_S: Final = 0.5, 2.0
"""Where a device tells times, these say what is lost, and a notification of such a length may be late by as much as it
lasts: a row of two sensors waits for the frame of the later one (Polar Verity Sense: up to 1.4 s)."""

FRAMES: Final = 6
"""The least late of so many such notifications counts, not of those of a second."""

LONGEST_TOLD_S: Final = 10.0
"""What a device's clock may say is missing: over more, what is not known of its rate is worse than arrivals' jitter."""

HOLD_S: Final = 1.0
"""So long is held back what may be late or lost. A backlog arrives in far less; a packet lasts as long."""

HOLD_SAMPLES: Final = 8192
"""At most so many are held: 8 s at 1000 Hz, minutes of what wearables send."""

UPDATE_S: Final = 1.0
"""One step of the loop. The least late of several arrivals counts, so that bursts and stalls move little."""

FIRST_MEMORY_S: Final = 4.0
"""The loop's time constant at first: 3 % of rate error then makes it lag by 3 % x 4 s / e = 44 ms at most, while 20 ms
of jitter make an error of half a per cent in rate."""

LAST_MEMORY_S: Final = 60.0
"""The time constant that it settles to: jitter of 20 ms moves the rate by 0.03 % for a moment; temperature moves a
device's oscillator within minutes."""

GROWTH: Final = 3.0
"""Until then the time constant is the time seen over this."""


class Run(NamedTuple):
    """Consecutive samples of one notification.

    Fields:
        values: ``[n, C]``, n >= 1.
        end_s: when the last one was taken, on the bridge's clock.
        step_s: between two of them.
        follows: the first comes one step after the last one of the run before; else a new stretch begins.
    """

    values: Floats
    end_s: float
    step_s: float
    follows: bool


class _Chunk(NamedTuple):
    values: Floats
    arrival_s: float
    step_s: float
    missing_s: float
    follows: bool


class SampleClock:
    """Tells samples' times from the arrivals of one wearable's notifications.

    Args:
        rate_hz: nominal; the device's own is taken to be within 5 % of it.
    """

    def __init__(self, rate_hz: float) -> None:
        self._nominal_s = 1 / rate_hz
        self._slack_s = JITTER_S + GAP_PERIODS / rate_hz
        self._period_s = self._step_s = self._nominal_s  # of the device, and of the time line on its way to the device
        self._frame_s = 0.0  # the longest notification, if the device tells times and sends long ones
        self._now_s = 0.0  # of the newest sample that has been released
        self._line_s = 0.0  # of the newest sample that is held, if nothing is amiss
        self._anchored = False  # the line has been compared with arrivals
        self._end_ns: int | None = None
        self._passed_s, self._passed_samples = 0.0, 0  # by the device's own clock, without what is missing
        self._held: list[_Chunk] = []
        self._held_samples = 0
        self._held_lateness_s = math.inf  # the least
        self._seen_s = 0.0
        self._update_samples = 0
        self._update_lateness_s = math.inf  # the least

    @property
    def rate_hz(self) -> float:
        """Samples per second of the bridge's clock, as far as they are known."""
        return 1 / self._period_s

    def push(self, values: Floats, end_ns: int | None, arrival_s: float) -> list[Run]:
        """Take ``[n, C]`` samples, n >= 1; gives those whose times are known now."""
        lasts_s = len(values) * self._nominal_s
        if end_ns is not None and lasts_s >= FRAME_S[0]:
            self._frame_s = min(max(self._frame_s, lasts_s), FRAME_S[1])
        missing_s, follows = self._missing(len(values), end_ns, arrival_s)
        self._held.append(_Chunk(values, arrival_s, self._step_s, missing_s, follows))
        self._held_samples += len(values)
        self._line_s += missing_s + len(values) * self._step_s
        self._held_lateness_s = min(self._held_lateness_s, arrival_s - self._line_s)
        if self._anchored and abs(self._held_lateness_s) <= self._slack_s + self._frame_s:
            samples, lateness_s = self._held_samples, self._held_lateness_s
            runs = self._release(0.0, follows=True)
            self._correct(samples, lateness_s)
            return runs
        self._step_s = self._period_s  # nobody knows how long this lasts: correct nothing meanwhile
        if arrival_s - self._held[0].arrival_s < HOLD_S and self._held_samples < HOLD_SAMPLES:
            return []
        return self._release(self._held_lateness_s, follows=False)

    def flush(self) -> list[Run]:
        """Give what is held. The next samples begin a new stretch, whose place arrivals alone decide."""
        runs = self._release(self._held_lateness_s, follows=False) if self._held else []
        self._anchored = False
        self._end_ns = None
        return runs

    def _missing(self, samples: int, end_ns: int | None, arrival_s: float) -> tuple[float, bool]:
        """Seconds missing before these samples by the device's clock, and whether they follow the ones before."""
        before_ns, self._end_ns = self._end_ns, end_ns
        if before_ns is None or end_ns is None:
            return 0.0, True
        # Bounded before it becomes a float: 2^63 ns are 292 years.
        passed_s = max(-(1 << 63), min(1 << 63, end_ns - before_ns)) / 1e9
        step_s = self._within(self._passed_s / self._passed_samples) if self._passed_samples else self._nominal_s
        even_s = samples * step_s
        if abs(passed_s - even_s) <= GAP_PERIODS * step_s + RATE_TOLERANCE * even_s:
            self._passed_s += passed_s
            self._passed_samples += samples
            return 0.0, True
        # The device's clock against its samples, and its samples against arrivals: its clock against the bridge's.
        excess_s = (passed_s - even_s) * self._period_s / step_s
        line_s = self._line_s if self._anchored else self._line_s + self._held_lateness_s
        if 0 < excess_s <= min(arrival_s - line_s - samples * self._period_s + self._slack_s, LONGEST_TOLD_S):
            return excess_s, False
        # That is too long, or the clock was set, has begun anew, or lies: arrivals say how long it took.
        self._anchored = False
        return 0.0, False

    def _release(self, shift_s: float, *, follows: bool) -> list[Run]:
        """Give what is held, the first sample ``shift_s`` later than it would be."""
        runs: list[Run] = []
        self._now_s += shift_s
        for chunk in self._held:
            self._now_s += chunk.missing_s + len(chunk.values) * chunk.step_s
            joined = chunk.follows and (follows or bool(runs))
            runs.append(Run(chunk.values, self._now_s, chunk.step_s, joined))
        self._held = []
        self._held_samples = 0
        self._held_lateness_s = math.inf
        self._line_s = self._now_s
        if not follows:
            self._update_samples, self._update_lateness_s = 0, math.inf
        self._anchored = True
        return runs

    def _correct(self, samples: int, lateness_s: float) -> None:
        """The loop: after each second, bring period and phase nearer to the least late arrival in it."""
        self._update_samples += samples
        self._update_lateness_s = min(self._update_lateness_s, lateness_s)
        span_s = self._update_samples * self._period_s
        if span_s < max(UPDATE_S, FRAMES * self._frame_s):
            return
        self._seen_s += span_s
        memory_s = min(max(self._seen_s / GROWTH, FIRST_MEMORY_S), LAST_MEMORY_S)
        kept = math.exp(-span_s / memory_s)
        late_s = self._update_lateness_s / self._update_samples
        self._period_s = self._within(self._period_s + (1 - kept) ** 2 * late_s)
        # The phase is not set but approached during the next second, by an eighth of it at the very most.
        self._step_s = self._period_s + (1 - kept**2) * late_s
        self._update_samples, self._update_lateness_s = 0, math.inf

    def _within(self, period_s: float) -> float:
        """The nearest period that a device's rate is taken to have."""
        return min(max(period_s, self._nominal_s / (1 + RATE_TOLERANCE)), self._nominal_s / (1 - RATE_TOLERANCE))
