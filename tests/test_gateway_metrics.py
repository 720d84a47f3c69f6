from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from factories import codebook, tiny_bundle
from needed import need
from prometheus_client import CollectorRegistry, generate_latest
from test_gateway_support import Rig, Wearer

from gateway.batcher import MicroBatcher
from gateway.metrics import GatewayMetrics
from gateway.refusals import REASONS
from gateway.traffic import JsonSize, publish_bytes
from models.bundle import Bundle
from protocol.packet import Packet
from protocol.wire_size import publish_size


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return tiny_bundle(folder)


class Scrape:
    """A rig and its metrics, as a scrape sees them."""

    def __init__(self, folder: Path, *, per_device: bool = False) -> None:
        self.rig = Rig(folder)
        self.registry = CollectorRegistry()
        GatewayMetrics(
            self.registry,
            self.rig.pipeline,
            batcher=MicroBatcher(),
            link=Link(),
            per_device=per_device,
            silent_after_s=300,
            now_ns=lambda: self.rig.now_ns,
        )

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"gammawear_{name}", labels)

    @property
    def text(self) -> bytes:
        return generate_latest(self.registry)


class Link:
    connected = True
    reconnects = 2


@pytest.fixture
def scrape(folder: Path, bundle: Bundle) -> Scrape:
    made = Scrape(folder)
    Wearer(bundle).send(made.rig, 10)
    return made


def test_promtool_finds_nothing(folder: Path, bundle: Bundle) -> None:
    promtool = shutil.which("promtool")
    need(promtool, "promtool (Debian: apt install prometheus)")
    assert promtool is not None
    scrape = Scrape(folder, per_device=True)
    for _ in range(2):  # empty, and with everything
        result = subprocess.run([promtool, "check", "metrics"], input=scrape.text, capture_output=True, check=False)
        assert (result.stdout + result.stderr).decode() == ""
        assert result.returncode == 0
        Wearer(bundle).send(scrape.rig, 10)
        scrape.rig.label("w1", "WALKING", 0, 10_000)
        scrape.rig.label("w1", "JUGGLING", 5_000, 9_000)
        scrape.rig.pass_ms(20_000)
    assert b"live_macro_f1_ratio{" in scrape.text


def test_bytes(scrape: Scrape) -> None:
    topic, packets, payload = "gammawear/v1/w1/imu", 10, 156
    assert scrape("received_messages_total", kind="imu") == packets
    assert scrape("received_payload_bytes_total") == packets * payload
    assert scrape("received_packet_bytes_total") == packets * (payload + 12)
    for form in ("topic", "alias"):
        size = publish_size(topic, payload + 12, qos=0, version=5, alias=form == "alias")
        assert scrape("received_mqtt_bytes_total", form=form) == packets * size
        assert scrape("bytes_per_value", level=f"mqtt_{form}") == size / 312
    assert scrape("received_samples_total") == packets * 52
    assert scrape("received_values_total") == packets * 312
    assert scrape("bytes_per_value", level="payload") == 0.5
    raw12 = publish_size(topic, 12 + 468, qos=0, version=5, alias=False)
    assert scrape("equivalent_bytes_total", encoding="raw12") == packets * raw12
    ratio = raw12 / publish_size(topic, 168, qos=0, version=5, alias=False)
    assert scrape("compression_ratio", against="raw12") == pytest.approx(ratio)


def test_json_is_measured_exactly(bundle: Bundle) -> None:
    wearer = Wearer(bundle, tick=123_456, sequence=99)
    packet = Packet.from_bytes(wearer.packet())
    codes = packet.codes(bundle.codebook)
    values = bundle.codebook.decode(codes)
    inner = ",".join("[" + ",".join(f"{value:.3f}" for value in sample) + "]" for sample in values)
    text = f'{{"tick":{packet.tick_ms},"seq":{packet.sequence},"values":[{inner}]}}'
    assert json.loads(text)["seq"] == 99
    assert JsonSize(bundle.codebook)(codes, tick=packet.tick_ms, sequence=packet.sequence) == len(text)


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("alias", [False, True])
def test_publish_bytes(qos: int, alias: bool) -> None:
    for payload in (1, 90, 100, 128, 244, 20_000):
        expected = publish_size("gammawear/v1/w1/imu", payload, qos=qos, version=5, alias=alias)
        assert publish_bytes(19, payload, qos, alias=alias) == expected


def test_the_score_is_absent_until_there_is_one(scrape: Scrape) -> None:
    assert b"live_accuracy_ratio{" not in scrape.text
    assert b"compression_ratio{" not in Scrape(scrape.rig.folder).text
    scrape.rig.label("w1", "WALKING", 0, 10_400)
    scrape.rig.pass_ms(1)
    assert scrape("live_accuracy_ratio", model="tiny@1", span="total") is not None
    assert scrape("scored_windows_total", model="tiny@1") == 19
    assert scrape("live_macro_f1_ratio", model="tiny@1", span="pure") is not None


def test_counters(scrape: Scrape, bundle: Bundle) -> None:
    rig = scrape.rig
    wearer = Wearer(bundle, "w2")
    wearer.send(rig, 3)
    wearer.packet()
    wearer.send(rig, 3)
    rig.pass_ms(1000)
    rig.feed("w2", b"nonsense that is long enough")
    rig.feed("w2", b"{", kind="status")
    rig.status("w2")
    rig.pipeline.feed("elsewhere", b"", rig.now_ns)
    assert scrape("accepted_packets_total") == 16
    assert scrape("lost_packets_total") == 1
    assert scrape("missing_samples_total") == 52
    assert scrape("rejected_packets_total", reason="checksum") == 1
    assert scrape("rejected_messages_total", reason="json") == 1
    assert scrape("rejected_messages_total", reason="topic") == 1
    assert scrape("received_messages_total", kind="other") == 1
    assert scrape("window_flushes_total", reason="gap") == 1
    assert scrape("devices", state="online") == 1
    assert scrape("devices", state="unannounced") == 1
    assert scrape("streaming_devices") == 2
    assert scrape("windows_total", model="tiny@1") == 19 + 5 + 5
    assert scrape("latency_seconds_count") == 29
    assert scrape("broker_connected") == 1
    assert scrape("bundle_info", model="tiny@1", codebook=bundle.codebook.digest.hex()[:16], code_width="4") == 1
    rig.feed("w2", b'{"state":"offline"}', kind="status")
    assert scrape("devices", state="online") == 0
    assert scrape("devices", state="offline") == 1
    assert len(rig.pipeline.devices.get("w2").buffer) > 0  # an offline device may come back


def test_no_label_comes_from_outside(scrape: Scrape) -> None:
    rig = scrape.rig
    before = scrape.text.count(b"\n")
    for i in range(1000):
        rig.pipeline.feed(f"gammawear/v1/x{i}/x{i}", b"", rig.now_ns)
        rig.feed(f"x{i}", b"\xff" * 20)
        rig.status(f"x{i}", sensor=f"s{i}")
        rig.label(f"x{i}", f"A{i}", 0, 1000)
    assert scrape.text.count(b"\n") == before
    assert b'device="' not in scrape.text
    assert scrape.text.count(b"rejected_packets_total{") == len(REASONS)


def test_series_of_silent_devices_are_removed(folder: Path, bundle: Bundle) -> None:
    scrape = Scrape(folder, per_device=True)
    Wearer(bundle, "old").send(scrape.rig, 3)
    scrape.rig.pass_ms(200_000)
    Wearer(bundle, "new").send(scrape.rig, 2)
    assert scrape("device_packets_total", device="old") == 3
    assert scrape("device_mqtt_bytes_per_second", device="new") == pytest.approx(191 / 1.04, rel=0.05)
    scrape.rig.pass_ms(100_000)
    assert scrape("device_packets_total", device="old") is None
    assert scrape("device_packets_total", device="new") == 2


def test_two_gateways_in_one_process(folder: Path) -> None:
    first, second = Scrape(folder), Scrape(folder)
    first.rig.feed("w1", b"")
    assert (first("rejected_packets_total", reason="length"), second("rejected_packets_total", reason="length")) == (
        1,
        0,
    )


def test_other_widths(tmp_path: Path) -> None:
    """Three bits, and a codebook of one channel."""
    for name, book in (("three", codebook(bits=3)), ("one", codebook(("acc_x",), rate_hz=100.0))):
        bundle = tiny_bundle(tmp_path, name, book=book)
        scrape = Scrape(tmp_path)
        Wearer(bundle, name, samples=80).send(scrape.rig, 4)
        assert scrape("bytes_per_value", level="payload") == pytest.approx(book.bits / 8)
