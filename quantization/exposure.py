"""Light to RAW counts: shot noise, read noise and the ADC.

A photosite's noise is Gaussian with a variance of ``shot · x + read`` at light x, in fractions of full scale (Brooks
et al. 2019, "Unprocessing Images for Learned Raw Denoising", arXiv 1811.11127, section 3.1; how the two levels go
together on real cameras is from there, too).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from quantization.raw import PLANES, CameraSensor, Cfa, Mosaic, RawFrame, sites

Light = NDArray[np.float32]
"""Fractions of full scale: ``[H, W, 3]`` in colour, ``[H, W]`` behind a filter array."""

SHOT_RANGE: Final = (1e-4, 0.012)
_READ_SLOPE: Final = 2.18
_READ_OFFSET: Final = 1.20
_READ_SPREAD: Final = 0.26


@dataclass(frozen=True)
class Noise:
    """Levels of one exposure.

    Args:
        shot: variance per unit of light.
        read: variance without light.
    """

    shot: float
    read: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Noise:
        """Levels as real cameras have them: ln shot even between 1e-4 and 0.012, ln read about a line in ln shot."""
        low, high = np.log(SHOT_RANGE)
        log_shot = rng.uniform(low, high)
        log_read = _READ_SLOPE * log_shot + _READ_OFFSET + _READ_SPREAD * rng.standard_normal()
        return cls(float(np.exp(log_shot)), float(np.exp(log_read)))

    def on(self, light: Light, rng: np.random.Generator) -> Light:
        """``light`` of any shape as a noisy photosite has it; may be below 0."""
        deviation = np.sqrt(np.maximum(light, 0) * np.float32(self.shot) + np.float32(self.read))
        return light + deviation * rng.standard_normal(light.shape, dtype=np.float32)


def filtered(light: Light, sensor: CameraSensor) -> Light:
    """``[H, W, 3]`` light to the ``[H, W]`` that gets through the filter array (sides even)."""
    behind = np.empty(light.shape[:2], dtype=np.float32)
    for plane, position in enumerate(sensor.cfa.positions):
        at = sites(position)
        behind[at] = light[(*at, PLANES[plane])]
    return behind


def demosaiced(behind: Light, cfa: Cfa) -> Light:
    """``[H, W]`` light behind a filter array to ``[H, W, 3]``: the other colours of a photosite by bilinear means."""
    light = np.zeros((*behind.shape, 3), dtype=np.float32)
    for plane, position in enumerate(cfa.positions):
        light[(*sites(position), PLANES[plane])] = behind[sites(position)]
    height, width = behind.shape
    padded = np.pad(light, ((1, 1), (1, 1), (0, 0)), mode="reflect")  # which keeps each colour at its parity

    def shifted(down: int, across: int) -> Light:
        return padded[1 + down : 1 + down + height, 1 + across : 1 + across + width]

    beside = shifted(-1, 0) + shifted(1, 0) + shifted(0, -1) + shifted(0, 1)
    corners = shifted(-1, -1) + shifted(-1, 1) + shifted(1, -1) + shifted(1, 1)
    # Of red and blue there is one photosite in four: the means of two or of four neighbours; of green one in two.
    filled: Light = light + beside / np.float32(2) + corners / np.float32(4)
    filled[:, :, 1] = light[:, :, 1] + beside[:, :, 1] / np.float32(4)
    return filled


def expose(
    light: Light, sensor: CameraSensor, noise: Noise, rng: np.random.Generator, exposure_us: int = 0
) -> RawFrame:
    """``[H, W, 3]`` light to the frame that ``sensor`` makes of it."""
    noisy = noise.on(filtered(light, sensor), rng)
    return RawFrame(digitised(noisy, sensor), sensor, exposure_us)


def digitised(light: Light, sensor: CameraSensor) -> Mosaic:
    """``[H, W]`` light behind the filter array to counts, rounded, clipped to 0 .. white."""
    black = np.tile(np.reshape(sensor.black, (2, 2)), (light.shape[0] // 2, light.shape[1] // 2))
    counts = np.rint(black + light * (sensor.white - black))
    mosaic: Mosaic = np.clip(counts, 0, sensor.white).astype(np.uint16)
    return mosaic
