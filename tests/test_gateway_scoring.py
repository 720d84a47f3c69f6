from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from gateway.drift import Drift
from gateway.labels import Predicted, Scored
from gateway.scoring import LiveScore
from gateway.windows import Window
from models.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("bundles")
    return tiny_bundle(folder)


def scored(bundle: Bundle, truth: int | None, likeliest: int, *, pure: bool = True, unknown: bool = False) -> Scored:
    window = Window("w", 1, bundle, np.zeros((50, 6), np.uint8), np.arange(50.0), 1.0, 0.0, 0.0, 0)
    name = "JUGGLING" if truth is None else bundle.labels[truth]
    return Scored(Predicted(window, likeliest, unknown=unknown, probability=0.5, answered_ns=0), name, truth, pure)


def macro_f1(truth: list[int], likeliest: list[int]) -> float:
    return float(f1_score(truth, likeliest, average="macro", zero_division=0))


@settings(deadline=None)
@given(
    answers=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), min_size=1, max_size=120),
    span=st.integers(1, 40),
)
def test_the_live_score_is_the_offline_score(bundle: Bundle, answers: list[tuple[int, int, bool]], span: int) -> None:
    """To 1e-9, also rolling, where classes leave the span; classes are those in truth or prediction."""
    live = LiveScore("m", rolling_windows=span)
    for truth, likeliest, pure in answers:
        live.update(scored(bundle, truth, likeliest, pure=pure))
    t, y = [a[0] for a in answers], [a[1] for a in answers]
    score = live.read()
    assert score.windows == len(answers)
    assert score.macro_f1 == pytest.approx(macro_f1(t, y), abs=1e-9)
    assert score.accuracy == pytest.approx(accuracy_score(t, y), abs=1e-9)
    assert score.rolling_macro_f1 == pytest.approx(macro_f1(t[-span:], y[-span:]), abs=1e-9)
    assert score.rolling_accuracy == pytest.approx(accuracy_score(t[-span:], y[-span:]), abs=1e-9)
    pure = [a for a in answers if a[2]]
    if pure:
        assert score.macro_f1_pure == pytest.approx(macro_f1([a[0] for a in pure], [a[1] for a in pure]), abs=1e-9)
    else:
        assert score.macro_f1_pure is None
    assert live.confusion.total() == len(answers)


def test_nothing_scored_is_no_score() -> None:
    score = LiveScore("m").read()
    assert (score.accuracy, score.macro_f1, score.rolling_macro_f1, score.unknown_share) == (None, None, None, None)


def test_unknown_answers_are_scored_by_the_likeliest_and_counted(bundle: Bundle) -> None:
    live = LiveScore("m")
    live.update(scored(bundle, 1, 1, unknown=True))
    live.update(scored(bundle, 1, 1))
    assert live.read().accuracy == 1.0
    assert live.read().unknown_share == 0.5


def test_foreign_activities_have_a_tally_of_their_own(bundle: Bundle) -> None:
    live = LiveScore("m")
    live.update(scored(bundle, None, 1, unknown=True))
    live.update(scored(bundle, None, 1))
    score = live.read()
    assert (score.windows, score.accuracy, score.foreign, score.foreign_unknown) == (0, None, 2, 1)


def test_adwin_sees_a_change_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    drift = Drift()
    for error in rng.random(1000) < 0.1:
        drift.update("error", float(error))
        drift.update("confidence", 0.9)
    assert dict(drift.events) == {"error": 0, "confidence": 0}
    for error in rng.random(1000) < 0.6:
        drift.update("error", float(error))
        drift.update("confidence", 0.9)
    assert drift.events["error"] >= 1
    assert drift.events["confidence"] == 0
