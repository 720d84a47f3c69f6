"""Our GATT profile: what a gammawear wearable offers over Bluetooth Low Energy.

Service ``a3c60001-5f1e-4b6a-9d57-67616d6d6177``, beside Battery (0x180F) and Device Information (0x180A):

============= ======================= ==================== =====================================================
``a3c6…``     properties              encrypted and bonded value
============= ======================= ==================== =====================================================
``0002``      notify                  no, or by option     stream: one :mod:`protocol.packet` in each notification
``0003``      read, write             to write             configuration: :class:`Settings`, 48 bytes
``0004``      write                   yes                  codebook upload: :class:`Upload`
``0005``      read, write             to write             time: tick u32 (ms), UTC u64 (ms; 0 = not known)
``0006``      read, notify            no                   state: :class:`State` u8, then UTF-8 text for a person
============= ======================= ==================== =====================================================

All integers are little-endian. A device MUST size its packets by the negotiated ATT MTU, and MUST NOT stream below an
MTU of :data:`MIN_MTU`: state 2 says so. *Encrypted and bonded* means LE Secure Connections with bonding; legacy pairing
and pairing without a bond MUST be refused. A refused write is answered with an application error of :class:`Refusal`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from device_emulator.device import Device
from protocol.messages import SourceKind
from protocol.packet import TICK_MODULUS
from quantization.codebook import MAX_CODEBOOK_BYTES, MAX_RATE_HZ, MIN_RATE_HZ, Codebook
from quantization.errors import CodebookError, ProfileError, SensorError
from quantization.sensor import MAX_ADC_BITS, MIN_ADC_BITS, Axes

_BASE: Final = "-5f1e-4b6a-9d57-67616d6d6177"
SERVICE: Final = f"a3c60001{_BASE}"
STREAM: Final = f"a3c60002{_BASE}"
SETTINGS: Final = f"a3c60003{_BASE}"
UPLOAD: Final = f"a3c60004{_BASE}"
TIME: Final = f"a3c60005{_BASE}"
STATE: Final = f"a3c60006{_BASE}"

MIN_MTU: Final = 100
"""Below, our header and ATT's would be a sixth of every notification, and a packet of six channels a few samples."""
ATT_HEADER_BYTES: Final = 3
VERSION: Final = 1
SOURCES: Final[tuple[SourceKind, ...]] = ("device", "synthetic", "dataset")
_SETTINGS: Final = struct.Struct("<BBIHHbbbBH32s")
_MAX_ACC_MG = _MAX_GYRO_DPS = 0xFFFF
_TIME: Final = struct.Struct("<IQ")
_CHUNK: Final = struct.Struct("<BI")
_BEGIN: Final = struct.Struct("<BI32s")


class State(IntEnum):
    """What a device does, and if not, why."""

    IDLE = 0
    STREAMING = 1
    MTU_TOO_SMALL = 2
    SWITCHED_OFF = 3
    NOT_BONDED = 4


class Refusal(IntEnum):
    """Application errors of writes (Bluetooth Core 5.4, Vol 3, Part F, 3.4.1.1: 0x80 to 0x9F are ours to define)."""

    MALFORMED = 0x80
    RATE = 0x81
    FULL_SCALE = 0x82
    AXES = 0x83
    CODEBOOK = 0x84
    """Malformed, or not for this device's part or rate."""
    ORDER = 0x85
    """A chunk that does not follow the one before, or no upload has begun."""
    DIGEST = 0x86
    """What arrived is not what was announced."""
    TOO_LONG = 0x87


class WriteError(ProfileError):
    """A write that the device refuses; ``refusal`` goes out as ATT's error code."""

    def __init__(self, refusal: Refusal, detail: str) -> None:
        super().__init__(refusal.name.lower(), detail)
        self.refusal: Final = refusal


@dataclass(frozen=True)
class Settings:
    """What a device runs: the value of the configuration characteristic, 48 bytes.

    ======= ======= ==============================================================================
    offset  type    field
    ======= ======= ==============================================================================
    0       u8      version, 1
    1       u8      bit 0: streaming is switched on; bits 1-2, when read: where samples come from (0 = a sensor,
                    1 = generated, 2 = a recording)
    2       u32     sampling rate in mHz
    6       u16     accelerometer's full scale in mg; 0 = it has none
    8       u16     gyroscope's full scale in °/s; 0 = it has none
    10      3 × i8  axes: a signed permutation of 1, 2, 3
    13      u8      ADC bits
    14      u16     reserved, 0
    16      32 B    SHA-256 of the codebook in use; all zero in a write = as it is
    ======= ======= ==============================================================================

    Raises:
        WriteError: ``malformed``; or a rate, full scale, ADC or axes that no device has, or this layout no room for.
    """

    on: bool
    rate_hz: float
    acc_g: float
    gyro_dps: float
    axes: tuple[int, int, int]
    adc_bits: int
    codebook: bytes
    source: SourceKind = "device"

    def __post_init__(self) -> None:
        if not MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ:
            raise WriteError(Refusal.RATE, f"{self.rate_hz:g} Hz is not in {MIN_RATE_HZ:g} .. {MAX_RATE_HZ:g} Hz")
        if round(1000 * self.acc_g) > _MAX_ACC_MG or round(self.gyro_dps) > _MAX_GYRO_DPS:
            most = f"± {_MAX_ACC_MG / 1000:g} g and ± {_MAX_GYRO_DPS} °/s"
            raise WriteError(
                Refusal.FULL_SCALE, f"± {self.acc_g:g} g, ± {self.gyro_dps:g} °/s; there is room for {most}"
            )
        if not MIN_ADC_BITS <= self.adc_bits <= MAX_ADC_BITS:
            raise WriteError(
                Refusal.FULL_SCALE, f"{self.adc_bits} ADC bits are not in {MIN_ADC_BITS} .. {MAX_ADC_BITS}"
            )
        try:
            Axes(self.axes)
        except SensorError as error:
            raise WriteError(Refusal.AXES, str(error)) from error

    def __bytes__(self) -> bytes:
        flags = self.on | SOURCES.index(self.source) << 1
        scales = round(1000 * self.acc_g), round(self.gyro_dps)
        rate_mhz = round(1000 * self.rate_hz)
        return _SETTINGS.pack(VERSION, flags, rate_mhz, *scales, *self.axes, self.adc_bits, 0, self.codebook)

    @classmethod
    def from_bytes(cls, data: bytes) -> Settings:
        """Read the value."""
        if len(data) != _SETTINGS.size or data[0] != VERSION or data[1] >> 1 >= len(SOURCES):
            raise WriteError(Refusal.MALFORMED, f"settings of {len(data)} bytes: {data[:2].hex()}…")
        _, flags, rate_mhz, acc_mg, gyro_dps, x, y, z, adc_bits, _, codebook = _SETTINGS.unpack(data)
        axes, source = (x, y, z), SOURCES[flags >> 1]
        return cls(bool(flags & 1), rate_mhz / 1000, acc_mg / 1000, gyro_dps, axes, adc_bits, codebook, source)

    @classmethod
    def of(cls, device: Device, *, on: bool) -> Settings:
        """What a device runs."""
        sensor = device.source.sensor
        span = 1 << (sensor.adc_bits - 1)
        scale = {c.split("_")[0]: lsb * span for c, lsb in zip(sensor.channels, sensor.lsb, strict=True)}
        x, y, z = device.axes.entries
        return cls(
            on, device.source.rate_hz, scale.get("acc", 0.0), scale.get("gyro", 0.0), (x, y, z), sensor.adc_bits,
            device.codebook.digest, device.source.kind,
        )  # fmt: skip

    def changed(self, *, on: bool | None = None, axes: tuple[int, int, int] | None = None) -> Settings:
        """What to write for that change: everything else, the codebook too, stays as it is."""
        return replace(self, on=self.on if on is None else on, axes=axes or self.axes, codebook=bytes(32))


def time_value(tick_ms: int, utc_ms: int) -> bytes:
    """The value of the time characteristic.

    >>> time_value(1000, 0).hex()
    'e80300000000000000000000'
    """
    return _TIME.pack(tick_ms % TICK_MODULUS, utc_ms)


def read_time(data: bytes) -> tuple[int, int]:
    """Tick and UTC of a time value.

    Raises:
        WriteError: ``malformed``.
    """
    if len(data) != _TIME.size:
        raise WriteError(Refusal.MALFORMED, f"a time of {len(data)} bytes, not {_TIME.size}")
    tick, utc = _TIME.unpack(data)
    return int(tick), int(utc)


class Upload:
    """A codebook on its way to the device, in writes with response.

    ====== =============================================== ======================================================
    first  then                                            means
    ====== =============================================== ======================================================
    0x01   length u32, SHA-256 32 B                        begin; what has come of another is forgotten
    0x02   offset u32, bytes                               the next chunk; offset = how much has come
    0x03                                                   commit: from the next packet on, or not at all
    0x00                                                   give up
    ====== =============================================== ======================================================

    The end of the connection gives up as well. Nothing changes before the commit, and then all at once.
    """

    BEGIN, CHUNK, COMMIT, CANCEL = 0x01, 0x02, 0x03, 0x00

    def __init__(self) -> None:
        self._length = 0
        self._digest: bytes | None = None
        self._data = bytearray()

    def cancel(self) -> None:
        """Forget what has come."""
        self._digest = None
        self._data.clear()

    def write(self, data: bytes) -> Codebook | None:
        """Take one write.

        Returns:
            The codebook, at the commit.

        Raises:
            WriteError: refused; after anything but a chunk out of order the upload has to begin again.
        """
        match data[0] if data else None:
            case self.BEGIN if len(data) == _BEGIN.size:
                self._begin(*_BEGIN.unpack(data)[1:])
            case self.CHUNK if len(data) > _CHUNK.size:
                self._take(_CHUNK.unpack_from(data)[1], data[_CHUNK.size :])
            case self.COMMIT if len(data) == 1:
                return self._commit()
            case self.CANCEL if len(data) == 1:
                self.cancel()
            case _:
                raise WriteError(Refusal.MALFORMED, f"not a step of an upload: {data[:8].hex()}")
        return None

    def _begin(self, length: int, digest: bytes) -> None:
        self.cancel()
        if not 0 < length <= MAX_CODEBOOK_BYTES:
            raise WriteError(Refusal.TOO_LONG, f"{length} bytes; a codebook has at most {MAX_CODEBOOK_BYTES}")
        self._length, self._digest = length, digest

    def _take(self, offset: int, chunk: bytes) -> None:
        if self._digest is None or offset != len(self._data):
            raise WriteError(Refusal.ORDER, f"a chunk at {offset}; {len(self._data)} bytes have come")
        if offset + len(chunk) > self._length:
            self.cancel()
            raise WriteError(Refusal.TOO_LONG, f"more than the {self._length} bytes that were announced")
        self._data += chunk

    def _commit(self) -> Codebook:
        digest, data, length = self._digest, bytes(self._data), self._length
        self.cancel()
        if digest is None:
            raise WriteError(Refusal.ORDER, "no upload has begun")
        if len(data) != length:
            raise WriteError(Refusal.ORDER, f"{len(data)} of {length} bytes have come")
        if hashlib.sha256(data).digest() != digest:
            raise WriteError(Refusal.DIGEST, "what has come is not what was announced")
        try:
            return Codebook.from_bytes(data)
        except CodebookError as error:
            raise WriteError(Refusal.CODEBOOK, str(error)) from error


def upload_writes(codebook: Codebook, chunk_bytes: int) -> list[bytes]:
    """The writes that bring a codebook to a device, ``chunk_bytes`` (1 or more) of it in each."""
    data = bytes(codebook)
    chunks = [_CHUNK.pack(Upload.CHUNK, at) + data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    return [_BEGIN.pack(Upload.BEGIN, len(data), codebook.digest), *chunks, bytes([Upload.COMMIT])]
