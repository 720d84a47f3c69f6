"""Cameras at a gateway without a broker: what tests of :mod:`gateway.cameras` share."""

import pytest
from camera_stack import image_codebook, save_untrained

from gateway.bundles import BundleStore, DetectorStore
from gateway.cameras import Cameras
from gateway.detection import look
from gateway.frame_assembly import FrameAssembler
from gateway.pipeline import Pipeline
from gateway.refusals import Refusals
from protocol.messages import Detections, Status
from protocol.topics import Kind, topic

BOOK = image_codebook()
SECOND = 1_000_000_000


def online(packets):
    return Status(state="online", camera=True, packets=packets).to_json()


OFFLINE = Status(state="offline", camera=True).to_json()


class Rig:
    """A pipeline with cameras whose frames are looked at when a test says so."""

    def __init__(self, folder, **limits):
        self.now_ns = 10_000 * SECOND
        self.set_ns = 0
        self.jobs = []
        self.published = []
        self.refusals = Refusals()
        self.cameras = Cameras(
            DetectorStore((folder,)),
            submit=self.jobs.append,
            publish=lambda name, payload: self.published.append((name, payload)),
            refusals=self.refusals,
            assembler=FrameAssembler(**limits),
            now_ns=lambda: self.now_ns,
            monotonic_ns=lambda: self.now_ns - self.set_ns,
        )
        self.pipeline = Pipeline(
            BundleStore(()),
            submit=lambda _: None,
            publish=lambda *_: None,
            cameras=self.cameras,
            refusals=self.refusals,
            now_ns=lambda: self.now_ns,
            monotonic_ns=lambda: self.now_ns - self.set_ns,
        )

    def set_clock(self, seconds):
        """The system's clock is set, ahead or back; no time passes."""
        self.set_ns += seconds * SECOND
        self.now_ns += seconds * SECOND

    def feed(self, kind, payload, camera="cam", **more):
        self.pipeline.feed(topic(camera, kind), payload, self.now_ns, **more)

    def frame(self, chunks, camera="cam"):
        for chunk in chunks:
            self.feed(Kind.FRAME, bytes(chunk), camera)

    def answer(self):
        """Have all that waits looked at; gives what was seen."""
        seen = []
        while self.jobs:
            one, _ = look(self.jobs.pop(0))
            left = self.cameras.answered(one)
            if left is not None:
                left()
            seen.append(one)
        return seen

    @property
    def messages(self):
        return [Detections.parse(payload) for _, payload in self.published]


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors")
    save_untrained(folder)
    return folder


@pytest.fixture
def rig(detectors):
    return Rig(detectors)
