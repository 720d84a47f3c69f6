"""Brokers that do not answer or do not let us in, and brokers that speak only MQTT 3.1.1."""

import asyncio
import contextlib
import importlib.util
import shutil
import socket
import subprocess

import pytest
from needed import need
from proxy import PATIENCE_S, Inbox, running, with_protocol
from pydantic import SecretStr

from gammawear.broker import local_broker
from protocol.connection import BrokerSettings, ConnectError, Connection

# -- no way in --------------------------------------------------------------------------------------------------------


async def test_an_unreachable_broker_does_not_hold_up_the_loop():
    """A listener with a full backlog answers no SYN: the connection attempt hangs, as with a host that is off."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        connections = [Connection(BrokerSettings(port=deaf.getsockname()[1]), f"d{n}") for n in range(40)]
        tasks = [asyncio.create_task(c.run()) for c in connections]
        loop, worst = asyncio.get_running_loop(), 0.0
        for _ in range(100):
            before = loop.time()
            await asyncio.sleep(0.005)
            worst = max(worst, loop.time() - before - 0.005)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not any(c.connected or c.last_error for c in connections)  # they did hang
    assert worst < 0.5


@pytest.fixture
def passwords(tmp_path):
    file = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", file, "device", "right"], check=True, capture_output=True)
    return file


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
async def test_a_wrong_password_is_an_error_with_a_remedy(start_mosquitto, request, protocol):
    passwords = request.getfixturevalue("passwords")  # needs mosquitto_passwd: after start_mosquitto has looked for it
    broker = await start_mosquitto(f"password_file {passwords}\n")
    settings = BrokerSettings(port=broker.port, username="device", password=SecretStr("wrong"), protocol=protocol)
    with pytest.raises(ConnectError, match="check username"):
        await asyncio.wait_for(Connection(settings, "device").run(), PATIENCE_S)
    with pytest.raises(ConnectError, match="check username"):
        await asyncio.wait_for(Connection(BrokerSettings(port=broker.port), "device").run(), PATIENCE_S)
    good = settings.model_copy(update={"password": SecretStr("right")})
    async with running(Connection(good, "device")):
        pass
    assert "right" not in repr(good)


async def test_a_refused_subscription_is_an_error_with_a_remedy(free_port):
    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                kind, length = await reader.readexactly(2)
                body = await reader.readexactly(length)
                if kind == 0x10:
                    writer.write(b"\x20\x03\x00\x00\x00")
                elif kind == 0x82:
                    writer.write(b"\x90\x05" + body[:2] + b"\x00\x00\x87")  # the second: not authorized
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", free_port)
    connection = Connection(BrokerSettings(port=free_port), "device", subscriptions=(("open", 0), ("shut", 1)))
    async with server:
        with pytest.raises(ConnectError, match=r"refused the subscription to shut \(Not authorized\)"):
            await asyncio.wait_for(connection.run(), PATIENCE_S)
    assert not connection.connected


@pytest.fixture
def certificates(tmp_path):
    """A CA and a certificate for 127.0.0.1 that it signed."""
    need(shutil.which("openssl"), "openssl")

    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=tmp_path)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-days", "2", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test CA")
    openssl("req", *key, "-keyout", "broker.key", "-out", "broker.csr", "-subj", "/CN=broker")
    (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1")
    signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", "broker.csr", *signing, "-out", "broker.crt")
    return tmp_path


async def test_tls(start_mosquitto, certificates):
    c = certificates
    broker = await start_mosquitto(
        f"certfile {c / 'broker.crt'}\nkeyfile {c / 'broker.key'}\n",
    )
    settings = BrokerSettings(port=broker.port, tls=True, ca_file=c / "ca.crt")
    inbox = Inbox()
    reader = Connection(settings, "reader", subscriptions=(("t", 1),), on_message=inbox, receive_maximum=1000)
    publisher = Connection(settings, "writer")
    async with running(reader, publisher):
        # In bursts: TLS decrypts more at a time than paho takes, and the socket says nothing of what is left.
        for burst in range(20):
            for n in range(50):
                publisher.publish("t", b"%d %d" % (burst, n), n % 2)
            await publisher.flush(PATIENCE_S)
            await inbox.holds(50 * (burst + 1))
    assert len(set(inbox.payloads)) == 1000

    with pytest.raises(ConnectError, match="name its CA in ca_file"):
        await asyncio.wait_for(Connection(BrokerSettings(port=broker.port, tls=True), "x").run(), PATIENCE_S)
    wrong_name = settings.model_copy(update={"host": "localhost"})
    with pytest.raises(ConnectError, match="not trusted"):
        await asyncio.wait_for(Connection(wrong_name, "x").run(), PATIENCE_S)
    missing = settings.model_copy(update={"ca_file": c / "none.crt"})
    with pytest.raises(ConnectError, match="check paths"):
        await asyncio.wait_for(Connection(missing, "x").run(), PATIENCE_S)


# -- other brokers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1])
async def test_amqtt_is_spoken_to_in_3_1_1(qos):
    need(importlib.util.find_spec("amqtt"), "amqtt (pip install gammawear[demo])")
    inbox = Inbox()
    async with local_broker(prefer="amqtt") as broker:
        reader = Connection(broker.settings, "reader", subscriptions=(("t/#", qos),), on_message=inbox)
        publisher = Connection(broker.settings, "writer")
        async with running(reader, publisher):
            assert publisher.protocol_in_use == reader.protocol_in_use == "3.1.1"
            for n in range(50):
                publisher.publish("t/x", b"%d" % n, qos)
            await inbox.holds(50)
            assert await publisher.flush(PATIENCE_S)
        assert inbox.payloads == [b"%d" % n for n in range(50)]
        pinned = Connection(with_protocol(broker.settings, "5"), "pinned")
        with pytest.raises(ConnectError, match="protocol"):
            await asyncio.wait_for(pinned.run(), PATIENCE_S)


async def test_a_broker_that_closes_on_mqtt_5_is_asked_in_3_1_1(free_port):
    asked = []

    async def serve(reader, writer):
        packet = await reader.read(100)
        asked.append(packet[8])
        if packet[8] == 4:
            writer.write(b"\x20\x02\x00\x00")
            await reader.read(100)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", free_port)
    connection = Connection(BrokerSettings(port=free_port), "old")
    async with server, running(connection):
        assert connection.protocol_in_use == "3.1.1"
    assert asked == [5, 5, 4]
