"""Wearables of other makers: their samples, resampled to an even rate, become packets or a recording.

What is to go out over MQTT is quantized here, with the codebook of the chosen bundle, before it goes. A stream outlives
its connections: sequence numbers and ticks go on.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bleak import BleakClient

from device_emulator.ble.live import LiveSource, Resampled, Resampler
from device_emulator.ble.profiles.base import Profile, Session, Write
from device_emulator.ble.streams import Stream
from device_emulator.device import Device, shared_encoder
from device_emulator.source import Block
from protocol.messages import Config, Status
from protocol.trace import Trace
from quantization.codebook import RATE_TOLERANCE, Codebook
from quantization.errors import ProfileError, TraceError
from quantization.sensor import Axes

MEASURED_S = 20.0
"""What a device has queued while it was connected, up to half a second of samples, is 2.5 % of that."""
USUAL_HZ = 60.0
"""What people do is over by 20 Hz; with this, nearly every wearable offers a rate that keeps it."""


class SampledStream(Stream):
    """What all of them share: a session for each connection, one resampler for all.

    Args:
        device_id: its name at the broker.
        publish: takes each packet.
        changed: called when the status has something new to say.
        profile: how it speaks.
        rate_hz: wanted; None = the highest that the device offers up to :data:`USUAL_HZ`.

    Raises:
        ProfileError: it cannot serve, such as 10 Hz where 50 Hz are wanted.
    """

    def __init__(
        self,
        device_id: str,
        publish: Callable[[bytes], None],
        changed: Callable[[], None],
        *,
        profile: Profile,
        rate_hz: float | None,
    ) -> None:
        super().__init__(device_id, publish, changed)
        self._profile = profile
        self._asked_hz = _usual_rate(profile) if rate_hz is None else rate_hz
        self._session = self._open()
        self._rate_hz = self._session.rate_hz if rate_hz is None else rate_hz
        self._resampler = Resampler(len(self._session.sensor.channels), self._session.rate_hz, self._rate_hz)
        self._came = 0  # samples over this connection, after its first notification
        self._came_s: tuple[float, float] | None = None  # when that one and the last one arrived

    def _open(self) -> Session:
        return self._profile.open(rate_hz=self._asked_hz)

    async def begin(self, client: BleakClient, received: Callable[[str, bytes], None]) -> None:
        """Subscribe, then write what makes it start."""
        self._session = self._open()
        self._came, self._came_s = 0, None
        for characteristic in self._session.notify:

            def deliver(_: object, data: bytearray, characteristic: str = characteristic) -> None:
                received(characteristic, bytes(data))

            await client.start_notify(characteristic, deliver)
        await _write(client, self._session.start)

    async def end(self, client: BleakClient) -> None:
        """Write what makes it stop, then unsubscribe."""
        await _write(client, self._session.stop)
        for characteristic in self._session.notify:
            await client.stop_notify(characteristic)

    def interrupted(self) -> None:
        """What the resampler holds back goes out; the next samples begin a new stretch."""
        self._take(self._resampler.flush())

    def feed(self, characteristic: str, data: bytes) -> None:
        """Parse and resample."""
        arrival_s = asyncio.get_running_loop().time()
        for samples in self._session.feed(characteristic, data):
            self._take(self._resampler.push(samples.values, samples.end_ns, arrival_s))
            self._came += 0 if self._came_s is None else len(samples.values)
            self._came_s = (arrival_s if self._came_s is None else self._came_s[0], arrival_s)

    @property
    def doubt(self) -> str | None:
        """Why its samples may not be what they are taken for: they come at another rate. None if all is well."""
        first_s, last_s = self._came_s or (0.0, 0.0)
        nominal_hz = self._session.rate_hz
        if last_s - first_s < MEASURED_S:
            return None
        came_hz = self._came / (last_s - first_s)
        if abs(came_hz / nominal_hz - 1) <= RATE_TOLERANCE:
            return None
        return f"{came_hz:.3g} samples come per second, not {nominal_hz:g}: record at the rate that it has (--rate)"

    @abstractmethod
    def _take(self, resampled: list[Resampled]) -> None:
        """Take what is even now."""


class SampleStream(SampledStream):
    """Quantized here.

    Args:
        device_id: its name at the broker.
        publish: takes each packet.
        changed: called when the status has something new to say.
        profile: how it speaks.
        codebook: what to quantize with.
        axes: how the part is turned in its case.
        packet_s: longest duration of a packet.

    Raises:
        ProfileError: it cannot serve, such as 10 Hz for a codebook of 50 Hz.
        GammawearError: its channels do not fit the codebook.
    """

    def __init__(
        self,
        device_id: str,
        publish: Callable[[bytes], None],
        changed: Callable[[], None],
        *,
        profile: Profile,
        codebook: Codebook,
        axes: Axes | None = None,
        packet_s: float = 1.0,
    ) -> None:
        super().__init__(device_id, publish, changed, profile=profile, rate_hz=codebook.rate_hz)
        sensor = self._session.sensor
        self._source = LiveSource(sensor, codebook.rate_hz)
        encoder = shared_encoder(codebook, sensor)
        self._device = Device(device_id, self._source, encoder, axes=axes, packet_s=packet_s)

    def interrupted(self) -> None:
        """What is held back goes out, in a packet that is as short as it has to be."""
        super().interrupted()
        self._send(all_of_it=True)

    def _take(self, resampled: list[Resampled]) -> None:
        for run in resampled:
            self._source.push(run.values, run.gap_ms)
        self._send(all_of_it=False)

    def _send(self, *, all_of_it: bool) -> None:
        while all_of_it or self._source.ready(self._device.packet_samples):
            emission = self._device.next_packet()
            if emission is None:
                return
            self._publish(emission.packet)

    def status(self, bridge: str) -> Status:
        """What the encoder here runs."""
        return self._device.status().model_copy(update={"bridge": bridge, "error": self._device.error or self.error})

    async def configure(self, client: BleakClient, config: Config) -> None:  # noqa: ARG002 - nothing goes over the air
        """The bridge quantizes: its encoder takes the configuration."""
        self._device.apply_config(config)
        self._changed()


class RecordedStream(SampledStream):
    """Kept for a trace, with what the wearer does as somebody tells it.

    Args:
        device_id: what to call it.
        profile: how it speaks.
        rate_hz: wanted; None = the highest that the device offers up to :data:`USUAL_HZ`.
        labels: the activities that may be told.
        subject: who wears it.
    """

    def __init__(
        self, device_id: str, *, profile: Profile, rate_hz: float | None, labels: tuple[str, ...], subject: str
    ) -> None:
        super().__init__(device_id, lambda _: None, lambda: None, profile=profile, rate_hz=rate_hz)
        self._source = LiveSource(self._session.sensor, self._rate_hz, labels, subject=subject)
        self._blocks: list[Block] = []
        self.samples = 0

    def set_label(self, name: str | None) -> None:
        """What the wearer does from now on; None = nothing that is to be learned."""
        self._source.set_label(name)

    def _take(self, resampled: list[Resampled]) -> None:
        for run in resampled:
            self._source.push(run.values, run.gap_ms)
        while len(block := self._source.read(self._source.available())):
            self._blocks.append(block)
            self.samples += len(block)

    def save(self, path: Path) -> None:
        """Write what came so far.

        Raises:
            TraceError: nothing came.
        """
        if not self._blocks:
            raise TraceError("nothing was received, so there is nothing to save")
        gaps = np.cumsum([block.gap_ms for block in self._blocks])
        late = np.repeat(gaps, [len(block) for block in self._blocks])
        even = np.rint(1000 * np.arange(self.samples) / self._rate_hz).astype(np.int64)
        Trace(
            sensor=self._source.sensor,
            rate_hz=self._rate_hz,
            counts=np.concatenate([block.counts for block in self._blocks]),
            tick_ms=even + late - late[0],
            label=np.concatenate([block.label for block in self._blocks]),
            labels=self._source.labels,
            subject=self._source.subject,
        ).save(path)

    def status(self, bridge: str) -> Status:
        """A recording has none; ``online`` while it goes on."""
        return Status(state="online", bridge=bridge)

    async def configure(self, client: BleakClient, config: Config) -> None:
        """A recording takes none."""


def _usual_rate(profile: Profile) -> float:
    if not profile.rates_hz:
        raise ProfileError("rate", f"{profile.title} cannot be asked for a rate: say which one it has (--rate)")
    return max((rate for rate in profile.rates_hz if rate <= USUAL_HZ), default=profile.rates_hz[0])


async def _write(client: BleakClient, writes: tuple[Write, ...]) -> None:
    for characteristic, data, response in writes:
        await client.write_gatt_char(characteristic, data, response=response)
