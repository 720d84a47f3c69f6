"""Wearables, a real broker and a gateway together: what is promised of the whole, on recorded people where it matters.

Outages are in ``test_end_to_end_outages.py``, what others do in ``test_end_to_end_hostile.py``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import codebook, tiny_bundle
from proxy import Proxy
from stack import (
    PATIENCE_S,
    Listener,
    accepted,
    all_answered,
    archive,
    fetch_metrics,
    made_by,
    more_from_each,
    new_gateway,
    note,
    packet_samples,
    patient_devices,
    serving,
    starts_of,
    streaming,
    synthetic,
    tick_of,
    until,
    window_starts,
    wrist3,
    wrist6,
)

from device_emulator.fleet import Fleet
from device_emulator.publisher import DevicePublisher
from gammawear.wearables import WearableOptions, dataset_sources, wearables
from gateway.pipeline import Limits
from models.bundle import SHIPPED, Bundle, load_bundle
from models.evaluate import evaluate, material_for, predict_windows
from models.resample import Segment
from models.tasks import Material
from models.windows import cut
from protocol.messages import UNKNOWN, Config, Status
from protocol.packet import HEADER_BYTES, Coder, Packet
from protocol.topics import Kind, every, topic
from protocol.wire_size import ALIAS_PROPERTY_BYTES, publish_size
from quantization.codec import packed_size

__all__ = ["patient_devices", "wrist3", "wrist6"]


@pytest.fixture(scope="module")
def walkers(wrist6: Bundle) -> Material:
    return material_for(wrist6, archive("sp_sw_har.zip"))


@pytest.fixture(scope="module")
def wisdm(wrist3: Bundle) -> Material:
    return material_for(wrist3, archive("wisdm2019_watch.zip"))


# -- recorded people --------------------------------------------------------------------------------------------------


async def test_live_is_what_evaluation_says(
    mosquitto: Any, wrist6: Bundle, walkers: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 30 s of signal are little more than a second here: a machine that stands still for so long would lose labels.
    monkeypatch.setattr("gateway.labels.KEPT_MS", 1_000_000)
    people = ["s04", "s18"]
    report = evaluate(wrist6, walkers, subjects=people)
    manifest = wrist6.manifest
    offline = cut(walkers.of(people), length=manifest.window, stride=manifest.stride, classes=len(wrist6.labels))
    said = predict_windows(wrist6, offline, wrist6.sensor)
    pairs = zip(said.probabilities, said.evidence, strict=True)
    expected = Counter(wrist6.answer(row, float(evidence))[0] for row, evidence in pairs)

    sources = dataset_sources(wrist6, walkers, wrist6.sensor, subjects=people, count=None, loop=False)
    fleet = Fleet(wearables(sources, wrist6, mosquitto.settings, WearableOptions(speed=24.0)))
    async with (
        serving(new_gateway(mosquitto.settings, limits=Limits(lateness_s=2.0))) as gateway,
        Listener(mosquitto.settings, every(Kind.ACTIVITY)) as listener,
    ):
        await asyncio.wait_for(fleet.run(), PATIENCE_S)
        await until(lambda: gateway.summary().packets == fleet.packets_made)
        await until(lambda: gateway.summary().answers == len(offline))
        await until(lambda: not any(device.labels.waiting for device in gateway.pipeline.devices))
        await until(lambda: len(listener.activities()) == len(offline))
        live = gateway.summary()

    assert (live.lost, live.duplicate, live.rejected, live.dropped_windows) == (0, 0, 0, 0)
    assert Counter(one.activity for one in listener.activities()) == expected, "every answer is the offline one"
    assert {one.source for one in listener.activities()} == {"dataset"}
    assert live.scored >= 0.98 * report.scores.windows
    assert live.macro_f1 == pytest.approx(report.scores.macro_f1, abs=0.02)
    assert live.accuracy == pytest.approx(report.scores.accuracy, abs=0.02)
    note(live.macro_f1, report.scores.macro_f1, live.scored, report.scores.windows, live.packets)


async def test_what_a_bundle_does_not_know_is_answered_unknown(mosquitto: Any, wrist3: Bundle, wisdm: Material) -> None:
    people = list(wrist3.manifest.data.test_subjects)
    report = evaluate(wrist3, wisdm, subjects=people)

    def devices(prefix: str, segments: Sequence[Segment]) -> list[DevicePublisher]:
        material = replace(wisdm, segments=tuple(segments), unknown={})
        sources = dataset_sources(wrist3, material, wrist3.sensor, subjects=people, count=None, loop=False)
        # 5 s a packet and no labels: fewer, larger messages bring the same samples.
        shared = WearableOptions(speed=500.0, packet_s=5.0, labels=False, prefix=prefix)
        return wearables(sources, wrist3, mosquitto.settings, shared)

    publishers = devices("known", wisdm.segments)
    for activity, segments in wisdm.unknown.items():
        publishers += devices(activity, segments)
    fleet = Fleet(publishers)
    async with (
        serving(new_gateway(mosquitto.settings)) as gateway,
        Listener(mosquitto.settings, every(Kind.ACTIVITY)) as listener,
    ):
        await asyncio.wait_for(fleet.run(), 2 * PATIENCE_S)
        await until(lambda: gateway.summary().packets == fleet.packets_made)
        await all_answered(gateway)
        await until(lambda: len(listener.heard) == gateway.summary().answers)
        assert gateway.summary().lost == 0

    shares = {}
    for name in ("known", *report.unknown_found):
        answers = [one.activity for one in listener.activities(f"{name}-")]
        shares[name] = answers.count(UNKNOWN) / len(answers)
        note(name, shares[name], len(answers))
    assert shares["known"] <= 0.10
    assert shares["known"] == pytest.approx(report.unknown_share, abs=0.002)
    for activity, (share, windows) in report.unknown_found.items():
        assert len(listener.activities(f"{activity}-")) == windows
        assert shares[activity] == pytest.approx(share, abs=0.002)
    assert shares["folding"] >= 0.5
    assert shares["kicking"] >= 0.5
    assert shares["catch"] > 2 * shares["known"], "training has not seen it in any form"


# -- several bundles --------------------------------------------------------------------------------------------------


async def test_bundles_are_served_at_once(mosquitto: Any, wrist6: Bundle, wrist3: Bundle) -> None:
    """Also two versions of one, whose packets differ in rate and coder."""
    bundles = {"six": wrist6, "three": wrist3, "old": load_bundle("wrist6@1")}
    speeds = {"six": 20.0, "three": 40.0, "old": 20.0}
    fleets = {
        name: synthetic(bundle, mosquitto.settings, 2, prefix=name, speed=speeds[name])
        for name, bundle in bundles.items()
    }
    async with (
        serving(new_gateway(mosquitto.settings)) as gateway,
        Listener(mosquitto.settings, every(Kind.ACTIVITY)) as listener,
    ):
        async with streaming(fleets["six"]), streaming(fleets["three"]), streaming(fleets["old"]):
            for name, fleet in fleets.items():
                await more_from_each(gateway, fleet, round(speeds[name]))
        await until(lambda: gateway.summary().packets == sum(fleet.packets_made for fleet in fleets.values()))
        await all_answered(gateway)
        await until(lambda: len(listener.heard) == gateway.summary().answers)
        assert (gateway.summary().lost, gateway.summary().rejected) == (0, 0)
    for name, fleet in fleets.items():
        bundle = bundles[name]
        for publisher in fleet.publishers:
            answers = listener.activities(publisher.device.device_id)
            assert [one.from_tick for one in answers] == starts_of(publisher, bundle)
            assert {one.model for one in answers} == {bundle.reference}
            assert {one.likeliest for one in answers} <= set(bundle.labels)


async def test_a_device_is_given_another_codebook_in_mid_stream(mosquitto: Any, wrist6: Bundle, tmp_path: Path) -> None:
    manifest = wrist6.manifest
    book = codebook(wrist6.codebook.channels, rate_hz=manifest.rate_hz)
    other = tiny_bundle(tmp_path / "bundles", "other", book=book, window=manifest.window, stride=manifest.stride)
    fleet = synthetic(wrist6, mosquitto.settings, 2)
    switched, stays = (publisher.device.device_id for publisher in fleet.publishers)
    async with (
        serving(new_gateway(mosquitto.settings, folders=(tmp_path / "bundles", SHIPPED))) as gateway,
        Listener(mosquitto.settings, every(Kind.ACTIVITY)) as listener,
    ):
        async with streaming(fleet):
            await more_from_each(gateway, fleet, 10)
            config = Config.with_codebook(other.codebook).to_json()
            listener.connection.publish(topic(switched, Kind.CONFIG), config, qos=1, retain=True)
            await until(lambda: gateway.pipeline.windows[other.reference] >= 20)
            async with Listener(mosquitto.settings, topic(switched, Kind.STATUS), name="late") as late:
                await until(lambda: late.heard)
            await more_from_each(gateway, fleet, 5)
        await until(lambda: accepted(gateway, fleet) == made_by(fleet))
        await all_answered(gateway)
        await until(lambda: len(listener.heard) == gateway.summary().answers)
        assert (gateway.summary().lost, gateway.summary().rejected) == (0, 0)
        assert gateway.pipeline.flushes == {"codebook": 1}

    retained = Status.parse(late.heard[0].payload)
    assert late.heard[0].retain
    assert (retained.state, retained.codebook, retained.error) == ("online", other.codebook.digest.hex(), None)
    assert {one.model for one in listener.activities(stays)} == {wrist6.reference}

    answers = listener.activities(switched)
    before = [one for one in answers if one.model == wrist6.reference]
    after = [one for one in answers if one.model == other.reference]
    assert answers == before + after, "and never back"
    start = min(one.from_tick for one in after)
    publisher = fleet.publishers[0]
    samples = packet_samples(publisher)
    packets = round(start * manifest.rate_hz / 1000 / samples)
    assert start == tick_of(packets * samples, manifest.rate_hz), "the switch came between two packets"
    assert max(one.to_tick for one in before) <= start, "and no window spans it"
    assert [one.from_tick for one in before] == window_starts(packets * samples, wrist6)
    made = publisher.packets_made * samples
    assert [one.from_tick for one in after] == window_starts(made, other, first=packets * samples)


# -- bandwidth --------------------------------------------------------------------------------------------------------


def payload_of(publish: bytes) -> bytes:
    """What a PUBLISH packet with QoS 1 carries (MQTT 5.0, section 3.3)."""
    at = 1
    while publish[at] & 128:
        at += 1
    at += 1
    at += 2 + int.from_bytes(publish[at : at + 2])  # the topic
    at += 2  # packet identifier
    at += 1 + publish[at]  # properties
    return publish[at:]


@pytest.mark.parametrize("name", ["wrist6", "wrist3", "wrist6@1"])
async def test_bytes_on_the_wire_are_what_the_metrics_say(mosquitto: Any, name: str) -> None:
    bundle = load_bundle(name)
    book = bundle.codebook
    rate_hz = round(1.04 * book.rate_hz, 3)
    async with (
        Proxy(mosquitto.port) as proxy,  # type: ignore[no-untyped-call]
        serving(new_gateway(mosquitto.settings, metrics_port=0)) as gateway,
    ):
        fleet = synthetic(bundle, proxy.settings, 1, rate_hz=rate_hz, labels=False)
        async with streaming(fleet):
            await more_from_each(gateway, fleet, 40)
        await until(lambda: accepted(gateway, fleet) == made_by(fleet))
        metrics = await fetch_metrics(gateway)
        published = [one for one in proxy.publishes() if b'"state"' not in one]

    # What the device sent, read from the wire.
    carried = [payload_of(one) for one in published]
    packets = [Packet.from_bytes(one) for one in carried]
    samples, channels = int(rate_hz), len(book.channels)
    assert len(packets) == fleet.packets_made
    assert [one.sequence for one in packets] == list(range(len(packets)))
    assert {one.samples for one in packets} == {samples}
    assert {one.codes(book).shape for one in packets} == {(samples, channels)}
    values = len(packets) * samples * channels
    payload = sum(len(one.payload) for one in packets)
    plain = len(packets) * packed_size(samples, channels, book.bits)
    if book.contexts is None:
        assert {one.coder for one in packets} == {Coder.PLAIN}
        assert payload == plain
    else:
        assert sum(one.coder is Coder.ENTROPY for one in packets) > 0.9 * len(packets)
        assert payload < 0.75 * plain

    assert metrics["gammawear_received_values_total"] == values
    assert metrics["gammawear_received_payload_bytes_total"] == payload
    assert metrics["gammawear_received_packet_bytes_total"] == sum(map(len, carried))
    assert sum(map(len, carried)) == len(packets) * HEADER_BYTES + payload
    in_full = metrics['gammawear_received_mqtt_bytes_total{form="topic"}']
    by_alias = metrics['gammawear_received_mqtt_bytes_total{form="alias"}']
    assert in_full > by_alias > sum(map(len, carried))

    heard_on = topic(fleet.publishers[0].device.device_id, Kind.IMU)
    aliased = [publish_size(heard_on, len(one), qos=1, version=5, alias=True) for one in carried]
    full = [publish_size(heard_on, len(one), qos=1, version=5, alias=False) for one in carried]
    assert (by_alias, in_full) == (sum(aliased), sum(full))
    # The first publication of a connection carries topic and alias; from the second on, the alias stands alone.
    assert [len(one) for one in published] == [full[0] + ALIAS_PROPERTY_BYTES, *aliased[1:]]

    if name == "wrist6@1":
        assert payload == len(packets) * 156
        assert by_alias * 8 / values <= 4.6
    for level, total in (("payload", payload), ("packet", sum(map(len, carried))), ("mqtt_alias", by_alias)):
        assert metrics[f'gammawear_bytes_per_value{{level="{level}"}}'] == pytest.approx(total / values)
        note(name, level, f"{8 * total / values:.2f} bits a value")
    for rival, size in (("raw12", 12 / 8), ("float32", 4)):
        one = publish_size(heard_on, HEADER_BYTES + int(samples * channels * size + 0.5), qos=1, version=5, alias=False)
        assert metrics[f'gammawear_equivalent_bytes_total{{encoding="{rival}"}}'] == len(packets) * one
        compression = metrics[f'gammawear_compression_ratio{{against="{rival}"}}']
        assert compression == pytest.approx(len(packets) * one / in_full)
        note(name, rival, f"{compression:.2f}×")
