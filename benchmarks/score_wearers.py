"""How much generated wearers are like real ones: recognition across the two, in both directions.

    python benchmarks/score_wearers.py tug --data sp_sw_har.zip
    python benchmarks/score_wearers.py wisdm --data wisdm2019_watch.zip

1. Trained on real, tried on generated: the shipped bundle on every persona. Beside it, the same bundle on the real
   subjects that neither it nor the wearer has seen.
2. Trained on generated, tried on real: the same network and quantizer, trained on the personas alone, tried on those
   subjects.

A wearer that scores far above real people in 1 is a caricature; one that is far below in 2 lacks what real people do.
Only activities that the wearer has are counted. Where the bundle knows more of them (wisdm), 2 is a little easier than
1, because that network cannot answer with the others. Lines are added to ``benchmarks/results/wearers.jsonl``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.machine import RESULTS, commit, machine
from device_emulator.synthetic import SyntheticSource
from device_emulator.wearer import load_wearer, wearers
from models.bundle import Bundle, load_bundle
from models.evaluate import predict_windows
from models.fit import FitSettings, logits_of
from models.resample import Segment
from models.scores import Scores, f1_per_class, score
from models.tasks import TASKS, Material, Task, load_material
from models.train import TrainSettings, fit_once
from models.windows import SCORING_RULE, Windows, cut

SECONDS: Final = {"cycle": 120.0, "shuffle": 900.0}
"""Of each persona: ten rounds, or some twenty bouts."""


def generated(wearer: str, task: Task, labels: tuple[str, ...], channels: tuple[str, ...], seed: int) -> list[Segment]:
    """Every persona at the task's rate, labelled as ``labels``."""
    parameters = load_wearer(wearer)
    index = np.array([*(labels.index(name) for name in parameters.labels), -1], dtype=np.int16)
    sensor = task.sensor(channels)
    segments = []
    for persona in range(len(parameters.personas)):
        source = SyntheticSource(
            sensor, rate_hz=task.rate_hz, seed=1000 * seed + persona, persona=persona, wearer=wearer
        )
        block = source.read(round(SECONDS[parameters.order] * task.rate_hz))
        values = sensor.to_physical(block.counts).astype(np.float32)
        segments.append(Segment(source.subject, wearer, channels, task.rate_hz, 0.0, values, index[block.label]))
    return segments


def of_labels(windows: Windows, known: list[int]) -> Windows:
    """Windows whose truth is one of ``known``."""
    return windows.where(np.isin(windows.truth, known))


def macro_f1(scores: Scores, known: list[int]) -> float:
    """Over ``known`` classes; answers outside of them count as misses only."""
    return round(float(f1_per_class(scores.confusion)[known].mean()), 4)


def cut_for(task: Task, segments: list[Segment], labels: tuple[str, ...]) -> Windows:
    """Windows as they are scored."""
    return cut(segments, length=task.window, stride=task.stride, classes=len(labels))


def bundle_scores(bundle: Bundle, windows: Windows) -> Scores:
    """The shipped path: counts, codes, network."""
    return score(windows, predict_windows(bundle, windows, bundle.sensor).probabilities)


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description="Score a generated wearer against real recordings.")
    parser.add_argument("wearer", choices=wearers())
    parser.add_argument("--data", type=Path, required=True, help="the data set that it was fitted to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    parameters = load_wearer(options.wearer)
    bundle = load_bundle(TASKS[parameters.origin.dataset].bundle)
    task = replace(TASKS[parameters.origin.dataset], rate_hz=bundle.manifest.rate_hz)
    labels, channels = bundle.labels, bundle.codebook.channels
    known = [labels.index(name) for name in parameters.labels]
    real = load_material(task, options.data, labels=labels)
    unseen = of_labels(cut_for(task, real.of(list(task.test)), labels), known)
    segments = generated(options.wearer, task, labels, channels, options.seed)
    windows = of_labels(cut_for(task, segments, labels), known)
    on_generated, on_real = bundle_scores(bundle, windows), bundle_scores(bundle, unseen)

    material = Material(labels, channels, tuple(segments), {})
    validation = material.subjects[::5]
    settings = TrainSettings(fit=FitSettings(epochs=options.epochs, seed=options.seed))
    train = [name for name in material.subjects if name not in validation]
    trained = fit_once(task, material, settings, train, validation)
    reverse = score(unseen, logits_of(trained.model, unseen, task.sensor(channels)).numpy())
    row = {
        "wearer": options.wearer,
        "bundle": bundle.reference,
        "scoring_rule": SCORING_RULE,
        "seed": options.seed,
        "epochs": options.epochs,
        "activities": list(parameters.labels),
        "real_subjects": list(task.test),
        "real_windows": len(unseen),
        "generated_windows": len(windows),
        "train_real_test_generated": macro_f1(on_generated, known),
        "train_real_test_generated_f1": dict(
            zip(parameters.labels, f1_per_class(on_generated.confusion)[known].round(3).tolist(), strict=True)
        ),
        "train_real_test_real": macro_f1(on_real, known),
        "train_generated_test_real": macro_f1(reverse, known),
        "train_generated_test_real_f1": dict(
            zip(parameters.labels, f1_per_class(reverse.confusion)[known].round(3).tolist(), strict=True)
        ),
        "commit": commit(),
        "machine": machine(),
    }
    print(json.dumps(row, indent=1))
    with (RESULTS / "wearers.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
