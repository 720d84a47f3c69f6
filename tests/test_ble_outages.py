"""Adapters, brokers and bridges that go in the middle of a stream, and come back; see ``test_ble_faults.py``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ble_cable import Cable
from ble_recovery import (
    ADAPTER_S,
    BROKER_S,
    HANGS_S,
    RECONNECTS_S,
    WILL_S,
    accepted,
    goes_on,
    lost,
    online,
    streaming,
)
from ble_stack import FAST, bridging, flying, new_wearable
from bumble.gatt_server import Server
from stack import Listener, new_gateway, note, patient_devices, serving, until, wrist6

from device_emulator.ble import follower, gatt
from device_emulator.ble.air import Air
from models.bundle import Bundle
from protocol.messages import Status
from protocol.topics import Kind, every, parse

__all__ = ["patient_devices", "wrist6"]


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
