"""``gammawear wearable``, ``bridge`` and ``record``: the ends of a Bluetooth link."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gammawear import options
from gammawear.completion import bundle_names
from gammawear.logs import NOTES as _NOTES
from gammawear.options import bundle_dirs, parse_axes, run_command, takes_broker, until_stopped
from gammawear.serve import make_sources
from models.device_part import load_device_part
from protocol.broker_settings import BrokerSettings
from protocol.topics import check_device_id
from protocol.trace import SUFFIX
from quantization.errors import GammawearError, MessageError

if TYPE_CHECKING:
    from device_emulator.ble.bridge import BridgeSettings
    from device_emulator.ble.profiles.base import Profile


BRIDGE_METRICS_PORT = 9466
"""Beside the gateway's metrics and its page, so that both run on one machine."""
SCAN_S = 5.0
BONDS = Path(".local", "state", "gammawear", "bonds.json")
"""In the user's home."""

Hci = Annotated[
    str | None,
    typer.Option(help="Controller that we drive ourselves: tcp-client:HOST:PORT, usb:0; else the platform's own."),
]


class BluetoothMissingError(GammawearError, ImportError):
    """The extra that Bluetooth needs is not installed."""


def _need_bluetooth() -> None:
    """Refuse without the extra; and let us, not Bumble with tracebacks, say what goes wrong on a link."""
    logging.getLogger("bumble").setLevel(logging.CRITICAL)
    if not all(importlib.util.find_spec(name) for name in ("bleak", "bleak_retry_connector", "bumble")):
        raise BluetoothMissingError("Bluetooth needs an extra: pip install 'gammawear[ble]'")


def wearable_command(
    count: Annotated[int | None, typer.Option(min=1, max=200, help="How many wearables.")] = None,
    air: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the virtual radio; 0 for any.")] = None,
    hci: Annotated[str | None, typer.Option(help="A real dongle instead, such as usb:0: one wearable on it.")] = None,
    bundle: options.DeviceBundle = "wrist6",
    dataset: Annotated[Path | None, typer.Option(help="Replay recorded people from this archive or folder.")] = None,
    subjects: Annotated[str | None, typer.Option(help="Of the data set, by comma; those held out if absent.")] = None,
    trace: Annotated[list[Path] | None, typer.Option(help="Replay this trace file; may repeat.")] = None,
    part: options.Part = None,
    rate: Annotated[float | None, typer.Option(min=5, max=1000, help="Hz of generated wearers.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated wearers.")] = 0,
    prefix: Annotated[str, typer.Option(help="Of the device ids.")] = "ble",
    closed: Annotated[bool, typer.Option("--closed", help="Stream to bonded centrals only.")] = False,
    interval: Annotated[float, typer.Option(min=7.5, max=4000, help="Connection interval of the air, ms.")] = 15.0,
    loss: Annotated[float, typer.Option(min=0, max=1, help="Share of notifications that the air loses.")] = 0.0,
    speed: Annotated[float, typer.Option(min=0.01, max=100, help=options.SPEED_HELP)] = 1.0,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
    bundles: options.Bundles = None,
) -> None:
    """Emulate wearables on a virtual radio (or one on a real dongle), with the real Bluetooth stack. Ctrl-C ends them.

    Examples:

      gammawear wearable --count 8 --air 9001       # then: gammawear bridge --hci tcp-client:127.0.0.1:9001

      gammawear wearable --hci usb:0 --dataset sp_sw_har.zip --subjects s04
    """
    _need_bluetooth()
    from gammawear.wearing import wear

    if (air is None) == (hci is None):
        raise typer.BadParameter("give --air PORT for the virtual radio, or --hci usb:0 for a dongle")
    loaded = load_device_part(bundle, bundle_dirs(bundles))
    sources = make_sources(
        loaded, count=count, dataset=dataset, subjects=subjects, traces=trace, part=part, rate=rate, seed=seed
    )  # fmt: skip
    if hci is not None and len(sources) != 1:
        raise typer.BadParameter(f"one dongle is one wearable, and these are {len(sources)}")
    run_command(
        wear(
            loaded, sources, prefix=prefix, air_port=air, hci=hci, interval_ms=interval, loss=loss, closed=closed,
            speed=speed, seconds=seconds, say=_say,
        )
    )  # fmt: skip


@takes_broker
def bridge_command(
    hci: Hci = None,
    bundle: Annotated[
        str,
        typer.Option(help="Whose codebook other makers' wearables are quantized with.", autocompletion=bundle_names),
    ] = "wrist6",
    scan: Annotated[
        bool, typer.Option("--scan", help="List what is near and which profile knows it, then stop.")
    ] = False,
    device: Annotated[list[str] | None, typer.Option(help="Address to follow; may repeat. Else all known.")] = None,
    name: Annotated[list[str] | None, typer.Option(help="ADDRESS=ID: the device's id; may repeat.")] = None,
    profile: Annotated[list[str] | None, typer.Option(help="Only these kinds of other makers; may repeat.")] = None,
    profile_file: Annotated[
        list[Path] | None, typer.Option(help="TOML file of a kind of your own; may repeat.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="How other makers' parts are turned, such as 2,-1,3.")] = None,
    packet: Annotated[float, typer.Option(min=0.02, max=60, help="Seconds of signal in a packet made here.")] = 1.0,
    watchdog: Annotated[float, typer.Option(min=1, max=600, help="Seconds without data that end a link.")] = 10.0,
    bridge_id: Annotated[str, typer.Option("--id", help="The bridge's own id; each needs another.")] = "bridge",
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Of /metrics; 0 for any.")] = BRIDGE_METRICS_PORT,
    metrics_address: Annotated[str, typer.Option(help="0.0.0.0 for other machines.")] = "127.0.0.1",
    bonds: Annotated[
        Path | None, typer.Option(help=f"Keys of bonded devices, where --hci is given; ~/{BONDS.as_posix()} if absent.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
    bundles: options.Bundles = None,
    as_json: options.AsJson = False,
    *,
    broker: BrokerSettings,
) -> None:
    """Connect wearables over Bluetooth and publish what they send over MQTT. Ctrl-C ends it cleanly.

    Examples:

      gammawear bridge --scan

      gammawear bridge --bundle wrist6 --device A0:9E:1A:00:00:01 --axes=-1,2,-3

      gammawear bridge --hci tcp-client:127.0.0.1:9001 --host broker.local
    """
    _need_bluetooth()
    from device_emulator.ble.bridge import BridgeSettings

    kinds = _kinds(profile, profile_file)
    if scan:
        run_command(_scan(hci, kinds, as_json=as_json))
        return
    loaded = load_device_part(bundle, bundle_dirs(bundles))
    if hci is not None:
        bonds = bonds or _usual_bonds()
        bonds.parent.mkdir(parents=True, exist_ok=True)
    settings = BridgeSettings(
        bridge_id=bridge_id,
        hci=hci,
        bonds=None if bonds is None else str(bonds),
        addresses=frozenset(address.upper() for address in device or ()),
        profiles=kinds,
        names=_names(name),
        codebook=loaded.codebook,
        axes=parse_axes(axes),
        packet_s=packet,
        no_data_s=watchdog,
    )
    run_command(_bridge(settings, broker, metrics_address, metrics_port, seconds, as_json=as_json))


def record_command(
    out: Annotated[Path, typer.Option(help="The file, such as anna_1.gwtrace: <subject>_<anything>.gwtrace.")],
    labels: Annotated[str, typer.Option(help="Activities that you will type, by comma.")],
    subject: Annotated[str | None, typer.Option(help="Who wears it; else the file's name up to the first _.")] = None,
    hci: Hci = None,
    device: Annotated[str | None, typer.Option(help="Address; else the first that a profile knows.")] = None,
    profile: Annotated[list[str] | None, typer.Option(help="Only these kinds of wearables; may repeat.")] = None,
    profile_file: Annotated[
        list[Path] | None, typer.Option(help="TOML file of a kind of your own; may repeat.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=5, max=1000, help="Hz; else the highest up to 60.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
) -> None:
    """Record what a wearable sends, with the activities that you type, to a trace for `gammawear train har`.

    Examples:

      gammawear record --out runs/own/anna_1.gwtrace --labels walk,sit,stairs --rate 50

      gammawear train har --data runs/own
    """
    _need_bluetooth()
    from device_emulator.device import check_activities
    from gammawear.recording import RecordOptions, record

    if out.suffix != SUFFIX:
        raise typer.BadParameter(f"--out ends in {SUFFIX}, or nothing would read the file")
    names = tuple(label.strip() for label in labels.split(",") if label.strip())
    if not names or len(set(names)) != len(names):
        raise typer.BadParameter("--labels are different names, separated by commas")
    try:
        check_activities(names)
    except MessageError as error:
        raise typer.BadParameter(f"--labels: {error.detail}; it takes letters, digits, space, _ . -") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    wearer = subject or out.stem.partition("_")[0]
    chosen = RecordOptions(out, names, wearer, hci, device, _kinds(profile, profile_file), rate, seconds)
    run_command(record(chosen, _NOTES))


def _usual_bonds() -> Path:
    try:
        return Path.home() / BONDS
    except RuntimeError as error:
        raise typer.BadParameter("this user has no home: say with --bonds where to keep the keys of devices") from error


async def _bridge(
    settings: BridgeSettings, broker: BrokerSettings, address: str, port: int, seconds: float | None, *, as_json: bool
) -> None:
    from prometheus_client import CollectorRegistry

    from device_emulator.ble.bridge import Bridge
    from gammawear.bridge_metrics import BridgeMetrics
    from gateway.exposition import serving_metrics

    bridge = Bridge(settings, broker)
    registry = CollectorRegistry()
    BridgeMetrics(registry, bridge)
    running = asyncio.ensure_future(bridge.run())

    async def stop() -> None:
        running.cancel()

    async def work() -> None:
        try:
            await running
        except asyncio.CancelledError:
            return  # stopped

    async with serving_metrics(registry, address, port) as taken:
        radio = settings.hci or "this machine's Bluetooth"
        _say(f"bridge {settings.bridge_id}: {radio} to {broker.address}; metrics on http://{address}:{taken}/metrics")
        await until_stopped(work(), stop, seconds=seconds)
    followers = bridge.followers.values()
    notifications = sum(follower.notifications for follower in followers)
    _say(f"{len(followers)} devices, {notifications} notifications")
    if as_json:
        dropped = bridge.connection.dropped.total()
        result = {"devices": len(followers), "notifications": notifications, "messages_dropped": dropped}
        typer.echo(json.dumps(result | {"messages_unsent": bridge.connection.queued + bridge.connection.unacked}))


async def _scan(hci: str | None, kinds: tuple[Profile, ...], *, as_json: bool) -> None:
    from device_emulator.ble import gatt
    from device_emulator.ble.adapter import open_adapter, seen_of
    from device_emulator.ble.profiles.base import Seen

    found: dict[str, Seen] = {}
    async with open_adapter(hci) as adapter:
        with _NOTES.status(f"listening for {SCAN_S:g} s"):
            async with adapter.scanner(lambda device, heard: found.update({device.address: seen_of(device, heard)})):
                await asyncio.sleep(SCAN_S)
    rows = []
    for seen in sorted(found.values(), key=lambda seen: -seen.rssi):
        ours = "gammawear" if gatt.SERVICE in seen.services else None
        known = ours or next((kind.name for kind in kinds if kind.knows(seen)), None)
        rows.append({"address": seen.address, "name": seen.name, "rssi_dbm": seen.rssi, "profile": known})
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        table = Table("address", "name", "dBm", "profile")
        for row in rows:
            table.add_row(*(Text("" if cell is None else str(cell)) for cell in row.values()))
        Console().print(table)
    if not found:
        _say("nothing was heard: is the wearable awake, near, and not connected to a phone?")


def _kinds(names: list[str] | None, files: list[Path] | None) -> tuple[Profile, ...]:
    from device_emulator.ble.profiles import PROFILES, by_name
    from device_emulator.ble.profiles.generic import load_profile

    own = tuple(load_profile(path) for path in files or ())
    if names:
        return (*own, *(by_name(name) for name in names))
    return (*own, *PROFILES)


def _names(pairs: list[str] | None) -> tuple[tuple[str, str], ...]:
    split = [pair.rpartition("=") for pair in pairs or ()]
    if any(not address or not device_id for address, _, device_id in split):
        raise typer.BadParameter("--name is ADDRESS=ID, such as A0:9E:1A:00:00:01=left-wrist")
    ids = [device_id for _, _, device_id in split]
    try:
        for device_id in ids:
            check_device_id(device_id)
    except MessageError as error:
        raise typer.BadParameter(f"--name: {error.detail}") from None
    if len(set(ids)) != len(ids):
        raise typer.BadParameter("--name: each device needs an id of its own")
    return tuple((address.upper(), device_id) for address, _, device_id in split)


def _say(text: str) -> None:
    _NOTES.print(text, soft_wrap=True, highlight=False)
