"""Quantizers that are not learned, as codebooks: what a learned one has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from quantization.codebook import Codebook
from quantization.imu import Floats

_LLOYD_ROUNDS: Final = 200
"""More than enough: the levels of recorded movement stop moving after some tens."""


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


def lloyd_max(channels: tuple[str, ...], bits: int, rate_hz: float, values: Floats) -> Codebook:
    """Where the squared error of ``values`` [n, C] is least (Lloyd 1982; Max 1960).

    Levels are the means of their cells. The distribution decides alone; what the network needs does not count.

    >>> lloyd_max(("acc_x",), 1, 50.0, np.array([[0.0], [1.0], [9.0], [10.0]])).levels.tolist()
    [[0.5, 9.5]]
    """
    tables = [_lloyd(np.sort(column), 2**bits) for column in np.asarray(values, dtype=np.float64).T]
    levels = np.stack(tables)
    return Codebook(channels, bits, rate_hz, thresholds=(levels[:, 1:] + levels[:, :-1]) / 2, levels=levels)


def _lloyd(ordered: Floats, count: int) -> Floats:
    """``count`` levels of sorted values, by Lloyd's iteration."""
    total = np.concatenate([[0.0], np.cumsum(ordered)])
    # Many levels best lie as densely as the cube root of the values' density (Panter & Dite 1951). Started there, the
    # iteration has little left to do; from plain quantiles it would take thousands of rounds to reach the tails.
    along = np.concatenate([[0.0], np.cumsum(np.diff(ordered) ** (2 / 3))])
    levels = np.interp((np.arange(count) + 0.5) / count * along[-1], along, ordered)
    for _ in range(_LLOYD_ROUNDS):
        inner = np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
        ends = np.concatenate([[0], inner, [len(ordered)]])
        size = np.diff(ends)
        # A cell without values keeps its level: equal quantiles of a signal at rest are legal.
        means = np.where(size > 0, np.diff(total[ends]) / np.maximum(size, 1), levels)
        if np.array_equal(means, levels):
            break
        levels = np.maximum.accumulate(means)
    return levels
