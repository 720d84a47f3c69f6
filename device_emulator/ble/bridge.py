"""The bridge: wearables on one Bluetooth adapter to one MQTT connection.

::

    advertisement ─► Follower ─► Stream ─► packets ─► Connection ─► gammawear/v1/<id>/imu
                                     └───► status  ─►            ─► gammawear/v1/<id>/status   (names the bridge)
    gammawear/v1/<id>/config ─► Connection ─► Follower ─► over the air

The will of the connection is the bridge's own ``offline``: a wearable is online only if its bridge is, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakBluetoothNotAvailableError, BleakError

from device_emulator.ble import gatt
from device_emulator.ble.adapter import Adapter, open_adapter, seen_of
from device_emulator.ble.follower import NO_DATA_S, Follower
from device_emulator.ble.profiles import PROFILES
from device_emulator.ble.profiles.base import Profile, Seen, short_uuid
from device_emulator.ble.sampled import SampleStream
from device_emulator.ble.streams import PacketStream, Stream
from device_emulator.device import MAX_ERROR_CHARS
from protocol.broker_settings import BrokerSettings, Message, Received
from protocol.connection import Connection
from protocol.messages import Config, Status, now_ms
from protocol.retry import Backoff
from protocol.topics import Kind, check_device_id, every, parse, topic
from quantization.codebook import Codebook
from quantization.errors import ConnectError, MessageError, ProfileError
from quantization.sensor import Axes

logger = logging.getLogger(__name__)

SERIAL_NUMBER: Final = short_uuid(0x2A25)
"""Serial number string of Device Information: a wearable of ours says its device id there."""
MAX_DEVICES: Final = 32
"""Followed at once. Real adapters hold 5 to 20 links."""
FORGET_S: Final = 120.0
"""A device of which nothing has come for so long gives up its place, or its id, to another that needs it. Devices
advertise every 10 s or more often."""
MAX_REFUSED: Final = 1000
"""Addresses that are remembered as refused, so as to say it once: anybody can make up addresses."""
QUEUE_LIMIT: Final = 4000
"""Messages that wait while the broker is away: two minutes of 32 devices."""
STATUS_INTERVAL_S: Final = 30.0
LONGEST_WAIT_S: Final = 10.0
"""Between attempts to open the adapter."""
MAX_CONFIGS: Final = 1024
"""Retained configurations that are kept for wearables to come: the broker may have those of others, too."""


@dataclass(frozen=True)
class BridgeSettings:
    """What to follow, and how.

    Args:
        bridge_id: of the bridge itself, 1 to 32 of ``A-Z a-z 0-9 _ -``; no wearable may have it.
        hci: the controller for Bumble; None = the platform's own Bluetooth.
        bonds: file of Bumble's bonds.
        addresses: follow these only; empty = all that a profile knows.
        profiles: kinds of third-party wearables to follow, beside ours.
        names: device ids by address, for wearables that do not tell one.
        codebook: for third-party wearables; None = they are not followed.
        axes: how third-party wearables sit on the body.
        packet_s: longest duration of a packet that is made here.
        no_data_s: the watchdog's patience.
        max_devices: followed at once.
    """

    bridge_id: str = "bridge"
    hci: str | None = None
    bonds: str | None = None
    addresses: frozenset[str] = frozenset()
    profiles: tuple[Profile, ...] = PROFILES
    names: tuple[tuple[str, str], ...] = ()
    codebook: Codebook | None = None
    axes: Axes | None = None
    packet_s: float = 1.0
    no_data_s: float = NO_DATA_S
    max_devices: int = MAX_DEVICES


class Bridge:
    """See the module.

    Args:
        settings: what to follow.
        broker: where to publish.

    Attributes:
        connection: to the broker.
        followers: by address.
        adapter_error: why there is no adapter at present; None while there is.
        adapters_lost: so far.
    """

    def __init__(self, settings: BridgeSettings, broker: BrokerSettings) -> None:
        self.settings: Final = settings
        self._id = check_device_id(settings.bridge_id)
        self._topic = topic(self._id, Kind.STATUS)
        self.connection: Final = Connection(
            broker,
            f"gammawear-{self._id}",
            will=self._message(self._id, Status(state="offline", bridge=self._id)),
            subscriptions=((every(Kind.CONFIG), 1),),
            on_message=self._on_message,
            on_connected=self._announce_all,
            queue_limit=QUEUE_LIMIT,
        )
        self.followers: Final[dict[str, Follower]] = {}
        self.adapter_error: str | None = None
        self.adapters_lost = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}  # of followers, by address
        self._refused: set[str] = set()
        self._configs: dict[str, Config] = {}  # the last one for each device, for when it comes

    # -- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Bridge until cancelled; then let every device go and say ``offline``.

        Raises:
            ConnectError: the broker refuses us for good.
        """
        connecting = asyncio.create_task(self.connection.run())
        bridging = asyncio.create_task(self._keep_adapter())
        telling = asyncio.create_task(self._tell_regularly())
        try:
            await asyncio.wait({connecting, bridging}, return_when=asyncio.FIRST_COMPLETED)
            for task in (connecting, bridging):
                if task.done():
                    task.result()
        finally:
            for task in (bridging, telling):
                task.cancel()
            await asyncio.gather(bridging, telling, return_exceptions=True)
            for follower in self.followers.values():
                self._say(follower, online=False)
            await self.connection.stop(self._message(self._id, self._own_status("offline")))
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)

    async def _keep_adapter(self) -> None:
        backoff = Backoff(LONGEST_WAIT_S)
        loop = asyncio.get_running_loop()
        while True:
            started: float | None = None
            try:
                async with open_adapter(self.settings.hci, bonds=self.settings.bonds) as adapter:
                    started = loop.time()
                    await self._use(adapter)
                error = "the Bluetooth adapter has gone"
            except (ConnectError, BleakError, TimeoutError, OSError) as caught:
                error = str(caught) or type(caught).__name__
                if isinstance(caught, BleakBluetoothNotAvailableError):  # whose text is that of a tuple
                    error = str(caught.args[0])
            if error != self.adapter_error:
                logger.warning("%s; trying again", error)
            self.adapters_lost += self.adapter_error is None
            self.adapter_error = error
            self._announce()
            if started is not None:
                backoff.lived(loop.time() - started)
            await asyncio.sleep(backoff.next_delay())

    async def _use(self, adapter: Adapter) -> None:
        """Scan and follow until the adapter is lost."""
        group: asyncio.TaskGroup | None = None

        def follow(follower: Follower) -> None:
            if group is not None:  # else it is one of those that are followed from the start
                self._tasks[follower.address] = group.create_task(follower.run(adapter))

        scanner = adapter.scanner(lambda device, heard: self._on_heard(device, heard, follow))
        await scanner.start()
        # A follower survives what devices and links do. If one fails all the same, so does the bridge, visibly.
        async with asyncio.TaskGroup() as begun:
            group = begun
            try:
                if self.adapter_error is not None:
                    self.adapter_error = None
                    self._announce()
                for follower in self.followers.values():
                    follow(follower)
                await adapter.lost.wait()
            finally:
                with contextlib.suppress(BleakError, TimeoutError):
                    await scanner.stop()
                for task in self._tasks.values():
                    task.cancel()
                self._tasks.clear()

    # -- what is on the air -------------------------------------------------------------------------------------------

    def _on_heard(self, device: BLEDevice, heard: AdvertisementData, follow: Callable[[Follower], None]) -> None:
        follower = self.followers.get(device.address)
        if follower is None:
            make = self._choose(seen_of(device, heard))
            if make is None:
                return
            follower = Follower(device.address, make, self._on_change, no_data_s=self.settings.no_data_s)
            self.followers[device.address] = follower
            follow(follower)
        follower.heard(device, heard.rssi)

    def _choose(self, seen: Seen) -> Callable[[BleakClient], Awaitable[Stream]] | None:
        """How to make the stream of a device, if it is one to follow."""
        settings = self.settings
        if settings.addresses and seen.address not in settings.addresses:
            return None
        ours = gatt.SERVICE in seen.services
        known = () if ours else tuple(profile for profile in settings.profiles if profile.knows(seen))
        if not ours and not known:
            return None
        try:
            make = self._our_stream(seen) if ours else self._their_stream(seen, *self._fitting(known))
        except ProfileError as error:
            self._refuse(seen, str(error))
            return None
        if len(self.followers) >= settings.max_devices and not self._forget_absent(self.followers.values()):
            self._refuse(seen, f"{settings.max_devices} devices are followed already")
            return None
        return make

    def _forget_absent(self, followers: Iterable[Follower]) -> bool:
        """Forget the one of these that has been absent longest, if it has been for :data:`FORGET_S`."""
        longest = max(followers, key=lambda follower: follower.absent_s)
        if longest.absent_s < FORGET_S:
            return False
        del self.followers[longest.address]
        if (task := self._tasks.pop(longest.address, None)) is not None:
            task.cancel()
        return True

    def _fitting(self, known: tuple[Profile, ...]) -> tuple[Profile, Codebook]:
        """The first of these that can serve the codebook, and it.

        Raises:
            ProfileError: none can; for all time, so that no connection is worth trying.
        """
        codebook = self.settings.codebook
        if codebook is None:
            raise ProfileError("codebook", f"a {known[0].title} needs one to quantize with: choose a bundle")
        fitting = [profile for profile in known if profile.channels == codebook.channels]
        if not fitting:
            measures, wants = ", ".join(known[0].channels), ", ".join(codebook.channels)
            raise ProfileError("channels", f"a {known[0].title} measures {measures}; the bundle wants {wants}")
        fitting[0].open(rate_hz=codebook.rate_hz)  # for its refusal
        return fitting[0], codebook

    def _refuse(self, seen: Seen, reason: str) -> None:
        if seen.address not in self._refused:
            if len(self._refused) >= MAX_REFUSED:
                self._refused.clear()
            self._refused.add(seen.address)
            logger.warning("%s (%s) is not followed: %s", seen.name or "a device", seen.address, reason)

    def _our_stream(self, seen: Seen) -> Callable[[BleakClient], Awaitable[Stream]]:
        async def make(client: BleakClient) -> Stream:
            serial = bytes(await client.read_gatt_char(SERIAL_NUMBER)).decode(errors="replace")
            device_id = self._claim(seen.address, serial)
            return PacketStream(device_id, *self._outlets(device_id, seen.address))

        return make

    def _their_stream(
        self, seen: Seen, profile: Profile, codebook: Codebook
    ) -> Callable[[BleakClient], Awaitable[Stream]]:
        async def make(_: BleakClient) -> Stream:
            # Not the name of the first advertisement: it often comes in a scan response, a moment later.
            name = self.followers[seen.address].name
            device_id = self._claim(seen.address, re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:32])
            return SampleStream(
                device_id, *self._outlets(device_id, seen.address),
                profile=profile, codebook=codebook, axes=self.settings.axes, packet_s=self.settings.packet_s,
            )  # fmt: skip

        return make

    def _claim(self, address: str, told: str) -> str:
        """The device's id: given, or told, or made of its address.

        Raises:
            ProfileError: another device has it, or it is the bridge's own.
        """
        device_id = dict(self.settings.names).get(address, told)
        try:
            check_device_id(device_id)
        except MessageError:
            device_id = "ble-" + re.sub(r"[^A-Za-z0-9]", "", address)[-28:].lower()
        others = [f for f in self.followers.values() if f.address != address]
        holders = [f for f in others if f.stream is not None and f.stream.device_id == device_id]
        if device_id == self._id or (holders and not self._forget_absent(holders)):
            raise ProfileError("name", f"the id {device_id} is taken: give this device another (--name {address}=ID)")
        return device_id

    def _outlets(self, device_id: str, address: str) -> tuple[Callable[[bytes], None], Callable[[], None]]:
        imu = topic(device_id, Kind.IMU)

        def publish(packet: bytes) -> None:
            self.connection.publish(imu, packet, 1, taken_ns=time.time_ns())

        follower = self.followers[address]
        follower.configure(self._configs.get(device_id))
        return publish, lambda: self._on_change(follower)

    # -- MQTT ---------------------------------------------------------------------------------------------------------

    def _on_message(self, received: Received) -> None:
        device_id, kind = parse(received.topic)
        if kind != Kind.CONFIG:
            return
        config = Config.parse(received.payload) if received.payload else None
        before = self._configs.pop(device_id, None)
        if config is not None:
            if before is not None:  # a field that is absent stays as it is
                config = before.model_copy(update=config.model_dump(exclude_none=True))
            self._configs[device_id] = config
            if len(self._configs) > MAX_CONFIGS:
                del self._configs[next(iter(self._configs))]
        for follower in self.followers.values():
            if follower.stream is not None and follower.stream.device_id == device_id:
                follower.configure(config)

    def _on_change(self, follower: Follower) -> None:
        if self.followers.get(follower.address) is not follower:
            return  # forgotten: another may have its id
        logger.info("%s: %s%s", follower.address, follower.state, f" ({follower.error})" if follower.error else "")
        self._say(follower, online=follower.state == "streaming")

    def _say(self, follower: Follower, *, online: bool) -> None:
        if follower.stream is None or not self.connection.connected:
            return  # without a connection, the next one begins with it
        if online:
            status = follower.stream.status(self._id)
            error = follower.error or status.error
            status = status.model_copy(update={"error": error and error[:MAX_ERROR_CHARS]})
        else:
            status = Status(state="offline", bridge=self._id, error=follower.error and follower.error[:MAX_ERROR_CHARS])
        message = self._message(follower.stream.device_id, status.model_copy(update={"time_ms": now_ms()}))
        self.connection.publish(message.topic, message.payload, message.qos, retain=message.retain)

    def _announce_all(self) -> None:
        self._announce()
        for follower in self.followers.values():
            self._say(follower, online=follower.state == "streaming")

    def _announce(self) -> None:
        if self.connection.connected:
            message = self._message(self._id, self._own_status("online"))
            self.connection.publish(message.topic, message.payload, message.qos, retain=message.retain)

    def _own_status(self, state: Literal["online", "offline"]) -> Status:
        error = self.adapter_error and self.adapter_error[:MAX_ERROR_CHARS]
        return Status(state=state, bridge=self._id, error=error, time_ms=now_ms())

    async def _tell_regularly(self) -> None:
        while True:
            await asyncio.sleep(STATUS_INTERVAL_S)
            self._announce_all()

    @staticmethod
    def _message(device_id: str, status: Status) -> Message:
        return Message(topic(device_id, Kind.STATUS), status.to_json(), qos=1, retain=True)
