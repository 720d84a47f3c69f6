"""The broker that `gammawear demo` starts, and the configuration that we ship."""

import asyncio
import itertools
import re
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from needed import need

from gammawear import broker as module
from gammawear.broker import LIMITS, find_mosquitto, local_broker, mosquitto_config
from protocol.connection import ConnectError, Connection

SHIPPED = Path(__file__).parent.parent / "deploy" / "mosquitto" / "mosquitto.conf"


@pytest.fixture(params=["mosquitto", "amqtt"])
def kind(request):
    """Both brokers; amqtt is a development dependency."""
    if request.param == "mosquitto":
        need(find_mosquitto(), "mosquitto (Debian: apt install mosquitto)")
    return request.param


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """Where the broker puts its folder, so that a test sees what is left of it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    tmp_path.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


async def listening(port):
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def greet(settings):
    got = asyncio.Event()
    connection = Connection(settings, "greeter", subscriptions=(("t", 1),), on_message=lambda _: got.set())
    task = asyncio.create_task(connection.run())
    await connection.wait_connected(10)
    connection.publish("t", b"hello", 1)
    await asyncio.wait_for(got.wait(), 10)
    await connection.stop()
    await task


async def test_a_broker_runs_and_leaves_nothing(kind, temporary_folder, caplog):
    pattern = r"mosquitto \d+\.\d+\.\d+" if kind == "mosquitto" else r"amqtt \d+\.\d+\.\d+ \(embedded\)"
    async with local_broker(prefer=kind) as running:
        assert re.fullmatch(pattern, running.name)
        assert running.settings.port == running.port
        await greet(running.settings)
    assert not await listening(running.port)
    assert list(temporary_folder.iterdir()) == []
    assert [r for r in caplog.records if r.name.startswith(("amqtt", "transitions"))] == []


async def test_cancelled_it_leaves_nothing_either(kind, temporary_folder):
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def hold():
        async with local_broker(prefer=kind) as running:
            started.set_result(running.port)
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    port = await asyncio.wait_for(started, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await listening(port)
    assert list(temporary_folder.iterdir()) == []


async def test_a_port_in_use_is_said(kind, temporary_folder):
    server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectError, match=f"port {port}.*[Aa]ddress already in use"):
            async with local_broker(port, prefer=kind):
                pytest.fail("it cannot have started")
    assert list(temporary_folder.iterdir()) == []


async def test_a_broker_that_never_listens_is_given_up(tmp_path, monkeypatch, temporary_folder):
    fake = tmp_path / "mosquitto"
    fake.write_text(f"#!{sys.executable}\nimport signal, sys\n'-h' in sys.argv or signal.pause()\n")
    fake.chmod(0o755)
    monkeypatch.setattr(module, "find_mosquitto", lambda: str(fake))
    monkeypatch.setattr(module, "START_TIMEOUT_S", 0.3)
    with pytest.raises(ConnectError, match="does not answer on port"):
        async with local_broker():
            pytest.fail("it cannot have started")
    assert list(temporary_folder.iterdir()) == []


async def test_without_any_broker_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "find_mosquitto", lambda: None)
    with pytest.raises(ConnectError, match="apt install mosquitto"):
        async with local_broker(prefer="mosquitto"):
            pass
    monkeypatch.setitem(sys.modules, "amqtt", None)
    with pytest.raises(ConnectError, match=r"gammawear\[demo\]"):
        async with local_broker():
            pass


async def test_without_mosquitto_amqtt_is_taken(monkeypatch):
    monkeypatch.setattr(module, "find_mosquitto", lambda: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with local_broker() as running:
            assert running.name.startswith("amqtt")


def test_mosquitto_is_found_off_the_path(monkeypatch):
    need(find_mosquitto(), "mosquitto (Debian: apt install mosquitto)")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert find_mosquitto() is not None


def settings_of(text):
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [(key, value) for key, value in pairs]


def test_the_shipped_configuration_has_the_same_limits(tmp_path):
    shipped = dict(settings_of(SHIPPED.read_text(encoding="utf-8")))
    assert {key: shipped.get(key) for key in LIMITS} == LIMITS
    ours = dict(settings_of(mosquitto_config(1883, tmp_path)))
    known = {"listener", "allow_anonymous", "persistence", "persistence_location", "log_dest", "log_type"}
    assert set(ours) == known | set(LIMITS)
    limits = {key for key in shipped if key.startswith(("max_", "autosave_", "queue_", "set_tcp"))}
    assert limits == set(LIMITS)


def test_only_loopback_lets_anybody_in():
    listener, anonymous = "", []
    for key, value in settings_of(SHIPPED.read_text(encoding="utf-8")):
        if key == "listener":
            listener = value
        elif key == "allow_anonymous" and value == "true":
            anonymous.append(listener)
    assert anonymous == ["1883 127.0.0.1"]


def test_every_shipped_setting_says_why():
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    for above, line in itertools.pairwise(lines):
        if line.startswith(("max_", "autosave_", "persistent_client", "queue_", "set_tcp", "connection_", "per_")):
            assert above.startswith("# "), line
