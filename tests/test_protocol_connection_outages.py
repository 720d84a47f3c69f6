"""The broker goes away, the line is cut, the connection stops: what is kept, what is sent again, what is dropped."""

import asyncio
import contextlib
import signal
import time
from collections import Counter

import pytest
from proxy import PATIENCE_S, Inbox, Proxy, Signal, running, with_protocol

from protocol.connection import BrokerSettings, ConnectError, Connection, Message


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


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_what_has_waited_for_the_broker_says_since_when(mosquitto, protocol):
    inbox, lost = Inbox(), Signal()
    settings = with_protocol(mosquitto.settings, protocol)
    reader = Connection(settings, "reader", clean=False, subscriptions=(("t", 1),), on_message=inbox)
    publisher = Connection(settings, "writer", on_disconnected=lost)
    async with running(reader, publisher):
        publisher.publish("t", b"at once", 1, taken_ns=time.time_ns())
        publisher.publish("t", b"no time", 1)
        await inbox.holds(2)
        await mosquitto.stop(signal.SIGTERM)
        await lost.wait()
        taken_ns = time.time_ns()
        publisher.publish("t", b"kept", 1, taken_ns=taken_ns)
        await asyncio.sleep(1)
        await mosquitto.start()
        await inbox.until(lambda i: b"kept" in i.payloads)
    told = {m.payload: m.taken_ns for m in inbox.messages}
    expected = taken_ns // 1_000_000 * 1_000_000 if protocol == "5" else None  # MQTT 3.1.1 has no room for it
    assert told == {b"at once": None, b"no time": None, b"kept": expected}


@pytest.mark.parametrize("value", ["", "x", "-1", "1e3", "٣", "9" * 16])
async def test_another_property_of_that_name_is_no_time(mosquitto, value):
    inbox = Inbox()
    reader = Connection(mosquitto.settings, "reader", subscriptions=(("t", 1),), on_message=inbox)
    async with running(reader):
        sent = await asyncio.create_subprocess_exec(
            "mosquitto_pub", "-h", "127.0.0.1", "-p", str(mosquitto.port), "-V", "5", "-t", "t", "-m", "m",
            "-D", "publish", "user-property", "taken_ms", value,
        )  # fmt: skip
        assert await sent.wait() == 0
        await inbox.holds(1)
    assert inbox.messages[0].taken_ns is None
