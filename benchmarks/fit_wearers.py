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
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_emulator.wearer import MAX_FILE_BYTES, Wearer
from models import datasets
from models.datasets.base import Dataset
from models.resample import Segment, resample
from models.tasks import TASKS
from quantization.errors import DatasetError

Floats = NDArray[np.float64]

UNIT: Final = {"acc": 0.002, "gyro": 0.25}
"""Resolution of coefficients in g and °/s: a tenth of what differs between two bouts."""
RIDGE: Final = 1e-3
"""Share of a basis function's energy by which short bouts are kept from fitting wild coefficients."""


@dataclass(frozen=True)
class KindPlan:
    """How one kind of bout is described.

    Args:
        label: its activity.
        trend: cosine terms.
        harmonics: of the gait; 0 = not periodic.
        rank: principal components of what differs between bouts.
        hz: where to look for the gait's fundamental frequency.
        sides: describe bouts to the left and to the right apart: their mean would be a turn that nobody makes.
        seconds: range of durations to generate; None takes those of the data.
    """

    label: str
    trend: int
    harmonics: int = 0
    rank: int = 8
    hz: tuple[float, float] = (0.7, 1.3)
    sides: bool = False
    seconds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Plan:
    """How one data set becomes a wearer."""

    title: str
    rate_hz: float
    band_hz: tuple[float, ...]
    lead_s: float
    order: str
    kinds: dict[str, KindPlan]
    unfit: tuple[str, ...] = ()
    piece_s: float | None = None
    """Cut long bouts into pieces of this length; None fits whole bouts."""
    max_personas: int = 64


TUG: Final = Plan(
    title="Timed Up and Go over and over, watch on the left wrist",
    rate_hz=100.0,
    band_hz=(0.4, 1.6, 3.0, 5.0, 8.0, 12.0, 18.0, 26.0, 45.0),
    lead_s=0.15,
    order="cycle",
    kinds={
        "rest": KindPlan("SEATED", trend=3, rank=5),
        "rise": KindPlan("STANDING_UP", trend=14),
        # Step frequencies are about 2 Hz; the arm swings at half of that, which is the fundamental.
        "out": KindPlan("WALKING", trend=4, harmonics=8),
        "turn": KindPlan("TURNING", trend=14, sides=True),
        "back": KindPlan("WALKING", trend=4, harmonics=8),
        "turn_to_sit": KindPlan("TURNING", trend=12, sides=True),
        "sit": KindPlan("SITTING_DOWN", trend=14),
        "settle": KindPlan("SEATED", trend=3, rank=5),
    },
)
PLANS: Final = {"sp_sw_har": TUG}


@dataclass(eq=False)
class Piece:
    """One bout as it was recorded, with the lead at either end.

    Args:
        values: ``[n, C]`` g and °/s.
        seconds: how long the bout lasted, without leads.
        angle: ``[n]`` phase of the gait.
        hz: its frequency.
        glide: relative change of the frequency.
        phase: at the beginning.
    """

    values: Floats
    seconds: float
    angle: Floats = field(default_factory=lambda: np.empty(0))
    hz: float = 0.0
    glide: float = 0.0
    phase: float = 0.0


# --- cutting ---------------------------------------------------------------------------------------------------------


def bouts(label: NDArray[np.int16], shortest: int) -> list[tuple[int, int, int]]:
    """(label, start, end) of each run; runs below ``shortest`` samples (slips of the annotator) join the one before."""
    edges = [0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)]
    runs: list[tuple[int, int, int]] = []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        if runs and (end - start < shortest or runs[-1][0] == label[start]):
            runs[-1] = (runs[-1][0], runs[-1][1], end)
        else:
            runs.append((int(label[start]), start, end))
    return runs


def extended(values: Floats, start: int, end: int, lead: int) -> Floats:
    """``values[start - lead : end + lead]``; beyond the recording its first and last value are held."""
    at = np.clip(np.arange(start - lead, end + lead), 0, len(values) - 1)
    return values[at]


def cut_cycle(segment: Segment, plan: Plan) -> dict[str, Piece]:
    """The bouts of one take that follow the plan's order; those that do not are left out."""
    lead = round(plan.lead_s * plan.rate_hz)
    values = segment.values.astype(np.float64)
    labels = datasets.get("sp_sw_har").labels
    pieces: dict[str, Piece] = {}
    order = list(plan.kinds)
    at = 0
    for label, start, end in bouts(segment.label, round(0.1 * plan.rate_hz)):
        rest = [k for k in range(at, len(order)) if plan.kinds[order[k]].label == labels[label]]
        if not rest:
            break
        at = rest[0] + 1
        pieces[order[rest[0]]] = Piece(extended(values, start, end, lead), (end - start) / plan.rate_hz)
    return pieces


# --- describing ------------------------------------------------------------------------------------------------------


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


# --- what differs, and what is left --------------------------------------------------------------------------------


def sides(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Turns to the one and to the other side, by the rotation about the vertical; one list where one is rare."""
    first, second = [], []
    for piece in pieces:
        gravity = piece.values[:, :3].mean(axis=0)
        about = float((piece.values[:, 3:] @ gravity).mean())
        (first if about > 0 else second).append(piece)
    if min(len(first), len(second)) >= 2:
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


# --- the whole -------------------------------------------------------------------------------------------------------


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
                    "gait": _gait(way.pieces) if kind.harmonics else None,
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
        "labels": list(dataset.labels),
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


def _gait(pieces: Sequence[Piece]) -> dict[str, float]:
    logs = np.log([piece.hz for piece in pieces])
    mean = np.exp(1j * np.array([piece.phase for piece in pieces])).mean()
    length = float(min(0.98, abs(mean)))
    return {
        "hz": round(float(np.exp(np.median(logs))), 3),
        "log_sd": round(float(logs.std(ddof=1)), 3),
        "phase": round(float(np.angle(mean)), 2),
        # Mardia & Jupp, Directional Statistics, eq. 5.3.10 in the approximation of Banerjee et al. (2005).
        "concentration": round(length * (2 - length**2) / (1 - length**2), 2),
        "glide_sd": round(float(np.std([piece.glide for piece in pieces])), 3),
        "wander": 0.0,
    }


def pieces_of(plan: Plan, dataset: Dataset, path: Path, subjects: Collection[str]) -> dict[str, dict[str, list[Piece]]]:
    """Every subject's pieces by kind."""
    gathered: dict[str, dict[str, list[Piece]]] = {}
    for recording in dataset.recordings(path, subjects):
        for segment in resample(recording, plan.rate_hz):
            own = gathered.setdefault(segment.subject, {name: [] for name in plan.kinds})
            for name, piece in cut_cycle(segment, plan).items():
                if piece.seconds >= 0.25:
                    own[name].append(piece)
    for subject, own in gathered.items():
        few = [name for name, pieces in own.items() if len(pieces) < 2]
        if few:
            raise DatasetError(f"{subject} has too few bouts of {', '.join(few)}")
    return gathered


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
