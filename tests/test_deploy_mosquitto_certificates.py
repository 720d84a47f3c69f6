"""The script that makes a CA and the broker's certificate."""

from __future__ import annotations

import asyncio
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from secure_site import certificates, make_certificates

__all__ = ["certificates"]


def test_certificates_are_for_the_names_given_and_keys_for_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    made = make_certificates(folder, "--days", "20", "broker.example", "127.0.0.1", "::1")
    assert made.returncode == 0, made.stderr
    assert "--ca-file" in made.stdout
    assert "PRIVATE" not in made.stdout + made.stderr
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"ca.key": 0o600, "broker.key": 0o600, "ca.crt": 0o644, "broker.crt": 0o644}

    def ask(*options: str, file: str = "broker.crt") -> str:
        command = ["openssl", "x509", "-in", str(folder / file), "-noout", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    names = ask("-ext", "subjectAltName").splitlines()[1].strip()
    assert names == "DNS:broker.example, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1"
    assert "CA:TRUE, pathlen:0" in ask("-ext", "basicConstraints", file="ca.crt")
    day = 86_400
    ends = [
        subprocess.run(["openssl", "x509", "-in", folder / "broker.crt", "-checkend", str(seconds)], check=False,
                       capture_output=True).returncode
        for seconds in (19 * day, 21 * day)
    ]  # fmt: skip
    assert ends == [0, 1]


async def test_the_certificates_pass_the_strictest_check(certificates: Path) -> None:
    """Python 3.13 and others insist on what RFC 5280 asks for."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificates / "broker.crt", certificates / "broker.key")
    client = ssl.create_default_context(cafile=certificates / "ca.crt")
    client.verify_flags |= ssl.VERIFY_X509_STRICT

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server) as listening:
        port = listening.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="elsewhere.example")


def test_certificates_are_replaced_only_when_told_and_the_ca_never(tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert make_certificates(tmp_path, "broker.example").returncode == 0
    first = contents()
    again = make_certificates(tmp_path, "broker.example")
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert contents() == first
    assert make_certificates(tmp_path, "--force", "other.example").returncode == 0
    second = contents()
    assert {name for name in first if first[name] != second[name]} == {"broker.key", "broker.crt"}
    (tmp_path / "ca.key").unlink()
    assert make_certificates(tmp_path, "--force", "other.example").returncode == 1
    assert (tmp_path / "broker.crt").read_bytes() == second["broker.crt"]


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("",), ("a b",), ("*.example",), ("a,DNS:b",), ("a\nb",), ("$(id)",), ("999.1.1.1",), ("-x",),
        ("--days", "0", "a"), ("--days", "1e3", "a"), ("--days",), ("--ca-days", "-1", "a"),
    ],
)  # fmt: skip
def test_what_is_no_name_makes_no_certificate(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    folder = tmp_path / "made"
    made = make_certificates(folder, *arguments)
    assert made.returncode in (1, 2)
    assert made.stderr
    assert not folder.exists() or list(folder.iterdir()) == []
