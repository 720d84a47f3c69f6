"""How fast it is: encoding, the gateway's hot path, inference, a fleet on one core, and latency from end to end.

    python -m benchmarks.speed            # about a minute; writes benchmarks/results/speed.json
    python -m benchmarks.speed --quick    # seconds, and figures that only show that it works

One thread everywhere. Short calls are timed in rounds, and the *best* round counts: whatever else the machine does only
adds to it. Fleets run against a real mosquitto in real time, with everything else in this one process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import timeit
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import RESULTS, commit, machine
from device_emulator.fleet import Fleet
from device_emulator.synthetic import SyntheticSource
from gammawear.broker import RunningBroker, find_mosquitto, local_broker
from gammawear.wearables import WearableOptions, synthetic_sources, wearables
from gateway.bundles import BundleStore
from gateway.pipeline import Pipeline
from gateway.service import Gateway, GatewaySettings
from models.bundle import SHIPPED, Bundle, load_bundle
from models.har import HarConfig, build
from protocol.connection import Connection, Received
from protocol.messages import Activity
from protocol.packet import Packet, _crc8
from protocol.topics import Kind, every, parse, topic
from quantization.codec import Encoder, network_input

BATCHES = (1, 32, 256)
PACKET_SAMPLES = 50
"""One second at wrist6's rate: 162 bytes with our header."""
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    rounds: int
    round_s: float
    fleet: int
    fleet_s: float
    latency_devices: int
    latency_s: float


FULL = Size(rounds=7, round_s=0.2, fleet=500, fleet_s=10.0, latency_devices=100, latency_s=12.0)
QUICK = Size(rounds=2, round_s=0.02, fleet=20, fleet_s=1.0, latency_devices=10, latency_s=2.0)


class Results:
    """Figures for machines, rows for people."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.rows: list[dict[str, str]] = []

    def add(self, name: str, value: float, what: str, figure: str, how: str) -> None:
        """Note one figure."""
        self.figures[name] = float(f"{value:.4g}")
        self.rows.append({"what": what, "figure": figure, "how": how})


def best_s(call: Callable[[], object], size: Size) -> float:
    """Seconds of one call in the best of some rounds."""
    once = min(timeit.repeat(call, number=1, repeat=3))
    number = max(1, round(size.round_s / max(once, 1e-9)))
    return min(timeit.repeat(call, number=number, repeat=size.rounds)) / number


# -- device -----------------------------------------------------------------------------------------------------------


def measure_encoder(results: Results, bundle: Bundle, size: Size) -> None:
    """From counts to the bytes of packets."""
    encoder = Encoder(bundle.codebook, bundle.sensor)
    counts = SyntheticSource(bundle.sensor, rate_hz=100.0, seed=1).read(100).counts

    def second() -> None:
        for sequence, block in enumerate((counts[:50], counts[50:])):
            bytes(Packet.from_codes(encoder.encode(block), bundle.codebook, sequence=sequence, tick_ms=500 * sequence))

    took_us = 1e6 * best_s(second, size)
    how = f"6 channels at 100 Hz: counts to 4-bit codes to two packets with CRC; best of {size.rounds} rounds"
    results.add("encode_us_per_signal_second", took_us, "encode a second of signal", f"{took_us:.0f} µs", how)

    data = bytes(np.random.default_rng(0).integers(0, 256, 161, dtype=np.uint8))
    took_us = 1e6 * best_s(lambda: _crc8(data), size)
    how = f"CRC-8 of a 162-byte packet; best of {size.rounds} rounds"
    results.add("crc_us_per_packet", took_us, "checksum of a packet", f"{took_us:.1f} µs", how)


# -- gateway ----------------------------------------------------------------------------------------------------------


def measure_pipeline(results: Results, bundle: Bundle, size: Size) -> None:
    """Everything between the socket and the network."""
    devices, packets = 50, 20
    source = SyntheticSource(bundle.sensor, rate_hz=bundle.manifest.rate_hz, seed=2)
    encoder = Encoder(bundle.codebook, bundle.sensor)
    codes = [encoder.encode(source.read(PACKET_SAMPLES).counts) for _ in range(packets)]
    payloads = [
        bytes(Packet.from_codes(one, bundle.codebook, sequence=n, tick_ms=1000 * n)) for n, one in enumerate(codes)
    ]
    topics = [topic(f"w{n}", Kind.IMU) for n in range(devices)]
    store = BundleStore([SHIPPED])
    cut = 0

    def submit(_: object) -> None:
        nonlocal cut
        cut += 1

    def stream() -> None:
        pipeline = Pipeline(store, submit=submit, publish=lambda _topic, _payload: None)
        received_ns = time.time_ns()
        for payload in payloads:
            received_ns += 10**9
            for name in topics:
                pipeline.feed(name, payload, received_ns, qos=1)
        if pipeline.losses.accepted != devices * packets:
            raise RuntimeError("the pipeline did not take every packet")

    took_us = 1e6 * best_s(stream, size) / (devices * packets)
    if cut == 0:
        raise RuntimeError("no window was cut")
    how = (
        "topic, CRC, decoding, byte counts, reassembly, windows; 50 samples of 6 channels a packet; "
        f"no socket, no inference; best of {size.rounds} rounds"
    )
    results.add("pipeline_us_per_packet", took_us, "a packet through the gateway", f"{took_us:.0f} µs", how)
    rate = 1e6 / took_us
    results.add("pipeline_packets_per_s", rate, "packets through the gateway", f"{rate:,.0f} /s", "one core; as above")


def measure_inference(results: Results, bundles: list[Bundle], size: Size) -> None:
    """Windows a second on one thread, from codes to probabilities."""
    networks = {
        f"{bundle.reference} ({bundle.network.config.kind})": (bundle.network, bundle.codebook.bits)
        for bundle in bundles
    }
    torch.manual_seed(0)
    networks["tinier"] = (build(HarConfig("tinier", channels=6, classes=5, window=50)).eval(), 4)
    rng = np.random.default_rng(0)
    for name, (network, bits) in networks.items():
        config = network.config
        parameters = sum(parameter.numel() for parameter in network.parameters())
        rates = []
        for batch in BATCHES:
            codes = rng.integers(0, 2**bits, (batch, config.window, config.channels), dtype=np.uint8)

            @torch.inference_mode()
            def predict(network: Any = network, codes: Any = codes, bits: int = bits) -> None:  # noqa: ANN401
                logits = network(torch.from_numpy(network_input(codes, bits)))
                torch.softmax(logits, dim=1).numpy()
                torch.logsumexp(logits, dim=1).numpy()

            rates.append(batch / best_s(predict, size))
            results.figures[f"inference_windows_per_s/{name.split('@')[0]}/{batch}"] = float(f"{rates[-1]:.4g}")
        figure = " · ".join(f"{rate:,.0f}" for rate in rates)
        shape = f"{config.window} samples × {config.channels} channels, {parameters:,} parameters"
        how = f"batches of 1 · 32 · 256; {shape}; one thread; best of {size.rounds} rounds"
        results.rows.append({"what": f"windows a second, {name}", "figure": figure, "how": how})


# -- fleets -----------------------------------------------------------------------------------------------------------


async def until(condition: Callable[[], object]) -> None:
    """Wait for a state."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


def make_fleet(bundle: Bundle, broker: RunningBroker, count: int, *, rate_hz: float | None = None) -> Fleet:
    """Generated wearers that publish packets of 1 s with QoS 1, and no labels: wearables have none."""
    sources = synthetic_sources(bundle, bundle.sensor, count=count, seed=1, rate_hz=rate_hz)
    return Fleet(wearables(sources, bundle, broker.settings, WearableOptions(labels=False)))


async def measure_fleet(results: Results, bundle: Bundle, broker: RunningBroker, size: Size) -> None:
    """The processor that emulated devices take."""
    fleet = make_fleet(bundle, broker, size.fleet, rate_hz=52.0)
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
        f"52 Hz, 6 channels, packets of 1 s, QoS 1 over {broker.name}, generating the wearers included; "
        f"{wall_s:.0f} s, {packets:,} packets, {late} late, lag at the end {1000 * lag_s:.0f} ms"
    )
    results.add("fleet_core_share", load, f"{size.fleet} emulated devices", f"{load:.0%} of a core", how)
    how = "the same, extrapolated to a whole core"
    results.add("devices_per_core", size.fleet / load, "emulated devices on a core", f"{size.fleet / load:,.0f}", how)


async def measure_latency(results: Results, bundle: Bundle, broker: RunningBroker, size: Size) -> None:
    """From a packet's publication to the answer at a subscriber, with devices, gateway and subscriber in one loop."""
    gateway = Gateway(GatewaySettings(broker=broker.settings, bundle_dirs=(SHIPPED,)))
    fleet = make_fleet(bundle, broker, size.latency_devices)
    published_ns: dict[str, dict[int, int]] = defaultdict(dict)
    answers: list[Received] = []

    def watch(connection: Connection, device: str) -> None:
        publish, name = connection.publish, topic(device, Kind.IMU)

        def noted(to: str, payload: bytes, qos: int = 0, *, retain: bool = False) -> None:
            if to == name:
                # Packets have 1 s of signal each, so that the n-th ends before tick 1000 (n + 1).
                published_ns[device][len(published_ns[device])] = time.time_ns()
            publish(to, payload, qos, retain=retain)

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
        last = (activity.to_tick - 1) // 1000
        took_ms.append((answer.received_ns - published_ns[parse(answer.topic)[0]][last]) / 1e6)
    p50, p99 = np.percentile(took_ms, (50, 99))
    how = (
        f"{size.latency_devices} devices: packet handed to MQTT → {broker.name} → gateway → answer at a subscriber, "
        f"all in one process; up to 20 ms are the wait for a batch; {len(took_ms):,} windows, {summary.lost} lost"
    )
    results.add("latency_ms_p50", p50, "latency, median", f"{p50:.0f} ms", how)
    results.add("latency_ms_p99", p99, "latency, 99th percentile", f"{p99:.0f} ms", "the same windows")


async def measure_fleets(results: Results, bundle: Bundle, size: Size) -> None:
    """What needs a broker."""
    async with local_broker(prefer="mosquitto") as broker:
        await measure_fleet(results, bundle, broker, size)
        await measure_latency(results, bundle, broker, size)


# -- command line -----------------------------------------------------------------------------------------------------


def run(size: Size, notes: Console) -> Results:
    """Measure everything."""
    torch.set_num_threads(1)
    results = Results()
    wrist6, wrist3 = load_bundle("wrist6"), load_bundle("wrist3")
    with notes.status("measuring"):
        measure_encoder(results, wrist6, size)
        measure_pipeline(results, wrist6, size)
        measure_inference(results, [wrist6, wrist3], size)
        if find_mosquitto() is not None:
            asyncio.run(measure_fleets(results, wrist6, size))
        else:
            notes.print("mosquitto is not installed: fleets are left out")
    return results


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it works; no figures to quote, none are stored")
    parser.add_argument("--out", type=Path, help="where to write; benchmarks/results/speed.json unless --quick")
    arguments = parser.parse_args()
    out = arguments.out or (None if arguments.quick else RESULTS / "speed.json")
    load = os.getloadavg()[0]
    notes = Console(stderr=True)
    if load > 0.5 and not arguments.quick:
        notes.print(f"[yellow]the machine is busy (load {load:.1f}): figures will be worse than they should be[/]")
    results = run(QUICK if arguments.quick else FULL, notes)
    table = Table(title="speed")
    for column in ("what", "figure", "how"):
        table.add_column(column, no_wrap=column != "how")
    for row in results.rows:
        table.add_row(row["what"], row["figure"], row["how"])
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if out is not None:
        result = {
            "machine": machine(),
            "commit": commit(),
            "load_at_start": round(load, 2),
            "quick": arguments.quick,
            "figures": results.figures,
            "rows": results.rows,
        }
        out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        notes.print(f"written to {out}")


if __name__ == "__main__":
    main()
