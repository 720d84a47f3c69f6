"""``gammawear demo`` as people run it: the command, with either broker, beside another one, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from needed import need
from stack import PATIENCE_S, until
from test_gammawear_service import Command, start

from gammawear.broker import find_mosquitto
from models.bundle import load_bundle
from protocol.packet import HEADER_BYTES

__all__ = ["start"]

KEYS = {
    "source", "bundle", "bits", "broker", "wearables", "seconds", "speed", "macro_f1", "accuracy", "windows",
    "scored_windows", "bits_per_sample", "payload_bits_per_sample", "compression_over_12_bit_mqtt", "latency_ms",
    "age_ms_p50", "packets_sent", "packets_received", "packets_lost", "packets_rejected", "packets_duplicate",
    "wearables_seen",
}  # fmt: skip


def need_mosquitto() -> None:
    need(find_mosquitto(), "mosquitto (Debian: apt install mosquitto)")


def check_summary(demo: Command, *, wearables: int) -> dict[str, Any]:
    """The only line of standard output."""
    (line,) = demo.out
    result = json.loads(line)
    assert set(result) >= KEYS
    bundle = load_bundle("wrist6")
    book = bundle.codebook
    assert (result["source"], result["bundle"], result["bits"]) == ("synthetic", bundle.reference, book.bits)
    assert result["wearables"] == result["wearables_seen"] == wearables
    assert result["packets_sent"] == result["packets_received"] > 0
    assert result["packets_lost"] == result["packets_rejected"] == result["packets_duplicate"] == 0
    assert 0.0 <= result["macro_f1"] <= 1.0
    assert 0.0 <= result["accuracy"] <= 1.0
    assert 0 < result["scored_windows"] <= result["windows"]
    if book.contexts is None:
        assert result["payload_bits_per_sample"] == book.bits
    else:
        assert 0 < result["payload_bits_per_sample"] < 0.75 * book.bits
    values = int(book.rate_hz) * len(book.channels)  # of a packet, which lasts a second at most
    header_bits = 8 * HEADER_BYTES / values
    assert result["bits_per_sample"] == pytest.approx(result["payload_bits_per_sample"] + header_bits)
    assert result["compression_over_12_bit_mqtt"] > 2
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p90"] <= result["latency_ms"]["p99"]
    check_camera(result["camera"])
    return result


def check_camera(camera: dict[str, Any]) -> None:
    """One camera, whose frames all came and were looked at."""
    assert (camera["cameras"], camera["source"]) == (1, "synthetic")
    assert camera["frames_sent"] == camera["frames_received"] > 0
    assert camera["frames_looked_at"] > 0
    assert camera["frames_lost"] == 0
    assert 0 < camera["bits_per_photosite"] < 3
    assert camera["compression_over_12_bit"] > 4
    assert 0 <= camera["ap50"] <= 1


async def test_it_ends_by_itself_with_a_summary(start: Callable[..., Any]) -> None:
    need_mosquitto()
    brokers = ("mosquitto", "amqtt")
    options = ("--seconds", "6", "--metrics-port", "0", "--json")
    demos: list[Command] = [await start("demo", "--broker", broker, *options) for broker in brokers]
    for broker, demo in zip(brokers, demos, strict=True):
        assert await demo.ends() == 0, demo.err
        result = check_summary(demo, wearables=8)
        assert result["broker"].startswith(broker)
        assert result["seconds"] >= 6
        assert result["macro_f1"] > 0.2, "five activities by chance"
        demo.assert_nothing_is_left()
        assert not [line for line in demo.err if re.search("Traceback|ERROR|rejected", line)], demo.err


async def test_it_runs_beside_another_until_ctrl_c(start: Callable[..., Any], free_port: int, tmp_path: Path) -> None:
    need_mosquitto()
    port = str(free_port)
    (tmp_path / "full.svg").symlink_to("/dev/full")
    first = await start("demo", "--wearables", "3", "--metrics-port", port, "--json", "--picture", "demo.svg")
    address = (await first.says(r"metrics: (http://\S+)"))[1]
    assert address == f"http://127.0.0.1:{port}/metrics"
    options = ("--metrics-port", port, "--json", "--picture", "full.svg")
    second = await start("demo", "--wearables", "1", "--seconds", "4", *options)

    def fetch() -> str:
        with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:  # noqa: S310 - our own address
            return answer.read().decode()

    text = ""
    async with asyncio.timeout(PATIENCE_S):
        while "gammawear_live_macro_f1_ratio{" not in text:
            await asyncio.sleep(0.05)
            text = await asyncio.to_thread(fetch)
    assert 'gammawear_devices{state="online"} 3.0' in text
    if promtool := shutil.which("promtool"):
        checked = await asyncio.to_thread(
            subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    else:
        assert not os.environ.get("CI"), "promtool is not installed (Debian: apt install prometheus)"

    assert await second.ends() == 1, second.err
    check_summary(second, wearables=1)
    assert second.err[-1] == "error: No space left on device"
    await second.says(f"port {port} is taken")
    other = (await second.says(r"metrics: http://127\.0\.0\.1:(\d+)/metrics"))[1]
    assert other != port
    second.assert_nothing_is_left()

    assert first.process.returncode is None
    first.press_ctrl_c()
    assert await first.ends() == 0, first.err
    check_summary(first, wearables=3)
    assert "wearable-03" in (tmp_path / "demo.svg").read_text(encoding="utf-8")
    assert not [line for line in first.err if "Traceback" in line], first.err
    first.assert_nothing_is_left()


@pytest.mark.parametrize(("moment", "sig"), [("starting a broker", signal.SIGTERM), ("page: ", signal.SIGHUP)])
async def test_no_broker_outlives_it(start: Callable[..., Any], moment: str, sig: signal.Signals) -> None:
    need_mosquitto()
    demo: Command = await start("demo", "--wearables", "1", "--cameras", "0", "--metrics-port", "0", "--seconds", "60")
    await demo.says(moment)
    await until(lambda: list(demo.temporary.glob("*/mosquitto.conf")))
    while demo.process.returncode is None:  # in every moment of the end, too
        demo.process.send_signal(sig)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(demo.process.wait(), 0.05)
    assert await demo.ends() in (0, -sig), demo.err
    demo.assert_nothing_is_left()
    assert not [line for line in demo.err if "Traceback" in line], demo.err
