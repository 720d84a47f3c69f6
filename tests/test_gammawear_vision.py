"""``gammawear camera`` and ``gammawear train detector`` as people run them."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_stack import save_untrained
from needed import need
from stack import until
from test_gammawear_cli import Run, run
from test_gammawear_service import Command, retained, start

from models.vision.bundle import load_detector

__all__ = ["run", "start"]

PENN_FUDAN = Path(__file__).parents[2] / "shared" / "data" / "vision" / "penn_fudan.zip"


def scrape(port: str, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        found = re.search(rf"^gammawear_{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


async def test_cameras_and_a_gateway_as_processes(mosquitto: Any, start: Any, tmp_path: Path) -> None:
    save_untrained(tmp_path / "runs", name="street", threshold=0.05)
    broker = ("--host", mosquitto.host, "--port", str(mosquitto.port))
    gateway: Command = await start("-v", "gateway", *broker, "--metrics-port", "0", "--bundles", "runs")
    port = (await gateway.says(r"street@1 from \S+ metrics on http://127\.0\.0\.1:(\d+)/metrics"))[1]
    cameras: Command = await start("camera", *broker, "--count", "2", "--fps", "4", "--qos", "1", "--bundle", "street")
    await until(lambda: scrape(port, "frames_total") >= 6)
    statuses = await retained(mosquitto.settings, 3)
    assert {statuses[f"gammawear/v1/camera-{n:02d}/status"].camera for n in (1, 2)} == {True}
    cameras.press_ctrl_c()
    assert await cameras.ends() == 0, cameras.err
    assert len(cameras.out) == 2
    sent = sum(int(re.search(r"(\d+) frames sent", line)[1]) for line in cameras.out)  # type: ignore[index]
    await until(lambda: scrape(port, "frames_total") == sent)
    await until(lambda: scrape(port, 'cameras{state="online"}') == 0)
    gateway.press_ctrl_c()
    assert await gateway.ends() == 0, gateway.err
    assert f"; {sent} frames, " in " ".join(gateway.err)
    cameras.assert_nothing_is_left()


async def test_a_folder_is_sent_once_if_asked_to(mosquitto: Any, start: Any, tmp_path: Path) -> None:
    save_untrained(tmp_path / "runs", name="street")
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "layout.json").write_text(json.dumps({"width": 64, "height": 48, "cfa": "RGGB", "adc_bits": 12}))
    for number in range(3):
        np.full((48, 64), 100 * number, dtype="<u2").tofile(folder / f"{number}.raw")
    (folder / "3.raw").write_bytes(b"short")
    camera: Command = await start(
        "camera", "--host", mosquitto.host, "--port", str(mosquitto.port), "--raw", "frames", "--no-loop", "--fps", "9"
    )
    assert await camera.ends() == 0, camera.err
    assert camera.out == ["camera-01: 3 frames sent, 0 without movement, 1 unreadable, 0 messages dropped"]
    said = " ".join(camera.err)
    assert "is it cut off?" in said
    assert "cannot keep up" not in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--layout", "l.json"), "--raw"),
        (("--raw", ".", "--light", "0.1"), "--light"),
        (("--raw", ".", "--seed", "1"), "--seed"),
    ],
)
def test_options_without_effect_are_refused(run: Run, options: tuple[str, ...], words: str) -> None:
    status, _, err = run("camera", *options)
    assert status == 2
    assert words in err


def test_what_cannot_be_is_a_sentence(run: Run, tmp_path: Path) -> None:
    for arguments, words in (
        (("camera", "--bundle", "nothing"), "no bundle 'nothing'"),
        (("camera", "--raw", str(tmp_path / "absent"), "--bundle", "tiny"), "absent"),
        (("train", "detector", "--task", "bccd"), "--data"),
        (("train", "detector", "--task", "cats"), "bccd"),
        (("train", "detector", "--data", "x.zip"), "x.zip: no such file"),
        (("train", "detector", "--task", "bccd", "--data", "absent.zip"), "absent.zip"),
    ):
        if "tiny" in arguments:
            save_untrained(tmp_path / "runs")
        status, _, err = run(*arguments)
        assert status == 1, err
        assert words in err


def test_a_detector_is_trained_saved_and_listed(run: Run, tmp_path: Path) -> None:
    need(PENN_FUDAN.exists(), str(PENN_FUDAN))
    status, out, err = run(
        "train", "detector", "--task", "penn_fudan", "--data", str(PENN_FUDAN), "--epochs", "1", "--name", "person",
        "--bits", "2",
    )  # fmt: skip
    assert status == 0, err
    assert "runs/person@1" in out
    bundle = load_detector(tmp_path / "runs" / "person@1")
    manifest = bundle.manifest
    assert (manifest.classes, bundle.codebook.bits, manifest.data.test_pictures) == (["person"], 2, 50)
    assert not (tmp_path / "runs" / ".person@1.safetensors").exists(), "its checkpoint is gone"
    assert manifest.scores.bits_per_photosite is not None
    assert 0 < manifest.scores.bits_per_photosite < 2
    card = (tmp_path / "runs" / "person@1" / "README.md").read_text()
    assert f"{manifest.scores.ap50:.3f}" in card
    status, out, err = run("bundles")
    assert status == 0, err
    assert "person@1" in out
    status, out, err = run("bundles", "show", "person")
    assert json.loads(out)["format"] == "gammawear-detector-1"


async def test_training_goes_on_after_ctrl_c(start: Any, tmp_path: Path) -> None:
    need(PENN_FUDAN.exists(), str(PENN_FUDAN))
    arguments = ("train", "detector", "--task", "penn_fudan", "--data", str(PENN_FUDAN), "--epochs", "2")
    command: Command = await start(*arguments)
    await command.says("epoch 1/2")
    command.press_ctrl_c()
    assert await command.ends() == 130, command.err
    await command.says("the same command goes on")
    assert list((tmp_path / "runs").glob(".penn_fudan@1.safetensors"))
    again: Command = await start(*arguments)
    assert await again.ends() == 0, again.err
    assert not [line for line in again.err if line.startswith("epoch 1/2")]
