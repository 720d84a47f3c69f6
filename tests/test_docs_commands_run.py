"""Commands of README.md and docs/ as readers type them, with the test's own broker, ports and lengths."""

from __future__ import annotations

import asyncio
import re
import shlex
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from documented import ROOT, RUN_HERE
from stack import Listener, archive, until
from test_gammawear_cli import Run, recordings, run
from test_gammawear_service import Command, start

from models.bundle import assemble, load_bundle, save_bundle

__all__ = ["recordings", "run", "start"]

Start = Callable[..., Any]
NO_PORTS = ("--metrics-port", "0", "--page-port", "0")
Typed = Callable[..., tuple[str, ...]]


@pytest.fixture
def typed(request: pytest.FixtureRequest) -> Iterator[Typed]:
    """A function that gives a documented command's arguments; those given with it stand last, and so count.

    A test runs exactly the commands that the table says it runs.
    """
    expected = set(RUN_HERE[request.node.name])
    used = set()

    def arguments(line: str, *more: str) -> tuple[str, ...]:
        assert line in expected
        used.add(line)
        return (*shlex.split(re.sub(r"2>> \S+", "", line))[1:], *more)

    yield arguments
    assert used == expected


def at(mosquitto: Any) -> tuple[str, ...]:
    return ("--host", mosquitto.host, "--port", str(mosquitto.port))


async def all_end_well(commands: list[Command], says: str) -> None:
    """Each said that it had begun, and ends with status 0 and no error."""
    for command in commands:
        assert await command.ends() == 0, command.err
        await command.says(says)
        assert not [line for line in command.err if re.search("Traceback|ERROR|error:", line)], command.err


@pytest.fixture
def my_recordings(recordings: Path) -> None:
    recordings.rename(recordings.with_name("my-recordings"))


@pytest.mark.usefixtures("my_recordings")
async def test_own_recordings_are_trained_on_scored_and_recognised(mosquitto: Any, start: Start, typed: Typed) -> None:
    train = "gammawear train har --data my-recordings/ --rate 50 --window 2 --stride 1 --name mine"
    short = ("--epochs", "2", "--network", "tinier")
    training: Command = await start(*typed(train, *short))
    assert await training.ends() == 0, training.err
    assert any("runs/mine@1" in line for line in training.out)

    scoring: Command = await start(*typed("gammawear evaluate --bundle mine --data my-recordings/ --subjects test"))
    gateway: Command = await start(*typed("gammawear gateway --bundles runs", *at(mosquitto), *NO_PORTS))
    await gateway.says("serving mine@1, ")
    replay = "gammawear device --bundle mine --bundles runs --dataset my-recordings/"
    device: Command = await start(*typed(replay, *at(mosquitto), "--speed", "4", "--seconds", "3"))
    bridge: Command = await start(
        *typed("gammawear bridge --bundle mine --bundles runs", *at(mosquitto), *nobody_near(1), "--seconds", "1")
    )
    await all_end_well([scoring, device], "")
    await all_end_well([bridge], "bridge bridge: ")
    assert any("macro-F1" in line for line in scoring.out)
    gateway.press_ctrl_c()
    assert await gateway.ends() == 0, gateway.err
    packets, answers = (await gateway.says(r"^(\d+) packets, 0 lost, (\d+) answers$")).groups()
    assert int(packets) > int(answers) > 0


async def test_gateways(mosquitto: Any, start: Start, typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    lines = (
        "gammawear gateway --host broker.local --metrics-address 0.0.0.0",
        "gammawear gateway --page-host gateway.example --page-token-file token",
        "gammawear --log-format json gateway 2>> gateway.jsonl",
    )
    here = (*at(mosquitto), *NO_PORTS, "--seconds", "0.5")
    started = [await start(*typed(line, *here, "--client-id", f"gateway-{n}")) for n, line in enumerate(lines)]
    await all_end_well(started, "serving wrist3@1, ")


async def test_devices_and_cameras(mosquitto: Any, start: Start, typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "my-frames").mkdir()
    np.full((48, 64), 500, dtype="<u2").tofile(tmp_path / "my-frames" / "1.raw")
    layout = '{"width": 64, "height": 48, "cfa": "RGGB", "adc_bits": 12}'
    (tmp_path / "my-frames" / "layout.json").write_text(layout)
    lines = "gammawear device --count 20 --host broker.local", "gammawear camera --fps 2"
    devices, camera = [await start(*typed(line, *at(mosquitto), "--seconds", "1")) for line in lines]
    folder = "gammawear camera --raw my-frames/ --fps 0.5 --gated"
    frames: Command = await start(*typed(folder, *at(mosquitto), "--prefix", "other", "--no-loop"))
    await all_end_well([devices], "20 wearables ")
    await all_end_well([camera, frames], "4-bit codebook")
    assert frames.out == ["other-01: 1 frames sent, 0 without movement, 0 unreadable, 0 messages dropped"]


async def test_a_device_runs_another_codebook(
    mosquitto: Any, start: Start, run: Run, typed: Typed, tmp_path: Path
) -> None:
    wrist6 = load_bundle("wrist6")
    fields = wrist6.manifest.model_dump(exclude={"network", "sensor", "codebook_sha256", "model_sha256"})
    book = replace(wrist6.codebook, thresholds=1.1 * wrist6.codebook.thresholds)
    mine = {**fields, "name": "mine", "version": 1}
    save_bundle(tmp_path / "runs", assemble(mine, codebook=book, network=wrist6.network, sensor=wrist6.sensor))

    *config, _, file = typed("gammawear bundles config mine > config.json")
    status, out, err = run(*config)
    assert status == 0, err
    (tmp_path / file).write_text(out)
    publish = typed("mosquitto_pub -r -q 1 -t gammawear/v1/wearable-01/config -f config.json")
    async with Listener(mosquitto.settings, "gammawear/v1/wearable-01/status") as listener:
        device = await start("device", *at(mosquitto), "--count", "1")
        await device.says("1 wearables ")
        command = ["mosquitto_pub", "-h", mosquitto.host, "-p", str(mosquitto.port), *publish]
        await asyncio.to_thread(subprocess.run, command, check=True)
        await until(lambda: any(book.digest.hex().encode() in one.payload for one in listener.heard))
        device.process.terminate()
        assert await device.ends() == 0, device.err


def nobody_near(free: int) -> tuple[str, ...]:
    """For a bridge whose radio is not there: it waits."""
    return ("--hci", f"tcp-client:127.0.0.1:{free}", "--bonds", "bonds.json", "--metrics-port", "0")


async def test_bridges(mosquitto: Any, start: Start, typed: Typed, tmp_path: Path, free_port: int) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    named = "--device A0:9E:1A:00:00:01 --name A0:9E:1A:00:00:01=left-wrist --axes=-1,2,-3"
    lines = (
        "gammawear bridge --bundle wrist6",
        "gammawear bridge --bundle wrist6 --host broker.local",
        f"gammawear bridge --bundle wrist6 {named}",
        "gammawear bridge --profile-file docs/examples/arduino-nano-33.toml --bundle wrist6",
    )
    here = (*at(mosquitto), *nobody_near(free_port), "--seconds", "0.5")
    started = [await start(*typed(line, *here, "--id", f"bridge-{n}")) for n, line in enumerate(lines)]
    await all_end_well(started, r"bridge bridge-\d: ")


def test_a_detector_is_exported(run: Run, typed: Typed, tmp_path: Path) -> None:
    status, out, err = run(*typed("gammawear bundles export street --onnx street.onnx"))
    assert (status, out.strip()) == (0, "street.onnx"), err
    onnx.checker.check_model(tmp_path / "street.onnx")


def recipe(target: str, *arguments: str) -> list[str]:
    """What make would run last for a target, where all is installed."""
    make = ["make", "--no-print-directory", "--dry-run", "--old-file", ".venv/.demo", target, *arguments]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    return shlex.split(done.stdout.splitlines()[-1])


async def test_the_demo_replays_a_data_set(start: Start, typed: Typed, tmp_path: Path) -> None:
    line = 'make demo ARGS="--dataset data/sp_sw_har.zip"'
    target, arguments = typed(line)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sp_sw_har.zip").symlink_to(archive("sp_sw_har.zip").resolve())
    command = recipe(target, arguments)
    assert command[0] == ".venv/bin/gammawear"
    demo: Command = await start(*command[1:], "--seconds", "2", "--metrics-port", "0", "--json")
    assert await demo.ends() == 0, demo.err
    assert '"source": "dataset"' in demo.out[-1]


def test_accounts_are_made(typed: Typed, tmp_path: Path) -> None:
    (line,) = RUN_HERE["test_accounts_are_made"]
    typed(line)
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)
    accounts = tmp_path / "accounts"
    assert stat.S_IMODE(accounts.stat().st_mode) == 0o600
    lines = accounts.read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["gateway", "operator", "viewer", "bridge", "wrist-01"]
    assert all(re.fullmatch(r"[0-9a-f]{32}", line.split(":")[1]) for line in lines)
