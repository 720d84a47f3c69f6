"""How fast it is: encoding, the entropy coder, the gateway's hot path, inference, fleets on one core, and latency.

    python -m benchmarks.speed            # about a minute; writes benchmarks/results/speed.json
    python -m benchmarks.speed --quick    # seconds, and figures that only show that it works

The newest bundles are measured as they run, each with its own rate and coder; beside them stands :data:`PLAIN`, at
50 Hz and without the entropy coder, whose figures compare with those of earlier releases.

One thread everywhere. Short calls are timed in rounds, and the *best* round counts: whatever else the machine does only
adds to it. Fleets run against a real mosquitto in real time, with everything else in this one process.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import quantization
from benchmarks.machine import RESULTS, commit, machine
from benchmarks.speed_fleets import describe, measure_fleets
from benchmarks.speed_frames import measure_frames
from benchmarks.timing import FULL, QUICK, Results, Size, best_s
from device_emulator.device import Device, shared_encoder
from device_emulator.source import Source
from gammawear.broker import find_mosquitto
from gammawear.wearables import synthetic_sources
from gateway.bundles import BundleStore
from gateway.pipeline import Pipeline
from models.bundle import SHIPPED, Bundle, load_bundle
from models.har import HarConfig, build
from models.vision.bundle import load_detector
from protocol.packet import MAX_PAYLOAD_BYTES, MAX_SAMPLES, Packet, _crc8, encode_longest
from protocol.topics import Kind, topic
from quantization import rangecoder
from quantization.codec import network_input
from quantization.entropy import EntropyCoder, coder_of
from quantization.imu import Codes

BATCHES = (1, 32, 256)
PACKETS = 20
PACKET_S = 1.0
"""What devices do unless they are told otherwise."""
PLAIN = "wrist6@1"
"""6 channels at 50 Hz, plainly packed."""


def wearer(bundle: Bundle, seed: int) -> Source:
    """Somebody who is generated, at the bundle's rate."""
    (source,) = synthetic_sources(bundle, bundle.sensor, count=1, seed=seed, rate_hz=None)
    return source


# -- device -----------------------------------------------------------------------------------------------------------


def measure_encoder(results: Results, bundle: Bundle, size: Size) -> None:
    """From counts to the bytes of packets."""
    book, encoder = bundle.codebook, shared_encoder(bundle.codebook, bundle.sensor)
    samples, source = int(PACKET_S * book.rate_hz), wearer(bundle, 1)
    blocks = [source.read(samples).counts for _ in range(PACKETS)]

    def packets() -> list[bytes]:
        return [
            bytes(Packet.from_codes(encoder.encode(block), book, sequence=n, tick_ms=0))
            for n, block in enumerate(blocks)
        ]

    took_us = 1e6 * best_s(packets, size) / PACKETS
    mean = sum(map(len, packets())) / PACKETS
    how = (
        f"{describe(bundle)}: {samples} samples from counts to {mean:.0f} bytes with CRC; best of {size.rounds} rounds"
    )
    name = bundle.reference
    results.add(f"encode_us_per_packet/{name}", took_us, f"encode a packet, {name}", f"{took_us:.0f} µs", how)


def measure_checksum(results: Results, size: Size) -> None:
    """Of the packet that :data:`PLAIN` makes."""
    data = bytes(np.random.default_rng(0).integers(0, 256, 161, dtype=np.uint8))
    took_us = 1e6 * best_s(lambda: _crc8(data), size)
    how = f"CRC-8 of a 162-byte packet; best of {size.rounds} rounds"
    results.add("crc_us_per_packet", took_us, "checksum of a packet", f"{took_us:.1f} µs", how)


# -- entropy coder ----------------------------------------------------------------------------------------------------


def uncompiled(coder: EntropyCoder, bundle: Bundle) -> EntropyCoder:
    """The same in plain Python, as on a device without numba."""
    if not rangecoder.COMPILED:
        return coder
    spec = importlib.util.spec_from_file_location("rangecoder_plain", rangecoder.__file__)
    if spec is None or spec.loader is None or bundle.codebook.contexts is None:
        raise RuntimeError("the range coder cannot be loaded a second time")
    module = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, {"numba": None}):
        spec.loader.exec_module(module)
    with patch.object(quantization, "rangecoder", module):
        return EntropyCoder(bundle.codebook.bits, bundle.codebook.contexts)


def coded_blocks(bundle: Bundle, seconds: float) -> list[Codes]:
    """Codes of a wearer that the entropy coder makes shorter, packet by packet."""
    book, encoder = bundle.codebook, shared_encoder(bundle.codebook, bundle.sensor)
    codes = encoder.encode(wearer(bundle, 3).read(PACKETS * MAX_SAMPLES).counts)
    blocks: list[Codes] = []
    at = 0
    while len(blocks) < PACKETS and at < len(codes):
        wanted = min(MAX_SAMPLES, max(1, int(seconds * book.rate_hz)))
        samples, _, _ = encode_longest(codes[at : at + wanted], book)
        blocks.append(codes[at : at + samples])
        at += samples
    return blocks


def measure_coder(results: Results, bundle: Bundle, size: Size) -> None:
    """Codes a second, to bytes and back, in packets as devices make them and in the longest ones."""
    fast = coder_of(bundle.codebook)
    if fast is None:
        return
    coders = {"plain Python": uncompiled(fast, bundle)}
    if rangecoder.COMPILED:
        coders = {"compiled": fast, **coders}
    lengths = [coded_blocks(bundle, PACKET_S), coded_blocks(bundle, MAX_SAMPLES)]
    means = [sum(block.size for block in blocks) / len(blocks) for blocks in lengths]
    for kind, coder in coders.items():
        rates: dict[str, list[float]] = {"encode": [], "decode": []}
        for blocks in lengths:
            symbols = sum(block.size for block in blocks)
            data = [(coder.encode(block, MAX_PAYLOAD_BYTES) or b"", len(block)) for block in blocks]
            if not all(np.array_equal(coder.decode(*one), block) for one, block in zip(data, blocks, strict=True)):
                raise RuntimeError("what was coded does not decode to itself")
            rates["encode"].append(symbols / best_s(lambda: [coder.encode(b, MAX_PAYLOAD_BYTES) for b in blocks], size))  # noqa: B023
            rates["decode"].append(symbols / best_s(lambda: [coder.decode(*one) for one in data], size))  # noqa: B023
        for direction, (short, long) in rates.items():
            how = (
                f"codes a second, {kind}, one core: packets of {means[0]:.0f} codes (1 s) · of {means[1]:.0f} (as many "
                f"as fit); synthetic wearer; best of {size.rounds} rounds"
            )
            key = f"entropy_{direction}_codes_per_s/{bundle.reference}/{kind.replace(' ', '_').lower()}"
            results.note(key, short)
            results.note(f"{key}/longest", long)
            what = f"entropy coder, {direction}, {bundle.reference}, {kind}"
            results.show(what, f"{short:,.0f} · {long:,.0f} /s", how)


# -- gateway ----------------------------------------------------------------------------------------------------------


def measure_pipeline(results: Results, bundle: Bundle, size: Size) -> None:
    """Everything between the socket and the network."""
    devices, name = 50, bundle.reference
    device = Device("w", wearer(bundle, 2), shared_encoder(bundle.codebook, bundle.sensor), packet_s=PACKET_S)
    made = [emission for _ in range(PACKETS) if (emission := device.next_packet()) is not None]
    topics = [topic(f"w{n}", Kind.IMU) for n in range(devices)]
    store = BundleStore([SHIPPED])
    cut = 0

    def submit(_: object) -> None:
        nonlocal cut
        cut += 1

    def stream() -> None:
        pipeline = Pipeline(store, submit=submit, publish=lambda _topic, _payload: None)
        began_ns = time.time_ns()
        for emission in made:
            received_ns = began_ns + 10**6 * emission.due_ms
            for one in topics:
                pipeline.feed(one, emission.packet, received_ns, qos=1)
        if pipeline.losses.accepted != devices * PACKETS:
            raise RuntimeError("the pipeline did not take every packet")

    took_us = 1e6 * best_s(stream, size) / (devices * PACKETS)
    if cut == 0:
        raise RuntimeError("no window was cut")
    mean = device.bytes_made / device.packets_made
    how = (
        f"topic, CRC, decoding, byte counts, reassembly, windows; {describe(bundle)}, packets of {made[0].samples} "
        f"samples and {mean:.0f} bytes; no socket, no inference; best of {size.rounds} rounds"
    )
    results.add(
        f"pipeline_us_per_packet/{name}", took_us, f"a packet through the gateway, {name}", f"{took_us:.0f} µs", how
    )
    rate = 1e6 / took_us
    what = f"packets through the gateway, {name}"
    results.add(f"pipeline_packets_per_s/{name}", rate, what, f"{rate:,.0f} /s", "one core; as above")


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
            results.note(f"inference_windows_per_s/{name.split(' ')[0]}/{batch}", rates[-1])
        figure = " · ".join(f"{rate:,.0f}" for rate in rates)
        shape = f"{config.window} samples × {config.channels} channels, {parameters:,} parameters"
        how = f"batches of 1 · 32 · 256; {shape}; one thread; best of {size.rounds} rounds"
        results.show(f"windows a second, {name}", figure, how)


# -- command line -----------------------------------------------------------------------------------------------------


def run(size: Size, notes: Console) -> Results:
    """Measure everything."""
    torch.set_num_threads(1)
    results = Results()
    newest, plain = [load_bundle("wrist6"), load_bundle("wrist3")], load_bundle(PLAIN)
    bundles = [*newest, *([plain] if plain.reference not in {one.reference for one in newest} else [])]
    with notes.status("measuring"):
        for bundle in bundles:
            measure_encoder(results, bundle, size)
        measure_checksum(results, size)
        for bundle in newest:
            measure_coder(results, bundle, size)
        for bundle in bundles:
            measure_pipeline(results, bundle, size)
        measure_inference(results, bundles, size)
        measure_frames(results, load_detector("street"), size)
        if find_mosquitto() is not None:
            asyncio.run(measure_fleets(results, [bundles[0], *bundles[2:]], size))
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
