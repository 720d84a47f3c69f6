"""What a bridge makes of a wearable's notifications; here of those of a wearable of ours, which sends packets.

Others send samples: :mod:`device_emulator.ble.sampled`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from bleak import BleakClient
from bleak.exc import BleakError

from device_emulator.ble import gatt
from device_emulator.ble.gatt import Refusal, Settings, State
from protocol.messages import Config, Status
from protocol.packet import Packet
from quantization.errors import ProfileError

CHUNK_BYTES: Final = 180
"""Of a codebook in one write: fits the smallest MTU that iOS and Android agree on, 185, less our five bytes' head."""


class Stream(ABC):
    """One wearable's way from notifications to packets.

    Args:
        device_id: its name at the broker.
        publish: takes each packet.
        changed: called when :meth:`status` has something new to say.

    Attributes:
        error: why nothing comes, in words; None when all is well.
    """

    def __init__(self, device_id: str, publish: Callable[[bytes], None], changed: Callable[[], None]) -> None:
        self.device_id: Final = device_id
        self.error: str | None = None
        self._publish = publish
        self._changed = changed

    @abstractmethod
    async def begin(self, client: BleakClient, received: Callable[[str, bytes], None]) -> None:
        """On a new connection: subscribe, and make the stream start.

        Args:
            client: connected.
            received: to be called with each notification, for the watchdog and the counters; it calls :meth:`feed`.

        Raises:
            BleakError: the connection does not do what it should.
            ProfileError: the device is not what it seemed, or cannot do what is wanted.
        """

    @abstractmethod
    async def end(self, client: BleakClient) -> None:
        """Before a wanted disconnection: make the stream stop."""

    @abstractmethod
    def feed(self, characteristic: str, data: bytes) -> None:
        """Take one notification.

        Raises:
            GammawearError: it is not what this kind of wearable sends. The stream goes on.
        """

    async def ask(self, client: BleakClient) -> None:  # noqa: B027 - most have nothing to ask
        """Have a silent device say again why it sends nothing; :attr:`error` is what it says.

        Raises:
            BleakError: the connection is dead.
        """

    @abstractmethod
    def interrupted(self) -> None:
        """The connection is gone."""

    @abstractmethod
    def status(self, bridge: str) -> Status:
        """The ``online`` message."""

    @abstractmethod
    async def configure(self, client: BleakClient, config: Config) -> None:
        """Bring a configuration to the device.

        Raises:
            GammawearError: it cannot be run.
            BleakError: it did not get there.
        """


class PacketStream(Stream):
    """A wearable with our own profile."""

    _settings: Settings | None = None
    _axes: tuple[int, int, int] | None = None  # that have been written, and take effect with the next packet
    _client: BleakClient | None = None
    _state = State.IDLE
    _states_noted = 0
    _rereading: asyncio.Task[None] | None = None

    async def begin(self, client: BleakClient, received: Callable[[str, bytes], None]) -> None:
        """Read what it runs, subscribe to state and stream; pair with one that streams to bonded centrals only."""
        self._client = client
        await self._read_settings(client)
        await client.start_notify(gatt.STATE, lambda _, data: received(gatt.STATE, bytes(data)))
        await client.start_notify(gatt.STREAM, lambda _, data: received(gatt.STREAM, bytes(data)))
        await self.ask(client)
        if self._state is State.NOT_BONDED:
            await client.pair()

    async def ask(self, client: BleakClient) -> None:
        """Read the state. What is notified of meanwhile is newer, and a callback comes before the end of a wait."""
        noted = self._states_noted
        data = bytes(await client.read_gatt_char(gatt.STATE))
        if self._states_noted == noted:
            self._note_state(data)

    async def end(self, client: BleakClient) -> None:
        """Unsubscribe."""
        self.interrupted()
        await client.stop_notify(gatt.STREAM)
        await client.stop_notify(gatt.STATE)

    def interrupted(self) -> None:
        """Forget the client, and what was on its way."""
        self._client = self._axes = None
        if self._rereading is not None:
            self._rereading.cancel()

    def feed(self, characteristic: str, data: bytes) -> None:
        """Check a packet and pass it on as it is."""
        if characteristic == gatt.STATE:
            self._note_state(data)
            return
        packet = Packet.from_bytes(data)
        self._publish(data)
        known = self._settings
        if known is None or not known.codebook.startswith(packet.short_digest) or self._axes not in (None, known.axes):
            self._reread()

    def status(self, bridge: str) -> Status:
        """What its settings say."""
        s = self._settings
        if s is None:
            return Status(state="online", bridge=bridge, error=self.error)
        return Status(
            state="online", source=s.source, codebook=s.codebook.hex(), rate_hz=s.rate_hz, adc_bits=s.adc_bits,
            axes=s.axes, bridge=bridge, error=self.error,
        )  # fmt: skip

    async def configure(self, client: BleakClient, config: Config) -> None:
        """Upload a codebook over the air, write the axes. The link is encrypted and bonded first."""
        codebook = config.read_codebook()
        now = await self._read_settings(client)
        wants_codebook = codebook is not None and codebook.digest != now.codebook
        wants_axes = config.axes is not None and config.axes != now.axes
        if not wants_codebook and not wants_axes:
            return
        wanted = now.changed(axes=config.axes)  # refuses axes that no device can have, before anything is written
        await client.pair()
        if codebook is not None and wants_codebook:
            for data in gatt.upload_writes(codebook, CHUNK_BYTES):
                await _write_ours(client, gatt.UPLOAD, data)
        if wants_axes:
            await _write_ours(client, gatt.SETTINGS, bytes(wanted))
            self._axes = wanted.axes
        await self._read_settings(client)
        self._changed()

    async def _read_settings(self, client: BleakClient) -> Settings:
        self._settings = Settings.from_bytes(bytes(await client.read_gatt_char(gatt.SETTINGS)))
        return self._settings

    def _reread(self) -> None:
        """A packet with another codebook: ask what runs."""
        client = self._client
        if client is not None and (self._rereading is None or self._rereading.done()):

            async def reread() -> None:
                with contextlib.suppress(BleakError, ProfileError):  # the next packet asks again
                    await self._read_settings(client)
                    self._changed()

            self._rereading = asyncio.create_task(reread())

    def _note_state(self, data: bytes) -> None:
        if not data or data[0] > max(State):
            raise ProfileError("state", f"not a state: {data[:8].hex()}")
        self._state = State(data[0])
        self._states_noted += 1
        text = data[1:].decode(errors="replace")[:150]
        error = None if data[0] in (State.IDLE, State.STREAMING) else text or State(data[0]).name.lower()
        if error != self.error:
            self.error = error
            self._changed()


async def _write_ours(client: BleakClient, characteristic: str, data: bytes) -> None:
    """Write; a refusal of our profile's comes out with its name. Backends say its number, each in its own words."""
    try:
        await client.write_gatt_char(characteristic, data, response=True)
    except BleakError as error:
        refusal = re.search(r"\b0x8[0-7]\b", str(error))
        if refusal is None:
            raise
        name = Refusal(int(refusal[0], 16)).name.lower()
        raise ProfileError(name, f"the device refuses it ({error})") from error
