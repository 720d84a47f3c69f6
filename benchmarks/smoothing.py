"""Causal smoothing of the shipped bundles' answers: what it gains, and how much later answers come.

    python -m benchmarks.smoothing --data ../shared/data/har

Kept apart from all other figures, which are without smoothing. The hidden Markov model's transitions are counted on the
training subjects; nothing is tuned. Writes ``benchmarks/results/smoothing.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.grid import ARCHIVES
from benchmarks.machine import RESULTS, commit, machine
from models.bundle import SHIPPED, Bundle, load_bundle
from models.bundle_files import bundle_folders
from models.evaluate import material_for, predict_windows
from models.scores import score
from models.smoothing import HiddenMarkov, added_delay, by_segment, exponential
from models.tasks import Material
from models.windows import Windows, cut
from quantization.imu import Floats

ALPHAS: Final = (0.7, 0.5, 0.3)


def measure(bundle: Bundle, material: Material) -> list[dict[str, Any]]:
    """One row for each kind of smoothing, on the bundle's test subjects."""
    manifest = bundle.manifest
    stride_s = manifest.stride / manifest.rate_hz

    def windows_of(subjects: list[str]) -> tuple[Windows, list[np.ndarray[Any, Any]]]:
        segments = [s for s in material.of(subjects) if len(s.values) >= manifest.window]
        windows = cut(segments, length=manifest.window, stride=manifest.stride, classes=len(manifest.labels))
        return windows, by_segment(windows.truth, segments, length=manifest.window, stride=manifest.stride)

    _, seen = windows_of(manifest.data.train_subjects)
    windows, truths = windows_of(manifest.data.test_subjects)
    lengths = np.cumsum([len(truth) for truth in truths])[:-1]
    plain = np.split(predict_windows(bundle, windows, bundle.sensor).probabilities.astype(np.float64), lengths)
    kinds: dict[str, list[Floats]] = {"none": plain}
    kinds |= {f"exponential, α = {alpha:g}": exponential(plain, alpha) for alpha in ALPHAS}
    kinds["hidden Markov"] = HiddenMarkov.estimate(seen, len(manifest.labels)).filter(plain)
    rows = []
    for name, blocks in kinds.items():
        delay = added_delay(truths, plain, blocks, stride_s=stride_s)
        rows.append(
            {
                "bundle": bundle.reference,
                "smoothing": name,
                "macro_f1": score(windows, np.concatenate(blocks)).macro_f1,
                "delay_s": None if np.isnan(delay.seconds) else delay.seconds,
                "changes": delay.changes,
                "followed": delay.followed_smoothed,
            }
        )
    return rows


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/har"), help="folder of the archives")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bundles = [load_bundle(folder) for folder in bundle_folders(SHIPPED)]
    rows = [
        row
        for bundle in bundles
        for row in measure(bundle, material_for(bundle, arguments.data / ARCHIVES[bundle.manifest.data.dataset]))
    ]
    out = {"rows": rows, "commit": commit(), "machine": machine()}
    (RESULTS / "smoothing.json").write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
