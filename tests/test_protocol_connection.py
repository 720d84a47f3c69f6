"""The connection against a real mosquitto, a real amqtt, and brokers that misbehave."""

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter

import pytest
from pydantic import SecretStr, ValidationError

from gammawear.broker import local_broker
from protocol.connection import BrokerSettings, ConnectError, Connection, Message, Received
from protocol.outbox import Outbox
from protocol.retry import FIRST_DELAY_S, LAST_DELAY_S, Backoff
from protocol.wire_size import ALIAS_PROPERTY_BYTES, publish_size
from quantization.errors import MessageError, PacketError

PATIENCE_S = 10.0


class Inbox:
    """Keeps what arrives, and lets a test wait for it."""

    def __init__(self):
        self.messages: list[Received] = []
        self._changed = asyncio.Event()

    def __call__(self, received):
        self.messages.append(received)
        self._changed.set()

    @property
    def payloads(self):
        return [m.payload for m in self.messages]

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def holds(self, count):
        await self.until(lambda inbox: len(inbox.messages) >= count)


class Signal:
    """A callback that a test can wait for, again and again."""

    def __init__(self):
        self.calls = []
        self._queue = asyncio.Queue()

    def __call__(self, *args):
        self.calls.append(args)
        self._queue.put_nowait(args)

    async def wait(self):
        return await asyncio.wait_for(self._queue.get(), PATIENCE_S)


class Proxy:
    """Between client and broker: records what the client sends, can cut the line."""

    def __init__(self, target):
        self.target = target
        self.sent = bytearray()
        self.connections = 0
        self._writers = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.settings = BrokerSettings(port=self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self.connections += 1
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers += [writer, up_writer]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._copy(reader, up_writer, self.sent))
            group.create_task(self._copy(up_reader, writer, bytearray()))

    async def _copy(self, reader, writer, record):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                record += data
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self):
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def packets(self):
        """Each MQTT packet that the client sent."""
        data, found = bytes(self.sent), []
        while data:
            length, shift, at = 0, 0, 1
            while True:
                byte = data[at]
                length |= (byte & 127) << shift
                shift, at = shift + 7, at + 1
                if byte < 128:
                    break
            found.append(data[: at + length])
            data = data[at + length :]
        return found

    def publishes(self):
        return [p for p in self.packets() if p[0] >> 4 == 3]


@contextlib.asynccontextmanager
async def running(*connections, stop=True):
    tasks = [asyncio.create_task(c.run()) for c in connections]
    try:
        for connection in connections:
            await connection.wait_connected(PATIENCE_S)
        yield tasks
        if stop:
            await asyncio.gather(*(c.stop() for c in connections))
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def with_protocol(settings, protocol):
    return settings.model_copy(update={"protocol": protocol})


# -- publish and subscribe --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1])
async def test_a_message_arrives(mosquitto, protocol, qos):
    inbox = Inbox()
    settings = with_protocol(mosquitto.settings, protocol)
    subscriber = Connection(settings, "reader", subscriptions=(("t/+", qos),), on_message=inbox)
    publisher = Connection(settings, "writer")
    before = time.time_ns()
    async with running(subscriber, publisher):
        assert publisher.connected
        assert publisher.protocol_in_use == ("3.1.1" if protocol == "3.1.1" else "5")
        for n in range(200):
            publisher.publish("t/a", b"%d" % n, qos)
        assert await publisher.flush(PATIENCE_S)
        await inbox.holds(200)
        assert publisher.acked == 200 * qos
        assert publisher.queued == publisher.unacked == 0
    assert inbox.payloads == [b"%d" % n for n in range(200)]
    first = inbox.messages[0]
    assert (first.topic, first.qos, first.retain, first.dup) == ("t/a", qos, False, False)
    assert before < first.received_ns < time.time_ns()
    assert publisher.sent == subscriber.received == 200
    assert publisher.reconnects == publisher.resent == 0
    assert not publisher.dropped
    assert not publisher.connected
    assert publisher.protocol_in_use is None


async def test_what_is_published_before_connecting_waits(mosquitto):
    inbox = Inbox()
    publisher = Connection(mosquitto.settings, "writer")
    publisher.publish("t", b"early")
    publisher.publish("t", b"early too", 1)
    assert publisher.queued == 2
    reader = Connection(mosquitto.settings, "reader", subscriptions=(("t", 1),), on_message=inbox)
    async with running(reader), running(publisher):
        await inbox.holds(2)
    assert inbox.payloads == [b"early", b"early too"]


async def test_retained_messages_come_again_on_every_connection(mosquitto):
    inbox, connected = Inbox(), Signal()
    publisher = Connection(mosquitto.settings, "writer")
    async with running(publisher):
        publisher.publish("t", b"kept", 1, retain=True)
        await publisher.flush(PATIENCE_S)
    async with Proxy(mosquitto.port) as proxy:
        reader = Connection(
            proxy.settings, "reader", clean=False, subscriptions=(("t", 1),), on_message=inbox, on_connected=connected
        )
        async with running(reader):
            await inbox.holds(1)
            await connected.wait()
            assert not reader.session_present
            proxy.cut()
            await connected.wait()
            assert reader.session_present
            await inbox.holds(2)
    assert [m.retain for m in inbox.messages] == [True, True]


async def test_publishing_from_inside_on_message(mosquitto):
    inbox = Inbox()

    def echo(received):
        echoer.publish("back", received.payload, received.qos)

    echoer = Connection(mosquitto.settings, "echo", subscriptions=(("there", 1),), on_message=echo)
    asker = Connection(mosquitto.settings, "asker", subscriptions=(("back", 1),), on_message=inbox)
    async with running(echoer, asker):
        for n in range(100):
            asker.publish("there", b"%d" % n, n % 2)
        await inbox.holds(100)
    assert sorted(inbox.payloads) == sorted(b"%d" % n for n in range(100))


async def test_a_message_larger_than_the_socket_takes_at_once(mosquitto):
    inbox = Inbox()
    publisher = Connection(mosquitto.settings, "writer")
    reader = Connection(mosquitto.settings, "reader", subscriptions=(("t", 1),), on_message=inbox)
    big = bytes(range(256)) * 800
    async with running(publisher, reader):
        for _ in range(100):
            publisher.publish("t", big)
        await inbox.holds(100)
        assert publisher.queued == 0
    assert set(inbox.payloads) == {big}


async def test_a_message_that_the_broker_would_not_take_costs_no_connection(mosquitto, caplog):
    inbox = Inbox()
    publisher = Connection(mosquitto.settings, "writer", subscriptions=(("t", 1),), on_message=inbox)
    async with running(publisher):
        publisher.publish("t", bytes(300_000), 1)
        publisher.publish("t", bytes(300_000))
        publisher.publish("t", b"small", 1)
        await inbox.holds(1)
        assert await publisher.flush(PATIENCE_S)
    assert inbox.payloads == [b"small"]
    assert publisher.dropped == Counter(too_large=2)
    assert publisher.reconnects == 0
    assert sum("maximum packet size" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_the_window_bounds_what_is_under_way(mosquitto, protocol):
    publisher = Connection(with_protocol(mosquitto.settings, protocol), "writer", inflight_limit=5)
    most = 0
    async with running(publisher):
        for n in range(500):
            publisher.publish("t", b"%d" % n, 1)
        while not await publisher.flush(0.001):
            most = max(most, publisher.unacked)
    assert publisher.acked == 500
    assert 0 < most <= 5


async def test_a_hundred_connections_on_one_loop(mosquitto):
    inbox = Inbox()
    reader = Connection(mosquitto.settings, "reader", subscriptions=(("t/#", 1),), on_message=inbox, queue_limit=10)
    devices = [Connection(mosquitto.settings, f"device-{n}") for n in range(100)]
    async with running(reader, *devices):
        for round_ in range(5):
            for n, device in enumerate(devices):
                device.publish(f"t/{n}", b"%d" % round_, 1)
        await inbox.holds(500)
    per_topic = Counter(m.topic for m in inbox.messages)
    assert len(per_topic) == 100
    assert set(per_topic.values()) == {5}


# -- bytes on the wire ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [0, 1, 100, 122, 123, 124, 130, 16_400])
@pytest.mark.parametrize("qos", [0, 1])
async def test_publish_size_is_what_goes_over_the_wire(mosquitto, qos, payload):
    topic = "gammawear/v1/wräst"
    for version, aliases in ((5, True), (5, False), (4, False)):
        async with Proxy(mosquitto.port) as proxy:
            settings = with_protocol(proxy.settings, "5" if version == 5 else "3.1.1")
            publisher = Connection(settings, "writer", topic_aliases=aliases)
            async with running(publisher):
                for _ in range(3):
                    publisher.publish(topic, bytes(payload), qos)
                await publisher.flush(PATIENCE_S)
            sizes = [len(p) for p in proxy.publishes()]
        plain = publish_size(topic, payload, qos=qos, version=version, alias=False)
        if aliases:
            short = publish_size(topic, payload, qos=qos, version=5, alias=True)
            assert sizes[0] - plain in (ALIAS_PROPERTY_BYTES, ALIAS_PROPERTY_BYTES + 1)
            assert sizes[1:] == [short, short]
            assert short < plain
        else:
            assert sizes == [plain] * 3


def test_publish_size_knows_no_alias_before_mqtt_5():
    with pytest.raises(ValueError, match="MQTT 5 only"):
        publish_size("t", 1, qos=0, version=4, alias=True)


async def test_aliases_stay_within_what_the_broker_grants_and_begin_anew(mosquitto):
    inbox, connected = Inbox(), Signal()
    topics = [f"long/topic/{n}" for n in range(250)]  # the shipped configuration grants 200
    reader = Connection(
        mosquitto.settings, "reader", subscriptions=(("long/#", 1),), on_message=inbox, receive_maximum=1000
    )
    async with Proxy(mosquitto.port) as proxy:
        publisher = Connection(proxy.settings, "writer", on_connected=connected)
        async with running(reader, publisher):
            await connected.wait()
            for _ in range(2):
                for topic in topics:
                    publisher.publish(topic, b"x", 1)
            await publisher.flush(PATIENCE_S)
            without_topic = [p for p in proxy.publishes() if p[2:4] == b"\0\0"]
            assert len(without_topic) == 200
            proxy.cut()
            await connected.wait()
            publisher.publish(topics[0], b"x", 1)
            await inbox.holds(501)
            assert topics[0].encode() in proxy.publishes()[-1]
    assert Counter(m.topic for m in inbox.messages) == Counter(topics * 2) + Counter(topics[:1])


# -- the broker goes away ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_nothing_is_lost_at_qos_1_when_the_broker_restarts(mosquitto, protocol):
    inbox, lost = Inbox(), Signal()
    settings = with_protocol(mosquitto.settings, protocol)
    reader = Connection(
        settings, "reader", clean=False, subscriptions=(("t", 1),), on_message=inbox, on_disconnected=lost
    )
    publisher = Connection(settings, "writer", queue_limit=10_000)
    count = 0

    async def stream():
        nonlocal count
        while True:
            for _ in range(20):
                publisher.publish("t", b"%d" % count, 1)
                count += 1
            await asyncio.sleep(0.005)

    async with running(reader, publisher):
        streaming = asyncio.create_task(stream())
        for _ in range(2):
            await inbox.holds(len(inbox.messages) + 300)
            await mosquitto.stop(signal.SIGTERM)
            await lost.wait()
            await mosquitto.start()
            before = len(inbox.messages)
            await inbox.holds(before + 300)
        streaming.cancel()
        assert await publisher.flush(PATIENCE_S)
        await inbox.until(lambda i: len(set(i.payloads)) == count)
        assert reader.session_present
        assert publisher.reconnects == reader.reconnects == 2
    assert not publisher.dropped
    twice = len(inbox.messages) - count
    assert twice <= publisher.resent + 1000  # the broker's redeliveries to the reader, within its window


async def test_the_stream_goes_on_within_ten_seconds_of_a_killed_brokers_return(mosquitto):
    inbox, lost = Inbox(), Signal()
    reader = Connection(mosquitto.settings, "reader", clean=False, subscriptions=(("t", 1),), on_message=inbox)
    publisher = Connection(mosquitto.settings, "writer", on_disconnected=lost)
    async with running(reader, publisher):
        publisher.publish("t", b"before", 1)
        await inbox.holds(1)
        await mosquitto.stop(signal.SIGKILL)
        await lost.wait()
        publisher.publish("t", b"meanwhile", 1)
        publisher.publish("t", b"and at QoS 0")
        # The back-off has grown by the time the broker is back.
        with pytest.raises(ConnectError):
            await publisher.wait_connected(1.5)
        await mosquitto.start()
        began = time.monotonic()
        # A killed broker may have forgotten the reader's session: what is published once the reader is back arrives.
        await reader.wait_connected(PATIENCE_S)
        await publisher.wait_connected(PATIENCE_S)
        publisher.publish("t", b"after", 1)
        await inbox.until(lambda i: b"after" in i.payloads)
        assert time.monotonic() - began < 10
        assert publisher.queued == 0


async def test_what_was_not_acknowledged_goes_again_first(free_port):
    """Against a broker that accepts, never acknowledges the first time, and acknowledges the second time."""
    seen: list[list[bytes]] = []
    got = asyncio.Event()

    async def serve(reader, writer):
        mine: list[bytes] = []
        seen.append(mine)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                kind, length = await reader.readexactly(2)
                body = await reader.readexactly(length)
                if kind == 0x10:
                    writer.write(b"\x20\x03\x00\x00\x00")
                elif kind >> 4 == 3:
                    mine.append(body[6:])  # topic "t", identifier, no properties
                    if len(seen) > 1:
                        writer.write(b"\x40\x02" + body[3:5])
                    elif len(mine) == 3:
                        break
                    if mine[-1] == b"4":
                        got.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", free_port)
    publisher = Connection(BrokerSettings(port=free_port), "writer", inflight_limit=3)
    async with server, running(publisher):
        for n in range(5):
            publisher.publish("t", b"%d" % n, 1)
        await asyncio.wait_for(got.wait(), PATIENCE_S)
        assert await publisher.flush(PATIENCE_S)
        assert (publisher.acked, publisher.resent, publisher.sent) == (5, 3, 8)
    assert seen == [[b"0", b"1", b"2"], [b"0", b"1", b"2", b"3", b"4"]]


async def test_a_refused_message_is_counted_and_not_sent_again(free_port):
    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                kind, length = await reader.readexactly(2)
                body = await reader.readexactly(length)
                if kind == 0x10:
                    writer.write(b"\x20\x03\x00\x00\x00")
                elif kind >> 4 == 3:
                    writer.write(b"\x40\x03" + body[3:5] + b"\x87")  # PUBACK: not authorized
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", free_port)
    publisher = Connection(BrokerSettings(port=free_port), "writer")
    async with server, running(publisher):
        publisher.publish("t", b"x", 1)
        assert await publisher.flush(PATIENCE_S)
    assert publisher.dropped == Counter(refused=1)


async def test_a_full_queue_drops_its_oldest(mosquitto):
    inbox = Inbox()
    publisher = Connection(mosquitto.settings, "writer", queue_limit=10)
    for n in range(25):
        publisher.publish("t", b"%d" % n, n % 2)
    assert publisher.queued == 10
    assert publisher.dropped == Counter(overflow=15)
    reader = Connection(mosquitto.settings, "reader", subscriptions=(("t", 1),), on_message=inbox)
    async with running(reader), running(publisher):
        await inbox.holds(10)
    assert inbox.payloads == [b"%d" % n for n in range(15, 25)]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_the_will_is_published_when_the_line_is_cut_and_not_after_stop(mosquitto, protocol):
    inbox = Inbox()
    watcher = Connection(mosquitto.settings, "watcher", subscriptions=(("status", 1),), on_message=inbox)
    will = Message("status", b"lost", qos=1, retain=True)
    async with running(watcher), Proxy(mosquitto.port) as proxy:
        device = Connection(with_protocol(proxy.settings, protocol), "device", will=will)
        async with running(device, stop=False):
            proxy.cut()
            await inbox.holds(1)
        direct = with_protocol(mosquitto.settings, protocol)
        # Cancelled is like a pulled plug, too.
        async with running(Connection(direct, "device", will=will), stop=False):
            pass
        await inbox.holds(2)
        last = Connection(direct, "device", will=will)
        async with running(last, stop=False) as [task]:
            await last.stop(Message("status", b"offline", qos=1, retain=True))
            await asyncio.wait_for(task, PATIENCE_S)
        await inbox.holds(3)
    assert inbox.payloads == [b"lost", b"lost", b"offline"]
    assert last.acked == 1


async def test_stop_before_and_without_run(mosquitto):
    connection = Connection(mosquitto.settings, "early")
    await connection.stop()
    await asyncio.wait_for(connection.run(), 1)
    assert not connection.connected
    with pytest.raises(ConnectError, match="has no connection"):
        await connection.wait_connected(1)


async def test_stop_gives_up_on_a_broker_that_is_away(free_port):
    connection = Connection(BrokerSettings(port=free_port), "device")
    task = asyncio.create_task(connection.run())
    connection.publish("t", b"x", 1)
    with pytest.raises(ConnectError, match="refused"):
        await connection.wait_connected(0.2)
    await connection.stop(timeout=0.2)
    await asyncio.wait_for(task, 1)
    assert connection.queued == 1


async def test_two_with_one_identifier_do_not_fight_at_full_speed(mosquitto):
    lost = Signal()
    one = Connection(mosquitto.settings, "same", on_disconnected=lost)
    two = Connection(mosquitto.settings, "same", on_disconnected=lost)
    async with running(one, stop=False), running(two, stop=False):
        for _ in range(3):
            await lost.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while True:
                    await lost.wait()
    assert 2 <= one.reconnects + two.reconnects < 12


def test_backoff_doubles_within_bounds_and_starts_over_after_a_good_connection():
    backoff = Backoff()
    delays = [backoff.next_delay() for _ in range(12)]
    assert all(0.2 * FIRST_DELAY_S * 2**n <= d <= FIRST_DELAY_S * 2**n for n, d in enumerate(delays[:5]))
    assert max(delays) <= LAST_DELAY_S
    backoff.lived(0.1)
    assert backoff.next_delay() >= 0.2 * LAST_DELAY_S
    backoff.lived(60)
    assert backoff.next_delay() <= FIRST_DELAY_S


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
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")

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
    pytest.importorskip("amqtt")
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


# -- what on_message raises -------------------------------------------------------------------------------------------


async def test_bad_bytes_are_counted_and_do_not_come_back(mosquitto, caplog):
    inbox = Inbox()

    def picky(received):
        if received.payload == b"bad":
            raise PacketError("checksum", "no")
        inbox(received)

    reader = Connection(mosquitto.settings, "reader", clean=False, subscriptions=(("t", 1),), on_message=picky)
    publisher = Connection(mosquitto.settings, "writer")
    async with running(reader, publisher):
        for payload in (b"bad", b"good", b"bad", b"good"):
            publisher.publish("t", payload, 1)
        await inbox.holds(2)
        assert reader.reconnects == 0
    assert reader.rejected == Counter(checksum=2)
    assert sum("rejected a message on t" in r.getMessage() for r in caplog.records) == 1


async def test_a_mistake_in_on_message_ends_run_and_leaves_the_message_unacknowledged(mosquitto):
    def broken(received):
        raise KeyError(received.payload)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # reported there as well
    reader = Connection(mosquitto.settings, "reader", clean=False, subscriptions=(("t", 1),), on_message=broken)
    publisher = Connection(mosquitto.settings, "writer")
    async with running(publisher):
        async with running(reader, stop=False) as [task]:
            publisher.publish("t", b"mine", 1)
            with pytest.raises(KeyError, match="mine"):
                await asyncio.wait_for(task, PATIENCE_S)
        inbox = Inbox()
        again = Connection(mosquitto.settings, "reader", clean=False, subscriptions=(("t", 1),), on_message=inbox)
        async with running(again):
            await inbox.holds(1)
    assert inbox.payloads == [b"mine"]
    assert inbox.messages[0].dup


async def test_a_message_is_acknowledged_after_on_message_has_returned(free_port):
    order, done = [], asyncio.Event()

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                kind, length = await reader.readexactly(2)
                await reader.readexactly(length)
                if kind == 0x10:
                    writer.write(b"\x20\x03\x00\x00\x00" + b"\x32\x06\x00\x01t\x00\x01\x00")
                elif kind == 0x40:
                    order.append("PUBACK")
                    done.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", free_port)
    connection = Connection(BrokerSettings(port=free_port), "c", on_message=lambda _: order.append("on_message"))
    async with server, running(connection):
        await asyncio.wait_for(done.wait(), PATIENCE_S)
    assert order == ["on_message", "PUBACK"]


# -- small parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"topic": "", "payload": b""}, "topic"),
        ({"topic": "a/+", "payload": b""}, "topic"),
        ({"topic": "#", "payload": b""}, "topic"),
        ({"topic": "a\0", "payload": b""}, "topic"),
        ({"topic": "a" * 65_536, "payload": b""}, "topic"),
        ({"topic": "a", "payload": b"", "qos": 2}, "qos"),
    ],
)
def test_a_message_that_cannot_be_sent(fields, reason):
    with pytest.raises(MessageError) as caught:
        Message(**fields)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "fields",
    [{"password": "x"}, {"ca_file": "ca.crt"}, {"tls": True, "key_file": "k"}, {"port": 0}, {"hots": "x"}],
)
def test_settings_that_do_not_fit_together(fields):
    with pytest.raises(ValidationError):
        BrokerSettings(**fields)


def test_outbox_overflow_takes_from_the_front_also_what_was_sent_before():
    box = Outbox(3)
    for n in range(3):
        box.put(Message("t", b"%d" % n, 1))
    for mid in range(3):
        box.sent(mid, box.take(10))
    assert len(box) == 3
    box.recall([Message("t", b"unwritten")])
    box.put(Message("t", b"new", 1))
    assert [m.payload for m in box.waiting] == [b"1", b"2", b"unwritten", b"new"]
    assert box.dropped == Counter(overflow=1)
    while box.take(10):
        pass
    assert box.resent == 3
    assert box.acknowledged(77) is None


def test_a_queue_of_nothing_and_a_client_without_a_name():
    with pytest.raises(ValueError, match="queue of 0"):
        Outbox(0)
    with pytest.raises(ValueError, match="identifier"):
        Connection(BrokerSettings(), "")
