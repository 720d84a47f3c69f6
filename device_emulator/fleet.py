"""Many devices on one event loop, each with a connection of its own.

Packets of one fleet are spread evenly over the packet period: five hundred devices that all began at the same moment
would send five hundred packets in one millisecond of each second, which no fleet of real wearables does.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from typing import Final

from device_emulator.node import NodePublisher, warn_late
from quantization.errors import ConnectError, MessageError

CONNECTS_AT_A_TIME: Final = 50
"""Half of mosquitto's listen backlog of 100, so that others get in meanwhile."""

CONNECT_JITTER_S: Final = 0.05
"""Each connection attempt waits up to so long: broker and TLS see a stream, not a wall."""

CONNECT_PATIENCE_S: Final = 5.0
"""An attempt that takes longer goes on, and the next device may begin: a broker that is down must not leave the rest
of the fleet without their own attempts."""


class Fleet:
    """Runs wearables and cameras together.

    Args:
        publishers: with distinct device ids, not running yet.
        connects_at_a_time: connections that are being made at once.

    Raises:
        MessageError: a device id repeats; the two would throw each other out of the broker for ever.
    """

    def __init__(self, publishers: Sequence[NodePublisher], *, connects_at_a_time: int = CONNECTS_AT_A_TIME) -> None:
        seen: set[str] = set()
        for publisher in publishers:
            if publisher.device_id in seen:
                raise MessageError("topic", f"two devices are called {publisher.device_id!r}")
            seen.add(publisher.device_id)
        self.publishers: Final = tuple(publishers)
        for publisher in publishers:
            publisher.on_late = self._say_late
        self._said_late = False
        self._connects_at_a_time = connects_at_a_time

    @property
    def packets_made(self) -> int:
        """By all devices, sent or not."""
        return sum(publisher.packets_made for publisher in self.publishers)

    @property
    def packets_published(self) -> int:
        """Handed to the connections."""
        return sum(publisher.packets_published for publisher in self.publishers)

    @property
    def dropped(self) -> int:
        """Messages given up by full queues."""
        return sum(publisher.dropped for publisher in self.publishers)

    @property
    def unsent(self) -> int:
        """Messages that the broker has not taken: see :attr:`device_emulator.node.NodePublisher.unsent`."""
        return sum(publisher.unsent for publisher in self.publishers)

    @property
    def late(self) -> int:
        """Packets that went out noticeably after their time."""
        return sum(publisher.late for publisher in self.publishers)

    @property
    def lag_s(self) -> float:
        """By how much the worst of the devices' last packets was late."""
        return max((publisher.lag_s for publisher in self.publishers), default=0.0)

    @property
    def connected(self) -> int:
        """Devices that are connected at present."""
        return sum(publisher.connection.connected for publisher in self.publishers)

    async def run(self) -> None:
        """Run until every source has ended or :meth:`stop`. Cancelled, every device goes as in a power cut.

        Raises:
            ConnectError: the broker refused one of the devices for good; the others have been stopped.
        """
        begin = asyncio.get_running_loop().time()
        gate = asyncio.Semaphore(self._connects_at_a_time)
        tasks = []
        for number, publisher in enumerate(self.publishers):
            phase_at = begin + publisher.period_s * number / len(self.publishers)
            tasks.append(asyncio.create_task(self._run_one(publisher, phase_at, gate)))
        if not tasks:
            return
        try:
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if pending:
                await self.stop()
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self, *, timeout: float = 2.0) -> None:  # noqa: ASYNC109 - handed on
        """Stop every device cleanly: see :meth:`device_emulator.node.NodePublisher.stop`."""
        await asyncio.gather(*(publisher.stop(timeout=timeout) for publisher in self.publishers))

    def _say_late(self, publisher: NodePublisher) -> None:
        # One process that cannot keep up is one thing to say, not five hundred.
        if not self._said_late:
            self._said_late = True
            warn_late(publisher)

    async def _run_one(self, publisher: NodePublisher, phase_at: float, gate: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        waited = gate.locked()
        async with gate:
            await asyncio.sleep(random.uniform(0, CONNECT_JITTER_S))  # noqa: S311 - no secret
            # Its own place in the period: in this one, as the jitter is short; after a wait at the gate in the next.
            late = (loop.time() - phase_at) / publisher.period_s
            periods = max(0, math.ceil(late) if waited else math.floor(late))
            running = asyncio.create_task(publisher.run(start_at=phase_at + periods * publisher.period_s))
            try:
                await publisher.connection.wait_connected(CONNECT_PATIENCE_S)
            except ConnectError:
                pass  # it goes on trying; if it may not, `running` says so
            except asyncio.CancelledError:
                await _cancelled(running)
                raise
        try:
            await running
        finally:
            await _cancelled(running)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
