"""From recordings to a bundle: split, fit, calibrate, score, save."""

from __future__ import annotations

import datetime as dt
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models.augment import Augment, Crops
from models.bundle import Bundle, assemble, save_bundle
from models.bundle_files import check_before_training
from models.datasets import get
from models.device_part import Manifest, Scores
from models.evaluate import evaluate
from models.fit import Epoch, Fit, FitSettings, JointModel, logits_of
from models.har import HarConfig, build
from models.tasks import Material, Task, split
from models.windows import SCORING_RULE, Windows, cut
from quantization.baselines import linear, lloyd_max, mu_law
from quantization.codebook import Codebook
from quantization.codec import Encoder
from quantization.entropy import statistics_from_codes
from quantization.errors import BundleError, TrainingError
from quantization.gamma import FixedQuantizer, GammaQuantizer, Init, Quantizer, Unquantized
from quantization.rivals import LsqQuantizer, ThresholdQuantizer
from quantization.sensor import Sensor

logger = logging.getLogger(__name__)

QuantizerKind = Literal["gamma", "gamma-paper", "lsq", "thresholds", "linear", "mu-law", "lloyd-max", "none"]
LEARNED: Final = ("gamma", "gamma-paper", "lsq", "thresholds")
SAMPLE: Final = 100_000
"""Values that a quantizer's start is taken from: an even subsample is as good as all (and torch.quantile takes no more
than 2^24)."""
RANGE_QUANTILE: Final = 0.995
"""The learned range starts where all but half a percent of the training data lies."""
FALSE_UNKNOWN: Final = 0.05
"""Share of validation windows with a known activity that may be answered ``unknown``."""


@dataclass(frozen=True)
class TrainSettings:
    """What to train.

    Args:
        quantizer: "gamma" is the learned curve with a learned range; "gamma-paper" the published form; "lsq" has even
            steps over a learned range; "thresholds" learns every threshold; "linear" and "mu-law" are fixed over the
            ADC's range; "lloyd-max" is fixed where the training data's squared error is least; "none" leaves the 12-bit
            counts (a reference: makes no bundle).
        bits: 1 to 8.
        init: where γ starts.
        network: name in :data:`models.har.NETWORKS`.
        dropout: before the classifier.
        codebook: keep this one instead of learning a curve, so that devices in the field stay as they are.
        refit: after early stopping and calibration, train anew on training and validation subjects together.
        fit: how to train.
        augment: how to vary.
    """

    quantizer: QuantizerKind = "gamma"
    bits: int = 4
    init: Init = "identity"
    network: str = "cnn"
    dropout: float = 0.5
    codebook: Codebook | None = None
    refit: bool = False
    fit: FitSettings = field(default_factory=FitSettings)
    augment: Augment = field(default_factory=Augment)


@dataclass(frozen=True, eq=False)
class Trained:
    """What training left."""

    model: JointModel
    epoch: int
    train: tuple[str, ...]
    validation: tuple[str, ...]


def make_quantizer(settings: TrainSettings, sensor: Sensor, rate_hz: float, crops: Crops) -> Quantizer | Unquantized:
    """A fresh quantizer of the kind asked for, its range taken from the training data where it learns one."""
    full_scale = [-(sensor.count_min - offset) * lsb for lsb, offset in zip(sensor.lsb, sensor.offset, strict=True)]
    if settings.codebook is not None:
        if settings.codebook.channels != sensor.channels or settings.codebook.rate_hz != rate_hz:
            raise TrainingError("the codebook to keep is for other channels or another rate than this data")
        return FixedQuantizer(settings.codebook)
    if settings.quantizer == "none":
        return Unquantized(full_scale)
    if settings.quantizer == "gamma-paper":
        return GammaQuantizer(full_scale, bits=settings.bits, init=settings.init, variant="paper")
    sample = crops.values()[:: max(1, len(crops.values()) // SAMPLE)]
    # About the median, not about zero: gravity leans on an axis that mostly points one way.
    centre = sample.median(dim=0).values
    reach = torch.quantile((sample - centre).abs(), RANGE_QUANTILE, dim=0).clamp_min(1e-3)
    if settings.quantizer == "gamma":
        return GammaQuantizer(reach.tolist(), bits=settings.bits, init=settings.init, centre=centre.tolist())
    if settings.quantizer == "thresholds":
        return ThresholdQuantizer(reach.tolist(), bits=settings.bits, centre=centre.tolist())
    if settings.quantizer == "lsq":
        return LsqQuantizer(sample, bits=settings.bits)
    if settings.quantizer == "lloyd-max":
        return FixedQuantizer(lloyd_max(sensor.channels, settings.bits, rate_hz, sample.double().numpy()))
    make = linear if settings.quantizer == "linear" else mu_law
    return FixedQuantizer(make(sensor.channels, settings.bits, rate_hz, full_scale))


def fit_once(
    task: Task,
    material: Material,
    settings: TrainSettings,
    train: list[str],
    validation: list[str],
    *,
    checkpoint: Path | None = None,
    report: Callable[[Epoch], None] = lambda _: None,
    wrap: Callable[[Quantizer | Unquantized], Quantizer | Unquantized] = lambda quantizer: quantizer,
) -> Trained:
    """One joint training on these subjects. An empty ``validation`` keeps the last epoch.

    ``wrap`` may put a fresh quantizer into another one, for what a device does beyond comparing with thresholds.

    Raises:
        TrainingError: too little data, settings that do not fit, a checkpoint of another run.
    """
    if settings.fit.rate_weight and (settings.quantizer not in LEARNED or settings.codebook is not None):
        raise TrainingError("a rate can only be learned with a quantizer that learns: gamma, lsq or thresholds")
    sensor = task.sensor(material.channels)
    classes = len(material.labels)
    background = [s for name in task.background for s in material.unknown.get(name, ()) if s.subject in train]
    crops = Crops(
        material.of(train),
        length=task.window,
        stride=task.stride,
        classes=classes,
        augment=settings.augment,
        background=background,
    )
    torch.manual_seed(settings.fit.seed)
    network = build(HarConfig(settings.network, len(material.channels), classes, task.window, settings.dropout))
    model = JointModel(wrap(make_quantizer(settings, sensor, task.rate_hz, crops)), network)
    held_out = windows_of(task, material, validation) if validation else None
    epoch = Fit(model, crops, held_out, sensor, settings.fit, checkpoint).run(report)
    return Trained(model, epoch, tuple(train), tuple(validation))


def windows_of(task: Task, material: Material, subjects: list[str]) -> Windows:
    """The windows of these subjects as they are scored."""
    segments = material.of(subjects)
    return cut(segments, length=task.window, stride=task.stride, classes=len(material.labels))


def train_bundle(
    task: Task,
    material: Material,
    settings: TrainSettings,
    *,
    name: str,
    version: int,
    out: Path,
    checkpoint: Path | None = None,
    report: Callable[[Epoch], None] = lambda _: None,
) -> tuple[Path, Bundle]:
    """Train, calibrate and score; write ``out/name@version``.

    Early stopping and the ``unknown`` threshold use the validation subjects; the scores in the manifest are those of
    the test subjects, whom neither has seen.

    Raises:
        TrainingError: see :func:`fit_once`; a reference without a quantizer makes no bundle.
        BundleError: that version exists.
        OSError: ``out`` is no folder and cannot become one.
    """
    if settings.quantizer == "none":
        raise TrainingError("the 12-bit reference has no codebook: choose a quantizer to make a bundle")
    if (out / f"{name}@{version}").exists():
        raise BundleError(f"{out / f'{name}@{version}'} exists; give the next --version")
    train, validation, test = split(task, material.subjects)
    _check(task, material, settings, name, version, (train, validation, test))
    out.mkdir(parents=True, exist_ok=True)
    trained = fit_once(task, material, settings, train, validation, report=report, checkpoint=checkpoint)
    final = trained
    if settings.refit:
        final = _refit(task, material, settings, trained, report=report, checkpoint=checkpoint)
    threshold = _calibrate(task, material, trained, final)
    unscored = assemble(
        _manifest(task, material, settings, name, version, (train, validation, test), trained.epoch, threshold),
        codebook=settings.codebook or _with_statistics(task, material, final),
        network=final.model.network,
        sensor=task.sensor(material.channels),
    )
    scores = _scores(unscored, material, test, settings)
    bundle = replace(unscored, manifest=unscored.manifest.model_copy(update={"scores": scores}))
    folder = save_bundle(out, bundle)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
        _beside(checkpoint).unlink(missing_ok=True)
    return folder, bundle


def _check(
    task: Task,
    material: Material,
    settings: TrainSettings,
    name: str,
    version: int,
    subjects: tuple[list[str], list[str], list[str]],
) -> None:
    """Refuse before training what could not be saved or scored after it."""
    if task.stride > task.window:
        raise TrainingError(f"a stride of {task.stride_s:g} s leaves gaps between windows of {task.window_s:g} s")
    if len(material.labels) < 2:
        raise TrainingError(f"there is one activity only, {material.labels[0]!r}: label at least two")
    try:
        HarConfig(settings.network, len(material.channels), len(material.labels), task.window)
    except BundleError as error:
        hint = f"a window of {task.window_s:g} s at {task.rate_hz:g} Hz has {task.window} samples"
        raise TrainingError(f"{error}: {hint}; give a longer --window or a higher --rate") from error
    for part, whose in zip(("training", "validation", "test"), subjects, strict=True):
        if not (windows_of(task, material, whose).truth >= 0).any():
            raise TrainingError(f"no window of the {part} {task.split_by}s {', '.join(whose)} is labelled")
    learned = {index for segment in material.of(subjects[0]) for index in np.unique(segment.label).tolist()}
    never = [label for index, label in enumerate(material.labels) if index not in learned]
    if never:
        logger.warning(
            "nobody who trains does %s, so nothing is learned of it: record it with more people", ", ".join(never)
        )
    fields = _manifest(task, material, settings, name, version, subjects, 0, 0.0)
    check_before_training(Manifest, {**fields, "network": {}, "sensor": {}})


def _refit(
    task: Task,
    material: Material,
    settings: TrainSettings,
    first: Trained,
    *,
    report: Callable[[Epoch], None],
    checkpoint: Path | None,
) -> Trained:
    """Train anew on training and validation subjects, for as long as it was useful the first time."""
    again = replace(settings, fit=replace(settings.fit, epochs=_refit_epochs(settings, first.epoch), patience=0))
    place = None if checkpoint is None else _beside(checkpoint)
    everyone = [*first.train, *first.validation]
    return fit_once(task, material, again, everyone, [], report=report, checkpoint=place)


def _refit_epochs(settings: TrainSettings, kept: int) -> int:
    return max(kept, settings.fit.epochs // 2)


def _beside(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".refit.safetensors")


def _calibrate(task: Task, material: Material, first: Trained, final: Trained) -> float:
    """The evidence below which 5 % of the validation subjects' windows lie."""

    def evidence(trained: Trained, subjects: tuple[str, ...]) -> NDArray[np.float32]:
        windows = windows_of(task, material, list(subjects))
        logits = logits_of(trained.model, windows, task.sensor(material.channels))
        return torch.logsumexp(logits, dim=1).numpy()[windows.truth >= 0]

    threshold = float(np.quantile(evidence(first, first.validation), FALSE_UNKNOWN))
    if final is not first:
        # A refit has seen the validation subjects, and its evidence has another scale. What carries over is how much of
        # the training windows, which both have seen, lies below the threshold.
        share = float((evidence(first, first.train) < threshold).mean())
        threshold = float(np.quantile(evidence(final, first.train), share))
    return round(threshold, 4)


def _with_statistics(task: Task, material: Material, trained: Trained) -> Codebook:
    """The learned codebook with the contexts of its codes, as counted in the training recordings."""
    quantizer = trained.model.quantizer
    if not isinstance(quantizer, Quantizer):
        raise TrainingError("the reference has no codebook")
    plain = quantizer.codebook(material.channels, task.rate_hz)
    sensor = task.sensor(material.channels)
    encoder = Encoder(plain, sensor)
    segments = material.of(list(trained.train))
    codes = (encoder.encode(sensor.to_counts(segment.values)) for segment in segments)
    return replace(plain, contexts=statistics_from_codes(codes, plain.bits))


def _manifest(
    task: Task,
    material: Material,
    settings: TrainSettings,
    name: str,
    version: int,
    subjects: tuple[list[str], list[str], list[str]],
    epoch: int,
    threshold: float,
) -> dict[str, Any]:
    dataset = get(task.dataset)
    train, validation, test = subjects
    return {
        "name": name,
        "version": version,
        "created": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "body_site": task.body_site,
        "labels": list(material.labels),
        "rate_hz": task.rate_hz,
        "window": task.window,
        "stride": task.stride,
        "unknown_below": threshold,
        "data": {
            "dataset": task.dataset,
            "licence": dataset.licence,
            "citation": dataset.citation,
            "train_subjects": train,
            "validation_subjects": validation,
            "test_subjects": test,
            "split_by": task.split_by,
            "merged_labels": dict(task.merged),
            "excluded_labels": list(task.excluded),
            "background_labels": list(task.background),
        },
        "training": {
            "quantizer": "kept codebook" if settings.codebook else settings.quantizer,
            "bits": settings.codebook.bits if settings.codebook else settings.bits,
            "refit": settings.refit,
            "kept_epoch": epoch,
            "refit_epochs": _refit_epochs(settings, epoch) if settings.refit else None,
            **asdict(settings.fit),
            "augment": asdict(settings.augment),
        },
    }


def _scores(bundle: Bundle, material: Material, subjects: list[str], settings: TrainSettings) -> Scores:
    report = evaluate(bundle, material, subjects=subjects)
    who = f"held-out {bundle.manifest.data.split_by}s {', '.join(subjects)}"
    return Scores(
        scoring_rule=SCORING_RULE,
        protocol=f"{who}; one model, seed {settings.fit.seed}",
        macro_f1=round(report.scores.macro_f1, 4),
        accuracy=round(report.scores.accuracy, 4),
        macro_f1_pure=None if math.isnan(report.scores.macro_f1_pure) else round(report.scores.macro_f1_pure, 4),
        windows=report.scores.windows,
        subjects=len(subjects),
        unknown_share=round(report.unknown_share, 4),
        payload_bits=round(report.bandwidth.payload_bits, 3),
        all_in_bits=round(report.bandwidth.all_in_bits, 3),
    )
