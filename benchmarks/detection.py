"""Detection by quantizer and bits: average precision in ordinary and in little light.

    python -m benchmarks.detection --data ../shared/data/vision
    python -m benchmarks.detection --tasks bccd --seeds 0-1 --jobs 2
    python -m benchmarks.detection --curves none,gamma-4 --list

Every run (task, curve, bits, seed) is a line of ``benchmarks/results/detection.jsonl``; runs that are there are not run
again, so a stopped benchmark goes on. Curves are kept under ``runs/detection/``. All seeds of a task share its split,
the cameras and the noise of its test frames; they differ in initialisation and in what training sees.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import RESULTS, ROOT, commit, machine
from models.vision.fit import DetectorSettings, evaluate
from models.vision.shots import Shots, View
from models.vision.tasks import CURVES, TASKS, TEST_SEED, CurveKind, train_detector, views
from models.vision.train import LIGHTS
from quantization.gamma_image import ImageQuantizer, PaperQuantizer, PlaneQuantizer

FILE: Final = RESULTS / "detection.jsonl"
CODEBOOKS: Final = ROOT / "runs" / "detection"
CORE: Final = ("none", "linear-4", "log-4", "gamma-4", "gamma-2")
"""What every seed has before the rest."""
MORE: Final = ("gamma-paper-4", "gamma-3", "linear-2", "gamma-paper-2")
ARCHIVES: Final = {"penn_fudan": "penn_fudan.zip", "bccd": "bccd.zip"}


@dataclass(frozen=True)
class Run:
    """One training and its tests."""

    task: str
    curve: CurveKind
    bits: int
    seed: int

    @property
    def key(self) -> str:
        """Names the run, as a file name."""
        return "-".join(map(str, asdict(self).values()))


@lru_cache(maxsize=2)
def material(task: str, data: Path) -> tuple[list[View], list[View], tuple[str, ...]]:
    """Training views, test views and classes."""
    published = TASKS[task].published
    pictures = published.load(data / ARCHIVES[published.name])
    return *views(TASKS[task], pictures), pictures.classes


def execute(run: Run, data: Path) -> dict[str, Any]:
    """Train and test; returns the row to store."""
    import torch

    torch.set_num_threads(1)
    started = time.monotonic()
    train, test, classes = material(run.task, data)
    settings = DetectorSettings(epochs=TASKS[run.task].epochs, seed=run.seed)
    model, gain = train_detector(train, len(classes), run.curve, min(run.bits, 8), settings)
    quantizer = model.quantizer
    if isinstance(quantizer, PlaneQuantizer):
        CODEBOOKS.mkdir(parents=True, exist_ok=True)
        quantizer.image_codebook().save(CODEBOOKS / f"{run.key}.bin")
    shots = Shots(test, gain=gain, seed=TEST_SEED)
    row: dict[str, Any] = {**asdict(run), "epochs": settings.epochs, "classes": classes, "pictures": len(test)}
    row["light"] = {f"{light:g}": asdict(evaluate(model, shots, light)) for light in LIGHTS}
    if isinstance(quantizer, ImageQuantizer):
        row |= {name: getattr(quantizer, name).tolist() for name in ("gamma", "black", "range")}
    if isinstance(quantizer, PaperQuantizer):
        row["gamma"] = [quantizer.gamma.item()]
    return row | {"seconds": round(time.monotonic() - started, 1), "commit": commit(), "machine": machine()}


def stored() -> list[dict[str, Any]]:
    """Rows that are there."""
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.exists() else []


def runs(tasks: list[str], curves: list[str], seeds: range) -> Iterator[Run]:
    """Seed by seed, so that a stopped benchmark is balanced."""
    for seed in seeds:
        for task in tasks:
            for name in curves:
                kind, _, bits = name.rpartition("-") if name != "none" else ("none", "", "12")
                if kind not in CURVES:
                    sys.exit(f"no curve {name!r}; known: none, or {', '.join(CURVES[1:])} with -<bits>")
                yield Run(task, kind, int(bits), seed)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "vision")
    parser.add_argument("--tasks", default="penn_fudan,bccd", help="of: " + ", ".join(TASKS))
    parser.add_argument("--curves", default=",".join(CORE), help="default: %(default)s; further: " + ",".join(MORE))
    parser.add_argument("--seeds", default="0-4", help="first-last, default %(default)s")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time, one core each")
    parser.add_argument("--list", action="store_true", help="show what is missing, run nothing")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    wanted = runs(arguments.tasks.split(","), arguments.curves.split(","), range(int(first), int(last or first) + 1))
    there = {Run(row["task"], row["curve"], row["bits"], row["seed"]) for row in stored()}
    missing = [run for run in wanted if run not in there]
    print(f"{len(missing)} runs to do")
    if arguments.list:
        print("\n".join(run.key for run in missing))
        return
    with ProcessPoolExecutor(arguments.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = {pool.submit(execute, run, arguments.data): run for run in missing}
        for future in as_completed(pending):
            row = future.result()
            with FILE.open("a") as file:
                file.write(json.dumps(row) + "\n")
            scores = ", ".join(f"light {light}: {one['ap50']:.3f}" for light, one in row["light"].items())
            print(f"{pending[future].key}: AP {row['light']['1']['ap']:.3f}, AP50 {scores} ({row['seconds']:.0f} s)")


if __name__ == "__main__":
    main()
