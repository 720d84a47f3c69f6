"""What the page shows of a pipeline: bounded histories, rows that change, a device's signal, what it costs."""

from __future__ import annotations

import asyncio
import json
import math

import numpy as np
import pytest
from factories import codebook, tiny_bundle
from stack import until
from test_gateway_support import Rig, Wearer

from gateway.batcher import MicroBatcher
from gateway.bundles import DetectorStore
from gateway.cameras import Cameras
from gateway.live.history import STEPS, BandwidthHistory
from gateway.live.page import LivePage
from gateway.live.rows import CONFIDENCES, energy
from gateway.live.signal import FIRST_S, KEPT_S, RAW_WAITING, Signals
from gateway.live.state import TICKS_PER_S, LiveState
from gateway.live.streams import KEPT, Feed, Viewers, Whole
from gateway.pipeline import Limits
from gateway.refusals import Refusals
from gateway.traffic import RecentTraffic, Traffic
from protocol.energy import SENSOR_UA, EnergyLedger
from protocol.messages import MAX_LSB, RawTrace
from protocol.packet import MAX_PAYLOAD_BYTES


@pytest.fixture
def bundle(tmp_path):
    return tiny_bundle(tmp_path)


class Link:
    connected = True


class Screen:
    """A state over a rig, and what one viewer has put together."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.viewers = Viewers()
        self.label: str | None = None
        self.link = Link()
        self.cameras = Cameras(DetectorStore(()), submit=lambda _: None, publish=lambda *_: None, refusals=Refusals())
        self.state = LiveState(
            rig.pipeline,
            MicroBatcher(),
            self.cameras,
            self.link,
            self.viewers,
            label_of=lambda _: self.label,
            previews=False,
            read_only=True,
            now_ns=lambda: rig.now_ns,
        )
        self.seen: int | None = None

    def pass_s(self, seconds: float = 1.0) -> None:
        for _ in range(round(seconds * TICKS_PER_S)):
            self.rig.now_ns += 10**9 // TICKS_PER_S
            self.state.tick()
        self.rig.pass_ms(0)

    async def whole(self) -> dict:
        return json.loads(await self.state.whole())

    async def news(self) -> list[dict]:
        """Events since the last call."""
        self.seen, events = await self.state.feed.after(self.seen)
        return [json.loads(one.decode().split("data: ", 1)[1]) for one in events]


async def test_what_changed_adds_up_to_the_whole(tmp_path, bundle):
    rig = Rig(tmp_path)
    screen = Screen(rig)
    wearers = [Wearer(bundle, f"w{n}", seed=n) for n in range(7)]
    with screen.viewers.place():
        (first,) = await screen.news()
        assert first["devices"] == []
        rows: dict[str, dict] = {}
        for second in range(30):
            for wearer in wearers[: 1 + second % 7]:
                rig.feed(wearer.name, wearer.packet())
            if second == 9:
                rig.status("w0", source="synthetic", error="codebook: no", bridge="shelf", sensor="bma400 ±8 g")
            if second == 12:
                screen.label = "walking"
            screen.pass_s()
            updates = await screen.news()
            assert len(updates) == TICKS_PER_S
            for update in updates:
                for row in update.get("devices", []):
                    row["confidence"] = rows.get(row["device"], {"confidence": []})["confidence"] + row["confidence"]
                    rows[row["device"]] = row
            heard = [row["device"] for update in updates for row in update.get("devices", [])]
            assert len(heard) == len(set(heard)), "once a second at most"
        whole = await screen.whole()
    assert rows == {row["device"]: row for row in whole["devices"]}
    assert (rows["w0"]["error"], rows["w0"]["bridge"], rows["w0"]["label"]) == ("codebook: no", "shelf", "walking")
    assert rows["w0"]["whole_ua"] == pytest.approx(rows["w0"]["radio_ua"] + SENSOR_UA["bma400"], abs=0.02)
    assert 10 < len(rows["w0"]["confidence"]) <= 30
    assert [point[0] for point in rows["w0"]["confidence"]] == sorted(point[0] for point in rows["w0"]["confidence"])
    assert not rows["w0"]["labelled"]


async def test_a_quiet_fleet_costs_no_rows(tmp_path, bundle):
    rig = Rig(tmp_path)
    screen = Screen(rig)
    rig.feed("w1", Wearer(bundle).packet())
    with screen.viewers.place():
        screen.pass_s(3)
        await screen.news()
        for _ in range(5):
            screen.pass_s()
            assert all(set(update) <= {"time_ms", "bandwidth"} for update in await screen.news())
        updates = []
        for _ in range(4):  # ten seconds without a packet: it streams no more
            screen.pass_s()
            updates += await screen.news()
        assert [row["streaming"] for update in updates for row in update.get("devices", [])] == [False]


@pytest.mark.parametrize("seconds", [-3600, 3600])
async def test_the_page_goes_on_when_the_clock_is_set(tmp_path, bundle, seconds):
    rig = Rig(tmp_path)
    screen = Screen(rig)
    wearer = Wearer(bundle)
    with screen.viewers.place():
        wearer.send(rig, 2)
        screen.pass_s()
        await screen.news()
        rig.set_clock(seconds)
        wearer.send(rig, 1)
        updates = []
        for _ in range(3):
            screen.pass_s()
            updates += await screen.news()
        assert len([update for update in updates if "bandwidth" in update]) >= 2
        (row,) = (await screen.whole())["devices"]
        assert row["streaming"]
        rig.set_clock(-7200)
        screen.pass_s(1)
        (row,) = (await screen.whole())["devices"]
        assert not row["streaming"], "its last packet is of no time that we know"


async def test_devices_that_are_forgotten_are_gone(tmp_path, bundle):
    rig = Rig(tmp_path, limits=Limits(forget_s=20, max_devices=3))
    screen = Screen(rig)
    for name in ("a", "b", "c"):
        rig.feed(name, Wearer(bundle, name).packet())
    with screen.viewers.place():
        screen.pass_s()
        assert len((await screen.news())[0]["devices"]) == 3
        seen = set()
        for _ in range(30):
            screen.pass_s()
            for update in await screen.news():
                seen |= set(update.get("gone", []))
        assert seen == {"a", "b", "c"}
        assert (await screen.whole())["devices"] == []
        rig.feed("a", Wearer(bundle, "a").packet())
        screen.pass_s()
        (row,) = (await screen.whole())["devices"]
        assert row["packets"] == 1


async def test_what_goes_while_the_whole_is_made_is_gone_for_others_too(tmp_path, bundle):
    rig = Rig(tmp_path, limits=Limits(forget_s=20))
    screen = Screen(rig)
    rig.feed("w1", Wearer(bundle).packet())
    with screen.viewers.place():
        screen.state.tick()
        await screen.news()
        screen.state.tick()
        await screen.news()
        rig.pass_ms(60_000)
        assert not list(rig.pipeline.devices)
        assert (await screen.whole())["devices"] == []
        screen.state.tick()
        (update,) = await screen.news()
        assert update["gone"] == ["w1"]
        screen.state.tick()
        assert all("gone" not in update for update in await screen.news())


async def test_a_new_viewer_is_told_what_is_again_as_it_was(tmp_path):
    """Sent to a viewer before, then otherwise while nobody looked."""
    screen = Screen(Rig(tmp_path))
    with screen.viewers.place():
        screen.state.tick()
    screen.state.tick()
    screen.link.connected = False
    assert (await screen.whole())["broker"] is False
    screen.link.connected = True
    with screen.viewers.place():
        screen.seen = screen.state.feed.version
        screen.state.tick()
        (update,) = await screen.news()
    assert update["broker"] is True


async def test_what_a_failed_tick_lost_comes_once_all_is_well(tmp_path, bundle, monkeypatch):
    """What had been found to have changed is not found so again."""
    screen = Screen(Rig(tmp_path))
    rig = screen.rig
    rig.feed("w1", Wearer(bundle).packet())
    page = LivePage(
        rig.pipeline, MicroBatcher(), screen.cameras, screen.link, lambda *_: None, previews=False, token=None
    )
    got: list[bytes] = []

    async def follow() -> None:
        async for one in page.viewers.events([page._state.feed]):
            got.append(one)  # noqa: PERF401 - at once

    def fail_once_known(state: LiveState, *_: object, **__: object) -> list[tuple[str, object]]:
        return [1 / 0] if "codebook: no" in state._rows["w1"].whole() else []

    with page.viewers.place():
        async with page.running():
            following = asyncio.create_task(follow())
            await until(lambda: len(got) > 2 * TICKS_PER_S)
            rig.status("w1", error="codebook: no")
            with monkeypatch.context() as patch:
                patch.setattr(LiveState, "_sections", fail_once_known)
                await until(lambda: not page.well)
            await until(lambda: page.well)
            seen = len(got)
            await until(lambda: len(got) > seen + TICKS_PER_S)
        await following
    assert "codebook: no" in b"".join(got).decode()


@pytest.mark.parametrize("sensor", ["", " ", "\t", "  bma400"])
async def test_a_status_with_any_sensor_is_shown(tmp_path, bundle, sensor):
    rig = Rig(tmp_path)
    screen = Screen(rig)
    rig.feed("w1", Wearer(bundle).packet())
    rig.status("w1", sensor=sensor)
    screen.pass_s()
    (row,) = (await screen.whole())["devices"]
    assert row["sensor"] == sensor
    assert (row["whole_ua"] > row["radio_ua"]) is (sensor.strip() != "")


async def test_histories_are_bounded(tmp_path, bundle):
    rig = Rig(tmp_path)
    screen = Screen(rig)
    wearer = Wearer(bundle)
    for step in range(STEPS + 40):
        if step % 4 == 0:  # answers take the time here
            rig.feed("w1", wearer.packet())
        screen.pass_s()
    whole = await screen.whole()
    history = whole["bandwidth"]["history"]
    assert len(history["mqtt"]) == len(history["raw12"]) == STEPS
    (row,) = whole["devices"]
    assert len(row["confidence"]) == CONFIDENCES
    assert sum(history["mqtt"][-10:]) / 10 == pytest.approx(whole["bandwidth"]["rate"]["mqtt"], abs=0.1)


async def test_without_labels_there_is_no_score(tmp_path, bundle):
    rig = Rig(tmp_path)
    screen = Screen(rig)
    Wearer(bundle).send(rig, 10)
    screen.pass_s()
    model = (await screen.whole())["models"][bundle.reference]
    assert (model["accuracy"], model["macro_f1"], model["windows"]) == (None, None, 0)
    assert np.array(model["confusion"]).shape == (len(bundle.labels),) * 2
    wearer = Wearer(bundle, "w2")
    for n in range(10):
        rig.label("w2", bundle.labels[n % 2], round(wearer.tick), round(wearer.tick + 1040))
        wearer.send(rig, 1)
    screen.pass_s()
    whole = await screen.whole()
    model = whole["models"][bundle.reference]
    confusion = np.array(model["confusion"])
    assert confusion.sum() == model["windows"] == whole["summary"]["scored"] > 0
    assert confusion.trace() / confusion.sum() == pytest.approx(model["accuracy"])


def test_bandwidth_steps_are_bytes_per_second():
    history = BandwidthHistory()
    assert history.point() is None
    history.note(1000, Traffic())
    history.note(1500, Traffic(mqtt_topic_bytes=100, raw12_bytes=1000, packet_bytes=50))
    assert history.point() == {"ms": 1500, "mqtt": 200.0, "raw12": 2000.0}
    assert history.figures(Traffic())["rate"]["packet"] == 100.0


@pytest.mark.parametrize("now_ms", [1500, 400], ids=["stands", "set back"])
def test_bandwidth_goes_on_after_a_clock_that_stood_or_was_set_back(now_ms):
    history = BandwidthHistory()
    history.note(1000, Traffic())
    history.note(1500, Traffic(mqtt_topic_bytes=100))
    history.note(now_ms, Traffic(mqtt_topic_bytes=150))
    assert history.point() == {"ms": 1500, "mqtt": 200.0, "raw12": 0.0}, "nothing is divided by no time"
    history.note(now_ms + 1000, Traffic(mqtt_topic_bytes=250))
    assert history.point() == {"ms": now_ms + 1000, "mqtt": 100.0, "raw12": 0.0}
    assert history.figures(Traffic())["rate"]["mqtt"] == 100.0


def test_the_ledger_is_that_of_the_packets():
    recent = RecentTraffic(ms=60_000, packets=60, values=60 * 6 * 52, packet=60 * 168, mqtt=0, raw12=0)
    said = energy(recent, "bmi270 ±8 g")
    sent = EnergyLedger(packets=60, packet_bytes=60 * 168, seconds=60, sensor_ua=SENSOR_UA["bmi270"]).microamperes()
    assert said["ledger"]["parts"] == {part: round(current, 2) for part, current in sent.items()}
    assert said["radio_ua"] == pytest.approx(sent["data"] + sent["empty events"], abs=0.01)
    assert said["whole_ua"] == pytest.approx(said["radio_ua"] + 650, abs=0.02)
    # 312 values of 12 bits are 468 bytes: three notifications, each with a header of ours.
    assert math.ceil(468 / MAX_PAYLOAD_BYTES) == 3
    rival = EnergyLedger(packets=180, packet_bytes=60 * (468 + 36), seconds=60).microamperes()
    assert said["radio_raw12_ua"] == pytest.approx(sum(rival.values()), abs=0.01)
    assert energy(RecentTraffic(), None)["ledger"] is None
    assert energy(recent, "somebody's own")["whole_ua"] == said["radio_ua"]


# -- feeds ------------------------------------------------------------------------------------------------------------


async def test_a_feed_gives_what_was_missed_or_the_whole():
    async def whole():
        return Whole(feed.version, b"whole")

    feed = Feed(whole)
    seen, events = await feed.after(None)
    assert (seen, events) == (0, [b"whole"])
    for n in range(KEPT):
        feed.publish(b"%d" % n)
    assert await feed.after(seen) == (KEPT, [b"%d" % n for n in range(KEPT)])
    assert await feed.after(KEPT) == (KEPT, [])
    feed.publish(b"one more")
    assert await feed.after(0) == (KEPT + 1, [b"whole"])
    assert await feed.after(KEPT) == (KEPT + 1, [b"one more"])
    feed.restart()
    assert (await feed.after(KEPT + 1))[1] == [b"whole"]


# -- signals ----------------------------------------------------------------------------------------------------------


async def signal_events(feed, seen):
    seen, events = await feed.after(seen)
    return seen, [json.loads(one.decode().split("data: ", 1)[1]) for one in events]


async def test_the_signal_is_what_the_codes_stand_for(tmp_path, bundle):
    rig = Rig(tmp_path)
    signals = Signals(rig.pipeline)
    wearer = Wearer(bundle, "w1")
    with signals.watching("w1") as feed:
        assert await signal_events(feed, None) == (None, [])
        wearer.send(rig, 3)
        signals.tick()
        seen, (first,) = await signal_events(feed, None)
        wearer.send(rig, 1)
        signals.tick()
        seen, (second,) = await signal_events(feed, seen)
        signals.tick()
        assert (await signal_events(feed, seen))[1] == [], "nothing is new"
    book = bundle.codebook
    channels = np.arange(len(book.channels))
    for event, codes in ((first, np.concatenate(wearer.codes[:3])), (second, wearer.codes[3])):
        assert np.array(event["new"]) == pytest.approx(book.levels[channels, codes], abs=1e-4)
    assert second["from_ms"] - first["from_ms"] == pytest.approx(3 * wearer.samples * wearer.period_ms, abs=0.2)
    assert first["curve"]["acc_x"]["thresholds"] == pytest.approx(book.thresholds[0], abs=1e-6)
    assert "curve" not in second
    assert second["activity"] in {*bundle.labels, "unknown"}
    assert sum(second["probabilities"].values()) == pytest.approx(1, abs=0.01)
    assert second["truth"] is None
    assert not rig.pipeline.watchers


async def test_what_is_missing_is_null_and_what_is_old_goes(tmp_path, bundle):
    rig = Rig(tmp_path)
    signals = Signals(rig.pipeline)
    wearer = Wearer(bundle, "w1")
    with signals.watching("w1") as feed:
        wearer.send(rig, 1)
        signals.tick()
        seen, _ = await signal_events(feed, None)
        wearer.packet()  # never sent
        wearer.send(rig, 1)
        rig.pass_ms(500)
        signals.tick()
        seen, (event,) = await signal_events(feed, seen)
        assert len(event["new"]) == 2 * wearer.samples
        assert event["new"][: wearer.samples] == [[None] * len(bundle.codebook.channels)] * wearer.samples
        assert None not in event["new"][-1]
        wearer.send(rig, 60)
        signals.tick()
        kept = rig.pipeline.watchers["w1"]._kept
        assert KEPT_S * bundle.codebook.rate_hz <= kept < KEPT_S * bundle.codebook.rate_hz + wearer.samples
        _, (first,) = await signal_events(feed, None)
        assert len(first["new"]) == FIRST_S * bundle.codebook.rate_hz


async def test_another_codebook_begins_anew(tmp_path):
    old = tiny_bundle(tmp_path, name="old", book=codebook(curved=True))
    new = tiny_bundle(tmp_path, name="new", book=codebook(curved=False))
    rig = Rig(tmp_path)
    signals = Signals(rig.pipeline)
    before = Wearer(old, "w1")
    with signals.watching("w1") as feed:
        before.send(rig, 2)
        signals.tick()
        seen, _ = await signal_events(feed, None)
        after = Wearer(new, "w1", tick=before.tick, sequence=before.sequence)
        after.send(rig, 1)
        signals.tick()
        _, events = await signal_events(feed, seen)
        assert [len(event["new"]) for event in events] == [after.samples]
        assert events[0]["curve"]["acc_x"]["levels"] == pytest.approx(new.codebook.levels[0], abs=1e-6)


async def test_raw_samples_lie_beside_their_packet(tmp_path, bundle):
    rig = Rig(tmp_path)
    signals = Signals(rig.pipeline)
    wearer = Wearer(bundle, "w1")
    channels = len(bundle.codebook.channels)

    def trace(value: int, samples: int) -> bytes:
        return RawTrace(
            tick=round(wearer.tick), lsb=[0.5] * channels, offset=[2] * channels, counts=[[value] * channels] * samples
        ).to_json()

    with signals.watching("w1") as feed:
        wearer.send(rig, 1)
        rig.feed("w1", trace(1, 1), kind="raw")
        signals.tick()
        seen, (event,) = await signal_events(feed, None)
        assert event["raw"] is None, "nobody has asked"
        signals.expect_raw("w1", 60)
        rig.feed("w1", trace(10, wearer.samples), kind="raw")
        wearer.send(rig, 1)
        rig.feed("w1", trace(10, wearer.samples - 1), kind="raw")
        wearer.send(rig, 1)
        signals.tick()
        seen, (event,) = await signal_events(feed, seen)
        assert event["raw"]["new"] == [[4.0] * channels] * wearer.samples + [[None] * channels] * wearer.samples
        assert event["raw"]["until_ms"] - event["from_ms"] == pytest.approx(
            (2 * wearer.samples - 1) * wearer.period_ms, abs=0.2
        )
        for n in range(100):
            rig.feed("w1", RawTrace(tick=n, lsb=[1.0], offset=[0], counts=[[1]]).to_json(), kind="raw")
        assert len(rig.pipeline.watchers["w1"]._raw) == RAW_WAITING
    assert rig.pipeline.messages["raw"] == 103
    assert rig.pipeline.meter.totals.packets == 3


async def test_the_coarsest_raw_samples_that_parse_are_shown(tmp_path, bundle):
    rig = Rig(tmp_path)
    signals = Signals(rig.pipeline)
    wearer = Wearer(bundle, "w1")
    channels = len(bundle.codebook.channels)
    counts = [[2**16 - 1] * channels] * wearer.samples
    trace = {"tick": round(wearer.tick), "lsb": [MAX_LSB] * channels, "offset": [-(2**15)] * channels, "counts": counts}
    with signals.watching("w1") as feed:
        signals.expect_raw("w1", 60)
        rig.feed("w1", RawTrace.model_validate(trace).to_json(), kind="raw")
        wearer.send(rig, 1)
        signals.tick()
        _, (event,) = await signal_events(feed, None)
    assert event["raw"]["new"][0] == [(2**16 - 1 + 2**15) * MAX_LSB] * channels
