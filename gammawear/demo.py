"""``gammawear demo``: a broker, wearables and a gateway in one process, and a table of what happens."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

import typer

from device_emulator.fleet import Fleet
from gammawear import options
from gammawear.broker import RunningBroker, local_broker
from gammawear.completion import bundle_names, detector_names, part_names
from gammawear.demo_cameras import camera_fleet, camera_result
from gammawear.demo_screen import picture, print_summary, save_picture, screen, summary_line
from gammawear.logs import NOTES as _NOTES
from gammawear.options import bundle_dirs, check_picture, port_is_free, run_command, until_stopped
from gammawear.serve import DEFAULT_METRICS_PORT, NO_DATASET, chosen_people
from gammawear.wearables import WearableOptions, dataset_sources, part_for, synthetic_sources, wearables
from models.bundle_files import SHIPPED_DETECTORS
from models.tasks import Material

if TYPE_CHECKING:
    from rich.console import Group

    from gateway.service import Gateway
    from gateway.views import DeviceView, Summary
    from models.bundle import Bundle
    from models.vision.bundle import DetectorBundle

DEFAULT_WEARABLES: Final = 8
POLL_S: Final = 0.02
SETTLE_S: Final = 3.0
"""The last packets and labels are on their way when the wearables stop."""


@dataclass(frozen=True)
class DemoOptions:
    """What to show."""

    bundle: Bundle
    material: Material | None
    people: list[str]
    wearables: int | None
    cameras: int
    detector: DetectorBundle | None
    part: str | None
    seed: int
    speed: float
    qos: Literal[0, 1]
    broker: Literal["mosquitto", "amqtt"] | None
    metrics_port: int
    page_port: int
    page_token_file: Path | None
    per_device: bool
    seconds: float | None
    once: bool


def demo_command(
    wearable_count: Annotated[int | None, typer.Option("--wearables", min=1, help="How many wearables.")] = None,
    camera_count: Annotated[int, typer.Option("--cameras", min=0, max=16, help="How many cameras; 0 for none.")] = 1,
    bundle: Annotated[
        str, typer.Option(help="What recognises, and what the wearables quantize with.", autocompletion=bundle_names)
    ] = "wrist6",
    detector: Annotated[
        str, typer.Option(help="What looks at frames, and what cameras quantize with.", autocompletion=detector_names)
    ] = "street",
    dataset: Annotated[
        Path | None, typer.Option(help="Replay recorded people who were not trained on (archive or folder).")
    ] = None,
    subjects: Annotated[str | None, typer.Option(help="Other people of the data set, separated by commas.")] = None,
    once: Annotated[bool, typer.Option("--once", help="With --dataset: play every recording once, then end.")] = False,
    part: Annotated[
        str | None, typer.Option(help="Sensor to emulate, such as bmi270.", autocompletion=part_names)
    ] = None,
    speed: Annotated[float, typer.Option(min=0.01, max=1000, help=options.SPEED_HELP)] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated wearers.")] = 0,
    seconds: Annotated[float | None, typer.Option(min=1, help="End after so long; else on Ctrl-C.")] = None,
    qos: Annotated[int, typer.Option(min=0, max=1)] = 1,
    broker: Annotated[
        str | None, typer.Option(help="mosquitto or amqtt (embedded); the best there is if absent.")
    ] = None,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Of /metrics; 0 for any.")] = DEFAULT_METRICS_PORT,
    page_port: Annotated[int, typer.Option(min=0, max=65535, help="Of the live page; 0 for any.")] = 0,
    page_token_file: Annotated[
        Path | None, typer.Option(help="Whoever sends the token in it may label; without, the page is read-only.")
    ] = None,
    bundles: options.Bundles = None,
    picture: Annotated[Path | None, typer.Option(help="Write the last table to this SVG.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The summary as one JSON object, last on standard output.")
    ] = False,
) -> None:
    """Show it: wearables stream 4-bit codes, the gateway recognises live, and the bandwidth saved is counted.

    Needs nothing else: starts mosquitto if it is installed, else an embedded broker; wearers are generated (fitted to
    recorded people, and marked synthetic) unless --dataset gives recorded ones.

    Examples:

      gammawear demo

      gammawear demo --wearables 20 --seconds 60

      gammawear demo --dataset sp_sw_har.zip --once --json
    """
    if picture is not None:
        check_picture(picture, (".svg",))
    if broker not in (None, "mosquitto", "amqtt"):
        raise typer.BadParameter(f"--broker is mosquitto or amqtt, not {broker!r}")
    if dataset is None and (subjects is not None or once):
        raise typer.BadParameter(NO_DATASET.format("--once" if once else "--subjects"))
    import torch

    from models.bundle import load_bundle
    from models.evaluate import material_for
    from models.vision.bundle import load_detector

    torch.set_num_threads(1)
    _NOTES.print(f"loading {bundle}")
    folders = bundle_dirs(bundles)
    loaded = load_bundle(bundle, folders)
    watching = camera_count > 0 and not once  # a scene has no end
    looks = load_detector(detector, (*(bundles or ()), SHIPPED_DETECTORS)) if watching else None
    material = None
    people: list[str] = []
    if dataset is not None:
        with _NOTES.status(f"reading {dataset}"):
            material = material_for(loaded, dataset)
        people = chosen_people(loaded, material, subjects)
    demo = Demo(
        DemoOptions(
            bundle=loaded,
            material=material,
            people=people,
            wearables=wearable_count,
            cameras=camera_count if watching else 0,
            detector=looks,
            part=part,
            seed=seed,
            speed=speed,
            qos=cast("Literal[0, 1]", qos),
            broker=cast("Any", broker),
            metrics_port=metrics_port,
            page_port=page_port,
            page_token_file=page_token_file,
            per_device=(wearable_count or DEFAULT_WEARABLES) <= 50,
            seconds=seconds,
            once=once,
        ),
        folders,
    )
    result = run_command(demo.run())
    if material is not None:
        result |= _offline(loaded, material, people)
    print_summary(result)
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    if picture is not None and demo.last is not None:
        save_picture(demo.last, picture)


class Demo:
    """One demonstration, from the broker's start to the summary.

    Attributes:
        last: the table as it was at the end.
    """

    def __init__(self, options: DemoOptions, bundle_folders: tuple[Path, ...]) -> None:
        self._options = options
        self._folders = bundle_folders
        self._source = "dataset" if options.material is not None else "synthetic"
        self.last: Group | None = None

    async def run(self) -> dict[str, Any]:
        """Run until Ctrl-C, the time is up, or the recordings have ended; return the summary."""
        started = time.monotonic()
        _NOTES.print("starting a broker")
        async with local_broker(prefer=self._options.broker) as broker:
            gateway = self._gateway(broker)
            fleet, watch = self._fleet(broker), self._watch(broker)
            _NOTES.print(
                f"{broker.name} on port {broker.port}; {len(fleet.publishers)} wearables ({self._source}), "
                f"{len(watch.publishers)} cameras (synthetic)"
            )
            serving = asyncio.create_task(gateway.run())
            try:
                await _first(serving, gateway.wait_connected(10))
                _NOTES.print(f"metrics: http://127.0.0.1:{gateway.metrics_port}/metrics")
                _NOTES.print(f"page: http://127.0.0.1:{gateway.page_port}/")
                async with screen(
                    lambda: self._picture(gateway, broker, started), lambda: summary_line(gateway.summary())
                ):
                    work = _first(serving, _both(fleet.run(), watch.run()))
                    await until_stopped(work, lambda: _both(fleet.stop(), watch.stop()), seconds=self._options.seconds)
                    await _settle(gateway, fleet, watch)
                views = gateway.snapshot()
                self.last = self._picture(gateway, broker, started)
                await gateway.stop()
                await serving
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
            result = self._result(gateway.summary(), views, fleet, broker, time.monotonic() - started)
            return result | ({"camera": camera_result(gateway.cameras, watch)} if watch.publishers else {})

    def _picture(self, gateway: Gateway, broker: RunningBroker, started: float) -> Group:
        chosen = self._options.bundle
        title = (
            f"gammawear demo · {chosen.reference} · {chosen.codebook.bits}-bit codes · "
            f"source: {self._source} · {broker.name} · {time.monotonic() - started:.0f} s"
        )
        return picture(gateway, title)

    def _gateway(self, broker: RunningBroker) -> Gateway:
        from gateway.service import Gateway, GatewaySettings

        return Gateway(
            GatewaySettings(
                broker=broker.settings,
                bundle_dirs=self._folders,
                metrics_port=_free_or_any(self._options.metrics_port),
                page_port=self._options.page_port,
                page_token_file=self._options.page_token_file,
                per_device=self._options.per_device,
            )
        )

    def _fleet(self, broker: RunningBroker) -> Fleet:
        chosen = self._options
        sensor = part_for(chosen.bundle, chosen.part)
        if chosen.material is None:
            sources = synthetic_sources(
                chosen.bundle, sensor, count=chosen.wearables or DEFAULT_WEARABLES, seed=chosen.seed, rate_hz=None
            )
        else:
            sources = dataset_sources(
                chosen.bundle, chosen.material, sensor, subjects=chosen.people, count=chosen.wearables,
                loop=not chosen.once,
            )  # fmt: skip
        shared = WearableOptions(qos=chosen.qos, speed=chosen.speed)
        return Fleet(wearables(sources, chosen.bundle, broker.settings, shared))

    def _watch(self, broker: RunningBroker) -> Fleet:
        chosen = self._options
        if chosen.detector is None:
            return Fleet([])
        return camera_fleet(
            chosen.detector, broker.settings, count=chosen.cameras, seed=chosen.seed, speed=chosen.speed
        )

    def _result(
        self, summary: Summary, views: list[DeviceView], fleet: Fleet, broker: RunningBroker, seconds: float
    ) -> dict[str, Any]:
        p50, p90, p99 = summary.latency_ms or (None, None, None)
        return {
            "source": self._source,
            "bundle": self._options.bundle.reference,
            "bits": self._options.bundle.codebook.bits,
            "broker": broker.name,
            "wearables": len(fleet.publishers),
            "seconds": round(seconds, 1),
            "speed": self._options.speed,
            "macro_f1": summary.macro_f1,
            "accuracy": summary.accuracy,
            "windows": summary.windows,
            "scored_windows": summary.scored,
            "bits_per_sample": summary.bits_per_value,
            "payload_bits_per_sample": summary.payload_bits_per_value,
            "compression_over_12_bit_mqtt": summary.compression,
            "latency_ms": {"p50": p50, "p90": p90, "p99": p99},
            "age_ms_p50": summary.age_ms if self._options.speed == 1.0 else None,
            "packets_sent": fleet.packets_published,
            "packets_received": summary.packets,
            "packets_lost": summary.lost,
            "packets_rejected": summary.rejected,
            "packets_duplicate": summary.duplicate,
            "wearables_seen": len(views),
        }


def _offline(bundle: Bundle, material: Material, people: list[str]) -> dict[str, Any]:
    """The same people, the same rule, all of their windows: what the live figure should come close to."""
    from models.evaluate import evaluate

    report = evaluate(bundle, material, subjects=sorted(set(people)))
    return {
        "subjects": list(report.subjects),
        "offline_macro_f1": report.scores.macro_f1,
        "offline_accuracy": report.scores.accuracy,
    }


async def _first(service: asyncio.Task[None], work: Awaitable[None]) -> None:
    """Await ``work``, but fail at once when the service ends before."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({service, task}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            service.result()
        else:
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _both(first: Awaitable[None], second: Awaitable[None]) -> None:
    await asyncio.gather(first, second)


async def _settle(gateway: Gateway, fleet: Fleet, watch: Fleet) -> None:
    """Wait until what was sent has arrived, but not for ever: a link may have lost some."""
    for _ in range(round(SETTLE_S / POLL_S)):
        frames = gateway.cameras.totals.frames
        if gateway.summary().packets >= fleet.packets_published and frames >= watch.packets_published:
            break
        await asyncio.sleep(POLL_S)
    await asyncio.sleep(0.2)  # the windows of the last packets, and the labels behind them


def _free_or_any(port: int) -> int:
    """The port itself if nobody has it, else 0: a second demo beside the first is no reason to fail."""
    if port_is_free("127.0.0.1", port):
        return port
    _NOTES.print(f"port {port} is taken: metrics go to another one")
    return 0
