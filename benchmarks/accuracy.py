"""Recognition by quantizer, cross-validated by subject: what the claim of the project rests on.

    python benchmarks/accuracy.py sp_sw_har --data ../shared/data/har/sp_sw_har.zip
    python benchmarks/accuracy.py sp_sw_har --report

Every run (fold, seed, quantizer) is a line of ``benchmarks/results/accuracy-<dataset>.jsonl``; lines that are there are
not run again, so a stopped benchmark goes on. Folds are by subject: fold f tests every fifth subject from the f-th, and
validates (early stopping) on every fifth of the rest. How the settings came about is said in docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.machine import RESULTS, commit, machine
from models.augment import Augment
from models.fit import FitSettings, logits_of
from models.scores import score
from models.tasks import TASKS, load_material
from models.train import QuantizerKind, TrainSettings, fit_once, windows_of
from models.windows import SCORING_RULE

FOLDS = 5
REFERENCE = ("none", 12)
QUANTIZERS: list[tuple[QuantizerKind, int]] = [
    ("none", 12),
    ("gamma", 4),
    ("linear", 4),
    ("gamma-paper", 4),
    ("mu-law", 4),
    ("gamma", 2),
    ("linear", 2),
]
EPOCHS = {"sp_sw_har": FitSettings(epochs=40), "wisdm2019_watch": FitSettings(epochs=10, batch=128, patience=4)}
DROPOUT = 0.3
BOOTSTRAP = 10_000


def folds(subjects: list[str], fold: int) -> tuple[list[str], list[str], list[str]]:
    """Training, validation and test subjects of one fold."""
    test = subjects[fold::FOLDS]
    rest = [s for s in subjects if s not in test]
    validation = rest[fold::FOLDS]
    return [s for s in rest if s not in validation], validation, test


def run(dataset: str, data: Path, *, seeds: int, quantizers: list[tuple[QuantizerKind, int]], out: Path) -> None:
    """Run what is missing."""
    task = TASKS[dataset]
    material = load_material(task, data)
    done = {(r["fold"], r["seed"], r["quantizer"], r["bits"]) for r in read(out)}
    wanted = [(f, s, *q) for s in range(seeds) for f in range(FOLDS) for q in quantizers]
    missing = [key for key in wanted if key not in done]
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(dataset, total=len(missing))
        for fold, seed, quantizer, bits in missing:
            progress.update(bar, description=f"{dataset} fold {fold} seed {seed} {quantizer} {bits} bit")
            started = time.monotonic()
            train, validation, test = folds(material.subjects, fold)
            fit = FitSettings(**{**EPOCHS[dataset].__dict__, "seed": seed})
            # Test subjects wear it as they were recorded: the other wrist is no part of this comparison.
            settings = TrainSettings(
                quantizer=quantizer, bits=min(bits, 8), fit=fit, augment=Augment(mirror=0.0), dropout=DROPOUT
            )
            trained = fit_once(task, material, settings, train, validation)
            windows = windows_of(task, material, test)
            scores = score(windows, logits_of(trained.model, windows, task.sensor(material.channels)).numpy())
            row = {
                "dataset": dataset,
                "fold": fold,
                "seed": seed,
                "quantizer": quantizer,
                "bits": bits,
                "rate_hz": task.rate_hz,
                "network": settings.network,
                "macro_f1": scores.macro_f1,
                "accuracy": scores.accuracy,
                "macro_f1_pure": scores.macro_f1_pure,
                "windows": scores.windows,
                "test_subjects": test,
                "kept_epoch": trained.epoch,
                "scoring_rule": SCORING_RULE,
                "seconds": round(time.monotonic() - started, 1),
                "commit": commit(),
                "machine": machine(),
            }
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            progress.advance(bar)


def read(path: Path) -> list[dict[str, object]]:
    """All rows so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def table(rows: list[dict[str, object]]) -> str:
    """Markdown: mean ± spread over folds, and the paired difference to 12 bits with its bootstrap interval."""
    by_key: dict[tuple[str, int], dict[tuple[int, int], float]] = {}
    for row in rows:
        key = (str(row["quantizer"]), int(row["bits"]))  # type: ignore[call-overload]
        by_key.setdefault(key, {})[int(row["fold"]), int(row["seed"])] = float(row["macro_f1"])  # type: ignore[arg-type, call-overload]
    reference = by_key.get(REFERENCE, {})
    lines = [
        "| quantizer | bits | macro-F1, mean ± SD over folds | difference to 12 bits, points (95 % interval) | runs |",
        "|---|---|---|---|---|",
    ]
    generator = np.random.default_rng(0)
    for (quantizer, bits), runs in by_key.items():
        per_fold = [np.mean([v for (f, _), v in runs.items() if f == fold]) for fold in sorted({f for f, _ in runs})]
        shared = sorted(set(runs) & set(reference))
        text = "reference"
        if (quantizer, bits) != REFERENCE and shared:
            # Folds are what varies with people: seeds are averaged within a fold before folds are drawn.
            by_fold: dict[int, list[float]] = {}
            for key in shared:
                by_fold.setdefault(key[0], []).append(100 * (runs[key] - reference[key]))
            means = np.array([np.mean(v) for v in by_fold.values()])
            draws = generator.choice(means, (BOOTSTRAP, len(means))).mean(axis=1)
            low, high = np.quantile(draws, [0.025, 0.975])
            text = f"{means.mean():+.1f} ({low:+.1f} … {high:+.1f})"
        name = "12-bit counts" if quantizer == "none" else quantizer
        lines.append(f"| {name} | {bits} | {np.mean(per_fold):.3f} ± {np.std(per_fold):.3f} | {text} | {len(runs)} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=sorted(TASKS))
    parser.add_argument("--data", type=Path, help="archive or folder")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", help="quantizers to run, such as none-12,gamma-4")
    parser.add_argument("--report", action="store_true", help="print the table of the stored runs, run nothing")
    arguments = parser.parse_args()
    out = RESULTS / f"accuracy-{arguments.dataset}.jsonl"
    if not arguments.report:
        if arguments.data is None:
            parser.error("--data is needed to run")
        torch.set_num_threads(1)
        chosen = QUANTIZERS
        if arguments.only:
            names = arguments.only.split(",")
            chosen = [q for q in QUANTIZERS if f"{q[0]}-{q[1]}" in names]
        run(arguments.dataset, arguments.data, seeds=arguments.seeds, quantizers=chosen, out=out)
    sys.stdout.write(table(read(out)) + "\n")


if __name__ == "__main__":
    main()
