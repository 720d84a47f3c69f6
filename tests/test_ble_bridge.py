"""Virtual wearables, Bumble's stack, bleak, the bridge, a real broker, the gateway: the whole way with no radio."""

from __future__ import annotations

from typing import Any

from ble_stack import FAST, bridging, flying, new_wearable, told
from bumble.keys import MemoryKeyStore
from stack import Listener, new_gateway, note, patient_devices, serving, until, wrist6

from device_emulator.ble.air import Air
from models.bundle import Bundle
from protocol.messages import Status
from protocol.topics import Kind, every, parse

__all__ = ["patient_devices", "wrist6"]


async def test_eight_wearables_are_recognised_through_the_bridge(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    gateway = new_gateway(mosquitto.settings)
    statuses = Listener(mosquitto.settings, every(Kind.STATUS))
    async with serving(gateway), statuses, told(mosquitto.settings) as tell:
        wearables = [new_wearable(air, wrist6, n, made=tell(n)) for n in range(1, 9)]
        async with flying(air, *wearables) as hci, bridging(mosquitto.settings, hci) as bridge:
            await until(lambda: all(w.packets_sent >= 60 for w in wearables))
            assert all(f.state == "streaming" for f in bridge.followers.values())
            assert {d.device: d.online for d in gateway.snapshot()} == {f"ble-{n}": True for n in range(1, 9)}
        sent = sum(w.packets_sent for w in wearables)
        made = sum(w.packets_made for w in wearables)
        await until(lambda: gateway.pipeline.losses.accepted >= sent)
        losses, summary = gateway.pipeline.losses, gateway.summary()
        note(f"{made} made, {sent} sent, {losses.accepted} accepted")
        note(f"macro-F1 {summary.macro_f1}, {summary.scored} windows")
        assert (losses.accepted, losses.lost, losses.duplicate, summary.rejected) == (sent, 0, 0, 0)
        assert summary.macro_f1 is not None
        assert summary.macro_f1 > 0.75  # offline, on this generated wearer: .88 (docs/results.md)
        await until(lambda: not any(d.online for d in gateway.snapshot()))
    last = {parse(m.topic)[0]: Status.parse(m.payload) for m in statuses.heard}
    assert {name: (s.state, s.bridge) for name, s in last.items() if name != "gateway"} == dict.fromkeys(
        ("bridge", *(f"ble-{n}" for n in range(1, 9))), ("offline", "bridge")
    )


async def test_a_closed_wearable_is_paired_with_and_again_when_it_has_forgotten(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    gateway = new_gateway(mosquitto.settings)
    wearable = new_wearable(air, wrist6, open_stream=False)
    async with serving(gateway), flying(air, wearable) as hci, bridging(mosquitto.settings, hci) as bridge:
        await until(lambda: gateway.pipeline.losses.accepted >= 3)
        (follower,) = bridge.followers.values()
        assert (follower.state, follower.error, follower.connections) == ("streaming", None, 1)
        wearable.radio.keystore = MemoryKeyStore()  # as after a new firmware
        air.drop(follower.address)
        before = gateway.pipeline.losses.accepted
        await until(lambda: gateway.pipeline.losses.accepted > before + 3)
        assert follower.connections >= 2
    assert gateway.pipeline.losses.lost == 0
