"""Micro-batches: windows of all devices, gathered per bundle and sent through the network together.

A batch goes when it is full or when its oldest window has waited for the deadline, whichever is first. Networks run in
one worker thread with one torch thread (two on two busy cores collapse; scale by process); everything else stays on
the event loop, so nothing here needs a lock. What does not fit the queue is dropped, the oldest first, and counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import torch

from gateway.histogram import Histogram
from gateway.windows import Window
from models.bundle import Bundle, Prediction

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
INFERENCE_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


def infer(bundle: Bundle, windows: list[Window]) -> tuple[Prediction, float]:
    """What a bundle says of windows of its own, and the seconds that took."""
    started = time.perf_counter()
    prediction = bundle.predict(np.stack([window.codes for window in windows]))
    return prediction, time.perf_counter() - started


class MicroBatcher:
    """Gathers windows and has them answered.

    Args:
        size: windows in a batch at most.
        deadline_s: a window waits so long for others.
        queue_limit: windows that may wait altogether.

    Attributes:
        dropped: windows that did not fit the queue.
        inferences: histogram of seconds per batch.
        sizes: histogram of windows per batch.
    """

    def __init__(
        self,
        *,
        size: int = 64,
        deadline_s: float = 0.02,
        queue_limit: int = 4096,
    ) -> None:
        self._size = size
        self._deadline_s = deadline_s
        self._limit = queue_limit
        self._queues: dict[Bundle, deque[tuple[float, Window]]] = {}
        self._waiting = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.dropped = 0
        self.inferences = Histogram(INFERENCE_SECONDS)
        self.sizes = Histogram(BATCH_SIZES)

    def __len__(self) -> int:
        return self._waiting

    def put(self, window: Window) -> None:
        """Queue a window. Never blocks."""
        if self._waiting >= self._limit:
            self._drop_oldest()
        queue = self._queues.get(window.bundle)
        if queue is None:
            queue = self._queues[window.bundle] = deque()
        queue.append((time.monotonic(), window))
        self._waiting += 1
        self._idle.clear()
        if self._waiting == 1 or len(queue) == self._size:
            self._wake.set()

    async def run(self, answered: Callable[[list[Window], Prediction], None]) -> None:
        """Have windows answered until cancelled.

        Args:
            answered: gets each batch, windows of one bundle, with its predictions; on the loop.
        """
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "inference", initializer=torch.set_num_threads, initargs=(1,)) as executor:
            while True:
                bundle = await self._next_due()
                windows = self._take(bundle)
                prediction, seconds = await loop.run_in_executor(executor, infer, bundle, windows)
                self.inferences.observe(seconds)
                self.sizes.observe(len(windows))
                answered(windows, prediction)
                if not self._waiting:
                    self._idle.set()

    async def drain(self) -> None:
        """Wait until every queued window is answered (while :meth:`run` runs)."""
        await self._idle.wait()

    async def _next_due(self) -> Bundle:
        """Wait for a batch that is full or old enough."""
        while True:
            self._wake.clear()
            if not self._queues:
                await self._wake.wait()
                continue
            # Overdue before full, or one busy bundle would starve the others.
            oldest = min(self._queues, key=lambda bundle: self._queues[bundle][0][0])
            left = self._queues[oldest][0][0] + self._deadline_s - time.monotonic()
            if left <= 0:
                return oldest
            full = next((bundle for bundle, queue in self._queues.items() if len(queue) >= self._size), None)
            if full is not None:
                return full
            try:
                await asyncio.wait_for(self._wake.wait(), left)
            except TimeoutError:
                return oldest

    def _take(self, bundle: Bundle) -> list[Window]:
        queue = self._queues[bundle]
        windows = [queue.popleft()[1] for _ in range(min(self._size, len(queue)))]
        self._waiting -= len(windows)
        if not queue:
            del self._queues[bundle]
        return windows

    def _drop_oldest(self) -> None:
        oldest = min(self._queues, key=lambda bundle: self._queues[bundle][0][0])
        self._queues[oldest].popleft()
        if not self._queues[oldest]:
            del self._queues[oldest]
        self._waiting -= 1
        self.dropped += 1
