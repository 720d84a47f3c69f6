"""Detector bundles: a detector and the image codebook that it was trained with. The only reader and writer of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from pydantic import Field

from models.bundle_files import (
    DETECTOR,
    ManifestBase,
    Strict,
    find_bundle,
    naming,
    network_bytes,
    read_files,
    write_files,
)
from models.bundle_files import SHIPPED_DETECTORS as SHIPPED
from models.vision.card import detector_card
from models.vision.detector import MAX_CLASSES, Detections, Detector, DetectorConfig, Maps, decode
from protocol.messages import LabelName
from quantization.codebook import Codebook
from quantization.errors import BundleError, CodebookError
from quantization.raw import Cfa, CodeMosaic, check_images, to_planes

__all__ = [
    "SHIPPED",
    "DetectionScores",
    "DetectorBundle",
    "DetectorManifest",
    "PictureCard",
    "assemble",
    "load_detector",
    "rounded",
    "save_detector",
]

STORED_AS: Final = torch.float16
"""Half the bytes; the difference is far below what two seeds differ by."""


class PictureCard(Strict):
    """What a detector was trained on."""

    dataset: str
    synthetic: bool
    """The pictures were generated, not taken."""
    licence: str
    citation: str
    protocol: str
    """The split, in words."""
    train_pictures: Annotated[int, Field(ge=1)]
    test_pictures: Annotated[int, Field(ge=1)]
    trained_on: Annotated[list[str], Field(max_length=100_000, default_factory=list)]
    """Of one's own pictures, SHA-256 of their files (first 8 bytes, hex), so that none of them is ever tested on."""


class DetectionScores(Strict):
    """COCO average precision on the test pictures, by the factor on their light."""

    ap: float
    ap50: float
    ap50_by_class: dict[str, float | None]
    ap50_by_light: dict[str, float]
    bits_per_photosite: float | None = None
    """Of the test frames' codes, entropy coded; None where it was not counted."""


class DetectorManifest(ManifestBase):
    """``manifest.json``."""

    format: Literal["gammawear-detector-1"] = DETECTOR
    classes: Annotated[list[LabelName], Field(min_length=1, max_length=MAX_CLASSES)]
    width: Annotated[int, Field(ge=32, le=8192)]
    height: Annotated[int, Field(ge=32, le=8192)]
    """Photosites of the mosaics that it was trained on: objects of other sizes are not known to it."""
    threshold: Annotated[float, Field(gt=0, lt=1)]
    """Detections with a lower score are left out."""
    network: dict[str, Any]
    data: PictureCard
    scores: DetectionScores
    training: dict[str, Any]


@dataclass(frozen=True, eq=False)
class DetectorBundle:
    """A loaded detector, ready to look.

    Raises:
        BundleError: the parts do not fit each other.
    """

    manifest: DetectorManifest
    codebook: Codebook
    network: Detector

    def __post_init__(self) -> None:
        try:
            check_images(self.codebook)
        except CodebookError as error:
            raise BundleError(f"{self.manifest.reference}: {error}") from error
        if self.network.config.classes != len(self.manifest.classes):
            raise BundleError(f"{self.manifest.reference}: network and classes do not fit each other")

    @property
    def reference(self) -> str:
        """``name@version``."""
        return self.manifest.reference

    @torch.inference_mode()
    def maps(self, codes: CodeMosaic, cfa: Cfa) -> Maps:
        """The network's maps of one ``[H, W]`` code mosaic."""
        top = np.float32(2**self.codebook.bits - 1)
        planes = 2 * to_planes(codes, cfa).astype(np.float32) / top - 1
        maps: Maps = self.network(torch.from_numpy(planes)[None])
        return maps

    def detect(self, codes: CodeMosaic, cfa: Cfa) -> Detections:
        """Objects in one ``[H, W]`` code mosaic. Several threads may call it at once."""
        height, width = codes.shape
        return decode(self.maps(codes, cfa), (height, width), threshold=self.manifest.threshold)[0]


def assemble(manifest: dict[str, Any], *, codebook: Codebook, network: Detector) -> DetectorBundle:
    """Make a bundle in memory; network and digests are filled into the manifest here.

    The network is to be :func:`rounded`: what is stored is what was scored.

    Raises:
        BundleError: the parts do not fit each other.
    """
    complete = DetectorManifest(
        **manifest,
        network=network.config.to_dict(),
        codebook_sha256=codebook.digest.hex(),
        model_sha256=hashlib.sha256(network_bytes(network, STORED_AS)).hexdigest(),
    )
    return DetectorBundle(complete, codebook, network.eval())


@torch.no_grad()
def rounded(network: Detector) -> Detector:
    """The network itself, its numbers as they will be stored."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(STORED_AS))
    return network


def save_detector(folder: Path, bundle: DetectorBundle) -> Path:
    """Write ``folder/name@version`` and return it.

    Raises:
        BundleError: that version exists already.
    """
    model = network_bytes(bundle.network, STORED_AS)
    return write_files(folder, bundle.manifest, bundle.codebook, model, detector_card(bundle))


def load_detector(reference: str | Path, search: Iterable[Path] = (SHIPPED,)) -> DetectorBundle:
    """Load a bundle by folder, by ``name@version`` or by ``name`` (its highest version).

    Raises:
        BundleError: absent, damaged, or its parts do not fit each other.
    """
    folder = find_bundle(reference, search, DETECTOR)
    manifest, codebook, tensors = read_files(folder, DetectorManifest)
    with naming(folder):
        network = Detector(DetectorConfig.from_dict(manifest.network))
        network.load_state_dict(tensors)
        return DetectorBundle(manifest, codebook, network.eval().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
