"""Bundles: a network and the codebook that it was trained with, in one folder. The only reader and writer of them.

A bundle is a folder ``name@version`` with ``manifest.json`` (:class:`Manifest`), ``codebook.bin`` and
``model.safetensors``; for people, ``codebook.json`` and ``README.md``, its model card. The manifest holds the SHA-256
of codebook and model; nothing is loaded that does not match, and nothing that is loaded can run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.card import model_card
from models.har import HarConfig, HarNetwork, build
from protocol.messages import UNKNOWN, LabelName
from quantization.codebook import RATE_TOLERANCE, Codebook
from quantization.codec import network_input
from quantization.errors import BundleError, CodebookError, SensorError
from quantization.imu import Codes
from quantization.sensor import Sensor

SHIPPED: Final = Path(__file__).parent / "bundles"
"""The bundles that come with the package."""
MAX_MODEL_BYTES: Final = 64 * 2**20
"""Networks here have 10 to 400 thousand parameters; a file beyond this is not one."""
_REFERENCE: Final = re.compile(r"([a-z0-9][a-z0-9_-]{0,31})(?:@([0-9]{1,6}))?")

CODEBOOK_FILE: Final = "codebook.bin"
MODEL_FILE: Final = "model.safetensors"
MANIFEST_FILE: Final = "manifest.json"
CARD_FILE: Final = "README.md"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataCard(_Strict):
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
    merged_labels: dict[str, str] = {}
    """Labels of the data set that count as another one."""
    excluded_labels: list[str] = []
    """Activities of the data set that the bundle does not know."""
    background_labels: list[str] = []
    """Of those, the ones that training showed it as examples of what it does not know."""


class Scores(_Strict):
    """How good a bundle is, and by which protocol."""

    scoring_rule: str
    protocol: str
    macro_f1: float
    accuracy: float
    macro_f1_pure: float
    windows: int
    subjects: int
    unknown_share: float
    """Of windows whose activity the bundle knows, answered ``unknown``."""
    payload_bits: float | None = None
    """Bits a sample and channel of the test recordings' packets of 1 s; None where it was not counted."""
    all_in_bits: float | None = None
    """The same with packet headers."""


class Manifest(_Strict):
    """``manifest.json``."""

    format: Annotated[str, Field(pattern="^gammawear-bundle-1$")] = "gammawear-bundle-1"
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    version: Annotated[int, Field(ge=1, lt=10**6)]
    created: str
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
    codebook_sha256: str
    model_sha256: str

    @property
    def reference(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says of B windows.

    Args:
        probabilities: float32 ``[B, K]``, a row sums to 1.
        evidence: float32 ``[B]``, log Σ exp(logits): how strongly the window resembles anything that was learned. The
            negative free energy of Liu et al. 2020 (arXiv 2010.03759); unlike the largest probability it also falls
            where two activities are equally likely because neither fits.
    """

    probabilities: NDArray[np.float32]
    evidence: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle, ready to predict.

    Raises:
        BundleError: the parts do not fit each other.
    """

    manifest: Manifest
    codebook: Codebook
    network: HarNetwork
    sensor: Sensor

    def __post_init__(self) -> None:
        manifest, config = self.manifest, self.network.config
        if UNKNOWN in (label.lower() for label in manifest.labels) or len(set(manifest.labels)) != len(manifest.labels):
            raise BundleError(f"{manifest.reference}: labels repeat or contain {UNKNOWN!r}")
        fits = (
            config.classes == len(manifest.labels)
            and config.channels == len(self.codebook.channels)
            and config.window == manifest.window
            and manifest.stride <= manifest.window
            and self.codebook.rate_hz == manifest.rate_hz
            and self.sensor.channels == self.codebook.channels
        )
        if not fits:
            raise BundleError(f"{manifest.reference}: network, codebook, labels and window do not fit each other")

    @property
    def reference(self) -> str:
        """``name@version``."""
        return self.manifest.reference

    @property
    def labels(self) -> tuple[str, ...]:
        """Activity names, in the order of the network's outputs."""
        return tuple(self.manifest.labels)

    def accepts_rate(self, rate_hz: float) -> bool:
        """A device at ``rate_hz`` can be served as it is (within ± 5 %)."""
        return abs(rate_hz - self.manifest.rate_hz) <= RATE_TOLERANCE * self.manifest.rate_hz

    @torch.inference_mode()
    def predict(self, codes: Codes) -> Prediction:
        """Recognise ``[B, T, C]`` codes. Several threads may call it at once."""
        logits = self.network(torch.from_numpy(network_input(codes, self.codebook.bits)))
        return Prediction(torch.softmax(logits, dim=1).numpy(), torch.logsumexp(logits, dim=1).numpy())

    def answer(self, probabilities: NDArray[np.float32], evidence: float) -> tuple[str, str, float]:
        """One window's ``[K]`` probabilities and evidence to (answer, likeliest activity, its probability).

        The answer is the likeliest activity, or ``unknown``.
        """
        best = int(probabilities.argmax())
        likeliest = self.labels[best]
        return (
            (likeliest if evidence >= self.manifest.unknown_below else UNKNOWN),
            likeliest,
            float(probabilities[best]),
        )


def assemble(manifest: dict[str, Any], *, codebook: Codebook, network: HarNetwork, sensor: Sensor) -> Bundle:
    """Make a bundle in memory.

    Args:
        manifest: fields of :class:`Manifest`; network, sensor and digests are filled in here.
        codebook: what devices get.
        network: what was trained with it.
        sensor: the part that the training data was brought to.

    Raises:
        BundleError: the parts do not fit each other.
    """
    complete = Manifest(
        **manifest,
        network=network.config.to_dict(),
        sensor=sensor.to_dict(),
        codebook_sha256=codebook.digest.hex(),
        model_sha256=hashlib.sha256(_network_bytes(network)).hexdigest(),
    )
    return Bundle(complete, codebook, network.eval(), sensor)


def save_bundle(folder: Path, bundle: Bundle) -> Path:
    """Write ``folder/name@version`` and return it.

    Raises:
        BundleError: that version exists already, or the bundle has not been scored.
    """
    if bundle.manifest.scores is None:
        raise BundleError(f"{bundle.reference} has no scores: evaluate it before it is saved")
    target = folder / bundle.reference
    if target.exists():
        raise BundleError(f"{target} exists; a version is never overwritten, give the next number")
    target.mkdir(parents=True)
    bundle.codebook.save(target / CODEBOOK_FILE)
    (target / CARD_FILE).write_text(model_card(bundle), encoding="utf-8")
    (target / MODEL_FILE).write_bytes(_network_bytes(bundle.network))
    # The manifest comes last: a folder without one is not a bundle, so none is ever seen half-written.
    (target / MANIFEST_FILE).write_text(bundle.manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return target


def _network_bytes(network: HarNetwork) -> bytes:
    return save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()})


def load_bundle(reference: str | Path, search: Iterable[Path] = (SHIPPED,)) -> Bundle:
    """Load a bundle by folder, by ``name@version`` or by ``name`` (its highest version).

    Raises:
        BundleError: absent, damaged, or its parts do not fit each other.
    """
    folder = find_bundle(reference, search)
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
        codebook = Codebook.load(folder / CODEBOOK_FILE)
        model_file = folder / MODEL_FILE
        if model_file.stat().st_size > MAX_MODEL_BYTES:
            raise BundleError(f"{model_file} is larger than {MAX_MODEL_BYTES} bytes")
        model = model_file.read_bytes()
        if codebook.digest.hex() != manifest.codebook_sha256:
            raise BundleError(f"{folder / CODEBOOK_FILE} is not the one that the manifest names")
        if hashlib.sha256(model).hexdigest() != manifest.model_sha256:
            raise BundleError(f"{model_file} is not the one that the manifest names")
        network = build(HarConfig(**manifest.network))
        network.load_state_dict(load_tensors(model))
        sensor = Sensor.from_dict(manifest.sensor)
        return Bundle(manifest, codebook, network.eval(), sensor)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{folder / MANIFEST_FILE}: {where}: {first['msg']}") from error
    except (OSError, SafetensorError, RuntimeError, TypeError, CodebookError, SensorError) as error:
        raise BundleError(f"{folder}: {error}") from error


def find_bundle(reference: str | Path, search: Iterable[Path] = (SHIPPED,)) -> Path:
    """The folder of a bundle.

    Raises:
        BundleError: there is none; the message lists what there is.
    """
    folders = list(search)
    as_path = Path(reference)
    with contextlib.suppress(OSError):  # a name that no file could have is not a path
        if (as_path / MANIFEST_FILE).is_file():
            return as_path
    match = _REFERENCE.fullmatch(str(reference))
    known = [folder for root in folders for folder in bundle_folders(root)]
    if match:
        name, version = match.groups()
        fitting = [f for f in known if f.name.split("@")[0] == name and version in (None, f.name.split("@")[1])]
        if fitting:
            return max(fitting, key=lambda folder: int(folder.name.split("@")[1]))
    names = ", ".join(dict.fromkeys(folder.name for folder in known)) or "none"
    raise BundleError(f"no bundle {str(reference)!r}; known: {names}; or give the path of a bundle's folder")


def bundle_folders(root: Path) -> list[Path]:
    """The folders ``name@version`` in ``root`` that hold a manifest, sorted; empty where ``root`` is absent."""
    if not root.is_dir():
        return []
    return sorted(
        folder
        for folder in root.iterdir()
        if "@" in folder.name and _REFERENCE.fullmatch(folder.name) and (folder / MANIFEST_FILE).is_file()
    )
