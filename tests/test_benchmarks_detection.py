"""Detectors' rows: bytes of frames as they are sent, and shots that were JPEGs on their way."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import detection, jpeg_shots
from benchmarks.frame_bytes import developed
from models.vision.detector import Detector, DetectorConfig
from models.vision.fit import JointDetector
from models.vision.shots import SENSOR, Shots, View
from models.vision.unprocess import Camera
from protocol.frame import CHUNK_HEADER_BYTES
from quantization.gamma_image import UnquantizedPlanes, linear_image
from quantization.raw import RawFrame, to_planes

GAIN = 0.4


def view(seed: int, width: int = 160, height: int = 120) -> View:
    """Bright and dark blocks of many colours, and one box."""
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(0.05, 0.8, (height // 20, width // 20, 3)).astype(np.float32)
    boxes = np.array([[20, 20, 80, 100]], dtype=np.float32)
    linear = blocks.repeat(20, axis=0).repeat(20, axis=1)
    return View(f"v{seed}", linear, boxes, np.zeros(1, np.int64), Camera.draw(rng))


VIEWS = [view(0), view(1)]


def jpegs(quality: int | None) -> jpeg_shots.JpegShots:
    shots = jpeg_shots.JpegShots(VIEWS, gain=GAIN, seed=3)
    shots.quality = quality
    return shots


# -- JPEG -------------------------------------------------------------------------------------------------------------


def test_a_jpeg_is_of_the_exposure_that_other_curves_get() -> None:
    plain = Shots(VIEWS, gain=GAIN, seed=3)
    for epoch in range(4):
        raw, sent = plain.varied(0, epoch), jpegs(None).varied(0, epoch)
        assert np.array_equal(raw.boxes, sent.boxes)
        assert np.array_equal(raw.labels, sent.labels)
    raw, sent = plain.plain(1), jpegs(95).plain(1)
    camera = VIEWS[1].camera
    assert camera is not None
    gains = jpeg_shots.white_balance(raw.frame) * np.float32(camera.gains[1] / GAIN)
    shown = np.asarray(developed(raw.frame, gains)).astype(float)
    red, green, _, blue = to_planes(sent.frame.counts, sent.frame.sensor.cfa).astype(float)
    pairs = {
        "red": (red, shown[::2, ::2, 0]),
        "green": (green, shown[::2, 1::2, 1]),
        "blue": (blue, shown[1::2, 1::2, 2]),
    }
    for colour, (plane, wanted) in pairs.items():
        assert abs(float((plane - wanted).mean())) < 2
        # Colour has half the resolution in a JPEG. With other noise green would come to 0.92.
        least = 0.97 if colour == "green" else 0.9
        assert np.corrcoef(plane.ravel(), wanted.ravel())[0, 1] > least


def test_planes_are_of_8_bits() -> None:
    planes = jpegs(75).plain(0).planes
    assert planes.shape == (4, 120, 160)
    assert planes.min() >= 0
    assert planes.max() <= 1
    assert np.allclose(planes * 255, np.rint(planes * 255))


def test_quality_costs_bytes_and_training_draws_it() -> None:
    sizes = {quality: sum(jpegs(quality).lengths()) for quality in (10, 50, 90)}
    assert sizes[10] < sizes[50] < sizes[90]
    assert jpegs(50).lengths() == jpegs(50).lengths()
    varied = {jpegs(None).varied(0, epoch).sent for epoch in range(6)}  # type: ignore[attr-defined]
    assert len(varied) > 4
    assert len({str(jpegs(quality).describe()) for quality in (None, 10, 90)}) == 3


def test_a_developed_frame_is_as_bright_in_any_light() -> None:
    shots = jpegs(90)
    ordinary, little = (float(shots.plain(0, light).planes.mean()) for light in (1.0, 0.25))
    assert little == pytest.approx(ordinary, rel=0.15)


def test_white_balance_makes_the_mean_grey() -> None:
    counts = np.tile(np.array([[100, 200], [200, 50]], dtype=np.uint16), (4, 4))
    assert jpeg_shots.white_balance(RawFrame(counts, SENSOR)).tolist() == [2.0, 1.0, 4.0]
    dark = np.zeros((8, 8), dtype=np.uint16)
    assert jpeg_shots.white_balance(RawFrame(dark, SENSOR)).tolist() == [1.0, 1.0, 1.0]


def test_scores_are_by_quality_and_light(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(jpeg_shots, "QUALITIES", (25, 90))
    model = JointDetector(UnquantizedPlanes(), Detector(DetectorConfig(1))).eval()
    found = jpeg_shots.score_jpegs(model, VIEWS[:1], GAIN, seed=3)
    assert list(found) == [str(quality) for quality in jpeg_shots.QUALITIES]
    one = jpeg_shots.JpegShots(VIEWS[:1], gain=GAIN, seed=3)
    one.quality = 25
    for light in ("1", "0.25", "0.1"):
        assert found["25"][light]["bytes_mean"] == one.lengths(float(light))[0]
        assert 0 <= found["25"][light]["ap50"] <= 1


# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def benchmark_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(detection, "FILE", tmp_path / "detection.jsonl")
    monkeypatch.setattr(detection, "CODEBOOKS", tmp_path / "curves")
    monkeypatch.setattr(detection, "material", lambda _task, _data: (VIEWS[:1], VIEWS, ("block",)))
    return tmp_path


def test_bytes_are_those_of_the_chunks(benchmark_folder: Path) -> None:
    frames = detection.tested_frames("bccd", benchmark_folder, 1.0)
    packed = detection.sent(frames, linear_image(4), lifted=False, compress=False)
    # 38 400 bytes of codes in three chunks.
    assert packed == {
        "frames": 2, "bytes_mean": 38_400 + 3 * CHUNK_HEADER_BYTES, "bytes_max": 38_520, "bits_per_photosite": 4.0125,
    }  # fmt: skip
    run = detection.Run("bccd", "linear", 2, seed=0)
    found = detection.frame_sizes(run, benchmark_folder, linear_image(2))
    assert found["packed"]["bytes_mean"] == 19_200 + 2 * CHUNK_HEADER_BYTES
    assert list(found["coded"]) == ["1", "0.25", "0.1"]
    # Linear steps see less and less in the dark.
    assert 19_280 > found["coded"]["1"]["bytes_mean"] > found["coded"]["0.1"]["bytes_mean"] > CHUNK_HEADER_BYTES
    lifted = detection.frame_sizes(replace(run, curve="linear-lifted"), benchmark_folder, linear_image(2))
    assert lifted["coded"]["0.1"]["bytes_mean"] > found["coded"]["0.1"]["bytes_mean"]


def test_rows_without_bytes_get_those_of_their_curve(
    benchmark_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names: list[tuple[str, int, dict[str, Any]]] = [
        ("none", 12, {}), ("linear", 4, {}), ("log", 4, {}), ("gamma", 4, {"coded": {}}), ("jpeg", 8, {"jpeg": {}}),
    ]  # fmt: skip
    before = [{"task": "bccd", "curve": curve, "bits": bits, "seed": 0, **more} for curve, bits, more in names]
    detection.FILE.write_text("".join(json.dumps(row) + "\n" for row in before))
    run = detection.Run.of(before[1])
    run.codebook.parent.mkdir()
    linear_image(4).save(run.codebook)
    monkeypatch.setattr("sys.argv", ["detection", "--bytes", "--data", str(benchmark_folder)])
    detection.main()
    after = detection.stored(detection.FILE)
    assert after[1] == before[1] | detection.frame_sizes(run, benchmark_folder, linear_image(4))
    assert [after[0], *after[2:]] == [before[0], *before[2:]]
    assert "bccd-log-4-0: there is no" in capsys.readouterr().out
    assert sorted(path.name for path in benchmark_folder.iterdir()) == ["curves", "detection.jsonl"]


def test_curves_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    made = list(detection.runs(["bccd"], ["none", "jpeg", "gamma-paper-4", "linear-2"], range(3, 4)))
    assert [run.key for run in made] == ["bccd-none-12-3", "bccd-jpeg-8-3", "bccd-gamma-paper-4-3", "bccd-linear-2-3"]
    assert all(detection.Run.of({**run.__dict__, "classes": []}) == run for run in made)
    with pytest.raises(SystemExit, match="no curve 'mu-4'"):
        list(detection.runs(["bccd"], ["mu-4"], range(1)))
    assert capsys.readouterr().out == ""


def test_rows_are_summed_up() -> None:
    row = {"task": "bccd", "curve": "linear", "bits": 4, "seed": 1, "seconds": 9.6, "light": {"1": {"ap50": 0.5}}}
    assert detection.summary(row) == "bccd-linear-4-1: light 1: AP50 0.500 (10 s)"
    row |= {"curve": "jpeg", "bits": 8, "jpeg": {"10": {"1": {"ap50": 0.25}}}}
    assert detection.summary(row) == "bccd-jpeg-8-1: quality 10, light 1: AP50 0.250 (10 s)"
