"""Frames from chunks: any order, once only, within bounds; every frame and chunk that does not make it is counted."""

import tracemalloc
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.frame_assembly import (
    MAX_GAP,
    MAX_LATE,
    MISSING_FRAMES,
    PARTIAL_FRAMES,
    REMEMBERED_FRAMES,
    Frame,
    FrameAssembler,
)
from protocol.frame import SEQUENCE_MODULUS, Chunk, frame_chunks
from quantization.codebook import Codebook
from quantization.errors import FrameError
from quantization.raw import COLOURS, Cfa

SECOND = 1_000_000_000
EDGES = np.tile(np.arange(16.0), (3, 1))
BOOK = Codebook(COLOURS, 4, 1.0, thresholds=EDGES[:, 1:].copy(), levels=EDGES)
BYTES = 512
"""Coded bytes of one frame here: noise, 32 × 32 at 4 bits, packed."""


def chunks_of(sequence: int, *, count: int = 4, seed: int | None = None, tick_ms: int = 0) -> list[Chunk]:
    rng = np.random.default_rng(sequence if seed is None else seed)
    codes = rng.integers(0, 16, (32, 32)).astype(np.uint8)
    made = frame_chunks(
        codes, BOOK, cfa=Cfa.RGGB, sequence=sequence, tick_ms=tick_ms, max_payload=-(-BYTES // count), compress=False
    )
    assert len(made) == count
    return made


CHUNKS = [chunks_of(sequence, count=1)[0] for sequence in range(31)]


def coded_of(chunks: list[Chunk]) -> bytes:
    return b"".join(one.payload for one in chunks)


def push_all(assembler: FrameAssembler, chunks: list[Chunk], camera: str = "c1", now_ns: int = 0) -> list[Frame]:
    frames = [assembler.push(camera, one, now_ns) for one in chunks]
    return [frame for frame in frames if frame is not None]


def losses(assembler: FrameAssembler) -> dict[str, int]:
    """What was counted, without the zeros."""
    return {name: count for name, count in asdict(assembler.losses).items() if count}


@settings(max_examples=100)
@given(st.permutations([(s, i) for s in (0, 1) for i in range(4)]), st.lists(st.integers(0, 7), max_size=6))
def test_any_order_with_repeats_gives_each_frame_once(order, repeats):
    assembler = FrameAssembler()
    sent = {s: chunks_of(s) for s in (0, 1)}
    order = list(order)
    for place in repeats:
        order.insert(place, order[place])
    frames = push_all(assembler, [sent[s][i] for s, i in order])
    assert sorted(frame.header.sequence for frame in frames) == [0, 1]
    for frame in frames:
        assert frame.coded == coded_of(sent[frame.header.sequence])
        assert frame.header == sent[frame.header.sequence][0].header
    assert losses(assembler) == {"completed": 2} | ({"duplicate": len(repeats)} if repeats else {})
    assert (assembler.waiting, assembler.waiting_bytes) == (0, 0)


def test_its_time_is_that_of_the_last_chunk():
    assembler = FrameAssembler()
    first, second = chunks_of(0, count=2)
    assert assembler.push("c1", second, 5) is None
    frame = assembler.push("c1", first, 9)
    assert frame.received_ns == 9


def test_a_frame_of_one_chunk_takes_nobodys_place():
    assembler = FrameAssembler(max_frames=PARTIAL_FRAMES, max_bytes=2 * BYTES)
    for sequence in range(PARTIAL_FRAMES):
        assembler.push("c1", chunks_of(sequence)[0], 0)
    (single,) = chunks_of(7, count=1)
    assert assembler.push("c1", single, 0).coded == single.payload
    assert assembler.push("c1", single, 0) is None
    assert losses(assembler) == {"completed": 1, "duplicate": 1}
    assert assembler.waiting == PARTIAL_FRAMES


def test_a_frame_is_complete_once_however_often_it_comes():
    assembler = FrameAssembler()
    chunks = chunks_of(0)
    assert len(push_all(assembler, chunks * 3)) == 1
    assert losses(assembler) == {"completed": 1, "duplicate": 8}
    assert len(push_all(assembler, chunks, camera="c2")) == 1, "another camera's sequence is another one"


def test_after_some_more_frames_it_is_forgotten():
    assembler = FrameAssembler()
    for sequence in range(REMEMBERED_FRAMES):
        push_all(assembler, chunks_of(sequence))
    assert push_all(assembler, chunks_of(0)) == []
    push_all(assembler, chunks_of(REMEMBERED_FRAMES))
    assert len(push_all(assembler, chunks_of(0))) == 1


def test_a_camera_that_started_anew_is_not_taken_for_a_repeat():
    assembler = FrameAssembler()
    push_all(assembler, chunks_of(0, tick_ms=100))
    assert len(push_all(assembler, chunks_of(0, seed=9, tick_ms=101))) == 1


@pytest.mark.parametrize(
    "other",
    [
        chunks_of(0, seed=5)[1],
        chunks_of(0, tick_ms=1)[1],
        chunks_of(0, count=2)[1],
        replace(chunks_of(0)[1], payload=bytes(BYTES // 4)),
    ],
    ids=["other bytes", "other tick", "other count", "other payload"],
)
def test_a_chunk_that_contradicts_is_refused_and_changes_nothing(other):
    assembler = FrameAssembler()
    chunks = chunks_of(0)
    push_all(assembler, chunks[:2])
    with pytest.raises(FrameError) as caught:
        assembler.push("c1", other, 0)
    assert caught.value.reason == "contradiction"
    (frame,) = push_all(assembler, chunks[2:])
    assert frame.coded == coded_of(chunks)
    assert losses(assembler) == {"completed": 1}


def test_missing_chunks_are_waited_for_until_the_time_is_up():
    assembler = FrameAssembler(timeout_s=2.0)
    chunks = chunks_of(0)
    push_all(assembler, chunks[:3], now_ns=0)
    assembler.push("c1", chunks[2], SECOND)
    assembler.expire(2 * SECOND - 1)
    assert (assembler.waiting, assembler.waiting_bytes) == (1, BYTES)
    assembler.expire(2 * SECOND)
    assert (assembler.waiting, assembler.waiting_bytes) == (0, 0)
    assert assembler.push("c1", chunks[3], 2 * SECOND) is None
    assert losses(assembler) == {"duplicate": 1, "timed_out": 1, "chunks_lost": 3, "late": 1}
    assert assembler.waiting == 0, "a late chunk begins nothing"


def test_a_chunk_that_comes_after_the_time_does_not_complete_its_frame():
    assembler = FrameAssembler(timeout_s=1.0)
    chunks = chunks_of(0)
    assert push_all(assembler, chunks[:3], now_ns=0) + push_all(assembler, chunks[3:], now_ns=SECOND) == []
    assert losses(assembler) == {"timed_out": 1, "chunks_lost": 3, "late": 1}


def test_the_third_frame_of_a_camera_displaces_its_oldest():
    assembler = FrameAssembler()
    push_all(assembler, chunks_of(9)[:1], camera="c2")
    for sequence in range(PARTIAL_FRAMES + 1):
        push_all(assembler, chunks_of(sequence)[:2])
    assert losses(assembler) == {"displaced": 1, "chunks_lost": 2}
    assert push_all(assembler, chunks_of(0)) == [], "it does not come back to displace others in turn"
    assert [frame.header.sequence for frame in push_all(assembler, chunks_of(1) + chunks_of(2))] == [1, 2]
    assert len(push_all(assembler, chunks_of(9), camera="c2")) == 1


@pytest.mark.parametrize("bounds", [{"max_frames": 3}, {"max_bytes": 3 * BYTES + 1}])
def test_the_oldest_of_all_goes_where_the_room_ends(bounds):
    assembler = FrameAssembler(**bounds)
    for camera in range(5):
        push_all(assembler, chunks_of(0)[:1], camera=f"c{camera}")
        assert assembler.waiting_bytes <= 3 * BYTES
    assert losses(assembler) == {"displaced": 2, "chunks_lost": 2}
    complete = [bool(push_all(assembler, chunks_of(0)[1:], camera=f"c{camera}")) for camera in range(5)]
    assert complete == [False, False, True, True, True]


def test_a_frame_that_never_fits_is_refused():
    assembler = FrameAssembler(max_bytes=BYTES - 1)
    with pytest.raises(FrameError) as caught:
        assembler.push("c1", chunks_of(0)[0], 0)
    assert caught.value.reason == "frame_limit"
    assert assembler.waiting == 0


def test_a_camera_is_forgotten_whole():
    assembler = FrameAssembler()
    push_all(assembler, chunks_of(0) + chunks_of(1)[:1])
    push_all(assembler, chunks_of(5)[:1], camera="c2")
    assembler.forget("c1")
    assembler.forget("never seen")
    assert (assembler.waiting, assembler.waiting_bytes) == (1, BYTES)
    assert losses(assembler) == {"completed": 1, "lost": 1, "chunks_lost": 1}
    assert len(push_all(assembler, chunks_of(0))) == 1


def test_numbers_that_never_come_are_lost_when_their_time_is_up():
    assembler = FrameAssembler(timeout_s=2.0)
    push_all(assembler, chunks_of(10), now_ns=0)
    push_all(assembler, chunks_of(14), now_ns=SECOND)
    assembler.expire(3 * SECOND - 1)
    assert losses(assembler) == {"completed": 2}, "whoever joins has not lost what was before; the rest may still come"
    push_all(assembler, chunks_of(12), now_ns=3 * SECOND - 1)
    assembler.expire(3 * SECOND)
    assembler.expire(9 * SECOND)
    assert losses(assembler) == {"completed": 3, "lost": 2}
    assert assembler.next_sequence("c1") == 15


def test_one_that_has_begun_to_come_is_not_counted_twice():
    assembler = FrameAssembler(timeout_s=2.0)
    push_all(assembler, chunks_of(0) + chunks_of(2) + chunks_of(1)[:1])
    assembler.expire(2 * SECOND)
    assert losses(assembler) == {"completed": 2, "timed_out": 1, "chunks_lost": 1}


def test_what_was_waited_for_when_a_camera_begins_anew_is_lost():
    assembler = FrameAssembler()
    push_all(assembler, chunks_of(0) + chunks_of(3))
    push_all(assembler, chunks_of(0) + chunks_of(2), camera="c2")
    assembler.forget("c1")
    assert losses(assembler) == {"completed": 4, "lost": 2}
    assert assembler.next_sequence("c1") == 0
    push_all(assembler, chunks_of(0, tick_ms=1))
    assembler.expire(60 * SECOND)
    assert losses(assembler) == {"completed": 5, "lost": 3}


def test_a_long_outage_is_counted_whole_and_only_the_newest_are_waited_for():
    assembler = FrameAssembler()
    push_all(assembler, chunks_of(0) + chunks_of(1001))
    assert losses(assembler) == {"completed": 2, "lost": 1000 - MISSING_FRAMES}
    push_all(assembler, chunks_of(1004))
    assert losses(assembler) == {"completed": 3, "lost": 1002 - MISSING_FRAMES}
    assembler.expire(60 * SECOND)
    assert losses(assembler) == {"completed": 3, "lost": 1002}


@pytest.mark.parametrize(("far", "lost"), [(MAX_GAP + 1, MAX_GAP), (SEQUENCE_MODULUS - MAX_LATE + 1, 0)])
def test_a_long_outage_and_a_late_frame_are_believed(far, lost):
    assembler = FrameAssembler()
    push_all(assembler, chunks_of(0) + chunks_of(far))
    assembler.expire(60 * SECOND)
    assert losses(assembler) == {"completed": 2} | ({"lost": lost} if lost else {})


FAR = [MAX_GAP + 5, 2**20, 2**31, 2**31 + 1, SEQUENCE_MODULUS - MAX_LATE]


@pytest.mark.parametrize("far", FAR)
def test_a_number_from_nowhere_is_refused_and_changes_nothing(far):
    assembler = FrameAssembler()
    push_all(assembler, chunks_of(0) + chunks_of(1)[:2])
    for chunk in chunks_of(far):
        with pytest.raises(FrameError, match="far from") as caught:
            assembler.push("c1", chunk, 0)
        assert caught.value.reason == "unplaced"
    push_all(assembler, chunks_of(1)[2:] + chunks_of(2))
    with pytest.raises(FrameError):
        assembler.push("c1", chunks_of(far + 1)[0], 0)  # it follows nothing that was the last
    push_all(assembler, chunks_of(3))
    assembler.expire(60 * SECOND)
    assert losses(assembler) == {"completed": 4}


@pytest.mark.parametrize("far", FAR)
def test_numbers_that_begin_anew_are_believed_from_the_second_frame_on(far):
    assembler = FrameAssembler()
    push_all(assembler, chunks_of(0) + chunks_of(2) + chunks_of(3)[:1])
    for chunk in chunks_of(far):
        with pytest.raises(FrameError):
            assembler.push("c1", chunk, 0)
    push_all(assembler, chunks_of((far + 1) % SEQUENCE_MODULUS) + chunks_of((far + 3) % SEQUENCE_MODULUS))
    assembler.expire(60 * SECOND)
    assert losses(assembler) == {"completed": 4, "lost": 3, "chunks_lost": 1, "restarts": 1}


def test_numbers_go_on_across_the_wrap():
    assembler = FrameAssembler()
    push_all(assembler, chunks_of(SEQUENCE_MODULUS - 2, seed=0) + chunks_of(1) + chunks_of(SEQUENCE_MODULUS - 1))
    assembler.expire(60 * SECOND)
    assert losses(assembler) == {"completed": 3, "lost": 1}
    assert assembler.next_sequence("c1") == 2


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40))
def test_every_number_between_the_first_and_the_last_came_or_is_lost(order):
    assembler = FrameAssembler()
    first = order[0]
    order = [max(first, one) for one in order]
    for one in order:
        assembler.push("c1", CHUNKS[one], 0)
    assembler.expire(60 * SECOND)
    assert assembler.losses.lost == max(order) - first + 1 - len(set(order))


def test_first_chunks_from_everywhere_take_bounded_memory():
    assembler = FrameAssembler(max_frames=8, max_bytes=8 * BYTES)
    firsts = [chunks_of(sequence)[0] for sequence in range(50)]
    cameras = [f"c{i}" for i in range(4)]
    for one in firsts[:10]:
        for camera in cameras:
            assembler.push(camera, one, 0)
    tracemalloc.start()
    try:
        for one in firsts[10:]:
            for camera in cameras:
                assembler.push(camera, one, 0)
            assert assembler.waiting <= 8
        assert tracemalloc.get_traced_memory()[1] < 8 * 4 * BYTES + 30_000
    finally:
        tracemalloc.stop()


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 5), st.integers(0, 3), st.integers(0, 3)),
        max_size=80,
    )
)
def test_whatever_comes_everything_is_accounted_for(events):
    assembler = FrameAssembler(max_frames=3, max_bytes=3 * BYTES, timeout_s=4.0)
    sent = {sequence: chunks_of(sequence) for sequence in range(6)}
    now, arrived, done = 0, 0, set()
    for camera, sequence, index, passed in events:
        now += passed * SECOND
        frame = assembler.push(camera, sent[sequence][index], now)
        arrived += 1
        if frame is not None:
            assert frame.coded == coded_of(sent[sequence])
            assert (camera, sequence) not in done
            done.add((camera, sequence))
        assert assembler.waiting <= 3
        assert assembler.waiting_bytes == assembler.waiting * BYTES
    held = arrived - 4 * assembler.losses.completed
    held -= assembler.losses.duplicate + assembler.losses.late + assembler.losses.chunks_lost
    assert assembler.waiting <= held <= 3 * assembler.waiting
    assembler.expire(now + 5 * SECOND)
    assert (assembler.waiting, assembler.waiting_bytes) == (0, 0)


@pytest.mark.parametrize("bounds", [{"max_frames": 0}, {"max_bytes": 0}, {"timeout_s": 0.0}])
def test_bounds_that_let_nothing_through(bounds):
    with pytest.raises(ValueError, match="above 0"):
        FrameAssembler(**bounds)
