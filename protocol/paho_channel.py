"""One network connection to a broker: a paho client of its own, driven by the running asyncio loop.

paho runs here without a thread and without its reconnecting: its sockets are watched by the event loop
(:meth:`Channel._readable`, :meth:`Channel.write`), a timer looks after keep-alive. A fresh client per network
connection means that nothing which belongs to one connection (packet identifiers, topic aliases, half a packet) can
leak into the next one.

Three properties of paho 2.1–2.2 that this relies on:

* a QoS 1 message is acknowledged after ``on_message`` has returned (``Client._handle_publish``);
* with ``on_socket_register_write`` set, nothing is written from inside ``publish`` or a callback, so both may be
  called from anywhere on the loop;
* ``loop_read`` handles one packet, or as many as there are unacknowledged messages, and says nothing of what is left.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from paho.mqtt import client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from protocol.broker_settings import Message, Received
from protocol.mqtt_opening import (
    Accepted,
    ChannelError,
    Opening,
    connect_blocking,
    make_client,
    new_properties,
    read_connack,
)

_T = TypeVar("_T")

WAITED_NS = 500_000_000
"""A message that has waited here for so long says since when; less than that is what networks take anyway."""
TAKEN_MS = "taken_ms"
"""The user property that says it: UTC in ms, decimal (MQTT 5.0, section 3.3.2.3.7)."""

ANSWER_TIMEOUT_S = 5.0
"""For CONNACK and SUBACK, once the TCP connection stands. mosquitto answers in milliseconds; 500 devices that come
back at once wait for each other."""

UNANSWERED_DATA_S = 10
"""TCP_USER_TIMEOUT: bytes without a TCP acknowledgement for so long mean a dead path, noticed without waiting for two
keep-alive periods."""

READ_BATCH = 64
"""Packets taken in one go before other connections get their turn: about 2 ms."""

CONNECT_THREADS = 16
"""Connection attempts at a time in one process. Fewer than mosquitto's listen backlog of 100, enough that some
attempts at a silent host do not hold up the rest."""


@functools.cache
def _connectors() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CONNECT_THREADS, thread_name_prefix="mqtt-connect")


class Channel:
    """One network connection, from TCP's first packet to its last. Not to be used again after it closed.

    Args:
        opening: who we are.
        on_message: gets every message; what it raises ends the channel and comes out of :attr:`closed`.
        on_ack: gets packet identifier and reason code of each PUBACK.
        on_writable: called when a socket that was full has taken everything.
    """

    def __init__(
        self,
        opening: Opening,
        *,
        on_message: Callable[[Received], None],
        on_ack: Callable[[int, int], None],
        on_writable: Callable[[], None],
    ) -> None:
        self._opening = opening
        self._on_message = on_message
        self._on_ack = on_ack
        self._on_writable = on_writable
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self._accepted: asyncio.Future[Accepted] = self._loop.create_future()
        self._subscribed: asyncio.Future[None] = self._loop.create_future()
        self._sock: Any = None  # socket.socket or ssl.SSLSocket, while the loop watches it
        self._watching_write = False
        self._write_due = False
        self._progress = False
        self._timer: asyncio.TimerHandle | None = None
        self._aliases: dict[str, Properties] = {}
        self._alias_maximum = 0
        self._filters: tuple[tuple[str, int], ...] = ()
        self._client = client = make_client(opening)
        client.on_connect = self._on_connack
        client.on_subscribe = self._on_suback
        client.on_message = self._on_publish
        client.on_disconnect = self._on_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_close = self._on_socket_close

    # -- opening ------------------------------------------------------------------------------------------------------

    async def connect(self) -> Accepted:
        """Open the connection: name resolution, TCP and TLS in a thread, MQTT on the loop.

        Raises:
            ChannelError: it did not come to a connection.
        """
        address = self._opening.settings.address
        job = _connectors().submit(connect_blocking, self._client, self._opening)
        try:
            await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            # A thread that is busy connecting cannot be interrupted: it closes afterwards what it has opened.
            job.add_done_callback(lambda _: self._close_socket())
            raise
        except ssl.SSLCertVerificationError as error:
            raise ChannelError(
                f"{address}: the broker's certificate is not trusted: {error.verify_message}; name its CA in ca_file",
                permanent=True,
            ) from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA cannot encode
            raise ChannelError(f"{address}: {error}") from error
        self._watch()
        return await self._answer(self._accepted, "CONNECT")

    async def _answer(self, answer: asyncio.Future[_T], what: str) -> _T:
        address = self._opening.settings.address
        either: set[asyncio.Future[Any]] = {answer, self.closed}
        await asyncio.wait(either, timeout=ANSWER_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if self.closed.done():
            # A port of TLS takes what we said for nonsense, and says nothing that we could read.
            hint = "" if self._opening.settings.tls else "; does it want TLS on this port?"
            raise ChannelError(
                f"{address} closed the connection instead of answering {what} ({self.closed.result()}){hint}",
                closed_early=what == "CONNECT",
            )
        raise ChannelError(
            f"{address} did not answer {what} within {ANSWER_TIMEOUT_S:g} s",
            # amqtt misreads an MQTT 5 CONNECT with a will and waits for the rest of it for ever.
            closed_early=what == "CONNECT",
        )

    async def subscribe(self, filters: tuple[tuple[str, int], ...]) -> None:
        """Subscribe and wait until the broker has agreed.

        Raises:
            ChannelError: it refused one of them, or is gone.
        """
        self._filters = filters
        self._client.subscribe(list(filters))
        await self._answer(self._subscribed, "SUBSCRIBE")

    @property
    def full(self) -> bool:
        """Whether the socket takes nothing at present; ``on_writable`` will be called when it does."""
        return self._watching_write

    # -- sending ------------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> mqtt.MQTTMessageInfo:
        """Hand a message to paho; :meth:`write` puts it on the wire."""
        topic, properties = message.topic, None
        if self._alias_maximum:
            properties = self._aliases.get(topic)
            if properties is not None:
                topic = ""
            elif len(self._aliases) < self._alias_maximum:  # topics that come too late travel in full
                properties = new_properties(PacketTypes.PUBLISH)
                properties.TopicAlias = len(self._aliases) + 1
                self._aliases[topic] = properties
        if message.taken_ns is not None and self._opening.version == 5:
            properties = _with_time(properties, message.taken_ns)
        if message.qos and self._client.on_publish is None:
            # Only now: paho builds two objects for this callback, for QoS 0 as well.
            self._client.on_publish = self._on_puback
        return self._client.publish(topic, message.payload, message.qos, message.retain, properties)

    def write(self) -> bool:
        """Write what paho holds; return whether all of it is out. See :attr:`full`."""
        self._write_due = False
        if self._sock is None:
            return False
        self._client.loop_write()
        if self._sock is None:  # lost while writing
            return False
        waiting = self._client.want_write()
        if waiting and not self._watching_write:
            self._loop.add_writer(self._sock, self.write)
        elif self._watching_write and not waiting:
            self._loop.remove_writer(self._sock)
            self._loop.call_soon(self._on_writable)
        self._watching_write = waiting
        return not waiting

    async def disconnect(self) -> None:
        """Say goodbye, so that the broker does not publish the will, and close."""
        if self._sock is not None:
            self._client.disconnect()
            self.write()
            await asyncio.wait({self.closed}, timeout=1.0)
        self.abort("closed by us")

    def abort(self, reason: str = "dropped by us") -> None:
        """Close without a word, as a power cut would: the broker publishes the will."""
        self._unwatch()
        self._close_socket()
        self._finish(reason)

    def _close_socket(self) -> None:
        self._client.on_socket_close = None
        if (sock := self._client.socket()) is not None:
            sock.close()

    # -- the event loop's side ----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        sock: Any = self._client.socket()
        self._sock = sock
        if sock is None:
            return
        # A packet a second must not wait for the acknowledgement of the one before (Nagle).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_DATA_S * 1000)
        self._loop.add_reader(sock, self._readable)
        self.write()
        self._tick()

    def _unwatch(self) -> None:
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)

    def _readable(self) -> None:
        if self._sock is None:
            return
        self._write_due = True  # acknowledgements go out together, below
        try:
            for _ in range(READ_BATCH):
                self._progress = False
                self._client.loop_read()
                if not self._progress:
                    break
        except Exception as error:
            # A mistake in on_message. paho would handle the same packet again, for ever: this connection is over.
            self._unwatch()
            self._close_socket()
            if not self.closed.done():
                self.closed.set_exception(error)
            raise
        self.write()
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            self._loop.call_soon(self._readable)  # decrypted already: the socket itself will not become readable

    def _tick(self) -> None:
        """Send PINGREQ when it is due, notice a missing PINGRESP."""
        if self._sock is None:
            return
        self._client.loop_misc()
        if self._sock is None:
            return
        self.write()
        # The broker waits 1.5 keep-alive periods (MQTT 5.0, section 3.1.2.10): a sixth of one is early enough.
        # The client's, not the settings': CONNACK may have shortened it.
        self._timer = self._loop.call_later(max(0.2, self._client.keepalive / 6), self._tick)

    # -- paho's callbacks ---------------------------------------------------------------------------------------------

    def _on_register_write(self, _client: mqtt.Client, _userdata: object, _sock: object) -> None:
        # Called for each packet that paho queues. Not while connecting: that is another thread, and _watch writes.
        if self._sock is not None and not self._write_due:
            self._write_due = True
            self._loop.call_soon(self.write)

    def _on_socket_close(self, _client: mqtt.Client, _userdata: object, _sock: object) -> None:
        self._unwatch()

    def _on_connack(
        self,
        _client: mqtt.Client,
        _userdata: object,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        answer: Properties | None,
    ) -> None:
        self._progress = True
        if self._accepted.done():
            return
        try:
            accepted = read_connack(self._opening.settings.address, flags.session_present, reason, answer)
        except ChannelError as error:
            self._accepted.set_exception(error)
            return
        if self._opening.topic_aliases:
            self._alias_maximum = accepted.alias_maximum
        self._accepted.set_result(accepted)

    def _on_suback(
        self, _client: mqtt.Client, _userdata: object, _mid: int, reasons: list[ReasonCode], _: Properties | None
    ) -> None:
        self._progress = True
        refused = [f"{f} ({r})" for (f, _), r in zip(self._filters, reasons, strict=False) if r.is_failure]
        if self._subscribed.done():
            return
        if refused:
            text = f"{self._opening.settings.address} refused the subscription to {', '.join(refused)}"
            error = ChannelError(f"{text}; give this client the right to read these topics", permanent=True)
            self._subscribed.set_exception(error)
        else:
            self._subscribed.set_result(None)

    def _on_publish(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        self._progress = True
        try:
            topic = message.topic
        except UnicodeDecodeError:  # which a broker must not pass on (MQTT 5.0, section 1.5.4)
            topic = ""
        self._on_message(
            Received(
                topic, bytes(message.payload), message.qos, message.retain, message.dup, time.time_ns(), _taken(message)
            )
        )

    def _on_puback(
        self, _client: mqtt.Client, _userdata: object, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._progress = True
        self._on_ack(mid, reason.value)

    def _on_close(
        self, _client: mqtt.Client, _userdata: object, flags: mqtt.DisconnectFlags, reason: ReasonCode, _: object
    ) -> None:
        text = str(reason).lower()
        if flags.is_disconnect_packet_from_server:
            text = f"the broker ended it: {text}"
        elif text == "unspecified error":  # paho's word for an end without a word
            text = "the connection broke"
        self._finish(text)


def _with_time(properties: Properties | None, taken_ns: int) -> Properties | None:
    """The properties, and since when the message has waited, if that is long."""
    if time.time_ns() - taken_ns < WAITED_NS:
        return properties
    timed = new_properties(PacketTypes.PUBLISH)  # those with an alias are shared by all messages of a topic
    if properties is not None:
        timed.TopicAlias = getattr(properties, "TopicAlias")  # noqa: B009 - set by name, unknown to types
    timed.UserProperty = (TAKEN_MS, str(taken_ns // 1_000_000))
    return timed


def _taken(message: mqtt.MQTTMessage) -> int | None:
    """What :func:`_with_time` said, in ns; anything else that stands there is nothing."""
    for name, value in getattr(message.properties, "UserProperty", ()):
        if name == TAKEN_MS and value.isascii() and value.isdigit() and len(value) < 16:
            return int(value) * 1_000_000
    return None
