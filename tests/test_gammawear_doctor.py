"""``gammawear doctor`` against what is really there: mosquitto, ports, files, a bus; and against what is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Mosquitto
from needed import need
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from stack import new_gateway, serving
from test_ble_bluez import bus
from test_gammawear_cli import Run, run

from gammawear import checks
from gammawear.checks import EXTRAS, Finding, check_bundles, check_ports, torch_build
from gammawear.link_checks import check_bluetooth, check_broker
from gateway.exposition import serving_metrics
from models.bundle import SHIPPED
from models.bundle_files import CODEBOOK_FILE, MODEL_FILE
from protocol.broker_settings import BrokerSettings

if sys.platform != "linux":
    pytest.skip("bus and clock are Linux's", allow_module_level=True)

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

__all__ = ["bus", "run"]

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy" / "mosquitto"
Start = Callable[..., Awaitable[Mosquitto]]


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


# -- the whole --------------------------------------------------------------------------------------------------------


def test_every_check_has_its_line(run: Run, free_port: int) -> None:
    status, out, err = run("doctor", "--port", str(free_port))
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warning", "problem"}
    said = {line.split()[1] for line in lines}
    assert said == {"python", "torch", "settings", "clock", "space", "port", "bundles", "bluetooth", "broker"}
    assert all(("->" in line) == (not line.startswith("ok ")) for line in lines), "a remedy where one is needed"
    assert f"127.0.0.1:{free_port}: [Errno 111] Connection refused" in lines[-1]


def test_json_and_the_ports_that_are_set(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "own.toml").write_text(f"[gateway]\nmetrics_port = {port}\n[bridge]\nmetrics_port = 0\n")
        status, out, _ = run("--config", "own.toml", "doctor", "--no-connect", "--json")
    assert status == 1
    report = json.loads(out)
    assert report["ok"] is False
    (problem,) = (check for check in report["checks"] if check["level"] == "problem")
    assert problem["check"] == "port"
    assert problem["text"] == f"127.0.0.1:{port} (gateway --metrics-port) is taken by another program"
    assert "broker" not in {check["check"] for check in report["checks"]}


def test_settings_that_are_refused_and_unknown(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    (tmp_path / "password").chmod(0o644)
    monkeypatch.setenv("GAMMAWEAR_PASSWORD_FILE", "password")
    monkeypatch.setenv("GAMMAWEAR_GATEWAY_BATCH", "many")
    monkeypatch.setenv("GAMMAWEAR_GATEWAY_BACTH", "1")
    _, out, _ = run("doctor", "--no-connect", "--username", "w")
    assert "problem  settings   gateway batch, environment GAMMAWEAR_GATEWAY_BATCH: " in out
    assert "warning  settings   no settings: GAMMAWEAR_GATEWAY_BACTH" in out
    assert "warning  settings   others can read password  ->  chmod 600 password" in out


# -- installation -----------------------------------------------------------------------------------------------------


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert EXTRAS.keys() <= project["optional-dependencies"].keys()


def test_extras_that_are_missing_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "gateway", ("torch", "no_such_module"))
    finding = checks.check_python()
    assert finding.level == "warning"
    assert "not installed: gateway (no_such_module)" in finding.text
    assert "pip install 'gammawear[gateway]'" in finding.remedy


def test_a_build_for_cuda_is_a_warning() -> None:
    assert torch_build("2.9.0+cpu", None).level == "ok"
    finding = torch_build("2.9.0", "12.8")
    assert finding.level == "warning"
    assert "CUDA 12.8" in finding.text


def test_little_space_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [finding.level for finding in checks.check_space(tmp_path)] == ["ok"]
    monkeypatch.setattr(checks, "LEAST_BYTES", 2**60)
    assert [finding.level for finding in checks.check_space(tmp_path)] == ["warning", "warning"]


# -- ports ------------------------------------------------------------------------------------------------------------


async def test_a_port_is_free_taken_or_ours(free_port: int) -> None:
    def look(port: int, address: str = "127.0.0.1") -> Finding:
        (finding,) = check_ports({(address, port): ["gateway --metrics-port"]})
        return finding

    assert look(free_port).level == "ok"
    with socket.create_server(("127.0.0.1", free_port)):
        finding = await asyncio.to_thread(look, free_port)
        assert finding.level == "problem"
        assert "taken by another program" in finding.text
    async with serving_metrics(CollectorRegistry(), "127.0.0.1", 0) as port:
        assert (await asyncio.to_thread(look, port)).level == "problem", "metrics, but none of ours"
    assert look(1234, "192.0.2.1").level == "problem"
    assert look(1234, "no-such-host.invalid").level == "problem"
    assert look(0).level == "ok"


async def test_a_gateway_of_ours_is_left_alone(mosquitto: Mosquitto) -> None:
    gateway = new_gateway(mosquitto.settings, metrics_port=0)
    async with serving(gateway):
        port = gateway.metrics_port
        assert port is not None
        (finding,) = await asyncio.to_thread(lambda: [*check_ports({("127.0.0.1", port): ["gateway"]})])
        assert finding.level == "ok"
        assert "runs already" in finding.text
        assert await asyncio.to_thread(checks.is_connected, "127.0.0.1", port)
    assert not checks.is_connected("127.0.0.1", port)


# -- bundles ----------------------------------------------------------------------------------------------------------


def test_a_damaged_bundle_is_a_problem(tmp_path: Path) -> None:
    (shipped,) = check_bundles([])
    assert shipped.level == "ok"
    assert "wrist6@2" in shipped.text
    for number, torn in ((7, MODEL_FILE), (8, CODEBOOK_FILE), (9, "manifest.json")):
        folder = tmp_path / f"wrist6@{number}"
        shutil.copytree(SHIPPED / "wrist6@2", folder)
        content = bytearray((folder / torn).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (folder / torn).write_bytes(content)
    found = list(check_bundles([tmp_path]))
    assert levels(found) == ["problem", "problem", "problem", "ok"]
    for number, finding in zip((7, 8, 9), found, strict=False):
        assert f"wrist6@{number}" in finding.text


def test_a_folder_that_is_not_there_is_a_warning(run: Run, tmp_path: Path) -> None:
    absent = tmp_path / "typo"
    missing, shipped = check_bundles([absent])
    assert (missing.level, missing.text, shipped.level) == ("warning", f"there is no folder {absent}", "ok")
    _, out, _ = run("doctor", "--bundles", str(absent), "--no-connect")
    assert "there is no folder" in out
    assert "folder runs" not in out
    status, _, err = run("gateway", "--bundles", str(absent), "--seconds", "0", "--metrics-port", "0", "--no-page")
    assert (status, err.splitlines()[0]) == (0, f"--bundles: there is no folder {absent}")


# -- Bluetooth --------------------------------------------------------------------------------------------------------


async def test_no_bus_is_no_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'absent'}")
    finding = await check_bluetooth()
    assert finding.level == "warning"
    assert "no BlueZ to talk to" in finding.text


@pytest.mark.usefixtures("bus")
async def test_no_bluez_on_the_bus() -> None:
    finding = await check_bluetooth()
    assert finding.level == "warning"
    assert "org.freedesktop.DBus.Error.ServiceUnknown" in finding.text


@contextlib.asynccontextmanager
async def bluetoothd(answer: Callable[[Message], Message]) -> AsyncIterator[None]:
    """A stand-in that answers to ``GetManagedObjects``."""

    def handle(message: Message) -> Message | None:
        if message.message_type is MessageType.METHOD_CALL and message.member == "GetManagedObjects":
            return answer(message)
        return None

    connection = MessageBus(bus_type=BusType.SYSTEM)
    await connection.connect()
    connection.add_message_handler(handle)
    await connection.request_name("org.bluez")
    try:
        yield
    finally:
        connection.disconnect()


@pytest.mark.usefixtures("bus")
async def test_no_right_to_talk_to_bluez() -> None:
    denied = "org.freedesktop.DBus.Error.AccessDenied"
    async with bluetoothd(lambda ask: Message.new_error(ask, denied, "rejected send message")):
        finding = await check_bluetooth()
    assert finding.level == "warning"
    assert f"{denied}: rejected send message" in finding.text
    assert "--groups bluetooth" in finding.remedy


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize(
    ("adapters", "level", "text"),
    [({}, "warning", "no adapter"), ({"hci0": False}, "warning", "hci0 is off"), ({"hci0": True}, "ok", "hci0 is on")],
)
async def test_adapters(adapters: dict[str, bool], level: str, text: str) -> None:
    objects: dict[str, Any] = {"/org/bluez": {"org.bluez.AgentManager1": {}}}
    for name, powered in adapters.items():
        objects[f"/org/bluez/{name}"] = {"org.bluez.Adapter1": {"Powered": Variant("b", powered)}}

    async with bluetoothd(lambda ask: Message.new_method_return(ask, "a{oa{sa{sv}}}", [objects])):
        finding = await check_bluetooth()
    assert (finding.level, text in finding.text) == (level, True)


# -- broker -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_broker_without_passwords(mosquitto: Mosquitto, version: str) -> None:
    found = await check_broker(mosquitto.settings.model_copy(update={"protocol": version}))
    assert levels(found) == ["ok", "ok"]
    assert f"MQTT {version}, without TLS" in found[0].text
    assert found[1].text == "publishes and receives on gammawear/v1/gateway/status"


async def test_nothing_is_left_at_the_broker_and_gateways_do_not_mind(mosquitto: Mosquitto) -> None:
    gateway = new_gateway(mosquitto.settings, metrics_port=0)
    async with serving(gateway):
        assert levels(await check_broker(mosquitto.settings)) == ["ok", "ok"]
        assert gateway.summary().rejected == 0
        assert gateway.summary().devices == 0


async def test_a_broker_that_is_down(mosquitto: Mosquitto) -> None:
    await mosquitto.stop()
    (finding,) = await check_broker(mosquitto.settings)
    assert finding.level == "problem"
    assert "Connection refused" in finding.text


@pytest.fixture
async def secured(start_mosquitto: Start, tmp_path: Path) -> tuple[Mosquitto, Path]:
    """A broker with the shipped rights, TLS by the shipped script, and accounts; and its CA."""
    need(shutil.which("openssl"), "openssl")
    certificates = tmp_path / "certificates"
    command = [str(DEPLOY / "make-certificates.sh"), "--out", str(certificates), "127.0.0.1"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    passwords = tmp_path / "passwords"
    passwords.touch(0o600)
    passwords.write_text("gateway:right\nwrist-01:right\nviewer:right\n")
    await asyncio.to_thread(subprocess.run, ["mosquitto_passwd", "-U", passwords], check=True, capture_output=True)
    acl = tmp_path / "acl"
    acl.touch(0o600)
    acl.write_text((DEPLOY / "acl").read_text(encoding="utf-8"))
    broker = await start_mosquitto(
        f"\npassword_file {passwords}\nacl_file {acl}\nuse_username_as_clientid true\n"
        f"certfile {certificates / 'broker.crt'}\nkeyfile {certificates / 'broker.key'}\n"
    )
    return broker, certificates / "ca.crt"


def account(secured: tuple[Mosquitto, Path], name: str, password: str = "right", *, tls: bool = True) -> BrokerSettings:  # noqa: S107
    broker, authority = secured
    return BrokerSettings(
        host=broker.host, port=broker.port, username=name, password=SecretStr(password), tls=tls,
        ca_file=authority if tls else None,
    )  # fmt: skip


async def test_a_secured_broker(secured: tuple[Mosquitto, Path]) -> None:
    found = await check_broker(account(secured, "gateway"))
    assert levels(found) == ["ok", "ok"]
    assert ", TLS" in found[0].text
    assert found[1].text == "publishes and receives on gammawear/v1/gateway/status"
    found = await check_broker(account(secured, "wrist-01"))
    assert levels(found) == ["ok", "ok"]
    assert found[1].text.startswith("may publish on gammawear/v1/wrist-01/status, not read there")
    found = await check_broker(account(secured, "viewer"))
    assert levels(found) == ["ok", "problem"]
    assert found[1].text == "may not publish on gammawear/v1/viewer/status (refused)"


async def test_a_wrong_password_an_unknown_ca_and_no_tls(secured: tuple[Mosquitto, Path], tmp_path: Path) -> None:
    (finding,) = await check_broker(account(secured, "gateway", "mistaken"))
    assert finding.level == "problem"
    assert "not authori" in finding.text.lower()
    assert "mistaken" not in finding.text + finding.remedy
    right = account(secured, "gateway")
    (finding,) = await check_broker(right.model_copy(update={"ca_file": None}))
    assert finding.level == "problem"
    assert "certificate" in finding.text
    (finding,) = await check_broker(right.model_copy(update={"ca_file": tmp_path / "absent"}))
    assert finding.level == "problem"
    assert "cannot load the certificates" in finding.text
    (finding,) = await check_broker(account(secured, "gateway", tls=False))
    assert finding.level == "problem"
