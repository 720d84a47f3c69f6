"""Camera nodes at the gateway: chunks in, detections out; what is hostile is counted and costs nobody else anything."""

import asyncio
import itertools
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from camera_rig import BOOK, OFFLINE, SECOND, Rig, detectors, online, rig
from camera_stack import chunks_of, image_codebook, scene_node
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from gateway.camera_metrics import CameraMetrics
from gateway.cameras import MAX_CAMERAS, PREVIEW_NS, REMEMBERED
from gateway.detection import DetectionQueue, Seen, Unreadable
from gateway.refusals import REASONS
from protocol.frame import Chunk, FrameCoder, frame_chunks
from protocol.messages import Detections, Status, TrueBox, Truth
from protocol.topics import Kind
from quantization.raw import Cfa

__all__ = ["detectors", "rig"]


def test_a_frame_becomes_detections_in_photosites_of_the_sensor(rig):
    rig.feed(Kind.STATUS, Status(state="online", camera=True, source="synthetic").to_json())
    rig.frame(chunks_of(BOOK, sequence=7, size=(64, 96)))
    (seen,) = rig.answer()
    assert isinstance(seen, Seen)
    ((name, payload),) = rig.published
    message = Detections.parse(payload)
    assert name == "gammawear/v1/cam/detections"
    assert (message.sequence, message.tick, message.width, message.height) == (7, 3500, 96, 64)
    assert (message.model, message.source) == ("tiny@1", "synthetic")
    assert message.boxes, "random weights find something in noise, at a threshold of 0.01"
    found = seen.found
    assert [one.box for one in message.boxes] == [tuple(box) for box in found.boxes.tolist()]
    assert rig.cameras.get("cam").last == message


def test_boxes_of_a_binned_frame_are_in_photosites_of_the_sensor(rig):
    chunks = chunks_of(BOOK, size=(64, 96))
    rig.frame(chunks)
    binned = [
        Chunk(replace(chunk.header, binning=3, sequence=1), chunk.index, chunk.count, chunk.payload) for chunk in chunks
    ]
    rig.frame(binned)
    rig.answer()
    plain, wide = rig.messages
    assert (wide.width, wide.height) == (288, 192)
    assert np.array([one.box for one in wide.boxes]) == pytest.approx(3 * np.array([one.box for one in plain.boxes]))


@pytest.mark.parametrize("size", [(2, 2), (2, 8192), (8192, 2), (640, 960)])
def test_frames_of_any_legal_size_and_binning_are_answered(rig, size):
    codes = np.random.default_rng(0).integers(0, 16, size, dtype=np.uint8)
    rig.frame(frame_chunks(codes, BOOK, cfa=Cfa.BGGR, sequence=0, tick_ms=0, binning=32, max_payload=65_000))
    assert isinstance(rig.answer()[0], Seen)
    assert (rig.messages[0].height, rig.messages[0].width) == (32 * size[0], 32 * size[1])
    assert rig.cameras.get("cam").preview


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0)])
def test_chunks_come_in_any_order_and_more_than_once(rig, order):
    chunks = chunks_of(BOOK, max_payload=1200)
    assert len(chunks) == 3
    rig.frame([chunks[i] for i in order for _ in range(2)])
    assert len(rig.jobs) == 1
    assert rig.cameras.assembler.losses.duplicate == 3
    assert rig.answer()[0].codes.shape == (64, 96)


def test_a_frame_that_was_overtaken_is_not_what_a_camera_sees_at_present(rig):
    late = chunks_of(BOOK, sequence=0)
    rig.frame(late[:-1])
    rig.frame(chunks_of(BOOK, sequence=1))
    rig.answer()
    rig.frame(late[-1:])
    rig.answer()
    assert [one.sequence for one in rig.messages] == [1]
    assert rig.cameras.overtaken == 1


def test_frames_far_larger_than_a_detector_knows_are_refused_before_they_are_kept(rig):
    codes = np.zeros((1448, 1448), dtype=np.uint8)
    rig.frame(frame_chunks(codes, BOOK, cfa=Cfa.BGGR, sequence=0, tick_ms=0))
    assert rig.refusals.frames == {"size": 1}
    assert rig.cameras.assembler.waiting == 0


def test_a_camera_that_sends_frames_gets_the_place_of_one_that_never_did(rig):
    for number in range(MAX_CAMERAS):
        rig.feed(Kind.STATUS, OFFLINE, camera=f"gone{number}")
    rig.frame(chunks_of(BOOK))
    assert len(rig.jobs) == 1
    assert rig.cameras.get("gone0") is None
    assert rig.cameras.get("gone1") is not None


def test_a_camera_that_comes_after_a_flood_of_made_up_ids_has_its_status_kept(rig):
    rig.frame(chunks_of(BOOK), camera="streams")
    (chunk, *_) = chunks_of(BOOK)
    for number in range(MAX_CAMERAS + 100):
        rig.frame([chunk], camera=f"made-up{number}")
    rig.feed(Kind.STATUS, OFFLINE)
    rig.feed(Kind.STATUS, online(0), retain=True)
    assert rig.refusals.messages == {"device_limit": 2}, "what it said once is no sign that it is there"
    rig.feed(Kind.STATUS, online(0))
    assert rig.cameras.get("cam").status.state == "online"
    for number in range(MAX_CAMERAS + 100):
        rig.feed(Kind.STATUS, online(0), camera=f"invented{number}")
    assert len(list(rig.cameras)) == MAX_CAMERAS
    assert rig.cameras.get("streams") is not None


def test_a_frame_that_stays_incomplete_is_given_up_in_time(rig):
    rig.frame(chunks_of(BOOK)[:-1])
    rig.now_ns += 11 * SECOND
    rig.pipeline.sweep()
    assert rig.cameras.assembler.waiting == 0
    assert rig.cameras.assembler.losses.timed_out == 1


def test_truth_is_scored_whichever_comes_first(rig):
    truth = Truth(sequence=0, boxes=[TrueBox(label="car", box=(1, 1, 20, 20))])
    rig.feed(Kind.TRUTH, truth.to_json())
    rig.frame(chunks_of(BOOK, sequence=0))
    rig.answer()
    rig.frame(chunks_of(BOOK, sequence=1))
    rig.answer()
    rig.feed(Kind.TRUTH, truth.model_copy(update={"sequence": 1}).to_json())
    rig.pipeline.sweep()
    assert [(one.model, one.frames) for one in rig.cameras.scores] == [("tiny@1", 2)]


def test_what_waits_for_its_truth_is_bounded(rig):
    def tell(count):
        for sequence in range(count):
            rig.feed(Kind.TRUTH, Truth(sequence=sequence, boxes=[]).to_json())
        return rig.cameras.get("cam").truths

    assert list(tell(9)) == [7, 8], "of a camera of which no frame has come"
    rig.frame(chunks_of(BOOK))
    assert list(tell(2 * REMEMBERED)) == list(range(REMEMBERED, 2 * REMEMBERED))


def test_previews_are_pictures_at_a_limited_rate(rig):
    pictures = set()
    for sequence in range(4):
        rig.frame(chunks_of(BOOK, sequence=sequence, seed=sequence))
        rig.answer()
        pictures.add(rig.cameras.get("cam").preview)
        rig.now_ns += PREVIEW_NS // 2
    assert len(pictures) == 2
    assert all(picture.startswith(b"\xff\xd8") for picture in pictures)
    assert rig.cameras.totals.previewed_bytes < rig.cameras.totals.coded_bytes


REFUSED = {
    "length": lambda good: good[:30],
    "checksum": lambda good: good[:-1] + bytes([good[-1] ^ 1]),
    "format": lambda good: b"XX" + good[2:],
    "unknown_codebook": lambda _: bytes(chunks_of(image_codebook(3))[0]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_hostile_chunks_are_refused_by_reason_and_cost_nobody_else_anything(rig, reason):
    good = chunks_of(BOOK)
    rig.frame(good[:2])
    rig.feed(Kind.FRAME, REFUSED[reason](bytes(good[2])), camera="enemy")
    rig.feed(Kind.FRAME, REFUSED[reason](bytes(good[2])))
    assert rig.refusals.frames == {reason: 2}
    rig.frame(good[2:])
    assert len(rig.jobs) == 1
    assert rig.cameras.get("enemy") is None, "a refused chunk makes no camera known"


def test_a_chunk_that_contradicts_its_frame_is_refused(rig):
    one, other = chunks_of(BOOK, seed=1), chunks_of(BOOK, seed=2)
    rig.frame([*one[:-1], other[0]])
    assert rig.refusals.frames == {"contradiction": 1}
    rig.frame(one[-1:])
    assert len(rig.jobs) == 1


def test_bytes_that_are_no_mosaic_are_counted(rig):
    even = np.full((64, 96), 5, dtype=np.uint8)
    (good,) = frame_chunks(even, BOOK, cfa=Cfa.RGGB, sequence=0, tick_ms=0)
    assert good.header.coder is FrameCoder.CONTEXT
    longer = good.payload + b"\0"  # a mosaic has one form only, and this is not the shortest
    header = replace(good.header, crc=zlib.crc32(longer), coded_bytes=len(longer))
    rig.frame([Chunk(header, 0, 1, longer)])
    (seen,) = rig.answer()
    assert isinstance(seen, Unreadable)
    assert rig.refusals.frames == {"payload": 1}
    assert rig.cameras.undecodable == 1
    assert not rig.published


def test_retained_chunks_and_truths_are_refused(rig):
    rig.feed(Kind.FRAME, bytes(chunks_of(BOOK)[0]), retain=True)
    rig.feed(Kind.TRUTH, Truth(sequence=0, boxes=[]).to_json(), retain=True)
    assert rig.refusals.frames == {"retained": 1}
    assert rig.refusals.messages == {"retained": 1}


@pytest.mark.parametrize(
    "text",
    [
        '{"sequence": 0}',
        '{"sequence": -1, "boxes": []}',
        '{"sequence": 0, "boxes": [{"label": "car", "box": [5, 5, 5, 9]}]}',
        '{"sequence": 0, "boxes": [{"label": "car", "box": [0, 0, 1e9, 1]}]}',
        json.dumps({"sequence": 0, "boxes": [{"label": "car", "box": [0, 0, 1, 1]}] * 101}),
        "[" * 100_000,
    ],
)
def test_hostile_truths_are_refused(rig, text):
    rig.feed(Kind.TRUTH, text.encode())
    assert rig.refusals.messages == {"json": 1}


def test_cameras_are_bounded_and_forgotten(rig):
    for number in range(MAX_CAMERAS + 5):
        rig.feed(Kind.TRUTH, Truth(sequence=0, boxes=[]).to_json(), camera=f"c{number}")
    assert len(list(rig.cameras)) == MAX_CAMERAS
    assert rig.refusals.messages == {"device_limit": 5}
    rig.now_ns += 3600 * SECOND
    rig.pipeline.sweep()
    assert not list(rig.cameras)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from(["a", "b"])), max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_any_order_of_chunks_completes_each_frame_at_most_once(detectors, messages):
    rig = Rig(detectors)
    frames = {(camera, s): chunks_of(BOOK, sequence=s, seed=s, max_payload=700) for camera in "ab" for s in range(4)}
    for sequence, index, camera in messages:
        chunks = frames[camera, sequence]
        rig.feed(Kind.FRAME, bytes(chunks[index % len(chunks)]), camera)
    done = [(job.camera, job.frame.header.sequence) for job in rig.jobs]
    assert len(done) == len(set(done))
    assert rig.cameras.assembler.waiting <= 4


@given(st.binary(max_size=200), st.integers(0, 39))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_refused_without_harm(detectors, junk, at):
    rig = Rig(detectors)
    good = bytes(chunks_of(BOOK)[0])
    rig.feed(Kind.FRAME, junk)
    rig.feed(Kind.FRAME, good[:at] + junk + good[at + len(junk) :])
    assert (
        rig.refusals.frames.total() + (1 if rig.cameras.assembler.waiting else 0) == 2
        or good[at : at + len(junk)] == junk
    )
    assert set(rig.refusals.frames) <= REASONS


def test_the_metrics_say_what_happened(rig):
    registry = CollectorRegistry()
    CameraMetrics(registry, rig.cameras, DetectionQueue(), rig.refusals, now_ns=lambda: rig.now_ns)

    def value(name, **labels):
        return registry.get_sample_value(f"gammawear_{name}", labels)

    assert value("live_ap50_ratio", model="tiny@1") is None
    rig.feed(Kind.STATUS, Status(state="online", camera=True).to_json())
    chunks = chunks_of(BOOK, size=(64, 96))
    rig.frame(chunks)
    rig.feed(Kind.FRAME, b"junk")
    rig.answer()
    coded = chunks[0].header.coded_bytes
    assert value("cameras", state="online") == 1
    assert value("streaming_cameras") == 1
    assert value("frames_total") == 1
    assert value("frame_coded_bytes_total") == coded
    assert value("frame_photosites_total") == 64 * 96
    assert value("equivalent_frame_bytes_total", encoding="raw12") == 64 * 96 * 12 / 8
    assert value("frame_mqtt_bytes_total") > coded + 40 * len(chunks)
    assert value("rejected_chunks_total", reason="length") == 1
    rig.frame(chunks_of(BOOK, sequence=3))
    assert value("dropped_frames_total", reason="lost") == 0, "they may still come"
    rig.feed(Kind.STATUS, online(0))
    rig.answer()
    assert value("dropped_frames_total", reason="lost") == 2
    assert value("dropped_frames_total", reason="restarted") == 1
    assert value("detected_frames_total", model="tiny@1") == 1
    assert value("equivalent_frame_bytes_total", encoding="jpeg") > 0


async def test_of_a_camera_that_is_too_fast_the_newest_frame_is_looked_at(detectors):
    rig = Rig(detectors)
    for camera, sequence in itertools.product("ab", range(3)):
        rig.frame(chunks_of(BOOK, sequence=sequence, max_payload=65_000), camera)
    assert await looked_at(rig.jobs) == ([("a", 2), ("b", 2)], 4)


async def test_a_frame_that_waits_gives_way_to_the_first_of_the_next_run(rig):
    for sequence in (500, 0):
        rig.feed(Kind.STATUS, online(0))
        rig.frame(chunks_of(BOOK, sequence=sequence))
    assert await looked_at(rig.jobs) == ([("cam", 0)], 1)


async def looked_at(jobs):
    """Cameras and sequences of those that a queue has looked at, in order; and how many it dropped."""
    queue = DetectionQueue()
    for job in jobs:
        queue.put(job)
    seen = []
    running = asyncio.create_task(queue.run(lambda one: seen.append((one.job.camera, one.job.frame.header.sequence))))
    await asyncio.wait_for(queue.drain(), 30)
    running.cancel()
    return seen, queue.dropped


def test_a_scene_goes_from_node_to_answer(rig):
    node = scene_node(BOOK)
    for _ in range(2):
        emission = node.next_frame()
        rig.feed(Kind.TRUTH, emission.truth.to_json())
        for chunk in emission.chunks:
            rig.feed(Kind.FRAME, chunk)
        rig.answer()
    assert [one.sequence for one in rig.messages] == [0, 1]
    rig.pipeline.sweep()
    assert rig.cameras.scores[0].frames == 2
