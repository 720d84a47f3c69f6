"""Channels of an inertial measurement unit, their units, and the one type alias for blocks of samples.

A *block* is always ``[n, channels]``, oldest sample first. Physical values are in **g** (accelerometer) and **°/s**
(gyroscope) everywhere in the project; data sets and devices are converted at their edge.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from quantization.errors import SensorError

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]
"""ADC counts, ``[n, channels]``; wide enough for any 16-bit part, signed or unsigned."""
Codes = NDArray[np.uint8]
"""Quantizer codes, ``[n, channels]``, each in ``0 .. 2**bits - 1``."""

STANDARD_GRAVITY: Final = 9.80665
"""m/s² in one g (CGPM 1901)."""

ACC: Final = ("acc_x", "acc_y", "acc_z")
GYRO: Final = ("gyro_x", "gyro_y", "gyro_z")
ACC_GYRO: Final = ACC + GYRO

MAX_CHANNELS: Final = 16
"""A packet's channels are implied by its codebook; this bounds what a hostile codebook may ask for."""

_CHANNEL = re.compile(r"[a-z][a-z0-9_]{0,15}")


def check_channels(channels: tuple[str, ...]) -> None:
    """Raise :class:`SensorError` unless there are 1 to 16 distinct channel names of ``[a-z][a-z0-9_]{0,15}``."""
    if not 1 <= len(channels) <= MAX_CHANNELS:
        raise SensorError(f"1 to {MAX_CHANNELS} channels, not {len(channels)}")
    if len(set(channels)) != len(channels):
        raise SensorError(f"channel names repeat: {', '.join(channels)}")
    for channel in channels:
        if not _CHANNEL.fullmatch(channel):
            raise SensorError(f"not a channel name: {channel!r} (a-z, digits and _, at most 16)")


def unit_of(channel: str) -> str:
    """``"g"`` for accelerometer channels, ``"deg/s"`` for gyroscopes, ``"1"`` for anything else.

    >>> unit_of("acc_x"), unit_of("gyro_z")
    ('g', 'deg/s')
    """
    return {"acc": "g", "gyro": "deg/s"}.get(channel.split("_", maxsplit=1)[0], "1")
