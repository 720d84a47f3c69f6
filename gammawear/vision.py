"""``gammawear camera`` and ``gammawear train detector``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from device_emulator.camera.node import CameraNode
from device_emulator.camera.publisher import CameraPublisher
from device_emulator.camera.raw_files import read_layout
from device_emulator.camera.source import FolderSource, FrameSource, SceneSource
from device_emulator.fleet import Fleet
from gammawear.completion import detector_names
from gammawear.logs import NOTES as _NOTES
from gammawear.logs import say_stopped
from gammawear.options import AsJson, run_command, takes_broker, until_stopped
from gammawear.serve import unsent_note
from models.bundle_files import DETECTOR, SHIPPED_DETECTORS, checkpoint_of, load_codebook, next_version
from protocol.broker_settings import BrokerSettings
from protocol.frame import MAX_PHOTOSITES

MAX_PIXELS: Final = 200_000
"""Photosites of a frame that is sent: larger ones are binned. Detectors know objects as they look in 320 × 240."""
_OUT = Console()


class ImageCurve(StrEnum):
    """Quantizers that make a detector bundle."""

    GAMMA = "gamma"
    GAMMA_PAPER = "gamma-paper"
    LINEAR = "linear"
    LOG = "log"


@takes_broker
def camera_command(
    raw: Annotated[
        Path | None, typer.Option(help="A RAW file or a folder of them (DNG, NEF, PNG, ...); else a generated scene.")
    ] = None,
    layout: Annotated[Path | None, typer.Option(help="JSON that describes headerless files or PNG.")] = None,
    bundle: Annotated[
        str, typer.Option(help="Detector bundle whose codebook to send with.", autocompletion=detector_names)
    ] = "street",
    bundles: Annotated[Path, typer.Option(help="Where your own bundles are.")] = Path("runs"),
    count: Annotated[int, typer.Option(min=1, max=64, help="So many cameras.")] = 1,
    fps: Annotated[float, typer.Option(min=0.01, max=60, help="Frames a second of each.")] = 2.0,
    gated: Annotated[
        bool, typer.Option("--gated", help="Send a frame only if something moved, or after 10 s.")
    ] = False,
    compress: Annotated[bool, typer.Option(help="Entropy code frames; else pack their codes plainly.")] = True,
    loop: Annotated[bool, typer.Option(help="Begin again after the last file.")] = True,
    light: Annotated[
        float | None, typer.Option(min=0.01, max=4, help="Of a generated scene; 1 if absent, 0.1 is dusk.")
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1024, max=MAX_PHOTOSITES, help="Bin larger frames down to this.")
    ] = MAX_PIXELS,
    qos: Annotated[int, typer.Option(min=0, max=1, help="Of frames.")] = 0,
    truth: Annotated[bool, typer.Option(help="Publish what is to be found, where it is known.")] = True,
    seed: Annotated[int | None, typer.Option(min=0, help="Of generated scenes; 0 if absent.")] = None,
    prefix: Annotated[str, typer.Option(help="Ids are <prefix>-01 and so on.")] = "camera",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long.")] = None,
    as_json: AsJson = False,
    *,
    broker: BrokerSettings,
) -> None:
    """Emulate camera nodes: RAW frames, quantized with a learned curve, over MQTT.

    Examples:

      gammawear camera --fps 2

      gammawear camera --raw my-photos/ --fps 0.5 --gated
    """
    if raw is None and layout is not None:
        raise typer.BadParameter("--layout describes files: say with --raw where they are")
    if raw is not None and (light, seed) != (None, None):
        raise typer.BadParameter("--light and --seed are for generated scenes: leave them out, or --raw")
    codebook = load_codebook(bundle, (bundles, SHIPPED_DETECTORS), DETECTOR)
    described = read_layout(layout) if layout is not None else None
    cameras = []
    for number in range(count):
        if raw is None:
            source: FrameSource = SceneSource((seed or 0) + number, light=1.0 if light is None else light)
        else:
            source = FolderSource(raw, layout=described, max_pixels=max_pixels, loop=loop)
        node = CameraNode(f"{prefix}-{number + 1:02d}", source, codebook, fps=fps, gated=gated, compress=compress)
        cameras.append(CameraPublisher(node, broker, qos=1 if qos else 0, truth=truth))
    fleet = Fleet(cameras)
    _NOTES.print(
        f"{count} camera{'s' if count > 1 else ''} at {fps:g} frames/s to {broker.host}:{broker.port}, "
        f"{codebook.bits}-bit codebook {codebook.short_digest.hex()} of {bundle}; Ctrl-C ends it"
    )
    run_command(until_stopped(fleet.run(), fleet.stop, seconds=seconds))
    if as_json:
        typer.echo(json.dumps([_result(camera) for camera in cameras]))
        return
    for camera in cameras:
        node = camera.camera
        done = "handed over" if camera.unsent else "sent"
        _OUT.print(
            f"{node.device_id}: {camera.packets_published} frames {done}, {node.held_back} without movement, "
            f"{node.unreadable} unreadable, {camera.dropped} messages dropped{unsent_note(camera.unsent)}",
            soft_wrap=True,
        )


def _result(camera: CameraPublisher) -> dict[str, object]:
    node = camera.camera
    return {
        "camera": node.device_id,
        "frames_handed_over": camera.packets_published,
        "frames_without_movement": node.held_back,
        "frames_unreadable": node.unreadable,
        "messages_dropped": camera.dropped,
        "messages_unsent": camera.unsent,
    }


def train_detector(
    data: Annotated[
        Path | None, typer.Option(help="Archive or folder of the pictures; absent: scenes that are generated.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="penn_fudan, penn_fudan_campus, bccd or own, if not by what --data holds; or scenes."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Of your own pictures only these, separated by commas; else all that are boxed.")
    ] = None,
    bits: Annotated[int, typer.Option(min=1, max=8, help="Bits a code.")] = 4,
    quantizer: Annotated[ImageCurve, typer.Option(help="The learned curve, or a fixed one.")] = ImageCurve.GAMMA,
    name: Annotated[str | None, typer.Option(help="Name of the bundle; the task's if absent.")] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Its version; the next after those there and those that ship, if absent.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for bundles and checkpoints.")] = Path("runs"),
    epochs: Annotated[int | None, typer.Option(min=1, help="The task's own if absent.")] = None,
    batch: Annotated[int, typer.Option(min=2, help="Pictures in a step.")] = 4,
    rate_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="λ: loss for each coded bit a photosite; if absent the task's own for gamma, 0 for other quantizers.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
) -> None:
    """Train a detector and its curve on pictures, and write a bundle that gateways serve.

    Pictures are turned into 12-bit RAW; of your own RAW files the light is taken and photographed anew. Ctrl-C keeps a
    checkpoint; the same command goes on from it. Weights trained on Penn-Fudan are for yourself: no licence is stated
    for its pictures.

    Examples:

      gammawear train detector

      gammawear train detector --task penn_fudan --data penn_fudan.zip --name person

      gammawear train detector --data my-pictures/ --classes cup,plate --name table
    """
    import torch

    from gammawear.pictures import default_name, detector_data
    from models.vision.fit import DetectorSettings
    from models.vision.train import train_detector_bundle

    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    material, own_epochs = detector_data(task, data, classes)
    if rate_weight is None:
        rate_weight = material.rate_weight if quantizer is ImageCurve.GAMMA else 0.0
    settings = DetectorSettings(epochs=epochs or own_epochs, batch=batch, rate_weight=rate_weight, seed=seed)
    bundle_name = name or default_name(task, material)
    number = version or next_version((out, SHIPPED_DETECTORS), bundle_name)
    _NOTES.print(f"{len(material.train)} pictures train, {len(material.test)} test: {', '.join(material.classes)}")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_NOTES) as progress:
        bar = progress.add_task("training", total=settings.epochs)

        def report(epoch: int, loss: float) -> None:
            text = f"epoch {epoch}/{settings.epochs}  loss {loss:.3f}"
            progress.update(bar, completed=epoch, description=text)
            if not _NOTES.is_terminal:  # no bar is drawn there
                _NOTES.print(text)

        try:
            folder, bundle = train_detector_bundle(
                material, kind=quantizer.value, bits=bits, settings=settings, name=bundle_name, version=number, out=out,
                report=report,
            )  # fmt: skip
        except KeyboardInterrupt:
            say_stopped(checkpoint_of(out, bundle_name, number))
            raise
    scores = bundle.manifest.scores
    lights = ", ".join(f"light × {light}: {score:.3f}" for light, score in scores.ap50_by_light.items())
    _OUT.print(
        f"[bold]{folder}[/]  AP {scores.ap:.3f}, AP50 {scores.ap50:.3f} on pictures that it never saw ({lights})"
    )
    _OUT.print(f"serve it with: gammawear gateway --bundles {out}")
