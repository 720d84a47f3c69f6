"""Recognition by quantizer, bits, sampling rate and network, cross-validated by subject.

    python -m benchmarks.accuracy core --datasets sp_sw_har --data ../shared/data/har
    python -m benchmarks.accuracy frontier --datasets sp_sw_har,wisdm2019_watch --seeds 0-2 --jobs 2
    python -m benchmarks.accuracy core --list

Every run (data set, rate, network, quantizer, bits, λ, fold, seed) is a line of
``benchmarks/results/accuracy-<dataset>.jsonl``; runs that are there are not run again, so a stopped benchmark goes on.
Its codebook is kept under ``runs/accuracy/``. Folds are by subject (:func:`benchmarks.grid.folds`).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.grid import ARCHIVES, FOREST, GRIDS, Run, folds, runs
from benchmarks.machine import RESULTS, ROOT, commit, machine
from benchmarks.variants import SHIFTS, AnyBitQuantizer, wrap
from models.fit import logits_of
from models.forest import fit_forest
from models.scores import score
from models.tasks import Material, load_material
from models.train import fit_once, windows_of
from models.windows import SCORING_RULE, Windows
from quantization.codebook import Codebook
from quantization.gamma import Quantizer

Subjects = tuple[list[str], list[str], list[str]]
"""Training, validation and test."""


def codebooks(results: Path) -> Path:
    """Where the codebooks of stored runs are: not in git, as runs make them anew."""
    return ROOT / "runs" / "accuracy" if results == RESULTS else results


@lru_cache(maxsize=4)
def material(dataset: str, rate_hz: float, data: Path) -> Material:
    """The recordings of a run; kept, as the next run most often has the same."""
    task = Run(dataset, rate_hz, "", "none", 12, 0.0, 0, 0).task
    return load_material(task, data / ARCHIVES[dataset])


def execute(run: Run, data: Path, results: Path = RESULTS) -> list[dict[str, Any]]:
    """Train and test; returns the rows to store: one, or one for every bit depth of an any-bit network."""
    import torch

    torch.set_num_threads(1)
    started = time.monotonic()
    recordings = material(run.dataset, run.rate_hz, data)
    subjects = folds(recordings.subjects, run.fold)
    rows = list((_forest if run.network == FOREST else _network)(run, recordings, subjects, codebooks(results)))
    common = {
        "scoring_rule": SCORING_RULE,
        "seconds": round(time.monotonic() - started, 1),
        "commit": commit(),
        "machine": machine(),
    }
    return [{**asdict(run), **row, **common} for row in rows]


def _network(run: Run, recordings: Material, subjects: Subjects, folder: Path) -> Iterator[dict[str, Any]]:
    # Runs are of a fixed length, so the last epoch is kept: validation subjects are scored once, after it.
    trained = fit_once(run.task, recordings, run.settings, subjects[0], [], wrap=lambda q: wrap(q, run.loop))
    quantizer = trained.model.quantizer
    if isinstance(quantizer, Quantizer):
        folder.mkdir(parents=True, exist_ok=True)
        quantizer.codebook(recordings.channels, run.rate_hz).save(folder / f"{run.key}.bin")
    sensor = run.task.sensor(recordings.channels)

    def predict(windows: Windows) -> NDArray[np.float32]:
        return logits_of(trained.model, windows, sensor).numpy()

    if not isinstance(quantizer, AnyBitQuantizer):
        yield _scores(run, recordings, predict, subjects)
        return
    for shift in SHIFTS:
        quantizer.shift = shift
        yield {"sent_bits": run.bits - shift, **_scores(run, recordings, predict, subjects)}


def _forest(run: Run, recordings: Material, subjects: Subjects, folder: Path) -> Iterator[dict[str, Any]]:
    """A forest on the very codes that the CNN of the same fold and seed learned."""
    book = None if run.quantizer == "none" else Codebook.load(folder / f"{replace(run, network='cnn').key}.bin")
    train = windows_of(run.task, recordings, subjects[0])
    sensor = run.task.sensor(recordings.channels)
    forest = fit_forest(train, book, sensor, classes=len(recordings.labels), seed=run.seed)
    yield _scores(run, recordings, forest.probabilities, subjects)


def _scores(
    run: Run, recordings: Material, predict: Callable[[Windows], NDArray[np.float32]], subjects: Subjects
) -> dict[str, Any]:
    _, validation, test = subjects
    held_out = windows_of(run.task, recordings, validation)
    windows = windows_of(run.task, recordings, test)
    answers = predict(windows)
    scores = score(windows, answers)
    pure = scores.macro_f1_pure
    return {
        "macro_f1": scores.macro_f1,
        "accuracy": scores.accuracy,
        "macro_f1_pure": None if math.isnan(pure) else pure,
        "validation_macro_f1": score(held_out, predict(held_out)).macro_f1,
        "per_subject_macro_f1": _by_subject(windows, answers, test),
        "windows": scores.windows,
    }


def _by_subject(windows: Windows, logits: NDArray[np.float32], subjects: list[str]) -> dict[str, float]:
    labelled = {s: windows.subject == s for s in subjects}
    return {
        subject: round(score(windows.where(rows), logits[rows]).macro_f1, 4)
        for subject, rows in labelled.items()
        if (windows.truth[rows] >= 0).any()
    }


def stored(dataset: str, results: Path = RESULTS) -> list[dict[str, Any]]:
    """All rows so far."""
    return read(results / f"accuracy-{dataset}.jsonl")


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none where it is absent."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def run_missing(wanted: list[Run], data: Path, jobs: int, results: Path = RESULTS) -> None:
    """Run what is not stored yet, several at a time, and store each as it ends."""
    done = {Run.from_row(row) for dataset in {run.dataset for run in wanted} for row in stored(dataset, results)}
    missing = [run for run in wanted if run not in done]
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    # A fork of a process that has used torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with (
        Progress(*columns, console=Console(stderr=True)) as progress,
        ProcessPoolExecutor(jobs, mp_context=context) as pool,
    ):
        bar = progress.add_task("training", total=len(missing))
        futures = {pool.submit(execute, run, data, results): run for run in missing}
        try:
            for future in as_completed(futures):
                run = futures[future]
                with (results / f"accuracy-{run.dataset}.jsonl").open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in future.result())
                progress.update(bar, advance=1, description=f"{run.dataset} {run.quantizer} {run.bits} bit")
        except KeyboardInterrupt:
            progress.console.print("stopped; the same command goes on with what is missing")
            raise SystemExit(130) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # of a run that failed, too: what is stored stays


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", choices=sorted(GRIDS))
    parser.add_argument("--datasets", default="sp_sw_har", help=f"of {', '.join(ARCHIVES)}, separated by commas")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/har"), help="folder of the archives")
    parser.add_argument("--seeds", default="0-2", help="first and last, such as 0-2")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--only", help="quantizers to run, such as none,gamma")
    parser.add_argument("--list", action="store_true", help="say what is missing, run nothing")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    wanted = [run for dataset in arguments.datasets.split(",") for run in runs(arguments.grid, dataset, seeds=seeds)]
    if arguments.only:
        wanted = [run for run in wanted if run.quantizer in arguments.only.split(",")]
    if arguments.list:
        done = {Run.from_row(row) for dataset in arguments.datasets.split(",") for row in stored(dataset)}
        for run in wanted:
            if run not in done:
                sys.stdout.write(run.key + "\n")
        return
    run_missing(wanted, arguments.data, arguments.jobs)


if __name__ == "__main__":
    main()
