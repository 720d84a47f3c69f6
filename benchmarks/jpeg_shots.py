"""Shots that are sent as JPEGs: what a detector gets from a camera that develops its frames.

The same exposures as every other curve has (:class:`models.vision.shots.Shots`: windows, noise, 12 bits), developed and
compressed; what is decoded again is taken apart at the filter array's sites, so that the same network reads it. White
balance makes the frame's mean grey. Brightness is that of the picture which the scene is made of: the camera is told
the exposure exactly, which leans to its side. It neither removes noise nor sharpens.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.frame_bytes import developed, jpeg, sizes
from models.vision.detector import Detector, DetectorConfig
from models.vision.fit import DetectorFit, DetectorSettings, JointDetector, evaluate
from models.vision.shots import HEIGHT, SENSOR, WIDTH, Shot, Shots, Variation, View, brightness
from models.vision.train import LIGHTS
from models.vision.unprocess import Camera
from quantization.exposure import filtered
from quantization.gamma_image import UnquantizedPlanes
from quantization.raw import CameraSensor, RawFrame, to_planes

QUALITIES: Final = (10, 25, 50, 75, 90)
"""Detectors are tested at each of these."""
TRAINED: Final = (10, 95)
"""Training draws every shot's quality between these, both included: one detector reads all of them."""
DECODED: Final = CameraSensor("jpeg", SENSOR.cfa, adc_bits=8, white=255.0)
"""What a decoded JPEG passes for: 8 bits behind the same filter array."""


@dataclass(frozen=True, eq=False)
class JpegShot(Shot):
    """A shot that was a JPEG on its way.

    Args:
        sent: bytes of the JPEG.
    """

    sent: int


class JpegShots(Shots):
    """Photographs, each developed, compressed and decoded; made like :class:`Shots`."""

    quality: int | None = None
    """1 to 95; None draws one within :data:`TRAINED` for every shot."""

    def describe(self) -> list[object]:
        """What tells these shots from others."""
        return [*super().describe(), float(self.quality or -1)]

    def lengths(self, light: float = 1.0) -> list[int]:
        """Bytes of the JPEG of every plain shot."""
        return [cast("JpegShot", self.plain(index, light)).sent for index in range(len(self.views))]

    def _shoot(
        self,
        view: View,
        camera: Camera | None,
        exposure: float,
        rng: np.random.Generator,
        *,
        zoom: float,
        offset: NDArray[np.float64],
        flip: bool,
    ) -> JpegShot:
        taken = super()._shoot(view, camera, exposure, rng, zoom=zoom, offset=offset, flip=flip)
        # Drawn after the noise: the exposure is the very one that other curves get.
        quality = self.quality or int(rng.integers(TRAINED[0], TRAINED[1] + 1))
        level = (1.0 if camera is None else float(camera.gains[1])) / (self._gain * exposure)
        data = jpeg(developed(taken.frame, white_balance(taken.frame) * np.float32(level)), quality)
        decoded = np.asarray(Image.open(io.BytesIO(data)), dtype=np.float32)
        frame = RawFrame(filtered(decoded, DECODED).astype(np.uint16), DECODED)
        return JpegShot(frame, taken.boxes, taken.labels, len(data))


def white_balance(frame: RawFrame) -> NDArray[np.float32]:
    """Gains of red, green and blue that make the frame's mean grey; green's is 1."""
    red, beside_red, beside_blue, blue = to_planes(frame.counts, frame.sensor.cfa).mean(axis=(1, 2))
    means = np.array([red, (beside_red + beside_blue) / 2, blue])
    means = np.maximum(means, 1.0)  # counts: nothing is in sight where there is less
    return (means[1] / means).astype(np.float32)


def train_on_jpegs(
    train: list[View], classes: int, settings: DetectorSettings, variation: Variation | None = None
) -> tuple[JointDetector, float]:
    """As :func:`models.vision.tasks.train_detector`, on JPEGs of all qualities.

    Returns:
        The detector and the gain.
    """
    gain = brightness(train)
    shots = JpegShots(train, gain=gain, seed=settings.seed, variation=variation)
    torch.manual_seed(settings.seed)
    model = JointDetector(UnquantizedPlanes(), Detector(DetectorConfig(classes)))
    return DetectorFit(model, shots, settings).run(), gain


def score_jpegs(model: JointDetector, test: list[View], gain: float, seed: int) -> dict[str, dict[str, Any]]:
    """Average precision and bytes, by quality and light."""
    found: dict[str, dict[str, Any]] = {}
    for quality in QUALITIES:
        shots = JpegShots(test, gain=gain, seed=seed)
        shots.quality = quality
        found[str(quality)] = {
            f"{light:g}": {**asdict(evaluate(model, shots, light)), **sizes(shots.lengths(light), WIDTH * HEIGHT)}
            for light in LIGHTS
        }
    return found
