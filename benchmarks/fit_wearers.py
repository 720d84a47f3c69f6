"""Fit the generated wearers of ``device_emulator/wearers`` to published recordings.

    python benchmarks/fit_wearers.py --data sp_sw_har.zip --out device_emulator/wearers/tug.json

The subjects that the shipped bundles are tested on have no part in it. What a wearer's parameters mean stands in
``device_emulator/synthetic.py``. In short: every bout is cut out with a little of its neighbours and described by least
squares (cosines over its duration, harmonics of a gait that is aligned between bouts); a persona is the mean of one
subject's bouts; a kind of bout is how bouts deviate from that mean, by principal components; the rest is noise.
Nothing here is random: the same data give the same file.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.wearer_basis import align, design, fit_envelope, least_squares
from benchmarks.wearer_bouts import MIN_PIECES, PLANS, Floats, KindPlan, Piece, Plan, pieces_of
from device_emulator.wearer import MAX_FILE_BYTES, Wearer
from models import datasets
from models.datasets.base import Dataset
from models.tasks import TASKS

UNIT: Final = {"acc": 0.002, "gyro": 0.25}
"""Resolution of coefficients in g and °/s: a tenth of what differs between two bouts."""
MAX_WANDER: Final = 0.8
"""Beyond that harmonics blur, and what was measured is noise."""


def sides(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Turns to the one and to the other side, by the rotation about the vertical; one list where one is rare."""
    first: list[Piece] = []
    second: list[Piece] = []
    for piece in pieces:
        gravity = piece.values[:, :3].mean(axis=0)
        about = float((piece.values[:, 3:] @ gravity).mean())
        (first if about > 0 else second).append(piece)
    if min(len(first), len(second)) >= MIN_PIECES:
        return [first, second]
    return [max(first, second, key=len)]


def band_rms(rest: Sequence[Floats], band_hz: Sequence[float], rate_hz: float) -> Floats:
    """``[C, B]`` root mean square of the pieces' rests in each band, by Hann-windowed periodograms."""
    size = 2048
    frequency = np.fft.rfftfreq(size, 1 / rate_hz)
    power = np.zeros((rest[0].shape[1], len(band_hz) - 1))
    for values in rest:
        window = np.hanning(len(values) + 2)[1:-1, None]
        density = np.abs(np.fft.rfft(window * values, size, axis=0)) ** 2 * 2 / (size * (window**2).sum())
        for band in range(len(band_hz) - 1):
            inside = (frequency >= band_hz[band]) & (frequency < band_hz[band + 1])
            power[:, band] += density[inside].sum(axis=0)
    return np.sqrt(power / len(rest))


@dataclass(eq=False)
class Way:
    """One persona's bouts of one kind that are done in one way."""

    pieces: list[Piece]
    share: float
    fits: Floats = field(default_factory=lambda: np.empty(0))  # [P, W, C]
    rest: list[Floats] = field(default_factory=list)


def fit_kind(
    ways: Sequence[Sequence[Way]], kind: KindPlan, unit: Floats, envelope: Sequence[float]
) -> tuple[Floats, list[list[float]]]:
    """Deviation ``[R, W, C]`` in units, and each way's spread; fills in every way's fits and rests."""
    deviations, spreads = [], []
    for own in ways:
        gathered = []
        for way in own:
            way.fits = np.array([least_squares(design(p, kind, envelope), p.values) for p in way.pieces])
            if len(way.pieces) > 1:
                gathered.append((way.fits - way.fits.mean(axis=0)) / unit * math.sqrt(_unbiased(len(way.pieces))))
        # The spread of a persona, not of its ways: two takes say too little.
        together = np.concatenate(gathered)
        spread = float(np.sqrt((together**2).mean()))
        deviations.append(together / spread)
        spreads.append(spread)
    stacked = np.concatenate(deviations)
    flat = stacked.reshape(len(stacked), -1)
    _, values, rows = np.linalg.svd(flat, full_matrices=False)
    keep = rows[: kind.rank]
    for own in ways:
        for way in own:
            mean = way.fits.mean(axis=0)
            for piece, fit in zip(way.pieces, way.fits, strict=True):
                off = ((fit - mean) / unit).ravel()
                kept = mean + (off @ keep.T @ keep).reshape(mean.shape) * unit
                way.rest.append(piece.values - design(piece, kind, envelope) @ kept)
    typical = float(np.mean(spreads))
    factors = keep * (values[: kind.rank] / math.sqrt(len(flat)))[:, None] * typical
    return factors.reshape(-1, *stacked.shape[1:]), [[s / typical] * len(w) for s, w in zip(spreads, ways, strict=True)]


def _unbiased(count: int) -> float:
    return count / (count - 1)


def burstiness(rests: Sequence[Floats]) -> float:
    """Deviation of the logarithm of a strength that would give normal noise the kurtosis of these rests."""
    pooled = np.concatenate([np.diff(r, axis=0) / (np.diff(r, axis=0).std(axis=0) + 1e-12) for r in rests])
    kurtosis = float((pooled**4).mean() / (pooled**2).mean() ** 2)
    return round(min(0.8, math.sqrt(max(0.0, math.log(kurtosis / 3)) / 4)), 2)


def fit(plan: Plan, dataset: Dataset, by_subject: dict[str, dict[str, list[Piece]]], command: str) -> dict[str, Any]:
    """A wearer's parameters from each subject's pieces by kind."""
    channels = dataset.channels
    unit = np.array([UNIT[channel.split("_", maxsplit=1)[0]] for channel in channels])
    subjects = list(by_subject)
    for subject in subjects:
        periodic = {name: kind for name, kind in plan.kinds.items() if kind.harmonics}
        for label in {kind.label for kind in periodic.values()}:
            same = [name for name, kind in periodic.items() if kind.label == label]
            align([p for name in same for p in by_subject[subject][name]], plan.kinds[same[0]], plan.rate_hz)
    kinds: dict[str, Any] = {}
    personas: list[dict[str, Any]] = [{"name": f"synthetic-{n + 1:02}", "bouts": {}} for n in range(len(subjects))]
    whitened: list[Floats] = []
    for name, kind in plan.kinds.items():
        pieces = [by_subject[subject][name] for subject in subjects]
        envelope = fit_envelope(pieces, kind) if kind.harmonics and plan.piece_s is None else []
        ways = []
        for own in pieces:
            split = sides(own) if kind.sides else [own]
            total = sum(map(len, split))
            ways.append([Way(one, len(one) / total) for one in split])
        factors, spreads = fit_kind(ways, kind, unit, envelope)
        rests = [rest / (rest.std(axis=0) + 1e-12) for own in ways for way in own for rest in way.rest]
        whitened += rests
        kinds[name] = {
            "label": kind.label,
            "trend": kind.trend,
            "harmonics": kind.harmonics,
            "envelope": envelope,
            "deviation": [_ints(row.T) for row in factors],
            "burst": burstiness(rests),
        }
        for persona, own_pieces, own_ways, spread in zip(personas, pieces, ways, spreads, strict=True):
            rest = [one for way in own_ways for one in way.rest]
            noise = 20 * np.log10(np.maximum(band_rms(rest, plan.band_hz, plan.rate_hz) / unit[:, None], 1e-3))
            persona["bouts"][name] = [
                {
                    "share": round(way.share, 2),
                    **_durations(own_pieces, kind),
                    "mean": _ints((way.fits.mean(axis=0) / unit).T),
                    "spread": round(scale, 2),
                    "noise_db": _ints(noise),
                    "gait": _gait(way.pieces, plan.piece_s) if kind.harmonics else None,
                }
                for way, scale in zip(own_ways, spread, strict=True)
            ]
    return {
        "format": "gammawear-wearer-1",
        "title": plan.title,
        "origin": {
            "dataset": dataset.name,
            "licence": dataset.licence,
            "citation": dataset.citation,
            "url": dataset.url,
            "subjects": subjects,
            "command": command,
        },
        "channels": list(channels),
        "labels": [name for name in dataset.labels if name in {kind.label for kind in plan.kinds.values()}],
        "unit": unit.tolist(),
        "band_hz": list(plan.band_hz),
        "mix": np.linalg.cholesky(np.corrcoef(np.concatenate(whitened).T)).round(3).tolist(),
        "lead_s": plan.lead_s,
        "schedule": list(plan.kinds),
        "order": plan.order,
        "kinds": kinds,
        "personas": personas,
    }


def _ints(values: Floats) -> list[int]:
    return [round(float(value)) for value in values.ravel()]


def _durations(pieces: Sequence[Piece], kind: KindPlan) -> dict[str, float]:
    if kind.seconds:
        low, high = np.log(kind.seconds)
        return {"seconds": round(float(np.exp((low + high) / 2)), 1), "log_sd": round(float(high - low) / 4, 2)}
    logs = np.log([max(0.1, piece.seconds) for piece in pieces])
    return {"seconds": round(float(np.exp(np.median(logs))), 3), "log_sd": round(float(logs.std(ddof=1)), 3)}


def _wander(pieces: Sequence[Piece], piece_s: float) -> float:
    """Radian by which the phase has walked off after a second.

    A random walk's distance from its own regression line has the variance sd² T / 15. Pieces have been aligned with a
    constant frequency and glide, so what is left between their parts is that distance.
    """
    return round(min(MAX_WANDER, float(np.sqrt(np.mean([p.drift for p in pieces]) * 15 / piece_s))), 3)


def _gait(pieces: Sequence[Piece], piece_s: float | None) -> dict[str, float]:
    logs = np.log([piece.hz for piece in pieces])
    mean = np.exp(1j * np.array([piece.phase for piece in pieces])).mean()
    length = float(min(0.98, abs(mean)))
    return {
        "hz": round(float(np.exp(np.median(logs))), 3),
        "log_sd": round(float(logs.std(ddof=1)), 3),
        "phase": round(float(np.angle(mean)), 2),
        # Mardia & Jupp, Directional Statistics, eq. 5.3.10 in the approximation of Banerjee et al. (2005).
        "concentration": round(length * (2 - length**2) / (1 - length**2), 2),
        "glide_sd": round(float(np.std([piece.glide for piece in pieces])), 3) if piece_s is None else 0.0,
        "wander": 0.0 if piece_s is None else _wander(pieces, piece_s),
    }


def write(parameters: dict[str, Any], path: Path) -> int:
    """Check and write the file, one line per way and per kind; its size in bytes."""
    Wearer.model_validate(parameters)
    lines = []
    for key, value in parameters.items():
        if key == "kinds":
            inner = ",\n".join(f" {json.dumps(k)}: {_compact(v)}" for k, v in value.items())
            lines.append(f'"kinds": {{\n{inner}\n}}')
        elif key == "personas":
            people = []
            for persona in value:
                inner = ",\n".join(f"  {json.dumps(k)}: {_compact(v)}" for k, v in persona["bouts"].items())
                people.append(f' {{"name": {json.dumps(persona["name"])}, "bouts": {{\n{inner}\n }}}}')
            lines.append('"personas": [\n' + ",\n".join(people) + "\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    data = ("{\n" + ",\n".join(lines) + "\n}\n").encode()
    if len(data) > MAX_FILE_BYTES:
        raise SystemExit(f"{len(data)} bytes; a wearer's file may have {MAX_FILE_BYTES}")
    path.write_bytes(data)
    return len(data)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description="Fit a generated wearer to recordings.")
    parser.add_argument("--data", type=Path, required=True, help="archive or folder of a data set")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--without", default="", help="more subjects to leave out, separated by commas")
    options = parser.parse_args()
    dataset = datasets.detect(options.data)
    if dataset.name not in PLANS:
        raise SystemExit(f"{dataset.name} makes no wearer; {', '.join(PLANS)} do")
    plan = PLANS[dataset.name]
    without = {*TASKS[dataset.name].test, *filter(None, options.without.split(","))}
    subjects = [subject for subject in dataset.subjects(options.data) if subject not in without]
    command = f"benchmarks/fit_wearers.py --data {options.data.name} --out {options.out.name}"
    if options.without:
        command += f" --without {options.without}"
    by_subject = pieces_of(plan, dataset, options.data, subjects)
    size = write(fit(plan, dataset, by_subject, command), options.out)
    print(f"{options.out}: {size} bytes, {len(by_subject)} personas from {', '.join(by_subject)}")


if __name__ == "__main__":
    main()
