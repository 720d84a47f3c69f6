"""Fit the calibration of ``models/datasets/casale_chest.py`` to gravity, and say how well it holds.

    python benchmarks/casale_gravity.py casale_chest.zip

The published counts are uncalibrated. Where a subject keeps still, the sensor feels 1 g whichever way it points, so the
counts of still stretches lie on a sphere: its centre is the offset, its radius the counts in one g. People who stand
and sit show only a cap of it. A gain for each axis cannot be told from so little (the fit runs off to a plane); one
gain for all axes and subjects, and offsets for each subject, can.

Nothing here is random: the same data give the same figures. The held-out figure of a subject takes the gain from all
others and the offsets from one half of the subject's still stretches, and looks at |a| in the other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.datasets.casale_chest import CHEST, COUNTS_PER_G, OFFSETS, RATE_HZ, read_counts
from models.datasets.store import Store

Floats = NDArray[np.float64]

STILL_S: Final = 2.0
"""Length of a stretch in seconds."""
STILL_COUNTS: Final = 6.0
"""The largest standard deviation of an axis in a still stretch: twice the noise of a sensor at rest (3 counts)."""
CELL_COUNTS: Final = 15.0
"""One stretch is kept of those whose means share a cube of this size, so that hours on one chair count once."""
OUTLIER_COUNTS: Final = 5.0
"""Residuals beyond this weigh less (pseudo-Huber): a stretch may be a slow movement."""
START: Final = ((2000.0, 2030.0, 2010.0), 350.0)
"""Where the fit begins: any point inside the cap's sphere leads to the same end."""


def still_means(counts: NDArray[np.int32]) -> Floats:
    """Mean counts ``[m, 3]`` of the still stretches, in order of time."""
    length = round(STILL_S * RATE_HZ)
    stretches = counts[: len(counts) // length * length].reshape(-1, length, 3).astype(np.float64)
    means: Floats = stretches.mean(axis=1)
    return means[stretches.std(axis=1).max(axis=1) < STILL_COUNTS]


def thinned(means: Floats) -> Floats:
    """One mean of each cube."""
    _, first = np.unique(np.rint(means / CELL_COUNTS), axis=0, return_index=True)
    return means[first]


def fit(points: Sequence[Floats], gain: float | None = None) -> tuple[float, Floats, float]:
    """Spheres of one radius, by iteratively reweighted Gauss-Newton steps.

    Args:
        points: for each subject its mean counts ``[m, 3]``.
        gain: the radius, if it is known.

    Returns:
        counts per g; centres ``[subjects, 3]``; standard error of the gain (0 where it was given).
    """
    centres = np.tile(START[0], (len(points), 1))
    radius = START[1] if gain is None else gain
    subject = np.repeat(np.arange(len(points)), [len(means) for means in points])
    means = np.concatenate(points)
    rows = np.arange(len(means))
    for _ in range(200):
        away = means - centres[subject]
        length = np.linalg.norm(away, axis=1)
        residual = length - radius
        weight = (1 + (residual / OUTLIER_COUNTS) ** 2) ** -0.25
        jacobian = np.zeros((len(means), 3 * len(points) + 1))
        for axis in range(3):
            jacobian[rows, 3 * subject + axis] = -away[:, axis] / length
        jacobian[:, -1] = -1.0 if gain is None else 0.0
        step = np.linalg.lstsq(jacobian * weight[:, None], -residual * weight, rcond=None)[0]
        centres += step[:-1].reshape(-1, 3)
        radius += step[-1]
        if np.abs(step).max() < 1e-4:
            break
    scatter = np.linalg.pinv((jacobian * weight[:, None]).T @ (jacobian * weight[:, None]))
    return float(radius), centres, float(np.sqrt(scatter[-1, -1] * np.mean(residual**2)))


def halves(means: Floats, gain: float) -> Floats:
    """|a| in g of each half of the stretches, with the offsets of the other half."""
    half = len(means) // 2
    found = []
    for mine, other in ((means[:half], means[half:]), (means[half:], means[:half])):
        _, centres, _ = fit([thinned(other)], gain)
        found.append(np.linalg.norm(mine - centres[0], axis=1) / gain)
    return np.concatenate(found)


def main() -> None:
    """Print the constants and their residuals."""
    parser = argparse.ArgumentParser(description="Calibrate Casale's chest accelerometer on gravity.")
    parser.add_argument("data", type=Path, help="archive or folder")
    options = parser.parse_args()
    with Store(options.data) as store:
        still = {
            found.match["subject"]: still_means(read_counts(found.entry)[0]) for found in store.find(CHEST.pattern)
        }
    still = {subject: still[subject] for subject in sorted(still, key=int)}
    points = {subject: thinned(means) for subject, means in still.items()}

    gain, centres, error = fit(list(points.values()))
    print(f"counts per g: {gain:.1f} ± {error:.1f} (in the loader: {COUNTS_PER_G})")
    for subject, centre in zip(still, centres, strict=True):
        others = [points[one] for one in points if one != subject]
        held_out = halves(still[subject], fit(others)[0])
        inside = np.linalg.norm(still[subject] - centre, axis=1) / gain
        alone, _, alone_error = fit([points[subject]])
        one_for_all, shared, _ = fit([np.concatenate(others)])
        shared_g = np.linalg.norm(still[subject] - shared[0], axis=1) / one_for_all
        low, high = np.percentile(held_out, [5, 95])
        print(
            f"subject {subject:>2}: offsets {', '.join(f'{c:.1f}' for c in centre)} "
            f"(in the loader: {', '.join(map(str, OFFSETS[subject]))}); {len(still[subject])} stretches\n"
            f"    |a| {inside.mean():.3f} ± {inside.std():.3f} g; held out {held_out.mean():.3f}, 5-95 % {low:.3f} to "
            f"{high:.3f} g; gain of this subject alone {alone:.0f} ± {alone_error:.0f}; "
            f"|a| with one offset for all {shared_g.mean():.3f} g"
        )


if __name__ == "__main__":
    main()
