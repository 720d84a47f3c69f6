"""The life of one wearable at a bridge: found, connected, streaming, lost, and found again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bleak.exc import BleakError

from device_emulator.ble.adapter import Adapter
from device_emulator.ble.streams import Stream
from protocol.messages import Config
from protocol.retry import Backoff
from quantization.errors import GammawearError

logger = logging.getLogger(__name__)

State = Literal["unseen", "connecting", "streaming", "waiting"]
STATES: Final[tuple[State, ...]] = ("unseen", "connecting", "streaming", "waiting")

BEGIN_S: Final = 10.0
"""To subscribe and to make the stream start: a dozen round trips at a connection interval of 100 ms take 2 s."""
END_S: Final = 3.0
"""To say goodbye to a device that may have gone."""
NO_DATA_S: Final = 10.0
"""A link that has been silent for so long is dead, whatever the stack says: ten packets of the usual length."""
LONGEST_WAIT_S: Final = 30.0
"""Between attempts. A device that is out of range for an hour is back within half a minute of its return."""

PASSING: Final = (BleakError, GammawearError, OSError, EOFError, AttributeError, KeyError)
"""What ends one connection and not the follower. The last three are what bleak's platform backends let through when a
link or the system's Bluetooth service goes in the middle of an operation (bleak-retry-connector has the same list)."""


class Follower:
    """Keeps one wearable streaming.

    Args:
        address: of the device.
        make_stream: finds out what the device is, at the first connection, and gives its stream.
        changed: called when the state or the error has changed.
        no_data_s: the watchdog's patience.

    Attributes:
        stream: None before the first connection.
        state: see :data:`STATES`.
        error: what went wrong last; None while it streams.
        rssi: dBm, of the last advertisement.
        notifications, bytes_received: since the start.
        connections: made so far; all but the first are reconnections.
        watchdog_kicks: links that were given up because nothing came.
        refused: notifications that made no sense, by reason.
    """

    def __init__(
        self,
        address: str,
        make_stream: Callable[[BleakClient], Awaitable[Stream]],
        changed: Callable[[Follower], None],
        *,
        no_data_s: float = NO_DATA_S,
    ) -> None:
        self.address: Final = address
        self.stream: Stream | None = None
        self.state: State = "unseen"
        self.error: str | None = None
        self.rssi: int | None = None
        self.notifications = 0
        self.bytes_received = 0
        self.connections = 0
        self.watchdog_kicks = 0
        self.refused: Counter[str] = Counter()
        self._make_stream = make_stream
        self._changed = changed
        self._no_data_s = no_data_s
        self._seen: BLEDevice | None = None
        self._heard = asyncio.Event()
        self._last_heard = self._last_data = 0.0
        self._streaming_since: float | None = None
        self._config: Config | None = None
        self._config_changed = asyncio.Event()

    def heard(self, device: BLEDevice, rssi: int) -> None:
        """The scanner has seen it."""
        self._seen = device
        self._last_heard = asyncio.get_running_loop().time()
        self.rssi = rssi
        self._heard.set()

    @property
    def name(self) -> str:
        """As advertised last; empty if it never told one."""
        return (self._seen and self._seen.name) or ""

    @property
    def absent_s(self) -> float:
        """Seconds since it was heard, or sent something that made sense."""
        return asyncio.get_running_loop().time() - max(self._last_heard, self._last_data)

    def configure(self, config: Config | None) -> None:
        """What the device should run: brought to it now, and on each new connection, as it may have started anew."""
        self._config = config
        self._config_changed.set()

    async def run(self, adapter: Adapter) -> None:
        """Follow until cancelled, as when the adapter has gone; then let the device go properly."""
        try:
            await self._keep_streaming(adapter)
        finally:
            self._become("unseen", None)

    async def _keep_streaming(self, adapter: Adapter) -> None:
        backoff = Backoff(LONGEST_WAIT_S)
        loop = asyncio.get_running_loop()
        await self._heard.wait()
        while True:
            self._streaming_since = None
            try:
                await self._once(adapter)
            except TimeoutError as error:
                self._become("waiting", str(error) or "the device did not answer in time")
            except PASSING as error:
                self._become("waiting", str(error) or type(error).__name__)
            if self._streaming_since is not None:  # a long attempt that failed is no reason to hurry
                backoff.lived(loop.time() - self._streaming_since)
            self._heard.clear()
            await asyncio.sleep(backoff.next_delay())
            # An advertisement says that it is there again. Some platforms do not repeat one that they have shown.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_WAIT_S):
                    await self._heard.wait()

    async def _once(self, adapter: Adapter) -> None:
        """One connection, from its making to its end."""
        device = self._seen
        if device is None:
            return
        self._become("connecting", self.error)
        gone = asyncio.Event()
        client = await adapter.connect(device, lambda _: gone.set())
        self.connections += 1
        stream: Stream | None = None
        try:
            async with asyncio.timeout(BEGIN_S):
                stream = self.stream = self.stream or await self._make_stream(client)
                await stream.begin(client, self._receive)
            self._streaming_since = asyncio.get_running_loop().time()
            self._become("streaming", None)
            self._become("waiting", await self._watch(client, stream, gone))
        except asyncio.CancelledError:
            if stream is not None and client.is_connected:
                with contextlib.suppress(*PASSING):
                    async with asyncio.timeout(END_S):
                        await stream.end(client)
            raise
        finally:
            if stream is not None:
                stream.interrupted()
            with contextlib.suppress(*PASSING):
                async with asyncio.timeout(END_S):
                    await client.disconnect()

    async def _watch(self, client: BleakClient, stream: Stream, gone: asyncio.Event) -> str:
        """Wait for the end of the link, and bring configurations meanwhile; returns why it ended."""
        loop = asyncio.get_running_loop()
        self._last_data = loop.time()
        configuring = asyncio.create_task(self._bring_configs(client, stream))
        configuring.add_done_callback(lambda _: gone.set())  # it never ends by itself, unless it fails
        try:
            while not gone.is_set():
                silent_s = loop.time() - self._last_data
                if silent_s >= self._no_data_s and not await self._says_why(client, stream):
                    self.watchdog_kicks += 1
                    return f"no data for {silent_s:.0f} s"
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.05, self._last_data + self._no_data_s - loop.time())):
                        await gone.wait()
        finally:
            configuring.cancel()
            (ended,) = await asyncio.gather(configuring, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended
        return "the link was lost"

    async def _says_why(self, client: BleakClient, stream: Stream) -> bool:
        """Whether a device that sends nothing still says, when asked, that it has a reason to."""
        if stream.error is None:
            return False
        try:
            async with asyncio.timeout(END_S):
                await stream.ask(client)
        except PASSING:
            return False
        self._last_data = asyncio.get_running_loop().time()
        return True

    async def _bring_configs(self, client: BleakClient, stream: Stream) -> None:
        self._config_changed.set()
        while True:
            await self._config_changed.wait()
            self._config_changed.clear()
            if self._config is None:
                continue
            error: str | None = None
            try:
                await stream.configure(client, self._config)
            except PASSING as caught:
                error = f"configuration: {str(caught) or type(caught).__name__}"
                logger.warning("%s: %s", stream.device_id, error)
            if error != self.error:
                self.error = error
                self._changed(self)

    def _receive(self, characteristic: str, data: bytes) -> None:
        self.notifications += 1
        self.bytes_received += len(data)
        if self.stream is None:
            return
        try:
            self.stream.feed(characteristic, data)
        except GammawearError as error:
            reason = getattr(error, "reason", type(error).__name__)
            self.refused[reason] += 1
            if self.refused[reason] == 1:
                logger.warning("%s: refused: %s; further ones are counted only", self.stream.device_id, error)
        else:
            self._last_data = asyncio.get_running_loop().time()  # garbage does not feed the watchdog

    def _become(self, state: State, error: str | None) -> None:
        if (state, error) != (self.state, self.error):
            self.state, self.error = state, error
            self._changed(self)
