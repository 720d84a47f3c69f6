"""A device on the network, whatever it sends: its connection, its will, its status, its configuration, its clock.

Time is kept against the moment of the start (``start + due / speed``), never by adding up sleeps, so nothing drifts. A
device samples whether it is connected or not; what it makes meanwhile waits in the connection's bounded queue.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Final, Literal, Protocol

from protocol.connection import BrokerSettings, Connection, Message, Received
from protocol.messages import Config, SourceKind, Status, now_ms
from protocol.topics import Kind, topic
from quantization.errors import GammawearError, MessageError

logger = logging.getLogger(__name__)

STATUS_INTERVAL_S: Final = 30.0
"""The counters in ``status`` are at most so old; changes are said at once."""

LOGGED_ERRORS: Final = 64
"""Of a node: a folder may hold any number of files that cannot be read, and is read again and again."""

LATE_S: Final = 0.25
"""A packet so long after its time means that the process cannot keep up; less is what other tasks on the loop take."""


class Node(Protocol):
    """What makes the data: a wearable, a camera."""

    @property
    def device_id(self) -> str:
        """1 to 32 of ``A-Z a-z 0-9 _ -``."""

    @property
    def source_kind(self) -> SourceKind:
        """Where its samples come from."""

    @property
    def is_camera(self) -> bool:
        """It sends frames, not packets."""

    @property
    def packet_period_s(self) -> float:
        """Seconds of its own time between two packets, or two frames."""

    @property
    def revision(self) -> int:
        """Goes up whenever :meth:`status` has something new to say, beyond its counters."""

    @property
    def error(self) -> str | None:
        """What :meth:`status` says is wrong."""

    def status(self, *, packets: int | None = None, dropped: int = 0, time_ms: int | None = None) -> Status:
        """The ``online`` message."""

    def apply_config(self, config: Config) -> bool:
        """Take a configuration, whole or not at all; returns whether it was taken."""

    def refuse_config(self, error: GammawearError) -> None:
        """Report a configuration that could not be read."""


def warn_late(publisher: NodePublisher) -> None:
    """Log that packets go out too late."""
    logger.warning(
        "%s: this process cannot keep up: a packet is %.1f s late; further ones are counted only",
        publisher.device_id,
        publisher.lag_s,
    )


class NodePublisher(ABC):
    """Drives one node in real time, or faster, over an MQTT connection of its own.

    Args:
        node: what makes the data.
        broker: where to publish.
        qos: of data and truth.
        speed: seconds of the node's time in a second, above 0.
        queue_limit: messages that may wait for the broker; then the oldest is dropped and counted.
        topic_aliases: see :class:`protocol.connection.Connection`.
        also: what else the node listens to, besides ``config``.

    Attributes:
        connection: for its counters.
        packets_made: packets, or frames, whose time has come. The node itself is one ahead: the one that is being
            waited for exists already.
        packets_published: handed to the connection; fewer or more than were made where the link has faults.
        late: packets that went out more than :data:`LATE_S` after their time.
        lag_s: by how much the last packet was late; 0 when in time.
        on_late: called at the first late packet; logs, unless a fleet speaks for all of its devices.
    """

    def __init__(
        self,
        node: Node,
        broker: BrokerSettings,
        *,
        qos: Literal[0, 1],
        speed: float,
        queue_limit: int,
        topic_aliases: bool = True,
        also: Mapping[Kind, Callable[[Received], None]] | None = None,
    ) -> None:
        if not 0 < speed < float("inf"):
            raise ValueError(f"a speed of {speed}")
        self.speed: Final = speed
        self._node = node
        self._qos: Literal[0, 1] = qos
        self._status_topic = topic(node.device_id, Kind.STATUS)
        self._config_topic = topic(node.device_id, Kind.CONFIG)
        self._also = {topic(node.device_id, kind): take for kind, take in (also or {}).items()}
        self.connection: Final = Connection(
            broker,
            f"gammawear-{node.device_id}",
            will=self._status_message(self._offline()),
            subscriptions=tuple((name, 1) for name in (self._config_topic, *self._also)),
            on_message=self._on_message,
            on_connected=self._announce,
            queue_limit=queue_limit,
            topic_aliases=topic_aliases,
        )
        self.packets_made = 0
        self.packets_published = 0
        self.late = 0
        self.lag_s = 0.0
        self.on_late: Callable[[NodePublisher], None] = warn_late
        self._announced = -1
        self._logged: set[str] = set()
        self._next_status = 0.0
        self._driving: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def device_id(self) -> str:
        """Of the node."""
        return self._node.device_id

    @property
    def dropped(self) -> int:
        """Messages that were given up: the queue was full, or the broker would not have them."""
        return self.connection.dropped.total()

    @property
    def unsent(self) -> int:
        """Messages that the broker has not taken: they wait. After :meth:`stop`, they are lost with the process."""
        return self.connection.queued + self.connection.unacked

    @property
    def period_s(self) -> float:
        """Real time between two packets."""
        return self._node.packet_period_s / self.speed

    # -- life ---------------------------------------------------------------------------------------------------------

    async def run(self, *, start_at: float | None = None) -> None:
        """Publish until the source ends or :meth:`stop`, then say goodbye.

        Cancelled, it goes as in a power cut: the broker publishes the will.

        Args:
            start_at: when the device's time begins, on the loop's clock; None = now.

        Raises:
            ConnectError: the broker refused us for good at the first connection.
        """
        loop = asyncio.get_running_loop()
        connecting = asyncio.create_task(self.connection.run())
        self._driving = asyncio.create_task(self._drive(loop.time() if start_at is None else start_at))
        try:
            await asyncio.wait({connecting, self._driving}, return_when=asyncio.FIRST_COMPLETED)
            if self._driving.done() and not self._driving.cancelled():
                self._driving.result()
                await self.stop()
            await connecting
        finally:
            self._driving.cancel()
            connecting.cancel()
            await asyncio.gather(connecting, self._driving, return_exceptions=True)

    async def stop(self, *, timeout: float = 2.0) -> None:  # noqa: ASYNC109 - handed on
        """Stop sampling, send what waits, publish ``offline``, disconnect; :meth:`run` returns.

        Args:
            timeout: seconds for sending what waits; after that it is lost, and counted by the connection.
        """
        if self._driving is not None:
            self._driving.cancel()
        if self._stopped:
            return
        self._stopped = True
        offline = self._offline().model_copy(
            update={"packets": self.packets_made, "dropped": self.dropped, "time_ms": now_ms()}
        )
        await self.connection.stop(self._status_message(offline), timeout=timeout)

    @abstractmethod
    async def _drive(self, start: float) -> None:
        """Make and publish everything, waiting for its time with :meth:`_wait_until`.

        Args:
            start: when the node's time begins, on the loop's clock.
        """

    async def _wait_until(self, moment: float) -> None:
        loop = asyncio.get_running_loop()
        # A device that is late still lets the others have their turn.
        await asyncio.sleep(max(0.0, moment - loop.time()))
        self.lag_s = max(0.0, loop.time() - moment)
        if self.lag_s > LATE_S:
            self.late += 1
            if self.late == 1:
                self.on_late(self)

    # -- messages -----------------------------------------------------------------------------------------------------

    def _offline(self) -> Status:
        return Status(state="offline", source=self._node.source_kind, camera=self._node.is_camera or None)

    def _status_message(self, status: Status) -> Message:
        return Message(self._status_topic, status.to_json(), qos=1, retain=True)

    def _announce(self) -> None:
        """Publish ``status``; without a connection not, as the next connection begins with it."""
        if not self.connection.connected or self._stopped:
            return
        self._announced = self._node.revision
        self._next_status = asyncio.get_running_loop().time() + STATUS_INTERVAL_S
        status = self._node.status(packets=self.packets_made, dropped=self.dropped, time_ms=now_ms())
        message = self._status_message(status)
        self.connection.publish(message.topic, message.payload, message.qos, retain=message.retain)

    def _say_news(self) -> None:
        self._log_error()
        if self._node.revision != self._announced or asyncio.get_running_loop().time() >= self._next_status:
            self._announce()

    def _log_error(self) -> None:
        """Each once."""
        error = self._node.error
        if error is not None and error not in self._logged and len(self._logged) < LOGGED_ERRORS:
            self._logged.add(error)
            logger.warning("%s: %s", self.device_id, error)

    def _on_message(self, received: Received) -> None:
        """Only its own topics are subscribed to, but amqtt also brings what it retains for other clients.

        Raises:
            MessageError: it could not be read: the connection counts and logs it.
        """
        if received.topic == self._config_topic:
            self._on_config(received)
        elif (take := self._also.get(received.topic)) is not None:
            take(received)

    def _on_config(self, received: Received) -> None:
        """Hand a configuration to the device; what could not be read is said in ``status`` as well."""
        if not received.payload:
            return  # without a payload, a retained configuration has been cleared: what runs goes on
        try:
            config = Config.parse(received.payload)
        except MessageError as error:
            self._node.refuse_config(error)
            raise
        else:
            self._node.apply_config(config)
        finally:
            # A refusal is said at once. What was taken runs from the next packet on, and is said before that packet.
            self._log_error()
            if self._node.revision != self._announced:
                self._announce()
