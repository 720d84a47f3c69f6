"""Configuration over MQTT of a wearable behind the bridge: it is brought over the air, and what is wrong is said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ble_recovery import worn
from ble_stack import FAST, address_of, another_bundle, bridging, flying, new_wearable, runs
from factories import codebook
from stack import (
    PATIENCE_S,
    Answers,
    Listener,
    all_answered,
    new_gateway,
    patient_devices,
    serving,
    tick_of,
    until,
    wrist6,
)

from device_emulator.ble.air import Air
from device_emulator.ble.bridge import Bridge, BridgeSettings
from device_emulator.ble.streams import PacketStream
from models.bundle import SHIPPED, Bundle
from protocol.messages import Config, Status
from protocol.topics import Kind, topic
from quantization.codebook import Codebook

__all__ = ["patient_devices", "wrist6"]


async def test_a_retained_configuration_reaches_the_wearable_and_the_gateway_follows(
    mosquitto: Any, wrist6: Bundle, tmp_path: Path
) -> None:
    bundle, manifest = another_bundle(tmp_path / "bundles", wrist6), wrist6.manifest
    book = bundle.codebook
    air = Air(FAST)
    switched, stays = wearables = [new_wearable(air, wrist6, n) for n in (1, 2)]
    gateway = new_gateway(mosquitto.settings, folders=(tmp_path / "bundles", SHIPPED))
    answers = Answers(gateway)
    status_topic = topic("ble-1", Kind.STATUS)
    async with serving(gateway), Listener(mosquitto.settings, status_topic) as listener:
        async with flying(air, *wearables) as hci, bridging(mosquitto.settings, hci) as bridge:
            await until(lambda: all(one.packets_sent >= 10 for one in wearables))
            config = Config.with_codebook(book).to_json()
            listener.connection.publish(topic("ble-1", Kind.CONFIG), config, qos=1, retain=True)
            await until(lambda: gateway.pipeline.windows[bundle.reference] >= 10)
            await until(lambda: Status.parse(listener.heard[-1].payload).codebook == book.digest.hex())
            assert Status.parse(listener.heard[-1].payload).error is None
            axes = Config(axes=(-2, 1, 3)).to_json()
            listener.connection.publish(topic("ble-1", Kind.CONFIG), axes, qos=1, retain=True)
            await until(lambda: Status.parse(listener.heard[-1].payload).axes == (-2, 1, 3))
            # One that it cannot run: it says so, and goes on.
            bad = Config.with_codebook(codebook(book.channels, rate_hz=100.0)).to_json()
            listener.connection.publish(topic("ble-1", Kind.CONFIG), bad, qos=1)
            await until(lambda: Status.parse(listener.heard[-1].payload).error)
            error = Status.parse(listener.heard[-1].payload).error
            assert error is not None
            assert "0x84" in error
            assert [one.connections for one in bridge.followers.values()] == [1, 1]
        await until(lambda: gateway.pipeline.losses.accepted >= sum(one.packets_sent for one in wearables))
        await all_answered(gateway)
    assert (switched.uploads, stays.uploads) == (1, 0)
    assert (gateway.summary().lost, gateway.summary().rejected) == (0, 0)
    assert gateway.pipeline.flushes == {"codebook": 1}
    references = [one.bundle.reference for one in answers.windows if one.device == "ble-1"]
    switch = references.index(bundle.reference)
    assert references == [wrist6.reference] * switch + [bundle.reference] * (len(references) - switch)
    assert {one.bundle.reference for one in answers.windows if one.device == "ble-2"} == {wrist6.reference}
    first = answers.starts("ble-1")[switch]
    samples = switched.device.packet_samples
    packets = round(first * manifest.rate_hz / 1000 / samples)
    assert first == tick_of(packets * samples, manifest.rate_hz), "the first window begins with a packet"


async def test_a_malformed_configuration_does_not_displace_the_good_one(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    async with (
        flying(air) as hci,
        bridging(mosquitto.settings, hci) as bridge,
        Listener(mosquitto.settings, topic("ble-1", Kind.STATUS)) as listener,
    ):
        axes = Config(axes=(2, -1, 3)).to_json()
        for device_id, config in (("ble-1", axes), ("ble-1", b"garbage"), ("ble-9", axes)):
            listener.connection.publish(topic(device_id, Kind.CONFIG), config, qos=1)
        await until(lambda: "ble-9" in bridge._configs)
        async with worn(wearable):
            await until(lambda: listener.heard and Status.parse(listener.heard[-1].payload).axes == (2, -1, 3))


async def test_a_mistake_while_a_configuration_is_brought_is_not_hidden(
    mosquitto: Any, wrist6: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistaken(*_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(PacketStream, "configure", mistaken)
    air = Air(FAST)
    async with flying(air, new_wearable(air, wrist6)) as hci, Listener(mosquitto.settings) as listener:
        axes = Config(axes=(2, -1, 3)).to_json()
        listener.connection.publish(topic("ble-1", Kind.CONFIG), axes, qos=1, retain=True)
        bridge = Bridge(BridgeSettings(hci=hci), mosquitto.settings)
        with pytest.raises(ExceptionGroup) as ended:
            await asyncio.wait_for(bridge.run(), PATIENCE_S)
    assert [str(one) for one in ended.value.exceptions] == ["a mistake"]


async def test_axes_that_no_device_can_have_are_refused_and_the_next_configuration_is_taken(
    mosquitto: Any, wrist6: Bundle
) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    book = codebook(wrist6.codebook.channels, rate_hz=wrist6.manifest.rate_hz)
    async with (
        flying(air, wearable) as hci,
        bridging(mosquitto.settings, hci) as bridge,
        Listener(mosquitto.settings, topic("ble-1", Kind.STATUS)) as listener,
    ):
        await until(lambda: wearable.packets_sent >= 3)
        impossible = Config.with_codebook(book).model_copy(update={"axes": (1000, 0, 0)})
        listener.connection.publish(topic("ble-1", Kind.CONFIG), impossible.to_json(), qos=1)
        await until(lambda: listener.heard and Status.parse(listener.heard[-1].payload).error)
        error = Status.parse(listener.heard[-1].payload).error
        assert error is not None
        assert "configuration: axes" in error
        assert wearable.uploads == 0, "whole or not at all"
        listener.connection.publish(topic("ble-1", Kind.CONFIG), Config(axes=(2, -1, 3)).to_json(), qos=1)
        await until(lambda: Status.parse(listener.heard[-1].payload).axes == (2, -1, 3))
        assert Status.parse(listener.heard[-1].payload).error is None
        assert bridge.followers[address_of(1)].connections == 1


async def test_an_upload_that_a_lost_link_interrupts_is_made_again(mosquitto: Any, wrist6: Bundle) -> None:
    air = Air(FAST)
    wearable = new_wearable(air, wrist6)
    book = codebook(wrist6.codebook.channels, rate_hz=wrist6.manifest.rate_hz)
    writes: list[bytes] = []
    receive = wearable._upload.write

    def drop_once(data: bytes) -> Codebook | None:
        writes.append(data)
        if len(writes) == 3:
            air.drop(address_of(1))
        return receive(data)

    wearable._upload.write = drop_once  # type: ignore[method-assign]
    async with (
        flying(air, wearable) as hci,
        bridging(mosquitto.settings, hci) as bridge,
        Listener(mosquitto.settings, topic("ble-1", Kind.STATUS)) as listener,
    ):
        await until(lambda: wearable.packets_sent >= 3)
        config = Config.with_codebook(book).to_json()
        listener.connection.publish(topic("ble-1", Kind.CONFIG), config, qos=1, retain=True)
        await until(lambda: wearable.uploads == 1)
        await runs(wearable, book)
        await until(lambda: Status.parse(listener.heard[-1].payload).codebook == book.digest.hex())
        assert bridge.followers[address_of(1)].connections == 2
    assert [data[0] for data in writes].count(0x01) == 2
