"""What goes wrong with radios, wearables, adapters, brokers and bridges, each in the middle of a stream.

Wearables on the virtual air, Bumble's stack, bleak, the bridge, a real mosquitto, a gateway. After each fault the
stream has to go on by itself within a stated time, and what the gateway counts as lost has to be what the fault
destroyed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ble_cable import Cable
from ble_stack import FAST, address_of, bridging, flying, new_wearable
from bumble.core import UUID, AdvertisingData
from bumble.gatt_server import Server
from factories import codebook, tiny_bundle
from stack import Listener, new_gateway, note, patient_devices, serving, until, wrist6

from device_emulator.ble import follower, gatt
from device_emulator.ble.air import Air
from device_emulator.ble.bridge import Bridge
from device_emulator.ble.peripheral import Wearable
from device_emulator.device import Device, shared_encoder
from gateway.service import Gateway
from models.bundle import SHIPPED, Bundle
from protocol.messages import Status
from protocol.topics import Kind, every, parse, topic

__all__ = ["patient_devices", "wrist6"]

# Stated times, in seconds of the wall clock, and how each comes about. A quiet machine takes a tenth to a third.
RECONNECTS_S = 10.0
"""A link that was lost: back-off 0.1 s, an advertisement each 0.16 s, two dozen round trips at 7.5 ms."""
NO_DATA_S = 2.0
"""The watchdog's patience in these tests."""
KICKS_S = RECONNECTS_S + 2 * NO_DATA_S
"""A link that is dead without a word: the watchdog's patience before."""
BROKER_S = 10.0
"""After the broker's return; the same as docs/operations.md promises for any device."""
ADAPTER_S = 15.0
"""After the adapter's return: back-off of up to 10 s, seldom more than 1 s after a short absence."""
HANGS_S = 25.0
"""A controller that answers nothing: the watchdog's patience, 3 s for a goodbye, half a minute (here 2 s) for an
advertisement, 5 s for an attempt and 4 s for its cancellation."""
WILL_S = 5.0
"""A broker publishes the will as soon as it sees the connection end."""
ATTEMPT_S = 6.0
"""What an attempt to connect may take in the test of an absent device; 20 s otherwise."""


# -- what the tests share ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def worn(*wearables: Wearable) -> AsyncIterator[None]:
    """More wearables on an air that others fly on."""
    tasks = [asyncio.create_task(one.run()) for one in wearables]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def streaming(
    mosquitto: Any, air: Air, *wearables: Wearable, folders: tuple[Path, ...] = (SHIPPED,), **settings: Any
) -> AsyncIterator[tuple[Bridge, Gateway]]:
    """Everything runs, and from each wearable something has come; at the end the gateway has what was sent."""
    gateway = new_gateway(mosquitto.settings, folders=folders)
    async with serving(gateway):
        async with (
            flying(air, *wearables) as hci,
            bridging(mosquitto.settings, hci, **{"no_data_s": NO_DATA_S, **settings}) as bridge,
        ):
            await until(lambda: all(accepted(gateway, one) >= 5 for one in wearables))
            yield bridge, gateway
        await until(lambda: all(accounted(gateway, one) >= one.packets_sent + one.dropped for one in wearables))
        assert gateway.summary().rejected == 0


def losses_of(gateway: Gateway, wearable: Wearable) -> Any:
    device = gateway.pipeline.devices.get(wearable.device.device_id)
    return None if device is None else device.reassembler.losses


def accepted(gateway: Gateway, wearable: Wearable) -> int:
    """Packets that have come and have their place."""
    losses = losses_of(gateway, wearable)
    return 0 if losses is None else int(losses.accepted)


def lost(gateway: Gateway, wearable: Wearable) -> int:
    """Packets that never came."""
    return int(losses_of(gateway, wearable).lost)


def accounted(gateway: Gateway, wearable: Wearable) -> int:
    return accepted(gateway, wearable) + lost(gateway, wearable)


def online(gateway: Gateway) -> dict[str, bool | None]:
    return {view.device: view.online for view in gateway.snapshot()}


async def goes_on(gateway: Gateway, *wearables: Wearable, within_s: float, since: float | None = None) -> None:
    """Wait until a newer packet than any made by now has come from each, and so has, or is lost, all before it."""
    loop = asyncio.get_running_loop()
    since = loop.time() if since is None else since
    goals = {one: one.packets_made for one in wearables}
    await until(lambda: all(accounted(gateway, one) > goal for one, goal in goals.items()))
    took_s = loop.time() - since
    note(f"went on after {took_s:.2f} s of {within_s:g}")
    assert took_s <= within_s


class Meddled:
    """Packets of one wearable that its firmware spoils on their way out, while ``meddle`` is set.

    Attributes:
        spoiled: those that were.
        passed: those that were not, at some time.
    """

    def __init__(self, wearable: Wearable) -> None:
        self.meddle: Callable[[bytes], bytes | None] | None = None
        self.spoiled: set[bytes] = set()
        self.passed: set[bytes] = set()
        self._notify = wearable.radio.notify_subscriber
        wearable.radio.notify_subscriber = self._meddle  # type: ignore[method-assign]

    async def _meddle(self, connection: Any, attribute: Any, value: Any = None, force: bool = False) -> None:
        if attribute.uuid == UUID(gatt.STREAM):
            if self.meddle is None:
                self.passed.add(value)
            else:
                self.spoiled.add(value)
                value = self.meddle(value)
                if value is None:
                    return
        await self._notify(connection, attribute, value, force)

    @property
    def destroyed(self) -> int:
        """Packets that were spoiled and not sent again."""
        return len(self.spoiled - self.passed)


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
    manifest = wrist6.manifest
    book = codebook(wrist6.codebook.channels, rate_hz=manifest.rate_hz)
    other = tiny_bundle(tmp_path / "bundles", "other", book=book, window=manifest.window, stride=manifest.stride)
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


# -- the adapter ------------------------------------------------------------------------------------------------------


async def test_an_adapter_that_is_pulled_out_is_used_again_when_it_is_back(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    wearables = [new_wearable(air, wrist6, n, speed=4.0) for n in (1, 2)]
    gateway = new_gateway(mosquitto.settings)
    async with serving(gateway), flying(air, *wearables) as hci:
        cable = Cable(int(hci.rsplit(":", 1)[1]))
        async with cable.laid() as spec, bridging(mosquitto.settings, spec) as bridge:
            await until(lambda: all(accepted(gateway, one) >= 5 for one in wearables))
            cable.pull()
            await until(lambda: bridge.adapter_error is not None)
            await until(lambda: online(gateway) == {"ble-1": False, "ble-2": False})
            await until(lambda: not any(one.connected for one in wearables))
            note(bridge.adapter_error)
            await asyncio.sleep(1.0)  # attempts that fail
            cable.plugged = True
            await goes_on(gateway, *wearables, within_s=ADAPTER_S)
            assert (bridge.adapter_error, bridge.adapters_lost) == (None, 1)
            await until(lambda: online(gateway) == {"ble-1": True, "ble-2": True})
    await until(lambda: gateway.pipeline.losses.accepted > 0)
    # What was on its way in the cable is gone: the wearables' own controllers had confirmed it.
    destroyed = [lost(gateway, one) - one.dropped for one in wearables]
    note("destroyed", destroyed)
    assert all(0 <= count <= 8 for count in destroyed)


async def test_an_adapter_that_hangs_is_opened_again(
    mosquitto: Any, wrist6: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes commands and answers none, and nobody is told."""
    monkeypatch.setattr(follower, "LONGEST_WAIT_S", 2.0)  # for an advertisement; half a minute otherwise
    air = Air(FAST)
    wearable = new_wearable(air, wrist6, speed=2.0)
    gateway = new_gateway(mosquitto.settings)
    async with serving(gateway), flying(air, wearable) as hci:
        cable = Cable(int(hci.rsplit(":", 1)[1]))
        async with cable.laid() as spec, bridging(mosquitto.settings, spec) as bridge:
            await until(lambda: accepted(gateway, wearable) >= 5)
            loop = asyncio.get_running_loop()
            began = loop.time()
            cable.hung = True
            await until(lambda: bridge.adapter_error is not None)
            took_s = loop.time() - began
            note(f"noticed after {took_s:.2f} s of {HANGS_S:g}")
            assert took_s <= HANGS_S
            cable.pull()
            cable.hung, cable.plugged = False, True
            await goes_on(gateway, wearable, within_s=ADAPTER_S)
            assert bridge.adapters_lost == 1


# -- broker and bridge ------------------------------------------------------------------------------------------------


async def test_half_a_minute_without_a_broker_costs_nothing(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    wearables = [new_wearable(air, wrist6, n) for n in (1, 2)]
    async with streaming(mosquitto, air, *wearables) as (bridge, gateway):
        await mosquitto.stop()
        made = [one.packets_made for one in wearables]
        period_s = wearables[0].device.packet_period_s
        await until(
            lambda: all((one.packets_made - n) * period_s >= 30 for one, n in zip(wearables, made, strict=True))
        )
        assert not bridge.connection.connected
        await mosquitto.start()
        await goes_on(gateway, *wearables, within_s=BROKER_S)
        assert [one.connections for one in bridge.followers.values()] == [1, 1], "Bluetooth went on"
        await until(lambda: online(gateway) == {"ble-1": True, "ble-2": True})
    assert [lost(gateway, one) for one in wearables] == [0, 0]
    assert bridge.connection.dropped.total() == 0


KILLED = """
import asyncio, sys
from device_emulator.ble.bridge import Bridge, BridgeSettings
from protocol.broker_settings import BrokerSettings

asyncio.run(Bridge(BridgeSettings(hci=sys.argv[1]), BrokerSettings(port=int(sys.argv[2]))).run())
"""


async def test_a_bridge_that_is_killed_leaves_nobody_online(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    wearables = [new_wearable(air, wrist6, n, speed=2.0) for n in (1, 2)]
    gateway = new_gateway(mosquitto.settings)
    async with serving(gateway), flying(air, *wearables) as hci:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, hci, str(mosquitto.settings.port), cwd=Path(__file__).parent.parent
        )
        try:
            await until(lambda: all(accepted(gateway, one) >= 3 for one in wearables))
            await until(lambda: online(gateway) == {"ble-1": True, "ble-2": True})
        finally:
            process.kill()
            await process.wait()
        began = asyncio.get_running_loop().time()
        await until(lambda: online(gateway) == {"ble-1": False, "ble-2": False}, within_s=WILL_S)
        note(f"offline after {asyncio.get_running_loop().time() - began:.2f} s")
        async with bridging(mosquitto.settings, hci):
            await goes_on(gateway, *wearables, within_s=RECONNECTS_S)
            await until(lambda: online(gateway) == {"ble-1": True, "ble-2": True})
    destroyed = [lost(gateway, one) - one.dropped for one in wearables]
    note("destroyed", destroyed)
    assert all(0 <= count <= 4 for count in destroyed), "what the process had and the broker had not"


async def test_a_clean_stop_leaves_nothing_behind(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    wearables = [new_wearable(air, wrist6, n) for n in (1, 2)]
    subscribed: dict[str, bool] = {}

    def note_subscription(name: str) -> Callable[..., None]:
        def noted(_bearer: object, characteristic: Any, notify: bool, _indicate: bool) -> None:
            subscribed[f"{name} {str(characteristic.uuid)[:8].lower()}"] = notify

        return noted

    for one in wearables:
        one.radio.gatt_server.on(Server.EVENT_CHARACTERISTIC_SUBSCRIPTION, note_subscription(one.device.device_id))
    gateway = new_gateway(mosquitto.settings)
    async with serving(gateway), flying(air, *wearables) as hci:
        async with bridging(mosquitto.settings, hci) as bridge:
            await until(lambda: all(accepted(gateway, one) >= 5 for one in wearables))
            assert len(subscribed) == 4
            assert all(subscribed.values())
        assert not any(subscribed.values()), "notifications are off before the link ends"
        await until(lambda: not any(one.connected for one in wearables))
        assert [one.state for one in wearables] == [gatt.State.IDLE] * 2
        assert [one.connections for one in bridge.followers.values()] == [1, 1]
        async with Listener(mosquitto.settings, every(Kind.STATUS), name="late") as late:
            await until(lambda: len(late.heard) >= 4)
        last = {parse(one.topic)[0]: Status.parse(one.payload) for one in late.heard}
        assert {name: (one.state, one.bridge) for name, one in last.items() if name != "gateway"} == dict.fromkeys(
            ("bridge", "ble-1", "ble-2"), ("offline", "bridge")
        )
        assert online(gateway) == {"ble-1": False, "ble-2": False}
        # What the wearables have made meanwhile they tell the next one.
        async with bridging(mosquitto.settings, hci):
            await goes_on(gateway, *wearables, within_s=RECONNECTS_S)
    assert [lost(gateway, one) for one in wearables] == [0, 0]
