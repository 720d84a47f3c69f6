"""Brokers and gateways that are restarted, that crash, and that are killed, in the middle of streams."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from stack import (
    PATIENCE_S,
    Answers,
    accepted,
    all_answered,
    lost,
    made_by,
    more_from_each,
    new_gateway,
    note,
    packet_samples,
    patient_devices,
    received_by,
    serving,
    starts_of,
    streaming,
    synthetic,
    tick_of,
    until,
    window_starts,
    wrist6,
)

from device_emulator.fleet import Fleet
from device_emulator.link import LinkSettings
from gateway.service import Gateway
from models.bundle import Bundle
from protocol.broker_settings import BrokerSettings

__all__ = ["patient_devices", "wrist6"]

RESUMES_WITHIN_S = 10.0
"""After an outage; what docs/operations.md promises."""


async def test_a_broker_that_is_restarted_costs_nothing(mosquitto: Any, wrist6: Bundle) -> None:
    fleet = synthetic(wrist6, mosquitto.settings, 4, link=LinkSettings(duplicate=0.2))
    gateway = new_gateway(mosquitto.settings)
    answers = Answers(gateway)
    async with serving(gateway):
        async with streaming(fleet):
            await more_from_each(gateway, fleet, 15)
            await mosquitto.stop(signal.SIGTERM)
            made = fleet.packets_made
            await until(lambda: fleet.packets_made >= made + 60)
            await mosquitto.start()
            await more_from_each(gateway, fleet, 30)
        await until(lambda: accepted(gateway, fleet) == made_by(fleet))
        await until(lambda: gateway.pipeline.messages["imu"] >= fleet.packets_published)
        await all_answered(gateway)
        live = gateway.summary()
        received = gateway.pipeline.messages["imu"]

    assert (live.lost, live.rejected, live.packets) == (0, 0, fleet.packets_made)
    assert fleet.packets_published > fleet.packets_made, "the link duplicates some"
    assert live.duplicate == received - live.packets >= fleet.packets_published - fleet.packets_made
    assert gateway.pipeline.flushes == {}
    for publisher in fleet.publishers:
        assert answers.starts(publisher.device.device_id) == starts_of(publisher, wrist6), "each one once"
    note(live.packets, live.duplicate, live.answers)


Restart = Callable[[], Awaitable[None]]


async def check_that_streams_resume(broker: BrokerSettings, bundle: Bundle, end: Restart, begin: Restart) -> None:
    """Packets may be lost with such a broker, but each is accounted for."""
    fleet = synthetic(bundle, broker, 4)
    async with serving(new_gateway(broker)) as gateway:
        async with streaming(fleet):
            await more_from_each(gateway, fleet, 10)
            await end()
            made = fleet.packets_made
            await until(lambda: fleet.packets_made >= made + 40)
            await begin()
            began = asyncio.get_running_loop().time()
            await more_from_each(gateway, fleet, 1, within_s=RESUMES_WITHIN_S)
            resumed_s = asyncio.get_running_loop().time() - began
            await more_from_each(gateway, fleet, 20)

        def accounted() -> list[int]:
            return [sum(pair) for pair in zip(accepted(gateway, fleet), lost(gateway, fleet), strict=True)]

        await until(lambda: accounted() == made_by(fleet))
        await all_answered(gateway)
        assert all(device.reassembler.losses.restarts == 0 for device in gateway.pipeline.devices)
        live = gateway.summary()
    assert live.packets + live.lost == fleet.packets_made
    assert live.rejected == 0
    note(f"resumed after {resumed_s:.1f} s", live.packets, live.lost, fleet.packets_made)


async def test_after_a_killed_broker_streams_resume(mosquitto: Any, wrist6: Bundle) -> None:
    await check_that_streams_resume(mosquitto.settings, wrist6, lambda: mosquitto.stop(signal.SIGKILL), mosquitto.start)


EMBEDDED = """
import asyncio, sys
from gammawear.broker import local_broker

async def main():
    async with local_broker(int(sys.argv[1]), prefer="amqtt"):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Embedded:
    """A process with an embedded broker in it, which dies without a goodbye."""

    def __init__(self, port: int) -> None:
        self.settings = BrokerSettings(port=port, protocol="3.1.1")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = (sys.executable, "-c", EMBEDDED, str(self.settings.port))
        self._process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        assert await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S) == b"ready\n"

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()
            self._process = None


async def test_after_another_embedded_broker_streams_resume(free_port: int, wrist6: Bundle) -> None:
    broker = Embedded(free_port)
    await broker.start()
    try:
        await check_that_streams_resume(broker.settings, wrist6, broker.kill, broker.start)
    finally:
        await broker.kill()


def has_the_newest(gateway: Gateway, fleet: Fleet, bundle: Bundle) -> bool:
    """Whether the last packet that each device made has got its place."""
    for publisher in fleet.publishers:
        device = gateway.pipeline.devices.get(publisher.device.device_id)
        first_sample = (publisher.packets_made - 1) * packet_samples(publisher)
        if device is None or device.reassembler.tick != tick_of(first_sample, bundle.manifest.rate_hz):
            return False
    return True


def check_windows(fleet: Fleet, bundle: Bundle, gateways: tuple[Gateway, Gateway], seen: list[Answers]) -> None:
    """All windows were answered but for those of each device that the end of the first gateway cut in two.

    And but for those that were with its network at that moment, for some 20 ms after their last packet.
    """
    window, stride = bundle.manifest.window, bundle.manifest.stride
    cut_in_two, unanswered = 0, 0
    had = [accepted(gateway, fleet) for gateway in gateways]
    for publisher, before, after in zip(fleet.publishers, *had, strict=True):
        device, samples, made = publisher.device.device_id, packet_samples(publisher), publisher.packets_made
        answered = seen[0].starts(device)
        cut = window_starts(before * samples, bundle)
        assert answered == cut[: len(answered)]
        # From its first packet on, nothing is missing at the second.
        begins = made - after
        assert begins <= before
        assert seen[1].starts(device) == window_starts(made * samples, bundle, first=begins * samples)
        waiting = len(cut) - len(answered)
        missing = len(starts_of(publisher, bundle)) - len({*answered, *seen[1].starts(device)})
        assert missing <= waiting + -(-window // stride) - 1, "so many windows overlap each other's ends"
        cut_in_two += max(0, missing - waiting)
        unanswered += waiting
    note("packets of each device to the first gateway", had[0], "made", made_by(fleet))
    note("windows lost: cut in two", cut_in_two, "with the network", unanswered)


async def catches_up(second: Gateway, first: Gateway, fleet: Fleet, bundle: Bundle) -> None:
    """The second gateway goes on where the first one ended, until everything that was made has come to one of them."""
    await more_from_each(second, fleet, 20)
    await fleet.stop()
    # What had not been acknowledged comes again, so that both may have had it.
    await until(lambda: np.greater_equal(received_by(fleet, first, second), made_by(fleet)).all())
    await until(lambda: has_the_newest(second, fleet, bundle))
    await all_answered(second)


async def test_a_gateway_that_is_restarted_misses_no_packet(mosquitto: Any, wrist6: Bundle) -> None:
    fleet = synthetic(wrist6, mosquitto.settings, 4)
    first, second = new_gateway(mosquitto.settings), new_gateway(mosquitto.settings)
    seen = [Answers(first), Answers(second)]
    async with streaming(fleet):
        async with serving(first):
            await more_from_each(first, fleet, 10)
        made = fleet.packets_made
        await until(lambda: fleet.packets_made >= made + 40)
        async with serving(second):
            await catches_up(second, first, fleet, wrist6)
    for gateway in (first, second):
        assert (gateway.summary().lost, gateway.summary().duplicate, gateway.summary().rejected) == (0, 0, 0)
    check_windows(fleet, wrist6, (first, second), seen)


async def test_a_gateway_that_crashes_misses_no_packet(mosquitto: Any, wrist6: Bundle) -> None:
    fleet = synthetic(wrist6, mosquitto.settings, 4)
    first, second = new_gateway(mosquitto.settings), new_gateway(mosquitto.settings)
    seen = [Answers(first), Answers(second)]
    async with streaming(fleet):
        crashing = asyncio.create_task(first.run())
        await more_from_each(first, fleet, 10)
        crashing.cancel()
        await asyncio.gather(crashing, return_exceptions=True)
        made = fleet.packets_made
        await until(lambda: fleet.packets_made >= made + 40)
        async with serving(second):
            await catches_up(second, first, fleet, wrist6)
    assert second.summary().lost == 0
    check_windows(fleet, wrist6, (first, second), seen)
