"""What the accuracy benchmark runs: one :class:`Run` is one training, and a grid is a list of them.

Everything is one factor at a time around one network at the data set's own rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from benchmarks.variants import ANY_BIT, LOOPS
from models.augment import Augment
from models.fit import FitSettings
from models.har import NETWORKS
from models.tasks import TASKS, Task
from models.train import QuantizerKind, TrainSettings

FOLDS: Final = 5
ARCHIVES: Final = {
    "sp_sw_har": "sp_sw_har.zip",
    "sp_sw_har_phone": "sp_sw_har.zip",
    "wisdm2019_watch": "wisdm2019_watch.zip",
    "wisdm2019_watch_6axis": "wisdm2019_watch.zip",
    "casale_chest": "casale_chest.zip",
    "weda_fall": "weda_fall.zip",
}
DROPOUT: Final = 0.3
SHORT: Final = FitSettings(epochs=25, patience=0)
MEDIUM: Final = FitSettings(epochs=12, patience=0)
LONG: Final = FitSettings(epochs=3, patience=0)
"""For sets with three and with ten times the windows: an epoch has so many more steps.

None stops early: all runs of a data set are equally long, so that scores on validation subjects, by which settings
are chosen, are equally unseen.
"""
FIT: Final = {
    "sp_sw_har": SHORT,
    "sp_sw_har_phone": SHORT,
    "weda_fall": MEDIUM,
    "wisdm2019_watch": LONG,
    "wisdm2019_watch_6axis": LONG,
    "casale_chest": LONG,
}
Point = tuple[float, str, QuantizerKind, int, float, str]
"""Sampling rate, network, quantizer, bits, λ, loop."""


FOREST: Final = "forest"
"""Takes the place of a network's name: :mod:`models.forest`."""


@dataclass(frozen=True)
class Run:
    """One training and its test.

    Args:
        dataset: key of :data:`models.tasks.TASKS`.
        rate_hz: what recordings are brought to.
        network: key of :data:`models.har.NETWORKS`, or :data:`FOREST`.
        quantizer: as in :class:`models.train.TrainSettings`; "none" is the 12-bit reference.
        bits: a code's; 12 for the reference.
        rate_weight: λ.
        fold: 0 .. 4.
        seed: of everything random.
        loop: one of :data:`benchmarks.variants.LOOPS`, or any-bit.
    """

    dataset: str
    rate_hz: float
    network: str
    quantizer: QuantizerKind
    bits: int
    rate_weight: float
    fold: int
    seed: int
    loop: str = "plain"

    @property
    def key(self) -> str:
        """Names the run, as a file name."""
        return "-".join(str(value) for value in asdict(self).values())

    @property
    def task(self) -> Task:
        """The data set's task at this run's rate."""
        return replace(TASKS[self.dataset], rate_hz=self.rate_hz)

    @property
    def settings(self) -> TrainSettings:
        """How to train. Test subjects wear it as they were recorded: the other wrist is no part of the comparison."""
        return TrainSettings(
            quantizer=self.quantizer,
            bits=min(self.bits, 8),
            network=self.network,
            dropout=DROPOUT,
            fit=replace(FIT[self.dataset], seed=self.seed, rate_weight=self.rate_weight),
            augment=Augment(mirror=0.0),
        )

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Run:
        """The run that a stored row is of."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__ if name in row})

    @property
    def point(self) -> Point:
        """What is varied: everything but the data set, the fold and the seed."""
        return self.rate_hz, self.network, self.quantizer, self.bits, self.rate_weight, self.loop


def folds(subjects: list[str], fold: int) -> tuple[list[str], list[str], list[str]]:
    """Training, validation and test subjects: every fifth from the fold-th tests, every fifth of the rest validates."""
    test = subjects[fold::FOLDS]
    rest = [s for s in subjects if s not in test]
    validation = rest[fold::FOLDS]
    return [s for s in rest if s not in validation], validation, test


def _point(
    rate: float,
    kind: QuantizerKind = "gamma",
    bits: int = 4,
    *,
    weight: float = 0.0,
    network: str = "cnn",
    loop: str = "plain",
) -> Point:
    return rate, network, kind, 12 if kind == "none" else bits, weight, loop


def _core(rate: float) -> list[Point]:
    kinds: tuple[QuantizerKind, ...] = ("linear", "lsq", "gamma-paper", "gamma")
    return [_point(rate, "none"), *(_point(rate, kind, bits) for bits in (4, 2) for kind in kinds)]


def _frontier(rate: float) -> list[Point]:
    rates = (rate, rate / 2, rate / 4)
    return [
        point
        for r in rates
        for point in (_point(r, "none"), *(_point(r, weight=weight) for weight in (0.0, 0.02, 0.05, 0.1, 0.3)))
    ]


def _rates(_: float) -> list[Point]:
    return [
        point
        for r in (100.0, 20.0, 10.0)
        for point in (_point(r, "none"), *(_point(r, weight=weight) for weight in (0.0, 0.1, 0.3)))
    ]


BASE_RATE: Final = {"sp_sw_har": 12.5}
"""Where one factor is varied at a time, if not at the task's own rate: what validation subjects preferred."""


def base_rate(dataset: str) -> float:
    """See :data:`BASE_RATE`."""
    return BASE_RATE.get(dataset, TASKS[dataset].rate_hz)


def _quantizers(rate: float) -> list[Point]:
    fixed: tuple[QuantizerKind, ...] = ("linear", "gamma")
    others: tuple[QuantizerKind, ...] = ("mu-law", "lloyd-max", "thresholds", "lsq", "gamma-paper", *fixed)
    return [
        *(_point(rate, kind, bits) for bits in (8, 6, 3, 1) for kind in fixed),
        *(_point(rate, kind, bits) for bits in (4, 2) for kind in others),
        _point(rate, "none"),
    ]


def _networks(rate: float) -> list[Point]:
    others = [*(network for network in NETWORKS if network != "cnn"), FOREST]
    kinds: tuple[QuantizerKind, ...] = ("none", "gamma")
    return [_point(rate, kind, network=network) for network in others for kind in kinds]


def _loops(rate: float) -> list[Point]:
    tried = [_point(rate, weight=weight, loop=loop) for loop in LOOPS if loop != "plain" for weight in (0.0, 0.1)]
    return [*tried, _point(rate, loop=ANY_BIT)]


def _fine(rate: float) -> list[Point]:
    return [_point(rate, bits=bits, weight=weight) for bits in (6, 5) for weight in (0.0, 0.02, 0.05)]


def _forest(rate: float) -> list[Point]:
    kinds: tuple[QuantizerKind, ...] = ("none", "linear", "gamma")
    return [_point(rate, kind, network=FOREST) for kind in kinds]


def _small(rate: float) -> list[Point]:
    kinds: tuple[QuantizerKind, ...] = ("linear", "gamma")
    return [
        _point(rate, "none"),
        *(_point(rate, kind, bits) for bits in (4, 2) for kind in kinds),
        *(_point(rate, weight=weight) for weight in (0.05, 0.1)),
    ]


GRIDS: Final = {
    "core": _core,
    "frontier": _frontier,
    "rates": _rates,
    "quantizers": _quantizers,
    "networks": _networks,
    "loops": _loops,
    "fine": _fine,
    "forest": _forest,
    "small": _small,
}
"""By name: a function from the task's own rate to the points of the grid."""


AT_BASE: Final = ("quantizers", "networks", "loops", "small")


def runs(grid: str, dataset: str, *, seeds: range) -> Iterator[Run]:
    """All runs of a grid on a data set, seed by seed, so that a stopped grid is balanced."""
    rate = base_rate(dataset) if grid in AT_BASE else TASKS[dataset].rate_hz
    for seed in seeds:
        for fold in range(FOLDS):
            for rate_hz, network, quantizer, bits, weight, loop in GRIDS[grid](rate):
                yield Run(dataset, rate_hz, network, quantizer, bits, weight, fold, seed, loop)
