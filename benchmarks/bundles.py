"""The bundles that ship, on subjects that had no part in training: scores, ``unknown``, robustness.

    python -m benchmarks.bundles --data ../shared/data/har

Writes ``benchmarks/results/bundles.json``. Robustness is scored with the windows of the same subjects, changed before
the ADC: worn on the other wrist, the case turned, a clock that is 5 % off, a gain that is 5 % off.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import RESULTS, commit, machine
from models.bundle import SHIPPED, Bundle, load_bundle
from models.bundle_files import bundle_folders
from models.evaluate import evaluate, material_for
from models.forest import fit_forest
from models.resample import Segment
from models.scores import score
from models.tasks import Material
from models.windows import Windows, cut

Change = Callable[[Segment], Segment]


def mirrored(segment: Segment) -> Segment:
    """Worn on the other wrist: x of the accelerometer, y and z of the gyroscope change sign (a pseudo-vector)."""
    signs = np.array([-1, 1, 1, 1, -1, -1][: segment.values.shape[1]], dtype=np.float32)
    return replace(segment, values=segment.values * signs)


def turned(segment: Segment) -> Segment:
    """The case turned by 180° about z, as when the crown is on the other side."""
    signs = np.array([-1, -1, 1, -1, -1, 1][: segment.values.shape[1]], dtype=np.float32)
    return replace(segment, values=segment.values * signs)


def fast_clock(segment: Segment) -> Segment:
    """A device whose clock is 5 % slow samples 5 % too rarely: the signal seems faster."""
    n = int(len(segment.values) / 1.05)
    at = np.arange(n) * 1.05
    source = np.arange(len(segment.values))
    values = np.stack([np.interp(at, source, column) for column in segment.values.T], axis=1).astype(np.float32)
    return replace(segment, values=values, label=segment.label[np.rint(at).astype(int)])


def high_gain(segment: Segment) -> Segment:
    """All channels read 5 % too much."""
    return replace(segment, values=segment.values * np.float32(1.05))


CHANGES: dict[str, Change] = {
    "other wrist": mirrored,
    "case turned by 180°": turned,
    "clock 5 % off": fast_clock,
    "gain 5 % off": high_gain,
}


def measure(bundle: Bundle, material: Material) -> dict[str, object]:
    """All figures of one bundle on its test subjects."""
    subjects = [s for s in bundle.manifest.data.test_subjects if s in material.subjects]
    row: dict[str, object] = evaluate(bundle, material, subjects=subjects).to_dict()
    changed = {}
    for name, change in CHANGES.items():
        there = replace(material, segments=tuple(change(s) for s in material.of(subjects)), unknown={})
        report = evaluate(bundle, there, subjects=subjects)
        changed[name] = {"macro_f1": report.scores.macro_f1, "unknown_share": report.unknown_share}
    row["changed"] = changed
    row["forest_macro_f1"] = forest_score(bundle, material, subjects)
    row["parameters"] = bundle.network.parameter_count()
    row["bits"] = bundle.codebook.bits
    row["rate_hz"] = bundle.manifest.rate_hz
    row["never_seen"] = sorted(set(bundle.manifest.data.excluded_labels) - set(bundle.manifest.data.background_labels))
    return row


def forest_score(bundle: Bundle, material: Material, subjects: list[str]) -> float:
    """Macro-F1 of a random forest on the same codes: it learns from everyone that the bundle learned from."""
    manifest = bundle.manifest

    def windows(chosen: list[str]) -> Windows:
        return cut(material.of(chosen), length=manifest.window, stride=manifest.stride, classes=len(bundle.labels))

    train = windows([*manifest.data.train_subjects, *manifest.data.validation_subjects])
    forest = fit_forest(train, bundle.codebook, bundle.sensor, classes=len(bundle.labels), seed=0)
    unseen = windows(subjects)
    return score(unseen, forest.probabilities(unseen)).macro_f1


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with <dataset>.zip or <dataset>/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for folder in bundle_folders(SHIPPED):
        bundle = load_bundle(folder)
        name = bundle.manifest.data.dataset
        archive = arguments.data / f"{name}.zip"
        rows.append(measure(bundle, material_for(bundle, archive if archive.exists() else arguments.data / name)))
    out = {"bundles": rows, "commit": commit(), "machine": machine()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "bundles.json").write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
