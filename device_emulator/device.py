"""The firmware loop: samples in, packets out. Synchronous, and in integers alone between the ADC and the packet.

A device makes one packet after the other and says of each when, on its own clock, the last sample has been taken; to
wait until then and to send it is the publisher's part. A new configuration takes effect between two packets.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from pydantic import ValidationError

from device_emulator.source import Block, Labels, Source
from protocol.messages import Config, Label, RawTrace, SourceKind, Status
from protocol.packet import (
    MAX_PAYLOAD_BYTES,
    MAX_SAMPLES,
    SEQUENCE_MODULUS,
    TICK_MODULUS,
    Packet,
    encode_longest,
    samples_that_fit,
)
from protocol.topics import check_device_id
from quantization.codebook import RATE_TOLERANCE, Codebook
from quantization.codec import Encoder
from quantization.entropy import coder_of
from quantization.errors import CodebookError, GammawearError, MessageError
from quantization.imu import Counts
from quantization.sensor import Axes, Sensor

MAX_ERROR_CHARS: Final = 200
"""What ``status`` has room for."""

_LONGEST_NAME: Final = 64


class LabelRun(NamedTuple):
    """Samples with one activity: from the first one's tick to that of the sample after the last (both u32)."""

    activity: str
    from_tick: int
    to_tick: int


class Emission(NamedTuple):
    """One packet, and what the device knows of it.

    Fields:
        packet: the bytes to send, at most 244.
        samples: so many are in it.
        tick_ms: of its first sample, u32.
        due_ms: when its last sample has been taken: milliseconds since the device started, not wrapped.
        labels: the truth, where the source knows it; unlabelled samples are in no run.
        counts: ``[samples, C]`` as they were quantized.
    """

    packet: bytes
    samples: int
    tick_ms: int
    due_ms: int
    labels: tuple[LabelRun, ...]
    counts: Counts


@dataclass(frozen=True)
class _Program:
    """What runs between two configurations: replaced as a whole. ``samples`` is the most that a packet gets."""

    encoder: Encoder
    axes: Axes
    samples: int


@lru_cache(maxsize=64)
def shared_encoder(codebook: Codebook, sensor: Sensor) -> Encoder:
    """One encoder for all devices with one part: its tables are the same, and take milliseconds to make.

    Raises:
        CodebookError: the part measures other channels than the codebook.
    """
    return Encoder(codebook, sensor)


class Device:
    """One wearable.

    Args:
        device_id: 1 to 32 of ``A-Z a-z 0-9 _ -``.
        source: the wearer and the part.
        encoder: codebook to start with, made ready for the source's part.
        axes: how the part is turned in its case.
        packet_s: longest duration of a packet in seconds; it is cut shorter to what fits. How much that is varies from
            packet to packet where the codebook has contexts for the entropy coder.
        max_payload_bytes: what the link takes after the header, 1 .. 232.
        start_tick: of the first sample, u32.

    Attributes:
        packets_made: since the start, sent or not.
        samples_made: the samples in them.
        bytes_made: their bytes, headers included.
        saturated_samples: samples with at least one channel at an end of the ADC's range.
        error: why the last configuration was refused; None after a good one.
        revision: goes up whenever :meth:`status` has something new to say, beyond its counters.

    Raises:
        MessageError: the id, or the name of an activity, cannot be sent.
        CodebookError: codebook, part and source do not fit together, or not one sample fits a packet.
        SensorError: the axes do not fit the part's channels.

    The *i*-th sample's tick is ``start + gaps + round(1000 i / rate)``, from the exact fraction: no error adds up.
    """

    def __init__(
        self,
        device_id: str,
        source: Source,
        encoder: Encoder,
        *,
        axes: Axes | None = None,
        packet_s: float = 1.0,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        start_tick: int = 0,
    ) -> None:
        if packet_s <= 0 or not 0 <= start_tick < TICK_MODULUS or not 1 <= max_payload_bytes <= MAX_PAYLOAD_BYTES:
            raise ValueError(f"packet_s {packet_s}, max_payload_bytes {max_payload_bytes}, start_tick {start_tick}")
        self.device_id: Final = check_device_id(device_id)
        self.source: Final = source
        self.packet_s: Final = packet_s
        self._start_tick = start_tick
        self._max_payload_bytes = max_payload_bytes
        # A nominal rate is a short decimal; the float's own fraction would have a denominator of 2^46.
        self._rate = Fraction(source.rate_hz).limit_denominator(1_000_000)
        check_activities(source.labels)
        if encoder.sensor != source.sensor:
            raise CodebookError(f"the encoder is for {encoder.sensor.name}; the source gives {source.sensor.name}")
        self._program = self._fit(encoder, axes or Axes())
        self._staged: _Program | None = None
        self._pending: deque[Block] = deque()
        self._gaps_ms = 0
        self.packets_made = 0
        self.samples_made = 0
        self.bytes_made = 0
        self.saturated_samples = 0
        self.error: str | None = None
        self.revision = 0

    @property
    def codebook(self) -> Codebook:
        """The one that packets are made with at present."""
        return self._program.encoder.codebook

    @property
    def is_camera(self) -> bool:
        """No."""
        return False

    @property
    def source_kind(self) -> SourceKind:
        """Where its samples come from."""
        return self.source.kind

    @property
    def axes(self) -> Axes:
        """Those that are applied at present."""
        return self._program.axes

    @property
    def packet_samples(self) -> int:
        """The most samples that a packet gets at present."""
        return (self._staged or self._program).samples

    @property
    def packet_period_s(self) -> float:
        """How long a packet lasts that is not cut shorter, because its codes take too many bytes or at a gap."""
        return float(self._program.samples / self._rate)

    # -- configuration ------------------------------------------------------------------------------------------------

    def _fit(self, encoder: Encoder, axes: Axes) -> _Program:
        codebook, sensor = encoder.codebook, self.source.sensor
        low, high = codebook.rate_hz * (1 - RATE_TOLERANCE), codebook.rate_hz * (1 + RATE_TOLERANCE)
        if not low <= self.source.rate_hz <= high:
            raise CodebookError(
                f"the codebook is for {codebook.rate_hz:g} Hz; this device samples at {self.source.rate_hz:g} Hz, "
                f"more than {RATE_TOLERANCE:.0%} away: resample before quantization"
            )
        axes.apply(np.zeros((0, len(sensor.channels)), dtype=np.int32), sensor)
        channels = len(codebook.channels)
        fitting = samples_that_fit(channels, codebook.bits, self._max_payload_bytes)
        if fitting == 0:
            raise CodebookError(
                f"one sample of {channels} channels at {codebook.bits} bits is more than the "
                f"{self._max_payload_bytes} bytes that this device's link takes"
            )
        lasting = max(1, int(self.packet_s * self._rate + Fraction(1, 1_000_000)))
        coder_of(codebook)  # made here, not while a packet waits
        most = fitting if codebook.contexts is None else MAX_SAMPLES
        return _Program(encoder, axes, min(lasting, most))

    def apply_config(self, config: Config) -> bool:
        """Take a configuration, whole or not at all, from the next packet on.

        Sequence and ticks go on. One that this device cannot run leaves things as they are; :attr:`error` and
        ``status`` say why.

        Returns:
            Whether it was taken (also when it is what runs already).
        """
        now = self._staged or self._program
        try:
            codebook = config.read_codebook() or now.encoder.codebook
            axes = now.axes if config.axes is None else Axes(config.axes)
            encoder = now.encoder
            if codebook != encoder.codebook:
                encoder = shared_encoder(codebook, self.source.sensor)
            program = self._fit(encoder, axes)
        except GammawearError as error:
            self.refuse_config(error)
            return False
        if self.error is not None:
            self.error = None
            self.revision += 1
        if program != now:
            self._staged = program
        return True

    def limit_payload(self, max_payload_bytes: int) -> None:
        """From the next packet on, the link takes so many bytes after the header, 1 .. 232.

        Raises:
            CodebookError: not one sample fits; things stay as they are.
        """
        before, now = self._max_payload_bytes, self._staged or self._program
        if max_payload_bytes == before:
            return
        self._max_payload_bytes = max_payload_bytes
        try:
            self._staged = self._fit(now.encoder, now.axes)
        except CodebookError:
            self._max_payload_bytes = before
            raise

    def refuse_config(self, error: GammawearError) -> None:
        """Report a configuration that could not be read or run."""
        text = str(error)
        self.error = text if len(text) <= MAX_ERROR_CHARS else text[: MAX_ERROR_CHARS - 1] + "…"
        self.revision += 1

    def status(self, *, packets: int | None = None, dropped: int = 0, time_ms: int | None = None) -> Status:
        """The ``online`` message.

        Args:
            packets: how many of the packets made have come due; None = all.
            dropped: of these, by the publisher's queue.
            time_ms: wall time, which a device does not know.
        """
        codebook, sensor = self.codebook, self.source.sensor
        x, y, z = self.axes.entries
        return Status(
            state="online",
            source=self.source.kind,
            codebook=codebook.digest.hex(),
            rate_hz=self.source.rate_hz,
            sensor=sensor.name[:_LONGEST_NAME],
            adc_bits=sensor.adc_bits,
            channels=list(sensor.channels),
            axes=(x, y, z),
            packets=self.packets_made if packets is None else packets,
            dropped=dropped,
            error=self.error,
            time_ms=time_ms,
        )

    # -- the loop -----------------------------------------------------------------------------------------------------

    def next_packet(self) -> Emission | None:
        """Make the next packet; None once the source has ended.

        A gap in the source ends a packet early: the samples of one packet are evenly spaced. Samples that did not fit
        begin the next one.
        """
        if self._staged is not None:
            self._program, self._staged = self._staged, None
            self.revision += 1
        program = self._program
        counts, label = self._take(program.samples)
        if len(counts) == 0:
            return None
        sensor, codebook = program.encoder.sensor, program.encoder.codebook
        turned = program.axes.apply(counts, sensor)
        codes = program.encoder.encode(turned)
        samples, coder, payload = encode_longest(codes, codebook, self._max_payload_bytes)
        if samples < len(counts):
            self._pending.appendleft(Block(counts[samples:], label[samples:]))
            counts, label = counts[:samples], label[:samples]
        ends = (counts == sensor.count_min) | (counts == sensor.count_max)
        if ends.any():
            self.saturated_samples += int(ends.any(axis=1).sum())
        first, last = self.samples_made, self.samples_made + samples - 1
        tick_ms, sequence = self._tick(first), self.packets_made % SEQUENCE_MODULUS
        packet = bytes(Packet(codebook.short_digest, sequence, tick_ms, samples, payload, coder))
        emission = Emission(
            packet=packet,
            samples=samples,
            tick_ms=tick_ms,
            due_ms=self._elapsed_ms(last),
            labels=self._label_runs(label, first),
            counts=turned[:samples],
        )
        self.packets_made += 1
        self.samples_made += samples
        self.bytes_made += len(packet)
        return emission

    def raw_trace(self, emission: Emission) -> RawTrace:
        """A packet's samples before they were quantized, to be sent for debugging."""
        sensor = self.source.sensor
        return RawTrace(
            tick=emission.tick_ms, lsb=list(sensor.lsb), offset=list(sensor.offset), counts=emission.counts.tolist()
        )

    def _take(self, samples: int) -> tuple[Counts, Labels]:
        """Samples for one packet: as many as asked for, fewer before a gap, none at the end."""
        blocks: list[Block] = []
        missing = samples
        while missing:
            block = self._pending.popleft() if self._pending else self.source.read(missing)
            if len(block) == 0:
                break
            if block.gap_ms and blocks:
                self._pending.appendleft(block)
                break
            self._gaps_ms += block.gap_ms
            if len(block) > missing:  # read for a longer packet, before a new configuration
                self._pending.appendleft(Block(block.counts[missing:], block.label[missing:]))
                block = Block(block.counts[:missing], block.label[:missing])
            blocks.append(block)
            missing -= len(block)
        if not blocks:
            block = Block(np.zeros((0, len(self.source.sensor.channels)), np.int32), np.zeros(0, np.int16))
            return block.counts, block.label
        if len(blocks) == 1:
            return blocks[0].counts, blocks[0].label
        return np.concatenate([b.counts for b in blocks]), np.concatenate([b.label for b in blocks])

    def _elapsed_ms(self, sample: int) -> int:
        """Milliseconds from the first sample ever to this one, rounded half up, gaps up to the present one included."""
        numerator, denominator = self._rate.numerator, self._rate.denominator
        return self._gaps_ms + (2000 * sample * denominator + numerator) // (2 * numerator)

    def _tick(self, sample: int) -> int:
        return (self._start_tick + self._elapsed_ms(sample)) % TICK_MODULUS

    def _label_runs(self, label: Labels, first: int) -> tuple[LabelRun, ...]:
        changes = [] if (label == label[0]).all() else (np.flatnonzero(label[1:] != label[:-1]) + 1).tolist()
        return tuple(
            LabelRun(self.source.labels[label[start]], self._tick(first + start), self._tick(first + end))
            for start, end in itertools.pairwise([0, *changes, len(label)])
            if label[start] >= 0
        )


def check_activities(names: tuple[str, ...]) -> None:
    """Refuse a source whose truth could not be published, before the first packet rather than at the first change.

    Raises:
        MessageError: ``label``: one of them cannot be the name of an activity.
    """
    for name in names:
        try:
            Label(activity=name, from_tick=0, to_tick=1)
        except ValidationError as error:
            raise MessageError("label", f"{name[:64]!r} cannot be the name of an activity") from error
