"""Kinds of wearables: one small file each."""

from typing import Final

from device_emulator.ble.profiles.base import Profile
from device_emulator.ble.profiles.microbit import MICROBIT
from device_emulator.ble.profiles.movesense import MOVESENSE
from device_emulator.ble.profiles.polar import POLAR_H10, POLAR_VERITY_SENSE
from device_emulator.ble.profiles.sensortag import SENSORTAG
from device_emulator.ble.profiles.thingy52 import THINGY52
from device_emulator.ble.profiles.uart import NORDIC_UART, NORDIC_UART_ACC
from device_emulator.ble.profiles.witmotion import WITMOTION
from quantization.errors import ProfileError

PROFILES: Final[tuple[Profile, ...]] = (
    POLAR_H10, POLAR_VERITY_SENSE, MOVESENSE, THINGY52, SENSORTAG, WITMOTION, MICROBIT, NORDIC_UART, NORDIC_UART_ACC,
)  # fmt: skip
"""The most specific first: of two that know a device, the first that has the wanted channels is taken."""


def by_name(name: str) -> Profile:
    """One of :data:`PROFILES`.

    Raises:
        ProfileError: ``name`` is not known; the message lists those that are.

    >>> by_name("thingy52").title
    'Nordic Thingy:52'
    """
    for profile in PROFILES:
        if profile.name == name:
            return profile
    known = ", ".join(profile.name for profile in PROFILES)
    raise ProfileError("name", f"no profile {name[:40]!r}; known: {known}; others: --profile-file")
