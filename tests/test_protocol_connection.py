"""The connection against a real mosquitto: publish, subscribe, what ``on_message`` raises.

Outages and the end are in ``test_protocol_connection_outages.py``, refusals and other brokers in
``test_protocol_connection_opening.py``.
"""

import asyncio
import contextlib
import time
from collections import Counter

import pytest
from proxy import PATIENCE_S, Inbox, Proxy, Signal, running, with_protocol

from protocol.connection import BrokerSettings, Connection
from quantization.errors import PacketError

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
