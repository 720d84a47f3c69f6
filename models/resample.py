"""From a recording with its own uneven clock to segments on a uniform grid.

Devices and trainers both sample at the bundle's rate; this is how recordings get there. It happens before any
quantization, never on codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import Recording
from quantization.errors import DatasetError

MAX_RATE_HZ: Final = 1000.0
"""Ten times what activity recognition has ever asked for; a higher rate is a mistaken unit."""

SAME_RATE: Final = 0.95
"""Targets above this share of a recording's own rate count as its own rate and are not filtered: what could alias is
the last 5 % below Nyquist, while the filter would take a fifth of the band."""

CUTOFF: Final = 0.4
"""-6 dB point of the anti-alias filter as a share of the target rate: 20 Hz for 50 Hz, above what a wrist does."""

_TRANSITION = 0.2
# Width from pass to stop as a share of the target rate: the stop band begins at CUTOFF + 0.1 = the target's Nyquist.
_HAMMING_WIDTH = 3.3
# Transition width x taps / rate of a Hamming-windowed sinc (Oppenheim & Schafer, table 7.2); stop band -53 dB.
_MAX_FINE = 4
# Points of the native grid per sample. Bursty clocks have a median step far below their mean step.
_CHUNK = 1 << 14
# Output samples filtered at once: bounds the index matrix to a few MB.


@dataclass(frozen=True, eq=False)
class Segment:
    """Part of a recording without gaps, on a uniform grid.

    Args:
        subject: who wore it.
        recording: name of the recording.
        channels: as in :mod:`quantization.imu`.
        rate_hz: sample ``k`` was taken at ``start_s + k / rate_hz``.
        start_s: seconds from the recording's first sample.
        values: float32 ``[n, channels]``, g and °/s; n >= 2.
        label: int16 ``[n]``, as in the recording.
    """

    subject: str
    recording: str
    channels: tuple[str, ...]
    rate_hz: float
    start_s: float
    values: NDArray[np.float32]
    label: NDArray[np.int16]


def resample(recording: Recording, rate_hz: float, *, max_gap_s: float = 0.25) -> list[Segment]:
    """Bring a recording to ``rate_hz``.

    - Samples with equal times are averaged; the first one's label counts.
    - A step longer than ``max_gap_s`` ends a segment: nothing is invented over it. Segments that would have fewer than
      2 samples are dropped.
    - The grid of a segment starts at its first sample; values are interpolated linearly.
    - If ``rate_hz`` is below 0.95 of the recording's own (median) rate, an anti-alias low-pass comes first: a
      zero-phase windowed sinc on a uniform grid at the recording's own rate, -6 dB at 0.4 ``rate_hz``, -53 dB from
      0.5 ``rate_hz`` up, gain exactly 1 at 0 Hz. At a segment's ends its first and last value are held.
    - A sample's label is that of the nearest source sample, the earlier of two.

    Raises:
        DatasetError: ``rate_hz`` is not in (0, 1000], or ``max_gap_s`` is not positive and finite.
    """
    if not 0 < rate_hz <= MAX_RATE_HZ:
        raise DatasetError(f"cannot resample to {rate_hz} Hz; a rate is above 0 and at most {MAX_RATE_HZ:g}")
    if not (max_gap_s > 0 and math.isfinite(max_gap_s)):
        raise DatasetError(f"max_gap_s must be positive and finite, not {max_gap_s}")
    t_s, values, label = _merge_equal_times(recording)
    steps = np.diff(t_s)
    median_s = float(np.median(steps)) if len(steps) else 0.0
    segments = []
    for piece in _pieces(steps, max_gap_s):
        t, x = t_s[piece], values[piece]
        span = float(t[-1] - t[0])
        n = math.floor(span * rate_hz + 1e-6) + 1  # 1e-6: a span that is a whole number of steps but for rounding
        if n < 2:
            continue
        grid = t[0] + np.arange(n) / rate_hz
        own_hz = min(1.0 / median_s if median_s > 1e-9 else math.inf, _MAX_FINE * (len(t) - 1) / span)
        out = _decimate(t, x, grid, own_hz, rate_hz) if rate_hz < SAME_RATE * own_hz else _interpolate(t, x, grid)
        segments.append(
            Segment(
                subject=recording.subject,
                recording=recording.name,
                channels=recording.channels,
                rate_hz=float(rate_hz),
                start_s=float(t[0]),
                values=out.astype(np.float32),
                label=label[piece][_nearest(t, grid)],
            )
        )
    return segments


def _merge_equal_times(
    recording: Recording,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int16]]:
    """Times strictly increasing, float64 values."""
    t_s, values = recording.t_s, recording.values.astype(np.float64)
    first = np.flatnonzero(np.diff(t_s, prepend=-np.inf) > 0)
    if len(first) < len(t_s):
        counts = np.diff(first, append=len(t_s))
        values = np.add.reduceat(values, first, axis=0) / counts[:, None]
    return t_s[first], values, recording.label[first]


def _pieces(steps: NDArray[np.float64], max_gap_s: float) -> Iterator[slice]:
    cuts = np.flatnonzero(steps > max_gap_s) + 1
    for start, stop in zip([0, *cuts], [*cuts, len(steps) + 1], strict=True):
        yield slice(int(start), int(stop))


def _interpolate(t: NDArray[np.float64], x: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """``x`` [n, C] at times ``t`` [n] -> [m, C] at ``grid`` [m]."""
    return np.stack([np.interp(grid, t, column) for column in x.T], axis=1)


def _decimate(
    t: NDArray[np.float64], x: NDArray[np.float64], grid: NDArray[np.float64], own_hz: float, rate_hz: float
) -> NDArray[np.float64]:
    """Low-pass and evaluate at ``grid`` in one step: each output is a sinc-weighted mean of the native grid around it.

    Evaluating the kernel at the wanted times, rather than filtering and then interpolating, keeps the pass band flat.
    """
    native_n = math.floor((t[-1] - t[0]) * own_hz + 1e-6) + 1
    native = _interpolate(t, x, t[0] + np.arange(native_n) / own_hz)  # [native_n, C]
    half = math.ceil(_HAMMING_WIDTH * own_hz / (_TRANSITION * rate_hz) / 2)
    offsets = np.arange(-half, half + 1)
    out = np.empty((len(grid), x.shape[1]))
    for start in range(0, len(grid), _CHUNK):
        position = (grid[start : start + _CHUNK] - t[0]) * own_hz  # in native samples
        taps = np.rint(position).astype(np.int64)[:, None] + offsets  # [m, taps]
        distance = position[:, None] - taps
        kernel = np.sinc(2 * CUTOFF * rate_hz / own_hz * distance)
        kernel *= 0.54 + 0.46 * np.cos(np.pi * np.clip(distance / (half + 0.5), -1, 1))
        kernel /= kernel.sum(axis=1, keepdims=True)
        held = np.clip(taps, 0, native_n - 1)
        for channel in range(x.shape[1]):
            out[start : start + _CHUNK, channel] = np.einsum("mk,mk->m", kernel, native[held, channel])
    return out


def _nearest(t: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.intp]:
    """Index into increasing ``t`` of the sample nearest to each point of ``grid``; the earlier of two."""
    after = np.clip(np.searchsorted(t, grid), 1, len(t) - 1)
    nearer_before = grid - t[after - 1] <= t[after] - grid
    return np.where(nearer_before, after - 1, after)
