"""The configuration for Prometheus and Grafana that ships: checked by promtool, and run against all that it watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from ble_stack import FAST, bridging, flying, new_wearable
from camera_stack import image_codebook, save_untrained, scene_node
from needed import need
from prometheus_client import CollectorRegistry
from stack import PATIENCE_S, new_gateway, patient_devices, serving, streaming, synthetic, until, wrist6

from device_emulator.ble import gatt
from device_emulator.ble.air import Air
from device_emulator.camera.publisher import CameraPublisher
from gammawear.bridge_metrics import BridgeMetrics
from gammawear.broker import free_port
from gateway.exposition import serving_metrics
from models.bundle import SHIPPED, Bundle

__all__ = ["patient_devices", "wrist6"]

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
ALERTS = re.findall(r"^ *- alert: (\w+)$", (DEPLOY / "alerts.yml").read_text(encoding="utf-8"), re.MULTILINE)
RECORDED = set(re.findall(r"- record: (\S+)", (DEPLOY / "rules.yml").read_text(encoding="utf-8")))
SELECTOR = re.compile(r"((?:\w+:)?gammawear_\w+(?::\w+)?|\bup)(\{[^}]*\})?")
"""In an expression: a metric, and which of its series. Labels have no names like these."""


# -- the files --------------------------------------------------------------------------------------------------------


def promtool(*arguments: object) -> None:
    program = shutil.which("promtool")
    need(program, "promtool (Debian: apt install prometheus)")
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True, check=False)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_is_sound() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "rules.yml", "alerts.yml")


@pytest.mark.parametrize("file", sorted(path.name for path in (DEPLOY / "tests").glob("*.yml")))
def test_rules_and_alerts_do_what_they_should(file: str) -> None:
    promtool("test", "rules", f"tests/{file}")


def test_every_alert_is_seen_to_fire_and_is_explained() -> None:
    """What ``promtool test rules`` does not tell: that no alert and no recording rule was left out."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (DEPLOY / "tests").glob("*.yml"))
    alerts = (DEPLOY / "alerts.yml").read_text(encoding="utf-8")
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", operations, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert len(ALERTS) == len(set(ALERTS)) == alerts.count("runbook:") == alerts.count("severity: ") > 0
    assert set(re.findall(r'alertname="(\w+)", alertstate="firing"', tests)) == set(ALERTS)
    assert set(re.findall(r"`(Gammawear\w+)`", operations)) == set(ALERTS)
    assert set(re.findall(r"runbook: docs/operations\.md#(\S+)", alerts)) <= anchors
    asked = {name for name in RECORDED if name in tests}
    used_by_tested_alerts = {name for name in RECORDED if name in alerts}
    assert asked | used_by_tested_alerts == RECORDED


def test_the_dashboard_is_what_its_script_makes() -> None:
    done = subprocess.run([sys.executable, GRAFANA / "make_dashboard.py"], capture_output=True, check=True)
    shipped = (GRAFANA / "dashboard.json").read_bytes()
    assert done.stdout == shipped, "python deploy/grafana/make_dashboard.py > deploy/grafana/dashboard.json"


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((GRAFANA / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    return found


def test_panels_stand_side_by_side() -> None:
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels())
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert {x for x, _ in taken} == set(range(24))
    assert len({panel["id"] for panel in panels()}) == len(panels())


# -- against what it watches ------------------------------------------------------------------------------------------


class Prometheus:
    """The real one, with the files that ship: other ports, and a second where they say 15."""

    def __init__(self, folder: Path, gateway_port: int, bridge_port: int, *, alerts_after: str | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        for name in ("prometheus.yml", "rules.yml", "alerts.yml"):
            text = (DEPLOY / name).read_text(encoding="utf-8")
            if name == "prometheus.yml":
                for shipped, here in (
                    ("scrape_interval: 15s", "scrape_interval: 1s"),
                    ("evaluation_interval: 15s", "evaluation_interval: 1s"),
                    ("- 127.0.0.1:9464", f"- 127.0.0.1:{gateway_port}"),
                    ("- 127.0.0.1:9466", f"- 127.0.0.1:{bridge_port}"),
                ):
                    assert text.count(shipped) == 1, shipped
                    text = text.replace(shipped, here)
            if alerts_after is not None:
                text = re.sub(r"\bfor: \w+", f"for: {alerts_after}", text)
            (folder / name).write_text(text, encoding="utf-8")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Prometheus]:
        program = shutil.which("prometheus")
        need(program, "prometheus (Debian: apt install prometheus)")
        assert program is not None
        log = self.folder / "log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                program,
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                stderr=file,
            )
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await asyncio.to_thread(self._ready):
                    assert process.returncode is None, log.read_text()
                    await asyncio.sleep(0.1)
            yield self
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=PATIENCE_S):
                return True
        except OSError:
            return False

    async def get(self, what: str, **parameters: str) -> Any:
        """The ``data`` of an answer of its HTTP API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"

        def fetch() -> Any:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                return json.load(answer)["data"]

        return await asyncio.to_thread(fetch)

    async def finds(self, expression: str) -> bool:
        """Whether an expression has a number now."""
        found = (await self.get("query", query=expression))["result"]
        return any(math.isfinite(float(series["value"][1])) for series in found)

    async def without_data(self, expressions: set[str], *, within_s: float = PATIENCE_S) -> set[str]:
        """Wait until each has had a number; gives those that never had one."""
        missing = set(expressions)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while missing:
                    missing = {one for one in missing if not await self.finds(one)}
                    await asyncio.sleep(0.5)
        return missing

    async def rules(self) -> list[dict[str, Any]]:
        return [rule for group in (await self.get("rules"))["groups"] for rule in group["rules"]]


def selectors(*expressions: str) -> Iterator[str]:
    """What the expressions read that no rule records, each as an expression of its own."""
    for expression in expressions:
        for name, labels in SELECTOR.findall(expression):
            if name not in RECORDED:
                yield name + labels


def as_grafana_sends_it(expression: str) -> str:
    for variable in ("$gateway", "$device", "$bridge"):
        expression = expression.replace(variable, ".+")
    return expression.replace("$__rate_interval", "10s")


EXPRESSIONS = {as_grafana_sends_it(target["expr"]) for panel in panels() for target in panel.get("targets", ())}


@contextlib.asynccontextmanager
async def watched_bridge(mosquitto: Any, bundle: Bundle) -> AsyncIterator[int]:
    """A bridge with one wearable, which once sends nonsense; gives the port of its metrics."""
    air = Air(FAST)
    async with flying(air, new_wearable(air, bundle)) as hci, bridging(mosquitto.settings, hci) as bridge:
        await until(lambda: any(one.state == "streaming" for one in bridge.followers.values()))
        (follower,) = bridge.followers.values()
        follower._receive(gatt.STREAM, b"nonsense")
        registry = CollectorRegistry()
        BridgeMetrics(registry, bridge)
        async with serving_metrics(registry, "127.0.0.1", 0) as port:
            yield port


async def test_no_panel_is_empty_and_nothing_reads_what_is_not_there(
    mosquitto: Any, wrist6: Bundle, tmp_path: Path
) -> None:
    detectors = tmp_path / "detectors"
    save_untrained(detectors)
    gateway = new_gateway(mosquitto.settings, folders=(SHIPPED, detectors), metrics_port=0, per_device=True)
    camera = CameraPublisher(scene_node(image_codebook(), fps=2.0), mosquitto.settings, qos=1)
    async with (
        serving(gateway),
        watched_bridge(mosquitto, wrist6) as bridge_port,
        streaming(synthetic(wrist6, mosquitto.settings, 2, speed=8.0)),
        Prometheus(tmp_path, gateway.metrics_port or 0, bridge_port).running() as prometheus,
    ):
        filming = asyncio.create_task(camera.run())
        assert await prometheus.without_data(EXPRESSIONS) == set()
        rules = await prometheus.rules()
        read = set(selectors(*EXPRESSIONS, *(rule["query"] for rule in rules)))
        assert len(read) > 60
        assert await prometheus.without_data(read) == set()
        recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
        assert recorded == RECORDED
        assert await prometheus.without_data(recorded) == set()
        assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == set(ALERTS)
        assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
        await camera.stop(timeout=PATIENCE_S)
        await filming


async def test_a_gateway_that_stops_is_missed(mosquitto: Any, tmp_path: Path) -> None:
    nobody = free_port()
    gateway = new_gateway(mosquitto.settings, metrics_port=0)
    async with contextlib.AsyncExitStack() as stack:
        async with serving(gateway):
            port = gateway.metrics_port or 0
            prometheus = Prometheus(tmp_path, port, nobody, alerts_after="2s")
            await stack.enter_async_context(prometheus.running())
            missed_bridge = 'ALERTS{alertname="GammawearBridgeDown", alertstate="firing"}'
            assert await prometheus.without_data({missed_bridge, 'up{job="gammawear-gateway"} == 1'}) == set()
            assert [alert["labels"]["alertname"] for alert in await firing(prometheus)] == ["GammawearBridgeDown"]
        missed = 'ALERTS{alertname="GammawearGatewayDown", alertstate="firing"}'
        assert await prometheus.without_data({missed}) == set()
        (alert,) = [one for one in await firing(prometheus) if one["labels"]["alertname"] == "GammawearGatewayDown"]
        assert alert["labels"]["severity"] == "critical"
        assert alert["annotations"]["summary"] == f"Gateway 127.0.0.1:{port} does not answer"


async def firing(prometheus: Prometheus) -> list[dict[str, Any]]:
    return [alert for alert in (await prometheus.get("alerts"))["alerts"] if alert["state"] == "firing"]
