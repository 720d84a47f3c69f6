"""Virtual wearables on a virtual radio, and a bridge to a real broker: what tests of Bluetooth share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from ble_boards import BoardPeripheral
from factories import codebook, tiny_bundle
from stack import PATIENCE_S, until

from device_emulator.ble.air import Air, AirSettings
from device_emulator.ble.bridge import Bridge, BridgeSettings
from device_emulator.ble.peripheral import PausableSource, Wearable
from device_emulator.device import Device, Emission, shared_encoder
from device_emulator.synthetic import SyntheticSource
from models.bundle import Bundle
from protocol.broker_settings import BrokerSettings
from protocol.connection import Connection
from protocol.messages import Label
from protocol.topics import Kind, topic
from quantization.codebook import Codebook

BRIDGE = "F0:00:00:00:00:01"
"""The bridge's own controller."""
FAST = AirSettings(connection_interval_ms=7.5, supervision_s=0.5)


def address_of(number: int) -> str:
    return f"C0:00:00:00:00:{number:02X}"


def another_bundle(folder: Path, like: Bundle) -> Bundle:
    """A small bundle with another codebook for the same part and rate, made in ``folder``."""
    manifest = like.manifest
    book = codebook(like.codebook.channels, rate_hz=manifest.rate_hz)
    return tiny_bundle(folder, "other", book=book, window=manifest.window, stride=manifest.stride)


def new_wearable(air: Air, bundle: Bundle, number: int = 1, *, speed: float = 8.0, **options: Any) -> Wearable:
    """One whose wearer does the bundle's activities; its id is ``ble-<number>``."""
    wearer = {"sp_sw_har": "tug", "wisdm2019_watch": "wisdm"}[bundle.manifest.data.dataset]
    rate_hz = options.pop("rate_hz", bundle.manifest.rate_hz)
    source = PausableSource(SyntheticSource(bundle.sensor, rate_hz=rate_hz, seed=number, wearer=wearer))
    device = Device(f"ble-{number}", source, shared_encoder(bundle.codebook, source.sensor))
    return Wearable(device, air.host(device.device_id, address_of(number)), speed=speed, **options)


@contextlib.asynccontextmanager
async def told(broker: BrokerSettings) -> AsyncIterator[Callable[[int], Callable[[Emission], None]]]:
    """Somebody who sees what the wearers do, and tells the gateway: gives the ``made`` of wearable n."""
    connection = Connection(broker, "labeller", queue_limit=100_000)
    task = asyncio.create_task(connection.run())

    def tell(number: int) -> Callable[[Emission], None]:
        def made(emission: Emission) -> None:
            for run in emission.labels:
                label = Label(activity=run.activity, from_tick=run.from_tick, to_tick=run.to_tick)
                connection.publish(topic(f"ble-{number}", Kind.LABEL), label.to_json(), 1)

        return made

    try:
        await connection.wait_connected(PATIENCE_S)
        yield tell
    finally:
        await connection.stop()
        await task


@contextlib.asynccontextmanager
async def flying(air: Air, *peripherals: Wearable | BoardPeripheral) -> AsyncIterator[str]:
    """Run them on the air; gives the transport for a bridge. What one of them did wrong is raised at the end."""
    tasks = [asyncio.create_task(peripheral.run()) for peripheral in peripherals]
    try:
        port = await air.serve("bridge", BRIDGE)
        yield f"tcp-client:127.0.0.1:{port}"
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await air.close()


@contextlib.asynccontextmanager
async def bridging(broker: BrokerSettings, hci: str, **settings: Any) -> AsyncIterator[Bridge]:
    """Run a bridge; stopped at the end, as by Ctrl-C."""
    bridge = Bridge(BridgeSettings(hci=hci, **{"no_data_s": 2.0, **settings}), broker)
    task = asyncio.create_task(bridge.run())
    try:
        await bridge.connection.wait_connected(PATIENCE_S)
        yield bridge
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), PATIENCE_S)


async def runs(wearable: Wearable, book: Codebook) -> None:
    """Three packets from now are made with this codebook."""
    made = wearable.packets_made
    await until(lambda: wearable.packets_made >= made + 3)
    assert wearable.device.codebook == book
