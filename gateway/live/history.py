"""Bandwidth over the last minutes: what was sent, and what the same samples would have taken."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from gateway.traffic import Traffic

STEP_S: Final = 1
STEPS: Final = 300
RATE_STEPS: Final = 10
_LEVELS: Final = {
    "payload": "payload_bytes",
    "packet": "packet_bytes",
    "mqtt": "mqtt_topic_bytes",
    "raw12": "raw12_bytes",
    "float32": "float32_bytes",
    "json": "json_bytes",
}
_RATES: Final = ("packet", "mqtt", "raw12", "float32", "json")


class BandwidthHistory:
    """Totals once a second, five minutes of them.

    >>> history = BandwidthHistory()
    >>> history.note(1000, Traffic()); history.note(3000, Traffic(mqtt_topic_bytes=500, raw12_bytes=4000))
    >>> history.point()
    {'ms': 3000, 'mqtt': 250.0, 'raw12': 2000.0}
    """

    def __init__(self) -> None:
        self._points: deque[tuple[int, float, float]] = deque(maxlen=STEPS)
        self._totals: deque[tuple[int, dict[str, int]]] = deque(maxlen=RATE_STEPS + 1)

    def note(self, now_ms: int, totals: Traffic) -> None:
        """Take the totals, about once a second."""
        new = {level: int(getattr(totals, name)) for level, name in _LEVELS.items()}
        if self._totals and now_ms <= self._totals[-1][0]:  # the clock was set back: nothing can be divided by that
            self._totals.clear()
        if self._totals:
            before_ms, before = self._totals[-1]
            step_s = (now_ms - before_ms) / 1000
            mqtt, raw12 = ((new[level] - before[level]) / step_s for level in ("mqtt", "raw12"))
            self._points.append((now_ms, round(mqtt, 1), round(raw12, 1)))
        self._totals.append((now_ms, new))

    def point(self) -> dict[str, float] | None:
        """The newest step: bytes per second up to ``ms``."""
        if not self._points:
            return None
        ms, mqtt, raw12 = self._points[-1]
        return {"ms": ms, "mqtt": mqtt, "raw12": raw12}

    def history(self) -> dict[str, Any]:
        """All steps: bytes per second, oldest first."""
        return {
            "step_s": STEP_S,
            "end_ms": self._points[-1][0] if self._points else None,
            "mqtt": [mqtt for _, mqtt, _ in self._points],
            "raw12": [raw12 for _, _, raw12 in self._points],
        }

    def figures(self, totals: Traffic) -> dict[str, Any]:
        """Totals as they are now, and bytes per second over the last ten steps."""
        rates = dict.fromkeys(_RATES, 0.0)
        if len(self._totals) > 1:
            (from_ms, first), (to_ms, last) = self._totals[0], self._totals[-1]
            seconds = (to_ms - from_ms) / 1000
            rates = {level: round((last[level] - first[level]) / seconds, 1) for level in _RATES}
        return {
            "values": totals.values,
            "bytes": {level: int(getattr(totals, name)) for level, name in _LEVELS.items()},
            "rate": rates,
        }
