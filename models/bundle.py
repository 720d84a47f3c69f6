"""Bundles of activities: a network and the codebook that it was trained with, in one folder.

The only reader and writer of them; the files are :mod:`models.bundle_files`' matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.bundle_files import SHIPPED, find_bundle, naming, network_bytes, read_files, write_files
from models.card import model_card
from models.device_part import DevicePart, Manifest
from models.har import HarConfig, HarNetwork, build
from protocol.messages import UNKNOWN
from quantization.codebook import RATE_TOLERANCE, Codebook
from quantization.codec import network_input
from quantization.errors import BundleError
from quantization.imu import Codes
from quantization.sensor import Sensor

__all__ = ["SHIPPED", "Bundle", "Prediction", "assemble", "load_bundle", "save_bundle"]


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
class Bundle(DevicePart):
    """A loaded bundle, ready to predict.

    Raises:
        BundleError: the parts do not fit each other.
    """

    network: HarNetwork

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
        model_sha256=hashlib.sha256(network_bytes(network)).hexdigest(),
    )
    return Bundle(complete, codebook, sensor, network.eval())


def save_bundle(folder: Path, bundle: Bundle) -> Path:
    """Write ``folder/name@version`` and return it.

    Raises:
        BundleError: that version exists already, or the bundle has not been scored.
    """
    if bundle.manifest.scores is None:
        raise BundleError(f"{bundle.reference} has no scores: evaluate it before it is saved")
    return write_files(folder, bundle.manifest, bundle.codebook, network_bytes(bundle.network), model_card(bundle))


def load_bundle(reference: str | Path, search: Iterable[Path] = (SHIPPED,)) -> Bundle:
    """Load a bundle by folder, by ``name@version`` or by ``name`` (its highest version).

    Raises:
        BundleError: absent, damaged, or its parts do not fit each other.
    """
    folder = find_bundle(reference, search)
    manifest, codebook, tensors = read_files(folder, Manifest)
    with naming(folder):
        network = build(HarConfig(**manifest.network))
        network.load_state_dict(tensors)
        return Bundle(manifest, codebook, Sensor.from_dict(manifest.sensor), network.eval())
