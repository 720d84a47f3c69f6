"""Text lines over the Nordic UART service: Bangle.js, Puck.js, Arduino sketches.

The service is published in Nordic's "Nordic UART Service (NUS)"; Espruino's use of it on espruino.com/BLE+UART. UUIDs
are ``6E40xxxx-B5A3-F393-E0A9-E50E24DCCA9E``.

===== ============================= ==============================================
xxxx  what                          value
===== ============================= ==============================================
0001  service
0002  RX: what we write             not used
0003  TX: what we read (notify)     a stream of bytes, cut anywhere
===== ============================= ==============================================

The lines are of our own choosing, because there is no standard. Each ends in a line feed and is one sample:

- numbers with commas between them: 3 (acceleration x y z) or 6 (then rotation x y z): ``0.01,-0.02,1.0,0.5,-3,12.25``;
- or a JSON object with ``acc`` and ``gyro``, each ``[x, y, z]`` or ``{"x": .., "y": .., "z": ..}``; other keys are
  ignored: ``{"acc":[0.01,-0.02,1.0],"gyro":[0.5,-3,12.25]}``.

**Units are g and °/s**; the sketch converts. What lies beyond the full scale is saturated, as an ADC does. A line has
at most 200 bytes. The prompt and the cursor movements of an Espruino console around a line are ignored. The bytes
before the first line feed are never read: they may be the rest of a line. A sketch that begins with an empty line loses
nothing. On a Bangle.js::

    Bluetooth.println(); Bangle.on("accel", a => Bluetooth.println([a.x, a.y, a.z].join()));

Neither rate nor range can be asked of such a device: its sketch MUST sample at the rate that the session is opened at.
``nordic-uart`` is for devices with a gyroscope, ``nordic-uart-acc`` for the others (and ignores a gyroscope).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from device_emulator.ble.profiles.base import Samples, Seen, Write
from device_emulator.ble.profiles.support import check_characteristic, pick_range
from quantization.errors import ProfileError
from quantization.imu import ACC, ACC_GYRO
from quantization.sensor import Sensor


def uart_uuid(number: int) -> str:
    """The 128-bit UUID of the service or one of its characteristics."""
    return f"6e40{number:04x}-b5a3-f393-e0a9-e50e24dcca9e"


SERVICE: Final = uart_uuid(1)
RX: Final = uart_uuid(2)
TX: Final = uart_uuid(3)
NAMES: Final = ("Bangle.js", "Puck.js")

MAX_LINE_BYTES: Final = 200
RATES_HZ: Final = 1.0, 104.0
"""Slowest and fastest that firmware for such boards commonly samples at."""
ACC_RANGES_G: Final = (2.0, 4.0, 8.0, 16.0)
GYRO_RANGES_DPS: Final = (125.0, 245.0, 250.0, 500.0, 1000.0, 2000.0)

_NUMBER: Final = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})([eE][+-]?\d{1,2})?", re.ASCII)
_CONSOLE: Final = re.compile(rb"(\x1b\[[0-9;]{0,8}[A-Za-z]|[\x00-\x20>])*")
"""What an Espruino console puts before a line: VT100 sequences, backspaces, its prompt."""
_BLANK: Final = bytes(range(0x21))


class UartSession:
    """One connection; holds at most one line.

    Args:
        title: of the profile, for messages.
        sensor: channels and full scale.
        rate_hz: at which the device is taken to sample.
    """

    notify: Final = (TX,)
    start: Final[tuple[Write, ...]] = ()
    stop: Final[tuple[Write, ...]] = ()

    def __init__(self, title: str, sensor: Sensor, rate_hz: float) -> None:
        self.title = title
        self.sensor = sensor
        self.rate_hz = rate_hz
        self._limit = np.abs(np.asarray(sensor.lsb) * sensor.count_min)
        self._held = b""
        self._skipping = True

    def feed(self, characteristic: str, data: bytes) -> list[Samples]:
        """Lines that are complete, in one block, or in two and more where a line between them could not be read.

        Raises:
            ProfileError: ``characteristic`` another one; no line could be read, and the last one was ``length`` too
                long, ``columns`` not 3 or 6 numbers, ``text`` neither numbers nor such JSON.
        """
        check_characteristic(self.title, TX, characteristic)
        *lines, self._held = (self._held + data).split(b"\n")
        if self._skipping and lines:
            lines = lines[1:]
            self._skipping = False
        refused: ProfileError | None = None
        if len(self._held) > MAX_LINE_BYTES:
            refused = _too_long(len(self._held))
            self._skipping = True  # up to its end
            self._held = b""
        blocks: list[list[list[float]]] = [[]]
        for line in lines:
            try:
                row = self._read(line)
            except ProfileError as error:
                refused = error
                blocks.append([])
                continue
            if row:
                blocks[-1].append(row)
        found = [Samples(np.clip(np.array(rows), -self._limit, self._limit)) for rows in blocks if rows]
        if refused is not None and not found:
            raise refused
        return found

    def _read(self, line: bytes) -> list[float]:
        """One line's numbers, one per channel; none if it is empty."""
        if len(line) > MAX_LINE_BYTES:
            raise _too_long(len(line))
        text = _CONSOLE.sub(b"", line, count=1).rstrip(_BLANK).decode("ascii", errors="replace")
        if not text:
            return []
        row = _from_json(text) if text.startswith("{") else _from_columns(text)
        if len(row) < len(self.sensor.channels):
            raise ProfileError(
                "columns", f"{self.title}: a line has no gyroscope; use nordic-uart-acc for a device without one"
            )
        return row[: len(self.sensor.channels)]


def _too_long(size: int) -> ProfileError:
    return ProfileError("length", f"a line of {size} bytes or more; at most {MAX_LINE_BYTES}")


def _from_columns(text: str) -> list[float]:
    columns = [column.strip() for column in text.split(",")]
    if not all(_NUMBER.fullmatch(column) for column in columns):
        raise ProfileError("text", f"neither numbers with commas between them nor a JSON object: {text[:60]!r}")
    if len(columns) not in (len(ACC), len(ACC_GYRO)):
        raise ProfileError("columns", f"{len(columns)} numbers in a line; 3 or 6 are expected")
    return [float(column) for column in columns]


def _from_json(text: str) -> list[float]:
    try:
        read = json.loads(text)
    except ValueError as error:
        raise ProfileError("text", f"not JSON: {error}") from error
    row = _axes(read, "acc")
    return row + _axes(read, "gyro") if "gyro" in read else row


def _axes(read: dict[str, object], key: str) -> list[float]:
    axes = read.get(key)
    if isinstance(axes, dict):
        axes = [axes.get(axis) for axis in "xyz"]
    if not (isinstance(axes, list) and len(axes) == 3 and all(type(axis) in (int, float) for axis in axes)):
        raise ProfileError("columns", f"{key!r} is not three numbers in {str(read)[:60]}")
    numbers = [float(axis) for axis in axes]
    if not all(map(math.isfinite, numbers)):
        raise ProfileError("text", f"{key!r} is not finite")
    return numbers


@dataclass(frozen=True)
class NordicUart:
    """Any device that prints lines.

    Args:
        name: of the profile.
        title: for people.
        channels: what is taken of a line: accelerometer and gyroscope, or the former alone.
        rates_hz: none, as it cannot be asked for one; any from 1 to 104 Hz is believed.
    """

    name: str
    title: str
    channels: tuple[str, ...]
    rates_hz: tuple[float, ...] = ()

    def knows(self, seen: Seen) -> bool:
        """By the service, or by a name that Espruino's boards have."""
        return SERVICE in seen.services or seen.name.startswith(NAMES)

    def open(self, *, rate_hz: float, acc_g: float | None = None, gyro_dps: float | None = None) -> UartSession:
        """Begin a session. What is wanted is what the sketch is taken to do: by default ±16 g and ±2000 °/s."""
        slowest, fastest = RATES_HZ
        if not slowest <= rate_hz <= fastest:
            raise ProfileError("rate", f"{self.title} samples at {slowest:g} to {fastest:g} Hz, not at {rate_hz:g} Hz")
        full_scale = {"acc": pick_range(self.title, "g", ACC_RANGES_G, acc_g, ACC_RANGES_G[-1])}
        gyro_ranges = GYRO_RANGES_DPS if self.channels == ACC_GYRO else ()
        full_scale["gyro"] = pick_range(self.title, "deg/s", gyro_ranges, gyro_dps, GYRO_RANGES_DPS[-1])
        sensor = Sensor.symmetric(self.title, self.channels, adc_bits=16, full_scale=full_scale)
        return UartSession(self.title, sensor, rate_hz)


NORDIC_UART: Final = NordicUart("nordic-uart", "Nordic UART (Bangle.js, Puck.js, Arduino)", ACC_GYRO)
NORDIC_UART_ACC: Final = NordicUart("nordic-uart-acc", "Nordic UART without a gyroscope", ACC)
