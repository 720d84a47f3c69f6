"""The live score of one bundle: prequential, each window tested once, when its truth is known.

The rule is that of training and evaluation (:mod:`models.windows`): the *likeliest* activity is compared with the
window's majority label, also where the answer was ``unknown``; that share is reported beside the score. Macro-F1 is the
mean over the classes that occur in truth or prediction, as ``sklearn.metrics.f1_score(average="macro")`` has it.
Windows of an activity that the bundle does not know have no part in accuracy and macro-F1: there is no right answer
but ``unknown``, so they have a tally of their own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import river.metrics
import river.utils

from gateway.labels import Scored

_metrics: Any = river.metrics  # river has no types
_utils: Any = river.utils

ROLLING_WINDOWS: Final = 500
"""The rolling score's span: two minutes of two devices with four windows a second; an F1 of fewer is mostly noise."""


@dataclass(frozen=True)
class Score:
    """What :meth:`LiveScore.read` gives; a figure without a scored window behind it is None.

    Args:
        model: ``name@version``.
        windows: scored.
        accuracy: share of windows, all since the start.
        macro_f1: all since the start.
        macro_f1_pure: of windows without a change in them.
        rolling_accuracy: over the last :data:`ROLLING_WINDOWS`.
        rolling_macro_f1: over the last :data:`ROLLING_WINDOWS`.
        unknown_share: of the scored windows, answered ``unknown``.
        foreign: windows of an activity that the bundle does not know.
        foreign_unknown: of those, answered ``unknown``, which is right.
    """

    model: str
    windows: int
    accuracy: float | None
    macro_f1: float | None
    macro_f1_pure: float | None
    rolling_accuracy: float | None
    rolling_macro_f1: float | None
    unknown_share: float | None
    foreign: int
    foreign_unknown: int


class LiveScore:
    """Accumulates the score of one bundle.

    Attributes:
        confusion: windows by (truth, likeliest), indices into the bundle's labels.
    """

    def __init__(self, model: str, *, rolling_windows: int = ROLLING_WINDOWS) -> None:
        self.model = model
        self.confusion: Counter[tuple[int, int]] = Counter()
        self._windows = 0
        self._pure = 0
        self._unknown = 0
        self._foreign = 0
        self._foreign_unknown = 0
        self._accuracy = _metrics.Accuracy()
        self._macro_f1 = _metrics.MacroF1()
        self._macro_f1_pure = _metrics.MacroF1()
        self._rolling_accuracy = _utils.Rolling(_metrics.Accuracy, window_size=rolling_windows)
        self._rolling_macro_f1 = _utils.Rolling(_metrics.MacroF1, window_size=rolling_windows)

    def update(self, scored: Scored) -> None:
        """Take one window whose truth is known."""
        truth, likeliest, unknown = scored.truth_index, scored.predicted.likeliest, scored.predicted.unknown
        if truth is None:
            self._foreign += 1
            self._foreign_unknown += unknown
            return
        self._windows += 1
        self._unknown += unknown
        self.confusion[truth, likeliest] += 1
        for metric in (self._accuracy, self._macro_f1, self._rolling_accuracy, self._rolling_macro_f1):
            metric.update(truth, likeliest)
        if scored.pure:
            self._pure += 1
            self._macro_f1_pure.update(truth, likeliest)

    def read(self) -> Score:
        """The figures now."""
        some = self._windows > 0
        return Score(
            model=self.model,
            windows=self._windows,
            accuracy=float(self._accuracy.get()) if some else None,
            macro_f1=float(self._macro_f1.get()) if some else None,
            macro_f1_pure=float(self._macro_f1_pure.get()) if self._pure else None,
            rolling_accuracy=float(self._rolling_accuracy.get()) if some else None,
            rolling_macro_f1=float(self._rolling_macro_f1.get()) if some else None,
            unknown_share=self._unknown / self._windows if some else None,
            foreign=self._foreign,
            foreign_unknown=self._foreign_unknown,
        )
