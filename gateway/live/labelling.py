"""Labels that somebody types at a page. They take the way of all labels: over the broker, as stretches of wall time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.live.guard import RequestRefusedError
from protocol.messages import Label
from protocol.topics import Kind, topic

SAY_MS: Final = 1000
"""A label is never further behind than this, about as long as a packet."""
OVERLAP_MS: Final = 2000
"""Each stretch begins within the one before: the clock that maps it to ticks may have moved a little.

Nor does one go on for longer: if more time seems to have passed, the clock was set.
"""
LONGEST_MS: Final = 1_800_000
"""A label that somebody forgot ends by itself after half an hour."""
MAX_OPEN: Final = 64


@dataclass(slots=True)
class _Open:
    activity: str
    from_ms: int
    said_ms: int
    labelled_ms: int = 0


class Labelling:
    """What wearers do at present, as typed.

    Args:
        publish: topic and payload.
    """

    def __init__(self, publish: Callable[[str, bytes], None]) -> None:
        self._publish = publish
        self._open: dict[str, _Open] = {}

    def activity_of(self, device: str) -> str | None:
        """What somebody says that its wearer does."""
        label = self._open.get(device)
        return label.activity if label is not None else None

    def begin(self, device: str, activity: str, now_ms: int) -> None:
        """From now on the wearer does this, until somebody says otherwise.

        Raises:
            RequestRefusedError: too many are open.
        """
        if self.activity_of(device) == activity:
            return
        self.end(device, now_ms)
        if len(self._open) >= MAX_OPEN:
            raise RequestRefusedError(409, f"{MAX_OPEN} labels are open already: end one")
        self._open[device] = _Open(activity, now_ms, now_ms)

    def end(self, device: str, now_ms: int) -> None:
        """From now on nobody says what the wearer does."""
        label = self._open.pop(device, None)
        if label is not None:
            self._say(device, label, now_ms)

    def tick(self, now_ms: int) -> None:
        """To be called a few times a second."""
        for device, label in list(self._open.items()):
            if not 0 <= now_ms - label.said_ms < SAY_MS:
                self._say(device, label, now_ms)
            if label.labelled_ms >= LONGEST_MS:
                del self._open[device]

    def _say(self, device: str, label: _Open, now_ms: int) -> None:
        to_ms = min(now_ms, label.said_ms + OVERLAP_MS)
        if to_ms > label.said_ms:
            from_ms = max(label.from_ms, label.said_ms - OVERLAP_MS)
            message = Label(activity=label.activity, from_ms=from_ms, to_ms=to_ms)
            self._publish(topic(device, Kind.LABEL), message.to_json())
            label.labelled_ms += to_ms - label.said_ms
        if to_ms != now_ms or now_ms < label.said_ms:  # the clock was set
            label.from_ms = now_ms
        label.said_ms = now_ms
