"""The broker's password out of a file, as container engines and systemd hand it over."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from stack import Listener, until
from test_gammawear_service import start

from gammawear.options import MAX_PASSWORD_BYTES, SettingsError, broker_settings
from protocol.topics import Kind, every

__all__ = ["start"]


def hashed(file: Path, *accounts: str) -> None:
    file.touch(0o600)
    file.write_text("".join(f"{account}\n" for account in accounts))
    subprocess.run(["mosquitto_passwd", "-U", file], check=True, capture_output=True)


def password_in(content: bytes, folder: Path) -> str:
    file = folder / "password"
    file.write_bytes(content)
    password = broker_settings(username="w1", password_file=file).password
    assert password is not None
    assert password.get_secret_value() not in repr(password)
    return password.get_secret_value()


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\nanother\n", "secret"),
        (b" a b \n", " a b "),
        ("größer".encode(), "größer"),
        (b"x" * MAX_PASSWORD_BYTES + b"\n", "x" * MAX_PASSWORD_BYTES),
    ],
)
def test_the_first_line_is_the_password(content: bytes, password: str, tmp_path: Path) -> None:
    assert password_in(content, tmp_path) == password


@pytest.mark.parametrize("content", [b"", b"\nsecret", b"\xff\xfe", b"x" * (MAX_PASSWORD_BYTES + 1)])
def test_what_is_no_password_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="password"):
        password_in(content, tmp_path)


def test_a_missing_file_and_two_passwords_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the password: .*absent: No such file"):
        broker_settings(username="w1", password_file=tmp_path / "absent")
    with pytest.raises(typer.BadParameter, match="not both"):
        broker_settings(username="w1", password="one", password_file=tmp_path / "absent")  # noqa: S106


async def test_a_service_gets_in_with_it(
    start_mosquitto: Callable[..., Any], start: Callable[..., Any], tmp_path: Path
) -> None:
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    hashed(passwords, "w1:of w1", "w2:of w2")
    mosquitto = await start_mosquitto(f"\npassword_file {passwords}\n")
    broker = ("--port", str(mosquitto.port), "--username", "w1")
    watcher = broker_settings(port=mosquitto.port, username="w2", password="of w2")  # noqa: S106
    secret.write_text("of w1\n")
    async with Listener(watcher, every(Kind.STATUS)) as listener:
        device = await start("device", *broker, GAMMAWEAR_PASSWORD_FILE=str(secret))
        await until(lambda: listener.heard)
        device.press_ctrl_c()
        assert await device.ends() == 0, device.err
    secret.write_text("mistaken\n")
    refused = await start("device", *broker, GAMMAWEAR_PASSWORD_FILE=str(secret))
    assert await refused.ends() == 1
    assert refused.err[-1].startswith("error: ")
    assert not [line for line in refused.err if "Traceback" in line or "mistaken" in line]
