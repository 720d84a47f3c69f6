"""What is installed on a device or a bridge has no torch, and its commands run without."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_files import own_csv
from lean import Lean, installed_by

from gammawear.learn import NETWORK_NAMES
from models.bundle_files import DETECTOR, SHIPPED_DETECTORS, load_codebook
from models.device_part import load_device_part
from models.har import NETWORKS
from models.vision.bundle import load_detector

HEAVY = {"torch", "river", "scikit-learn", "matplotlib"}


@pytest.mark.parametrize("extras", [(), ("camera",), ("ble",)], ids=lambda extras: "+".join(extras) or "base")
def test_an_installation_for_devices_has_no_torch(extras: tuple[str, ...]) -> None:
    assert not HEAVY & installed_by(*extras)
    assert "torch" in installed_by("gateway"), "it would be found"


def test_a_device_runs_without_torch(tmp_path: Path, free_port: int) -> None:
    lean = Lean(tmp_path)
    assert "No module named 'torch'" in lean.python("-c", "import torch").stderr
    assert "No module named 'numba'" in lean.python("-c", "import numba").stderr
    done = lean.gammawear("device", "--count", "2", "--seconds", "0.5", "--port", str(free_port))
    assert (done.returncode, "2 wearables (source: synthetic)" in done.stderr) == (0, True), done.stderr
    for command in ("gateway", "demo"):
        done = lean.gammawear(command)
        assert (done.returncode, done.stderr) == (1, "error: this needs an extra: pip install 'gammawear[gateway]'\n")


def test_a_camera_runs_without_torch(tmp_path: Path, free_port: int) -> None:
    lean = Lean(tmp_path, "camera")
    done = lean.gammawear("camera", "--seconds", "0.5", "--port", str(free_port))
    assert (done.returncode, "4-bit codebook" in done.stderr) == (0, True), done.stderr


def test_a_bridge_runs_without_torch(tmp_path: Path, free_port: int) -> None:
    lean = Lean(tmp_path, "ble")
    controller = f"tcp-client:127.0.0.1:{free_port}"  # nobody is there: it waits for its adapter
    options = ("--hci", controller, "--bonds", str(tmp_path / "bonds.json"), "--metrics-port", "0", "--port", "1")
    done = lean.gammawear("bridge", *options, "--seconds", "1")
    assert (done.returncode, "bridge bridge: " in done.stderr) == (0, True), done.stderr
    done = lean.gammawear("wearable", "--air", "0", "--seconds", "0.5")
    assert (done.returncode, "1 wearables on the air" in done.stderr) == (0, True), done.stderr


def test_a_gateway_evaluates_without_what_training_needs(tmp_path: Path) -> None:
    lean = Lean(tmp_path, "gateway")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "ann_1.csv").write_bytes(own_csv("WALKING", n=600))
    done = lean.gammawear("evaluate", "--bundle", "wrist6", "--data", "own")
    assert (done.returncode, "macro-F1" in done.stdout) == (0, True), done.stderr
    needs_training = "error: this needs an extra: pip install 'gammawear[train]'"
    for arguments in (("train", "detector"), ("evaluate", "--bundle", "bccd", "--data", "own")):
        done = lean.gammawear(*arguments)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (1, needs_training)


def test_devices_read_of_a_bundle_what_gateways_read() -> None:
    part = load_device_part("wrist6")
    assert part.codebook.digest.hex() == part.manifest.codebook_sha256
    detector = load_detector("street")
    assert load_codebook("street", (SHIPPED_DETECTORS,), DETECTOR) == detector.codebook


def test_the_networks_named_are_those_that_there_are() -> None:
    assert set(NETWORK_NAMES) == set(NETWORKS)
