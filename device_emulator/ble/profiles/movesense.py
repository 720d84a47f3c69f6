"""Movesense: accelerometer and gyroscope over the GATT SensorData Protocol (GSP).

Firmware 2.3 and later has GSP. Public at movesense.com/docs/esw/gatt_sensordata_protocol; the resource ``/Meas/IMU6``
in ``imu.yaml`` of the Movesense device library, and the split of long data in that library's client for
``gatt_sensordata_app``. Everything is little-endian. The reference is a byte of the client's choice, not 0.

=========== ================================================================================================
written     bytes
=========== ================================================================================================
hello       ``00``, reference
subscribe   ``01``, reference, path in ASCII, here ``/Meas/IMU6/<rate>``
unsubscribe ``02``, reference
=========== ================================================================================================

=========== ================================================================================================
notified    bytes
=========== ================================================================================================
answer      ``01``, reference, status u16 as in HTTP
data        ``02``, reference, payload or its first part
data, more  ``03``, reference, the rest of the payload, where it did not fit
=========== ================================================================================================

A payload: time of the first sample, u32 ms, wraps after 49.7 days; then n × 3 × f32 acceleration in m/s²; then
n × 3 × f32 angular rate in °/s. There are 13 payloads a second: n is 1, 2, 4, 8 or 16, by the rate. The sensor's MTU
may be as small as 161, so that 104 Hz needs a second part, and 208 Hz another one.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from device_emulator.ble.profiles.base import Samples, Seen, Session, Write
from device_emulator.ble.profiles.support import check_characteristic, pick_range, pick_rate
from quantization.errors import ProfileError
from quantization.imu import ACC_GYRO, STANDARD_GRAVITY
from quantization.sensor import Sensor

SERVICE: Final = "34802252-7185-4d5d-b431-630e7050e8f0"
COMMAND: Final = "34800001-7185-4d5d-b431-630e7050e8f0"
NOTIFY: Final = "34800002-7185-4d5d-b431-630e7050e8f0"

HELLO, SUBSCRIBE, UNSUBSCRIBE = 0, 1, 2
ANSWER, FIRST_PART, MORE = 1, 2, 3
REFERENCE: Final = 99

PAYLOADS_HZ: Final = 13
RATES_HZ: Final = tuple(float(PAYLOADS_HZ << shift) for shift in range(5))
PATH: Final = "/Meas/IMU6/{rate}"

TIME: Final = struct.Struct("<I")
TIME_MODULUS: Final = 1 << 32

ACC_G: Final = 16.0
GYRO_DPS: Final = 2000.0
GYRO_LSB: Final = 0.07
"""°/s: what ST's parts have at ± 2000 °/s (LSM6DSL data sheet, table 3); 16 bits of it cover ± 2294 °/s."""
HEADROOM: Final = 1.25
"""So far beyond the ADC's range may a value lie, for the sensor applies a calibration."""


class _MovesenseSession:
    """A connection; see :class:`device_emulator.ble.profiles.base.Session`."""

    def __init__(self, rate_hz: float) -> None:
        lsb = (ACC_G / 2**15,) * 3 + (GYRO_LSB,) * 3
        self.sensor: Final = Sensor(f"Movesense ±{ACC_G:g} g", ACC_GYRO, 16, lsb, (0,) * 6)
        self.rate_hz: Final = rate_hz
        self.notify: Final = (NOTIFY,)
        path = PATH.format(rate=int(rate_hz)).encode("ascii")
        self.start: Final = (Write(COMMAND, bytes([SUBSCRIBE, REFERENCE]) + path),)
        self.stop: Final = (Write(COMMAND, bytes([UNSUBSCRIBE, REFERENCE])),)
        self._samples = int(rate_hz) // PAYLOADS_HZ
        self._payload_bytes = TIME.size + self._samples * 4 * len(ACC_GYRO)
        self._limits = HEADROOM * 2**15 * np.asarray(lsb)
        self._part = b""  # of a payload; shorter than one
        self._first_ms: int | None = None  # time of the last payload, unwrapped

    def feed(self, characteristic: str, data: bytes) -> list[Samples]:
        """Read an answer or a part of a payload (no samples), or what completes a payload."""
        check_characteristic("Movesense", NOTIFY, characteristic)
        if len(data) < 3 or data[1] != REFERENCE:
            raise ProfileError("reference", f"nothing that was asked for: {data[:32].hex(' ')}")
        kind, content = data[0], data[2:]
        if kind == ANSWER:
            status = int.from_bytes(content[:2], "little")
            if not 200 <= status < 300:
                raise ProfileError("refused", f"Movesense does not send its IMU6 at {self.rate_hz:g} Hz: {status}")
            return []
        # A first part begins anew. If the rest of the payload before it was lost, the time shows the gap.
        part, self._part = (self._part if kind == MORE else b""), b""
        if kind not in (FIRST_PART, MORE) or (kind == MORE and not part):
            raise ProfileError("order", f"response {kind} does not follow on what came before")
        payload = part + content
        if len(payload) > self._payload_bytes:
            raise ProfileError("length", f"a payload has {self._payload_bytes} bytes, not {len(payload)}")
        if len(payload) < self._payload_bytes:
            self._part = payload
            return []
        return [self._read(payload)]

    def _read(self, payload: bytes) -> Samples:
        floats = np.frombuffer(payload, dtype="<f4", offset=TIME.size).astype(np.float64)
        acc, gyro = floats.reshape(2, self._samples, 3)
        values = np.column_stack([acc / STANDARD_GRAVITY, gyro])
        if not np.all(np.abs(values) <= self._limits):  # nor is any NaN
            raise ProfileError("value", "beyond the sensor's range")
        (time_ms,) = TIME.unpack_from(payload)
        if self._first_ms is None:
            self._first_ms = time_ms
        half = TIME_MODULUS // 2
        self._first_ms += (time_ms - self._first_ms + half) % TIME_MODULUS - half
        return Samples(values, self._first_ms * 1_000_000 + round((self._samples - 1) * 1e9 / self.rate_hz))


class _MovesenseProfile:
    """See :class:`device_emulator.ble.profiles.base.Profile`."""

    name: Final = "movesense"
    title: Final = "Movesense"
    channels: Final = ACC_GYRO
    rates_hz: Final = RATES_HZ

    def knows(self, seen: Seen) -> bool:
        """By its name, which a serial number follows, or by its service."""
        return seen.name.startswith("Movesense") or SERVICE in seen.services

    def open(self, *, rate_hz: float, acc_g: float | None = None, gyro_dps: float | None = None) -> Session:
        """See :meth:`device_emulator.ble.profiles.base.Profile.open`. GSP cannot set ranges: the widest are assumed."""
        rate = pick_rate(self.title, RATES_HZ, rate_hz)
        pick_range(self.title, "g", (ACC_G,), acc_g, ACC_G)
        pick_range(self.title, "deg/s", (GYRO_DPS,), gyro_dps, GYRO_DPS)
        return _MovesenseSession(rate)


MOVESENSE: Final = _MovesenseProfile()
