"""Wearables of other makers, emulated on the virtual air: bleak, the bridge, a real broker, the gateway, an answer."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ble_boards import BoardPeripheral
from ble_stack import FAST, address_of, bridging, flying
from bleak import BleakClient
from emulated_boards import MicrobitBoard, NanoBoard, SensorTagBoard, Thingy52Board, UartBoard, WitMotionBoard
from emulated_movesense import EmulatedMovesense
from emulated_polar import EmulatedH10, EmulatedVeritySense
from stack import Listener, new_gateway, note, patient_devices, serving, until, wrist3, wrist6

from device_emulator.ble import gatt
from device_emulator.ble.adapter import open_adapter
from device_emulator.ble.air import Air
from device_emulator.ble.follower import Follower
from device_emulator.ble.live import Resampler
from device_emulator.ble.profiles import PROFILES, by_name
from device_emulator.ble.profiles.base import Profile, Seen
from device_emulator.ble.profiles.generic import load_profile
from device_emulator.ble.sampled import RecordedStream
from device_emulator.ble.streams import Stream
from device_emulator.device import shared_encoder
from models.bundle import Bundle
from models.datasets.base import Recording
from models.resample import resample
from protocol.packet import Packet
from protocol.topics import Kind, every, topic
from protocol.trace import load_trace
from quantization.errors import ProfileError
from quantization.imu import ACC_GYRO

__all__ = ["patient_devices", "wrist3", "wrist6"]

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "arduino-nano-33.toml"
NANO = load_profile(EXAMPLE)

SIX_AXES: dict[str, tuple[Callable[[], Any], Profile, float]] = {
    "Movesense-204730000081": (EmulatedMovesense, by_name("movesense"), 13.0),
    "Nano33": (NanoBoard, NANO, 50.0),
    "Polar-Sense-12345678": (EmulatedVeritySense, by_name("polar-verity-sense"), 52.0),
    "Puck-js": (lambda: UartBoard(12.5), by_name("nordic-uart"), 12.5),
    "Thingy": (Thingy52Board, by_name("thingy52"), 20.0),
    "WT901BLE67": (WitMotionBoard, by_name("witmotion"), 20.0),
}
"""Device id, board, profile, rate for a model of 12.5 Hz."""

LATE_S = 0.12
"""By so much a bridge that is a little busy may take a first sample for later than it was."""

THREE_AXES: dict[str, tuple[Callable[[], Any], Profile, float]] = {
    "BBC-micro-bit-zuvot-": (MicrobitBoard, by_name("microbit"), 50.0),
    "Polar-H10-12345678": (EmulatedH10, by_name("polar-h10"), 25.0),
    "Puck-js": (lambda: UartBoard(20.0), by_name("nordic-uart-acc"), 20.0),
}
"""The same for a model of 20 Hz without a gyroscope."""


def offline(peripheral: BoardPeripheral, bundle: Bundle) -> tuple[np.ndarray, list[str]]:
    """What the network says of the very samples that a board measured, without a radio: resampled as for training.

    Returns:
        Seconds from the first sample at which windows begin, one for each sample of the bundle's rate; the likeliest.
    """
    rate_hz, n = peripheral.rate_hz, len(peripheral.values)
    recording = Recording(
        dataset="emulated", subject="1", name=peripheral.name, channels=bundle.sensor.channels, labels=("any",),
        t_s=np.arange(n) / rate_hz, values=peripheral.values.astype(np.float32), label=np.zeros(n, dtype=np.int16),
    )  # fmt: skip
    (segment,) = resample(recording, bundle.manifest.rate_hz)
    codes = shared_encoder(bundle.codebook, bundle.sensor).encode(bundle.sensor.to_counts(segment.values))
    windows = np.lib.stride_tricks.sliding_window_view(codes, bundle.manifest.window, axis=0).transpose(0, 2, 1)
    likeliest = bundle.predict(np.ascontiguousarray(windows)).probabilities.argmax(axis=1)
    return np.arange(len(windows)) / bundle.manifest.rate_hz, [bundle.labels[k] for k in likeliest]


def gaps_of(packets: list[Packet], period_ms: int = 80) -> list[tuple[int, int]]:
    """Breaks in the ticks: how long in ms, and the first tick after each."""
    found = []
    for before, after in itertools.pairwise(packets):
        gap_ms = after.tick_ms - before.tick_ms - period_ms * before.samples
        if abs(gap_ms) > 2:  # else it is rounded
            found.append((gap_ms, after.tick_ms))
    return found


def compare(peripheral: BoardPeripheral, listener: Listener, device: str, bundle: Bundle) -> tuple[int, int, int, int]:
    """Answers; those that are as offline; windows of one activity alone; answers to these that are right."""
    starts, said = offline(peripheral, bundle)
    span = round(bundle.manifest.window / bundle.manifest.rate_hz * peripheral.rate_hz)
    answers = [a for a in listener.activities(device) if a.from_tick / 1000 <= starts[-1]]
    same = pure = right = 0
    for answer in answers:
        near = np.abs(starts - answer.from_tick / 1000) <= LATE_S
        same += answer.likeliest in {said[k] for k in np.flatnonzero(near)}
        first = round(answer.from_tick / 1000 * peripheral.rate_hz)
        doing = set(peripheral.labels[first : first + span])
        if len(doing) == 1:
            pure += 1
            right += answer.likeliest in doing
    return len(answers), same, pure, right


async def recognise(
    broker: Any, bundle: Bundle, kinds: dict[str, tuple[Callable[[], Any], Profile, float]], answers: int, *, seed: int
) -> tuple[int, int, int, int]:
    """All of these at one bridge until each has so many answers; the sums of :func:`compare`."""
    air = Air(FAST)
    wearer = {"sp_sw_har": "tug", "wisdm2019_watch": "wisdm"}[bundle.manifest.data.dataset]
    boards = {
        device: BoardPeripheral(make(), air, address_of(number), wearer=wearer, seed=seed + number)
        for number, (device, (make, _, _)) in enumerate(kinds.items(), start=1)
    }
    gateway, listener = new_gateway(broker), Listener(broker, every(Kind.ACTIVITY))
    profiles = tuple(profile for _, profile, _ in kinds.values())
    async with serving(gateway), listener, flying(air, *boards.values()) as hci:
        async with bridging(
            broker, hci, codebook=bundle.codebook, profiles=profiles, names=(), no_data_s=10.0
        ) as bridge:
            await until(lambda: all(len(listener.activities(device)) >= answers for device in boards))
            for follower in bridge.followers.values():
                assert follower.stream is not None
                status = follower.stream.status("bridge")
                assert (follower.state, follower.error, follower.connections) == ("streaming", None, 1)
                assert (follower.refused.total(), follower.watchdog_kicks) == (0, 0)
                assert (status.codebook, status.source) == (bundle.codebook.digest.hex(), "device")
            for device, (_, _, rate_hz) in kinds.items():
                assert boards[device].rate_hz == rate_hz
        await until(lambda: not any(d.online for d in gateway.snapshot()))
        assert {d.device for d in gateway.snapshot()} == set(kinds)
        assert gateway.pipeline.losses.lost == 0
        assert gateway.summary().rejected == 0
    totals = np.zeros(4, dtype=int)
    for device, peripheral in boards.items():
        figures = compare(peripheral, listener, device, bundle)
        note(device, figures)
        totals += figures
        assert figures[1] >= 0.6 * figures[0], device
    return tuple(totals)


async def test_six_kinds_with_a_gyroscope_are_recognised(mosquitto: Any, wrist6: Bundle) -> None:
    answers, same, pure, right = await recognise(mosquitto.settings, wrist6, SIX_AXES, 12, seed=0)
    assert same >= 0.9 * answers
    assert right >= 0.75 * pure


async def test_three_kinds_without_are_recognised(mosquitto: Any, wrist3: Bundle) -> None:
    answers, same, pure, right = await recognise(mosquitto.settings, wrist3, THREE_AXES, 2, seed=9)
    assert same >= 0.8 * answers
    assert right >= 0.75 * pure


async def test_one_that_drops_out_comes_back_and_the_other_does_not_notice(mosquitto: Any, wrist6: Bundle) -> None:
    air, listener, broker = Air(FAST), Listener(mosquitto.settings, every(Kind.IMU)), mosquitto.settings
    gone, stays = "Movesense-204730000081", "Thingy"
    leaver, stayer = (
        BoardPeripheral(SIX_AXES[device][0](), air, address_of(number)) for number, device in ((1, gone), (2, stays))
    )

    def packets(device: str) -> list[Packet]:
        return [Packet.from_bytes(m.payload) for m in listener.heard if m.topic == topic(device, Kind.IMU)]

    async with (
        listener,
        flying(air, leaver, stayer) as hci,
        bridging(broker, hci, codebook=wrist6.codebook, no_data_s=10.0) as bridge,
    ):
        await until(lambda: len(packets(gone)) >= 2 and len(packets(stays)) >= 2)
        air.fade(leaver.address)
        await until(lambda: bridge.followers[leaver.address].state == "waiting")
        assert bridge.followers[leaver.address].error == "the link was lost"
        before = len(packets(gone))
        air.hear(leaver.address)
        await until(lambda: len(packets(gone)) >= before + 3)
        assert bridge.followers[leaver.address].state == "streaming"
        assert [bridge.followers[b.address].connections for b in (leaver, stayer)] == [2, 1]
    assert not leaver.board.streaming
    for device in (gone, stays):
        assert [p.sequence for p in packets(device)] == list(range(len(packets(device))))
    assert gaps_of(packets(stays)) == []
    ((_, again_ms),) = gaps_of(packets(gone))
    first_s, second_s = leaver.stretches
    assert again_ms / 1000 == pytest.approx(second_s - first_s, abs=0.5)


async def test_what_cannot_serve_is_refused_with_the_reason(
    mosquitto: Any, wrist6: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    air = Air(FAST)
    tag = BoardPeripheral(SensorTagBoard(), air, address_of(1))
    microbit = BoardPeripheral(MicrobitBoard(), air, address_of(2), wearer="wisdm")
    async with flying(air, tag, microbit) as hci:
        async with bridging(mosquitto.settings, hci) as bridge:
            await until(lambda: caplog.text.count("needs one to quantize with: choose a bundle") == 2)
            assert bridge.followers == {}
        async with bridging(mosquitto.settings, hci, codebook=wrist6.codebook) as bridge:
            await until(lambda: "TI SensorTag CC2650 offers up to 10 Hz; the model wants 12.5 Hz" in caplog.text)
            await until(lambda: "measures acc_x, acc_y, acc_z; the bundle wants acc_x" in caplog.text)
            assert bridge.followers == {}
    assert (tag.connections, microbit.connections) == (0, 0)


async def test_a_sensortag_is_recorded_at_its_ten_hertz(tmp_path: Path) -> None:
    air = Air(FAST)
    tag = BoardPeripheral(SensorTagBoard(), air, address_of(1))
    stream = RecordedStream("tag", profile=by_name("sensortag"), rate_hz=10.0, labels=("walk", "sit"), subject="anna")

    async def make(_: BleakClient) -> Stream:
        return stream

    async with flying(air, tag) as hci, open_adapter(hci) as adapter:
        follower = Follower(tag.address, make, lambda _: None)
        async with adapter.scanner(lambda device, heard: follower.heard(device, heard.rssi)):
            following = asyncio.create_task(follower.run(adapter))
            stream.set_label("walk")
            await until(lambda: stream.samples >= 30)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    assert not tag.board.streaming
    stream.save(tmp_path / "anna_1.gwtrace")
    trace = load_trace(tmp_path / "anna_1.gwtrace")
    assert (trace.rate_hz, trace.subject, trace.sensor.channels) == (10.0, "anna", ACC_GYRO)
    assert trace.label.tolist() == [0] * len(trace.label)
    recorded = trace.sensor.to_physical(trace.counts)
    # Its samples lie between the tag's own, by as much as the first one was late.
    likeness = [np.corrcoef(recorded[:, k], tag.values[: len(recorded), k])[0, 1] for k in range(6)]
    note(likeness, trace.tick_ms[-1])
    assert min(likeness) > 0.9


@pytest.mark.parametrize("device", [*SIX_AXES, *THREE_AXES])
def test_a_minute_of_every_kind_is_one_stretch(device: str) -> None:
    """Nothing is lost, so no arrival may look like a gap: nor that of rows that wait for a second sensor's frame."""
    kinds, out_hz = (SIX_AXES, 12.5) if device in SIX_AXES else (THREE_AXES, 20.0)
    make, profile, rate_hz = kinds[device]
    board, session, rng = make(), profile.open(rate_hz=out_hz), np.random.default_rng(0)
    for write in session.start:
        for answer in board.on_write(write.characteristic, write.data):
            assert session.feed(*answer) == []
    one = Resampler(len(session.sensor.channels), rate_hz, out_hz)
    resampled, arrival_s = [], 0.0
    for n in range(int(60 * rate_hz)):
        for sent in board.encode(np.full((1, len(session.sensor.channels)), n / rate_hz / 60)):
            # At connection events of 15 ms, and later by what the host takes.
            arrival_s = max(arrival_s, 0.015 * math.ceil(n / rate_hz / 0.015) + rng.exponential(0.01))
            for samples in session.feed(*sent):
                resampled += one.push(samples.values, samples.end_ns, arrival_s)
    assert one.stretches == 1
    values = np.concatenate([block.values[:, 0] for block in resampled])
    seconds = np.arange(len(values)) / out_hz
    assert seconds[-1] > 56
    assert np.abs(60 * values - seconds).max() < 0.5


def test_names_of_profiles_are_found_and_others_refused() -> None:
    assert len({profile.name for profile in PROFILES}) == len(PROFILES)
    assert all(by_name(profile.name) is profile for profile in PROFILES)
    with pytest.raises(ProfileError, match=r"'fitbit'; known: polar-h10, .*, nordic-uart-acc"):
        by_name("fitbit")


@pytest.mark.parametrize("device", [*SIX_AXES, *THREE_AXES])
def test_a_board_is_known_by_its_own_profile_alone(device: str) -> None:
    make, profile, _ = {**THREE_AXES, **SIX_AXES}[device]
    name, services = make().advertised
    seen = Seen("C0:00:00:00:00:01", name, frozenset(services))
    known = [one.name for one in (NANO, *PROFILES) if one.knows(seen)]
    # Lines may have a gyroscope's numbers or not: nothing tells beforehand.
    assert known == (["nordic-uart", "nordic-uart-acc"] if device == "Puck-js" else [profile.name])


# -- docs/devices.md --------------------------------------------------------------------------------------------------

TEXT = (Path(__file__).parents[1] / "docs" / "devices.md").read_text(encoding="utf-8")


def test_the_page_shows_the_example_as_it_is() -> None:
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    file = EXAMPLE.read_text(encoding="utf-8")
    assert shown == file[file.index("name = ") :]


def test_the_page_lists_every_profile_with_its_rates() -> None:
    for profile in PROFILES:
        assert f"`{profile.name}`" in TEXT
        if profile.name.startswith("nordic-uart"):
            continue  # what its sketch does
        (row,) = [line for line in TEXT.splitlines() if f"| `{profile.name}` |" in line]
        assert ", ".join(f"{rate:g}" for rate in profile.rates_hz) in row
        assert ("gyro" in row) == (profile.channels == ACC_GYRO)


def test_the_page_has_our_profile_as_it_is() -> None:
    for uuid in (gatt.STREAM, gatt.SETTINGS, gatt.UPLOAD, gatt.TIME, gatt.STATE):
        assert f"| `{uuid[:8]}-…` " in TEXT
    assert f"`{gatt.SERVICE}`" in TEXT
    assert f"MTU of {gatt.MIN_MTU} " in TEXT
    for refusal in gatt.Refusal:
        assert f"| `{refusal:02x}` |" in TEXT
    for state in gatt.State:
        assert f"| {state:d} | " in TEXT
