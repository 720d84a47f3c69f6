"""A virtual wearable: the encoder of the emulated devices behind our GATT profile (:mod:`device_emulator.ble.gatt`).

The stack is Bumble's, on the virtual air or on a real dongle. A packet is kept until the controller says that it is
across: a link that breaks loses none, as long as the backlog has room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Final

from bleak.exc import BleakError
from bumble import att, hci, smp
from bumble.att import Attribute
from bumble.core import UUID, AdvertisingData
from bumble.device import Connection
from bumble.device import Device as BluetoothDevice
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.keys import MemoryKeyStore
from bumble.profiles.battery_service import BatteryService
from bumble.profiles.device_information_service import DeviceInformationService

from device_emulator.ble import gatt
from device_emulator.ble.central import pairing, translated
from device_emulator.ble.gatt import Refusal, Settings, State, Upload, WriteError
from device_emulator.device import Device, Emission
from device_emulator.source import Block, Source
from protocol.messages import Config, SourceKind, now_ms
from protocol.packet import HEADER_BYTES, MAX_PAYLOAD_BYTES
from quantization.errors import ConnectError
from quantization.sensor import Sensor

logger = logging.getLogger(__name__)

BACKLOG: Final = 64
"""Packets that are kept while no link takes them: at 169 bytes 11 kB of RAM, about a minute."""
AT_A_TIME: Final = 4
"""Notifications handed to the controller before the link has to confirm: one connection event's worth."""
ADVERTISING_MS: Final = 100.0
POWER_OFF_S: Final = 2.0
_READ, _WRITE, _NOTIFY = (
    Characteristic.Properties.READ,
    Characteristic.Properties.WRITE,
    Characteristic.Properties.NOTIFY,
)
_READABLE, _WRITEABLE = Attribute.Permissions.READABLE, Attribute.Permissions.WRITEABLE
_WRITE_ENCRYPTED = _WRITEABLE | Attribute.Permissions.WRITE_REQUIRES_ENCRYPTION


class PausableSource:
    """A source whose samples are not taken while the device is switched off: a gap follows."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._gap_ms = 0
        self.sensor: Final[Sensor] = source.sensor
        self.rate_hz: Final[float] = source.rate_hz
        self.kind: Final[SourceKind] = source.kind
        self.labels: Final[tuple[str, ...]] = source.labels
        self.subject: Final[str] = source.subject

    def skip(self, gap_ms: int) -> None:
        """So much time passes before the next sample."""
        self._gap_ms += gap_ms

    def read(self, samples: int) -> Block:
        """See :class:`device_emulator.source.Source`."""
        block = self._source.read(samples)
        if self._gap_ms and len(block):
            block = replace(block, gap_ms=block.gap_ms + self._gap_ms)
            self._gap_ms = 0
        return block


class _SecurePairing(smp.Session):
    """Refuses pairing without a bond, and legacy pairing, whose keys can be had by listening.

    Bluetooth Core 5.4, Vol 3, Part H: 2.3.5.2 for how weak that is, 3.5.5 for how to refuse.
    """

    async def on_smp_pairing_request_command_async(self, command: smp.SMP_Pairing_Request_Command) -> None:
        """Go on with those that ask for both."""
        if command.auth_req & smp.AuthReq.SC and command.auth_req & smp.AuthReq.BONDING:
            await super().on_smp_pairing_request_command_async(command)
        else:
            self.send_pairing_failed(smp.ErrorCode.AUTHENTICATION_REQUIREMENTS)


class Wearable:
    """One wearable on the air.

    Args:
        device: what makes the packets; its source is a :class:`PausableSource`.
        radio: not powered on yet.
        open_stream: whoever connects may read the stream; False asks for an encrypted, bonded link there as well.
        battery: charge in %.
        speed: device seconds in a second.
        made: gets each packet as it is made, with the truth that does not go over the air.

    Raises:
        ProfileError: the profile has no room for what the device is, such as its full scale.

    Attributes:
        connected: whether a central is.
        packets_made: packets whose last sample has been taken.
        packets_sent: of these, across the link.
        dropped: of these, pushed out of the full backlog, or too long for a link with a smaller MTU.
        uploads: codebooks that came over the air and took effect.
        utc_ms: what a central has told us of the time; 0 before.
    """

    def __init__(
        self,
        device: Device,
        radio: BluetoothDevice,
        *,
        open_stream: bool = True,
        battery: int = 100,
        speed: float = 1.0,
        made: Callable[[Emission], None] = lambda _: None,
    ) -> None:
        if not isinstance(device.source, PausableSource):
            raise TypeError("a wearable's source has to be pausable")
        Settings.of(device, on=True)  # for its refusal
        self.device: Final = device
        self.radio: Final = radio
        self._source = device.source
        self._open_stream = open_stream
        self._battery = battery
        self._speed = speed
        self._made = made
        self.packets_made = 0
        self.packets_sent = 0
        self.dropped = 0
        self.uploads = 0
        self.utc_ms = 0
        self._on = asyncio.Event()
        self._on.set()
        self._running = True
        self._lost = asyncio.Event()  # the controller has gone
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection: Connection | None = None
        self._subscribed = False
        self._bonded = False
        self._state = State.IDLE
        self._upload = Upload()
        self._backlog: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._emptied = asyncio.Event()
        self._started = 0.0
        self._stream: Characteristic[bytes] = Characteristic(gatt.STREAM, _NOTIFY, _READABLE, b"")
        self._said: Characteristic[bytes] = Characteristic(
            gatt.STATE, _READ | _NOTIFY, _READABLE, CharacteristicValue(read=self._read_state)
        )
        radio.keystore = MemoryKeyStore()
        radio.smp_session_proxy = _SecurePairing
        radio.pairing_config_factory = pairing
        radio.add_services(self._services())
        radio.advertising_data = bytes(
            AdvertisingData(
                [
                    (AdvertisingData.Type.FLAGS, bytes([0x06])),  # general discoverable, no BR/EDR
                    (
                        AdvertisingData.Type.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS,
                        bytes(UUID(gatt.SERVICE)),
                    ),
                    # Beside a 128-bit UUID there is room for eight characters.
                    (AdvertisingData.Type.SHORTENED_LOCAL_NAME, device.device_id[-8:].encode()),
                ]
            )
        )
        radio.on("connection", self._on_connection)
        radio.host.on("flush", self._on_flush)
        self._stream.on(Characteristic.EVENT_SUBSCRIPTION, self._on_subscription)

    @property
    def connected(self) -> bool:
        """Whether a central is connected."""
        return self._connection is not None

    @property
    def state(self) -> State:
        """What the device does, and if not, why."""
        return self._state

    async def run(self) -> None:
        """Advertise, sample and stream until the source ends or cancelled.

        Raises:
            ConnectError: the controller has gone.
        """
        if not self.radio.powered_on:
            await self.switch_on()
        self._started = asyncio.get_running_loop().time()
        sending, sampling = asyncio.create_task(self._send()), asyncio.create_task(self._sample())
        losing = asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait({sampling, losing}, return_when=asyncio.FIRST_COMPLETED)
            if self._lost.is_set():
                raise ConnectError("the Bluetooth controller has gone")
            sampling.result()
        finally:
            for task in (sending, sampling, losing):
                task.cancel()
            await asyncio.gather(sending, sampling, losing, return_exceptions=True)
            with contextlib.suppress(BleakError, TimeoutError):  # a controller that has gone cannot be switched off
                async with asyncio.timeout(POWER_OFF_S):
                    await translated(self._switch_off())

    async def switch_on(self) -> None:
        """Come on the air; :meth:`run` does it if nobody has."""
        await self.radio.power_on()
        await self._advertise()

    async def _switch_off(self) -> None:
        """Leave the air: Bumble's own power_off would leave connections, and an advertisement that goes on."""
        connection, self._running = self._connection, False
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.radio.stop_advertising()
        if connection is not None:
            await connection.disconnect(hci.HCI_ErrorCode.REMOTE_DEVICE_TERMINATED_CONNECTION_DUE_TO_POWER_OFF_ERROR)
        await self.radio.power_off()

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def _sample(self) -> None:
        """Make packets until the source ends; then wait until a link that takes them has taken all."""
        loop = asyncio.get_running_loop()
        while (emission := self.device.next_packet()) is not None:
            await asyncio.sleep(max(0.0, self._started + emission.due_ms / 1000 / self._speed - loop.time()))
            self.packets_made += 1
            self._made(emission)
            self._backlog.append(emission.packet)
            self._emptied.clear()
            if len(self._backlog) > BACKLOG:
                self._backlog.popleft()
                self.dropped += 1
            self._wake.set()
            if not self._on.is_set():
                off_since = loop.time()
                await self._on.wait()
                self._source.skip(round(1000 * self._speed * (loop.time() - off_since)))
        if self._state == State.STREAMING:
            await self._emptied.wait()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._backlog and self._state == State.STREAMING and (connection := self._connection) is not None:
                if len(self._backlog[0]) > connection.att_mtu - gatt.ATT_HEADER_BYTES:  # made for a larger MTU
                    self._backlog.popleft()
                    self.dropped += 1
                    continue
                batch = [self._backlog[n] for n in range(min(AT_A_TIME, len(self._backlog)))]
                for packet in batch:
                    await self.radio.notify_subscriber(connection, self._stream, packet)
                queue = connection.data_packet_queue
                if queue is not None:
                    with contextlib.suppress(ValueError):  # the connection has gone between the two
                        await queue.drain(connection.handle)
                if self._connection is not connection:
                    break
                for packet in batch:
                    if self._backlog and self._backlog[0] is packet:
                        self._backlog.popleft()
                    else:  # the full backlog has let it go meanwhile, but it is across
                        self.dropped -= 1
                    self.packets_sent += 1
            if not self._backlog or self._connection is None:
                self._emptied.set()

    # -- the link -----------------------------------------------------------------------------------------------------

    def _on_flush(self) -> None:
        if self._running:  # else we have switched it off
            self._lost.set()

    def _on_connection(self, connection: Connection) -> None:
        self._connection = connection
        self._bonded = False
        connection.on(connection.EVENT_DISCONNECTION, self._on_disconnection)
        connection.on(connection.EVENT_CONNECTION_ATT_MTU_UPDATE, self._settle)
        connection.on(connection.EVENT_CONNECTION_ENCRYPTION_CHANGE, self._on_encryption)
        self._settle()

    def _on_disconnection(self, _reason: int) -> None:
        self._connection = None
        self._subscribed = False
        self._upload.cancel()
        self._settle()
        if self._running:
            self._spawn(self._advertise_again())

    async def _advertise(self) -> None:
        await self.radio.start_advertising(
            advertising_interval_min=ADVERTISING_MS, advertising_interval_max=ADVERTISING_MS
        )

    async def _advertise_again(self) -> None:
        with contextlib.suppress(BleakError):  # the controller has gone
            await translated(self._advertise())

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_subscription(self, _bearer: object, notify: bool, _indicate: bool) -> None:  # noqa: FBT001 - an event's
        self._subscribed = notify
        self._settle()

    def _on_encryption(self) -> None:
        self._spawn(self._check_bond())

    async def _check_bond(self) -> None:
        # The keys are stored a moment after the link is encrypted for the first time.
        connection = self._connection
        for _ in range(50):
            if connection is None or connection is not self._connection:
                return
            if await self._has_bond(connection):
                self._bonded = True
                self._settle()
                return
            await asyncio.sleep(0.02)

    async def _has_bond(self, connection: Connection) -> bool:
        """Whether the link is encrypted with the key of an LE Secure Connections bond."""
        keystore = self.radio.keystore
        if keystore is None or not connection.is_encrypted:
            return False
        keys = await keystore.get(str(connection.peer_address))
        # Legacy pairing has a key for each role; one for both is Secure Connections' (Vol 3, Part H, 2.4.4).
        return keys is not None and keys.ltk is not None

    def _settle(self) -> None:
        """Find out what the link allows, size packets by it, and tell."""
        connection = self._connection
        if connection is not None and connection.att_mtu >= gatt.MIN_MTU:
            room = connection.att_mtu - gatt.ATT_HEADER_BYTES - HEADER_BYTES
            self.device.limit_payload(min(room, MAX_PAYLOAD_BYTES))
        state = self._find_state(connection)
        if state != self._state:
            self._state = state
            if connection is not None:
                self._spawn(self._tell(connection))
        self._wake.set()

    def _find_state(self, connection: Connection | None) -> State:
        if not self._on.is_set():
            return State.SWITCHED_OFF
        if connection is None or not self._subscribed:
            return State.IDLE
        if connection.att_mtu < gatt.MIN_MTU:
            return State.MTU_TOO_SMALL
        if not self._open_stream and not self._bonded:
            return State.NOT_BONDED
        return State.STREAMING

    async def _tell(self, connection: Connection) -> None:
        await self.radio.notify_subscriber(connection, self._said, self._read_state(connection))

    # -- characteristics ----------------------------------------------------------------------------------------------

    def _services(self) -> list[Service]:
        ours = Service(
            gatt.SERVICE,
            [
                self._stream,
                Characteristic(
                    gatt.SETTINGS, _READ | _WRITE, _READABLE | _WRITE_ENCRYPTED,
                    CharacteristicValue(read=self._read_settings, write=self._write_settings),
                ),
                Characteristic(
                    gatt.UPLOAD, _WRITE, _WRITE_ENCRYPTED, CharacteristicValue(write=self._write_upload)
                ),
                Characteristic(
                    gatt.TIME, _READ | _WRITE, _READABLE | _WRITE_ENCRYPTED,
                    CharacteristicValue(read=self._read_time, write=self._write_time),
                ),
                self._said,
            ],
        )  # fmt: skip
        about = DeviceInformationService(
            manufacturer_name="gammawear", model_number="virtual wearable", serial_number=self.device.device_id
        )
        return [ours, BatteryService(lambda _: self._battery), about]

    def _read_state(self, connection: Connection) -> bytes:
        text = {
            State.MTU_TOO_SMALL: f"the ATT MTU is {connection.att_mtu}; at least {gatt.MIN_MTU} is needed to stream",
            State.NOT_BONDED: "pair first: this device streams to bonded centrals only",
            State.SWITCHED_OFF: "switched off by the configuration",
        }.get(self._state, "")
        return bytes([self._state]) + text.encode()

    def _settings(self) -> Settings:
        return Settings.of(self.device, on=self._on.is_set())

    def _read_settings(self, _connection: Connection) -> bytes:
        return bytes(self._settings())

    async def _write_settings(self, connection: Connection, value: bytes) -> None:
        await self._require_bond(connection)
        with _refusing():
            wanted, now = Settings.from_bytes(value), self._settings()
            if wanted.rate_hz != now.rate_hz:
                raise WriteError(Refusal.RATE, f"{wanted.rate_hz:g} Hz; this device has {now.rate_hz:g} Hz")
            if (wanted.acc_g, wanted.gyro_dps, wanted.adc_bits) != (now.acc_g, now.gyro_dps, now.adc_bits):
                raise WriteError(Refusal.FULL_SCALE, f"this device has ± {now.acc_g:g} g and ± {now.gyro_dps:g} °/s")
            if wanted.codebook not in (bytes(32), now.codebook):
                raise WriteError(Refusal.DIGEST, "another codebook has to be uploaded")
            if not self.device.apply_config(Config(axes=wanted.axes)):
                raise WriteError(Refusal.AXES, self.device.error or "")
            if wanted.on:
                self._on.set()
            else:
                self._on.clear()
            self._settle()

    async def _write_upload(self, connection: Connection, value: bytes) -> None:
        await self._require_bond(connection)
        with _refusing():
            codebook = self._upload.write(value)
            if codebook is None:
                return
            if not self.device.apply_config(Config.with_codebook(codebook)):
                raise WriteError(Refusal.CODEBOOK, self.device.error or "")
            self.uploads += 1

    def _read_time(self, _connection: Connection) -> bytes:
        elapsed = asyncio.get_running_loop().time() - self._started
        return gatt.time_value(round(1000 * self._speed * elapsed), now_ms() if self.utc_ms else 0)

    async def _write_time(self, connection: Connection, value: bytes) -> None:
        await self._require_bond(connection)
        with _refusing():
            self.utc_ms = gatt.read_time(value)[1]

    async def _require_bond(self, connection: Connection) -> None:
        if not await self._has_bond(connection):
            raise att.ATT_Error(att.ATT_INSUFFICIENT_AUTHENTICATION_ERROR)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn our refusals into ATT's."""
    try:
        yield
    except WriteError as error:
        logger.info("refused: %s", error)
        raise att.ATT_Error(error.refusal) from error
