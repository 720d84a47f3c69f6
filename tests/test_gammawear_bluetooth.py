"""``gammawear wearable`` and ``gammawear bridge`` as processes of their own, on a virtual radio between them."""

from __future__ import annotations

import asyncio
import io
import itertools
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ble_boards import BoardPeripheral
from ble_cable import Cable
from ble_stack import FAST, address_of, flying, new_wearable
from emulated_boards import Thingy52Board, UartBoard
from needed import need
from rich.console import Console
from stack import PATIENCE_S, new_gateway, patient_devices, serving, until, wrist6
from test_device_emulator_replay import trace
from test_gammawear_service import start
from typer.testing import CliRunner

from device_emulator.ble import central, sampled
from device_emulator.ble.air import Air
from device_emulator.ble.profiles import PROFILES
from gammawear.cli import app
from gammawear.recording import FIND_S, RecordOptions, record
from gammawear.serve import make_sources
from gammawear.wearing import wear
from models.bundle import SHIPPED, Bundle
from models.datasets import load
from models.device_part import load_device_part
from protocol.trace import load_trace
from quantization.errors import ConnectError, GammawearError, ProfileError, TraceError
from quantization.imu import ACC_GYRO

__all__ = ["patient_devices", "start", "wrist6"]


async def fetch(address: str) -> str:
    def read() -> str:
        with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:  # noqa: S310 - our own address
            return answer.read().decode()

    return await asyncio.to_thread(read)


async def test_wearables_bridge_and_gateway_as_processes(
    start: Callable[..., Any], mosquitto: Any, tmp_path: Path
) -> None:
    need(promtool := shutil.which("promtool"), "promtool (Debian: apt install prometheus)")
    gateway = new_gateway(mosquitto.settings)
    async with serving(gateway):
        wearing = await start("wearable", "--count", "8", "--air", "0", "--speed", "4")
        hci = (await wearing.says(r"--hci (tcp-client:\S+)"))[1]
        bonds = str(tmp_path / "bonds.json")
        options = ("--hci", hci, "--port", str(mosquitto.port), "--metrics-port", "0", "--bonds", bonds)
        bridge = await start("bridge", *options)
        address = (await bridge.says(r"metrics on (http://\S+)"))[1]
        names = {f"ble-{n:02d}" for n in range(1, 9)}
        await until(lambda: {d.device for d in gateway.snapshot() if d.packets >= 20} == names)
        assert {d.device for d in gateway.snapshot() if d.online} == names
        assert {d.source for d in gateway.snapshot()} == {"synthetic"}
        text = await fetch(address)
        assert 'gammawear_bridge_devices{state="streaming"} 8.0' in text
        assert 'gammawear_bridge_connections_total{device="ble-01"} 1.0' in text
        checked = await asyncio.to_thread(
            subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")

        bridge.press_ctrl_c()
        assert await bridge.ends() == 0, bridge.err
        wearing.press_ctrl_c()
        assert await wearing.ends() == 0, wearing.err
        await until(lambda: not any(d.online for d in gateway.snapshot()))
    sent = int((await wearing.says(r"made, (\d+) sent"))[1])
    losses = gateway.pipeline.losses
    assert (losses.accepted, losses.lost) == (sent, 0)
    for command in (wearing, bridge):
        assert not [line for line in command.err if re.search("Traceback|ERROR", line)], command.err


async def test_scan_lists_what_is_near(start: Callable[..., Any]) -> None:
    wearing = await start("wearable", "--count", "2", "--air", "0")
    hci = (await wearing.says(r"--hci (tcp-client:\S+)"))[1]
    scan = await start("bridge", "--scan", "--hci", hci)
    assert await scan.ends() == 0, scan.err
    assert len([line for line in scan.out if re.search(r"C0:00:00:00:00:0\d.*ble-0\d.*gammawear", line)]) == 2
    wearing.press_ctrl_c()
    assert await wearing.ends() == 0


async def test_a_recording_with_typed_labels_can_be_trained_on(tmp_path: Path) -> None:
    air = Air(FAST)
    board = BoardPeripheral(Thingy52Board(), air, address_of(1))
    out = tmp_path / "anna_1.gwtrace"
    program = shutil.which("gammawear", path=str(Path(sys.executable).parent))
    assert program is not None
    async with flying(air, board) as hci:
        options = ("--out", str(out), "--labels", "walk,sit", "--rate", "20", "--hci", hci)
        process = await asyncio.create_subprocess_exec(
            program, "record", *options, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        await until(lambda: len(board.values) > 60)
        for typed in ("1", "run", "sit", ""):  # a number, none of the labels, a label, nothing
            process.stdin.write(f"{typed}\n".encode())
            begun = len(board.values)
            await until(lambda begun=begun: len(board.values) > begun + 30)
        process.stdin.write(b"q\n")
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, errors
    assert b"no label 'run'; there are walk, sit" in errors
    (recording,) = load("own", tmp_path)
    assert (recording.subject, recording.labels, recording.channels) == ("anna", ("sit", "walk"), ACC_GYRO)
    assert recording.rate_hz == pytest.approx(20, rel=0.03)
    runs = [int(label) for label, _ in itertools.groupby(recording.label)]
    assert runs == [-1, 1, 0, -1]  # walk went on while "run" was refused
    magnitude = np.linalg.norm(recording.values[:, :3], axis=1)
    assert np.median(magnitude) == pytest.approx(1, abs=0.3)  # in g; somebody walks


@pytest.mark.parametrize("how", ["q", "Ctrl-C", "time"])
async def test_a_search_for_a_wearable_ends_at_once(tmp_path: Path, how: str) -> None:
    program = shutil.which("gammawear", path=str(Path(sys.executable).parent))
    assert program is not None
    async with flying(Air(FAST)) as hci:
        options = ["--out", str(tmp_path / "anna_1.gwtrace"), "--labels", "walk", "--hci", hci]
        process = await asyncio.create_subprocess_exec(
            program, "record", *options, *(["--seconds", "1"] if how == "time" else []),
            stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        assert b"listening" in await process.stderr.readline()
        listening_s = asyncio.get_running_loop().time()
        if how == "q":
            process.stdin.write(b"q\n")
        elif how == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert asyncio.get_running_loop().time() - listening_s < FIND_S / 2
    assert process.returncode == (130 if how == "Ctrl-C" else 1), errors
    assert b"Traceback" not in errors


def wearing(hci: str, said: list[str]) -> asyncio.Task[None]:
    """``gammawear wearable --hci``."""
    part = load_device_part("wrist6", (SHIPPED,))
    return asyncio.create_task(
        wear(
            part, make_sources(part, count=1), prefix="ble", air_port=None, hci=hci, interval_ms=15.0, loss=0.0,
            closed=False, speed=1.0, seconds=None, say=said.append,
        )
    )  # fmt: skip


@pytest.mark.parametrize("plugged", [True, False])
async def test_a_wearable_whose_dongle_is_mute_does_not_say_that_it_advertises(
    monkeypatch: pytest.MonkeyPatch, plugged: bool
) -> None:
    monkeypatch.setattr(central, "OPEN_S", 0.5)
    said: list[str] = []
    async with flying(Air(FAST)) as hci:
        cable = Cable(int(hci.rsplit(":", 1)[1]))
        cable.hung, cable.plugged = True, plugged
        async with cable.laid() as spec, asyncio.timeout(PATIENCE_S):
            with pytest.raises(ConnectError, match=f"the Bluetooth controller at {spec} does not answer"):
                await wearing(spec, said)
    assert said == []


async def test_a_wearable_whose_dongle_is_pulled_out_ends() -> None:
    said: list[str] = []
    async with flying(Air(FAST)) as hci:
        cable = Cable(int(hci.rsplit(":", 1)[1]))
        async with cable.laid() as spec, asyncio.timeout(PATIENCE_S):
            running = wearing(spec, said)
            await until(lambda: said == [f"ble-01 advertises on {spec}"])
            cable.pull()
            with pytest.raises(ConnectError, match="the Bluetooth controller has gone"):
                await running


def to_record(out: Path, hci: str, **wanted: Any) -> RecordOptions:
    options: dict[str, Any] = {"device": None, "kinds": PROFILES, "rate_hz": 20.0, "seconds": None, **wanted}
    return RecordOptions(out, ("walk", "sit"), "anna", hci, **options)


@pytest.fixture
def nobody_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``0<&-`` in a shell."""
    monkeypatch.setattr(sys, "stdin", None)


@pytest.mark.usefixtures("nobody_types")
@pytest.mark.parametrize(
    ("board", "rate_hz", "refusal"),
    [
        (Thingy52Board, 400.0, "Nordic Thingy:52 offers up to 200 Hz"),
        (lambda: UartBoard(20.0), None, r"cannot be asked for a rate: say which one it has \(--rate\)"),
        (None, 20.0, "sends codes, not samples"),
    ],
)
async def test_a_wearable_that_cannot_be_recorded_is_refused_as_soon_as_it_is_heard(
    tmp_path: Path, wrist6: Bundle, board: Callable[[], Any] | None, rate_hz: float | None, refusal: str
) -> None:
    air = Air(FAST)
    one = new_wearable(air, wrist6) if board is None else BoardPeripheral(board(), air, address_of(1))
    wanted = {"device": address_of(1), "rate_hz": rate_hz}
    async with flying(air, one) as hci, asyncio.timeout(FIND_S / 2):
        with pytest.raises(ProfileError, match=refusal):
            await record(to_record(tmp_path / "anna_1.gwtrace", hci, **wanted), Console(quiet=True))


@pytest.mark.usefixtures("nobody_types")
async def test_samples_that_come_at_another_rate_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "MEASURED_S", 3.0)
    air = Air(FAST)
    board = BoardPeripheral(UartBoard(20.0), air, address_of(1))
    said = Console(file=io.StringIO(), width=300)
    async with flying(air, board) as hci:
        await record(to_record(tmp_path / "anna_1.gwtrace", hci, rate_hz=50.0, seconds=8.0), said)
    assert isinstance(said.file, io.StringIO)
    assert re.search(r"(19|20)(\.\d)? samples come per second, not 50: ", said.file.getvalue())


@pytest.mark.usefixtures("nobody_types")
async def test_a_recording_that_cannot_be_written_where_it_should_be_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    air = Air(FAST)
    board = BoardPeripheral(Thingy52Board(), air, address_of(1))
    async with flying(air, board) as hci:
        with pytest.raises(TraceError, match=r"cannot write to .*own: No such file"):  # at once
            await record(to_record(folder / "anna_1.gwtrace", hci), Console(quiet=True))
        folder.mkdir()
        recording = asyncio.create_task(
            record(to_record(folder / "anna_1.gwtrace", hci, seconds=5.0), Console(quiet=True))
        )
        await until(lambda: len(board.values) > 0)
        folder.rmdir()
        with pytest.raises(TraceError, match=r"cannot write .*the recording is in (\S+)$") as refused:
            await recording
    rescued = Path(str(refused.value).rpartition(" ")[2])
    assert load_trace(rescued).subject == "anna"
    shutil.rmtree(rescued.parent)


async def test_a_recording_is_saved_when_its_terminal_closes(start: Callable[..., Any], tmp_path: Path) -> None:
    air = Air(FAST)
    board = BoardPeripheral(Thingy52Board(), air, address_of(1))
    async with flying(air, board) as hci:
        record = await start("record", "--out", "anna_1.gwtrace", "--labels", "walk", "--rate", "20", "--hci", hci)
        await until(lambda: len(board.values) > 60)
        for _ in range(2):  # from the shell and from the kernel
            record.process.send_signal(signal.SIGHUP)
        assert await record.ends() == 0, record.err
    assert len(load_trace(tmp_path / "anna_1.gwtrace").counts) > 0
    await record.says(r"\d+ samples in anna_1.gwtrace")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ("wearable", 2, "give --air PORT"),
        ("wearable --hci usb:0 --count 2", 2, "one dongle is one wearable"),
        ("wearable --hci usb:0 --trace {trace} --trace {trace}", 2, "one dongle is one wearable, and these are 2"),
        ("wearable --hci tcp-client:127.0.0.1:{port}", 1, "no Bluetooth controller at tcp-client:127.0.0.1:{port}"),
        (
            "bridge --scan --hci tcp-client:127.0.0.1:{port}",
            1,
            "no Bluetooth controller at tcp-client:127.0.0.1:{port}",
        ),
        ("bridge --scan --hci nonsense", 1, "no Bluetooth controller at nonsense"),
        ("bridge --scan --profile shoe", 1, "no profile 'shoe'; known: polar-h10"),
        ("bridge --scan --profile-file none.toml", 1, "none.toml"),
        ("bridge --name left", 2, "ADDRESS=ID"),
        ("bridge --name C0:00:00:00:00:01=left/wrist", 2, "left/wrist"),
        ("bridge --name C0:00:00:00:00:01=left --name C0:00:00:00:00:02=left", 2, "an id of its own"),
        ("record --out a.gwtrace --labels walk,walk", 2, "different names"),
        ("record --out a.gwtrace --labels walk,wälk/fast", 2, "'wälk/fast' cannot be the name of an activity"),
        ("record --out a.csv --labels walk", 2, "--out ends in .gwtrace"),
    ],
)
def test_what_cannot_be_is_said(arguments: str, status: int, text: str, free_port: int, tmp_path: Path) -> None:
    filled = arguments.replace("{port}", str(free_port)).replace("none.toml", str(tmp_path / "none.toml"))
    filled = filled.replace("{trace}", str(tmp_path / "a.gwtrace"))
    trace(100).save(tmp_path / "a.gwtrace")
    result = CliRunner().invoke(app, filled.split())
    said = result.output if status == 2 else str(result.exception)
    assert (result.exit_code, text.replace("{port}", str(free_port)) in said) == (status, True), said
    assert status == 2 or isinstance(result.exception, GammawearError)
