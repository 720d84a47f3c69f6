"""What lies between a wearable and the broker, for emulation: a BLE link's limits and faults.

The link layer of Bluetooth LE repeats a packet until it is acknowledged or the connection is given up; a packet is
never lost singly on the air. ``loss`` here therefore stands for what is lost above it: a full notification queue on the
device, a bridge that restarts.
"""

from __future__ import annotations

import math
import random
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from protocol.energy import ATT_HEADER_BYTES
from protocol.packet import HEADER_BYTES, MAX_PACKET_BYTES

Share = Annotated[float, Field(ge=0, le=1)]


class LinkSettings(BaseModel):
    """One link. The defaults: MTU 247, 30 ms, no faults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mtu: Annotated[int, Field(ge=23, le=517)] = 247
    """ATT MTU: 23 is what every device has, 247 fills one link-layer packet."""
    connection_interval_ms: Annotated[float, Field(ge=7.5, le=4000)] = 30.0
    """Data goes out at multiples of it (Bluetooth Core 5.4, Vol 6, Part B, 4.5.1)."""
    loss: Share = 0.0
    """Share of packets that never arrive."""
    duplicate: Share = 0.0
    """Of those that arrive, the share that arrives twice."""
    reorder: Share = 0.0
    """Of those that arrive, the share that arrives after its successor."""
    seed: int = 0
    """Two links with one seed make the same faults."""

    @property
    def max_payload_bytes(self) -> int:
        """What a packet may carry after our header: one notification.

        >>> LinkSettings().max_payload_bytes, LinkSettings(mtu=23).max_payload_bytes
        (232, 8)
        """
        return min(self.mtu - ATT_HEADER_BYTES, MAX_PACKET_BYTES) - HEADER_BYTES


class Delivery(NamedTuple):
    """A packet that arrives, and when: milliseconds on the device's clock."""

    at_ms: float
    packet: bytes


class Link:
    """Carries packets one after the other; see :class:`LinkSettings`.

    Attributes:
        lost, duplicated, reordered: packets with that fault so far.

    >>> Link(LinkSettings(connection_interval_ms=30)).send(1001, b"x")
    [Delivery(at_ms=1020.0, packet=b'x')]
    """

    def __init__(self, settings: LinkSettings) -> None:
        self.settings: Final = settings
        self._random = random.Random(settings.seed)  # noqa: S311 - faults, not secrets
        self._held: list[bytes] = []
        self.lost = 0
        self.duplicated = 0
        self.reordered = 0

    def send(self, due_ms: float, packet: bytes) -> list[Delivery]:
        """What arrives because of this packet; times never fall from one call to the next if ``due_ms`` does not."""
        interval = self.settings.connection_interval_ms
        at_ms = math.ceil(due_ms / interval) * interval
        # All three are drawn each time, so that turning one fault on does not move the others.
        lost, twice, late = (self._random.random() for _ in range(3))
        if lost < self.settings.loss:
            self.lost += 1
            return []
        copies = [packet]
        if twice < self.settings.duplicate:
            self.duplicated += 1
            copies.append(packet)
        if late < self.settings.reorder and not self._held:
            self.reordered += 1
            self._held = copies
            return []
        copies += self._held
        self._held = []
        return [Delivery(at_ms, copy) for copy in copies]

    def flush(self, now_ms: float) -> list[Delivery]:
        """What is still held back, when nothing follows."""
        held, self._held = self._held, []
        return [Delivery(now_ms, packet) for packet in held]
