"""Devices behind a bridge: whether they are online, and when their packets came."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import tiny_bundle
from test_gateway_support import Rig, Wearer

from gateway.pipeline import WAITED_NS, Limits
from models.bundle import Bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path)


def states(rig: Rig) -> dict[str, str]:
    return {device.id: rig.pipeline.state_of(device) for device in rig.pipeline.devices}


def test_a_dead_bridge_leaves_no_device_online(tmp_path: Path, bundle: Bundle) -> None:
    rig = Rig(tmp_path)
    rig.status("w1", bridge="shelf")
    rig.status("w2", bridge="hall")
    rig.status("w3")
    Wearer(bundle, "w4").send(rig, 1)
    assert states(rig) == {"w1": "online", "w2": "online", "w3": "online", "w4": "unannounced"}  # bridges unknown yet
    rig.status("shelf", bridge="shelf")
    assert states(rig)["w1"] == "online"
    rig.status("shelf", bridge="shelf", state="offline")
    assert states(rig) == {"w1": "offline", "w2": "online", "w3": "online", "w4": "unannounced"}
    rig.status("shelf", bridge="shelf")
    rig.status("w1", bridge="shelf", state="offline")
    assert states(rig)["w1"] == "offline"
    assert set(rig.pipeline.bridges) == {"shelf"}
    assert "shelf" not in states(rig), "a bridge is no wearable"


@pytest.mark.usefixtures("bundle")
def test_bridges_are_bounded(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Limits(max_devices=3))
    for n in range(5):
        rig.status(f"b{n}", bridge=f"b{n}")
    rig.status("b1", bridge="b1", state="offline")
    assert {name: status.state for name, status in rig.pipeline.bridges.items()} == {
        "b0": "online", "b1": "offline", "b2": "online",
    }  # fmt: skip
    assert rig.pipeline.refusals.messages["device_limit"] == 2


@pytest.mark.usefixtures("bundle")
def test_an_offline_bridge_makes_room_and_a_cleared_one_is_gone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Limits(max_devices=2))
    rig.status("b0", bridge="b0")
    rig.status("b1", bridge="b1", state="offline")
    rig.status("b2", bridge="b2")
    assert set(rig.pipeline.bridges) == {"b0", "b2"}
    rig.feed("b2", b"", kind="status")
    assert set(rig.pipeline.bridges) == {"b0"}
    assert not list(rig.pipeline.devices)


def test_a_bare_will_takes_back_nothing_else(tmp_path: Path, bundle: Bundle) -> None:
    rig = Rig(tmp_path)
    rig.status("shelf", bridge="shelf")
    rig.feed("shelf", b'{"state":"offline"}', kind="status")
    assert {name: one.state for name, one in rig.pipeline.bridges.items()} == {"shelf": "offline"}
    rate = 1.2 * bundle.manifest.rate_hz
    rig.status("w1", source="synthetic", codebook=bundle.codebook.digest.hex(), rate_hz=rate)
    rig.feed("w1", b'{"state":"offline"}', kind="status")
    assert states(rig) == {"w1": "offline"}
    Wearer(bundle).send(rig, 3)
    assert rig.pipeline.refusals.packets == {"rate": 3}, "what was kept while it was offline is of its rate"
    rig.status("w1", source="synthetic")
    Wearer(bundle).send(rig, 3)
    rig.feed("w1", b'{"state":"offline"}', kind="status")
    Wearer(bundle).send(rig, 3)
    assert {answer.source for _, answer in rig.published} == {"synthetic"}


@pytest.mark.parametrize(
    ("held_s", "late_ms"),
    [(30.0, 0.0), (None, 30_000.0), (WAITED_NS / 1e9 + 30.1, 30_000.0), (-5.0, 30_000.0)],
    ids=["said", "not said", "not believed", "a clock ahead of ours"],
)
def test_a_packet_that_waited_tells_the_clock_when_it_came(
    tmp_path: Path, bundle: Bundle, held_s: float | None, late_ms: float
) -> None:
    rig = Rig(tmp_path)
    wearer = Wearer(bundle)
    packets = [wearer.packet() for _ in range(3)]
    made_ns = rig.now_ns
    rig.now_ns += 30 * 10**9  # the broker was away
    for packet in packets:
        rig.feed("w1", packet, taken_ns=None if held_s is None else rig.now_ns - int(held_s * 1e9))
    device = rig.pipeline.devices.get("w1")
    assert device is not None
    last_tick = wearer.tick - wearer.period_ms  # of the last packet, at which the envelope lies
    assert device.clock.to_wall_ms(last_tick) - made_ns / 1e6 == pytest.approx(late_ms, abs=1)
