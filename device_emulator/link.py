"""What lies between a wearable and the broker, for emulation: a BLE link's limits and faults, and what it costs.

The link layer of Bluetooth LE repeats a packet until it is acknowledged or the connection is given up; a packet is
never lost singly on the air. ``loss`` here therefore stands for what is lost above it: a full notification queue on the
device, a bridge that restarts.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from protocol.packet import HEADER_BYTES, MAX_PACKET_BYTES

ATT_HEADER_BYTES: Final = 3
"""Opcode and handle of a notification (Bluetooth Core 5.4, Vol 3, Part F, 3.4.7.1)."""

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


# -- energy -----------------------------------------------------------------------------------------------------------

SUPPLY_V: Final = 3.0
TX_MA: Final = 7.1
"""Radio sending at 0 dBm, at 3 V (nRF52832 product specification, current consumption)."""
RX_MA: Final = 6.5
"""Radio receiving (the same source, at 1 Mbit/s; taken for 2 Mbit/s too)."""
T_IFS_US: Final = 150
"""Inter-frame space (Bluetooth Core 5.4, Vol 6, Part B, 4.1.1), counted as receiving."""

Phy = Literal["1M", "2M"]
_OVERHEAD_BYTES: Final[dict[Phy, int]] = {"1M": 1 + 4 + 2 + 3, "2M": 2 + 4 + 2 + 3}
"""Preamble, access address, header and CRC of a link-layer packet (Vol 6, Part B, 2.1)."""
_BYTE_US: Final[dict[Phy, int]] = {"1M": 8, "2M": 4}
_L2CAP_ATT_BYTES: Final = 4 + ATT_HEADER_BYTES
_MAX_NOTIFICATION_BYTES: Final = 244

SENSOR_UA: Final[dict[str, float]] = {"bma456": 14.0, "bma400": 14.5, "bmi270": 650.0}
"""Typical currents of the makers' data sheets: accelerometers at 50 Hz; the BMI270 with its gyroscope."""


def notification_uj(payload_bytes: int, phy: Phy = "1M") -> float:
    """Radio energy of one notification in µJ: sent once, with one empty packet of the central and two spaces.

    Args:
        payload_bytes: of the notification, 1 .. 244: our header and our payload. Data length extension is assumed, so
            that it is one link-layer packet.
        phy: 1 or 2 Mbit/s.

    >>> [round(notification_uj(n, phy) / n, 2) for n, phy in ((20, "1M"), (244, "1M"), (244, "2M"))]
    [0.69, 0.21, 0.12]
    """
    if not 1 <= payload_bytes <= _MAX_NOTIFICATION_BYTES:
        raise ValueError(f"a notification has 1 to {_MAX_NOTIFICATION_BYTES} bytes, not {payload_bytes}")
    sent_us = (_OVERHEAD_BYTES[phy] + _L2CAP_ATT_BYTES + payload_bytes) * _BYTE_US[phy]
    received_us = _OVERHEAD_BYTES[phy] * _BYTE_US[phy] + 2 * T_IFS_US
    return (sent_us * TX_MA + received_us * RX_MA) * SUPPLY_V / 1000


def empty_event_uj(phy: Phy = "1M") -> float:
    """Radio energy of a connection event in which nothing is said: an empty packet each way, one space."""
    empty_us = _OVERHEAD_BYTES[phy] * _BYTE_US[phy]
    return (empty_us * TX_MA + (empty_us + T_IFS_US) * RX_MA) * SUPPLY_V / 1000


@dataclass(frozen=True)
class EnergyLedger:
    """Average current at 3 V, by part, of a device that has sent what is counted here.

    Counted: the radio's sending and receiving, of data and of empty connection events, by air time (nRF52832); the
    sensor, where its current is given. **Left out**, and often larger: the microcontroller itself (sampling,
    quantizing, the stack), waking up and the crystal's start, radio ramp-up, sleep current, widened receive windows
    (clock drift), repeated packets, advertising and connecting, converter losses, flash, the battery's self-discharge.
    So it compares ways of coding on one device; it is not a battery's life. Where a gyroscope runs, it dwarfs the
    radio, and fewer bits change nothing that a wearer would notice.

    Args:
        packets: notifications sent, one a connection event.
        packet_bytes: bytes in them, headers of ours included.
        seconds: over this time; above 0.
        connection_interval_ms: 7.5 .. 4000.
        peripheral_latency: connection events that the device may skip while it has nothing to say, 0 .. 499.
        phy: 1 or 2 Mbit/s.
        sensor_ua: the part's current in µA (:data:`SENSOR_UA`); None = not known, and absent from the sum.

    One second of six channels at 52 Hz and 4 bits, every third event of 30 ms used, in µA:

    >>> ledger = EnergyLedger(packets=60, packet_bytes=60 * 168, seconds=60, connection_interval_ms=30,
    ...                       peripheral_latency=2, sensor_ua=SENSOR_UA["bmi270"])
    >>> {part: round(current, 1) for part, current in ledger.microamperes().items()}
    {'data': 13.0, 'empty events': 20.9, 'sensor': 650.0}
    """

    packets: int
    packet_bytes: int
    seconds: float
    connection_interval_ms: float = 30.0
    peripheral_latency: int = 0
    phy: Phy = "1M"
    sensor_ua: float | None = None

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.packets < 0 or self.packet_bytes < self.packets or self.peripheral_latency < 0:
            raise ValueError(f"not a ledger of anything: {self}")

    def microamperes(self) -> dict[str, float]:
        """µA of each part that is counted."""
        data_uj = 0.0
        if self.packets:
            # Air time is linear in the bytes, so the mean packet stands for all.
            empty_uj = notification_uj(1, self.phy)
            byte_uj = notification_uj(2, self.phy) - empty_uj
            data_uj = self.packets * (empty_uj - byte_uj) + self.packet_bytes * byte_uj
        events = self.seconds * 1000 / (self.connection_interval_ms * (1 + self.peripheral_latency))
        empty = max(0.0, events - self.packets)
        parts = {
            "data": data_uj / SUPPLY_V / self.seconds,
            "empty events": empty * empty_event_uj(self.phy) / SUPPLY_V / self.seconds,
        }
        if self.sensor_ua is not None:
            parts["sensor"] = self.sensor_ua
        return parts
