"""Configuration of a virtual wearable over the air: codebook upload, settings, bonds, MTU, who may read the stream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from ble_stack import FAST, address_of, bridging, flying, new_wearable, runs
from bleak import BleakClient
from bleak.exc import BleakError
from bumble.pairing import PairingConfig
from factories import codebook
from stack import (
    Listener,
    new_gateway,
    patient_devices,
    serving,
    until,
    wrist6,
)

from device_emulator.ble import bumble_backend, gatt
from device_emulator.ble.air import Air
from device_emulator.ble.bumble_backend import BumbleClient
from device_emulator.ble.central import Central
from device_emulator.ble.gatt import Settings, State, upload_writes
from device_emulator.ble.peripheral import PausableSource, Wearable
from device_emulator.device import Device, shared_encoder
from device_emulator.synthetic import SyntheticSource
from models.bundle import Bundle, load_bundle
from protocol.messages import Status
from protocol.packet import Packet
from protocol.topics import Kind, topic
from quantization.codebook import Codebook
from quantization.errors import ProfileError
from quantization.imu import ACC
from quantization.sensor import Sensor

__all__ = ["patient_devices", "wrist6"]

NO_ENCRYPTION = "0x0F, INSUFFICIENT_ENCRYPTION"


@contextlib.asynccontextmanager
async def central_of(hci: str, *, address: str = "F0:00:00:00:00:0A", **pairing: Any) -> AsyncIterator[Central]:
    async with Central.open(hci, address=address) as central:
        if pairing:
            config = PairingConfig(**{"sc": True, "mitm": False, "bonding": True, **pairing})
            central.device.pairing_config_factory = lambda _: config
        yield central


def client_of(central: Central, number: int = 1) -> BleakClient:
    return BleakClient(address_of(number), backend=BumbleClient, central=central, timeout=30.0)


async def write_all(client: BleakClient, writes: list[bytes], characteristic: str = gatt.UPLOAD) -> None:
    for data in writes:
        await client.write_gatt_char(characteristic, data, response=True)


async def settings_of(client: BleakClient) -> Settings:
    return Settings.from_bytes(bytes(await client.read_gatt_char(gatt.SETTINGS)))


def collector(into: list[bytes]) -> Callable[[Any, bytearray], None]:
    return lambda _, data: into.append(bytes(data))


async def refused(client: BleakClient, writes: list[bytes], error: str, characteristic: str = gatt.UPLOAD) -> None:
    """All but the last of the writes are taken, the last one is refused."""
    await write_all(client, writes[:-1], characteristic)
    with pytest.raises(BleakError, match=error):
        await client.write_gatt_char(characteristic, writes[-1], response=True)


@pytest.fixture(scope="module")
def other(wrist6: Bundle) -> Codebook:
    return codebook(wrist6.codebook.channels, rate_hz=wrist6.manifest.rate_hz)


# -- upload -----------------------------------------------------------------------------------------------------------


async def test_a_good_codebook_takes_effect_at_once_between_two_packets(wrist6: Bundle, other: Codebook) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    heard: list[bytes] = []
    async with flying(air, wearable) as hci, central_of(hci) as central, client_of(central) as client:
        await client.start_notify(gatt.STREAM, collector(heard))
        await until(lambda: len(heard) >= 3)
        await client.pair()
        *steps, commit = upload_writes(other, 180)
        await write_all(client, steps)
        assert (await settings_of(client)).codebook == wrist6.codebook.digest, "nothing before the commit"
        await write_all(client, [commit])
        count = len(heard)
        await until(lambda: len(heard) >= count + 5)
        assert (await settings_of(client)).codebook == other.digest
    assert wearable.uploads == 1
    digests = [Packet.from_bytes(data).short_digest for data in heard]
    switch = digests.index(other.digest[:4])
    assert digests == [wrist6.codebook.digest[:4]] * switch + [other.digest[:4]] * (len(digests) - switch)
    sequences = [Packet.from_bytes(data).sequence for data in heard]
    assert sequences == list(range(len(sequences))), "and no packet is missing"


@pytest.mark.parametrize("how", ["link", "disconnect", "cancel"])
async def test_an_upload_that_is_interrupted_leaves_the_old_codebook(wrist6: Bundle, other: Codebook, how: str) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    steps = upload_writes(other, 100)
    half = len(steps) // 2
    async with flying(air, wearable) as hci, central_of(hci) as central:
        async with client_of(central) as client:
            await client.pair()
            await write_all(client, steps[:half])
            if how == "link":
                air.drop(address_of(1))
                await until(lambda: not client.is_connected)
            elif how == "cancel":
                await write_all(client, [b"\x00"])
                await refused(client, [steps[half]], "0x85")
        await runs(wearable, wrist6.codebook)
        async with client_of(central) as client:
            await client.pair()
            await refused(client, [steps[half]], "0x85")  # it does not go on where it ended
            await refused(client, steps[-1:], "0x85")
            await write_all(client, steps)
        await runs(wearable, other)
    assert wearable.uploads == 1


async def test_a_bad_codebook_is_refused(wrist6: Bundle, other: Codebook) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    steps = upload_writes(other, 180)
    spoiled = bytearray(steps[1])
    spoiled[50] ^= 1
    of_another_rate = codebook(wrist6.codebook.channels, rate_hz=100.0)
    of_other_channels = load_bundle("wrist3").codebook
    async with flying(air, wearable) as hci, central_of(hci) as central, client_of(central) as client:
        await client.pair()
        await refused(client, [steps[0], bytes(spoiled), *steps[2:]], "0x86")
        await refused(client, upload_writes(of_another_rate, 180), "0x84")
        await refused(client, upload_writes(of_other_channels, 180), "0x84")
        await refused(client, [steps[0], steps[-1]], "0x85")
        await refused(client, [b"\xff" * 20], "0x80")
        await refused(client, [b"\x01" + b"\xff" * 36], "0x87")
        await runs(wearable, wrist6.codebook)
        assert wearable.uploads == 0
        await write_all(client, steps)
        await runs(wearable, other)


# -- who may write ----------------------------------------------------------------------------------------------------


async def all_refused(client: BleakClient, book: Codebook, error: str) -> None:
    now = await settings_of(client)
    for characteristic, data in (
        (gatt.UPLOAD, upload_writes(book, 180)[0]),
        (gatt.SETTINGS, bytes(now.changed(on=False))),
        (gatt.TIME, gatt.time_value(0, 1)),
    ):
        await refused(client, [data], error, characteristic)


async def test_without_encryption_nothing_is_written(wrist6: Bundle, other: Codebook) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    async with flying(air, wearable) as hci, central_of(hci) as central:
        async with client_of(central) as client:
            await all_refused(client, other, NO_ENCRYPTION)
            await client.pair()
            await write_all(client, [gatt.time_value(0, 1_790_000_000_000)], gatt.TIME)
        assert wearable.utc_ms == 1_790_000_000_000
        # The bond alone is not enough: somebody else may use the central's address.
        async with client_of(central) as client:
            await all_refused(client, other, NO_ENCRYPTION)
        await runs(wearable, wrist6.codebook)
    assert (wearable.uploads, wearable.state) == (0, State.IDLE)


async def test_without_a_bond_nothing_is_written(wrist6: Bundle, other: Codebook) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    async with (
        flying(air, wearable) as hci,
        central_of(hci, bonding=False) as central,
        client_of(central) as client,
    ):
        with pytest.raises(BleakError, match="AUTHENTICATION_REQUIREMENTS"):
            await client.pair()
        await all_refused(client, other, NO_ENCRYPTION)
        await runs(wearable, wrist6.codebook)


async def test_legacy_pairing_is_refused(wrist6: Bundle, other: Codebook) -> None:
    """Whoever has listened to it has its key."""
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    async with flying(air, wearable) as hci, central_of(hci, sc=False) as central, client_of(central) as client:
        with pytest.raises(BleakError, match="AUTHENTICATION_REQUIREMENTS"):
            await client.pair()
        await all_refused(client, other, NO_ENCRYPTION)
        await runs(wearable, wrist6.codebook)
    assert wearable.radio.keystore is not None
    assert await wearable.radio.keystore.get_all() == []


async def test_a_bond_lasts_and_one_that_the_wearable_has_forgotten_is_made_anew(wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    keystore = wearable.radio.keystore
    assert keystore is not None
    async with flying(air, wearable) as hci, central_of(hci) as central:
        for _ in range(2):
            async with client_of(central) as client:
                await client.pair()
                await write_all(client, [gatt.time_value(0, 1)], gatt.TIME)
            ((name, keys),) = await keystore.get_all()
            await keystore.update(name, keys)
        async with client_of(central) as client:
            await client.pair()
            assert await keystore.get_all() == [(name, keys)], "the same one"
        await keystore.delete(name)
        async with client_of(central) as client:
            with pytest.raises(BleakError):
                await client.pair()
        async with client_of(central) as client:
            await client.pair()
            await write_all(client, [gatt.time_value(0, 2)], gatt.TIME)
    assert wearable.utc_ms == 2


async def test_a_stream_that_is_not_open_waits_for_a_bond(wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, open_stream=False)
    heard: list[bytes] = []
    states: list[bytes] = []
    async with flying(air, wearable) as hci, central_of(hci) as central:
        async with client_of(central) as client:
            await client.start_notify(gatt.STATE, collector(states))
            await client.start_notify(gatt.STREAM, collector(heard))
            await until(lambda: states)
            assert states[-1][0] == State.NOT_BONDED
            assert b"pair" in states[-1]
            await runs(wearable, wrist6.codebook)
            assert heard == []
            await client.pair()
            await until(lambda: len(heard) >= 3)
            assert states[-1][0] == State.STREAMING
        async with client_of(central) as client:  # each link anew
            heard.clear()
            await client.start_notify(gatt.STREAM, collector(heard))
            await runs(wearable, wrist6.codebook)
            assert heard == []


# -- settings ---------------------------------------------------------------------------------------------------------


async def test_what_the_settings_cannot_change_is_refused(wrist6: Bundle, other: Codebook) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)

    def with_(at: int, data: bytes, now: Settings) -> bytes:
        value = bytearray(bytes(now.changed()))
        value[at : at + len(data)] = data
        return bytes(value)

    async with flying(air, wearable) as hci, central_of(hci) as central, client_of(central) as client:
        now = await settings_of(client)
        assert (now.on, now.rate_hz, now.acc_g, now.gyro_dps) == (True, wrist6.manifest.rate_hz, 8.0, 2000.0)
        assert (now.axes, now.adc_bits, now.codebook, now.source) == (
            (1, 2, 3), 12, wrist6.codebook.digest, "synthetic",
        )  # fmt: skip
        await client.pair()
        for value, error in (
            (with_(2, (100_000).to_bytes(4, "little"), now), "0x81"),
            (with_(6, (2000).to_bytes(2, "little"), now), "0x82"),
            (with_(8, (250).to_bytes(2, "little"), now), "0x82"),
            (with_(10, b"\x01\x01\x03", now), "0x83"),
            (with_(10, b"\x00\x02\x03", now), "0x83"),
            (with_(16, other.digest, now), "0x86"),
            (bytes(now)[:-1], "0x80"),
        ):
            await refused(client, [value], error, gatt.SETTINGS)
        assert await settings_of(client) == now
        await write_all(client, [bytes(now.changed(axes=(-2, 1, 3)))], gatt.SETTINGS)
        await runs(wearable, wrist6.codebook)
        assert (await settings_of(client)).axes == (-2, 1, 3)
        assert wearable.device.axes.entries == (-2, 1, 3)


async def test_switched_off_and_on_again_leaves_a_gap_and_loses_nothing(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    gateway = new_gateway(mosquitto.settings)
    loop = asyncio.get_running_loop()
    states: list[bytes] = []
    heard: list[Packet] = []
    async with flying(air, wearable) as hci, central_of(hci) as central, client_of(central) as client:
        await client.start_notify(gatt.STATE, collector(states))
        await client.start_notify(gatt.STREAM, lambda _, data: heard.append(Packet.from_bytes(bytes(data))))
        await until(lambda: len(heard) >= 3)
        await client.pair()
        now = await settings_of(client)
        await write_all(client, [bytes(now.changed(on=False))], gatt.SETTINGS)
        await until(lambda: states[-1][0] == State.SWITCHED_OFF)
        assert b"switched off" in states[-1]
        assert not (await settings_of(client)).on
        made = wearable.packets_made
        began = loop.time()
        await asyncio.sleep(1.0)
        assert wearable.packets_made <= made + 1, "what was being sampled"
        await write_all(client, [bytes(now.changed(on=True))], gatt.SETTINGS)
        off_ms = 8 * 1000 * (loop.time() - began)
        count = len(heard)
        await until(lambda: len(heard) >= count + 5)
        assert states[-1][0] == State.STREAMING
    assert [one.sequence for one in heard] == list(range(len(heard)))
    period_ms = 1000 / wrist6.manifest.rate_hz
    gaps = [after.tick_ms - before.tick_ms - before.samples * period_ms for before, after in itertools.pairwise(heard)]
    assert [gap for gap in gaps if abs(gap) > 1] == [max(gaps)]
    assert 0.4 * off_ms < max(gaps) <= off_ms + 1000
    # The same for a gateway: a gap in the samples, no packet lost.
    async with serving(gateway), Listener(mosquitto.settings, topic("ble-1", Kind.STATUS)) as listener:
        for one in heard:
            listener.connection.publish(topic("ble-1", Kind.IMU), bytes(one), qos=1)
        await until(lambda: gateway.pipeline.losses.accepted == len(heard))
        assert gateway.pipeline.losses.lost == 0
        assert gateway.pipeline.flushes.total() == 1


async def test_a_wearable_of_a_full_scale_that_the_profile_has_no_room_for_is_refused() -> None:
    part = Sensor.symmetric("± 200 g", ACC, adc_bits=16, full_scale={"acc": 200.0})
    source = PausableSource(SyntheticSource(part, rate_hz=20.0, seed=1, wearer="wisdm"))
    device = Device("ble-1", source, shared_encoder(codebook(ACC, rate_hz=20.0), part))
    with pytest.raises(ProfileError, match=r"± 200 g.*room for ± 65.535 g"):
        Wearable(device, Air(FAST).host("ble-1", address_of(1)))


# -- MTU --------------------------------------------------------------------------------------------------------------


async def test_below_an_mtu_of_100_a_wearable_says_why_it_does_not_stream(
    mosquitto: Any, wrist6: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bumble_backend, "MTU", 50)
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    statuses = Listener(mosquitto.settings, topic("ble-1", Kind.STATUS))
    async with statuses, flying(air, wearable) as hci:
        async with bridging(mosquitto.settings, hci, no_data_s=0.5) as bridge:
            await until(lambda: statuses.heard and Status.parse(statuses.heard[-1].payload).error)
            status = Status.parse(statuses.heard[-1].payload)
            assert status.state == "online"
            assert status.error is not None
            assert "MTU is 50; at least 100" in status.error
            made = wearable.packets_made
            await until(lambda: wearable.packets_made >= made + 8)
            follower = bridge.followers[address_of(1)]
            assert (follower.watchdog_kicks, follower.connections) == (0, 1), "it says why it is silent"
            assert wearable.packets_sent == 0
        assert wearable.state == State.IDLE
        monkeypatch.setattr(bumble_backend, "MTU", 100)
        async with bridging(mosquitto.settings, hci) as bridge:
            await until(lambda: wearable.packets_sent >= 3)
            assert Status.parse(statuses.heard[-1].payload).error is None


async def test_packets_that_a_smaller_mtu_has_no_room_for_are_not_cut_off(wrist6: Bundle) -> None:
    air = Air(FAST)
    # At 4 bits without a coder, four seconds of six channels are 150 bytes.
    book = codebook(wrist6.codebook.channels, rate_hz=wrist6.manifest.rate_hz)
    source = new_wearable(air, wrist6).device.source
    device = Device("ble-1", source, shared_encoder(book, source.sensor), packet_s=4.0)
    wearable = Wearable(device, air.host("ble-1", address_of(1)), speed=16.0)
    heard: list[bytes] = []
    sizes: dict[int, set[int]] = {}
    async with flying(air, wearable) as hci, central_of(hci) as central:
        for mtu in (247, 100, 247):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(bumble_backend, "MTU", mtu)
                async with client_of(central) as client:
                    heard.clear()
                    await client.start_notify(gatt.STREAM, collector(heard))
                    await until(lambda: len(heard) >= 5)
                    sizes.setdefault(mtu, set()).update(map(len, heard))
                    for data in heard:
                        Packet.from_bytes(data)  # whole
                made = wearable.packets_made
                await until(lambda n=made: wearable.packets_made >= n + 2)  # type: ignore[misc]
    assert max(sizes[247]) > 97 >= max(sizes[100])
    assert wearable.dropped >= 2, "made for 247, due at 100"
