"""Polar H10 (accelerometer) and Polar Verity Sense (accelerometer and gyroscope).

Both speak the Polar Measurement Data (PMD) service: commands are written to its control point, which answers with
indications; samples come as notifications of the data characteristic. Public in Polar's BLE SDK
(github.com/polarofficial/polar-ble-sdk: ``technical_documentation/online_measurement.pdf``, ``documentation/products``
and the package ``pmd`` of its Android sources). Everything is little-endian. Polar asks for an ATT MTU of 232 or more.

========================  =============================================================================================
control point             bytes
========================  =============================================================================================
start                     ``02``, measurement (2 accelerometer, 5 gyroscope), settings
stop                      ``03``, measurement
a setting                 type u8, count u8, values: 0 rate u16 Hz, 1 resolution u16 bits, 2 range u16 ± g or °/s,
                          3 range u32, 4 channels u8, 5 factor f32
answer                    ``F0``, command, measurement, status (0: done), more, settings. The H10 adds one reserved byte
stopped by the device     ``01``, measurements
========================  =============================================================================================

====== ======= ======================================================================================================
offset type    meaning of a data frame
====== ======= ======================================================================================================
0      u8      measurement
1      u64     time of the frame's last sample, ns since 2000-01-01
9      u8      bits 0-6 frame type, bit 7 delta frame
10     ...     samples
====== ======= ======================================================================================================

============= ===== ================================================================================================
measurement   frame samples
============= ===== ================================================================================================
accelerometer 01    3 × i16 each, in mg
accelerometer 80    deltas; a count is the answer's factor in g
accelerometer 81    deltas; a count is the answer's factor in mg; no factor is 1 (newer Verity Sense)
gyroscope     80    deltas; a count is the answer's factor in °/s
============= ===== ================================================================================================

Deltas: the first sample, 3 × i16; then blocks of width u8 in bits, count u8, and count × 3 differences to the sample
before, two's complement, from the least significant bit on, padded to whole bytes.

The Verity Sense sends its measurements in frames of their own: :class:`_Joiner` makes rows of them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from device_emulator.ble.profiles.base import Samples, Seen, Session, Write
from device_emulator.ble.profiles.support import check_characteristic, pick_range, pick_rate
from quantization.errors import ProfileError
from quantization.imu import ACC, ACC_GYRO, Counts, Floats
from quantization.sensor import Sensor

SERVICE: Final = "fb005c80-02e7-f387-1cad-8acd2d8df0c8"
CONTROL: Final = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"
DATA: Final = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"

ACCELEROMETER: Final = 2
GYROSCOPE: Final = 5
MEASUREMENTS: Final = {ACCELEROMETER: "accelerometer", GYROSCOPE: "gyroscope"}

START: Final = 2
STOP: Final = 3
ANSWER: Final = 0xF0
STOPPED: Final = 1
FEATURES: Final = 0x0F
"""What reading the control point gives; BlueZ hands that on as if it had been indicated."""

RATE, RESOLUTION, RANGE, CHANNELS, FACTOR = 0, 1, 2, 4, 5
SETTING_BYTES: Final = {RATE: 2, RESOLUTION: 2, RANGE: 2, 3: 4, CHANNELS: 1, FACTOR: 4}

ALREADY: Final = 6
STATUS: Final = (
    "done",
    "invalid command",
    "invalid measurement",
    "not supported",
    "invalid length",
    "invalid parameter",
    "already in that state",
    "invalid resolution",
    "invalid sampling rate",
    "invalid range",
    "MTU too small",
    "invalid number of channels",
    "invalid state",
    "device is in its charger",
    "disk full",
)

BITS: Final = 16
MG: Final = 0.001
GYRO_LSB: Final = 0.07
"""°/s: what ST's parts have at ± 2000 °/s (LSM6DSL data sheet, table 3); 16 bits of it cover ± 2294 °/s."""

HEADER: Final = struct.Struct("<BQB")
MAX_FRAME_BYTES: Final = 512
"""No attribute is longer (Bluetooth Core 5.4, Vol 3, Part F, 3.2.9). Bounds a delta frame to some 1300 samples."""
MAX_WIDTH: Final = BITS + 1
"""Bits of the largest difference of two counts."""

DELTA: Final = 0x80
FORMATS: Final[Mapping[tuple[int, int], float]] = {
    # measurement, frame type: the unit, in g or °/s
    (ACCELEROMETER, 0x01): MG,
    (ACCELEROMETER, DELTA | 0): 1.0,
    (ACCELEROMETER, DELTA | 1): MG,
    (GYROSCOPE, DELTA | 0): 1.0,
}

MAX_ROWS: Final = 512
"""Kept of one measurement for the other one's to come: 10 s at 52 Hz. A frame lasts 1.4 s."""
PERIOD_TOLERANCE: Final = 0.1
"""Two frames with so nearly the nominal period between their samples follow on each other."""
MAX_GAP: Final = 1.5
"""Periods between two samples without one missing."""


def _raw_counts(payload: bytes) -> Counts:
    """3 × i16 each -> ``[n, 3]``."""
    if not payload or len(payload) % 6:
        raise ProfileError("length", f"{len(payload)} bytes are no whole samples of 3 × 16 bits")
    return np.frombuffer(payload, dtype="<i2").reshape(-1, 3).astype(np.int32)


def _delta_counts(payload: bytes) -> Counts:
    """A first sample and blocks of deltas -> ``[n, 3]``."""
    parts = [_raw_counts(payload[:6])]
    at = 6
    while at < len(payload):
        width, samples = payload[at], payload[at + 1] if at + 1 < len(payload) else 0
        if not 1 <= width <= MAX_WIDTH or samples == 0:
            raise ProfileError("delta", f"a block of {samples} differences of {width} bits")
        used = samples * 3 * width
        block = payload[at + 2 : at + 2 + (used + 7) // 8]
        if 8 * len(block) < used:
            raise ProfileError("length", f"the frame ends within a block of {samples} differences")
        bits = np.unpackbits(np.frombuffer(block, dtype=np.uint8), bitorder="little")[:used].reshape(-1, width)
        weights = 1 << np.arange(width)
        weights[-1] = -weights[-1]  # two's complement
        parts.append((bits @ weights).reshape(samples, 3))
        at += 2 + len(block)
    counts = np.cumsum(np.concatenate(parts), axis=0)
    if np.any(counts != counts.astype(np.int16)):
        raise ProfileError("delta", f"the differences lead out of {BITS} bits")
    return counts.astype(np.int32)


def _factor(settings: bytes) -> float:
    """The factor among an answer's settings; 1 if there is none."""
    factor = 1.0
    while len(settings) > 1:  # the H10's reserved byte is no setting
        kind, end = settings[0], 2 + SETTING_BYTES.get(settings[0], 0) * settings[1]
        if kind not in SETTING_BYTES or len(settings) < end:
            raise ProfileError("settings", f"cannot be read: {settings.hex(' ')}")
        if kind == FACTOR and settings[1]:
            (factor,) = struct.unpack_from("<f", settings, 2)
        settings = settings[end:]
    if not 0 < factor <= 1:  # nor is it NaN
        raise ProfileError("settings", f"a factor of {factor:g}")
    return factor


class _Joiner:
    """One row per accelerometer sample, the gyroscope interpolated linearly to its time.

    What has no gyroscope sample within a period on both sides is not given out. At most :data:`MAX_ROWS` samples of
    each are kept.
    """

    def __init__(self, rate_hz: float) -> None:
        self._period = 1e9 / rate_hz
        self._reset(0)

    def _reset(self, origin: int) -> None:
        self._origin = origin  # times are kept relative to it, so that floats hold them
        self._last: dict[int, int] = {}  # measurement: time of its last sample
        self._times: dict[int, Floats] = {kind: np.empty(0) for kind in MEASUREMENTS}
        self._values: dict[int, Floats] = {kind: np.empty((0, 3)) for kind in MEASUREMENTS}

    def push(self, kind: int, values: Floats, end_ns: int) -> list[Samples]:
        """Take a frame's ``[n, 3]``, n from 1 on; give what can be joined by now."""
        period = self._period
        if kind in self._last:
            measured = (end_ns - self._last[kind]) / len(values)
            if abs(measured - period) <= PERIOD_TOLERANCE * period:
                period = measured
        span = period * (len(values) - 1)
        if not self._last or end_ns - span <= self._last.get(kind, -math.inf):
            self._reset(end_ns)  # the first frame, or the device's clock was set back
        self._last[kind] = end_ns
        end = float(end_ns - self._origin)  # may be beyond 64 bits
        times = np.linspace(end - span, end, len(values))
        self._times[kind] = np.concatenate([self._times[kind], times])[-MAX_ROWS:]
        self._values[kind] = np.concatenate([self._values[kind], values])[-MAX_ROWS:]
        return self._joined()

    def _joined(self) -> list[Samples]:
        gyro_times = self._times[GYROSCOPE]
        if len(gyro_times) == 0:
            return []
        ready = int(np.searchsorted(self._times[ACCELEROMETER], gyro_times[-1], side="right"))
        if ready == 0:
            return []
        times = self._times[ACCELEROMETER][:ready]
        after = np.searchsorted(gyro_times, times)  # the first that is not earlier
        before = np.maximum(after - 1, 0)
        near = (after > 0) & (gyro_times[after] - gyro_times[before] <= MAX_GAP * self._period)
        kept = np.flatnonzero(near | (gyro_times[after] == times))
        gyro = [np.interp(times, gyro_times, column) for column in self._values[GYROSCOPE].T]
        rows = np.column_stack([self._values[ACCELEROMETER][:ready], *gyro])

        self._times[ACCELEROMETER] = self._times[ACCELEROMETER][ready:]
        self._values[ACCELEROMETER] = self._values[ACCELEROMETER][ready:]
        if len(kept) == 0:
            return []
        breaks = np.flatnonzero(np.diff(times[kept]) > MAX_GAP * self._period) + 1
        runs = np.split(kept, breaks)
        return [Samples(rows[run], self._origin + round(float(times[run[-1]]))) for run in runs]


class _PolarSession:
    """A connection; see :class:`device_emulator.ble.profiles.base.Session`.

    Args:
        title: for messages.
        sensor: of what is given out.
        rate_hz: one that the device offers.
        ranges: of each measurement to be started, in g and °/s.
        count_channels: the device wants to be told that there are three.
    """

    def __init__(
        self, title: str, sensor: Sensor, rate_hz: float, ranges: Mapping[int, float], *, count_channels: bool
    ) -> None:
        self._title = title
        self.sensor: Final = sensor
        self.rate_hz: Final = rate_hz
        self.notify: Final = (CONTROL, DATA)
        starts = []
        for kind, full_scale in ranges.items():
            request = struct.pack("<BB", START, kind)
            for setting, value in ((RATE, rate_hz), (RESOLUTION, BITS), (RANGE, full_scale)):
                request += struct.pack("<BBH", setting, 1, int(value))
            if count_channels:
                request += struct.pack("<BBB", CHANNELS, 1, 3)
            starts.append(Write(CONTROL, request))
        self.stop: Final = tuple(Write(CONTROL, bytes([STOP, kind])) for kind in ranges)
        # First the stop: what a bridge that crashed has left running answers "already", without the factor.
        self.start: Final = (*self.stop, *starts)
        self._kinds = frozenset(ranges)
        self._factors: dict[int, float] = {}  # of what was started
        self._joiner = _Joiner(rate_hz) if GYROSCOPE in ranges else None

    def feed(self, characteristic: str, data: bytes) -> list[Samples]:
        """Read an answer of the control point (no samples), or a data frame."""
        if characteristic.lower() == CONTROL:
            self._answer(data)
            return []
        check_characteristic(self._title, DATA, characteristic)
        if not HEADER.size <= len(data) <= MAX_FRAME_BYTES:
            raise ProfileError("length", f"a frame of {len(data)} bytes")
        kind, end_ns, frame_type = HEADER.unpack_from(data)
        if kind not in self._kinds or (kind, frame_type) not in FORMATS:
            raise ProfileError("frame", f"{self._title} sent type {frame_type:#04x} of measurement {kind}")
        unit = FORMATS[kind, frame_type]
        if frame_type & DELTA:
            if kind not in self._factors:
                raise ProfileError("factor", f"{MEASUREMENTS[kind]} frames before the answer that scales them")
            values = _delta_counts(data[HEADER.size :]).astype(np.float64) * (unit * self._factors[kind])
        else:
            values = _raw_counts(data[HEADER.size :]).astype(np.float64) * unit
        return [Samples(values, end_ns)] if self._joiner is None else self._joiner.push(kind, values, end_ns)

    def _answer(self, data: bytes) -> None:
        if data[:1] == bytes([FEATURES]):
            return
        if data[:1] == bytes([STOPPED]):
            names = ", ".join(MEASUREMENTS.get(kind, str(kind)) for kind in data[1:])
            raise ProfileError("stopped", f"{self._title} ended its measurement: {names}")
        if len(data) < 4 or data[0] != ANSWER or data[1] not in (START, STOP) or data[2] not in self._kinds:
            raise ProfileError("answer", f"nothing that was asked for: {data[:32].hex(' ')}")
        command, kind, status = data[1], data[2], data[3]
        if status and (command, status) != (STOP, ALREADY):
            why = STATUS[status] if status < len(STATUS) else "unknown"
            verb = "start" if command == START else "stop"
            raise ProfileError("refused", f"{self._title} does not {verb} its {MEASUREMENTS[kind]}: {why} ({status})")
        if command == START:
            self._factors[kind] = _factor(data[5:])


@dataclass(frozen=True)
class _PolarProfile:
    """A model; see :class:`device_emulator.ble.profiles.base.Profile`.

    Args:
        names: what its advertised name begins with; a serial number follows.
        acc_g: full scales that it offers, the usual one last.
        gyro_dps: likewise; none without a gyroscope.
    """

    name: str
    title: str
    names: tuple[str, ...]
    rates_hz: tuple[float, ...]
    acc_g: tuple[float, ...]
    gyro_dps: tuple[float, ...] = ()

    @property
    def channels(self) -> tuple[str, ...]:
        """What it measures."""
        return ACC_GYRO if self.gyro_dps else ACC

    def knows(self, seen: Seen) -> bool:
        """By its name: neither model advertises the PMD service."""
        return seen.name.startswith(self.names)

    def open(self, *, rate_hz: float, acc_g: float | None = None, gyro_dps: float | None = None) -> Session:
        """See :meth:`device_emulator.ble.profiles.base.Profile.open`."""
        rate = pick_rate(self.title, self.rates_hz, rate_hz)
        ranges = {ACCELEROMETER: pick_range(self.title, "g", self.acc_g, acc_g, self.acc_g[-1])}
        if self.gyro_dps or gyro_dps is not None:
            ranges[GYROSCOPE] = pick_range(
                self.title, "deg/s", self.gyro_dps, gyro_dps, max(self.gyro_dps, default=0.0)
            )
        sensor = self._sensor(ranges[ACCELEROMETER])
        return _PolarSession(self.title, sensor, rate, ranges, count_channels=bool(self.gyro_dps))

    def _sensor(self, acc_g: float) -> Sensor:
        name = f"{self.title} ±{acc_g:g} g"
        if self.gyro_dps:
            lsb = (acc_g / 2 ** (BITS - 1),) * 3 + (GYRO_LSB,) * 3
            return Sensor(name, ACC_GYRO, BITS, lsb, (0,) * 6)
        bits = math.ceil(math.log2(2 * acc_g / MG))  # whole mg come over the air
        return Sensor(name, ACC, bits, (MG,) * 3, (0,) * 3)


POLAR_H10: Final = _PolarProfile(
    name="polar-h10",
    title="Polar H10",
    names=("Polar H10",),
    rates_hz=(25.0, 50.0, 100.0, 200.0),
    acc_g=(2.0, 4.0, 8.0),
)
POLAR_VERITY_SENSE: Final = _PolarProfile(
    name="polar-verity-sense",
    title="Polar Verity Sense",
    names=("Polar Sense", "Polar Verity Sense"),
    rates_hz=(52.0,),
    acc_g=(8.0,),
    gyro_dps=(2000.0,),
)
