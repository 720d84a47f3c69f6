"""The camera nodes of ``gammawear demo``: they watch a generated scene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from device_emulator.camera.node import CameraNode
from device_emulator.camera.publisher import CameraPublisher
from device_emulator.camera.source import SceneSource
from device_emulator.fleet import Fleet
from protocol.broker_settings import BrokerSettings

if TYPE_CHECKING:
    from gateway.cameras import Cameras
    from models.vision.bundle import DetectorBundle

FRAMES_PER_S: Final = 2.0


def camera_fleet(bundle: DetectorBundle, broker: BrokerSettings, *, count: int, seed: int, speed: float) -> Fleet:
    """Cameras, each with a scene of its own."""
    nodes = [
        CameraNode(f"camera-{n + 1:02d}", SceneSource(seed + n), bundle.codebook, fps=FRAMES_PER_S)
        for n in range(count)
    ]
    return Fleet([CameraPublisher(node, broker, speed=speed) for node in nodes])


def camera_result(cameras: Cameras, fleet: Fleet) -> dict[str, Any]:
    """For the summary."""
    totals, losses = cameras.totals, cameras.assembler.losses
    score = next((score for score in cameras.scores if score.ap50 is not None), None)
    return {
        "cameras": len(fleet.publishers),
        "frames_sent": fleet.packets_published,
        "frames_received": totals.frames,
        "frames_looked_at": cameras.answers.total(),
        "frames_lost": losses.lost + losses.timed_out + losses.displaced + cameras.assembler.waiting,
        "bits_per_photosite": 8 * totals.coded_bytes / totals.photosites if totals.photosites else None,
        "compression_over_12_bit": totals.raw12_bytes / totals.coded_bytes if totals.coded_bytes else None,
        "ap50": score.ap50 if score else None,
        "recall": score.recall if score else None,
        "source": "synthetic",
    }
