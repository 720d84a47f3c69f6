"""A device's clock as the gateway sees it: from its ticks to UTC and back. And what holds when the gateway's is set.

A packet that is sent at tick *t* arrives at ``a = offset + (1 + skew) · t + delay`` with a delay that varies and is
never negative. The line that lies below all points ``(t, a - t)`` and closest to them, the *lower envelope*, is the
clock without the delays (Moon, Skelly and Towsley, "Estimation and removal of clock skew from network delay
measurements", INFOCOM 1999). What cannot be known from one side is the shortest delay: it is taken to be 0.

Only the lowest point of each half minute is kept, 20 of them: some ten minutes, after which a wrong estimate (a device
that restarted unnoticed, a gateway whose own clock was set) has left by itself.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Final

BUCKET_MS: Final = 30_000
"""Long enough for a packet a second to meet a short delay, short enough to see the slope within minutes."""
BUCKETS: Final = 20
SKEW_AFTER_MS: Final = 120_000
"""Below two minutes the jitter of a radio link (tens of ms) makes a slope that is worse than none."""
MAX_SKEW: Final = 200e-6
"""Twice what a watch crystal does over its temperature range; anything beyond is delay, not skew."""


def unwrap(value: int, near: int, modulus: int) -> int:
    """The number congruent to ``value`` that is nearest to ``near``; of two equally near the lower.

    >>> unwrap(5, near=4_294_967_290, modulus=2**32), unwrap(4095, near=8192, modulus=4096)
    (4294967301, 8191)
    """
    half = modulus // 2
    return near + (value - near + half) % modulus - half


def passed(since: float, now: float, span: float) -> bool:
    """Whether so much time has passed. It has if the clock was set back: nothing waits for the old time to return.

    >>> passed(100, 104, 5), passed(100, 105, 5), passed(100, 40, 5)
    (False, True, True)
    """
    return not 0 <= now - since < span


class DeviceClock:
    """Maps one device's unwrapped ticks (ms) to UTC (ms) and back.

    >>> clock = DeviceClock()
    >>> clock.observe(1000.0, 5_000_030.0); clock.observe(2000.0, 5_001_010.0)
    >>> clock.to_wall_ms(3000.0)
    5002010.0
    """

    __slots__ = ("_buckets", "_intercept", "_origin", "_slope")

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, float, float]] = deque(maxlen=BUCKETS)  # number, tick, arrival - tick
        self._origin = 0.0
        self._intercept = 0.0
        self._slope = 0.0

    @property
    def ready(self) -> bool:
        """Whether anything was observed: before, the mapping means nothing."""
        return bool(self._buckets)

    @property
    def skew(self) -> float:
        """How much faster UTC runs than the device's ticks, as a share; 0 until it can be told."""
        return self._slope

    def observe(self, tick: float, arrival_ms: float) -> None:
        """Learn from one packet.

        Args:
            tick: unwrapped, of the packet's *last* sample: before that it cannot have been sent.
            arrival_ms: UTC at which it arrived.
        """
        delta = arrival_ms - tick
        number = int(arrival_ms // BUCKET_MS)
        if self._buckets and number < self._buckets[-1][0] - 1:  # the gateway's clock was set back
            self._buckets.clear()
        last = self._buckets[-1] if self._buckets else None
        if last is None or number > last[0]:
            self._buckets.append((number, tick, delta))
        elif delta < last[2]:
            self._buckets[-1] = (last[0], tick, delta)
        else:
            return
        # A new bucket can drop an old one; a new minimum matters only if it lies below the line.
        if last is None or number > last[0] or delta < self._intercept + self._slope * (tick - self._origin):
            self._fit()

    def to_wall_ms(self, tick: float) -> float:
        """UTC in ms of an unwrapped tick."""
        return tick + self._intercept + self._slope * (tick - self._origin)

    def to_tick(self, wall_ms: float) -> float:
        """The unwrapped tick of a UTC time in ms."""
        return (wall_ms - self._intercept + self._slope * self._origin) / (1.0 + self._slope)

    def _fit(self) -> None:
        self._origin = self._buckets[0][1]
        points = sorted((tick - self._origin, delta) for _, tick, delta in self._buckets)
        self._slope = 0.0
        if points[-1][0] - points[0][0] >= SKEW_AFTER_MS:
            self._slope = max(-MAX_SKEW, min(MAX_SKEW, _slope_below(points)))
        self._intercept = min(delta - self._slope * x for x, delta in points)


def _slope_below(points: list[tuple[float, float]]) -> float:
    """The slope of the line below all points with the least sum of distances: the hull's edge at their mean."""
    hull: list[tuple[float, float]] = []
    for point in points:
        while len(hull) >= 2 and _turns_down(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    mean = sum(x for x, _ in points) / len(points)
    for (x0, y0), (x1, y1) in itertools.pairwise(hull):
        if x1 >= mean and x1 > x0:
            return (y1 - y0) / (x1 - x0)
    return 0.0


def _turns_down(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) <= (b[1] - a[1]) * (c[0] - a[0])
