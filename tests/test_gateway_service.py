from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from factories import codebook, tiny_bundle
from test_gateway_support import Wearer

from gateway.exposition import MetricsServerError
from gateway.service import Gateway, GatewaySettings
from models.bundle import Bundle
from protocol.broker_settings import BrokerSettings
from protocol.connection import Connection, Received
from protocol.messages import Activity, Label, Status
from quantization.errors import ConnectError


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundles")


def settings(mosquitto: Any, tmp_path: Path, **more: Any) -> GatewaySettings:
    return GatewaySettings(
        broker=mosquitto.settings, bundle_dirs=(tmp_path / "bundles",), metrics_port=0, batch_deadline_ms=5, **more
    )


@contextlib.asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[Gateway]:
    running = asyncio.create_task(gateway.run())
    try:
        await gateway.wait_connected(10)
        yield gateway
    finally:
        await gateway.stop()
        await asyncio.wait_for(running, 10)


@contextlib.asynccontextmanager
async def client(mosquitto: Any, name: str, *filters: str) -> AsyncIterator[tuple[Connection, list[Received]]]:
    got: list[Received] = []
    connection = Connection(
        mosquitto.settings, name, subscriptions=tuple((one, 1) for one in filters), on_message=got.append
    )
    running = asyncio.create_task(connection.run())
    await connection.wait_connected(10)
    try:
        yield connection, got
    finally:
        await connection.stop()
        await running


async def until(condition: Callable[[], bool], *, within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - nothing tells when a broker has delivered
            await asyncio.sleep(0.01)


async def fetch(port: int | None) -> str:
    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()

    return await asyncio.to_thread(get)


async def test_from_packets_to_activities_and_metrics(mosquitto: Any, tmp_path: Path, bundle: Bundle) -> None:
    wearer = Wearer(bundle)
    async with serving(Gateway(settings(mosquitto, tmp_path))) as gateway, client(mosquitto, "w1") as (device, _):
        said = Status(state="online", source="synthetic", rate_hz=50.0, codebook=bundle.codebook.digest.hex())
        device.publish("gammawear/v1/w1/status", said.to_json(), qos=1, retain=True)
        for _ in range(10):
            device.publish("gammawear/v1/w1/imu", wearer.packet(), qos=1)
        label = Label(activity="WALKING", from_tick=0, to_tick=10_400)
        device.publish("gammawear/v1/w1/label", label.to_json(), qos=1)
        device.publish("gammawear/v1/w1/imu", b"nonsense, and nothing happens", qos=1)
        await until(lambda: gateway.summary().scored == 19 and gateway.summary().rejected == 1)

        summary = gateway.summary()
        assert (summary.packets, summary.lost, summary.windows, summary.answers) == (10, 0, 19, 19)
        assert summary.bits_per_value == pytest.approx(168 * 8 / 312)
        assert summary.macro_f1 is not None
        assert summary.latency_ms is not None
        assert summary.latency_ms[0] <= summary.latency_ms[2] < 5_000
        (view,) = gateway.snapshot()
        assert (view.device, view.source, view.online, view.streaming) == ("w1", "synthetic", True, True)
        assert (view.truth, view.packets, view.lost, view.model) == ("WALKING", 10, 0, "tiny@1")
        assert view.bytes_per_s == pytest.approx(168 / 1.04)
        assert view.raw12_bytes_per_s > view.mqtt_bytes_per_s > view.bytes_per_s

        await until(lambda: bool(gateway.pipeline.scores))
        text = await fetch(gateway.metrics_port)
        assert "gammawear_accepted_packets_total 10.0" in text
        assert 'gammawear_live_accuracy_ratio{model="tiny@1",span="total"}' in text
        assert 'gammawear_rejected_packets_total{reason="checksum"} 1.0' in text
        assert "gammawear_broker_connected 1.0" in text

        async with client(mosquitto, "late", "gammawear/v1/+/activity", "gammawear/v1/gateway/status") as (_, got):
            await until(lambda: len(got) == 2)
            assert all(one.retain for one in got)
            by_topic = {one.topic: one.payload for one in got}
            activity = Activity.parse(by_topic["gammawear/v1/w1/activity"])
            assert (activity.model, activity.source, activity.activity) == ("tiny@1", "synthetic", view.activity)
            assert Status.parse(by_topic["gammawear/v1/gateway/status"]).state == "online"
        port = gateway.metrics_port
    with pytest.raises(OSError, match="refused"):
        await fetch(port)
    async with client(mosquitto, "later", "gammawear/v1/gateway/status") as (_, got):
        await until(lambda: len(got) == 1)
        assert Status.parse(got[0].payload).state == "offline"


async def test_what_comes_while_the_gateway_is_down_waits_at_the_broker(
    mosquitto: Any, tmp_path: Path, bundle: Bundle
) -> None:
    wearer = Wearer(bundle)
    async with client(mosquitto, "w1") as (device, _):
        async with serving(Gateway(settings(mosquitto, tmp_path))) as gateway:
            device.publish("gammawear/v1/w1/imu", wearer.packet(), qos=1)
            await until(lambda: gateway.summary().packets == 1)
        for _ in range(20):
            device.publish("gammawear/v1/w1/imu", wearer.packet(), qos=1)
        assert await device.flush(10)
        async with serving(Gateway(settings(mosquitto, tmp_path))) as gateway:
            await until(lambda: gateway.summary().packets == 20)
            assert gateway.summary().lost == 0


async def test_a_broker_that_restarts(mosquitto: Any, tmp_path: Path, bundle: Bundle) -> None:
    wearer = Wearer(bundle)
    async with serving(Gateway(settings(mosquitto, tmp_path))) as gateway, client(mosquitto, "w1") as (device, _):
        for _ in range(5):
            device.publish("gammawear/v1/w1/imu", wearer.packet(), qos=1)
        await until(lambda: gateway.summary().packets == 5)
        await mosquitto.stop()
        for _ in range(5):
            device.publish("gammawear/v1/w1/imu", wearer.packet(), qos=1)
        await mosquitto.start()
        await until(lambda: gateway.summary().packets == 10, within_s=30)
        assert gateway.summary().lost == 0
        await until(lambda: gateway.summary().answers == 19)


async def test_a_bundle_that_comes_later(mosquitto: Any, tmp_path: Path, bundle: Bundle) -> None:
    wearer = Wearer(bundle)
    gateway = Gateway(settings(mosquitto, tmp_path, bundle_poll_s=0.05))
    async with serving(gateway), client(mosquitto, "w1") as (device, _):
        device.publish("gammawear/v1/w1/imu", wearer.packet())
        await until(lambda: gateway.summary().packets == 1)
        other = tiny_bundle(tmp_path / "bundles", "flat", book=codebook(curved=False))
        await until(lambda: len(gateway.bundles) == 2)
        device.publish("gammawear/v1/w1/imu", wearer.packet())
        device.publish("gammawear/v1/w2/imu", Wearer(other, "w2").packet())
        await until(lambda: gateway.summary().packets == 3)
        assert gateway.pipeline.flushes == {}


async def test_stop_answers_what_is_in_the_queue(mosquitto: Any, tmp_path: Path, bundle: Bundle) -> None:
    gateway = Gateway(settings(mosquitto, tmp_path).model_copy(update={"batch_deadline_ms": 500.0}))
    async with serving(gateway), client(mosquitto, "w1") as (device, _):
        device.publish("gammawear/v1/w1/imu", Wearer(bundle).packet(), qos=1)
        await until(lambda: gateway.summary().windows == 1)
        assert gateway.summary().answers == 0
        await gateway.stop()
        assert gateway.summary().answers == 1


async def test_a_port_that_is_taken_is_said(mosquitto: Any, tmp_path: Path, bundle: Bundle) -> None:
    assert bundle
    async with serving(Gateway(settings(mosquitto, tmp_path))) as first:
        second = Gateway(settings(mosquitto, tmp_path).model_copy(update={"metrics_port": first.metrics_port}))
        with pytest.raises(MetricsServerError, match=str(first.metrics_port)):
            await second.run()


async def test_no_broker(tmp_path: Path, bundle: Bundle, free_port: int) -> None:
    assert bundle
    gateway = Gateway(
        GatewaySettings(broker=BrokerSettings(port=free_port), bundle_dirs=(tmp_path / "bundles",), metrics_port=None)
    )
    running = asyncio.create_task(gateway.run())
    with pytest.raises(ConnectError):
        await gateway.wait_connected(0.3)
    await gateway.stop()
    await asyncio.wait_for(running, 10)
