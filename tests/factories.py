"""Small real things for tests: codebooks, sensors and bundles, made by the code that users run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.bundle import Bundle, assemble, load_bundle, save_bundle
from models.har import HarConfig, build
from quantization.baselines import linear, mu_law
from quantization.codebook import Codebook
from quantization.imu import ACC_GYRO, unit_of
from quantization.sensor import PARTS, Sensor

FULL_SCALE = {"g": 8.0, "deg/s": 2000.0}
LABELS = ("SEATED", "STANDING_UP", "WALKING", "TURNING", "SITTING_DOWN")


def sensor(channels: tuple[str, ...] = ACC_GYRO, part: str = "generic12") -> Sensor:
    gyro = 2000.0 if any(c.startswith("gyro") for c in channels) else None
    return PARTS[part].sensor(part, channels, acc_g=8.0, gyro_dps=gyro)


def codebook(
    channels: tuple[str, ...] = ACC_GYRO, *, bits: int = 4, rate_hz: float = 50.0, curved: bool = True
) -> Codebook:
    make = mu_law if curved else linear
    return make(channels, bits, rate_hz, [FULL_SCALE[unit_of(c)] for c in channels])


def tiny_bundle(
    folder: Path,
    name: str = "tiny",
    *,
    version: int = 1,
    labels: tuple[str, ...] = LABELS,
    book: Codebook | None = None,
    window: int = 50,
    stride: int = 25,
    unknown_below: float = -1e6,  # never unknown: evidence of any window is above
    seed: int = 0,
) -> Bundle:
    """An untrained bundle with a real network, written to and loaded from ``folder``."""
    book = book or codebook()
    torch.manual_seed(seed)
    network = build(HarConfig("tinier", len(book.channels), len(labels), window))
    manifest: dict[str, Any] = {
        "name": name,
        "version": version,
        "created": "2026-01-01T00:00:00Z",
        "body_site": "wrist",
        "labels": list(labels),
        "rate_hz": book.rate_hz,
        "window": window,
        "stride": stride,
        "unknown_below": unknown_below,
        "data": {
            "dataset": "none",
            "licence": "none",
            "citation": "none",
            "train_subjects": [],
            "validation_subjects": [],
            "test_subjects": [],
        },
        "scores": {
            "scoring_rule": "majority",
            "protocol": "untrained",
            "macro_f1": 0.0,
            "accuracy": 0.0,
            "macro_f1_pure": 0.0,
            "windows": 0,
            "subjects": 0,
            "unknown_share": 0.0,
        },
        "training": {},
    }
    bundle = assemble(manifest, codebook=book, network=network, sensor=sensor(book.channels))
    return load_bundle(save_bundle(folder, bundle))
