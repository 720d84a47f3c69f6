"""What a wearable's radio costs: average currents of a BLE device by what it has sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

ATT_HEADER_BYTES: Final = 3
"""Opcode and handle of a notification (Bluetooth Core 5.4, Vol 3, Part F, 3.4.7.1)."""

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
        packets: notifications sent, one a connection event; a mean need not be whole.
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

    packets: float
    packet_bytes: float
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
