"""``gammawear device`` and ``gammawear gateway``: the two ends as services of their own."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from device_emulator.fleet import Fleet
from device_emulator.link import LinkSettings
from device_emulator.source import Source
from gammawear import options
from gammawear.logs import NOTES as _NOTES
from gammawear.options import (
    as_wrong_usage,
    bundle_dirs,
    parse_axes,
    port_is_free,
    run_command,
    takes_broker,
    until_stopped,
)
from gammawear.wearables import (
    WearableOptions,
    dataset_sources,
    part_for,
    synthetic_sources,
    trace_sources,
    wearables,
)
from models.device_part import DevicePart, load_device_part
from protocol.broker_settings import BrokerSettings
from quantization.errors import DatasetError

if TYPE_CHECKING:
    from gateway.service import Gateway
    from models.tasks import Material

logger = logging.getLogger(__name__)

DEFAULT_METRICS_PORT = 9464
"""Where exporters without a port of their own usually listen (OpenTelemetry's choice)."""
DEFAULT_PAGE_PORT = 9465
"""The next one."""
NO_DATASET = "{} is of recorded people: say with --dataset where they are"


@takes_broker
def device_command(
    count: Annotated[int | None, typer.Option(min=1, help="How many wearables.")] = None,
    bundle: options.DeviceBundle = "wrist6",
    dataset: Annotated[Path | None, typer.Option(help="Replay recorded people from this archive or folder.")] = None,
    subjects: Annotated[str | None, typer.Option(help="Of the data set, by comma; those held out if absent.")] = None,
    trace: Annotated[list[Path] | None, typer.Option(help="Replay this trace file; may repeat.")] = None,
    part: options.Part = None,
    rate: Annotated[float | None, typer.Option(min=5, max=1000, help="Hz of generated wearers.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated wearers.")] = 0,
    axes: Annotated[str | None, typer.Option(help="How the part is turned, such as 2,-1,3.")] = None,
    packet: Annotated[float, typer.Option(min=0.02, max=60, help="Seconds of signal in a packet, at most.")] = 1.0,
    qos: Annotated[int, typer.Option(min=0, max=1, help="0: may be lost; 1: acknowledged.")] = 1,
    speed: Annotated[float, typer.Option(min=0.01, max=1000, help=options.SPEED_HELP)] = 1.0,
    labels: Annotated[bool, typer.Option(help="Publish the truth beside the data.")] = True,
    loss: Annotated[float, typer.Option(min=0, max=1, help="Share of packets that the link loses.")] = 0.0,
    prefix: Annotated[str, typer.Option(help="Of the device ids.")] = "wearable",
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
    bundles: options.Bundles = None,
    as_json: options.AsJson = False,
    *,
    broker: BrokerSettings,
) -> None:
    """Emulate wearables that quantize and publish over MQTT. Ctrl-C ends them cleanly.

    Examples:

      gammawear device --count 20

      gammawear device --dataset sp_sw_har.zip --part bmi270 --host broker.local --tls
    """
    loaded = load_device_part(bundle, bundle_dirs(bundles))
    sources = make_sources(
        loaded, count=count, dataset=dataset, subjects=subjects, traces=trace, part=part, rate=rate, seed=seed
    )
    fleet = Fleet(
        wearables(
            sources,
            loaded,
            broker,
            WearableOptions(
                packet_s=packet,
                qos=cast("Literal[0, 1]", qos),
                speed=speed,
                labels=labels,
                axes=parse_axes(axes),
                link=LinkSettings(loss=loss, seed=seed) if loss else None,
                prefix=prefix,
            ),
        )
    )
    _NOTES.print(
        f"{len(sources)} wearables (source: {sources[0].kind}) with the codebook of {loaded.reference} "
        f"to {broker.host}:{broker.port}; Ctrl-C ends them"
    )
    run_command(until_stopped(fleet.run(), fleet.stop, seconds=seconds))
    done = "handed over" if fleet.unsent else "published"
    _NOTES.print(
        f"{fleet.packets_made} packets made, {fleet.packets_published} {done}, "
        f"{fleet.dropped} messages dropped{unsent_note(fleet.unsent)}",
        soft_wrap=True,
    )
    if as_json:
        result = {
            "wearables": len(sources),
            "source": sources[0].kind,
            "bundle": loaded.reference,
            "packets_made": fleet.packets_made,
            "packets_handed_over": fleet.packets_published,
            "packets_late": fleet.late,
            "messages_dropped": fleet.dropped,
            "messages_unsent": fleet.unsent,
        }
        typer.echo(json.dumps(result))


def unsent_note(unsent: int) -> str:
    """What to add to a summary when messages still waited at the end."""
    return f", {unsent} messages never sent: the broker had not taken them" if unsent else ""


def make_sources(
    bundle: DevicePart,
    *,
    count: int | None,
    dataset: Path | None = None,
    subjects: str | None = None,
    traces: list[Path] | None = None,
    part: str | None = None,
    rate: float | None = None,
    seed: int = 0,
    loop: bool = True,
) -> list[Source]:
    """What the wearables of a command wear: a data set's people, traces, or generated wearers.

    Raises:
        typer.BadParameter: options that do not go together.
    """
    if traces and any(option is not None for option in (count, dataset, subjects, part, rate)):
        raise typer.BadParameter(
            "--trace is one wearable for each file, as recorded: leave --count, --dataset, --subjects, --part and "
            "--rate out"
        )
    if dataset is None and subjects is not None:
        raise typer.BadParameter(NO_DATASET.format("--subjects"))
    if dataset is not None and rate is not None:
        raise typer.BadParameter("--rate is of generated wearers: leave it out, or --dataset")
    if traces:
        return trace_sources(traces, loop=loop)
    sensor = part_for(bundle, part)
    if dataset is None:
        return synthetic_sources(bundle, sensor, count=count or 1, seed=seed, rate_hz=rate)
    from models.evaluate import material_for

    with _NOTES.status(f"reading {dataset}"):
        material = material_for(bundle, dataset)
    people = chosen_people(bundle, material, subjects)
    return dataset_sources(bundle, material, sensor, subjects=people, count=count, loop=loop)


def chosen_people(bundle: DevicePart, material: Material, subjects: str | None) -> list[str]:
    """The subjects named, else those that the bundle was not trained on.

    Raises:
        DatasetError: one of them is not in this data, or nobody is left.
    """
    if subjects is not None:
        named = [name.strip() for name in subjects.split(",")]
        material.check_subjects(named)
        return named
    card = bundle.manifest.data
    seen = {*card.train_subjects, *card.validation_subjects}
    people = [subject for subject in material.subjects if subject not in seen]
    if not people:
        raise DatasetError(
            f"{bundle.reference} was trained on everybody in this data: say with --subjects whom to replay all the "
            f"same ({', '.join(material.subjects)})"
        )
    return people


@takes_broker
def gateway_command(
    bundles: options.Bundles = None,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Of /metrics; 0 for any.")] = DEFAULT_METRICS_PORT,
    metrics_address: Annotated[str, typer.Option(help="0.0.0.0 for other machines.")] = "127.0.0.1",
    page_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help=f"Of the live page; 0 for any; {DEFAULT_PAGE_PORT}, or any if that is taken."
        ),
    ] = None,
    page_address: Annotated[str, typer.Option(help="0.0.0.0 for other machines.")] = "127.0.0.1",
    page_host: Annotated[
        list[str] | None, typer.Option(help="A name under which the page answers, as of a proxy before it; may repeat.")
    ] = None,
    page_token_file: Annotated[
        Path | None, typer.Option(help="Whoever sends the token in it may label; without, the page is read-only.")
    ] = None,
    page: Annotated[bool, typer.Option(help="Serve the live page.")] = True,
    previews: Annotated[
        bool | None, typer.Option(help="Show what cameras see on the page; by default to this machine only.")
    ] = None,
    per_device: Annotated[bool, typer.Option(help="Series for each device: for small fleets.")] = False,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Windows that the network takes at once.")] = 64,
    deadline: Annotated[
        float, typer.Option(min=0, max=10_000, help="Milliseconds that a window waits for others.")
    ] = 20.0,
    client_id: Annotated[str, typer.Option(help="Names the session that the broker keeps.")] = "gammawear-gateway",
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
    as_json: options.AsJson = False,
    *,
    broker: BrokerSettings,
) -> None:
    """Receive, recognise, publish predictions, and serve /metrics. Ctrl-C ends it cleanly.

    Examples:

      gammawear gateway --host broker.local --bundles runs

      GAMMAWEAR_USERNAME=gateway GAMMAWEAR_PASSWORD=... gammawear gateway --tls
    """
    import torch

    from gateway.service import Gateway, GatewaySettings

    torch.set_num_threads(1)  # several threads for such small batches only get in each other's way
    with as_wrong_usage():
        settings = GatewaySettings(
            broker=broker,
            client_id=client_id,
            bundle_dirs=bundle_dirs(bundles),
            batch_size=batch,
            batch_deadline_ms=deadline,
            metrics_port=metrics_port,
            metrics_address=metrics_address,
            page_port=_page_port(page_port, page_address) if page else None,
            page_address=page_address,
            page_hosts=tuple(page_host or ()),
            page_token_file=page_token_file,
            per_device=per_device,
            previews=previews,
        )  # fmt: skip
    gateway = Gateway(settings)
    run_command(until_stopped(_announced(gateway), gateway.stop, seconds=seconds))
    summary = gateway.summary()
    frames = {"frames": gateway.cameras.totals.frames, "frames_looked_at": gateway.cameras.answers.total()}
    seen = f"; {frames['frames']} frames, {frames['frames_looked_at']} looked at" if frames["frames"] else ""
    _NOTES.print(f"{summary.packets} packets, {summary.lost} lost, {summary.answers} answers{seen}")
    if as_json:
        typer.echo(json.dumps(asdict(summary) | frames))


async def _announced(gateway: Gateway) -> None:
    """Run it, and say where it is found once it is there."""
    from gateway.live.server import url_of

    running = asyncio.ensure_future(gateway.run())
    listening = asyncio.ensure_future(gateway.listening.wait())
    try:
        await asyncio.wait((running, listening), return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            settings = gateway.settings
            activities = [bundle.reference for bundle in gateway.bundles.serving]
            names = ", ".join([*activities, *(bundle.reference for bundle in gateway.detectors.serving)])
            metrics = f"metrics on {url_of(settings.metrics_address, gateway.metrics_port or 0)}metrics"
            _NOTES.print(f"serving {names} from {settings.broker.address}; {metrics}", soft_wrap=True)
            if gateway.page_port is not None:
                _NOTES.print(f"page: {url_of(settings.page_address, gateway.page_port)}", soft_wrap=True)
        await running
    finally:
        listening.cancel()
        running.cancel()
        await asyncio.gather(listening, running, return_exceptions=True)


def _page_port(asked: int | None, address: str) -> int:
    """What was asked for, else the usual port or, if it is taken, any: the page must not keep a gateway from work."""
    if asked is not None:
        return asked
    if port_is_free(address, DEFAULT_PAGE_PORT):
        return DEFAULT_PAGE_PORT
    _NOTES.print(f"port {DEFAULT_PAGE_PORT} is taken: the page goes to another one")
    return 0
