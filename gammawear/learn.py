"""``gammawear train``, ``evaluate``, ``datasets`` and ``bundles``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from gammawear.bundle_list import print_bundles
from gammawear.completion import any_bundle_names, dataset_names, detector_names
from gammawear.logs import NOTES as _NOTES
from gammawear.logs import say_stopped
from gammawear.options import AsJson, check_picture
from models import datasets
from models.bundle_files import (
    SHIPPED,
    SHIPPED_DETECTORS,
    checkpoint_of,
    find_bundle,
    load_codebook,
    next_version,
    says_detector,
)
from models.datasets.fetch import fetch
from models.device_part import load_device_part
from models.tasks import TASKS, Task, load_material
from protocol.messages import Config
from quantization.codebook import Codebook
from quantization.errors import DatasetError, TrainingError

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.fit import Epoch
    from models.train import QuantizerKind
    from models.vision.bundle import DetectorBundle
    from models.vision.pictures import PublishedPictures
    from quantization.gamma import Init

train_app = typer.Typer(no_args_is_help=True, help="Train a quantizer and a network together.")
datasets_app = typer.Typer(help="Data sets: what there is, where to get it, fetch it.")
bundles_app = typer.Typer(help="Trained bundles: what there is, what is in one.")
NETWORK_NAMES: Final = ("cnn", "tinier", "tinyhar", "deepconvlstm", "attention")
"""Those of ``models.har.NETWORKS``, which cannot be asked without torch; a test compares."""
_OUT = Console()


class Curve(StrEnum):
    """Quantizers that make a bundle."""

    GAMMA = "gamma"
    GAMMA_PAPER = "gamma-paper"
    LSQ = "lsq"
    THRESHOLDS = "thresholds"
    LINEAR = "linear"
    MU_LAW = "mu-law"
    LLOYD_MAX = "lloyd-max"


@train_app.callback()
def _train() -> None:
    """Train a quantizer and a network together."""


@train_app.command("har")
def train_har(
    data: Annotated[Path, typer.Option(help="Archive or folder of the data set, or a folder of your own recordings.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="Its name (see gammawear datasets) if not by its layout.", autocompletion=dataset_names),
    ] = None,
    bits: Annotated[int, typer.Option(min=1, max=8, help="Bits a code.")] = 4,
    quantizer: Annotated[Curve, typer.Option(help="The learned curve, or what to compare it with.")] = Curve.GAMMA,
    init: Annotated[
        str, typer.Option(help="Where the curve starts: identity (γ = 1) or s-shaped (γ = 0.4).")
    ] = "identity",
    network: Annotated[str, typer.Option(help=f"One of: {', '.join(NETWORK_NAMES)}.")] = "cnn",
    name: Annotated[str | None, typer.Option(help="Name of the bundle.")] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Its version; the next after those there and those that ship, if absent.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for bundles and checkpoints.")] = Path("runs"),
    rate: Annotated[float | None, typer.Option(min=10, max=200, help="Hz, if not the data set's own.")] = None,
    window: Annotated[float | None, typer.Option(min=0.2, max=60, help="Seconds.")] = None,
    stride: Annotated[float | None, typer.Option(min=0.05, max=60, help="Seconds.")] = None,
    acc_g: Annotated[float | None, typer.Option(min=0.5, max=400, help="The part's full scale, ± g.")] = None,
    gyro_dps: Annotated[float | None, typer.Option(min=10, max=10_000, help="The gyroscope's, ± °/s.")] = None,
    adc_bits: Annotated[int, typer.Option(min=8, max=16, help="Bits of the part's ADC.")] = 12,
    rate_weight: Annotated[
        float, typer.Option(min=0, help="λ: loss for each coded bit a sample; try 0.02 to 0.1.")
    ] = 0.0,
    epochs: Annotated[int, typer.Option(min=1, help="At most so many.")] = 40,
    batch: Annotated[int, typer.Option(min=2, help="Windows in a step.")] = 64,
    patience: Annotated[
        int, typer.Option(min=0, help="Epochs without progress before stopping; no part with --rate-weight.")
    ] = 15,
    dropout: Annotated[float, typer.Option(min=0, max=0.9)] = 0.5,
    refit: Annotated[bool, typer.Option(help="At the end, train anew with validation subjects too.")] = False,
    mirror: Annotated[float, typer.Option(min=0, max=1, help="Share of windows mirrored to the other wrist.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    split: Annotated[str, typer.Option(help="Hold out whole subjects, or with one wearer recordings.")] = "subject",
    freeze_codebook: Annotated[
        str | None, typer.Option(help="Bundle whose codebook to keep: a better network, devices stay as they are.")
    ] = None,
    body_site: Annotated[str, typer.Option(help="Where it is worn, for your own recordings.")] = "wrist",
) -> None:
    """Train on recordings and write a bundle that gateways serve.

    Ctrl-C keeps a checkpoint; the same command goes on from it.

    Examples:

      gammawear train har --dataset sp_sw_har --data sp_sw_har.zip --bits 4

      gammawear train har --data my-recordings/ --rate 50 --window 2 --name mine
    """
    import torch

    from models.augment import Augment
    from models.fit import FitSettings
    from models.train import TrainSettings, train_bundle

    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    chosen = datasets.get(dataset) if dataset else datasets.detect(data)
    changes = {"rate_hz": rate, "window_s": window, "stride_s": stride, "acc_g": acc_g, "gyro_dps": gyro_dps}
    task = _split_by(split, replace(_task(chosen.name, changes, body_site), adc_bits=adc_bits))
    with _NOTES.status(f"reading {data} ({chosen.name}) at {task.rate_hz:g} Hz"):
        material = load_material(task, data)
    bundle_name = name or task.bundle
    number = version or next_version((out, SHIPPED), bundle_name)
    settings = TrainSettings(
        quantizer=_kind(quantizer),
        bits=bits,
        init=_init(init),
        network=network,
        dropout=dropout,
        refit=refit,
        codebook=_frozen(freeze_codebook, out),
        fit=FitSettings(epochs=epochs, batch=batch, patience=patience, rate_weight=rate_weight, seed=seed),
        augment=Augment(mirror=mirror),
    )
    seconds = sum(len(segment.values) for segment in material.segments) / task.rate_hz
    _NOTES.print(
        f"{len(material.subjects)} {split}s, {seconds / 60:.0f} minutes, {len(material.labels)} activities, "
        f"channels {', '.join(material.channels)}"
    )
    checkpoint = checkpoint_of(out, bundle_name, number)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_NOTES) as progress:
        bar = progress.add_task("training", total=epochs)

        def report(epoch: Epoch) -> None:
            held_out = f", validation macro-F1 {epoch.validation.macro_f1:.3f}" if epoch.validation else ""
            text = f"epoch {epoch.number}/{epoch.of}  loss {epoch.loss:.3f}{held_out}"
            progress.update(bar, total=epoch.of, completed=epoch.number, description=text)
            if not _NOTES.is_terminal:  # no bar is drawn there
                _NOTES.print(text)

        try:
            folder, bundle = train_bundle(
                task, material, settings, name=bundle_name, version=number, out=out, checkpoint=checkpoint,
                report=report,
            )  # fmt: skip
        except KeyboardInterrupt:
            say_stopped(checkpoint)
            raise
    scores = bundle.manifest.scores
    if scores is not None:
        _OUT.print(
            f"[bold]{folder}[/]  {scores.protocol}: macro-F1 {scores.macro_f1:.3f}, accuracy {scores.accuracy:.3f} "
            f"({scores.windows} windows), answered unknown {scores.unknown_share:.1%}"
        )
    _OUT.print(f"serve it with: gammawear gateway --bundles {out}")


def _init(name: str) -> Init:
    from quantization.gamma import INITIAL_GAMMA

    if name not in INITIAL_GAMMA:
        raise TrainingError(f"--init is {' or '.join(INITIAL_GAMMA)}, not {name!r}")
    return cast("Init", name)


def _kind(curve: Curve) -> QuantizerKind:
    return curve.value


def _task(dataset: str, changes: Mapping[str, float | None], body_site: str) -> Task:
    """The data set's task, with the fields that were given."""
    given: dict[str, Any] = {field: value for field, value in changes.items() if value is not None}
    task = TASKS.get(dataset)
    if task is None:
        if "rate_hz" not in given:
            raise TrainingError("say at which --rate (Hz) your recordings are to be used, such as --rate 50")
        from models.evaluate import own_task

        task = own_task(body_site, given["rate_hz"])
    return replace(task, **given)


def _split_by(name: str, task: Task) -> Task:
    if name == "subject":
        return task
    if name != "recording":
        raise TrainingError(f"--split is subject or recording, not {name!r}")
    return replace(task, split_by="recording", test=(), validation=())


def _frozen(reference: str | None, out: Path) -> Codebook | None:
    return None if reference is None else load_device_part(reference, (out, SHIPPED)).codebook


def _pictures() -> tuple[PublishedPictures, ...]:
    """Data sets for detectors."""
    from models.vision.bccd import BCCD
    from models.vision.penn_fudan import PENN_FUDAN

    return PENN_FUDAN, BCCD


@datasets_app.callback(invoke_without_command=True)
def list_datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List the data sets, their licences and where to get them.

    Examples:

      gammawear datasets

      gammawear datasets --json
    """
    if context.invoked_subcommand:
        return
    if as_json:
        fields = ("name", "title", "licence", "url", "citation", "channels")
        rows = [{field: getattr(one, field) for field in fields} for one in datasets.DATASETS.values()]
        rows += [
            {field: getattr(one, field) for field in ("name", "title", "licence", "how_to")} for one in _pictures()
        ]
        typer.echo(json.dumps(rows))
        return
    for one in datasets.DATASETS.values():
        channels = f"{len(one.channels)} channels" if one.channels else "any channels"
        _OUT.print(f"[bold]{one.name}[/]: {one.title} ({channels}, {one.licence})")
        if one.url:
            _OUT.print(f"    {one.url}", soft_wrap=True)
    for pictures in _pictures():
        _OUT.print(f"[bold]{pictures.name}[/]: {pictures.title} ({pictures.licence})")
        _OUT.print(f"    {pictures.how_to}", soft_wrap=True)
    _OUT.print("fetch one with: gammawear datasets fetch NAME   (the commands take archives as they are)")


@datasets_app.command("fetch")
def fetch_dataset(
    name: Annotated[str, typer.Argument(help="Name of the data set.", autocompletion=dataset_names)],
    folder: Annotated[Path, typer.Option(help="Where to put the archive.")] = Path("data"),
) -> None:
    """Download a data set; a download that was broken off goes on.

    Example: gammawear datasets fetch sp_sw_har
    """
    for pictures in _pictures():
        if name == pictures.name:
            raise DatasetError(f"{name}: pictures are not downloaded from here. {pictures.how_to}")
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_NOTES) as progress:
        bar = progress.add_task(name, total=None)
        path = fetch(
            datasets.get(name), folder, progress=lambda done, total: progress.update(bar, completed=done, total=total)
        )
    typer.echo(path)


@bundles_app.callback(invoke_without_command=True)
def list_bundles(
    context: typer.Context,
    bundles: Annotated[Path, typer.Option(help="Where your own bundles are.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the bundles that ship and those in --bundles.

    Examples:

      gammawear bundles

      gammawear bundles --bundles runs --json
    """
    if context.invoked_subcommand:
        return
    print_bundles(bundles, as_json=as_json)


@bundles_app.command("show")
def show_bundle(
    name: Annotated[str, typer.Argument(help="Name, name@version or folder.", autocompletion=any_bundle_names)],
    bundles: Annotated[Path, typer.Option(help="Where your own bundles are.")] = Path("runs"),
    picture: Annotated[Path | None, typer.Option(help="Write the learned curves to this PNG or SVG.")] = None,
) -> None:
    """Print a bundle's manifest as JSON.

    Example: gammawear bundles show wrist6 --picture curves.png
    """
    if picture is not None:
        check_picture(picture)
    bundle = any_bundle(name, bundles)
    typer.echo(bundle.manifest.model_dump_json(indent=1))
    if picture is not None:
        from models.plots import curve_picture

        _NOTES.print(f"curves: {curve_picture(bundle.codebook, picture)}")


@bundles_app.command("config")
def configure(
    name: Annotated[str, typer.Argument(help="Name, name@version or folder.", autocompletion=any_bundle_names)],
    bundles: Annotated[Path, typer.Option(help="Where your own bundles are.")] = Path("runs"),
) -> None:
    """Print the message that switches a device to a bundle's codebook, to be published, retained, on its `config`.

    Example: gammawear bundles config mine > config.json
    """
    codebook = load_codebook(name, (bundles, SHIPPED, SHIPPED_DETECTORS), None)
    typer.echo(Config.with_codebook(codebook).to_json())


@bundles_app.command("export")
def export_bundle(
    name: Annotated[
        str, typer.Argument(help="Name, name@version or folder of a detector.", autocompletion=detector_names)
    ],
    onnx: Annotated[Path, typer.Option(help="File to write.")],
    width: Annotated[int | None, typer.Option(help="Photosites of a frame; as trained if absent.")] = None,
    height: Annotated[int | None, typer.Option(help="Likewise.")] = None,
    bundles: Annotated[Path, typer.Option(help="Where your own bundles are.")] = Path("runs"),
) -> None:
    """Write a detector's network as ONNX, for frames of one size.

    Example: gammawear bundles export street --onnx street.onnx
    """
    from models.vision.bundle import load_detector
    from models.vision.onnx_export import export_onnx

    bundle = load_detector(name, (bundles, SHIPPED_DETECTORS))
    trained = bundle.manifest
    typer.echo(export_onnx(bundle, onnx, width=width or trained.width, height=height or trained.height))


def any_bundle(name: str, folder: Path) -> Bundle | DetectorBundle:
    """A bundle of either kind, by its name or its folder."""
    from models.bundle import load_bundle
    from models.vision.bundle import load_detector

    found = find_bundle(name, (folder, SHIPPED, SHIPPED_DETECTORS), None)
    return load_detector(found) if says_detector(found) else load_bundle(found)
