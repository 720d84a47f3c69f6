"""bleak over our Bumble backend: scanning, connecting, values, and what goes wrong with links and controllers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ble_cable import Cable
from ble_stack import FAST, address_of, flying, new_wearable
from bleak import BleakClient, BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakCharacteristicNotFoundError, BleakError
from bumble import hci
from bumble.core import UUID, AdvertisingData
from bumble.device import Device as Radio
from stack import patient_devices, until, wrist6

from device_emulator.ble import central as central_module
from device_emulator.ble import gatt, peripheral
from device_emulator.ble.air import Air
from device_emulator.ble.bumble_backend import BumbleClient, BumbleScanner
from device_emulator.ble.central import Central
from device_emulator.ble.gatt import Settings, State
from device_emulator.ble.profiles.base import short_uuid
from models.bundle import Bundle
from quantization.errors import ConnectError

__all__ = ["patient_devices", "wrist6"]

BATTERY, SERIAL = short_uuid(0x2A19), short_uuid(0x2A25)
SLACK_S = 3.0
"""What a busy machine adds to a deadline."""


def scanner_of(central: Central, found: Callable[[BLEDevice, AdvertisementData], None], *services: str) -> BleakScanner:
    return BleakScanner(found, service_uuids=list(services) or None, backend=BumbleScanner, central=central)


def client_of(central: Central, device: BLEDevice | str, *, timeout: float = 30.0, **more: Any) -> BleakClient:
    return BleakClient(device, backend=BumbleClient, central=central, timeout=timeout, **more)


def advertise(radio: Radio, service: str, name: str) -> None:
    radio.advertising_data = bytes(
        AdvertisingData(
            [
                (AdvertisingData.Type.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS, bytes(UUID(service))),
                (AdvertisingData.Type.SHORTENED_LOCAL_NAME, name.encode()),
            ]
        )
    )


async def within(seconds: float, work: Awaitable[Any]) -> float:
    """How long it took, and fail if that was too long."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(seconds + SLACK_S):
        await work
    return loop.time() - began


async def fails(work: Awaitable[Any], match: str | None = None) -> None:
    with pytest.raises(BleakError, match=match):
        await work


@contextlib.asynccontextmanager
async def connected(air: Air, wearable: Any) -> AsyncIterator[BleakClient]:
    async with (
        flying(air, wearable) as spec,
        Central.open(spec) as central,
        client_of(central, address_of(1)) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def cabled(air: Air, *wearables: Any) -> AsyncIterator[tuple[Cable, Central]]:
    async with flying(air, *wearables) as spec:
        cable = Cable(int(spec.rsplit(":", 1)[1]))
        async with cable.laid() as spec, Central.open(spec) as central:
            yield cable, central


# -- scanning ---------------------------------------------------------------------------------------------------------


async def test_scanners_hear_what_they_ask_for(wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1)
    stranger = air.host("stranger", address_of(2))
    advertise(stranger, "12345678-1234-1234-1234-123456789abc", "stranger")
    ours: dict[str, AdvertisementData] = {}
    everybody: dict[str, AdvertisementData] = {}

    def into(heard: dict[str, AdvertisementData]) -> Callable[[BLEDevice, AdvertisementData], None]:
        return lambda device, data: heard.update({device.address: data})

    async with flying(air, wearable) as spec, Central.open(spec) as central:
        await stranger.power_on()
        await stranger.start_advertising(advertising_interval_min=50, advertising_interval_max=50)
        first = scanner_of(central, into(ours), gatt.SERVICE)
        async with scanner_of(central, into(everybody)):
            async with first:
                await until(lambda: set(everybody) == {address_of(1), address_of(2)} and ours)
            assert not central.device.is_scanning or everybody, "the other scanner goes on"
            everybody.clear()
            await until(lambda: len(everybody) == 2)
        assert not central.device.is_scanning
    assert set(ours) == {address_of(1)}
    data = ours[address_of(1)]
    assert (data.local_name, data.service_uuids, data.rssi) == ("ble-1", [gatt.SERVICE], -50)
    assert first.discovered_devices[0].name == "ble-1"
    assert everybody[address_of(2)].service_uuids == ["12345678-1234-1234-1234-123456789abc"]


async def test_the_kind_of_an_address_is_kept() -> None:
    """A device with a public address answers to no random one of the same digits."""
    air = Air(FAST)
    radio = air.host("public", address_of(3))
    advertise(radio, gatt.SERVICE, "public")
    public = hci.Address("11:22:33:44:55:66", hci.Address.PUBLIC_DEVICE_ADDRESS)
    air._controllers[address_of(3)].public_address = public
    found: list[BLEDevice] = []
    async with flying(air) as spec, Central.open(spec) as central:
        await radio.power_on()
        await radio.start_advertising(own_address_type=hci.OwnAddressType.PUBLIC)
        async with scanner_of(central, lambda device, _: found.append(device)):
            await until(lambda: found)
        assert found[0].address == "11:22:33:44:55:66"
        assert found[0].details.is_public
        with pytest.raises(BleakError, match="did not answer"):
            await central.connect(hci.Address("11:22:33:44:55:66"), 0.5)
        connection = await central.connect(found[0].details, 5.0)
        assert connection.peer_address.is_public
        await radio.power_off()


# -- connecting -------------------------------------------------------------------------------------------------------


async def test_connecting_to_an_absent_device_ends_in_time_as_often_as_one_likes(wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1)
    async with flying(air, wearable) as spec, Central.open(spec) as central:
        for _ in range(3):
            absent = client_of(central, address_of(9), timeout=0.5)
            assert await within(0.5, fails(absent.connect(), "did not answer within 0.5 s")) >= 0.5
            assert not absent.is_connected
        async with client_of(central, address_of(1)) as client:
            assert client.is_connected
        # Several at once take turns; one that is there waits for those that are not, and no longer.
        ghosts = [client_of(central, address_of(n), timeout=0.5) for n in (9, 10, 11)]
        waiting = [asyncio.create_task(fails(ghost.connect())) for ghost in ghosts]
        present = client_of(central, address_of(1))
        await within(3 * 0.5, present.connect())
        assert present.is_connected
        await asyncio.gather(*waiting)
        await present.disconnect()


async def test_a_connection_attempt_that_is_cancelled_frees_the_controller(wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1)
    async with flying(air, wearable) as spec, Central.open(spec) as central:
        attempt = asyncio.create_task(client_of(central, address_of(9)).connect())
        await asyncio.sleep(0.1)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        async with client_of(central, address_of(1)) as client:
            assert client.is_connected


async def test_a_connection_that_comes_when_nobody_wants_it_any_more_is_ended(wrist6: Bundle) -> None:
    """Or the wearable would be connected to nobody, and advertise no more."""
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1)
    made, given_up = 0, 0
    async with flying(air, wearable) as spec, Central.open(spec) as central:
        for step in range(24):
            connecting = asyncio.create_task(central.connect(hci.Address(address_of(1)), 5.0))
            await asyncio.sleep(0.01 * step)
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                connection = await connecting
                made += 1
                await connection.disconnect()
            given_up += connecting.cancelled()
            await until(lambda: not wearable.connected, within_s=5.0)
            assert central.device.connections == {}
        async with client_of(central, address_of(1)) as client:
            assert client.is_connected
    assert given_up > 0, made


async def test_a_link_that_is_lost_while_it_is_made_is_an_error(wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1)
    async with flying(air, wearable) as spec, Central.open(spec) as central:
        wearable.radio.on("connection", lambda _: air.drop(address_of(1)))
        await within(5.0, fails(client_of(central, address_of(1), timeout=5.0).connect()))
        wearable.radio.remove_all_listeners("connection")
        wearable.radio.on("connection", wearable._on_connection)
        async with client_of(central, address_of(1)) as client:
            assert client.is_connected


# -- values -----------------------------------------------------------------------------------------------------------


async def test_values_are_read_written_and_notified(wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1, battery=71)
    heard: list[bytes] = []
    async with flying(air, wearable) as spec, Central.open(spec) as central:
        client = client_of(central, address_of(1))
        assert not client.is_connected
        await fails(client.read_gatt_char(BATTERY))
        async with client:
            assert client.mtu_size == 247
            assert client.name == address_of(1)
            assert {one.uuid for one in client.services} >= {gatt.SERVICE, short_uuid(0x180F), short_uuid(0x180A)}
            stream = client.services.get_characteristic(gatt.STREAM)
            assert stream is not None
            assert stream.properties == ["notify"]
            assert stream.max_write_without_response_size == 244
            assert await client.read_gatt_char(BATTERY) == bytes([71])
            assert await client.read_gatt_char(SERIAL) == b"ble-1"
            assert Settings.from_bytes(bytes(await client.read_gatt_char(gatt.SETTINGS))).on
            (switch,) = stream.descriptors
            assert await client.read_gatt_descriptor(switch.handle) == b"\0\0"
            await client.start_notify(stream, lambda _, data: heard.append(bytes(data)))
            assert await client.read_gatt_descriptor(switch.handle) == b"\1\0"
            await until(lambda: len(heard) >= 3)
            assert wearable.state == State.STREAMING
            await client.stop_notify(stream)
            count, sent = len(heard), wearable.packets_sent
            assert count == sent, "none was under way and dropped"
            assert await client.read_gatt_descriptor(switch.handle) == b"\0\0"
            made = wearable.packets_made
            await until(lambda: wearable.packets_made >= made + 3)
            assert len(heard) == count
            await client.start_notify(stream, lambda _, data: heard.append(bytes(data)))
            await until(lambda: len(heard) >= count + 3)
            await fails(client.write_gatt_char(gatt.SETTINGS, b"x", response=True), "0x0F")
            with pytest.raises(BleakCharacteristicNotFoundError):
                await client.read_gatt_char("00002a37-0000-1000-8000-00805f9b34fb")
        assert not client.is_connected
        await fails(client.read_gatt_char(BATTERY))


async def test_no_notification_is_dropped_while_a_client_unsubscribes(wrist6: Bundle) -> None:
    """The wearable holds them for delivered, and would not send them again."""
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1, speed=150.0)
    heard: list[bytes] = []
    async with connected(air, wearable) as client:
        for _ in range(5):
            await client.start_notify(gatt.STREAM, lambda _, data: heard.append(bytes(data)))
            count = len(heard)
            await until(lambda n=count: len(heard) >= n + 20)  # type: ignore[misc]
            await client.stop_notify(gatt.STREAM)
            await until(lambda: wearable.state == State.IDLE)
            assert len(set(heard)) >= wearable.packets_sent


async def test_a_packet_that_leaves_the_full_backlog_on_its_way_counts_once(
    wrist6: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peripheral, "BACKLOG", 4)
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1, speed=2000.0)
    async with connected(air, wearable) as client:
        await client.start_notify(gatt.STREAM, lambda _, __: None)
        await until(lambda: wearable.packets_sent >= 100)
        waiting = len(wearable._backlog)
        assert wearable.packets_made == wearable.packets_sent + wearable.dropped + waiting


async def test_an_answer_to_a_request_that_was_cancelled_is_nobody_elses(wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1, battery=71)
    async with connected(air, wearable) as client:
        for step in range(30):
            reading = asyncio.create_task(client.read_gatt_char(SERIAL))
            await asyncio.sleep(0.001 * step)
            reading.cancel()
            assert await client.read_gatt_char(BATTERY) == bytes([71])
            with contextlib.suppress(asyncio.CancelledError):
                assert await reading == b"ble-1"


# -- the end of links -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["drop", "fade", "power off"])
async def test_the_end_of_a_link_is_told_and_ends_what_waits(wrist6: Bundle, how: str) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1)
    told: list[BleakClient] = []
    async with flying(air) as spec, Central.open(spec) as central:
        worn = asyncio.create_task(wearable.run())
        client = client_of(central, address_of(1), disconnected_callback=told.append)
        await client.connect()
        if how != "power off":
            air.silence(address_of(1))  # so that the answer does not come before the end
        reading = asyncio.create_task(client.read_gatt_char(BATTERY))
        writing = asyncio.create_task(client.write_gatt_char(gatt.TIME, bytes(12), response=True))
        await asyncio.sleep(0.05)
        if how == "drop":
            air.drop(address_of(1))
        elif how == "fade":
            air.fade(address_of(1))
        else:
            worn.cancel()
        ended = await asyncio.wait_for(asyncio.gather(reading, writing, return_exceptions=True), 5.0 + SLACK_S)
        if how != "power off":
            assert [type(one) for one in ended] == [BleakError, BleakError]
        await until(lambda: told)
        assert told == [client]
        assert not client.is_connected
        for work in (
            client.read_gatt_char(BATTERY),
            client.write_gatt_char(gatt.TIME, bytes(12), response=True),
            client.start_notify(gatt.STREAM, lambda _, __: None),
            client.stop_notify(gatt.STREAM),
            client.pair(),
        ):
            await within(0.0, fails(work))
        await within(0.0, client.disconnect())
        assert told == [client], "once"
        worn.cancel()
        await asyncio.gather(worn, return_exceptions=True)


async def test_a_wearable_that_ends_leaves_the_air(wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1)
    heard: list[str] = []
    async with flying(air) as spec, Central.open(spec) as central:
        worn = asyncio.create_task(wearable.run())
        client = client_of(central, address_of(1))
        await client.connect()
        worn.cancel()
        await asyncio.gather(worn, return_exceptions=True)
        await until(lambda: not client.is_connected)
        async with scanner_of(central, lambda device, _: heard.append(device.address)):
            await asyncio.sleep(0.5)
    assert heard == []


# -- the controller ---------------------------------------------------------------------------------------------------


async def test_a_controller_that_dies_ends_everything_at_once(wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1)
    told: list[BleakClient] = []
    async with cabled(air, wearable) as (cable, central):
        client = client_of(central, address_of(1), disconnected_callback=told.append)
        await client.connect()
        scanner = scanner_of(central, lambda _, __: None)
        await scanner.start()
        air.silence(address_of(1))
        reading = asyncio.create_task(client.read_gatt_char(BATTERY))
        connecting = asyncio.create_task(client_of(central, address_of(9)).connect())
        waiting = asyncio.create_task(client_of(central, address_of(10)).connect())
        await asyncio.sleep(0.1)
        assert not central.lost.is_set()
        cable.pull()
        ended = await asyncio.wait_for(asyncio.gather(reading, connecting, waiting, return_exceptions=True), SLACK_S)
        assert all(isinstance(one, BleakError) for one in ended), ended
        assert central.lost.is_set()
        assert told == [client]
        assert not client.is_connected
        await within(0.0, client.disconnect())
        await within(0.0, scanner.stop())
        await within(0.0, fails(client_of(central, address_of(1)).connect()))


async def test_a_controller_that_hangs_counts_as_lost(wrist6: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(central_module, "COMMAND_S", 0.5)
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, 1)
    async with cabled(air, wearable) as (cable, central):
        cable.hung = True
        await within(1.0, fails(client_of(central, address_of(1), timeout=0.5).connect()))
        assert central.lost.is_set()


@pytest.mark.parametrize("text", ["{", "[]", '{"gammawear": {"C0:00:00:00:00:01": {"ltk": {"value": "no"}}}}'])
async def test_bonds_that_cannot_be_read_are_not_the_controllers_fault(tmp_path: Path, text: str) -> None:
    bonds = tmp_path / "bonds.json"
    bonds.write_text(text)
    async with flying(Air(FAST)) as spec:
        with pytest.raises(ConnectError, match=r"the bonds in .*bonds.json cannot be read: "):
            async with Central.open(spec, bonds=str(bonds)):
                pass
        bonds.unlink()
        async with Central.open(spec, bonds=str(bonds)):
            pass


async def test_where_no_controller_answers_a_central_says_so(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setattr(central_module, "OPEN_S", 0.5)

    async def opened(spec: str) -> None:
        with pytest.raises(ConnectError, match=r"no Bluetooth controller|does not answer"):
            async with Central.open(spec):
                pass

    await within(0.5, opened(f"tcp-client:127.0.0.1:{free_port}"))
    for spec in ("nonsense:", "file", "usb"):  # the last two without what they need, which Bumble asserts
        await within(0.5, opened(spec))
    air = Air(FAST)
    async with flying(air) as spec, Central.open(spec):
        await within(0.5, opened(spec))  # it has a host already
    for plugged in (True, False):
        async with flying(Air(FAST)) as spec:
            cable = Cable(int(spec.rsplit(":", 1)[1]))
            cable.hung, cable.plugged = True, plugged
            async with cable.laid() as spec:
                await within(0.5, opened(spec))
