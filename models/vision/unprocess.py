"""sRGB pictures back to the light that a camera's filter array would have let through.

The way of Brooks et al. 2019 ("Unprocessing Images for Learned Raw Denoising", arXiv 1811.11127): undo the tone curve,
the gamma, the colour correction and the white balance. Noise, exposure and the ADC come after
(:mod:`quantization.exposure`). What comes out is brighter than real RAW: that is
:data:`quantization.raw.ORDINARY_LIGHT`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from quantization.exposure import Light

TO_XYZ: Final = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Linear sRGB to CIE XYZ (IEC 61966-2-1)."""
CAMERAS: Final = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ]
)
"""CIE XYZ to four cameras' colours: those whose mixtures Brooks et al. draw from."""
_HIGHLIGHT: Final = 0.9
"""From this grey on, gains are undone less and less, so that white stays white."""


@dataclass(frozen=True, eq=False)
class Camera:
    """What one camera did to its light, to be undone.

    Args:
        matrix: ``[3, 3]`` linear sRGB to the camera's colours; rows sum to 1.
        gains: ``[3]`` that white balance and brightness multiplied red, green and blue by.
    """

    matrix: NDArray[np.float32]
    gains: NDArray[np.float32]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Camera:
        """A mixture of four cameras, with gains of the ranges that real ones have."""
        weights = rng.random(len(CAMERAS))
        mixed = np.tensordot(weights / weights.sum(), CAMERAS, axes=1) @ TO_XYZ
        brightness = 1 / rng.normal(0.8, 0.1)
        gains = brightness * np.array([rng.uniform(1.9, 2.4), 1.0, rng.uniform(1.5, 1.9)])
        return cls((mixed / mixed.sum(axis=1, keepdims=True)).astype(np.float32), gains.astype(np.float32))

    def undo(self, linear: Light) -> Light:
        """``[H, W, 3]`` linear sRGB to the camera's own light, from 0; white is 1, or more where a gain is below 1."""
        light = np.clip(linear @ self.matrix.T, 0, 1)
        grey = light @ np.full((3, 1), 1 / 3, dtype=np.float32)  # a mean over so few values is ten times slower
        mask = (np.maximum(grey - _HIGHLIGHT, 0) / (1 - _HIGHLIGHT)) ** 2
        return light * np.maximum(mask + (1 - mask) / self.gains, 1 / self.gains).astype(np.float32)


def linearised(srgb: NDArray[np.uint8]) -> Light:
    """``[H, W, 3]`` 8-bit sRGB to linear light: the smooth-step tone curve and the gamma of 2.2 undone."""
    levels = np.arange(256) / 255
    toned = 0.5 - np.sin(np.arcsin(1 - 2 * levels) / 3)
    table = np.maximum(toned, 1e-8) ** 2.2
    return table.astype(np.float32)[srgb]
