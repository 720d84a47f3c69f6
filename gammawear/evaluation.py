"""``gammawear evaluate``: a bundle's scores on data of one's own, of activities or of a detector."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gammawear.completion import any_bundle_names
from gammawear.learn import any_bundle
from gammawear.logs import NOTES as _NOTES
from gammawear.options import AsJson, check_picture
from quantization.errors import GammawearError

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.evaluate import Report
    from models.tasks import Material
    from models.vision.bundle import DetectorBundle
    from models.vision.evaluate import DetectionReport

_OUT = Console()


def evaluate_command(
    bundle: Annotated[
        str, typer.Option(help="Name, name@version or folder of a bundle.", autocompletion=any_bundle_names)
    ],
    data: Annotated[
        Path, typer.Option(help="Archive or folder: a data set, or your own recordings or pictures with boxes.")
    ],
    subjects: Annotated[
        str | None, typer.Option(help="Only these, separated by commas; 'test' for those held out from training.")
    ] = None,
    light: Annotated[
        str | None, typer.Option(help="Of a detector: factors on the scene's light; 1,0.25,0.1 if left out.")
    ] = None,
    bundles: Annotated[Path, typer.Option(help="Where your own bundles are.")] = Path("runs"),
    picture: Annotated[
        Path | None, typer.Option(help="Of activities: where to write the confusion matrix (PNG or SVG).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a bundle on recordings or on pictures, through counts, codes and network as live.

    What it is scored on had no part in its training: of your own pictures those are left out that trained it, of the
    data set that it was trained on all but the test pictures. Of recordings, --subjects test does the same.

    Examples:

      gammawear evaluate --bundle wrist6 --data sp_sw_har.zip --subjects test

      gammawear evaluate --bundle wrist3 --data wisdm.zip --json

      gammawear evaluate --bundle bccd --data BCCD_Dataset.zip --light 1,0.1
    """
    from models.evaluate import evaluate, material_for
    from models.vision.bundle import DetectorBundle

    if picture is not None:
        check_picture(picture)
    loaded = any_bundle(bundle, bundles)
    if isinstance(loaded, DetectorBundle):
        if subjects is not None or picture is not None:
            raise GammawearError(f"{loaded.reference} is a detector: --subjects and --picture are of activities")
        _evaluate_detector(loaded, data, light, as_json=as_json)
        return
    if light is not None:
        raise GammawearError(f"{loaded.reference} recognises activities: --light is of detectors")
    with _NOTES.status(f"reading {data}"):
        material = material_for(loaded, data)
        report = evaluate(loaded, material, subjects=_chosen(subjects, loaded, material))
    if as_json:
        typer.echo(report.to_json())
    else:
        _print_report(report)
    if picture is not None:
        _draw(report, picture)
    elif not as_json and find_spec("matplotlib"):  # nobody who asks for scores has to install it
        usual = Path(f"confusion-{loaded.reference}.png")
        try:
            _draw(report, usual)
        except OSError as error:
            _NOTES.print(f"no confusion matrix: {usual}: {error.strerror}; --picture says where to write it")


def _draw(report: Report, path: Path) -> None:
    from models.plots import confusion_picture

    _NOTES.print(f"confusion matrix: {confusion_picture(report, path)}")


def _chosen(subjects: str | None, bundle: Bundle, material: Material) -> list[str] | None:
    if subjects is None:
        seen = set(bundle.manifest.data.train_subjects) | set(bundle.manifest.data.validation_subjects)
        overlap = sorted(seen & set(material.subjects))
        if overlap:
            _NOTES.print(
                f"[yellow]{len(overlap)} of {len(material.subjects)} subjects took part in training: this is no "
                "measure of how new people are recognised. Use --subjects test for that.[/]"
            )
        return None
    if subjects == "test":
        held_out = [s for s in material.subjects if s in bundle.manifest.data.test_subjects]
        if not held_out:
            raise GammawearError(f"none of the subjects held out from {bundle.reference} is in this data")
        return held_out
    return [one.strip() for one in subjects.split(",")]


def _print_report(report: Report) -> None:
    scores = report.scores
    table = Table(title=f"{report.bundle} on {len(report.subjects)} subjects, {scores.windows} windows")
    table.add_column("activity")
    table.add_column("F1", justify="right")
    table.add_column("windows", justify="right")
    for label, f1, row in zip(report.labels, scores.f1, scores.confusion, strict=True):
        table.add_row(label, f"{f1:.3f}", str(row.sum()))
    table.add_section()
    table.add_row("[bold]macro-F1", f"[bold]{scores.macro_f1:.3f}", str(scores.windows))
    table.add_row("accuracy", f"{scores.accuracy:.3f}", "")
    table.add_row("macro-F1, pure windows", f"{scores.macro_f1_pure:.3f}", "")
    table.add_row("answered unknown", f"{report.unknown_share:.1%}", "")
    for activity, (share, windows) in report.unknown_found.items():
        table.add_row(f"{activity} (not known): answered unknown", f"{share:.1%}", str(windows))
    _OUT.print(table)
    used = report.bandwidth
    _OUT.print(
        f"{used.payload_bits:.2f} bits a sample and channel in packets of 1 s, {used.all_in_bits:.2f} with headers"
    )
    _OUT.print("by subject: " + ", ".join(f"{s} {f1:.3f}" for s, f1 in report.per_subject.items()))


def _evaluate_detector(bundle: DetectorBundle, data: Path, light: str | None, *, as_json: bool) -> None:
    from gammawear.pictures import pictures_to_test
    from models.vision.evaluate import evaluate_detector, parse_lights
    from models.vision.train import LIGHTS

    lights = LIGHTS if light is None else parse_lights(light)
    pictures, as_trained = pictures_to_test(bundle, data)
    with _NOTES.status(f"looking at {len(pictures.test)} pictures, in {len(lights)} lights"):
        report = evaluate_detector(
            bundle, pictures.test, pictures.classes, dataset=pictures.dataset, protocol=pictures.protocol,
            as_trained=as_trained, lights=lights,
        )  # fmt: skip
    if as_json:
        typer.echo(report.to_json())
    else:
        _print_detections(report)


def _print_detections(report: DetectionReport) -> None:
    table = Table(title=f"{report.bundle} on {report.pictures} pictures")
    table.add_column("AP50")
    table.add_column("boxes", justify="right")
    for light in report.by_light:
        table.add_column(f"light × {light:g}", justify="right")
    scores = list(report.by_light.values())
    for number, (name, boxes) in enumerate(report.objects.items()):
        by_light = [one.precision.ap50_by_class[number] for one in scores]
        table.add_row(name, str(boxes), *("" if math.isnan(ap50) else f"{ap50:.3f}" for ap50 in by_light))
    table.add_section()
    table.add_row("[bold]AP50", "", *(f"[bold]{one.precision.ap50:.3f}" for one in scores))
    table.add_row("AP (IoU 0.50 to 0.95)", "", *(f"{one.precision.ap:.3f}" for one in scores))
    table.add_row("bits a photosite", "", *(f"{one.bits_per_photosite:.2f}" for one in scores))
    _OUT.print(table)
    if report.not_known:
        left_out = ", ".join(f"{boxes} {name}" for name, boxes in report.not_known.items())
        _OUT.print(f"boxes of classes that it does not know were left out: {left_out}", highlight=False)
    _OUT.print(f"{report.dataset}; {report.protocol}", highlight=False, soft_wrap=True)
