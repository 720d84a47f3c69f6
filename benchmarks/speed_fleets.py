"""Emulated wearables, a real broker and a gateway in one process: what :mod:`benchmarks.speed` measures of them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from benchmarks.timing import Results, Size
from device_emulator.fleet import Fleet
from gammawear.broker import RunningBroker, local_broker
from gammawear.wearables import WearableOptions, synthetic_sources, wearables
from gateway.service import Gateway, GatewaySettings
from models.bundle import SHIPPED, Bundle
from protocol.connection import Connection, Received
from protocol.messages import Activity
from protocol.topics import Kind, every, parse, topic

PATIENCE_S = 60.0


def describe(bundle: Bundle) -> str:
    """Rate, channels and coder of what a bundle's devices send."""
    book = bundle.codebook
    coder = "plainly packed" if book.contexts is None else "entropy coded"
    return f"{book.rate_hz:g} Hz, {len(book.channels)} channels, {book.bits}-bit codes, {coder}"


async def until(condition: Callable[[], object]) -> None:
    """Wait for a state."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


def make_fleet(bundle: Bundle, broker: RunningBroker, count: int) -> Fleet:
    """Generated wearers that publish packets of up to 1 s with QoS 1, and no labels: wearables have none."""
    sources = synthetic_sources(bundle, bundle.sensor, count=count, seed=1, rate_hz=None)
    return Fleet(wearables(sources, bundle, broker.settings, WearableOptions(labels=False)))


async def measure_fleet(results: Results, bundle: Bundle, broker: RunningBroker, size: Size) -> None:
    """The processor that emulated devices take."""
    fleet = make_fleet(bundle, broker, size.fleet)
    name, period_s = bundle.reference, fleet.publishers[0].period_s
    running = asyncio.create_task(fleet.run())
    await until(lambda: fleet.connected == size.fleet)
    await asyncio.sleep(1.0)  # the first packets of all are made at their first sample
    packets, cpu_s, wall_s = fleet.packets_published, time.process_time(), time.monotonic()
    await asyncio.sleep(size.fleet_s)
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    packets = fleet.packets_published - packets
    late, lag_s = fleet.late, fleet.lag_s
    await fleet.stop()
    await running
    load = cpu_s / wall_s
    how = (
        f"{describe(bundle)}, packets of {period_s:g} s, QoS 1 over {broker.name}, generating the wearers included; "
        f"{wall_s:.0f} s, {packets:,} packets, {late} late, lag at the end {1000 * lag_s:.0f} ms"
    )
    what = f"{size.fleet} emulated devices, {name}"
    results.add(f"fleet_core_share/{name}", load, what, f"{load:.0%} of a core", how)
    how = "the same, extrapolated to a whole core"
    figure = f"{size.fleet / load:,.0f}"
    results.add(f"devices_per_core/{name}", size.fleet / load, f"emulated devices on a core, {name}", figure, how)


async def measure_latency(results: Results, bundle: Bundle, broker: RunningBroker, size: Size) -> None:
    """From a packet's publication to the answer at a subscriber, with devices, gateway and subscriber in one loop."""
    gateway = Gateway(GatewaySettings(broker=broker.settings, bundle_dirs=(SHIPPED,)))
    fleet = make_fleet(bundle, broker, size.latency_devices)
    period_ms = 1000 * fleet.publishers[0].period_s
    published_ns: dict[str, dict[int, int]] = defaultdict(dict)
    answers: list[Received] = []

    def watch(connection: Connection, device: str) -> None:
        publish, name = connection.publish, topic(device, Kind.IMU)

        def noted(topic: str, payload: bytes, qos: int = 0, *, retain: bool = False) -> None:
            if topic == name:
                # Packets are equally long, so that the n-th ends before tick (n + 1) period_ms.
                published_ns[device][len(published_ns[device])] = time.time_ns()
            publish(topic, payload, qos, retain=retain)

        connection.publish = noted  # type: ignore[method-assign]

    for publisher in fleet.publishers:
        watch(publisher.connection, publisher.device.device_id)
    listener = Connection(
        broker.settings, "listener", subscriptions=((every(Kind.ACTIVITY), 0),), on_message=answers.append
    )
    tasks = [asyncio.create_task(gateway.run()), asyncio.create_task(listener.run())]
    await gateway.wait_connected(PATIENCE_S)
    await listener.wait_connected(PATIENCE_S)
    running = asyncio.create_task(fleet.run())
    await asyncio.sleep(size.latency_s + 1.0)
    await fleet.stop()
    await running
    await until(lambda: gateway.summary().packets == fleet.packets_made)
    await until(lambda: len(answers) == gateway.summary().windows > 0)
    summary = gateway.summary()
    await gateway.stop()
    await listener.stop()
    await asyncio.gather(*tasks)

    took_ms = []
    for answer in answers:
        activity = Activity.parse(answer.payload)
        last = int((activity.to_tick - 1) / period_ms)
        took_ms.append((answer.received_ns - published_ns[parse(answer.topic)[0]][last]) / 1e6)
    p50, p99 = np.percentile(took_ms, (50, 99))
    how = (
        f"{size.latency_devices} devices, {bundle.reference}: packet handed to MQTT → {broker.name} → gateway → answer "
        f"at a subscriber, all in one process; up to 20 ms are the wait for a batch; {len(took_ms):,} windows, "
        f"{summary.lost} lost"
    )
    results.add("latency_ms_p50", p50, "latency, median", f"{p50:.0f} ms", how)
    results.add("latency_ms_p99", p99, "latency, 99th percentile", f"{p99:.0f} ms", "the same windows")


async def measure_fleets(results: Results, bundles: list[Bundle], size: Size) -> None:
    """What needs a broker: fleets of each bundle, latency of the first."""
    async with local_broker(prefer="mosquitto") as broker:
        for bundle in bundles:
            await measure_fleet(results, bundle, broker, size)
        await measure_latency(results, bundles[0], broker, size)
