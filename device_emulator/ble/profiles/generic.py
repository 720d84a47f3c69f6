"""A wearable that a TOML file describes: for boards without a standard, such as an Arduino with a sketch of one's own.

It must notify one characteristic with rows of numbers, one row per sample. The file, by table:

============ ============== =========================================================================================
table        key            value
============ ============== =========================================================================================
(top)        name           for ``--profile``: ``a-z 0-9 -``, at most 32
(top)        title          for people
``match``    name_prefix    how its advertised name begins;
``match``    service        a service that it advertises; at least one of the two, and where both are given both count
``gatt``     notify         the characteristic that carries the samples
``gatt``     start, stop    lists of ``{characteristic, hex, response}``, written in that order; may be absent
``layout``   row            one row in the letters of Python's ``struct``: b B h H i I f d, with counts; x skips a byte
``layout``   byte_order     ``"little"`` or ``"big"``
``layout``   rows           rows in a notification; absent = as many as it has room for
``layout``   header_bytes   skipped before the first row (0)
``layout``   trailer_bytes  skipped after the last row (0)
``layout``   offset         per channel, the number that stands for zero; absent = 0
``layout``   scale          per channel, g or °/s per unit: ``physical = (number - offset) * scale``
``sensor``   channels       names in the order of a row, such as ``acc_x`` and ``gyro_z``
``sensor``   rate_hz        samples per second
``sensor``   adc_bits       8 to 16: the resolution of what is handed on
``sensor``   full_scale     ``{acc = g, gyro = deg_per_s}``; what lies beyond is saturated
============ ============== =========================================================================================

UUIDs have 128 bits, or four hexadecimal digits for one of Bluetooth's own. ``docs/examples/arduino-nano-33.toml`` is a
file with its sketch.
"""

from __future__ import annotations

import re
import struct
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from device_emulator.ble.profiles.base import Profile, Samples, Seen, Write, short_uuid
from device_emulator.ble.profiles.support import check_characteristic, pick_range, pick_rate
from quantization.errors import ProfileError
from quantization.imu import MAX_CHANNELS, check_channels
from quantization.sensor import MAX_ADC_BITS, MIN_ADC_BITS, Sensor

MAX_VALUE_BYTES: Final = 512
"""The longest attribute value (Bluetooth Core 5.4, Vol 3, Part F, 3.2.9)."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORT_UUID: Final = re.compile(r"[0-9a-f]{4}")
_ROW: Final = re.compile(r"([1-9][0-9]?)?[xbBhHiIfd]")


def _uuid(text: str) -> str:
    text = text.lower()
    if _SHORT_UUID.fullmatch(text):
        return short_uuid(int(text, 16))
    if not _UUID.fullmatch(text):
        raise ValueError("a UUID is xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx or xxxx, in hexadecimal digits")
    return text


def _hex(text: str) -> str:
    bytes.fromhex(text)  # its ValueError says where
    return text


def _row(text: str) -> str:
    if _ROW.sub("", text):
        raise ValueError("a row is made of b B h H i I f d and x, with counts from 1 to 99 before them")
    return text


def _not_zero(scale: float) -> float:
    if scale == 0:
        raise ValueError("a scale of 0 would make every sample 0")
    return scale


def _channels(names: list[str]) -> list[str]:
    check_channels(tuple(names))
    return names


Uuid = Annotated[str, Field(max_length=36), AfterValidator(_uuid)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Scale = Annotated[float, Field(ge=-1e6, le=1e6), AfterValidator(_not_zero)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class MatchSettings(_Strict):
    """How to recognise it."""

    name_prefix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    service: Uuid | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.name_prefix is None and self.service is None:
            raise ValueError("give name_prefix, service or both")
        return self


class WriteSettings(_Strict):
    """One value to write."""

    characteristic: Uuid
    hex: Annotated[str, Field(min_length=2, max_length=3 * MAX_VALUE_BYTES), AfterValidator(_hex)]
    response: bool = True

    def to_write(self) -> Write:
        """As a session has it."""
        return Write(self.characteristic, bytes.fromhex(self.hex), self.response)


class GattSettings(_Strict):
    """What to subscribe to and to write."""

    notify: Uuid
    start: Annotated[list[WriteSettings], Field(max_length=16)] = []
    stop: Annotated[list[WriteSettings], Field(max_length=16)] = []


class LayoutSettings(_Strict):
    """The bytes of a notification."""

    row: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_row)]
    byte_order: Literal["little", "big"] = "little"
    rows: Annotated[int, Field(ge=1, le=MAX_VALUE_BYTES)] | None = None
    header_bytes: Annotated[int, Field(ge=0, le=MAX_VALUE_BYTES)] = 0
    trailer_bytes: Annotated[int, Field(ge=0, le=MAX_VALUE_BYTES)] = 0
    offset: Annotated[list[Annotated[float, Field(ge=-1e9, le=1e9)]], Field(max_length=MAX_CHANNELS)] | None = None
    scale: Annotated[list[Scale], Field(max_length=MAX_CHANNELS)]

    @property
    def packed(self) -> struct.Struct:
        """One row."""
        return struct.Struct({"little": "<", "big": ">"}[self.byte_order] + self.row)

    @property
    def numbers(self) -> int:
        """How many numbers a row has."""
        return len(self.packed.unpack(bytes(self.packed.size)))


class SensorSettings(_Strict):
    """What is handed on."""

    channels: Annotated[list[str], AfterValidator(_channels)]
    rate_hz: Annotated[float, Field(ge=1, le=1000)]
    adc_bits: Annotated[int, Field(ge=MIN_ADC_BITS, le=MAX_ADC_BITS)]
    full_scale: dict[Literal["acc", "gyro"], Positive]

    @model_validator(mode="after")
    def _every_kind_has_a_full_scale(self) -> Self:
        self.to_sensor("")
        return self

    def to_sensor(self, name: str) -> Sensor:
        """The part."""
        full_scale: dict[str, float] = dict(self.full_scale.items())
        return Sensor.symmetric(name, tuple(self.channels), adc_bits=self.adc_bits, full_scale=full_scale)


class GenericSettings(_Strict):
    """The file. What the fields mean is in the module's table."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    title: Annotated[str, Field(min_length=1, max_length=64)]
    match: MatchSettings
    gatt: GattSettings
    layout: LayoutSettings
    sensor: SensorSettings

    @model_validator(mode="after")
    def _fits(self) -> Self:
        channels, layout = len(self.sensor.channels), self.layout
        if layout.numbers != channels:
            raise ValueError(f"layout.row has {layout.numbers} numbers, sensor.channels {channels} names; skip with x")
        if len(layout.scale) != channels:
            raise ValueError(f"layout.scale has {len(layout.scale)} numbers, sensor.channels {channels} names")
        if layout.offset is not None and len(layout.offset) != channels:
            raise ValueError(f"layout.offset has {len(layout.offset)} numbers, sensor.channels {channels} names")
        size = layout.header_bytes + (layout.rows or 1) * layout.packed.size + layout.trailer_bytes
        if size > MAX_VALUE_BYTES:
            raise ValueError(f"layout: {size} bytes; a notification has at most {MAX_VALUE_BYTES}")
        return self


class GenericSession:
    """One connection; holds nothing between notifications.

    Args:
        settings: of the device.
    """

    def __init__(self, settings: GenericSettings) -> None:
        layout, gatt = settings.layout, settings.gatt
        self.sensor = settings.sensor.to_sensor(settings.title)
        self.rate_hz = settings.sensor.rate_hz
        self.notify = (gatt.notify,)
        self.start = tuple(write.to_write() for write in gatt.start)
        self.stop = tuple(write.to_write() for write in gatt.stop)
        self._title = settings.title
        self._layout = layout
        self._packed = layout.packed
        self._offset = np.asarray(layout.offset or [0.0] * len(layout.scale))
        self._scale = np.asarray(layout.scale)
        self._limit = np.abs(np.asarray(self.sensor.lsb) * self.sensor.count_min)

    def feed(self, characteristic: str, data: bytes) -> list[Samples]:
        """The rows of one notification.

        Raises:
            ProfileError: ``characteristic`` another one, ``length`` not whole rows, ``value`` not a finite number.
        """
        check_characteristic(self._title, self.notify[0], characteristic)
        layout, size = self._layout, self._packed.size
        end = len(data) - layout.trailer_bytes
        rows, rest = divmod(end - layout.header_bytes, size)
        if rest or rows < 1 or (layout.rows is not None and rows != layout.rows):
            wanted = f"{layout.rows} rows" if layout.rows else "whole rows"
            raise ProfileError(
                "length",
                f"{self._title}: {len(data)} bytes are not {layout.header_bytes} + {wanted} of {size}"
                f" + {layout.trailer_bytes}",
            )
        numbers = np.array(list(self._packed.iter_unpack(data[layout.header_bytes : end])), dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise ProfileError("value", f"{self._title}: a number is not finite")
        # Before a double of any size is multiplied: beyond this it is beyond the full scale, or counts for nothing.
        numbers = np.clip(numbers - self._offset, -1e200, 1e200)
        return [Samples(np.clip(numbers * self._scale, -self._limit, self._limit))]


@dataclass(frozen=True)
class GenericProfile:
    """The device of one file.

    Args:
        settings: what the file says.
    """

    settings: GenericSettings

    @property
    def name(self) -> str:
        """As in the file."""
        return self.settings.name

    @property
    def title(self) -> str:
        """As in the file."""
        return self.settings.title

    @property
    def channels(self) -> tuple[str, ...]:
        """As in the file."""
        return tuple(self.settings.sensor.channels)

    @property
    def rates_hz(self) -> tuple[float, ...]:
        """The one in the file."""
        return (self.settings.sensor.rate_hz,)

    def knows(self, seen: Seen) -> bool:
        """By all that the file's ``match`` gives."""
        match = self.settings.match
        named = match.name_prefix is None or seen.name.startswith(match.name_prefix)
        return named and (match.service is None or match.service in seen.services)

    def open(self, *, rate_hz: float, acc_g: float | None = None, gyro_dps: float | None = None) -> GenericSession:
        """Begin a session; rate and ranges are those of the file."""
        pick_rate(self.title, self.rates_hz, rate_hz)
        full_scale = self.settings.sensor.full_scale
        for kind, unit, wanted in (("acc", "g", acc_g), ("gyro", "deg/s", gyro_dps)):
            offered = tuple(value for key, value in full_scale.items() if key == kind)
            pick_range(self.title, unit, offered, wanted, 0.0)
        return GenericSession(self.settings)


def load_profile(path: Path) -> Profile:
    """Read a file.

    Raises:
        ProfileError: ``file`` it cannot be read, ``toml`` it is not TOML, ``field`` one is missing, unknown or wrong.
            The message names the file and the field.
    """
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError("file", f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # UnicodeDecodeError and TOMLDecodeError
        raise ProfileError("toml", f"{path}: {error}") from error
    try:
        return GenericProfile(GenericSettings.model_validate(read))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part)[:32] for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")[:200]
        raise ProfileError("field", f"{path}: {where + ': ' if where else ''}{message}") from error
