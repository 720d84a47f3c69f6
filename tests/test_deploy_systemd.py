"""The units of ``deploy/systemd``: judged by systemd itself, and their commands run against the shipped broker.

systemd does not run here. What it would do before a command starts is done by hand: specifiers, environment and
credentials.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from deployed import DEPLOY, Composed, Process
from needed import need
from stack import Listener, until
from test_deploy_whole import as_root

from protocol.broker_settings import BrokerSettings
from protocol.messages import Status
from protocol.topics import Kind, every, topic

SHIPPED = DEPLOY / "systemd"
UNITS = ("gammawear-gateway.service", "gammawear-bridge.service", "gammawear-device@wrist.service",
         "gammawear-camera@camera.service")  # fmt: skip
EXPOSURE = 15
"""Tenths: what `systemd-analyze security` is to say at most. An ordinary service has 9.6."""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root with our units, the command, and the units that systemd brings."""
    units = tmp_path / "etc" / "systemd" / "system"
    shutil.copytree(SHIPPED, units)
    theirs = next(
        (path for path in (Path("/lib/systemd/system"), Path("/usr/lib/systemd/system")) if path.is_dir()), None
    )
    need(theirs, "systemd's own units (Debian: apt install systemd)")
    assert theirs is not None
    shutil.copytree(theirs, tmp_path / "usr" / "lib" / "systemd" / "system", symlinks=True)
    command = tmp_path / "opt" / "gammawear" / "bin" / "gammawear"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    return tmp_path


def analyze(machine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    need(program, "systemd-analyze (Debian: apt install systemd)")
    assert program is not None
    verb, *rest = arguments
    command = [program, verb, f"--root={machine}", "--no-pager", *rest]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_understands_the_units(machine: Path) -> None:
    done = analyze(machine, "verify", *UNITS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_would_say_what_it_does_not_understand(machine: Path) -> None:
    file = machine / "etc" / "systemd" / "system" / "gammawear-.service.d" / "10-confined.conf"
    file.write_text(file.read_text().replace("ProtectHome=yes", "ProtectHomes=yes"))
    assert "ProtectHomes" in analyze(machine, "verify", *UNITS).stderr


@pytest.mark.parametrize("unit", UNITS)
def test_the_units_are_confined(machine: Path, unit: str) -> None:
    done = analyze(machine, "security", "--offline=true", f"--threshold={EXPOSURE}", unit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


def test_what_is_not_confined_is_found(machine: Path) -> None:
    shutil.rmtree(machine / "etc" / "systemd" / "system" / "gammawear-.service.d")
    assert analyze(machine, "security", "--offline=true", f"--threshold={EXPOSURE}", UNITS[0]).returncode != 0


def test_the_bridge_is_a_user_whom_bluez_knows(machine: Path) -> None:
    """Drop-ins count in the order of their names: what all have must come before what the bridge has."""
    order = sorted(path.name for path in SHIPPED.glob("gammawear-*.d/*.conf"))
    assert order == ["10-confined.conf", "20-bluetooth.conf"]
    own = (SHIPPED / "gammawear-bridge.service.d" / order[1]).read_text(encoding="utf-8")
    program = shutil.which("systemd-sysusers")
    need(program, "systemd-sysusers (Debian: apt install systemd)")
    assert program is not None
    (machine / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (machine / "etc" / "group").write_text("root:x:0:\nbluetooth:x:112:\n")
    command = [program, f"--root={machine}", SHIPPED / "sysusers.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    user = re.findall(r"^User=(.*)$", own, re.MULTILINE)
    assert re.findall(r"^(gammawear.*?):", (machine / "etc" / "passwd").read_text(), re.MULTILINE) == user
    assert f"bluetooth:x:112:{user[0]}\n" in (machine / "etc" / "group").read_text()


# -- the commands -----------------------------------------------------------------------------------------------------


class Unit:
    """What a unit and the drop-in of all say.

    Args:
        name: with the instance, such as gammawear-device@wrist.service.
        folder: stands for what systemd makes: credentials, caches, state.
    """

    def __init__(self, name: str, folder: Path) -> None:
        stem, _, instance = name.removesuffix(".service").partition("@")
        self.folder = folder
        template = SHIPPED / (f"{stem}@.service" if instance else name)
        text = template.read_text(encoding="utf-8")
        common = (SHIPPED / "gammawear-.service.d" / "10-confined.conf").read_text(encoding="utf-8")
        self._lines = re.findall(r"^(\w+)=(.*)$", text + "\n" + common, re.MULTILINE)
        self._specifiers = {"%i": instance, "%d": str(folder / "credentials"), "%C": str(folder / "cache")}

    def all(self, key: str) -> list[str]:
        found = [value for name, value in self._lines if name == key]
        for specifier, value in self._specifiers.items():
            found = [one.replace(specifier, value) for one in found]
        return found

    def environment(self) -> dict[str, str]:
        pairs = dict(pair.split("=", 1) for line in self.all("Environment") for pair in line.split())
        pairs.pop("NUMBA_CACHE_DIR", None)  # an empty one would cost each process half a minute
        return pairs

    def take_credentials(self, local: Path) -> None:
        """From where ``docker/prepare.sh`` put what an administrator would put to /etc/gammawear."""
        folder = self.folder / "credentials"
        folder.mkdir(parents=True)
        for line in self.all("LoadCredential"):
            name, path = line.split(":")
            assert Path(path).parent == Path("/etc/gammawear")
            (source,) = local.glob(f"*/{Path(path).name}")
            shutil.copy(source, folder / name)

    def command(self) -> list[str]:
        (line,) = self.all("ExecStart")
        program, *arguments = line.split()
        assert program == "/opt/gammawear/bin/gammawear"
        return ["gammawear", *arguments]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Composed]:
    composed = Composed(tmp_path)
    as_root(composed)
    composed.prepare("mosquitto")
    await composed.start("mosquitto")
    await composed.healthy("mosquitto")
    yield composed
    await composed.close()


async def start(site: Composed, name: str, *more: str) -> Process:
    unit = Unit(name, site.folder / name)
    unit.take_credentials(site.deploy / "local")
    broker = {"GAMMAWEAR_BROKER": "127.0.0.1", "GAMMAWEAR_PORT": site.ports["8883"]}
    return await site.run(name, [*unit.command(), *more], {**unit.environment(), **broker})


def state(listener: Listener, name: str) -> str | None:
    """What somebody said last of themselves."""
    said = [one.payload for one in listener.heard if one.topic == topic(name, Kind.STATUS)]
    return Status.parse(said[-1]).state if said else None


async def test_the_commands_of_the_units_get_in_and_stop(site: Composed) -> None:
    processes = {
        "gateway": await start(site, "gammawear-gateway.service", "--metrics-port", "0"),
        "wrist-01": await start(site, "gammawear-device@wrist.service"),
        "camera-01": await start(site, "gammawear-camera@camera.service"),
    }
    async with Listener(BrokerSettings(port=int(site.ports["1883"])), every(Kind.STATUS)) as listener:
        for name, process in processes.items():
            await until(lambda name=name: state(listener, name) == "online")
            assert await process.stop() == 0, process.said
            await until(lambda name=name: state(listener, name) == "offline")
