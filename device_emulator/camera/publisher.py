"""One camera node on the network."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from device_emulator.camera.node import CameraNode
from device_emulator.node import NodePublisher
from protocol.connection import BrokerSettings
from protocol.topics import Kind, topic

QUEUE_LIMIT: Final = 1024
"""Messages that wait while the broker is away: eight of the largest frames, 16 MB of chunks of the usual size."""


class CameraPublisher(NodePublisher):
    """Drives one camera.

    Args:
        camera: what makes the frames.
        broker: where to publish.
        qos: of chunks and truth.
        speed: camera seconds in a second, above 0.
        truth: publish what is to be found beside the frames, where it is known.
    """

    def __init__(
        self,
        camera: CameraNode,
        broker: BrokerSettings,
        *,
        qos: Literal[0, 1] = 0,
        speed: float = 1.0,
        truth: bool = True,
    ) -> None:
        super().__init__(camera, broker, qos=qos, speed=speed, queue_limit=QUEUE_LIMIT)
        self.camera: Final = camera
        self._truth = truth
        self._frame_topic = topic(camera.device_id, Kind.FRAME)
        self._truth_topic = topic(camera.device_id, Kind.TRUTH)

    async def _drive(self, start: float) -> None:
        # A frame takes tens of milliseconds to read, generate and code: not on the loop, where other nodes wait.
        while (emission := await asyncio.to_thread(self.camera.next_frame)) is not None:
            await self._wait_until(start + emission.due_ms / 1000 / self.speed)
            self._say_news()
            if not emission.chunks:
                continue
            self.packets_made += 1
            if self._truth and emission.truth is not None:
                self.connection.publish(self._truth_topic, emission.truth.to_json(), self._qos)
            for chunk in emission.chunks:
                self.connection.publish(self._frame_topic, chunk, self._qos)
            self.packets_published += 1
