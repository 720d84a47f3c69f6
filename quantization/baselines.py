"""Quantizers that are not learned, as codebooks: what a learned one has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quantization.codebook import Codebook
from quantization.imu import Floats


def linear(channels: tuple[str, ...], bits: int, rate_hz: float, full_scale: Sequence[float]) -> Codebook:
    """Even steps over ± ``full_scale`` (one per channel, g or °/s): what dropping an ADC's low bits does.

    >>> linear(("acc_x",), 2, 50.0, [8.0]).thresholds.tolist()
    [[-4.0, 0.0, 4.0]]
    """
    steps = np.arange(1, 2**bits) / 2 ** (bits - 1) - 1
    centres = (np.arange(2**bits) + 0.5) / 2 ** (bits - 1) - 1
    scale = np.asarray(full_scale, dtype=np.float64)[:, None]
    return Codebook(channels, bits, rate_hz, thresholds=scale * steps, levels=scale * centres)


def mu_law(
    channels: tuple[str, ...], bits: int, rate_hz: float, full_scale: Sequence[float], mu: float = 255.0
) -> Codebook:
    """Even steps after μ-law companding (ITU-T G.711's continuous form, μ = 255) over ± ``full_scale``.

    ``y = sign(x) ln(1 + μ|x|) / ln(1 + μ)`` for x in [-1, 1]; fine steps near zero, coarse ones at the ends.

    >>> mu_law(("acc_x",), 2, 50.0, [8.0]).thresholds.round(3).tolist()
    [[-0.471, 0.0, 0.471]]
    """

    def expand(y: Floats) -> Floats:
        return np.sign(y) * np.expm1(np.abs(y) * np.log1p(mu)) / mu

    flat = linear(channels, bits, rate_hz, [1.0] * len(channels))
    scale = np.asarray(full_scale, dtype=np.float64)[:, None]
    return Codebook(
        channels, bits, rate_hz, thresholds=scale * expand(flat.thresholds), levels=scale * expand(flat.levels)
    )
