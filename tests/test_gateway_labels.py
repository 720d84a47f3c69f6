from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import LABELS, tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import DeviceClock
from gateway.labels import MAX_RANGES, MAX_WAITING, LabelTrack, Predicted, Scored
from gateway.refusals import RefusedMessageError
from gateway.windows import Window
from models.bundle import Bundle
from models.windows import majority_label
from protocol.messages import Label
from protocol.packet import TICK_MODULUS

LATENESS_MS = 10_000
PERIOD = 20.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("bundles")
    return tiny_bundle(folder)


@pytest.fixture
def clock() -> DeviceClock:
    made = DeviceClock()
    made.observe(0.0, 1_000_000.0)
    return made


@pytest.fixture
def track(clock: DeviceClock) -> LabelTrack:
    made = LabelTrack(LATENESS_MS)
    made.begin(1, 0, clock)
    return made


def predicted(
    bundle: Bundle, start: float = 0.0, *, epoch: int = 1, answered_ms: int = 0, period: float = PERIOD
) -> Predicted:
    ticks = start + period * np.arange(50)
    codes = np.zeros((50, 6), dtype=np.uint8)
    window = Window("w", epoch, bundle, codes, ticks, period, 0.0, 0.0, 0)
    return Predicted(window, likeliest=0, unknown=False, probability=1.0, answered_ns=answered_ms * 10**6)


def ticks(activity: str, start: int, end: int) -> Label:
    return Label(activity=activity, from_tick=start % TICK_MODULUS, to_tick=end % TICK_MODULUS)


def only(scored: list[Scored]) -> Scored:
    (one,) = scored
    return one


def test_labels_first(track: LabelTrack, clock: DeviceClock, bundle: Bundle) -> None:
    track.add(ticks("WALKING", 0, 1000), 0, clock)
    one = only(track.predict(predicted(bundle)))
    assert (one.truth, one.truth_index, one.pure) == ("WALKING", 2, True)


def test_windows_first_then_labels_out_of_order(track: LabelTrack, clock: DeviceClock, bundle: Bundle) -> None:
    assert track.predict(predicted(bundle)) == []
    assert track.add(ticks("SEATED", 600, 1000), 0, clock) == []
    one = only(track.add(ticks("WALKING", 0, 600), 0, clock))
    assert (one.truth, one.pure) == ("WALKING", False)
    assert track.waiting == 0


def test_ranges_are_half_open(track: LabelTrack, clock: DeviceClock, bundle: Bundle) -> None:
    """25 samples each: of two equally frequent the lower index, as in training."""
    track.add(ticks("WALKING", 0, 500), 0, clock)
    track.add(ticks("SEATED", 500, 1000), 0, clock)
    assert only(track.predict(predicted(bundle))).truth == "SEATED"
    track.add(ticks("WALKING", 1000, 1520), 0, clock)
    track.add(ticks("SEATED", 1520, 2000), 0, clock)
    assert only(track.predict(predicted(bundle, 1000.0))).truth == "WALKING"


def test_lateness(track: LabelTrack, clock: DeviceClock, bundle: Bundle) -> None:
    track.predict(predicted(bundle, 0.0))
    track.predict(predicted(bundle, 500.0, answered_ms=500))
    track.add(ticks("WALKING", 0, 700), 0, clock)
    assert track.expire((LATENESS_MS - 1) * 10**6) == []
    one = only(track.expire(LATENESS_MS * 10**6))
    assert (one.truth, one.pure) == ("WALKING", False)  # 35 of 50 samples are known
    assert track.expire((LATENESS_MS + 500) * 10**6) == []  # 10 of 50: mostly unlabelled, not scored
    assert track.waiting == 0


def test_wall_times_are_mapped(track: LabelTrack, clock: DeviceClock, bundle: Bundle) -> None:
    track.add(Label(activity="WALKING", from_ms=1_000_000, to_ms=1_001_000), 0, clock)
    assert only(track.predict(predicted(bundle))).pure


def test_ticks_wrap(clock: DeviceClock, bundle: Bundle) -> None:
    first = 2**32 - 400
    track = LabelTrack(LATENESS_MS)
    track.begin(1, first, clock)
    track.add(ticks("WALKING", first, first + 1000), first, clock)
    assert only(track.predict(predicted(bundle, float(first)))).pure


def test_labels_before_the_first_packet(clock: DeviceClock, bundle: Bundle) -> None:
    track = LabelTrack(LATENESS_MS)
    track.add(ticks("WALKING", 0, 1000), None, clock)
    track.begin(1, 0, clock)
    assert only(track.predict(predicted(bundle))).pure


def test_an_activity_that_the_bundle_does_not_know(track: LabelTrack, clock: DeviceClock, bundle: Bundle) -> None:
    track.add(ticks("JUGGLING", 0, 400), 0, clock)
    track.add(ticks("DANCING", 400, 800), 0, clock)
    track.add(ticks("WALKING", 800, 1000), 0, clock)
    one = only(track.predict(predicted(bundle)))
    assert (one.truth, one.truth_index) == ("DANCING", None)


def test_a_restart_settles_what_waits(track: LabelTrack, clock: DeviceClock, bundle: Bundle) -> None:
    track.predict(predicted(bundle))
    track.add(ticks("WALKING", 0, 900), 0, clock)
    assert only(track.begin(2, 0, clock)).truth == "WALKING"
    assert track.predict(predicted(bundle, epoch=1)) == []
    assert track.waiting == 0


@pytest.mark.parametrize(
    "label",
    [
        Label(activity="A", from_tick=5, to_tick=5),
        Label(activity="A", from_tick=1000, to_tick=0),
        Label(activity="A", from_tick=0, to_tick=2**32 - 1),
        Label(activity="A", from_ms=0, to_ms=2**53 - 1),
        Label(activity="A", from_ms=0, to_ms=1000),  # 1970
        Label(activity="A", from_tick=2**31, to_tick=2**31 + 10),
    ],
)
def test_absurd_ranges_are_refused(label: Label, track: LabelTrack) -> None:
    today = DeviceClock()
    today.observe(0.0, 1_790_000_000_000.0)
    with pytest.raises(RefusedMessageError) as caught:
        track.add(label, 0, today)
    assert caught.value.reason == "label_range"


def test_memory_is_bounded(track: LabelTrack, clock: DeviceClock, bundle: Bundle) -> None:
    for i in range(3 * MAX_WAITING):
        track.predict(predicted(bundle, 500.0 * i))
    for i in range(3 * MAX_RANGES):
        track.add(ticks(f"A{i}", 20 * i, 20 * i + 1), 0, clock)
    assert track.waiting <= MAX_WAITING
    assert len(track._ranges) <= MAX_RANGES


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rate_hz=st.sampled_from([20.0, 30.0, 50.0, 64.0, 100.0]))
def test_rounded_ticks_label_the_same_samples(bundle: Bundle, seed: int, rate_hz: float) -> None:
    """A labeller rounds each sample's time to a tick, a packet only its first: the majority is the same."""
    rng = np.random.default_rng(seed)
    label = np.repeat(rng.integers(0, 5, 12), rng.integers(1, 15, 12))[:50].astype(np.int16)
    label = np.pad(label, (0, 50 - len(label)), mode="edge")
    first = int(rng.integers(0, 10**6))
    true_ticks = np.rint((first + np.arange(51)) * 1000 / rate_hz).astype(int)
    clock = DeviceClock()
    clock.observe(0.0, 0.0)
    track = LabelTrack(LATENESS_MS)
    track.begin(1, int(true_ticks[0]), clock)
    edges = [0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), 50]
    order = rng.permutation(len(edges) - 1)
    for k in order:
        i, j = edges[k], edges[k + 1]
        track.add(ticks(LABELS[label[i]], int(true_ticks[i]), int(true_ticks[j])), int(true_ticks[0]), clock)
    one = only(track.predict(predicted(bundle, float(true_ticks[0]), period=1000 / rate_hz)))
    truth, pure = majority_label(label[None], 5)
    assert (one.truth_index, one.pure) == (int(truth[0]), bool(pure[0]))
