"""The gateway's one connection to the broker: what it listens to, what it says, and when it acknowledges.

Subscriptions are ``imu``, ``status``, ``label``, ``frame``, ``truth`` and ``raw`` of every device, QoS 1 in a session
that the broker keeps. A message is acknowledged after :meth:`~gateway.pipeline.Pipeline.feed` has returned: once a
packet is checked, decoded and in its device's window buffer (or held for at most 0.3 s for one that is missing), once a
chunk is checked and in its frame. A crash loses what had not made a window or an answer yet. That is for what is sent
with QoS 1; what a device sends with QoS 0 comes as QoS 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocol.broker_settings import BrokerSettings
from protocol.connection import Connection, Message, Received
from protocol.messages import Status, now_ms
from protocol.topics import GATEWAY_ID, Kind, every, topic

STATUS_TOPIC: Final = topic(GATEWAY_ID, Kind.STATUS)
SUBSCRIPTIONS: Final = tuple(
    (every(kind), 1) for kind in (Kind.STATUS, Kind.LABEL, Kind.IMU, Kind.FRAME, Kind.TRUTH, Kind.RAW)
)
"""Statuses first: the retained ones then tell rates and codebooks before the first packet that is published from now
on. What a session has kept comes before all of them."""
RECEIVE_MAXIMUM: Final = 200
"""Unacknowledged messages under way to us. They are handled in the order of 50 µs each, so that this is 10 ms of work;
a broker may have a lower limit of its own (mosquitto: ``max_inflight_messages``)."""
OUTGOING: Final = 10_000
"""Answers that may wait for the broker; then the oldest goes, of which a newer one was retained anyway."""

Feed = Callable[[Received], None]


class Subscriber:
    """Brings messages to ``feed`` and takes answers to the broker.

    Args:
        settings: of the broker.
        client_id: names the session: the same at every start, another for every gateway.
        feed: gets every message; raises nothing.

    Attributes:
        connection: for its state and counters.
    """

    def __init__(self, settings: BrokerSettings, client_id: str, feed: Feed) -> None:
        self.connection = Connection(
            settings,
            client_id,
            will=_status("offline"),
            clean=False,
            subscriptions=SUBSCRIPTIONS,
            on_message=feed,
            on_connected=self._say_online,
            queue_limit=OUTGOING,
            topic_aliases=False,  # one topic per device: there are more than aliases
            receive_maximum=RECEIVE_MAXIMUM,
        )

    def publish(self, name: str, payload: bytes) -> None:
        """Publish a retained answer. QoS 0: a lost one is replaced by the next."""
        self.connection.publish(name, payload, qos=0, retain=True)

    def tell(self, name: str, payload: bytes) -> None:
        """Publish what must arrive once, and must not be retained."""
        self.connection.publish(name, payload, qos=1)

    async def run(self) -> None:
        """Stay connected until :meth:`stop`.

        Raises:
            ConnectError: the broker refuses us for good.
        """
        await self.connection.run()

    async def stop(self) -> None:
        """Say offline, hand over what waits, disconnect."""
        await self.connection.stop(_status("offline"))

    def _say_online(self) -> None:
        message = _status("online")
        self.connection.publish(message.topic, message.payload, qos=message.qos, retain=message.retain)


def _status(state: str) -> Message:
    status = Status.model_validate({"state": state, "time_ms": now_ms() if state == "online" else None})
    return Message(STATUS_TOPIC, status.to_json(), qos=1, retain=True)
