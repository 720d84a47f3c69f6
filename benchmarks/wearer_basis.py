"""How one bout is described by numbers: cosines over its duration, harmonics of a gait. For ``fit_wearers.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.wearer_bouts import Floats, KindPlan, Piece

RIDGE: Final = 1e-3
"""Share of a basis function's energy by which short bouts are kept from fitting wild coefficients."""


def cosines(n: int, terms: int) -> Floats:
    """``[n, terms]``, as in ``device_emulator/synthetic.py``."""
    return np.cos(np.pi / n * (np.arange(n)[:, None] + 0.5) * np.arange(terms))


def waves(angle: Floats, harmonics: int) -> Floats:
    """``[n, 2 * harmonics]`` cosines, then sines."""
    many = angle[:, None] * np.arange(1, harmonics + 1)
    return np.concatenate([np.cos(many), np.sin(many)], axis=1)


def strength(envelope: Sequence[float], n: int) -> Floats:
    """``[n, 1]``."""
    if not envelope:
        return np.ones((n, 1))
    return np.interp(np.linspace(0, len(envelope) - 1, n), np.arange(len(envelope)), envelope)[:, None]


def design(piece: Piece, kind: KindPlan, envelope: Sequence[float]) -> Floats:
    """``[n, W]`` basis of one bout."""
    n = len(piece.values)
    trend = cosines(n, kind.trend)
    if not kind.harmonics:
        return trend
    return np.concatenate([trend, waves(piece.angle, kind.harmonics) * strength(envelope, n)], axis=1)


def least_squares(basis: Floats, values: Floats) -> Floats:
    """``[W, C]`` coefficients, drawn to 0 a little (all but the constant)."""
    gram = basis.T @ basis
    ridge = RIDGE * np.diag(gram).copy()
    ridge[0] = 0.0
    return np.linalg.solve(gram + np.diag(ridge), basis.T @ values)


def angle_of(n: int, rate_hz: float, hz: float, glide: float) -> Floats:
    """Phase of a gait from 0, whose frequency changes by ``glide`` of itself over ``n`` samples."""
    k = np.arange(n)
    return 2 * np.pi * hz / rate_hz * (k + glide / 2 * (k * k / n - k))


def align(pieces: Sequence[Piece], kind: KindPlan, rate_hz: float) -> None:
    """Find each piece's frequency, glide and phase, such that one gait describes all of them as well as possible."""
    scale = np.sqrt(np.mean([(p.values - p.values.mean(axis=0)).var(axis=0) for p in pieces], axis=0)) + 1e-9
    flat = []
    for piece in pieces:
        basis = cosines(len(piece.values), kind.trend)
        flat.append((piece.values - basis @ least_squares(basis, piece.values)) / scale)
    orders = np.arange(1, kind.harmonics + 1)
    common = _common_frequency(flat, kind, rate_hz)

    def spectrum(values: Floats, hz: float, glide: float) -> NDArray[np.complex128]:
        angle = angle_of(len(values), rate_hz, hz, glide)
        return np.exp(-1j * angle[:, None] * orders).T @ values * (2 / len(values))  # [H, C]

    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    shift = np.exp(-1j * turns[:, None] * orders)  # [48, H]
    template = spectrum(flat[0], common, 0.0)
    for round_ in range(8):
        found = []
        for values, piece in zip(flat, pieces, strict=True):
            fine = round_ >= 2
            rates = common * (1 + (np.linspace(-0.15, 0.15, 13) if fine else np.zeros(1)))
            glides = np.linspace(-0.2, 0.2, 5) if fine else np.zeros(1)
            best = (-np.inf, common, 0.0, 0.0, template)
            for hz in rates:
                for glide in glides:
                    one = spectrum(values, hz, glide)
                    fit = (shift @ (one * template.conj()).sum(axis=1)).real
                    at = int(fit.argmax())
                    if fit[at] > best[0]:
                        best = (float(fit[at]), float(hz), float(glide), float(turns[at]), one * shift[at][:, None])
            _, piece.hz, piece.glide, piece.phase, turned = best
            found.append(turned)
        template = np.mean(found, axis=0)
    for piece in pieces:
        piece.angle = piece.phase + angle_of(len(piece.values), rate_hz, piece.hz, piece.glide)
    for values, piece in zip(flat, pieces, strict=True):
        piece.drift = _drift(values, piece.angle, template)


def _drift(values: Floats, angle: Floats, template: NDArray[np.complex128], parts: int = 5) -> float:
    """Variance of the phases of a piece's parts about what was found for the whole."""
    orders = np.arange(1, len(template) + 1)
    near = np.linspace(-np.pi / 2, np.pi / 2, 31)
    shift = np.exp(-1j * near[:, None] * orders)
    waves_ = np.exp(-1j * angle[:, None] * orders)
    found = []
    for part in np.array_split(np.arange(len(values)), parts):
        one = waves_[part].T @ values[part]
        found.append(near[int((shift @ (one * template.conj()).sum(axis=1)).real.argmax())])
    return float(np.var(found))


def _common_frequency(flat: Sequence[Floats], kind: KindPlan, rate_hz: float) -> float:
    """The fundamental that explains most of all pieces together."""
    candidates = np.arange(kind.hz[0], kind.hz[1], 0.01)
    left = []
    for hz in candidates:
        total = 0.0
        for values in flat:
            basis = waves(angle_of(len(values), rate_hz, float(hz), 0.0), kind.harmonics)
            total += float(((values - basis @ least_squares(basis, values)) ** 2).sum())
        left.append(total)
    return float(candidates[int(np.argmin(left))])


def fit_envelope(by_persona: Sequence[Sequence[Piece]], kind: KindPlan, points: int = 7) -> list[float]:
    """How the gait swells and fades: what share of a persona's mean gait is there at each time of a bout."""
    above, below = np.zeros(points), np.zeros(points)
    hats = np.eye(points)
    for pieces in by_persona:
        fits = [least_squares(design(p, kind, ()), p.values) for p in pieces]
        mean = np.mean(fits, axis=0)
        for piece, own in zip(pieces, fits, strict=True):
            n = len(piece.values)
            basis = design(piece, kind, ())
            gait = basis[:, kind.trend :] @ mean[kind.trend :]
            rest = piece.values - basis[:, : kind.trend] @ own[: kind.trend]
            weight = 1 / (gait.var(axis=0) + 1e-12)
            for k, hat in enumerate(hats):
                window = strength(hat.tolist(), n)
                above[k] += float((window * weight * rest * gait).sum())
                below[k] += float((window * weight * gait * gait).sum())
    return [round(float(x), 2) for x in np.clip(above / below, 0.05, 3.0)]
