"""Every Prometheus metric of camera nodes: name, help, unit, labels. The figures live in :mod:`gateway.cameras`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.cameras import Cameras
from gateway.clock import passed
from gateway.detection import DetectionQueue
from gateway.exposition import PREFIX, Rows, counter, gauge, histogram
from gateway.refusals import REASONS, Refusals

STREAMING_NS: Final = 30_000_000_000
"""A camera whose last frame is older does not stream: a gated one sends at least every 10 s."""


class CameraMetrics(Collector):
    """Reads what the gateway keeps of cameras.

    Args:
        registry: where to register.
        cameras: read.
        queue: read.
        refusals: read.
        now_ns: UTC.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        cameras: Cameras,
        queue: DetectionQueue,
        refusals: Refusals,
        *,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._cameras = cameras
        self._queue = queue
        self._refusals = refusals
        self._now_ns = now_ns
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now. Called by the registry, on any thread."""
        yield from self._frames()
        yield from self._detections()
        yield from self._scores()

    def _frames(self) -> Iterator[Metric]:
        totals, losses = self._cameras.totals, self._cameras.assembler.losses
        now_ns = self._now_ns()
        cameras = list(self._cameras)
        online = sum(1 for one in cameras if one.status is not None and one.status.state == "online")
        streaming = sum(1 for one in cameras if not passed(one.last_seen_ns, now_ns, STREAMING_NS))
        yield _gauge("cameras", "Cameras known, by their own word.", ("state",),
                     [(("online",), online), (("other",), len(cameras) - online)])  # fmt: skip
        yield _gauge("streaming_cameras", "Cameras with a frame in the last 30 s.", (), [((), streaming)])
        yield _counter("frames", "Frames that were complete.", (), [((), totals.frames)])
        yield _counter("frame_coded_bytes", "Bytes of codes of complete frames.", (), [((), totals.coded_bytes)])
        yield _counter(
            "frame_mqtt_bytes",
            "Bytes of the MQTT 5 PUBLISH packets of frames, topic in full; TCP, IP and TLS are not counted.",
            (),
            [((), totals.mqtt_bytes)],
        )
        yield _counter("frame_photosites", "Photosites of complete frames.", (), [((), totals.photosites)])
        yield _counter(
            "equivalent_frame_bytes",
            "Bytes that the same frames would have taken: packed 12-bit photosites; or, as far as previews were made "
            "of them, JPEG of quality 75.",
            ("encoding",),
            [(("raw12",), totals.raw12_bytes), (("jpeg",), totals.jpeg_bytes)],
        )
        yield _counter(
            "previewed_frame_coded_bytes",
            "Bytes of codes of the frames that equivalent_frame_bytes has a JPEG of.",
            (),
            [((), totals.previewed_bytes)],
        )
        dropped = {
            "busy": self._queue.dropped,
            "timed_out": losses.timed_out,
            "displaced": losses.displaced,
            "undecodable": self._cameras.undecodable,
            "overtaken": self._cameras.overtaken,
            "restarted": self._cameras.restarted,
            "lost": losses.lost,
        }
        yield _counter(
            "dropped_frames",
            "Frames without an answer: a newer one came before there was time, chunks were missing, newer frames "
            "needed the room, the bytes were no mosaic, a newer one was answered first, the camera started anew before "
            "the answer, or the frame never came, by its sequence number.",
            ("reason",),
            [((reason,), count) for reason, count in dropped.items()],
        )
        yield _counter("duplicate_chunks", "Chunks that were there already.", (), [((), losses.duplicate)])
        yield _counter("late_chunks", "Chunks of frames that had been given up.", (), [((), losses.late)])
        refused = dict(self._refusals.frames)
        rows: Rows = [((reason,), refused.get(reason, 0)) for reason in sorted(REASONS)]
        yield _counter("rejected_chunks", "Chunks and frames that were not used.", ("reason",), rows)

    def _detections(self) -> Iterator[Metric]:
        store = self._cameras.detectors
        rows = [((b.reference, b.codebook.digest.hex()[:16], str(b.codebook.bits)), 1) for b in store.serving]
        yield _gauge("detector_info", "Detectors served, one a codebook.", ("model", "codebook", "code_width"), rows)
        yield _gauge("damaged_detectors", "Detectors whose folder cannot be loaded.", (), [((), store.damaged)])
        answers, found = list(self._cameras.answers.items()), list(self._cameras.found.items())
        yield _counter("detected_frames", "Frames looked at.", ("model",), [((model,), n) for model, n in answers])
        yield _counter("detections", "Objects found.", ("model", "class"), found)
        yield histogram(
            PREFIX + "detection_latency_seconds",
            "From a frame's last chunk to its published detections.",
            self._cameras.latency,
        )
        yield histogram(PREFIX + "detection_seconds", "A frame through decoder and detector.", self._queue.seconds)

    def _scores(self) -> Iterator[Metric]:
        scores = self._cameras.scores
        yield _gauge(
            "live_ap50_ratio",
            "Average precision at an IoU of 0.5 over the last 200 frames with a known truth; absent without any.",
            ("model",),
            [((s.model,), s.ap50) for s in scores],
        )
        yield _gauge(
            "live_recall_ratio",
            "Share of the true boxes that were found, over the same frames; absent without any.",
            ("model",),
            [((s.model,), s.recall) for s in scores],
        )
        yield _counter("scored_frames", "Frames scored.", ("model",), [((s.model,), s.frames) for s in scores])


def _counter(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    return counter(PREFIX + name, text, labels, rows)


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    return gauge(PREFIX + name, text, labels, rows)
