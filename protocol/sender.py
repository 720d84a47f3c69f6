"""The sending half of a connection: from the queue to the socket, no faster than socket and broker take it."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from paho.mqtt.client import MQTTMessageInfo

from protocol.broker_settings import Message
from protocol.mqtt_opening import Accepted
from protocol.outbox import Outbox
from protocol.paho_channel import Channel
from protocol.wire_size import ALIAS_PROPERTY_BYTES, publish_size

logger = logging.getLogger(__name__)

SEND_BATCH = 64
"""Messages sent in one go before other connections get their turn: about 2 ms."""

FAILURE = 0x80
"""Reason codes from here on are refusals (MQTT 5.0, section 2.4)."""


class Sender:
    """Feeds one channel after the other from a queue that outlasts them.

    Args:
        name: for the log.
        queue_limit: messages that may wait; then the oldest is dropped and counted.
        inflight_limit: unacknowledged QoS 1 messages, or fewer if the broker grants fewer.

    Attributes:
        outbox: what waits, what is unacknowledged, what was dropped.
        empty: set while nothing waits to be sent or acknowledged.
        sent: messages handed to the socket, those sent again included.
        acked: PUBACKs.
    """

    def __init__(self, name: str, queue_limit: int, inflight_limit: int) -> None:
        self._name = name
        self._inflight_limit = inflight_limit
        self.outbox = Outbox(queue_limit)
        self.empty = asyncio.Event()
        self.empty.set()
        self.sent = 0
        self.acked = 0
        self._unwritten: list[tuple[MQTTMessageInfo, Message]] = []  # QoS 0, in paho's hands
        self._channel: Channel | None = None
        self._version: Literal[4, 5] = 5
        self._window = inflight_limit
        self._packet_limit: int | None = None
        self._pump_due = False

    @property
    def queued(self) -> int:
        """Messages that wait on this side of the socket."""
        return len(self.outbox.waiting) + len(self._unwritten)

    def put(self, message: Message) -> None:
        """Queue a message."""
        self.outbox.put(message)
        self.empty.clear()
        self._schedule_pump()

    def attach(self, channel: Channel, accepted: Accepted, version: Literal[4, 5]) -> None:
        """Send through this channel from now on."""
        self._channel = channel
        self._version = version
        self._window = min(self._inflight_limit, accepted.receive_maximum)
        self._packet_limit = accepted.maximum_packet_size
        self._schedule_pump()

    def detach(self) -> None:
        """Take back what the channel did not deliver."""
        self._channel = None
        unwritten = [message for info, message in self._unwritten if not _written(info)]
        self._unwritten.clear()
        self.sent -= len(unwritten)
        self.outbox.recall(unwritten)
        self._check_empty()

    def _schedule_pump(self) -> None:
        # Later, since paho's callbacks (an on_message that publishes) must not write; and messages of one turn of the
        # loop go out together.
        if self._channel is not None and not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        """Send what may be sent, a batch at a time. The channel calls this when a full socket has emptied."""
        self._pump_due = False
        channel = self._channel
        if channel is None or channel.full:
            return
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
            message = self.outbox.take(self._window)
            if message is None:
                return False
            if self._packet_limit is not None and self._exceeds(message, self._packet_limit):
                self._drop("too_large", f"a message on {message.topic} exceeds the broker's maximum packet size")
                continue
            info = channel.send(message)
            self.sent += 1
            if message.qos:
                self.outbox.sent(info.mid, message)
            else:
                self._unwritten.append((info, message))
        return True

    def _exceeds(self, message: Message, limit: int) -> bool:
        # Sending it would cost the connection (MQTT 5.0, section 3.2.2.3.6), and again after each reconnect.
        size = publish_size(message.topic, len(message.payload), qos=message.qos, version=self._version, alias=False)
        return size + ALIAS_PROPERTY_BYTES > limit

    def acknowledge(self, mid: int, code: int) -> None:
        """Let go of a message: the broker has taken it, or has refused it for good."""
        message = self.outbox.acknowledged(mid)
        if message is None:
            return
        self.acked += 1
        if code >= FAILURE:
            self._drop("refused", f"the broker refused a message on {message.topic} (reason code 0x{code:02x})")
        if self.outbox.waiting:
            self._schedule_pump()
        else:
            self._check_empty()

    def _check_empty(self) -> None:
        if not self.outbox and not self._unwritten:
            self.empty.set()

    def _drop(self, reason: str, text: str) -> None:
        self.outbox.dropped[reason] += 1
        if self.outbox.dropped[reason] == 1:
            logger.warning("%s: dropped: %s; further ones are counted only", self._name, text)


def _written(info: MQTTMessageInfo) -> bool:
    # is_published raises for a message that paho did not even take
    return info.rc == 0 and info.is_published()
