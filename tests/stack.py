"""A broker, wearables and a gateway that run together: what tests of the whole share.

Times are the wearers' own, at many seconds in one; what a test waits for is a state, never a moment. The longest wait
for one is :data:`PATIENCE_S`, for machines that are busy with something else. How many samples a packet has, and when
windows begin, follows from the bundle and the device: nothing here assumes a rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from needed import need

from device_emulator.fleet import Fleet
from device_emulator.publisher import DevicePublisher
from gammawear.wearables import WearableOptions, synthetic_sources, wearables
from gateway.service import Gateway, GatewaySettings
from gateway.windows import Window
from models.bundle import SHIPPED, Bundle, Prediction, load_bundle
from protocol.broker_settings import BrokerSettings
from protocol.connection import Connection, Received
from protocol.messages import Activity
from protocol.topics import Kind, parse

HAR = Path(__file__).parents[2] / "shared" / "data" / "har"
PATIENCE_S = 60.0


def archive(name: str) -> Path:
    """A published archive of recordings. Where continuous integration runs, it has to be there."""
    path = HAR / name
    need(path.exists(), str(path))
    return path


@pytest.fixture(scope="module")
def wrist6() -> Bundle:
    return load_bundle("wrist6")


@pytest.fixture(scope="module")
def wrist3() -> Bundle:
    return load_bundle("wrist3")


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


# -- samples, packets, windows ----------------------------------------------------------------------------------------


def tick_of(sample: int, rate_hz: float) -> int:
    """Milliseconds from the first sample to this one, rounded half up as devices do."""
    rate = Fraction(rate_hz).limit_denominator(1_000_000)
    return int(1000 * sample / rate + Fraction(1, 2))


def packet_samples(publisher: DevicePublisher) -> int:
    """In each packet of a device: none was cut shorter."""
    device = publisher.device
    samples = round(device.packet_period_s * device.source.rate_hz)
    assert device.samples_made == device.packets_made * samples
    return samples


def windows_in(samples: int, bundle: Bundle) -> int:
    """So many windows has an unbroken stretch."""
    window, stride = bundle.manifest.window, bundle.manifest.stride
    return max(0, (samples - window) // stride + 1)


def window_starts(samples: int, bundle: Bundle, *, first: int = 0) -> list[int]:
    """Ticks at which the windows of an unbroken stretch begin, at the bundle's own rate.

    Args:
        samples: from the device's first to the stretch's last.
        bundle: whose windows.
        first: sample with which the stretch begins.
    """
    manifest = bundle.manifest
    count = windows_in(samples - first, bundle)
    return [tick_of(first + n * manifest.stride, manifest.rate_hz) for n in range(count)]


def starts_of(publisher: DevicePublisher, bundle: Bundle) -> list[int]:
    """The same for a device of which not one packet is missing."""
    return window_starts(publisher.packets_made * packet_samples(publisher), bundle)


# -- what came of it --------------------------------------------------------------------------------------------------


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
