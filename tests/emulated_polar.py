"""What a Polar H10 and a Polar Verity Sense answer and send: the pure half of emulated ones.

Written from Polar's ``online_measurement.pdf``, apart from the profile, so that the two check each other.
"""

import struct
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

SERVICE = "fb005c80-02e7-f387-1cad-8acd2d8df0c8"
CONTROL = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"
DATA = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"
HEART_RATE_SERVICE = "0000180d-0000-1000-8000-00805f9b34fb"
MEMBER_SERVICE = "0000feee-0000-1000-8000-00805f9b34fb"

START_NS = 599_616_000_000_000_000
"""2019-01-01, what an H10's clock begins with."""

MOST_BYTES = 229
"""Of a frame: what an ATT MTU of 232 carries."""

MOST_SAMPLES = {2: 71, 5: 61}
"""Of a delta frame: so many were seen of an accelerometer (polar-ble-sdk issue 317); others are the test's choice."""


class _EmulatedPolar(ABC):
    """A control point that checks settings as the device does; subclasses say what they offer and how they send it."""

    services: ClassVar = {SERVICE: {CONTROL: {"read", "write", "indicate"}, DATA: {"notify"}}}
    features = 0
    offers: ClassVar[dict[int, dict[int, tuple[int, ...]]]] = {}  # measurement: setting: values
    columns: ClassVar[dict[int, slice]] = {}  # measurement: of a row
    answers: ClassVar[dict[int, bytes]] = {}  # measurement: what follows on a start

    def __init__(self) -> None:
        self.started: dict[int, dict[int, int]] = {}  # measurement: setting: value
        self.now_ns = dict.fromkeys(self.offers, START_NS)  # of the last sample
        self.drift = 0.0  # how much longer than nominal its sampling period is
        self._waiting = {kind: np.empty((0, 3)) for kind in self.offers}

    @property
    def streaming(self) -> bool:
        return bool(self.started)

    @property
    def rate_hz(self) -> float:
        return float(next(iter(self.started.values()))[0])

    def on_read(self, characteristic):
        assert characteristic == CONTROL
        return bytes([0x0F, self.features]) + bytes(15)

    def on_write(self, characteristic, data):
        assert characteristic == CONTROL
        status, parameters = self._command(data)
        answer = bytes([0xF0, data[0], data[1] if len(data) > 1 else 0, status])
        return [(CONTROL, answer if status else answer + b"\0" + parameters)]

    def _command(self, data):
        if len(data) < 2:
            return 4, b""
        command, kind = data[0], data[1]
        if kind not in self.offers:
            return 3, b""
        if command == 1:
            return 0, b"".join(_setting(*pair) for pair in self.offers[kind].items())
        if command == 2:
            return self._start(kind, data[2:])
        if command == 3:
            return (0 if self.started.pop(kind, None) else 6), b""
        return 1, b""

    def _start(self, kind, settings):
        if kind in self.started:
            return 6, b""
        chosen = {}
        while settings:
            setting, count = settings[:2]
            size = 1 if setting == 4 else 2
            if count != 1 or len(settings) < 2 + size:
                return 4, b""
            chosen[setting] = int.from_bytes(settings[2 : 2 + size], "little")
            settings = settings[2 + size :]
        for setting, error in ((0, 8), (1, 7), (2, 9), (4, 11)):
            if chosen.get(setting, -1) not in self.offers[kind].get(setting, (-1,)):
                return error, b""
        self.started[kind] = chosen
        return 0, self.answers[kind]

    @abstractmethod
    def frames(self, kind, values):
        """What whole frames of ``[n, 3]`` values can be made by now: the bytes after the header, samples in them."""

    def encode(self, values):
        sent = []
        for kind in self.started:
            self._waiting[kind] = np.concatenate([self._waiting[kind], np.asarray(values)[:, self.columns[kind]]])
            for frame_type, payload, samples in self.frames(kind, self._waiting[kind]):
                self._waiting[kind] = self._waiting[kind][samples:]
                self.now_ns[kind] += round(samples * 1e9 * (1 + self.drift) / self.started[kind][0])
                sent.append((DATA, struct.pack("<BQB", kind, self.now_ns[kind], frame_type) + payload))
        return sent


class EmulatedH10(_EmulatedPolar):
    """36 samples a frame, in mg."""

    advertised = ("Polar H10 12345678", (HEART_RATE_SERVICE, MEMBER_SERVICE))
    features = 0x05
    offers: ClassVar = {2: {0: (25, 50, 100, 200), 1: (16,), 2: (2, 4, 8)}}
    columns: ClassVar = {2: slice(0, 3)}
    answers: ClassVar = {2: b"\x01"}  # reserved

    def frames(self, _kind, values):
        for at in range(0, len(values) - 35, 36):
            yield 0x01, np.rint(values[at : at + 36] * 1000).astype("<i2").tobytes(), 36


class EmulatedVeritySense(_EmulatedPolar):
    """Delta frames with a factor; the gyroscope's samples stand ``gyro_late_ns`` after the accelerometer's.

    Args:
        newer: send the accelerometer in mg without a factor, as newer firmware does.
    """

    advertised = ("Polar Sense 12345678", (HEART_RATE_SERVICE, MEMBER_SERVICE))
    features = 0x6E
    offers: ClassVar = {
        2: {0: (52,), 1: (16,), 2: (8,), 4: (3,)},
        5: {0: (52,), 1: (16,), 2: (2000,), 4: (3,)},
    }
    columns: ClassVar = {2: slice(0, 3), 5: slice(3, 6)}

    def __init__(self, *, gyro_late_ns=0, newer=False):
        super().__init__()
        self.now_ns[5] += gyro_late_ns
        self.newer = newer
        self.factors = {2: 0.001 if newer else 0.000244, 5: 0.07}
        self.answers = {kind: b"\x05\x01" + struct.pack("<f", factor) for kind, factor in self.factors.items()}
        if newer:
            self.answers[2] = b""

    def frames(self, kind, values):
        frame_type = 0x81 if kind == 2 and self.newer else 0x80
        counts = np.clip(np.rint(values / self.factors[kind]), -(2**15), 2**15 - 1).astype(np.int64)
        most = MOST_SAMPLES[kind]
        while len(counts) >= most:
            payload, samples = delta_frame(counts[:most], MOST_BYTES - 10)
            yield frame_type, payload, samples
            counts = counts[samples:]


def _setting(kind, values):
    return bytes([kind, len(values)]) + b"".join(value.to_bytes(1 if kind == 4 else 2, "little") for value in values)


def delta_block(deltas):
    """``[n, 3]`` differences, n to 255, in the fewest bits."""
    width = max(2, *(int(delta).bit_length() + 1 for delta in np.where(deltas < 0, ~deltas, deltas).ravel()))
    number = 0
    for i, delta in enumerate(deltas.ravel().tolist()):
        number |= (delta % (1 << width)) << (i * width)
    return bytes([width, len(deltas)]) + number.to_bytes((deltas.size * width + 7) // 8, "little")


def delta_frame(counts, most_bytes, block=10):
    """As many of ``[n, 3]`` counts as fit: the bytes, how many samples."""
    payload, samples = counts[0].astype("<i2").tobytes(), 1
    deltas = np.diff(counts, axis=0)
    for at in range(0, len(deltas), block):
        more = delta_block(deltas[at : at + block])
        if len(payload) + len(more) > most_bytes:
            break
        payload, samples = payload + more, samples + len(deltas[at : at + block])
    return payload, samples
