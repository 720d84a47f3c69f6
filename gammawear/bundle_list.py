"""What ``gammawear bundles`` prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from gammawear.logs import NOTES
from quantization.errors import BundleError

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.vision.bundle import DetectorBundle

_OUT = Console()
B = TypeVar("B")


def print_bundles(folder: Path, *, as_json: bool) -> None:
    """List the bundles that ship and those in ``folder``, as tables or as one JSON array."""
    activities, detectors = _known_bundles(folder)
    if as_json:
        typer.echo(json.dumps([*map(_activity_row, activities), *map(_detector_row, detectors)]))
    else:
        _print_tables(activities, detectors)


def _known_bundles(folder: Path) -> tuple[list[tuple[Bundle, str]], list[tuple[DetectorBundle, str]]]:
    """Bundles and detectors, each with where it is; a note for those that cannot be loaded."""
    from models.bundle import SHIPPED, load_bundle
    from models.bundle_files import DETECTOR, bundle_folders
    from models.vision.bundle import SHIPPED as SHIPPED_DETECTORS
    from models.vision.bundle import load_detector

    activities = [(one, "shipped") for one in _loaded(bundle_folders(SHIPPED), load_bundle)]
    activities += [(one, str(folder)) for one in _loaded(bundle_folders(folder), load_bundle)]
    detectors = [(one, "shipped") for one in _loaded(bundle_folders(SHIPPED_DETECTORS, DETECTOR), load_detector)]
    detectors += [(one, str(folder)) for one in _loaded(bundle_folders(folder, DETECTOR), load_detector)]
    return activities, detectors


def _loaded(folders: list[Path], load: Callable[[Path], B]) -> Iterator[B]:
    for folder in folders:
        try:
            yield load(folder)
        except BundleError as error:
            NOTES.print(f"{error}", highlight=False, soft_wrap=True, markup=False)


def _activity_row(known: tuple[Bundle, str]) -> dict[str, object]:
    one, where = known
    scores = one.manifest.scores
    return {
        "bundle": one.reference,
        "kind": "activities",
        "channels": list(one.codebook.channels),
        "bits": one.codebook.bits,
        "rate_hz": one.manifest.rate_hz,
        "window_s": one.manifest.window / one.manifest.rate_hz,
        "labels": list(one.labels),
        "macro_f1": scores.macro_f1 if scores else None,
        "codebook": one.codebook.digest.hex(),
        "where": where,
    }


def _detector_row(known: tuple[DetectorBundle, str]) -> dict[str, object]:
    one, where = known
    return {
        "bundle": one.reference,
        "kind": "detector",
        "bits": one.codebook.bits,
        "classes": list(one.manifest.classes),
        "ap50": one.manifest.scores.ap50,
        "synthetic": one.manifest.data.synthetic,
        "codebook": one.codebook.digest.hex(),
        "where": where,
    }


def _print_tables(activities: list[tuple[Bundle, str]], detectors: list[tuple[DetectorBundle, str]]) -> None:
    table = Table("bundle", "signal", "window", "activities", "macro-F1", "codebook", "where")
    for one, where in activities:
        scores = one.manifest.scores
        table.add_row(
            one.reference,
            f"{len(one.codebook.channels)} × {one.codebook.bits} bit, {one.manifest.rate_hz:g} Hz",
            f"{one.manifest.window / one.manifest.rate_hz:g} s",
            str(len(one.labels)),
            f"{scores.macro_f1:.3f}" if scores else "",
            one.codebook.short_digest.hex(),
            where,
        )
    _OUT.print(table)
    _OUT.print("macro-F1 is that of subjects held out from training")
    table = Table("detector", "codes", "finds", "AP50", "pictures", "codebook", "where")
    for found, where in detectors:
        table.add_row(
            found.reference,
            f"{found.codebook.bits} bit",
            ", ".join(found.manifest.classes),
            f"{found.manifest.scores.ap50:.3f}",
            "generated" if found.manifest.data.synthetic else "taken",
            found.codebook.short_digest.hex(),
            where,
        )
    _OUT.print(table)
    _OUT.print("AP50 is that of pictures held out from training")
