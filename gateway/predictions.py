"""Answers: from a network's probabilities to the message that everybody may read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.labels import Predicted
from gateway.windows import Window
from protocol.messages import UNKNOWN, Activity, SourceKind
from protocol.packet import TICK_MODULUS


@dataclass(frozen=True, slots=True)
class Answer:
    """One window's answer: what is published and what is scored."""

    activity: Activity
    predicted: Predicted


def usable(probabilities: NDArray[np.float32]) -> bool:
    """Whether a row of probabilities is finite: a network with broken weights gives NaN, which is no answer."""
    return bool(np.isfinite(probabilities).all())


def make_answer(
    window: Window, probabilities: NDArray[np.float32], evidence: float, *, source: SourceKind | None, now_ns: int
) -> Answer:
    """Answer one window.

    Args:
        window: what was asked.
        probabilities: ``[K]``, finite.
        evidence: how strongly the window resembles what was learned (:class:`models.bundle.Prediction`).
        source: where the device says its samples come from.
        now_ns: UTC of the answer.
    """
    bundle = window.bundle
    answer, likeliest, probability = bundle.answer(probabilities, evidence)
    activity = Activity(
        activity=answer,
        likeliest=likeliest,
        probability=min(1.0, probability),  # a softmax in float32 may exceed 1 by a rounding
        from_tick=window.from_tick,
        to_tick=round(float(window.ticks[-1]) + window.period_ms) % TICK_MODULUS,
        from_ms=max(0, round(window.from_ms)),
        to_ms=max(0, round(window.to_ms + window.period_ms)),
        latency_ms=max(0, now_ns - window.received_ns) / 1e6,
        model=bundle.reference,
        source=source,
    )
    return Answer(
        activity,
        Predicted(
            window=window,
            likeliest=int(probabilities.argmax()),
            unknown=answer == UNKNOWN,
            probability=activity.probability,
            answered_ns=now_ns,
        ),
    )
