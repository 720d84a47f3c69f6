"""What goes wrong with radios and wearables, each in the middle of a stream; adapters, brokers and bridges are in
``test_ble_outages.py``.

Wearables on the virtual air, Bumble's stack, bleak, the bridge, a real mosquitto, a gateway. After each fault the
stream has to go on by itself within a stated time, and what the gateway counts as lost has to be what the fault
destroyed.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ble_recovery import (
    ATTEMPT_S,
    KICKS_S,
    NO_DATA_S,
    RECONNECTS_S,
    Meddled,
    accepted,
    goes_on,
    lost,
    online,
    streaming,
    worn,
)
from ble_stack import FAST, address_of, another_bundle, bridging, flying, new_wearable
from bumble.core import UUID, AdvertisingData
from bumble.device import Connection
from stack import Listener, new_gateway, note, patient_devices, serving, until, wrist6

from device_emulator.ble import bridge as bridge_module
from device_emulator.ble import follower, gatt
from device_emulator.ble.air import Air
from device_emulator.ble.peripheral import Wearable
from device_emulator.device import Device, shared_encoder
from models.bundle import SHIPPED, Bundle
from protocol.messages import Status
from protocol.topics import Kind, topic

__all__ = ["patient_devices", "wrist6"]


# -- links ------------------------------------------------------------------------------------------------------------


async def test_a_link_that_drops_comes_back(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    first, second = wearables = [new_wearable(air, wrist6, n) for n in (1, 2)]
    async with streaming(mosquitto, air, *wearables) as (bridge, gateway):
        one, other = (bridge.followers[address_of(n)] for n in (1, 2))
        for round_ in range(3):
            dropped = asyncio.get_running_loop().time()
            air.drop(one.address)
            await until(lambda n=round_: one.connections == n + 2)  # type: ignore[misc]
            await goes_on(gateway, *wearables, within_s=RECONNECTS_S, since=dropped)
        assert (one.connections, other.connections) == (4, 1)
        assert (one.watchdog_kicks, other.watchdog_kicks) == (0, 0)
    assert (lost(gateway, first), lost(gateway, second)) == (first.dropped, second.dropped) == (0, 0)


async def test_a_wearable_that_walks_out_of_range_is_back_when_it_returns(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    stays, walks = wearables = [new_wearable(air, wrist6, n, speed=4.0) for n in (1, 2)]
    async with streaming(mosquitto, air, *wearables) as (bridge, gateway):
        one = bridge.followers[address_of(2)]
        air.fade(one.address)
        await until(lambda: online(gateway) == {"ble-1": True, "ble-2": False})
        assert not walks.connected
        assert one.state == "waiting"
        assert one.error is not None
        made = walks.packets_made
        await until(lambda: walks.packets_made >= made + 8)
        assert one.connections == 1
        air.hear(one.address)
        await goes_on(gateway, *wearables, within_s=RECONNECTS_S)
        await until(lambda: online(gateway) == {"ble-1": True, "ble-2": True})
        assert one.error is None
        assert bridge.followers[address_of(1)].connections == 1
    assert (lost(gateway, stays), lost(gateway, walks)) == (stays.dropped, walks.dropped)
    assert stays.dropped == 0


@pytest.mark.parametrize("returns_early", [True, False])
async def test_a_silent_link_without_a_word_is_given_up(mosquitto: Any, wrist6: Bundle, returns_early: bool) -> None:
    """No side is told that nothing passes any more: the watchdog has to notice."""
    air = Air(FAST)
    hears, hung = wearables = [new_wearable(air, wrist6, n, speed=4.0) for n in (1, 2)]
    async with streaming(mosquitto, air, *wearables) as (bridge, gateway):
        one = bridge.followers[address_of(2)]
        began = asyncio.get_running_loop().time()
        air.silence(one.address)
        if returns_early:  # it stayed connected all the while, and sends what has waited
            made = hung.packets_made
            await until(lambda: hung.packets_made >= made + 2)
        else:
            await until(lambda: one.watchdog_kicks >= 1)
            assert hung.connected, "it has not been told"
        air.hear(one.address)
        await goes_on(gateway, *wearables, within_s=KICKS_S, since=began)
        assert bridge.followers[address_of(1)].connections == 1
        note(one.watchdog_kicks, "kicks")
    assert (lost(gateway, hears), lost(gateway, hung)) == (hears.dropped, hung.dropped)


async def test_a_wearable_that_stays_connected_but_sends_nothing_is_connected_anew(
    mosquitto: Any, wrist6: Bundle
) -> None:
    air = Air(FAST)
    good, mute = wearables = [new_wearable(air, wrist6, n) for n in (1, 2)]
    meddled = Meddled(mute)
    async with streaming(mosquitto, air, *wearables) as (bridge, gateway):
        one = bridge.followers[address_of(2)]
        began = asyncio.get_running_loop().time()
        meddled.meddle = lambda _: None
        await until(lambda: one.watchdog_kicks >= 1)
        await until(lambda: one.connections >= 2)
        meddled.meddle = None
        await goes_on(gateway, *wearables, within_s=KICKS_S, since=began)
        assert bridge.followers[address_of(1)].connections == 1
    assert meddled.destroyed > 0
    assert (lost(gateway, good), lost(gateway, mute)) == (0, meddled.destroyed + mute.dropped)


async def test_a_wearable_that_is_switched_off_and_then_falls_silent_is_noticed(mosquitto: Any, wrist6: Bundle) -> None:
    """It has a reason to send nothing, so it is asked now and then whether it still has."""
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    async with streaming(mosquitto, air, wearable) as (bridge, gateway):
        one = bridge.followers[address_of(1)]
        wearable._on.clear()
        wearable._settle()
        await until(lambda: one.stream is not None and one.stream.error is not None)
        await asyncio.sleep(2 * NO_DATA_S)
        assert (one.watchdog_kicks, one.connections) == (0, 1)
        air.silence(one.address)
        began = asyncio.get_running_loop().time()
        await until(lambda: one.watchdog_kicks == 1)
        air.hear(one.address)
        wearable._on.set()
        wearable._settle()
        await goes_on(gateway, wearable, within_s=KICKS_S + follower.END_S, since=began)
        assert one.connections == 2
    assert lost(gateway, wearable) == 0


async def test_notifications_that_vanish_are_counted(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    wearables = [new_wearable(air, wrist6, n) for n in (1, 2)]
    async with streaming(mosquitto, air, *wearables) as (bridge, gateway):
        air.settings = replace(FAST, loss=0.2)  # type: ignore[misc]
        await until(lambda: air.lost >= 10)
        air.settings = FAST  # type: ignore[misc]
        await goes_on(gateway, *wearables, within_s=RECONNECTS_S)
        assert [one.connections for one in bridge.followers.values()] == [1, 1]
    assert gateway.pipeline.losses.lost == air.lost
    assert gateway.pipeline.losses.accepted + air.lost == sum(one.packets_sent for one in wearables)


# -- wearables --------------------------------------------------------------------------------------------------------


async def test_a_wearable_that_restarts_with_a_new_codebook_is_followed(
    mosquitto: Any, wrist6: Bundle, tmp_path: Path
) -> None:
    other = another_bundle(tmp_path / "bundles", wrist6)
    air = Air(FAST)
    stays = new_wearable(air, wrist6, 1)
    statuses = Listener(mosquitto.settings, topic("ble-2", Kind.STATUS))
    async with statuses, streaming(mosquitto, air, stays, folders=(tmp_path / "bundles", SHIPPED)) as (bridge, gateway):
        before = new_wearable(air, wrist6, 2)
        async with worn(before):
            await until(lambda: accepted(gateway, before) >= 5)
            # The battery is pulled: nobody says goodbye.
            after = new_wearable(air, replace(wrist6, codebook=other.codebook), 2)
        began = asyncio.get_running_loop().time()
        async with worn(after):
            await until(lambda: gateway.pipeline.windows[other.reference] >= 1)
            took_s = asyncio.get_running_loop().time() - began
            note(f"the first window with the new codebook after {took_s:.2f} s of {RECONNECTS_S:g}")
            assert took_s <= RECONNECTS_S
            follows = bridge.followers[address_of(2)]
            assert follows.connections == 2
            await until(lambda: Status.parse(statuses.heard[-1].payload).codebook == other.codebook.digest.hex())
            await goes_on(gateway, stays, within_s=RECONNECTS_S)
        device = gateway.pipeline.devices.get("ble-2")
        assert device is not None
        assert device.reassembler.losses.restarts == 1
        assert gateway.summary().lost == 0


async def test_an_absent_wearable_holds_nobody_up(
    mosquitto: Any, wrist6: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was heard once and never answers: the attempt ends in time, and others come back meanwhile."""
    monkeypatch.setattr("device_emulator.ble.adapter.CONNECT_S", ATTEMPT_S)
    air = Air(FAST)
    wearables = [new_wearable(air, wrist6, n) for n in (1, 2)]
    ghost = air.host("ghost", address_of(9))
    ghost.advertising_data = bytes(
        AdvertisingData(
            [(AdvertisingData.Type.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS, bytes(UUID(gatt.SERVICE)))]
        )
    )
    loop = asyncio.get_running_loop()
    never_heard = address_of(10)
    addresses = frozenset({address_of(1), address_of(2), address_of(9), never_heard})
    async with streaming(mosquitto, air, *wearables, addresses=addresses) as (bridge, gateway):
        await ghost.power_on()
        await ghost.start_advertising(advertising_interval_min=10_000, advertising_interval_max=10_000)
        await until(lambda: address_of(9) in bridge.followers)
        air.silence(address_of(9))
        absent = bridge.followers[address_of(9)]
        await until(lambda: absent.state == "connecting")
        air.drop(address_of(1))
        began = loop.time()
        await until(lambda: bridge.followers[address_of(1)].connections == 2)
        await goes_on(gateway, *wearables, within_s=ATTEMPT_S + RECONNECTS_S, since=began)
        await until(lambda: absent.state == "waiting", within_s=2 * ATTEMPT_S)
        note(f"the attempt ended after {loop.time() - began:.2f} s: {absent.error}")
        assert absent.error
        assert absent.connections == 0
        assert never_heard not in bridge.followers
        assert set(online(gateway)) == {"ble-1", "ble-2"}
    assert [lost(gateway, one) for one in wearables] == [one.dropped for one in wearables]


async def test_garbage_is_counted_and_ends_with_the_watchdog(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    good, mad = wearables = [new_wearable(air, wrist6, n) for n in (1, 2)]
    meddled = Meddled(mad)
    dice = random.Random(1)
    async with streaming(mosquitto, air, *wearables) as (bridge, gateway):
        one, other = bridge.followers[address_of(2)], bridge.followers[address_of(1)]
        meddled.meddle = lambda _: dice.randbytes(dice.choice((0, 1, 11, 60, 244)))
        await until(lambda: one.watchdog_kicks >= 1)
        await until(lambda: one.connections >= 2 and one.refused.total() >= 20)
        meddled.meddle = None
        await goes_on(gateway, *wearables, within_s=KICKS_S)
        note(dict(one.refused), one.watchdog_kicks, "kicks")
        assert len(one.refused) >= 2
        assert other.refused.total() == 0
        assert other.connections == 1
    assert (lost(gateway, good), lost(gateway, mad)) == (0, meddled.destroyed + mad.dropped)


class _Impossible(Wearable):
    """One that says it takes no samples at all."""

    def _read_settings(self, connection: Connection) -> bytes:
        value = bytearray(super()._read_settings(connection))
        value[2:6] = bytes(4)
        return bytes(value)


async def test_a_wearable_with_impossible_settings_is_refused_and_others_stream(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    good = new_wearable(air, wrist6, 1)
    device = Device("bad", new_wearable(air, wrist6, 2).device.source, shared_encoder(wrist6.codebook, wrist6.sensor))
    bad = _Impossible(device, air.host("bad", address_of(3)), speed=8.0)
    async with streaming(mosquitto, air, good) as (bridge, gateway), worn(bad):
        await until(lambda: address_of(3) in bridge.followers and bridge.followers[address_of(3)].error is not None)
        assert bridge.followers[address_of(3)].error == "rate: 0 Hz is not in 1 .. 1000 Hz"
        await goes_on(gateway, good, within_s=RECONNECTS_S)
        assert bridge.followers[address_of(1)].connections == 1
        assert bridge.followers[address_of(3)].state != "streaming"


@pytest.mark.parametrize("max_devices", [1, 32])
async def test_a_wearable_that_has_left_gives_up_its_place_and_its_id(
    mosquitto: Any, wrist6: Bundle, monkeypatch: pytest.MonkeyPatch, max_devices: int
) -> None:
    """To the same one under another random address, for example."""
    monkeypatch.setattr(bridge_module, "FORGET_S", 2.0)
    air = Air(FAST)
    before = new_wearable(air, wrist6, 1)
    device = Device("ble-1", new_wearable(air, wrist6, 2).device.source, shared_encoder(wrist6.codebook, wrist6.sensor))
    now = Wearable(device, air.host("moved", address_of(3)), speed=8.0)
    gateway = new_gateway(mosquitto.settings)
    async with (
        serving(gateway),
        flying(air) as hci,
        bridging(mosquitto.settings, hci, max_devices=max_devices) as bridge,
    ):
        async with worn(before):
            await until(lambda: accepted(gateway, before) >= 5)
        async with worn(now):
            await until(lambda: address_of(3) in bridge.followers)
            await until(lambda: bridge.followers[address_of(3)].state == "streaming")
            await until(lambda: online(gateway) == {"ble-1": True})
            assert list(bridge.followers) == [address_of(3)]


async def test_of_two_wearables_with_one_serial_number_one_streams(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    twins = []
    for n in (1, 2):
        device = Device(
            "twin", new_wearable(air, wrist6, n).device.source, shared_encoder(wrist6.codebook, wrist6.sensor)
        )
        twins.append(Wearable(device, air.host("twin", address_of(n)), speed=8.0))
    gateway = new_gateway(mosquitto.settings)
    async with serving(gateway), flying(air, *twins) as hci:
        async with bridging(mosquitto.settings, hci) as bridge:
            await until(lambda: gateway.pipeline.losses.accepted >= 20)
            states = {one.state: one for one in bridge.followers.values()}
            await until(lambda: any(one.error and "taken" in one.error for one in bridge.followers.values()))
            first = next(one for one in bridge.followers.values() if one.stream is not None)
            second = next(one for one in bridge.followers.values() if one.stream is None)
            assert (first.connections, first.error, first.state) == (1, None, "streaming"), states
            assert second.error is not None
            assert f"--name {second.address}" in second.error
            assert online(gateway) == {"twin": True}
            assert gateway.summary().lost == 0
        # What the error advises helps.
        async with bridging(mosquitto.settings, hci, names=((second.address, "other"),)) as bridge:
            await until(lambda: online(gateway) == {"twin": True, "other": True})
            await until(lambda: all(one.state == "streaming" for one in bridge.followers.values()))
