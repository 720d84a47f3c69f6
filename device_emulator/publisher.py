"""One wearable on the network: waits until a packet is due, sends it over its link, publishes it with its labels.

Asked over ``debug``, it also publishes the samples of each packet as they were before it quantized them.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from device_emulator.device import Device, Emission
from device_emulator.link import Delivery, Link
from device_emulator.node import NodePublisher
from protocol.connection import BrokerSettings, Received
from protocol.messages import Debug, Label
from protocol.topics import Kind, topic

QUEUE_LIMIT: Final = 1200
"""Messages that wait while the broker is away: ten minutes of packets and labels at one a second."""


class DevicePublisher(NodePublisher):
    """Drives one device.

    Args:
        device: what makes the packets.
        broker: where to publish.
        qos: of packets and labels.
        speed: device seconds in a second, above 0.
        link: what lies between device and broker; None = nothing.
        labels: publish the truth beside the data.
        queue_limit: messages that may wait for the broker; then the oldest is dropped and counted.
        topic_aliases: see :class:`protocol.connection.Connection`.
    """

    def __init__(
        self,
        device: Device,
        broker: BrokerSettings,
        *,
        qos: Literal[0, 1] = 0,
        speed: float = 1.0,
        link: Link | None = None,
        labels: bool = True,
        queue_limit: int = QUEUE_LIMIT,
        topic_aliases: bool = True,
    ) -> None:
        super().__init__(
            device,
            broker,
            qos=qos,
            speed=speed,
            queue_limit=queue_limit,
            topic_aliases=topic_aliases,
            also={Kind.DEBUG: self._on_debug},
        )
        self.device: Final = device
        self._link = link
        self._labels = labels
        self._imu_topic = topic(device.device_id, Kind.IMU)
        self._label_topic = topic(device.device_id, Kind.LABEL)
        self._raw_topic = topic(device.device_id, Kind.RAW)
        self._raw_until = 0.0
        """On the loop's clock."""

    async def _drive(self, start: float) -> None:
        due_ms: float = 0
        while (emission := self.device.next_packet()) is not None:
            deliveries = [Delivery(emission.due_ms, emission.packet)]
            if self._link is not None:
                deliveries = self._link.send(emission.due_ms, emission.packet)
            due_ms = deliveries[0].at_ms if deliveries else emission.due_ms
            await self._wait_until(start + due_ms / 1000 / self.speed)
            self._say_news()
            self.packets_made += 1
            if asyncio.get_running_loop().time() < self._raw_until:
                self.connection.publish(self._raw_topic, self.device.raw_trace(emission).to_json(), self._qos)
            self._publish(deliveries)
            if self._labels:
                self._publish_labels(emission)
        if self._link is not None:
            self._publish(self._link.flush(due_ms))

    def _on_debug(self, received: Received) -> None:
        """Send raw samples for a while, unless that was asked for at some other time.

        Raises:
            MessageError: it could not be read.
        """
        if not received.retain:
            self._raw_until = asyncio.get_running_loop().time() + Debug.parse(received.payload).raw_s

    def _publish(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self.connection.publish(self._imu_topic, delivery.packet, self._qos)
        self.packets_published += len(deliveries)

    def _publish_labels(self, emission: Emission) -> None:
        # With every packet, though nothing may have changed: the truth is never more than one packet behind.
        for run in emission.labels:
            label = Label(activity=run.activity, from_tick=run.from_tick, to_tick=run.to_tick)
            self.connection.publish(self._label_topic, label.to_json(), self._qos)
