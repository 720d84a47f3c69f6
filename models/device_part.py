"""What a bundle of activities says of itself, and what devices need of it: read without torch.

A wearable, a bridge or a camera quantizes with a bundle's codebook; the network is the gateway's matter
(:mod:`models.bundle`), and an image for devices has no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from models.bundle_files import (
    ACTIVITY,
    SHIPPED,
    ManifestBase,
    Strict,
    find_bundle,
    naming,
    read_codebook,
    read_manifest,
)
from protocol.messages import LabelName
from quantization.codebook import Codebook
from quantization.sensor import Sensor


class DataCard(Strict):
    """What a bundle was trained on."""

    dataset: str
    licence: str
    citation: str
    train_subjects: list[str]
    validation_subjects: list[str]
    test_subjects: list[str]
    """Of the data at hand, had no part in training, early stopping or calibration."""
    split_by: Literal["subject", "recording"] = "subject"
    """By "recording", the subjects here are recordings of people who took part in training."""
    merged_labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the data set that count as another one."""
    excluded_labels: list[str] = Field(default_factory=list)
    """Activities of the data set that the bundle does not know."""
    background_labels: list[str] = Field(default_factory=list)
    """Of those, the ones that training showed it as examples of what it does not know."""


class Scores(Strict):
    """How good a bundle is, and by which protocol."""

    scoring_rule: str
    protocol: str
    macro_f1: float
    accuracy: float
    macro_f1_pure: float | None
    """On windows of one activity; None where there were none."""
    windows: int
    subjects: int
    unknown_share: float
    """Of windows whose activity the bundle knows, answered ``unknown``."""
    payload_bits: float | None = None
    """Bits a sample and channel of the test recordings' packets of 1 s; None where it was not counted."""
    all_in_bits: float | None = None
    """The same with packet headers."""


class Manifest(ManifestBase):
    """``manifest.json``."""

    format: Literal["gammawear-bundle-1"] = ACTIVITY
    body_site: str
    labels: Annotated[list[LabelName], Field(min_length=2, max_length=256)]
    rate_hz: Annotated[float, Field(ge=1, le=1000)]
    window: Annotated[int, Field(ge=8, le=4096)]
    """Samples."""
    stride: Annotated[int, Field(ge=1, le=4096)]
    """Samples."""
    unknown_below: float
    """Windows with less evidence than this (:class:`Prediction`) are answered ``unknown``."""
    network: dict[str, Any]
    sensor: dict[str, Any]
    """The part that the training data was brought to."""
    data: DataCard
    scores: Scores | None = None
    """None only while a bundle is being made."""
    training: dict[str, Any]


@dataclass(frozen=True, eq=False)
class DevicePart:
    """What those who send need of a bundle.

    Args:
        manifest: labels, rate, window, the data that it was trained on.
        codebook: to quantize with.
        sensor: the part that the training data was brought to.
    """

    manifest: Manifest
    codebook: Codebook
    sensor: Sensor

    @property
    def reference(self) -> str:
        """``name@version``."""
        return self.manifest.reference

    @property
    def labels(self) -> tuple[str, ...]:
        """Activity names, in the order of the network's outputs."""
        return tuple(self.manifest.labels)


def load_device_part(reference: str | Path, search: Iterable[Path] = (SHIPPED,)) -> DevicePart:
    """Load what a device needs of a bundle, found as :func:`models.bundle.load_bundle` finds it. No network is read.

    Raises:
        BundleError: absent, damaged, or its codebook is not the one that the manifest names.
    """
    folder = find_bundle(reference, search)
    manifest = read_manifest(folder, Manifest)
    codebook = read_codebook(folder, manifest)
    with naming(folder):
        return DevicePart(manifest, codebook, Sensor.from_dict(manifest.sensor))
