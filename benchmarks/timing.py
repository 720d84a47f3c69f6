"""How the speed benchmarks time, and where they put their figures."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    rounds: int
    round_s: float
    fleet: int
    fleet_s: float
    latency_devices: int
    latency_s: float


FULL = Size(rounds=7, round_s=0.2, fleet=500, fleet_s=10.0, latency_devices=100, latency_s=12.0)
QUICK = Size(rounds=2, round_s=0.02, fleet=20, fleet_s=1.0, latency_devices=10, latency_s=2.0)


class Results:
    """Figures for machines, rows for people."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.rows: list[dict[str, str]] = []

    def note(self, name: str, value: float) -> None:
        """Keep a figure without a row of its own."""
        self.figures[name] = float(f"{value:.4g}")

    def show(self, what: str, figure: str, how: str) -> None:
        """Add a row."""
        self.rows.append({"what": what, "figure": figure, "how": how})

    def add(self, name: str, value: float, what: str, figure: str, how: str) -> None:
        """Keep one figure, and show it."""
        self.note(name, value)
        self.show(what, figure, how)


def best_s(call: Callable[[], object], size: Size) -> float:
    """Seconds of one call in the best of some rounds."""
    once = min(timeit.repeat(call, number=1, repeat=3))
    number = max(1, round(size.round_s / max(once, 1e-9)))
    return min(timeit.repeat(call, number=number, repeat=size.rounds)) / number
