"""Wearables, a real broker and a gateway together: what is promised of the whole, on recorded people where it matters.

Times are the wearers' own, at many seconds in one; what a test waits for is a state, never a moment. The longest wait
for one is :data:`PATIENCE_S`, for machines that are busy with something else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import codebook, tiny_bundle
from test_protocol_connection import Proxy

from device_emulator.fleet import Fleet
from device_emulator.link import LinkSettings
from device_emulator.publisher import DevicePublisher
from gammawear.wearables import WearableOptions, dataset_sources, synthetic_sources, wearables
from gateway.pipeline import Limits
from gateway.service import Gateway, GatewaySettings
from gateway.windows import Window
from models.bundle import SHIPPED, Bundle, Prediction, load_bundle
from models.evaluate import evaluate, material_for, predict_windows
from models.resample import Segment
from models.tasks import Material
from models.windows import cut
from protocol.broker_settings import BrokerSettings
from protocol.connection import Connection, Received
from protocol.messages import UNKNOWN, Activity, Config, Status
from protocol.packet import Packet
from protocol.topics import Kind, every, parse, topic
from protocol.wire_size import ALIAS_PROPERTY_BYTES, publish_size
from quantization.codebook import Codebook
from quantization.errors import PacketError

HAR = Path(__file__).parents[2] / "shared" / "data" / "har"
PATIENCE_S = 60.0
RESUMES_WITHIN_S = 10.0
"""After an outage; what docs/operations.md promises."""


def archive(name: str) -> Path:
    """A published archive of recordings. Where continuous integration runs, it has to be there."""
    path = HAR / name
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{path} is not there")
        pytest.skip(f"needs {path}")
    return path


@pytest.fixture(scope="module")
def wrist6() -> Bundle:
    return load_bundle("wrist6")


@pytest.fixture(scope="module")
def wrist3() -> Bundle:
    return load_bundle("wrist3")


@pytest.fixture(scope="module")
def walkers(wrist6: Bundle) -> Material:
    return material_for(wrist6, archive("sp_sw_har.zip"))


@pytest.fixture(scope="module")
def wisdm(wrist3: Bundle) -> Material:
    return material_for(wrist3, archive("wisdm2019_watch.zip"))


@pytest.fixture(autouse=True)
def patient_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds for the last packets are enough for a wearer, but not on a machine that does other things."""
    defaults = DevicePublisher.stop.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout", PATIENCE_S)


def note(*figures: object) -> None:
    """Shown by ``pytest -rP``."""
    print(*figures)


async def until(condition: Callable[[], object], *, within_s: float = PATIENCE_S) -> None:
    """Wait for a state."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - states of many kinds, and nothing tells
            await asyncio.sleep(0.01)


def new_gateway(broker: BrokerSettings, *, folders: tuple[Path, ...] = (SHIPPED,), **more: Any) -> Gateway:
    """One that drops no window, however slowly its network gets to run here."""
    return Gateway(GatewaySettings(broker=broker, bundle_dirs=folders, queue_windows=100_000, **more))


@contextlib.asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[Gateway]:
    """Run it; stop it at the end, unless the test failed."""
    task = asyncio.create_task(gateway.run())
    try:
        await gateway.wait_connected(PATIENCE_S)
        yield gateway
        await gateway.stop()
        await asyncio.wait_for(task, PATIENCE_S)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def streaming(fleet: Fleet) -> AsyncIterator[Fleet]:
    """Run it; stop it at the end: what was made has then been acknowledged by the broker."""
    task = asyncio.create_task(fleet.run())
    try:
        yield fleet
        await fleet.stop()
        await asyncio.wait_for(task, PATIENCE_S)
        assert fleet.dropped == 0
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Listener:
    """Hears what a filter brings, at once and in order."""

    def __init__(self, broker: BrokerSettings, *filters: str, name: str = "listener") -> None:
        self.heard: list[Received] = []
        self.connection = Connection(
            broker, name, subscriptions=tuple((one, 1) for one in filters), on_message=self.heard.append
        )

    async def __aenter__(self) -> Listener:
        self._running = asyncio.create_task(self.connection.run())
        await self.connection.wait_connected(PATIENCE_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.stop()
        await self._running

    def activities(self, device: str = "") -> list[Activity]:
        """Answers about the devices whose id begins so, in the order of arrival."""
        return [
            Activity.parse(one.payload)
            for one in self.heard
            if parse(one.topic)[1] is Kind.ACTIVITY and parse(one.topic)[0].startswith(device)
        ]


class Answers:
    """Every window that a gateway answers, also while there is no broker to tell. Made before the gateway runs."""

    def __init__(self, gateway: Gateway) -> None:
        self.windows: list[Window] = []
        self._inner = gateway.pipeline.answered
        gateway.pipeline.answered = self._note  # type: ignore[method-assign]

    def _note(self, windows: list[Window], prediction: Prediction) -> None:
        self._inner(windows, prediction)
        self.windows += windows

    def starts(self, device: str) -> list[int]:
        """Device ticks at which the windows begin."""
        return [round(float(window.ticks[0])) for window in self.windows if window.device == device]


def synthetic(bundle: Bundle, broker: BrokerSettings, count: int, **options: Any) -> Fleet:
    """Generated wearers at 20 seconds in one, unless told otherwise."""
    rate_hz = options.pop("rate_hz", None)
    sources = synthetic_sources(bundle, bundle.sensor, count=count, seed=1, rate_hz=rate_hz)
    return Fleet(wearables(sources, bundle, broker, WearableOptions(**{"speed": 20.0, **options})))


def windows_in(samples: int, bundle: Bundle) -> int:
    """So many windows has an unbroken stretch."""
    window, stride = bundle.manifest.window, bundle.manifest.stride
    return max(0, (samples - window) // stride + 1)


def accepted(gateway: Gateway, fleet: Fleet) -> list[int]:
    """Packets that got their place, by device."""
    known = [gateway.pipeline.devices.get(publisher.device.device_id) for publisher in fleet.publishers]
    return [device.reassembler.losses.accepted if device is not None else 0 for device in known]


def lost(gateway: Gateway, fleet: Fleet) -> list[int]:
    """Packets that never came, by device."""
    known = [gateway.pipeline.devices.get(publisher.device.device_id) for publisher in fleet.publishers]
    return [device.reassembler.losses.lost if device is not None else 0 for device in known]


async def more_from_each(gateway: Gateway, fleet: Fleet, packets: int, *, within_s: float = PATIENCE_S) -> None:
    """Wait until the gateway has so many more packets of every device."""
    wanted = [count + packets for count in accepted(gateway, fleet)]
    await until(
        lambda: all(count >= goal for count, goal in zip(accepted(gateway, fleet), wanted, strict=True)),
        within_s=within_s,
    )


def received_by(fleet: Fleet, *gateways: Gateway) -> list[int]:
    """Packets of each device that got their place at these gateways together."""
    return [sum(counts) for counts in zip(*(accepted(gateway, fleet) for gateway in gateways), strict=True)]


def made_by(fleet: Fleet) -> list[int]:
    """Packets that each device made and whose last sample has been taken."""
    return [publisher.packets_made for publisher in fleet.publishers]


async def all_answered(gateway: Gateway) -> None:
    await until(lambda: gateway.summary().answers == gateway.summary().windows)


async def fetch_metrics(gateway: Gateway) -> dict[str, float]:
    """What a Prometheus would see: series to values."""

    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/metrics", timeout=PATIENCE_S) as answer:
            return answer.read().decode()

    text = await asyncio.to_thread(get)
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"}


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


# -- outages ----------------------------------------------------------------------------------------------------------


async def test_a_broker_that_is_restarted_costs_nothing(mosquitto: Any, wrist6: Bundle) -> None:
    fleet = synthetic(wrist6, mosquitto.settings, 4, link=LinkSettings(duplicate=0.2))
    gateway = new_gateway(mosquitto.settings)
    answers = Answers(gateway)
    async with serving(gateway):
        async with streaming(fleet):
            await more_from_each(gateway, fleet, 15)
            await mosquitto.stop(signal.SIGTERM)
            made = fleet.packets_made
            await until(lambda: fleet.packets_made >= made + 60)
            await mosquitto.start()
            await more_from_each(gateway, fleet, 30)
        await until(lambda: accepted(gateway, fleet) == made_by(fleet))
        await until(lambda: gateway.pipeline.messages["imu"] >= fleet.packets_published)
        await all_answered(gateway)
        live = gateway.summary()
        received = gateway.pipeline.messages["imu"]

    assert (live.lost, live.rejected, live.packets) == (0, 0, fleet.packets_made)
    assert fleet.packets_published > fleet.packets_made, "the link duplicates some"
    assert live.duplicate == received - live.packets >= fleet.packets_published - fleet.packets_made
    assert gateway.pipeline.flushes == {}
    for publisher in fleet.publishers:
        windows = windows_in(publisher.packets_made * 50, wrist6)
        assert answers.starts(publisher.device.device_id) == [500 * n for n in range(windows)], "each one once"
    note(live.packets, live.duplicate, live.answers)


Restart = Callable[[], Awaitable[None]]


async def check_that_streams_resume(broker: BrokerSettings, bundle: Bundle, end: Restart, begin: Restart) -> None:
    """Packets may be lost with such a broker, but each is accounted for."""
    fleet = synthetic(bundle, broker, 4)
    async with serving(new_gateway(broker)) as gateway:
        async with streaming(fleet):
            await more_from_each(gateway, fleet, 10)
            await end()
            made = fleet.packets_made
            await until(lambda: fleet.packets_made >= made + 40)
            await begin()
            began = asyncio.get_running_loop().time()
            await more_from_each(gateway, fleet, 1, within_s=RESUMES_WITHIN_S)
            resumed_s = asyncio.get_running_loop().time() - began
            await more_from_each(gateway, fleet, 20)

        def accounted() -> list[int]:
            return [sum(pair) for pair in zip(accepted(gateway, fleet), lost(gateway, fleet), strict=True)]

        await until(lambda: accounted() == made_by(fleet))
        await all_answered(gateway)
        assert all(device.reassembler.losses.restarts == 0 for device in gateway.pipeline.devices)
        live = gateway.summary()
    assert live.packets + live.lost == fleet.packets_made
    assert live.rejected == 0
    note(f"resumed after {resumed_s:.1f} s", live.packets, live.lost, fleet.packets_made)


async def test_after_a_killed_broker_streams_resume(mosquitto: Any, wrist6: Bundle) -> None:
    await check_that_streams_resume(mosquitto.settings, wrist6, lambda: mosquitto.stop(signal.SIGKILL), mosquitto.start)


EMBEDDED = """
import asyncio, sys
from gammawear.broker import local_broker

async def main():
    async with local_broker(int(sys.argv[1]), prefer="amqtt"):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Embedded:
    """A process with an embedded broker in it, which dies without a goodbye."""

    def __init__(self, port: int) -> None:
        self.settings = BrokerSettings(port=port, protocol="3.1.1")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = (sys.executable, "-c", EMBEDDED, str(self.settings.port))
        self._process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        assert await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S) == b"ready\n"

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()
            self._process = None


async def test_after_another_embedded_broker_streams_resume(free_port: int, wrist6: Bundle) -> None:
    pytest.importorskip("amqtt")
    broker = Embedded(free_port)
    await broker.start()
    try:
        await check_that_streams_resume(broker.settings, wrist6, broker.kill, broker.start)
    finally:
        await broker.kill()


def check_windows(fleet: Fleet, first: Gateway, seen: list[Answers]) -> None:
    """All windows were answered but for one of each device, which the end of the first gateway cut in two.

    And but for those that were with its network at that moment, for some 20 ms after their last packet.
    """
    cut_in_two, unanswered = 0, 0
    (bundle,) = [one for one in first.bundles.serving if one.manifest.name == "wrist6"]
    for publisher, before in zip(fleet.publishers, accepted(first, fleet), strict=True):
        device = publisher.device.device_id
        windows = windows_in(publisher.packets_made * 50, bundle)
        starts = {start for answers in seen for start in answers.starts(device)}
        assert starts <= {500 * n for n in range(windows)}
        waiting = windows_in(before * 50, bundle) - len(seen[0].starts(device))
        assert waiting >= 0
        assert len(starts) >= windows - waiting - 1
        cut_in_two += max(0, windows - len(starts) - waiting)
        unanswered += waiting
    note("packets of each device to the first gateway", accepted(first, fleet), "made", made_by(fleet))
    note("windows lost: cut in two", cut_in_two, "with the network", unanswered)


async def test_a_gateway_that_is_restarted_misses_no_packet(mosquitto: Any, wrist6: Bundle) -> None:
    fleet = synthetic(wrist6, mosquitto.settings, 4)
    first, second = new_gateway(mosquitto.settings), new_gateway(mosquitto.settings)
    seen = [Answers(first), Answers(second)]
    async with streaming(fleet):
        async with serving(first):
            await more_from_each(first, fleet, 10)
        made = fleet.packets_made
        await until(lambda: fleet.packets_made >= made + 40)
        async with serving(second):
            await more_from_each(second, fleet, 20)
            await fleet.stop()
            await until(lambda: np.greater_equal(received_by(fleet, first, second), made_by(fleet)).all())
            await all_answered(second)
    for gateway in (first, second):
        assert (gateway.summary().lost, gateway.summary().duplicate, gateway.summary().rejected) == (0, 0, 0)
    check_windows(fleet, first, seen)


async def test_a_gateway_that_crashes_misses_no_packet(mosquitto: Any, wrist6: Bundle) -> None:
    fleet = synthetic(wrist6, mosquitto.settings, 4)
    first, second = new_gateway(mosquitto.settings), new_gateway(mosquitto.settings)
    seen = [Answers(first), Answers(second)]
    async with streaming(fleet):
        crashing = asyncio.create_task(first.run())
        await more_from_each(first, fleet, 10)
        crashing.cancel()
        await asyncio.gather(crashing, return_exceptions=True)
        made = fleet.packets_made
        await until(lambda: fleet.packets_made >= made + 40)
        async with serving(second):
            await more_from_each(second, fleet, 20)
            await fleet.stop()
            # What had not been acknowledged comes again, so that both may have had it.
            await until(lambda: np.greater_equal(received_by(fleet, first, second), made_by(fleet)).all())
            await all_answered(second)
    assert second.summary().lost == 0
    check_windows(fleet, first, seen)


# -- several bundles --------------------------------------------------------------------------------------------------


async def test_two_bundles_are_served_at_once(mosquitto: Any, wrist6: Bundle, wrist3: Bundle) -> None:
    sixes = synthetic(wrist6, mosquitto.settings, 2, prefix="six")
    threes = synthetic(wrist3, mosquitto.settings, 2, prefix="three", speed=40.0)
    async with (
        serving(new_gateway(mosquitto.settings)) as gateway,
        Listener(mosquitto.settings, every(Kind.ACTIVITY)) as listener,
    ):
        async with streaming(sixes), streaming(threes):
            await more_from_each(gateway, sixes, 20)
            await more_from_each(gateway, threes, 40)
        await until(lambda: gateway.summary().packets == sixes.packets_made + threes.packets_made)
        await all_answered(gateway)
        await until(lambda: len(listener.heard) == gateway.summary().answers)
        assert (gateway.summary().lost, gateway.summary().rejected) == (0, 0)
    for fleet, bundle, samples in ((sixes, wrist6, 50), (threes, wrist3, 20)):
        for publisher in fleet.publishers:
            answers = listener.activities(publisher.device.device_id)
            assert len(answers) == windows_in(publisher.packets_made * samples, bundle)
            assert {one.model for one in answers} == {bundle.reference}
            assert {one.likeliest for one in answers} <= set(bundle.labels)


async def test_a_device_is_given_another_codebook_in_mid_stream(mosquitto: Any, wrist6: Bundle, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "bundles", "other", book=codebook())
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
    end, start = max(one.to_tick for one in before), min(one.from_tick for one in after)
    assert end == start == round(start / 1000) * 1000, "the switch came between two packets, and no window spans it"
    assert [one.from_tick for one in before] == list(range(0, end - 999, 500))
    made = fleet.publishers[0].packets_made
    assert [one.from_tick for one in after] == list(range(start, 1000 * made - 999, 500))


# -- hostile traffic --------------------------------------------------------------------------------------------------


def is_packet(data: bytes) -> bool:
    try:
        Packet.from_bytes(data)
    except PacketError:
        return False
    return True


def sealed(data: bytes) -> bytes:
    """The bytes with the checksum that belongs to them, so that what follows it is looked at."""
    return next(made for crc in range(256) if not checksum_fails(made := data[:11] + bytes([crc]) + data[12:]))


def checksum_fails(data: bytes) -> bool:
    try:
        Packet.from_bytes(data)
    except PacketError as error:
        return error.reason == "checksum"
    return False


def hostile_packets(book: Codebook, good: str, rng: random.Random) -> Iterator[tuple[str, bytes, str]]:
    """Topic, payload and the reason for which a gateway is to refuse it."""
    codes = np.array([[rng.randrange(16) for _ in range(6)] for _ in range(50)], dtype=np.uint8)
    sound = bytes(Packet.from_codes(codes, book, sequence=7, tick_ms=7000))
    for n in range(500):
        noise = rng.randbytes(rng.randrange(13, 245))
        if not is_packet(noise):
            reason = "coder" if not checksum_fails(noise) else "checksum"
            yield topic(f"noise-{n % 50}", Kind.IMU), noise, reason
    for n in range(300):
        yield topic(f"noise-{n % 50}", Kind.IMU), rng.randbytes(rng.choice((0, 1, 12, 245, 300, 5000))), "length"
    # In the good device's own name: any burst of up to eight bits is found by the CRC, wherever it is.
    for _ in range(400):
        at, burst = rng.randrange(8 * len(sound) - 8), rng.randrange(1, 256)
        flipped = int.from_bytes(sound, "little") ^ burst << at
        yield topic(good, Kind.IMU), flipped.to_bytes(len(sound), "little"), "checksum"
    for n in range(100):
        stranger = bytes(Packet(rng.randbytes(4), sequence=n, tick_ms=1000 * n, samples=50, payload=rng.randbytes(150)))
        yield topic("stranger", Kind.IMU), stranger, "unknown_codebook"
        short = Packet(book.short_digest, sequence=n, tick_ms=0, samples=49, payload=rng.randbytes(150))
        yield topic("short", Kind.IMU), bytes(short), "payload"
        yield topic("coder", Kind.IMU), sealed(sound[:10] + bytes([sound[10] | 0x80]) + sound[11:]), "coder"


def hostile_messages(rng: random.Random, limit: int) -> Iterator[tuple[str, bytes, str]]:
    """The same for everything that is no packet; ``limit`` is the largest payload that a broker passes."""
    garbage = [
        b"", b"\xff\xfe\x00", b"{", b"null", b"[]", b'{"state": "dancing"}', b'{"state": "online", "rate_hz": 1e999}',
        b'{"state": "online", "packets": -1}', b'{"state": "online", "is_admin": true}', b"[" * 100_000,
        b'{"state": "online", "error": "' + b"x" * 100_000 + b'"}',
    ]  # fmt: skip
    for n in range(300):
        yield topic(f"teller-{n % 20}", Kind.STATUS), garbage[n % len(garbage)], "json"
    for name in ("{}", '{"activity": "unknown", "from_tick": 0, "to_tick": 5}', '{"activity": "x", "from_tick": 0}'):
        for n in range(50):
            yield topic(f"teller-{n % 20}", Kind.LABEL), name.encode(), "json"
    for _ in range(100):
        yield topic("teller-1", Kind.LABEL), b'{"activity": "x", "from_ms": 0, "to_ms": 99999999}', "label_range"
    for n in range(20):
        yield topic("large", Kind.STATUS if n % 2 else Kind.LABEL), rng.randbytes(limit - n), "length"
    for name in ("gateway/imu", "gateway/label", "a b/imu", f"{'x' * 33}/status", "/imu", "é/label", "$x/status"):
        for _ in range(40):
            yield f"gammawear/v1/{name}", rng.randbytes(40), "topic"


def unheard(rng: random.Random) -> Iterator[tuple[str, bytes, str]]:
    """Topics below ours that a gateway does not subscribe to."""
    for name in ("x", "w1/imu/more", "w1/command", "w1/IMU", "w1/config", "w1/activity", "a/b/c/d/e/f"):
        for _ in range(30):
            yield f"gammawear/v1/{name}", rng.randbytes(60), ""


async def test_hostile_traffic_disturbs_nobody(
    mosquitto: Any, wrist6: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(0)
    fleet = synthetic(wrist6, mosquitto.settings, 1, prefix="good")
    good = fleet.publishers[0].device.device_id
    largest = 262_144 - 64
    bad = [*hostile_packets(wrist6.codebook, good, rng), *hostile_messages(rng, largest), *unheard(rng)]
    rng.shuffle(bad)
    assert len(bad) >= 2000
    expected = Counter(reason for _, _, reason in bad if reason)

    gateway = new_gateway(mosquitto.settings, metrics_port=0)
    answers = Answers(gateway)
    enemy = Connection(mosquitto.settings, "enemy", queue_limit=len(bad), topic_aliases=False)

    def refused() -> Counter[str]:
        return gateway.pipeline.refusals.packets + gateway.pipeline.refusals.messages

    async with serving(gateway):
        attacking = asyncio.create_task(enemy.run())
        async with streaming(fleet):
            await more_from_each(gateway, fleet, 5)
            for at in range(0, len(bad), 100):
                for name, payload, _ in bad[at : at + 100]:
                    enemy.publish(name, payload, qos=at // 100 % 2)
                assert await enemy.flush(PATIENCE_S)
            await until(lambda: refused().total() >= expected.total())
            await more_from_each(gateway, fleet, 10)
        await enemy.stop()
        await attacking
        await until(lambda: accepted(gateway, fleet) == made_by(fleet))
        await all_answered(gateway)
        metrics = await fetch_metrics(gateway)
        live = gateway.summary()

    assert refused() == expected
    assert enemy.dropped == Counter()
    by_reason: Counter[str] = Counter()
    for series, value in metrics.items():
        if found := re.fullmatch(r'gammawear_rejected_(?:packets|messages)_total\{reason="(\w+)"\}', series):
            by_reason[found[1]] += int(value)
    assert +by_reason == expected, "and seen by Prometheus"
    assert (live.lost, live.duplicate, live.packets) == (0, 0, fleet.packets_made)
    assert answers.starts(good) == [500 * n for n in range(windows_in(50 * fleet.packets_made, wrist6))]
    assert metrics["gammawear_broker_reconnects_total"] == 0
    assert len([one for one in caplog.records if "refused on" in one.message]) < 500, "said once a reason and device"
    note(len(bad), dict(expected))


# -- bandwidth --------------------------------------------------------------------------------------------------------


async def test_bytes_on_the_wire_are_what_the_metrics_say(mosquitto: Any, wrist6: Bundle) -> None:
    async with Proxy(mosquitto.port) as proxy, serving(new_gateway(mosquitto.settings, metrics_port=0)) as gateway:
        fleet = synthetic(wrist6, proxy.settings, 1, rate_hz=52.0, labels=False)
        async with streaming(fleet):
            await more_from_each(gateway, fleet, 40)
        await until(lambda: accepted(gateway, fleet) == made_by(fleet))
        metrics = await fetch_metrics(gateway)
        published = proxy.publishes()
    packets, values = fleet.packets_made, fleet.packets_made * 52 * 6
    assert metrics["gammawear_received_values_total"] == values
    assert metrics["gammawear_received_payload_bytes_total"] == packets * 156
    assert metrics["gammawear_received_packet_bytes_total"] == packets * (12 + 156)
    in_full = metrics['gammawear_received_mqtt_bytes_total{form="topic"}']
    by_alias = metrics['gammawear_received_mqtt_bytes_total{form="alias"}']
    assert in_full > by_alias > packets * (12 + 156)

    name = topic(fleet.publishers[0].device.device_id, Kind.IMU)
    assert by_alias == packets * publish_size(name, 168, qos=1, version=5, alias=True)
    # The first publication of a connection carries topic and alias; from the second on, the alias stands alone.
    sizes = Counter(len(one) for one in published if b'"state"' not in one)
    assert sizes == {by_alias / packets: packets - 1, in_full / packets + ALIAS_PROPERTY_BYTES: 1}
    assert by_alias * 8 / values <= 4.6
    note(
        f"payload {156 * 8 / 312:.2f}",
        f"packet {168 * 8 / 312:.2f}",
        f"alias {by_alias * 8 / values:.2f}",
        f"topic {in_full * 8 / values:.2f} bits a value",
    )
