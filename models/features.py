"""What people computed from a window before networks did: statistics of its samples and of its spectrum.

The usual set for activities from inertial sensors (Bao and Intille 2004; the UCI-HAR features of Anguita et al. 2013),
for every channel and for the length of every x, y, z triple, which does not change as a strap turns.
"""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantization.imu import Floats

QUANTILES: Final = {"minimum": 0.0, "lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75, "maximum": 1.0}
BANDS: Final = (0.05, 0.1, 0.2, 0.4, 1.0)
"""Upper ends of the spectral bands as shares of the Nyquist frequency; about octaves."""
_STILL = 1e-9
# A standard deviation (g, °/s) below this is rounding: no shape is computed from it.


def window_features(values: ArrayLike) -> dict[str, Floats]:
    """Features of windows, by name.

    Frequencies are relative to the sampling rate: a forest learns at one rate, and its splits are free of scale.

    Args:
        values: ``[W, T, C]`` physical values, T >= 2. Where C is a multiple of three, every three channels are taken
            for the x, y and z of one sensor.

    Returns:
        ``[W, S]`` for each name, with one column for each series: the C channels, then the lengths of the triples.
        ``correlation`` has a column for each pair of channels. All values are finite; what a constant series has no
        value for (shape, correlation, spectrum) is 0.
    """
    channels = np.asarray(values, dtype=np.float64)
    count, length, width = channels.shape
    parts = [channels]
    if width % 3 == 0:
        parts.append(np.linalg.norm(channels.reshape(count, length, width // 3, 3), axis=3))
    series = np.concatenate(parts, axis=2)  # [W, T, S]
    mean = series.mean(axis=1, keepdims=True)
    deviation = series - mean
    std = deviation.std(axis=1)
    unit = np.divide(deviation, std[:, None], out=np.zeros_like(series), where=std[:, None] > _STILL)
    ordered = np.quantile(series, list(QUANTILES.values()), axis=1)  # [5, W, S]
    pairs = np.array(list(combinations(range(width), 2)), dtype=np.intp).reshape(-1, 2)
    correlation = np.einsum("wtc,wtd->wcd", unit[..., :width], unit[..., :width]) / length
    return {
        "mean": mean[:, 0],
        "std": std,
        "energy": (series**2).mean(axis=1),
        "step": np.abs(np.diff(series, axis=1)).mean(axis=1),
        "zero_crossings": _crossings(series > 0),
        "mean_crossings": _crossings(unit > 0),
        "skewness": (unit**3).mean(axis=1),
        "kurtosis": (unit**4).mean(axis=1),
        **dict(zip(QUANTILES, ordered, strict=True)),
        **_spectrum(unit),
        "correlation": correlation[:, pairs[:, 0], pairs[:, 1]],
    }


def _crossings(above: NDArray[np.bool_]) -> Floats:
    """``[W, T, S]`` to the share of steps that change side, ``[W, S]``."""
    crossings: Floats = (above[:, 1:] != above[:, :-1]).mean(axis=1)
    return crossings


def _spectrum(unit: Floats) -> dict[str, Floats]:
    """Of ``[W, T, S]`` standardised series: shares of power, so that they say nothing that ``std`` says already."""
    length = unit.shape[1]
    # A Hann window: without it a slow turn of the wrist leaks over all bands.
    power = np.abs(np.fft.rfft(unit * np.hanning(length + 1)[:-1, None], axis=1)[:, 1:]) ** 2  # [W, F, S], without DC
    total = power.sum(axis=1, keepdims=True)
    share = np.divide(power, total, out=np.zeros_like(power), where=total > 0)
    bins = power.shape[1]
    logarithm = np.log(share, out=np.zeros_like(share), where=share > 0)
    ends = [0, *(round(bins * upper) for upper in BANDS)]
    bands = {f"band_{index}": share[:, low:high].sum(axis=1) for index, (low, high) in enumerate(pairwise(ends))}
    frequency = np.where(total[:, 0] > 0, (share.argmax(axis=1) + 1) / length, 0.0)
    return {
        "frequency": frequency,
        "frequency_share": share.max(axis=1),
        "spectral_entropy": -(share * logarithm).sum(axis=1),
        **bands,
    }
