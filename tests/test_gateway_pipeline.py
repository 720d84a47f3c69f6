from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np
import pytest
from factories import LABELS, codebook, tiny_bundle
from sklearn.metrics import f1_score
from test_gateway_support import START_NS, Rig, Wearer

from gateway.pipeline import Limits
from models.bundle import Bundle
from models.windows import majority_label
from protocol.messages import Config, Label, Status
from quantization.imu import ACC


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return tiny_bundle(folder)


@pytest.fixture(scope="module")
def wrist3(folder: Path) -> Bundle:
    return tiny_bundle(folder, "acc", book=codebook(ACC, rate_hz=20.0), labels=("WALK", "SIT"), window=40, stride=40)


@pytest.fixture
def rig(folder: Path, bundle: Bundle, wrist3: Bundle) -> Rig:
    made = Rig(folder)
    assert [one.reference for one in made.pipeline.bundles.serving] == [wrist3.reference, bundle.reference]
    return made


def windows_of(codes: list[np.ndarray], length: int = 50, stride: int = 25) -> list[np.ndarray]:
    stream = np.concatenate(codes)
    return [stream[at : at + length] for at in range(0, len(stream) - length + 1, stride)]


def test_from_packet_to_activity(rig: Rig, bundle: Bundle) -> None:
    rig.status("w1", source="synthetic", rate_hz=50.0, codebook=bundle.codebook.digest.hex())
    wearer = Wearer(bundle)
    wearer.send(rig, 10)
    expected = windows_of(wearer.codes)
    assert len(rig.windows) == len(expected) == len(rig.published) == 19
    for window, codes, (topic, activity) in zip(rig.windows, expected, rig.published, strict=True):
        assert np.array_equal(window.codes, codes)
        said = bundle.predict(codes[None])
        answer, likeliest, probability = bundle.answer(said.probabilities[0], float(said.evidence[0]))
        assert topic == "gammawear/v1/w1/activity"
        assert (activity.activity, activity.likeliest) == (answer, likeliest)
        assert activity.probability == pytest.approx(probability, abs=1e-5)
        assert (activity.model, activity.source) == ("tiny@1", "synthetic")
        assert activity.to_tick - activity.from_tick == 1000
        # Ticks began when the first packet's first sample was taken, START_NS; packets arrive when complete.
        assert activity.from_ms == pytest.approx(START_NS / 1e6 + activity.from_tick, abs=21)
        assert activity.latency_ms == 0
    assert rig.imu_outcomes == 10
    assert max(rig.pipeline.recent_age_s) < 1.1


@pytest.mark.parametrize(("sequence", "tick"), [(4090, 2**32 - 3000), (0, 0), (4095, 2**32 - 52)])
def test_wraps(rig: Rig, bundle: Bundle, sequence: int, tick: int) -> None:
    wearer = Wearer(bundle, sequence=sequence, tick=tick)
    wearer.send(rig, 20)
    assert len(rig.windows) == len(windows_of(wearer.codes))
    assert rig.pipeline.flushes == {}
    walls = [activity.from_ms for _, activity in rig.published]
    assert np.allclose(np.diff(walls), 500, atol=1)


def test_a_loss_flushes_and_nothing_spans_it(rig: Rig, bundle: Bundle) -> None:
    wearer = Wearer(bundle)
    wearer.send(rig, 5)
    wearer.packet()
    wearer.send(rig, 5)
    rig.pass_ms(1000)
    expected = windows_of(wearer.codes[:5]) + windows_of(wearer.codes[6:])
    assert len(rig.windows) == len(expected)
    assert all(np.array_equal(w.codes, e) for w, e in zip(rig.windows, expected, strict=True))
    assert rig.pipeline.losses.lost == 1
    assert rig.pipeline.losses.samples_missing == 52
    assert rig.pipeline.flushes == {"gap": 1}


def test_a_codebook_switch_in_mid_stream(rig: Rig, bundle: Bundle, wrist3: Bundle) -> None:
    """The next packet has another digest, sequence and ticks go on: nothing is lost, no window mixes."""
    wearer = Wearer(bundle)
    rig.status("w1", rate_hz=50.0, codebook=bundle.codebook.digest.hex())
    wearer.send(rig, 5)
    after = Wearer(wrist3, samples=20, sequence=wearer.sequence, tick=wearer.tick)
    after.send(rig, 4)  # before the device has said so
    rig.status("w1", rate_hz=20.0, codebook=wrist3.codebook.digest.hex())
    after.send(rig, 4)
    assert rig.pipeline.losses.accepted == 13
    assert rig.pipeline.losses.lost == 0
    assert rig.pipeline.refusals.packets.total() == 0
    assert rig.pipeline.flushes == {"codebook": 1}
    assert [w.bundle.reference for w in rig.windows] == ["tiny@1"] * 9 + ["acc@1"] * 4


def test_two_bundles_at_once(rig: Rig, bundle: Bundle, wrist3: Bundle) -> None:
    six, three = Wearer(bundle, "six"), Wearer(wrist3, "three", samples=20)
    for _ in range(10):
        six.send(rig, 1)
        three.send(rig, 1)
    assert rig.pipeline.windows == {"tiny@1": 19, "acc@1": 5}
    assert {activity.model for topic, activity in rig.published if "three" in topic} == {"acc@1"}


def test_a_restart_begins_anew(rig: Rig, bundle: Bundle) -> None:
    wearer = Wearer(bundle, sequence=500, tick=500_000)
    wearer.send(rig, 10)
    again = Wearer(bundle, seed=1)
    rig.now_ns += 60 * 10**9
    again.send(rig, 10)
    assert rig.pipeline.losses.restarts == 1
    assert rig.pipeline.losses.lost == 0
    assert len(rig.windows) == 2 * len(windows_of(again.codes))
    last = rig.published[-1][1]
    assert last.to_ms == pytest.approx(rig.now_ns / 1e6, abs=1000)


@pytest.mark.parametrize("made", [1, 0])
def test_the_first_packet_of_a_restart_may_come_before_the_status_that_says_so(
    rig: Rig, bundle: Bundle, made: int
) -> None:
    rig.status("w1", packets=0)
    Wearer(bundle).send(rig, 300)
    again = Wearer(bundle, seed=5)
    again.send(rig, 1)
    rig.status("w1", packets=made)
    again.send(rig, 5)
    losses = rig.pipeline.losses
    assert (losses.accepted, losses.unplaced, losses.lost) == (305 + made, 1 - made, 0)


def test_a_replay_that_starts_over_says_so(rig: Rig, bundle: Bundle) -> None:
    """Same bytes again: without the status they would be duplicates; a retained status is not believed."""
    for retain, expected in ((False, 2), (True, 1)):
        name = f"w{expected}"
        for life in range(2):
            wearer = Wearer(bundle, name)
            if life:
                rig.status(name, packets=0, retain=retain)
            wearer.send(rig, 10)
        assert rig.pipeline.devices.get(name).reassembler.losses.accepted == 10 * expected


def test_a_reconnect_is_no_restart(rig: Rig, bundle: Bundle) -> None:
    wearer = Wearer(bundle)
    wearer.send(rig, 10)
    rig.status("w1", packets=10)
    wearer.send(rig, 10)
    assert rig.pipeline.flushes == {}
    assert len(rig.windows) == len(windows_of(wearer.codes))


def test_unknown_codebook_and_wrong_rate(rig: Rig, bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    stranger = tiny_bundle(rig.folder.parent / "elsewhere", book=codebook(curved=False))
    with caplog.at_level(logging.WARNING):
        Wearer(stranger, "s").send(rig, 5)
    assert rig.pipeline.refusals.packets == {"unknown_codebook": 5}
    assert len(caplog.records) == 1
    rig.status("w1", rate_hz=60.0, codebook=bundle.codebook.digest.hex())
    Wearer(bundle).send(rig, 3)
    assert rig.pipeline.refusals.packets["rate"] == 3
    rig.status("w2", rate_hz=51.0, codebook=bundle.codebook.digest.hex())
    Wearer(bundle, "w2", rate_hz=51.0).send(rig, 30)
    assert rig.pipeline.losses.accepted == 30
    assert rig.pipeline.flushes == {}


def test_a_digest_that_only_begins_like_ours(rig: Rig, bundle: Bundle) -> None:
    rig.status("w1", codebook=bundle.codebook.short_digest.hex() + "00" * 28)
    Wearer(bundle).send(rig, 1)
    assert rig.pipeline.refusals.packets == {"unknown_codebook": 1}


@pytest.mark.parametrize("late_ms", [0, 5_000])
def test_the_live_score_is_the_offline_score_of_the_same_windows(rig: Rig, bundle: Bundle, late_ms: int) -> None:
    rng = np.random.default_rng(3)
    label = np.repeat(rng.integers(0, 5, 200), rng.integers(10, 90, 200)).astype(np.int16)[: 52 * 60]
    wearer = Wearer(bundle, tick=7777)
    edges = [0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)]
    bouts = list(itertools.pairwise(edges))
    for k in range(60):
        wearer.send(rig, 1)
        while bouts and bouts[0][1] * 20 + late_ms <= (k + 1) * 52 * 20:
            i, j = bouts.pop(0)
            rig.label("w1", LABELS[label[i]], 7777 + i * 20, 7777 + j * 20)
        rig.pipeline.sweep()
    for i, j in bouts:
        rig.label("w1", LABELS[label[i]], 7777 + i * 20, 7777 + j * 20)
    truth, pure = majority_label(np.stack(windows_of([label])), 5)
    likeliest = bundle.predict(np.stack(windows_of(wearer.codes))).probabilities.argmax(axis=1)
    rig.pass_ms(20_000)
    (score,) = rig.pipeline.scores
    assert score.windows == len(truth)
    assert score.macro_f1 == pytest.approx(f1_score(truth, likeliest, average="macro"), abs=1e-9)
    assert score.accuracy == pytest.approx((truth == likeliest).mean(), abs=1e-9)
    assert score.macro_f1_pure == pytest.approx(f1_score(truth[pure], likeliest[pure], average="macro"), abs=1e-9)


def test_labels_too_late_are_not_scored(rig: Rig, bundle: Bundle) -> None:
    Wearer(bundle).send(rig, 2)
    rig.pass_ms(10_001)
    rig.label("w1", "WALKING", 0, 2080)
    rig.pass_ms(10_001)
    assert rig.pipeline.scores == ()


def test_devices_are_bounded_and_packets_come_before_mere_statuses(folder: Path, bundle: Bundle) -> None:
    rig = Rig(folder, limits=Limits(max_devices=5))
    for i in range(100):
        rig.status(f"nobody{i}")
    assert len(rig.pipeline.devices) == 5
    assert rig.pipeline.refusals.messages == {"device_limit": 95}
    for i in range(6):
        Wearer(bundle, f"w{i}").send(rig, 1)
    assert sorted(device.id for device in rig.pipeline.devices) == [f"w{i}" for i in range(5)]
    assert rig.pipeline.refusals.packets == {"device_limit": 1}
    rig.pass_ms(901_000)
    assert len(rig.pipeline.devices) == 0
    Wearer(bundle, "w6").send(rig, 1)
    assert rig.pipeline.losses.accepted == 6


def test_a_million_ids_take_no_memory(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no packet leave no state; what is logged is bounded (here by a thousandth of the ids)."""
    with caplog.at_level(logging.ERROR):
        for i in range(12_000):
            rig.feed(f"id{i}", b"nothing that decodes")
    assert len(rig.pipeline.devices) == 0
    assert rig.pipeline.refusals.packets == {"checksum": 12_000}
    assert len(rig.pipeline.refusals._said) == 10_000


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("gammawear/v1/w1/imu", b""),
        ("gammawear/v1/w1/imu", b"\0" * 100_000),
        ("gammawear/v1/gateway/imu", b"\0" * 20),
        ("gammawear/v1/w1/status", b"\xff\xfe"),
        ("gammawear/v1/w1/status", b"[" * 100_000),
        ("gammawear/v1/w1/status", b"9" * 100_000),
        ("gammawear/v1/w1/status", b" " * 10_000_000),
        ("gammawear/v1/w1/label", b'{"activity":"A","from_tick":1e400,"to_tick":5}'),
        ("gammawear/v1/w1/label", Label(activity="A", from_tick=0, to_tick=2**32 - 1).to_json()),
        ("gammawear/v1/w1/label", Label(activity="A", from_ms=0, to_ms=2**53 - 1).to_json()),
        ("gammawear/v1/w1/nonsense", b""),
        ("gammawear/v1/" + "x" * 60_000 + "/imu", b""),
        ("gammawear/v1//imu", b""),
        ("gammawear/v1/w/1/imu", b""),
        ("gammawear/v1/w\u2028/imu", b""),
        ("", b""),
    ],
)
def test_hostile_messages_are_counted(rig: Rig, topic: str, payload: bytes) -> None:
    rig.pipeline.feed(topic, payload, rig.now_ns)
    assert rig.pipeline.refusals.packets.total() + rig.pipeline.refusals.messages.total() == 1
    assert rig.pipeline.messages.total() == 1


def test_retained_packets_and_labels_are_of_another_time(rig: Rig, bundle: Bundle) -> None:
    rig.feed("w1", Wearer(bundle).packet(), retain=True)
    rig.feed("w1", Label(activity="A", from_tick=0, to_tick=9).to_json(), kind="label", retain=True)
    assert rig.pipeline.refusals.packets == {"retained": 1}
    assert rig.pipeline.refusals.messages == {"retained": 1}


def test_clearing_a_retained_status_says_nothing(rig: Rig) -> None:
    rig.status("w1")
    rig.feed("w1", b"", kind="status")
    (device,) = rig.pipeline.devices
    assert rig.pipeline.state_of(device) == "online"
    assert rig.pipeline.refusals.messages.total() == 0


def test_other_gateways_and_our_own_status_are_ignored(rig: Rig) -> None:
    rig.status("gateway")
    rig.feed("w1", Config().to_json(), kind="config")
    rig.feed("w1", b"{}", kind="activity")
    assert len(rig.pipeline.devices) == 0
    assert rig.pipeline.refusals.messages.total() == 0


def mutate(rng: np.random.Generator, packet: bytes) -> bytes:
    data = bytearray(packet)
    kind = rng.integers(0, 6)
    if kind == 0:
        for at in rng.integers(0, 8 * len(data), rng.integers(1, 6)):
            data[at // 8] ^= 1 << (at % 8)
    elif kind == 1:
        del data[rng.integers(0, len(data)) :]
    elif kind == 2:
        data += rng.bytes(int(rng.integers(1, 300)))
    elif kind == 3:
        data = bytearray(rng.bytes(int(rng.integers(0, 400))))
    elif kind == 4:  # sound but for what it says: another tick, sequence, length of payload
        at = int(rng.integers(0, 11))
        data[at] = int(rng.integers(0, 256))
        data[11] = _crc8(bytes(data[:11] + data[12:]))
    return bytes(data)


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (7 if crc & 0x80 else 0)) & 0xFF
    return crc


def test_fuzz(folder: Path, bundle: Bundle, wrist3: Bundle) -> None:
    """10,000 mutated packets and messages from hostile devices, a good device in between."""
    rng = np.random.default_rng(11)
    rig = Rig(folder, answer=False)
    good = Wearer(bundle, "good", seed=5)
    hostile = [Wearer(bundle, "h1", seed=1), Wearer(wrist3, "h2", seed=2), Wearer(bundle, "h3", samples=77, seed=3)]
    messages = [
        Status(state="online", rate_hz=50.0, packets=3).to_json(),
        Status(state="offline").to_json(),
        Label(activity="WALKING", from_tick=0, to_tick=10_000).to_json(),
        Label(activity="SEATED", from_ms=START_NS // 10**6, to_ms=START_NS // 10**6 + 9000).to_json(),
    ]
    packets = 0
    for i in range(10_000):
        if i % 100 == 0:
            good.send(rig, 1)
            rig.label("good", "WALKING", i // 100 * 1040, (i // 100 + 1) * 1040)
            packets += 1
        wearer = hostile[rng.integers(0, 3)]
        if rng.random() < 0.7:
            rig.feed(wearer.name, mutate(rng, wearer.packet()), retain=bool(rng.random() < 0.05))
            packets += 1
        else:
            kind = ("status", "label", "imu", "activity", "nonsense")[rng.integers(0, 5)]
            packets += kind == "imu"
            rig.feed(wearer.name, mutate(rng, messages[rng.integers(0, 4)]), kind=kind)
        if i % 50 == 0:
            rig.pipeline.sweep()
    p = rig.pipeline
    assert p.messages["imu"] == packets == rig.imu_outcomes
    mine = [window for window in rig.windows if window.device == "good"]
    expected = windows_of(good.codes)
    assert len(mine) == len(expected)
    assert all(np.array_equal(w.codes, e) for w, e in zip(mine, expected, strict=True))
    for device in p.devices:
        assert len(device.buffer) < 50
        assert device.reassembler.held <= 9
    assert {"length", "checksum", "payload", "unknown_codebook", "retained"} <= set(p.refusals.packets)
