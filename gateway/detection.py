"""Frames through their detectors, in a thread of their own, the newest frame of each camera first.

A detector takes ten times as long as a batch of windows. It must not keep those waiting, so it has another thread than
:mod:`gateway.batcher`; and a camera that sends faster than the machine can look has its older frames dropped, counted,
rather than a queue that grows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import torch

from gateway.frame_assembly import Frame
from gateway.histogram import Histogram
from models.vision.bundle import DetectorBundle
from models.vision.detector import Detections
from protocol.frame import SEQUENCE_MODULUS, decode_frame
from quantization.errors import FrameError
from quantization.raw import CodeMosaic

logger = logging.getLogger(__name__)

DETECTION_SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(frozen=True, eq=False)
class Job:
    """A frame that waits for its detector.

    Args:
        camera: whose.
        frame: whole.
        bundle: looks at it.
        run: of the camera, when the frame was complete: each numbers its frames from 0.
    """

    camera: str
    frame: Frame
    bundle: DetectorBundle
    run: int


@dataclass(frozen=True, eq=False)
class Seen:
    """What a detector says of a frame.

    Args:
        job: what was asked.
        codes: ``[H, W]``.
        found: objects.
    """

    job: Job
    codes: CodeMosaic
    found: Detections


@dataclass(frozen=True, eq=False)
class Unreadable:
    """A frame whose bytes are no code mosaic, or that the detector cannot take."""

    job: Job
    error: FrameError


def look(job: Job) -> tuple[Seen | Unreadable, float]:
    """Decode a frame and detect; and the seconds that took."""
    started = time.perf_counter()
    header = job.frame.header
    seen: Seen | Unreadable
    try:
        codes = decode_frame(header, job.frame.coded, job.bundle.codebook)
        seen = Seen(job, codes, job.bundle.detect(codes, header.cfa))
    except FrameError as error:
        seen = Unreadable(job, error)
    except (RuntimeError, MemoryError) as error:  # of torch: none is known that a frame could cause
        logger.exception("%s: %s could not look at a frame", job.camera, job.bundle.reference)
        seen = Unreadable(job, FrameError("other", str(error)))
    return seen, time.perf_counter() - started


def newer(sequence: int, other: int) -> bool:
    """Whether a frame's number is after another's, across the wrap."""
    return 0 < (sequence - other) % SEQUENCE_MODULUS < SEQUENCE_MODULUS // 2


class DetectionQueue:
    """At most one frame of each camera waits; cameras take turns.

    Attributes:
        dropped: frames that a newer one of their camera took the place of.
        seconds: histogram of seconds per frame.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Job] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.dropped = 0
        self.seconds = Histogram(DETECTION_SECONDS)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, job: Job) -> None:
        """Queue a frame. Never blocks. A camera keeps its place in the turn, and its newest frame gets it."""
        before = self._waiting.get(job.camera)
        if before is not None:
            self.dropped += 1
            # Frames come in the order of the runs: one of another run is of a later one, whatever its number.
            if job.run == before.run and newer(before.frame.header.sequence, job.frame.header.sequence):
                return
        self._waiting[job.camera] = job
        self._idle.clear()
        self._wake.set()

    async def run(self, answered: Callable[[Seen | Unreadable], Callable[[], None] | None]) -> None:
        """Have frames looked at until cancelled.

        Args:
            answered: gets every answer, on the loop; what it returns is called on the detector's thread.
        """
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "detection", initializer=torch.set_num_threads, initargs=(1,)) as executor:
            while True:
                while not self._waiting:
                    self._idle.set()
                    self._wake.clear()
                    await self._wake.wait()
                job = self._waiting.pop(next(iter(self._waiting)))
                seen, seconds = await loop.run_in_executor(executor, look, job)
                self.seconds.observe(seconds)
                try:
                    left = answered(seen)
                    if left is not None:
                        await loop.run_in_executor(executor, left)
                except (ValueError, RuntimeError, MemoryError):  # none is known that a frame could cause
                    logger.exception("%s: an answer was lost", job.camera)

    async def drain(self) -> None:
        """Wait until every frame is answered (while :meth:`run` runs)."""
        await self._idle.wait()
