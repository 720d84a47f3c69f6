"""When to try again, and in which protocol version: the memory of a connection between its attempts."""

from __future__ import annotations

import random
from typing import Literal

from protocol.mqtt_opening import UNSUPPORTED_PROTOCOL_VERSION, ChannelError

FIRST_DELAY_S = 0.1
"""A broker that restarts is back within a fraction of a second."""

LAST_DELAY_S = 3.0
"""With CONNECT_TIMEOUT_S, a stream goes on within ten seconds of the broker's return."""

LEAST_SHARE = 0.2
"""The delay is drawn from this share of the ceiling upwards: hundreds of devices in one process lose their connections
at the same moment and must not come back at the same moment, again and again."""

STABLE_S = 5.0
"""A connection that lasted so long was a good one: the delay starts over. One that did not (two clients that share an
identifier throw each other out) counts as a failed attempt, or they would do so ten times a second."""

EARLY_CLOSES = 2
"""A broker that knows no MQTT 5 should say so in CONNACK; some just close. So many times in a row, as one that
restarts may close once, and it is not worth losing the topic aliases for."""


class Backoff:
    """Exponential back-off with jitter.

    Args:
        last_s: the longest delay, in seconds.
    """

    def __init__(self, last_s: float = LAST_DELAY_S) -> None:
        self._last_s = last_s
        self._ceiling = FIRST_DELAY_S

    def next_delay(self) -> float:
        """Return the seconds to wait now; the next delay is drawn from twice the range."""
        delay = self._ceiling * random.uniform(LEAST_SHARE, 1.0)  # noqa: S311 - no secret
        self._ceiling = min(2 * self._ceiling, self._last_s)
        return delay

    def lived(self, seconds: float) -> None:
        """Start over if a connection lasted."""
        if seconds >= STABLE_S:
            self._ceiling = FIRST_DELAY_S


class VersionChoice:
    """MQTT 5 if the broker speaks it, else 3.1.1.

    A broker that says "unsupported protocol version" (amqtt does, with a CONNACK of 3.1.1's layout) is believed for
    good. One that closed :data:`EARLY_CLOSES` times without an answer is asked in 3.1.1; the next connection begins
    with 5 again.
    """

    def __init__(self, wanted: Literal["auto", "5", "3.1.1"]) -> None:
        self._auto = wanted == "auto"
        self._only_311 = wanted == "3.1.1"
        self._early_closes = 0

    @property
    def version(self) -> Literal[4, 5]:
        """The protocol level of the next attempt; 4 is MQTT 3.1.1."""
        return 4 if self._only_311 or self._early_closes >= EARLY_CLOSES else 5

    def accepted(self) -> None:
        """Note a CONNACK that let us in."""
        self._early_closes = 0

    def falls_back(self, error: ChannelError) -> bool:
        """Return whether to try the other version at once."""
        if not self._auto:
            return False
        if self.version == 4:
            self._early_closes = 0
            return False
        if error.code == UNSUPPORTED_PROTOCOL_VERSION:
            self._only_311 = True
            return True
        self._early_closes = self._early_closes + 1 if error.closed_early else 0
        return self._early_closes >= EARLY_CLOSES
