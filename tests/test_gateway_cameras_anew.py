"""Camera nodes that begin anew, fall silent or miscount, and a clock that is set: nothing old is taken for new."""

import pytest
from camera_rig import BOOK, OFFLINE, SECOND, detectors, online, rig
from camera_stack import chunks_of

from protocol.messages import Status, Truth
from protocol.topics import Kind

__all__ = ["detectors", "rig"]


def test_a_node_that_dies_in_mid_frame_leaves_nothing_behind_when_it_starts_anew(rig):
    rig.feed(Kind.STATUS, online(0))
    rig.frame(chunks_of(BOOK, sequence=0))
    rig.frame(chunks_of(BOOK, sequence=1)[:-1])
    rig.feed(Kind.STATUS, OFFLINE)
    rig.feed(Kind.STATUS, online(0))
    assert rig.cameras.assembler.waiting == 0
    rig.frame(chunks_of(BOOK, sequence=0, seed=1))
    rig.frame(chunks_of(BOOK, sequence=1, seed=1))
    assert len(rig.jobs) == 3, "its numbers begin again"


def test_a_link_that_was_lost_in_mid_frame_costs_nothing(rig):
    """The broker says offline for it; then it connects again, and sends what was not acknowledged."""
    rig.feed(Kind.STATUS, online(0))
    chunks = chunks_of(BOOK, sequence=0)
    rig.frame(chunks[:5])
    rig.feed(Kind.STATUS, OFFLINE)
    rig.feed(Kind.STATUS, online(1))
    rig.frame(chunks[4:])
    rig.frame(chunks[-1:])
    assert len(rig.jobs) == 1
    assert rig.cameras.totals.frames == 1


def test_truths_and_answers_of_an_earlier_run_are_not_mixed_with_those_of_the_next(rig):
    rig.feed(Kind.STATUS, online(0))
    rig.frame(chunks_of(BOOK, sequence=0))
    rig.answer()
    rig.feed(Kind.STATUS, online(0))
    rig.feed(Kind.TRUTH, Truth(sequence=0, boxes=[]).to_json())
    rig.pipeline.sweep()
    assert [one.frames for one in rig.cameras.scores] == [0]
    rig.frame(chunks_of(BOOK, sequence=0, seed=1))
    rig.answer()
    rig.now_ns += SECOND
    rig.pipeline.sweep()
    assert [one.frames for one in rig.cameras.scores] == [1]


def test_an_answer_of_an_earlier_run_does_not_silence_the_next(rig):
    """It was in the detector's thread, or in a queue as after a pause of the gateway, when the camera started anew."""
    rig.feed(Kind.STATUS, online(0))
    rig.frame(chunks_of(BOOK, sequence=500))
    rig.feed(Kind.STATUS, online(0))
    rig.answer()
    assert not rig.published, "what is retained is what a camera sees at present"
    rig.frame(chunks_of(BOOK, sequence=0, seed=1))
    rig.answer()
    assert [one.sequence for one in rig.messages] == [0]
    assert (rig.cameras.restarted, rig.cameras.overtaken) == (1, 0)


def test_previews_and_scores_go_on_when_the_clock_is_set_back(rig):
    for sequence in range(2):
        rig.frame(chunks_of(BOOK, sequence=sequence, seed=sequence))
        rig.answer()
        rig.feed(Kind.TRUTH, Truth(sequence=sequence, boxes=[]).to_json())
        rig.pipeline.sweep()
        assert rig.cameras.get("cam").preview_sequence == sequence
        assert [score.frames for score in rig.cameras.scores] == [sequence + 1]
        rig.set_clock(-3600)


def test_a_frame_that_waits_goes_when_the_clock_is_set_back(rig):
    rig.frame(chunks_of(BOOK)[:2])
    rig.set_clock(-3600)
    rig.pipeline.sweep()
    assert (rig.cameras.assembler.waiting, rig.cameras.assembler.losses.timed_out) == (0, 1)


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_no_camera_is_forgotten_because_the_clock_is_set(rig, seconds):
    rig.frame(chunks_of(BOOK))
    rig.set_clock(seconds)
    rig.pipeline.sweep()
    assert [camera.id for camera in rig.cameras] == ["cam"]


def test_a_status_without_its_count_of_frames_begins_nothing(rig):
    chunks = chunks_of(BOOK)
    rig.frame(chunks)
    rig.frame(chunks_of(BOOK, sequence=1)[:2])
    rig.feed(Kind.STATUS, Status(state="online", camera=True).to_json())
    rig.frame(chunks_of(BOOK, sequence=1)[2:])
    rig.answer()
    assert [message.sequence for message in rig.messages] == [0, 1]
    assert (rig.cameras.restarted, rig.cameras.assembler.losses.lost) == (0, 0)


def test_a_frame_with_a_number_from_nowhere_blinds_no_camera(rig):
    for sequence in (0, 1, 2**30, 2, 3):
        rig.frame(chunks_of(BOOK, sequence=sequence))
        rig.answer()
    assert [message.sequence for message in rig.messages] == [0, 1, 2, 3]
    assert rig.refusals.frames == {"unplaced": len(chunks_of(BOOK))}


def test_a_camera_that_begins_anew_without_a_word_is_seen_again_from_its_second_frame_on(rig):
    for sequence in (5000, 5001, 0, 1, 2):
        rig.frame(chunks_of(BOOK, sequence=sequence))
        rig.answer()
    assert [message.sequence for message in rig.messages] == [5000, 5001, 1, 2]


def test_a_bare_will_is_a_cameras_also_where_one_was_retained_before_anybody_knew_it(rig):
    rig.feed(Kind.STATUS, b'{"state":"offline"}', retain=True)
    rig.feed(Kind.STATUS, Status(state="online", camera=True, packets=0).to_json())
    rig.feed(Kind.STATUS, b'{"state":"offline"}')
    assert rig.cameras.get("cam").status.state == "offline"


def test_a_bare_will_is_that_of_the_camera_that_was_there(rig):
    rig.feed(Kind.STATUS, Status(state="online", camera=True, source="dataset", packets=0).to_json())
    rig.feed(Kind.STATUS, b'{"state":"offline"}')
    assert not list(rig.pipeline.devices), "it is no wearable"
    assert rig.cameras.get("cam").status == Status(state="offline", camera=True, source="dataset", packets=0)
    rig.frame(chunks_of(BOOK))
    rig.answer()
    assert rig.messages[0].source == "dataset"
