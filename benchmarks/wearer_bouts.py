"""Which bouts the generated wearers are fitted to, and how they are cut out of recordings. For ``fit_wearers.py``."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import Dataset
from models.resample import Segment, resample
from quantization.errors import DatasetError

Floats = NDArray[np.float64]

MIN_BOUT_S: Final = 0.25
"""Shorter ones are slips of the annotator, or were cut off by the recording's end."""
MIN_PIECES: Final = 3
"""A subject with fewer bouts of a kind makes no persona."""
PIECE_STEP: Final = 2
"""Pieces of long bouts begin every so many piece lengths: neighbours would say the same twice."""


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
_LONG: Final = (20.0, 60.0)
DAY: Final = Plan(
    title="Nine activities in random order, accelerometer of a watch on the dominant wrist",
    rate_hz=20.0,
    band_hz=(0.2, 0.6, 1.2, 2.0, 3.0, 4.5, 6.5, 9.5),
    lead_s=0.5,
    order="shuffle",
    kinds={
        # Both arms and legs: the fundamental is the stride, two steps.
        "walking": KindPlan("walking", 2, harmonics=6, rank=4, hz=(0.7, 1.2), seconds=_LONG),
        "jogging": KindPlan("jogging", 2, harmonics=6, rank=4, hz=(1.0, 1.7), seconds=_LONG),
        "stairs": KindPlan("stairs", 2, harmonics=6, rank=4, hz=(0.6, 1.1), seconds=_LONG),
        "sitting": KindPlan("sitting", 2, rank=3, seconds=_LONG),
        "standing": KindPlan("standing", 2, rank=3, seconds=_LONG),
        "typing": KindPlan("typing", 2, rank=3, seconds=_LONG),
        "brushing_teeth": KindPlan("brushing_teeth", 2, harmonics=3, rank=4, hz=(1.5, 6.0), seconds=_LONG),
        "dribbling": KindPlan("dribbling", 2, harmonics=4, rank=4, hz=(1.2, 2.6), seconds=_LONG),
        "clapping": KindPlan("clapping", 2, harmonics=3, rank=4, hz=(1.5, 6.0), seconds=_LONG),
    },
    piece_s=6.0,
    max_personas=14,
)
PLANS: Final = {"sp_sw_har": TUG, "wisdm2019_watch": DAY}


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
        drift: mean square of what its parts' phases differ from that, radian².
    """

    values: Floats
    seconds: float
    angle: Floats = field(default_factory=lambda: np.empty(0))
    hz: float = 0.0
    glide: float = 0.0
    phase: float = 0.0
    drift: float = 0.0


def bouts(label: NDArray[np.int16], shortest: int) -> list[tuple[int, int, int]]:
    """(label, start, end) of each run; runs below ``shortest`` samples (slips of the annotator) join the one before."""
    edges = [0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)]
    runs: list[tuple[int, int, int]] = []
    for start, end in itertools.pairwise(edges):
        if runs and (end - start < shortest or runs[-1][0] == label[start]):
            runs[-1] = (runs[-1][0], runs[-1][1], end)
        else:
            runs.append((int(label[start]), start, end))
    return runs


def extended(values: Floats, start: int, end: int, lead: int) -> Floats:
    """``values[start - lead : end + lead]``; beyond the recording its first and last value are held."""
    at = np.clip(np.arange(start - lead, end + lead), 0, len(values) - 1)
    return values[at]


def cut_cycle(segment: Segment, plan: Plan, labels: Sequence[str]) -> dict[str, list[Piece]]:
    """The bouts of one take that follow the plan's order; those that do not are left out."""
    lead = round(plan.lead_s * plan.rate_hz)
    values = segment.values.astype(np.float64)
    pieces: dict[str, list[Piece]] = {}
    order = list(plan.kinds)
    at = 0
    for label, start, end in bouts(segment.label, round(0.1 * plan.rate_hz)):
        rest = [k for k in range(at, len(order)) if plan.kinds[order[k]].label == labels[label]]
        if not rest:
            break
        at = rest[0] + 1
        if end - start >= MIN_BOUT_S * plan.rate_hz:
            one = Piece(extended(values, start, end, lead), (end - start) / plan.rate_hz)
            pieces[order[rest[0]]] = [one]
    return pieces


def cut_long(segment: Segment, plan: Plan, labels: Sequence[str], piece_s: float) -> dict[str, list[Piece]]:
    """Pieces of a recording of one activity."""
    name = labels[segment.label[0]]
    length = round(piece_s * plan.rate_hz)
    starts = range(0, len(segment.values) - length + 1, PIECE_STEP * length)
    return {name: [Piece(segment.values[at : at + length].astype(np.float64), piece_s) for at in starts]}


def pieces_of(plan: Plan, dataset: Dataset, path: Path, subjects: Collection[str]) -> dict[str, dict[str, list[Piece]]]:
    """Every subject's pieces by kind."""
    gathered: dict[str, dict[str, list[Piece]]] = {}
    for recording in dataset.recordings(path, subjects):
        for segment in resample(recording, plan.rate_hz):
            own = gathered.setdefault(segment.subject, {name: [] for name in plan.kinds})
            labels = recording.labels
            cut = cut_long(segment, plan, labels, plan.piece_s) if plan.piece_s else cut_cycle(segment, plan, labels)
            for name, pieces in cut.items():
                if name in own:
                    own[name] += pieces
    complete = {s: own for s, own in gathered.items() if all(len(pieces) >= MIN_PIECES for pieces in own.values())}
    if len(complete) < 2:
        raise DatasetError(f"{path}: fewer than two subjects have {MIN_PIECES} bouts of each kind")
    return dict(list(complete.items())[: plan.max_personas])
