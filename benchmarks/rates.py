"""What the codes of every accuracy run take on the wire, measured on its test and on its validation subjects.

    python -m benchmarks.rates --data ../shared/data/har

Contexts of the entropy coder are counted on the run's training subjects; its test subjects' recordings are then cut
into packets of 1 s and 2 s as a device does, and their bytes are counted. One line of
``benchmarks/results/rates-<dataset>.jsonl`` for each run; lines that are there stay.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.accuracy import codebooks, material, read, stored
from benchmarks.grid import ARCHIVES, FOREST, Run, folds
from benchmarks.machine import RESULTS
from benchmarks.variants import ANY_BIT, SHIFTS, loop_codes
from models.bandwidth import bandwidth, packets_of
from models.resample import Segment
from protocol.packet import HEADER_BYTES
from protocol.topics import Kind, topic
from protocol.wire_size import publish_size
from quantization.codebook import Codebook
from quantization.entropy import code_length, statistics_from_codes
from quantization.imu import Codes
from quantization.sensor import Sensor

PACKETS_S: Final = (1.0, 2.0)
TOPIC: Final = topic("w1", Kind.IMU)


def measure(run: Run, data: Path, results: Path = RESULTS) -> list[dict[str, Any]]:
    """The rows of one run, bits a sample and channel by packet duration: one, or one for every any-bit depth."""
    recordings = material(run.dataset, run.rate_hz, data)
    sensor = run.task.sensor(recordings.channels)
    plain = Codebook.load(codebooks(results) / f"{run.key}.bin")

    def codes(subjects: list[str]) -> list[Codes]:
        return [_codes(segment, plain, sensor, run.loop) for segment in recordings.of(subjects)]

    train, validation, test = (codes(subjects) for subjects in folds(recordings.subjects, run.fold))
    if run.loop != ANY_BIT:
        return [{**asdict(run), **_measured(train, validation, test, plain)}]
    return [
        {
            **asdict(run),
            "sent_bits": run.bits - shift,
            **_measured(
                *([block >> shift for block in blocks] for blocks in (train, validation, test)),
                upper_bits(plain, shift),
            ),
        }
        for shift in SHIFTS
    ]


def upper_bits(book: Codebook, shift: int) -> Codebook:
    """The codebook of a code's upper bits."""
    step = 2**shift
    levels = book.levels.reshape(len(book.channels), -1, step).mean(axis=2)
    return Codebook(book.channels, book.bits - shift, book.rate_hz, book.thresholds[:, step - 1 :: step], levels)


def _measured(train: list[Codes], validation: list[Codes], test: list[Codes], plain: Codebook) -> dict[str, Any]:
    book = replace(plain, contexts=statistics_from_codes(train, plain.bits))
    values = sum(block.size for block in test)
    row: dict[str, Any] = {
        "conditional_entropy": round(conditional_entropy(test, plain.bits), 4),
        "code_length": round(sum(code_length(block, book) for block in test) / values, 4),
        "validation_payload": round(bandwidth(validation, book, max(PACKETS_S)).payload_bits, 4),
        "test_values": values,
    }
    for packet_s in PACKETS_S:
        sizes = [len(packet.payload) for block in test for packet in packets_of(block, book, packet_s)]
        payload, count = sum(sizes), len(sizes)
        publish = sum(publish_size(TOPIC, HEADER_BYTES + size, qos=0, version=5, alias=False) for size in sizes)
        row[f"packets_{packet_s:g}s"] = {
            "payload": round(8 * payload / values, 4),
            "all_in": round(8 * (payload + HEADER_BYTES * count) / values, 4),
            "publish": round(8 * publish / values, 4),
        }
    return row


def _codes(segment: Segment, book: Codebook, sensor: Sensor, loop: str) -> Codes:
    measured = sensor.to_physical(sensor.to_counts(segment.values))
    return loop_codes(measured, book, "plain" if loop == ANY_BIT else loop, np.random.default_rng(0))


def conditional_entropy(blocks: list[Codes], bits: int) -> float:
    """H(code | the same channel's code before) of these very codes, bits a sample, mean over channels."""
    total = []
    for channel in range(blocks[0].shape[1]):
        joint = np.zeros((2**bits, 2**bits))
        for block in blocks:
            np.add.at(joint, (block[:-1, channel], block[1:, channel]), 1)
        share = joint / joint.sum()
        given = share / np.maximum(share.sum(axis=1, keepdims=True), 1e-300)
        total.append(-(share[share > 0] * np.log2(given[share > 0])).sum())
    return float(np.mean(total))


def measure_missing(dataset: str, data: Path, results: Path = RESULTS) -> None:
    """Measure the stored runs of a data set that have no line yet."""
    path = results / f"rates-{dataset}.jsonl"
    done = {Run.from_row(row) for row in read(path)}
    made = {run for run in map(Run.from_row, stored(dataset, results)) if run.quantizer != "none"}
    todo = {run for run in made if run.network != FOREST and run not in done}
    with Progress(console=Console(stderr=True)) as progress:
        # By rate, so that each reading of the recordings serves many runs.
        for run in progress.track(sorted(todo, key=lambda run: (run.rate_hz, run.key)), description=dataset):
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in measure(run, data, results))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/har"), help="folder of the archives")
    parser.add_argument("--datasets", default=",".join(ARCHIVES), help="separated by commas")
    arguments = parser.parse_args()
    for dataset in arguments.datasets.split(","):
        measure_missing(dataset, arguments.data)


if __name__ == "__main__":
    main()
