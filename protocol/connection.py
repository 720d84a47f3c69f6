"""A connection to an MQTT broker that lasts: it comes back by itself and loses nothing that QoS 1 promises to keep.

Used by every emulated device (hundreds on one event loop) and by the gateway::

    connection = Connection(BrokerSettings(), "wrist-7", subscriptions=(("gammawear/config/wrist-7", 1),), ...)
    running = asyncio.create_task(connection.run())
    connection.publish("gammawear/data/wrist-7", packet, qos=1)  # at any time, connected or not; never blocks
    await connection.stop(Message("gammawear/status/wrist-7", b"offline", qos=1, retain=True))
    await running

What is kept when the connection breaks:

* QoS 1 messages until the broker's PUBACK. Unacknowledged ones are published again, first, on the next connection.
  They get new packet identifiers and no DUP flag, as a publication anew: a receiver may see them twice, which QoS 1
  allows and our packets' sequence numbers resolve. (QoS 2, where this would not do, is not offered.)
* QoS 0 messages that wait in the queue, or that were handed over but not written to the socket in full.
* A persistent session (``clean=False``) at the broker: what comes in for us meanwhile waits there, within the broker's
  own limits, for a day (:data:`protocol.mqtt_opening.SESSION_EXPIRY_S`).

Subscriptions are made anew on each connection, session or not; so retained messages come again each time.

Incoming QoS 1 messages are acknowledged after ``on_message`` has returned, not before. A
:class:`~quantization.errors.GammawearError` from there is counted (:attr:`Connection.rejected`), logged once per kind,
and the message acknowledged, or it would come back for ever. Anything else is a mistake in the program: it ends the
connection without an acknowledgement and comes out of :meth:`Connection.run`. ``on_message`` may run before
``on_connected``: a broker delivers what waited in the session at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Literal

from protocol.broker_settings import BrokerSettings, Message, Received
from protocol.mqtt_opening import Accepted, ChannelError, Opening
from protocol.paho_channel import Channel
from protocol.retry import Backoff, VersionChoice
from protocol.sender import Sender
from quantization.errors import ConnectError, GammawearError

__all__ = ["BrokerSettings", "ConnectError", "Connection", "Message", "Received"]

logger = logging.getLogger(__name__)

VERSIONS: dict[int, Literal["5", "3.1.1"]] = {5: "5", 4: "3.1.1"}


class Connection:
    """One client's connection to the broker, for ever.

    Args:
        settings: where and how.
        client_id: unique at the broker.
        will: published by the broker when we vanish (also when :meth:`run` is cancelled; not after :meth:`stop`).
        clean: start with an empty session; False keeps subscriptions and undelivered messages at the broker.
        subscriptions: filters and QoS.
        on_message: gets each message, on the loop.
        on_connected: called when connected *and* subscribed, each time.
        on_disconnected: called with a reason each time an established connection is lost or closed.
        queue_limit: messages that may wait here; then the oldest is dropped and counted.
        topic_aliases: let two bytes stand for a topic once it has been sent (MQTT 5, if the broker grants any). The
            first topics of a connection get them, so publish on few.
        receive_maximum: unacknowledged messages that the broker may have under way to us (MQTT 5).
        inflight_limit: unacknowledged messages that we may have under way to it.

    Attributes:
        protocol_in_use: of the present connection, None without one.
        session_present: whether the broker had kept our session.
        received: messages that reached ``on_message``.
        rejected: of these, where it raised, by the error's ``reason`` (its class without one).
        reconnects: connections after the first.
        last_error: why the last attempt failed or the last connection ended, for a person; None before there was one.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        *,
        will: Message | None = None,
        clean: bool = True,
        subscriptions: tuple[tuple[str, int], ...] = (),
        on_message: Callable[[Received], None] | None = None,
        on_connected: Callable[[], None] | None = None,
        on_disconnected: Callable[[str], None] | None = None,
        queue_limit: int = 1000,
        topic_aliases: bool = True,
        receive_maximum: int | None = None,
        inflight_limit: int = 100,
    ) -> None:
        if not client_id:
            msg = "a client needs an identifier: the session and the will hang on it"
            raise ValueError(msg)
        self.settings = settings
        self.client_id = client_id
        self._will = will
        self._clean = clean
        self._subscriptions = subscriptions
        self._on_message = on_message
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._topic_aliases = topic_aliases
        self._receive_maximum = receive_maximum

        self.protocol_in_use: Literal["5", "3.1.1"] | None = None
        self.session_present = False
        self.received = 0
        self.rejected: Counter[str] = Counter()
        self.reconnects = 0
        self.last_error: str | None = None

        self._sender = Sender(client_id, queue_limit, inflight_limit)
        self._channel: Channel | None = None
        self._version: Literal[4, 5] = 5
        self._versions = VersionChoice(settings.protocol)
        self._running = False
        self._ever_connected = False
        self._connected_event = asyncio.Event()
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()

    # -- what a user calls --------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """From CONNACK until the connection is lost."""
        return self._channel is not None

    @property
    def queued(self) -> int:
        """Messages that wait here."""
        return self._sender.queued

    @property
    def unacked(self) -> int:
        """QoS 1 messages on their way."""
        return len(self._sender.outbox.unacked)

    @property
    def sent(self) -> int:
        """Messages handed to the socket, those sent again included."""
        return self._sender.sent

    @property
    def acked(self) -> int:
        """QoS 1 messages that the broker has answered for."""
        return self._sender.acked

    @property
    def dropped(self) -> Counter[str]:
        """Messages given up: ``overflow`` (queue), ``too_large`` (for the broker), ``refused`` (PUBACK says why)."""
        return self._sender.outbox.dropped

    @property
    def resent(self) -> int:
        """Messages sent again because a connection broke."""
        return self._sender.outbox.resent

    def publish(
        self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False, taken_ns: int | None = None
    ) -> None:
        """Queue a message; it goes out when connected and the window has room. Call it on the loop only.

        The arguments are those of :class:`protocol.broker_settings.Message`.

        Raises:
            MessageError: no such message can be sent.
        """
        self._sender.put(Message(topic, payload, qos, retain, taken_ns))

    async def run(self) -> None:
        """Connect and stay connected until :meth:`stop` or cancelled; cancelled, the broker publishes the will.

        A connection that has been stopped stays so: ``run`` returns at once, also when ``stop`` came first.

        Raises:
            ConnectError: before there was ever a connection, the broker refused us in a way that asking again cannot
                change (credentials, rights, certificate). Later the same counts as a fault that somebody will mend.
        """
        if self._running:
            msg = f"{self.client_id} is running already"
            raise RuntimeError(msg)
        self._running = True
        self._finished.clear()
        keeping = asyncio.create_task(self._keep_connected())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
            if self._channel is not None:
                await self._channel.disconnect()
        finally:
            keeping.cancel()
            stopping.cancel()
            await asyncio.gather(keeping, stopping, return_exceptions=True)
            self._running = False
            self._finished.set()

    async def wait_connected(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncio.wait_for
        """Wait until connected and subscribed.

        Raises:
            ConnectError: not within ``timeout`` seconds, or :meth:`run` has ended; with the last thing that went wrong.
        """
        waits = [asyncio.create_task(event.wait()) for event in (self._connected_event, self._finished)]
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self._connected_event.is_set():
            raise ConnectError(self.last_error or f"{self.client_id} has no connection to {self.settings.address}")

    async def flush(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until nothing waits to be sent or acknowledged; return False if that took longer than ``timeout``."""
        try:
            await asyncio.wait_for(self._sender.empty.wait(), timeout)
        except TimeoutError:
            return False
        return True

    async def stop(self, final: Message | None = None, *, timeout: float = 2.0) -> None:  # noqa: ASYNC109
        """Publish a last message (an offline status), flush, say goodbye; :meth:`run` returns.

        Messages that did not go out in time stay queued: :attr:`queued` and :attr:`unacked` say how many.
        """
        if final is not None:
            self._sender.put(final)
        if not self._running:
            self._stopping.set()
            return
        finished = asyncio.create_task(self._finished.wait())
        emptied = asyncio.create_task(self._sender.empty.wait())
        try:
            await asyncio.wait({emptied, finished}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            await finished
        finally:
            emptied.cancel()
            finished.cancel()

    # -- staying connected --------------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        reported = False
        while True:
            started = loop.time()
            try:
                reason = await self._connect_and_serve()
            except ChannelError as error:
                self.last_error = str(error)
                if self._versions.falls_back(error):
                    continue
                if error.permanent and not self._ever_connected:
                    raise
                logger.log(
                    logging.DEBUG if reported else logging.WARNING,
                    "%s: %s; trying again",
                    self.client_id,
                    error,
                    extra={"client": self.client_id},
                )
                reported = True
            else:
                self.last_error = reason
                if self._stopping.is_set():
                    return
                logger.info(
                    "%s: connection to %s lost: %s",
                    self.client_id,
                    self.settings.address,
                    reason,
                    extra={"client": self.client_id},
                )
                reported = False
                backoff.lived(loop.time() - started)
            await asyncio.sleep(backoff.next_delay())

    async def _connect_and_serve(self) -> str:
        self._version = self._versions.version
        channel = Channel(
            Opening(
                settings=self.settings,
                client_id=self.client_id,
                version=self._version,
                clean=self._clean,
                will=self._will,
                receive_maximum=self._receive_maximum,
                topic_aliases=self._topic_aliases,
            ),
            on_message=self._handle_message,
            on_ack=self._sender.acknowledge,
            on_writable=self._sender.pump,
        )
        reason = "closed by us"
        try:
            self._establish(channel, await channel.connect())
            if self._subscriptions:
                await channel.subscribe(self._subscriptions)
            self._ever_connected = True
            self._connected_event.set()
            if self._on_connected is not None:
                self._on_connected()
            reason = await channel.closed
        except ChannelError as error:
            reason = str(error)
            raise
        finally:
            channel.abort()
            self._lose(reason)
        return reason

    def _establish(self, channel: Channel, accepted: Accepted) -> None:
        self._versions.accepted()
        self.reconnects += self._ever_connected
        self._channel = channel
        self.protocol_in_use = VERSIONS[self._version]
        self.session_present = accepted.session_present
        self._sender.attach(channel, accepted, self._version)

    def _lose(self, reason: str) -> None:
        if self._channel is None:
            return
        self._channel = None
        self.protocol_in_use = None
        self._connected_event.clear()
        self._sender.detach()
        if self._on_disconnected is not None:
            self._on_disconnected(reason)

    def _handle_message(self, received: Received) -> None:
        self.received += 1
        if self._on_message is None:
            return
        try:
            self._on_message(received)
        except GammawearError as error:
            reason = getattr(error, "reason", type(error).__name__)
            self.rejected[reason] += 1
            if self.rejected[reason] == 1:
                logger.warning(
                    "%s: rejected a message on %s: %s",
                    self.client_id,
                    received.topic,
                    error,
                    extra={"client": self.client_id, "topic": received.topic, "reason": reason},
                )
