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

from paho.mqtt.client import MQTTMessageInfo

from protocol.broker_settings import BrokerSettings, Message, Received
from protocol.outbox import Outbox
from protocol.mqtt_opening import Accepted, ChannelError, Opening
from protocol.paho_channel import Channel
from protocol.retry import Backoff, VersionChoice
from protocol.wire_size import ALIAS_PROPERTY_BYTES, publish_size
from quantization.errors import ConnectError, GammawearError

__all__ = ["BrokerSettings", "ConnectError", "Connection", "Message", "Received"]

logger = logging.getLogger(__name__)

SEND_BATCH = 64
"""Messages sent in one go before other connections get their turn: about 2 ms."""

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
        connected: from CONNACK until the connection is lost.
        protocol_in_use: of the present connection, None without one.
        session_present: whether the broker had kept our session.
        sent: messages handed to the socket, those sent again included.
        acked: PUBACKs.
        received: messages that reached ``on_message``.
        rejected: of these, where it raised, by the error's ``reason`` (its class without one).
        reconnects: connections after the first.
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
        self._inflight_limit = inflight_limit

        self.protocol_in_use: Literal["5", "3.1.1"] | None = None
        self.session_present = False
        self.sent = 0
        self.acked = 0
        self.received = 0
        self.rejected: Counter[str] = Counter()
        self.reconnects = 0

        self._outbox = Outbox(queue_limit)
        self._unwritten: list[tuple[MQTTMessageInfo, Message]] = []  # QoS 0, in paho's hands
        self._channel: Channel | None = None
        self._window = inflight_limit
        self._packet_limit: int | None = None
        self._pump_due = False
        self._versions = VersionChoice(settings.protocol)
        self._running = False
        self._ever_connected = False
        self._connected_event = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()

    # -- what a user calls --------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether messages go out at present."""
        return self._channel is not None

    @property
    def queued(self) -> int:
        """Messages that wait here."""
        return len(self._outbox.waiting) + len(self._unwritten)

    @property
    def unacked(self) -> int:
        """QoS 1 messages on their way."""
        return len(self._outbox.unacked)

    @property
    def dropped(self) -> Counter[str]:
        """Messages given up: ``overflow`` (queue), ``too_large`` (for the broker), ``refused`` (PUBACK says why)."""
        return self._outbox.dropped

    @property
    def resent(self) -> int:
        """Messages sent again because a connection broke."""
        return self._outbox.resent

    def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False) -> None:
        """Queue a message; it goes out when connected and the window has room. Call it on the loop only.

        Raises:
            MessageError: no such message can be sent.
        """
        self._outbox.put(Message(topic, payload, qos, retain))
        self._empty.clear()
        self._schedule_pump()

    async def run(self) -> None:
        """Connect and stay connected until :meth:`stop` or cancelled; cancelled, the broker publishes the will.

        Raises:
            ConnectError: before there was ever a connection, the broker refused us in a way that asking again cannot
                change (credentials, rights, certificate). Later the same counts as a fault that somebody will mend.
        """
        if self._running:
            msg = f"{self.client_id} is running already"
            raise RuntimeError(msg)
        self._running = True
        self._finished.clear()
        self._stopping.clear()
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
            TimeoutError: not within ``timeout`` seconds.
        """
        await asyncio.wait_for(self._connected_event.wait(), timeout)

    async def flush(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until nothing waits to be sent or acknowledged; return False if that took longer than ``timeout``."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout)
        except TimeoutError:
            return False
        return True

    async def stop(self, final: Message | None = None, *, timeout: float = 2.0) -> None:  # noqa: ASYNC109
        """Publish a last message (an offline status), flush, say goodbye; :meth:`run` returns.

        Messages that did not go out in time stay queued: :attr:`queued` and :attr:`unacked` say how many.
        """
        if final is not None:
            self._outbox.put(final)
            self._empty.clear()
            self._schedule_pump()
        if not self._running:
            return
        finished = asyncio.create_task(self._finished.wait())
        emptied = asyncio.create_task(self._empty.wait())
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
                if self._versions.falls_back(error):
                    continue
                if error.permanent and not self._ever_connected:
                    raise
                logger.log(
                    logging.DEBUG if reported else logging.WARNING, "%s: %s; trying again", self.client_id, error
                )
                reported = True
            else:
                logger.info("%s: connection to %s lost: %s", self.client_id, self.settings.address, reason)
                reported = False
                backoff.lived(loop.time() - started)
            await asyncio.sleep(backoff.next_delay())

    async def _connect_and_serve(self) -> str:
        channel = Channel(
            Opening(
                settings=self.settings,
                client_id=self.client_id,
                version=self._versions.version,
                clean=self._clean,
                will=self._will,
                receive_maximum=self._receive_maximum,
                topic_aliases=self._topic_aliases,
            ),
            on_message=self._handle_message,
            on_ack=self._handle_ack,
            on_writable=self._pump,
        )
        reason = "closed by us"
        try:
            self._establish(channel, await channel.connect())
            if self._subscriptions:
                await channel.subscribe(self._subscriptions)
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
        self._ever_connected = True
        self._channel = channel
        self.protocol_in_use = VERSIONS[self._versions.version]
        self.session_present = accepted.session_present
        self._window = min(self._inflight_limit, accepted.receive_maximum)
        self._packet_limit = accepted.maximum_packet_size
        self._schedule_pump()

    def _lose(self, reason: str) -> None:
        if self._channel is None:
            return
        self._channel = None
        self.protocol_in_use = None
        self._connected_event.clear()
        unwritten = [message for info, message in self._unwritten if not _written(info)]
        self._unwritten.clear()
        self.sent -= len(unwritten)
        self._outbox.recall(unwritten)
        if self._on_disconnected is not None:
            self._on_disconnected(reason)

    # -- messages -----------------------------------------------------------------------------------------------------

    def _schedule_pump(self) -> None:
        if self._channel is not None and not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Send what may be sent, a batch at a time."""
        self._pump_due = False
        channel = self._channel
        if channel is None or channel.full:
            return  # on_writable comes back here
        self._unwritten.clear()
        more = self._hand_over(channel)
        if channel.write():
            self._unwritten.clear()
        if more:
            self._schedule_pump()
        self._check_empty()

    def _hand_over(self, channel: Channel) -> bool:
        """Give paho a batch; return whether there may be more that can go now."""
        for _ in range(SEND_BATCH):
            message = self._outbox.take(self._window)
            if message is None:
                return False
            if self._packet_limit is not None and self._too_large(message):
                self._outbox.dropped["too_large"] += 1
                self._log_once("too_large", f"a message on {message.topic} exceeds the broker's maximum packet size")
                continue
            info = channel.send(message)
            self.sent += 1
            if message.qos:
                self._outbox.sent(info.mid, message)
            else:
                self._unwritten.append((info, message))
        return True

    def _too_large(self, message: Message) -> bool:
        # Sending it would cost the connection (MQTT 5.0, section 3.2.2.3.6), and again after each reconnect.
        size = publish_size(
            message.topic, len(message.payload), qos=message.qos, version=self._versions.version, alias=False
        )
        return self._packet_limit is not None and size + ALIAS_PROPERTY_BYTES > self._packet_limit

    def _handle_ack(self, mid: int, code: int) -> None:
        message = self._outbox.acknowledged(mid)
        if message is None:
            return
        self.acked += 1
        if code >= 0x80:
            self._outbox.dropped["refused"] += 1
            self._log_once("refused", f"the broker refused a message on {message.topic} (reason code 0x{code:02x})")
        if self._outbox.waiting:
            self._schedule_pump()
        else:
            self._check_empty()

    def _check_empty(self) -> None:
        if not self._outbox and not self._unwritten:
            self._empty.set()

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
                logger.warning("%s: rejected a message on %s: %s", self.client_id, received.topic, error)

    def _log_once(self, reason: str, text: str) -> None:
        if self._outbox.dropped[reason] == 1:
            logger.warning("%s: dropped: %s", self.client_id, text)


def _written(info: MQTTMessageInfo) -> bool:
    # is_published raises for a message that paho did not even take
    return info.rc == 0 and info.is_published()
