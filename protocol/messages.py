"""JSON messages: everything that travels beside the packets.

All are strict: unknown fields are refused, so that a misspelt one is seen at once; numbers are bounded; wall times are
integer milliseconds of UTC, ticks are the device's (see :mod:`protocol.packet`).
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import Annotated, Final, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from protocol.frame import MAX_BINNING
from protocol.packet import MAX_SAMPLES, TICK_MODULUS
from quantization.codebook import MAX_CODEBOOK_BYTES, Codebook
from quantization.errors import CodebookError, MessageError
from quantization.imu import MAX_CHANNELS, Floats
from quantization.raw import MAX_SIDE

UNKNOWN: Final = "unknown"
"""What the gateway answers when no activity is likely enough. No data set may use it as a label."""
MAX_MESSAGE_BYTES: Final = 128 * 1024
"""The largest codebook, 16 channels at 8 bits, takes 98 KiB in base64."""

Tick = Annotated[int, Field(ge=0, lt=TICK_MODULUS)]
WallMs = Annotated[int, Field(ge=0, lt=2**53)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
LabelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,47}$")]
Name = Annotated[str, Field(max_length=64)]
Count = Annotated[int, Field(ge=-(2**15), lt=2**16)]
"""Of an ADC of at most 16 bits."""
MAX_LSB: Final = 1000.0
"""g or °/s of one count: far coarser than any part, and far from what a float cannot hold."""
MAX_RAW_S: Final = 60
"""Raw samples end by themselves after so long."""
SourceKind = Literal["synthetic", "dataset", "device"]
"""Where a device's samples come from; on every screen, so that no demo passes for a measurement."""

_M = TypeVar("_M", bound="Message")


def now_ms() -> int:
    """UTC wall time in integer milliseconds."""
    return time.time_ns() // 1_000_000


class Message(BaseModel):
    """What all messages share."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def to_json(self) -> bytes:
        """The payload to publish."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def parse(cls: type[_M], payload: bytes) -> _M:
        """Read a payload.

        Raises:
            MessageError: ``length`` too long, ``json`` not JSON of this message.
        """
        if len(payload) > MAX_MESSAGE_BYTES:
            raise MessageError("length", f"{len(payload)} bytes; a message has at most {MAX_MESSAGE_BYTES}")
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part)[:32] for part in first["loc"]) or "message"
            where = where if where.isprintable() else ascii(where)  # it must make no lines in a log
            raise MessageError("json", f"{cls.__name__} {where}: {first['msg'][:200]}") from error


class Status(Message):
    """``status``: what a device is and runs, retained; the broker publishes the offline form as its will."""

    state: Literal["online", "offline"]
    source: SourceKind | None = None
    codebook: Digest | None = None
    rate_hz: Annotated[float, Field(ge=1, le=1000)] | None = None
    sensor: Name | None = None
    adc_bits: Annotated[int, Field(ge=8, le=16)] | None = None
    channels: Annotated[list[Name], Field(max_length=MAX_CHANNELS)] | None = None
    axes: tuple[int, int, int] | None = None
    packets: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    """Packets made since the device started, sent or not. MUST begin at 0 at every start: a fall tells of a restart."""
    dropped: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    """Of those, dropped by the device's own full queue."""
    bridge: Name | None = None
    camera: bool | None = None
    """True of a camera node; its ``packets`` are frames."""
    error: Annotated[str, Field(max_length=200)] | None = None
    time_ms: WallMs | None = None

    def after(self, before: Status | None) -> Status:
        """All that is known once this has come: one that says offline (a will is bare) takes back nothing else."""
        if before is None or self.state == "online":
            return self
        return before.model_copy(update=self.model_dump(exclude_unset=True))


class Config(Message):
    """``config``: what a device should run, retained. A field that is absent stays as it is."""

    codebook: Annotated[str, Field(max_length=MAX_MESSAGE_BYTES)] | None = None
    """The codebook's binary layout in base64."""
    axes: tuple[int, int, int] | None = None
    """A signed axis permutation (:class:`quantization.sensor.Axes`)."""

    @classmethod
    def with_codebook(cls, codebook: Codebook) -> Self:
        """Make the message that switches a device to ``codebook``."""
        return cls(codebook=base64.b64encode(bytes(codebook)).decode())

    def read_codebook(self) -> Codebook | None:
        """The codebook, checked.

        Raises:
            MessageError: ``codebook``: not base64 or not a codebook.
        """
        if self.codebook is None:
            return None
        if len(self.codebook) > MAX_CODEBOOK_BYTES * 4 // 3 + 4:
            raise MessageError("codebook", f"{len(self.codebook)} characters are more than any codebook takes")
        try:
            return Codebook.from_bytes(base64.b64decode(self.codebook, validate=True))
        except (binascii.Error, ValueError, CodebookError) as error:
            raise MessageError("codebook", str(error)) from error


class Debug(Message):
    """``debug``: asks a device for its raw samples for a while, beside its packets. MUST NOT be retained.

    Emulated devices do it; firmware may ignore it.
    """

    raw_s: Annotated[int, Field(ge=1, le=MAX_RAW_S)]


class RawTrace(Message):
    """``raw``: the samples of one packet before they were quantized, for debugging only; sent before that packet."""

    debug: Literal[True] = True
    tick: Tick
    """Of the first sample, as in the packet."""
    lsb: Annotated[list[Annotated[float, Field(gt=0, le=MAX_LSB)]], Field(min_length=1, max_length=MAX_CHANNELS)]
    """g or °/s of one count, by channel."""
    offset: Annotated[list[Count], Field(min_length=1, max_length=MAX_CHANNELS)]
    """The count that stands for 0, by channel."""
    counts: Annotated[
        list[Annotated[list[Count], Field(min_length=1, max_length=MAX_CHANNELS)]],
        Field(min_length=1, max_length=MAX_SAMPLES),
    ]
    """As the ADC gave them, turned as the device's axes say: a list for each sample."""

    @model_validator(mode="after")
    def _as_many_channels(self) -> Self:
        if {len(self.lsb), len(self.offset), *map(len, self.counts)} != {len(self.lsb)}:
            raise ValueError("every sample, lsb and offset have as many channels")
        return self

    def to_physical(self) -> Floats:
        """``[n, C]`` in g and °/s."""
        physical: Floats = (np.array(self.counts) - np.array(self.offset)) * np.array(self.lsb)
        return physical


class Label(Message):
    """``label``: the true activity over a stretch of time, half open, by ticks or by wall time."""

    activity: LabelName
    from_tick: Tick | None = None
    to_tick: Tick | None = None
    from_ms: WallMs | None = None
    to_ms: WallMs | None = None

    @model_validator(mode="after")
    def _one_range(self) -> Self:
        ticks = (self.from_tick, self.to_tick)
        walls = (self.from_ms, self.to_ms)
        given = [pair for pair in (ticks, walls) if pair != (None, None)]
        if len(given) != 1 or None in given[0]:
            raise ValueError("give from_tick and to_tick, or from_ms and to_ms")
        if self.activity.lower() == UNKNOWN:
            raise ValueError(f"{UNKNOWN!r} is an answer, not an activity")
        if self.from_ms is not None and self.to_ms is not None and self.from_ms >= self.to_ms:
            raise ValueError("from_ms must be before to_ms")
        return self


class Activity(Message):
    """``activity``: what the gateway recognised in one window; the retained one is a device's current activity."""

    activity: LabelName
    """The answer: the likeliest activity, or ``unknown``."""
    likeliest: LabelName
    """The likeliest activity even where the answer is ``unknown``."""
    probability: Annotated[float, Field(ge=0, le=1)]
    """Of the likeliest activity."""
    from_tick: Tick
    to_tick: Tick
    """The window, half open."""
    from_ms: WallMs
    to_ms: WallMs
    """The same in wall time, by the gateway's estimate of the device's clock."""
    latency_ms: Annotated[float, Field(ge=0)]
    """From the arrival of the window's last packet to the answer."""
    model: Name
    """``name@version`` of the bundle."""
    source: SourceKind | None = None


MAX_SENSOR_SIDE: Final = MAX_SIDE * MAX_BINNING
"""Photosites: the largest mosaic, binned as much as a frame's header can say."""
Side = Annotated[float, Field(ge=0, le=MAX_SENSOR_SIDE)]
BoxSides = tuple[Side, Side, Side, Side]
"""Left, top, right, bottom in photosites of the sensor, from its top left corner; right and bottom exclusive."""
FrameSequence = Annotated[int, Field(ge=0, lt=2**32)]
MAX_BOXES: Final = 100
"""Most boxes of one frame, found or true."""


class TrueBox(BaseModel):
    """Where something is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    label: LabelName
    box: BoxSides

    @model_validator(mode="after")
    def _has_an_area(self) -> Self:
        if self.box[0] >= self.box[2] or self.box[1] >= self.box[3]:
            raise ValueError("a box is left, top, right, bottom, and has an area")
        return self


class FoundBox(TrueBox):
    """What a detector takes something for, and how surely."""

    score: Annotated[float, Field(ge=0, le=1)]


class Truth(Message):
    """``truth``: everything that is to be found in one frame."""

    sequence: FrameSequence
    boxes: Annotated[list[TrueBox], Field(max_length=MAX_BOXES)]


class Detections(Message):
    """``detections``: what the gateway found in one frame; the retained one is what a camera sees at present."""

    sequence: FrameSequence
    tick: Tick
    """Of the exposure."""
    time_ms: WallMs
    """When the frame was complete at the gateway."""
    width: Annotated[int, Field(ge=2, le=MAX_SENSOR_SIDE)]
    height: Annotated[int, Field(ge=2, le=MAX_SENSOR_SIDE)]
    """Photosites that boxes are given in."""
    boxes: Annotated[list[FoundBox], Field(max_length=MAX_BOXES)]
    latency_ms: Annotated[float, Field(ge=0)]
    """From the arrival of the frame's last chunk to the answer."""
    model: Name
    """``name@version`` of the bundle."""
    source: SourceKind | None = None
