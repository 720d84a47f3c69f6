"""A camera node: exposures in, chunks out."""

import numpy as np
import pytest
from camera_stack import image_codebook, scene_node

from device_emulator.camera.node import GATE_REST_S, CameraNode
from device_emulator.camera.source import EMULATED, Exposure, FolderSource, SceneSource
from gateway.frame_assembly import FrameAssembler
from protocol.frame import Chunk, decode_frame
from protocol.messages import Config
from quantization.baselines import linear
from quantization.errors import CodebookError, FrameError
from quantization.raw import RawFrame

BOOK = image_codebook()


def whole(emission):
    """The frame of an emission."""
    assembler = FrameAssembler()
    frames = [assembler.push("c", Chunk.from_bytes(chunk), 0) for chunk in emission.chunks]
    return frames[-1]


class Still:
    """The same exposure for ever, but for what a test changes."""

    kind = "dataset"
    name = "still"
    adc_bits = 12

    def __init__(self):
        self.counts = np.full((64, 64), 400, dtype=np.uint16)
        self.broken: set[int] = set()
        self.end = 1_000_000

    def at(self, number, t_s):  # noqa: ARG002 - it stands still
        if number >= self.end:
            return None
        if number in self.broken:
            raise FrameError("truncated", f"frame {number} ends early")
        return Exposure(RawFrame(self.counts.copy(), EMULATED))


def test_what_is_sent_decodes_to_the_codes_of_what_was_exposed():
    node, source = scene_node(BOOK, fps=2.0), SceneSource(0)
    for number in range(3):
        emission = node.next_frame()
        frame = whole(emission)
        exposure = source.at(number, number / 2)
        wanted = exposure.frame.codes(EMULATED.lookup(BOOK))
        assert (decode_frame(frame.header, frame.coded, BOOK) == wanted).all()
        assert (frame.header.sequence, frame.header.tick_ms) == (number, 500 * number)
        assert emission.truth.sequence == number
        assert [tuple(one.box) for one in emission.truth.boxes] == [tuple(one.box) for one in exposure.truth]
    assert node.frames_made == 3


def test_frames_are_cut_into_chunks_of_the_size_asked_for():
    emission = scene_node(BOOK, chunk_bytes=1000).next_frame()
    assert len(emission.chunks) > 5
    assert max(map(len, emission.chunks)) <= 1000 + 40


def test_a_gate_holds_back_what_does_not_move_but_not_for_ever():
    source = Still()
    node = CameraNode("c", source, BOOK, fps=1.0, gated=True)
    sent = [bool(node.next_frame().chunks) for _ in range(25)]
    assert [number for number, there in enumerate(sent) if there] == [0, int(GATE_REST_S), 2 * int(GATE_REST_S)]
    assert node.held_back == 22
    source.counts[:32, :32] = 1500
    assert node.next_frame().chunks, "a quarter of the picture changed"
    assert not node.next_frame().chunks
    assert node.frames_made == 4, "frames that were held back have no number"


def test_an_exposure_that_cannot_be_read_is_said_and_passed_over():
    source = Still()
    source.broken = {1}
    node = CameraNode("c", source, BOOK)
    assert node.next_frame().chunks
    before = node.revision
    assert not node.next_frame().chunks
    assert node.unreadable == 1
    assert "ends early" in node.status().error
    assert node.revision > before
    assert node.next_frame().chunks
    assert node.frames_made == 2


def test_a_good_exposure_that_the_gate_holds_back_ends_the_error():
    source = Still()
    source.broken = {1}
    node = CameraNode("c", source, BOOK, fps=1.0, gated=True)
    node.next_frame()
    node.next_frame()
    assert node.error is not None
    assert not node.next_frame().chunks
    assert node.error is None


def test_a_source_that_ends_ends_the_node():
    source = Still()
    source.end = 1
    node = CameraNode("c", source, BOOK)
    assert node.next_frame() is not None
    assert node.next_frame() is None


def test_another_codebook_takes_effect_with_the_next_frame():
    node = scene_node(BOOK)
    other = image_codebook(2)
    assert whole(node.next_frame()).header.bits == 4
    assert node.apply_config(Config.with_codebook(other))
    frame = whole(node.next_frame())
    assert (frame.header.bits, frame.header.short_digest) == (2, other.short_digest)
    assert node.status().codebook == other.digest.hex()


def test_a_codebook_for_motion_is_refused_and_said():
    node = scene_node(BOOK)
    for_motion = linear(("acc_x",), 4, 50.0, [8.0])
    assert not node.apply_config(Config.with_codebook(for_motion))
    assert "red, green, blue" in node.status().error
    assert whole(node.next_frame()).header.short_digest == BOOK.short_digest
    with pytest.raises(CodebookError, match="red, green, blue"):
        scene_node(for_motion)


def test_a_folder_plays_in_the_order_of_names_and_bins_large_frames(tmp_path):
    layout = '{"width": 64, "height": 48, "cfa": "GBRG", "adc_bits": 10, "dtype": "uint16"}'
    (tmp_path / "layout.json").write_text(layout)
    for number, name in enumerate(["b", "a"]):
        np.full((48, 64), 100 + number, dtype="<u2").tofile(tmp_path / f"{name}.raw")
    source = FolderSource(tmp_path, layout=None, max_pixels=1000, loop=True)
    exposures = [source.at(number, 0.0) for number in range(3)]
    assert [int(one.frame.counts[0, 0]) for one in exposures] == [101, 100, 101]
    assert [one.binning for one in exposures] == [2, 2, 2]
    assert exposures[0].frame.counts.shape == (24, 32)
    assert FolderSource(tmp_path, layout=None, max_pixels=10**6, loop=False).at(2, 0.0) is None


def test_a_folder_without_a_frame_is_refused(tmp_path):
    with pytest.raises(FrameError, match="no RAW file"):
        FolderSource(tmp_path, layout=None, max_pixels=10**6, loop=True)
    (tmp_path / "bad.dng").write_bytes(b"nothing")
    with pytest.raises(FrameError, match=r"bad\.dng"):
        FolderSource(tmp_path, layout=None, max_pixels=10**6, loop=True)


def test_dim_frames_are_lifted_and_say_so():
    source = Still()
    node = CameraNode("c", source, BOOK)
    lifts = []
    for light in (400, 100, 25, 1, 4000, 95, 90, 80):
        source.counts[:] = light
        header = whole(node.next_frame()).header
        lifts.append(header.lift)
        assert header.binning == 1
    # 95 counts alone would be lifted by 1, 90 and 80 by 2: the lift is kept until it no longer nearly fits.
    assert lifts == [0, 1, 3, 7, 0, 1, 1, 1]
    frame = whole(node.next_frame())
    wanted = source.at(0, 0).frame.codes(EMULATED.lookup(BOOK, 1))
    assert (decode_frame(frame.header, frame.coded, BOOK) == wanted).all()


def test_another_lift_is_another_picture_to_the_gate():
    source = Still()
    node = CameraNode("c", source, BOOK, fps=10.0, gated=True)
    assert node.next_frame().chunks
    source.counts[:] = 100
    assert node.next_frame().chunks
    assert not node.next_frame().chunks


def test_a_codebook_that_comes_during_an_exposure_takes_effect_with_the_next(monkeypatch):
    node, other = scene_node(BOOK), image_codebook(8)
    exposed = node.source.at

    def configured(number, t_s):
        exposure = exposed(number, t_s)
        if number == 1:
            node.apply_config(Config.with_codebook(other))
        return exposure

    monkeypatch.setattr(node.source, "at", configured)
    books = [BOOK, BOOK, other]
    for number, book in enumerate(books):
        frame = whole(node.next_frame())
        assert frame.header.short_digest == book.short_digest
        wanted = exposed(number, number / 2).frame.codes(EMULATED.lookup(book))
        assert (decode_frame(frame.header, frame.coded, book) == wanted).all()


def test_an_error_is_said_until_the_next_good_frame():
    source = Still()
    source.broken = {0}
    node = CameraNode("c", source, BOOK)
    node.next_frame()
    assert "ends early" in node.status().error
    before = node.revision
    node.next_frame()
    assert node.status().error is None
    assert node.revision > before
    node.refuse_config(CodebookError("not this one"))
    node.next_frame()
    assert node.status().error == "not this one", "a good frame says nothing of the configuration"


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_gate_sees_movement_at_any_depth_and_noise_at_none(bits):
    source, rng = Still(), np.random.default_rng(0)
    node = CameraNode("c", source, image_codebook(bits), fps=10.0, gated=True)
    sent = []
    for number in range(40):
        source.counts = rng.normal(600, 60, (64, 64)).clip(0, 4095).astype(np.uint16)
        if number >= 20:
            source.counts[:16, :16] = 3000
        sent.append(bool(node.next_frame().chunks))
    assert [number for number, there in enumerate(sent) if there] == [0, 20]


def test_a_frame_that_is_too_large_to_send_is_said(tmp_path):
    (tmp_path / "layout.json").write_text('{"width": 2048, "height": 2048, "cfa": "RGGB", "adc_bits": 12}')
    np.zeros((2048, 2048), dtype="<u2").tofile(tmp_path / "a.raw")
    node = CameraNode("c", FolderSource(tmp_path, layout=None, max_pixels=10**8, loop=False), BOOK)
    assert not node.next_frame().chunks
    assert "2048 × 2048" in node.status().error or "4194304" in node.status().error
    assert node.next_frame() is None
