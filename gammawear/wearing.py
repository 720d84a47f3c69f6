"""Runs virtual wearables on a virtual radio, or one on a dongle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bumble.device import Device as BluetoothDevice
from bumble.hci import Address

from device_emulator.ble.air import Air, AirSettings
from device_emulator.ble.central import open_controller, start_radio
from device_emulator.ble.peripheral import PausableSource, Wearable
from device_emulator.decimate import matched
from device_emulator.device import Device, shared_encoder
from device_emulator.source import Source
from gammawear.options import until_stopped
from models.device_part import DevicePart

BRIDGE_ADDRESS = "F0:00:00:00:00:01"
"""Of the controller that waits for a bridge."""


async def wear(
    bundle: DevicePart,
    sources: Sequence[Source],
    *,
    prefix: str,
    air_port: int | None,
    hci: str | None,
    interval_ms: float,
    loss: float,
    closed: bool,
    speed: float,
    seconds: float | None,
    say: Callable[[str], None],
) -> None:
    """Run them until Ctrl-C, for ``seconds``, or until all sources have ended; ``say`` tells how to connect.

    Raises:
        ConnectError: the port is taken, there is no such dongle, or it has gone.
    """
    devices = [_device(f"{prefix}-{n:02d}", source, bundle) for n, source in enumerate(sources, start=1)]
    if air_port is None:
        await _on_dongle(devices[0], hci or "", closed=closed, speed=speed, seconds=seconds, say=say)
        return
    air = Air(AirSettings(connection_interval_ms=interval_ms, loss=loss))
    worn = [
        Wearable(device, air.host(device.device_id, _address(n)), open_stream=not closed, speed=speed)
        for n, device in enumerate(devices, start=1)
    ]
    try:
        port = await air.serve("bridge", BRIDGE_ADDRESS, port=air_port)
        say(f"{len(worn)} wearables on the air; next: gammawear bridge --hci tcp-client:127.0.0.1:{port}")
        await _run(worn, seconds)
    finally:
        await air.close()
    _summarise(worn, say)


async def _on_dongle(
    device: Device, hci: str, *, closed: bool, speed: float, seconds: float | None, say: Callable[[str], None]
) -> None:
    async with open_controller(hci) as transport:
        radio = BluetoothDevice.with_hci(device.device_id, Address(_address(1)), transport.source, transport.sink)
        worn = Wearable(device, radio, open_stream=not closed, speed=speed)
        await start_radio(hci, worn.switch_on())
        say(f"{device.device_id} advertises on {hci}")
        await _run([worn], seconds)
    _summarise([worn], say)


def _device(device_id: str, source: Source, bundle: DevicePart) -> Device:
    fitting = PausableSource(matched(source, bundle.codebook.rate_hz))
    return Device(device_id, fitting, shared_encoder(bundle.codebook, fitting.sensor))


def _address(number: int) -> str:
    return f"C0:00:00:00:{number >> 8:02X}:{number & 255:02X}"


async def _run(worn: list[Wearable], seconds: float | None) -> None:
    tasks = [asyncio.ensure_future(wearable.run()) for wearable in worn]

    async def stop() -> None:
        for task in tasks:
            task.cancel()

    async def work() -> None:
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    await until_stopped(work(), stop, seconds=seconds)


def _summarise(worn: list[Wearable], say: Callable[[str], None]) -> None:
    made, sent, dropped = (sum(getattr(w, name) for w in worn) for name in ("packets_made", "packets_sent", "dropped"))
    say(f"{made} packets made, {sent} sent, {dropped} dropped from full backlogs")
