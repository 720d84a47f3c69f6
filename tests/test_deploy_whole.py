"""The site of ``deploy/compose.yaml``, all of it that this machine can run, started from what ships."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from deployed import Composed, fetched
from stack import PATIENCE_S

STRAPS = ("ble-01", "ble-02")
"""Wearables behind the bridge."""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Composed]:
    composed = Composed(tmp_path)
    yield composed
    await composed.close()


def admit(site: Composed, devices: tuple[str, ...]) -> None:
    """As the comment in ``acl`` has it: the four lines that begin with ``#+``, for each device."""
    acl = site.deploy / "local" / "acl"
    text = acl.read_text(encoding="utf-8")
    lines = re.findall(r"^#\+.*\n", text, re.MULTILINE)
    assert len(lines) == 4
    granted = "".join(line[2:].replace("DEVICE", one) for one in devices for line in lines)
    acl.write_text(text.replace(lines[-1], lines[-1] + granted), encoding="utf-8")


def as_root(site: Composed) -> None:
    """Started by root, mosquitto goes on as another user, who could not read the test's folder.."""
    if os.geteuid() == 0:
        config = site.deploy / "docker" / "mosquitto.conf"
        config.write_text("user root\n" + config.read_text(encoding="utf-8"), encoding="utf-8")


def scrape_here(site: Composed) -> None:
    """No name server knows the containers: addresses in place of names, and a second in place of 15."""
    config = site.deploy / "docker" / "prometheus.yml"
    text = config.read_text(encoding="utf-8").replace("15s", "1s").replace("gateway:9464", "127.0.0.1:9464")
    by_name = "dns_sd_configs:\n      - names: [bridge]\n        type: A\n        port: 9466\n"
    assert by_name in text
    config.write_text(text.replace(by_name, "static_configs:\n      - targets: ['127.0.0.1:9466']\n"), encoding="utf-8")


class Metrics:
    """What the gateway says of itself, series to values."""

    def __init__(self, site: Composed) -> None:
        self._url = f"http://127.0.0.1:{site.ports['9464']}/metrics"

    async def now(self) -> dict[str, float]:
        text = await asyncio.to_thread(fetched, self._url) or ""
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"}

    async def reach(self, **least: float) -> dict[str, float]:
        """Wait until the sum of the series of each name is at least so much."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await self.now()
                if all(total(found, name) >= value for name, value in least.items()):
                    return found
                await asyncio.sleep(0.1)


def total(series: dict[str, float], name: str) -> float:
    return sum(value for key, value in series.items() if key.partition("{")[0] == f"gammawear_{name}")


async def prometheus_says(site: Composed, what: str) -> Any:
    text = await asyncio.to_thread(fetched, f"http://127.0.0.1:{site.ports['9090']}/api/v1/{what}")
    return json.loads(text or "{}").get("data", {})


async def all_targets_up(site: Composed) -> set[str]:
    """Wait for it; gives the jobs."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            targets = (await prometheus_says(site, "targets?state=active")).get("activeTargets", [])
            if len(targets) == 2 and all(one["health"] == "up" for one in targets):
                return {one["labels"]["job"] for one in targets}
            await asyncio.sleep(0.1)


async def test_the_whole_site_comes_up_works_and_goes_down(site: Composed) -> None:
    admit(site, STRAPS)
    as_root(site)
    scrape_here(site)
    for name in ("mosquitto", "gateway", "bridge", "wearable", "camera", "prometheus"):
        site.prepare(name)
    running = {"mosquitto": await site.start("mosquitto")}
    await site.healthy("mosquitto")
    wearing = await site.run("straps", ["gammawear", "wearable", "--count", "2", "--air", "0"], {})
    hci = (await wearing.says(r"--hci (tcp-client:\S+)"))[1]
    for name in ("gateway", "wearable", "camera", "prometheus"):
        running[name] = await site.start(name)
    # The virtual radio in place of BlueZ; the rest is as it ships.
    running["bridge"] = await site.start("bridge", "--hci", hci, "--bonds", str(site.folder / "bonds.json"))
    for name in running:
        await site.healthy(name)

    assert await all_targets_up(site) == {"gammawear-gateway", "gammawear-bridge"}
    series = await Metrics(site).reach(streaming_devices=3, streaming_cameras=1, predictions_total=6, frames_total=4)
    assert series['gammawear_devices{state="online"}'] == 3
    assert series['gammawear_bridges{state="online"}'] == 1
    refused = {key: value for key, value in series.items() if "rejected" in key and key.endswith("}") and value}
    assert refused == {}
    assert total(series, "lost_packets_total") == 0
    page = f"http://127.0.0.1:{site.ports['9465']}/api/state"
    shown = json.loads(await asyncio.to_thread(fetched, page) or "{}")
    assert {one["device"] for one in shown["devices"]} == {"wrist-01", *STRAPS}
    assert shown["read_only"] is False
    alerts = (await prometheus_says(site, "alerts"))["alerts"]
    assert [one["labels"] for one in alerts if one["state"] == "firing"] == []

    for name in ("camera", "wearable", "bridge", "gateway", "prometheus", "mosquitto"):
        assert (name, await running[name].stop()) == (name, 0), running[name].said
        assert not re.search(r"Traceback|ERROR|level=error", running[name].said), running[name].said
    assert await wearing.stop() == 0, wearing.said


async def test_a_wrong_password_is_said_and_ends_the_service(site: Composed) -> None:
    as_root(site)
    (site.deploy / "local" / "secrets" / "wrist-01.password").write_text("mistaken\n")
    for name in ("mosquitto", "wearable"):
        site.prepare(name)
    await site.start("mosquitto")
    await site.healthy("mosquitto")
    wearable = await site.start("wearable")
    said = await wearable.says("error: .*")
    assert "not authori" in said[0].lower()
    assert "mistaken" not in wearable.said
