"""What a bridge needs to know of a kind of wearable: how to recognise it, what to write, how to read what it sends.

Pure parsing: nothing here does input or output. A profile's units end at its edge: what comes out is in g and °/s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from quantization.imu import Floats
from quantization.sensor import Sensor

BLUETOOTH_BASE = "-0000-1000-8000-00805f9b34fb"
"""What a 16-bit UUID stands in front of (Bluetooth Core 5.4, Vol 3, Part B, 2.5.1)."""


def short_uuid(number: int) -> str:
    """The 128-bit form of a 16-bit UUID.

    >>> short_uuid(0x180F)
    '0000180f-0000-1000-8000-00805f9b34fb'
    """
    return f"{number:08x}{BLUETOOTH_BASE}"


class Write(NamedTuple):
    """One value to write.

    Fields:
        characteristic: its UUID, lower case.
        data: the value.
        response: wait for the device's acknowledgement.
    """

    characteristic: str
    data: bytes
    response: bool = True


class Samples(NamedTuple):
    """What one notification brought.

    Fields:
        values: ``[n, C]`` float64, g and °/s, oldest first, evenly spaced.
        end_ns: the device's own time of the last sample, in ns since any moment; None where it tells no time.
    """

    values: Floats
    end_ns: int | None = None


@dataclass(frozen=True)
class Seen:
    """What a wearable says of itself before it is connected.

    Args:
        address: of the device; on macOS an identifier.
        name: as advertised; empty if there is none.
        services: advertised service UUIDs, 128 bit, lower case.
        rssi: dBm.
    """

    address: str
    name: str = ""
    services: frozenset[str] = field(default_factory=frozenset)
    rssi: int = 0


class Session(Protocol):
    """One connection to one wearable; keeps what a parser has to remember between notifications."""

    @property
    def sensor(self) -> Sensor:
        """The part: channels, LSBs and range of what :meth:`feed` gives."""

    @property
    def rate_hz(self) -> float:
        """Nominal samples per second."""

    @property
    def notify(self) -> tuple[str, ...]:
        """UUIDs of the characteristics to subscribe to, in this order, before :attr:`start` is written."""

    @property
    def start(self) -> tuple[Write, ...]:
        """What makes the stream begin."""

    @property
    def stop(self) -> tuple[Write, ...]:
        """What makes it end."""

    def feed(self, characteristic: str, data: bytes) -> list[Samples]:
        """Read one notification.

        Raises:
            ProfileError: bytes that this kind of wearable does not send. The session stays usable.
        """


class Profile(Protocol):
    """One kind of wearable."""

    @property
    def name(self) -> str:
        """For ``--profile``: lower case, ``a-z 0-9 -``."""

    @property
    def title(self) -> str:
        """For people: maker and model."""

    @property
    def channels(self) -> tuple[str, ...]:
        """What it measures."""

    @property
    def rates_hz(self) -> tuple[float, ...]:
        """The sampling rates that it offers, ascending; empty if it has one of its own and cannot be asked for any."""

    def knows(self, seen: Seen) -> bool:
        """Whether that is one of them."""

    def open(self, *, rate_hz: float, acc_g: float | None = None, gyro_dps: float | None = None) -> Session:
        """Begin a session.

        Args:
            rate_hz: wanted; the session's own rate is the lowest offered that is at least this, within 5 %.
            acc_g: wanted full scale; None = the profile's usual one.
            gyro_dps: likewise.

        Raises:
            ProfileError: the device cannot do that; the message says what it can.
        """
