"""The pure half of emulated boards: what they offer over GATT, what they answer, which bytes their samples become."""

import json
import struct
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from device_emulator.ble.profiles import microbit, sensortag, thingy52, uart, witmotion
from device_emulator.ble.profiles.base import Samples, Session
from quantization.errors import ProfileError

Notifications = list[tuple[str, bytes]]

READ, WRITE, COMMAND, NOTIFY = "read", "write", "write-without-response", "notify"


def words(values, lsb) -> list[int]:
    """Physical values as the i16 of a part."""
    return np.clip(np.rint(np.asarray(values) / lsb), -32768, 32767).astype(int).tolist()


class Board(ABC):
    """What all have in common: nothing to read, samples as soon as someone subscribes."""

    services: ClassVar[dict[str, dict[str, set[str]]]]
    advertised: tuple[str, tuple[str, ...]]
    streaming = True
    rate_hz: float

    def on_write(self, characteristic: str, data: bytes) -> Notifications:
        raise AssertionError(f"nothing can be written to {characteristic}: {data.hex()}")

    def on_read(self, characteristic: str) -> bytes:
        raise AssertionError(f"nothing can be read from {characteristic}")

    @abstractmethod
    def encode(self, values) -> Notifications:
        """The notifications of these samples."""


class Thingy52Board(Board):
    """Begins at 10 Hz, as the firmware does."""

    services: ClassVar = {
        thingy52.CONFIGURATION_SERVICE: {},
        thingy52.MOTION_SERVICE: {thingy52.MOTION_CONFIGURATION: {READ, WRITE}, thingy52.RAW_DATA: {NOTIFY}},
    }
    advertised = ("Thingy", (thingy52.CONFIGURATION_SERVICE,))

    def __init__(self) -> None:
        self.configuration = struct.pack("<HHHHB", 1000, 500, 500, 10, 1)

    @property
    def rate_hz(self) -> float:
        return float(struct.unpack_from("<H", self.configuration, 6)[0])

    def on_write(self, characteristic, data):
        assert characteristic == thingy52.MOTION_CONFIGURATION
        steps, temperature, compass, rate, wake = struct.unpack("<HHHHB", data)
        assert 100 <= steps <= 5000
        assert 100 <= temperature <= 5000
        assert 100 <= compass <= 1000
        assert 5 <= rate <= 200
        assert wake in (0, 1)
        self.configuration = data
        return []

    def on_read(self, characteristic):
        assert characteristic == thingy52.MOTION_CONFIGURATION
        return self.configuration

    def encode(self, values):
        return [
            (thingy52.RAW_DATA, struct.pack("<9h", *words(row[:3], 1 / 1024), *words(row[3:], 1 / 32), 0, 0, 0))
            for row in values
        ]


class SensorTagBoard(Board):
    """Sends nothing until its sensors are switched on.

    Args:
        obeys: measures at the range that it is told; otherwise at ±8 g always.
    """

    services: ClassVar = {
        sensortag.MOVEMENT_SERVICE: {
            sensortag.DATA: {READ, NOTIFY},
            sensortag.CONFIGURATION: {READ, WRITE},
            sensortag.PERIOD: {READ, WRITE},
        }
    }
    advertised = ("CC2650 SensorTag", ())

    def __init__(self, *, obeys: bool = True) -> None:
        self.obeys = obeys
        self.configuration = 0
        self.period = 100

    @property
    def rate_hz(self) -> float:
        return 100 / self.period

    @property
    def streaming(self) -> bool:
        return bool(self.configuration & 0x7F)

    def on_write(self, characteristic, data):
        if characteristic == sensortag.PERIOD:
            (self.period,) = data
            assert self.period >= 10
        else:
            assert characteristic == sensortag.CONFIGURATION
            (self.configuration,) = struct.unpack("<H", data)
        return []

    def on_read(self, characteristic):
        return {
            sensortag.DATA: bytes(18),
            sensortag.CONFIGURATION: struct.pack("<H", self.configuration),
            sensortag.PERIOD: bytes([self.period]),
        }[characteristic]

    def encode(self, values):
        full_scale = (2, 4, 8, 16)[self.configuration >> 8 & 3] if self.obeys else 8
        return [
            (
                sensortag.DATA,
                struct.pack("<9h", *words(row[3:], 500 / 65536), *words(row[:3], full_scale / 32768), 0, 0, 0),
            )
            for row in values
        ]


class WitMotionBoard(Board):
    """Ignores commands while it is locked.

    Args:
        cut: bytes in a notification; None = one frame in each.
    """

    services: ClassVar = {witmotion.SERVICE: {witmotion.DATA: {NOTIFY}, witmotion.COMMANDS: {WRITE, COMMAND}}}
    advertised = ("WT901BLE67", ())

    def __init__(self, cut: int | None = None) -> None:
        self.rate_hz = 10.0
        self.cut = cut
        self.unlocked = False

    def on_write(self, characteristic, data):
        assert characteristic == witmotion.COMMANDS
        if data == bytes.fromhex("ff aa 69 88 b5"):
            self.unlocked = True
        elif self.unlocked and data[:3] == bytes.fromhex("ff aa 03"):
            self.rate_hz = {3: 1.0, 4: 2.0, 5: 5.0, 6: 10.0, 7: 20.0, 8: 50.0, 9: 100.0, 11: 200.0}[data[3]]
        return []

    def encode(self, values):
        frames = [
            b"\x55\x61" + struct.pack("<9h", *words(row[:3], 16 / 32768), *words(row[3:], 2000 / 32768), 1, 2, 3)
            for row in values
        ]
        stream, cut = b"".join(frames), self.cut or 20
        return [(witmotion.DATA, stream[at : at + cut]) for at in range(0, len(stream), cut)]


class MicrobitBoard(Board):
    """The newer board's accelerometer, with the periods that it has."""

    services: ClassVar = {
        microbit.ACCELEROMETER_SERVICE: {microbit.DATA: {READ, NOTIFY}, microbit.PERIOD: {READ, WRITE}},
    }
    advertised = ("BBC micro:bit [zuvot]", ())

    def __init__(self) -> None:
        self.period = 20

    @property
    def rate_hz(self) -> float:
        return 1000 / self.period

    def on_write(self, characteristic, data):
        assert characteristic == microbit.PERIOD
        (wanted,) = struct.unpack("<H", data)
        self.period = next((period for period in (1, 2, 5, 10, 20, 100) if period >= wanted), 1000)
        return []

    def on_read(self, characteristic):
        return bytes(6) if characteristic == microbit.DATA else struct.pack("<H", self.period)

    def encode(self, values):
        return [(microbit.DATA, struct.pack("<3h", *words(row[:3], 0.001))) for row in values]


class UartBoard(Board):
    """Prints lines, cut into notifications of 20 bytes. Begins in the middle of a line.

    Args:
        rate_hz: of its sketch.
        form: "columns", "lists" or "objects" (JSON).
    """

    services: ClassVar = {uart.SERVICE: {uart.RX: {WRITE, COMMAND}, uart.TX: {NOTIFY}}}
    advertised = ("Puck.js", (uart.SERVICE,))

    def __init__(self, rate_hz: float = 50.0, form: str = "columns", cut: int = 20) -> None:
        self.rate_hz = rate_hz
        self.form = form
        self.cut = cut
        self.rest = "5,0.25,1.0\r\n"

    def on_write(self, characteristic, data):
        assert characteristic == uart.RX, data
        return []

    def line(self, row) -> str:
        numbers = [round(float(number), 5) for number in row]
        if self.form == "columns":
            return ",".join(map(repr, numbers))
        kinds = {"acc": numbers[:3], "gyro": numbers[3:]} if len(numbers) == 6 else {"acc": numbers}
        if self.form == "objects":
            return json.dumps(
                {"t": "imu"} | {kind: dict(zip("xyz", axes, strict=True)) for kind, axes in kinds.items()}
            )
        return json.dumps(kinds, separators=(",", ":"))

    def encode(self, values):
        text, self.rest = self.rest + "".join(self.line(row) + "\r\n" for row in values), ""
        return [(uart.TX, text[at : at + self.cut].encode()) for at in range(0, len(text), self.cut)]


class NanoBoard(Board):
    """The sketch of docs/examples/arduino-nano-33.toml."""

    SERVICE = "19b10000-e8f2-537e-4f6c-d104768a1214"
    DATA = "19b10001-e8f2-537e-4f6c-d104768a1214"
    RUN = "19b10002-e8f2-537e-4f6c-d104768a1214"

    services: ClassVar = {SERVICE: {DATA: {NOTIFY}, RUN: {WRITE}}}
    advertised = ("Nano33", (SERVICE,))
    rate_hz = 50.0

    def __init__(self) -> None:
        self.streaming = False
        self.number = 0
        self.rows: list[list[int]] = []

    def on_write(self, characteristic, data):
        assert characteristic == self.RUN
        self.streaming = data == b"\x01"
        self.rows = []
        return []

    def encode(self, values):
        sent: Notifications = []
        for row in values:
            self.rows.append(words(row[:3], 1 / 8192) + words(row[3:], 1 / 16))
            if len(self.rows) == 5:
                block = struct.pack("<H30h", self.number % 65536, *(word for words_ in self.rows for word in words_))
                sent.append((self.DATA, block))
                self.number += 1
                self.rows = []
        return sent


def begin(board, session: Session) -> None:
    """Do with a board what a bridge does after it has connected."""
    offered = {uuid: properties for service in board.services.values() for uuid, properties in service.items()}
    for characteristic in session.notify:
        assert offered[characteristic] & {NOTIFY, "indicate"}
    for write in session.start:
        assert (WRITE if write.response else COMMAND) in offered[write.characteristic]
        assert board.on_write(write.characteristic, write.data) == []
    assert board.streaming
    assert board.rate_hz == session.rate_hz


def end(board, session: Session) -> None:
    """Write what ends the stream."""
    for write in session.stop:
        board.on_write(write.characteristic, write.data)


def random_values(session: Session, rows: int, seed: int = 0, share: float = 1.0) -> np.ndarray:
    """``[rows, C]`` g and °/s over ``share`` of the part's range, its ends included."""
    sensor = session.sensor
    full_scale = share * np.asarray(sensor.lsb) * sensor.count_max
    values = np.random.default_rng(seed).uniform(-1, 1, (rows, len(sensor.channels))) * full_scale
    values[0], values[-1] = full_scale, -full_scale
    return values


def read_all(session: Session, notifications: Notifications) -> np.ndarray:
    """All samples in ``notifications``, ``[n, C]``."""
    blocks = [samples.values for sent in notifications for samples in session.feed(*sent)]
    return np.concatenate([np.empty((0, len(session.sensor.channels))), *blocks])


def check_hostile(session: Session, characteristic: str, notifications: list[bytes]) -> int:
    """Any bytes are refused, or give samples of the right shape within the sensor's range; how many were refused."""
    refused = 0
    for data in notifications:
        try:
            found = session.feed(characteristic, data)
        except ProfileError:
            refused += 1
            continue
        for samples in found:
            assert isinstance(samples, Samples)
            assert samples.values.dtype == np.float64
            assert samples.values.ndim == 2
            assert samples.values.shape[0] >= 1
            assert samples.values.shape[1] == len(session.sensor.channels)
            assert np.isfinite(samples.values).all()
            session.sensor.to_counts(samples.values)
    return refused
