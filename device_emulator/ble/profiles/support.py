"""What several profiles share: choosing among what a device offers, and the session of devices that send whole rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from device_emulator.ble.profiles.base import Samples, Write
from quantization.errors import ProfileError
from quantization.sensor import Sensor

RATE_TOLERANCE: Final = 0.05
"""A rate this much below the wanted one still serves: gateways take devices within 5 %."""


def pick_rate(title: str, offered: Sequence[float], wanted: float) -> float:
    """The lowest of ``offered`` (ascending, Hz) that is at least ``wanted``, within 5 %.

    Raises:
        ProfileError: ``rate`` if there is none.

    >>> pick_rate("demo", (25.0, 52.0), 50.0), pick_rate("demo", (25.0, 52.0), 26.0)
    (52.0, 25.0)
    """
    if not (math.isfinite(wanted) and wanted > 0):
        raise ProfileError("rate", f"{wanted} Hz is no sampling rate")
    for rate in offered:
        if rate >= wanted * (1 - RATE_TOLERANCE):
            return rate
    raise ProfileError("rate", f"{title} offers up to {offered[-1]:g} Hz; the model wants {wanted:g} Hz")


def pick_range(title: str, unit: str, offered: Sequence[float], wanted: float | None, usual: float) -> float:
    """``wanted`` if it is among ``offered`` full scales, ``usual`` if nothing is wanted.

    Raises:
        ProfileError: ``range`` if it is not offered.
    """
    if wanted is None:
        return usual
    if wanted not in offered:
        listed = ", ".join(f"±{full_scale:g}" for full_scale in offered) or "none"
        raise ProfileError("range", f"{title} offers {listed} {unit}; ±{wanted:g} {unit} is wanted")
    return wanted


def check_characteristic(title: str, expected: str, characteristic: str) -> None:
    """Raise :class:`ProfileError` (``characteristic``) for a notification of one that carries no samples."""
    if characteristic.lower() != expected:
        raise ProfileError("characteristic", f"{title} sends samples on {expected}, not on {characteristic[:40]}")


@dataclass(frozen=True)
class RowSession:
    """A session of a device whose every notification is one row of little-endian i16.

    Args:
        title: of the profile, for messages.
        sensor: its LSBs make the numbers physical.
        rate_hz: nominal.
        characteristic: that notifies.
        words: i16 in a row.
        columns: which of them are the sensor's channels, in their order.
        start: see :class:`~device_emulator.ble.profiles.base.Session`.
        stop: likewise.
    """

    title: str
    sensor: Sensor
    rate_hz: float
    characteristic: str
    words: int
    columns: tuple[int, ...]
    start: tuple[Write, ...] = ()
    stop: tuple[Write, ...] = ()

    @property
    def notify(self) -> tuple[str, ...]:
        """The one characteristic."""
        return (self.characteristic,)

    def feed(self, characteristic: str, data: bytes) -> list[Samples]:
        """One row per notification.

        Raises:
            ProfileError: ``characteristic`` another one, ``length`` not one row.
        """
        check_characteristic(self.title, self.characteristic, characteristic)
        if len(data) != 2 * self.words:
            raise ProfileError("length", f"{self.title} sends {2 * self.words} bytes, not {len(data)}")
        row = np.frombuffer(data, dtype="<i2")[list(self.columns)]
        return [Samples(row[None, :] * np.asarray(self.sensor.lsb))]
