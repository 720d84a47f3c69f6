"""What tests of camera nodes share: an untrained detector bundle, a node that watches a scene, frames as messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from device_emulator.camera.node import CameraNode
from device_emulator.camera.source import SceneSource
from models.vision.bundle import DetectionScores, DetectorBundle, PictureCard, assemble, rounded, save_detector
from models.vision.detector import Detector, DetectorConfig
from protocol.frame import Chunk, frame_chunks
from quantization.codebook import Codebook
from quantization.gamma_image import ImageQuantizer
from quantization.raw import Cfa

TINY = DetectorConfig(classes=3, widths=(4, 4, 4, 4), blocks=(1, 1, 1, 1), head=4)


def image_codebook(bits: int = 4) -> Codebook:
    return ImageQuantizer(bits, gamma=[0.35] * 3, white=[0.6] * 3).image_codebook()


def untrained_detector(name: str = "tiny", *, threshold: float = 0.01) -> DetectorBundle:
    """It finds what its random weights make of a frame: always the same."""
    torch.manual_seed(0)
    manifest = {
        "name": name,
        "version": 1,
        "created": "2026-01-01T00:00:00+00:00",
        "classes": ["person", "car", "parcel"],
        "width": 320,
        "height": 240,
        "threshold": threshold,
        "data": PictureCard(
            dataset="none", synthetic=True, licence="none", citation="none", protocol="none", train_pictures=1,
            test_pictures=1,
        ),
        "scores": DetectionScores(ap=0.0, ap50=0.0, ap50_by_class={}, ap50_by_light={}),
        "training": {},
    }  # fmt: skip
    return assemble(manifest, codebook=image_codebook(), network=rounded(Detector(TINY)))


def save_untrained(folder: Path, **more: object) -> DetectorBundle:
    bundle = untrained_detector(**more)  # type: ignore[arg-type]
    save_detector(folder, bundle)
    return bundle


def scene_node(codebook: Codebook, *, seed: int = 0, **more: object) -> CameraNode:
    return CameraNode("camera-01", SceneSource(seed), codebook, **more)  # type: ignore[arg-type]


def chunks_of(
    codebook: Codebook, *, sequence: int = 0, size: tuple[int, int] = (64, 96), seed: int = 0, max_payload: int = 256
) -> list[Chunk]:
    """A frame of noise in several chunks."""
    codes = np.random.default_rng(seed).integers(0, 2**codebook.bits, size, dtype=np.uint8)
    return frame_chunks(
        codes, codebook, cfa=Cfa.RGGB, sequence=sequence, tick_ms=sequence * 500, max_payload=max_payload
    )
