"""What may be done at the page, by whom: labels, raw samples, and everything that is refused."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal

import numpy as np
import pytest
from live_client import post, request, viewing
from stack import Listener, fetch_metrics, new_gateway, patient_devices, serving, streaming, synthetic, until, wrist6

from gateway.live import guard
from gateway.live.guard import MAX_BODY_BYTES
from gateway.live.labelling import LONGEST_MS, MAX_OPEN, OVERLAP_MS, Labelling
from protocol.messages import Debug, Label, RawTrace, Status
from protocol.topics import Kind, every, topic

__all__ = ["patient_devices", "wrist6"]

TOKEN = "0123456789abcdef0123"  # noqa: S105 - of a test


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


async def test_a_label_from_the_page_takes_the_way_of_all_labels(mosquitto, wrist6, token_file):
    """Nobody else labels; what is typed is published, comes back over the broker, and windows are scored by it."""
    gateway = new_gateway(mosquitto.settings, page_port=0, page_token_file=token_file)
    async with (
        serving(gateway),
        Listener(mosquitto.settings, every(Kind.LABEL)) as listener,
        streaming(synthetic(wrist6, mosquitto.settings, 2, labels=False, speed=1.0)),
        viewing(gateway.page_port) as viewer,
    ):
        await viewer.until(lambda: len(viewer.rows) == 2 and viewer.rows["wearable-01"]["activity"])
        assert viewer.state["read_only"] is False
        assert viewer.state["summary"]["macro_f1"] is None, "without labels there is no score"
        assert [model["accuracy"] for model in viewer.state["models"].values()] == [None] * len(viewer.state["models"])
        path = "/api/devices/wearable-01/label"
        answer = await post(gateway.page_port, path, {"activity": "WALKING"}, TOKEN)
        assert (answer.status, answer.body) == (204, b"")
        await viewer.until(lambda: viewer.rows["wearable-01"]["label"] == "WALKING")
        await viewer.until(lambda: viewer.rows["wearable-01"]["truth"] == "WALKING")
        await viewer.until(lambda: viewer.state["summary"]["scored"] >= 3)
        assert (await post(gateway.page_port, path, {"activity": None}, TOKEN)).status == 204
        await viewer.until(lambda: viewer.rows["wearable-01"]["label"] is None)
        said = [Label.parse(one.payload) for one in listener.heard]
        assert {one.topic for one in listener.heard} == {topic("wearable-01", Kind.LABEL)}
        assert not any(one.retain for one in listener.heard)
        assert {one.activity for one in said} == {"WALKING"}
        for before, after in itertools.pairwise(said):
            assert before.from_ms <= after.from_ms <= before.to_ms < after.to_ms, "no gap between them"
        assert not viewer.rows["wearable-02"]["labelled"]
        assert gateway.pipeline.refusals.messages.total() == 0
        count = len(listener.heard)
        await until(lambda: gateway.summary().scored > 0 and viewer.counts["update"] > 30)
        assert len(listener.heard) == count, "it has ended"


def test_a_label_is_said_every_second_without_gaps_and_ends_by_itself():
    said: list[tuple[str, Label]] = []
    labelling = Labelling(lambda name, payload: said.append((name, Label.parse(payload))))
    labelling.begin("w1", "walking", 1000)
    labelling.begin("w1", "walking", 1500)
    for now_ms in range(1000, 6200, 200):
        labelling.tick(now_ms)
    labelling.begin("w1", "jogging", 6100)
    assert labelling.activity_of("w1") == "jogging"
    labelling.begin("w2", "walking", 6100)
    labelling.end("w1", 6300)
    labelling.end("w1", 6400)
    assert labelling.activity_of("w1") is None
    assert [(one.activity, one.from_ms, one.to_ms) for name, one in said if name == topic("w1", Kind.LABEL)] == [
        ("walking", 1000, 2000),
        ("walking", 1000, 3000),
        ("walking", 1000, 4000),
        ("walking", 2000, 5000),
        ("walking", 3000, 6000),
        ("walking", 4000, 6100),
        ("jogging", 6100, 6300),
    ]
    for now_ms in range(6500, 6100 + 2 * LONGEST_MS, 1000):
        labelling.tick(now_ms)
    assert labelling.activity_of("w2") is None
    assert LONGEST_MS <= said[-1][1].to_ms - 6100 <= LONGEST_MS + 1000


@pytest.mark.parametrize("jump_ms", [3 * 3_600_000, -3 * 3_600_000])
def test_a_clock_that_is_set_labels_no_hours(jump_ms):
    said: list[Label] = []
    labelling = Labelling(lambda _, payload: said.append(Label.parse(payload)))
    start = 10**12
    labelling.begin("w1", "walking", start)
    for now_ms in range(start, start + 3000, 200):
        labelling.tick(now_ms)
    after = start + 3000 + jump_ms
    for now_ms in range(after, after + 3000, 200):
        labelling.tick(now_ms)
    labelling.end("w1", after + 3000)
    assert all(one.to_ms - one.from_ms <= 2 * OVERLAP_MS for one in said)
    assert {one.to_ms for one in said} >= {start + 2000, after + 2000, after + 3000}, "it goes on by the new time"
    assert all(start <= one.from_ms < start + 5000 or after <= one.from_ms < after + 3000 for one in said)


def test_a_bounded_number_of_labels_is_open():
    labelling = Labelling(lambda *_: None)
    for n in range(MAX_OPEN):
        labelling.begin(f"w{n}", "walking", 1)
    with pytest.raises(Exception, match="64 labels are open already"):
        labelling.begin("one-more", "walking", 1)
    labelling.begin("w0", "jogging", 2)
    assert labelling.activity_of("w0") == "jogging"


async def test_raw_samples_of_an_emulated_device(mosquitto, wrist6, token_file):
    """They lie on what was sent within half a step of the learned curve, end by themselves, and count nowhere else."""
    gateway = new_gateway(mosquitto.settings, page_port=0, metrics_port=0, page_token_file=token_file)
    async with (
        serving(gateway),
        Listener(mosquitto.settings, every(Kind.RAW), every(Kind.DEBUG)) as listener,
        streaming(synthetic(wrist6, mosquitto.settings, 2, speed=4.0)) as fleet,
        viewing(gateway.page_port, "wearable-02") as viewer,
    ):
        await viewer.until(lambda: viewer.signal)
        assert viewer.signal[0]["raw"] is None
        assert not listener.heard
        answer = await post(gateway.page_port, "/api/devices/wearable-02/raw", {"seconds": 2}, TOKEN)
        assert answer.status == 204
        await viewer.until(
            lambda: any(one["raw"] and any(row[0] is not None for row in one["raw"]["new"]) for one in viewer.signal)
        )
        await until(lambda: len(listener.heard) >= 6)
        published = fleet.publishers[1].packets_published
        await until(lambda: fleet.publishers[1].packets_published > published + 12)
        count = len(listener.heard)
        await until(lambda: fleet.publishers[1].packets_published > published + 20)
        assert len(listener.heard) == count, "it ended by itself"
        totals = gateway.pipeline.meter.totals
        before = totals.packet_bytes
        metrics = await fetch_metrics(gateway)
        assert before <= metrics["gammawear_received_packet_bytes_total"] <= totals.packet_bytes
    kinds = [(one.topic, one.retain) for one in listener.heard]
    assert kinds[0] == (topic("wearable-02", Kind.DEBUG), False)
    assert set(kinds[1:]) == {(topic("wearable-02", Kind.RAW), False)}
    assert Debug.parse(listener.heard[0].payload).raw_s == 2
    raw_bytes = sum(len(one.payload) for one in listener.heard[1:])
    assert metrics["gammawear_received_raw_trace_bytes_total"] == raw_bytes
    assert metrics['gammawear_received_messages_total{kind="raw"}'] == len(listener.heard) - 1
    assert totals.packets == gateway.pipeline.messages["imu"] == gateway.summary().packets

    curve = viewer.signal[0]["curve"]
    pairs = [
        (level, raw)
        for one in viewer.signal
        if one["raw"] is not None
        for level, raw in zip(one["new"], one["raw"]["new"], strict=True)
        if raw[0] is not None and level[0] is not None
    ]
    assert len(pairs) > 50
    sent = {RawTrace.parse(one.payload).tick: RawTrace.parse(one.payload) for one in listener.heard[1:]}
    values = np.concatenate([trace.to_physical() for trace in sent.values()])
    assert len(np.unique(values[:, 0])) > 16, "more than four bits"
    for level, raw in pairs:
        for number, channel in enumerate(viewer.signal[0]["channels"]):
            code = int((raw[number] >= np.array(curve[channel]["thresholds"])).sum())
            nearby = curve[channel]["levels"][max(0, code - 1) : code + 2]
            assert level[number] == pytest.approx(
                min(nearby, key=lambda one, at=level[number]: abs(one - at)), abs=1e-3
            )


async def test_only_who_has_the_token_and_only_from_the_page_itself(mosquitto, wrist6, token_file, monkeypatch):
    monkeypatch.setattr(guard, "BODY_S", 0.2)
    gateway = new_gateway(mosquitto.settings, page_port=0, page_token_file=token_file)
    async with (
        serving(gateway),
        Listener(mosquitto.settings, every(Kind.LABEL), every(Kind.DEBUG)) as listener,
        streaming(synthetic(wrist6, mosquitto.settings, 1, labels=False)),
    ):
        port = gateway.page_port
        await until(lambda: gateway.summary().answers)
        label, raw = "/api/devices/wearable-01/label", "/api/devices/wearable-01/raw"
        walking = {"activity": "WALKING"}

        async def status(path: str, sent: object, token: str | None = TOKEN, **headers: str) -> int:
            answer = await post(port, path, sent, token, **headers)
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.status == 204 or answer.json["error"]
            return answer.status

        for token in (None, "", "wrong", TOKEN[:-1], TOKEN + "0", "é", TOKEN.upper()):
            assert await status(label, walking, token) == 401, token
            assert await status(raw, {"seconds": 1}, token) == 401, token
        assert await status(label, walking, None, Authorization=f"Basic {TOKEN}") == 401
        for origin in (
            "http://evil.example",
            "null",
            f"http://127.0.0.1:{port + 1}",
            f"http://127.0.0.1:{port}.evil.example",
        ):
            assert await status(label, walking, Origin=origin) == 403, origin
        assert await status(label, walking, Host="evil.example") == 403
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            assert await status(label, walking, Content_Type=kind) == 415, kind
        for body in (
            b"{",
            b"[" * 4000,
            b"\xff",
            b"[]",
            b"1",
            b"null",
            b"NaN",
            b"{}",
            b'{"activity":1}',
            b'{"activity":["x"]}',
        ):
            assert await status(label, body) == 400, body
        for wanted in ({}, {"activity": "FLYING"}, {"activity": "unknown"}, {"activity": ""}, walking | {"more": 1}):
            assert await status(label, wanted) == 400, wanted
        for seconds in (0, 61, -1, 1.5, "30", None, True, 10**30):
            assert await status(raw, {"seconds": seconds}) == 400, seconds
        assert await status("/api/devices/nobody/label", walking) == 404
        assert await status("/api/devices/a%20b/label", walking) == 400
        assert await status("/api/devices/a%2Fb/label", walking) == 404
        huge = json.dumps({"activity": "x" * MAX_BODY_BYTES}).encode()
        assert await status(label, huge) == 413
        assert await status(label, b"{", Content_Length="99999999999") == 413
        assert await status(label, b"{", Content_Length="1000") == 408, "the rest never comes"
        assert not listener.heard, "nothing of all this did anything"
        assert await status(label, walking, Origin=f"http://127.0.0.1:{port}") == 204
        await until(lambda: listener.heard)
        for path in (label, raw):
            assert (await request(port, path, headers={"Authorization": f"Bearer {TOKEN}"})).status == 405


async def test_without_a_token_the_page_is_read_only(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with (
        serving(gateway),
        Listener(mosquitto.settings, every(Kind.LABEL), every(Kind.DEBUG)) as listener,
        streaming(synthetic(wrist6, mosquitto.settings, 1, labels=False)),
    ):
        await until(lambda: gateway.summary().answers)
        for token in (None, "", "None", "null"):
            for what, wanted in (("label", {"activity": "WALKING"}), ("raw", {"seconds": 1})):
                answer = await post(gateway.page_port, f"/api/devices/wearable-01/{what}", wanted, token)
                assert (answer.status, "--page-token-file" in answer.json["error"]) == (403, True)
        assert not listener.heard


async def test_without_a_broker_a_label_does_not_begin_but_ends(mosquitto, wrist6, token_file):
    gateway = new_gateway(mosquitto.settings, page_port=0, page_token_file=token_file)
    async with (
        serving(gateway),
        Listener(mosquitto.settings, every(Kind.LABEL)) as listener,
        streaming(synthetic(wrist6, mosquitto.settings, 1, labels=False)),
        viewing(gateway.page_port) as viewer,
    ):
        await until(lambda: gateway.summary().answers)
        path = "/api/devices/wearable-01/label"
        assert (await post(gateway.page_port, path, {"activity": "WALKING"}, TOKEN)).status == 204
        await until(lambda: listener.heard)
        await mosquitto.stop(signal.SIGKILL)
        await until(lambda: not gateway.connected)
        answer = await post(gateway.page_port, path, {"activity": "JOGGING"}, TOKEN)
        assert (answer.status, answer.json["error"]) == (409, "there is no connection to the broker")
        assert (await post(gateway.page_port, path, {"activity": None}, TOKEN)).status == 204
        await viewer.until(lambda: viewer.rows["wearable-01"]["label"] is None)
        await mosquitto.start()
        await until(lambda: gateway.connected)


async def test_real_devices_and_absent_ones_are_not_asked_for_raw_samples(mosquitto, token_file):
    gateway = new_gateway(mosquitto.settings, page_port=0, page_token_file=token_file)
    async with serving(gateway), Listener(mosquitto.settings, every(Kind.DEBUG)) as listener:
        for name, status in (
            ("real", Status(state="online", source="device")),
            ("silent", Status(state="online")),
            ("gone", Status(state="offline", source="synthetic")),
        ):
            listener.connection.publish(topic(name, Kind.STATUS), status.to_json(), 1)
        await until(lambda: len(gateway.pipeline.devices) == 3)
        for name in ("real", "silent", "gone"):
            answer = await post(gateway.page_port, f"/api/devices/{name}/raw", {"seconds": 1}, TOKEN)
            assert answer.status == 409, name
        assert not listener.heard


async def test_hostile_raw_samples(mosquitto, wrist6, token_file):
    """A device that sends what nobody asked for, or what is none, is counted; the page goes on."""
    gateway = new_gateway(mosquitto.settings, page_port=0, page_token_file=token_file)
    async with (
        serving(gateway),
        Listener(mosquitto.settings, "none") as client,
        streaming(synthetic(wrist6, mosquitto.settings, 1, speed=4.0)),
        viewing(gateway.page_port, "wearable-01") as viewer,
    ):
        await viewer.until(lambda: viewer.signal)
        name = topic("wearable-01", Kind.RAW)
        trace = RawTrace(tick=0, lsb=[1.0], offset=[0], counts=[[1]]).to_json()
        for payload in (b"{", b"", trace, b"[" * 100_000):
            client.connection.publish(name, payload, 1)
        await until(lambda: gateway.pipeline.messages["raw"] == 4)
        assert gateway.pipeline.refusals.messages.total() == 0, "nobody asked: not even read"
        await post(gateway.page_port, "/api/devices/wearable-01/raw", {"seconds": 1}, TOKEN)
        for n in range(50):
            client.connection.publish(name, RawTrace(tick=n, lsb=[1.0], offset=[0], counts=[[1]]).to_json(), 1)
        client.connection.publish(name, b"{", 1)
        client.connection.publish(name, trace, 1, retain=True)
        await until(lambda: gateway.pipeline.refusals.messages["json"] == 1)
        seen = len(viewer.signal)
        await viewer.until(lambda: len(viewer.signal) > seen + 3)
        assert viewer.rows["wearable-01"]["online"]


async def test_a_viewer_that_comes_and_goes_leaves_no_watcher(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway), streaming(synthetic(wrist6, mosquitto.settings, 2, speed=4.0)):
        async with viewing(gateway.page_port, "wearable-01") as one, viewing(gateway.page_port, "wearable-01") as two:
            await one.until(lambda: one.signal)
            await two.until(lambda: two.signal)
            assert "curve" in one.signal[0]
            assert "curve" in two.signal[0]
            assert list(gateway.pipeline.watchers) == ["wearable-01"]
            await one.until(lambda: len(one.signal) > 5)
            assert all("curve" not in event for event in one.signal[1:])
            async with viewing(gateway.page_port, "not-there-yet") as third:
                await third.until(lambda: third.counts.get("update", 0) > 5)
                assert not third.signal
                assert len(gateway.pipeline.watchers) == 2
        await until(lambda: not gateway.pipeline.watchers)
        assert gateway.page is not None
        await until(lambda: len(gateway.page.viewers) == 0)
        await asyncio.sleep(0)
