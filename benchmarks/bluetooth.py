"""Many virtual wearables through one controller and one bridge: notifications, added latency, processor.

    python -m benchmarks.bluetooth

The wearables and the virtual radio are a process of their own; bridge, broker's client and a subscriber are in this
one, whose processor time is what is reported. *Added latency* is from a notification's arrival at the bridge to the
packet's arrival at the subscriber, over a real broker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.machine import RESULTS, commit, machine
from benchmarks.speed_fleets import until
from device_emulator.ble.bridge import Bridge, BridgeSettings
from device_emulator.ble.streams import PacketStream
from gammawear.broker import local_broker
from protocol.connection import Connection, Received
from protocol.topics import Kind, every

BUNDLE = "wrist6@1"
RATE_HZ = 52.0
INTERVAL_MS = 30.0
SETTLE_S = 3.0


@asynccontextmanager
async def wearables(count: int) -> AsyncIterator[str]:
    """Run them in a process; gives the transport for the bridge."""
    program = shutil.which("gammawear", path=str(Path(sys.executable).parent))
    assert program is not None  # noqa: S101 - benchmarks run where gammawear is installed
    options = ("--bundle", BUNDLE, "--rate", f"{RATE_HZ:g}", "--interval", f"{INTERVAL_MS:g}")
    process = await asyncio.create_subprocess_exec(
        program, "wearable", "--count", str(count), "--air", "0", *options, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None  # noqa: S101
    try:
        while not (found := re.search(rb"--hci (tcp-client:\S+)", line := await process.stderr.readline())):
            if not line:
                raise SystemExit("the wearables did not start")
        yield found[1].decode()
    finally:
        process.terminate()
        await process.wait()


async def measure(count: int, seconds: float) -> dict[str, float]:
    """Stream for so long; returns the figures."""
    arrived: dict[bytes, int] = {}
    added_ms: list[float] = []
    plain_feed = PacketStream.feed

    def feed(stream: PacketStream, characteristic: str, data: bytes) -> None:
        arrived[data] = time.time_ns()
        plain_feed(stream, characteristic, data)

    def heard(received: Received) -> None:
        if (at := arrived.pop(received.payload, None)) is not None:
            added_ms.append((received.received_ns - at) / 1e6)

    PacketStream.feed = feed  # type: ignore[method-assign]
    async with local_broker(prefer="mosquitto") as broker, wearables(count) as hci:
        subscriber = Connection(broker.settings, "subscriber", subscriptions=((every(Kind.IMU), 1),), on_message=heard)
        bridge = Bridge(BridgeSettings(hci=hci, max_devices=count), broker.settings)
        tasks = [asyncio.create_task(subscriber.run()), asyncio.create_task(bridge.run())]
        await until(lambda: sum(f.state == "streaming" for f in bridge.followers.values()) == count)
        await asyncio.sleep(SETTLE_S)
        added_ms.clear()
        before = sum(f.notifications for f in bridge.followers.values())
        cpu_s, wall_s = time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
        came = sum(f.notifications for f in bridge.followers.values()) - before
        p50, p99 = np.percentile(added_ms, [50, 99])
        lost = sum(f.connections - 1 for f in bridge.followers.values())
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "wearables": count,
        "rate_hz": RATE_HZ,
        "connection_interval_ms": INTERVAL_MS,
        "seconds": round(wall_s, 1),
        "notifications_per_s": round(came / wall_s, 1),
        "reached_the_subscriber": round(len(added_ms) / came, 4),
        "added_latency_ms_p50": round(float(p50), 2),
        "added_latency_ms_p99": round(float(p99), 2),
        "core_share": round(cpu_s / wall_s, 3),
        "links_lost": lost,
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1,8,32", help="wearables, one run each")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "bluetooth.json")
    arguments = parser.parse_args()
    rows = []
    for count in map(int, arguments.counts.split(",")):
        rows.append(asyncio.run(measure(count, arguments.seconds)))
        Console(stderr=True).print(rows[-1])
    result = {"machine": machine(), "commit": commit(), "bundle": BUNDLE, "rows": rows}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
