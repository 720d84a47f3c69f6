"""The gateway as a whole: pipeline, batcher, broker and metrics, for a process of its own or inside another program.

::

    gateway = Gateway(GatewaySettings(broker=BrokerSettings(port=1883), metrics_port=9464))
    running = asyncio.create_task(gateway.run())
    await gateway.wait_connected(10)
    for view in gateway.snapshot(): ...
    await gateway.stop()
    await running
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict, Field

from gateway.batcher import MicroBatcher
from gateway.bundles import BundleStore, DetectorStore
from gateway.camera_metrics import CameraMetrics
from gateway.cameras import Cameras
from gateway.detection import DetectionQueue
from gateway.exposition import serving_metrics
from gateway.live.guard import Hosts, is_loopback, read_token
from gateway.live.page import LivePage
from gateway.live.server import serving_page
from gateway.metrics import SILENT_AFTER_S, GatewayMetrics
from gateway.pipeline import Limits, Pipeline
from gateway.refusals import Refusals
from gateway.subscriber import Subscriber
from gateway.views import DeviceView, Summary, summarise, view_device
from models.bundle import SHIPPED
from models.vision.bundle import SHIPPED as SHIPPED_DETECTORS
from protocol.broker_settings import BrokerSettings
from protocol.connection import Received

logger = logging.getLogger(__name__)

SWEEP_S: Final = 0.1
"""A third of the time for which packets are held back, so that this adds little to it."""
DRAIN_S: Final = 2.0
"""A stop waits so long for windows that are in the queue."""


class GatewaySettings(BaseModel):
    """Everything that can be set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    broker: BrokerSettings = BrokerSettings()
    client_id: str = Field(default="gammawear-gateway", min_length=1, max_length=64)
    """Names the persistent session; each gateway at one broker needs its own."""
    bundle_dirs: tuple[Path, ...] = (SHIPPED,)
    bundle_poll_s: float = Field(default=5.0, gt=0)
    batch_size: int = Field(default=64, ge=1, le=1024)
    batch_deadline_ms: float = Field(default=20.0, ge=0, le=10_000)
    """A window waits so long for others: part of the latency."""
    queue_windows: int = Field(default=4096, ge=1)
    limits: Limits = Limits()
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """None: no HTTP server; 0: any free port (:attr:`Gateway.metrics_port` says which)."""
    metrics_address: str = "127.0.0.1"
    page_port: int | None = Field(default=None, ge=0, le=65_535)
    """None: no page; 0: any free port (:attr:`Gateway.page_port` says which)."""
    page_address: str = "127.0.0.1"
    page_hosts: tuple[str, ...] = ()
    """Names under which the page answers beside its address and those of this machine: that of a proxy before it."""
    page_token_file: Path | None = None
    """Who sends the token in it may label and ask for raw samples; None: the page is read-only."""
    previews: bool | None = None
    """Show what cameras see on the page; None: only on a loopback address."""
    per_device: bool = False
    """Series of each device: only for a bounded, trusted fleet."""
    silent_after_s: float = Field(default=SILENT_AFTER_S, gt=0)
    """With ``per_device``, the series of a device silent for so long are removed."""


class Gateway:
    """Receives, predicts, explains.

    Args:
        settings: see there.

    Attributes:
        pipeline: all state, to be read on the loop only.
        registry: the metrics, for a program that serves them itself.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.bundles = BundleStore(settings.bundle_dirs)
        if not self.bundles:
            logger.warning("no bundle in %s yet: packets are refused", ", ".join(map(str, settings.bundle_dirs)))
        self.batcher = MicroBatcher(
            size=settings.batch_size,
            deadline_s=settings.batch_deadline_ms / 1000,
            queue_limit=settings.queue_windows,
        )
        self._subscriber = Subscriber(settings.broker, settings.client_id, self._feed)
        self.detectors = DetectorStore((*settings.bundle_dirs, SHIPPED_DETECTORS))
        self.detection = DetectionQueue()
        refusals = Refusals()
        self.cameras = Cameras(
            self.detectors, submit=self.detection.put, publish=self._subscriber.publish, refusals=refusals
        )
        self.pipeline = Pipeline(
            self.bundles,
            submit=self.batcher.put,
            publish=self._subscriber.publish,
            limits=settings.limits,
            cameras=self.cameras,
            refusals=refusals,
        )
        self.registry = CollectorRegistry()
        GatewayMetrics(
            self.registry,
            self.pipeline,
            batcher=self.batcher,
            link=self._subscriber.connection,
            per_device=settings.per_device,
            silent_after_s=settings.silent_after_s,
        )
        CameraMetrics(self.registry, self.cameras, self.detection, refusals)
        self.metrics_port: int | None = None
        self.page_port: int | None = None
        self.listening = asyncio.Event()
        """Set once metrics and page are served, if they are to be."""
        self.page: LivePage | None = None

    async def run(self) -> None:
        """Serve until :meth:`stop` or cancelled (then the broker says offline for us).

        Raises:
            ConnectError: the broker refuses us for good.
            MetricsServerError: the metrics' address cannot be used.
            PageServerError: the page's address or token cannot be used.
        """
        async with self._serving_metrics(), self._serving_page():
            self.listening.set()
            connected = asyncio.create_task(self._subscriber.run())
            tasks = [
                connected,
                asyncio.create_task(self.batcher.run(self.pipeline.answered)),
                asyncio.create_task(self.detection.run(self.cameras.answered)),
                asyncio.create_task(self._sweep()),
                asyncio.create_task(self._poll_bundles()),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def wait_connected(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as Connection has it
        """Wait until messages come in.

        Raises:
            ConnectError: not within ``timeout`` seconds.
        """
        await self._subscriber.connection.wait_connected(timeout)

    async def stop(self) -> None:
        """Answer what is in the queue, publish offline, disconnect; :meth:`run` returns."""
        if self.connected or len(self.batcher) or len(self.detection):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(self.batcher.drain(), self.detection.drain()), DRAIN_S)
        left = [len(device.buffer) for device in self.pipeline.devices if len(device.buffer)]
        logger.info("stopping: %d samples of %d devices did not make a window", sum(left), len(left))
        await self._subscriber.stop()

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the broker."""
        return self._subscriber.connection.connected

    def snapshot(self) -> list[DeviceView]:
        """Every known device as it is now, by id."""
        now_ns = time.time_ns()
        pipeline = self.pipeline
        views = (view_device(device, pipeline.state_of(device), now_ns) for device in pipeline.devices)
        return sorted(views, key=lambda view: view.device)

    def summary(self) -> Summary:
        """The whole as it is now."""
        return summarise(self.pipeline, time.time_ns(), dropped=self.batcher.dropped)

    def _feed(self, message: Received) -> None:
        self.pipeline.feed(
            message.topic, message.payload, message.received_ns,
            qos=message.qos, retain=message.retain, taken_ns=message.taken_ns,
        )  # fmt: skip

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.pipeline.sweep()

    async def _poll_bundles(self) -> None:
        while True:
            await asyncio.sleep(self.settings.bundle_poll_s)
            if await asyncio.to_thread(self.bundles.reload):
                self.pipeline.bundles_changed()
            await asyncio.to_thread(self.detectors.reload)

    @contextlib.asynccontextmanager
    async def _serving_metrics(self) -> AsyncIterator[None]:
        port = self.settings.metrics_port
        if port is None:
            yield
            return
        async with serving_metrics(self.registry, self.settings.metrics_address, port) as self.metrics_port:
            try:
                yield
            finally:
                self.metrics_port = None

    @contextlib.asynccontextmanager
    async def _serving_page(self) -> AsyncIterator[None]:
        settings = self.settings
        if settings.page_port is None:
            yield
            return
        loopback = is_loopback(settings.page_address)
        hosts = Hosts(settings.page_address, settings.page_hosts)
        if settings.page_token_file is not None and not loopback and not settings.page_hosts:
            logger.warning(
                "the page's token can be read on the way to %s: put a proxy with TLS before the page and give its name "
                "with --page-host",
                settings.page_address,
            )
        page = LivePage(
            self.pipeline,
            self.batcher,
            self.cameras,
            self._subscriber.connection,
            self._subscriber.tell,
            previews=loopback if settings.previews is None else settings.previews,
            token=read_token(settings.page_token_file) if settings.page_token_file is not None else None,
        )
        self.page = page
        async with (
            serving_page(page.app(hosts), settings.page_address, settings.page_port) as self.page_port,
            page.running(),
        ):
            try:
                yield
            finally:
                self.page_port = None
