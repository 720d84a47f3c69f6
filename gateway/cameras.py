"""Everything of camera nodes: chunks in, detections out.

::

    feed_chunk ─ Chunk.from_bytes ─ FrameAssembler ─ detector by digest ─ submit ┐
    feed_truth ─────────────┬─ LiveDetectionScore                  (DetectionQueue)
    answered ◄──────────────┴──────── publish Detections ◄───────────────────────┘

Like :mod:`gateway.pipeline`, which hands over what comes on a camera's topics: synchronous, on the loop, and what is
refused leaves everything as it was.
"""

from __future__ import annotations

import functools
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from gateway.bundles import DetectorStore
from gateway.clock import passed
from gateway.detection import Job, Seen, Unreadable, newer
from gateway.detection_score import DetectionScore, LiveDetectionScore
from gateway.frame_assembly import Frame, FrameAssembler
from gateway.histogram import Histogram
from gateway.preview import render
from gateway.refusals import Refusals, RefusedFrameError, RefusedMessageError
from models.vision.bundle import DetectorBundle
from models.vision.detector import Detections as Found
from protocol.frame import Chunk
from protocol.messages import Detections, FoundBox, Status, Truth
from protocol.topics import Kind, topic
from protocol.wire_size import publish_size

V = TypeVar("V", Truth, Detections)

MAX_CAMERAS: Final = 256
"""Each may keep a frame in the queue, its preview, two frames that are not complete, and what waits to be scored."""
MOST_TIMES: Final = 8
"""A frame has at most so many times the photosites that its detector was trained on: larger ones cost seconds."""
FEW: Final = 2
"""Truths that are kept for a camera of which no frame has come."""
FORGET_NS: Final = 600_000_000_000
PREVIEW_PATH: Final = "/cameras/"
PREVIEW_NS: Final = 1_000_000_000
"""Between two previews of a camera."""
SCORE_NS: Final = 500_000_000
"""Between two readings of the live score, which takes milliseconds."""
REMEMBERED: Final = 32
"""Frames of a camera whose truth, or whose detections, wait for the other."""
DETECTION_LATENCY_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass
class FrameTotals:
    """Sums over all frames that were complete. Bytes as the camera sent them, and as rivals would have taken.

    Args:
        frames: complete.
        coded_bytes: of codes.
        mqtt_bytes: of the PUBLISH packets around them, topic in full; of all chunks, also of frames never completed.
        raw12_bytes: of the same photosites at 12 bits, packed.
        photosites: in all.
        jpeg_bytes: of frames that previews were made of, as JPEG of quality 75 at their own size.
        previewed_bytes: of the codes of the frames that previews were made of.
    """

    frames: int = 0
    coded_bytes: int = 0
    mqtt_bytes: int = 0
    raw12_bytes: int = 0
    photosites: int = 0
    jpeg_bytes: int = 0
    previewed_bytes: int = 0


@dataclass
class Camera:
    """One camera node.

    Attributes:
        status: the last one it sent.
        last: of its answers.
        preview: JPEG with boxes, of a frame at most about a second old while the camera streams; None before the first.
        preview_sequence: of that frame.
        frames: complete ones, with the bytes of their codes and what they would take at 12 bits.
        last_seen_ns: UTC of its last complete frame; 0 before the first.
        touched_ns: monotonic time of its last message.
        run: goes up when it starts anew, and numbers its frames from 0.
    """

    id: str
    status: Status | None = None
    last: Detections | None = None
    preview: bytes | None = None
    preview_ns: int = 0
    preview_sequence: int = 0
    frames: int = 0
    coded_bytes: int = 0
    raw12_bytes: int = 0
    last_seen_ns: int = 0
    touched_ns: int = 0
    run: int = 0
    truths: OrderedDict[int, Truth] = field(default_factory=OrderedDict)
    answers: OrderedDict[int, Detections] = field(default_factory=OrderedDict)

    def begin(self) -> None:
        """It has started anew: what is known of frames, or still to be said of them, is of the run before."""
        self.run += 1
        self.last = None
        self.truths.clear()
        self.answers.clear()


class Cameras:
    """All camera nodes.

    Args:
        detectors: by digest.
        submit: has a frame looked at; the answer comes to :meth:`answered`.
        publish: takes a topic and a payload, to be retained.
        refusals: where to count.
        assembler: puts chunks together.
        now_ns: UTC.
        monotonic_ns: by which silent ones are forgotten; the system's clock may be set.
    """

    def __init__(
        self,
        detectors: DetectorStore,
        *,
        submit: Callable[[Job], None],
        publish: Callable[[str, bytes], None],
        refusals: Refusals,
        assembler: FrameAssembler | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.detectors = detectors
        self._submit = submit
        self._publish = publish
        self._refusals = refusals
        self.assembler = assembler or FrameAssembler()
        self._now_ns = now_ns
        self._monotonic_ns = monotonic_ns
        self._cameras: dict[str, Camera] = {}
        self.totals = FrameTotals()
        self.undecodable = 0
        self.overtaken = 0
        self.restarted = 0
        """Frames that were complete, but not answered before their camera started anew."""
        self.found: Counter[tuple[str, str]] = Counter()
        self.answers: Counter[str] = Counter()
        self.latency = Histogram(DETECTION_LATENCY_SECONDS)
        self.live: dict[str, LiveDetectionScore] = {}
        self.scores: tuple[DetectionScore, ...] = ()
        self._scored_ns = 0

    def __iter__(self) -> Iterator[Camera]:
        return iter(list(self._cameras.values()))

    def get(self, camera: str) -> Camera | None:
        """A camera that is known."""
        return self._cameras.get(camera)

    def page(self, path: str) -> tuple[str, bytes] | None:
        """The latest preview at ``/cameras/<id>.jpg``. May be called on any thread."""
        camera = self._cameras.get(path.removeprefix(PREVIEW_PATH).removesuffix(".jpg"))
        fits = path.startswith(PREVIEW_PATH) and path.endswith(".jpg")
        return ("image/jpeg", camera.preview) if fits and camera is not None and camera.preview else None

    # -- messages in --------------------------------------------------------------------------------------------------

    def feed_chunk(
        self, camera_id: str, name: str, payload: bytes, received_ns: int, *, qos: int, retain: bool
    ) -> None:
        """Take one chunk; a frame that it completes is submitted.

        Raises:
            FrameError: the chunk, or the frame that it completes, cannot be used.
        """
        if retain:
            raise RefusedFrameError("retained", "a retained chunk comes back with every connection")
        chunk = Chunk.from_bytes(payload)
        header = chunk.header
        bundle = self.detectors.find(header.short_digest)
        if bundle is None:
            raise RefusedFrameError("unknown_codebook", f"no detector is served with {header.short_digest.hex()}")
        trained = bundle.manifest
        if header.width * header.height > MOST_TIMES * trained.width * trained.height:
            raise RefusedFrameError(
                "size", f"{header.width} × {header.height}: bin frames to about {trained.width} × {trained.height}"
            )
        camera = self._obtain(camera_id, displaces=True)
        self.totals.mqtt_bytes += publish_size(name, len(payload), qos=qos, version=5, alias=False)
        restarts = self.assembler.losses.restarts
        frame = self.assembler.push(camera_id, chunk, received_ns)
        if self.assembler.losses.restarts != restarts:  # its numbers began anew with this chunk
            camera.begin()
        if frame is not None:
            self._complete(camera, frame, bundle, received_ns)

    def _complete(self, camera: Camera, frame: Frame, bundle: DetectorBundle, received_ns: int) -> None:
        photosites = frame.header.width * frame.header.height
        self.totals.frames += 1
        self.totals.coded_bytes += len(frame.coded)
        self.totals.photosites += photosites
        self.totals.raw12_bytes += photosites * 12 // 8
        camera.last_seen_ns = received_ns
        camera.frames += 1
        camera.coded_bytes += len(frame.coded)
        camera.raw12_bytes += photosites * 12 // 8
        self._submit(Job(camera.id, frame, bundle, camera.run))

    def feed_status(self, camera_id: str, status: Status, *, retain: bool) -> None:
        """Keep what a camera says of itself; one that has made fewer frames than came from it has started anew.

        An ``offline`` forgets nothing: a link that was lost brings the broker's will, and then the rest of a frame.
        """
        here = status.state == "online" and not retain
        camera = self._obtain(camera_id, displaces=here)
        camera.status = status
        if here and status.packets is not None and status.packets < self.assembler.next_sequence(camera_id):
            self.assembler.forget(camera_id)
            camera.begin()

    def feed_truth(self, camera_id: str, payload: bytes, *, retain: bool) -> None:
        """Score a frame, now or once it has been looked at.

        Raises:
            MessageError: not a truth, or retained.
        """
        if retain:
            raise RefusedMessageError("retained", "truth must not be retained")
        truth = Truth.parse(payload)
        camera = self._obtain(camera_id)
        _remember(camera.truths, truth.sequence, truth, REMEMBERED if camera.last_seen_ns else FEW)
        self._score(camera, truth.sequence)

    def _obtain(self, camera_id: str, *, displaces: bool = False) -> Camera:
        camera = self._cameras.get(camera_id)
        if camera is None:
            if len(self._cameras) >= MAX_CAMERAS:
                # One that is there now takes the place of one that never sent a whole frame: ids are easily made up.
                idle = next((one.id for one in self._cameras.values() if displaces and not one.last_seen_ns), None)
                if idle is None:
                    raise RefusedFrameError("device_limit", f"{MAX_CAMERAS} cameras are known already")
                self._forget(idle)
            camera = self._cameras[camera_id] = Camera(camera_id)
        camera.touched_ns = self._monotonic_ns()
        return camera

    def _forget(self, camera_id: str) -> None:
        del self._cameras[camera_id]
        self.assembler.forget(camera_id)
        self._refusals.forget(camera_id)

    # -- answers out --------------------------------------------------------------------------------------------------

    def answered(self, seen: Seen | Unreadable) -> Callable[[], None] | None:
        """Publish, keep and score what was seen in a frame.

        Returns:
            What is left to do without haste, on another thread: its preview, at a limited rate.
        """
        job = seen.job
        if isinstance(seen, Unreadable):
            self.undecodable += 1
            self._refusals.refuse(Kind.FRAME, job.camera, seen.error)
            return None
        camera = self._cameras.get(job.camera)
        if camera is not None and camera.run != job.run:
            self.restarted += 1
            return None
        now_ns = self._now_ns()
        status = camera.status if camera is not None else None
        message = _message(job, seen.found, now_ns, status)
        if camera is not None and camera.last is not None and newer(camera.last.sequence, message.sequence):
            self.overtaken += 1  # its chunks were late: what is retained is what a camera sees at present
            return None
        self._publish(topic(job.camera, Kind.DETECTIONS), message.to_json())
        if message.model not in self.live:
            self.live[message.model] = LiveDetectionScore(message.model, job.bundle.manifest.classes)
        self.latency.observe(message.latency_ms / 1000)
        self.answers[message.model] += 1
        for one in message.boxes:
            self.found[message.model, one.label] += 1
        if camera is None:  # forgotten meanwhile
            return None
        camera.last = message
        _remember(camera.answers, message.sequence, message, REMEMBERED)
        self._score(camera, message.sequence)
        if not passed(camera.preview_ns, now_ns, PREVIEW_NS):
            return None
        camera.preview_ns = now_ns
        return functools.partial(self._preview, camera, seen, message)

    def _preview(self, camera: Camera, seen: Seen, message: Detections) -> None:
        """Render. On another thread: what it writes is read only by screens."""
        bundle = seen.job.bundle
        preview = render(
            seen.codes, seen.job.frame.header.cfa, bundle.codebook, message.boxes,
            classes=bundle.manifest.classes, size=(message.width, message.height),
        )  # fmt: skip
        camera.preview = preview.jpeg
        camera.preview_sequence = message.sequence
        self.totals.jpeg_bytes += preview.plain_bytes
        self.totals.previewed_bytes += len(seen.job.frame.coded)

    def _score(self, camera: Camera, sequence: int) -> None:
        truth, answer = camera.truths.get(sequence), camera.answers.get(sequence)
        if truth is None or answer is None:
            return
        del camera.truths[sequence], camera.answers[sequence]
        self.live[answer.model].update(truth.boxes, answer.boxes)

    # -- time passes --------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """What happens without a message: to be called a few times a second."""
        now_ns, monotonic_ns = self._now_ns(), self._monotonic_ns()
        self.assembler.expire(now_ns)
        for camera in list(self._cameras.values()):
            if monotonic_ns - camera.touched_ns > FORGET_NS:
                self._forget(camera.id)
        if passed(self._scored_ns, now_ns, SCORE_NS):
            self._scored_ns = now_ns
            self.scores = tuple(live.read() for live in self.live.values())


def _remember(kept: OrderedDict[int, V], sequence: int, value: V, most: int) -> None:
    kept[sequence] = value
    kept.move_to_end(sequence)
    while len(kept) > most:
        kept.popitem(last=False)


def _message(job: Job, found: Found, now_ns: int, status: Status | None) -> Detections:
    header = job.frame.header
    classes = job.bundle.manifest.classes
    binning = header.binning
    boxes = [
        FoundBox(label=classes[label], score=score, box=(left, top, right, bottom))
        for (left, top, right, bottom), label, score in zip(
            (found.boxes * binning).tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
        if left < right and top < bottom
    ]
    return Detections(
        sequence=header.sequence,
        tick=header.tick_ms,
        time_ms=job.frame.received_ns // 1_000_000,
        width=header.width * binning,
        height=header.height * binning,
        boxes=boxes,
        latency_ms=max(0.0, (now_ns - job.frame.received_ns) / 1e6),
        model=job.bundle.reference,
        source=status.source if status is not None else None,
    )
