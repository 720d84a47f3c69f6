"""The broker as we ship it for a network, with accounts: a real mosquitto, the shipped files, certificates of its own.

The two listeners run together, as shipped. What the secure one let through is watched on the other, which is loopback's
and without rights.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from conftest import Mosquitto
from needed import need
from pydantic import SecretStr
from stack import Listener, until

from gammawear.broker import free_port
from protocol.broker_settings import BrokerSettings

DEPLOY = Path(__file__).parents[1] / "deploy" / "mosquitto"
SCRIPT = DEPLOY / "make-certificates.sh"
ETC = "/etc/mosquitto"

WEARABLE, OTHER, CAMERA, STRAP = "wrist-01", "wrist-02", "camera-01", "strap-1"
ACCOUNTS = ("gateway", "operator", "viewer", "bridge", WEARABLE, OTHER, CAMERA)


class Site:
    """A broker with both listeners.

    Args:
        broker: its settings are those of the listener on loopback.
        folder: stands for /etc/mosquitto.
        certificates: what the script made.
        port: of the secure listener.
    """

    def __init__(self, broker: Mosquitto, folder: Path, certificates: Path, port: int) -> None:
        self.broker = broker
        self.folder = folder
        self.certificates = certificates
        self.port = port

    def settings(self, account: str, password: str | None = None, **more: object) -> BrokerSettings:
        """How this account gets in."""
        given = BrokerSettings(
            host="127.0.0.1",
            port=self.port,
            username=account,
            password=SecretStr(password or f"secret of {account}"),
            tls=True,
            ca_file=self.certificates / "ca.crt",
        )
        return BrokerSettings.model_validate({**given.model_dump(), **more})

    def watcher(self) -> Listener:
        """Hears everything, on loopback."""
        return Listener(self.broker.settings, "#")

    def reload(self) -> None:
        process = self.broker._process
        assert process is not None
        process.send_signal(signal.SIGHUP)


def make_certificates(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    need(shutil.which("openssl"), "openssl")
    command = [str(SCRIPT), "--out", str(folder), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    made = make_certificates(folder, "127.0.0.1")
    assert made.returncode == 0, made.stderr
    return folder


def write_passwords(file: Path, accounts: tuple[str, ...]) -> None:
    """As docs/security.md has it: plain text first, then hashed in its place."""
    file.touch(0o600)
    file.write_text("".join(f"{one}:secret of {one}\n" for one in accounts))
    subprocess.run(["mosquitto_passwd", "-U", file], check=True, capture_output=True)
    assert "secret" not in file.read_text()


def with_device(acl: str, device: str) -> str:
    """What the comments in ``acl`` say: the lines with #+, without it, with the device's id in place of DEVICE."""
    lines = re.findall(r"^#\+(.*)$", acl, re.MULTILINE)
    assert len(lines) == 4
    last = f"#+{lines[-1]}\n"
    return acl.replace(last, last + "".join(f"{line.replace('DEVICE', device)}\n" for line in lines))


@pytest.fixture
async def site(start_mosquitto: Callable[..., Awaitable[Mosquitto]], tmp_path: Path, certificates: Path) -> Site:
    folder, port = tmp_path / "etc", free_port()
    (folder / "conf.d").mkdir(parents=True)
    acl = (DEPLOY / "acl").read_text(encoding="utf-8")
    (folder / "acl").touch(0o600)
    (folder / "acl").write_text(with_device(acl, STRAP))
    write_passwords(folder / "passwords", (*ACCOUNTS, "+", "+#", "wrist-01+", "wrist-01/imu"))
    secure = (DEPLOY / "secure.conf").read_text(encoding="utf-8")
    secure, count = re.subn(r"^listener 8883$", f"listener {port} 127.0.0.1", secure, flags=re.MULTILINE)
    assert count == 1
    secure = secure.replace(f"{ETC}/certs", str(certificates)).replace(ETC, str(folder))
    (folder / "conf.d" / "secure.conf").write_text(secure)
    included = (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8").splitlines()[-1]
    assert included == f"#include_dir {ETC}/conf.d"
    broker = await start_mosquitto(included[1:].replace(ETC, str(folder)) + "\n")
    return Site(broker, folder, certificates, port)


async def heard_until_end(watcher: Listener) -> dict[str, list[bytes]]:
    """What was let through so far, by topic."""
    watcher.connection.publish("end", b"", 1)
    await until(lambda: watcher.heard and watcher.heard[-1].topic == "end")
    heard: dict[str, list[bytes]] = {}
    for one in watcher.heard[:-1]:
        heard.setdefault(one.topic, []).append(one.payload)
    watcher.heard.clear()
    return heard
