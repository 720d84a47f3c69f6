"""Detection by quantizer and bits: average precision in ordinary and in little light, and the bytes of a frame.

    python -m benchmarks.detection --data ../shared/data/vision
    python -m benchmarks.detection --tasks bccd --seeds 0-1 --jobs 2
    python -m benchmarks.detection --curves none,gamma-4 --list
    python -m benchmarks.detection --epochs 120 --tasks penn_fudan --curves none,gamma-4 --seeds 0-1
    python -m benchmarks.detection --bytes                       # adds bytes to rows without; trains nothing

Every run (task, curve, bits, seed) is a line of ``benchmarks/results/detection.jsonl``; runs that are there are not run
again, so a stopped benchmark goes on. Curves are kept under ``runs/detection/``. Runs take half of the epochs that
``gammawear train detector`` does; with ``--epochs`` so many, in ``detection_long.jsonl``. All seeds of a task share its
split, the cameras and the noise of its test frames; they differ in initialisation and in what training sees.

A row's ``light`` has the scores. Where codes are made, ``packed`` and ``coded`` (by light) are what a frame takes as it
is sent, in chunks with their headers. The curve ``jpeg`` is the rival of :mod:`benchmarks.jpeg_shots`: its row has
scores and bytes under ``jpeg``, by quality and light.
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

from benchmarks.frame_bytes import sizes
from benchmarks.jpeg_shots import score_jpegs, train_on_jpegs
from benchmarks.machine import RESULTS, ROOT, commit, machine
from models.vision.fit import DetectorSettings, evaluate
from models.vision.shots import Shots, View, brightness
from models.vision.tasks import CURVES, TASKS, TEST_SEED, CurveKind, train_detector, views
from models.vision.train import LIGHTS
from protocol.frame import frame_chunks
from quantization.codebook import Codebook
from quantization.gamma_image import ImageQuantizer, PaperQuantizer, PlaneQuantizer
from quantization.raw import RawFrame, lift_for

FILE: Final = RESULTS / "detection.jsonl"
LONG_FILE: Final = RESULTS / "detection_long.jsonl"
CODEBOOKS: Final = ROOT / "runs" / "detection"
CORE: Final = ("none", "linear-4", "log-4", "gamma-4", "gamma-2")
"""What every seed has before the rest."""
MORE: Final = ("gamma-unweighted-4", "gamma-small-4", "linear-lifted-4", "jpeg", "gamma-paper-4", "gamma-3", "linear-2")
KINDS: Final[dict[str, CurveKind]] = {kind: kind for kind in CURVES[1:]} | {
    "gamma-unweighted": "gamma",
    "gamma-small": "gamma",
    "linear-lifted": "linear",
}
"""How each curve is made."""
RATE_WEIGHTS: Final = {"gamma-unweighted": 0.0, "gamma-small": 0.1}
"""Where it is not the task's."""
LIFTED: Final = ("gamma", *RATE_WEIGHTS, "linear-lifted")
"""Get dim frames lifted, as our cameras do it; the others see light as it is: so they were published."""
WHOLE: Final = {"none": 12, "jpeg": 8}
"""Without a quantizer, so without a number of bits to choose: bits of their values."""
ARCHIVES: Final = {"penn_fudan": "penn_fudan.zip", "bccd": "bccd.zip"}


@dataclass(frozen=True)
class Run:
    """One training and its tests."""

    task: str
    curve: str
    bits: int
    seed: int

    @property
    def key(self) -> str:
        """Names the run, as a file name."""
        return "-".join(map(str, asdict(self).values()))

    @property
    def codebook(self) -> Path:
        """Where its curve is kept, if it has one."""
        return CODEBOOKS / f"{self.key}.bin"

    @classmethod
    def of(cls, row: dict[str, Any]) -> Run:
        """The run that a stored row is of."""
        return cls(row["task"], row["curve"], row["bits"], row["seed"])


@lru_cache(maxsize=2)
def material(task: str, data: Path) -> tuple[list[View], list[View], tuple[str, ...]]:
    """Training views, test views and classes."""
    published = TASKS[task].published
    pictures = published.load(data / ARCHIVES[published.name])
    return *views(TASKS[task], pictures), pictures.classes


@lru_cache(maxsize=len(LIGHTS))
def tested_frames(task: str, data: Path, light: float) -> list[RawFrame]:
    """The frames that all detectors of a task are tested on."""
    train, test, _ = material(task, data)
    shots = Shots(test, gain=brightness(train), seed=TEST_SEED)
    return [shots.plain(index, light).frame for index in range(len(test))]


def sent(frames: list[RawFrame], codebook: Codebook, *, lifted: bool, compress: bool) -> dict[str, Any]:
    """Bytes of frames as their chunks are sent, headers included."""
    lengths = []
    for frame in frames:
        codes = frame.codes(frame.sensor.lookup(codebook, lift_for(frame.mean_light) if lifted else 0))
        chunks = frame_chunks(codes, codebook, cfa=frame.sensor.cfa, sequence=0, tick_ms=0, compress=compress)
        lengths.append(sum(len(bytes(chunk)) for chunk in chunks))
    return sizes(lengths, frames[0].counts.size)


def frame_sizes(run: Run, data: Path, codebook: Codebook) -> dict[str, Any]:
    """What a row says of the bytes of its test frames."""
    lifted = run.curve in LIFTED
    coded = {
        f"{light:g}": sent(tested_frames(run.task, data, light), codebook, lifted=lifted, compress=True)
        for light in LIGHTS
    }
    # Plain packing takes the same of any frame.
    packed = sent(tested_frames(run.task, data, 1.0)[:1], codebook, lifted=lifted, compress=False)
    return {"packed": packed, "coded": coded}


def execute(run: Run, data: Path, epochs: int | None = None) -> dict[str, Any]:
    """Train, for half of the task's epochs if none are given, and test; returns the row to store."""
    import torch

    torch.set_num_threads(1)
    started = time.monotonic()
    train, test, classes = material(run.task, data)
    task = TASKS[run.task]
    settings = DetectorSettings(
        epochs=epochs or task.epochs // 2,
        rate_weight=RATE_WEIGHTS.get(run.curve, task.rate_weight if run.curve == "gamma" else 0.0),
        seed=run.seed,
    )
    row: dict[str, Any] = {
        **asdict(run),
        "epochs": settings.epochs,
        "rate_weight": settings.rate_weight,
        "classes": classes,
        "pictures": len(test),
    }
    if run.curve == "jpeg":
        model, gain = train_on_jpegs(train, len(classes), settings, task.variation)
        row["jpeg"] = score_jpegs(model, test, gain, TEST_SEED)
    else:
        model, gain = train_detector(
            train, len(classes), KINDS.get(run.curve, "none"), min(run.bits, 8), settings,
            variation=task.variation, lifted=run.curve in LIFTED,
        )  # fmt: skip
        shots = Shots(test, gain=gain, seed=TEST_SEED)
        row["light"] = {f"{light:g}": asdict(evaluate(model, shots, light)) for light in LIGHTS}
    quantizer = model.quantizer
    if isinstance(quantizer, PlaneQuantizer):
        codebook = quantizer.image_codebook()
        run.codebook.parent.mkdir(parents=True, exist_ok=True)
        codebook.save(run.codebook)
        row |= frame_sizes(run, data, codebook)
    if isinstance(quantizer, ImageQuantizer):
        row |= {name: getattr(quantizer, name).tolist() for name in ("gamma", "black", "range")}
    if isinstance(quantizer, PaperQuantizer):
        row["gamma"] = [quantizer.gamma.item()]
    return row | {"seconds": round(time.monotonic() - started, 1), "commit": commit(), "machine": machine()}


def stored(file: Path) -> list[dict[str, Any]]:
    """Rows that are there."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def add_bytes(data: Path) -> None:
    """Give rows without bytes those of their stored curve's codes."""
    rows = stored(FILE)
    for row in rows:
        run = Run.of(row)
        if run.curve in WHOLE or "coded" in row:
            continue
        if not run.codebook.exists():
            print(f"{run.key}: there is no {run.codebook}")
            continue
        row |= frame_sizes(run, data, Codebook.load(run.codebook))
        print(f"{run.key}: {row['coded']['1']['bytes_mean']:.0f} bytes a frame")
    whole = FILE.with_suffix(".new")
    whole.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole.replace(FILE)


def runs(tasks: list[str], curves: list[str], seeds: range) -> Iterator[Run]:
    """Seed by seed, so that a stopped benchmark is balanced."""
    for seed in seeds:
        for task in tasks:
            for name in curves:
                if name in WHOLE:
                    yield Run(task, name, WHOLE[name], seed)
                    continue
                kind, _, bits = name.rpartition("-")
                if kind not in KINDS:
                    sys.exit(f"no curve {name!r}; known: {', '.join(WHOLE)}, or {', '.join(KINDS)} with -<bits>")
                yield Run(task, kind, int(bits), seed)


def summary(row: dict[str, Any]) -> str:
    """One line on a row."""
    by_name = {f"quality {quality}, ": light for quality, light in row["jpeg"].items()} if "jpeg" in row else {}
    scores = "; ".join(
        name + ", ".join(f"light {light}: AP50 {one['ap50']:.3f}" for light, one in by_light.items())
        for name, by_light in (by_name or {"": row["light"]}).items()
    )
    return f"{Run.of(row).key}: {scores} ({row['seconds']:.0f} s)"


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "vision")
    parser.add_argument("--tasks", default="penn_fudan,bccd", help="of: " + ", ".join(TASKS))
    parser.add_argument("--curves", default=",".join(CORE), help="default: %(default)s; further: " + ",".join(MORE))
    parser.add_argument("--seeds", default="0-4", help="first-last, default %(default)s")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time, one core each")
    parser.add_argument("--epochs", type=int, help="so many, not half of the task's; rows in a file of their own")
    parser.add_argument("--list", action="store_true", help="show what is missing, run nothing")
    parser.add_argument("--bytes", action="store_true", help="add bytes to rows without; not while others are added")
    arguments = parser.parse_args()
    if arguments.bytes:
        add_bytes(arguments.data)
        return
    first, _, last = arguments.seeds.partition("-")
    wanted = runs(arguments.tasks.split(","), arguments.curves.split(","), range(int(first), int(last or first) + 1))
    results = FILE if arguments.epochs is None else LONG_FILE
    there = {Run.of(row) for row in stored(results) if arguments.epochs in (None, row["epochs"])}
    missing = [run for run in wanted if run not in there]
    print(f"{len(missing)} runs to do")
    if arguments.list:
        print("\n".join(run.key for run in missing))
        return
    with ProcessPoolExecutor(arguments.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = {pool.submit(execute, run, arguments.data, arguments.epochs): run for run in missing}
        for future in as_completed(pending):
            row = future.result()
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(summary(row))


if __name__ == "__main__":
    main()
