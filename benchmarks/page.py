"""What the live page costs a gateway that serves a thousand devices.

::

    python -m benchmarks.page                 # ten minutes
    python -m benchmarks.page --seconds 60

A thousand devices send a packet a second each: packets of generated wearers, encoded beforehand and fed to the pipeline
at their own pace, with the network behind it; there is no broker. The page is off, on with nobody looking, and on with
one and two viewers (processes of their own) in turn, several times over. Processor time is this process's own, all of
it, for each packet: on a machine that is busy with something else, fewer packets are fed in a second, and less is done.
What the page costs is the difference to the turns without it, at the pace that is meant.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.machine import RESULTS, commit, machine
from device_emulator.device import Device, shared_encoder
from gammawear.wearables import synthetic_sources
from gateway.batcher import MicroBatcher
from gateway.bundles import BundleStore, DetectorStore
from gateway.cameras import Cameras
from gateway.live.guard import Hosts
from gateway.live.page import LivePage
from gateway.live.server import serving_page, url_of
from gateway.pipeline import Pipeline
from gateway.refusals import Refusals
from models.bundle import load_bundle
from protocol.messages import Label, Status
from protocol.topics import Kind, topic

DEVICES: Final = 1000
STREAMS: Final = 20
"""Different ones; each stands for as many devices as it takes."""
SLOTS: Final = 50
"""Packets of a second go out in so many portions."""
ROUNDS: Final = 5
WARM_UP_S: Final = 12.0
"""Until every device has sent, has been answered, and the page's histories of the last ten seconds are full."""
TURNS: Final = ("off", "nobody", "one viewer", "two viewers")


@dataclass
class Turn:
    """One stretch of time.

    Args:
        what: of :data:`TURNS`.
        core_share: processor time over time.
        packets_per_s: that were fed.
        us_per_packet: processor time for each.
        resident_mib: memory of the process at its end.
        slowest_ms: the longest that the loop was late.
    """

    what: str
    core_share: float
    packets_per_s: float
    us_per_packet: float
    resident_mib: float
    slowest_ms: float


class Fed:
    """A gateway without a broker, and the devices that feed it."""

    connected = True
    """To nothing; the page shows it."""

    def __init__(self, devices: int, seconds: float) -> None:
        self.batcher = MicroBatcher(queue_limit=100_000)
        refusals = Refusals()
        self.cameras = Cameras(DetectorStore(()), submit=lambda _: None, publish=lambda *_: None, refusals=refusals)
        self.pipeline = Pipeline(
            BundleStore(), submit=self.batcher.put, publish=lambda *_: None, cameras=self.cameras, refusals=refusals
        )
        self.packets = 0
        self.late_ms = 0.0
        self._names = [f"wearable-{number:04d}" for number in range(devices)]
        self._streams = [_stream(seed, seconds) for seed in range(STREAMS)]

    async def run(self) -> None:
        """Feed until the packets are over."""
        loop = asyncio.get_running_loop()
        for name in self._names:
            self._feed(name, Kind.STATUS, Status(state="online", source="synthetic").to_json())
        portions = [self._names[slot::SLOTS] for slot in range(SLOTS)]
        places = {name: number % STREAMS for number, name in enumerate(self._names)}
        started = loop.time()
        for second in itertools.count():
            for slot, names in enumerate(portions):
                due = started + second + slot / SLOTS
                await asyncio.sleep(max(0.0, due - loop.time()))
                self.late_ms = max(self.late_ms, 1000 * (loop.time() - due))
                for name in names:
                    stream = self._streams[places[name]]
                    if second >= len(stream):
                        return
                    packet, labels = stream[second]
                    self._feed(name, Kind.IMU, packet)
                    self.packets += 1
                    for label in labels:
                        self._feed(name, Kind.LABEL, label)

    async def sweep(self) -> None:
        """As the service does."""
        while True:
            await asyncio.sleep(0.1)
            self.pipeline.sweep()

    @contextlib.asynccontextmanager
    async def page(self) -> AsyncIterator[str]:
        """The page, at this address."""
        page = LivePage(self.pipeline, self.batcher, self.cameras, self, lambda *_: None, previews=False, token=None)
        async with serving_page(page.app(Hosts("127.0.0.1")), "127.0.0.1", 0) as port, page.running():
            yield url_of("127.0.0.1", port)

    def _feed(self, name: str, kind: Kind, payload: bytes) -> None:
        self.pipeline.feed(topic(name, kind), payload, time.time_ns(), qos=1)


def _stream(seed: int, seconds: float) -> list[tuple[bytes, list[bytes]]]:
    """Packets of a generated wearer, about a second each, with their labels."""
    bundle = load_bundle("wrist6")
    (source,) = synthetic_sources(bundle, bundle.sensor, count=1, seed=seed, rate_hz=None)
    device = Device("any", source, shared_encoder(bundle.codebook, source.sensor))
    made = []
    for _ in range(int(seconds) + 2):
        emission = device.next_packet()
        assert emission is not None  # noqa: S101 - a generated wearer has no end
        labels = [
            Label(activity=run.activity, from_tick=run.from_tick, to_tick=run.to_tick).to_json()
            for run in emission.labels
        ]
        made.append((emission.packet, labels))
    return made


async def measure(*, devices: int, seconds: float, turns: Sequence[str], rounds: int) -> list[Turn]:
    """Turns of ``seconds`` altogether, after a warm-up."""
    fed = Fed(devices, seconds + WARM_UP_S + 4 * rounds * len(turns))
    gc.collect()
    tasks = [
        asyncio.create_task(fed.run()),
        asyncio.create_task(fed.sweep()),
        asyncio.create_task(fed.batcher.run(fed.pipeline.answered)),
    ]
    measured = []
    try:
        await asyncio.sleep(WARM_UP_S)
        for what in [*turns] * rounds:
            measured.append(await _turn(fed, what, seconds / rounds / len(turns)))
            sys.stderr.write(f"{measured[-1]}\n")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return measured


async def _turn(fed: Fed, what: str, seconds: float) -> Turn:
    async with contextlib.AsyncExitStack() as stack:
        if what != "off":
            url = await stack.enter_async_context(fed.page())
            for _ in range(TURNS.index(what) - 1):
                await stack.enter_async_context(_viewer(url))
        await asyncio.sleep(1.0)  # a viewer's first state is no part of what goes on
        fed.late_ms = 0.0
        packets, cpu_s, wall_s = fed.packets, time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
        packets = max(1, fed.packets - packets)
        return Turn(what, cpu_s / wall_s, packets / wall_s, 1e6 * cpu_s / packets, resident_mib(), fed.late_ms)


@contextlib.asynccontextmanager
async def _viewer(url: str) -> AsyncIterator[None]:
    """A process that reads events, and nothing else."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys, urllib.request\n"
        "with urllib.request.urlopen(sys.argv[1]) as events:\n"
        "    print(len(events.readline()), flush=True)\n"
        "    while events.read1(65536): pass\n",
        f"{url}api/events?device=wearable-0000",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    try:
        await process.stdout.readline()
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class Cost:
    """Medians over the turns of one kind, and how many there were."""

    turns: list[Turn] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """For the results."""
        names = ("core_share", "packets_per_s", "us_per_packet", "slowest_ms")
        return {name: round(statistics.median(getattr(turn, name) for turn in self.turns), 4) for name in names} | {
            "turns": len(self.turns)
        }


def summary(turns: list[Turn], devices: int) -> dict[str, Any]:
    """Medians by kind, the page's share of a core, and memory at the end of each turn."""
    costs: dict[str, Cost] = {}
    for turn in turns:
        costs.setdefault(turn.what, Cost()).turns.append(turn)
    figures = {what: cost.figures() for what, cost in costs.items()}
    share = {what: one["us_per_packet"] * devices / 1e6 for what, one in figures.items()}
    return {
        "turns": figures,
        "core_share": {what: round(one, 4) for what, one in share.items()},
        "page_core_share": {what: round(one - share["off"], 4) for what, one in share.items() if what != "off"},
        "resident_mib": [round(turn.resident_mib, 1) for turn in turns],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write ``results/page.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="of all turns together")
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--out", type=Path, default=RESULTS / "page.json")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    turns = asyncio.run(measure(devices=chosen.devices, seconds=chosen.seconds, turns=TURNS, rounds=ROUNDS))
    result = {
        "machine": machine(),
        "commit": commit(),
        "load_at_start": round(load, 2),
        "devices": chosen.devices,
        "seconds": chosen.seconds,
        **summary(turns, chosen.devices),
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
